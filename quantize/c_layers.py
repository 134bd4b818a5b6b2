"""How each kind of layer is written in C: the members of its struct, the arguments of its call, its macros, its note.

A kind is a line of STRUCTS (if the kernel reads a const struct), of MATRICES (if that holds matrices) and of ARGUMENTS.
Neighbours: `emit_c.py` (the only caller), `templates/` (print what stands here), `c_names.py`, `rtcore.packing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from quantize.c_names import comment, identifiers
from rtcore import streams
from rtcore.packing import (
    Packed,
    PackedStream,
    conv_scratch,
    pack_conv,
    pack_dense,
    pack_depthwise,
    pack_gru,
    pack_lstm,
    pack_rnn,
    take_peepholes,
)
from rtcore.tables import ACTIVATIONS, WINDOW, Layer, StatePart, Tables, state_parts

WIDTH = 120  # columns of a generated table

C_TYPES = {np.dtype(np.int8): "int8_t", np.dtype(np.uint8): "uint8_t", np.dtype(np.int16): "int16_t"} | {
    np.dtype(np.int32): "int32_t",
    np.dtype(np.int64): "int64_t",
}
MATRICES = {  # kind -> the members of its C struct that are matrices, the gates of their rows, and who packs them
    "dense_i16": (("matrix",), (1,), pack_dense),
    "gru_i16": (("input", "recurrent"), (3, 3), pack_gru),
    "lstm_i16": (("input", "recurrent", "projection"), (4, 4, 1), pack_lstm),
    "rnn_i16": (("input", "recurrent"), (1, 1), pack_rnn),
    "conv_i16": (("matrix",), (1,), pack_conv),
    "depthwise_i16": (("",), (1,), pack_depthwise),  # "": its arrays are the struct's own
}
ROWS = 32  # RTCORE_ROWS
GEOMETRY = " ".join(f"window.{name}" for name in WINDOW)
STRUCTS = {  # kind -> the numbers in its C struct, ints of the record by the same names
    "dense_i16": "nb_inputs nb_neurons activation",
    "gru_i16": "nb_inputs nb_neurons activation reset_after gate_shift candidate_shift state_frac gate_slope",
    "lstm_i16": "nb_inputs nb_neurons nb_outputs coupled gate_shift cell_frac state_frac gate_slope",
    "rnn_i16": "nb_inputs nb_neurons activation shift state_frac",
    "conv_i16": f"{GEOMETRY} nb_inputs nb_neurons groups activation",
    "depthwise_i16": f"{GEOMETRY} nb_inputs nb_neurons multiplier activation",
    "pool_i16": f"{GEOMETRY} n largest count_pad shift",
}
# The arguments of a kernel's call: rtcore_<kernel>_step for a kind with a struct, rtcore_<kernel> for another. w is the
# struct, a and b are inputs, y is the output, h, c and view are members of the layer's state; an array's name is a
# member of the layer in NAME_weights; other words are ints of the record.
ARGUMENTS = {
    "dense_i16": "w y a rows",
    "gru_i16": "w h view a rows",
    "gru_i16_before": "w h view a rows scratch",
    "lstm_i16": "w c view a rows scratch",
    "rnn_i16": "w view a rows scratch",
    "conv_i16": "w y a rows scratch",
    "depthwise_i16": "w y a",
    "pool_i16": "w y a",
    "activation_i16": "y a n activation shift",
    "add_i16": "y a stride_a b stride_b n shift_a shift_b sign_b shift",
    "mul_i16": "y a stride_a b stride_b n shift",
    "affine_i16": "y a mult bias shift n",
    "rescale_i16": "y a n shift",
    "table_i16": "y a n nodes step shift",
    "clamp_i16": "y a n low high",
    "prelu_i16": "y a mult shift stride n shift_positive",
    "minmax_i16": "y a stride_a b stride_b n shift_a shift_b largest shift",
    "sqrt_i16": "y a n shift",
    "softmax_i16": "y a n frac",
    "log_softmax_i16": "y a n frac shift",
    "layernorm_i16": "y a mult bias shift n epsilon",
    "copy_i16": "y a start n0 n1 n2 n3 s0 s1 s2 s3",
    "fill_i16": "y n value",
    "embedding_i16": "y a table n entries",
    "delay_i16": "view a n frames",
}
FORMS = {name: getattr(streams, name) for name in ("W16_A64", "W8_A32", "BOUNDED", "ONE_LESS")}
KINDS = (ARGUMENTS.keys() - {"gru_i16_before"}) | {"cell_i16", "begin_i16"}  # these two work on another layer's state
SHAPE = {"nb_inputs": "INPUTS", "nb_neurons": "NEURONS", "nb_outputs": "OUTPUTS", "n": "NEURONS"}  # and their macros


@dataclass(frozen=True)
class Array:
    """One table: `static const type id[size] = {...}`."""

    id: str
    type: str
    size: int
    nbytes: int
    note: str
    lines: list[str]


@dataclass(frozen=True)
class Part:
    """A part of a recurrent layer's state in C: StatePart, and the macros of its size and of its view's frac."""

    part: StatePart
    size: str
    frac: str

    def pointer(self, member: str, id_: str) -> str:
        """The argument for "wide" or "view" of the layer `id_`."""
        name = getattr(self.part, member)
        return f"st->{id_}.{name}" if name else "NULL"


@dataclass
class Call:
    """One layer as the templates see it. inputs and output are C expressions of what row r reads and writes."""

    kind: str
    name: str
    id: str
    macro: str
    note: str
    ints: dict[str, int]
    inputs: list[str]
    output: str
    scratch: int  # int16 elements that its call needs beside input, output and state
    rows: int  # int32 elements, for rows of its matrices
    matrices: list[tuple[str, Packed, dict[str, str]]] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)  # member of its struct that is no matrix -> array
    arrays: dict[str, Array] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    owner: str = ""  # of a cell_i16 or begin_i16: the id of the layer whose state it reads or sets
    owner_parts: list[Part] = field(default_factory=list)

    @property
    def struct(self) -> bool:
        """Whether its kernel reads a const struct of the layer's own."""
        return self.kind in STRUCTS

    @property
    def shape(self) -> list[tuple[str, str]]:
        """The members of its struct that say what a call reads and writes, and their values in C."""
        shaping = (*SHAPE, "reset_after")  # that of a GRU says which kernel is called
        return [(name, value) for name, value in self.members if name in shaping or name.startswith("window.")]

    @property
    def members(self) -> list[tuple[str, str]]:
        """All numbers of its struct, and their values in C; a number that its record lacks is 0 and left out."""
        names = STRUCTS.get(self.kind, "").split()
        return [(name, self.word(name)) for name in names if name != "gate_slope" or name in self.ints]

    @property
    def macros(self) -> list[tuple[str, int]]:
        """What the header defines of it: (macro, number)."""
        named = STRUCTS.get(self.kind, "n" if self.arrays else "").split()
        found = {f"{self.macro}_{SHAPE[name]}": self.ints[name] for name in named if name in SHAPE}
        for part in self.parts:
            found |= {part.size: part.part.size, part.frac: part.part.frac}
        return list(found.items())

    @property
    def takes_scratch(self) -> bool:
        """Whether its check asks how much scratch there is."""
        return self.kind == "gru_i16" or "scratch" in ARGUMENTS.get(self.kind, "").split()

    @property
    def kernel(self) -> str:
        """Its function, a kind's, or of a kind of which there are two the form's."""
        before = self.kind == "gru_i16" and not self.ints["reset_after"]
        return f"{self.kind}_before" if before else self.kind

    def word(self, name: str) -> str:
        """An argument of its call, or a member of its struct, in C."""
        if name in ("a", "b"):
            return self.inputs["ab".index(name)]
        if name in ("h", "c", "view"):
            return f"st->{self.id}.{name}"
        if name in self.arrays and not self.struct:
            return f"w->{self.id}.{name}"
        if name == "activation":
            names = {number: activation for activation, number in ACTIVATIONS.items()}
            return f"RTCORE_ACTIVATION_{names[self.ints['activation']].upper()}"
        if name in SHAPE and (self.struct or self.arrays):
            return f"{self.macro}_{SHAPE[name]}"
        fixed = {"w": f"&w->{self.id}", "y": self.output, "rows": "st->rows"}
        fixed["scratch"] = "st->scratch" if self.scratch else "NULL"
        return fixed[name] if name in fixed else str(self.ints[name.removeprefix("window.")])

    @property
    def statements(self) -> list[str]:
        """What one row calls."""
        if self.kind == "cell_i16":
            return [f"rtcore_state_i16_view({self.output}, st->{self.owner}.c, {self.ints['n']});"]
        if self.kind == "begin_i16":  # the part that the layer gives out comes last, as its view is the output
            given = [*self.inputs, *["NULL"] * 2]
            calls = []
            for part, values in reversed(list(zip(reversed(self.owner_parts), given, strict=False))):
                pointers = f"{part.pointer('wide', self.owner)}, {part.pointer('view', self.owner)}"
                calls.append(f"rtcore_state_i16_set({pointers}, {values}, {part.part.size});")
            return calls
        words = ", ".join(self.word(name) for name in ARGUMENTS[self.kernel].split())
        calls = [f"rtcore_{self.kernel}{'_step' if self.struct else ''}({words});"]
        if self.parts and self.output != self.word("view"):
            calls.append(f"rtcore_rescale_i16({self.output}, {self.word('view')}, {self.parts[-1].part.size}, 0);")
        return calls

    @property
    def loop(self) -> str:
        """The head of the loop over its rows; "" for a single one."""
        rows = self.ints.get("rows", 1)
        if rows == 1:
            return ""
        if self.ints.get("reverse"):
            return f"for (int r = {rows - 1}; r >= 0; r--) {{"
        return f"for (int r = 0; r < {rows}; r++) {{"


def call_of(
    tables: Tables,
    layer: Layer,
    core: str,
    ids: dict[str, str],
    macro: str,
    places: dict[str, str],
    arrays: list[Array],
) -> Call:
    """The view of one layer; its tables go to `arrays`, packed for a core. places: tensor -> as NAME_step spells it."""
    id_ = ids[layer.name]
    call = Call(
        kind=layer.kind,
        name=comment(layer.name),
        id=id_,
        macro=f"{macro}_{id_.upper()}",
        note=note_of(tables, layer),
        ints=layer.ints,
        inputs=[row(layer, f"pitch_{which}", places[x]) for which, x in zip("ab", layer.inputs, strict=False)],
        output=row(layer, "pitch_y", places[layer.output]),
        scratch=scratch_of(layer),
        rows=rows_of(layer),
        parts=parts_of(layer, id_, macro),
    )
    if layer.kind in MATRICES:
        members, gates, pack = MATRICES[layer.kind]
        if layer.ints.get("coupled"):
            gates = (3, 3, 1)
        for which, matrix, g in zip(members, pack(layer, core), gates, strict=False):  # an LSTM may lack its last
            members = _matrix(arrays, call, which, matrix, g)
            if which:
                call.matrices.append((which, matrix, members))
            else:
                call.tables |= members
        if layer.ints.get("peephole"):
            for member, values in zip(("peephole_weights", "peephole_shift"), take_peepholes(layer), strict=True):
                call.tables[member] = _array(arrays, f"{id_}_{member}", values, f"[{values.size}]").id
    elif layer.kind in ("cell_i16", "begin_i16"):
        owner = tables.tensors[layer.output if layer.kind == "begin_i16" else layer.inputs[0]].owner
        call.owner = ids[owner]
        call.owner_parts = parts_of(next(x for x in tables.layers if x.name == owner), call.owner, macro)
    else:
        for member, values in layer.arrays.items():
            call.arrays[member] = _array(arrays, f"{id_}_{member}", values, f"[{values.size}]")
        call.tables = {member: array.id for member, array in call.arrays.items()}
    return call


def scratch_of(layer: Layer) -> int:
    """int16 elements that the call of a layer needs beside input, output and state."""
    if layer.kind == "conv_i16":
        return conv_scratch(layer)
    before = layer.kind == "gru_i16" and not layer.ints["reset_after"]
    return layer.ints["nb_neurons"] if before or layer.kind in ("lstm_i16", "rnn_i16") else 0


def rows_of(layer: Layer) -> int:
    """int32 elements that a layer needs for rows of its matrices: of a recurrent one, the rows of four units."""
    if layer.kind in ("dense_i16", "conv_i16"):
        neurons = layer.ints["nb_neurons"] // layer.ints.get("groups", 1)
        return min(ROWS, (neurons + 3) // 4 * 4)
    if layer.kind == "gru_i16" and not layer.ints["reset_after"]:
        return 16  # two gates of both matrices, as the third is done before
    if layer.kind in ("gru_i16", "lstm_i16", "rnn_i16"):
        _, (of_input, of_state, *_), _ = MATRICES[layer.kind]
        return 4 * (of_input + of_state)
    return 0


def row(layer: Layer, pitch: str, base: str) -> str:
    """Where row r of a tensor begins."""
    step = layer.ints.get(pitch, 0) if layer.ints.get("rows", 1) > 1 else 0
    return f"{base} + r * {step}" if step else base


def parts_of(layer: Layer, id_: str, macro: str) -> list[Part]:
    """The parts of a recurrent layer's state."""
    parts, prefix = [], f"{macro}_{id_.upper()}"
    for part in state_parts(layer):
        cell = part.row != layer.name
        given_out = {"lstm_i16": "OUTPUTS", "delay_i16": "SIZE"}.get(layer.kind, "NEURONS")
        size = "NEURONS" if cell else given_out
        parts.append(Part(part, f"{prefix}_{size}", f"{prefix}_{'CELL' if cell else ''}FRAC"))
    return parts


def note_of(tables: Tables, layer: Layer) -> str:
    """One line on a layer: shapes, formats and rows, with the tensors' names where the model says them."""
    rows = layer.ints.get("rows", 1)
    repeated = f"; {rows} rows{', last to first' if layer.ints.get('reverse') else ''}" if rows > 1 else ""
    return f"{comment(layer.name)}: {_what(tables, layer)}{repeated}"


def _what(tables: Tables, layer: Layer) -> str:
    """What a layer does."""
    y = tables.tensors[layer.output]
    ints = layer.ints
    if not layer.inputs:
        return f"{comment(y.owner)} begins at zero" if layer.kind == "begin_i16" else f"fill [{ints['n']}], Q({y.frac})"
    x = tables.tensors[layer.inputs[0]]
    what = {number: name for name, number in ACTIVATIONS.items()}.get(ints.get("activation", 0), "")
    formats = f"Q({x.frac}) -> Q({y.frac})"
    hard = ", hard gates" if ints.get("gate_slope") else ""
    if layer.kind == "dense_i16":
        return f"dense {ints['nb_inputs']} -> {ints['nb_neurons']} {what}, {formats}"
    if layer.kind == "gru_i16":
        form = ("reset after" if ints["reset_after"] else "reset before") + hard
        return f"gru {ints['nb_inputs']} -> {ints['nb_neurons']} {what}, {form}, {formats}"
    if layer.kind == "lstm_i16":
        form = ", coupled" * ints["coupled"] + ", peepholes" * ints["peephole"] + hard
        form += f", projected to {ints['nb_outputs']}" if ints["projected"] else ""
        return f"lstm {ints['nb_inputs']} -> {ints['nb_neurons']}{form}, {formats}"
    if layer.kind == "rnn_i16":
        return f"rnn {ints['nb_inputs']} -> {ints['nb_neurons']} {what}, {formats}"
    if layer.kind == "cell_i16":
        return f"the cell of {comment(x.owner)} [{ints['n']}], Q({y.frac})"
    if layer.kind == "begin_i16":
        return f"{comment(y.owner)} begins at {', '.join(comment(name) for name in layer.inputs)}"
    if "in_h" in ints:
        window = f"{ints['kernel_h']}x{ints['kernel_w']} [{ints['in_h']}][{ints['in_w']}]"
        made = f"[{ints['out_h']}][{ints['out_w']}]"
        if layer.kind == "pool_i16":
            return f"{'largest' if ints['largest'] else 'average'} {window}[{ints['n']}] -> {made}, {formats}"
        name = layer.kind.removesuffix("_i16")
        return f"{name} {window}[{ints['nb_inputs']}] -> {made}[{ints['nb_neurons']}] {what}, {formats}"
    if layer.kind == "copy_i16":
        return f"copy [{'] ['.join(str(ints[f'n{k}']) for k in range(4))}], Q({y.frac})"
    if layer.kind == "embedding_i16":
        return f"embedding of {ints['entries']} [{ints['n']}], Q({y.frac})"
    if layer.kind == "delay_i16":
        return f"the last {ints['frames']} of [{ints['n']}], Q({y.frac})"
    if len(layer.inputs) == 2:
        b = tables.tensors[layer.inputs[1]]
        sign = "*" if layer.kind == "mul_i16" else "+" if ints.get("sign_b", 1) > 0 else "-"
        if layer.kind == "minmax_i16":
            sign = "max" if ints["largest"] else "min"
        return f"[{x.width}] Q({x.frac}) {sign} [{b.width}] Q({b.frac}) -> Q({y.frac})"
    kind = {"activation_i16": what, "rescale_i16": "rescale" if ints.get("shift") else "copy"}
    return f"{kind.get(layer.kind, layer.kind.removesuffix('_i16'))} [{ints['n']}], {formats}"


def _matrix(arrays: list[Array], call: Call, which: str, m: Packed, gates: int) -> dict[str, str]:
    """The tables of one matrix: member of rtcore_matrix_i16 -> array."""
    prefix = call.id if which in ("", "matrix") else f"{call.id}_{which}"
    rows = f"{gates} gates x {m.nb_rows // gates}" if gates > 1 else f"{m.nb_rows}"
    if isinstance(m, PackedStream):
        form = " + ".join(f"RTCORE_STREAM_{name}" for name, bit in FORMS.items() if m.form & bit)
        stream = _array(arrays, f"{prefix}_stream", m.stream, f"[{rows} rows][{m.nb_inputs} columns], {form}")
        return {"stream": stream.id, "form": form, "stride": str(m.stride)}
    columns = m.nb_inputs + m.nb_inputs % 2
    bits = 8 * m.weights.itemsize
    shifts = f"{m.shift.min()}..{m.shift.max()}"
    lies = f"[{columns // 2}][8]" if which else f"[{m.nb_inputs}][4]"
    packed = f"i{bits} [{rows} rows][{m.nb_inputs} columns], packed [{m.nb_rows // 4}]{lies}"
    members = {f"w{bits}": _array(arrays, f"{prefix}_weights", m.weights, packed)}
    wide = 8 * m.bias.itemsize
    folded = ", rounding half included" if m.mult is None else ""
    members[f"bias{wide}"] = _array(arrays, f"{prefix}_bias", m.bias, f"[{rows}], accumulators of {wide} bits{folded}")
    if m.mult is not None:
        members["mult"] = _array(arrays, f"{prefix}_mult", m.mult, f"[{rows}], (sum * mult) >> shift")
    members["shift"] = _array(arrays, f"{prefix}_shift", m.shift, f"[{rows}], sum >> shift, {shifts}")
    return {member: array.id for member, array in members.items()}


def _array(arrays: list[Array], id_: str, values: np.ndarray, note: str) -> Array:
    """The table of these values under a free identifier; the one that is there where a layer that shares its weights
    has brought it."""
    type_, lines = C_TYPES[values.dtype], wrapped(values)
    for array in arrays:
        if (array.type, array.size, array.lines) == (type_, values.size, lines):
            return array
    (free,) = identifiers([id_], reserved={array.id for array in arrays}).values()
    arrays.append(Array(free, type_, values.size, values.nbytes, note, lines))
    return arrays[-1]


def wrapped(values: np.ndarray) -> list[str]:
    """The elements of an array, comma after each, in lines of at most WIDTH columns with four of indentation."""
    lines, line = [], "   "
    for value in values.reshape(-1).tolist():
        item = f" {value},"
        if len(line) + len(item) > WIDTH:
            lines.append(line)
            line = "   "
        line += item
    return [*lines, line]
