//! What lies over the screen for a moment: the help, and the menu of columns.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::symbols::border;
use ratatui::text::Span;
use ratatui::widgets::{Block, Clear, Widget};

use super::super::keys::BINDINGS;
use super::super::list::List;
use super::Pen;

/// Columns of the keys in the help.
const KEYS: u16 = 12;

/// For terminals without other characters.
const ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Every key, from a line on.
pub(super) fn help(pen: &mut Pen<'_>, area: Rect, first: usize) {
    let widest = BINDINGS.iter().map(|binding| Span::raw(binding.help).width()).max().unwrap_or_default();
    let inner = open(pen, area, widest as u16 + KEYS + 2, BINDINGS.len() as u16, " ttmem top: keys ");
    let first = first.min(BINDINGS.len().saturating_sub(usize::from(inner.height)));
    for (line, binding) in BINDINGS.iter().skip(first).take(usize::from(inner.height)).enumerate() {
        let place = Rect { y: inner.y + line as u16, height: 1, ..inner };
        let shown = if pen.look.unicode { binding.shown.to_owned() } else { arrows_in_words(binding.shown) };
        pen.put(place, 1, &shown, Style::new().add_modifier(Modifier::BOLD));
        let text = binding.help.replace('…', if pen.look.unicode { "…" } else { "..." });
        pen.put(place, KEYS + 1, &text, Style::new());
    }
}

/// The columns, with the cursor on one.
pub(super) fn sort_menu(pen: &mut Pen<'_>, area: Rect, titles: &[&str], mut list: List) {
    let inner = open(pen, area, 22, titles.len() as u16, " sort by ");
    list.settle(titles.len(), usize::from(inner.height));
    let shown = titles.iter().enumerate().skip(list.offset).take(usize::from(inner.height));
    for (line, (number, title)) in shown.enumerate() {
        let place = Rect { y: inner.y + line as u16, height: 1, ..inner };
        pen.put(place, 1, title, Style::new());
        if number == list.selected {
            pen.paint(place, pen.look.selected());
        }
    }
}

/// Clears a box in the middle and frames it; gives what is inside.
fn open(pen: &mut Pen<'_>, area: Rect, width: u16, height: u16, title: &str) -> Rect {
    let (width, height) = ((width + 2).min(area.width), (height + 2).min(area.height));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let set = if pen.look.unicode { border::PLAIN } else { ASCII };
    let block = Block::bordered().border_set(set).title(Span::styled(title.to_owned(), pen.look.title()));
    let inner = block.inner(place);
    Clear.render(place, pen.buffer);
    block.render(place, pen.buffer);
    inner
}

fn arrows_in_words(keys: &str) -> String {
    keys.replace('↑', "Up").replace('↓', "Down").replace('→', "Right").replace('←', "Left")
}
