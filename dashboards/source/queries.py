"""What several boards ask for, as PromQL."""

from grafana import choice, series

# Over how long the pace is measured at which a device fills up: that of the alert that wakes somebody up.
PACE = "10m"
# Over how long a process' growth is measured where the board has no variable for it: longer than a model takes to load.
RECENTLY = "30m"
# A device that is not full within so many seconds does not fill up.
NEVER = 30 * 24 * 3600
# The kinds that lie in L1.
L1_KINDS = 'memory_type=~"l1|l1_small|cb|kernel"'
DRAM = 'memory_type="dram"'

# What makes one row of a table: a kind of memory of a device, or a process.
MEMORY = "by (instance, device, memory_type)"
ONE = "by (instance, process, pid)"

ON_DEVICE = 'device=~"$device"'
ON_PROCESS = 'process=~"$process"'
# The legend of a process name.
ON_HOST = "{{process}} on {{instance}}"
NAMESPACE = "by (k8s_namespace_name)"
# The legend of a pod.
POD = "{{k8s_namespace_name}} / {{k8s_pod_name}}"


def used(*matchers):
    limit = series("ttmem_device_memory_limit_bytes", *matchers)
    return "%s / (%s > 0)" % (series("ttmem_device_memory_usage_bytes", *matchers), limit)


def seconds_until_full(*matchers):
    usage = series("ttmem_device_memory_usage_bytes", *matchers)
    free = "(%s - %s)" % (series("ttmem_device_memory_limit_bytes", *matchers), usage)
    return "clamp(%s / clamp_min(deriv(%s[%s]), 0.001), 0, %d)" % (free, usage, PACE, NEVER)


def grew(window, *matchers):
    """What each live process holds more than at the window's start, or than at its own."""
    usage = series("ttmem_process_memory_usage_bytes", *matchers)
    return "delta(%s[%s]) and %s > 0" % (usage, window, usage)


def quantile(share, metric, *labels):
    """Over the selected devices: of a native histogram where Prometheus keeps it as one, of classic buckets elsewhere."""
    native = "sum by (%s) (rate(%s[$__rate_interval]))" % (", ".join(labels), series(metric, ON_DEVICE))
    classic = series(metric + "_bucket", ON_DEVICE)
    classic = "sum by (%s) (rate(%s[$__rate_interval]))" % (", ".join(["le", *labels]), classic)
    return "histogram_quantile(%s, %s) or histogram_quantile(%s, %s)" % (share, native, share, classic)


def of_process(metric, *matchers):
    return series(metric, ON_DEVICE, ON_PROCESS, *matchers)


def in_pods(metric, *matchers):
    """Of containers whose pod is known, all of them."""
    return series("ttmem_container_memory_" + metric, ON_DEVICE, 'k8s_pod_name!=""', *matchers)


def gibibyte_hours(*matchers):
    """What was held within the time range, times the hours for which it was."""
    return "increase(%s[$__range]) / %d" % (in_pods("byte_seconds_total", *matchers), 3600 * 2**30)


SELECTED = of_process("ttmem_process_memory_usage_bytes")
ALIVE = "and on (job, instance, pid, process) (%s > 0)" % SELECTED
AGE = "time() - %s" % series("ttmem_process_start_time_seconds", ON_PROCESS)


WINDOW = choice(
    "window",
    "Growth over",
    [("15 minutes", "15m"), ("30 minutes", "30m"), ("1 hour", "1h"), ("6 hours", "6h"), ("1 day", "1d")],
    "30m",
    "How far back growth is measured",
)
