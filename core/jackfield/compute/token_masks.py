"""What grammars allow, laid over the logits of a step."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from jackfield.contracts.work import BoolArray, Int32Array, TokenMasks


class MaskRoom:
    """Where masks lie: in memory of the host that the device can read. A sampling reads the new
    masks of its own rows there and keeps them, so that the host enqueues no copy, and a mask that
    stays is neither written nor brought again.

    ``host`` int32 [R, W] is for who fills masks. There is room for one step: its masks may be
    changed once the step before has been waited for.
    """

    def __init__(self, max_rows: int, width: int, device: torch.device) -> None:
        on_device = device.type == "cuda"
        shape = (max_rows, width // 32 + 1)
        self._bits = torch.full(shape, -1, dtype=torch.int32, pin_memory=on_device)
        self._kept = torch.empty_like(self._bits, device=device) if on_device else self._bits
        self._codes = torch.full((max_rows,), -1, dtype=torch.int32, pin_memory=on_device)
        """Of each row of the logits: twice the slot of its mask, and 1 if that is new; or -1."""
        self.host: Int32Array = cast(Int32Array, self._bits.numpy())
        self._host_codes = cast(Int32Array, self._codes.numpy())

    def put(self, masks: TokenMasks, samples: BoolArray) -> None:
        """Makes a step's masks those that ``apply`` takes. ``samples`` says which sequences of the
        step the rows of its logits belong to, in order."""
        codes = 2 * masks.slots + masks.are_new
        if not np.may_share_memory(masks.bits, self.host):
            self.host[: len(codes)] = masks.bits[masks.slots]
            codes = 2 * np.arange(len(codes), dtype=np.int32) + 1
        self._host_codes[:] = -1
        self._host_codes[(np.cumsum(samples, dtype=np.int32) - 1)[masks.places]] = codes

    def apply(self, logits: Tensor) -> None:
        """Sets logits [N, V] of forbidden ids to -inf, in place. On a GPU it reads nothing before
        the device does, so that it can be captured."""
        if logits.device.type == "cpu":
            self._apply_on_host(logits)
            return
        from jackfield.compute.kernels.token_masks import mask_logits  # Triton: GPUs only

        # Rows behind those of sequences are padding.
        mask_logits(logits[: len(self._codes)], self._codes, self._bits, self._kept)

    def _apply_on_host(self, logits: Tensor) -> None:
        packed = self.host.view(np.uint8)
        for row, code in enumerate(self._host_codes[: len(logits)].tolist()):
            if code >= 0:
                bits = packed[code >> 1]
                allowed = np.unpackbits(bits, bitorder="little", count=logits.shape[1])
                logits[row].masked_fill_(torch.from_numpy(allowed == 0), -torch.inf)
