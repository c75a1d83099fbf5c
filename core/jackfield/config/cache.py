"""The KV cache: how large, in what blocks, and what is shared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from jackfield.config.values import HumanInt, MemoryShare, OptionGroup, Spelling

_WITHOUT_CBOR = {"sha256_cbor": "sha256", "sha256_cbor_64bit": "sha256", "xxhash_cbor": "xxhash"}


def _hash_name(value: object) -> object:
    """vLLM's names for the same hash of a form that other programs can make too."""
    return _WITHOUT_CBOR.get(value, value) if isinstance(value, str) else value


HashName = Annotated[Literal["builtin", "sha256", "xxhash"], BeforeValidator(_hash_name)]


class CacheOptions(OptionGroup):
    """KV cache"""

    block_size: int | None = Field(
        None, ge=8, le=256, description="tokens in a KV block; default: 64 on a GPU, 16 on the CPU"
    )
    gpu_memory_utilization: Annotated[MemoryShare, Spelling("--device-memory-utilization")] = Field(
        0.9,
        gt=0,
        description="GPU memory for weights, activations and KV cache: a share up to 1, or bytes,"
        " such as 20G; CUDA itself and captured graphs lie outside of it",
    )
    num_gpu_blocks_override: HumanInt | None = Field(
        None, ge=2, description="number of KV blocks, whatever memory there is"
    )
    kv_cache_memory_bytes: HumanInt | None = Field(
        None,
        ge=1,
        description="memory for the KV cache, in bytes (20G), whatever --gpu-memory-utilization and"
        " --cpu-kv-cache-gib say",
    )
    cpu_kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="memory for the KV cache on the CPU, in GiB, all of which may fill with"
        " prefixes; default: 0.25 to begin with, more where requests need it or prefixes come"
        " back, up to 4 or half of the memory that is free",
    )
    kv_cache_dtype: Literal[
        "auto", "bfloat16", "float16", "float32", "fp8", "fp8_e4m3", "fp8_e5m2"
    ] = Field(
        "auto",
        description="what keys and values are kept as: auto (8 bits if the checkpoint says so, "
        "else the model's dtype), the model's dtype by name, or 8-bit floats; fp8 is fp8_e4m3",
    )
    calculate_kv_scales: bool = Field(
        False,
        description="measure the scales of an 8-bit KV cache at the start, instead of the "
        "checkpoint's or 1",
    )
    preemption_mode: Literal["recompute", "swap"] = Field(
        "recompute",
        description="a request that gives up its KV blocks is computed again, or has them copied "
        "to the host's memory and back",
    )
    swap_space: float = Field(
        4.0, ge=0, description="host memory for --preemption-mode swap, in GiB"
    )
    enable_prefix_caching: bool = Field(
        True, description="keep the KV of prompts for later ones with the same beginning"
    )
    prefix_caching_hash_algo: HashName = Field(
        "sha256",
        description="hash of KV blocks; builtin and xxhash are faster and may be made to collide; "
        "sha256_cbor and xxhash_cbor are the same, as hashes do not leave the engine",
    )
