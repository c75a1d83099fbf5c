"""The model and the optimizer of the training against transformers and linear algebra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tools.mini.example import CHECKPOINT
from tools.mini.model import Qwen3, document_mask, positions_of, save
from tools.mini.optimizer import Optimizer, _orthogonal
from tools.mini.train import rate_share
from transformers import AutoModelForCausalLM

# On the CPU a norm of bfloat16 with float32 weights takes the plain way, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype")


def test_the_loss_is_that_of_transformers() -> None:
    """Two documents in a row, in transformers one by one."""
    ours = Qwen3()
    ours.load_state_dict(load_file(CHECKPOINT / "model.safetensors"))
    theirs = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    ids = torch.randint(256, 5000, (1, 40), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[1] * 24 + [2] * 16])
    weights = torch.ones(1, 40)
    weights[0, 24] = 0.0
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ours(ids, positions_of(documents), document_mask(documents), weights)
    losses = []
    with torch.no_grad():
        for part in (ids[:, :24], ids[:, 24:]):
            logits = theirs(part).logits[0, :-1]
            losses.append(F.cross_entropy(logits, part[0, 1:], reduction="none"))
    wanted = torch.cat(losses).mean()
    assert abs(loss.item() - wanted.item()) < 0.02 * wanted.item()


def test_a_saved_checkpoint_is_loaded_whole(tmp_path: Path) -> None:
    model = Qwen3()
    save(model, tmp_path, [2, 0])
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert theirs.generation_config.eos_token_id == [2, 0]
    saved = load_file(tmp_path / "model.safetensors")
    assert all(value.dtype == torch.bfloat16 for value in saved.values())


def test_positions_begin_anew_with_each_document() -> None:
    documents = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [3, 3, 3, 3, 3, 3, 3]])
    assert positions_of(documents).tolist() == [[0, 1, 2, 0, 1, 0, 1], list(range(7))]


def test_an_update_is_orthogonal() -> None:
    torch.manual_seed(0)
    for shape in ((3, 64, 16), (2, 16, 64), (1, 32, 32)):
        updates = _orthogonal(torch.randn(shape))
        for update in updates:
            values = np.linalg.svd(update.numpy(), compute_uv=False)
            assert 0.6 < values.min() and values.max() < 1.3


def test_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = Qwen3()
    optimizer = Optimizer(model, muon_rate=0.02, adam_rate=0.004)
    ids = torch.randint(0, 5120, (1, 32))
    documents = torch.ones_like(ids)
    losses = []
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(ids, positions_of(documents), document_mask(documents), torch.ones(1, 32))
        loss.backward()
        optimizer.step(1.0)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_rate_rises_then_falls_to_nothing() -> None:
    assert rate_share(0.0, 0) < 0.05
    assert rate_share(0.2, 500) == 1.0
    assert 0.4 < rate_share(0.67, 5000) < 0.6
    assert rate_share(1.0, 9000) == 0.0
