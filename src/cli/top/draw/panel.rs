//! The upper part: every device as a line with a bar and a sparkline, or all that one device or process holds.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::model::{Model, Panel, View, device_lines, process_lines};
use super::super::places::Places;
use super::{Pen, SUSPECTED};
use crate::cli::screen::{age, bytes, plural};
use crate::views::json::{Device, Process};

/// Columns of a line's label.
const LABEL: u16 = 15;
/// Columns of a line's figures: a share and what is used; and the limit, where a line has room for it.
const FIGURES: u16 = 16;
const LIMIT: u16 = 13;
const WIDTH_WITH_LIMIT: u16 = 64;
/// Columns of the peak, and the width of a line that has room for it.
const PEAK: u16 = 17;
const WIDTH_WITH_PEAK: u16 = 96;
/// More says nothing more.
const BAR_MAX: u16 = 60;

pub(super) fn draw(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    match model.view {
        View::Overview => overview(pen, places, model),
        View::Device(_) => device(pen, places, model),
        View::Process { .. } => process(pen, places, model),
    }
}

/// A memory of a device, and how much of it is used.
struct Gauge<'a> {
    label: &'a str,
    device: u16,
    memory_type: &'a str,
    usage_bytes: u64,
    peak_bytes: u64,
    limit_bytes: Option<u64>,
    /// Only of devices is known what was so before.
    has_past: bool,
}

fn overview(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let Some(picture) = &model.picture else { return };
    let devices = &picture.devices.devices;
    let room = places.panel_room();
    let shown = devices.iter().enumerate().skip(model.devices.offset).take(room);
    for (line, (at, device)) in shown.enumerate() {
        let place = places.panel_line(line);
        let memory = device.memory.iter().find(|memory| memory.memory_type == model.memory_type);
        let untracked = device.untracked.as_ref().map_or(0, |untracked| untracked.processes);
        let mark = if untracked > 0 { format!(" +{untracked}") } else { String::new() };
        let board = pen.look.foreign(device.board.as_deref().unwrap_or("?"));
        let label = format!("{:>4} {board}{mark}", device.device);
        gauge(
            pen,
            place,
            model,
            &Gauge {
                label: &label,
                device: device.device,
                memory_type: model.memory_type,
                usage_bytes: memory.map_or(0, |memory| memory.usage_bytes),
                peak_bytes: memory.map_or(0, |memory| memory.peak_bytes),
                limit_bytes: memory.and_then(|memory| memory.limit_bytes),
                has_past: true,
            },
        );
        if model.panel == Panel::Devices && at == model.devices.selected {
            pen.paint(Rect { width: LABEL.min(place.width), ..place }, pen.look.selected());
        }
    }
    note_hidden(pen, places, devices.len(), ": Tab ");
}

/// What is out of sight is said where the last line ends.
fn note_hidden(pen: &mut Pen<'_>, places: &Places, lines: usize, remedy: &str) {
    let room = places.panel_room();
    let hidden = lines.saturating_sub(room);
    if hidden > 0 {
        let place = places.panel_line(room.saturating_sub(1));
        pen.put_right(place, place.width, &format!(" {hidden} more{remedy}"), pen.look.heading());
    }
}

fn device(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let head = places.panel_line(0);
    let Some(device) = model.device() else {
        pen.put(head, 0, "This device is not known any more; Esc goes back.", pen.look.warning());
        return;
    };
    pen.put(head, 0, &device_head(pen, device), Style::new().add_modifier(Modifier::BOLD));
    for (line, memory) in device_lines(device).enumerate().take(places.panel_room().saturating_sub(1)) {
        let gauge_of = Gauge {
            label: &format!("  {}", memory.memory_type),
            device: device.device,
            memory_type: &memory.memory_type,
            usage_bytes: memory.usage_bytes,
            peak_bytes: memory.peak_bytes,
            limit_bytes: memory.limit_bytes,
            has_past: true,
        };
        gauge(pen, places.panel_line(line + 1), model, &gauge_of);
    }
    note_hidden(pen, places, device_lines(device).count() + 1, " ");
}

fn device_head(pen: &Pen<'_>, device: &Device) -> String {
    let name: Vec<_> = [device.board.as_deref(), device.arch.as_deref()].into_iter().flatten().collect();
    let name = if name.is_empty() { "unknown product".to_owned() } else { name.join(", ") };
    let processes = plural(device.processes, "process", "processes");
    let mut head = format!("device {} ({name})  {processes}", device.device);
    if let Some(untracked) = device.untracked.as_ref().filter(|untracked| untracked.processes > 0) {
        let who: Vec<_> =
            untracked.named.iter().map(|process| format!("{} ({})", process.process, process.pid)).collect();
        let who = if who.is_empty() { String::new() } else { format!(": {}", who.join(", ")) };
        head.push_str(&format!("  {} more without reports{who}", untracked.processes));
    }
    let places = [("bus", &device.pci_bus_id), ("chip", &device.asic_id)];
    for (what, value) in places {
        head.extend(value.iter().map(|value| format!("  {what} {value}")));
    }
    pen.look.foreign(&head)
}

fn process(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let head = places.panel_line(0);
    let Some(process) = model.process() else {
        pen.put(head, 0, "This process has ended; Esc goes back.", pen.look.warning());
        return;
    };
    pen.put(head, 0, &process_head(pen, process, model.now), Style::new().add_modifier(Modifier::BOLD));
    let suspected =
        model.suspected.get(&process.pid).filter(|suspected| suspected.process == process.process);
    let (told, style) = match (suspected, &model.unanswered) {
        (Some(suspected), _) => {
            let score = suspected.score * 100.0;
            let style = if suspected.score >= SUSPECTED { pen.look.alarm() } else { pen.look.warning() };
            (format!("leak {score:.0}%: {}", pen.look.foreign(&suspected.evidence)), style)
        }
        (None, Some(_)) => ("leaks: not known, as HTTP does not answer".to_owned(), pen.look.dim()),
        (None, None) => ("nothing looks like a leak".to_owned(), pen.look.dim()),
    };
    pen.put(places.panel_line(1), 2, &told, style);
    let limits = |device: u16, memory_type: &str| {
        let devices = model.picture.as_ref().map_or(&[][..], |picture| &picture.devices.devices);
        let known = devices.iter().find(|known| known.device == device)?;
        known.memory.iter().find(|memory| memory.memory_type == memory_type)?.limit_bytes
    };
    let room = places.panel_room().saturating_sub(2);
    let lines = process_lines(process);
    for (line, held) in lines.iter().enumerate().take(room) {
        let gauge_of = Gauge {
            label: &format!("{:>4} {}", held.device, held.memory_type),
            device: held.device,
            memory_type: &held.memory_type,
            usage_bytes: held.usage_bytes,
            peak_bytes: held.peak_bytes,
            limit_bytes: limits(held.device, &held.memory_type),
            has_past: false,
        };
        gauge(pen, places.panel_line(line + 2), model, &gauge_of);
    }
    note_hidden(pen, places, lines.len() + 2, " ");
}

fn process_head(pen: &Pen<'_>, process: &Process, now: f64) -> String {
    let mut head = format!("{} (pid {}, {})", process.process, process.pid, process.user);
    head.extend(process.start_time_seconds.map(|start| format!("  for {}", age(now - start))));
    head.extend(process.ns_pid.map(|ns_pid| format!("  ns_pid {ns_pid}")));
    if let Some(names) = process.container.as_ref().and_then(|container| container.names.as_ref()) {
        head.push_str(&format!("  {}/{}", names.k8s_namespace_name, names.k8s_pod_name));
    }
    head.extend(process.slurm.as_ref().map(|job| format!("  slurm {}", job.job_id)));
    pen.look.foreign(&head)
}

/// Label, bar, figures, and the sparkline in what room is left.
fn gauge(pen: &mut Pen<'_>, place: Rect, model: &Model, gauge: &Gauge<'_>) {
    let look = pen.look;
    pen.put(Rect { width: LABEL.min(place.width), ..place }, 0, gauge.label, Style::new());
    let limit_width = if place.width >= WIDTH_WITH_LIMIT { LIMIT } else { 0 };
    let peak_width = if place.width >= WIDTH_WITH_PEAK { PEAK } else { 0 };
    let around = LABEL + FIGURES + limit_width + peak_width;
    let free = place.width.saturating_sub(around + 1);
    let past_width = if gauge.has_past { free / 2 } else { 0 };
    let bar_width = (free - past_width).min(BAR_MAX);
    let share =
        gauge.limit_bytes.filter(|limit| *limit > 0).map(|limit| gauge.usage_bytes as f64 / limit as f64);
    let style = look.share(share.unwrap_or_default());
    let mut column = LABEL;
    if let Some(share) = share {
        let (full, empty) = look.bar(share, usize::from(bar_width));
        let end = pen.put(place, column, &full, style);
        pen.put(place, end, &empty, look.dim());
    }
    column += bar_width;
    if let Some(share) = share {
        pen.put_right(place, column + 5, &format!("{:.0}%", share * 100.0), style);
    }
    column += FIGURES;
    pen.put_right(place, column, &bytes(gauge.usage_bytes), Style::new());
    if let Some(limit) = gauge.limit_bytes.filter(|_| limit_width > 0) {
        pen.put(place, column, &format!(" / {}", bytes(limit)), look.dim());
    }
    column += limit_width;
    column += peak_width;
    if peak_width > 0 {
        pen.put_right(place, column, &format!("peak {}", bytes(gauge.peak_bytes)), look.dim());
    }
    if past_width > 1 {
        let values = model.samples.last(gauge.device, gauge.memory_type, usize::from(past_width));
        // Without a limit the highest that can be seen is full.
        let highest = || values.iter().flatten().copied().max().unwrap_or_default();
        let full = gauge.limit_bytes.unwrap_or_else(highest);
        let line = look.sparkline(&values, full);
        pen.put_right(place, (column + 1 + past_width).min(place.width), &line, style);
    }
}
