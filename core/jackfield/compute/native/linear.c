/* Matrix products by plain weights, for processors whose libraries have none for what is stored. */

#include "products.h"

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

TASK(multiply_plain, read_plain, fetch_plain)

/* x [tokens, inputs] -> out [tokens, outputs] = x weight^T + bias (NULL: none); `inputs` whole
 * blocks; room [tokens, inputs + BLOCK]. */
void linear(const stored *x, const stored *weight, const stored *bias, stored *out, float *room,
            int64_t num_tokens, int64_t outputs, int64_t inputs) {
    plain w = {weight, outputs, inputs};
    product p = {&w, bias, outputs, inputs};
    multiply_all(multiply_plain, &p, x, out, room, num_tokens, 0);
}
