/* rtcore_depthwise_i16.c - depthwise convolution in integers (SPEC.md 5): every output channel reads one input channel.
 *
 * Four output channels at a time, over the taps inside the input alone: no patch is gathered, no zero is multiplied.
 * Neighbours: rtcore_window.h (the taps), rtcore_matrix_i16.h (activation), rtcore_conv_i16.c (whole groups).
 */
#include <stddef.h>

#include "rtcore_fixed.h"
#include "rtcore_matrix_i16.h"
#include "rtcore_window.h"

/* Where the taps of a position are. */
typedef struct {
    const int16_t *input;
    int at;  /* element of tap (0, 0), which may lie outside; only taps inside are read */
    int row; /* elements from tap to tap down, and across */
    int column;
    rtcore_taps rows;
    rtcore_taps columns;
    int channel[4]; /* that each of the four output channels reads */
} patch;

/* acc[k] += sum over the taps inside of w[tap][k] * x[channel[k]], k = 0..3; w: [kernel_h * kernel_w][4]. */
#define SUMS4(name, weight, accumulator)                                                                               \
    static void name(const weight *w, int kernel_w, const patch *p, accumulator *acc) {                                \
        const int c0 = p->channel[0], c1 = p->channel[1], c2 = p->channel[2], c3 = p->channel[3];                      \
        const int16_t *const x = p->input;                                                                             \
        accumulator a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];                                                \
        for (int kh = p->rows.first; kh < p->rows.end; kh++) {                                                         \
            const weight *v = w + 4 * (kh * kernel_w + p->columns.first);                                              \
            const weight *const end = v + 4 * (p->columns.end - p->columns.first);                                     \
            int at = p->at + kh * p->row + p->columns.first * p->column;                                               \
            while (v != end) {                                                                                         \
                a0 += v[0] * x[at + c0];                                                                               \
                a1 += v[1] * x[at + c1];                                                                               \
                a2 += v[2] * x[at + c2];                                                                               \
                a3 += v[3] * x[at + c3];                                                                               \
                v += 4;                                                                                                \
                at += p->column;                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
        acc[0] = a0;                                                                                                   \
        acc[1] = a1;                                                                                                   \
        acc[2] = a2;                                                                                                   \
        acc[3] = a3;                                                                                                   \
    }

SUMS4(sums4_w8_a32, int8_t, int32_t)
SUMS4(sums4_w8_a64, int8_t, int64_t)
SUMS4(sums4_w16_a32, int16_t, int32_t)
SUMS4(sums4_w16_a64, int16_t, int64_t)

/* Output channels first..first + 3 at a position, requantized (one rounding) and saturated to PRE: the same numbers as
 * rows of a matrix. */
static void rows4(const rtcore_depthwise_i16 *layer, int first, const patch *p, int32_t *rows) {
    const int kernel_w = layer->window.kernel_w, at = first * layer->window.kernel_h * kernel_w;
    const uint8_t *const shift = layer->shift + first;
    int64_t sums[4];
    if (layer->bias64 == NULL) {
        int32_t acc[4];
        for (int k = 0; k < 4; k++) {
            acc[k] = layer->bias32[first + k];
        }
        if (layer->w8 != NULL) {
            sums4_w8_a32(layer->w8 + at, kernel_w, p, acc);
        } else {
            sums4_w16_a32(layer->w16 + at, kernel_w, p, acc);
        }
        if (layer->mult == NULL) {
            for (int k = 0; k < 4; k++) {
                rows[k] = rtcore_sat32(rtcore_asr32(acc[k], shift[k]));
            }
            return;
        }
        for (int k = 0; k < 4; k++) {
            sums[k] = acc[k];
        }
    } else {
        for (int k = 0; k < 4; k++) {
            sums[k] = layer->bias64[first + k];
        }
        if (layer->w8 != NULL) {
            sums4_w8_a64(layer->w8 + at, kernel_w, p, sums);
        } else {
            sums4_w16_a64(layer->w16 + at, kernel_w, p, sums);
        }
    }
    for (int k = 0; k < 4; k++) {
        rows[k] = rtcore_sat32(layer->mult != NULL ? rtcore_rshift_round(sums[k] * layer->mult[first + k], shift[k])
                                                   : rtcore_asr64(sums[k], shift[k]));
    }
}

void rtcore_depthwise_i16_step(const rtcore_depthwise_i16 *layer, int16_t *output, const int16_t *input) {
    const rtcore_window *const w = &layer->window;
    const int n = layer->nb_neurons;
    patch p;
    p.input = input;
    p.row = w->dilation_h * w->in_w * layer->nb_inputs;
    p.column = w->dilation_w * layer->nb_inputs;
    for (int first = 0; first < n; first += 4) {
        for (int k = 0; k < 4; k++) {
            p.channel[k] = (first + k < n ? first + k : n - 1) / layer->multiplier;
        }
        for (int row = 0; row < w->out_h; row++) {
            const int top = row * w->stride_h - w->pad_h;
            p.rows = rtcore_taps_inside(top, w->dilation_h, w->kernel_h, w->in_h);
            for (int column = 0; column < w->out_w; column++) {
                const int left = column * w->stride_w - w->pad_w;
                int32_t rows[4];
                p.columns = rtcore_taps_inside(left, w->dilation_w, w->kernel_w, w->in_w);
                p.at = (top * w->in_w + left) * layer->nb_inputs;
                rows4(layer, first, &p, rows);
                for (int k = 0; k < 4 && first + k < n; k++) {
                    output[(row * w->out_w + column) * n + first + k] =
                        rtcore_matrix_i16_activate(rows[k], layer->activation);
                }
            }
        }
    }
}

int rtcore_depthwise_i16_check(const rtcore_depthwise_i16 *layer) {
    if (rtcore_window_check(&layer->window, layer->nb_inputs, layer->nb_neurons) != RTCORE_OK ||
        layer->multiplier < 1 || layer->nb_neurons != (int64_t)layer->nb_inputs * layer->multiplier) {
        return RTCORE_E_SHAPE;
    }
    if (layer->activation < RTCORE_ACTIVATION_LINEAR || layer->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    if ((layer->w8 == NULL) == (layer->w16 == NULL) || (layer->bias32 == NULL) == (layer->bias64 == NULL) ||
        layer->shift == NULL) {
        return RTCORE_E_TABLE;
    }
    const int rows = (layer->nb_neurons + 3) / 4 * 4;
    const int widest = layer->bias32 != NULL && layer->mult == NULL ? 31 : 62;
    for (int r = 0; r < rows; r++) {
        if (layer->shift[r] > widest || (layer->mult != NULL && layer->mult[r] < 1)) {
            return RTCORE_E_SHIFT;
        }
    }
    const int weights = layer->w16 != NULL ? rows * layer->window.kernel_h * layer->window.kernel_w : 0;
    for (int i = 0; i < weights; i++) {
        if (layer->w16[i] < -32767) {
            return RTCORE_E_WEIGHT;
        }
    }
    return RTCORE_OK;
}
