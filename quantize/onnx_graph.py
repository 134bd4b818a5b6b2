"""An ONNX file read and checked, its constants computed: the steps that depend on the model's inputs, under good names.

`onnx` reads the file (external data too), checks it, and computes on constants (its reference evaluator), so that
nothing here knows the file's encoding.

Neighbours: `onnx_fusions.py` (several steps as one), `onnx_import.py` (makes a torch module of the steps),
`onnx_ops.py` and `onnx_recurrent.py` (one function per operator; what they do not know is refused here).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantize.errors import FormatError, UnsupportedError
from quantize.onnx_fusions import fused
from quantize.onnx_unrolled import rolled

OLDEST_OPSET = 11

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
INDICES = (TensorProto.INT64, TensorProto.INT32)

QUANTIZED = re.compile(r"Q(uantize|LinearConv|LinearMatMul|Linear|Gemm)|Dequantize|DynamicQuantize|.*Integer$")
QUANTIZED_ADVICE = (
    "the file is quantized already, in the formats of another runtime; give the float file that it was made from, and "
    "quantize() chooses formats and proves them"
)
RANDOM = "draws random numbers; a step must be deterministic"
HINTS = {
    "Bernoulli": RANDOM,
    "Multinomial": RANDOM,
    "If": "a step has no branches; export with the condition decided",
    "Loop": "export the layer as GRU, LSTM or RNN, not as a loop over its steps",
    "Scan": "export the layer as GRU, LSTM or RNN, not as a loop over its steps",
    "ConvTranspose": "no kernel of a transposed convolution",
    "Resize": "no kernel of resampling",
}
SHAPES = ("Shape", "Size")  # numbers as soon as the sizes of the inputs are


@dataclass(frozen=True)
class Input:
    """An input of the model. sizes: one per axis, None where it is free (a name, or not said); None: unknown rank."""

    name: str
    sizes: tuple[int | None, ...] | None
    indices: bool


@dataclass(frozen=True)
class Step:
    """One node. attrs: the attributes in Python's types. known: all its inputs are constants or sizes, so that it is
    computed on numpy arrays. label: its name in the graph, dots for levels, unique."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    proto: NodeProto
    known: bool = False
    label: str = ""

    @property
    def words(self) -> str:
        return f"{self.op} (node {self.name!r})"


@dataclass(frozen=True)
class Network:
    """constants: value -> array, computed ones included, as far as a step or an output reads them."""

    path: Path
    opset: int
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, np.ndarray]
    double: bool

    def __deepcopy__(self, memo: dict) -> Network:
        """Itself, as nothing in it changes: a copied module shares it."""
        return self


def read(path: Path, operators: Container[str]) -> Network:
    """The network in a file. operators: those that have a function.

    Raises FormatError for what is no valid ONNX file, UnsupportedError for opsets before 11 and, all at once, for
    nodes that have no function; quantized ones come with advice."""
    model = _load(path)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    opset = opsets.get("ai.onnx", 0)
    if opset < OLDEST_OPSET:
        raise UnsupportedError(
            f"{path} has opset {opset}; {OLDEST_OPSET} and newer are read: convert it with "
            "onnx.version_converter.convert_version(model, 17)"
        )
    return _Reader(path, opset, model).network(operators)


def _load(path: Path) -> onnx.ModelProto:
    advice = "write it with torch.onnx.export, or check it with onnx.checker"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, TypeError):
        raise FormatError(f"{path} is not an ONNX file (or a truncated one); {advice}") from None
    if not model.HasField("graph") or not model.opset_import:
        raise FormatError(f"{path} is not an ONNX file: it holds no graph; {advice}")
    if not model.graph.output:
        raise FormatError(f"{path} has no outputs; {advice}")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise FormatError(
            f"{path}: its external data cannot be read: {_first_line(error)}; keep both files together"
        ) from None
    quantized = [node for node in model.graph.node if QUANTIZED.match(node.op_type)]
    if quantized:
        listed = ", ".join(dict.fromkeys(f"{node.op_type} (node {node.name!r})" for node in quantized[:4]))
        more = f" and {len(quantized) - 4} more" if len(quantized) > 4 else ""
        raise UnsupportedError(f"{path}: {listed}{more}: {QUANTIZED_ADVICE}")
    try:
        onnx.checker.check_model(model)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path} is not a valid ONNX model: {_first_line(error)}; {advice}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def computed(step: Step, opset: int, values: Iterable[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of a node on numpy arrays; raises UnsupportedError where onnx has no reference for it."""
    given = [(name, value) for name, value in zip(step.inputs, values, strict=True) if name]
    domains = {"": opset} | {step.proto.domain: opset if step.proto.domain in ("", "ai.onnx") else 1}
    imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    names = list(dict.fromkeys(name for name, _ in given))
    outputs = [name for name in step.outputs if name]
    function = helper.make_function("quantize", "one", names, outputs, [step.proto], imports)
    try:
        return ReferenceEvaluator(function).run(None, dict(given), attributes={})
    except Exception as error:  # the evaluator has no common base for its failures
        raise UnsupportedError(f"{step.words}, on constants: cannot be computed: {_first_line(error)}") from error


@dataclass
class _Reader:
    path: Path
    opset: int
    model: onnx.ModelProto
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # constant -> the initializer that it was made from

    def network(self, operators: Container[str]) -> Network:
        graph = self.model.graph
        if graph.sparse_initializer:
            raise UnsupportedError(f"{self.path}: holds sparse initializers; store them dense")
        for tensor in graph.initializer:
            try:
                self.constants[tensor.name] = _plain(numpy_helper.to_array(tensor))
            except (ValueError, TypeError) as error:
                raise FormatError(f"{self.path}: initializer {tensor.name!r}: {_first_line(error)}") from None
            self.origins[tensor.name] = tensor.name
        inputs = tuple(self._input(value) for value in graph.input if value.name not in self.constants)
        outputs = tuple(value.name for value in graph.output)
        steps = rolled(fused(self._steps(), self.constants, outputs), self.constants, outputs)
        self._refuse(steps, operators)
        needed = {name for step in steps for name in step.inputs} | set(outputs)
        constants = {name: array for name, array in self.constants.items() if name in needed}
        double = any(value.type.tensor_type.elem_type == TensorProto.DOUBLE for value in graph.input)
        return Network(self.path, self.opset, inputs, outputs, self._labelled(steps), constants, double)

    def _input(self, value: onnx.ValueInfoProto) -> Input:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type not in FLOATS + INDICES:
            what = TensorProto.DataType.Name(kind.elem_type).lower() if kind.elem_type else "no tensor"
            raise UnsupportedError(f"{self.path}: input {value.name!r} is {what}; inputs are floats, or int64 indices")
        sizes = None
        if kind.HasField("shape"):
            sizes = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
        return Input(value.name, sizes, kind.elem_type in INDICES)

    def _steps(self) -> list[Step]:
        """The nodes that depend on inputs; the others are computed."""
        known, steps = set(self.constants), []
        for i, node in enumerate(self.model.graph.node):
            name = node.name or next((output for output in node.output if output), f"#{i}")
            attrs = {a.name: _python(helper.get_attribute_value(a)) for a in node.attribute if not a.ref_attr_name}
            step = Step(node.op_type, name, tuple(node.input), tuple(node.output), attrs, node)
            given = {value for value in node.input if value}
            if not _is_foreign(step):
                if given <= self.constants.keys():
                    self._compute(step)
                    known.update(node.output)
                    continue
                if node.op_type in SHAPES or given <= known:
                    known.update(node.output)
                    step = replace(step, known=True)
            steps.append(step)
        return steps

    def _refuse(self, steps: list[Step], operators: Container[str]) -> None:
        """Names, all at once, the steps that have no function."""
        problems = []
        for step in steps:
            if _is_foreign(step) or not (step.known or step.op in operators):
                domain = step.proto.domain
                where = f" of {domain}" if domain not in ("", "ai.onnx") else ""
                hint = HINTS.get(step.op, RANDOM if step.op.startswith("Random") else "")
                problems.append(f"{step.words}{where}" + (f": {hint}" if hint else ""))
        if problems:
            listed = "\n".join(dict.fromkeys(problems))
            names = ", ".join(sorted(op for op in operators if onnx.defs.has(op)))
            raise UnsupportedError(f"{self.path}: operators that are not supported:\n{listed}\nsupported: {names}")

    def _compute(self, step: Step) -> None:
        arrays = computed(step, self.opset, [self.constants.get(name) for name in step.inputs])
        origin = next((self.origins[name] for name in step.inputs if name in self.origins), None)
        for name, array in zip((output for output in step.outputs if output), arrays, strict=True):
            self.constants[name] = _plain(np.asarray(array))
            if origin is not None:
                self.origins[name] = origin

    def _labelled(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        taken: set[str] = set()
        labelled = []
        for step in steps:
            base, count = self._label(step), 1
            label = base
            while label in taken:
                count += 1
                label = f"{base}_{count}"
            taken.add(label)
            labelled.append(replace(step, label=label))
        return tuple(labelled)

    def _label(self, step: Step) -> str:
        """What the layer is called: the common prefix of its weights, the module it was exported from, the node."""
        weights = [name for name in step.inputs if self.constants.get(name, np.zeros(1)).size > 1]
        prefixes = [self.origins[name].rpartition(".")[0] for name in weights if name in self.origins]
        scopes = {p.key: p.value for p in step.proto.metadata_props}.get("pkg.torch.onnx.name_scopes")
        name = next((prefix for prefix in prefixes if prefix), "")
        if not name and weights and scopes:
            name = _scope(scopes)
        if not name:
            name = step.name.removeprefix("node_").strip("/").replace("/", ".")
            lead, _, last = name.rpartition(".")
            name = lead if lead and weights and re.fullmatch(rf"{step.proto.op_type}(_\d+)?", last) else name
        name = re.sub(r"\.+", ".", re.sub(r"[^A-Za-z0-9_.]", "_", name)).strip("._")
        return name if re.match(r"[A-Za-z_]", name) else f"{step.op.lower()}_{name}".rstrip("_")


def _is_foreign(step: Step) -> bool:
    """Not of ONNX's own operators, with graphs inside, or random: nothing that may be computed beforehand."""
    nested = any(a.HasField("g") or a.graphs for a in step.proto.attribute)
    return (
        step.proto.domain not in ("", "ai.onnx")
        or nested
        or HINTS.get(step.op) == RANDOM
        or step.op.startswith("Random")
    )


def _scope(listed: str) -> str:
    """The module's path in the scopes that torch's exporter leaves with a node: "['', 'enc', 'enc.gru', 'gru']"."""
    try:
        scopes = ast.literal_eval(listed)
    except (ValueError, SyntaxError):
        return ""
    plain = isinstance(scopes, list) and len(scopes) > 1 and all(isinstance(scope, str) for scope in scopes)
    return scopes[-2] if plain else ""


def _python(value: Any) -> Any:
    """An attribute: bytes as text; a float, which the file keeps in 32 bits, as the shortest decimal that is it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, (list, tuple)) or type(value).__name__.startswith("Repeated"):
        return [_python(item) for item in value]
    return value


def _plain(array: np.ndarray) -> np.ndarray:
    """Floats of 16 bits (ml_dtypes' bfloat16 too) as float32, which holds them exactly."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
