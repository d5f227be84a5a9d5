#!/usr/bin/env python3
"""The daemon stands still for a minute (SIGSTOP) under clients that go on reporting: what they lose, and how long until all is applied.

usage: tests/drills/standstill.py TTMEM [SECONDS]

Starts the daemon itself. Fails where a report is missing, a connection was closed, or what ended meanwhile is not reclaimed.
"""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

ALLOC, QUERY = 1, 3
CLIENTS, REPORTS, SIZE, FRAME_BYTES = 8, 50_000, 4096, 72


def frame(kind, size, buffer_id):
    return struct.pack("<B3xiQB3xiQQ", kind, 0, size, 0, 0, buffer_id, 0).ljust(FRAME_BYTES, b"\0")


def metrics(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        return answer.read().decode()


def value(text, series):
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def client(path, begin, done):
    """Reports more than its socket holds, asks, and waits for the answer, however long that takes."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    os.read(begin, 1)
    connection.sendall(b"".join(frame(ALLOC, SIZE, number) for number in range(1, REPORTS + 1)) + frame(QUERY, 0, 0))
    answer = b""
    while len(answer) < FRAME_BYTES:
        piece = connection.recv(FRAME_BYTES)
        if not piece:
            os._exit(1)
        answer += piece
    os.write(done, b".")
    while True:
        signal.pause()


def main():
    program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    with tempfile.TemporaryDirectory() as directory:
        path, log = os.path.join(directory, "s"), open(os.path.join(directory, "log"), "wb")
        arguments = ["serve", "--listen", "127.0.0.1:0", "--socket", path, "--shm-dir", "none"]
        daemon = subprocess.Popen([program, *arguments], stderr=log)
        address = None
        while not address:
            time.sleep(0.01)
            address = re.search(r'"address":"([^"]+)"', open(log.name).read())
        begun, begin = os.pipe()
        done, tell = os.pipe()
        children = []
        for _ in range(CLIENTS + 1):
            child = os.fork()
            if child == 0:
                client(path, begun, tell)
            children.append(child)
        while value(metrics(address[1]), 'ttmem_client_connections{transport="socket",layout="undetected"}') < CLIENTS + 1:
            time.sleep(0.01)
        daemon.send_signal(signal.SIGSTOP)
        os.write(begin, b"." * (CLIENTS + 1))
        time.sleep(seconds - 1)
        # One ends while nobody looks.
        victim = children.pop()
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        time.sleep(1)
        daemon.send_signal(signal.SIGCONT)
        woken = time.monotonic()
        finished = 0
        while finished < CLIENTS:
            finished += len(os.read(done, 64))
        caught_up = time.monotonic() - woken
        usage = 'ttmem_device_memory_usage_bytes{device="0",memory_type="dram"}'
        wanted = CLIENTS * REPORTS * SIZE
        while value(metrics(address[1]), usage) != wanted or value(metrics(address[1]), 'ttmem_events_total{kind="process_end"}') < 1:
            if time.monotonic() - woken > 60:
                sys.exit(f"{value(metrics(address[1]), usage):.0f} bytes instead of {wanted}")
            time.sleep(0.01)
        print(f"{seconds:.0f} s of standstill; {CLIENTS} clients with {REPORTS} reports each: all applied {caught_up:.2f} s after it, none lost")
        print(f"one that ended meanwhile: reclaimed {time.monotonic() - woken:.2f} s after it")
        for child in children:
            os.kill(child, signal.SIGKILL)
        daemon.terminate()
        daemon.wait()


main()
