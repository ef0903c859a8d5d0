/* partita_trees.h: ensembles of decision trees, row by row; probabilities of classes from those of pairs.
 *
 * A node is seven numbers: the comparison, whether NaN counts as true, the feature, where to go if it holds, where if not,
 * the place and the size of a set. A leaf names a range of weights. */
#ifndef PARTITA_TREES_H
#define PARTITA_TREES_H

#include <math.h>
#include <stdint.h>

#include "partita_kernel.h"

enum { PARTITA_LEQ, PARTITA_LT, PARTITA_GTE, PARTITA_GT, PARTITA_EQ, PARTITA_NEQ, PARTITA_MEMBER, PARTITA_LEAF };
enum { PARTITA_AVERAGE, PARTITA_SUM, PARTITA_MIN, PARTITA_MAX };

#define PARTITA_COLUMNS INT64_C(7)

#define PARTITA_TREES(name, type)                                                                                 \
    static inline int partita_tree_goes_##name(const int32_t *node, type value, type split, const type *members) { \
        if (value != value)                                                                                       \
            return node[1] || node[0] == PARTITA_NEQ;                                                             \
        switch (node[0]) {                                                                                        \
        case PARTITA_LEQ: return value <= split;                                                                  \
        case PARTITA_LT: return value < split;                                                                    \
        case PARTITA_GTE: return value >= split;                                                                  \
        case PARTITA_GT: return value > split;                                                                    \
        case PARTITA_EQ: return value == split;                                                                   \
        case PARTITA_NEQ: return value != split;                                                                  \
        }                                                                                                         \
        const type *set = members + node[5]; /* sorted */                                                        \
        int64_t low = 0, high = node[6];                                                                          \
        while (low < high) {                                                                                      \
            const int64_t middle = low + (high - low) / 2;                                                        \
            if (set[middle] < value)                                                                              \
                low = middle + 1;                                                                                 \
            else                                                                                                  \
                high = middle;                                                                                    \
        }                                                                                                         \
        return low < node[6] && set[low] == value;                                                                \
    }                                                                                                             \
    static inline void partita_tree_ensemble_##name(                                                              \
        PARTITA_ROUTINE, const type *x, int64_t columns, int64_t least, const int32_t *nodes, const type *splits, \
        const type *members, const int32_t *targets, const type *weights, const int32_t *roots, int64_t trees,    \
        int64_t target_count, int64_t aggregate, type *y) {                                                       \
        if (columns < least) {                                                                                    \
            const int32_t failed = call->services->fail(call, PARTITA_ERROR_SHAPE,                                \
                                                        "trees look at %lld features, but there are %lld",        \
                                                        (long long)least, (long long)columns);                    \
            __atomic_store_n(status, failed, __ATOMIC_RELAXED);                                                   \
            return;                                                                                               \
        }                                                                                                         \
        const type start = (type)(aggregate == PARTITA_MIN ? INFINITY : aggregate == PARTITA_MAX ? -INFINITY : 0);\
        for (int64_t row = begin; row < end; ++row) {                                                             \
            const type *own = x + row * columns;                                                                  \
            type *result = y + row * target_count;                                                                \
            for (int64_t target = 0; target < target_count; ++target)                                             \
                result[target] = start;                                                                           \
            for (int64_t tree = 0; tree < trees; ++tree) {                                                        \
                int32_t place = roots[tree];                                                                      \
                const int32_t *node = nodes + PARTITA_COLUMNS * place;                                            \
                while (node[0] != PARTITA_LEAF) {                                                                 \
                    place = node[partita_tree_goes_##name(node, own[node[2]], splits[place], members) ? 3 : 4];   \
                    node = nodes + PARTITA_COLUMNS * place;                                                       \
                }                                                                                                 \
                for (int32_t entry = node[3]; entry < node[4]; ++entry) {                                         \
                    type *total = result + targets[entry];                                                        \
                    const type weight = weights[entry];                                                           \
                    if (aggregate < PARTITA_MIN)                                                                  \
                        *total += weight;                                                                         \
                    else if (aggregate == PARTITA_MIN ? weight < *total : weight > *total)                        \
                        *total = weight;                                                                          \
                }                                                                                                 \
            }                                                                                                     \
            for (int64_t target = 0; target < target_count; ++target) {                                           \
                if (aggregate >= PARTITA_MIN && result[target] == start)                                          \
                    result[target] = 0; /* no leaf spoke of it */                                                 \
                if (aggregate == PARTITA_AVERAGE && trees)                                                        \
                    result[target] /= (type)trees;                                                                \
            }                                                                                                     \
        }                                                                                                         \
    }

PARTITA_TREES(float32, float)
PARTITA_TREES(float64, double)

/* The probability of class t against s, from those of pairs (i, j), i < j, in order. */
static inline double partita_pair(const double *pairs, int64_t classes, int64_t t, int64_t s) {
    const int64_t i = t < s ? t : s, j = t < s ? s : t;
    const double first = pairs[i * (2 * classes - i - 1) / 2 + j - i - 1];
    return t < s ? first : 1 - first;
}

/* An element of the matrix whose quadratic form the probabilities of all classes make least. */
static inline double partita_coupling(const double *pairs, int64_t classes, int64_t t, int64_t s) {
    double sum = 0;
    if (t != s)
        return -partita_pair(pairs, classes, s, t) * partita_pair(pairs, classes, t, s);
    for (int64_t other = 0; other < classes; ++other)
        if (other != t)
            sum += partita_pair(pairs, classes, other, t) * partita_pair(pairs, classes, other, t);
    return sum;
}

/* Half the slope of that form along class t. */
static inline double partita_slope(const double *pairs, int64_t classes, int64_t t, const double *shares) {
    double sum = 0;
    for (int64_t other = 0; other < classes; ++other)
        sum += partita_coupling(pairs, classes, t, other) * shares[other];
    return sum;
}

/* How far each slope is from what all are at the least: the form itself. */
static inline double partita_excess(const double *pairs, int64_t classes, int64_t t, const double *shares) {
    double form = 0;
    for (int64_t other = 0; other < classes; ++other)
        form += shares[other] * partita_slope(pairs, classes, other, shares);
    return form - partita_slope(pairs, classes, t, shares);
}

/* One class after the other is given the share that makes the form least, until all slopes agree. */
static inline void partita_couple_pairs(PARTITA_ROUTINE, const double *pairs, int64_t classes, double *y) {
    const int64_t rounds = classes > 100 ? classes : 100;
    for (int64_t row = begin; row < end; ++row) {
        const double *own = pairs + row * (classes * (classes - 1) / 2);
        double *shares = y + row * classes;
        for (int64_t t = 0; t < classes; ++t)
            shares[t] = 1.0 / (double)classes;
        for (int64_t round = 0; round < rounds; ++round) {
            double worst = 0;
            for (int64_t t = 0; t < classes; ++t)
                worst = fmax(worst, fabs(partita_excess(own, classes, t, shares)));
            if (worst < 0.005 / (double)classes)
                break;
            for (int64_t t = 0; t < classes; ++t) {
                const double change = partita_excess(own, classes, t, shares) / partita_coupling(own, classes, t, t);
                shares[t] += change;
                for (int64_t other = 0; other < classes; ++other)
                    shares[other] /= 1 + change;
            }
        }
    }
}

#endif
