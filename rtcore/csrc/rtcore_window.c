/* rtcore_window.c - the check of a window's geometry. Neighbours: rtcore_window.h. */
#include "rtcore_window.h"

#define MOST 16777216       /* 2^24, of a size, a stride, a dilation, a padding or a number of channels */
#define ELEMENTS 1073741824 /* 2^30, of what indices are computed into */

static int fits(int size) { return size >= 1 && size <= MOST; }

/* How far the coordinates of an axis go, the padding before it included; -1 if a number is outside its range. */
static int64_t extent(int in, int out, int kernel, int stride, int dilation, int pad) {
    if (!fits(in) || !fits(out) || !fits(kernel) || !fits(stride) || !fits(dilation) || pad < 0 || pad > MOST) {
        return -1;
    }
    return in + 2 * (int64_t)pad + (int64_t)(out - 1) * stride + (int64_t)(kernel - 1) * dilation;
}

int rtcore_window_check(const rtcore_window *window, int in_channels, int out_channels) {
    const rtcore_window *const w = window;
    const int64_t high = extent(w->in_h, w->out_h, w->kernel_h, w->stride_h, w->dilation_h, w->pad_h);
    const int64_t wide = extent(w->in_w, w->out_w, w->kernel_w, w->stride_w, w->dilation_w, w->pad_w);
    if (!fits(in_channels) || !fits(out_channels) || high < 0 || wide < 0 || high > ELEMENTS || wide > ELEMENTS ||
        high * wide > ELEMENTS / in_channels || (int64_t)w->out_h * w->out_w > ELEMENTS / out_channels) {
        return RTCORE_E_SHAPE;
    }
    return RTCORE_OK;
}
