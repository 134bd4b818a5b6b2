"""What a net costs, before there is a board: flash, RAM, stack, instructions, estimated cycles; per layer and core.

    analysis = analyze(qmodel, ["cortex-m0", "cortex-m4"], Budget(clock_hz=64e6, frame_s=0.01))
    analysis.ok, analysis.cores[0].cycles, analysis.to_json()

The firmware is built as a simulator builds it. Sizes are read from the linked image, the worst stack from its machine
code (`stack.py`) and, beside it, from a painted stack; instructions are counted on the emulator while golden frames run
(whose bits are compared too), layer by layer; cycles are estimated from these counts by `timing.py`. Where the data
decide how many instructions run, the frame that costs most is shown.

Neighbours: `emulator.py`, `disassembly.py`, `costs_report.py` (tables and picture), `cli.py` (`rtcore analyze`).
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from firmware_sim.disassembly import Code
from firmware_sim.emulator import Board
from firmware_sim.engines import OUTPUT_REGISTER, McuEngine, kernel_calls
from firmware_sim.stack import StackError, StackReader
from firmware_sim.timing import ASSUMPTION, TIMINGS, Range
from firmware_sim.toolchain import api, build_firmware, find_target
from quantize.emit_c import Golden, footprint, state_groups, unreached
from quantize.errors import QuantizeError
from quantize.golden import golden_vectors
from rtcore.tables import Tables, state_parts

NAME = "net"
FRAMES = 8  # golden frames, the extremes of int16 among them
ENOUGH = 20_000_000  # instructions after which no further frame is begun


@dataclass(frozen=True)
class Budget:
    """What the firmware may use; None: no limit, nothing is judged.

    clock_hz, frame_s: the core's clock and the time between two frames, both or neither; load: the share of a frame
    that the net may take, by the estimate at its most. flash, ram: bytes of the net; ram counts state, buffers of the
    caller and stack.
    """

    clock_hz: float | None = None
    frame_s: float | None = None
    load: float = 1.0
    flash: int | None = None
    ram: int | None = None

    def check(self) -> None:
        """Raises QuantizeError for what cannot be a budget."""
        if (self.clock_hz is None) != (self.frame_s is None):
            raise QuantizeError("a share of a frame needs both, the clock and the frame period")
        for what, value in (("clock", self.clock_hz), ("frame period", self.frame_s), ("load", self.load)):
            if value is not None and not 0 < value < float("inf"):
                raise QuantizeError(f"{what} {value!r}: it must be above 0")
        for what, limit in (("flash", self.flash), ("RAM", self.ram)):
            if limit is not None and limit < 1:
                raise QuantizeError(f"{what} {limit!r}: at least 1 byte")


@dataclass(frozen=True)
class LayerCost:
    """One layer on one core. tables, state: bytes; cycles: at the least and at the most, estimated."""

    name: str
    kind: str
    shape: str
    macs: int
    tables: int
    state: int
    instructions: int
    cycles: Range


@dataclass(frozen=True)
class Flash:
    """Bytes. weights: the layers' tables; tables: the kernels' own, the layers' structs, padding; net: the functions of
    NAME.c; kernels; library: what they need of the compiler's."""

    weights: int
    tables: int
    net: int
    kernels: int
    library: int
    total: int


@dataclass(frozen=True)
class Ram:
    """Bytes. state: what streams keep between frames; arena, scratch: within a step; other: pointer and padding of
    NAME_state; stream: the whole struct; io: the caller's input and output buffers."""

    state: int
    arena: int
    scratch: int
    other: int
    stream: int
    io: int


@dataclass(frozen=True)
class StackCost:
    """Bytes of the deepest call of the API, read from the machine code (None, and why, where that has no bound) with
    its chain of calls, and the deepest found on a painted stack. What is read counts every branch, but kernels for
    matrices without a stream only where the linked net has one (`quantize.emit_c.unreached`)."""

    worst: int | None
    chain: tuple[str, ...]
    painted: int
    why: str = ""


@dataclass(frozen=True)
class CoreCost:
    """One net on one core. step: what NAME_step itself executes between its layers, counted in the totals.

    frames: of how many the costliest is shown. equal: whether every frame gave the golden bits. load: the share of a
    frame, least and most, None without a clock. problems: what the budget or the bits refuse; empty is a pass.
    """

    target: str
    kernels: str
    layers: tuple[LayerCost, ...]
    step: LayerCost
    macs: int
    instructions: int
    cycles: Range
    frames: int
    equal: bool
    flash: Flash
    ram: Ram
    stack: StackCost
    timing: str
    load: tuple[float, float] | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """A tensor in the arena: bytes from `offset`, needed from the layer that writes it first to its last reader
    (indices of layers)."""

    tensor: str
    offset: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Analysis:
    """A net on several cores. layers: in execution order; arena: bytes; places: what lies where in it, and when."""

    digest: str
    layers: tuple[str, ...]
    arena: int
    places: tuple[Place, ...]
    budget: Budget
    cores: tuple[CoreCost, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether no core has a problem."""
        return not any(core.problems for core in self.cores)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        note = {"ok": self.ok, "cycles": f"estimated, at the least and at the most; {ASSUMPTION}"}
        return note | dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)


def analyze(
    model: Any, targets: Iterable[str] = ("cortex-m4",), budget: Budget | None = None, core: str | None = None
) -> Analysis:
    """The costs of a net on emulated cores.

    model: QuantizedModel or Tables. targets: names of `timing.TIMINGS`. core: whose kernels; "portable", or None for
    each target's own. Raises QuantizeError for an unknown target or core, no target, or a budget that is none;
    ToolchainError when a compiler or an emulator is not installed.
    """
    bare = isinstance(model, Tables)
    tables: Tables = model if bare else model.tables
    budget = budget or Budget()
    budget.check()
    targets = list(dict.fromkeys(targets))
    if not targets:
        raise QuantizeError("analyze: no target given")
    for target in targets:
        find_target(target)
        if target not in TIMINGS:
            raise QuantizeError(f"analyze: {target} has no timing; costs are those of {', '.join(TIMINGS)}")
    golden = golden_vectors(tables, FRAMES)
    return Analysis(
        digest="" if bare else model.digest,
        layers=tuple(layer.name for layer in tables.layers),
        arena=2 * tables.arena,
        places=memory_map(tables),
        budget=budget,
        cores=tuple(judged(_core_cost(tables, target, core, golden), budget) for target in targets),
    )


def judged(cost: CoreCost, budget: Budget) -> CoreCost:
    """The same cost held against a budget."""
    problems = [] if cost.equal else ["golden bits differ"]
    load = None
    if budget.clock_hz is not None and budget.frame_s is not None:
        cycles = budget.clock_hz * budget.frame_s
        load = (cost.cycles[0] / cycles, cost.cycles[1] / cycles)
        if load[1] > budget.load:
            problems.append(f"takes up to {100 * load[1]:.1f} % of a frame, {100 * budget.load:g} % are allowed")
    stack = cost.stack.painted if cost.stack.worst is None else cost.stack.worst
    ram = cost.ram.stream + cost.ram.io + stack
    for what, used, limit in (("flash", cost.flash.total, budget.flash), ("RAM", ram, budget.ram)):
        if limit is not None and used > limit:
            problems.append(f"needs {used:,} bytes of {what}, {limit:,} are allowed")
    return dataclasses.replace(cost, load=load, problems=tuple(problems))


# ------------------------------------------------------------------------------------------------------ the model --


def memory_map(tables: Tables) -> tuple[Place, ...]:
    """Every tensor of the arena, by offset."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, layer in enumerate(tables.layers):
        for name in (*layer.inputs, layer.output):
            owner = _owner(tables, name)
            first.setdefault(owner, i)
            last[owner] = i
    places = [
        Place(t.name, 2 * t.offset, 2 * t.width, first[t.name], last[t.name])
        for t in tables.tensors.values()
        if t.place == "arena" and t.name in first
    ]
    return tuple(sorted(places, key=lambda place: (place.offset, place.first, place.tensor)))


def _owner(tables: Tables, name: str) -> str:
    """The tensor in whose memory a tensor lies."""
    while tables.tensors[name].place == "alias":
        name = tables.tensors[name].owner
    return name


def macs(layer: Any) -> int:
    """Multiply-accumulates of a layer's weights in one step; a convolution's at every position."""
    ints = layer.ints
    positions = ints["out_h"] * ints["out_w"] if "out_h" in ints else 1
    weights = sum(array.size for name, array in layer.arrays.items() if name.endswith("weights"))
    return ints.get("rows", 1) * positions * weights


def _shape(tables: Tables, layer: Any) -> str:
    widths = " + ".join(str(tables.tensors[name].width) for name in layer.inputs)
    return f"{widths} -> {tables.tensors[layer.output].width}"


def _state_bytes(layer: Any) -> int:
    """Bytes that a layer keeps between frames."""
    return sum(part.size * (4 * bool(part.wide) + 2 * bool(part.view)) for part in state_parts(layer))


# ------------------------------------------------------------------------------------------------------- one core --


def _core_cost(tables: Tables, target: str, core: str | None, golden: Golden) -> CoreCost:
    firmware = build_firmware(tables, target, name=NAME, core=core)
    engine = McuEngine(tables, firmware)
    code = Code(engine.board)
    timing = TIMINGS[target]
    follower = _Follower(engine.board, [kernel_calls(tables, layer)[0] for layer in tables.layers])
    worst: list[tuple[int, Range]] = []
    total, frames, equal = 0, 0, True
    if golden.initial is not None:
        engine.set_initial(golden.initial)
    while frames < FRAMES and total < ENOUGH:
        with engine.board.following(follower.enter):
            outputs, counted = engine.step([x[frames] for x in golden.inputs])
        equal = equal and all(np.array_equal(y[frames], z) for y, z in zip(golden.outputs, outputs, strict=True))
        costs = [_priced(code, timing, blocks) for blocks in follower.finish()]
        if not worst or sum(high for _, (_, high) in costs) > sum(high for _, (_, high) in worst):
            worst = costs
        total += int(counted[0])
        frames += 1
    if frames == FRAMES:
        states = engine.get_state()
        pairs = zip(tables.states, golden.states, strict=True)
        equal = equal and all(np.array_equal(states[layer.name], state) for layer, state in pairs)
    own = firmware.target.core if core is None else core
    weights, scratch = footprint(tables, NAME, own)
    layers = tuple(
        LayerCost(
            name=layer.name,
            kind=layer.kind.removesuffix("_i16"),
            shape=_shape(tables, layer),
            macs=macs(layer),
            tables=weights[layer.name],
            state=_state_bytes(layer),
            instructions=instructions,
            cycles=cycles,
        )
        for layer, (instructions, cycles) in zip(tables.layers, worst[1:], strict=True)
    )
    step = LayerCost(f"{NAME}_step", "", "", 0, 0, 0, *worst[0])
    return CoreCost(
        target=target,
        kernels=own,
        layers=layers,
        step=step,
        macs=sum(layer.macs for layer in layers),
        instructions=sum(instructions for instructions, _ in worst),
        cycles=(sum(low for _, (low, _) in worst), sum(high for _, (_, high) in worst)),
        frames=frames,
        equal=equal,
        flash=_flash(engine.board, sum(weights.values())),
        ram=_ram(engine.board, tables, layers, scratch),
        stack=_stack(engine, code, unreached(tables, own)),
        timing=timing.source,
    )


class _Follower:
    """Blocks executed in one NAME_step, told apart by the layer they belong to: from the entry of its kernel to the
    return from it."""

    def __init__(self, board: Board, calls: list[int]):
        self.kernels = {board.symbols[name].address for name in OUTPUT_REGISTER if name in board.symbols}
        self.calls = calls  # of kernels, layer by layer
        self.reset()

    def reset(self) -> None:
        self.blocks: list[Counter] = [Counter()]  # NAME_step's own, then one per kernel that was entered
        self.inside = 0  # which of them runs
        self.back = -1  # where it returns to
        self.last: tuple[int, int] | None = None

    def enter(self, address: int, size: int) -> None:
        """A block runs; the one before it is counted, now that it is known where it went."""
        if self.last is not None:
            self.count(self.last, address != self.last[0] + self.last[1])
        if self.inside and address == self.back:
            self.inside = 0
        if not self.inside and address in self.kernels:
            self.blocks.append(Counter())
            self.inside = len(self.blocks) - 1
            self.back = sum(self.last)  # a step ends in a return, so that kernels are called and not jumped to
        self.last = (address, size)

    def count(self, block: tuple[int, int], left: bool) -> None:
        self.blocks[self.inside][(*block, left)] += 1

    def finish(self) -> list[Counter]:
        """(address, bytes, whether it went elsewhere than on) -> times: NAME_step's own, then layer by layer."""
        self.count(self.last, True)
        step, *kernels = self.blocks
        if len(kernels) != sum(self.calls):
            raise RuntimeError(f"{len(kernels)} kernels ran in a step whose layers call {sum(self.calls)}")
        self.reset()
        ran = iter(kernels)
        return [step, *(sum((next(ran) for _ in range(calls)), Counter()) for calls in self.calls)]


def _priced(code: Code, timing: Any, blocks: Counter) -> tuple[int, Range]:
    """Instructions and cycles of executed blocks."""
    instructions = least = most = 0
    for (address, size, left), times in blocks.items():
        for run, jumps in code.executed(address, size):
            low, high = timing.block(run, jumps or (left and run[-1].end == address + size))
            instructions, least, most = instructions + times * len(run), least + times * low, most + times * high
    return instructions, (least, most)


def _flash(board: Board, weights: int) -> Flash:
    """The image without the driver that calls the net here."""
    sizes = board.sizes()
    names: dict[int, list[str]] = {}
    lengths: dict[int, int] = {}
    for symbol in board.symbols.values():
        if symbol.function and not symbol.name.startswith("board_"):
            names.setdefault(symbol.address, []).append(symbol.name)
            lengths[symbol.address] = symbol.size
    net = sum(lengths[a] for a, found in names.items() if any(x.startswith(f"{NAME}_") for x in found))
    library = sum(lengths[a] for a, found in names.items() if any(x.startswith(("__", "compiler_rt")) for x in found))
    return Flash(
        weights=weights,
        tables=sizes.tables - weights,
        net=net,
        kernels=sizes.code - net - library,
        library=library,
        total=sizes.flash,
    )


def _ram(board: Board, tables: Tables, layers: tuple[LayerCost, ...], scratch: int) -> Ram:
    stream = board.sizes().ram
    state, arena = sum(layer.state for layer in layers), 2 * tables.arena
    io = 2 * sum(tables.tensors[name].width for name in (*tables.inputs, *tables.outputs))
    return Ram(state, arena, scratch, stream - state - arena - scratch, stream, io)


def _stack(engine: McuEngine, code: Code, never: frozenset[str]) -> StackCost:
    """The deepest of the API's functions, as read and as painted. never: kernel functions that its tables rule out."""
    board, name = engine.board, engine.name
    state, buffers = engine.state, [address for address, _ in (*engine.inputs, *engine.outputs)]
    weights = board.symbol(f"{name}_default_weights").address
    calls = {"check": [weights], "reset": [state], "reset_with": [state, weights], "step": [state, *buffers]}
    groups = len(state_groups(engine.tables))  # that views are written over each other does not matter here
    calls |= {"set_state": [state, *[engine.free] * len(engine.tables.state_inputs)]}
    calls |= {"get_state": [state, *[engine.free] * groups]}
    functions = api(engine.tables)
    painted = max(board.stack_used(f"{name}_{function}", *calls[function]) for function in functions)
    reader = StackReader(board, code, never)
    try:
        worst = max((reader.worst(f"{name}_{function}") for function in functions), key=lambda stack: stack.bytes)
    except StackError as error:
        return StackCost(None, (), painted, str(error))
    return StackCost(worst.bytes, worst.chain, painted)
