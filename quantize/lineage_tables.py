"""One layer as a file of the RNNoise/Opus family holds it, in values, and the checks that every such file needs.

Neighbours: `lineage_c.py` and `lineage_rnnn.py` (make these), `lineage.py` (turns them into modules).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantize.errors import FormatError

LARGEST_FILE = 64 * 2**20  # bytes: an LPCNet of a million float weights takes a quarter of it


@dataclass(frozen=True)
class LayerTable:
    """Values, not raw integers. weights: float64 [nb_inputs][rows], rows N or 3N (z r h); bias: float64 [N], [3N] or
    [6N] (of the input, then of the recurrent product); recurrent: float64 [N][3N], None for a dense layer."""

    name: str
    activation: str
    weights: np.ndarray
    bias: np.ndarray
    recurrent: np.ndarray | None = None
    reset_after: bool = False


def read_text(path: str | os.PathLike) -> str:
    """The whole file as text. Raises FormatError when it is missing, no file, too large, or not text."""
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such file")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise FormatError(f"{path}: {size} bytes; sources of up to {LARGEST_FILE} bytes are read")
    text = path.read_bytes().decode("latin-1")
    if "\0" in text:
        raise FormatError(f"{path}: binary data, not text; pass the source of the tables, not what was built from it")
    return text
