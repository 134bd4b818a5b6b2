/* rtcore_conv_i16.c - convolution over [height][width][channels] in integers (SPEC.md 5): a matrix row per output
 * channel over the patch of each position.
 *
 * A patch that lies in one piece within the input is read where it is, so that a 1 x 1 convolution is a dense layer at
 * every position; others are gathered into the scratch, zeros outside the input.
 * Neighbours: rtcore_matrix_i16.h (the rows), rtcore_window.h (the taps), rtcore_depthwise_i16.c (one channel each).
 */
#include "rtcore_matrix_i16.h"
#include "rtcore_window.h"

/* Channels of a group, of the input or the output: no division where there is one group. */
static int in_group(const rtcore_conv_i16 *conv, int channels) {
    return conv->groups == 1 ? channels : channels / conv->groups;
}

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

/* n elements, or n zeros where inside is 0; returns where the next ones go. One loop for both, which no compiler takes for
 * a library's. */
RTCORE_OUTLINE static int16_t *run(int16_t *to, const int16_t *from, int n, int inside) {
    const int kept = -inside; /* all bits, or none */
    for (const int16_t *const end = to + n; to != end; to++) {
        *to = (int16_t)(*from++ & kept);
    }
    return to;
}

/* The patch of a group at a position; input: the group's first channel of the whole input; rows: the taps inside. */
RTCORE_OUTLINE static const int16_t *patch_at(const rtcore_conv_i16 *conv, const int16_t *input, int row, int column,
                                              const rtcore_taps *rows, int16_t *scratch) {
    const rtcore_window *const w = &conv->window;
    const int channels = in_group(conv, conv->nb_inputs), whole = conv->groups == 1 && w->dilation_w == 1;
    const int top = row * w->stride_h - w->pad_h, left = column * w->stride_w - w->pad_w;
    const rtcore_taps columns = rtcore_taps_inside(left, w->dilation_w, w->kernel_w, w->in_w);
    int at = (top * w->in_w + left) * conv->nb_inputs; /* element of tap (0, 0), which may lie outside */
    if (rows->end - rows->first == w->kernel_h && columns.end - columns.first == w->kernel_w && consecutive(conv)) {
        return input + at;
    }
    int16_t *to = scratch;
    for (int kh = 0; kh < w->kernel_h; kh++, at += w->dilation_h * w->in_w * conv->nb_inputs) {
        if (kh < rows->first || kh >= rows->end) {
            to = run(to, scratch, w->kernel_w * channels, 0);
        } else if (whole) {
            to = run(to, scratch, columns.first * channels, 0);
            to = run(to, input + at + columns.first * channels, (columns.end - columns.first) * channels, 1);
            to = run(to, scratch, (w->kernel_w - columns.end) * channels, 0);
        } else {
            for (int kw = 0; kw < w->kernel_w; kw++) {
                const int inside = kw >= columns.first && kw < columns.end;
                to = run(to, inside ? input + at + kw * w->dilation_w * conv->nb_inputs : scratch, channels, inside);
            }
        }
    }
    return scratch;
}

void rtcore_conv_i16_step(const rtcore_conv_i16 *conv, int16_t *output, const int16_t *input, int32_t *rows,
                          int16_t *scratch) {
    const rtcore_window *const w = &conv->window;
    const int channels = in_group(conv, conv->nb_inputs), neurons = in_group(conv, conv->nb_neurons);
    for (int row = 0; row < w->out_h; row++) {
        const rtcore_taps taps = rtcore_taps_inside(row * w->stride_h - w->pad_h, w->dilation_h, w->kernel_h, w->in_h);
        for (int column = 0; column < w->out_w; column++) {
            int block = 0;
            for (int group = 0; group < conv->groups; group++) {
                const int16_t *const patch = patch_at(conv, input + group * channels, row, column, &taps, scratch);
                for (int left = neurons; left > 0; left -= RTCORE_ROWS) {
                    const int count = left < RTCORE_ROWS ? left : RTCORE_ROWS;
                    rtcore_matrix_i16_rows(&conv->matrix, block, (count + 3) / 4, patch, rows);
                    rtcore_matrix_i16_activate(output, rows, count, conv->activation);
                    block += (count + 3) / 4;
                    output += count;
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
