/* Matrix products by weights that are stored as codes, in integers of 8 bits: AVX-512 VNNI.
 *
 * weight[n, k] = (code[n, k] - zero) * scale[n, k >> log_group] + shift[n, k >> log_group]
 *
 * Codes are unsigned. They lie in tiles of 16 rows, so that a vector has 4 inputs of every row: a
 * product of it by 4 numbers of a token is one instruction, and sums need no reduction. Activations
 * become integers of 8 bits with a scale for each unit of 16, 32 or 64 inputs, no more than have a
 * scale of the weight in common. Where 8 bits are too few for them, a token is two rows, the high and
 * the low bytes of integers of 16 bits.
 *
 * A line is 64 bytes, what a vector holds. Of a tile follow each other
 *   BYTES   a line for 4 inputs
 *   HALVES  a line for 8, 4 of them in the low halves of bytes, then 4 in the high ones; LOOKED_UP the
 *           same, a code being the place in a table of codes
 *   SIX     3 lines for 16: two as HALVES, then the upper two bits, lowest first
 * Scales and shifts are [tiles, groups, 16]: float32, float16, or int8 times a float16 for 256 inputs.
 */

#include "linear_codes_tiles.h"

#ifdef HAS_CODED_TILES

/* The 4 inputs of 16 rows that follow, `count` times; to the next lines. */
INLINED const uint8_t *unpack(const uint8_t *from, int coding, __m512i lookup, __m512i out[]) {
    const __m512i mask = _mm512_set1_epi8(15), upper = _mm512_set1_epi8(0x30);
    if (coding == BYTES) {
        for (int i = 0; i < 4; i++) out[i] = _mm512_loadu_si512(from + LINE * i);
        return from + 4 * LINE;
    }
    for (int i = 0; i < 2; i++) {
        __m512i both = _mm512_loadu_si512(from + LINE * i);
        out[2 * i] = _mm512_and_si512(both, mask);
        out[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    }
    if (coding == LOOKED_UP)
        for (int i = 0; i < 4; i++) out[i] = _mm512_shuffle_epi8(lookup, out[i]);
    if (coding != SIX) return from + 2 * LINE;
    __m512i bits = _mm512_loadu_si512(from + 2 * LINE);
    out[0] = _mm512_or_si512(out[0], _mm512_and_si512(_mm512_slli_epi16(bits, 4), upper));
    out[1] = _mm512_or_si512(out[1], _mm512_and_si512(_mm512_slli_epi16(bits, 2), upper));
    out[2] = _mm512_or_si512(out[2], _mm512_and_si512(bits, upper));
    out[3] = _mm512_or_si512(out[3], _mm512_and_si512(_mm512_srli_epi16(bits, 2), upper));
    return from + 3 * LINE;
}

INLINED __m512i broadcast(const int8_t *four) {
    int32_t all;
    memcpy(&all, four, sizeof all);
    return _mm512_set1_epi32(all);
}

/* A pair of tiles times the rows of a panel -> sums[row][tile]. */
INLINED void multiply_panel(const tiled *w, const factors tiles[PAIR], const panel *x, int num_rows,
                            int coding, __m512 sums[][PAIR]) {
    __m512i lookup = coding == LOOKED_UP ? _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)w->lookup))
                                         : _mm512_setzero_si512();
    const uint8_t *codes[PAIR] = {tiles[0].codes, tiles[1].codes};
    const int8_t *integers = x->integers;
    const int64_t unit = w->unit, units = w->inputs / unit;
    const int64_t of_group = (1LL << w->log_group) / unit;
    int64_t group = 0, in_group = 0;
    for (int r = 0; r < num_rows; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int64_t u = 0; u < units; u++) {
        __m512i products[ROWS_AT_ONCE][PAIR];
        for (int r = 0; r < num_rows; r++)
            products[r][0] = products[r][1] = _mm512_set1_epi32(x->begin[u * num_rows + r]);
        for (int64_t k = 0; k < unit; k += 16) {
            __m512i weights[PAIR][4];
            /* Few rows wait for memory; with many the weights are in the cache but for the first. */
            for (int i = 0; i < PAIR && num_rows <= FEW_ROWS; i++)
                for (int at = 0; at < LINE * lines(coding); at += LINE) __builtin_prefetch(codes[i] + AHEAD + at);
            for (int i = 0; i < PAIR; i++) codes[i] = unpack(codes[i], coding, lookup, weights[i]);
            for (int four = 0; four < 4; four++, integers += 4 * num_rows)
                for (int r = 0; r < num_rows; r++) {
                    __m512i of_x = broadcast(integers + 4 * r);
                    for (int i = 0; i < PAIR; i++)
                        products[r][i] = _mm512_dpbusd_epi32(products[r][i], weights[i][four], of_x);
                }
        }
        const float *of_x = x->scales + u * num_rows, *sums_of_x = x->sums + u * num_rows;
        for (int i = 0; i < PAIR; i++) {
            __m512 scale = _mm512_loadu_ps(tiles[i].scales + TILE * group);
            for (int r = 0; r < num_rows; r++) {
                __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(of_x[r]));
                sums[r][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[r][i]), factor, sums[r][i]);
            }
        }
        if (tiles[0].shifts) {
            __m512 shift[PAIR];
            for (int i = 0; i < PAIR; i++) shift[i] = _mm512_loadu_ps(tiles[i].shifts + TILE * group);
            for (int r = 0; r < num_rows; r++) {
                __m512 sum = _mm512_set1_ps(sums_of_x[r]);
                for (int i = 0; i < PAIR; i++) sums[r][i] = _mm512_fmadd_ps(shift[i], sum, sums[r][i]);
            }
        }
        if (++in_group == of_group) group++, in_group = 0;
    }
}

/* multiply_panel for a coding and numbers of rows that the compiler knows. */
#define ROWS(rows, coding) case rows: multiply_panel(w, tiles, x, rows, coding, sums); break;
#define CODING(name, coding)                                                                           \
    static void name(const tiled *w, const factors tiles[PAIR], const panel *x, __m512 sums[][PAIR]) { \
        switch (x->num_rows) {                                                                         \
            ROWS(1, coding) ROWS(2, coding) ROWS(3, coding)                                            \
            ROWS(4, coding) ROWS(5, coding) ROWS(6, coding)                                            \
        }                                                                                              \
    }
CODING(multiply_bytes, BYTES)
CODING(multiply_halves, HALVES)
CODING(multiply_looked_up, LOOKED_UP)
CODING(multiply_six, SIX)
#undef CODING
#undef ROWS

static void multiply(const tiled *w, const factors tiles[PAIR], const panel *x, __m512 sums[][PAIR]) {
    switch (w->coding) {
        case BYTES: multiply_bytes(w, tiles, x, sums); break;
        case HALVES: multiply_halves(w, tiles, x, sums); break;
        case LOOKED_UP: multiply_looked_up(w, tiles, x, sums); break;
        case SIX: multiply_six(w, tiles, x, sums); break;
    }
}

/* Panels of all rows: their places in the room. */
static panel panel_at(const tiled *w, char *room, int64_t num_tokens, int64_t index) {
    int64_t rows = num_tokens * w->planes, first = index * ROWS_AT_ONCE, units = w->inputs / w->unit;
    int64_t here = rows - first < ROWS_AT_ONCE ? rows - first : ROWS_AT_ONCE;
    char *from = room + first * row_room(w->inputs, w->unit);
    float *scales = (float *)(from + here * w->inputs);
    return (panel){(int8_t *)from, scales, scales + here * units, (int32_t *)(scales + 2 * here * units), (int)here};
}

/* A unit of a token to integers: `places` their rows in a panel. */
static void round_unit(const tiled *w, const stored *x, panel *to, int row, int64_t u) {
    __m512 numbers[4];
    __m512i most = _mm512_setzero_si512();
    const __m512i sign = _mm512_set1_epi32(0x7fffffff);
    int64_t vectors = w->unit / 16, rows = to->num_rows;
    /* The largest as an integer: that of a NaN is larger than all. */
    for (int64_t i = 0; i < vectors; i++) {
        numbers[i] = widen_16(x + u * w->unit + 16 * i);
        most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(numbers[i]), sign));
    }
    union { int32_t bits; float value; } largest = {_mm512_reduce_max_epi32(most)};
    const float limit = w->planes == 2 ? 32639.0f : 127.0f;
    float scale = largest.value / limit;
    __m512 factor = _mm512_set1_ps(largest.value > 0.0f ? limit / largest.value : 0.0f);
    int32_t sums[2] = {0, 0};
    for (int64_t i = 0; i < vectors; i++) {
        __m512i integers = _mm512_cvtps_epi32(_mm512_mul_ps(numbers[i], factor)), planes[2] = {integers, integers};
        if (w->planes == 2) {
            planes[0] = _mm512_srai_epi32(_mm512_add_epi32(integers, _mm512_set1_epi32(128)), 8);
            planes[1] = _mm512_sub_epi32(integers, _mm512_slli_epi32(planes[0], 8));
        }
        for (int p = 0; p < w->planes; p++) {
            int32_t fours[4];
            _mm_storeu_si128((__m128i *)fours, _mm512_cvtepi32_epi8(planes[p]));
            sums[p] += _mm512_reduce_add_epi32(planes[p]);
            int8_t *at = to->integers + (u * w->unit + 16 * i) * rows + 4 * (row + p);
            for (int j = 0; j < 4; j++) memcpy(at + 4 * rows * j, &fours[j], sizeof fours[j]);
        }
    }
    for (int p = 0; p < w->planes; p++) {
        float own = w->planes == 2 && p == 0 ? 256.0f * scale : scale;
        int64_t at = u * rows + row + p;
        to->scales[at] = own;
        to->sums[at] = own * (float)sums[p];
        to->begin[at] = -w->zero * sums[p];
    }
}

static void prepare(const tiled *w, const stored *x, char *room, int64_t num_tokens, int64_t token) {
    int64_t row = token * w->planes;
    panel to = panel_at(w, room, num_tokens, row / ROWS_AT_ONCE);
    for (int64_t u = 0; u < w->inputs / w->unit; u++)
        round_unit(w, x + token * w->inputs, &to, (int)(row % ROWS_AT_ONCE), u);
}

/* 16 outputs of every row of a panel. */
static void store_tile(const tiled *w, __m512 sums[][PAIR], int tile, int64_t num_rows, int64_t n,
                       stored *out) {
    int64_t rest = w->outputs - n;
    __mmask16 mask = rest < TILE ? (__mmask16)((1 << rest) - 1) : 0xffff;
    for (int64_t t = 0; t < num_rows / w->planes; t++) {
        __m512 sum = sums[t * w->planes][tile];
        if (w->planes == 2) sum = _mm512_add_ps(sum, sums[2 * t + 1][tile]);
        _mm256_mask_storeu_epi16(out + t * w->outputs + n, mask, narrow_16(sum));
    }
}

/* Tiles first and the next, if there is one, times the panels of some tokens. */
static void multiply_pair(const tiled *w, char *room, float *wide, int64_t first, int64_t num_tokens,
                          int64_t begin, int64_t end, stored *out) {
    int count = (first + 1) * TILE < w->outputs ? PAIR : 1;
    factors tiles[PAIR];
    for (int i = 0; i < PAIR; i++) tiles[i] = i < count ? factors_of(w, first + i, wide + i * wide_room(w)) : tiles[0];
    for (int64_t p = begin; p < end; p++) {
        __m512 sums[ROWS_AT_ONCE][PAIR];
        panel x = panel_at(w, room, num_tokens, p);
        multiply(w, tiles, &x, sums);
        stored *to = out + p * ROWS_AT_ONCE / w->planes * w->outputs;
        for (int i = 0; i < count; i++) store_tile(w, sums, i, x.num_rows, (first + i) * TILE, to);
    }
}

int64_t coded_tiles_room(int64_t num_tokens, int64_t inputs, int64_t unit, int64_t planes) {
    return num_tokens * planes * row_room(inputs, unit);
}

int64_t has_coded_tiles(void) { return 1; }

/* x [num_tokens, inputs] -> out [num_tokens, outputs] */
void linear_coded_tiles(const tiled *w, const stored *x, stored *out, void *room, int64_t num_tokens) {
    enum { CACHED = 1 << 20 /* bytes of panels that stay in a core's cache while weights pass by */ };
    int64_t panels = (num_tokens * w->planes + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    int64_t at_once = CACHED / (ROWS_AT_ONCE * row_room(w->inputs, w->unit));
    if (at_once < 1) at_once = 1;
    int64_t parts = (panels + at_once - 1) / at_once, pairs = (w->outputs + 2 * TILE - 1) / (2 * TILE);
    at_once = (panels + parts - 1) / parts;
    /* One token is there before threads could have met to share it. */
    if (num_tokens == 1) prepare(w, x, room, 1, 0);
#pragma omp parallel if (num_tokens * w->outputs * w->inputs >= SHARED_CODES)
    {
        float wide[PAIR * wide_room(w) + 1];
        if (num_tokens > 1) {
#pragma omp for schedule(static)
            for (int64_t t = 0; t < num_tokens; t++) prepare(w, x, room, num_tokens, t);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < parts * pairs; i++) {
            int64_t begin = i / pairs * at_once, end = begin + at_once < panels ? begin + at_once : panels;
            multiply_pair(w, room, wide, i % pairs * PAIR, num_tokens, begin, end, out);
        }
    }
}

#else

int64_t has_coded_tiles(void) { return 0; }

int64_t coded_tiles_room(int64_t num_tokens, int64_t inputs, int64_t unit, int64_t planes) {
    return (void)num_tokens, (void)inputs, (void)unit, (void)planes, 0;
}

void linear_coded_tiles(const tiled *w, const stored *x, stored *out, void *room, int64_t num_tokens) {
    (void)w, (void)x, (void)out, (void)room, (void)num_tokens;
}

#endif
