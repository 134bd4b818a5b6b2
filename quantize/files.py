"""Files are written whole or not at all: complete beside their place, then moved there.

Neighbours: `model.py`, `firmware_sim/report.py`, `cli.py` and `demo.py` (write one file); `emit_c.py` (writes a folder,
all files or none, by itself).
"""

from __future__ import annotations

import os
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
