"""Every file of the family that cannot be read is refused with a message that says where, what was expected, and what
was found. Neighbours: `test_lineage_files.py` (what is read), `lineage_sources.py`."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineage_sources import c_source, make, rnnn_source, rnnoise_layers
from quantize import FormatError, QuantizeError, UnsupportedError, lineage
from quantize.lineage_tables import LARGEST_FILE
from quantize.nn import GRU

TABLES = "static const int8_t w[2] = {1, 2};\nstatic const int8_t b[2] = {3, 4};\nstatic const int8_t w6[6] = {0};\n"
GOOD = "static const int8_t w[2] = {1, 2};\nstatic const int8_t b[2] = {3, 4};\n"
DENSE = "const DenseLayer fc = {b, w, 1, 2, ACTIVATION_TANH};\n"
GRU_TABLES = "".join(
    f"static const {kind} {name}[{n}] = {{{', '.join(['1'] * n)}}};\n"
    for kind, name, n in (("int8_t", "b3", 3), ("int8_t", "w3", 3), ("float", "f3", 3), ("float", "f6", 6))
)


def load(text, tmp_path, **options):
    path = tmp_path / "tables.c"
    path.write_text(text)
    return lineage.load(path, **options)


REFUSALS = {
    # the text itself
    "comment": (GOOD + "/* never\n" + DENSE, "tables.c, line 3: this comment never ends"),
    "bracket": (GOOD + "int f(int a {", "line 3: this bracket is never closed"),
    "cut declaration": (GOOD + DENSE + "static const", "line 4: the file ends within a declaration"),
    "number at the top": (GOOD + "5;", "line 3: expected a declaration, found '5'"),
    "brackets": ("(int) x;", "no DenseLayer, GRULayer"),
    "junk": (GOOD + "const @ x;", "line 3: expected a declaration, found '@'"),
    "if": (GOOD + "#if 1\n#else\n" + DENSE, "line 3: this #if has no #endif"),
    "else": ("#else\n" + GOOD, "line 1: #else without an #if"),
    "endif": (GOOD + "#endif\n", "line 3: #endif without an #if"),
    # arrays
    "too few": ("static const float w[3] = {\n1, 2};", "line 1: array w: expected 3 values, found 2"),
    "too many": ("\nstatic const float w[3] = {1, 2,\n3, 4,};", "line 2: array w: expected 3 values, found 4"),
    "none": ("static const float w[3] = {};", "array w: expected 3 values, found 0"),
    "expression": ("const float w[2] = {1, (2)};", r"array w, value 2: expected a finite decimal number, found '\('"),
    "sum": ("const float w[2] = {1, 2 +3};", "array w, after value 2: expected ',' or '}', found '[+]3'"),
    "division": ("const float w[1] = {1/256.f};", "array w, after value 1: expected ',' or '}', found '/'"),
    "two commas": ("const float w[2] = {1,,2};", "array w, value 2: expected a finite decimal number, found ','"),
    "nan": ("const float w[2] = {1, nan};", "array w, value 2: expected a finite decimal number, found 'nan'"),
    "infinite": ("const float w[2] = {1, 1e999};", "value 2: expected a finite decimal number, found '1e999'"),
    "hexadecimal": ("const int8_t w[2] = {1, 0x10};", "value 2: expected a finite decimal number, found '0x10'"),
    "nothing more": ("const float w[2] = {1,\n2", "line 2: array w, after value 2: expected ',' or '}', found the end"),
    "long number": (f"const float w[1] = {{{'1' * 5000}}};", "array w, value 1: expected a finite|after value 1"),
    "no semicolon": (
        GOOD + "const float x[1] = {1}\n" + DENSE,
        "line 4: the declaration of x: expected ';', found 'const",
    ),
    "two names": ("const float x[1] = {1}, y[1] = {2};", "the declaration of x: expected ';', found ','"),
    "unknown length": ("const float x[N] = {1};", "array x, its length: expected an integer or the name .* found 'N'"),
    "length": ("const float x[2+1] = {1};", r"array x, its length: expected '\*', found '\+1'"),
    "two dimensions": ("const float x[1][2] = {{1, 2}};", "array x has 2 dimensions; the family's tables have one"),
    "twice": (GOOD + "static const int8_t w[1] = {1};", "line 3: array w is defined twice, first in line 1"),
    "nested": (GOOD.replace("{3, 4}", "{{3, 4}}") + DENSE, "line 2: DenseLayer fc: array b is no flat list of numbers"),
    "beyond int8": (
        GOOD.replace("4", "128") + DENSE,
        "array b: its type int8_t is taken for int8, but value 2 of 2 is 128",
    ),
    "fractions": (
        GOOD.replace("4", "4.5") + DENSE,
        "array b: its type int8_t is taken for int8, but it holds fractions",
    ),
    # layers
    "no layer": (GOOD, "no DenseLayer, GRULayer, .* is initialised, 2 arrays are$"),
    "header": (GOOD + "extern const DenseLayer fc;", "2 arrays are; this is a header, pass the .c file"),
    "empty": ("", "no DenseLayer, GRULayer, .* is initialised, 0 arrays are"),
    "missing array": (GOOD + DENSE.replace("w,", "v,"), "line 3: DenseLayer fc: array v is not in this file"),
    "null": (GOOD + DENSE.replace("b,", "NULL,"), "DenseLayer fc: array NULL is not in this file"),
    "by name": (
        GOOD + "const DenseLayer fc = {.bias = b};",
        r"field 1: expected a name or an integer, found '\.'; fields by",
    ),
    "address": (
        GOOD + DENSE.replace("b,", "&b[0],"),
        "DenseLayer fc, field 1: expected a name or an integer, found '&'",
    ),
    "element": (GOOD + DENSE.replace("b,", "b[0],"), r"DenseLayer fc, after field 1: expected ',' or '}', found '\['"),
    "layer twice": (GOOD + DENSE + DENSE, "line 4: layer fc is defined twice"),
    "fields": (GOOD + DENSE.replace("1, 2,", "2,"), "line 3: DenseLayer fc: expected 5 fields, found 4"),
    "wrong count": (
        GOOD + DENSE.replace("1, 2", "3, 2"),
        r"line 3: DenseLayer fc: array w \(line 1\): expected 6 values \[3, 2\] for 3 inputs and 2 neurons, found 2",
    ),
    "bias": (GOOD + DENSE.replace("1, 2", "2, 1"), r"array b \(line 2\): expected 1 values \[1\]"),
    "size": (GOOD + DENSE.replace("1, 2", "1, N"), "DenseLayer fc: nb_neurons must be a positive integer .* found 'N'"),
    "zero": (GOOD + DENSE.replace("1, 2", "0, 2"), "DenseLayer fc: nb_inputs must be a positive integer .* found '0'"),
    "scale": (
        GOOD + DENSE.replace("ACTIVATION_TANH", "1"),
        "DenseLayer fc: nothing here tells .* 1/256 .* pass scale=",
    ),
    "own scale": (
        "#define WEIGHTS_SCALE SOME\n" + GOOD + DENSE,
        r"WEIGHTS_SCALE 'SOME': expected \(1.f/N\); pass scale=",
    ),
    "gru fields": (
        GRU_TABLES + "const GRULayer g = {b3, w3, w3, 1};",
        "GRULayer g: expected 5 .*, 6 .* fields, found 4",
    ),
    "analysis fields": (
        GRU_TABLES + "const AnalysisGRULayer g = {b3, w3, w3, 1, 1, ACTIVATION_TANH};",
        "AnalysisGRULayer g: expected 5 fields, found 6",
    ),
    "gru table": (
        GRU_TABLES + "const GRULayer g = {b3, w3, w3, 1, 2, 0};",
        r"GRULayer g: array b3 \(line 1\): expected 6 values \[6\] for 1 inputs and 2 neurons, found 3",
    ),
    "reset flag": (
        GRU_TABLES + "const GRULayer g = {f3, f3, f3, 1, 1, 2, 2};",
        "reset_after must be 0 or 1, found '2'",
    ),
    "bias after": (
        GRU_TABLES + "const GRULayer g = {f3, f3, f3, 1, 1, 2, 1};",
        r"GRULayer g: array f3 \(line 3\): expected 6 values \[6\] for 1 inputs and 1 neurons, found 3",
    ),
    "bias before": (
        GRU_TABLES + "const GRULayer g = {f6, f3, f3, 1, 1, 2, 0};",
        "with reset_after 0 only the first 3 of its 6 bias values are ever read, and the others are not zero",
    ),
    "generations": (
        GRU_TABLES + "const GRULayer g = {b3, w3, w3, 1, 1, 0};\nconst GRULayer h = {f3, f3, f3, 1, 1, 2, 0};",
        "line 6: GRULayers of RNNoise 0.1 and nnet.h in one file; split it",
    ),
    "int8 of nnet.h": (
        GRU_TABLES + "const GRULayer g = {b3, w3, w3, 1, 1, 2, 0};",
        "nothing here tells .* pass scale=",
    ),
}

UNSUPPORTED = {
    "condition": (
        "#if A > 3\n#endif\n",
        r"line 1: #if A > 3: only defined\(NAME\), names, integers, !, && and \|\| are",
    ),
    "softmax": (
        GOOD + DENSE.replace("TANH", "SOFTMAX"),
        "fc: activation ACTIVATION_SOFTMAX; RNNoise 0.1 has 0 tanh, 1 sig",
    ),
    "linear in 0.1": (
        GRU_TABLES + "const GRULayer g = {b3, w3, w3, 1, 1, ACTIVATION_LINEAR};",
        "GRULayer g: activation ACTIVATION_LINEAR; RNNoise 0.1 has 0 tanh, 1 sigmoid, 2 relu, and nothing else",
    ),
    "number": (
        GOOD + DENSE.replace("ACTIVATION_TANH", "3") + "\n#define WEIGHTS_SCALE (1.f/256)",
        "activation 3; Opus has",
    ),
    "opus relu": (GOOD + "AnalysisDenseLayer fc = {b, w, 1, 2, 2};", "activation 2; Opus has 0 tanh, 1 sigmoid, and"),
    "subias": (
        GRU_TABLES + "const GRULayer g = {b3, b3, w3, NULL, w3, 1, 1, ACTIVATION_TANH, 1};",
        "GRULayer g: expected .* found 9; later layers .subias, sparse index. are not read",
    ),
    "sparse": (
        "const SparseGRULayer g = {b, w, r, i, 1, ACTIVATION_TANH, 1};",
        "line 1: layer g is a SparseGRULayer; Dense",
    ),
    "embedding": ("const EmbeddingLayer e = {w, 1, 2};", "layer e is a EmbeddingLayer; DenseLayer, .* are read"),
    "convolution": (
        "const Conv1DLayer c = {b, w, 1, 2, 3, 0};",
        "layer c is a Conv1DLayer; .*convolutions, embeddings",
    ),
    "array of layers": (
        GOOD + "const DenseLayer all[1] = {{b, w, 1, 2, 0}};",
        "line 3: all is an array of DenseLayers; give",
    ),
    "newer RNNoise": (
        'static const float x[1] = {1};\nconst WeightArray all[] = {\n  {"x", 0, sizeof(x), x},\n};',
        "line 2: all is a WeightArray: tables of RNNoise 0.2 .* hand over the torch model",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_such_table_is_refused_with_its_place(tmp_path, name):
    text, message = REFUSALS[name]
    with pytest.raises(FormatError, match=message) as caught:
        load(text, tmp_path)
    assert str(tmp_path / "tables.c") in str(caught.value)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_layers_of_other_kinds_are_refused_by_name(tmp_path, name):
    text, message = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError, match=message):
        load(text, tmp_path)


@pytest.mark.parametrize("scale", [0, -1 / 256, float("nan"), float("inf"), "1/256", True])
def test_a_scale_is_a_positive_number(tmp_path, scale):
    with pytest.raises(QuantizeError, match=re.escape(f"scale {scale!r}: the value of a raw 1")):
        load(GOOD + DENSE, tmp_path, scale=scale)


@pytest.mark.parametrize("read", [lineage.load, lineage.load_rnnn])
def test_files_that_are_none(tmp_path, read):
    for path in (tmp_path / "none.c", tmp_path):
        with pytest.raises(FormatError, match=f"{path}: no such file"):
            read(path)
    (tmp_path / "net.o").write_bytes(b"\x7fELF\0\0")
    with pytest.raises(FormatError, match=r"net.o: binary data, not text"):
        read(tmp_path / "net.o")
    with (tmp_path / "huge.c").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(FormatError, match=f"huge.c: {LARGEST_FILE + 1} bytes; sources of up to {LARGEST_FILE} bytes"):
        read(tmp_path / "huge.c")


# ------------------------------------------------------------------------------------------------------ arndnn's --


def small_rnnn():
    return rnnn_source(rnnoise_layers(np.random.default_rng(3), 5, 3, 2, 3, 4, 6))


def edited(line, word, value):
    """The text with one word of one line (both from 0) replaced."""
    lines = small_rnnn().split("\n")
    words = lines[line].split(" ")
    words[word] = value
    lines[line] = " ".join(words)
    return "\n".join(lines)


# lines: 0 header; 1 to 3 input_dense; 4 to 7 vad_gru; 8, 12 noise and denoise_gru; 16 denoise_output; 19 vad_output
RNNN_REFUSALS = {
    "empty": ("", "line 1: expected 'rnnoise-nu model file version 1', found ''"),
    "version": (small_rnnn().replace("version 1", "version 2"), "line 1: expected .*, found 'rnnoise-nu .* version 2'"),
    "c": (GOOD, "line 1: expected 'rnnoise-nu model file version 1', found 'static const int8_t w"),
    "no integer": (edited(2, 3, "1.5"), r"line 3: input_dense, weights \[5, 3\]: '1.5' is no integer"),
    "long": (edited(2, 3, "9" * 5000), r"line 3: input_dense, weights \[5, 3\]: '9{40}' is no integer"),
    "range": (
        edited(6, 2, "-129"),
        r"line 7: vad_gru, recurrent weights \[2, 6\]: value 3 of 12 is -129, allowed are -1",
    ),
    "activation": (
        edited(4, 2, "3"),
        r"line 5: vad_gru, activation \(0 tanh, 1 sigmoid, 2 relu\): value 1 of 1 is 3, al",
    ),
    "inputs": (edited(1, 0, "0"), r"line 2: input_dense, nb_inputs: value 1 of 1 is 0, allowed are 1\.\.128"),
    "neurons": (edited(12, 1, "129"), r"line 13: denoise_gru, nb_neurons: value 1 of 1 is 129, allowed are 1\.\.128"),
    "short": (
        small_rnnn().rsplit("\n", 2)[0],
        "line 21: the file ends in vad_output, bias .1.: expected 1 values, found 0",
    ),
    "cut": (
        "\n".join(small_rnnn().split("\n")[:6]),
        r"line 6: the file ends in vad_gru, recurrent weights \[2, 6\]: expected 12 values, found 0",
    ),
    "more": (small_rnnn() + "\n 1 2\n3\n", "line 24: 3 more values after vad_output, the last layer"),
}


@pytest.mark.parametrize("name", RNNN_REFUSALS)
def test_rnnn_that_is_none_is_refused_with_its_place(tmp_path, name):
    text, message = RNNN_REFUSALS[name]
    path = tmp_path / "voice.rnnn"
    path.write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        lineage.load_rnnn(path)
    assert str(caught.value).startswith(f"{path}, line ")


def test_rnnoise_wants_its_six_layers_of_fitting_widths(tmp_path):
    path = tmp_path / "voice.rnnn"
    path.write_text(small_rnnn())
    modules = lineage.load_rnnn(path)
    lineage.RNNoise(modules)
    without = {name: module for name, module in modules.items() if name != "noise_gru"}
    with pytest.raises(QuantizeError, match="RNNoise needs noise_gru, a GRU; found none among input_dense, vad_gru, "):
        lineage.RNNoise(without)
    with pytest.raises(QuantizeError, match="RNNoise needs vad_output, a Dense; found GRU among"):
        lineage.RNNoise(modules | {"vad_output": modules["vad_gru"]})
    wrong = modules | {"denoise_gru": GRU(7, 4, "relu", reset_after=False)}
    with pytest.raises(QuantizeError, match="RNNoise: denoise_gru has 7 inputs, what it reads is 10 wide"):
        lineage.RNNoise(wrong)
    with pytest.raises(QuantizeError, match="RNNoise: vad_output has 3 inputs, what it reads is 2 wide"):
        lineage.RNNoise(modules | {"vad_output": lineage.Dense(3, 1, "sigmoid")})


# ----------------------------------------------------------------------------------------------- any text at all --

PIECES = ["{", "}", "[", "]", "(", ")", ",", ";", "=", "*", "&", ".", "#", "#if 0\n", "#else\n", "#endif\n", "/*", "*/"]
PIECES += ["//", "\n", '"', "'", "\\", "const", "DenseLayer x", "static", "1", "-300", "1e9", "extern", "typedef", "w"]
MADE = c_source(
    [make(np.random.default_rng(0), "fc", 2, 3, "tanh"), make(np.random.default_rng(1), "g", 3, 2, "relu", gru=True)]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(MADE)), st.integers(0, 12), st.sampled_from([*PIECES, ""])), max_size=4))
def test_any_damage_reads_or_is_refused_by_name(tmp_path_factory, cuts):
    """Never another exception, whatever is cut out and put in."""
    text = MADE
    for at, length, piece in cuts:
        text = text[:at] + piece + text[at + length :]
    path = tmp_path_factory.getbasetemp() / "damaged.c"
    path.write_text(text)
    try:
        modules = lineage.load(path)
    except QuantizeError as error:
        assert str(path) in str(error)
    else:
        assert modules


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(0, 30), st.text("0123456789-+. \n\tx", max_size=5))
def test_any_damage_to_a_rnnn_is_refused_by_name(tmp_path_factory, at, length, piece):
    text = small_rnnn()
    path = tmp_path_factory.getbasetemp() / "damaged.rnnn"
    path.write_text(text[:at] + piece + text[at + length :])
    try:
        modules = lineage.load_rnnn(path)
    except FormatError as error:
        assert str(path) in str(error)
    else:
        assert next(iter(modules)) == "input_dense"


@pytest.mark.parametrize("piece", ['"', "'", "/*", "#", "#if\n", "((", "1.", "a b ", "\\\n", "#\\\n", "{", "x[", "=,"])
def test_a_megabyte_of_anything_ends(tmp_path, piece):
    """Readers that go back over what they have read would not end within the day, or run out of stack."""
    for head in ("", "const float w[] = {", "const DenseLayer fc = {"):
        with pytest.raises(QuantizeError):
            load(head + piece * (1_000_000 // len(piece)), tmp_path)
