"""Placement: tensors that live at once never overlap, and the arena is no larger than it must be in simple cases."""

from hypothesis import given
from hypothesis import strategies as st

from quantize.arena import Lifetime, overlaps, place

LIVES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=20)


@given(LIVES)
def test_no_overlap_and_bounded(lives):
    tensors = [Lifetime(f"t{i}", width, first, first + more) for i, (width, first, more) in enumerate(lives)]
    offsets, size = place(tensors)
    spans = [(t, offsets[t.name], offsets[t.name] + t.width) for t in tensors]
    for i, (a, a0, a1) in enumerate(spans):
        assert a0 % 2 == 0 and a0 >= 0 and a1 <= size
        for b, b0, b1 in spans[:i]:
            assert not overlaps(a, b) or a1 <= b0 or b1 <= a0, f"{a} at {a0} meets {b} at {b0}"
    peak = max(sum(t.width for t in tensors if t.first <= i <= t.last) for i in range(17))
    assert peak <= size <= sum(t.width + 1 for t in tensors)


def test_a_chain_reuses_memory():
    chain = [Lifetime(f"t{i}", 10, i, i + 1) for i in range(9)]
    assert place(chain)[1] == 20
    assert place([]) == ({}, 0)
