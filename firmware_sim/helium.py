"""What Armv8.1-M added to Thumb, decoded as far as flow, stack and cycles need it: low-overhead loops, vectors
(Helium), conditional selection, shifts of register pairs.

capstone 5 takes most of these for instructions of a coprocessor, and some for none at all. What a vector instruction
computes is not decoded; whether it accesses memory is. None of them may write the stack pointer (VPUSH and VPOP are
older, and capstone's). Encodings: Arm DDI 0553, Armv8-M Architecture Reference Manual, part C.
Neighbours: `disassembly.py` (asks it first), `timing.py` (prices).
"""

from __future__ import annotations

from dataclasses import dataclass

LOOP_END, LOOP_START, LOOP = "le", "wls", "dls"  # goes back; goes past the loop if that is empty; neither
MEMORY, GATHER, ARITHMETIC, TRANSFER = "vector memory", "vector gather", "vector", "vector transfer"
SELECT, PAIR_SHIFT = "csel", "pair shift"


@dataclass(frozen=True)
class Extension:
    """An instruction of 32 bits.

    name: one of the above; GATHER takes addresses from a vector, or interleaves, TRANSFER is from and to core
    registers. target: of LOOP_END and LOOP_START.
    """

    name: str
    target: int | None = None


def decode(address: int, first: int, second: int) -> Extension | None:
    """The instruction of two halfwords at an address; None where it is none of these."""
    if first >> 7 == 0b1111_0000_0 and second & 0xD001 == 0xC001:
        return _loop(address, first, second)
    if first >> 4 == 0xEA5 and (second & 15 == 13 or second & 0x800F == 15):  # ORRS with SP or PC, which it cannot have
        return Extension(PAIR_SHIFT)
    if first >> 4 == 0xEA5 and second >> 15:
        return Extension(SELECT)
    if second >> 9 & 7 != 7 or first >> 10 & 0b111011 != 0b111011:  # coprocessors 14 and 15
        return None
    if first >> 9 & 1:
        return Extension(ARITHMETIC) if first >> 8 & 1 == 0 else None
    if first & 0xFFE0 == 0xEC00:
        return Extension(TRANSFER)
    return Extension(GATHER if first >> 12 & 1 else MEMORY)


def _loop(address: int, first: int, second: int) -> Extension:
    """DLS, WLS, LE, their tail-predicated forms, VCTP."""
    if second >> 13 & 1:
        return Extension(ARITHMETIC if second >> 11 & 1 else LOOP)
    distance = (second >> 1 & 0x3FF) << 2 | (second >> 11 & 1) << 1
    if first & 15 == 15:
        return Extension(LOOP_END, address + 4 - distance)
    return Extension(LOOP_START, address + 4 + distance)
