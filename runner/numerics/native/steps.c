/* Steps of many small networks: products, with what follows them done while the numbers are still in registers,
   nonlinearities, norms and attention, the picking of a batch, the loss and what optimizers make of a gradient.

   Libraries take some 20 microseconds to begin a batch of products, and a pass over memory for every factor and
   nonlinearity. Here a block of the result stays in registers until it is finished. Vectors are those of the compiler
   (GCC, Clang), of the width that the processor has. NaN and infinities pass through, so it must not be compiled with
   -ffast-math. It is compiled once per type, for numbers of REAL_BITS bits. */

#include <float.h>
#include <stdint.h>
#include <string.h>
#include <tgmath.h>

#if !defined(__AVX__) || !defined(__FMA__)
#error "measured with AVX2 and AVX-512 alone"
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#else
#define VECTOR_BYTES 32
#endif

#define UNROLLED _Pragma("GCC unroll 16")
#define INLINED static inline __attribute__((always_inline))
/* Clang does it without being asked, GCC with -O3 alone, which makes products slower by a twentieth. */
#ifdef __clang__
#define VECTORIZED
#else
#define VECTORIZED __attribute__((optimize("O3")))
#endif

#if REAL_BITS == 32
#define REAL float
#define WHOLE int32_t
#define FRACTION_BITS 23
#define LEAST_EXPONENT FLT_MIN_EXP
#define TERMS 7 /* of the series of exp within log(2) / 2 of 0, for an error below the rounding */
#else
#define REAL double
#define WHOLE int64_t
#define FRACTION_BITS 52
#define LEAST_EXPONENT DBL_MIN_EXP
#define TERMS 13
#endif
#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef WHOLE MASK __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

enum kind {
    PRODUCT, CONVOLVE, CONVOLVE_BACK, POOL, POOL_BACK, TRANSPOSE, PICK, ONE_HOT, REPEAT, SQUARED, ENTROPY, NORM,
    NORM_BACK, ATTEND, ATTEND_BACK, RELU, GELU, TANH, ERF, ITSELF, SQUARE, SIGN, RATIO, TIMES, GATE
};

/* What is done for every cell and step; a null pointer leaves that out. Strides count numbers, rows of all but the `left`
   and `right` of a product are contiguous, and `each` and `also` are one number per cell.

   PRODUCT: factor * each * also * now * left right, where `above` is not positive 0, or, if `times`, that times
            `above`; out = [out +] this, or 0 if not positive. The rows or the columns of `right` are contiguous.
   CONVOLVE: of images of `inner` channels as `left`, `height` x `breadth` with a margin of side / 2, with kernels as
            `right`, [side * side * inner x columns]; else as PRODUCT. The margin of `out` is left as it is. `tiled` is
            faster, for side 3 and an even height and breadth.
   CONVOLVE_BACK: the gradient of the kernels: `left` as there, in `inner` rows, `right` the gradient of what was written.
   POOL:    of images as `left`, `height` x `breadth` with a margin of `inner`: factor times sums over squares of `side`.
   POOL_BACK: given the gradient of what POOL wrote as `left`, that of what it read; `above` and `add` as in PRODUCT.
   TRANSPOSE: of `left`, whose rows are contiguous.
   PICK:    rows of `left`, at the places of that step.
   ONE_HOT: a row for every one of the `positions` in a row of `left`, which hold whole numbers: 1 in that column.
   REPEAT:  the next `rows` operations, `columns` times: each takes other rows of a batch, one block after the other.
            Where an operation `sums`, all blocks of a step but the first add to what is there.
   SQUARED: f = (left - right) / each and y = above; the gradient of `total` = sum (f - y)^2 / (2 inner) with respect
            to left; `inner` are the samples of a batch, of which `rows` are at hand.
   ENTROPY: the same of the mean cross-entropy of a row: of the softmax of f, where the class is that of the largest y,
            or of the logistic function, where there is one column and the class is the sign of y.
   NORM:    kept = rows of `left` less their mean, over sqrt(variance + factor); out = each * right * kept, with one row
            of `right`. One over the root is left in `more`.
   NORM_BACK: given kept as `above`, and the gradient with respect to what NORM wrote as `left`, adds that with respect
            to what it read to `out`, or writes it where `keep` is 0; that of its gain is in `kept`, of one row.
   ATTEND:  `left` has queries, keys and values side by side, heads of `inner` numbers in each, samples of `positions`
            rows: kept = softmax(factor * each * queries keys^T), out = kept values; of those before alone, if `causal`.
   ATTEND_BACK: given kept as `above` and the gradient with respect to what ATTEND wrote as `right`, that with respect
            to what it read, side by side. `more` has room for positions^2 numbers.
   RELU, GELU, TANH, ERF: out = the function of every number of `left`, kept = its derivative; they may be `left` itself.
   ITSELF, SQUARE, SIGN, RATIO, TIMES: out = keep out + factor * each * now * that of every number of `left`; the ratio
            is with sqrt(right) + also * then, TIMES is left * right.
   GATE:    the same of `left` where `right` is not at or below 0.

   `now` and `then` are columns of a table that has a row for every step; below 0 they are 1. */
typedef struct {
    double factor, keep;
    int64_t kind, rows, columns, inner, add, sums, rectify, times, now, then, positions, causal;
    int64_t height, breadth, side, tiled;
    REAL *out;
    int64_t out_cell, out_row;
    const REAL *left;
    int64_t left_cell, left_row, left_column;
    const REAL *right;
    int64_t right_cell, right_row, right_column;
    const REAL *above;
    int64_t above_cell, above_row;
    REAL *kept;
    int64_t kept_cell, kept_row;
    REAL *more;
    int64_t more_cell;
    const REAL *each;
    int64_t each_cell;
    const REAL *also;
    int64_t also_cell;
    const int64_t *places;
    int64_t places_step, places_cell;
    REAL *total;
    int64_t total_step, total_cell;
} OPERATION;

/* Where a run is: the block counts within a step, and its place within one REPEAT. */
typedef struct {
    int64_t cell, step, block, place;
    const double *row;
    REAL *panel;
} NOW;

#include "vectors.h"

#include "products.h"

#include "images.h"

#include "functions.h"

#include "batches.h"

#include "attention.h"

#include "blends.h"

static void carry_out(const OPERATION *does, const NOW *now)
{
    switch (does->kind) {
    case PRODUCT: product(does, now); break;
    case CONVOLVE: convolve(does, now); break;
    case CONVOLVE_BACK: convolve_back(does, now); break;
    case POOL: pool(does, now); break;
    case POOL_BACK: pool_back(does, now); break;
    case TRANSPOSE: transpose(does, now->cell); break;
    case PICK: pick(does, now); break;
    case ONE_HOT: one_hot(does, now->cell); break;
    case SQUARED: case ENTROPY: loss(does, now); break;
    case NORM: norm(does, now->cell); break;
    case NORM_BACK: norm_back(does, now); break;
    case ATTEND: attend(does, now); break;
    case ATTEND_BACK: attend_back(does, now); break;
    case RELU: case GELU: case TANH: case ERF: curve(does, now->cell); break;
    default: blend(does, now);
    }
}

/* Cell by cell all steps, each all operations in order: what one has written is still in the caches for the next. There
   is room in `panel` for four vectors of each number that a product sums over, and behind it what `tiled` takes. */
void run(
    const OPERATION *operations, int64_t count, int64_t cells, int64_t steps, const double *table, int64_t width,
    REAL *panel)
{
    NOW now = {.panel = panel};
    for (now.cell = 0; now.cell < cells; now.cell++)
        for (now.step = 0; now.step < steps; now.step++) {
            now.block = now.place = 0;
            now.row = table + now.step * width;
            for (int64_t i = 0; i < count; i++) {
                const OPERATION *does = operations + i;
                if (does->kind != REPEAT) {
                    carry_out(does, &now);
                    continue;
                }
                for (now.place = 0; now.place < does->columns; now.place++, now.block++)
                    for (int64_t j = 1; j <= does->rows; j++) carry_out(does + j, &now);
                now.place = 0;
                i += does->rows;
            }
        }
}
