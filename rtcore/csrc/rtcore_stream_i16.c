/* rtcore_stream_i16.c - rows of a matrix by the portable kernels, which read tables and no stream.
 *
 * A core with kernels of its own brings its own rtcore_stream_i16.c (csrc/<core>/), which says how the stream of a matrix
 * lies and computes rows from it. Neighbours: rtcore_matrix_i16.h, rtcore/streams.py (packs streams).
 */
#include <stddef.h>

#include "rtcore_matrix_i16.h"

void rtcore_matrix_i16_rows(const rtcore_matrix_i16 *matrix, int group, int count, const int16_t *input,
                            int32_t *rows) {
    rtcore_matrix_i16_tables_rows(matrix, group, count, input, rows);
}

int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix) {
    return matrix->stream == NULL ? RTCORE_OK : RTCORE_E_TABLE;
}
