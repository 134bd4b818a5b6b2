"""Graph + plan -> rtcore.Tables: weights rounded, calls in order, memory placed.

One builder per graph op; each emits the layer records of SPEC.md section 7. Neighbours: `plan.py` (formats),
`weights.py` (rounding and proofs), `arena.py` (placement), `rtcore/tables.py` (the records).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import numpy as np

from quantize.arena import Lifetime, place
from quantize.errors import PlanError
from quantize.function_tables import FUNCTION_BUILDERS
from quantize.graph import Graph, Node, lstm_form
from quantize.plan import BOUNDED, PRE_FRAC, STATE_EXTRA, Plan
from quantize.weights import Matrix, affine_arrays, finest_target, meeting_target, peephole_arrays, quantize_matrix
from quantize.window_tables import WINDOW_BUILDERS
from rtcore.errors import RtcoreError, slope_of_gates
from rtcore.tables import ACTIVATIONS, SLOPE_FRAC, Layer, StateInput, Tables, Tensor


class Builder:
    """Collects layers and tensors while the nodes are walked in order."""

    def __init__(self, graph: Graph, plan: Plan, weight_bits: int | Mapping[str, int], acc_bits: int | None):
        self.graph = graph
        self.plan = plan
        self.weight_bits = weight_bits
        self.acc_bits = acc_bits
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self.proofs: dict[str, dict] = {}
        self.functions: dict[str, dict] = {}  # layer -> what its table is and how far it errs

    # ----------------------------------------------------------------------------------------------- records --

    def frac(self, name: str) -> int:
        return self.tensors[name].frac

    def tensor(self, name: str, frac: int, place: str = "arena", width: int | None = None, **where) -> None:
        width = self.graph.widths[name] if width is None else width
        self.tensors[name] = Tensor(name, width, frac, place, **where)

    def emit(self, kind: str, name: str, inputs: tuple[str, ...], output: str, ints: dict, arrays=None) -> None:
        self.layers.append(Layer(kind, name, inputs, output, ints, arrays or {}))

    def bits(self, node: str, matrix: str = "") -> int:
        """Weight bits of a matrix: an int for all, or a mapping by "node.matrix", "node" and "*"."""
        if isinstance(self.weight_bits, int):
            return self.weight_bits
        for key in (f"{node}.{matrix}", node, "*"):
            if key in self.weight_bits:
                return self.weight_bits[key]
        return 16

    def matrix(self, node: Node, which: str, w: np.ndarray, b: np.ndarray, x_frac: int, target) -> Matrix:
        label = f"{node.op} {node.name}" + (f", {which} weights" if which else "")
        m = quantize_matrix(w, b, x_frac, target, self.bits(node.name, which), self.acc_bits, label)
        self.proofs[f"{node.name}.{which}" if which else node.name] = asdict(m.proof)
        return m

    # ------------------------------------------------------------------------------------------- one per op --

    def rows(self, node: Node, n_in: int, n_out: int) -> dict[str, int]:
        """The ints of a call that is repeated for every row, given what one call reads and writes."""
        rows = node.attrs.get("rows", 1)
        return dict(rows=rows, pitch_a=n_in, pitch_y=n_out) if rows > 1 else {}

    def affine_rows(self, node: Node, w: np.ndarray) -> tuple[str, Matrix, int, str]:
        """Of a linear or conv node with the rows `w`: its output (a fused activation's where there is one), the matrix,
        the output's format and the activation."""
        fused = self.plan.fused.get(node.name)
        activation = fused.attrs["activation"] if fused else "linear"
        output = fused.output if fused else node.output
        x_frac = self.frac(node.inputs[0])
        frac = self.plan.frac[output]
        target = PRE_FRAC if activation in BOUNDED else frac
        finest = finest_target(w, x_frac, self.bits(node.name))
        if finest < target:
            if activation in BOUNDED:
                raise PlanError(
                    f"{node.op} {node.name} ({node.where}): weights to {np.abs(w).max():g} on inputs of frac {x_frac}: "
                    f"pre-activations of 2^{31 - PRE_FRAC} and more; scale the weights or the features down"
                )
            frac = target = finest
        return output, self.matrix(node, "", w, node.params["bias"], x_frac, target), frac, activation

    def linear(self, node: Node) -> None:
        output, m, frac, activation = self.affine_rows(node, node.params["weight"])
        n, columns = node.params["weight"].shape
        self.tensor(output, frac)
        ints = dict(nb_inputs=columns, nb_neurons=n, activation=ACTIVATIONS[activation], acc_bits=m.proof.acc_bits)
        self.emit(
            "dense_i16",
            node.name,
            node.inputs,
            output,
            ints | self.rows(node, columns, n),
            dict(weights=m.weights, bias=m.bias, mult=m.mult, shift=m.shift),
        )

    def recurrent(self, kind: str, node: Node, frac: int, units: int, ints: dict, arrays: dict) -> None:
        """A recurrent layer. In a stream its output is its state; over a window it begins anew, and its outputs are
        kept row by row unless nothing but its last state is read."""
        window = node.attrs.get("window")
        if not window:
            self.tensor(node.output, frac, "state", owner=node.name)
            self.emit(kind, node.name, node.inputs, node.output, ints, arrays)
            return
        x, *starts = node.inputs
        state = f"{node.name}:state"
        self.tensor(state, frac, "state", units, owner=node.name)
        fracs = (frac, self.plan.frac.get(f"{node.output}:cell"))
        given = tuple(self.in_format(start, to, f"{node.name}:{i}") for i, (start, to) in enumerate(zip(starts, fracs)))
        self.emit("begin_i16", f"{node.name}:begin", given, state, dict(n=units))
        output = node.output if self.kept(node) else state
        ints |= dict(rows=window, pitch_a=ints["nb_inputs"]) if window > 1 else {}
        ints |= dict(reverse=1) if node.attrs["reverse"] and window > 1 else {}
        if output is node.output:
            self.tensor(output, frac)
            ints |= dict(pitch_y=units) if window > 1 else {}
        self.emit(kind, node.name, (x,), output, ints, arrays)

    def kept(self, node: Node) -> bool:
        """Whether a recurrent node's outputs over a window are read, and not only its last state."""
        results = {name for result in self.graph.signature.results for name in result.tensors}
        readers = [reader for reader in self.graph.nodes if node.output in reader.inputs]
        return node.output in results or any(reader.op not in ("final", "cell") for reader in readers)

    def in_format(self, x: str, frac: int, name: str) -> str:
        """The tensor x in another format."""
        if self.frac(x) == frac:
            return x
        if self.frac(x) > frac:
            self.tensor(name, frac, width=self.tensors[x].width)
            self.emit("rescale_i16", name, (x,), name, dict(n=self.tensors[x].width, shift=self.frac(x) - frac))
            return name
        arrays = affine_arrays(
            np.ones(self.tensors[x].width), np.zeros(self.tensors[x].width), self.frac(x), frac, name
        )
        self.tensor(name, frac, width=self.tensors[x].width)
        self.emit("affine_i16", name, (x,), name, dict(n=self.tensors[x].width), arrays)
        return name

    def final(self, node: Node) -> None:
        """The state itself, after its layer's last step."""
        owner = self.maker(node).name
        self.tensor(node.output, self.tensors[f"{owner}:state"].frac, "state", owner=owner)

    def maker(self, node: Node) -> Node:
        """The node whose output this one reads."""
        return next(other for other in self.graph.nodes if other.output == node.inputs[0])

    def gru(self, node: Node) -> None:
        plan, p = self.plan.recurrent[node.name], node.params
        units, columns = p["weight_hh"].shape[1], p["weight_ih"].shape[1]
        order = np.r_[units : 2 * units, 0:units, 2 * units : 3 * units]  # torch's r z n to the lineage's z r h
        x_frac = self.frac(node.inputs[0])
        sides = {
            "input": (p["weight_ih"][order], p["bias_ih"][order], x_frac),
            "recurrent": (p["weight_hh"][order], p["bias_hh"][order], plan.state_frac),
        }
        finest = [meeting_target(w, frac, self.bits(node.name, side)) for side, (w, _, frac) in sides.items()]
        gate_frac, candidate_frac = min(plan.gate_frac, *finest), min(plan.candidate_frac, *finest)
        activation = node.attrs["activation"]
        top = PRE_FRAC if activation in BOUNDED else plan.state_frac + STATE_EXTRA
        if gate_frac < 0 or top - candidate_frac > 31:
            raise PlanError(
                f"gru {node.name} ({node.where}): pre-activations need {gate_frac} fractional bits for gates and "
                f"{candidate_frac} for the candidate; scale the features down"
            )
        ints = dict(
            nb_inputs=columns,
            nb_neurons=units,
            activation=ACTIVATIONS[activation],
            reset_after=int(node.attrs["reset_after"]),
            gate_shift=PRE_FRAC - gate_frac,
            candidate_shift=top - candidate_frac,
            state_frac=plan.state_frac,
        ) | self.hard_gates(node)
        arrays = {}
        for side, (w, b, frac) in sides.items():
            self.side(node, side, w, b, frac, np.repeat([gate_frac, gate_frac, candidate_frac], units), ints, arrays)
        self.recurrent("gru_i16", node, plan.state_frac, units, ints, arrays)

    def hard_gates(self, node: Node) -> dict[str, int]:
        """The int of a layer whose gates are hard sigmoids; none where they are sigmoids."""
        try:
            slope = slope_of_gates(node.attrs.get("gate_slope", 0.0), f"{node.op} {node.name} ({node.where})")
        except RtcoreError as error:
            raise PlanError(str(error)) from None
        return {"gate_slope": round(slope * 2**SLOPE_FRAC)} if slope else {}

    def lstm(self, node: Node) -> None:
        plan, p = self.plan.recurrent[node.name], node.params
        outputs, projected = p["weight_hh"].shape[1], "weight_hr" in p
        units, coupled = lstm_form(node)
        ints = dict(
            nb_inputs=p["weight_ih"].shape[1],
            nb_neurons=units,
            nb_outputs=outputs,
            projected=int(projected),
            coupled=int(coupled),
            peephole=int("weight_peephole" in p),
            cell_frac=plan.cell_frac,
            state_frac=plan.state_frac,
        ) | self.hard_gates(node)
        arrays: dict[str, np.ndarray] = {}
        ints["gate_shift"] = self.meeting(node, plan, PRE_FRAC, PRE_FRAC, ints, arrays)
        if projected:
            w = p["weight_hr"]
            if finest_target(w, 15, self.bits(node.name, "projection")) < plan.state_frac:
                raise PlanError(f"lstm {node.name} ({node.where}): its projection is too large beside its outputs")
            self.side(node, "projection", w, np.zeros(outputs), 15, plan.state_frac, ints, arrays)
        if "weight_peephole" in p:
            what = f"lstm {node.name} ({node.where})"
            arrays |= peephole_arrays(p["weight_peephole"], plan.cell_frac + STATE_EXTRA, PRE_FRAC, what)
        self.recurrent("lstm_i16", node, plan.state_frac, outputs, ints, arrays)

    def rnn(self, node: Node) -> None:
        plan, activation = self.plan.recurrent[node.name], node.attrs["activation"]
        units, columns = node.params["weight_ih"].shape
        ints = dict(nb_inputs=columns, nb_neurons=units, activation=ACTIVATIONS[activation], state_frac=plan.state_frac)
        arrays: dict[str, np.ndarray] = {}
        top = PRE_FRAC if activation in BOUNDED else plan.state_frac + STATE_EXTRA
        ints["shift"] = self.meeting(node, plan, top, 31, ints, arrays)
        self.recurrent("rnn_i16", node, plan.state_frac, units, ints, arrays)

    def meeting(self, node: Node, plan, top: int, limit: int, ints: dict, arrays: dict) -> int:
        """The two matrices of a node whose rows share one format; returns the shift that brings their sum to `top`."""
        p, x_frac = node.params, self.frac(node.inputs[0])
        sides = {
            "input": (p["weight_ih"], p["bias_ih"], x_frac),
            "recurrent": (p["weight_hh"], p["bias_hh"], plan.state_frac),
        }
        finest = [meeting_target(w, frac, self.bits(node.name, side)) for side, (w, _, frac) in sides.items()]
        target = min(plan.gate_frac, *finest)
        if top - target > limit:
            raise PlanError(
                f"{node.op} {node.name} ({node.where}): pre-activations need {target} fractional bits where {top} are "
                "computed; scale the features down"
            )
        for side, (w, b, frac) in sides.items():
            self.side(node, side, w, b, frac, target, ints, arrays)
        return top - target

    def side(self, node: Node, side: str, w, b, frac: int, target, ints: dict, arrays: dict) -> None:
        """Rounds one matrix of several into a layer's record."""
        m = self.matrix(node, side, w, b, frac, target)
        ints[f"{side}_acc_bits"] = m.proof.acc_bits
        arrays |= {f"{side}_{key}": getattr(m, key) for key in ("weights", "bias", "mult", "shift")}

    def cell(self, node: Node) -> None:
        self.tensor(node.output, self.plan.frac[node.output])
        lstm = self.maker(node)
        state = f"{lstm.name}:state" if lstm.attrs.get("window") else lstm.output
        self.emit("cell_i16", node.name, (state,), node.output, dict(n=self.graph.widths[node.output]))

    def activation(self, node: Node) -> None:
        if any(fused is node for fused in self.plan.fused.values()):
            return
        (x,) = node.inputs
        kind = node.attrs["activation"]
        self.tensor(node.output, 15 if kind in BOUNDED else self.frac(x))
        ints = dict(
            n=self.graph.widths[x],
            activation=ACTIVATIONS[kind],
            shift=PRE_FRAC - self.frac(x) if kind in BOUNDED else 0,
        )
        self.emit("activation_i16", node.name, node.inputs, node.output, ints)

    def affine(self, node: Node) -> None:
        (x,) = node.inputs
        scale, offset = node.params["scale"], node.params["offset"]
        frac = self.plan.frac[node.output]
        largest = float(np.abs(scale).max(initial=0.0))
        if largest > 0:
            frac = min(frac, self.frac(x) + 14 - math.frexp(largest)[1])
        arrays = affine_arrays(scale, offset, self.frac(x), frac, node.name)
        self.tensor(node.output, frac)
        self.emit(
            "affine_i16",
            node.name,
            node.inputs,
            node.output,
            dict(n=len(scale)) | self.rows(node, len(scale), len(scale)),
            arrays,
        )

    def add(self, node: Node) -> None:
        a, b = node.inputs
        frac = self.plan.frac[node.output]
        common = max(self.frac(a), self.frac(b), frac)
        self.tensor(node.output, frac)
        ints = self.pair(node) | dict(
            shift_a=common - self.frac(a),
            shift_b=common - self.frac(b),
            sign_b=-1 if node.op == "sub" else 1,
            shift=common - frac,
        )
        self.emit("add_i16", node.name, node.inputs, node.output, ints)

    def mul(self, node: Node) -> None:
        frac = min(self.plan.frac[node.output], sum(self.frac(x) for x in node.inputs))
        self.tensor(node.output, frac)
        shift = sum(self.frac(x) for x in node.inputs) - frac
        self.emit("mul_i16", node.name, node.inputs, node.output, self.pair(node) | dict(shift=shift))

    def pair(self, node: Node) -> dict:
        if "shapes" in node.attrs:
            rows, n = node.attrs["rows"], self.graph.widths[node.output] // node.attrs["rows"]
            ints = dict(n=n, rows=rows, pitch_y=n)
            for side, (height, width) in zip("ab", node.attrs["shapes"], strict=True):
                ints |= {f"stride_{side}": int(width == n), f"pitch_{side}": width if height > 1 else 0}
            return ints
        n = self.graph.widths[node.output]
        strides = (int(self.graph.widths[x] == n) for x in node.inputs)
        return dict(zip(("n", "stride_a", "stride_b"), (n, *strides), strict=True))

    def concat(self, node: Node) -> None:
        frac = min(self.frac(x) for x in node.inputs)
        rows = node.attrs.get("rows", 1)
        whole = self.graph.widths[node.output] // rows
        self.tensor(node.output, frac)
        offset = 0
        for i, x in enumerate(node.inputs):
            segment, width = f"{node.output}[{i}]", self.graph.widths[x] // rows
            self.tensor(segment, frac, "alias", (rows - 1) * whole + width, owner=node.output, offset=offset)
            ints = dict(n=width, shift=self.frac(x) - frac) | self.rows(node, width, whole)
            self.emit("rescale_i16", f"{node.name}[{i}]", (x,), segment, ints)
            offset += width

    def slice(self, node: Node) -> None:
        (x,) = node.inputs
        self.tensor(node.output, self.frac(x), "alias", owner=x, offset=node.attrs["start"])


BUILDERS: dict[str, Callable[[Builder, Node], None]] = (
    FUNCTION_BUILDERS
    | WINDOW_BUILDERS
    | {
        "linear": Builder.linear,
        "gru": Builder.gru,
        "lstm": Builder.lstm,
        "rnn": Builder.rnn,
        "cell": Builder.cell,
        "final": Builder.final,
        "activation": Builder.activation,
        "affine": Builder.affine,
        "add": Builder.add,
        "sub": Builder.add,
        "mul": Builder.mul,
        "concat": Builder.concat,
        "slice": Builder.slice,
    }
)


def build_tables(
    graph: Graph, plan: Plan, weight_bits: int | Mapping[str, int] = 16, acc_bits: int | None = None
) -> Tables:
    """The fixed-point net of a graph. Raises PlanError, naming the layer, for what no format carries."""
    builder = Builder(graph, plan, weight_bits, acc_bits)
    arguments = graph.signature.arguments
    frames = [a for a in arguments if a.kind == "frames"]
    for i, argument in enumerate(frames):
        builder.tensor(argument.tensor, plan.frac[argument.tensor], "input", index=i)
    for node in graph.nodes:
        BUILDERS[node.op](builder, node)
    write_in_place(builder, {name for result in graph.signature.results for name in result.tensors})
    outputs = give_outputs(builder, [r.tensors[0] for r in graph.signature.results if not r.state])
    arena = place_arena(builder)
    return Tables(
        tensors=builder.tensors,
        layers=tuple(builder.layers),
        inputs=tuple(a.tensor for a in frames),
        outputs=tuple(outputs),
        state_inputs=tuple(StateInput(a.name, a.layers) for a in arguments if a.kind == "state"),
        arena=arena,
        meta=dict(proofs=builder.proofs, functions=builder.functions, notes=list(graph.notes), limits=plan.limits),
    )


def root(tensors: Mapping[str, Tensor], name: str) -> str:
    """The tensor that an alias ends in."""
    while tensors[name].place == "alias":
        name = tensors[name].owner
    return name


def write_in_place(builder: Builder, results: set[str]) -> None:
    """Where a call only moves what one other call has written for it alone, that one writes to the goal itself, as the
    parts of a concatenation."""
    writers: dict[str, list[Layer]] = {}
    readers: dict[str, list[Layer]] = {}
    for layer in builder.layers:
        writers.setdefault(root(builder.tensors, layer.output), []).append(layer)
        for name in layer.inputs:
            readers.setdefault(root(builder.tensors, name), []).append(layer)
    for move in [layer for layer in builder.layers if layer.kind == "rescale_i16" and layer.ints["shift"] == 0]:
        (x,) = move.inputs
        makers = writers.get(x, [])
        own = builder.tensors[x].place == "arena" and readers[x] == [move] and x not in results
        if not own or len(makers) != 1 or makers[0].ints.get("rows", 1) != move.ints.get("rows", 1):
            continue
        if move.ints.get("rows", 1) > 1 and makers[0].ints["pitch_y"] != move.ints["pitch_a"]:
            continue
        at = builder.layers.index(makers[0])
        builder.layers.remove(move)
        segment = builder.tensors[move.output]
        if "pitch_y" in move.ints:  # the rows of x no longer lie side by side: there is no such tensor
            ints = makers[0].ints | {"pitch_y": move.ints["pitch_y"]}
            builder.layers[at] = replace(makers[0], output=move.output, ints=ints)
            del builder.tensors[x]
        else:
            builder.tensors[x] = replace(segment, name=x)
            del builder.tensors[move.output]
        writers[root(builder.tensors, segment.name if "pitch_y" in move.ints else x)].append(builder.layers[at])


def give_outputs(builder: Builder, results: list[str]) -> list[str]:
    """Writes a result straight into the caller's buffer where a call produces it; copies it there otherwise."""
    names = []
    for index, name in enumerate(results):
        tensor = builder.tensors[name]
        if tensor.place == "arena":
            builder.tensors[name] = replace(tensor, place="output", index=index)
        else:
            copy = f"{name}:out{index}"
            builder.tensor(copy, tensor.frac, "output", tensor.width, index=index)
            builder.emit("rescale_i16", copy, (name,), copy, dict(n=tensor.width, shift=0))
            name = copy
        names.append(name)
    return names


def place_arena(builder: Builder) -> int:
    """Gives arena tensors their offsets; returns the arena's size in elements."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, layer in enumerate(builder.layers):
        for name in (*layer.inputs, layer.output):
            owner = root(builder.tensors, name)
            first.setdefault(owner, i)
            last[owner] = i
    lifetimes = [
        Lifetime(name, tensor.width, first[name], last[name])
        for name, tensor in builder.tensors.items()
        if tensor.place == "arena"
    ]
    offsets, size = place(lifetimes)
    for name, offset in offsets.items():
        builder.tensors[name] = replace(builder.tensors[name], offset=offset)
    return size
