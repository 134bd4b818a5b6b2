"""`rtcore demo`: the whole path on real data, with nothing to download, in well under two minutes.

Handwritten digits (scikit-learn's, 8x8 pixels), each read row by row as a sequence of 8 frames, are classified by a GRU
that is trained here; the exported .pt2 is quantized at 16 and at 8 bits, written as C, and run on every held-out digit
by the host and by an emulated Cortex-M4, whose bits must be the same. One table says what it costs and what it loses.

Neighbours: `quantize` (import, quantize, generate), `compare.py` (validates), `report.py` (the pictures), `cli.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

import quantize
from firmware_sim.compare import Report, sqnr_db, validate
from firmware_sim.report import Section, db, open_console, to_table, write_png
from firmware_sim.simulator import Simulator
from quantize import QuantizeError
from quantize.files import write_whole

if TYPE_CHECKING:
    import torch

FOLDER = Path("build") / "demo"
TARGET = "cortex-m4"
WIDTHS = (16, 8)
CALIBRATION = 256  # digits of the training set
FILES = (("digits-", ".safetensors"), ("", ""), ("digits-", ".png"))  # around "int16": tables, folder of C, picture

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """Everything that decides the trained weights. held_out: the share of digits kept from training."""

    seed: int = 3
    units: int = 32
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 2e-2  # at the peak of a one-cycle schedule
    weight_decay: float = 0.3
    held_out: float = 0.3

    def key(self, version: str) -> str:
        """Names what a version of torch trains with these settings."""
        return hashlib.sha256(json.dumps([version, asdict(self)], sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Digits:
    """frames: float32 [digits, 8 rows, 8 pixels], 0..1; labels: int64 [digits]; for training and held out."""

    frames: np.ndarray
    labels: np.ndarray
    held_out_frames: np.ndarray
    held_out_labels: np.ndarray


@dataclass(frozen=True)
class Row:
    """One line of the demo's table. accuracy in percent; sqnr_db of the logits against float torch; bytes; the last
    three None where there is no firmware."""

    name: str
    accuracy: float
    sqnr_db: float | None
    weight_bytes: int
    flash: int | None = None
    ram: int | None = None
    instructions: float | None = None
    equal: bool | None = None


@dataclass(frozen=True)
class Demo:
    """What the demo found: the table's rows, the reports by weight bits, how many digits ran where, and the files."""

    rows: tuple[Row, ...]
    reports: dict[int, Report]
    held_out: int
    emulated: int
    target: str
    files: dict[str, str]

    @property
    def ok(self) -> bool:
        """True when the emulated core gave the host's bits."""
        return all(row.equal is not False for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        numbers = {"held_out": self.held_out, "emulated": self.emulated, "target": self.target, "files": self.files}
        return {"ok": self.ok, "rows": [asdict(row) for row in self.rows], **numbers}


# ---------------------------------------------------------------------------------------------- data and training --


def load_digits_frames(settings: Settings = Settings()) -> Digits:
    """scikit-learn's 1,797 digits, split by the seed with equal shares of every digit in both parts."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 (optional package)
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise QuantizeError("the demo's data come with scikit-learn: pip install 'rtcore[demo]'") from error
    digits = load_digits()
    frames = (digits.images / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    split = train_test_split(frames, labels, test_size=settings.held_out, stratify=labels, random_state=settings.seed)
    return Digits(split[0], split[2], split[1], split[3])


def train(digits: Digits, settings: Settings = Settings(), progress: Progress | None = None) -> torch.nn.Module:
    """A GRU over the rows and a linear layer on its last step: logits [batch, 10]. Seeded; seconds on one core."""
    import torch  # noqa: PLC0415 (optional package)

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(8, settings.units, batch_first=True)
            self.head = torch.nn.Linear(settings.units, 10)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            states, _ = self.gru(rows)
            return self.head(states[:, -1])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sums' order, and so the weights, shall not depend on the machine's cores
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = Classifier()
            fit(model, digits, settings, progress or (lambda what, done, total: None))
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def fit(model: torch.nn.Module, digits: Digits, settings: Settings, progress: Progress) -> None:
    """Trains in place: AdamW under a one-cycle learning rate, cross entropy."""
    import torch  # noqa: PLC0415 (optional package)

    frames, labels = torch.from_numpy(digits.frames), torch.from_numpy(digits.labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(frames) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps)
    for epoch in range(settings.epochs):
        progress("training", epoch, settings.epochs)
        for batch in torch.randperm(len(frames)).split(settings.batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(frames[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    progress("training", settings.epochs, settings.epochs)


def trained(
    folder: Path, digits: Digits, settings: Settings = Settings(), progress: Progress | None = None
) -> tuple[Path, np.ndarray]:
    """The .pt2 of the trained model, kept in `folder` under the settings' key, and float torch's logits [n, 10] of the
    held-out digits."""
    try:
        import torch  # noqa: PLC0415 (optional package)
    except ModuleNotFoundError as error:
        raise QuantizeError("the demo trains a model with torch: pip install 'rtcore[torch]'") from error
    path = folder / f"digits-{settings.key(torch.__version__)}.pt2"
    if not path.exists():
        model = train(digits, settings, progress)
        sample = (torch.from_numpy(digits.frames[:2]),)
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own GRU
            program = torch.export.export(model, sample, dynamic_shapes=({0: torch.export.Dim("batch")},))
            torch.export.save(program, buffer)
        write_whole(path, buffer.getvalue())
    with torch.no_grad():
        logits = torch.export.load(path).module()(torch.from_numpy(digits.held_out_frames))
    return path, logits.numpy()


# ------------------------------------------------------------------------------------------------------- the demo --


def run_demo(
    folder: Path = FOLDER,
    settings: Settings = Settings(),
    emulated: int | None = None,
    target: str = TARGET,
    progress: Progress | None = None,
) -> Demo:
    """Trains (or finds) the model, quantizes, generates, runs and compares; files go into `folder`, which is made.

    emulated: how many held-out digits the emulated core classifies (None: all). Raises QuantizeError when scikit-learn
    or torch is missing, ToolchainError for the compiler or the emulator.
    """
    notify = progress or (lambda what, done, total: None)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    notify("loading digits", 0, 1)
    digits = load_digits_frames(settings)
    path, float_logits = trained(folder, digits, settings, progress)
    frames, labels = digits.held_out_frames, digits.held_out_labels
    parameters = 3 * settings.units * (8 + settings.units + 2) + 10 * (settings.units + 1)
    rows = [Row("float32", accuracy(float_logits, labels), None, 4 * parameters)]
    reports: dict[int, Report] = {}
    files = {"model": str(path)}
    for bits in WIDTHS:
        notify(f"quantizing to int{bits}", 0, 1)
        qmodel = quantize.quantize(path, digits.frames[:CALIBRATION], weight_bits=bits)
        tables, source, picture = (folder / f"{x}int{bits}{y}" for x, y in FILES)
        qmodel.save(tables)
        quantize.generate(qmodel, source, name="digits")
        logits = Simulator(qmodel).run(frames)
        report = reports[bits] = validate(qmodel, path, frames, target, mcu_streams=emulated, progress=progress)
        write_png(report, picture)
        files |= {f"int{bits}": str(tables), f"int{bits} C": str(source), f"int{bits} picture": str(picture)}
        rows.append(
            Row(
                f"int{bits}",
                accuracy(logits, labels),
                sqnr_db(float_logits, logits),
                qmodel.weight_bytes,
                report.mcu.flash,
                report.mcu.ram,
                report.mcu.instructions_mean,
                report.mcu.equal,
            )
        )
    done = min(report.mcu.streams for report in reports.values())
    return Demo(tuple(rows), reports, len(labels), done, target, files)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent of digits whose largest logit is the right one."""
    return 100 * float(np.mean(np.argmax(logits, axis=1) == labels))


def to_section(demo: Demo) -> Section:
    """The demo's table."""
    rows = []
    for row in demo.rows:
        firmware = ("-" if value is None else f"{value:,.0f}" for value in (row.flash, row.ram, row.instructions))
        bits = {None: "-", True: "equal", False: "DIFFER"}[row.equal]
        rows.append((row.name, f"{row.accuracy:.2f}", db(row.sqnr_db), f"{row.weight_bytes:,}", *firmware, bits))
    return Section(
        f"{demo.held_out} held-out digits on the host, {demo.emulated} of them on an emulated {demo.target}",
        ("weights", "accuracy %", "SQNR dB", "weight B", "flash B", "RAM B", "instructions", "bits"),
        tuple(rows),
        "SQNR: logits against float torch. Bytes of weights; of flash, code included; of one stream's state. "
        f"Instructions: per frame, mean. Bits: {demo.target} against the host, every tensor and 32-bit state at "
        "every step.",
    )


def print_demo(demo: Demo, console: Console) -> None:
    """The table, where the bits differ if they do, and where the files lie."""
    console.print(to_table(to_section(demo)))
    for bits, report in demo.reports.items():
        if report.mcu.mismatch is not None:
            console.print(Text(f"int{bits}: {report.mcu.mismatch}", "bold red"))
    for what, path in demo.files.items():
        console.print(Text(f"{what + ':':<14} {path}"), soft_wrap=True)


def main(folder: Path = FOLDER) -> int:
    """The demo from Python: runs it, prints it, and returns 0 when the bits are equal, else 1."""
    demo = run_demo(folder)
    print_demo(demo, open_console())
    return 0 if demo.ok else 1
