"""The tokenizer of a model directory, by the mode the user chose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jackfield.config.environment import encode_in_one_thread
from jackfield.contracts.text import Tokenizer, TokenizerMode
from jackfield.errors import RAISED, CheckpointError, JackfieldError

if TYPE_CHECKING:
    from jackfield.registry import Registry


def load_tokenizer(
    registry: Registry, mode: str, directory: str, trust_remote_code: bool = False
) -> Tokenizer:
    """Loads it; ``PluginError`` for an unknown mode, ``CheckpointError`` for bad files."""
    encode_in_one_thread()
    loader: TokenizerMode = registry.make("tokenizers", mode)
    try:
        return loader.load(directory, trust_remote_code=trust_remote_code)
    except JackfieldError:
        raise
    except RAISED as error:  # a plugin may raise anything; the user gets one line
        raise CheckpointError(
            f"tokenizer mode {mode!r} cannot load {directory}: {type(error).__name__}: {error}"
        ) from error
