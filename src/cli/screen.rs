//! How a terminal shows devices and processes: tables with bars, as wide as the terminal.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use crate::views::json::{Device, DeviceMemory, Devices, Process, Untracked};

/// Columns where nothing tells how many there are.
const WIDTH_DEFAULT: usize = 100;
/// Fewer would leave no room for a bar.
const WIDTH_MIN: usize = 72;
/// A longer bar says nothing more.
const BAR_MAX: usize = 60;
/// Columns of a memory's line without its bar, and how many of them the peak takes, where there is room for it.
const AROUND_BAR: usize = 64;
const PEAK_COLUMNS: usize = 17;
const WIDTH_WITH_PEAK: usize = 100;
/// From here on a bar warns, and alarms: the thresholds of the shipped alerts.
pub(super) const WARNING: f64 = 0.80;
pub(super) const ALARM: f64 = 0.95;

const KIB: f64 = 1024.0;

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns.
    pub width: usize,
    /// Whether it is a terminal at all.
    pub is_terminal: bool,
    /// Colours are wanted.
    pub color: bool,
    /// Block characters can be shown.
    pub unicode: bool,
}

impl Style {
    /// The style for standard output.
    pub fn of_terminal() -> Style {
        let is_terminal = stdout().is_terminal();
        let columns = rustix::termios::tcgetwinsize(stdout()).map_or(0, |size| usize::from(size.ws_col));
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        Style {
            width: if columns == 0 { WIDTH_DEFAULT } else { columns.max(WIDTH_MIN) },
            is_terminal,
            color: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            unicode: locale.is_some_and(|locale| locale.to_ascii_lowercase().contains("utf")),
        }
    }
}

/// The whole picture.
pub fn render(devices: &Devices, processes: &[Process], style: &Style) -> String {
    let mut out = String::new();
    if devices.devices.is_empty() {
        out.push_str("No device has been seen yet: nothing has reported memory, and none is configured.\n");
    }
    for device in &devices.devices {
        device_lines(device, style, &mut out);
    }
    process_lines(devices.timestamp_seconds, processes, style, &mut out);
    out
}

fn device_lines(device: &Device, style: &Style, out: &mut String) {
    let unknown = "unknown product";
    let name = [device.board.as_deref(), device.arch.as_deref()]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ");
    let title = format!("device {} ({})", device.device, if name.is_empty() { unknown } else { &name });
    let processes = plural(device.processes, "process", "processes");
    line(out, format_args!("{}  {processes}", bold(&title, style)));
    for memory in device.memory.iter().filter(|memory| memory.peak_bytes > 0 || memory.limit_bytes.is_some())
    {
        memory_line(memory, style, out);
    }
    if let Some(untracked) = device.untracked.as_ref().filter(|untracked| untracked.processes > 0) {
        untracked_line(untracked, style, out);
    }
    out.push('\n');
}

fn untracked_line(untracked: &Untracked, style: &Style, out: &mut String) {
    let who = plural(untracked.processes, "process holds", "processes hold");
    let report = if untracked.processes == 1 { "reports" } else { "report" };
    let named: Vec<_> = untracked
        .named
        .iter()
        .map(|process| {
            format!("{} (pid {}, {})", printable(&process.process), process.pid, printable(&process.user))
        })
        .collect();
    let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
    let text = clip(&format!("{who} it open and {report} nothing{named}"), style.width - 2);
    line(out, format_args!("  {}", paint(&text, "33", style)));
}

fn memory_line(memory: &DeviceMemory, style: &Style, out: &mut String) {
    let has_room = style.width >= WIDTH_WITH_PEAK;
    let around = AROUND_BAR + if has_room { PEAK_COLUMNS } else { 0 };
    let width = style.width.saturating_sub(around).min(BAR_MAX);
    let (bar, share) = match memory.limit_bytes {
        Some(limit) if limit > 0 => {
            let share = memory.usage_bytes as f64 / limit as f64;
            (bar(share, width, style), format!("{:>4.0} % of {:>10}", share * 100.0, bytes(limit)))
        }
        _ => (" ".repeat(width), " ".repeat(" 100 % of 1023.9 MiB".len())),
    };
    let peak = if has_room { format!("  peak {:>10}", bytes(memory.peak_bytes)) } else { String::new() };
    let buffers = memory
        .reported
        .as_ref()
        .map(|reported| plural(reported.buffers, "buffer", "buffers"))
        .unwrap_or_default();
    let usage = bytes(memory.usage_bytes);
    line(out, format_args!("  {:<13} {bar} {usage:>10} {share}{peak}  {buffers}", memory.memory_type));
}

fn bar(share: f64, width: usize, style: &Style) -> String {
    let (full, empty) = if style.unicode { ("█", "░") } else { ("#", ".") };
    // A little is not nothing, and nearly full is not full.
    let cells = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    let cells = cells.clamp(usize::from(share > 0.0), width - usize::from(share < 1.0 && width > 0));
    let bar = full.repeat(cells) + &empty.repeat(width - cells);
    let color = match share {
        share if share >= ALARM => "31",
        share if share >= WARNING => "33",
        _ => "32",
    };
    paint(&bar, color, style)
}

/// One column: its title, its width, and what it says of a process.
type Column = (&'static str, usize, fn(&Process, f64) -> String);

const COLUMNS: &[Column] = &[
    ("PID", 8, |process, _| process.pid.to_string()),
    ("USER", 10, |process, _| clip(&process.user, 10)),
    ("DEVICES", 8, |process, _| clip(&devices_of(process), 8)),
    ("DRAM", 10, |process, _| bytes(sum(process, &["dram", "trace"]))),
    ("L1", 10, |process, _| bytes(sum(process, &["l1", "l1_small", "cb", "kernel"]))),
    ("BUFFERS", 10, |process, _| buffers_of(process)),
    ("AGE", 7, |process, now| process.start_time_seconds.map(|start| age(now - start)).unwrap_or_default()),
];

fn process_lines(now: f64, processes: &[Process], style: &Style, out: &mut String) {
    let mut title = String::new();
    for (name, width, _) in COLUMNS {
        cell(&mut title, name, *width);
    }
    line(out, format_args!("{}  PROCESS", bold(&title, style)));
    let live: Vec<_> = processes.iter().filter(|process| !process.ended).collect();
    for process in &live {
        let mut row = String::new();
        for (_, width, value) in COLUMNS {
            cell(&mut row, &value(process, now), *width);
        }
        let name = printable(&process.process);
        let inside = process.ns_pid.map(|ns_pid| format!(" (ns_pid {ns_pid})")).unwrap_or_default();
        let room = style.width.saturating_sub(row.chars().count() + 2 + inside.len()).max(8);
        line(out, format_args!("{row}  {}{inside}", clip(&name, room)));
    }
    if live.is_empty() {
        line(out, format_args!("(no process holds memory)"));
    }
}

fn cell(row: &mut String, text: &str, width: usize) {
    // Writing into a String cannot fail.
    let _ = write!(row, "{text:>width$} ");
}

pub(super) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let before = out.len();
    let _ = out.write_fmt(text);
    out.truncate(before + out[before..].trim_end().len());
    out.push('\n');
}

fn sum(process: &Process, memory_types: &[&str]) -> u64 {
    let held = process.memory.iter().filter(|memory| memory_types.contains(&memory.memory_type.as_str()));
    held.map(|memory| memory.usage_bytes).sum()
}

fn devices_of(process: &Process) -> String {
    let mut devices: Vec<_> = process.memory.iter().map(|memory| memory.device).collect();
    devices.dedup();
    devices.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn buffers_of(process: &Process) -> String {
    let known: Vec<_> = process.memory.iter().filter_map(|memory| memory.buffers).collect();
    if known.is_empty() { "-".into() } else { grouped(known.iter().sum()) }
}

/// Bytes with a unit of 1024, as short as it is telling.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].iter();
    let mut unit = units.next();
    while value >= KIB {
        let Some(next) = units.next() else { break };
        value /= KIB;
        unit = Some(next);
    }
    let decimals = if unit == Some(&"B") { 0 } else { 1 };
    format!("{value:.decimals$} {}", unit.unwrap_or(&"B"))
}

pub(super) fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

pub(super) fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// A process can call itself anything, escape sequences and what turns the direction of writing included.
pub(crate) fn printable(name: &str) -> String {
    let turns = |character| matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let is_harmful = |character: char| character.is_control() || turns(character);
    name.chars().map(|character| if is_harmful(character) { '?' } else { character }).collect()
}

fn bold(text: &str, style: &Style) -> String {
    paint(text, "1", style)
}

pub(super) fn paint(text: &str, code: &str, style: &Style) -> String {
    if style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::json::{DeviceReported, HeldMemory, UntrackedProcess};

    const PLAIN: Style = Style { width: 100, is_terminal: false, color: false, unicode: false };

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(12_871_236_864), "12.0 GiB");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(age(59.9), "59s");
        assert_eq!(age(90_000.0), "1d01h");
        assert_eq!(clip("abcdef", 4), "abc…");
    }

    #[test]
    fn a_bar_is_empty_only_for_nothing_and_full_only_for_all() {
        let check = |share, expected: &str| assert_eq!(bar(share, 10, &PLAIN), expected);
        check(0.0, "..........");
        check(0.001, "#.........");
        check(0.5, "#####.....");
        check(0.999, "#########.");
        check(1.7, "##########");
    }

    #[test]
    fn the_picture_is_complete() {
        let reported = DeviceReported {
            buffers: 1204,
            allocations_total: 0,
            frees_total: 0,
            allocated_bytes_total: 0,
            freed_bytes_total: 0,
            orphaned_buffers_total: 0,
            orphaned_bytes_total: 0,
            oldest_buffer_timestamp_seconds: None,
        };
        let memory = DeviceMemory {
            memory_type: "dram".into(),
            usage_bytes: 6 << 30,
            peak_bytes: 7 << 30,
            limit_bytes: Some(12 << 30),
            reported: Some(reported),
            source_drift_bytes: None,
        };
        let device = Device {
            device: 0,
            arch: Some("wormhole_b0".into()),
            board: Some("n150".into()),
            asic_id: None,
            pci_bus_id: None,
            serial: None,
            firmware: None,
            capacity_source: None,
            processes: 1,
            card: None,
            renumbered: Vec::new(),
            untracked: Some(Untracked {
                processes: 2,
                named: vec![UntrackedProcess { pid: 99, process: "tt-smi".into(), user: "root".into() }],
            }),
            memory: vec![memory],
        };
        let held = HeldMemory {
            device: 0,
            memory_type: "dram".into(),
            usage_bytes: 6 << 30,
            peak_bytes: 7 << 30,
            buffers: Some(1204),
            allocated_bytes_total: None,
            leak_score: None,
        };
        let process = Process {
            pid: 4711,
            ns_pid: None,
            slurm: None,
            process: "llama\x1b[2J".into(),
            user: "ml".into(),
            uid: 1000,
            source: "socket".into(),
            cgroup: None,
            container: None,
            start_time_seconds: Some(40.0),
            trace_id: String::new(),
            span_id: String::new(),
            ended: false,
            device_usage_bytes: 6 << 30,
            memory: vec![held],
        };
        let devices = Devices { timestamp_seconds: 100.0, devices: vec![device], assigned: Vec::new() };
        let expected = "\
device 0 (n150, wormhole_b0)  1 process
  dram          ##########.........    6.0 GiB   50 % of   12.0 GiB  peak    7.0 GiB  1,204 buffers
  2 processes hold it open and report nothing: tt-smi (pid 99, root)

     PID       USER  DEVICES       DRAM         L1    BUFFERS     AGE   PROCESS
    4711         ml        0    6.0 GiB        0 B      1,204   1m00s   llama?[2J
";
        assert_eq!(render(&devices, &[process], &PLAIN), expected);
    }
}
