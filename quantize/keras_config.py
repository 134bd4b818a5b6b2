"""The configuration of a Keras 3 model as plain records: layers with their weights, and the calls between them.

Keras names a weight by its layer's place among the layers of its class (`layers/dense_1/vars/0`), a tensor by its
layer, the how manieth call of it, and which of its results: `Ref`.

Neighbours: `keras_import.py` (reads the files), `torch_keras.py` (makes a torch module of the records).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from quantize.errors import FormatError, QuantizeError, UnsupportedError

NETWORKS = ("Sequential", "Functional")
DEEPEST = 32  # models within models

# Options that change nothing when a trained model runs. All others are asked for by the layer's importer; one that
# nobody asked for is refused, as it may change what the layer computes.
IDLE = ("name", "trainable", "dtype", "seed", "noise_shape", "rate", "stddev", "momentum", "synchronized")
IDLE += ("renorm_momentum", "renorm_clipping", "dropout", "recurrent_dropout", "unroll", "unit_forget_bias")
IDLE += ("use_cudnn", "implementation", "lora_rank")
IDLE += ("lora_alpha", "zero_output_for_mask", "input_length", "sparse", "ragged", "optional", "l1", "l2", "input_dim")
IDLE_ENDS = ("_initializer", "_regularizer", "_constraint")


class Ref(NamedTuple):
    """A tensor: result `index` of call `call` of a layer."""

    layer: str
    call: int
    index: int


@dataclass
class Layer:
    """One layer: its name and class, its options, and its weights by their path inside the layer ("cell/vars/0").

    inner: the layers that it wraps ("layer", "forward_layer", "backward_layer"), or for a layer that is a model, its
    network under "network".
    """

    name: str
    kind: str
    config: dict[str, Any]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    inner: dict[str, Any] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def option(self, key: str, default: Any = None) -> Any:
        """One of its options."""
        self.asked.add(key)
        return self.config.get(key, default)

    def refusal(self, reason: str) -> UnsupportedError:
        """The error that names the layer: `raise layer.refusal("does what it may not; do this instead")`."""
        return UnsupportedError(f"layer {self.name!r} ({self.kind}) {reason}")

    def refuse_unknown_options(self) -> None:
        """Once everything is asked for: what nobody asked for may not matter."""
        for key, value in self.config.items():
            idle = key in IDLE or key.endswith(IDLE_ENDS) or value is None or key in self.asked
            if not idle:
                raise self.refusal(f"has the option {key}={value!r}, which is not supported; leave it at its default")

    def array(self, path: str, *shape: int | None) -> np.ndarray:
        """A weight of this shape (None: any length). Raises FormatError when it is missing or has another."""
        found = self.weights.get(path)
        if found is None:
            raise FormatError(
                f"layer {self.name!r} ({self.kind}): weight {path!r} is missing from the file; a layer that several "
                "nested models share is stored only once: give each its own, or make one model of them"
            )
        fits = found.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, found.shape, strict=True))
        if not fits:
            raise FormatError(
                f"layer {self.name!r} ({self.kind}): weight {path!r} has shape {found.shape}, not {shape}: the weights "
                "and the configuration are not of one model"
            )
        if found.dtype.kind != "f" or found.dtype.itemsize < 4:
            raise UnsupportedError(
                f"layer {self.name!r} ({self.kind}): weight {path!r} is stored as {found.dtype}; quantize from the "
                "float32 model"
            )
        return found

    def tensors_stored(self) -> int:
        """How many weights the file has for the layer itself."""
        return sum(re.fullmatch(r"vars/\d+", path) is not None for path in self.weights)


@dataclass(frozen=True)
class Call:
    """One call of a layer. args, kwargs: as Keras wrote them, with a Ref for every tensor."""

    layer: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int


@dataclass(frozen=True)
class Network:
    """Layers by name, the calls in an order in which they can run, the arguments' names and the results.

    inputs: a Ref per argument, by the argument's name. shapes: Keras' batch_shape of each argument, None for a free
    length. outputs: a Ref, a list of them, or a dict of them by name.
    """

    name: str
    layers: dict[str, Layer]
    calls: tuple[Call, ...]
    inputs: dict[str, Ref]
    shapes: dict[str, tuple[int | None, ...]]
    outputs: Any


def network_of(config: Mapping[str, Any], weights: Mapping[str, np.ndarray], where: str) -> Network:
    """The network that a whole model's configuration and weights describe. Raises UnsupportedError, FormatError."""
    try:
        layer = _layer(config, _Weights(weights, ""), 0)
    except QuantizeError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise FormatError(f"{where} is damaged: its configuration lacks or misplaces {error}") from None
    network = layer.inner.get("network")
    if network is None:
        raise layer.refusal("is no model of layers; put it into a keras.Sequential")
    return network


class _Weights:
    """The weights below one path of the file."""

    def __init__(self, everything: Mapping[str, np.ndarray], path: str) -> None:
        self.everything, self.path = everything, path

    def below(self, name: str) -> _Weights:
        return _Weights(self.everything, f"{self.path}{name}/")

    def arrays(self) -> dict[str, np.ndarray]:
        start = len(self.path)
        found = {key[start:]: value for key, value in self.everything.items() if key.startswith(self.path)}
        return {key: value for key, value in found.items() if not key.endswith("@name")}

    def name(self) -> str | None:
        """The layer's name, where the file has it."""
        found = self.everything.get(f"{self.path}vars@name")
        return None if found is None else str(found)


def _layer(entry: Mapping[str, Any], weights: _Weights, depth: int) -> Layer:
    """A layer or model from its serialized form."""
    kind, config = str(entry["class_name"]), dict(entry["config"])
    layer = Layer(str(config.get("name", entry.get("name", kind))), kind, config)
    module, registered = str(entry.get("module")), entry.get("registered_name")
    if not module.startswith("keras.") and module != "keras":
        what = f"registered as {registered!r}" if registered else f"from {module}"
        raise layer.refusal(
            f"is of your own code ({what}), which a file only names; write the model with keras.layers, Sequential or "
            "functional, and set_weights it from yours"
        )
    if depth > DEEPEST:
        raise layer.refusal(f"lies in more than {DEEPEST} models within models")
    if kind in NETWORKS:
        layer.inner["network"] = _network(layer, weights, depth)
        return layer
    if "_operation" in kind or module.startswith(("keras.src.ops", "keras.ops")):
        raise layer.refusal(
            f"is an operation on tensors in the model's own code ({module}); use a layer of keras.layers in its place "
            "(Add, Multiply, Concatenate, Reshape, Rescaling ...)"
        )
    stored = weights.name()
    if stored is not None and stored != layer.name:
        raise FormatError(f"layer {layer.name!r} ({kind}): its weights are those of {stored!r}; the file is damaged")
    for key in ("layer", "forward_layer", "backward_layer"):
        if isinstance(config.get(key), Mapping):
            path = "forward_layer" if kind == "Bidirectional" and key == "layer" else key
            layer.inner[key] = _layer(config.pop(key), weights.below(path), depth + 1)
    layer.weights = weights.arrays()
    _check_precision(layer)
    return layer


def _check_precision(layer: Layer) -> None:
    dtype = layer.config.get("dtype")
    if isinstance(dtype, Mapping):
        config = dtype.get("config", {})
        dtype = config.get("name", config.get("mode"))
    if layer.kind == "InputLayer":
        return
    if layer.config.get("quantization_config") is not None or any(name in str(dtype) for name in ("int", "float8")):
        raise layer.refusal(f"is quantized already ({dtype}); quantize from the float32 model")


def _network(model: Layer, weights: _Weights, depth: int) -> Network:
    config = model.config
    below = weights.below("layers")
    if not any(key.startswith(below.path) for key in weights.everything):
        below = weights.below("_layer_checkpoint_dependencies")
    entries = config["layers"]
    used: dict[str, int] = {}
    layers: dict[str, Layer] = {}
    calls: dict[tuple[str, int], Call] = {}
    shapes: dict[str, tuple[int | None, ...]] = {}
    for entry in entries:
        place = _snake(str(entry["class_name"]))
        used[place] = used.get(place, 0) + 1
        place += f"_{used[place] - 1}" if used[place] > 1 else ""
        layer = _layer(entry, below.below(place), depth + 1)
        if layer.name in layers:
            raise FormatError(f"model {model.name!r} has two layers named {layer.name!r}")
        layers[layer.name] = layer
        if layer.kind == "InputLayer":
            shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
            shapes[layer.name] = tuple(shape)
        for number, node in enumerate(entry.get("inbound_nodes", [])):
            calls[layer.name, number] = _call(layer, node, number)
    if model.kind == "Sequential":
        return _chain(model, layers, shapes)
    inputs, outputs = _tensors(config["input_layers"], layers), _tensors(config["output_layers"], layers)
    if isinstance(outputs, list) and len(outputs) == 1:
        outputs = outputs[0]  # as Keras 3 wrote a single one at first
    named = inputs if isinstance(inputs, dict) else {ref.layer: ref for ref in leaves(inputs)}
    wanted = {key: shapes[ref.layer] for key, ref in named.items()}
    return Network(model.name, layers, tuple(_ordered(calls, outputs, layers)), named, wanted, outputs)


def _chain(model: Layer, layers: dict[str, Layer], shapes: dict[str, tuple[int | None, ...]]) -> Network:
    """A Sequential model: every layer is called once, on what the one before it gives."""
    names = [name for name, layer in layers.items() if layer.kind != "InputLayer"]
    if not names:
        raise model.refusal("has no layers")
    first = next(iter(shapes), "input")
    shape = shapes.get(first) or model.config.get("build_input_shape")
    now = Ref(first, 0, 0)
    start = now
    calls = []
    for name in names:
        calls.append(Call(name, (now,), {}, 0))
        now = Ref(name, 0, 0)
    return Network(model.name, layers, tuple(calls), {first: start}, {first: tuple(shape)} if shape else {}, now)


def _call(layer: Layer, node: Any, number: int) -> Call:
    if not isinstance(node, Mapping):
        raise FormatError(f"layer {layer.name!r} ({layer.kind}): its calls are in the form of an earlier Keras")
    kwargs = {key: _arguments(value) for key, value in node.get("kwargs", {}).items()}
    if leaves(kwargs.pop("mask", None)):
        raise layer.refusal("takes a mask; masks are not supported: feed sequences without padding")
    if kwargs.pop("training", None):
        raise layer.refusal("is called with training=True; call it without")
    args = tuple(_arguments(value) for value in node["args"])
    return Call(layer.name, args, {key: value for key, value in kwargs.items() if value is not None}, number)


def _arguments(value: Any) -> Any:
    """Keras' serialized arguments, with a Ref for every tensor."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            name, call, index = value["config"]["keras_history"]
            return Ref(str(name), int(call), int(index))
        return {key: _arguments(entry) for key, entry in value.items()}
    return [_arguments(entry) for entry in value] if isinstance(value, list) else value


def _tensors(value: Any, layers: Mapping[str, Layer]) -> Any:
    """input_layers and output_layers: [layer, call, index], or lists or a dict of those. Here, unlike in the arguments
    of calls, Keras counts the call by which a Functional model was made."""
    if isinstance(value, Mapping):
        return {str(key): _tensors(entry, layers) for key, entry in value.items()}
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return Ref(value[0], int(value[1]) - (layers[value[0]].kind == "Functional"), int(value[2]))
    return [_tensors(entry, layers) for entry in value]


def leaves(value: Any) -> list[Ref]:
    """The tensors in a structure of arguments, in order."""
    if isinstance(value, Ref):
        return [value]
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [ref for entry in entries for ref in leaves(entry)]


def _ordered(calls: Mapping[tuple[str, int], Call], outputs: Any, layers: Mapping[str, Layer]) -> Iterator[Call]:
    """The calls that the outputs depend on, each after those whose results it takes."""
    done: set[tuple[str, int]] = set()
    open_: set[tuple[str, int]] = set()
    waiting = [ref[:2] for ref in reversed(leaves(outputs))]
    while waiting:
        key = waiting[-1]
        if key in done or layers[key[0]].kind == "InputLayer":
            waiting.pop()
            continue
        if key not in calls:
            raise FormatError(f"call {key[1]} of layer {key[0]!r} is missing from the configuration")
        call = calls[key]
        needed = [ref[:2] for ref in leaves([call.args, call.kwargs])]
        needed = [other for other in needed if other not in done and layers[other[0]].kind != "InputLayer"]
        if not needed:
            done.add(key)
            waiting.pop()
            yield call
        elif key in open_:
            raise FormatError(f"layer {key[0]!r}: its calls depend on each other in a circle")
        else:
            open_.add(key)
            waiting += needed


def _snake(name: str) -> str:
    """The class' name as Keras spells it in paths of weights: conv1d of Conv1D, layer_normalization."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
