from __future__ import annotations

import pytest
import tests.interpreter
import torch

from jackfield.compute.kernels.token_masks import mask_logits

DEVICE = tests.interpreter.DEVICE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 31, 64, 2049, 5000])
def test_ids_that_a_mask_forbids_are_minus_infinity(width: int, dtype: torch.dtype) -> None:
    logits = torch.randn(4, width + 3).to(DEVICE, dtype)[:, :width]
    expected = logits.clone()
    codes = torch.tensor([-1, 2 * 2 + 1, -1, 2 * 0], dtype=torch.int32, device=DEVICE)
    bits = torch.randint(-(2**31), 2**31, (3, width // 32 + 1), dtype=torch.int64)
    for row, words in ((1, bits[2].tolist()), (3, bits[0].tolist())):
        for token_id in range(width):
            if not words[token_id // 32] >> (token_id % 32) & 1:
                expected[row, token_id] = -torch.inf
    new = bits.to(torch.int32).to(DEVICE)
    kept = new.clone()
    new[0], kept[2] = 0, 0
    mask_logits(logits, codes, new, kept)
    assert torch.equal(logits, expected)
    assert torch.equal(kept[1:], bits[1:].to(torch.int32).to(DEVICE))
