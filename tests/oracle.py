"""SPEC.md in Python integers: the reference that every other implementation must equal, bit for bit.

Written from the specification, not from the kernels: no C, no numpy arithmetic, no packing; sums in plain order,
numbers of any size. Works on the logical tables (rtcore.tables). The sigma table is derived here from its definition,
so that a wrong committed table is noticed too.

    outputs, trace, states = run(tables, inputs, initial)
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product
from math import isqrt

import mpmath

from rtcore.tables import Layer, Tables

LINEAR, SIGMOID, TANH, RELU = range(4)
ONE = 2**30


def half_up(numerator: int, shift: int) -> int:
    """numerator / 2^shift, rounded half up."""
    return (2 * numerator + 2**shift) // 2 ** (shift + 1)


def clip(v: int, low: int, high: int) -> int:
    return max(low, min(high, v))


def act(v: int) -> int:
    return clip(v, -(2**15), 2**15 - 1)


def pre(v: int) -> int:
    return clip(v, -(2**31) + 1, 2**31 - 1)


# ------------------------------------------------------------------------------------------------ sigmoid and tanh --


@cache
def sigma_nodes() -> tuple[int, ...]:
    """Q0.32 at t = i / 64: sigma(-t) - sigma''(-t) / (12 * 64^2), nearest; at most 2^31 - 1."""
    with mpmath.workdps(40):
        nodes = []
        for i in range(1025):
            t = mpmath.mpf(i) / 64
            s = 1 / (1 + mpmath.exp(t))
            curve = s * (1 - s) * (1 - 2 * s) / (12 * 64**2)
            nodes.append(min(int(mpmath.floor((s - curve) * 2**32 + mpmath.mpf("0.5"))), 2**31 - 1))
    return tuple(nodes)


def sigma_minus(t: int) -> int:
    """sigma(-t) in Q0.32 for t >= 0 in Q22: the chord between the nodes around it, rounded half up."""
    nodes = sigma_nodes()
    i, f = divmod(t, 2**16)
    if i >= 1024:
        return nodes[1024]
    return half_up(nodes[i] * (2**16 - f) + nodes[i + 1] * f, 16)


def gate_minus(ints: dict, a: int) -> int:
    """The smaller of a gate's value and 1 minus it, Q0.32: of a sigmoid, or of a hard one of the layer's slope."""
    slope = ints.get("gate_slope", 0)
    return clip(2**31 - half_up(abs(a) * slope, 20), 0, 2**31 - 1) if slope else sigma_minus(abs(a))


def tanh_q30(a: int) -> int:
    """1 - 2 sigma(-2|a|), halves of the Q30 LSB towards zero; the sign of a."""
    y = ONE - half_up(sigma_minus(2 * abs(a)), 1)
    return -y if a < 0 else y


def activation_q15(a: int, activation: int) -> int:
    if activation == SIGMOID:
        s = half_up(sigma_minus(abs(a)), 17)
        return act(s if a < 0 else 2**15 - s)
    y = act(half_up(abs(tanh_q30(a)), 15))
    return -y if a < 0 else y


# ---------------------------------------------------------------------------------------------------------- layers --


def rows(weights, bias, mult, shift, x) -> list[int]:
    """Exact sums, one multiplication and one rounding each, saturated to PRE."""
    return [
        pre(half_up((b + sum(map(int.__mul__, w, x))) * m, s) if s else (b + sum(map(int.__mul__, w, x))) * m)
        for w, b, m, s in zip(weights, bias, mult, shift, strict=True)
    ]


def dense(layer: Layer, x: list[int]) -> list[int]:
    a = {name: array.tolist() for name, array in layer.arrays.items()}
    kind = layer.ints["activation"]
    return activated(rows(a["weights"], a["bias"], a["mult"], a["shift"], x), kind)


def activated(y: list[int], kind: int) -> list[int]:
    """Requantized rows to ACT."""
    if kind in (SIGMOID, TANH):
        return [activation_q15(v, kind) for v in y]
    return [act(max(v, 0) if kind == RELU else v) for v in y]


def taps(i: dict, row: int, column: int) -> list[tuple[int, int]]:
    """Where a window's taps lie, row by row, inside the input or not."""
    down = [row * i["stride_h"] - i["pad_h"] + k * i["dilation_h"] for k in range(i["kernel_h"])]
    across = [column * i["stride_w"] - i["pad_w"] + k * i["dilation_w"] for k in range(i["kernel_w"])]
    return list(product(down, across))


def inside(i: dict, tap: tuple[int, int], margin: tuple[int, int] = (0, 0)) -> bool:
    high, wide = margin
    return -high <= tap[0] < i["in_h"] + high and -wide <= tap[1] < i["in_w"] + wide


def convolution(i: dict, a: dict, x: list[int]) -> list[int]:
    """conv_i16, and depthwise_i16 as a group of each input channel: its window's elements, 0 outside, times a row."""
    groups = i.get("groups", i["nb_inputs"])
    channels, neurons = i["nb_inputs"] // groups, i["nb_neurons"] // groups
    y = []
    for row, column in product(range(i["out_h"]), range(i["out_w"])):
        for g in range(groups):
            patch = []
            for tap in taps(i, row, column):
                start = (tap[0] * i["in_w"] + tap[1]) * i["nb_inputs"] + g * channels
                patch += x[start : start + channels] if inside(i, tap) else [0] * channels
            own = slice(g * neurons, (g + 1) * neurons)
            y += rows(a["weights"][own], a["bias"][own], a["mult"][own], a["shift"][own], patch)
    return activated(y, i["activation"])


def pool(i: dict, a: dict, x: list[int]) -> list[int]:
    y = []
    for row, column, c in product(range(i["out_h"]), range(i["out_w"]), range(i["n"])):
        window = taps(i, row, column)
        values = [x[(h * i["in_w"] + w) * i["n"] + c] for h, w in window if inside(i, (h, w))]
        margin = (i["pad_h"], i["pad_w"]) if i["count_pad"] else (0, 0)
        count = sum(inside(i, tap, margin) for tap in window)
        y.append(max(values) if i["largest"] else act(half_up(sum(values) * a["mult"][count], i["shift"])))
    return y


def gru(layer: Layer, x: list[int], h: list[int]) -> list[int]:
    """The next 32-bit state."""
    ints = layer.ints
    a = {name: array.tolist() for name, array in layer.arrays.items()}
    n = ints["nb_neurons"]
    view = [view_of(v) for v in h]

    def products(which: str, vector: list[int], gates: slice) -> list[int]:
        names = (f"{which}_weights", f"{which}_bias", f"{which}_mult", f"{which}_shift")
        return rows(*(a[name][gates] for name in names), vector)

    def gate(first: int) -> list[int]:
        gates = slice(first * n, (first + 1) * n)
        both = zip(products("input", x, gates), products("recurrent", view, gates), strict=True)
        return [pre((p + q) * 2 ** ints["gate_shift"]) for p, q in both]

    z, r = gate(0), gate(1)
    last = slice(2 * n, 3 * n)
    wx = products("input", x, last)
    if ints["reset_after"]:
        rh = products("recurrent", view, last)
        gated = [part_of(ints, g, v) for g, v in zip(r, rh, strict=True)]
    else:
        kept = [act(half_up(gate_times(ints, g, v), 32 + 15)) for g, v in zip(r, h, strict=True)]
        gated = products("recurrent", kept, last)
    pres = [pre((p + q) * 2 ** ints["candidate_shift"]) for p, q in zip(wx, gated, strict=True)]
    new = []
    for g, old, c in zip(z, h, (candidate(ints, p) for p in pres), strict=True):
        small = gate_minus(ints, g)
        new.append(c + half_up(small * (old - c), 32) if g < 0 else old + half_up(small * (c - old), 32))
    return new


def meeting(layer: Layer, x: list[int], view: list[int], shift: int) -> list[int]:
    """All pre-activations before they saturate to PRE: both matrices' rows, requantized apart, meet."""
    a = {name: array.tolist() for name, array in layer.arrays.items()}
    sides = []
    for which, vector in (("input", x), ("recurrent", view)):
        names = (f"{which}_weights", f"{which}_bias", f"{which}_mult", f"{which}_shift")
        sides.append(rows(*(a[name] for name in names), vector))
    return [(p + q) * 2**shift for p, q in zip(*sides, strict=True)]


def lstm(layer: Layer, x: list[int], state: list[int]) -> list[int]:
    """The next state: cells, then the view."""
    ints = layer.ints
    n, frac = ints["nb_neurons"], ints["cell_frac"]
    cell, view = state[:n], state[n:]
    gates = "igo" if ints["coupled"] else "ifgo"
    sums = meeting(layer, x, view, ints["gate_shift"])
    sums = {gate: sums[k * n : (k + 1) * n] for k, gate in enumerate(gates)}

    def seen(gate: str, k: int, c: int) -> int:
        """The pre-activation of one unit's gate, with what its peephole sees."""
        if not ints["peephole"] or gate == "g":
            return pre(sums[gate][k])
        at = gates.replace("g", "").index(gate) * n + k
        weight, shift = (int(layer.arrays[f"peephole_{name}"][at]) for name in ("weights", "shift"))
        return pre(sums[gate][k] + round_by(weight * c, shift))

    new, hidden = [], []
    for k in range(n):
        i, g = seen("i", k, cell[k]), seen("g", k, cell[k])
        f = -i if ints["coupled"] else seen("f", k, cell[k])
        total = gate_times(ints, f, cell[k]) * 2 ** (15 - frac) + gate_times(ints, i, tanh_q30(g))
        c = clip(half_up(total, 47 - frac), -ONE, ONE)
        o = seen("o", k, c)
        up = 7 - frac
        t = tanh_q30(pre(c * 2**up if up >= 0 else half_up(c, -up)))
        new.append(c)
        hidden.append(act(half_up(gate_times(ints, o, t), 47 if ints["projected"] else 62 - ints["state_frac"])))
    if ints["projected"]:
        names = ("projection_weights", "projection_bias", "projection_mult", "projection_shift")
        hidden = [act(v) for v in rows(*(layer.arrays[name].tolist() for name in names), hidden)]
    return new + hidden


def rnn(layer: Layer, x: list[int], view: list[int]) -> list[int]:
    """The next view."""
    a = [pre(v) for v in meeting(layer, x, view, layer.ints["shift"])]
    if layer.ints["activation"] == TANH:
        return [act(half_up(tanh_q30(v), 30 - layer.ints["state_frac"])) for v in a]
    return [act(half_up(max(v, 0), 15)) for v in a]


def gate_times(ints: dict, a: int, v: int) -> int:
    """The gate's value * v, exact, 32 more fractional bits."""
    small = gate_minus(ints, a) * v
    return small if a < 0 else 2**32 * v - small


def part_of(ints: dict, a: int, v: int) -> int:
    """The gate's value * v: the smaller side's product is what is rounded."""
    small = half_up(gate_minus(ints, a) * v, 32)
    return small if a < 0 else v - small


def candidate(ints: dict, a: int) -> int:
    kind = ints["activation"]
    if kind in (SIGMOID, TANH):
        if kind == TANH:
            n = tanh_q30(a)
        else:
            n = half_up(sigma_minus(abs(a)), 2)
            n = n if a < 0 else ONE - n
        return half_up(n, 15 - ints["state_frac"]) if ints["state_frac"] < 15 else n
    return clip(max(a, 0) if kind == RELU else a, 1 - ONE, ONE - 1)


def view_of(state: int) -> int:
    return act(half_up(state, 15))


def elementwise(layer: Layer, inputs: list[list[int]]) -> list[int]:
    i, x = layer.ints, inputs[0] if inputs else []

    def scaled(numerator: int, shift: int) -> int:
        return act(half_up(numerator, shift) if shift else numerator)

    if layer.kind == "activation_i16":
        if i["activation"] in (SIGMOID, TANH):
            up = i["shift"]
            return [activation_q15(pre(v * 2**up if up >= 0 else half_up(v, -up)), i["activation"]) for v in x]
        return [max(v, 0) if i["activation"] == RELU else v for v in x]
    if layer.kind == "rescale_i16":
        return [scaled(v, i["shift"]) for v in x]
    if layer.kind == "affine_i16":
        columns = (layer.arrays[name].tolist() for name in ("mult", "bias", "shift"))
        return [scaled(v * m + b, s) for v, m, b, s in zip(x, *columns, strict=True)]
    if layer.kind in FUNCTIONS:
        return FUNCTIONS[layer.kind](i, {name: array.tolist() for name, array in layer.arrays.items()}, x)
    a = [x[k * i["stride_a"]] for k in range(i["n"])]
    b = [inputs[1][k * i["stride_b"]] for k in range(i["n"])]
    if layer.kind == "minmax_i16":
        choose = max if i["largest"] else min
        return [scaled(choose(p * 2 ** i["shift_a"], q * 2 ** i["shift_b"]), i["shift"]) for p, q in zip(a, b)]
    if layer.kind == "add_i16":
        return [scaled(p * 2 ** i["shift_a"] + i["sign_b"] * q * 2 ** i["shift_b"], i["shift"]) for p, q in zip(a, b)]
    return [scaled(p * q, i["shift"]) for p, q in zip(a, b)]


# ------------------------------------------------------------------------------------------------------- functions --


def tabled(i: dict, a: dict, x: list[int]) -> list[int]:
    """The chord of the table, rounded half up."""
    width = 2 ** i["step"]
    places = [divmod(v + 2**15, width) for v in x]
    chords = [a["nodes"][k] * (width - f) + (a["nodes"][k + 1] * f if f else 0) for k, f in places]
    return [act(half_up(chord, i["shift"])) for chord in chords]


def prelu(i: dict, a: dict, x: list[int]) -> list[int]:
    up = i["shift_positive"]
    return [
        act(round_by(v, up) if v >= 0 else round_by(v * a["mult"][k * i["stride"]], a["shift"][k * i["stride"]]))
        for k, v in enumerate(x)
    ]


def round_by(v: int, shift: int) -> int:
    return half_up(v, shift) if shift else v


def nearest_root(v: int) -> int:
    """sqrt(v) to nearest: no integer's root is half way."""
    r = isqrt(v)
    return r + (v > r * r + r)


@cache
def q30_nodes(logarithm: bool) -> tuple[int, ...]:
    """log2(1 + f) or 2^-f in Q30 at f = i / 128, nearest."""
    with mpmath.workdps(40):
        points = [mpmath.mpf(i) / 128 for i in range(129)]
        values = [mpmath.log(1 + f, 2) if logarithm else mpmath.mpf(2) ** -f for f in points]
        return tuple(int(mpmath.floor(v * 2**30 + mpmath.mpf("0.5"))) for v in values)


def chord(nodes: tuple[int, ...], position: int, bits: int) -> int:
    """Between the nodes around position / 2^bits, rounded half up."""
    k, f = divmod(position, 2**bits)
    return half_up(nodes[k] * (2**bits - f) + (nodes[k + 1] * f if f else 0), bits)


def exp_minus(t: int, frac: int) -> int:
    """exp(-t / 2^frac) in Q30 for t >= 0."""
    with mpmath.workdps(40):
        log2e = int(mpmath.nint(2**30 / mpmath.log(2)))
    whole, part = divmod(t * log2e * 2 ** max(-6 - frac, 0) // 2 ** max(frac + 6, 0), 2**24)
    return round_by(chord(q30_nodes(False), part, 17), whole) if whole <= 30 else 0


def exp_sum(i: dict, x: list[int]) -> tuple[list[int], int, int]:
    """exp(x - largest) in Q30, and their sum as (mantissa 2^30..2^31 - 1, exponent)."""
    powers = [exp_minus(max(x) - v, i["frac"]) for v in x]
    exponent = sum(powers).bit_length() - 31
    return powers, sum(powers) // 2**exponent, exponent


def softmax(i: dict, a: dict, x: list[int]) -> list[int]:
    powers, mantissa, exponent = exp_sum(i, x)
    return [act(half_up(p * (2**60 // mantissa), 45 + exponent)) for p in powers]


def log_softmax(i: dict, a: dict, x: list[int]) -> list[int]:
    _, mantissa, exponent = exp_sum(i, x)
    with mpmath.workdps(40):
        ln2 = int(mpmath.nint(mpmath.log(2) * 2**24))
    log = half_up((exponent * 2**30 + chord(q30_nodes(True), mantissa - 2**30, 23)) * ln2, 24)
    return [act(round_by((v - max(x)) * 2 ** (30 - i["frac"]) - log, i["shift"])) for v in x]


def layernorm(i: dict, a: dict, x: list[int]) -> list[int]:
    n, up = i["n"], 0
    variance = n * sum(v * v for v in x) - sum(x) ** 2 + i["epsilon"]
    while variance < 2**60:
        variance, up = variance * 4, up + 1
    scale = 2**60 // isqrt(variance)
    z = [half_up(half_up((n * v - sum(x)) * 2**up, 9) * scale, 31) for v in x]
    return [act(round_by(v * m + b, s)) for v, m, b, s in zip(z, a["mult"], a["bias"], a["shift"], strict=True)]


FUNCTIONS = {
    "table_i16": tabled,
    "clamp_i16": lambda i, a, x: [clip(v, i["low"], i["high"]) for v in x],
    "prelu_i16": prelu,
    "sqrt_i16": lambda i, a, x: [act(nearest_root(max(v, 0) * 2 ** i["shift"])) for v in x],
    "softmax_i16": softmax,
    "log_softmax_i16": log_softmax,
    "layernorm_i16": layernorm,
}


# ---------------------------------------------------------------------------------------------------------- copies --


def copied(i: dict, a: dict, x: list[int]) -> list[int]:
    """All elements in order of i0, i1, i2, i3; an index below 0 is none."""
    places = product(*(range(i[f"n{k}"]) for k in range(4)))
    indices = [i["start"] + sum(p * i[f"s{k}"] for k, p in enumerate(place)) for place in places]
    assert min(indices) >= 0
    return [x[at] for at in indices]


def embedded(i: dict, a: dict, x: list[int]) -> list[int]:
    index = clip(x[0], 0, i["entries"] - 1)
    return a["table"][index * i["n"] : (index + 1) * i["n"]]


FUNCTIONS |= {
    "copy_i16": copied,
    "fill_i16": lambda i, a, x: [i["value"]] * i["n"],
    "conv_i16": convolution,
    "depthwise_i16": convolution,
    "pool_i16": pool,
    "embedding_i16": embedded,
}


def delay(layer: Layer, x: list[int], frames: list[int]) -> list[int]:
    """The frames, oldest first, without the oldest and with the new one."""
    return frames[layer.ints["n"] :] + x


# ------------------------------------------------------------------------------------------------------------- net --


STEPS = {"gru_i16": gru, "lstm_i16": lstm, "rnn_i16": rnn, "delay_i16": delay}


def views(layer: Layer, state: list[int]) -> dict[str, list[int]]:
    """Row -> int16 view, of a recurrent layer's state vector."""
    if layer.kind == "gru_i16":
        return {layer.name: [view_of(v) for v in state]}
    if layer.kind == "lstm_i16":
        n = layer.ints["nb_neurons"]
        return {f"{layer.name}:cell": [view_of(v) for v in state[:n]], layer.name: state[n:]}
    return {layer.name: list(state)}


def started(layer: Layer, given: dict[str, list[int]]) -> list[int]:
    """The state vector whose views are given; zero where they are not."""
    n = layer.ints["n"] * layer.ints["frames"] if layer.kind == "delay_i16" else layer.ints["nb_neurons"]
    if layer.kind == "gru_i16":
        return [v * 2**15 for v in given.get(layer.name, [0] * n)]
    if layer.kind == "lstm_i16":
        cell = [v * 2**15 for v in given.get(f"{layer.name}:cell", [0] * n)]
        return cell + given.get(layer.name, [0] * layer.ints["nb_outputs"])
    return given.get(layer.name, [0] * n)


def order(layer: Layer) -> list[int]:
    """The rows of a step in the order in which they are computed."""
    rows = range(layer.ints.get("rows", 1))
    return list(reversed(rows)) if layer.ints.get("reverse") else list(rows)


def row_of(layer: Layer, which: str, r: int, whole: list[int]) -> list[int]:
    """What row r reads of an input: all rows are as wide as what is left of the last one's begin."""
    pitch = layer.ints.get(f"pitch_{which}", 0)
    width = len(whole) - (layer.ints.get("rows", 1) - 1) * pitch
    return whole[r * pitch : r * pitch + width]


def own_views(tables: Tables, layer: Layer) -> list[str]:
    """The tensors that are a recurrent layer's state."""
    return [t.name for t in tables.tensors.values() if t.place == "state" and t.owner == layer.name]


def run(tables: Tables, inputs: list, initial: list | None = None, state: dict | None = None):
    """One stream. inputs: per input [T][F] ints (or int16 arrays [T, F]); initial: per state input the concatenated
    int16 views; state: layer -> state vector to continue from.

    Returns (outputs: per output [T][width], trace: tensor -> [T][width], states: layer -> [T][N], state vectors).
    """
    frames = [[[int(v) for v in row] for row in x] for x in inputs]
    recurrent = [layer for layer in tables.layers if layer.kind in STEPS]
    widths = {row: len(v) for layer in recurrent for row, v in views(layer, started(layer, {})).items()}
    rows_given: dict[str, list[int]] = {}
    for given, which in zip(initial or [], tables.state_inputs, strict=False):
        left = [int(v) for v in given]
        for row in which.layers:
            rows_given[row], left = left[: widths[row]], left[widths[row] :]
    states = {layer.name: started(layer, rows_given) for layer in recurrent}
    for name, values in (state or {}).items():
        states[name] = [int(v) for v in values]
    trace: dict[str, list] = {name: [] for name in tables.tensors}
    history: dict[str, list] = {name: [] for name in states}
    for t in range(len(frames[0])):
        values: dict[str, list[int]] = {}

        def read(name: str, values=values) -> list[int]:
            tensor = tables.tensors[name]
            if tensor.place == "alias":
                return read(tensor.owner)[tensor.offset : tensor.offset + tensor.width]
            return values[name]

        def write(name: str, v: list[int], start: int, values=values) -> None:
            tensor = tables.tensors[name]
            while tensor.place == "alias":
                start, tensor = start + tensor.offset, tables.tensors[tensor.owner]
            whole = values.setdefault(tensor.name, [None] * tensor.width)
            whole[start : start + len(v)] = v

        for name, x in zip(tables.inputs, frames, strict=True):
            values[name] = x[t]
        for layer in tables.layers:
            for r in order(layer):
                given = [row_of(layer, which, r, read(name)) for which, name in zip("ab", layer.inputs, strict=False)]
                at = r * layer.ints.get("pitch_y", 0)
                if layer.kind == "dense_i16":
                    write(layer.output, dense(layer, given[0]), at)
                elif layer.kind in STEPS:
                    states[layer.name] = STEPS[layer.kind](layer, given[0], states[layer.name])
                    write(layer.output, views(layer, states[layer.name])[layer.name], at)
                    for name in own_views(tables, layer):
                        write(name, views(layer, states[layer.name])[layer.name], 0)
                elif layer.kind == "begin_i16":
                    owner = next(x for x in recurrent if x.name == tables.tensors[layer.output].owner)
                    rows_begun = dict(zip((owner.name, f"{owner.name}:cell"), given, strict=False))
                    states[owner.name] = started(owner, rows_begun)
                    write(layer.output, views(owner, states[owner.name])[owner.name], 0)
                elif layer.kind == "cell_i16":
                    owner = next(x for x in recurrent if x.name == tables.tensors[layer.inputs[0]].owner)
                    write(layer.output, views(owner, states[owner.name])[f"{owner.name}:cell"], at)
                else:
                    write(layer.output, elementwise(layer, given), at)
            if layer.kind in STEPS:
                history[layer.name].append(states[layer.name])
        for name in tables.tensors:
            trace[name].append(read(name))
    return [trace[name] for name in tables.outputs], trace, history


def worst_sums(weights, bias, mult, shift) -> list[tuple[int, int]]:
    """Per row the (lowest, highest) value that any partial sum can take, over inputs -32768..32767 in any order, with
    the rounding half that a multiplier of 1 lets fold into the bias."""
    plain = all(m == 1 for m in mult)
    bounds = []
    for row, b, s in zip(weights, bias, shift, strict=True):
        start = b + (2 ** (s - 1) if plain and s else 0)
        low = sum(min(w * 32767, w * -32768) for w in row)
        high = sum(max(w * 32767, w * -32768) for w in row)
        bounds.append((min(start, 0) + low, max(start, 0) + high))
    return bounds


def value(raw: int, frac: int) -> Fraction:
    return Fraction(raw, 1) * Fraction(2) ** -frac
