"""Import an ONNX file: a torch module that runs its nodes, handed to the torch importer.

So there is one importer and one arithmetic: a network gives the same tables from torch as from its torch.onnx export.
Every node is a submodule under the name that the layer has in the graph; shapes are computed in numpy while the module
runs, so that they are plain numbers to torch.export.

Neighbours: `onnx_graph.py` (the file), `onnx_ops.py` and `onnx_recurrent.py` (the operators in torch),
`torch_import.py` (all that follows).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quantize import onnx_recurrent, torch_import  # noqa: F401  (registers GRU, LSTM and RNN)
from quantize.errors import QuantizeError, UnsupportedError
from quantize.graph import Graph
from quantize.onnx_graph import Input, Network, Step, computed, read
from quantize.onnx_ops import OPERATORS, Operator, operator_class
from quantize.signature import to_frames
from quantize.torch_moves import PART_OF_TIME

UNROLLED = (
    "if the file has a loop over the steps that its exporter has unrolled (of cells, say): give the torch module "
    "itself, or its .pt2, where the loop is one layer"
)


def import_model(path: str | os.PathLike, sample: Any, form: str = "auto") -> Graph:
    """The graph of one step of the network in an ONNX file.

    path:   opset 11 or newer, external data beside it; floats are float32 (16-bit ones widened) or float64.
    sample: what the model takes, in the order of its inputs or as a dict by their names; free sizes of the file come
            from it, and axes of a fixed size (a batch of 1, say) need not agree where they are batch or time.
    form:   as in `torch_import.import_model`.

    Raises FormatError for a file that is not valid ONNX, UnsupportedError for operators and attributes without a
    fixed-point form (all of the operators at once), QuantizeError for a sample that does not fit.
    """
    if sample is None:
        raise QuantizeError("a sample of the model's inputs is needed to import an ONNX file")
    network = read(Path(path), OPERATORS)
    module = OnnxModule(network)
    graph = torch_import.import_model(module, module.arguments(sample), form)
    to_frames(graph.signature, sample)
    unrolled = any(note.startswith("it is no stream") and PART_OF_TIME in note for note in graph.notes)
    return replace(graph, notes=(*graph.notes, UNROLLED)) if unrolled else graph


class OnnxModule(torch.nn.Module):
    """The network in torch: takes its inputs by name, returns its output, or a dict of them by name."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.names = _identifiers(network.inputs)
        dtype = torch.float64 if network.double else torch.float32
        self.numbers = {n: a for n, a in network.constants.items() if not np.issubdtype(a.dtype, np.floating)}
        self.paths = {}
        for step in network.steps:
            if not step.known:
                operator = operator_class(step.op)(step, network, dtype)
                self.paths[step.label] = _hang(self, step.label, operator)

    def forward(self, **given: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        self._check_sizes(given)
        values: dict[str, Any] = {"": None} | self.numbers
        values |= {i.name: given[name] for i, name in zip(self.network.inputs, self.names, strict=True)}
        for step in self.network.steps:
            results = self._known(step, values) if step.known else self._run(step, values)
            values.update((name, result) for name, result in zip(step.outputs, results, strict=False) if name)
        found = {name: values[name] for name in self.network.outputs if name in values}
        if len(found) != len(self.network.outputs) or not all(isinstance(v, torch.Tensor) for v in found.values()):
            fixed = next(n for n in self.network.outputs if not isinstance(found.get(n), torch.Tensor))
            raise UnsupportedError(f"{self.network.path}: output {fixed!r} is a constant; take it out of the outputs")
        return found if len(found) > 1 else next(iter(found.values()))

    def _run(self, step: Step, values: Mapping[str, Any]) -> tuple:
        results = self.get_submodule(self.paths[step.label])(*(values.get(name) for name in step.inputs))
        return results if isinstance(results, tuple) else (results,)

    def _known(self, step: Step, values: Mapping[str, Any]) -> list[np.ndarray]:
        constants = self.network.constants
        arrays = [values[name] if name in values else constants[name] for name in step.inputs]
        if step.op in ("Shape", "Size"):
            sizes = np.array(tuple(arrays[0].shape), np.int64)
            start, end = step.attrs.get("start", 0), step.attrs.get("end")
            return [sizes[start:end] if step.op == "Shape" else sizes.prod()]
        return computed(step, self.network.opset, arrays)

    def _check_sizes(self, given: Mapping[str, torch.Tensor]) -> None:
        """A file of fixed sizes has them in its reshapes too: it runs at no others."""
        for declared, name in zip(self.network.inputs, self.names, strict=True):
            for axis, (size, here) in enumerate(zip(declared.sizes or (), given[name].shape, strict=False)):
                if size not in (None, here):
                    raise QuantizeError(f"input {declared.name!r} has length {size} along axis {axis}, not {here}")

    def arguments(self, sample: Any) -> dict[str, Any]:
        """The sample by name, at the file's sizes where those are fixed."""
        inputs = self.network.inputs
        takes = "the model takes " + ", ".join(repr(i.name) for i in inputs)
        if isinstance(sample, Mapping):
            if set(sample) != set(self.names):
                raise QuantizeError(f"the sample has {', '.join(map(repr, sample))}, {takes}")
            values = [sample[name] for name in self.names]
        else:
            values = list(sample) if isinstance(sample, tuple) else [sample]
            if len(values) != len(inputs):
                raise QuantizeError(f"the sample has {len(values)} array(s), {takes}")
        return {
            name: self._fitted(*pair) for name, pair in zip(self.names, zip(inputs, values, strict=True), strict=True)
        }

    def _fitted(self, declared: Input, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if not isinstance(value, np.ndarray) or declared.sizes is None:
            return value
        if value.ndim != len(declared.sizes):
            sizes = ", ".join("?" if size is None else str(size) for size in declared.sizes)
            raise QuantizeError(f"input {declared.name!r} is [{sizes}], the sample's has shape {list(value.shape)}")
        for axis, size in enumerate(declared.sizes):
            if size not in (None, value.shape[axis]) and value.shape[axis]:
                value = value.take(np.arange(size) % value.shape[axis], axis)
        return value


def _identifiers(inputs: tuple[Input, ...]) -> list[str]:
    """The inputs' names as identifiers: "input.1" is input_1."""
    names: list[str] = []
    for declared in inputs:
        name = re.sub(r"\W", "_", declared.name)
        name = name if re.match(r"[A-Za-z_]", name) else f"input_{name}"
        while name in names:
            name += "_"
        names.append(name)
    return names


def _hang(root: torch.nn.Module, label: str, operator: Operator) -> str:
    """Make the operator a submodule under its label, level by level; returns its path there, with a line below where a
    module has an attribute of the name."""
    *levels, last = label.split(".")
    path, parent = [], root
    for level in levels:
        level = _free(parent, level)
        if level not in parent._modules:
            parent.add_module(level, torch.nn.Module())
        parent = parent._modules[level]
        path.append(level)
    while hasattr(parent, last):
        last += "_"
    parent.add_module(last, operator)
    return ".".join([*path, last])


def _free(parent: torch.nn.Module, level: str) -> str:
    """The name of a level, new or there already."""
    while hasattr(parent, level) and level not in parent._modules:
        level += "_"
    return level
