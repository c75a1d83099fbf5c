/* The small operations between matrix products. */

#include "eight_bits.h"

/* weight [rows, n] by ids -> out [tokens, n]; how many ids are of no row. */
int64_t look_up(const int64_t *ids, const stored *weight, stored *out, int64_t tokens, int64_t rows, int64_t n) {
    int64_t wrong = 0;
#pragma omp parallel for reduction(+ : wrong) if (tokens > 1 && tokens * n >= SHARED_FROM)
    for (int64_t t = 0; t < tokens; t++)
        if (ids[t] < 0 || ids[t] >= rows)
            wrong++;
        else
            memcpy(out + t * n, weight + ids[t] * n, n * sizeof(stored));
    return wrong;
}

static float reciprocal_rms(const stored *x, int64_t n, float eps) {
    float sum = 0.0f;
    for (int64_t i = 0; i < n; i++) sum += widen(x[i]) * widen(x[i]);
    return 1.0f / sqrtf(sum / (float)n + eps);
}

/* out = x / rms(x) * weight; [rows, n] */
void rms_norm(const stored *x, const stored *weight, stored *out, int64_t rows, int64_t n, float eps) {
#pragma omp parallel for if (rows > 1 && rows * n >= SHARED_FROM)
    for (int64_t row = 0; row < rows; row++) {
        const stored *from = x + row * n;
        stored *to = out + row * n;
        float scale = reciprocal_rms(from, n, eps);
        for (int64_t i = 0; i < n; i++) to[i] = narrow(widen(from[i]) * scale * widen(weight[i]));
    }
}

/* residual += x; out = residual / rms(residual) * weight; [rows, n] */
void add_rms_norm(const stored *x, stored *residual, const stored *weight, stored *out,
                  int64_t rows, int64_t n, float eps) {
#pragma omp parallel for if (rows > 1 && rows * n >= SHARED_FROM)
    for (int64_t row = 0; row < rows; row++) {
        const stored *from = x + row * n;
        stored *sum = residual + row * n, *to = out + row * n;
        for (int64_t i = 0; i < n; i++) sum[i] = narrow(widen(sum[i]) + widen(from[i]));
        float scale = reciprocal_rms(sum, n, eps);
        for (int64_t i = 0; i < n; i++) to[i] = narrow(widen(sum[i]) * scale * widen(weight[i]));
    }
}

/* out = silu(gate) * up; x [rows, gate | up], out [rows, n] */
void silu_and_mul(const stored *x, stored *out, int64_t rows, int64_t n) {
#pragma omp parallel for if (rows > 1 && rows * n >= SHARED_FROM)
    for (int64_t row = 0; row < rows; row++) {
        const stored *gate = x + row * 2 * n, *up = gate + n;
        stored *to = out + row * n;
        for (int64_t i = 0; i < n; i++) {
            float g = widen(gate[i]);
            to[i] = narrow(g / (1.0f + exponential(-g)) * widen(up[i]));
        }
    }
}

/* One head: normalized if there is a weight, its first `rotary` dimensions rotated by half. */
static void turn_head(const stored *from, const stored *weight, float eps, const float *cos,
                      int64_t dim, int64_t rotary, stored *to) {
    float head[MOST_DIM];
    const float *sin = cos + rotary / 2;
    for (int64_t i = 0; i < dim; i++) head[i] = widen(from[i]);
    if (weight) {
        float scale = reciprocal_rms(from, dim, eps);
        for (int64_t i = 0; i < dim; i++) head[i] *= scale * widen(weight[i]);
    }
    int64_t half = rotary / 2;
    for (int64_t i = 0; i < half; i++) {
        to[i] = narrow(head[i] * cos[i] - head[i + half] * sin[i]);
        to[i + half] = narrow(head[i + half] * cos[i] + head[i] * sin[i]);
    }
    for (int64_t i = rotary; i < dim; i++) to[i] = narrow(head[i]);
}

/* Pages are [kv_heads, num_blocks, block_size, dim]; numbers of 8 bits are multiples of the scales. */
typedef struct {
    char *key, *value;
    int64_t num_blocks, block_size;
    int kind;
    float key_scale, value_scale;
} pages;

/* A row of numbers into a page, and zeros behind it. */
static void put_row(char *page, const stored *row, int64_t dim, int kind, float scale, int64_t rest) {
    if (kind == AS_STORED)
        memcpy(page, row, dim * sizeof(stored));
    else
        narrow_eight(row, dim, kind, scale, (uint8_t *)page);
    memset(page + dim * bytes_of(kind), 0, rest * dim * bytes_of(kind));
}

/* Puts a token's key and value of one head into its slot. Who reads whole blocks multiplies their
 * unwritten rest by zero, so that no infinity of an earlier owner may stand there: the last token
 * of the step in a block that the step began clears what follows. */
static void write_slot(const pages *to, const int64_t *slots, int64_t token, int64_t num_tokens,
                       int64_t kv_head, const stored *key, const stored *value, int64_t dim) {
    int64_t slot = slots[token], offset = slot % to->block_size;
    int64_t place = (kv_head * to->num_blocks * to->block_size + slot) * dim * bytes_of(to->kind);
    int last = token + 1 == num_tokens || slots[token + 1] != slot + 1;
    int begun = last && token >= offset && slots[token - offset] == slot - offset;
    int64_t rest = begun ? to->block_size - 1 - offset : 0;
    put_row(to->key + place, key, dim, to->kind, to->key_scale, rest);
    put_row(to->value + place, value, dim, to->kind, to->value_scale, rest);
}

/* qkv [tokens, heads + 2 kv_heads, dim] -> q [tokens, heads, dim], k [tokens, kv_heads, dim]; keys and
 * values to their slots. cos_sin [positions, rotary]: cosines, then sines. */
void rotate_and_write(const stored *qkv, const int64_t *positions, const float *cos_sin,
                      const stored *q_weight, const stored *k_weight, float eps,
                      stored *q, stored *k, char *key_pages, char *value_pages,
                      const int64_t *slots, int64_t num_blocks, int64_t block_size,
                      int64_t num_tokens, int64_t heads, int64_t kv_heads, int64_t dim,
                      int64_t rotary, int64_t kind, float key_scale, float value_scale) {
    pages to = {key_pages, value_pages, num_blocks, block_size, kind, key_scale, value_scale};
    int64_t width = (heads + 2 * kv_heads) * dim;
#pragma omp parallel for if (num_tokens > 1 && num_tokens * width >= SHARED_FROM)
    for (int64_t token = 0; token < num_tokens; token++) {
        const stored *from = qkv + token * width;
        const float *cos = cos_sin + positions[token] * rotary;
        for (int64_t h = 0; h < heads; h++)
            turn_head(from + h * dim, q_weight, eps, cos, dim, rotary, q + (token * heads + h) * dim);
        for (int64_t h = 0; h < kv_heads; h++) {
            stored key[MOST_DIM];
            turn_head(from + (heads + h) * dim, k_weight, eps, cos, dim, rotary, key);
            memcpy(k + (token * kv_heads + h) * dim, key, dim * sizeof(stored));
            write_slot(&to, slots, token, num_tokens, h, key, from + (heads + kv_heads + h) * dim, dim);
        }
    }
}
