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
pub use origin::{Loaded, Origin};
pub use otlp::{OtlpConfig, OtlpEndpoint, OtlpHeaders, OtlpSignal};
pub use products::{PRODUCTS, Product};
pub use settings::{Kind, SETTINGS, Setting};
pub use spans::SpansConfig;
pub use values::{
    Arch, ListenAddress, LogFormat, LogLevel, OtlpCompression, OtlpHistograms, OtlpProtocol, OtlpTemporality,
    Range, SocketBufferTypes, SocketLayout,
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
    /// Seconds that the series of an ended process stay.
    pub process_linger_seconds: u64,
    /// Processes that have series of their own, per device.
    pub processes_max: u32,
    /// What goes to an OpenTelemetry collector.
    pub otlp: OtlpConfig,
    /// What is told as spans.
    pub spans: SpansConfig,
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
            process_linger_seconds: 300,
            processes_max: 1000,
            otlp: OtlpConfig::default(),
            spans: SpansConfig::default(),
            state_dir: None,
            demo: false,
            log_format: LogFormat::Auto,
            log_level: LogLevel::Info,
        }
    }
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
