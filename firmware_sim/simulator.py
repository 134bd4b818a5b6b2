"""Simulator: takes what the model takes and returns what it returns, computed by the fixed-point net on a target.

    sim = Simulator(qmodel, target="cortex-m4")
    y = sim.run(frames)                 # float32, the model's own axes
    q = sim.run(frames, raw=True)       # the same as int16 bits
    n = sim.instructions                # executed by each step

Frames become int16 here and nowhere else (`quantize.formats.to_raw`: half up, saturated, counted).
Neighbours: `engines.py` (what runs), `quantize/signature.py` (axes), `compare.py` (float against fixed point).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firmware_sim.engines import Engine, EngineRun, HostEngine, McuEngine, part_of
from firmware_sim.toolchain import CORES, build_firmware, find_target
from quantize.errors import QuantizeError
from quantize.formats import to_float, to_raw
from quantize.graph import Argument, Result, Signature
from quantize.signature import Restore, from_frames, to_frames
from rtcore.tables import Tables, state_parts, state_size

STATE_LIMIT = 1 << 30  # of what is kept in 32 bits: -2^30..2^30


class Simulator:
    """A quantized model on a target.

    model:  QuantizedModel, or bare Tables: then every input and output is [streams, steps, width] or [steps, width], an
            initial state [streams, units of its layers together].
    target: "host", or an emulated core: "cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33",
            "rv32imc"; or "qemu:cortex-m0" to "qemu:cortex-m33" and "qemu:cortex-m55", boards of qemu-system-arm.
    core:   whose kernels the firmware is built with; "portable" or None, the target's own where they exist.

    input_saturations: frame values of the last run or step that the input format could not hold.
    last_run:          the EngineRun behind the last run: raw outputs, states and traces of every stream.

    Raises QuantizeError for an unknown target or core, ToolchainError when its compiler or emulator is not installed.
    """

    def __init__(self, model: Any, target: str = "host", core: str | None = None):
        bare = isinstance(model, Tables)
        self.tables: Tables = model if bare else model.tables
        self.signature: Signature = _bare_signature(model) if bare else model.signature
        self.target = target
        self.engine: Engine
        if target == "host":
            if core not in (None, *CORES):
                raise QuantizeError(f"unknown core {core!r}; kernels exist for {', '.join(CORES)}")
            self.engine = HostEngine(self.tables)
        else:
            find_target(target)
            self.engine = McuEngine(self.tables, build_firmware(self.tables, target, core=core))
        self.input_saturations = 0
        self.last_run: EngineRun | None = None
        self._instructions: np.ndarray | None = None
        self._step_signature = _step_signature(self.signature)

    # ----------------------------------------------------------------------------------------------------- running --

    def run(self, frames: Any, raw: bool = False, trace: bool = False) -> Any:
        """Whole sequences from the reset state, or from the initial state that the model takes as an argument.

        frames: what the model takes: float or integer arrays, any batch size and time length, a single stream with or
        without its batch axis. Returns what the model returns, float32 (raw: int16) arrays of the same shapes.
        trace: last_run then holds every tensor and every state at every step. Afterwards `state` is the last stream's,
        so that `step` goes on from there.

        Raises QuantizeError, naming the argument, for NaN, infinity, a wrong shape or dtype.
        """
        arrays, states, restore = to_frames(self.signature, frames)
        inputs, initial = self._to_raw(arrays, states)
        return self._run(inputs, initial, restore, raw, trace)

    def run_raw(self, frames: Any, trace: bool = False) -> Any:
        """`run` for raw input: int16 frames in the input formats; returns raw int16 results."""
        arrays, states, restore = to_frames(self.signature, frames, np.int16)
        self.input_saturations = 0
        inputs = [arrays[name] for name in self.tables.inputs]
        initial = [_flat(states[state.name]) for state in self.tables.state_inputs] or None
        return self._run(inputs, initial, restore, True, trace)

    def step(self, frame: Any, raw: bool = False) -> Any:
        """One frame from the present state, which is carried on.

        frame: [F] per input: an array, or a tuple or dict of the model's frame inputs (initial states are not among
        them, see `state`). Returns the model's results of this frame, [width] each ([layers, width] for a returned
        state of several layers), float32 or, with raw, int16.
        """
        arrays, _, restore = to_frames(self._step_signature, frame)
        inputs, _ = self._to_raw(arrays, {})
        outputs, self._instructions = self.engine.step([x[0, 0] for x in inputs])
        states = {name: value[None] for name, value in self.engine.get_state().items()}
        return self._lay_out(self._step_signature, [y[None, None] for y in outputs], states, restore, raw)

    def reset(self) -> None:
        """All states zero."""
        self.engine.reset()

    @property
    def instructions(self) -> np.ndarray | None:
        """int64 [streams * steps]: executed by each step of the last run (or the last `step`), stream after stream,
        frame after frame, from entry to return of NAME_step; None on the host."""
        return self._instructions

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Recurrent layer -> int32 [N], as rtcore.tables.state_parts lays it out: the whole memory of the net. Assign
        such a dict to restore it; QuantizeError for another model's layers, a wrong shape or dtype, or values out of
        range."""
        return self.engine.get_state()

    @state.setter
    def state(self, state: dict[str, np.ndarray]) -> None:
        units = {layer.name: state_size(layer) for layer in self.tables.states}
        if not isinstance(state, dict) or set(state) != set(units):
            given = ", ".join(map(repr, state)) if isinstance(state, dict) else type(state).__name__
            raise QuantizeError(f"state of another model: got {given or 'nothing'}, this one has {', '.join(units)}")
        checked = {}
        for layer in self.tables.states:
            name, n = layer.name, units[layer.name]
            values = np.asarray(state[name])
            if values.shape != (n,) or values.dtype.kind not in "iu":
                raise QuantizeError(f"state of {name}: {values.dtype}{list(values.shape)}, expected int32[{n}]")
            for part in state_parts(layer):
                low, high = (-STATE_LIMIT, STATE_LIMIT) if part.wide else (-32768, 32767)
                own = values[part.start : part.start + part.size]
                if int(own.max()) > high or int(own.min()) < low:
                    limit = "+-2^30" if part.wide else "int16"
                    raise QuantizeError(f"state of {name}: values beyond {limit} are no state of {part.row}")
            checked[name] = values.astype(np.int32)
        self.engine.set_state(checked)

    # ---------------------------------------------------------------------------------------------------- in and out --

    def _to_raw(self, arrays: dict, states: dict) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Frames and initial states in the formats of the net; counts the frame values that are clipped."""
        self.input_saturations = 0
        inputs = []
        for name in self.tables.inputs:
            values, clipped = to_raw(arrays[name], self.tables.tensors[name].frac)
            self.input_saturations += clipped
            inputs.append(values)
        rows = self.tables.state_rows
        initial = []
        for state in self.tables.state_inputs if states else ():
            rest, parts = _flat(states[state.name]), []
            for _, part in (rows[row] for row in state.layers):
                values, clipped = to_raw(rest[:, : part.size], part.frac)
                self.input_saturations += clipped
                parts.append(values)
                rest = rest[:, part.size :]
            initial.append(np.concatenate(parts, axis=1))
        return inputs, initial or None

    def _run(self, inputs: list, initial: list | None, restore: Restore, raw: bool, trace: bool) -> Any:
        self.last_run = run = self.engine.run(inputs, initial, trace)
        self._instructions = run.instructions
        return self._lay_out(self.signature, run.outputs, run.states, restore, raw)

    def _lay_out(self, signature: Signature, outputs: list, states: dict, restore: Restore, raw: bool) -> Any:
        """Raw outputs [S, T, width] and states [S, N] as the model returns them."""
        tensors, finals = {}, {}
        given = iter(zip(self.tables.outputs, outputs, strict=True))
        for result in signature.results:
            if result.state:
                for name in result.tensors:
                    layer, part = self.tables.state_rows[self.tables.state_row(name)]
                    view = part_of(part, states[layer.name])
                    finals[name] = view if raw else to_float(view, part.frac)
            else:
                output, values = next(given)
                tensors[result.tensors[0]] = values if raw else to_float(values, self.tables.tensors[output].frac)
        return from_frames(signature, tensors, restore, finals)


def _flat(state: np.ndarray) -> np.ndarray:
    """[S, rows, N] to [S, rows * N]."""
    return state.reshape(state.shape[0], -1)


def _bare_signature(tables: Tables) -> Signature:
    """How bare tables are called."""
    rows = tables.state_rows
    frames = [
        Argument(name, "frames", ("batch", "time", "feature"), tensor=name, width=tables.tensors[name].width)
        for name in tables.inputs
    ]
    widths = {s.name: sum(rows[row][1].size for row in s.layers) for s in tables.state_inputs}
    states = [
        Argument(s.name, "state", ("batch", "feature"), layers=s.layers, width=widths[s.name])
        for s in tables.state_inputs
    ]
    results = tuple(Result(name, (("batch",), ("time",), ("feature",)), (name,)) for name in tables.outputs)
    return Signature((*frames, *states), results, "single" if len(results) == 1 else "tuple")


def _step_signature(signature: Signature) -> Signature:
    """The same model, one frame at a time: no batch, no time, no initial states."""
    arguments = tuple(
        Argument(a.name, a.kind, ("feature",), tensor=a.tensor, width=a.width)
        for a in signature.arguments
        if a.kind == "frames"
    )
    results = []
    for result in signature.results:
        rows = (("layer",),) if any("layer" in axis for axis in result.axes) else ()
        results.append(Result(result.name, (*rows, ("feature",)), result.tensors, result.state))
    return Signature(arguments, tuple(results), signature.container)
