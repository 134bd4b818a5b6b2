"""A Report for people: tables on a terminal, JSON, a picture of trajectories and errors, one HTML page.

What is shown is decided once, in `sections`; terminal and page print the same tables. The picture needs matplotlib, the
optional extra "report". Every file is written whole or not at all.

Neighbours: `compare.py` (makes Reports), `cli.py` and `demo.py` (print them), `templates/report.html.jinja` (the page).
"""

from __future__ import annotations

import base64
import io
import math
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from firmware_sim.compare import OutputReport, Report, TargetReport, TensorReport, Trajectory
from quantize import QuantizeError
from quantize.files import write_whole

TEMPLATES = Path(__file__).resolve().parent / "templates"

COLORS = ("#0072b2", "#d55e00", "#009e73")  # told apart by colour-blind readers too
ELEMENTS = len(COLORS)  # of a tensor, in the picture
SHOWN = 2  # outputs, and recurrent layers, in the picture
SHOWN_STEPS = 240  # of a trajectory; errors show all
MARKED_STEPS = 48  # up to so many steps get a mark each
DPI = 130
WIDTH = 150  # columns of text that is not on a terminal
TITLE_WIDTH = 150  # characters

LAYER_COLUMNS = (
    "tensor",
    "kernel",
    "size",
    "frac",
    "range",
    "SQNR dB",
    "state",
    "max LSB",
    "rms LSB",
    "clips",
)


@dataclass(frozen=True)
class Section:
    """A table: the first column holds names, the others numbers or words, as text. note: what the columns mean."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


# -------------------------------------------------------------------------------------------------------- tables --


def db(value: float | None) -> str:
    """An SQNR in dB; "exact" when nothing differs, "-" when there is none."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "exact" if value > 0 else "-inf"
    return f"{value:.1f}"


def lsb(value: float) -> str:
    """An error in LSB: two digits behind the point, or three in all."""
    return "0" if value == 0 else f"{value:.2f}" if 0.005 <= value < 10 else f"{value:.3g}"


def sections(report: Report) -> list[Section]:
    """The tables of a report."""
    found = [
        Section(
            "Outputs and where their error comes from",
            ("output", "steps", "SQNR dB", "max LSB", "weights alone dB", "arithmetic alone dB"),
            tuple(_output_row(output) for output in report.outputs),
            "SQNR: fixed point against the float64 model. Max: the largest error. Weights alone: the float model on "
            "rounded weights. Arithmetic alone: fixed point against that, so rounded activations, tables, saturation.",
        ),
        Section(
            "Layer by layer",
            LAYER_COLUMNS,
            tuple(_tensor_row(tensor) for tensor in report.tensors),
            "Errors against the float model, those of earlier layers included; one LSB is 2^-frac. Range: how much of "
            "the format is used. State: the 32-bit state's SQNR. Rms: the error's, over the first / the last quarter "
            "of the steps: what drifts. Clips: values that saturated by more than one LSB.",
        ),
    ]
    if report.mcu is not None:
        found.append(_target_section(report.mcu))
    return found


def _output_row(output: OutputReport) -> tuple[str, ...]:
    budget = (db(output.weights_sqnr_db), db(output.arithmetic_sqnr_db))
    return (output.name, output.steps, db(output.sqnr_db), lsb(output.max_error_lsb), *budget)


def _tensor_row(tensor: TensorReport) -> tuple[str, ...]:
    return (
        tensor.name,
        tensor.kind.removesuffix("_i16"),
        f"{tensor.width}",
        f"{tensor.frac}",
        f"{100 * tensor.range_used:.0f} %",
        db(tensor.sqnr_db),
        db(tensor.state_sqnr_db),
        lsb(tensor.max_error_lsb),
        f"{lsb(tensor.rms_first_lsb)}/{lsb(tensor.rms_last_lsb)}",
        f"{tensor.saturated:,}",
    )


def _target_section(mcu: TargetReport) -> Section:
    row = (
        mcu.target,
        f"{mcu.streams:,} x {mcu.steps:,}",
        "equal" if mcu.equal else "DIFFER",
        f"{mcu.instructions_min:,}",
        f"{mcu.instructions_mean:,.0f}",
        f"{mcu.instructions_max:,}",
        f"{mcu.flash:,}",
        f"{mcu.ram:,}",
    )
    columns = ("target", "streams x steps", "bits", "min", "mean", "max", "flash B", "RAM B")
    return Section(
        "Microcontroller, instructions per step",
        columns,
        (row,),
        "Bits: every tensor and every 32-bit state of every step against the host's. Instructions: executed per step "
        "on the emulated core; they are not cycles. Flash: bytes of code and tables. RAM: bytes of one stream's state.",
    )


def headline(report: Report) -> str:
    """What was compared, in one line."""
    where = "host" if report.target == "host" else f"host and {report.target}"
    return (
        f"float against fixed point on {where}: {report.streams:,} stream(s) of {report.steps:,} step(s), "
        f"{report.weight_bytes:,} bytes of weights, net {report.digest[:12]}"
    )


def verdict(report: Report) -> str:
    """The check's result, in one line, and what saturated."""
    clipped = f"; {report.saturated:,} value(s) saturated" if report.saturated else ""
    if not report.ok:
        return f"FAILED: {'; '.join(report.problems)}{clipped}"
    worst = "no error" if math.isinf(report.sqnr_db) else f"worst output {report.sqnr_db:.1f} dB"
    bits = "" if report.mcu is None else f", {report.target} gives the host's bits"
    return f"ok: {worst} (at least {report.min_sqnr_db:g} asked for){bits}{clipped}"


STYLES = {"DIFFER": "bold red", "equal": "green", "int64": "bold yellow", "int32": "green"}


def to_table(section: Section) -> Table:
    """A section as a rich table that fits 80 columns where its names are not long."""
    table = Table(title=section.title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify, table.title_style = "left", "bold"
    table.caption, table.caption_justify, table.caption_style = section.note or None, "left", "dim"
    for i, column in enumerate(section.columns):
        words = not any(row[i][:1].isdigit() for row in section.rows)
        table.add_column(column, justify="left" if i == 0 or words else "right", overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table


def renderable(report: Report) -> RenderableType:
    """The whole report for a rich console."""
    style = "bold green" if report.ok else "bold red"
    parts: list[RenderableType] = [Text(headline(report))]
    for section in sections(report):
        parts += [Text(), to_table(section)]
    return Group(*parts, Text(), Text(verdict(report), style=style))


def open_console() -> Console:
    """Standard output: as wide as the terminal, and wide enough for every table where it is a file or a pipe."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=WIDTH)


def print_report(report: Report, console: Console | None = None) -> None:
    """Prints the tables and the verdict."""
    (console or open_console()).print(renderable(report))


def to_text(report: Report, width: int = WIDTH) -> str:
    """The printed report without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_report(report, console)
    return console.file.getvalue()


# --------------------------------------------------------------------------------------------------------- files --


def write_json(report: Report, path: str | os.PathLike) -> None:
    """`Report.to_json` as a file."""
    write_whole(path, f"{report.to_json()}\n".encode())


def write_png(report: Report, path: str | os.PathLike) -> None:
    """The picture as a file; see `to_png`."""
    write_whole(path, to_png(report))


def write_html(report: Report, path: str | os.PathLike) -> None:
    """Tables and picture as one page that needs no other file. Raises QuantizeError without matplotlib."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        headline=headline(report),
        verdict=verdict(report),
        ok=report.ok,
        digest=report.digest,
        sections=sections(report),
        png=base64.b64encode(to_png(report)).decode(),
    )
    write_whole(path, page.encode())


# ------------------------------------------------------------------------------------------------------- picture --


def to_png(report: Report) -> bytes:
    """Float against fixed trajectories of outputs and recurrent units, their errors, and the rms error over time.

    Per tensor the elements that move most, of the report's stream; rms over all streams and elements. Raises
    QuantizeError when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (optional package)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise QuantizeError("the picture needs matplotlib: pip install 'rtcore[report]'") from error
    shown = _shown(report.trajectories)
    figure = Figure(figsize=(13, 2.9 * (len(shown) + 1) + 0.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    title = "\n".join(textwrap.fill(line, TITLE_WIDTH) for line in (headline(report), verdict(report)))
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    grid = figure.add_gridspec(len(shown) + 1, 2, width_ratios=(1, 1))
    for row, trajectory in enumerate(shown):
        _draw_values(figure.add_subplot(grid[row, 0]), trajectory)
        _draw_error(figure.add_subplot(grid[row, 1]), trajectory)
    _draw_rms(figure.add_subplot(grid[len(shown), :]), shown)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _shown(trajectories: tuple[Trajectory, ...]) -> list[Trajectory]:
    """The first outputs and the last recurrent layers."""
    outputs = [t for t in trajectories if t.kind == "output"][:SHOWN]
    states = [t for t in trajectories if t.kind == "state"][-SHOWN:]
    return outputs + states


def _elements(trajectory: Trajectory) -> list[int]:
    """The elements that move most (of a single step: the largest), in order."""
    reference = trajectory.reference
    moves = reference.std(axis=0) if len(reference) > 1 else np.abs(reference[0])
    return sorted(np.argsort(-moves, kind="stable")[:ELEMENTS].tolist())


def _title(trajectory: Trajectory) -> str:
    what = "output" if trajectory.kind == "output" else "state of"
    return f"{what} {trajectory.name}"


def _mark(steps: int, mark: str) -> str:
    return mark if steps <= MARKED_STEPS else ""


def _draw_values(axes, trajectory: Trajectory) -> None:
    """Float as broad pale lines, fixed point as thin dark ones on top of them."""
    steps = min(len(trajectory.reference), SHOWN_STEPS)
    x = np.arange(steps)
    for color, unit in zip(COLORS, _elements(trajectory), strict=False):
        axes.plot(x, trajectory.reference[:steps, unit], color=color, lw=5, alpha=0.3, solid_capstyle="round")
        axes.plot(x, trajectory.fixed[:steps, unit], color=color, lw=1.1, marker=_mark(steps, "o"), ms=3)
    part = "" if steps == len(trajectory.reference) else f", first {steps} steps"
    axes.set_title(f"{_title(trajectory)}: float (broad) and fixed point (thin){part}", fontsize=10, loc="left")
    _finish(axes, steps, "value")


def _draw_error(axes, trajectory: Trajectory) -> None:
    """Fixed point minus float in LSB, with a second scale in the tensor's own values, and the legend of both panels."""
    error = np.ldexp(trajectory.fixed - trajectory.reference, trajectory.frac)
    steps = len(error)
    axes.axhline(0, color="0.6", lw=0.8)
    for color, unit in zip(COLORS, _elements(trajectory), strict=False):
        axes.plot(error[:, unit], color=color, lw=1.1, marker=_mark(steps, "o"), ms=3, label=f"element {unit}")
    axes.set_title(f"{_title(trajectory)}: error, fixed point - float", fontsize=10, loc="left")
    _finish(axes, steps, f"LSB of 2^{-trajectory.frac}")
    scale = 2.0**-trajectory.frac
    right = axes.secondary_yaxis("right", functions=(lambda y: y * scale, lambda y: y / scale))
    right.set_ylabel("value", fontsize=9)
    right.tick_params(labelsize=8)
    right.ticklabel_format(style="sci", scilimits=(-2, 3))
    axes.legend(loc="upper left", bbox_to_anchor=(1.17, 1), fontsize=8, frameon=False, borderaxespad=0)


def _draw_rms(axes, trajectories: list[Trajectory]) -> None:
    """The rms error at every step: level when nothing drifts."""
    styles = ("-", "--")
    count = {"output": 0, "state": 0}
    steps = 1
    for trajectory in trajectories:
        index = count[trajectory.kind]
        count[trajectory.kind] += 1
        rms = trajectory.rms_error_lsb
        steps = len(rms)
        axes.plot(
            np.where(rms > 0, rms, np.nan),
            color=COLORS[0] if trajectory.kind == "output" else COLORS[1],
            ls=styles[index],
            lw=1.4,
            marker=_mark(steps, "o"),
            ms=3,
            label=f"{_title(trajectory)} (LSB 2^{-trajectory.frac})",
        )
    axes.set_yscale("log", subs=(2, 5))
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter("{x:g}")
    axes.set_title("rms error over all streams and elements: rises where the error drifts", fontsize=10, loc="left")
    _finish(axes, steps, "LSB")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False, borderaxespad=0)


def _finish(axes, steps: int, label: str) -> None:
    """Labels and grid that all panels share."""
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.25)
    axes.margins(x=0.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if steps == 1:
        axes.set_xticks([0])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
