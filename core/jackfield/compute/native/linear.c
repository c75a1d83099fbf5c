/* Matrix products by plain weights, for processors whose libraries have none for what is stored. */

#include "products.h"

#if defined(STORED_BF16) && defined(__AMX_BF16__) && defined(__AVX512F__)
#include "linear_amx.h"
#endif

typedef struct {
    const stored *rows;
    int64_t outputs, inputs;
} plain;

static inline const stored *place(const plain *w, int64_t n, int64_t k) {
    return w->rows + (n < w->outputs ? n : w->outputs - 1) * w->inputs + k;
}

INLINED void read_plain(const void *weights, int64_t n, int64_t k, int whole, wide out[2]) {
    widen_span(place(weights, n, k), whole, out);
}

INLINED void fetch_plain(const void *weights, int64_t n, int64_t k) {
    const int64_t line = 64 / sizeof(stored);
    if (SPAN >= line || k % line == 0) __builtin_prefetch(place(weights, n, k), 0, 2);
}

INLINED void make_plain(const product *p, int64_t n, int64_t begin, int64_t size, float *panel) {
    int64_t next_row, next;
    next_panel(p, n, begin, &next_row, &next);
    for (int64_t i = 0; i < PANEL; i += WIDTH) {
        const stored *rows[WIDTH], *after[WIDTH];
        for (int row = 0; row < WIDTH; row++) {
            rows[row] = place(p->weights, n + i + row, begin);
            after[row] = place(p->weights, next_row + i + row, next);
        }
        int64_t k = 0;
        for (; k + SPAN <= size; k += SPAN) {
            for (int row = 0; row < WIDTH; row++) __builtin_prefetch(after[row] + k, 0, 2);
            transpose_rows(rows, k, 1, panel + k * PANEL + i, PANEL, WIDTH);
        }
        if (k < size) transpose_rows(rows, k, 0, panel + k * PANEL + i, PANEL, WIDTH);
    }
}

TASK(multiply_plain, read_plain, fetch_plain, make_plain)

/* Whether products are those of linear_amx.h, for weights that fit. */
int multiplies_tiles(void) {
#ifdef LINEAR_AMX
    return may_use_tiles();
#else
    return 0;
#endif
}

/* x [tokens, inputs] -> out [tokens, outputs] = x weight^T + bias (NULL: none); `inputs` whole
 * blocks; room [tokens, inputs + BLOCK]. */
void linear(const stored *x, const stored *weight, const stored *bias, stored *out, float *room,
            int64_t num_tokens, int64_t outputs, int64_t inputs) {
    plain w = {weight, outputs, inputs};
    product p = {&w, bias, outputs, inputs};
#ifdef LINEAR_AMX
    if (fits_tiles(outputs, inputs) && may_use_tiles()) {
        multiply_tiles(x, weight, bias, out, (uint32_t *)room, num_tokens, outputs, inputs);
        return;
    }
#endif
    multiply_all(multiply_plain, &p, x, out, room, num_tokens, 0);
}
