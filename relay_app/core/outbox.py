"""Accounting for what waits to be written to one connection. Never waits itself.

Bytes are counted, not frames: a count would cut an innocent phone on a burst of
small frames and let a few large ones through. Every item is charged its length
plus ``ITEM_OVERHEAD_BYTES`` for the objects that hold it, from ``offer`` until
the write that contains it is complete, so that the sum of all charges is the
memory that a reader who never reads can cost.

What is handed to the socket is a *batch*: all small items that wait, joined up
to ``BATCH_BYTES``, or one large item as it is. Whatever the socket does not take
stays the batch, as a view; the next write goes on there.
"""

from __future__ import annotations

from collections.abc import Callable

ITEM_OVERHEAD_BYTES = 64
"""Charge per item beyond its length: the bytes object and its place in the queue."""

BATCH_BYTES = 65536
"""Most bytes that are copied together for one write; one write of this size costs
about what two of half the size do, so larger ones gain nothing."""

LARGE_ITEM_BYTES = 32768
"""From here on an item is written as it is: a copy would cost more than a system call."""


class Budget:
    """The bytes that all outboxes of one relay hold together.

    Args:
        limit_bytes: Over this ``relieve`` is called at once.
        relieve: Makes room, by closing the connection with the largest backlog.
    """

    __slots__ = ("limit_bytes", "relieve", "used_bytes")

    def __init__(self, limit_bytes: int, relieve: Callable[[], None]) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.relieve = relieve


class Outbox:
    """What waits for one connection, in order.

    Args:
        max_bytes: The bound. With ``strict`` an item over it is refused; without,
            the item that crosses it is the last one that is taken, so that one
            frame larger than the bound still passes.
        strict: True for a phone, whose backlog is cut; false for a binary, to
            which nothing is dropped because its feeders pause at ``high_bytes``.
        budget: Shared by all outboxes of the relay.

    ``queued_bytes`` is the charge of what waits, ``written_bytes`` of what was written
    so far: their sum is how far the queue's end has come, and what was queued before a
    moment is written when ``written_bytes`` has come to the sum of that moment.

    Source: docs/protocol.md "Back-pressure".
    """

    __slots__ = (
        "_batch",
        "_batch_charge",
        "_batch_items",
        "_budget",
        "_items",
        "_strict",
        "high_bytes",
        "low_bytes",
        "max_bytes",
        "queued_bytes",
        "written_bytes",
    )

    def __init__(self, max_bytes: int, *, strict: bool, budget: Budget) -> None:
        self.max_bytes = max_bytes
        self.high_bytes = max_bytes // 2
        self.low_bytes = max_bytes // 4
        self.queued_bytes = 0
        self.written_bytes = 0
        self._strict = strict
        self._budget = budget
        self._items: list[bytes] = []
        self._batch: memoryview | bytes = b""
        self._batch_items: list[bytes] | None = None
        self._batch_charge = 0

    def __len__(self) -> int:
        """Items that wait, those of an unfinished batch included."""
        return len(self._items) + len(self._batch_items or ())

    def offer(self, item: bytes) -> bool:
        """Put an item at the end.

        Args:
            item: A whole frame, never empty.

        Returns: False when the bound does not allow it; nothing has changed then.
        """
        charge = len(item) + ITEM_OVERHEAD_BYTES
        queued = self.queued_bytes + charge
        if queued > self.max_bytes and (
            self._strict or self.queued_bytes > self.max_bytes
        ):
            return False
        self._items.append(item)
        self.queued_bytes = queued
        budget = self._budget
        budget.used_bytes += charge
        if budget.used_bytes > budget.limit_bytes:
            budget.relieve()
        return True

    def has_room(self, size: int) -> bool:
        """Tell whether an item of ``size`` bytes fits both bounds, without taking it."""
        charge = size + ITEM_OVERHEAD_BYTES
        budget = self._budget
        return (
            self.queued_bytes + charge <= self.max_bytes
            and budget.used_bytes + charge <= budget.limit_bytes
        )

    def force(self, item: bytes) -> None:
        """Put an item at the end whatever the bounds say: for the one close frame.

        The budget may be passed by that frame, at most 191 bytes a connection.
        """
        self._items.append(item)
        charge = len(item) + ITEM_OVERHEAD_BYTES
        self.queued_bytes += charge
        self._budget.used_bytes += charge

    def take(self) -> bytes | memoryview:
        """Give what to write next: the rest of the batch, or a new batch.

        Returns: Empty when nothing waits. Calling it again gives the same bytes
        until ``wrote`` has said otherwise.
        """
        if self._batch_items is not None:
            return self._batch
        items = self._items
        if not items:
            return b""
        size = len(items[0])
        count = 1
        if size < LARGE_ITEM_BYTES:
            for item in items[1:]:
                if size + len(item) > BATCH_BYTES:
                    break
                size += len(item)
                count += 1
        if count == len(items):
            taken, self._items = items, []
        else:
            taken = items[:count]
            del items[:count]
        self._batch = b"".join(taken) if count > 1 else taken[0]
        self._batch_items = taken
        self._batch_charge = size + ITEM_OVERHEAD_BYTES * count
        return self._batch

    def wrote(self, size: int) -> int:
        """Take note that the socket took the first ``size`` bytes of the batch.

        Returns: Number of items whose write is complete by this: all items of
        the batch at its end, 0 before.
        """
        batch = self._batch
        if size < len(batch):
            self._batch = memoryview(batch)[size:]
            return 0
        taken = self._batch_items
        if taken is None:
            raise AssertionError("wrote() without take()")
        self._batch_items = None
        self._batch = b""
        self.queued_bytes -= self._batch_charge
        self.written_bytes += self._batch_charge
        self._budget.used_bytes -= self._batch_charge
        return len(taken)

    def drop(self) -> int:
        """Forget everything but the rest of a frame that is partly on the wire.

        A frame that was begun has to be finished, or the close frame behind it
        would be read as its payload.

        Returns: Number of items that will never be written in full.
        """
        dropped = len(self._items)
        self._items.clear()
        charge = 0
        if self._batch_items is not None:
            rest = len(self._batch)
            taken = self._batch_items
            # From the end: whole items that have not been begun go.
            while taken and rest >= len(taken[-1]):
                rest -= len(taken.pop())
                dropped += 1
            if taken and rest:
                begun = taken[-1]
                self._batch = memoryview(begun)[len(begun) - rest :]
                self._batch_items = [begun]
                charge = len(begun) + ITEM_OVERHEAD_BYTES
            else:
                self._batch = b""
                self._batch_items = None
            self._batch_charge = charge
        self._budget.used_bytes -= self.queued_bytes - charge
        self.queued_bytes = charge
        return dropped

    def clear(self) -> int:
        """Forget everything: the connection is gone.

        Returns: Number of items that were never written in full.
        """
        left = len(self)
        self._items.clear()
        self._batch = b""
        self._batch_items = None
        self._batch_charge = 0
        self._budget.used_bytes -= self.queued_bytes
        self.queued_bytes = 0
        return left
