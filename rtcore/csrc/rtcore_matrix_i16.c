/* rtcore_matrix_i16.c - exact sums of int16 x int8/int16 products, and their requantization (SPEC.md 3).
 *
 * Portable C; a core's own kernel may sum in another order, never to another number. Columns go in pairs because the
 * pair of products fits int32 (|w| <= 32767), so that a 64-bit accumulator costs one widening per pair.
 * Neighbours: rtcore_matrix_i16.h, rtcore_fixed.h; rtcore/packing.py lays the weights out.
 */
#include "rtcore_matrix_i16.h"

#include <stddef.h>

#include "rtcore_fixed.h"

/* acc[k] = bias[k] + sum over n columns of row k, for four rows; w: [columns/2][4][2]. */
#define RTCORE_SUMS4(name, weight, accumulator)                                                                        \
    static void name(const weight *w, const int16_t *x, int n, const accumulator *bias, accumulator *acc) {            \
        accumulator a0 = bias[0], a1 = bias[1], a2 = bias[2], a3 = bias[3];                                            \
        const int16_t *const end = x + (n & ~1);                                                                       \
        while (x != end) {                                                                                             \
            const int32_t x0 = x[0], x1 = x[1];                                                                        \
            a0 += w[0] * x0 + w[1] * x1;                                                                               \
            a1 += w[2] * x0 + w[3] * x1;                                                                               \
            a2 += w[4] * x0 + w[5] * x1;                                                                               \
            a3 += w[6] * x0 + w[7] * x1;                                                                               \
            w += 8;                                                                                                    \
            x += 2;                                                                                                    \
        }                                                                                                              \
        if (n & 1) {                                                                                                   \
            const int32_t x0 = x[0];                                                                                   \
            a0 += w[0] * x0;                                                                                           \
            a1 += w[2] * x0;                                                                                           \
            a2 += w[4] * x0;                                                                                           \
            a3 += w[6] * x0;                                                                                           \
        }                                                                                                              \
        acc[0] = a0;                                                                                                   \
        acc[1] = a1;                                                                                                   \
        acc[2] = a2;                                                                                                   \
        acc[3] = a3;                                                                                                   \
    }

RTCORE_SUMS4(sums4_w8_a32, int8_t, int32_t)
RTCORE_SUMS4(sums4_w8_a64, int8_t, int64_t)
RTCORE_SUMS4(sums4_w16_a32, int16_t, int32_t)
RTCORE_SUMS4(sums4_w16_a64, int16_t, int64_t)

/* Elements of a packed group of 4 rows. */
static int group_size(const rtcore_matrix_i16 *matrix) { return 4 * (matrix->nb_inputs + (matrix->nb_inputs & 1)); }

static void sums4_a32(const rtcore_matrix_i16 *m, int group, const int16_t *input, int32_t *acc) {
    const int32_t *bias = m->bias32 + 4 * group;
    if (m->w8 != NULL) {
        sums4_w8_a32(m->w8 + group * group_size(m), input, m->nb_inputs, bias, acc);
    } else {
        sums4_w16_a32(m->w16 + group * group_size(m), input, m->nb_inputs, bias, acc);
    }
}

static void sums4_a64(const rtcore_matrix_i16 *m, int group, const int16_t *input, int64_t *acc) {
    const int64_t *bias = m->bias64 + 4 * group;
    if (m->w8 != NULL) {
        sums4_w8_a64(m->w8 + group * group_size(m), input, m->nb_inputs, bias, acc);
    } else {
        sums4_w16_a64(m->w16 + group * group_size(m), input, m->nb_inputs, bias, acc);
    }
}

void rtcore_matrix_i16_sums4(const rtcore_matrix_i16 *matrix, int group, const int16_t *input, int64_t *sums) {
    if (matrix->bias64 != NULL) {
        sums4_a64(matrix, group, input, sums);
    } else {
        int32_t acc[4];
        sums4_a32(matrix, group, input, acc);
        for (int k = 0; k < 4; k++) {
            sums[k] = acc[k];
        }
    }
}

void rtcore_matrix_i16_rows4(const rtcore_matrix_i16 *matrix, int group, const int16_t *input, int32_t *rows) {
    const uint8_t *shift = matrix->shift + 4 * group;
    if (matrix->bias32 != NULL && matrix->mult == NULL) {
        int32_t acc[4];
        sums4_a32(matrix, group, input, acc);
        for (int k = 0; k < 4; k++) {
            rows[k] = rtcore_sat32(rtcore_asr32(acc[k], shift[k]));
        }
    } else if (matrix->mult == NULL) {
        int64_t acc[4];
        sums4_a64(matrix, group, input, acc);
        for (int k = 0; k < 4; k++) {
            rows[k] = rtcore_sat32(rtcore_asr64(acc[k], shift[k]));
        }
    } else {
        const int16_t *mult = matrix->mult + 4 * group;
        int64_t acc[4];
        rtcore_matrix_i16_sums4(matrix, group, input, acc);
        for (int k = 0; k < 4; k++) {
            rows[k] = rtcore_sat32(rtcore_rshift_round(acc[k] * mult[k], shift[k]));
        }
    }
}

int rtcore_matrix_i16_check(const rtcore_matrix_i16 *matrix) {
    const int rows = matrix->nb_rows;
    if (matrix->nb_inputs < 1 || rows < 4 || rows % 4 != 0) {
        return RTCORE_E_SHAPE;
    }
    if ((matrix->w8 == NULL) == (matrix->w16 == NULL) || (matrix->bias32 == NULL) == (matrix->bias64 == NULL) ||
        matrix->shift == NULL) {
        return RTCORE_E_TABLE;
    }
    const int widest = matrix->bias32 != NULL && matrix->mult == NULL ? 31 : 62;
    for (int r = 0; r < rows; r++) {
        if (matrix->shift[r] > widest || (matrix->mult != NULL && matrix->mult[r] < 1)) {
            return RTCORE_E_SHIFT;
        }
    }
    if (matrix->w16 != NULL) {
        const int n = rows / 4 * group_size(matrix);
        for (int i = 0; i < n; i++) {
            if (matrix->w16[i] < -32767) {
                return RTCORE_E_WEIGHT;
            }
        }
    }
    return RTCORE_OK;
}
