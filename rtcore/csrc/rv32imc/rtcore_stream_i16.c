/* rtcore_stream_i16.c - rows of matrices for RISC-V RV32IM, sums and requantization in one.
 *
 * A stream is read from front to back, group after group of four rows, so that a group costs no addresses:
 *
 *   W16_A64  [4] bias modulo 2^32, [4] floor(bias / 2^16), [pairs][4 rows][2 columns] int16, [4] 2^(32 - shift)
 *   W8_A32   [4] int32 bias, [pairs][4 rows][2 columns] int8, [4] int32 scale, up
 *
 * pairs are pairs of columns, the last one of an odd number with a zero weight. 64-bit sums take no carries: a pair p of int16
 * products fits int32, low is the sum of p modulo 2^32, high the sum of floor(p / 2^16); the sum is 2^16 high + r, where r, the
 * sum of p mod 2^16, is low - 2^16 high modulo 2^32: exact up to 65,535 pairs and the bias. Rounding half in the bias, sums go
 * >> shift as * 2^(32 - shift) >> 32; 32-bit sums as (sum * 2^up * scale) >> 32 rounded. BOUNDED: no input takes a row or
 * sum * 2^up out of int32, so that nothing need be checked. Loops are assembly functions at file scope, which depend on no
 * compiler's optimisation. GNU assembler syntax: gcc, clang. Neighbours: rtcore_matrix_i16.h, rtcore/streams.py (writes
 * streams).
 */
#include <stddef.h>

#include "rtcore_matrix_i16.h"

/* end: behind the last of rows */
typedef void kernel(const int32_t *stream, const int16_t *x, int n, int32_t *rows, int32_t *end, int bounded);
kernel rtcore_rv_rows_w16_a64, rtcore_rv_rows_w8_a32;

/* clang-format off */
#define BEGIN(name)                                                                                                    \
    "    .section .text." name ",\"ax\",@progbits\n    .balign 4\n"                                                    \
    "    .global " name "\n    .hidden " name "\n    .type " name ",@function\n" name ":\n"                            \
    "    addi sp, sp, -32\n"                                                                                           \
    "    sw s0, 0(sp)\n    sw s1, 4(sp)\n    sw s2, 8(sp)\n    sw s3, 12(sp)\n"                                        \
    "    sw s4, 16(sp)\n    sw s5, 20(sp)\n    sw s6, 24(sp)\n"
#define END(name)                                                                                                      \
    "    lw s0, 0(sp)\n    lw s1, 4(sp)\n    lw s2, 8(sp)\n    lw s3, 12(sp)\n"                                        \
    "    lw s4, 16(sp)\n    lw s5, 20(sp)\n    lw s6, 24(sp)\n"                                                        \
    "    addi sp, sp, 32\n    ret\n    .size " name ", . - " name "\n    .text\n"

/* A group's rows: a0 stream, a1 x, t2 where it begins, s2 and s3 the ends of its fours of pairs and of its pairs, s5 whether a
 * column is left, a3 rows, s4 their end, s6 bounded. A macro rtcore_pair adds the products of a4, a5 and the pair at \at(a0), of
 * `bytes` bytes, to the sums, t3-t6 (and a6, a7, s0, s1). */
#define COLUMNS(bytes, begin)                                                                                          \
    "    mv s4, a4\n"                                                                                                  \
    "    mv s6, a5\n"                                                                                                  \
    "    mv t2, a1\n"                                                                                                  \
    "    andi s5, a2, 1\n"                                                                                             \
    "    srli t0, a2, 3\n"                                                                                             \
    "    slli t0, t0, 4\n"                                                                                             \
    "    add s2, a1, t0\n"                                                                                             \
    "    srli t0, a2, 1\n"                                                                                             \
    "    slli t0, t0, 2\n"                                                                                             \
    "    add s3, a1, t0\n"                                                                                             \
    "2:\n" begin                                                                                                       \
    "    mv a1, t2\n"                                                                                                  \
    "    beq a1, s2, 3f\n"                                                                                             \
    "1:\n"                                                                                                             \
    "    .set rtcore_k, 0\n"                                                                                           \
    "    .rept 4\n"                                                                                                    \
    "    lh a4, 4 * rtcore_k(a1)\n"                                                                                    \
    "    lh a5, 4 * rtcore_k + 2(a1)\n"                                                                                \
    "    rtcore_pair " bytes " * rtcore_k\n"                                                                           \
    "    .set rtcore_k, rtcore_k + 1\n"                                                                                \
    "    .endr\n"                                                                                                      \
    "    addi a1, a1, 16\n"                                                                                            \
    "    addi a0, a0, 4 * " bytes "\n"                                                                                 \
    "    bne a1, s2, 1b\n"                                                                                             \
    "3:  beq a1, s3, 5f\n"                                                                                             \
    "4:  lh a4, 0(a1)\n"                                                                                               \
    "    lh a5, 2(a1)\n"                                                                                               \
    "    rtcore_pair 0\n"                                                                                              \
    "    addi a1, a1, 4\n"                                                                                             \
    "    addi a0, a0, " bytes "\n"                                                                                     \
    "    bne a1, s3, 4b\n"                                                                                             \
    "5:  beqz s5, 6f\n"                                                                                                \
    "    lh a4, 0(a1)\n"                                                                                               \
    "    li a5, 0\n"                                                                                                   \
    "    rtcore_pair 0\n"                                                                                              \
    "    addi a0, a0, " bytes "\n"                                                                                     \
    "6:\n"                                                                                                             \
    "    .purgem rtcore_pair\n"
#define NEXT_GROUP                                                                                                     \
    "    addi a3, a3, 16\n"                                                                                            \
    "    bne a3, s4, 2b\n"
/* high:low to low, saturated to PRE; high and temp are lost. */
#define SATURATE(low, high, temp)                                                                                      \
    "    srai " temp ", " low ", 31\n"                                                                                 \
    "    beq " high ", " temp ", .Lfits\\@\n"                                                                          \
    "    srai " high ", " high ", 31\n"                                                                                \
    "    li " temp ", 0x7fffffff\n"                                                                                    \
    "    xor " low ", " high ", " temp "\n"                                                                            \
    ".Lfits\\@:\n"                                                                                                     \
    "    li " temp ", 0x80000000\n"                                                                                    \
    "    bne " low ", " temp ", .Ldone\\@\n"                                                                           \
    "    addi " low ", " low ", 1\n"                                                                                   \
    ".Ldone\\@:\n"

__asm__(
    "    .macro rtcore_row low, high, at\n"
    "    lh t0, \\at(a0)\n"
    "    lh t1, \\at + 2(a0)\n"
    "    mul t0, t0, a4\n"
    "    mul t1, t1, a5\n"
    "    add t0, t0, t1\n"
    "    add \\low, \\low, t0\n"
    "    srai t0, t0, 16\n"
    "    add \\high, \\high, t0\n"
    "    .endm\n"
    "    .macro rtcore_pair at\n"
    "    rtcore_row t3, a6, \\at\n"
    "    rtcore_row t4, a7, \\at + 4\n"
    "    rtcore_row t5, s0, \\at + 8\n"
    "    rtcore_row t6, s1, \\at + 12\n"
    "    .endm\n"
    "    .macro rtcore_end low, high, at\n"
    "    slli t0, \\high, 16\n"
    "    srai \\high, \\high, 16\n"
    "    sltu t0, \\low, t0\n"
    "    add \\high, \\high, t0\n"
    "    lw t1, \\at(a0)\n"
    "    mulhu \\low, \\low, t1\n"
    "    mulh t0, \\high, t1\n"
    "    mul \\high, \\high, t1\n"
    "    add \\low, \\low, \\high\n"
    "    bnez s6, .Ldone\\@\n"
    "    sltu \\high, \\low, \\high\n"
    "    add t0, t0, \\high\n" SATURATE("\\low", "t0", "\\high")
    "    sw \\low, \\at(a3)\n"
    "    .endm\n"
    BEGIN("rtcore_rv_rows_w16_a64")
    COLUMNS("16",
            "    lw t3, 0(a0)\n    lw t4, 4(a0)\n    lw t5, 8(a0)\n    lw t6, 12(a0)\n"
            "    lw a6, 16(a0)\n    lw a7, 20(a0)\n    lw s0, 24(a0)\n    lw s1, 28(a0)\n"
            "    addi a0, a0, 32\n")
    "    rtcore_end t3, a6, 0\n"
    "    rtcore_end t4, a7, 4\n"
    "    rtcore_end t5, s0, 8\n"
    "    rtcore_end t6, s1, 12\n"
    "    .purgem rtcore_end\n"
    "    .purgem rtcore_row\n"
    "    addi a0, a0, 16\n"
    NEXT_GROUP
    END("rtcore_rv_rows_w16_a64"));

/* The end of a row: s0 is up, s1 31 - up. */
__asm__(
    "    .macro rtcore_row sum, at\n"
    "    lb t0, \\at(a0)\n"
    "    lb t1, \\at + 1(a0)\n"
    "    mul t0, t0, a4\n"
    "    mul t1, t1, a5\n"
    "    add \\sum, \\sum, t0\n"
    "    add \\sum, \\sum, t1\n"
    "    .endm\n"
    "    .macro rtcore_pair at\n"
    "    rtcore_row t3, \\at\n"
    "    rtcore_row t4, \\at + 2\n"
    "    rtcore_row t5, \\at + 4\n"
    "    rtcore_row t6, \\at + 6\n"
    "    .endm\n"
    "    .macro rtcore_end sum, at\n"
    "    lw t1, \\at(a0)\n"
    "    sll a5, \\sum, s0\n"
    "    bnez s6, .Lnear\\@\n"
    "    sra t0, a5, s0\n"
    "    bne t0, \\sum, .Lfar\\@\n"
    ".Lnear\\@:\n"
    "    mul t0, a5, t1\n"
    "    mulh \\sum, a5, t1\n"
    "    srli t0, t0, 31\n"
    "    add \\sum, \\sum, t0\n"
    "    j .Ldone\\@\n"
    ".Lfar\\@:\n"
    "    mul t0, \\sum, t1\n"
    "    mulh t1, \\sum, t1\n"
    "    li a5, 1\n"
    "    sll a5, a5, s1\n"
    "    add t0, t0, a5\n"
    "    sltu a5, t0, a5\n"
    "    add t1, t1, a5\n"
    "    srli t0, t0, 1\n"
    "    srl t0, t0, s1\n"
    "    sll \\sum, t1, s0\n"
    "    or \\sum, \\sum, t0\n"
    "    srai t1, t1, 1\n"
    "    sra t1, t1, s1\n" SATURATE("\\sum", "t1", "a5")
    "    sw \\sum, \\at(a3)\n"
    "    .endm\n"
    BEGIN("rtcore_rv_rows_w8_a32")
    COLUMNS("8",
            "    lw t3, 0(a0)\n    lw t4, 4(a0)\n    lw t5, 8(a0)\n    lw t6, 12(a0)\n"
            "    addi a0, a0, 16\n")
    "    lw s0, 16(a0)\n"
    "    li s1, 31\n"
    "    sub s1, s1, s0\n"
    "    rtcore_end t3, 0\n"
    "    rtcore_end t4, 4\n"
    "    rtcore_end t5, 8\n"
    "    rtcore_end t6, 12\n"
    "    .purgem rtcore_end\n"
    "    .purgem rtcore_row\n"
    "    addi a0, a0, 20\n"
    NEXT_GROUP
    END("rtcore_rv_rows_w8_a32"));
/* clang-format on */

void rtcore_matrix_i16_rows(const rtcore_matrix_i16 *matrix, int group, int count, const int16_t *input,
                            int32_t *rows) {
    if (matrix->stream == NULL) {
        rtcore_matrix_i16_tables_rows(matrix, group, count, input, rows);
        return;
    }
    const int32_t *const stream = matrix->stream + group * (matrix->stride / 4);
    const int bounded = matrix->form & RTCORE_STREAM_BOUNDED;
    if (matrix->form & RTCORE_STREAM_W16_A64) {
        rtcore_rv_rows_w16_a64(stream, input, matrix->nb_inputs, rows, rows + 4 * count, bounded);
    } else {
        rtcore_rv_rows_w8_a32(stream, input, matrix->nb_inputs, rows, rows + 4 * count, bounded);
    }
}

int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix) {
    const int form = matrix->form & ~RTCORE_STREAM_BOUNDED;
    const int known = form == RTCORE_STREAM_W16_A64 || form == RTCORE_STREAM_W8_A32;
    return known && ((uintptr_t)matrix->stream & 3U) == 0 ? RTCORE_OK : RTCORE_E_TABLE;
}
