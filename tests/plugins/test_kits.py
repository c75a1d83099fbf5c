"""Bundled plugins by the kits that third parties use, where nothing else runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file
from tests.checkpoints import make, write_tokenizer
from torch import Tensor

from jackfield.compute.attention.cpu import CpuAttention
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend
from jackfield.contracts.loading import LoadFormat
from jackfield.contracts.model import Model
from jackfield.contracts.platform import Platform
from jackfield.contracts.text import TokenizerMode
from jackfield.contracts.work import Executor, Worker
from jackfield.testing import (
    AttentionBackendContract,
    ExecutorContract,
    LoadFormatContract,
    ModelContract,
    PlatformContract,
    TokenizerContract,
    WorkerContract,
)
from jackfield.testing.simulated_worker import SimulatedWorker
from jackfield.testing.workers import simulated_plan
from jackfield_executors.uni import UniExecutor
from jackfield_load_formats.pt import PtLoadFormat
from jackfield_load_formats.safetensors import SafetensorsLoadFormat
from jackfield_models.qwen2 import Qwen2ForCausalLM
from jackfield_models.qwen3 import Qwen3ForCausalLM
from jackfield_models.text_of_multimodal import TextOfMultimodal
from jackfield_platforms.cpu import CpuPlatform
from jackfield_tokenizers.auto import AutoTokenizerMode
from jackfield_workers.device import DeviceWorker


class TestCpuAttention(AttentionBackendContract):
    backend: ClassVar[type[AttentionBackend]] = CpuAttention


class TestUniExecutor(ExecutorContract):
    executor: ClassVar[Callable[[], Executor]] = UniExecutor


class TestCpuPlatform(PlatformContract):
    platform: ClassVar[type[Platform]] = CpuPlatform


class TestAutoTokenizer(TokenizerContract):
    mode: ClassVar[Callable[[], TokenizerMode]] = AutoTokenizerMode

    def write(self, directory: Path) -> None:
        write_tokenizer(directory)


class TestSafetensors(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = SafetensorsLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        save_file(dict(tensors), directory / "model.safetensors")


class TestPt(LoadFormatContract):
    load_format: ClassVar[Callable[[], LoadFormat]] = PtLoadFormat

    def write(self, directory: Path, tensors: Mapping[str, Tensor]) -> None:
        torch.save(dict(tensors), directory / "pytorch_model.bin")


CONFIG = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
}


class TestQwen3(ModelContract):
    model: ClassVar[type[Model]] = Qwen3ForCausalLM
    config: ClassVar[Mapping[str, object]] = CONFIG


class TestQwen2Tied(ModelContract):
    model: ClassVar[type[Model]] = Qwen2ForCausalLM
    config: ClassVar[Mapping[str, object]] = {**CONFIG, "head_dim": 8, "tie_word_embeddings": True}


class TestTextOfQwen3VL(ModelContract):
    model: ClassVar[type[Model]] = TextOfMultimodal
    config: ClassVar[Mapping[str, object]] = {
        "model_type": "qwen3_vl",
        "text_config": {**CONFIG, "model_type": "qwen3_vl_text"},
    }


class TestTextOfGemma3(ModelContract):
    model: ClassVar[type[Model]] = TextOfMultimodal
    config: ClassVar[Mapping[str, object]] = {
        "model_type": "gemma3",
        "text_config": {**CONFIG, "model_type": "gemma3_text"},
    }


class TestSimulatedWorker(WorkerContract):
    worker: ClassVar[Callable[[], Worker]] = SimulatedWorker


class TestDeviceWorker(WorkerContract):
    worker: ClassVar[Callable[[], Worker]] = DeviceWorker

    def plan(self) -> WorkerPlan:
        directory = make("Qwen3ForCausalLM")
        config = json.loads((directory / "config.json").read_text())
        return simulated_plan(
            model=str(directory), config=config, max_num_batched_tokens=64, block_size=16
        )
