"""Read a Keras 3 model without Keras: a `.keras` file, or a live model through its own to_json and save_weights.

A `.keras` file is a zip of metadata.json, config.json and model.weights.h5. Both doors end in the same two things, the
configuration as JSON and the weights by their path in the HDF5 file, so that they give the same tables.

Neighbours: `keras_config.py` (the configuration to layers and calls), `torch_keras.py` (these to a torch module, which
`torch_import.py` reads), `quantize/__init__.py` (asks `is_keras`).
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from quantize.errors import FormatError, QuantizeError, UnsupportedError
from quantize.keras_config import Network, network_of

PACKAGES = ("keras", "tf_keras", "keras_core")
LARGEST = 1 << 30  # bytes of a file, unpacked: far beyond any microcontroller, and a bound for a zip that swells
LONGEST_NAME = 1024  # bytes of a layer's name; a damaged attribute may claim any number
RESAVE = "save it anew from Keras 3: model.save('net.keras')"


def is_keras(model: Any) -> bool:
    """Whether this is Keras' to read: a path of a kind that Keras writes, or a live model or layer."""
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        return path.suffix.lower() in (".keras", ".h5", ".hdf5") or (path / "saved_model.pb").exists()
    return any(kind.__module__.split(".")[0] in PACKAGES for kind in type(model).__mro__)


def read_keras(model: Any) -> Network:
    """The network of a `.keras` file's path, or of a live keras.Model.

    Raises FormatError for a file that is damaged or of another kind, UnsupportedError for what the importer has no form
    of (layer, class, remedy), QuantizeError for a model that has no weights yet.
    """
    is_path = isinstance(model, (str, os.PathLike))
    config, weights = _from_file(Path(model)) if is_path else _from_live(model)
    return network_of(config, weights, str(model) if is_path else "the model")


# --- the two doors --------------------------------------------------------------------------------------------------


def _from_live(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    name = getattr(model, "name", type(model).__name__)
    if not hasattr(model, "to_json") or not hasattr(model, "save_weights"):
        raise UnsupportedError(f"{name} is a {type(model).__name__}, a single layer; put it into a keras.Sequential")
    if not getattr(model, "built", True):
        raise QuantizeError(f"model {name!r} is not built and has no weights; give it a keras.Input, or call it once")
    try:
        config = json.loads(model.to_json())
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnsupportedError(f"model {name!r} has no configuration to read: {_first_line(error)}") from None
    _check_version(str(config.get("keras_version", "3")), f"model {name!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        model.save_weights(path)
        return config, _weights(path.read_bytes(), f"model {name!r}")


def _from_file(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if path.is_dir():
        raise FormatError(f"{path} is a TensorFlow SavedModel, a program and no description of layers; {RESAVE}")
    if path.suffix.lower() != ".keras":
        raise FormatError(f"{path} is a legacy HDF5 file of Keras; load it there and {RESAVE}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > LARGEST:
                raise FormatError(f"{path} unpacks to {size:,} bytes; at most {LARGEST:,} are read")
            damaged = archive.testzip()
            if damaged is not None:
                raise FormatError(f"{path} is damaged: {damaged} fails its checksum; {RESAVE}")
            parts = {name: archive.read(name) for name in archive.namelist() if not name.startswith("assets/")}
    except FormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise FormatError(f"{path} is not a .keras file (or a damaged one): {_first_line(error)}; {RESAVE}") from None
    for name in ("metadata.json", "config.json", "model.weights.h5"):
        if name not in parts:
            raise FormatError(f"{path} holds no {name}: not a whole .keras file; {RESAVE}")
    metadata, config = (_json(parts[name], path, name) for name in ("metadata.json", "config.json"))
    _check_version(str(metadata.get("keras_version", "unknown")), str(path))
    return config, _weights(parts["model.weights.h5"], str(path))


def _check_version(version: str, where: str) -> None:
    if version.split(".")[0] != "3":
        raise FormatError(
            f"{where} was written by Keras {version}; only Keras 3 is read (its layers and its hard_sigmoid differ "
            f"from earlier ones): load it in Keras 3, check its outputs there, and {RESAVE}"
        )


def _json(data: bytes, path: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is damaged: {name} is no JSON ({_first_line(error)}); {RESAVE}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{path} is damaged: {name} holds a {type(document).__name__} and no object; {RESAVE}")
    return document


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# --- weights --------------------------------------------------------------------------------------------------------


def _weights(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Every dataset of the HDF5 file by its path; of layers also their names, as "PATH/vars@name". Links out of the
    file, and datasets that are kept outside of it or claim more than it holds, are refused."""
    try:
        import h5py  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise QuantizeError("reading a Keras model needs h5py: pip install 'rtcore[keras]'") from error
    found: dict[str, np.ndarray] = {}

    def visit(path: str, entry: Any) -> None:
        if isinstance(entry, h5py.Group):
            if path.endswith("vars") and "name" in entry.attrs:
                what = entry.attrs.get_id("name")
                if what.shape == () and what.dtype.itemsize <= LONGEST_NAME:
                    found[f"{path}@name"] = np.array(str(entry.attrs["name"]))
            return
        if not isinstance(entry, h5py.Dataset) or entry.is_virtual or entry.external:
            raise FormatError(f"{where}: {path} lies outside of the file; only weights inside are read")
        if entry.dtype.kind == "O" or entry.nbytes > min(entry.id.get_storage_size() * 1000, LARGEST):
            raise FormatError(f"{where} is damaged: {path} claims {entry.nbytes:,} bytes that the file does not hold")
        found[path] = entry[()]

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(visit)
    except FormatError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise FormatError(f"{where} is damaged: its weights cannot be read ({_first_line(error)}); {RESAVE}") from None
    return found
