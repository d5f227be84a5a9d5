#!/usr/bin/env python3
"""A client of HTTP/2 that does what no library does: it speaks the frames itself, and takes nothing of its answers unless told to.

usage: http2.py PORT CA

Reads JSON lines and answers each with one: {"op": "settings"}, {"op": "get", "path": PATH, "count": N}, {"op": "ping"}, {"op": "drain"}.
"""

import json
import socket
import ssl
import struct
import sys

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
NAMES = {1: "header_table_size", 3: "max_concurrent_streams", 4: "initial_window_size", 6: "max_header_list_size"}


class Client:
    def __init__(self, port, ca):
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        self.stream = context.wrap_socket(socket.create_connection(("localhost", port)), server_hostname="localhost")
        assert self.stream.selected_alpn_protocol() == "h2", self.stream.selected_alpn_protocol()
        self.stream.settimeout(30)
        self.streams = 0
        self.settings = {}
        # A window of nothing for every stream.
        self.stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))

    def receive(self):
        head = self.exactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream, payload = int.from_bytes(head[5:], "big"), self.exactly(length)
        if kind == SETTINGS and not flags & 1:
            for at in range(0, length, 6):
                number, value = struct.unpack(">HI", payload[at : at + 6])
                self.settings[NAMES.get(number, str(number))] = value
            self.stream.sendall(frame(SETTINGS, 1, 0, b""))
        return kind, flags, stream, payload

    def exactly(self, count):
        content = b""
        while len(content) < count:
            more = self.stream.recv(count - len(content))
            if not more:
                raise EOFError
            content += more
        return content

    def op_settings(self):
        while not self.settings:
            self.receive()
        return self.settings

    def op_get(self, path, count=1):
        """How many of so many requests are answered, and how many refused, before a byte of the answers is taken."""
        for _ in range(count):
            # Names and values of the static table, but for authority and path.
            fields = b"\x82\x87\x01\x09localhost\x04" + bytes([len(path)]) + path.encode()
            self.stream.sendall(frame(HEADERS, 0x5, 2 * self.streams + 1, fields))
            self.streams += 1
        answered = refused = 0
        while answered + refused < count:
            kind, _, _, _ = self.receive()
            assert kind != DATA, "more than the window"
            answered += kind == HEADERS
            refused += kind == RESET
        return {"answered": answered, "refused": refused}

    def op_ping(self):
        """Whether the server is still there."""
        try:
            self.stream.sendall(frame(PING, 0, 0, b"stillthr"))
            while True:
                kind, flags, _, _ = self.receive()
                if kind == PING and flags & 1:
                    return {"open": True}
        except (EOFError, OSError):
            return {"open": False}

    def op_drain(self):
        """The kinds of the frames up to the end."""
        kinds = []
        try:
            while True:
                kinds.append(self.receive()[0])
        except (EOFError, OSError):
            return {"goaway": GOAWAY in kinds}


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def main():
    client = Client(int(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        arguments = json.loads(line)
        answer = getattr(client, "op_" + arguments.pop("op"))(**arguments)
        print(json.dumps({"ok": True, **answer}), flush=True)


main()
