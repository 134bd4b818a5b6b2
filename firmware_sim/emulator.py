"""Runs firmware on an emulated core: calls its functions, counts their instructions, reads and writes its memory.

Memory is what the ELF says and nothing else: flash cannot be written, RAM cannot be executed, the stack ends at the
bottom of RAM, so that a wild access is a fault that names its place. Instructions are counted by blocks, from the entry
of a call to its return; a predicated-off instruction counts as one. Counts are exact and repeatable; they are not
cycles.

Neighbours: `toolchain.py` (builds a Firmware), `architectures.py` (registers, calls, lengths of instructions),
`board/` (the symbols and sections relied on), `engines.py` (runs nets).
"""

from __future__ import annotations

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from firmware_sim.toolchain import Firmware, require

PAGE = 4096
PAINT = 0xA5  # fills the stack before a call
CALL_LIMIT = 10**10  # instructions after which a call is taken for an endless loop


class EmulatorError(RuntimeError):
    """The firmware did what the core would fault on: where, in which function, and what it touched."""


@dataclass(frozen=True)
class Symbol:
    """A function (address without the Thumb bit) or an object of the firmware."""

    name: str
    address: int
    size: int
    function: bool


@dataclass(frozen=True)
class Sizes:
    """Bytes of a net in a product, without the driver that calls it here.

    code:   the net, the kernels and what they need of the compiler's library, in flash.
    tables: weights and the kernels' own tables, in flash.
    ram:    sizeof(NAME_state), everything that one stream keeps.
    """

    code: int
    tables: int
    ram: int

    @property
    def flash(self) -> int:
        """Bytes of flash: code and tables."""
        return self.code + self.tables


class Image:
    """A linked firmware as its file describes it: symbols, sections, and the memory they lie in."""

    def __init__(self, firmware: Firmware):
        require("elftools")
        self.firmware = firmware
        self.architecture = firmware.target.architecture
        self.symbols, self.sections, self.segments = _read_elf(firmware)

    def symbol(self, name: str) -> Symbol:
        """The symbol of that name. Raises KeyError naming the firmware's file."""
        if name not in self.symbols:
            raise KeyError(f"{self.firmware.elf} has no symbol {name}")
        return self.symbols[name]

    def place_of(self, address: int) -> str:
        """The function that an address lies in, with the offset; "no function" outside of all."""
        for symbol in self.symbols.values():
            if symbol.function and symbol.address <= address < symbol.address + symbol.size:
                return f"{symbol.name}+{address - symbol.address:#x}"
        return "no function"

    def sizes(self) -> Sizes:
        """What the net costs in flash and RAM."""
        return Sizes(
            code=self.sections.get(".text", 0),
            tables=self.sections.get(".rodata", 0),
            ram=self.symbol("board_state").size,
        )

    def address(self, where: str | int) -> int:
        """The address of a symbol, or the address itself."""
        return self.symbol(where).address if isinstance(where, str) else where


class Board(Image, ABC):
    """A firmware in an emulator: `Emulator` or `Qemu`."""

    @abstractmethod
    def call(self, function: str, *args: int) -> int:
        """Calls a C function of integer and pointer arguments and returns its result as a signed number.

        args: ints or addresses, at most 32 bits each; those beyond the argument registers go on the stack.
        `instructions` then holds what the call executed. Raises EmulatorError for a fault, naming place and address.
        """

    @abstractmethod
    def read(self, where: str | int, size: int) -> bytes:
        """Bytes from the start of a symbol, or from an address."""

    @abstractmethod
    def write(self, where: str | int, data: bytes) -> None:
        """Bytes to the start of a symbol, or to an address; flash included."""

    @abstractmethod
    def following(self, enter: Callable[[int, int], None]) -> contextlib.AbstractContextManager:
        """While this context is open, enter(address, bytes) is called for every run of instructions that is executed
        from its first to its last one, in order; functions begin runs, and so does what they return to."""

    def stack_used(self, function: str, *args: int) -> int:
        """Calls a function on a painted stack and returns the bytes of stack that it wrote, its own frame included."""
        bottom = self.symbol("board_stack_bottom").address
        depth = self.symbol("board_stack_top").address - bottom
        self.write(bottom, bytes([PAINT]) * depth)
        self.call(function, *args)
        passed = self.architecture.passed(len(args))  # the caller's
        touched = np.flatnonzero(np.frombuffer(self.read(bottom, depth), np.uint8) != PAINT)
        return max(0, depth - passed - int(touched[0])) if touched.size else 0


class Emulator(Board):
    """One board, reset and waiting for calls.

    firmware: from `toolchain.build_firmware`. Raises ToolchainError when unicorn or pyelftools is not installed.
    instructions: executed by the last call, from its entry to its return.
    """

    def __init__(self, firmware: Firmware):
        require("unicorn", "elftools")
        import unicorn  # noqa: PLC0415 (optional package)

        super().__init__(firmware)
        architecture = self.architecture
        constants = importlib.import_module(architecture.constants)
        self.instructions = 0
        self._unicorn = unicorn
        self._registers = [getattr(constants, name) for name in architecture.arguments]
        names = (architecture.stack, architecture.link, architecture.pc)
        self._sp, self._link, self._pc = (getattr(constants, name) for name in names)
        self._lengths: dict[tuple[int, int], int] = {}  # (address, bytes) of a block -> instructions
        self._fault = ""
        modes = sum(getattr(unicorn, mode) for mode in architecture.modes)
        self._core = unicorn.Uc(getattr(unicorn, architecture.arch), modes)
        self._core.ctl_set_cpu_model(getattr(constants, firmware.target.model))
        for address, size, data, writable in self.segments:
            access = unicorn.UC_PROT_WRITE if writable else unicorn.UC_PROT_EXEC
            self._core.mem_map(address, -(-size // PAGE) * PAGE, unicorn.UC_PROT_READ | access)
            self._core.mem_write(address, data)
        self._core.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        self._core.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_bad_access)
        self._core.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self._exit = self.symbol("board_idle").address
        self._stack_bottom = self.symbol("board_stack_bottom").address
        self._stack_top = self.symbol("board_stack_top").address
        entry = self.symbol("board_reset").address
        if architecture.vectors:
            stack, entry = np.frombuffer(self.read("board_vectors", 8), "<u4").tolist()
            self._core.reg_write(self._sp, stack)
        self._run(entry)

    # ------------------------------------------------------------------------------------------------------- calls --

    def call(self, function: str, *args: int) -> int:
        stack = self._stack_top - self.architecture.passed(len(args))
        words = [arg & 0xFFFFFFFF for arg in args[len(self._registers) :]]
        self._core.mem_write(stack, np.array(words, "<u4").tobytes())
        for register, arg in zip(self._registers, args, strict=False):
            self._core.reg_write(register, arg & 0xFFFFFFFF)
        self._core.reg_write(self._sp, stack)
        self._core.reg_write(self._link, self._exit | self.architecture.code_bit)
        self._run(self.symbol(function).address)
        result = self._core.reg_read(self._registers[0])
        return result - (1 << 32) if result & 0x80000000 else result

    def _run(self, address: int) -> None:
        """From an address until the core is back in board_idle."""
        self.instructions = 0
        self._fault = ""
        try:
            self._core.emu_start(address | self.architecture.code_bit, self._exit)
        except self._unicorn.UcError as error:
            self._fault = self._fault or str(error)
        if self._fault:
            pc = self._core.reg_read(self._pc)
            raise EmulatorError(f"{self.firmware.target.name}: {self._fault}, at pc {pc:#010x} in {self.place_of(pc)}")

    def _on_block(self, _core, address: int, size: int, _data) -> None:
        """Counts a block that is about to run; its instructions are counted once."""
        length = self._lengths.get((address, size))
        if length is None:
            length = self.architecture.instructions(self._core.mem_read(address, size))
            self._lengths[address, size] = length
        self.instructions += length
        if self.instructions > CALL_LIMIT:
            self._fault = f"no return after {CALL_LIMIT} instructions"
            self._core.emu_stop()

    def _on_bad_access(self, _core, access: int, address: int, size: int, _value: int, _data) -> bool:
        kinds = {
            self._unicorn.UC_MEM_READ_UNMAPPED: "read",
            self._unicorn.UC_MEM_WRITE_UNMAPPED: "write",
            self._unicorn.UC_MEM_FETCH_UNMAPPED: "fetch",
            self._unicorn.UC_MEM_WRITE_PROT: "write to flash",
            self._unicorn.UC_MEM_FETCH_PROT: "fetch from RAM",
        }
        self._fault = f"{kinds.get(access, 'access')} of {size} bytes at {address:#010x}"
        if self._stack_bottom - PAGE <= address < self._stack_bottom:
            self._fault += " (the stack is used up)"
        return False

    def _on_exception(self, _core, number: int, _data) -> None:
        self._fault = f"exception {number}"
        self._core.emu_stop()

    @contextlib.contextmanager
    def watching(self, functions: Iterable[str], enter: Callable[[str, tuple[int, ...]], None]):
        """While this context is open, enter(name, argument registers) is called when one of the functions begins."""
        entries = {self.symbols[name].address: name for name in functions if name in self.symbols}

        def on_code(_core, address: int, _size: int, _data) -> None:
            enter(entries[address], tuple(self._core.reg_read(register) for register in self._registers))

        hooks = [self._core.hook_add(self._unicorn.UC_HOOK_CODE, on_code, begin=a, end=a) for a in entries]
        self._core.ctl_flush_tb()  # blocks translated before do not call the hooks
        try:
            yield
        finally:
            for hook in hooks:
                self._core.hook_del(hook)
            self._core.ctl_flush_tb()

    @contextlib.contextmanager
    def following(self, enter: Callable[[int, int], None]):
        hook = self._core.hook_add(
            self._unicorn.UC_HOOK_BLOCK, lambda _core, address, size, _data: enter(address, size)
        )
        self._core.ctl_flush_tb()  # what was translated before, as a reset, calls no hook
        try:
            yield
        finally:
            self._core.hook_del(hook)

    # ------------------------------------------------------------------------------------------------------ memory --

    def read(self, where: str | int, size: int) -> bytes:
        return bytes(self._core.mem_read(self.address(where), size))

    def write(self, where: str | int, data: bytes) -> None:
        address = self.address(where)
        self._core.mem_write(address, bytes(data))
        if address < self._stack_bottom:  # flash: blocks may have been translated, and counted, from what was there
            self._core.ctl_flush_tb()
            self._lengths.clear()


def _read_elf(firmware: Firmware):
    """Symbols by name, sizes of sections, and the memory to map: (address, size, initial bytes, writable)."""
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 (optional package)

    with firmware.elf.open("rb") as file:
        elf = ELFFile(file)
        symbols = {}
        for entry in elf.get_section_by_name(".symtab").iter_symbols():
            function = entry["st_info"]["type"] == "STT_FUNC"
            value = entry["st_value"] & ~firmware.target.architecture.code_bit if function else entry["st_value"]
            if entry.name and not entry.name.startswith(("$", ".L")) and entry["st_shndx"] != "SHN_UNDEF":
                symbols[entry.name] = Symbol(entry.name, value, entry["st_size"], function)
        parts = [s for s in elf.iter_sections() if s["sh_flags"] & 2 and s["sh_size"]]  # SHF_ALLOC
        sections = {part.name: part["sh_size"] for part in parts}
        segments = []
        for writable in (False, True):  # flash holds every section with contents, RAM those without
            region = [s for s in parts if (s["sh_type"] == "SHT_NOBITS") == writable]
            start = min(s["sh_addr"] for s in region)
            image = bytearray(max(s["sh_addr"] + s["sh_size"] for s in region) - start)
            for part in region if not writable else []:
                offset = part["sh_addr"] - start
                image[offset : offset + part["sh_size"]] = part.data()
            segments.append((start, len(image), bytes(image), writable))
    return symbols, sections, segments
