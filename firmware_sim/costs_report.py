"""An Analysis for people: tables on a terminal, and a picture of time, flash, RAM and the arena.

What is shown is decided in `sections`. Neighbours: `costs.py` (the figures), `report.py` (its tables in rich),
`cli.py` (`rtcore analyze`).
"""

from __future__ import annotations

import io
import os

from rich.console import Console
from rich.text import Text

from firmware_sim.costs import Analysis, CoreCost, LayerCost
from firmware_sim.report import DPI, Section, open_console, to_table
from firmware_sim.timing import ASSUMPTION
from quantize import QuantizeError
from quantize.files import write_whole

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#999999")  # Okabe and Ito
SMALL = 0.04  # share of a bar below which a part has no label in it
NAMED = 40  # tensors of the arena that are named in the picture, at most


# -------------------------------------------------------------------------------------------------------- tables --


def sections(analysis: Analysis) -> list[Section]:
    """The tables: all cores side by side, where their memory goes, each core's layers, the arena."""
    found = [_cores(analysis), _memory(analysis)]
    found += [_layers(core) for core in analysis.cores]
    return found + ([_arena(analysis)] if analysis.places else [])


def spread(low: float, high: float, digits: int = 0) -> str:
    """ "1,200 to 1,300", or one number where both are the same."""
    texts = [f"{value:,.{digits}f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def _cores(analysis: Analysis) -> Section:
    budget = analysis.budget
    rows = []
    for core in analysis.cores:
        row = [core.target, core.kernels, f"{core.macs:,}", f"{core.instructions:,}", spread(*core.cycles)]
        if core.load is not None:
            row.append(f"{spread(*(100 * part for part in core.load), digits=1)} %")
        row += ["equal" if core.equal else "DIFFER", "FAIL" if core.problems else "pass"]
        rows.append(tuple(row))
    columns = ["core", "kernels", "MACs", "instructions", "cycles, estimated"]
    note = (
        "Per frame. Instructions: counted on the emulator, of the golden frame that costs most. Cycles: at the least "
    )
    note += f"and at the most by the core's timing, {ASSUMPTION}. Bits: of every golden frame."
    if budget.clock_hz is not None and budget.frame_s is not None:
        columns.append("of a frame")
        note += (
            f" Frame: {1e3 * budget.frame_s:g} ms at {1e-6 * budget.clock_hz:g} MHz, {100 * budget.load:g} % allowed."
        )
    return Section("Cores", (*columns, "bits", "check"), tuple(rows), note)


def _memory(analysis: Analysis) -> Section:
    columns = ("core", "flash", "weights", "tables", "net", "kernels", "library", "RAM", "state", "arena", "scratch")
    rows = []
    for core in analysis.cores:
        flash, ram, stack = core.flash, core.ram, core.stack
        worst = "no bound" if stack.worst is None else f"{stack.worst:,}"
        parts = (flash.total, flash.weights, flash.tables, flash.net, flash.kernels, flash.library)
        parts = (*parts, ram.stream, ram.state, ram.arena, ram.scratch)
        rows.append((core.target, *(f"{part:,}" for part in parts), f"{ram.io:,}", worst, f"{stack.painted:,}"))
    note = (
        "Bytes. Flash: weights; the kernels' tables and the layers' structs; code of the net, of the kernels and of "
        "the compiler's library. RAM: NAME_state, what one stream keeps; arena and scratch hold nothing between "
        "frames. I/O: buffers of the caller. Stack: the worst of any call, read from the machine code, interrupts not "
        "included; kernels for matrices without a stream count where the net has one; painted: what was used on the "
        "emulator. Code and stack are those of this build (clang -Os)."
    )
    reasons = [f" {core.target}: {core.stack.why}." for core in analysis.cores if core.stack.why]
    return Section("Memory", (*columns, "I/O", "stack", "painted"), tuple(rows), note + "".join(reasons))


def _layers(core: CoreCost) -> Section:
    total = LayerCost(
        "total",
        "",
        "",
        core.macs,
        sum(layer.tables for layer in core.layers),
        sum(layer.state for layer in core.layers),
        core.instructions,
        core.cycles,
    )
    rows = []
    for layer in (*core.layers, core.step, total):
        per_mac = f"{layer.instructions / layer.macs:.2f}" if layer.macs else "-"
        share = f"{100 * layer.cycles[1] / max(1, core.cycles[1]):.1f} %"
        numbers = (f"{layer.macs:,}", f"{layer.tables:,}", f"{layer.state:,}", f"{layer.instructions:,}", per_mac)
        rows.append((layer.name, layer.kind, layer.shape, *numbers, spread(*layer.cycles), share))
    columns = ("layer", "kernel", "shape", "MACs", "tables B", "state B", "instructions", "per MAC")
    frames = "1 frame" if core.frames == 1 else f"{core.frames} frames"
    note = f"Timing: {core.timing}. Share: of the cycles at the most. {frames} were run."
    return Section(f"Layers on {core.target}", (*columns, "cycles, estimated", "share"), tuple(rows), note)


def _arena(analysis: Analysis) -> Section:
    rows = tuple(
        (
            place.tensor,
            f"{place.offset:,}",
            f"{place.size:,}",
            analysis.layers[place.first],
            analysis.layers[place.last],
        )
        for place in analysis.places
    )
    apart = sum(place.size for place in analysis.places)
    note = f"Bytes, {analysis.arena:,} in all; {apart:,} if no tensor shared its place with another."
    return Section(
        "Arena: what lies where, and when", ("tensor", "offset", "bytes", "written by", "last read by"), rows, note
    )


def verdict(analysis: Analysis) -> str:
    """One line: what fails where, or that nothing does."""
    if not analysis.ok:
        problems = [f"{core.target} {problem}" for core in analysis.cores for problem in core.problems]
        return f"FAILED: {'; '.join(problems)}"
    limits = analysis.budget != type(analysis.budget)()
    return "ok: within the budget on every core" if limits else "ok: golden bits on every core; no budget was given"


def print_analysis(analysis: Analysis, console: Console | None = None) -> None:
    """Prints tables and verdict."""
    console = console or open_console()
    for section in sections(analysis):
        console.print(to_table(section), Text())
    console.print(Text(verdict(analysis), style="bold green" if analysis.ok else "bold red"))


# ------------------------------------------------------------------------------------------------------- picture --


def write_png(analysis: Analysis, path: str | os.PathLike) -> None:
    """The picture as a file; see `to_png`."""
    write_whole(path, to_png(analysis))


def to_png(analysis: Analysis) -> bytes:
    """Cycles by layer, flash and RAM by use, a bar per core; and the arena over the layers of a step.

    Raises QuantizeError when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (optional package)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise QuantizeError("the picture needs matplotlib: pip install 'rtcore[report]'") from error
    cores = analysis.cores
    height = 0.5 * len(cores) + 1.3
    figure = Figure(figsize=(13, 3 * height + (4.2 if analysis.places else 0)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(verdict(analysis), fontsize=10, x=0.01, ha="left", wrap=True)
    ratios = [height] * 3 + ([4.2] if analysis.places else [])
    grid = figure.add_gridspec(len(ratios), 1, height_ratios=ratios)
    time = [[(x.name, x.cycles[1]) for x in (*core.layers, core.step)] for core in cores]
    axes = figure.add_subplot(grid[0])
    _bars(axes, cores, time, "cycles per frame, estimated at the most")
    _mark_frame(axes, analysis)
    flash = [
        [(part, getattr(c.flash, part)) for part in ("weights", "tables", "kernels", "net", "library")] for c in cores
    ]
    _bars(figure.add_subplot(grid[1]), cores, flash, "flash, bytes")
    ram = [
        [(part, getattr(c.ram, part)) for part in ("state", "arena", "scratch", "other", "io")]
        + [("stack", c.stack.painted if c.stack.worst is None else c.stack.worst)]
        for c in cores
    ]
    _bars(figure.add_subplot(grid[2]), cores, ram, "RAM, bytes: one stream, the caller's buffers, the stack")
    if analysis.places:
        _draw_arena(figure.add_subplot(grid[3]), analysis)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _bars(axes, cores: tuple[CoreCost, ...], parts: list[list[tuple[str, int]]], title: str) -> None:
    """A bar per core, its parts side by side, the large ones named in it."""
    longest = max(sum(size for _, size in bar) for bar in parts) or 1
    for y, bar in enumerate(parts):
        left = 0
        for k, (name, size) in enumerate(bar):
            axes.barh(y, size, left=left, color=COLORS[k % len(COLORS)], edgecolor="white", height=0.7)
            if size > SMALL * longest:
                axes.text(left + size / 2, y, f"{name}\n{size:,}", ha="center", va="center", fontsize=7, clip_on=True)
            left += size
        axes.text(left, y, f" {left:,}", va="center", fontsize=8)
    axes.set_yticks(range(len(cores)), [core.target for core in cores], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * longest)
    axes.set_title(title, fontsize=10, loc="left")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _finish(axes)


def _mark_frame(axes, analysis: Analysis) -> None:
    """Where the allowed share of a frame ends."""
    budget = analysis.budget
    if budget.clock_hz is None or budget.frame_s is None:
        return
    allowed = budget.clock_hz * budget.frame_s * budget.load
    if allowed < axes.get_xlim()[1]:
        axes.axvline(allowed, color="black", lw=1.2, ls="--")
        axes.text(allowed, axes.get_ylim()[1], " allowed", fontsize=8, va="bottom")


def _draw_arena(axes, analysis: Analysis) -> None:
    """A rectangle per tensor: from its first writer to its last reader, at its bytes."""
    for k, place in enumerate(analysis.places):
        width = place.last - place.first + 1
        axes.barh(
            place.offset,
            width,
            left=place.first - 0.5,
            height=place.size,
            align="edge",
            color=COLORS[k % len(COLORS)],
            edgecolor="white",
        )
        if len(analysis.places) <= NAMED:
            middle = (place.first - 0.5 + width / 2, place.offset + place.size / 2)
            axes.text(*middle, f"{place.tensor}\n{place.size:,}", ha="center", va="center", fontsize=7, clip_on=True)
    axes.set_xlim(-0.5, len(analysis.layers) - 0.5)
    axes.set_ylim(0, analysis.arena)
    axes.set_xticks(range(len(analysis.layers)), analysis.layers, rotation=45, ha="right", fontsize=7)
    axes.set_ylabel("byte of the arena", fontsize=9)
    axes.set_title("arena: what lies where, and when", fontsize=10, loc="left")
    _finish(axes)


def _finish(axes) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
