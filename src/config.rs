//! The configuration: what the operator says by flags, environment variables and a TOML file becomes one
//! `Config`.
//!
//! The idea is one table, `SETTINGS`: flags, variables, keys, help and documentation are all made from its
//! rows, and a value goes through the same function wherever it came from. What comes out is checked: nothing
//! behind it asks again.

mod device;
mod error;
mod file;
mod flags;
mod history;
mod limits;
mod origin;
mod otlp;
mod products;
mod settings;
mod spans;
mod values;
mod web;
mod written;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use device::{DEVICE_KEYS, DeviceConfig, DeviceKey};
pub use error::{ConfigError, Place, Problem};
pub use flags::arguments;
pub use history::{HistoryConfig, HistoryLimits};
pub use origin::{Loaded, Origin};
pub use otlp::{OtlpConfig, OtlpEndpoint, OtlpHeaders, OtlpSignal};
pub use products::{PRODUCTS, Product};
pub use settings::{Kind, SETTINGS, Setting};
pub use spans::SpansConfig;
pub use values::{
    Arch, ListenAddress, LogFormat, LogLevel, OtlpCompression, OtlpHistograms, OtlpProtocol, OtlpTemporality,
    Range, Sandbox, SocketBufferTypes, SocketLayout,
};
pub use web::{
    CIPHER_SUITES, ClientAuth, Named, Pem, PemSource, RateLimit, SYSTEM_AUTHORITIES, TlsConfig, TlsVersions,
    User, WebConfig,
};
pub use written::{differences, example, markdown};

/// The socket that existing clients report to.
pub const DEFAULT_SOCKET: &str = "/tmp/tt_allocation_server.sock";

/// The port of /metrics and the page when none is said.
pub const DEFAULT_PORT: u16 = 8080;

/// As many as clients are busy at once on a host with eight cards. Where clients keep every core busy, the scheduler gives each thread its
/// turn among them: eight threads on two cores took reports one and a half times as fast as two, for less processor time each, because
/// their reads found more. A thread that waits costs its stack.
const INGEST_THREADS_AUTO: u32 = 8;

/// Two processes with as many as one may have, and three times what ten million buffers need: two gigabytes.
const BUFFERS_MAX: u64 = 1 << 25;

/// Of what all may have together, this part is for those who are not the greediest user: an eighth.
const OTHERS_SHARE: u64 = 8;

/// Everything the daemon was told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect; short enough for a Unix socket's address.
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub socket_mode: u32,
    /// Group of the socket, by name or number; the daemon's own if none.
    pub socket_group: Option<String>,
    /// The size of the frames that connections speak.
    pub socket_layout: SocketLayout,
    /// How a frame's `buffer_type` is read.
    pub socket_buffer_types: SocketBufferTypes,
    /// Connections at once, at least one.
    pub clients_max: u32,
    /// Connections of one user at once, at least one; a part of all if none is said.
    pub user_clients_max: Option<u32>,
    /// Processes of one user at once, at least one; a part of as many as there may be clients if none is said.
    pub user_processes_max: Option<u32>,
    /// Live buffers at once that are known singly.
    pub buffers_max: u64,
    /// Those of one user's processes; a part of all if none is said.
    pub user_buffers_max: Option<u64>,
    /// Bytes of the daemon's own memory at which details are given up; 0 for no such mark, none for what its control group leaves.
    pub memory_high_bytes: Option<u64>,
    /// Reports that a connection may bring in a second; 0 for as many as come.
    pub connection_reports_per_second_max: u64,
    /// Reports that a user's connections may bring in a second; 0 for as many as come.
    pub user_reports_per_second_max: u64,
    /// Bytes that the rings of one user's processes may take; 0 for no rings.
    pub ring_memory_max_bytes: u64,
    /// Threads that read reports, at least one.
    pub ingest_threads: u32,
    /// Whether a frame's process id is believed in place of the kernel's.
    pub trust_claimed_pids: bool,
    /// Where HTTP is served: at least one place, none twice.
    pub listen: Vec<ListenAddress>,
    /// Permission bits of the Unix sockets among them.
    pub listen_mode: u32,
    /// Their group, by name or number; the daemon's own if none.
    pub listen_group: Option<String>,
    /// TLS, users, headers and a rate limit for HTTP; none of them if there is no such file.
    pub web_config: Option<PathBuf>,
    /// Devices that the operator describes, by ascending index, none twice.
    pub devices: Vec<DeviceConfig>,
    /// Where tt-metal publishes its regions; none if they are not to be read.
    pub shm_dir: Option<PathBuf>,
    /// Where the kernel driver lists processes; none if it is not to be read.
    pub driver_proc_dir: Option<PathBuf>,
    /// Where the kernel driver describes devices; none if it is not to be read.
    pub driver_sys_dir: Option<PathBuf>,
    /// Where state is kept that outlives the daemon; none if it is to forget.
    pub state_dir: Option<PathBuf>,
    /// Bytes that the journal in it may take.
    pub state_journal_bytes_max: u64,
    /// Milliseconds between two readings of the regions.
    pub shm_interval_ms: u64,
    /// Where the kubelet has an entry for every container; none if their names are not to be looked up.
    pub container_log_dir: Option<PathBuf>,
    /// The socket of the kubelet's pods API; none if it is not to be asked.
    pub kubelet_pods_socket: Option<PathBuf>,
    /// The socket of the kubelet's pod-resources API; none if it is not to be asked.
    pub kubelet_resources_socket: Option<PathBuf>,
    /// Whether processes' environments are read for the Slurm job that they name.
    pub process_environment: bool,
    /// Seconds that the series of an ended process stay.
    pub process_linger_seconds: u64,
    /// Processes that have series of their own, per device.
    pub processes_max: u32,
    /// What the daemon gives up before it serves anybody.
    pub sandbox: Sandbox,
    /// What goes to an OpenTelemetry collector.
    pub otlp: OtlpConfig,
    /// What is told as spans.
    pub spans: SpansConfig,
    /// How much of the past is kept there.
    pub history_limits: HistoryLimits,
    /// Whether the demonstration workload runs as well.
    pub demo: bool,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// The least severe level that is logged.
    pub log_level: LogLevel,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            socket_mode: 0o666,
            socket_group: None,
            socket_layout: SocketLayout::Auto,
            socket_buffer_types: SocketBufferTypes::Auto,
            clients_max: 16_384,
            user_clients_max: None,
            user_processes_max: None,
            buffers_max: BUFFERS_MAX,
            user_buffers_max: None,
            memory_high_bytes: None,
            connection_reports_per_second_max: 1_000_000,
            user_reports_per_second_max: 4_000_000,
            ring_memory_max_bytes: 1 << 30,
            ingest_threads: INGEST_THREADS_AUTO,
            trust_claimed_pids: false,
            listen: vec![ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))],
            listen_mode: 0o660,
            listen_group: None,
            web_config: None,
            devices: Vec::new(),
            shm_dir: Some(PathBuf::from("/dev/shm")),
            driver_proc_dir: Some(PathBuf::from("/proc/driver/tenstorrent")),
            driver_sys_dir: Some(PathBuf::from("/sys/class/tenstorrent")),
            state_journal_bytes_max: 128 << 20,
            shm_interval_ms: 100,
            container_log_dir: Some(PathBuf::from("/var/log/containers")),
            kubelet_pods_socket: Some(PathBuf::from("/var/lib/kubelet/pods-api/pods-api.sock")),
            kubelet_resources_socket: Some(PathBuf::from("/var/lib/kubelet/pod-resources/kubelet.sock")),
            process_environment: false,
            process_linger_seconds: 300,
            processes_max: 1000,
            sandbox: Sandbox::Full,
            otlp: OtlpConfig::default(),
            spans: SpansConfig::default(),
            state_dir: None,
            history_limits: HistoryLimits::default(),
            demo: false,
            log_format: LogFormat::Auto,
            log_level: LogLevel::Info,
        }
    }
}

impl Config {
    /// Connections that one user may have at once.
    pub fn user_clients_max(&self) -> u32 {
        self.user_clients_max.unwrap_or_else(|| share_of_one(self.clients_max.into()) as u32)
    }

    /// Processes that one user may have at once, those beyond its connections.
    pub fn user_processes_max(&self) -> u32 {
        self.user_processes_max.unwrap_or_else(|| share_of_one(self.clients_max.into()) as u32)
    }

    /// Live buffers that one user's processes may have at once.
    pub fn user_buffers_max(&self) -> u64 {
        self.user_buffers_max.unwrap_or_else(|| share_of_one(self.buffers_max))
    }
}

/// What one user may have of that many.
fn share_of_one(all: u64) -> u64 {
    all - all / OTHERS_SHARE
}

/// The keys whose values differ although they take effect only at a start.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    SETTINGS
        .iter()
        .filter(|setting| !setting.reload && (setting.show)(old) != (setting.show)(new))
        .map(|setting| setting.key)
        .collect()
}

#[cfg(test)]
mod tests;
