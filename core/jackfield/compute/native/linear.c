/* Matrix products by plain weights, for processors whose libraries have none for what is stored. */

#include "products.h"

enum {
    TASK_ROWS = 64,              /* of weights, that a thread takes at a time */
    SHARED_PRODUCTS = 1 << 17    /* from which threads are worth waking */
};

typedef struct {
    const stored *rows;
    int64_t outputs, inputs;
} plain;

static inline const stored *place(const plain *w, int64_t n, int64_t k) {
    return w->rows + (n < w->outputs ? n : w->outputs - 1) * w->inputs + k;
}

INLINED void read_plain(const void *weights, int64_t n, int64_t k, floats out[2]) {
    widen_block(place(weights, n, k), out);
}

INLINED void fetch_plain(const void *weights, int64_t n, int64_t k) {
    if (k % (64 / (int64_t)sizeof(stored)) == 0) __builtin_prefetch(place(weights, n, k));
}

static void multiply_task(const plain *w, const stored *bias, const float *x, int64_t stride,
                          int64_t num_tokens, int64_t first, stored *out) {
    int64_t last = first + TASK_ROWS < w->outputs ? first + TASK_ROWS : w->outputs;
    for (int64_t n = first; n < last; n += PANEL) {
        float sums[AT_ONCE * PANEL], offset[PANEL] = {0};
        int64_t count = last - n < PANEL ? last - n : PANEL;
        for (int64_t i = 0; i < count && bias; i++) offset[i] = widen(bias[n + i]);
        multiply_rows(read_plain, fetch_plain, w, x, stride, w->inputs, num_tokens, n, sums);
        for (int64_t t = 0; t < num_tokens; t++)
            for (int64_t i = 0; i < count; i++)
                out[t * w->outputs + n + i] = narrow(sums[t * PANEL + i] + offset[i]);
    }
}

/* x [tokens, inputs] -> out [tokens, outputs] = x weight^T + bias (NULL: none); `inputs` whole
 * blocks; room [tokens, inputs + BLOCK]. */
void linear(const stored *x, const stored *weight, const stored *bias, stored *out, float *room,
            int64_t num_tokens, int64_t outputs, int64_t inputs) {
    plain w = {weight, outputs, inputs};
    int64_t stride = inputs + BLOCK; /* rows a power of 2 apart would share few places of a cache */
    int64_t tasks = (outputs + TASK_ROWS - 1) / TASK_ROWS;
    int64_t parts = (num_tokens + AT_ONCE - 1) / AT_ONCE;
#pragma omp parallel if (num_tokens * outputs * inputs >= SHARED_PRODUCTS)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < num_tokens; t++) widen_row(x + t * inputs, inputs, 0, room + t * stride);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks * parts; task++) {
            int64_t t = task / tasks * AT_ONCE;
            int64_t here = num_tokens - t < AT_ONCE ? num_tokens - t : AT_ONCE;
            multiply_task(&w, bias, room + t * stride, stride, here, task % tasks * TASK_ROWS,
                          out + t * outputs);
        }
    }
}
