//! Which row of a list is chosen, and which rows can be seen.

/// A list that is longer than its place on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct List {
    /// The chosen row.
    pub(super) selected: usize,
    /// The first row that can be seen.
    pub(super) offset: usize,
}

impl List {
    /// Moves the choice by so many rows.
    pub(super) fn move_by(&mut self, rows: isize) {
        self.selected = self.selected.saturating_add_signed(rows);
    }

    /// Keeps the choice within `count` rows and in sight, where `room` of them can be seen.
    pub(super) fn settle(&mut self, count: usize, room: usize) {
        self.selected = self.selected.min(count.saturating_sub(1));
        let last_offset = count.saturating_sub(room);
        let highest = self.selected.min(last_offset);
        let lowest = (self.selected + 1).saturating_sub(room).min(highest);
        self.offset = self.offset.clamp(lowest, highest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_stays_in_sight() {
        let mut list = List::default();
        let mut check = |rows: isize, count: usize, room: usize, expected: (usize, usize)| {
            list.move_by(rows);
            list.settle(count, room);
            assert_eq!((list.selected, list.offset), expected);
        };
        check(-1, 10, 4, (0, 0));
        check(3, 10, 4, (3, 0));
        check(1, 10, 4, (4, 1));
        check(-2, 10, 4, (2, 1));
        check(isize::MAX, 10, 4, (9, 6));
        // A list that gets shorter, a screen that grows, nothing at all.
        check(0, 6, 4, (5, 2));
        check(0, 6, 20, (5, 0));
        check(0, 0, 4, (0, 0));
        check(0, 3, 0, (0, 0));
    }
}
