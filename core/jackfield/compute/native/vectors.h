/* Eight floats at a time: extensions of GCC and Clang that become whatever vectors the processor has.
 *
 * What is stored is read in blocks of 16. Widened the quick way, a block of bfloat16 comes out as
 * its even elements and then its odd ones: where a sum over all of them is wanted, the order is
 * free as long as both factors have the same.
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

/* 16 stored numbers, in the quick order. */
INLINED void widen_block(const stored *from, floats out[2]) {
#ifdef STORED_BF16
    words pairs;
    memcpy(&pairs, from, sizeof pairs);
    out[0] = (floats)(pairs << 16);
    out[1] = (floats)(pairs & 0xffff0000u);
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

/* 16 stored numbers, in their own order. */
INLINED void widen_in_order(const stored *from, floats out[2]) {
#ifdef STORED_BF16
    for (int i = 0; i < 2; i++) {
        shorts half;
        memcpy(&half, from + LANES * i, sizeof half);
        out[i] = (floats)(__builtin_convertvector(half, words) << 16);
    }
#else
    widen_block(from, out);
#endif
}

/* Where the number is in a block that comes out as the i-th in the quick order. */
static inline int64_t place_in_block(int64_t i) {
#ifdef STORED_BF16
    return i < LANES ? 2 * i : 2 * (i - LANES) + 1;
#else
    return i;
#endif
}

/* n stored numbers, whole blocks, in one of the two orders. */
INLINED void widen_row(const stored *from, int64_t n, int in_order, float *out) {
    for (int64_t i = 0; i < n; i += BLOCK) {
        floats both[2];
        if (in_order)
            widen_in_order(from + i, both);
        else
            widen_block(from + i, both);
        put(out + i, both[0]);
        put(out + i + LANES, both[1]);
    }
}

#define SHUFFLE __builtin_shufflevector

/* 8 vectors to the 8 that have the first elements of each, the second ones, and so on; `stride`
 * apart in out. */
INLINED void transpose(const floats in[8], float *out, int64_t stride) {
    floats pairs[8], fours[8];
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
        put(out + i * stride, SHUFFLE(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11));
        put(out + (i + 4) * stride, SHUFFLE(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15));
    }
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
