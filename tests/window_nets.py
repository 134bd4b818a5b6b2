"""Random window nets as Tables: one whole window per step, [T][F] or [H][W][C] row-major in a tensor.

    tables = random_window(np.random.default_rng(seed))

Rows on every kind, at any pitch that the tensors allow; recurrent layers over a window, either way, begun at zero or at
given states, into tensors of their own or into interleaved halves of one. Neighbours: `nets.py` (the kinds themselves,
frames and initial states), `oracle.py` (runs Tables in Python integers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from nets import Builder
from rtcore.tables import ACTIVATIONS, Tables, state_parts


@dataclass
class WindowBuilder(Builder):
    """A window net under construction; `width` of a tensor counts the elements of the whole window."""

    def part(self, x: str, rows: int) -> tuple[str, int, int]:
        """A random (alias of x, pitch, width) such that `rows` rows of `width` elements, `pitch` apart, fill it."""
        t = self.tensors[x]
        pitch = int(self.rng.integers(0, max(1, t.width // rows) + 1)) if rows > 1 else 0
        width = int(self.rng.integers(1, max(1, min(24, t.width - (rows - 1) * pitch)) + 1))
        whole = (rows - 1) * pitch + width
        return self.slice(x, int(self.rng.integers(0, t.width - whole + 1)), whole), pitch, width

    def tensor(self, name: str, width: int, frac: int, place: str = "arena", **where) -> str:
        while name in self.tensors:  # a slice is taken twice, a row's name is free again
            name += "'"
        return super().tensor(name, width, frac, place, **where)

    def row(self, x: str, width: int) -> str:
        """A tensor of one row's shape, which `over` replaces by all rows."""
        name = f"row{len(self.tensors)}"
        return self.tensor(name, width, self.tensors[x].frac, "alias", owner=x)

    def over(self, x: str, rows: int, make: Callable[[str], str], pitch: int, width: int) -> str:
        """make(row) for every row of x: what it emits gets rows, what it allocates becomes `rows` rows."""
        first, known = len(self.layers), set(self.tensors)
        one = self.row(x, width)
        reverse = int(self.coin()) if rows > 1 else 0
        y = make(one)
        del self.tensors[one]
        pitches = {one: pitch}
        for name in [name for name in self.tensors if name not in known]:
            t = self.tensors[name]
            pitches[name] = 0 if t.place == "state" else t.width
            if t.place == "arena":
                self.tensors[name] = replace(t, width=rows * t.width, offset=self.arena)
                self.arena += rows * t.width
        for k, layer in enumerate(self.layers[first:], first):
            ints = {"rows": rows, "reverse": reverse, "pitch_y": pitches[layer.output]}
            ints |= {f"pitch_{which}": pitches.get(a, 0) for which, a in zip("ab", layer.inputs, strict=False)}
            inputs = tuple(x if name == one else name for name in layer.inputs)
            self.layers[k] = replace(layer, inputs=inputs, ints=layer.ints | ints)
        return y

    def any_row(self, x: str, rows: int) -> str:
        """A random kind over random rows of x."""
        part, pitch, width = self.part(x, rows)
        how = int(self.rng.integers(8))

        def make(one: str) -> str:
            n = int(self.rng.integers(1, 13))
            if how == 0:
                return self.dense(one, n)
            if how == 1:
                return self.activation(self.affine(one))
            if how == 2:
                kind = str(self.rng.choice(["mul_i16", "add_i16", "minmax_i16"]))
                return self.pair(one, self.dense(one, width if self.coin() else 1), kind)
            if how > 4:
                return (self.conv, self.depthwise, self.pool)[how - 5](one)
            return self.function(one)

        return self.over(part, rows, make, pitch, width)

    def begin(self, layer_output: str, given: Callable[[int, int], str], coin: bool = True) -> None:
        """Puts a begin before the recurrent layer of that state tensor: at zero, at h, or at all its parts."""
        name = self.tensors[layer_output].owner
        k = next(k for k, layer in enumerate(self.layers) if layer.name == name)
        parts = list(reversed(state_parts(self.layers[k])))
        count = int(self.rng.integers(0, len(parts) + 1)) if coin else 0
        inputs = tuple(given(part.size, part.frac) for part in parts[:count])
        at = len(self.layers)
        self.emit("begin_i16", inputs, layer_output, {"n": parts[0].size})
        self.layers.insert(k, replace(self.layers.pop(at), name=f"begin.{at}"))

    def memory_over(self, x: str, rows: int, pitch: int, width: int, into: str = "", into_pitch: int = 0) -> str:
        """A recurrent layer over the rows of x, its outputs in `into`, in a new tensor, or in its state alone."""
        n = int(self.rng.integers(1, 13))
        if into:
            n = self.tensors[into].width - (rows - 1) * into_pitch

        def make(one: str) -> str:
            how = int(self.rng.integers(4))
            if how == 0:
                return self.rnn(one, n)
            if how == 1:
                return self.lstm(one, n)
            if how == 2:
                return self.lstm(one, n + 3, n)
            return self.gru(one, n)

        state = self.over(x, rows, make, pitch, width)
        t = self.tensors[state]
        if not into and self.coin():
            into, into_pitch = self.tensor(f"t{len(self.tensors)}", rows * n, t.frac), n
        if into:
            last = self.layers[-1]
            self.layers[-1] = replace(last, output=into, ints=last.ints | {"pitch_y": into_pitch})
        given = []

        def start(size: int, frac: int) -> str:
            given.append(self.input(size))
            return given[-1]

        self.begin(state, start)
        if self.coin():  # the final state, read after it
            self.output(state)
        return into or state

    def bidirectional(self, x: str, rows: int, pitch: int, width: int) -> str:
        """Two recurrent layers into the interleaved halves of [rows][n + m]."""
        n, m = (int(v) for v in self.rng.integers(1, 9, 2))
        whole = self.tensor(f"both{len(self.tensors)}", rows * (n + m), 11)
        for offset, size in ((0, n), (n, m)):
            half = self.tensor(
                f"{whole}[{offset}]", (rows - 1) * (n + m) + size, 11, "alias", owner=whole, offset=offset
            )
            self.memory_over(x, rows, pitch, width, half, n + m)
        return whole

    def interleave(self, x: str, rows: int) -> str:
        """[rows][F1] and [rows][F2] of x, each rescaled, into [rows][F1 + F2]."""
        parts = [self.part(x, rows) for _ in range(2)]
        pitch = parts[0][2] + parts[1][2]
        whole = self.tensor(f"cat{len(self.tensors)}", rows * pitch, 11)
        offset = 0
        for part, step, width in parts:
            place = f"{whole}[{offset}]"
            self.tensor(place, (rows - 1) * pitch + width, 11, "alias", owner=whole, offset=offset)
            ints = {"n": width, "shift": int(self.rng.integers(0, 3)), "rows": rows, "pitch_a": step, "pitch_y": pitch}
            self.emit("rescale_i16", (part,), place, ints)
            offset += width
        return whole

    def copy(self, x: str) -> str:
        """A random strided copy: permuted, flipped, expanded or sliced."""
        t, rng = self.tensors[x], self.rng
        sizes, strides, low, high = [], [], 0, 0
        for _ in range(4):
            stride = int(rng.integers(-5, 6))
            most = 4 if stride == 0 else (t.width - 1 - (high - low)) // abs(stride) + 1
            sizes.append(int(rng.integers(1, max(1, min(5, most)) + 1)))
            strides.append(stride)
            span = (sizes[-1] - 1) * stride
            low, high = low + min(span, 0), high + max(span, 0)
        start = int(rng.integers(-low, t.width - high))
        ints = {f"n{k}": n for k, n in enumerate(sizes)} | {f"s{k}": s for k, s in enumerate(strides)}
        return self.emit("copy_i16", (x,), self.fresh(int(np.prod(sizes)), t.frac), ints | {"start": start})

    def embedding(self, x: str, rows: int) -> str:
        """Of `rows` elements of x, shifted so far down that some are indices."""
        t, n, entries = self.tensors[x], int(self.rng.integers(1, 6)), int(self.rng.integers(1, 20))
        part = self.slice(x, 0, min(rows, t.width))
        index = self.rescale(part, 10)
        table = self.rng.integers(-32768, 32768, entries * n).astype(np.int16)
        y = self.fresh(self.tensors[part].width * n, 9)
        ints = {"n": n, "entries": entries, "rows": self.tensors[part].width, "pitch_a": 1, "pitch_y": n}
        return self.emit("embedding_i16", (index,), y, ints, {"table": table})

    def shape(self, width: int) -> tuple[dict[str, int], int]:
        """(a random window over `width` elements seen as [in_h][in_w][channels], channels)."""

        def divisor(n: int, most: int) -> int:
            return int(self.rng.choice([k for k in range(1, most + 1) if n % k == 0]))

        channels = divisor(width, 8)
        high = divisor(width // channels, 8) if self.coin() else 1
        axes = None, None
        while None in axes:
            axes = axis(self.rng, high), axis(self.rng, width // channels // high)
        return {
            f"{name}_{ax}": n for ax, numbers in zip("hw", axes, strict=True) for name, n in numbers.items()
        }, channels

    def conv(self, x: str, bits: int | None = None, acc: int | None = None) -> str:
        """Any window, any groups."""
        ints, channels = self.shape(self.tensors[x].width)
        groups = int(self.rng.choice([k for k in range(1, channels + 1) if channels % k == 0]))
        n = groups * int(self.rng.integers(1, 7))
        columns = ints["kernel_h"] * ints["kernel_w"] * channels // groups
        return self.convolution("conv_i16", x, ints | {"groups": groups}, channels, n, columns, bits, acc)

    def depthwise(self, x: str, bits: int | None = None, acc: int | None = None) -> str:
        ints, channels = self.shape(self.tensors[x].width)
        multiplier = int(self.rng.integers(1, 4))
        ints["multiplier"] = multiplier
        columns = ints["kernel_h"] * ints["kernel_w"]
        return self.convolution("depthwise_i16", x, ints, channels, channels * multiplier, columns, bits, acc)

    def convolution(self, kind: str, x: str, ints: dict, m: int, n: int, columns: int, bits=None, acc=None) -> str:
        activation = str(self.rng.choice(list(ACTIVATIONS)))
        bounded = activation in ("sigmoid", "tanh")
        bits, mult, acc = self.form(bits, acc)
        arrays = self.rows(n, columns, 22.5 if bounded else 12.5, bits, mult, acc)
        y = self.fresh(ints["out_h"] * ints["out_w"] * n, 15 if bounded else self.frac())
        ints |= {"nb_inputs": m, "nb_neurons": n, "activation": ACTIVATIONS[activation], "acc_bits": acc}
        return self.emit(kind, (x,), y, ints, arrays)

    def pool(self, x: str) -> str:
        """The largest value, or an average by either count; sometimes multipliers that are no average at all."""
        t, largest = self.tensors[x], int(self.coin())
        while True:
            ints, n = self.shape(t.width)
            axes = [{key[:-2]: number for key, number in ints.items() if key.endswith(ax)} for ax in "hw"]
            if not largest or all(covered(a) for a in axes):
                break
        ints |= {"n": n, "largest": largest, "count_pad": int(self.coin()), "shift": 0}
        y = self.fresh(ints["out_h"] * ints["out_w"] * n, t.frac)
        if largest:
            return self.emit("pool_i16", (x,), y, ints)
        taps = ints["kernel_h"] * ints["kernel_w"]
        ints["shift"] = int(self.rng.integers(20, 31))
        mult = [0, *(min(round(2 ** ints["shift"] / count), 2**31 - 1) for count in range(1, taps + 1))]
        if self.coin():
            ints["shift"] = int(self.rng.integers(1, 63))
            mult = self.rng.integers(0, 2**31, taps + 1)
        return self.emit("pool_i16", (x,), y, ints, {"mult": np.array(mult, np.int32)})

    def fill(self, n: int) -> str:
        return self.emit("fill_i16", (), self.fresh(n, 11), {"n": n, "value": int(self.rng.integers(-32768, 32768))})

    def delay(self, x: str) -> str:
        """The last frames of x."""
        t, frames = self.tensors[x], int(self.rng.integers(1, 6))
        name = f"delay.{len(self.layers)}"
        y = self.tensor(f"{name}.view", t.width * frames, t.frac, "state", owner=name)
        return self.emit("delay_i16", (x,), y, {"n": t.width, "frames": frames, "state_frac": t.frac})


FORMS = 12  # of random_window's layers


def axis(rng: np.random.Generator, size: int) -> dict[str, int] | None:
    """A window's numbers along one axis, as torch defines them, ceil_mode or not; None where there is no output."""
    kernel, stride, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
    if rng.integers(4) == 0:
        kernel, dilation = size, 1
    pad = int(rng.integers(0, kernel * dilation // 2 + 1)) if rng.integers(2) else 0
    free = size + 2 * pad - dilation * (kernel - 1) - 1
    out = (free + (stride - 1) * int(rng.integers(2))) // stride + 1
    if out > 1 and (out - 1) * stride >= size + pad:
        out -= 1
    if out < 1:
        return None
    return {"in": size, "out": out, "kernel": kernel, "stride": stride, "dilation": dilation, "pad": pad}


def covered(a: dict[str, int]) -> bool:
    """Whether every window of an axis has a tap inside."""
    return all(
        any(0 <= o * a["stride"] - a["pad"] + k * a["dilation"] < a["in"] for k in range(a["kernel"]))
        for o in range(a["out"])
    )


def geometry(high: tuple, wide: tuple) -> dict[str, int]:
    """Ints of a window from (in, kernel, stride, dilation, pad, padding after) of both axes."""
    ints = {}
    for ax, (size, kernel, stride, dilation, pad, after) in (("h", high), ("w", wide)):
        out = (size + pad + after - dilation * (kernel - 1) - 1) // stride + 1
        names = ("in", "out", "kernel", "stride", "dilation", "pad")
        ints |= {f"{n}_{ax}": v for n, v in zip(names, (size, out, kernel, stride, dilation, pad), strict=True)}
    return ints


ONE = (1, 1, 1, 1, 0, 0)
OPTIONS = {  # what -> geometry, channels in, channels out per group, groups
    "1x1": (geometry((3, 1, 1, 1, 0, 0), (4, 1, 1, 1, 0, 0)), 6, 5, 1),
    "1x1, strided": (geometry((5, 1, 2, 1, 0, 0), (4, 1, 3, 1, 0, 0)), 3, 4, 1),
    "3x3, padded": (geometry((5, 3, 1, 1, 1, 1), (4, 3, 1, 1, 1, 1)), 2, 6, 1),
    "3x2, strided, padded after": (geometry((6, 3, 2, 1, 0, 1), (7, 2, 3, 1, 0, 2)), 3, 3, 1),
    "dilated": (geometry((7, 3, 1, 2, 2, 1), (8, 2, 2, 3, 0, 0)), 2, 5, 1),
    "in groups": (geometry((4, 2, 1, 1, 0, 0), (5, 3, 1, 1, 1, 1)), 6, 3, 3),
    "1x1 in groups": (geometry((2, 1, 1, 1, 0, 0), (3, 1, 1, 1, 0, 0)), 8, 2, 4),
    "whole rows": (geometry((6, 2, 1, 1, 0, 0), (3, 3, 1, 1, 0, 0)), 2, 7, 1),
    "whole input": (geometry((3, 3, 1, 1, 0, 0), (5, 5, 1, 1, 0, 0)), 1, 4, 1),
    "one dimension": (geometry(ONE, (12, 5, 1, 1, 0, 0)), 3, 9, 1),
    "one dimension, causal, dilated": (geometry(ONE, (9, 3, 1, 2, 4, 0)), 4, 4, 1),
    "one dimension, strided, padded": (geometry(ONE, (11, 4, 3, 1, 2, 2)), 1, 1, 1),
    "wider than the input": (geometry((2, 5, 1, 1, 2, 2), (3, 7, 2, 1, 3, 3)), 2, 3, 1),
}


def option_net(rng: np.random.Generator, bits: int, acc: int, options: Iterable[str] = OPTIONS) -> Tables:
    """Every option as a convolution, depthwise with one and with two outputs a channel, and as both pools."""
    b = WindowBuilder(rng)
    x = b.input(max(ints["in_h"] * ints["in_w"] * m for ints, m, _, _ in OPTIONS.values()))
    for ints, m, per_group, groups in (OPTIONS[what] for what in options):
        part = b.slice(x, 0, ints["in_h"] * ints["in_w"] * m)
        columns = ints["kernel_h"] * ints["kernel_w"]
        n = per_group * groups
        b.output(b.convolution("conv_i16", part, ints | {"groups": groups}, m, n, columns * m // groups, bits, acc))
        for multiplier in (1, 2):
            own = ints | {"multiplier": multiplier}
            b.output(b.convolution("depthwise_i16", part, own, m, m * multiplier, columns, bits, acc))
        size, frac = ints["out_h"] * ints["out_w"] * m, b.tensors[part].frac
        b.output(
            b.emit("pool_i16", (part,), b.fresh(size, frac), ints | {"n": m, "largest": 1, "count_pad": 0, "shift": 0})
        )
        for count_pad in (0, 1):
            mult = np.array([0, *(round(2**24 / count) for count in range(1, columns + 1))], np.int32)
            own = ints | {"n": m, "largest": 0, "count_pad": count_pad, "shift": 24}
            b.output(b.emit("pool_i16", (part,), b.fresh(size, frac), own, {"mult": mult}))
    return b.tables()


def random_window(rng: np.random.Generator, depth: int | None = None, how: int | None = None) -> Tables:
    """A window of random size through `depth` (2..4) random layers; its first is number `how`, if given."""
    b = WindowBuilder(rng)
    x = b.input(int(rng.integers(12, 80)))
    for k in range(depth or int(rng.integers(2, 5))):
        rows = int(rng.integers(1, 7))
        rows = min(rows, b.tensors[x].width)
        which = int(rng.integers(FORMS)) if k or how is None else how
        if which < 2:
            x = b.any_row(x, rows)
        elif which == 2:
            x = b.memory_over(*shuffled(b.part(x, rows), rows))
        elif which == 3:
            x = b.bidirectional(*shuffled(b.part(x, rows), rows))
        elif which == 4:
            x = b.interleave(x, rows)
        elif which == 5:
            x = b.copy(x)
        elif which == 6:
            x = b.embedding(x, rows)
        elif which == 7:
            x = b.delay(x)
        elif which in (8, 9, 10):
            x = (b.conv, b.depthwise, b.pool)[which - 8](x)
        else:
            x = b.concat([x, b.fill(int(rng.integers(1, 6)))])
        if b.coin():
            b.output(x)
    y = b.tensor(f"y{len(b.outputs)}", int(rng.integers(1, 8)), b.frac(), "output", index=len(b.outputs))
    b.outputs.append(y)
    b.dense(x, b.tensors[y].width, into=y)
    return b.tables()


def shuffled(part: tuple[str, int, int], rows: int) -> tuple[str, int, int, int]:
    x, pitch, width = part
    return x, rows, pitch, width
