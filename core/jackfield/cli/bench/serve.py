"""``jackfield bench serve``: load on a running OpenAI-compatible server."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import uvloop
from tqdm import tqdm

from jackfield.cli.bench.http_client import Address
from jackfield.cli.bench.statistics import report, spread
from jackfield.cli.bench.traffic import Load, Outcome, drive
from jackfield.config.line_parser import LineParser, positive, positive_number
from jackfield.errors import ApiError

WORDS = ("the", "of", "and", "to", "in", "is", "for", "that", "with", "as", "this", "from")


def main(argv: list[str]) -> int:
    """Runs the load and prints the table; status 1 when no request succeeded."""
    args = _parser().parse_args(argv)
    warm_ups, bodies = make_bodies(args)
    headers = {"Authorization": f"Bearer {args.api_key}"} if args.api_key else {}
    load = Load(args.max_concurrency, args.request_rate, args.burstiness, args.seed)
    with tqdm(total=args.num_prompts, disable=args.disable_tqdm, unit="request") as bar:

        def on_done() -> None:
            bar.update(1)

        outcomes, duration = uvloop.run(
            _run(args.base_url, args, headers, warm_ups, bodies, load, on_done)
        )
    values = summarise(outcomes, duration, args.metric_percentiles)
    settings = {
        "max_concurrency": args.max_concurrency,
        # JSON has no infinity.
        "request_rate": args.request_rate if math.isfinite(args.request_rate) else "inf",
        "burstiness": args.burstiness,
        "model": args.model,
        "seed": args.seed,
    }
    report("Serving benchmark", {**settings, **values}, args.result_filename)
    return 0 if values["completed"] else 1


async def _run(
    address: Address,
    args: argparse.Namespace,
    headers: dict[str, str],
    warm_ups: Sequence[bytes],
    bodies: Sequence[bytes],
    load: Load,
    on_done: Callable[[], None],
) -> tuple[list[Outcome], float]:
    loop = asyncio.get_running_loop()
    at_once = replace(load, request_rate=float("inf"))
    for warm in await drive(address, args.endpoint, headers, warm_ups, at_once, lambda: None):
        if warm.error:
            raise ApiError(f"a warm-up request failed: {warm.error}")
    start = loop.time()
    outcomes = await drive(address, args.endpoint, headers, bodies, load, on_done)
    return outcomes, loop.time() - start


def make_bodies(args: argparse.Namespace) -> tuple[list[bytes], list[bytes]]:
    """The bodies of the warm-up and of the measured requests, encoded beforehand. They are drawn
    apart: the warm-up leaves only ``--random-prefix-len`` ids in a prefix cache, and its length
    does not change what is measured."""
    rng = random.Random(args.seed)
    prefix = [
        rng.randrange(args.min_token_id, args.max_token_id) for _ in range(args.random_prefix_len)
    ]
    apart = random.Random(f"warm-up {args.seed}")
    return (
        [_body(args, apart, prefix) for _ in range(args.num_warmups)],
        [_body(args, rng, prefix) for _ in range(args.num_prompts)],
    )


def _body(args: argparse.Namespace, rng: random.Random, prefix: list[int]) -> bytes:
    """One request: a random prompt of exactly the asked length where the endpoint takes ids, about
    as many common words where it takes messages."""
    length = _around(rng, args.random_input_len, args.random_range_ratio)
    body: dict[str, object] = {
        "model": args.model,
        "max_tokens": _around(rng, args.random_output_len, args.random_range_ratio),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": args.temperature,
        "ignore_eos": args.ignore_eos,
    }
    if args.endpoint.endswith("/chat/completions"):
        text = " ".join(rng.choices(WORDS, k=length))
        body["messages"] = [{"role": "user", "content": text}]
    else:
        low, high = args.min_token_id, args.max_token_id
        body["prompt"] = prefix + [rng.randrange(low, high) for _ in range(length)]
    return json.dumps(body).encode()


def summarise(
    outcomes: Sequence[Outcome], duration: float, percents: Sequence[float]
) -> dict[str, object]:
    """The fields of ``vllm bench serve``, by their names there."""
    good = [outcome for outcome in outcomes if outcome.error is None]
    errors = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
    inputs = sum(outcome.prompt_tokens for outcome in good)
    outputs = sum(outcome.output_tokens for outcome in good)
    ttft = [o.first - o.sent for o in good if o.first is not None]
    tpot = [
        (o.last - o.first) / (o.output_tokens - 1)
        for o in good
        if o.first is not None and o.last is not None and o.output_tokens > 1
    ]
    per_second = Counter(int(time) for o in good for time in o.token_times)
    values: dict[str, object] = {
        "completed": len(good),
        "failed": len(outcomes) - len(good),
        "duration": duration,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": len(good) / duration,
        "output_throughput": outputs / duration,
        "max_output_tokens_per_s": max(per_second.values(), default=0),
        "total_token_throughput": (inputs + outputs) / duration,
        **spread("ttft", ttft, percents),
        **spread("tpot", tpot, percents),
        **spread("itl", [gap for o in good for gap in o.gaps], percents),
        **spread("e2el", [o.done - o.sent for o in good], percents),
    }
    if errors:
        values["errors"] = dict(errors.most_common(3))
    return values


def _around(rng: random.Random, length: int, ratio: float) -> int:
    return max(1, rng.randint(int(length * (1 - ratio)), int(length * (1 + ratio))))


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _percentiles(text: str) -> list[float]:
    found = [float(part) for part in text.split(",")]
    if not all(0 <= each <= 100 for each in found):
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 100")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(
        prog="jackfield bench serve", description="Loads a running OpenAI-compatible server."
    )
    add = parser.add_argument
    add("--base-url", type=_address, default="http://127.0.0.1:8000", help="without /v1")
    add("--endpoint", default="/v1/completions", help="or /v1/chat/completions")
    add("--model", required=True, help="the name in the requests")
    add("--api-key", help="sent as a bearer token")
    add("--num-prompts", type=positive, default=100)
    add("--num-warmups", type=int, default=1, help="requests before, as many at once")
    add("--max-concurrency", type=positive, help="requests under way at once")
    add("--request-rate", type=positive_number, default="inf", help="arrivals a second")
    add("--burstiness", type=positive_number, default=1.0, help="gamma shape of the gaps")
    add("--random-input-len", type=positive, default=512)
    add("--random-output-len", type=positive, default=128)
    add("--random-range-ratio", type=float, default=0.0, help="lengths vary by this share")
    add("--random-prefix-len", type=int, default=0, help="ids all prompts begin with")
    add("--min-token-id", type=int, default=300)
    add("--max-token-id", type=int, default=4000)
    add("--temperature", type=float, default=0.0)
    add("--ignore-eos", action=argparse.BooleanOptionalAction, default=True)
    add("--metric-percentiles", type=_percentiles, default="50,90,99", help="comma-separated")
    add("--seed", type=int, default=0, help="another one: other prompts")
    add("--result-filename", help="write the values as JSON")
    add("--disable-tqdm", action="store_true")
    return parser
