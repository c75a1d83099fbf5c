"""Codes of a weight on their way to wgmma: from memory to what each thread makes numbers of, in the
registers that the tensor cores take them from."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy

from jackfield.compute.kernels.code_numbers import numbers_of


@gluon.jit
def places_of_codes(words, strip, num_blocks, BITS: gl.constexpr, CODES: gl.constexpr):
    """Where codes of the first blocks are [strips, blocks, parts, 32 lanes, 8 words of 2 bytes]."""
    U: gl.constexpr = CODES.size_per_thread[1]
    P: gl.constexpr = CODES.size_per_thread[2]
    strip = strip.to(gl.int64)[:, None, None, None, None]
    block = gl.arange(0, U)[None, :, None, None, None]
    part = gl.arange(0, P)[None, None, :, None, None]
    lane = gl.arange(0, 32)[None, None, None, :, None]
    word = gl.arange(0, 8)[None, None, None, None, :]
    if BITS == 4:
        place = strip * num_blocks * 256 + (block * 256 + part * 0 + lane * 8 + word)
    else:
        row = strip * 16 + part * 8 + lane // 4
        place = row * (num_blocks * 32) + (block * 32 + lane % 4 * 8 + word)
    return gl.set_auto_layout(words + place, CODES)


@gluon.jit
def places_of_scales(scales, strip, num_groups, SCALES: gl.constexpr):
    """Where the first groups' scales are [strips, 1, 1, 1, 8, 2 (row + 8)]."""
    own = (strip * num_groups)[:, None, None, None, None, None] * 16
    pair = gl.arange(0, 8)[None, None, None, None, :, None] * 2
    place = own + pair + gl.arange(0, 2)[None, None, None, None, None, :]
    return gl.set_auto_layout(scales + place, SCALES)


@gluon.jit
def request(
    source,
    tiles,
    block,
    stage,
    num_blocks,
    num_groups,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    EVEN: gl.constexpr,
    HAS_SHIFTS: gl.constexpr,
):
    """Copies codes, scales and shifts of U blocks; codes behind the last block become 0."""
    codes, factors, terms = source
    code_tiles, factor_tiles, term_tiles = tiles
    CODES: gl.constexpr = codes.type.layout
    FACTORS: gl.constexpr = factors.type.layout
    U: gl.constexpr = code_tiles.shape[2]
    at = codes + block * (256 if BITS == 4 else 32)
    if EVEN:
        async_copy.async_copy_global_to_shared(code_tiles.index(stage), at)
    else:
        own = gl.set_auto_layout(gl.arange(0, U)[None, :, None, None, None], CODES)
        async_copy.async_copy_global_to_shared(
            code_tiles.index(stage), at, mask=block + own < num_blocks
        )
    if GROUP > 0:
        H: gl.constexpr = factor_tiles.shape[3]
        Q: gl.constexpr = factor_tiles.shape[4]
        k = (block + gl.arange(0, U)[None, :, None, None, None, None]) * 64
        k += gl.arange(0, H)[None, None, :, None, None, None] * 32
        k += gl.arange(0, Q)[None, None, None, :, None, None] * 16
        group = gl.set_auto_layout(gl.minimum(k // GROUP, num_groups - 1) * 16, FACTORS)
        async_copy.async_copy_global_to_shared(factor_tiles.index(stage), factors + group)
        if HAS_SHIFTS:
            async_copy.async_copy_global_to_shared(term_tiles.index(stage), terms + group)
    async_copy.commit_group()


@gluon.jit
def _spread(values, like, FULL: gl.constexpr, BITS: gl.constexpr):
    # Scales [strips, blocks, 2 halves or 1, 2 quarters or 1, 8, 2 (row + 8)] to where numbers lie:
    # of the first half of a block and (of 4 bits) the second.
    S: gl.constexpr = values.shape[0]
    U: gl.constexpr = values.shape[1]
    values = values.to(like.dtype)
    if BITS == 4:
        SOME: gl.constexpr = gl.SliceLayout(4, gl.SliceLayout(5, gl.SliceLayout(7, FULL)))
        Q: gl.constexpr = values.shape[3]
        values = values.permute([0, 1, 4, 3, 5, 2])
        if values.shape[5] == 2:
            first, second = values.split()
        else:
            first = values.reshape([S, U, 8, Q, 2])
            second = first
        first = gl.convert_layout(first, SOME, assert_trivial=True)
        second = gl.convert_layout(second, SOME, assert_trivial=True)
        first = gl.expand_dims(gl.expand_dims(gl.expand_dims(first, 4), 5), 7)
        second = gl.expand_dims(gl.expand_dims(gl.expand_dims(second, 4), 5), 7)
        return (
            first.broadcast_to([S, U, 8, 2, 2, 2, 2, 2]),
            second.broadcast_to([S, U, 8, 2, 2, 2, 2, 2]),
        )
    else:
        ROWS: gl.constexpr = gl.SliceLayout(
            4, gl.SliceLayout(5, gl.SliceLayout(6, gl.SliceLayout(7, FULL)))
        )
        first = values.reshape([S, U, 8, 2]).permute([0, 1, 3, 2])
        first = gl.convert_layout(first, ROWS, assert_trivial=True)
        first = gl.expand_dims(gl.expand_dims(first, 4), 5)
        first = gl.expand_dims(gl.expand_dims(first, 6), 7)
        first = first.broadcast_to([S, U, 2, 8, 4, 2, 2, 2])
        return first, first


@gluon.jit
def operand(
    words,
    factors,
    terms,
    like,
    ASM: gl.constexpr,
    BITS: gl.constexpr,
    SCALING: gl.constexpr,
    ACC: gl.constexpr,
):
    """Codes as they were loaded to numbers [outputs, inputs] as wgmma takes them from registers."""
    S: gl.constexpr = words.shape[0]
    U: gl.constexpr = words.shape[1]
    A: gl.constexpr = gl.DotOperandLayout(0, ACC, 2)
    # Of 4 bits [strips, blocks, 8, 2, 2 (4 lanes), 2 (k + 8), 2 (row + 8), 2 (k + 1)], of 8
    # [strips, blocks, 2 (row + 8), 8, 4 lanes, 2 (k + 32), 2 (k + 8), 2 (k + 1)].
    SHAPE: gl.constexpr = [S, U, 8, 2, 2, 2, 2, 2] if BITS == 4 else [S, U, 2, 8, 4, 2, 2, 2]
    FULL: gl.constexpr = gl.BlockedLayout(
        [1, U, 1, 1, 1, 2, 2, 2] if BITS == 4 else [1, U, 2, 1, 1, 2, 2, 2],
        [1, 1, 8, 2, 2, 1, 1, 1] if BITS == 4 else [1, 1, 1, 8, 4, 1, 1, 1],
        [S, 1, 1, 1, 1, 1, 1, 1],
        [7, 6, 5, 4, 3, 2, 1, 0],
    )
    words = gl.convert_layout(words.reshape(SHAPE), FULL, assert_trivial=True)
    if SCALING > 0:
        factors = _spread(factors, like, FULL, BITS)
    if SCALING == 2:
        terms = _spread(terms, like, FULL, BITS)
    n = numbers_of(words, factors, terms, like, None, ASM, BITS, SCALING)
    if BITS == 4:
        # And 2 (k + 32), 2 (k + 16).
        f = gl.join(gl.join(n[0], n[2]), gl.join(n[1], n[3]))
        f = f.reshape([S, U, 8, 4, 2, 2, 2, 2, 2]).permute([0, 5, 2, 1, 7, 8, 4, 3, 6])
    else:
        # And 2 (k + 16).
        f = gl.join(n[0], n[1]).permute([0, 2, 3, 1, 5, 8, 6, 4, 7])
    return gl.convert_layout(f.reshape([S * 16, U * 64]), A, assert_trivial=True)


@gluon.jit
def in_order(rows, BITS: gl.constexpr):
    """Inputs in the order in which codes become numbers: k + 32, 16, 8, then the 4 lanes, k + 1."""
    M: gl.constexpr = rows.shape[0]
    U: gl.constexpr = rows.shape[1] // 64
    if BITS == 4:
        # [rows, blocks, 2 (k + 32), 4 lanes, 2 (k + 16), 2 (k + 8), 2 (k + 1)].
        f = rows.reshape([M, U, 2, 4, 2, 2, 2]).permute([0, 1, 2, 4, 5, 3, 6])
    else:
        # [rows, blocks, 4 lanes, 2 (k + 32), 2 (k + 8), 2 (k + 1), 2 (k + 16)].
        f = rows.reshape([M, U, 4, 2, 2, 2, 2]).permute([0, 1, 3, 6, 4, 2, 5])
    return f.reshape([M, U * 64])
