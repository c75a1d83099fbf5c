/* What the kernels store, bfloat16, float16 or float32, and how they compute with it.
 *
 * build.py compiles them on the machine they run on, with STORED_BF16, STORED_F16 or neither. Arithmetic is in
 * float32 and rounded once; tensors are contiguous; sizes are in elements.
 */

#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef STORED_BF16
typedef uint16_t stored;

static inline float widen(stored x) {
    union { uint32_t bits; float value; } u = {(uint32_t)x << 16};
    return u.value;
}

static inline stored narrow(float x) {
    union { float value; uint32_t bits; } u = {x};
    return (stored)((u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16);
}
#elif defined(STORED_F16)
typedef _Float16 stored;
static inline float widen(stored x) { return (float)x; }
static inline stored narrow(float x) { return (stored)x; }
#else
typedef float stored;
static inline float widen(stored x) { return x; }
static inline stored narrow(float x) { return x; }
#endif

enum {
    MOST_DIM = 256,       /* of a head; library.py says the same */
    MOST_GROUP = 16,      /* query heads of one KV head */
    SHARED_FROM = 1 << 14 /* elements from which threads are worth waking */
};

/* exp(x) to about 1e-7, for loops that the compiler turns into vectors. Cody and Waite's
 * reduction, polynomial of degree 6. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return (p * r * r + r + 1.0f) * power.value;
}
