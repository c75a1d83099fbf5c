"""What a step of a pooling model made, by sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jackfield.contracts.work import StepOutput


class PooledPart(NamedTuple):
    """``place``: of the sequence in the step. ``data``: float32 vectors as bytes, the first of them
    number ``first`` of the prompt's. ``is_last``: the prompt is computed."""

    place: int
    data: bytes
    first: int
    is_last: bool


def pooled_parts(output: StepOutput, samples: Sequence[bool]) -> Iterator[PooledPart]:
    """The vectors of a step: of every sequence that it completes, or, where the worker says so, of
    every token."""
    assert output.pooled is not None, "the step of a pooling model"
    vectors = output.pooled.astype("<f4", copy=False)
    if output.pooled_spans is None:
        places = [place for place, is_complete in enumerate(samples) if is_complete]
        for place, vector in zip(places, vectors, strict=True):
            yield PooledPart(place, vector.tobytes(), 0, True)
        return
    start = 0
    spans = output.pooled_spans.tolist()
    for place, ((first, count), is_complete) in enumerate(zip(spans, samples, strict=True)):
        yield PooledPart(place, vectors[start : start + count].tobytes(), first, is_complete)
        start += count
