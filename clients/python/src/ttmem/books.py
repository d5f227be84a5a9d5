"""What the program holds, kept in the program: the source of its own statistics and of what a new daemon is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .protocol import BufferType


@dataclass(frozen=True)
class Statistics:
    """What a program holds on one device in one kind of memory."""

    allocated_bytes: int = 0
    """Bytes held now."""
    peak_bytes: int = 0
    """The most bytes held at once."""
    buffers: int = 0
    """Buffers held now."""
    largest_buffer_bytes: int = 0
    """The largest of them."""


@dataclass
class Buffer:
    """A live buffer."""

    device_id: int
    size: int
    buffer_type: BufferType
    timestamp: int
    references: int = 1


class Books:
    """The live buffers of one client, by device and id. The caller holds a lock around every call."""

    def __init__(self) -> None:
        self._buffers: dict[int, dict[int, Buffer]] = {}
        self._totals: dict[tuple[int, BufferType], Statistics] = {}

    def enter(self, buffer_id: int, buffer: Buffer) -> None:
        """A buffer is there, or once more referred to; one of another size or kind takes the old one's place."""
        on_device = self._buffers.setdefault(buffer.device_id, {})
        known = on_device.get(buffer_id)
        if known and (known.size, known.buffer_type) == (buffer.size, buffer.buffer_type):
            known.references += 1
            return
        if known:
            self._count(known, -1)
        on_device[buffer_id] = buffer
        self._count(buffer, 1)

    def devices_of(self, buffer_id: int) -> list[int]:
        """The devices that have a buffer of that id."""
        return [device_id for device_id, buffers in self._buffers.items() if buffer_id in buffers]

    def strike(self, device_id: int, buffer_id: int) -> None:
        """One reference less; the last one ends the buffer."""
        buffers = self._buffers[device_id]
        buffer = buffers[buffer_id]
        buffer.references -= 1
        if buffer.references == 0:
            del buffers[buffer_id]
            self._count(buffer, -1)

    def live(self) -> Iterator[tuple[int, Buffer]]:
        """Every live buffer, oldest first on each device."""
        for buffers in self._buffers.values():
            yield from buffers.items()

    def statistics(self) -> dict[int, dict[BufferType, Statistics]]:
        """By device and kind of memory. Searches the live buffers for the largest."""
        largest: dict[tuple[int, BufferType], int] = {}
        for _, buffer in self.live():
            place = (buffer.device_id, buffer.buffer_type)
            largest[place] = max(largest.get(place, 0), buffer.size)
        told: dict[int, dict[BufferType, Statistics]] = {}
        for (device_id, buffer_type), totals in sorted(self._totals.items()):
            statistics = replace(totals, largest_buffer_bytes=largest.get((device_id, buffer_type), 0))
            told.setdefault(device_id, {})[buffer_type] = statistics
        return told

    def clear(self) -> None:
        """Forgets everything: a fork holds nothing of what its parent holds."""
        self._buffers.clear()
        self._totals.clear()

    def _count(self, buffer: Buffer, sign: int) -> None:
        place = (buffer.device_id, buffer.buffer_type)
        before = self._totals.get(place, Statistics())
        allocated = before.allocated_bytes + sign * buffer.size
        self._totals[place] = replace(
            before,
            allocated_bytes=allocated,
            peak_bytes=max(before.peak_bytes, allocated),
            buffers=before.buffers + sign,
        )
