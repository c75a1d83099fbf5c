"""Environment variables that are no options: vLLM's, and what Kubernetes makes of services."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType

_READ_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "VLLM_API_KEY": "JACKFIELD_API_KEY is",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "see --rope-scaling",
        "VLLM_CPU_KVCACHE_SPACE": "JACKFIELD_CPU_KV_CACHE_GIB is",
        "VLLM_CPU_OMP_THREADS_BIND": "JACKFIELD_NUM_THREADS is",
        "VLLM_LOGGING_LEVEL": "JACKFIELD_LOG_LEVEL is",
        "VLLM_PLUGINS": "JACKFIELD_DISABLE_PLUGIN is",
        "VLLM_SERVER_DEV_MODE": "JACKFIELD_SERVER_DEV_MODE is",
        "VLLM_USE_MODELSCOPE": "models come from the hub of Hugging Face",
    }
)
_LINK_NAME = re.compile(
    r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?$"
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def vllm_variables() -> list[str]:
    """A line for the ``VLLM_*`` variables that are set: none is read."""
    names = sorted(
        name
        for name, value in os.environ.items()
        if name.startswith("VLLM_") and value and not is_service_link(name, value)
    )
    told = [f"{each} ({_READ_INSTEAD[each]})" if each in _READ_INSTEAD else each for each in names]
    return [f"variables of vLLM are not read: {', '.join(told)}"] if told else []


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set it: in every pod, for a service called as our prefix or as vLLM,
    ``NAME_PORT=tcp://10.0.0.1:80`` and others beside it."""
    if name.endswith("_PORT") and _LINK_VALUE.match(value):
        return True
    return _LINK_NAME.search(name) is not None
