/* The tiles of AMX in plain C: what linear_amx.h does with them is tested on other processors. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define __AMX_BF16__ 1
#define syscall(...) 0 /* asks whether tiles may be used */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} emulated_shapes;

static __thread emulated_shapes shapes_now;
static __thread char tiles_now[8][16][64];

static inline void emulate_load(int tile, const void *from, int64_t stride) {
    for (int i = 0; i < shapes_now.rows[tile]; i++)
        memcpy(tiles_now[tile][i], (const char *)from + i * stride, shapes_now.row_bytes[tile]);
}

static inline void emulate_store(int tile, void *to, int64_t stride) {
    for (int i = 0; i < shapes_now.rows[tile]; i++)
        memcpy((char *)to + i * stride, tiles_now[tile][i], shapes_now.row_bytes[tile]);
}

static inline float emulate_widen(const char *from) {
    uint16_t half;
    memcpy(&half, from, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* sums [M, N] += the products of pairs, a [M, K, 2] and b [K, N, 2] */
static inline void emulate_products(int sums, int a, int b) {
    for (int m = 0; m < shapes_now.rows[sums]; m++)
        for (int n = 0; n < shapes_now.row_bytes[sums]; n += 4) {
            float sum;
            memcpy(&sum, &tiles_now[sums][m][n], sizeof sum);
            for (int k = 0; k < shapes_now.row_bytes[a] / 4; k++)
                for (int i = 0; i < 4; i += 2)
                    sum += emulate_widen(&tiles_now[a][m][4 * k + i]) * emulate_widen(&tiles_now[b][k][n + i]);
            memcpy(&tiles_now[sums][m][n], &sum, sizeof sum);
        }
}

static inline __m256bh emulate_round(__m512 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return (__m256bh)_mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}

#define _mm512_cvtneps_pbh(x) emulate_round(x)
#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_release
#define _tile_loadconfig(from) memcpy(&shapes_now, from, sizeof shapes_now)
#define _tile_loadd(tile, from, stride) emulate_load(tile, from, stride)
#define _tile_stored(tile, to, stride) emulate_store(tile, to, stride)
#define _tile_zero(tile) memset(tiles_now[tile], 0, sizeof tiles_now[tile])
#define _tile_dpbf16ps(sums, a, b) emulate_products(sums, a, b)
#define _tile_release() memset(&shapes_now, 0, sizeof shapes_now)
