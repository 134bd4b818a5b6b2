"""The command `rtcore`: quantize, generate, simulate, validate, analyze, demo.

Exit status 0: done, and the check passed; 1: the check failed; 2: the input is wrong, said in one message on stderr.
Tables go to stdout, or one JSON document with --json; progress goes to stderr, and only to a terminal.

Neighbours: `quantize`, `compare.py` and `costs.py` (do the work), `report.py` and `costs_report.py` (print and
write), `demo.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

import quantize as q
import rtcore
from firmware_sim import costs_report, demo, report
from firmware_sim.compare import MIN_SQNR_DB, validate
from firmware_sim.costs import Budget, analyze
from firmware_sim.emulator import EmulatorError
from firmware_sim.qemu import PROGRAM
from firmware_sim.simulator import Simulator
from firmware_sim.toolchain import CORES, TARGETS, ToolchainError, find_target
from quantize import FormatError, QuantizedModel, QuantizeError
from quantize.files import write_whole
from quantize.graph import Signature
from quantize.package import PACKAGES
from rtcore.tables import ACTIVATIONS, Layer, Tables

WRONG_INPUT = 2
TARGET_HELP = f"host, an emulated core ({', '.join(TARGETS)}), or qemu:CORE where {PROGRAM} is installed."
CORES_HELP = f"A core, or several by repeating this: {', '.join(TARGETS)}."
INT32_MAX = 2**31 - 1


class Commands(click.Group):
    """Turns every error that the user can act on into one message and exit status 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise  # click ends quietly
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            message = f"{where}{error.strerror or error}"
        except (ValueError, ToolchainError, EmulatorError) as error:
            message = str(error)
        click.echo(f"rtcore: {message}", err=True)
        context.exit(WRONG_INPUT)
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(rtcore.__version__, prog_name="rtcore")
def main() -> None:
    """Recurrent and dense networks from PyTorch or ONNX to fixed-point C on microcontrollers.

    Exit status: 0 ok, 1 the check failed, 2 the input is wrong.
    """


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")


# -------------------------------------------------------------------------------------------------------- quantize --


@main.command()
@click.argument("model")
@click.option("--calibration", required=True, help="What the model takes: .npy, or .npz of several inputs by name.")
@click.option("--weight-bits", type=click.Choice(["8", "16"]), default="16", show_default=True)
@click.option("--accumulator-bits", type=click.Choice(["32"]), help="Narrow weights until 32-bit sums are proven.")
@click.option("--percentile", type=float, help="Of the calibrated magnitudes to represent; the rest saturates.")
@click.option("--headroom", type=float, default=q.HEADROOM, show_default=True, help="Formats hold this many ranges.")
@click.option("--form", type=click.Choice(["auto", "stream", "window"]), default="auto", help="What one step takes.")
@click.option("-o", "--output", required=True, help="The .safetensors to write.")
@json_option
def quantize(
    model: str,
    calibration: str,
    weight_bits: str,
    accumulator_bits: str | None,
    percentile: float | None,
    headroom: float,
    form: str,
    output: str,
    as_json: bool,
) -> None:
    """Turn a .pt2 (torch.export.save), an .onnx or a .keras file into a fixed-point net."""
    check_folder(output)
    frames = load_frames(calibration)
    with progress_bar() as notify:
        notify(f"quantizing {model}", 0, 1)
        qmodel = q.quantize(
            existing(model),
            frames,
            int(weight_bits),
            accumulator_bits=int(accumulator_bits) if accumulator_bits else None,
            percentile=percentile,
            headroom=headroom,
            form=form,
        )
    qmodel.save(output)
    if as_json:
        print_json(summary(qmodel) | {"file": output})
        return
    console = report.open_console()
    print_summary(qmodel, console)
    console.print(Text(f"written to {output}"), soft_wrap=True)


def summary(qmodel: QuantizedModel) -> dict[str, Any]:
    """What `rtcore quantize` says, for JSON."""
    tables = qmodel.tables
    return {
        "digest": qmodel.digest,
        "weight_bytes": qmodel.weight_bytes,
        "notes": tables.meta.get("notes", []),
        "tensors": {t.name: {"width": t.width, "frac": t.frac} for t in tables.tensors.values()},
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape": shape_of(tables, layer),
                "inputs": list(layer.inputs),
                "output": layer.output,
                "weight_bits": {name: 8 * a.itemsize for name, a in layer.arrays.items() if a.ndim == 2},
            }
            for layer in tables.layers
        ],
        "accumulators": tables.meta.get("proofs", {}),
    }


def shape_of(tables: Tables, layer: Layer) -> str:
    """ "42 -> 24 tanh"."""
    widths = " + ".join(str(tables.tensors[name].width) for name in layer.inputs)
    names = {number: name for name, number in ACTIVATIONS.items()}
    activation = names[layer.ints["activation"]] if layer.ints.get("activation") else ""
    return f"{widths} -> {tables.tensors[layer.output].width} {activation}".strip()


def print_summary(qmodel: QuantizedModel, console: Console) -> None:
    """Layers, formats, weight widths, and the proof that no sum overflows."""
    tables = qmodel.tables
    layers = []
    for layer in tables.layers:
        fracs = " ".join(str(tables.tensors[name].frac) for name in layer.inputs)
        bits = " / ".join(f"int{8 * a.itemsize}" for a in layer.arrays.values() if a.ndim == 2)
        kind = layer.kind.removesuffix("_i16")
        layers.append((layer.name, kind, shape_of(tables, layer), fracs, f"{tables.tensors[layer.output].frac}", bits))
    columns = ("layer", "kernel", "shape", "frac in", "frac out", "weights")
    console.print(report.to_table(report.Section("Layers", columns, tuple(layers))))
    sums = []
    for name, proof in tables.meta.get("proofs", {}).items():
        share = max(proof["high"], -proof["low"]) / INT32_MAX
        limits = (f"{proof['low']:,}", f"{proof['high']:,}", f"{share:.3g}")
        sums.append((name, f"int{proof['acc_bits']}", *limits, f"{proof['row']:,}", f"{proof['wide_rows']:,}"))
    if sums:
        note = (
            "Proven from the weights, for every input and any order of summation. Share: of int32, in the row that "
            "goes furthest. Wide rows: those that int32 cannot hold; one of them makes the matrix sum in int64."
        )
        columns = ("matrix", "sums", "lowest", "highest", "share", "row", "wide rows")
        console.print(report.to_table(report.Section("Sums at their worst", columns, tuple(sums), note)), Text())
    for note in tables.meta.get("notes", []):
        console.print(Text(note))
    console.print(Text(f"{qmodel.weight_bytes:,} bytes of weights, SHA-256 {qmodel.digest}"), soft_wrap=True)


# -------------------------------------------------------------------------------------------------------- generate --


@main.command()
@click.argument("model")
@click.option("-o", "--output", required=True, help="The folder to write into; made when it is missing.")
@click.option("--name", default="net", show_default=True, help="Prefix of the C names and files.")
@click.option(
    "--core", default="portable", show_default=True, help=f"Whose kernels: {', '.join(CORES)} (M4, M7, M33 with DSP)."
)
@click.option("--package", type=click.Choice(PACKAGES), help="A self-contained package; single is one .c and one .h.")
@json_option
def generate(model: str, output: str, name: str, core: str, package: str | None, as_json: bool) -> None:
    """Write the C of a fixed-point net: header, weights, step, golden vectors, kernels, build files."""
    check_folder(output)
    qmodel = q.load(model)
    paths = [str(path) for path in q.generate(qmodel, output, name, core, package)]
    if as_json:
        print_json({"digest": qmodel.digest, "files": paths})
        return
    for path in paths:
        click.echo(path)


# -------------------------------------------------------------------------------------------------------- simulate --


@main.command()
@click.argument("model")
@click.option("--input", "input_", required=True, help="Frames: .npy, or .npz of several inputs by name.")
@click.option("--output", required=True, help="Results: .npy, or .npz of several results by name.")
@click.option("--target", default="host", show_default=True, help=TARGET_HELP)
@json_option
def simulate(model: str, input_: str, output: str, target: str, as_json: bool) -> None:
    """Run a fixed-point net on frames, on this machine or on an emulated microcontroller."""
    check_target(target)
    check_folder(output)
    qmodel = q.load(model)
    check_output(output, qmodel.signature)
    frames = load_frames(input_)
    with progress_bar() as notify:
        notify(f"building for {target}", 0, 1)
        simulator = Simulator(qmodel, target)
        notify(f"running on {target}", 0, 1)
        results = named(qmodel.signature, simulator.run(frames))
    save_results(output, results)
    counts = simulator.instructions
    facts = {
        "digest": qmodel.digest,
        "target": target,
        "file": output,
        "results": {name: list(array.shape) for name, array in results.items()},
        "input_saturations": simulator.input_saturations,
        "instructions": None
        if counts is None
        else {"min": int(counts.min()), "mean": float(counts.mean()), "max": int(counts.max()), "steps": counts.size},
    }
    if as_json:
        print_json(facts)
        return
    for name, array in results.items():
        click.echo(f"{name}: float32 {list(array.shape)}")
    if simulator.input_saturations:
        click.echo(f"{simulator.input_saturations:,} frame value(s) beyond the calibrated range were clipped")
    if counts is not None:
        spread = f"{counts.min():,} to {counts.max():,}, mean {counts.mean():,.1f}"
        click.echo(f"{target}: {spread} instructions per step over {counts.size:,} steps")
    click.echo(f"written to {output}")


# -------------------------------------------------------------------------------------------------------- validate --


@main.command(name="validate")
@click.argument("model")
@click.option("--model", "reference", required=True, help="The .pt2, .onnx or .keras that was quantized.")
@click.option("--input", "input_", required=True, help="Frames: .npy, or .npz of several inputs by name.")
@click.option("--target", default="host", show_default=True, help=TARGET_HELP)
@click.option("--min-sqnr", type=float, default=MIN_SQNR_DB, show_default=True, help="dB that every output must reach.")
@click.option("--png", help="Write the picture of trajectories and errors.")
@click.option("--html", help="Write the report as one page, picture included.")
@json_option
@click.pass_context
def validate_command(
    context: click.Context,
    model: str,
    reference: str,
    input_: str,
    target: str,
    min_sqnr: float,
    png: str | None,
    html: str | None,
    as_json: bool,
) -> None:
    """Compare float, fixed point and microcontroller, layer by layer. Exit status 1 when an output is below
    --min-sqnr or the target's bits differ from the host's."""
    check_target(target)
    for path in (png, html):
        if path is not None:
            check_folder(path)
    qmodel = q.load(model)
    frames = load_frames(input_)
    with progress_bar() as notify:
        found = validate(qmodel, existing(reference), frames, target, min_sqnr=min_sqnr, progress=notify)
    if png is not None:
        report.write_png(found, png)
    if html is not None:
        report.write_html(found, html)
    if as_json:
        click.echo(found.to_json())
    else:
        report.print_report(found)
    context.exit(0 if found.ok else 1)


# --------------------------------------------------------------------------------------------------------- analyze --


@main.command(name="analyze")
@click.argument("model")
@click.option("--target", "targets", multiple=True, default=("cortex-m4",), show_default=True, help=CORES_HELP)
@click.option("--core", help="Whose kernels, where not the target's own: portable.")
@click.option("--clock", type=float, help="MHz of the core; with --frame: what share of a frame the net takes.")
@click.option("--frame", type=float, help="Milliseconds between two frames.")
@click.option("--load", type=float, default=100, show_default=True, help="Percent of a frame that are allowed.")
@click.option("--flash", type=int, help="Bytes of flash that are allowed.")
@click.option("--ram", type=int, help="Bytes of RAM that are allowed: state, buffers and stack.")
@click.option("--png", help="A picture to write: time, flash, RAM, the arena.")
@json_option
@click.pass_context
def analyze_command(
    context: click.Context,
    model: str,
    targets: tuple[str, ...],
    core: str | None,
    clock: float | None,
    frame: float | None,
    load: float,
    flash: int | None,
    ram: int | None,
    png: str | None,
    as_json: bool,
) -> None:
    """What a fixed-point net costs on a core: flash, RAM, stack, instructions, estimated cycles, layer by layer.

    Exit status 1 when the golden bits differ or a limit given here is exceeded.
    """
    if png:
        check_folder(png)
    budget = Budget(
        None if clock is None else 1e6 * clock, None if frame is None else 1e-3 * frame, load / 100, flash, ram
    )
    qmodel = q.load(model)
    with progress_bar() as notify:
        notify(f"analyzing {model}", 0, 1)
        found = analyze(qmodel, targets, budget, core)
        if png:
            costs_report.write_png(found, png)
    if as_json:
        print_json(found.to_dict())
    else:
        costs_report.print_analysis(found)
    context.exit(0 if found.ok else 1)


# ------------------------------------------------------------------------------------------------------------ demo --


@main.command(name="demo")
@click.option("-o", "--output", default=str(demo.FOLDER), show_default=True, help="The folder to write into.")
@click.option("--target", default=demo.TARGET, show_default=True, help="The emulated core.")
@json_option
@click.pass_context
def demo_command(context: click.Context, output: str, target: str, as_json: bool) -> None:
    """Train a GRU on handwritten digits, quantize it, generate C, run that on an emulated core, compare."""
    find_target(target)
    with progress_bar() as notify:
        found = demo.run_demo(Path(output), target=target, progress=notify)
    if as_json:
        print_json(found.to_dict())
    else:
        demo.print_demo(found, report.open_console())
    context.exit(0 if found.ok else 1)


# ----------------------------------------------------------------------------------------------------------- files --


def existing(path: str) -> Path:
    """The path of a file (or of a model that is a folder) that is there."""
    if not Path(path).exists():
        raise FormatError(f"{path}: no such file")
    return Path(path)


def check_folder(path: str) -> None:
    """Refuses an output whose folder is missing, before any work."""
    if not Path(path).parent.is_dir():
        raise FormatError(f"{path}: the folder {Path(path).parent} does not exist")


def check_target(target: str) -> None:
    """Refuses an unknown target, before any work."""
    if target != "host":
        find_target(target)


def load_frames(path: str) -> Any:
    """An array from a .npy, a dict of arrays by name from a .npz. Pickled objects are refused."""
    advice = "write frames with numpy.save, several inputs with numpy.savez"
    data = existing(path).read_bytes()
    if not data.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        raise FormatError(f"{path}: neither .npy nor .npz; {advice}")
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise FormatError(f"{path}: holds pickled Python objects, which are not loaded; {advice}") from error
        raise FormatError(f"{path}: damaged ({error}); {advice}") from error
    if isinstance(arrays, dict) and not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise FormatError(f"{path}: a zip archive, but not a .npz; {advice}")
    return arrays


def check_output(path: str, signature: Signature) -> None:
    """Refuses a file name that cannot hold the model's results."""
    suffix = Path(path).suffix
    if suffix not in (".npy", ".npz"):
        raise QuantizeError(f"{path}: results are written as .npy or, several of them by name, as .npz")
    if suffix == ".npy" and len(signature.results) > 1:
        names = ", ".join(result.name for result in signature.results)
        raise QuantizeError(f"{path}: the model returns {names}; name a .npz file")


def named(signature: Signature, results: Any) -> dict[str, np.ndarray]:
    """Results by name, whatever their container."""
    if isinstance(results, dict):
        return results
    arrays = results if isinstance(results, (tuple, list)) else [results]
    return {result.name: array for result, array in zip(signature.results, arrays, strict=True)}


def save_results(path: str, results: dict[str, np.ndarray]) -> None:
    """One .npy, or a .npz by name; whole or not at all."""
    buffer = io.BytesIO()
    if Path(path).suffix == ".npy":
        np.save(buffer, next(iter(results.values())), allow_pickle=False)
    else:
        np.savez(buffer, **results)
    write_whole(path, buffer.getvalue())


# --------------------------------------------------------------------------------------------------------- console --


def print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr that goes when the work is done; silent unless stderr is a terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)

        def notify(what: str, done: int, total: int) -> None:
            many = total > 1
            text = f"{what} {done}/{total}" if many else what
            bars.update(task, description=text, completed=done, total=total if many else None)

        yield notify
