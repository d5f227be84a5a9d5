//! How often a line that a peer can cause may appear in the log.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Lines of one subject in a window; what is beyond is counted and told with the next line.
const LINES_PER_WINDOW: u32 = 5;
const WINDOW_NS: u64 = 10_000_000_000;

/// Lets a few lines of each subject through.
#[derive(Default)]
pub struct Throttle {
    is_muted: bool,
    subjects: Mutex<HashMap<&'static str, Window>>,
}

struct Window {
    start_ns: u64,
    lines: u32,
    suppressed: u64,
}

impl Throttle {
    /// One that lets nothing through: what is told of has been told already.
    pub fn muted() -> Throttle {
        Throttle { is_muted: true, ..Throttle::default() }
    }

    /// Whether a line may be written now, and how many were suppressed since the last one.
    pub fn admit(&self, subject: &'static str, now_ns: u64) -> Option<u64> {
        if self.is_muted {
            return None;
        }
        let mut subjects = self.subjects.lock();
        let window = subjects.entry(subject).or_insert(Window { start_ns: now_ns, lines: 0, suppressed: 0 });
        if now_ns.saturating_sub(window.start_ns) >= WINDOW_NS {
            window.start_ns = now_ns;
            window.lines = 0;
        }
        if window.lines == LINES_PER_WINDOW {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suppressed_is_told_later() {
        let throttle = Throttle::default();
        let admitted = (0..12).filter(|second| throttle.admit("a", second * 100_000_000).is_some()).count();
        assert_eq!(admitted, 5);
        assert_eq!(throttle.admit("b", 0), Some(0), "each subject has its own window");
        assert_eq!(throttle.admit("a", WINDOW_NS), Some(7));
    }
}
