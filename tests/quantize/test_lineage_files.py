"""Tables of the RNNoise/Opus family become modules: C sources and the .rnnn text against C programs of the family,
and int8 tables against the integers that quantize makes of them.

A program includes the very file that `quantize.lineage.load` reads and is compiled against rtcore_lineage.h. Agreement
is 2e-5 of the peak: both compute in float32, over sums of up to 100 products in another order and with other
approximations of exp, each good to 1e-6; a swapped gate, a wrong scale or layout is off by tenths.
Neighbours: `lineage_sources.py` (writes the files), `test_lineage_refusals.py`, `rtcore/test_lineage.py`.
"""

import shutil

import numpy as np
import pytest
import torch

import quantize
from lineage_sources import build_and_run, c_array, c_source, make, rnnn_source, rnnoise_layers
from quantize import lineage
from quantize.dequantize import values
from rtcore import _build

SEED = 5
FRAMES, INPUTS = 20, 10

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: cc is not on PATH")

MAIN = """
int main(void)
{{
  int i, t;
{states}
  for (t=0;t<{frames};t++) {{
    float out[MAX_NEURONS];
{calls}
    printf("\\n");
  }}
  return 0;
}}
"""
PRINT = '    for (i=0;i<{n};i++) printf("%.9g ", (double){what}[i]);\n'


def every_layer(layers, x, structs=""):
    """A program that runs every layer on the same frames and prints what each gives out."""
    states, calls = "", ""
    for layer in layers:
        n = layer.sizes[1]
        reference = f"{structs}{layer.name}"
        if layer.recurrent is None:
            calls += f"    compute_dense(&{reference}, out, &frames[t*{INPUTS}]);\n" + PRINT.format(n=n, what="out")
        else:
            states += f"  static float {layer.name}_state[{n}];\n"
            calls += f"    compute_gru(&{reference}, {layer.name}_state, &frames[t*{INPUTS}]);\n"
            calls += PRINT.format(n=n, what=f"{layer.name}_state")
    return c_array("float", "frames", x) + MAIN.format(states=states, calls=calls, frames=FRAMES)


def run_modules(modules, x):
    """What the program prints, by the modules."""
    with torch.no_grad():
        given = torch.from_numpy(x)[None]
        outputs = [m(given)[0] if isinstance(m, quantize.nn.GRU) else m(given) for m in modules.values()]
    return torch.cat(outputs, -1)[0].numpy()


def assert_close(actual, expected):
    assert actual.shape == expected.shape and np.ptp(expected) > 0.5
    worst = np.unravel_index(np.abs(actual - expected).argmax(), actual.shape)
    limit = 2e-5 * np.abs(expected).max()
    assert np.abs(actual - expected).max() <= limit, (
        f"frame, unit {worst}: {actual[worst]} for {expected[worst]}, seed {SEED}"
    )


def frames_of(rng):
    return rng.normal(0, 1, (FRAMES, INPUTS)).astype(np.float32)


def written(folder, text, name="tables.c"):
    (folder / "rnn.h").write_text("")
    (folder / name).write_text(text)
    return folder / name


@needs_cc
def test_rnnoise_0_1_is_what_its_c_computes(tmp_path):
    rng = np.random.default_rng(SEED)
    layers = [make(rng, f"dense_{a}", INPUTS, 7, a) for a in ("tanh", "sigmoid", "relu")]
    layers += [make(rng, f"gru_{a}", INPUTS, 9, a, gru=True) for a in ("tanh", "sigmoid", "relu")]
    path, x = written(tmp_path, c_source(layers)), frames_of(rng)
    modules = lineage.load(path)
    assert list(modules) == [layer.name for layer in layers]
    program = '#include "tables.c"\n' + every_layer(layers, x)
    kernels = ("rtcore_lineage_int8.c", *_build.SOURCES_F32)
    assert_close(run_modules(modules, x), build_and_run(tmp_path, program, kernels, ["RTCORE_LINEAGE_INT8"]))


@needs_cc
def test_the_nnet_h_generation_is_what_its_c_computes(tmp_path):
    rng = np.random.default_rng(SEED)
    names = ("linear", "sigmoid", "tanh", "relu")
    layers = [make(rng, f"dense_{a}", INPUTS, 7, a, int8=False) for a in names]
    for reset_after in (0, 1):
        form = dict(gru=True, int8=False, reset_after=reset_after)
        layers += [make(rng, f"gru_{a}_{reset_after}", INPUTS, 9, a, **form) for a in names]
    path, x = written(tmp_path, c_source(layers, "nnet")), frames_of(rng)
    modules = lineage.load(path)
    assert [m.reset_after for m in modules.values() if isinstance(m, quantize.nn.GRU)] == [False] * 4 + [True] * 4
    program = '#include "tables.c"\n' + every_layer(layers, x)
    assert_close(run_modules(modules, x), build_and_run(tmp_path, program, _build.SOURCES_F32))


# Opus' structs, and each layer's tables as floats in 1/128: its arithmetic is the float one, reset before.
OPUS = """
typedef signed char opus_int8;
typedef struct {{ const opus_int8 *bias, *input_weights; int nb_inputs, nb_neurons, sigmoid; }} {prefix}DenseLayer;
typedef struct {{
  const opus_int8 *bias, *input_weights, *recurrent_weights; int nb_inputs, nb_neurons;
}} {prefix}GRULayer;
"""


@needs_cc
@pytest.mark.parametrize("form", ["opus", "opus unprefixed"])
def test_opus_analysis_net_is_what_its_c_computes(tmp_path, form):
    rng = np.random.default_rng(SEED)
    layers = [
        make(rng, "layer0", INPUTS, 8, "tanh", scale=128),
        make(rng, "layer1", INPUTS, 6, "tanh", gru=True, scale=128),
        make(rng, "layer2", INPUTS, 2, "sigmoid", scale=128),
    ]
    path, x = written(tmp_path, c_source(layers, form, "opus_int8")), frames_of(rng)
    prefix = "Analysis" if form == "opus" else ""
    rename = "" if prefix else "#define DenseLayer OldDenseLayer\n#define GRULayer OldGRULayer\n"
    program = rename + OPUS.format(prefix=prefix) + '#include "tables.c"\n#undef DenseLayer\n#undef GRULayer\n'
    for layer in layers:
        arrays = [f"f_{name}" for name in layer.arrays]
        for name, raw in layer.arrays.items():
            program += c_array("float", f"f_{name}", raw.astype(np.float32) / 128)
        fields = [arrays[1], arrays[0], *arrays[2:], *(f"{layer.name}.{n}" for n in ("nb_inputs", "nb_neurons"))]
        if layer.recurrent is None:
            last = f"{layer.name}.sigmoid ? ACTIVATION_SIGMOID : ACTIVATION_TANH"
            kind, checked = "DenseLayer", "bias"
        else:
            last, kind, checked = "ACTIVATION_TANH, 0", "GRULayer", "recurrent_weights"
        program += f"#define f_{layer.name} (({kind}){{{', '.join([*fields, last])}}})\n"
        assert checked in path.read_text()
    program += every_layer(layers, x, "f_")
    assert_close(run_modules(lineage.load(path), x), build_and_run(tmp_path, program, _build.SOURCES_F32))


RNNOISE_MAIN = """
{frames}
int main(void)
{{
  int i, t;
  static float vad_state[24], noise_state[48], denoise_state[96];
  for (t=0;t<{count};t++) {{
    float dense_out[MAX_NEURONS], noise_input[3*MAX_NEURONS], denoise_input[3*MAX_NEURONS], gains[22], vad[1];
    const float *input = &frames[t*42];
    compute_dense(&input_dense, dense_out, input);
    compute_gru(&vad_gru, vad_state, dense_out);
    compute_dense(&vad_output, vad, vad_state);
    for (i=0;i<24;i++) noise_input[i] = dense_out[i];
    for (i=0;i<24;i++) noise_input[i+24] = vad_state[i];
    for (i=0;i<42;i++) noise_input[i+48] = input[i];
    compute_gru(&noise_gru, noise_state, noise_input);
    for (i=0;i<24;i++) denoise_input[i] = vad_state[i];
    for (i=0;i<48;i++) denoise_input[i+24] = noise_state[i];
    for (i=0;i<42;i++) denoise_input[i+72] = input[i];
    compute_gru(&denoise_gru, denoise_state, denoise_input);
    compute_dense(&denoise_output, gains, denoise_state);
    for (i=0;i<22;i++) printf("%.9g ", (double)gains[i]);
    printf("%.9g\\n", (double)vad[0]);
  }}
  return 0;
}}
"""


@needs_cc
@pytest.mark.parametrize("gru", ["relu", "tanh"])
def test_rnnoise_wired_from_c_and_from_rnnn_is_what_its_c_computes(tmp_path, gru):
    rng = np.random.default_rng(SEED)
    layers = rnnoise_layers(rng, gru=gru)
    path = written(tmp_path, c_source(layers))
    text = written(tmp_path, rnnn_source(layers), "voice.rnnn")
    x = rng.normal(0, 1, (FRAMES, 42)).astype(np.float32)
    frames = c_array("float", "frames", x)
    program = '#include "tables.c"\n' + RNNOISE_MAIN.format(frames=frames, count=FRAMES)
    kernels = ("rtcore_lineage_int8.c", *_build.SOURCES_F32)
    expected = build_and_run(tmp_path, program, kernels, ["RTCORE_LINEAGE_INT8"])
    from_c, from_text = lineage.load(path), lineage.load_rnnn(text)
    assert list(from_c) == list(from_text)
    for name, module in from_c.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, from_text[name].state_dict()[key]), (name, key)
    for modules in (from_c, from_text):
        with torch.no_grad():
            gains, vad = lineage.RNNoise(modules)(torch.from_numpy(x)[None])
        assert gains.shape == (1, FRAMES, 22) and vad.shape == (1, FRAMES, 1)
        assert_close(torch.cat([gains, vad], -1)[0].numpy(), expected)


# ------------------------------------------------------------------------------------------- through to the integers --


def one_of_each(form):
    rng = np.random.default_rng(SEED)
    scale = 128 if form.startswith("opus") else 256
    dense = make(rng, "fc", INPUTS, 12, "tanh", scale=scale)
    gru = make(rng, "rnn", 12, 9, "tanh" if form.startswith("opus") else "relu", gru=True, scale=scale)
    return [dense, gru, make(rng, "out", 9, 4, "sigmoid", scale=scale)], scale


class Chain(torch.nn.Module):
    def __init__(self, modules):
        super().__init__()
        self.fc, self.rnn, self.out = modules["fc"], modules["rnn"], modules["out"]

    def forward(self, x):
        return self.out(self.rnn(self.fc(x))[0])


@pytest.mark.parametrize("form", ["rnnoise", "opus", "opus unprefixed"])
def test_int8_tables_pass_through_with_the_same_integers(tmp_path, form):
    layers, scale = one_of_each(form)
    net = Chain(lineage.load(written(tmp_path, c_source(layers, form, "opus_int8"))))
    x = np.random.default_rng(1).normal(0, 1, (2, 50, INPUTS))
    tables = quantize.quantize(net, x, weight_bits=8).tables
    found = {layer.name: layer for layer in tables.layers}
    for made in layers:
        assert_same_integers(found[made.name], made, tables, scale)


def test_float_tables_of_int8_values_pass_through_too(tmp_path):
    """The nnet.h generation, reset after: a float table that was rounded to 1/128 keeps its integers."""
    rng = np.random.default_rng(SEED)
    raw = make(rng, "rnn", 6, 5, "tanh", gru=True, reset_after=1)
    floats = {
        name: values.astype(np.float32) / 128 for name, values in vars(raw).items() if isinstance(values, np.ndarray)
    }
    made = type(raw)("rnn", "tanh", reset_after=1, **floats)
    gru = lineage.load(written(tmp_path, c_source([made], "nnet")))["rnn"]
    layer = quantize.quantize(gru, rng.normal(0, 1, (2, 50, 6)), weight_bits=8).tables.layers[0]
    assert np.array_equal(layer.arrays["input_weights"], raw.weights.T)
    assert np.array_equal(layer.arrays["recurrent_weights"], raw.recurrent.T)


def assert_same_integers(layer, made, tables, scale):
    """The layer's weights are the file's integers, its multipliers are powers of two, its bias is exact."""
    if made.recurrent is None:
        sides = [("", made.weights)]
    else:
        sides = [("input_", made.weights), ("recurrent_", made.recurrent)]
    for prefix, raw in sides:
        weights, mult = layer.arrays[f"{prefix}weights"], layer.arrays[f"{prefix}mult"]
        assert weights.dtype == np.int8
        assert np.array_equal(weights, raw.T), f"{layer.name} {prefix}weights"
        assert all(int(m).bit_count() == 1 for m in mult), f"{layer.name} {prefix}mult {mult}"
    assert np.array_equal(bias_of(layer, tables), made.bias / scale), layer.name


def bias_of(layer, tables):
    """The sum of the biases that a layer's integers stand for."""
    x_frac, out_frac = tables.tensors[layer.inputs[0]].frac, tables.tensors[layer.output].frac
    if layer.kind == "dense_i16":
        return values(layer, "", x_frac, 22)[1]
    n, ints = layer.ints["nb_neurons"], layer.ints
    top = 22 if ints["activation"] == 2 else out_frac + 15
    targets = np.repeat([22 - ints["gate_shift"], 22 - ints["gate_shift"], top - ints["candidate_shift"]], n)
    sides = (("input_", x_frac), ("recurrent_", ints["state_frac"]))
    return sum(values(layer, side, frac, targets)[1] for side, frac in sides)


# ------------------------------------------------------------------------------------------------- what it reads --

TINY = "static const int8_t w[2] = {{{w}}};\nstatic const int8_t b[2] = {{3, -4}};\n{struct}\n"


def dense_of(text, tmp_path, **options):
    return lineage.load(written(tmp_path, text), **options)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("/* a { comment; */ // and = another\n", "\n/**/"),
        ("#define HAVE 1\n#ifdef HAVE\n#include <x.h>\n#else\nnonsense {{ [\n#endif\n", ""),
        ("#ifndef X\n#define Y(a) a\n#elif defined(Z)\n? $ 5\n#endif\n#undef X\n#pragma once\n", ""),
        ("#if 0\n3 ! /* \n#endif */\n#elif !defined(NO) && 1 || NO\n#endif\n", ""),
        ("#define LONG a \\\n  b = { \\\n c\nextern const DenseLayer fc;\n", ""),
        ('#ifdef __cplusplus\nextern "C" {\n#endif\n', "#ifdef __cplusplus\n}\n#endif\n"),
        ('extern "C" {\n', "}\n"),
        ("typedef signed char int8_t; typedef struct { int a; float *b; } Foo;\nstruct S { int x[3]; };\n", ""),
        ("int f(const float *x, int n);\n", "static int f(int n)\n{ int a[2] = {1, 2}; return a[0]; }\n"),
        ('static const char *names[] = {"a;{", "b\\""};\nconst char c = \'"\';\nstatic const int n = 24;\n', ""),
        ("static const int idx[4] = {1000, -7, 0, 3};\nconst float *const all[2] = {b, w};\nenum { A = 3 };\n", ""),
        ("", "const RNNModel model = {\n  2,\n  &fc,\n};\nconst struct RNNModel *p = &model;\n"),
    ],
)  # fmt: skip
def test_what_stands_around_the_tables_is_passed_over(tmp_path, before, after):
    body = TINY.format(w="1, -128,", struct="const DenseLayer fc = {b, w, 1, 2, ACTIVATION_SIGMOID,};")
    (fc,) = dense_of(before + body + after, tmp_path).values()
    assert fc.weight.tolist() == [[1 / 256], [-0.5]] and fc.bias.tolist() == [3 / 256, -4 / 256]
    assert (fc.activation, fc.in_features, fc.out_features, fc.training) == ("sigmoid", 1, 2, False)


@pytest.mark.parametrize(
    ("struct", "activation", "scale"),
    [
        ("const DenseLayer fc = {b, w, 1, 2, ACTIVATION_RELU};", "relu", 256),
        ("const DenseLayer fc = {b, w, 1, 2, 2};", "relu", 256),
        ("const AnalysisDenseLayer fc = {b, w, 1, 2, 1};", "sigmoid", 128),
        ("#define N 2\n#define ONE (1)\nDenseLayer fc = {b, w, ONE, N, ACTIVATION_TANH};", "tanh", 256),
        ("#define WEIGHTS_SCALE (1.f/64)\nDenseLayer fc = {b, w, 1, 2, 1};", "sigmoid", 64),
    ],
)
def test_the_generation_gives_activation_and_scale(tmp_path, struct, activation, scale):
    (fc,) = dense_of(TINY.format(w="1, 2", struct=struct), tmp_path).values()
    assert fc.activation == activation and fc.weight.tolist() == [[1 / scale], [2 / scale]]


def test_the_callers_scale_is_for_integer_tables_alone(tmp_path):
    text = "static const qweight w[2] = {1, 2};\nstatic const float b[2] = {0.25f, -1e-3};\n"
    text += "const DenseLayer fc = {b, w, 1, 2, ACTIVATION_LINEAR};"
    assert dense_of(text, tmp_path)["fc"].weight.tolist() == [[1 / 128], [2 / 128]]
    fc = dense_of(text, tmp_path, scale=1 / 32)["fc"]
    assert fc.weight.tolist() == [[1 / 32], [2 / 32]] and fc.activation == "linear"
    assert fc.bias.tolist() == [0.25, float(np.float32(-1e-3))]


def test_both_branches_of_an_ifdef_may_hold_a_table(tmp_path):
    """As for a compiler without -D options: the second, unless the file defines the name."""
    text = "#ifdef DOT_PROD\nstatic const qweight w[2] = {64, 2};\n#else\nstatic const float w[2] = {.5, 1.};\n#endif\n"
    text += "static const float b[2] = {0, 1};\nconst DenseLayer fc = {b, w, 1, 2, ACTIVATION_LINEAR};"
    assert dense_of(text, tmp_path)["fc"].weight.tolist() == [[0.5], [1.0]]
    assert dense_of("#define DOT_PROD\n" + text, tmp_path)["fc"].weight.tolist() == [[0.5], [2 / 128]]


def test_a_second_bias_of_zeros_is_no_second_bias(tmp_path):
    rng = np.random.default_rng(SEED)
    made = make(rng, "rnn", 3, 2, "tanh", gru=True, int8=False)
    text = c_source([made], "nnet")
    twice = type(made)(**{**vars(made), "bias": np.concatenate([made.bias, 0 * made.bias])})
    one, other = (dense_of(t, tmp_path)["rnn"].state_dict() for t in (text, c_source([twice], "nnet")))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_dense_layer_of_ones_own_trains_and_prints():
    layer = lineage.Dense(3, 2, "relu")
    assert (layer(torch.randn(5, 3)) >= 0).all() and "activation='relu'" in repr(layer)
    with pytest.raises(ValueError, match="activation must be one of tanh, relu, sigmoid, linear; got 'gelu'"):
        lineage.Dense(3, 2, "gelu")
