"""Keras models against Keras itself (its torch backend), and the file against the live model."""

import numpy as np
import pytest

import quantize
from keras_models import MODELS, SEED
from quantize.float_run import run_graph

# Of the peak: Keras computes in float32, the graph in float64 on the same weights.
FLOAT32 = 1e-5

BY_FILE = [
    "nested",
    "shared",
    "encoder-decoder",
    "both-states-lstm",
    "unlike-directions",
    "image",
    "video",
    "embedding",
    "named",
    "no-time",
    "gru-hard-tanh-True",
    "both-lstm-hard-concat-True",
]


def arrays(results):
    """Results in Keras' containers, or ours, as a list."""
    if isinstance(results, np.ndarray):
        return [results]
    return list(results.values() if isinstance(results, dict) else results)


def sample_of(given):
    return given[0] if isinstance(given, tuple) and len(given) == 1 else given


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_is_the_model(name):
    model, given = MODELS[name]()
    sample = sample_of(given)
    mine = arrays(run_graph(quantize.import_model(model, sample), sample))
    its = arrays(model.predict(list(sample) if isinstance(sample, tuple) else sample, verbose=0))
    for i, (actual, expected) in enumerate(zip(mine, its, strict=True)):
        assert actual.shape == expected.shape, (name, i)
        error, peak = np.abs(actual - expected).max(), np.abs(expected).max()
        assert peak > 1e-3 and np.ptp(expected) > 1e-3, f"{name}: result {i} does not spread, so nothing is compared"
        where = np.unravel_index(np.abs(actual - expected).argmax(), expected.shape)
        assert error <= FLOAT32 * peak, (
            f"{name}: result {i} at {where}: expected {expected[where]}, actual {actual[where]}, seed {SEED}"
        )


@pytest.mark.parametrize("name", BY_FILE)
def test_file_and_live_model_give_the_same_tables(name, tmp_path):
    model, given = MODELS[name]()
    model.save(tmp_path / "net.keras")
    live = quantize.quantize(model, sample_of(given), weight_bits=8)
    file = quantize.quantize(str(tmp_path / "net.keras"), sample_of(given), weight_bits=8)
    assert file.digest == live.digest
    for mine, other in zip(file.tables.layers, live.tables.layers, strict=True):
        assert (mine.name, mine.kind, mine.ints) == (other.name, other.kind, other.ints)
        assert all(np.array_equal(mine.arrays[key], other.arrays[key]) for key in other.arrays)


def test_layers_keep_their_names():
    model, given = MODELS["nested"]()
    names = {node.name for node in quantize.import_model(model, sample_of(given)).nodes}
    for layer in model.get_layer("inner").layers[1:]:
        assert f"inner.{layer.name}" in names


def test_weight_widths_go_by_the_names_of_keras():
    model, given = MODELS["gru-last-True"]()
    recurrent = model.layers[0].name
    qmodel = quantize.quantize(model, sample_of(given), weight_bits={f"{recurrent}.recurrent": 8, "*": 16})
    (layer,) = (layer for layer in qmodel.tables.layers if layer.name == recurrent)
    assert layer.arrays["recurrent_weights"].dtype == np.int8 and layer.arrays["input_weights"].dtype == np.int16


def test_what_streams_is_a_stream_and_says_so():
    model, given = MODELS["causal-stream"]()
    graph = quantize.import_model(model, sample_of(given))
    assert graph.signature.arguments[0].axes == ("batch", "time", "feature")
    model, given = MODELS["no-time"]()
    assert quantize.import_model(model, sample_of(given)).signature.arguments[0].axes == ("batch", "feature")


def test_arguments_have_the_names_of_the_inputs():
    model, given = MODELS["encoder-decoder"]()
    for sample in (given, dict(zip(("heard", "asked"), given, strict=True))):
        assert [a.name for a in quantize.import_model(model, sample).signature.arguments] == ["heard", "asked"]


def test_the_model_itself_stays_as_it_was():
    model, given = MODELS["image"]()
    before = [w.copy() for w in model.get_weights()]
    trainable = [layer.trainable for layer in model.layers]
    quantize.quantize(model, sample_of(given))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert [layer.trainable for layer in model.layers] == trainable
