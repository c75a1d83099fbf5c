"""Greedy answers through transformers, many prompts at a time: for the end of a training."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MAX_TOKENS = 320


def generate(directory: Path, prompts: list[str], device: str, batch: int = 4096) -> list[str]:
    """What a checkpoint says to each prompt; without an end tag where it did not end."""
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).to(device).eval()
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        encoded = tokenizer([prompts[p] for p in places], return_tensors="pt", padding=True).to(
            device
        )
        with torch.no_grad():
            made = model.generate(**encoded, max_new_tokens=MAX_TOKENS, do_sample=False)
        texts = tokenizer.batch_decode(made[:, encoded["input_ids"].shape[1] :])
        for place, text in zip(places, texts, strict=True):
            answers[place] = text.replace("<|endoftext|>", "")
    return answers
