"""Six whole networks of the shapes that people ship, seeded: what they are made of, small enough to run everywhere.

    name -> Network(model, frames): NETWORKS["keyword spotter"]()

Weights are random (their scale as torch initialises them, batch norm statistics set as after training), frames are
smooth noise. Neighbours: `firmware/test_networks.py` (runs them end to end), `torch_models.py` (small models, one
operation each).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Network:
    """frames: float32, what the model takes."""

    model: nn.Module
    frames: np.ndarray
    form: str  # as the importer finds it: "stream" or "window"


def smooth(*shape: int, axis: int = 1) -> np.ndarray:
    """Noise that changes slowly along an axis, as features of sound and sensors do."""
    x = np.random.default_rng(3).normal(size=shape)
    for _ in range(2):
        x = (x + np.roll(x, 1, axis)) / 2
    return (2 * x).astype(np.float32)


def settled(model: nn.Module) -> nn.Module:
    """Batch norms with statistics as after training, in eval mode."""
    generator = torch.Generator().manual_seed(5)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.3, 1.5, generator=generator)
            nn.init.uniform_(layer.weight, 0.6, 1.4, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.2, generator=generator)
    return model.eval()


class Denoiser(nn.Module):
    """RNNoise's shape: three GRUs that share what the first layers found, gains and voice activity per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.input_dense = nn.Linear(42, 24)
        self.vad_gru = nn.GRU(24, 24, batch_first=True)
        self.noise_gru = nn.GRU(90, 48, batch_first=True)
        self.denoise_gru = nn.GRU(114, 96, batch_first=True)
        self.denoise_output = nn.Linear(96, 22)
        self.vad_output = nn.Linear(24, 1)

    def forward(self, x):
        dense = torch.tanh(self.input_dense(x))
        vad, _ = self.vad_gru(dense)
        noise, _ = self.noise_gru(torch.cat([dense, vad, x], -1))
        denoise, _ = self.denoise_gru(torch.cat([vad, noise, x], -1))
        return torch.sigmoid(self.denoise_output(denoise)), torch.sigmoid(self.vad_output(vad))


class KeywordSpotter(nn.Module):
    """A stack of strided convolutions over MFCCs, a GRU over what remains of time, class probabilities."""

    def __init__(self) -> None:
        super().__init__()
        widths = (10, 16, 24, 24)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 5, stride=2) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in widths[1:])
        self.gru = nn.GRU(24, 20, batch_first=True)
        self.fc = nn.Linear(20, 6)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        _, h = self.gru(x.transpose(1, 2))
        return torch.softmax(self.fc(h[-1]), -1)


class DsCnn(nn.Module):
    """Depthwise separable convolutions over a spectrogram, as the keyword spotters of MLPerf Tiny."""

    def __init__(self, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(width, width, 3, padding=1, groups=width),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                )
                for _ in range(blocks)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(width, 12)

    def forward(self, x):
        return self.fc(self.drop(self.pool(self.blocks(self.first(x))).flatten(1)))


class Crnn(nn.Module):
    """Convolutions over a spectrogram, a GRU in both directions, voice activity for every frame of the window."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d((1, 2))
        self.gru = nn.GRU(8 * 5, 12, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(24, 1)

    def forward(self, x):
        x = self.pool(F.relu(self.norm1(self.conv1(x))))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.permute(0, 2, 1, 3).flatten(2)
        return torch.sigmoid(self.fc(self.gru(x)[0])).squeeze(-1)


class Forecaster(nn.Module):
    """Stacked LSTMs with residual connections: the next value of every sensor."""

    def __init__(self, sensors: int = 6, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Linear(sensors, width)
        self.lstms = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sensors)

    def forward(self, x):
        h = self.embed(x)
        for lstm in self.lstms:
            h = h + lstm(h)[0]
        return x + self.out(self.norm(h))


class Autoencoder(nn.Module):
    """What MLPerf Tiny detects anomalies of machines with, narrower: the reconstruction of a frame's context."""

    def __init__(self, inputs: int = 64, width: int = 32, code: int = 8) -> None:
        super().__init__()
        widths = (inputs, width, width, code, width, width)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, inputs))

    def forward(self, x):
        return self.net(x)


def _network(model: Callable[[], nn.Module], form: str, frames: np.ndarray) -> Network:
    torch.manual_seed(11)
    return Network(settled(model()), frames, form)


NETWORKS: dict[str, Callable[[], Network]] = {
    "denoiser": lambda: _network(Denoiser, "stream", smooth(4, 30, 42)),
    "keyword spotter": lambda: _network(KeywordSpotter, "window", smooth(8, 10, 49, axis=2)),
    "ds-cnn": lambda: _network(DsCnn, "window", smooth(8, 1, 25, 10, axis=2)),
    "crnn voice activity": lambda: _network(Crnn, "window", smooth(8, 1, 16, 20, axis=2)),
    "lstm forecaster": lambda: _network(Forecaster, "stream", smooth(4, 40, 6)),
    "autoencoder": lambda: _network(Autoencoder, "stream", smooth(64, 64)),
}
