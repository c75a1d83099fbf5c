/* Products by plain bfloat16 weights on processors with AMX: tiles of 16 rows by 64 bytes.
 *
 * The weights are the first factor and so lie in their tiles as they do in memory, 16 rows by 32
 * inputs: nothing is packed. Activations are packed in pairs of inputs, which is their transposition
 * as numbers of 32 bits. A block of sums is 32 rows by up to 2 tiles of tokens (Intel 64 and IA-32
 * Optimization Reference Manual, chapter 20).
 */

#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "products.h"

enum {
    AMX_ROWS = 16,        /* of a tile */
    AMX_INPUTS = 32,      /* of a tile of weights */
    AMX_TOKENS = 16,      /* of a tile of activations, at most */
    AMX_BLOCK = 32,       /* rows of weights whose sums are kept together */
    AMX_MOST_BLOCKS = 8,  /* that a thread takes at a time */
    AMX_CACHED = 5 << 18, /* bytes of activations that stay in the second cache, of 2 MiB */
    AMX_PERMIT = 0x1023,  /* ARCH_REQ_XCOMP_PERM */
    AMX_TILE_DATA = 18    /* XFEATURE_XTILEDATA */
};

#define LINEAR_AMX

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

/* A product by `weights` [outputs, inputs], and activations as pack_pairs leaves them. */
typedef struct {
    const stored *weights, *bias;
    stored *out;
    const uint32_t *pairs;
    int64_t outputs, inputs, num_tokens, width;
} tiled_product;

/* Whether the system lets this process use tiles; asked once. */
static int may_use_tiles(void) {
    static int permitted = -1;
    if (permitted < 0) permitted = syscall(SYS_arch_prctl, AMX_PERMIT, AMX_TILE_DATA) == 0;
    return permitted;
}

static inline int fits_tiles(int64_t outputs, int64_t inputs) {
    return outputs >= AMX_ROWS && inputs % AMX_INPUTS == 0;
}

/* Sums are tiles 0 .. 3, weights 4 and 5, activations 6 and 7, each of `width` tokens. */
INLINED void shape_tiles(int64_t width) {
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.rows[i] = AMX_ROWS;
        shapes.row_bytes[i] = i == 4 || i == 5 ? AMX_INPUTS * sizeof(stored) : width * sizeof(uint32_t);
    }
    __asm__ volatile("" : : "r"(&shapes) : "memory"); /* GCC takes the next line to read 8 bytes */
    _tile_loadconfig(&shapes);
}

/* Tokens first .. first + width - 1 of x [num_tokens, inputs] -> to [inputs / 2, width]; beyond the
 * last token anything finite. */
INLINED void pack_pairs(const stored *x, int64_t first, int64_t width, int64_t num_tokens,
                        int64_t inputs, uint32_t *to) {
    for (int64_t k = 0; k < inputs; k += AMX_INPUTS) {
        wide in[WIDTH], out[WIDTH];
        for (int64_t t = 0; t < WIDTH; t++) {
            int64_t token = t < width && first + t < num_tokens ? first + t : first;
            in[t] = (wide)load_pairs(x + token * inputs + k, 1);
        }
        transpose(in, out);
        for (int i = 0; i < WIDTH; i++, to += width) put_some((float *)to, out[i], width);
    }
}

/* Tile `number` of sums -> out, for rows n .. n + 15 and the tokens from `first` on. */
#define STORE_TILE(number, p, n, first)                                             \
    do {                                                                            \
        float sums[AMX_ROWS * AMX_TOKENS] __attribute__((aligned(64)));             \
        _tile_stored(number, sums, AMX_TOKENS * sizeof(float));                     \
        __asm__ volatile("" ::: "memory");                                          \
        store_rows(p, sums, n, first);                                              \
    } while (0)

INLINED void store_rows(const tiled_product *p, const float *sums, int64_t n, int64_t first) {
    wide in[WIDTH], out[WIDTH];
    for (int i = 0; i < WIDTH; i++) in[i] = load_wide(sums + i * AMX_TOKENS);
    transpose(in, out);
    wide offset = {0};
    for (int i = 0; i < WIDTH && p->bias; i++) offset[i] = widen(p->bias[n + i]);
    int64_t count = p->num_tokens - first < p->width ? p->num_tokens - first : p->width;
    for (int64_t t = 0; t < count; t++) {
        __m256bh sum = _mm512_cvtneps_pbh((__m512)(out[t] + offset));
        memcpy(p->out + (first + t) * p->outputs + n, &sum, sizeof sum);
    }
}

/* Rows n and second, 16 each, by 1 or 2 tiles of tokens; lines of weights `ahead` bytes further on
 * are asked for. */
INLINED void multiply_block_tiles(const tiled_product *p, int64_t n, int64_t second, int64_t tile,
                                  int both, int64_t ahead) {
    int64_t row_bytes = p->inputs * sizeof(stored), pair_bytes = p->width * sizeof(uint32_t);
    const char *upper = (const char *)(p->weights + n * p->inputs);
    const char *lower = (const char *)(p->weights + second * p->inputs);
    const uint32_t *left = p->pairs + tile * p->width * p->inputs / 2;
    const uint32_t *right = left + p->width * p->inputs / 2;
    _tile_zero(0);
    _tile_zero(1);
    if (both) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < row_bytes; k += AMX_INPUTS * sizeof(stored)) {
        if (ahead)
            for (int i = 0; i < AMX_ROWS; i++) {
                __builtin_prefetch(upper + k + i * row_bytes + ahead, 0, 2);
                __builtin_prefetch(lower + k + i * row_bytes + ahead, 0, 2);
            }
        _tile_loadd(4, upper + k, row_bytes);
        _tile_loadd(5, lower + k, row_bytes);
        _tile_loadd(6, left, pair_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        left += AMX_ROWS * p->width;
        if (!both) continue;
        _tile_loadd(7, right, pair_bytes);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
        right += AMX_ROWS * p->width;
    }
    STORE_TILE(0, p, n, tile * p->width);
    STORE_TILE(1, p, second, tile * p->width);
    if (!both) return;
    STORE_TILE(2, p, n, (tile + 1) * p->width);
    STORE_TILE(3, p, second, (tile + 1) * p->width);
}

/* Rows n .. last - 1 by tiles first .. end - 1 of tokens. */
static void multiply_tile_task(const tiled_product *p, int64_t n, int64_t last, int64_t first, int64_t end) {
    for (; n < last; n += AMX_BLOCK) {
        int64_t highest = p->outputs - AMX_ROWS;
        int64_t upper = n < highest ? n : highest;
        int64_t lower = n + AMX_ROWS < highest ? n + AMX_ROWS : highest;
        int64_t ahead = n + AMX_BLOCK < last ? AMX_BLOCK * p->inputs * (int64_t)sizeof(stored) : 0;
        for (int64_t i = first; i < end; i += 2) {
            if (i + 1 < end)
                multiply_block_tiles(p, upper, lower, i, 1, ahead);
            else
                multiply_block_tiles(p, upper, lower, i, 0, ahead);
            ahead = 0;
        }
    }
}

/* x [num_tokens, inputs] -> out [num_tokens, outputs]; shapes that fits_tiles; room [num_tokens,
 * inputs]: less than twice the tokens, in pairs. */
static void multiply_tiles(const stored *x, const stored *weights, const stored *bias, stored *out,
                           uint32_t *room, int64_t num_tokens, int64_t outputs, int64_t inputs) {
    if (!num_tokens) return;
    int64_t tiles = (num_tokens + AMX_TOKENS - 1) / AMX_TOKENS;
    int64_t width = (num_tokens + tiles - 1) / tiles;
    tiled_product p = {weights, bias, out, room, outputs, inputs, num_tokens, width};
    int64_t pairs_at_once = AMX_CACHED / (2 * width * inputs * (int64_t)sizeof(stored));
    int64_t at_once = pairs_at_once ? 2 * pairs_at_once : 2;
    int64_t parts = (tiles + at_once - 1) / at_once;
    int64_t rows = task_rows(outputs, AMX_BLOCK, AMX_MOST_BLOCKS), tasks = (outputs + rows - 1) / rows;
#pragma omp parallel if (num_tokens * outputs * inputs >= SHARED_PRODUCTS)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiles; i++)
            pack_pairs(x, i * width, width, num_tokens, inputs, room + i * width * inputs / 2);
        shape_tiles(width);
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = 0; i < tasks * parts; i++) {
            int64_t n = i % tasks * rows, part = i / tasks;
            int64_t last = n + rows < outputs ? n + rows : outputs;
            int64_t end = (part + 1) * at_once < tiles ? (part + 1) * at_once : tiles;
            multiply_tile_task(&p, n, last, part * at_once, end);
        }
        _tile_release();
    }
}
