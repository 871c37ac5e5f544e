/* Batches and losses, sample by sample. */

static void transpose(const OPERATION *does, int64_t cell)
{
    const REAL *from = does->left + cell * does->left_cell;
    REAL *to = does->out + cell * does->out_cell;
    int64_t whole = does->columns / LANES * LANES;
    transposed(from, whole, does->rows, does->left_row, to, does->out_row);
    for (int64_t i = 0; i < does->rows; i++)
        for (int64_t j = whole; j < does->columns; j++) to[i * does->out_row + j] = from[j * does->left_row + i];
}

static void pick(const OPERATION *does, const NOW *now)
{
    int64_t cell = now->cell, first = now->place * does->rows;
    const int64_t *places = does->places + now->step * does->places_step + cell * does->places_cell + first;
    for (int64_t i = 0; i < does->rows; i++) {
        const REAL *from = does->left + cell * does->left_cell + places[i] * does->left_row;
        memcpy(does->out + cell * does->out_cell + i * does->out_row, from, does->columns * sizeof(REAL));
    }
}

static void one_hot(const OPERATION *does, int64_t cell)
{
    for (int64_t i = 0; i < does->rows; i++) {
        const REAL *symbols = does->left + cell * does->left_cell + i / does->positions * does->left_row;
        REAL *out = does->out + cell * does->out_cell + i * does->out_row;
        memset(out, 0, does->columns * sizeof(REAL));
        out[(int64_t)symbols[i % does->positions]] = 1;
    }
}

/* The loss of a row, and its gradient with respect to f. */
static double squared(const REAL *f, const REAL *y, int64_t columns, REAL *gradient)
{
    double sum = 0;
    for (int64_t j = 0; j < columns; j++) {
        gradient[j] = f[j] - y[j];
        sum += (double)gradient[j] * gradient[j];
    }
    return sum / 2;
}

static double entropy(const REAL *f, const REAL *y, int64_t columns, REAL *gradient)
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
    for (int64_t j = 0; j < columns; j += LANES) put(gradient, j, columns, exponential(part(f, j, columns) - most));
    for (int64_t j = 0; j < columns; j++) sum += gradient[j];
    for (int64_t j = 0; j < columns; j++) gradient[j] = gradient[j] / sum - (j == class);
    return log(sum) + (most - f[class]);
}

static void loss(const OPERATION *does, const NOW *now)
{
    int64_t columns = does->columns, cell = now->cell;
    REAL scale = does->each[cell * does->each_cell], samples = (REAL)does->inner, *f = now->panel;
    REAL *total = does->total + now->step * does->total_step + cell * does->total_cell;
    double sum = 0;
    for (int64_t i = 0; i < does->rows; i++) {
        const REAL *raw = does->left + cell * does->left_cell + i * does->left_row;
        const REAL *offset = does->right + cell * does->right_cell + i * does->right_row;
        const REAL *y = does->above + cell * does->above_cell + i * does->above_row;
        REAL *out = does->out + cell * does->out_cell + i * does->out_row;
        for (int64_t j = 0; j < columns; j++) f[j] = (does->right ? raw[j] - offset[j] : raw[j]) / scale;
        sum += does->kind == SQUARED ? squared(f, y, columns, out) : entropy(f, y, columns, out);
        for (int64_t j = 0; j < columns; j++) out[j] = out[j] / samples / scale;
    }
    *total = (REAL)((now->block ? *total : 0) + sum / samples);
}
