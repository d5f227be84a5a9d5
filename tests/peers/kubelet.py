"""A kubelet's two gRPC APIs on Unix sockets, made of gRPC's own server, which answers as it is told.

The idea is that the daemon's tests decide which pods there are and how well the kubelet is. Its messages are encoded by protobuf's own
library, from descriptors written down here with the numbers that Kubernetes' definitions have (src/ingest/kubelet/messages.rs names
the releases that both were compared with). It takes one JSON command per line on stdin
and answers each with one JSON line on stdout.

    {"op": "serve", "api": "pods", "socket": PATH}         begins to answer there; the other API is resources
    {"op": "stop", "api": "pods"}                          ends, and takes its socket away, as a kubelet that is stopped does
    {"op": "abandon", "socket": PATH}                      leaves a socket there at which nobody answers, as one that was killed does
    {"op": "garbage", "socket": PATH}                      answers there with what is no HTTP/2
    {"op": "pods", "pods": [{...}]}                        name, namespace, uid, containers: [{name, id}], init, ephemeral
    {"op": "fill", "count": 10000}                         that many pods more, of two containers each, with statuses of ordinary length
    {"op": "resources", "pods": [{...}]}                   name, namespace, containers: [{name, devices: {resource: [id]}, claims: [[driver, pool, device]]}]
    {"op": "behave", "api": "pods", ...}                   from now on: "code": 9, "hang": true, "raw": "hexadecimal bytes", or nothing of it
    {"op": "asked", "api": "pods"}                         {"count": 3, "metadata": {...}} of the last question
"""
import json
import os
import socket
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHODS = {"pods": "/v1alpha1.Pods/ListPods", "resources": "/v1.PodResourcesLister/List"}
MASK = "x-kubernetes-fieldmask"

# Messages and their fields: number, type ("s" string, "b" bytes, or a message), and a star where there are several.
MESSAGES = {
    "ListPodsResponse": {"pods": (1, "b*")},
    "Pod": {"metadata": (1, "ObjectMeta"), "spec": (2, "PodSpec"), "status": (3, "PodStatus")},
    "ObjectMeta": {"name": (1, "s"), "namespace": (3, "s"), "uid": (5, "s")},
    "PodSpec": {"nodeName": (10, "s")},
    "PodStatus": {
        "phase": (1, "s"),
        "containerStatuses": (8, "ContainerStatus*"),
        "initContainerStatuses": (10, "ContainerStatus*"),
        "ephemeralContainerStatuses": (13, "ContainerStatus*"),
    },
    "ContainerStatus": {"name": (1, "s"), "image": (6, "s"), "imageID": (7, "s"), "containerID": (8, "s")},
    "ListPodResourcesResponse": {"pod_resources": (1, "PodResources*")},
    "PodResources": {"name": (1, "s"), "namespace": (2, "s"), "containers": (3, "ContainerResources*")},
    "ContainerResources": {
        "name": (1, "s"),
        "devices": (2, "ContainerDevices*"),
        "dynamic_resources": (5, "DynamicResource*"),
    },
    "ContainerDevices": {"resource_name": (1, "s"), "device_ids": (2, "s*")},
    "DynamicResource": {"claim_name": (2, "s"), "claim_resources": (4, "ClaimResource*")},
    "ClaimResource": {"driver_name": (2, "s"), "pool_name": (3, "s"), "device_name": (4, "s")},
}


def classes():
    """The messages' classes."""
    file = descriptor_pb2.FileDescriptorProto(name="kubelet.proto", package="kubelet", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            described = message.field.add(name=field, number=number)
            described.label = described.LABEL_REPEATED if kind.endswith("*") else described.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            described.type = {"s": described.TYPE_STRING, "b": described.TYPE_BYTES}.get(kind, described.TYPE_MESSAGE)
            if described.type == described.TYPE_MESSAGE:
                described.type_name = f".kubelet.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    get = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kubelet.{name}"))
    return {name: get(name) for name in MESSAGES}


CLASSES = classes()


def pod(told, masked):
    """A pod as the kubelet tells it, with the wanted fields alone."""
    made = CLASSES["Pod"]()
    made.metadata.name, made.metadata.namespace = told["name"], told["namespace"]
    if not masked:
        made.metadata.uid, made.spec.nodeName, made.status.phase = told["uid"], "node-7", "Running"
    kinds = {"containers": "containerStatuses", "init": "initContainerStatuses", "ephemeral": "ephemeralContainerStatuses"}
    for kind, field in kinds.items():
        for container in told.get(kind, []):
            status = getattr(made.status, field).add(name=container["name"])
            status.image = "registry.example/inference/server:2026.11"
            status.imageID = "registry.example/inference/server@sha256:" + "5d" * 32
            # A container that has not been made has no id yet.
            status.containerID = f"containerd://{container['id']}" if container.get("id") else ""
    return made.SerializeToString()


def resources(told):
    answer = CLASSES["ListPodResourcesResponse"]()
    for told_pod in told:
        made = answer.pod_resources.add(name=told_pod["name"], namespace=told_pod["namespace"])
        for container in told_pod["containers"]:
            given = made.containers.add(name=container["name"])
            for resource, ids in container.get("devices", {}).items():
                # One entry a device, as where each is of a NUMA node of its own.
                for device_id in ids:
                    given.devices.add(resource_name=resource, device_ids=[device_id])
            for driver, pool, device in container.get("claims", []):
                claim = given.dynamic_resources.add(claim_name="claim")
                claim.claim_resources.add(driver_name=driver, pool_name=pool, device_name=device)
    return answer.SerializeToString()


class Api:
    """One API: what it says, and how well it is."""

    def __init__(self, name):
        self.name = name
        self.told = []
        self.behaviour = {}
        self.asked = {"count": 0, "metadata": {}}
        self.never = threading.Event()
        self.server = None

    def answer(self, _request, context):
        self.asked = {"count": self.asked["count"] + 1, "metadata": dict(context.invocation_metadata())}
        behaviour = self.behaviour
        if behaviour.get("hang"):
            self.never.wait()
        if "code" in behaviour:
            code = next(code for code in grpc.StatusCode if code.value[0] == behaviour["code"])
            context.abort(code, "told to")
        if "raw" in behaviour:
            return bytes.fromhex(behaviour["raw"])
        if self.name == "resources":
            return resources(self.told)
        masked = MASK in self.asked["metadata"]
        pods = [pod(told, masked) for told in self.told]
        return CLASSES["ListPodsResponse"](pods=pods).SerializeToString()

    def service(self, details):
        if details.method != METHODS[self.name]:
            return None
        # Bytes as they are: what is asked is nothing, and what is answered has been encoded.
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def serve(self, path):
        self.server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Handler(self)])
        self.server.add_insecure_port(f"unix:{path}")
        self.server.start()

    def stop(self):
        self.server.stop(None).wait()
        self.server = None


class Handler(grpc.GenericRpcHandler):
    def __init__(self, api):
        self.api = api

    def service(self, handler_call_details):
        return self.api.service(handler_call_details)


def garbage(path):
    """A server of something else."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve():
        while True:
            peer, _ = listener.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + bytes(64))
            # It stays open until the other end has had enough.
            while peer.recv(4096):
                pass
            peer.close()

    threading.Thread(target=serve, daemon=True).start()


def filling(count):
    name = lambda number: f"filling-{number:05}-7d9c5b6f4d"
    identifier = lambda number, which: f"{which:x}{number:063x}"
    return [
        {
            "name": name(number),
            "namespace": "filling",
            "uid": f"{number:08x}-0000-4000-8000-000000000000",
            "containers": [{"name": f"c{which}", "id": identifier(number, which)} for which in (1, 2)],
        }
        for number in range(count)
    ]


def main():
    apis = {name: Api(name) for name in METHODS}
    for line in sys.stdin:
        command = json.loads(line)
        api, answer = apis.get(command.get("api")), {}
        match command["op"]:
            case "serve":
                api.serve(command["socket"])
            case "stop":
                api.stop()
            case "abandon":
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(command["socket"])
                listener.close()
            case "garbage":
                garbage(command["socket"])
            case "pods":
                apis["pods"].told = command["pods"]
            case "fill":
                apis["pods"].told = apis["pods"].told + filling(command["count"])
            case "resources":
                apis["resources"].told = command["pods"]
            case "behave":
                api.behaviour = {key: value for key, value in command.items() if key not in ("op", "api")}
            case "asked":
                answer = api.asked
        print(json.dumps({"ok": True} | answer), flush=True)


main()
# A thread that hangs would keep the interpreter from ending.
sys.stdout.flush()
os._exit(0)
