"""What the emulator has to know of an instruction set: registers, how calls pass arguments, lengths of instructions.

Data alone: the names are unicorn's, which is an optional package and imported by the emulator.
Neighbours: `toolchain.py` (targets name their architecture), `emulator.py` (calls and counts by it), `board/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """An instruction set and its calling convention, in unicorn's names.

    arch, modes: of `unicorn`; constants: the module with the registers' and the cores' names.
    arguments:   registers of the first integer arguments; the first of them also holds the result.
    stack, link, pc: the other registers of a call.
    alignment:   of the stack pointer at a call, in bytes; arguments beyond the registers lie there, a word each.
    code_bit:    what addresses of code carry beside the address: 1 for Thumb, else 0.
    vectors:     whether the core loads stack pointer and entry from the table board_vectors; otherwise it starts at
                 board_reset, which sets its stack itself.
    is_wide:     first halfword -> whether the instruction has 32 bits; all others have 16.
    decoder:     capstone's names of the instruction set and of its modes.
    """

    arch: str
    modes: tuple[str, ...]
    constants: str
    arguments: tuple[str, ...]
    stack: str
    link: str
    pc: str
    alignment: int
    code_bit: int
    vectors: bool
    is_wide: Callable[[int], bool]
    decoder: tuple[str, tuple[str, ...]]

    def instructions(self, code: bytes) -> int:
        """Number of instructions in a run of code."""
        count = at = 0
        while at < len(code):
            at += 4 if self.is_wide(code[at] | code[at + 1] << 8) else 2
            count += 1
        return count

    def passed(self, arguments: int) -> int:
        """Bytes of stack on which a caller passes that many arguments: those beyond the registers, aligned."""
        size = 4 * max(0, arguments - len(self.arguments))
        return -(-size // self.alignment) * self.alignment


THUMB = Architecture(
    arch="UC_ARCH_ARM",
    modes=("UC_MODE_THUMB", "UC_MODE_MCLASS"),
    constants="unicorn.arm_const",
    arguments=tuple(f"UC_ARM_REG_R{i}" for i in range(4)),
    stack="UC_ARM_REG_SP",
    link="UC_ARM_REG_LR",
    pc="UC_ARM_REG_PC",
    alignment=8,
    code_bit=1,
    vectors=True,
    is_wide=lambda halfword: halfword >> 11 >= 29,  # the top five bits are 29, 30 or 31
    decoder=("CS_ARCH_ARM", ("CS_MODE_THUMB", "CS_MODE_MCLASS")),
)

RISCV32 = Architecture(
    arch="UC_ARCH_RISCV",
    modes=("UC_MODE_RISCV32",),
    constants="unicorn.riscv_const",
    arguments=tuple(f"UC_RISCV_REG_A{i}" for i in range(8)),
    stack="UC_RISCV_REG_SP",
    link="UC_RISCV_REG_RA",
    pc="UC_RISCV_REG_PC",
    alignment=16,
    code_bit=0,
    vectors=False,
    is_wide=lambda halfword: halfword & 3 == 3,
    decoder=("CS_ARCH_RISCV", ("CS_MODE_RISCV32", "CS_MODE_RISCVC")),
)
