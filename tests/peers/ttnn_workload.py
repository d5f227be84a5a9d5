"""A ttnn process that does one thing at a time: JSON commands on stdin, one JSON answer each on stdout.

Run it with the interpreter that has ttnn and the environment that mock_cluster.py prints. Commands:

    {"op": "open"}                          also "device": 0, or "mesh": [1, 2]; "l1_small_size", "trace_region_size"
    {"op": "alloc", "name": "a", "memory": "dram|l1|l1_small|trace", "shape": [64, 64]}
                                            also "dtype": "bfloat16", "layout": "tile" or "row_major"
    {"op": "free", "name": "a"}
    {"op": "add", "left": "a", "right": "b", "name": "c"}     a program, whose circular buffers stay until close
    {"op": "banks"}                         capacity and use of every memory type, as ttnn's allocator tells them
    {"op": "oom"}                           asks for more L1 than there is
    {"op": "report", "path": PATH}        from now on tells an allocation server what `alloc`, `add`, `free`, `oom` and `close` come to
    {"op": "close"}                         closes the device, live tensors or not
    {"op": "exit"}

An answer has "ok": true, or "ok": false and "error". Bytes are those that the tensor's own buffer states, per chip:
page size times pages. What ttnn logs goes to stderr.
"""
import json
import os
import re
import socket
import struct
import sys
import time

# tt-metal logs to stdout: give it stderr and keep the real stdout for the answers alone.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import ttnn  # noqa: E402  (after stdout has been moved out of its way)

MEMORIES = {
    "dram": ttnn.BufferType.DRAM,
    "l1": ttnn.BufferType.L1,
    "l1_small": ttnn.BufferType.L1_SMALL,
    "trace": ttnn.BufferType.TRACE,
}
LAYOUTS = {"tile": ttnn.TILE_LAYOUT, "row_major": ttnn.ROW_MAJOR_LAYOUT}
TILE_SIDE = 32
ALLOC, FREE, ALLOCATION_FAILED = 1, 2, 15
# What ttnn says when there is no room: bytes wanted, and, for each bank, free in all and in one block.
OUT_OF_MEMORY = re.compile(r"allocate (\d+) B L1 buffer across (\d+) banks.*free: (\d+) B, largest free block: (\d+) B")


class Workload:
    """One device or mesh and its named tensors; each method but the last few is a command."""

    def __init__(self):
        self.device = None
        self.tensors = {}
        self.server = None

    def report(self, path):
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.connect(path)
        return {}

    def tell(self, kind, memory, size, id, timestamp=None):
        """One 144-byte frame for each chip; buffer types are tt-metal's own numbers, ids are the addresses it gave."""
        if self.server is None:
            return
        timestamp = time.time_ns() if timestamp is None else timestamp
        for device in self.device.get_device_ids():
            fields = kind, device, size, MEMORIES[memory].value, 0, id, timestamp
            self.server.sendall(struct.pack("<B3xiQB3xiQQ104x", *fields))

    def open(self, device=0, mesh=None, l1_small_size=32768, trace_region_size=1 << 20):
        sizes = {"l1_small_size": l1_small_size, "trace_region_size": trace_region_size}
        if mesh:
            self.device = ttnn.open_mesh_device(ttnn.MeshShape(*mesh), **sizes)
        else:
            self.device = ttnn.open_device(device_id=device, **sizes)
        return {"pid": os.getpid(), "device_ids": list(self.device.get_device_ids())}

    def alloc(self, name, memory, shape, dtype="bfloat16", layout="tile"):
        if name in self.tensors:
            raise ValueError(f"there is a tensor {name!r} already: free it first or use another name")
        if memory not in MEMORIES:
            raise ValueError(f"no memory {memory!r}: one of {', '.join(MEMORIES)}")
        tensor = ttnn.empty(shape, getattr(ttnn, dtype), LAYOUTS[layout], self.device, memory_config(memory, shape))
        self.tensors[name] = tensor
        made = self.describe(tensor)
        self.tell(ALLOC, memory, made["bytes"], made["address"])
        return {"name": name, "memory": memory, **made}

    def free(self, name):
        if name not in self.tensors:
            raise ValueError(f"there is no tensor {name!r}: alloc it first")
        tensor = self.tensors.pop(name)
        freed = self.describe(tensor)
        memory = memory_of(tensor)
        ttnn.deallocate(tensor)
        self.tell(FREE, memory, 0, freed["address"])
        return {"name": name, **freed}

    def add(self, left, right, name):
        self.tensors[name] = ttnn.add(self.tensors[left], self.tensors[right])
        made = self.describe(self.tensors[name])
        self.tell(ALLOC, memory_of(self.tensors[name]), made["bytes"], made["address"])
        return {"name": name, **made}

    def banks(self):
        views = {name: ttnn.get_memory_view(self.device, kind) for name, kind in MEMORIES.items()}
        return {
            name: {
                "banks": view.num_banks,
                "bytes_per_bank": view.total_bytes_per_bank,
                "allocated_bytes_per_bank": view.total_bytes_allocated_per_bank,
                "largest_free_bytes_per_bank": view.largest_contiguous_bytes_free_per_bank,
            }
            for name, view in views.items()
        }

    def oom(self):
        try:
            ttnn.empty([1 << 14, 1 << 14], ttnn.bfloat16, ttnn.TILE_LAYOUT, self.device, ttnn.L1_MEMORY_CONFIG)
        except RuntimeError as error:
            told = [line for line in str(error).splitlines() if line.startswith("Out of Memory")]
            if told:
                wanted, banks, free, largest = map(int, OUT_OF_MEMORY.search(told[0]).groups())
                self.tell(ALLOCATION_FAILED, "l1", wanted, largest * banks, free * banks)
                return {"out_of_memory": told[0]}
            raise
        raise RuntimeError("512 MiB fitted into L1: raise the size that `oom` asks for")

    def close(self):
        for tensor in self.tensors.values():
            self.tell(FREE, memory_of(tensor), 0, tensor.buffer_address())
        device, self.device = self.device, None
        close = ttnn.close_device if device.get_num_devices() == 1 else ttnn.close_mesh_device
        close(device)
        self.tensors.clear()
        return {}

    def describe(self, tensor):
        return {
            "bytes": tensor.buffer_page_size() * tensor.buffer_num_pages(),
            "page_bytes": tensor.buffer_page_size(),
            "aligned_page_bytes": tensor.buffer_aligned_page_size(),
            "pages": tensor.buffer_num_pages(),
            "address": tensor.buffer_address(),
            "device_ids": list(self.device.get_device_ids()),
        }


def memory_of(tensor):
    kind = tensor.memory_config().buffer_type
    return next(name for name, known in MEMORIES.items() if known == kind)


def memory_config(memory, shape):
    """Interleaved, except in L1_SMALL, where tt-metal takes sharded tensors only: a core for each row of tiles."""
    if memory != "l1_small":
        return ttnn.MemoryConfig(ttnn.TensorMemoryLayout.INTERLEAVED, MEMORIES[memory])
    rows, columns = shape[-2:]
    last_core = ttnn.CoreCoord(rows // TILE_SIDE - 1, 0)
    cores = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), last_core)})
    shard = ttnn.ShardSpec(cores, [TILE_SIDE, columns], ttnn.ShardOrientation.ROW_MAJOR)
    return ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, MEMORIES[memory], shard)


def main():
    workload = Workload()
    operations = {name: getattr(workload, name) for name in ("open", "alloc", "free", "add", "banks", "oom", "close", "report")}
    for line in sys.stdin:
        try:
            command = json.loads(line)
            operation = command.pop("op")
            if operation != "exit" and operation not in operations:
                raise ValueError(f"unknown op {operation!r}: one of {', '.join(operations)}, exit")
            if operation not in ("open", "report", "exit") and workload.device is None:
                raise ValueError(f"no device for {operation!r}: open one first")
            answer = {"ok": True, **(operations[operation](**command) if operation != "exit" else {})}
        except Exception as error:  # whatever ttnn throws is the test's to judge, and the next command may go well
            operation = None
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        if operation == "exit":
            return


if __name__ == "__main__":
    main()
