"""What the model is served for: text, or vectors and scores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jackfield.config.values import JsonObject, OptionGroup, Spelling


class PoolingOptions(OptionGroup):
    """Task"""

    task: Literal["auto", "generate", "embedding", "embed", "classify", "score", "reward"] = Field(
        "auto", description="what the model is served for; auto: what the checkpoint is made for"
    )
    runner: Literal["auto", "generate", "pooling"] = Field(
        "auto", description="the newer --task: generate text, or vectors and scores"
    )
    convert: Literal["auto", "none", "embed", "classify"] = Field(
        "auto", description="with --runner pooling: vectors, or scores of labels"
    )
    override_pooler_config: Annotated[JsonObject, Spelling("--pooler-config")] = Field(
        default_factory=dict,
        description="JSON object: pooling_type (LAST, MEAN, CLS, ALL), normalize, use_activation, "
        "dimensions",
    )
