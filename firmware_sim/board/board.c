/* board.c - the driver of a generated net: its RAM and its buffers, and where its states lie. No arithmetic, no loop: the
 * simulator calls the net's functions itself. Compiled for the emulated targets and, for comparisons, for the host.
 *
 * The build defines BOARD_HEADER (NAME.h), BOARD_STATE (NAME_state), BOARD_IO_SIZE and BOARD_PARTS, one PART(member) per
 * array of each recurrent layer's state. Neighbours: startup_*.c, board.ld, firmware_sim/toolchain.py (the defines),
 * firmware_sim/emulator.py (reads and writes these symbols).
 */
#include BOARD_HEADER

#include <stddef.h>

BOARD_STATE board_state;
int16_t board_io[BOARD_IO_SIZE]; /* inputs, outputs, initial states, in the order of the net's arguments */

/* Bytes from the start of board_state to each array. */
#define PART(member) offsetof(BOARD_STATE, member),
const uint32_t board_parts[] = {BOARD_PARTS 0};
