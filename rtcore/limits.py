"""What a record of a layer without a matrix may hold (rtcore.h's ranges, SPEC.md 6 and 7), checked once, on load.

Neighbours: `elementwise_i16.pyx`, `function_i16.pyx`, `normalize_i16.pyx` (check their records here), `tables.py` (the
record).
"""

import numpy as np

FRAC = (-16, 30)
SHIFTS = {"shift_a": (0, 46), "shift_b": (0, 46), "shift": (0, 62), "stride_a": (0, 1), "stride_b": (0, 1)}
BIAS = (-(1 << 61) + 1, (1 << 61) - 1)
MULT = (-32767, 32767)

LIMITS = {  # kind -> its ints (beside n) and arrays, and the legal range of each
    "activation_i16": {"activation": (0, 3), "shift": (-8, 38)},
    "add_i16": SHIFTS,
    "mul_i16": {"shift": (0, 62), "stride_a": (0, 1), "stride_b": (0, 1)},
    "affine_i16": {"mult": MULT, "bias": BIAS, "shift": (0, 62)},
    "rescale_i16": {"shift": (0, 46)},
    "table_i16": {"step": (1, 8), "shift": (1, 30), "nodes": (-(1 << 29), 1 << 29)},
    "clamp_i16": {"low": (-32768, 32767), "high": (-32768, 32767)},
    "prelu_i16": {"stride": (0, 1), "shift_positive": (0, 46), "mult": MULT, "shift": (0, 62)},
    "minmax_i16": SHIFTS | {"largest": (0, 1)},
    "sqrt_i16": {"shift": (0, 31)},
    "softmax_i16": {"n": (1, 32768), "frac": FRAC},
    "log_softmax_i16": {"n": (1, 32768), "frac": FRAC, "shift": (0, 46)},
    "layernorm_i16": {"n": (1, 32768), "epsilon": (1, 1 << 61), "mult": MULT, "bias": BIAS, "shift": (0, 62)},
}
ARRAYS = {  # array -> its dtype
    "mult": np.int16,
    "bias": np.int64,
    "shift": np.uint8,
    "nodes": np.int32,
}


def array_size(table, name: str) -> int:
    """How many elements the array `name` of a record has."""
    ints = table.ints
    if name == "nodes":
        return (65536 >> ints["step"]) + 1
    return ints["n"] if ints.get("stride", 1) else 1


def check(table, kinds) -> None:
    """Refuses a record that is none of `kinds`, or outside rtcore.h's ranges: ValueError, naming layer and member."""
    if table.kind not in kinds:
        raise ValueError(f"layer {table.name}: unknown kind {table.kind}; known here are {', '.join(kinds)}")
    if table.ints["n"] < 1:
        raise ValueError(f"layer {table.name}: n is {table.ints['n']}, it must be at least 1")
    if table.ints.get("sign_b", 1) not in (1, -1):
        raise ValueError(f"layer {table.name}: sign_b is {table.ints['sign_b']}, it must be 1 or -1")
    for name, (low, high) in LIMITS[table.kind].items():
        array = name in ("mult", "bias", "nodes") or (name == "shift" and "mult" in LIMITS[table.kind])
        if name not in (table.arrays if array else table.ints):
            raise ValueError(f"layer {table.name}: {name} is missing")
        values = np.asarray(table.arrays[name] if array else table.ints[name])
        if values.size and (values.min() < low or values.max() > high):
            raise ValueError(f"layer {table.name}: {name} is outside {low}..{high}")
    for name, array in table.arrays.items():
        size = array_size(table, name)
        if array.shape != (size,):
            raise ValueError(f"layer {table.name}: {name} has shape {array.shape}, expected ({size},)")
        if array.dtype != ARRAYS[name]:
            raise ValueError(f"layer {table.name}: {name} is {array.dtype}, expected {np.dtype(ARRAYS[name])}")
    if "nodes" in table.arrays and np.abs(table.arrays["nodes"].astype(np.int64)).max() > 1 << (
        30 - table.ints["step"]
    ):
        raise ValueError(f"layer {table.name}: a node is beyond 2^{30 - table.ints['step']}")
    if table.kind == "clamp_i16" and table.ints["low"] > table.ints["high"]:
        raise ValueError(f"layer {table.name}: low {table.ints['low']} is above high {table.ints['high']}")
