"""Window nets on the host against the oracle, bit for bit, under every disturbance; and which records are refused."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_net import batch, compare

import nets
import window_nets
from rtcore import Net

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS)
@settings(max_examples=150)
def test_random_windows_equal_the_oracle(seed):
    rng = np.random.default_rng(seed)
    tables = window_nets.random_window(rng)
    frames = nets.random_frames(rng, tables, 3)
    compare(tables, frames, None, Net(tables).run(batch(frames), trace=True), seed)
