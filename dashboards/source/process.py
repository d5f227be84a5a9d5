"""What a process holds, where, and how that changes."""

from columns import GROWTH, host, namespace, pid, pod, process
from grafana import DEVICE, PROCESS, Column, board, graph, series, stat, table
from queries import (
    AGE,
    ALIVE,
    DRAM,
    L1_KINDS,
    NAMESPACE,
    ON_DEVICE,
    ON_HOST,
    ON_PROCESS,
    ONE,
    POD,
    SELECTED,
    WINDOW,
    gibibyte_hours,
    grew,
    in_pods,
    of_process,
)

HELD_IN_PODS = in_pods("usage_bytes", DRAM)
ONE_CONTAINER = "by (k8s_namespace_name, k8s_pod_name, k8s_container_name)"
# A name may be another pod's on another host.
CONTAINER_LABELS = "instance, k8s_namespace_name, k8s_pod_name, k8s_container_name"
ASSIGNED_CONTAINER = "by (%s)" % CONTAINER_LABELS

BOARD = board(
    "ttmem-process",
    "ttmem / Process",
    "What a process holds, where, and how that changes.",
    [DEVICE, PROCESS, WINDOW],
    [
        (
            4,
            stat(
                4,
                "DRAM held",
                "DRAM that the selected processes hold on the selected devices.",
                "sum(%s)" % of_process("ttmem_process_memory_usage_bytes", DRAM),
                "bytes",
            ),
            stat(
                4,
                "L1 held",
                "L1 that the selected processes hold: buffers, small buffers, circular buffers and kernels.",
                "sum(%s)" % of_process("ttmem_process_memory_usage_bytes", L1_KINDS),
                "bytes",
            ),
            stat(
                4,
                "Live buffers",
                "Buffers of all kinds that the selected processes hold.",
                "sum(%s)" % of_process("ttmem_process_buffers"),
                "short",
            ),
            stat(
                4,
                "Grew",
                "How much more the selected live processes hold than at the start of the chosen window.",
                "sum(%s)" % grew("$window", ON_DEVICE, ON_PROCESS),
                "bytes",
                levels=GROWTH,
            ),
            stat(
                4,
                "Processes",
                "Selected processes that hold memory.",
                "count(count %s (%s > 0))" % (ONE, SELECTED),
                "none",
            ),
            stat(
                4,
                "Youngest started",
                "How long ago the youngest of the selected processes started. Short whenever one looks: it keeps "
                "crashing.",
                "min((%s) %s)" % (AGE, ALIVE),
                "s",
                decimals=1,
            ),
        ),
        (
            9,
            table(
                24,
                "Processes, the largest first",
                "One row for each process, with what it holds on the selected devices. Source is how it "
                "was first heard of: over the socket, or through tt-metal's shared memory.",
                [
                    host(width=125),
                    process(width=125),
                    pid(width=70),
                    Column("User", "user", width=70),
                    namespace(width=115),
                    pod(width=205),
                    Column("Source", "source", width=75),
                    Column(
                        "DRAM",
                        unit="bytes",
                        width=90,
                        expr="sum %s (%s > 0)" % (ONE, of_process("ttmem_process_memory_usage_bytes", DRAM)),
                    ),
                    Column(
                        "Peak DRAM",
                        unit="bytes",
                        width=100,
                        expr="sum %s (%s %s)" % (ONE, of_process("ttmem_process_memory_peak_bytes", DRAM), ALIVE),
                    ),
                    Column(
                        "L1",
                        unit="bytes",
                        width=90,
                        expr="sum %s (%s > 0)" % (ONE, of_process("ttmem_process_memory_usage_bytes", L1_KINDS)),
                    ),
                    Column(
                        "Buffers",
                        unit="none",
                        width=85,
                        expr="sum %s (%s > 0)" % (ONE, of_process("ttmem_process_buffers")),
                    ),
                    Column(
                        "Grew",
                        unit="bytes",
                        width=110,
                        levels=GROWTH,
                        expr="sum %s (%s)" % (ONE, grew("$window", ON_DEVICE, ON_PROCESS)),
                    ),
                    Column(
                        "Running for",
                        unit="s",
                        decimals=1,
                        expr=(
                            "max by (instance, process, pid, user, source, k8s_namespace_name, k8s_pod_name) ((%s) * on "
                            "(job, instance, pid, process) group_left (user, source, k8s_namespace_name, k8s_pod_name) %s "
                            "%s)"
                        )
                        % (AGE, series("ttmem_process_info", ON_PROCESS), ALIVE),
                    ),
                ],
                sort="DRAM",
            ),
        ),
        (
            9,
            graph(
                12,
                "DRAM, by process",
                "DRAM held on the selected devices, by host and process name.",
                [
                    ("sum by (instance, process) (%s)" % of_process("ttmem_process_memory_usage_bytes", DRAM), ON_HOST),
                ],
                "bytes",
                stacked=True,
                legend="table",
            ),
            graph(
                12,
                "L1, by process",
                "Buffers, small buffers, circular buffers and kernels in L1, by host and process name.",
                [
                    (
                        "sum by (instance, process) (%s)" % of_process("ttmem_process_memory_usage_bytes", L1_KINDS),
                        ON_HOST,
                    ),
                ],
                "bytes",
                stacked=True,
                legend="table",
            ),
        ),
        (
            8,
            graph(
                12,
                "Live buffers",
                "Buffers that the selected processes hold.",
                [
                    ("sum by (instance, process) (%s)" % of_process("ttmem_process_buffers"), ON_HOST),
                ],
                "short",
                legend="table",
            ),
            graph(
                12,
                "Taken per second",
                "Bytes that the selected processes allocate per second. Much of it at a steady level is work, much "
                "of it at a rising level is a load or a leak.",
                [
                    (
                        "sum by (instance, process) (rate(%s[$__rate_interval]))"
                        % of_process("ttmem_process_allocated_bytes_total"),
                        ON_HOST,
                    ),
                ],
                "binBps",
                legend="table",
            ),
        ),
        (
            8,
            graph(
                12,
                "By device and kind",
                "What the selected processes hold on each device, by kind of memory.",
                [
                    (
                        "sum by (instance, device, memory_type) (%s > 0)" % SELECTED,
                        "{{instance}} {{device}} {{memory_type}}",
                    ),
                ],
                "bytes",
                legend="table",
            ),
            graph(
                12,
                "Held, of its own peak",
                "Held DRAM as a share of the most that these processes ever held. At 100 % for long, and growing: "
                "nothing is given back.",
                [
                    (
                        "sum by (instance, process) (%s) / sum by (instance, process) (%s and %s > 0)"
                        % (
                            of_process("ttmem_process_memory_usage_bytes", DRAM),
                            of_process("ttmem_process_memory_peak_bytes", DRAM),
                            of_process("ttmem_process_memory_usage_bytes", DRAM),
                        ),
                        ON_HOST,
                    ),
                ],
                "percentunit",
                soft_max=1,
                legend="table",
            ),
        ),
        "Pods",
        (
            9,
            graph(
                12,
                "DRAM, by pod",
                "DRAM held on the selected devices, by namespace and pod, whichever processes are selected.",
                [("sum by (k8s_namespace_name, k8s_pod_name) (%s)" % in_pods("usage_bytes", DRAM), POD)],
                "bytes",
                stacked=True,
                legend="table",
            ),
            graph(
                12,
                "DRAM, by namespace",
                "DRAM held on the selected devices, by namespace, whichever processes are selected.",
                [("sum by (k8s_namespace_name) (%s)" % in_pods("usage_bytes", DRAM), "{{k8s_namespace_name}}")],
                "bytes",
                stacked=True,
                legend="table",
            ),
        ),
        (
            7,
            table(
                14,
                "What pods cost",
                "DRAM held on the selected devices times the hours for which it was, within the time range: 1 is a gibibyte "
                "for an hour. Pods and processes that have ended count.",
                [
                    namespace(),
                    pod(width=220),
                    Column("Container", "k8s_container_name", width=130),
                    Column("Held now", unit="bytes", width=110, expr="sum %s (%s)" % (ONE_CONTAINER, HELD_IN_PODS)),
                    Column(
                        "GiB hours",
                        unit="short",
                        decimals=2,
                        expr="sum %s (%s)" % (ONE_CONTAINER, gibibyte_hours(DRAM)),
                    ),
                ],
                sort="GiB hours",
            ),
            table(
                10,
                "What namespaces cost",
                "The same by namespace: what is to be shared out.",
                [
                    namespace(width=180),
                    Column("Held now", unit="bytes", width=110, expr="sum %s (%s)" % (NAMESPACE, HELD_IN_PODS)),
                    Column(
                        "GiB hours",
                        unit="short",
                        decimals=2,
                        expr="sum %s (%s)" % (NAMESPACE, gibibyte_hours(DRAM)),
                    ),
                ],
                sort="GiB hours",
            ),
        ),
        (
            7,
            table(
                24,
                "Given by the kubelet, and held",
                "Containers that were given devices, and what each holds on all devices: nothing is a device that somebody else could have."
                " Absent where the kubelet's pod-resources API does not tell.",
                [
                    host(),
                    namespace(),
                    pod(width=220),
                    Column("Container", "k8s_container_name", width=150),
                    Column(
                        "Devices given",
                        unit="none",
                        width=130,
                        expr="sum %s (%s)" % (ASSIGNED_CONTAINER, series("ttmem_container_assigned_devices")),
                    ),
                    Column(
                        "Holds",
                        unit="bytes",
                        levels=[("yellow", None), ("text", 1)],
                        expr="sum %s (%s) and on (%s) %s"
                        % (
                            ASSIGNED_CONTAINER,
                            series("ttmem_container_memory_usage_bytes", DRAM),
                            CONTAINER_LABELS,
                            series("ttmem_container_assigned_devices"),
                        ),
                    ),
                ],
                sort="Holds",
                descending=False,
                none="nothing",
            ),
        ),
    ],
)
