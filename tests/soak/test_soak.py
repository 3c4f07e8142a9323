"""The soak's own judgement: what is not given back is named."""

from tests.soak.__main__ import GROWTH_KIB, compare

BEFORE = {
    "server_ids": 0,
    "phones": 0,
    "connections": 0,
    "places": 0,
    "sources": 0,
    "queued_bytes": 0,
    "unfinished_bytes": 0,
    "buckets": 0,
    "greenlets": 3,
    "descriptors": 13,
    "rss_kib": 50_000,
}


def test_compare_same_figures_are_no_fault() -> None:
    """Less is no fault either, and memory may grow a little."""
    assert compare(BEFORE, BEFORE | {"descriptors": 12, "rss_kib": 51_000}) == []


def test_compare_names_everything_that_is_left() -> None:
    """Each figure by itself."""
    for name in BEFORE:
        more = GROWTH_KIB + 1 if name == "rss_kib" else 1
        (missed,) = compare(BEFORE, BEFORE | {name: BEFORE[name] + more})
        assert missed.startswith("memory" if name == "rss_kib" else name)
