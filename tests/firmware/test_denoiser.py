"""The worked example with a few seconds of sound: the committed table gains what it should, the three ways agree, the
files are there; and its training, for a few steps on made-up voices, writes a table that reads back as the net it was.

Neighbours: `examples/denoiser_lineage/` (what is tested).
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an optional extra: rtcore[torch]")
EXTRAS = [importlib.util.find_spec(name) for name in ("ziglang", "unicorn", "elftools", "matplotlib")]
if None in EXTRAS:
    pytest.skip("the example needs rtcore[mcu] and rtcore[report]", allow_module_level=True)

from quantize import lineage  # noqa: E402 (needs torch)
from quantize.nn import GRU  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "denoiser_lineage"
NAMES = ("frontend", "noises", "voices", "wav", "train", "denoise")


@pytest.fixture(scope="module")
def example():
    """Its files as modules, by name; they import one another as a script's folder lets them. One thread: several get in
    each other's way in a GRU's small steps."""
    sys.path.insert(0, str(EXAMPLE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        torch.set_num_threads(threads)
        sys.path.remove(str(EXAMPLE))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def result(example, tmp_path_factory):
    return example["denoise"].run(tmp_path_factory.mktemp("denoiser"), noise="fan", seconds=4)


def test_a_noisy_wav_becomes_cleaner_by_6_db_in_all_three_ways(example, result):
    """On the voice and the noise of the example's own run. 0.1 dB: int16 activations against float32, at 70 dB."""
    assert abs(result.before - 5) < 1e-6
    for way, after in result.after.items():
        assert after - result.before >= 6, f"{way}: {after - result.before:.2f} dB"
        assert abs(after - result.after["float"]) < 0.1, way
    assert result.equal and result.report.mcu.equal, result.report.mcu.mismatch
    assert result.saturated == 0
    (cost,) = result.analysis.cores
    assert result.analysis.ok and cost.load[1] < 0.5 and cost.macs == 86_952, cost
    mean = np.mean(list(result.gained.values()), axis=0)
    assert len(result.gained) == len(example["noises"].HELD_OUT) and (mean >= 6).all(), result.gained


def test_its_files_are_sounds_a_picture_tables_and_c(example, result):
    names = {path.name: path for path in result.files}
    sounds = {f"{name}.wav" for name in ("clean", "noisy", "float", "fixed", "mcu")}
    assert set(names) == {*sounds, "spectrogram.png", "denoiser.safetensors"}
    fixed, mcu, noisy = (example["wav"].read_wav(names[f"{name}.wav"]) for name in ("fixed", "mcu", "noisy"))
    assert np.array_equal(fixed, mcu) and len(fixed) == len(noisy) == 4 * 16000 and fixed.std() > 0.01
    assert (
        names["spectrogram.png"].read_bytes().startswith(b"\x89PNG")
        and names["spectrogram.png"].stat().st_size > 50_000
    )
    folder = names["spectrogram.png"].parent / "c"
    assert (folder / "denoiser.h").is_file() and "vad_gru" in (folder / "denoiser_weights.h").read_text()


def test_the_committed_table_is_small_and_of_the_lineage(example):
    path = EXAMPLE / "rnn_data.c"
    assert path.stat().st_size < 600_000
    net = lineage.RNNoise(lineage.load(path))
    assert [layer.activation for layer in net.children() if isinstance(layer, GRU)] == ["relu"] * 3
    assert not any(layer.reset_after for layer in net.children() if isinstance(layer, GRU))
    raw = torch.cat([p.detach().ravel() for p in net.parameters()]) * 256
    assert torch.equal(raw, raw.round()) and raw.min() >= -128 and raw.max() <= 127


def test_training_lowers_its_loss_and_its_table_reads_back(example, tmp_path):
    """On sums of harmonics that come and go for voices: espeak-ng is not needed."""
    train, rng = example["train"], np.random.default_rng(0)
    t = np.arange(16000 * 5) / 16000
    voices = [
        np.maximum(np.sin(6 * t), 0) * sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 20)) / 8
        for pitch in (110, 170, 230)
    ]
    clips = train.make_clips(rng, voices, 4)
    torch.manual_seed(0)
    untrained = train.make_net()
    with torch.no_grad():
        first = float(train.loss_of(untrained, clips)[0])
    net = train.train(clips, 4)
    with torch.no_grad():
        last = float(train.loss_of(net, clips)[0])
    assert last < first, (first, last)
    (tmp_path / "rnn_data.c").write_text(train.c_source(net))
    again = lineage.RNNoise(lineage.load(tmp_path / "rnn_data.c"))
    with torch.no_grad():
        for mine, read in zip(net(clips.features), again(clips.features), strict=True):
            assert torch.equal(mine, read)


def test_the_front_end_takes_sound_apart_and_puts_it_together(example):
    front = example["frontend"]
    sound = np.random.default_rng(1).normal(0, 0.1, 256 * 40)
    spectrum = front.spectra(sound)
    whole = front.apply(np.ones((len(spectrum), front.BANDS)), spectrum)
    assert len(whole) == len(sound) - 256 and np.abs(whole - sound[: len(whole)]).max() < 1e-12
    features = front.features_of(spectrum)
    assert features.shape == (40, front.FEATURES) and features.dtype == np.float32
    later = front.features_of(front.spectra(np.concatenate([sound, sound])))[:40]
    assert np.array_equal(features, later)  # nothing of the future is in a frame


def test_a_wav_of_another_kind_is_refused(example, tmp_path):
    import wave  # noqa: PLC0415 (one test's)

    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(bytes(8))
    with pytest.raises(ValueError, match=r"stereo.wav: 44100 Hz, 2 channels, 16 bits; expected 16000 Hz, 1, 16"):
        example["wav"].read_wav(tmp_path / "stereo.wav")
