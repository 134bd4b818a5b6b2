"""LSTM and RNN on the host: the oracle's bits at random and at the extremes, the accumulators' proof, states in parts,
and what a wrong layer is told. Neighbours: `test_net.py` (random nets of every kind), `oracle.py`.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nets
import oracle
from bits import assert_equal_bits
from rtcore import LstmI16, Net, RnnI16
from rtcore.tables import StateInput, state_parts, state_size

LSTMS = {  # kind -> its forms
    "lstm": {},
    "projected": {},
    "peephole": dict(peephole=True),
    "coupled": dict(coupled=True),
    "projected, coupled, peephole": dict(coupled=True, peephole=True),
    "hard": dict(hard=True),
    "projected, coupled, peephole, hard": dict(coupled=True, peephole=True, hard=True),
}


def one(kind, rng, inputs=5, units=7, outputs=3, bits=None, acc=None):
    """Tables of a single layer, copied to an output."""
    b = nets.Builder(rng)
    x = b.input(inputs)
    if kind in LSTMS:
        y = b.lstm(x, units, outputs if "projected" in kind else 0, bits, acc, **LSTMS[kind])
        b.output(b.cell(y))
    else:
        y = b.rnn(x, units, kind, bits, acc)
    b.output(y)
    return b.tables()


def compare(tables, frames, initial, seed):
    run = Net(tables).run([x[None] for x in frames], [v[None] for v in initial] if initial else None, trace=True)
    outputs, trace, states = oracle.run(tables, frames, initial)
    for expected, y in zip(outputs, run.outputs, strict=True):
        assert_equal_bits(expected, y[0], "output", seed)
    for name, values in trace.items():
        assert_equal_bits(values, run.trace[name][0], name, seed)
    for name, values in states.items():
        assert_equal_bits(values, run.state_trace[name][0], f"state of {name}", seed)
        assert_equal_bits(values[-1], run.states[name][0], f"final state of {name}", seed)
    return run


@pytest.mark.parametrize("kind", [*LSTMS, "tanh", "relu"])
@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 19), units=st.integers(1, 19), outputs=st.integers(1, 9))
@settings(max_examples=25)
def test_the_oracles_bits(kind, seed, inputs, units, outputs):
    rng = np.random.default_rng(seed)
    tables = one(kind, rng, inputs, units, min(outputs, units))
    tables = replace(tables, state_inputs=(StateInput("s", tuple(tables.state_rows)),))
    compare(tables, nets.random_frames(rng, tables, 9), nets.random_initial(rng, tables), seed)


@pytest.mark.parametrize("cell_frac", [-16, -9, 0, 6, 7, 8, 15])
@pytest.mark.parametrize("kind", LSTMS)
def test_cells_at_the_ends_of_every_format(kind, cell_frac):
    """Gates forced open and shut, cells started at the ends of int16 and driven on: clipped, never wrapped."""
    rng = np.random.default_rng(cell_frac + 16)
    tables = one(kind, rng, 3, 8, 4, 16, 64)
    layer = tables.layers[0]
    bias = np.stack([rng.choice([-(2**40), 2**40, 0], 8) for _ in range(4 - layer.ints["coupled"])])
    for k in (0, 1):  # two units with all gates open (but i shut where it is 1 - f), driven up and down
        bias[:, k] = 2**40
        bias[-2, k] = 2**40 if k else -(2**40)
        if layer.ints["coupled"]:
            bias[0, k] = -(2**40)
    arrays = layer.arrays | dict(input_bias=bias.ravel())
    if layer.ints["peephole"]:  # the largest products there are, beside the largest sums
        arrays["peephole_weights"] = rng.choice([-32767, 0, 32767], arrays["peephole_weights"].shape).astype(np.int16)
        arrays["peephole_shift"] = rng.choice([0, 1, 30, 46], arrays["peephole_shift"].shape).astype(np.uint8)
        arrays["peephole_weights"].reshape(-1, 8)[:, :2] = 0
    layer = replace(layer, ints=layer.ints | dict(cell_frac=cell_frac), arrays=arrays)
    cell = replace(tables.layers[1], ints=tables.layers[1].ints)
    tables = replace(
        tables, layers=(layer, cell, *tables.layers[2:]), state_inputs=(StateInput("c0", (f"{layer.name}:cell",)),)
    )
    initial = [np.array([-32768, 32767, 32767, -32768, 1, -1, 0, 20000], np.int16)]
    run = compare(tables, nets.random_frames(rng, tables, 12), initial, cell_frac)
    reached = run.state_trace[layer.name][0, :, :8]
    assert np.abs(reached.astype(np.int64)).max() <= 2**30
    if cell_frac == 15 and not layer.ints["coupled"]:  # (1 - i) c + i g stays between c and g
        assert reached[-1, 0] == -(2**30) and run.saturated[layer.name] > 0


@pytest.mark.parametrize("kind", ["lstm", "projected", "coupled", "tanh", "relu"])
def test_accumulators_are_those_of_the_proof(kind):
    """The worst inputs of every row give sums within the oracle's bounds, and reach them."""
    tables = one(kind, np.random.default_rng(3), 6, 5, 3)
    layer = tables.layers[0]
    made = (LstmI16 if kind in LSTMS else RnnI16)(layer)
    arrays = [layer.arrays[f"input_{name}"] for name in ("weights", "bias", "mult", "shift")]
    bounds = oracle.worst_sums(*(a.tolist() for a in arrays))
    read = layer.arrays["recurrent_weights"].shape[1]
    plain = bool(np.all(arrays[2] == 1))
    for r, (low, high) in enumerate(bounds):
        w, bias, _, shift = (a[r].tolist() for a in arrays)
        start = bias + (2 ** (shift - 1) if plain and shift else 0)
        for sign in (1, -1):
            x = [32767 if sign * v > 0 else -32768 for v in w]
            found = int(made.sums(np.array(x, np.int16), np.zeros(read, np.int16))[0][r])
            assert low <= found <= high and found == start + sum(map(int.__mul__, w, x))
            if start * sign >= 0:
                assert found == (high if sign > 0 else low)


def test_states_are_vectors_of_parts():
    tables = one("projected", np.random.default_rng(4), 5, 7, 3)
    layer = tables.layers[0]
    cell, view = state_parts(layer)
    assert (cell.row, cell.size, cell.start) == (f"{layer.name}:cell", 7, 0)
    assert (view.row, view.size, view.start) == (layer.name, 3, 7)
    assert state_size(layer) == 10 and list(tables.state_rows) == [layer.name, f"{layer.name}:cell"]
    net = Net(tables)
    state = np.array([2**30, -(2**30), 1, 2, 3, 4, 5, 32767, -32768, 9], np.int32)
    net.state = {layer.name: state}
    assert_equal_bits(state, net.state[layer.name], "state", 4)
    for at, value, limit in ((0, 2**30 + 1, "1073741824"), (7, 32768, "-32768..32767")):
        wrong = state.copy()
        wrong[at] = value
        with pytest.raises(ValueError, match=f"unit {at} of the state is {value}.*{limit}"):
            net.state = {layer.name: wrong}
    assert_equal_bits(state, net.state[layer.name], "state after refusals", 4)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("lstm", dict(nb_neurons=4096), "4096 neurons.*RTCORE_MAX_NEURONS"),
        ("lstm", dict(gate_shift=23), "shift"),
        ("lstm", dict(cell_frac=16), "shift"),
        ("lstm", dict(state_frac=-1), "shift"),
        ("lstm", dict(projected=1), "projection_weights is missing"),
        ("lstm", dict(nb_outputs=3), "recurrent_weights has shape"),
        ("projected", dict(projected=0), "a matrix or a window does not match"),
        ("projected", dict(state_frac=31), "shift"),
        ("lstm", dict(input_weights=np.full((28, 5), -32768, np.int16)), "-32768"),
        ("projected", dict(projection_mult=np.zeros(3, np.int16)), "mult"),
        ("lstm", dict(coupled=1), "input_weights has shape"),
        ("lstm", dict(coupled=2), "input_weights has shape"),
        ("lstm", dict(peephole=1), "peephole_weights is missing"),
        ("peephole", dict(peephole_shift=np.zeros(14, np.uint8)), "peephole_shift has shape"),
        ("peephole", dict(peephole_shift=np.full(21, 47, np.uint8)), "shift"),
        ("peephole", dict(peephole_weights=np.zeros(21, np.int8)), "peephole_weights is int8"),
        ("peephole", dict(peephole_weights=np.full(21, -32768, np.int16)), "-32768"),
        ("coupled", dict(coupled=0), "input_weights has shape"),
        ("lstm", dict(gate_slope=2**21 - 1), "shift or a multiplier"),
        ("hard", dict(gate_slope=2**30 + 1), "shift or a multiplier"),
        ("hard", dict(gate_slope=-1), "shift or a multiplier"),
        ("tanh", dict(activation=1), "activation"),
        ("tanh", dict(state_frac=16), "shift"),
        ("relu", dict(shift=32), "shift"),
        ("relu", dict(recurrent_bias=np.zeros(3, np.int64)), "recurrent_bias has shape"),
    ],
)
def test_a_wrong_layer_is_named(kind, changes, message):
    layer = one(kind, np.random.default_rng(5)).layers[0]
    arrays = {name: changes.pop(name, array) for name, array in layer.arrays.items()}
    with pytest.raises(ValueError, match=message) as error:
        (LstmI16 if "lstm" in layer.kind else RnnI16)(replace(layer, ints=layer.ints | changes, arrays=arrays))
    assert layer.name in str(error.value)


def test_only_an_lstm_has_a_cell():
    b = nets.Builder(np.random.default_rng(6))
    y = b.lstm(b.input(3), 4)
    gru = b.gru(y, 4, "tanh", True)
    b.output(b.cell(y))
    tables = b.tables()
    place = next(i for i, layer in enumerate(tables.layers) if layer.kind == "cell_i16")

    def changed(**changes):
        layers = list(tables.layers)
        layers[place] = replace(layers[place], **changes)
        return replace(tables, layers=tuple(layers))

    with pytest.raises(ValueError, match="is a gru_i16, it has no cell"):
        Net(changed(inputs=(gru,)))
    with pytest.raises(ValueError, match="does not fit"):
        Net(changed(inputs=("x0",)))
    with pytest.raises(ValueError, match="3 outputs, tensor"):
        Net(changed(ints={"n": 3}))
