"""Which model, and how much of its context."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jackfield.config.values import AutoLength, JsonObject, OptionGroup, Spelling, StringList


class ModelOptions(OptionGroup):
    """Model"""

    model: Annotated[str | None, Spelling("--model-path")] = Field(
        None,
        description="directory of the checkpoint, a .gguf file, a bundled_models plugin, or a name "
        "on the hub; also positional; default: jackfield-mini, which comes with Jackfield",
    )
    served_model_name: StringList = Field(
        (),
        description="names the API answers to; a reply has the one that was asked for, else the "
        "first, as metrics have; default: MODEL",
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    code_revision: str | None = Field(
        None,
        description="branch, tag or commit of the code that --trust-remote-code runs, where it is "
        "in a repository of its own",
    )
    hf_config_path: str | None = Field(
        None, description="directory or hub name to read config.json from instead of MODEL"
    )
    config_format: str = Field(
        "auto",
        description="config_formats plugin: auto, hf (config.json), mistral (params.json), gguf "
        "(the model's file), or a name",
    )
    hf_overrides: JsonObject = Field(
        default_factory=dict, description="JSON object laid over the model's config.json"
    )
    rope_scaling: JsonObject = Field(
        default_factory=dict, description="JSON object that replaces the model's RoPE scaling"
    )
    rope_theta: float | None = Field(None, gt=0, description="RoPE base instead of the model's")
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = Field(
        "auto", description="dtype of weights and activations; auto: the checkpoint's"
    )
    max_model_len: Annotated[AutoLength, Spelling("--context-length")] = Field(
        None,
        description="longest context, prompt and output, in tokens; takes 32k; auto: the model's, "
        "as far as the KV cache goes",
    )
    disable_sliding_window: bool = Field(
        False, description="end the context where the model's sliding window ends"
    )
    model_impl: str = Field(
        "auto",
        description="models plugin: auto (by architecture, else transformers), jackfield, "
        "transformers, or a name",
    )
    quantization: Annotated[str | None, Spelling("-q")] = Field(
        None, description="quantization plugin; default: what the checkpoint says"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the checkpoint"
    )
    seed: Annotated[int, Spelling("--random-seed")] = Field(
        0, ge=0, lt=2**63, description="seed of dummy weights and random numbers"
    )
    max_logprobs: int = Field(
        20, ge=-1, description="most logprobs a request may ask for; -1: the vocabulary"
    )
    generation_config: str = Field(
        "auto",
        description="sampling defaults: auto (the model's generation_config.json), vllm (none), "
        "or a directory",
    )
    override_generation_config: JsonObject = Field(
        default_factory=dict, description="JSON object laid over these sampling defaults"
    )
