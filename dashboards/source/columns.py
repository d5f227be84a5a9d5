"""Columns that several tables have, where their links lead, and what colours mean."""

from grafana import Column, link, series
from queries import NEVER

# Below the first level TtmemOutOfMemoryImminent fires, below the second TtmemMemoryFillingUp, if the device is full enough.
SOON = [("red", None), ("yellow", 30 * 60), ("text", 4 * 3600)]
NOT_FILLING = [{"type": "range", "options": {"from": NEVER, "to": None, "result": {"text": "not filling", "index": 0}}}]
NONE_IS_GOOD = [("text", None), ("yellow", 1)]
# Less than this is noise to TtmemLeakSuspected, too.
GROWTH = [("green", None), ("text", -16 * 1024 * 1024), ("yellow", 16 * 1024 * 1024)]

TO_DEVICE = link("ttmem-device", "This device", instance="instance", device="device")
TO_HOST = link("ttmem-exporter", "This host's exporter", instance="instance")
TO_PROCESS = link("ttmem-process", "This process", instance="instance", process="process")
TO_GROWER = link("ttmem-process", "This process", instance="instance", process="grower")


def host(width=150):
    return Column("Host", "instance", width=width, link=TO_HOST)


def device(width=80):
    return Column("Device", "device", width=width, link=TO_DEVICE)


def process(width=140):
    return Column("Process", "process", width=width, link=TO_PROCESS)


def pid(width=75):
    return Column("PID", "pid", width=width)


def namespace(width=140):
    return Column("Namespace", "k8s_namespace_name", width=width)


def pod(width=160):
    return Column("Pod", "k8s_pod_name", width=width)


def up_column():
    """Whether a host answers, as a word: no is red."""
    return Column(
        "Up",
        unit="bool_yes_no",
        width=60,
        levels=[("red", None), ("text", 1)],
        expr="max by (instance) (%s)" % series("up"),
    )
