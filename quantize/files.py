"""Files are written whole or not at all: complete beside their place, then moved there.

Neighbours: `model.py`, `firmware_sim/report.py`, `cli.py` and `demo.py` (write one file); `emit_c.py` and `package.py`
(write a folder, all files or none).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from quantize.errors import FormatError


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file whole or not at all. Raises FormatError when its folder is missing or cannot be written."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FormatError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise FormatError(f"{path}: a folder, not a file to write")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_folder(out: Path, files: dict[str, bytes]) -> None:
    """Writes files below out, all or none: they are complete in a directory beside (or, if it exists, inside) out
    before the first one moves to its place, and move back when a later one cannot."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; generate needs a directory to write into")
    for target in (out / path for path in files):
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a directory; generate writes a file of that name")
        if target.parent.exists() and not target.parent.is_dir():
            raise NotADirectoryError(f"{target.parent} is a file; generate needs a directory of that name")
    (out if out.exists() else out.parent).mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".generate-", dir=out if out.exists() else out.parent))
    try:
        if not out.exists():
            _lay_down(staging / "new", files)
            os.replace(staging / "new", out)
        else:
            old = {path: (out / path).read_bytes() for path in files if (out / path).is_file()}
            changed = {path: data for path, data in files.items() if old.get(path) != data}
            _lay_down(staging / "new", changed)
            _lay_down(staging / "old", {path: old[path] for path in changed if path in old})
            _exchange(staging, out, list(changed))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _lay_down(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files below a new folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _exchange(staging: Path, out: Path, paths: list[str]) -> None:
    """Moves the files of staging/new to out; when one cannot move, those of staging/old go back."""
    made = sorted({out / folder for path in paths for folder in Path(path).parents if not (out / folder).exists()})
    moved: list[str] = []
    try:
        for folder in made:
            folder.mkdir()
        for path in paths:
            os.replace(staging / "new" / path, out / path)
            moved.append(path)
    except BaseException:
        for path in moved:
            if (staging / "old" / path).exists():
                os.replace(staging / "old" / path, out / path)
            else:
                (out / path).unlink()
        for folder in reversed(made):
            if folder.exists():
                folder.rmdir()
        raise
