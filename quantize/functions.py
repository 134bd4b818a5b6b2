"""Scalar functions: their float64 form, what their results are bounded by, and the interpolated table of each.

A table covers all 65536 codes of its input's format with 257 to 2049 nodes, as few as reach an error of about one LSB
of the output (half of one is the rounding). Nodes are moved off the curve so that a chord errs as much to one side as
to the other. The largest error over the calibrated range is measured, code by code, and recorded.

Neighbours: `float_run.py` (runs FUNCTIONS), `plan.py` (formats), `function_tables.py` (asks for tables), SPEC.md 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantize.errors import PlanError

STEPS = (8, 7, 6, 5)  # log2 of the codes from node to node: 257, 513, 1025, 2049 nodes
GOOD_ENOUGH = 1.0  # LSB of the output: a finer table is not tried
REFUSED = 8.0  # LSB: beyond it, and beyond STEEP times what half an LSB of the input brings, the function is too steep
STEEP = 4.0

Function = Callable[..., np.ndarray]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _in_dtype(function: Function) -> Function:
    """The result in the dtype of x."""
    return lambda x, **constants: np.asarray(function(x, **constants), np.asarray(x).dtype)


def softplus(x: np.ndarray, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    """log(1 + exp(beta x)) / beta; x itself where beta x is above the threshold."""
    return np.where(x * beta > threshold, x, np.logaddexp(0, x * beta) / beta)


def elu(x: np.ndarray, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> np.ndarray:
    """scale * x for x > 0, else scale * alpha * (exp(input_scale * x) - 1)."""
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) * input_scale))


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """x * Phi(x), exact or in the tanh form."""
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


FUNCTIONS: dict[str, Function] = {
    "elu": elu,
    "gelu": _in_dtype(gelu),
    "silu": lambda x: x * np.exp(-np.logaddexp(0, -x)),
    "softplus": softplus,
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exp": np.exp,
    "expm1": np.expm1,
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
    "erf": _in_dtype(_erf),
    "sqrt": np.sqrt,
    "log": np.log,
    "log1p": np.log1p,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
}

WITHIN_ONE = ("softsign", "sin", "cos", "erf")  # leave in Q0.15
DOMAINS = {  # function -> (its arguments' lowest value, whether that value itself is allowed, in words)
    "sqrt": (0.0, True, "at least 0"),
    "log": (0.0, False, "above 0"),
    "log1p": (-1.0, False, "above -1"),
    "rsqrt": (0.0, False, "above 0"),
    "reciprocal": (0.0, False, "above 0"),
}


def evaluate(attrs: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """The function of a node's attrs ("function" and its constants) at x; NaN or infinity outside its domain."""
    constants = {name: value for name, value in attrs.items() if name != "function"}
    with np.errstate(all="ignore"):
        return FUNCTIONS[attrs["function"]](x, **constants)


def check_domain(attrs: Mapping[str, Any], lowest: float, what: str) -> None:
    """Raises PlanError when the calibrated argument leaves the function's domain."""
    low, included, words = DOMAINS.get(attrs["function"], (-math.inf, True, ""))
    if lowest < low or (lowest == low and not included):
        raise PlanError(
            f"{what}: its input reaches {lowest:g} on the calibration data, and must be {words}: clamp it before"
        )


@dataclass(frozen=True)
class FunctionTable:
    """nodes: int32 [2^(16 - step) + 1], Q(out_frac + shift - step). max_error: in LSB of the output, over the codes of
    the calibrated range whose result the output's format holds."""

    nodes: np.ndarray
    step: int
    shift: int
    max_error: float


def make_table(
    attrs: Mapping[str, Any], x_frac: int, out_frac: int, low: float, high: float, what: str
) -> FunctionTable:
    """The table of a function for inputs of Q(x_frac), results of Q(out_frac).

    low, high: the calibrated range of the input; the table is as good as it can be there. Outside of a function's
    domain, from half way between its end and the lowest argument seen, one value is held. Raises PlanError when the
    error exceeds 8 LSB and four times what half an LSB of the input brings where the function is steepest.
    """
    codes = np.arange(-32768, 32769)
    bounded = attrs["function"] in DOMAINS
    lowest = DOMAINS.get(attrs["function"], (-math.inf,))[0]
    x = np.maximum(codes * 2.0**-x_frac, (lowest + low) / 2)  # the corner lies well below the calibrated range
    exact = np.clip(evaluate(attrs, x) * 2.0**out_frac, -(2.0**40), 2.0**40)
    edges = np.floor(low * 2.0**x_frac), np.ceil(high * 2.0**x_frac)
    held = (np.abs(exact) <= 32768) & (codes >= edges[0]) & (codes <= edges[1]) & (codes < 32768)
    if bounded:
        held &= codes * 2.0**-x_frac >= low
    best = None
    for step in STEPS:
        found = min(_tables(exact, held, step), key=lambda table: table.max_error)
        if best is None or found.max_error < best.max_error:
            best = found
        if best.max_error <= GOOD_ENOUGH:
            break
    slopes = np.abs(np.diff(exact))[held[:-1] & held[1:]]
    if best.max_error > max(REFUSED, STEEP * slopes.max(initial=0.0) / 2):
        raise PlanError(
            f"{what}: too steep for its range: over inputs of {low:g}..{high:g} a table of {len(best.nodes)} nodes "
            f"errs by {best.max_error:.0f} LSB of the output; narrow the range of its input (clamp it before)"
        )
    return best


def _tables(exact: np.ndarray, held: np.ndarray, step: int) -> list[FunctionTable]:
    """With the nodes on the curve, and with the nodes centred. exact: [65537] in LSB of the output."""
    width = 1 << step
    guard = 14 - step  # nodes hold twice the output's range
    limit = 1 << (30 - step)
    on_curve = exact[::width]
    t = np.arange(width) / width
    chords = (on_curve[:-1, None] * (1 - t) + on_curve[1:, None] * t).ravel() - exact[:-1]
    error = chords.reshape(-1, width)
    high, low = np.r_[0.0, error.max(1), 0.0], np.r_[0.0, error.min(1), 0.0]  # per segment, none before and after
    centre = (np.maximum(high[:-1], high[1:]) + np.minimum(low[:-1], low[1:])) / 2
    centre[0], centre[-1] = error[0].max() / 2 + error[0].min() / 2, error[-1].max() / 2 + error[-1].min() / 2
    found = []
    for nodes in (on_curve, np.clip(on_curve - centre, exact.min(), exact.max())):
        rounded = np.clip(np.floor(nodes * 2.0**guard + 0.5), -limit, limit).astype(np.int64)
        f = np.arange(width)
        sums = (rounded[:-1, None] * (width - f) + rounded[1:, None] * f).ravel()
        shift = step + guard
        y = np.clip((sums + (1 << (shift - 1))) >> shift, -32768, 32767)
        error = np.abs(y - np.minimum(exact[:-1], 32767))[held[:-1]]
        found.append(FunctionTable(rounded.astype(np.int32), step, shift, float(error.max(initial=0.0))))
    return found
