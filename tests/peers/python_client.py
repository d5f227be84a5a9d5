"""A program that uses the Python client, stepped from outside: JSON commands on stdin, one JSON answer each on stdout.

Run it with an interpreter that has the wheel of clients/python.

    {"op": "open"}                                      also "socket": PATH; else what the environment says
    {"op": "allocate", "device": 0, "size": 4096, "type": "DRAM"}       also "id", "count" and "client"
    {"op": "deallocate", "id": 1}                       also "device" and "client"; "all": true for everything allocated
    {"op": "cb", "device": 0, "size": 4096, "free": false}
    {"op": "failure", "device": 0, "size": 8, "type": "L1", "free": 4, "largest": 2}
    {"op": "query", "device": 0}    {"op": "info", "device": 0}    {"op": "devices"}    {"op": "statistics"}
    {"op": "flush", "seconds": 10}
    {"op": "threads", "count": 8, "rounds": 1000}       as many threads allocate and free, over one client
    {"op": "fork", "size": 77}                          a child allocates over the same client, and waits until "end_child"
    {"op": "end_child"}
    {"op": "watch", "socket": PATH}                     what watch() has printed by its end
    {"op": "monitor", "socket": PATH}                   what the stats pages say, over one Monitor
    {"op": "close"}    {"op": "exit"}

An answer has "ok": true, or "ok": false, "error" and "kind".
"""

import dataclasses
import io
import json
import os
import signal
import sys
import threading

import ttmem


class Program:
    def __init__(self):
        self.clients = []
        self.ids = []
        self.child = None
        self.monitor_of_all = None

    def open(self, socket=None):
        self.clients.append(ttmem.AllocationClient(socket))
        return {"pid": os.getpid(), "version": sys.version_info[:2]}

    def allocate(self, device, size, type, id=None, count=1, client=0):
        given = [
            self.clients[client].allocate(device, size, ttmem.BufferType[type], None if id is None else id + number)
            for number in range(count)
        ]
        self.ids += given
        return {"id": given[0]}

    def deallocate(self, id=None, device=None, client=0, all=False):
        for buffer_id in self.ids if all else [id]:
            self.clients[client].deallocate(buffer_id, device)
        self.ids = [] if all else [known for known in self.ids if known != id]

    def cb(self, device, size, free):
        (self.clients[0].deallocate_cb if free else self.clients[0].allocate_cb)(device, size)

    def failure(self, device, size, type, free, largest):
        self.clients[0].report_failure(device, size, ttmem.BufferType[type], free, largest)

    def query(self, device):
        return dict(self.clients[0].query_device(device))

    def info(self, device):
        return dict(self.clients[0].query_device_info(device))

    def devices(self):
        return {"devices": self.clients[0].get_num_devices()}

    def statistics(self):
        told = self.clients[0].statistics()
        return {
            "statistics": [
                [device, kind.name, held.allocated_bytes, held.peak_bytes, held.buffers, held.largest_buffer_bytes]
                for device, by_type in told.items()
                for kind, held in by_type.items()
            ]
        }

    def flush(self, seconds):
        return {"flushed": self.clients[0].flush(seconds)}

    def threads(self, count, rounds):
        failures = []

        def work():
            try:
                for _ in range(rounds):
                    with self.clients[0].buffer(0, 4096, ttmem.BufferType.L1):
                        pass
            except Exception as error:
                failures.append(repr(error))

        workers = [threading.Thread(target=work) for _ in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {"failures": failures}

    def fork(self, size):
        told, tell = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            self.clients[0].allocate(0, size, ttmem.BufferType.DRAM)
            os.write(tell, b"+" if self.clients[0].flush(10) else b"-")
            signal.pause()
            os._exit(0)
        os.close(tell)
        with os.fdopen(told, "rb") as pipe:
            return {"child_pid": self.child, "told": pipe.read(1).decode()}

    def end_child(self):
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)

    def watch(self, socket):
        out = io.StringIO()
        with ttmem.watch(3600, out, socket):
            pass
        return {"printed": out.getvalue()}

    def monitor(self, socket):
        if self.monitor_of_all is None:
            self.monitor_of_all = ttmem.Monitor(socket)
        monitor = self.monitor_of_all
        holdings = monitor.holdings()
        return {
            "is_connected": monitor.is_connected(),
            "devices": [dataclasses.asdict(device) for device in monitor.devices()],
            "device_9": monitor.device(9),
            "holdings": holdings and [dataclasses.asdict(holding) for holding in holdings],
            "missing": monitor.holdings_missing(),
        }

    def close(self):
        for client in self.clients:
            client.close()


def main():
    program = Program()
    for line in sys.stdin:
        command = json.loads(line)
        operation = command.pop("op")
        if operation == "exit":
            answer = {"ok": True}
        else:
            try:
                answer = {"ok": True, **(getattr(program, operation)(**command) or {})}
            except Exception as error:
                answer = {"ok": False, "kind": type(error).__name__, "error": str(error)}
        print(json.dumps(answer), flush=True)
        if operation == "exit":
            return


main()
