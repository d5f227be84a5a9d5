#!/usr/bin/env python3
"""Eight clients that report and ask, alone and beside one that floods: how much of their throughput they keep.

usage: tests/drills/fairness.py TTMEM [SECONDS]

Starts the daemon itself. The two are measured in turn, three times each, so that what else the machine does meets both.
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

ALLOC, FREE, QUERY = 1, 2, 3
CLIENTS, ROUNDS, PAIRS = 8, 3, 32
FRAME_BYTES = 72


def frame(kind, size, buffer_id):
    return struct.pack("<B3xiQB3xiQQ", kind, 0, size, 0, 0, buffer_id, 0).ljust(FRAME_BYTES, b"\0")


def pairs(count):
    return b"".join(frame(ALLOC, 4096, number) + frame(FREE, 0, number) for number in range(1, count + 1))


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    return client


def honest(path, seconds, tell):
    """Reports, asks, and reports again when the answer has come."""
    client, reports = connect(path), pairs(PAIRS) + frame(QUERY, 0, 0)
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        client.sendall(reports)
        answer = b""
        while len(answer) < FRAME_BYTES:
            answer += client.recv(FRAME_BYTES)
        rounds += 1
    os.write(tell, b"%d\n" % (rounds * 2 * PAIRS))


def flood(path):
    client, reports = connect(path), pairs(5000)
    while True:
        client.sendall(reports)


def start(work, *arguments):
    child = os.fork()
    if child == 0:
        work(*arguments)
        os._exit(0)
    return child


def throughput(path, seconds, with_flood):
    flooder = start(flood, path) if with_flood else None
    told, tell = os.pipe()
    clients = [start(honest, path, seconds, tell) for _ in range(CLIENTS)]
    for client in clients:
        os.waitpid(client, 0)
    os.close(tell)
    reports = sum(int(line) for line in os.read(told, 65536).split())
    os.close(told)
    if flooder:
        os.kill(flooder, signal.SIGKILL)
        os.waitpid(flooder, 0)
    return reports / seconds


def main():
    program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    with tempfile.TemporaryDirectory() as directory:
        path, log = os.path.join(directory, "s"), os.path.join(directory, "log")
        arguments = ["serve", "--listen", "127.0.0.1:0", "--socket", path, "--shm-dir", "none"]
        daemon = subprocess.Popen([program, *arguments], stderr=open(log, "wb"))
        for _ in range(1000):
            if re.search(r"taking allocation reports", open(log).read()):
                break
            time.sleep(0.01)
        alone = beside = 0.0
        for _ in range(ROUNDS):
            alone += throughput(path, seconds, False) / ROUNDS
            beside += throughput(path, seconds, True) / ROUNDS
        print(f"{CLIENTS} clients: {alone:.0f} reports/s alone, {beside:.0f} beside one that floods: {beside / alone:.0%}")
        daemon.terminate()
        daemon.wait()


main()
