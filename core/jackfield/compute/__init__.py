"""Tensors: layers, attention, sampling and the model runner."""
