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
 * Neighbours: rtcore_stream_thumb2.h, rtcore/streams.py (writes streams).
 */
#define FORMS 0
#include "rtcore_stream_thumb2.h"

/* clang-format off */
/* Blocks of a pair, eight in a turn, then the last column of an odd number. */
#define FRAME_WORDS "8"
#define PLAN(bytes)                                                                                                    \
    PLAN_BLOCKS("0", "    and r10, r10, #7\n", bytes, "")                                                              \
    "    lsls r11, r2, #31\n"                                                                                          \
    "    it ne\n"                                                                                                      \
    "    adrne.w r6, 5f + 1\n"                                                                                         \
    "    push {r1, r3-r8, r12}\n"
#define COLUMNS(turn, x, odd)                                                                                          \
    "    ldr pc, [sp, #12]\n"                                                                                          \
    "    .balign 4\n"                                                                                                  \
    "1:\n" turn                                                                                                        \
    "2:  ldr r2, [sp, #28]\n"                                                                                          \
    "    cmp r1, r2\n"                                                                                                 \
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
/* A sum's row to `scale`: of a bounded one, and of any. r1 is free. */
#define ROW(low, high, scale)                                                                                          \
    "    umull " low ", r1, " low ", " scale "\n"                                                                      \
    "    mla " scale ", " high ", " scale ", r1\n"
#define CHECKED_ROW(low, high, scale)                                                                                  \
    "    umull " low ", r1, " low ", " scale "\n"                                                                      \
    "    mov " low ", #0\n"                                                                                            \
    "    smlal r1, " low ", " high ", " scale "\n" SATURATE("r1", low)                                                 \
    "    mov " scale ", r1\n"

__asm__(BEGIN("rtcore_rows_w16_a64")
    PLAN("64")
    "8:  ldm r0!, {r4-r11}\n"
    COLUMNS(REPEAT("16", NEXT_W16), "r12", COLUMN_W16 "    add r0, #8\n")
    "6:\n" UPPERS
    CHECKED_ROW("r6", "r7", "r2")
    CHECKED_ROW("r4", "r5", "r3")
    CHECKED_ROW("r10", "r11", "r12")
    CHECKED_ROW("r8", "r9", "lr")
    "    b 11f\n"
    "7:\n" UPPERS
    ROW("r6", "r7", "r2")
    ROW("r4", "r5", "r3")
    ROW("r10", "r11", "r12")
    ROW("r8", "r9", "lr")
    "11:\n" NEXT_GROUP("r4", "r5", "r2, r3, r12, lr")
    END("rtcore_rows_w16_a64"));

/* ---------------------------------------------------------------- w8_a32: r6, r4, r9, r7 the sums; r2 a column of x, r3 a
 * weight. 72 bytes a pair. */
#define COLUMN_W8                                                                                                      \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r6, r3, r2, r6\n"                                                                                         \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r4, r3, r2, r4\n"                                                                                         \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r9, r3, r2, r9\n"                                                                                         \
    "    ldrsb r3, [r0], #1\n"                                                                                         \
    "    mla r7, r3, r2, r7\n"
/* sum * 2^up * scale >> 32, rounded, to `scale`; r10 and r11 are free, r12 is up. */
#define SCALED(sum, scale)                                                                                             \
    "    lsl " sum ", r12\n"                                                                                           \
    "    smull r10, r11, " sum ", " scale "\n"                                                                         \
    "    adds r10, r10\n"                                                                                              \
    "    adc " scale ", r11, #0\n"

__asm__(BEGIN("rtcore_rows_w8_a32")
    PLAN("72")
    "8:  ldrd r6, r4, [r0], #8\n"
    "    ldrd r9, r7, [r0], #8\n"
    COLUMNS(REPEAT("16", "    ldrsh r2, [r1], #2\n" COLUMN_W8), "r2", COLUMN_W8 "    add r0, #4\n")
    "6:  ldm r0!, {r2, r3, r5, r8, r12}\n"
    CHECK("r6", "r4", "r9", "r7")
    "    b 13f\n"
    "7:  ldm r0!, {r2, r3, r5, r8, r12}\n"
    "13:\n"
    SCALED("r6", "r2")
    SCALED("r4", "r3")
    SCALED("r9", "r5")
    SCALED("r7", "r8")
    "11:\n" NEXT_GROUP("r4", "r6", "r2, r3, r5, r8")
    EXACTLY("r6", "r4", "r9", "r7")
    END("rtcore_rows_w8_a32"));
/* clang-format on */
