/* rtcore_stream_i16.c - rows of matrices for Cortex-M55 (with Helium, its vectors), sums and requantization in one.
 *
 * A stream is read from front to back, group after group of four rows; columns come in blocks of eight, what is missing
 * in the last one is zero:
 *
 *   W16_A64  [4] int64 bias, [blocks][4 rows][8 columns] int16, [4] int32 shift
 *   W8_A32   [4] int32 bias, [blocks][4 rows][8 columns] int8, [4] int32 scale, up
 *
 * A block of x goes into one vector, eight weights of each row into another, and a vector instruction adds their eight
 * products to a sum in scalar registers: ten instructions for 32 products. The loop is predicated by the number of columns,
 * so that nothing is read behind x, and x may lie on any halfword. 64-bit sums, rounding half in the bias, go >> shift;
 * 32-bit sums as (sum * 2^up * scale) >> 32 rounded, four in a vector. BOUNDED: no input takes a row or sum * 2^up out of
 * int32, so that nothing saturates.
 * The vector unit must be on (CPACR, as CMSIS-Core's SystemInit does). Assembly functions at file scope depend on no
 * compiler's optimisation. GNU assembler syntax: gcc, clang.
 * Neighbours: thumb2/rtcore_stream_thumb2.h (entry, saturation), rtcore_matrix_i16.h, rtcore/streams.py (writes streams).
 */
#include "rtcore_stream_thumb2.h"

/* clang-format off */
/* Sums of a group over all columns. r0 stream, r1 x, r2 n, r12 first x; sums: the operands of each row's sum. */
#define COLUMNS(load, multiply, sum0, sum1, sum2, sum3)                                                                \
    "    mov r1, r12\n"                                                                                                \
    "    dlstp.16 lr, r2\n"                                                                                            \
    "2:  vldrh.u16 q0, [r1], #16\n"                                                                                    \
    "    " load "\n    " multiply " " sum0 ", q0, q1\n"                                                                \
    "    " load "\n    " multiply " " sum1 ", q0, q1\n"                                                                \
    "    " load "\n    " multiply " " sum2 ", q0, q1\n"                                                                \
    "    " load "\n    " multiply " " sum3 ", q0, q1\n"                                                                \
    "    letp lr, 2b\n"
/* All groups: `group` of a bounded matrix, else `exact`. [sp]: end of rows. */
#define GROUPS(group, exact)                                                                                           \
    "    mov r12, r1\n"                                                                                                \
    "    push {r4}\n"                                                                                                  \
    "    lsls r7, r7, #28\n"                                                                                           \
    "    bpl 3f\n"                                                                                                     \
    "1:\n" group NEXT_GROUP_OR_LEAVE("1b")                                                                             \
    "3:\n" exact NEXT_GROUP_OR_LEAVE("3b")
#define NEXT_GROUP_OR_LEAVE(next)                                                                                      \
    "    ldr r4, [sp]\n"                                                                                               \
    "    cmp r3, r4\n"                                                                                                 \
    "    bne " next "\n"                                                                                               \
    "    pop {r4}\n"                                                                                                   \
    "    pop {r4-r11, pc}\n"

/* ---------------------------------------------------------------- w16_a64: r4:r5, r6:r7, r8:r9, r10:r11 the sums. */
#define ROWS_W16_A64                                                                                                   \
    "    ldm r0!, {r4-r11}\n"                                                                                          \
    COLUMNS("vldrh.u16 q1, [r0], #16", "vmlaldava.s16", "r4, r5", "r6, r7", "r8, r9", "r10, r11")                      \
    "    ldrd r1, lr, [r0], #8\n"                                                                                      \
    "    asrl r4, r5, r1\n"                                                                                            \
    "    asrl r6, r7, lr\n"                                                                                            \
    "    ldrd r1, lr, [r0], #8\n"                                                                                      \
    "    asrl r8, r9, r1\n"                                                                                            \
    "    asrl r10, r11, lr\n"
#define STORE "    stm r3!, {r4, r6, r8, r10}\n"

__asm__(BEGIN("rtcore_rows_w16_a64")
    GROUPS(ROWS_W16_A64 STORE,
           ROWS_W16_A64 SATURATE("r4", "r5") SATURATE("r6", "r7") SATURATE("r8", "r9") SATURATE("r10", "r11") STORE)
    END("rtcore_rows_w16_a64"));

/* ---------------------------------------------------------------- w8_a32: r4, r6, r8, r10 the sums. */
#define ROWS_W8_A32                                                                                                    \
    "    ldrd r4, r6, [r0], #8\n"                                                                                      \
    "    ldrd r8, r10, [r0], #8\n"                                                                                     \
    COLUMNS("vldrb.s16 q1, [r0], #8", "vmladava.s16", "r4", "r6", "r8", "r10")
#define SCALE                                                                                                          \
    "    vmov q0[2], q0[0], r4, r8\n"                                                                                  \
    "    vldrw.u32 q1, [r0], #16\n"                                                                                    \
    "    vmov q0[3], q0[1], r6, r10\n"                                                                                 \
    "    ldr r1, [r0], #4\n"                                                                                           \
    "    vshl.s32 q0, r1\n"                                                                                            \
    "    vrmulh.s32 q0, q0, q1\n"                                                                                      \
    "    vstrw.32 q0, [r3], #16\n"
/* sum * scale, exact, >> (32 - up) rounded, saturated, to `sum`. r1: 32 - up. */
#define EXACT(sum)                                                                                                     \
    "    ldr r5, [r0], #4\n"                                                                                           \
    "    smull " sum ", r5, " sum ", r5\n"                                                                             \
    "    sqrshrl " sum ", r5, #64, r1\n" SATURATE(sum, "r5")

__asm__(BEGIN("rtcore_rows_w8_a32")
    GROUPS(ROWS_W8_A32 SCALE,
           ROWS_W8_A32
           "    ldr r1, [r0, #16]\n"
           "    rsb r1, r1, #32\n"
           EXACT("r4") EXACT("r6") EXACT("r8") EXACT("r10") STORE
           "    add r0, #4\n")
    END("rtcore_rows_w8_a32"));
/* clang-format on */

int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix) { return rtcore_stream_check(matrix, 0); }
