"""Log-probabilities of fixed continuations: ours against transformers (SDPA, same dtype).

    python bench/agreement.py DIR [--prompts 8] [--tokens 128] [options of jackfield serve]

Two paths are compared: decoding (each token's logprob as it was sampled, through the decode path
with its CUDA graphs) and prefill (the same tokens as a prompt, through prompt_logprobs).
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
from transformers import AutoModelForCausalLM

from jackfield import LLM, SamplingParams
from jackfield.cli.bench.prompts import random_prompts
from jackfield.llm import RequestOutput


def ours(rest: list[str], prompts: list[list[int]], tokens: int) -> tuple[list[RequestOutput], ...]:
    """The continuations with their logprobs, and the same text again as prompts."""
    with LLM.from_arguments(rest) as llm:
        decoded = llm.generate(
            prompts, SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0, logprobs=0)
        )
        whole = [list(r.prompt_token_ids) + list(r.outputs[0].token_ids) for r in decoded]
        again = llm.generate(whole, SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0))
    return decoded, again


def reference(directory: str, sequences: list[list[int]]) -> list[torch.Tensor]:
    """Per sequence: log-probability of each token from position 1 on, float32 on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype="auto", attn_implementation="sdpa"
    ).to(device)
    found = []
    with torch.inference_mode():
        for ids in sequences:
            tensor = torch.tensor([ids], device=device)
            logits = model(tensor).logits[0, :-1].float()
            logprobs = logits.log_softmax(-1).gather(1, tensor[0, 1:, None])[:, 0]
            found.append(logprobs.cpu())
    return found


def main() -> int:
    """Prints the largest and the mean absolute difference of both paths as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--input-len", type=int, default=128)
    args, rest = parser.parse_known_args()
    prompts = random_prompts(args.prompts, args.input_len // 2, args.input_len, seed=7)
    decoded, again = ours([args.model, *rest], prompts, args.tokens)
    sequences = [list(r.prompt_token_ids) for r in again]
    expected = reference(args.model, sequences)
    differences: dict[str, list[torch.Tensor]] = {"decode": [], "prefill": []}
    for first, second, right in zip(decoded, again, expected, strict=True):
        sampled = torch.tensor([entry.logprob for entry in first.outputs[0].logprobs])
        given = torch.tensor([entry.logprob for entry in second.prompt_logprobs])
        differences["decode"].append((sampled - right[-len(sampled) :]).abs())
        differences["prefill"].append((given - right).abs())
    for path, parts in differences.items():
        values = torch.cat(parts)
        print(
            json.dumps(
                {
                    "path": path,
                    "tokens": len(values),
                    "max": round(values.max().item(), 5),
                    "mean": round(values.mean().item(), 6),
                }
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
