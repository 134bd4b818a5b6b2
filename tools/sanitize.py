"""Builds the extensions under AddressSanitizer and UndefinedBehaviorSanitizer and runs tests/rtcore against that build.

The sources are copied to a temporary folder, so that the working build stays as it is. Exit status of pytest.

    python tools/sanitize.py [pytest arguments]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "SPEC.md", "rtcore", "quantize", "tests", "tools")
NOT_COPIED = shutil.ignore_patterns("*.so", "__pycache__", "firmware")


def sanitizer_runtime() -> str:
    """The runtime library that must be loaded before Python is."""
    command = [os.environ.get("CC", "cc"), "-print-file-name=libasan.so"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="rtcore-sanitize-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=NOT_COPIED)
            else:
                shutil.copy(source, copy / name)
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(build, cwd=copy, env=os.environ | {"RTCORE_SANITIZE": "1"}, check=True)
        environment = os.environ | {
            "LD_PRELOAD": sanitizer_runtime(),
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter keeps memory of its own until the end
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONPATH": str(copy),
        }
        found = "import rtcore, pathlib; print(pathlib.Path(rtcore.__file__).parent)"
        where = subprocess.run([sys.executable, "-c", found], cwd=copy, env=environment, capture_output=True, text=True)
        if where.stdout.strip() != str(copy / "rtcore"):
            sys.exit(f"the sanitized build is not what gets imported: {where.stdout}{where.stderr}")
        tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(arguments or ["tests/rtcore"])]
        return subprocess.run(tests, cwd=copy, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
