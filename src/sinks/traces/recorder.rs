//! Occurrences in, spans and log records out. Time is a parameter, and nothing here waits.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::story::Story;
use crate::registry::{
    AllocationFailure, Ending, Occurrence, Orphaned, Process, RejectedPeer, Suspicion, Time,
};
use crate::sinks::token_bucket::Rate;
use crate::throttle::Throttle;
use crate::views::trace::{self, Host, RootEnd};

/// How spans are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderPolicy {
    /// Spans of single buffers in a second, at most.
    pub spans_per_second_max: u32,
    /// How often a process that lives is told of.
    pub interval_ns: u64,
}

/// What is to be exported.
#[derive(Default, Debug)]
pub(super) struct Items {
    pub(super) spans: Vec<Span>,
    pub(super) records: Vec<LogRecord>,
    /// Spans that the rate left out.
    pub(super) omitted: u64,
}

/// Every story that has not ended.
pub(super) struct Recorder {
    host: Arc<Host>,
    policy: RecorderPolicy,
    rate: Rate,
    /// When the rate's bucket will be full again.
    full_at_ns: u64,
    throttle: Throttle,
    stories: HashMap<u64, Story>,
}

impl Recorder {
    pub(super) fn new(host: Arc<Host>, policy: RecorderPolicy) -> Recorder {
        // A second's worth may come at once.
        let burst = policy.spans_per_second_max.max(1);
        let rate = Rate { interval_ns: 1_000_000_000 / u64::from(burst), burst };
        let throttle = Throttle::default();
        Recorder { host, policy, rate, full_at_ns: 0, throttle, stories: HashMap::new() }
    }

    /// Takes in what happened.
    pub(super) fn hear(&mut self, occurrence: Occurrence, time: Time, items: &mut Items) {
        match occurrence {
            Occurrence::Released(process, release) => {
                if self.rate.take(&mut self.full_at_ns, time.monotonic_ns).is_ok() {
                    items.spans.push(self.story(&process).about.buffer(&release, time));
                } else {
                    items.omitted += 1;
                }
            }
            Occurrence::BurstAllocated(process, burst) => {
                items.spans.push(self.story(&process).about.burst(&burst, time));
            }
            Occurrence::BurstReleased(process, burst) => {
                items.spans.push(self.story(&process).about.held(&burst, time));
            }
            Occurrence::Failed(process, failure) => self.fail(&process, &failure, time, items),
            Occurrence::LeakSuspected(suspicion) => self.suspect(&suspicion, time, items),
            Occurrence::Ended(process, ending) => self.end(&process, &ending, time, items),
            Occurrence::Rejected(peer) => reject(&peer, time, items),
        }
    }

    fn story(&mut self, process: &Arc<Process>) -> &mut Story {
        let host = &self.host;
        self.stories.entry(process.serial()).or_insert_with(|| Story::new(host, process))
    }

    fn fail(&mut self, process: &Arc<Process>, failure: &AllocationFailure, time: Time, items: &mut Items) {
        let admitted = self.throttle.admit("allocation_failed", failure.at_ns);
        let story = self.story(process);
        story.fail(trace::failure_event(failure, time));
        let record =
            admitted.map(|suppressed| trace::allocation_failed(&story.about, failure, suppressed, time));
        items.records.extend(record);
    }

    fn end(&mut self, process: &Arc<Process>, ending: &Ending, time: Time, items: &mut Items) {
        let Ending { at_ns, orphaned, orphans, bursts } = ending;
        let story = self.stories.remove(&process.serial()).unwrap_or_else(|| Story::new(&self.host, process));
        let about = &story.about;
        items.spans.extend(orphans.largest.iter().map(|orphan| about.buffer(orphan, time)));
        items.spans.extend(about.more_orphans(orphans, *at_ns, time));
        items.spans.extend(bursts.iter().map(|burst| about.held(burst, time)));
        if orphaned.buffers > 0
            && let Some(suppressed) = self.throttle.admit("memory_orphaned", *at_ns)
        {
            items.records.push(trace::orphaned(about, *orphaned, *at_ns, suppressed, time));
        }
        items.spans.push(story.end(&self.host, RootEnd::Exit(*orphaned), *at_ns, time));
    }

    /// Looks at the processes that live: tells of their peaks, and of their intervals when they are over.
    pub(super) fn look(&mut self, living: &[Arc<Process>], time: Time, items: &mut Items) {
        for process in living {
            let is_young = time.monotonic_ns.saturating_sub(process.first_seen_ns()) < super::YOUTH_NS;
            if is_young && !self.stories.contains_key(&process.serial()) {
                continue;
            }
            let interval_ns = self.policy.interval_ns;
            let story = self.story(process);
            story.look(time);
            if story.is_due(time.monotonic_ns) {
                items.spans.push(story.end_interval(interval_ns, time));
            }
        }
    }

    fn suspect(&mut self, suspicion: &Suspicion, time: Time, items: &mut Items) {
        let admitted = self.throttle.admit("leak_suspected", time.monotonic_ns);
        let story = self.story(&suspicion.process);
        story.add(trace::leak_event(suspicion, time));
        let record =
            admitted.map(|suppressed| trace::leak_suspected(&story.about, suspicion, suppressed, time));
        items.records.extend(record);
    }

    /// The stories of processes that have ended. If their ends are not heard of after this, they were lost.
    pub(super) fn ended(&self) -> Vec<u64> {
        let ended = self.stories.iter().filter(|(_, story)| story.about.process.has_ended());
        ended.map(|(serial, _)| *serial).collect()
    }

    /// Ends stories whose processes' ends were lost on the way, with what the counters still say.
    pub(super) fn end_lost(&mut self, lost: &[u64], time: Time, items: &mut Items) {
        for story in lost.iter().filter_map(|serial| self.stories.remove(serial)) {
            let memory = story.about.process.memory();
            let orphaned = memory.iter().fold(Orphaned::default(), |sum, place| Orphaned {
                buffers: sum.buffers + place.counters.orphaned_buffers,
                bytes: sum.bytes + place.counters.orphaned_bytes,
            });
            items.spans.push(story.end(&self.host, RootEnd::Exit(orphaned), time.monotonic_ns, time));
        }
    }

    /// The daemon stops: every story ends here. Processes that have none yet get one.
    pub(super) fn stop(&mut self, living: &[Arc<Process>], time: Time, items: &mut Items) {
        for process in living {
            self.story(process);
        }
        for (_, story) in self.stories.drain() {
            items.spans.push(story.end(&self.host, RootEnd::DaemonStopped, time.monotonic_ns, time));
        }
    }
}

fn reject(peer: &RejectedPeer, time: Time, items: &mut Items) {
    // Throttled where it was told.
    items.records.push(trace::peer_rejected(peer, time));
}
