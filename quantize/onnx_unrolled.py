"""A recurrent layer that an exporter has unrolled over its steps becomes one step again.

torch's exporter writes nn.RNN as one product over all frames and then, frame by frame,

    x_k = Squeeze(Slice(product, k)),  h_k = Tanh(h_(k-1) R + b + x_k)  (or Relu)

and at the end Concat(h_0 .. h_(T-1)); the backward direction has the frames in reverse, before and after. All of it
becomes the operator "UnrolledRNN", which ONNX has not and `onnx_recurrent.py` knows, so that a network gives the same
tables whichever way it came, and streams. What differs in anything stays as it is. Neighbours: `onnx_fusions.py` (runs
before, on the same steps), `onnx_graph.py` (asks).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ACTIVATIONS = {"Tanh": "tanh", "Relu": "relu"}


@dataclass(frozen=True)
class _Chain:
    """One direction of one layer. made: the steps that it is made of; first: the product over all frames; place: the
    step before which all that it reads is there."""

    first: Any
    place: Any
    recurrent: tuple[str, str]  # R and its bias, or ""
    start: str  # the initial state's name, "" for zeros
    activation: str
    states: tuple[str, ...]  # h_0 .. h_(T-1)
    backwards: bool
    made: tuple[Any, ...]


def rolled(steps: Sequence[Any], constants: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[Any]:
    """The steps with every unrolled layer as one."""
    unroller = _Unroller(steps, constants, outputs)
    chains = [chain for step in steps for chain in [unroller.chain(step)] if chain is not None]
    layers: list[list[_Chain]] = []
    for chain in chains:
        for layer in layers:
            if len(layer) == 1 and unroller.pair(layer[0], chain):
                layer.append(chain)
                break
        else:
            layers.append([chain])
    gone = {id(step) for chain in chains for step in chain.made}
    whole = {}
    for layer in layers:
        step, concats = unroller.layer(sorted(layer, key=lambda chain: chain.backwards))
        gone |= {id(concat) for concat in concats}
        whole[id(layer[0].place)] = step
    result = []
    for step in steps:
        if id(step) in whole:
            result.append(whole[id(step)])
        elif id(step) not in gone:
            result.append(step)
    return result


class _Unroller:
    def __init__(self, steps: Sequence[Any], constants: Mapping[str, np.ndarray], outputs: Sequence[str]) -> None:
        self.constants = constants
        self.made = {name: step for step in steps for name in step.outputs if name}
        self.readers: dict[str, list[Any]] = {}
        for step in steps:
            for name in step.inputs:
                self.readers.setdefault(name, []).append(step)
        self.count = Counter({name: len(readers) for name, readers in self.readers.items()})
        self.count.update(outputs)

    def ints(self, name: str) -> list[int]:
        return np.reshape(self.constants.get(name, ()), -1).tolist()

    def single(self, name: str, *ops: str) -> Any:
        """The only step that reads a value, if it is one of these operators."""
        readers = self.readers.get(name, [])
        return readers[0] if self.count[name] == 1 and readers and readers[0].op in ops else None

    def product(self, step: Any) -> bool:
        """Whether a step multiplies by a constant matrix [M, N], and adds a constant [N] or nothing."""
        return step is not None and step.op in ("Linear", "MatMul") and np.ndim(self.constants.get(step.inputs[1])) == 2

    # ---------------------------------------------------------------------------------------------- one direction --

    def chain(self, product: Any) -> _Chain | None:
        """The direction whose product over all frames this is."""
        if not self.product(product):
            return None
        sums, made = product.outputs[0], [product]
        flip = self.single(sums, "Slice")
        backwards = flip is not None and self.flips(flip)
        if backwards:
            sums = flip.outputs[0]
            made.append(flip)
        frames = self.frames(sums)
        if frames is None:
            return None
        states: list[str] = []
        recurrent = start = activation = None
        for k, (slice_, squeeze) in enumerate(frames):
            add = self.single(squeeze.outputs[0], "Add")
            act = None if add is None else self.single(add.outputs[0], *ACTIVATIONS)
            if act is None or (activation or act.op) != act.op:
                return None
            activation = act.op
            other = add.inputs[add.inputs[0] == squeeze.outputs[0]]
            found = self.recurrence(other)
            if found is not None:
                h, weights, parts = found
                if not self.same(recurrent or weights, weights) or (k > 0 and h != states[-1]):
                    return None
                recurrent, start = recurrent or weights, h if k == 0 else start
                made += parts
            elif k > 0 or other not in self.constants:
                return None
            else:
                start = other
            made += [slice_, squeeze, add, act]
            states.append(act.outputs[0])
        if recurrent is None or not self.leads_on(states):
            return None
        if start in self.constants:
            if not self.begins_at_zero(start, recurrent[1]):
                return None
            start = ""
        place = self.made[states[0]]
        return _Chain(product, place, recurrent, start, ACTIVATIONS[activation], tuple(states), backwards, tuple(made))

    def recurrence(self, sums: str) -> tuple[str, tuple[str, str], list[Any]] | None:
        """h, (R, bias or "") and the steps of sums h R + bias that are read once; of a known h they are apart."""
        step = self.made.get(sums)
        if step is None or self.count[sums] != 1:
            return None
        if self.product(step):
            return step.inputs[0], (step.inputs[1], (*step.inputs, "")[2]), [step]
        product = self.made.get(step.inputs[0])
        if step.op != "Add" or step.inputs[1] not in self.constants or not self.product(product):
            return None
        whole = self.count[product.outputs[0]] == 1 and product.op == "MatMul"
        return (product.inputs[0], (product.inputs[1], step.inputs[1]), [product, step]) if whole else None

    def same(self, some: tuple[str, ...], others: tuple[str, ...]) -> bool:
        """Whether constants are equal, by their names or by their elements."""
        pairs = zip(some, others, strict=True)
        return all(a == b or (a and b and np.array_equal(self.constants[a], self.constants[b])) for a, b in pairs)

    def flips(self, step: Any) -> bool:
        """Whether a Slice turns the first axis round."""
        start, stop, axes, stride = (self.ints(name) for name in (*step.inputs[1:], *[""] * 4)[:4])
        return start == [-1] and stop[:1] < [-(2**31)] and axes == [0] and stride == [-1]

    def frames(self, sums: str) -> list[tuple[Any, Any]] | None:
        """The Slice and the Squeeze of every frame, in order; None unless nothing else reads the sums."""
        found = {}
        for step in self.readers.get(sums, []):
            begin, end, axes, stride = (self.ints(name) for name in (*step.inputs[1:], *[""] * 4)[:4])
            plain = step.op == "Slice" and axes == [0] and stride in ([], [1]) and len(begin) == len(end) == 1
            squeeze = self.single(step.outputs[0], "Squeeze") if plain and end[0] == begin[0] + 1 else None
            if squeeze is None or self.ints((*squeeze.inputs, "")[1]) != [0]:
                return None
            found[begin[0]] = (step, squeeze)
        complete = len(found) > 1 and self.count[sums] == len(found) and sorted(found) == list(range(len(found)))
        return [found[k] for k in range(len(found))] if complete else None

    def leads_on(self, states: list[str]) -> bool:
        """Whether the states but the last are read by the next step and the Concat alone."""
        joined = self.joined(states)
        reads = 1 if joined is None else 2
        return all(self.count[state] == reads for state in states[:-1])

    def joined(self, states: Sequence[str]) -> Any:
        """The Concat of all states, in either order."""
        for step in self.readers.get(states[0], []):
            if step.op == "Concat" and step.attrs.get("axis") == 0 and sorted(step.inputs) == sorted(states):
                return step
        return None

    def begins_at_zero(self, sums: str, bias: str) -> bool:
        """Whether the first recurrent sums, a constant, are the bias alone."""
        array = self.constants[sums]
        return bool(np.all(array == (self.constants[bias] if bias else 0)))

    # ------------------------------------------------------------------------------------------------ whole layers --

    def pair(self, one: _Chain, other: _Chain) -> bool:
        """Whether they are both directions of a layer."""
        same = one.activation == other.activation and len(one.states) == len(other.states)
        same = same and bool(one.start) == bool(other.start) and one.backwards != other.backwards
        return same and one.first.inputs[0] == other.first.inputs[0]

    def layer(self, chains: list[_Chain]) -> tuple[Any, list[Any]]:
        """The step that stands for them, and the Concats that it also stands for. inputs: x, then per direction W, R
        and their biases, and the initial state; outputs: all outputs, then per direction its own and its last state."""
        inputs, parts, done = [chains[0].first.inputs[0]], [], []
        for chain in chains:
            first = chain.first
            inputs += [first.inputs[1], chain.recurrent[0], (*first.inputs, "")[2], chain.recurrent[1], chain.start]
            concat = self.joined(chain.states)
            own = ""
            if concat is not None:
                wanted = chain.states[::-1] if chain.backwards else chain.states
                if concat.inputs == wanted:
                    done.append(concat)
                    own = concat.outputs[0]
            parts += [own, chain.states[-1]]
        both = self.single(parts[0], "Concat") if len(chains) == 2 and parts[0] else None
        whole = ""
        if both is not None and both.inputs == (parts[0], parts[2]) and both.attrs.get("axis") in (2, -1):
            done.append(both)
            whole = both.outputs[0]
        attrs = {"activation": chains[0].activation, "steps": len(chains[0].states)}
        attrs["backwards"] = int(len(chains) == 1 and chains[0].backwards)
        step = replace(chains[0].first, op="UnrolledRNN", inputs=tuple(inputs), outputs=(whole, *parts), attrs=attrs)
        return step, done
