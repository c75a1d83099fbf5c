/* What linear_codes_tiles.c is made of beside its products: types, vectors, scales. */

#pragma once

#include <omp.h>

#include "vectors.h"

enum {
    TILE = 16,         /* rows of weights in a tile */
    LINE = 64,         /* bytes */
    PAIR = 2,          /* tiles at once */
    ROWS_AT_ONCE = 6,  /* with a pair of tiles 12 sums of integers and 12 of floats: 24 registers of 32 */
    FEW_ROWS = 4,
    AHEAD = 4096,      /* bytes of codes that are asked for before they are needed */
    SUPER = 256,       /* inputs with one float16 where scales have two levels */
    SHARED_CODES = 1 << 18
};

enum { BYTES, HALVES, LOOKED_UP, SIX };       /* codings */
enum { FLOAT32, FLOAT16, TWO_LEVELS };        /* of scales and shifts */

/* A weight; library.py has the same. Lookup [16]; shifts, and the upper levels where there are none, NULL. */
typedef struct {
    const uint8_t *codes, *lookup;
    const void *scales, *shifts;
    const uint16_t *upper_scales, *upper_shifts;
    int64_t outputs, inputs, log_group, coding, zero, levels;
    int64_t unit, planes; /* inputs with one scale of x; rows for each token */
} tiled;

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    (defined(STORED_BF16) || defined(STORED_F16))
#define HAS_CODED_TILES

/* Up to ROWS_AT_ONCE rows of x, interleaved: integers [inputs / 4, rows, 4]; by unit [units, rows]:
 * scales, the rows' sums, and what sums of integers begin with, -zero * sum. */
typedef struct {
    int8_t *integers;
    float *scales, *sums;
    int32_t *begin;
    int num_rows;
} panel;

/* What a product needs of a tile. Scales, shifts (NULL: none) [groups, TILE]. */
typedef struct {
    const uint8_t *codes;
    const float *scales, *shifts;
} factors;

/* Bytes of a row in panels. */
static inline int64_t row_room(int64_t inputs, int64_t unit) { return inputs + inputs / unit * 12; }

static inline int64_t num_groups(const tiled *w) { return ((w->inputs - 1) >> w->log_group) + 1; }

/* Of 16 inputs. */
INLINED int lines(int coding) { return coding == BYTES ? 4 : coding == SIX ? 3 : 2; }

static inline int64_t tile_bytes(const tiled *w) {
    return w->inputs / 16 * lines((int)w->coding) * LINE;
}

/* 16 stored numbers. */
INLINED __m512 widen_16(const stored *from) {
    __m256i narrow = _mm256_loadu_si256((const __m256i *)from);
#ifdef STORED_BF16
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
#else
    return _mm512_cvtph_ps(narrow);
#endif
}

INLINED __m256i narrow_16(__m512 x) {
#ifdef STORED_BF16
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
#else
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
#endif
}

/* Floats that the factors of a tile need where they are stored as less. */
static inline int64_t wide_room(const tiled *w) {
    return w->levels == FLOAT32 ? 0 : num_groups(w) * TILE * (w->shifts ? 2 : 1);
}

/* The scales, or the shifts, of a tile as floats, in `wide` if they are not. */
static const float *widen_factors(const tiled *w, const void *stored_, const uint16_t *upper, int64_t tile,
                                  float *wide) {
    int64_t groups = num_groups(w), begin = tile * groups * TILE;
    if (w->levels == FLOAT32) return (const float *)stored_ + begin;
    if (w->levels == FLOAT16) {
        const uint16_t *from = (const uint16_t *)stored_ + begin;
        for (int64_t g = 0; g < groups; g++)
            _mm512_storeu_ps(wide + TILE * g, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + TILE * g))));
        return wide;
    }
    const int8_t *from = (const int8_t *)stored_ + begin;
    int64_t of_super = SUPER >> w->log_group;
    const uint16_t *above = upper + tile * (groups / of_super) * TILE;
    for (int64_t g = 0; g < groups; g += of_super, above += TILE) {
        __m512 factor = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)above));
        for (int64_t i = g; i < g + of_super; i++) {
            __m512i small = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(from + TILE * i)));
            _mm512_storeu_ps(wide + TILE * i, _mm512_mul_ps(_mm512_cvtepi32_ps(small), factor));
        }
    }
    return wide;
}

static factors factors_of(const tiled *w, int64_t tile, float *wide) {
    factors found = {w->codes + tile * tile_bytes(w), widen_factors(w, w->scales, w->upper_scales, tile, wide), NULL};
    if (w->shifts) found.shifts = widen_factors(w, w->shifts, w->upper_shifts, tile, wide + num_groups(w) * TILE);
    return found;
}
#endif
