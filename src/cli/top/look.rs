//! How things look: colours that follow the terminal's own palette, and what stands in for them where there are none.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use crate::cli::screen::{self, ALARM, WARNING};

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Colours are wanted.
    pub(super) color: bool,
    /// Block characters can be shown.
    pub(super) unicode: bool,
}

const LEVELS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const LEVELS_ASCII: [&str; 8] = ["_", ".", ",", "-", "~", "=", "+", "#"];

impl Look {
    /// The look for standard output.
    pub(super) fn of_terminal() -> Look {
        let style = screen::Style::of_terminal();
        Look { color: style.color, unicode: style.unicode }
    }

    /// A colour where there are colours, a modifier where there are none. The background is left to the terminal, light or dark.
    fn tinted(self, color: Color, otherwise: Modifier) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new().add_modifier(otherwise) }
    }

    pub(super) fn title(self) -> Style {
        self.tinted(Color::Cyan, Modifier::BOLD).add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn warning(self) -> Style {
        self.tinted(Color::Yellow, Modifier::BOLD)
    }

    pub(super) fn alarm(self) -> Style {
        self.tinted(Color::Red, Modifier::REVERSED).add_modifier(Modifier::BOLD)
    }

    /// The row of a process that leaks; it must not look like the chosen one.
    pub(super) fn suspected(self) -> Style {
        self.tinted(Color::Red, Modifier::BOLD)
    }

    /// The line over a table, and the words beside the keys.
    pub(super) fn heading(self) -> Style {
        if self.color {
            Style::new().fg(Color::Black).bg(Color::Cyan)
        } else {
            Style::new().add_modifier(Modifier::REVERSED)
        }
    }

    /// The row on which the next key acts: the same on every terminal.
    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A bar or a sparkline at a share of the capacity, with the thresholds of the shipped alerts.
    pub(super) fn share(self, share: f64) -> Style {
        match share {
            share if share >= ALARM => self.tinted(Color::Red, Modifier::BOLD),
            share if share >= WARNING => self.tinted(Color::Yellow, Modifier::BOLD),
            _ => self.tinted(Color::Green, Modifier::empty()),
        }
    }

    /// A bar of so many columns: its full part and its empty one. A little is not nothing, and nearly full is not full.
    pub(super) fn bar(self, share: f64, width: usize) -> (String, String) {
        let (full, empty) = if self.unicode { ("█", "░") } else { ("#", ".") };
        let cells = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
        let least = usize::from(share > 0.0 && width > 0);
        // Where there is but one, it is full.
        let most = width - usize::from(share < 1.0 && width > 1);
        let cells = cells.clamp(least, most);
        (full.repeat(cells), empty.repeat(width - cells))
    }

    /// A sparkline of the values, at most one column each, right-aligned by the caller; what is not known is left blank.
    pub(super) fn sparkline(self, values: &[Option<u64>], full: u64) -> String {
        let levels = if self.unicode { &LEVELS } else { &LEVELS_ASCII };
        let level = |value: u64| {
            let steps = levels.len() as u128;
            let level = u128::from(value) * steps / u128::from(full.max(1));
            levels[(level as usize).min(levels.len() - 1)]
        };
        values.iter().map(|value| value.map_or(" ", level)).collect()
    }

    /// Somebody else's text as this terminal can show it.
    pub(super) fn foreign(self, text: &str) -> String {
        let text = screen::printable(text);
        if self.unicode {
            return text;
        }
        text.chars().map(|character| if character.is_ascii() { character } else { '?' }).collect()
    }

    /// A text in at most so many columns, with a mark where something is missing.
    pub(super) fn fitted(self, text: &str, width: usize) -> String {
        if Span::raw(text).width() <= width {
            return text.to_owned();
        }
        let mark = if self.unicode { "…" } else { "~" };
        let mut end = 0;
        for (at, character) in text.char_indices() {
            let next = at + character.len_utf8();
            if Span::raw(&text[..next]).width() + 1 > width {
                break;
            }
            end = next;
        }
        if width == 0 { String::new() } else { format!("{}{mark}", &text[..end]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look { color: true, unicode: true };
    const PLAIN: Look = Look { color: false, unicode: false };

    #[test]
    fn bars_and_sparklines_say_neither_too_much_nor_too_little() {
        assert_eq!(LOOK.bar(0.0, 4), (String::new(), "░░░░".into()));
        assert_eq!(LOOK.bar(0.001, 4), ("█".into(), "░░░".into()));
        assert_eq!(LOOK.bar(0.999, 4), ("███".into(), "░".into()));
        assert_eq!(PLAIN.bar(1.7, 4), ("####".into(), String::new()));
        assert_eq!(LOOK.bar(0.1, 1), ("█".into(), String::new()));
        assert_eq!(LOOK.bar(0.5, 0), (String::new(), String::new()));
        assert_eq!(LOOK.sparkline(&[Some(0), None, Some(50), Some(100), Some(u64::MAX)], 100), "▁ ▅██");
        assert_eq!(PLAIN.sparkline(&[Some(1), Some(2)], 0), "##");
    }

    #[test]
    fn foreign_text_is_harmless_and_fits() {
        assert_eq!(LOOK.foreign("a\x1b[2Jb\u{202e}c"), "a?[2Jb?c");
        assert_eq!(PLAIN.foreign("größe"), "gr??e");
        assert_eq!(LOOK.fitted("abcdef", 6), "abcdef");
        assert_eq!(LOOK.fitted("abcdef", 4), "abc…");
        // Each of these takes two columns.
        assert_eq!(LOOK.fitted("模型服务", 8), "模型服务");
        assert_eq!(LOOK.fitted("模型服务", 6), "模型…");
        assert_eq!(LOOK.fitted("模型服务", 0), "");
    }

    #[test]
    fn without_colours_none_is_used() {
        for style in [
            PLAIN.title(),
            PLAIN.alarm(),
            PLAIN.heading(),
            PLAIN.selected(),
            PLAIN.share(0.99),
            PLAIN.warning(),
        ] {
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }
}
