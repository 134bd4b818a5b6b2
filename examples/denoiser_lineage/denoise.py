"""A noisy WAV in, cleaner WAVs out: by the float net, by its fixed point on the host, and by an emulated
microcontroller.

    python examples/denoiser_lineage/denoise.py [--noise engine] [--seconds 10] [--target cortex-m4]

`rnn_data.c`, a table as RNNoise 0.1 keeps it, is loaded, wired, quantized with its int8 weights passed through,
validated, written as C and analyzed. Features and gains' use stay in numpy: what runs in three ways is the net. Voice
and noise are held out from training. Neighbours: `train.py` (made the table), `frontend.py`, `noises.py`, `wav.py`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click
import matplotlib
import numpy as np
import torch
from frontend import HOP, RATE, apply, features_of, snr, spectra
from noises import HELD_OUT, mix
from wav import read_wav, write_wav

import quantize
from firmware_sim import Analysis, Budget, Simulator, analyze, validate
from firmware_sim.compare import Report
from firmware_sim.costs_report import print_analysis
from firmware_sim.toolchain import find_target

HERE = Path(__file__).resolve().parent
FOLDER = Path("build") / "denoiser"
NOISES = {kind.__name__: kind for kind in HELD_OUT}
SEED, INPUT_SNR = 2024, 5.0
WAYS = ("float", "fixed", "mcu")
CLOCK = 64e6  # Hz, of the core whose share of a frame is estimated


@dataclass(frozen=True)
class Result:
    """before: SNR of the noisy sound in dB; after: by way; report: the net, validated on the sound's first frames;
    equal: host and core gave the same bits, in the report and in every gain; gained: by noise, (float, fixed) gain in
    SNR; files: what was written; saturated: values clipped; analysis: what the net costs on the core."""

    before: float
    after: dict[str, float]
    report: Report
    equal: bool
    gained: dict[str, tuple[float, float]]
    files: list[Path]
    saturated: int
    analysis: Analysis


def noisy_voice(noise: str, seconds: float | None) -> tuple[np.ndarray, np.ndarray]:
    """(clean, noisy) with whole frames; the seed is the noise's own."""
    clean = read_wav(HERE / "voice.wav")
    clean = clean[: len(clean) if seconds is None else int(seconds * RATE)]
    clean = clean[: len(clean) // HOP * HOP]
    rng = np.random.default_rng([SEED, list(NOISES).index(noise)])
    return clean, mix(clean, NOISES[noise](rng, len(clean)), INPUT_SNR)


def cleaned(gains: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """The sound under gains [1, frames, 22]; the last half frame, which nothing overlaps, is silent."""
    sound = apply(gains[0].astype(np.float64), spectra(noisy))
    return np.pad(sound, (0, len(noisy) - len(sound)))


def compare(net: torch.nn.Module, host: Simulator, noise: str, seconds: float | None) -> tuple[float, float]:
    """How much float and fixed point gain in SNR on the voice in that noise, in dB."""
    clean, noisy = noisy_voice(noise, seconds)
    features = features_of(spectra(noisy))[None]
    with torch.no_grad():
        sounds = [net(torch.from_numpy(features))[0].numpy(), host.run(features)[0]]
    before = snr(clean, noisy)
    return tuple(snr(clean, cleaned(gains, noisy)) - before for gains in sounds)


def run(
    folder: Path = FOLDER, noise: str = "engine", seconds: float | None = None, target: str = "cortex-m4"
) -> Result:
    """The whole example; files go into `folder`. Raises what its steps raise, quantize.QuantizeError above all."""
    folder.mkdir(parents=True, exist_ok=True)
    net = quantize.lineage.RNNoise(quantize.lineage.load(HERE / "rnn_data.c"))
    qmodel = quantize.quantize(net, np.load(HERE / "calibration.npy").astype(np.float32), weight_bits=8)
    qmodel.save(folder / "denoiser.safetensors")
    quantize.generate(qmodel, folder / "c", name="denoiser", core=find_target(target).core)

    clean, noisy = noisy_voice(noise, seconds)
    features = features_of(spectra(noisy))[None]
    host, mcu = Simulator(qmodel), Simulator(qmodel, target)
    with torch.no_grad():
        gains = {"float": net(torch.from_numpy(features))[0].numpy()}
    gains |= {"fixed": host.run(features)[0], "mcu": mcu.run(features)[0]}
    report = validate(qmodel, net, features[:, :100], target)

    sounds = {"clean": clean, "noisy": noisy} | {way: cleaned(gains[way], noisy) for way in WAYS}
    for name, sound in sounds.items():
        write_wav(folder / f"{name}.wav", sound)
    draw(folder / "spectrogram.png", sounds, noise)
    after = {way: snr(clean, sounds[way]) for way in WAYS}
    equal = report.mcu.equal and all(
        np.array_equal(a, b) for a, b in zip(host.last_run.outputs, mcu.last_run.outputs, strict=True)
    )
    saturated = host.input_saturations + sum(host.last_run.saturated.values())
    gained = {name: compare(net, host, name, seconds) for name in NOISES}
    analysis = analyze(qmodel, [target], Budget(clock_hz=CLOCK, frame_s=HOP / RATE))
    return Result(snr(clean, noisy), after, report, equal, gained, sorted(folder.glob("*.*")), saturated, analysis)


def draw(path: Path, sounds: dict[str, np.ndarray], noise: str) -> None:
    """Spectrograms of the noisy sound and of what float and fixed point make of it."""
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415 (after the choice of a backend)

    titles = {
        "noisy": f"noisy: voice and {noise}",
        "float": "cleaned by the float net",
        "fixed": "cleaned in fixed point",
    }
    figure, axes = pyplot.subplots(len(titles), 1, figsize=(10, 8), sharex=True, layout="constrained")
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        level = 20 * np.log10(np.abs(spectra(sounds[name])).T + 1e-5)
        extent = (0, len(sounds[name]) / RATE, 0, RATE / 2000)
        image = axis.imshow(level, aspect="auto", origin="lower", extent=extent, vmin=-50, vmax=30, cmap="magma")
        axis.set(title=f"{title}, SNR {snr(sounds['clean'], sounds[name]):.1f} dB", ylabel="kHz")
    axes[-1].set(xlabel="seconds")
    figure.colorbar(image, ax=axes, label="dB")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def show(result: Result, noise: str, target: str) -> None:
    """Prints what was found."""
    print(f"voice.wav in {noise}: SNR {result.before:.2f} dB before")
    for way, name in zip(WAYS, ("float net", "fixed point, host", f"fixed point, {target}"), strict=True):
        print(f"  {name:<26} {result.after[way]:6.2f} dB after, {result.after[way] - result.before:+.2f} dB")
    report, mcu = result.report, result.report.mcu
    print(
        f"gains and voice presence against the float net: {report.sqnr_db:.1f} dB; values clipped: {result.saturated}"
    )
    bits = "equal bits" if result.equal else f"DIFFERENT BITS: {mcu.mismatch or noise}"
    print(
        f"{target}: {bits}; flash {mcu.flash:,} B, state {mcu.ram:,} B, "
        f"{mcu.instructions_mean:,.0f} instructions a frame ({1000 * HOP / RATE:.0f} ms)"
    )
    print_analysis(result.analysis)
    print(f"gain in SNR at {INPUT_SNR:g} dB, every held-out noise:        float    fixed")
    for name, gained in result.gained.items():
        print(f"  {name:<48} {gained[0]:+8.2f} {gained[1]:+8.2f}")
    means = np.mean(list(result.gained.values()), axis=0)
    print(f"  {'mean':<48} {means[0]:+8.2f} {means[1]:+8.2f}")
    print("written:", *result.files)


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--noise", type=click.Choice(list(NOISES)), default="engine", show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 60), default=None, help="of the voice; default: all of it")
@click.option("--target", default="cortex-m4", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True)
def main(noise: str, seconds: float | None, target: str, folder: Path) -> None:
    result = run(folder, noise, seconds, target)
    show(result, noise, target)
    sys.exit(0 if result.equal and result.analysis.ok else 1)


if __name__ == "__main__":
    main()
