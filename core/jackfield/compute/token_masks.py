"""What grammars allow, laid over the logits of a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jackfield.compute.transfer import Uploads
from jackfield.contracts.work import BoolArray, TokenMasks


def apply_masks(logits: Tensor, masks: TokenMasks, samples: BoolArray, uploads: Uploads) -> None:
    """Sets logits [N, V] of forbidden ids to -inf, in place; one upload.

    ``samples`` says which sequences of the step the N rows belong to, in order.
    """
    rows = (np.cumsum(samples, dtype=np.int32) - 1)[masks.places]
    if logits.device.type == "cpu":
        _apply_on_host(logits, rows.tolist(), masks)
        return
    from jackfield.compute.kernels.token_masks import mask_logits  # Triton: GPUs only

    packed = uploads.upload(np.concatenate([rows, masks.bits.reshape(-1)]))
    mask_logits(logits, packed[: len(rows)], packed[len(rows) :].view(len(rows), -1))


def _apply_on_host(logits: Tensor, rows: list[int], masks: TokenMasks) -> None:
    width = logits.shape[1]
    packed = masks.bits.view(np.uint8)
    for index, row in enumerate(rows):
        allowed = np.unpackbits(packed[index], bitorder="little", count=width)
        forbidden = torch.from_numpy(allowed == 0)
        logits[row].masked_fill_(forbidden, -torch.inf)
