/* rtcore_dsp.h - two instructions that what the DSP extension would have, as assembly. Neighbours: rtcore_core.h. */
#ifndef RTCORE_DSP_H
#define RTCORE_DSP_H

/* clang-format off */
/* sum = a + b, saturated to int32 */
#define RTCORE_QADD(sum, a, b)                                                                                                \
    "adds " sum ", " a ", " b "\n\t"                                                                                   \
    "itt vs\n\t"                                                                                                       \
    "asrvs " sum ", " sum ", #31\n\t"                                                                                  \
    "eorvs " sum ", " sum ", #0x80000000"
/* y += (a * b + 2^31) >> 32; a and b are lost */
#define RTCORE_SMMLAR(y, a, b)                                                                                                     \
    "smull " a ", " b ", " a ", " b "\n\t"                                                                              \
    "adds " a ", " a "\n\t"                                                                                            \
    "adc " y ", " y ", " b
/* clang-format on */

#endif
