"""The laws of a model class. Subclass ``ModelContract`` in a test file::

    class TestMine(ModelContract):
        model = MyForCausalLM
        config = {"vocab_size": 64, "hidden_size": 32, ...}  # a small config.json

The kit gives it random weights and runs it over pages on the CPU, in float32. That it computes
what the checkpoint's authors meant is for a test of your own: compare with their code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.offload import layers_of
from jackfield.contracts.model import (
    BuildContext,
    Model,
    QuantizationMethod,
    SelectsTokens,
    TensorParallelGroup,
)
from jackfield.errors import CheckpointError
from jackfield.testing.paged_model import BLOCK_SIZE, CPU, PagedModel
from jackfield.testing.plugins import assert_conforms

PROMPTS: Sequence[Sequence[int]] = ([3, 1, 4, 1, 5, 9, 2, 6], [5], [3, 5, 8, 9, 7])


class ModelContract:
    """Laws that hold for every model class."""

    model: ClassVar[type[Model]]
    config: ClassVar[Mapping[str, object]]

    def context(self, quantization: QuantizationMethod | None = None) -> BuildContext:
        """What the model is built with."""
        return BuildContext(
            dtype=torch.float32,
            device=CPU,
            group=TensorParallelGroup(),
            attention_backend=CpuAttention(CPU, torch.float32, BLOCK_SIZE),
            max_model_len=64,
            max_num_batched_tokens=64,
            quantization=quantization,
        )

    def weights(self, model: Model) -> dict[str, Tensor]:
        """Random weights of the shapes that the model asks for."""
        generator = torch.Generator().manual_seed(0)
        return {
            name: torch.randn(shape, generator=generator) * (0.2 if len(shape) > 1 else 0.1)
            + (len(shape) == 1)
            for name, shape in sorted(model.weight_shapes().items())
        }

    def loaded(self, **changes: Tensor | None) -> Model:
        """The model with its weights; ``changes`` replace, add or (None) leave out tensors."""
        with torch.inference_mode():
            model = self.model(self.config, self.context())
            tensors = {**self.weights(model), **changes}
            model.load_weights((name, t) for name, t in tensors.items() if t is not None)
        return model

    def test_the_registry_takes_it(self) -> None:
        assert_conforms("models", type(self).model)

    def test_it_says_what_it_needs_and_refuses_other_weights(self) -> None:
        model = self.model(self.config, self.context())
        name, shape = next(iter(model.weight_shapes().items()))
        for wrong in (None, torch.zeros([2 * size for size in shape])):
            with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
                self.loaded(**{name: wrong})
        with pytest.raises(CheckpointError, match="no_such_tensor"):
            self.loaded(no_such_tensor=torch.zeros(3))

    def test_logits_are_finite_and_as_wide_as_the_vocabulary(self) -> None:
        logits = PagedModel(self.loaded()).step({0: PROMPTS[0]})[0]
        assert logits.shape[0] == len(PROMPTS[0]) and logits.isfinite().all()
        assert logits.std() > 0, "the logits do not depend on anything"

    def test_a_prompt_in_pieces_gives_what_it_gives_whole(self) -> None:
        whole = PagedModel(self.loaded()).step({0: PROMPTS[0]})[0]
        for pieces in ([[3, 1, 4], [1, 5, 9, 2], [6]], [[token] for token in PROMPTS[0]]):
            model = PagedModel(self.loaded())
            parts = [model.step({0: piece})[0] for piece in pieces]
            torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-3, atol=1e-3)

    def test_a_sequence_gives_the_same_whatever_it_is_batched_with(self) -> None:
        together = PagedModel(self.loaded()).step(dict(enumerate(PROMPTS)))
        for row, prompt in enumerate(PROMPTS):
            alone = PagedModel(self.loaded()).step({row: prompt})[row]
            torch.testing.assert_close(alone, together[row], rtol=1e-3, atol=1e-3)

    def test_a_token_sees_those_before_it_and_none_behind(self) -> None:
        model = self.loaded()
        first = PagedModel(model).step({0: [1, 2, 3, 4]})[0]
        behind = PagedModel(model).step({0: [1, 2, 3, 5]})[0]
        before = PagedModel(model).step({0: [2, 2, 3, 4]})[0]
        torch.testing.assert_close(first[:3], behind[:3], rtol=1e-3, atol=1e-3)
        assert (first[3] - before[3]).abs().max() > 0

    def test_selected_tokens_are_what_they_are_among_all(self) -> None:
        model = self.loaded()
        if not isinstance(model, SelectsTokens):
            pytest.skip("it computes all tokens")
        work = dict(enumerate(PROMPTS))
        every, following = PagedModel(model).step(work), {0: [7], 1: [8], 2: [9, 1]}
        expected = PagedModel(model)
        expected.step(work)
        after = expected.step(following)
        for wanted in ({0, 1, 2}, {2}, set[int]()):
            paged = PagedModel(model)
            selected = paged.step_selected(work, wanted)
            last = [every[row][-1] for row in (1, 0, 2) if row in wanted]
            assert len(selected) == len(wanted)
            for got, all_of_them in zip(selected, last, strict=True):
                torch.testing.assert_close(got, all_of_them, rtol=1e-3, atol=1e-3)
            # Keys and values of all tokens are there.
            for row, logits in paged.step(following).items():
                torch.testing.assert_close(logits, after[row], rtol=1e-3, atol=1e-3)

    def test_hooks_of_every_layer_are_called_for_selected_tokens_too(self) -> None:
        """``--cpu-offload-gb`` fetches a layer's weights in such a hook."""
        model = self.loaded()
        if not isinstance(model, SelectsTokens):
            pytest.skip("it computes all tokens")
        assert isinstance(model, nn.Module)
        called: list[int] = []
        for place, layer in enumerate(layers_of(model)):
            layer.register_forward_pre_hook(lambda *_, place=place: called.append(place))
        PagedModel(model).step_selected({0: PROMPTS[0]}, {0})
        assert called == list(range(len(layers_of(model))))

    @pytest.fixture(autouse=True)
    def _inference(self) -> Iterator[None]:
        with torch.inference_mode():
            yield
