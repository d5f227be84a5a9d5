#!/usr/bin/env python3
"""Ten thousand processes, each holding a buffer, end at once: how long until the daemon has reclaimed them all.

usage: tests/drills/mass_end.py TTMEM [PROCESSES]

Two share a connection, as a fork shares its parent's: the daemon takes three files for the two, and 20,000 are enough for ten thousand. Starts
the daemon itself. Prints what was seen, and fails where a byte is left.
"""

import gc
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

SIZE = 4096
ALLOC = 1


def metrics(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        return answer.read().decode()


def value(text, series):
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def report(client, told):
    """One buffer of this process, twice: the second frame tells the first one's size, and is the same buffer again."""
    frame = struct.pack("<B3xiQB3xiQQ", ALLOC, 0, SIZE, 0, os.getpid(), os.getpid(), 0)
    client.sendall(frame.ljust(72, b"\0") * 2)
    os.write(told, b".")


def hold(path, told, with_fork):
    """A process that reports a buffer and waits, and a fork of it that does the same over the same connection."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    if with_fork:
        os.fork()
    report(client, told)
    while True:
        signal.pause()


def start_daemon(program, directory):
    log = open(os.path.join(directory, "log"), "wb")
    arguments = ["serve", "--listen", "127.0.0.1:0", "--socket", os.path.join(directory, "s"), "--shm-dir", "none"]
    daemon = subprocess.Popen([program, *arguments], stderr=log)
    for _ in range(1000):
        found = re.search(r'"address":"([^"]+)"', open(log.name).read())
        if found:
            return daemon, found[1]
        time.sleep(0.01)
    sys.exit("the daemon does not listen: " + open(log.name).read())


def main():
    program, processes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with tempfile.TemporaryDirectory() as directory:
        daemon, address = start_daemon(program, directory)
        told, tell = os.pipe()
        gc.freeze()
        # Killed together: all are of one group.
        leader = 0
        for number in range(0, processes, 2):
            child = os.fork()
            if child == 0:
                os.setpgid(0, leader)
                hold(os.path.join(directory, "s"), tell, number + 1 < processes)
            leader = leader or child
        heard = 0
        while heard < processes:
            heard += len(os.read(told, 65536))
        usage = 'ttmem_device_memory_usage_bytes{device="0",memory_type="dram"}'
        while value(metrics(address), usage) < processes * SIZE:
            time.sleep(0.05)
        start = time.monotonic()
        os.killpg(leader, signal.SIGKILL)
        killed = time.monotonic()
        longest_scrape = 0.0
        while True:
            before = time.monotonic()
            text = metrics(address)
            longest_scrape = max(longest_scrape, time.monotonic() - before)
            if value(text, usage) == 0 and value(text, 'ttmem_events_total{kind="process_end"}') == processes:
                break
            time.sleep(0.01)
        end = time.monotonic()
        orphaned = value(text, 'ttmem_device_orphaned_bytes_total{device="0",memory_type="dram"}')
        print(f"{processes} processes ended; all reclaimed {end - killed:.2f} s after the last signal ({killed - start:.2f} s of signals)")
        print(f"longest scrape meanwhile {longest_scrape:.2f} s; orphaned {orphaned:.0f} bytes of {processes * SIZE}")
        daemon.terminate()
        daemon.wait()
        sys.exit(orphaned != processes * SIZE)


main()
