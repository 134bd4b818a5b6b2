"""Tables to C: the header with the API, the weight header, the net's step, golden vectors, kernels and build files.

Data and calls are generated, algorithms are copied: what is printed here are the tables, their shapes and one typed
call per layer; the kernels are rtcore/csrc byte for byte. The same tables give the same bytes, and nothing is written
before everything has been rendered.

Neighbours: `templates/` (the target files, legible as such), `c_names.py` (identifiers, refused names),
`rtcore.packing` (the layout of the weights in memory), `firmware_sim/toolchain.py` (compiles what `render` gives).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np

import rtcore
from quantize.c_names import checked_name, comment, identifiers
from quantize.errors import QuantizeError
from rtcore import _build, streams
from rtcore.packing import Packed, PackedStream, pack_dense, pack_gru, pack_lstm, pack_rnn
from rtcore.tables import ACTIVATIONS, SPEC_VERSION, Layer, StatePart, Tables, Tensor, state_parts, state_size

TEMPLATES = Path(__file__).resolve().parent / "templates"
WIDTH = 120  # columns of a generated table

# Worst stack of a call of the generated API, below the caller's frame, with the portable kernels at -Os to -O3.
# tests/firmware/test_emulator.py paints the stack of every emulated core (clang), test_stack.py adds up gcc's frames.
STACK_BYTES = 800

C_TYPES = {np.dtype(np.int8): "int8_t", np.dtype(np.uint8): "uint8_t", np.dtype(np.int16): "int16_t"} | {
    np.dtype(np.int32): "int32_t",
    np.dtype(np.int64): "int64_t",
}
PACKERS = {  # kind -> the members of its C struct that are matrices, the gates of their rows, and who packs them
    "dense_i16": (("matrix",), (1,), pack_dense),
    "gru_i16": (("input", "recurrent"), (3, 3), pack_gru),
    "lstm_i16": (("input", "recurrent", "projection"), (4, 4, 1), pack_lstm),
    "rnn_i16": (("input", "recurrent"), (1, 1), pack_rnn),
}
NUMBERS = {  # kind -> the other numbers of its C struct, after nb_inputs and nb_neurons
    "dense_i16": (),
    "gru_i16": ("reset_after", "gate_shift", "candidate_shift", "state_frac"),
    "lstm_i16": ("gate_shift", "cell_frac", "state_frac"),
    "rnn_i16": ("shift", "state_frac"),
}

# Kinds without a matrix: the arguments of rtcore_<kind> after its output. a and b are inputs, an array's name is a
# member of the layer in NAME_weights, other words are ints of the record.
ARGUMENTS = {
    "activation_i16": "a n activation shift",
    "add_i16": "a stride_a b stride_b n shift_a shift_b sign_b shift",
    "mul_i16": "a stride_a b stride_b n shift",
    "affine_i16": "a mult bias shift n",
    "rescale_i16": "a n shift",
    "table_i16": "a n nodes step shift",
    "clamp_i16": "a n low high",
    "prelu_i16": "a mult shift stride n shift_positive",
    "minmax_i16": "a stride_a b stride_b n shift_a shift_b largest shift",
    "sqrt_i16": "a n shift",
    "softmax_i16": "a n frac",
    "log_softmax_i16": "a n frac shift",
    "layernorm_i16": "a mult bias shift n epsilon",
}
FORMS = {"W16_A64": streams.W16_A64, "W8_A32": streams.W8_A32, "BOUNDED": streams.BOUNDED}
KINDS = PACKERS.keys() | ARGUMENTS.keys() | {"cell_i16"}


@dataclass(frozen=True)
class Golden:
    """Vectors that NAME_selftest() replays from the reset state: one stream of T steps.

    inputs: int16 [T, F] per input; outputs: int16 [T, F] per output; states: the int32 vector of each recurrent layer
    after the last step, in execution order; initial: int16 views per state input, or None for the reset state.
    """

    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    states: list[np.ndarray]
    initial: list[np.ndarray] | None = None


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
class Port:
    """A buffer of the caller: an input, an output, or the views of a group of states."""

    id: str
    macro: str
    size: int
    frac: int
    note: str


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
    """One layer as the templates see it."""

    kind: str
    name: str
    id: str
    macro: str
    note: str
    ints: dict[str, int]
    inputs: list[str]
    output: str
    frac: int
    matrices: list[tuple[str, Packed, dict[str, str]]] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    owner: str = ""  # of a cell_i16: its LSTM's id

    @property
    def numbers(self) -> dict[str, int]:
        """Members of the layer's struct beside its matrices, shape and activation."""
        return {name: self.ints[name] for name in NUMBERS[self.kind]}

    @property
    def scratch(self) -> int:
        """int16 elements that its call needs beside input, output and state."""
        before = self.kind == "gru_i16" and not self.ints["reset_after"]
        return self.ints["nb_neurons"] if before or self.kind in ("lstm_i16", "rnn_i16") else 0

    @property
    def activation(self) -> str:
        """The C macro of the layer's activation."""
        names = {number: name for name, number in ACTIVATIONS.items()}
        return f"RTCORE_ACTIVATION_{names[self.ints['activation']].upper()}"

    @property
    def arguments(self) -> str:
        """What the kernel of a layer without a matrix is called with."""
        words = dict(zip("ab", self.inputs, strict=False)) | {k: str(v) for k, v in self.ints.items()}
        words |= {name: f"w->{self.id}.{name}" for name in self.arrays}
        if self.arrays:
            words["n"] = f"{self.macro}_NEURONS"
        if self.kind == "activation_i16":
            words["activation"] = self.activation
        return ", ".join([self.output, *(words[name] for name in ARGUMENTS[self.kind].split())])


@dataclass(frozen=True)
class Local:
    """How NAME_step spells a tensor: an argument, a state's view, or a pointer that it declares."""

    id: str
    declaration: str
    note: str


def generate(
    tables: Tables,
    out_dir: str | os.PathLike,
    name: str,
    *,
    digest: str = "",
    selftest: Golden | None = None,
    core: str = "portable",
) -> list[Path]:
    """Writes the C of a net into out_dir (made if missing) and returns the paths of its files, sorted.

    name: prefix of the C names and of the files. digest: provenance of the model, printed in every file.
    selftest: golden vectors; without them NAME_selftest() is not written.
    core: whose kernels are copied and whose tables are written: "portable", C for every core, or one of
        rtcore._build.CORES, such as "cortex-m4" (M4, M7, M33 with DSP; gcc or clang).
    All files are written or none; a file whose bytes would not change is left untouched, foreign files are never
    deleted. Raises QuantizeError for a name that C or CMake refuses, for tables of another version or with unknown
    layers, and for golden vectors of another net; NotADirectoryError or IsADirectoryError when something that is not
    ours stands in the way.
    """
    files = render(tables, name, digest=digest, selftest=selftest, core=core)
    out = Path(out_dir)
    _write(out, files)
    return sorted(out / path for path in files)


def render(
    tables: Tables, name: str, *, digest: str = "", selftest: Golden | None = None, core: str = "portable"
) -> dict[str, bytes]:
    """The files that `generate` writes: relative path -> bytes."""
    name = checked_name(name)
    if core not in _build.CORES:
        raise QuantizeError(f"unknown core {core!r}; kernels exist for {', '.join(_build.CORES)}")
    context = _context(tables, name, digest, selftest, core) | {"core": core}
    wanted = {
        "net.h": f"{name}.h",
        "weights.h": f"{name}_weights.h",
        "net.c": f"{name}.c",
        "CMakeLists.txt": "CMakeLists.txt",
    }
    if selftest is not None:
        wanted["selftest.c"] = f"{name}_selftest.c"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["fit"] = fit
    files = {path: environment.get_template(f"{t}.jinja").render(context).encode() for t, path in wanted.items()}
    return files | {f"rtcore/{source}": _build.kernel_path(source, core).read_bytes() for source in kernel_files(core)}


def kernel_files(core: str = "portable") -> list[str]:
    """Kernel sources of an int16 net and the headers that they include, as files of rtcore/csrc, sorted."""
    found: dict[str, None] = {}
    waiting = list(_build.SOURCES_I16)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file] = None
            waiting += re.findall(r'^#include "([^"]+)"', _build.kernel_path(file, core).read_text(), re.MULTILINE)
    return sorted(found)


def layer_ids(tables: Tables) -> dict[str, str]:
    """Layer name -> its C identifier: the member of NAME_weights and, for a recurrent layer, of NAME_state."""
    ports = {"in", "out", "state", "arena", "scratch", "stack", "spec", "weights"}
    numbered = {f"{port}{k}" for port in ("in", "out", "state") for k in range(len(tables.tensors))}
    return identifiers([layer.name for layer in tables.layers], reserved=ports | numbered)


def state_groups(tables: Tables) -> list[tuple[str, tuple[str, ...]]]:
    """The arguments of NAME_get_state: (name, its rows, see StatePart). First the model's state inputs, which are the
    arguments of NAME_set_state, then every row that no state input sets."""
    groups = [(state.name, state.layers) for state in tables.state_inputs]
    covered = {row for _, rows in groups for row in rows}
    return groups + [(row, (row,)) for row in tables.state_rows if row not in covered]


# ------------------------------------------------------------------------------------------------------- context --


def _context(tables: Tables, name: str, digest: str, selftest: Golden | None, core: str) -> dict:
    """Everything that the templates print."""
    if tables.spec != SPEC_VERSION:
        raise QuantizeError(f"tables of spec version {tables.spec}; this generator writes version {SPEC_VERSION}")
    unknown = [layer for layer in tables.layers if layer.kind not in KINDS]
    if unknown:
        raise QuantizeError(f"layer {unknown[0].name}: no C is known for kind {unknown[0].kind}")
    macro = name.upper()
    ids = layer_ids(tables)
    inputs = [_port(tables, x, "in", k, len(tables.inputs), macro) for k, x in enumerate(tables.inputs)]
    outputs = [_port(tables, y, "out", k, len(tables.outputs), macro) for k, y in enumerate(tables.outputs)]
    locals_ = _locals(tables, ids, inputs, outputs)
    touched = {_resolve(tables, tensor)[0].name for tensor in locals_}
    silent = [port.id for port, x in zip(inputs, tables.inputs, strict=True) if x not in touched]
    arrays: list[Array] = []
    calls = [_call(tables, layer, core, ids[layer.name], macro, locals_, arrays) for layer in tables.layers]
    states = [call for call in calls if call.parts]
    groups = _groups(tables, macro, {part.part.row: (call, part) for call in states for part in call.parts})
    return {
        "name": name,
        "macro": macro,
        "version": rtcore.__version__,
        "spec": SPEC_VERSION,
        "digest": comment(digest) or "not given",
        "inputs": inputs,
        "outputs": outputs,
        "calls": calls,
        "tabled": [call for call in calls if call.matrices or call.arrays],
        "checked": any(call.matrices or call.kind == "table_i16" for call in calls),
        "states": states,
        "wide": any(part.part.wide for call in states for part in call.parts),
        "groups": groups,
        "settable": groups[: len(tables.state_inputs)],
        "locals": [local for local in locals_.values() if local.declaration],
        "silent": silent,
        "arrays": arrays,
        "table_bytes": sum(array.nbytes for array in arrays),
        "arena": tables.arena,
        "scratch": max((call.scratch for call in states), default=0),
        "max_neurons": tables.max_neurons,
        "stack": STACK_BYTES,
        "kernels": [file for file in kernel_files(core) if file.endswith(".c")],
        "selftest": _selftest(tables, selftest) if selftest is not None else None,
    }


def _port(tables: Tables, tensor: str, what: str, index: int, count: int, macro: str) -> Port:
    """Input or output number `index` of `count`; a single one has no number."""
    t = tables.tensors[tensor]
    id_ = what if count == 1 else f"{what}{index}"
    return Port(id_, f"{macro}_{id_.upper()}", t.width, t.frac, f"{comment(tensor)}: [{t.width}], Q({t.frac})")


def _groups(tables: Tables, macro: str, rows: dict[str, tuple[Call, Part]]) -> list[dict]:
    """Per argument of get_state: its Port and, per row, (call, part, offset as C)."""
    groups = []
    named = state_groups(tables)
    for k, (group, members_) in enumerate(named):
        id_ = "state" if len(named) == 1 else f"state{k}"
        parts = [rows[row][1].part for row in members_]
        views = [f"{comment(part.row)} [{part.size}] Q({part.frac})" for part in parts]
        members, before = [], []
        for row in members_:
            members.append((*rows[row], "".join(f" + {b}" for b in before)))
            before.append(rows[row][1].size)
        note = f"{comment(group)}: {', '.join(views)}" if group not in members_ else views[0]
        port = Port(id_, f"{macro}_{id_.upper()}", sum(part.size for part in parts), 0, note)
        groups.append({"port": port, "members": members, "size": " + ".join(before)})
    return groups


def _locals(tables: Tables, ids: dict[str, str], inputs: list[Port], outputs: list[Port]) -> dict[str, Local]:
    """Tensor -> how NAME_step spells it, for every tensor that a layer reads or writes."""
    places: dict[str, Local] = {}
    used = {name for layer in tables.layers for name in (*layer.inputs, layer.output)}
    reserved = {"st", "w", *(port.id for port in [*inputs, *outputs])}
    names = identifiers([name for name in tables.tensors if name in used], reserved=reserved)
    for name in names:
        root, offset = _resolve(tables, name)
        if root.place == "arena":
            base, offset = "st->arena", root.offset + offset
        elif root.place == "state":
            base = f"st->{ids[root.owner]}.view"
        else:
            base = (inputs if root.place == "input" else outputs)[root.index].id
        if root.name == name and root.place != "arena":
            places[name] = Local(base, "", "")
            continue
        tensor = tables.tensors[name]
        const = "const " if root.place == "input" else ""
        pointer = f"{const}int16_t *const {names[name]} = {base} + {offset};"
        places[name] = Local(names[name], pointer, f"[{tensor.width}], Q({tensor.frac})")
    return places


def _resolve(tables: Tables, name: str) -> tuple[Tensor, int]:
    """The tensor that owns the memory of `name`, and the offset in it; aliases nest."""
    tensor, offset = tables.tensors[name], 0
    while tensor.place == "alias":
        offset += tensor.offset
        tensor = tables.tensors[tensor.owner]
    return tensor, offset


def _call(
    tables: Tables, layer: Layer, core: str, id_: str, macro: str, places: dict[str, Local], arrays: list[Array]
) -> Call:
    """The view of one layer; its tables go to `arrays`."""
    call = Call(
        kind=layer.kind,
        name=comment(layer.name),
        id=id_,
        macro=f"{macro}_{id_.upper()}",
        note=_note(tables, layer),
        ints=layer.ints,
        inputs=[places[name].id for name in layer.inputs],
        output=places[layer.output].id,
        frac=tables.tensors[layer.output].frac,
    )
    for part in state_parts(layer):
        cell = part.row != layer.name
        size = "OUTPUTS" if layer.kind == "lstm_i16" and not cell else "NEURONS"
        call.parts.append(Part(part, f"{call.macro}_{size}", f"{call.macro}_{'CELL' if cell else ''}FRAC"))
    if layer.kind in PACKERS:
        members, gates, pack = PACKERS[layer.kind]
        for which, matrix, g in zip(members, pack(layer, core), gates, strict=False):  # an LSTM may lack its last
            call.matrices.append(_matrix(arrays, call, which, matrix, g))
    elif layer.kind == "cell_i16":
        call.owner = layer_ids(tables)[tables.tensors[layer.inputs[0]].owner]
    else:
        for member, values in layer.arrays.items():
            _array(arrays, f"{id_}_{member}", values, f"[{values.size}]")
            call.arrays[member] = arrays[-1]
    return call


def _note(tables: Tables, layer: Layer) -> str:
    """One line on a layer: shapes and formats, with the tensors' names where the model says them."""
    x = tables.tensors[layer.inputs[0]]
    y = tables.tensors[layer.output]
    ints = layer.ints
    what = {number: name for name, number in ACTIVATIONS.items()}.get(ints.get("activation", 0), "")
    formats = f"Q({x.frac}) -> Q({y.frac})"
    name = comment(layer.name)
    if layer.kind == "dense_i16":
        return f"{name}: dense {ints['nb_inputs']} -> {ints['nb_neurons']} {what}, {formats}"
    if layer.kind == "gru_i16":
        form = "reset after" if ints["reset_after"] else "reset before"
        return f"{name}: gru {ints['nb_inputs']} -> {ints['nb_neurons']} {what}, {form}, {formats}"
    if layer.kind == "lstm_i16":
        form = f", projected to {ints['nb_outputs']}" if ints["projected"] else ""
        return f"{name}: lstm {ints['nb_inputs']} -> {ints['nb_neurons']}{form}, {formats}"
    if layer.kind == "rnn_i16":
        return f"{name}: rnn {ints['nb_inputs']} -> {ints['nb_neurons']} {what}, {formats}"
    if layer.kind == "cell_i16":
        return f"{name}: the cell of {comment(tables.tensors[layer.inputs[0]].owner)} [{ints['n']}], Q({y.frac})"
    if len(layer.inputs) == 2:
        b = tables.tensors[layer.inputs[1]]
        sign = "*" if layer.kind == "mul_i16" else "+" if ints.get("sign_b", 1) > 0 else "-"
        if layer.kind == "minmax_i16":
            sign = "max" if ints["largest"] else "min"
        return f"{name}: [{x.width}] Q({x.frac}) {sign} [{b.width}] Q({b.frac}) -> Q({y.frac})"
    kind = {"activation_i16": what, "rescale_i16": "rescale" if ints.get("shift") else "copy"}
    return f"{name}: {kind.get(layer.kind, layer.kind.removesuffix('_i16'))} [{ints['n']}], {formats}"


def _matrix(arrays: list[Array], call: Call, which: str, m: Packed, gates: int) -> tuple:
    """The tables of one matrix: (member of the layer's struct, matrix, member of rtcore_matrix_i16 -> array)."""
    prefix = call.id if which == "matrix" else f"{call.id}_{which}"
    rows = f"{gates} gates x {m.nb_rows // gates}" if gates > 1 else f"{m.nb_rows}"
    if isinstance(m, PackedStream):
        form = " + ".join(f"RTCORE_STREAM_{name}" for name, bit in FORMS.items() if m.form & bit)
        stream = _array(arrays, f"{prefix}_stream", m.stream, f"[{rows} rows][{m.nb_inputs} columns], {form}")
        return which, m, {"stream": stream, "form": form, "stride": str(m.stride)}
    columns = m.nb_inputs + m.nb_inputs % 2
    bits = 8 * m.weights.itemsize
    shifts = f"{m.shift.min()}..{m.shift.max()}"
    packed = f"i{bits} [{rows} rows][{m.nb_inputs} columns], packed [{m.nb_rows // 4}][{columns // 2}][8]"
    members = {f"w{bits}": _array(arrays, f"{prefix}_weights", m.weights, packed)}
    wide = 8 * m.bias.itemsize
    folded = ", rounding half included" if m.mult is None else ""
    members[f"bias{wide}"] = _array(arrays, f"{prefix}_bias", m.bias, f"[{rows}], accumulators of {wide} bits{folded}")
    if m.mult is not None:
        members["mult"] = _array(arrays, f"{prefix}_mult", m.mult, f"[{rows}], (sum * mult) >> shift")
    members["shift"] = _array(arrays, f"{prefix}_shift", m.shift, f"[{rows}], sum >> shift, {shifts}")
    return which, m, members


def _array(arrays: list[Array], id_: str, values: np.ndarray, note: str) -> str:
    """Registers a table under a free identifier, which is returned."""
    taken = {array.id for array in arrays}
    (free,) = identifiers([id_], reserved=taken).values()
    arrays.append(Array(free, C_TYPES[values.dtype], values.size, values.nbytes, note, wrapped(values)))
    return free


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


def fit(code: str) -> str:
    """A template filter: lines of C longer than WIDTH break after a comma, aligned with the opening parenthesis."""
    lines = []
    for line in code.splitlines():
        margin = " " * (line.find("(") + 1)
        while len(line) > WIDTH and line.rfind(", ", len(margin), WIDTH) > 0:
            cut = line.rfind(", ", len(margin), WIDTH) + 1
            lines.append(line[:cut])
            line = margin + line[cut + 1 :]
        lines.append(line)
    return "\n".join(lines) + "\n"


def _selftest(tables: Tables, golden: Golden) -> dict:
    """Golden vectors checked against the tables: number of steps and the values as C lines."""
    wanted = [
        ("inputs", golden.inputs, [tables.tensors[x].width for x in tables.inputs], np.int16, True),
        ("outputs", golden.outputs, [tables.tensors[y].width for y in tables.outputs], np.int16, True),
        ("states", golden.states, [state_size(layer) for layer in tables.states], np.int32, False),
    ]
    if golden.initial is not None:
        rows = tables.state_rows
        sizes = [sum(rows[row][1].size for row in state.layers) for state in tables.state_inputs]
        wanted.append(("initial", golden.initial, sizes, np.int16, False))
    steps = golden.inputs[0].shape[0] if golden.inputs else 0
    if steps < 1:
        raise QuantizeError("golden vectors: at least one step is needed")
    lines: dict = {"steps": steps, "initial": None}
    for what, arrays, widths, dtype, stepped in wanted:
        shapes = [(steps, width) if stepped else (width,) for width in widths]
        if [a.shape for a in arrays] != shapes or any(a.dtype != dtype for a in arrays):
            found = [f"{a.dtype}{list(a.shape)}" for a in arrays]
            expected = [f"{np.dtype(dtype)}{list(s)}" for s in shapes]
            raise QuantizeError(f"golden vectors: {what} are {found}, these tables need {expected}")
        lines[what] = [wrapped(a) for a in arrays]
    lines["states"] = [
        {part.row: wrapped(vector[part.start : part.start + part.size]) for part in state_parts(layer)}
        for layer, vector in zip(tables.states, golden.states, strict=True)
    ]
    return lines


# ------------------------------------------------------------------------------------------------------- writing --


def _write(out: Path, files: dict[str, bytes]) -> None:
    """Writes files below out, all or none: they are complete in a directory beside (or, if it exists, inside) out
    before the first one moves to its place, and move back when a later one cannot."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; generate needs a directory to write into")
    for target in (out / path for path in files):
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a directory; generate writes a file of that name")
        if target.parent.exists() and not target.parent.is_dir():
            raise NotADirectoryError(f"{target.parent} is a file; generate needs a directory of that name")
    (out if out.exists() else out.parent).mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".generate-", dir=out if out.exists() else out.parent))
    try:
        if not out.exists():
            _lay_down(staging / "new", files)
            os.replace(staging / "new", out)
        else:
            old = {path: (out / path).read_bytes() for path in files if (out / path).is_file()}
            changed = {path: data for path, data in files.items() if old.get(path) != data}
            _lay_down(staging / "new", changed)
            _lay_down(staging / "old", {path: old[path] for path in changed if path in old})
            _exchange(staging, out, list(changed))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _lay_down(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files below a new folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _exchange(staging: Path, out: Path, paths: list[str]) -> None:
    """Moves the files of staging/new to out; when one cannot move, those of staging/old go back."""
    made = [folder for folder in sorted({(out / path).parent for path in paths}) if not folder.exists()]
    moved: list[str] = []
    try:
        for folder in made:
            folder.mkdir()
        for path in paths:
            os.replace(staging / "new" / path, out / path)
            moved.append(path)
    except BaseException:
        for path in moved:
            if (staging / "old" / path).exists():
                os.replace(staging / "old" / path, out / path)
            else:
                (out / path).unlink()
        for folder in reversed(made):
            if folder.exists():
                folder.rmdir()
        raise
