"""An OpenTelemetry collector that does as it is told, made of gRPC's own server and OTLP's official classes.

The idea is that the daemon's tests decide what it answers, and read what it got in the words of the official classes. It takes one JSON
command per line on stdin and answers each with one JSON line on stdout.

    {"op": "ports"}                         {"http": 40001, "grpc": 40002}
    {"op": "answer", "times": 2, ...}       what the next requests are answered with; one of
                                              "status": 503, "headers": {...}    over HTTP
                                              "code": 14, "retry_delay_ms": 900  over gRPC
                                              "reject": 3                        accepted but for so many items
                                              "hang": true                       not at all
    {"op": "pending"}                       {"pending": 1} answers that are left
    {"op": "requests"}                      all that were accepted, in the order of their coming: signal, protocol, headers, body
    {"op": "attempts"}                      {"attempts": [...]} all that came: signal, seconds on a steady clock, outcome
    {"op": "exit"}

With --record FILE it writes a line for each request before it accepts it, and goes on where another one has ended. With --tls DIR it has
server.crt and server.key from there, and wants a certificate that ca.crt vouches for.
"""
import argparse
import gzip
import http.server
import json
import os
import ssl
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SIGNALS = {
    "traces": (
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans",
    ),
    "metrics": (
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
    "logs": (
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records",
    ),
}
THREADS = 32  # more than the daemon has requests on their way at once, so that one that hangs holds up no other


class State:
    """What it was told, and what it got."""

    def __init__(self, record):
        self.lock = threading.Lock()
        self.never = threading.Event()
        self.answers = []
        self.attempts = []
        self.record = record
        self.requests = []
        if record and record.exists():
            self.requests = [json.loads(line) for line in record.read_text().splitlines()]

    def next_answer(self, signal):
        with self.lock:
            answer = self.answers.pop(0) if self.answers else {}
            self.attempts.append({"signal": signal, "at": time.monotonic(), "answer": answer})
            return answer

    def accept(self, signal, protocol, headers, message):
        request = {"signal": signal, "protocol": protocol, "headers": headers, "body": MessageToDict(message)}
        with self.lock:
            if self.record:
                with self.record.open("a") as record:
                    record.write(json.dumps(request) + "\n")
            self.requests.append(request)


def response(signal, answer):
    _, make, field = SIGNALS[signal]
    answered = make()
    if "reject" in answer:
        setattr(answered.partial_success, field, answer["reject"])
        answered.partial_success.error_message = "not these"
    return answered


def http_server(state, port, tls):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            signal = self.path.rsplit("/", 1)[-1]
            signal = signal if signal in SIGNALS else "metrics"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = state.next_answer(signal)
            if "hang" in answer:
                state.never.wait()
            if "status" in answer:
                return self.reply(answer["status"], answer.get("headers", {}), b"")
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()} | {":path": self.path}
            state.accept(signal, "http/protobuf", headers, SIGNALS[signal][0].FromString(body))
            self.reply(200, {"Content-Type": "application/x-protobuf"}, response(signal, answer).SerializeToString())

        def reply(self, status, headers, body):
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *_):
            pass  # a peer that goes away, or has no certificate, is a test's matter

    server = Server(("127.0.0.1", port), Handler)
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(tls / "server.crt", tls / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def export(state, signal):
    """The method of a signal's service."""

    def method(_, request, context):
        answer = state.next_answer(signal)
        if "hang" in answer:
            state.never.wait()
        if "code" in answer:
            details = []
            if "retry_delay_ms" in answer:
                delay = duration_pb2.Duration()
                delay.FromMilliseconds(answer["retry_delay_ms"])
                info = any_pb2.Any()
                info.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
                details = [info]
            status = status_pb2.Status(code=answer["code"], message="told to", details=details)
            context.abort_with_status(rpc_status.to_status(status))
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        state.accept(signal, "grpc", headers, request)
        return response(signal, answer)

    return method


def grpc_server(state, port, tls):
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    services = {
        "traces": (trace_service_pb2_grpc.TraceServiceServicer, trace_service_pb2_grpc.add_TraceServiceServicer_to_server),
        "metrics": (
            metrics_service_pb2_grpc.MetricsServiceServicer,
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
        ),
        "logs": (logs_service_pb2_grpc.LogsServiceServicer, logs_service_pb2_grpc.add_LogsServiceServicer_to_server),
    }
    for signal, (servicer, add) in services.items():
        add(type(signal, (servicer,), {"Export": export(state, signal)})(), server)
    address = f"127.0.0.1:{port}"
    if tls:
        read = lambda name: (tls / name).read_bytes()
        pair = (read("server.key"), read("server.crt"))
        credentials = grpc.ssl_server_credentials([pair], read("ca.crt"), require_client_auth=True)
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    state.server = server  # it ends with its last reference
    return port


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    state = State(arguments.record)
    ports = {
        "http": http_server(state, arguments.http_port, arguments.tls),
        "grpc": grpc_server(state, arguments.grpc_port, arguments.tls),
    }
    for line in sys.stdin:
        command = json.loads(line)
        answer = {}
        with state.lock:
            match command.pop("op"):
                case "ports":
                    answer = ports
                case "answer":
                    state.answers += [command] * command.pop("times", 1)
                case "pending":
                    answer = {"pending": len(state.answers)}
                case "requests":
                    answer = {"requests": state.requests}
                case "attempts":
                    answer = {"attempts": state.attempts}
                case "exit":
                    break
        print(json.dumps({"ok": True} | answer), flush=True)


main()
# A thread that hangs would keep the interpreter from ending.
sys.stdout.flush()
os._exit(0)
