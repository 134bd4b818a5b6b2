"""The emulated core: exact instruction counts, faults that say where, stacks that stay below the stated bound.

Neighbours: `firmware_sim/emulator.py` (what is tested), `test_simulator.py` (whole nets, bit by bit).
"""

import dataclasses
import struct

import numpy as np
import pytest

from bits import assert_equal_bits
from firmware_sim.architectures import RISCV32, THUMB
from firmware_sim.emulator import PAGE, Emulator, EmulatorError
from firmware_sim.toolchain import TARGETS, build_firmware, state_arrays
from nets import Builder, function_net, gru_net, memory_net, random_frames, random_initial, random_tables, rnnoise_net
from quantize.c_layers import rows_of
from quantize.emit_c import STACK_BYTES
from quantize.golden import golden_vectors
from window_nets import option_net, random_window

for module in ("ziglang", "unicorn", "elftools"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 71
FAMILIES = ("cortex-m4", "rv32imc")  # a core of each architecture

# Hand-written functions, in halfwords: a return; five words of frame, then two more, the last of which is written;
# stack taken for ever; a jump to itself; and what no net contains.
CODE = {
    THUMB: {
        "return": (0x4770,),  # bx lr
        "frame": (0xB5F0, 0xB082, 0x9000, 0xB002, 0xBDF0),  # push 5; sub 8; str r0, [sp]; add 8; pop 5
        "overflow": (0xB500, 0xE7FD),  # push {lr}; b .-2
        "spin": (0xE7FE,),  # b .
        "undefined": (0xDE00,),  # udf
        "supervisor": (0xDF01,),  # svc
        "bad load": (0x2010, 0x46C0, 0x6800, 0x4770),  # movs r0, #16; nop; ldr r0, [r0]
    },
    RISCV32: {
        "return": (0x8082,),  # ret
        "frame": (0x1101, 0xCE06, 0xC22A, 0x6105, 0x8082),  # sp -= 32; sw ra, 28(sp); sw a0, 4(sp); sp += 32; ret
        "overflow": (0x1141, 0xC02A, 0xBFF5),  # sp -= 16; sw a0, 0(sp); j .-4
        "spin": (0xA001,),  # j .
        "undefined": (0x0000,),
        "supervisor": (0x0073, 0x0000),  # ecall
        "bad load": (0x4541, 0x0001, 0x4108, 0x8082),  # li a0, 16; nop; lw a0, 0(a0)
    },
}


def net(seed=SEED, width=24):
    return random_tables(np.random.default_rng(seed), width)


@pytest.fixture(scope="module", params=list(TARGETS))
def board(request):
    """A net on each core, its self test linked."""
    emulator = Emulator(build_firmware(net(), request.param, selftest=golden_vectors(net(), 4)))
    emulator.call("net_reset", emulator.symbol("board_state").address)
    return emulator


def buffers(board):
    """Addresses of the state, and of the inputs and outputs in their order, in the board's buffer."""
    tables = net()
    address = board.symbol("board_io").address
    places = []
    for name in (*tables.inputs, *tables.outputs):
        places.append(address)
        address += 2 * tables.tensors[name].width
    return [board.symbol("board_state").address, *places]


def place_code(board, code, address=None):
    """Puts hand-written instructions, or those of CODE of that name, into flash, over a function that the test does
    not need, as function "code"."""
    code = CODE[board.architecture][code] if isinstance(code, str) else code
    address = board.symbol("net_check").address if address is None else address
    board.symbols["code"] = dataclasses.replace(board.symbol("net_check"), name="code", address=address)
    board.write(address, struct.pack(f"<{len(code)}H", *code))


# ------------------------------------------------------------------------------------------------------ counting --


def single_steps(board, function, *args):
    """The call one instruction at a time, counted by hand. Leaves the emulator good for nothing else."""
    core, code_bit = board._core, board.architecture.code_bit
    exit_ = board.symbol("board_idle").address
    core.ctl_flush_tb()  # what was translated before does not stop after one instruction
    for register, value in zip(board._registers, args):
        core.reg_write(register, value)
    core.reg_write(board._sp, board.symbol("board_stack_top").address)
    core.reg_write(board._link, exit_ | code_bit)
    pc, count = board.symbol(function).address, 0
    while pc != exit_:
        core.emu_start(pc | code_bit, exit_, count=1)
        pc = core.reg_read(board._pc)
        count += 1
        assert count < 10**6
    return count


@pytest.mark.parametrize("target", ["cortex-m0", "rv32imc"])
def test_counts_are_those_of_single_steps(target):
    """On cores without predicated instructions, which a step might join with the next."""
    firmware = build_firmware(gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32), target)
    board = Emulator(firmware)
    state, io = board.symbol("board_state").address, board.symbol("board_io").address
    for function, args in (
        ("net_reset", (state,)),
        ("net_step", (state, io, io + 6)),
        ("net_check", (board.symbol("net_default_weights").address,)),
        ("rtcore_tanh_q15", (12345678,)),
    ):
        board.call("net_reset", state)
        board.call(function, *args)
        fresh = Emulator(firmware)
        fresh.call("net_reset", state)
        assert board.instructions == single_steps(fresh, function, *args) > 5, function


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_predicated_off_instructions_count_as_one(n):
    """A loop of known length, whose IT block runs its instructions or not."""
    board = Emulator(build_firmware(net(), "cortex-m4"))
    code = (
        0x2100,  # movs r1, #0
        0x0842,  # loop: lsrs r2, r0, #1       carry: r0 is odd
        0xBF2A,  # itet cs
        0x3101,  # addcs r1, #1
        0x3102,  # addcc r1, #2
        0x3104,  # addcs r1, #4
        0xF100,
        0x0200,  # add.w r2, r0, #0            a wide instruction
        0x3801,  # subs r0, #1
        0xD1F6,  # bne loop
        0x4608,  # mov r0, r1
        0x4770,  # bx lr
    )
    place_code(board, code)
    odd = (n + 1) // 2
    assert board.call("code", n) == 5 * odd + 2 * (n - odd)
    assert board.instructions == 1 + 8 * n + 2


@pytest.mark.parametrize("n", [1, 2, 1000])
@pytest.mark.parametrize("cut", [0, 2, 4, 6, 14, 18])  # bytes of code before the page ends; 4 and 14: in a wide one
def test_instructions_of_both_lengths_are_counted_at_any_place(n, cut):
    """A loop of known length on RISC-V, its wide instructions at any halfword, also across two pages."""
    board = Emulator(build_firmware(net(), "rv32imc"))
    code = (
        0x4581,  # li a1, 0
        0x7613,
        0x0015,  # loop: andi a2, a0, 1        wide
        0xC211,  # beqz a2, even
        0x0595,  # addi a1, a1, 5
        0x0589,  # even: addi a1, a1, 2
        0x0693,
        0x3E85,  # addi a3, a0, 1000           wide
        0x157D,  # addi a0, a0, -1
        0xF965,  # bnez a0, loop
        0x852E,  # mv a0, a1
        0x8082,  # ret
    )
    page = -(-board.symbol("rtcore_sigma_table").address // PAGE) * PAGE
    place_code(board, code, address=page - cut)
    odd = (n + 1) // 2
    for _ in range(2):
        assert board.call("code", n) == 2 * n + 5 * odd
        assert board.instructions == 1 + 6 * n + odd + 2


def test_counts_repeat_and_do_not_depend_on_what_ran_before(board):
    state, *io = buffers(board)
    counts = []
    for _ in range(3):
        board.call("net_reset", state)
        board.call("net_step", state, *io)
        counts.append(board.instructions)
        board.call("net_check", board.symbol("net_default_weights").address)
        board.stack_used("net_step", state, *io)
    board.call("net_reset", state)
    with board.watching(["rtcore_gru_i16_step"], lambda name, registers: None):
        board.call("net_step", state, *io)
        counts.append(board.instructions)
    assert len(set(counts)) == 1 and counts[0] > 1000


# --------------------------------------------------------------------------------------------------------- calls --


def test_self_test_passes_on_every_core(board):
    assert board.call("net_selftest") == 0
    assert board.call("net_check", board.symbol("net_default_weights").address) == 0


def test_self_test_finds_a_flipped_bit_in_flash(board):
    """Silicon whose flash lost a bit of a weight; put back, the golden bits return."""
    tables = [s for name, s in board.symbols.items() if name.endswith("_weights") and name != "net_default_weights"]
    weights = max(tables, key=lambda s: s.size)
    kept = board.read(weights.name, weights.size)
    board.write(weights.name, bytes(b ^ 0x10 for b in kept))
    assert board.call("net_selftest") > 0
    board.write(weights.name, kept)
    assert board.call("net_selftest") == 0


def test_the_reset_entry_leaves_an_empty_stack(board):
    """Set by the core from its vectors, or by the startup code; the reset entry itself may keep a word or two."""
    fresh = Emulator(board.firmware)
    left = fresh.symbol("board_stack_top").address - fresh._core.reg_read(fresh._sp)
    assert 0 <= left <= 16 and left % 8 == 0


@pytest.mark.parametrize("target", TARGETS)
def test_arguments_beyond_the_registers_go_on_the_stack(target):
    """rtcore_add_i16(output, a, stride_a, b, stride_b, n, shift_a, shift_b, sign_b, shift)"""
    b = Builder(np.random.default_rng(SEED))
    b.output(b.pair(b.input(4), b.inputs[0], "add_i16"))
    board = Emulator(build_firmware(b.tables(), target))
    io = board.symbol("board_io").address
    board.write(io, struct.pack("<4h", 100, -7, 30, 9))
    board.call("rtcore_add_i16", io + 8, io, 1, io + 4, 1, 2, 3, 1, -1, 2)
    expected = [(100 * 8 - 30 * 2 + 2) >> 2, (-7 * 8 - 9 * 2 + 2) >> 2]
    assert list(struct.unpack("<2h", board.read(io + 8, 4))) == expected


def test_results_are_signed(board):
    assert board.call("rtcore_tanh_q15", -(1 << 30)) == -32767
    assert board.call("net_check", board.symbol("board_io").address) < 0


# -------------------------------------------------------------------------------------------------------- faults --


def test_faults_name_the_place_and_the_address(board):
    state, *io = buffers(board)
    cases = [
        (("rtcore_rescale_i16", 0x10, io[0], 4, 0), r"write of 2 bytes at 0x00000010, .*in rtcore_rescale_i16\+0x"),
        (("rtcore_rescale_i16", io[0], 0x40000000, 4, 0), r"read of 2 bytes at 0x40000000"),
        (("rtcore_rescale_i16", 0x08000000, io[0], 4, 0), r"write to flash of 2 bytes at 0x08000000"),
    ]
    for (function, *args), message in cases:
        with pytest.raises(EmulatorError, match=f"{board.firmware.target.name}: {message}"):
            board.call(function, *args)
    board.call("net_reset", state)
    assert board.call("net_step", state, *io) == 1, "the core works after a fault"


@pytest.mark.parametrize("target", FAMILIES)
def test_a_fault_names_the_instruction(target):
    board = Emulator(build_firmware(net(), target))
    place_code(board, "bad load")
    address = board.symbol("code").address + 4
    with pytest.raises(EmulatorError, match=f"read of 4 bytes at 0x00000010, at pc {address:#010x} in net_check.0x4"):
        board.call("code")


@pytest.mark.parametrize("target", FAMILIES)
def test_code_in_ram_and_undefined_instructions_fault(target):
    board = Emulator(build_firmware(net(), target))
    for address, code, message in (
        (board.symbol("board_io").address, "return", "fetch from RAM"),
        (None, "undefined", "exception|nvalid|Unhandled"),
        (None, "supervisor", "exception|nvalid|Unhandled"),
    ):
        place_code(board, code, address=address)
        with pytest.raises(EmulatorError, match=message):
            board.call("code")


@pytest.mark.parametrize("target", ["cortex-m0", "rv32imc"])
def test_a_stack_overflow_and_an_endless_loop_are_noticed(target, monkeypatch):
    board = Emulator(build_firmware(net(), target))
    place_code(board, "overflow")
    with pytest.raises(EmulatorError, match="the stack is used up"):
        board.call("code")
    monkeypatch.setattr("firmware_sim.emulator.CALL_LIMIT", 10**4)
    place_code(board, "spin")
    with pytest.raises(EmulatorError, match="no return after 10000 instructions"):
        board.call("code")


def test_an_unknown_symbol_is_named(board):
    with pytest.raises(KeyError, match="no symbol net_forget"):
        board.call("net_forget")


# -------------------------------------------------------------------------------------------------- memory, sizes --


@pytest.mark.parametrize("target", TARGETS)
def test_stack_is_measured(target):
    """Known frames: nothing for a leaf, and what a written function writes deepest."""
    board = Emulator(build_firmware(net(), target))
    place_code(board, "return")
    assert board.stack_used("code") == 0
    place_code(board, "frame")
    assert board.stack_used("code", 1) == 28
    assert board.stack_used("code", 1, 2, 3, 4, 5, 6, 7) == 28
    assert board.stack_used("code", 1, 2, 3, 4, 5, 6, 7, 8, 9) == 28


@pytest.mark.parametrize("options", ["-Os", "-O2"])
@pytest.mark.parametrize("target", TARGETS)
def test_no_call_exceeds_the_stated_stack(target, options, monkeypatch):
    """Painted stacks over nets of every kind, the deepest shapes included: NAME_STACK_BYTES is a bound."""
    built = TARGETS[target]
    flags = tuple(options if flag == "-Os" else flag for flag in built.compile)
    monkeypatch.setitem(TARGETS, target, dataclasses.replace(built, compile=flags))
    rng = np.random.default_rng(SEED)
    nets = [rnnoise_net(rng, 16, 64), memory_net(rng, 16, 64), memory_net(rng, 8, 32), function_net(rng, 5, 1)]
    nets += [option_net(rng, bits, acc, ("in groups", "3x3, padded")) for bits, acc in ((8, 32), (16, 64))]
    nets += [random_window(rng, how=how) for how in (3, 5)]
    for tables in (*nets, net(1), net(3), net(5), net(8)):
        board = Emulator(build_firmware(tables, target))
        state, io = board.symbol("board_state").address, board.symbol("board_io").address
        addresses = []
        for name in (*tables.inputs, *tables.outputs):
            addresses.append(io)
            io += 2 * tables.tensors[name].width
        used = [board.stack_used("net_reset", state)]
        used.append(board.stack_used("net_check", board.symbol("net_default_weights").address))
        for frame in zip(*random_frames(rng, tables, 3)):
            board.write("board_io", b"".join(x.tobytes() for x in frame))
            used.append(board.stack_used("net_step", state, *addresses))
        if random_initial(rng, tables):
            used.append(board.stack_used("net_set_state", state, *([io] * len(tables.state_inputs))))
        assert 0 < max(used) <= STACK_BYTES, f"{target} {options}: {used}"


@pytest.mark.parametrize("target", TARGETS)
def test_sizes_are_those_of_the_parts(target):
    board = Emulator(build_firmware(net(), target))
    sizes = board.sizes()
    parts = {s.address: s for s in board.symbols.values() if not s.name.startswith("board_")}.values()
    tables = [s.size for s in parts if not s.function]
    assert 0 <= sizes.tables - sum(tables) <= 8 * len(tables), "tables, and padding between them"
    code = sum(s.size for s in parts if s.function)
    assert 0 <= sizes.code - code <= 0.1 * code + 64, "functions, and the literals behind them"
    assert sizes.flash == sizes.code + sizes.tables
    arrays = [(4 if member == part.wide else 2) * part.size for _, member, part in state_arrays(net())]
    least = 4 + sum(arrays) + 2 * net().arena + 4 * max(rows_of(layer) for layer in net().layers)
    scratch = 2 * max(layer.ints["nb_neurons"] for layer in net().states)
    assert least <= sizes.ram <= least + scratch + 4 * len(arrays) + 4


def test_memory_by_symbol_and_by_address(board):
    io = board.symbol("board_io")
    data = np.arange(8, dtype="<i2")
    board.write("board_io", data.tobytes())
    assert_equal_bits(data, np.frombuffer(board.read(io.address, 16), "<i2"), "board_io", SEED)
    assert board.place_of(board.symbol("net_step").address + 2) == "net_step+0x2"
    assert board.place_of(io.address) == "no function"
