"""Tables to C: the header with the API, the weight header, the net's step, golden vectors, kernels and build files.

Data and calls are generated, algorithms are copied: what is printed here are the tables, their shapes and one typed
call per layer; the kernels are rtcore/csrc byte for byte. The same tables give the same bytes, and nothing is written
before everything has been rendered.

Neighbours: `templates/` (the target files, legible as such), `c_layers.py` (each kind of layer in C), `c_names.py`
(identifiers, refused names), `firmware_sim/toolchain.py` (compiles what `render` gives).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

import rtcore
from quantize.c_layers import KINDS, MATRICES, WIDTH, Array, Call, Part, call_of, wrapped
from quantize.c_names import checked_name, comment, identifiers
from quantize.errors import QuantizeError
from quantize.files import write_folder
from rtcore import _build
from rtcore.packing import PackedStream
from rtcore.tables import SPEC_VERSION, Tables, Tensor, state_parts, state_size

TEMPLATES = Path(__file__).resolve().parent / "templates"

# Worst stack of a call of the generated API, below the caller's frame, with the portable kernels at -Os to -O3.
# tests/firmware/test_emulator.py paints the stack of every emulated core (clang), test_stack.py adds up gcc's frames.
STACK_BYTES = 640

# kind -> the kernels' function that reads its matrices where they are packed as tables and not as a core's stream.
TABLE_READERS = dict.fromkeys(MATRICES, "rtcore_matrix_i16_tables_rows") | {
    "depthwise_i16": "rtcore_depthwise_i16_tables_position"
}


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
class Port:
    """A buffer of the caller: an input, an output, or the views of a group of states."""

    id: str
    macro: str
    size: int
    frac: int
    note: str


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
        rtcore._build.CORES, such as "cortex-m4" (M4, M7, M33 with DSP; gcc or clang) or "cortex-m55" (Helium, for
        -mfloat-abi=hard or softfp and a vector unit that is on).
    All files are written or none; a file whose bytes would not change is left untouched, foreign files are never
    deleted. Raises QuantizeError for a name that C or CMake refuses, for tables of another version or with unknown
    layers, and for golden vectors of another net; NotADirectoryError or IsADirectoryError when something that is not
    ours stands in the way.
    """
    files = render(tables, name, digest=digest, selftest=selftest, core=core)
    out = Path(out_dir)
    write_folder(out, files)
    return sorted(out / path for path in files)


def render(
    tables: Tables, name: str, *, digest: str = "", selftest: Golden | None = None, core: str = "portable"
) -> dict[str, bytes]:
    """The files that `generate` writes: relative path -> bytes."""
    context = net_context(tables, name, digest=digest, selftest=selftest, core=core)
    files = render_net(context) | {"CMakeLists.txt": render_template("CMakeLists.txt", context)}
    return files | {f"rtcore/{source}": _build.kernel_path(source, core).read_bytes() for source in kernel_files(core)}


def net_context(tables: Tables, name: str, *, digest: str, selftest: Golden | None, core: str) -> dict:
    """Everything that the templates print, once name and core have been checked."""
    name = checked_name(name)
    if core not in _build.CORES:
        raise QuantizeError(f"unknown core {core!r}; kernels exist for {', '.join(_build.CORES)}")
    return _context(tables, name, digest, selftest, core) | {
        "core": core,
        "neighbours": f"{name}.c (the net), {name}_weights.h (its tables), rtcore/ (the kernels, unchanged)",
        "building": f"Compile {name}.c and every .c file of rtcore/ as C99, with any flags; or add this directory in\n"
        f" * CMake and link the target {name}.",
    }


def render_net(context: dict) -> dict[str, bytes]:
    """The files of the net itself: NAME.h, NAME_weights.h, NAME.c and, with golden vectors, NAME_selftest.c."""
    name = context["name"]
    wanted = {
        "net.h": f"{name}.h",
        "weights.h": f"{name}_weights.h",
        "net.c": f"{name}.c",
    }
    if context["selftest"] is not None:
        wanted["selftest.c"] = f"{name}_selftest.c"
    return {path: render_template(template, context) for template, path in wanted.items()}


def render_template(template: str, context: dict) -> bytes:
    """A file of templates/, filled in; an unknown name fails."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["fit"] = fit
    return environment.get_template(f"{template}.jinja").render(context).encode()


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
    ports = {"in", "out", "state", "arena", "rows", "scratch", "stack", "spec", "weights"}
    numbered = {f"{port}{k}" for port in ("in", "out", "state") for k in range(len(tables.tensors))}
    return identifiers([layer.name for layer in tables.layers], reserved=ports | numbered)


def footprint(tables: Tables, name: str = "net", core: str = "portable") -> tuple[dict[str, int], int]:
    """(layer name -> bytes of the tables that it brings into flash, as packed for a core; bytes of scratch in RAM)."""
    context = net_context(tables, name, digest="", selftest=None, core=core)
    sizes = {array.id: array.nbytes for array in context["arrays"]}
    found = {}
    for layer, call in zip(tables.layers, context["calls"], strict=True):
        members = [member for _, _, matrix in call.matrices for member in matrix.values()]
        members += [array.id for array in call.arrays.values()]
        members += call.tables.values()
        found[layer.name] = sum(sizes.pop(member, 0) for member in dict.fromkeys(members))  # a shared one counts once
    return found, 4 * context["rows"] + 2 * context["scratch"]


def unreached(tables: Tables, core: str = "portable") -> frozenset[str]:
    """Functions of TABLE_READERS to which no call of the net's API comes with these tables, as packed for a core: what
    they would read is in streams. With other tables, from NAME_reset_with, one may come there."""
    reached = set()
    for layer in tables.layers:
        if layer.kind in MATRICES:
            _, _, pack = MATRICES[layer.kind]
            if not all(isinstance(packed, PackedStream) for packed in pack(layer, core)):
                reached.add(TABLE_READERS[layer.kind])
    return frozenset(TABLE_READERS.values()) - reached


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
    places = {tensor: local.id for tensor, local in locals_.items()}
    calls = [call_of(tables, layer, core, ids, macro, places, arrays) for layer in tables.layers]
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
        "tabled": [call for call in calls if call.struct or call.arrays],
        "shaped": [call for call in calls if call.macros],
        "checked": any(call.struct or call.kind == "table_i16" for call in calls),
        "states": states,
        "narrow": any(not part.part.wide for call in states for part in call.parts),
        "wide": any(part.part.wide for call in states for part in call.parts),
        "groups": groups,
        "settable": groups[: len(tables.state_inputs)],
        "locals": [local for local in locals_.values() if local.declaration],
        "silent": silent,
        "arrays": arrays,
        "table_bytes": sum(array.nbytes for array in arrays),
        "arena": tables.arena,
        "scratch": max((call.scratch for call in calls), default=0),
        "rows": max((call.rows for call in calls), default=0),
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


def fit(code: str) -> str:
    """A template filter: lines of C longer than WIDTH break after a comma or an "or", aligned with the opening
    parenthesis."""
    lines = []
    for line in code.splitlines():
        margin = " " * (line.find("(") + 1)
        while len(line) > WIDTH:
            ends = [at.end() for at in re.finditer(r"(,|\|\|)(?= )", line[:WIDTH]) if at.start() > len(margin)]
            if not ends:
                break
            lines.append(line[: ends[-1]])
            line = margin + line[ends[-1] + 1 :]
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
