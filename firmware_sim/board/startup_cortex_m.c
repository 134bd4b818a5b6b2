/* startup_cortex_m.c - vector table and reset entry of the emulated Cortex-M boards.
 * Neighbours: board.ld (places the table first and gives the symbols), board.c. */
#include <stdint.h>

extern uint32_t board_stack_top[], board_bss_start[], board_bss_end[];

void board_reset(void);
void board_idle(void);

/* Where the reset entry ends: the emulator stops here and calls the net's functions. */
__attribute__((noinline)) void board_idle(void) {
    for (;;) {
    }
}

void board_reset(void) {
#if defined(__ARM_FEATURE_MVE) /* a core that QEMU runs; unicorn has no CPACR, and its FPU needs no leave */
    *(volatile uint32_t *)0xE000ED88U = 0x00F00000U; /* CPACR: code may use the FPU and the vector unit */
    __asm__ volatile("dsb\n\tisb");
#endif
    for (volatile uint32_t *p = board_bss_start; p < board_bss_end; p++) {
        *p = 0;
    }
    board_idle();
}

/* The core loads its stack pointer from word 0 and starts at word 1. */
typedef union {
    uint32_t *stack;
    void (*entry)(void);
} vector;
extern const vector board_vectors[2];
__attribute__((section(".vectors")))
const vector board_vectors[2] = {{.stack = board_stack_top}, {.entry = board_reset}};
