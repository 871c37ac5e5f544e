/* Convolutions. Images have channels in rows and a margin of zeros, which is never written. */

/* Where the images of an operation lie. */
typedef struct {
    int64_t margin, wide, high, across, down;
} FRAME;

static FRAME frame_of(const OPERATION *does)
{
    int64_t margin = does->side / 2;
    return (FRAME){
        margin, does->breadth + 2 * margin, does->height + 2 * margin, does->breadth / 2, does->height / 2
    };
}

/* Minimal filtering, F(2 x 2, 3 x 3) of Winograd (Lavin & Gray, arXiv 1509.09308, section 4.1): 2 x 2 pixels need 16
   products of channels where patches take 36. Y = A^T [(G g G^T) (B^T d B)] A, of tiles d of 4 x 4 pixels. The gradient
   of the kernels is that of this formula, G^T [(B^T d B) (A Y' A^T)] G. */
#define POINTS 16
#define TILES 64 /* that are multiplied at once: with those of 64 channels they stay in the second cache */
/* From one of 16 matrices to the next: a vector more, or their rows would fall into the same set of the first cache. */
#define APART(rows, columns) ((rows) * (columns) + LANES)

/* x, of 4 numbers, becomes B^T x. */
INLINED void spread_one(VECTOR *x, int step)
{
    VECTOR a = x[0], b = x[step], c = x[2 * step], d = x[3 * step];
    x[0] = a - c;
    x[step] = b + c;
    x[2 * step] = c - b;
    x[3 * step] = b - d;
}

/* B^T d B of the tile whose first pixel is at `from`, to the same row of 16 matrices. */
INLINED void spread_vector(const REAL *from, int64_t line, int64_t row, int64_t some, REAL *to, int64_t matrix)
{
    VECTOR d[POINTS];
    UNROLLED for (int i = 0; i < POINTS; i++) d[i] = part(from + (i / 4) * line + (i % 4) * row, 0, some);
    UNROLLED for (int i = 0; i < 4; i++) spread_one(d + i, 4);
    UNROLLED for (int i = 0; i < 4; i++) spread_one(d + 4 * i, 1);
    UNROLLED for (int i = 0; i < POINTS; i++) put(to + i * matrix, 0, some, d[i]);
}

static void spread(const REAL *from, int64_t line, int64_t row, int64_t channels, REAL *to, int64_t matrix)
{
    int64_t j = 0;
    for (; j + LANES <= channels; j += LANES) spread_vector(from + j, line, row, LANES, to + j, matrix);
    if (j < channels) spread_vector(from + j, line, row, channels - j, to + j, matrix);
}

/* G g G^T of every kernel, rows [side * side * channels], to 16 matrices [channels x columns]. */
static void spread_kernels(const REAL *kernels, int64_t row, int64_t channels, int64_t columns, REAL *to)
{
    int64_t matrix = APART(channels, columns);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t j = 0; j < columns; j += LANES) {
            VECTOR g[9], h[4][3];
            UNROLLED for (int i = 0; i < 9; i++) g[i] = part(kernels + (i * channels + c) * row, j, columns);
            UNROLLED for (int i = 0; i < 3; i++) {
                VECTOR ends = (g[i] + g[6 + i]) / 2, middle = g[3 + i] / 2;
                h[0][i] = g[i];
                h[1][i] = ends + middle;
                h[2][i] = ends - middle;
                h[3][i] = g[6 + i];
            }
            UNROLLED for (int i = 0; i < 4; i++) {
                VECTOR ends = (h[i][0] + h[i][2]) / 2, middle = h[i][1] / 2;
                VECTOR u[4] = {h[i][0], ends + middle, ends - middle, h[i][2]};
                UNROLLED for (int k = 0; k < 4; k++) put(to + (4 * i + k) * matrix + c * columns, j, columns, u[k]);
            }
        }
}

/* G^T u G of 16 matrices, to the gradient of the kernels. */
static void gather_kernels(
    const REAL *from, int64_t channels, int64_t columns, REAL *out, int64_t row, const AFTER *after)
{
    int64_t matrix = APART(channels, columns);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t j = 0; j < columns; j += LANES) {
            VECTOR u[4][4], h[3][4];
            UNROLLED for (int i = 0; i < POINTS; i++)
                u[i / 4][i % 4] = part(from + i * matrix + c * columns, j, columns);
            UNROLLED for (int i = 0; i < 4; i++) {
                VECTOR both = (u[1][i] + u[2][i]) / 2;
                h[0][i] = u[0][i] + both;
                h[1][i] = (u[1][i] - u[2][i]) / 2;
                h[2][i] = both + u[3][i];
            }
            UNROLLED for (int i = 0; i < 3; i++) {
                VECTOR both = (h[i][1] + h[i][2]) / 2;
                VECTOR g[3] = {h[i][0] + both, (h[i][1] - h[i][2]) / 2, both + h[i][3]};
                UNROLLED for (int k = 0; k < 3; k++) {
                    REAL *place = out + ((3 * i + k) * channels + c) * row;
                    VECTOR before = g[k];
                    if (after->add) before = part(place, j, columns);
                    put(place, j, columns, finished(g[k], after, before, before));
                }
            }
        }
}

/* A^T m A of a tile, to 2 x 2 pixels, the first of which is at `place`. */
INLINED void gather_vector(
    const REAL *from, int64_t matrix, int64_t some, REAL *out, int64_t row, const REAL *above, int64_t line,
    const AFTER *after)
{
    VECTOR m[4][4], h[2][4];
    UNROLLED for (int i = 0; i < POINTS; i++) m[i / 4][i % 4] = part(from + i * matrix, 0, some);
    UNROLLED for (int i = 0; i < 4; i++) {
        h[0][i] = m[0][i] + m[1][i] + m[2][i];
        h[1][i] = m[1][i] - m[2][i] - m[3][i];
    }
    UNROLLED for (int i = 0; i < 4; i++) {
        const VECTOR *r = h[i / 2];
        VECTOR y = i % 2 ? r[1] - r[2] - r[3] : r[0] + r[1] + r[2], before = y, gate = y;
        int64_t pixel = (i / 2) * line + i % 2;
        if (after->add) before = part(out + pixel * row, 0, some);
        if (after->above) gate = part(above + pixel * after->above_row, 0, some);
        put(out + pixel * row, 0, some, finished(y, after, before, gate));
    }
}

static void gather(
    const REAL *from, int64_t matrix, int64_t columns, REAL *out, int64_t row, int64_t place, int64_t line,
    const AFTER *after)
{
    const REAL *above = after->above ? after->above + place * after->above_row : 0;
    out += place * row;
    for (int64_t j = 0; j < columns; j += LANES) {
        const REAL *gates = above ? above + j : 0;
        if (j + LANES <= columns) gather_vector(from + j, matrix, LANES, out + j, row, gates, line, after);
        else gather_vector(from + j, matrix, columns - j, out + j, row, gates, line, after);
    }
}

/* A y A^T of 2 x 2 pixels, to the same row of 16 matrices. */
INLINED void spread_pixels_vector(
    const REAL *from, int64_t line, int64_t row, int64_t some, REAL *to, int64_t matrix)
{
    VECTOR h[4][2];
    UNROLLED for (int i = 0; i < 2; i++) {
        VECTOR a = part(from + i * row, 0, some), b = part(from + line + i * row, 0, some);
        h[0][i] = a;
        h[1][i] = a + b;
        h[2][i] = a - b;
        h[3][i] = -b;
    }
    UNROLLED for (int i = 0; i < 4; i++) {
        VECTOR z[4] = {h[i][0], h[i][0] + h[i][1], h[i][0] - h[i][1], -h[i][1]};
        UNROLLED for (int k = 0; k < 4; k++) put(to + (4 * i + k) * matrix, 0, some, z[k]);
    }
}

static void spread_pixels(const REAL *from, int64_t line, int64_t row, int64_t columns, REAL *to, int64_t matrix)
{
    int64_t j = 0;
    for (; j + LANES <= columns; j += LANES) spread_pixels_vector(from + j, line, row, LANES, to + j, matrix);
    if (j < columns) spread_pixels_vector(from + j, line, row, columns - j, to + j, matrix);
}

/* The first pixel of a tile, its margin included, in rows. */
static int64_t corner(const FRAME *frame, int64_t tile)
{
    int64_t across = tile % frame->across, line = tile / frame->across;
    int64_t down = line % frame->down, sample = line / frame->down;
    return (sample * frame->high + 2 * down) * frame->wide + 2 * across;
}

/* Rooms behind that of products: 16 matrices of kernels, of tiles and of what these become. */
typedef struct {
    REAL *kernels, *tiles, *pixels;
} ROOMS;

static ROOMS rooms_of(const NOW *now, int64_t channels, int64_t columns)
{
    int64_t summed = channels > TILES ? channels : TILES;
    REAL *kernels = now->panel + 4 * LANES * summed, *tiles = kernels + POINTS * APART(channels, columns);
    return (ROOMS){kernels, tiles, tiles + POINTS * APART(TILES, channels)};
}

static const AFTER PLAIN = {1, 0, 0, 0, 0, 0};

static void convolve_tiles(const OPERATION *does, const NOW *now, const AFTER *after)
{
    FRAME frame = frame_of(does);
    int64_t channels = does->inner, columns = does->columns, cell = now->cell, row = does->left_row;
    int64_t all = does->rows / (frame.high * frame.wide) * frame.across * frame.down;
    ROOMS room = rooms_of(now, channels, columns);
    const REAL *images = does->left + cell * does->left_cell;
    REAL *out = does->out + cell * does->out_cell;
    spread_kernels(does->right + cell * does->right_cell, does->right_row, channels, columns, room.kernels);
    for (int64_t first = 0; first < all; first += TILES) {
        int64_t count = all - first < TILES ? all - first : TILES, wide = frame.wide;
        int64_t tiles = APART(TILES, channels), pixels = APART(TILES, columns);
        for (int64_t t = 0; t < count; t++)
            spread(images + corner(&frame, first + t) * row, wide * row, row, channels, room.tiles + t * channels,
                   tiles);
        for (int i = 0; i < POINTS; i++)
            multiply(room.tiles + i * tiles, channels, 1, room.kernels + i * APART(channels, columns), columns, 1,
                     count, columns, channels, room.pixels + i * pixels, columns, &PLAIN, now->panel);
        for (int64_t t = 0; t < count; t++)
            gather(room.pixels + t * columns, pixels, columns, out, does->out_row,
                   corner(&frame, first + t) + wide + 1, wide, after);
    }
}

static void convolve_tiles_back(const OPERATION *does, const NOW *now, const AFTER *after)
{
    FRAME frame = frame_of(does);
    int64_t row = does->left_row, given_row = does->right_row, channels = row, columns = does->columns;
    int64_t cell = now->cell, wide = frame.wide;
    int64_t all = does->inner / (frame.high * wide) * frame.across * frame.down;
    ROOMS room = rooms_of(now, channels, columns);
    const REAL *images = does->left + cell * does->left_cell, *given = does->right + cell * does->right_cell;
    AFTER sum = PLAIN;
    for (int64_t first = 0; first < all; first += TILES, sum.add = 1) {
        int64_t count = all - first < TILES ? all - first : TILES;
        int64_t tiles = APART(TILES, channels), pixels = APART(TILES, columns);
        for (int64_t t = 0; t < count; t++) {
            int64_t at = corner(&frame, first + t);
            spread(images + at * row, wide * row, row, channels, room.tiles + t * channels, tiles);
            spread_pixels(given + (at + wide + 1) * given_row, wide * given_row, given_row, columns,
                          room.pixels + t * columns, pixels);
        }
        for (int i = 0; i < POINTS; i++)
            multiply(room.tiles + i * tiles, 1, channels, room.pixels + i * pixels, columns, 1, channels, columns,
                     count, room.kernels + i * APART(channels, columns), columns, &sum, now->panel);
    }
    gather_kernels(room.kernels, channels, columns, does->out + cell * does->out_cell, does->out_row, after);
}

/* Images before and after a pool, with margins of `inner`; what is left over at the edges is dropped. */
typedef struct {
    int64_t margin, wide, high, narrow, low, small_wide, small_high;
} POOLED;

static POOLED pooled_of(const OPERATION *does)
{
    int64_t margin = does->inner, narrow = does->breadth / does->side, low = does->height / does->side;
    return (POOLED){margin, does->breadth + 2 * margin, does->height + 2 * margin, narrow, low, narrow + 2 * margin,
                    low + 2 * margin};
}

/* Sums over squares of `side` pixels. */
static void pool(const OPERATION *does, const NOW *now)
{
    const POOLED of = pooled_of(does);
    int64_t side = does->side, cell = now->cell, columns = does->columns;
    const REAL *images = does->left + cell * does->left_cell;
    REAL *out = does->out + cell * does->out_cell;
    for (int64_t line = 0; line < does->rows / (of.small_high * of.small_wide) * of.low; line++)
        for (int64_t x = 0; x < of.narrow; x++) {
            int64_t sample = line / of.low, y = line % of.low;
            int64_t place = (sample * of.high + of.margin + y * side) * of.wide + of.margin + x * side;
            const REAL *from = images + place * does->left_row;
            int64_t to_place = (sample * of.small_high + of.margin + y) * of.small_wide + of.margin + x;
            REAL *to = out + to_place * does->out_row;
            for (int64_t j = 0; j < columns; j += LANES) {
                VECTOR sum = {0};
                for (int64_t a = 0; a < side; a++)
                    for (int64_t b = 0; b < side; b++) sum += part(from + (a * of.wide + b) * does->left_row, j, columns);
                put(to, j, columns, sum * (REAL)does->factor);
            }
        }
}

/* The gradient with respect to what POOL read, given that with respect to what it wrote as `left`. */
static void pool_back(const OPERATION *does, const NOW *now)
{
    const POOLED of = pooled_of(does);
    int64_t side = does->side, cell = now->cell, columns = does->columns;
    const REAL *given = does->left + cell * does->left_cell;
    REAL *out = does->out + cell * does->out_cell;
    const AFTER after = after_of(does, now);
    for (int64_t line = 0; line < does->rows / (of.high * of.wide) * does->height; line++)
        for (int64_t x = 0; x < does->breadth; x++) {
            int64_t sample = line / does->height, y = line % does->height;
            int64_t pixel = (sample * of.high + of.margin + y) * of.wide + of.margin + x;
            int64_t place = (sample * of.small_high + of.margin + y / side) * of.small_wide + of.margin + x / side;
            const REAL *from = given + place * does->left_row;
            const int inside = y / side < of.low && x / side < of.narrow;
            REAL *to = out + pixel * does->out_row;
            for (int64_t j = 0; j < columns; j += LANES) {
                VECTOR z = {0}, before = {0}, gate = {0};
                if (inside) z = part(from, j, columns);
                if (after.add) before = part(to, j, columns);
                if (after.above) gate = part(after.above + pixel * after.above_row, j, columns);
                put(to, j, columns, finished(z, &after, before, gate));
            }
        }
}

/* A patch is `side` rows of the image, in each of which its numbers are contiguous: the products need no copy of it. */
static void convolve(const OPERATION *does, const NOW *now)
{
    FRAME frame = frame_of(does);
    int64_t side = does->side, wide = frame.wide, channels = does->inner, cell = now->cell;
    const REAL *images = does->left + cell * does->left_cell, *kernels = does->right + cell * does->right_cell;
    REAL *out = does->out + cell * does->out_cell;
    AFTER after = after_of(does, now);
    const REAL *above = after.above;
    SEGMENTS of = {side * channels, side, wide * does->left_row, side * channels * does->right_row};
    if (does->tiled) {
        convolve_tiles(does, now, &after);
        return;
    }
    for (int64_t sample = 0; sample < does->rows / (frame.high * wide); sample++)
        for (int64_t y = 0; y < does->height; y++) {
            int64_t from = (sample * frame.high + y) * wide, to = from + frame.margin * wide + frame.margin;
            if (above) after.above = above + to * does->above_row;
            multiply_segments(
                images + from * does->left_row, does->left_row, 1, kernels, does->right_row, 1, does->breadth,
                does->columns, of, out + to * does->out_row, does->out_row, &after, now->panel);
        }
}

/* The gradient with respect to the kernels, given images and the gradient with respect to what was written. */
static void convolve_back(const OPERATION *does, const NOW *now)
{
    FRAME frame = frame_of(does);
    int64_t side = does->side, wide = frame.wide, margin = frame.margin;
    int64_t rows = side * does->left_row, cell = now->cell, samples = does->inner / (frame.high * wide);
    const REAL *images = does->left + cell * does->left_cell, *given = does->right + cell * does->right_cell;
    REAL *out = does->out + cell * does->out_cell;
    AFTER after = after_of(does, now);
    SEGMENTS of = {does->breadth, does->height, wide * does->left_row, wide * does->right_row};
    if (does->tiled) {
        convolve_tiles_back(does, now, &after);
        return;
    }
    for (int64_t sample = 0; sample < samples; sample++, after.add = 1)
        for (int64_t y = 0; y < side; y++)
            multiply_segments(
                images + (sample * frame.high + y) * wide * does->left_row, 1, does->left_row,
                given + ((sample * frame.high + margin) * wide + margin) * does->right_row, does->right_row, 1, rows,
                does->columns, of, out + y * rows * does->out_row, does->out_row, &after, now->panel);
}
