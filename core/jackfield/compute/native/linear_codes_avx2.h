/* Products by codes in integers, for few tokens.
 *
 * Each 64 inputs of a token become integers of 16 bits and a scale: for the largest of them 256 times
 * as fine as bfloat16. 16 products are then one instruction. Codes of 4 bits whose entries are evenly
 * spaced multiply as they are, entry = code * step + offset; the offset goes with the shifts. Entries
 * of other tables become integers of 14 bits times a power of 2, exact where they are small integers
 * or halves and quarters of such. What 64 inputs add to one lane, 8 * 32767 * 8191, fits into 32 bits.
 */

enum {
    UNIT = 64,           /* inputs with one scale of x */
    MOST_OF_X = 32767,
    MOST_ENTRY = 8191,
    TOKENS_AT_ONCE = 4,
    FEW_CODED = 64,      /* tokens from which floats are faster */
    TASK_TILES = 16      /* that a thread takes at a time */
};

/* How codes become integers, and so in which order those of a token are. */
typedef enum { BYTES, TABLE, EVEN } coding;

/* A token: integers [inputs] in the order in which codes are unpacked, scales [inputs / UNIT], and
 * sums of groups of its numbers, [groups], where the weight has shifts or an offset. */
typedef struct {
    int16_t *integers;
    float *scales, *sums;
} token;

/* What codes stand for: integer * step + offset; the low and the high bytes of a table's integers. */
typedef struct {
    __m256i low, high;
    float step, offset;
    coding coding;
} meaning;

static inline int multiplies_integers(const coded *w, int64_t num_tokens) {
    return num_tokens <= FEW_CODED && (w->bits == 4 || !w->table);
}

static int is_even(const float *table) {
    for (int i = 2; i < 16; i++)
        if (table[i] != table[0] + (float)i * (table[1] - table[0])) return 0;
    return 1;
}

static meaning meaning_of(const coded *w) {
    meaning made = {.step = 1.0f, .coding = BYTES};
    if (w->bits != 4) return made;
    if (is_even(w->table))
        return (meaning){.step = w->table[1] - w->table[0], .offset = w->table[0], .coding = EVEN};
    made.coding = TABLE;
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

/* Whether sums of a token's groups are in the product. */
static inline int has_sums(const coded *w, const meaning *m) { return w->shifts || m->offset != 0.0f; }

static token token_at(const coded *w, char *room, int64_t t) {
    char *from = room + t * (w->inputs + BLOCK) * (int64_t)sizeof(float);
    float *scales = (float *)(from + w->inputs * (int64_t)sizeof(int16_t));
    return (token){(int16_t *)from, scales, scales + w->inputs / UNIT};
}

/* 16 floats to integers. */
static inline __m256i rounded(const floats from[2], __m256 factor) {
    __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)from[0], factor));
    __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)from[1], factor));
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
}

/* 64 numbers to integers. Table entries are unpacked so that of each 32 the second and the third
 * quarter change places; even codes so that the even ones of 32 come before the odd ones. */
static void round_unit(const floats from[8], float scale, coding coding, int16_t *to) {
    __m256 factor = _mm256_set1_ps(scale);
    for (int i = 0; i < 2; i++, to += 32) {
        __m256i first = rounded(from + 4 * i, factor), second = rounded(from + 4 * i + 2, factor), a, b;
        if (coding == BYTES) {
            a = first, b = second;
        } else if (coding == TABLE) {
            a = _mm256_permute2x128_si256(first, second, 0x20);
            b = _mm256_permute2x128_si256(first, second, 0x31);
        } else {
            __m256i low = _mm256_packs_epi32(_mm256_srai_epi32(_mm256_slli_epi32(first, 16), 16),
                                             _mm256_srai_epi32(_mm256_slli_epi32(second, 16), 16));
            __m256i high = _mm256_packs_epi32(_mm256_srai_epi32(first, 16), _mm256_srai_epi32(second, 16));
            a = _mm256_permute4x64_epi64(low, 0xd8), b = _mm256_permute4x64_epi64(high, 0xd8);
        }
        _mm256_storeu_si256((__m256i *)to, a);
        _mm256_storeu_si256((__m256i *)(to + 16), b);
    }
}

static void prepare(const coded *w, const meaning *m, const stored *x, token to) {
    int sums = has_sums(w, m);
    if (sums) memset(to.sums, 0, groups(w) * sizeof(float));
    for (int64_t k = 0; k < w->inputs; k += UNIT) {
        floats numbers[8];
        float most = 0.0f;
        for (int i = 0; i < 4; i++) widen_in_order(x + k + BLOCK * i, numbers + 2 * i);
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < LANES; j++) most = fmaxf(most, fabsf(numbers[i][j]));
        to.scales[k / UNIT] = most / MOST_OF_X;
        round_unit(numbers, most > 0.0f ? MOST_OF_X / most : 0.0f, m->coding, to.integers + k);
        for (int i = 0; i < 4 && sums; i++) {
            floats both = numbers[2 * i] + numbers[2 * i + 1];
            float sum = 0.0f;
            for (int j = 0; j < LANES; j++) sum += both[j];
            to.sums[(k + BLOCK * i) >> w->log_group] += sum;
        }
    }
}

/* The integers of 64 inputs, 16 in a vector, two for each half. */
INLINED void unpack(const meaning *m, const uint8_t *codes, coding coding, __m256i out[4]) {
    if (coding == BYTES) {
        for (int i = 0; i < 4; i++)
            out[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(codes + 16 * i)));
        return;
    }
    __m256i both = _mm256_loadu_si256((const __m256i *)codes);
    if (coding == EVEN) {
        const __m256i mask = _mm256_set1_epi16(15);
        out[0] = _mm256_and_si256(both, mask);
        out[1] = _mm256_and_si256(_mm256_srli_epi16(both, 8), mask);
        out[2] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
        out[3] = _mm256_srli_epi16(both, 12);
        return;
    }
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i index[2] = {_mm256_and_si256(both, mask),
                        _mm256_and_si256(_mm256_srli_epi16(both, 4), mask)};
    for (int i = 0; i < 2; i++) {
        __m256i low = _mm256_shuffle_epi8(m->low, index[i]);
        __m256i high = _mm256_shuffle_epi8(m->high, index[i]);
        out[2 * i] = _mm256_unpacklo_epi8(low, high);
        out[2 * i + 1] = _mm256_unpackhi_epi8(low, high);
    }
}

INLINED __m256 times(__m256i integers, __m256 factor) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(integers), factor);
}

INLINED __m256 add_times(__m256 sums, __m256i integers, __m256 factor) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(integers), factor, sums);
}

/* The products of 64 inputs times the scales of the weight, those of its groups from here on. Codes
 * of 4 bits have the first 16 of 32 inputs in the lower halves of vectors. */
INLINED __m256 multiply_unit(const __m256i weights[4], const int16_t *x, const float *scales,
                             int log_group, coding coding) {
    __m256i products[4], halves[2];
    for (int i = 0; i < 4; i++)
        products[i] = _mm256_madd_epi16(weights[i], _mm256_loadu_si256((const __m256i *)(x + 16 * i)));
    if (log_group == 4 && coding == BYTES) {
        __m256 sums = times(products[0], _mm256_broadcast_ss(scales));
        for (int i = 1; i < 4; i++) sums = add_times(sums, products[i], _mm256_broadcast_ss(scales + i));
        return sums;
    }
    for (int i = 0; i < 2; i++) halves[i] = _mm256_add_epi32(products[2 * i], products[2 * i + 1]);
    if (log_group >= 6) return times(_mm256_add_epi32(halves[0], halves[1]), _mm256_broadcast_ss(scales));
    __m256 factors[2];
    for (int i = 0; i < 2; i++)
        factors[i] = log_group == 5 ? _mm256_broadcast_ss(scales + i)
                                    : _mm256_blend_ps(_mm256_broadcast_ss(scales + 2 * i),
                                                      _mm256_broadcast_ss(scales + 2 * i + 1), 0xf0);
    return add_times(times(halves[0], factors[0]), halves[1], factors[1]);
}

/* What shifts, and the offset of even codes, add to a row: in vectors of groups, as far as these go. */
INLINED __m256 multiply_groups(const coded *w, const meaning *m, const float *sums, int64_t n) {
    int64_t count = groups(w), whole = count / LANES * LANES;
    const float *scales = w->scales + n * count, *shifts = w->shifts ? w->shifts + n * count : NULL;
    __m256 of_scales = _mm256_setzero_ps(), of_shifts = _mm256_setzero_ps();
    for (int64_t g = 0; g < whole && m->offset != 0.0f; g += LANES)
        of_scales = _mm256_fmadd_ps(_mm256_loadu_ps(scales + g), _mm256_loadu_ps(sums + g), of_scales);
    for (int64_t g = 0; g < whole && shifts; g += LANES)
        of_shifts = _mm256_fmadd_ps(_mm256_loadu_ps(shifts + g), _mm256_loadu_ps(sums + g), of_shifts);
    float rest = 0.0f;
    for (int64_t g = whole; g < count; g++)
        rest += (scales[g] * m->offset + (shifts ? shifts[g] : 0.0f)) * sums[g];
    of_shifts = _mm256_add_ps(of_shifts, _mm256_castps128_ps256(_mm_set_ss(rest)));
    return _mm256_fmadd_ps(of_scales, _mm256_set1_ps(m->offset), of_shifts);
}

/* Row n times num_tokens tokens, sums of every lane. log_group: 4, 5, or 6 for all that are larger. */
INLINED void multiply_row(const coded *w, const meaning *m, const token *x, int64_t n,
                          int num_tokens, int log_group, coding coding, floats lanes[][TILE_ROWS]) {
    const uint8_t *codes = w->codes + n * row_bytes(w);
    const float *scales = w->scales + n * groups(w);
    const int bytes = coding == BYTES ? UNIT : UNIT / 2;
    __m256 sums[TOKENS_AT_ONCE];
    for (int t = 0; t < num_tokens; t++) sums[t] = _mm256_setzero_ps();
    for (int64_t k = 0; k < w->inputs; k += UNIT, codes += bytes) {
        __m256i weights[4];
        __builtin_prefetch(codes + 2048);
        unpack(m, codes, coding, weights);
        for (int t = 0; t < num_tokens; t++) {
            __m256 unit = multiply_unit(weights, x[t].integers + k, scales + (k >> w->log_group), log_group, coding);
            sums[t] = _mm256_fmadd_ps(unit, _mm256_broadcast_ss(x[t].scales + k / UNIT), sums[t]);
        }
    }
    __m256 step = _mm256_set1_ps(m->step);
    for (int t = 0; t < num_tokens; t++) {
        sums[t] = _mm256_mul_ps(sums[t], step);
        if (has_sums(w, m)) sums[t] = _mm256_add_ps(sums[t], multiply_groups(w, m, x[t].sums, n));
        lanes[t][0] = (floats)sums[t];
    }
}

INLINED void multiply_row_by(const coded *w, const meaning *m, const token *x, int64_t n,
                             int64_t num_tokens, int log_group, coding coding, floats lanes[][TILE_ROWS]) {
    switch (num_tokens) {
#define ROW(count) case count: multiply_row(w, m, x, n, count, log_group, coding, lanes); break;
        ROW(1) ROW(2) ROW(3) ROW(4)
#undef ROW
    }
}

static void multiply_some(const coded *w, const meaning *m, const token *x, int64_t n,
                          int64_t num_tokens, floats lanes[][TILE_ROWS]) {
#define ROW(log_group, coding) multiply_row_by(w, m, x, n, num_tokens, log_group, coding, lanes); break
#define ROWS(coding)                    \
    switch (w->log_group) {             \
        case 4: ROW(4, coding);         \
        case 5: ROW(5, coding);         \
        default: ROW(6, coding);        \
    }                                   \
    break
    switch (m->coding) {
        case BYTES: ROWS(BYTES);
        case TABLE: ROWS(TABLE);
        case EVEN: ROWS(EVEN);
    }
#undef ROWS
#undef ROW
}

/* TILE_ROWS rows or fewer, TOKENS_AT_ONCE tokens or fewer. */
static void multiply_tile(const coded *w, const meaning *m, const token *x, int64_t n,
                          int64_t num_rows, int64_t num_tokens, stored *out) {
    floats lanes[TOKENS_AT_ONCE][TILE_ROWS] = {{{0}}};
    for (int64_t i = 0; i < num_rows; i++)
        multiply_some(w, m, x, n + i, num_tokens, (floats(*)[TILE_ROWS])&lanes[0][i]);
    for (int64_t t = 0; t < num_tokens; t++) {
        float sums[TILE_ROWS] = {0};
        add_sums(lanes[t], sums);
        for (int64_t i = 0; i < num_rows; i++) out[t * w->outputs + n + i] = narrow(sums[i]);
    }
}

static void multiply_integers(const coded *w, const stored *x, int64_t num_tokens, stored *out, void *room) {
    meaning m = meaning_of(w);
    token tokens[FEW_CODED];
    int64_t outputs = w->outputs;
    for (int64_t t = 0; t < num_tokens; t++) tokens[t] = token_at(w, room, t);
#pragma omp parallel if (num_tokens * outputs * w->inputs >= SHARED_PRODUCTS)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < num_tokens; t++) prepare(w, &m, x + t * w->inputs, tokens[t]);
#pragma omp for schedule(dynamic, TASK_TILES)
        for (int64_t n = 0; n < outputs; n += TILE_ROWS) {
            int64_t rows = outputs - n < TILE_ROWS ? outputs - n : TILE_ROWS;
            for (int64_t t = 0; t < num_tokens; t += TOKENS_AT_ONCE) {
                int64_t here = num_tokens - t < TOKENS_AT_ONCE ? num_tokens - t : TOKENS_AT_ONCE;
                multiply_tile(w, &m, tokens + t, n, rows, here, out + t * outputs);
            }
        }
    }
}
