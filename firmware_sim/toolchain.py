"""Finds compilers and runs them: generated C to an ELF for an emulated core, or to a library or program for the host.

The only place with compiler subprocesses. What is built is what `quantize.generate` writes, plus the driver in
`board/`. Everything is cached by content: a key is the hash of all sources, flags and the compiler's version, so that
nothing in the cache is ever stale; files appear in it whole, so that two processes may build the same thing at once.
The cache is RTCORE_CACHE, else XDG_CACHE_HOME/rtcore, else ~/.cache/rtcore, and may be deleted at any time.

Neighbours: `quantize/emit_c.py` (what is compiled), `rtcore/_build.py` (the warnings), `emulator.py` (runs a Firmware).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from firmware_sim.architectures import RISCV32, THUMB, Architecture
from quantize.emit_c import Golden, kernel_files, layer_ids, render, state_groups
from quantize.errors import QuantizeError
from rtcore import _build
from rtcore.tables import StatePart, Tables, state_parts

BOARD = Path(__file__).resolve().parent / "board"
SCRIPT = "board.ld"  # of board/: where the memory is and what goes there
CORES = tuple(_build.CORES)

# For size: -O2 unrolls the portable kernels to 2.7 times the code (M0: 1.7, RV32IMC: 2.0) and takes from 15 % fewer to
# 4 % more instructions. The link says -O2 because zig takes the symbols away from what is linked for size.
ZIG_FLAGS = ("-Os", "-ffunction-sections", "-fdata-sections", "-g0")


@dataclass(frozen=True)
class Target:
    """A core that firmware is built for.

    compile: flags of every compilation, link: flags of the link; startup: its file of board/;
    architecture: its instruction set and calls; model: the core's name in unicorn, which emulates it;
    core: whose kernels it runs unless told otherwise;
    machine: arguments of qemu-system-arm for the board that runs it instead of unicorn; flash, ram: where its memory
    begins; flash_size: of code and tables, at the most.
    The link names the base core of the architecture, so that the compiler's runtime library is built once for each.
    """

    name: str
    compile: tuple[str, ...]
    link: tuple[str, ...]
    startup: str
    architecture: Architecture
    model: str
    core: str = "portable"
    machine: tuple[str, ...] = ()
    flash: int = 0x08000000
    flash_size: str = "128M"
    ram: int = 0x20000000


def _cortex_m(name: str, cpu: str, base: str, model: str, core: str = "portable", floats: str = "soft") -> Target:
    triple = ("-target", "thumb-freestanding-eabi" + "hf" * (floats == "hard"))
    return Target(
        name=name,
        compile=(*triple, f"-mcpu={cpu}", f"-mfloat-abi={floats}", *ZIG_FLAGS),
        link=(*triple, f"-mcpu={base}", "-O2", "-Wl,--gc-sections"),
        startup="startup_cortex_m.c",
        architecture=THUMB,
        model=model,
        core=core,
    )


def _riscv32(name: str, cpu: str, model: str) -> Target:
    triple = ("-target", "riscv32-freestanding-none", f"-mcpu={cpu}", "-mabi=ilp32")
    return Target(
        name=name,
        compile=(*triple, *ZIG_FLAGS),
        link=(*triple, "-O2", "-Wl,--gc-sections"),
        startup="startup_riscv.c",
        architecture=RISCV32,
        model=model,
        core="rv32imc",
    )


TARGETS = {
    target.name: target
    for target in (
        _cortex_m("cortex-m0", "cortex_m0", "cortex_m0", "UC_CPU_ARM_CORTEX_M0", "cortex-m0"),
        _cortex_m("cortex-m3", "cortex_m3", "cortex_m3", "UC_CPU_ARM_CORTEX_M3", "cortex-m3"),
        _cortex_m("cortex-m4", "cortex_m4", "cortex_m3", "UC_CPU_ARM_CORTEX_M4", "cortex-m4"),
        _cortex_m("cortex-m7", "cortex_m7", "cortex_m3", "UC_CPU_ARM_CORTEX_M7", "cortex-m4"),
        _cortex_m("cortex-m33", "cortex_m33+dsp", "cortex_m3", "UC_CPU_ARM_CORTEX_M33", "cortex-m4"),
        _riscv32("rv32imc", "generic_rv32+m+c+relax", "UC_CPU_RISCV32_SIFIVE_E31"),
    )
}


# unicorn has none. Clang has vectors only where floats go in registers.
CORTEX_M55 = _cortex_m("cortex-m55", "cortex_m55+mve", "cortex_m55", "", "cortex-m55", "hard")

# The same objects, linked for boards that qemu-system-arm knows (the secure side of those with TrustZone).
QEMU_TARGETS = {
    f"qemu:{core.name}": replace(
        core, name=f"qemu:{core.name}", machine=("-M", *machine.split()), flash=flash, flash_size=size, ram=ram
    )
    for core, machine, flash, size, ram in (
        (TARGETS["cortex-m0"], "microbit -global nrf51-soc.sram-size=0x40000", 0x00000000, "256K", 0x20000000),
        (TARGETS["cortex-m3"], "mps2-an385", 0x00000000, "4M", 0x20000000),
        (TARGETS["cortex-m4"], "mps2-an386", 0x00000000, "4M", 0x20000000),
        (TARGETS["cortex-m7"], "mps2-an500", 0x00000000, "4M", 0x20000000),
        (TARGETS["cortex-m33"], "mps2-an505", 0x10000000, "4M", 0x38000000),
        (CORTEX_M55, "mps3-an547", 0x70000000, "128M", 0x30000000),
    )
}


class ToolchainError(QuantizeError):
    """A compiler is missing, or refused what it was given."""


@dataclass(frozen=True)
class Firmware:
    """A linked net: the ELF, the core it is for, and the prefix of its C names."""

    elf: Path
    target: Target
    name: str


def find_target(name: str) -> Target:
    """The target of that name. Raises QuantizeError listing all of them."""
    known = TARGETS | QEMU_TARGETS
    if name not in known:
        raise QuantizeError(f"unknown target {name!r}; targets are host, {', '.join(known)}")
    return known[name]


def require(*modules: str) -> None:
    """Raises ToolchainError, with the remedy, unless all these optional modules are installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ToolchainError(
            f"emulated targets need {', '.join(missing)}, not installed here: pip install 'rtcore[mcu]'"
        )


def cache_dir() -> Path:
    """Where builds are kept."""
    if os.environ.get("RTCORE_CACHE"):
        return Path(os.environ["RTCORE_CACHE"])
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "rtcore"


# ------------------------------------------------------------------------------------------------------ firmware --


def build_firmware(
    tables: Tables, target: str, *, name: str = "net", selftest: Golden | None = None, core: str | None = None
) -> Firmware:
    """Compiles and links the C of a net for an emulated core; from the cache when it has been built before.

    name: prefix of the C names. selftest: golden vectors to link. core: whose kernels: "portable", or None for the
    target's own where they exist. Raises QuantizeError for an unknown target or core, ToolchainError when a package of
    'rtcore[mcu]' is missing or the compiler fails.
    """
    found = find_target(target)
    core = found.core if core is None else core
    if core not in CORES:
        raise QuantizeError(f"unknown core {core!r}; kernels exist for {', '.join(CORES)}")
    if core not in ("portable", found.core):
        raise QuantizeError(f"{target} does not run the kernels of {core!r}; it runs {found.core!r}")
    require("ziglang")
    files = render(tables, name, selftest=selftest, core=core)
    board = {path.name: path.read_bytes() for path in sorted(BOARD.iterdir()) if path.is_file()}
    board[SCRIPT] = linker_script(found)
    defines = _board_defines(tables, name)
    kept = [f"{name}_{function}" for function in api(tables, selftest)] + ["board_state", "board_io", "board_parts"]
    link = [*found.link, "-Wl,-e,board_reset", *(f"-Wl,-u,{symbol}" for symbol in kept)]
    key = _key(_zig_version(), found.compile, link, defines, files, board)
    elf = cache_dir() / "firmware" / f"{name}-{target.replace(':', '-')}-{key}.elf"
    if not elf.exists():
        with _workspace(files | board) as work:
            kernels = {file: _build.kernel_path(file, core).read_bytes() for file in kernel_files(core)}
            startup = {found.startup: board[found.startup]}
            objects = [_cached_object(found, "kernel", f, kernels) for f in kernels if f.endswith(".c")]
            objects.append(_cached_object(found, "board", found.startup, startup))
            net = [f"{name}.c"] if selftest is None else [f"{name}.c", f"{name}_selftest.c"]
            for role, file in [*zip(("net", "selftest"), net, strict=False), ("board", "board.c")]:
                flags = defines if role == "board" else ()
                objects.append(_compile(found, work / file, work / f"{role}-{file}.o", [*flags, f"-I{work}"]))
            linked = work / "linked.elf"
            _run([*_zig(), *link, "-T", str(work / SCRIPT), "-o", str(linked), *map(str, objects)])
            _place(linked, elf)
    return Firmware(elf, found, name)


def linker_script(target: Target) -> bytes:
    """board.ld with the memory of a target's board."""
    script = (BOARD / SCRIPT).read_bytes()
    for usual, own in ((Target.flash, target.flash), (Target.ram, target.ram)):
        script = script.replace(b"0x%08x" % usual, b"0x%08x" % own)
    return script.replace(Target.flash_size.encode(), target.flash_size.encode(), 1)


def api(tables: Tables, selftest: Golden | None = None) -> list[str]:
    """The functions of a net, without its prefix: what the link must keep."""
    functions = ["check", "reset", "reset_with", "step"]
    functions += ["set_state"] if tables.state_inputs else []
    functions += ["get_state"] if tables.states else []
    return functions + (["selftest"] if selftest is not None else [])


def state_arrays(tables: Tables) -> list[tuple[str, str, StatePart]]:
    """(recurrent layer, member of its state's C struct, the part that it keeps), in the order of board_parts."""
    return [
        (layer.name, member, part)
        for layer in tables.states
        for part in state_parts(layer)
        for member in (part.wide, part.view)
        if member
    ]


def _board_defines(tables: Tables, name: str) -> tuple[str, ...]:
    """What board.c is told of a net."""
    ids = layer_ids(tables)
    rows = tables.state_rows
    views = sum(rows[row][1].size for _, members in state_groups(tables) for row in members)
    io = sum(tables.tensors[x].width for x in (*tables.inputs, *tables.outputs)) + views
    return (
        f'-DBOARD_HEADER="{name}.h"',
        f"-DBOARD_STATE={name}_state",
        f"-DBOARD_IO_SIZE={io}",
        f"-DBOARD_PARTS={' '.join(f'PART({ids[layer]}.{member})' for layer, member, _ in state_arrays(tables))}",
    )


def _cached_object(target: Target, role: str, source: str, files: dict[str, bytes]) -> Path:
    """An object that does not depend on the net: compiled once per target."""
    key = _key(_zig_version(), target.compile, _build.WARNINGS, files)
    path = cache_dir() / "objects" / f"{target.name.rpartition(':')[2]}-{key}" / f"{role}-{source}.o"
    if not path.exists():
        with _workspace(files) as work:
            _place(_compile(target, work / source, work / f"{role}-{source}.o", ()), path)
    return path


def _compile(target: Target, source: Path, output: Path, flags) -> Path:
    _run([*_zig(), *target.compile, *_build.WARNINGS, *flags, "-c", str(source), "-o", str(output)])
    return output


# ---------------------------------------------------------------------------------------------------------- host --


def build_host_library(
    tables: Tables, *, name: str = "net", selftest: Golden | None = None, flags: tuple[str, ...] = ("-O2",)
) -> Path:
    """The same generated C as a shared library of this machine, with board.c (board_state, board_io, board_parts)."""
    files = render(tables, name, selftest=selftest) | {"board.c": (BOARD / "board.c").read_bytes()}
    kernels = {file: data for file, data in files.items() if file.startswith("rtcore/")}
    objects = [str(_host_object(file, kernels, ("-fPIC", *flags))) for file in sorted(kernels) if file.endswith(".c")]
    headers = {file: data for file, data in kernels.items() if not file.endswith(".c")}
    own = {file: data for file, data in files.items() if file not in kernels}
    defines = _board_defines(tables, name)
    return build_host(own | headers, [*defines, "-I.", "-shared", "-fPIC", *flags, *objects], f"{name}.so")


def _host_object(source: str, kernels: dict[str, bytes], flags: tuple[str, ...]) -> Path:
    """A kernel's object for this machine, which does not depend on the net: compiled once."""
    compiler = host_compiler()
    key = _key(_version(tuple(compiler)), compiler, flags, _build.WARNINGS, kernels)
    path = cache_dir() / "objects" / f"host-{key}" / f"{Path(source).name}.o"
    if not path.exists():
        with _workspace(kernels) as work:
            _run([*compiler, *_build.WARNINGS, *flags, "-c", source, "-o", "built.o"], cwd=work)
            _place(work / "built.o", path)
    return path


def build_host(files: dict[str, bytes], flags, output: str) -> Path:
    """Compiles and links C files with the host's compiler, under the kernels' warnings.

    files: relative path -> bytes, headers included. Returns the path of `output` in the cache. Raises ToolchainError
    when the compiler fails or there is none.
    """
    compiler = host_compiler()
    built = cache_dir() / "host" / _key(_version(tuple(compiler)), compiler, flags, _build.WARNINGS, files) / output
    if not built.exists():
        with _workspace(files) as work:
            sources = [file for file in sorted(files) if file.endswith(".c")]
            _run([*compiler, *_build.WARNINGS, *flags, *sources, "-o", "built"], cwd=work)
            _place(work / "built", built)
    return built


def host_compiler() -> list[str]:
    """The host's C compiler as a command: CC, else cc, gcc or clang, else zig's."""
    if os.environ.get("CC"):
        return os.environ["CC"].split()
    for command in ("cc", "gcc", "clang"):
        if shutil.which(command):
            return [command]
    if importlib.util.find_spec("ziglang") is None:
        raise ToolchainError("no C compiler found (cc, gcc, clang): install one, name it in CC, or pip install ziglang")
    return _zig()


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    return _run([*compiler, "--version"])


# ------------------------------------------------------------------------------------------------------- running --


def _zig() -> list[str]:
    """zig's C compiler, from its wheel."""
    (package,) = importlib.util.find_spec("ziglang").submodule_search_locations
    return [str(Path(package) / ("zig.exe" if os.name == "nt" else "zig")), "cc"]


def _zig_version() -> str:
    return f"ziglang {importlib.metadata.version('ziglang')}"


def _run(command: list[str], cwd: Path | None = None) -> str:
    """Runs a compiler and returns what it printed. Raises ToolchainError with its messages."""
    zig_cache = os.environ.get("ZIG_GLOBAL_CACHE_DIR") or str(cache_dir() / "zig")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolchainError(f"cannot run the compiler {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise ToolchainError(f"the compiler failed: {' '.join(command)}\n{done.stderr or done.stdout}")
    return done.stdout


def _key(*parts) -> str:
    """Hash of everything that decides a build: files by path (dicts of bytes), flags and versions."""
    digest = hashlib.sha256()
    for part in parts:
        items = [x for pair in sorted(part.items()) for x in pair] if isinstance(part, dict) else [part]
        for item in items:
            data = item if isinstance(item, bytes) else repr(item).encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:24]


class _workspace:
    """A directory in the cache that holds `files` while something is built in it."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files

    def __enter__(self) -> Path:
        root = cache_dir()
        try:
            root.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix="build-", dir=root))
        except OSError as error:
            raise ToolchainError(
                f"the build cache {root} cannot be written ({error.strerror}); name another in RTCORE_CACHE"
            ) from error
        for name, data in self.files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self.path

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _place(built: Path, target: Path) -> None:
    """Moves a finished file into the cache in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(built, target)
