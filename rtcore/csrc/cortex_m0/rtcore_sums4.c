/* rtcore_sums4.c - exact sums of four rows for Cortex-M0 and M0+, in place of the portable one.
 *
 * 64-bit sums without carries: a pair p of int16 products fits int32, low is the sum of p modulo 2^32, high the sum of
 * floor(p / 2^16); then sum = 2^16 high + r, where r, the sum of p mod 2^16, is low - 2^16 high modulo 2^32. Exact up to 2^16
 * pairs; longer rows go in parts. Sums live in the high registers, to which one instruction adds. Weights are read by LDM and so
 * lie on words; so does x, or halfword by halfword. The loops are functions of their own at file scope, so that they depend on no
 * compiler's optimisation. GNU assembler syntax: gcc, clang. Neighbours: rtcore_sums4.h.
 */
#include "rtcore_sums4.h"

#include "rtcore_fixed.h"

/* acc[k] += both columns of `pairs` column pairs; pairs may be 0, and at most 32768 for 64 bits. */
void rtcore_m0_pairs_w16_a64(const int16_t *w, const int16_t *x, int pairs, int64_t *acc);
void rtcore_m0_pairs_w16_a32(const int16_t *w, const int16_t *x, int pairs, int32_t *acc);
void rtcore_m0_pairs_w8_a32(const int8_t *w, const int16_t *x, int pairs, int32_t *acc);

/* clang-format off */
#define FUNCTION(name, load, pair, store)                                                                              \
    __asm__("    .syntax unified\n    .thumb\n    .section .text." name ",\"ax\",%progbits\n    .balign 4\n"            \
            "    .global " name "\n    .hidden " name "\n    .type " name ",%function\n    .thumb_func\n" name ":\n"   \
            BEGIN load LOOP(pair) store END                                                                            \
            "    .size " name ", . - " name "\n    .text\n")
/* The frame: where x ends, where it ends of the pairs that go one by one, sums: those up to a multiple of 4, or all when x
 * does not lie on a word. */
#define BEGIN                                                                                                          \
    "    push {r4-r7, lr}\n"                                                                                           \
    "    mov r4, r8\n"                                                                                                 \
    "    mov r5, r9\n"                                                                                                 \
    "    mov r6, r10\n"                                                                                                \
    "    mov r7, r11\n"                                                                                                \
    "    push {r3-r7}\n"                                                                                               \
    "    lsls r4, r2, #30\n"                                                                                           \
    "    lsrs r4, r4, #28\n"                                                                                           \
    "    adds r4, r4, r1\n"                                                                                            \
    "    lsls r2, r2, #2\n"                                                                                            \
    "    adds r2, r2, r1\n"                                                                                            \
    "    lsls r5, r1, #30\n"                                                                                           \
    "    beq 5f\n"                                                                                                     \
    "    movs r4, r2\n"                                                                                                \
    "5:  push {r2, r4}\n"
#define END                                                                                                            \
    "    add sp, #12\n"                                                                                                \
    "    pop {r4-r7}\n"                                                                                                \
    "    mov r8, r4\n"                                                                                                 \
    "    mov r9, r5\n"                                                                                                 \
    "    mov r10, r6\n"                                                                                                \
    "    mov r11, r7\n"                                                                                                \
    "    pop {r4-r7, pc}\n"
#define LOAD_4                                                                                                         \
    "    ldm r3!, {r4-r7}\n"                                                                                           \
    "    mov r8, r4\n"                                                                                                 \
    "    mov r9, r5\n"                                                                                                 \
    "    mov r10, r6\n"                                                                                                \
    "    mov r11, r7\n"
#define STORE_4                                                                                                        \
    "    ldr r3, [sp, #8]\n"                                                                                           \
    "    mov r0, r8\n"                                                                                                 \
    "    mov r1, r9\n"                                                                                                 \
    "    mov r2, r10\n"                                                                                                \
    "    mov r4, r11\n"                                                                                                \
    "    stm r3!, {r0, r1, r2, r4}\n"
/* pair: a macro of the columns in r2 and r3 and the weights at r0. */
#define LOOP(pair)                                                                                                     \
    "    .macro rtcore_pair\n" pair "    .endm\n"                                                                      \
    "    ldr r2, [sp, #4]\n"                                                                                           \
    "    cmp r1, r2\n"                                                                                                 \
    "    beq 2f\n"                                                                                                     \
    "1:  ldrh r2, [r1]\n"                                                                                              \
    "    sxth r2, r2\n"                                                                                                \
    "    ldrh r3, [r1, #2]\n"                                                                                          \
    "    sxth r3, r3\n"                                                                                                \
    "    adds r1, #4\n"                                                                                                \
    "    rtcore_pair\n"                                                                                                \
    "    ldr r2, [sp, #4]\n"                                                                                           \
    "    cmp r1, r2\n"                                                                                                 \
    "    bne 1b\n"                                                                                                     \
    "2:  ldr r2, [sp]\n"                                                                                               \
    "    cmp r1, r2\n"                                                                                                 \
    "    bne 3f\n"                                                                                                     \
    "    b 4f\n"                                                                                                       \
    "3:\n"                                                                                                             \
    "    .rept 4\n"                                                                                                    \
    "    ldm r1!, {r3}\n"                                                                                              \
    "    sxth r2, r3\n"                                                                                                \
    "    asrs r3, r3, #16\n"                                                                                           \
    "    rtcore_pair\n"                                                                                                \
    "    .endr\n"                                                                                                      \
    "    ldr r2, [sp]\n"                                                                                               \
    "    cmp r1, r2\n"                                                                                                 \
    "    beq 4f\n"                                                                                                     \
    "    b 3b\n"                                                                                                       \
    "4:\n"                                                                                                             \
    "    .purgem rtcore_pair\n"

/* A pair of products of a row, to r4 */
#define PRODUCTS                                                                                                       \
    "    ldm r0!, {r4}\n"                                                                                              \
    "    sxth r5, r4\n"                                                                                                \
    "    asrs r4, r4, #16\n"                                                                                           \
    "    muls r5, r2, r5\n"                                                                                            \
    "    muls r4, r3, r4\n"                                                                                            \
    "    adds r4, r4, r5\n"
#define ROW_A64(low, high) PRODUCTS "    add " low ", r4\n    asrs r4, r4, #16\n    add " high ", r4\n"
/* acc[k] += 2^16 high + r: low and the carry of 2^16 high + r, then high / 2^16; [r3] is next. */
#define ADD_64(low, high)                                                                                              \
    "    mov r0, " low "\n"                                                                                            \
    "    mov r1, " high "\n"                                                                                           \
    "    lsls r2, r1, #16\n"                                                                                           \
    "    asrs r1, r1, #16\n"                                                                                           \
    "    subs r0, r0, r2\n"                                                                                            \
    "    adds r0, r0, r2\n"                                                                                            \
    "    movs r4, #0\n"                                                                                                \
    "    adcs r1, r4\n"                                                                                                \
    "    ldr r2, [r3]\n"                                                                                               \
    "    ldr r4, [r3, #4]\n"                                                                                           \
    "    adds r0, r0, r2\n"                                                                                            \
    "    adcs r1, r4\n"                                                                                                \
    "    stm r3!, {r0, r1}\n"
FUNCTION("rtcore_m0_pairs_w16_a64",
    "    movs r6, #0\n"
    "    movs r7, #0\n"
    "    mov r8, r6\n"
    "    mov r9, r6\n"
    "    mov r10, r6\n"
    "    mov r11, r6\n"
    "    mov r12, r6\n"
    "    mov lr, r6\n",
    ROW_A64("r8", "r12") ROW_A64("r9", "lr") ROW_A64("r10", "r6") ROW_A64("r11", "r7"),
    "    ldr r3, [sp, #8]\n"
    ADD_64("r8", "r12") ADD_64("r9", "lr") ADD_64("r10", "r6") ADD_64("r11", "r7"));

#define ROW_A32(sum) PRODUCTS "    add " sum ", r4\n"
FUNCTION("rtcore_m0_pairs_w16_a32", LOAD_4, ROW_A32("r8") ROW_A32("r9") ROW_A32("r10") ROW_A32("r11"), STORE_4);

/* Rows 0 and 1 of both columns, then rows 2 and 3: a word, whose lowest byte comes with it; r5, r6, r7: -3, -2, -1 to the
 * others. */
#define PRODUCT(sum, x, at) "    ldrsb r4, [r0, " at "]\n    muls r4, " x ", r4\n    add " sum ", r4\n"
#define ROW_PAIR(first, second)                                                                                        \
    "    ldm r0!, {r4}\n"                                                                                              \
    "    sxtb r4, r4\n"                                                                                                \
    "    muls r4, r2, r4\n"                                                                                            \
    "    add " first ", r4\n" PRODUCT(second, "r2", "r5") PRODUCT(first, "r3", "r6") PRODUCT(second, "r3", "r7")
FUNCTION("rtcore_m0_pairs_w8_a32",
    LOAD_4
    "    movs r5, #3\n"
    "    movs r6, #2\n"
    "    movs r7, #1\n"
    "    rsbs r5, r5, #0\n"
    "    rsbs r6, r6, #0\n"
    "    rsbs r7, r7, #0\n",
    ROW_PAIR("r8", "r9") ROW_PAIR("r10", "r11"), STORE_4);
/* clang-format on */

/* Pairs of columns, then the last one of an odd number; a, b, c, d: where its weights are in a block of 8. */
#define SUMS(pairs, a, b, c, d)                                                                                        \
    if (n > 1) {                                                                                                       \
        pairs(w, x, n / 2, acc);                                                                                       \
    }                                                                                                                  \
    if (n & 1) {                                                                                                       \
        const int32_t last = x[n - 1];                                                                                 \
        w += 4 * (n - 1);                                                                                              \
        acc[0] += w[a] * last;                                                                                         \
        acc[1] += w[b] * last;                                                                                         \
        acc[2] += w[c] * last;                                                                                         \
        acc[3] += w[d] * last;                                                                                         \
    }

void rtcore_sums4_w16_a64(const int16_t *w, const int16_t *x, int n, int64_t *acc) {
    for (; n > 65536; n -= 65536, w += 4 * 65536, x += 65536) {
        rtcore_m0_pairs_w16_a64(w, x, 32768, acc);
    }
    SUMS(rtcore_m0_pairs_w16_a64, 0, 2, 4, 6)
}

void rtcore_sums4_w16_a32(const int16_t *w, const int16_t *x, int n, int32_t *acc) {
    SUMS(rtcore_m0_pairs_w16_a32, 0, 2, 4, 6)
}

void rtcore_sums4_w8_a32(const int8_t *w, const int16_t *x, int n, int32_t *acc) {
    SUMS(rtcore_m0_pairs_w8_a32, 0, 1, 4, 5)
}

/* Of 256 columns no sum leaves 2^30. */
void rtcore_sums4_w8_a64(const int8_t *w, const int16_t *x, int n, int64_t *acc) {
    for (; n > 0; n -= 256, w += 4 * 256, x += 256) {
        int32_t part[4] = {0, 0, 0, 0};
        rtcore_sums4_w8_a32(w, x, n < 256 ? n : 256, part);
        for (int k = 0; k < 4; k++) {
            acc[k] += part[k];
        }
    }
}

int rtcore_sums4_takes(const void *w) { return ((uintptr_t)w & 3U) == 0; }
