"""Noises made of random numbers, by numpy alone: kinds to train on, and other kinds to be judged on.

Each kind is a function (rng, samples) -> float64 [samples], of any level; `mix` sets it. Neighbours: `frontend.py`,
`train.py`, `denoise.py`.
"""

from __future__ import annotations

import numpy as np
from frontend import RATE


def shaped(rng, samples: int, decibels) -> np.ndarray:
    """Gaussian noise with a spectrum: decibels(frequencies in Hz) -> level."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    return np.fft.irfft(spectrum * 10 ** (decibels(np.fft.rfftfreq(samples, 1 / RATE)) / 20), samples)


def octaves(f: np.ndarray) -> np.ndarray:
    """Octaves above 125 Hz, flat below 30 Hz."""
    return np.log2(np.maximum(f, 30) / 125)


def wander(rng, samples: int, seconds: float) -> np.ndarray:
    """A slow random curve of unit variance that turns about every `seconds`."""
    knots = rng.standard_normal(max(int(samples / RATE / seconds), 1) + 2)
    return np.interp(np.arange(samples), np.linspace(0, samples, len(knots)), knots)


def buzz(rng, samples: int, pitch: np.ndarray, slope: float) -> np.ndarray:
    """Harmonics of a pitch in Hz per sample, each `slope` dB per octave weaker, with random levels and phases."""
    turns = np.cumsum(pitch) / RATE
    out = np.zeros(samples)
    for k in range(1, min(40, int(RATE / 2 / pitch.max())) + 1):
        level = 10 ** ((slope * np.log2(k) + rng.normal(0, 5)) / 20)
        out += level * np.sin(2 * np.pi * (k * turns + rng.random()))
    return out


# ------------------------------------------------------------------------------------------------ for training --


def coloured(rng, samples: int) -> np.ndarray:
    """From white to brown."""
    slope = rng.uniform(-9, 2)
    return shaped(rng, samples, lambda f: slope * octaves(f))


def bumpy(rng, samples: int) -> np.ndarray:
    """A random smooth spectrum: a slope and six hills or valleys."""
    slope, centres = rng.uniform(-7, 1), rng.uniform(-2, 6, 6)
    heights, widths = rng.normal(0, 10, 6), rng.uniform(0.3, 1.5, 6)
    hills = lambda x: (heights * np.exp(-(((x[:, None] - centres) / widths) ** 2))).sum(1)  # noqa: E731
    return shaped(rng, samples, lambda f: slope * octaves(f) + hills(octaves(f)))


def hum(rng, samples: int) -> np.ndarray:
    """A steady pitch with harmonics, over a floor."""
    tone = buzz(rng, samples, np.full(samples, rng.uniform(40, 400)), rng.uniform(-14, -4))
    floor = coloured(rng, samples)
    return tone / tone.std() + rng.uniform(0.1, 1) * floor / floor.std()


def gusts(rng, samples: int) -> np.ndarray:
    """Noise whose level wanders."""
    noise = bumpy(rng, samples)
    return noise * 10 ** (rng.uniform(2, 7) * wander(rng, samples, rng.uniform(0.3, 2)) / 20)


def pulses(rng, samples: int) -> np.ndarray:
    """Noise that beats two to 60 times a second, more or less evenly, from a flutter to single thumps."""
    rate = 10 ** rng.uniform(0.3, 1.8) * np.exp(rng.uniform(0, 0.2) * wander(rng, samples, rng.uniform(0.2, 2)))
    phase = (np.cumsum(rate) / RATE) % 1
    shape = np.exp(-rng.uniform(0, 15) * phase) if rng.random() < 0.5 else np.sin(np.pi * phase) ** rng.uniform(0, 8)
    noise = (coloured, bumpy)[rng.integers(2)](rng, samples)
    noise, floor = shape * noise, coloured(rng, samples)
    return noise / noise.std() + rng.uniform(0, 0.7) * floor / floor.std()


def crackle(rng, samples: int) -> np.ndarray:
    """Clicks of one to four kinds, sparse or dense, that ring, over a floor."""
    noise, t = np.zeros(samples), np.arange(800) / RATE
    for _ in range(rng.integers(1, 5)):
        clicks = (rng.random(samples) < 10 ** rng.uniform(-3.7, -1.7)) * rng.standard_normal(samples)
        ring = np.exp(-t * rng.uniform(200, 3000)) * np.sin(2 * np.pi * t * rng.uniform(300, 6000) + rng.uniform(0, 6))
        noise += np.convolve(clicks, ring)[:samples]
    floor = coloured(rng, samples)
    return noise / (noise.std() + 1e-9) + rng.uniform(0.1, 1) * floor / floor.std()


def events(rng, samples: int) -> np.ndarray:
    """Short sounds, from one in a second to 500: tones that glide up or down, or bursts of coloured noise."""
    out = np.zeros(samples + RATE)
    middle, spread, noisy = rng.uniform(1.8, 3.7), rng.uniform(0.05, 0.6), rng.random()
    length, glide = 10 ** rng.uniform(-2.3, -0.7), rng.normal(0, 1.5)
    t = np.arange(int(min(6 * length, 1) * RATE)) / RATE
    rise = 1 - np.exp(-t / (length * rng.uniform(0.01, 0.5)))
    shapes = []
    for _ in range(24):  # of which every event is one
        pitch = 10 ** rng.normal(middle, spread)
        if rng.random() < noisy:
            band = shaped(rng, len(t), lambda f, pitch=pitch: -12 * np.abs(np.log2((f + 30) / (pitch + 30))))
            sound = band / band.std()
        else:
            sound = np.sin(2 * np.pi * pitch * (t + glide * t * t) + rng.uniform(0, 6))
        shapes.append(rise * np.exp(-t / length) * sound)
    for start in rng.integers(0, samples, int(samples / RATE * 10 ** rng.uniform(0, 2.7)) + 1):
        out[start : start + len(t)] += rng.exponential() * shapes[rng.integers(len(shapes))]
    floor = coloured(rng, samples)
    return out[:samples] / (out.std() + 1e-9) + rng.uniform(0.05, 0.7) * floor / floor.std()


KINDS = (coloured, bumpy, hum, gusts, pulses, crackle, events)


def blend(rng, samples: int) -> np.ndarray:
    """Two of the kinds at once."""
    parts = [kind(rng, samples) for kind in rng.choice(np.array(KINDS), 2)]
    return sum(part / (part.std() + 1e-9) * rng.uniform(0.3, 1) for part in parts)


TRAINING = (*KINDS, events, events, pulses, blend, blend)

# ---------------------------------------------------------------------------------------------------- held out --


def fan(rng, samples: int) -> np.ndarray:
    """Air through blades: the level beats with every blade that passes, below a roll-off, with a whistle."""
    beat = 1 + 0.6 * np.sin(2 * np.pi * np.cumsum(23 + 0.3 * wander(rng, samples, 1)) / RATE)
    air = beat * shaped(rng, samples, lambda f: -6 * octaves(f) - 12 * np.maximum(octaves(f) - 3, 0))
    whistle = np.sin(2 * np.pi * np.cumsum(1130 + 4 * wander(rng, samples, 0.5)) / RATE)
    return air / air.std() + 0.15 * whistle


def rain(rng, samples: int) -> np.ndarray:
    """Drops of many sizes on a hissing ground."""
    out = shaped(rng, samples, lambda f: 3 * octaves(f))
    out /= out.std()
    for size in (500, 900, 1700, 3100):
        t = np.arange(400) / RATE
        drop = np.exp(-t * size) * np.sin(2 * np.pi * size * t)
        out += 25 * np.convolve((rng.random(samples) < 0.0015) * rng.random(samples), drop)[:samples]
    return out


def engine(rng, samples: int) -> np.ndarray:
    """A motor that hunts for its speed, and the rumble of its housing."""
    tone = buzz(rng, samples, 62 + 5 * wander(rng, samples, 0.7), -7)
    rumble = shaped(rng, samples, lambda f: -8 * octaves(f))
    return tone / tone.std() + rumble / rumble.std()


def stream(rng, samples: int) -> np.ndarray:
    """Water over stones: bubbles whose pitch rises while they fade, over a murmur."""
    out, t = np.zeros(samples), np.arange(1600) / RATE
    for start in rng.integers(0, samples - len(t), samples // 400):
        pitch = 10 ** rng.uniform(2.6, 3.5)
        out[start : start + len(t)] += rng.random() * np.exp(-60 * t) * np.sin(2 * np.pi * pitch * (t + 4 * t * t))
    murmur = shaped(rng, samples, lambda f: -4 * octaves(f))
    return out / out.std() + 0.5 * murmur / murmur.std()


def helicopter(rng, samples: int) -> np.ndarray:
    """A rotor's thumps, each a burst of low noise, and the hiss of its turbine."""
    phase = (np.cumsum(11 + 0.2 * wander(rng, samples, 1)) / RATE) % 1
    thumps = np.exp(-9 * phase) * shaped(rng, samples, lambda f: -9 * octaves(f))
    turbine = shaped(rng, samples, lambda f: -20 * np.abs(np.log2((f + 30) / 2600)))
    return thumps / thumps.std() + 0.3 * turbine / turbine.std()


def cicadas(rng, samples: int) -> np.ndarray:
    """A meadow: five singers, each a narrow high band that it switches on and off, over air."""
    out = 0.3 * shaped(rng, samples, lambda f: -3 * octaves(f))
    for _ in range(5):
        pitch, rate = rng.uniform(3000, 6500), rng.uniform(5, 40)
        song = shaped(rng, samples, lambda f, pitch=pitch: -60 * np.abs(np.log2((f + 30) / pitch)))
        on = np.sin(2 * np.pi * np.cumsum(rate + wander(rng, samples, 1)) / RATE) > 0
        out += rng.uniform(0.3, 1) * on * song / song.std()
    return out


def surf(rng, samples: int) -> np.ndarray:
    """Waves: noise that swells over seconds, and is brighter where it is loud."""
    swell = np.exp(wander(rng, samples, 2.5))
    low, high = (shaped(rng, samples, lambda f, slope=slope: slope * octaves(f)) for slope in (-7, -1))
    return swell * low / low.std() + 0.4 * swell**2 * high / high.std()


def rails(rng, samples: int) -> np.ndarray:
    """A carriage: rumble and wind, and the double knock of its axles on every joint."""
    out, t = np.zeros(samples + RATE), np.arange(3000) / RATE
    for joint in np.arange(0.1, samples / RATE, 0.9):
        for axle in (0, 0.16):
            knock = np.exp(-45 * t) * rng.standard_normal(len(t)).cumsum()
            start = int((joint + axle + rng.normal(0, 0.004)) * RATE)
            out[start : start + len(t)] += knock / knock.std()
    rumble, wind = (shaped(rng, samples, lambda f, slope=slope: slope * octaves(f)) for slope in (-8, -2))
    return 0.8 * out[:samples] + rumble / rumble.std() + 0.2 * wind / wind.std()


def vacuum(rng, samples: int) -> np.ndarray:
    """A vacuum cleaner: rushing air and the whine of a fast motor under a changing load."""
    whine = buzz(rng, samples, 480 * np.exp(0.04 * wander(rng, samples, 1.5)), -5)
    air = shaped(rng, samples, lambda f: -4 * np.abs(np.log2((f + 30) / 900)))
    return air / air.std() + 0.5 * whine / whine.std()


HELD_OUT = (fan, rain, engine, stream, helicopter, cicadas, surf, rails, vacuum)


def mix(clean: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
    """clean + noise, with the noise brought to that signal-to-noise ratio."""
    return clean + noise * np.sqrt(np.mean(clean**2) / np.mean(noise**2)) * 10 ** (-decibels / 20)
