//! The containers that processes run in, each once, and their names, which are looked up on a thread of its own.
//!
//! Two sources know the names: the directory of logs in which the kubelet makes an entry for every container, and the kubelet itself, over
//! the socket of its pods API. An entry appears a moment after its container has started, and the kubelet may be starting itself, so a name
//! that is not there yet is looked for again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::warn;

use super::cgroup::membership;
use super::kubelet::{CallError, container_names};
use super::throttle::Throttle;
use crate::clock;
use crate::registry::{Container, ContainerNames, KubeletFailure, KubeletSource, Registry};

/// How long a name is looked for. The kubelet makes the entry once the container runs; on a node that starts everything at once it may
/// need a while.
const SEARCH_TIMEOUT_NS: u64 = 30_000_000_000;
/// How long it is looked for in all while a source is there and does not tell. A kubelet that is upgraded is away for minutes; until the name
/// is settled nothing is lost, as what a container has held is kept by its processes. Then one answer for good is better than none.
const OUTAGE_TIMEOUT_NS: u64 = 600_000_000_000;
/// Between two looks at the directory.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Between two questions to the kubelet while somebody waits for an answer; doubled with every failure up to the second. It allows a hundred
/// in a second, for everybody on the node.
const ASK_INTERVAL_NS: u64 = 1_000_000_000;
const ASK_INTERVAL_MAX_NS: u64 = 5_000_000_000;
/// Between two questions while nobody waits: so that it is known whether it would answer.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// The containers by id.
pub(super) struct Containers {
    known: Mutex<HashMap<String, Weak<Container>>>,
    /// Takes those whose names are to be found; `None` where nobody knows them. Each container is sent once, so that there are
    /// never more of them than containers.
    unnamed: Option<Sender<Weak<Container>>>,
}

/// Where names are looked for; each may be left out.
#[derive(Clone, Debug)]
pub(super) struct NameSources {
    pub(super) log_directory: Option<PathBuf>,
    pub(super) pods_socket: Option<PathBuf>,
}

/// Who hears which names a container has.
pub(super) type Settled = Box<dyn Fn(&Container) + Send>;

impl Containers {
    /// Starts to look names up; without any source there are only ids.
    pub(super) fn start(
        sources: NameSources,
        registry: Arc<Registry>,
        throttle: Arc<Throttle>,
        settled: Settled,
    ) -> io::Result<Containers> {
        let known = Mutex::default();
        if sources.log_directory.is_none() && sources.pods_socket.is_none() {
            return Ok(Containers { known, unnamed: None });
        }
        let (sender, unnamed) = channel();
        let search = Search::new(sources, registry, throttle, settled);
        let thread = std::thread::Builder::new().name("ttmem-pods".into());
        thread.spawn(move || search.follow(&unnamed))?;
        Ok(Containers { known, unnamed: Some(sender) })
    }

    /// The container of a control group.
    pub(super) fn of(&self, cgroup: &str) -> Option<Arc<Container>> {
        let found = membership(cgroup)?;
        let mut known = self.known.lock();
        if let Some(container) = known.get(&found.container_id).and_then(Weak::upgrade) {
            return Some(container);
        }
        known.retain(|_, container| container.strong_count() > 0);
        let container = Arc::new(Container::new(found.container_id.clone(), found.pod_uid));
        known.insert(found.container_id, Arc::downgrade(&container));
        // The kubelet knows its own only.
        match self.unnamed.as_ref().filter(|_| container.pod_uid().is_some()) {
            Some(unnamed) if unnamed.send(Arc::downgrade(&container)).is_ok() => {}
            _ => container.settle(None),
        }
        Some(container)
    }
}

impl Containers {
    /// A container that was stored: what is settled about it stays, and what is not is looked for again.
    pub(super) fn restore(&self, stored: &Container, cgroup: Option<&str>) -> Arc<Container> {
        if let (false, Some(container)) = (stored.is_settled(), cgroup.and_then(|cgroup| self.of(cgroup))) {
            return container;
        }
        let container = Arc::new(stored.clone());
        self.known.lock().insert(container.id().to_owned(), Arc::downgrade(&container));
        container
    }
}

/// The search for names.
struct Search {
    directory: Option<PathBuf>,
    pods: Option<PodsApi>,
    registry: Arc<Registry>,
    throttle: Arc<Throttle>,
    settled: Settled,
    waiting: Vec<Waiting>,
    /// When a source that is there last did not tell, in monotonic nanoseconds.
    silence_ns: u64,
}

/// A container whose names are looked for.
struct Waiting {
    container: Weak<Container>,
    /// Since when, in monotonic nanoseconds.
    since_ns: u64,
}

/// The kubelet's pods API, and what it said last.
struct PodsApi {
    socket: PathBuf,
    names: HashMap<String, ContainerNames>,
    is_absent: bool,
    /// When it may be asked again, in monotonic nanoseconds, and how long it is left alone after that.
    next_ns: u64,
    pause_ns: u64,
}

/// What a source says at the moment.
enum Told {
    /// Names by id.
    Names(HashMap<String, ContainerNames>),
    /// There is no such source on this host, and there will be none: the kubelet makes it before any pod.
    Nothing,
}

impl Search {
    fn new(
        sources: NameSources,
        registry: Arc<Registry>,
        throttle: Arc<Throttle>,
        settled: Settled,
    ) -> Search {
        let pods = sources.pods_socket.map(|socket| PodsApi {
            socket,
            names: HashMap::new(),
            is_absent: false,
            next_ns: 0,
            pause_ns: ASK_INTERVAL_NS,
        });
        let (directory, waiting) = (sources.log_directory, Vec::new());
        Search { directory, pods, registry, throttle, settled, waiting, silence_ns: 0 }
    }

    /// Looks as long as anybody waits, and now and then, until nobody can ask any more.
    fn follow(mut self, unnamed: &Receiver<Weak<Container>>) {
        self.ask();
        loop {
            let patience = match (self.waiting.is_empty(), &self.pods) {
                (false, _) => LOOK_INTERVAL,
                (true, Some(_)) => REFRESH_INTERVAL,
                (true, None) => Duration::MAX,
            };
            let came = match unnamed.recv_timeout(patience) {
                Ok(container) => Some(container),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let since_ns = clock::monotonic_ns();
            let came = came.into_iter().chain(unnamed.try_iter());
            self.waiting.extend(came.map(|container| Waiting { container, since_ns }));
            if self.waiting.is_empty() {
                self.ask();
            } else {
                self.look();
            }
        }
    }

    /// Asks for those whose names nobody knows yet: first what costs nothing.
    fn look(&mut self) {
        let logs = self.logs();
        self.settle(&logs, clock::monotonic_ns());
        if !self.waiting.is_empty() && self.ask() {
            self.settle(&logs, clock::monotonic_ns());
        }
    }

    /// Asks the kubelet, if it may be asked again; whether it was.
    fn ask(&mut self) -> bool {
        let Some(pods) = &mut self.pods else { return false };
        let started_ns = clock::monotonic_ns();
        if started_ns < pods.next_ns {
            return false;
        }
        let answer = container_names(&pods.socket);
        let now_ns = clock::monotonic_ns();
        let kubelet = self.registry.kubelet();
        let has_answered = kubelet.has_answered(KubeletSource::PodsApi);
        // A host without it. One that had it is starting it again.
        pods.is_absent = !has_answered && matches!(answer, Err(CallError::Absent));
        match answer {
            Ok(names) => {
                (pods.names, pods.pause_ns) = (names, ASK_INTERVAL_NS);
                kubelet.succeed(KubeletSource::PodsApi, clock::unix_ns(), now_ns - started_ns);
            }
            Err(_) if pods.is_absent => {}
            Err(error) => {
                pods.pause_ns = (2 * pods.pause_ns).min(ASK_INTERVAL_MAX_NS);
                self.silence_ns = now_ns;
                kubelet.fail(KubeletSource::PodsApi, error.failure());
                if let Some(suppressed) = self.throttle.admit("kubelet_pods_socket", now_ns) {
                    let socket = pods.socket.display();
                    warn!(
                        %socket,
                        %error,
                        suppressed,
                        "the kubelet does not tell the names of containers; give the daemon access to its socket, or set kubelet_pods_socket to none"
                    );
                }
            }
        }
        pods.next_ns = now_ns + pods.pause_ns;
        true
    }

    /// What the directory holds.
    fn logs(&mut self) -> Told {
        let Some(directory) = &self.directory else { return Told::Nothing };
        let (started_ns, kubelet) = (clock::monotonic_ns(), self.registry.kubelet());
        match fs::read_dir(directory) {
            Ok(entries) => {
                let entries: Vec<OsString> =
                    entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
                let duration_ns = clock::monotonic_ns() - started_ns;
                kubelet.succeed(KubeletSource::LogDirectory, clock::unix_ns(), duration_ns);
                Told::Names(parse_all(&entries))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Told::Nothing,
            Err(error) => {
                kubelet.fail(KubeletSource::LogDirectory, KubeletFailure::Unreachable);
                self.silence_ns = clock::monotonic_ns();
                if let Some(suppressed) = self.throttle.admit("container_log_dir", self.silence_ns) {
                    let directory = directory.display();
                    warn!(
                        %directory,
                        %error,
                        suppressed,
                        "cannot read the names of containers; make the directory readable, or set container_log_dir to none"
                    );
                }
                Told::Names(HashMap::new())
            }
        }
    }

    /// Settles the names that have been found, and of those that have been looked for long enough that they have none: long enough where
    /// everybody told all they know, and so much longer where somebody did not.
    fn settle(&mut self, logs: &Told, now_ns: u64) {
        let has_kubelet = self.pods.as_ref().is_some_and(|pods| !pods.is_absent);
        let asked = self.pods.as_ref().map(|pods| &pods.names);
        let (logged, is_hopeless) = match logs {
            Told::Names(names) => (Some(names), false),
            Told::Nothing => (None, !has_kubelet),
        };
        self.waiting.retain(|waiting| {
            // All its processes may be forgotten already.
            let Some(container) = waiting.container.upgrade() else { return false };
            let found = [logged, asked].into_iter().flatten().find_map(|names| names.get(container.id()));
            let told_since_ns = self.silence_ns.max(waiting.since_ns);
            let is_over = is_hopeless
                || now_ns.saturating_sub(told_since_ns) >= SEARCH_TIMEOUT_NS
                || now_ns.saturating_sub(waiting.since_ns) >= OUTAGE_TIMEOUT_NS;
            if found.is_some() || is_over {
                container.settle(found.cloned());
                (self.settled)(&container);
            }
            found.is_none() && !is_over
        });
    }
}

fn parse_all(entries: &[OsString]) -> HashMap<String, ContainerNames> {
    let parsed = entries.iter().filter_map(|entry| parse(entry.to_str()?));
    parsed.map(|(id, names)| (id.to_owned(), names)).collect()
}

/// The id and the names in `POD_NAMESPACE_CONTAINER-ID.log`. None of the three names can hold an underscore.
fn parse(entry: &str) -> Option<(&str, ContainerNames)> {
    let (names, id) = entry.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.split('_').map(str::to_owned);
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let names = ContainerNames { namespace, pod, container };
    (parts.next().is_none() && names.is_whole()).then_some((id, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_apart() {
        let check = |entry: &str, expected: Option<[&str; 4]>| {
            let found = parse(entry);
            let found = found.as_ref().map(|(id, names)| {
                [*id, names.namespace.as_str(), names.pod.as_str(), names.container.as_str()]
            });
            assert_eq!(found, expected, "{entry}");
        };
        check("llama-0_ml-team_server-ab12.log", Some(["ab12", "ml-team", "llama-0", "server"]));
        check(
            "kube.proxy-x_kube-system_kube-proxy-ab12.log",
            Some(["ab12", "kube-system", "kube.proxy-x", "kube-proxy"]),
        );
        for wrong in
            ["", "README", "a_b-ab12.log", "a_b_c_d-ab12.log", "_b_c-ab12.log", "a_b_c.log", "a_b_c-ab12.txt"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn names_are_looked_for_until_they_are_there_or_it_is_too_late() {
        let sources = NameSources { log_directory: None, pods_socket: Some(PathBuf::new()) };
        let settled = Box::new(|_: &Container| {});
        let mut search = Search::new(sources, Arc::new(Registry::new(0)), Arc::default(), settled);
        let wait = |search: &mut Search, id: &str| {
            let container = Arc::new(Container::new(id.to_owned(), None));
            search.waiting.push(Waiting { container: Arc::downgrade(&container), since_ns: 100 });
            container
        };
        let logs =
            |names: &[&str]| Told::Names(parse_all(&names.iter().map(OsString::from).collect::<Vec<_>>()));
        let (early, late, forgotten) =
            (wait(&mut search, "01"), wait(&mut search, "02"), wait(&mut search, "03"));
        drop(forgotten);
        search.settle(&logs(&["a_b_c-01.log"]), 101);
        assert_eq!(early.names().map(|names| names.pod.as_str()), Some("a"));
        assert_eq!(search.waiting.len(), 1, "of those that are left one has no names yet");
        search.settle(&logs(&[]), 99 + SEARCH_TIMEOUT_NS);
        assert_eq!(search.waiting.len(), 1);
        search.settle(&logs(&[]), 100 + SEARCH_TIMEOUT_NS);
        assert!(search.waiting.is_empty());
        // What was settled stays, and no counter changes its labels.
        late.settle(Some(ContainerNames { namespace: "b".into(), pod: "a".into(), container: "c".into() }));
        assert_eq!(late.names(), None);

        let asked = wait(&mut search, "04");
        search.settle(&Told::Nothing, 101);
        assert_eq!(search.waiting.len(), 1, "the kubelet may still tell");
        let pods = search.pods.as_mut().expect("given above");
        pods.names = parse_all(&["a_b_c-04.log".into()]);
        search.settle(&Told::Nothing, 101);
        assert_eq!(asked.names().map(|names| names.namespace.as_str()), Some("b"));

        // A source that is there and does not tell: what it would have said is waited for, but not for ever.
        let (patient, given_up) = (wait(&mut search, "06"), wait(&mut search, "07"));
        search.silence_ns = 99 + OUTAGE_TIMEOUT_NS;
        search.settle(&logs(&[]), 99 + OUTAGE_TIMEOUT_NS);
        assert_eq!(search.waiting.len(), 2);
        search.settle(&logs(&["a_b_c-06.log"]), 100 + OUTAGE_TIMEOUT_NS);
        assert_eq!(patient.names().map(|names| names.container.as_str()), Some("c"));
        assert!(given_up.is_nameless() && search.waiting.is_empty());

        let back = wait(&mut search, "08");
        search.silence_ns = 200;
        search.settle(&logs(&[]), 199 + SEARCH_TIMEOUT_NS);
        assert!(!back.is_settled(), "it is told since a moment only");
        search.settle(&logs(&[]), 200 + SEARCH_TIMEOUT_NS);
        assert!(back.is_nameless());

        let hopeless = wait(&mut search, "05");
        search.pods.as_mut().expect("given above").is_absent = true;
        search.settle(&Told::Nothing, 101);
        assert!(search.waiting.is_empty() && hopeless.names().is_none(), "no source, no names");
    }
}
