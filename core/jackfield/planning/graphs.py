"""Which decode steps become CUDA graphs: ``--compilation-config`` and the options beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jackfield.config.settings import Settings
from jackfield.config.suggestion import did_you_mean
from jackfield.errors import ConfigError

_FLAG = "--compilation-config"
_LEVELS = (0, 1, 2, 3)
_MODES = {"NONE": False, "FULL": True, "FULL_DECODE_ONLY": True, "FULL_AND_PIECEWISE": True}
_COMPILE_MODES = (0, 1, 2, 3, "NONE", "STOCK_TORCH_COMPILE", "DYNAMO_TRACE_ONCE", "VLLM_COMPILE")
_LARGEST = ("max_cudagraph_capture_size", "max_capture_size")
_KEYS = ("level", "cudagraph_mode", "use_cudagraph", "cudagraph_capture_sizes", *_LARGEST)
# vLLM's keys about compilation, and what they may say: that there is none, or what is so anyway.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "mode": _COMPILE_MODES,
    "backend": ("", "eager"),
    "custom_ops": ([], ["all"]),
    "full_cuda_graph": (True,),
    "pass_config": ({},),
    "splitting_ops": ([],),
    "use_inductor": (False,),
}


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """``sizes``: decode batches to capture; empty: the usual ones up to ``max_batch``. Steps with
    a sequence longer than ``max_seq_len`` tokens run without a graph; None: no step does."""

    enforce_eager: bool
    sizes: tuple[int, ...]
    max_batch: int
    max_seq_len: int | None


def graph_plan(settings: Settings) -> GraphPlan:
    """What the options say together; ``ConfigError`` for a key or value that means nothing."""
    config = settings.compilation_config
    for key, value in config.items():
        if key not in _KEYS and value not in _NEUTRAL.get(key, ()):
            raise ConfigError(
                f"{_FLAG} has the key {key!r}, which is not built: kernels are written by hand and "
                f"nothing is compiled; leave it out (keys: {', '.join(_KEYS)})"
                f"{did_you_mean(key, _KEYS)}"
            )
    sizes = config.get("cudagraph_capture_sizes", list(settings.cudagraph_capture_sizes))
    if not isinstance(sizes, list) or not all(map(_is_size, sizes)):
        raise ConfigError(f"{_FLAG}: cudagraph_capture_sizes are whole numbers from 1 on")
    max_batch = settings.max_cudagraph_capture_size
    for key in _LARGEST:
        max_batch = config.get(key, max_batch)
        if not _is_size(max_batch):
            raise ConfigError(f"{_FLAG}: {key} is a whole number from 1 on, not {max_batch!r}")
    return GraphPlan(
        enforce_eager=settings.enforce_eager or not _wants_graphs(config),
        sizes=tuple(sorted(set(sizes))),
        max_batch=max_batch,
        max_seq_len=settings.max_seq_len_to_capture,
    )


def _wants_graphs(config: dict[str, object]) -> bool:
    """Not at level 0, nor where graphs are turned off by name."""
    level = config.get("level", 1)
    if isinstance(level, bool) or level not in _LEVELS:
        raise ConfigError(f"{_FLAG}: the level is 0 (no CUDA graphs), 1, 2 or 3, not {level!r}")
    wanted = config.get("use_cudagraph", True)
    if not isinstance(wanted, bool):
        raise ConfigError(f"{_FLAG}: use_cudagraph is true or false, not {wanted!r}")
    mode = config.get("cudagraph_mode", "FULL")
    if mode not in _MODES:
        raise ConfigError(f"{_FLAG}: cudagraph_mode is {', '.join(_MODES)}, not {mode!r}")
    return level != 0 and wanted and _MODES[mode]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
