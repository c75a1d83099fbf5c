"""Where the weights come from and how they are read."""

from __future__ import annotations

from pydantic import Field

from jackfield.config.values import JsonObject, OptionGroup, StringList


class LoadOptions(OptionGroup):
    """Loading"""

    download_dir: str | None = Field(None, description="where hub downloads are kept")
    load_format: str = Field(
        "auto",
        description="load_formats plugin: auto, safetensors, pt, npcache, mistral, gguf, "
        "sharded_state, fastsafetensors, runai_streamer, tensorizer, dummy (random), or a name",
    )
    ignore_patterns: StringList = Field(
        ("original/*",), description="files of a hub repository that are not downloaded"
    )
    model_loader_extra_config: JsonObject = Field(
        default_factory=dict, description="options of the load format as a JSON object"
    )
    max_parallel_loading_workers: int | None = Field(
        None, ge=1, description="weight files read at once; default: as the load format likes"
    )
    use_tqdm_on_load: bool = Field(
        True, description="a progress bar while weights are read, if there is a terminal"
    )
