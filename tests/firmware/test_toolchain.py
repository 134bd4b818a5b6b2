"""Builds: every target, from the cache when it was built before, with a clear word when something is missing.

Neighbours: `firmware_sim/toolchain.py` (what is tested), `test_emulator.py` (what is built, running).
"""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from firmware_sim import toolchain
from firmware_sim.emulator import Emulator
from firmware_sim.toolchain import TARGETS, ToolchainError, build_firmware, build_host, build_host_library
from nets import random_tables
from quantize.errors import QuantizeError
from quantize.golden import golden_vectors

for module in ("ziglang", "unicorn", "elftools"):
    pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")

SEED = 61


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A build cache with nothing in it, but the compiler's own runtime library."""
    build_firmware(net(), "cortex-m0")
    build_firmware(net(), "cortex-m4")
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(toolchain.cache_dir() / "zig"))
    monkeypatch.setenv("RTCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def commands(monkeypatch):
    """The compiler runs of a test, as they are made."""
    run, seen = toolchain._run, []

    def recording(command, cwd=None):
        seen.append(command)
        return run(command, cwd)

    monkeypatch.setattr(toolchain, "_run", recording)
    return seen


def net(seed=SEED, width=20):
    return random_tables(np.random.default_rng(seed), width, 1)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_builds(target):
    firmware = build_firmware(net(), target, name="denoiser", selftest=golden_vectors(net(), 2))
    emulator = Emulator(firmware)
    for function in ("check", "reset", "reset_with", "step", "get_state", "selftest"):
        assert emulator.symbol(f"denoiser_{function}").function
    assert set(emulator.sections) <= {".board", ".selftest", ".text", ".rodata", ".stack", ".bss"}, "writable data"


def test_unknown_targets_and_cores_are_refused_before_any_work(commands):
    with pytest.raises(QuantizeError, match=r"unknown target 'cortex-m1'; targets are host, cortex-m0, .*rv32imc"):
        build_firmware(net(), "cortex-m1")
    with pytest.raises(QuantizeError, match="unknown core 'fast'.*portable"):
        build_firmware(net(), "cortex-m4", core="fast")
    assert not commands


@pytest.mark.parametrize("missing", ["ziglang", "unicorn", "elftools"])
def test_missing_packages_are_named_with_the_remedy(monkeypatch, missing):
    firmware = build_firmware(net(), "cortex-m4")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == missing else find_spec(name, *a))
    with pytest.raises(ToolchainError, match=rf"{missing}.*pip install 'rtcore\[mcu\]'"):
        if missing == "ziglang":
            build_firmware(net(), "cortex-m4")
        else:
            Emulator(firmware)


def test_a_second_build_compiles_nothing_and_another_net_only_itself(empty_cache, commands):
    first = build_firmware(net(), "cortex-m4")
    everything = len(commands)
    commands.clear()
    assert build_firmware(net(), "cortex-m4") == first and not commands
    other = build_firmware(net(SEED + 1), "cortex-m4")
    assert other.elf != first.elf
    assert 0 < len(commands) < everything and not any("rtcore_" in part for c in commands[:-1] for part in c)
    commands.clear()
    build_firmware(net(), "cortex-m4", name="other")
    build_firmware(net(), "cortex-m4", selftest=golden_vectors(net(), 2))
    assert commands
    assert not list(empty_cache.glob("build-*")), "work is left behind"


def test_builds_do_not_depend_on_where_and_when(empty_cache, monkeypatch, tmp_path):
    first = build_firmware(net(), "cortex-m0").elf
    monkeypatch.setenv("RTCORE_CACHE", str(tmp_path / "elsewhere"))
    second = build_firmware(net(), "cortex-m0").elf
    assert first != second and first.name == second.name and first.read_bytes() == second.read_bytes()


def test_flags_and_compilers_have_their_own_builds(empty_cache, monkeypatch):
    first = build_firmware(net(), "cortex-m4").elf
    fast = dataclasses.replace(TARGETS["cortex-m4"], compile=(*TARGETS["cortex-m4"].compile, "-O2"))
    monkeypatch.setitem(TARGETS, "cortex-m4", fast)
    second = build_firmware(net(), "cortex-m4").elf
    monkeypatch.setattr(toolchain, "_zig_version", lambda: "ziglang 99")
    third = build_firmware(net(), "cortex-m4").elf
    assert len({first, second, third}) == 3


def test_two_processes_may_build_the_same_thing(empty_cache):
    code = (
        "import numpy as np, nets; from firmware_sim.toolchain import build_firmware; "
        f"print(build_firmware(nets.random_tables(np.random.default_rng({SEED}), 20, 1), 'cortex-m4').elf)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    paths = {process.communicate()[0].decode().strip() for process in both}
    assert [process.returncode for process in both] == [0, 0] and len(paths) == 1
    assert str(build_firmware(net(), "cortex-m4").elf) in paths


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RTCORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match=r"cache .*file cannot be written.*RTCORE_CACHE"):
        build_firmware(net(SEED + 2), "cortex-m4")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("RTCORE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert toolchain.cache_dir() == tmp_path / "rtcore"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert toolchain.cache_dir().parts[-2:] == (".cache", "rtcore")


def test_what_the_compiler_says_reaches_the_user():
    with pytest.raises(ToolchainError, match=r"(?s)compiler failed.*main\.c.*undeclared_thing"):
        build_host({"main.c": b"int main(void) { return undeclared_thing; }\n"}, (), "program")


def test_the_host_compiler_is_the_users_choice(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -m32")
    assert toolchain.host_compiler() == ["no-such-compiler", "-m32"]
    with pytest.raises(ToolchainError, match="cannot run the compiler no-such-compiler"):
        build_host_library(net())
    monkeypatch.delenv("CC")
    monkeypatch.setattr(toolchain.shutil, "which", lambda _: None)
    assert toolchain.host_compiler()[-1] == "cc" and "zig" in toolchain.host_compiler()[0]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ToolchainError, match="no C compiler found"):
        toolchain.host_compiler()
