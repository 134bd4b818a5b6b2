"""Estimated cycles: what the published instruction timings of a core say about the instructions that were executed.

A model gives every instruction the least and the most cycles that its source allows (a pipeline refill of 1 to 3, a
division of 2 to 12, ...). Zero wait states are assumed: no flash latency, no cache, no bus contention, no interrupts.
The sum is an estimate between two bounds under that assumption, not a measurement.

    Cortex-M4  Arm 100166, Cortex-M4 Processor TRM, table 3-1 and section 3.3.2 (pairs of loads and stores)
    Cortex-M3  Arm DDI 0337, Cortex-M3 TRM, table 3-1: longer long multiplications, else as the M4
    Cortex-M0  Arm DDI 0432, Cortex-M0 TRM, table 3-1, at the most; DDI 0484, Cortex-M0+ TRM, table 3-1, at the least
    Cortex-M7, Cortex-M33  no timings are published; the M4's are used. Dual issue (M7) makes a part faster than that.
    Cortex-M55  no table is published. The vector unit does two of an instruction's four beats a cycle and overlaps
               memory accesses with arithmetic (Arm 101051, Cortex-M55 TRM; SLOTHY's model of the core, in public, has
               the same): an instruction takes 2 cycles, 1 where the other kind is still busy, arithmetic 3 where its
               result is waited for. Loop ends are free once the loop runs. Scalar instructions go one at a time, their
               memory is 64 bits wide.
    RV32IMC    CVE2 and Ibex, "Pipeline Details": single-cycle multiplier at the least, fast multi-cycle at the most

Neighbours: `disassembly.py` (the instructions), `costs.py` (how often each block ran).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from firmware_sim import helium
from firmware_sim.disassembly import Instruction

Range = tuple[int, int]  # cycles, at the least and at the most

LOADS = ("ldr", "ldrb", "ldrh", "ldrsb", "ldrsh")
STORES = ("str", "strb", "strh")
MULTIPLE = ("push", "pop", "ldm", "stm", "stmdb", "ldmdb")
REFILL = (1, 3)  # P of the M3's and M4's tables
ARM_OP_REG, ARM_OP_MEM = 1, 3

M3_MULTIPLICATIONS: dict[str, Range] = {"mla": (2, 2), "mls": (2, 2), "smull": (3, 5), "umull": (3, 5)} | {
    "smlal": (4, 7),
    "umlal": (4, 7),
}


@dataclass(frozen=True)
class Timing:
    """A timing model. source: what it is taken from; price: instruction, the one before it in its block (or None),
    whether it went elsewhere than on -> cycles."""

    source: str
    price: Callable[[Instruction, Instruction | None, bool], Range]

    def block(self, run: tuple[Instruction, ...], left: bool) -> Range:
        """Cycles of a block that was executed from its first to its last instruction; left: it did not just go on."""
        least = most = 0
        for i, instruction in enumerate(run):
            low, high = self.price(instruction, run[i - 1] if i else None, left and i == len(run) - 1)
            least, most = least + low, most + high
        return least, most


def _plus(cycles: int, more: Range) -> Range:
    return cycles + more[0], cycles + more[1]


# ------------------------------------------------------------------------------------------------------ Cortex-M --


def _pipelined(at: Instruction, before: Instruction | None) -> bool:
    """Whether a single load or store overlaps the load before it: their addresses do not depend on its result."""
    if before is None or before.name not in LOADS:
        return False
    loaded = before.raw.operands[0].reg
    memory = next(x for x in at.raw.operands if x.type == ARM_OP_MEM).mem
    return loaded not in (memory.base, memory.index)


def _armv7m(at: Instruction, before: Instruction | None, left: bool) -> Range:
    """Cortex-M4."""
    name = at.name
    if name in MULTIPLE:
        base = name in ("ldm", "stm", "stmdb", "ldmdb")
        return _plus(1 + len(at.raw.operands) - base, REFILL if left else (0, 0))
    if name in LOADS:
        if left:
            return _plus(2, REFILL)
        return (1, 1) if _pipelined(at, before) else (2, 2)
    if name in STORES:
        indexed = next(x for x in at.raw.operands if x.type == ARM_OP_MEM).mem.index != 0
        return (2, 2) if indexed and not _pipelined(at, before) else (1, 1)
    if name in ("ldrd", "strd"):
        return 3, 3
    if name in ("tbb", "tbh"):
        return _plus(2, REFILL)
    if left:
        return _plus(1, REFILL)
    if name in ("sdiv", "udiv"):
        return 2, 12
    return (0, 1) if name == "it" else (1, 1)


def _cortex_m3(at: Instruction, before: Instruction | None, left: bool) -> Range:
    return M3_MULTIPLICATIONS.get(at.name) or _armv7m(at, before, left)


def _armv6m(at: Instruction, _before: Instruction | None, left: bool) -> Range:
    """Cortex-M0+ at the least, Cortex-M0 at the most, both with the single-cycle multiplier."""
    name = at.name
    if name in MULTIPLE:
        transfers = len(at.raw.operands) - (name in ("ldm", "stm"))
        # a return is 3 + N or 4 + N; the manuals leave open whether N counts the program counter
        return (3 + transfers - 1, 4 + transfers) if left else (1 + transfers, 1 + transfers)
    if name in (*LOADS, *STORES):
        return 2, 2
    if name == "bl":
        return 3, 4
    return (2, 3) if left else (1, 1)


VECTOR_MEMORY = (helium.MEMORY, helium.GATHER, "vldr", "vstr")
M55_PRICES: dict[str, Range] = {
    helium.GATHER: (2, 4),
    helium.LOOP: (1, 1),
    helium.TRANSFER: (1, 2),
    helium.SELECT: (1, 1),
    helium.PAIR_SHIFT: (1, 2),
    "ldrd": (1, 3),
    "strd": (1, 3),
}


def _cortex_m55(at: Instruction, before: Instruction | None, left: bool) -> Range:
    name = at.name
    if name == helium.LOOP_END:
        return (0, 1 + REFILL[1]) if left else (0, 1)
    if name in M55_PRICES:
        return M55_PRICES[name]
    if name in ("vpush", "vpop"):
        return len(at.raw.operands), 1 + 2 * len(at.raw.operands)
    if name in VECTOR_MEMORY:
        return (2, 2) if before is not None and before.name in VECTOR_MEMORY else (1, 2)
    if name.startswith("v"):
        return 1, 3
    if name in MULTIPLE:
        words = len(at.raw.operands) - (name not in ("push", "pop"))
        least, most = (words + 1) // 2, 1 + words
        return (least + REFILL[0], most + REFILL[1]) if left else (least, most)
    if name in LOADS or name in STORES:
        return _plus(2, REFILL) if left else (1, 2)
    return (1 + REFILL[0], 1 + REFILL[1]) if at.raw is None and left else _armv7m(at, before, left)


# -------------------------------------------------------------------------------------------------------- RISC-V --

RISCV_MEMORY = ("lb", "lh", "lw", "lbu", "lhu", "sb", "sh", "sw", "lwsp", "swsp")
RISCV_MULTIPLICATIONS: dict[str, Range] = {"mul": (1, 3)} | dict.fromkeys(("mulh", "mulhu", "mulhsu"), (2, 4))
RISCV_DIVISIONS = ("div", "divu", "rem", "remu")


def _ibex(at: Instruction, _before: Instruction | None, left: bool) -> Range:
    """Two-stage CVE2 and Ibex: an instruction that stalls for n cycles takes n + 1."""
    if at.name in RISCV_MEMORY:
        return 2, 2
    if at.name in RISCV_DIVISIONS:
        return 2, 38
    if at.flow == "branch":
        return (3, 3) if left else (1, 1)
    if left:
        return 2, 2
    return RISCV_MULTIPLICATIONS.get(at.name, (1, 1))


M4_SOURCE = "Arm 100166, Cortex-M4 TRM, table 3-1"
TIMINGS = {
    "cortex-m0": Timing("Arm DDI 0484 (M0+) to DDI 0432 (M0) TRM, tables 3-1, single-cycle multiplier", _armv6m),
    "cortex-m3": Timing("Arm DDI 0337, Cortex-M3 TRM, table 3-1", _cortex_m3),
    "cortex-m4": Timing(M4_SOURCE, _armv7m),
    "cortex-m7": Timing(f"no timings are published, taken for single issue: {M4_SOURCE}", _armv7m),
    "cortex-m33": Timing(f"no timings are published: {M4_SOURCE}", _armv7m),
    "qemu:cortex-m55": Timing(
        "no timings are published, taken for two beats a cycle: Arm 101051, Cortex-M55 TRM", _cortex_m55
    ),
    "rv32imc": Timing("CVE2 and Ibex, Pipeline Details; single-cycle to fast multi-cycle multiplier", _ibex),
}
ASSUMPTION = "zero wait states: no flash latency, caches, bus contention or interrupts"
