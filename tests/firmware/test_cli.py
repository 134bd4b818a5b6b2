"""The command `rtcore`: what it writes and prints, and one message with exit status 2 for everything that is wrong.

Neighbours: `firmware_sim/cli.py` (what is tested), `test_compare.py` and `test_demo.py` (what it calls).
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import save_file

import quantize
from firmware_sim import cli
from firmware_sim.engines import McuEngine
from firmware_sim.simulator import Simulator

torch = pytest.importorskip("torch", reason="torch is an optional extra: rtcore[torch]")

ROOT = Path(__file__).resolve().parents[2]
SEED = 13
MCU = [importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools", "capstone")]
needs_emulator = pytest.mark.skipif(None in MCU, reason="the emulator is an optional extra: rtcore[mcu]")
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="the picture is an optional extra: rtcore[report]"
)


class One(torch.nn.Module):
    """[batch, time, 4] -> [batch, time, 2]"""

    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(4, 6, batch_first=True)
        self.head = torch.nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Two(torch.nn.Module):
    """Two inputs by name, two results in a dict."""

    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(5, 6, batch_first=True)
        self.head = torch.nn.Linear(6, 2)

    def forward(self, left, right):
        states, last = self.rnn(torch.cat([left, right], -1))
        return {"y": self.head(states), "state": last}


def frames(*shape):
    return np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with one.pt2, x.npy, one.safetensors, and two.pt2, xy.npz."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(SEED)
    x, left, right = frames(2, 15, 4), frames(2, 15, 3), frames(2, 15, 2)
    np.save(folder / "x.npy", x)
    np.savez(folder / "xy.npz", left=left, right=right)
    one = torch.export.export(One().eval(), (torch.from_numpy(x),))
    torch.export.save(one, folder / "one.pt2")
    two = torch.export.export(Two().eval(), (torch.from_numpy(left), torch.from_numpy(right)))
    torch.export.save(two, folder / "two.pt2")
    quantize.quantize(folder / "one.pt2", x).save(folder / "one.safetensors")
    return folder


@pytest.fixture
def run(files, monkeypatch):
    """Runs the command in the folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("COLUMNS", "100")

    def invoke(*arguments):
        result = CliRunner().invoke(cli.main, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.exit_code, result.stdout, result.stderr

    return invoke


def refused(outcome, *words):
    """Exit status 2, nothing on stdout, one line on stderr that holds the words."""
    status, out, err = outcome
    assert status == 2 and out == "" and err.startswith("rtcore: ") and err.count("\n") == 1, (status, out, err)
    assert all(word in err for word in words), err
    assert "Traceback" not in err


# -------------------------------------------------------------------------------------------------------- quantize --


def test_quantize_writes_the_net_and_says_what_it_is(run, files):
    status, out, err = run("quantize", "one.pt2", "--calibration", "x.npy", "-o", "a.safetensors", "--weight-bits", "8")
    assert (status, err) == (0, "")
    qmodel = quantize.load(files / "a.safetensors")
    expected = quantize.quantize(files / "one.pt2", np.load(files / "x.npy"), weight_bits=8)
    assert qmodel.digest == expected.digest
    for words in ("4 -> 6 tanh", "6 -> 2", "int8 / int8", "rnn.recurrent", "int32", qmodel.digest, "a.safetensors"):
        assert words in out, words
    assert f"{qmodel.weight_bytes} bytes of weights" in out and "streaming: time is axis 1 of x" in out


def test_quantize_shows_which_sums_need_64_bits(run, files):
    outcomes = {}
    for option in ((), ("--accumulator-bits", "32")):
        status, out, _ = run("quantize", "one.pt2", "--calibration", "x.npy", "-o", "b.safetensors", "--json", *option)
        assert status == 0
        outcomes[option] = json.loads(out)
    wide, narrow = ({p["acc_bits"] for p in o["accumulators"].values()} for o in outcomes.values())
    assert 64 in wide and narrow == {32}
    assert outcomes[()]["layers"][0]["shape"] == "4 -> 6 tanh" and outcomes[()]["file"] == "b.safetensors"


def test_quantize_passes_its_options_on(run, files):
    options = ("--percentile", "90", "--headroom", "2")
    assert run("quantize", "one.pt2", "--calibration", "x.npy", "-o", "c.safetensors", *options)[0] == 0
    expected = quantize.quantize(files / "one.pt2", np.load(files / "x.npy"), percentile=90, headroom=2)
    assert quantize.load(files / "c.safetensors").digest == expected.digest


def test_an_existing_file_is_overwritten(run, files):
    (files / "d.safetensors").write_bytes(b"something else")
    assert run("quantize", "one.pt2", "--calibration", "x.npy", "-o", "d.safetensors")[0] == 0
    quantize.load(files / "d.safetensors")


# --------------------------------------------------------------------------------------------- generate, simulate --


def test_generate_writes_c(run, files):
    status, out, err = run("generate", "one.safetensors", "-o", "c_files", "--name", "voice")
    assert (status, err) == (0, "")
    for name in ("voice.h", "voice_weights.h", "voice.c", "voice_selftest.c", "rtcore/rtcore.h"):
        assert (files / "c_files" / name).is_file() and name in out
    status, out, _ = run("generate", "one.safetensors", "-o", "c_files", "--json")
    assert status == 0 and any(path.endswith("net.h") for path in json.loads(out)["files"])


def test_generate_writes_packages(run, files):
    status, out, err = run("generate", "one.safetensors", "-o", "arduino", "--name", "voice", "--package", "arduino")
    assert (
        (status, err) == (0, "") and "library.properties" in out and (files / "arduino/src/voice_selftest.c").is_file()
    )
    status, _, err = run("generate", "one.safetensors", "-o", "arduino", "--package", "bazel")
    assert status == 2 and "'bazel' is not one of 'cmake', 'arduino'" in err


def test_simulate_gives_what_the_simulator_gives(run, files):
    status, out, err = run("simulate", "one.safetensors", "--input", "x.npy", "--output", "y.npy")
    assert (status, err) == (0, "") and "float32 [2, 15, 2]" in out
    expected = Simulator(quantize.load(files / "one.safetensors")).run(np.load(files / "x.npy"))
    assert np.array_equal(np.load(files / "y.npy"), expected)


@needs_emulator
def test_simulate_on_a_core_counts_instructions(run, files):
    arguments = ("simulate", "one.safetensors", "--input", "x.npy", "--target", "cortex-m4", "--output")
    status, out, _ = run(*arguments, "z.npy", "--json")
    facts = json.loads(out)
    assert status == 0 and facts["instructions"]["steps"] == 30
    assert 500 < facts["instructions"]["min"] <= facts["instructions"]["mean"] <= facts["instructions"]["max"]
    assert "instructions per step over 30 steps" in run(*arguments, "z.npy")[1]
    run("simulate", "one.safetensors", "--input", "x.npy", "--output", "y.npy")
    assert np.array_equal(np.load(files / "y.npy"), np.load(files / "z.npy"))


def test_several_inputs_and_results_go_by_name(run, files):
    assert run("quantize", "two.pt2", "--calibration", "xy.npz", "-o", "two.safetensors")[0] == 0
    status, out, _ = run("simulate", "two.safetensors", "--input", "xy.npz", "--output", "out.npz")
    assert status == 0 and "y: float32 [2, 15, 2]" in out and "state: float32 [1, 2, 6]" in out
    with np.load(files / "out.npz") as results:
        shapes = {name: results[name].shape for name in results.files}
    assert shapes == {"y": (2, 15, 2), "state": (1, 2, 6)}
    assert run("validate", "two.safetensors", "--model", "two.pt2", "--input", "xy.npz")[0] == 0
    refused(run("simulate", "two.safetensors", "--input", "xy.npz", "--output", "out.npy"), "y, state", ".npz")
    refused(run("simulate", "two.safetensors", "--input", "x.npy", "--output", "out.npz"), "'left', 'right'")


def test_frames_beyond_the_calibrated_range_are_counted(run, files):
    np.save(files / "loud.npy", 100 * np.load(files / "x.npy"))
    status, out, _ = run("simulate", "one.safetensors", "--input", "loud.npy", "--output", "y.npy")
    assert status == 0 and "beyond the calibrated range were clipped" in out


# -------------------------------------------------------------------------------------------------------- validate --


VALIDATE = ("validate", "one.safetensors", "--model", "one.pt2", "--input", "x.npy")


@needs_matplotlib
@needs_emulator
def test_validate_reports_to_terminal_page_and_picture(run, files):
    status, out, err = run(*VALIDATE, "--target", "cortex-m4", "--html", "v.html", "--png", "v.png")
    assert (status, err) == (0, "")
    assert "Layer by layer" in out and "cortex-m4 gives the host's bits" in out
    assert (files / "v.html").read_text().startswith("<!DOCTYPE html>")
    assert (files / "v.png").read_bytes().startswith(b"\x89PNG")


def test_validate_as_json(run):
    status, out, err = run(*VALIDATE, "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert (
        document["ok"] and document["sqnr_db"] > 60 and [t["name"] for t in document["tensors"]][1:] == ["rnn", "head"]
    )


def test_validate_below_its_threshold_ends_with_1(run):
    status, out, err = run(*VALIDATE, "--min-sqnr", "300")
    assert (status, err) == (1, "") and "FAILED: output" in out and "below the 300 dB asked for" in out
    status, out, _ = run(*VALIDATE, "--min-sqnr", "300", "--json")
    assert status == 1 and json.loads(out)["ok"] is False


@needs_emulator
def test_validate_ends_with_1_where_bits_differ(run, monkeypatch):
    right = McuEngine.run

    def wrong(self, inputs, initial, trace):
        found = right(self, inputs, initial, trace)
        found.state_trace["rnn"][0, 9, 4] += 1
        return found

    monkeypatch.setattr(McuEngine, "run", wrong)
    status, out, _ = run(*VALIDATE, "--target", "cortex-m3")
    assert status == 1 and "first at stream 0, step 9, layer rnn, state rnn, unit 4" in " ".join(out.split())


# --------------------------------------------------------------------------------------------------------- analyze --


@needs_emulator
def test_analyze_shows_the_costs(run):
    status, out, err = run("analyze", "one.safetensors", "--target", "cortex-m0", "--target", "cortex-m4")
    assert (status, err) == (0, "")
    out = " ".join(out.split())
    for words in (
        "cortex-m0",
        "Layers on cortex-m4",
        "rnn",
        "head",
        "estimated",
        "zero wait states",
        "painted",
        "ok: ",
    ):
        assert words in out, words
    assert "of a frame" not in out


@needs_emulator
def test_analyze_judges_by_the_limits_given(run):
    limits = ("--clock", "64", "--frame", "10")
    status, out, _ = run("analyze", "one.safetensors", *limits, "--json")
    found = json.loads(out)
    (core,) = found["cores"]
    assert status == 0 and found["ok"] and core["target"] == "cortex-m4" and core["load"][1] < 0.05
    assert core["load"][1] == pytest.approx(core["cycles"][1] / 640_000)
    status, out, _ = run("analyze", "one.safetensors", *limits, "--load", "0.01")
    assert status == 1 and "FAIL" in out and "0.01 % are allowed" in " ".join(out.split())
    status, out, _ = run("analyze", "one.safetensors", "--flash", "100", "--ram", "100", "--json")
    assert status == 1 and len(json.loads(out)["cores"][0]["problems"]) == 2
    refused(run("analyze", "one.safetensors", "--clock", "64"), "both")
    refused(run("analyze", "one.safetensors", "--target", "host"), "unknown target 'host'")
    refused(run("analyze", "one.safetensors", "--png", "nowhere/a.png"), "nowhere", "does not exist")


@needs_emulator
@needs_matplotlib
def test_analyze_draws(run, files):
    assert run("analyze", "one.safetensors", "--png", "cost.png")[0] == 0
    assert (files / "cost.png").read_bytes().startswith(b"\x89PNG")


# ----------------------------------------------------------------------------------------------------- wrong input --


def test_missing_files_are_named(run):
    refused(run("quantize", "no.pt2", "--calibration", "x.npy", "-o", "a.safetensors"), "no.pt2: no such file")
    refused(run("quantize", "one.pt2", "--calibration", "no.npy", "-o", "a.safetensors"), "no.npy: no such file")
    refused(run("generate", "no.safetensors", "-o", "out"), "no.safetensors: no such file")
    refused(run("simulate", "one.safetensors", "--input", "no.npy", "--output", "y.npy"), "no.npy: no such file")
    refused(run(*VALIDATE[:3], "no.pt2", *VALIDATE[4:]), "no.pt2: no such file")


@pytest.mark.parametrize(
    "arguments",
    [
        ("quantize", "one.pt2", "--calibration", "x.npy", "-o", "nowhere/a.safetensors"),
        ("generate", "one.safetensors", "-o", "nowhere/out"),
        ("simulate", "one.safetensors", "--input", "x.npy", "--output", "nowhere/y.npy"),
        (*VALIDATE, "--html", "nowhere/v.html"),
        (*VALIDATE, "--png", "nowhere/v.png"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_output_folder_is_named_before_any_work(run, files, arguments):
    before = sorted(files.iterdir())
    refused(run(*arguments), "the folder nowhere does not exist")
    assert sorted(files.iterdir()) == before


def test_frames_that_are_not_finite_are_refused(run, files):
    x = np.load(files / "x.npy")
    x[1, 2, 3] = np.nan
    np.save(files / "nan.npy", x)
    refused(run("simulate", "one.safetensors", "--input", "nan.npy", "--output", "y.npy"), "nan at index (1, 2, 3)")
    refused(run("quantize", "one.pt2", "--calibration", "nan.npy", "-o", "a.safetensors"), "nan at index (1, 2, 3)")
    refused(run(*VALIDATE[:5], "nan.npy"), "nan at index (1, 2, 3)")


def test_a_wrong_feature_count_is_refused(run, files):
    np.save(files / "five.npy", frames(2, 15, 5))
    for command in (
        ("simulate", "one.safetensors", "--input", "five.npy", "--output", "y.npy"),
        ("quantize", "one.pt2", "--calibration", "five.npy", "-o", "a.safetensors"),
        (*VALIDATE[:5], "five.npy"),
    ):
        refused(run(*command), "'x' has 5 features", "the model takes 4")


def test_an_unknown_target_is_refused_with_those_that_exist(run):
    for command in (("simulate", "one.safetensors", "--input", "x.npy", "--output", "y.npy"), VALIDATE, ("demo",)):
        refused(run(*command, "--target", "cortex-m9"), "unknown target 'cortex-m9'", "host, cortex-m0")


def test_an_edited_file_and_another_spec_version_are_refused(run, files):
    with safe_open(files / "one.safetensors", framework="numpy") as file:
        meta = json.loads(file.metadata()["rtcore"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    document = json.loads(meta["document"])
    document["spec"] = 99
    for name, changed in (("version", {"document": json.dumps(document)}), ("edited", {"sha256": "0" * 64})):
        save_file(arrays, files / f"{name}.safetensors", {"rtcore": json.dumps(meta | changed)})
    refused(run("generate", "version.safetensors", "-o", "out"), "spec version 99", "quantize the model again")
    refused(run("generate", "edited.safetensors", "-o", "out"), "SHA-256 differ")
    (files / "short.safetensors").write_bytes((files / "one.safetensors").read_bytes()[:-9])
    refused(run("generate", "short.safetensors", "-o", "out"), "not a whole safetensors file")


def test_pickles_and_other_files_are_refused_as_frames(run, files):
    np.save(files / "objects.npy", np.array([{"a": 1}, None], object), allow_pickle=True)
    np.savez(files / "objects.npz", x=np.array([{"a": 1}], object))
    (files / "text.npy").write_text("1 2 3")
    (files / "short.npy").write_bytes((files / "x.npy").read_bytes()[:-50])
    (files / "short.npz").write_bytes((files / "xy.npz").read_bytes()[:-50])
    for name, words in {
        "objects.npy": "pickled Python objects",
        "objects.npz": "pickled Python objects",
        "text.npy": "neither .npy nor .npz",
        "short.npy": "damaged",
        "short.npz": "damaged",
        "one.pt2": "not a .npz",
    }.items():
        refused(run("simulate", "one.safetensors", "--input", name, "--output", "y.npy"), name, words)


def test_a_model_that_is_no_pt2_is_refused(run, files):
    torch.save(One(), files / "pickled.pt2")
    refused(run("quantize", "pickled.pt2", "--calibration", "x.npy", "-o", "a.safetensors"), "pickled", "pt2")
    refused(run("quantize", "x.npy", "--calibration", "x.npy", "-o", "a.safetensors"), "not a .pt2 file")
    refused(run(*VALIDATE[:3], "two.pt2", *VALIDATE[4:]), "argument")


def test_options_without_meaning_are_refused(run):
    quantized = ("quantize", "one.pt2", "--calibration", "x.npy", "-o", "a.safetensors")
    refused(run(*quantized, "--percentile", "20"), "percentile 20.0: above 50, at most 100")
    refused(run(*quantized, "--headroom", "0.5"), "headroom 0.5")
    refused(run("generate", "one.safetensors", "-o", "out", "--name", "int"), "int")
    refused(run(*VALIDATE, "--min-sqnr", "nan"), "min_sqnr nan")
    status, _, err = run(*quantized, "--weight-bits", "4")
    assert status == 2 and "'4' is not one of '8', '16'" in err
    refused(run("simulate", "one.safetensors", "--input", "x.npy", "--output", "y.txt"), "y.txt: results are written")


# ------------------------------------------------------------------------------------------------------- processes --


def test_the_command_as_a_process(files):
    """No traceback, no colours and no bars where nobody looks on; a status that a shell script can use."""
    command = [sys.executable, "-m", "firmware_sim"]
    arguments = ["simulate", "one.safetensors", "--input", "x.npy", "--output", "p.npy"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([*command, *arguments], cwd=files, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "\x1b" not in done.stdout and (files / "p.npy").is_file()
    done = subprocess.run([*command, *arguments, "--target", "z80"], cwd=files, env=environment, capture_output=True)
    assert done.returncode == 2 and done.stderr.startswith(b"rtcore: unknown target 'z80'") and done.stdout == b""


def test_help_names_the_commands_and_the_exit_statuses(run):
    status, out, _ = run("--help")
    assert status == 0 and "1 the check failed, 2 the input is wrong" in " ".join(out.split())
    for command in ("quantize", "generate", "simulate", "validate", "analyze", "demo"):
        assert f"  {command} " in out and run(command, "--help")[0] == 0
