"""Trains the denoiser and writes what the example ships: `rnn_data.c`, `calibration.npy`, `voice.wav`.

    python examples/denoiser_lineage/train.py [steps [clips]]

A net of RNNoise's shape (ReLU GRUs, reset before the recurrent product), trained on the values that the table holds: in
every step weights are rounded to int8 at 1/256, and the gradient passes as if they were not. The loss is the ratio of
error to voice in the gained spectrum, in dB, so that every clip counts alike, and a part for the voice's presence.

Neighbours: `voices.py` and `noises.py` (the sound), `frontend.py` (features and bands), `denoise.py` (runs the result).
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from frontend import BANDS, FEATURES, RATE, TRIANGLES, apply, features_of, snr, spectra
from noises import HELD_OUT, TRAINING, mix
from torch.nn.utils import parametrize
from voices import HELD_OUT as HELD_OUT_VOICES
from voices import speak, training_voices
from wav import write_wav

from quantize.lineage import Dense, RNNoise
from quantize.nn import GRU

HERE = Path(__file__).resolve().parent
SEED, SENTENCES, SECONDS, BATCH = 11, 700, 4, 48
RATE_OF_LEARNING = 3e-3
SCALE = 256
UNITS = dict(input_dense=24, vad_gru=24, noise_gru=48, denoise_gru=96)


class Int8(torch.nn.Module):
    """Rounds a parameter to an integer of -128..127 in 1/256; the gradient passes where it is not clipped."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        inside = w.clamp(-128 / SCALE, 127 / SCALE)
        return inside + (torch.round(inside * SCALE) / SCALE - inside).detach()


def make_net() -> RNNoise:
    """The layers of RNNoise 0.1, every parameter under Int8. The family has one bias per GRU, torch's second stays
    0."""
    dense, vad, noise, denoise = UNITS.values()
    net = RNNoise(
        {
            "input_dense": Dense(FEATURES, dense, "tanh"),
            "vad_gru": GRU(dense, vad, "relu", reset_after=False, batch_first=True),
            "noise_gru": GRU(dense + vad + FEATURES, noise, "relu", reset_after=False, batch_first=True),
            "denoise_gru": GRU(vad + noise + FEATURES, denoise, "relu", reset_after=False, batch_first=True),
            "denoise_output": Dense(denoise, BANDS, "sigmoid"),
            "vad_output": Dense(vad, 1, "sigmoid"),
        }
    )
    for layer in net.children():
        for name, parameter in list(layer.named_parameters()):
            if name == "bias_hh":
                parameter.requires_grad_(False).zero_()
            else:
                parametrize.register_parametrization(layer, name, Int8())
    return net


@dataclass(frozen=True)
class Clips:
    """Noisy voices, as far as training needs them. float32 [clips, frames, ..].

    features [42]; present [1]: 1 where there is voice; and what makes the power of gained - clean a polynomial of the
    22 gains g: sum(own * g^2) + 2 sum(next * g[:-1] * g[1:]) - 2 sum(cross * g) + power, with own [22], next [21],
    cross [22] and power [1], as a bin is shared by at most two bands.
    """

    features: torch.Tensor
    present: torch.Tensor
    own: torch.Tensor
    next: torch.Tensor
    cross: torch.Tensor
    power: torch.Tensor

    def of(self, chosen: torch.Tensor) -> Clips:
        return Clips(**{name: array[chosen] for name, array in vars(self).items()})


def make_clips(rng, voices: list[np.ndarray], count: int) -> Clips:
    """Stretches of the voices, each with a noise of its own at -5 to 20 dB, at a random level."""
    stream, samples, parts = np.concatenate(voices), SECONDS * RATE, []
    for _ in range(count):
        start = rng.integers(len(stream) - samples)
        level = 10 ** (rng.uniform(-24, 6) / 20)
        clean = level * stream[start : start + samples]
        noise = TRAINING[rng.integers(len(TRAINING))](rng, samples)
        parts.append(clip(spectra(clean), spectra(mix(clean, noise, rng.uniform(-5, 20)))))
    return Clips(*(torch.from_numpy(np.stack(arrays)) for arrays in zip(*parts, strict=True)))


def clip(clean: np.ndarray, noisy: np.ndarray) -> list[np.ndarray]:
    """The fields of Clips from two spectra [frames, 257]."""
    power = (np.abs(clean) ** 2).sum(-1, keepdims=True)
    noisy_power = np.abs(noisy) ** 2
    own, beside = noisy_power @ (TRIANGLES**2).T, noisy_power @ (TRIANGLES[:-1] * TRIANGLES[1:]).T
    cross = (noisy.conj() * clean).real @ TRIANGLES.T
    arrays = [features_of(noisy), power > 1e-4 * power.max(), own, beside, cross, power]
    return [array.astype(np.float32) for array in arrays]


def loss_of(net: RNNoise, clips: Clips) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, mean SNR of the clips in dB)."""
    g, vad = net(clips.features)
    error = (clips.own * g * g - 2 * clips.cross * g).sum((1, 2)) + 2 * (clips.next * g[..., :-1] * g[..., 1:]).sum(
        (1, 2)
    )
    power = clips.power.sum((1, 2))
    decibels = 10 * torch.log10((error + power) / power + 1e-4)
    presence = torch.nn.functional.binary_cross_entropy(vad, clips.present)
    return decibels.mean() + presence, -decibels.detach().mean()


def train(clips: Clips, steps: int) -> RNNoise:
    """Adam under a learning rate that falls like a cosine; the clips in random order, again and again."""
    torch.manual_seed(SEED)
    net = make_net()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=RATE_OF_LEARNING)
    begin, seen = time.monotonic(), []
    for step in range(steps):
        warm, cool = min(1, (step + 1) / 50), 0.01 + 0.99 * np.cos(np.pi / 2 * step / steps) ** 2
        for group in optimizer.param_groups:
            group["lr"] = RATE_OF_LEARNING * warm * cool
        optimizer.zero_grad()
        loss, decibels = loss_of(net, clips.of(torch.randperm(len(clips.features))[:BATCH]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 3.0)
        optimizer.step()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.clamp_(-128 / SCALE, 127 / SCALE)
        seen.append(float(decibels))
        if (step + 1) % 50 == 0:
            minutes = (time.monotonic() - begin) / 60
            print(f"{step + 1:5d} steps, {minutes:5.1f} minutes, {np.mean(seen[-50:]):.2f} dB", flush=True)
    return net.eval()


# -------------------------------------------------------------------------------------------------- what it wrote --


def judge(net: RNNoise, rng) -> dict[str, float]:
    """Held-out voices in held-out noises at 5 dB: mean gain in SNR, per kind of noise."""
    voices = [speak(*voice) for voice in HELD_OUT_VOICES]
    gained = {}
    for kind in HELD_OUT:
        found = []
        for clean in voices:
            noisy = mix(clean, kind(rng, len(clean)), 5)
            spectrum = spectra(noisy)
            with torch.no_grad():
                gains = net(torch.from_numpy(features_of(spectrum)))[0].double().numpy()
            sound = apply(gains, spectrum)
            found.append(snr(clean[: len(sound)], sound) - snr(clean[: len(sound)], noisy[: len(sound)]))
        gained[kind.__name__] = float(np.mean(found))
    return gained


def c_array(name: str, values: torch.Tensor) -> str:
    """A static const array of a parameter's integers."""
    numbers = [str(int(v)) for v in np.rint(values.detach().numpy().astype(np.float64) * SCALE).ravel()]
    lines = (", ".join(numbers[i : i + 16]) for i in range(0, len(numbers), 16))
    return f"static const rnn_weight {name}[{len(numbers)}] = {{\n   " + ",\n   ".join(lines) + "\n};\n\n"


def c_source(net: RNNoise) -> str:
    """The net as a table of RNNoise 0.1: transposed to [inputs][rows], gates z r h."""
    text = '/* Written by train.py beside it. Values are in 1/256. */\n\n#include "rnn.h"\n\n'
    for name, layer in net.named_children():
        arrays = [f"{name}_bias", f"{name}_weights"]
        if isinstance(layer, GRU):
            n = layer.hidden_size
            order = np.r_[n : 2 * n, 0:n, 2 * n : 3 * n]
            arrays.append(f"{name}_recurrent_weights")
            text += c_array(arrays[1], layer.weight_ih[order].T) + c_array(arrays[2], layer.weight_hh[order].T)
            text += c_array(arrays[0], layer.bias_ih[order])
            kind, sizes = "GRULayer", (layer.input_size, n)
        else:
            text += c_array(arrays[1], layer.weight.T) + c_array(arrays[0], layer.bias)
            kind, sizes = "DenseLayer", (layer.in_features, layer.out_features)
        fields = [*arrays, f"{sizes[0]}, {sizes[1]}, ACTIVATION_{layer.activation.upper()}"]
        text += f"const {kind} {name} = {{\n   " + ",\n   ".join(fields) + "\n};\n\n"
    return text


def main(steps: int = 1400, count: int = 3600) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    voices = training_voices(rng, SENTENCES)
    clips = make_clips(rng, voices, count)
    print(
        f"{SENTENCES} sentences, {sum(map(len, voices)) / RATE / 60:.0f} minutes; {count} clips of {SECONDS} s",
        flush=True,
    )
    net = train(clips, steps)
    (HERE / "rnn_data.c").write_text(c_source(net))
    np.save(HERE / "calibration.npy", clips.features[:6].numpy().astype(np.float16))
    write_wav(HERE / "voice.wav", np.concatenate([speak(*voice) for voice in HELD_OUT_VOICES[:2]]))
    print("held-out voices and noises, gain in dB at 5 dB:", judge(net, rng))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
