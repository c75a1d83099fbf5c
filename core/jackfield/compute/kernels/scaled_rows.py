"""Rows on their way from one product to the next, between which they are normalized."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """RMSNorm's rows before they are divided by their root mean square, which a product of them
    does to its result: it is one factor a row.

    ``rows`` [M, N] are multiplied by the norm's weight; ``squares`` float32 [P, M] add up to the
    sum of each row's squares before that.
    """

    rows: Tensor
    squares: Tensor
    eps: float

    @classmethod
    def parts(cls, x: Tensor | ScaledRows) -> tuple[Tensor, Tensor | None, float]:
        """(rows, squares, eps); plain rows have no squares."""
        return (x.rows, x.squares, x.eps) if isinstance(x, ScaledRows) else (x, None, 0.0)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class RoundedRows:
    """Rows whose product with ``scales`` is meant: ``rows`` E4M3 [M, K], ``scales`` float32
    [M, K / stretch]; products of them are in ``dtype``."""

    rows: Tensor
    scales: Tensor
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How rows are rounded to E4M3: the largest magnitude of ``stretch`` inputs (None: of the whole
    row) becomes 448; with ``static``, float32 of one element, that is the scale, and what is beyond
    it is cut off."""

    static: Tensor | None = None
    stretch: int | None = None


@dataclass(frozen=True, slots=True)
class NormedRows:
    """RMSNorm's rows [M, N] of a sum that is in the residual already."""

    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)


PassedRows = ScaledRows | RoundedRows | NormedRows
"""What a product leaves in the form that the next one takes."""
