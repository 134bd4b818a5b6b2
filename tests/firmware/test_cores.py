"""Kernels of a core's own against the host's portable ones: equal bits at every width, at every form of a matrix and at
its extremes; and fewer instructions than portable kernels on the same core.

Neighbours: `rtcore/csrc/<core>/` (the kernels), `rtcore/streams.py` (what they read), `rtcore/_build.py` (CORES),
`test_everywhere.py` (each target's own kernels against the oracle).
"""

import shutil
import subprocess

import numpy as np
import pytest

from bits import assert_equal_bits
from firmware_sim import Simulator
from firmware_sim.toolchain import TARGETS, build_firmware
from nets import Builder, random_frames, random_initial, random_tables
from quantize import QuantizeError
from quantize.emit_c import kernel_files, render
from rtcore import _build, streams
from rtcore.packing import PackedStream, pack_dense, pack_matrix
from rtcore.streams import STREAMS
from rtcore.tables import ACTIVATIONS

OWN = [name for name, target in TARGETS.items() if target.core != "portable"]
ONE_OF_A_KIND = {TARGETS[name].core: name for name in reversed(OWN)}  # core -> a target
WIDTHS = (*range(1, 19), 24, 31, 32, 33, 63, 64, 65, 66, 130)


def dense(rng, columns, bits, acc):
    """One linear layer of a width that leaves remainders everywhere."""
    b = Builder(rng)
    y = b.tensor("y0", 5, 11, "output", index=0)
    b.outputs.append(y)
    b.dense(b.input(columns), 5, "linear", bits, acc, into=y)
    return b.tables()


def linear_layers(matrices, skip=0):
    """Linear layers (weights, bias, mult, shift, accumulator bits) side by side, each over as many elements of one
    input from element `skip` on as it has columns."""
    b = Builder(np.random.default_rng(0))
    x = b.input(max(weights.shape[1] for weights, *_ in matrices) + skip)
    y = b.tensor("y0", sum(len(weights) for weights, *_ in matrices), 11, "output", index=0)
    b.outputs.append(y)
    offset = 0
    for k, (weights, bias, mult, shift, acc) in enumerate(matrices):
        rows, columns = weights.shape
        part = b.tensor(f"y0[{k}]", rows, 11, "alias", owner=y, offset=offset)
        arrays = {"weights": weights, "bias": bias, "mult": mult, "shift": shift}
        dtypes = {"weights": weights.dtype, "bias": np.int64, "mult": np.int16, "shift": np.uint8}
        arrays = {name: np.broadcast_to(array, (rows, *np.shape(array)[1:])) for name, array in arrays.items()}
        arrays = {name: np.ascontiguousarray(array).astype(dtypes[name]) for name, array in arrays.items()}
        ints = {"nb_inputs": columns, "nb_neurons": rows, "activation": ACTIVATIONS["linear"], "acc_bits": acc}
        b.emit("dense_i16", (b.slice(x, skip, columns),), part, ints, arrays)
        offset += rows
    return b.tables()


def extremes(rng, columns):
    """Frames: noise, all of either end, and the ends mixed."""
    frames = rng.integers(-32768, 32768, (6, columns)).astype(np.int16)
    frames[0], frames[1] = 32767, -32768
    frames[2] = rng.choice([-32768, 32767], columns)
    frames[3] = rng.integers(-300, 301, columns)
    return frames


def agree(tables, target, seed):
    """The target's own kernels give the host's bits at the extremes. Returns the matrices' forms, None for tables."""
    frames = extremes(np.random.default_rng(seed), tables.tensors[tables.inputs[0]].width)
    host, own = Simulator(tables).run_raw(frames), Simulator(tables, target).run_raw(frames)
    assert_equal_bits(host, own, f"{target}'s own kernels", seed)
    return [getattr(pack_dense(layer, TARGETS[target].core)[0], "form", None) for layer in tables.layers]


@pytest.mark.parametrize("target", ONE_OF_A_KIND.values())
def test_every_remainder_of_the_loops_gives_the_portable_bits(target):
    """Every width of weights and of sums, with and without multipliers."""
    for bits, acc in ((8, 32), (8, 64), (16, 32), (16, 64)):
        b = Builder(np.random.default_rng(bits + acc))
        records = [b.rows(5, columns, 12.5, bits, columns % 2 == 0, acc) for columns in WIDTHS]
        agree(linear_layers([(*record.values(), acc) for record in records]), target, acc)


@pytest.mark.parametrize("skip", [0, 1])  # 1: x does not lie on a word
@pytest.mark.parametrize("saturating", [False, True])
@pytest.mark.parametrize("target", ONE_OF_A_KIND.values())
def test_full_scale_rows_of_every_width(target, saturating, skip):
    """Weights and inputs at the ends of their ranges; with rows that cannot leave int32, and with rows that do."""
    rng, matrices = np.random.default_rng(skip), []
    for bits, top in ((8, 127), (16, 32767)):
        for columns in WIDTHS:
            weights = rng.choice([-top, top, 1, 0], (9, columns), p=[0.4, 0.4, 0.1, 0.1]).astype(f"i{bits // 8}")
            weights[0], weights[1] = top, -top
            mult = rng.integers(16384, 32768, 9) if bits == 8 else np.ones(9)
            shift = rng.integers(2, 6, 9) if saturating else rng.integers(18, 26, 9)
            matrices.append((weights, rng.integers(-(2**20), 2**20, 9), mult, shift, 32 if bits == 8 else 64))
    forms = agree(linear_layers(matrices, skip), target, skip)
    if TARGETS[target].core not in STREAMS:
        assert not any(forms)
        return
    assert all(forms) and {form & ~streams.BOUNDED for form in forms} == {streams.W16_A64, streams.W8_A32}
    unbounded = [not form & streams.BOUNDED for form in forms]
    assert any(unbounded) if saturating else not any(unbounded)


@pytest.mark.parametrize("target", ONE_OF_A_KIND.values())
def test_every_shift_and_the_ends_of_the_rounding(target):
    """Shifts 0..62 with sums about 2^shift, also those that no stream holds."""
    rng, matrices = np.random.default_rng(0), []
    for shift in (*range(36), 47, 48, 61, 62):
        for bits, acc in ((16, 64), (8, 32), (8, 64)):
            large = 2 ** min(shift + 30, 44) if acc == 64 else 2**29
            bias = np.concatenate([rng.integers(-large, large, 5), [large, -large, 0]])
            mult = np.ones(8) if bits == 16 else rng.integers(1, 32768, 8)
            weights = rng.integers(-120, 121, (8, 10)).astype(f"i{bits // 8}")
            matrices.append((weights, bias, mult, np.full(8, shift), acc))
    forms = agree(linear_layers(matrices), target, 0)
    assert None in forms and (TARGETS[target].core not in STREAMS or any(forms))


@pytest.mark.parametrize("target", ONE_OF_A_KIND.values())
def test_minus_128_beside_any_weight(target):
    """Row pairs of int8 weights in one number: -128 above a negative weight does not fit, and is stored another way;
    too many of them go to the portable kernels. Groups with none, some and different numbers of them; rows that
    saturate and rows that do not; x on a word and beside it."""
    values = np.array([-128, -127, -1, 0, 1, 127])
    upper, lower = (grid.reshape(-1) for grid in np.meshgrid(values, values))
    weights = np.stack([lower, upper, upper, lower]).astype(np.int8)
    bias = np.array([-1000, 1000, 0, 7])
    matrices = [
        (rows, bias, np.full(4, mult), np.full(4, shift), 32)
        for mult, shift in ((1, 8), (20000, 20))
        for rows in (weights, np.maximum(weights, -127))
    ]
    rng = np.random.default_rng(128)
    for columns, chance in ((1, 0.5), (7, 0.3), (31, 0.05), (90, 0.02), (300, 1.0)):
        rows = rng.integers(-127, 128, (13, columns))
        rows = np.where(rng.random(rows.shape) < chance, -128, rows).astype(np.int8)
        for mult, shift in ((1, 6), (128, 0), (20000, 20)):
            matrices.append((rows, rng.integers(-1000, 1000, 13), np.full(13, mult), np.full(13, shift), 32))
    forms = agree(linear_layers(matrices), target, 0)
    if TARGETS[target].core == "cortex-m4":
        assert forms[-1] is None and None not in forms[:-3]


@pytest.mark.parametrize("target", OWN)
@pytest.mark.parametrize("seed", [3, 12])
def test_own_and_portable_kernels_agree_on_whole_nets(target, seed):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, 60)
    frames = random_frames(rng, tables, 4)
    arguments = (*frames, *(random_initial(rng, tables) or []))
    runs = [Simulator(tables, target, core=core) for core in (None, "portable")]
    for simulator in runs:
        simulator.run_raw(arguments if len(arguments) > 1 else frames[0])
    for name, a, b in zip(tables.outputs, runs[0].last_run.outputs, runs[1].last_run.outputs, strict=True):
        assert_equal_bits(a[0], b[0], f"{target}, output {name}", seed)
    assert (runs[0].instructions < runs[1].instructions).all()


@pytest.mark.parametrize("core", STREAMS)
def test_a_stream_is_packed_where_a_core_reads_it_and_tables_elsewhere(core):
    weights = np.full((4, 3), 5, np.int16)
    bias, mult = np.zeros(4, np.int64), np.ones(4, np.int16)
    packed = pack_matrix(weights, bias, mult, np.full(4, 10, np.uint8), 64, core=core)
    assert isinstance(packed, PackedStream) and packed.form == streams.W16_A64 + streams.BOUNDED
    assert packed.stride * (packed.nb_rows // 4) == packed.nbytes == packed.stream.nbytes
    for other in (40, 0):  # shifts that no kernel of a stream takes
        assert not isinstance(
            pack_matrix(weights, bias, mult, np.full(4, other, np.uint8), 64, core=core), PackedStream
        )


def test_a_core_that_does_not_fit_is_named():
    tables = dense(np.random.default_rng(0), 4, 8, 32)
    with pytest.raises(QuantizeError, match="unknown core 'cortex-m99'; kernels exist for portable, cortex-m4"):
        render(tables, "net", core="cortex-m99")
    with pytest.raises(QuantizeError, match="cortex-m0 does not run the kernels of 'cortex-m4'"):
        build_firmware(tables, "cortex-m0", core="cortex-m4")


def test_generated_tables_are_aligned_for_the_core_that_needs_it():
    tables = linear_layers([(np.ones((4, 3), np.int16), np.zeros(4), np.ones(4), np.full(4, 10), 64)])
    files = {core: render(tables, "net", core=core) for core in ("portable", "cortex-m0", "cortex-m4")}
    assert b"aligned" not in files["portable"]["net_weights.h"]
    assert b"__attribute__((aligned(4))) int16_t" in files["cortex-m0"]["net_weights.h"]
    assert b"__attribute__((aligned(4))) int32_t" in files["cortex-m4"]["net_weights.h"]


@pytest.mark.parametrize("core", [core for core in _build.CORES if core != "portable"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_kernels_assemble_with_gcc_and_with_clang(core, compiler, tmp_path):
    """Without a warning. The emulated firmware is zig's clang."""
    flags = {
        "cortex-m0": ("-mcpu=cortex-m0", "-mthumb"),
        "cortex-m3": ("-mcpu=cortex-m3", "-mthumb"),
        "cortex-m4": ("-mcpu=cortex-m4", "-mthumb"),
        "rv32imc": ("-march=rv32imc", "-mabi=ilp32"),
    }[core]
    arm = core.startswith("cortex")
    if compiler == "gcc":
        command = ["arm-none-eabi-gcc" if arm else "riscv64-unknown-elf-gcc"]
    else:
        command = ["clang", "--target=" + ("thumbv7em-none-eabi" if arm else "riscv32-unknown-elf")]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    for file in kernel_files(core):
        (tmp_path / file).write_bytes(_build.kernel_path(file, core).read_bytes())
    for source in sorted(tmp_path.glob("*.c")):
        done = subprocess.run(
            [*command, *flags, "-O2", "-ffreestanding", *_build.WARNINGS, "-c", source.name, "-o", f"{source.stem}.o"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{core}, {source.name}:\n{done.stderr}"
