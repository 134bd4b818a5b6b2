"""The plan: a format for every tensor, and which nodes share a kernel call.

Every choice of a format is made here. Formats are powers of two: value = raw * 2^-frac. Neighbours: `ranges.py` (what
was seen), `tables.py` (rounds weights to the plan and proves the sums), SPEC.md section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantize.errors import PlanError
from quantize.functions import WITHIN_ONE, check_domain
from quantize.graph import Graph, Node
from quantize.ranges import Range

FRAC_MIN, FRAC_MAX = -16, 30
PRE_FRAC = 22  # of the pre-activations of sigmoid and tanh (RTCORE_PRE_FRAC)
STATE_EXTRA = 15  # fractional bits that a state has beyond its int16 view (RTCORE_STATE_EXTRA)
BOUNDED = ("sigmoid", "tanh")  # leave in Q0.15
NORMAL_FRAC = 20  # of a layer norm's vector before its weights (SPEC.md section 6)


@dataclass(frozen=True)
class GruPlan:
    """gate_frac, candidate_frac: what the two sums of a pre-activation are requantized to before they meet."""

    state_frac: int
    gate_frac: int
    candidate_frac: int


@dataclass(frozen=True)
class Plan:
    """frac per tensor; the activation fused into each linear node; formats inside each gru node; the calibrated
    smallest and largest value of each tensor."""

    frac: dict[str, int]
    fused: dict[str, Node]
    gru: dict[str, GruPlan]
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
    gru: dict[str, GruPlan] = {}
    for argument in graph.signature.arguments:
        if argument.kind == "frames":
            frac[argument.tensor] = frac_for(limits[argument.tensor], what=f"input {argument.name}")
    for node in graph.nodes:
        if node.op == "gru":
            gru[node.name] = gru_formats(node, ranges, limits, headroom)
            frac[node.output] = gru[node.name].state_frac
        else:
            if node.op == "function":
                check_domain(
                    node.attrs, ranges[node.inputs[0]].low, f"{node.attrs['function']} {node.name} ({node.where})"
                )
            frac[node.output] = output_frac(node, fused.get(node.name), frac, limits)
    for linear, activation in fused.items():
        frac[next(n for n in graph.nodes if n.name == linear).output] = frac[activation.output]
    return Plan(frac, fused, gru, limits, {name: (r.low, r.high) for name, r in ranges.items()})


def fuse(graph: Graph) -> dict[str, Node]:
    """linear node -> the activation that is its output's only reader (and the output is no result of the model)."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    results = {name for result in graph.signature.results for name in result.tensors}
    fused = {}
    for node in graph.nodes:
        reader = readers.get(node.output, [])
        if node.op == "linear" and len(reader) == 1 and reader[0].op == "activation" and node.output not in results:
            fused[node.name] = reader[0]
    return fused


def output_frac(node: Node, activation: Node | None, frac: dict[str, int], limits: dict[str, float]) -> int:
    """The format of a node's output; for a linear node with a fused activation, that of the activation's output."""
    inputs = [frac[name] for name in node.inputs]
    if node.op == "linear" and activation is not None:
        node = activation if activation.attrs["activation"] in BOUNDED else node
        limit = limits[activation.output]
    else:
        limit = limits[node.output]
    if node.op == "activation":
        return 15 if node.attrs["activation"] in BOUNDED else inputs[0]
    if node.op in ("slice", "clamp"):
        return inputs[0]
    if node.op == "concat":
        return min(inputs)
    if node.op == "softmax" or node.attrs.get("function") in WITHIN_ONE:
        return 15
    if "frac" in node.attrs:
        return node.attrs["frac"]
    fitted = frac_for(limit, what=f"{node.op} {node.name} ({node.where})")
    if node.op in FINEST:
        return min(fitted, FINEST[node.op](inputs))
    return min(fitted, (31 + inputs[0]) // 2) if node.attrs.get("function") == "sqrt" else fitted


# op -> what its result's frac cannot exceed, from its inputs' fracs
FINEST = {"mul": sum, "prelu": min, "minimum": max, "maximum": max}


def gru_formats(node: Node, ranges: dict[str, Range], limits: dict[str, float], headroom: float) -> GruPlan:
    """Bounded candidates leave a Q0.15 state, unless an initial state needs more room."""
    what = f"gru {node.name} ({node.where})"
    initial = limits.get(f"{node.name}:initial", 0.0)
    bounded = node.attrs["activation"] in BOUNDED
    if bounded:
        beyond = ranges[f"{node.name}:initial"].limit(None) > 1 if f"{node.name}:initial" in ranges else False
        state_frac = min(15, frac_for(initial, what=what)) if beyond else 15
    else:
        # the state's format holds the candidate too: a slow unit's candidates reach further than its states
        candidate = f"{node.name}:candidate"
        largest = limits[candidate]
        if node.attrs["activation"] == "relu":
            largest = min(largest, max(ranges[candidate].high, 0.0) * headroom)
        state_frac = frac_for(max(limits[node.output], initial, largest), what=what)

    def half(gate: str) -> int:
        # both halves in 31 bits each, so that their sum cannot leave int32 on the calibrated range
        largest = max(limits[f"{node.name}:{gate}_input"], limits[f"{node.name}:{gate}_recurrent"])
        return frac_for(largest, bits=31, what=f"{what}, {gate} pre-activation")

    candidate_top = PRE_FRAC if bounded else state_frac + STATE_EXTRA
    return GruPlan(state_frac, min(half("gates"), PRE_FRAC), min(half("candidate"), candidate_top))
