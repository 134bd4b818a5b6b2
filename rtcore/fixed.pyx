"""sigmoid, tanh and hard gates of csrc/rtcore_sigma.c over arrays, for whoever sweeps them.

PRE is int32 in Q22, never -2^31. Neighbours: `csrc/rtcore_fixed.h`, SPEC.md section 4.
"""

import numpy as np

from libc.stdint cimport int16_t, int32_t

from rtcore.crtcore cimport rtcore_hard_sigma, rtcore_sigma, rtcore_sigmoid_q15, rtcore_tanh, rtcore_tanh_q15


def sigma(const int32_t[::1] a not None):
    """GATE: sigmoid(-|a|) in Q0.32 as int32, 0..2^31-1."""
    out = np.empty(a.shape[0], np.int32)
    cdef int32_t[::1] y = out
    cdef Py_ssize_t i
    with nogil:
        for i in range(a.shape[0]):
            y[i] = rtcore_sigma(a[i])
    return out


def hard_sigma(const int32_t[::1] a not None, int32_t slope):
    """GATE of a hard sigmoid, max(1/2 - slope * |a|, 0) in Q0.32 as int32, 0..2^31-1; slope: Q30, 2^21..2^30."""
    out = np.empty(a.shape[0], np.int32)
    cdef int32_t[::1] y = out
    cdef Py_ssize_t i
    with nogil:
        for i in range(a.shape[0]):
            y[i] = rtcore_hard_sigma(a[i], slope)
    return out


def tanh(const int32_t[::1] a not None):
    """tanh(a) in Q30 as int32."""
    out = np.empty(a.shape[0], np.int32)
    cdef int32_t[::1] y = out
    cdef Py_ssize_t i
    with nogil:
        for i in range(a.shape[0]):
            y[i] = rtcore_tanh(a[i])
    return out


def sigmoid_q15(const int32_t[::1] a not None):
    """sigmoid(a) in Q0.15 as int16."""
    out = np.empty(a.shape[0], np.int16)
    cdef int16_t[::1] y = out
    cdef Py_ssize_t i
    with nogil:
        for i in range(a.shape[0]):
            y[i] = rtcore_sigmoid_q15(a[i])
    return out


def tanh_q15(const int32_t[::1] a not None):
    """tanh(a) in Q0.15 as int16."""
    out = np.empty(a.shape[0], np.int16)
    cdef int16_t[::1] y = out
    cdef Py_ssize_t i
    with nogil:
        for i in range(a.shape[0]):
            y[i] = rtcore_tanh_q15(a[i])
    return out
