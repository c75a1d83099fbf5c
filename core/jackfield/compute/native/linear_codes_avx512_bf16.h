/* The parts of linear_codes.c for processors with AVX-512 BF16. */

#include "reduce_avx512.h"

enum {
    FEW = 4,          /* tokens for which decoding into memory does not pay */
    ROWS_AT_ONCE = 16 /* outputs whose weights are decoded together */
};

/* The table as bfloat16: one register of 32 entries serves 4 bits, eight of them 8 bits. */
typedef struct {
    __m512i part[8];
} lookup;

static inline __m512i to_bf16(__m512 low, __m512 high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static inline lookup make_lookup(const coded *w) {
    lookup made = {{_mm512_setzero_si512()}};
    if (!w->table) return made;
    if (w->bits == 4) {
        __m512 table = _mm512_loadu_ps(w->table);
        made.part[0] = to_bf16(table, table);
    } else {
        for (int i = 0; i < 8; i++)
            made.part[i] = to_bf16(_mm512_loadu_ps(w->table + 32 * i), _mm512_loadu_ps(w->table + 32 * i + 16));
    }
    return made;
}

/* 32 codes of 8 bits -> their entries. */
static inline __m512i look_up_bytes(const lookup *table, __m256i bytes) {
    __m512i index = _mm512_cvtepu8_epi16(bytes);
    __m512i found = _mm512_permutex2var_epi16(table->part[0], index, table->part[1]);
    for (int i = 1; i < 4; i++) {
        __m512i here = _mm512_permutex2var_epi16(table->part[2 * i], index, table->part[2 * i + 1]);
        __mmask32 mine = _mm512_cmpeq_epi16_mask(_mm512_srli_epi16(index, 6), _mm512_set1_epi16((short)i));
        found = _mm512_mask_mov_epi16(found, mine, here);
    }
    return found;
}

static inline __m512i integers(__m256i bytes) {
    __m512i low = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes));
    __m512i high = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1));
    return to_bf16(_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high));
}

/* Entries of inputs k .. k + 63 of a row, before scaling. */
static inline void entries(const coded *w, const lookup *table, const uint8_t *row, int64_t k,
                           __m512i out[2]) {
    if (w->bits == 4) {
        __m512i both = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(row + k / 2)));
        out[0] = _mm512_permutexvar_epi16(_mm512_and_si512(both, _mm512_set1_epi16(15)), table->part[0]);
        out[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(both, 4), table->part[0]);
        return;
    }
    for (int half = 0; half < 2; half++) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(row + k + 32 * half));
        out[half] = w->table ? look_up_bytes(table, bytes) : integers(bytes);
    }
}

/* The factors of 32 inputs: a lane for two neighbours. */
static inline __m512 factors(const float *of, int64_t k, int64_t log_group) {
    if (log_group > 4) return _mm512_set1_ps(of[k >> log_group]);
    __m256 low = _mm256_set1_ps(of[k >> log_group]), high = _mm256_set1_ps(of[(k + 16) >> log_group]);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

static inline __m512 widen_low(__m512i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)), 16));
}

static inline __m512 widen_high(__m512i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1)), 16));
}

/* Inputs that one scale serves, but 64 where it serves fewer. */
static inline int64_t group_step(const coded *w) {
    if (w->log_group == WHOLE_ROW) return w->inputs;
    return w->log_group < 6 ? 64 : (int64_t)1 << w->log_group;
}

/* 32 entries, scaled and shifted: a factor for each half. */
static inline __m512i scaled(__m512i found, const __m512 scale[2], const __m512 shift[2]) {
    return to_bf16(_mm512_fmadd_ps(widen_low(found), scale[0], shift[0]),
                   _mm512_fmadd_ps(widen_high(found), scale[1], shift[1]));
}

static inline void load_factors(const float *of, int64_t k, int64_t log_group, __m512 out[2]) {
    out[0] = of ? _mm512_set1_ps(of[k >> log_group]) : _mm512_setzero_ps();
    out[1] = of ? _mm512_set1_ps(of[(k + 16) >> log_group]) : _mm512_setzero_ps();
}

static void decode_row(const coded *w, int64_t n, stored *out) {
    lookup table = make_lookup(w);
    const uint8_t *row = w->codes + n * row_bytes(w);
    const float *scales = w->scales + n * groups(w);
    const float *shifts = w->shifts ? w->shifts + n * groups(w) : NULL;
    int64_t step = group_step(w);
    for (int64_t begin = 0; begin < w->inputs; begin += step) {
        __m512 scale[2][2], shift[2][2];
        for (int half = 0; half < 2; half++) {
            int64_t at = w->log_group < 6 ? begin + 32 * half : begin;
            load_factors(scales, at, w->log_group, scale[half]);
            load_factors(shifts, at, w->log_group, shift[half]);
        }
        for (int64_t k = begin; k < begin + step; k += 64) {
            __m512i found[2];
            entries(w, &table, row, k, found);
            for (int half = 0; half < 2; half++)
                _mm512_storeu_si512(out + k + 32 * half, scaled(found[half], scale[half], shift[half]));
        }
    }
}

/* 4 tokens by 4 rows: 16 sums in registers, reduced together. */
static inline __m512 multiply_block(const stored *x, const stored *rows, int64_t inputs) {
    __m512 sums[16];
    for (int i = 0; i < 16; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < inputs; k += 32) {
        __m512bh of_x[4];
        for (int t = 0; t < 4; t++) of_x[t] = (__m512bh)_mm512_loadu_si512(x + t * inputs + k);
        for (int n = 0; n < 4; n++) {
            __m512bh weight = (__m512bh)_mm512_loadu_si512(rows + n * inputs + k);
            for (int t = 0; t < 4; t++) sums[4 * t + n] = _mm512_dpbf16_ps(sums[4 * t + n], of_x[t], weight);
        }
    }
    return sums_of(sums);
}

static float multiply_one(const stored *x, const stored *row, int64_t inputs) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < inputs; k += 32)
        sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(x + k), (__m512bh)_mm512_loadu_si512(row + k));
    return _mm512_reduce_add_ps(sum);
}

static void multiply_rows(const stored *x, const stored *rows, int64_t num_tokens, int64_t num_rows,
                          int64_t inputs, stored *out, int64_t outputs) {
    int64_t whole_tokens = num_tokens / 4 * 4, whole_rows = num_rows / 4 * 4;
    for (int64_t t = 0; t < whole_tokens; t += 4)
        for (int64_t n = 0; n < whole_rows; n += 4) {
            float sums[16];
            _mm512_storeu_ps(sums, multiply_block(x + t * inputs, rows + n * inputs, inputs));
            for (int i = 0; i < 16; i++) out[(t + i / 4) * outputs + n + i % 4] = narrow(sums[i]);
        }
    for (int64_t t = 0; t < num_tokens; t++)
        for (int64_t n = t < whole_tokens ? whole_rows : 0; n < num_rows; n++)
            out[t * outputs + n] = narrow(multiply_one(x + t * inputs, rows + n * inputs, inputs));
}

static void sum_groups(const coded *w, const stored *x, float *sums) {
    memset(sums, 0, groups(w) * sizeof(float));
    for (int64_t k = 0; k < w->inputs; k += 16) {
        float sum = 0.0f;
        for (int i = 0; i < 16; i++) sum += widen(x[k + i]);
        sums[k >> w->log_group] += sum;
    }
}

/* sums[t] += x[t] . row; groups of 64 inputs or more are scaled when they are done. */
static inline __attribute__((always_inline)) void multiply_codes(
    const coded *w, const lookup *table, const stored *x, int64_t n, int num_tokens,
    __m512 sums[FEW]) {
    const uint8_t *row = w->codes + n * row_bytes(w);
    const float *scales = w->scales + n * groups(w);
    int64_t step = group_step(w);
    for (int t = 0; t < num_tokens; t++) sums[t] = _mm512_setzero_ps();
    for (int64_t begin = 0; begin < w->inputs; begin += step) {
        __m512 dots[FEW][2];
        for (int t = 0; t < num_tokens; t++) dots[t][0] = dots[t][1] = _mm512_setzero_ps();
        for (int64_t k = begin; k < begin + step; k += 64) {
            __m512i found[2];
            entries(w, table, row, k, found);
            for (int half = 0; half < 2; half++)
                for (int t = 0; t < num_tokens; t++) {
                    const stored *of_x = x + t * w->inputs + k + 32 * half;
                    dots[t][half] = _mm512_dpbf16_ps(
                        dots[t][half], (__m512bh)_mm512_loadu_si512(of_x), (__m512bh)found[half]);
                }
        }
        for (int half = 0; half < 2; half++) {
            __m512 scale = factors(scales, w->log_group < 6 ? begin + 32 * half : begin, w->log_group);
            for (int t = 0; t < num_tokens; t++) sums[t] = _mm512_fmadd_ps(dots[t][half], scale, sums[t]);
        }
    }
}

#define FOR_TOKENS(count) \
    case count: multiply_codes(w, &table, x, first + n, count, sums); break;

static void multiply_few(const coded *w, const stored *x, int64_t num_tokens, int64_t first,
                         int64_t num_rows, stored *out, int64_t outputs) {
    lookup table = make_lookup(w);
    int64_t per_row = w->shifts ? groups(w) : 0;
    float of_groups[num_tokens * per_row + 1];
    for (int64_t t = 0; t < num_tokens && per_row; t++)
        sum_groups(w, x + t * w->inputs, of_groups + t * per_row);
    for (int64_t n = 0; n < num_rows; n++) {
        __m512 sums[FEW];
        switch (num_tokens) {
            FOR_TOKENS(1) FOR_TOKENS(2) FOR_TOKENS(3) FOR_TOKENS(4)
        }
        for (int64_t t = 0; t < num_tokens; t++) {
            float sum = _mm512_reduce_add_ps(sums[t]);
            for (int64_t g = 0; g < per_row; g++)
                sum += w->shifts[(first + n) * per_row + g] * of_groups[t * per_row + g];
            out[t * outputs + n] = narrow(sum);
        }
    }
}

/* Decoded rows of every thread. */
static int64_t room_bytes(int64_t num_tokens, int64_t inputs) {
    (void)num_tokens;
    return omp_get_max_threads() * ROWS_AT_ONCE * inputs * (int64_t)sizeof(stored);
}

static void multiply_coded(const coded *w, const stored *x, int64_t num_tokens, stored *out, void *room) {
    enum { TOKENS = 256 /* that stay in a core's cache while the weights pass by */ };
    int64_t inputs = w->inputs, outputs = w->outputs;
#pragma omp parallel
    {
        stored *rows = (stored *)room + omp_get_thread_num() * ROWS_AT_ONCE * inputs;
        for (int64_t t = 0; t < num_tokens; t += TOKENS) {
            int64_t here = num_tokens - t < TOKENS ? num_tokens - t : TOKENS;
#pragma omp for schedule(static)
            for (int64_t first = 0; first < outputs; first += ROWS_AT_ONCE) {
                int64_t count = outputs - first < ROWS_AT_ONCE ? outputs - first : ROWS_AT_ONCE;
                stored *to = out + t * outputs + first;
                if (here <= FEW) {
                    multiply_few(w, x + t * inputs, here, first, count, to, outputs);
                    continue;
                }
                for (int64_t i = 0; i < count; i++) decode_row(w, first + i, rows + i * inputs);
                multiply_rows(x + t * inputs, rows, here, count, inputs, to, outputs);
            }
        }
    }
}
