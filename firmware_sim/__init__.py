"""firmware_sim: fixed-point nets on the host and on emulated microcontrollers, held against the float model.

    sim = firmware_sim.Simulator(qmodel, target="cortex-m4");  y = sim.run(frames)
    report = firmware_sim.validate(qmodel, model, frames, target="cortex-m4");  print(report)
    costs = firmware_sim.analyze(qmodel, ["cortex-m4"]).cores[0]

The public names are loaded when they are asked for, so that importing this package needs neither torch nor an emulator.
Neighbours below: `quantize` (makes the nets and their C), `rtcore` (runs them on the host). `cli.py` is the command.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmware_sim.compare import Report, validate
    from firmware_sim.costs import Analysis, Budget, analyze
    from firmware_sim.simulator import Simulator

__all__ = ["Analysis", "Budget", "Report", "Simulator", "analyze", "validate"]

HOMES = {
    "Analysis": "firmware_sim.costs",
    "Budget": "firmware_sim.costs",
    "analyze": "firmware_sim.costs",
    "Report": "firmware_sim.compare",
    "Simulator": "firmware_sim.simulator",
    "validate": "firmware_sim.compare",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'firmware_sim' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
