/* rtcore_tap.h - a tap of four channels of a depthwise convolution in assembly, channel by channel. r0 weights, which go on,
 * r1 the channels. Neighbours: rtcore_depthwise_stream_i16.c. */
#ifndef RTCORE_TAP_H
#define RTCORE_TAP_H

/* clang-format off */
/* Sums r4-r7; r2, r3 are lost. */
#define RTCORE_PRODUCT_W8(sum, at)                                                                                     \
    "    ldrsb r2, [r0], #1\n"                                                                                         \
    "    ldrsh r3, [r1, #" at "]\n"                                                                                    \
    "    mla " sum ", r2, r3, " sum "\n"
#define RTCORE_TAP_W8                                                                                                  \
    RTCORE_PRODUCT_W8("r4", "0") RTCORE_PRODUCT_W8("r5", "2") RTCORE_PRODUCT_W8("r6", "4") RTCORE_PRODUCT_W8("r7", "6")
/* Sums r4:r5, r6:r7, r8:r9, r11:r12; r2, r3 are lost. */
#define RTCORE_PRODUCT_W16(sum, at)                                                                                    \
    "    ldrsh r2, [r0], #2\n"                                                                                         \
    "    ldrsh r3, [r1, #" at "]\n"                                                                                    \
    "    smlal " sum ", r2, r3\n"
#define RTCORE_TAP_W16                                                                                                 \
    RTCORE_PRODUCT_W16("r4, r5", "0") RTCORE_PRODUCT_W16("r6, r7", "2")                                                \
    RTCORE_PRODUCT_W16("r8, r9", "4") RTCORE_PRODUCT_W16("r11, r12", "6")
/* clang-format on */

#endif
