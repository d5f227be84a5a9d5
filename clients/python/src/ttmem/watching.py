"""Shows what this process's clients hold, while it runs."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TextIO

from .books import Statistics
from .client import clients
from .protocol import BufferType

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Watch:
    """A line for each device and kind of memory, every so many seconds, until `stop` or the end of a `with` block."""

    def __init__(self, seconds: float, out: TextIO) -> None:
        self._out = out
        self._seconds = seconds
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
            text = picture()
            if text != before:
                print(text, file=self._out, flush=True)
                before = text
            if is_last:
                return


def watch(seconds: float = 1.0, out: TextIO | None = None) -> Watch:
    """Shows what the clients of this process hold, whenever that has changed, every `seconds`, on standard error if not said.

        with ttmem.watch():
            run(model)
    """
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}: give a time above 0")
    return Watch(seconds, sys.stderr if out is None else out)


def picture() -> str:
    """What this process's clients hold, added up, as lines of text."""
    lines = [
        f"ttmem: device {device_id} {buffer_type.name.lower():<13} {_bytes(held.allocated_bytes):>10}"
        f"  peak {_bytes(held.peak_bytes):>10}  {held.buffers} buffers"
        for device_id, by_type in own_statistics().items()
        for buffer_type, held in by_type.items()
    ]
    return "\n".join(lines) if lines else "ttmem: this process holds nothing"


def own_statistics() -> dict[int, dict[BufferType, Statistics]]:
    """What all clients of this process hold. Peaks are those of each client, added up: the sum was never higher."""
    told: dict[int, dict[BufferType, Statistics]] = {}
    for client in clients():
        for device_id, by_type in client.statistics().items():
            for buffer_type, held in by_type.items():
                sums = told.setdefault(device_id, {})
                known = sums.get(buffer_type, Statistics())
                sums[buffer_type] = Statistics(
                    known.allocated_bytes + held.allocated_bytes,
                    known.peak_bytes + held.peak_bytes,
                    known.buffers + held.buffers,
                    max(known.largest_buffer_bytes, held.largest_buffer_bytes),
                )
    return {device_id: told[device_id] for device_id in sorted(told)}


def _bytes(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
