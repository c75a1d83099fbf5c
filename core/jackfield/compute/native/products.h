/* Products of rows of floats by rows of weights, whatever the weights are stored as.
 *
 * A weight is read through a function that gives a block of 16 numbers of one row. Few tokens: 4
 * rows of weights against up to 3 tokens, sums over the inputs in every lane. Many: a panel, 16 rows
 * of weights by DEPTH inputs, is widened and transposed into the cache, and then serves all tokens,
 * 6 at a time (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008).
 */

#pragma once

#include "vectors.h"

enum {
    PANEL = 16,      /* rows of weights */
    DEPTH = 256,     /* inputs of a panel */
    FEW = 8,         /* tokens for which transposing the weights does not pay */
    AT_ONCE = 96,    /* tokens whose sums are kept while weights pass by */
    TILE_TOKENS = 6, /* with 2 vectors of sums each: 12 registers of 16 */
    TILE_ROWS = 4,
    TASK_ROWS = 64,              /* that a thread takes at a time */
    SHARED_PRODUCTS = 1 << 17    /* from which threads are worth waking */
};

/* Inputs k .. k + 15 of row n; rows beyond the last may be asked for and may be anything finite.
 * A fetcher asks for the same to come into the cache. */
typedef void (*reader)(const void *weights, int64_t n, int64_t k, floats out[2]);
typedef void (*fetcher)(const void *weights, int64_t n, int64_t k);

/* x [num_tokens, stride]; sums[t * PANEL + i] += x[t] . row n + i, for TILE_ROWS rows. */
INLINED void multiply_few_tile(reader read, fetcher fetch, const void *weights, const float *x,
                               int64_t stride, int64_t inputs, int num_tokens, int64_t n,
                               float *sums) {
    floats lanes[3][TILE_ROWS];
    for (int t = 0; t < num_tokens; t++)
        for (int i = 0; i < TILE_ROWS; i++) lanes[t][i] = all(0.0f);
#pragma GCC unroll 2
    for (int64_t k = 0; k < inputs; k += BLOCK) {
        for (int i = 0; i < TILE_ROWS; i++) {
            floats weight[2];
            if (fetch) fetch(weights, n + TILE_ROWS + i, k);
            read(weights, n + i, k, weight);
            for (int half = 0; half < 2; half++)
                for (int t = 0; t < num_tokens; t++)
                    lanes[t][i] = add_product(lanes[t][i], load(x + t * stride + k + LANES * half), weight[half]);
        }
    }
    for (int t = 0; t < num_tokens; t++) add_sums(lanes[t], sums + t * PANEL);
}

INLINED void multiply_few(reader read, fetcher fetch, const void *weights, const float *x,
                          int64_t stride, int64_t inputs, int64_t num_tokens, int64_t n,
                          float *sums) {
    int64_t t = 0;
#define TILE(count, fetch) \
    multiply_few_tile(read, fetch, weights, x + t * stride, stride, inputs, count, n, sums + t * PANEL), t += count
    switch (num_tokens % 3) {
        case 1:
            if (num_tokens == 1) {
                TILE(1, fetch);
                return;
            }
            TILE(2, fetch);
            TILE(2, NULL);
            break;
        case 2: TILE(2, fetch); break;
        default: TILE(3, fetch);
    }
    while (t < num_tokens) TILE(3, NULL);
#undef TILE
}

/* Rows n .. n + PANEL - 1, inputs k .. k + size - 1 -> panel [size, PANEL] */
INLINED void make_panel(reader read, fetcher fetch, const void *weights, int64_t n, int64_t begin,
                        int64_t size, int64_t inputs, float *panel) {
    int within = begin + DEPTH < inputs;
    int64_t next_row = within ? n : n + PANEL, next = within ? begin + DEPTH : 0;
    for (int64_t k = 0; k < size; k += BLOCK)
        for (int64_t i = 0; i < PANEL; i += LANES) {
            floats blocks[LANES][2], half[LANES];
            for (int row = 0; row < LANES; row++) {
                fetch(weights, next_row + i + row, next + k);
                read(weights, n + i + row, begin + k, blocks[row]);
            }
            for (int h = 0; h < 2; h++) {
                for (int row = 0; row < LANES; row++) half[row] = blocks[row][h];
                transpose(half, panel + (k + LANES * h) * PANEL + i, PANEL);
            }
        }
}

INLINED void multiply_panel_tile(const float *panel, int64_t size, const float *x, int64_t stride,
                                 int num_tokens, float *sums) {
    floats of[TILE_TOKENS][2];
    for (int t = 0; t < num_tokens; t++)
        for (int i = 0; i < 2; i++) of[t][i] = load(sums + t * PANEL + LANES * i);
    for (int64_t k = 0; k < size; k++) {
        floats low = load(panel + k * PANEL), high = load(panel + k * PANEL + LANES);
        for (int t = 0; t < num_tokens; t++) {
            floats one = all(x[t * stride + k]);
            of[t][0] = add_product(of[t][0], one, low);
            of[t][1] = add_product(of[t][1], one, high);
        }
    }
    for (int t = 0; t < num_tokens; t++)
        for (int i = 0; i < 2; i++) put(sums + t * PANEL + LANES * i, of[t][i]);
}

/* sums[t * PANEL + i] += x[t] . panel[:, i]; as few tiles as will do, of like sizes. */
static void multiply_panel(const float *panel, int64_t size, const float *x, int64_t stride,
                           int64_t num_tokens, float *sums) {
    int64_t tiles = (num_tokens + TILE_TOKENS - 1) / TILE_TOKENS;
    for (int64_t t = 0; t < num_tokens; tiles--) {
        int64_t count = (num_tokens - t + tiles - 1) / tiles;
        const float *from = x + t * stride;
        float *to = sums + t * PANEL;
        switch (count) {
#define TILE(n) case n: multiply_panel_tile(panel, size, from, stride, n, to); break;
            TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#undef TILE
        }
        t += count;
    }
}

/* x [num_tokens, stride], whole blocks of inputs in the reader's order -> sums [num_tokens, PANEL]:
 * x[t] . row n + i. */
INLINED void multiply_rows(reader read, fetcher fetch, const void *weights, const float *x,
                           int64_t stride, int64_t inputs, int64_t num_tokens, int64_t n,
                           float *sums) {
    memset(sums, 0, num_tokens * PANEL * sizeof(float));
    if (num_tokens <= FEW) {
        for (int64_t i = 0; i < PANEL; i += TILE_ROWS)
            multiply_few(read, fetch, weights, x, stride, inputs, num_tokens, n + i, sums + i);
        return;
    }
    float panel[DEPTH * PANEL] __attribute__((aligned(64)));
    for (int64_t begin = 0; begin < inputs; begin += DEPTH) {
        int64_t size = inputs - begin < DEPTH ? inputs - begin : DEPTH;
        make_panel(read, fetch, weights, n, begin, size, inputs, panel);
        multiply_panel(panel, size, x + begin, stride, num_tokens, sums);
    }
}

/* A product by weights [outputs, inputs], `inputs` whole blocks, plus `bias` (NULL: none). */
typedef struct {
    const void *weights;
    const stored *bias;
    int64_t outputs, inputs;
} product;

/* x [num_tokens, stride], AT_ONCE tokens or fewer, by rows first .. first + TASK_ROWS - 1. */
INLINED void multiply_task(reader read, fetcher fetch, const product *p, const float *x,
                           int64_t stride, int64_t num_tokens, int64_t first, stored *out) {
    int64_t last = first + TASK_ROWS < p->outputs ? first + TASK_ROWS : p->outputs;
    for (int64_t n = first; n < last; n += PANEL) {
        float sums[AT_ONCE * PANEL], offset[PANEL] = {0};
        int64_t count = last - n < PANEL ? last - n : PANEL;
        for (int64_t i = 0; i < count && p->bias; i++) offset[i] = widen(p->bias[n + i]);
        multiply_rows(read, fetch, p->weights, x, stride, p->inputs, num_tokens, n, sums);
        for (int64_t t = 0; t < num_tokens; t++)
            for (int64_t i = 0; i < count; i++)
                out[t * p->outputs + n + i] = narrow(sums[t * PANEL + i] + offset[i]);
    }
}

/* multiply_task for one kind of weights: in a parallel region only a function that is there already
 * has its reader inside. */
typedef void (*task)(const product *p, const float *x, int64_t stride, int64_t num_tokens,
                     int64_t first, stored *out);
#define TASK(name, read, fetch)                                                                   \
    static void name(const product *p, const float *x, int64_t stride, int64_t num_tokens,        \
                     int64_t first, stored *out) {                                                \
        multiply_task(read, fetch, p, x, stride, num_tokens, first, out);                         \
    }

/* x [num_tokens, inputs] -> out [num_tokens, outputs]; room [num_tokens, inputs + BLOCK]; in_order:
 * whether the reader gives a block so. */
static void multiply_all(task run, const product *p, const stored *x, stored *out, float *room,
                         int64_t num_tokens, int in_order) {
    int64_t inputs = p->inputs, outputs = p->outputs;
    int64_t stride = inputs + BLOCK; /* rows a power of 2 apart would share few places of a cache */
    int64_t tasks = (outputs + TASK_ROWS - 1) / TASK_ROWS;
    int64_t parts = (num_tokens + AT_ONCE - 1) / AT_ONCE;
#pragma omp parallel if (num_tokens * outputs * inputs >= SHARED_PRODUCTS)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < num_tokens; t++)
            widen_row(x + t * inputs, inputs, in_order, room + t * stride);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tasks * parts; i++) {
            int64_t t = i / tasks * AT_ONCE, here = num_tokens - t < AT_ONCE ? num_tokens - t : AT_ONCE;
            run(p, room + t * stride, stride, here, i % tasks * TASK_ROWS, out + t * outputs);
        }
    }
}
