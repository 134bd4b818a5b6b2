"""Net: a graph of int16 layers over sequences, with the GIL released.

Memory is the firmware's: one arena placed by the plan, states inside the recurrent layers, one buffer per input and
output. Nothing here knows a kind of layer beyond the table KINDS. One Net runs in one thread at a time; make one per
thread. Neighbours: `tables.py` (what is run), the `*_i16.pyx` classes (the layers), SPEC.md section 7.
"""

from dataclasses import dataclass

import numpy as np

from libc.stdint cimport int16_t, int32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from rtcore.layer cimport Layer, Op
from rtcore.layer cimport run as run_op
from rtcore.recurrent cimport Part, Recurrent

from rtcore import (
    copy_i16, dense_i16, elementwise_i16, function_i16, gru_i16, lstm_i16, normalize_i16, recurrent, rnn_i16, window_i16
)
from rtcore.limits import check_operands
from rtcore.tables import SPEC_VERSION, state_parts

KINDS = {}
for module in (copy_i16, dense_i16, elementwise_i16, function_i16, gru_i16, lstm_i16, normalize_i16, recurrent, rnn_i16,
               window_i16):
    KINDS |= module.KINDS


@dataclass(frozen=True)
class NetRun:
    """What a run gives. S streams, T steps.

    outputs:     int16 [S, T, width] per output.
    states:      recurrent layer -> int32 [S, N] after the last step: rtcore.tables.state_parts says what its N are.
    trace:       tensor -> int16 [S, T, width], every tensor of the net; None unless asked for.
    state_trace: recurrent layer -> int32 [S, T, N]; None unless asked for.
    saturated:   layer -> values clipped by more than one LSB during the run.
    """

    outputs: list
    states: dict
    trace: dict | None
    state_trace: dict | None
    saturated: dict


ctypedef struct Copy:  # a vector that moves between a net's fixed buffer and row (s, t) of a run's array
    int16_t *buffer
    int16_t *rows
    Py_ssize_t width
    Py_ssize_t stride  # int16 elements from row to row
    bint widen         # rows are int32
    int after          # index of the op that it is copied after; -1: before the first


cdef class Net:
    """Runs rtcore.tables.Tables. Raises ValueError, naming the layer or tensor, for tables it cannot run."""

    cdef readonly object tables
    cdef readonly list layers
    cdef dict by_name
    cdef int16_t *memory          # arena, then input and output buffers
    cdef Py_ssize_t elements
    cdef dict offsets             # tensor -> element of `memory`, for those that live there
    cdef Op **ops
    cdef int n_ops
    cdef bint running

    def __cinit__(self):
        self.memory = NULL
        self.ops = NULL

    def __dealloc__(self):
        free(self.memory)
        free(self.ops)

    def __init__(self, tables):
        if tables.spec != SPEC_VERSION:
            raise ValueError(f"tables of spec version {tables.spec}, this rtcore runs version {SPEC_VERSION}")
        self.tables = tables
        self.layers = []
        self.by_name = {}
        self.place()
        cdef Layer layer
        self.n_ops = len(tables.layers)
        self.ops = <Op **>calloc(max(self.n_ops, 1), sizeof(Op *))
        for i, table in enumerate(tables.layers):
            if table.kind not in KINDS:
                raise ValueError(f"layer {table.name}: unknown kind {table.kind}; known are {', '.join(KINDS)}")
            layer = KINDS[table.kind](table)
            self.layers.append(layer)
            self.by_name[table.name] = layer
            self.ops[i] = &layer.op
        for layer in self.layers:
            self.bind(layer)

    cdef place(self):
        """Gives every input and output a buffer behind the arena."""
        self.offsets = {}
        end = self.tables.arena
        for name, tensor in self.tables.tensors.items():
            if tensor.place in ("input", "output"):
                self.offsets[name] = end
                end += tensor.width
            elif tensor.place == "arena":
                if tensor.offset + tensor.width > self.tables.arena:
                    raise ValueError(f"tensor {name}: ends at {tensor.offset + tensor.width}, "
                                     f"beyond the arena of {self.tables.arena}")
                self.offsets[name] = tensor.offset
        self.elements = max(end, 1)
        self.memory = <int16_t *>calloc(self.elements, sizeof(int16_t))
        if self.memory == NULL:
            raise MemoryError()

    cdef int16_t *address(self, str name) except NULL:
        """Where a tensor's elements are."""
        tensor = self.tables.tensors.get(name)
        if tensor is None:
            raise ValueError(f"tensor {name}: used by a layer, but not in the tables")
        cdef Recurrent owner
        cdef Part part
        if tensor.place == "alias":
            whole = self.tables.tensors.get(tensor.owner)
            if whole is None or tensor.offset + tensor.width > whole.width:
                raise ValueError(f"tensor {name}: elements {tensor.offset}..{tensor.offset + tensor.width} of "
                                 f"{tensor.owner} do not exist")
            return self.address(tensor.owner) + <Py_ssize_t>tensor.offset
        if tensor.place == "state":
            owner = self.by_name[tensor.owner]
            part = owner.parts[owner.n_parts - 1]  # the last is what the layer gives out
            if part.size != tensor.width:
                raise ValueError(f"tensor {name}: width {tensor.width}, but {tensor.owner} has {part.size} units")
            return part.view
        return self.memory + <Py_ssize_t>self.offsets[name]

    cdef bind(self, Layer layer):
        """Points a layer's calls at its tensors, after their widths have been compared."""
        table = layer.table
        check_operands(self.tables, table)
        if table.kind in ("cell_i16", "begin_i16"):  # of the layer whose state is their input or their output
            tensor = self.tables.tensors[table.output if table.kind == "begin_i16" else table.inputs[0]]
            if tensor.place != "state":
                raise ValueError(f"layer {table.name}: tensor {tensor.name} does not fit, it is no recurrent layer's state")
            layer.attach(self.by_name[tensor.owner])
        layer.bind(
            self.address(table.inputs[0]) if table.inputs else NULL,
            self.address(table.inputs[1]) if len(table.inputs) > 1 else NULL,
            self.address(table.output),
        )

    # ------------------------------------------------------------------------------------------------- running --

    def reset(self):
        """All states to zero."""
        for table in self.tables.states:
            self.by_name[table.name].reset()

    @property
    def state(self):
        """Recurrent layer -> int32 [N] (rtcore.tables.state_parts); assign such a dict to restore it."""
        return {table.name: self.by_name[table.name].get_state() for table in self.tables.states}

    @state.setter
    def state(self, values):
        expected = [table.name for table in self.tables.states]
        if sorted(values) != sorted(expected):
            raise ValueError(f"the state of another model: it has layers {sorted(values)}, this one {sorted(expected)}")
        for name, value in values.items():
            self.by_name[name].set_state(np.ascontiguousarray(value, np.int32))

    def set_initial(self, initial):
        """Sets states from int16 views: one [sum of units] array per state input of the model."""
        rows = self.tables.state_rows
        if len(initial) != len(self.tables.state_inputs):
            raise ValueError(f"{len(initial)} initial states given, the model takes {len(self.tables.state_inputs)}")
        for state_input, given in zip(self.tables.state_inputs, initial):
            values = np.ascontiguousarray(given, np.int16)
            units = sum(rows[row][1].size for row in state_input.layers)
            if values.shape[0] != units:
                raise ValueError(f"initial state {state_input.name}: {values.shape[0]} values, {units} expected")
            for row in state_input.layers:
                table, part = rows[row]
                self.by_name[table.name].set_part(state_parts(table).index(part), values[:part.size])
                values = values[part.size:]

    def poison(self, int byte):
        """Fills all memory that holds nothing between steps; no number may change (tests prove it)."""
        cdef Layer layer
        memset(self.memory, byte, self.elements * sizeof(int16_t))
        for layer in self.layers:
            layer.poison(byte)

    def step(self, inputs):
        """One frame: int16 [F] per input -> list of int16 [width] per output. Carries the states on."""
        frames = [np.asarray(x)[None, None, :] for x in inputs]
        return [y[0, 0] for y in self.execute(frames, None, False, False).outputs]

    def run(self, inputs, initial=None, trace=False):
        """Whole sequences, each from the reset state or from `initial`.

        inputs: int16 [S, T, F] per input. initial: int16 [S, units] per state input, or None. Returns NetRun.
        """
        return self.execute(inputs, initial, trace, True)

    cdef execute(self, inputs, initial, bint trace, bint from_reset):
        arrays = [np.ascontiguousarray(x, np.int16) for x in inputs]
        names = self.tables.inputs
        if len(arrays) != len(names) or not arrays:
            raise ValueError(f"{len(arrays)} inputs given, the model takes {len(names)}: {', '.join(names)}")
        for given, array, name in zip(inputs, arrays, names):
            width = self.tables.tensors[name].width
            if np.asarray(given).dtype != np.int16:
                raise ValueError(f"input {name}: int16 expected, {np.asarray(given).dtype} given")
            if array.ndim != 3 or array.shape[2] != width or array.shape[:2] != arrays[0].shape[:2]:
                raise ValueError(f"input {name}: shape {array.shape}, expected [streams, steps, {width}]")
        streams, steps = arrays[0].shape[:2]
        if streams == 0 or steps == 0:
            raise ValueError(f"input {names[0]}: shape {arrays[0].shape} holds no frame")

        def new(name):
            return np.empty((streams, steps, self.tables.tensors[name].width), np.int16)

        outputs = [new(name) for name in self.tables.outputs]
        traces = {name: new(name) for name in self.tables.tensors} if trace else {}
        states = {t.name: np.empty((streams, self.by_name[t.name].size), np.int32) for t in self.tables.states}
        state_traces = {name: np.empty((streams, steps, s.shape[1]), np.int32) for name, s in states.items()}
        if self.running:
            raise RuntimeError("this Net is running in another thread; make one Net per thread")
        self.running = True
        try:
            self.clear_counts()
            for s in range(streams):
                if from_reset:
                    self.reset()
                    if initial is not None:
                        self.set_initial([given[s] for given in initial])
                self.stream(s, arrays, outputs, traces, state_traces if trace else {})
                for name in states:
                    states[name][s] = self.by_name[name].get_state()
        finally:
            self.running = False
        return NetRun(outputs, states, traces if trace else None, state_traces if trace else None, self.counts())

    cdef clear_counts(self):
        cdef Layer layer
        for layer in self.layers:
            layer.op.saturated = 0

    cdef dict counts(self):
        cdef Layer layer
        return {layer.table.name: layer.op.saturated for layer in self.layers}

    cdef stream(self, Py_ssize_t s, list inputs, list outputs, dict traces, dict state_traces):
        """All steps of one stream without the GIL; copies in, ops, copies out."""
        cdef Py_ssize_t n_in = len(inputs), n_out = len(outputs) + len(traces), n_state = len(state_traces), i = 0, at
        cdef Copy *copies = <Copy *>calloc(n_in + n_out + 2 * n_state + 1, sizeof(Copy))
        cdef Part part
        cdef int16_t *target
        cdef int16_t[:, :, ::1] rows
        cdef int32_t[:, :, ::1] state_rows
        cdef Recurrent owner
        cdef Py_ssize_t steps = inputs[0].shape[1]
        if copies == NULL:
            raise MemoryError()
        try:
            for name, array in zip(self.tables.inputs, inputs):
                rows = array
                copies[i] = Copy(self.address(name), &rows[s, 0, 0], rows.shape[2], rows.shape[2], False, -1)
                i += 1
            last = self.n_ops - 1
            writers = self.tables.last_writers()
            for name, array in [*zip(self.tables.outputs, outputs), *traces.items()]:
                rows = array
                copies[i] = Copy(self.address(name), &rows[s, 0, 0], rows.shape[2], rows.shape[2], 0, writers[name])
                i += 1
            for name, array in state_traces.items():
                owner = self.by_name[name]
                state_rows = array
                at = 0
                for part in owner.parts[:owner.n_parts]:
                    target = <int16_t *>&state_rows[s, 0, at]
                    copies[i] = Copy(part.view, target, part.size, 2 * owner.size, True, last)
                    if part.wide != NULL:
                        copies[i] = Copy(<int16_t *>part.wide, target, 2 * part.size, 2 * owner.size, False, last)
                    at += part.size
                    i += 1
            with nogil:
                self.steps(copies, n_in, i, steps)
        finally:
            free(copies)

    cdef void steps(self, Copy *copies, Py_ssize_t n_in, Py_ssize_t n_copies, Py_ssize_t steps) noexcept nogil:
        cdef Py_ssize_t t, k, n
        cdef int i
        cdef Copy copy
        for t in range(steps):
            for k in range(n_in):
                memcpy(copies[k].buffer, copies[k].rows + t * copies[k].width, copies[k].width * sizeof(int16_t))
            for i in range(-1, self.n_ops):
                if i >= 0:
                    run_op(self.ops[i])
                for k in range(n_in, n_copies):
                    copy = copies[k]
                    if copy.after == i and copy.widen:
                        for n in range(copy.width):
                            (<int32_t *>(copy.rows + t * copy.stride))[n] = copy.buffer[n]
                    elif copy.after == i:
                        memcpy(copy.rows + t * copy.stride, copy.buffer, copy.width * sizeof(int16_t))
