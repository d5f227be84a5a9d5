"""Who takes memory and does not give it back."""

from columns import GROWTH, device, host, namespace, pid, pod, process
from grafana import DEVICE, PROCESS, Column, board, choice, graph, series, stat, table
from queries import AGE, ON_DEVICE, ON_HOST, ON_PROCESS, SELECTED, WINDOW, of_process, quantile

OLDER_THAN = choice(
    "older_than",
    "Running for at least",
    [("1 second", "1"), ("1 minute", "60"), ("5 minutes", "300"), ("1 hour", "3600"), ("1 day", "86400")],
    "300",
    "Leaves out processes that are still loading",
)
OLD_ENOUGH = "and on (job, instance, pid, process) (%s > $older_than)" % AGE
SUSPECT = "by (instance, device, memory_type, process, pid)"
SCORE = of_process("ttmem_process_leak_score")
# From the first on a leak is suspected; from the second on TtmemLeakLikely fires.
SUSPECTED, LIKELY = 0.5, 0.7
SCORES = [("text", None), ("yellow", SUSPECTED), ("red", LIKELY)]


def growth_per_hour(metric):
    """Of a straight line through the window, so that what comes and goes does not count."""
    return "3600 * deriv(%s[$window])" % of_process(metric)


def of_suspect(expr):
    alive = "%s > 0 and deriv(%s[$window]) > 0" % (SELECTED, SELECTED)
    return "max %s ((%s) %s and %s)" % (SUSPECT, expr, OLD_ENOUGH, alive)


def of_pod(expr):
    """Of what has a score, with the pod that it belongs to."""
    labels = "k8s_namespace_name, k8s_pod_name"
    info = "on (job, instance, pid, process) group_left (%s) %s" % (labels, series("ttmem_process_info", ON_PROCESS))
    scored = "and on (job, instance, device, memory_type, pid, process) %s" % SCORE
    return "max by (instance, device, memory_type, process, pid, %s) ((%s %s) * %s)" % (labels, expr, scored, info)


BOARD = board(
    "ttmem-leaks",
    "ttmem / Leaks and lifetimes",
    "Who takes memory and does not give it back.",
    [DEVICE, PROCESS, WINDOW, OLDER_THAN],
    [
        (
            4,
            stat(
                4,
                "Suspected",
                "Processes that the daemon itself suspects of leaking: a score of one half or more.",
                "count(count by (instance, pid, process) (%s >= %s))" % (SCORE, SUSPECTED),
                "none",
                levels=[("green", None), ("yellow", 1)],
                noValue="none",
            ),
            stat(
                5,
                "Grows fastest",
                "The process that grows fastest, and by how much in an hour if it goes on as in the chosen window.",
                "topk(1, sum by (process, pid) (%s))" % of_suspect(growth_per_hour("ttmem_process_memory_usage_bytes")),
                "bytes",
                legend="{{process}} ({{pid}})",
                levels=GROWTH,
                text="value_and_name",
                noValue="nobody",
            ),
            stat(
                4,
                "Not given back",
                "Bytes allocated minus bytes released on the selected devices within the time range.",
                "sum(increase(%s[$__range])) - sum(increase(%s[$__range]))"
                % (
                    series("ttmem_device_allocated_bytes_total", ON_DEVICE),
                    series("ttmem_device_freed_bytes_total", ON_DEVICE),
                ),
                "bytes",
            ),
            stat(
                4,
                "Oldest buffer",
                "Age of the oldest buffer that is still held. Weights are as old as their process; what is as old as "
                "they and is no weight was forgotten.",
                "max(time() - %s)" % series("ttmem_device_oldest_buffer_timestamp_seconds", ON_DEVICE),
                "s",
                decimals=1,
            ),
            stat(
                4,
                "Left behind",
                "Memory that processes still held when they ended, within the time range; the daemon has reclaimed it.",
                "sum(increase(%s[$__range]))" % series("ttmem_device_orphaned_bytes_total", ON_DEVICE),
                "bytes",
                levels=[("text", None), ("yellow", 1)],
            ),
            stat(
                3,
                "Buffers left",
                "Buffers that processes still held when they ended, within the time range.",
                "sum(increase(%s[$__range]))" % series("ttmem_device_orphaned_buffers_total", ON_DEVICE),
                "short",
                levels=[("text", None), ("yellow", 1)],
                decimals=0,
            ),
        ),
        (
            7,
            table(
                16,
                "What the daemon suspects",
                "Processes whose buffers are kept as a leak keeps them, the surest first. The score follows buffers by size and age:"
                " from 0.5 on a leak is suspected, at 0.7 TtmemLeakLikely fires. The evidence in words is in /api/v1/leaks.",
                [
                    host(120),
                    device(75),
                    Column("Memory", "memory_type", width=90),
                    process(130),
                    pid(65),
                    namespace(100),
                    pod(140),
                    Column(
                        "Score", unit="none", width=110, bar=True, decimals=2, levels=SCORES, expr=of_pod(SCORE)
                    ),
                    Column("Held", unit="bytes", expr=of_pod(SELECTED)),
                ],
                sort="Score",
                none="Nothing looks like a leak",
            ),
            graph(
                8,
                "How sure it is",
                "The score over time. It rises with the time for which memory grows, and falls when what was kept is given back.",
                [("max by (instance, process, pid) (%s)" % SCORE, "{{process}} ({{pid}}) on {{instance}}")],
                "none",
                soft_max=1,
                noValue="Nothing looks like a leak",
                decimals=2,
            ),
        ),
        (
            9,
            table(
                24,
                "Growing, with nothing given back",
                "Processes that ran long enough to have finished loading, the fastest growing first. A leak grows in"
                " bytes and in buffers, and stands at its own maximum all the time: a pool or a cache stops growing.",
                [
                    host(),
                    device(),
                    Column("Memory", "memory_type", width=90),
                    process(),
                    pid(),
                    Column(
                        "Growth per hour",
                        unit="bytes",
                        width=130,
                        levels=GROWTH,
                        expr=of_suspect(growth_per_hour("ttmem_process_memory_usage_bytes")),
                    ),
                    Column(
                        "Buffers per hour",
                        unit="short",
                        width=130,
                        decimals=0,
                        expr=of_suspect(growth_per_hour("ttmem_process_buffers")),
                    ),
                    Column("Held", unit="bytes", width=100, expr=of_suspect(SELECTED)),
                    Column(
                        "Of its maximum",
                        unit="percentunit",
                        width=220,
                        bar=True,
                        levels=[("text", None), ("yellow", 0.99)],
                        expr=of_suspect("%s / (max_over_time(%s[$window]) > 0)" % (SELECTED, SELECTED)),
                    ),
                    Column("Never below", unit="bytes", expr=of_suspect("min_over_time(%s[$window])" % SELECTED)),
                ],
                sort="Growth per hour",
                none="Nothing grows",
            ),
        ),
        (
            8,
            graph(
                12,
                "Floor of held memory",
                "The least that a process held within the last ten minutes: what comes and goes is not in it. "
                "A floor that rises step by step is a leak.",
                [("sum by (instance, process) (min_over_time(%s[10m]) and %s > 0)" % (SELECTED, SELECTED), ON_HOST)],
                "bytes",
                legend="table",
            ),
            graph(
                12,
                "Live buffers",
                "Buffers that each process holds. A leak rises without end, whatever the sizes.",
                [("sum by (instance, process) (%s)" % of_process("ttmem_process_buffers"), ON_HOST)],
                "short",
                legend="table",
            ),
        ),
        (
            8,
            graph(
                12,
                "How long buffers live",
                "The time that half, and that 95 of 100 of the buffers released at a time had lived, by kind. "
                "Estimated from the histogram's buckets.",
                [
                    (
                        quantile(share, "ttmem_buffer_lifetime_seconds", "memory_type"),
                        "{{memory_type}} " + name,
                    )
                    for share, name in [(0.5, "median"), (0.95, "95 %")]
                ],
                "s",
                logarithm=10,
                legend="table",
            ),
            graph(
                12,
                "Age of the oldest buffer",
                "Rises by a second per second while a buffer is kept, and falls when it is released.",
                [
                    (
                        "max by (instance, device, memory_type) (time() - %s)"
                        % series("ttmem_device_oldest_buffer_timestamp_seconds", ON_DEVICE, 'memory_type=~"dram|l1"'),
                        "{{instance}} {{device}} {{memory_type}}",
                    )
                ],
                "s",
                legend="table",
            ),
        ),
        (
            8,
            graph(
                12,
                "Left behind by dead processes",
                "Bytes that processes still held when they ended: crashes, kills, and exits without "
                "freeing. The daemon reclaims them at once.",
                [
                    (
                        "sum by (instance, device) (increase(%s[$__rate_interval]))"
                        % series("ttmem_device_orphaned_bytes_total", ON_DEVICE),
                        "{{instance}} {{device}}",
                    )
                ],
                "bytes",
                bars=True,
                stacked=True,
                legend="table",
            ),
            graph(
                12,
                "Difference to tt-metal's own count",
                "What tt-metal's shared memory says minus what was reported over the socket, for "
                "processes that both know. Other than 0 for long: reports are missing.",
                [
                    (
                        "sum by (instance, device, memory_type, source) (%s)"
                        % series("ttmem_device_source_drift_bytes", ON_DEVICE),
                        "{{instance}} {{device}} {{memory_type}} {{source}}",
                    )
                ],
                "bytes",
                signed=True,
                legend="table",
                noValue="No tt-metal region on these hosts",
            ),
        ),
    ],
)
