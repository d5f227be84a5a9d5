//! The daemon: binds, spawns, waits for signals, drains. Everything that it starts is written elsewhere.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry as LogRegistry, reload};

use crate::activation::{Passed, PassedHttp};
use crate::cli::demo::Demo;
use crate::cli::screen::{self, Style};
use crate::clock;
use crate::config::{
    Config, ConfigError, DeviceConfig, ListenAddress, LogFormat, LogLevel, Origin, PRODUCTS, Sandbox,
    SpansConfig, restart_needed,
};
use crate::heap;
use crate::ingest::{self, Devices, Ingest, Memory};
use crate::registry::{Detail, FeedPolicy, Pages, Registry, Time};
use crate::sandbox::{self, Layer, Scope};
use crate::sinks::history::{Archive, History};
use crate::sinks::http::{self, DaemonMetrics, Listener, Live, Sources, Web};
use crate::sinks::otlp::{Exported, Otlp, Span};
use crate::sinks::sampler::Sampler;
use crate::sinks::state;
use crate::sinks::traces::{self, RecorderPolicy, Traces};
use crate::sinks::{analyst, pressure};
use crate::socket::Socket;
use crate::views::json;
use crate::views::trace::exemplar;

/// Threads that answer HTTP: one that encodes a large scrape leaves another for the probes.
const HTTP_THREADS: usize = 2;
/// How often ended processes are looked through for those that have been shown long enough.
const RETIRE_INTERVAL: Duration = Duration::from_secs(1);
/// How often `serve --demo` draws its picture.
const DEMO_INTERVAL: Duration = Duration::from_secs(5);

/// Devices that `serve --demo` fills, and what they are unless the configuration says something else.
const DEMO_DEVICES: u16 = 2;
const DEMO_PRODUCT: &str = "n150";

const NS_PER_MS: u64 = 1_000_000;

type LogLevelHandle = reload::Handle<LevelFilter, LogRegistry>;

/// Runs until told to stop.
pub fn run(origin: &Origin) -> anyhow::Result<()> {
    heap::give_back_what_is_freed();
    let loaded = origin.load()?;
    let log_level = start_log(&loaded.config)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    raise_open_files_limit();
    let passed = Passed::from_environment()?;
    make_state_directory(&loaded.config);
    // While there is one thread: those that it starts have given up the same.
    let sandbox = enter_sandbox(&loaded.config, &passed);
    let memory = Memory::open(&loaded.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("ttmem-http")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let served = runtime.block_on(serve(origin, loaded.config, passed, memory, &sandbox, &log_level));
    // A password that is being checked is nobody's any more.
    runtime.shutdown_background();
    served
}

/// What is worth saying about a web configuration file that the daemon would accept.
pub fn check_web_config(path: &Path) -> Result<Vec<String>, ConfigError> {
    Web::check(path)
}

async fn serve(
    origin: &Origin,
    config: Config,
    passed: Passed,
    memory: Memory,
    sandbox: &[(&str, bool)],
    log_level: &LogLevelHandle,
) -> anyhow::Result<()> {
    let journal = memory.journal();
    let registry = Arc::new(new_registry(&config, memory.started_ns()));
    let devices = Devices::new(Arc::clone(&registry));
    devices.configure(&described_devices(&config));
    let started_seconds = clock::unix_ns() as f64 / 1e9;
    let metrics = DaemonMetrics::new(env!("CARGO_PKG_VERSION"), env!("TTMEM_REVISION"), started_seconds)
        .context("cannot make metrics")?;
    metrics.reloaded(started_seconds);
    metrics.sandboxed(sandbox).context("cannot make metrics")?;
    if config.state_dir.is_some() {
        state::show(journal, &metrics).context("cannot make metrics")?;
    }
    let web = Web::load(config.web_config.as_deref())?;
    let host = Arc::new(traces::host());
    let processes_max = config.processes_max as usize;
    let archive = config.history().map(|history| Archive::new(&history.directory));
    let (live, telling) = Live::new(Arc::clone(&host), archive.is_some());
    let sources =
        Sources::new(Arc::clone(&registry), metrics, processes_max, web, Arc::clone(&host), archive, live);
    let sources = Arc::new(sources);
    let exported = exemplify(&registry);
    let otlp = config.otlp.is_on().then(|| Otlp::start(&config, &sources, exported)).transpose()?;
    let outboxes = otlp.as_ref().map(|otlp| otlp.outboxes().clone()).filter(|_| has_listener(&config));
    let traces = outboxes.map(|outboxes| {
        Traces::start(Arc::clone(&registry), Arc::clone(&host), recorder_policy(&config.spans), outboxes)
    });
    let traces = traces.transpose().context("cannot start the recorder of traces")?;

    let history = config.history().map(|history| History::start(&history, &sources)).transpose()?;
    let (history, remembering) = history.unzip();
    let judging =
        [pressure::listener(Arc::clone(&registry), &config), analyst::listener(Arc::clone(&registry))];
    let watching = remembering.into_iter().chain(judging).chain([telling]).collect();
    let sampler = Sampler::start(Arc::clone(&registry), watching).context("cannot start the sampler")?;

    // Signals first: one that comes while the rest starts must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let socket = match passed.allocations {
        Some(listener) => Socket::adopt(listener).context("socket")?,
        None => Socket::bind("socket", &config.socket, config.socket_mode, config.socket_group.as_deref())?,
    };
    let socket_path = socket.path().to_owned();
    let listeners = listeners(&config, passed.http).await?;
    let ingest =
        Ingest::start(&config, Arc::clone(&registry), Arc::clone(&devices), socket, memory, passed.kept)
            .context("cannot start ingest")?;
    info!(path = %socket_path.display(), "taking allocation reports");
    let layers: Vec<&str> =
        sandbox.iter().filter(|(_, is_active)| *is_active).map(|(name, _)| *name).collect();
    info!(layers = layers.join(" "), "sandboxed");

    let (stop, stopping) = watch::channel(false);
    for listener in &listeners {
        info!(address = listener.name(), "listening");
    }
    let server = tokio::spawn(http::serve(listeners, Arc::clone(&sources), stopping));
    let demo = config.demo.then(|| Demo::start(&socket_path, DEMO_DEVICES)).transpose()?;

    tell_systemd(&[NotifyState::Ready]);

    let mut daemon = Running {
        origin,
        started_with: &config,
        config: config.clone(),
        registry,
        devices,
        sources,
        log_level,
    };
    let mut retire = tokio::time::interval(RETIRE_INTERVAL);
    let mut draw = tokio::time::interval(DEMO_INTERVAL);
    let is_watched = sd_notify::watchdog_enabled().is_some();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                tell_systemd(&reloading());
                daemon.reload();
                daemon.sources.web.reload(&daemon.sources.metrics);
                tell_systemd(&[NotifyState::Ready]);
            }
            _ = retire.tick() => {
                daemon.retire();
                // Only a daemon that can still go through its processes is alive.
                if is_watched {
                    tell_systemd(&[NotifyState::Watchdog]);
                }
            }
            _ = draw.tick(), if demo.is_some() => daemon.draw(),
        }
    }
    info!("stopping");
    tell_systemd(&[NotifyState::Stopping]);
    if let Some(demo) = demo {
        demo.stop();
    }
    ingest.drain().await;
    sampler.stop().await;
    if let Some(history) = history {
        history.stop().await;
    }
    if let Some(traces) = traces {
        traces.stop().await;
    }
    if let Some(otlp) = otlp {
        otlp.stop().await;
    }
    stop.send_replace(true);
    server.await.context("the HTTP server failed")?;
    info!("stopped");
    Ok(())
}

/// Makes what the sandbox is to let through. Whoever uses the directory says what is wrong with it.
fn make_state_directory(config: &Config) {
    if let Some(directory) = &config.state_dir {
        let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    }
}

/// Gives up what the configuration says, and gives which layers are in force.
fn enter_sandbox(config: &Config, passed: &Passed) -> Vec<(&'static str, bool)> {
    let scope = match config.sandbox {
        // Its workers are programs that it starts.
        _ if config.demo => None,
        // Landlock would take the environments of other processes away.
        Sandbox::Full if config.process_environment => Some(Scope::Calls),
        Sandbox::Full => Some(Scope::Full),
        Sandbox::Calls => Some(Scope::Calls),
        Sandbox::Off => None,
    };
    let Some(scope) = scope else {
        warn!("the sandbox is off: whoever takes over the daemon can do all that its user can");
        return Layer::ALL.iter().map(|layer| (layer.name(), false)).collect();
    };
    let outcomes = sandbox::enter(scope, &changed_directories(config, passed));
    let mut layers = Vec::new();
    for (layer, outcome) in outcomes {
        if let Some(Err(error)) = &outcome {
            warn!(layer = layer.name(), %error, "a layer of the sandbox is missing");
        }
        layers.push((layer.name(), matches!(outcome, Some(Ok(())))));
    }
    layers
}

/// Where the daemon makes and removes files: beside the sockets that it makes itself, and where its state lies.
fn changed_directories(config: &Config, passed: &Passed) -> Vec<PathBuf> {
    let socket = passed.allocations.is_none().then_some(&config.socket);
    let listens =
        config.listen.iter().filter(|_| passed.http.is_empty()).filter_map(|address| match address {
            ListenAddress::Unix(path) => Some(path),
            ListenAddress::Tcp(_) => None,
        });
    let directory = |path: &PathBuf| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let state = config.state_dir.iter().cloned();
    socket.into_iter().chain(listens).map(directory).chain(state).collect()
}

/// The memory that monitors read. Without it everything else works, and they ask.
fn pages() -> Option<Pages> {
    let pages = Pages::create();
    if let Err(error) = &pages {
        warn!(%error, "no stats page: this system makes no sealed memory (memfd_create, Linux 5.1); monitors have to ask over HTTP");
    }
    pages.ok()
}

/// An empty registry; it tells and remembers what happens if somebody wants to hear it.
fn new_registry(config: &Config, started_ns: Option<u64>) -> Registry {
    let started_ns = started_ns.unwrap_or_else(clock::monotonic_ns);
    let registry = Registry::with_pages(started_ns, pages()).bounded(ingest::buffer_limits(config));
    let registry = if config.history().is_some() { registry.remembered() } else { registry };
    if !has_listener(config) {
        return registry;
    }
    let SpansConfig { size_bytes_min, lifetime_ms_min, burst_buffers_min, burst_gap_ms, .. } = config.spans;
    registry.told(FeedPolicy {
        size_bytes_min,
        lifetime_ns_min: lifetime_ms_min.saturating_mul(NS_PER_MS),
        burst_gap_ns: burst_gap_ms.saturating_mul(NS_PER_MS),
        burst_buffers_min,
    })
}

/// Whether spans or log records are exported.
fn has_listener(config: &Config) -> bool {
    [&config.otlp.traces, &config.otlp.logs].iter().any(|signal| signal.active_endpoint().is_some())
}

fn recorder_policy(spans: &SpansConfig) -> RecorderPolicy {
    RecorderPolicy {
        spans_per_second_max: spans.per_second_max,
        interval_ns: spans.interval_seconds.saturating_mul(1000 * NS_PER_MS),
    }
}

/// What is done with spans that a collector has: from then on they may be pointed to.
fn exemplify(registry: &Arc<Registry>) -> Exported<Span> {
    let registry = Arc::clone(registry);
    Box::new(move |spans| {
        let exemplars: Vec<_> = spans.iter().filter_map(exemplar).collect();
        registry.exemplify(&exemplars);
    })
}

/// Tells systemd how far the daemon is. Where something else has started it, nothing is sent.
fn tell_systemd(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell systemd; it may take the daemon for one that hangs");
    }
}

/// The time tells systemd 253 and later which READY belongs to it (Type=notify-reload).
fn reloading() -> Vec<NotifyState<'static>> {
    let now = NotifyState::monotonic_usec_now();
    std::iter::once(NotifyState::Reloading).chain(now).collect()
}

/// The places where HTTP is served: those that were passed, or else those that are configured.
async fn listeners(config: &Config, passed: Vec<PassedHttp>) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    if passed.is_empty() {
        for address in &config.listen {
            let bound = Listener::bind(address, config.listen_mode, config.listen_group.as_deref());
            listeners.push(bound.await?);
        }
    }
    for socket in passed {
        listeners.push(match socket {
            PassedHttp::Tcp(listener) => Listener::on_tcp(listener)?,
            PassedHttp::Unix(listener) => Listener::on_socket(Socket::adopt(listener)?)?,
        });
    }
    Ok(listeners)
}

/// What the running daemon's signals and intervals work on.
struct Running<'a> {
    origin: &'a Origin,
    /// What cannot change without a restart is as it was then.
    started_with: &'a Config,
    /// What can change is as it was last read.
    config: Config,
    registry: Arc<Registry>,
    devices: Arc<Devices>,
    sources: Arc<Sources>,
    log_level: &'a LogLevelHandle,
}

impl Running<'_> {
    /// Reads the configuration again; one that is wrong changes nothing.
    fn reload(&mut self) {
        let loaded = match self.origin.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                self.sources.metrics.reload_failed();
                return error!(%error, "configuration refused; the one before stays in force");
            }
        };
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        for key in restart_needed(self.started_with, &loaded.config) {
            warn!(key, "changed, but takes effect only when the daemon is started again");
        }
        if let Err(error) = self.log_level.reload(level_filter(loaded.config.log_level)) {
            error!(%error, "cannot change the log's level");
        }
        self.devices.configure(&described_devices(&loaded.config));
        self.config = loaded.config;
        self.sources.metrics.reloaded(clock::unix_ns() as f64 / 1e9);
        info!("configuration reloaded");
    }

    fn retire(&self) {
        self.registry.review_devices(clock::monotonic_ns());
        let linger_seconds = self.config.process_linger_seconds;
        let is_kept = self.registry.events().details().keeps(Detail::EndedProcesses);
        let linger = Duration::from_secs(if is_kept { linger_seconds } else { 0 });
        self.registry.retire(clock::monotonic_ns(), u64::try_from(linger.as_nanos()).unwrap_or(u64::MAX));
    }

    fn draw(&self) {
        let (monotonic_ns, unix_ns) = clock::now();
        let snapshot = self.registry.snapshot(Time { monotonic_ns, unix_ns });
        let processes = json::Processes::of(&snapshot, &self.sources.host, |_| true).processes;
        let picture = screen::render(&json::Devices::of(&snapshot), &processes, &Style::of_terminal());
        // Nobody may be looking: the daemon goes on.
        let _ = crate::cli::print(&(picture + "\n"));
    }
}

/// The devices that the configuration describes; the demo's, where it describes none.
fn described_devices(config: &Config) -> Vec<DeviceConfig> {
    if !config.demo || !config.devices.is_empty() {
        return config.devices.clone();
    }
    let product = PRODUCTS.iter().find(|product| product.name == DEMO_PRODUCT);
    (0..DEMO_DEVICES).map(|index| DeviceConfig { index, product, ..DeviceConfig::default() }).collect()
}

fn start_log(config: &Config) -> anyhow::Result<LogLevelHandle> {
    let (filter, handle) = reload::Layer::new(level_filter(config.log_level));
    let is_text = match config.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = LogRegistry::default().with(filter);
    if is_text {
        log.with(lines.with_ansi(std::io::stderr().is_terminal()))
            .try_init()
            .context("cannot start the log")?;
    } else {
        log.with(lines.json().flatten_event(true)).try_init().context("cannot start the log")?;
    }
    Ok(handle)
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Every client is a descriptor or two: as many as the system lets this process have.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the limit of open files; set LimitNOFILE");
    }
}
