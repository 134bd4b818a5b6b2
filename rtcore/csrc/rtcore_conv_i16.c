/* rtcore_conv_i16.c - convolution over [height][width][channels] in integers (SPEC.md 5): a matrix row per output
 * channel over the patch of each position.
 *
 * A patch that lies in one piece within the input is read where it is, so that a 1 x 1 convolution is a dense layer at
 * every position; others are gathered into the scratch, zeros outside the input.
 * Neighbours: rtcore_matrix_i16.h (the rows), rtcore_window.h (the taps), rtcore_depthwise_i16.c (one channel each).
 */
#include "rtcore_matrix_i16.h"
#include "rtcore_units4.h"
#include "rtcore_window.h"

enum { BLOCKS = 3 }; /* of four rows, at a time */

/* Whether the taps of a group that lie inside the input are consecutive elements. */
static int consecutive(const rtcore_conv_i16 *conv) {
    const rtcore_window *const w = &conv->window;
    const int columns = w->kernel_w == 1 || (conv->groups == 1 && w->dilation_w == 1);
    const int rows = w->kernel_h == 1 || (conv->groups == 1 && w->dilation_h == 1 && w->kernel_w == w->in_w);
    return columns && rows;
}

/* Elements of the patch of a group: kernel_h * kernel_w * channels. */
static int patch_size(const rtcore_conv_i16 *conv) {
    return conv->window.kernel_h * conv->window.kernel_w * (conv->nb_inputs / conv->groups);
}

/* The patch of a group at a position; input: the group's first channel of the whole input. */
static const int16_t *patch_at(const rtcore_conv_i16 *conv, const int16_t *input, int row, int column,
                               int16_t *scratch) {
    const rtcore_window *const w = &conv->window;
    const int channels = conv->nb_inputs / conv->groups;
    const int top = row * w->stride_h - w->pad_h, left = column * w->stride_w - w->pad_w;
    const rtcore_taps rows = rtcore_taps_inside(top, w->dilation_h, w->kernel_h, w->in_h);
    const rtcore_taps columns = rtcore_taps_inside(left, w->dilation_w, w->kernel_w, w->in_w);
    const int inside = rows.end - rows.first == w->kernel_h && columns.end - columns.first == w->kernel_w;
    if (inside && consecutive(conv)) {
        return input + (top * w->in_w + left) * conv->nb_inputs;
    }
    int16_t *element = scratch;
    for (int kh = 0; kh < w->kernel_h; kh++) {
        for (int kw = 0; kw < w->kernel_w; kw++) {
            const int is_inside = kh >= rows.first && kh < rows.end && kw >= columns.first && kw < columns.end;
            const int at = (top + kh * w->dilation_h) * w->in_w + left + kw * w->dilation_w;
            const int16_t *const x = input + (is_inside ? at * conv->nb_inputs : 0);
            const int kept = is_inside ? -1 : 0; /* all bits, or none: zero outside without a loop of its own */
            for (int c = 0; c < channels; c++) {
                *element++ = (int16_t)(x[c] & kept);
            }
        }
    }
    return scratch;
}

void rtcore_conv_i16_step(const rtcore_conv_i16 *conv, int16_t *output, const int16_t *input, int16_t *scratch) {
    const rtcore_window *const w = &conv->window;
    const int channels = conv->nb_inputs / conv->groups, neurons = conv->nb_neurons / conv->groups;
    for (int row = 0; row < w->out_h; row++) {
        for (int column = 0; column < w->out_w; column++) {
            int block = 0;
            for (int group = 0; group < conv->groups; group++) {
                const int16_t *const patch = patch_at(conv, input + group * channels, row, column, scratch);
                for (int first = 0; first < neurons; first += 4 * BLOCKS) {
                    int32_t rows[4 * BLOCKS];
                    const int count = neurons - first < 4 * BLOCKS ? neurons - first : 4 * BLOCKS;
                    rtcore_matrix_i16_rows(&conv->matrix, block, (count + 3) / 4, patch, rows);
                    block += (count + 3) / 4;
                    if (rtcore_units4_activate(rows, count, conv->activation, output)) {
                        output += count;
                        continue;
                    }
                    for (int k = 0; k < count; k++) {
                        *output++ = rtcore_matrix_i16_activate(rows[k], conv->activation);
                    }
                }
            }
        }
    }
}

/* Whether any patch needs the scratch. */
static int gathers(const rtcore_conv_i16 *conv) {
    const rtcore_window *const w = &conv->window;
    const int bottom = (w->out_h - 1) * w->stride_h - w->pad_h + (w->kernel_h - 1) * w->dilation_h;
    const int right = (w->out_w - 1) * w->stride_w - w->pad_w + (w->kernel_w - 1) * w->dilation_w;
    return !consecutive(conv) || w->pad_h > 0 || w->pad_w > 0 || bottom >= w->in_h || right >= w->in_w;
}

int rtcore_conv_i16_check(const rtcore_conv_i16 *conv, int capacity) {
    const int groups = conv->groups;
    if (rtcore_window_check(&conv->window, conv->nb_inputs, conv->nb_neurons) != RTCORE_OK || groups < 1 ||
        conv->nb_inputs % groups != 0 || conv->nb_neurons % groups != 0 || conv->matrix.nb_inputs != patch_size(conv) ||
        conv->matrix.nb_rows != groups * ((conv->nb_neurons / groups + 3) / 4 * 4)) {
        return RTCORE_E_SHAPE;
    }
    if (gathers(conv) && patch_size(conv) > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (conv->activation < RTCORE_ACTIVATION_LINEAR || conv->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    return rtcore_matrix_i16_check(&conv->matrix);
}
