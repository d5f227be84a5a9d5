//! The configuration table: one row makes a flag, an environment variable, a TOML key, its help and its
//! documentation.

use std::path::Path;

use super::Config;
use super::device;
use super::history;
use super::limits;
use super::otlp;
use super::spans;
use super::values::{self, LogFormat, LogLevel, Range, SocketBufferTypes, SocketLayout};
use super::written::{self, quoted};

/// What comes before the name of every environment variable.
pub(super) const VARIABLE_PREFIX: &str = "TTMEM_";

/// Beyond 64 the threads would only contend for the registry.
const THREADS: Range = Range { min: 1, max: 64 };

/// Below 10 ms reading the regions would keep a core busy; beyond a minute a scrape would miss most of what
/// happens.
const SHM_INTERVAL_MS: Range = Range { min: 10, max: 60_000 };

/// A day: the series of every ended process are kept in memory for so long.
const LINGER_SECONDS: Range = Range { min: 0, max: 86_400 };

/// Below 16 MiB a busy daemon would do little else than write checkpoints; above a gibibyte reading the journal would take seconds.
const JOURNAL_BYTES: Range = Range { min: 16 << 20, max: 1 << 30 };

const PROCESSES: Range = Range { min: 1, max: 100_000 };

/// One setting of the daemon.
pub struct Setting {
    /// The TOML key, in snake case.
    pub key: &'static str,
    /// The flag, without its dashes: the key in kebab case.
    pub flag: &'static str,
    /// The heading under which help and documentation show it.
    pub section: &'static str,
    /// What stands for the value in help.
    pub value_name: &'static str,
    /// What the value looks like.
    pub kind: Kind,
    /// The value, as it would be written, when nobody says anything; empty for an empty list.
    pub default: &'static str,
    /// Whether a change takes effect on SIGHUP, without a restart.
    pub reload: bool,
    /// One line: what it is.
    pub help: &'static str,
    /// Unit, meaning of the values, and the reason to change it.
    pub details: &'static str,
    pub(super) apply: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) show: fn(&Config) -> String,
}

/// Puts the list that one source gives over the one that weaker sources gave.
type Merge = fn(&mut Config, Config);

/// What a value looks like, and so which TOML type it wants.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A string.
    Text,
    /// A string that names a file or directory.
    Path,
    /// An integer within bounds.
    Number(Range),
    /// Permission bits: a string of octal digits, or TOML's octal integer.
    Mode,
    /// A string of a closed list.
    Choice(&'static [&'static str]),
    /// A boolean; its flag may stand alone.
    Switch,
    /// An array of strings, one at least; its flag may be repeated. What one source says replaces what weaker
    /// ones said.
    List(Merge),
    /// An array of strings or of `[[device]]` tables; its flag may be repeated. A device replaces the one of
    /// the same index.
    Devices,
}

impl Kind {
    /// What a TOML file has to hold, as the object of "write".
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Text | Self::Path => "a string in quotes".to_owned(),
            Self::Number(Range { min, max }) => {
                format!("an integer from {min} to {max}, without quotes")
            }
            Self::Mode => "octal digits in quotes, such as \"0660\"".to_owned(),
            Self::Choice(names) => format!("one of \"{}\"", names.join("\", \"")),
            Self::Switch => "true or false, without quotes".to_owned(),
            Self::List(_) => "an array of strings in quotes".to_owned(),
            Self::Devices => "[[device]] tables, or an array such as [\"0=n150\", \"1=n150\"]".to_owned(),
        }
    }

    /// How two lists are put together; none for what is not a list.
    pub(super) fn merge(self) -> Option<Merge> {
        match self {
            Self::List(merge) => Some(merge),
            Self::Devices => Some(|config, over| device::merge(&mut config.devices, over.devices)),
            _ => None,
        }
    }
}

impl Setting {
    /// All that there is to say, in sentences.
    pub fn description(&self) -> String {
        format!("{}. {}", self.help, self.details).trim_end().to_owned()
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_ascii_uppercase())
    }
}

/// Every setting, in the order of help and documentation. `device` stays last: in a file, what follows a
/// `[[device]]` table would belong to it.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "socket",
        flag: "socket",
        section: "Client socket",
        value_name: "PATH",
        kind: Kind::Path,
        default: super::DEFAULT_SOCKET,
        reload: false,
        help: "Unix socket that clients report to",
        details: "The default is the path that existing clients use. At most 107 bytes, the kernel's limit.",
        apply: |config, text| values::socket_path(text).map(|path| config.socket = path),
        show: |config| quoted(&config.socket.to_string_lossy()),
    },
    Setting {
        key: "socket_mode",
        flag: "socket-mode",
        section: "Client socket",
        value_name: "MODE",
        kind: Kind::Mode,
        default: "0666",
        reload: false,
        help: "Permissions of the socket, in octal",
        details: "To connect, a client needs permission to write. The default admits every user: who a \
                  client is comes from the kernel, not from this mode. To admit one group only, write 0660 \
                  and name the group.",
        apply: |config, text| values::mode(text).map(|mode| config.socket_mode = mode),
        show: |config| quoted(&format!("{:04o}", config.socket_mode)),
    },
    Setting {
        key: "socket_group",
        flag: "socket-group",
        section: "Client socket",
        value_name: "GROUP",
        kind: Kind::Text,
        default: "none",
        reload: false,
        help: "Group of the socket, by name or number",
        details: "none: the group that the daemon runs as.",
        apply: |config, text| {
            values::unless_none(text, values::label).map(|group| config.socket_group = group)
        },
        show: |config| quoted(config.socket_group.as_deref().unwrap_or("none")),
    },
    Setting {
        key: "socket_layout",
        flag: "socket-layout",
        section: "Client socket",
        value_name: "BYTES",
        kind: Kind::Choice(SocketLayout::NAMES),
        default: "auto",
        reload: false,
        help: "Size of the frames that clients send",
        details: "auto finds it out for each connection from its first bytes. Fix it only where all clients \
                  are known.",
        apply: |config, text| SocketLayout::parse(text).map(|layout| config.socket_layout = layout),
        show: |config| quoted(config.socket_layout.name()),
    },
    Setting {
        key: "socket_buffer_types",
        flag: "socket-buffer-types",
        section: "Client socket",
        value_name: "ORDER",
        kind: Kind::Choice(SocketBufferTypes::NAMES),
        default: "auto",
        reload: false,
        help: "Meaning of the buffer_type in a frame",
        details: "seed: 2 is L1_SMALL, 3 is TRACE. metal, which is tt-metal's own order: 2 is host memory, \
                  3 is L1_SMALL, 4 is TRACE. auto: seed in frames of 72 and 112 bytes, metal in frames of \
                  144.",
        apply: |config, text| SocketBufferTypes::parse(text).map(|order| config.socket_buffer_types = order),
        show: |config| quoted(config.socket_buffer_types.name()),
    },
    limits::CLIENTS_MAX,
    limits::USER_CLIENTS_MAX,
    limits::USER_PROCESSES_MAX,
    limits::BUFFERS_MAX,
    limits::USER_BUFFERS_MAX,
    limits::MEMORY_HIGH,
    limits::CONNECTION_REPORTS,
    limits::USER_REPORTS,
    limits::RING_MEMORY,
    Setting {
        key: "ingest_threads",
        flag: "ingest-threads",
        section: "Client socket",
        value_name: "N",
        kind: Kind::Number(THREADS),
        default: "auto",
        reload: false,
        help: "Threads that read reports",
        details: "1 to 64. auto takes 8, which use no more of the processors than fewer do: they get their turn \
                  sooner where clients keep every core busy.",
        apply: |config, text| {
            let threads = if text == "auto" { Ok(super::INGEST_THREADS_AUTO) } else { THREADS.parse(text) };
            threads.map(|count| config.ingest_threads = count)
        },
        show: |config| config.ingest_threads.to_string(),
    },
    Setting {
        key: "trust_claimed_pids",
        flag: "trust-claimed-pids",
        section: "Client socket",
        value_name: "true|false",
        kind: Kind::Switch,
        default: "false",
        reload: false,
        help: "Believe the process id that a frame claims",
        details: "For simulations in which one process speaks for many. Without it a claim counts only for a \
                  live process of the same user; everything else is charged to the client itself.",
        apply: |config, text| values::switch(text).map(|on| config.trust_claimed_pids = on),
        show: |config| config.trust_claimed_pids.to_string(),
    },
    Setting {
        key: "listen",
        flag: "listen",
        section: "HTTP",
        value_name: "ADDRESS",
        kind: Kind::List(|config, over| config.listen = over.listen),
        default: "127.0.0.1:8080",
        reload: false,
        help: "Address for /metrics, the API and the page",
        details: "ADDRESS:PORT, or unix:PATH for a Unix socket. Repeat it to listen on several. The default can \
                  be reached from this host only; 0.0.0.0:8080 or [::]:8080 serves everyone who can reach the host. \
                  Port 0 takes any free port. Sockets that systemd passes under the name ttmem-http take the place of \
                  all of them.",
        apply: |config, text| {
            let address = values::listen_address(text)?;
            if config.listen.contains(&address) && !address.is_any_port() {
                return Err(format!("{text:?} is given twice; keep one of the two"));
            }
            config.listen.push(address);
            Ok(())
        },
        show: |config| {
            let listen: Vec<String> =
                config.listen.iter().map(|address| quoted(&address.to_string())).collect();
            format!("[{}]", listen.join(", "))
        },
    },
    Setting {
        key: "listen_mode",
        flag: "listen-mode",
        section: "HTTP",
        value_name: "MODE",
        kind: Kind::Mode,
        default: "0660",
        reload: false,
        help: "Permissions of the Unix sockets that HTTP is served on, in octal",
        details: "To connect, a client needs permission to write. The default admits the daemon's user and group.",
        apply: |config, text| values::mode(text).map(|mode| config.listen_mode = mode),
        show: |config| quoted(&format!("{:04o}", config.listen_mode)),
    },
    Setting {
        key: "listen_group",
        flag: "listen-group",
        section: "HTTP",
        value_name: "GROUP",
        kind: Kind::Text,
        default: "none",
        reload: false,
        help: "Group of the Unix sockets that HTTP is served on, by name or number",
        details: "none: the group that the daemon runs as.",
        apply: |config, text| {
            values::unless_none(text, values::label).map(|group| config.listen_group = group)
        },
        show: |config| quoted(config.listen_group.as_deref().unwrap_or("none")),
    },
    Setting {
        key: "web_config",
        flag: "web-config",
        section: "HTTP",
        value_name: "FILE",
        kind: Kind::Path,
        default: "none",
        reload: false,
        help: "YAML file with TLS, users, headers and a rate limit for HTTP",
        details: "The format is that of Prometheus's exporters (--web.config.file); docs/web-config.md describes it. \
                  The file and the certificates that it names are read again whenever they change. none: everybody \
                  may ask, without encryption.",
        apply: |config, text| values::unless_none(text, values::path).map(|path| config.web_config = path),
        show: |config| match &config.web_config {
            Some(path) => quoted(&path.to_string_lossy()),
            None => quoted("none"),
        },
    },
    limits::SANDBOX,
    Setting {
        key: "log_format",
        flag: "log-format",
        section: "Log",
        value_name: "FORMAT",
        kind: Kind::Choice(LogFormat::NAMES),
        default: "auto",
        reload: false,
        help: "Form of the log on standard error",
        details: "auto: text on a terminal, JSON otherwise.",
        apply: |config, text| LogFormat::parse(text).map(|format| config.log_format = format),
        show: |config| quoted(config.log_format.name()),
    },
    Setting {
        key: "log_level",
        flag: "log-level",
        section: "Log",
        value_name: "LEVEL",
        kind: Kind::Choice(LogLevel::NAMES),
        default: "info",
        reload: true,
        help: "Least severe level that is logged",
        details: "",
        apply: |config, text| LogLevel::parse(text).map(|level| config.log_level = level),
        show: |config| quoted(config.log_level.name()),
    },
    Setting {
        key: "shm_dir",
        flag: "shm-dir",
        section: "Other sources",
        value_name: "DIR",
        kind: Kind::Path,
        default: "/dev/shm",
        reload: false,
        help: "Where tt-metal publishes its memory regions",
        details: "none: do not read them.",
        apply: |config, text| values::unless_none(text, values::path).map(|dir| config.shm_dir = dir),
        show: |config| shown_path(config.shm_dir.as_deref()),
    },
    Setting {
        key: "shm_interval_ms",
        flag: "shm-interval-ms",
        section: "Other sources",
        value_name: "MS",
        kind: Kind::Number(SHM_INTERVAL_MS),
        default: "100",
        reload: false,
        help: "Milliseconds between two readings of the regions",
        details: "10 to 60000. A peak that lasts for less than this may be missed.",
        apply: |config, text| SHM_INTERVAL_MS.parse(text).map(|interval| config.shm_interval_ms = interval),
        show: |config| config.shm_interval_ms.to_string(),
    },
    Setting {
        key: "container_log_dir",
        flag: "container-log-dir",
        section: "Other sources",
        value_name: "DIR",
        kind: Kind::Path,
        default: "/var/log/containers",
        reload: false,
        help: "Where the kubelet has an entry for every container, which tells its pod and namespace",
        details: "Only names of entries are read. Without the directory, or with none, a process's container and pod are \
                  known by their ids alone.",
        apply: |config, text| {
            values::unless_none(text, values::path).map(|dir| config.container_log_dir = dir)
        },
        show: |config| shown_path(config.container_log_dir.as_deref()),
    },
    Setting {
        key: "kubelet_pods_socket",
        flag: "kubelet-pods-socket",
        section: "Other sources",
        value_name: "PATH",
        kind: Kind::Path,
        default: "/var/lib/kubelet/pods-api/pods-api.sock",
        reload: false,
        help: "Unix socket of the kubelet's pods API, which tells a container's pod and namespace",
        details: "Kubelets from 1.37 on have it. It is asked for containers that container_log_dir does not name, and                   once a minute. A socket that is not there is a host without it. none: do not ask.",
        apply: |config, text| {
            values::unless_none(text, values::path).map(|path| config.kubelet_pods_socket = path)
        },
        show: |config| shown_path(config.kubelet_pods_socket.as_deref()),
    },
    Setting {
        key: "kubelet_resources_socket",
        flag: "kubelet-resources-socket",
        section: "Other sources",
        value_name: "PATH",
        kind: Kind::Path,
        default: "/var/lib/kubelet/pod-resources/kubelet.sock",
        reload: false,
        help: "Unix socket of the kubelet's pod-resources API, which tells the devices that containers were given",
        details: "From it come the containers that were given a device, whether they use it or not. A socket that is                   not there is a host without it. none: do not ask.",
        apply: |config, text| {
            values::unless_none(text, values::path).map(|path| config.kubelet_resources_socket = path)
        },
        show: |config| shown_path(config.kubelet_resources_socket.as_deref()),
    },
    Setting {
        key: "process_environment",
        flag: "process-environment",
        section: "Other sources",
        value_name: "true|false",
        kind: Kind::Switch,
        default: "false",
        reload: false,
        help: "Look for a Slurm job in the environment of processes whose control group names none",
        details: "Switch it on where Slurm does not track jobs by control groups. Only SLURM_JOB_ID and SLURM_STEP_ID                   are kept; they are what the process's user has written, and nothing vouches for them.",
        apply: |config, text| values::switch(text).map(|on| config.process_environment = on),
        show: |config| config.process_environment.to_string(),
    },
    Setting {
        key: "driver_proc_dir",
        flag: "driver-proc-dir",
        section: "Other sources",
        value_name: "DIR",
        kind: Kind::Path,
        default: "/proc/driver/tenstorrent",
        reload: false,
        help: "Where the kernel driver lists the processes that hold a device open",
        details: "From it come the processes that hold a device and report nothing. A directory that is not \
                  there is a host without the driver. none: do not look.",
        apply: |config, text| values::unless_none(text, values::path).map(|dir| config.driver_proc_dir = dir),
        show: |config| shown_path(config.driver_proc_dir.as_deref()),
    },
    Setting {
        key: "driver_sys_dir",
        flag: "driver-sys-dir",
        section: "Other sources",
        value_name: "DIR",
        kind: Kind::Path,
        default: "/sys/class/tenstorrent",
        reload: false,
        help: "Where the kernel driver describes its devices",
        details: "From it come card type, serial number, unique id, PCI address and firmware; a card of a \
                  known product also has its capacities. none: do not look.",
        apply: |config, text| values::unless_none(text, values::path).map(|dir| config.driver_sys_dir = dir),
        show: |config| shown_path(config.driver_sys_dir.as_deref()),
    },
    Setting {
        key: "demo",
        flag: "demo",
        section: "Other sources",
        value_name: "true|false",
        kind: Kind::Switch,
        default: "false",
        reload: false,
        help: "Run the demonstration workload as well",
        details: "Real client processes, which load, serve, leak and die. No device is needed.",
        apply: |config, text| values::switch(text).map(|on| config.demo = on),
        show: |config| config.demo.to_string(),
    },
    Setting {
        key: "state_dir",
        flag: "state-dir",
        section: "State",
        value_name: "DIR",
        kind: Kind::Path,
        default: "none",
        reload: false,
        help: "Directory of what outlives the daemon",
        details: "The history, and a checkpoint and a journal, from which a daemon that is started again, even after a kill, \
                  goes on where the one before it ended. It is made if it is not there, and one daemon can \
                  use it at a time. Where systemd or another supervisor keeps descriptors, connections stay \
                  open meanwhile. none: what is known ends with the daemon.",
        apply: |config, text| values::unless_none(text, values::path).map(|dir| config.state_dir = dir),
        show: |config| shown_path(config.state_dir.as_deref()),
    },
    Setting {
        key: "state_journal_bytes_max",
        flag: "state-journal-bytes-max",
        section: "State",
        value_name: "BYTES",
        kind: Kind::Number(JOURNAL_BYTES),
        default: "134217728",
        reload: false,
        help: "Bytes that the journal may take",
        details: "16777216 to 1073741824. At half of it a checkpoint is made and the journal begins anew. \
                  Checkpoints come beside it: about 20 bytes for each live buffer.",
        apply: |config, text| JOURNAL_BYTES.parse(text).map(|bytes| config.state_journal_bytes_max = bytes),
        show: |config| config.state_journal_bytes_max.to_string(),
    },
    otlp::ENDPOINT,
    otlp::PROTOCOL,
    otlp::SIGNALS,
    otlp::HEADERS,
    otlp::TIMEOUT,
    otlp::COMPRESSION,
    otlp::CERTIFICATE,
    otlp::CLIENT_CERTIFICATE,
    otlp::CLIENT_KEY,
    otlp::METRIC_INTERVAL,
    otlp::TEMPORALITY,
    otlp::HISTOGRAMS,
    otlp::QUEUE_ITEMS_ROW,
    otlp::QUEUE_BYTES_ROW,
    otlp::BATCH_ITEMS_ROW,
    otlp::BATCH_DELAY,
    otlp::RETRY,
    otlp::SHUTDOWN,
    spans::SIZE_MIN,
    spans::LIFETIME_MIN,
    spans::PER_SECOND_MAX,
    spans::BURST_MIN,
    spans::BURST_GAP,
    spans::INTERVAL,
    history::KEEP_1S,
    history::KEEP_10S,
    history::KEEP_60S,
    history::SIZE_MAX,
    Setting {
        key: "process_linger_seconds",
        flag: "process-linger-seconds",
        section: "Processes and devices",
        value_name: "SECONDS",
        kind: Kind::Number(LINGER_SECONDS),
        default: "300",
        reload: true,
        help: "Seconds that an ended process's series stay",
        details: "0 to 86400. The default is Prometheus's staleness interval, so that every scraper sees \
                  the last values. The device's counters keep what the process did in any case.",
        apply: |config, text| {
            LINGER_SECONDS.parse(text).map(|seconds| config.process_linger_seconds = seconds)
        },
        show: |config| config.process_linger_seconds.to_string(),
    },
    Setting {
        key: "processes_max",
        flag: "processes-max",
        section: "Processes and devices",
        value_name: "COUNT",
        kind: Kind::Number(PROCESSES),
        default: "1000",
        reload: false,
        help: "Processes with series of their own on a device, at most",
        details: "1 to 100000. Those with the highest peaks have them; the others are summed into \
                  ttmem_process_suppressed_memory_usage_bytes, so that sums stay exact.",
        apply: |config, text| PROCESSES.parse(text).map(|count| config.processes_max = count),
        show: |config| config.processes_max.to_string(),
    },
    Setting {
        key: "device",
        flag: "device",
        section: "Processes and devices",
        value_name: "INDEX=PRODUCT",
        kind: Kind::Devices,
        default: "",
        reload: true,
        help: "Product at a device index, for its capacity",
        details: "Repeat it for each chip, or give a range: 0-7=t3k. A row replaces the row of the same \
                  index from a weaker source. Products: n150, n300, t3k, galaxy, p100, p150, p300, 8xp150, \
                  blackhole-galaxy. Exact bytes and labels go into a [[device]] table of the file.",
        apply: |config, text| device::add_written(&mut config.devices, text),
        show: |config| written::devices(&config.devices),
    },
];

fn shown_path(path: Option<&Path>) -> String {
    quoted(&path.map_or("none".into(), Path::to_string_lossy))
}
