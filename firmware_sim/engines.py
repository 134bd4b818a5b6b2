"""What runs a fixed-point net, behind one interface: the host runtime, or generated firmware on an emulated core.

Everything here is raw: int16 frames, int32 states. Both engines give the same bits, per layer and per step.
Neighbours: `simulator.py` (floats, axes and checks, in front of an engine), `rtcore.Net` (the host runtime),
`emulator.py`, `qemu.py` and `toolchain.py` (the firmware).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from firmware_sim.emulator import Board, Emulator
from firmware_sim.qemu import Qemu
from firmware_sim.toolchain import Firmware, state_arrays
from quantize.plan import STATE_EXTRA
from rtcore import Net
from rtcore.tables import Layer, StatePart, Tables, state_parts, state_size


@dataclass(frozen=True)
class EngineRun:
    """What a run gives. S streams, T steps.

    outputs:      int16 [S, T, width] per output.
    states:       recurrent layer -> int32 [S, N] after the last step, see rtcore.tables.state_parts.
    trace:        tensor -> int16 [S, T, width], every tensor that the net computes; None unless asked for.
    state_trace:  recurrent layer -> int32 [S, T, N]; None unless asked for.
    saturated:    layer -> values clipped by more than one LSB; None where the engine cannot tell (firmware).
    instructions: int64 [S * T] executed by each step, stream after stream; None on the host.
    """

    outputs: list[np.ndarray]
    states: dict[str, np.ndarray]
    trace: dict[str, np.ndarray] | None
    state_trace: dict[str, np.ndarray] | None
    saturated: dict[str, int] | None
    instructions: np.ndarray | None


class Engine(Protocol):
    """One net with one state."""

    def run(self, inputs: list[np.ndarray], initial: list[np.ndarray] | None, trace: bool) -> EngineRun:
        """inputs: int16 [S, T, F] per input; initial: int16 [S, sum of N] per state input, or None for the reset state.
        The engine's state is afterwards that of the last stream."""
        ...

    def step(self, inputs: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray | None]:
        """One frame from the present state: int16 [F] per input -> int16 [width] per output, int64 [1] instructions."""
        ...

    def reset(self) -> None:
        """All states zero."""
        ...

    def get_state(self) -> dict[str, np.ndarray]:
        """Recurrent layer -> int32 [N]."""
        ...

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """The inverse of get_state; names, shapes and ranges have been checked."""
        ...


def view_of(state: np.ndarray) -> np.ndarray:
    """The int16 view of 32-bit states of any shape: rounded half up, saturated (SPEC.md section 5)."""
    rounded = (state.astype(np.int64) + (1 << (STATE_EXTRA - 1))) >> STATE_EXTRA
    return np.clip(rounded, -32768, 32767).astype(np.int16)


def part_of(part: StatePart, state: np.ndarray) -> np.ndarray:
    """The int16 view of one part of state vectors [..., N]."""
    values = state[..., part.start : part.start + part.size]
    return view_of(values) if part.wide else values.astype(np.int16)


class HostEngine:
    """rtcore.Net."""

    def __init__(self, tables: Tables):
        self.net = Net(tables)

    def run(self, inputs: list[np.ndarray], initial: list[np.ndarray] | None, trace: bool) -> EngineRun:
        run = self.net.run(inputs, initial, trace=trace)
        return EngineRun(run.outputs, run.states, run.trace, run.state_trace, run.saturated, None)

    def step(self, inputs: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray | None]:
        return self.net.step(inputs), None

    def reset(self) -> None:
        self.net.reset()

    def get_state(self) -> dict[str, np.ndarray]:
        return self.net.state

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        self.net.state = state


# Which argument register of a kernel holds its output, for the trace; kernels of one step do not call each other.
OUTPUT_REGISTER = {
    "rtcore_dense_i16_step": 1,
    "rtcore_conv_i16_step": 1,
    "rtcore_depthwise_i16_step": 1,
    "rtcore_pool_i16_step": 1,
    "rtcore_gru_i16_step": 2,
    "rtcore_gru_i16_before_step": 2,
    "rtcore_lstm_i16_step": 2,
    "rtcore_rnn_i16_step": 1,
    "rtcore_delay_i16": 0,
    "rtcore_state_i16_set": 1,
    "rtcore_state_i16_view": 0,
    "rtcore_activation_i16": 0,
    "rtcore_add_i16": 0,
    "rtcore_mul_i16": 0,
    "rtcore_affine_i16": 0,
    "rtcore_rescale_i16": 0,
    "rtcore_copy_i16": 0,
    "rtcore_fill_i16": 0,
    "rtcore_embedding_i16": 0,
    "rtcore_table_i16": 0,
    "rtcore_clamp_i16": 0,
    "rtcore_prelu_i16": 0,
    "rtcore_minmax_i16": 0,
    "rtcore_sqrt_i16": 0,
    "rtcore_softmax_i16": 0,
    "rtcore_log_softmax_i16": 0,
    "rtcore_layernorm_i16": 0,
}


def board_of(firmware: Firmware) -> Board:
    """A board that runs a firmware, on the emulator of its target."""
    return Qemu(firmware) if firmware.target.machine else Emulator(firmware)


class McuEngine:
    """Generated firmware on an emulated core. Frames go through the board's buffer, one NAME_step call each."""

    def __init__(self, tables: Tables, firmware: Firmware):
        self.tables = tables
        self.name = firmware.name
        self.board = board_of(firmware)
        self.state = self.board.symbol("board_state").address
        self.inputs, end = _buffers(self.board.symbol("board_io").address, [tables.tensors[x] for x in tables.inputs])
        self.outputs, self.free = _buffers(end, [tables.tensors[y] for y in tables.outputs])
        self.sizes = {layer.name: state_size(layer) for layer in tables.states}
        arrays = state_arrays(tables)
        offsets = np.frombuffer(self.board.read("board_parts", 4 * len(arrays)), "<u4").tolist()
        self.arrays = [(*array, self.state + offset) for array, offset in zip(arrays, offsets, strict=True)]
        self.reset()

    def reset(self) -> None:
        self.board.call(f"{self.name}_reset", self.state)

    def get_state(self) -> dict[str, np.ndarray]:
        state = {name: np.empty(n, np.int32) for name, n in self.sizes.items()}
        for layer, member, part, address in self.arrays:
            if member == (part.wide or part.view):
                data = self.board.read(address, (4 if part.wide else 2) * part.size)
                values = np.frombuffer(data, "<i4" if part.wide else "<i2")
                state[layer][part.start : part.start + part.size] = values
        return state

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        for layer, member, part, address in self.arrays:
            values = state[layer][part.start : part.start + part.size]
            data = values.astype("<i4") if member == part.wide else part_of(part, state[layer]).astype("<i2")
            self.board.write(address, data.tobytes())

    def set_initial(self, initial: list[np.ndarray]) -> None:
        """NAME_set_state: int16 views per state input."""
        addresses, at = [], self.free
        for values in initial:
            self.board.write(at, values.astype("<i2").tobytes())
            addresses.append(at)
            at += 2 * values.size
        self.board.call(f"{self.name}_set_state", self.state, *addresses)

    def step(self, inputs: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray | None]:
        for (address, _), values in zip(self.inputs, inputs, strict=True):
            self.board.write(address, values.astype("<i2").tobytes())
        addresses = [address for address, _ in (*self.inputs, *self.outputs)]
        produced = self.board.call(f"{self.name}_step", self.state, *addresses)
        if produced != 1:
            raise RuntimeError(f"{self.name}_step returned {produced}, one frame was expected")
        counted = np.array([self.board.instructions], np.int64)
        return [self._read(address, width) for address, width in self.outputs], counted

    def run(self, inputs: list[np.ndarray], initial: list[np.ndarray] | None, trace: bool) -> EngineRun:
        streams, steps = inputs[0].shape[:2]
        outputs = [np.empty((streams, steps, width), np.int16) for _, width in self.outputs]
        states = {name: np.empty((streams, n), np.int32) for name, n in self.sizes.items()}
        history = {name: np.empty((streams, steps, n), np.int32) for name, n in self.sizes.items()}
        counts = np.empty(streams * steps, np.int64)
        recorder = _Recorder(self, streams, steps) if trace else None
        with recorder.watching() if recorder else contextlib.nullcontext():
            for s in range(streams):
                self.reset()
                if initial is not None:
                    self.set_initial([values[s] for values in initial])
                for t in range(steps):
                    if recorder:
                        recorder.begin()
                    results, counts[s * steps + t : s * steps + t + 1] = self.step([x[s, t] for x in inputs])
                    for output, result in zip(outputs, results, strict=True):
                        output[s, t] = result
                    if recorder:
                        recorder.finish(s, t, [x[s, t] for x in inputs])
                        for name, values in self.get_state().items():
                            history[name][s, t] = values
                for name, values in self.get_state().items():
                    states[name][s] = values
        tensors = recorder.tensors() if recorder else None
        return EngineRun(outputs, states, tensors, history if trace else None, None, counts)

    def _read(self, address: int, width: int) -> np.ndarray:
        return np.frombuffer(self.board.read(address, 2 * width), "<i2").astype(np.int16)


def _buffers(address: int, tensors: list) -> tuple[list[tuple[int, int]], int]:
    """(address, width) of consecutive int16 buffers, and the address behind them."""
    places = []
    for tensor in tensors:
        places.append((address, tensor.width))
        address += 2 * tensor.width
    return places, address


def kernel_calls(tables: Tables, layer: Layer) -> tuple[int, int]:
    """(calls of kernels that a layer makes in a step, calls per row, the last of which writes its output)."""
    per_row = 1
    if layer.kind == "begin_i16":
        owner = tables.tensors[layer.output].owner
        per_row = len(state_parts(next(x for x in tables.layers if x.name == owner)))
    elif state_parts(layer) and tables.tensors[layer.output].place != "state":
        per_row = 2  # and copies its view
    return layer.ints.get("rows", 1) * per_row, per_row


class _Recorder:
    """Every tensor of every step, read from the emulated memory: when the first kernel of a layer is entered, the layer
    before it has written its output."""

    def __init__(self, engine: McuEngine, streams: int, steps: int):
        self.engine = engine
        self.tables = engine.tables
        self.calls = [kernel_calls(self.tables, layer) for layer in self.tables.layers]
        self.targets: list[list[int]] = []  # of the layers entered in this step: where each call writes
        self.values: list[np.ndarray] = []  # what the finished ones have written
        self.within = False  # a step
        owners = [tensor for tensor in self.tables.tensors.values() if tensor.place != "alias"]
        self.owned = {tensor.name: np.zeros((streams, steps, tensor.width), np.int16) for tensor in owners}

    def watching(self):
        """The emulator's context in which kernels are noticed."""
        return self.engine.board.watching(OUTPUT_REGISTER, self.enter)

    def begin(self) -> None:
        """A step begins; what runs between steps is no layer."""
        self.targets, self.values, self.within = [], [], True

    def enter(self, function: str, arguments: tuple[int, ...]) -> None:
        if not self.within:
            return
        if not self.targets or len(self.targets[-1]) == self.calls[min(len(self.targets), len(self.calls)) - 1][0]:
            self.leave()
            self.targets.append([])
        self.targets[-1].append(arguments[OUTPUT_REGISTER[function]])

    def leave(self) -> None:
        """Reads what the layer entered last has written: the first row lies lowest."""
        if len(self.values) < min(len(self.targets), len(self.calls)):
            count, every = self.calls[len(self.values)]
            layer = self.tables.layers[len(self.values)]
            start = min(self.targets[-1][every - 1 : count : every])
            self.values.append(self.engine._read(start, self.tables.tensors[layer.output].width))

    def finish(self, s: int, t: int, inputs: list[np.ndarray]) -> None:
        """Files the values of step (s, t)."""
        self.leave()
        self.within = False
        entered = [len(targets) for targets in self.targets]
        if entered != [count for count, _ in self.calls]:
            raise RuntimeError(f"kernels ran {entered} times in a step of {len(self.calls)} layers")
        written = [layer.output for layer in self.tables.layers]
        for name, values in zip([*self.tables.inputs, *written], [*inputs, *self.values], strict=True):
            owner, offset = self.place(name)
            self.owned[owner][s, t, offset : offset + values.size] = values
        views = {layer: address for layer, member, part, address in self.engine.arrays if member == part.view}
        for name, tensor in self.tables.tensors.items():
            if tensor.place == "state":
                self.owned[name][s, t] = self.engine._read(views[tensor.owner], tensor.width)

    def place(self, name: str) -> tuple[str, int]:
        """The tensor that holds the elements of `name`, and where they begin in it."""
        tensor, offset = self.tables.tensors[name], 0
        while tensor.place == "alias":
            offset += tensor.offset
            tensor = self.tables.tensors[tensor.owner]
        return tensor.name, offset

    def tensors(self) -> dict[str, np.ndarray]:
        """tensor -> int16 [S, T, width]."""
        trace = {}
        for name, tensor in self.tables.tensors.items():
            owner, offset = self.place(name)
            trace[name] = self.owned[owner][..., offset : offset + tensor.width].copy()
        return trace
