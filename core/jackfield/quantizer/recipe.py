"""What is quantized, to which numbers, and how they are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from jackfield.errors import ConfigError

METHODS = ("fp8", "int8", "w4a16")
ALGORITHMS = ("rtn", "gptq", "awq")

_FORMATS = {"fp8": "float-quantized", "int8": "int-quantized", "w4a16": "pack-quantized"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """``fp8`` and ``int8`` have a scale for each output and quantize activations as they come;
    ``w4a16`` has one for each ``group_size`` inputs of an output. ``algorithm``: round to nearest,
    or with a calibration text by GPTQ (arXiv 2210.17323) or AWQ (arXiv 2306.00978). ``ignore``:
    names of linear layers that stay as they are."""

    method: str
    algorithm: str = "rtn"
    group_size: int = 128
    symmetric: bool = True
    ignore: tuple[str, ...] = ("lm_head",)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"--method {self.method}: there are {', '.join(METHODS)}")
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"--algorithm {self.algorithm}: there are {', '.join(ALGORITHMS)}")
        if self.method != "w4a16":
            if self.algorithm == "awq":
                raise ConfigError("--algorithm awq is for --method w4a16")
            if not self.symmetric:
                raise ConfigError("--asymmetric is for --method w4a16")
        if self.method == "fp8" and self.algorithm != "rtn":
            raise ConfigError(f"--algorithm {self.algorithm} is for integers, --method fp8 is not")
        if self.group_size < 8 or self.group_size % 8:
            raise ConfigError(f"--group-size {self.group_size} is no multiple of 8")

    @property
    def calibrated(self) -> bool:
        """Whether a calibration text is needed."""
        return self.algorithm != "rtn"

    def groups(self, inputs: int) -> int:
        """Groups of an output's inputs that have a scale each."""
        if self.method != "w4a16":
            return 1
        if inputs % self.group_size:
            raise ConfigError(f"--group-size {self.group_size} does not divide {inputs} inputs")
        return inputs // self.group_size

    def described(self, ignored: tuple[str, ...]) -> dict[str, object]:
        """``quantization_config`` of config.json."""
        kind = "float" if self.method == "fp8" else "int"
        grouped = self.method == "w4a16"
        weights = {
            "num_bits": 4 if grouped else 8,
            "type": kind,
            "symmetric": self.symmetric,
            "strategy": "group" if grouped else "channel",
            "group_size": self.group_size if grouped else None,
            "dynamic": False,
            "observer": "minmax",
            "actorder": None,
            "block_structure": None,
        }
        inputs = {
            "num_bits": 8,
            "type": kind,
            "symmetric": True,
            "strategy": "token",
            "dynamic": True,
            "group_size": None,
            "observer": None,
            "actorder": None,
            "block_structure": None,
        }
        group = {
            "targets": ["Linear"],
            "weights": weights,
            "input_activations": None if grouped else inputs,
            "output_activations": None,
        }
        return {
            "quant_method": "compressed-tensors",
            "format": _FORMATS[self.method],
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": list(ignored),
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        }
