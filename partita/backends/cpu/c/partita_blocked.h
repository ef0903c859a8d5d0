/* partita_blocked.h: the inner tile of convolutions on blocked tensors.
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

/* Taps of blocks that are summed before they join the total: the error of a long sum grows with its steps. */
#define PARTITA_CHUNK 16

/* What a tile reads and where it writes. Strides are in elements; the kernel window is rows x columns. */
typedef struct partita_window {
    int64_t blocks;        /* of input channels */
    int64_t block_stride;  /* between blocks of input channels */
    int64_t rows, columns; /* of the kernel window */
    int64_t row_stride;    /* between rows of the window */
    int64_t column_stride; /* between columns of the window */
    int64_t pixel_step;    /* between results of neighbouring pixels */
    int64_t panel_step;    /* between results of neighbouring blocks of output channels */
} partita_window;

/* out[p * pixel_step + v * panel_step + o] = sum of x[window of pixel p] * weights[..][v][o]. Constants after inlining:
 * `pixels`; `panels`; `depth`, the input channels of each block; `stride`, elements between the windows of neighbouring
 * pixels. Weights are [blocks][rows][columns][depth][panels][PARTITA_BLOCK]. */
static inline __attribute__((always_inline)) void partita_tile(const int pixels, const int panels, const int depth,
                                                               const int stride, const partita_window *window,
                                                               const float *x, const float *weights, float *out) {
    const int64_t taps = window->rows * window->columns;
    const int64_t chunk = taps < PARTITA_CHUNK ? PARTITA_CHUNK / taps : 1;
    const partita_lanes *w = (const partita_lanes *)weights;
    for (int64_t first = 0; first < window->blocks; first += chunk) {
        const int64_t last = window->blocks - first < chunk ? window->blocks : first + chunk;
        partita_lanes sums[pixels * panels];
#pragma GCC unroll 32
        for (int s = 0; s < pixels * panels; ++s)
            sums[s] = (partita_lanes){0};
        for (int64_t block = first; block < last; ++block) {
            for (int64_t row = 0; row < window->rows; ++row) {
                const float *a = x + block * window->block_stride + row * window->row_stride;
                for (int64_t column = 0; column < window->columns; ++column, a += window->column_stride) {
                    const float *source = a;
                    for (int k = 0; k < depth; k += 4) {
#pragma GCC unroll 4
                        for (int u = 0; u < (depth < 4 ? depth : 4); ++u) {
#pragma GCC unroll 32
                            for (int p = 0; p < pixels; ++p) {
#pragma GCC unroll 4
                                for (int v = 0; v < panels; ++v)
                                    sums[p * panels + v] += source[p * stride + u] * w[u * panels + v];
                            }
                        }
                        source += 4;
                        w += (depth < 4 ? depth : 4) * panels;
                    }
                }
            }
        }
#pragma GCC unroll 32
        for (int p = 0; p < pixels; ++p) {
#pragma GCC unroll 4
            for (int v = 0; v < panels; ++v) {
                partita_lanes *target = (partita_lanes *)(out + p * window->pixel_step + v * window->panel_step);
                *target = first == 0 ? sums[p * panels + v] : *target + sums[p * panels + v];
            }
        }
    }
}

/* Copies planes [count][height][width][lanes] into the middle of zeroed ones [count][rows][columns][lanes]; what does not
 * fit at the end is left out. */
static inline void partita_pad(const float *x, int64_t count, int64_t height, int64_t width, int64_t lanes, int64_t top,
                               int64_t left, int64_t rows, int64_t columns, float *padded) {
    const int64_t copied = (width < columns - left ? width : columns - left) * lanes;
    const int64_t right = (columns - left) * lanes - copied;
    for (int64_t plane = 0; plane < count; ++plane) {
        for (int64_t row = 0; row < rows; ++row, padded += columns * lanes) {
            const int64_t source = row - top;
            if (source < 0 || source >= height) {
                memset(padded, 0, (size_t)(columns * lanes) * sizeof(float));
                continue;
            }
            memset(padded, 0, (size_t)(left * lanes) * sizeof(float));
            memcpy(padded + left * lanes, x + (plane * height + source) * width * lanes, (size_t)copied * sizeof(float));
            memset(padded + left * lanes + copied, 0, (size_t)right * sizeof(float));
        }
    }
}

#endif
