"""A loop over the steps of a window, which an export has unrolled, becomes one recurrent layer again.

    for t in range(T): h = cell(x[:, t], h)

is, in the graph, T recurrent nodes of one step with the same weights, each starting from the one before. Neighbours:
`fold.py` (asks), `torch_layers.py` (emits the cells).
"""

from __future__ import annotations

from dataclasses import replace

from quantize.graph import Graph, Node


def roll_cells(graph: Graph) -> Graph:
    """Every chain of cells over consecutive slices of one tensor becomes a single node and slices of its output; so may
    a second chain over these, as of stacked cells."""
    rolled = _roll_once(graph)
    return graph if len(rolled.nodes) == len(graph.nodes) else roll_cells(rolled)


def _roll_once(graph: Graph) -> Graph:
    made = {node.output: node for node in graph.nodes}
    followers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            followers.setdefault(name, []).append(node)
    results = {name for result in graph.signature.results for name in result.tensors}
    nodes: list[Node] = []
    widths = dict(graph.widths)
    gone: dict[str, list[Node]] = {}  # output of a rolled cell -> what stands for it
    for node in graph.nodes:
        if node.output in gone:
            nodes += gone[node.output]
            continue
        chain = _chain(node, made, followers, results) if node.attrs.get("window") == 1 else []
        if len(chain) < 2:
            nodes.append(node)
            continue
        first, source = made[chain[0].inputs[0]], made[chain[0].inputs[0]].inputs[0]
        step, units = widths[first.output], widths[node.output]
        begin, length = first.attrs["start"], step * len(chain)
        x, y = f"{node.name}.inputs", f"{node.name}.outputs"
        widths |= {x: length, y: units * len(chain)}
        nodes.append(Node("slice", x, (source,), x, {"start": begin, "stop": begin + length}, {}, node.where))
        whole = {"window": len(chain), "starts": node.attrs["starts"]}
        nodes.append(replace(node, inputs=(x, *node.inputs[1:]), output=y, attrs=node.attrs | whole))
        for k, cell in enumerate(chain):
            ends = {"start": k * units, "stop": (k + 1) * units}
            part = Node("slice", f"{cell.name}.step", (y,), cell.output, ends, {}, cell.where)
            gone[cell.output] = [part]
            for reader in followers.get(cell.output, []):
                if reader.op == "cell":
                    gone[reader.output] = [replace(reader, inputs=(y,))] if k == len(chain) - 1 else []
        nodes += gone[node.output]
    return replace(graph, nodes=tuple(nodes), widths=widths)


def _chain(node: Node, made: dict[str, Node], followers: dict[str, list[Node]], results: set[str]) -> list[Node]:
    """The cells that follow one another from `node` on, over consecutive slices; not from the middle of a chain."""
    chain = [node]
    while True:
        last = chain[-1]
        x = made.get(last.inputs[0])
        if x is None or x.op != "slice":
            return chain[:-1]
        states = {last.output}
        cells = [reader for reader in followers.get(last.output, []) if reader.op == "cell"]
        if node.op == "lstm":
            states |= {cell.output for cell in cells}
        following = [
            reader
            for reader in followers.get(last.output, [])
            if reader.op == node.op and reader.attrs.get("window") == 1 and set(reader.inputs[1:]) == states
        ]
        after = made.get(following[0].inputs[0]) if len(following) == 1 else None
        next_slice = after is not None and after.op == "slice" and after.inputs == x.inputs
        if not next_slice or after.attrs["start"] != x.attrs["stop"] or not _alike(last, following[0]):
            return chain
        for cell in cells:  # a cell between two steps must be theirs alone
            if cell.output in results or followers.get(cell.output, []) != following:
                return chain
        if after.attrs["stop"] - after.attrs["start"] != x.attrs["stop"] - x.attrs["start"]:
            return chain
        chain.append(following[0])


def _alike(a: Node, b: Node) -> bool:
    """The same weights and the same activations."""
    fixed = ("activation", "reset_after", "gate_slope")
    return all(a.params[key] is b.params[key] for key in ("weight_ih", "weight_hh")) and all(
        a.attrs.get(key) == b.attrs.get(key) for key in fixed
    )
