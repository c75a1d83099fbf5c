"""The one door to generation: ``AsyncLLM`` for servers, ``LLM`` for programs."""

from jackfield.contracts.generation import RequestRecord
from jackfield.llm.door import AsyncLLM
from jackfield.llm.offline import LLM
from jackfield.llm.outputs import CompletionOutput, RequestOutput
from jackfield.llm.run_table import Observer
from jackfield.llm.supervisor import RestartPolicy

__all__ = [
    "LLM",
    "AsyncLLM",
    "CompletionOutput",
    "Observer",
    "RequestOutput",
    "RequestRecord",
    "RestartPolicy",
]
