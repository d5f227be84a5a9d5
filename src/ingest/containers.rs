//! The containers that processes run in, each once, and their names, which are looked up on a thread of its own.
//!
//! The names come from the directory of logs in which the kubelet makes an entry for every container. An entry appears a moment after
//! its container has started, so a name that is not there yet is looked for again.

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
use super::throttle::Throttle;
use crate::clock;
use crate::registry::{Container, ContainerNames};

/// How long a name is looked for. The kubelet makes the entry once the container runs; on a node that starts everything at once it may
/// need a while.
const SEARCH_TIMEOUT_NS: u64 = 30_000_000_000;
/// Between two looks at the directory.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The containers by id.
pub(super) struct Containers {
    known: Mutex<HashMap<String, Weak<Container>>>,
    /// Takes those whose names are to be found; `None` where nobody knows them. Each container is sent once, so that there are
    /// never more of them than containers.
    unnamed: Option<Sender<Weak<Container>>>,
}

/// Who hears which names a container has.
pub(super) type Settled = Box<dyn Fn(&Container) + Send>;

impl Containers {
    /// Starts to look names up in a directory; without one there are only ids.
    pub(super) fn start(
        directory: Option<PathBuf>,
        throttle: Arc<Throttle>,
        settled: Settled,
    ) -> io::Result<Containers> {
        let unnamed = directory.map(|directory| {
            let (sender, unnamed) = channel();
            let search = Search { directory, throttle, settled, waiting: Vec::new() };
            let thread = std::thread::Builder::new().name("ttmem-pods".into());
            thread.spawn(move || search.follow(&unnamed)).map(|_| sender)
        });
        Ok(Containers { known: Mutex::default(), unnamed: unnamed.transpose()? })
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
    directory: PathBuf,
    throttle: Arc<Throttle>,
    settled: Settled,
    waiting: Vec<Waiting>,
}

/// A container whose names are looked for.
struct Waiting {
    container: Weak<Container>,
    /// Since when, in monotonic nanoseconds.
    since_ns: u64,
}

impl Search {
    /// Looks as long as anybody waits, until nobody can ask any more.
    fn follow(mut self, unnamed: &Receiver<Weak<Container>>) {
        loop {
            let patience = if self.waiting.is_empty() { Duration::MAX } else { LOOK_INTERVAL };
            let came = match unnamed.recv_timeout(patience) {
                Ok(container) => Some(container),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let since_ns = clock::monotonic_ns();
            let came = came.into_iter().chain(unnamed.try_iter());
            self.waiting.extend(came.map(|container| Waiting { container, since_ns }));
            let entries = self.entries();
            self.settle(&entries, clock::monotonic_ns());
        }
    }

    /// What the directory holds. One that is not there will not come: the kubelet makes it before any pod.
    fn entries(&self) -> Option<Vec<OsString>> {
        match fs::read_dir(&self.directory) {
            Ok(entries) => Some(entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if let Some(suppressed) = self.throttle.admit("container_log_dir", clock::monotonic_ns()) {
                    let directory = self.directory.display();
                    warn!(
                        %directory,
                        %error,
                        suppressed,
                        "cannot read the names of containers; make the directory readable, or set container_log_dir to none"
                    );
                }
                Some(Vec::new())
            }
        }
    }

    /// Settles the names that have been found, and of those that have been looked for long enough that they have none.
    fn settle(&mut self, entries: &Option<Vec<OsString>>, now_ns: u64) {
        let names: HashMap<&str, ContainerNames> =
            entries.iter().flatten().filter_map(|entry| parse(entry.to_str()?)).collect();
        self.waiting.retain(|waiting| {
            // All its processes may be forgotten already.
            let Some(container) = waiting.container.upgrade() else { return false };
            let found = names.get(container.id());
            let is_over = entries.is_none() || now_ns.saturating_sub(waiting.since_ns) >= SEARCH_TIMEOUT_NS;
            if found.is_some() || is_over {
                container.settle(found.cloned());
                (self.settled)(&container);
            }
            found.is_none() && !is_over
        });
    }
}

/// The id and the names in `POD_NAMESPACE_CONTAINER-ID.log`. None of the three names can hold an underscore.
fn parse(entry: &str) -> Option<(&str, ContainerNames)> {
    let (names, id) = entry.strip_suffix(".log")?.rsplit_once('-')?;
    let mut names = names.split('_').map(str::to_owned);
    let (pod, namespace, container) = (names.next()?, names.next()?, names.next()?);
    let is_whole =
        names.next().is_none() && ![&pod, &namespace, &container].iter().any(|name| name.is_empty());
    is_whole.then_some((id, ContainerNames { namespace, pod, container }))
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
        let throttle = Arc::new(Throttle::default());
        let settled = Box::new(|_: &Container| {});
        let mut search = Search { directory: PathBuf::new(), throttle, settled, waiting: Vec::new() };
        let wait = |search: &mut Search, id: &str| {
            let container = Arc::new(Container::new(id.to_owned(), None));
            search.waiting.push(Waiting { container: Arc::downgrade(&container), since_ns: 100 });
            container
        };
        let entries = |names: &[&str]| Some(names.iter().map(OsString::from).collect());
        let (early, late, forgotten) =
            (wait(&mut search, "01"), wait(&mut search, "02"), wait(&mut search, "03"));
        drop(forgotten);
        search.settle(&entries(&["a_b_c-01.log"]), 101);
        assert_eq!(early.names().map(|names| names.pod.as_str()), Some("a"));
        assert_eq!(search.waiting.len(), 1, "of those that are left one has no names yet");
        search.settle(&entries(&[]), 99 + SEARCH_TIMEOUT_NS);
        assert_eq!(search.waiting.len(), 1);
        search.settle(&entries(&[]), 100 + SEARCH_TIMEOUT_NS);
        assert!(search.waiting.is_empty());
        // What was settled stays, and no counter changes its labels.
        late.settle(Some(ContainerNames { namespace: "b".into(), pod: "a".into(), container: "c".into() }));
        assert_eq!(late.names(), None);

        let hopeless = wait(&mut search, "04");
        search.settle(&None, 101);
        assert!(search.waiting.is_empty() && hopeless.names().is_none(), "no directory, no names");
    }
}
