"""Import a torch model: nn.Module, ExportedProgram or .pt2 file -> Graph of one step of a stream, or of one window.

The way: torch.export gives a flat program; unsupported operations and bad weights are refused before anything else; a
first walk infers which axis of each input is batch, time and features; a module is then exported again with lengths of
our own choice, so that nothing in the graph can come from the sample's; a second walk builds the graph; and the graph
is run against the model, so that a mistake here is an error and never a wrong net.

Neighbours: `torch_program.py` (the walks), `nn.py` (its operators are registered by importing this file, as loading a
.pt2 that holds them needs), `graph.py` (what comes out), `float_run.py` (the check run).
"""

from __future__ import annotations

import copy
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from quantize import nn as _operators  # noqa: F401  (registers rtcore::gru)
from quantize.errors import FormatError, QuantizeError, UnsupportedError
from quantize.float_run import run_graph
from quantize.graph import Graph
from quantize.signature import to_frames
from quantize.torch_program import FLOATS, Program, Roles, primes, resized

Call = tuple[tuple, dict]  # (args, kwargs) of tensors

CHECK_STREAMS, CHECK_STEPS = 3, 40  # as much of the sample as the check run takes


FORMS = ("auto", "stream", "window")


def import_model(model: Any, sample: Any = None, form: str = "auto", batch_first: bool = False) -> Graph:
    """Turn a torch model into the graph of one step.

    model:  an nn.Module (a copy of it is exported in eval mode; the module itself stays as it is), an ExportedProgram,
            or the path of a .pt2 file that torch.export.save wrote.
    sample: what the model takes: a numpy array or torch tensor (float32 or float64), a tuple for several arguments, a
            dict for keyword arguments; any batch size and length. Needed for an nn.Module, otherwise only checked.
    form:   "stream": a step takes one frame and carries the state on; "window": a step takes a whole window, of the
            sample's length; "auto": a stream where the model is one, else a window. The graph's notes say which.
    batch_first: axis 0 of every argument of an nn.Module is known to be the batch; otherwise it is found out.

    Raises UnsupportedError for a construct that cannot be streamed in fixed point (operation, layer, source line and
    remedy), FormatError for a file that is not a .pt2, QuantizeError for NaN or infinite weights and for a sample that
    does not fit the model.
    """
    if form not in FORMS:
        raise QuantizeError(f"form {form!r}: one of {', '.join(FORMS)}")
    if isinstance(model, (str, os.PathLike)):
        model = _load(Path(model))
    if isinstance(model, ExportedProgram):
        graph = _in_form(form, lambda window: _import_program(model, sample, window))
    elif isinstance(model, torch.nn.Module):
        graph = _import_module(model, sample, form, batch_first)
    else:
        raise QuantizeError(
            f"cannot import a {type(model).__name__}: give an nn.Module, an ExportedProgram or the path of a .pt2 file"
        )
    if sample is not None:
        to_frames(graph.signature, sample)
    return graph


def _in_form(form: str, make: Callable[[bool], Graph]) -> Graph:
    """make(window), as a stream first where the form is open."""
    if form != "auto":
        return make(form == "window")
    try:
        graph = make(False)
        return make(True) if _sees_positions(graph) else graph
    except UnsupportedError as stream:
        try:
            graph = make(True)
        except UnsupportedError as window:
            reasons = [str(stream), str(window)]
            if reasons[0] == reasons[1]:
                raise
            raise UnsupportedError(f"as a stream: {reasons[0]}\nas a window: {reasons[1]}") from None
        return replace(graph, notes=(*graph.notes, f"it is no stream: {stream}"))


def _sees_positions(graph: Graph) -> bool:
    """Whether what could be streamed is an image all the same: it slides a kernel, and remembers nothing."""
    ops = {node.op for node in graph.nodes}
    streamed = any("time" in argument.axes for argument in graph.signature.arguments)
    return streamed and bool(ops & {"conv", "pool"}) and not ops & {"gru", "lstm", "rnn", "delay"}


def _import_module(model: torch.nn.Module, sample: Any, form: str, batch_first: bool) -> Graph:
    if sample is None:
        raise QuantizeError("a sample of the model's input is needed to export an nn.Module")
    try:
        twin = copy.deepcopy(model).cpu().eval()
    except RuntimeError as error:  # as under the old torch.nn.utils.weight_norm, whose weights are computed tensors
        raise UnsupportedError(f"the module cannot be copied: {_first_line(error)}") from error
    dtype = next((p.dtype for p in twin.parameters() if p.dtype in FLOATS), torch.float32)
    call = _as_call(sample, dtype)
    first = Program(_export(twin, call))
    return _in_form(form, lambda window: _build_module(twin, first, call, first.infer(window, batch_first), window))


def _build_module(twin: torch.nn.Module, first: Program, call: Call, roles: Roles, window: bool) -> Graph:
    try:
        second = Program(_export(twin, _with_free_sizes(first, roles, call)))
    except QuantizeError:
        second = None  # the module has sizes of its sample written into it: the first export has to do
    graph = (second or first).build(roles, window)
    if second:
        call = _sized(first, roles, call, {"batch": CHECK_STREAMS, "time": CHECK_STEPS}, min)
    problem = _difference(graph, twin, call)
    if problem:
        first.build(roles, window)  # may name the operation that depends on the sizes
        raise UnsupportedError(problem)
    if second is None:
        note = "the module runs at its sample's sizes only; other batch sizes and lengths are taken to be alike"
        graph = replace(graph, notes=(*graph.notes, note))
    return graph


def _import_program(exported: ExportedProgram, sample: Any, window: bool) -> Graph:
    program = Program(exported)
    roles = program.infer(window)
    graph = program.build(roles, window)
    given: dict[str, torch.Tensor] = {}
    if sample is not None:
        args, kwargs = _as_call(sample, torch.float64)
        given = dict(zip(program.inputs, args, strict=False)) | kwargs
    problem = _difference(graph, exported.module(), program.example(given))
    if problem:
        raise UnsupportedError(problem)
    return graph


# --- files and exports ----------------------------------------------------------------------------------------------


def _load(path: Path) -> ExportedProgram:
    """Read a .pt2. It is data: anything that would have to be unpickled as code is refused."""
    advice = "export the model with torch.export.export and write it with torch.export.save"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from None
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise FormatError(f"{path} is not a .pt2 file (or a truncated one); {advice}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise FormatError(f"{path} is damaged: {damaged} fails its checksum")
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
            if "archive_format" not in names and "serialized_exported_program.json" not in names:  # before torch 2.8
                what = "pickled Python objects (torch.save or TorchScript)" if "data.pkl" in names else "other files"
                raise FormatError(f"{path} holds {what}, it is not a .pt2; {advice}")
            _refuse_pickles(path, archive)
    except (zipfile.BadZipFile, OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"{path} is damaged: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(io.BytesIO(data))
    except Exception as error:  # torch raises whatever its own reader stumbled over
        raise FormatError(f"{path} cannot be loaded: {_first_line(error)}") from None


def _refuse_pickles(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse the parts of a .pt2 that torch.export.load would unpickle without restriction."""
    for name in archive.namelist():
        if name.endswith("_config.json"):
            config = json.loads(archive.read(name)).get("config", {})
            plain = (str(entry.get("path_name")).startswith(("weight_", "tensor_")) for entry in config.values())
            if not all(plain) or any(entry.get("use_pickle") for entry in config.values()):
                raise FormatError(f"{path} holds pickled Python objects ({name}); only plain tensors are loaded")
        elif "/data/sample_inputs/" in name or name.endswith(".pt"):
            content = archive.read(name)
            try:
                if content:
                    torch.load(io.BytesIO(content), weights_only=True)
            except Exception:
                raise FormatError(
                    f"{path} holds pickled Python objects ({name}); only plain tensors are loaded"
                ) from None


def _export(module: torch.nn.Module, call: Call) -> ExportedProgram:
    args, kwargs = call
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, args, kwargs)
    except QuantizeError:
        raise  # an ONNX file's module says what is wrong by itself
    except Exception as error:  # torch.export has no common base for its failures
        try:
            with torch.no_grad():
                module(*args, **kwargs)
        except QuantizeError:
            raise
        except Exception as own:
            whole = any(not tensor.is_floating_point() for tensor in [*args, *kwargs.values()])
            advice = "; integers are for an Embedding, all else takes float32 or float64" if whole else ""
            raise QuantizeError(f"the model does not run on the sample: {_first_line(own)}{advice}") from own
        raise UnsupportedError(
            f"torch.export cannot capture the model: {_first_line(error)} (forward must be free of control flow that "
            "depends on values)"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# --- samples --------------------------------------------------------------------------------------------------------


def _as_call(sample: Any, dtype: torch.dtype) -> Call:
    """The sample as positional and keyword tensors of `dtype` on the CPU."""

    def convert(name: str, value: Any) -> torch.Tensor:
        if not isinstance(value, (np.ndarray, torch.Tensor)):
            raise QuantizeError(f"the sample's {name} is a {type(value).__name__}: give a numpy array or torch tensor")
        kind = value.dtype.newbyteorder("=") if isinstance(value, np.ndarray) else value.dtype
        if str(kind).removeprefix("torch.") not in ("float32", "float64", "int32", "int64"):
            raise UnsupportedError(
                f"the sample's {name} has dtype {kind}: inputs must be float32 or float64 (indices int64); convert it"
            )
        tensor = torch.tensor(value.astype(kind)) if isinstance(value, np.ndarray) else value.detach().cpu()
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    if isinstance(sample, Mapping):
        return (), {str(name): convert(f"argument {name!r}", value) for name, value in sample.items()}
    values = sample if isinstance(sample, tuple) else (sample,)
    return tuple(convert(f"argument {i}", value) for i, value in enumerate(values)), {}


def _with_free_sizes(program: Program, roles: Roles, call: Call) -> Call:
    """The sample with prime batch and time lengths that occur nowhere else in the program."""
    taken = {size for shape in program.shapes.values() for size in shape}
    free = (p for p in primes() if p not in taken)
    keys = {key for _, axes in roles.values() for key in axes if key[0] in ("batch", "time")}
    chosen = {key: next(free) for key in sorted(keys)}
    return _sized(program, roles, call, chosen, lambda size, wanted: wanted)


def _sized(
    program: Program, roles: Roles, call: Call, wanted: Mapping[Any, int], choose: Callable[[int, int], int]
) -> Call:
    """The sample with each axis at choose(its length, wanted[role] or wanted[role, index]), others as they are."""

    def resize(name: str, tensor: torch.Tensor) -> torch.Tensor:
        shape = []
        for size, key in zip(tensor.shape, roles[name][1], strict=True):
            limit = wanted.get(key, wanted.get(key[0]))
            shape.append(size if limit is None else choose(size, limit))
        return resized(tensor, tuple(shape))

    args, kwargs = call
    return (
        tuple(resize(name, tensor) for name, tensor in zip(program.inputs, args, strict=False)),
        {name: resize(name, tensor) for name, tensor in kwargs.items()},
    )


# --- the check run --------------------------------------------------------------------------------------------------


def _difference(graph: Graph, model: Callable[..., Any], call: Call) -> str:
    """Run graph and model on the same call; say what differs, or "".

    The bound, 1e-3 of the peak, is far above what float32 rounding brings and far below what a wrong axis or a length
    used as a number does.
    """
    args, kwargs = call
    with torch.no_grad():
        expected = [leaf.double().numpy() for leaf in pytree.tree_leaves(model(*args, **kwargs))]
    given = [tensor for tensor in args if tensor is not None]
    inputs = dict(zip((a.name for a in graph.signature.arguments), given, strict=False))
    inputs |= {name: tensor for name, tensor in kwargs.items() if tensor is not None}
    if not all(tensor.isfinite().all() for tensor in inputs.values()):
        return ""
    got = run_graph(graph, inputs)
    got = [got] if isinstance(got, np.ndarray) else list(got.values() if isinstance(got, dict) else got)
    cause = (
        "the model's arithmetic depends on its batch size or length (a size used as a number, or an axis squeezed when "
        "it happens to be 1), so it cannot be streamed"
    )
    for result, mine, its in zip(graph.signature.results, got, expected, strict=True):
        if mine.shape != its.shape:
            return f"result {result.name!r} has shape {its.shape}, but streamed it has {mine.shape}: {cause}"
        if np.isfinite(its).all():
            error, peak = np.abs(mine - its).max(), np.abs(its).max()
            if not error <= 1e-3 * peak + 1e-6:
                return f"result {result.name!r} differs by {error:.3g} (peak {peak:.3g}) when streamed: {cause}"
    return ""
