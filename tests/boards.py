"""Which emulated cores a test runs on: those of unicorn, and boards of qemu-system-arm, skipped by name where it is not
installed. Neighbours: `firmware_sim/toolchain.py` (TARGETS, QEMU_TARGETS)."""

import shutil

import pytest

from firmware_sim.qemu import PROGRAM
from firmware_sim.toolchain import QEMU_TARGETS, TARGETS

needs_qemu = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed: the boards that it emulates are left out"
)
M55 = "qemu:cortex-m55"  # the core that unicorn has not
EVERYWHERE = ("host", *TARGETS, *([M55] if shutil.which(PROGRAM) else []))  # for tests that go from one to the next


def on(*targets):
    """Targets as parameters of a test."""
    return [pytest.param(name, marks=needs_qemu) if name in QEMU_TARGETS else name for name in targets]
