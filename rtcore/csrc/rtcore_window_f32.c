/* rtcore_window_f32.c - convolution and pooling in float32, over one axis or two, channels last.
 *
 * Every output starts at its bias and takes the kernel's elements row by row, in each its channels in order; what lies in
 * the padding is skipped, so that a term of zero is not added.
 * Neighbours: rtcore_math_f32.h (the sums and the activations).
 */
#include <stddef.h>

#include "rtcore_f32.h"
#include "rtcore_math_f32.h"

/* Elements begin, begin + step, .. of an axis that a kernel takes, and those of them that lie in 0..size - 1. */
typedef struct {
    int begin, first, end; /* first..end: of the kernel's indices */
} reach;

static reach reach_of(int at, int stride, int pad, int kernel, int dilation, int size) {
    const int begin = at * stride - pad;
    reach r = {begin, 0, kernel};
    while (r.first < r.end && begin + r.first * dilation < 0) {
        r.first++;
    }
    while (r.end > r.first && begin + (r.end - 1) * dilation >= size) {
        r.end--;
    }
    return r;
}

static reach rows_of(const rtcore_window_f32 *w, int y) {
    return reach_of(y, w->stride_y, w->pad_y, w->kernel_y, w->dilation_y, w->height);
}

static reach columns_of(const rtcore_window_f32 *w, int x) {
    return reach_of(x, w->stride_x, w->pad_x, w->kernel_x, w->dilation_x, w->width);
}

/* Element (i, j) of the kernel in an input of so many channels. */
static const float *at(const rtcore_window_f32 *w, const float *input, int channels, reach rows, int i, reach columns,
                       int j) {
    const ptrdiff_t y = rows.begin + i * w->dilation_y, x = columns.begin + j * w->dilation_x;
    return input + (y * w->width + x) * channels;
}

void rtcore_conv_f32_step(const rtcore_conv_f32 *conv, float *output, const float *input) {
    const rtcore_window_f32 *const w = &conv->window;
    const int n = conv->out_channels, inputs = conv->in_channels / conv->groups, outputs = n / conv->groups;
    for (int y = 0; y < w->out_height; y++) {
        const reach rows = rows_of(w, y);
        for (int x = 0; x < w->out_width; x++, output += n) {
            const reach columns = columns_of(w, x);
            for (int k = 0; k < n; k++) {
                output[k] = conv->bias[k];
            }
            for (int i = rows.first; i < rows.end; i++) {
                for (int j = columns.first; j < columns.end; j++) {
                    const float *const element = at(w, input, conv->in_channels, rows, i, columns, j);
                    const float *const weights = conv->weights + (ptrdiff_t)(i * w->kernel_x + j) * inputs * n;
                    for (int g = 0; g < conv->groups; g++) {
                        rtcore_columns_f32(output + g * outputs, outputs, weights + g * outputs, n,
                                           element + g * inputs, inputs);
                    }
                }
            }
            rtcore_activation_f32(output, output, n, conv->activation);
        }
    }
}

void rtcore_conv_f32_stream(const rtcore_conv_f32 *conv, float *history, float *output, const float *input) {
    const int channels = conv->in_channels, kept = (conv->window.width - 1) * channels;
    for (int k = 0; k < kept; k++) {
        history[k] = history[k + channels];
    }
    for (int k = 0; k < channels; k++) {
        history[kept + k] = input[k];
    }
    rtcore_conv_f32_step(conv, output, history);
}

static void largest(const rtcore_pool_f32 *pool, float *output, const float *input, reach rows, reach columns) {
    for (int i = rows.first; i < rows.end; i++) {
        for (int j = columns.first; j < columns.end; j++) {
            const float *const element = at(&pool->window, input, pool->channels, rows, i, columns, j);
            const int begins = i == rows.first && j == columns.first;
            for (int k = 0; k < pool->channels; k++) {
                if (begins || element[k] > output[k] || element[k] != element[k]) {
                    output[k] = element[k];
                }
            }
        }
    }
}

/* Of a kernel from begin on: how many of its elements lie in the input or in the padding around it. */
static int declared(int begin, int kernel, int size, int pad) {
    const int end = begin + kernel;
    return (end < size + pad ? end : size + pad) - begin;
}

static void average(const rtcore_pool_f32 *pool, float *output, const float *input, reach rows, reach columns) {
    const rtcore_window_f32 *const w = &pool->window;
    for (int i = rows.first; i < rows.end; i++) {
        for (int j = columns.first; j < columns.end; j++) {
            const float *const element = at(w, input, pool->channels, rows, i, columns, j);
            const int begins = i == rows.first && j == columns.first;
            for (int k = 0; k < pool->channels; k++) {
                output[k] = begins ? element[k] : output[k] + element[k];
            }
        }
    }
    int count = (rows.end - rows.first) * (columns.end - columns.first);
    if (pool->kind == RTCORE_POOL_AVERAGE) {
        count = declared(rows.begin, w->kernel_y, w->height, w->pad_y) *
                declared(columns.begin, w->kernel_x, w->width, w->pad_x);
    }
    for (int k = 0; k < pool->channels; k++) {
        output[k] /= (float)count;
    }
}

void rtcore_pool_f32_step(const rtcore_pool_f32 *pool, float *output, const float *input) {
    for (int y = 0; y < pool->window.out_height; y++) {
        for (int x = 0; x < pool->window.out_width; x++, output += pool->channels) {
            const reach rows = rows_of(&pool->window, y), columns = columns_of(&pool->window, x);
            if (pool->kind == RTCORE_POOL_MAX) {
                largest(pool, output, input, rows, columns);
            } else {
                average(pool, output, input, rows, columns);
            }
        }
    }
}

static int check_axis(int size, int out, int kernel, int stride, int pad, int dilation) {
    return size >= 1 && out >= 1 && kernel >= 1 && stride >= 1 && pad >= 0 && dilation >= 1;
}

static int check_window(const rtcore_window_f32 *w) {
    return check_axis(w->height, w->out_height, w->kernel_y, w->stride_y, w->pad_y, w->dilation_y) &&
                   check_axis(w->width, w->out_width, w->kernel_x, w->stride_x, w->pad_x, w->dilation_x)
               ? RTCORE_OK
               : RTCORE_E_SHAPE;
}

int rtcore_conv_f32_check(const rtcore_conv_f32 *conv) {
    if (conv->in_channels < 1 || conv->out_channels < 1 || conv->groups < 1 || conv->in_channels % conv->groups != 0 ||
        conv->out_channels % conv->groups != 0) {
        return RTCORE_E_SHAPE;
    }
    if (conv->activation < RTCORE_ACTIVATION_LINEAR || conv->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    if (conv->bias == NULL || conv->weights == NULL) {
        return RTCORE_E_TABLE;
    }
    return check_window(&conv->window);
}

int rtcore_pool_f32_check(const rtcore_pool_f32 *pool) {
    const rtcore_window_f32 *const w = &pool->window;
    const int averages = pool->kind == RTCORE_POOL_AVERAGE || pool->kind == RTCORE_POOL_AVERAGE_OF_IN;
    if (pool->channels < 1 || (averages ? w->dilation_y != 1 || w->dilation_x != 1 : pool->kind != RTCORE_POOL_MAX)) {
        return RTCORE_E_SHAPE;
    }
    if (check_window(w) != RTCORE_OK) {
        return RTCORE_E_SHAPE;
    }
    /* every kernel takes something of the input */
    for (int y = 0; y < w->out_height; y++) {
        const reach rows = rows_of(w, y);
        if (rows.first == rows.end) {
            return RTCORE_E_SHAPE;
        }
    }
    for (int x = 0; x < w->out_width; x++) {
        const reach columns = columns_of(w, x);
        if (columns.first == columns.end) {
            return RTCORE_E_SHAPE;
        }
    }
    return RTCORE_OK;
}
