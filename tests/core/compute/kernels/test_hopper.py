"""What the interpreter cannot see: that the kernels compile for Hopper, and to what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MAX_SHARED_BYTES = 227 * 1024  # a program's, on compute capability 9.0

Rows = dict[str, list[dict[str, object]]]


def compile_served(cache: Path) -> Rows:
    command = [sys.executable, "-m", "tests.core.compute.kernels.hopper_variants"]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows: Rows = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        rows.setdefault(row["kernel"], []).append(row)
    return rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return compile_served(tmp_path_factory.mktemp("triton"))


def test_served_variants_compile_for_hopper_to_pipelined_tensor_core_loops(rows: Rows) -> None:
    everything = [row for group in rows.values() for row in group]
    assert all(int(str(row["shared_bytes"])) <= MAX_SHARED_BYTES for row in everything)
    # What a product of rows by codes spills it spills once, around its last sums.
    assert all(
        int(str(row["spilled_bytes"])) <= (300 if row["kernel"] == "coded_rows_kernel" else 16)
        for row in everything
    )
    assert all(row["wgmma"] and row["pipelined"] for row in rows["_prefill_kernel"])
    assert all(row["mma"] and row["pipelined"] for row in rows["decode_kernel"])
    assert any(row["wgmma"] for row in rows["_wide_kernel"])
    for kernel in ("_hopper_kernel", "_gate_up_kernel", "_down_kernel"):
        assert all((row["wgmma"] or row["mma"]) and row["pipelined"] for row in rows[kernel])
    for kernel in ("linear_kernel", "_gated_kernel"):
        assert all(row["wgmma"] for row in rows[kernel])
    for kernel in ("_coded_kernel", "_coded_expert_kernel"):
        assert all(row["mma"] for row in rows[kernel])
    assert all(row["mma"] and row["pipelined"] for row in rows["coded_row_kernel"])
    assert all(row["wgmma"] and row["pipelined"] for row in rows["coded_rows_kernel"])
    assert all(row["wgmma"] and row["pipelined"] for row in rows["_coded_wide_kernel"])
    assert len(rows) == 34


def test_no_step_launches_an_attention_variant_that_warm_up_did_not_compile(rows: Rows) -> None:
    for kernel in ("decode_kernel", "_prefill_kernel"):
        ahead = {row["variant"] for row in rows[kernel] if row["ahead"]}
        served = {row["variant"] for row in rows[kernel] if not row["ahead"]}
        assert served and served <= ahead


def test_the_sizes_of_a_step_make_no_variants_of_the_rotation(rows: Rows) -> None:
    variants = {row["variant"] for row in rows["_qk_norm_rope_kernel"]}
    # 1, 4, 8 or 16 heads a program; for each dtype of the pages.
    assert len(variants) == 4 * 3


def test_how_many_sequences_are_sampled_makes_no_variants(rows: Rows) -> None:
    num_variants = {
        kernel: len({row["variant"] for row in rows[kernel]})
        for kernel in ("_part_kernel", "_whole_kernel", "_parts_kernel", "_cut_kernel")
    }
    assert set(num_variants.values()) == {1}, num_variants
    for kernel in ("_cut_sums_kernel", "_draw_kernel"):
        assert len({row["variant"] for row in rows[kernel]}) == 2  # with and without a cut
