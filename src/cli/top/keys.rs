//! Which key does what: one table for what keys do, for the footer and for the help.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::columns::{BY_AGE, BY_PID, BY_USAGE};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    OtherPanel,
    MemoryType,
    Filter,
    SortMenu,
    PreviousColumn,
    NextColumn,
    Reverse,
    /// By the column of that title.
    SortBy(&'static str),
    Pause,
    Mouse,
    Redraw,
    Suspend,
    Help,
    Quit,
}

/// A line of the help.
pub(super) struct Binding {
    pub(super) action: Action,
    keys: &'static [KeyCode],
    /// With the control key, these letters.
    control: &'static [char],
    /// How the keys are written.
    pub(super) shown: &'static str,
    /// The key and the word that the footer has for it, if any.
    pub(super) footer: Option<(&'static str, &'static str)>,
    pub(super) help: &'static str,
}

const fn binding(
    action: Action,
    keys: &'static [KeyCode],
    shown: &'static str,
    help: &'static str,
) -> Binding {
    Binding { action, keys, control: &[], shown, footer: None, help }
}

impl Binding {
    const fn in_footer(mut self, key: &'static str, word: &'static str) -> Binding {
        self.footer = Some((key, word));
        self
    }

    const fn with_control(mut self, letters: &'static [char]) -> Binding {
        self.control = letters;
        self
    }
}

use KeyCode::{BackTab, Char, Down, End, Enter, Esc, F, Home, Left, PageDown, PageUp, Right, Tab, Up};

/// Every key, in the order of the footer and of the help.
pub(super) const BINDINGS: &[Binding] = &[
    binding(Action::Help, &[F(1), Char('?'), Char('h')], "F1 ? h", "this help").in_footer("F1", "Help"),
    binding(Action::MemoryType, &[F(2), Char('t')], "F2 t", "the next memory type: dram, l1, trace, …")
        .in_footer("F2", "Memory"),
    binding(Action::Filter, &[F(4), Char('/')], "F4 /", "show only rows with a text; Esc ends it")
        .in_footer("F4", "Filter"),
    binding(Action::SortMenu, &[F(6), Char('s')], "F6 s", "choose the column to sort by")
        .in_footer("F6", "Sort"),
    binding(Action::Pause, &[Char('p'), Char(' ')], "p Space", "stand still, and go on")
        .in_footer("p", "Pause"),
    binding(Action::OtherPanel, &[Tab, BackTab], "Tab", "between the devices and the table")
        .in_footer("Tab", "Panel"),
    binding(
        Action::Open,
        &[Enter, Right, Char('l')],
        "Enter → l",
        "open a device, or a process and its buffers",
    )
    .in_footer("Enter", "Open"),
    binding(Action::Back, &[Esc, Left, KeyCode::Backspace], "Esc ←", "back; ends a filter first")
        .in_footer("Esc", "Back"),
    binding(Action::Quit, &[F(10), Char('q')], "F10 q ^C", "quit")
        .in_footer("q", "Quit")
        .with_control(&['c']),
    binding(Action::Up, &[Up, Char('k')], "↑ k", "up").with_control(&['p']),
    binding(Action::Down, &[Down, Char('j')], "↓ j", "down").with_control(&['n']),
    binding(Action::PageUp, &[PageUp], "PgUp ^B", "a page up").with_control(&['b']),
    binding(Action::PageDown, &[PageDown], "PgDn ^F", "a page down").with_control(&['f']),
    binding(Action::First, &[Home, Char('g')], "Home g", "the first row"),
    binding(Action::Last, &[End, Char('G')], "End G", "the last row"),
    binding(Action::PreviousColumn, &[Char('<'), Char(',')], "<", "sort by the column to the left"),
    binding(Action::NextColumn, &[Char('>'), Char('.')], ">", "sort by the column to the right"),
    binding(Action::Reverse, &[Char('I'), Char('r')], "I r", "sort the other way round"),
    binding(Action::SortBy(BY_USAGE), &[Char('M')], "M", "sort by memory"),
    binding(Action::SortBy(BY_PID), &[Char('N')], "N", "sort by process id"),
    binding(Action::SortBy(BY_AGE), &[Char('T')], "T", "sort by age"),
    binding(
        Action::Mouse,
        &[Char('m')],
        "m",
        "mouse on and off: click to choose, again to open; titles sort",
    ),
    binding(Action::Redraw, &[], "^L", "draw everything anew").with_control(&['l']),
    binding(Action::Suspend, &[], "^Z", "stop; fg goes on").with_control(&['z']),
];

/// What a key asks for, if anything.
pub(super) fn action(key: KeyEvent) -> Option<Action> {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let asks = |binding: &&Binding| match key.code {
        Char(letter) if is_control => binding.control.contains(&letter.to_ascii_lowercase()),
        code => binding.keys.contains(&code),
    };
    BINDINGS.iter().find(asks).map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things() {
        let mut keys: Vec<_> = BINDINGS.iter().flat_map(|binding| binding.keys).collect();
        let mut letters: Vec<_> = BINDINGS.iter().flat_map(|binding| binding.control).collect();
        let counts = (keys.len(), letters.len());
        keys.sort_by_key(|key| format!("{key:?}"));
        keys.dedup();
        letters.sort();
        letters.dedup();
        assert_eq!((keys.len(), letters.len()), counts);
    }

    #[test]
    fn control_is_another_key() {
        let key = |code, modifiers| action(KeyEvent::new(code, modifiers));
        assert_eq!(key(Char('l'), KeyModifiers::NONE), Some(Action::Open));
        assert_eq!(key(Char('l'), KeyModifiers::CONTROL), Some(Action::Redraw));
        assert_eq!(key(Char('G'), KeyModifiers::SHIFT), Some(Action::Last));
        assert_eq!(key(Char('x'), KeyModifiers::CONTROL), None);
        assert_eq!(key(F(10), KeyModifiers::NONE), Some(Action::Quit));
    }
}
