//! Where things are on a screen: the one answer for drawing, for paging and for the mouse.

use ratatui::layout::{Position, Rect};

/// On a smaller screen nothing can be told.
pub(super) const WIDTH_MIN: u16 = 40;
/// Title, a line of a panel, a heading, a row and the footer, and some more rows to be of use.
pub(super) const HEIGHT_MIN: u16 = 8;
/// A line of the panel is at least so wide, where several stand side by side.
const PANEL_LINE_WIDTH: u16 = 96;

/// The parts of a screen, from above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Places {
    pub(super) title: Rect,
    /// Devices, or what one of them or a process holds.
    pub(super) panel: Rect,
    /// Lines of the panel that stand side by side.
    pub(super) panel_columns: u16,
    pub(super) heading: Rect,
    pub(super) table: Rect,
    pub(super) footer: Rect,
}

impl Places {
    /// The places on a screen for a panel of so many lines; `None` where it is too small.
    pub(super) fn of(area: Rect, lines: usize) -> Option<Places> {
        if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
            return None;
        }
        let lines = u16::try_from(lines).unwrap_or(u16::MAX);
        let panel_columns = (area.width / PANEL_LINE_WIDTH).clamp(1, lines.max(1));
        // Title, heading and footer are one line each; the table keeps half of the rest.
        let free = area.height - 3;
        let panel_height = lines.div_ceil(panel_columns).min(free / 2);
        let line = |y: u16, height: u16| Rect { x: area.x, y: area.y + y, width: area.width, height };
        Some(Places {
            title: line(0, 1),
            panel: line(1, panel_height),
            panel_columns,
            heading: line(1 + panel_height, 1),
            table: line(2 + panel_height, free - panel_height),
            footer: line(area.height - 1, 1),
        })
    }

    /// Lines of the panel that can be seen.
    pub(super) fn panel_room(&self) -> usize {
        usize::from(self.panel.height) * usize::from(self.panel_columns)
    }

    /// Where the panel's visible line of that number is: down the first column, then the next.
    pub(super) fn panel_line(&self, number: usize) -> Rect {
        let height = usize::from(self.panel.height).max(1);
        let (column, row) = ((number / height) as u16, (number % height) as u16);
        let width = self.panel.width / self.panel_columns;
        Rect { x: self.panel.x + column * width, y: self.panel.y + row, width, height: 1 }
    }

    /// Which of the panel's visible lines is at a position.
    pub(super) fn panel_line_at(&self, position: Position) -> Option<usize> {
        (0..self.panel_room()).find(|number| self.panel_line(*number).contains(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(width: u16, height: u16, lines: usize) -> Option<Places> {
        Places::of(Rect { x: 0, y: 0, width, height }, lines)
    }

    #[test]
    fn the_parts_fill_the_screen_whatever_its_size() {
        for (width, height, lines) in [(40, 8, 0), (40, 8, 1024), (80, 24, 2), (300, 80, 32), (1000, 500, 7)]
        {
            let places = places(width, height, lines).expect("room");
            let parts = [places.title, places.panel, places.heading, places.table, places.footer];
            let mut y = 0;
            for part in parts {
                assert_eq!((part.y, part.width), (y, width));
                y += part.height;
            }
            assert_eq!(y, height);
            assert!(places.table.height >= 2, "{places:?}");
            for number in 0..places.panel_room() {
                let line = places.panel_line(number);
                assert_eq!(line.intersection(places.panel), line);
                assert_eq!(places.panel_line_at(Position { x: line.x, y: line.y }), Some(number));
            }
        }
        assert_eq!(places(39, 24, 1), None);
        assert_eq!(places(80, 7, 1), None);
    }
}
