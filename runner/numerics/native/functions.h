/* Nonlinearities and their derivatives. */

/* exp of what is not above 0: with x = n log(2) + r, 2^n times the series of r; 0 where that is no normal number. */
INLINED VECTOR exponential(VECTOR x)
{
    const REAL log_2 = (REAL)0.693145751953125, rest = (REAL)1.42860682030941723212e-6; /* a few bits, and the others */
    const REAL shift = (REAL)((WHOLE)3 << (FRACTION_BITS - 1)); /* added and taken away again, it rounds */
    const VECTOR least = (VECTOR){0} + (REAL)(LEAST_EXPONENT * 0.6931);
    const MASK below = x < least;
    VECTOR inside = WHERE(below, least, x), rounded = inside * (REAL)1.44269504088896340736 + shift;
    VECTOR n = rounded - shift, r = (inside - n * log_2) - n * rest, sum = (VECTOR){0} + 1;
    UNROLLED for (int term = TERMS; term > 0; term--) sum = sum * r * (REAL)(1.0 / term) + 1;
    sum *= (VECTOR)(((MASK)rounded + (2 - LEAST_EXPONENT)) << FRACTION_BITS);
    return (VECTOR)((MASK)sum & ~below);
}

/* In float64 the functions of the C library, in float32 N. Juffa's polynomials, with an exponential far from 0. */
INLINED VECTOR error_function(VECTOR x)
{
    VECTOR s = x * x, t = SIZE(x), near = (VECTOR){0} - 5.96761703e-4f, far = t * -1.72853470e-5f + 3.83197126e-4f;
    if (sizeof(REAL) == sizeof(double)) {
        for (int lane = 0; lane < LANES; lane++) x[lane] = erf(x[lane]);
        return x;
    }
    near = near * s + 4.99119423e-3f;
    near = near * s - 2.67681349e-2f;
    near = near * s + 1.12819925e-1f;
    near = near * s - 3.76125336e-1f;
    near = near * s + 1.28379166e-1f;
    far = far * s + (t * -3.88396438e-3f + 2.42546219e-2f);
    far = far * t - 1.06777877e-1f;
    far = far * t - 6.34846687e-1f;
    far = far * t - 1.28717512e-1f;
    far = far * t - t;
    return WHERE(t > 0.927734375f, WITH_SIGN_OF(1 - exponential(far), x), near * x + x);
}

INLINED VECTOR hyperbolic_tangent(VECTOR x)
{
    VECTOR s = x * x, t = SIZE(x), small = exponential(-2 * t), near = (VECTOR){0} + 1.57394409e-2f;
    if (sizeof(REAL) == sizeof(double)) {
        for (int lane = 0; lane < LANES; lane++) x[lane] = tanh(x[lane]);
        return x;
    }
    near = near * s - 5.23025580e-2f;
    near = near * s + 1.33152470e-1f;
    near = near * s - 3.33327681e-1f;
    near = near * s;
    return WHERE(t > 0.55f, WITH_SIGN_OF((1 - small) / (1 + small), x), near * x + x);
}

INLINED VECTOR function_of(int64_t kind, VECTOR x, VECTOR *slope)
{
    VECTOR value;
    switch (kind) {
    case RELU:
        *slope = (VECTOR)((MASK)((VECTOR){0} + 1) & ~(MASK)(x <= 0));
        return (VECTOR)((MASK)x & ~(MASK)(x <= 0));
    case GELU:
        value = error_function(x * (REAL)0.70710678118654752440) * (REAL)0.5 + (REAL)0.5;
        *slope = x * exponential(x * x * (REAL)-0.5) * (REAL)0.39894228040143267794 + value;
        return x * value;
    case TANH:
        value = hyperbolic_tangent(x);
        *slope = 1 - value * value;
        return value;
    default:
        *slope = exponential(-(x * x)) * (REAL)1.12837916709551257390;
        return error_function(x);
    }
}

INLINED void curve_of(int64_t kind, const OPERATION *does, int64_t cell)
{
    int64_t columns = does->columns;
    for (int64_t i = 0; i < does->rows; i++) {
        const REAL *left = does->left + cell * does->left_cell + i * does->left_row;
        REAL *out = does->out + cell * does->out_cell + i * does->out_row;
        REAL *kept = does->kept + cell * does->kept_cell + i * does->kept_row;
        for (int64_t j = 0; j < columns; j += LANES) {
            VECTOR slope, value = function_of(kind, part(left, j, columns), &slope);
            put(out, j, columns, value);
            put(kept, j, columns, slope);
        }
    }
}

static void curve(const OPERATION *does, int64_t cell)
{
    switch (does->kind) {
    case RELU: curve_of(RELU, does, cell); break;
    case GELU: curve_of(GELU, does, cell); break;
    case TANH: curve_of(TANH, does, cell); break;
    default: curve_of(ERF, does, cell);
    }
}
