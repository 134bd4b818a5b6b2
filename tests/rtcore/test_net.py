"""Net against the oracle, bit for bit, tensor by tensor, under every disturbance; and what Net refuses."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nets
import oracle
from bits import assert_equal_bits
from rtcore import GruI16, Layer, Net, Tables, Tensor

SEEDS = st.integers(0, 2**32 - 1)


def compare(tables, frames, initial, run, seed):
    """Every tensor and state of a host run [1, T, ..] against the oracle."""
    outputs, trace, states = oracle.run(tables, frames, initial)
    for name, expected in trace.items():
        assert_equal_bits(expected, run.trace[name][0], f"tensor {name}", seed)
    for name, expected in states.items():
        assert_equal_bits(expected, run.state_trace[name][0], f"state of {name}", seed)
        assert_equal_bits(expected[-1], run.states[name][0], f"final state of {name}", seed)
    for name, expected, actual in zip(tables.outputs, outputs, run.outputs, strict=True):
        assert_equal_bits(expected, actual[0], f"output {name}", seed)


def batch(arrays):
    return [x[None] for x in arrays] if arrays else None


@given(seed=SEEDS)
@settings(max_examples=60)
def test_random_nets_equal_the_oracle(seed):
    rng = np.random.default_rng(seed)
    tables = nets.random_tables(rng)
    frames, initial = nets.random_frames(rng, tables, 6), nets.random_initial(rng, tables)
    compare(tables, frames, initial, Net(tables).run(batch(frames), batch(initial), trace=True), seed)


@pytest.mark.parametrize("hard", [False, True])
@given(seed=SEEDS, width=st.integers(1, 200), units=st.integers(1, 200), bits=st.sampled_from([8, 16]))
@settings(max_examples=16)
def test_wide_grus_equal_the_oracle(hard, seed, width, units, bits):
    rng = np.random.default_rng(seed)
    b = nets.Builder(rng)
    b.output(b.gru(b.input(width), units, bits=bits, hard=hard))
    tables = b.tables()
    frames = nets.random_frames(rng, tables, 4)
    compare(tables, frames, None, Net(tables).run(batch(frames), trace=True), seed)


@pytest.mark.parametrize("value", [32767, -32767, -32768])
@pytest.mark.parametrize("seed", range(4))
def test_extreme_inputs_equal_the_oracle(value, seed):
    rng = np.random.default_rng(seed)
    tables = nets.random_tables(rng, depth=3)
    frames = [np.full((5, tables.tensors[name].width), value, np.int16) for name in tables.inputs]
    initial = nets.random_initial(rng, tables)
    if initial:
        initial = [np.full_like(x, value) for x in initial]
    compare(tables, frames, initial, Net(tables).run(batch(frames), batch(initial), trace=True), seed)


@given(seed=SEEDS)
@settings(max_examples=25)
def test_disturbances_change_no_bit(seed):
    """Poisoned scratch and arena, step by step, split with the state saved and restored at every t, after a reset."""
    rng = np.random.default_rng(seed)
    tables = nets.random_tables(rng, max_width=24)
    frames, initial = nets.random_frames(rng, tables, 7), nets.random_initial(rng, tables)
    net = Net(tables)
    whole = net.run(batch(frames), batch(initial))
    for byte in (0, 0xA5, 0xFF):
        net.poison(byte)
        again = net.run(batch(frames), batch(initial))
        for name, a, b in zip(tables.outputs, whole.outputs, again.outputs, strict=True):
            assert_equal_bits(a, b, f"output {name} with memory poisoned by {byte:#x}", seed)
    start = Net(tables)
    start.run([x[:, :1] for x in batch(frames)], batch(initial))  # leaves the state after one frame
    saved = start.state
    for t in range(1, 7):
        other = Net(tables)
        other.poison(0xA5)
        other.state = saved
        out = other.step([x[t] for x in frames])
        saved = other.state
        for name, a, b in zip(tables.outputs, whole.outputs, out, strict=True):
            assert_equal_bits(a[0, t], b, f"output {name}, restored before step {t}", seed)
    for name, a in whole.states.items():
        assert_equal_bits(a[0], saved[name], f"state of {name} after all splits", seed)
    net.reset()
    fresh = Net(tables)
    for t in range(3):
        for a, b in zip(fresh.step([x[t] for x in frames]), net.step([x[t] for x in frames]), strict=True):
            assert_equal_bits(a, b, f"step {t} after a reset", seed)


def test_batches_are_independent_streams():
    rng = np.random.default_rng(3)
    tables = nets.random_tables(rng, depth=3)
    streams = [nets.random_frames(rng, tables, 9) for _ in range(4)]
    net = Net(tables)
    together = net.run([np.stack(x) for x in zip(*streams, strict=True)])
    for s, frames in enumerate(streams):
        for a, b in zip(net.run(batch(frames)).outputs, together.outputs, strict=True):
            assert_equal_bits(a[0], b[s], f"stream {s}", 3)


def test_two_threads_run_two_nets_and_one_net_refuses_the_second():
    rng = np.random.default_rng(4)
    tables = nets.gru_net(rng, 40, 100, 10, 16, 64)
    frames = [rng.integers(-32768, 32768, (2, 3000, 40)).astype(np.int16)]
    expected = Net(tables).run(frames).outputs[0]
    own = [Net(tables), Net(tables)]
    found = [None, None]

    def work(i):
        found[i] = own[i].run(frames).outputs[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    with pytest.raises(RuntimeError, match="make one Net per thread"):
        while any(thread.is_alive() for thread in threads):
            own[0].run([frames[0][:1, :1]])
    for thread in threads:
        thread.join()
    for i in range(2):
        assert_equal_bits(expected, found[i], f"thread {i}", 4)


def test_saturation_is_counted():
    """A row of large weights on large inputs clips; the same row on zero input does not."""
    layer = Layer(
        "dense_i16",
        "fc",
        ("x",),
        "y",
        dict(nb_inputs=2, nb_neurons=1, activation=0, acc_bits=32),
        dict(
            weights=np.array([[100, 100]], np.int8),
            bias=np.zeros(1, np.int64),
            mult=np.ones(1, np.int16),
            shift=np.array([2], np.uint8),
        ),
    )
    tensors = {"x": Tensor("x", 2, 15, "input"), "y": Tensor("y", 1, 15, "output")}
    net = Net(Tables(tensors, (layer,), ("x",), ("y",)))
    run = net.run([np.array([[[32767, 32767], [0, 0]]], np.int16)])
    assert run.outputs[0].ravel().tolist() == [32767, 0]
    assert run.saturated == {"fc": 1}


def gru_layer(**changes):
    b = nets.Builder(np.random.default_rng(5))
    b.output(b.gru(b.input(3), 5, "tanh", True, 16, 64))
    layer = b.layers[0]
    arrays = {name: changes.pop(name, array) for name, array in layer.arrays.items()}
    return b.tables(), replace(layer, ints=layer.ints | changes, arrays=arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(nb_neurons=4096), "4096 neurons.*RTCORE_MAX_NEURONS"),
        (dict(activation=7), "activation"),
        (dict(gate_shift=23), "shift"),
        (dict(state_frac=16), "shift"),
        (dict(input_weights=np.full((15, 3), -32768, np.int16)), "-32768"),
        (dict(input_mult=np.zeros(15, np.int16)), "mult"),
        (dict(input_bias=np.zeros(3, np.int64)), "input_bias has shape"),
        (dict(recurrent_weights=np.zeros((15, 5), np.float32)), "recurrent_weights"),
    ],
)
def test_a_wrong_layer_is_named(changes, message):
    _, layer = gru_layer(**changes)
    with pytest.raises(ValueError, match=message) as error:
        GruI16(layer)
    assert layer.name in str(error.value)


def test_wrong_nets_and_frames_are_named():
    tables, _ = gru_layer()
    net = Net(tables)
    with pytest.raises(ValueError, match=r"input x0: shape \(1, 2, 4\), expected \[streams, steps, 3\]"):
        net.run([np.zeros((1, 2, 4), np.int16)])
    with pytest.raises(ValueError, match="input x0: int16 expected, float64 given"):
        net.run([np.zeros((1, 2, 3))])
    with pytest.raises(ValueError, match="2 inputs given, the model takes 1"):
        net.run([np.zeros((1, 2, 3), np.int16)] * 2)
    with pytest.raises(ValueError, match="holds no frame"):
        net.run([np.zeros((1, 0, 3), np.int16)])
    with pytest.raises(ValueError, match="state of another model"):
        net.state = {"other": np.zeros(5, np.int32)}
    with pytest.raises(ValueError, match="7 units, the layer 5"):
        net.state = {tables.layers[0].name: np.zeros(7, np.int32)}
    with pytest.raises(ValueError, match="a state holds at most"):
        net.state = {tables.layers[0].name: np.full(5, 2**30 + 1, np.int32)}
    with pytest.raises(ValueError, match="spec version 99"):
        Net(replace(tables, spec=99))
    with pytest.raises(ValueError, match="unknown kind lstm_i17"):
        Net(replace(tables, layers=(replace(tables.layers[0], kind="lstm_i17"),)))
    with pytest.raises(ValueError, match="beyond the arena"):
        Net(replace(tables, tensors=tables.tensors | {"t": Tensor("t", 9, 15, "arena", offset=0)}))
