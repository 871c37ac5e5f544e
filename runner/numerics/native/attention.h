/* Norms and attention, forward and back. */

/* The sum of `count` terms, in the order of the lanes; `of` is a vector or a number, by what `AT` reads. */
#define AT(from) (*(const TYPE *)((from) + i))
#define TOTAL(sum, of)                                                                  \
    do {                                                                                \
        VECTOR sums = {0};                                                              \
        int64_t i = 0;                                                                  \
        for (; i + LANES <= columns; i += LANES) { typedef VECTOR TYPE; sums += (of); } \
        sum = sum_of(sums);                                                             \
        for (; i < columns; i++) { typedef REAL TYPE; sum += (of); }                    \
    } while (0)
#define WRITE(to, of)                                                                                 \
    do {                                                                                              \
        int64_t i = 0;                                                                                \
        for (; i + LANES <= columns; i += LANES) { typedef VECTOR TYPE; *(TYPE *)((to) + i) = (of); } \
        for (; i < columns; i++) { typedef REAL TYPE; *(TYPE *)((to) + i) = (of); }                   \
    } while (0)

static void norm(const OPERATION *does, int64_t cell)
{
    const REAL *gain = does->right + cell * does->right_cell;
    REAL scale = does->each ? does->each[cell * does->each_cell] : 1, *roots = does->more + cell * does->more_cell;
    int64_t columns = does->columns;
    for (int64_t row = 0; row < does->rows; row++) {
        const REAL *x = does->left + cell * does->left_cell + row * does->left_row;
        REAL *out = does->out + cell * does->out_cell + row * does->out_row, mean, square, root;
        REAL *kept = does->kept + cell * does->kept_cell + row * does->kept_row;
        TOTAL(mean, AT(x));
        mean /= columns;
        TOTAL(square, (AT(x) - mean) * (AT(x) - mean));
        root = roots[row] = 1 / sqrt(square / columns + (REAL)does->factor);
        WRITE(kept, (AT(x) - mean) * root);
        WRITE(out, AT(kept) * AT(gain) * scale);
    }
}

static void norm_back(const OPERATION *does, const NOW *now)
{
    int64_t columns = does->columns, cell = now->cell;
    const REAL *gain = does->right + cell * does->right_cell, *roots = does->more + cell * does->more_cell;
    REAL scale = does->each ? does->each[cell * does->each_cell] : 1, *of_gain = does->kept + cell * does->kept_cell;
    if (!(does->sums && now->block)) memset(of_gain, 0, columns * sizeof(REAL));
    for (int64_t row = 0; row < does->rows; row++) {
        const REAL *above = does->left + cell * does->left_cell + row * does->left_row;
        const REAL *kept = does->above + cell * does->above_cell + row * does->above_row;
        REAL *out = does->out + cell * does->out_cell + row * does->out_row, mean, along;
        REAL root = roots[row] * scale, keep = (REAL)does->keep;
        TOTAL(mean, AT(above) * AT(gain));
        TOTAL(along, AT(above) * AT(gain) * AT(kept));
        mean /= columns;
        along /= columns;
        if (keep == 0) WRITE(out, (AT(above) * AT(gain) - mean - AT(kept) * along) * root);
        else WRITE(out, AT(out) * keep + (AT(above) * AT(gain) - mean - AT(kept) * along) * root);
        WRITE(of_gain, AT(of_gain) + AT(above) * AT(kept) * scale);
    }
}

/* The softmax of every column of a square in place; if `causal`, of what is above the diagonal and on it. Columns run
   beside each other in vectors, so that nothing is summed within one. */
static void softmax(REAL *square, int64_t count, int causal)
{
    for (int64_t j = 0; j < count; j += LANES) {
        VECTOR most = part(square, j, count), sum = {0};
        MASK place = {0};
        for (int lane = 0; lane < LANES; lane++) place[lane] = (WHOLE)(j + lane);
        for (int64_t i = 1; i < count; i++) {
            VECTOR x = part(square + i * count, j, count);
            MASK more = (x > most) | (x != x);
            if (causal) more &= place >= (WHOLE)i;
            most = WHERE(more, x, most);
        }
        for (int64_t i = 0; i < count; i++) {
            VECTOR x = exponential(part(square + i * count, j, count) - most);
            if (causal) x = (VECTOR)((MASK)x & (place >= (WHOLE)i));
            sum += x;
            put(square + i * count, j, count, x);
        }
        sum = 1 / sum;
        for (int64_t i = 0; i < count; i++)
            put(square + i * count, j, count, part(square + i * count, j, count) * sum);
    }
}

/* The derivative of that: given softmax w and the gradient g with respect to it, w (g - sum of w g in the column). */
static void softmax_back(const REAL *square, REAL *slopes, int64_t count)
{
    for (int64_t j = 0; j < count; j += LANES) {
        VECTOR sum = {0};
        for (int64_t i = 0; i < count; i++)
            sum += part(square + i * count, j, count) * part(slopes + i * count, j, count);
        for (int64_t i = 0; i < count; i++) {
            VECTOR g = part(slopes + i * count, j, count) - sum;
            put(slopes + i * count, j, count, part(square + i * count, j, count) * g);
        }
    }
}

static void attend(const OPERATION *does, const NOW *now)
{
    int64_t cell = now->cell, size = does->inner, count = does->positions, row = does->left_row;
    int64_t heads = does->columns / size;
    AFTER plain = {1}, scaled = {(REAL)does->factor};
    if (does->each) scaled.scale *= does->each[cell * does->each_cell];
    for (int64_t place = 0; place < does->rows / count * heads; place++) {
        int64_t first = place / heads * count, head = place % heads * size;
        const REAL *queries = does->left + cell * does->left_cell + first * row + head;
        const REAL *keys = queries + does->columns, *values = keys + does->columns;
        REAL *weights = does->kept + cell * does->kept_cell + place * count * count;
        multiply(keys, row, 1, queries, 1, row, count, count, size, weights, count, &scaled, now->panel);
        softmax(weights, count, does->causal != 0);
        multiply(weights, 1, count, values, row, 1, count, size, count,
                        does->out + cell * does->out_cell + first * does->out_row + head, does->out_row, &plain,
                        now->panel);
    }
}

static void attend_back(const OPERATION *does, const NOW *now)
{
    int64_t cell = now->cell, size = does->inner, count = does->positions, row = does->left_row;
    int64_t width = does->columns / 3, heads = width / size, to_row = does->out_row;
    AFTER plain = {1}, scaled = {(REAL)does->factor};
    REAL *slopes = does->more + cell * does->more_cell;
    if (does->each) scaled.scale *= does->each[cell * does->each_cell];
    for (int64_t place = 0; place < does->rows / count * heads; place++) {
        int64_t first = place / heads * count, head = place % heads * size, given_row = does->right_row;
        const REAL *queries = does->left + cell * does->left_cell + first * row + head;
        const REAL *keys = queries + width, *values = keys + width;
        const REAL *weights = does->above + cell * does->above_cell + place * count * count;
        const REAL *given = does->right + cell * does->right_cell + first * given_row + head;
        REAL *of_queries = does->out + cell * does->out_cell + first * to_row + head;
        REAL *of_keys = of_queries + width, *of_values = of_keys + width, *panel = now->panel;
        multiply(weights, count, 1, given, given_row, 1, count, size, count, of_values, to_row, &plain, panel);
        multiply(values, row, 1, given, 1, given_row, count, count, size, slopes, count, &plain, panel);
        softmax_back(weights, slopes, count);
        multiply(slopes, 1, count, keys, row, 1, count, size, count, of_queries, to_row, &scaled, panel);
        multiply(slopes, count, 1, queries, row, 1, count, size, count, of_keys, to_row, &scaled, panel);
    }
}
