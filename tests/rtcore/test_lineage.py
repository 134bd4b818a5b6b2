"""A program written for the RNNoise/Opus family, compiled against rtcore_lineage.h alone: both generations.

The program keeps the family's manner: tables as `static const` arrays, positional struct initialisers, a page of calls.
Its bits are those of DenseF32 and GruF32; for the int8 generation, too, as scaling by 1/256 is exact.
Neighbours: `rtcore/csrc/rtcore_lineage.h`, `rtcore_lineage_int8.c`, `test_f32.py` (the layers themselves),
`lineage_sources.py` (compiles the programs).
"""

import shutil
import subprocess

import numpy as np
import pytest

from lineage_sources import build_and_run, c_array
from rtcore import DenseF32, GruF32, _build

SEED = 20
FRAMES, INPUTS, HIDDEN, BANDS = 12, 42, 24, 22

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: cc is not on PATH")


def tables(rng, m, rows, n=None, bias=None, int8=False):
    """input weights [m][rows], recurrent weights [n][rows] for a GRU, bias [rows or as given]."""

    def table(*shape, spread):
        values = rng.normal(0, spread, shape)
        return np.clip(np.rint(256 * values), -128, 127).astype(np.int8) if int8 else values.astype(np.float32)

    out = {"weights": table(m, rows, spread=1 / np.sqrt(m)), "bias": table(bias or rows, spread=0.3)}
    if n:
        out["recurrent_weights"] = table(n, rows, spread=1 / np.sqrt(n))
    return out


def print_tables(name, layer, ctype):
    return "\n".join(c_array(ctype, f"{name}_{field}", values) for field, values in layer.items())


PROGRAM = """
{tables}
const DenseLayer input_dense = {{
   input_dense_bias,
   input_dense_weights,
   42, 24, ACTIVATION_TANH
}};

const GRULayer vad_gru = {{
   vad_gru_bias,
   vad_gru_weights,
   vad_gru_recurrent_weights,
   42, 24, ACTIVATION_{vad}{vad_reset}
}};

const GRULayer noise_gru = {{
   noise_gru_bias,
   noise_gru_weights,
   noise_gru_recurrent_weights,
   48, 24, ACTIVATION_{noise}{noise_reset}
}};

const DenseLayer denoise_output = {{
   denoise_output_bias,
   denoise_output_weights,
   24, 22, ACTIVATION_SIGMOID
}};

typedef struct {{
  float vad_gru_state[24];
  float noise_gru_state[24];
}} RNNState;

static void compute_rnn(RNNState *rnn, float *gains, const float *input)
{{
  int i;
  float dense_out[MAX_NEURONS];
  float noise_input[MAX_NEURONS*3];
  compute_dense(&input_dense, dense_out, input);
  compute_gru(&vad_gru, rnn->vad_gru_state, input);
  for (i=0;i<24;i++) noise_input[i] = dense_out[i];
  for (i=0;i<24;i++) noise_input[i+24] = rnn->vad_gru_state[i];
  compute_gru(&noise_gru, rnn->noise_gru_state, noise_input);
  compute_dense(&denoise_output, gains, rnn->noise_gru_state);
{extra}
}}

int main(void)
{{
  int i, t;
  static RNNState rnn;
  for (t=0;t<12;t++) {{
    float gains[MAX_NEURONS];
    compute_rnn(&rnn, gains, &frames[t*42]);
    for (i=0;i<22;i++) printf("%.9g ", (double)gains[i]);
    for (i=0;i<24;i++) printf("%.9g ", (double)rnn.noise_gru_state[i]);
    printf("\\n");
  }}
  return 0;
}}
"""


def model(rng, reset_after, int8=False):
    return {
        "input_dense": tables(rng, INPUTS, HIDDEN, int8=int8),
        "vad_gru": tables(rng, INPUTS, 3 * HIDDEN, HIDDEN, int8=int8),
        "noise_gru": tables(rng, 2 * HIDDEN, 3 * HIDDEN, HIDDEN, (6 if reset_after else 3) * HIDDEN, int8=int8),
        "denoise_output": tables(rng, HIDDEN, BANDS, int8=int8),
    }


def run_layers(layers, frames, vad, noise, reset_after, relu):
    """What the program computes, by DenseF32 and GruF32. relu: whether the gains end in a ReLU of gain - 1/2."""

    def dense(name, activation):
        return DenseF32(layers[name]["weights"], layers[name]["bias"], activation)

    def gru(name, activation, reset):
        t = layers[name]
        return GruF32(t["weights"], t["recurrent_weights"], t["bias"], activation, reset)

    hidden = np.hstack((dense("input_dense", "tanh").run(frames), gru("vad_gru", vad, 0).run(frames)))
    state = gru("noise_gru", noise, reset_after).run(hidden)
    gains = dense("denoise_output", "sigmoid").run(state)
    if relu:
        gains = np.maximum(gains - np.float32(0.5), np.float32(0))
    return np.hstack((gains, state))


def assert_same_bits(actual, expected):
    assert np.ptp(expected) > 0.5 and expected.shape == actual.shape
    wrong = np.argwhere(actual.view(np.uint32) != expected.view(np.uint32))
    if len(wrong):
        t, i = (int(v) for v in wrong[0])
        layer, unit = ("denoise_output", i) if i < BANDS else ("noise_gru", i - BANDS)
        raise AssertionError(
            f"{layer} frame {t} unit {unit}: expected {expected[t, i]!r}, actual {actual[t, i]!r}, seed {SEED}; "
            f"{len(wrong)} of {actual.size} differ"
        )


@pytest.mark.parametrize(("vad", "noise", "reset_after"), [("tanh", "relu", 0), ("linear", "tanh", 1)])
def test_float_generation(tmp_path, vad, noise, reset_after):
    rng = np.random.default_rng(SEED)
    layers = model(rng, reset_after)
    frames = rng.normal(0, 1, (FRAMES, INPUTS)).astype(np.float32)
    program = PROGRAM.format(
        tables="\n".join(print_tables(name, t, "float") for name, t in layers.items())
        + c_array("float", "frames", frames),
        vad=vad.upper(),
        vad_reset=", 0",
        noise=noise.upper(),
        noise_reset=f", {reset_after}",
        extra="  for (i=0;i<22;i++) gains[i] -= .5f;\n  compute_activation(gains, gains, 22, ACTIVATION_RELU);",
    )
    actual = build_and_run(tmp_path, program, _build.SOURCES_F32)
    assert_same_bits(actual, run_layers(layers, frames, vad, noise, reset_after, relu=True))


@pytest.mark.parametrize(("vad", "noise"), [("tanh", "relu"), ("sigmoid", "tanh")])
def test_int8_generation(tmp_path, vad, noise):
    rng = np.random.default_rng(SEED)
    layers = model(rng, 0, int8=True)
    assert min(t["weights"].min() for t in layers.values()) < -100
    frames = rng.normal(0, 1, (FRAMES, INPUTS)).astype(np.float32)
    program = PROGRAM.format(
        tables="\n".join(print_tables(name, t, "rnn_weight") for name, t in layers.items())
        + c_array("float", "frames", frames),
        vad=vad.upper(),
        vad_reset="",
        noise=noise.upper(),
        noise_reset="",
        extra="",
    )
    kernels = ("rtcore_lineage_int8.c", *_build.SOURCES_F32)
    actual = build_and_run(tmp_path, program, kernels, ["RTCORE_LINEAGE_INT8", "RTCORE_MAX_NEURONS 24"])
    scaled = {
        name: {field: values.astype(np.float32) / np.float32(256) for field, values in t.items()}
        for name, t in layers.items()
    }
    assert_same_bits(actual, run_layers(scaled, frames, vad, noise, 0, relu=False))


INT8_CHECKS = r"""
int main(void)
{
  static const rnn_weight table[3] = {1, -2, 3};
  const DenseLayer dense[] = {{table, table, 1, 1, ACTIVATION_RELU}, {table, table, 0, 1, 0}, {table, table, 1, 0, 0},
                              {table, table, 1, 1, 3}, {table, table, 1, 1, -1}, {0, table, 1, 1, 0}};
  const GRULayer gru[] = {{table, table, table, 1, 1, ACTIVATION_TANH}, {table, table, table, 0, 1, 0},
                          {table, table, table, 1, MAX_NEURONS + 1, 0}, {table, table, table, 1, 1, 3},
                          {table, table, 0, 1, 1, 0}};
  int i;
  for (i=0;i<6;i++) printf("%d ", rtcore_lineage_int8_dense_check(&dense[i]));
  for (i=0;i<5;i++) printf("%d ", rtcore_lineage_int8_gru_check(&gru[i], MAX_NEURONS));
  printf("%g", (double)(1 / WEIGHTS_SCALE));
  return 0;
}
"""


def test_int8_checks(tmp_path):
    kernels = ("rtcore_lineage_int8.c", *_build.SOURCES_F32)
    row = build_and_run(tmp_path, INT8_CHECKS, kernels, ["RTCORE_LINEAGE_INT8"])[0]
    assert row.tolist() == [0, -1, -1, -3, -3, -4, 0, -1, -2, -3, -4, 256]


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm on PATH")
@pytest.mark.parametrize("source", [*_build.SOURCES_F32, "rtcore_lineage_int8.c"])
def test_float_kernels_need_nothing_and_keep_nothing(tmp_path, source):
    """No libm, malloc or stdio symbol, no writable global. A compiler may ask for memcpy and memset on its own."""
    command = ["cc", "-O2", *_build.WARNINGS, *_build.KERNEL_FLAGS, "-c", _build.CSRC / source, "-o", "kernel.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    listing = subprocess.run(["nm", "kernel.o"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-2:] for line in listing.splitlines()]
    foreign = [name for kind, name in symbols if kind == "U" and not name.startswith("rtcore_")]
    assert set(foreign) <= {"memcpy", "memset"}
    assert [name for kind, name in symbols if kind in "bBdDcC"] == []
    assert any(kind == "T" and name.startswith("rtcore_") for kind, name in symbols)
