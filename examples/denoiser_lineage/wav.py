"""Sound files: 16 kHz mono, 16 bits. The standard library's `wave` does the format.

Neighbours: `train.py` and `denoise.py`.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from frontend import RATE


def read_wav(path: str | Path) -> np.ndarray:
    """float64 [samples], +-1. Raises ValueError for sound of another kind."""
    with wave.open(str(path)) as file:
        found = file.getframerate(), file.getnchannels(), 8 * file.getsampwidth()
        if found != (RATE, 1, 16):
            raise ValueError(f"{path}: {found[0]} Hz, {found[1]} channels, {found[2]} bits; expected {RATE} Hz, 1, 16")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def write_wav(path: str | Path, sound: np.ndarray) -> None:
    """sound: [samples], +-1; what is beyond is clipped."""
    raw = np.clip(np.rint(np.asarray(sound) * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(raw.tobytes())
