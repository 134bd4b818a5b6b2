/* rtcore_depthwise_i16.c - depthwise convolution in integers (SPEC.md 5): every output channel reads one input channel.
 *
 * Four output channels at a time, over the taps inside the input alone: no patch is gathered, no zero is multiplied.
 * Neighbours: rtcore_depthwise_stream_i16.c (a core's own), rtcore_window.h (the taps), rtcore_matrix_i16.h (activation),
 * rtcore_conv_i16.c (whole groups).
 */
#include <stddef.h>

#include "rtcore_depthwise_i16.h"
#include "rtcore_fixed.h"
#include "rtcore_matrix_i16.h"
#include "rtcore_window.h"

/* acc[k] += sum over the taps inside of w[tap][k] * x[k], k = 0..3: four channels that lie side by side in input and output;
 * w: [taps][4], x: of the first tap inside. */
#define SUMS4(name, weight, accumulator)                                                                               \
    RTCORE_OUTLINE static void name(const weight *w, const int16_t *x, const rtcore_depthwise_patch *p,                \
                                    accumulator *acc) {                                                                \
        accumulator a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];                                                \
        const int columns = p->columns, across = p->across;                                                            \
        const int next_w = 4 * p->next_tap, next_x = p->next_x;                                                        \
        w += 4 * p->tap;                                                                                               \
        for (int row = p->rows; row > 0; row--) {                                                                      \
            for (int left = columns; left > 0; left--) {                                                               \
                a0 += w[0] * x[0];                                                                                     \
                a1 += w[1] * x[1];                                                                                     \
                a2 += w[2] * x[2];                                                                                     \
                a3 += w[3] * x[3];                                                                                     \
                w += 4;                                                                                                \
                x += across;                                                                                           \
            }                                                                                                          \
            w += next_w;                                                                                               \
            x += next_x;                                                                                               \
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
 * rows of a matrix. x: of the first of the four input channels. */
RTCORE_OUTLINE static void rows4(const rtcore_depthwise_i16 *layer, int first, const int16_t *x,
                                 const rtcore_depthwise_patch *p, int32_t *rows) {
    const int at = first * layer->window.kernel_h * layer->window.kernel_w;
    const uint8_t *const shift = layer->shift + first;
    const int16_t *const mult = layer->mult != NULL ? layer->mult + first : NULL;
    if (layer->bias32 != NULL) {
        int32_t sums[4];
        for (int k = 0; k < 4; k++) {
            sums[k] = layer->bias32[first + k];
        }
        if (layer->w8 != NULL) {
            sums4_w8_a32(layer->w8 + at, x, p, sums);
        } else {
            sums4_w16_a32(layer->w16 + at, x, p, sums);
        }
        rtcore_requantize4_a32(sums, mult, shift, rows);
    } else {
        int64_t sums[4];
        for (int k = 0; k < 4; k++) {
            sums[k] = layer->bias64[first + k];
        }
        if (layer->w8 != NULL) {
            sums4_w8_a64(layer->w8 + at, x, p, sums);
        } else {
            sums4_w16_a64(layer->w16 + at, x, p, sums);
        }
        rtcore_requantize4_a64(sums, mult, shift, rows);
    }
}

/* One output channel alone, as a row: of a multiplier, or where fewer than four are left. */
RTCORE_OUTLINE static int32_t row1(const rtcore_depthwise_i16 *layer, int channel, const rtcore_depthwise_patch *p) {
    int weight = (channel / 4 * layer->window.kernel_h * layer->window.kernel_w + p->tap) * 4 + channel % 4;
    const int16_t *x = p->x + channel / layer->multiplier;
    int64_t sum = layer->bias32 != NULL ? layer->bias32[channel] : layer->bias64[channel];
    for (int row = 0; row < p->rows; row++) {
        for (int column = 0; column < p->columns; column++) {
            sum += (layer->w8 != NULL ? layer->w8[weight] : layer->w16[weight]) * *x;
            weight += 4;
            x += p->across;
        }
        weight += 4 * p->next_tap;
        x += p->next_x;
    }
    return rtcore_sat32(layer->mult != NULL ? rtcore_rshift_round(sum * layer->mult[channel], layer->shift[channel])
                                            : rtcore_asr64(sum, layer->shift[channel]));
}

void rtcore_depthwise_i16_tables_position(const rtcore_depthwise_i16 *layer, int16_t *output,
                                          const rtcore_depthwise_patch *patch) {
    const int n = layer->nb_neurons;
    for (int first = 0; first < n; first += 4) {
        int32_t rows[4];
        const int count = n - first < 4 ? n - first : 4;
        if (layer->multiplier == 1 && count == 4) {
            rows4(layer, first, patch->x + first, patch, rows);
        } else {
            for (int k = 0; k < count; k++) {
                rows[k] = row1(layer, first + k, patch);
            }
        }
        rtcore_matrix_i16_activate(output + first, rows, count, layer->activation);
    }
}

void rtcore_depthwise_i16_step(const rtcore_depthwise_i16 *layer, int16_t *output, const int16_t *input) {
    const rtcore_window *const w = &layer->window;
    const int down = w->dilation_h * w->in_w * layer->nb_inputs;
    rtcore_depthwise_patch p;
    p.across = w->dilation_w * layer->nb_inputs;
    for (int row = 0; row < w->out_h; row++) {
        const int top = row * w->stride_h - w->pad_h;
        const rtcore_taps high = rtcore_taps_inside(top, w->dilation_h, w->kernel_h, w->in_h);
        for (int column = 0; column < w->out_w; column++) {
            const int left = column * w->stride_w - w->pad_w;
            const rtcore_taps wide = rtcore_taps_inside(left, w->dilation_w, w->kernel_w, w->in_w);
            p.columns = wide.end - wide.first;
            p.rows = p.columns > 0 ? high.end - high.first : 0;
            p.tap = high.first * w->kernel_w + wide.first;
            p.next_tap = w->kernel_w - p.columns;
            p.next_x = down - p.columns * p.across;
            p.x = input;
            if (p.rows > 0) {
                p.x += (top * w->in_w + left) * layer->nb_inputs + high.first * down + wide.first * p.across;
            }
            rtcore_depthwise_i16_position(layer, output, &p);
            output += layer->nb_neurons;
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
    if (layer->stream != NULL) {
        return rtcore_depthwise_i16_stream_check(layer);
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
