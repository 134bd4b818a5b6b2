/* rtcore_stream_i16.c - rows of matrices for Cortex-M0 and M0+, sums and requantization in one.
 *
 * A stream is read from front to back, group after group of four rows, so that a group costs no addresses:
 *
 *   W16_A64  [4] low word of the bias, [2] high sums to begin with, [pairs][4 rows][2 columns] int16,
 *            [4] high half of the bias << 16 | (32 - shift) << 8 | shift
 *   W8_A32   [4] int32 bias, [columns][4 rows] uint8 weight + 128, [4] factor << 16 | up << 8 | down
 *
 * pairs are pairs of columns, the last one of an odd number with a zero weight. Sums live in the high registers, to which one
 * instruction adds.
 *
 * int16: a pair p of products fits int32, and low += p modulo 2^32. What is above takes one register for two rows: high +=
 * (p >> 20) + (p' >> 10) is 2^12 * floor(sum / 2^32) + 2^22 * floor(sum' / 2^32), once the low sums' share is taken off, and
 * less what shifts cut off, by which it began larger: less than 2^12 for 2046 pairs. The two floors have ten bits each, which
 * 1021 pairs do not leave. The bias' upper half comes at the end, and its rounding half is in it; a row is sum >> shift.
 *
 * int8: weights are loaded without a sign, as 128 more than they are, and 128 * sum(x) is taken off at the end: the first group
 * of a call also sums x. A row is (sum * 2^up * factor) >> (17 + down) rounded, factor 2^15..2^16 - 1, by two products.
 *
 * BOUNDED: no input takes a row or sum * 2^up out of int32, so that nothing need be checked. Kernels are assembly functions at
 * file scope, which depend on no compiler's optimisation. GNU assembler syntax: gcc, clang.
 * Neighbours: rtcore_matrix_i16.h, rtcore/streams.py (writes streams).
 */
#include <stddef.h>

#include "rtcore_matrix_i16.h"

RTCORE_STATIC_ASSERT(nb_inputs_is_at_24, offsetof(rtcore_matrix_i16, nb_inputs) == 24);
RTCORE_STATIC_ASSERT(stream_form_and_stride_are_at_32, offsetof(rtcore_matrix_i16, stream) == 32 &&
                                                           offsetof(rtcore_matrix_i16, form) == 36 &&
                                                           offsetof(rtcore_matrix_i16, stride) == 40);
RTCORE_STATIC_ASSERT(bits_of_form, RTCORE_STREAM_BOUNDED == 16 && RTCORE_STREAM_W8_A32 == 2);

/* clang-format off */
#define BEGIN(name)                                                                                                    \
    "    .syntax unified\n    .thumb\n    .section .text." name ",\"ax\",%progbits\n    .balign 4\n"                   \
    "    .global " name "\n    .hidden " name "\n    .type " name ",%function\n    .thumb_func\n" name ":\n"
#define END(name) "    .size " name ", . - " name "\n    .text\n"

/* rtcore_m0_row: r0 the row of an int8 matrix whose sum r0 * 2^up leaves int32, r1 its last word of the stream; lr, r2, r3 and
 * r12 are used. The sum's halves by half the factor, which is even: a product of upper * 2^16 + lower, of which 16 + down - up
 * bits go. */
__asm__(BEGIN("rtcore_m0_row")
    "    lsrs r2, r1, #17\n"
    "    uxtb r3, r1\n"
    "    lsls r1, r1, #16\n"
    "    lsrs r1, r1, #24\n"
    "    subs r3, r3, r1\n"
    "    adds r3, #16\n"
    "    asrs r1, r0, #16\n"
    "    muls r1, r2, r1\n"
    "    uxth r0, r0\n"
    "    muls r0, r2, r0\n"
    "    lsrs r2, r0, #16\n"
    "    adds r1, r1, r2\n"
    "    cmp r3, #16\n"
    "    bhi 2f\n"
    "    uxth r0, r0\n"
    "    movs r2, #1\n"
    "    lsls r2, r3\n"
    "    lsrs r2, r2, #1\n"
    "    adds r0, r0, r2\n"
    "    lsrs r0, r3\n"
    "    movs r2, #16\n"
    "    subs r3, r2, r3\n"
    "    movs r2, r1\n"
    "    lsls r2, r3\n"
    "    mov r12, r2\n"
    "    asrs r2, r3\n"
    "    cmp r2, r1\n"
    "    bne 1f\n"
    "    mov r2, r12\n"
    "    adds r0, r0, r2\n"
    "    bvs 1f\n"
    "    lsls r2, r0, #1\n"
    "    bne 3f\n"
    "    lsrs r2, r0, #31\n"
    "    adds r0, r0, r2\n"
    "    bx lr\n"
    "1:  movs r0, #0\n"
    "    mvns r0, r0\n"
    "    lsrs r0, r0, #1\n"
    "    cmp r1, #0\n"
    "    bge 3f\n"
    "    negs r0, r0\n"
    "    bx lr\n"
    "2:  subs r3, #17\n"
    "    asrs r1, r3\n"
    "    adds r1, #1\n"
    "    asrs r0, r1, #1\n"
    "3:  bx lr\n"
    END("rtcore_m0_row"));

/* rtcore_matrix_i16_rows: r0 matrix, r1 group, r2 count, r3 x, [sp] rows. What kernels begin with: r0, r2 and r3 as they were,
 * r4 rows, r6 form, r7 stream of the group; r4-r7 saved. */
__asm__(
    "    .syntax unified\n"
    "    .thumb\n"
    "    .section .text.rtcore_matrix_i16_rows,\"ax\",%progbits\n"
    "    .balign 4\n"
    "    .global rtcore_matrix_i16_rows\n"
    "    .type rtcore_matrix_i16_rows,%function\n"
    "    .thumb_func\n"
    "rtcore_matrix_i16_rows:\n"
    "    push {r4-r7, lr}\n"
    "    ldr r4, [sp, #20]\n"
    "    ldr r7, [r0, #40]\n"
    "    muls r7, r1, r7\n"
    "    ldr r5, [r0, #32]\n"
    "    adds r7, r7, r5\n"
    "    ldr r6, [r0, #36]\n"
    "    lsrs r5, r6, #2\n"
    "    bcs 1f\n"
    "    cmp r6, #0\n"
    "    beq 2f\n"
    "    bl rtcore_m0_rows_w16_a64\n"
    "    pop {r4-r7, pc}\n"
    "1:  bl rtcore_m0_rows_w8_a32\n"
    "    pop {r4-r7, pc}\n"
    "2:  push {r4-r6}\n"
    "    bl rtcore_matrix_i16_tables_rows\n"
    "    add sp, #12\n"
    "    pop {r4-r7, pc}\n"
    "    .size rtcore_matrix_i16_rows, . - rtcore_matrix_i16_rows\n"
    "    .text\n");

/* A kernel's frame: end of x, where the blocks of columns end (r2, which `blocks` finds from r1, the end of x, and r3), x, rows,
 * end of rows, form. r0: stream */
#define ENTER(blocks)                                                                                                  \
    "    lsls r5, r2, #4\n"                                                                                            \
    "    adds r5, r5, r4\n"                                                                                            \
    "    mov r1, r8\n"                                                                                                 \
    "    mov r2, r9\n"                                                                                                 \
    "    push {r1, r2, lr}\n"                                                                                          \
    "    mov r1, r10\n"                                                                                                \
    "    mov r2, r11\n"                                                                                                \
    "    push {r1, r2}\n"                                                                                              \
    "    ldr r1, [r0, #24]\n"                                                                                          \
    "    movs r0, r7\n"                                                                                                \
    "    lsls r1, r1, #1\n"                                                                                            \
    "    adds r1, r1, r3\n" blocks                                                                                     \
    "    push {r1-r6}\n"
#define LEAVE                                                                                                          \
    "    add sp, #24\n"                                                                                                \
    "    pop {r4-r7}\n"                                                                                                \
    "    mov r10, r4\n"                                                                                                \
    "    mov r11, r5\n"                                                                                                \
    "    mov r8, r6\n"                                                                                                 \
    "    mov r9, r7\n"                                                                                                 \
    "    pop {pc}\n"
/* Results to rows. */
#define STORE(results)                                                                                                 \
    "    ldr r7, [sp, #12]\n"                                                                                          \
    "    stm r7!, {" results "}\n"                                                                                     \
    "    str r7, [sp, #12]\n"
/* To where rows of a form that is not BOUNDED end. */
#define UNLESS_BOUNDED(label)                                                                                          \
    "    ldr r1, [sp, #20]\n"                                                                                          \
    "    lsls r1, r1, #27\n"                                                                                           \
    "    bpl " label "\n"

/* ---------------------------------------------------------------- w16_a64: r8-r11 the low sums, r12 and lr the high ones of
 * rows 0 and 1, and 2 and 3; r2, r3 a pair of columns of x. Blocks of four times two pairs, of which the first is entered at
 * label 4, 3, 2 or 1; then the pairs that are left one by one, which are all where x does not lie on a word. */
__asm__(
    "    .macro rtcore_row word, low, down, high\n"
    "    sxth r6, \\word\n"
    "    asrs \\word, \\word, #16\n"
    "    muls r6, r2, r6\n"
    "    muls \\word, r3, \\word\n"
    "    adds \\word, \\word, r6\n"
    "    add \\low, \\word\n"
    "    asrs \\word, \\word, #\\down\n"
    "    add \\high, \\word\n"
    "    .endm\n"
    "    .macro rtcore_pair\n"
    "    ldm r0!, {r4, r5}\n"
    "    rtcore_row r4, r8, 20, r12\n"
    "    rtcore_row r5, r9, 10, r12\n"
    "    ldm r0!, {r4, r5}\n"
    "    rtcore_row r4, r10, 20, lr\n"
    "    rtcore_row r5, r11, 10, lr\n"
    "    .endm\n"
    "    .macro rtcore_two_pairs\n"
    "    ldm r1!, {r3, r7}\n"
    "    sxth r2, r3\n"
    "    asrs r3, r3, #16\n"
    "    rtcore_pair\n"
    "    sxth r2, r7\n"
    "    asrs r3, r7, #16\n"
    "    rtcore_pair\n"
    "    .endm\n"
    /* The sums of two rows to r4:r1 and r3:r2, their last words to r5 and r6. */
    "    .macro rtcore_sums first, second, high\n"
    "    mov r1, \\first\n"
    "    mov r2, \\second\n"
    "    mov r3, \\high\n"
    "    lsrs r4, r1, #20\n"
    "    subs r3, r3, r4\n"
    "    lsrs r4, r2, #10\n"
    "    subs r3, r3, r4\n"
    "    lsls r4, r3, #10\n"
    "    asrs r4, r4, #22\n"
    "    asrs r3, r3, #12\n"
    "    subs r3, r3, r4\n"
    "    asrs r3, r3, #10\n"
    "    ldm r0!, {r5, r6}\n"
    "    asrs r7, r5, #16\n"
    "    adds r4, r4, r7\n"
    "    asrs r7, r6, #16\n"
    "    adds r3, r3, r7\n"
    "    .endm\n"
    /* high:low >> shift to low, and the same saturated to PRE */
    "    .macro rtcore_shift low, high, word\n"
    "    lsrs \\low, \\word\n"
    "    lsrs \\word, \\word, #8\n"
    "    lsls \\high, \\word\n"
    "    orrs \\low, \\high\n"
    "    .endm\n"
    "    .macro rtcore_clip low, high, word\n"
    "    mov r7, \\high\n"
    "    asrs r7, \\word\n"
    "    rtcore_shift \\low, \\high, \\word\n"
    "    asrs \\high, \\low, #31\n"
    "    cmp \\high, r7\n"
    "    bne .Lfar\\@\n"
    "    rsbs \\high, \\low, #0\n"
    "    bvc .Lnear\\@\n"
    ".Lfar\\@:\n"
    "    asrs r7, r7, #31\n"
    "    movs \\low, #1\n"
    "    lsls \\low, \\low, #31\n"
    "    subs \\low, #1\n"
    "    eors \\low, r7\n"
    "    subs \\low, \\low, r7\n"
    ".Lnear\\@:\n"
    "    .endm\n"
    "    .macro rtcore_rows first, second, high, end\n"
    "    rtcore_sums \\first, \\second, \\high\n"
    "    \\end r1, r4, r5\n"
    "    \\end r2, r3, r6\n" STORE("r1, r2")
    "    .endm\n"
    BEGIN("rtcore_m0_rows_w16_a64")
    ENTER("    subs r2, r1, r3\n"
          "    lsrs r2, r2, #3\n"
          "    lsls r2, r2, #3\n"
          "    adds r2, r2, r3\n"
          "    lsls r7, r3, #30\n"
          "    beq 1f\n"
          "    movs r2, r3\n"
          "1:\n")
    "8:  ldm r0!, {r2-r7}\n"
    "    mov r8, r2\n"
    "    mov r9, r3\n"
    "    mov r10, r4\n"
    "    mov r11, r5\n"
    "    mov r12, r6\n"
    "    mov lr, r7\n"
    "    ldr r1, [sp, #8]\n"
    "    ldr r2, [sp, #4]\n"
    "    subs r2, r2, r1\n"
    "    beq 5f\n"
    "    lsls r2, r2, #28\n"
    "    bcs 6f\n"
    "    bpl 4f\n"
    "    b 1f\n"
    "5:  b 5f\n"
    "6:  bpl 6f\n"
    "    b 3f\n"
    "6:  b 2f\n"
    "4:  rtcore_two_pairs\n"
    "3:  rtcore_two_pairs\n"
    "2:  rtcore_two_pairs\n"
    "1:  rtcore_two_pairs\n"
    "    ldr r2, [sp, #4]\n"
    "    cmp r1, r2\n"
    "    beq 5f\n"
    "    b 4b\n"
    "5:  ldr r4, [sp]\n"
    "    subs r4, r4, r1\n"
    "    ble 7f\n"
    "    ldrh r2, [r1]\n"
    "    sxth r2, r2\n"
    "    cmp r4, #2\n"
    "    beq 6f\n"
    "    ldrh r3, [r1, #2]\n"
    "    sxth r3, r3\n"
    "6:  adds r1, #4\n"
    "    rtcore_pair\n"
    "    b 5b\n"
    "7:\n" UNLESS_BOUNDED("6f")
    "    rtcore_rows r8, r9, r12, rtcore_shift\n"
    "    rtcore_rows r10, r11, lr, rtcore_shift\n"
    "7:  ldr r1, [sp, #16]\n"
    "    cmp r7, r1\n"
    "    beq 9f\n"
    "    b 8b\n"
    "9:\n" LEAVE
    "6:  rtcore_rows r8, r9, r12, rtcore_clip\n"
    "    rtcore_rows r10, r11, lr, rtcore_clip\n"
    "    b 7b\n"
    END("rtcore_m0_rows_w16_a64")
    "    .purgem rtcore_row\n"
    "    .purgem rtcore_pair\n"
    "    .purgem rtcore_two_pairs\n"
    "    .purgem rtcore_sums\n"
    "    .purgem rtcore_shift\n"
    "    .purgem rtcore_clip\n"
    "    .purgem rtcore_rows\n");

/* ---------------------------------------------------------------- w8_a32: r8-r11 the sums, r12 the sum of x, lr where the
 * blocks end; r4 or the register of a word of x a column, r5 a weight. A group's columns go eight at a time; before them one,
 * where x does not lie on a word, and behind them what is left, by pairs and alone. They go on at label 5. */
__asm__(
    "    .macro rtcore_weight x, at, sum\n"
    "    ldrb r5, [r0, #\\at]\n"
    "    muls r5, \\x, r5\n"
    "    add \\sum, r5\n"
    "    .endm\n"
    "    .macro rtcore_column x, at, first\n"
    "    .if \\first\n"
    "    add r12, \\x\n"
    "    .endif\n"
    "    rtcore_weight \\x, \\at, r8\n"
    "    rtcore_weight \\x, \\at + 1, r9\n"
    "    rtcore_weight \\x, \\at + 2, r10\n"
    "    rtcore_weight \\x, \\at + 3, r11\n"
    "    .endm\n"
    "    .macro rtcore_pair word, at, first\n"
    "    sxth r4, \\word\n"
    "    rtcore_column r4, \\at, \\first\n"
    "    asrs \\word, \\word, #16\n"
    "    rtcore_column \\word, \\at + 4, \\first\n"
    "    .endm\n"
    "    .macro rtcore_columns first\n"
    "    ldm r0!, {r4-r7}\n"
    "    mov r8, r4\n"
    "    mov r9, r5\n"
    "    mov r10, r6\n"
    "    mov r11, r7\n"
    "    ldr r1, [sp, #8]\n"
    "    lsls r2, r1, #30\n"
    "    beq 3f\n"
    "    b 2f\n"
    "3:  cmp r1, lr\n"
    "    bhs 4f\n"
    "1:  ldm r1!, {r2, r3, r6, r7}\n"
    "    rtcore_pair r2, 0, \\first\n"
    "    rtcore_pair r3, 8, \\first\n"
    "    rtcore_pair r6, 16, \\first\n"
    "    rtcore_pair r7, 24, \\first\n"
    "    adds r0, #32\n"
    "    cmp r1, lr\n"
    "    bne 1b\n"
    "4:  ldr r2, [sp]\n"
    "    subs r2, r2, r1\n"
    "    beq 5f\n"
    "    cmp r2, #2\n"
    "    beq 2f\n"
    "    ldm r1!, {r2}\n"
    "    rtcore_pair r2, 0, \\first\n"
    "    adds r0, #8\n"
    "    b 4b\n"
    "2:  ldrh r4, [r1]\n"
    "    sxth r4, r4\n"
    "    rtcore_column r4, 0, \\first\n"
    "    adds r0, #4\n"
    "    adds r1, #2\n"
    "    b 3b\n"
    "    .endm\n"
    /* sum * 2^up * factor >> (17 + down), rounded, to `row`; word: the row's last one, r4 128 * the sum of x. */
    "    .macro rtcore_scale sum, row, word\n"
    "    mov \\row, \\sum\n"
    "    subs \\row, \\row, r4\n"
    "    lsrs r6, \\word, #8\n"
    "    lsls \\row, r6\n"
    "    rtcore_factor \\row, \\word\n"
    "    .endm\n"
    "    .macro rtcore_factor row, word\n"
    "    lsrs r6, \\word, #16\n"
    "    uxth r7, \\row\n"
    "    asrs \\row, \\row, #16\n"
    "    muls r7, r6, r7\n"
    "    muls \\row, r6, \\row\n"
    "    lsrs r7, r7, #16\n"
    "    adds \\row, \\row, r7\n"
    "    asrs \\row, \\word\n"
    "    adds \\row, #1\n"
    "    asrs \\row, \\row, #1\n"
    "    .endm\n"
    "    .macro rtcore_check sum, row, word\n"
    "    mov r7, \\sum\n"
    "    subs r7, r7, r4\n"
    "    lsrs r6, \\word, #8\n"
    "    movs \\row, r7\n"
    "    lsls \\row, r6\n"
    "    mov r12, \\row\n"
    "    asrs \\row, r6\n"
    "    cmp \\row, r7\n"
    "    mov \\row, r12\n"
    "    beq .Lnear\\@\n"
    "    push {r0, r1}\n"
    "    mov r6, lr\n"
    "    movs r0, r7\n"
    "    movs r1, \\word\n"
    "    bl rtcore_m0_row\n"
    "    mov lr, r6\n"
    "    mov r12, r0\n"
    "    pop {r0, r1}\n"
    "    mov \\row, r12\n"
    "    b .Ldone\\@\n"
    ".Lnear\\@:\n"
    "    rtcore_factor \\row, \\word\n"
    ".Ldone\\@:\n"
    "    .endm\n"
    "    .macro rtcore_rows first, second, end\n"
    "    ldm r0!, {r3, r5}\n"
    "    \\end \\first, r1, r3\n"
    "    \\end \\second, r2, r5\n" STORE("r1, r2")
    "    .endm\n"
    BEGIN("rtcore_m0_rows_w8_a32")
    ENTER("    adds r2, r3, #2\n"
          "    lsrs r2, r2, #2\n"
          "    lsls r2, r2, #2\n"
          "    subs r7, r1, r2\n"
          "    lsrs r7, r7, #4\n"
          "    lsls r7, r7, #4\n"
          "    adds r2, r2, r7\n")
    "    mov lr, r2\n"
    "    movs r2, #0\n"
    "    mov r12, r2\n"
    "    rtcore_columns 1\n"
    "5:  mov r4, r12\n"
    "    lsls r4, r4, #7\n"
    "    str r4, [sp, #4]\n"
    "10:\n" UNLESS_BOUNDED("6f")
    "    rtcore_rows r8, r9, rtcore_scale\n"
    "    rtcore_rows r10, r11, rtcore_scale\n"
    "7:  ldr r1, [sp, #16]\n"
    "    cmp r7, r1\n"
    "    bne 8f\n" LEAVE
    "6:  b 6f\n"
    "8:  rtcore_columns 0\n"
    "5:  ldr r4, [sp, #4]\n"
    "    b 10b\n"
    "6:  rtcore_rows r8, r9, rtcore_check\n"
    "    rtcore_rows r10, r11, rtcore_check\n"
    "    b 7b\n"
    END("rtcore_m0_rows_w8_a32")
    "    .purgem rtcore_weight\n"
    "    .purgem rtcore_column\n"
    "    .purgem rtcore_pair\n"
    "    .purgem rtcore_columns\n"
    "    .purgem rtcore_scale\n"
    "    .purgem rtcore_factor\n"
    "    .purgem rtcore_check\n"
    "    .purgem rtcore_rows\n");

/* clang-format on */

int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix) {
    const int form = matrix->form & ~RTCORE_STREAM_BOUNDED;
    const int known = form == RTCORE_STREAM_W16_A64 || form == RTCORE_STREAM_W8_A32;
    return known && ((uintptr_t)matrix->stream & 3U) == 0 ? RTCORE_OK : RTCORE_E_TABLE;
}
