"""The README's examples, run as they stand: the Python one writes C, the C one is compiled against it and run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_sim.toolchain import TARGETS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```", README, re.M | re.S)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme")
    (path / "example.py").write_text(block("python"))
    run = subprocess.run([sys.executable, "example.py"], cwd=path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "True (1, 100, 1)\n", run.stdout
    return path


def test_the_python_example_runs_and_writes_what_it_says(folder):
    assert (folder / "voice.safetensors").is_file()
    for name in ("voice.h", "voice_weights.h", "voice.c", "voice_selftest.c", "CMakeLists.txt", "rtcore/rtcore.h"):
        assert (folder / "voice_c" / name).is_file()


def test_the_c_example_compiles_and_gives_the_golden_bits(folder):
    include, *body = block("c").splitlines()
    program = [include, "int main(void) {", *body, "}"]
    (folder / "main.c").write_text("\n".join(program) + "\n")
    generated = [str(p) for p in sorted((folder / "voice_c").rglob("*.c"))]
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-Ivoice_c", "main.c", *generated]
    subprocess.run([*command, "-o", "main"], cwd=folder, check=True)
    assert subprocess.run(["./main"], cwd=folder).returncode == 0


def test_the_commands_exist():
    commands = set(re.findall(r"^    rtcore (\w+)", README, re.M))
    shown = subprocess.run([sys.executable, "-m", "firmware_sim", "--help"], capture_output=True, text=True, check=True)
    assert commands == {"quantize", "generate", "simulate", "validate", "analyze", "demo"}
    assert all(command in shown.stdout for command in commands)


def test_the_targets_are_those_that_exist():
    row = re.search(r"^\| targets \| (.*) \|$", README, re.M)[1]
    assert re.findall(r"[\w-]+(?=,|$| \()", row) == ["host", *TARGETS]


def test_the_two_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)
