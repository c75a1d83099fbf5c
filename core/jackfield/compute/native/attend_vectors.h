/* The parts of attend_decodes.c for every other processor. A slice of sums is a block in the order
 * in which blocks are widened. */

#include "vectors.h"

enum { KEYS = 4 /* at once, by two queries */ };

/* scores[g * CHUNK + i] = q[g] . keys[i]; q [num_queries, MOST_DIM] */
INLINED void score_tile(const float *q, const stored *keys, int64_t dim, int num_queries, int num_keys,
                        float *scores) {
    floats lanes[2][KEYS];
    for (int g = 0; g < num_queries; g++)
        for (int t = 0; t < KEYS; t++) lanes[g][t] = all(0.0f);
    for (int64_t i = 0; i + BLOCK <= dim; i += BLOCK)
        for (int t = 0; t < num_keys; t++) {
            floats key[2];
            widen_block(keys + t * dim + i, key);
            for (int half = 0; half < 2; half++)
                for (int g = 0; g < num_queries; g++)
                    lanes[g][t] = add_product(lanes[g][t], load(q + g * MOST_DIM + i + LANES * half), key[half]);
        }
    for (int g = 0; g < num_queries; g++) {
        float sums[KEYS] = {0};
        add_sums(lanes[g], sums);
        for (int t = 0; t < num_keys; t++) {
            for (int64_t i = dim / BLOCK * BLOCK; i < dim; i++)
                sums[t] += q[g * MOST_DIM + i] * widen(keys[t * dim + i]);
            scores[g * CHUNK + t] = sums[t];
        }
    }
}

static void score_keys(const stored *q, const stored *keys, int64_t num_keys, int64_t group,
                       int64_t dim, float *scores) {
    float wide[2 * MOST_DIM];
    int64_t blocks = dim / BLOCK * BLOCK, whole = num_keys / KEYS * KEYS;
    for (int64_t g = 0; g < group; g += 2, q += 2 * dim, scores += 2 * CHUNK) {
        int both = g + 1 < group;
        for (int i = 0; i <= both; i++) {
            widen_row(q + i * dim, blocks, 0, wide + i * MOST_DIM);
            for (int64_t k = blocks; k < dim; k++) wide[i * MOST_DIM + k] = widen(q[i * dim + k]);
        }
        for (int64_t t = 0; t < whole; t += KEYS)
            both ? score_tile(wide, keys + t * dim, dim, 2, KEYS, scores + t)
                 : score_tile(wide, keys + t * dim, dim, 1, KEYS, scores + t);
        for (int64_t t = whole; t < num_keys; t++)
            both ? score_tile(wide, keys + t * dim, dim, 2, 1, scores + t)
                 : score_tile(wide, keys + t * dim, dim, 1, 1, scores + t);
    }
}

/* `blocks` blocks of the sums of num_queries queries. */
INLINED void add_tile(const float *weights, const stored *values, int64_t num_keys, int num_queries,
                      int blocks, int64_t dim, float *sums) {
    floats of[2][4];
    for (int g = 0; g < num_queries; g++)
        for (int i = 0; i < 2 * blocks; i++) of[g][i] = load(sums + g * dim + LANES * i);
    for (int64_t t = 0; t < num_keys; t++, values += dim)
        for (int b = 0; b < blocks; b++) {
            floats value[2];
            widen_block(values + BLOCK * b, value);
            for (int g = 0; g < num_queries; g++)
                for (int half = 0; half < 2; half++) {
                    floats *to = &of[g][2 * b + half];
                    *to = add_product(*to, all(weights[g * CHUNK + t]), value[half]);
                }
        }
    for (int g = 0; g < num_queries; g++)
        for (int i = 0; i < 2 * blocks; i++) put(sums + g * dim + LANES * i, of[g][i]);
}

static void add_values(const float *weights, const stored *values, int64_t num_keys, int64_t group,
                       int64_t dim, float *sums) {
    for (int64_t g = 0; g < group; g += 2, weights += 2 * CHUNK, sums += 2 * dim) {
        int64_t i = 0, end = g + 1 < group ? 2 * dim : dim;
        for (; i + 2 * BLOCK <= dim; i += 2 * BLOCK)
            end > dim ? add_tile(weights, values + i, num_keys, 2, 2, dim, sums + i)
                      : add_tile(weights, values + i, num_keys, 1, 2, dim, sums + i);
        for (; i + BLOCK <= dim; i += BLOCK)
            end > dim ? add_tile(weights, values + i, num_keys, 2, 1, dim, sums + i)
                      : add_tile(weights, values + i, num_keys, 1, 1, dim, sums + i);
        for (int64_t at = 0; at < end; at += dim)
            for (int64_t t = 0; t < num_keys; t++)
                for (int64_t k = i; k < dim; k++)
                    sums[at + k] += weights[at / dim * CHUNK + t] * widen(values[t * dim + k]);
    }
}

static void store_row(const float *sums, float scale, int64_t dim, stored *out) {
    int64_t whole = dim / BLOCK * BLOCK;
    for (int64_t i = 0; i < whole; i++) out[i / BLOCK * BLOCK + place_in_block(i % BLOCK)] = narrow(sums[i] * scale);
    for (int64_t i = whole; i < dim; i++) out[i] = narrow(sums[i] * scale);
}
