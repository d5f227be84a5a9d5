//! The screen as a pure function of the model: title, panel, table and footer.

mod overlay;
mod panel;
mod table;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::keys::BINDINGS;
use super::look::Look;
use super::model::{Model, Overlay, View};
use super::places::{HEIGHT_MIN, Places, WIDTH_MIN};
use crate::cli::screen::{age, plural};

/// From this score on the analysis calls a leak suspected.
const SUSPECTED: f64 = 0.5;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, look: Look) {
    let area = frame.area();
    let mut pen = Pen { buffer: frame.buffer_mut(), look };
    // The model may not have heard of a new size yet.
    let Some(places) = Places::of(area, model.panel_lines()) else {
        let size = format!("{} x {}", area.width, area.height);
        pen.put(area, 0, &format!("This terminal has {size}"), Style::new());
        pen.put(lower(area, 1), 0, &format!("at least {WIDTH_MIN} x {HEIGHT_MIN} are needed"), Style::new());
        pen.put(lower(area, 2), 0, "q quits", look.dim());
        return;
    };
    title(&mut pen, &places, model);
    if model.picture.is_some() {
        panel::draw(&mut pen, &places, model);
        table::draw(&mut pen, &places, model);
    } else {
        waiting(&mut pen, &places, model);
    }
    footer(&mut pen, &places, model);
    match &model.overlay {
        Overlay::Help(first) => overlay::help(&mut pen, area, *first),
        Overlay::SortMenu(list) => overlay::sort_menu(&mut pen, area, &model.sort_titles(), *list),
        Overlay::None | Overlay::Filter { .. } => {}
    }
}

/// What everything is written with: it never leaves its place.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    look: Look,
}

impl Pen<'_> {
    /// Writes into the first line of a place, from a column of it on; gives the column after the text.
    fn put(&mut self, place: Rect, column: u16, text: &str, style: Style) -> u16 {
        let place = place.intersection(self.buffer.area);
        if place.height == 0 || column >= place.width {
            return column;
        }
        let room = usize::from(place.width - column);
        let text = self.look.fitted(text, room);
        let (end, _) = self.buffer.set_stringn(place.x + column, place.y, text, room, style);
        end - place.x
    }

    /// The same, ending at a column.
    fn put_right(&mut self, place: Rect, end: u16, text: &str, style: Style) {
        let width = u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX);
        self.put(place, end.saturating_sub(width), text, style);
    }

    /// Gives a place a style, whatever is written there.
    fn paint(&mut self, place: Rect, style: Style) {
        self.buffer.set_style(place, style);
    }
}

/// The place that begins so many lines below.
fn lower(place: Rect, lines: u16) -> Rect {
    let lines = lines.min(place.height);
    Rect { y: place.y + lines, height: place.height - lines, ..place }
}

/// What is shown, of whom, and how fresh it is.
fn title(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let look = pen.look;
    let place = places.title;
    let doubt = model.doubt();
    let (state, style) = match (&model.picture, &doubt) {
        (None, _) => ("waiting", look.warning()),
        _ if model.is_paused => ("PAUSED", look.warning()),
        (_, Some(_)) => ("OLD", look.alarm()),
        _ => ("live", look.dim()),
    };
    pen.put_right(place, place.width, state, style);
    let room = Rect { width: place.width.saturating_sub(state.len() as u16 + 1), ..place };
    let mut column = pen.put(room, 0, "ttmem top", look.title());
    let told = match (&model.picture, doubt) {
        (None, _) => String::new(),
        (Some(picture), Some(why)) => {
            let old = age(model.now - picture.devices.timestamp_seconds);
            pen.put(room, column + 2, &format!("{old} old: {}", look.foreign(&why)), look.warning());
            return;
        }
        (Some(picture), None) => {
            let living = picture.processes.iter().filter(|process| !process.ended).count() as u64;
            let devices = plural(picture.devices.devices.len() as u64, "device", "devices");
            format!("{devices}, {}, {}", plural(living, "process", "processes"), model.memory_type)
        }
    };
    column = pen.put(room, column + 2, &told, Style::new().add_modifier(Modifier::BOLD));
    let source = model.picture.as_ref().map(|picture| picture.source.as_str()).unwrap_or_default();
    pen.put(room, column + 2, &look.foreign(source), look.dim());
}

/// There is no daemon yet.
fn waiting(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let look = pen.look;
    let place =
        Rect { height: places.panel.height + places.heading.height + places.table.height, ..places.panel };
    let place = lower(place, 1);
    pen.put(place, 2, "Waiting for a daemon", look.title());
    let why = model.lost.as_deref().unwrap_or("asking");
    // Sentences of a failure are longer than a line.
    let mut line = 2;
    let room = usize::from(place.width.saturating_sub(4));
    let mut text = String::new();
    for word in look.foreign(why).split_whitespace() {
        if !text.is_empty() && Span::raw(&text).width() + Span::raw(word).width() + 1 > room {
            pen.put(lower(place, line), 2, &text, Style::new());
            text.clear();
            line += 1;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    pen.put(lower(place, line), 2, &text, Style::new());
}

/// The keys, or the filter that is being written.
fn footer(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let look = pen.look;
    let place = places.footer;
    if matches!(model.overlay, Overlay::Filter { .. }) {
        pen.paint(place, look.heading());
        let text = look.foreign(&model.filter);
        let column = pen.put(place, 0, " Filter: ", look.heading());
        let column = pen.put(place, column, &text, look.heading());
        pen.put(place, column, "_", look.heading().add_modifier(Modifier::BOLD));
        pen.put_right(place, place.width, "Enter keeps it  Esc ends it ", look.heading());
        return;
    }
    let mut column = 0;
    for (key, word) in BINDINGS.iter().filter_map(|binding| binding.footer) {
        let is_idle = match key {
            "Esc" => model.view == View::Overview && model.filter.is_empty(),
            "Tab" => model.view != View::Overview,
            _ => false,
        };
        if is_idle {
            continue;
        }
        column = pen.put(place, column, key, Style::new().add_modifier(Modifier::BOLD));
        column = pen.put(place, column, &format!("{word} "), look.heading());
        column += 1;
    }
    if !model.filter.is_empty() {
        pen.put_right(
            place,
            place.width,
            &format!(" filter: {} ", look.foreign(&model.filter)),
            look.warning(),
        );
    }
}
