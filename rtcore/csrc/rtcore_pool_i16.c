/* rtcore_pool_i16.c - largest value and average of windows over [height][width][channels] (SPEC.md 6).
 * Neighbours: rtcore_window.h (the taps), rtcore_fixed.h (the rounding). */
#include <stddef.h>

#include "rtcore_fixed.h"
#include "rtcore_window.h"

#define MOST_TAPS 65535 /* so that a sum of int16 fits int32 */

/* The taps of one position that lie inside the input, and how many of them count. */
typedef struct {
    int at; /* element of the first channel of the first tap inside */
    int rows;
    int columns;
    int count;
} patch;

static patch patch_at(const rtcore_pool_i16 *pool, int row, int column) {
    const rtcore_window *const w = &pool->window;
    const int top = row * w->stride_h - w->pad_h, left = column * w->stride_w - w->pad_w;
    const rtcore_taps rows = rtcore_taps_inside(top, w->dilation_h, w->kernel_h, w->in_h);
    const rtcore_taps columns = rtcore_taps_inside(left, w->dilation_w, w->kernel_w, w->in_w);
    patch p;
    p.rows = rows.end - rows.first;
    p.columns = columns.end - columns.first;
    p.at = ((top + rows.first * w->dilation_h) * w->in_w + left + columns.first * w->dilation_w) * pool->n;
    p.count = p.rows * p.columns;
    if (pool->count_pad) {
        const rtcore_taps high = rtcore_taps_inside(top + w->pad_h, w->dilation_h, w->kernel_h, w->in_h + 2 * w->pad_h);
        const rtcore_taps wide =
            rtcore_taps_inside(left + w->pad_w, w->dilation_w, w->kernel_w, w->in_w + 2 * w->pad_w);
        p.count = high.end * wide.end;
    }
    return p;
}

/* The largest, and the sum, of a channel's taps; x: the first of them; down, across: elements from tap to tap. */
#define REDUCE(name, start, take)                                                                                      \
    static int32_t name(const int16_t *x, const patch *p, int down, int across) {                                      \
        int32_t result = (start);                                                                                      \
        for (int row = p->rows; row > 0; row--) {                                                                      \
            const int16_t *at = x;                                                                                     \
            for (int column = p->columns; column > 0; column--) {                                                      \
                take;                                                                                                  \
                at += across;                                                                                          \
            }                                                                                                          \
            x += down;                                                                                                 \
        }                                                                                                              \
        return result;                                                                                                 \
    }

REDUCE(largest, -32768, result = *at > result ? *at : result)
REDUCE(total, 0, result += *at)

void rtcore_pool_i16_step(const rtcore_pool_i16 *pool, int16_t *output, const int16_t *input) {
    const int down = pool->window.dilation_h * pool->window.in_w * pool->n, across = pool->window.dilation_w * pool->n;
    for (int row = 0; row < pool->window.out_h; row++) {
        for (int column = 0; column < pool->window.out_w; column++) {
            const patch p = patch_at(pool, row, column);
            const int16_t *const end = output + pool->n;
            const int16_t *x = input + p.at;
            if (pool->largest) {
                while (output != end) {
                    *output++ = (int16_t)largest(x++, &p, down, across);
                }
            } else {
                const int32_t mult = pool->mult[p.count];
                while (output != end) {
                    const int64_t product = (int64_t)total(x++, &p, down, across) * mult;
                    *output++ = rtcore_sat16(rtcore_rshift_round(product, pool->shift));
                }
            }
        }
    }
}

/* Whether every window of an axis has a tap inside. */
static int covered(int in, int out, int kernel, int stride, int dilation, int pad) {
    for (int i = 0; i < out; i++) {
        const rtcore_taps inside = rtcore_taps_inside(i * stride - pad, dilation, kernel, in);
        if (inside.first == inside.end) {
            return 0;
        }
    }
    return 1;
}

int rtcore_pool_i16_check(const rtcore_pool_i16 *pool) {
    const rtcore_window *const w = &pool->window;
    if (rtcore_window_check(w, pool->n, pool->n) != RTCORE_OK || (int64_t)w->kernel_h * w->kernel_w > MOST_TAPS) {
        return RTCORE_E_SHAPE;
    }
    if (pool->largest) {
        return covered(w->in_h, w->out_h, w->kernel_h, w->stride_h, w->dilation_h, w->pad_h) &&
                       covered(w->in_w, w->out_w, w->kernel_w, w->stride_w, w->dilation_w, w->pad_w)
                   ? RTCORE_OK
                   : RTCORE_E_SHAPE;
    }
    if (pool->mult == NULL) {
        return RTCORE_E_TABLE;
    }
    if (pool->shift < 1 || pool->shift > 62) {
        return RTCORE_E_SHIFT;
    }
    for (int i = 0; i <= w->kernel_h * w->kernel_w; i++) {
        if (pool->mult[i] < 0) {
            return RTCORE_E_SHIFT;
        }
    }
    return RTCORE_OK;
}
