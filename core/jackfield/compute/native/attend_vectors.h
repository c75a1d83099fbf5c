/* The parts of attend_decodes.c for every other processor. A slice of sums is a span in the order
 * in which spans are widened. */

#include "vectors.h"

enum { KEYS = 4 /* at once, by two queries */ };

/* scores[g * CHUNK + i] = q[g] . keys[i]; q [num_queries, MOST_DIM] */
INLINED void score_tile(const float *q, const stored *keys, int64_t dim, int num_queries, int num_keys,
                        float *scores) {
    wide lanes[2][KEYS];
    for (int g = 0; g < num_queries; g++)
        for (int t = 0; t < KEYS; t++) lanes[g][t] = all_wide(0.0f);
    for (int64_t i = 0; i + SPAN <= dim; i += SPAN)
        for (int t = 0; t < num_keys; t++) {
            wide key[2];
            widen_span(keys + t * dim + i, 1, key);
            for (int half = 0; half < 2; half++)
                for (int g = 0; g < num_queries; g++) {
                    wide some = load_wide(q + g * MOST_DIM + i + WIDTH * half);
                    lanes[g][t] = add_wide_product(lanes[g][t], some, key[half]);
                }
        }
    for (int g = 0; g < num_queries; g++) {
        float sums[KEYS] = {0};
        add_wide_sums(lanes[g], sums);
        for (int t = 0; t < num_keys; t++) {
            for (int64_t i = dim / SPAN * SPAN; i < dim; i++)
                sums[t] += q[g * MOST_DIM + i] * widen(keys[t * dim + i]);
            scores[g * CHUNK + t] = sums[t];
        }
    }
}

static void score_keys(const stored *q, const stored *keys, int64_t num_keys, int64_t group,
                       int64_t dim, float *scores) {
    float numbers[2 * MOST_DIM];
    int64_t spans = dim / SPAN * SPAN, whole = num_keys / KEYS * KEYS;
    for (int64_t g = 0; g < group; g += 2, q += 2 * dim, scores += 2 * CHUNK) {
        int both = g + 1 < group;
        for (int i = 0; i <= both; i++) {
            widen_row(q + i * dim, spans, numbers + i * MOST_DIM);
            for (int64_t k = spans; k < dim; k++) numbers[i * MOST_DIM + k] = widen(q[i * dim + k]);
        }
        for (int64_t t = 0; t < whole; t += KEYS)
            both ? score_tile(numbers, keys + t * dim, dim, 2, KEYS, scores + t)
                 : score_tile(numbers, keys + t * dim, dim, 1, KEYS, scores + t);
        for (int64_t t = whole; t < num_keys; t++)
            both ? score_tile(numbers, keys + t * dim, dim, 2, 1, scores + t)
                 : score_tile(numbers, keys + t * dim, dim, 1, 1, scores + t);
    }
}

/* `spans` spans of the sums of num_queries queries. */
INLINED void add_tile(const float *weights, const stored *values, int64_t num_keys, int num_queries,
                      int spans, int64_t dim, float *sums) {
    wide of[2][4];
    for (int g = 0; g < num_queries; g++)
        for (int i = 0; i < 2 * spans; i++) of[g][i] = load_wide(sums + g * dim + WIDTH * i);
    for (int64_t t = 0; t < num_keys; t++, values += dim)
        for (int b = 0; b < spans; b++) {
            wide value[2];
            widen_span(values + SPAN * b, 1, value);
            for (int g = 0; g < num_queries; g++)
                for (int half = 0; half < 2; half++) {
                    wide *to = &of[g][2 * b + half];
                    *to = add_wide_product(*to, all_wide(weights[g * CHUNK + t]), value[half]);
                }
        }
    for (int g = 0; g < num_queries; g++)
        for (int i = 0; i < 2 * spans; i++) put_wide(sums + g * dim + WIDTH * i, of[g][i]);
}

static void add_values(const float *weights, const stored *values, int64_t num_keys, int64_t group,
                       int64_t dim, float *sums) {
    for (int64_t g = 0; g < group; g += 2, weights += 2 * CHUNK, sums += 2 * dim) {
        int64_t i = 0, end = g + 1 < group ? 2 * dim : dim;
        for (; i + 2 * SPAN <= dim; i += 2 * SPAN)
            end > dim ? add_tile(weights, values + i, num_keys, 2, 2, dim, sums + i)
                      : add_tile(weights, values + i, num_keys, 1, 2, dim, sums + i);
        for (; i + SPAN <= dim; i += SPAN)
            end > dim ? add_tile(weights, values + i, num_keys, 2, 1, dim, sums + i)
                      : add_tile(weights, values + i, num_keys, 1, 1, dim, sums + i);
        for (int64_t at = 0; at < end; at += dim)
            for (int64_t t = 0; t < num_keys; t++)
                for (int64_t k = i; k < dim; k++)
                    sums[at + k] += weights[at / dim * CHUNK + t] * widen(values[t * dim + k]);
    }
}

static void store_row(const float *sums, float scale, int64_t dim, stored *out) {
    int64_t whole = dim / SPAN * SPAN;
    for (int64_t i = 0; i < whole; i += SPAN) {
        wide span[2] = {load_wide(sums + i) * scale, load_wide(sums + i + WIDTH) * scale};
        narrow_span(span, out + i);
    }
    for (int64_t i = whole; i < dim; i++) out[i] = narrow(sums[i] * scale);
}
