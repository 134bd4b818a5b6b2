"""A net as a package of somebody's build system: CMake, Arduino, PlatformIO, Zephyr, or one pair of files.

A package is self-contained: it holds only the kernels that its net calls, and every name in it, file, function, type
and macro, begins with the net's. So packages of different nets, cores and versions of rtcore link into one firmware,
and their headers stand in one source. Nothing else is changed in a kernel: without the net's name it is the original,
byte for byte. (What `generate` writes by itself shares one set of kernels between nets instead.)

Neighbours: `emit_c.py` (renders the net), `templates/package/` (the build files), `files.py` (writes).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from quantize.emit_c import Golden, kernel_files, net_context, render_net, render_template
from quantize.errors import QuantizeError
from quantize.files import write_folder
from rtcore import _build
from rtcore.tables import Tables

PACKAGES = ("cmake", "arduino", "platformio", "zephyr", "single")


def render_package(
    tables: Tables,
    name: str,
    package: str,
    *,
    digest: str = "",
    selftest: Golden | None = None,
    core: str = "portable",
) -> dict[str, bytes]:
    """The files of a package: relative path -> bytes. package: one of PACKAGES; the rest as for `emit_c.generate`.

    Raises QuantizeError for an unknown package, and as `emit_c.generate` does.
    """
    if package not in PACKAGES:
        raise QuantizeError(f"unknown package {package!r}; packages are {', '.join(PACKAGES)}")
    context = net_context(tables, name, digest=digest, selftest=selftest, core=core)
    kernels = f"{name}_rtcore*.[ch] (the kernels, under names of this net's own)"
    if package == "single":
        context["neighbours"] = f"{name}.c (everything else)"
        context["building"] = f"Compile {name}.c as C99, with any flags."
    else:
        context["neighbours"] = f"{name}.c (the net), {name}_weights.h (its tables), {kernels}"
        context["building"] = "Compile every .c file of this folder as C99, with any flags."
    net = {path: data.decode() for path, data in render_net(context).items()}
    used = called_kernels("".join(net.values()), core)
    texts = net | {file: _build.kernel_path(file, core).read_text() for file in used}
    files = {own_names(path, name): own_names(text, name) for path, text in texts.items()}
    context |= {
        "number": re.match(r"\d+(\.\d+)*", context["version"])[0],
        "sources": sorted(path for path in files if path.endswith(".c")),
        "symbol": f"RTCORE_{context['macro']}",
    }
    if package == "single":
        return _single(context, files)
    laid = {f"src/{path}": text.encode() for path, text in files.items()}
    return laid | {path: render_template(f"package/{t}", context) for path, t in _build_files(name, package).items()}


def generate_package(tables: Tables, out_dir: str | os.PathLike, name: str, package: str, **options: Any) -> list[Path]:
    """Writes what `render_package` gives into out_dir, all files or none, and returns their paths, sorted."""
    files = render_package(tables, name, package, **options)
    write_folder(Path(out_dir), files)
    return sorted(Path(out_dir) / path for path in files)


def _build_files(name: str, package: str) -> dict[str, str]:
    """Path in the package -> its template."""
    if package == "cmake":
        return {"CMakeLists.txt": "CMakeLists.txt"}
    if package == "arduino":
        sketch = f"{name}_selftest"
        return {"library.properties": "library.properties", f"examples/{sketch}/{sketch}.ino": "sketch.ino"}
    if package == "platformio":
        return {"library.json": "library.json"}
    return {
        "zephyr/module.yml": "module.yml",
        "zephyr/Kconfig": "Kconfig",
        "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt",
    }


# --------------------------------------------------------------------------------------------------------- kernels --


def called_kernels(net: str, core: str = "portable") -> list[str]:
    """The kernel sources that a net's C calls, directly or not, and all headers that they include; files of csrc."""
    texts = {file: _build.kernel_path(file, core).read_text() for file in kernel_files(core)}
    prototype = re.compile(r"^[a-z][^;{}#]*\);", re.M)
    bodies = {file: prototype.sub("", re.sub(r"/\*.*?\*/", "", text, flags=re.S)) for file, text in texts.items()}
    definition = re.compile(r"^(?:(?!static)[a-z][^;={}()#]*\b|[A-Z]\w*\()(rtcore_\w+)[(,]", re.M)  # some by a macro
    assembled = re.compile(r"\.global (rtcore_\w+)")

    def whole(file: str) -> str:
        """A source and what it includes: a core's own may define functions in a header that only it includes."""
        headers = re.findall(r'^#include "(rtcore[^"]*)"', bodies[file], re.M)
        return "\n".join([bodies[file], *(whole(header) for header in headers)])

    sources = {file: whole(file) for file in bodies if file.endswith(".c")}
    homes = {
        function: file
        for file, text in sources.items()
        for function in [*definition.findall(text), *assembled.findall(text)]
    }
    found: dict[str, None] = {}
    waiting = [net]
    while waiting:
        text = waiting.pop()
        wanted = {homes[word] for word in re.findall(r"\brtcore_\w+", text) if word in homes}
        wanted |= set(re.findall(r'^#include "(?:rtcore/)?(rtcore[^"]*)"', text, re.M))
        for file in sorted(wanted - found.keys()):
            found[file] = None
            waiting.append(bodies[file])
    return sorted(found)


def own_names(text: str, name: str) -> str:
    """Text of C, or a path, in which every name of rtcore's begins with the net's: rtcore_x becomes NAME_rtcore_x."""
    text = re.sub(r"\brtcore/(?=rtcore)", "", text)  # a package keeps its sources in one folder
    text = re.sub(r"\brtcore(?=_|\.[ch]\b)", f"{name}_rtcore", text)
    return re.sub(r"\bRTCORE_", f"{name.upper()}_RTCORE_", text)


# ----------------------------------------------------------------------------------------------- one pair of files --


def _single(context: dict, files: dict[str, str]) -> dict[str, bytes]:
    """NAME.h with the kernels' public header in it, NAME.c with all the rest."""
    name, macro = context["name"], context["macro"]
    public = f"{name}_rtcore.h"
    parts = [f"{name}_weights.h", f"{name}.c"]
    kernels = _in_order({path: text for path, text in files.items() if "_rtcore" in path and path != public})
    texts = {path: _apart(text, path, name) if path.endswith(".c") else text for path, text in kernels.items()}
    texts |= {path: files[path] for path in parts}
    own = set(files)
    body = [(path, _without_includes(text, own).strip()) for path, text in texts.items()]
    selftest = f"{name}_selftest.c"
    if selftest in files:
        golden = _without_includes(files[selftest], own).strip()
        body.append((selftest, f"#ifndef {macro}_NO_SELFTEST\n{golden}\n#endif"))
    body.insert(0, (f"{name}.h", f'#include "{name}.h"'))
    header = files[f"{name}.h"].replace(f'#include "{public}"\n', f"\n{files[public]}\n")
    source = render_template("package/single.c", context | {"parts": body})
    return {f"{name}.h": header.encode(), f"{name}.c": source}


def _in_order(files: dict[str, str]) -> dict[str, str]:
    """Headers first, each with those that it includes in their place; then sources."""
    ordered: dict[str, str] = {}
    done: set[str] = set()

    def expanded(path: str) -> str:
        done.add(path)

        def include(found: re.Match) -> str:
            if found[1] not in files:
                return found[0]
            return "" if found[1] in done else expanded(found[1])

        return re.sub(r'^#include "([^"]+)"\n', include, files[path], flags=re.M)

    headers = {path for path in files if path.endswith(".h")}
    inner = {name for path in headers for name in re.findall(r'^#include "([^"]+)"', files[path], re.M)}
    for path in [*sorted(headers - inner), *sorted(headers)]:
        if path not in done:
            ordered[path] = expanded(path)
    return ordered | {path: text for path, text in sorted(files.items()) if path.endswith(".c")}


def _without_includes(text: str, own: set[str]) -> str:
    """Without the lines that include files which are part of the same text."""
    return re.sub(r'^#include "([^"]+)"\n', lambda found: "" if found[1] in own else found[0], text, flags=re.M)


def _apart(text: str, path: str, name: str) -> str:
    """A source whose file-scope names (static functions and tables, enum constants, macros) begin with the file's own,
    so that they meet no other file's. Comments, strings and members of structs stay as they are."""
    names = set(re.findall(r"^static\s[^;={}()]*?\b(\w+)\s*[\[(=;]", text, re.M))
    names |= set(re.findall(r"^#define (\w+)", text, re.M))
    for constants in re.findall(r"^enum \{([^}]*)\}", text, re.M):
        names |= set(re.findall(r"\b([A-Za-z_]\w*)\b", re.sub(r"=[^,}]*", "", constants)))
    prefix = path.removesuffix(".c")
    words = {word: f"{prefix}_own_{word}" for word in names if not word.startswith((f"{name}_", f"{name.upper()}_"))}
    if not words:
        return text
    pattern = re.compile(
        rf'/\*.*?\*/|"(?:\\.|[^"\\])*"|(?:\.|->)\w+|\b(?P<word>{"|".join(sorted(words))})\b', re.DOTALL
    )
    return pattern.sub(lambda found: words[found["word"]] if found["word"] else found[0], text)
