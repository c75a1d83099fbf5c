"""What grammars allow, laid over the logits of a step."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from jackfield.contracts.work import BoolArray, Int32Array, TokenMasks


class MaskRoom:
    """Where masks lie: in memory of the host that the device can read. A sampling reads the masks
    of its own rows there, so that the host enqueues no copy, and a mask that stays is written once.

    ``host`` int32 [R, W] is for who fills masks. There is room for one step: its masks may be
    changed once the step before has been waited for.
    """

    def __init__(self, max_rows: int, width: int, device: torch.device) -> None:
        is_pinned = device.type == "cuda"
        shape = (max_rows, width // 32 + 1)
        self._bits = torch.full(shape, -1, dtype=torch.int32, pin_memory=is_pinned)
        self._slots = torch.full((max_rows,), -1, dtype=torch.int32, pin_memory=is_pinned)
        """Which mask each row of the logits has, -1 for none."""
        self.host: Int32Array = cast(Int32Array, self._bits.numpy())
        self._host_slots = cast(Int32Array, self._slots.numpy())

    def put(self, masks: TokenMasks, samples: BoolArray) -> None:
        """Makes a step's masks those that ``apply`` takes. ``samples`` says which sequences of the
        step the rows of its logits belong to, in order."""
        slots = masks.slots
        if not np.may_share_memory(masks.bits, self.host):
            self.host[: len(slots)] = masks.bits[slots]
            slots = np.arange(len(slots), dtype=np.int32)
        self._host_slots[:] = -1
        self._host_slots[(np.cumsum(samples, dtype=np.int32) - 1)[masks.places]] = slots

    def apply(self, logits: Tensor) -> None:
        """Sets logits [N, V] of forbidden ids to -inf, in place. On a GPU it reads nothing before
        the device does, so that it can be captured."""
        if logits.device.type == "cpu":
            self._apply_on_host(logits)
            return
        from jackfield.compute.kernels.token_masks import mask_logits  # Triton: GPUs only

        # Rows behind those of sequences are padding.
        mask_logits(logits[: len(self._slots)], self._slots, self._bits)

    def _apply_on_host(self, logits: Tensor) -> None:
        packed = self.host.view(np.uint8)
        for row, slot in enumerate(self._host_slots[: len(logits)].tolist()):
            if slot >= 0:
                allowed = np.unpackbits(packed[slot], bitorder="little", count=logits.shape[1])
                logits[row].masked_fill_(torch.from_numpy(allowed == 0), -torch.inf)
