"""What is held on a device, of what kind, and by whom."""

from columns import GROWTH, NONE_IS_GOOD, NOT_FILLING, SOON, device, host, pid, process
from grafana import DEVICE, LEVELS, Column, board, gauge, graph, named, series, stat, table
from queries import DRAM, L1_KINDS, MEMORY, ON_DEVICE, RECENTLY, grew, quantile, seconds_until_full, used

DEVICE_LIMIT = series("ttmem_device_memory_limit_bytes", ON_DEVICE, DRAM)
HOLDERS = "by (instance, device, process, pid)"


def held_on_device(*matchers):
    return series("ttmem_process_memory_usage_bytes", ON_DEVICE, *matchers)


def on_device_per_second(metric):
    return "sum(rate(%s[$__rate_interval]))" % series(metric, ON_DEVICE)


BOARD = board(
    "ttmem-device",
    "ttmem / Device",
    "What is held on a device, of what kind, and by whom.",
    [DEVICE],
    [
        (
            5,
            gauge(
                4,
                "DRAM",
                "Share of the DRAM that is held; of the fullest, where several devices are selected.",
                "max(%s)" % used(ON_DEVICE, DRAM),
            ),
            gauge(
                4,
                "L1",
                "Share of the L1 that buffers can use which buffers hold; of the fullest, where several devices are"
                " selected.",
                "max(%s)" % used(ON_DEVICE, 'memory_type="l1"'),
            ),
            stat(
                4,
                "Holds most DRAM",
                "The process name that holds most of the selected devices' DRAM.",
                "topk(1, sum by (process) (%s))" % held_on_device(DRAM),
                "bytes",
                legend="{{process}}",
                text="value_and_name",
            ),
            stat(
                4,
                "Grew most",
                "The process name that holds most more DRAM on the selected devices than 30 minutes ago.",
                "topk(1, sum by (process) (%s))" % grew(RECENTLY, ON_DEVICE, DRAM),
                "bytes",
                legend="{{process}}",
                levels=GROWTH,
                text="value_and_name",
            ),
            stat(
                4,
                "DRAM full in",
                "When the DRAM is full at the pace of the last ten minutes; of the first, where several devices are "
                "selected.",
                "min(%s)" % seconds_until_full(ON_DEVICE, DRAM),
                "s",
                levels=SOON,
                decimals=1,
                mappings=NOT_FILLING,
            ),
            stat(
                4,
                "DRAM free",
                "DRAM that is left; the least, where several devices are selected.",
                "min(%s - %s)" % (DEVICE_LIMIT, series("ttmem_device_memory_usage_bytes", ON_DEVICE, DRAM)),
                "bytes",
            ),
        ),
        (
            9,
            table(
                13,
                "Who holds it",
                "The processes on the selected devices, the largest holder of DRAM first. L1 is buffers, small "
                "buffers, circular buffers and kernels together. Grew: how much more of all memory than 30 minutes"
                " ago.",
                [
                    host(width=120),
                    device(),
                    process(width=125),
                    pid(width=70),
                    Column("DRAM", unit="bytes", width=80, expr="sum %s (%s > 0)" % (HOLDERS, held_on_device(DRAM))),
                    Column(
                        "Of the device",
                        unit="percentunit",
                        width=115,
                        bar=True,
                        levels=LEVELS,
                        expr="sum %s (%s / on (job, instance, device, memory_type) group_left () %s > 0)"
                        % (HOLDERS, held_on_device(DRAM), DEVICE_LIMIT),
                    ),
                    Column("L1", unit="bytes", width=80, expr="sum %s (%s > 0)" % (HOLDERS, held_on_device(L1_KINDS))),
                    Column(
                        "Grew", unit="bytes", levels=GROWTH, expr="sum %s (%s)" % (HOLDERS, grew(RECENTLY, ON_DEVICE))
                    ),
                ],
                sort="DRAM",
            ),
            table(
                11,
                "By kind of memory",
                "What is held of each kind. The kinds are disjoint; only DRAM and L1 have a limit.",
                [
                    host(width=125),
                    device(),
                    Column("Memory", "memory_type", width=90),
                    Column(
                        "Held",
                        unit="bytes",
                        width=80,
                        expr="max %s (%s)" % (MEMORY, series("ttmem_device_memory_usage_bytes", ON_DEVICE)),
                    ),
                    Column(
                        "Used",
                        unit="percentunit",
                        width=120,
                        levels=LEVELS,
                        bar=True,
                        expr="max %s (%s)" % (MEMORY, used(ON_DEVICE)),
                    ),
                    Column(
                        "Peak",
                        unit="bytes",
                        width=80,
                        expr="max %s (%s)" % (MEMORY, series("ttmem_device_memory_peak_bytes", ON_DEVICE)),
                    ),
                    Column(
                        "Buffers", unit="none", expr="max %s (%s)" % (MEMORY, series("ttmem_device_buffers", ON_DEVICE))
                    ),
                ],
                sort="Held",
            ),
        ),
        (
            9,
            graph(
                12,
                "DRAM, by process",
                "DRAM held on the selected devices, by process name; dashed, all that these devices have. Others are "
                "processes beyond the number that have series of their own.",
                [
                    ("sum by (process) (%s)" % held_on_device(DRAM), "{{process}}"),
                    ("sum(%s)" % series("ttmem_process_suppressed_memory_usage_bytes", ON_DEVICE, DRAM), "others"),
                    ("sum(%s)" % DEVICE_LIMIT, "limit"),
                ],
                "bytes",
                stacked=True,
                legend="table",
                overrides=[
                    named(
                        "limit",
                        color={"mode": "fixed", "fixedColor": "red"},
                        custom__fillOpacity=0,
                        custom__lineStyle={"fill": "dash", "dash": [10, 10]},
                        custom__lineWidth=2,
                        custom__stacking={"mode": "none"},
                    )
                ],
            ),
            graph(
                12,
                "L1, by process",
                "Buffers, small buffers, circular buffers and kernels in L1, by process name.",
                [
                    ("sum by (process) (%s)" % held_on_device(L1_KINDS), "{{process}}"),
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
                "Share of the limit",
                "Held share of DRAM and L1. Dashed: 80 %, and 95 %, where TtmemMemoryAlmostFull fires.",
                [
                    ("max %s (%s)" % (MEMORY, used(ON_DEVICE)), "{{instance}} {{device}} {{memory_type}}"),
                ],
                "percentunit",
                limits=True,
                soft_max=1,
                legend="table",
            ),
            graph(
                12,
                "Taken and given back",
                "Bytes allocated (above the line) and released (below it) per second, and what is left of "
                "them. The difference is above the line for long: the devices fill up.",
                [
                    (on_device_per_second("ttmem_device_allocated_bytes_total"), "taken"),
                    ("-" + on_device_per_second("ttmem_device_freed_bytes_total"), "given back"),
                    (
                        "%s - %s"
                        % (
                            on_device_per_second("ttmem_device_allocated_bytes_total"),
                            on_device_per_second("ttmem_device_freed_bytes_total"),
                        ),
                        "difference",
                    ),
                ],
                "binBps",
                filled=True,
                signed=True,
                legend="table",
            ),
        ),
        (
            8,
            graph(
                8,
                "Live buffers",
                "Buffers that are held, by kind.",
                [("sum by (memory_type) (%s)" % series("ttmem_device_buffers", ON_DEVICE), "{{memory_type}}")],
                "short",
            ),
            graph(
                8,
                "Allocations",
                "Buffers allocated per second, by kind.",
                [
                    (
                        "sum by (memory_type) (rate(%s[$__rate_interval]))"
                        % series("ttmem_device_allocations_total", ON_DEVICE),
                        "{{memory_type}}",
                    )
                ],
                "ops",
            ),
            graph(
                8,
                "Sizes of new buffers",
                "The size that half, and that 95 and 99 of 100 of the buffers allocated at a time stay below. "
                "Estimated from the histogram's buckets.",
                [
                    (
                        quantile(share, "ttmem_buffer_size_bytes"),
                        name,
                    )
                    for share, name in [(0.5, "median"), (0.95, "95 %"), (0.99, "99 %")]
                ],
                "bytes",
                logarithm=2,
            ),
        ),
        (
            8,
            graph(
                12,
                "Failed allocations",
                "Allocations in the last minute that found no room: exhausted where too little was free, fragmented where "
                "enough was free but not in one block.",
                [
                    (
                        "sum by (memory_type, reason) (increase(%s[1m]))"
                        % series("ttmem_device_allocation_failures_total", ON_DEVICE),
                        "{{memory_type}}, {{reason}}",
                    )
                ],
                "short",
            ),
            graph(
                12,
                "Largest free block",
                "What the allocator had left in one block when it last failed. Absent while nothing has.",
                [(series("ttmem_device_memory_largest_free_block_bytes", ON_DEVICE), "{{memory_type}}")],
                "bytes",
            ),
        ),
        (
            8,
            table(
                24,
                "What they are, and who says so",
                "Capacity from is whose figure the limit is: configuration, client, or product_table; none where nobody tells. Untracked"
                " processes hold the device open and report nothing; renumbered ones mean another card by its number.",
                [
                    host(),
                    device(),
                    Column("Board", "board", width=180),
                    Column("Architecture", "arch", width=130),
                    Column("Capacity from", "capacity_source", width=150),
                    Column(
                        "Processes",
                        unit="none",
                        width=110,
                        expr="max by (instance, device, board, arch, capacity_source) (%s * on (job, instance, device)"
                        " group_left (board, arch, capacity_source) %s)"
                        % (series("ttmem_device_processes", ON_DEVICE), series("ttmem_device_info", ON_DEVICE)),
                    ),
                    Column(
                        "Untracked",
                        unit="none",
                        width=110,
                        levels=NONE_IS_GOOD,
                        expr="max by (instance, device) (%s)" % series("ttmem_device_untracked_processes", ON_DEVICE),
                    ),
                    Column(
                        "Renumbered",
                        unit="none",
                        levels=NONE_IS_GOOD,
                        expr="max by (instance, device) (%s)" % series("ttmem_device_renumbered_processes", ON_DEVICE),
                    ),
                ],
                sort="Processes",
            ),
        ),
    ],
)
