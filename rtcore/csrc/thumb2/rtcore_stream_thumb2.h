/* rtcore_stream_thumb2.h - what the streams of Cortex-M3, M4 and M55 have in common, in assembly: how a kernel is entered,
 * saturation; and of M3 and M4: loops, how a kernel is left.
 *
 * A kernel computes `count` groups of four rows. M3's and M4's loops are unrolled and entered at computed places; what they
 * need beyond registers lies in a frame. Included once, by the core's rtcore_stream_i16.c, which brings the kernels
 * rtcore_rows_w16_a64 and rtcore_rows_w8_a32. GNU assembler syntax: gcc, clang.
 * Neighbours: rtcore_matrix_i16.h (rtcore_matrix_i16_rows, defined here), rtcore/streams.py (writes streams).
 */
#ifndef RTCORE_STREAM_THUMB2_H
#define RTCORE_STREAM_THUMB2_H

#include <stddef.h>

#include "rtcore_matrix_i16.h"

RTCORE_STATIC_ASSERT(nb_inputs_is_at_24, offsetof(rtcore_matrix_i16, nb_inputs) == 24);
RTCORE_STATIC_ASSERT(stream_form_and_stride_are_at_32,
                     offsetof(rtcore_matrix_i16, stream) == 32 && offsetof(rtcore_matrix_i16, stride) == 40);
RTCORE_STATIC_ASSERT(bits_of_form,
                     RTCORE_STREAM_BOUNDED == 16 && RTCORE_STREAM_ONE_LESS == 32 && RTCORE_STREAM_W16_A64 == 1);

/* clang-format off */
/* rtcore_matrix_i16_rows: r0 matrix, r1 group, r2 count, r3 x, [sp] rows. What kernels begin with: r0 stream of the group,
 * r1 x, r2 n, r3 rows, r4 end of rows, r7 form / 2, lr stride; nine registers saved. */
__asm__(
    "    .syntax unified\n"
    "    .thumb\n"
    "    .section .text.rtcore_matrix_i16_rows,\"ax\",%progbits\n"
    "    .balign 4\n"
    "    .global rtcore_matrix_i16_rows\n"
    "    .type rtcore_matrix_i16_rows,%function\n"
    "    .thumb_func\n"
    "rtcore_matrix_i16_rows:\n"
    "    ldr r12, [r0, #32]\n"
    "    cmp r12, #0\n"
    "    beq rtcore_matrix_i16_tables_rows\n"
    "    push {r4-r11, lr}\n"
    "    ldrd r7, lr, [r0, #36]\n"
    "    ldr r0, [r0, #24]\n"
    "    mla r5, r1, lr, r12\n"
    "    mov r1, r3\n"
    "    ldr r3, [sp, #36]\n"
    "    add r4, r3, r2, lsl #4\n"
    "    mov r2, r0\n"
    "    mov r0, r5\n"
    "    lsrs r7, r7, #1\n"
    "    bcs rtcore_rows_w16_a64\n"
    "    b rtcore_rows_w8_a32\n"
    "    .size rtcore_matrix_i16_rows, . - rtcore_matrix_i16_rows\n"
    "    .text\n");

#define BEGIN(name)                                                                                                    \
    " .syntax unified\n    .thumb\n    .section .text." name ",\"ax\",%progbits\n    .balign 4\n"                       \
    "    .global " name "\n    .hidden " name "\n    .type " name ",%function\n    .thumb_func\n" name ":\n"
#define END(name) "    .size " name ", . - " name "\n    .text\n"

/* Where loops begin and end: the columns in blocks of 2^log2 pairs and `bytes` bytes of code; first: the blocks in r10 to those
 * of the first turn; then what is left, where a group ends: label 7 when bounded, else 6, and
 * others: more of these, the carry telling RTCORE_STREAM_ONE_LESS. */
#define PLAN_BLOCKS(log2, first, bytes, others)                                                                              \
    " lsls r7, r7, #28\n"                                                                                              \
    " adr.w r8, 7f + 1\n"                                                                                              \
    " it pl\n"                                                                                                         \
    " adrpl.w r8, 6f + 1\n"                                                                                            \
    others                                                                                                             \
    " lsr r10, r2, #(" log2 " + 1)\n"                                                                                  \
    " add r5, r1, r10, lsl #(" log2 " + 2)\n"                                                                         \
    first                                                                                                              \
    " adr.w r12, 2f + 1\n"                                                                                              \
    " mov r11, #" bytes "\n"                                                                                           \
    " mls r12, r10, r11, r12\n"                                                                                          \
    " mov r6, r8\n"                                                                                                    \
    "    mov r7, r8\n"
/* The frame, FRAME_WORDS: x, rows, end of rows, end of the blocks in x, what follows them, what follows that, where a group
 * ends, and what else the core's kernels keep. The end of the blocks goes to lr. */
#define FRAME_WORDS "9"
#define NEXT_GROUP(rows, end, results)                                                                                 \
    " ldm sp, {r1, " rows ", " end ", lr}\n"                                                                           \
    " stm " rows "!, {" results "}\n"                                                                                  \
    " str " rows ", [sp, #4]\n"                                                                                        \
    " cmp " rows ", " end "\n"                                                                                         \
    " bne 8b\n"                                                                                                        \
    "10: add sp, #(4 * " FRAME_WORDS ")\n"                                                                             \
    "    pop {r4-r11, pc}\n"
#define REPEAT(times, code) "    .rept " times "\n" code "    .endr\n"


/* (high:low) to `low`: saturated to PRE. */
#define SATURATE(low, high)                                                                                            \
    " cmp " high ", " low ", asr #31\n"                                                                                \
    " itt ne\n"                                                                                                        \
    " mvnne " low ", #0x80000000\n"                                                                                    \
    " eorne " low ", " low ", " high ", asr #31\n"                                                                     \
    " cmp " low ", #0x80000000\n"                                                                                      \
    " it eq\n"                                                                                                         \
    "    addeq " low ", #1\n"


/* Whether any of the sums would leave int32 on its way up; then to label 12. */
#define CHECK(a, b, c, d)                                                                                              \
    " eor r10, " a ", " a ", asr #31\n"                                                                                \
    " eor r11, " b ", " b ", asr #31\n"                                                                                \
    " orr r10, r11\n"                                                                                                  \
    " eor r11, " c ", " c ", asr #31\n"                                                                                \
    " orr r10, r11\n"                                                                                                  \
    " eor r11, " d ", " d ", asr #31\n"                                                                                \
    " orr r10, r11\n"                                                                                                  \
    " rsb r11, r12, #31\n"                                                                                             \
    " lsrs r10, r11\n"                                                                                                 \
    "    bne 12f\n"
/* sum * scale + half, exact, >> (32 - up), saturated, to `scale`. lr: half, r1: 32 - up. */
#define EXACTLY(a, b, c, d)                                                                                            \
    " .macro rtcore_exact sum, scale\n"                                                                                \
    " smull r10, r11, \\sum, \\scale\n"                                                                               \
    " adds r10, lr\n"                                                                                                  \
    " adc r11, r11, #0\n"                                                                                              \
    " lsr r10, r1\n"                                                                                                   \
    " lsl \\scale, r11, r12\n"                                                                                         \
    " orr \\scale, r10\n"                                                                                              \
    " asr r11, r1\n" SATURATE("\\scale", "r11")                                                                        \
    " .endm\n"                                                                                                         \
    "12: mov lr, #1\n"                                                                                                 \
    " rsb r1, r12, #31\n"                                                                                              \
    " lsl lr, r1\n"                                                                                                    \
    " add r1, #1\n"                                                                                                    \
    " rtcore_exact " a ", r2\n"                                                                                        \
    " rtcore_exact " b ", r3\n"                                                                                        \
    " rtcore_exact " c ", r5\n"                                                                                        \
    " rtcore_exact " d ", r8\n"                                                                                        \
    "    b 11b\n"

/* clang-format on */

/* rtcore_matrix_i16_stream_check of a core whose forms may say `others` beside a width and BOUNDED. */
static inline int rtcore_stream_check(const rtcore_matrix_i16 *matrix, int others) {
    const int form = matrix->form & ~(RTCORE_STREAM_BOUNDED | others);
    const int known = form == RTCORE_STREAM_W16_A64 || form == RTCORE_STREAM_W8_A32;
    return known && ((uintptr_t)matrix->stream & 3U) == 0 ? RTCORE_OK : RTCORE_E_TABLE;
}

#endif
