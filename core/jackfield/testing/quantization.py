"""The laws of a quantization method. Subclass ``QuantizationContract`` in a test file::

    class TestMine(QuantizationContract):
        method = MyQuantization

        def stored(self, weight):
            return {"weight": weight}  # what the checkpoint has of a layer, by parameter name

The kit makes a linear layer as a model does, on the CPU, and compares it with the product in
float64. ``error`` is the largest relative error that the method promises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.layers.linear import ColumnParallelLinear, QKVParallelLinear
from jackfield.compute.weights import load_weights, translated
from jackfield.contracts.model import BuildContext, QuantizationMethod, TensorParallelGroup
from jackfield.testing.plugins import assert_conforms

CPU = torch.device("cpu")
INPUTS, OUTPUTS, HEAD_DIM = 64, 96, 16


class QuantizationContract:
    """Laws that hold for every quantization method."""

    method: ClassVar[Callable[[Mapping[str, object]], QuantizationMethod]]
    config: ClassVar[Mapping[str, object]] = {}
    """The checkpoint's ``quantization_config``."""
    error: ClassVar[float] = 0.02

    def stored(self, weight: Tensor) -> dict[str, Tensor]:
        """What a checkpoint has of the layer with ``weight``, float32 [outputs, inputs]."""
        return {"weight": weight}

    def context(self) -> BuildContext:
        """What a layer is made with."""
        return BuildContext(
            dtype=torch.float32,
            device=CPU,
            group=TensorParallelGroup(),
            attention_backend=CpuAttention(CPU, torch.float32, 8),
            max_model_len=64,
            max_num_batched_tokens=64,
            quantization=type(self).method(self.config),
        )

    def check(self, layer: Any, weights: Mapping[str, Tensor], context: BuildContext) -> None:
        """Loads the parts of a layer and compares its product."""
        model = torch.nn.ModuleDict({"layer": layer})
        tensors = {
            f"{name}.{key}": tensor
            for name, weight in weights.items()
            for key, tensor in self.stored(weight).items()
        }
        with torch.inference_mode():
            load_weights(model, translated(tensors.items(), context.quantization))
            whole = torch.cat(list(weights.values())).double()
            for rows in (1, 3, 40):
                x = torch.randn(rows, INPUTS)
                out = cast(Tensor, layer(x))
                expected = x.double() @ whole.T
                assert out.shape == expected.shape and out.dtype == x.dtype
                error = (out.double() - expected).norm() / expected.norm()
                assert error < self.error, f"relative error {error:.4f} with {rows} rows"

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("quantization", type(self).method)

    def test_one_layer(self) -> None:
        torch.manual_seed(0)
        context = self.context()
        layer = ColumnParallelLinear(INPUTS, OUTPUTS, context=context, prefix="layer")
        self.check(layer, {"layer": torch.randn(OUTPUTS, INPUTS)}, context)

    def test_a_fused_layer_is_loaded_part_by_part(self) -> None:
        torch.manual_seed(1)
        context = self.context()
        layer = QKVParallelLinear(INPUTS, HEAD_DIM, 4, 1, context=context, prefix="qkv")
        self.check(
            layer,
            {
                "q_proj": torch.randn(4 * HEAD_DIM, INPUTS),
                "k_proj": torch.randn(HEAD_DIM, INPUTS) * 5,
                "v_proj": torch.randn(HEAD_DIM, INPUTS) / 5,
            },
            context,
        )
