/* rtcore_stream_i16.c - rows of matrices for Cortex-M4, M7 and M33 (with the DSP extension), sums and requantization in one.
 *
 * A stream is read from front to back by LDM, group after group of four rows, so that a group costs no addresses:
 *
 *   W16_A64  two half groups of two rows: [2] int64 bias, [pairs][2 rows] words of two columns, [2] uint32 2^(32 - shift)
 *   W8_A32   [2 row pairs] (int64 256 * bias of the upper row + bias of the lower, int32 bias of the lower),
 *            [pairs][2 row pairs] words of two columns of 256 * upper + lower, [4] int32 scale, up
 *
 * pairs are pairs of columns, the last one of an odd number with a zero weight. SMLAD and SMLALD multiply both columns.
 * int8: SMLALD of 256 * upper + lower and SMLAD of lower alone, three instructions for four products; the upper row is
 * the difference / 256. 64-bit sums, rounding half in the bias, go >> shift as * 2^(32 - shift) >> 32; 32-bit sums as
 * (sum * 2^up * scale) >> 32 rounded, by SMMULR. BOUNDED: no input takes a row or sum * 2^up out of int32, so that nothing
 * need be checked. x is read by LDM where it lies on a word, by LDR elsewhere.
 * Assembly functions at file scope depend on no compiler's optimisation. GNU assembler syntax: gcc, clang.
 * Neighbours: rtcore_matrix_i16.h, rtcore/streams.py (writes streams).
 */
#include <stddef.h>

#include "rtcore_matrix_i16.h"

RTCORE_STATIC_ASSERT(nb_inputs_is_at_24, offsetof(rtcore_matrix_i16, nb_inputs) == 24);
RTCORE_STATIC_ASSERT(stream_form_and_stride_are_at_32, offsetof(rtcore_matrix_i16, stream) == 32 &&
                                                           offsetof(rtcore_matrix_i16, stride) == 40);
RTCORE_STATIC_ASSERT(bits_of_form, RTCORE_STREAM_BOUNDED == 16 && RTCORE_STREAM_W16_A64 == 1);

/* clang-format off */
/* rtcore_matrix_i16_rows: r0 matrix, r1 group, r2 count, r3 x, [sp] rows. What kernels begin with: r0 stream of the group,
 * r1 x, r2 n, r3 rows, r4 end of rows, r7 form / 2; nine registers saved. */
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
    "    ldrd r7, r6, [r0, #36]\n"
    "    ldr r0, [r0, #24]\n"
    "    mla r5, r1, r6, r12\n"
    "    mov r1, r3\n"
    "    ldr r3, [sp, #36]\n"
    "    add r4, r3, r2, lsl #4\n"
    "    mov r2, r0\n"
    "    mov r0, r5\n"
    "    lsrs r7, r7, #1\n"
    "    bcs rtcore_m4_rows_w16_a64\n"
    "    b rtcore_m4_rows_w8_a32\n"
    "    .size rtcore_matrix_i16_rows, . - rtcore_matrix_i16_rows\n"
    "    .text\n");

#define BEGIN(name)                                                                                                    \
    "    .syntax unified\n    .thumb\n    .section .text." name ",\"ax\",%progbits\n    .balign 4\n"                    \
    "    .global " name "\n    .hidden " name "\n    .type " name ",%function\n    .thumb_func\n" name ":\n"
#define END(name) "    .size " name ", . - " name "\n    .text\n"

/* Where loops begin and end: the columns in blocks of 2^log2 pairs and `bytes` bytes of code, 2^turn of them in a turn
 * where x is aligned, else one; then single pairs of 2^single bytes; then the last column of an odd number.
 * The frame is then x, rows, end of rows, entry into the blocks, entry into the singles, what follows them, where a group
 * ends (label 7 when bounded, else 6), end of the blocks in x. */
#define PLAN(log2, turn, bytes, single)                                                                                \
    "    lsls r7, r7, #28\n"                                                                                           \
    "    adr.w r8, 7f + 1\n"                                                                                           \
    "    it pl\n"                                                                                                      \
    "    adrpl.w r8, 6f + 1\n"                                                                                         \
    "    lsr r10, r2, #(" log2 " + 1)\n"                                                                               \
    "    add r12, r1, r10, lsl #(" log2 " + 2)\n"                                                                      \
    "    and r10, r10, #((1 << " turn ") - 1)\n"                                                                       \
    "    adr.w r5, 2f + 1\n"                                                                                           \
    "    mov r11, #" bytes "\n"                                                                                        \
    "    mls r5, r10, r11, r5\n"                                                                                       \
    "    mov r6, r8\n"                                                                                                 \
    "    mov r7, r8\n"                                                                                                 \
    "    lsl r11, r2, #(31 - " log2 ")\n"                                                                              \
    "    orrs r11, r11, r1, lsl #30\n"                                                                                 \
    "    beq 10f\n"                                                                                                    \
    "    lsls r11, r1, #30\n"                                                                                          \
    "    it ne\n"                                                                                                      \
    "    adrne.w r5, 3f + 1\n"                                                                                         \
    "    lsls r11, r2, #31\n"                                                                                          \
    "    it ne\n"                                                                                                      \
    "    adrne.w r7, 5f + 1\n"                                                                                         \
    "    adr.w r6, 4f + 1\n"                                                                                           \
    "    ubfx r10, r2, #1, #" log2 "\n"                                                                                \
    "    sub r6, r6, r10, lsl #" single "\n"                                                                           \
    "    cmp r10, #0\n"                                                                                                \
    "    it eq\n"                                                                                                      \
    "    moveq r6, r7\n"                                                                                               \
    "10: push {r1, r3-r8, r12}\n"
#define LEAVE "    add sp, #32\n    pop {r4-r11, pc}\n"
/* Both loops over blocks, the singles and the odd column. */
#define COLUMNS(aligned, unaligned, singles, odd)                                                                      \
    "    ldr pc, [sp, #12]\n"                                                                                          \
    "    .balign 4\n"                                                                                                  \
    "1:\n" aligned                                                                                                     \
    "2:  ldr r2, [sp, #28]\n"                                                                                           \
    "    cmp r1, r2\n"                                                                                                 \
    "    bne 1b\n"                                                                                                     \
    "    ldr pc, [sp, #16]\n"                                                                                          \
    "9:\n" unaligned                                                                                                   \
    "3:  ldr r2, [sp, #28]\n"                                                                                           \
    "    cmp r1, r2\n"                                                                                                 \
    "    bne 9b\n"                                                                                                     \
    "    ldr pc, [sp, #16]\n"                                                                                          \
    "    .balign 4\n" singles                                                                                          \
    "4:  ldr pc, [sp, #20]\n"                                                                                          \
    "5:  ldrsh r10, [r1]\n" odd                                                                                        \
    "    ldr pc, [sp, #24]\n"
#define REPEAT(times, code) "    .rept " times "\n" code "    .endr\n"

/* (high:low) to `low`: saturated to PRE. */
#define SATURATE(low, high)                                                                                            \
    "    cmp " high ", " low ", asr #31\n"                                                                             \
    "    itt ne\n"                                                                                                     \
    "    mvnne " low ", #0x80000000\n"                                                                                 \
    "    eorne " low ", " low ", " high ", asr #31\n"                                                                  \
    "    cmp " low ", #0x80000000\n"                                                                                   \
    "    it eq\n"                                                                                                      \
    "    addeq " low ", #1\n"

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

__asm__(BEGIN("rtcore_m4_rows_w16_a64")
    PLAN("2", "3", "44", "4")
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
    "11: ldm sp, {r1, r2, r3}\n"
    "    stm r2!, {r4, r5}\n"
    "    str r2, [sp, #4]\n"
    "    cmp r2, r3\n"
    "    bne 8b\n"
    LEAVE
    END("rtcore_m4_rows_w16_a64"));

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
    "11: ldm sp, {r1, r4, r6}\n"                                                                                       \
    "    stm r4!, {r2, r3, r5, r8}\n"                                                                                  \
    "    str r4, [sp, #4]\n"                                                                                           \
    "    cmp r4, r6\n"                                                                                                \
    "    bne 8b\n"                                                                                                     \
    LEAVE
/* Whether any of the sums would leave int32 on its way up; then to label 12. */
#define CHECK(a, b, c, d)                                                                                              \
    "    eor r10, " a ", " a ", asr #31\n"                                                                             \
    "    eor r11, " b ", " b ", asr #31\n"                                                                             \
    "    orr r10, r11\n"                                                                                               \
    "    eor r11, " c ", " c ", asr #31\n"                                                                             \
    "    orr r10, r11\n"                                                                                               \
    "    eor r11, " d ", " d ", asr #31\n"                                                                             \
    "    orr r10, r11\n"                                                                                               \
    "    rsb r11, r12, #31\n"                                                                                          \
    "    lsrs r10, r11\n"                                                                                              \
    "    bne 12f\n"
/* sum * scale + half, exact, >> (32 - up), saturated, to `scale`. lr: half, r1: 32 - up. */
#define EXACTLY(a, b, c, d)                                                                                            \
    "    .macro rtcore_exact sum, scale\n"                                                                             \
    "    smull r10, r11, \\sum, \\scale\n"                                                                            \
    "    adds r10, lr\n"                                                                                               \
    "    adc r11, r11, #0\n"                                                                                           \
    "    lsr r10, r1\n"                                                                                                \
    "    lsl \\scale, r11, r12\n"                                                                                      \
    "    orr \\scale, r10\n"                                                                                           \
    "    asr r11, r1\n" SATURATE("\\scale", "r11")                                                                     \
    "    .endm\n"                                                                                                      \
    "12: mov lr, #1\n"                                                                                                 \
    "    rsb r1, r12, #31\n"                                                                                           \
    "    lsl lr, r1\n"                                                                                                 \
    "    add r1, #1\n"                                                                                                 \
    "    rtcore_exact " a ", r2\n"                                                                                     \
    "    rtcore_exact " b ", r3\n"                                                                                     \
    "    rtcore_exact " c ", r5\n"                                                                                     \
    "    rtcore_exact " d ", r8\n"                                                                                     \
    "    b 11b\n"

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

__asm__(BEGIN("rtcore_m4_rows_w8_a32")
    PLAN("1", "3", "56", "5")
    "8:  ldm r0!, {r4-r9}\n"
    COLUMNS(REPEAT("8", "    ldrd r10, r11, [r1], #8\n" BLOCK_W8_A32),
            "    ldr r10, [r1], #4\n    ldr r11, [r1], #4\n" BLOCK_W8_A32,
            "    ldr r10, [r1], #4\n" SINGLE_W8_A32, SINGLE_W8_A32)
    "6:\n" UPPER_ROWS
    CHECK("r6", "r4", "r9", "r7")
    "    b 13f\n"
    "7:\n" UPPER_ROWS
    "13:\n"
    SCALE("r6", "r4", "r9", "r7")
    EXACTLY("r6", "r4", "r9", "r7")
    END("rtcore_m4_rows_w8_a32"));
/* clang-format on */

int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix) {
    const int form = matrix->form & ~RTCORE_STREAM_BOUNDED;
    const int known = form == RTCORE_STREAM_W16_A64 || form == RTCORE_STREAM_W8_A32;
    return known && ((uintptr_t)matrix->stream & 3U) == 0 ? RTCORE_OK : RTCORE_E_TABLE;
}
