"""Which device serves, and the limits that suit it."""

from __future__ import annotations

from dataclasses import dataclass

from jackfield.config.settings import Settings
from jackfield.contracts.platform import Platform
from jackfield.errors import ConfigError
from jackfield.registry import Registry


@dataclass(frozen=True, slots=True)
class DeviceDefaults:
    """Limits that hold where the user gives none, and what becomes of float32 checkpoints."""

    block_size: int
    max_num_batched_tokens: int
    max_num_seqs: int
    dtype_for_float32: str
    max_num_lone_tokens: int = 0
    """Of a step for a prompt that is alone; 0: as with others."""
    max_compilers: int = 0
    """Processes that compile kernels during the start."""
    loads_grammars_early: bool = False
    """Before a request wants structured output: the first one need not wait then."""


HOST = DeviceDefaults(
    block_size=16, max_num_batched_tokens=1024, max_num_seqs=64, dtype_for_float32="float32"
)
ACCELERATOR = DeviceDefaults(
    block_size=64,
    max_num_batched_tokens=4096,
    max_num_seqs=256,
    dtype_for_float32="bfloat16",
    max_num_lone_tokens=16384,
    max_compilers=16,
    loads_grammars_early=True,
)


def choose_platform(wanted: str, registry: Registry) -> tuple[str, DeviceDefaults]:
    """The platform plugin and its defaults. ``auto`` is the first bundled one that this machine
    has, accelerators before the host; another distribution's must be named."""
    if wanted == "auto":
        name, platform = _detect(registry)
    else:
        name, platform = wanted, registry.load("platforms", wanted)
        if not platform.available():
            raise ConfigError(f"--device {wanted}: this machine has no such device")
    return name, ACCELERATOR if _is_accelerator(platform) else HOST


def _detect(registry: Registry) -> tuple[str, type[Platform]]:
    found: list[tuple[str, type[Platform]]] = [
        (entry.name, registry.load_entry(entry))
        for entry in registry.list("platforms")
        if entry.is_bundled
    ]
    for name, platform in sorted(found, key=lambda each: not _is_accelerator(each[1])):
        if platform.available():
            return name, platform
    raise ConfigError("no device was found; name one with --device")


def _is_accelerator(platform: type[Platform]) -> bool:
    """Whether the device computes beside the host: then steps are enqueued ahead."""
    return platform.steps_in_flight > 1


@dataclass(frozen=True, slots=True)
class StepLimits:
    """How much one step computes."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_lone_tokens: int
    """At least ``max_num_batched_tokens``."""


def step_limits(
    settings: Settings,
    defaults: DeviceDefaults,
    max_model_len: int,
    *,
    whole_prompts: bool = False,
    most_tokens: int | None = None,
) -> StepLimits:
    """The limits asked for; what was not asked for follows from what was. ``whole_prompts``: the
    model can compute a prompt in one step only; ``most_tokens``: a step can have no more."""
    whole_prompts = whole_prompts or not settings.enable_chunked_prefill
    tokens, seqs = settings.max_num_batched_tokens, settings.max_num_seqs
    if most_tokens is not None:
        tokens = _below(most_tokens, tokens, defaults, max_model_len if whole_prompts else 0)
    if tokens is None:
        tokens = max(defaults.max_num_batched_tokens, seqs or 0)
        if whole_prompts:
            tokens = max(tokens, max_model_len)
    elif whole_prompts and tokens < max_model_len:
        raise ConfigError(
            f"--max-num-batched-tokens {tokens} is below --max-model-len {max_model_len}: an "
            "encoder, or --no-enable-chunked-prefill, computes a prompt in one step"
        )
    if seqs is None:
        seqs = min(defaults.max_num_seqs, tokens)
    elif seqs > tokens:
        raise ConfigError(
            f"--max-num-batched-tokens {tokens} is below --max-num-seqs {seqs}: each sequence of a "
            "step needs a token"
        )
    lone = tokens
    if settings.max_num_batched_tokens is None and most_tokens is None and not whole_prompts:
        # A few long steps are faster than many, and nobody waits for one.
        lone = max(tokens, min(defaults.max_num_lone_tokens, max_model_len))
    return StepLimits(seqs, tokens, lone)


def _below(most: int, asked: int | None, defaults: DeviceDefaults, longest: int) -> int:
    """The tokens of a step where there can be at most so many, ``longest`` of them one prompt."""
    if (asked or longest) > most:
        flag = "--max-num-batched-tokens" if asked else "--max-model-len"
        raise ConfigError(
            f"{flag} {asked or longest} is above {most}: a step has no more tokens where each has "
            "a vector of its own"
        )
    return asked or min(most, max(defaults.max_num_batched_tokens, longest))


def offload_bytes(settings: Settings, platform: str, defaults: DeviceDefaults) -> int:
    """Weights that stay in the host's memory; a device that has no other refuses the option."""
    size = int(settings.cpu_offload_gb * 2**30)
    if size and defaults == HOST:
        raise ConfigError(
            f"--cpu-offload-gb {settings.cpu_offload_gb:g}: platform {platform!r} computes in the "
            "host's memory, where the weights are anyway; leave it out"
        )
    return size


def block_size(settings: Settings, defaults: DeviceDefaults) -> int:
    """Tokens in a KV block; kernels need a power of two."""
    size = settings.block_size or defaults.block_size
    if size & (size - 1):
        raise ConfigError(f"--block-size {size} is no power of two")
    return size
