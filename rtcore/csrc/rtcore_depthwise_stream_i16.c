/* rtcore_depthwise_stream_i16.c - a depthwise convolution's positions by the portable kernel, which reads tables and no stream.
 *
 * A core with a kernel of its own brings its own rtcore_depthwise_stream_i16.c (csrc/<core>/), which says how the stream lies.
 * Neighbours: rtcore_depthwise_i16.h, rtcore/streams.py (packs streams).
 */
#include <stddef.h>

#include "rtcore_depthwise_i16.h"

void rtcore_depthwise_i16_position(const rtcore_depthwise_i16 *layer, int16_t *output,
                                   const rtcore_depthwise_patch *patch) {
    rtcore_depthwise_i16_tables_position(layer, output, patch);
}

int rtcore_depthwise_i16_stream_check(const rtcore_depthwise_i16 *layer) {
    return layer->stream == NULL ? RTCORE_OK : RTCORE_E_TABLE;
}
