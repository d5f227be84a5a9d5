"""Shows what this process holds, while it runs."""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import NamedTuple, TextIO

from .client import clients
from .monitor import Monitor

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Held(NamedTuple):
    """What this process holds on one device in one kind of memory."""

    usage_bytes: int
    peak_bytes: int
    buffers: int


#: By device and kind of memory.
Picture = dict[tuple[int, str], Held]


class Watch:
    """A line for each device and kind of memory, every so many seconds, until `stop` or the end of a `with` block."""

    def __init__(self, seconds: float, out: TextIO, socket_path: str | os.PathLike[str] | None) -> None:
        self._out = out
        self._seconds = seconds
        self._socket_path = socket_path
        self._monitor: Monitor | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ttmem-watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Shows it once more and ends."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        before = None
        while True:
            is_last = self._stopped.wait(self._seconds)
            text = _lines(self._look())
            if text != before:
                print(text, file=self._out, flush=True)
                before = text
            if is_last:
                break
        if self._monitor is not None:
            self._monitor.close()

    def _look(self) -> Picture:
        """What the daemon shows of this process, whoever in it reports; without a daemon, what the clients here have reported."""
        try:
            if self._monitor is not None and not self._monitor.is_connected():
                self._monitor.close()
                self._monitor = None
            if self._monitor is None:
                self._monitor = Monitor(self._socket_path)
            shown = _shown(self._monitor)
        except (ConnectionError, TimeoutError):
            shown = {}
        # A daemon that has not heard of this process yet says nothing of it.
        return shown or _reported()


def watch(
    seconds: float = 1.0, out: TextIO | None = None, socket_path: str | os.PathLike[str] | None = None
) -> Watch:
    """Shows what this process holds, whenever that has changed, every `seconds`, on standard error if not said.

        with ttmem.watch():
            run(model)

    The figures are the daemon's, so they hold what tt-metal itself publishes and what `ttmem run` reports; `socket_path` is found as
    AllocationClient finds it. Where there is no daemon, they are those of the clients of this process.
    """
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}: give a time above 0")
    return Watch(seconds, sys.stderr if out is None else out, socket_path)


def _shown(monitor: Monitor) -> Picture:
    """What the daemon shows of this process."""
    own = os.getpid()
    # Of processes that had this pid before, it may still show the final counters.
    rows = [row for row in monitor.holdings() or () if row.pid == own and not row.has_ended]
    return {
        (row.device_id, row.memory_type): Held(row.usage_bytes, row.peak_bytes, row.buffers)
        for row in sorted(rows, key=lambda row: (row.device_id, row.memory_type))
    }


def _reported() -> Picture:
    """What all clients of this process hold. Peaks are those of each client, added up: the sum was never higher."""
    told: Picture = {}
    for client in clients():
        for device_id, by_type in client.statistics().items():
            for buffer_type, held in by_type.items():
                place = (device_id, buffer_type.name.lower())
                known = told.get(place, Held(0, 0, 0))
                told[place] = Held(
                    known.usage_bytes + held.allocated_bytes,
                    known.peak_bytes + held.peak_bytes,
                    known.buffers + held.buffers,
                )
    return dict(sorted(told.items()))


def _lines(picture: Picture) -> str:
    lines = [
        f"ttmem: device {device_id} {memory_type:<13} {_bytes(held.usage_bytes):>10}"
        f"  peak {_bytes(held.peak_bytes):>10}  {held.buffers} buffers"
        for (device_id, memory_type), held in picture.items()
    ]
    return "\n".join(lines) if lines else "ttmem: this process holds nothing"


def _bytes(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
