"""Places the tensors that live only within a step: one arena, shared over time, sized by its peak.

Greedy by size (the largest first, each at the lowest free offset): the order used by TensorFlow Lite Micro's planner
(Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, greedy by size for offsets).
Neighbours: `tables.py` (asks), `rtcore/tables.py` (Tensor.offset).
"""

from __future__ import annotations

from dataclasses import dataclass

ALIGN = 2  # elements: 4 bytes, so that a core may load pairs


@dataclass(frozen=True)
class Lifetime:
    """A tensor's elements are needed from call `first` (which writes it) to call `last` (its last reader),
    inclusive."""

    name: str
    width: int
    first: int
    last: int


def place(lifetimes: list[Lifetime]) -> tuple[dict[str, int], int]:
    """Returns offsets in elements and the arena's size. Tensors alive at the same call never overlap."""
    offsets: dict[str, int] = {}
    placed: list[Lifetime] = []
    for tensor in sorted(lifetimes, key=lambda t: (-t.width, t.first, t.name)):
        offset = 0
        for other in sorted((o for o in placed if overlaps(tensor, o)), key=lambda o: offsets[o.name]):
            if offset + tensor.width <= offsets[other.name]:
                break
            offset = max(offset, align(offsets[other.name] + other.width))
        offsets[tensor.name] = offset
        placed.append(tensor)
    return offsets, max((align(offsets[t.name] + t.width) for t in placed), default=0)


def overlaps(a: Lifetime, b: Lifetime) -> bool:
    return a.first <= b.last and b.first <= a.last


def align(elements: int) -> int:
    return -(-elements // ALIGN) * ALIGN
