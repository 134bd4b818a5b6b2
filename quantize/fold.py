"""Rewrites of a finished graph that leave its numbers alone: fewer calls, fewer roundings, less memory.

Each rule takes a graph and returns one. Neighbours: `torch_program.py` (asks, when the graph is finished), `graph.py`
(the nodes), `roll.py` (loops over cells).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quantize.graph import Argument, Graph, Node
from quantize.roll import roll_cells


def folded(graph: Graph) -> Graph:
    """All rules, in the order in which they help each other."""
    for rule in (
        roll_cells,
        skip_concats,
        pruned,
        absorb_input_copies,
        fold_copies,
        fold_pads,
        fold_batch_norms,
        pruned,
    ):
        graph = rule(graph)
    return graph


def readers_of(graph: Graph) -> Counter[str]:
    """Tensor -> how many nodes and results read it."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(name for result in graph.signature.results for name in result.tensors)
    return readers


def renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with every reader of a tensor given another one."""

    def new(given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(name, name) for name in given)

    results = tuple(replace(result, tensors=new(result.tensors)) for result in graph.signature.results)
    nodes = tuple(replace(node, inputs=new(node.inputs)) for node in graph.nodes)
    return replace(graph, nodes=nodes, signature=replace(graph.signature, results=results))


def pruned(graph: Graph) -> Graph:
    """Without the nodes that no result needs."""
    needed = {name for result in graph.signature.results for name in result.tensors}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            nodes.append(node)
            needed.update(node.inputs)
    kept = {node.output for node in nodes} | {a.tensor for a in graph.signature.arguments}
    widths = {name: width for name, width in graph.widths.items() if name in kept}
    return replace(graph, nodes=tuple(reversed(nodes)), widths=widths)


def skip_concats(graph: Graph) -> Graph:
    """A slice that is just one part of a concatenation is that part; parts that are all slices of one tensor, in order,
    are that tensor."""
    made = {node.output: node for node in graph.nodes}
    names: dict[str, str] = {}
    for node in graph.nodes:
        inputs = [names.get(name, name) for name in node.inputs]
        if node.op == "slice":
            whole = made.get(inputs[0])
            if whole is not None and whole.op == "concat" and whole.attrs.get("rows", 1) == 1:
                at = 0
                for part in whole.inputs:
                    end = at + graph.widths[part]
                    if (node.attrs["start"], node.attrs["stop"]) == (at, end):
                        names[node.output] = names.get(part, part)
                    at = end
        elif node.op == "concat" and node.attrs.get("rows", 1) == 1:
            parts = [made.get(name) for name in inputs]
            if all(part is not None and part.op == "slice" for part in parts):
                sources = {names.get(part.inputs[0], part.inputs[0]) for part in parts}
                ends = [0, *(part.attrs["stop"] for part in parts)]
                starts = [*(part.attrs["start"] for part in parts), graph.widths[next(iter(sources))]]
                if len(sources) == 1 and starts == ends:
                    names[node.output] = sources.pop()
    return renamed(graph, names)


def absorb_input_copies(graph: Graph) -> Graph:
    """An input that is only read in another order of its axes is taken in that order."""
    readers: dict[str, list[Node | None]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for result in graph.signature.results:
        for name in result.tensors:
            readers.setdefault(name, []).append(None)
    names: dict[str, str] = {}
    arguments = []
    notes = list(graph.notes)
    for argument in graph.signature.arguments:
        copies = readers.get(argument.tensor, [])
        if copies and all(node is not None and node.op == "copy" for node in copies):
            layout = layout_of(argument, copies[0])
            if layout and all(node.attrs == copies[0].attrs for node in copies):
                argument = replace(argument, layout=layout)
                sizes = "".join(f"[{argument.sizes[i]}]" for i in layout)
                notes.append(f"{argument.name} lies in memory as {sizes}, its axes in the order {layout}")
                names |= {node.output: argument.tensor for node in copies}
        arguments.append(argument)
    graph = renamed(graph, names)
    nodes = tuple(node for node in graph.nodes if node.output not in names)
    signature = replace(graph.signature, arguments=tuple(arguments))
    return replace(graph, nodes=nodes, signature=signature, notes=tuple(notes))


def layout_of(argument: Argument, copy: Node) -> tuple[int, ...]:
    """The axes of an argument in the order in which a copy reads them, or () where it does more than that."""
    sizes = argument.sizes
    if math.prod(copy.attrs["shape"]) != argument.width or copy.attrs["start"] != 0:
        return ()
    layout: list[int] = []
    for n, stride in zip(copy.attrs["shape"], copy.attrs["strides"], strict=True):
        if n == 1:
            continue
        runs = (
            (first, end)
            for end in range(1, len(sizes) + 1)
            for first in range(end)
            if math.prod(sizes[first:end]) == n and math.prod(sizes[end:]) == stride and sizes[first] != 1
        )
        run = next((run for run in runs if not set(range(*run)) & set(layout)), None)
        if run is None:
            return ()
        layout += range(*run)
    return (*layout, *(i for i in range(len(sizes)) if i not in layout))


def fold_copies(graph: Graph) -> Graph:
    """Features that are only reordered before a matrix reads them become reordered columns of its weights."""
    made = {node.output: node for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        copy = made.get(node.inputs[0]) if node.inputs else None
        key = {"linear": "weight", "gru": "weight_ih", "lstm": "weight_ih", "rnn": "weight_ih"}.get(node.op)
        if key and copy is not None and copy.op == "copy":
            weight = node.params[key]
            order = row_order(copy, weight.shape[1], graph.widths[copy.inputs[0]])
            if order is not None:
                columns = np.empty_like(weight)
                columns[:, order] = weight
                inputs = (*copy.inputs, *node.inputs[1:])
                node = replace(node, inputs=inputs, params=node.params | {key: columns})
        nodes.append(node)
    return pruned(replace(graph, nodes=tuple(nodes)))


def row_order(copy: Node, width: int, whole: int) -> np.ndarray | None:
    """What a copy does to each row of `width` elements, the same to all, each staying in its place; else None."""
    grids = np.ogrid[tuple(slice(n) for n in copy.attrs["shape"])]
    index = copy.attrs["start"] + sum(g * s for g, s in zip(grids, copy.attrs["strides"], strict=True))
    if index.size != whole:
        return None
    rows = index.reshape(-1, width) - np.arange(index.size // width)[:, None] * width
    alike = (rows == rows[0]).all() and np.array_equal(np.sort(rows[0]), np.arange(width))
    return rows[0] if alike else None


def fold_pads(graph: Graph) -> Graph:
    """Zeros around the input of a convolution become its own padding."""
    made = {node.output: node for node in graph.nodes}
    readers = readers_of(graph)
    nodes = []
    for node in graph.nodes:
        while node.op == "conv":
            pad = made.get(node.inputs[0])
            if pad is None or pad.op != "pad" or readers[pad.output] != 1 or pad.attrs["value"] != 0:
                break
            height, width = node.attrs["in"]
            channels = graph.widths[pad.output] // (node.attrs.get("rows", 1) * height * width)
            ends = pad.attrs["before"], pad.attrs["after"]
            rows = node.attrs.get("rows", 1)
            if pad.attrs["rows"] == rows and all(n % (width * channels) == 0 for n in ends):
                axis, unit = 0, width * channels
            elif pad.attrs["rows"] == rows * height and all(n % channels == 0 for n in ends):
                axis, unit = 1, channels
            else:
                break
            before, after = (n // unit for n in ends)
            size, offset = list(node.attrs["in"]), list(node.attrs["pad"])
            size[axis] -= before + after
            offset[axis] += before
            node = replace(node, inputs=pad.inputs, attrs=node.attrs | {"in": tuple(size), "pad": tuple(offset)})
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def fold_batch_norms(graph: Graph) -> Graph:
    """Every affine node marked `fold` whose input is a linear or conv node's output, read by nothing else and no result
    of the model, becomes a part of that node, which then writes the affine node's output."""
    readers = readers_of(graph)
    nodes: dict[str, Node] = {}  # by output
    for node in graph.nodes:
        before = nodes.get(node.inputs[0]) if node.inputs else None
        if node.attrs.get("fold") and before is not None and before.op in ("linear", "conv"):
            scale, offset = node.params["scale"], node.params["offset"]
            weight, bias = before.params["weight"], before.params["bias"]
            if readers[before.output] == 1 and len(scale) == len(bias):
                nodes.pop(before.output)
                params = {
                    "weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)),
                    "bias": bias * scale + offset,
                }
                node = replace(before, output=node.output, params=params)
        nodes[node.output] = node
    return replace(graph, nodes=tuple(nodes.values()))
