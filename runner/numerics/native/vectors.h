/* Vectors, whole and in part. */

#define LOAD(from) (*(const VECTOR *)(from))
#define SIGN_BIT ((WHOLE)1 << (8 * sizeof(REAL) - 1))
#define SIZE(x) ((VECTOR)((MASK)(x) & ~SIGN_BIT))
#define WITH_SIGN_OF(x, y) ((VECTOR)((MASK)(x) | ((MASK)(y) & SIGN_BIT)))
#define WHERE(so, x, y) ((VECTOR)(((MASK)(x) & (MASK)(so)) | ((MASK)(y) & ~(MASK)(so))))

/* Numbers of a row of `columns` from place j on, as a vector; half ones are common, and no call. */
INLINED VECTOR part(const REAL *row, int64_t j, int64_t columns)
{
    VECTOR x = {0};
    if (j + LANES <= columns) return LOAD(row + j);
    if (j + LANES / 2 == columns) memcpy(&x, row + j, VECTOR_BYTES / 2);
    else memcpy(&x, row + j, (columns - j) * sizeof(REAL));
    return x;
}

INLINED void put(REAL *row, int64_t j, int64_t columns, VECTOR x)
{
    if (j + LANES <= columns) *(VECTOR *)(row + j) = x;
    else if (j + LANES / 2 == columns) memcpy(row + j, &x, VECTOR_BYTES / 2);
    else memcpy(row + j, &x, (columns - j) * sizeof(REAL));
}

INLINED REAL sum_of(VECTOR x)
{
    REAL sum = 0;
#if !defined(__clang__)
    UNROLLED for (int h = LANES / 2; h; h /= 2) {
        MASK other;
        for (int lane = 0; lane < LANES; lane++) other[lane] = lane ^ h;
        x += __builtin_shuffle(x, other);
    }
    return x[0];
#endif
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}
