"""The benchmark runs, and its judge sees what is wrong with a stream."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import cells
from benchmarks.check import Sorter, Tally, Track
from benchmarks.frames import PumpWire, RelayWire, payload

ROOT = Path(__file__).resolve().parent.parent
CYCLE = [payload(3, sequence, 128) for sequence in range(16)]


def judged(stream: bytes, piece_bytes: int) -> tuple[Tally, int]:
    """Give a stream to a track in pieces; return what was wrong and what had come."""
    tally = Tally()
    track = Track(CYCLE, tally)
    for at in range(0, len(stream), piece_bytes):
        track.take(stream[at : at + piece_bytes])
    return tally, track.received


PIECES = pytest.mark.parametrize("piece_bytes", [1, 100, 128, 129, 1 << 18])


@PIECES
def test_track_right_stream_counts_only_messages(piece_bytes: int) -> None:
    """A cycle that is repeated, in any pieces, has no fault."""
    tally, received = judged(b"".join(CYCLE * 3), piece_bytes)
    assert tally.is_clean
    assert received == 48


@PIECES
def test_track_changed_byte_is_one_corrupt_message(piece_bytes: int) -> None:
    """One wrong byte is seen, and the stream is followed again behind it."""
    stream = bytearray(b"".join(CYCLE * 3))
    stream[5 * 128 + 70] ^= 1
    tally, received = judged(bytes(stream), piece_bytes)
    assert tally == Tally(corrupt=1)
    assert received == 48


@PIECES
def test_track_missing_messages_are_lost(piece_bytes: int) -> None:
    """Two messages that never come are two that are lost."""
    tally, received = judged(b"".join([*CYCLE[:5], *CYCLE[7:], *CYCLE]), piece_bytes)
    assert tally == Tally(lost=2)
    assert received == 30


@PIECES
def test_track_swapped_messages_are_reordered(piece_bytes: int) -> None:
    """A message that comes too late is not lost."""
    swapped = [*CYCLE[:5], CYCLE[6], CYCLE[5], *CYCLE[7:], *CYCLE]
    assert judged(b"".join(swapped), piece_bytes)[0] == Tally(reordered=1)


@PIECES
def test_track_message_sent_again_is_repeated(piece_bytes: int) -> None:
    """A message that came before does not shift the expectation."""
    again = [*CYCLE[:6], CYCLE[5], *CYCLE[6:], *CYCLE]
    assert judged(b"".join(again), piece_bytes)[0] == Tally(repeated=1)


@pytest.mark.parametrize("piece_bytes", [7, 1000, 1 << 18])
def test_sorter_mixture_of_phones_is_told_apart(piece_bytes: int) -> None:
    """Messages of two phones in any mixture; one of nobody, and one of the wrong phone."""
    wire = RelayWire(["client-a-00000000", "client-a-00000001"], 300)
    tally = Tally()
    tracks = {
        wire.key_of(phone): Track(
            [wire.binary_sees(phone, s) for s in range(128)], tally
        )
        for phone in range(2)
    }
    seen: list[tuple[bytes, int]] = []
    sorter = Sorter(
        tracks, wire.key, tally, lambda name, count: seen.append((name, count))
    )
    parts = [wire.binary_sees(0, s) for s in range(100)]
    parts += [wire.binary_sees(s % 2, s // 2 + 100 * (1 - s % 2)) for s in range(50)]
    right = b"".join(parts)
    for at in range(0, len(right), piece_bytes):
        sorter.take(right[at : at + piece_bytes])
    assert tally.is_clean
    assert sorter.received == sum(count for _, count in seen) == 150
    nobody = wire.binary_sees(0, 125).replace(b"00000000", b"0000000f", 1)
    foreign = wire.binary_sees(1, 25).replace(b"-00000001", b"-00000000", 1)
    sorter.take(nobody + foreign)
    assert tally == Tally(corrupt=2)


def test_wire_ends_agree_about_the_payload() -> None:
    """What leaves one end unmasked is what the other has to see."""
    for size in (128, 200, 4096, 65536):
        wire = RelayWire(["client-a-00000000"], size)
        for sent in (wire.phone_sends(0, 7), wire.binary_sends(0, 7)):
            start = {126: 4, 127: 10}[sent[1] & 0x7F]
            mask, masked = sent[start : start + 4], sent[start + 4 :]
            clear = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
            assert json.loads(clear)
            assert clear in (
                wire.phone_sees(0, 7)[start:],
                wire.binary_sees(0, 7)[start:],
            )
        assert json.loads(PumpWire(size).binary_sees(0, 7))["type"] == "noise_msg"


def test_only_takes_beginnings_with_and_without_target() -> None:
    """``--only`` names modes, cells, targets."""
    assert cells(["up/128"]) == ["relay/up/128/1", "relay/up/128/16", "pump/up/128/16"]
    assert cells(["idle", "pump/down/4096"]) == ["pump/down/4096/16", "relay/idle"]
    assert not cells(["up/12"])


def test_benchmark_runs_and_nothing_is_lost(tmp_path: Path) -> None:
    """A very short run over a real gunicorn: every message arrives as it was sent."""
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1"]
    command += ["--seconds", "0.1", "--only", "pingpong/128", "--json", str(file)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())["cells"]
    assert list(found) == [
        "relay/pingpong/128/1",
        "relay/pingpong/128/16",
        "pump/pingpong/128/16",
    ]
    for cell in found.values():
        assert cell["median"]["messages"] > 0
        assert not any(cell["faults"].values())
