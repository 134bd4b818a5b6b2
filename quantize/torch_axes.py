"""What the importer knows while it walks an exported program: values, their axes, and the graph under construction.

Every input axis is an atom. Atoms travel with the axes through permutes, reshapes and layers; a GRU, a Linear or a
concatenation says which role (batch, time, feature) an atom plays, and tensors that meet elementwise share roles. The
walk is done twice with the same operation handlers: once to infer the roles (`Builder(infer=True)`; a role may still
be None and what is emitted is thrown away), once to build the graph with every role known from the start.

A stream has a time axis, of which a step sees one element. A window is seen whole: there every axis but the batch holds
features, time included (`Builder(window=True)`).

Neighbours: `torch_layers.py`, `torch_windows.py`, `torch_ops.py`, `torch_moves.py` and `torch_functions.py` (the
handlers), `torch_memory.py` (the order of features in memory), `torch_program.py` (walks), `graph.py` (the outcome).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from quantize.errors import QuantizeError, UnsupportedError
from quantize.graph import Node


class Atom:
    """One indivisible axis: its length in the export, and its role, shared with the atoms it was joined to.

    index tells an argument's batch axes apart, and its feature axes (0, 1, ... from the left); `reason` says who fixed
    the role. pad: zeros that the model put before and after a time axis, until a convolution takes them.
    """

    def __init__(self, size: int, role: str | None = None, index: int = 0, reason: str = "") -> None:
        self.size = size
        self.index = index
        self.pad = (0, 0)
        self._parent: Atom | None = None
        self._role = role
        self._reason = reason

    def _root(self) -> Atom:
        atom = self
        while atom._parent is not None:
            atom = atom._parent
        return atom

    @property
    def role(self) -> str | None:
        return self._root()._role

    @property
    def reason(self) -> str:
        return self._root()._reason

    def set_role(self, role: str, reason: str) -> None:
        root = self._root()
        root._role, root._reason = role, reason

    def same_role(self, other: Atom) -> bool:
        """Whether the two were joined, directly or through others."""
        return self._root() is other._root()

    def padded(self, before: int, after: int) -> Atom:
        """The same axis with so many zeros around it."""
        atom = Atom(self.size - sum(self.pad) + before + after, index=self.index)
        atom.pad = (before, after)
        atom.share_role(self)
        return atom

    def share_role(self, other: Atom) -> None:
        """Make both play one role. They must not have two already."""
        mine, its = self._root(), other._root()
        if mine is not its:
            if mine._role is None:
                mine._parent = its
            else:
                its._parent = mine


Axis = tuple[Atom, ...]  # () has length 1; several atoms are a merged axis, the first varying slowest


@dataclass(frozen=True)
class Value:
    """A tensor of the exported program, as the graph sees it.

    tensors: graph tensors, one per row of the "layer" axis (a single one without such an axis).
    axes:    per axis its atoms; without a time atom the value is the last step's.
    width:   features of each of `tensors`.
    kind:    "tensor"; "h_n", a recurrent state as the GRU returned it; "argument", an input whose use is not known
             yet; "initial", an initial state argument, whose `tensors` are (argument, row) pairs.
    order:   the atoms in the order of memory, the last varying fastest; None: as in `axes`.
    """

    tensors: tuple[Any, ...]
    axes: tuple[Axis, ...]
    width: int
    kind: str = "tensor"
    order: Axis | None = None

    @property
    def memory(self) -> Axis:
        """The atoms of its features in the order of memory, without those of length 1."""
        atoms = flat(self.axes) if self.order is None else self.order
        return tuple(atom for atom in atoms if atom.role == "feature" and atom.size != 1)

    def moved(self, axes: Iterable[Axis]) -> Value:
        """The same tensors under other axes of the same atoms."""
        return replace(self, axes=tuple(axes), order=flat(self.axes) if self.order is None else self.order)


Operand = Value | torch.Tensor | float | int | bool


def flat(axes: Iterable[Axis]) -> Axis:
    """The atoms of all axes, in order."""
    return tuple(atom for axis in axes for atom in axis)


def axis_size(axis: Axis) -> int:
    """The length of an axis in the export."""
    return math.prod(atom.size for atom in axis)


@dataclass
class Place:
    """Where a node of the exported program comes from."""

    source: str  # "model.py:12 in forward: y = self.fc(x)", or "" when the program does not say
    module: str  # "enc.fc1", or "" for the model itself
    kind: str  # "Linear", the module's class
    leaf: bool  # the module is a layer of torch or of this package, not the user's own

    def words(self) -> str:
        layer = f"layer {self.module!r} ({self.kind})" if self.module else f"the model ({self.kind})"
        return f"in {layer}" + (f" at {self.source}" if self.source else "")


LAYERS = ("torch.nn.", "quantize.nn.", "quantize.lineage.Dense", "quantize.torch_keras_", "quantize.onnx_ops.")

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)\n(?:\s+(?P<code>[^\n]*))?')
_LIBRARY = re.compile(r"(site|dist)-packages[/\\]torch[/\\]|quantize[/\\](nn|torch_keras\w*|onnx_\w+)\.py$|^<")


def place_of(node: torch.fx.Node) -> Place:
    """The node's place in the user's source: the innermost recorded frame outside torch and this package. A node that
    torch made while rewriting in-place operations has none, and gets its input's, marked as such."""
    traced: torch.fx.Node | None = node
    while traced is not None and not traced.meta.get("stack_trace"):
        traced = next(iter(traced.all_input_nodes), None)
    frames = _FRAME.finditer(traced.meta["stack_trace"]) if traced is not None else ()
    own = [frame for frame in frames if not _LIBRARY.search(frame["file"])]
    source = ""
    if own:
        frame = own[-1]
        file = re.split(r"[/\\]", frame["file"])[-1]
        source = f"{file}:{frame['line']} in {frame['name']}" + (f": {frame['code'].strip()}" if frame["code"] else "")
        source = source if traced is node else f"(after) {source}"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "function")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    leaf = kind.startswith(LAYERS)
    return Place(source, re.sub(r"@\d+", "", path), kind.rsplit(".", 1)[-1], leaf)


def op_name(target: Any) -> str:
    """The plain name: linear of aten.linear.default; an operator outside torch.library has only that."""
    parts = str(target).split(".")
    return parts[1] if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", parts[-1])


@dataclass
class Builder:
    """The walk's state. Handlers ask for roles and emit graph nodes; they end the import by raising a `refusal`.

    shapes:  the export's sizes of every program node that is a tensor, symbolic ones made concrete.
    window:  the model is seen one whole window at a time, not one step.
    states:  arguments found to be initial states (infer).
    claims:  (argument, row) -> the recurrent node that starts from it, "NODE:cell" for its cell (build).
    """

    infer: bool
    shapes: dict[torch.fx.Node, tuple[int, ...]]
    window: bool = False
    names: set[str] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)
    states: set[str] = field(default_factory=set)
    claims: dict[tuple[str, int], str] = field(default_factory=dict)
    _arrays: dict[int, tuple[torch.Tensor, np.ndarray]] = field(default_factory=dict)  # id -> (it, kept alive; array)
    _wishes: list[tuple[Axis, str]] = field(default_factory=list)
    _node: torch.fx.Node | None = None
    _place: Place = field(default_factory=lambda: Place("", "", "", False))

    # --- the node at hand -------------------------------------------------------------------------------------------

    def enter(self, node: torch.fx.Node) -> None:
        """Make `node` the one that names, places and refusals refer to."""
        self._node = node
        self._place = place_of(node)

    @property
    def op(self) -> str:
        """The node's operation, as in "linear"."""
        return op_name(self._node.target)

    @property
    def target(self) -> Any:
        """The node's operator itself."""
        return self._node.target

    @property
    def where(self) -> str:
        """The node's place in the user's source, as Node.where has it."""
        return self._place.source

    @property
    def shape(self) -> tuple[int, ...]:
        """The export's sizes of the node's result."""
        return self.shapes[self._node]

    def refusal(self, reason: str) -> UnsupportedError:
        """The error that names the node and its place: `raise b.refusal("does what it may not; do this instead")`."""
        return UnsupportedError(f"{self.op} {self._place.words()}: {reason}")

    def name(self, suffix: str = "") -> str:
        """A fresh name: the layer's path where the node is a layer's, else the operation's, with a counter."""
        module = re.sub(r"[^A-Za-z0-9_.]", "_", self._place.module)
        stem = self.op.strip("_")
        base = module if module and self._place.leaf else f"{module}.{stem}" if module else stem
        if not re.match(r"[A-Za-z_]", base):
            base = f"{stem}_{module}" if self._place.leaf else f"{stem}_{base}"
        return self.unique(base + suffix)

    def unique(self, base: str) -> str:
        """`base`, or base_2, base_3 ...: distinct from all others even with dots as underscores."""
        name, count = base, 1
        while name.replace(".", "_") in self.names:
            count += 1
            name = f"{base}_{count}"
        self.names.add(name.replace(".", "_"))
        return name

    # --- roles ------------------------------------------------------------------------------------------------------

    def role(self, axis: Axis) -> str | None:
        """The axis' role: "one" for (), None while unknown, "batch and time" for a mixed merged axis."""
        roles = {atom.role for atom in axis}
        if not roles:
            return "one"
        if len(roles) == 1:
            return roles.pop()
        return None if None in roles else " and ".join(sorted(r for r in roles if r))

    def bind(self, axis: Axis, role: str) -> None:
        """The axis must play `role`; time is like any other axis of a window."""
        role = "feature" if self.window and role == "time" else role
        for atom in axis:
            if any(atom.pad):
                raise self.refusal("takes a time axis with zeros around it, which only a causal convolution may take")
            if atom.role is None:
                atom.set_role(role, f"{self.op} {self._place.words()}")
            elif atom.role != role:
                since = f" (so used by {atom.reason})" if atom.reason else ""
                whole = "; that needs the whole window, but a streaming net sees one step" if role == "feature" else ""
                raise self.refusal(f"takes the {atom.role} axis{since} as its {role} axis{whole}")

    def wish(self, axis: Axis, role: str) -> None:
        """Infer: the axis plays `role` unless something fixes another one."""
        if self.infer:
            self._wishes.append((axis, role))

    def grant_wishes(self, arguments: Iterable[Sequence[Atom]]) -> None:
        """Apply, in order, the wishes about axes that nothing has fixed; an argument with features needs no others."""
        for axis, role in self._wishes:
            for atom in axis:
                own = [axes for axes in arguments if any(other.same_role(atom) for other in axes)]
                if atom.role is None and all(other.role != role for axes in own for other in axes):
                    atom.set_role(role, "")

    def join(self, a: Axis, b: Axis) -> Axis:
        """The axis that results when two axes meet element by element without broadcasting."""
        roles = [self.role(axis) or "unknown" for axis in (a, b)]
        if "time" in roles and ("one" in roles or "layer" in roles):
            raise self.refusal("mixes the last step (or a value without time) with the whole sequence")
        if roles == ["feature", "feature"] and not self.infer:
            return a if axis_size(a) >= axis_size(b) else b
        if len(a) != len(b):
            if self.infer and self.window and None in (self.role(a), self.role(b)):
                return a if axis_size(a) >= axis_size(b) else b
            raise self.refusal(f"lets a {roles[0]} axis meet a {roles[1]} axis")
        for x, y in zip(a, b, strict=True):
            if x.role is not None and y.role is not None:
                if x.role != y.role:
                    raise self.refusal(f"lets a {x.role} axis meet a {y.role} axis")
                if x.role != "feature" and (x.index, x.pad) != (y.index, y.pad):
                    raise self.refusal(f"lets two different {x.role} axes meet")
            else:
                x.share_role(y)
        return a if axis_size(a) >= axis_size(b) else b

    def broadcast(self, a: Value, b: Value) -> tuple[Axis, ...]:
        """The axes of an elementwise operation on two values. Only features may broadcast."""
        rank = max(len(a.axes), len(b.axes))
        pairs = zip(*(((),) * (rank - len(v.axes)) + v.axes for v in (a, b)), strict=True)
        axes = []
        for x, y in pairs:
            if x and y:
                axes.append(self.join(x, y))
                if axis_size(x) != axis_size(y):
                    self.bind(axes[-1], "feature")
                continue
            axis = x or y
            role = self.role(axis)
            if role == "time":
                raise self.refusal("mixes the last step (or a value without time) with the whole sequence")
            if role not in ("one", "feature", None) and axis_size(axis) * (role == "layer") != 1:
                raise self.refusal(f"broadcasts over the {role} axis")
            axes.append(axis)
        return tuple(axes)

    # --- emission ---------------------------------------------------------------------------------------------------

    def emit(
        self,
        op: str,
        inputs: Sequence[Value],
        axes: Iterable[Axis],
        width: int,
        attrs: dict[str, Any] | None = None,
        params: dict[str, np.ndarray] | None = None,
        order: Axis | None = None,
        label: str = "",
    ) -> Value:
        """Append a graph node (one per row where the inputs have a layer axis) and return its value. order: as Value
        has it; without it, the only input's where the atoms are the same. label: what its name ends in."""
        self.check_computable(inputs)
        count = max(len(value.tensors) for value in inputs)
        rows = zip(*(v.tensors if len(v.tensors) == count else v.tensors * count for v in inputs), strict=True)
        outputs = []
        for row, names in enumerate(rows):
            name = self.name(label + (f".{row}" if count > 1 else ""))
            self.append(Node(op, name, names, name, dict(attrs or {}), dict(params or {}), self._place.source), width)
            outputs.append(name)
        axes = tuple(axes)
        if order is None and len(inputs) == 1 and flat(axes) == flat(inputs[0].axes):
            order = inputs[0].order
        return Value(tuple(outputs), axes, width, order=order)

    def check_computable(self, inputs: Iterable[Value]) -> None:
        """Refuse to compute with an initial state."""
        for value in inputs:
            if value.kind == "initial":
                raise self.refusal(
                    f"computes with {value.tensors[0][0]!r}, which is the initial state of a recurrent layer: a state "
                    "argument can only be split into rows and given to such layers"
                )

    def append(self, node: Node, width: int) -> None:
        """Append one graph node whose output is `width` wide."""
        self.nodes.append(node)
        self.widths[node.output] = width

    def claim(self, row: tuple[str, int], node: str) -> None:
        """Make a state argument's row the initial state of a recurrent node."""
        if row in self.claims:
            raise self.refusal(f"starts from row {row[1]} of {row[0]!r}, as {self.claims[row]!r} does already")
        self.claims[row] = node

    def array(self, tensor: torch.Tensor, what: str) -> np.ndarray:
        """A constant as a float64 array, the same one for the same tensor. Raises QuantizeError when it holds NaN or
        infinity."""
        if id(tensor) in self._arrays:
            return self._arrays[id(tensor)][1]
        array = tensor.detach().to(torch.float64).numpy()
        if not np.isfinite(array).all():
            bad = array[~np.isfinite(array)].flat[0]
            raise QuantizeError(
                f"{self.op} {self._place.words()}: its {what} holds {bad}; every constant must be finite"
            )
        self._arrays[id(tensor)] = (tensor, array)
        return array


HANDLERS: dict[str, Callable[..., Any]] = {}


def handles(*targets: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a handler for operator overloads, named as in "aten.linear.default".

    It is called as handler(builder, *args, **kwargs) with the node's own arguments, where tensors that depend on the
    model's inputs are Values and all others are torch tensors, and returns a Value, a sequence of them, or a constant.
    It moves axes, or emits graph nodes, or refuses. Operations on constants alone never reach a handler: they are run.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for target in targets:
            HANDLERS[target] = function
        return function

    return register
