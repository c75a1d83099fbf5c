/* 16 vectors of 16 partial sums to 16 sums. */

#pragma once

#include <immintrin.h>

static inline __m512 pair_up(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

static inline __m512 pair_pairs(__m512 a, __m512 b) {
    __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}

static inline __m512 fold_lanes(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* The sum of each vector, in order: a transposition that adds on its way. */
static inline __m512 sums_of(const __m512 v[16]) {
    __m512 four[4];
    for (int i = 0; i < 4; i++)
        four[i] = pair_pairs(pair_up(v[4 * i], v[4 * i + 1]), pair_up(v[4 * i + 2], v[4 * i + 3]));
    return fold_lanes(fold_lanes(four[0], four[1]), fold_lanes(four[2], four[3]));
}
