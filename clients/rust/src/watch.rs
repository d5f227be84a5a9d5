//! Shows what a process holds by its own reports, while it runs: a monitor of one process, which asks no server.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::client::Client;
use crate::fork;
use crate::holdings::Statistic;
use crate::signals::Blocked;

/// A table of what the process holds, written whenever it has changed, until this is dropped.
#[derive(Debug)]
pub struct Watch {
    end: Arc<End>,
    thread: Option<JoinHandle<()>>,
    /// A fork has no such thread.
    generation: u64,
}

/// Ends the thread before its interval is over.
#[derive(Debug, Default)]
struct End {
    is_near: Mutex<bool>,
    changed: Condvar,
}

impl Watch {
    pub(crate) fn start(
        client: Client,
        interval: Duration,
        mut output: impl Write + Send + 'static,
    ) -> io::Result<Watch> {
        let end = Arc::new(End::default());
        let own = Arc::clone(&end);
        let _signals = Blocked::all();
        let thread = Builder::new().name("ttmem-watch".into()).spawn(move || {
            // Who cannot write has nobody who reads.
            let _ = show(&client, interval, &mut output, &own);
        })?;
        Ok(Watch { end, thread: Some(thread), generation: fork::generation() })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return std::mem::forget(self.thread.take());
        }
        *self.end.is_near.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.end.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It panics only if the program's own writer does.
            let _ = thread.join();
        }
    }
}

fn show(client: &Client, interval: Duration, output: &mut impl Write, end: &End) -> io::Result<()> {
    let mut shown = String::new();
    loop {
        let is_last = *end.is_near.lock().unwrap_or_else(PoisonError::into_inner);
        let table = table(&client.statistics());
        if table != shown {
            output.write_all(table.as_bytes())?;
            output.flush()?;
            shown = table;
        }
        if is_last {
            return Ok(());
        }
        let is_near = end.is_near.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = end.changed.wait_timeout_while(is_near, interval, |is_near| !*is_near);
    }
}

/// A line for each device and kind of memory, below a line of titles.
fn table(statistics: &[Statistic]) -> String {
    let mut text = String::from("device  memory          allocated        peak   buffers     largest\n");
    for row in statistics {
        let [allocated, peak, largest] = [row.allocated_bytes, row.peak_bytes, row.largest_bytes].map(bytes);
        let (device, memory, buffers) = (row.device, row.memory_type.name(), row.buffers);
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{device:>6}  {memory:<13} {allocated:>11} {peak:>11} {buffers:>9} {largest:>11}");
    }
    text
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if scaled < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, larger);
    }
    if unit == "B" { format!("{count} B") } else { format!("{scaled:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use ttmem_wire::BufferType;

    use super::*;
    use crate::options::Options;

    /// What was written, to be read while it is.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("text")
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a client that has reported looks for a server, and Miri has no sockets")]
    fn the_last_state_is_shown_however_long_the_interval() {
        let client = Client::with_options(Options { socket: "/nobody/listens".into(), ..Options::default() });
        client.allocated(3, BufferType::Dram, 1, 64 << 20);
        let paper = Paper::default();
        let watch = client.watch(Duration::MAX, paper.clone()).expect("a thread");
        client.allocated(3, BufferType::L1, 2, 1000);
        client.allocated(3, BufferType::L1, 3, 536);
        client.freed(3, 1);
        drop(watch);
        let text = paper.text();
        let lines: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(lines[1], "     3  dram                  0 B    64.0 MiB         0    64.0 MiB");
        assert_eq!(lines[0], "     3  l1                1.5 KiB     1.5 KiB         2      1000 B");
    }

    #[test]
    #[cfg_attr(miri, ignore = "a client that has reported looks for a server, and Miri has no sockets")]
    fn what_does_not_change_is_shown_once() {
        let client = Client::with_options(Options { socket: "/nobody/listens".into(), ..Options::default() });
        client.allocated(0, BufferType::Dram, 1, 10);
        let paper = Paper::default();
        let watch = client.watch(Duration::from_micros(1), paper.clone()).expect("a thread");
        while !paper.text().contains("10 B") {
            std::thread::yield_now();
        }
        drop(watch);
        assert_eq!(paper.text().matches("device").count(), 1);
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let check = |count, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(3 << 29, "1.5 GiB");
        check(5 << 50, "5120.0 TiB");
    }
}
