"""What grammars allow, laid over the logits of a step."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from jackfield.contracts.work import BoolArray, Int32Array, TokenMasks


class MaskRoom:
    """Where the masks of a step lie: on the host in ``host`` int32 [R, W], for who fills masks, and
    on the device in a place that stays the same.

    ``apply`` brings them from one to the other: a captured sampling holds that copy, which as a
    call of its own took the host longer than all else that enqueues a sampling. There is room for
    ``max_rows`` masks and one step: its masks may be filled once the step before has been waited
    for.
    """

    def __init__(self, max_rows: int, width: int, device: torch.device) -> None:
        words = width // 32 + 1
        size = max_rows * (1 + words)
        self._packed = torch.full((size,), -1, dtype=torch.int32, device=device)
        """Int32 [R], the row of the logits of each mask, -1 behind the last mask; then [R, W]."""
        self._rows = self._packed[:max_rows]
        self._bits = self._packed[max_rows:].view(max_rows, words)
        self._staged = self._packed
        if device.type == "cuda":
            self._staged = torch.empty(size, dtype=torch.int32, pin_memory=True)
        staged = cast(Int32Array, self._staged.numpy())
        self._host_rows = staged[:max_rows]
        self.host: Int32Array = staged[max_rows:].reshape(max_rows, words)

    def put(self, masks: TokenMasks, samples: BoolArray) -> None:
        """Makes a step's masks those that ``apply`` takes. ``samples`` says which sequences of the
        step the rows of its logits belong to, in order."""
        count = len(masks.places)
        self._host_rows[:count] = (np.cumsum(samples, dtype=np.int32) - 1)[masks.places]
        self._host_rows[count:] = -1
        if not np.may_share_memory(masks.bits, self.host):
            self.host[:count] = masks.bits

    def apply(self, logits: Tensor) -> None:
        """Sets logits [N, V] of forbidden ids to -inf, in place. On a GPU it reads nothing on the
        host but what a copy in the stream does, so that it can be captured."""
        if logits.device.type == "cpu":
            self._apply_on_host(logits)
            return
        from jackfield.compute.kernels.token_masks import mask_logits  # Triton: GPUs only

        num_rows = len(logits)
        end = len(self._rows) + num_rows * self._bits.shape[1]
        self._packed[:end].copy_(self._staged[:end], non_blocking=True)
        mask_logits(logits, self._rows[:num_rows], self._bits[:num_rows])

    def _apply_on_host(self, logits: Tensor) -> None:
        packed = self._bits.numpy().view(np.uint8)
        for index, row in enumerate(self._rows[self._rows >= 0].tolist()):
            allowed = np.unpackbits(packed[index], bitorder="little", count=logits.shape[1])
            logits[row].masked_fill_(torch.from_numpy(allowed == 0), -torch.inf)
