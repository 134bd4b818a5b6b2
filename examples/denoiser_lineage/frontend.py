"""From sound to the net's 42 features, and from its 22 band gains back to sound. numpy alone.

A frame is 512 samples of 16 kHz mono, 256 apart, under a sine window before and after (their products overlap to 1).
Its spectrum is summed into 22 triangular bands, as narrow as a pitch harmonic below, wide above. A gain per band,
linear between the bands' centres, multiplies the spectrum. Neighbours: `train.py` and `denoise.py` use it.
"""

from __future__ import annotations

import numpy as np

RATE = 16000
WINDOW, HOP = 512, 256
CENTRES = np.array([0, 3, 6, 9, 12, 15, 19, 23, 27, 32, 38, 45, 53, 62, 73, 86, 101, 119, 140, 165, 200, 256])  # bins
BANDS, FEATURES = len(CENTRES), 42
SHAPE = np.sin(np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)
TRIANGLES = np.stack([np.interp(np.arange(WINDOW // 2 + 1), CENTRES, row) for row in np.eye(BANDS)])  # sum to 1 per bin
CEPSTRUM = np.sqrt(2 / BANDS) * np.cos(np.pi / BANDS * np.outer(np.arange(8), np.arange(BANDS) + 0.5))
QUIETEST = 1e-7  # power: what is below the rounding of 16-bit sound


def spectra(sound: np.ndarray) -> np.ndarray:
    """sound: float [.., samples], +-1. Returns complex [.., frames, 257]; frame t ends with sample 256 t + 255."""
    padded = np.concatenate([np.zeros((*sound.shape[:-1], WINDOW - HOP)), sound], -1)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, -1)[..., ::HOP, :]
    return np.fft.rfft(frames * SHAPE)


def sound_of(spectrum: np.ndarray) -> np.ndarray:
    """The inverse of `spectra` for one sound, [frames, 257]: the samples that two frames cover."""
    frames = np.fft.irfft(spectrum, WINDOW) * SHAPE
    return (frames[:-1, HOP:] + frames[1:, :HOP]).reshape(-1)


def features_of(spectrum: np.ndarray) -> np.ndarray:
    """spectrum: complex [.., frames, 257]. Returns float32 [.., frames, 42]: the bands' energies in dB, the first 8
    coefficients of their cepstrum, and how the first 6 of these move (first and second differences); in tens of dB."""
    energy = (np.abs(spectrum) ** 2) @ (TRIANGLES / TRIANGLES.sum(1, keepdims=True)).T
    level = np.log10(energy + QUIETEST) + 2
    cepstrum = level @ CEPSTRUM.T
    cepstrum[..., 0] /= 4
    before = np.concatenate([cepstrum[..., :1, :6], cepstrum[..., :1, :6], cepstrum[..., :6]], -2)
    now, last, oldest = before[..., 2:, :], before[..., 1:-1, :], before[..., :-2, :]
    return np.concatenate([level, cepstrum, now - oldest, now - 2 * last + oldest], -1).astype(np.float32)


def apply(gains: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """gains: [frames, 22], spectrum [frames, 257]. Returns the sound."""
    return sound_of(spectrum * (gains @ TRIANGLES))


def snr(clean: np.ndarray, sound: np.ndarray) -> float:
    """Signal-to-noise ratio in dB: whatever differs from the clean sound is noise."""
    return float(10 * np.log10(np.sum(clean**2) / np.sum((sound - clean) ** 2)))
