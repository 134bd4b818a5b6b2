"""Packages: each builds as its build system would, gives the golden bits, and shares no name with any other.

Neighbours: `quantize/package.py` and `quantize/templates/package/` (what is tested), `test_emit_c.py` (what `generate`
writes by itself).
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boards import M55, on
from firmware_sim.engines import board_of
from firmware_sim.toolchain import BOARD, SCRIPT, Firmware, find_target, linker_script
from nets import Builder, function_net, memory_net, random_tables, rnnoise_net
from quantize.emit_c import kernel_files, render
from quantize.errors import QuantizeError
from quantize.golden import golden_vectors
from quantize.package import PACKAGES, generate_package, render_package
from rtcore import _build

SEED = 57
DIGEST = "0123456789abcdef" * 4
CXX_FLAGS = ("-std=c++11", "-Wall", "-Wextra", "-Werror")
WITH_SOURCES = [package for package in PACKAGES if package != "single"]
COMPILERS = {
    "gcc": ("gcc",),
    "clang": ("clang",),
    "arm-none-eabi-gcc": ("arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb"),
}
BIN = Path(sys.executable).parent  # where the development tools of this environment are

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no host compiler: gcc is not on PATH")
needs_cxx = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: g++ is not on PATH")


def tool(name):
    """The path of a program of this environment or of the system; skips the test where there is none."""
    path = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def net(seed=SEED, **kwargs):
    return random_tables(np.random.default_rng(seed), **kwargs)


def package(kind, folder, name="voice", tables=None, core="portable"):
    """Writes a package with golden vectors and returns its folder."""
    tables = net() if tables is None else tables
    generate_package(tables, folder, name, kind, digest=DIGEST, selftest=golden_vectors(tables, 4), core=core)
    return folder


def succeeds(command, folder, **kwargs):
    command = list(map(str, command))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def sources(folder):
    """The C of a package, its folder of headers first as an option."""
    inner = folder / "src" if (folder / "src").is_dir() else folder
    return [f"-I{inner}", *sorted(inner.glob("*.c"))]


def some_nets():
    """A random net, one without a recurrent layer, every recurrent kind, every function, one without tables."""
    found = {"random": net(5), "feedforward": net(7, memory=False)}
    found["recurrent"] = memory_net(np.random.default_rng(SEED), 8, 32)
    found["functions"] = function_net(np.random.default_rng(SEED), 5, 1)
    b = Builder(np.random.default_rng(SEED))
    b.output(b.input(1))
    return found | {"copy": b.tables()}


# ---------------------------------------------------------------------------------------------------------- content --


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_package_is_reproducible_and_says_where_it_comes_from(kind, tmp_path):
    first = {path: path.read_bytes() for path in package(kind, tmp_path / "a").rglob("*") if path.is_file()}
    second = {path: path.read_bytes() for path in package(kind, tmp_path / "b").rglob("*") if path.is_file()}
    assert list(first.values()) == list(second.values()) and len(first) > 1
    for path, data in first.items():
        text = data.decode()
        assert not re.search(r"\b20\d\d-\d\d|\d\d:\d\d", text) and str(tmp_path) not in text, path
        if "rtcore" not in path.name:
            assert DIGEST in text, path
    assert package(kind, tmp_path / "a") and {p: p.read_bytes() for p in first} == first


@pytest.mark.parametrize("kind", WITH_SOURCES)
def test_kernels_are_the_originals_but_for_their_names(kind):
    for core in _build.CORES:
        tables = memory_net(np.random.default_rng(SEED), 16, 64)
        files = render_package(tables, "voice", kind, core=core)
        kernels = {path: data for path, data in files.items() if "/voice_rtcore" in path}
        assert len(kernels) > 8
        for path, data in kernels.items():
            plain = data.replace(b"voice_rtcore", b"rtcore").replace(b"VOICE_RTCORE", b"RTCORE")
            file = path.removeprefix("src/voice_")
            assert plain == _build.kernel_path(file, core).read_bytes(), path


def test_only_the_kernels_that_are_called_come_along():
    b = Builder(np.random.default_rng(SEED))
    b.output(b.dense(b.input(4), 3, "linear"))
    files = render_package(b.tables(), "voice", "cmake")
    assert {"src/voice_rtcore_dense_i16.c", "src/voice_rtcore_elementwise_i16.c", "src/voice_rtcore_sums4.c"} < set(
        files
    )
    assert not [path for path in files if re.search("gru|lstm|rnn|function|normalize|scalar", path)]
    everything = b"".join(render_package(net(2), "voice", "single").values())
    assert len(everything) < sum(map(len, render(net(2), "voice").values()))
    assert {f.removeprefix("src/voice_") for f in files if "rtcore" in f} <= set(kernel_files())


@pytest.mark.parametrize("core", [core for core in _build.CORES if core != "rv32imc"])
def test_every_kernel_that_is_called_comes_along(core, tmp_path):
    """Linked together, a package lacks nothing but what the compiler's library has (RISC-V: see below)."""
    gcc = tool("arm-none-eabi-gcc")
    for k, (what, tables) in enumerate(some_nets().items()):
        flags = ["-mcpu=cortex-m55", "-mfloat-abi=hard"] if core == "cortex-m55" else ["-mcpu=cortex-m4"]
        options = [*flags, "-mthumb", "-O1", "-std=c99", "-nostdlib", "-r", "-o", "all.o"]
        succeeds([gcc, *options, *sources(package("cmake", tmp_path / f"{k}", tables=tables, core=core))], tmp_path)
        missing = [line.split()[-1] for line in succeeds(["arm-none-eabi-nm", "-u", "all.o"], tmp_path).splitlines()]
        assert all(name.startswith("__") or name in ("memset", "memcpy") for name in missing), f"{what}: {missing}"


def test_unknown_packages_and_names_are_refused(tmp_path):
    with pytest.raises(QuantizeError, match="unknown package 'bazel'; packages are cmake, arduino"):
        generate_package(net(), tmp_path / "out", "voice", "bazel")
    with pytest.raises(QuantizeError, match="keyword"):
        generate_package(net(), tmp_path / "out", "int", "single")
    with pytest.raises(QuantizeError, match="unknown core 'z80'"):
        generate_package(net(), tmp_path / "out", "voice", "single", core="z80")
    assert not list(tmp_path.iterdir())


def test_a_package_over_another_one_makes_the_folders_it_needs(tmp_path):
    package("single", tmp_path / "out")
    package("arduino", tmp_path / "out")
    assert (tmp_path / "out/examples/voice_selftest/voice_selftest.ino").is_file() and (
        tmp_path / "out/voice.c"
    ).is_file()


# -------------------------------------------------------------------------------------------------------- compilers --


@pytest.mark.parametrize("kind", ["cmake", "single"])
@pytest.mark.parametrize("compiler", [*COMPILERS, "zig"])
def test_no_warning_from(compiler, kind, tmp_path):
    """The sources are the same in all packages but the single pair."""
    if compiler == "zig":
        pytest.importorskip("ziglang", reason="an optional extra: rtcore[mcu]")
        command = [sys.executable, "-m", "ziglang", "cc"]
    else:
        tool(compiler)
        command = COMPILERS[compiler]
    for k, (what, tables) in enumerate(some_nets().items()):
        print(what)
        include, *files = sources(package(kind, tmp_path / f"{k}", tables=tables))
        for file in files:
            if not ("rtcore" in file.name and k):  # kernels once
                succeeds([*command, *_build.WARNINGS, "-O2", include, "-c", file, "-o", "x.o"], tmp_path)


@pytest.mark.parametrize("kind", WITH_SOURCES)
def test_packages_differ_in_their_build_files_alone(kind):
    first, other = (render_package(net(), "voice", package, digest=DIGEST) for package in ("cmake", kind))
    assert {path: data for path, data in other.items() if path.startswith("src/")} == {
        path: data for path, data in first.items() if path.startswith("src/")
    }


@needs_gcc
@pytest.mark.parametrize("kind", ["cmake", "single"])
def test_golden_bits_of_every_kind_of_net(kind, tmp_path):
    for k, (what, tables) in enumerate(some_nets().items()):
        folder = package(kind, tmp_path / f"{k}", tables=tables)
        options = [
            "-std=c99",
            "-O1",
            "-DVOICE_SELFTEST_MAIN",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ]
        succeeds(["gcc", *options, *sources(folder), "-o", f"run{k}"], tmp_path)
        print(what)
        succeeds([f"./run{k}"], tmp_path)


@needs_gcc
def test_a_changed_weight_is_found(tmp_path):
    folder = package("single", tmp_path / "p", tables=rnnoise_net(np.random.default_rng(SEED), 8, 32))
    text = (folder / "voice.c").read_text()
    start = text.index("{", text.index("_weights["))
    number = re.compile(r"-?\d+").search(text, start)
    (folder / "voice.c").write_text(text[: number.start()] + str(-int(number[0]) or 9) + text[number.end() :])
    succeeds(["gcc", "-DVOICE_SELFTEST_MAIN", *sources(folder), "-o", "run"], tmp_path)
    assert subprocess.run(["./run"], cwd=tmp_path, check=False).returncode == 1


@needs_gcc
def test_the_golden_vectors_can_be_left_out(tmp_path):
    include, source = sources(package("single", tmp_path / "p"))
    succeeds(["gcc", include, "-DVOICE_NO_SELFTEST", "-c", source, "-o", "x.o"], tmp_path)
    assert "selftest" not in succeeds(["nm", "x.o"], tmp_path)


# ------------------------------------------------------------------------------------------------- names and threads --


@needs_gcc
@pytest.mark.parametrize("kind", PACKAGES)
def test_every_symbol_begins_with_the_nets_name_and_nothing_is_shared(kind, tmp_path):
    """Public symbols are the net's own; no writable memory but that of the golden vectors' replay."""
    include, *files = sources(package(kind, tmp_path / "p"))
    for file in files:
        options = [] if "selftest" in file.name else ["-DVOICE_NO_SELFTEST"]
        succeeds(["gcc", "-O2", "-fno-pic", *options, include, "-c", file, "-o", "x.o"], tmp_path)
        lines = [line.split() for line in succeeds(["nm", "x.o"], tmp_path).splitlines()]
        public = [line[-1] for line in lines if line[-2] in "TDBRCV" or line[-2] == "U"]
        assert public and all(name.startswith("voice_") for name in public), file
        if "selftest" not in file.name:
            assert not [line for line in lines if line[-2] in "DdBbC"], f"{file}: writable data"


@needs_cxx
def test_nets_of_all_packages_link_into_one_firmware(tmp_path):
    """Each in another layout and with its own widest layer, with two more that share kernels as `generate` writes them;
    all headers in one source, in C and in C++."""
    names = []
    command = ["gcc", "-std=c99", "-O1"]
    for k, kind in enumerate((*PACKAGES, "single")):
        name = f"net{k}_{kind}"
        names.append(name)
        command += sources(package(kind, tmp_path / name, name, net(k, max_width=10 * (k + 1))))
    for name, seed in (("plain", 8), ("other", 9)):
        tables = net(seed)
        for path, data in render(tables, name, selftest=golden_vectors(tables, 3)).items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        names.append(name)
        command += [f"-I{tmp_path / name}", *sorted((tmp_path / name).glob("*.c"))]
    command += sorted((tmp_path / "plain" / "rtcore").glob("*.c"))
    includes = "".join(f'#include "{name}.h"\n' for name in names)
    calls = " + ".join(f"({name}_selftest() != 0)" for name in names)
    (tmp_path / "main.c").write_text(f"{includes}int main(void) {{ return {calls}; }}\n")
    succeeds([*command, "main.c", "-o", "firmware"], tmp_path)
    succeeds(["./firmware"], tmp_path)
    (tmp_path / "user.cc").write_text(f"{includes}int use() {{ return {calls}; }}\n")
    folders = [option for option in command if str(option).startswith("-I")]
    succeeds(["g++", *CXX_FLAGS, *folders, "-c", "user.cc", "-o", "user.o"], tmp_path)


THREADS = """
#include <pthread.h>
#include <string.h>

#include "voice.h"

#define STREAMS 4
#define STEPS 60

static int16_t out[2][STREAMS][STEPS][VOICE_OUT_SIZE];

static void stream(int k, int16_t (*y)[VOICE_OUT_SIZE]) {
    voice_state st;
    int16_t x[VOICE_IN_SIZE];
    unsigned int random = 1U + (unsigned int)k;
    voice_reset(&st);
    for (int t = 0; t < STEPS; t++) {
        for (int i = 0; i < VOICE_IN_SIZE; i++) {
            random = random * 1664525U + 1013904223U;
            x[i] = (int16_t)((int)(random >> 18) - 8192);
        }
        voice_step(&st, x, y[t]);
    }
}

static void *body(void *k) {
    stream((int)(size_t)k, out[1][(size_t)k]);
    return NULL;
}

int main(void) {
    pthread_t threads[STREAMS];
    for (int k = 0; k < STREAMS; k++) {
        stream(k, out[0][k]);
    }
    for (int k = 0; k < STREAMS; k++) {
        pthread_create(&threads[k], NULL, body, (void *)(size_t)k);
    }
    for (int k = 0; k < STREAMS; k++) {
        pthread_join(threads[k], NULL);
    }
    return memcmp(out[0], out[1], sizeof out[0]) != 0 || memcmp(out[0][0], out[0][1], sizeof out[0][0]) == 0;
}
"""


@needs_gcc
@pytest.mark.parametrize("kind", ["cmake", "single"])
def test_step_is_reentrant(kind, tmp_path):
    """Streams in threads of their own, under the thread sanitizer: the same bits as one after the other."""
    folder = package(kind, tmp_path / "p", tables=rnnoise_net(np.random.default_rng(SEED), 8, 32))
    (tmp_path / "main.c").write_text(THREADS)
    command = ["gcc", "-std=gnu99", "-O1", "-g", "-pthread", "-fsanitize=thread", "main.c", *sources(folder)]
    succeeds([*command, "-o", "run"], tmp_path)
    succeeds(["./run"], tmp_path)


# ------------------------------------------------------------------------------------------------------------ CMake --

PRODUCT = """cmake_minimum_required(VERSION 3.14)
project(product C)
{brings}
add_executable(product main.c)
target_link_libraries(product PRIVATE alpha::alpha beta::beta)
"""
FETCH = """include(FetchContent)
FetchContent_Declare({name} SOURCE_DIR {folder})
FetchContent_MakeAvailable({name})
"""


@needs_gcc
@pytest.mark.parametrize("how", ["add_subdirectory", "FetchContent", "find_package"])
def test_cmake_brings_two_nets_into_a_product(how, tmp_path):
    cmake = tool("cmake")
    folders = {name: package("cmake", tmp_path / name, name, net(seed)) for name, seed in (("alpha", 1), ("beta", 2))}
    options = []
    if how == "add_subdirectory":
        brings = "".join(f"add_subdirectory({name})\n" for name in folders)
    elif how == "FetchContent":
        brings = "".join(FETCH.format(name=name, folder=folder) for name, folder in folders.items())
    else:
        for name, folder in folders.items():
            succeeds(
                [cmake, "-S", folder, "-B", f"build_{name}", f"-DCMAKE_INSTALL_PREFIX={tmp_path / 'sdk'}"], tmp_path
            )
            succeeds([cmake, "--build", f"build_{name}"], tmp_path)
            succeeds([cmake, "--install", f"build_{name}"], tmp_path)
            shutil.rmtree(folder)
        brings = "".join(f"find_package({name} 0.1 CONFIG REQUIRED)\n" for name in folders)
        options = [f"-DCMAKE_PREFIX_PATH={tmp_path / 'sdk'}"]
    (tmp_path / "CMakeLists.txt").write_text(PRODUCT.format(brings=brings))
    (tmp_path / "main.c").write_text(
        '#include "alpha.h"\n#include "beta.h"\nint main(void) { return alpha_selftest() + beta_selftest(); }\n'
    )
    succeeds([cmake, "-S", ".", "-B", "build", *options], tmp_path)
    succeeds([cmake, "--build", "build"], tmp_path)
    succeeds(["build/product"], tmp_path)


@needs_gcc
def test_cmake_runs_the_self_test(tmp_path):
    folder = package("cmake", tmp_path / "p")
    succeeds([tool("cmake"), "-S", folder, "-B", "build", "-DVOICE_SELFTEST=ON"], tmp_path)
    succeeds([tool("cmake"), "--build", "build"], tmp_path)
    said = succeeds([tool("ctest"), "--test-dir", "build"], tmp_path)
    assert "100% tests passed" in said and "1" in said


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("compiler", ["zig", "arm-none-eabi-gcc"])
def test_cmake_takes_any_toolchain(compiler, core, tmp_path):
    cmake, folder = tool("cmake"), package("cmake", tmp_path / "p", core=core)
    if compiler == "zig":
        pytest.importorskip("ziglang", reason="an optional extra: rtcore[mcu]")
        flags = " ".join(find_target(M55 if core == "cortex-m55" else core).compile)
        for name, command in (("zig-cc", "cc"), ("zig-ar", "ar")):
            (tmp_path / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {command} "$@"\n')
            (tmp_path / name).chmod(0o755)
        setting = [f"set(CMAKE_C_COMPILER {tmp_path}/zig-cc)", f'set(CMAKE_AR {tmp_path}/zig-ar CACHE FILEPATH "")']
        setting += ['set(CMAKE_RANLIB true CACHE FILEPATH "")']
    else:
        flags = f"-mcpu={core} -mthumb" + " -mfloat-abi=hard" * (core == "cortex-m55")
        setting = [f"set(CMAKE_C_COMPILER {tool(compiler)})"]
    setting += ["set(CMAKE_SYSTEM_NAME Generic)", "set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)"]
    setting += [f'set(CMAKE_C_FLAGS_INIT "{flags}")']
    (tmp_path / "toolchain.cmake").write_text("\n".join(setting) + "\n")
    command = [cmake, "-S", folder, "-B", "build", f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / 'toolchain.cmake'}"]
    succeeds(command, tmp_path)
    succeeds([cmake, "--build", "build"], tmp_path)
    assert (tmp_path / "build" / "libvoice.a").stat().st_size > 5000


# ---------------------------------------------------------------------------------------------- Arduino, PlatformIO --

ARDUINO = """#pragma once
#include <cstdio>
#include <cstdlib>

struct Port {
    void begin(long) {}
    void print(unsigned long value) { std::printf("%lu", value); }
    void println(const char *text) { std::printf("%s\\n", text); }
};
static Port Serial;
static inline unsigned long micros() {
    static unsigned long now;
    return now += 7;
}
static inline void delay(unsigned long) { std::exit(0); }
"""
CATEGORIES = (
    "Display Communication Signal_Input/Output Sensors Device_Control Timing Data_Storage Data_Processing Other"
)


@needs_cxx
def test_the_arduino_sketch_compiles_and_reports_the_golden_bits(tmp_path):
    folder = package("arduino", tmp_path / "p")
    (sketch,) = (folder / "examples").rglob("*.ino")
    assert sketch.stem == sketch.parent.name
    (tmp_path / "Arduino.h").write_text(ARDUINO)
    (tmp_path / "main.cc").write_text(
        f'#include "Arduino.h"\n#include "{sketch}"\nint main() {{ setup(); for (;;) loop(); }}\n'
    )
    include, *files = sources(folder)
    for file in files:
        succeeds(["gcc", "-std=gnu11", "-Os", "-c", file, "-o", f"{file.stem}.o"], tmp_path)
    objects = [f"{file.stem}.o" for file in files]
    succeeds(["g++", *CXX_FLAGS, include, "main.cc", *objects, "-o", "sketch"], tmp_path)
    assert succeeds(["./sketch"], tmp_path) == "golden bits: equal\n7 us per frame\n"


def test_library_properties(tmp_path):
    text = (package("arduino", tmp_path / "p") / "library.properties").read_text()
    fields = dict(line.split("=", 1) for line in text.splitlines())
    required = "name version author maintainer sentence paragraph category url architectures includes"
    assert list(fields) == required.split()
    assert re.fullmatch(r"[A-Za-z][\w .-]{0,62}", fields["name"]) and re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["category"].replace(" ", "_") in CATEGORIES.split() and fields["includes"] == "voice.h"
    assert all(value for name, value in fields.items() if name != "url")


def test_library_json(tmp_path):
    folder = package("platformio", tmp_path / "p")
    manifest = json.loads((folder / "library.json").read_text())
    assert re.fullmatch(r"[\w.-]{1,100}", manifest["name"]) and re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert (folder / manifest["build"]["srcDir"] / manifest["headers"]).is_file()


@pytest.mark.parametrize("kind", ["platformio", "arduino"])
def test_platformio_packs_it(kind, tmp_path, monkeypatch):
    """PlatformIO checks the manifest, an Arduino library's too, before it packs."""
    folder = package(kind, tmp_path / "p")
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(tmp_path / "core"))
    monkeypatch.setenv("PLATFORMIO_SETTING_ENABLE_TELEMETRY", "no")
    succeeds([tool("pio"), "pkg", "pack", "--output", tmp_path / "voice.tar.gz", folder], tmp_path)
    assert (tmp_path / "voice.tar.gz").stat().st_size > 5000


# ----------------------------------------------------------------------------------------------------------- Zephyr --

ZEPHYR = """cmake_minimum_required(VERSION 3.14)
project(zephyr_stand_in C)
set(CONFIG_RTCORE_VOICE y)
set(CONFIG_RTCORE_VOICE_SELFTEST y)
add_library(zephyr_interface INTERFACE)
macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  add_library(${name} STATIC)
  target_link_libraries(${name} PUBLIC zephyr_interface)
endmacro()
function(zephyr_include_directories)
  foreach(folder ${ARGV})
    get_filename_component(path ${folder} ABSOLUTE)
    target_include_directories(zephyr_interface INTERFACE ${path})
  endforeach()
endfunction()
function(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGV})
endfunction()
function(zephyr_library_sources_ifdef condition)
  if(${${condition}})
    zephyr_library_sources(${ARGN})
  endif()
endfunction()
add_subdirectory(p/zephyr module)
add_executable(app main.c)
target_link_libraries(app PRIVATE voice zephyr_interface)
"""


@needs_gcc
def test_the_zephyr_module_builds(tmp_path):
    """Against stand-ins of the few functions of Zephyr's build that a module uses."""
    package("zephyr", tmp_path / "p")
    (tmp_path / "CMakeLists.txt").write_text(ZEPHYR)
    (tmp_path / "main.c").write_text('#include "voice.h"\nint main(void) { return voice_selftest(); }\n')
    succeeds([tool("cmake"), "-S", ".", "-B", "build"], tmp_path)
    succeeds([tool("cmake"), "--build", "build"], tmp_path)
    succeeds(["build/app"], tmp_path)


def test_the_zephyr_module_is_described(tmp_path):
    yaml = pytest.importorskip("yaml", reason="a development tool: rtcore[dev]")
    folder = package("zephyr", tmp_path / "p")
    module = yaml.safe_load((folder / "zephyr/module.yml").read_text())
    assert module == {"name": "voice", "build": {"cmake": "zephyr", "kconfig": "zephyr/Kconfig"}}
    assert (folder / module["build"]["cmake"] / "CMakeLists.txt").is_file()


def test_kconfig(tmp_path):
    kconfiglib = pytest.importorskip("kconfiglib", reason="a development tool: rtcore[dev]")
    folder = package("zephyr", tmp_path / "p")
    config = kconfiglib.Kconfig(str(folder / "zephyr/Kconfig"))
    assert set(config.syms) >= {"RTCORE_VOICE", "RTCORE_VOICE_SELFTEST"} and not config.warnings
    config.syms["RTCORE_VOICE"].set_value("y")
    assert config.syms["RTCORE_VOICE_SELFTEST"].str_value == "y"


# ------------------------------------------------------------------------------------------------------ a core's own --


@pytest.mark.parametrize("target", on("cortex-m0", "cortex-m4", "rv32imc", M55))
def test_a_single_pair_gives_the_golden_bits_on_the_emulated_core(target, tmp_path):
    """With the core's own kernels, whose assembly is renamed too; two nets of the same kernels in one image."""
    for module in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(module, reason="an optional extra: rtcore[mcu]")
    found = find_target(target)
    (tmp_path / SCRIPT).write_bytes(linker_script(found))
    zig = [sys.executable, "-m", "ziglang", "cc"]
    objects = []
    for name, seed in (("alpha", 3), ("beta", 4)):
        tables = rnnoise_net(np.random.default_rng(seed), 8 * (seed - 2), 64)
        package("single", tmp_path / name, name, tables, found.core)
        objects.append(f"{name}.o")
        succeeds([*zig, *found.compile, *_build.WARNINGS, "-c", f"{name}/{name}.c", "-o", objects[-1]], tmp_path)
    succeeds([*zig, *found.compile, "-std=c99", "-c", BOARD / found.startup, "-o", "board-startup.o"], tmp_path)
    link = [*found.link, "-Wl,-e,board_reset", "-Wl,-u,alpha_selftest", "-Wl,-u,beta_selftest", "-T", SCRIPT]
    succeeds([*zig, *link, *objects, "board-startup.o", "-o", "image.elf"], tmp_path)
    board = board_of(Firmware(tmp_path / "image.elf", found, "alpha"))
    assert board.call("alpha_selftest") == 0 and board.call("beta_selftest") == 0
    own = {"cortex-m0": "m0_rows_w16_a64", "rv32imc": "rv_rows_w16_a64"}.get(target, "rows_w16_a64")
    assert any(name.startswith(f"alpha_rtcore_{own}") for name in board.symbols)
