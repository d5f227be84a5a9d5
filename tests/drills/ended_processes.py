#!/usr/bin/env python3
"""Processes come, hold memory on several devices, and end, one after the other: what the daemon keeps of them, and whether that grows.

usage: tests/drills/ended_processes.py TTMEM [PROCESSES [PLACES [ARGUMENT...]]]

Starts the daemon itself, which shows ended processes for five seconds. Prints its resident memory four times; fails where the last quarter of the
processes has left more than 512 bytes each, as those of the quarter before are forgotten meanwhile.
"""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time

ALLOC, QUERY = 1, 3
FRAME_BYTES = 72
BUFFERS = 10
LINGER_SECONDS = 5
LEFT_BYTES_MAX = 512


def frame(kind, device, size=0, buffer=0):
    return struct.pack("<B3xiQB3xiQQ", kind, device, size, 0, 0, 0, buffer).ljust(FRAME_BYTES, b"\0")


def live(path, places):
    """One process: it reports, waits until that is applied, and ends with all that it holds."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    reports = [frame(ALLOC, device, 4096, buffer) for device in range(places) for buffer in range(1, BUFFERS + 1)]
    client.sendall(b"".join(reports) + frame(QUERY, 0))
    left = FRAME_BYTES
    while left:
        left -= len(client.recv(left))
    os._exit(0)


def resident_kib(daemon):
    status = open(f"/proc/{daemon.pid}/status").read()
    return {kind: int(re.search(rf"^Rss{kind}:\s+(\d+)", status, re.MULTILINE)[1]) for kind in ("Anon", "File", "Shmem")}


def start_daemon(program, directory, arguments):
    socket_path = os.path.join(directory, "s")
    common = ["serve", "--listen", "127.0.0.1:0", "--socket", socket_path, "--shm-dir", "none", "--process-linger-seconds", str(LINGER_SECONDS)]
    log = open(os.path.join(directory, "log"), "wb")
    daemon = subprocess.Popen([program, *common, *(argument.replace("STATE", directory + "/state") for argument in arguments)], stderr=log)
    for _ in range(1000):
        if '"listening"' in open(log.name).read():
            return daemon, socket_path
        time.sleep(0.01)
    sys.exit("the daemon does not listen: " + open(log.name).read())


def main():
    program = sys.argv[1]
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    places = int(sys.argv[3]) if len(sys.argv) > 3 else 16
    with tempfile.TemporaryDirectory() as directory:
        daemon, path = start_daemon(program, directory, sys.argv[4:])
        before = resident_kib(daemon)
        print(f"at the start: {before} KiB")
        for quarter in range(1, 5):
            for _ in range(processes // 4):
                child = os.fork()
                if child == 0:
                    live(path, places)
                os.waitpid(child, 0)
            time.sleep(2 * LINGER_SECONDS)
            now = resident_kib(daemon)
            left = (now["Anon"] - before["Anon"]) * 1024 / (processes // 4)
            print(f"after {quarter * processes // 4} processes: {now} KiB; {left:.0f} bytes more for each of the last ones")
            before = now
        daemon.terminate()
        daemon.wait()
        sys.exit(left > LEFT_BYTES_MAX)


main()
