/* rtcore_state_i16.c - recurrent states from and to their int16 views (SPEC.md 5), one part at a time; past frames.
 *
 * A part is kept as int32 with 15 bits below its view, as an int16 view, or as both.
 * Neighbours: rtcore_gru_i16.c, rtcore_lstm_i16.c, rtcore_rnn_i16.c (carry the states on), rtcore_fixed.h.
 */
#include <stddef.h>

#include "rtcore.h"
#include "rtcore_fixed.h"

void rtcore_state_i16_set(int32_t *wide, int16_t *view, const int16_t *values, int n) {
    for (int i = 0; i < n; i++) {
        const int16_t v = values != NULL ? values[i] : 0;
        if (wide != NULL) {
            wide[i] = v * (1 << RTCORE_STATE_EXTRA);
        }
        if (view != NULL) {
            view[i] = v;
        }
    }
}

void rtcore_state_i16_view(int16_t *output, const int32_t *wide, int n) {
    for (int i = 0; i < n; i++) {
        output[i] = rtcore_view(wide[i]);
    }
}

void rtcore_delay_i16(int16_t *view, const int16_t *input, int n, int frames) {
    const int kept = (frames - 1) * n;
    for (int i = 0; i < kept; i++) {
        view[i] = view[i + n];
    }
    for (int i = 0; i < n; i++) {
        view[kept + i] = input[i];
    }
}
