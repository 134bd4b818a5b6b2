/* rtcore_matrix_i16.c - rows of a matrix: exact sums and their requantization (SPEC.md 3).
 * Neighbours: rtcore_sums4.h (the sums), rtcore_fixed.h; rtcore/packing.py lays the weights out. */
#include "rtcore_matrix_i16.h"

#include <stddef.h>

#include "rtcore_sums4.h"
#include "rtcore_units4.h"

/* Elements of a packed group of 4 rows. */
static int group_size(const rtcore_matrix_i16 *matrix) { return 4 * (matrix->nb_inputs + (matrix->nb_inputs & 1)); }

static void sums4_a32(const rtcore_matrix_i16 *m, int group, const int16_t *input, int32_t *acc) {
    for (int k = 0; k < 4; k++) {
        acc[k] = m->bias32[4 * group + k];
    }
    if (m->w8 != NULL) {
        rtcore_sums4_w8_a32(m->w8 + group * group_size(m), input, m->nb_inputs, acc);
    } else {
        rtcore_sums4_w16_a32(m->w16 + group * group_size(m), input, m->nb_inputs, acc);
    }
}

static void sums4_a64(const rtcore_matrix_i16 *m, int group, const int16_t *input, int64_t *acc) {
    for (int k = 0; k < 4; k++) {
        acc[k] = m->bias64[4 * group + k];
    }
    if (m->w8 != NULL) {
        rtcore_sums4_w8_a64(m->w8 + group * group_size(m), input, m->nb_inputs, acc);
    } else {
        rtcore_sums4_w16_a64(m->w16 + group * group_size(m), input, m->nb_inputs, acc);
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

void rtcore_requantize4_a32(const int32_t *sums, const int16_t *mult, const uint8_t *shift, int32_t *rows) {
    if (mult == NULL) {
        for (int k = 0; k < 4; k++) {
            rows[k] = rtcore_sat32(rtcore_asr32(sums[k], shift[k]));
        }
    } else {
        for (int k = 0; k < 4; k++) {
            rows[k] = rtcore_requantize_product(sums[k], mult[k], shift[k]);
        }
    }
}

void rtcore_requantize4_a64(const int64_t *sums, const int16_t *mult, const uint8_t *shift, int32_t *rows) {
    if (mult == NULL) {
        for (int k = 0; k < 4; k++) {
            rows[k] = rtcore_requantize(sums[k], shift[k]);
        }
    } else {
        for (int k = 0; k < 4; k++) {
            rows[k] = rtcore_sat32(rtcore_rshift_round(sums[k] * mult[k], shift[k]));
        }
    }
}

static void rows4(const rtcore_matrix_i16 *matrix, int group, const int16_t *input, int32_t *rows) {
    const uint8_t *const shift = matrix->shift + 4 * group;
    const int16_t *const mult = matrix->mult != NULL ? matrix->mult + 4 * group : NULL;
    if (matrix->bias32 != NULL) {
        int32_t sums[4];
        sums4_a32(matrix, group, input, sums);
        rtcore_requantize4_a32(sums, mult, shift, rows);
    } else {
        int64_t sums[4];
        sums4_a64(matrix, group, input, sums);
        rtcore_requantize4_a64(sums, mult, shift, rows);
    }
}

void rtcore_matrix_i16_tables_rows(const rtcore_matrix_i16 *matrix, int group, int count, const int16_t *input,
                                   int32_t *rows) {
    for (int k = 0; k < count; k++) {
        rows4(matrix, group + k, input, rows + 4 * k);
    }
}

void rtcore_matrix_i16_activate(int16_t *output, const int32_t *rows, int count, int activation) {
    const int32_t *const end = rows + count;
    if (rtcore_units4_activate(rows, count, activation, output)) {
        return;
    }
    switch (activation) {
    case RTCORE_ACTIVATION_SIGMOID:
        while (rows != end) {
            *output++ = rtcore_sigmoid_q15(*rows++);
        }
        break;
    case RTCORE_ACTIVATION_TANH:
        while (rows != end) {
            *output++ = rtcore_tanh_q15(*rows++);
        }
        break;
    case RTCORE_ACTIVATION_RELU:
        while (rows != end) {
            *output++ = rtcore_sat16(*rows < 0 ? 0 : *rows);
            rows++;
        }
        break;
    default:
        while (rows != end) {
            *output++ = rtcore_sat16(*rows++);
        }
    }
}

int rtcore_matrix_i16_check(const rtcore_matrix_i16 *matrix) {
    const int rows = matrix->nb_rows;
    if (matrix->nb_inputs < 1 || rows < 4 || rows % 4 != 0) {
        return RTCORE_E_SHAPE;
    }
    if (matrix->stream != NULL) {
        return rtcore_matrix_i16_stream_check(matrix);
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
