/* rtcore_window.h - the geometry that convolutions and pools share: which taps of a window lie inside the input.
 * Neighbours: rtcore.h (rtcore_window), rtcore_conv_i16.c, rtcore_depthwise_i16.c, rtcore_pool_i16.c. */
#ifndef RTCORE_WINDOW_H
#define RTCORE_WINDOW_H

#include "rtcore.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Taps first..end-1 of an axis. */
typedef struct {
    int first;
    int end;
} rtcore_taps;

/* The taps inside: of `taps`, which lie at start, start + dilation, .., those within 0..size-1. */
static inline rtcore_taps rtcore_taps_inside(int start, int dilation, int taps, int size) {
    rtcore_taps inside = {0, taps};
    if (start >= 0 && start + (taps - 1) * dilation < size) {
        return inside; /* all of them, as nearly always: no division */
    }
    inside.first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    inside.end = start < size ? (size - 1 - start) / dilation + 1 : 0;
    if (inside.end > taps) {
        inside.end = taps;
    }
    if (inside.first > inside.end) {
        inside.first = inside.end;
    }
    return inside;
}

/* RTCORE_OK or RTCORE_E_SHAPE: whether every size is in its range (2^24), and every index fits int with room to spare. */
int rtcore_window_check(const rtcore_window *window, int in_channels, int out_channels);

#ifdef __cplusplus
}
#endif

#endif
