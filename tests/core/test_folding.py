"""Folding: a flood costs a line a minute, and nothing of its count is lost."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core import folding
from relay_app.core.folding import MAX_PER_EVENT, MINUTE_S, Fold, Folding, Line

PER_SOURCE = Fold(burst=3, alike=("reason",), sums=("frames",))


def drop(log: Folding, source: str = "a", **fields: object) -> bool:
    """Offer one event."""
    return log.offer("x.dropped", 30, PER_SOURCE, source, fields)


def test_offer_within_the_burst_is_written_and_leaves_no_count() -> None:
    """What happens now and then has its lines, and nothing follows."""
    log = Folding(0)
    assert [drop(log) for _ in range(3)] == [True] * 3
    assert log.roll(MINUTE_S) == []
    assert len(log) == 0


def test_offer_past_the_burst_is_counted_in_one_line() -> None:
    """The line comes at the minute's end and not before, with its level and its count."""
    log = Folding(100)
    assert [drop(log, conn_id="c") for _ in range(10)] == [True] * 3 + [False] * 7
    assert log.roll(100 + MINUTE_S - 0.001) == []
    assert log.roll(100 + MINUTE_S) == [
        Line("x.dropped", 30, {"conn_id": "c", "folded": 7})
    ]


def test_roll_of_a_flood_that_stopped_gives_its_line_once() -> None:
    """Nobody has to send anything for that, and the next minute is silent."""
    log = Folding(0)
    for _ in range(9):
        drop(log)
    assert [line.fields["folded"] for line in log.roll(MINUTE_S)] == [6]
    assert log.roll(2 * MINUTE_S) == []
    assert drop(log)


def test_flood_that_goes_on_has_one_line_a_minute() -> None:
    """No burst at each minute's begin, for as long as it floods."""
    log = Folding(0)
    for _ in range(9):
        drop(log)
    for minute in range(1, 6):
        log.roll(minute * MINUTE_S)
        assert not any(drop(log) for _ in range(50))
    (line,) = log.roll(6 * MINUTE_S)
    assert line.fields["folded"] == 50


def test_flood_that_slowed_down_is_written_again_after_a_minute() -> None:
    """What came in that minute is counted, so that nothing is missing."""
    log = Folding(0)
    for _ in range(9):
        drop(log)
    log.roll(MINUTE_S)
    assert [drop(log) for _ in range(3)] == [False] * 3
    assert [line.fields["folded"] for line in log.roll(2 * MINUTE_S)] == [3]
    assert drop(log)


def test_sources_and_reasons_are_told_apart() -> None:
    """Somebody's flood hides nobody else's lines, nor another kind of its own."""
    log = Folding(0)
    for _ in range(99):
        drop(log, "a", reason="x")
    assert drop(log, "b", reason="x")
    assert drop(log, "a", reason="y")
    assert log.offer("y.dropped", 30, PER_SOURCE, "a", {"reason": "x"})


def test_sources_are_one_where_nobody_causes_the_event() -> None:
    """A fold without sources counts all together."""
    log = Folding(0)
    fold = Fold(burst=1, per_source=False)
    assert log.offer("x.y", 20, fold, "a", {})
    assert not log.offer("x.y", 20, fold, "b", {})


def test_line_has_what_all_have_in_common_and_sums() -> None:
    """A value that was not the same in all of them would be a lie about the others."""
    log = Folding(0)
    for number in range(6):
        drop(log, conn_id=f"c{number}", server_id="s", reason="x", frames=number)
    (line,) = log.roll(MINUTE_S)
    assert line.fields == {"server_id": "s", "reason": "x", "frames": 12, "folded": 3}


def test_line_leaves_out_what_some_do_not_have() -> None:
    """Absent is another value than any, in either order; an absent sum adds nothing."""
    log = Folding(0)
    for _ in range(3):
        drop(log)
    drop(log, peer="p", frames=2)
    drop(log, version="v")
    (line,) = log.roll(MINUTE_S)
    assert line.fields == {"frames": 2, "folded": 2}


def test_offer_changes_no_caller_fields() -> None:
    """What was offered belongs to whoever offered it."""
    log = Folding(0)
    fields = {"frames": 1}
    for _ in range(9):
        log.offer("x.dropped", 30, PER_SOURCE, "a", fields)
    assert fields == {"frames": 1}


def test_flush_gives_every_line_and_forgets() -> None:
    """At a stop there is no next minute."""
    log = Folding(0)
    for _ in range(9):
        drop(log)
    assert [line.fields["folded"] for line in log.flush()] == [6]
    assert log.flush() == []
    assert drop(log)


def test_many_sources_have_a_bounded_count_of_lines() -> None:
    """Who owns many addresses cannot fill the disk, nor hide how often it tried."""
    log = Folding(0)
    written = sum(drop(log, f"s{number}") for number in range(5 * MAX_PER_EVENT))
    assert written == MAX_PER_EVENT
    lines = log.roll(MINUTE_S)
    assert [line.fields["folded"] for line in lines] == [4 * MAX_PER_EVENT]
    assert log.offer("other.event", 20, PER_SOURCE, "s1", {})


def test_known_source_past_the_bound_keeps_a_count_of_its_own() -> None:
    """Its line still says whose it is."""
    log = Folding(0)
    drop(log, "known", peer="k")
    for number in range(MAX_PER_EVENT):
        drop(log, f"s{number}")
    assert not drop(log, "known", peer="k")
    assert {"peer": "k", "folded": 1} in [line.fields for line in log.roll(MINUTE_S)]


def test_many_floods_that_go_on_are_bounded() -> None:
    """However many sources flood for however long, so many lines and no more."""
    log = Folding(0)
    for minute in range(1, 4):
        for number in range(2 * MAX_PER_EVENT):
            for _ in range(5):
                drop(log, f"{minute} {number}")
        assert len(log) <= MAX_PER_EVENT + 1
        assert len(log.roll(minute * MINUTE_S)) <= MAX_PER_EVENT + 1


def test_memory_of_all_floods_is_bounded() -> None:
    """What is kept of an event does not grow with how often it comes."""
    log = Folding(0)
    for _ in range(4):
        drop(log, reason="x", conn_id="c", frames=1)
    flood = next(iter(log._events["x.dropped"].floods.values()))
    before = sys.getsizeof(flood._fields)
    for number in range(1000):
        drop(log, reason="x", conn_id=f"c{number}", frames=1)
    assert sys.getsizeof(flood._fields) == before
    assert len(log) == 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")),
            st.floats(0, 90),
        )
    ),
    st.integers(1, 4),
)
def test_nothing_is_lost_or_counted_twice(
    happenings: list[tuple[str, str] | float], most: int
) -> None:
    """Lines written and lines folded add up, whatever comes when and however many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "MAX_PER_EVENT", most)
        log, now = Folding(0), 0.0
        offered = written = folded = 0
        for happening in happenings:
            if isinstance(happening, float):
                now += happening
                lines = log.roll(now)
                folded += sum(line.fields["folded"] for line in lines)
            else:
                offered += 1
                written += drop(log, happening[0], reason=happening[1])
        folded += sum(line.fields["folded"] for line in log.flush())
    assert written + folded == offered
