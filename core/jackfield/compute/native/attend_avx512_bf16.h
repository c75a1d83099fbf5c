/* The parts of attend_decodes.c for processors with AVX-512 BF16: dot products of bfloat16 pairs. */

#include "reduce_avx512.h"

enum {
    AT_ONCE = 16, /* keys whose products are reduced together */
    SLICE = 32    /* dimensions of a value that are summed at once */
};

static inline __m512 dot(const stored *q, const stored *key, int64_t dim) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < dim; i += 32)
        sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(q + i),
                               (__m512bh)_mm512_loadu_si512(key + i));
    return sum;
}

static inline int fits(int64_t dim) { return dim % SLICE == 0; }

static float plain_dot(const stored *q, const stored *key, int64_t dim) {
    float sum = 0.0f;
    for (int64_t i = 0; i < dim; i++) sum += widen(q[i]) * widen(key[i]);
    return sum;
}

static void score_keys(const stored *q, const stored *keys, int64_t num_keys, int64_t group,
                       int64_t dim, float *scores) {
    for (int64_t g = 0; g < group; g++, q += dim, scores += CHUNK) {
        int64_t t = 0;
        for (; fits(dim) && t + AT_ONCE <= num_keys; t += AT_ONCE) {
            __m512 products[AT_ONCE];
            for (int i = 0; i < AT_ONCE; i++) products[i] = dot(q, keys + (t + i) * dim, dim);
            _mm512_storeu_ps(scores + t, sums_of(products));
        }
        for (; t < num_keys; t++)
            scores[t] = fits(dim) ? _mm512_reduce_add_ps(dot(q, keys + t * dim, dim))
                                  : plain_dot(q, keys + t * dim, dim);
    }
}

/* Values of two keys are interleaved within the 128-bit lanes, so that the low halves of the lanes
 * come to stand before the high ones; store_row puts them in order. The weights are bfloat16, in pairs, 0 at the end of
 * an odd number. */
static inline void add_slice(const uint16_t *weights, const stored *values, int64_t num_keys,
                             int64_t dim, float *sums) {
    __m512 low = _mm512_loadu_ps(sums), high = _mm512_loadu_ps(sums + 16);
    for (int64_t t = 0; t < num_keys; t += 2, values += 2 * dim) {
        int32_t pair;
        memcpy(&pair, weights + t, sizeof pair);
        __m512i one = _mm512_loadu_si512(values);
        __m512i two = t + 1 < num_keys ? _mm512_loadu_si512(values + dim) : one;
        __m512bh weight = (__m512bh)_mm512_set1_epi32(pair);
        low = _mm512_dpbf16_ps(low, (__m512bh)_mm512_unpacklo_epi16(one, two), weight);
        high = _mm512_dpbf16_ps(high, (__m512bh)_mm512_unpackhi_epi16(one, two), weight);
    }
    _mm512_storeu_ps(sums, low);
    _mm512_storeu_ps(sums + 16, high);
}

static inline void round_weights(const float *weights, int64_t num_keys, uint16_t *rounded) {
    for (int64_t t = 0; t < num_keys; t += 16) {
        __mmask16 there = num_keys - t < 16 ? (1u << (num_keys - t)) - 1 : 0xffff;
        __m256bh some = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(there, weights + t));
        _mm256_storeu_si256((__m256i *)(rounded + t), (__m256i)some);
    }
}

static void add_values(const float *weights, const stored *values, int64_t num_keys, int64_t group,
                       int64_t dim, float *sums) {
    uint16_t rounded[CHUNK + 16];
    int64_t whole = dim / SLICE * SLICE;
    for (int64_t g = 0; g < group; g++, weights += CHUNK, sums += dim) {
        round_weights(weights, num_keys, rounded);
        for (int64_t i = 0; i < whole; i += SLICE)
            add_slice(rounded, values + i, num_keys, dim, sums + i);
        for (int64_t t = 0; t < num_keys && whole < dim; t++)
            for (int64_t i = whole; i < dim; i++)
                sums[i] += weights[t] * widen(values[t * dim + i]);
    }
}

static void store_row(const float *sums, float scale, int64_t dim, stored *out) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    int64_t whole = dim / SLICE * SLICE;
    for (int64_t i = 0; i < whole; i += SLICE) {
        __m512 low = _mm512_mul_ps(_mm512_loadu_ps(sums + i), _mm512_set1_ps(scale));
        __m512 high = _mm512_mul_ps(_mm512_loadu_ps(sums + i + 16), _mm512_set1_ps(scale));
        __m512bh row = _mm512_cvtne2ps_pbh(_mm512_permutex2var_ps(low, second, high),
                                           _mm512_permutex2var_ps(low, first, high));
        _mm512_storeu_si512(out + i, (__m512i)row);
    }
    for (int64_t i = whole; i < dim; i++) out[i] = narrow(sums[i] * scale);
}
