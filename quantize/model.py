"""QuantizedModel: tables and the model's calling signature, saved as one safetensors file.

The file's metadata holds one JSON document (graph, formats, proofs, spec version) and the SHA-256 of everything else;
truncated, edited or foreign files are refused. SPEC.md section 8. Neighbours: `tables.py` (makes the tables),
`firmware_sim` (runs them), `emit_c.py` (prints them).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from quantize.errors import FormatError
from quantize.files import write_whole
from quantize.graph import Argument, Result, Signature
from rtcore.tables import SPEC_VERSION, Layer, StateInput, Tables, Tensor

FORMAT = "rtcore-tables"


@dataclass(frozen=True)
class QuantizedModel:
    """A fixed-point net and how the model it came from is called.

    tables: what runs; signature: axes of the model's arguments and results.
    """

    tables: Tables
    signature: Signature

    @property
    def digest(self) -> str:
        """SHA-256 of the content, hexadecimal: equal nets have equal digests."""
        return digest_of(document(self), arrays_of(self.tables))

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights before packing."""
        return sum(a.nbytes for layer in self.tables.layers for a in layer.arrays.values() if a.ndim == 2)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file whole or not at all."""
        text = document(self)
        arrays = arrays_of(self.tables)
        meta = json.dumps({"format": FORMAT, "sha256": digest_of(text, arrays), "document": text}, sort_keys=True)
        data = safetensors_bytes(arrays, metadata={"rtcore": meta})
        write_whole(path, data)


def arrays_of(tables: Tables) -> dict[str, np.ndarray]:
    """Every array under "layer/array"."""
    return {f"{x.name}/{name}": array for x in tables.layers for name, array in sorted(x.arrays.items())}


def document(model: QuantizedModel) -> str:
    """Everything but the arrays, as canonical JSON."""
    tables = model.tables
    return json.dumps(
        {
            "spec": tables.spec,
            "tensors": [asdict(t) for t in tables.tensors.values()],
            "layers": [
                dict(kind=x.kind, name=x.name, inputs=x.inputs, output=x.output, ints=x.ints, arrays=sorted(x.arrays))
                for x in tables.layers
            ],
            "inputs": tables.inputs,
            "outputs": tables.outputs,
            "state_inputs": [asdict(s) for s in tables.state_inputs],
            "arena": tables.arena,
            "meta": tables.meta,
            "signature": asdict(model.signature),
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def digest_of(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        sha.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def load(path: str | os.PathLike) -> QuantizedModel:
    """Reads what `QuantizedModel.save` wrote. Needs numpy and safetensors alone.

    Raises FormatError for a missing, truncated, edited or foreign file, and for another spec version.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            meta = (file.metadata() or {}).get("rtcore")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: not a whole safetensors file ({error}); save the model again") from error
    if meta is None:
        raise FormatError(f"{path}: a safetensors file, but not one of rtcore's; quantize a model first")
    try:
        envelope = json.loads(meta)
        text = envelope["document"]
        content = json.loads(text)
        intact = envelope["sha256"] == digest_of(text, arrays)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: damaged metadata ({error}); save the model again") from error
    if content.get("spec") != SPEC_VERSION:
        raise FormatError(
            f"{path}: written for spec version {content.get('spec')}, this rtcore reads version {SPEC_VERSION}; "
            "quantize the model again"
        )
    if not intact:
        raise FormatError(
            f"{path}: content and SHA-256 differ, the file was edited or damaged; quantize the model again"
        )
    return from_document(content, arrays)


def from_document(content: dict, arrays: Mapping[str, np.ndarray]) -> QuantizedModel:
    """The inverse of `document`."""
    tensors = {t["name"]: Tensor(**t) for t in content["tensors"]}
    layers = tuple(
        Layer(
            x["kind"],
            x["name"],
            tuple(x["inputs"]),
            x["output"],
            x["ints"],
            {name: arrays[f"{x['name']}/{name}"] for name in x["arrays"]},
        )
        for x in content["layers"]
    )
    tables = Tables(
        tensors=tensors,
        layers=layers,
        inputs=tuple(content["inputs"]),
        outputs=tuple(content["outputs"]),
        state_inputs=tuple(StateInput(s["name"], tuple(s["layers"])) for s in content["state_inputs"]),
        arena=content["arena"],
        meta=content["meta"],
        spec=content["spec"],
    )
    s = content["signature"]
    lists = ("axes", "layers", "sizes", "layout", "tensors")

    def fields(record: dict) -> dict:
        return {key: tuple(value) if key in lists else value for key, value in record.items()}

    arguments = tuple(Argument(**fields(a)) for a in s["arguments"])
    results = tuple(Result(**fields(r | {"axes": [tuple(axis) for axis in r["axes"]]})) for r in s["results"])
    return QuantizedModel(tables, Signature(arguments, results, s["container"]))
