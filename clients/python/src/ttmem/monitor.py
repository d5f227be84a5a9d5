"""Reads the daemon's stats pages: what devices and processes hold, out of memory that the daemon shares with its readers.

The idea is to ask once: the daemon hands two descriptors over, and from then on a look costs neither of the two a message.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType

from .connection import DEFAULT_SOCKET
from .protocol import FRAME_BYTES, HELLO_ASK, HELLO_VERSION, Kind, frame

#: The names of the kinds of memory, as they are in the `memory_type` label, in the order of a page's figures.
MEMORY_TYPES = ("dram", "l1", "l1_small", "trace", "cb", "kernel", "system_memory")

_ARCHITECTURES = {1: "grayskull", 2: "wormhole_b0", 3: "blackhole", 4: "quasar"}

#: The bit of HELLO that asks for the pages, and what the descriptors of the answer are.
_STATS_PAGE = 2
_DEVICE_PAGE = 3
_PROCESS_PAGE = 4
_DESCRIPTORS_MAX = 6
_LIST_AT = 40

_MAGIC = b"ttmempag"
_VERSION = 1
_KIND_DEVICES = 1
_KIND_PROCESSES = 2
_HEADER = struct.Struct("<8sIIIIQQQ16x")
_DEVICE = struct.Struct("<QBBB5x7Q7Q7QQ32s32x")
_HOLDER = struct.Struct("<QQIIHBBBB2xQ13Q88x64s24s")
_SEQUENCE = struct.Struct("<Q")
#: The part of a sequence that counts the writers in the middle of the row.
_WRITERS = 0xFFFF

#: Attempts to find a row still. A daemon that was killed while it wrote leaves its row as it was.
_ATTEMPTS_MAX = 1000
#: A daemon answers at once; one that is older does not.
_ANSWER_SECONDS = 2.0

_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 2


@dataclass(frozen=True)
class Device:
    """A device at one instant. Figures are in bytes and by the names of MEMORY_TYPES."""

    device_id: int
    arch_name: str
    """Empty where it is not known, as the board's name."""
    board: str
    usage_bytes: dict[str, int]
    """In use by all processes."""
    peak_bytes: dict[str, int]
    """The most that was in use at once since the daemon started."""
    limit_bytes: dict[str, int]
    """What there is, of the kinds for which that is known."""
    untracked_processes: int | None
    """Processes that hold the device open and report nothing; None where the kernel does not tell."""


@dataclass(frozen=True)
class Holding:
    """What one process holds on one device in one kind of memory, at one instant."""

    pid: int
    """As the daemon sees it."""
    start_ticks: int
    """When the process started, as in /proc/PID/stat: a pid that is used again has another."""
    name: str
    uid: int
    user: str
    device_id: int
    memory_type: str
    has_ended: bool
    """Whether the process has ended: it holds nothing then, and its counters are final."""
    usage_bytes: int
    peak_bytes: int
    buffers: int
    allocations: int
    frees: int
    allocated_bytes: int
    freed_bytes: int


class Monitor:
    """The stats pages of the daemon on this host.

    `socket_path` is the daemon's socket, found as AllocationClient finds it. Raises ConnectionError if no daemon answers there,
    or if it has no pages. A look raises TimeoutError if a row is never still: then the daemon has been killed in the middle of it.
    """

    def __init__(self, socket_path: str | os.PathLike[str] | None = None) -> None:
        path = os.fspath(socket_path or os.environ.get("TTMEM_SOCKET") or DEFAULT_SOCKET)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._socket.connect(path)
            pages = _ask(self._socket)
            self._socket.setblocking(False)
            if _DEVICE_PAGE not in pages:
                raise ConnectionError("it hands out no stats page")
        except (OSError, ValueError) as error:
            self._socket.close()
            raise ConnectionError(
                f"{path}: no stats page to read ({error}); is `ttmem serve` of this version running, and may this user connect?"
            ) from error
        self._devices = pages[_DEVICE_PAGE]
        self._processes = pages.get(_PROCESS_PAGE)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives the pages back."""
        self._socket.close()
        for page in (self._devices, self._processes):
            if page is not None:
                page.memory.close()

    def is_connected(self) -> bool:
        """Whether the daemon still runs. If not, the pages stay as they were; a new Monitor finds the next daemon."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False

    def device(self, device_id: int) -> Device | None:
        """One device; None if the daemon does not know it."""
        if not 0 <= device_id < self._devices.rows_used():
            return None
        _, is_known, arch, board_bytes, *words = _DEVICE.unpack(self._devices.row(device_id, _DEVICE.size))
        if not is_known:
            return None
        usage, peak, limit = (dict(zip(MEMORY_TYPES, words[first : first + 7])) for first in (0, 7, 14))
        return Device(
            device_id=device_id,
            arch_name=_ARCHITECTURES.get(arch, ""),
            board=_text(words[22], board_bytes),
            usage_bytes=usage,
            peak_bytes=peak,
            limit_bytes={name: size for name, size in limit.items() if size},
            untracked_processes=words[21] - 1 if words[21] else None,
        )

    def devices(self) -> list[Device]:
        """All devices that the daemon knows, each of an instant of its own."""
        found = (self.device(device_id) for device_id in range(self._devices.rows_used()))
        return [device for device in found if device is not None]

    def holdings(self) -> list[Holding] | None:
        """What every process holds, each row of an instant of its own; None if this process may not know.

        A process in a pid namespace of its own, as most containers are, does not learn who else is on the host.
        """
        if self._processes is None:
            return None
        found = (_holding(self._processes.row(index, _HOLDER.size)) for index in range(self._processes.rows_used()))
        return [holding for holding in found if holding is not None]

    def holdings_missing(self) -> int:
        """Holdings for which the page has no room: if there are any, only the daemon's HTTP interface shows all."""
        return 0 if self._processes is None else self._processes.header()[7]


class _Page:
    """One page, mapped for reading, whose header has been checked."""

    def __init__(self, descriptor: int, kind: int) -> None:
        if not fcntl.fcntl(descriptor, _F_GET_SEALS) & _F_SEAL_SHRINK:
            raise ValueError("the stats page can be taken away while it is read")
        size = os.fstat(descriptor).st_size
        if size < _HEADER.size:
            raise ValueError("the stats page has no header")
        self.memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        magic, version, found, self._header_bytes, self._row_bytes, self._rows_max, _, _ = self.header()
        smallest = _DEVICE.size if kind == _KIND_DEVICES else _HOLDER.size
        if (magic, version, found) != (_MAGIC, _VERSION, kind):
            raise ValueError(f"the stats page is of version {version} and kind {found}")
        end = self._header_bytes + self._rows_max * self._row_bytes
        if self._header_bytes < _HEADER.size or self._row_bytes < smallest or end > len(self.memory):
            raise ValueError("the stats page is larger than its memory")

    def header(self) -> tuple[bytes, int, int, int, int, int, int, int]:
        magic, version, kind, header_bytes, row_bytes, rows_max, used, missing = _HEADER.unpack_from(self.memory)
        return magic, version, kind, header_bytes, row_bytes, rows_max, used, missing

    def rows_used(self) -> int:
        return min(self.header()[6], self._rows_max)

    def row(self, index: int, size: int) -> bytes:
        """So many bytes of a row, all of one instant."""
        at = self._header_bytes + index * self._row_bytes
        for _ in range(_ATTEMPTS_MAX):
            (before,) = _SEQUENCE.unpack_from(self.memory, at)
            _fence()
            data = self.memory[at : at + size]
            _fence()
            if before & _WRITERS == 0 and _SEQUENCE.unpack_from(self.memory, at)[0] == before:
                return data
        raise TimeoutError(f"row {index} of the stats page is never still; has the daemon been killed?")


_order = threading.Lock()


def _fence() -> None:
    """Keeps reads on its two sides apart on any processor: what a lock's release lets out, its next acquisition lets in."""
    for _ in range(2):
        with _order:
            pass


def _ask(connected: socket.socket) -> dict[int, _Page]:
    """The pages that the daemon hands over, by the number that its answer gives them."""
    connected.sendall(frame(Kind.HELLO, device_id=HELLO_VERSION, buffer_type=HELLO_ASK, size=_STATS_PAGE))
    reply = b""
    descriptors: list[int] = []
    try:
        while len(reply) < FRAME_BYTES:
            space = socket.CMSG_SPACE(_DESCRIPTORS_MAX * struct.calcsize("i"))
            part, control, _, _ = connected.recvmsg(FRAME_BYTES - len(reply), space, socket.MSG_CMSG_CLOEXEC)
            for level, kind, data in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors += struct.unpack(f"{len(data) // struct.calcsize('i')}i", data)
            if not part:
                raise ConnectionError("it closed the connection")
            reply += part
        if reply[0] != Kind.HELLO:
            raise ValueError("it answers something else")
        count, *words = struct.unpack_from("<13Q", reply, _LIST_AT)
        listed = words[0 : 2 * min(count, _DESCRIPTORS_MAX) : 2]
        kinds = {_DEVICE_PAGE: _KIND_DEVICES, _PROCESS_PAGE: _KIND_PROCESSES}
        return {
            number: _Page(descriptor, kinds[number])
            for number, descriptor in zip(listed, descriptors)
            if number in kinds
        }
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _holding(row: bytes) -> Holding | None:
    _, ticks, pid, uid, device_id, memory_type, state, name_bytes, user_bytes, _, *figures, name, user = _HOLDER.unpack(row)
    # A kind of memory that a later daemon tells of has no name here.
    if state == 0 or memory_type >= len(MEMORY_TYPES):
        return None
    reported, region, is_reported, _, peak, buffers, allocations, frees, allocated, freed, *_ = figures
    return Holding(
        pid=pid,
        start_ticks=ticks,
        name=_text(name, name_bytes),
        uid=uid,
        user=_text(user, user_bytes),
        device_id=device_id,
        memory_type=MEMORY_TYPES[memory_type],
        has_ended=state == 2,
        usage_bytes=reported if is_reported else region,
        peak_bytes=peak,
        buffers=buffers,
        allocations=allocations,
        frees=frees,
        allocated_bytes=allocated,
        freed_bytes=freed,
    )


def _text(data: bytes, length: int) -> str:
    return data[:length].decode(errors="replace")
