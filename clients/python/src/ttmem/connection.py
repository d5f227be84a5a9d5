"""The way to the daemon: a bounded queue, a thread that empties it, and a socket that may come and go.

The idea is that what lives is known elsewhere. Whenever reports cannot be told one by one, because nobody listened or they
were too many, the queue is thrown away and the daemon is told anew of everything that lives: what it then has is exact.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable

from .protocol import FRAME_BYTES, HELLO_IDENTIFY, HELLO_RENEW, HELLO_VERSION, Kind, frame, trace_context

DEFAULT_SOCKET = "/tmp/tt_allocation_server.sock"

#: Reports that wait, at most: two megabytes of frames, more than a model's load makes while a daemon is started again.
REPORTS_MAX = 16_384
#: A daemon that takes nothing, or says nothing, for so long has stopped.
SILENCE_SECONDS = 5.0
#: Between two tries to reach the daemon: soon at first, for a daemon that is started again, and then now and then.
PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 1.0
#: How long a program that ends waits for its last reports.
EXIT_SECONDS = 0.5

#: Bytes with which the thread may have been woken since it last looked.
_WAKES_MAX = 4096

_all: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """Reports on their way to one daemon. `live` gives the messages that tell everything that lives; it is called with `lock` held."""

    def __init__(self, path: str | os.PathLike[str] | None, live: Callable[[], Iterable[bytes]]) -> None:
        self.path = os.fspath(path or os.environ.get("TTMEM_SOCKET") or DEFAULT_SOCKET)
        self._live = live
        self._is_closed = False
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        """As it is before the first report: at first, and in a fork, which has neither its parent's threads nor its place in the talk."""
        self.lock = threading.RLock()
        self._talk = threading.RLock()
        self._queue: list[bytes] = []
        self._lost = 0
        self._must_renew = False
        self._has_told = False
        #: What the daemon tells this client from others of the process by: never 0.
        self._identity = int.from_bytes(os.urandom(8), "little") | 1
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None

    def report(self, message: bytes) -> None:
        """Puts a message on its way. The caller holds `lock`, and has changed what lives already."""
        if self._is_closed:
            return
        if self._must_renew:
            # What lives will be told as a whole.
            self._lost += 1
        elif len(self._queue) >= REPORTS_MAX:
            self._lost += len(self._queue) + 1
            self._queue.clear()
            self._must_renew = True
        else:
            self._queue.append(message)
        if self._thread is None:
            self._start()
        self._notify()

    def ask(self, message: bytes) -> bytes:
        """The daemon's answer to a query, which reflects everything reported before it."""
        with self._talk:
            try:
                self._send_waiting()
                assert self._socket is not None
                self._socket.sendall(message)
                return self._receive(self._socket)
            except OSError as error:
                self._hang_up()
                raise ConnectionError(
                    f"{self.path}: the daemon does not answer ({error}); is `ttmem serve` running, and may this user connect?"
                ) from error

    def flush(self, seconds: float) -> bool:
        """Whether the daemon has taken everything reported so far into account, within a time."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.ask(frame(Kind.DEVICE_INFO_QUERY, device_id=-1))
                return True
            except ConnectionError:
                if time.monotonic() + PAUSE_SECONDS_MIN > end:
                    return False
                time.sleep(PAUSE_SECONDS_MIN)

    def close(self, seconds: float = EXIT_SECONDS) -> None:
        """Sends what waits, if the daemon takes it within that time, and ends. Reports are ignored from then on."""
        if self._has_told or self._queue:
            self.flush(seconds)
        with self.lock:
            self._is_closed = True
            self._notify()
        with self._talk:
            self._hang_up()
        _all.discard(self)

    def _start(self) -> None:
        self._wake = socket.socketpair()
        for end in self._wake:
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="ttmem-reports", daemon=True)
        self._thread.start()

    def _notify(self) -> None:
        if self._wake:
            try:
                self._wake[1].send(b"\0")
            except BlockingIOError:
                pass  # It has been told often enough.

    def _run(self) -> None:
        pause = PAUSE_SECONDS_MIN
        while not self._is_closed:
            try:
                with self._talk:
                    self._send_waiting()
                pause = PAUSE_SECONDS_MIN
                self._wait()
            except OSError:
                self._hang_up()
                time.sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _wait(self) -> None:
        """Until there is something to send, or the daemon has gone."""
        connected, wake = self._socket, self._wake
        if connected is None or wake is None:
            return
        if _readable(connected, wake[0]):
            with self._talk:
                # An answer belongs to whoever asked, and has been taken by now.
                if self._socket is connected and _readable(connected, seconds=0) and not connected.recv(1, socket.MSG_PEEK):
                    raise ConnectionError("the daemon has closed the connection")

    def _send_waiting(self) -> None:
        """Everything that waits. The caller holds `_talk`: what is taken first is sent first."""
        if self._is_closed:
            raise ConnectionError("this client is closed")
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        with self.lock:
            messages = [*self._news(), *self._queue]
            self._queue = []
            self._must_renew = False
            self._has_told = self._has_told or bool(messages)
        if messages:
            self._socket.sendall(b"".join(messages))

    def _news(self) -> Iterable[bytes]:
        """What has to be said before the queue; a program that only asks says nothing of itself."""
        if not (self._queue or self._must_renew or self._lost):
            return
        renews = self._must_renew and self._has_told
        if renews or not self._has_told:
            # Who of the process's clients this is; and if everything will be told anew, in which generation: the newest counts.
            step, number = (HELLO_RENEW, time.monotonic_ns()) if renews else (HELLO_IDENTIFY, 0)
            yield frame(
                Kind.HELLO, device_id=HELLO_VERSION, buffer_type=step, size=number, timestamp=self._identity
            )
            if message := trace_context(os.environ.get("TRACEPARENT", "")):
                yield message
        if self._must_renew:
            yield from self._live()
        if self._lost:
            yield frame(Kind.LOST, size=self._lost)
            self._lost = 0

    def _connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connected.settimeout(SILENCE_SECONDS)
            connected.connect(self.path)
        except OSError:
            connected.close()
            raise
        self._socket = connected

    def _receive(self, connected: socket.socket) -> bytes:
        reply = b""
        while len(reply) < FRAME_BYTES:
            part = connected.recv(FRAME_BYTES - len(reply))
            if not part:
                raise ConnectionError(f"it closed the connection after {len(reply)} of the {FRAME_BYTES} bytes of an answer")
            reply += part
        return reply

    def _hang_up(self) -> None:
        with self._talk, self.lock:
            if self._has_told:
                # Nobody knows how much of it has arrived.
                self._lost += len(self._queue)
                self._queue.clear()
                self._must_renew = True
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _become_a_fork(self) -> None:
        for end in (self._socket, *(self._wake or ())):
            if end is not None:
                end.close()
        self._reset()


def _readable(connected: socket.socket, wake: socket.socket | None = None, seconds: float | None = None) -> bool:
    """Whether there is something to read; waits for it, or until it is woken. Not select(), which knows few descriptors."""
    poll = select.poll()
    for waited in (connected, wake):
        if waited is not None and waited.fileno() >= 0:
            poll.register(waited, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}
    if wake is not None and wake.fileno() in ready:
        wake.recv(_WAKES_MAX)
    # One that another thread has closed has an end to be noticed.
    return connected.fileno() < 0 or connected.fileno() in ready


def _before_exit() -> None:
    for connection in list(_all):
        # One try for a program that has been too short to find out whether there is a daemon.
        connection.close(EXIT_SECONDS if connection._has_told else 0)


def _in_a_fork() -> None:
    for connection in list(_all):
        connection._become_a_fork()


atexit.register(_before_exit)
os.register_at_fork(after_in_child=_in_a_fork)
