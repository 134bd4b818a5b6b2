"""The plan: a format for every tensor, and which nodes share a kernel call.

Every choice of a format is made here. Formats are powers of two: value = raw * 2^-frac. Neighbours: `ranges.py` (what
was seen), `tables.py` (rounds weights to the plan and proves the sums), SPEC.md section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantize.errors import PlanError
from quantize.functions import WITHIN_ONE, check_domain
from quantize.graph import Graph, Node
from quantize.ranges import Range

FRAC_MIN, FRAC_MAX = -16, 30
PRE_FRAC = 22  # of the pre-activations of sigmoid and tanh (RTCORE_PRE_FRAC)
STATE_EXTRA = 15  # fractional bits that a state has beyond its int16 view (RTCORE_STATE_EXTRA)
BOUNDED = ("sigmoid", "tanh")  # leave in Q0.15
WEIGHTED = ("linear", "conv")  # matrices that may take an activation into their call
MOVES = ("slice", "clamp", "copy", "delay")  # leave in the format in which they came
MEAN_BITS = 30  # fractional bits of 1 / count in a mean pool's table
NORMAL_FRAC = 20  # of a layer norm's vector before its weights (SPEC.md section 6)


@dataclass(frozen=True)
class GruPlan:
    """gate_frac, candidate_frac: what the two sums of a pre-activation are requantized to before they meet."""

    state_frac: int
    gate_frac: int
    candidate_frac: int


@dataclass(frozen=True)
class LstmPlan:
    """cell_frac: of the cell's int16 view; gate_frac: of both sums of every pre-activation."""

    state_frac: int
    gate_frac: int
    cell_frac: int


@dataclass(frozen=True)
class RnnPlan:
    """gate_frac: of both sums of the pre-activation."""

    state_frac: int
    gate_frac: int


@dataclass(frozen=True)
class Plan:
    """frac per tensor ("LSTM:cell" for the view of a cell); the activation fused into each linear node; formats inside
    each recurrent node; the calibrated smallest and largest value of each tensor."""

    frac: dict[str, int]
    fused: dict[str, Node]
    recurrent: dict[str, GruPlan | LstmPlan | RnnPlan]
    limits: dict[str, float]
    span: dict[str, tuple[float, float]]


def frac_for(limit: float, bits: int = 16, what: str = "") -> int:
    """The largest frac at which +-limit fits a signed integer of `bits`; 0 fits anything (15 bits: Q0.15)."""
    if limit == 0:
        return bits - 1
    frac = math.floor(math.log2((2 ** (bits - 1) - 1) / limit))
    if frac < FRAC_MIN:
        raise PlanError(
            f"{what}: values reach {limit:g}; a {bits}-bit format holds at most 2^{bits - 1 - FRAC_MIN}; "
            "scale the data (divide features by their standard deviation)"
        )
    return min(frac, FRAC_MAX)


def make_plan(graph: Graph, ranges: dict[str, Range], headroom: float, percentile: float | None) -> Plan:
    """Formats for the graph.

    headroom: formats of unbounded tensors hold this many times the calibrated range (data differs from calibration).
    percentile: see ranges.Range.limit; None takes the extremes. Raises PlanError, naming the tensor, when no format
    fits.
    """
    limits = {name: r.limit(percentile) * headroom for name, r in ranges.items()}
    fused = fuse(graph)
    frac: dict[str, int] = {}
    recurrent: dict[str, GruPlan | LstmPlan | RnnPlan] = {}
    indices = {name for node in graph.nodes if node.op == "embedding" for name in node.inputs}
    for argument in graph.signature.arguments:
        if argument.kind == "frames":
            fitted = frac_for(limits[argument.tensor], what=f"input {argument.name}")
            frac[argument.tensor] = 0 if argument.tensor in indices else fitted
    for node in graph.nodes:
        if node.op in RECURRENT:
            formats = RECURRENT[node.op](node, ranges, limits, headroom)
            recurrent[node.name] = formats
            frac[node.output] = formats.state_frac
            if isinstance(formats, LstmPlan):
                frac[f"{node.output}:cell"] = formats.cell_frac
        elif node.op == "cell":
            frac[node.output] = frac[f"{node.inputs[0]}:cell"]
        elif node.op == "final":
            frac[node.output] = frac[node.inputs[0]]
        else:
            if node.op == "function":
                check_domain(
                    node.attrs, ranges[node.inputs[0]].low, f"{node.attrs['function']} {node.name} ({node.where})"
                )
            frac[node.output] = output_frac(node, fused.get(node.name), frac, limits)
    for linear, activation in fused.items():
        frac[next(n for n in graph.nodes if n.name == linear).output] = frac[activation.output]
    return Plan(frac, fused, recurrent, limits, {name: (r.low, r.high) for name, r in ranges.items()})


def fuse(graph: Graph) -> dict[str, Node]:
    """linear or conv node -> the activation that alone reads its output, which is no result of the model."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    results = {name for result in graph.signature.results for name in result.tensors}
    fused = {}
    for node in graph.nodes:
        reader = readers.get(node.output, [])
        if node.op in WEIGHTED and len(reader) == 1 and reader[0].op == "activation" and node.output not in results:
            fused[node.name] = reader[0]
    return fused


def output_frac(node: Node, activation: Node | None, frac: dict[str, int], limits: dict[str, float]) -> int:
    """The format of a node's output; for a linear or conv node with a fused activation, that of the activation's."""
    inputs = [frac[name] for name in node.inputs]
    if node.op in WEIGHTED and activation is not None:
        node = activation if activation.attrs["activation"] in BOUNDED else node
        limit = limits[activation.output]
    else:
        limit = limits[node.output]
    if node.op == "activation":
        return 15 if node.attrs["activation"] in BOUNDED else inputs[0]
    if node.op in MOVES or node.attrs.get("largest"):
        return inputs[0]
    if node.op == "concat":
        return min(inputs)
    if node.op == "softmax" or node.attrs.get("function") in WITHIN_ONE:
        return 15
    if "frac" in node.attrs:
        return node.attrs["frac"]
    if node.op == "embedding":
        limit = float(np.abs(node.params["table"]).max())
    fitted = frac_for(limit, what=f"{node.op} {node.name} ({node.where})")
    if node.op in FINEST:
        return min(fitted, FINEST[node.op](inputs))
    return min(fitted, (31 + inputs[0]) // 2) if node.attrs.get("function") == "sqrt" else fitted


# op -> what its result's frac cannot exceed, from its inputs' fracs
FINEST = {
    "mul": sum,
    "prelu": min,
    "minimum": max,
    "maximum": max,
    "pad": min,
    "pool": lambda fracs: fracs[0] + MEAN_BITS - 1,  # of a mean: a shift of at least 1 is left
}


def gru_formats(node: Node, ranges: dict[str, Range], limits: dict[str, float], headroom: float) -> GruPlan:
    """Bounded candidates leave a Q0.15 state, unless an initial state needs more room."""
    what = f"gru {node.name} ({node.where})"
    bounded = node.attrs["activation"] in BOUNDED
    if bounded:
        state_frac = bounded_state(node, ranges, limits, what)
    else:
        # the state's format holds the candidate too: a slow unit's candidates reach further than its states. As seen,
        # without headroom: a rare candidate that is clipped moves a state a little, a bit less costs 6 dB at every step
        candidate = f"{node.name}:candidate"
        largest = limits[candidate] / headroom
        if node.attrs["activation"] == "relu":
            largest = min(largest, max(ranges[candidate].high, 0.0))
        initial = limits.get(f"{node.name}:initial", 0.0)
        state_frac = frac_for(max(limits[node.output], initial, largest), what=what)
    candidate_top = PRE_FRAC if bounded else state_frac + STATE_EXTRA
    return GruPlan(
        state_frac,
        min(half(node, "gates", limits, what), PRE_FRAC),
        min(half(node, "candidate", limits, what), candidate_top),
    )


def lstm_formats(node: Node, ranges: dict[str, Range], limits: dict[str, float], headroom: float) -> LstmPlan:
    """The cell takes what was calibrated and its headroom; a projection's output likewise, else the view is Q0.15."""
    what = f"lstm {node.name} ({node.where})"
    cell = max(limits[f"{node.name}:cell"], limits.get(f"{node.name}:cell:initial", 0.0))
    cell_frac = min(15, frac_for(cell, what=f"{what}, cell"))
    if "weight_hr" in node.params:
        state_frac = frac_for(max(limits[node.output], limits.get(f"{node.name}:initial", 0.0)), what=what)
    else:
        state_frac = max(bounded_state(node, ranges, limits, what), 0)
    return LstmPlan(state_frac, min(half(node, "gates", limits, what), PRE_FRAC), cell_frac)


def rnn_formats(node: Node, ranges: dict[str, Range], limits: dict[str, float], headroom: float) -> RnnPlan:
    """tanh leaves in Q0.15; ReLU in what was calibrated, its pre-activations 15 bits finer where they fit."""
    what = f"rnn {node.name} ({node.where})"
    if node.attrs["activation"] == "tanh":
        state_frac, top = bounded_state(node, ranges, limits, what), PRE_FRAC
    else:
        state_frac = frac_for(max(limits[node.output], limits.get(f"{node.name}:initial", 0.0)), what=what)
        top = state_frac + STATE_EXTRA
    return RnnPlan(state_frac, min(half(node, "gates", limits, what), top))


RECURRENT = {"gru": gru_formats, "lstm": lstm_formats, "rnn": rnn_formats}


def bounded_state(node: Node, ranges: dict[str, Range], limits: dict[str, float], what: str) -> int:
    """Of a state that stays within +-1: Q0.15, unless an initial state needs more room."""
    initial = f"{node.name}:initial"
    beyond = initial in ranges and ranges[initial].limit(None) > 1
    return min(15, frac_for(limits[initial], what=what)) if beyond else 15


def half(node: Node, gate: str, limits: dict[str, float], what: str) -> int:
    """Both halves in 31 bits each, so that their sum cannot leave int32 on the calibrated range."""
    largest = max(limits[f"{node.name}:{gate}_input"], limits[f"{node.name}:{gate}_recurrent"])
    return frac_for(largest, bits=31, what=f"{what}, {gate} pre-activation")
