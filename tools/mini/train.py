"""Trains jackfield-mini within a number of minutes and writes the checkpoint.

python -m tools.mini.train --minutes 9 --out DIR            # one GPU
python -m tools.mini.train --minutes 2 --out DIR --rows 2 --length 512 --processes 1   # a try
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tools.mini.evaluation import cases, table
from tools.mini.example import CHECKPOINT
from tools.mini.feed import READ, SAID, Feed, FeedOptions, token_id
from tools.mini.generate import generate
from tools.mini.model import Qwen3, document_mask, positions_of, save
from tools.mini.optimizer import Optimizer

READ_WEIGHT = 0.05
"""What a token of a prompt weighs where a token of an answer weighs 1."""
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def main() -> None:
    """Trains, saves, evaluates."""
    options = _arguments()
    begin = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    feed = Feed(
        FeedOptions(
            options.seed,
            CHECKPOINT / "tokenizer.json",
            options.length,
            options.rows,
            options.processes,
        )
    )
    model = Qwen3().to(device)
    if options.weights is not None:
        model.load_state_dict(load_file(options.weights), strict=True)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}", flush=True)
    num_tokens = train(model, feed, options, device)
    feed.close()
    finish(model, Path(options.out), options.cases, device)
    print(f"{num_tokens / 1e6:.0f} M tokens; {time.monotonic() - begin:.0f} s in all", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="training time")
    parser.add_argument("--steps", type=int, help="at most so many steps")
    parser.add_argument("--out", required=True, help="directory of the checkpoint")
    parser.add_argument("--weights", help="model.safetensors to go on from")
    parser.add_argument("--rows", type=int, default=32, help="rows in a step")
    parser.add_argument("--length", type=int, default=4096, help="tokens in a row")
    parser.add_argument("--processes", type=int, default=14, help="processes that make data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=0.004)
    parser.add_argument("--cases", type=int, default=200, help="evaluation cases of a class")
    return parser.parse_args()


def train(model: Qwen3, feed: Feed, options: argparse.Namespace, device: str) -> int:
    """Steps until the time is over; the rate follows the clock. Returns the number of tokens."""
    optimizer = Optimizer(model, options.muon_rate, options.adam_rate)
    if device == "cuda":
        model.compile_parts()
    weight_of = torch.zeros(3, device=device)
    weight_of[READ], weight_of[SAID] = READ_WEIGHT, 1.0
    begin = last = time.monotonic()
    step = said_step = 0
    losses: list[torch.Tensor] = []
    while True:
        done = (time.monotonic() - begin) / (options.minutes * 60)
        if options.steps is not None:
            done = max(done, step / options.steps)
        if done >= 1.0:
            break
        rows = feed.next()
        ids, roles, documents = (
            torch.from_numpy(column.astype(np.int64)).to(device, non_blocking=True)
            for column in rows
        )
        mask, positions = document_mask(documents), positions_of(documents)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(ids, positions, mask, weight_of[roles])
        loss.backward()
        optimizer.step(rate_share(done, step))
        losses.append(loss.detach())
        step += 1
        if step in (1, 10) or time.monotonic() - last > 15:
            mean = torch.stack(losses).mean().item()
            now = time.monotonic()
            speed = (step - said_step) * options.rows * options.length / (now - last)
            print(
                f"step {step:6} {now - begin:5.0f} s loss {mean:.4f} {speed / 1e3:6.0f} k tokens/s "
                f"{feed.num_new} batches new, {feed.num_again} again",
                flush=True,
            )
            last, said_step, losses = now, step, []
    return step * int(options.rows * options.length)


def rate_share(done: float, step: int) -> float:
    """Up within 50 steps, full until a third of the time, then straight down to nothing."""
    return min((step + 1) / 50, 1.0, (1.0 - done) / 0.66)


def finish(model: Qwen3, out: Path, num_cases: int, device: str) -> None:
    """The checkpoint with its tokenizer, and how good it is."""
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    end_ids = [token_id(tokenizer, "<|im_end|>"), token_id(tokenizer, "<|endoftext|>")]
    save(model, out, end_ids)
    for name in TEXT_FILES:
        shutil.copy(CHECKPOINT / name, out / name)
    if num_cases:
        asked = cases(num_cases)
        answers = generate(out, [case.prompt for case in asked], device)
        lines, failures = table(asked, answers)
        print("\n".join(lines), flush=True)
        (out / "failures.json").write_text(json.dumps(failures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
