/* Steps of many small networks: products, with what follows them done while the numbers are still in registers, the
   picking of a batch, the loss and what optimizers make of a gradient.

   Libraries take some 20 microseconds to begin a batch of products, and a pass over memory for every factor and
   nonlinearity. Here a block of the result stays in registers until it is finished. Vectors are those of the compiler
   (GCC, Clang), of the width that the processor has. NaN and infinities pass through, so it must not be compiled with
   -ffast-math. The file includes itself once per type. */

#ifndef REAL

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

#define JOINED(a, b) a##b
#define JOIN(a, b) JOINED(a, b)
#define UNROLLED _Pragma("GCC unroll 16")
#define INLINED static inline __attribute__((always_inline))
/* Clang does it without being asked, GCC with -O3 alone, which makes products slower by a twentieth. */
#ifdef __clang__
#define VECTORIZED
#else
#define VECTORIZED __attribute__((optimize("O3")))
#endif

#define REAL float
#define WHOLE int32_t
#define NAMED(name) JOIN(name, _float32)
#include "products.c"
#undef REAL
#undef WHOLE
#undef NAMED

#define REAL double
#define WHOLE int64_t
#define NAMED(name) JOIN(name, _float64)
#include "products.c"

#else

#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))
#define VECTOR NAMED(vector)
#define MASK NAMED(mask)
#define AFTER NAMED(after)
#define OPERATION NAMED(operation)

typedef REAL VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef WHOLE MASK __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

enum NAMED(kind) {
    NAMED(PRODUCT), NAMED(PICK), NAMED(SQUARED), NAMED(ENTROPY), NAMED(ITSELF), NAMED(SQUARE), NAMED(SIGN), NAMED(RATIO)
};

/* What is done for every cell and step; a null pointer leaves that out. Strides count numbers, rows of all but `left` and
   `right` are contiguous, and `each` and `also` are one number per cell.

   PRODUCT: out = [out +] factor * each * also * now * left right, then 0 where it, or `above`, is not positive. The
            rows or the columns of `right` are contiguous.
   PICK:    rows of `left` (themselves contiguous), at the places of that step.
   SQUARED: f = (left - right) / each and y = above; the gradient of `total` = sum (f - y)^2 / (2 rows) with respect
            to left.
   ENTROPY: the same of the mean cross-entropy of a row: of the softmax of f, where the class is that of the largest y,
            or of the logistic function, where there is one column and the class is the sign of y.
   ITSELF, SQUARE, SIGN, RATIO: out = keep out + factor * each * now * that of every number of `left`; the ratio is with
            sqrt(right) + also * then. All are contiguous.

   `now` and `then` are columns of a table that has a row for every step; below 0 they are 1. */
typedef struct {
    double factor, keep;
    int64_t kind, rows, columns, inner, add, rectify, now, then;
    REAL *out;
    int64_t out_cell, out_row;
    const REAL *left;
    int64_t left_cell, left_row, left_column;
    const REAL *right;
    int64_t right_cell, right_row, right_column;
    const REAL *above;
    int64_t above_cell, above_row;
    const REAL *each;
    int64_t each_cell;
    const REAL *also;
    int64_t also_cell;
    const int64_t *places;
    int64_t places_step, places_cell;
    REAL *total;
    int64_t total_step, total_cell;
} OPERATION;

/* What becomes of a cell's product. */
typedef struct {
    REAL scale;
    const REAL *above;
    int64_t above_row;
    int add, rectify;
} AFTER;

INLINED VECTOR NAMED(finished)(VECTOR z, const AFTER *after, const REAL *out, int64_t row, int64_t column)
{
    z *= after->scale;
    if (after->add) z += *(const VECTOR *)out;
    /* As torch does: NaN is not at or below 0, and stays. */
    if (after->rectify) z = (VECTOR)((MASK)z & ~(MASK)(z <= 0));
    if (after->above) {
        VECTOR m = *(const VECTOR *)(after->above + row * after->above_row + column);
        z = (VECTOR)((MASK)z & ~(MASK)(m <= 0));
    }
    return z;
}

INLINED REAL NAMED(finished_one)(REAL z, const AFTER *after, REAL out, int64_t row, int64_t column)
{
    z *= after->scale;
    if (after->add) z += out;
    if (after->rectify && z <= 0) z = 0;
    if (after->above && after->above[row * after->above_row + column] <= 0) z = 0;
    return z;
}

/* ROWS x (COLUMNS vectors) of the result, in registers; `right` has unit stride along columns. */
#define BLOCK(ROWS, COLUMNS)                                                                                        \
    INLINED void NAMED(block_##ROWS##_##COLUMNS)(                                                                   \
        const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row,              \
        int64_t inner, VECTOR sums[ROWS][COLUMNS])                                                                  \
    {                                                                                                               \
        UNROLLED for (int i = 0; i < ROWS; i++) UNROLLED for (int j = 0; j < COLUMNS; j++) sums[i][j] = (VECTOR){0}; \
        for (int64_t k = 0; k < inner; k++) {                                                                       \
            VECTOR b[COLUMNS];                                                                                      \
            UNROLLED for (int j = 0; j < COLUMNS; j++)                                                              \
                b[j] = *(const VECTOR *)(right + k * right_row + j * LANES);                                        \
            UNROLLED for (int i = 0; i < ROWS; i++) {                                                               \
                REAL a = left[i * left_row + k * left_column];                                                      \
                UNROLLED for (int j = 0; j < COLUMNS; j++) sums[i][j] += a * b[j];                                  \
            }                                                                                                       \
        }                                                                                                           \
    }                                                                                                               \
    INLINED void NAMED(tile_##ROWS##_##COLUMNS)(                                                                    \
        const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row,              \
        int64_t inner, REAL *out, int64_t out_row, const AFTER *after, int64_t row, int64_t column)                 \
    {                                                                                                               \
        VECTOR sums[ROWS][COLUMNS];                                                                                 \
        NAMED(block_##ROWS##_##COLUMNS)(left, left_row, left_column, right, right_row, inner, sums);                \
        UNROLLED for (int i = 0; i < ROWS; i++) UNROLLED for (int j = 0; j < COLUMNS; j++)                          \
        {                                                                                                           \
            REAL *place = out + i * out_row + j * LANES;                                                            \
            *(VECTOR *)place = NAMED(finished)(sums[i][j], after, place, row + i, column + j * LANES);              \
        }                                                                                                           \
    }

#if VECTOR_BYTES == 64 /* with 32 registers, else 16 */
BLOCK(6, 4)
BLOCK(4, 4)
BLOCK(1, 4)
BLOCK(8, 2)
#else
BLOCK(6, 2)
BLOCK(4, 2)
#endif
BLOCK(1, 2)
BLOCK(8, 1)
BLOCK(1, 1)

#define ROWS_OF(ROWS, COLUMNS)                                                                                   \
    for (; i + ROWS <= rows; i += ROWS)                                                                          \
        NAMED(tile_##ROWS##_##COLUMNS)(left + i * left_row, left_row, left_column, b, b_row, inner,              \
                                       out + i * out_row + j, out_row, &after, i, j);

/* Columns that fill vectors: those of a transposed matrix are gathered first. */
#define PANELS_OF(COLUMNS, TILES)                                                                                \
    for (; j + COLUMNS * LANES <= columns; j += COLUMNS * LANES) {                                               \
        const REAL *b = right + j * right_column;                                                                \
        int64_t i = 0, b_row = right_row;                                                                        \
        if (right_column != 1) {                                                                                 \
            NAMED(transposed)(b, COLUMNS * LANES, inner, right_column, panel);                                   \
            b = panel;                                                                                           \
            b_row = COLUMNS * LANES;                                                                             \
        }                                                                                                        \
        TILES                                                                                                    \
    }

/* [rows x columns] from contiguous rows, `row` apart, to [columns x rows]; `rows` fill vectors. */
static void NAMED(transposed)(const REAL *from, int64_t rows, int64_t columns, int64_t row, REAL *to)
{
    int64_t j = 0;
#if !defined(__clang__)
    for (; j + LANES <= columns; j += LANES)
        for (int64_t i = 0; i < rows; i += LANES) {
            VECTOR r[LANES];
            UNROLLED for (int a = 0; a < LANES; a++) r[a] = *(const VECTOR *)(from + (i + a) * row + j);
            /* Squares of side h off the diagonal change places, for h = 1, 2, 4, ... */
            UNROLLED for (int h = 1; h < LANES; h *= 2) {
                MASK low, high;
                for (int e = 0; e < LANES; e++) {
                    low[e] = e & h ? e - h + LANES : e;
                    high[e] = e & h ? e + LANES : e + h;
                }
                UNROLLED for (int a = 0; a < LANES; a++)
                    if (!(a & h)) {
                        VECTOR x = r[a], y = r[a + h];
                        r[a] = __builtin_shuffle(x, y, low);
                        r[a + h] = __builtin_shuffle(x, y, high);
                    }
            }
            UNROLLED for (int a = 0; a < LANES; a++) *(VECTOR *)(to + (j + a) * rows + i) = r[a];
        }
#endif
    for (; j < columns; j++)
        for (int64_t i = 0; i < rows; i++) to[j * rows + i] = from[i * row + j];
}

/* The columns that fill no vector, as if zeros followed. */
static void NAMED(remainder)(
    const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row,
    int64_t right_column, int64_t rows, int64_t columns, int64_t inner, REAL *out, int64_t out_row,
    const AFTER *after, int64_t column, REAL *panel)
{
    for (int64_t k = 0; k < inner; k++)
        for (int j = 0; j < LANES; j++)
            panel[k * LANES + j] = j < columns ? right[k * right_row + j * right_column] : 0;
    for (int64_t i = 0; i < rows;) {
        VECTOR sums[8][1];
        int count = i + 8 <= rows ? 8 : 1;
        if (count == 8) NAMED(block_8_1)(left + i * left_row, left_row, left_column, panel, LANES, inner, sums);
        else NAMED(block_1_1)(left + i * left_row, left_row, left_column, panel, LANES, inner, sums);
        for (int r = 0; r < count; r++)
            for (int64_t j = 0; j < columns; j++) {
                REAL *place = out + (i + r) * out_row + j;
                *place = NAMED(finished_one)(sums[r][0][j], after, *place, i + r, column + j);
            }
        i += count;
    }
}

/* A single column would fill one lane: the sums of `count` rows run along `inner`, whose numbers are contiguous, ... */
INLINED void NAMED(along)(
    const REAL *left, int64_t left_row, const REAL *right, int64_t inner, int count, REAL *totals)
{
    VECTOR sums[4];
    int64_t k = 0;
    UNROLLED for (int r = 0; r < count; r++) sums[r] = (VECTOR){0};
    for (; k + LANES <= inner; k += LANES)
        UNROLLED for (int r = 0; r < count; r++)
            sums[r] += *(const VECTOR *)(left + r * left_row + k) * *(const VECTOR *)(right + k);
    UNROLLED for (int r = 0; r < count; r++) {
        totals[r] = 0;
        for (int lane = 0; lane < LANES; lane++) totals[r] += sums[r][lane];
    }
    for (; k < inner; k++)
        UNROLLED for (int r = 0; r < count; r++) totals[r] += left[r * left_row + k] * right[k];
}

/* ... or those of `count` vectors of contiguous rows run beside one another. */
INLINED void NAMED(beside)(
    const REAL *left, int64_t left_column, const REAL *right, int64_t inner, int count, REAL *totals)
{
    VECTOR sums[4];
    UNROLLED for (int r = 0; r < count; r++) sums[r] = (VECTOR){0};
    for (int64_t k = 0; k < inner; k++)
        UNROLLED for (int r = 0; r < count; r++)
            sums[r] += *(const VECTOR *)(left + r * LANES + k * left_column) * right[k];
    UNROLLED for (int r = 0; r < count; r++) *(VECTOR *)(totals + r * LANES) = sums[r];
}

static void NAMED(column)(
    const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t rows, int64_t inner,
    REAL *out, int64_t out_row, const AFTER *after)
{
    int step;
    for (int64_t i = 0; i < rows; i += step) {
        REAL totals[4 * LANES];
        if (left_column == 1) {
            step = i + 4 <= rows ? 4 : 1;
            if (step == 4) NAMED(along)(left + i * left_row, left_row, right, inner, 4, totals);
            else NAMED(along)(left + i * left_row, left_row, right, inner, 1, totals);
        } else if (i + LANES <= rows) {
            step = i + 4 * LANES <= rows ? 4 * LANES : LANES;
            if (step > LANES) NAMED(beside)(left + i, left_column, right, inner, 4, totals);
            else NAMED(beside)(left + i, left_column, right, inner, 1, totals);
        } else {
            step = 1;
            totals[0] = 0;
            for (int64_t k = 0; k < inner; k++) totals[0] += left[i + k * left_column] * right[k];
        }
        for (int r = 0; r < step; r++) {
            REAL *place = out + (i + r) * out_row;
            *place = NAMED(finished_one)(totals[r], after, *place, i + r, 0);
        }
    }
}

static void NAMED(product)(const OPERATION *does, int64_t cell, const double *table, REAL *panel)
{
    const REAL *left = does->left + cell * does->left_cell, *right = does->right + cell * does->right_cell;
    REAL *out = does->out + cell * does->out_cell;
    int64_t left_row = does->left_row, left_column = does->left_column, out_row = does->out_row;
    int64_t right_row = does->right_row, right_column = does->right_column;
    int64_t rows = does->rows, columns = does->columns, inner = does->inner, j = 0;
    AFTER after = {(REAL)does->factor, 0, does->above_row, does->add != 0, does->rectify != 0};
    if (does->each) after.scale *= does->each[cell * does->each_cell];
    if (does->also) after.scale *= does->also[cell * does->also_cell];
    if (does->now >= 0) after.scale *= (REAL)table[does->now];
    if (does->above) after.above = does->above + cell * does->above_cell;
    if (columns == 1 && (left_column == 1 || left_row == 1)) {
        for (int64_t k = 0; k < inner; k++) panel[k] = right[k * right_row];
        NAMED(column)(left, left_row, left_column, panel, rows, inner, out, out_row, &after);
        return;
    }
#if VECTOR_BYTES == 64
    PANELS_OF(4, ROWS_OF(6, 4) ROWS_OF(4, 4) ROWS_OF(1, 4))
    PANELS_OF(2, ROWS_OF(8, 2) ROWS_OF(1, 2))
#else
    PANELS_OF(2, ROWS_OF(6, 2) ROWS_OF(4, 2) ROWS_OF(1, 2))
#endif
    PANELS_OF(1, ROWS_OF(8, 1) ROWS_OF(1, 1))
    if (j < columns)
        NAMED(remainder)(left, left_row, left_column, right + j * right_column, right_row, right_column, rows,
                         columns - j, inner, out + j, out_row, &after, j, panel);
}

static void NAMED(pick)(const OPERATION *does, int64_t cell, int64_t step)
{
    const int64_t *places = does->places + step * does->places_step + cell * does->places_cell;
    for (int64_t i = 0; i < does->rows; i++) {
        const REAL *from = does->left + cell * does->left_cell + places[i] * does->left_row;
        memcpy(does->out + cell * does->out_cell + i * does->out_row, from, does->columns * sizeof(REAL));
    }
}

/* The loss of a row, and its gradient with respect to f. */
static double NAMED(squared)(const REAL *f, const REAL *y, int64_t columns, REAL *gradient)
{
    double sum = 0;
    for (int64_t j = 0; j < columns; j++) {
        gradient[j] = f[j] - y[j];
        sum += (double)gradient[j] * gradient[j];
    }
    return sum / 2;
}

static double NAMED(entropy)(const REAL *f, const REAL *y, int64_t columns, REAL *gradient)
{
    if (columns == 1) {
        REAL side = y[0] > 0 ? -1 : y[0] < 0, z = side * f[0], small = exp(-fabs(z));
        gradient[0] = side * (z > 0 ? 1 : small) / (1 + small);
        return (z > 0 ? z : 0) + log1p(small);
    }
    int64_t class = 0;
    REAL most = f[0], sum = 0;
    for (int64_t j = 1; j < columns; j++) {
        if (y[j] > y[class]) class = j;
        if (f[j] > most) most = f[j];
    }
    for (int64_t j = 0; j < columns; j++) sum += gradient[j] = exp(f[j] - most);
    for (int64_t j = 0; j < columns; j++) gradient[j] = gradient[j] / sum - (j == class);
    return log(sum) + (most - f[class]);
}

static void NAMED(loss)(const OPERATION *does, int64_t cell, int64_t step)
{
    int64_t columns = does->columns;
    REAL scale = does->each[cell * does->each_cell], samples = (REAL)does->rows, f[columns];
    double sum = 0;
    for (int64_t i = 0; i < does->rows; i++) {
        const REAL *raw = does->left + cell * does->left_cell + i * does->left_row;
        const REAL *offset = does->right + cell * does->right_cell + i * does->right_row;
        const REAL *y = does->above + cell * does->above_cell + i * does->above_row;
        REAL *out = does->out + cell * does->out_cell + i * does->out_row;
        for (int64_t j = 0; j < columns; j++) f[j] = (does->right ? raw[j] - offset[j] : raw[j]) / scale;
        sum += does->kind == NAMED(SQUARED) ? NAMED(squared)(f, y, columns, out) : NAMED(entropy)(f, y, columns, out);
        for (int64_t j = 0; j < columns; j++) out[j] = out[j] / samples / scale;
    }
    does->total[step * does->total_step + cell * does->total_cell] = (REAL)(sum / samples);
}

/* What is not kept is not read: it may be NaN of another cell. */
#define EACH(of) _Pragma("GCC ivdep") for (int64_t i = 0; i < count; i++) out[i] = (of)
#define EVERY(term) do { if (keep == 0) EACH(scale * (term)); else EACH(keep * out[i] + scale * (term)); } while (0)

VECTORIZED static void NAMED(blend)(const OPERATION *does, int64_t cell, const double *table)
{
    int64_t count = does->rows * does->columns;
    REAL *out = does->out + cell * does->out_cell, keep = (REAL)does->keep, scale = (REAL)does->factor, eps = 0;
    const REAL *left = does->left + cell * does->left_cell, *right = does->right + cell * does->right_cell;
    if (does->each) scale *= does->each[cell * does->each_cell];
    if (does->now >= 0) scale *= (REAL)table[does->now];
    if (does->also) eps = does->also[cell * does->also_cell];
    if (does->then >= 0) eps *= (REAL)table[does->then];
    switch (does->kind) {
    case NAMED(ITSELF): EVERY(left[i]); break;
    case NAMED(SQUARE): EVERY(left[i] * left[i]); break;
    case NAMED(SIGN): EVERY((left[i] > 0) - (left[i] < 0)); break;
    default: EVERY(left[i] / (sqrt(right[i]) + eps));
    }
}

/* Cell by cell all steps, each all operations in order: what one has written is still in the caches for the next. */
void NAMED(run)(
    const OPERATION *operations, int64_t count, int64_t cells, int64_t steps, const double *table, int64_t width)
{
    int64_t inner = 1;
    for (int64_t i = 0; i < count; i++)
        if (operations[i].inner > inner) inner = operations[i].inner;
    REAL panel[inner * 4 * LANES];
    for (int64_t cell = 0; cell < cells; cell++)
        for (int64_t step = 0; step < steps; step++)
            for (int64_t i = 0; i < count; i++) {
                const OPERATION *does = operations + i;
                const double *row = table + step * width;
                if (does->kind == NAMED(PRODUCT)) NAMED(product)(does, cell, row, panel);
                else if (does->kind == NAMED(PICK)) NAMED(pick)(does, cell, step);
                else if (does->kind <= NAMED(ENTROPY)) NAMED(loss)(does, cell, step);
                else NAMED(blend)(does, cell, row);
            }
}

#undef LANES
#undef VECTOR
#undef MASK
#undef AFTER
#undef OPERATION
#undef BLOCK
#undef ROWS_OF
#undef PANELS_OF
#undef EVERY
#undef EACH

#endif
