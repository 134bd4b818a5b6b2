"""Float graphs built by hand: what the importer would give, without torch. Neighbours: the tests of `quantize/`."""

from __future__ import annotations

import numpy as np

from quantize.graph import Argument, Graph, Node, Result, Signature

BTF = ("batch", "time", "feature")


def signature(width: int, *results: str, initial: tuple[str, ...] = (), units: int = 0) -> Signature:
    arguments = [Argument("x", "frames", BTF, "x", (), width)]
    if initial:
        arguments.append(Argument("h0", "state", ("layer", "batch", "feature"), "", initial, units))
    outs = tuple(Result(f"y{i}", tuple((a,) for a in BTF), (name,)) for i, name in enumerate(results))
    return Signature(tuple(arguments), outs, "single" if len(outs) == 1 else "tuple")


def gru_node(name, x, rng, inputs, units, activation="tanh", reset_after=True, scale=1.0, initial=None, **more) -> Node:
    """more: gate_slope. Uniform +-scale / sqrt(units), as torch initialises (scale 1)."""
    bound = scale / np.sqrt(units)
    shapes = dict(weight_ih=(3 * units, inputs), weight_hh=(3 * units, units), bias_ih=3 * units, bias_hh=3 * units)
    params = {key: rng.uniform(-bound, bound, shape) for key, shape in shapes.items()}
    attrs = dict(activation=activation, reset_after=reset_after, initial=initial) | more
    return Node("gru", name, (x,), name, attrs, params, "graphs.py")


def uniform(rng, units, scale, **shapes) -> dict:
    bound = scale / np.sqrt(units)
    return {key: rng.uniform(-bound, bound, shape) for key, shape in shapes.items()}


def lstm_node(
    name,
    x,
    rng,
    inputs,
    units,
    outputs=0,
    scale=1.0,
    initial=None,
    initial_cell=None,
    coupled=False,
    peephole=False,
    **more,
) -> Node:
    """outputs: those of a projection; 0 for none. more: gate_slope."""
    rows = (4 - coupled) * units
    shapes = dict(weight_ih=(rows, inputs), weight_hh=(rows, outputs or units))
    shapes |= dict(bias_ih=rows, bias_hh=rows) | (dict(weight_hr=(outputs, units)) if outputs else {})
    shapes |= dict(weight_peephole=(3 - coupled) * units) if peephole else {}
    attrs = dict(initial=initial, initial_cell=initial_cell) | more
    return Node("lstm", name, (x,), name, attrs, uniform(rng, units, scale, **shapes), "graphs.py")


def rnn_node(name, x, rng, inputs, units, activation="tanh", scale=1.0, initial=None) -> Node:
    shapes = dict(weight_ih=(units, inputs), weight_hh=(units, units), bias_ih=units, bias_hh=units)
    attrs = dict(activation=activation, initial=initial)
    return Node("rnn", name, (x,), name, attrs, uniform(rng, units, scale, **shapes), "graphs.py")


def linear_node(name, x, rng, inputs, outputs, scale=1.0) -> Node:
    bound = scale / np.sqrt(inputs)
    params = dict(weight=rng.uniform(-bound, bound, (outputs, inputs)), bias=rng.uniform(-bound, bound, outputs))
    return Node("linear", name, (x,), name, {}, params, "graphs.py")


def gru_graph(rng, inputs, units, **kwargs) -> Graph:
    """One GRU whose output is the model's."""
    return Graph(
        (gru_node("rnn", "x", rng, inputs, units, **kwargs),), {"x": inputs, "rnn": units}, signature(inputs, "rnn")
    )


def sqnr(reference, actual) -> float:
    """10 log10(signal / error) in dB over all elements."""
    reference = np.asarray(reference, np.float64)
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - actual) ** 2)))
