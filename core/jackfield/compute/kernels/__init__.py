"""Triton kernels for NVIDIA GPUs from Hopper on; each has a plain function that launches it.

Arithmetic is float32 inside, whatever the dtype of the tensors. A kernel launched as a
*programmatic dependent* (CUDA programming guide, "Programmatic Dependent Launch") may start
while the kernel before it still runs: it lets its own successor start at once, loads weights,
waits for its predecessor, and only then reads what the step computed. Every such kernel waits,
on every path, so that the order holds over any number of kernels.
"""
