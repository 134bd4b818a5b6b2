"""quantize: a trained float model to fixed-point tables, and to C.

    qmodel = quantize.quantize(model, calibration, weight_bits=8)
    qmodel.save("net.safetensors");  qmodel = quantize.load("net.safetensors")
    quantize.generate(qmodel, "build/net", name="net")

Importing this needs numpy, jinja2 and safetensors; torch only when a torch model is handed over (`quantize.nn` and the
importer load it). Data flows one way: torch_import -> graph -> ranges -> plan -> tables -> emit_c. Neighbours: `rtcore`
below (runs tables), `firmware_sim` above (simulates the firmware).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from quantize.errors import CalibrationError, FormatError, PlanError, QuantizeError, UnsupportedError
from quantize.graph import Graph
from quantize.keras_import import is_keras, read_keras
from quantize.model import QuantizedModel, load
from quantize.plan import make_plan
from quantize.ranges import calibrate
from quantize.tables import build_tables

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CalibrationError",
    "FormatError",
    "PlanError",
    "QuantizeError",
    "QuantizedModel",
    "UnsupportedError",
    "generate",
    "import_model",
    "load",
    "quantize",
    "quantize_graph",
]

HEADROOM = 1.25  # formats hold this many times the calibrated range
GOLDEN_STEPS = 8


def __getattr__(name: str) -> Any:
    """quantize.nn and quantize.lineage are loaded when they are asked for, as they need torch."""
    if name in ("nn", "lineage"):
        return importlib.import_module(f"quantize.{name}")
    raise AttributeError(f"module 'quantize' has no attribute {name!r}")


def import_model(model: Any, sample: Any, form: str = "auto") -> Graph:
    """The float graph of a torch or Keras model, or of an ONNX file.

    model: nn.Module (an eval-mode copy is read, yours stays as it was), torch.export.ExportedProgram, a keras.Model
    (Sequential or functional), or the path of a .pt2, .onnx or .keras file; sample: what the model takes; form:
    "stream" (a step takes one frame), "window" (a step takes the whole window, of the sample's length) or "auto" (a
    stream where the model is one; the graph's notes say which).

    Raises UnsupportedError naming what is not supported and where it stands.
    """
    try:
        if is_keras(model):
            from quantize.torch_keras import import_keras  # noqa: PLC0415 (torch is optional)

            return import_keras(read_keras(model), sample, form)
        importer = importlib.import_module("quantize.onnx_import" if is_onnx(model) else "quantize.torch_import")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "onnx"):
            raise
        kind = "a Keras model" if is_keras(model) else "an ONNX file" if is_onnx(model) else "a torch model"
        extra = "onnx" if is_onnx(model) else "torch"
        raise QuantizeError(f"reading {kind} needs {error.name}: pip install 'rtcore[{extra}]'") from error
    return importer.import_model(model, sample, form)


def is_onnx(model: Any) -> bool:
    """Whether it is the path of an ONNX file."""
    return isinstance(model, (str, os.PathLike)) and os.fspath(model).lower().endswith(".onnx")


def quantize(
    model: Any,
    calibration: Any,
    weight_bits: int | Mapping[str, int] = 16,
    *,
    accumulator_bits: int | None = None,
    percentile: float | None = None,
    headroom: float = HEADROOM,
    form: str = "auto",
) -> QuantizedModel:
    """Quantizes a trained model after training.

    model:            nn.Module, ExportedProgram, keras.Model, or path to a .pt2, .onnx or .keras.
    calibration:      one sample of what model(...) takes (array or tensor; a tuple or dict for several inputs), or a
                      list or generator of such samples; any batch size and time length.
    weight_bits:      8 or 16, or a mapping {"layer": bits, "gru_layer.recurrent": bits, "*": bits}.
    accumulator_bits: None: int32 sums where proven, int64 elsewhere; 32: narrow weight rows until int32 is proven.
    percentile:       None takes the extremes of the calibration data; 99.99 lets the rest saturate.
    headroom:         formats of unbounded tensors hold this many times that range.
    form:             "stream", "window" or "auto": see `import_model`.

    Raises UnsupportedError, CalibrationError or PlanError, each naming the layer, the value, the limit and the remedy.
    """
    samples = iter(calibration) if is_many(calibration) else iter([calibration])
    try:
        first = next(samples)
    except StopIteration:
        raise CalibrationError("calibration: no sample given; pass frames as the model takes them") from None
    graph = import_model(model, first, form)
    return quantize_graph(
        graph,
        chain(first, samples),
        weight_bits,
        accumulator_bits=accumulator_bits,
        percentile=percentile,
        headroom=headroom,
    )


def quantize_graph(
    graph: Graph,
    samples: Iterable,
    weight_bits: int | Mapping[str, int] = 16,
    *,
    accumulator_bits: int | None = None,
    percentile: float | None = None,
    headroom: float = HEADROOM,
) -> QuantizedModel:
    """`quantize` for a graph that is already imported; samples: an iterable of what the model takes."""
    check_options(graph, weight_bits, accumulator_bits, percentile, headroom)
    ranges = calibrate(graph, samples)
    plan = make_plan(graph, ranges, headroom, percentile)
    return QuantizedModel(build_tables(graph, plan, weight_bits, accumulator_bits), graph.signature)


def generate(
    qmodel: QuantizedModel,
    out_dir: str | os.PathLike,
    name: str = "net",
    core: str = "portable",
    package: str | None = None,
) -> list[Path]:
    """Writes NAME.h, NAME_weights.h, NAME.c, NAME_selftest.c, the kernels and a CMakeLists.txt into out_dir.

    core: "portable" kernels run everywhere; "cortex-m4" has its own for M4, M7 and M33, with the same bits, and
          so have "cortex-m55" (Helium), "cortex-m3", "cortex-m0" and "rv32imc".
    package: a self-contained one instead: "cmake", "arduino", "platformio", "zephyr" or "single", one .c and one .h.
    Deterministic; all files are written or none. Returns the paths. Raises QuantizeError for a bad name.
    """
    from quantize.emit_c import generate as emit  # noqa: PLC0415 (keeps jinja2 out of loading and running)
    from quantize.golden import golden_vectors  # noqa: PLC0415
    from quantize.package import generate_package  # noqa: PLC0415

    options = {"digest": qmodel.digest, "selftest": golden_vectors(qmodel.tables, GOLDEN_STEPS), "core": core}
    if package is None:
        return emit(qmodel.tables, out_dir, name, **options)
    return generate_package(qmodel.tables, out_dir, name, package, **options)


def is_many(calibration: Any) -> bool:
    """A list, or a generator or other iterator, is many samples; an array, tensor, tuple or dict is one."""
    return isinstance(calibration, list) or (
        hasattr(calibration, "__next__") and not isinstance(calibration, (np.ndarray, tuple, dict))
    )


def chain(first: Any, rest: Iterable) -> Iterable:
    yield first
    yield from rest


def check_options(graph: Graph, weight_bits: Any, accumulator_bits: Any, percentile: Any, headroom: float) -> None:
    """Refuses options that mean nothing, before any work."""
    widths = weight_bits.values() if isinstance(weight_bits, Mapping) else [weight_bits]
    for bits in widths:
        if isinstance(bits, bool) or bits not in (8, 16):
            raise QuantizeError(f"weight_bits {bits!r}: weights are 8 or 16 bits wide")
    if isinstance(weight_bits, Mapping):
        known = {"*"}
        for node in graph.nodes:
            if node.op in ("linear", "conv"):
                known |= {node.name}
            if "weight_hh" in node.params:
                known |= {node.name, f"{node.name}.input", f"{node.name}.recurrent"}
            if "weight_hr" in node.params:
                known |= {f"{node.name}.projection"}
        for key in weight_bits:
            if key not in known:
                raise QuantizeError(f"weight_bits for {key!r}: the model has {', '.join(sorted(known))}")
    if accumulator_bits not in (None, 32):
        raise QuantizeError(f"accumulator_bits {accumulator_bits!r}: None (proven, 32 or 64) or 32")
    if percentile is not None and not 50 < percentile <= 100:
        raise QuantizeError(f"percentile {percentile!r}: above 50, at most 100")
    if not 1 <= headroom <= 1024:
        raise QuantizeError(f"headroom {headroom!r}: 1 to 1024 times the calibrated range")
