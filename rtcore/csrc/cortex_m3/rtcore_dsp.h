/* rtcore_dsp.h - three instructions that the DSP extension has, in several without it, as assembly. Neighbours: rtcore_core.h. */
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
/* a = (a * b + 2^31) >> 32; b is lost */
#define RTCORE_SMMULR(a, b)                                                                                            \
    "smull " b ", " a ", " a ", " b "\n\t"                                                                             \
    "adds " b ", " b "\n\t"                                                                                            \
    "adc " a ", " a ", #0"
/* clang-format on */

#endif
