/* Products by codes in integers, for few tokens.
 *
 * Each 64 inputs of a token become integers of 16 bits and a scale: for the largest of them 256 times
 * as fine as bfloat16. Entries of a table become integers of 14 bits times a power of 2, exact where
 * they are small integers or halves and quarters of such. 16 products are then one instruction, and
 * what 64 inputs add to one lane, 8 * 32767 * 8191, fits into 32 bits.
 */

enum {
    UNIT = 64,           /* inputs with one scale of x */
    MOST_OF_X = 32767,
    MOST_ENTRY = 8191,
    TOKENS_AT_ONCE = 4,
    FEW_CODED = 64       /* tokens from which floats are faster */
};

/* A token: integers [inputs] in the order in which codes are unpacked, scales [inputs / UNIT], and
 * sums of groups of its numbers, [groups], where the weight has shifts. */
typedef struct {
    int16_t *integers;
    float *scales, *sums;
} token;

/* A table of 16 entries: the low and the high bytes of its integers; entry = integer * step. */
typedef struct {
    __m256i low, high;
    float step;
} small_table;

static inline int multiplies_integers(const coded *w, int64_t num_tokens) {
    return num_tokens <= FEW_CODED && (w->bits == 4 || !w->table);
}

static small_table make_table(const coded *w) {
    small_table made = {.step = 1.0f};
    if (w->bits != 4) return made;
    float most = 0.0f;
    uint8_t low[16], high[16];
    for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf(w->table[i]));
    if (most > 0.0f) made.step = exp2f(ceilf(log2f(most / MOST_ENTRY)));
    for (int i = 0; i < 16; i++) {
        int integer = (int)rintf(w->table[i] / made.step);
        low[i] = (uint8_t)(integer & 255), high[i] = (uint8_t)((integer >> 8) & 255);
    }
    made.low = _mm256_broadcastsi128_si256(_mm_loadu_si128((__m128i *)low));
    made.high = _mm256_broadcastsi128_si256(_mm_loadu_si128((__m128i *)high));
    return made;
}

static token token_at(const coded *w, char *room, int64_t t) {
    char *from = room + t * (w->inputs + BLOCK) * (int64_t)sizeof(float);
    float *scales = (float *)(from + w->inputs * (int64_t)sizeof(int16_t));
    return (token){(int16_t *)from, scales, scales + w->inputs / UNIT};
}

/* 64 numbers to integers; `swapped`: the order in which table entries are unpacked, where the
 * second and the third quarter of 32 change places. */
static void round_unit(const floats from[8], float scale, int swapped, int16_t *to) {
    __m256 factor = _mm256_set1_ps(scale);
    for (int i = 0; i < 8; i += 2) {
        __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)from[i], factor));
        __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)from[i + 1], factor));
        __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        if (!swapped) {
            _mm256_storeu_si256((__m256i *)(to + 8 * i), both);
        } else {
            int16_t *place = to + i / 4 * 32 + i % 4 * 4;
            _mm_storeu_si128((__m128i *)place, _mm256_castsi256_si128(both));
            _mm_storeu_si128((__m128i *)(place + 16), _mm256_extracti128_si256(both, 1));
        }
    }
}

static void prepare(const coded *w, const stored *x, token to) {
    if (w->shifts) memset(to.sums, 0, groups(w) * sizeof(float));
    for (int64_t k = 0; k < w->inputs; k += UNIT) {
        floats numbers[8];
        float most = 0.0f;
        for (int i = 0; i < 4; i++) widen_in_order(x + k + BLOCK * i, numbers + 2 * i);
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < LANES; j++) most = fmaxf(most, fabsf(numbers[i][j]));
        to.scales[k / UNIT] = most / MOST_OF_X;
        round_unit(numbers, most > 0.0f ? MOST_OF_X / most : 0.0f, w->bits == 4, to.integers + k);
        for (int i = 0; i < 4 && w->shifts; i++) {
            floats both = numbers[2 * i] + numbers[2 * i + 1];
            float sum = 0.0f;
            for (int j = 0; j < LANES; j++) sum += both[j];
            to.sums[(k + BLOCK * i) >> w->log_group] += sum;
        }
    }
}

/* The integers of 64 inputs, 16 in a vector. */
INLINED void unpack(const small_table *table, const uint8_t *codes, int bits, __m256i out[4]) {
    if (bits == 8) {
        for (int i = 0; i < 4; i++)
            out[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(codes + 16 * i)));
        return;
    }
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i both = _mm256_loadu_si256((const __m256i *)codes);
    __m256i index[2] = {_mm256_and_si256(both, mask),
                        _mm256_and_si256(_mm256_srli_epi16(both, 4), mask)};
    for (int i = 0; i < 2; i++) {
        __m256i low = _mm256_shuffle_epi8(table->low, index[i]);
        __m256i high = _mm256_shuffle_epi8(table->high, index[i]);
        out[2 * i] = _mm256_unpacklo_epi8(low, high);
        out[2 * i + 1] = _mm256_unpackhi_epi8(low, high);
    }
}

INLINED __m256 scaled_sums(__m256 sums, __m256i products, __m256 factor) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), factor, sums);
}

/* sums += the products of 64 inputs, times the scale of x and those of the weight: `scales` of its
 * groups from here on. In a vector of table entries the lower half belongs to the first 16 of 32
 * inputs, the upper half to the second. */
INLINED __m256 add_unit(__m256 sums, const __m256i weights[4], const int16_t *x, float x_scale,
                        const float *scales, int log_group, int bits) {
    __m256i products[4];
    for (int i = 0; i < 4; i++)
        products[i] = _mm256_madd_epi16(weights[i], _mm256_loadu_si256((const __m256i *)(x + 16 * i)));
    if (log_group == 4 && bits == 8) {
        for (int i = 0; i < 4; i++)
            sums = scaled_sums(sums, products[i], _mm256_set1_ps(x_scale * scales[i]));
        return sums;
    }
    __m256i halves[2];
    for (int i = 0; i < 2; i++) halves[i] = _mm256_add_epi32(products[2 * i], products[2 * i + 1]);
    if (log_group >= 6)
        return scaled_sums(sums, _mm256_add_epi32(halves[0], halves[1]), _mm256_set1_ps(x_scale * scales[0]));
    for (int i = 0; i < 2; i++) {
        __m256 factor = _mm256_set1_ps(x_scale * scales[log_group == 5 ? i : 2 * i]);
        if (log_group == 4)
            factor = _mm256_blend_ps(factor, _mm256_set1_ps(x_scale * scales[2 * i + 1]), 0xf0);
        sums = scaled_sums(sums, halves[i], factor);
    }
    return sums;
}

/* Row n times num_tokens tokens, sums of every lane. log_group: 4, 5, or 6 for all that are larger. */
INLINED void multiply_row(const coded *w, const small_table *table, const token *x, int64_t n,
                          int num_tokens, int log_group, int bits, floats lanes[][TILE_ROWS]) {
    const uint8_t *codes = w->codes + n * row_bytes(w);
    const float *scales = w->scales + n * groups(w);
    __m256 sums[TOKENS_AT_ONCE];
    for (int t = 0; t < num_tokens; t++) sums[t] = _mm256_setzero_ps();
    for (int64_t k = 0; k < w->inputs; k += UNIT) {
        __m256i weights[4];
        __builtin_prefetch(codes + k * bits / 8 + 2048);
        unpack(table, codes + k * bits / 8, bits, weights);
        for (int t = 0; t < num_tokens; t++)
            sums[t] = add_unit(sums[t], weights, x[t].integers + k, x[t].scales[k / UNIT],
                               scales + (k >> w->log_group), log_group, bits);
    }
    for (int t = 0; t < num_tokens; t++) lanes[t][0] = (floats)sums[t];
}

INLINED void multiply_row_by(const coded *w, const small_table *table, const token *x, int64_t n,
                             int64_t num_tokens, int log_group, int bits, floats lanes[][TILE_ROWS]) {
    switch (num_tokens) {
#define ROW(count) case count: multiply_row(w, table, x, n, count, log_group, bits, lanes); break;
        ROW(1) ROW(2) ROW(3) ROW(4)
#undef ROW
    }
}

static void multiply_some(const coded *w, const small_table *table, const token *x, int64_t n,
                          int64_t num_tokens, floats lanes[][TILE_ROWS]) {
#define ROW(log_group, bits) multiply_row_by(w, table, x, n, num_tokens, log_group, bits, lanes)
    if (w->bits == 8)
        w->log_group == 4 ? ROW(4, 8) : w->log_group == 5 ? ROW(5, 8) : ROW(6, 8);
    else
        w->log_group == 4 ? ROW(4, 4) : w->log_group == 5 ? ROW(5, 4) : ROW(6, 4);
#undef ROW
}

static inline float shifted(const coded *w, const token *x, int64_t n) {
    float sum = 0.0f;
    for (int64_t g = 0; g < groups(w) && w->shifts; g++) sum += w->shifts[n * groups(w) + g] * x->sums[g];
    return sum;
}

/* TILE_ROWS rows or fewer, TOKENS_AT_ONCE tokens or fewer. */
static void multiply_tile(const coded *w, const small_table *table, const token *x, int64_t n,
                          int64_t num_rows, int64_t num_tokens, stored *out) {
    floats lanes[TOKENS_AT_ONCE][TILE_ROWS] = {{{0}}};
    for (int64_t i = 0; i < num_rows; i++)
        multiply_some(w, table, x, n + i, num_tokens, (floats(*)[TILE_ROWS])&lanes[0][i]);
    for (int64_t t = 0; t < num_tokens; t++) {
        float sums[TILE_ROWS] = {0};
        add_sums(lanes[t], sums);
        for (int64_t i = 0; i < num_rows; i++)
            out[t * w->outputs + n + i] = narrow(sums[i] * table->step + shifted(w, x + t, n + i));
    }
}

static void multiply_integers(const coded *w, const stored *x, int64_t num_tokens, stored *out, void *room) {
    small_table table = make_table(w);
    token tokens[FEW_CODED];
    int64_t outputs = w->outputs;
    for (int64_t t = 0; t < num_tokens; t++) tokens[t] = token_at(w, room, t);
#pragma omp parallel if (num_tokens * outputs * w->inputs >= SHARED_PRODUCTS)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < num_tokens; t++) prepare(w, x + t * w->inputs, tokens[t]);
#pragma omp for schedule(dynamic, TASK_ROWS / TILE_ROWS)
        for (int64_t n = 0; n < outputs; n += TILE_ROWS) {
            int64_t rows = outputs - n < TILE_ROWS ? outputs - n : TILE_ROWS;
            for (int64_t t = 0; t < num_tokens; t += TOKENS_AT_ONCE) {
                int64_t here = num_tokens - t < TOKENS_AT_ONCE ? num_tokens - t : TOKENS_AT_ONCE;
                multiply_tile(w, &table, tokens + t, n, rows, here, out + t * outputs);
            }
        }
    }
}
