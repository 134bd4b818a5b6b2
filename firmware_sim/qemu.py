"""A second opinion: the firmware on a board of qemu-system-arm, called from outside as `emulator.py` does on unicorn.

QEMU runs the board; its debugger's interface (gdb's remote protocol, over a socket) sets registers, reads and writes
memory and stops at the return. Instructions come from QEMU's own count, which it keeps when it records an execution
(-icount with rr=record). The two emulators share an ancestor but not the board, the loader or the way of counting.

Neighbours: `emulator.py` (the same calls on unicorn), `toolchain.py` (QEMU_TARGETS), `engines.py` (runs nets on both).
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from firmware_sim.emulator import Board, EmulatorError
from firmware_sim.toolchain import Firmware, ToolchainError

PROGRAM = "qemu-system-arm"
PATIENCE_S = 120.0  # after which a call is taken for an endless loop
CHUNK = 1024  # bytes of memory in a packet
R0, SP, LINK, PC, XPSR = 0, 13, 14, 15, 25  # numbers in the protocol
THUMB_STATE = 1 << 24  # of XPSR
STOPPED = "Stopped execution of TB chain before"
ONE_BY_ONE = ("singlestep", "one-insn-per-tb")  # the monitor's command, before and since version 8.1


class Qemu(Board):
    """One board, reset and waiting for calls; ends with this object.

    firmware: built for one of `toolchain.QEMU_TARGETS`. instructions: executed by the last call, from its entry to its
    return. Raises ToolchainError when qemu-system-arm is not installed, EmulatorError when it cannot run the firmware.
    """

    def __init__(self, firmware: Firmware):
        super().__init__(firmware)
        program = shutil.which(PROGRAM)
        if program is None:
            raise ToolchainError(f"{firmware.target.name} needs {PROGRAM}, which is not installed")
        self.instructions = 0
        self._folder = tempfile.mkdtemp(prefix="rtcore-qemu-")
        folder = Path(self._folder)
        command = [program, *firmware.target.machine, "-kernel", str(firmware.elf), "-S", "-nic", "none"]
        command += ["-display", "none", "-monitor", "none", "-serial", "none"]
        command += ["-icount", f"shift=0,rr=record,rrfile={folder / 'record'}"]
        command += ["-chardev", f"socket,path={folder / 'gdb'},server=on,wait=off,id=gdb", "-gdb", "chardev:gdb"]
        self._said = (folder / "said").open("w+")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said)
        self.close = weakref.finalize(self, _end, self._process, self._said, self._folder)
        self._socket = self._connect(folder / "gdb")
        self._received = b""
        self._breakpoints: dict[int, str] = {}  # entries being watched
        self._enter: Callable[[str, tuple[int, ...]], None] | None = None
        self._ask(
            "qXfer:features:read:target.xml:0,800"
        )  # QEMU writes single registers once it has been asked for these
        self._exit = self.symbol("board_idle").address
        self._stack_top = self.symbol("board_stack_top").address
        self._tell(f"Z0,{self._exit:x},2")
        for register, value in ((SP, self._stack_top), (PC, self.symbol("board_reset").address), (XPSR, THUMB_STATE)):
            self._set(register, value)  # from a vector table it would start where its flash is, and only there
        self._run()

    # ------------------------------------------------------------------------------------------------------- calls --

    def call(self, function: str, *args: int) -> int:
        entry = self.symbol(function).address
        stack = self._stack_top - self.architecture.passed(len(args))
        words = [arg & 0xFFFFFFFF for arg in args]
        registers = len(self.architecture.arguments)
        self.write(stack, b"".join(word.to_bytes(4, "little") for word in words[registers:]))
        for number, word in enumerate(words[:registers]):
            self._set(R0 + number, word)
        self._set(SP, stack)
        self._set(LINK, self._exit | self.architecture.code_bit)
        self._set(PC, entry)
        before = self._count()
        self._run()
        self.instructions = self._count() - before
        result = self._get(R0)
        return result - (1 << 32) if result & 0x80000000 else result

    @contextlib.contextmanager
    def watching(self, functions: Iterable[str], enter: Callable[[str, tuple[int, ...]], None]):
        """While this context is open, enter(name, argument registers) is called when one of the functions begins."""
        self._breakpoints = {self.symbols[name].address: name for name in functions if name in self.symbols}
        self._enter = enter
        for address in self._breakpoints:
            self._tell(f"Z0,{address:x},2")
        try:
            yield
        finally:
            for address in self._breakpoints:
                self._tell(f"z0,{address:x},2")
            self._breakpoints = {}

    @contextlib.contextmanager
    def following(self, enter: Callable[[int, int], None]):
        log, before = Path(self._folder) / "log", self._count()
        for command in (f"logfile {log}", *(f"{name} on" for name in ONE_BY_ONE), "log exec,nochain"):
            self._command(command)
        try:
            yield
        finally:
            for command in ("log none", *(f"{name} off" for name in ONE_BY_ONE)):
                self._command(command)
        lines = executed(log.read_text().splitlines())
        log.unlink()  # the next one would be appended
        if len(lines) != (ran := self._count() - before):
            raise EmulatorError(f"{self.firmware.target.name}: {PROGRAM} logs {len(lines)} of {ran} instructions")
        for address, size in self._runs(lines):
            enter(address, size)

    def _runs(self, lines: list[str]) -> Iterator[tuple[int, int]]:
        """(address, bytes) of what was executed one instruction after the other, from a log of single instructions."""
        start = end = -1
        for line in lines:
            if (at := int(line.split("/")[1], 16)) != end:
                if start >= 0:
                    yield start, end - start
                start = at
            end = at + self._length(at)
        if start >= 0:
            yield start, end - start

    def _length(self, address: int) -> int:
        """Bytes of the instruction at an address."""
        begin, _, flash, _ = self.segments[0]
        at = address - begin
        return 4 if self.architecture.is_wide(flash[at] | flash[at + 1] << 8) else 2

    def _run(self) -> None:
        """Goes on until the core is in board_idle."""
        self._send("c")
        while True:
            self._stopped()
            at = self._get(PC)
            if at == self._exit:
                return
            if at not in self._breakpoints or self._enter is None:
                raise EmulatorError(f"{self.firmware.target.name}: stopped at {at:#010x} in {self.place_of(at)}")
            self._enter(
                self._breakpoints[at], tuple(self._get(R0 + k) for k in range(len(self.architecture.arguments)))
            )
            self._tell(f"z0,{at:x},2")  # a breakpoint would stop its own instruction again
            self._send("s")
            self._stopped()
            self._tell(f"Z0,{at:x},2")
            self._send("c")

    def _stopped(self) -> None:
        """Waits for the core to stop."""
        reply = self._receive()
        if not reply.startswith(("T05", "S05")):
            raise EmulatorError(f"{self.firmware.target.name}: {PROGRAM} stopped with {reply!r}")

    def _command(self, text: str) -> str:
        """What the monitor says to a command."""
        said = ""
        self._send(f"qRcmd,{text.encode().hex()}")
        while (reply := self._receive()) != "OK":
            said += bytes.fromhex(reply[1:]).decode()
        return said

    def _count(self) -> int:
        """Instructions since the reset."""
        said = self._command("info replay")
        found = re.search(r"instruction count = (\d+)", said)
        if found is None:
            raise EmulatorError(f"{PROGRAM} does not say how many instructions it ran: {said!r}")
        return int(found[1])

    # ------------------------------------------------------------------------------------------------------ memory --

    def read(self, where: str | int, size: int) -> bytes:
        address, found = self.address(where), b""
        while len(found) < size:
            found += bytes.fromhex(self._ask(f"m{address + len(found):x},{min(CHUNK, size - len(found)):x}"))
        return found

    def write(self, where: str | int, data: bytes) -> None:
        address = self.address(where)
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK]
            self._tell(f"M{address + start:x},{len(part):x}:{part.hex()}")

    def _get(self, register: int) -> int:
        return int.from_bytes(bytes.fromhex(self._ask(f"p{register:x}")), "little")

    def _set(self, register: int, value: int) -> None:
        self._tell(f"P{register:x}={value.to_bytes(4, 'little').hex()}")

    # ---------------------------------------------------------------------------------------------------- protocol --

    def _connect(self, path: Path) -> socket.socket:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(path))
            except OSError:
                link.close()
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise self._ended() from None
                time.sleep(0.01)
            else:
                link.settimeout(PATIENCE_S)
                return link

    def _ended(self) -> EmulatorError:
        """What the program said before it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._said.seek(0)
        said = " ".join(self._said.read().split())[:300]
        return EmulatorError(f"{self.firmware.target.name}: {PROGRAM} ended: {said or 'without a word'}")

    def _send(self, text: str) -> None:
        data = text.encode()
        try:
            self._socket.sendall(b"$%b#%02x" % (data, sum(data) & 0xFF))
        except OSError:
            raise self._ended() from None

    def _receive(self) -> str:
        """The next packet."""
        while (found := re.search(rb"\$([^#]*)#..", self._received)) is None:
            try:
                more = self._socket.recv(1 << 16)
            except TimeoutError:
                self._process.kill()
                raise EmulatorError(f"{self.firmware.target.name}: no return after {PATIENCE_S:g} s") from None
            except OSError:
                more = b""
            if not more:
                raise self._ended()
            self._received += more
        self._received = self._received[found.end() :]
        with contextlib.suppress(OSError):
            self._socket.sendall(b"+")
        return found[1].decode()

    def _ask(self, text: str) -> str:
        self._send(text)
        reply = self._receive()
        if re.fullmatch(r"E\d\d", reply) or not reply:
            raise EmulatorError(f"{self.firmware.target.name}: {PROGRAM} refuses {text[:40]!r}: {reply or 'unknown'}")
        return reply

    def _tell(self, text: str) -> None:
        if self._ask(text) != "OK":
            raise EmulatorError(f"{self.firmware.target.name}: {PROGRAM} does not do {text[:40]!r}")


def executed(lines: Iterable[str]) -> list[str]:
    """The lines of a log of entered blocks whose block ran.

    QEMU logs a block as it jumps to it. What the block does first is to take its instructions off a counter of 16 bits;
    where they are not left, after 65535 instructions at the latest, it jumps back without having run any. QEMU logs
    that it stopped before this block, fills the counter again, and enters and logs the block once more.
    """
    ran: list[str] = []
    for line in lines:
        if line.startswith("Trace "):
            ran.append(line)
        elif ran and line.startswith(f"{STOPPED} {ran[-1].split()[2]} "):
            ran.pop()
        else:
            raise EmulatorError(f"{PROGRAM} logs {line!r}, which is no block that runs, nor stops the one before it")
    return ran


def _end(process: subprocess.Popen, said, folder: str) -> None:
    """Ends the program and removes its files."""
    process.kill()
    process.wait()
    said.close()
    shutil.rmtree(folder, ignore_errors=True)
