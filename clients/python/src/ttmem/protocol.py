"""The frames of the allocation protocol, as wire/PROTOCOL.md has them: 144 bytes, little-endian, zero from byte 40 in requests."""

from __future__ import annotations

import enum
import re
import struct

FRAME_BYTES = 144
DEVICES_MAX = 1024
BUFFER_BYTES_MAX = 1 << 40
ID_MAX = (1 << 64) - 1

#: What HELLO calls its first version, and what it can be for: a client asks, tells everything once more, or says who it is.
HELLO_VERSION = 1
HELLO_ASK = 0
HELLO_RENEW = 2
HELLO_IDENTIFY = 3

_HEADER = struct.Struct("<B3xiQB3xiQQ")
_TOTALS = struct.Struct("<6Q")
_TOTALS_AT = 40
_INFO = struct.Struct("<2Q6I")
_INFO_AT = 88
_TAIL = bytes(FRAME_BYTES - _HEADER.size)

#: W3C allows lower-case digits alone; versions after 00 may go on behind a hyphen, and there is no ff.
_TRACEPARENT = re.compile(r"(?:00(?=.{53}\Z)|(?!00|ff)[0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class BufferType(enum.IntEnum):
    """A kind of memory. The first four have the numbers of the first Python client."""

    DRAM = 0
    L1 = 1
    L1_SMALL = 2
    TRACE = 3
    SYSTEM_MEMORY = 4


#: How a frame of 144 bytes names them: tt-metal's own order.
_WIRE_TYPES = {
    BufferType.DRAM: 0,
    BufferType.L1: 1,
    BufferType.SYSTEM_MEMORY: 2,
    BufferType.L1_SMALL: 3,
    BufferType.TRACE: 4,
}


class Kind(enum.IntEnum):
    """A type of message."""

    ALLOC = 1
    FREE = 2
    QUERY = 3
    RESPONSE = 4
    DEVICE_INFO_QUERY = 6
    DEVICE_INFO_RESPONSE = 7
    CB_ALLOC = 8
    CB_FREE = 9
    KERNEL_LOAD = 10
    KERNEL_UNLOAD = 11
    HELLO = 13
    TRACE_CONTEXT = 14
    ALLOCATION_FAILED = 15
    LOST = 16


def frame(
    kind: Kind,
    device_id: int = 0,
    size: int = 0,
    buffer_type: int = 0,
    buffer_id: int = 0,
    timestamp: int = 0,
) -> bytes:
    """A request. Its process id is 0: the kernel tells the daemon whose it is."""
    return _HEADER.pack(kind, device_id, size, buffer_type, 0, buffer_id, timestamp) + _TAIL


def wire_type(buffer_type: BufferType) -> int:
    """The number of a kind of memory in a frame."""
    try:
        return _WIRE_TYPES[BufferType(buffer_type)]
    except ValueError:
        names = ", ".join(kind.name for kind in BufferType)
        raise ValueError(f"buffer_type {buffer_type!r} is none of BufferType's: {names}") from None


def checked_device(device_id: int) -> int:
    """A device's index, if it is one."""
    if not 0 <= device_id < DEVICES_MAX:
        raise ValueError(f"device_id {device_id} is not an index from 0 to {DEVICES_MAX - 1}")
    return device_id


def checked_size(size: int) -> int:
    """A size in bytes, if the daemon would believe it."""
    if not 1 <= size <= BUFFER_BYTES_MAX:
        raise ValueError(f"size {size} is not a number of bytes from 1 to {BUFFER_BYTES_MAX}")
    return size


def checked_id(buffer_id: int) -> int:
    """A buffer's id, if it fits."""
    if not 0 <= buffer_id <= ID_MAX:
        raise ValueError(f"buffer_id {buffer_id} does not fit into 64 bits without a sign")
    return buffer_id


def totals(reply: bytes) -> tuple[int, ...]:
    """DRAM, L1, L1_SMALL, TRACE, circular buffers, kernels: bytes held on a device by all processes."""
    return _TOTALS.unpack_from(reply, _TOTALS_AT)


def device_info(reply: bytes) -> tuple[int, ...]:
    """Bytes of DRAM and of L1, architecture, DRAM channels, bytes per channel, L1 bytes per core, is known, devices."""
    return _INFO.unpack_from(reply, _INFO_AT)


def trace_context(traceparent: str) -> bytes | None:
    """The message for a W3C traceparent; None for one that is not valid."""
    known = _TRACEPARENT.fullmatch(traceparent)
    if known is None:
        return None
    trace_id, parent_id, flags = (bytes.fromhex(part) for part in known.groups())
    if not any(trace_id) or not any(parent_id):
        return None
    first, last, parent_number = (int.from_bytes(part, "little") for part in (trace_id[:8], trace_id[8:], parent_id))
    return frame(Kind.TRACE_CONTEXT, size=first, buffer_type=flags[0], buffer_id=last, timestamp=parent_number)
