"""What the generated C does on this machine: the oracle's bits, and the promises that NAME.h makes.

Poisoned memory, saved and restored streams, other tables, refused tables, several nets in one program, golden vectors
that agree and that do not; all of it under the sanitizers. Neighbours: `plain_c.py`, `test_emit_c.py` (the files).
"""

import ctypes
import dataclasses
import shutil
import subprocess

import numpy as np
import pytest

import oracle
from bits import assert_equal_bits
from firmware_sim.toolchain import build_host, build_host_library
from nets import Builder, memory_net, random_frames, random_initial, random_tables
from plain_c import PlainC
from quantize.emit_c import render
from quantize.golden import golden_vectors
from rtcore.tables import StateInput
from window_nets import option_net

SEED = 47
STEPS = 9
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no host compiler with sanitizers: gcc")


def program(tables_by_name, main, selftest_steps=3):
    """Builds a program of several generated nets under the sanitizers, runs it, and expects exit status 0."""
    files = {"main.c": main.encode()}
    for name, tables in tables_by_name.items():
        files |= render(tables, name, selftest=golden_vectors(tables, selftest_steps))
    built = build_host(files, ("-I.", "-O1", *SANITIZERS), "program")
    done = subprocess.run([built], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout}{done.stderr}"


def small_net():
    """affine -> gru (reset before) -> dense into the output, and a gru beside it; initial state for the first."""
    b = Builder(np.random.default_rng(SEED))
    x = b.affine(b.input(5))
    before = b.gru(x, 7, "tanh", False)
    b.gru(before, 3, "relu", True)
    y = b.tensor("y0", 4, 11, "output", index=0)
    b.outputs.append(y)
    b.dense(b.concat([before, b.layers[-1].output]), 4, "linear", into=y)
    return b.tables((StateInput("h0", ("gru.1",)),))


@pytest.mark.parametrize(("seed", "width"), [*((seed, 40) for seed in range(12)), (12, 200), (13, 200)])
def test_bits_are_the_oracles(seed, width):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, width)
    frames, initial = random_frames(rng, tables, STEPS), random_initial(rng, tables)
    outputs, _, states = oracle.run(tables, frames, initial)
    found, found_states = PlainC(tables).run(frames, initial)
    for name, expected, actual in zip(tables.outputs, outputs, found, strict=True):
        assert_equal_bits(np.array(expected, np.int16), actual, f"output {name}", seed)
    for name, expected in states.items():
        assert_equal_bits(np.array(expected, np.int32), found_states[name], f"state of {name}", seed)


def test_random_nets_spread():
    """The nets above are no constants: outputs move, and few values sit at the ends of the range."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        tables = random_tables(rng)
        _, trace, _ = oracle.run(tables, random_frames(rng, tables, STEPS), random_initial(rng, tables))
        values = np.concatenate([np.ravel(trace[name]) for name in tables.tensors])
        assert np.unique(values).size > 20 and np.mean(np.abs(values) >= 32767) < 0.3, f"seed {seed}"


PROMISES = """
#include <stdio.h>
#include <string.h>

#include "net.h"

#define T 6
#define CHECK(condition)                                      \\
    if (!(condition)) {                                       \\
        printf("line %d: %s\\n", __LINE__, #condition);        \\
        return 1;                                             \\
    }

static net_state a, b;
static int16_t in[T][NET_IN_SIZE], expected[T][NET_OUT_SIZE], out[NET_OUT_SIZE];

static int step_is(net_state *st, int t) {
    return net_step(st, in[t], out) == 1 && memcmp(out, expected[t], sizeof out) == 0;
}

int main(void) {
    unsigned int random = 1;
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < NET_IN_SIZE; i++) {
            random = random * 1664525U + 1013904223U;
            in[t][i] = (int16_t)((int)(random >> 18) - 8192);
        }
    }

    /* a stream is the same whatever the memory held before the reset */
    memset(&a, 0xA5, sizeof a);
    net_reset(&a);
    memset(&b, 0, sizeof b);
    net_reset(&b);
    for (int t = 0; t < T; t++) {
        CHECK(net_step(&a, in[t], expected[t]) == 1);
        CHECK(step_is(&b, t));
    }
    CHECK(memcmp(expected[0], expected[1], sizeof expected[0]) != 0);

    /* ... and wherever it is cut: a copy of the struct goes on, with everything but the states destroyed */
    for (int cut = 0; cut <= T; cut++) {
        net_reset(&a);
        for (int t = 0; t < cut; t++) {
            CHECK(step_is(&a, t));
        }
        memcpy(&b, &a, sizeof a);
        memset(&a, 0x5A, sizeof a);
        memset(b.arena, 0xA5, sizeof b.arena);
        memset(b.rows, 0xA5, sizeof b.rows);
        memset(b.scratch, 0xA5, sizeof b.scratch);
        for (int t = cut; t < T; t++) {
            CHECK(step_is(&b, t));
        }
    }

    /* views go out and come in; the state that no input sets stays */
    int16_t h0[NET_STATE0_SIZE], given[NET_STATE0_SIZE], rest[NET_STATE1_SIZE], after[NET_STATE1_SIZE];
    net_get_state(&b, h0, rest);
    CHECK(memcmp(h0, b.gru_1.view, sizeof h0) == 0 && memcmp(rest, b.gru_2.view, sizeof rest) == 0);
    for (int i = 0; i < NET_STATE0_SIZE; i++) {
        given[i] = (int16_t)(i * 4681 - 32768);
    }
    net_set_state(&b, given);
    net_get_state(&b, h0, after);
    CHECK(memcmp(h0, given, sizeof h0) == 0 && memcmp(rest, after, sizeof rest) == 0);
    for (int i = 0; i < NET_STATE0_SIZE; i++) {
        CHECK(b.gru_1.h[i] == given[i] * 32768);
    }

    /* tables elsewhere */
    net_weights w = net_default_weights;
    CHECK(net_check(&net_default_weights) == RTCORE_OK);
    CHECK(net_check(&w) == RTCORE_OK);
    net_reset_with(&a, &w);
    for (int t = 0; t < T; t++) {
        CHECK(step_is(&a, t));
    }
    int32_t other_bias[64];
    for (int i = 0; i < w.dense.matrix.nb_rows; i++) {
        other_bias[i] = 1 << 29;
    }
    w.dense.matrix.bias32 = other_bias;
    w.dense.matrix.bias64 = NULL;
    CHECK(net_check(&w) == RTCORE_OK);
    net_reset_with(&a, &w);
    CHECK(!step_is(&a, 0));

#define REFUSED(member, value, code)             \\
    w = net_default_weights;                     \\
    w.member = value;                            \\
    CHECK(net_check(&w) == RTCORE_E_##code);
    REFUSED(spec, 99, TABLE)
    REFUSED(affine_0.bias, NULL, TABLE)
    REFUSED(dense.nb_inputs, 2, SHAPE)
    REFUSED(gru_1.nb_neurons, 8, SHAPE)
    REFUSED(gru_2.reset_after, 0, SHAPE)
    REFUSED(gru_2.activation, 9, ACTIVATION)
    REFUSED(gru_1.state_frac, 16, SHIFT)
    REFUSED(gru_1.input.shift, NULL, TABLE)
    uint8_t shifts[64];
    memset(shifts, 63, sizeof shifts);
    REFUSED(affine_0.shift, shifts, SHIFT)
    REFUSED(dense.matrix.shift, shifts, SHIFT)
    return 0;
}
"""


def test_the_header_keeps_its_promises():
    tables = small_net()
    layers = tuple(dataclasses.replace(x, name="dense") if x.kind == "dense_i16" else x for x in tables.layers)
    program({"net": dataclasses.replace(tables, layers=layers)}, PROMISES)


def test_several_nets_in_one_program():
    """Interleaved, each with its own widest layer: no capacity of one leaks into the other."""
    main = """
#include "wide.h"
#include "thin.h"
static wide_state a;
int main(void) {
    wide_reset(&a);
    if (wide_selftest() != 0 || thin_selftest() != 0 || wide_selftest() != 0) {
        return 1;
    }
    return sizeof(wide_state) <= sizeof(thin_state);
}
"""
    thin, wide = (random_tables(np.random.default_rng(SEED), width, 3) for width in (4, 150))
    program({"thin": thin, "wide": wide}, main)


def only(make):
    """A net of one layer with matrices."""
    b = Builder(np.random.default_rng(SEED))
    b.output(make(b, b.input(5)))
    return b.tables()


@pytest.mark.parametrize(
    ("tables", "size"),
    [
        (only(lambda b, x: b.dense(x, 10)), 12),
        (only(lambda b, x: b.dense(x, 70)), 32),
        (only(lambda b, x: b.rnn(x, 6)), 8),
        (only(lambda b, x: b.gru(x, 6, reset_after=True)), 24),
        (only(lambda b, x: b.gru(x, 6, reset_after=False)), 16),
        (only(lambda b, x: b.lstm(x, 6)), 32),
        (only(lambda b, x: b.lstm(x, 6, coupled=True)), 32),
        (only(lambda b, x: b.lstm(x, 48, 40)), 32),
        (option_net(np.random.default_rng(SEED), 16, 64, ("in groups",)), 4),
    ],
)
def test_no_kernel_writes_beyond_the_rows_it_was_given(tables, size):
    """In memory of their own, as many as NAME.h states."""
    files = render(tables, "net", selftest=golden_vectors(tables, 3))
    source = files["net.c"].decode()
    assert "st->rows" in source
    source = source.replace("st->rows", "given").replace("int net_step", "extern int32_t *given;\nint net_step", 1)
    main = """
#include <stdlib.h>
#include "net.h"
int32_t *given;
int main(void) {
    given = malloc(NET_ROWS_SIZE * sizeof *given);
    const int failed = net_selftest();
    free(given);
    return failed;
}
"""
    assert f"NET_ROWS_SIZE {size} " in files["net.h"].decode()
    built = build_host(
        files | {"net.c": source.encode(), "main.c": main.encode()}, ("-I.", "-O1", *SANITIZERS), "program"
    )
    done = subprocess.run([built], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("bits", [8, 16])
def test_every_recurrent_kind_agrees_under_the_sanitizers(bits):
    """The golden frames end in the extremes of int16."""
    main = '#include "net.h"\nint main(void) { return net_selftest(); }\n'
    rng = np.random.default_rng(bits)
    tables = memory_net(rng, bits, 64 if bits == 16 else 32)
    rows = tuple(tables.state_rows)
    for state_inputs in ((), (StateInput("s", rows),)):
        program({"net": dataclasses.replace(tables, state_inputs=state_inputs)}, main, selftest_steps=12)


@pytest.mark.parametrize("seed", range(4))
def test_golden_vectors_agree_under_the_sanitizers(seed):
    main = '#include "net.h"\nint main(void) { return net_selftest(); }\n'
    program({"net": random_tables(np.random.default_rng(100 + seed), 90)}, main, selftest_steps=8)


def selftest(tables, golden):
    return ctypes.CDLL(str(build_host_library(tables, selftest=golden))).net_selftest()


def test_golden_vectors_find_a_changed_bit():
    tables = small_net()
    golden = golden_vectors(tables, 6)
    assert selftest(tables, golden) == 0
    for step in (0, 3, 5):
        (y,) = golden.outputs
        wrong = y.copy()
        wrong[step, -1] ^= 1
        assert selftest(tables, dataclasses.replace(golden, outputs=[wrong])) == 1 + step
    for k, h in enumerate(golden.states):
        wrong = h.copy()
        wrong[-1] ^= 1
        states = [*golden.states[:k], wrong, *golden.states[k + 1 :]]
        assert selftest(tables, dataclasses.replace(golden, states=states)) == 1 + 6
    started = golden.initial[0].copy()
    started[0] ^= 64
    assert selftest(tables, dataclasses.replace(golden, initial=[started])) != 0


def test_golden_vectors_find_a_changed_weight():
    tables = small_net()
    golden = golden_vectors(tables, 6)
    for index, layer in enumerate(tables.layers):
        for which in (name for name in layer.arrays if name.endswith("weights")):
            array = layer.arrays[which].copy()
            array[0, 0] = np.clip(int(array[0, 0]) ^ 64, -127, 127)
            changed = dataclasses.replace(layer, arrays=layer.arrays | {which: array})
            layers = (*tables.layers[:index], changed, *tables.layers[index + 1 :])
            assert selftest(dataclasses.replace(tables, layers=layers), golden) != 0, f"{layer.name} {which}"
