"""Folds what a batch norm does, in eval mode, into the linear layer before it: one rounding less, and no call.

Neighbours: `torch_functions.py` (marks such nodes), `torch_program.py` (asks, when the graph is finished).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from quantize.graph import Graph, Node


def fold_batch_norms(graph: Graph) -> Graph:
    """Every affine node marked `fold` whose input is a linear node's output, read by nothing else and no result of the
    model, becomes a part of that linear node, which then writes the affine node's output."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(name for result in graph.signature.results for name in result.tensors)
    nodes: dict[str, Node] = {}  # by output
    gone = set()
    for node in graph.nodes:
        before = nodes.get(node.inputs[0])
        if node.attrs.get("fold") and before is not None and before.op == "linear" and readers[before.output] == 1:
            scale, offset = node.params["scale"], node.params["offset"]
            weight, bias = before.params["weight"] * scale[:, None], before.params["bias"] * scale + offset
            nodes.pop(before.output)
            gone.add(before.output)
            node = replace(before, output=node.output, params={"weight": weight, "bias": bias})
        nodes[node.output] = node
    widths = {name: width for name, width in graph.widths.items() if name not in gone}
    return replace(graph, nodes=tuple(nodes.values()), widths=widths)
