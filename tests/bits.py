"""Integer comparison: equality, and a failure that says which layer, step and unit, expected and actual, and the seed.

Neighbours: every test that compares bits.
"""

import numpy as np


def assert_equal_bits(expected, actual, what: str, seed: int) -> None:
    """expected, actual: integer arrays of one shape, [..., T, N] or [N]."""
    expected, actual = np.asarray(expected), np.asarray(actual)
    assert expected.dtype.kind == "i" and actual.dtype.kind == "i", f"{what}: integers are compared, seed {seed}"
    assert expected.shape == actual.shape, f"{what}: shape {actual.shape}, expected {expected.shape}, seed {seed}"
    if not np.array_equal(expected, actual):
        index = tuple(int(i) for i in np.argwhere(expected != actual)[0])
        raise AssertionError(
            f"{what}: first difference at (.., step, unit) {index}: expected {expected[index]}, "
            f"actual {actual[index]}; {np.count_nonzero(expected != actual)} of {expected.size} differ; seed {seed}; "
            "repeat: the same test with this seed"
        )
