/* Floats at a time, eight (`floats`) or as many as the processor's widest vectors have (`wide`):
 * extensions of GCC and Clang that become whatever vectors there are.
 *
 * What is stored is read in spans of two wide vectors. Widened the quick way, a span of bfloat16
 * comes out as its even elements and then its odd ones: where a sum over all of them is wanted, the
 * order is free as long as both factors have the same. Rows have whole blocks of 16; a last block
 * that is half a span is widened with zeros behind it.
 */

#pragma once

#include "stored.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define INLINED static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(32)));
typedef uint32_t words __attribute__((vector_size(32)));
typedef uint16_t shorts __attribute__((vector_size(16)));
#ifdef STORED_F16
typedef _Float16 halves __attribute__((vector_size(16)));
#endif

enum { LANES = 8, BLOCK = 16 };

#ifdef __AVX512F__
enum { WIDTH = 16 };
typedef float wide __attribute__((vector_size(64)));
typedef uint32_t wide_words __attribute__((vector_size(64)));
#else
enum { WIDTH = LANES };
typedef floats wide;
typedef words wide_words;
#endif
enum { SPAN = 2 * WIDTH };

INLINED floats load(const float *from) {
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINED void put(float *to, floats x) { memcpy(to, &x, sizeof x); }

INLINED floats all(float x) { return (floats){x, x, x, x, x, x, x, x}; }

/* sum + a * b. An intrinsic where there is one: the sum of a sum in any order would be a product
 * and an addition more. */
INLINED floats add_product(floats sum, floats a, floats b) {
#ifdef __FMA__
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return sum + a * b;
#endif
}

INLINED wide load_wide(const float *from) {
    wide x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINED void put_wide(float *to, wide x) { memcpy(to, &x, sizeof x); }

/* The first n of x, n at most WIDTH. */
INLINED void put_some(float *to, wide x, int64_t n) {
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), (__m512)x);
#else
    if (n == WIDTH)
        put_wide(to, x);
    else
        memcpy(to, &x, n * sizeof(float));
#endif
}

INLINED wide all_wide(float x) {
#ifdef __AVX512F__
    return (wide)_mm512_set1_ps(x);
#else
    return all(x);
#endif
}

INLINED wide add_wide_product(wide sum, wide a, wide b) {
#ifdef __AVX512F__
    return (wide)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#else
    return add_product(sum, a, b);
#endif
}

/* x, in a register: the compiler would rather load it anew for each of a few products, and loads are
 * what they run out of. */
INLINED wide in_register(wide x) {
#ifdef __AVX512F__
    __asm__("" : "+v"(x));
#endif
    return x;
}

/* 16 stored numbers, in their own order. */
INLINED void widen_in_order(const stored *from, floats out[2]) {
#ifdef STORED_BF16
    for (int i = 0; i < 2; i++) {
        shorts half;
        memcpy(&half, from + LANES * i, sizeof half);
        out[i] = (floats)(__builtin_convertvector(half, words) << 16);
    }
#elif defined(STORED_F16)
    for (int i = 0; i < 2; i++) {
#ifdef __F16C__
        out[i] = (floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + LANES * i)));
#else
        halves half;
        memcpy(&half, from + LANES * i, sizeof half);
        out[i] = __builtin_convertvector(half, floats);
#endif
    }
#else
    out[0] = load(from);
    out[1] = load(from + LANES);
#endif
}

/* The bits of a span of 16-bit numbers, in pairs, or of a block with zeros behind it. */
INLINED wide_words load_pairs(const stored *from, int whole) {
    wide_words pairs = {0};
    memcpy(&pairs, from, (whole ? SPAN : BLOCK) * sizeof *from);
    return pairs;
}

INLINED wide even_of(wide_words pairs) { return (wide)(pairs << 16); }
INLINED wide odd_of(wide_words pairs) { return (wide)(pairs & 0xffff0000u); }

/* A span, or a block with zeros behind it, in the quick order. */
INLINED void widen_span(const stored *from, int whole, wide out[2]) {
#ifdef STORED_BF16
    wide_words pairs = load_pairs(from, whole);
    out[0] = even_of(pairs), out[1] = odd_of(pairs);
#elif !defined(__AVX512F__)
    (void)whole;
    widen_in_order(from, out);
#else
    for (int i = 0; i < 2; i++)
        if (i && !whole)
            out[i] = (wide){0};
        else
#ifdef STORED_F16
            out[i] = (wide)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + WIDTH * i)));
#else
            out[i] = load_wide(from + WIDTH * i);
#endif
#endif
}

/* Numbers in the places that widen_span gives them, back to what is stored, in order. */
INLINED void narrow_span(const wide from[2], stored *to) {
#ifdef STORED_BF16
    wide_words bits[2];
    for (int i = 0; i < 2; i++) {
        bits[i] = (wide_words)from[i];
        bits[i] += 0x7fff + ((bits[i] >> 16) & 1);
    }
    wide_words pairs = (bits[0] >> 16) | (bits[1] & 0xffff0000u);
    memcpy(to, &pairs, sizeof pairs);
#else
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < WIDTH; j++) to[i * WIDTH + j] = narrow(from[i][j]);
#endif
}

/* n stored numbers, whole blocks, in the quick order; out has room for whole spans. */
INLINED void widen_row(const stored *from, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i += SPAN) {
        wide both[2];
        if (i + SPAN <= n)
            widen_span(from + i, 1, both);
        else
            widen_span(from + i, 0, both);
        put_wide(out + i, both[0]);
        put_wide(out + i + WIDTH, both[1]);
    }
}

/* The same in their own order; out has room for n. */
INLINED void widen_row_in_order(const stored *from, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i += BLOCK) {
        floats both[2];
        widen_in_order(from + i, both);
        put(out + i, both[0]);
        put(out + i + LANES, both[1]);
    }
}

#define SHUFFLE __builtin_shufflevector

/* Vectors to those that have the first elements of each, the second ones, and so on. */
INLINED void transpose(const wide in[WIDTH], wide out[WIDTH]) {
    wide pairs[WIDTH], fours[WIDTH];
#ifdef __AVX512F__
    for (int i = 0; i < WIDTH; i += 2) {
        pairs[i] = (wide)_mm512_unpacklo_ps((__m512)in[i], (__m512)in[i + 1]);
        pairs[i + 1] = (wide)_mm512_unpackhi_ps((__m512)in[i], (__m512)in[i + 1]);
    }
    for (int i = 0; i < WIDTH; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d a = (__m512d)pairs[i + j], b = (__m512d)pairs[i + j + 2];
            fours[i + 2 * j] = (wide)_mm512_unpacklo_pd(a, b);
            fours[i + 2 * j + 1] = (wide)_mm512_unpackhi_pd(a, b);
        }
    for (int j = 0; j < 4; j++) {
        __m512 a = (__m512)fours[j], b = (__m512)fours[j + 4];
        __m512 c = (__m512)fours[j + 8], d = (__m512)fours[j + 12];
        __m512 ab = _mm512_shuffle_f32x4(a, b, 0x88), cd = _mm512_shuffle_f32x4(c, d, 0x88);
        out[j] = (wide)_mm512_shuffle_f32x4(ab, cd, 0x88);
        out[j + 8] = (wide)_mm512_shuffle_f32x4(ab, cd, 0xdd);
        ab = _mm512_shuffle_f32x4(a, b, 0xdd), cd = _mm512_shuffle_f32x4(c, d, 0xdd);
        out[j + 4] = (wide)_mm512_shuffle_f32x4(ab, cd, 0x88);
        out[j + 12] = (wide)_mm512_shuffle_f32x4(ab, cd, 0xdd);
    }
#else
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = SHUFFLE(in[i], in[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[i + 1] = SHUFFLE(in[i], in[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            floats a = pairs[i + j], b = pairs[i + j + 2];
            fours[i + 2 * j] = SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
            fours[i + 2 * j + 1] = SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        out[i] = SHUFFLE(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        out[i + 4] = SHUFFLE(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
#endif
}

/* to[i] += the sum of v[i]'s elements, for 4 vectors. */
INLINED void add_sums(const floats v[4], float *to) {
    floats pairs[2], both;
    for (int i = 0; i < 2; i++) {
        floats a = v[2 * i], b = v[2 * i + 1];
        pairs[i] = SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
    }
    both = SHUFFLE(pairs[0], pairs[1], 0, 1, 8, 9, 4, 5, 12, 13) +
           SHUFFLE(pairs[0], pairs[1], 2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; i++) to[i] += both[i] + both[i + 4];
}

INLINED void add_wide_sums(const wide v[4], float *to) {
#ifdef __AVX512F__
    floats halves[4];
    for (int i = 0; i < 4; i++)
        halves[i] = SHUFFLE(v[i], v[i], 0, 1, 2, 3, 4, 5, 6, 7) + SHUFFLE(v[i], v[i], 8, 9, 10, 11, 12, 13, 14, 15);
    add_sums(halves, to);
#else
    add_sums(v, to);
#endif
}
