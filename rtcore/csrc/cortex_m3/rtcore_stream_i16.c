/* rtcore_stream_i16.c - rows of matrices for Cortex-M3, sums and requantization in one.
 *
 * A stream is read from front to back, group after group of four rows, so that a group costs no addresses:
 *
 *   W16_A64  [2 row pairs] (int64 2^16 * bias of the upper row + bias of the lower, int64 bias of the lower),
 *            [columns][2 row pairs] words of 2^16 * upper + lower, [4] uint32 2^(32 - shift)
 *   W8_A32   [4] int32 bias, [columns][4 rows] int8, [4] int32 scale, up
 *
 * with an even number of columns, the last one of an odd number zero. int16: SMLAL of 2^16 * upper + lower and SMLAL of the
 * lower alone, three instructions and one load for two products; the upper row is the difference / 2^16. 64-bit sums, rounding
 * half in the bias, go >> shift as * 2^(32 - shift) >> 32; 32-bit sums as (sum * 2^up * scale) >> 32 rounded. BOUNDED: no
 * input takes a row or sum * 2^up out of int32, so that nothing need be checked.
 * int8 rows, BOUNDED, of an even number of columns go two groups at a time, so that x is read half as often.
 * Neighbours: rtcore_stream_thumb2.h, rtcore/streams.py (writes streams).
 */
#include "rtcore_stream_thumb2.h"

/* clang-format off */
/* Blocks of a pair, eight in a turn, then the last column of an odd number. The frame: nothing follows what is left, so that its
 * word is where columns of two groups at a time are entered; the last words are where blocks are entered, and the stride. */
#define PLAN(bytes)                                                                                                    \
    PLAN_BLOCKS("0", "    and r10, r10, #7\n", bytes, "")                                                              \
    "    lsls r11, r2, #31\n"                                                                                          \
    "    it ne\n"                                                                                                      \
    "    adrne.w r6, 5f + 1\n"                                                                                         \
    "    push {r1, r3-r8, r12, lr}\n"
#define COLUMNS(turn, x, odd)                                                                                          \
    "    ldr pc, [sp, #28]\n"                                                                                          \
    "    .balign 4\n"                                                                                                  \
    "1:\n" turn                                                                                                        \
    "2:  cmp r1, lr\n"                                                                                                 \
    "    bne 1b\n"                                                                                                     \
    "    ldr pc, [sp, #16]\n"                                                                                          \
    "5:  ldrsh " x ", [r1]\n" odd                                                                                      \
    "    ldr pc, [sp, #24]\n"

/* ---------------------------------------------------------------- w16_a64: r4:r5 and r8:r9 2^16 * rows 1 and 3 + rows 0 and 2,
 * r6:r7 and r10:r11 rows 0 and 2. r12 a column of x; r2, r3 its words of w. 64 bytes a pair. */
#define COLUMN_W16                                                                                                     \
    "    ldrd r2, r3, [r0], #8\n"                                                                                      \
    "    smlal r4, r5, r2, r12\n"                                                                                      \
    "    sxth.w r2, r2\n"                                                                                              \
    "    smlal r6, r7, r2, r12\n"                                                                                      \
    "    smlal r8, r9, r3, r12\n"                                                                                      \
    "    sxth.w r3, r3\n"                                                                                              \
    "    smlal r10, r11, r3, r12\n"
#define NEXT_W16 "    ldrsh r12, [r1], #2\n" COLUMN_W16
/* The upper row from its sum with the lower one. */
#define UPPER(sum, sum_high, lower, lower_high)                                                                        \
    "    subs " sum ", " lower "\n"                                                                                    \
    "    sbc " sum_high ", " sum_high ", " lower_high "\n"                                                             \
    "    lsr " sum ", " sum ", #16\n"                                                                                  \
    "    orr " sum ", " sum ", " sum_high ", lsl #16\n"                                                                \
    "    asr " sum_high ", " sum_high ", #16\n"
#define UPPERS                                                                                                         \
    UPPER("r4", "r5", "r6", "r7")                                                                                      \
    UPPER("r8", "r9", "r10", "r11")                                                                                    \
    "    ldm r0!, {r2, r3, r12, lr}\n"
/* A sum's row: of a bounded one, and of any, where `row` is `low` or `scale`. r1 is free. */
#define ROW(row, low, high, scale)                                                                                     \
    "    umull " low ", r1, " low ", " scale "\n"                                                                      \
    "    mla " row ", " high ", " scale ", r1\n"
#define CHECKED_ROW(row, low, high, scale)                                                                             \
    "    umull " low ", r1, " low ", " scale "\n"                                                                      \
    "    mov " low ", #0\n"                                                                                            \
    "    smlal r1, " low ", " high ", " scale "\n" SATURATE("r1", low)                                                 \
    "    mov " row ", r1\n"
#define ROWS(row)                                                                                                      \
    row("r2", "r6", "r7", "r2")                                                                                        \
    row("r3", "r4", "r5", "r3")                                                                                        \
    row("r10", "r10", "r11", "r12")                                                                                    \
    row("r12", "r8", "r9", "lr")

__asm__(BEGIN("rtcore_rows_w16_a64")
    PLAN("64")
    "    mov lr, r5\n"
    "8:  ldm r0!, {r4-r11}\n"
    COLUMNS(REPEAT("16", NEXT_W16), "r12", COLUMN_W16 "    add r0, #8\n")
    "6:\n" UPPERS ROWS(CHECKED_ROW)
    "    b 11f\n"
    "7:\n" UPPERS ROWS(ROW)
    "11:\n" NEXT_GROUP("r4", "r5", "r2, r3, r10, r12")
    END("rtcore_rows_w16_a64"));

/* ---------------------------------------------------------------- w8_a32: r6, r4, r9, r7 the sums; r2 a column of x, r3 a
 * weight; lr the end of x. 72 bytes a pair. */
#define COLUMN_W8                                                                                                      \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r6, r3, r2, r6\n"                                                                                         \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r4, r3, r2, r4\n"                                                                                         \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r9, r3, r2, r9\n"                                                                                         \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r7, r3, r2, r7\n"
/* rtcore_scaled: sum * 2^up * scale >> 32, rounded; both are lost. */
#define SCALED                                                                                                         \
    "    .macro rtcore_scaled row, sum, scale, up\n"                                                                   \
    "    lsl \\sum, \\up\n"                                                                                           \
    "    smull \\scale, \\sum, \\sum, \\scale\n"                                                                     \
    "    adds \\scale, \\scale\n"                                                                                     \
    "    adc \\row, \\sum, #0\n"                                                                                      \
    "    .endm\n"
/* Two groups at a time, of an even number of columns, bounded: r4-r7 and r8-r11 the sums, r12 the stride. 68 bytes a column. */
#define TWO_PRODUCTS(sum, other)                                                                                       \
    "    ldrsb r3, [r0, r12]\n"                                                                                        \
    "    mla " other ", r3, r2, " other "\n"                                                                           \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla " sum ", r3, r2, " sum "\n"
#define COLUMN_OF_TWO                                                                                                  \
    "    ldrsh r2, [r1], #2\n"                                                                                         \
    TWO_PRODUCTS("r4", "r8") TWO_PRODUCTS("r5", "r9") TWO_PRODUCTS("r6", "r10") TWO_PRODUCTS("r7", "r11")

__asm__(SCALED BEGIN("rtcore_rows_w8_a32")
    PLAN("72")
    "    mov lr, r5\n"
    "    sub r10, r4, r3\n"
    "    cmp r10, #16\n"
    "    beq 8f\n"
    "    adr.w r10, 7f + 1\n"
    "    cmp r6, r10\n"
    "    bne 8f\n"
    "    ldr r12, [sp, #32]\n"
    "    ubfx r10, r2, #1, #2\n"
    "    adr.w r9, 3f + 1\n"
    "    mov r11, #136\n"
    "    mls r9, r10, r11, r9\n"
    "    str r9, [sp, #20]\n"
    "4:  ldm r0!, {r4-r7}\n"
    "    add r2, r0, r12\n"
    "    ldmdb r2, {r8-r11}\n"
    "    ldr pc, [sp, #20]\n"
    "    .balign 4\n"
    "9:\n" REPEAT("8", COLUMN_OF_TWO)
    "3:  cmp r1, lr\n"
    "    bne 9b\n"
    "    ldr lr, [r0, #16]\n"
    "    ldrd r2, r3, [r0], #8\n"
    "    rtcore_scaled r4, r4, r2, lr\n"
    "    rtcore_scaled r5, r5, r3, lr\n"
    "    ldrd r2, r3, [r0], #12\n"
    "    rtcore_scaled r6, r6, r2, lr\n"
    "    rtcore_scaled r7, r7, r3, lr\n"
    "    add r0, r12\n"
    "    ldrd r2, r3, [r0, #-20]\n"
    "    rtcore_scaled r8, r8, r2, lr\n"
    "    rtcore_scaled r9, r9, r3, lr\n"
    "    ldrd r2, r3, [r0, #-12]\n"
    "    rtcore_scaled r10, r10, r2, lr\n"
    "    rtcore_scaled r11, r11, r3, lr\n"
    "    ldm sp, {r1, r2, r3, lr}\n"
    "    stm r2!, {r4-r11}\n"
    "    str r2, [sp, #4]\n"
    "    subs r3, r2\n"
    "    cmp r3, #16\n"
    "    bhi 4b\n"
    "    bne 10f\n"
    "8:  ldrd r6, r4, [r0], #8\n"
    "    ldrd r9, r7, [r0], #8\n"
    COLUMNS(REPEAT("16", "    ldrsh r2, [r1], #2\n" COLUMN_W8), "r2", COLUMN_W8 "    add r0, #4\n")
    "6:  ldm r0!, {r2, r3, r5, r8, r12}\n"
    CHECK("r6", "r4", "r9", "r7")
    "    b 13f\n"
    "7:  ldm r0!, {r2, r3, r5, r8, r12}\n"
    "13:\n"
    "    rtcore_scaled r2, r6, r2, r12\n"
    "    rtcore_scaled r3, r4, r3, r12\n"
    "    rtcore_scaled r5, r9, r5, r12\n"
    "    rtcore_scaled r8, r7, r8, r12\n"
    "11:\n" NEXT_GROUP("r4", "r6", "r2, r3, r5, r8")
    EXACTLY("r6", "r4", "r9", "r7")
    END("rtcore_rows_w8_a32"));
/* clang-format on */

int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix) { return rtcore_stream_check(matrix, 0); }
