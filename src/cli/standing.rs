//! What `ttmem status` says below its tables: what is suspected of leaking, and how it stands with state and history.

use std::fmt::Write;

use super::screen::{Style, age, bytes, line, paint, plural, printable};
use crate::views::findings::Leak;
use crate::views::json::daemon::{Daemon, History, State};

/// Leaks that are named; the surest come first.
const NAMED_MAX: usize = 3;
/// From this score on a leak is suspected; below, it is watched.
const SUSPECTED_SCORE: f64 = 0.5;
/// A history that was not written for so long is behind: it is written once a second.
const WRITE_SECONDS_MAX: f64 = 60.0;
const WARNING_COLOR: &str = "33";

/// The lines, with an empty one before them.
pub(super) fn render(leaks: &[Leak], daemon: &Daemon, style: &Style) -> String {
    let mut out = String::from("\n");
    leak_line(leaks, style, &mut out);
    let now = daemon.timestamp_seconds;
    let (text, is_well) = match &daemon.state {
        None => ("not kept: no --state-dir is given".to_owned(), true),
        Some(state) => state_text(state, now),
    };
    standing_line("state", &text, is_well, style, &mut out);
    if let Some(history) = &daemon.history {
        let (text, is_well) = history_text(history, now);
        standing_line("history", &text, is_well, style, &mut out);
    }
    out
}

fn standing_line(title: &str, text: &str, is_well: bool, style: &Style, out: &mut String) {
    let text = if is_well { text.to_owned() } else { paint(text, WARNING_COLOR, style) };
    line(out, format_args!("{title:<8} {text}"));
}

fn leak_line(leaks: &[Leak], style: &Style, out: &mut String) {
    let suspected: Vec<&Leak> = leaks.iter().filter(|leak| leak.score >= SUSPECTED_SCORE).collect();
    let mut text = match suspected.len() {
        0 => "none is suspected".to_owned(),
        count => format!("{count} suspected: "),
    };
    let named = suspected.iter().take(NAMED_MAX).map(|leak| {
        format!(
            "{} (pid {}), {} of device {}, score {:.2}, {} in {}",
            printable(&leak.process),
            leak.pid,
            leak.memory_type,
            leak.device,
            leak.score,
            bytes(leak.growth_bytes),
            age(leak.growth_seconds)
        )
    });
    text += &named.collect::<Vec<_>>().join("; ");
    if suspected.len() > NAMED_MAX {
        text += "; …";
    }
    let watched = leaks.len() - suspected.len();
    if watched > 0 {
        // Writing into a String cannot fail.
        let _ = write!(text, "{} {watched} watched", if suspected.is_empty() { "," } else { ";" });
    }
    standing_line("leaks", &text, suspected.is_empty(), style, out);
}

/// What there is to say, and whether all is well.
fn state_text(state: &State, now: f64) -> (String, bool) {
    if !state.kept {
        return (
            "NOT kept: it cannot be written, and is lost when the daemon ends; the log says why".to_owned(),
            false,
        );
    }
    let mut text = "kept".to_owned();
    match state.checkpoint_timestamp_seconds.zip(state.checkpoint_bytes) {
        Some((at, size)) => text += &format!(", checkpoint of {} ago ({})", age(now - at), bytes(size)),
        None => text += ", no checkpoint yet",
    }
    if let Some(journal) = state.journal_bytes {
        text += &format!(", journal {}", bytes(journal));
    }
    if let Some(seconds) = state.recovery_seconds {
        text += &format!("; went on within {:.0} ms", seconds * 1000.0);
    }
    if state.checkpoint_failures_total > 0 {
        text += &format!(
            "; {}",
            plural(state.checkpoint_failures_total, "checkpoint failed", "checkpoints failed")
        );
    }
    if state.damaged_files > 0 {
        text += &format!("; {} at the start", plural(state.damaged_files, "damaged file", "damaged files"));
    }
    (text, state.checkpoint_failures_total == 0 && state.damaged_files == 0)
}

fn history_text(history: &History, now: f64) -> (String, bool) {
    let Some(at) = history.last_write_timestamp_seconds else {
        return ("not written yet".to_owned(), history.dropped_total == 0);
    };
    let mut text = format!("{}, written {} ago", bytes(history.size_bytes), age(now - at));
    if history.dropped_total > 0 {
        text +=
            &format!("; {} missing", plural(history.dropped_total, "point or event", "points and events"));
    }
    (text, history.dropped_total == 0 && now - at < WRITE_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { width: 100, is_terminal: false, color: false, unicode: false };
    const COLORED: Style = Style { color: true, ..PLAIN };

    fn leak(process: &str, score: f64) -> Leak {
        Leak {
            pid: 4711,
            process: process.into(),
            user: "root".into(),
            device: 1,
            memory_type: "dram".into(),
            score,
            suspected_timestamp_seconds: None,
            size_min_bytes: None,
            size_max_bytes: None,
            growth_bytes: 56 << 20,
            growth_buffers: 900,
            growth_seconds: 1700.0,
            bytes_per_second: 1.0,
            full_in_seconds: None,
            evidence: String::new(),
        }
    }

    fn daemon(state: Option<State>, history: Option<History>) -> Daemon {
        Daemon { timestamp_seconds: 1000.0, pid: 1, version: "1".into(), state, history }
    }

    fn kept() -> State {
        State {
            kept: true,
            journal_bytes: Some(3 << 20),
            checkpoint_bytes: Some(2048),
            checkpoint_timestamp_seconds: Some(910.0),
            checkpoint_failures_total: 0,
            damaged_files: 0,
            recovery_seconds: Some(0.0123),
        }
    }

    #[test]
    fn what_is_well_is_said_in_few_words() {
        let history = History {
            size_bytes: 5 << 20,
            last_write_timestamp_seconds: Some(999.0),
            queue_items: 0,
            dropped_total: 0,
        };
        assert_eq!(
            render(&[], &daemon(Some(kept()), Some(history)), &COLORED),
            "\nleaks    none is suspected\n\
             state    kept, checkpoint of 1m30s ago (2.0 KiB), journal 3.0 MiB; went on within 12 ms\n\
             history  5.0 MiB, written 1s ago\n"
        );
        assert_eq!(
            render(&[leak("a", 0.3)], &daemon(None, None), &COLORED),
            "\nleaks    none is suspected, 1 watched\nstate    not kept: no --state-dir is given\n"
        );
    }

    #[test]
    fn what_is_wrong_is_said_and_coloured() {
        let history = History {
            size_bytes: 5 << 20,
            last_write_timestamp_seconds: Some(700.0),
            queue_items: 9,
            dropped_total: 4,
        };
        let state = State { kept: false, ..kept() };
        let leaks = [leak("a\x1b[m", 0.66), leak("b", 0.51), leak("c", 0.5), leak("d", 0.5), leak("e", 0.2)];
        let shown = render(&leaks, &daemon(Some(state), Some(history)), &PLAIN);
        let expected = [
            "",
            "leaks    4 suspected: a?[m (pid 4711), dram of device 1, score 0.66, 56.0 MiB in 28m20s; \
             b (pid 4711), dram of device 1, score 0.51, 56.0 MiB in 28m20s; \
             c (pid 4711), dram of device 1, score 0.50, 56.0 MiB in 28m20s; …; 1 watched",
            "state    NOT kept: it cannot be written, and is lost when the daemon ends; the log says why",
            "history  5.0 MiB, written 5m00s ago; 4 points and events missing",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
        let state = State { checkpoint_failures_total: 1, damaged_files: 2, ..kept() };
        let shown = render(&leaks[..1], &daemon(Some(state), None), &COLORED);
        assert_eq!(shown.matches("\x1b[33m").count(), 2, "{shown}");
        assert!(shown.contains("; 1 checkpoint failed; 2 damaged files at the start"), "{shown}");
    }
}
