/* startup_riscv.c - reset entry of the emulated RISC-V boards.
 * Neighbours: board.ld (gives the symbols), board.c. */
#include <stdint.h>

extern uint32_t board_bss_start[], board_bss_end[];

void board_reset(void);
void board_start(void);
void board_idle(void);

/* Where the reset entry ends: the emulator stops here and calls the net's functions. */
__attribute__((noinline)) void board_idle(void) {
    for (;;) {
    }
}

void board_start(void) {
    for (volatile uint32_t *p = board_bss_start; p < board_bss_end; p++) {
        *p = 0;
    }
    board_idle();
}

/* The core starts here without a stack. */
__attribute__((naked)) void board_reset(void) { __asm__("la sp, board_stack_top\n\tj board_start"); }
