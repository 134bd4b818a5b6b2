"""A second opinion on the emulated cores: boards of qemu-system-arm give the host's bits and unicorn's counts.

Neighbours: `firmware_sim/qemu.py` (what is tested), `test_emulator.py` (unicorn).
"""

import dataclasses
import shutil
import struct
import subprocess

import numpy as np
import pytest

from bits import assert_equal_bits
from boards import M55, needs_qemu
from firmware_sim import Simulator, qemu
from firmware_sim.disassembly import Code
from firmware_sim.emulator import Emulator, EmulatorError
from firmware_sim.engines import McuEngine
from firmware_sim.qemu import Qemu
from firmware_sim.toolchain import (
    BOARD,
    QEMU_TARGETS,
    TARGETS,
    Firmware,
    ToolchainError,
    build_firmware,
    find_target,
    linker_script,
)
from nets import function_net, gru_net, memory_net, random_frames, random_initial, random_tables, rnnoise_net
from quantize import QuantizeError
from quantize.emit_c import generate
from quantize.golden import golden_vectors
from rtcore import _build

for module in ("ziglang", "unicorn", "elftools"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 97
COUNTER = 65535  # instructions that QEMU runs before it refills its counter, at most
GCC = "arm-none-eabi-gcc"


def nets():
    rng = np.random.default_rng(SEED)
    found = {
        "rnnoise": rnnoise_net(rng, 16, 64),
        "int8": gru_net(rng, 7, 9, 3, 8, 32),
        "functions": function_net(rng, 5, 1),
    }
    found |= {"every recurrent kind": memory_net(rng, 8, 64)}
    return found | {f"random {seed}": random_tables(np.random.default_rng(seed)) for seed in (3, 12)}


@needs_qemu
@pytest.mark.parametrize("target", QEMU_TARGETS)
def test_bits_are_the_hosts_and_counts_are_unicorns(target):
    """Every tensor and state of every step; with and without the stops that a trace makes."""
    usual = target.removeprefix("qemu:")
    for what, tables in nets().items():
        rng = np.random.default_rng(SEED)
        frames = random_frames(rng, tables, 4)
        given = dict(zip(tables.inputs, frames)) | {
            state.name: values for state, values in zip(tables.state_inputs, random_initial(rng, tables) or ())
        }
        host, board = Simulator(tables), Simulator(tables, target)
        host.run_raw(given, trace=True)
        board.run_raw(given, trace=True)
        traced = board.instructions
        for name, values in host.last_run.trace.items():
            assert_equal_bits(values, board.last_run.trace[name], f"{what}: tensor {name} on {target}", SEED)
        for name, values in host.last_run.state_trace.items():
            assert_equal_bits(values, board.last_run.state_trace[name], f"{what}: state of {name} on {target}", SEED)
        board.run_raw(given)
        assert_equal_bits(traced, board.instructions, f"{what}: instructions with and without a trace", SEED)
        if usual in TARGETS:
            unicorn = Simulator(tables, usual)
            unicorn.run_raw(given)
            assert_equal_bits(unicorn.instructions, board.instructions, f"{what}: instructions on {target}", SEED)


@needs_qemu
@pytest.mark.parametrize(("target", "machine"), [("cortex-m3", "netduino2"), ("cortex-m4", "netduinoplus2")])
def test_the_very_file_that_unicorn_runs(target, machine):
    """Boards whose memory is where board.ld has it."""
    tables = random_tables(np.random.default_rng(SEED))
    firmware = build_firmware(tables, target, selftest=golden_vectors(tables, 6))
    unicorn = Emulator(firmware)
    board = Qemu(dataclasses.replace(firmware, target=dataclasses.replace(TARGETS[target], machine=("-M", machine))))
    for function, *arguments in (("net_selftest",), ("rtcore_tanh_q15", -(1 << 22)), ("rtcore_tanh_q15", 12345)):
        assert unicorn.call(function, *arguments) == board.call(function, *arguments), function
        assert unicorn.instructions == board.instructions > 10, function


@needs_qemu
@pytest.mark.parametrize(("target", "long"), [("cortex-m4", False), ("cortex-m0", False), ("cortex-m4", True)])
def test_what_runs_is_followed_as_unicorn_follows_it(target, long):
    """Instruction by instruction; the blocks of the two may differ. long: steps of more instructions than QEMU's
    counter takes at once."""
    rng = np.random.default_rng(SEED)
    tables = rnnoise_net(rng, 8, 32) if long else random_tables(rng)
    (frames,) = random_frames(np.random.default_rng(SEED), tables, 2)[:1]
    followed = []
    for name in (target, f"qemu:{target}"):
        engine = McuEngine(tables, build_firmware(tables, name))
        inputs = [np.zeros(width, np.int16) for _, width in engine.inputs]
        for frame in (frames[0], frames[1]):
            runs = []
            with engine.board.following(lambda address, size, runs=runs: runs.append((address, size))):
                _, counted = engine.step([frame, *inputs[1:]])
        decoded = Code(engine.board)
        addresses = [at.address for run in runs for part, _ in decoded.executed(*run) for at in part]
        assert len(addresses) == counted[0] and (counted[0] > COUNTER) == long
        followed.append([address - engine.board.symbol("net_step").address for address in addresses])
    assert followed[0] == followed[1]


@needs_qemu
def test_what_runs_is_followed_behind_the_end_of_the_counter():
    """On the M55, which unicorn has not: an instruction is followed as often as it ran, not as it was entered."""
    tables = rnnoise_net(np.random.default_rng(29), 8, 32)
    engine = McuEngine(tables, build_firmware(tables, M55, core="portable"))
    runs = []
    with engine.board.following(lambda *run: runs.append(run)):
        _, counted = engine.step([np.zeros(width, np.int16) for _, width in engine.inputs])
    code = Code(engine.board)
    assert sum(len(part) for run in runs for part, _ in code.executed(*run)) == counted[0] > COUNTER


def test_a_block_that_stopped_before_it_ran_is_logged_again():
    ran = [f"Trace 0: 0x7f{at:02x} [00800442/{at:08x}/00000050/ff020201] f" for at in (2, 4, 4, 6)]
    stop = "Stopped execution of TB chain before 0x7f04 [00000004] f"
    assert qemu.executed([*ran[:2], stop, *ran[1:3], stop, *ran[2:]]) == ran
    for lines in ([stop], [*ran, stop], [*ran, "cpu_io_recompile: rewound execution of TB to 6"]):
        with pytest.raises(EmulatorError, match="no block that runs"):
            qemu.executed(lines)


@needs_qemu
def test_a_wrong_golden_bit_is_found():
    tables = gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32)
    golden = golden_vectors(tables, 4)
    golden.outputs[0][2, 0] ^= 1
    assert Qemu(build_firmware(tables, "qemu:cortex-m33", selftest=golden)).call("net_selftest") == 3


@needs_qemu
@pytest.mark.parametrize("options", ["-Os", "-O3"])
@pytest.mark.parametrize("target", QEMU_TARGETS)
def test_firmware_that_gcc_built(target, options, tmp_path):
    """Another compiler: the golden bits on every core; on the M55 with its vector unit in reach of the optimizer."""
    if shutil.which(GCC) is None:
        pytest.skip(f"{GCC} is not installed")
    found, core = find_target(target), target.removeprefix("qemu:")
    tables = rnnoise_net(np.random.default_rng(SEED), 8, 32)
    generate(tables, tmp_path, "net", selftest=golden_vectors(tables, 4), core=found.core)
    (tmp_path / "board.ld").write_bytes(linker_script(found))
    shutil.copy(BOARD / found.startup, tmp_path / "board-startup.c")
    flags = ["-mcpu=cortex-m55", "-mfloat-abi=hard"] if core == "cortex-m55" else [f"-mcpu={core}", "-mfloat-abi=soft"]
    for source in ("net.c", "net_selftest.c", "board-startup.c", *(f"rtcore/{file}" for file in _build.SOURCES_I16)):
        role = "selftest-x" if source == "net_selftest.c" else source.rpartition("/")[2].removesuffix(".c")
        command = [GCC, *flags, "-mthumb", options, "-std=c99", "-ffunction-sections", "-c", source, "-o", f"{role}.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
    objects = sorted(str(path) for path in tmp_path.glob("*.o"))
    link = ["-nostdlib", "-Wl,-T,board.ld", "-Wl,-e,board_reset", "-Wl,--gc-sections", "-Wl,-u,net_selftest"]
    # gcc makes calls of memset and memcpy of loops
    command = [GCC, *flags, "-mthumb", *link, *objects, "-lc", "-lgcc", "-o", "image.elf"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    board = Qemu(Firmware(tmp_path / "image.elf", found, "net"))
    assert board.call("net_selftest") == 0 and board.instructions > 50_000


@needs_qemu
def test_faults_end_the_call_with_what_qemu_says():
    tables = gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32)
    board = Qemu(build_firmware(tables, "qemu:cortex-m4"))
    with pytest.raises(EmulatorError, match="qemu:cortex-m4: .*(Lockup|stopped)"):
        board.call("rtcore_rescale_i16", 0xF0000000, board.symbol("board_io").address, 4, 0)
    with pytest.raises(KeyError, match="no symbol net_forget"):
        board.call("net_forget")


@needs_qemu
def test_an_endless_loop_is_noticed(monkeypatch):
    monkeypatch.setattr(qemu, "PATIENCE_S", 2.0)
    board = Qemu(build_firmware(gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32), "qemu:cortex-m3"))
    board.write("net_check", struct.pack("<H", 0xE7FE))  # b .
    with pytest.raises(EmulatorError, match="no return after 2 s"):
        board.call("net_check")


@needs_qemu
def test_the_process_and_its_files_end_with_the_board():
    board = Qemu(build_firmware(gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32), "qemu:cortex-m3"))
    process, folder = board._process, board._folder
    assert process.poll() is None
    del board
    assert process.poll() is not None and not shutil.os.path.exists(folder)


@needs_qemu
def test_an_image_that_no_board_takes_is_said_so():
    firmware = build_firmware(gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32), "cortex-m4")
    wrong = dataclasses.replace(firmware.target, machine=("-M", "no-such-board"))
    with pytest.raises(EmulatorError, match="no-such-board|unsupported machine"):
        Qemu(dataclasses.replace(firmware, target=wrong))


def test_a_net_larger_than_the_boards_flash_is_said_so():
    with pytest.raises(ToolchainError, match="will not fit in region 'FLASH'"):
        build_firmware(gru_net(np.random.default_rng(SEED), 256, 128, 2, 16, 64), "qemu:cortex-m0")


def test_without_the_program_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ToolchainError, match="qemu:cortex-m55 needs qemu-system-arm, which is not installed"):
        Simulator(gru_net(np.random.default_rng(SEED), 3, 5, 2, 8, 32), "qemu:cortex-m55")


def test_unknown_boards_are_refused():
    with pytest.raises(QuantizeError, match="unknown target 'qemu:z80'.*qemu:cortex-m55"):
        find_target("qemu:z80")
