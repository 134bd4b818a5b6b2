"""What a record may hold (rtcore.h's ranges, SPEC.md 6 and 7) and how its tensors must lie, checked once, on load.

Neighbours: the `*_i16.pyx` classes (`check` their records here), `net.pyx` (`check_operands` before it binds a call),
`tables.py` (the record), `packing.py` (the shapes of matrices).
"""

import numpy as np

from rtcore.tables import WINDOW, state_parts

FRAC = (-16, 30)
ACT = (-32768, 32767)
ELEMENTS = (1, 1 << 24)  # of a vector: products of two sizes stay far within int
STRIDE = (-(1 << 24), 1 << 24)
SHIFTS = {"shift_a": (0, 46), "shift_b": (0, 46), "shift": (0, 62), "stride_a": (0, 1), "stride_b": (0, 1)}
BIAS = (-(1 << 61) + 1, (1 << 61) - 1)
MULT = (-32767, 32767)
ROWS = {"rows": ELEMENTS, "reverse": (0, 1), "pitch_a": (0, 1 << 24), "pitch_b": (0, 1 << 24), "pitch_y": (0, 1 << 24)}
GEOMETRY = dict.fromkeys(WINDOW, ELEMENTS) | {"pad_h": (0, 1 << 24), "pad_w": (0, 1 << 24)}
CHANNELS = {"nb_inputs": ELEMENTS, "nb_neurons": ELEMENTS, "activation": (0, 3), "acc_bits": (32, 64)}

LIMITS = {  # kind -> its ints (beside n) and arrays, and the legal range of each
    "activation_i16": {"activation": (0, 3), "shift": (-8, 38)},
    "add_i16": SHIFTS,
    "mul_i16": {"shift": (0, 62), "stride_a": (0, 1), "stride_b": (0, 1)},
    "affine_i16": {"mult": MULT, "bias": BIAS, "shift": (0, 62)},
    "rescale_i16": {"shift": (0, 46)},
    "table_i16": {"step": (1, 8), "shift": (1, 30), "nodes": (-(1 << 29), 1 << 29)},
    "clamp_i16": {"low": ACT, "high": ACT},
    "prelu_i16": {"stride": (0, 1), "shift_positive": (0, 46), "mult": MULT, "shift": (0, 62)},
    "minmax_i16": SHIFTS | {"largest": (0, 1)},
    "sqrt_i16": {"shift": (0, 31)},
    "softmax_i16": {"n": (1, 32768), "frac": FRAC},
    "log_softmax_i16": {"n": (1, 32768), "frac": FRAC, "shift": (0, 46)},
    "layernorm_i16": {"n": (1, 32768), "epsilon": (1, 1 << 61), "mult": MULT, "bias": BIAS, "shift": (0, 62)},
    "copy_i16": {f"n{k}": ELEMENTS for k in range(4)} | {f"s{k}": STRIDE for k in range(4)} | {"start": (0, 1 << 24)},
    "fill_i16": {"value": ACT},
    "embedding_i16": {"entries": (1, 32768), "table": ACT},
    "begin_i16": {},
    "conv_i16": GEOMETRY | CHANNELS | {"groups": ELEMENTS},
    "depthwise_i16": GEOMETRY | CHANNELS | {"multiplier": ELEMENTS},
    "pool_i16": GEOMETRY | {"largest": (0, 1), "count_pad": (0, 1), "shift": (0, 62)},
    "delay_i16": {"frames": ELEMENTS, "state_frac": FRAC},
}
ARRAYS = {  # array -> its dtype
    "mult": np.int16,  # of a pool_i16 int32
    "bias": np.int64,
    "shift": np.uint8,
    "nodes": np.int32,
    "table": np.int16,
}


def array_size(table, name: str) -> int:
    """How many elements the array `name` of a record has."""
    ints = table.ints
    if name == "nodes":
        return (65536 >> ints["step"]) + 1
    if name == "table":
        return ints["entries"] * ints["n"]
    if table.kind == "pool_i16":
        return ints["kernel_h"] * ints["kernel_w"] + 1
    return ints["n"] if ints.get("stride", 1) else 1


def check(table, kinds) -> None:
    """Refuses a record that is none of `kinds`, or outside rtcore.h's ranges: ValueError, naming layer and member."""
    if table.kind not in kinds:
        raise ValueError(f"layer {table.name}: unknown kind {table.kind}; known here are {', '.join(kinds)}")
    limits = ({} if table.kind in ("copy_i16", "conv_i16", "depthwise_i16") else {"n": ELEMENTS}) | LIMITS[table.kind]
    if table.ints.get("n", 1) < 1:
        raise ValueError(f"layer {table.name}: n is {table.ints['n']}, it must be at least 1")
    if table.ints.get("sign_b", 1) not in (1, -1):
        raise ValueError(f"layer {table.name}: sign_b is {table.ints['sign_b']}, it must be 1 or -1")
    for name, (low, high) in limits.items():
        array = name in ("mult", "bias", "nodes", "table") or (name == "shift" and "mult" in limits)
        if name not in (table.arrays if array else table.ints):
            raise ValueError(f"layer {table.name}: {name} is missing")
        values = np.asarray(table.arrays[name] if array else table.ints[name])
        if values.size and (values.min() < low or values.max() > high):
            raise ValueError(f"layer {table.name}: {name} is outside {low}..{high}")
    if "in_h" in limits:
        check_window(table)
    for name, array in table.arrays.items() if "nb_neurons" not in limits else ():  # packing.py has those of matrices
        size = array_size(table, name)
        if array.shape != (size,):
            raise ValueError(f"layer {table.name}: {name} has shape {array.shape}, expected ({size},)")
        dtype = np.dtype(np.int32 if table.kind == "pool_i16" else ARRAYS[name])
        if array.dtype != dtype:
            raise ValueError(f"layer {table.name}: {name} is {array.dtype}, expected {dtype}")
    if "nodes" in table.arrays and np.abs(table.arrays["nodes"].astype(np.int64)).max() > 1 << (
        30 - table.ints["step"]
    ):
        raise ValueError(f"layer {table.name}: a node is beyond 2^{30 - table.ints['step']}")
    if table.kind == "clamp_i16" and table.ints["low"] > table.ints["high"]:
        raise ValueError(f"layer {table.name}: low {table.ints['low']} is above high {table.ints['high']}")


def check_window(table) -> None:
    """Refuses a convolution or a pool whose numbers do not go together; rtcore_window_check has the rest."""
    i, where = table.ints, f"layer {table.name}"
    if table.kind == "conv_i16" and (i["nb_inputs"] % i["groups"] or i["nb_neurons"] % i["groups"]):
        raise ValueError(f"{where}: {i['groups']} groups do not divide {i['nb_inputs']} and {i['nb_neurons']} channels")
    if table.kind == "depthwise_i16" and i["nb_neurons"] != i["nb_inputs"] * i["multiplier"]:
        raise ValueError(f"{where}: nb_neurons is {i['nb_neurons']}, not {i['nb_inputs']} times {i['multiplier']}")
    if table.kind != "pool_i16":
        return
    if i["kernel_h"] * i["kernel_w"] > 65535:
        raise ValueError(f"{where}: {i['kernel_h']} x {i['kernel_w']} taps, at most 65535 can be summed")
    if not i["largest"] and "mult" not in table.arrays:
        raise ValueError(f"{where}: mult is missing")
    if not i["largest"] and i["shift"] < 1:
        raise ValueError(f"{where}: shift is 0, of an average it must be at least 1")
    if i["largest"] and table.arrays:
        raise ValueError(f"{where}: {', '.join(table.arrays)} given, a largest value needs no array")
    for axis in "hw" if i["largest"] else "":
        size, kernel, stride, dilation, pad = (i[f"{n}_{axis}"] for n in ("in", "kernel", "stride", "dilation", "pad"))
        for out in range(i[f"out_{axis}"]):
            taps = range(out * stride - pad, out * stride - pad + kernel * dilation, dilation)
            if not any(0 <= tap < size for tap in taps):
                raise ValueError(f"{where}: window {out} of out_{axis} has no tap inside the input")


# ------------------------------------------------------------------------------------------------------ operands --


def copied(table) -> tuple[int, int]:
    """The lowest and the highest element that a copy_i16 reads."""
    ints = table.ints
    spans = [(ints[f"n{k}"] - 1) * ints[f"s{k}"] for k in range(4)]
    return ints["start"] + sum(min(s, 0) for s in spans), ints["start"] + sum(max(s, 0) for s in spans)


def operands(tables, layer) -> tuple[list[int], int]:
    """(elements that one call reads of each input, elements that it writes)."""
    ints, kind = layer.ints, layer.kind
    if kind == "copy_i16":
        return [copied(layer)[1] + 1], ints["n0"] * ints["n1"] * ints["n2"] * ints["n3"]
    if kind == "begin_i16":
        parts = state_parts(begun(tables, layer))
        return [part.size for part in reversed(parts)][: len(layer.inputs)], ints["n"]
    if kind == "cell_i16":  # of whose state this tensor is
        return [tables.tensors[layer.inputs[0]].width], ints["n"]
    if kind == "fill_i16":
        return [], ints["n"]
    if kind == "embedding_i16":
        return [1], ints["n"]
    if kind == "delay_i16":
        return [ints["n"]], ints["n"] * ints["frames"]
    if "in_h" in ints:
        read, written = ints.get("nb_inputs", ints.get("n")), ints.get("nb_neurons", ints.get("n"))
        return [ints["in_h"] * ints["in_w"] * read], ints["out_h"] * ints["out_w"] * written
    written = next(ints[key] for key in ("nb_outputs", "nb_neurons", "n") if key in ints)
    if "stride_b" in ints:
        return [written if ints[f"stride_{which}"] else 1 for which in "ab"], written
    return [ints.get("nb_inputs", written)], written


def begun(tables, layer):
    """The recurrent layer whose state a begin_i16 sets. ValueError for an output that is none's state, or for a layer
    that does not come later."""
    tensor = tables.tensors.get(layer.output)
    after = tables.layers[tables.layers.index(layer) + 1 :]
    owner = next((x for x in after if tensor and tensor.place == "state" and x.name == tensor.owner), None)
    if owner is None or not state_parts(owner):
        raise ValueError(f"layer {layer.name}: {layer.output} is not the state of a recurrent layer later in the list")
    if len(layer.inputs) > len(state_parts(owner)):
        raise ValueError(f"layer {layer.name}: {len(layer.inputs)} inputs, more than {owner.name} has parts of a state")
    return owner


def check_operands(tables, layer) -> None:
    """Refuses a layer whose rows do not fill its tensors exactly: ValueError, naming layer and tensor."""
    ints, tensors = layer.ints, tables.tensors
    for name, (low, high) in ROWS.items():
        if not low <= ints.get(name, low) <= high:
            raise ValueError(f"layer {layer.name}: {name} is {ints[name]}, outside {low}..{high}")
    missing = [name for name in (*layer.inputs, layer.output) if name not in tensors]
    if missing:
        raise ValueError(f"layer {layer.name}: there is no tensor {missing[0]}")
    repeats = ints.get("rows", 1) - 1
    read, written = operands(tables, layer)
    if len(layer.inputs) != len(read):
        raise ValueError(f"layer {layer.name}: {len(layer.inputs)} inputs do not fit kind {layer.kind}")
    if layer.kind == "begin_i16" and repeats:
        raise ValueError(f"layer {layer.name}: a state begins once, rows is {ints['rows']}")
    width = tensors[layer.output].width
    if width != repeats * ints.get("pitch_y", 0) + written:
        rows = f" in each of {repeats + 1} rows {ints.get('pitch_y', 0)} apart" if repeats else ""
        raise ValueError(f"layer {layer.name}: {written} outputs{rows}, tensor {layer.output} holds {width}")
    for name, pitch, n in zip(layer.inputs, ("pitch_a", "pitch_b"), read, strict=False):
        width = tensors[name].width - repeats * ints.get(pitch, 0)
        fits = copied(layer)[0] >= 0 and width >= n if layer.kind == "copy_i16" else width == n
        if not fits:
            rows = f" in each of {repeats + 1} rows {ints.get(pitch, 0)} apart" if repeats else ""
            raise ValueError(f"layer {layer.name}: expects an input of {n}{rows}, tensor {name} does not fit")
