/* The parts of linear_codes.c for every other processor: codes become floats, and are multiplied as
 * plain weights are. */

#include "products.h"

typedef int8_t signed_bytes __attribute__((vector_size(8)));
typedef uint8_t bytes __attribute__((vector_size(8)));
typedef int32_t integers __attribute__((vector_size(32)));

INLINED floats look_up(const float *table, integers index) {
#ifdef __AVX2__
    __m256 low = _mm256_permutevar8x32_ps((__m256)load(table), (__m256i)index);
    __m256 high = _mm256_permutevar8x32_ps((__m256)load(table + LANES), (__m256i)index);
    return (floats)_mm256_blendv_ps(low, high, (__m256)(index << 28));
#else
    floats out;
    for (int i = 0; i < LANES; i++) out[i] = table[index[i]];
    return out;
#endif
}

/* The entries of inputs k .. k + 15. */
INLINED void entries(const coded *w, const uint8_t *row, int64_t k, int bits, int has_table, floats out[2]) {
    const uint8_t *from = row + (bits == 4 ? k / 64 * 32 + k % 32 : k);
    for (int half = 0; half < 2; half++, from += LANES) {
        if (bits == 4) {
            bytes both;
            memcpy(&both, from, sizeof both);
            integers index = __builtin_convertvector(both, integers);
            out[half] = look_up(w->table, k % 64 < 32 ? index & 15 : index >> 4);
        } else if (has_table) {
            for (int i = 0; i < LANES; i++) out[half][i] = w->table[from[i]];
        } else {
            signed_bytes codes;
            memcpy(&codes, from, sizeof codes);
            out[half] = __builtin_convertvector(__builtin_convertvector(codes, integers), floats);
        }
    }
}

/* Inputs k .. k + SPAN - 1, in order. */
INLINED void read_coded(const coded *w, int64_t n, int64_t k, int bits, int has_table, wide out[2]) {
    if (n >= w->outputs) n = w->outputs - 1;
    const uint8_t *row = w->codes + n * row_bytes(w);
    floats all_of[SPAN / LANES];
    for (int i = 0; i < SPAN; i += BLOCK) {
        int64_t group = n * groups(w) + ((k + i) >> w->log_group);
        floats scale = all(w->scales[group]), shift = all(w->shifts ? w->shifts[group] : 0.0f);
        floats *both = all_of + i / LANES;
        entries(w, row, k + i, bits, has_table, both);
        for (int half = 0; half < 2; half++) both[half] = add_product(shift, both[half], scale);
    }
    memcpy(out, all_of, sizeof all_of);
}

/* WIDTH rows, a span of inputs -> panel [inputs, PANEL] */
INLINED void transpose_coded(const coded *w, int64_t n, int64_t k, int bits, int has_table, float *panel) {
    wide spans[WIDTH][2], in[WIDTH], out[WIDTH];
    for (int row = 0; row < WIDTH; row++) read_coded(w, n + row, k, bits, has_table, spans[row]);
    for (int half = 0; half < 2; half++) {
        for (int row = 0; row < WIDTH; row++) in[row] = spans[row][half];
        transpose(in, out);
        for (int i = 0; i < WIDTH; i++) put_wide(panel + (WIDTH * half + i) * PANEL, out[i]);
    }
}

INLINED void fetch_coded(const void *weights, int64_t n, int64_t k) {
    const coded *w = weights;
    if (n >= w->outputs) n = w->outputs - 1;
    if (k % 64 == 0) __builtin_prefetch(w->codes + n * row_bytes(w) + k * w->bits / 8);
}

INLINED void make_coded(const product *p, int64_t n, int64_t begin, int64_t size, int bits, int has_table,
                        float *panel) {
    int64_t next_row, next;
    next_panel(p, n, begin, &next_row, &next);
    for (int64_t i = 0; i < PANEL; i += WIDTH)
        for (int64_t k = 0; k < size; k += SPAN) {
            for (int row = 0; row < WIDTH; row++) fetch_coded(p->weights, next_row + i + row, next + k);
            transpose_coded(p->weights, n + i, begin + k, bits, has_table, panel + k * PANEL + i);
        }
}

#define READ(name, bits, has_table)                                                                   \
    INLINED void read_##name(const void *w, int64_t n, int64_t k, int whole, wide out[2]) {           \
        (void)whole; /* rows are multiples of 64 */                                                   \
        read_coded(w, n, k, bits, has_table, out);                                                    \
    }                                                                                                 \
    INLINED void make_##name(const product *p, int64_t n, int64_t begin, int64_t size, float *panel) { \
        make_coded(p, n, begin, size, bits, has_table, panel);                                        \
    }                                                                                                 \
    TASK(multiply_##name, read_##name, fetch_coded, make_##name)
READ(signed, 8, 0)
READ(bytes, 8, 1)
READ(halves, 4, 1)

#if defined(__AVX2__) && (defined(STORED_BF16) || defined(STORED_F16))
#include "linear_codes_avx2.h"
#else
static inline int multiplies_integers(const coded *w, int64_t num_tokens) { return (void)w, (void)num_tokens, 0; }
static inline void multiply_integers(const coded *w, const stored *x, int64_t num_tokens, stored *out, void *room) {
    (void)w, (void)x, (void)num_tokens, (void)out, (void)room;
}
#endif

/* x as floats, or as integers with scales and sums, which take no more. */
static int64_t room_bytes(int64_t num_tokens, int64_t inputs) {
    return num_tokens * (inputs + BLOCK) * (int64_t)sizeof(float);
}

static void multiply_coded(const coded *w, const stored *x, int64_t num_tokens, stored *out, void *room) {
    product p = {w, NULL, w->outputs, w->inputs};
    task run = w->bits == 4 ? multiply_halves : w->table ? multiply_bytes : multiply_signed;
    if (multiplies_integers(w, num_tokens))
        multiply_integers(w, x, num_tokens, out, room);
    else
        multiply_all(run, &p, x, out, room, num_tokens, 1);
}
