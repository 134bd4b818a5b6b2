/* rtcore_depthwise_stream_i16.c - depthwise convolution for Cortex-M3, M4, M7, M33 and M55: all channels of a position in one,
 * sums, requantization and saturation to ACT.
 *
 * Streams of layers of one output a channel, four channels at least, linear or ReLU, no row of which leaves int32:
 *
 *   W8_A32   [4] int32 scale, up, [4] int32 bias, [taps][4] int8
 *   W16_A64  [4] uint32 2^(32 - shift), [4] int64 bias, [taps][4] int16
 *
 * group after group of four channels, which lie side by side in input and output; the last group is the last four channels, some
 * of them once more where four do not divide their number. 32-bit sums go as (sum * 2^up * scale) >> 32
 * rounded, 64-bit sums, rounding half in the bias, as * 2^(32 - shift) >> 32. Taps outside the input are passed over.
 * Assembly at file scope depends on no compiler's optimisation. GNU assembler syntax: gcc, clang.
 * Neighbours: rtcore_depthwise_i16.h, rtcore_tap.h of the core (a tap of four channels), rtcore/streams.py (writes streams).
 */
#include "rtcore_depthwise_i16.h"

#include <stddef.h>

#include "rtcore_dsp.h"
#include "rtcore_tap.h"

RTCORE_STATIC_ASSERT(nb_neurons_is_at_76, offsetof(rtcore_depthwise_i16, nb_neurons) == 76 &&
                                              offsetof(rtcore_depthwise_i16, activation) == 84);
RTCORE_STATIC_ASSERT(stream_form_and_stride_are_at_88,
                     offsetof(rtcore_depthwise_i16, stream) == 88 && offsetof(rtcore_depthwise_i16, stride) == 96);
RTCORE_STATIC_ASSERT(patch_is_7_words, sizeof(rtcore_depthwise_patch) == 28);
RTCORE_STATIC_ASSERT(bit_of_form, (RTCORE_STREAM_W16_A64 & 1) == 1 && (RTCORE_STREAM_W8_A32 & 1) == 0);
RTCORE_STATIC_ASSERT(relu_is_3, RTCORE_ACTIVATION_RELU == 3);

/* clang-format off */
/* Begins a group: its biases, `skip` bytes behind it, to `sums`; r0 and r1 its first tap; where none lies inside, on to 4. */
#define BEGIN_GROUP(skip, sums)                                                                                        \
    "    ldm sp, {r0, r1, r2, r3, lr}\n"                                                                               \
    "    add r0, #" skip "\n"                                                                                          \
    "    ldm r0, {" sums "}\n"                                                                                         \
    "    add r0, r3\n"                                                                                                 \
    "    cmp lr, #0\n"                                                                                                 \
    "    beq 4f\n"
/* The taps of a row, counted in `left`, and on to the next row. */
#define TAPS(tap, left)                                                                                                \
    "3:\n" tap                                                                                                         \
    "    add r1, r10\n"                                                                                                \
    "    subs " left ", #1\n"                                                                                          \
    "    bne 3b\n"                                                                                                     \
    "    ldrd r2, r3, [sp, #20]\n"                                                                                     \
    "    add r0, r2\n"                                                                                                 \
    "    add r1, r3\n"
/* A sum to its row, of 32 bits and of 64. r11: up, r1 is free. */
#define SCALE(sum, scale) "    lsl " sum ", r11\n    " RTCORE_SMMULR(sum, scale) "\n"
#define MULTIPLY(row, low, high, scale)                                                                                \
    "    umull " low ", r1, " low ", " scale "\n"                                                                      \
    "    mla " row ", " high ", " scale ", r1\n"

/* rtcore_depthwise_i16_position: r0 layer, r1 output, r2 patch. The frame: 0 group in the stream, 4 its x, 8 its output, 12
 * bytes from its biases to its first tap, 16 rows of taps, 20 bytes of weights and 24 of x from behind a row to the next, 28
 * stride, 32 end of the output of whole groups, 36 how rows are saturated, 40 columns, 44 rows that are left, 48 where groups
 * begin, 52 bytes back to the last group where channels are left.
 * r10: bytes of x from tap to tap; r4-r7: what a group comes to. */
__asm__(
    "    .syntax unified\n"
    "    .thumb\n"
    "    .section .text.rtcore_depthwise_i16_position,\"ax\",%progbits\n"
    "    .balign 4\n"
    "    .global rtcore_depthwise_i16_position\n"
    "    .type rtcore_depthwise_i16_position,%function\n"
    "    .thumb_func\n"
    "rtcore_depthwise_i16_position:\n"
    "    ldr r3, [r0, #88]\n"
    "    cmp r3, #0\n"
    "    beq rtcore_depthwise_i16_tables_position\n"
    "    push {r4-r11, lr}\n"
    "    sub sp, #56\n"
    "    ldr r4, [r0, #76]\n"
    "    ldr r5, [r0, #84]\n"
    "    ldrd r6, r7, [r0, #92]\n"
    "    ldm r2, {r2, r8-r12, lr}\n"
    "    ands r0, r4, #3\n"
    "    it ne\n"
    "    subne r0, #4\n"
    "    lsl r0, #1\n"
    "    str r0, [sp, #52]\n"
    "    bic r4, #3\n"
    "    and r6, #1\n"
    "    adds r6, #2\n"
    "    add r8, #4\n"
    "    lsl r8, r6\n"
    "    lsl lr, r6\n"
    "    lsl r12, #1\n"
    "    add r4, r1, r4, lsl #1\n"
    "    strd r3, r2, [sp]\n"
    "    str r1, [sp, #8]\n"
    "    strd r8, r9, [sp, #12]\n"
    "    strd lr, r12, [sp, #20]\n"
    "    strd r7, r4, [sp, #28]\n"
    "    cmp r5, #3\n"
    "    adr.w r5, 5f + 1\n"
    "    it eq\n"
    "    adreq.w r5, 6f + 1\n"
    "    strd r5, r10, [sp, #36]\n"
    "    mov r12, r10\n"
    "    lsl r10, r11, #1\n"
    "    cmp r6, #2\n"
    "    adr.w r6, 8f + 1\n"
    "    it ne\n"
    "    adrne.w r6, 9f + 1\n"
    "    str r6, [sp, #48]\n"
    "    ldr pc, [sp, #48]\n"

    /* w8_a32: r4-r7 the sums, r12 columns, r11 those that are left, lr rows. */
    "8:\n" BEGIN_GROUP("20", "r4-r7")
    "2:  mov r11, r12\n"
    TAPS(RTCORE_TAP_W8, "r11")
    "    subs lr, #1\n"
    "    bne 2b\n"
    "4:  ldr r0, [sp]\n"
    "    ldm r0, {r2, r3, r8, r9, r11}\n"
    SCALE("r4", "r2")
    SCALE("r5", "r3")
    SCALE("r6", "r8")
    SCALE("r7", "r9")

    "7:  ldm sp, {r0, r1, lr}\n"
    "    ldrd r2, r3, [sp, #28]\n"
    "    ldr pc, [sp, #36]\n"
    "5:\n"
    "    ssat r4, #16, r4\n"
    "    ssat r5, #16, r5\n"
    "    ssat r6, #16, r6\n"
    "    ssat r7, #16, r7\n"
    "    b 11f\n"
    "6:\n"
    "    usat r4, #15, r4\n"
    "    usat r5, #15, r5\n"
    "    usat r6, #15, r6\n"
    "    usat r7, #15, r7\n"
    "11: strh r4, [lr], #2\n"
    "    strh r5, [lr], #2\n"
    "    strh r6, [lr], #2\n"
    "    strh r7, [lr], #2\n"
    "    add r0, r2\n"
    "    adds r1, #8\n"
    "    stm sp, {r0, r1, lr}\n"
    "    cmp lr, r3\n"
    "    it ne\n"
    "    ldrne pc, [sp, #48]\n"
    "    ldr r2, [sp, #52]\n"
    "    cbz r2, 12f\n"
    "    add r1, r2\n"
    "    add lr, r2\n"
    "    stm sp, {r0, r1, lr}\n"
    "    adds r3, r2\n"
    "    adds r3, #8\n"
    "    movs r2, #0\n"
    "    str r3, [sp, #32]\n"
    "    str r2, [sp, #52]\n"
    "    ldr pc, [sp, #48]\n"
    "12: add sp, #56\n"
    "    pop {r4-r11, pc}\n"

    /* w16_a64: r4:r5, r6:r7, r8:r9, r11:r12 the sums, lr columns that are left. */
    "9:\n" BEGIN_GROUP("16", "r4-r9, r11, r12")
    "    str lr, [sp, #44]\n"
    "2:  ldr lr, [sp, #40]\n"
    TAPS(RTCORE_TAP_W16, "lr")
    "    ldr r2, [sp, #44]\n"
    "    subs r2, #1\n"
    "    str r2, [sp, #44]\n"
    "    bne 2b\n"
    "4:  ldr r0, [sp]\n"
    "    ldrd r2, r3, [r0], #8\n"
    MULTIPLY("r4", "r4", "r5", "r2")
    MULTIPLY("r5", "r6", "r7", "r3")
    "    ldrd r2, r3, [r0]\n"
    MULTIPLY("r6", "r8", "r9", "r2")
    MULTIPLY("r7", "r11", "r12", "r3")
    "    b 7b\n"
    "    .size rtcore_depthwise_i16_position, . - rtcore_depthwise_i16_position\n"
    "    .text\n");
/* clang-format on */

int rtcore_depthwise_i16_stream_check(const rtcore_depthwise_i16 *layer) {
    const int form = layer->form - RTCORE_STREAM_BOUNDED;
    const int linear = layer->activation == RTCORE_ACTIVATION_LINEAR || layer->activation == RTCORE_ACTIVATION_RELU;
    const int known = form == RTCORE_STREAM_W16_A64 || form == RTCORE_STREAM_W8_A32;
    return known && linear && layer->multiplier == 1 && layer->nb_neurons >= 4 && ((uintptr_t)layer->stream & 3U) == 0
               ? RTCORE_OK
               : RTCORE_E_TABLE;
}
