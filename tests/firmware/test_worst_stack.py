"""The worst stack read from machine code: never below what a painted stack shows, exact where the chain is run, refused
where there is no bound.

Neighbours: `firmware_sim/stack.py` and `disassembly.py` (what is tested), `test_stack.py` (gcc's frames).
"""

import dataclasses
import itertools
import struct
from collections import Counter

import numpy as np
import pytest

from boards import M55, needs_qemu, on
from firmware_sim.architectures import RISCV32, THUMB
from firmware_sim.disassembly import Code
from firmware_sim.engines import McuEngine, board_of
from firmware_sim.stack import Stack, StackError, StackReader
from firmware_sim.toolchain import TARGETS, api, build_firmware, find_target
from nets import function_net, gru_net, memory_net, random_frames, random_tables, rnnoise_net
from quantize.emit_c import unreached
from rtcore.packing import PackedStream, pack_depthwise
from window_nets import option_net

for module in ("ziglang", "unicorn", "elftools", "capstone"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 83
FAMILIES = ("cortex-m4", "rv32imc")
GROUPED = ("1x1", "in groups", "1x1 in groups")  # window_nets.OPTIONS of six and eight channels


def assembled(target, halfwords):
    """A reader of a firmware one of whose functions, "code", is hand-written."""
    board = board_of(build_firmware(gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32), target))
    code = halfwords[board.architecture] if isinstance(halfwords, dict) else halfwords
    room = board.symbol("net_check")
    start = room.address + 3 & ~3  # as Thumb's ADR counts
    assert start + 2 * len(code) <= room.address + room.size
    del board.symbols["net_check"]
    board.symbols["code"] = dataclasses.replace(room, name="code", address=start, size=2 * len(code))
    board.write(start, struct.pack(f"<{len(code)}H", *code))
    return board, StackReader(board, Code(board))


KNOWN = {
    "leaf": ({THUMB: (0x4770,), RISCV32: (0x8082,)}, 0),
    # push {r4-r7, lr}; sub sp, #8; str r0, [sp]; add sp, #8; pop {r4-r7, pc}
    # addi sp, sp, -32; sw ra, 28(sp); sw a0, 0(sp); addi sp, sp, 32; ret
    "frame": (
        {THUMB: (0xB5F0, 0xB082, 0x9000, 0xB002, 0xBDF0), RISCV32: (0x1101, 0xCE06, 0xC02A, 0x6105, 0x8082)},
        {THUMB: 28, RISCV32: 32},
    ),
    # cbz r0, out; push {r4, lr}; pop {r4, pc}; out: bx lr        beqz a0, out; sp -= 32; sp += 32; ret; out: ret
    "a branch around": (
        {THUMB: (0xB108, 0xB510, 0xBD10, 0x4770), RISCV32: (0xC501, 0x1101, 0x6105, 0x8082, 0x8082)},
        {THUMB: 8, RISCV32: 32},
    ),
}


@pytest.mark.parametrize("target", FAMILIES)
@pytest.mark.parametrize("case", KNOWN)
def test_known_frames(case, target):
    code, expected = KNOWN[case]
    board, reader = assembled(target, code)
    expected = expected if isinstance(expected, int) else expected[board.architecture]
    assert reader.worst("code").bytes == reader.frame("code") == expected
    assert reader.worst("code").chain == ("code",)


def test_forms_of_thumb():
    """Every way in which compilers and assembly move the stack pointer, and returns that depend on a condition."""
    code = (
        0xE92D, 0x41F0,  # push.w {r4-r8, lr}      24
        0xF84D, 0x0D04,  # str r0, [sp, #-4]!      28
        0xF5AD, 0x7D80,  # sub.w sp, sp, #256      284
        0xE9CD, 0x0100,  # strd r0, r1, [sp]
        0xF50D, 0x7D80,  # add.w sp, sp, #256
        0xF85D, 0x0B04,  # ldr r0, [sp], #4
        0x2800,          # cmp r0, #0
        0xBF08,          # it eq
        0xE8BD, 0x81F0,  # popeq.w {r4-r8, pc}
        0xE92D, 0x000F,  # push.w {r0-r3}          40, with the 24
        0xB004,          # add sp, #16
        0xE8BD, 0x81F0,  # pop.w {r4-r8, pc}
    )  # fmt: skip
    assert assembled("cortex-m4", code)[1].worst("code").bytes == 284


def test_a_conditional_return_unwinds_its_stack_and_what_goes_on_keeps_it():
    code = (
        0xB510,  # push {r4, lr}     8
        0xB085,  # sub sp, #20       28
        0x2800,  # cmp r0, #0, where the loop begins
        0xBF04,  # itt eq
        0xB005,  # addeq sp, #20
        0xBD10,  # popeq {r4, pc}
        0xE7FA,  # b to the loop
    )
    assert assembled("cortex-m4", code)[1].worst("code").bytes == 28
    lone = (0xB085, 0x2800, 0xBF08, 0xB005, 0x4770)  # sub sp, #20; cmp r0, #0; it eq; addeq sp, #20; bx lr
    with pytest.raises(StackError, match="under a condition"):
        assembled("cortex-m4", lone)[1].worst("code")


@pytest.mark.parametrize(
    ("unwind", "bytes_"),
    [
        ((0xBF04, 0xB005, 0xBD10), 28),  # itt eq; addeq sp, #20; popeq {r4, pc}
        ((0xBF02, 0xB004, 0xB001, 0xBD10), 28),  # ittt eq; addeq sp, #16; addeq sp, #4; popeq {r4, pc}
        ((0xBF0C, 0xB005, 0xBD10), None),  # ite eq; addeq sp, #20; popne {r4, pc}
        ((0xBF0C, 0xB005, 0x4770), None),  # ite eq; addeq sp, #20; bxne lr
        ((0xBF06, 0xB004, 0xB001, 0xBD10), None),  # itte eq; addeq sp, #16; addeq sp, #4; popne {r4, pc}
        ((0xBF0A, 0xB004, 0xB001, 0xBD10), None),  # itet eq; addeq sp, #16; addne sp, #4; popeq {r4, pc}
        ((0xBF08, 0xB005, 0xBF18, 0xBD10), None),  # it eq; addeq sp, #20; it ne; popne {r4, pc}
        ((0xBF08, 0xB005, 0xBF18, 0x4770), None),  # it eq; addeq sp, #20; it ne; bxne lr
        ((0xBF04, 0xF11D, 0x0D14, 0xBD10), None),  # itt eq; addseq.w sp, sp, #20, which decides anew; popeq {r4, pc}
    ],
)
def test_a_stack_unwound_under_a_condition_returns_under_the_same(unwind, bytes_):
    code = (0xB510, 0xB085, 0x2800, *unwind, 0xB005, 0xBD10)  # push {r4, lr}; sub sp, #20; cmp r0, #0 ... the same
    _, reader = assembled("cortex-m4", code)
    if bytes_ is None:
        with pytest.raises(StackError, match="under a condition"):
            reader.worst("code")
    else:
        assert reader.worst("code").bytes == bytes_


def test_a_conditional_load_of_the_return_address_goes_on_too():
    code = (
        0xB500,          # push {lr}             4
        0x2800,          # cmp r0, #0
        0xBF08,          # it eq
        0xF85D, 0xFB04,  # ldreq pc, [sp], #4
        0xB40F,          # push {r0-r3}          20
        0xB004,          # add sp, #16
        0xF85D, 0xFB04,  # ldr pc, [sp], #4
    )  # fmt: skip
    assert assembled("cortex-m4", code)[1].worst("code").bytes == 20


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("target", on("cortex-m4", M55))
def test_a_conditional_jump_to_a_kept_address_goes_there_and_on(target, slot):
    """The deepest push stands where it goes on, then where it goes to; with no condition, nothing goes on."""
    vector = (0xECB1, 0x0E88) if target == M55 else (0xBF00, 0xBF00)  # vldrh.u16 q0, [r1], #16; nops
    for on_words, there_words, deepest in ((5, 1, 36), (1, 7, 44)):
        code = (
            0xB510,                     # push {r4, lr}             8
            0xB082,                     # sub sp, #8                16
            0xA004,                     # adr r0, there
            0x9000 | slot,              # str r0, [sp, #4 * slot]
            0x2900,                     # cmp r1, #0
            0xBF18,                     # it ne
            0xF8DD, 0xF000 | 4 * slot,  # ldrne pc, [sp, #4 * slot]
            0xB080 | on_words,          # sub sp, #4 * on_words
            0xB000 | on_words,          # add sp, #4 * on_words
            *vector,
            0xB080 | there_words,       # there: sub sp, #4 * there_words
            0xB000 | there_words,       # add sp, #4 * there_words
            0xB002,                     # add sp, #8
            0xBD10,                     # pop {r4, pc}
        )  # fmt: skip
        assert assembled(target, code)[1].worst("code").bytes == deepest
    always = (*code[:4], 0x2900, 0xBF00, *code[6:8], 0xB0FF, *code[9:])  # nop for it; sub sp, #508, never run
    assert assembled(target, always)[1].worst("code").bytes == deepest


@needs_qemu
def test_forms_of_helium():
    """Vectors on the stack, a stack pointer aligned for them, loops that end in LE."""
    code = (
        0xE92D, 0x41F0,  # push.w {r4-r8, lr}      24
        0xAF03,          # add r7, sp, #12
        0xED2D, 0x8B10,  # vpush {d8-d15}          88
        0xB09C,          # sub sp, #112            200
        0x466C,          # mov r4, sp
        0xF36F, 0x0403,  # bfc r4, #0, #4          212, at the most
        0x46A5,          # mov sp, r4
        0xF042, 0xC007,  # wls lr, r2, past the loop
        0xECB1, 0x0E88,  # vldrh.u16 q0, [r1], #16
        0xEC18, 0x0F04,  # vmov q0[2], q0[0], r4, r8
        0xF00F, 0xC007,  # le lr, back
        0xF1A7, 0x044C,  # sub.w r4, r7, #76       back to 88
        0x2000,          # movs r0, #0
        0x46A5,          # mov sp, r4
        0xECBD, 0x8B10,  # vpop {d8-d15}
        0xE8BD, 0x81F0,  # pop.w {r4-r8, pc}
    )  # fmt: skip
    assert assembled(M55, code)[1].worst("code").bytes == 212
    with pytest.raises(StackError, match="unknown amount"):
        assembled(M55, (0x46A5, 0x4770))[1].worst("code")  # mov sp, r4, whatever that is; bx lr


def test_a_far_jump_within_a_function_is_no_call():
    """Compilers for Thumb-1 write BL where B does not reach."""
    code = (
        0xB500,          # push {lr}              4
        0xF000, 0xF801,  # bl to the pop
        0xB082,          # sub sp, #8, never
        0xBD00,          # pop {pc}
    )  # fmt: skip
    assert assembled("cortex-m0", code)[1].worst("code").bytes == 4


def call(board, function):
    """bl from the second instruction of "code", behind one of two bytes."""
    offset = board.symbol(function).address - (board.symbol("code").address + 2) - 4
    s, i1, i2 = offset >> 24 & 1, offset >> 23 & 1, offset >> 22 & 1
    first = 0xF000 | s << 10 | offset >> 12 & 0x3FF
    return first, 0xD000 | (1 - (i1 ^ s)) << 13 | (1 - (i2 ^ s)) << 11 | offset >> 1 & 0x7FF


def test_chains_add_up_and_recursion_is_refused():
    board, _ = assembled("cortex-m4", (0xB500, 0xF000, 0xF800, 0xBD00))  # push {lr}; bl ?; pop {pc}
    for callee in ("rtcore_tanh_q15", "net_step", "code"):
        code = (0xB500, *call(board, callee), 0xBD00)
        board.write("code", struct.pack("<4H", *code))
        reader = StackReader(board, Code(board))
        if callee == "code":
            with pytest.raises(StackError, match="code -> code: recursion"):
                reader.worst("code")
        else:
            below = reader.worst(callee)
            assert reader.worst("code").bytes == 4 + below.bytes
            assert reader.worst("code").chain == ("code", *below.chain) and below.chain[0] == callee


def test_a_refusal_is_forgotten():
    _, reader = assembled("cortex-m4", (0xB500, 0x4798, 0xBD00))  # push {lr}; blx r3; pop {pc}
    below = reader.worst("rtcore_tanh_q15")
    for _ in range(2):
        with pytest.raises(StackError, match="register"):
            reader.worst("code")
    assert reader.worst("rtcore_tanh_q15") == below and reader.worst("net_step").bytes > below.bytes


def test_what_is_never_reached_counts_nothing():
    """By a call and by a jump; asked about itself, it has its bound; a name that no function has is no matter."""
    board, _ = assembled("cortex-m4", (0xB500, 0xF000, 0xF800, 0xBD00))  # push {lr}; bl ?; pop {pc}
    first, second = call(board, "net_step")
    for far in (second, second & ~0x4000):  # bl, b.w
        board.write("code", struct.pack("<4H", 0xB500, first, far, 0xBD00))
        whole, other = (StackReader(board, Code(board), never) for never in ((), ("net_step", "net_none")))
        below = whole.worst("net_step")
        assert whole.worst("code").bytes == 4 + below.bytes > 4
        assert other.worst("code") == Stack(4, ("code",)) and other.worst("net_step") == below


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ((0xB500, 0xE7FD), "reached"),  # push {lr}; b back
        ((0x4718,), "register"),  # bx r3
        ((0x4798, 0x4770), "register"),  # blx r3
        ((0xBF18, 0xF8DD, 0xF004, 0x4770), "register"),  # it ne; ldrne pc, [sp, #4]: no address was taken; bx lr
        ((0xB082, 0xA000, 0xF85D, 0xFF08, 0x4770), "register"),  # sub sp, #8; adr r0; ldr pc, [sp, #8]!; bx lr
        ((0x4685, 0x4770), "unknown amount"),  # mov sp, r0
        ((0x4485, 0x4770), "unknown amount"),  # add sp, r0
        ((0x2000,), "behind the end"),  # movs r0, #0, and nothing more
        ((0xE0FE,), "no function"),  # b into the middle of another
    ],
)
def test_what_has_no_bound_is_refused(code, why):
    _, reader = assembled("cortex-m4", code)
    with pytest.raises(StackError, match=f"code: .*{why}"):
        reader.worst("code")


@pytest.mark.parametrize("target", on(*TARGETS, M55))
def test_the_painted_stack_never_exceeds_the_worst(target):
    """Nets of every kind, asked about as `analyze` does: without the kernels that read tables where all are streams.
    Where the deepest chain does run, both are the same; but there is a path for either form of a matrix, of which a
    net may have but the shallower."""
    rng = np.random.default_rng(SEED)
    nets = {
        "gru": gru_net(rng, 5, 6, 3, 16, 64),
        "rnnoise": rnnoise_net(rng, 16, 64),
        "streams": rnnoise_net(rng, 8, 32),
        "functions": function_net(rng, 5, 1),
    }
    nets |= {f"memory {bits}": memory_net(rng, bits, 64) for bits in (8, 16)}
    nets |= {f"random {seed}": random_tables(np.random.default_rng(seed)) for seed in range(4)}
    nets |= {"convolutions": option_net(np.random.default_rng(SEED), 16, 64, GROUPED)}
    exact = Counter()
    for (what, tables), core in itertools.product(nets.items(), ("portable", None)):
        engine = McuEngine(tables, build_firmware(tables, target, core=core))
        board, never = engine.board, unreached(tables, core or find_target(target).core)
        reader = StackReader(board, Code(board), never)
        io = [address for address, _ in (*engine.inputs, *engine.outputs)]
        bound = reader.worst("net_step")
        painted = 0
        for frame in zip(*random_frames(rng, tables, 4), strict=True):
            for (address, _), values in zip(engine.inputs, frame, strict=True):
                board.write(address, values.tobytes())
            painted = max(painted, board.stack_used("net_step", engine.state, *io))
        assert 0 < painted <= bound.bytes, f"{what} on {target}: {painted} painted, {bound}"
        vectors = 128 * (target == M55)  # compiled for vectors, sums of four rows differ that much in their frames
        assert bound.bytes <= painted + 160 + vectors, f"{what} on {target}: {painted} painted, {bound}"
        exact[core] += painted == bound.bytes
        assert bound.chain[0] == "net_step" and len(bound.chain) > 2
        for function in api(tables):
            assert reader.worst(f"net_{function}").bytes <= 800
    assert min(exact["portable"], exact[None]) >= 1, f"{target}: the bound is never reached"


@pytest.mark.parametrize("target", on("cortex-m3", "cortex-m4", M55))
def test_depthwise_streams_have_a_bound(target):
    """Layers with a stream and layers without: no call of the kernel writes more stack than is read from it."""
    tables = option_net(np.random.default_rng(SEED), 16, 64, GROUPED)
    packed = [pack_depthwise(x, find_target(target).core)[0] for x in tables.layers if x.kind == "depthwise_i16"]
    assert {isinstance(one, PackedStream) for one in packed} == {True, False}
    engine = McuEngine(tables, build_firmware(tables, target))
    board, calls = engine.board, []
    with board.watching(["rtcore_depthwise_i16_step"], lambda _, arguments: calls.append(arguments)):
        board.call("net_step", engine.state, *(address for address, _ in (*engine.inputs, *engine.outputs)))
    bound = StackReader(board, Code(board)).worst("rtcore_depthwise_i16_step").bytes
    painted = [board.stack_used("rtcore_depthwise_i16_step", *arguments) for arguments in calls]
    assert len(painted) == len(packed) and 0 < min(painted) <= max(painted) <= bound


KERNELS = {f"rtcore_{kernel}_step" for kernel in ("dense_i16", "gru_i16", "gru_i16_before", "lstm_i16", "rnn_i16")}


@pytest.mark.parametrize("target", on(*TARGETS, M55))
def test_a_layer_of_neurons_takes_less_than_160_bytes(target):
    """The worst of a core's own kernels, every branch of either gate counted; matrices with streams. An M0 alone goes
    deeper, where the gates of an LSTM are hard ones: it calls its compiler for a long product."""
    rng = np.random.default_rng(SEED)
    tables = [gru_net(rng, 5, 6, 3, 8, 32), rnnoise_net(rng, 8, 32), memory_net(rng, 8, 32)]
    found = set()
    for board in (board_of(build_firmware(net, target)) for net in tables):
        reader = StackReader(board, Code(board), never=["rtcore_matrix_i16_tables_rows"])
        for kernel in KERNELS & board.symbols.keys():
            worst = reader.worst(kernel)
            limit = 192 if (target, kernel) == ("cortex-m0", "rtcore_lstm_i16_step") else 160
            assert worst.bytes < limit, f"{target}: {worst.bytes} bytes in {' -> '.join(worst.chain)}"
            found.add(kernel)
    assert found == KERNELS
