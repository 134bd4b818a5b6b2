"""What the Keras doors refuse: layers and options by name with a remedy, files that are damaged or of another kind."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers as L

import quantize
from keras_models import frames, seeded
from quantize import FormatError, QuantizeError, UnsupportedError

SHAPE = (12, 5)


def chain(*layers, shape=SHAPE):
    return keras.Sequential([keras.Input(shape), *layers])


@keras.saving.register_keras_serializable("tests")
class Doubled(L.Layer):
    def call(self, x):
        return 2 * x


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def squared(x):
    return x * x


def operation():
    x = keras.Input(SHAPE)
    return keras.Model(x, L.Dense(3)(x)[:, -1])


def training():
    x = keras.Input(SHAPE)
    return keras.Model(x, L.Dropout(0.5, name="drop")(x, training=True))


def masked():
    x, mask = keras.Input(SHAPE), keras.Input((12,), dtype="bool")
    return keras.Model([x, mask], L.GRU(3, name="gru")(x, mask=mask))


def int8():
    model = chain(L.Dense(4, name="dense"))
    model.quantize("int8")
    return model


REFUSED = {
    "Lambda": (
        lambda: chain(L.Lambda(squared, name="mine")),
        r"layer 'mine' \(Lambda\) is not supported; it holds Python code; write it with layers",
    ),
    "attention": (
        lambda: keras.Model(x := keras.Input(SHAPE), L.MultiHeadAttention(2, 3, name="att")(x, x)),
        r"layer 'att' \(MultiHeadAttention\) is not supported; attention has no fixed-point form",
    ),
    "unknown class": (
        lambda: chain(L.UpSampling1D(2, name="up")),
        r"layer 'up' \(UpSampling1D\) is not supported; replace it, or run it outside .*\. Supported: .*Dense",
    ),
    "Masking": (lambda: chain(L.Masking(name="m"), L.GRU(3)), r"layer 'm' \(Masking\).*feed sequences without padding"),
    "mask_zero": (
        lambda: chain(L.Embedding(9, 4, mask_zero=True, name="words"), L.GRU(3), shape=(12,)),
        r"layer 'words' \(Embedding\) has mask_zero=True; masks are not supported: feed sequences without padding",
    ),
    "mask": (masked, r"layer 'gru' \(GRU\) takes a mask; masks are not supported"),
    "stateful": (
        lambda: keras.Sequential([keras.Input(batch_shape=(2, 12, 5)), L.LSTM(3, stateful=True, name="rnn")]),
        r"layer 'rnn' \(LSTM\) has stateful=True; build the model with stateful=False and the same weights",
    ),
    "gates of an LSTM": (
        lambda: chain(L.LSTM(3, recurrent_activation="relu", name="rnn")),
        r"layer 'rnn' \(LSTM\) has recurrent_activation='relu'; the kernels' gates are sigmoid or hard_sig",
    ),
    "gates of a GRU": (
        lambda: chain(L.GRU(3, recurrent_activation=None, name="rnn")),
        r"layer 'rnn' \(GRU\) has recurrent_activation='linear'; the kernels' gates are sigmoid or hard_sig",
    ),
    "gates of ones own": (
        lambda: chain(L.GRU(3, recurrent_activation=squared, name="rnn")),
        r"layer 'rnn' \(GRU\) has recurrent_activation 'squared' of 'function'; name a built-in one",
    ),
    "training of a recurrent layer": (
        lambda: keras.Model(x := keras.Input(SHAPE), L.GRU(3, recurrent_dropout=0.5, name="rnn")(x, training=True)),
        r"layer 'rnn' \(GRU\) is called with training=True; call it without",
    ),
    "LSTM of ReLU": (
        lambda: chain(L.LSTM(3, activation="relu")),
        r"\(LSTM\) has activation='relu'; retrain it with tanh",
    ),
    "GRU of ELU": (
        lambda: chain(L.GRU(3, activation="elu")),
        r"\(GRU\) has activation='elu'; supported are tanh, relu, sigmoid, linear",
    ),
    "RNN of sigmoid": (
        lambda: chain(L.SimpleRNN(3, activation="sigmoid")),
        r"\(SimpleRNN\) has activation='sigmoid'; retrain it with tanh or relu",
    ),
    "one side of two": (
        lambda: chain(L.Bidirectional(L.LSTM(3, activation="relu", name="rnn"), name="both")),
        r"layer 'both\.forward_rnn' \(LSTM\) has activation='relu'",
    ),
    "cells": (
        lambda: chain(L.RNN(L.GRUCell(3), name="loop")),
        r"layer 'loop' \(RNN\) is not supported; a loop over cells .*use GRU, LSTM or SimpleRNN",
    ),
    "frames of a GRU": (
        lambda: chain(L.TimeDistributed(L.GRU(3), name="td"), shape=(4, 12, 5)),
        r"layer 'td' \(TimeDistributed\) wraps GRU, a recurrence within a step",
    ),
    "frames of a model": (
        lambda: chain(L.TimeDistributed(keras.Sequential([keras.Input((5,)), L.Dense(2)], name="in"), name="td")),
        r"layer 'td' \(TimeDistributed\) wraps the model 'in'; wrap its layers one by one",
    ),
    "activation": (
        lambda: chain(L.Dense(3, activation="sparsemax", name="d")),
        r"layer 'd' \(Dense\) has the activation 'sparsemax', which is not supported; supported are linear, relu",
    ),
    "own activation": (
        lambda: chain(L.Dense(3, activation=squared, name="d")),
        r"layer 'd' \(Dense\) has activation 'squared' of 'function'; name a built-in one",
    ),
    "threshold": (lambda: chain(L.ReLU(threshold=1.0, name="r")), r"layer 'r' \(ReLU\) has threshold=1\.0; only 0"),
    "softmax over two axes": (lambda: chain(L.Softmax(axis=[1, 2])), r"\(Softmax\) has axis=\[1, 2\]; one axis"),
    "LayerNormalization of time": (
        lambda: chain(L.LayerNormalization(axis=1, name="n")),
        r"layer 'n' \(LayerNormalization\) normalizes over the axes \[1\] of 3; the last ones are supported",
    ),
    "unequal mean": (
        lambda: chain(L.AveragePooling1D(2, 1, padding="same", name="p")),
        r"layer 'p' \(AveragePooling1D\) has padding='same' with unequal sides \[\(0, 1\)\], where Keras' own backends",
    ),
    "own layer": (
        lambda: chain(Doubled(name="twice")),
        r"layer 'twice' \(Doubled\) is of your own code \(registered as 'tests>Doubled'\)",
    ),
    "operation": (operation, r"\(GetItem\) is an operation on tensors in the model's own code .*use a layer of keras"),
    "training": (training, r"layer 'drop' \(Dropout\) is called with training=True; call it without"),
    "quantized": (int8, r"layer 'dense' \(Dense\) is quantized already \(int8.*; quantize from the float32 model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_layer_class_and_remedy(name):
    make, message = REFUSED[name]
    model = make()
    sample = tuple(
        np.zeros([2 if n is None else n for n in x.shape], np.int64 if name == "mask_zero" else np.float32)
        for x in model.inputs
    )
    with pytest.raises(UnsupportedError, match=message):
        quantize.import_model(model, sample)


def test_a_model_of_ones_own_code_is_refused():
    model = Subclass()
    model(frames(2, 5))
    with pytest.raises(UnsupportedError, match=r"\(Subclass\) is of your own code .*write the model with keras.layers"):
        quantize.import_model(model, frames(2, 5))


def test_a_model_without_weights_is_refused():
    with pytest.raises(QuantizeError, match=r"model 'late' is not built and has no weights; give it a keras.Input"):
        quantize.import_model(keras.Sequential([L.Dense(3)], name="late"), frames(2, 5))


def test_a_single_layer_is_refused():
    with pytest.raises(UnsupportedError, match=r"d is a Dense, a single layer; put it into a keras.Sequential"):
        quantize.import_model(L.Dense(3, name="d"), frames(2, 5))


def test_a_causal_stream_that_looks_ahead_says_which_layer():
    model = chain(L.Conv1D(3, 3, padding="same", name="ahead"), shape=(None, 5))
    with pytest.raises(UnsupportedError, match=r"conv1d in layer 'ahead' \(Conv1D\): .*not a causal convolution"):
        quantize.import_model(model, frames(2, 9, 5), form="stream")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (frames(2, 5), r"input 'x' takes \[any, 12, 5\]; the sample's has shape \[2, 5\]"),
        (frames(2, 12, 6), r"input 'x' takes \[any, 12, 5\]; the sample's has shape \[2, 12, 6\]"),
        ((frames(2, 12, 5), frames(2, 12, 5)), r"the model takes 1 \(x\); the sample has 2"),
        ({"y": frames(2, 12, 5)}, r"the model takes x; the sample has y"),
    ],
)
def test_samples_that_do_not_fit_are_refused(sample, message):
    model = keras.Sequential([keras.Input(SHAPE, name="x"), L.Dense(3)])
    with pytest.raises(QuantizeError, match=message):
        quantize.import_model(model, sample)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A .keras file's parts by name."""
    path = tmp_path_factory.mktemp("keras") / "net.keras"
    seeded(chain(L.Dense(4, name="first"), L.GRU(3, name="rnn"))).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(folder, parts, **how):
    path = folder / "net.keras"
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def changed_config(parts, change):
    config = json.loads(parts["config.json"])
    change(config)
    return parts | {"config.json": json.dumps(config)}


def changed_weights(parts, change):
    data = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(data, "r+") as file:
        change(file)
    return parts | {"model.weights.h5": data.getvalue()}


def refused(path, message, kind=FormatError):
    with pytest.raises(kind, match=message):
        quantize.import_model(path, frames(2, 12, 5))


def test_the_unchanged_file_is_read(saved, tmp_path):
    graph = quantize.import_model(written(tmp_path, saved, compression=zipfile.ZIP_DEFLATED), frames(2, 12, 5))
    assert [node.name for node in graph.nodes] == ["first", "rnn"]


@pytest.mark.parametrize("name", ["metadata.json", "config.json", "model.weights.h5"])
def test_a_missing_part_is_named(saved, tmp_path, name):
    refused(written(tmp_path, {k: v for k, v in saved.items() if k != name}), f"net.keras holds no {name}")


@pytest.mark.parametrize("share", [0, 1, 30, 500, 2000])
def test_a_truncated_file_is_refused(saved, tmp_path, share):
    path = written(tmp_path, saved)
    path.write_bytes(path.read_bytes()[:share])
    refused(path, r"is not a \.keras file \(or a damaged one\)")


def test_every_flipped_byte_is_an_error_of_ours_or_harmless(saved, tmp_path):
    path = written(tmp_path, saved)
    data = path.read_bytes()
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(data), 60):
        broken = bytearray(data)
        broken[at] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            quantize.keras_import.read_keras(path)
        except QuantizeError as error:
            assert "net.keras" in str(error)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("config.json", "{", "config.json is no JSON"),
        ("config.json", "[1]", "config.json holds a list and no object"),
        ("config.json", "[" * 100000, "config.json is no JSON"),
        ("config.json", '{"class_name": "Sequential"}', "its configuration lacks or misplaces 'config'"),
        (
            "config.json",
            '{"class_name": "Sequential", "module": "keras", "config": 3}',
            "configuration lacks or misplaces",
        ),
        ("metadata.json", "{}", "was written by Keras unknown"),
        (
            "metadata.json",
            '{"keras_version": "2.15.0"}',
            "written by Keras 2.15.0; only Keras 3 is read .*hard_sigmoid",
        ),
        ("model.weights.h5", b"no HDF5", "its weights cannot be read"),
        ("model.weights.h5", b"", "its weights cannot be read"),
    ],
)
def test_a_damaged_part_is_named(saved, tmp_path, name, data, message):
    refused(written(tmp_path, saved | {name: data}), message)


def test_a_zip_that_swells_is_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize.keras_import, "LARGEST", 1 << 20)
    path = written(tmp_path, saved | {"assets/zeros": bytes(1 << 21)}, compression=zipfile.ZIP_DEFLATED)
    refused(path, r"unpacks to 2,[\d,]+ bytes; at most 1,048,576 are read")


def test_weights_that_are_missing_are_named(saved, tmp_path):
    parts = changed_weights(saved, lambda file: file.__delitem__("layers/gru/cell/vars/1"))
    refused(written(tmp_path, parts), r"layer 'rnn' \(GRU\): weight 'cell/vars/1' is missing from the file")


def test_weights_of_another_shape_are_named(saved, tmp_path):
    parts = changed_config(saved, lambda config: config["config"]["layers"][1]["config"].update(units=5))
    refused(written(tmp_path, parts), r"layer 'first' \(Dense\): weight 'vars/0' has shape \(5, 4\), not \(None, 5\)")


def test_weights_of_another_layer_are_found_out(saved, tmp_path):
    def rename(file):
        file["layers/dense/vars"].attrs["name"] = "other"

    refused(
        written(tmp_path, changed_weights(saved, rename)), r"layer 'first' \(Dense\): its weights are those of 'other'"
    )


def test_weights_that_are_not_finite_are_named(saved, tmp_path):
    def spoil(file):
        file["layers/dense/vars/0"][2, 3] = np.nan

    refused(written(tmp_path, changed_weights(saved, spoil)), r"'first\.weight' holds nan", QuantizeError)


def test_half_precision_weights_are_refused(saved, tmp_path):
    def halve(file):
        values = file["layers/dense/vars/0"][()].astype(np.float16)
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = values

    refused(
        written(tmp_path, changed_weights(saved, halve)),
        r"stored as float16; quantize from the float32",
        UnsupportedError,
    )


def test_weights_outside_of_the_file_are_refused(saved, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(80))

    def lead_out(file):
        del file["layers/dense/vars/0"]
        outside = [(str(tmp_path / "raw"), 0, 80)]
        file["layers/dense/vars"].create_dataset("0", (5, 4), "f4", external=outside)

    refused(written(tmp_path, changed_weights(saved, lead_out)), r"layers/dense/vars/0 lies outside of the file")


def test_links_out_of_the_file_are_not_followed(saved, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["w"] = np.ones((5, 4), np.float32)

    def lead_out(file):
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "w")

    refused(written(tmp_path, changed_weights(saved, lead_out)), r"weight 'vars/0' is missing from the file")


def test_a_dataset_that_claims_more_than_the_file_is_refused(saved, tmp_path):
    def claim(file):
        file["layers/dense/vars"].create_dataset("7", (1 << 20, 1 << 20), "f4", chunks=(16, 16))

    refused(written(tmp_path, changed_weights(saved, claim)), r"layers/dense/vars/7 claims 4,398,046,511,104 bytes")


def test_an_option_that_nobody_knows_is_refused(saved, tmp_path):
    parts = changed_config(saved, lambda config: config["config"]["layers"][1]["config"].update(twist=0.5))
    refused(
        written(tmp_path, parts), r"layer 'first' \(Dense\) has the option twist=0\.5, which is not", UnsupportedError
    )


def test_an_option_of_another_type_is_refused(saved, tmp_path):
    parts = changed_config(saved, lambda config: config["config"]["layers"][2]["config"].update(units="many"))
    refused(written(tmp_path, parts), r"layer 'rnn' \(GRU\): its options are damaged")


def test_calls_in_a_circle_are_refused(tmp_path):
    x = keras.Input(SHAPE, name="x")
    keras.Model(x, L.Dense(5, name="two")(L.Dense(5, name="one")(x))).save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def turn(config):
        (one,) = (layer for layer in config["config"]["layers"] if layer["name"] == "one")
        one["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = ["two", 0, 0]

    refused(written(tmp_path, changed_config(parts, turn)), r"its calls depend on each other in a circle")


def test_models_too_deep_are_refused(tmp_path):
    entry = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "units": 1}}
    for i in range(40):
        entry = {"module": "keras", "class_name": "Sequential", "config": {"name": f"m{i}", "layers": [entry]}}
    with h5py.File(weights := io.BytesIO(), "w") as file:
        file.create_group("layers")
    parts = {"metadata.json": '{"keras_version": "3.15.1"}', "config.json": json.dumps(entry)}
    refused(
        written(tmp_path, parts | {"model.weights.h5": weights.getvalue()}), "more than 32 models", UnsupportedError
    )


def test_earlier_formats_are_refused_with_advice(tmp_path):
    model = chain(L.Dense(3))
    model.save(tmp_path / "net.h5")
    refused(tmp_path / "net.h5", r"net\.h5 is a legacy HDF5 file of Keras; .*model\.save\('net\.keras'\)")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"")
    refused(tmp_path / "folder", r"folder is a TensorFlow SavedModel, a program .*model\.save\('net\.keras'\)")
    refused(tmp_path / "none.keras", r"cannot read .*none\.keras: No such file")


def test_h5py_is_asked_for(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    refused(written(tmp_path, saved), r"pip install 'rtcore\[keras\]'", QuantizeError)
