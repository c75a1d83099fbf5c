/* Products of rows of floats by rows of weights, whatever the weights are stored as.
 *
 * Few tokens: 3 or 4 rows of weights against as many tokens as there are registers for, sums over
 * the inputs in every lane. Many: a panel, two vectors of rows by DEPTH inputs, is widened and transposed
 * into the cache, and then serves all tokens, a tile of them at a time (Goto and van de Geijn,
 * "Anatomy of high-performance matrix multiplication", 2008).
 */

#pragma once

#include <omp.h>

#include "panels.h"

enum {
    FEW = 8, /* tokens for which transposing the weights does not pay */
#ifdef __AVX512F__
    FEW_TOKENS = 8, /* at once: with MORE_ROWS they have 24 registers of 32 for sums */
#else
    FEW_TOKENS = 3, /* with TILE_ROWS 12 of 16 */
#endif
    FEW_INPUTS = 1024, /* at once: those of FEW tokens stay in the first cache */
    TILE_ROWS = 4,     /* of weights by up to 4 tokens, */
    MORE_ROWS = 3,     /* and by more */
    STRIP = 24,        /* rows: whole tiles of both kinds */
    MOST_STRIPS = 4,   /* that a thread takes at a time */
    MOST_PANELS = 64 / PANEL, /* likewise */
    SHARED_PRODUCTS = 1 << 17 /* from which threads are worth waking */
};

/* Inputs k .. k + SPAN - 1 of row n, or a block and zeros behind it; rows beyond the last may be
 * asked for and may be anything finite. A fetcher asks for the same to come into the cache. */
typedef void (*reader)(const void *weights, int64_t n, int64_t k, int whole, wide out[2]);
typedef void (*fetcher)(const void *weights, int64_t n, int64_t k);

/* A product by weights [outputs, inputs], `inputs` whole blocks, plus `bias` (NULL: none). */
typedef struct {
    const void *weights;
    const stored *bias;
    int64_t outputs, inputs;
} product;

/* Rows n .. n + PANEL - 1, inputs begin .. begin + size - 1, in order -> panel [size, PANEL]; what
 * comes next is fetched. */
typedef void (*panel_maker)(const product *p, int64_t n, int64_t begin, int64_t size, float *panel);

/* Where the panel after that one begins. */
INLINED void next_panel(const product *p, int64_t n, int64_t begin, int64_t *next_row, int64_t *next) {
    int within = begin + DEPTH < p->inputs;
    *next_row = within ? n : n + PANEL, *next = within ? begin + DEPTH : 0;
}

/* A tile of few tokens: from row n on, inputs begin .. end - 1; and where the next one is. */
typedef struct {
    int64_t n, begin, end, next_n, next_begin;
} few_place;

INLINED void add_few_span(reader read, const void *weights, const float *x, int64_t stride, int whole,
                          int num_tokens, int num_rows, int64_t n, int64_t k, wide lanes[][TILE_ROWS]) {
    wide weight[TILE_ROWS][2];
#pragma GCC unroll 4
    for (int i = 0; i < num_rows; i++) read(weights, n + i, k, whole, weight[i]);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++)
#pragma GCC unroll 8
        for (int t = 0; t < num_tokens; t++) {
            wide one = in_register(load_wide(x + t * stride + k + WIDTH * half));
#pragma GCC unroll 4
            for (int i = 0; i < num_rows; i++) lanes[t][i] = add_wide_product(lanes[t][i], one, weight[i][half]);
        }
}

/* x [num_tokens, stride]; sums[t * STRIP + i] += x[t] . row n + i, for num_rows rows; what the
 * next tile reads is fetched. */
INLINED void multiply_few_tile(reader read, fetcher fetch, const void *weights, const float *x, int64_t stride,
                               const few_place *at, int num_tokens, int num_rows, float *sums) {
    wide lanes[FEW_TOKENS][TILE_ROWS];
#pragma GCC unroll 8
    for (int t = 0; t < num_tokens; t++)
        for (int i = 0; i < TILE_ROWS; i++) lanes[t][i] = all_wide(0.0f);
    int64_t k = at->begin;
    for (; k + SPAN <= at->end; k += SPAN) {
        for (int i = 0; i < num_rows; i++) fetch(weights, at->next_n + i, at->next_begin + k - at->begin);
        add_few_span(read, weights, x, stride, 1, num_tokens, num_rows, at->n, k, lanes);
    }
    if (k < at->end) add_few_span(read, weights, x, stride, 0, num_tokens, num_rows, at->n, k, lanes);
#pragma GCC unroll 8
    for (int t = 0; t < num_tokens; t++) add_wide_sums(lanes[t], sums + t * STRIP);
}

/* As few tiles as will do, of like sizes. */
INLINED void multiply_few(reader read, fetcher fetch, const product *p, const float *x, int64_t num_tokens,
                          const few_place *at, float *sums) {
    int64_t tiles = (num_tokens + FEW_TOKENS - 1) / FEW_TOKENS, stride = p->inputs + BLOCK;
    for (int64_t i = 0, t = 0; i < tiles; i++) {
        int64_t next = (i + 1) * num_tokens / tiles;
        const float *from = x + t * stride;
        float *to = sums + t * STRIP;
        switch (next - t) {
#define TILE(count, rows) \
    case count: multiply_few_tile(read, fetch, p->weights, from, stride, at, count, rows, to); break;
            TILE(1, TILE_ROWS) TILE(2, TILE_ROWS) TILE(3, TILE_ROWS)
#ifdef __AVX512F__
            TILE(4, TILE_ROWS) TILE(5, MORE_ROWS) TILE(6, MORE_ROWS) TILE(7, MORE_ROWS) TILE(8, MORE_ROWS)
#endif
#undef TILE
        }
        t = next;
    }
}

/* Tokens of a product: FEW or fewer, rows [num_tokens, inputs + BLOCK] in the reader's order; or the
 * tiles first .. end - 1 of more. */
typedef struct {
    const float *numbers;
    int64_t num_tokens, first, end;
} tokens;

/* sums [num_tokens, width], the first `count` of each -> out [num_tokens, outputs], from row n on */
INLINED void store_sums(const product *p, const float *sums, int64_t width, int64_t num_tokens, int64_t n,
                        stored *out) {
    int64_t count = p->outputs - n < width ? p->outputs - n : width;
    float offset[PANEL + STRIP] = {0};
    for (int64_t i = 0; i < count && p->bias; i++) offset[i] = widen(p->bias[n + i]);
    for (int64_t t = 0; t < num_tokens; t++, sums += width) {
        stored *to = out + t * p->outputs + n;
        if (count == width)
            for (int64_t i = 0; i < width; i++) to[i] = narrow(sums[i] + offset[i]);
        else
            for (int64_t i = 0; i < count; i++) to[i] = narrow(sums[i] + offset[i]);
    }
}

INLINED void multiply_few_task(reader read, fetcher fetch, const product *p, const tokens *x, int64_t n,
                               int64_t last, stored *out) {
    int64_t rows = FEW_TOKENS == FEW && x->num_tokens > TILE_ROWS ? MORE_ROWS : TILE_ROWS;
    for (; n < last; n += STRIP) {
        float sums[FEW * STRIP + TILE_ROWS - MORE_ROWS] = {0};
        int64_t size = p->outputs - n < STRIP ? p->outputs - n : STRIP;
        for (int64_t begin = 0; begin < p->inputs; begin += FEW_INPUTS) {
            int64_t end = begin + FEW_INPUTS < p->inputs ? begin + FEW_INPUTS : p->inputs;
            for (int64_t i = 0; i < size; i += rows) {
                few_place at = {n + i, begin, end, n + i + rows, begin};
                if (i + rows >= size && end < p->inputs)
                    at.next_n = n, at.next_begin = end;
                else if (i + rows >= size)
                    at.next_begin = 0;
                multiply_few(read, fetch, p, x->numbers, x->num_tokens, &at, sums + i);
            }
        }
        store_sums(p, sums, STRIP, x->num_tokens, n, out);
    }
}

INLINED void multiply_many_task(panel_maker make, const product *p, const tokens *x, int64_t n,
                                int64_t last, stored *out) {
    float panel[DEPTH * PANEL] __attribute__((aligned(64)));
    float sums[TILES_AT_ONCE * TILE_TOKENS * PANEL] __attribute__((aligned(64)));
    int64_t first = tile_start(x->first, x->num_tokens), end = tile_start(x->end, x->num_tokens);
    for (; n < last; n += PANEL) {
        memset(sums, 0, (end - first) * PANEL * sizeof(float));
        for (int64_t begin = 0; begin < p->inputs; begin += DEPTH) {
            int64_t size = p->inputs - begin < DEPTH ? p->inputs - begin : DEPTH;
            make(p, n, begin, size, panel);
            for (int64_t i = x->first; i < x->end; i++) {
                int64_t t = tile_start(i, x->num_tokens), count = tile_start(i + 1, x->num_tokens) - t;
                const float *numbers = x->numbers + t * p->inputs + begin * count;
                multiply_panel(panel, size, numbers, count, count, sums + (t - first) * PANEL);
            }
        }
        store_sums(p, sums, PANEL, end - first, n, out + first * p->outputs);
    }
}

/* Rows for a thread at a time: two tasks or more for each, of whole units. */
static inline int64_t task_rows(int64_t outputs, int64_t unit, int64_t most_units) {
    int64_t units = outputs / (2 * omp_get_max_threads()) / unit;
    return unit * (units < 1 ? 1 : units > most_units ? most_units : units);
}

/* The product by rows n .. last - 1, for one kind of weights: in a parallel region only a function
 * that is there already has its reader inside. */
typedef void (*task)(const product *p, const tokens *x, int64_t n, int64_t last, stored *out);
#define TASK(name, read, fetch, make)                                                             \
    static void name(const product *p, const tokens *x, int64_t n, int64_t last, stored *out) {   \
        if (x->num_tokens <= FEW)                                                                 \
            multiply_few_task(read, fetch, p, x, n, last, out);                                   \
        else                                                                                      \
            multiply_many_task(make, p, x, n, last, out);                                          \
    }

/* x [num_tokens, inputs] -> out [num_tokens, outputs]; room [num_tokens, inputs + BLOCK]; in_order:
 * whether the reader gives a span so. */
static void multiply_all(task run, const product *p, const stored *x, stored *out, float *room,
                         int64_t num_tokens, int in_order) {
    int64_t inputs = p->inputs, stride = inputs + BLOCK;
    int few = num_tokens <= FEW;
    int64_t rows = few ? task_rows(p->outputs, STRIP, MOST_STRIPS) : task_rows(p->outputs, PANEL, MOST_PANELS);
    int64_t tasks = (p->outputs + rows - 1) / rows;
    int64_t tiles = few ? 1 : num_tiles(num_tokens);
    int64_t parts = (tiles + TILES_AT_ONCE - 1) / TILES_AT_ONCE;
#pragma omp parallel if (num_tokens * p->outputs * inputs >= SHARED_PRODUCTS)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < (few ? num_tokens : tiles); i++) {
            if (!few)
                pack_tile(x, i, num_tokens, inputs, room);
            else if (in_order)
                widen_row_in_order(x + i * inputs, inputs, room + i * stride);
            else
                widen_row(x + i * inputs, inputs, room + i * stride);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tasks * parts; i++) {
            int64_t part = i / tasks;
            tokens some = {room, num_tokens, part * tiles / parts, (part + 1) * tiles / parts};
            int64_t n = i % tasks * rows;
            run(p, &some, n, n + rows < p->outputs ? n + rows : p->outputs, out);
        }
    }
}
