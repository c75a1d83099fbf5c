"""The instructions that make numbers of codes, run one by one on a host that knows no PTX."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from tests.core.compute.kernels.coded_cases import TABLES
from torch import Tensor

from jackfield.compute.kernels import code_numbers
from jackfield.compute.kernels.code_numbers import Scaling

DTYPES = [torch.bfloat16, torch.float16]


def expected(kind: str) -> Tensor:
    _, table = TABLES[kind]
    if table is None:
        return torch.arange(256).to(torch.uint8).view(torch.int8).double()
    return table.double()


PROGRAMS: dict[str, Callable[[torch.dtype, Scaling], str]] = {
    "int4": lambda dtype, scaling: code_numbers.integers_of_4_bits(dtype, scaling),
    "fp4": lambda dtype, scaling: code_numbers.floats_of_4_bits(dtype, scaling),
    "any": lambda dtype, scaling: code_numbers.table_of_16(
        expected("any").tolist(), dtype, scaling
    ),
    "int8": lambda dtype, scaling: code_numbers.integers_of_8_bits(dtype, scaling),
    "e4m3": lambda dtype, scaling: code_numbers.floats_of_8_bits(dtype, 4, scaling),
    "e5m2": lambda dtype, scaling: code_numbers.floats_of_8_bits(dtype, 5, scaling),
}


def halves(word: int, dtype: torch.dtype) -> Tensor:
    """Two numbers of a register, in float64."""
    pair = torch.tensor([word & 0xFFFF, word >> 16], dtype=torch.int32).to(torch.int16)
    return pair.view(dtype).double()


def register(pair: Tensor, dtype: torch.dtype) -> int:
    low, high = (pair.to(dtype).view(torch.int16).int() & 0xFFFF).tolist()
    return int(low | high << 16)


def lop3(a: int, b: int, c: int, table: int) -> int:
    bits = ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1) for i in range(32))
    return sum((table >> bit & 1) << i for i, bit in enumerate(bits))


def prmt(a: int, b: int, selector: int) -> int:
    both = a | b << 32
    return sum((both >> 8 * (selector >> 4 * i & 7) & 0xFF) << 8 * i for i in range(4))


def run(program: str, inputs: dict[str, int], dtype: torch.dtype) -> dict[str, int]:
    """Registers after a program of the instructions that are known here."""

    def numbers(*words: int) -> list[Tensor]:
        return [halves(word, dtype) for word in words]

    def multiply(a: int, b: int, c: int = 0) -> int:
        x, y, z = numbers(a, b, c)
        return register(x * y + z, dtype)

    def subtract(a: int, b: int) -> int:
        x, y = numbers(a, b)
        return register(x - y, dtype)

    instructions: dict[str, Callable[..., int]] = {
        "mov": lambda a: a,
        "shl": lambda a, by: a << by & 0xFFFFFFFF,
        "shr": operator.rshift,
        "and": operator.and_,
        "or": operator.or_,
        "lop3": lop3,
        "prmt": prmt,
        "sub": subtract,
        "mul": multiply,
        "fma": multiply,
        "cvt": lambda a: register(expected("e4m3")[[a & 0xFF, a >> 8]], torch.float16),
    }
    registers = dict(inputs)
    for line in program.strip("{} ").split(";"):
        if not line.strip() or line.strip().startswith(".reg"):
            continue
        name, rest = line.split(maxsplit=1)
        if rest.startswith("{"):
            low, high, source = (part.strip("{} ") for part in rest.split(","))
            registers |= {low: registers[source] & 0xFFFF, high: registers[source] >> 16}
            continue
        target, *operands = (part.strip() for part in rest.split(","))
        values = (registers[o] if o in registers else int(o, 0) for o in operands)
        registers[target] = instructions[name.split(".")[0]](*values)
    return registers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_every_code_becomes_its_number(kind: str, dtype: torch.dtype) -> None:
    numbers = expected(kind)
    bits = 8 if len(numbers) == 256 else 4
    count = 16 // bits
    program = PROGRAMS[kind](dtype, Scaling.NONE)
    for first in range(2**bits):
        second = (first * 5 + 3) % 2**bits
        # Two words of 16 bits, all codes of each different.
        words = [[(code + 3 * o) % 2**bits for o in range(count)] for code in (first, second)]
        packed = sum(
            c << (16 * w + bits * o) for w, own in enumerate(words) for o, c in enumerate(own)
        )
        after = run(program, {f"${count}": packed}, dtype)
        for o in range(count):
            got = halves(after[f"${o}"], dtype)
            wanted = numbers[[words[0][o], words[1][o]]].to(dtype).double()
            known = torch.tensor([is_number(kind, words[w][o]) for w in range(2)])
            assert torch.equal(got[known], wanted[known]), (kind, words, o)


@pytest.mark.parametrize(
    ("program", "together"),
    [
        # A word's codes, or the lowest of both words and the others.
        (code_numbers.PAIRS_OF_E4M3, [slice(0, 2), slice(2, 4)]),
        (code_numbers.E4M3_AS_FLOAT16, [slice(0, 4, 2), slice(1, 4, 2)]),
    ],
)
def test_a_device_that_knows_e4m3_makes_float16(program: str, together: list[slice]) -> None:
    numbers = expected("e4m3")
    for first in range(256):
        codes = [(first + 67 * i) % 256 for i in range(4)]
        packed = sum(code << 8 * i for i, code in enumerate(codes))
        after = run(program, {"$2": packed}, torch.float16)
        for place, some in enumerate(together):
            wanted = numbers[codes[some]]
            assert torch.equal(halves(after[f"${place}"], torch.float16), wanted)


def is_number(kind: str, code: int) -> bool:
    magnitude = code & 0x7F
    return not (kind == "e4m3" and magnitude == 0x7F) and not (kind == "e5m2" and magnitude > 0x7B)


@pytest.mark.parametrize("kind", ["int4", "fp4", "e4m3"])
def test_numbers_are_scaled_and_shifted(kind: str) -> None:
    dtype = torch.float16
    numbers = expected(kind)
    bits = 8 if len(numbers) == 256 else 4
    count = 16 // bits
    scales, shifts = torch.tensor([0.5, 0.25]), torch.tensor([3.0, -2.0])
    inputs = {f"${count}": 0x0201 if bits == 8 else 0x4321}
    for group in range(count // 2):
        inputs[f"${count + 1 + group}"] = register(scales, dtype)
        inputs[f"${count + 1 + count // 2 + group}"] = register(shifts, dtype)
    after = run(PROGRAMS[kind](dtype, Scaling.SHIFT), inputs, dtype)
    for o in range(count):
        wanted = numbers[[o + 1, 0]] * scales.double() + shifts.double()
        assert torch.equal(halves(after[f"${o}"], dtype), wanted.to(dtype).double())
