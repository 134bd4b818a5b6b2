/* rtcore_depthwise_i16.h - a position of a depthwise convolution: what its step asks of tables or of a core's own stream.
 * Neighbours: rtcore_depthwise_i16.c (positions, tables), rtcore_depthwise_stream_i16.c (a core's own). */
#ifndef RTCORE_DEPTHWISE_I16_H
#define RTCORE_DEPTHWISE_I16_H

#include "rtcore.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The taps of a position that lie inside the input. */
typedef struct {
    const int16_t *x; /* first channel of the first tap inside */
    int tap;          /* the number of that tap in the kernel */
    int rows;         /* 0 where no tap lies inside */
    int columns;
    int across;   /* elements of the input from tap to tap in a row */
    int next_x;   /* elements of the input from behind a row to the next one, */
    int next_tap; /* and taps of the kernel */
} rtcore_depthwise_patch;

/* output: i16 [nb_neurons], all channels of a position. */
void rtcore_depthwise_i16_position(const rtcore_depthwise_i16 *layer, int16_t *output,
                                   const rtcore_depthwise_patch *patch);

/* The same of a layer that is packed as tables: no stream. */
void rtcore_depthwise_i16_tables_position(const rtcore_depthwise_i16 *layer, int16_t *output,
                                          const rtcore_depthwise_patch *patch);

/* 0 or the first RTCORE_E_*: whether this core reads the stream of a layer that has one. */
int rtcore_depthwise_i16_stream_check(const rtcore_depthwise_i16 *layer);

#ifdef __cplusplus
}
#endif

#endif
