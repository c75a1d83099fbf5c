/* Matrix products by weights that are stored as codes of 4 or 8 bits.
 *
 * weight[n, k] = table[code[n, k]] * scale[n, k >> log_group] + shift[n, k >> log_group]
 *
 * The table has 16 or 256 entries: a floating-point format, quantiles; without one, codes of 8 bits
 * are signed integers. Codes of 4 bits lie in blocks of 64 inputs: the low halves of 32 bytes are
 * inputs 0 .. 31, the high halves the rest. A row has a multiple of 64 inputs; a group has a power
 * of 2, at least 16, or the WHOLE_ROW.
 */

#include <omp.h>

#include "stored.h"

enum {
    ROWS_AT_ONCE = 16, /* outputs whose weights are decoded together; library.py says the same */
    WHOLE_ROW = 62     /* log_group where a row has one scale */
};

typedef struct {
    const uint8_t *codes;
    const float *table, *scales, *shifts; /* table and shifts may be NULL */
    int64_t inputs, log_group, bits;
} coded;

static inline int64_t groups(const coded *w) { return ((w->inputs - 1) >> w->log_group) + 1; }

static inline int64_t row_bytes(const coded *w) { return w->inputs * w->bits / 8; }

static inline int code_at(const coded *w, const uint8_t *row, int64_t k) {
    if (w->bits == 8) return row[k];
    uint8_t both = row[k / 64 * 32 + k % 32];
    return k % 64 < 32 ? both & 15 : both >> 4;
}

#if defined(STORED_BF16) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#include "linear_codes_avx512_bf16.h"
#else

/* Row n of the weights, as what is stored. */
static void decode_row(const coded *w, int64_t n, stored *out) {
    const uint8_t *row = w->codes + n * row_bytes(w);
    const float *scales = w->scales + n * groups(w);
    const float *shifts = w->shifts ? w->shifts + n * groups(w) : NULL;
    for (int64_t k = 0; k < w->inputs; k++) {
        int code = code_at(w, row, k);
        int64_t g = k >> w->log_group;
        float entry = w->table ? w->table[code] : (float)(int8_t)code;
        out[k] = narrow(entry * scales[g] + (shifts ? shifts[g] : 0.0f));
    }
}

/* out[t * outputs + n] for ROWS_AT_ONCE or fewer decoded rows. */
static void multiply_rows(const stored *x, const stored *rows, int64_t num_tokens, int64_t num_rows,
                          int64_t inputs, stored *out, int64_t outputs) {
    for (int64_t t = 0; t < num_tokens; t++)
        for (int64_t n = 0; n < num_rows; n++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < inputs; k++) sum += widen(x[t * inputs + k]) * widen(rows[n * inputs + k]);
            out[t * outputs + n] = narrow(sum);
        }
}

static inline int is_few(int64_t num_tokens) {
    (void)num_tokens;
    return 0;
}

static void multiply_few(const coded *w, const stored *x, int64_t num_tokens, int64_t first,
                         int64_t num_rows, stored *out, int64_t outputs) {
    (void)w, (void)x, (void)num_tokens, (void)first, (void)num_rows, (void)out, (void)outputs;
}
#endif

/* weight rows first .. first + num_rows - 1 -> out [num_rows, inputs] */
static void decode_rows(const coded *w, int64_t first, int64_t num_rows, stored *out) {
    for (int64_t n = 0; n < num_rows; n++) decode_row(w, first + n, out + n * w->inputs);
}

/* The whole weight, [outputs, inputs]. */
void decode_codes(const uint8_t *codes, const float *table, const float *scales, const float *shifts,
                  stored *out, int64_t outputs, int64_t inputs, int64_t log_group, int64_t bits) {
    coded w = {codes, table, scales, shifts, inputs, log_group, bits};
#pragma omp parallel for
    for (int64_t n = 0; n < outputs; n++) decode_rows(&w, n, 1, out + n * inputs);
}

/* x [tokens, inputs] -> out [tokens, outputs]; room [threads, ROWS_AT_ONCE, inputs] for decoded
 * rows, a part for each thread. */
void linear_codes(const stored *x, const uint8_t *codes, const float *table, const float *scales,
                  const float *shifts, stored *out, stored *room, int64_t num_tokens,
                  int64_t outputs, int64_t inputs, int64_t log_group, int64_t bits) {
    enum { TOKENS = 256 /* that stay in a core's cache while the weights pass by */ };
    coded w = {codes, table, scales, shifts, inputs, log_group, bits};
#pragma omp parallel
    {
        stored *rows = room + omp_get_thread_num() * ROWS_AT_ONCE * inputs;
        for (int64_t t = 0; t < num_tokens; t += TOKENS) {
            int64_t here = num_tokens - t < TOKENS ? num_tokens - t : TOKENS;
#pragma omp for schedule(static)
            for (int64_t first = 0; first < outputs; first += ROWS_AT_ONCE) {
                int64_t count = outputs - first < ROWS_AT_ONCE ? outputs - first : ROWS_AT_ONCE;
                stored *to = out + t * outputs + first;
                if (is_few(here)) {
                    multiply_few(&w, x + t * inputs, here, first, count, to, outputs);
                    continue;
                }
                decode_rows(&w, first, count, rows);
                multiply_rows(x + t * inputs, rows, here, count, inputs, to, outputs);
            }
        }
    }
}
