"""What every model that transformers computes needs: its configuration, its weights, silence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import transformers
from torch import Tensor

from jackfield.contracts.model import BuildContext
from jackfield.errors import CheckpointError

_NAMES_SHOWN = 3


def read_config(config: Mapping[str, object], context: BuildContext) -> Any:
    """transformers' configuration, by ``model_type`` or by the checkpoint's own code.

    Without the quantization, which is ours to apply: transformers would look for its own packages.
    """
    found = _read_config(config, context)
    if hasattr(found, "quantization_config"):
        del found.quantization_config
    return found


def _read_config(config: Mapping[str, object], context: BuildContext) -> Any:
    if context.trust_remote_code and "auto_map" in config:
        return transformers.AutoConfig.from_pretrained(
            context.directory,
            trust_remote_code=True,
            code_revision=context.code_revision,
            **config,
        )
    kind = config.get("model_type")
    try:
        config_class = transformers.CONFIG_MAPPING[kind]
    except KeyError:
        raise CheckpointError(
            f"transformers {transformers.__version__} does not know the model_type {kind!r}"
        ) from None
    return config_class.from_dict(dict(config))


def load_model(
    model_class: Any,
    config: Any,
    weights: Iterable[tuple[str, Tensor]],
    context: BuildContext,
    attention: str,
    ignorable: str | None = None,
) -> Any:
    """A model with these weights, whose names and layouts are converted by transformers.

    Raises ``CheckpointError`` for what is missing, has another shape, or is unknown and not
    ``ignorable`` (a regular expression, searched).
    """
    try:
        with quiet():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(weights),
                dtype=context.dtype,
                attn_implementation=attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the report has them
            )
    except RuntimeError as error:
        if "conversion" not in str(error):
            raise
        raise CheckpointError(
            f"transformers cannot put tensors of {model_class.__name__} together: some are missing "
            "or have another shape (all experts of a layer must be there)"
        ) from error
    for key, fault in (
        ("missing_keys", "lacks"),
        ("mismatched_keys", "has other shapes for"),
        ("unexpected_keys", "has no place in the model for"),
    ):
        # Of another shape: the name with both shapes.
        found = (name[0] if isinstance(name, tuple) else name for name in report.get(key) or ())
        names = sorted(found)
        if ignorable is not None and key == "unexpected_keys":
            names = [name for name in names if not re.search(ignorable, name)]
        if names:
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            raise CheckpointError(f"the checkpoint {fault} {', '.join(names[:_NAMES_SHOWN])}{more}")
    return model


class quiet:
    """Silences transformers' progress bars and warnings; the check of the report says more."""

    def __enter__(self) -> None:
        logging = transformers.utils.logging
        self._verbosity = logging.get_verbosity()
        self._bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *exception: object) -> None:
        logging = transformers.utils.logging
        logging.set_verbosity(self._verbosity)
        if self._bars:
            logging.enable_progress_bar()
