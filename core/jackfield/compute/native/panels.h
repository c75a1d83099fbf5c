/* Panels, two vectors of rows wide, times tiles of tokens: the product that all large ones are made
 * of. */

#pragma once

#include "vectors.h"

enum {
    PANEL = 2 * WIDTH, /* rows */
    DEPTH = 256,       /* inputs of a panel of weights */
#ifdef __AVX512F__
    TILE_TOKENS = 14, /* with 2 vectors of sums each: 28 registers of 32 */
    TILES_AT_ONCE = 32 /* whose sums are kept while weights pass by */
#else
    TILE_TOKENS = 6, /* 12 of 16 */
    TILES_AT_ONCE = 16
#endif
};

/* Tiles are as few as will do, of like sizes. */
static inline int64_t num_tiles(int64_t num_tokens) { return (num_tokens + TILE_TOKENS - 1) / TILE_TOKENS; }
static inline int64_t tile_start(int64_t i, int64_t num_tokens) { return i * num_tokens / num_tiles(num_tokens); }

/* A span of inputs, or a block, of WIDTH rows -> to [inputs, stride], the first `width` of each. */
INLINED void transpose_rows(const stored *const rows[WIDTH], int64_t k, int whole, float *to, int64_t stride,
                            int64_t width) {
    wide in[WIDTH], out[WIDTH];
#ifdef STORED_BF16 /* in pairs */
    for (int i = 0; i < WIDTH; i++) in[i] = (wide)load_pairs(rows[i] + k, whole);
    transpose(in, out);
    for (int i = 0; i < (whole ? WIDTH : WIDTH / 2); i++, to += 2 * stride) {
        put_some(to, even_of((wide_words)out[i]), width);
        put_some(to + stride, odd_of((wide_words)out[i]), width);
    }
#else
    wide spans[WIDTH][2];
    for (int i = 0; i < WIDTH; i++) widen_span(rows[i] + k, whole, spans[i]);
    for (int half = 0; half < (whole ? 2 : 1); half++) {
        for (int i = 0; i < WIDTH; i++) in[i] = spans[i][half];
        transpose(in, out);
        for (int i = 0; i < WIDTH; i++, to += stride) put_some(to, out[i], width);
    }
#endif
}

/* `count` rows of whole blocks, TILE_TOKENS or fewer -> to [inputs, count] */
INLINED void pack_rows(const stored *const rows[WIDTH], int64_t count, int64_t inputs, float *to) {
    int64_t k = 0;
    /* What is too much of a vector is overwritten by the next one, unless there is none. */
    for (; k + SPAN < inputs; k += SPAN) transpose_rows(rows, k, 1, to + k * count, count, WIDTH);
    if (k + SPAN == inputs)
        transpose_rows(rows, k, 1, to + k * count, count, count);
    else
        transpose_rows(rows, k, 0, to + k * count, count, count);
}

/* Tile i of x [num_tokens, inputs] -> its place in room */
INLINED void pack_tile(const stored *x, int64_t i, int64_t num_tokens, int64_t inputs, float *room) {
    int64_t first = tile_start(i, num_tokens), count = tile_start(i + 1, num_tokens) - first;
    const stored *rows[WIDTH];
    for (int64_t t = 0; t < WIDTH; t++) rows[t] = x + (first + (t < count ? t : count - 1)) * inputs;
    pack_rows(rows, count, inputs, room + first * inputs);
}

INLINED void multiply_panel_tile(const float *panel, int64_t size, const float *x, int64_t stride,
                                 int num_tokens, float *sums) {
    wide of[TILE_TOKENS][2];
#pragma GCC unroll 16
    for (int t = 0; t < num_tokens; t++)
        for (int i = 0; i < 2; i++) of[t][i] = load_wide(sums + t * PANEL + WIDTH * i);
    for (int64_t k = 0; k < size; k++, panel += PANEL, x += stride) {
        wide low = load_wide(panel), high = load_wide(panel + WIDTH);
#pragma GCC unroll 16
        for (int t = 0; t < num_tokens; t++) {
            wide one = all_wide(x[t]);
            of[t][0] = add_wide_product(of[t][0], one, low);
            of[t][1] = add_wide_product(of[t][1], one, high);
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < num_tokens; t++)
        for (int i = 0; i < 2; i++) put_wide(sums + t * PANEL + WIDTH * i, of[t][i]);
}

/* panel [size, PANEL], x [size, stride], TILE_TOKENS tokens or fewer:
 * sums[t * PANEL + i] += x[:, t] . panel[:, i] */
static void multiply_panel(const float *panel, int64_t size, const float *x, int64_t stride,
                           int64_t num_tokens, float *sums) {
    switch (num_tokens) {
#define TILE(n) case n: multiply_panel_tile(panel, size, x, stride, n, sums); break;
        TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#ifdef __AVX512F__
        TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#endif
#undef TILE
    }
}
