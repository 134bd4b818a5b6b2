"""What `generate` writes: deterministic, whole or not at all, without a warning, buildable as it lies.

Neighbours: `quantize/emit_c.py`, `quantize/c_names.py` and `quantize/templates/` (what is tested), `test_c_api.py`
(what the generated functions do).
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nets import Builder, memory_net, random_tables
from quantize.c_layers import ROWS
from quantize.c_names import checked_name, comment, identifiers
from quantize.emit_c import TABLE_READERS, WIDTH, Golden, generate, kernel_files, render, unreached
from quantize.errors import QuantizeError
from quantize.golden import golden_vectors
from rtcore import _build
from rtcore.streams import STREAMS
from rtcore.tables import Tables
from window_nets import OPTIONS, WindowBuilder

SEED = 31
DIGEST = "0123456789abcdef" * 4
CXX_FLAGS = ("-std=c++11", "-Wall", "-Wextra", "-Werror")
COMPILERS = {
    "gcc": ("gcc",),
    "clang": ("clang",),
    "arm-none-eabi-gcc": ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"),
}


def net(seed=SEED, **kwargs) -> Tables:
    return random_tables(np.random.default_rng(seed), **kwargs)


def with_selftest(tables, name="net", steps=5):
    return render(tables, name, digest=DIGEST, selftest=golden_vectors(tables, steps))


def lay_down(files, folder):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def succeeds(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def snapshot(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def renamed(tables, tensors, layers):
    """The same net under other names."""
    new = {
        name: dataclasses.replace(
            t, name=tensors.get(name, name), owner=layers.get(t.owner, tensors.get(t.owner, t.owner))
        )
        for name, t in tables.tensors.items()
    }
    return dataclasses.replace(
        tables,
        tensors={t.name: t for t in new.values()},
        layers=tuple(
            dataclasses.replace(
                x,
                name=layers.get(x.name, x.name),
                inputs=tuple(tensors.get(i, i) for i in x.inputs),
                output=tensors.get(x.output, x.output),
            )
            for x in tables.layers
        ),
        inputs=tuple(tensors.get(i, i) for i in tables.inputs),
        outputs=tuple(tensors.get(o, o) for o in tables.outputs),
        state_inputs=(),
    )


# ------------------------------------------------------------------------------------------------------- content --


def test_the_same_tables_give_the_same_bytes_in_every_process():
    """Sets and dicts may be walked in another order by another process."""
    code = (
        "import hashlib, numpy as np, nets; from quantize.emit_c import render; "
        f"files = render(nets.random_tables(np.random.default_rng({SEED})), 'net'); "
        "print(hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())"
    )
    hashes = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_files_carry_provenance_and_neither_dates_nor_places(tmp_path):
    generate(net(), tmp_path / "out", "net", digest=DIGEST, selftest=golden_vectors(net(), 2))
    for name in ("net.h", "net.c", "net_weights.h", "net_selftest.c", "CMakeLists.txt"):
        text = (tmp_path / "out" / name).read_text()
        assert "rtcore 0." in text and "SPEC version 1" in text and DIGEST in text, name
        assert not re.search(r"20\d\d-\d\d|\d\d:\d\d", text) and str(tmp_path) not in text, name
        assert max(map(len, text.splitlines())) <= WIDTH, name


def test_kernels_are_copied_byte_for_byte():
    files = render(net(), "net")
    kernels = {path: data for path, data in files.items() if path.startswith("rtcore/")}
    assert sorted(kernels) == [f"rtcore/{name}" for name in kernel_files()]
    assert set(_build.SOURCES_I16) <= set(kernel_files())
    for path, data in kernels.items():
        assert data == (_build.CSRC / path.removeprefix("rtcore/")).read_bytes(), path


def test_shared_weights_are_one_table():
    """A layer that is called twice: two calls, one copy of its weights, and only its own where they differ."""
    tables = net()
    dense = next(layer for layer in tables.layers if layer.kind == "dense_i16")
    twin = dataclasses.replace(dense, name="twin")
    both = dataclasses.replace(tables, layers=(*tables.layers, twin))
    once, twice = (render(t, "net", digest=DIGEST)["net_weights.h"].decode() for t in (tables, both))
    assert once.count("static const") == twice.count("static const")
    assert ".twin = {" in twice


@pytest.mark.parametrize("core", STREAMS)
def test_tables_are_read_where_any_matrix_is_no_stream(core):
    """Of every kind with matrices, each of them; portable kernels read tables only."""
    b = WindowBuilder(np.random.default_rng(5))
    x = b.input(72)
    form = {"bits": 8, "acc": 32}
    for make in (b.dense, b.gru, b.rnn, b.lstm):
        make(x, 5, **form)
    b.lstm(x, 6, 3, **form)
    ints, m, n, _ = OPTIONS["3x3, padded"]
    b.convolution("conv_i16", b.slice(x, 0, 40), ints | {"groups": 1}, m, n, 18, **form)
    whole, (rows, positions) = b.tables(), sorted(set(TABLE_READERS.values()), reverse=True)
    assert unreached(whole, core) == {rows, positions} and unreached(whole) == {positions}
    for i, layer in enumerate(whole.layers):
        for side in (name.removesuffix("mult") for name in layer.arrays if name.endswith("mult")):
            weights, mult = (layer.arrays[side + name] for name in ("weights", "mult"))
            wide = {f"{side}weights": weights.astype(np.int16), f"{side}mult": np.full_like(mult, 3)}
            layers = list(whole.layers)
            layers[i] = dataclasses.replace(layer, arrays=layer.arrays | wide)
            found = unreached(dataclasses.replace(whole, layers=tuple(layers)), core)
            assert found == {positions}, f"{layer.name}: {side or 'its matrix'} of int16 with multipliers"


def test_without_golden_vectors_there_is_no_self_test():
    files = render(net(), "net")
    assert "net_selftest.c" not in files
    assert all(b"selftest" not in data for path, data in files.items() if not path.startswith("rtcore/"))


# --------------------------------------------------------------------------------------------------------- names --


@pytest.mark.parametrize("name", ["net", "Denoiser2", "a_b", "x__y", "NET"])
def test_names_that_c_takes(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "identifier"),
        ("2net", "identifier"),
        ("my-net", "identifier"),
        ("net\n", "identifier"),
        ("_net", "identifier"),
        ("größe", "identifier"),
        (None, "identifier"),
        ("int", "keyword"),
        ("class", "keyword"),
        ("co_await", "keyword"),
        ("rtcore", "kernels"),
        ("rtcore_net", "kernels"),
        ("RTCORE2", "kernels"),
        ("string", "header"),
        ("test", "CMake"),
    ],
)
def test_names_that_are_refused(name, why, tmp_path):
    with pytest.raises(QuantizeError, match=why) as error:
        generate(net(), tmp_path / "out", name)
    assert repr(name) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_identifiers_are_legal_and_never_equal():
    names = ["gru.0", "gru/0", "GRU 0", "0", "while", "in", "*/", "", "a__b", "ünïcode", "arena"]
    found = identifiers(names, reserved={"in", "arena"})
    assert list(found) == names
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", c) for c in found.values()), found
    assert len({c.upper() for c in found.values()}) == len(names)
    assert not {c.upper() for c in found.values()} & {"IN", "ARENA", "WHILE"}


def test_comments_stay_closed():
    assert comment("a */ b /* c // d \\ \n é") == "a * / b / * c / / d / ? ?"


def test_hostile_names_of_layers_and_tensors_compile(tmp_path):
    tables = net(1)
    layers = dict(zip([x.name for x in tables.layers], ["in", "arena", "int", "a */ b", "w", "w.", "\\", "0", "é"]))
    owned = [name for name, t in tables.tensors.items() if t.place != "state"]
    tensors = dict(zip(owned, ["st", "w", "in0", "/*", "out", "for", "x\ny", "??/", "0"]))
    hostile = renamed(tables, tensors, layers)
    lay_down(with_selftest(hostile), tmp_path)
    command = ("cc", *_build.WARNINGS, "net.c", "net_selftest.c", "-DNET_SELFTEST_MAIN", "-o", "run")
    succeeds([*command, *(f"rtcore/{s}" for s in _build.SOURCES_I16)], tmp_path)
    succeeds(["./run"], tmp_path)


# ------------------------------------------------------------------------------------------------------- writing --


def test_unchanged_files_are_left_alone_and_foreign_ones_kept(tmp_path):
    out = tmp_path / "deep" / "out"
    written = generate(net(), out, "net")
    assert written == sorted(written) and all(path.is_file() for path in written)
    (out / "notes.txt").write_text("mine")
    before = snapshot(out)
    assert generate(net(), out, "net") == written
    assert snapshot(out) == before
    generate(net(SEED + 1), out, "net")
    after = snapshot(out)
    changed = {path for path in before if before[path] != after[path]}
    assert {"net.c", "net.h", "net_weights.h"} <= changed
    assert not {path for path in changed if path.startswith("rtcore/")} and "notes.txt" not in changed
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(("fresh", "call"), [(True, 0), (False, 0), (False, 2)])
def test_all_files_or_none(tmp_path, monkeypatch, fresh, call):
    """A disk that fails in the middle leaves what was there before."""
    out = tmp_path / "out"
    if not fresh:
        generate(net(), out, "net")
        (out / "net.c").unlink()
    before = snapshot(tmp_path)
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == call + 1:
            raise OSError("no space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no space left"):
        generate(net(SEED + 1), out, "net")
    after = snapshot(tmp_path)
    assert {path: data for path, (data, _) in after.items()} == {path: data for path, (data, _) in before.items()}
    assert out.exists() != fresh
    assert [path.name for path in tmp_path.iterdir()] == ([] if fresh else ["out"])


def test_what_stands_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        generate(net(), tmp_path / "file", "net")
    (tmp_path / "out" / "net.c").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"net\.c is a directory"):
        generate(net(), tmp_path / "out", "net")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rtcore").write_text("")
    with pytest.raises(NotADirectoryError, match="rtcore is a file"):
        generate(net(), tmp_path / "other", "net")
    assert snapshot(tmp_path).keys() == {"file", "other/rtcore"}


# ------------------------------------------------------------------------------------------------- refused tables --


def test_tables_of_another_version_or_kind_are_refused():
    with pytest.raises(QuantizeError, match="spec version 99"):
        render(dataclasses.replace(net(), spec=99), "net")
    odd = dataclasses.replace(net().layers[0], kind="lstm_i17")
    with pytest.raises(QuantizeError, match=f"layer {odd.name}: .*lstm_i17"):
        render(dataclasses.replace(net(), layers=(odd, *net().layers[1:])), "net")


@pytest.mark.parametrize("what", ["inputs", "outputs", "states"])
def test_golden_vectors_of_another_net_are_refused(what):
    golden = golden_vectors(net(), 4)
    arrays = [a[..., :-1] if a.shape[-1] > 1 else np.repeat(a, 2, -1) for a in getattr(golden, what)]
    with pytest.raises(QuantizeError, match=f"golden vectors: {what} are"):
        render(net(), "net", selftest=dataclasses.replace(golden, **{what: arrays}))


def test_golden_vectors_need_a_step():
    empty = Golden(inputs=[np.zeros((0, 3), np.int16)], outputs=[], states=[])
    with pytest.raises(QuantizeError, match="at least one step"):
        render(net(), "net", selftest=empty)


# ----------------------------------------------------------------------------------------------------- compilers --


def shapes() -> dict[str, Tables]:
    """Nets with every form of generated code: random ones, one without a recurrent layer, one without any table, one
    that ignores an input, one that copies its input."""
    rng = np.random.default_rng(SEED)
    found = {f"random{seed}": net(seed) for seed in range(4)}
    found["feedforward"] = net(7, memory=False)
    found["every recurrent kind"] = memory_net(rng, 8, 32)
    b = Builder(rng)
    b.output(b.rnn(b.input(3), 5, "tanh"))
    found["no state of 32 bits"] = b.tables()
    b = Builder(rng)
    b.gru(b.input(3), 5, "tanh", True)
    found["no output, only a state"] = b.tables()
    b = Builder(rng)
    x = b.input(3)
    b.input(2)
    b.output(b.pair(x, b.activation(x), "mul_i16"))
    found["no tables, one input unread"] = b.tables()
    b = Builder(rng)
    b.output(b.input(1))
    found["copy"] = b.tables()
    return found


@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_warning_from(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    for what, tables in shapes().items():
        lay_down(with_selftest(tables), tmp_path)
        for source in ("net.c", "net_selftest.c"):
            print(what, source)
            succeeds([*COMPILERS[compiler], *_build.WARNINGS, "-O2", "-c", source, "-o", "net.o"], tmp_path)


def test_no_warning_from_zig(tmp_path):
    pytest.importorskip("ziglang", reason="an optional extra: rtcore[mcu]")
    for what, tables in shapes().items():
        print(what)
        lay_down(with_selftest(tables), tmp_path)
        command = [sys.executable, "-m", "ziglang", "cc", *_build.WARNINGS, "-O2", "-c"]
        succeeds([*command, "net.c", "-o", "net.o"], tmp_path)
        succeeds([*command, "net_selftest.c", "-o", "selftest.o"], tmp_path)


def test_rows_are_those_of_the_header():
    header = (_build.CSRC / "rtcore.h").read_text()
    assert int(re.search(r"#define RTCORE_ROWS (\d+)", header)[1]) == ROWS


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: g++ is not on PATH")
def test_header_is_cxx(tmp_path):
    for what, tables in shapes().items():
        print(what)
        lay_down(with_selftest(tables), tmp_path)
        (tmp_path / "user.cc").write_text(
            '#include "net.h"\nint use(net_state *st) { net_reset(st); return net_check(st->weights); }\n'
        )
        succeeds(["g++", *CXX_FLAGS, "-c", "user.cc", "-o", "user.o"], tmp_path)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cmake_builds_two_nets_in_one_project(tmp_path):
    """As a product would take them: add_subdirectory each, link both; the first brings the kernels."""
    for name, seed in (("alpha", 1), ("beta", 2)):
        lay_down(with_selftest(net(seed), name), tmp_path / name)
    (tmp_path / "main.c").write_text(
        '#include "alpha.h"\n#include "beta.h"\nint main(void) { return alpha_selftest() + beta_selftest(); }\n'
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(product C)\nadd_subdirectory(alpha)\nadd_subdirectory(beta)\n"
        "add_executable(product main.c)\ntarget_link_libraries(product PRIVATE alpha beta)\n"
    )
    succeeds(["cmake", "-S", ".", "-B", "build", "-DALPHA_SELFTEST=ON"], tmp_path)
    succeeds(["cmake", "--build", "build"], tmp_path)
    succeeds(["build/product"], tmp_path)
    succeeds(["build/alpha/alpha_selftest"], tmp_path)
