"""A linear layer whose weight is stored in the model's own dtype.

On the CPU bfloat16 (on x86 with AMX, or without AVX-512 BF16) and float16 stay as they are, in the
mapped file if that is where they lie, and are multiplied by kernels in C (``native/linear.c``).
Elsewhere the weight is packed once into oneDNN's blocked layout: a decode step then streams it at
nearly the memory's bandwidth, twice as fast as oneDNN does from the plain layout.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jackfield.compute import ops
from jackfield.compute.kernels.scaled_rows import NormedRows, ScaledRows
from jackfield.compute.layers.norm import RMSNorm
from jackfield.compute.native import kernels_for, multiplies
from jackfield.compute.shapes import padded_rows

_PACK_ROWS = 32
"""Rows of activations the packed layout is chosen for. Layouts for 1 row cost up to 40 % at 16 to
64 rows, while this one loses nothing at 1 row or at 1,024 (docs/performance-cpu.md)."""


_PADDED_ROWS = 256
"""Up to here the layer itself pads the rows to one of few numbers (and 1 to 3 rows to 4, which is
15 % faster); copying more of them would cost more than another kernel."""

_ADDED_ROWS = 2048
"""From here on cuBLAS adds the residual to its product for less than a kernel takes for it."""


class UnquantizedLinear:
    """Implements ``LinearMethod``; has no state of its own, one object may serve all layers."""

    def create_weights(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """Registers ``weight`` [out_features, in_features], uninitialized."""
        shape = (cast(int, layer.out_features), cast(int, layer.in_features))
        weight = torch.empty(shape, dtype=dtype, device=device)
        layer.register_parameter("weight", nn.Parameter(weight, requires_grad=False))

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Packs the weight where the device profits, and lets go of the plain one.

        A weight that another module holds too (an embedding tied to the head) stays there.
        """
        weight = layer.get_parameter("weight")
        if weight.device.type != "cpu":
            return
        if not packs(weight.dtype):
            return
        layer.packed_weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACK_ROWS)
        del layer.weight

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        """x [T, in_features] -> x @ weight.T + bias, [T, out_features], in x's dtype."""
        packed = layer.__dict__.get("packed_weight")
        if packed is None:
            # Not by ``get_parameter``: in a small model that takes as long as a product.
            return _multiply_plain(x, cast(Tensor, layer._parameters["weight"]), bias)
        rows = x.shape[-2]
        padded = padded_rows(rows)
        if padded != rows and rows <= _PADDED_ROWS:
            x = F.pad(x, (0, 0, 0, padded - rows))
            return _multiply(x, packed, bias)[..., :rows, :]
        return _multiply(x, packed, bias)

    def apply_gated(
        self, layer: nn.Module, x: Tensor | ScaledRows | NormedRows, bias: Tensor | None
    ) -> Tensor:
        """SiLU of the first half of ``apply``'s outputs times the second half."""
        if isinstance(x, NormedRows):
            x = x.rows
        weight = layer._parameters.get("weight")
        if isinstance(x, ScaledRows) or (weight is not None and _is_few_rows(x)):
            assert weight is not None, "rows are only scaled for a plain weight"
            from jackfield.compute.kernels import few_rows  # Triton: GPUs only

            gated = few_rows.linear_gated(x, weight, bias)
            if gated is not None:
                return gated
        assert isinstance(x, Tensor)
        return ops.silu_and_mul(self.apply(layer, x, bias))

    def apply_scaled(
        self, layer: nn.Module, x: ScaledRows | NormedRows, bias: Tensor | None
    ) -> Tensor:
        """``apply`` to normalized rows of ``apply_add``."""
        if isinstance(x, NormedRows):
            return self.apply(layer, x.rows, bias)
        from jackfield.compute.kernels import few_rows  # Triton: GPUs only

        product = few_rows.linear(x, layer.get_parameter("weight"), bias)
        assert product is not None
        return product

    def apply_add(
        self,
        layer: nn.Module,
        x: Tensor,
        bias: Tensor | None,
        residual: Tensor,
        norm: RMSNorm,
        reader: nn.Module,
    ) -> ScaledRows | NormedRows | None:
        """``norm`` of ``apply`` plus the residual, which becomes the sum, for ``reader`` to
        multiply; None where a product does not add to the residual, or the reader has another
        method, and the residual is left alone."""
        if not _is_few_rows(x) or type(getattr(reader, "method", None)) is not UnquantizedLinear:
            return None
        from jackfield.compute.kernels import few_rows  # Triton: GPUs only

        own, its = layer.get_parameter("weight"), reader.get_parameter("weight")
        scaled = few_rows.linear_add(x, own, bias, residual, norm.weight, norm.eps, its)
        if scaled is not None or bias is not None or len(x) < _ADDED_ROWS:
            return scaled
        return NormedRows(norm(torch.addmm(residual, x, own.t(), out=residual)))


def _is_few_rows(x: Tensor) -> bool:
    return x.is_cuda and x.dim() == 2 and x.is_contiguous()


def _multiply_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _is_few_rows(x):
        from jackfield.compute.kernels import few_rows  # Triton: GPUs only

        product = few_rows.linear(x, weight, bias)
        if product is not None:
            return product
    if x.is_cpu and x.dtype is weight.dtype and not packs(x.dtype):
        kernels = kernels_for(x.dtype)
        if kernels is not None and multiplies(weight):
            return kernels.linear(x, weight, bias)
    return F.linear(x, weight, bias)


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether weights of ``dtype`` are packed for oneDNN on this CPU."""
    kernels = kernels_for(dtype) if dtype is torch.bfloat16 else None
    return has_products(dtype) and not (kernels is not None and kernels.has_tiles)


@cache
def has_products(dtype: torch.dtype) -> bool:
    """Whether torch's own products of ``dtype``, oneDNN's, are the best that this CPU has for
    what is computed in a step."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype is torch.float32:
        return True
    if dtype is not torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On AVX-512 alone oneDNN widens bfloat16 within its products, three times as slow as the
    # kernels in C; without a compiler that is still the best there is.
    return _has_bfloat16_products() or kernels_for(dtype) is None


def _has_bfloat16_products() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def products_of(dtype: torch.dtype) -> str:
    """Whose matrix products multiply plain weights of ``dtype`` on this CPU, in a word."""
    if packs(dtype):
        return "oneDNN"
    kernels = kernels_for(dtype)
    if kernels is None:
        return "torch"
    return "compiled C, AMX" if kernels.has_tiles else "compiled C"
