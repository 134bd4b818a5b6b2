"""A net of RNNoise 0.1 through its own C table: ReLU GRUs with states to 18 and pre-activations to 27 and beyond, int8
tables passed through, 70 dB on the outputs, the same bits on the host and on every emulated core.

Tables are random integers of 1/256; the frames' level is found by bisection, so that the largest state is 18. Signal
to noise is against the float net on the same weights: with the integers passed through there is no rounding of weights.
Neighbours: `lineage_sources.py`, `quantize/test_lineage_files.py`, `quantize/test_accuracy.py`.
"""

import numpy as np
import pytest

from firmware_sim import validate
from firmware_sim.toolchain import TARGETS
from graphs import sqnr
from lineage_sources import c_source, make, rnnoise_layers
from quantize import import_model, lineage, quantize
from quantize.float_run import run_graph
from rtcore import Net

SEEDS = (1, 2, 4)  # of those that reach both; the test asserts it
STATE, CANDIDATE = 18, 27


def loud_layers(rng):
    """The six layers. Update gates are biased to stay slow (their candidates reach further than the states follow), and
    candidates feed back little, so that states grow with the frames' level and no further."""
    layers = rnnoise_layers(rng)
    for layer in layers:
        if layer.recurrent is not None:
            n = layer.recurrent.shape[0]
            layer.weights[:, : 2 * n] //= 16
            layer.recurrent[:, : 2 * n] //= 16
            layer.recurrent[:, 2 * n :] //= 2
            layer.bias[:n] = 127
    return layers


def frames_to(graph, rng, largest):
    """[2, 200, 42] and what the net computes of them: the level at which the largest state is `largest`."""
    shape = rng.standard_normal((2, 200, 42))
    shape *= 1 + 7 * (rng.random((2, 200, 1)) < 0.02)  # bursts: candidates jump, states follow part of the way
    low, high = 0.0, 200.0
    while True:
        level = (low + high) / 2
        seen: dict[str, np.ndarray] = {}
        run_graph(graph, level * shape, observe=seen.__setitem__)
        state = max(np.abs(seen[name]).max() for name in seen if name.endswith("_gru"))
        if abs(state - largest) < 0.2:
            return level * shape, seen
        low, high = (level, high) if state < largest else (low, level)


def loud_net(seed, folder):
    """(layers, module, frames, tensors seen)"""
    rng = np.random.default_rng(seed)
    layers = loud_layers(rng)
    (folder / "rnn_data.c").write_text(c_source(layers))
    net = lineage.RNNoise(lineage.load(folder / "rnn_data.c"))
    frames, seen = frames_to(import_model(net, np.zeros((2, 200, 42))), rng, STATE)
    return layers, net, frames, seen


@pytest.mark.parametrize("seed", SEEDS)
def test_relu_nets_with_states_to_18_reach_70_db_on_their_outputs(tmp_path, seed):
    layers, net, frames, seen = loud_net(seed, tmp_path)
    states = {name: np.abs(seen[name]).max() for name in seen if name.endswith("_gru")}
    candidates = {name: seen[f"{name}:candidate"].max() for name in states}
    assert STATE - 0.2 < max(states.values()) < STATE + 0.2 and max(candidates.values()) >= CANDIDATE
    qmodel = quantize(net, frames, weight_bits=8)
    tables = {layer.name: layer for layer in qmodel.tables.layers}
    for made in layers:
        sides = {"weights": made.weights} if made.recurrent is None else {"input_weights": made.weights}
        sides |= {} if made.recurrent is None else {"recurrent_weights": made.recurrent}
        for name, raw in sides.items():
            assert np.array_equal(tables[made.name].arrays[name], raw.T), f"{made.name}: {name}, seed {seed}"
    report = validate(qmodel, net, frames)
    assert report.saturated == 0
    for output in report.outputs:
        print(f"{output.name}: {output.sqnr_db:.1f} dB; states {states}, candidates {candidates}")
        assert output.sqnr_db >= 70, f"{output.name}: {output.sqnr_db:.1f} dB, seed {seed}"


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "host"])
def test_every_core_gives_the_hosts_bits(tmp_path, target):
    _, net, frames, _ = loud_net(SEEDS[0], tmp_path)
    qmodel = quantize(net, frames, weight_bits=8)
    loudest = int(np.abs(frames[0]).max(1).argmax())
    part = frames[:1, max(0, loudest - 12) : loudest + 12]
    report = validate(qmodel, net, part, target=target, min_sqnr=-100)
    assert report.mcu.equal, report.mcu.mismatch


def test_a_dense_layer_of_every_activation_and_a_gru_of_every_form_reach_70_db(tmp_path):
    """The nnet.h generation on float tables, at 16 bits."""
    rng = np.random.default_rng(4)
    for activation in ("linear", "sigmoid", "tanh", "relu"):
        for gru, reset_after in ((False, 0), (True, 0), (True, 1)):
            made = make(rng, "x", 12, 20, activation, gru=gru, int8=False, reset_after=reset_after)
            if gru and activation in ("linear", "relu"):
                made.recurrent[:] /= 2  # linear and ReLU states may grow without end
            (tmp_path / "x.c").write_text(c_source([made], "nnet"))
            layer = lineage.load(tmp_path / "x.c")["x"]
            frames = rng.normal(0, 1, (2, 60, 12))
            qmodel = quantize(layer, frames)
            want = run_graph(import_model(layer, frames), frames)
            want = want[0] if gru else want
            raw = [np.floor(frames * 2.0 ** qmodel.tables.tensors[qmodel.tables.inputs[0]].frac + 0.5).astype(np.int16)]
            frac = qmodel.tables.tensors[qmodel.tables.outputs[0]].frac
            found = sqnr(want, Net(qmodel.tables).run(raw).outputs[0] * 2.0**-frac)
            assert found >= 70, f"{activation}, gru {gru}, reset_after {reset_after}: {found:.1f} dB"
