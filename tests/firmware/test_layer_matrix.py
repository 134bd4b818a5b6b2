"""Every cell of the layer matrix: kind x option x weight width x engine, equal bits; and float32, a class or a refusal.

The reference is the oracle, SPEC.md in Python integers; the host is held to it tensor by tensor, the others to its
outputs and states. Neighbours: `layer_matrix.py` (the cells), `test_everywhere.py` and `test_windows_everywhere.py`
(random nets of each kind).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="an optional extra: rtcore[torch]")

import layer_matrix
import oracle
import quantize
import rtcore
from bits import assert_equal_bits
from firmware_sim import Simulator
from plain_c import PlainC
from quantize.errors import QuantizeError
from quantize.formats import to_raw
from quantize.signature import to_frames

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU

ROWS = {row.name: row for row in layer_matrix.rows()}
STEPS = 5  # of a stream
SEED = 9


@functools.cache
def cell(name: str, bits: int):
    """(tables, raw frames of one stream per input, the oracle's outputs, trace and states)."""
    row = ROWS[name]
    rng = np.random.default_rng(SEED)
    x = rng.integers(0, row.integers, (6, *row.shape)) if row.integers else rng.normal(size=(6, *row.shape))
    x = x if row.integers else x.astype(np.float32)
    qmodel = quantize.quantize(row.make(), x, weight_bits=bits)
    tables = qmodel.tables
    frames, _, _ = to_frames(qmodel.signature, x[:1])
    raw = [to_raw(frames[name], tables.tensors[name].frac)[0][0, :STEPS] for name in tables.inputs]
    return tables, raw, *oracle.run(tables, raw)


def held(tables, expected, found, what: str) -> None:
    for name, want, have in zip(tables.outputs, expected, found, strict=True):
        assert_equal_bits(np.array(want), np.asarray(have), f"{what}, output {name}", SEED)


CELLS = [
    pytest.param(name, bits, engine, id=f"{name}-w{bits}-{engine}")
    for name in ROWS
    for bits in layer_matrix.WEIGHTS
    for engine in layer_matrix.ENGINES
]


@pytest.mark.parametrize(("name", "bits", "engine"), CELLS)
def test_every_cell_has_the_oracles_bits(name, bits, engine):
    tables, raw, outputs, trace, states = cell(name, bits)
    what = f"{name}, {bits}-bit weights, {engine}"
    if engine == "C":
        found, history = PlainC(tables).run(raw)
        held(tables, outputs, found, what)
        for layer, values in states.items():
            assert_equal_bits(np.array(values), history[layer], f"{what}, state of {layer}", SEED)
        return
    if engine != "host":
        for package in ("ziglang", "unicorn", "elftools"):
            pytest.importorskip(package, reason="an optional extra: rtcore[mcu]")
    simulator = Simulator(tables, engine)
    simulator.run_raw(tuple(raw) if len(raw) > 1 else raw[0], trace=True)
    run = simulator.last_run
    for tensor, values in trace.items():
        assert_equal_bits(np.array(values), run.trace[tensor][0], f"{what}, tensor {tensor}", SEED)
    for layer, values in states.items():
        assert_equal_bits(np.array(values), run.state_trace[layer][0], f"{what}, state of {layer}", SEED)


@pytest.mark.parametrize("name", ROWS)
def test_float32_is_a_class_or_refused_by_name(name):
    row = ROWS[name]
    if row.f32:
        assert callable(getattr(rtcore, row.f32))
    with pytest.raises(QuantizeError, match="weight_bits 32: weights are 8 or 16 bits wide"):
        quantize.quantize(row.make(), np.ones((2, *row.shape), np.int64 if row.integers else np.float32), 32)


def test_the_readme_prints_the_matrix():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert layer_matrix.markdown() in readme, "run python tests/layer_matrix.py and put its rows into README.md"
