"""A Keras network as a torch module: its submodules bear the names of the Keras layers, so that all messages and the
finished net do too. What enters and leaves every layer lies as in Keras: [batch, time, features], channels last.

Neighbours: `keras_import.py`, `keras_config.py` (read the network), `torch_keras_layers.py`, `torch_keras_windows.py`
and `torch_keras_recurrent.py` (one maker per layer class), `torch_import.py` (reads the module).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from quantize import torch_keras_recurrent, torch_keras_windows  # noqa: F401  (makers)
from quantize.errors import QuantizeError
from quantize.graph import Graph
from quantize.keras_config import NETWORKS, Network, Ref
from quantize.torch_import import import_model
from quantize.torch_keras_layers import made


def import_keras(network: Network, sample: Any = None, form: str = "auto") -> Graph:
    """The graph of one step, as `torch_import.import_model` gives it; sample: arrays as Keras takes them.

    Raises UnsupportedError naming the layer and its class, QuantizeError for a sample that the model does not take.
    """
    if sample is None:
        raise QuantizeError("a sample of the model's input is needed to read a Keras model")
    _check_sample(network, sample)
    return import_model(module_of(network), sample, form, batch_first=True)


def module_of(network: Network) -> nn.Module:
    """The whole model as a torch module in eval mode; its arguments have the names of the Keras inputs."""
    names = [_identifier(name) for name in network.inputs]
    self_ = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    signature = inspect.Signature([self_, *parameters])

    def forward(self: Any, *given: torch.Tensor, **named: torch.Tensor) -> Any:
        return self.compute(*signature.bind(self, *given, **named).args[1:])

    forward.__signature__ = signature  # torch.export names the arguments by it
    return type("Model", (Calls,), {"forward": forward, "__module__": __name__})(network).eval()


class Calls(nn.Module):
    """A network's layers, called one after the other."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.places: dict[str, str] = {}  # layer -> attribute
        for call in network.calls:
            layer = network.layers[call.layer]
            if layer.name in self.places:
                continue
            module = Calls(layer.inner["network"]) if layer.kind in NETWORKS else made(layer)
            place = re.sub(r"\W", "_", layer.name) or "layer"
            while hasattr(self, place):
                place += "_"
            self.add_module(place, module)
            self.places[layer.name] = place

    def forward(self, *given: Any) -> Any:
        """As a layer of another model: tensors, or one list or dict of them, as that model gives them."""
        flat = list(_flat(given[0], list(self.network.inputs))) if len(given) == 1 else list(given)
        return self.compute(*flat)

    def compute(self, *given: torch.Tensor) -> Any:
        """The results, in Keras' containers, for the arguments in order."""
        values: dict[Ref, Any] = dict(zip(self.network.inputs.values(), given, strict=True))

        def resolved(value: Any) -> Any:
            if isinstance(value, Ref):
                return values[value]
            if isinstance(value, Mapping):
                return {key: resolved(entry) for key, entry in value.items()}
            return [resolved(entry) for entry in value] if isinstance(value, (list, tuple)) else value

        for call in self.network.calls:
            module = getattr(self, self.places[call.layer])
            results = module(*resolved(call.args), **resolved(call.kwargs))
            for index, result in enumerate(_flat(results, None)):
                values[Ref(call.layer, call.number, index)] = result
        return resolved(self.network.outputs)


def _flat(value: Any, order: list[str] | None) -> list[Any]:
    """The tensors in a layer's arguments or results."""
    if isinstance(value, Mapping):
        return [value[key] for key in (order if order is not None and set(order) == set(value) else value)]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _identifier(name: str) -> str:
    name = re.sub(r"\W", "_", name)
    return name if re.match(r"[A-Za-z_]", name) else f"input_{name}"


def _check_sample(network: Network, sample: Any) -> None:
    """The rank and the features that each input takes; time may be of any length."""
    names = list(network.inputs)
    if isinstance(sample, Mapping):
        given = dict(sample)
        wanted = {_identifier(name): network.shapes.get(name) for name in names}
        if set(given) != set(wanted):
            raise QuantizeError(f"the model takes {', '.join(wanted)}; the sample has {', '.join(map(str, given))}")
    else:
        values = sample if isinstance(sample, tuple) else (sample,)
        if len(values) != len(names):
            raise QuantizeError(f"the model takes {len(names)} ({', '.join(names)}); the sample has {len(values)}")
        given = dict(zip(names, values, strict=True))
        wanted = {name: network.shapes.get(name) for name in names}
    for name, value in given.items():
        shape, expected = tuple(getattr(value, "shape", ())), wanted[name]
        if expected is None or not hasattr(value, "shape"):
            continue
        if len(shape) != len(expected) or expected[-1] not in (None, shape[-1]):
            free = ["any" if n is None else str(n) for n in expected]
            raise QuantizeError(f"input {name!r} takes [{', '.join(free)}]; the sample's has shape {list(shape)}")
