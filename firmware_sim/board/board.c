/* board.c - the driver of a generated net: its RAM and its buffers, and where its states lie. No arithmetic, no loop: the
 * simulator calls the net's functions itself. Compiled for the emulated targets and, for comparisons, for the host.
 *
 * The build defines BOARD_HEADER (NAME.h), BOARD_STATE (NAME_state), BOARD_IO_SIZE and BOARD_LAYERS, one LAYER(id) per
 * recurrent layer. Neighbours: startup_*.c, board.ld, firmware_sim/toolchain.py (the defines),
 * firmware_sim/emulator.py (reads and writes these symbols).
 */
#include BOARD_HEADER

#include <stddef.h>

BOARD_STATE board_state;
int16_t board_io[BOARD_IO_SIZE]; /* inputs, outputs, initial states, in the order of the net's arguments */

/* Bytes from the start of board_state to each recurrent layer's h and view. */
#define LAYER(id) offsetof(BOARD_STATE, id.h), offsetof(BOARD_STATE, id.view),
const uint32_t board_layers[] = {BOARD_LAYERS 0};
