//! Follows which containers the kubelet has given devices to, whether they use them or not.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tracing::warn;

use super::Context;
use super::kubelet::{CallError, assigned_devices};
use crate::clock;
use crate::registry::KubeletSource;

/// How often the kubelet is asked: a pod that was given a device is known before the next scrape but one.
const INTERVAL: Duration = Duration::from_secs(10);
/// What was said longer ago is not so any more, for all that is known.
const STALE_AFTER_NS: u64 = 60_000_000_000;

/// What the kubelet said when it was last asked.
pub(super) struct Assignments {
    context: Arc<Context>,
    socket: PathBuf,
    /// When it last answered, in monotonic nanoseconds.
    answered_ns: u64,
}

impl Assignments {
    pub(super) fn new(context: Arc<Context>, socket: PathBuf) -> Self {
        Self { context, socket, answered_ns: 0 }
    }

    /// Asks at once, and then again and again until told to stop.
    pub(super) fn follow(mut self, stop: &Receiver<()>) {
        loop {
            self.ask();
            let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(INTERVAL) else { return };
        }
    }

    fn ask(&mut self) {
        let kubelet = self.context.registry.kubelet();
        let started_ns = clock::monotonic_ns();
        let answer = assigned_devices(&self.socket);
        let now_ns = clock::monotonic_ns();
        match answer {
            Ok(assigned) => {
                self.answered_ns = now_ns;
                kubelet.assign(assigned);
                kubelet.succeed(KubeletSource::PodResources, clock::unix_ns(), now_ns - started_ns);
            }
            // A host without it. One that had it is starting it again.
            Err(CallError::Absent) if !kubelet.has_answered(KubeletSource::PodResources) => {}
            Err(error) => {
                kubelet.fail(KubeletSource::PodResources, error.failure());
                if now_ns.saturating_sub(self.answered_ns) >= STALE_AFTER_NS {
                    kubelet.assign(Vec::new());
                }
                if let Some(suppressed) = self.context.throttle.admit("kubelet_resources_socket", now_ns) {
                    let socket = self.socket.display();
                    warn!(
                        %socket,
                        %error,
                        suppressed,
                        "the kubelet does not tell which containers have devices; give the daemon access to its socket, or set kubelet_resources_socket to none"
                    );
                }
            }
        }
    }
}
