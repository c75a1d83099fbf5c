/* Attention of prompts over pages, in floats.
 *
 * The rows of a KV head are the queries of its group of heads, token by token. A panel has a vector's
 * lanes for rows: its scores are the product of a panel of queries [dim, PANEL] by tiles of keys, and
 * stand as a panel [keys, PANEL] that tiles of values are multiplied by. So maxima and sums of
 * softmax run along the lanes (Milakov and Gimelshein, "Online normalizer calculation for softmax",
 * 2018; Dao et al., "FlashAttention", 2022).
 */

#include <omp.h>

#include "eight_bits.h"
#include "panels.h"

enum {
    PANELS = 16,            /* that keys are made ready for */
    ROWS = PANELS * PANEL,  /* a task's */
    TILES = 224 / TILE_TOKENS,
    KEYS = TILES * TILE_TOKENS /* between two corrections of the running maximum */
};

/* Pages are [kv_heads, num_blocks, block_size, dim]. */
typedef struct {
    const char *key_pages, *value_pages;
    const int32_t *block_table, *table_rows, *starts, *lengths;
    const float *sinks;
    int64_t seqs, heads, kv_heads, dim, num_blocks, block_size, most_blocks, window, kind;
    float scale, value_scale, soft_cap;
} step;

/* ROWS rows of one KV head of one sequence: rows first .. end - 1 of its queries' ones. */
typedef struct {
    int64_t sequence, kv_head, first, end;
} rows;

/* What a thread works in. A tile of values [KEYS, dimensions] has WIDTH more, for the last vector. */
typedef struct {
    float *queries;          /* [PANELS, dim, PANEL], times scale */
    float *sums;             /* [PANELS, dim, PANEL] */
    float *maxima, *totals;  /* [PANELS, PANEL] */
    float *keys;             /* [TILES][dim, TILE_TOKENS] */
    float *values;           /* [tiles of dim][KEYS, dimensions] */
    float *scores;           /* [KEYS, PANEL] */
    stored *numbers;         /* [KEYS, dim], where pages have 8 bits */
} place;

static int64_t values_size(int64_t dim) { return KEYS * dim + num_tiles(dim) * WIDTH; }

static int64_t room_size(int64_t dim) {
    return 2 * ROWS * dim + 2 * ROWS + KEYS * dim + values_size(dim) + KEYS * PANEL + KEYS * dim;
}

static place place_in(float *room, int64_t dim) {
    place p;
    p.queries = room, room += ROWS * dim;
    p.sums = room, room += ROWS * dim;
    p.maxima = room, room += ROWS;
    p.totals = room, room += ROWS;
    p.keys = room, room += KEYS * dim;
    p.values = room, room += values_size(dim);
    p.scores = room, room += KEYS * PANEL;
    p.numbers = (stored *)room;
    return p;
}

static int64_t group_of(const step *s) { return s->heads / s->kv_heads; }

static int64_t num_queries(const step *s, int64_t sequence) { return s->starts[sequence + 1] - s->starts[sequence]; }

/* The row's place among [tokens * heads]. */
static int64_t head_of(const step *s, const rows *r, int64_t row) {
    int64_t group = group_of(s);
    return (s->starts[r->sequence] + row / group) * s->heads + r->kv_head * group + row % group;
}

static int64_t position_of(const step *s, const rows *r, int64_t row) {
    return s->lengths[r->sequence] - num_queries(s, r->sequence) + row / group_of(s);
}

/* The last row stands in for rows beyond it. */
static int64_t within(const rows *r, int64_t row) { return row < r->end ? row : r->end - 1; }

static void begin_panel(const step *s, const rows *r, const stored *q, int64_t panel, const place *p) {
    int64_t dim = s->dim, first = r->first + panel * PANEL;
    float *queries = p->queries + panel * dim * PANEL;
    for (int64_t i = 0; i < PANEL; i += WIDTH) {
        const stored *from[WIDTH];
        int64_t k = 0;
        for (int64_t j = 0; j < WIDTH; j++) from[j] = q + head_of(s, r, within(r, first + i + j)) * dim;
        for (; k + SPAN <= dim; k += SPAN) transpose_rows(from, k, 1, queries + k * PANEL + i, PANEL, WIDTH);
        if (k < dim) transpose_rows(from, k, 0, queries + k * PANEL + i, PANEL, WIDTH);
    }
    for (int64_t i = 0; i < dim * PANEL; i++) queries[i] *= s->scale;
    memset(p->sums + panel * dim * PANEL, 0, dim * PANEL * sizeof(float));
    for (int64_t i = 0; i < PANEL; i++) {
        int64_t head = head_of(s, r, within(r, first + i)) % s->heads;
        p->maxima[panel * PANEL + i] = s->sinks ? s->sinks[head] : -3.0e38f;
        p->totals[panel * PANEL + i] = s->sinks ? 1.0f : 0.0f;
    }
}

/* Where keys or values begin .. begin + count - 1 of the sequence are. */
static void find_numbers(const step *s, const rows *r, const char *pages, int64_t begin, int64_t count,
                         stored *room, const stored *found[KEYS]) {
    const int32_t *blocks = s->block_table + s->table_rows[r->sequence] * s->most_blocks;
    int64_t block_size = s->block_size, dim = s->dim;
    for (int64_t t = 0; t < count; t++) {
        int64_t at = begin + t, block = r->kv_head * s->num_blocks + blocks[at / block_size];
        const char *from = pages + (block * block_size + at % block_size) * dim * bytes_of(s->kind);
        found[t] = (const stored *)from;
        if (s->kind == AS_STORED) continue;
        widen_eight((const uint8_t *)from, dim, s->kind, room + t * dim);
        found[t] = room + t * dim;
    }
}

/* Tiles of keys, all of TILE_TOKENS, the last key in the place of those that are not there. */
static void pack_keys(const stored *const found[KEYS], int64_t count, int64_t dim, float *keys) {
    for (int64_t first = 0; first < count; first += TILE_TOKENS) {
        const stored *from[WIDTH];
        for (int64_t t = 0; t < WIDTH; t++) {
            int64_t key = first + (t < TILE_TOKENS ? t : TILE_TOKENS - 1);
            from[t] = found[key < count ? key : count - 1];
        }
        pack_rows(from, TILE_TOKENS, dim, keys + first * dim);
    }
}

static float *values_at(const place *p, int64_t i, int64_t dim) {
    return p->values + KEYS * tile_start(i, dim) + i * WIDTH;
}

static void pack_values(const stored *const found[KEYS], int64_t count, int64_t dim, const place *p) {
    float row[MOST_DIM + WIDTH], *to[MOST_DIM];
    int64_t tiles = num_tiles(dim), starts[MOST_DIM + 1];
    for (int64_t i = 0; i <= tiles; i++) starts[i] = tile_start(i, dim);
    for (int64_t i = 0; i < tiles; i++) to[i] = values_at(p, i, dim);
    memset(row + dim, 0, WIDTH * sizeof(float));
    for (int64_t t = 0; t < count; t++) {
        widen_row_in_order(found[t], dim, row);
        for (int64_t i = 0; i < tiles; i++) {
            put_wide(to[i], load_wide(row + starts[i]));
            to[i] += starts[i + 1] - starts[i];
        }
    }
}

/* Scores of keys begin .. begin + count - 1 that a row may not see become those of none. */
static void mask(const step *s, const rows *r, int64_t panel, int64_t begin, int64_t count, float *scores) {
    int32_t newest[PANEL], oldest[PANEL];
    for (int64_t i = 0; i < PANEL; i++) {
        int64_t position = position_of(s, r, within(r, r->first + panel * PANEL + i));
        newest[i] = (int32_t)position;
        oldest[i] = s->window ? (int32_t)(position - s->window + 1) : 0;
    }
    if (begin + count - 1 <= newest[0] && begin >= oldest[PANEL - 1]) return;
    for (int64_t t = 0; t < count; t++, scores += PANEL) {
        int32_t key = (int32_t)(begin + t);
        for (int64_t i = 0; i < PANEL; i++) scores[i] = key > newest[i] || key < oldest[i] ? -1.0e30f : scores[i];
    }
}

/* scores [count, PANEL] -> their exponentials over the running maximum; the sums are corrected. */
static void weigh(int64_t count, int64_t dim, float *scores, float *maximum, float *total, float *sums) {
    float highest[PANEL], correction[PANEL], sum[PANEL] = {0};
    for (int64_t i = 0; i < PANEL; i++) highest[i] = maximum[i];
    for (int64_t t = 0; t < count; t++)
        for (int64_t i = 0; i < PANEL; i++) {
            float score = scores[t * PANEL + i];
            highest[i] = score > highest[i] ? score : highest[i];
        }
    for (int64_t t = 0; t < count; t++)
        for (int64_t i = 0; i < PANEL; i++) {
            float weight = exponential(scores[t * PANEL + i] - highest[i]);
            scores[t * PANEL + i] = weight;
            sum[i] += weight;
        }
    for (int64_t i = 0; i < PANEL; i++) {
        correction[i] = exponential(maximum[i] - highest[i]);
        total[i] = total[i] * correction[i] + sum[i];
        maximum[i] = highest[i];
    }
    for (int64_t d = 0; d < dim; d++)
        for (int64_t i = 0; i < PANEL; i++) sums[d * PANEL + i] *= correction[i];
}

/* A panel over keys begin .. end - 1, which are packed, as far as its rows may see them. */
static void attend_panel(const step *s, const rows *r, int64_t panel, int64_t begin, int64_t end, const place *p) {
    int64_t dim = s->dim, first = r->first + panel * PANEL;
    int64_t newest = position_of(s, r, within(r, first + PANEL - 1));
    int64_t oldest = s->window ? position_of(s, r, first) - s->window + 1 : 0;
    int64_t count = (end < newest + 1 ? end : newest + 1) - begin;
    if (count <= 0 || end <= oldest) return;
    const float *queries = p->queries + panel * dim * PANEL;
    float *sums = p->sums + panel * dim * PANEL;
    memset(p->scores, 0, KEYS * PANEL * sizeof(float));
    for (int64_t t = 0; t < count; t += TILE_TOKENS)
        multiply_panel(queries, dim, p->keys + t * dim, TILE_TOKENS, TILE_TOKENS, p->scores + t * PANEL);
    if (s->soft_cap > 0.0f)
        for (int64_t i = 0; i < count * PANEL; i++) p->scores[i] = s->soft_cap * tanhf(p->scores[i] / s->soft_cap);
    mask(s, r, panel, begin, count, p->scores);
    weigh(count, dim, p->scores, p->maxima + panel * PANEL, p->totals + panel * PANEL, sums);
    for (int64_t i = 0; i < num_tiles(dim); i++) {
        int64_t d = tile_start(i, dim), size = tile_start(i + 1, dim) - d;
        multiply_panel(p->scores, count, values_at(p, i, dim), size, size, sums + d * PANEL);
    }
}

static void store_panel(const step *s, const rows *r, int64_t panel, const place *p, stored *out) {
    int64_t dim = s->dim;
    for (int64_t i = 0; i < PANEL; i += WIDTH) {
        int64_t first = r->first + panel * PANEL + i;
        const float *sums = p->sums + panel * dim * PANEL + i;
        wide scale = all_wide(s->value_scale) / load_wide(p->totals + panel * PANEL + i);
        for (int64_t d = 0; d < dim; d += WIDTH) {
            wide in[WIDTH], of[WIDTH];
            for (int j = 0; j < WIDTH; j++) in[j] = load_wide(sums + (d + j) * PANEL) * scale;
            transpose(in, of);
            for (int64_t j = 0; j < WIDTH && first + j < r->end; j++) {
                float row[WIDTH];
                put_wide(row, of[j]);
                stored *to = out + head_of(s, r, first + j) * dim + d;
                for (int k = 0; k < WIDTH; k++) to[k] = narrow(row[k]);
            }
        }
    }
}

static void attend_rows(const step *s, const rows *r, const stored *q, stored *out, const place *p) {
    int64_t panels = (r->end - r->first + PANEL - 1) / PANEL, dim = s->dim;
    int64_t end = position_of(s, r, r->end - 1) + 1;
    int64_t first = s->window ? position_of(s, r, r->first) - s->window + 1 : 0;
    for (int64_t i = 0; i < panels; i++) begin_panel(s, r, q, i, p);
    for (int64_t begin = first > 0 ? first : 0; begin < end; begin += KEYS) {
        const stored *found[KEYS];
        int64_t count = end - begin < KEYS ? end - begin : KEYS;
        find_numbers(s, r, s->key_pages, begin, count, p->numbers, found);
        pack_keys(found, count, dim, p->keys);
        find_numbers(s, r, s->value_pages, begin, count, p->numbers, found);
        pack_values(found, count, dim, p);
        for (int64_t i = 0; i < panels; i++) attend_panel(s, r, i, begin, begin + count, p);
    }
    for (int64_t i = 0; i < panels; i++) store_panel(s, r, i, p, out);
}

static int64_t tasks_of(const step *s, int64_t sequence) {
    int64_t all = num_queries(s, sequence) * group_of(s);
    return s->lengths[sequence] ? (all + ROWS - 1) / ROWS * s->kv_heads : 0;
}

/* Task i of the step; the rows of a head that see most come first. */
static rows task_at(const step *s, int64_t i) {
    int64_t sequence = 0;
    for (int64_t tasks; i >= (tasks = tasks_of(s, sequence)); sequence++) i -= tasks;
    int64_t all = num_queries(s, sequence) * group_of(s), last = (all + ROWS - 1) / ROWS - 1;
    int64_t first = (last - i / s->kv_heads) * ROWS;
    return (rows){sequence, i % s->kv_heads, first, first + ROWS < all ? first + ROWS : all};
}

/* Numbers of `room` that attend_prompts needs. */
int64_t attend_prompts_room(int64_t dim) { return omp_get_max_threads() * room_size(dim); }

/* q, out [tokens, heads, dim]: sequence s has the queries starts[s] .. starts[s + 1] - 1, the last of
 * its lengths[s] positions, and row table_rows[s] of the block table [*, most_blocks]; without
 * positions its queries get nothing. A query sees the last `window` (0: all) positions up to its own.
 * The scores are multiplied by `scale`, that of the keys included, the result by `value_scale`; sinks
 * [heads] or NULL: a score of each head beside those of keys, whose value is zero. `dim` is whole
 * blocks. */
void attend_prompts(const stored *q, const char *key_pages, const char *value_pages, const int32_t *block_table,
                    const int32_t *table_rows, const int32_t *starts, const int32_t *lengths,
                    const float *sinks, stored *out, float *room, int64_t seqs, int64_t heads,
                    int64_t kv_heads, int64_t dim, int64_t num_blocks, int64_t block_size,
                    int64_t most_blocks, int64_t window, int64_t kind, float scale, float value_scale,
                    float soft_cap) {
    step s = {key_pages, value_pages, block_table, table_rows, starts, lengths, sinks, seqs, heads, kv_heads, dim,
              num_blocks, block_size, most_blocks, window, kind, scale, value_scale, soft_cap};
    int64_t tasks = 0;
    for (int64_t i = 0; i < seqs; i++) tasks += tasks_of(&s, i);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) {
        place p = place_in(room + omp_get_thread_num() * room_size(dim), dim);
        rows r = task_at(&s, i);
        attend_rows(&s, &r, q, out, &p);
    }
}
