"""Reads the stats pages of a server as PROTOCOL.md describes them, independently of the daemon under test.

    stats_page.py --socket PATH

It connects at the first question. Each line of its input is a question in JSON, and each is answered with one line:

    {"op": "read"}      what the pages say
    {"op": "misuse"}    tries whatever would change the pages; answers with what was not refused
"""
import argparse
import ctypes
import fcntl
import json
import mmap
import os
import socket
import struct
import sys

HELLO, HELLO_VERSION, STATS_PAGE = 13, 1, 2
DEVICE_PAGE, PROCESS_PAGE = 3, 4
MEMORY_TYPES = ("dram", "l1", "l1_small", "trace", "cb", "kernel", "system_memory")
ATTEMPTS_MAX = 1000

HEADER = struct.Struct("<8sIIIIQQQ16x")
HOLDER = struct.Struct("<QQIIHBBBB2xQ13Q88x64s24s")
F_ADD_SEALS, F_GET_SEALS, F_SEAL_SHRINK = 1033, 1034, 2


class Page:
    """One page, mapped for reading."""

    def __init__(self, descriptor, kind):
        self.descriptor = descriptor
        assert fcntl.fcntl(descriptor, F_GET_SEALS) & F_SEAL_SHRINK, "it could be taken away"
        self.memory = mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        magic, version, found, self.header_bytes, self.row_bytes, self.rows_max, _, _ = self.header()
        assert (magic, version, found) == (b"ttmempag", 1, kind), (magic, version, found)
        assert self.header_bytes + self.rows_max * self.row_bytes <= len(self.memory)

    def header(self):
        return HEADER.unpack_from(self.memory)

    def row(self, index, size):
        """So many bytes of a row, all of one instant."""
        at = self.header_bytes + index * self.row_bytes
        for _ in range(ATTEMPTS_MAX):
            data = self.memory[at:at + size]
            before = struct.unpack_from("<Q", data)[0]
            if before & 0xFFFF == 0 and struct.unpack_from("<Q", self.memory, at)[0] == before:
                return data
        raise TimeoutError(f"row {index} is never still")

    def device(self, index):
        _, is_known, arch, board_bytes, *words = struct.unpack("<QBBB5x22Q32s32x", self.row(index, 256))
        if not is_known:
            return None
        by_type = [dict(zip(MEMORY_TYPES, words[first:first + 7])) for first in (0, 7, 14)]
        usage, peak, limit = ({name: value for name, value in figures.items() if value} for figures in by_type)
        return {"device": index, "arch": arch, "board": words[22][:board_bytes].decode(),
                "usage": usage, "peak": peak, "limit": limit}

    def holder(self, index):
        (_, ticks, pid, uid, device, memory_type, state, name_bytes, user_bytes, start,
         reported, region, is_reported, _, peak, buffers, *_, name, user) = HOLDER.unpack(self.row(index, 320))
        if state == 0:
            return None
        return {"pid": pid, "start_ticks": ticks, "start_unix_ns": start, "uid": uid, "device": device,
                "memory_type": MEMORY_TYPES[memory_type], "has_ended": state == 2, "name": name[:name_bytes].decode(),
                "user": user[:user_bytes].decode(), "usage": reported if is_reported else region, "peak": peak,
                "buffers": buffers}


class Monitor:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.sendall(struct.pack("<B3xiQB3xiQQ104x", HELLO, HELLO_VERSION, STATS_PAGE, 0, 0, 0, 0))
        reply, descriptors, _, _ = socket.recv_fds(self.socket, 144, 8)
        while len(reply) < 144:
            part = self.socket.recv(144 - len(reply))
            assert part, "the server closed the connection"
            reply += part
        assert reply[0] == HELLO
        listed = [struct.unpack_from("<QQ", reply, 48 + 16 * at) for at in range(struct.unpack_from("<Q", reply, 40)[0])]
        assert len(listed) == len(descriptors), (listed, descriptors)
        pages = {kind: Page(descriptor, {DEVICE_PAGE: 1, PROCESS_PAGE: 2}[kind])
                 for (kind, _), descriptor in zip(listed, descriptors)}
        assert all(len(pages[kind].memory) == size for kind, size in listed)
        self.features = struct.unpack_from("<Q", reply, 8)[0]
        self.devices, self.processes = pages.get(DEVICE_PAGE), pages.get(PROCESS_PAGE)

    def read(self):
        devices = [self.devices.device(index) for index in range(self.devices.header()[6])]
        answer = {"features": self.features, "devices": [device for device in devices if device]}
        if self.processes:
            holders = [self.processes.holder(index) for index in range(self.processes.header()[6])]
            answer["holders"] = [holder for holder in holders if holder]
            answer["missing"] = self.processes.header()[7]
        return answer


def misuse(page):
    """The ways to change a page that were not refused."""
    descriptor, size = page.descriptor, len(page.memory)
    libc = ctypes.CDLL(None, use_errno=True)

    def map_for_writing(fd):
        mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def make_writable():
        address = libc.mmap(None, ctypes.c_size_t(size), 1, mmap.MAP_SHARED, descriptor, ctypes.c_long(0))
        if libc.mprotect(ctypes.c_void_p(address & (1 << 64) - 1), ctypes.c_size_t(size), 3) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def punch():
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        if libc.fallocate(descriptor, 3, 0, 4096) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")

    def open_anew():
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        map_for_writing(again)

    libc.mmap.restype = ctypes.c_long
    attempts = {
        "write": lambda: os.pwrite(descriptor, b"x", 0),
        "map for writing": lambda: map_for_writing(descriptor),
        "make writable": make_writable,
        "open anew": open_anew,
        "shrink": lambda: os.ftruncate(descriptor, 0),
        "grow": lambda: os.ftruncate(descriptor, 2 * size),
        "punch": punch,
        "seal": lambda: fcntl.fcntl(descriptor, F_ADD_SEALS, 8),
    }
    allowed = []
    for name, attempt in attempts.items():
        try:
            attempt()
            allowed.append(name)
        except (OSError, PermissionError):
            pass
    return allowed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    path, monitor = parser.parse_args().socket, None
    for line in sys.stdin:
        question = json.loads(line)
        monitor = monitor or Monitor(path)
        if question["op"] == "read":
            answer = monitor.read()
        else:
            answer = {"allowed": misuse(monitor.devices) + (misuse(monitor.processes) if monitor.processes else [])}
        print(json.dumps({"ok": True, **answer}), flush=True)


if __name__ == "__main__":
    main()
