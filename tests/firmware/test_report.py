"""A Report as text, JSON, picture and page.

Neighbours: `firmware_sim/report.py` (what is tested), `test_compare.py` (the figures).
"""

import base64
import dataclasses
import importlib
import importlib.util
import io
import json
import math
import os
import re
import struct
import sys

import numpy as np
import pytest
from rich.console import Console

from firmware_sim import report as reports
from firmware_sim.compare import Mismatch, TargetReport, validate
from graphs import Graph, gru_node, linear_node, signature
from quantize import FormatError, QuantizeError, files, quantize_graph

SEED = 12
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="the picture is an optional extra: rtcore[report]"
)


def made(steps=60, streams=2, mcu=None):
    """A report of a GRU and a linear layer; with `mcu`, as if a core had been emulated."""
    rng = np.random.default_rng(SEED)
    nodes = (gru_node("rnn", "x", rng, 4, 6), linear_node("head", "rnn", rng, 6, 3))
    graph = Graph(nodes, {"x": 4, "rnn": 6, "head": 3}, signature(4, "head"))
    frames = rng.standard_normal((streams, steps, 4))
    report = validate(quantize_graph(graph, [frames]), graph, frames)
    return report if mcu is None else dataclasses.replace(report, target=mcu.target, mcu=mcu)


def emulated(mismatch=None):
    return TargetReport("cortex-m4", 2, 60, mismatch, 4100, 4123.4, 4150, 12_345, 256)


@pytest.fixture(scope="module")
def report():
    return made(mcu=emulated())


# ---------------------------------------------------------------------------------------------------------- tables --


def test_the_text_holds_every_figure(report):
    text = str(report)
    for row in report.tensors:
        assert re.search(rf"^ {row.name} .* {reports.db(row.sqnr_db)} ", text, re.M), row.name
    budget = report.outputs[0]
    for figure in (budget.sqnr_db, budget.weights_sqnr_db, budget.arithmetic_sqnr_db):
        assert reports.db(figure) in text
    assert "4,100  4,123  4,150   12,345    256" in text
    assert "2 stream(s) of 60 step(s)" in text and report.digest[:12] in text
    assert text.rstrip().endswith("asked for), cortex-m4 gives the host's bits")


def test_the_tables_fit_80_columns(report):
    text = reports.to_text(report, 80)
    assert re.search(r"^ tensor +kernel +size +frac +range +SQNR dB +state +max LSB +rms LSB +clips *$", text, re.M)
    assert re.search(r"^ cortex-m4 +2 x 60 +equal +4,100 ", text, re.M)


def test_a_failure_says_where(report):
    wrong = Mismatch(1, 7, "rnn", "state", "rnn", 3, -5, -6)
    text = str(made(mcu=emulated(wrong)))
    assert "DIFFER" in text
    assert "FAILED: cortex-m4 and host differ, first at stream 1, step 7, layer rnn, state rnn, unit 3: " in text
    assert "host -5, target -6" in text


def test_figures_without_error_are_words():
    assert [reports.db(x) for x in (math.inf, -math.inf, None, 84.26)] == ["exact", "-inf", "-", "84.3"]
    assert [reports.lsb(x) for x in (0.0, 0.001234, 0.387, 4.4149, 123.456)] == ["0", "0.00123", "0.39", "4.41", "123"]


def test_names_are_not_read_as_markup(report):
    tensor = dataclasses.replace(report.tensors[1], name="[red]cat[0][/red]")
    console = Console(file=io.StringIO(), width=150)
    reports.print_report(dataclasses.replace(report, tensors=(tensor,)), console)
    assert "[red]cat[0][/red]" in console.file.getvalue()


# ----------------------------------------------------------------------------------------------------------- files --


def test_the_json_file(report, tmp_path):
    reports.write_json(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(report.to_json())


def png_size(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@needs_matplotlib
def test_the_picture_has_a_row_per_tensor_and_one_for_the_rms(report, tmp_path):
    reports.write_png(report, tmp_path / "report.png")
    data = (tmp_path / "report.png").read_bytes()
    width, height = png_size(data)
    assert width == 13 * reports.DPI and height == pytest.approx((2.9 * 3 + 0.4) * reports.DPI, abs=1)
    assert data == reports.to_png(report), "the same report gives the same bytes"


@needs_matplotlib
def test_the_picture_draws_what_the_trajectories_say(report):
    axes = importlib.import_module("matplotlib.figure").Figure().add_subplot()
    trajectory = report.trajectories[-1]
    reports._draw_error(axes, trajectory)
    lines = [line for line in axes.get_lines() if line.get_label().startswith("element")]
    units = [int(line.get_label().split()[1]) for line in lines]
    assert len(units) == 3
    for line, unit in zip(lines, units, strict=True):
        error = (trajectory.fixed - trajectory.reference)[:, unit] * 2.0**trajectory.frac
        assert np.allclose(line.get_ydata(), error)


@needs_matplotlib
@pytest.mark.parametrize(("steps", "streams"), [(1, 3), (700, 1)])
def test_the_picture_of_one_step_and_of_many(steps, streams):
    png_size(reports.to_png(made(steps, streams)))


@needs_matplotlib
def test_the_page_needs_no_other_file(report, tmp_path):
    name = dataclasses.replace(report.tensors[1], name="<script>")
    report = dataclasses.replace(report, tensors=(*report.tensors, name))
    reports.write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    picture = re.search(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', page)[1]
    png_size(base64.b64decode(picture))
    assert not re.search(r'(src|href)="(?!data:)', page) and "@import" not in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    for section in reports.sections(report):
        assert all(f"<th>{column}</th>" in page for column in section.columns)
    assert f"<td>{reports.db(report.outputs[0].weights_sqnr_db)}</td>" in page and report.digest in page


def test_without_matplotlib_the_remedy_is_named(report, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for write, name in ((reports.write_png, "report.png"), (reports.write_html, "report.html")):
        with pytest.raises(QuantizeError, match=re.escape("pip install 'rtcore[report]'")):
            write(report, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "out"
    files.write_whole(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FormatError, match="the folder .*nowhere does not exist"):
        files.write_whole(tmp_path / "nowhere" / "out", b"")
    with pytest.raises(FormatError, match="a folder, not a file"):
        files.write_whole(tmp_path, b"")
