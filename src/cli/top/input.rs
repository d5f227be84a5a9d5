//! What keys and the mouse do to the model.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;
use ttmem_wire::stats::MEMORY_TYPE_NAMES;

use super::columns::{self, BUFFER, PROCESS, visible};
use super::keys::{self, Action};
use super::list::List;
use super::model::{Model, Overlay, Panel, Told, View, Wish};
use super::rows::{ProcessRow, Sort};

/// A wheel's step, in rows.
const WHEEL_ROWS: isize = 3;

impl Model {
    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        let wish = match &mut self.overlay {
            Overlay::Filter { .. } => self.edit_filter(key),
            Overlay::Help(_) | Overlay::SortMenu(_) => self.press_in_overlay(key),
            Overlay::None => keys::action(key).map_or(Wish::Nothing, |action| self.act(action)),
        };
        self.settle();
        wish
    }

    /// Takes what the mouse does.
    pub(super) fn point(&mut self, event: MouseEvent) -> Wish {
        let wish = match event.kind {
            MouseEventKind::ScrollUp => self.wheel(-WHEEL_ROWS),
            MouseEventKind::ScrollDown => self.wheel(WHEEL_ROWS),
            MouseEventKind::Down(MouseButton::Left) => self.click(Position { x: event.column, y: event.row }),
            _ => Wish::Nothing,
        };
        self.settle();
        wish
    }

    fn act(&mut self, action: Action) -> Wish {
        match action {
            Action::Quit => return Wish::Quit,
            Action::Suspend => return Wish::Suspend,
            Action::Redraw => return Wish::Redraw,
            Action::Mouse => {
                self.has_mouse = !self.has_mouse;
                return Wish::Mouse(self.has_mouse);
            }
            Action::Up => self.move_by(-1),
            Action::Down => self.move_by(1),
            Action::PageUp => self.move_by(-self.page()),
            Action::PageDown => self.move_by(self.page()),
            Action::First => self.move_by(isize::MIN),
            Action::Last => self.move_by(isize::MAX),
            Action::Open => self.open(),
            Action::Back => self.go_back(),
            Action::OtherPanel => {
                let is_table = self.panel == Panel::Table && self.view == View::Overview;
                self.panel = if is_table { Panel::Devices } else { Panel::Table };
            }
            Action::MemoryType => self.show_next_memory_type(),
            Action::Filter => self.overlay = Overlay::Filter { before: self.filter.clone() },
            Action::SortMenu => {
                self.overlay = Overlay::SortMenu(List { selected: self.sort().column, offset: 0 });
            }
            Action::PreviousColumn => self.sort_by_visible(-1),
            Action::NextColumn => self.sort_by_visible(1),
            Action::Reverse => self.sort().is_reversed ^= true,
            Action::SortBy(title) => {
                let column = match self.view {
                    View::Process { .. } => columns::position(BUFFER, title),
                    _ => columns::position(PROCESS, title),
                };
                column.into_iter().for_each(|column| self.sort_by(column));
            }
            Action::Pause => {
                self.is_paused = !self.is_paused;
                self.samples.stand_still(self.is_paused);
            }
            Action::Help => self.overlay = Overlay::Help(0),
        }
        self.arrange();
        Wish::Nothing
    }

    fn press_in_overlay(&mut self, key: KeyEvent) -> Wish {
        let action = keys::action(key);
        if action == Some(Action::Quit) && key.code != KeyCode::Char('q') {
            return Wish::Quit;
        }
        let last = self.sort_titles().len().saturating_sub(1);
        match (&mut self.overlay, action) {
            (Overlay::Help(first), Some(Action::Down)) => *first += 1,
            (Overlay::Help(first), Some(Action::Up)) => *first = first.saturating_sub(1),
            (Overlay::SortMenu(list), Some(Action::Down)) => list.selected = (list.selected + 1).min(last),
            (Overlay::SortMenu(list), Some(Action::Up)) => list.selected = list.selected.saturating_sub(1),
            (Overlay::SortMenu(list), Some(Action::First)) => list.selected = 0,
            (Overlay::SortMenu(list), Some(Action::Last)) => list.selected = last,
            (Overlay::SortMenu(list), Some(Action::Open)) => {
                let column = list.selected;
                self.overlay = Overlay::None;
                self.sort_by(column);
                self.arrange();
            }
            _ => self.overlay = Overlay::None,
        }
        Wish::Nothing
    }

    fn edit_filter(&mut self, key: KeyEvent) -> Wish {
        let Overlay::Filter { before } = &mut self.overlay else { return Wish::Nothing };
        match (key.code, keys::action(key)) {
            (KeyCode::Enter, _) => self.overlay = Overlay::None,
            (KeyCode::Esc, _) => {
                self.filter = std::mem::take(before);
                self.overlay = Overlay::None;
            }
            (KeyCode::Backspace, _) => drop(self.filter.pop()),
            (KeyCode::Char(_), Some(Action::Quit | Action::Suspend | Action::Redraw))
                if key.modifiers.contains(KeyModifiers::CONTROL) =>
            {
                self.overlay = Overlay::None;
                return keys::action(key).map_or(Wish::Nothing, |action| self.act(action));
            }
            (KeyCode::Char(letter), _) => self.filter.push(letter),
            (_, Some(action @ (Action::Up | Action::Down | Action::PageUp | Action::PageDown))) => {
                self.act(action);
            }
            _ => {}
        }
        self.arrange();
        Wish::Nothing
    }

    fn wheel(&mut self, rows: isize) -> Wish {
        if self.overlay == Overlay::None {
            self.move_by(rows);
        }
        Wish::Nothing
    }

    /// A click chooses, one on what is chosen opens, and one on a title sorts.
    fn click(&mut self, position: Position) -> Wish {
        if !matches!(self.overlay, Overlay::None) {
            self.overlay = Overlay::None;
            return Wish::Nothing;
        }
        let Some(places) = self.places() else { return Wish::Nothing };
        let chosen = if places.table.contains(position) {
            Some((Panel::Table, usize::from(position.y - places.table.y)))
        } else if self.view == View::Overview {
            places.panel_line_at(position).map(|line| (Panel::Devices, line))
        } else {
            None
        };
        if let Some((panel, line)) = chosen {
            let was_there = panel == self.panel;
            self.panel = panel;
            let row = self.list().offset + line;
            if was_there && self.list().selected == row {
                self.open();
            } else if row < self.rows() {
                self.list().selected = row;
                self.follow_choice();
            }
        } else if places.heading.contains(position) {
            let titles = match self.view {
                View::Process { .. } => visible(BUFFER, places.heading.width),
                _ => visible(PROCESS, places.heading.width),
            };
            let hit = titles.into_iter().find(|(_, begin, end)| (*begin..*end).contains(&position.x));
            hit.into_iter().for_each(|(column, ..)| self.sort_by(column));
        }
        self.arrange();
        Wish::Nothing
    }

    /// Opens what is chosen.
    fn open(&mut self) {
        if self.panel == Panel::Devices {
            let chosen =
                self.picture.as_ref().and_then(|picture| picture.devices.devices.get(self.devices.selected));
            let Some(device) = chosen.map(|device| device.device) else { return };
            self.panel = Panel::Table;
            self.show(View::Device(device));
            return;
        }
        let from = match self.view {
            View::Overview => None,
            View::Device(device) => Some(device),
            View::Process { .. } => return,
        };
        let Some(identity) = self.process_rows.get(self.processes.selected).map(ProcessRow::identity) else {
            return;
        };
        self.chosen = Some(identity);
        self.told = Told::Asked;
        self.buffer_rows.clear();
        self.buffers = List::default();
        self.show(View::Process { identity, from });
    }

    fn go_back(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
            return;
        }
        match self.view {
            View::Overview => self.panel = Panel::Table,
            View::Device(_) | View::Process { from: None, .. } => self.show(View::Overview),
            View::Process { from: Some(device), .. } => self.show(View::Device(device)),
        }
    }

    /// What was looked for there is not what is looked for here.
    fn show(&mut self, view: View) {
        self.filter.clear();
        self.view = view;
    }

    /// The next type of which anything is known.
    fn show_next_memory_type(&mut self) {
        let types = MEMORY_TYPE_NAMES;
        let is_known = |name: &str| {
            let devices = self.picture.iter().flat_map(|picture| &picture.devices.devices);
            let mut memory = devices.flat_map(|device| &device.memory);
            memory.any(|memory| {
                memory.memory_type == name && (memory.peak_bytes > 0 || memory.limit_bytes.is_some())
            })
        };
        let at = types.iter().position(|name| *name == self.memory_type).unwrap_or_default();
        let following = (1..=types.len()).map(|step| types[(at + step) % types.len()]);
        self.memory_type = following.into_iter().find(|name| is_known(name)).unwrap_or(self.memory_type);
    }

    fn sort(&mut self) -> &mut Sort {
        if matches!(self.view, View::Process { .. }) { &mut self.buffer_sort } else { &mut self.process_sort }
    }

    /// A column that is chosen again is turned round.
    fn sort_by(&mut self, column: usize) {
        let sort = self.sort();
        let is_reversed = sort.column == column && !sort.is_reversed;
        *sort = Sort { column, is_reversed };
    }

    /// By the next column to one side, of those that can be seen.
    fn sort_by_visible(&mut self, step: isize) {
        let width = self.area.width;
        let titles = match self.view {
            View::Process { .. } => visible(BUFFER, width),
            _ => visible(PROCESS, width),
        };
        let sort = self.sort();
        let at = titles.iter().position(|(column, ..)| *column == sort.column).unwrap_or_default();
        let next = titles.get(at.saturating_add_signed(step));
        next.into_iter().for_each(|(column, ..)| *sort = Sort { column: *column, is_reversed: false });
    }

    fn move_by(&mut self, rows: isize) {
        self.list().move_by(rows);
        let (count, room) = (self.rows(), self.room());
        self.list().settle(count, room);
        self.follow_choice();
    }

    /// From now on the cursor stays with the process that it is on.
    fn follow_choice(&mut self) {
        if self.panel == Panel::Table && !matches!(self.view, View::Process { .. }) {
            self.chosen = self.process_rows.get(self.processes.selected).map(ProcessRow::identity);
        }
    }
}
