/* Products of matrices, with what is done to them while they are in registers. */

/* What becomes of a cell's product. */
typedef struct {
    REAL scale;
    const REAL *above;
    int64_t above_row;
    int add, rectify, times;
} AFTER;

INLINED VECTOR finished(VECTOR z, const AFTER *after, VECTOR before, VECTOR gate)
{
    z *= after->scale;
    /* As torch does: NaN is not at or below 0, and stays. */
    if (after->times) z *= gate;
    else if (after->above) z = (VECTOR)((MASK)z & ~(MASK)(gate <= 0));
    if (after->add) z += before;
    if (after->rectify) z = (VECTOR)((MASK)z & ~(MASK)(z <= 0));
    return z;
}

INLINED REAL finished_one(REAL z, const AFTER *after, REAL out, int64_t row, int64_t column)
{
    z *= after->scale;
    if (after->above) {
        REAL m = after->above[row * after->above_row + column];
        if (after->times) z *= m;
        else if (m <= 0) z = 0;
    }
    if (after->add) z += out;
    if (after->rectify && z <= 0) z = 0;
    return z;
}

/* What is summed over: `inner` numbers, in `count` segments that far apart in either matrix. */
typedef struct {
    int64_t inner, count, left, right;
} SEGMENTS;

/* ROWS x (COLUMNS vectors) of the result, in registers; `right` has unit stride along columns. */
#define BLOCK(ROWS, COLUMNS)                                                                                         \
    INLINED void block_##ROWS##_##COLUMNS(                                                                           \
        const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row,               \
        SEGMENTS of, VECTOR sums[ROWS][COLUMNS])                                                                     \
    {                                                                                                                \
        UNROLLED for (int i = 0; i < ROWS; i++) UNROLLED for (int j = 0; j < COLUMNS; j++) sums[i][j] = (VECTOR){0}; \
        for (int64_t s = 0; s < of.count; s++, left += of.left, right += of.right)                                   \
        for (int64_t k = 0; k < of.inner; k++) {                                                                     \
            VECTOR b[COLUMNS];                                                                                       \
            UNROLLED for (int j = 0; j < COLUMNS; j++)                                                               \
                b[j] = *(const VECTOR *)(right + k * right_row + j * LANES);                                         \
            UNROLLED for (int i = 0; i < ROWS; i++) {                                                                \
                REAL a = left[i * left_row + k * left_column];                                                       \
                UNROLLED for (int j = 0; j < COLUMNS; j++) sums[i][j] += a * b[j];                                   \
            }                                                                                                        \
        }                                                                                                            \
    }                                                                                                                \
    INLINED void tile_##ROWS##_##COLUMNS(                                                                            \
        const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row,               \
        SEGMENTS of, REAL *out, int64_t out_row, const AFTER *after, int64_t row, int64_t column)                    \
    {                                                                                                                \
        VECTOR sums[ROWS][COLUMNS];                                                                                  \
        block_##ROWS##_##COLUMNS(left, left_row, left_column, right, right_row, of, sums);                           \
        UNROLLED for (int i = 0; i < ROWS; i++) UNROLLED for (int j = 0; j < COLUMNS; j++)                           \
        {                                                                                                            \
            REAL *place = out + i * out_row + j * LANES;                                                             \
            const REAL *above = after->above + (row + i) * after->above_row + column + j * LANES;                    \
            VECTOR before = sums[i][j], gate = sums[i][j];                                                           \
            if (after->add) before = *(const VECTOR *)place;                                                         \
            if (after->above) gate = *(const VECTOR *)above;                                                         \
            *(VECTOR *)place = finished(sums[i][j], after, before, gate);                                            \
        }                                                                                                            \
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

#define ROWS_OF(ROWS, COLUMNS)                                                            \
    for (; i + ROWS <= rows; i += ROWS)                                                   \
        tile_##ROWS##_##COLUMNS(left + i * left_row, left_row, left_column, b, b_row, of, \
                                       out + i * out_row + j, out_row, &after, i, j);

/* Columns that fill vectors: those of a transposed matrix are gathered first. */
#define PANELS_OF(COLUMNS, TILES)                                                           \
    for (; j + COLUMNS * LANES <= columns; j += COLUMNS * LANES) {                          \
        const REAL *b = right + j * right_column;                                           \
        int64_t i = 0, b_row = right_row;                                                   \
        if (right_column != 1) {                                                            \
            transposed(b, COLUMNS * LANES, of.inner, right_column, panel, COLUMNS * LANES); \
            b = panel;                                                                      \
            b_row = COLUMNS * LANES;                                                        \
        }                                                                                   \
        TILES                                                                               \
    }

/* [rows x columns] from contiguous rows, `row` apart, to [columns x rows], `to_row` apart; `rows` fill vectors. */
static void transposed(const REAL *from, int64_t rows, int64_t columns, int64_t row, REAL *to, int64_t to_row)
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
            UNROLLED for (int a = 0; a < LANES; a++) *(VECTOR *)(to + (j + a) * to_row + i) = r[a];
        }
#endif
    for (; j < columns; j++)
        for (int64_t i = 0; i < rows; i++) to[j * to_row + i] = from[i * row + j];
}

/* The columns that fill no vector, as if zeros followed. */
static void rest_of_columns(
    const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row,
    int64_t right_column, int64_t rows, int64_t columns, int64_t inner, REAL *out, int64_t out_row,
    const AFTER *after, int64_t column, REAL *panel)
{
    for (int64_t k = 0; k < inner; k++) {
        /* What stands in a row behind these columns is not used, but has to exist. */
        if (right_column == 1 && (inner - 1 - k) * right_row + columns >= LANES)
            *(VECTOR *)(panel + k * LANES) = *(const VECTOR *)(right + k * right_row);
        else
            for (int j = 0; j < LANES; j++)
                panel[k * LANES + j] = j < columns ? right[k * right_row + j * right_column] : 0;
    }
    for (int64_t i = 0; i < rows;) {
        VECTOR sums[8][1];
        int count = i + 8 <= rows ? 8 : 1;
        SEGMENTS of = {inner, 1, 0, 0};
        if (count == 8) block_8_1(left + i * left_row, left_row, left_column, panel, LANES, of, sums);
        else block_1_1(left + i * left_row, left_row, left_column, panel, LANES, of, sums);
        for (int r = 0; r < count; r++) {
            VECTOR before = {0}, gate = {0}, z;
            const REAL *above = after->above + (i + r) * after->above_row + column;
            REAL *place = out + (i + r) * out_row;
            if (after->add) before = part(place, 0, columns);
            if (after->above) gate = part(above, 0, columns);
            z = finished(sums[r][0], after, before, gate);
            put(place, 0, columns, z);
        }
        i += count;
    }
}

/* A single column would fill one lane: the sums of `count` rows run along `inner`, whose numbers are contiguous, ... */
INLINED void along(
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
INLINED void beside(
    const REAL *left, int64_t left_column, const REAL *right, int64_t inner, int count, REAL *totals)
{
    VECTOR sums[4];
    UNROLLED for (int r = 0; r < count; r++) sums[r] = (VECTOR){0};
    for (int64_t k = 0; k < inner; k++)
        UNROLLED for (int r = 0; r < count; r++)
            sums[r] += *(const VECTOR *)(left + r * LANES + k * left_column) * right[k];
    UNROLLED for (int r = 0; r < count; r++) *(VECTOR *)(totals + r * LANES) = sums[r];
}

static void one_column(
    const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t rows, int64_t inner,
    REAL *out, int64_t out_row, const AFTER *after)
{
    int step;
    for (int64_t i = 0; i < rows; i += step) {
        REAL totals[4 * LANES];
        if (left_column == 1) {
            step = i + 4 <= rows ? 4 : 1;
            if (step == 4) along(left + i * left_row, left_row, right, inner, 4, totals);
            else along(left + i * left_row, left_row, right, inner, 1, totals);
        } else if (i + LANES <= rows) {
            step = i + 4 * LANES <= rows ? 4 * LANES : LANES;
            if (step > LANES) beside(left + i, left_column, right, inner, 4, totals);
            else beside(left + i, left_column, right, inner, 1, totals);
        } else {
            step = 1;
            totals[0] = 0;
            for (int64_t k = 0; k < inner; k++) totals[0] += left[i + k * left_column] * right[k];
        }
        for (int r = 0; r < step; r++) {
            REAL *place = out + (i + r) * out_row;
            *place = finished_one(totals[r], after, *place, i + r, 0);
        }
    }
}

/* The rows or the columns of `right` are contiguous; its rows, if there are more segments. */
static void multiply_segments(
    const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row, int64_t right_column,
    int64_t rows, int64_t columns, SEGMENTS of, REAL *out, int64_t out_row, const AFTER *what, REAL *panel)
{
    const AFTER after = *what;
    int64_t j = 0, inner = of.inner;
    if (of.count > 1 && columns % LANES) {
        AFTER part = after;
        for (int64_t s = 0; s < of.count; s++, left += of.left, right += of.right) {
            part.add = after.add || s;
            part.rectify = after.rectify && s == of.count - 1;
            multiply_segments(left, left_row, left_column, right, right_row, right_column, rows, columns,
                                     (SEGMENTS){inner, 1, 0, 0}, out, out_row, &part, panel);
        }
        return;
    }
    if (columns == 1 && (left_column == 1 || left_row == 1)) {
        for (int64_t k = 0; k < inner; k++) panel[k] = right[k * right_row];
        one_column(left, left_row, left_column, panel, rows, inner, out, out_row, &after);
        return;
    }
#if VECTOR_BYTES == 64
    if (rows % 8 || rows >= 64) /* as of a line of pixels: fewer of them would read `right` more often */
        PANELS_OF(4, ROWS_OF(6, 4) ROWS_OF(4, 4) ROWS_OF(1, 4))
    PANELS_OF(2, ROWS_OF(8, 2) ROWS_OF(1, 2))
#else
    PANELS_OF(2, ROWS_OF(6, 2) ROWS_OF(4, 2) ROWS_OF(1, 2))
#endif
    PANELS_OF(1, ROWS_OF(8, 1) ROWS_OF(1, 1))
    if (j < columns)
        rest_of_columns(left, left_row, left_column, right + j * right_column, right_row, right_column, rows,
                         columns - j, inner, out + j, out_row, &after, j, panel);
}

static void multiply(
    const REAL *left, int64_t left_row, int64_t left_column, const REAL *right, int64_t right_row, int64_t right_column,
    int64_t rows, int64_t columns, int64_t inner, REAL *out, int64_t out_row, const AFTER *after, REAL *panel)
{
    multiply_segments(left, left_row, left_column, right, right_row, right_column, rows, columns,
                             (SEGMENTS){inner, 1, 0, 0}, out, out_row, after, panel);
}

static AFTER after_of(const OPERATION *does, const NOW *now)
{
    int64_t cell = now->cell;
    int add = does->add || (does->sums && now->block);
    AFTER after = {(REAL)does->factor, 0, does->above_row, add, does->rectify != 0, does->times != 0};
    if (does->each) after.scale *= does->each[cell * does->each_cell];
    if (does->also) after.scale *= does->also[cell * does->also_cell];
    if (does->now >= 0) after.scale *= (REAL)now->row[does->now];
    if (does->above) after.above = does->above + cell * does->above_cell;
    return after;
}

static void product(const OPERATION *does, const NOW *now)
{
    int64_t cell = now->cell;
    const AFTER after = after_of(does, now);
    multiply(
        does->left + cell * does->left_cell, does->left_row, does->left_column, does->right + cell * does->right_cell,
        does->right_row, does->right_column, does->rows, does->columns, does->inner, does->out + cell * does->out_cell,
        does->out_row, &after, now->panel);
}
