"""Golden vectors: seeded frames, extremes included, and the outputs and states that the host runtime gives for them.

They go into NAME_selftest.c, so that silicon proves itself. Neighbours: `emit_c.py` (prints them), `rtcore.Net` (runs).
"""

from __future__ import annotations

import numpy as np

from quantize.emit_c import Golden
from rtcore import Net, Tables

SEED = 20


def golden_vectors(tables: Tables, steps: int) -> Golden:
    """One stream of `steps` frames: random ones at full and at small scale, then all 32767, -32768 and 0."""
    rng = np.random.default_rng(SEED)
    inputs = []
    for name in tables.inputs:
        width = tables.tensors[name].width
        x = rng.integers(-32768, 32768, (steps, width)).astype(np.int16)
        x[1::2] //= 16
        x[-3:] = np.array([32767, -32768, 0], np.int16)[-min(steps, 3) :, None]
        inputs.append(x)
    rows = tables.state_rows
    initial = [
        rng.integers(-32768, 32768, sum(rows[row][1].size for row in given.layers)).astype(np.int16)
        for given in tables.state_inputs
    ]
    run = Net(tables).run([x[None] for x in inputs], [x[None] for x in initial] if initial else None)
    return Golden(
        inputs=inputs,
        outputs=[y[0] for y in run.outputs],
        states=[run.states[layer.name][0] for layer in tables.states],
        initial=initial or None,
    )
