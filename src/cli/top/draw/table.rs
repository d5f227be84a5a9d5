//! The lower part: a heading and the rows that can be seen, of processes or of buffers.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::super::columns::{BUFFER, Column, PROCESS, visible};
use super::super::list::List;
use super::super::model::{Model, Panel, Told, View};
use super::super::places::Places;
use super::super::rows::Sort;
use super::{Pen, SUSPECTED};
use crate::cli::screen::grouped;

pub(super) fn draw(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let look = pen.look;
    if let View::Process { .. } = model.view {
        let is_known = matches!(model.told, Told::Known { .. });
        let rows = if is_known { &model.buffer_rows[..] } else { &[] };
        let table =
            Table { columns: BUFFER, rows, list: model.buffers, sort: model.buffer_sort, now: model.now };
        table.draw(pen, places, model.panel == Panel::Table, |_| Style::new());
        buffers_note(pen, places, model);
        return;
    }
    let table = Table {
        columns: PROCESS,
        rows: &model.process_rows,
        list: model.processes,
        sort: model.process_sort,
        now: model.now,
    };
    table.draw(pen, places, model.panel == Panel::Table, |row| match row.leak_score {
        Some(score) if score >= SUSPECTED => look.suspected(),
        Some(_) => look.warning(),
        None => Style::new(),
    });
    if model.process_rows.is_empty() {
        let text = if model.filter.is_empty() {
            "(no process holds memory)"
        } else {
            "(no process matches the filter)"
        };
        pen.put(places.table, 1, text, look.dim());
    }
}

/// What there is to say where rows are missing.
fn buffers_note(pen: &mut Pen<'_>, places: &Places, model: &Model) {
    let look = pen.look;
    let (text, style) = match &model.told {
        Told::Asked => ("asking for the buffers …".to_owned(), look.dim()),
        Told::Unknown(why) => {
            (format!("The buffers are told over HTTP: {}", look.foreign(why)), look.warning())
        }
        Told::Known { all, .. } if all.is_empty() => {
            let text = "The daemon that is asked over HTTP knows no buffer of it; another one is named with --server.";
            (text.to_owned(), look.dim())
        }
        Told::Known { all, are_more: true } => {
            let text = format!(" the first {} of its buffers ", grouped(all.len() as u64));
            pen.put_right(places.heading, places.heading.width, &text, look.warning());
            return;
        }
        Told::Known { .. } if model.buffer_rows.is_empty() => {
            ("(no buffer matches the filter)".to_owned(), look.dim())
        }
        Told::Known { .. } => return,
    };
    pen.put(places.table, 1, &text, style);
}

struct Table<'a, R: 'static> {
    columns: &'static [Column<R>],
    rows: &'a [R],
    list: List,
    sort: Sort,
    now: f64,
}

impl<R> Table<'_, R> {
    /// Only the rows that can be seen are put into words.
    fn draw(&self, pen: &mut Pen<'_>, places: &Places, is_focused: bool, style_of: impl Fn(&R) -> Style) {
        let columns = visible(self.columns, places.heading.width);
        pen.paint(places.heading, pen.look.heading());
        for (at, begin, end) in &columns {
            let column = &self.columns[*at];
            let is_sorted = self.sort.column == *at;
            let goes_down = column.is_descending != self.sort.is_reversed;
            let mark = match (is_sorted, goes_down, pen.look.unicode) {
                (false, ..) => "",
                (true, true, true) => "▼",
                (true, false, true) => "▲",
                (true, true, false) => "v",
                (true, false, false) => "^",
            };
            let style =
                if is_sorted { pen.look.heading().add_modifier(Modifier::BOLD) } else { pen.look.heading() };
            self.cell(pen, places.heading, (*begin, *end), column, &format!("{}{mark}", column.title), style);
        }
        let shown =
            self.rows.iter().enumerate().skip(self.list.offset).take(usize::from(places.table.height));
        for (line, (number, row)) in shown.enumerate() {
            let place = Rect { y: places.table.y + line as u16, height: 1, ..places.table };
            for (at, begin, end) in &columns {
                let column = &self.columns[*at];
                let text = pen.look.foreign(&(column.text)(row, self.now));
                self.cell(pen, place, (*begin, *end), column, &text, style_of(row));
            }
            if is_focused && number == self.list.selected {
                pen.paint(place, pen.look.selected());
            }
        }
    }

    /// Figures end where their column ends, the last column begins where it begins.
    fn cell(
        &self,
        pen: &mut Pen<'_>,
        line: Rect,
        (begin, end): (u16, u16),
        column: &Column<R>,
        text: &str,
        style: Style,
    ) {
        let place = Rect { x: line.x + begin, width: end.saturating_sub(begin), ..line };
        if column.width == 0 {
            pen.put(place, 1, text, style);
        } else {
            let text = pen.look.fitted(text, usize::from(column.width));
            pen.put_right(place, place.width, &text, style);
        }
    }
}
