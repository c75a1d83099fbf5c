/* Keys and values as floating-point numbers of 8 bits: E4M3 (no infinities) or E5M2. */

#pragma once

#include "stored.h"

enum { AS_STORED, E4M3, E5M2 }; /* what pages hold; library.py says the same */

static inline int64_t bytes_of(int kind) { return kind == AS_STORED ? (int64_t)sizeof(stored) : 1; }

/* A float has the same fields, further left, and a larger bias of the exponent. */
static inline int shift_of(int kind) { return kind == E4M3 ? 20 : 21; }
static inline uint32_t bias_of(int kind) { return (kind == E4M3 ? 120u : 112u) << 23; }

static inline float from_bits(uint32_t bits) {
    union { uint32_t bits; float value; } u = {bits};
    return u.value;
}

static inline uint32_t to_bits(float value) {
    union { float value; uint32_t bits; } u = {value};
    return u.bits;
}

/* What is stored has more bits than these: no number is rounded. */
static inline stored cut(float x) {
#ifdef STORED_BF16
    return (stored)(to_bits(x) >> 16);
#else
    return narrow(x);
#endif
}

static inline void widen_run(const uint8_t *from, int64_t count, int shift, uint32_t bias, stored *to) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t magnitude = (uint32_t)(from[i] & 0x7f) << shift;
        float value = from_bits(magnitude + bias);
        /* Exponent 0 is a subnormal number: no leading 1, and the exponent counts as 1. */
        value = magnitude < 1u << 23 ? 2.0f * (value - from_bits(bias)) : value;
        to[i] = cut(from_bits(to_bits(value) | (uint32_t)(from[i] & 0x80) << 24));
    }
}

static void widen_eight(const uint8_t *from, int64_t count, int kind, stored *to) {
    if (kind == E4M3)
        widen_run(from, count, shift_of(E4M3), bias_of(E4M3), to);
    else
        widen_run(from, count, shift_of(E5M2), bias_of(E5M2), to);
}

/* row / scale, to the nearest; too large numbers and NaN become the largest one. */
static void narrow_eight(const stored *row, int64_t count, int kind, float scale, uint8_t *to) {
    int shift = shift_of(kind);
    uint32_t bias = bias_of(kind);
    float largest = kind == E4M3 ? 448.0f : 57344.0f;
    float least_normal = 2.0f * from_bits(bias), steps = (float)(1 << (23 - shift)) / least_normal;
    for (int64_t i = 0; i < count; i++) {
        float x = widen(row[i]) / scale;
        x = x <= largest ? x : largest;
        x = x >= -largest ? x : -largest;
        uint32_t bits = to_bits(x), sign = bits >> 24 & 0x80;
        bits &= 0x7fffffff;
        uint32_t half = (1u << (shift - 1)) - 1 + (bits >> shift & 1);
        uint32_t code = (bits + half - bias) >> shift;
        if (from_bits(bits) < least_normal) code = (uint32_t)rintf(from_bits(bits) * steps);
        to[i] = (uint8_t)(sign | code);
    }
}
