"""Names for C: which net names are refused, and identifiers and comments made from the names of layers and tensors.

Neighbours: `emit_c.py` (the only caller).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from quantize.errors import QuantizeError

KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    alignas alignof and and_eq asm bitand bitor bool catch char8_t char16_t char32_t class co_await co_return co_yield
    compl concept const_cast consteval constexpr constinit decltype delete dynamic_cast explicit export false final
    friend import module mutable namespace new noexcept not not_eq nullptr operator or or_eq override private protected
    public reinterpret_cast requires static_assert static_cast template this thread_local throw true try typeid typename
    typeof typeof_unqual using virtual wchar_t xor xor_eq
"""
# NAME.h must not stand before a header of the C library in an include path.
HEADERS = """
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic
    stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string strings tgmath threads time uchar unistd
    wchar wctype
"""
# Targets that CMake reserves; NAME is a target of the generated CMakeLists.txt.
TARGETS = """
    all all_build clean edit_cache help install list_install_components package package_source rebuild_cache run_tests
    test zero_check
"""


def checked_name(name: str) -> str:
    """The net's name, or QuantizeError that says why it cannot name C files, functions and a build target."""
    why = ""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        why = "it must be a C identifier: a letter, then letters, digits and underscores"
    elif name.lower() in KEYWORDS.split():
        why = "it is a keyword of C or C++"
    elif name.lower().startswith("rtcore"):
        why = "names that start with rtcore belong to the kernels"
    elif name.lower() in HEADERS.split():
        why = f"{name}.h is a header of the C library"
    elif name.lower() in TARGETS.split():
        why = "CMake reserves it as a target"
    if why:
        raise QuantizeError(f"{name!r} cannot be the name of a net: {why}")
    return name


def identifiers(names: Iterable[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """name -> C identifier, in order; no two equal or equal in upper case, none reserved or a keyword."""
    taken = {name.upper() for name in reserved} | {word.upper() for word in KEYWORDS.split()}
    chosen: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "x"
        base = f"x{base}" if base[0].isdigit() else base
        candidate, k = base, 2
        while candidate.upper() in taken:
            candidate, k = f"{base}_{k}", k + 1
        taken.add(candidate.upper())
        chosen[name] = candidate
    return chosen


def comment(text: str) -> str:
    """Text that cannot end or open a C comment, nor continue a line: printable ASCII, the rest as '?'."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return plain.replace("\\", "/").replace("*/", "* /").replace("/*", "/ *").replace("//", "/ /")
