"""Window nets on the host against the oracle, bit for bit, under every disturbance; and which records are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_net import batch, compare

import nets
import window_nets
from bits import assert_equal_bits
from rtcore import Layer, Net, Tables, Tensor

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS)
@settings(max_examples=150)
def test_random_windows_equal_the_oracle(seed):
    rng = np.random.default_rng(seed)
    tables = window_nets.random_window(rng)
    frames = nets.random_frames(rng, tables, 3)
    compare(tables, frames, None, Net(tables).run(batch(frames), trace=True), seed)


@pytest.mark.parametrize("acc", [32, 64])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_option_of_a_window_equals_the_oracle(bits, acc):
    rng = np.random.default_rng(bits + acc)
    tables = window_nets.option_net(rng, bits, acc)
    frames = nets.random_frames(rng, tables, 4)
    frames[0][0], frames[0][1] = 32767, -32768
    compare(tables, frames, None, Net(tables).run(batch(frames), trace=True), bits + acc)


@given(seed=SEEDS)
@settings(max_examples=40)
def test_poisoned_memory_and_a_restored_state_change_no_bit(seed):
    rng = np.random.default_rng(seed)
    tables = window_nets.random_window(rng)
    frames = nets.random_frames(rng, tables, 4)
    net = Net(tables)
    whole = net.run(batch(frames))
    net.reset()
    for t in range(4):
        saved = net.state
        net.poison(0xA5)
        other = Net(tables)
        other.poison(0xFF)
        other.state = saved
        for name, a, b, c in zip(
            tables.outputs,
            whole.outputs,
            net.step([x[t] for x in frames]),
            other.step([x[t] for x in frames]),
            strict=True,
        ):
            assert_equal_bits(a[0, t], b, f"output {name} of step {t}, poisoned", seed)
            assert_equal_bits(a[0, t], c, f"output {name} of step {t}, restored", seed)


def test_an_index_outside_an_embedding_is_clipped_and_counted():
    ints = dict(n=2, entries=3)
    table = {"table": np.array([1, 2, 3, 4, 5, 6], np.int16)}
    layer = Layer("embedding_i16", "emb", ("x",), "y", ints, table)
    tensors = {"x": Tensor("x", 1, 0, "input"), "y": Tensor("y", 2, 0, "output")}
    run = Net(Tables(tensors, (layer,), ("x",), ("y",))).run([np.array([[[1], [3], [-1]]], np.int16)])
    assert run.outputs[0][0].tolist() == [[3, 4], [5, 6], [1, 2]]
    assert run.saturated == {"emb": 2}


def one_layer(kind, ints, arrays=None, inputs=("x",), widths=None, extra=()):
    """A net of one layer called L, whose tensors have the widths that its ints ask for unless told."""
    widths = widths or {}
    tensors = {"x": Tensor("x", widths.get("x", 24), 11, "input")}
    tensors["y"] = Tensor("y", widths.get("y", 24), 11, "output")
    return Tables(
        tensors | {t.name: t for t in extra}, (Layer(kind, "L", inputs, "y", ints, arrays or {}),), ("x",), ("y",)
    )


WINDOW = window_nets.geometry(
    (3, 2, 1, 1, 0, 0), (4, 2, 1, 1, 0, 0)
)  # of 24 elements with two channels: 2 x 3 positions


def rows_of(n, columns):
    weights = np.ones((n, columns), np.int16)
    return dict(weights=weights, bias=np.zeros(n, np.int64), mult=np.ones(n, np.int16), shift=np.zeros(n, np.uint8))


CONV = WINDOW | dict(nb_inputs=2, nb_neurons=4, groups=1, activation=0, acc_bits=64)
DEPTHWISE = WINDOW | dict(nb_inputs=2, nb_neurons=4, multiplier=2, activation=0, acc_bits=64)
POOL = WINDOW | dict(n=2, largest=1, count_pad=0, shift=0)
AVERAGE = POOL | dict(largest=0, shift=24)
COPY = dict(start=0, n0=1, n1=2, n2=3, n3=4, s0=0, s1=12, s2=4, s3=1)
RESCALE = dict(n=4, shift=0, rows=6, pitch_a=4, pitch_y=4)
MULT = dict(mult=np.ones(5, np.int32))


@pytest.mark.parametrize(
    ("kind", "ints", "arrays", "widths"),
    [
        ("conv_i16", CONV, rows_of(4, 8), {}),
        ("depthwise_i16", DEPTHWISE, rows_of(4, 4), {}),
        ("pool_i16", POOL, {}, {"y": 12}),
        ("pool_i16", AVERAGE, MULT, {"y": 12}),
        ("copy_i16", COPY, {}, {}),
        ("rescale_i16", RESCALE, {}, {}),
    ],
)
def test_the_records_that_are_broken_below_are_whole(kind, ints, arrays, widths):
    tables = one_layer(kind, ints, arrays, widths=widths)
    x = np.arange(24, dtype=np.int16)
    compare(tables, [x[None]], None, Net(tables).run([x[None, None]], trace=True), 0)


@pytest.mark.parametrize(
    ("kind", "ints", "arrays", "message"),
    [
        ("conv_i16", CONV | dict(stride_h=0), rows_of(4, 8), "stride_h is outside 1.."),
        ("conv_i16", CONV | dict(pad_w=-1), rows_of(4, 8), "pad_w is outside 0.."),
        ("conv_i16", {k: v for k, v in CONV.items() if k != "groups"}, rows_of(4, 8), "groups is missing"),
        ("conv_i16", CONV | dict(groups=3), rows_of(4, 8), "3 groups do not divide 2 and 4 channels"),
        ("conv_i16", CONV, rows_of(4, 7), "weights has shape"),
        ("conv_i16", CONV | dict(activation=4), rows_of(4, 8), "activation is outside 0..3"),
        ("conv_i16", CONV, rows_of(4, 8) | dict(weights=np.full((4, 8), -32768, np.int16)), "-32768"),
        ("conv_i16", CONV | dict(in_w=5), rows_of(4, 8), "expects an input of 30"),
        (
            "conv_i16",
            CONV | dict(stride_w=1 << 24, out_w=1 << 24),
            rows_of(4, 8),
            "a size is below 1, or a matrix or a w",
        ),
        ("depthwise_i16", DEPTHWISE | dict(multiplier=3), rows_of(4, 4), "nb_neurons is 4, not 2 times 3"),
        ("depthwise_i16", DEPTHWISE, rows_of(4, 5), "weights has shape"),
        ("depthwise_i16", DEPTHWISE, rows_of(4, 4) | dict(shift=np.full(4, 63, np.uint8)), "a shift or a multiplier"),
        ("depthwise_i16", DEPTHWISE, rows_of(4, 4) | dict(weights=np.full((4, 4), -32768, np.int16)), "-32768"),
        ("pool_i16", POOL | dict(pad_h=2), {}, "window 0 of out_h has no tap inside the input"),
        ("pool_i16", POOL | dict(n=0), {}, "n is 0, it must be at least 1"),
        ("pool_i16", POOL, MULT, "mult given, a largest value needs no array"),
        ("pool_i16", POOL | dict(kernel_h=256, kernel_w=256), {}, "256 x 256 taps, at most 65535"),
        ("pool_i16", AVERAGE, {}, "mult is missing"),
        ("pool_i16", AVERAGE, dict(mult=np.ones(4, np.int32)), "mult has shape"),
        ("pool_i16", AVERAGE, dict(mult=np.ones(5, np.int16)), "mult is int16, expected int32"),
        ("pool_i16", AVERAGE, dict(mult=-np.ones(5, np.int32)), "a shift or a multiplier"),
        ("pool_i16", AVERAGE | dict(shift=0), MULT, "shift is 0"),
        ("copy_i16", COPY | dict(start=1), {}, "expects an input of 25"),
        ("copy_i16", COPY | dict(s1=-12), {}, "does not fit"),
        ("copy_i16", COPY | dict(n2=0), {}, "n2 is outside 1.."),
        ("fill_i16", dict(n=24, value=40000), {}, "value is outside"),
        ("embedding_i16", dict(n=24, entries=2), dict(table=np.zeros(47, np.int16)), "table has shape"),
        ("embedding_i16", dict(n=24, entries=2), {}, "table is missing"),
        ("delay_i16", dict(n=24, frames=0, state_frac=11), {}, "frames is outside 1.."),
        ("rescale_i16", RESCALE | dict(rows=0), {}, "rows is 0, outside 1.."),
        ("rescale_i16", RESCALE | dict(reverse=2), {}, "reverse is 2, outside 0..1"),
        ("rescale_i16", RESCALE | dict(pitch_a=-4), {}, "pitch_a is -4, outside 0.."),
        ("rescale_i16", RESCALE | dict(pitch_a=3), {}, "expects an input of 4 in each of 6 rows 3 apart, tensor x"),
        ("rescale_i16", RESCALE | dict(pitch_y=5), {}, "4 outputs in each of 6 rows 5 apart, tensor y holds 24"),
        ("begin_i16", dict(n=24), {}, "y is not the state of a recurrent layer later in the list"),
    ],
)
def test_a_malformed_record_is_refused_by_name(kind, ints, arrays, message):
    with pytest.raises(ValueError, match=message) as error:
        Net(one_layer(kind, ints, arrays, inputs=() if kind == "fill_i16" else ("x",)))
    assert "layer L" in str(error.value)


def test_a_begin_without_its_layer_or_with_another_width_is_refused():
    b = window_nets.WindowBuilder(np.random.default_rng(0))
    x = b.input(12)
    b.output(b.memory_over(x, 3, 4, 4))
    tables = b.tables()
    (k,) = (k for k, layer in enumerate(tables.layers) if layer.kind == "begin_i16")
    begin = tables.layers[k]
    others = tables.layers[:k] + tables.layers[k + 1 :]
    with pytest.raises(
        ValueError, match=f"layer {begin.name}: .* is not the state of a recurrent layer later in the list"
    ):
        Net(replace(tables, layers=(*others, begin)))
    for changed, message in (
        (replace(begin, ints={"n": begin.ints["n"] + 1}), "outputs, tensor"),
        (replace(begin, ints=begin.ints | {"rows": 2}), "a state begins once, rows is 2"),
        (replace(begin, inputs=(x,)), "expects an input of"),
        (replace(begin, inputs=(x, x, x)), "3 inputs, more than"),
    ):
        with pytest.raises(ValueError, match=f"layer {begin.name}: .*{message}"):
            Net(replace(tables, layers=(*tables.layers[:k], changed, *tables.layers[k + 1 :])))
