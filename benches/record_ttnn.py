"""Records what a process that serves with an unmodified ttnn allocates in DRAM, as libttmem_preload.so reports it.

    cargo build --profile preload --package ttmem-preload
    tests/peers/install target/peers ttnn
    python3 benches/record_ttnn.py --seconds 180 > benches/ttnn_serving.txt

The board is a mock, so device code does not run; the allocations are ttnn's. The process loads a model of 24 layers, then serves requests
that come at random: each holds pages of a cache that grow with what it has said, and tensors that live for one step. It stops taking
requests before its time is up and finishes those that it has, so that the record ends as it began, with the model alone.

A line is a time in milliseconds since the first report, + or -, the buffer's number and, for +, its size in bytes.
"""

import argparse
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: No factory's chip has it.
CHIP_ID = 0x7E57_5E4E << 16
FRAME = struct.Struct("<B3xiQB3xiQQ104x")
ALLOC, FREE, DRAM = 1, 2, 0

SERVER = """
import random, sys, time
import ttnn
device = ttnn.open_device(device_id=0)
dram = ttnn.DRAM_MEMORY_CONFIG
random.seed(int(sys.argv[2]))

def empty(rows, columns):
    return ttnn.empty([rows, columns], ttnn.bfloat16, ttnn.TILE_LAYOUT, device, dram)

weights = [empty(*shape) for _ in range(24) for shape in [(1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024)]]
began, requests, next_arrival = time.monotonic(), [], 0.0
seconds = float(sys.argv[1])
while True:
    now = time.monotonic() - began
    is_open = now < seconds - 60
    if not is_open and not requests:
        break
    while is_open and next_arrival <= now:
        # Steps that it will take, half a second each, and its cache.
        requests.append([1 + int(random.expovariate(1 / 20)), [empty(256, 1024)]])
        next_arrival += random.expovariate(0.4)
    for request in requests:
        request[0] = min(request[0], 100) - 1
        hidden = empty(32, 1024)
        sums = ttnn.add(hidden, hidden, memory_config=dram)
        ttnn.deallocate(hidden)
        ttnn.deallocate(sums)
        if random.random() < 0.25:
            request[1].append(empty(128, 1024))
    for remaining, pages in requests:
        if remaining <= 0:
            for page in pages:
                ttnn.deallocate(page)
    requests = [request for request in requests if request[0] > 0]
    time.sleep(0.5)
# The library says what it has before it sleeps for long.
time.sleep(2)
print("ends", flush=True)
time.sleep(60)
"""


def frames(connection):
    """The whole frames of a connection, each behind the time at which it came."""
    rest = b""
    while chunk := connection.recv(65536):
        now_ns = time.monotonic_ns()
        rest += chunk
        whole = len(rest) // FRAME.size * FRAME.size
        for frame in FRAME.iter_unpack(rest[:whole]):
            yield (now_ns, *frame)
        rest = rest[whole:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long to serve, at least two minutes")
    parser.add_argument("--seed", type=int, default=1, help="what the requests follow from")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target", help="where cargo builds")
    parser.add_argument("--peers", type=pathlib.Path, help="where ttnn is installed; TARGET/peers if not said")
    arguments = parser.parse_args()
    if arguments.seconds < 120:
        parser.error("--seconds: at least 120, as the last minute takes no requests")
    python = (arguments.peers or arguments.target / "peers") / "ttnn/bin/python"
    library = arguments.target / "preload/libttmem_preload.so"
    for file, remedy in [(python, "tests/peers/install target/peers ttnn"), (library, "cargo build --profile preload --package ttmem-preload")]:
        if not file.exists():
            sys.exit(f"{file} is not there: {remedy}")
    events = []
    with tempfile.TemporaryDirectory() as directory:
        mock = [python, ROOT / "tests/peers/mock_cluster.py", directory, "--board", "n150", "--chip-id", str(CHIP_ID)]
        mock = json.loads(subprocess.run([str(part) for part in mock], check=True, capture_output=True, text=True).stdout)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.path.join(directory, "socket"))
        listener.listen()

        def serve():
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=lambda: events.extend(frames(connection)), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        environment = os.environ | mock["env"] | {"LD_PRELOAD": str(library), "TTMEM_SOCKET": os.path.join(directory, "socket")}
        command = [str(python), "-c", SERVER, str(arguments.seconds), str(arguments.seed)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            for line in process.stdout:
                if line.strip() == "ends":
                    break
        finally:
            # With the device open: closing it would free the model.
            process.kill()
            process.wait()
            for region in mock["regions"]:
                pathlib.Path(region).unlink(missing_ok=True)
    write(events)


def write(events):
    """The record: buffers are numbered in their order, as an address comes again and again."""
    print("# What ttnn allocated in DRAM while it loaded a model and served: benches/record_ttnn.py. Milliseconds, + or -, buffer, bytes.")
    numbers, start_ns, count = {}, events[0][0], 0
    for now_ns, kind, _, size, memory, _, address, _ in events:
        milliseconds = (now_ns - start_ns) // 1_000_000
        if kind == ALLOC and memory == DRAM:
            count += 1
            numbers[address] = count
            print(f"{milliseconds} + {count} {size}")
        elif kind == FREE and address in numbers:
            print(f"{milliseconds} - {numbers.pop(address)}")


if __name__ == "__main__":
    main()
