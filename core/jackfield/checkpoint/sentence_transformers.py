"""What a checkpoint in the layout of sentence-transformers says of its texts and its pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jackfield.checkpoint.reading import parse_json, read_json_object, read_optional_json, read_text
from jackfield.errors import CheckpointError

_KINDS = {
    "lasttoken": "last",
    "mean_tokens": "mean",
    "mean": "mean",
    "cls_token": "cls",
    "cls": "cls",
}
_FLAG = "pooling_mode_"
_PASSIVE = ("Transformer", "Pooling", "Normalize")
# Of the Transformer step, after the first models that it was written for.
_TEXT_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True, slots=True)
class SentencePooling:
    """``kind`` is ``last``, ``mean`` or ``cls``; ``max_tokens`` is what texts are cut to, None if
    that is not said."""

    kind: str
    normalize: bool
    max_tokens: int | None = None


def read_sentence_pooling(directory: Path) -> SentencePooling | None:
    """The steps of ``modules.json``; None where there is none, or nothing about vectors in it.

    Raises ``CheckpointError`` for steps that would change the vectors and cannot be computed.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return None
    steps = _read_steps(path)
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps]
    # ColBERT's have a Dense step and no pooling.
    if "Pooling" not in kinds and "Dense" not in kinds:
        return None
    unknown = [kind for kind in kinds if kind not in _PASSIVE]
    if unknown:
        raise CheckpointError(f"{path}: steps of the kind {', '.join(unknown)} are not built yet")
    folder = directory / str(steps[kinds.index("Pooling")].get("path", ""))
    kind = _read_kind(folder / "config.json")
    return SentencePooling(kind, "Normalize" in kinds, _read_max_tokens(directory))


def _read_steps(path: Path) -> list[Mapping[str, object]]:
    steps = parse_json(read_text(path), path)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"cannot read {path}: it is not a JSON list of objects")
    return steps


def _read_max_tokens(directory: Path) -> int | None:
    config = next(filter(None, (read_optional_json(directory / name) for name in _TEXT_FILES)), {})
    length = config.get("max_seq_length")
    return length if type(length) is int and length > 0 else None


def _read_kind(path: Path) -> str:
    config = read_json_object(path)
    # Newer versions write one name, older ones a flag for each mode.
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else []
    modes += [key.removeprefix(_FLAG) for key in config if key.startswith(_FLAG) and config[key]]
    if len(modes) != 1 or modes[0] not in _KINDS:
        raise CheckpointError(
            f"{path}: pooling by {' and '.join(modes) or 'nothing'} is not built yet; give "
            'another by --override-pooler-config \'{"pooling_type": "MEAN"}\''
        )
    return _KINDS[modes[0]]
