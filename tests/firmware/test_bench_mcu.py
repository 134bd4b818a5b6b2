"""The committed figures of benches/mcu.csv are what the bench counts: cells of every core, by equality.

Counts depend on the compiler, so that another version of it may change them: then all of them are measured again.
Neighbours: `benches/mcu.py`.
"""

import csv
import importlib.metadata
import runpy
from pathlib import Path

import pytest

from boards import on

ROOT = Path(__file__).resolve().parents[2]
BENCH = runpy.run_path(str(ROOT / "benches" / "mcu.py"))
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line and "#" not in line
)


def same_compiler():
    return importlib.metadata.version("ziglang") == PINNED["ziglang"]


@pytest.mark.skipif(not same_compiler(), reason="another ziglang than the one of constraints.txt counts otherwise")
@pytest.mark.parametrize("core", on(*BENCH["CORES"]))
def test_cells_are_as_committed(core):
    found = list(BENCH["rows"]([core], ["gru-24x24"]))
    assert len(found) == 4
    assert BENCH["differences"](found, BENCH["REFERENCE"]) == []
    assert found[1]["instructions"] < found[0]["instructions"] and found[3]["instructions"] < found[2]["instructions"]


def test_a_difference_is_named(tmp_path):
    row = {"core": "c", "model": "m", "weight_bits": 8, "kernels": "own", "instructions": 5, "code": 1}
    reference = tmp_path / "reference.csv"
    with reference.open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    assert BENCH["differences"]([row], reference) == []
    assert BENCH["differences"]([row | {"instructions": 6}], reference) == ["c m 8 own: instructions 5 -> 6"]
    assert BENCH["differences"]([row | {"core": "d"}], reference)[0] == "d m 8 own: core missing -> d"


def test_a_core_whose_emulator_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda *_: None)
    assert BENCH["installed"](["cortex-m4", "qemu:cortex-m55"]) == ["cortex-m4"]
    assert capsys.readouterr().out.split(maxsplit=1) == [
        "qemu:cortex-m55",
        "skipped: qemu-system-arm is not installed\n",
    ]


def test_every_cell_has_a_committed_figure():
    with BENCH["REFERENCE"].open(newline="") as file:
        cells = {tuple(row[key] for key in BENCH["KEY"]) for row in csv.DictReader(file)}
    kernels = {core: ("portable", BENCH["find_target"](core).core) for core in BENCH["CORES"]}
    expected = {(c, m, w, k) for c in kernels for m in BENCH["MODELS"] for w in ("8", "16") for k in kernels[c]}
    assert cells == expected


LIMITS = {  # core -> instructions of the frame of RNNoise's shape, by bits of its weights
    "cortex-m0": {16: 470_000, 8: 360_000},
    "cortex-m3": {16: 242_000, 8: 223_000},
    "cortex-m4": {16: 91_000, 8: 108_000},
    "qemu:cortex-m55": {16: 42_000, 8: 46_000},
    "rv32imc": {16: 805_420, 8: 481_039},  # 0.75 of the rows of a plain loop (benches/plain_loop.py)
}


def test_the_committed_figures_keep_their_limits():
    """What the kernels were written to stay below: the frame, a small layer, the stack of a recurrent step."""
    with BENCH["REFERENCE"].open(newline="") as file:
        own = [row for row in csv.DictReader(file) if row["kernels"] != "portable"]
    found = {(row["core"], row["model"], int(row["weight_bits"])): row for row in own}
    for core, limits in LIMITS.items():
        for bits, limit in limits.items():
            assert int(found[core, "rnnoise", bits]["instructions"]) <= limit, (core, bits)
    assert int(found["cortex-m4", "gru-24x24", 16]["instructions"]) <= 5700
    assert int(found["cortex-m4", "gru-24x24", 8]["instructions"]) <= 6300
    kernels = {key: int(row["stack"]) for key, row in found.items() if key[1].startswith(("gru", "lstm"))}
    assert max(kernels.values()) < 160, max(kernels, key=kernels.get)
