"""What most formats say: one method for all linear layers but some that are named."""

from __future__ import annotations

from jackfield.contracts.model import LinearMethod
from jackfield_quantization.layer_names import is_listed, is_router


class OneMethod:
    """Part of a ``QuantizationMethod``: its constructor sets the layers that stay plain, as routers
    do, and the method of the others."""

    _excepted: tuple[str, ...]
    _method: LinearMethod

    def linear_method(self, prefix: str) -> LinearMethod | None:
        if is_listed(prefix, self._excepted) or is_router(prefix):
            return None
        return self._method
