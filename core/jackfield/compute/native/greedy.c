/* The most likely token of each row. */

#include "stored.h"

/* Bits of what is stored, as a signed integer. */
#ifdef STORED_BF16
typedef int16_t bits;
enum { INFINITE = 0x7f80, MAGNITUDE = 0x7fff };
#elif defined(STORED_F16)
typedef int16_t bits;
enum { INFINITE = 0x7c00, MAGNITUDE = 0x7fff };
#else
typedef int32_t bits;
enum { INFINITE = 0x7f800000, MAGNITUDE = 0x7fffffff };
#endif

enum { STRIDE = 256 }; /* numbers that are looked through at once */

/* Numbers in the order of their ranks; -0 is right below +0. */
static inline bits rank(bits x) { return x ^ ((bits)(x >> (8 * sizeof(bits) - 1)) & MAGNITUDE); }

/* The first of n numbers whose rank is at least `low`; there is one. */
static int64_t first_from(const bits *x, int64_t n, bits low) {
    int64_t begin = 0;
    for (; begin + STRIDE < n; begin += STRIDE) {
        bits found = 0;
        for (int64_t i = begin; i < begin + STRIDE; i++) found |= rank(x[i]) >= low;
        if (found) break;
    }
    while (rank(x[begin]) < low) begin++;
    return begin;
}

/* logits [num_rows, n] -> chosen [num_rows]: the first of the largest, -1 where that is not finite
 * or the row has a NaN. Written (some token then) to token_ids [.., stride] at `rows`, `positions`. */
void choose_greedily(const bits *logits, const int64_t *rows, const int64_t *positions,
                     int32_t *token_ids, int32_t *chosen, int64_t num_rows, int64_t n, int64_t stride) {
#pragma omp parallel for if (num_rows > 1 && num_rows * n >= SHARED_FROM)
    for (int64_t row = 0; row < num_rows; row++) {
        const bits *x = logits + row * n;
        bits peak = rank(x[0]), largest = 0;
        for (int64_t i = 0; i < n; i++) {
            bits here = rank(x[i]), magnitude = x[i] & MAGNITUDE;
            peak = here > peak ? here : peak;
            largest = magnitude > largest ? magnitude : largest;
        }
        int possible = largest <= INFINITE && peak < INFINITE && peak > rank(~MAGNITUDE | INFINITE);
        int32_t token = (int32_t)first_from(x, n, peak == 0 ? -1 : peak);
        token_ids[rows[row] * stride + positions[row]] = token;
        chosen[row] = possible ? token : -1;
    }
}
