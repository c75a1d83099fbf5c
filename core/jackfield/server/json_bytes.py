"""JSON in and out, as bytes: one strict decoder, one encoder.

Strict: no NaN, no infinities (a number too big for a double included), no lone surrogates, no
invalid UTF-8.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jackfield.errors import RequestError

dumps = msgspec.json.Encoder().encode

_decode = msgspec.json.Decoder().decode


def loads(body: bytes) -> Any:
    """The value of a client's JSON; ``RequestError`` says where it is wrong."""
    try:
        return _decode(body)
    except RecursionError:
        raise RequestError("The request body nests too deep") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise RequestError(f"The request body is not valid JSON: {error}") from None
