"""The worst stack of a function without running it: frames read from machine code, added up along chains of calls.

Each function is walked from its entry along all its branches, so that hand-written assembly and the compiler's library
count like compiled C; where it goes to an address that it keeps in its frame, along all addresses of its own code that
it ever takes; where it aligns its stack pointer, as for vectors, by the most that this can take. What cannot be bounded
(recursion, a call through a pointer, a frame of variable size) is an error, never a guess. Interrupts come on top.
Neighbours: `disassembly.py` (the instructions), `costs.py` (asks); `Board.stack_used` measures the same on a painted
stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from firmware_sim.disassembly import Code, Instruction, moved
from firmware_sim.emulator import Board, EmulatorError


class StackError(EmulatorError):
    """Code whose stack cannot be bounded: which function, which instruction."""


@dataclass(frozen=True)
class Stack:
    """Bytes of the deepest chain of calls, without the frame of its caller, and its functions from the outside in."""

    bytes: int
    chain: tuple[str, ...]


def leaves(run: Sequence[Instruction]) -> bool:
    """Whether code that begins with a conditional move of the stack pointer unwinds it and returns under the same
    condition, with nothing in between that would change how that turns out: what goes on has the stack as it was."""
    first, moves = run[0], sum(1 for _ in takewhile(lambda at: at.flow == "maybe move", run))
    if first.takes is None or first.takes >= 0 or moves == len(run) or run[moves].flow != "maybe return":
        return False
    return all(at.raw.cc == first.raw.cc and not at.raw.update_flags for at in run[: moves + 1])


class StackReader:
    """Worst stacks of the functions of one firmware.

    never: functions that its data rule out, as the asker knows; a call of one, or a jump to it, counts nothing.
    """

    def __init__(self, board: Board, code: Code, never: Iterable[str] = ()):
        self._code = code
        self._names = {s.address: s.name for s in board.symbols.values() if s.function}
        self._sizes = {s.address: s.size for s in board.symbols.values() if s.function}
        self._addresses = {s.name: s.address for s in board.symbols.values() if s.function}
        self._never = {self._addresses[name] for name in never if name in self._addresses}  # a linker may drop them
        self._known: dict[int, Stack] = {}
        self._open: list[int] = []  # functions being walked, outermost first

    def worst(self, function: str) -> Stack:
        """The deepest that a call of the function can reach. Raises StackError where there is no bound."""
        return self._worst(self._addresses[function])

    def frame(self, function: str) -> int:
        """Bytes of the function's own frame at its largest."""
        return max(depth for depth, _ in self._walk(self._addresses[function]))

    def _worst(self, entry: int) -> Stack:
        if entry in self._open:
            names = [self._names.get(address, hex(address)) for address in self._open[self._open.index(entry) :]]
            raise StackError(f"{' -> '.join([*names, names[0]])}: recursion, its stack has no bound")
        if entry not in self._known:
            self._open.append(entry)
            try:
                self._known[entry] = self._deepest(entry)
            finally:
                self._open.pop()
        return self._known[entry]

    def _deepest(self, entry: int) -> Stack:
        name = self._names.get(entry, hex(entry))
        deepest = Stack(0, (name,))
        for depth, callee in self._walk(entry):
            below = Stack(0, ()) if callee is None or callee in self._never else self._worst(callee)
            if depth + below.bytes > deepest.bytes:
                deepest = Stack(depth + below.bytes, (name, *below.chain))
        return deepest

    def _walk(self, entry: int) -> list[tuple[int, int | None]]:
        """(depth, callee) of every call of a function, tail calls included, and (its deepest, None)."""
        end = entry + self._sizes.get(entry, 0)
        depths: dict[int, int] = {}
        calls: list[tuple[int, int | None]] = []
        waiting = [(entry, 0)]
        deepest = 0
        frame: int | None = None  # how deep the frame pointer is

        def go(target: int, depth: int, at: Instruction) -> None:
            if entry <= target < end:
                waiting.append((target, depth))
            elif target in self._names:
                calls.append((depth, target))
            else:
                raise self._unbounded(entry, at, "goes to no function")

        while waiting:
            address, depth = waiting.pop()
            run = self._code.run(address)
            for i, at in enumerate(run):
                if at.address in depths:
                    if depths[at.address] != depth:
                        raise self._unbounded(entry, at, f"is reached {depth} and {depths[at.address]} bytes deep")
                    break
                if not entry <= at.address < end:
                    raise self._unbounded(entry, at, "lies behind the end")
                depths[at.address] = depth
                takes = at.takes
                if takes is None:
                    where, distance = moved(run, i) or ("", 0)
                    if not where or (where == "frame" and frame is None):
                        raise self._unbounded(entry, at, "moves the stack pointer by an unknown amount")
                    takes = distance if where == "down" else frame + distance - depth
                if at.frame is not None:
                    frame = depth - at.frame
                if at.flow.startswith("indirect"):
                    raise self._unbounded(entry, at, "goes where a register says")
                if at.flow in ("kept", "maybe kept"):
                    taken = self._code.taken(entry, end)
                    if not taken:
                        raise self._unbounded(entry, at, "goes where a register says")
                    for target in taken:
                        go(target, depth, at)
                elif at.flow == "call" and entry < at.target < end:  # how Thumb-1 jumps farther than B reaches
                    go(at.target, depth, at)
                    break
                elif at.flow == "call":
                    calls.append((depth, at.target))
                elif at.target is not None:
                    go(at.target, depth, at)
                if at.flow == "maybe move" and not leaves(run[i:]):
                    raise self._unbounded(entry, at, "moves the stack pointer under a condition, and goes on")
                if not at.flow.startswith("maybe"):
                    depth += takes
                deepest = max(deepest, depth)
        return [*calls, (deepest, None)]

    def _unbounded(self, entry: int, at: Instruction, why: str) -> StackError:
        name = self._names.get(entry, hex(entry))
        return StackError(f"{name}: no bound of its stack: {at.text} at {at.address:#010x} {why}")
