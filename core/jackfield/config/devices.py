"""What computes, with which kernels, in which processes."""

from __future__ import annotations

from pydantic import Field

from jackfield.config.values import HumanInt, OptionGroup


class DeviceOptions(OptionGroup):
    """Device"""

    device: str = Field("auto", description="platforms plugin: auto, cuda, cpu, or a name")
    attention_backend: str = Field(
        "auto", description="attention_backends plugin: auto (as the device needs) or a name"
    )
    enforce_eager: bool = Field(False, description="no CUDA graphs")
    max_cudagraph_capture_size: HumanInt = Field(
        512, ge=1, description="largest decode batch that gets a CUDA graph"
    )
    num_threads: int = Field(
        0, ge=0, le=1024, description="compute threads on the CPU; 0: the physical cores"
    )
    worker_cls: str = Field("auto", description="workers plugin, by name or module:Class")
    distributed_executor_backend: str | None = Field(
        None, description="executors plugin: uni, or a name or module:Class"
    )
