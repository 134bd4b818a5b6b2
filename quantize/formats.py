"""Numbers to int16 raw values of a power-of-two format, and back. The only place that rounds activations from floats.

A format is one integer, `frac`: value = raw * 2**-frac, raw in -32768..32767. Rounding is half up, as in the kernels.
Neighbours: `firmware_sim/simulator.py` (frames in, results out), `plan.py` (chooses frac), `csrc/rtcore_fixed.h` (the
same rounding in C).
"""

from __future__ import annotations

import numpy as np

from quantize.errors import QuantizeError

RAW_MIN, RAW_MAX = -32768, 32767


def to_raw(x: np.ndarray, frac: int) -> tuple[np.ndarray, int]:
    """Values to raw int16: floor(x * 2**frac + 1/2) exactly (half up, no double rounding), saturated.

    x: any shape, float or integer, finite. Returns (int16 array of the same shape, number of values clipped).
    As in the kernels, a value is counted as clipped when saturation moves it by more than one LSB: 1.0 in Q15 is not.
    Raises QuantizeError for NaN and infinities.
    """
    values = np.asarray(x, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)
        at = f"{values[bad]} at index {tuple(int(i) for i in bad)}"
        raise QuantizeError(f"{at} cannot be a fixed-point value: every value must be finite")
    with np.errstate(over="ignore"):
        scaled = np.clip(np.ldexp(values, frac), 2.0 * RAW_MIN, 2.0 * RAW_MAX)
    whole = np.floor(scaled)
    rounded = whole + (scaled - whole >= 0.5)
    clipped = int(np.count_nonzero((rounded > RAW_MAX + 1) | (rounded < RAW_MIN)))
    return np.ascontiguousarray(np.clip(rounded, RAW_MIN, RAW_MAX).astype(np.int16)), clipped


def to_float(raw: np.ndarray, frac: int) -> np.ndarray:
    """Raw int16 to float32 of the same shape; exact (16 bits fit a float32's 24)."""
    return np.ldexp(np.asarray(raw, dtype=np.float32), -frac)
