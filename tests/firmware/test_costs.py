"""`analyze`: its figures are those of the image, of the emulator and of the published timings, and add up.

Neighbours: `firmware_sim/costs.py`, `timing.py` and `costs_report.py` (what is tested), `test_worst_stack.py`
(the stacks), `test_cli.py` (the command).
"""

import dataclasses
import json
import struct

import numpy as np
import pytest

from boards import M55, on
from firmware_sim import costs_report
from firmware_sim.costs import FRAMES, Budget, _priced, analyze, judged, memory_map
from firmware_sim.disassembly import Code
from firmware_sim.engines import McuEngine, board_of
from firmware_sim.stack import StackError, StackReader
from firmware_sim.timing import TIMINGS
from firmware_sim.toolchain import TARGETS, api, build_firmware
from graphs import gru_graph
from nets import Builder, function_net, gru_net, memory_net, random_tables, rnnoise_net
from quantize import QuantizeError, quantize_graph
from quantize.golden import golden_vectors
from window_nets import option_net

for module in ("ziglang", "unicorn", "elftools", "capstone"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 29


def rng():
    return np.random.default_rng(SEED)


# ---------------------------------------------------------------------------------------------------------- timing --

TAKEN, ON = True, False
PRICES = {  # target -> [(halfwords, whether the last one leaves, cycles at the least and at the most)]
    "cortex-m4": [
        ((0x1840,), ON, (1, 1)),  # adds r0, r0, r1
        ((0x4348,), ON, (1, 1)),  # muls r0, r1
        ((0xFBC0, 0x1203), ON, (1, 1)),  # smlal r1, r2, r0, r3
        ((0xFB90, 0xF0F1), ON, (2, 12)),  # sdiv r0, r0, r1
        ((0x6808,), ON, (2, 2)),  # ldr r0, [r1]
        ((0x6808, 0x684A), ON, (3, 3)),  # ldr r0, [r1]; ldr r2, [r1, #4]: the second is pipelined
        ((0x6808, 0x6842), ON, (4, 4)),  # ldr r0, [r1]; ldr r2, [r0, #4]: it needs the first one's result
        ((0x6008,), ON, (1, 1)),  # str r0, [r1]
        ((0x5088,), ON, (2, 2)),  # str r0, [r1, r2]
        ((0xCC0F,), ON, (5, 5)),  # ldm r4!, {r0-r3}
        ((0xE9D0, 0x1200), ON, (3, 3)),  # ldrd r1, r2, [r0]
        ((0xB57F,), ON, (9, 9)),  # push {r0-r6, lr}
        ((0xBD70,), TAKEN, (6, 8)),  # pop {r4-r6, pc}
        ((0xD1FE,), ON, (1, 1)),  # bne
        ((0xD1FE,), TAKEN, (2, 4)),
        ((0x4770,), TAKEN, (2, 4)),  # bx lr
        ((0xBF08, 0x2001), ON, (1, 2)),  # it eq; moveq r0, #1: it may be folded
    ],
    "cortex-m3": [
        ((0xFB00, 0x3102), ON, (2, 2)),  # mla r1, r0, r2, r3
        ((0xFBC0, 0x1203), ON, (4, 7)),  # smlal
        ((0xFB80, 0x1203), ON, (3, 5)),  # smull
        ((0x6808,), ON, (2, 2)),
        ((0xD1FE,), TAKEN, (2, 4)),
    ],
    "cortex-m0": [
        ((0x4348,), ON, (1, 1)),  # muls
        ((0x6808, 0x684A), ON, (4, 4)),  # two loads
        ((0xCC0F,), ON, (5, 5)),
        ((0xB57F,), ON, (9, 9)),
        ((0xBD70,), TAKEN, (6, 8)),
        ((0xD1FE,), ON, (1, 1)),
        ((0xD1FE,), TAKEN, (2, 3)),
        ((0xF000, 0xF800), TAKEN, (3, 4)),  # bl
        ((0x4770,), TAKEN, (2, 3)),
    ],
    "rv32imc": [
        ((0x952E,), ON, (1, 1)),  # add a0, a0, a1
        ((0x4108,), ON, (2, 2)),  # lw a0, 0(a0)
        ((0xC188,), ON, (2, 2)),  # sw a0, 0(a1)
        ((0x0533, 0x02B5), ON, (1, 3)),  # mul a0, a0, a1
        ((0x1533, 0x02B5), ON, (2, 4)),  # mulh a0, a0, a1
        ((0x4533, 0x02B5), ON, (2, 38)),  # div a0, a0, a1
        ((0xFD7D,), ON, (1, 1)),  # bnez a0
        ((0xFD7D,), TAKEN, (3, 3)),
        ((0x8082,), TAKEN, (2, 2)),  # ret
    ],
}
PRICES[M55] = [
    ((0x1840,), ON, (1, 1)),  # adds r0, r0, r1
    ((0x6808,), ON, (1, 2)),  # ldr r0, [r1]
    ((0xECB1, 0x0E88), ON, (1, 2)),  # vldrh.u16 q0, [r1], #16
    ((0xECB1, 0x0E88, 0xECB0, 0x2E88), ON, (3, 4)),  # and vldrb.s16 q1, [r0], #8: both need the memory
    ((0xECB0, 0x2E88, 0xEEF0, 0x4E22), ON, (2, 5)),  # vldrb.s16 q1, [r0], #8; vmladava.s16 r4, q0, q1
    ((0xEC18, 0x0F04), ON, (1, 2)),  # vmov q0[2], q0[0], r4, r8
    ((0xFC90, 0x2F41), ON, (2, 4)),  # vldrw.u32 q1, [r0, q0, uxtw #2]
    ((0xFF22, 0x0B40), ON, (1, 3)),  # vqrdmulh.s32 q0, q1, q0
    ((0xED2D, 0x8B10), ON, (8, 17)),  # vpush {d8-d15}
    ((0xEA54, 0x152D), ON, (1, 2)),  # asrl r4, r5, r1
    ((0xEA56, 0xE72D), ON, (1, 2)),  # asrl r6, r7, lr
    ((0xEA5C, 0x611F), ON, (1, 2)),  # lsrl r12, r1, #24
    ((0xEA50, 0x8101), ON, (1, 1)),  # csel r1, r0, r1, eq
    ((0xEA5F, 0x901F), ON, (1, 1)),  # cset r0, ne
    ((0xE8B0, 0x0FF0), ON, (4, 9)),  # ldm r0!, {r4-r11}
    ((0xF012, 0xE001), ON, (1, 1)),  # dlstp.16 lr, r2
    ((0xF01F, 0xC00D), TAKEN, (0, 4)),  # letp lr, back
    ((0xF01F, 0xC00D), ON, (0, 1)),
    ((0xBDF0,), TAKEN, (4, 9)),  # pop {r4-r7, pc}
    ((0xD1FC,), TAKEN, (2, 4)),  # bne
]
PRICES["cortex-m7"] = PRICES["cortex-m33"] = PRICES["cortex-m4"]


@pytest.mark.parametrize("target", on(*TIMINGS))
def test_instructions_cost_what_the_manuals_say(target):
    board = board_of(build_firmware(gru_net(rng(), 3, 5, 2, 8, 32), target))
    place = board.symbol("net_check").address
    for code, left, expected in PRICES[target]:
        board.write(place, struct.pack(f"<{len(code)}H", *code))
        run = Code(board).run(place, 2 * len(code))
        assert TIMINGS[target].block(run, left) == expected, f"{target}: {[x.text for x in run]}"


def test_a_jump_right_behind_itself_is_a_jump():
    """Within one run of QEMU's, between two blocks of unicorn's."""
    board = board_of(build_firmware(gru_net(rng(), 3, 5, 2, 8, 32), "cortex-m4"))
    place, timing = board.symbol("net_check").address, TIMINGS["cortex-m4"]
    board.write(place, struct.pack("<3H", 0x1840, 0xE7FF, 0x1840))  # adds r0, r0, r1; b on; adds r0, r0, r1
    code = Code(board)
    assert [(len(run), jumps) for run, jumps in code.executed(place, 6)] == [(2, True), (1, False)]
    for blocks in ({(place, 6, False): 5}, {(place, 4, False): 5, (place + 4, 2, False): 5}):
        assert _priced(code, timing, blocks) == (15, (5 * 4, 5 * 6))
    assert _priced(code, timing, {(place, 6, True): 1}) == (3, (5, 9))


def test_every_target_has_a_timing():
    assert TIMINGS.keys() == {*TARGETS, M55}
    assert all(timing.source for timing in TIMINGS.values())


# ------------------------------------------------------------------------------------------------------- adding up --


def nets():
    found = {
        "memory": memory_net(rng(), 8, 64),
        "functions": function_net(rng(), 5, 1),
    }
    return found | {f"random {seed}": random_tables(np.random.default_rng(seed)) for seed in (0, 2, 6)}


@pytest.mark.parametrize("target", on(*TIMINGS))
def test_instructions_are_those_of_the_emulator(target):
    """Layer by layer they add up to what a step of the very frames executes, and every block is decoded whole."""
    for what, tables in nets().items():
        (cost,) = analyze(tables, [target]).cores
        engine = McuEngine(tables, build_firmware(tables, target))
        golden = golden_vectors(tables, FRAMES)
        if golden.initial:
            engine.set_initial(golden.initial)
        counts = [int(engine.step([x[t] for x in golden.inputs])[1][0]) for t in range(FRAMES)]
        assert cost.instructions in counts, f"{what}: {cost.instructions}, the frames take {counts}"
        parts = [*cost.layers, cost.step]
        assert cost.instructions == sum(part.instructions for part in parts)
        assert cost.cycles == tuple(sum(part.cycles[k] for part in parts) for k in (0, 1))
        assert cost.instructions * 0.8 < cost.cycles[0] <= cost.cycles[1] < 4 * cost.instructions, what
        assert [part.name for part in cost.layers] == [layer.name for layer in tables.layers]
        assert all(part.instructions > 5 for part in parts) and cost.equal and not cost.problems


@pytest.mark.parametrize("target", on(M55))
def test_kernels_that_jump_right_behind_themselves_are_counted_whole(target, monkeypatch):
    monkeypatch.setattr("firmware_sim.costs.ENOUGH", 1)
    tables = option_net(rng(), 16, 64, ("1x1 in groups",))
    engine, golden = McuEngine(tables, build_firmware(tables, target)), golden_vectors(tables, FRAMES)
    if golden.initial:
        engine.set_initial(golden.initial)
    _, counted = engine.step([x[0] for x in golden.inputs])
    (cost,) = analyze(tables, [target]).cores
    assert cost.instructions == counted[0]


def test_macs_are_those_of_the_matrices():
    (cost,) = analyze(rnnoise_net(rng(), 8, 32)).cores
    assert cost.macs == 42 * 24 + 3 * 24 * 48 + 3 * 48 * 138 + 3 * 96 * 210 + 96 * 22 == 86_928
    assert [part.macs for part in cost.layers if part.kind == "rescale"] == [0] * 6
    b = Builder(rng())
    b.output(b.lstm(b.input(5), 7, 3))
    (cost,) = analyze(b.tables()).cores
    assert cost.macs == 4 * 7 * (5 + 3) + 7 * 3


@pytest.mark.parametrize("target", on(*TIMINGS))
def test_sizes_are_those_of_the_image(target):
    for what, tables in nets().items():
        (cost,) = analyze(tables, [target]).cores
        board = board_of(build_firmware(tables, target))
        sizes, flash, ram = board.sizes(), cost.flash, cost.ram
        assert flash.total == sizes.flash == flash.weights + flash.tables + flash.net + flash.kernels + flash.library
        local = [
            s for s in board.symbols.values() if not s.function and not s.name.startswith(("board_", "rtcore_", "net_"))
        ]
        shared = ("sigma_table", "exp2_table", "log2_table")
        weights = sum(s.size for s in {s.address: s for s in local}.values() if not s.name.endswith(shared))
        assert flash.weights == weights == sum(part.tables for part in cost.layers), what
        own = board.symbol("rtcore_sigma_table").size if "rtcore_sigma_table" in board.symbols else 0
        assert own + board.symbol("net_default_weights").size <= flash.tables
        assert ram.stream == sizes.ram == ram.state + ram.arena + ram.scratch + ram.other and 0 <= ram.other < 64, what
        assert flash.net == sum(s.size for s in board.symbols.values() if s.function and s.name.startswith("net_"))
        assert flash.kernels > 500 and flash.library >= 0


def test_stacks_are_read_and_painted(monkeypatch):
    (cost,) = analyze(rnnoise_net(rng(), 16, 64), ["cortex-m4"]).cores
    assert 0 < cost.stack.painted <= cost.stack.worst <= 800 and cost.stack.chain[0] == "net_step"

    def unbounded(self, function):
        raise StackError(f"{function}: no bound of its stack")

    monkeypatch.setattr(StackReader, "worst", unbounded)
    (other,) = (found := analyze(rnnoise_net(rng(), 16, 64), ["cortex-m4"])).cores
    assert other.stack.worst is None and other.stack.painted == cost.stack.painted
    assert "no bound" in " ".join(s.note for s in costs_report.sections(found))


@pytest.mark.parametrize("target", on("cortex-m0", "cortex-m3", "cortex-m4", M55, "rv32imc"))
def test_what_reads_tables_counts_where_a_matrix_is_none_of_streams(target):
    streams = rnnoise_net(rng(), 8, 32)
    *others, last = streams.layers
    wide = {"weights": last.arrays["weights"].astype(np.int16), "mult": np.full_like(last.arrays["mult"], 3)}
    mixed = dataclasses.replace(streams, layers=(*others, dataclasses.replace(last, arrays=last.arrays | wide)))
    for tables, reached in ((streams, False), (mixed, True)):
        (cost,) = analyze(tables, [target]).cores
        board = board_of(build_firmware(tables, target))
        reader = StackReader(board, Code(board))
        whole = max(reader.worst(f"net_{function}").bytes for function in api(tables))
        assert 0 < cost.stack.painted <= cost.stack.worst <= whole and cost.equal
        assert ("rtcore_matrix_i16_tables_rows" in cost.stack.chain, cost.stack.worst == whole) == (reached, reached)


# ------------------------------------------------------------------------------------------------------- the arena --


@pytest.mark.parametrize("seed", range(12))
def test_no_two_tensors_share_bytes_while_both_live(seed):
    tables = quantized(seed).tables if seed < 4 else random_tables(np.random.default_rng(seed))
    places = memory_map(tables)
    assert {place.tensor for place in places} <= {t.name for t in tables.tensors.values() if t.place == "arena"}
    assert max((p.offset + p.size for p in places), default=0) <= 2 * tables.arena
    for i, a in enumerate(places):
        assert 0 <= a.first <= a.last < len(tables.layers)
        for b in places[:i]:
            apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
            assert apart or a.last < b.first or b.last < a.first, f"{a} and {b}"


def test_the_map_is_that_of_the_layers():
    """dense -> t0 (read by the second and the third layer), concat of two copies, dense into the output."""
    b = Builder(rng())
    t = b.dense(b.input(6), 4)
    both = b.concat([t, t])
    b.output(b.dense(both, 3))
    tables = b.tables()
    spans = {place.tensor: (place.offset, place.size, place.first, place.last) for place in memory_map(tables)}
    assert spans[t] == (0, 8, 0, 2) and spans[both] == (8, 16, 1, 3)


# ---------------------------------------------------------------------------------------------------- pass or fail --


def quantized(seed=SEED):
    generator = np.random.default_rng(seed)
    return quantize_graph(gru_graph(generator, 4, 6), [generator.standard_normal((1, 9, 4))])


def test_budgets():
    found = analyze(quantized(), ["cortex-m4"], Budget(clock_hz=1e6, frame_s=0.01))
    (cost,) = found.cores
    assert found.ok and cost.load == (cost.cycles[0] / 1e4, cost.cycles[1] / 1e4)
    limit = cost.cycles[1] / 1e4
    ram = cost.ram.stream + cost.ram.io + cost.stack.worst
    for budget, words in (
        (Budget(1e6, 0.01, load=limit), ""),
        (Budget(1e6, 0.01, load=limit * 0.999), "of a frame"),
        (Budget(flash=cost.flash.total), ""),
        (Budget(flash=cost.flash.total - 1), "bytes of flash"),
        (Budget(ram=ram), ""),
        (Budget(ram=ram - 1), "bytes of RAM"),
        (Budget(1e6, 0.01, load=0.001, flash=1, ram=1), "of a frame.*flash.*RAM"),
    ):
        problems = " ".join(judged(cost, budget).problems)
        assert bool(problems) == bool(words), (budget, problems)
        for word in words.split(".*"):
            assert word in problems


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        (Budget(clock_hz=1e6), "both"),
        (Budget(frame_s=0.01), "both"),
        (Budget(0, 0.01), "clock 0"),
        (Budget(1e6, float("nan")), "frame period nan"),
        (Budget(1e6, 0.01, load=-1), "load -1"),
        (Budget(flash=0), "flash 0"),
        (Budget(ram=-4), "RAM -4"),
    ],
)
def test_budgets_that_are_none(budget, why):
    with pytest.raises(QuantizeError, match=why):
        analyze(quantized(), ["cortex-m4"], budget)


def test_unknown_targets_and_cores():
    with pytest.raises(QuantizeError, match="unknown target 'host'"):
        analyze(quantized(), ["host"])
    with pytest.raises(QuantizeError, match="unknown core 'z80'"):
        analyze(quantized(), ["cortex-m4"], core="z80")
    with pytest.raises(QuantizeError, match="no target"):
        analyze(quantized(), [])


@pytest.mark.parametrize("what", ["outputs", "states"])
def test_other_bits_fail(what, monkeypatch):
    """Golden vectors of which one bit is wrong: the firmware does not give them."""

    def wrong(tables, steps):
        golden = golden_vectors(tables, steps)
        changed = [array.copy() for array in getattr(golden, what)]
        changed[0].flat[-1] ^= 1
        return dataclasses.replace(golden, **{what: changed})

    monkeypatch.setattr("firmware_sim.costs.golden_vectors", wrong)
    found = analyze(quantized(), ["cortex-m3"])
    assert not found.ok and not found.cores[0].equal and found.cores[0].problems == ("golden bits differ",)
    assert "DIFFER" in str(costs_report.sections(found)) and "golden bits differ" in costs_report.verdict(found)


def test_the_targets_own_kernels_unless_told_otherwise():
    tables = rnnoise_net(rng(), 16, 64)
    (own,), (portable,) = (analyze(tables, ["cortex-m4"], core=core).cores for core in (None, "portable"))
    assert (own.kernels, portable.kernels) == (TARGETS["cortex-m4"].core, "portable")
    assert own.instructions < portable.instructions


def test_long_steps_are_analyzed_with_fewer_frames(monkeypatch):
    monkeypatch.setattr("firmware_sim.costs.ENOUGH", 1)
    (cost,) = analyze(quantized()).cores
    assert cost.frames == 1 and cost.equal


# --------------------------------------------------------------------------------------------------------- reports --


def test_json_holds_everything():
    found = analyze(quantized(), ["cortex-m0", "rv32imc"], Budget(48e6, 0.01))
    document = json.loads(found.to_json())
    assert document["ok"] and "zero wait states" in document["cycles"] and len(document["digest"]) == 64
    assert [core["target"] for core in document["cores"]] == ["cortex-m0", "rv32imc"]
    for core, cost in zip(document["cores"], found.cores, strict=True):
        assert core["cycles"] == list(cost.cycles) and core["flash"]["total"] == cost.flash.total
        assert core["stack"]["worst"] == cost.stack.worst and core["timing"] == cost.timing
        assert [layer["instructions"] for layer in core["layers"]] == [layer.instructions for layer in cost.layers]


def test_the_picture_is_one():
    pytest.importorskip("matplotlib", reason="the picture is an optional extra: rtcore[report]")
    found = analyze(rnnoise_net(rng(), 8, 32), ["cortex-m0", "cortex-m4"], Budget(16e6, 0.01))
    assert costs_report.to_png(found).startswith(b"\x89PNG") and found.places
