"""Training rows: examples as token ids, packed, made by as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer
from tools.mini.mixture import texts
from tools.mini.source import Source

PADDING, READ, SAID = 0, 1, 2
"""What a token is: nothing, part of a prompt, part of an answer."""
_BATCH_OF_TEXTS = 256


class Rows(NamedTuple):
    """``ids``, ``roles`` and ``documents`` are [N, length]; a role is that of the token itself,
    and the first token of a document has the role of padding: nothing announces it."""

    ids: np.ndarray
    roles: np.ndarray
    documents: np.ndarray


def rows(seed: str, tokenizer: Tokenizer, length: int, count: int) -> Iterator[Rows]:
    """``count`` rows at a time, without end. No document is cut; the rest of a row is padding."""
    stop = token_id(tokenizer, "<|endoftext|>")
    ready: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    ids, roles, documents = _empty_row(length, stop)
    used = document = 0
    for read, said in _encoded(seed, tokenizer):
        size = len(read) + len(said)
        if size > length:
            continue
        if used + size > length:
            ready.append((ids, roles, documents))
            ids, roles, documents = _empty_row(length, stop)
            used = document = 0
            if len(ready) == count:
                yield Rows(*(np.stack(column) for column in zip(*ready, strict=True)))
                ready = []
        document += 1
        middle, end = used + len(read), used + size
        ids[used:end] = [*read, *said]
        roles[used:middle], roles[middle:end] = READ, SAID
        roles[used] = PADDING
        documents[used:end] = document
        used = end


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that there has to be."""
    found = tokenizer.token_to_id(token)
    assert found is not None, f"the tokenizer has no {token}"
    return int(found)


def _empty_row(length: int, padding: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.full(length, padding, np.int16),
        np.zeros(length, np.uint8),
        np.zeros(length, np.int16),
    )


def _encoded(seed: str, tokenizer: Tokenizer) -> Iterator[tuple[list[int], list[int]]]:
    """Prompts and answers are encoded apart, as they are when a model is served."""
    source = Source(seed)
    made = texts(source)
    common = _ordinary_ids(tokenizer)
    while True:
        yield from (_babble(common, source) for _ in range(_BATCH_OF_TEXTS // 40))
        pairs = [next(made) for _ in range(_BATCH_OF_TEXTS)]
        flat = [text for pair in pairs for text in pair]
        encoded = tokenizer.encode_batch_fast(flat, add_special_tokens=False)
        yield from ((encoded[i].ids, encoded[i + 1].ids) for i in range(0, len(flat), 2))


def _ordinary_ids(tokenizer: Tokenizer) -> list[int]:
    """Every token that is text."""
    added = tokenizer.get_added_tokens_decoder()
    return [id for id in range(tokenizer.get_vocab_size()) if id not in added]


def _babble(ids: list[int], source: Source) -> tuple[list[int], list[int]]:
    """Random tokens twice: each token there is has to be copied now and then."""
    once = source.rng.choices(ids, k=source.between(6, 90))
    return [*once, once[0]], once[1:]


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """``rows_at_a_time`` rows of ``length`` tokens go through the queue together."""

    seed: int
    tokenizer: Path
    length: int
    rows_at_a_time: int
    num_processes: int


class Feed:
    """Rows from processes; an old batch comes again where the processes are too slow."""

    def __init__(self, options: FeedOptions) -> None:
        context = multiprocessing.get_context("spawn")
        self._queue: multiprocessing.Queue[Rows] = context.Queue(maxsize=64)
        self._kept: list[Rows] = []
        self._turn = 0
        self.num_new = self.num_again = 0
        self._processes = [
            context.Process(target=_work, args=(options, number, self._queue), daemon=True)
            for number in range(options.num_processes)
        ]
        for process in self._processes:
            process.start()

    def next(self) -> Rows:
        """A new batch where there is one, else an old one in turn."""
        try:
            made = self._queue.get(block=not self._kept)
        except queue.Empty:
            self._turn = (self._turn + 1) % len(self._kept)
            self.num_again += 1
            return self._kept[self._turn]
        self.num_new += 1
        if len(self._kept) < 4000:
            self._kept.append(made)
        return made

    def close(self) -> None:
        for process in self._processes:
            process.terminate()


def _work(options: FeedOptions, number: int, made: multiprocessing.Queue[Rows]) -> None:
    tokenizer = Tokenizer.from_file(str(options.tokenizer))
    seed = f"{options.seed}-{number}"
    for batch in rows(seed, tokenizer, options.length, options.rows_at_a_time):
        made.put(batch)
