/* Attention of one query a sequence over pages, where the pages lie.
 *
 * A stream is one KV head of one sequence: the queries of its group of heads against its keys, in
 * chunks, with a running maximum (Milakov and Gimelshein, "Online normalizer calculation for
 * softmax", 2018).
 */

#include "eight_bits.h"

enum { CHUNK = 128 /* keys between two corrections of the running maximum */ };

/* What differs by processor, for keys and values of one block, num_keys rows each:
 * score_keys: scores[g * CHUNK + t] = q[g] . keys[t]
 * add_values: sums[g] += weights[g * CHUNK + t] * values[t], the weights perhaps rounded to what is
 *             stored, a slice of sums perhaps in an order of its own
 * store_row:  sums * scale, in order */
#if defined(STORED_BF16) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#include "attend_avx512_bf16.h"
#else
#include "attend_vectors.h"
#endif

/* scores -> their exponentials over the running maximum; what was summed before is corrected. */
static void weigh(float *scores, int64_t num_keys, float scale, float soft_cap, float *maximum,
                  float *total, float *sums, int64_t dim) {
    float highest = *maximum;
    for (int64_t t = 0; t < num_keys; t++) scores[t] *= scale;
    if (soft_cap > 0.0f)
        for (int64_t t = 0; t < num_keys; t++) scores[t] = soft_cap * tanhf(scores[t] / soft_cap);
#pragma omp simd reduction(max : highest)
    for (int64_t t = 0; t < num_keys; t++) highest = scores[t] > highest ? scores[t] : highest;
    float correction = exponential(*maximum - highest), sum = 0.0f;
    for (int64_t t = 0; t < num_keys; t++) {
        scores[t] = exponential(scores[t] - highest);
        sum += scores[t];
    }
    for (int64_t i = 0; i < dim; i++) sums[i] *= correction;
    *total = *total * correction + sum;
    *maximum = highest;
}

/* Keys or values of one head in the pages, and as what they are multiplied: in a room of their own
 * where they have 8 bits. */
typedef struct {
    const char *pages;
    int kind;
} rows;

static inline const stored *numbers(rows from, int64_t place, int64_t count, stored *room) {
    if (from.kind == AS_STORED) return (const stored *)from.pages + place;
    widen_eight((const uint8_t *)from.pages + place, count, from.kind, room);
    return room;
}

/* Values are needed after the keys of the whole chunk: asked for now, they are there then. */
static inline void fetch(rows from, int64_t place, int64_t count) {
    int64_t end = (place + count) * bytes_of(from.kind);
    for (int64_t i = place * bytes_of(from.kind); i < end; i += 64)
        __builtin_prefetch(from.pages + i);
}

/* One KV head of one sequence: the queries of `group` heads over keys first .. end - 1. */
static void attend_stream(const stored *q, rows keys, rows values, const int32_t *blocks,
                          int64_t block_size, int64_t first, int64_t end, int64_t group,
                          int64_t dim, float scale, float value_scale, float soft_cap,
                          const float *sinks, stored *out) {
    stored room[CHUNK * MOST_DIM];
    float scores[MOST_GROUP * CHUNK], sums[MOST_GROUP * MOST_DIM];
    float maximum[MOST_GROUP], total[MOST_GROUP];
    memset(sums, 0, group * dim * sizeof(float));
    for (int64_t g = 0; g < group; g++) {
        maximum[g] = sinks ? sinks[g] : -3.0e38f;
        total[g] = sinks ? 1.0f : 0.0f;
    }
    for (int64_t begin = first; begin < end;) {
        int64_t stop = (begin / CHUNK + 1) * CHUNK;
        if (stop > end) stop = end;
        for (int64_t at = begin; at < stop;) {
            int64_t offset = at % block_size, here = block_size - offset;
            if (here > stop - at) here = stop - at;
            int64_t place = (blocks[at / block_size] * block_size + offset) * dim;
            fetch(values, place, here * dim);
            const stored *some = numbers(keys, place, here * dim, room);
            score_keys(q, some, here, group, dim, scores + (at - begin));
            at += here;
        }
        for (int64_t g = 0; g < group; g++)
            weigh(scores + g * CHUNK, stop - begin, scale, soft_cap, maximum + g, total + g,
                  sums + g * dim, dim);
        for (int64_t at = begin; at < stop;) {
            int64_t offset = at % block_size, here = block_size - offset;
            if (here > stop - at) here = stop - at;
            int64_t place = (blocks[at / block_size] * block_size + offset) * dim;
            const stored *some = numbers(values, place, here * dim, room);
            add_values(scores + (at - begin), some, here, group, dim, sums);
            at += here;
        }
        begin = stop;
    }
    for (int64_t g = 0; g < group; g++)
        store_row(sums + g * dim, total[g] > 0.0f ? value_scale / total[g] : 0.0f, dim, out + g * dim);
}

/* q, out [seqs, heads, dim], one query a sequence, over its last `window` keys (0: all). The block
 * table is [*, most_blocks]; sequence s has row table_rows[s] of it and lengths[s] keys. The scores
 * are multiplied by `scale`, that of the keys included, the result by `value_scale`. `sinks` [heads]
 * or NULL: a score of each head beside those of keys, whose value is zero. */
void attend_decodes(const stored *q, const char *key_pages, const char *value_pages,
                    const int32_t *block_table, const int32_t *table_rows, const int32_t *lengths,
                    stored *out, int64_t seqs, int64_t heads, int64_t kv_heads, int64_t dim,
                    int64_t num_blocks, int64_t block_size, int64_t most_blocks, int64_t window,
                    int64_t kind, float scale, float value_scale, float soft_cap,
                    const float *sinks) {
    int64_t group = heads / kv_heads, total = 0;
    for (int64_t s = 0; s < seqs; s++) total += lengths[s];
#pragma omp parallel for schedule(dynamic) if (total * kv_heads * dim >= SHARED_FROM)
    for (int64_t stream = 0; stream < seqs * kv_heads; stream++) {
        int64_t s = stream / kv_heads, h = stream % kv_heads;
        int64_t end = lengths[s], first = window && end > window ? end - window : 0;
        int64_t head = h * num_blocks * block_size * dim * bytes_of(kind);
        int64_t place = (s * heads + h * group) * dim;
        rows keys = {key_pages + head, kind}, values = {value_pages + head, kind};
        attend_stream(q + place, keys, values, block_table + table_rows[s] * most_blocks,
                      block_size, first, end, group, dim, scale, value_scale, soft_cap,
                      sinks ? sinks + h * group : NULL, out + place);
    }
}
