/* rtcore_copy_i16.c - elements that move without arithmetic (SPEC.md 6): strided copies, constants, rows of a table.
 * Neighbours: rtcore.h (the formats), rtcore_fixed.h (the count of clipped values). */
#include "rtcore.h"
#include "rtcore_fixed.h"

void rtcore_copy_i16(int16_t *output, const int16_t *input, int start, int n0, int n1, int n2, int n3, int s0, int s1,
                     int s2, int s3) {
    int at = 0;
    for (int i0 = 0; i0 < n0; i0++) {
        for (int i1 = 0; i1 < n1; i1++) {
            for (int i2 = 0; i2 < n2; i2++) {
                const int first = start + i0 * s0 + i1 * s1 + i2 * s2;
                for (int i3 = 0; i3 < n3; i3++) {
                    output[at++] = input[first + i3 * s3];
                }
            }
        }
    }
}

void rtcore_fill_i16(int16_t *output, int n, int value) {
    for (int i = 0; i < n; i++) {
        output[i] = (int16_t)value;
    }
}

void rtcore_embedding_i16(int16_t *output, const int16_t *input, const int16_t *table, int n, int entries) {
    int index = input[0];
    if (index < 0 || index >= entries) {
        RTCORE_ON_SATURATE();
        index = index < 0 ? 0 : entries - 1;
    }
    for (int i = 0; i < n; i++) {
        output[i] = table[index * n + i];
    }
}
