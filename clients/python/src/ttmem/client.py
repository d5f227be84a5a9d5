"""What a program calls."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import TypedDict

from .books import Books, Buffer, Statistics
from .connection import Connection
from .protocol import (
    BufferType,
    Kind,
    checked_device,
    checked_id,
    checked_size,
    device_info,
    frame,
    totals,
    wire_type,
)

_ARCHITECTURES = {0: "Invalid", 1: "Grayskull", 2: "Wormhole_B0", 3: "Blackhole", 4: "Quasar"}

#: Ids that are not given by the program: far from any address, and never the same for two clients of one process.
_ids = itertools.count(1 << 62)

_clients: weakref.WeakSet[AllocationClient] = weakref.WeakSet()


class DeviceTotals(TypedDict):
    """What all processes hold on a device, in bytes."""

    device_id: int
    dram_allocated: int
    l1_allocated: int
    l1_small_allocated: int
    trace_allocated: int
    cb_allocated: int
    kernel_allocated: int


class DeviceInfo(TypedDict):
    """What a device has, sizes in bytes; 0 where the daemon does not know."""

    device_id: int
    is_available: bool
    arch_type: int
    arch_name: str
    total_dram_size: int
    total_l1_size: int
    num_dram_channels: int
    dram_size_per_channel: int
    l1_size_per_core: int
    num_devices: int


class AllocationClient:
    """Reports buffers to the daemon, and asks it about devices.

    `socket_path` is the daemon's socket: $TTMEM_SOCKET, or else /tmp/tt_allocation_server.sock, if it is not given. Reports
    are kept until a daemon listens there. Queries raise ConnectionError while none does.

    Any thread may call it. In a forked child it is as new: the child holds nothing of what its parent holds.
    """

    def __init__(self, socket_path: str | os.PathLike[str] | None = None) -> None:
        self._books = Books()
        self._circular: dict[int, int] = {}
        self._connection = Connection(socket_path, self._everything)
        _clients.add(self)

    def __enter__(self) -> AllocationClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def allocate(self, device_id: int, size: int, buffer_type: BufferType, buffer_id: int | None = None) -> int:
        """Reports a buffer of `size` bytes, and gives its id: `buffer_id`, an address for instance, or a new one.

        The same id once more on the same device, with the same size and type, is one more reference to the same buffer.
        """
        buffer_id = next(_ids) if buffer_id is None else checked_id(buffer_id)
        buffer = Buffer(checked_device(device_id), checked_size(size), BufferType(buffer_type), time.time_ns())
        message = _allocation(buffer_id, buffer)
        with self._connection.lock:
            self._books.enter(buffer_id, buffer)
            self._connection.report(message)
        return buffer_id

    def deallocate(self, buffer_id: int, device_id: int | None = None) -> None:
        """Reports that a buffer is gone. The device need be given only for an id that is in use on several."""
        with self._connection.lock:
            devices = self._books.devices_of(buffer_id)
            if device_id is None and len(devices) == 1:
                device_id = devices[0]
            if device_id is None or device_id not in devices:
                where = "no device" if not devices else f"devices {', '.join(map(str, devices))}: name one"
                raise ValueError(f"buffer {buffer_id} is live on {where}")
            self._books.strike(device_id, buffer_id)
            self._connection.report(frame(Kind.FREE, device_id=device_id, buffer_id=buffer_id))

    @contextlib.contextmanager
    def buffer(self, device_id: int, size: int, buffer_type: BufferType) -> Iterator[int]:
        """A buffer for as long as a block lasts: `with client.buffer(0, 1 << 20, BufferType.L1) as buffer_id`."""
        buffer_id = self.allocate(device_id, size, buffer_type)
        try:
            yield buffer_id
        finally:
            self.deallocate(buffer_id)

    def allocate_cb(self, device_id: int, size: int) -> None:
        """Reports circular buffers of `size` bytes in all."""
        message = frame(Kind.CB_ALLOC, device_id=checked_device(device_id), size=checked_size(size))
        with self._connection.lock:
            self._circular[device_id] = self._circular.get(device_id, 0) + size
            self._connection.report(message)

    def deallocate_cb(self, device_id: int, size: int) -> None:
        """Reports that circular buffers of `size` bytes in all are gone."""
        message = frame(Kind.CB_FREE, device_id=checked_device(device_id), size=checked_size(size))
        with self._connection.lock:
            held = self._circular.get(device_id, 0)
            if size > held:
                raise ValueError(f"device {device_id} has circular buffers of {held} bytes, not of {size}")
            self._circular[device_id] = held - size
            self._connection.report(message)

    def report_failure(
        self, device_id: int, size: int, buffer_type: BufferType, free: int, largest_free_block: int
    ) -> None:
        """Reports that an allocation of `size` bytes found no room, with what the allocator had: all in bytes."""
        message = frame(
            Kind.ALLOCATION_FAILED,
            device_id=checked_device(device_id),
            size=checked_size(size),
            buffer_type=wire_type(buffer_type),
            buffer_id=checked_id(largest_free_block),
            timestamp=checked_id(free),
        )
        with self._connection.lock:
            self._connection.report(message)

    def statistics(self) -> dict[int, dict[BufferType, Statistics]]:
        """What this client's program holds, by device and kind of memory. Asks nobody: it works without any daemon."""
        with self._connection.lock:
            return self._books.statistics()

    def query_device(self, device_id: int) -> DeviceTotals:
        """What all processes hold on a device."""
        reply = self._connection.ask(frame(Kind.QUERY, device_id=checked_device(device_id)))
        dram, l1, l1_small, trace, cb, kernel = totals(reply)
        return {
            "device_id": device_id,
            "dram_allocated": dram,
            "l1_allocated": l1,
            "l1_small_allocated": l1_small,
            "trace_allocated": trace,
            "cb_allocated": cb,
            "kernel_allocated": kernel,
        }

    def get_num_devices(self) -> int:
        """How many devices the daemon knows."""
        return self.query_device_info(-1)["num_devices"]

    def query_device_info(self, device_id: int) -> DeviceInfo:
        """What a device has; -1 asks for the number of devices alone."""
        if device_id != -1:
            checked_device(device_id)
        reply = self._connection.ask(frame(Kind.DEVICE_INFO_QUERY, device_id=device_id))
        dram, l1, arch, channels, channel_bytes, core_bytes, is_available, devices = device_info(reply)
        return {
            "device_id": device_id,
            "is_available": bool(is_available),
            "arch_type": arch,
            "arch_name": _ARCHITECTURES.get(arch, "Unknown"),
            "total_dram_size": dram,
            "total_l1_size": l1,
            "num_dram_channels": channels,
            "dram_size_per_channel": channel_bytes,
            "l1_size_per_core": core_bytes,
            "num_devices": devices,
        }

    def flush(self, seconds: float = 1.0) -> bool:
        """Waits until the daemon has taken every report into account; False if it does not within that time."""
        return self._connection.flush(seconds)

    def close(self) -> None:
        """Sends what is waiting and disconnects. What the program still holds stays known until its process ends."""
        self._connection.close()

    def _everything(self) -> Iterable[bytes]:
        """The messages that tell all that lives."""
        for buffer_id, buffer in self._books.live():
            yield from itertools.repeat(_allocation(buffer_id, buffer), buffer.references)
        for device_id, held in self._circular.items():
            if held:
                yield frame(Kind.CB_ALLOC, device_id=device_id, size=held)


def clients() -> list[AllocationClient]:
    """Every client of this process."""
    return list(_clients)


def _allocation(buffer_id: int, buffer: Buffer) -> bytes:
    return frame(
        Kind.ALLOC,
        device_id=buffer.device_id,
        size=buffer.size,
        buffer_type=wire_type(buffer.buffer_type),
        buffer_id=buffer_id,
        timestamp=buffer.timestamp,
    )


def _forget_everything() -> None:
    for client in clients():
        client._books.clear()
        client._circular.clear()


os.register_at_fork(after_in_child=_forget_everything)
