"""Whether ttmem itself is well and hears everything."""

from columns import NONE_IS_GOOD, up_column
from grafana import BAD_FROM_ONE, LEVELS, Column, board, graph, series, stat, table


def per_host(metric, *matchers):
    return "max by (instance) (%s)" % series(metric, *matchers)


def increases(metric):
    return "sum by (instance) (increase(%s[$__range]))" % series(metric)


BOARD = board(
    "ttmem-exporter",
    "ttmem / Exporter",
    "Whether ttmem itself is well and hears everything.",
    [],
    [
        (
            4,
            stat(4, "Hosts up", "Hosts whose ttmem answered the last scrape.", "sum(%s)" % series("up"), "none"),
            stat(
                4,
                "Hosts down",
                "Hosts whose ttmem did not answer the last scrape.",
                "sum(%s == bool 0)" % series("up"),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
            ),
            stat(
                4,
                "Rejected",
                "Messages, or claims in them, that were not believed, within the time range. The reasons are below.",
                "sum(increase(%s[$__range]))" % series("ttmem_events_rejected_total"),
                "short",
                levels=NONE_IS_GOOD,
                decimals=0,
            ),
            stat(
                4,
                "Lost",
                "Messages known to have been lost on their way, within the time range: the figures may be off by them.",
                "sum(increase(%s[$__range]))" % series("ttmem_events_lost_total"),
                "short",
                levels=BAD_FROM_ONE,
                decimals=0,
            ),
            stat(
                4,
                "Slowest scrape",
                "The longest that any of the selected hosts took to answer its last scrape.",
                "max(%s)" % series("ttmem_scrape_duration_seconds"),
                "s",
            ),
            stat(
                4,
                "Config refused",
                "Hosts that run with an older configuration because the last one was not accepted.",
                "sum(%s == bool 0)" % series("ttmem_config_last_reload_successful"),
                "none",
                levels=BAD_FROM_ONE,
                background=True,
            ),
        ),
        (
            8,
            table(
                24,
                "Hosts",
                "One row for each host, those that are down first. Suppressed are processes that have no series of"
                " their own, because there are more than processes_max on a device.",
                [
                    Column("Host", "instance", width=170),
                    Column("Version", "version", width=90),
                    Column("Revision", "revision", width=130),
                    up_column(),
                    Column(
                        "Running for",
                        unit="s",
                        decimals=1,
                        width=110,
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
                        width=100,
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
                    Column("Memory", unit="bytes", width=95, expr=per_host("process_resident_memory_bytes")),
                    Column(
                        "Open files",
                        unit="percentunit",
                        width=160,
                        bar=True,
                        levels=LEVELS,
                        expr="max by (instance) (%s / %s)" % (series("process_open_fds"), series("process_max_fds")),
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
