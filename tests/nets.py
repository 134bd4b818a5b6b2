"""Random nets as Tables, made of integers alone: no training, no quantizer, every kind of layer and both of each form.

    tables = random_tables(np.random.default_rng(seed))
    frames = random_frames(rng, tables, steps)

Rows are scaled so that values neither vanish nor all saturate; sums of 32-bit accumulators are bounded by construction.
`gru_net` and `rnnoise_net` are nets of fixed shape, for sizes and counts. Neighbours: `oracle.py` (runs Tables in
Python integers), the tests of `firmware/` (the same Tables in C, on the host and on emulated cores).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from rtcore.tables import ACTIVATIONS, Layer, StateInput, Tables, Tensor, state_parts

FUNCTIONS = ("table_i16", "clamp_i16", "prelu_i16", "sqrt_i16", "softmax_i16", "log_softmax_i16", "layernorm_i16")
ACC32_LIMIT = 2**31 - 2**27  # of sum |w| * 32768 + |bias|: the rest is for the rounding half


@dataclass
class Builder:
    """A net under construction; every method returns the name of the tensor that it makes."""

    rng: np.random.Generator
    tensors: dict[str, Tensor] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    arena: int = 0

    def frac(self) -> int:
        return int(self.rng.integers(8, 16))

    def coin(self) -> bool:
        return bool(self.rng.integers(2))

    def tensor(self, name: str, width: int, frac: int, place: str = "arena", **where) -> str:
        if place == "arena":
            where["offset"] = self.arena
            self.arena += width
        self.tensors[name] = Tensor(name, width, frac, place, **where)
        return name

    def input(self, width: int) -> str:
        name = self.tensor(f"x{len(self.inputs)}", width, self.frac(), "input", index=len(self.inputs))
        self.inputs.append(name)
        return name

    def emit(self, kind: str, inputs: tuple[str, ...], output: str, ints: dict, arrays: dict | None = None) -> str:
        name = f"{kind.removesuffix('_i16')}.{len(self.layers)}"
        self.layers.append(Layer(kind, name, inputs, output, {k: int(v) for k, v in ints.items()}, arrays or {}))
        return output

    def fresh(self, width: int, frac: int, into: str = "") -> str:
        """The tensor that a layer writes: a new one in the arena, or one that is given."""
        return into or self.tensor(f"t{len(self.tensors)}", width, frac)

    def rows(self, rows: int, columns: int, target: float, bits: int, mult: bool, acc: int) -> dict[str, np.ndarray]:
        """A matrix whose requantized rows are about 2^target large for inputs of a few thousand."""
        top = 127 if bits == 8 else 32767
        if acc == 32:
            top = max(1, min(top, ACC32_LIMIT // (2 * 32768 * columns)))
        w = self.rng.integers(-top, top + 1, (rows, columns))
        if bits == 8 and top == 127:
            w[self.rng.random(w.shape) < 0.02] = -128
        elif acc == 64:
            w[self.rng.random(w.shape) < 0.02] = -32767
        size = max(0.0, math.log2(math.sqrt(columns) * top * 0.6 * 6000))
        m = self.rng.integers(1, 32768, rows) if mult else np.ones(rows, np.int64)
        shift = np.clip(np.round(size + np.log2(m) - target), 0, 31 if acc == 32 and not mult else 62)
        bias = np.round(self.rng.standard_normal(rows) * 2.0 ** (size - 1))
        return {
            "weights": w.astype(np.int8 if bits == 8 else np.int16),
            "bias": np.clip(bias, -(2**28), 2**28).astype(np.int64) if acc == 32 else bias.astype(np.int64),
            "mult": m.astype(np.int16),
            "shift": shift.astype(np.uint8),
        }

    def form(self, bits: int | None, acc: int | None) -> tuple[int, bool, int]:
        """Weight bits, whether rows have multipliers, accumulator bits."""
        bits = bits or (8 if self.coin() else 16)
        acc = acc or (32 if self.coin() else 64)
        return bits, self.coin(), acc

    def dense(self, x: str, n: int, activation: str = "", bits=None, acc=None, into: str = "") -> str:
        activation = activation or str(self.rng.choice(list(ACTIVATIONS)))
        bounded = activation in ("sigmoid", "tanh")
        y = self.fresh(n, 15 if bounded else self.frac(), into)
        m = self.tensors[x].width
        bits, mult, acc = self.form(bits, acc)
        arrays = self.rows(n, m, 22.5 if bounded else 12.5, bits, mult, acc)
        ints = {"nb_inputs": m, "nb_neurons": n, "activation": ACTIVATIONS[activation], "acc_bits": acc}
        return self.emit("dense_i16", (x,), y, ints, arrays)

    def slope(self) -> int:
        """Of hard gates, in Q30: those of Keras 3 and of ONNX, and any."""
        return int(self.rng.choice([178956971, 214748365, self.rng.integers(2**21, 2**30 + 1)]))

    def gru(self, x: str, n: int, activation: str = "", reset_after=None, bits=None, acc=None, hard=False) -> str:
        activation = activation or ("relu" if self.coin() else "tanh")
        reset_after = self.coin() if reset_after is None else reset_after
        frac = 15 if activation in ("sigmoid", "tanh") else int(self.rng.integers(8, 14))
        gate, candidate = int(self.rng.integers(0, 7)), int(self.rng.integers(0, 7))
        top = 22.5 if activation in ("sigmoid", "tanh") else 26.0
        m = self.tensors[x].width
        forms = {"input": self.form(bits, acc), "recurrent": self.form(bits, acc)}
        arrays: dict[str, np.ndarray] = {}
        for which, (width, mult, wide) in forms.items():
            columns = m if which == "input" else n
            parts = [
                self.rows(n, columns, target, width, mult, wide)
                for target in (22.5 - gate, 22.5 - gate, top - candidate)
            ]
            for key in parts[0]:
                arrays[f"{which}_{key}"] = np.concatenate([part[key] for part in parts])
        ints = {
            "nb_inputs": m,
            "nb_neurons": n,
            "activation": ACTIVATIONS[activation],
            "reset_after": reset_after,
            "gate_shift": gate,
            "candidate_shift": candidate,
            "state_frac": frac,
            "input_acc_bits": forms["input"][2],
            "recurrent_acc_bits": forms["recurrent"][2],
        }
        ints |= {"gate_slope": self.slope()} if hard else {}
        name = f"gru.{len(self.layers)}"
        y = self.tensor(f"{name}.view", n, frac, "state", owner=name)
        return self.emit("gru_i16", (x,), y, ints, arrays)

    def sides(self, x: str, read: int, n: int, targets: list[float], bits=None, acc=None) -> tuple[dict, dict]:
        """(ints, arrays) of an input and a recurrent matrix: n rows per target; the latter reads `read` elements."""
        arrays, ints = {}, {}
        for which, columns in (("input", self.tensors[x].width), ("recurrent", read)):
            width, mult, wide = self.form(bits, acc)
            parts = [self.rows(n, columns, target, width, mult, wide) for target in targets]
            arrays |= {f"{which}_{key}": np.concatenate([part[key] for part in parts]) for key in parts[0]}
            ints[f"{which}_acc_bits"] = wide
        return ints, arrays

    def lstm(
        self, x: str, n: int, outputs: int = 0, bits=None, acc=None, coupled=False, peephole=False, hard=False
    ) -> str:
        """outputs: those of a projection; 0 for none."""
        gate, cell_frac = int(self.rng.integers(0, 7)), int(self.rng.integers(-4, 16))
        frac = int(self.rng.integers(8, 16)) if outputs else 15 - 2 * int(self.rng.integers(2))
        ints, arrays = self.sides(x, outputs or n, n, [22.5 - gate] * (4 - coupled), bits, acc)
        ints |= {"nb_inputs": self.tensors[x].width, "nb_neurons": n, "nb_outputs": outputs or n}
        ints |= {"projected": outputs > 0, "gate_shift": gate, "cell_frac": cell_frac, "state_frac": frac}
        ints |= {"coupled": coupled, "peephole": peephole} | ({"gate_slope": self.slope()} if hard else {})
        if peephole:
            size = (3 - coupled) * n
            arrays["peephole_weights"] = self.rng.integers(-32767, 32768, size).astype(np.int16)
            arrays["peephole_shift"] = self.rng.integers(0 if self.coin() else 18, 24, size).astype(np.uint8)
        if outputs:
            width, mult, ints["projection_acc_bits"] = self.form(bits, acc)
            rows = self.rows(outputs, n, 12.5, width, mult, ints["projection_acc_bits"])
            arrays |= {f"projection_{key}": array for key, array in rows.items()}
            arrays["projection_bias"] *= 0
        return self.recurrent("lstm", x, outputs or n, frac, ints, arrays)

    def rnn(self, x: str, n: int, activation: str = "", bits=None, acc=None) -> str:
        activation = activation or ("relu" if self.coin() else "tanh")
        frac, shift = int(self.rng.integers(8, 14)), int(self.rng.integers(0, 7))
        frac = 15 - 2 * int(self.rng.integers(2)) if activation == "tanh" else frac
        ints, arrays = self.sides(x, n, n, [(22.5 if activation == "tanh" else 27.0) - shift], bits, acc)
        ints |= {"nb_inputs": self.tensors[x].width, "nb_neurons": n, "activation": ACTIVATIONS[activation]}
        return self.recurrent("rnn", x, n, frac, ints | {"shift": shift, "state_frac": frac}, arrays)

    def recurrent(self, kind: str, x: str, width: int, frac: int, ints: dict, arrays: dict) -> str:
        name = f"{kind}.{len(self.layers)}"
        y = self.tensor(f"{name}.view", width, frac, "state", owner=name)
        return self.emit(f"{kind}_i16", (x,), y, ints, arrays)

    def cell(self, lstm: str) -> str:
        """A copy of the cell of the LSTM whose output is given."""
        (layer,) = (layer for layer in self.layers if layer.output == lstm)
        y = self.fresh(layer.ints["nb_neurons"], layer.ints["cell_frac"])
        return self.emit("cell_i16", (lstm,), y, {"n": layer.ints["nb_neurons"]})

    def memory(self, x: str, n: int) -> str:
        """A recurrent layer of any kind; of an LSTM, sometimes its cell."""
        how = self.rng.integers(4)
        if how == 0:
            return self.rnn(x, n)
        if how == 1:
            outputs = int(self.rng.integers(1, n + 1)) if self.coin() else 0
            y = self.lstm(x, n, outputs, coupled=self.coin(), peephole=self.coin(), hard=self.coin())
            return self.concat([y, self.cell(y)]) if self.coin() else y
        return self.gru(x, n, hard=self.coin())

    def activation(self, x: str, into: str = "") -> str:
        t = self.tensors[x]
        kind = str(self.rng.choice(list(ACTIVATIONS)))
        bounded = kind in ("sigmoid", "tanh")
        y = self.fresh(t.width, 15 if bounded else t.frac, into)
        ints = {"n": t.width, "activation": ACTIVATIONS[kind], "shift": 22 - t.frac if bounded else 0}
        return self.emit("activation_i16", (x,), y, ints)

    def pair(self, a: str, b: str, kind: str, into: str = "") -> str:
        """add_i16, mul_i16 or minmax_i16; b may have one element, which is repeated."""
        n = self.tensors[a].width
        y = self.fresh(n, self.frac(), into)
        ints = {"n": n, "stride_a": 1, "stride_b": int(self.tensors[b].width == n), "shift": 15}
        if kind != "mul_i16":
            up, down = self.rng.integers(0, 8, 2), int(self.rng.integers(0, 8))
            ints |= {"shift_a": up[0], "shift_b": up[1], "shift": down}
            ints |= {"sign_b": 1 if self.coin() else -1} if kind == "add_i16" else {"largest": self.coin()}
        return self.emit(kind, (a, b), y, ints)

    def affine(self, x: str, into: str = "") -> str:
        n = self.tensors[x].width
        y = self.fresh(n, self.frac(), into)
        arrays = {
            "mult": self.rng.integers(-32767, 32768, n).astype(np.int16),
            "bias": self.rng.integers(-(2**26), 2**26, n).astype(np.int64),
            "shift": self.rng.integers(12, 18, n).astype(np.uint8),
        }
        return self.emit("affine_i16", (x,), y, {"n": n}, arrays)

    def rescale(self, x: str, shift: int, into: str = "") -> str:
        t = self.tensors[x]
        y = self.fresh(t.width, t.frac - shift, into)
        return self.emit("rescale_i16", (x,), y, {"n": t.width, "shift": shift})

    def function(self, x: str, kind: str = "", into: str = "") -> str:
        """A scalar function or a normalization of one vector."""
        t, rng = self.tensors[x], self.rng
        kind = kind or str(rng.choice(FUNCTIONS))
        n, ints, arrays = t.width, {"n": t.width}, {}
        frac = {"clamp_i16": t.frac, "softmax_i16": 15}.get(kind, self.frac())
        if kind == "table_i16":
            ints |= {"step": rng.integers(3, 9), "shift": 15}
            limit = 2 ** (30 - ints["step"])
            nodes = np.cumsum(rng.integers(-limit // 64, limit // 64 + 1, (65536 >> int(ints["step"])) + 1))
            arrays = {"nodes": np.clip(nodes, -limit, limit).astype(np.int32)}
        elif kind == "clamp_i16":
            low, high = sorted(rng.integers(-32768, 32768, 2))
            ints |= {"low": low, "high": high}
        elif kind == "prelu_i16":
            size = n if self.coin() else 1
            ints |= {"stride": int(size == n), "shift_positive": rng.integers(0, 3)}
            arrays = {"mult": rng.integers(-32767, 32768, size).astype(np.int16)}
            arrays["shift"] = rng.integers(0 if self.coin() else 13, 17, size).astype(np.uint8)
        elif kind == "sqrt_i16":
            ints |= {"shift": rng.integers(0, 32)}
        elif kind in ("softmax_i16", "log_softmax_i16"):
            ints |= {"frac": rng.integers(-16, 31) if rng.integers(4) == 0 else t.frac}
            if kind == "log_softmax_i16":
                ints |= {"shift": 30 - rng.integers(-16 if rng.integers(4) == 0 else 8, 16)}
        else:
            ints |= {"epsilon": int(2.0 ** rng.uniform(0, 61 if rng.integers(4) == 0 else 20))}
            arrays = {
                "mult": rng.integers(-32767, 32768, n).astype(np.int16),
                "bias": rng.integers(-(2**33), 2**33, n).astype(np.int64),
                "shift": rng.integers(18, 26, n).astype(np.uint8),
            }
        return self.emit(kind, (x,), self.fresh(n, frac, into), ints, arrays)

    def concat(self, parts: list[str]) -> str:
        """One tensor whose segments are rescaled copies."""
        y = self.tensor(f"cat{len(self.tensors)}", sum(self.tensors[p].width for p in parts), 11)
        offset = 0
        for k, part in enumerate(parts):
            width = self.tensors[part].width
            segment = self.tensor(f"{y}[{k}]", width, 11, "alias", owner=y, offset=offset)
            self.rescale(part, int(self.rng.integers(0, 3)), segment)
            offset += width
        return y

    def slice(self, x: str, start: int, width: int) -> str:
        t = self.tensors[x]
        return self.tensor(f"{x}/{start}:{start + width}", width, t.frac, "alias", owner=x, offset=start)

    def output(self, x: str) -> str:
        """A copy of x in an output buffer."""
        t = self.tensors[x]
        name = self.tensor(f"y{len(self.outputs)}", t.width, t.frac, "output", index=len(self.outputs))
        self.outputs.append(name)
        return self.rescale(x, 0, name)

    def tables(self, state_inputs: tuple[StateInput, ...] = ()) -> Tables:
        return Tables(
            tensors=self.tensors,
            layers=tuple(self.layers),
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            state_inputs=state_inputs,
            arena=self.arena,
        )


def random_tables(
    rng: np.random.Generator, max_width: int = 40, depth: int | None = None, memory: bool = True
) -> Tables:
    """A net of random shape: one or two inputs, `depth` (1..3) random blocks, one or two outputs, and, half of the
    time, initial states. With `memory` at least one recurrent layer."""
    b = Builder(rng)

    def width() -> int:
        return int(rng.integers(1, max_width + 1))

    def widen(x: str) -> str:
        how = rng.integers(8)
        n = b.tensors[x].width
        if how == 0:
            return b.dense(x, width())
        if how == 1:
            return b.activation(b.affine(x))
        if how == 2:
            return b.pair(x, b.dense(x, n if b.coin() else 1), str(rng.choice(["mul_i16", "add_i16", "minmax_i16"])))
        if how == 3:
            return b.concat([x, b.dense(x, width())])
        if how == 4 and n > 1:
            start = int(rng.integers(n - 1))
            inner = b.slice(x, start, int(rng.integers(2, n - start + 1)))
            return b.rescale(b.slice(inner, 1, b.tensors[inner].width - 1), int(rng.integers(0, 3)))
        if how > 5:
            return b.function(x)
        return b.memory(x, width()) if memory else b.dense(x, width())

    x = b.input(width())
    if b.coin():
        x = b.concat([x, b.input(width())])
    for _ in range(depth or int(rng.integers(1, 4))):
        x = widen(x)
    if memory and not any(state_parts(layer) for layer in b.layers):
        x = b.memory(x, width())
    name = b.tensor(f"y{len(b.outputs)}", width(), b.frac(), "output", index=0)
    b.outputs.append(name)
    y = b.dense(x, b.tensors[name].width, into=name)
    if b.coin():
        b.output(x if b.coin() else y)
    recurrent = list(b.tables().state_rows)
    if not recurrent or b.coin():
        return b.tables()
    if len(recurrent) > 1 and b.coin():
        return b.tables((StateInput("first", tuple(recurrent[:1])), StateInput("rest", tuple(recurrent[1:]))))
    return b.tables((StateInput("h0", tuple(recurrent if b.coin() else recurrent[-1:])),))


def function_net(rng: np.random.Generator, width: int, n_each: int = 2) -> Tables:
    """Every kind of function and normalization, `n_each` times, of one input; minmax of every two results."""
    b = Builder(rng)
    x = b.input(width)
    for kind in FUNCTIONS * n_each:
        b.output(b.pair(b.function(x, kind), b.function(x, kind), "minmax_i16"))
    return b.tables()


def random_frames(rng: np.random.Generator, tables: Tables, steps: int) -> list[np.ndarray]:
    """int16 [steps, width] per input: moderate values, then extremes of both signs, then full-range noise."""
    frames = []
    for name in tables.inputs:
        width = tables.tensors[name].width
        x = rng.integers(-8000, 8001, (steps, width))
        third = steps // 3
        x[steps - third :] = rng.integers(-32768, 32768, (third, width))
        if steps > 3:
            x[steps // 2] = rng.choice([-32768, 32767], width)
        frames.append(x.astype(np.int16))
    return frames


def random_initial(rng: np.random.Generator, tables: Tables) -> list[np.ndarray] | None:
    """int16 [sum of units] per state input; None when the net takes none."""
    rows = tables.state_rows
    return [
        rng.integers(-32768, 32768, sum(rows[row][1].size for row in state.layers)).astype(np.int16)
        for state in tables.state_inputs
    ] or None


def gru_net(rng: np.random.Generator, inputs: int, units: int, outputs: int, bits: int, acc: int) -> Tables:
    """GRU (torch's form) and a linear layer into the output."""
    b = Builder(rng)
    x = b.gru(b.input(inputs), units, "tanh", True, bits, acc)
    y = b.tensor("y0", outputs, 11, "output", index=0)
    b.outputs.append(y)
    b.dense(x, outputs, "linear", bits, acc, into=y)
    return b.tables()


def memory_net(rng: np.random.Generator, bits: int, acc: int) -> Tables:
    """Every recurrent kind one after the other: LSTM, one with peepholes, one with coupled gates, a projected one and
    its cell, both RNNs, GRU; a linear output."""
    b = Builder(rng)
    x = b.lstm(b.lstm(b.input(20), 24, 0, bits, acc), 12, 0, bits, acc, peephole=True)
    x = b.lstm(b.lstm(x, 10, 0, bits, acc, coupled=True), 32, 12, bits, acc)
    x = b.gru(b.rnn(b.rnn(b.concat([x, b.cell(x)]), 16, "relu", bits, acc), 9, "tanh", bits, acc), 10, "tanh")
    y = b.tensor("y0", 5, 11, "output", index=0)
    b.outputs.append(y)
    b.dense(x, 5, "linear", bits, acc, into=y)
    return b.tables()


def rnnoise_net(rng: np.random.Generator, bits: int, acc: int) -> Tables:
    """The shape of RNNoise 0.1: dense 42 -> 24, GRU 24/24, GRU 90/48, GRU 114/96, dense 96 -> 22, reset-before GRUs."""
    b = Builder(rng)
    x = b.input(42)
    d = b.dense(x, 24, "tanh", bits, acc)
    vad = b.gru(d, 24, "relu", False, bits, acc)
    noise = b.gru(b.concat([d, vad, x]), 48, "relu", False, bits, acc)
    denoise = b.gru(b.concat([vad, noise, x]), 96, "relu", False, bits, acc)
    y = b.tensor("y0", 22, 15, "output", index=0)
    b.outputs.append(y)
    b.dense(denoise, 22, "sigmoid", bits, acc, into=y)
    return b.tables()
