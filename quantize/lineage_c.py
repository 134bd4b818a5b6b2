"""Reads C sources of the RNNoise/Opus family: constant arrays and positional initialisers of layer structs.

    DenseLayer {bias, weights, nb_inputs, nb_neurons, activation}
    GRULayer {bias, weights, recurrent_weights, nb_inputs, nb_neurons[, activation[, reset_after]]}

How many fields a GRULayer has tells the generation: 5 Opus' analysis net (tanh; its dense layers have a sigmoid flag;
also under the names AnalysisDenseLayer, AnalysisGRULayer), 6 RNNoise 0.1, 7 nnet.h. A type that is not float or double
is taken for int8 and held to its range. Weights are [nb_inputs][rows], gates z r h. Everything else in the file,
functions too, is passed over; nothing is evaluated. Neighbours: `lineage_tokens.py` (comments, #if),
`lineage_tables.py` (what it returns), `lineage.py` (makes modules of it).
"""

from __future__ import annotations

import math
import numbers
import os
import re
from array import array
from dataclasses import dataclass

import numpy as np

from quantize.errors import FormatError, QuantizeError, UnsupportedError
from quantize.lineage_tables import LayerTable, read_text
from quantize.lineage_tokens import Tokens

QUALIFIERS = {"static", "const", "extern", "volatile", "struct", "unsigned", "signed"}
FLOATS = {"float", "double"}
NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fFlL]?", re.A)
LAYERS = ("DenseLayer", "GRULayer", "AnalysisDenseLayer", "AnalysisGRULayer")
OPUS, RNNOISE, NNET = "Opus", "RNNoise 0.1", "nnet.h"
BY_FIELDS = {5: OPUS, 6: RNNOISE, 7: NNET}
ACTIVATIONS = {  # by number
    OPUS: ("tanh", "sigmoid"),
    RNNOISE: ("tanh", "sigmoid", "relu"),
    NNET: ("linear", "sigmoid", "tanh", "relu"),
}
SCALES = {OPUS: 1 / 128, RNNOISE: 1 / 256, NNET: 1 / 128}


@dataclass(frozen=True)
class Array:
    """numbers: float64, None where the initialiser is no flat list of numbers; whole: all were written as integers."""

    type: str
    numbers: np.ndarray | None
    whole: bool
    at: int

    @property
    def is_float(self) -> bool:
        return bool(FLOATS & set(self.type.split()))


@dataclass(frozen=True)
class Struct:
    """A layer's initialiser: its fields as they are written."""

    type: str
    name: str
    fields: tuple[str, ...]
    at: int

    @property
    def kind(self) -> str:
        return self.type.removeprefix("Analysis")


def read_c(path: str | os.PathLike, scale: float | None = None) -> list[LayerTable]:
    """Every layer of the file, in order; scale: of integer tables, None for the generation's own.

    Raises FormatError naming file, line, array, expected and found; UnsupportedError for layers of other kinds;
    QuantizeError for a scale that is no positive number.
    """
    number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if scale is not None and not (number and math.isfinite(scale) and scale > 0):
        raise QuantizeError(f"scale {scale!r}: the value of a raw 1 in integer tables, a positive number such as 1/256")
    tokens = Tokens(path, read_text(path))
    source = Source(tokens)
    while tokens.kind != "end":
        source.declaration()
    return Layers(source, None if scale is None else float(scale)).read()


class Source:
    """What the file declares: arrays and layer structs, in order."""

    def __init__(self, tokens: Tokens):
        self.tokens = tokens
        self.arrays: dict[str, Array] = {}
        self.structs: list[Struct] = []
        self.declared_elsewhere = False

    def declaration(self) -> None:
        """One top-level declaration or definition, to its end; of `extern "C" {`, only this opening."""
        t, start = self.tokens, self.tokens.at
        words: list[str] = []
        lengths: list[int | None] = []
        while t.kind != "end" and t.text not in ("=", ";"):
            if t.text == "[":
                lengths.append(self.length(words))
            elif t.text == "(":
                t.skip_balanced()
                del words[-1:]  # a function's name, or an attribute's
            elif t.text == "{":
                if words == ["extern"]:
                    t.advance()
                    return
                t.skip_balanced()
                if not {"typedef", "struct", "enum", "union"} & set(words):
                    return  # a function's body
            elif t.text == "}" and not words:
                t.advance()
                return
            elif t.kind in ("word", "string") or t.text == "*":
                words += [t.text] if t.kind != "string" else []
                t.advance()
            else:
                raise t.error(f"expected a declaration, found {t.found}")
        names = [word for word in words if word not in QUALIFIERS]
        what = f"the declaration of {names[-1][:60]}" if names else "a declaration"
        if t.kind == "end":
            if words:
                raise t.error(f"the file ends within {what}", start)
            return
        if t.text == "=" and names:
            t.advance()
            self.initialiser(" ".join(names[:-1]), names[-1], lengths, start)
        else:
            self.declared_elsewhere |= bool(set(LAYERS) & set(words))
        t.take(";", what=what)

    def length(self, words: list[str]) -> int | None:
        """What stands between [ and ]: integers and names of integers, multiplied; None for nothing."""
        t = self.tokens
        what = f"array {words[-1] if words else ''}, its length"
        t.take("[", what=what)
        value = None
        while t.text != "]":
            if value is not None:
                t.take("*", what=what)
            factor = t.integer(t.text)
            if factor is None:
                raise t.error(f"{what}: expected an integer or the name of one defined in this file, found {t.found}")
            value = factor * (1 if value is None else value)
            t.advance()
        t.advance()
        return value

    def initialiser(self, type_: str, name: str, lengths: list[int | None], at: int) -> None:
        """What stands after the = of a declaration that begins at `at`."""
        t = self.tokens
        if type_ == "WeightArray":
            raise t.error(
                f"{name} is a WeightArray: tables of RNNoise 0.2 and later, which are looked up by name, are not "
                "read; hand over the torch model that they were exported from",
                at,
                UnsupportedError,
            )
        if lengths and type_ in LAYERS:
            raise t.error(f"{name} is an array of {type_}s; give each layer a name of its own", at, UnsupportedError)
        if lengths:
            if name in self.arrays:
                raise t.error(f"array {name} is defined twice, first in line {t.line(self.arrays[name].at)}", at)
            if len(lengths) > 1:
                raise t.error(f"array {name} has {len(lengths)} dimensions; the family's tables have one", at)
            self.arrays[name] = self.numbers(type_, name, lengths[0], at)
        elif type_ in LAYERS:
            if any(struct.name == name for struct in self.structs):
                raise t.error(f"layer {name} is defined twice", at)
            self.structs.append(Struct(type_, name, self.fields(f"{type_} {name}"), at))
        elif type_.endswith("Layer"):
            raise t.error(
                f"layer {name} is a {type_}; {', '.join(LAYERS)} are read (convolutions, embeddings, sparse and later "
                "linear layers are not)",
                at,
                UnsupportedError,
            )
        else:
            while t.kind != "end" and t.text != ";":
                t.skip_balanced()

    def numbers(self, type_: str, name: str, expected: int | None, at: int) -> Array:
        """{ number, number, ... }, and no expression."""
        t = self.tokens
        if t.text != "{":
            while t.kind == "string":
                t.advance()
            return Array(type_, None, False, at)
        brace = t.at
        t.advance()
        values, whole = array("d"), True
        if t.kind != "number" and t.text != "}":
            while t.kind != "end" and t.text != "}":
                t.skip_balanced()
            t.take("}", what=f"array {name}")
            return Array(type_, None, False, at)
        while t.text != "}":
            value = float(t.text.rstrip("fFlL")) if t.kind == "number" and NUMBER.fullmatch(t.text) else math.nan
            if not math.isfinite(value):
                raise t.error(
                    f"array {name}, value {len(values) + 1}: expected a finite decimal number, found {t.found}"
                )
            whole = whole and t.text.lstrip("+-").rstrip("uUlL").isdigit()
            values.append(value)
            t.advance()
            if t.text != "}":
                t.take(",", "}", what=f"array {name}, after value {len(values)}")
        t.advance()
        if expected is not None and expected != len(values):
            raise t.error(f"array {name}: expected {expected} values, found {len(values)}", brace)
        return Array(type_, np.array(values), whole, at)

    def fields(self, what: str) -> tuple[str, ...]:
        """{ name or integer, ... }"""
        t = self.tokens
        t.take("{", what=what)
        fields = []
        while t.text != "}":
            if t.text == "." or t.kind not in ("word", "number"):
                named = "; fields by name (.bias = ...) are not read, write them in order" if t.text == "." else ""
                raise t.error(f"{what}, field {len(fields) + 1}: expected a name or an integer, found {t.found}{named}")
            fields.append(t.text)
            t.advance()
            if t.text != "}":
                t.take(",", "}", what=f"{what}, after field {len(fields)}")
        t.advance()
        return tuple(fields)


class Layers:
    """Gives the structs their meaning."""

    def __init__(self, source: Source, scale: float | None):
        self.source = source
        self.tokens = source.tokens
        self.scale = scale
        self.unprefixed = self.generation()

    def read(self) -> list[LayerTable]:
        if not self.source.structs:
            hint = "; this is a header, pass the .c file" if self.source.declared_elsewhere else ""
            raise FormatError(
                f"{self.tokens.path}: no {', '.join(LAYERS)} is initialised, {len(self.source.arrays)} arrays are{hint}"
            )
        return [self.layer(struct) for struct in self.source.structs]

    def generation(self) -> str | None:
        """Of the layers without a prefix; None where only dense layers with an activation by number stand."""
        plain = [struct for struct in self.source.structs if struct.type == struct.kind]
        found = {BY_FIELDS.get(len(struct.fields)): struct for struct in plain if struct.kind == "GRULayer"}
        found.pop(None, None)
        if len(found) > 1:
            raise self.tokens.error(
                f"GRULayers of {' and '.join(sorted(found))} in one file; split it", max(s.at for s in found.values())
            )
        if found:
            return next(iter(found))
        names = [struct.fields[4] for struct in plain if len(struct.fields) == 5]
        tables = [self.source.arrays.get(name) for struct in plain for name in struct.fields[:2]]
        if "ACTIVATION_LINEAR" in names or any(table is not None and table.is_float for table in tables):
            return NNET
        return RNNOISE if any(name.startswith("ACTIVATION_") or name == "2" for name in names) else None

    def layer(self, struct: Struct) -> LayerTable:
        what = f"{struct.type} {struct.name}"
        generation = OPUS if struct.type != struct.kind else self.unprefixed
        is_gru = struct.kind == "GRULayer"
        tables = 3 if is_gru else 2
        self.check_fields(struct, what, is_gru)
        inputs, n = (self.size(struct, what, i) for i in (tables, tables + 1))
        rest = struct.fields[tables + 2 :]
        activation = self.activation(struct, what, generation, rest[0]) if rest else "tanh"
        reset_after = len(rest) == 2 and self.flag(struct, what, rest[1])
        rows = 3 * n if is_gru else n
        bias = self.bias(struct, what, rows, reset_after)
        scale = self.scale_for(struct, generation, tables)
        arrays = [self.values(struct, what, field, scale) for field in struct.fields[:tables]]
        shapes = [(bias,), (inputs, rows), (n, rows)][:tables]
        for field, values, shape in zip(struct.fields, arrays, shapes, strict=False):
            if values.size != math.prod(shape):
                raise self.tokens.error(
                    f"{what}: array {field} (line {self.tokens.line(self.source.arrays[field].at)}): expected "
                    f"{math.prod(shape)} values {list(shape)} for {inputs} inputs and {n} neurons, found {values.size}",
                    struct.at,
                )
        shaped = [values.reshape(shape) for values, shape in zip(arrays, shapes, strict=True)]
        if is_gru and not reset_after and bias == 2 * rows:
            if shaped[0][rows:].any():
                raise self.tokens.error(
                    f"{what}: with reset_after 0 only the first {rows} of its {bias} bias values are ever read, and "
                    "the others are not zero; is reset_after 1 meant?",
                    struct.at,
                )
            shaped[0] = shaped[0][:rows]
        return LayerTable(struct.name, activation, shaped[1], shaped[0], shaped[2] if is_gru else None, reset_after)

    def check_fields(self, struct: Struct, what: str, is_gru: bool) -> None:
        found = len(struct.fields)
        if found in ({5} if not is_gru or struct.type != struct.kind else {5, 6, 7}):
            return
        expected = "5 (Opus), 6 (RNNoise 0.1) or 7 (nnet.h)" if is_gru and struct.type == struct.kind else "5"
        later = "; later layers (subias, sparse index) are not read" if found > 7 else ""
        kind = UnsupportedError if found > 7 else FormatError
        raise self.tokens.error(f"{what}: expected {expected} fields, found {found}{later}", struct.at, kind)

    def size(self, struct: Struct, what: str, index: int) -> int:
        value = self.tokens.integer(struct.fields[index])
        if value is None or value < 1:
            name = "nb_inputs" if index < (4 if struct.kind == "GRULayer" else 3) else "nb_neurons"
            raise self.tokens.error(
                f"{what}: {name} must be a positive integer or the name of one defined in this file, found "
                f"{struct.fields[index]!r}",
                struct.at,
            )
        return value

    def flag(self, struct: Struct, what: str, text: str) -> bool:
        value = self.tokens.integer(text)
        if value not in (0, 1):
            raise self.tokens.error(f"{what}: reset_after must be 0 or 1, found {text!r}", struct.at)
        return bool(value)

    def activation(self, struct: Struct, what: str, generation: str | None, text: str) -> str:
        """By name; by number, as the generation counts."""
        known = ACTIVATIONS[generation or OPUS]
        code = self.tokens.integer(text) if not text.startswith("ACTIVATION_") else None
        name = known[code] if code is not None and 0 <= code < len(known) else text.removeprefix("ACTIVATION_").lower()
        if name not in known:
            names = ", ".join(f"{i} {activation}" for i, activation in enumerate(known))
            raise self.tokens.error(
                f"{what}: activation {text}; {generation or OPUS} has {names}, and nothing else is computed here",
                struct.at,
                UnsupportedError,
            )
        return name

    def bias(self, struct: Struct, what: str, rows: int, reset_after: bool) -> int:
        """How many values the bias must have: two vectors after the reset; before it one, or a second of zeros."""
        table = self.source.arrays.get(struct.fields[0])
        found = 0 if table is None or table.numbers is None else table.numbers.size
        return 2 * rows if reset_after or (struct.kind == "GRULayer" and found == 2 * rows) else rows

    def scale_for(self, struct: Struct, generation: str | None, tables: int) -> float:
        """Of the integer tables of a layer: the caller's, the file's own, or the generation's."""
        arrays = [self.source.arrays.get(name) for name in struct.fields[:tables]]
        if self.scale is not None or all(table is None or table.is_float for table in arrays):
            return self.scale or 1.0
        written = self.tokens.defined.get("WEIGHTS_SCALE")
        if written is not None:
            found = re.fullmatch(r"\(?\s*1\.?0*[fF]?\s*/\s*([0-9]{1,9})(?:\.0*)?[fF]?\s*\)?", written)
            if not found or int(found[1]) == 0:
                raise self.tokens.error(f"WEIGHTS_SCALE {written[:40]!r}: expected (1.f/N); pass scale=", struct.at)
            return 1 / int(found[1])
        if generation is None or (generation == NNET and arrays[0] is not None and not arrays[0].is_float):
            raise self.tokens.error(
                f"{struct.type} {struct.name}: nothing here tells whether a raw 1 means 1/256 (RNNoise 0.1) or 1/128 "
                "(Opus); pass scale=",
                struct.at,
            )
        return SCALES[generation]

    def values(self, struct: Struct, what: str, name: str, scale: float) -> np.ndarray:
        """The array's values: as they stand if float, else int8 times scale."""
        table = self.source.arrays.get(name)
        if table is None:
            raise self.tokens.error(f"{what}: array {name} is not in this file", struct.at)
        if table.numbers is None:
            raise self.tokens.error(f"{what}: array {name} is no flat list of numbers", table.at)
        if table.is_float:
            return table.numbers
        if not table.whole:
            raise self.tokens.error(
                f"array {name}: its type {table.type} is taken for int8, but it holds fractions; spell the type float",
                table.at,
            )
        wrong = np.flatnonzero((table.numbers < -128) | (table.numbers > 127))
        if wrong.size:
            raise self.tokens.error(
                f"array {name}: its type {table.type} is taken for int8, but value {wrong[0] + 1} of "
                f"{table.numbers.size} is {table.numbers[wrong[0]]:g}; -128..127 are allowed",
                table.at,
            )
        return table.numbers * scale
