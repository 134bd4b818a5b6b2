"""The house rules that a machine can check: imports go down only, kernels stay pure, constants stand once."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import quantize
from graphs import gru_graph
from rtcore import _build, tables

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "rtcore" / "csrc"
TORCH_FACING = {"nn.py", "lineage.py", "demo.py"}  # and quantize/torch_*.py, quantize/onnx_*.py
PACKAGES = ("rtcore", "quantize", "firmware_sim")


def sources(*suffixes):
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*") if p.suffix in suffixes)


def imported(path):
    """Top-level names that a .py or .pyx file imports, wherever in the file."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]
    else:
        yield from re.findall(r"^\s*(?:from|import|cimport)\s+(\w+)", path.read_text(), re.M)


def test_imports_go_down_only():
    for path in sources(".py", ".pyx", ".pxd"):
        package = path.relative_to(ROOT).parts[0]
        forbidden = {
            "rtcore": {"quantize", "firmware_sim", "torch", "keras"},
            "quantize": {"firmware_sim", "keras"},
            "firmware_sim": {"keras"},
        }
        torch_facing = path.name in TORCH_FACING or (
            package == "quantize" and path.name.startswith(("torch_", "onnx_"))
        )
        found = set(imported(path)) & (forbidden[package] | (set() if torch_facing else {"torch"}))
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_without_the_optional_ones(package):
    blocked = ["torch", "onnx", "unicorn", "capstone", "ziglang", "elftools", "matplotlib", "sklearn", "h5py", "keras"]
    code = f"import sys; [sys.modules.__setitem__(n, None) for n in {blocked}]; import {package}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_loading_and_running_a_saved_net_needs_numpy_and_safetensors_alone(tmp_path):
    blocked = [
        "torch",
        "onnx",
        "unicorn",
        "capstone",
        "ziglang",
        "elftools",
        "matplotlib",
        "sklearn",
        "h5py",
        "keras",
        "jinja2",
        "click",
        "rich",
    ]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 5, 4))
    quantize.quantize_graph(gru_graph(rng, 4, 6), [x]).save(tmp_path / "net.safetensors")
    code = (
        f"import sys; [sys.modules.__setitem__(n, None) for n in {blocked}]\n"
        "import numpy, quantize, rtcore\n"
        f"net = rtcore.Net(quantize.load({str(tmp_path / 'net.safetensors')!r}).tables)\n"
        "print(net.run([numpy.ones((1, 5, 4), numpy.int16)]).outputs[0].shape)\n"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout == "(1, 5, 6)\n"


def strip_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)


@pytest.mark.parametrize("path", sorted(CSRC.rglob("*.[ch]")), ids=lambda p: str(p.relative_to(CSRC)))
def test_kernels_use_nothing_of_the_c_library(path):
    text = strip_comments(path.read_text())
    includes = set(re.findall(r"#include\s+<([^>]+)>", text))
    own = {"arm_mve.h"} if path.parent.name == "cortex_m55" else set()  # the intrinsics of its vectors
    assert includes <= {"stdint.h", "stddef.h", "float.h"} | own, f"{path.name} includes {includes}"
    assert not re.search(r"\b(malloc|calloc|free|printf|expf?|tanhf?|floorf?|memcpy|goto|setjmp)\s*\(", text)


def test_kernels_have_no_writable_globals_and_no_foreign_symbols(tmp_path):
    """nm over the objects of the host compiler: only text, constants, and calls to each other."""
    names = [*_build.SOURCES_I16, *_build.SOURCES_F32]
    objects = []
    for name in names:
        objects.append(tmp_path / f"{name}.o")
        command = ["cc", "-O2", *_build.WARNINGS, *_build.KERNEL_FLAGS, "-fno-pic", "-c", str(CSRC / name), "-o"]
        subprocess.run([*command, str(objects[-1])], check=True)
    lines = subprocess.run(["nm", *map(str, objects)], check=True, capture_output=True, text=True).stdout.splitlines()
    kinds = {}
    for line in lines:
        *_, kind, name = line.split() if len(line.split()) >= 2 else (None, None, None)
        kinds.setdefault(kind, set()).add(name)
    assert not kinds.keys() & {"D", "d", "B", "b", "C"}, f"writable data: {kinds}"
    own = kinds["T"] | kinds["R"]
    assert kinds.get("U", set()) <= own, f"symbols from outside: {kinds['U'] - own}"
    assert all(name.startswith(("rtcore_", "compute_")) for name in own), own


def test_the_macro_switches_change_no_number():
    """The only conditions in kernel sources: guards, C++, overridable capacity and hooks, the lineage's generation, and
    whether the compiler has GNU's attributes."""
    names = (
        r"RTCORE_(?:[A-Z0-9_]*_)?H|RTCORE_MAX_NEURONS|RTCORE_ON_SATURATE|RTCORE_LINEAGE_INT8|MAX_NEURONS|__cplusplus|"
        r"__GNUC__"
    )
    for path in sorted(CSRC.rglob("*.[ch]")):
        refusal = r"#\s*if[^\n]*\n\s*#\s*error[^\n]*\n\s*#\s*endif"
        text = re.sub(refusal, "", strip_comments(path.read_text()))
        for condition in re.findall(r"^\s*#\s*(?:if|ifdef|ifndef|elif)\b(.*)$", text, re.M):
            assert re.fullmatch(rf"[\s!()]*(?:defined)?[\s(]*(?:{names})[\s)]*", condition), (
                f"{path.name}: #if {condition}"
            )


def test_spec_version_and_activations_stand_in_c_as_in_python():
    header = (CSRC / "rtcore.h").read_text()
    assert int(re.search(r"RTCORE_SPEC_VERSION (\d+)", header)[1]) == tables.SPEC_VERSION
    codes = re.findall(r"#define RTCORE_ACTIVATION_(\w+) (\d+)", header)
    assert {name.lower(): int(code) for name, code in codes} == tables.ACTIVATIONS
    assert f"Spec version {tables.SPEC_VERSION} " in (ROOT / "SPEC.md").read_text()


def test_files_are_one_thing():
    for path in [*sources(".py", ".pyx", ".c", ".h"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("tools/*.py")]:
        assert len(path.read_text().splitlines()) <= 600, f"{path.relative_to(ROOT)}: is it one thing?"
        assert path.name != "utils.py"
    for path in (ROOT / "rtcore").glob("*.pyx"):
        limit = 330 if path.name == "net.pyx" else 150  # net.pyx is the runtime, the others are glue
        assert len(path.read_text().splitlines()) <= limit, f"{path.name}: glue stays short"


def test_every_file_says_what_it_is_for():
    for path in sources(".py", ".pyx"):
        if path.read_text().strip():
            assert (
                ast.get_docstring(ast.parse(path.read_text()))
                if path.suffix == ".py"
                else '"""' in path.read_text()[:9]
            )
    for path in sources(".c", ".h"):
        assert path.read_text().startswith(f"/* {path.name} - "), path.name


def test_nothing_is_left_undone():
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplemented\w*)\b")
    for path in [*sources(".py", ".pyx", ".pxd", ".c", ".h", ".jinja"), *ROOT.glob("*.md")]:
        assert not words.search(path.read_text()), path.relative_to(ROOT)
