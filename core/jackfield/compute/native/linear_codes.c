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

enum { WHOLE_ROW = 62 /* log_group where a row has one scale */ };

typedef struct {
    const uint8_t *codes;
    const float *table, *scales, *shifts; /* table and shifts may be NULL */
    int64_t outputs, inputs, log_group, bits;
} coded;

static inline int64_t groups(const coded *w) { return ((w->inputs - 1) >> w->log_group) + 1; }

static inline int64_t row_bytes(const coded *w) { return w->inputs * w->bits / 8; }

/* What differs by processor:
 * room_bytes: what multiply_coded needs, for the whole product
 * multiply_coded: x [num_tokens, inputs] -> out [num_tokens, outputs] */
#if defined(STORED_BF16) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#include "linear_codes_avx512_bf16.h"
#else
#include "linear_codes_vectors.h"
#endif

/* Bytes of `room` that linear_codes needs. */
int64_t linear_codes_room(int64_t num_tokens, int64_t inputs) { return room_bytes(num_tokens, inputs); }

/* x [tokens, inputs] -> out [tokens, outputs] */
void linear_codes(const stored *x, const uint8_t *codes, const float *table, const float *scales,
                  const float *shifts, stored *out, void *room, int64_t num_tokens,
                  int64_t outputs, int64_t inputs, int64_t log_group, int64_t bits) {
    coded w = {codes, table, scales, shifts, outputs, inputs, log_group, bits};
    multiply_coded(&w, x, num_tokens, out, room);
}
