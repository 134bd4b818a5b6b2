"""Machine code of a firmware, read back: runs of instructions, where each may go next, how it moves the stack pointer.

capstone decodes; what is added here is the flow that `stack.py` walks and the parts of an instruction that `timing.py`
prices, in the same words for Thumb and for RISC-V. Neighbours: `emulator.py` (the bytes and the symbols),
`architectures.py` (which decoder), `helium.py` (what capstone does not know).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from firmware_sim import helium
from firmware_sim.architectures import RISCV32
from firmware_sim.emulator import Board
from firmware_sim.toolchain import require

ENDS = ("jump", "return", "indirect", "kept")  # flows that never just go on
LONGEST_RUN = 4096  # bytes that are decoded at once, at most

RISCV_STORES = ("sb", "sh", "sw")
RISCV_CONDITIONAL = ("beq", "bne", "blt", "bge", "bltu", "bgeu", "beqz", "bnez")


@dataclass(frozen=True)
class Instruction:
    """One decoded instruction.

    name:  without condition and width: "ldr", "b", "lw"; or one of `helium.py`.
    flow:  "" goes on; "branch" goes on or to target; "jump" goes to target; "call" goes to target and comes back;
           "return"; "kept": to an address that the function keeps in its frame; "maybe return", "maybe kept", "maybe
           move" of the stack pointer: if a condition holds, else it goes on;
           "indirect", "indirect call": to where no one can say here.
    names: an address within the code that it puts into a register, or None.
    takes: bytes by which the stack grows; None when that is not written in the instruction (see `moved`).
    raw:   capstone's own; None where `helium.py` has decoded it.
    """

    address: int
    size: int
    name: str
    text: str
    flow: str
    target: int | None
    takes: int | None
    raw: Any
    names: int | None = None

    @property
    def frame(self) -> int | None:
        """Bytes from the stack pointer up to where Thumb's frame pointer, r7, is set to; None where it is not."""
        found = re.fullmatch(r"add(?:w|\.w)? r7, sp, #(\w+)", self.text.strip())
        return int(found[1], 0) if found else None

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.size


class Code:
    """The code of a firmware, decoded where it is asked for."""

    def __init__(self, board: Board):
        require("capstone")
        import capstone  # noqa: PLC0415 (optional package)

        self._board = board
        self._capstone = capstone
        decoder = board.architecture.decoder
        self._decoder = capstone.Cs(getattr(capstone, decoder[0]), sum(getattr(capstone, mode) for mode in decoder[1]))
        self._decoder.detail = True
        self._read = _read_riscv if board.architecture is RISCV32 else _read_thumb
        self._runs: dict[tuple[int, int], tuple[Instruction, ...]] = {}

    def run(self, address: int, size: int = LONGEST_RUN) -> tuple[Instruction, ...]:
        """Instructions from an address on: `size` bytes of them, or up to the first that never goes on."""
        key = (address, size)
        if key not in self._runs:
            found = []
            for instruction in self._decoded(self._board.read(address, min(size, self.end - address)), address):
                found.append(instruction)
                if instruction.flow in ENDS:
                    break
            self._runs[key] = tuple(found)
        return self._runs[key]

    def executed(self, address: int, size: int) -> Iterator[tuple[tuple[Instruction, ...], bool]]:
        """Runs of which `size` bytes from an address on consist, all executed one after the other, and whether each
        ends in a jump: it may go right behind itself."""
        end = address + size
        while address < end:
            run = self.run(address, end - address)
            yield run, run[-1].flow in ENDS
            address = run[-1].end

    def _decoded(self, code: bytes, start: int) -> Iterator[Instruction]:
        """Instruction after instruction, up to the first that is none."""
        at, known = 0, _read_helium if self._read is _read_thumb else lambda *_: None
        while True:
            for raw in self._decoder.disasm(code[at:], start + at):  # in one go, as IT reaches over instructions
                yield known(bytes(raw.bytes), raw.address) or self._read(raw)
                at += raw.size
            instruction = known(code[at : at + 4], start + at)
            if instruction is None:
                return
            yield instruction
            at += instruction.size

    def taken(self, entry: int, end: int) -> list[int]:
        """The addresses of its own code that a function puts into registers."""
        found: list[int] = []
        upper: dict[str, int] = {}  # RISC-V: register -> what AUIPC or LUI has left in it
        address = entry
        while address < end:
            run = self.run(address, end - address)
            for at in run:
                operands = at.raw.op_str.split(", ") if at.raw else []
                if at.name in ("auipc", "lui"):
                    upper[operands[0]] = (int(operands[1], 0) << 12) + (at.address if at.name == "auipc" else 0)
                elif at.name == "addi" and operands[1] in upper:
                    found.append(upper[operands[1]] + int(operands[2], 0) & 0xFFFFFFFF)
                elif at.names is not None:
                    found.append(at.names)
            address = run[-1].end if run else end
        return [target for target in found if entry <= target < end]

    @cached_property
    def end(self) -> int:
        """The address behind the last function."""
        return max(s.address + s.size for s in self._board.symbols.values() if s.function)


# --------------------------------------------------------------------------------------------------------- Thumb --


def _read_thumb(raw) -> Instruction:
    name = raw.insn_name()
    always = raw.cc in (0, 15)  # ARM_CC_INVALID, ARM_CC_AL
    operands = raw.operands
    target = operands[-1].imm if name in ("b", "bl", "cbz", "cbnz") else None
    flow = ""
    if name in ("cbz", "cbnz") or (name == "b" and not always):
        flow = "branch"
    elif name == "b":
        flow = "jump"
    elif name == "bl":
        flow = "call"
    elif name == "blx":
        flow = "indirect call"
    elif (name == "bx" and raw.op_str == "lr") or (name in ("pop", "ldm") and "pc" in raw.op_str):
        flow = "return"
    elif name in ("bx", "tbb", "tbh") or "pc" in (raw.reg_name(r) for r in raw.regs_access()[1]):
        flow = "indirect"
        if name == "ldr" and raw.op_str.startswith("pc, [sp], #"):
            flow = "return"
        elif name == "ldr" and re.fullmatch(r"pc, \[sp(, #\w+)?\]", raw.op_str):
            flow = "kept"
    if flow in ("return", "kept") and not always:
        flow = f"maybe {flow}"
    takes = _thumb_takes(raw)
    if not flow and not always and takes != 0:
        flow = "maybe move"
    text = f"{raw.mnemonic} {raw.op_str}"
    return Instruction(raw.address, raw.size, name, text, flow, target, takes, raw, _thumb_names(raw, name))


def _read_helium(code: bytes, address: int) -> Instruction | None:
    halfwords = [code[0] | code[1] << 8, code[2] | code[3] << 8] if len(code) == 4 else [0, 0]
    found = helium.decode(address, *halfwords)
    if found is None:
        return None
    flow = "" if found.target is None else "branch"
    text = f"{found.name} {halfwords[0]:04x}{halfwords[1]:04x}"
    return Instruction(address, 4, found.name, text, flow, found.target, 0, None)


def moved(run: tuple[Instruction, ...], i: int) -> tuple[str, int] | None:
    """Where run[i], a `mov sp, register` of Thumb, puts the stack pointer, by how the run has made the register:
    ("frame", n): n bytes below the frame pointer; ("down", n): up to n bytes below where it is, aligned; None: no one
    can say here."""
    found = re.fullmatch(r"mov sp, (\w+)", run[i].text)
    made = [at.text for at in run[:i] if found and at.raw and found[1] in map(at.raw.reg_name, at.raw.regs_access()[1])]
    if made and (below := re.fullmatch(rf"sub(?:s|w|\.w)? {found[1]}, r7, #(\w+)", made[-1])):
        return "frame", int(below[1], 0)
    cleared = re.fullmatch(rf"bfc {found[1]}, #0, #(\d+)", made[-1]) if made else None
    return ("down", (1 << int(cleared[1])) - 4) if cleared and made[-2:-1] == [f"mov {found[1]}, sp"] else None


def _thumb_names(raw, name: str) -> int | None:
    """The address that ADR gives, in any of its spellings, without the bit that says Thumb."""
    if name == "adr" or (name in ("add", "addw", "sub", "subw") and ", pc, #" in raw.op_str):
        distance = raw.operands[-1].imm * (-1 if name.startswith("sub") else 1)
        return ((raw.address + 4 & ~3) + distance) & ~1
    return None


def _thumb_takes(raw) -> int | None:
    """Bytes by which an instruction makes the stack grow."""
    name, text = raw.insn_name(), raw.op_str
    if name in ("push", "pop"):
        return 4 * len(raw.operands) * (1 if name == "push" else -1)
    if name in ("vpush", "vpop"):
        return 4 * raw.bytes[2] * (1 if name == "vpush" else -1)  # its last byte but one counts words
    if "sp" not in (raw.reg_name(r) for r in raw.regs_access()[1]):
        return 0
    last = raw.operands[-1]
    if name in ("add", "sub") and text.startswith("sp") and last.type == 2:  # ARM_OP_IMM
        return last.imm if name == "sub" else -last.imm
    if name in ("stmdb", "ldm") and text.startswith("sp!"):
        return 4 * (len(raw.operands) - 1) * (1 if name == "stmdb" else -1)
    if text.endswith("]!") and "[sp, #" in text:  # before the access
        return -raw.operands[-1].mem.disp
    if "[sp], #" in text:  # after it
        return -int(text.rpartition("#")[2], 0)
    return None


# -------------------------------------------------------------------------------------------------------- RISC-V --


def _read_riscv(raw) -> Instruction:
    name = raw.insn_name().removeprefix("c.")
    operands = raw.op_str.split(", ")
    jumps = name in (*RISCV_CONDITIONAL, "j", "jal")
    target = raw.address + raw.operands[-1].imm if jumps else None
    links = name == "jal" and (raw.mnemonic == "c.jal" or raw.mnemonic == "jal")
    flow = ""
    if name in RISCV_CONDITIONAL:
        flow = "branch"
    elif jumps:
        flow = "call" if links else "jump"
    elif name in ("jr", "jalr"):
        to_link = raw.mnemonic == "ret" or (raw.op_str == "ra" and name == "jr")
        flow = "return" if to_link else "kept" if name == "jr" or operands[0] == "zero" else "indirect call"
    takes: int | None = 0
    if operands[0] == "sp" and name not in (*RISCV_STORES, "swsp", *RISCV_CONDITIONAL):
        takes = (
            -raw.operands[-1].imm if name in ("addi", "addi16sp") and operands[:-1] in (["sp"], ["sp"] * 2) else None
        )
    return Instruction(raw.address, raw.size, name, f"{raw.mnemonic} {raw.op_str}", flow, target, takes, raw)
