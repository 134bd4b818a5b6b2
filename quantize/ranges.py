"""Calibration: how large every tensor, and every half of a pre-activation, gets on the user's samples.

Streams over the samples; keeps one maximum and one histogram of magnitudes per quantity, never the data. Neighbours:
`float_run.py` (runs the graph and shows each array), `plan.py` (turns ranges into formats).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from quantize.errors import CalibrationError
from quantize.float_run import run_graph
from quantize.functions import check_domain
from quantize.graph import Graph

BINS_PER_OCTAVE = 16
LOWEST_OCTAVE = -64  # 2^-64: smaller magnitudes count as zero
HIGHEST_OCTAVE = 64


@dataclass
class Range:
    """Of one quantity: the smallest and largest value, and a histogram of log2 |x| in 1/16 octaves."""

    low: float = np.inf
    high: float = -np.inf
    counts: np.ndarray = field(
        default_factory=lambda: np.zeros((HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE, np.int64)
    )

    def add(self, array: np.ndarray) -> None:
        """array: any shape, finite."""
        self.low = min(self.low, float(array.min()))
        self.high = max(self.high, float(array.max()))
        with np.errstate(divide="ignore"):
            bins = np.ceil((np.log2(np.abs(array)) - LOWEST_OCTAVE) * BINS_PER_OCTAVE)
        bins = np.clip(bins, 0, self.counts.size - 1).astype(np.int64)
        self.counts += np.bincount(bins.ravel(), minlength=self.counts.size)

    def limit(self, percentile: float | None) -> float:
        """The magnitude to represent: the largest seen, or the one that `percentile` % of all values stay within."""
        largest = max(abs(self.low), abs(self.high))
        if percentile is None:
            return largest
        index = int(np.searchsorted(np.cumsum(self.counts), self.counts.sum() * percentile / 100))
        return min(largest, 2.0 ** (min(index, self.counts.size - 1) / BINS_PER_OCTAVE + LOWEST_OCTAVE))


def calibrate(graph: Graph, samples: Iterable) -> dict[str, Range]:
    """Runs the float graph (float64) on every sample and returns the Range of every tensor and observed quantity.

    samples: what the model takes, one element per call, any batch size and length. Raises CalibrationError for no
    sample at all, for a frame input that never changes (it says nothing about the range to expect), and for NaN or Inf;
    PlanError where a function leaves its domain.
    """
    ranges: dict[str, Range] = {}
    functions = {node.output: node for node in graph.nodes if node.op == "function"}

    def observe(name: str, array: np.ndarray) -> None:
        if not np.isfinite(array).all():
            if name in functions:
                node = functions[name]
                check_domain(node.attrs, ranges[node.inputs[0]].low, f"{node.attrs['function']} {name} ({node.where})")
            raise CalibrationError(
                f"{name}: the float model itself gives NaN or Inf on the calibration data; check the samples' scale"
            )
        ranges.setdefault(name, Range()).add(array)

    n = 0
    for sample in samples:
        run_graph(graph, sample, dtype=np.float64, observe=observe)
        n += 1
    if n == 0:
        raise CalibrationError("calibration: no sample given; pass frames as the model takes them (a few hundred do)")
    for argument in graph.signature.arguments:
        if argument.kind == "frames" and ranges[argument.tensor].low == ranges[argument.tensor].high:
            raise CalibrationError(
                f"input {argument.name}: constant calibration data (always {ranges[argument.tensor].low:g}); "
                "pass real frames, their range decides the fixed-point formats"
            )
    return ranges
