"""An exported program under the importer's eyes: what can be refused at once, the two walks, the finished graph.

A `Program` is functional (in-place operations rewritten), has concrete sizes (symbolic ones chosen), and holds only
operations that have a handler. `infer` finds the role of every input axis, `build` makes the graph.

Neighbours: `torch_import.py` (gets programs from modules and files), `torch_layers.py`, `torch_windows.py`,
`torch_functions.py`, `torch_ops.py` and `torch_moves.py` (one handler per operation), `torch_axes.py` (values, axes,
the Builder), `graph.py` (what comes out).
"""

from __future__ import annotations

import itertools
import math
import operator
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from quantize import torch_functions, torch_layers, torch_moves, torch_ops, torch_windows  # noqa: F401  (handlers)
from quantize.errors import QuantizeError, UnsupportedError
from quantize.fold import folded
from quantize.graph import Argument, Graph, Result, Signature
from quantize.torch_axes import HANDLERS, Atom, Builder, Value, axis_size, op_name, place_of
from quantize.torch_memory import solid

FLOATS = (torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32)

SUPPORTED = (
    "supported: nn.Linear, nn.GRU, nn.LSTM, nn.RNN and their cells, quantize.nn.GRU, nn.Conv1d, nn.Conv2d, pooling, "
    "means and maxima, nn.Embedding, activation functions, softmax, LayerNorm, BatchNorm in eval mode, clamp, minimum, "
    "maximum, cat, stack, pad, flip, slices, + - * of tensors and constants, division by constants, and moves of axes"
)

HINTS = {
    "lstm": "a packed sequence has no fixed shape; give the LSTM a padded tensor",
    "rnn_tanh": "a packed sequence has no fixed shape; give the RNN a padded tensor",
    "rnn_relu": "a packed sequence has no fixed shape; give the RNN a padded tensor",
    "gru": "a packed sequence has no fixed shape; give the GRU a padded tensor",
    "slice_scatter": "this is a write into a part of a tensor; compute the parts and torch.cat them",
    "select_scatter": "this is a write into a part of a tensor; compute the parts and torch.cat them",
    "cond": "a step has no branches; compute both sides and combine them",
}

# Operations that make a constant from numbers alone; of the random ones the message says so.
FACTORIES = ("zeros", "ones", "full", "arange", "eye", "linspace", "scalar_tensor", "rand", "randn", "randint")

Roles = dict[str, tuple[str, tuple[tuple[str, int], ...]]]  # argument -> (kind, per axis (role, which of that role))


class Program:
    """An exported program, functional, checked for what can be refused at once, ready to be walked.

    constants: placeholder name -> (the parameter's or buffer's own name, its value).
    inputs:    argument name -> placeholder, tensor arguments only, in order.
    shapes:    the sizes of every node that is a tensor.
    """

    def __init__(self, program: ExportedProgram) -> None:
        """Raises UnsupportedError or QuantizeError for what can be seen without a walk: operations without a handler
        (all of them, each with its place), effects, dtypes, weights that are not finite."""
        _refuse_operations(program.graph, set(_constants(program)))
        if any(_needs_functionalizing(node) for node in program.graph.nodes):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = program.run_decompositions({})
        self.program = program
        self.sizes = _Sizes(program)
        self.constants = _constants(program)
        self._refuse_effects()
        _refuse_operations(program.graph, set(self.constants), rewritten=True)
        self._refuse_weights()
        self.inputs = self._inputs()
        self.shapes = {node: self.sizes.shape(node) for node in program.graph.nodes if _is_tensor(node)}

    # what can be refused at once

    def _refuse_effects(self) -> None:
        for spec in self.program.graph_signature.output_specs:
            if spec.kind == OutputKind.BUFFER_MUTATION:
                if str(spec.target).endswith(("running_mean", "running_var", "num_batches_tracked")):
                    raise UnsupportedError(
                        f"the model updates {spec.target!r}: its batch norm was exported in training mode; call "
                        "model.eval() before the export"
                    )
                raise UnsupportedError(
                    f"the model writes to its buffer {spec.target!r}: a state kept in a buffer is not supported; make "
                    "it an argument and a result of forward"
                )
            if spec.kind == OutputKind.USER_INPUT_MUTATION:
                raise UnsupportedError(f"the model writes to its argument {spec.target!r}; let it work on a copy")
            if spec.kind != OutputKind.USER_OUTPUT:
                raise UnsupportedError(f"the model has a {spec.kind.name.lower()}; only plain results are supported")

    def _refuse_weights(self) -> None:
        for node in self.program.graph.nodes:
            if node.op != "placeholder" or node.name not in self.constants or not node.users:
                continue
            name, value = self.constants[node.name]
            if value.is_complex() or (value.is_floating_point() and value.dtype not in FLOATS):
                raise UnsupportedError(f"parameter {name!r} is {value.dtype}; convert the model with .float()")
            if value.is_floating_point() and not value.isfinite().all():
                index = tuple((~value.isfinite()).nonzero()[0].tolist())
                raise QuantizeError(
                    f"parameter {name!r} holds {value[index].item()} at index {index}; every weight must be finite: "
                    "repair or retrain the model"
                )

    def _inputs(self) -> dict[str, torch.fx.Node]:
        args, kwargs = _outline(self.program.call_spec.in_spec)
        for name, leaf in [*enumerate(args), *kwargs.items()]:
            if not isinstance(leaf, int):
                kind = type(leaf).__name__
                raise UnsupportedError(f"argument {name!r} of the model is a {kind}; let it take tensors one by one")
        found = {}
        for node in self._placeholders():
            value = node.meta.get("val")
            name = f"argument {node.name!r} of the model"
            if value is None:
                continue  # an optional argument that was left out
            if not isinstance(value, torch.Tensor):
                raise UnsupportedError(f"{name} is {value!r}; only tensors are supported")
            if value.dtype not in FLOATS and not (value.dtype in INTEGERS and _only_looked_up(node)):
                raise UnsupportedError(
                    f"{name} has dtype {value.dtype}: inputs must be float32 or float64 (or indices of an Embedding)"
                )
            if value.dim() == 0:
                raise UnsupportedError(f"{name} is a single number; give it a feature axis")
            found[node.name] = node
        if not found:
            raise UnsupportedError("the model takes no tensor")
        return found

    def _placeholders(self) -> list[torch.fx.Node]:
        """The arguments' nodes, those that are None included."""
        return [n for n in self.program.graph.nodes if n.op == "placeholder" and n.name not in self.constants]

    # the walks

    def infer(self, window: bool = False, batch_first: bool = False) -> Roles:
        """Find the role of every axis of every argument; batch_first: axis 0 is the batch. Raises UnsupportedError
        where they contradict each other."""
        builder = Builder(True, self.shapes, window)
        values = {}
        for name, node in self.inputs.items():
            shape = self.shapes[node]
            indices = node.meta["val"].dtype in INTEGERS
            kind, width = ("tensor", 1) if indices else ("argument", shape[-1])
            lead = ["batch"] if batch_first else []
            axes = tuple((Atom(size, role),) for size, role in itertools.zip_longest(shape, lead))
            values[name] = Value((name,), axes, width, kind)
        self._walk(builder, values)
        atoms = {name: [axis[0] for axis in value.axes] for name, value in values.items()}
        for name in builder.states:
            for atom in atoms[name]:
                if atom.role is None:
                    atom.set_role("layer", "")
        builder.grant_wishes(atoms.values())
        for name, axes in atoms.items():
            if name not in builder.states:
                features = self.inputs[name].meta["val"].dtype not in INTEGERS
                (_window_roles if window else _default_roles)(axes, features)
        roles: Roles = {}
        for name, axes in atoms.items():
            found = [atom.role or "" for atom in axes]
            keys = tuple((role, found[:i].count(role)) for i, role in enumerate(found))
            roles[name] = ("state" if name in builder.states else "frames", keys)
        _check_roles(roles)
        return roles

    def build(self, roles: Roles, window: bool = False) -> Graph:
        """Build the graph, every role being known. Raises UnsupportedError for what a stream (or window) cannot do."""
        builder = Builder(False, self.shapes, window)
        values = {}
        for name, node in self.inputs.items():
            kind, keys = roles[name]
            sized = list(zip(self.shapes[node], keys, strict=True))
            axes = tuple(() if role == "one" else (Atom(size, role, index),) for size, (role, index) in sized)
            rows, width = (math.prod(n for n, (role, _) in sized if role == r) for r in ("layer", "feature"))
            builder.names.add(name)
            if kind == "frames":
                builder.widths[name] = width
                values[name] = Value((name,), axes, width)
            else:
                values[name] = Value(tuple((name, row) for row in range(rows)), axes, width, "initial")
        outputs = self._walk(builder, values)
        container, names = _result_names(self.program.call_spec.out_spec)
        batch = max(sum(role == "batch" for role, _ in keys) for _, keys in roles.values())
        results = tuple(_result(builder, name, value, batch) for name, value in zip(names, outputs, strict=True))
        return _finish(builder, roles, values, results, container)

    def _walk(self, builder: Builder, arguments: dict[str, Value]) -> list[Any]:
        """Run every node through its handler (or, on constants, through torch itself); the program's outputs."""
        done: dict[torch.fx.Node, Any] = {}
        outputs: list[Any] = []
        for node in self.program.graph.nodes:
            if node.op == "output":
                outputs = [done[arg] if isinstance(arg, torch.fx.Node) else arg for arg in node.args[0]]
                builder.enter(node)
            elif node.op == "placeholder":
                done[node] = self.constants[node.name][1] if node.name in self.constants else arguments.get(node.name)
            elif _is_number(node):
                done[node] = self.sizes.number(node)
            elif node.meta.get("val") is not None:
                args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), done.__getitem__)
                builder.enter(node)
                done[node] = _apply(builder, node, args, kwargs)
        return outputs

    def example(self, sample: Mapping[str, torch.Tensor]) -> tuple[tuple, dict]:
        """(args, kwargs) of the program's own sizes: the sample's values, repeated or cut to fit, else random normal
        numbers (always the same)."""
        generator = torch.Generator().manual_seed(0)
        values: list[torch.Tensor | None] = []
        for node in self._placeholders():
            if node.name not in self.inputs:
                values.append(None)
                continue
            shape, dtype = self.shapes[node], node.meta["val"].dtype
            given = sample.get(node.name)
            if given is not None and given.dim() == len(shape) and given.numel():
                values.append(resized(given, shape).to(dtype))
            else:
                random = torch.randn(shape, generator=generator, dtype=torch.float64)
                values.append(random.to(dtype) if dtype in FLOATS else torch.zeros(shape, dtype=dtype))
        return pytree.tree_unflatten(values, self.program.call_spec.in_spec)


def resized(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor's values, repeated or cut along every axis to `shape`."""
    for axis, size in enumerate(shape):
        if tensor.shape[axis] != size:
            tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
    return tensor


def primes() -> Iterator[int]:
    """7, 11, 13, 17, ...: lengths that no reshape can take for one another."""
    return (n for n in itertools.count(7, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))


class _Sizes:
    """Concrete numbers for an export's sizes; symbolic ones (dynamic shapes) become primes within their range."""

    def __init__(self, program: ExportedProgram) -> None:
        self._chosen: dict[Any, int] = {}
        free = primes()
        sizes = [size for node in program.graph.nodes if _is_tensor(node) for size in node.meta["val"].shape]
        for size in sizes:
            if isinstance(size, torch.SymInt):
                for symbol in sorted(size.node.expr.free_symbols & program.range_constraints.keys(), key=str):
                    limits = program.range_constraints[symbol]
                    low = max(int(limits.lower), 2)
                    prime = next(free)
                    self._chosen.setdefault(symbol, prime if low <= prime and bool(prime <= limits.upper) else low)

    def number(self, node: torch.fx.Node) -> int | float | bool:
        return self._concrete(node, node.meta["val"])

    def shape(self, node: torch.fx.Node) -> tuple[int, ...]:
        return tuple(int(self._concrete(node, size)) for size in node.meta["val"].shape)

    def _concrete(self, node: torch.fx.Node, value: Any) -> int | float | bool:
        if isinstance(value, (int, float)):
            return value
        result = value.node.expr.xreplace(self._chosen)
        if getattr(result, "free_symbols", None):
            name = op_name(node.target)
            raise UnsupportedError(f"{name} {place_of(node).words()}: takes a number from the data; keep it a tensor")
        kinds = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
        return kinds[type(value)](result)


# --- nodes ----------------------------------------------------------------------------------------------------------


def _constants(program: ExportedProgram) -> dict[str, tuple[str, torch.Tensor]]:
    """Placeholder name -> (the parameter's or buffer's own name, its value)."""
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            value = program.state_dict.get(spec.target)
            value = program.constants[spec.target] if value is None else value
            found[spec.arg.name] = (spec.target, value.detach().cpu())
        elif spec.kind != InputKind.USER_INPUT:
            kind = spec.kind.name.lower()
            raise UnsupportedError(f"the model holds {spec.target!r}, a {kind}; only tensors are supported")
    return found


def _refuse_operations(graph: torch.fx.Graph, constants: set[str], rewritten: bool = False) -> None:
    """Name every operation that has no handler and is not on constants alone.

    constants: the placeholders that do not depend on the inputs. Before in-place operations are rewritten, while every
    node still knows its source line, those are let pass.
    """
    problems = list(dict.fromkeys(_unsupported(graph, constants, rewritten)))
    if problems:
        raise UnsupportedError("\n".join([*problems, SUPPORTED]))


def _unsupported(graph: torch.fx.Graph, constants: set[str], rewritten: bool) -> Iterator[str]:
    constant: set[torch.fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in constants:
            constant.add(node)
        if node.op != "call_function" or _is_number(node) or node.meta.get("val") is None:
            continue
        name = op_name(node.target)
        tensors = [n for n in node.all_input_nodes if not _is_number(n)]
        if _is_region(node):
            inner = getattr(graph.owning_module, str(tensors[0].target)).graph
            given = zip((n for n in inner.nodes if n.op == "placeholder"), tensors[1:], strict=False)
            yield from _unsupported(inner, {place.name for place, value in given if value in constant}, rewritten)
        elif all(n in constant for n in tensors) and (tensors or name in FACTORIES):
            constant.add(node)
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                yield f"{name} {place_of(node).words()}: draws random numbers; a step must be deterministic"
        elif (
            node.target is not operator.getitem and _key(node) not in HANDLERS and (rewritten or not _is_mutable(node))
        ):
            hint = HINTS.get(name, "replace it, or leave it out of the exported model")
            yield f"{name} ({node.target}) {place_of(node).words()}: is not supported; {hint}"


def _is_number(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (int, float, torch.SymInt, torch.SymFloat, torch.SymBool))


def _is_tensor(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _is_mutable(node: Any) -> bool:
    target = getattr(node, "target", None)
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _only_looked_up(node: torch.fx.Node) -> bool:
    """Whether integers go nowhere but into embeddings."""
    return all(op_name(user.target) == "embedding" or user.op == "output" for user in node.users)


def _needs_functionalizing(node: torch.fx.Node) -> bool:
    """Writes into tensors that others may see, and regions."""
    return _is_region(node) or (_is_mutable(node) and not _writes_privately(node))


def _is_region(node: torch.fx.Node) -> bool:
    """Operations under torch.no_grad or autocast, kept in a graph of their own."""
    return node.op == "call_function" and op_name(node.target).startswith("wrap_with_")


def _writes_privately(node: torch.fx.Node) -> bool:
    """The tensor an in-place operation writes to is fresh and nobody else's, so that the plain operation does."""
    written = node.args[0]
    if not isinstance(written, torch.fx.Node) or len(written.users) != 1:
        return False
    if not isinstance(written.target, torch._ops.OpOverload):
        return False
    if _is_mutable(written):
        return _writes_privately(written)
    fresh = all(result.alias_info is None for result in written.target._schema.returns)
    return fresh and "dropout" not in str(written.target)  # dropout in eval mode returns its argument itself


def _key(node: torch.fx.Node) -> str:
    """The name a node's handler is registered under: the plain operation's for an in-place one."""
    return str(node.target).replace("_.", ".") if _is_mutable(node) else str(node.target)


def _apply(builder: Builder, node: torch.fx.Node, args: tuple, kwargs: dict) -> Any:
    if node.target is operator.getitem:
        return args[0][args[1]]
    if not any(isinstance(leaf, Value) for leaf in pytree.tree_leaves((args, kwargs))):
        with torch.no_grad():
            return node.target(*args, **kwargs)
    value = node.meta["val"]
    if isinstance(value, torch.Tensor) and value.dtype not in FLOATS:
        raise builder.refusal(f"makes a tensor of {value.dtype}; values must stay float32 or float64")
    return HANDLERS[_key(node)](builder, *args, **kwargs)


def _outline(spec: pytree.TreeSpec) -> Any:
    """The containers that a spec describes, with 0, 1, 2, ... for their leaves."""
    return pytree.tree_unflatten(list(range(spec.num_leaves)), spec)


# --- roles ----------------------------------------------------------------------------------------------------------


def _default_roles(axes: list[Atom], features: bool) -> None:
    """For axes that no operation fixed: features last (indices have none), then time, then batch."""
    for role in ("feature", "time") if features else ("time",):
        free = [atom for atom in axes if atom.role is None]
        if free and all(atom.role != role for atom in axes):
            free[-1].set_role(role, "")
    for atom in axes:
        if atom.role is None:
            atom.set_role("batch", "")


def _window_roles(axes: list[Atom], features: bool) -> None:
    """For axes of a window that no operation fixed: the first is the batch, all others features."""
    first = axes[0]
    if first.role is None and all(atom.role != "batch" for atom in axes) and (len(axes) > 1 or not features):
        first.set_role("batch", "")
    for atom in axes:
        if atom.role is None:
            atom.set_role("feature", "")


def _check_roles(roles: Roles) -> None:
    """Refuse arguments whose axes do not make frames, or states."""
    axes = {name: [role for role, _ in keys] for name, (_, keys) in roles.items()}
    streaming = any("time" in found for found in axes.values())
    for name, (kind, _) in roles.items():
        found = axes[name]
        words = f"argument {name!r} with the axes [{', '.join(found)}]"
        if kind == "state":
            if "time" in found or found.count("layer") > 1:
                raise UnsupportedError(f"{words} cannot be an initial state: it takes [layer, batch, feature]")
        elif found.count("time") > 1 or "layer" in found or "one" in found:
            raise UnsupportedError(f"{words} cannot be a stream: it takes one time axis, batch axes and features")
        elif streaming and "time" not in found:
            raise UnsupportedError(
                f"{words} has no time axis, but other arguments have; every frame input needs one: repeat the value "
                "along time before the call"
            )
    counts = {name: found.count("batch") for name, found in axes.items()}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise UnsupportedError(f"all arguments need the same number of batch axes, but {words}")


# --- the finished graph ---------------------------------------------------------------------------------------------


def _finish(
    builder: Builder, roles: Roles, values: dict[str, Value], results: tuple[Result, ...], container: str
) -> Graph:
    """Drop what no result needs and describe the call."""
    needed = {name for result in results for name in result.tensors}
    nodes = []
    for node in reversed(builder.nodes):
        if node.output in needed:
            nodes.append(node)
            needed.update(node.inputs)
    nodes.reverse()
    kept = {node.name for node in nodes}

    arguments = []
    notes = []
    for name, (kind, keys) in roles.items():
        axes = tuple(role for role, _ in keys)
        width = values[name].width
        if kind == "frames":
            kept.add(name)
            sizes = tuple(
                axis_size(axis) for axis, role in zip(values[name].axes, axes, strict=True) if role == "feature"
            )
            arguments.append(Argument(name, kind, axes, tensor=name, width=width, sizes=sizes))
            if builder.window:
                notes.append(f"window: one call takes {name} [{', '.join(map(str, sizes))}] whole")
                continue
            where = f"streaming: time is axis {axes.index('time')} of {name}" if "time" in axes else ""
            notes.append(where or f"{name} has no time axis: a call is one step")
            continue
        layers = tuple(builder.claims.get(row, "") for row in values[name].tensors)
        for row, layer in enumerate(layers):
            if layer.partition(":")[0] not in kept:
                raise UnsupportedError(
                    f"row {row} of argument {name!r}, an initial state, starts no recurrent layer that a result "
                    "depends on; take it out of the state"
                )
        arguments.append(Argument(name, kind, axes, layers=layers, width=width))
        notes.append(f"{name} is the initial state of {', '.join(layers)}")
    if any("time" in argument.axes for argument in arguments):
        last = [result.name for result in results if all("time" not in axis for axis in result.axes)]
        notes += [f"{name} is the value after the last step" for name in last]
    widths = {name: width for name, width in builder.widths.items() if name in kept}
    graph = Graph(tuple(nodes), widths, Signature(tuple(arguments), results, container), tuple(notes))
    return folded(graph)


def _result_names(spec: pytree.TreeSpec) -> tuple[str, list[str]]:
    """The container's word and one name per result: its key or field where it has one, else outputN."""
    tree = _outline(spec)
    if isinstance(tree, int):
        return "single", ["output"]
    if isinstance(tree, dict) and all(isinstance(k, str) and isinstance(leaf, int) for k, leaf in tree.items()):
        return "dict", list(tree)
    names = []
    for path, _ in pytree.tree_flatten_with_path(tree)[0]:
        name = "_".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", "")))) for k in path)
        names.append(f"output{name}" if name[:1].isdigit() else name)
    return "list" if type(tree) is list and all(isinstance(leaf, int) for leaf in tree) else "tuple", names


def _result(builder: Builder, name: str, value: Any, batch: int) -> Result:
    """Describe one result; `batch` is the number of batch axes it has to have."""
    if not isinstance(value, Value):
        what = "None" if value is None else "a constant"
        raise UnsupportedError(f"result {name!r} is {what}; return only tensors that depend on the inputs")
    if value.kind == "initial":
        raise UnsupportedError(f"result {name!r} is the model's state argument itself, unchanged; leave it out")
    atoms = [atom for axis in value.axes for atom in axis]
    if [atom.index for atom in atoms if atom.role == "batch"] != list(range(batch)):
        raise UnsupportedError(f"result {name!r} reorders or loses batch axes; return them in the inputs' order")
    if any(any(atom.pad) for atom in atoms):
        raise UnsupportedError(f"result {name!r} is longer than the stream: cut off what a causal padding added")
    value = solid(builder, value)
    axes = tuple(tuple(atom.role or "" for atom in axis) for axis in value.axes)
    sizes = tuple(atom.size for atom in atoms if atom.role == "feature")
    return Result(name, axes, value.tensors, state=value.kind == "h_n", sizes=sizes)
