"""Reads and writes the shared-memory regions that tt-metal publishes, independently of the daemon under test.

    region.py dump FILE...        one JSON line per region
    region.py write FILE < JSON   a region from the same JSON; missing totals and counts follow from the processes

`write` changes an existing file in place, like tt-metal, and needs only what matters to the test:

    {"version": 4, "chip_unique_id": 71001, "processes": [{"pid": 4711, "name": "python", "dram": 8192}]}

For damaged regions it also takes "init_state" (version 4) and "size_bytes" (the file is cut or padded to that).
"""
import json
import os
import struct
import sys
import time

SIZE_BYTES = 8576
MEMORY_TYPES = ("dram", "l1", "l1_small", "trace", "cb")

HEADER = struct.Struct("<IIQI4xQQI4x")
HEADER_FIELDS = (
    "version", "process_count", "last_update_ns", "reference_count", "board_serial", "chip_unique_id", "device_id",
)
TOTALS = struct.Struct("<5Q")
CHIP, CHIP_SLOTS, CHIP_UNUSED = struct.Struct("<II5Q"), 16, 0xFFFFFFFF
PROCESS, PROCESS_SLOTS = struct.Struct("<i4x5QQ64s"), 64
INIT_STATE, INIT_READY = struct.Struct("<I"), 0x52454459

TOTALS_AT = HEADER.size
CHIPS_AT = TOTALS_AT + TOTALS.size
PROCESSES_AT = CHIPS_AT + CHIP_SLOTS * CHIP.size
INIT_STATE_AT = PROCESSES_AT + PROCESS_SLOTS * PROCESS.size
assert (TOTALS_AT, CHIPS_AT, PROCESSES_AT, INIT_STATE_AT) == (48, 88, 856, 8536)


def read(path):
    """The region at `path` as a dictionary; only the slots in use are listed, each with its number."""
    with open(path, "rb") as file:
        content = file.read()
    if len(content) < SIZE_BYTES:
        raise ValueError(f"{path} has {len(content)} bytes, a region has {SIZE_BYTES}: it is cut short or no region")

    region = dict(zip(HEADER_FIELDS, HEADER.unpack_from(content)))
    region["totals"] = dict(zip(MEMORY_TYPES, TOTALS.unpack_from(content, TOTALS_AT)))
    region["chips"] = []
    for slot in range(CHIP_SLOTS):
        chip, remote, *figures = CHIP.unpack_from(content, CHIPS_AT + slot * CHIP.size)
        if chip != CHIP_UNUSED:
            chip = {"slot": slot, "chip_id": chip, "is_remote": remote}
            region["chips"].append({**chip, **dict(zip(MEMORY_TYPES, figures))})
    region["processes"] = []
    for slot in range(PROCESS_SLOTS):
        pid, *figures, updated, name = PROCESS.unpack_from(content, PROCESSES_AT + slot * PROCESS.size)
        if pid != 0:
            name = name.split(b"\0", 1)[0].decode("utf-8", "replace")
            process = {"slot": slot, "pid": pid, "name": name, "last_update_ns": updated}
            region["processes"].append({**process, **dict(zip(MEMORY_TYPES, figures))})
    if region["version"] >= 4:
        region["init_state"] = INIT_STATE.unpack_from(content, INIT_STATE_AT)[0]
    return region


def pack(region):
    """The bytes of a region, from what `read` returns or a part of it."""
    now = time.time_ns()
    processes = region.get("processes", [])
    sums = {kind: sum(process.get(kind, 0) for process in processes) for kind in MEMORY_TYPES}
    totals = region.get("totals", sums)
    device_id = region.get("device_id", 0)
    header = {"version": 3, "process_count": len(processes), "last_update_ns": now, "reference_count": len(processes),
              "board_serial": 0, "chip_unique_id": 0, "device_id": device_id}
    header.update((field, region[field]) for field in HEADER_FIELDS if field in region)

    content = bytearray(SIZE_BYTES)
    HEADER.pack_into(content, 0, *(header[field] for field in HEADER_FIELDS))
    TOTALS.pack_into(content, TOTALS_AT, *(totals.get(kind, 0) for kind in MEMORY_TYPES))
    for slot in range(CHIP_SLOTS):
        CHIP.pack_into(content, CHIPS_AT + slot * CHIP.size, CHIP_UNUSED, *[0] * 6)
    for index, chip in enumerate(region.get("chips", [{"chip_id": device_id, **totals}])):
        figures = (chip.get(kind, 0) for kind in MEMORY_TYPES)
        at = CHIPS_AT + chip.get("slot", index) * CHIP.size
        CHIP.pack_into(content, at, chip["chip_id"], chip.get("is_remote", 0), *figures)
    for index, process in enumerate(processes):
        figures = (process.get(kind, 0) for kind in MEMORY_TYPES)
        at = PROCESSES_AT + process.get("slot", index) * PROCESS.size
        name = process.get("name", "python").encode()[:63]
        PROCESS.pack_into(content, at, process["pid"], *figures, process.get("last_update_ns", now), name)
    if header["version"] >= 4:
        INIT_STATE.pack_into(content, INIT_STATE_AT, region.get("init_state", INIT_READY))
    size_bytes = region.get("size_bytes", SIZE_BYTES)
    return bytes(content[:size_bytes]).ljust(size_bytes, b"\0")


def write(path, region):
    """Puts a region at `path`: in place where there is one, otherwise a new file that only its owner may read."""
    content = pack(region)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(file, len(content))
        os.pwrite(file, content, 0)
    finally:
        os.close(file)


def main(arguments):
    if len(arguments) >= 2 and arguments[0] == "dump":
        for path in arguments[1:]:
            print(json.dumps({"path": path, **read(path)}))
    elif len(arguments) == 2 and arguments[0] == "write":
        write(arguments[1], json.load(sys.stdin))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, struct.error) as error:
        sys.exit(f"region.py: {error}")
