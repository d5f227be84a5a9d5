"""How long the daemon takes from its start to its first answer, for BENCHMARKS.md.

    python3 benches/start.py target/release/ttmem [STARTS]

The yardstick is the same binary asked for its version, in turns with it: what the kernel and the loader take for any process. Needs
nothing but Python. A shared machine only ever adds to a start, so the fastest says the most.
"""
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False


def version_ms(binary):
    start = time.perf_counter()
    subprocess.run([binary, "--version"], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def ready_ms(binary):
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(f"{directory}/shm")
        port = free_port()
        arguments = ["--socket", f"{directory}/socket", "--shm-dir", f"{directory}/shm", "--listen", f"127.0.0.1:{port}"]
        start = time.perf_counter()
        with subprocess.Popen([binary, "serve", *arguments], stderr=subprocess.DEVNULL) as daemon:
            while not is_ready(port):
                if daemon.poll() is not None or time.perf_counter() - start > 30:
                    daemon.kill()
                    sys.exit(f"{binary} serve does not become ready")
            taken = (time.perf_counter() - start) * 1000
            daemon.terminate()
        return taken


def main():
    binary = sys.argv[1]
    starts = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    taken = {"--version": [], "serve, to /-/ready": []}
    for _ in range(starts):
        taken["--version"].append(version_ms(binary))
        taken["serve, to /-/ready"].append(ready_ms(binary))
    print(f"{os.path.getsize(binary):,} bytes; {starts} starts")
    for what, times in taken.items():
        print(f"{what:20} fastest {min(times):5.1f} ms, median {statistics.median(times):5.1f} ms")


if __name__ == "__main__":
    main()
