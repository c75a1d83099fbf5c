"""What grammars allow, laid over the logits of a step."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from jackfield.contracts.work import BoolArray, Int32Array, TokenMasks


class MaskRoom:
    """Where the masks of a step lie: on the device in a fixed place, which captured samplings read,
    and on the host in memory from which they get there without another copy.

    Of the device: ``rows`` int32 [R], the row of the logits of each mask, -1 behind the last mask;
    ``bits`` int32 [R, W]. ``host`` int32 [R, W] is the host's part, for who fills masks. There is
    room for ``max_rows`` masks and one step: its masks may be filled once the step before has been
    waited for.
    """

    def __init__(self, max_rows: int, width: int, device: torch.device) -> None:
        words = width // 32 + 1
        size = max_rows * (1 + words)
        self._packed = torch.full((size,), -1, dtype=torch.int32, device=device)
        self.rows = self._packed[:max_rows]
        self.bits = self._packed[max_rows:].view(max_rows, words)
        self._staged, self._stream = self._packed, None
        if device.type == "cuda":
            self._staged = torch.empty(size, dtype=torch.int32, pin_memory=True)
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # The first masks must not be there before what fills the room.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        staged = cast(Int32Array, self._staged.numpy())
        self._host_rows = staged[:max_rows]
        self.host: Int32Array = staged[max_rows:].reshape(max_rows, words)

    def upload(self, masks: TokenMasks, samples: BoolArray) -> None:
        """Brings a step's masks to the device, while it still computes what comes before.
        ``samples`` says which sequences of the step the rows of its logits belong to, in order."""
        count = len(masks.places)
        self._host_rows[:count] = (np.cumsum(samples, dtype=np.int32) - 1)[masks.places]
        self._host_rows[count:] = -1
        if masks.bits.ctypes.data != self.host.ctypes.data:
            self.host[:count] = masks.bits
        if self._stream is None:
            return
        end = len(self.rows) + count * self.host.shape[1]
        with torch.cuda.stream(self._stream):
            self._packed[:end].copy_(self._staged[:end], non_blocking=True)
        torch.cuda.current_stream().wait_stream(self._stream)

    def apply(self, logits: Tensor) -> None:
        """Sets logits [N, V] of forbidden ids to -inf, in place. On a GPU it reads nothing on the
        host, so that it can be captured."""
        if logits.device.type == "cpu":
            self._apply_on_host(logits)
            return
        from jackfield.compute.kernels.token_masks import mask_logits  # Triton: GPUs only

        mask_logits(logits, self.rows[: len(logits)], self.bits[: len(logits)])

    def _apply_on_host(self, logits: Tensor) -> None:
        packed = self.bits.numpy().view(np.uint8)
        for index, row in enumerate(self.rows[self.rows >= 0].tolist()):
            allowed = np.unpackbits(packed[index], bitorder="little", count=logits.shape[1])
            logits[row].masked_fill_(torch.from_numpy(allowed == 0), -torch.inf)
