"""``jackfield quantize DIR OUT --method w4a16``: a copy with weights of fewer bits."""

from __future__ import annotations

import argparse
from pathlib import Path

from jackfield.config.line_parser import LineParser, positive
from jackfield.errors import ConfigError

_HELD_BACK = 10
"""One window of so many of a calibration text measures the result, where no other text is given."""


def main(argv: list[str]) -> int:
    """The checkpoint, and how well it and the plain one predict a text, where there is one."""
    args = _parser().parse_args(argv)
    # Imports stand below the parsing: `quantize --help` must not pay for them.
    from jackfield.checkpoint import resolve_model
    from jackfield.quantizer import QuantizeJob, Recipe, quantize
    from jackfield.quantizer.perplexity import perplexity

    recipe = Recipe(
        args.method, args.algorithm, args.group_size, not args.asymmetric, tuple(args.ignore)
    )
    source = resolve_model(args.model)
    samples, measured = _texts(args, source)
    job = QuantizeJob(source, Path(args.output), recipe, args.device, samples)
    quantize(job)
    print(f"{job.target}: {_size(job.target)} MB of weights, before {_size(source)} MB")
    if not measured:
        print("perplexity not measured: no --evaluation and no --calibration text")
        return 0
    before = perplexity(source, measured, args.device)
    after = perplexity(job.target, measured, args.device)
    count = sum(len(window) - 1 for window in measured)
    print(f"perplexity of {count} tokens: before {before:.4f}, after {after:.4f}")
    return 0


def _texts(args: argparse.Namespace, source: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Windows of ids to calibrate with, and to measure with."""
    calibration = _windows(args.calibration, args.sequence_length, source)
    if args.evaluation is not None:
        measured = _windows(args.evaluation, args.sequence_length, source)
        return calibration[: args.num_samples], measured
    # Of fewer windows the last one measures; a single one does both.
    every = max(2, min(_HELD_BACK, len(calibration)))
    held_back = calibration[every - 1 :: every] or calibration
    rest = [window for i, window in enumerate(calibration) if (i + 1) % every]
    return rest[: args.num_samples], held_back


def _windows(file: str | None, length: int, source: Path) -> list[list[int]]:
    if file is None:
        return []
    from transformers import AutoTokenizer

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    # It is cut into windows below: a whole text is longer than a model can see.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    windows = [ids[i : i + length] for i in range(0, len(ids), length)]
    whole = [window for window in windows if len(window) > 1]
    if not whole:
        raise ConfigError(
            f"{file} has {len(ids)} tokens for the tokenizer of {source}, and no two in "
            f"--sequence-length {length}"
        )
    return whole


def _size(directory: Path) -> int:
    return round(sum(path.stat().st_size for path in directory.glob("*.safetensors")) / 1e6)


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(prog="jackfield quantize", description=__doc__)
    parser.add_argument("model", help="a directory in Hugging Face's layout, or a name on the hub")
    parser.add_argument("output", help="the new directory")
    add = parser.add_argument
    add("--method", required=True, help="fp8, int8 (both: activations too) or w4a16")
    add("--algorithm", default="rtn", help="rtn, gptq or awq; the last two need --calibration")
    add("--group-size", type=int, default=128, help="inputs that share a scale (w4a16)")
    add("--asymmetric", action="store_true", help="groups with a zero point (w4a16)")
    add("--ignore", nargs="*", default=["lm_head"], help="linear layers that stay as they are")
    add("--calibration", metavar="FILE", help="a text like what the model will see")
    add("--evaluation", metavar="FILE", help="a text to measure with; a tenth of the other if none")
    add("--num-samples", type=positive, default=128, help="windows to calibrate with")
    add("--sequence-length", type=positive, default=512, help="tokens of a window")
    add("--device", default="cpu", help="cpu or cuda")
    return parser
