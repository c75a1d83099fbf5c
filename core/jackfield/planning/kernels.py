"""Who computes attention, in which processes; and vLLM's names for what is so anyway."""

from __future__ import annotations

import logging

from jackfield.config.settings import Settings
from jackfield.registry import Registry

log = logging.getLogger(__name__)

DEFAULT_EXECUTOR = "uni"
_PROCESSES = "mp"
"""vLLM's name for a process for each device, of which there is one here."""
_VLLM_ATTENTION = frozenset(
    """
    CPU_ATTN FLASH_ATTN FLASH_ATTN_VLLM_V1 FLASHINFER FLASHINFER_VLLM_V1 FLEX_ATTENTION
    ROCM_AITER_FA ROCM_AITER_UNIFIED_ATTN ROCM_ATTN ROCM_FLASH TORCH_SDPA TORCH_SDPA_VLLM_V1
    TRITON_ATTN TRITON_ATTN_VLLM_V1 XFORMERS XFORMERS_VLLM_V1
    """.split()
)
"""All of these compute the same."""


def choose_attention(settings: Settings, registry: Registry) -> str:
    """The attention_backends plugin, or ``auto``. Raises for a name that nobody offers."""
    name = settings.attention_backend
    if name == "auto":
        return name
    if name.upper() in _VLLM_ATTENTION and not registry.offers("attention_backends", name):
        log.warning(
            "--attention-backend %s has no effect: its kernels are vLLM's, and the device's own "
            "compute the same; leave it out",
            name,
        )
        return "auto"
    registry.find("attention_backends", name)
    return name


def choose_executor(settings: Settings, registry: Registry) -> str:
    """The executors plugin. Raises for a name that nobody offers."""
    name = settings.distributed_executor_backend or DEFAULT_EXECUTOR
    if name == _PROCESSES and not registry.offers("executors", name):
        log.warning(
            "--distributed-executor-backend %s has no effect: one device serves the model, in the "
            "engine's process; leave it out",
            name,
        )
        return DEFAULT_EXECUTOR
    registry.find("executors", name)
    return name
