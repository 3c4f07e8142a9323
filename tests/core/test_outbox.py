"""The outbox: order, charges, bounds, and what a drop leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core.outbox import (
    BATCH_BYTES,
    ITEM_OVERHEAD_BYTES,
    LARGE_ITEM_BYTES,
    Budget,
    Outbox,
)


def make(
    max_bytes: int = 10_000, *, strict: bool = True, limit: int = 1 << 30
) -> Outbox:
    """An outbox with a budget of its own."""
    return Outbox(max_bytes, strict=strict, budget=Budget(limit, lambda: None))


def written(outbox: Outbox, size: int) -> bytes:
    """Write up to ``size`` bytes, as a socket would take them."""
    piece = bytes(outbox.take()[:size])
    outbox.wrote(len(piece))
    return piece


def test_offer_over_the_bound_is_refused_and_changes_nothing() -> None:
    """Exactly the bound passes, one byte more does not."""
    outbox = make(200)
    assert outbox.offer(b"x" * (200 - ITEM_OVERHEAD_BYTES))
    assert outbox.queued_bytes == 200
    assert not outbox.offer(b"")
    assert outbox.queued_bytes == 200
    assert len(outbox) == 1


def test_offer_without_strict_takes_the_item_that_crosses() -> None:
    """A frame larger than the bound passes, the one after it does not."""
    outbox = make(200, strict=False)
    assert outbox.offer(b"x" * 1000)
    assert not outbox.offer(b"y")


def test_force_ignores_the_bound() -> None:
    """The one close frame always finds room."""
    outbox = make(100)
    assert outbox.offer(b"x" * 36)
    outbox.force(b"close")
    assert bytes(outbox.take()) == b"x" * 36 + b"close"


def test_take_joins_small_items_and_leaves_large_ones_alone() -> None:
    """Small items go together up to a batch, a large one by itself."""
    outbox = make(1 << 20)
    for item in (b"a" * 10, b"b" * 20, b"c" * BATCH_BYTES, b"d"):
        assert outbox.offer(item)
    assert written(outbox, 1 << 20) == b"a" * 10 + b"b" * 20
    large = outbox.take()
    assert len(large) == BATCH_BYTES
    assert outbox.wrote(len(large)) == 1
    assert bytes(outbox.take()) == b"d"
    first = b"e" * LARGE_ITEM_BYTES
    other = make(1 << 20)
    other.offer(first)
    other.offer(b"f")
    assert other.take() is first


def test_take_of_nothing_is_empty() -> None:
    """An empty outbox has nothing to write."""
    outbox = make()
    assert outbox.take() == b""
    with pytest.raises(AssertionError):
        outbox.wrote(0)


def test_wrote_keeps_the_item_charged_until_it_is_complete() -> None:
    """The item being written stays charged."""
    outbox = make()
    outbox.offer(b"abcdef")
    charge = outbox.queued_bytes
    assert written(outbox, 3) == b"abc"
    assert outbox.queued_bytes == charge
    assert bytes(outbox.take()) == b"def"
    assert outbox.wrote(3) == 1
    assert outbox.queued_bytes == 0


def test_marks_are_half_and_a_quarter() -> None:
    """Feeders stop at half and go on at a quarter."""
    outbox = make(4000)
    assert (outbox.high_bytes, outbox.low_bytes) == (2000, 1000)


@pytest.mark.parametrize(
    ("taken", "left", "dropped"),
    [
        (0, b"", 4),
        (2, b"aa", 3),
        (4, b"", 3),
        (5, b"bbb", 2),
        (12, b"", 1),
        (13, b"", 1),
    ],
)
def test_drop_leaves_the_rest_of_the_frame_that_was_begun(
    taken: int, left: bytes, dropped: int
) -> None:
    """Only what finishes a frame on the wire stays; whole frames go."""
    outbox = make()
    for item in (b"aaaa", b"bbbb", b"cccc"):
        outbox.offer(item)
    if taken:
        written(outbox, taken)
    outbox.offer(b"dddd")
    assert outbox.drop() == dropped
    assert bytes(outbox.take()) == left
    if left:
        assert outbox.wrote(len(left)) == 1
    assert outbox.queued_bytes == 0


def test_clear_gives_the_budget_back() -> None:
    """A connection that is gone costs nothing."""
    budget = Budget(1000, lambda: None)
    outbox = Outbox(1000, strict=True, budget=budget)
    outbox.offer(b"abc")
    outbox.offer(b"def")
    written(outbox, 1)
    outbox.offer(b"ghi")
    assert outbox.clear() == 3
    assert (outbox.queued_bytes, budget.used_bytes) == (0, 0)


def test_budget_over_its_limit_calls_for_relief() -> None:
    """The offer that crosses the limit asks for room at once."""
    calls: list[int] = []
    budget = Budget(150, lambda: calls.append(budget.used_bytes))
    outbox = Outbox(1000, strict=True, budget=budget)
    outbox.offer(b"x" * 86)
    assert calls == []
    outbox.offer(b"")
    assert calls == [214]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.integers(1, 300)),
            st.tuples(st.just("write"), st.integers(1, 500)),
            st.tuples(st.just("drop"), st.just(0)),
            st.tuples(st.just("clear"), st.just(0)),
        )
    )
)
def test_charges_add_up_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Charges are 0 exactly when nothing waits, equal the budget's, and never exceed the bound."""
    budget = Budget(1 << 30, lambda: None)
    outbox = Outbox(1500, strict=True, budget=budget)
    stream, expected, serial = b"", b"", 0
    for step, size in steps:
        if step == "offer":
            serial += 1
            item = bytes((serial % 251,)) * size
            if outbox.offer(item):
                expected += item
        elif step == "write":
            if outbox.take():
                stream += written(outbox, size)
        else:
            if step == "drop":
                outbox.drop()
            else:
                outbox.clear()
            # What was begun may be finished; nothing else of the past may follow.
            rest = bytes(outbox.take())
            assert expected[len(stream) :].startswith(rest)
            expected = stream + rest
        assert outbox.queued_bytes == budget.used_bytes <= 1500
        assert (outbox.queued_bytes == 0) is (len(outbox) == 0)
    while outbox.take():
        stream += written(outbox, 100)
    assert stream == expected
    assert outbox.queued_bytes == 0
