/* rtcore_stream_i16.c - rows of matrices for Cortex-M4, M7 and M33 (with the DSP extension), sums and requantization in one.
 *
 * A stream is read from front to back by LDM, group after group of four rows, so that a group costs no addresses:
 *
 *   W16_A64  two half groups of two rows: [2] int64 bias, [pairs][2 rows] words of two columns, [2] uint32 2^(32 - shift)
 *   W8_A32   [2 row pairs] (int64 256 * bias of the upper row + bias of the lower, int32 bias of the lower),
 *            [pairs][2 row pairs] words of two columns of 256 * upper + lower, [4] int32 scale, up
 *   ONE_LESS up + 2^8 * m + 2^16 * 4 n, [m of n words] 2 * column + row pair, whose upper weight is one less
 *
 * pairs are pairs of columns, the last one of an odd number with a zero weight. SMLAD and SMLALD multiply both columns.
 * int8: SMLALD of 256 * upper + lower and SMLAD of lower alone, three instructions for four products; the upper row is
 * the difference / 256. -128 above a negative weight would not fit: it is -127 there, and x is taken away once more. 64-bit sums, rounding half in the bias, go >> shift as * 2^(32 - shift) >> 32; 32-bit sums as
 * (sum * 2^up * scale) >> 32 rounded, by SMMULR. BOUNDED: no input takes a row or sum * 2^up out of int32, so that nothing
 * need be checked. x is read by LDM where it lies on a word, by LDR elsewhere.
 * Assembly functions at file scope depend on no compiler's optimisation. GNU assembler syntax: gcc, clang.
 * Neighbours: rtcore_matrix_i16.h, rtcore/streams.py (writes streams).
 */
#include "rtcore_stream_thumb2.h"

/* clang-format off */
/* Blocks, then single pairs of 2^single bytes, then the last column of an odd number. Eight blocks are a turn; where one turn
 * is enough, they go on to what follows, else to where turns are counted: label 14. Where x does not lie on a word, blocks of
 * their own at label 9, counted in every turn. The frame's last words are where blocks are entered, and what follows the last turn. */
#define PLAN(log2, bytes, single, others)                                                                                     \
    PLAN_BLOCKS(log2, "    cmp r10, #8\n    it hi\n    andhi r10, r10, #7\n", bytes, others)                                   \
    "    lsl r11, r2, #(31 - " log2 ")\n"                                                                              \
    "    orrs r11, r11, r1, lsl #30\n"                                                                                 \
    "    beq 10f\n"                                                                                                    \
    "    lsls r11, r1, #30\n"                                                                                          \
    "    it ne\n"                                                                                                      \
    "    adrne.w r12, 3f + 1\n"                                                                                         \
    "    lsls r11, r2, #31\n"                                                                                          \
    "    it ne\n"                                                                                                      \
    "    adrne.w r7, 5f + 1\n"                                                                                         \
    "    adr.w r6, 4f + 1\n"                                                                                           \
    "    ubfx r10, r2, #1, #" log2 "\n"                                                                                \
    "    sub r6, r6, r10, lsl #" single "\n"                                                                           \
    "    cmp r10, #0\n"                                                                                                \
    "    it eq\n"                                                                                                      \
    "    moveq r6, r7\n"                                                                                               \
    "10: mov lr, r6\n"                                                                                                 \
    "    cmp r2, #(9 << (" log2 " + 1))\n"                                                                             \
    "    it hs\n"                                                                                                      \
    "    adrhs.w r6, 14f + 1\n"                                                                                        \
    "    push {r1, r3-r8, r12, lr}\n"
/* Both loops over blocks, the singles and the odd column. */
#define COLUMNS(aligned, unaligned, singles, odd)                                                                      \
    "    ldr pc, [sp, #28]\n"                                                                                          \
    "    .balign 4\n"                                                                                                  \
    "1:\n" aligned                                                                                                     \
    "2:  ldr pc, [sp, #16]\n"                                                                                          \
    "    .balign 4\n"                                                                                                  \
    "14: ldr r2, [sp, #12]\n"                                                                                          \
    "    cmp r1, r2\n"                                                                                                 \
    "    bne 1b\n"                                                                                                     \
    "    ldr pc, [sp, #32]\n"                                                                                          \
    "9:\n" unaligned                                                                                                   \
    "3:  ldr r2, [sp, #12]\n"                                                                                          \
    "    cmp r1, r2\n"                                                                                                 \
    "    bne 9b\n"                                                                                                     \
    "    ldr pc, [sp, #32]\n"                                                                                          \
    "    .balign 4\n" singles                                                                                          \
    "4:  ldr pc, [sp, #20]\n"                                                                                          \
    "5:  ldrsh r10, [r1]\n" odd                                                                                        \
    "    ldr pc, [sp, #24]\n"

/* ---------------------------------------------------------------- w16_a64: r4:r5 and r6:r7 the sums, a half group at a time.
 * r8-r11 four pairs of x; r2, r3, r12, lr two pairs of two rows of w. 44 bytes from LDM, 56 from LDR. */
#define PAIRS_W16_A64(x0, x1)                                                                                          \
    "    ldm r0!, {r2, r3, r12, lr}\n"                                                                                 \
    "    smlald r4, r5, r2, " x0 "\n"                                                                                  \
    "    smlald r6, r7, r3, " x0 "\n"                                                                                  \
    "    smlald r4, r5, r12, " x1 "\n"                                                                                 \
    "    smlald r6, r7, lr, " x1 "\n"
#define LOAD_4                                                                                                         \
    "    ldr r8, [r1], #4\n"                                                                                           \
    "    ldr r9, [r1], #4\n"                                                                                           \
    "    ldr r10, [r1], #4\n"                                                                                          \
    "    ldr r11, [r1], #4\n"
#define BLOCK_W16_A64 PAIRS_W16_A64("r8", "r9") PAIRS_W16_A64("r10", "r11")
#define SINGLE_W16_A64                                                                                                 \
    "    ldm r0!, {r12, lr}\n"                                                                                         \
    "    smlald r4, r5, r12, r10\n"                                                                                    \
    "    smlald r6, r7, lr, r10\n"

__asm__(BEGIN("rtcore_rows_w16_a64")
    PLAN("2", "44", "4", "")
    "8:  ldm r0!, {r4-r7}\n"
    COLUMNS(REPEAT("8", "    ldm r1!, {r8-r11}\n" BLOCK_W16_A64), LOAD_4 BLOCK_W16_A64,
            REPEAT("3", "    ldr r10, [r1], #4\n" SINGLE_W16_A64), SINGLE_W16_A64)
    "6:  ldrd r2, r3, [r0], #8\n"
    "    umull r4, r8, r4, r2\n"
    "    mov r9, #0\n"
    "    smlal r8, r9, r5, r2\n"
    "    umull r6, r10, r6, r3\n"
    "    mov r11, #0\n"
    "    smlal r10, r11, r7, r3\n"
    SATURATE("r8", "r9")
    SATURATE("r10", "r11")
    "    mov r4, r8\n"
    "    mov r5, r10\n"
    "    b 11f\n"
    "7:  ldrd r2, r3, [r0], #8\n"
    "    umull r4, r8, r4, r2\n"
    "    mla r4, r5, r2, r8\n"
    "    umull r6, r9, r6, r3\n"
    "    mla r5, r7, r3, r9\n"
    "11:\n" NEXT_GROUP("r2", "r3", "r4, r5")
    END("rtcore_rows_w16_a64"));

/* The rows in a, b, c, d of 32-bit sums: [r0] holds their scales and how far up they go first. r12: up. */
#define SCALE(a, b, c, d)                                                                                              \
    "    lsl " a ", r12\n"                                                                                             \
    "    lsl " b ", r12\n"                                                                                             \
    "    lsl " c ", r12\n"                                                                                             \
    "    lsl " d ", r12\n"                                                                                             \
    "    smmulr r2, " a ", r2\n"                                                                                       \
    "    smmulr r3, " b ", r3\n"                                                                                       \
    "    smmulr r5, " c ", r5\n"                                                                                       \
    "    smmulr r8, " d ", r8\n"                                                                                       \
    "11:\n" NEXT_GROUP("r4", "r6", "r2, r3, r5, r8")

/* ---------------------------------------------------------------- w8_a32: r4:r5 256 * row 1 + row 0, r6 row 0; r7:r8, r9 rows
 * 3 and 2. r10, r11 two pairs of x; r2, r3, r12, lr two pairs of two row pairs of w. 56 bytes from LDRD, 60 from LDR. */
#define PAIR_W8_A32(w0, w1, x)                                                                                         \
    "    smlald r4, r5, " w0 ", " x "\n"                                                                               \
    "    sxtb16 " w0 ", " w0 "\n"                                                                                      \
    "    smlad r6, " w0 ", " x ", r6\n"                                                                                \
    "    smlald r7, r8, " w1 ", " x "\n"                                                                               \
    "    sxtb16 " w1 ", " w1 "\n"                                                                                      \
    "    smlad r9, " w1 ", " x ", r9\n"
#define BLOCK_W8_A32                                                                                                   \
    "    ldm r0!, {r2, r3, r12, lr}\n" PAIR_W8_A32("r2", "r3", "r10") PAIR_W8_A32("r12", "lr", "r11")
#define SINGLE_W8_A32 "    ldm r0!, {r12, lr}\n" PAIR_W8_A32("r12", "lr", "r10")
/* The upper rows from the sums: r4 row 1, r7 row 3; then the scales. */
#define UPPER_ROWS                                                                                                     \
    "    subs r4, r6\n"                                                                                                \
    "    sbc r5, r5, r6, asr #31\n"                                                                                    \
    "    lsr r4, #8\n"                                                                                                 \
    "    orr r4, r4, r5, lsl #24\n"                                                                                    \
    "    subs r7, r9\n"                                                                                                \
    "    sbc r8, r8, r9, asr #31\n"                                                                                    \
    "    lsr r7, #8\n"                                                                                                 \
    "    orr r7, r7, r8, lsl #24\n"                                                                                    \
    "    ldm r0!, {r2, r3, r5, r8, r12}\n"

/* The weights that are one less: r4 row 1, r7 row 3. r12 is up from here on. */
#define ONE_LESS                                                                                                       \
    "    add r11, r0, r12, lsr #16\n"                                                                                  \
    "    ubfx r10, r12, #8, #8\n"                                                                                      \
    "    uxtb r12, r12\n"                                                                                              \
    "    ldr r1, [sp]\n"                                                                                               \
    "15: subs r10, #1\n"                                                                                               \
    "    bmi 16f\n"                                                                                                    \
    "    ldr lr, [r0], #4\n"                                                                                           \
    "    lsrs lr, lr, #1\n"                                                                                            \
    "    ldrsh lr, [r1, lr, lsl #1]\n"                                                                                 \
    "    ite cs\n"                                                                                                     \
    "    subcs r7, r7, lr\n"                                                                                           \
    "    subcc r4, r4, lr\n"                                                                                           \
    "    b 15b\n"                                                                                                      \
    "16: mov r0, r11\n"

__asm__(BEGIN("rtcore_rows_w8_a32")
    PLAN("1", "56", "5", "    it cs\n    adrcs.w r8, 18f + 1\n")
    "8:  ldm r0!, {r4-r9}\n"
    COLUMNS(REPEAT("8", "    ldrd r10, r11, [r1], #8\n" BLOCK_W8_A32),
            "    ldr r10, [r1], #4\n    ldr r11, [r1], #4\n" BLOCK_W8_A32,
            "    ldr r10, [r1], #4\n" SINGLE_W8_A32, SINGLE_W8_A32)
    "    .macro rtcore_upper_rows\n" UPPER_ROWS "    .endm\n"
    "18: rtcore_upper_rows\n"
    ONE_LESS
    "    b 19f\n"
    "6:  rtcore_upper_rows\n"
    "19:\n"
    CHECK("r6", "r4", "r9", "r7")
    "    b 13f\n"
    "7:  rtcore_upper_rows\n"
    "13:\n"
    SCALE("r6", "r4", "r9", "r7")
    EXACTLY("r6", "r4", "r9", "r7")
    END("rtcore_rows_w8_a32"));
/* clang-format on */

int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix) {
    return rtcore_stream_check(matrix, RTCORE_STREAM_ONE_LESS);
}
