"""How the next token is chosen from the logits, without waiting for the device.

Order: temperature; ``top_k``; ``top_p`` of the renormalised rest; ``min_p``. All three cuts are
thresholds on the logits, so that tokens of equal logit share their fate, and the token is then
drawn by inverting the cumulative distribution in the order of token ids. Kept set and order
thus do not depend on how the shortlist was found, and the one uniform number a draw needs is a
hash of (seed, position): a seeded request gets the same tokens whatever it is batched with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional

from jackfield.compute.largest import most_likely, shortlist
from jackfield.compute.row_state import RowFlag, RowSampling, RowState

_SHORTLISTS = (32, 64, 256, 1088)
"""Shortlist lengths. Few, because the choice among equal logits at its end may depend on it;
with room beyond ``top_k`` for logits that equal the k-th (bfloat16 logits often do)."""

_ROOM = 8
_CHUNK = 128
_LOGITS_AT_ONCE = 1 << 20
"""On the CPU, so that what is made of the logits on the way stays in the cache."""
_BELOW_ONE = 1.0 - 2.0**-53


class Way(Enum):
    """How a step samples, cheapest first."""

    GREEDY = 0
    SHORTLIST = 1
    """Every sampled row keeps at most 1,024 tokens."""
    WHOLE = 2
    """Some row keeps all tokens, or those that ``min_p`` leaves."""
    NUCLEUS = 3
    """Some row has ``top_p`` or a large ``top_k`` over the whole vocabulary."""


@dataclass(frozen=True, slots=True)
class SamplingMode:
    """What the rows of a step need; a captured graph serves one mode."""

    way: Way
    shortlist: int = 0
    """Most likely tokens to find first; 0 if no row has a small ``top_k``."""
    some_greedy: bool = False

    @property
    def by_kernels(self) -> bool:
        """Whether a GPU has kernels of its own for it."""
        return self.way in (Way.WHOLE, Way.NUCLEUS)


GREEDY = SamplingMode(Way.GREEDY)


def sampling_mode(flags: int, max_top_k: int) -> SamplingMode:
    """The mode for rows with these flags; ``max_top_k`` is the largest one with a shortlist."""
    if not flags & RowFlag.SAMPLED:
        return GREEDY
    length = 0
    if flags & RowFlag.SHORTLIST:
        length = next(n for n in _SHORTLISTS if n >= max_top_k + _ROOM)
    way = Way.SHORTLIST
    if flags & RowFlag.WHOLE:
        way = Way.NUCLEUS if flags & RowFlag.NUCLEUS else Way.WHOLE
    return SamplingMode(way, length, bool(flags & RowFlag.GREEDY))


def sample(
    logits: Tensor, sampling: RowSampling | None, positions: Tensor, mode: SamplingMode
) -> tuple[Tensor, Tensor]:
    """One token a row: (ids int64 [N], bool [N]: whether the row's logits allow a choice).

    ``logits`` [N, V] of any float type; ``positions`` int64 [N], where the tokens will stand;
    ``sampling`` may be None for a greedy step. Ids are below V also where the choice failed.
    """
    if mode.way is Way.GREEDY or sampling is None:
        ids = most_likely(logits)
        return ids, _peak_is_finite(logits, ids)
    uniform = uniforms(sampling.seed.squeeze(1), positions)
    temperature = torch.where(sampling.temperature > 0, sampling.temperature, 1.0)
    if mode.way is Way.SHORTLIST:
        values, candidates = shortlist(logits, mode.shortlist)
        threshold = _threshold(values, sampling, temperature)
        ids, peaks = _draw_short(values, candidates, threshold, temperature, uniform)
    else:
        assert not logits.is_cuda, "choose_by_kernels does that"
        rows = max(1, _LOGITS_AT_ONCE // logits.shape[1])
        parts = zip(
            *(torch.split(each, rows) for each in (logits, sampling.record, temperature, uniform)),
            strict=True,
        )
        drawn = [_sample_whole(x.float(), RowSampling(r), t, u, mode) for x, r, t, u in parts]
        ids, peaks = (torch.cat(each) for each in zip(*drawn, strict=True))
    return _chosen(ids, peaks, logits, sampling, mode)


def _chosen(
    ids: Tensor, peaks: Tensor, logits: Tensor, sampling: RowSampling, mode: SamplingMode
) -> tuple[Tensor, Tensor]:
    if mode.some_greedy:
        ids = torch.where(sampling.temperature.squeeze(1) > 0, ids, most_likely(logits))
    return ids, torch.isfinite(peaks)


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """float64 [N] in [0, 1): the splitmix64 hash of mixed seeds and positions, int64 [N] both."""
    z = seeds + positions * -0x61C8864680B583EB
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    z = z ^ ((z >> 31) & 0x1FFFFFFFF)
    return ((z >> 11) & 0x1FFFFFFFFFFFFF).double() * 2.0**-53


def _peak_is_finite(logits: Tensor, ids: Tensor) -> Tensor:
    """argmax, topk and sort all take a NaN for the largest, so that looking there is enough."""
    return torch.isfinite(logits.gather(1, ids.unsqueeze(1)).squeeze(1))


def _threshold(
    values: Tensor, sampling: RowSampling, temperature: Tensor, norm: Tensor | None = None
) -> Tensor:
    """float32 [N, 1]: the smallest logit that ``top_k``, ``top_p`` and ``min_p`` keep.

    ``values`` float32 [N, C]: the largest logits, descending, at least ``top_k`` of them where
    it is set. Rows without it must have all logits there, or give ``norm`` [N, 1], the
    logarithm of the sum of exp(logits / temperature), and enough values to reach ``top_p``.
    """
    top_k = sampling.top_k.long()
    kth = values.gather(1, (top_k - 1).clamp(0, values.shape[1] - 1))
    kth = torch.where(top_k > 0, kth, -torch.inf)
    scaled = (values / temperature).masked_fill_(values < kth, -torch.inf)
    probabilities = scaled.softmax(-1)
    if norm is not None:
        probabilities = torch.where(top_k > 0, probabilities, (scaled - norm).exp())
    before = probabilities.cumsum(-1) - probabilities
    nucleus = torch.where(before < sampling.top_p, values, torch.inf).amin(-1, keepdim=True)
    threshold = torch.where(sampling.top_p < 1, torch.maximum(nucleus, kth), kth)
    return torch.maximum(threshold, values[:, :1] + sampling.min_p.log() * temperature)


def _draw_short(
    values: Tensor, candidates: Tensor, threshold: Tensor, temperature: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """A draw among a shortlist: (ids int64 [N], largest logits [N])."""
    peaks = values[:, :1]
    weights = ((values - peaks) / temperature).exp().masked_fill_(values < threshold, 0)
    candidates, order = candidates.sort(-1)
    cumulative = weights.gather(1, order).cumsum(-1, dtype=torch.float64)
    place = _invert(cumulative, uniform.unsqueeze(1) * cumulative[:, -1:])
    return candidates.gather(1, place).squeeze(1), peaks.squeeze(1)


def _invert(cumulative: Tensor, target: Tensor) -> Tensor:
    """int64 [N, 1]: the first place whose cumulative weight is above the target, [N, 1]."""
    place = torch.searchsorted(cumulative, target, right=True)
    return place.clamp_max(cumulative.shape[1] - 1)


def choose_by_kernels(
    logits: Tensor, state: RowState, rows: Tensor, positions: Tensor, mode: SamplingMode
) -> Tensor:
    """What ``sample`` does where some row may keep any token, on a GPU: ids int32 [N], -1 where the
    logits allow no choice, written to the rows. ``rows``, ``positions`` int64 [N]."""
    from jackfield.compute.kernels import sampling as kernels  # Triton: GPUs only

    thresholds = None
    if mode.way is Way.NUCLEUS or mode.shortlist:
        thresholds = kernels.cut(logits, state.records, rows)
    return kernels.draw(logits, state.records, rows, positions, state.token_ids, thresholds)


def _sample_whole(
    logits: Tensor, sampling: RowSampling, temperature: Tensor, uniform: Tensor, mode: SamplingMode
) -> tuple[Tensor, Tensor]:
    """A draw where some row may keep any token, on the CPU; float32 logits [N, V]."""
    if mode.way is Way.NUCLEUS:
        return _sample_nucleus_on_host(logits, sampling, temperature, uniform)
    if mode.shortlist:
        threshold = _threshold(shortlist(logits, mode.shortlist)[0], sampling, temperature)
    else:
        threshold = logits.amax(-1, keepdim=True) + sampling.min_p.log() * temperature
    return _draw_whole(logits, threshold, temperature, uniform)


def _sample_nucleus_on_host(
    logits: Tensor, sampling: RowSampling, temperature: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """The most likely 1,088 tokens nearly always hold the nucleus, and on the CPU looking whether
    they do costs nothing. Rows where they do not get longer lists, in the end all tokens."""
    norm = torch.logsumexp(logits / temperature, -1, keepdim=True)
    values, candidates = shortlist(logits, _SHORTLISTS[-1])
    threshold = _threshold(values, sampling, temperature, norm)
    uncut = (sampling.top_k == 0) & (sampling.top_p >= 1)
    open_rows = (~(_holds(values, sampling, temperature, norm) | uncut)).nonzero()[:, 0]
    if len(open_rows) == 0 and not bool(uncut.any()):
        return _draw_short(values, candidates, threshold, temperature, uniform)
    for length in (16 * _SHORTLISTS[-1], logits.shape[1]):
        if len(open_rows) == 0:
            break
        values, _ = shortlist(logits[open_rows], length)
        part = RowSampling(sampling.record[open_rows])
        threshold[open_rows] = _threshold(values, part, temperature[open_rows], norm[open_rows])
        held = _holds(values, part, temperature[open_rows], norm[open_rows])
        open_rows = open_rows[~held[:, 0]]
    return _draw_whole(logits, threshold, temperature, uniform)


def _holds(values: Tensor, sampling: RowSampling, temperature: Tensor, norm: Tensor) -> Tensor:
    """bool [N, 1]: whether the largest logits, [N, C], hold all that ``top_k`` or, without it,
    ``top_p`` keeps."""
    mass = (values / temperature - norm).exp().sum(-1, keepdim=True)
    return torch.where(sampling.top_k > 0, sampling.top_k <= values.shape[1], mass > sampling.top_p)


def _draw_whole(
    logits: Tensor, threshold: Tensor, temperature: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """A draw among all tokens: first the chunk of 128, then the token in it."""
    num_rows, width = logits.shape
    peaks = logits.amax(-1, keepdim=True)
    scaled = (logits - peaks).div_(temperature).masked_fill_(logits < threshold, -torch.inf)
    weights = scaled.exp_()
    if width % _CHUNK:
        weights = functional.pad(weights, (0, -width % _CHUNK))
    chunks = weights.view(num_rows, -1, _CHUNK)
    cumulative = chunks.sum(-1).cumsum(-1, dtype=torch.float64)
    target = uniform.unsqueeze(1) * cumulative[:, -1:]
    chunk = _invert(cumulative, target)
    before = torch.where(chunk > 0, cumulative.gather(1, (chunk - 1).clamp_min(0)), 0.0)
    inside = chunks.gather(1, chunk.unsqueeze(2).expand(-1, 1, _CHUNK)).squeeze(1)
    inside = inside.cumsum(-1, dtype=torch.float64)
    rest = torch.minimum(target - before, inside[:, -1:] * _BELOW_ONE)
    ids = chunk * _CHUNK + _invert(inside, rest)
    return ids.squeeze(1).clamp_max(width - 1), peaks.squeeze(1)
