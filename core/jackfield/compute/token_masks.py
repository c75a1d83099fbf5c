"""What grammars allow, laid over the logits of a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import BoolArray, TokenMasks


class MaskRoom:
    """Where the masks of a step lie on the device: a fixed place, which captured samplings read.

    ``rows`` int32 [R], the row of the logits of each mask, -1 behind the last mask; ``bits``
    int32 [R, W]. Room for ``max_rows`` masks and one step at a time.
    """

    def __init__(self, max_rows: int, width: int, uploads: Uploads, device: torch.device) -> None:
        words = width // 32 + 1
        self._uploads = uploads
        self._packed = torch.full((max_rows * (1 + words),), -1, dtype=torch.int32, device=device)
        self.rows = self._packed[:max_rows]
        self.bits = self._packed[max_rows:].view(max_rows, words)

    def upload(self, masks: TokenMasks, samples: BoolArray) -> None:
        """Brings a step's masks here; one copy. ``samples`` says which sequences of the step the
        rows of its logits belong to, in order."""
        rows = np.full(len(self.rows), -1, dtype=np.int32)
        rows[: len(masks.places)] = (np.cumsum(samples, dtype=np.int32) - 1)[masks.places]
        self._uploads.upload_parts((rows, masks.bits.reshape(-1)), self._packed)

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
