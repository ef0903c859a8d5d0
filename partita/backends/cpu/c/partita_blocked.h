/* partita_blocked.h: the inner tile of convolutions on blocked tensors, and the windows of pools.
 *
 * A blocked tensor is [N][C / PARTITA_BLOCK][H][W][PARTITA_BLOCK]: one vector of channels a pixel. A tile computes
 * `pixels` neighbours of `panels` blocks of output channels; its sums fill the vector registers. The file that includes
 * this one says what PARTITA_BLOCK is.
 */
#ifndef PARTITA_BLOCKED_H
#define PARTITA_BLOCKED_H

#include <stdint.h>
#include <string.h>

typedef float partita_lanes __attribute__((vector_size(PARTITA_BLOCK * sizeof(float)), aligned(sizeof(float))));

typedef int32_t partita_lane_bits __attribute__((vector_size(PARTITA_BLOCK * sizeof(float)), aligned(sizeof(float))));

/* The larger of each lane; NaN where either is. */
static inline partita_lanes partita_larger(partita_lanes a, partita_lanes b) {
    const partita_lane_bits first = (a > b) | (a != a);
    return (partita_lanes)((first & (partita_lane_bits)a) | (~first & (partita_lane_bits)b));
}

/* Products that are summed before they join the total: the error of a long sum grows with its steps. */
#define PARTITA_CHUNK 512

/* The most sums of a tile. An array of constant size is what compilers keep in registers through all that a loop does. */
#define PARTITA_SUMS 32

/* What a tile reads and where it writes. Strides are in elements. */
typedef struct partita_window {
    int64_t blocks;        /* of input channels */
    int64_t block_stride;  /* between blocks of input channels */
    int64_t row_stride;    /* between rows of the window */
    int64_t column_stride; /* between columns of the window */
    int64_t pixel_step;    /* between results of neighbouring pixels */
    int64_t panel_step;    /* between results of neighbouring blocks of output channels */
} partita_window;

/* out[p * pixel_step + v * panel_step + o] = sum of x[window of pixel p] * weights[..][v][o]. Constants after inlining:
 * `pixels`; `panels`; `depth`, the input channels of each block; `stride`, elements between the windows of neighbouring
 * pixels; the window's `rows` and `columns`; `lines`, how many cache lines from `next` on are asked for in each step of
 * the sum: weights that a tile is the first to read would arrive too late otherwise; whether no sum is longer than
 * PARTITA_CHUNK (`is_short`). Weights are [blocks][rows][columns][depth][panels][PARTITA_BLOCK]. Blocks of input channels
 * begin at `places` of x or, where these are NULL, lie one after the other. */
static inline __attribute__((always_inline)) void partita_tile(
    const int pixels, const int panels, const int depth, const int64_t stride, const int rows, const int columns,
    const int lines, const int is_short, const partita_window *window, const int64_t *places, const float *x, const float *weights,
    const float *next, float *out) {
    const int64_t products = rows * columns * depth;
    const int64_t chunk = products < PARTITA_CHUNK ? PARTITA_CHUNK / products : 1;
    const partita_lanes *w = (const partita_lanes *)weights;
    int64_t first = 0;
    do {
        const int64_t last = is_short || window->blocks - first < chunk ? window->blocks : first + chunk;
        partita_lanes sums[PARTITA_SUMS];
#pragma GCC unroll 32
        for (int s = 0; s < pixels * panels; ++s)
            sums[s] = (partita_lanes){0};
        for (int64_t block = first; block < last; ++block) {
            for (int row = 0; row < rows; ++row) {
                const float *a = x + (places ? places[block] : block * window->block_stride) + row * window->row_stride;
#pragma GCC unroll 1
                for (int column = 0; column < columns; ++column, a += window->column_stride) {
                    const float *source = a;
                    /* Hides that neighbouring windows overlap: compilers would keep what they share in registers, which
                     * the sums need. */
                    __asm__("" : "+r"(source));
                    for (int k = 0; k < depth; k += 4) {
#pragma GCC unroll 16
                        for (int line = 0; line < lines; ++line, next += 16)
                            __builtin_prefetch(next, 0, 3);
#pragma GCC unroll 4
                        for (int u = 0; u < (depth < 4 ? depth : 4); ++u) {
#pragma GCC unroll 32
                            for (int s = 0; s < pixels * panels; ++s)
                                sums[s] += source[s / panels * stride + u] * w[u * panels + s % panels];
                        }
                        source += 4;
                        w += (depth < 4 ? depth : 4) * panels;
                    }
                }
            }
        }
#pragma GCC unroll 32
        for (int s = 0; s < pixels * panels; ++s) {
            partita_lanes *result = (partita_lanes *)(out + s / panels * window->pixel_step + s % panels * window->panel_step);
            *result = first == 0 ? sums[s] : *result + sums[s];
        }
        first = last;
    } while (first < window->blocks);
}

/* What lies in the windows of `pixels` neighbours of a line, combined for each: the largest (NaN if there is one), the sum,
 * or the sum of products with `weights` [rows][columns]. The image is [height][width]; places outside it do not count.
 * `left` is the column where the first window begins. Constants after inlining: `is_max`; `is_weighted`; `pixels`; whether
 * all columns of the windows lie `inside` the image; the window's size, its dilations `down` and `across`, and the
 * windows' `stride`. */
static inline __attribute__((always_inline)) void partita_windows(
    const int is_max, const int is_weighted, const partita_lanes *weights, const int pixels, const int inside,
    const partita_lanes *image, const int64_t height, const int64_t width, const int64_t top, const int64_t left,
    const int rows, const int columns, const int down, const int across, const int stride, partita_lanes *out) {
    partita_lanes totals[PARTITA_SUMS];
#pragma GCC unroll 16
    for (int p = 0; p < pixels; ++p)
        totals[p] = (partita_lanes){0} + (is_max ? -__builtin_inff() : 0.0f);
    for (int row = 0; row < rows; ++row) {
        const int64_t y = top + row * down;
        if (y < 0 || y >= height)
            continue;
        const partita_lanes *line = image + y * width + left;
#pragma GCC unroll 16
        for (int column = 0; column < columns; ++column) {
            const partita_lanes weight = is_weighted ? weights[row * columns + column] : (partita_lanes){0} + 1.0f;
#pragma GCC unroll 16
            for (int p = 0; p < pixels; ++p) {
                const int64_t x = p * stride + column * across;
                if (inside || (left + x >= 0 && left + x < width))
                    totals[p] = is_max ? partita_larger(line[x], totals[p]) : totals[p] + line[x] * weight;
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < pixels; ++p)
        out[p] = totals[p];
}

/* Copies a plane [height][width][lanes] into the middle of a zeroed one [rows][columns][lanes]; what does not fit at the
 * end is left out. */
static inline void partita_pad(const float *x, int64_t height, int64_t width, int64_t lanes, int64_t top, int64_t left,
                               int64_t rows, int64_t columns, float *padded) {
    const int64_t copied = (width < columns - left ? width : columns - left) * lanes;
    const int64_t right = (columns - left) * lanes - copied;
    for (int64_t row = 0; row < rows; ++row, padded += columns * lanes) {
        const int64_t source = row - top;
        if (source < 0 || source >= height) {
            memset(padded, 0, (size_t)(columns * lanes) * sizeof(float));
            continue;
        }
        memset(padded, 0, (size_t)(left * lanes) * sizeof(float));
        memcpy(padded + left * lanes, x + source * width * lanes, (size_t)copied * sizeof(float));
        memset(padded + left * lanes + copied, 0, (size_t)right * sizeof(float));
    }
}

#endif
