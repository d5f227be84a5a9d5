"""The three clients that speak the allocation protocol in the field, re-made with struct, quirks included.

The idea is that the daemon's tests step each of them from outside: started with `--socket PATH`, it takes one JSON
command per line on stdin and answers each with one JSON line on stdout. One process is one client process of the field,
so several of them have the colliding buffer ids that several real ones have.

    {"op": "connect", "client": "seed|python|metal"}    also "process_id": what to claim instead of the own pid
    {"op": "allocate", "device": 0, "type": "dram", "size": 4096, "id": 1}
                                                        also "count": as many, ids from "id" on, in a burst
    {"op": "free", "id": 1}                             also "device" (only metal sends it) and "count"
    {"op": "query", "device": 0}
    {"op": "device_info", "device": -1}
    {"op": "dump", "what": "buffers|kernels"}
    {"op": "cb_allocate|cb_free", "device": 0, "size": 4096, "id": 1}           metal only, like the next
    {"op": "kernel_load|kernel_unload", "device": 0, "size": 4096, "id": 1}     on load also "kind": KERNEL_KINDS
    {"op": "raw", "hex": "..."}                         in one send
    {"op": "dribble", "hex": "..."}                     a byte per send
    {"op": "recv", "bytes": 72}
    {"op": "fork_allocate", ...}                        as allocate, by a forked child on its parent's socket that
                                                        claims its own pid; it lives until end_child or its parent's
                                                        end, with "outlives": true a minute longer
    {"op": "end_child"}
    {"op": "crowd", "count": 250, "client": ..., "device": ..., "type": ..., "size": ...}
                                                        as many more connections at once, a buffer over each
    {"op": "be_user", "user": 65534}                    for good; before connect, as the next
    {"op": "be_in", "group": "/sys/fs/cgroup/..."}       the same
    {"op": "be_called", "hex": "..."}                   the kernel's name of the process, 15 bytes at most
    {"op": "close"}
    {"op": "exit"}

An answer has "ok": true, or "ok": false and "error".
"""
import argparse
import json
import os
import signal
import socket
import struct
import sys
import time

ALLOC, FREE, QUERY, RESPONSE, DUMP_REMAINING, DEVICE_INFO_QUERY, DEVICE_INFO_RESPONSE = range(1, 8)
CB_ALLOC, CB_FREE, KERNEL_LOAD, KERNEL_UNLOAD, DUMP_KERNELS = range(8, 13)

COMMON = "<B3xiQB3xiQQ"
TOTALS = ("dram", "l1", "l1_small", "trace")
DEVICE_INFO = (
    "total_dram_size", "total_l1_size", "arch_type", "num_dram_channels", "dram_size_per_channel", "l1_size_per_core",
    "is_available", "num_devices",
)
KERNEL_KINDS = {"application": 0, "fabric": 1, "dispatch": 2}
SILENCE_SECONDS = 10  # longer than any answer or any full socket buffer takes to clear; a hanging test says so


class Client:
    """What the three have in common: a connection, frames of one size, the bookkeeping of their fields."""

    types = {"dram": 0, "l1": 1, "l1_small": 2, "trace": 3}

    def __init__(self, path, process_id=None):
        self.claimed_process_id = process_id
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(SILENCE_SECONDS)
        self.socket.connect(path)

    def process_id(self):
        return os.getpid() if self.claimed_process_id is None else self.claimed_process_id

    def frame(self, kind, device=0, size=0, buffer_type=0, process_id=0, buffer_id=0, timestamp=0):
        head = struct.pack(COMMON, kind, device, size, buffer_type, process_id, buffer_id, timestamp)
        return head.ljust(self.layout.size, b"\0")

    def allocate_frame(self, device, type, size, id):
        if type not in self.types:
            raise ValueError(f"no memory type {type!r} for this client: one of {', '.join(self.types)}")
        return self.frame(ALLOC, device, size, self.types[type], self.process_id(), id, time.time_ns())

    def receive(self):
        """A whole answer, however many reads it takes."""
        answer = b""
        while len(answer) < self.layout.size:
            part = self.socket.recv(self.layout.size - len(answer))
            if not part:
                raise ConnectionError(f"server closed after {len(answer)} of the {self.layout.size} bytes of an answer")
            answer += part
        return answer

    def ask(self, kind, device):
        self.socket.sendall(self.frame(kind, device))
        kind, device, _, _, _, _, _, *rest = self.layout.unpack(self.receive())
        return {"type": kind, "device": device, **dict(zip(self.answer_fields, rest))}

    def query(self, device):
        return self.ask(QUERY, device)

    def device_info(self, device):
        return self.ask(DEVICE_INFO_QUERY, device)

    def dump(self, what):
        self.socket.sendall(self.frame({"buffers": DUMP_REMAINING, "kernels": DUMP_KERNELS}[what]))


class SeedClient(Client):
    """The first C++ demo: 72 bytes, and a FREE that says nothing but which buffer."""

    layout = struct.Struct(COMMON + "4Q")
    answer_fields = TOTALS

    def free_frame(self, id, device=None):
        return self.frame(FREE, buffer_id=id)


class PythonFieldClient(Client):
    """The Python client: 112 bytes, a FREE always for device 0, and a single recv() for the answer, whole or not."""

    layout = struct.Struct(COMMON + "6Q6I")
    answer_fields = TOTALS + DEVICE_INFO

    def free_frame(self, id, device=None):
        return self.frame(FREE, process_id=self.process_id(), buffer_id=id)

    def receive(self):
        return self.socket.recv(self.layout.size)


class MetalClient(Client):
    """The client inside instrumented tt-metal builds: 144 bytes, tt-metal's own memory types, programs and kernels."""

    layout = struct.Struct(COMMON + "8Q10I")
    answer_fields = TOTALS + ("cb", "kernel") + DEVICE_INFO + (
        "ringbuffer_total_size", "ringbuffer_used_bytes", "ringbuffer_num_programs", "pad",
    )
    types = {"dram": 0, "l1": 1, "system": 2, "l1_small": 3, "trace": 4}

    def __init__(self, path, process_id=None):
        super().__init__(path, process_id)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def free_frame(self, id, device=0):
        return self.frame(FREE, device, process_id=self.process_id(), buffer_id=id)

    def program(self, kind, device, size, id, buffer_type=0, timestamp=0):
        self.socket.sendall(self.frame(kind, device, size, buffer_type, self.process_id(), id, timestamp))

    def cb_allocate(self, device, size, id):
        self.program(CB_ALLOC, device, size, id, timestamp=time.time_ns())

    def cb_free(self, device, size, id):
        self.program(CB_FREE, device, size, id)

    def kernel_load(self, device, size, id, kind="application"):
        self.program(KERNEL_LOAD, device, size, id, KERNEL_KINDS[kind], time.time_ns())

    def kernel_unload(self, device, size, id):
        self.program(KERNEL_UNLOAD, device, size, id)


CLIENTS = {"seed": SeedClient, "python": PythonFieldClient, "metal": MetalClient}
UNCONNECTED_OPERATIONS = ("connect", "end_child", "crowd", "be_user", "be_in", "be_called")
OPERATIONS = UNCONNECTED_OPERATIONS + ("allocate", "free", "raw", "dribble", "recv", "fork_allocate", "close")
CLIENT_OPERATIONS = ("query", "device_info", "dump", "cb_allocate", "cb_free", "kernel_load", "kernel_unload")


class Commands:
    """The operations of the JSON mode, each with the command's other keys as its arguments."""

    def __init__(self, path):
        self.path = path
        self.client = None
        self.child = None
        self.lifeline = None
        self.others = []

    def connect(self, client, process_id=None):
        if client not in CLIENTS:
            raise ValueError(f"no client {client!r}: one of {', '.join(CLIENTS)}")
        self.client = CLIENTS[client](self.path, process_id)
        return {"pid": os.getpid(), "frame_bytes": self.client.layout.size}

    def allocate(self, device, type, size, id, count=1):
        for buffer_id in range(id, id + count):
            self.client.socket.sendall(self.client.allocate_frame(device, type, size, buffer_id))

    def free(self, id, device=0, count=1):
        for buffer_id in range(id, id + count):
            self.client.socket.sendall(self.client.free_frame(buffer_id, device))

    def raw(self, hex):
        self.client.socket.sendall(bytes.fromhex(hex))

    def dribble(self, hex):
        for byte in bytes.fromhex(hex):
            self.client.socket.sendall(bytes([byte]))

    def recv(self, bytes):
        received = b""
        while len(received) < bytes:
            part = self.client.socket.recv(bytes - len(received))
            if not part:
                return {"hex": received.hex(), "closed": True}
            received += part
        return {"hex": received.hex(), "closed": False}

    def fork_allocate(self, outlives=False, **allocation):
        """The child ends with its parent, so that no failing test leaves it behind, or `outlives` it by a minute."""
        if self.child is not None:
            raise ValueError(f"child {self.child} still lives: end_child first")
        told, tell = os.pipe()
        lifeline, self.lifeline = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(self.lifeline)
                self.allocate(**allocation)
                os.write(tell, b"+")
                os.read(lifeline, 1)
                time.sleep(60 if outlives else 0)
            finally:
                os._exit(0)
        os.close(tell)
        os.close(lifeline)
        self.child = child
        with os.fdopen(told, "rb") as pipe:
            if not pipe.read(1):
                self.end_child()
                raise ConnectionError("the child could not send: does the server still read this socket?")
        return {"child_pid": child}

    def end_child(self):
        child, self.child = self.child, None
        os.close(self.lifeline)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def crowd(self, count, client, device, type, size):
        for buffer_id in range(1, count + 1):
            self.others.append(CLIENTS[client](self.path))
            self.others[-1].socket.sendall(self.others[-1].allocate_frame(device, type, size, buffer_id))

    def be_user(self, user):
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)

    def be_in(self, group):
        with open(os.path.join(group, "cgroup.procs"), "w") as processes:
            processes.write(str(os.getpid()))

    def be_called(self, hex):
        with open("/proc/self/comm", "wb") as name:
            name.write(bytes.fromhex(hex))

    def close(self):
        self.client.socket.close()
        self.client = None

    def run(self, op, **arguments):
        if self.client is None and op not in UNCONNECTED_OPERATIONS:
            raise ValueError(f"no connection for {op!r}: connect first")
        operation = getattr(self if op in OPERATIONS else self.client, op, None)
        if operation is None or op not in OPERATIONS + CLIENT_OPERATIONS:
            raise ValueError(f"no op {op!r} for this client: one of {', '.join(OPERATIONS + CLIENT_OPERATIONS)}, exit")
        return operation(**arguments) or {}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--socket", required=True, help="path of the server's socket")
    commands = Commands(arguments.parse_args().socket)
    for line in sys.stdin:
        command = {}
        try:
            command = json.loads(line)
            answer = {"ok": True, **(commands.run(**command) if command["op"] != "exit" else {})}
        except Exception as error:  # a refused or broken connection is the test's to judge
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
        if command.get("op") == "exit":
            break
    if commands.child is not None:
        commands.end_child()


if __name__ == "__main__":
    main()
