#!/usr/bin/env python3
"""Writes vectors.txt, pages.txt, the dumps in PROTOCOL.md and the fuzzers' seeds, from Python's struct and nothing of the Rust code.

    python3 generate.py            writes them
    python3 generate.py --check    compares them, and runs the client of PROTOCOL.md against the vectors; exit code 1 if they differ
"""

import os
import re
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path

import pages

WIRE = Path(__file__).resolve().parent.parent
VECTORS = WIRE / "vectors" / "vectors.txt"
PAGES = WIRE / "vectors" / "pages.txt"
PROTOCOL = WIRE / "PROTOCOL.md"
CORPUS = WIRE / "fuzz" / "corpus"

# The tables of PROTOCOL.md: (field, struct format). An "x" is a byte of padding.
HEADER = [
    ("type", "B3x"),
    ("device_id", "i"),
    ("size_bytes", "Q"),
    ("buffer_type", "B3x"),
    ("process_id", "i"),
    ("buffer_id", "Q"),
    ("timestamp_ns", "Q"),
]
TOTALS_4 = [("dram_bytes", "Q"), ("l1_bytes", "Q"), ("l1_small_bytes", "Q"), ("trace_bytes", "Q")]
TOTALS_6 = TOTALS_4 + [("cb_bytes", "Q"), ("kernel_bytes", "Q")]
INFO = [
    ("total_dram_bytes", "Q"),
    ("total_l1_bytes", "Q"),
    ("arch", "I"),
    ("num_dram_channels", "I"),
    ("dram_bytes_per_channel", "I"),
    ("l1_bytes_per_core", "I"),
    ("is_available", "I"),
    ("num_devices", "I"),
]
REPLIES = {72: TOTALS_4, 112: TOTALS_4 + INFO, 144: TOTALS_6 + INFO}

TYPES = {
    "alloc": 1,
    "free": 2,
    "query": 3,
    "response": 4,
    "dump_remaining": 5,
    "device_info_query": 6,
    "device_info_response": 7,
    "cb_alloc": 8,
    "cb_free": 9,
    "kernel_load": 10,
    "kernel_unload": 11,
    "dump_kernels": 12,
    "hello": 13,
    "trace_context": 14,
    "allocation_failed": 15,
    "lost": 16,
    "capacity": 17,
    "note": 18,
}

NOW = 1_764_547_200_123_456_789


def traceparent(text, process_id):
    """The fields of a TRACE_CONTEXT: the ids' bytes in the order of their digits."""
    _, trace_id, parent_id, flags = (bytes.fromhex(part) for part in text.split("-"))
    number = lambda part: int.from_bytes(part, "little")
    return dict(size_bytes=number(trace_id[:8]), buffer_id=number(trace_id[8:]), timestamp_ns=number(parent_id),
                buffer_type=flags[0], process_id=process_id)


# (name of the vector, message, fields that are not zero). Every byte of every field differs from its neighbours somewhere.
REQUESTS = [
    ("alloc", "alloc", dict(device_id=258, size_bytes=0x9A_0B0C_0D0E, buffer_type=1, process_id=74565,
                            buffer_id=0xFEDC_BA98_7654_3210, timestamp_ns=NOW)),
    ("free", "free", dict(device_id=1023, size_bytes=1, buffer_type=3, process_id=4194303,
                          buffer_id=0x0123_4567_89AB_CDEF, timestamp_ns=NOW + 1)),
    ("free_by_id_alone", "free", dict(buffer_id=0x1122_3344_5566_7788)),
    ("free_by_close", "free", dict(device_id=2, buffer_type=255, buffer_id=0x0000_0000_0050_0040)),
    ("query", "query", dict(device_id=7, process_id=31337)),
    ("dump_remaining", "dump_remaining", dict(process_id=1001, timestamp_ns=NOW + 2)),
    ("device_info_query", "device_info_query", dict(device_id=31, process_id=1002, timestamp_ns=NOW + 3)),
    ("device_count_query", "device_info_query", dict(device_id=-1)),
    ("cb_alloc", "cb_alloc", dict(device_id=4, size_bytes=0x0001_8040, process_id=65537,
                                  buffer_id=0x0001_A2B0, timestamp_ns=NOW + 4)),
    ("cb_free", "cb_free", dict(device_id=4, size_bytes=0x0001_8040, process_id=65537,
                                buffer_id=0x0001_A2B0, timestamp_ns=NOW + 5)),
    ("kernel_load", "kernel_load", dict(device_id=5, size_bytes=0x0000_F1E2, buffer_type=1, process_id=131074,
                                        buffer_id=0xC0FF_EE00_0001, timestamp_ns=NOW + 6)),
    ("kernel_unload", "kernel_unload", dict(device_id=6, size_bytes=0x0000_3C4D, buffer_type=2, process_id=131075,
                                            buffer_id=0xC0FF_EE00_0002, timestamp_ns=NOW + 7)),
    ("dump_kernels", "dump_kernels", dict(process_id=1003, timestamp_ns=NOW + 8)),
    ("hello_ask", "hello", dict(device_id=1, size_bytes=0x8000_0003, buffer_id=(64 << 32) + 4096,
                                timestamp_ns=0xC11E_0001_0203_0405)),
    ("hello_switch", "hello", dict(device_id=1, buffer_type=1)),
    ("hello_renew", "hello", dict(device_id=1, buffer_type=2, size_bytes=0x0B0A_0908_0706,
                                  timestamp_ns=0xC11E_0001_0203_0405)),
    ("hello_identify", "hello", dict(device_id=1, buffer_type=3, timestamp_ns=0xC11E_0001_0203_0405)),
    ("trace_context", "trace_context", traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 1004)),
    ("allocation_failed", "allocation_failed", dict(device_id=9, size_bytes=0x0004_C0DE_0000, buffer_type=1, process_id=1005,
                                                    buffer_id=0x0001_B10C_0000, timestamp_ns=0x0003_F4EE_0000)),
    ("lost", "lost", dict(size_bytes=0x0102_0304_0506)),
    ("capacity", "capacity", dict(device_id=513, size_bytes=120 * 0x15_CB80, buffer_type=1, buffer_id=120)),
    ("note", "note", dict(buffer_type=3)),
]
BODY = dict(
    dram_bytes=0x02_4681_0204, l1_bytes=0x0357_1357, l1_small_bytes=0x0001_F0F1, trace_bytes=0x0468_ACE0,
    cb_bytes=0x0051_5253, kernel_bytes=0x0006_1626, total_dram_bytes=12 << 30, total_l1_bytes=64 * 1_499_136,
    arch=2, num_dram_channels=12, dram_bytes_per_channel=1 << 30, l1_bytes_per_core=1_499_136, is_available=1,
    num_devices=8,
)
ANSWERS = [
    ("response", "response", dict(BODY, device_id=7)),
    ("device_info_response", "device_info_response", dict(BODY, device_id=31, arch=3, num_dram_channels=8)),
    ("device_count_response", "device_info_response", dict(device_id=-1, num_devices=32)),
]

# The dumps of PROTOCOL.md: a process allocates 1 MiB of DRAM on device 0 and asks.
EXAMPLE = [
    ("example_alloc", "alloc", dict(size_bytes=1 << 20, process_id=4242, buffer_id=0x2000_0040, timestamp_ns=NOW)),
    ("example_query", "query", dict()),
    ("example_response", "response", dict(dram_bytes=1 << 20)),
]

INTRODUCTION = """\
# Byte vectors of the allocation server's protocol, made by generate.py. PROTOCOL.md explains the fields.
#
# A vector is a run of lines "name value"; an empty line ends it; a line that begins with # is a comment. The first lines are
#   vector   its name
#   layout   the size of the frame
#   message  the message's name
# then come all fields that the frame has, as decimal numbers, and last
#   hex      the frame, two digits a byte
# Replies carry other values than a server would send together, so that every field is exercised.
"""


def pack(message, layout, fields):
    """The bytes of one frame, and its fields in their order."""
    reply = REPLIES[layout] if message.endswith("response") else []
    values = dict(fields, type=TYPES[message])
    table = [(name, code, values.pop(name, 0)) for name, code in HEADER + reply]
    absent = set(values) - {name for name, _ in REPLIES[144]}
    assert not absent, f"{message}: no field is called {absent}"
    packed = struct.pack("<" + "".join(code for _, code, _ in table), *(value for _, _, value in table))
    return packed.ljust(layout, b"\0"), [(name, value) for name, _, value in table]


def vectors_text():
    parts = [INTRODUCTION]
    for layout in REPLIES:
        for name, message, fields in REQUESTS + ANSWERS + EXAMPLE:
            frame, values = pack(message, layout, fields)
            lines = [("vector", name), ("layout", layout), ("message", message), *values, ("hex", frame.hex())]
            parts.append("".join(f"{key} {value}\n" for key, value in lines))
    return "\n".join(parts)


def dump(frame):
    """The lines of a hex dump, without those that are all zero at the end."""
    rows = [f"{at:4}  {frame[at:at + 8].hex(' ')}\n" for at in range(0, len(frame.rstrip(b'\0')), 8)]
    zeros = len(frame) - 8 * len(rows)
    return "".join(rows) + (f"{8 * len(rows):4}  {zeros} bytes of zero\n" if zeros else "")


def protocol_text(text):
    """PROTOCOL.md with each dump made anew: a fenced block whose info string is `text` and a vector's name."""
    for name, message, fields in EXAMPLE:
        frame, _ = pack(message, 144, fields)
        text, found = re.subn(rf"(?s)```text {name}\n.*?```", lambda _: f"```text {name}\n{dump(frame)}```", text)
        assert found == 1, f"PROTOCOL.md has no dump of {name}"
    return text


def seeds():
    """Inputs to start the fuzzers from: (file, bytes)."""
    def frame(name, layout):
        message, fields = next((m, f) for n, m, f in REQUESTS + ANSWERS if n == name)
        return pack(message, layout, fields)[0]

    def broken(layout, offset, value):
        whole = bytearray(frame("alloc", layout))
        whole[offset] = value
        return bytes(whole)

    yield "frame/seed-alloc", frame("alloc", 72)
    yield "frame/seed-free-by-id-alone", frame("free_by_id_alone", 72)
    yield "frame/seed-response-72", frame("response", 72)
    yield "frame/seed-device-info-response-112", frame("device_info_response", 112)
    yield "frame/seed-device-info-response-144", frame("device_info_response", 144)
    yield "frame/seed-unknown-type", broken(72, 0, 99)
    yield "frame/seed-padding", broken(72, 18, 1)
    yield "frame/seed-tail", broken(144, 143, 1)

    # The first eight bytes are the sizes of the reads, less one, in turn.
    whole, single, odd = bytes([255] * 8), bytes(8), bytes([71, 0, 39, 143, 6, 111, 1, 30])
    for layout in REPLIES:
        run = b"".join(frame(name, layout) for name in ("query", "alloc", "kernel_load", "free_by_id_alone"))
        yield f"stream/seed-{layout}-whole", whole + run
        yield f"stream/seed-{layout}-byte-by-byte", single + run
        yield f"stream/seed-{layout}-odd", odd + run
        yield f"stream/seed-{layout}-cut", odd + run[:-1]
        yield f"stream/seed-{layout}-second-type", whole + frame("query", layout) + broken(layout, 0, 99)
    yield "stream/seed-lone-query", single + frame("query", 72)
    yield "stream/seed-tail", odd + broken(144, 100, 1)


def outputs():
    yield VECTORS, vectors_text().encode()
    yield PAGES, pages.text().encode()
    yield PROTOCOL, protocol_text(PROTOCOL.read_text()).encode()
    for name, data in seeds():
        yield CORPUS / name, data


def check_client():
    """Runs the client that PROTOCOL.md prints: its encoder against the vectors, its exchange against a socket."""
    code = re.search(r"(?s)```python\n(.*?)```", PROTOCOL.read_text()).group(1)
    client = {"__name__": "client"}
    exec(compile(code, str(PROTOCOL), "exec"), client)
    for name, message, fields in REQUESTS + EXAMPLE[:2]:
        expected, values = pack(message, 144, fields)
        assert client["request"](*(value for _, value in values)) == expected, f"PROTOCOL.md's client and {name}"

    received = []

    def serve(listener, query_bytes, reply):
        connection, _ = listener.accept()
        with connection:
            while chunk := connection.recv(144):
                received.append(chunk)
                if sum(map(len, received)) == query_bytes:
                    connection.sendall(reply[:50])
                    connection.sendall(reply[50:])

    reply, _ = pack("response", 144, dict(BODY, device_id=7))
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path = os.path.join(folder, "socket")
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=serve, args=(listener, 3 * 144, reply), daemon=True)
        server.start()
        caller = client["Client"](path)
        caller.alloc(7, 4096, 1, 0x40)
        caller.free(7, 0x40)
        totals = caller.totals(7)
        caller.socket.close()
        server.join()
    assert totals == {name: BODY[name] for name, _ in TOTALS_6}, totals
    stream = b"".join(received)
    types = [stream[at] for at in range(0, len(stream), 144)]
    assert types == [TYPES["alloc"], TYPES["free"], TYPES["query"]], types


def main():
    if sys.argv[1:] == ["--check"]:
        stale = [path for path, data in outputs() if not path.exists() or path.read_bytes() != data]
        for path in stale:
            print(f"{path.relative_to(WIRE)} is not what generate.py writes: run python3 vectors/generate.py", file=sys.stderr)
        check_client()
        return 1 if stale else 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    for path, data in outputs():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
