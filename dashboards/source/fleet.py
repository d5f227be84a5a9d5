"""Which device is in trouble, and who fills it."""

from columns import GROWTH, NOT_FILLING, SOON, TO_GROWER, TO_PROCESS, device, host, process, up_column
from grafana import (
    ALERTS,
    ALERTS_SINCE,
    BAD_FROM_ONE,
    CRITICAL,
    LEVELS,
    WARNING,
    Column,
    board,
    graph,
    series,
    stat,
    table,
)
from queries import DRAM, MEMORY, RECENTLY, grew, seconds_until_full, used

USAGE, LIMIT = series("ttmem_device_memory_usage_bytes"), series("ttmem_device_memory_limit_bytes")
LIMITED = "and on (job, instance, device, memory_type) %s" % LIMIT
FULLEST = "max by (instance, device) (%s)" % used()
PROCESS_USAGE = series("ttmem_process_memory_usage_bytes")
# Alerts of the selected hosts, with the time since when their condition holds.
FIRING = "(time() - %s) and ignoring (alertstate) %s" % (ALERTS_SINCE, ALERTS)

BOARD = board(
    "ttmem-fleet",
    "ttmem / Fleet",
    "Which device is in trouble, and who fills it.",
    [],
    [
        (
            4,
            stat(
                4,
                "Devices almost full",
                "Devices on which a kind of memory is 95 % full or more, where TtmemMemoryAlmostFull fires: the next"
                " allocation may fail.",
                "sum(%s >= bool %s)" % (FULLEST, CRITICAL),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
            ),
            stat(
                4,
                "Devices above 80 %",
                "Devices on which a kind of memory is between 80 % and 95 % full.",
                "sum((%s >= bool %s) * (%s < bool %s))" % (FULLEST, WARNING, FULLEST, CRITICAL),
                "none",
                levels=[("green", None), ("yellow", 1)],
                background=True,
            ),
            stat(
                4,
                "Alerts firing",
                "Alerts of ttmem's own rules that fire now for the selected hosts.",
                "count(%s) or 0 * count(%s)" % (ALERTS, series("up")),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
            ),
            stat(
                4,
                "Hosts down",
                "Hosts whose ttmem did not answer Prometheus' last scrape.",
                "sum(%s == bool 0)" % series("up"),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
            ),
            stat(
                4,
                "DRAM in use",
                "Share of all selected devices' DRAM that is held; devices of unknown capacity are left out.",
                "sum(%s and on (job, instance, device, memory_type) %s) / sum(%s)"
                % (
                    series("ttmem_device_memory_usage_bytes", DRAM),
                    series("ttmem_device_memory_limit_bytes", DRAM),
                    series("ttmem_device_memory_limit_bytes", DRAM),
                ),
                "percentunit",
                levels=LEVELS,
                min=0,
                max=1,
                decimals=1,
            ),
            stat(
                4,
                "Left by dead processes",
                "Memory that processes still held when they ended, within the time range. It is free again; a process"
                " that leaves much behind crashed or was killed.",
                "sum(increase(%s[$__range]))" % series("ttmem_device_orphaned_bytes_total"),
                "bytes",
            ),
        ),
        (
            11,
            table(
                24,
                "Fullest devices, and who fills them",
                "One row for each limited memory of each device, the fullest first. Full in is at the pace of the last"
                " ten minutes. Growing most is the process name that holds most more than 30 minutes ago. Click on a"
                " device or a process for its board.",
                [
                    host(),
                    device(),
                    Column("Memory", "memory_type", width=90),
                    Column("Used", expr="max %s (%s)" % (MEMORY, used()), unit="percentunit", levels=LEVELS, bar=True),
                    Column("Held", expr="max %s (%s %s)" % (MEMORY, USAGE, LIMITED), unit="bytes", width=90),
                    Column("Of", expr="max %s (%s)" % (MEMORY, LIMIT), unit="bytes", width=90),
                    Column(
                        "Full in",
                        expr="min %s (%s)" % (MEMORY, seconds_until_full()),
                        unit="s",
                        width=100,
                        levels=SOON,
                        decimals=1,
                        mappings=NOT_FILLING,
                    ),
                    Column("Largest holder", "process", width=140, link=TO_PROCESS),
                    Column(
                        "Holds",
                        unit="bytes",
                        width=90,
                        expr="topk %s (1, sum by (instance, device, memory_type, process) (%s %s))"
                        % (MEMORY, PROCESS_USAGE, LIMITED),
                    ),
                    Column("Growing most", "grower", width=140, link=TO_GROWER),
                    Column(
                        "By",
                        unit="bytes",
                        width=90,
                        levels=GROWTH,
                        expr=(
                            "sum by (instance, device, memory_type, grower) (label_replace(topk %s (1, sum by"
                            ' (instance, device, memory_type, process) ((%s) %s) > 0), "grower", "$1", "process",'
                            ' "(.*)"))'
                        )
                        % (MEMORY, grew(RECENTLY), LIMITED),
                    ),
                ],
                sort="Used",
            ),
        ),
        (
            9,
            graph(
                12,
                "The ten fullest, over time",
                "Share of its limit that is held, for the ten device memories that are fullest now. Dashed: 80 %, and"
                " 95 %, where TtmemMemoryAlmostFull fires.",
                [
                    (
                        "max %s (%s) and on (instance, device, memory_type) max %s (topk(10, %s @ end() / %s @ end()))"
                        % (MEMORY, used(), MEMORY, USAGE, LIMIT),
                        "{{instance}} {{device}} {{memory_type}}",
                    )
                ],
                "percentunit",
                limits=True,
                soft_max=1,
                legend="table",
            ),
            table(
                12,
                "Largest processes",
                "The process names that hold most on the selected hosts, over all devices and kinds of memory. Grew:"
                " what its live processes hold more than 30 minutes ago.",
                [
                    host(),
                    process(),
                    Column(
                        "PIDs",
                        unit="none",
                        width=60,
                        expr="count by (instance, process) (count by (instance, process, pid) (%s > 0))"
                        % PROCESS_USAGE,
                    ),
                    Column(
                        "Devices",
                        unit="none",
                        width=75,
                        expr="count by (instance, process) (count by (instance, process, device) (%s > 0))"
                        % PROCESS_USAGE,
                    ),
                    Column("Held", unit="bytes", width=90, expr="sum by (instance, process) (%s > 0)" % PROCESS_USAGE),
                    Column(
                        "Grew", unit="bytes", levels=GROWTH, expr="sum by (instance, process) (%s)" % grew(RECENTLY)
                    ),
                ],
                sort="Held",
            ),
        ),
        (
            8,
            table(
                12,
                "Alerts, newest first",
                "What fires of ttmem's own rules for the selected hosts.",
                [
                    Column("Alert", "alertname", width=210),
                    Column("Severity", "severity", width=95),
                    host(),
                    device(),
                    process(),
                    Column(
                        "For",
                        unit="s",
                        decimals=1,
                        expr="max by (alertname, severity, instance, device, process) (%s)" % FIRING,
                    ),
                ],
                sort="For",
                descending=False,
                none="No alert fires",
            ),
            table(
                12,
                "Hosts",
                "One row for each host, those that are down first.",
                [
                    host(),
                    up_column(),
                    Column(
                        "Devices", unit="none", width=75, expr="count by (instance) (%s)" % series("ttmem_device_info")
                    ),
                    Column(
                        "Processes",
                        unit="none",
                        width=85,
                        expr="count by (instance) (count by (instance, pid, process) (%s > 0))" % PROCESS_USAGE,
                    ),
                    Column(
                        "DRAM held",
                        unit="bytes",
                        width=95,
                        expr="sum by (instance) (%s)" % series("ttmem_device_memory_usage_bytes", DRAM),
                    ),
                    Column(
                        "Fullest memory",
                        unit="percentunit",
                        levels=LEVELS,
                        bar=True,
                        expr="max by (instance) (%s)" % used(),
                    ),
                ],
                sort="Up",
                descending=False,
            ),
        ),
        (
            8,
            graph(
                24,
                "Memory held, by process name",
                "The ten process names that hold most now, over all devices, hosts and kinds of memory.",
                [
                    (
                        "sum by (process) (%s) and on (process) topk(10, sum by (process) (%s @ end()))"
                        % (PROCESS_USAGE, PROCESS_USAGE),
                        "{{process}}",
                    )
                ],
                "bytes",
                stacked=True,
                legend="table",
            ),
        ),
    ],
)
