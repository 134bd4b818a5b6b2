"""Splits the C source of a table into tokens: no comments, only the code that a compiler without -D options would see.

Of the preprocessor it knows #if and its kin on names, numbers, `defined`, `!`, `&&` and `||`; #define of an object,
kept as text; #undef. Other directives are passed over. One pass, linear in the text. Neighbours: `lineage_c.py` (reads
the tokens).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from quantize.errors import FormatError, UnsupportedError

TOKEN = re.compile(
    r"""
      (?P<space>     \s+ | //[^\n]* | /\*.*?\*/ )
    | (?P<directive> \#(?:[^\n\\/]+|\\\r?\n|\\|/\*.*?\*/|/(?!\*))* )
    | (?P<word>      [A-Za-z_]\w* )
    | (?P<number>    [-+]?\.?[0-9](?:[eE][-+]|[\w.]){0,100} )
    | (?P<string>    "(?:[^"\\\n]|\\.){0,4000}" | '(?:[^'\\\n]|\\.){1,8}' )
    | (?P<mark>      . )
    """,
    re.S | re.X | re.A,
)
CONDITION = re.compile(r"(?P<no>!?)\s*(?:defined\s*(?P<paren>\(?)\s*(?P<name>[A-Za-z_]\w*)\s*\)?|(?P<value>\w+))", re.A)
COMMENT = re.compile(r"/\*.*?\*/|//.*", re.S)


@dataclass
class Branch:
    """An open #if. live: its code counts; spent: one of its branches was taken already; outer: what is around
    counts."""

    live: bool
    spent: bool
    outer: bool
    start: int


class Tokens:
    """The tokens of a source, one at a time: `kind` ("word", "number", "string", "mark", "end"), `text`, place `at`."""

    def __init__(self, path: str | os.PathLike, source: str):
        self.path = path
        self.source = source
        self.defined: dict[str, str] = {}
        self.branches: list[Branch] = []
        self.stream = self.scan()
        self.advance()

    def advance(self) -> None:
        self.kind, self.text, self.at = next(self.stream)

    def take(self, *texts: str, what: str) -> str:
        """Passes over a token that must be one of `texts`."""
        if self.kind == "string" or self.text not in texts:
            raise self.error(f"{what}: expected {' or '.join(map(repr, texts))}, found {self.found}")
        text = self.text
        self.advance()
        return text

    def skip_balanced(self) -> None:
        """Passes over a bracket and all up to its partner."""
        start, depth = self.at, 0
        while self.kind != "end":
            if self.kind == "mark":
                depth += (self.text in "([{") - (self.text in ")]}")
            self.advance()
            if depth == 0:
                return
        raise self.error("this bracket is never closed", start)

    @property
    def found(self) -> str:
        return "the end of the file" if self.kind == "end" else repr(self.text[:40])

    def line(self, at: int | None = None) -> int:
        return self.source.count("\n", 0, self.at if at is None else at) + 1

    def error(self, message: str, at: int | None = None, kind: type = FormatError) -> Exception:
        return kind(f"{self.path}, line {self.line(at)}: {message}")

    def integer(self, text: str) -> int | None:
        """The value of a decimal integer, or of a name that stands for one; None for anything else."""
        found = re.fullmatch(r"\(?([-+]?[0-9]{1,9})[uUlL]{0,3}\)?", self.defined.get(text, text), re.A)
        return int(found[1]) if found else None

    # ------------------------------------------------------------------------------------------------- scanning --

    def scan(self) -> Iterator[tuple[str, str, int]]:
        for match in TOKEN.finditer(self.source):
            kind, text, at = match.lastgroup, match[0], match.start()
            if kind == "directive":
                self.directive(text, at)
            elif kind == "mark" and text == "/" and self.source.startswith("/*", at):
                raise self.error("this comment never ends", at)
            elif kind != "space" and (not self.branches or self.branches[-1].live):
                yield kind, text, at
        if self.branches:
            raise self.error("this #if has no #endif", self.branches[-1].start)
        while True:
            yield "end", "", len(self.source)

    def directive(self, text: str, at: int) -> None:
        words = COMMENT.sub(" ", text[1:].replace("\\\n", " ").replace("\\\r\n", " ")).strip()
        name, _, rest = re.sub(r"^(\w+)", r"\1 ", words, count=1).partition(" ")
        rest = rest.strip()
        live = not self.branches or self.branches[-1].live
        if name in ("if", "ifdef", "ifndef"):
            yes = live and self.condition(name, rest, at)
            self.branches.append(Branch(yes, yes, live, at))
        elif name in ("elif", "else", "endif"):
            if not self.branches:
                raise self.error(f"#{name} without an #if", at)
            branch = self.branches[-1]
            if name == "endif":
                self.branches.pop()
            else:
                branch.live = branch.outer and not branch.spent and (name == "else" or self.condition("if", rest, at))
                branch.spent |= branch.live
        elif live and name == "define":
            found = re.fullmatch(r"([A-Za-z_]\w*)(?:\s+(.*))?", rest, re.S)
            if found:
                self.defined[found[1]] = (found[2] or "").strip()
        elif live and name == "undef":
            self.defined.pop(rest, None)

    def condition(self, name: str, text: str, at: int) -> bool:
        """The truth of #ifdef NAME, #ifndef NAME, or #if with `defined`, names, integers, !, && and ||, unbracketed."""
        if name != "if":
            return (text in self.defined) == (name == "ifdef")
        return any(all(self.atom(part.strip(), text, at) for part in way.split("&&")) for way in text.split("||"))

    def atom(self, part: str, text: str, at: int) -> bool:
        found = CONDITION.fullmatch(part)
        if not found:
            raise self.error(
                f"#if {text[:60]}: only defined(NAME), names, integers, !, && and || are read; keep the branch that "
                "holds for your tables",
                at,
                UnsupportedError,
            )
        if found["name"]:
            return (found["name"] in self.defined) != bool(found["no"])
        return bool(self.integer(found["value"])) != bool(found["no"])
