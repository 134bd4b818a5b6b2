/* rtcore_sums4.c - exact sums of four rows for Cortex-M4, M7 and M33 (with the DSP extension), in place of the portable one.
 *
 * A word of int16 weights holds two columns of a row, a word of x the same two columns: SMLAD and SMLALD do both products.
 * A word of int8 weights holds two columns of two rows, which SXTB16 splits. Weights are read by LDM and so lie on words;
 * x is read by LDR and may lie on halfwords. The loops are functions of their own at file scope, so that they depend on no
 * compiler's optimisation and registers. GNU assembler syntax: gcc, clang. Neighbours: rtcore_sums4.h.
 */
#include "rtcore_sums4.h"

/* acc[k] += both columns of `pairs` column pairs; pairs may be 0. */
void rtcore_m4_pairs_w16_a64(const int16_t *w, const int16_t *x, int pairs, int64_t *acc);
void rtcore_m4_pairs_w16_a32(const int16_t *w, const int16_t *x, int pairs, int32_t *acc);
void rtcore_m4_pairs_w8_a64(const int8_t *w, const int16_t *x, int pairs, int64_t *acc);
void rtcore_m4_pairs_w8_a32(const int8_t *w, const int16_t *x, int pairs, int32_t *acc);

/* clang-format off */
#define BEGIN(name)                                                                                                    \
    "    .syntax unified\n    .thumb\n    .section .text." name ",\"ax\",%progbits\n    .balign 4\n"                    \
    "    .global " name "\n    .hidden " name "\n    .type " name ",%function\n    .thumb_func\n" name ":\n"
#define END(name) "    .size " name ", . - " name "\n    .text\n"

/* r2 times a column pair: four by four, then one by one. */
#define LOOP(pair)                                                                                                     \
    "    subs r2, #4\n"                                                                                                \
    "    blo 2f\n"                                                                                                     \
    "1:\n" pair pair pair pair                                                                                         \
    "    subs r2, #4\n"                                                                                                \
    "    bhs 1b\n"                                                                                                     \
    "2:  adds r2, #4\n"                                                                                                \
    "    beq 4f\n"                                                                                                     \
    "3:\n" pair                                                                                                        \
    "    subs r2, #1\n"                                                                                                \
    "    bne 3b\n"                                                                                                     \
    "4:\n"

/* r0 w, r1 x, r2 pairs left, r4-r11 the sums; r3, r12, lr hold a pair of x and two words of w. */
#define PAIR_W16_A64                                                                                                   \
    "    ldr r3, [r1], #4\n"                                                                                           \
    "    ldm r0!, {r12, lr}\n"                                                                                         \
    "    smlald r4, r5, r12, r3\n"                                                                                     \
    "    smlald r6, r7, lr, r3\n"                                                                                      \
    "    ldm r0!, {r12, lr}\n"                                                                                         \
    "    smlald r8, r9, r12, r3\n"                                                                                     \
    "    smlald r10, r11, lr, r3\n"

__asm__(BEGIN("rtcore_m4_pairs_w16_a64")
    "    push {r3-r11, lr}\n"
    "    ldm r3, {r4-r11}\n"
    LOOP(PAIR_W16_A64)
    "    pop {r3}\n"
    "    stm r3, {r4-r11}\n"
    "    pop {r4-r11, pc}\n"
    END("rtcore_m4_pairs_w16_a64"));

/* r4-r7 the sums; r8 a pair of x; r10-r12, lr four words of w. */
#define PAIR_W16_A32                                                                                                   \
    "    ldr r8, [r1], #4\n"                                                                                           \
    "    ldm r0!, {r10, r11, r12, lr}\n"                                                                               \
    "    smlad r4, r10, r8, r4\n"                                                                                      \
    "    smlad r5, r11, r8, r5\n"                                                                                      \
    "    smlad r6, r12, r8, r6\n"                                                                                      \
    "    smlad r7, lr, r8, r7\n"

__asm__(BEGIN("rtcore_m4_pairs_w16_a32")
    "    push {r3-r8, r10, r11, r12, lr}\n"
    "    ldm r3, {r4-r7}\n"
    LOOP(PAIR_W16_A32)
    "    pop {r3}\n"
    "    stm r3, {r4-r7}\n"
    "    pop {r4-r8, r10, r11, r12, pc}\n"
    END("rtcore_m4_pairs_w16_a32"));

/* As PAIR_W16_A64; lr and r12 hold the two rows of a word. */
#define PAIR_W8_A64                                                                                                    \
    "    ldr r3, [r1], #4\n"                                                                                           \
    "    ldr r12, [r0], #4\n"                                                                                          \
    "    sxtb16 lr, r12\n"                                                                                             \
    "    sxtb16 r12, r12, ror #8\n"                                                                                    \
    "    smlald r4, r5, lr, r3\n"                                                                                      \
    "    smlald r6, r7, r12, r3\n"                                                                                     \
    "    ldr r12, [r0], #4\n"                                                                                          \
    "    sxtb16 lr, r12\n"                                                                                             \
    "    sxtb16 r12, r12, ror #8\n"                                                                                    \
    "    smlald r8, r9, lr, r3\n"                                                                                      \
    "    smlald r10, r11, r12, r3\n"

__asm__(BEGIN("rtcore_m4_pairs_w8_a64")
    "    push {r3-r11, lr}\n"
    "    ldm r3, {r4-r11}\n"
    LOOP(PAIR_W8_A64)
    "    pop {r3}\n"
    "    stm r3, {r4-r11}\n"
    "    pop {r4-r11, pc}\n"
    END("rtcore_m4_pairs_w8_a64"));

/* r4-r7 the sums; r8 a pair of x; r10, r11 two words of w, rows 0 and 1, rows 2 and 3; r12 half a word. */
#define PAIR_W8_A32                                                                                                    \
    "    ldr r8, [r1], #4\n"                                                                                           \
    "    ldm r0!, {r10, r11}\n"                                                                                        \
    "    sxtb16 r12, r10\n"                                                                                            \
    "    sxtb16 r10, r10, ror #8\n"                                                                                    \
    "    smlad r4, r12, r8, r4\n"                                                                                      \
    "    smlad r5, r10, r8, r5\n"                                                                                      \
    "    sxtb16 r12, r11\n"                                                                                            \
    "    sxtb16 r11, r11, ror #8\n"                                                                                    \
    "    smlad r6, r12, r8, r6\n"                                                                                      \
    "    smlad r7, r11, r8, r7\n"

__asm__(BEGIN("rtcore_m4_pairs_w8_a32")
    "    push {r3-r8, r10, r11, r12, lr}\n"
    "    ldm r3, {r4-r7}\n"
    LOOP(PAIR_W8_A32)
    "    pop {r3}\n"
    "    stm r3, {r4-r7}\n"
    "    pop {r4-r8, r10, r11, r12, pc}\n"
    END("rtcore_m4_pairs_w8_a32"));
/* clang-format on */

/* The pairs, then the last column of an odd number; row: where row k's first column is in a block of 8 weights. */
#define RTCORE_SUMS4(name, pairs, weight, accumulator, row)                                                            \
    void name(const weight *w, const int16_t *x, int n, accumulator *acc) {                                            \
        pairs(w, x, n / 2, acc);                                                                                       \
        if (n & 1) {                                                                                                   \
            const int32_t last = x[n - 1];                                                                             \
            w += 4 * (n - 1);                                                                                          \
            for (int k = 0; k < 4; k++) {                                                                              \
                acc[k] += w[row] * last;                                                                               \
            }                                                                                                          \
        }                                                                                                              \
    }

RTCORE_SUMS4(rtcore_sums4_w16_a64, rtcore_m4_pairs_w16_a64, int16_t, int64_t, 2 * k)
RTCORE_SUMS4(rtcore_sums4_w16_a32, rtcore_m4_pairs_w16_a32, int16_t, int32_t, 2 * k)
RTCORE_SUMS4(rtcore_sums4_w8_a64, rtcore_m4_pairs_w8_a64, int8_t, int64_t, 4 * (k / 2) + k % 2)
RTCORE_SUMS4(rtcore_sums4_w8_a32, rtcore_m4_pairs_w8_a32, int8_t, int32_t, 4 * (k / 2) + k % 2)

int rtcore_sums4_takes(const void *w) { return ((uintptr_t)w & 3U) == 0; }
