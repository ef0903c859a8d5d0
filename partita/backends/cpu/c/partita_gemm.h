/* partita_gemm.h: the inner tile of matrix products and convolutions.
 *
 * A tile is PARTITA_TILE_ROWS x PARTITA_TILE_COLUMNS of the product. Its right operand is packed: `columns` is
 * [depth][PARTITA_TILE_COLUMNS], zero where the matrix ends. The accumulators fill the vector registers.
 */
#ifndef PARTITA_GEMM_H
#define PARTITA_GEMM_H

#include <stdint.h>

#define PARTITA_TILE_ROWS 6
#define PARTITA_TILE_COLUMNS 64

#if defined(__AVX512F__)
#define PARTITA_LANES 16
#elif defined(__AVX__)
#define PARTITA_LANES 8
#else
#define PARTITA_LANES 4
#endif
/* Columns whose accumulators are in registers at once. */
#define PARTITA_STRIP (PARTITA_LANES == 16 ? 64 : 2 * PARTITA_LANES)
#define PARTITA_STRIP_VECTORS (PARTITA_LANES == 16 ? 4 : 2)

typedef float partita_vector __attribute__((vector_size(PARTITA_LANES * sizeof(float)), aligned(sizeof(float))));

/* Products summed before they join the total: the error of a long sum grows with the number of its steps. */
#define PARTITA_DEPTH_BLOCK 128

/* tile[r][c] = sum over k of a[r * a_stride + k] * columns[k][c], for `rows` rows (a constant after inlining). */
static inline __attribute__((always_inline)) void partita_gemm_rows(int rows, int64_t depth, const float *a,
                                                                    int64_t a_stride, const float *columns,
                                                                    float (*tile)[PARTITA_TILE_COLUMNS]) {
    for (int strip = 0; strip < PARTITA_TILE_COLUMNS; strip += PARTITA_STRIP) {
        for (int r = 0; r < rows; ++r)
            for (int v = 0; v < PARTITA_STRIP_VECTORS; ++v)
                *(partita_vector *)(tile[r] + strip + v * PARTITA_LANES) = (partita_vector){0};
        for (int64_t begin = 0; begin < depth; begin += PARTITA_DEPTH_BLOCK) {
        const int64_t end = depth - begin < PARTITA_DEPTH_BLOCK ? depth : begin + PARTITA_DEPTH_BLOCK;
        partita_vector sums[PARTITA_TILE_ROWS][PARTITA_STRIP_VECTORS];
        for (int r = 0; r < rows; ++r)
            for (int v = 0; v < PARTITA_STRIP_VECTORS; ++v)
                sums[r][v] = (partita_vector){0};
        for (int64_t k = begin; k < end; ++k) {
            const partita_vector *b = (const partita_vector *)(columns + k * PARTITA_TILE_COLUMNS + strip);
#pragma GCC unroll 6
            for (int r = 0; r < rows; ++r) {
                const float scale = a[r * a_stride + k];
#pragma GCC unroll 4
                for (int v = 0; v < PARTITA_STRIP_VECTORS; ++v)
                    sums[r][v] += scale * b[v];
            }
        }
        for (int r = 0; r < rows; ++r)
            for (int v = 0; v < PARTITA_STRIP_VECTORS; ++v)
                *(partita_vector *)(tile[r] + strip + v * PARTITA_LANES) += sums[r][v];
        }
    }
}

/* The same for any number of rows up to PARTITA_TILE_ROWS. */
static inline void partita_gemm_tile(int64_t rows, int64_t depth, const float *a, int64_t a_stride,
                                     const float *columns, float (*tile)[PARTITA_TILE_COLUMNS]) {
    switch (rows) {
    case 1: partita_gemm_rows(1, depth, a, a_stride, columns, tile); break;
    case 2: partita_gemm_rows(2, depth, a, a_stride, columns, tile); break;
    case 3: partita_gemm_rows(3, depth, a, a_stride, columns, tile); break;
    case 4: partita_gemm_rows(4, depth, a, a_stride, columns, tile); break;
    case 5: partita_gemm_rows(5, depth, a, a_stride, columns, tile); break;
    default: partita_gemm_rows(6, depth, a, a_stride, columns, tile); break;
    }
}

#endif
