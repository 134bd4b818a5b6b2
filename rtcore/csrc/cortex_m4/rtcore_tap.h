/* rtcore_tap.h - a tap of four channels of a depthwise convolution in assembly, with the DSP extension: two channels a register.
 * r0 weights, which go on, r1 the channels. Neighbours: rtcore_depthwise_stream_i16.c. */
#ifndef RTCORE_TAP_H
#define RTCORE_TAP_H

/* clang-format off */
/* Sums r4-r7; r2, r3, r8, r9 are lost. */
#define RTCORE_TAP_W8                                                                                                  \
    "    ldr r2, [r0], #4\n"                                                                                           \
    "    ldr r8, [r1]\n"                                                                                               \
    "    ldr r9, [r1, #4]\n"                                                                                           \
    "    sxtb16 r3, r2\n"                                                                                              \
    "    sxtb16 r2, r2, ror #8\n"                                                                                      \
    "    smlabb r4, r3, r8, r4\n"                                                                                      \
    "    smlabt r5, r2, r8, r5\n"                                                                                      \
    "    smlatb r6, r3, r9, r6\n"                                                                                      \
    "    smlatt r7, r2, r9, r7\n"
/* Sums r4:r5, r6:r7, r8:r9, r11:r12; r2, r3 are lost. */
#define RTCORE_TAP_W16                                                                                                 \
    "    ldr r2, [r0], #4\n"                                                                                           \
    "    ldr r3, [r1]\n"                                                                                               \
    "    smlalbb r4, r5, r2, r3\n"                                                                                     \
    "    smlaltt r6, r7, r2, r3\n"                                                                                     \
    "    ldr r2, [r0], #4\n"                                                                                           \
    "    ldr r3, [r1, #4]\n"                                                                                           \
    "    smlalbb r8, r9, r2, r3\n"                                                                                     \
    "    smlaltt r11, r12, r2, r3\n"
/* clang-format on */

#endif
