"""Float, fixed point and the microcontroller side by side: `validate` and the Report that it returns.

The float graph runs in float64 and every tensor is compared with the host's fixed-point run as it passes; the graph on
the dequantized weights separates the error of rounded weights from that of the arithmetic; the emulated core must give
the host's bits, outputs and 32-bit states alike. Every tolerance of this package lives here.

Neighbours: `simulator.py` (runs tables on a target), `quantize/float_run.py` (the float reference),
`quantize/dequantize.py` (the error budget), `report.py` (prints a Report).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from firmware_sim.engines import EngineRun
from firmware_sim.simulator import Simulator
from firmware_sim.toolchain import find_target
from quantize import QuantizedModel, QuantizeError, import_model
from quantize.dequantize import dequantized_graph
from quantize.float_run import run_graph
from quantize.formats import to_raw
from quantize.graph import Argument, Graph, Result, Signature
from quantize.plan import STATE_EXTRA
from quantize.tables import root
from rtcore.tables import Layer, StatePart, Tables, state_parts

# An output below this SQNR fails, unless the caller says otherwise: its error is a tenth of the signal. Where nothing
# is wrong, int8 weights give 40 to 50 dB and int16 weights 75 to 95.
MIN_SQNR_DB = 20.0

Progress = Callable[[str, int, int], None]  # (what is being done, done, total); called as work goes on


# ------------------------------------------------------------------------------------------------------- records --


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the net, fixed point against float, over all streams and steps.

    layer, kind:      the table layers that write it and their kernel ("" and "input", or "part" of another tensor).
    width, frac:      elements, and the format: value = raw * 2**-frac; an LSB is 2**-frac.
    sqnr_db:          10 log10(sum ref^2 / sum (ref - fixed)^2); inf when equal, -inf for errors on a reference of zero.
    max_error_lsb:    the largest |ref - fixed| in LSB.
    rms_first_lsb, rms_last_lsb: rms error over the first and the last quarter of the steps, in LSB: what drifts.
    low, high:        the extreme fixed-point values seen.
    range_used:       the largest |raw| over 32768.
    saturated:        values clipped by more than one LSB, by its kernel or as frames and initial states came in.
    state_sqnr_db:    of the whole state (an LSTM's cell and output together), for recurrent layers.
    """

    name: str
    layer: str
    kind: str
    width: int
    frac: int
    sqnr_db: float
    max_error_lsb: float
    rms_first_lsb: float
    rms_last_lsb: float
    low: float
    high: float
    range_used: float
    saturated: int
    state_sqnr_db: float | None = None


@dataclass(frozen=True)
class OutputReport:
    """One result of the model, end to end, and where its error comes from.

    steps:              "every" or "last", what the model returns.
    sqnr_db:            fixed point against the float model.
    weights_sqnr_db:    the float model on the rounded weights against the float model: rounding weights alone.
    arithmetic_sqnr_db: fixed point against the float model on the rounded weights: activations, tables, saturation.
    max_error_lsb:      the largest error, in LSB of the result's format.
    """

    name: str
    tensors: tuple[str, ...]
    steps: str
    sqnr_db: float
    max_error_lsb: float
    weights_sqnr_db: float
    arithmetic_sqnr_db: float


@dataclass(frozen=True)
class Mismatch:
    """The first place, in the order of execution, where the target's bits are not the host's.

    what: "tensor" (expected and actual are int16) or "state" (of a recurrent layer, int32); name: of it.
    """

    stream: int
    step: int
    layer: str
    what: str
    name: str
    unit: int
    expected: int
    actual: int

    def __str__(self) -> str:
        return (
            f"stream {self.stream}, step {self.step}, layer {self.layer}, {self.what} {self.name}, unit {self.unit}: "
            f"host {self.expected}, target {self.actual}"
        )


@dataclass(frozen=True)
class TargetReport:
    """What the emulated core did. streams and steps were emulated; instructions are per call of NAME_step.

    mismatch: None when every tensor and every 32-bit state equals the host's at every step.
    flash, ram: bytes of the net in a product: code and tables; NAME_state.
    """

    target: str
    streams: int
    steps: int
    mismatch: Mismatch | None
    instructions_min: int
    instructions_mean: float
    instructions_max: int
    flash: int
    ram: int

    @property
    def equal(self) -> bool:
        return self.mismatch is None


@dataclass(frozen=True)
class Trajectory:
    """One tensor over time, for pictures. reference, fixed: float64 [T, width], of one stream; rms_error_lsb: [T], over
    all streams and elements."""

    name: str
    kind: str  # "output" or "state"
    frac: int
    reference: np.ndarray
    fixed: np.ndarray
    rms_error_lsb: np.ndarray


@dataclass(frozen=True)
class Report:
    """What `validate` found. The error budget stands in `outputs`, per-layer figures in `tensors` (execution order)."""

    target: str
    streams: int
    steps: int
    digest: str
    weight_bytes: int
    min_sqnr_db: float
    outputs: tuple[OutputReport, ...]
    tensors: tuple[TensorReport, ...]
    mcu: TargetReport | None
    trajectories: tuple[Trajectory, ...] = field(repr=False)

    @property
    def sqnr_db(self) -> float:
        """Of the worst output."""
        return min(output.sqnr_db for output in self.outputs)

    @property
    def saturated(self) -> int:
        """Values clipped in the whole run, inputs included."""
        return sum(tensor.saturated for tensor in self.tensors)

    @property
    def problems(self) -> list[str]:
        """Why the check failed, one sentence each; empty when it did not."""
        found = [
            f"output {output.name}: {output.sqnr_db:.1f} dB, below the {self.min_sqnr_db:g} dB asked for"
            for output in self.outputs
            if not output.sqnr_db >= self.min_sqnr_db
        ]
        if self.mcu is not None and self.mcu.mismatch is not None:
            found.append(f"{self.target} and host differ, first at {self.mcu.mismatch}")
        return found

    @property
    def ok(self) -> bool:
        """True when the target's bits equal the host's and no output's SQNR is below min_sqnr_db."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Everything but the trajectories, as JSON knows it; an infinite SQNR is the string "inf" or "-inf"."""
        numbers = {key: value for key, value in vars(self).items() if key != "trajectories"}
        plain = {key: _plain(value) for key, value in numbers.items()}
        if self.mcu is not None:
            plain["mcu"]["equal"] = self.mcu.equal
        summary = {"ok": self.ok, "problems": self.problems, "sqnr_db": self.sqnr_db, "saturated": self.saturated}
        return plain | {key: _plain(value) for key, value in summary.items()}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        from firmware_sim.report import to_text  # noqa: PLC0415 (report.py prints what this file defines)

        return to_text(self)


def _plain(value: Any) -> Any:
    """Records, tuples and infinities as JSON has them."""
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(x) for key, x in asdict(value).items()}
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


# ------------------------------------------------------------------------------------------------------- figures --


def sqnr_db(reference: np.ndarray, fixed: np.ndarray) -> float:
    """10 log10(sum reference^2 / sum (reference - fixed)^2): inf when equal, -inf for errors on a reference of zero."""
    return _db(*_energies(reference, fixed))


def _energies(reference: np.ndarray, fixed: np.ndarray) -> tuple[float, float]:
    """(sum reference^2, sum error^2) in float64."""
    reference = np.asarray(reference, np.float64)
    return float(np.sum(reference**2)), float(np.sum((reference - fixed) ** 2))


def _db(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _score(reference: np.ndarray, fixed: np.ndarray, frac: int) -> dict[str, Any]:
    """The error figures of one tensor; both [S, T, width], values."""
    error = fixed - reference
    rms = _rms_over_time(error, frac)
    quarter = max(1, rms.size // 4)
    return {
        "sqnr_db": _db(float(np.sum(reference**2)), float(np.sum(error**2))),
        "max_error_lsb": float(np.ldexp(np.abs(error).max(), frac)),
        "rms_first_lsb": float(np.sqrt(np.mean(rms[:quarter] ** 2))),
        "rms_last_lsb": float(np.sqrt(np.mean(rms[-quarter:] ** 2))),
    }


def _rms_over_time(error: np.ndarray, frac: int) -> np.ndarray:
    """[S, T, width] -> [T]: root of the mean square over streams and elements, in LSB."""
    return np.ldexp(np.sqrt(np.mean(error**2, axis=(0, 2))), frac)


def _values(raw: np.ndarray, frac: int) -> np.ndarray:
    """Raw integers of any width to float64, exactly."""
    return np.ldexp(raw.astype(np.float64), -frac)


# ------------------------------------------------------------------------------------------------------ validate --


def validate(
    qmodel: QuantizedModel,
    model: Any,
    frames: Any,
    target: str = "host",
    *,
    min_sqnr: float = MIN_SQNR_DB,
    mcu_streams: int | None = None,
    stream: int = 0,
    core: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compares the float model, the host's fixed point and, unless target is "host", an emulated core, layer by layer.

    model:       the model that was quantized: nn.Module, ExportedProgram, path of a .pt2 or .onnx, or a graph.
    frames:      what the model takes, any batch size and time length; every frame is compared with float. Memory: some
                 20 bytes for each element of each tensor of each frame.
    target:      "host", or the name of an emulated core: its outputs and 32-bit states must equal the host's.
    min_sqnr:    dB that every output must reach for Report.ok; MIN_SQNR_DB says what to expect.
    mcu_streams: emulate the first so many streams only (None: all of them).
    stream:      the stream that the report's trajectories show.
    core:        whose kernels the firmware is built with (None: the target's own).
    progress:    called as progress(what, done, total) while work goes on.

    Raises QuantizeError for frames that the model does not take and for a model that is not the one quantized,
    ValueError for an unknown target, ToolchainError when the emulator's packages are missing.
    """
    notify = progress or (lambda what, done, total: None)
    if target != "host":
        find_target(target)
    if not math.isfinite(min_sqnr):
        raise QuantizeError(f"min_sqnr {min_sqnr!r}: a number of dB")
    if mcu_streams is not None and mcu_streams < 1:
        raise QuantizeError(f"mcu_streams {mcu_streams}: at least 1, or None for all")
    notify("fixed point on the host", 0, 1)
    host = Simulator(qmodel)
    host.run(frames, trace=True)
    compared = _Compared(qmodel, host.last_run, stream)
    notify("importing the model", 0, 1)
    graph = _graph_of(qmodel, model, frames)
    notify("float reference", 0, 2)
    run_graph(graph, frames, observe=compared.observe)
    notify("float reference on the rounded weights", 1, 2)
    run_graph(dequantized_graph(graph, qmodel.tables), frames, observe=compared.observe_rounded)
    mcu = None if target == "host" else _run_target(qmodel, compared, target, core, mcu_streams, notify)
    return Report(
        target=target,
        streams=compared.streams,
        steps=compared.steps,
        digest=qmodel.digest,
        weight_bytes=qmodel.weight_bytes,
        min_sqnr_db=min_sqnr,
        outputs=tuple(compared.output(result) for result in qmodel.signature.results),
        tensors=tuple(compared.tensors),
        mcu=mcu,
        trajectories=tuple(compared.trajectories),
    )


class _Compared:
    """Scores each tensor of the float run as it is computed, so that only what is needed later is kept."""

    def __init__(self, qmodel: QuantizedModel, run: EngineRun, stream: int) -> None:
        self.tables = qmodel.tables
        self.run = run
        self.streams, self.steps = run.trace[self.tables.inputs[0]].shape[:2]
        if not 0 <= stream < self.streams:
            raise QuantizeError(f"stream {stream}: the frames hold {self.streams}, 0 to {self.streams - 1}")
        self.stream = stream
        self.writers: dict[str, list[Layer]] = {}  # those of a concatenation's segments write the whole
        for layer in self.tables.layers:
            self.writers.setdefault(root(self.tables.tensors, layer.output), []).append(layer)
        self.outputs = {name for r in qmodel.signature.results if not r.state for name in r.tensors}
        self.results = {name for r in qmodel.signature.results for name in r.tensors}
        self.rows = self.tables.state_rows
        self.given = {row for state in self.tables.state_inputs for row in state.layers}
        self.initial: dict[str, np.ndarray] = {}  # row -> int16 [S, N], where the model takes an initial state
        self.states: dict[str, np.ndarray] = {}  # row -> float [S, T, N], of what is no tensor: cells
        self.saturated = _saturated(self.tables, run)
        self.reference: dict[str, np.ndarray] = {}
        self.rounded: dict[str, np.ndarray] = {}
        self.tensors: list[TensorReport] = []
        self.trajectories: list[Trajectory] = []

    def observe_rounded(self, name: str, array: np.ndarray) -> None:
        """What run_graph calls when it runs on the rounded weights."""
        if name in self.results:
            self.rounded[name] = array

    def observe(self, name: str, reference: np.ndarray) -> None:
        """What run_graph calls; tensors that the plan fused away have no counterpart and are passed over."""
        row, _, what = name.rpartition(":")
        if what == "initial" and row in self.given:
            layer, part = self.rows[row]
            self.initial[row], clipped = to_raw(reference, part.frac)
            self.saturated[layer.output] += clipped
        if name in self.rows and reference.shape[:2] == (self.streams, self.steps):  # not inside a window
            self.states[name] = reference
        tensor = self.tables.tensors.get(name)
        if tensor is None:
            return
        raw = self.run.trace[name]
        fixed = _values(raw, tensor.frac)
        if tensor.place == "input":
            self.saturated[name] = to_raw(reference, tensor.frac)[1]
        state_sqnr = None
        if tensor.place == "state":
            layer, part = self.rows[tensor.owner]
            self.states[part.row] = reference
            state_sqnr = self.state_sqnr(layer)
            self.trajectory(name, "state", tensor.frac, reference, self.state(layer, part))
        if name in self.outputs:
            self.trajectory(name, "output", tensor.frac, reference, fixed)
        if name in self.results:
            self.reference[name] = reference
        layers = self.writers.get(name, [])
        low, high = int(raw.min()), int(raw.max())
        self.tensors.append(
            TensorReport(
                name=name,
                layer=", ".join(layer.name for layer in layers),
                kind=layers[0].kind if layers else "input" if tensor.place == "input" else "part",
                width=tensor.width,
                frac=tensor.frac,
                **_score(reference, fixed, tensor.frac),
                low=low * 2.0**-tensor.frac,
                high=high * 2.0**-tensor.frac,
                range_used=max(-low, high) / 2**15,
                saturated=self.saturated.get(name, 0),
                state_sqnr_db=state_sqnr,
            )
        )

    def state(self, layer: Layer, part: StatePart) -> np.ndarray:
        """A part of a layer's state over the run, values [S, T, N]."""
        raw = self.run.state_trace[layer.name][..., part.start : part.start + part.size]
        return _values(raw, part.frac + (STATE_EXTRA if part.wide else 0))

    def state_sqnr(self, layer: Layer) -> float:
        """Of the whole state vector; its parts have been observed."""
        energies = [_energies(self.states[part.row], self.state(layer, part)) for part in state_parts(layer)]
        return _db(*(sum(energy) for energy in zip(*energies, strict=True)))

    def trajectory(self, name: str, kind: str, frac: int, reference: np.ndarray, fixed: np.ndarray) -> None:
        rms = _rms_over_time(fixed - reference, frac)
        shown = (reference[self.stream].copy(), fixed[self.stream].copy())
        self.trajectories.append(Trajectory(name, kind, frac, *shown, rms))

    def output(self, result: Result) -> OutputReport:
        """One result of the model: its tensors together, all steps or the last."""
        every = any("time" in axis for axis in result.axes)
        energies = np.zeros((3, 2))
        largest = 0.0
        for name in result.tensors:
            frac = self.tables.tensors[name].frac
            steps = slice(None) if every else slice(-1, None)
            reference, on_rounded = self.reference[name][:, steps], self.rounded[name][:, steps]
            fixed = _values(self.run.trace[name][:, steps], frac)
            pairs = ((reference, fixed), (reference, on_rounded), (on_rounded, fixed))
            energies += [_energies(*pair) for pair in pairs]
            largest = max(largest, float(np.ldexp(np.abs(reference - fixed).max(), frac)))
        total, weights, arithmetic = (_db(*pair) for pair in energies.tolist())
        return OutputReport(
            result.name, result.tensors, "every" if every else "last", total, largest, weights, arithmetic
        )


def _saturated(tables: Tables, run: EngineRun) -> dict[str, int]:
    """Tensor -> values clipped by the kernels that write it, segments of a concatenation under the whole."""
    counts: dict[str, int] = {}
    for layer in tables.layers:
        name = root(tables.tensors, layer.output)
        counts[name] = counts.get(name, 0) + run.saturated[layer.name]
    return counts


# -------------------------------------------------------------------------------------------------------- target --


def _run_target(
    qmodel: QuantizedModel,
    compared: _Compared,
    target: str,
    core: str | None,
    mcu_streams: int | None,
    notify: Progress,
) -> TargetReport:
    """Emulates the first streams, one after the other, until all are done or one differs from the host."""
    tables = qmodel.tables
    streams = min(mcu_streams or compared.streams, compared.streams)
    notify(f"building firmware for {target}", 0, streams)
    engine = Simulator(qmodel, target, core).engine
    counts, mismatch, done = [], None, 0
    while done < streams and mismatch is None:
        notify(f"emulating {target}", done, streams)
        one = slice(done, done + 1)
        initial = [
            np.concatenate([compared.initial[row][one] for row in state.layers], axis=1)
            for state in tables.state_inputs
        ]
        run = engine.run([compared.run.trace[name][one] for name in tables.inputs], initial or None, trace=True)
        counts.append(run.instructions)
        mismatch = first_mismatch(tables, compared.run, run, done)
        done += 1
    notify(f"emulating {target}", done, streams)
    instructions = np.concatenate(counts)
    sizes = engine.board.sizes()
    return TargetReport(
        target=target,
        streams=done,
        steps=compared.steps,
        mismatch=mismatch,
        instructions_min=int(instructions.min()),
        instructions_mean=float(instructions.mean()),
        instructions_max=int(instructions.max()),
        flash=sizes.flash,
        ram=sizes.ram,
    )


def first_mismatch(tables: Tables, host: EngineRun, target: EngineRun, stream: int = 0) -> Mismatch | None:
    """Where the traced run `target`, of one stream, first differs from stream number `stream` of the traced run `host`.

    First in time, then in the order of execution; a recurrent layer's 32-bit state comes before its int16 view.
    """
    found: list[tuple[int, int, Mismatch]] = []
    for order, layer in enumerate(tables.layers):
        pairs = [("tensor", layer.output, host.trace[layer.output], target.trace[layer.output])]
        if layer.name in host.state_trace:
            pairs.insert(0, ("state", layer.name, host.state_trace[layer.name], target.state_trace[layer.name]))
        for part, (what, name, expected, actual) in enumerate(pairs):
            different = np.argwhere(expected[stream] != actual[0])
            if len(different):
                t, unit = map(int, different[0])
                values = int(expected[stream, t, unit]), int(actual[0, t, unit])
                found.append((t, 2 * order + part, Mismatch(stream, t, layer.name, what, name, unit, *values)))
    return min(found, key=lambda item: item[:2])[2] if found else None


# -------------------------------------------------------------------------------------------------------- inputs --


def _imported(qmodel: QuantizedModel, model: Any, frames: Any) -> Graph:
    """The graph in the form in which the model was quantized, which may not be the one that the importer prefers."""
    sample = _sample(qmodel.signature, frames)
    graph = import_model(model, sample)
    if graph.signature.arguments == qmodel.signature.arguments:
        return graph
    streams = any("time" in argument.axes for argument in qmodel.signature.arguments)
    try:
        return import_model(model, sample, "stream" if streams else "window")
    except QuantizeError:
        return graph  # another model: what differs will be said


def _graph_of(qmodel: QuantizedModel, model: Any, frames: Any) -> Graph:
    """The float graph of `model`; refused unless it has the arguments, results and layers that were quantized."""
    graph = model if isinstance(model, Graph) else _imported(qmodel, model, frames)
    differing = [
        f"{what} {[x.name for x in mine]} with axes {[x.axes for x in mine]} against "
        f"{[x.name for x in quantized]} with axes {[x.axes for x in quantized]}"
        for what, mine, quantized in (
            ("arguments", graph.signature.arguments, qmodel.signature.arguments),
            ("results", graph.signature.results, qmodel.signature.results),
        )
        if mine != quantized
    ]
    nodes = {node.name: node for node in graph.nodes}
    for layer in qmodel.tables.layers:
        weights = [a.shape for key, a in layer.arrays.items() if key.endswith("weights")]
        if not weights:
            continue
        node = nodes.get(layer.name)
        matrices = [] if node is None else [p for key, p in node.params.items() if key.startswith("weight")]
        shapes = [p.reshape(len(p), -1).shape for p in matrices]
        if sorted(shapes) != sorted(weights):
            differing.append(f"layer {layer.name}: weights {shapes or 'missing'} against {weights}")
    if differing:
        raise QuantizeError(f"this is not the model that was quantized: {'; '.join(differing)}")
    return graph


def _sample(signature: Signature, frames: Any) -> Any:
    """`frames` as an export takes them: float arrays, with the batch axes that a single stream may leave out."""

    def whole(argument: Argument, value: Any) -> np.ndarray:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.kind != "f":
            array = array.astype(np.float32)
        if array.ndim < len(argument.axes):
            for position, axis in enumerate(argument.axes):
                if axis == "batch":
                    array = np.stack([array, array], position)
        return array

    if isinstance(frames, dict):
        return {a.name: whole(a, frames[a.name]) for a in signature.arguments}
    values = frames if isinstance(frames, (tuple, list)) else (frames,)
    return tuple(whole(a, value) for a, value in zip(signature.arguments, values, strict=True))
