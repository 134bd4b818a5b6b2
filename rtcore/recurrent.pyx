"""Recurrent: the base of layers with a state, its access part by part; BeginI16: a state set within a step.

Neighbours: `layer.pyx` (base), `tables.py` (state_parts), `csrc/rtcore_state_i16.c`, SPEC.md section 5 (the numbers).
"""

import numpy as np

from libc.stdint cimport int16_t, int32_t

from rtcore.crtcore cimport RTCORE_STATE_ONE, rtcore_state_i16_set, rtcore_view
from rtcore.layer cimport Layer, set_call

from rtcore.limits import check
from rtcore.tables import state_parts


cdef class Recurrent(Layer):
    """A layer with a state: the parts that rtcore.tables.state_parts lists, one int32 vector to whoever saves it."""

    cdef int hold_part(self, int32_t *wide, int16_t *view) except -1:
        """Adds the next part of state_parts(self.table), at zero."""
        size = state_parts(self.table)[self.n_parts].size
        self.parts[self.n_parts] = Part(wide, view, size)
        rtcore_state_i16_set(wide, view, NULL, size)
        self.n_parts += 1
        self.size += size
        return 0

    cdef void clear(self) noexcept nogil:
        for part in self.parts[:self.n_parts]:
            rtcore_state_i16_set(part.wide, part.view, NULL, part.size)

    cdef int bind(self, const int16_t *a, const int16_t *b, int16_t *y) except -1:
        """y: the view of the state, or where every row's view is copied to."""
        cdef Part given = self.parts[self.n_parts - 1]  # the last is what the layer gives out
        Layer.bind(self, a, b, y)
        self.op.view = NULL if y == given.view else given.view
        self.op.width = given.size
        return 0

    def reset(self):
        """State to zero."""
        self.clear()

    def set_part(self, int index, const int16_t[::1] values not None):
        """Sets part number `index` from its int16 view."""
        cdef Part part = self.parts[index]
        if index >= self.n_parts or values.shape[0] != part.size:
            raise ValueError(f"layer {self.table.name}: {values.shape[0]} values do not fit part {index} of its state")
        rtcore_state_i16_set(part.wide, part.view, &values[0], part.size)

    def get_state(self):
        """int32 [size], a copy: the parts one after the other, each wide where it is kept wide."""
        return np.concatenate([
            np.array(<int32_t[:part.size]>part.wide) if part.wide != NULL
            else np.array(<int16_t[:part.size]>part.view).astype(np.int32)
            for part in self.parts[:self.n_parts]
        ])

    def set_state(self, const int32_t[::1] state not None):
        """Restores a state that `get_state` gave: kept views follow from it."""
        cdef Part part
        cdef int i, low, high, at = 0
        if state.shape[0] != self.size:
            raise ValueError(f"layer {self.table.name}: the state has {state.shape[0]} units, the layer {self.size}")
        for part in self.parts[:self.n_parts]:
            high = RTCORE_STATE_ONE if part.wide != NULL else 32767
            low = -RTCORE_STATE_ONE if part.wide != NULL else -32768
            for i in range(at, at + part.size):
                if not low <= state[i] <= high:
                    raise ValueError(
                        f"layer {self.table.name}: unit {i} of the state is {state[i]}, a state holds at most "
                        f"{low}..{high}; restore what a state of this model gave"
                    )
            at += part.size
        at = 0
        for part in self.parts[:self.n_parts]:
            for i in range(part.size):
                if part.wide != NULL:
                    part.wide[i] = state[at + i]
                if part.view != NULL:
                    part.view[i] = rtcore_view(state[at + i]) if part.wide != NULL else <int16_t>state[at + i]
            at += part.size


cdef void begin(const void *layer, const int16_t *a, const int16_t *b, int16_t *y) noexcept nogil:
    cdef const BeginCall *call = <const BeginCall *>layer
    cdef int k
    for k in range(call.n_parts):
        rtcore_state_i16_set(call.parts[k].wide, call.parts[k].view, b if k else a, call.parts[k].size)


cdef class BeginI16(Layer):
    """From a rtcore.tables.Layer of kind "begin_i16": sets a recurrent layer's state; `attach` says whose."""

    def __init__(self, table):
        check(table, KINDS)
        self.table = table
        set_call(&self.op, begin, &self.begin)

    def attach(self, Recurrent owner not None):
        """The layer whose state is set."""
        self.keep = owner
        self.begin.n_parts = owner.n_parts
        for k in range(owner.n_parts):
            self.begin.parts[k] = owner.parts[owner.n_parts - 1 - k]


KINDS = {"begin_i16": BeginI16}
