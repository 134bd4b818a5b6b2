"""Voices for training and judging, spoken by espeak-ng (Debian: apt-get install espeak-ng). Needed by `train.py` only.

Training voices are made-up words and numbers, read in 24 languages by the SPEAKERS at random pitches and speeds; the
held-out ones are sentences in English, German and Swahili, none of them a language of training, read by other speakers.
"""

from __future__ import annotations

import subprocess

import numpy as np
from frontend import RATE

LANGUAGES = (
    *("fr-fr", "es", "it", "pt-br", "ru", "pl", "sv", "nl", "fi", "tr", "hu", "cs"),
    *("ro", "el", "da", "nb", "id", "ms", "vi", "cy", "hr", "is", "ga", "ta"),
)
SPEAKERS = (
    *("m1", "m2", "m3", "m4", "f1", "f2", "f3", "anika"),
    *("klatt2", "klatt4", "michael", "linda", "edward", "steph"),
)
ONSETS = (
    *("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s"),
    *("t", "v", "z", "sh", "ch", "tr", "st", "kr", "pl", "br", ""),
)
CODAS = ("", "", "", "n", "r", "s", "l", "m", "t", "k")
HELD_OUT = (  # voice, pitch (0..99), words a minute, text
    ("en-gb+f4", 55, 165, "The old lighthouse keeper counts the ships that pass before the evening fog comes in."),
    ("de+m7", 40, 150, "Gestern haben wir am Ufer gesessen und zugehört, wie der Wind durch das Schilf geht."),
    ("en-us+m5", 30, 175, "Please leave the parcel behind the green door, and ring twice when you go."),
    ("sw+f5", 60, 160, "Watoto wanacheza mpira karibu na mto kila siku jioni baada ya shule."),
    ("en-gb-scotland+m6", 45, 185, "Six fresh herrings, a pound of butter and two loaves, as quickly as you can."),
    ("de+belinda", 50, 170, "Nimm bitte den früheren Zug, sonst verpassen wir das Konzert in der alten Kirche."),
)


def speak(voice: str, pitch: int, speed: int, text: str) -> np.ndarray:
    """float64 [samples] of 16 kHz mono, its peak at 0.5."""
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    rate = int.from_bytes(wav[24:28], "little")
    sound = np.frombuffer(wav[44 : len(wav) // 2 * 2], "<i2").astype(np.float64)
    return resampled(sound / (2 * np.abs(sound).max()), rate)


def resampled(sound: np.ndarray, rate: int) -> np.ndarray:
    """To 16 kHz by cutting (or padding) the spectrum, over a length that both rates divide."""
    sound = np.concatenate([sound, np.zeros(-len(sound) % (rate // 50))])
    samples = len(sound) * RATE // rate
    return np.fft.irfft(np.fft.rfft(sound)[: samples // 2 + 1], samples) * samples / len(sound)


def made_up(rng) -> str:
    """A sentence of random syllables and a number or two."""
    words = []
    for _ in range(rng.integers(5, 11)):
        syllables = range(rng.integers(1, 4))
        words.append("".join(rng.choice(ONSETS) + rng.choice(list("aeiou")) + rng.choice(CODAS) for _ in syllables))
    words.insert(int(rng.integers(len(words))), str(rng.integers(10000)))
    return " ".join(words[:4]) + rng.choice([", ", " ", ". "]) + " ".join(words[4:])


def training_voices(rng, count: int) -> list[np.ndarray]:
    """`count` sentences."""
    sounds = []
    for _ in range(count):
        voice = f"{rng.choice(LANGUAGES)}+{rng.choice(SPEAKERS)}"
        sounds.append(speak(voice, int(rng.integers(10, 90)), int(rng.integers(120, 230)), made_up(rng)))
    return sounds
