/* What is done number by number. */

/* What is not kept is not read: it may be NaN of another cell. */
#define EACH(of) _Pragma("GCC ivdep") for (int64_t i = 0; i < count; i++) out[i] = (of)
#define EVERY(term) do { if (keep == 0) EACH(scale * (term)); else EACH(keep * out[i] + scale * (term)); } while (0)

VECTORIZED static void blend_row(
    const OPERATION *does, REAL *out, const REAL *left, const REAL *right, REAL scale, REAL eps, int64_t count)
{
    REAL keep = (REAL)does->keep;
    switch (does->kind) {
    case ITSELF: EVERY(left[i]); break;
    case SQUARE: EVERY(left[i] * left[i]); break;
    case SIGN: EVERY((left[i] > 0) - (left[i] < 0)); break;
    case RATIO: EVERY(left[i] / (sqrt(right[i]) + eps)); break;
    case TIMES: EVERY(left[i] * right[i]); break;
    default: EVERY(right[i] <= 0 ? 0 : left[i]);
    }
}

static void blend(const OPERATION *does, const NOW *now)
{
    int64_t cell = now->cell, rows = does->rows, columns = does->columns;
    REAL scale = (REAL)does->factor, eps = 0;
    if (does->each) scale *= does->each[cell * does->each_cell];
    if (does->now >= 0) scale *= (REAL)now->row[does->now];
    if (does->also) eps = does->also[cell * does->also_cell];
    if (does->then >= 0) eps *= (REAL)now->row[does->then];
    for (int64_t i = 0; i < rows; i++)
        blend_row(
            does, does->out + cell * does->out_cell + i * does->out_row,
            does->left + cell * does->left_cell + i * does->left_row,
            does->right + cell * does->right_cell + i * does->right_row, scale, eps, columns);
}
