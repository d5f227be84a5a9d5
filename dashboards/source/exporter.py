"""Whether ttmem itself is well and hears everything."""

from columns import NONE_IS_GOOD, host, up_column
from grafana import BAD_FROM_ONE, LEVELS, Column, board, graph, series, stat, table

# What a client may be refused by the configuration; all other reasons are the client's fault.
BY_LIMITS = 'reason=~"clients_max|user_clients_max|too_many_buffers|user_buffers_max|buffers_max"'
# How many layers the sandbox has.
LAYERS = 4
YES_IS_GOOD = [("red", None), ("text", 1)]


def per_host(metric, *matchers):
    return "max by (instance) (%s)" % series(metric, *matchers)


def increases(metric):
    return "sum by (instance) (increase(%s[$__range]))" % series(metric)


def age(metric, *matchers):
    """Since a time stamp; of one that is 0 there is none."""
    stamp = series(metric, *matchers)
    return "time() - (%s > 0)" % stamp


BOARD = board(
    "ttmem-exporter",
    "ttmem / Exporter",
    "Whether ttmem itself is well and hears everything.",
    [],
    [
        (
            4,
            stat(3, "Hosts up", "Hosts whose ttmem answered the last scrape.", "sum(%s)" % series("up"), "none"),
            stat(
                3,
                "Hosts down",
                "Hosts whose ttmem did not answer the last scrape.",
                "sum(%s == bool 0)" % series("up"),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
            ),
            stat(
                3,
                "Rejected",
                "Messages, or claims in them, that were not believed, within the time range. The reasons are below.",
                "sum(increase(%s[$__range]))" % series("ttmem_events_rejected_total"),
                "short",
                levels=NONE_IS_GOOD,
                decimals=0,
            ),
            stat(
                3,
                "Lost",
                "Messages known to have been lost on their way, within the time range: the figures may be off by them.",
                "sum(increase(%s[$__range]))" % series("ttmem_events_lost_total"),
                "short",
                levels=BAD_FROM_ONE,
                decimals=0,
            ),
            stat(
                3,
                "Slowest scrape",
                "The longest that any of the selected hosts took to answer its last scrape.",
                "max(%s)" % series("ttmem_scrape_duration_seconds"),
                "s",
            ),
            stat(
                3,
                "Config refused",
                "Hosts that run with an older configuration because the last one was not accepted.",
                "sum(%s == bool 0)" % series("ttmem_config_last_reload_successful"),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
            ),
            stat(
                3,
                "State not kept",
                "Hosts that were told to keep their state and cannot: what they know is forgotten when they are started again.",
                "sum(%s == bool 0)" % series("ttmem_state_kept"),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
                noValue="off",
            ),
            stat(
                3,
                "History missed",
                "Points and events that the history lacks, within the time range: the disk was full or too slow.",
                "sum(increase(%s[$__range]))" % series("ttmem_history_dropped_total"),
                "short",
                levels=BAD_FROM_ONE,
                decimals=0,
                noValue="off",
            ),
        ),
        (
            8,
            table(
                24,
                "Hosts",
                "One row for each host, those that are down first. Suppressed are processes that have no series of"
                " their own, because there are more than processes_max on a device. Sandbox is how many of"
                " its four layers are in force.",
                [
                    Column("Host", "instance", width=150),
                    Column("Version", "version", width=80),
                    Column("Revision", "revision", width=120),
                    up_column(),
                    Column(
                        "Running for",
                        unit="s",
                        decimals=1,
                        width=105,
                        expr=(
                            "max by (instance, version, revision) ((time() - %s) * on (job, instance) group_left"
                            " (version, revision) %s)"
                        )
                        % (series("process_start_time_seconds"), series("ttmem_build_info")),
                    ),
                    Column(
                        "Clients",
                        unit="none",
                        width=80,
                        expr="sum by (instance) (%s)" % series("ttmem_client_connections"),
                    ),
                    Column("Series", unit="none", width=80, expr="sum by (instance) (%s)" % series("ttmem_series")),
                    Column(
                        "Suppressed",
                        unit="none",
                        width=95,
                        levels=NONE_IS_GOOD,
                        expr="sum by (instance) (%s)" % series("ttmem_process_suppressed"),
                    ),
                    Column(
                        "Rejected",
                        unit="short",
                        decimals=0,
                        width=90,
                        levels=NONE_IS_GOOD,
                        expr=increases("ttmem_events_rejected_total"),
                    ),
                    Column(
                        "Lost",
                        unit="short",
                        decimals=0,
                        width=80,
                        levels=BAD_FROM_ONE,
                        expr=increases("ttmem_events_lost_total"),
                    ),
                    Column("Memory", unit="bytes", width=85, expr=per_host("process_resident_memory_bytes")),
                    Column(
                        "Open files",
                        unit="percentunit",
                        width=130,
                        bar=True,
                        levels=LEVELS,
                        expr="max by (instance) (%s / %s)" % (series("process_open_fds"), series("process_max_fds")),
                    ),
                    Column(
                        "Sandbox",
                        unit="none",
                        width=80,
                        levels=[("yellow", None), ("text", LAYERS)],
                        expr="sum by (instance) (%s)" % series("ttmem_sandbox_active"),
                    ),
                    Column(
                        "Config accepted",
                        unit="dateTimeAsIso",
                        expr="1000 * " + per_host("ttmem_config_last_reload_success_timestamp_seconds"),
                    ),
                ],
                sort="Up",
                descending=False,
            ),
        ),
        "What it hears",
        (
            8,
            graph(
                8,
                "Messages",
                "Messages received and changes noticed per second, by kind.",
                [("sum by (kind) (rate(%s[$__rate_interval])) > 0" % series("ttmem_events_total"), "{{kind}}")],
                "cps",
                stacked=True,
            ),
            graph(
                8,
                "Rejected and lost",
                "Messages, or claims in them, that were not believed, and messages known to have been lost, per second "
                "and host.",
                [
                    (
                        "sum by (instance) (rate(%s[$__rate_interval]))" % series("ttmem_events_rejected_total"),
                        "{{instance}} rejected",
                    ),
                    (
                        "sum by (instance) (rate(%s[$__rate_interval]))" % series("ttmem_events_lost_total"),
                        "{{instance}} lost",
                    ),
                ],
                "cps",
                soft_max=1,
            ),
            table(
                8,
                "Why",
                "Rejected and lost messages within the time range, by reason.",
                [
                    Column("Reason", "reason", width=190),
                    Column(
                        "Rejected",
                        unit="short",
                        decimals=0,
                        width=90,
                        levels=NONE_IS_GOOD,
                        expr="sum by (reason) (increase(%s[$__range]))" % series("ttmem_events_rejected_total"),
                    ),
                    Column(
                        "Lost",
                        unit="short",
                        decimals=0,
                        levels=BAD_FROM_ONE,
                        expr="sum by (reason) (increase(%s[$__range]))" % series("ttmem_events_lost_total"),
                    ),
                ],
                sort="Rejected",
            ),
        ),
        (
            8,
            graph(
                8,
                "Clients",
                "Open connections, by transport and by the frame size that they speak.",
                [("sum by (transport, layout) (%s)" % series("ttmem_client_connections"), "{{transport}} {{layout}}")],
                "none",
                stacked=True,
            ),
            graph(
                8,
                "Series",
                "Samples in the exposition, by what they are about: what this exporter costs Prometheus.",
                [("sum by (scope) (%s)" % series("ttmem_series"), "{{scope}}")],
                "short",
                stacked=True,
            ),
            graph(
                8,
                "Duration of a scrape",
                "How long the daemon took to answer (ttmem), and how long Prometheus waited (Prometheus).",
                [
                    ("max by (instance) (%s)" % series("ttmem_scrape_duration_seconds"), "{{instance}} ttmem"),
                    ("max by (instance) (%s)" % series("scrape_duration_seconds"), "{{instance}} Prometheus"),
                ],
                "s",
            ),
        ),
        (
            7,
            graph(
                14,
                "Refused by a limit",
                "Clients, buffers and rings that a setting refuses. Of a client or a buffer nothing is seen; who gets no ring"
                " reports in frames.",
                [
                    (
                        "sum by (instance, reason) (increase(%s[$__rate_interval]))"
                        % series("ttmem_events_rejected_total", BY_LIMITS),
                        "{{instance}} {{reason}}",
                    ),
                    (
                        "sum by (instance, reason) (increase(%s[$__rate_interval]))" % series("ttmem_ring_refusals_total"),
                        "{{instance}} rings {{reason}}",
                    ),
                ],
                "short",
                bars=True,
                stacked=True,
                soft_max=1,
                legend="table",
                decimals=0,
            ),
            graph(
                10,
                "Memory of rings",
                "Memory of the host in which clients report. ring_memory_max_bytes bounds each user's.",
                [("sum by (instance) (%s)" % series("ttmem_ring_memory_bytes"), "{{instance}}")],
                "bytes",
            ),
        ),
        "What outlives it",
        (
            7,
            table(
                24,
                "State and history",
                "One row for each host with a state directory. Went on in is how long the last start took to go on where the"
                " daemon before ended; 0 is a start with nothing. Failed are checkpoints, missed are points and events of the"
                " history, within the time range.",
                [
                    host(170),
                    Column(
                        "Kept", unit="bool_yes_no", width=65, levels=YES_IS_GOOD, expr=per_host("ttmem_state_kept")
                    ),
                    Column("Went on in", unit="s", width=110, expr=per_host("ttmem_state_recovery_duration_seconds")),
                    Column("Journal", unit="bytes", width=100, expr=per_host("ttmem_state_journal_bytes")),
                    Column("Checkpoint", unit="bytes", width=110, expr=per_host("ttmem_state_checkpoint_bytes")),
                    Column(
                        "Its age",
                        unit="s",
                        decimals=1,
                        width=100,
                        expr="max by (instance) (%s)" % age("ttmem_state_checkpoint_timestamp_seconds"),
                    ),
                    Column("Made in", unit="s", width=100, expr=per_host("ttmem_state_checkpoint_duration_seconds")),
                    Column(
                        "Failed",
                        unit="short",
                        decimals=0,
                        width=80,
                        levels=BAD_FROM_ONE,
                        expr=increases("ttmem_state_checkpoint_failures_total"),
                    ),
                    Column("History", unit="bytes", width=110, expr=per_host("ttmem_history_size_bytes")),
                    Column(
                        "Written before",
                        unit="s",
                        decimals=1,
                        width=130,
                        levels=[("text", None), ("yellow", 60)],
                        expr="max by (instance) (%s)" % age("ttmem_history_last_write_timestamp_seconds"),
                    ),
                    Column("Waiting", unit="none", width=90, expr=per_host("ttmem_history_queue_items")),
                    Column(
                        "Missed",
                        unit="short",
                        decimals=0,
                        levels=BAD_FROM_ONE,
                        expr=increases("ttmem_history_dropped_total"),
                    ),
                ],
                sort="Kept",
                descending=False,
                none="No state directory",
            ),
        ),
        (
            7,
            graph(
                8,
                "Journal",
                "What no checkpoint has yet. It falls with each checkpoint, at half of state_journal_bytes_max; where it does not,"
                " the disk takes none.",
                [("max by (instance) (%s)" % series("ttmem_state_journal_bytes"), "{{instance}}")],
                "bytes",
                noValue="No state directory",
            ),
            graph(
                8,
                "History on the disk",
                "Room that the history takes. At history_size_max_bytes the oldest eighth of everything goes.",
                [("max by (instance) (%s)" % series("ttmem_history_size_bytes"), "{{instance}}")],
                "bytes",
                noValue="No state directory",
            ),
            graph(
                8,
                "History: missed and failed",
                "What is missing from the history, and attempts to write it that failed and are made again, per second, by"
                " reason.",
                [
                    (
                        "sum by (reason) (rate(%s[$__rate_interval]))" % series("ttmem_history_dropped_total"),
                        "missed: {{reason}}",
                    ),
                    (
                        "sum by (reason) (rate(%s[$__rate_interval]))" % series("ttmem_history_errors_total"),
                        "failed: {{reason}}",
                    ),
                ],
                "cps",
                soft_max=1,
                noValue="No state directory",
            ),
        ),
        "What is pushed over OTLP",
        (
            7,
            graph(
                8,
                "Delivered",
                "Spans, data points and log records that the collector has accepted, per second.",
                [
                    (
                        "sum by (instance, signal) (rate(%s[$__rate_interval]))" % series("ttmem_otlp_exported_total"),
                        "{{instance}} {{signal}}",
                    )
                ],
                "cps",
                noValue="OTLP is off on these hosts",
            ),
            graph(
                8,
                "Given up, and requests that failed",
                "What no collector will ever have, and requests that failed and are mostly tried again, per second.",
                [
                    (
                        "sum by (reason) (rate(%s[$__rate_interval]))" % series("ttmem_otlp_dropped_total"),
                        "given up: {{reason}}",
                    ),
                    (
                        "sum by (reason) (rate(%s[$__rate_interval]))" % series("ttmem_otlp_export_failures_total"),
                        "failed: {{reason}}",
                    ),
                ],
                "cps",
                soft_max=1,
                noValue="OTLP is off on these hosts",
            ),
            graph(
                8,
                "Waiting",
                "What waits for the collector or is on its way. It is bounded; a line that stays up is a collector that is too slow.",
                [("sum by (instance, signal) (%s)" % series("ttmem_otlp_queue_items"), "{{instance}} {{signal}}")],
                "short",
                noValue="OTLP is off on these hosts",
            ),
        ),
        "Where names come from",
        (
            7,
            graph(
                8,
                "Kubelet: last answer",
                "How long ago the kubelet last told what it was asked for: names of containers by its pods API or its directory of"
                " logs, given devices by pod resources. The directory is looked at only when there is a container to name.",
                [
                    (
                        "max by (instance, source) (%s)" % age("ttmem_kubelet_sync_last_success_timestamp_seconds"),
                        "{{instance}} {{source}}",
                    )
                ],
                "s",
                noValue="No kubelet on these hosts",
            ),
            graph(
                8,
                "Kubelet: time to answer",
                "How long its last answer took. After five seconds it is given up.",
                [
                    (
                        "max by (instance, source) (%s)" % series("ttmem_kubelet_sync_duration_seconds"),
                        "{{instance}} {{source}}",
                    )
                ],
                "s",
                noValue="No kubelet on these hosts",
            ),
            graph(
                8,
                "Kubelet: failures",
                "Questions that the kubelet did not answer, by source and reason. Containers that are new stay without names"
                " meanwhile.",
                [
                    (
                        "sum by (source, reason) (increase(%s[$__rate_interval]))"
                        % series("ttmem_kubelet_sync_failures_total"),
                        "{{source}} {{reason}}",
                    )
                ],
                "short",
                bars=True,
                stacked=True,
                soft_max=1,
                decimals=0,
                noValue="No kubelet on these hosts",
            ),
        ),
        "What it costs",
        (
            8,
            graph(
                8,
                "Processor time",
                "Processor time of the daemon; 100 % is one core.",
                [
                    (
                        "sum by (instance) (rate(%s[$__rate_interval]))" % series("process_cpu_seconds_total"),
                        "{{instance}}",
                    )
                ],
                "percentunit",
                soft_max=0.1,
            ),
            graph(
                8,
                "Memory",
                "Resident memory of the daemon.",
                [("max by (instance) (%s)" % series("process_resident_memory_bytes"), "{{instance}}")],
                "bytes",
            ),
            graph(
                8,
                "Open files",
                "Open files of the daemon as a share of its limit. Every client takes one; at the limit new clients are"
                " refused.",
                [
                    (
                        "max by (instance) (%s / %s)" % (series("process_open_fds"), series("process_max_fds")),
                        "{{instance}}",
                    )
                ],
                "percentunit",
                limits=True,
                soft_max=1,
            ),
        ),
    ],
)
