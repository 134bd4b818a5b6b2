"""A Keras model's whole way: file or live, command line, fixed point, the same bits on an emulated core.

Neighbours: `quantize/test_keras.py` (every layer against Keras), `test_cli.py` (the commands themselves).
"""

import importlib.util
import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers as L

import firmware_sim
import quantize
from firmware_sim import cli
from keras_models import MODELS, frames, seeded

MCU = [importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools")]
needs_emulator = pytest.mark.skipif(None in MCU, reason="the emulator is an optional extra: rtcore[mcu]")

# dB of 16-bit nets of random weights against float64: some of them pass through few units and softmax
ENOUGH_DB = 55

SEVERAL = ["nested", "image", "causal-stream", "embedding", "both-gru-before-concat-True"]
SEVERAL += ["gru-hard-relu-False", "both-lstm-hard-concat-True"]


def run(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    layers = [L.Dense(6, activation="tanh", name="in"), L.GRU(8, return_sequences=True, reset_after=False, name="rnn")]
    model = keras.Sequential([keras.Input((None, 5), name="x"), *layers, L.Dense(3, name="out")])
    seeded(model).save(folder / "net.keras")
    model.save(folder / "net.h5")
    np.save(folder / "x.npy", frames(3, 40, 5))
    return folder


def test_the_command_line_reads_a_keras_file(files):
    out = files / "net.safetensors"
    result = run("quantize", files / "net.keras", "--calibration", files / "x.npy", "-o", out, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert [layer["name"] for layer in said["layers"] if layer["weight_bits"]] == ["in", "rnn", "out"]
    assert said["digest"] == quantize.load(out).digest


@needs_emulator
def test_validate_compares_with_the_keras_file(files):
    out = files / "validated.safetensors"
    run("quantize", files / "net.keras", "--calibration", files / "x.npy", "-o", out)
    where = ("--model", files / "net.keras", "--input", files / "x.npy", "--target", "cortex-m4", "--json")
    result = run("validate", out, *where, "--min-sqnr", ENOUGH_DB)
    assert result.exit_code == 0, result.output


def test_what_is_refused_is_one_message_and_leaves_no_file(files, tmp_path):
    result = run("quantize", files / "net.h5", "--calibration", files / "x.npy", "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 2
    assert result.stderr.startswith("rtcore: ") and "legacy HDF5" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_saved_model_folder_gets_its_advice(files, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    result = run("quantize", tmp_path / "saved", "--calibration", files / "x.npy", "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 2 and "is a TensorFlow SavedModel" in result.stderr


@needs_emulator
@pytest.mark.parametrize("name", SEVERAL)
def test_the_same_bits_on_an_emulated_core(name):
    model, given = MODELS[name]()
    sample = given[0]
    qmodel = quantize.quantize(model, sample)
    report = firmware_sim.validate(qmodel, model, sample, target="cortex-m0", min_sqnr=ENOUGH_DB)
    assert report.mcu.mismatch is None, report.mcu.mismatch
    assert report.ok, [(o.name, o.sqnr_db) for o in report.outputs]
