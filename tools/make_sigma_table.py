"""Writes the committed table of rtcore/csrc/rtcore_sigma.c: sigma(-t) in Q0.32 at t = i / 64, i = 0..1024.

Nodes are corrected for the chord's error: linear interpolation of f errs by up to f'' h^2 / 8 to one side, so every
node is moved by -f'' h^2 / 12, which centres the error (least squares over a segment; the correction is the classical
one for broken-line approximation). Node 0 (f'' = 0) is 2^31 capped to 2^31 - 1, so that a gate is a non-negative int32.

    python tools/make_sigma_table.py            # rewrites the table in place; a test holds file and generator together
"""

from __future__ import annotations

import re
from decimal import Decimal, getcontext
from pathlib import Path

STEPS_PER_UNIT = 64
NODES = 16 * STEPS_PER_UNIT + 1
SOURCE = Path(__file__).resolve().parents[1] / "rtcore" / "csrc" / "rtcore_sigma.c"


def nodes() -> list[int]:
    """The NODES table entries, correctly rounded (50-digit arithmetic)."""
    getcontext().prec = 50
    h = Decimal(1) / STEPS_PER_UNIT
    table = []
    for i in range(NODES):
        s = 1 / (1 + (h * i).exp())  # sigma(-t)
        second = s * (1 - s) * (1 - 2 * s)  # its second derivative in t
        table.append(min(int((s - second * h * h / 12) * 2**32 + Decimal("0.5")), 2**31 - 1))
    return table


def render(table: list[int]) -> str:
    """The rows between the table's braces: the last node twice, so that every node has a next one."""
    table = [*table, table[-1]]
    rows = [", ".join(f"{v}" for v in table[i : i + 10]) for i in range(0, len(table), 10)]
    return "".join(f"    {row},\n" for row in rows)


def main() -> None:
    text = SOURCE.read_text()
    new = re.sub(
        r"(rtcore_sigma_table\[[^\]]*\] = \{\n).*?(\};)", lambda m: m[1] + render(nodes()) + m[2], text, flags=re.S
    )
    if new != text:
        SOURCE.write_text(new)


if __name__ == "__main__":
    main()
