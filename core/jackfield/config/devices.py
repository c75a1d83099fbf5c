"""What computes, with which kernels, in which processes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from jackfield.config.values import CompilationConfig, HumanInt, IntList, OptionGroup, Spelling


class DeviceOptions(OptionGroup):
    """Device"""

    device: str = Field("auto", description="platforms plugin: auto, cuda, cpu, or a name")
    attention_backend: str = Field(
        "auto", description="attention_backends plugin: auto (as the device needs) or a name"
    )
    enforce_eager: bool = Field(
        False, description="no CUDA graphs, and no recorded steps on the CPU"
    )
    compilation_config: Annotated[
        CompilationConfig, Spelling("-O", "-cc", "--optimization-level")
    ] = Field(
        default_factory=dict,
        description="0: no CUDA graphs; 1 to 3: CUDA graphs; or a JSON object with level, "
        "cudagraph_mode, cudagraph_capture_sizes, max_cudagraph_capture_size",
    )
    cudagraph_capture_sizes: Annotated[IntList, Spelling("--cuda-graph-sizes")] = Field(
        (), description="decode batches that get a CUDA graph; default: by size up to the largest"
    )
    max_cudagraph_capture_size: HumanInt = Field(
        512, ge=1, description="largest decode batch that gets a CUDA graph"
    )
    max_seq_len_to_capture: HumanInt | None = Field(
        None,
        ge=1,
        description="tokens from which on a sequence's steps run without CUDA graphs; default: "
        "graphs serve every length",
    )
    num_threads: int = Field(
        0, ge=0, le=1024, description="compute threads on the CPU; 0: the physical cores"
    )
    cpu_offload_gb: float = Field(
        0.0,
        ge=0,
        description="GiB of weights that stay in the host's memory, for each GPU; their layers are "
        "copied ahead in every step",
    )
    worker_cls: str = Field("auto", description="workers plugin, by name or module:Class")
    worker_extension_cls: str = Field(
        "",
        description="module:Class whose methods are mixed into the worker, for collective_rpc",
    )
    distributed_executor_backend: str | None = Field(
        None, description="executors plugin: uni, or a name or module:Class"
    )
