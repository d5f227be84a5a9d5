//! What is shown: a state that takes keys and news, and says what has to be done outside.
//!
//! The idea is that nothing here knows a terminal, a socket or a clock, so that every situation can be made in a test.

use std::collections::HashMap;

use ratatui::layout::Rect;
use ttmem_wire::stats::MEMORY_TYPE_NAMES;

use super::columns::{self, BUFFER, BY_USAGE, PROCESS};
use super::details::Details;
use super::list::List;
use super::news::{News, Picture, Wanted};
use super::places::Places;
use super::rows::{self, ProcessRow, Sort, Suspected, Wishes};
use super::samples::Samples;
use crate::views::json::{Buffer, Device, HeldMemory, Process};

/// Figures older than so many looks are said to be old.
const LOOKS_UNTIL_OLD: f64 = 5.0;

/// What has to be done outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    Suspend,
    Redraw,
    /// To be told of the mouse, or no longer.
    Mouse(bool),
}

/// What the whole screen is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum View {
    Overview,
    Device(u16),
    /// A process, by pid and start; and the device from which it was opened.
    Process {
        identity: (u32, u64),
        from: Option<u16>,
    },
}

/// Where the arrows go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Panel {
    Devices,
    Table,
}

/// What lies over the screen.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Overlay {
    None,
    /// The first line of it that can be seen.
    Help(usize),
    /// The menu of columns to sort by.
    SortMenu(List),
    /// A filter is being written; the one before is what Esc goes back to.
    Filter {
        before: String,
    },
}

/// What is known of the buffers of the process that is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Asked,
    Known { all: Vec<Buffer>, are_more: bool },
    Unknown(String),
}

/// The state.
pub(super) struct Model {
    pub(super) area: Rect,
    /// Seconds between two looks.
    pub(super) interval_seconds: f64,
    /// Seconds since the epoch.
    pub(super) now: f64,
    pub(super) picture: Option<Picture>,
    /// Why there is no newer picture.
    pub(super) lost: Option<String>,
    pub(super) samples: Samples,
    pub(super) suspected: HashMap<u32, Suspected>,
    /// What pictures from the stats pages leave out.
    details: Details,
    /// Why the daemon's HTTP does not answer.
    pub(super) unanswered: Option<String>,
    pub(super) view: View,
    pub(super) panel: Panel,
    pub(super) overlay: Overlay,
    pub(super) filter: String,
    pub(super) memory_type: &'static str,
    pub(super) is_paused: bool,
    pub(super) has_mouse: bool,
    pub(super) process_sort: Sort,
    pub(super) buffer_sort: Sort,
    pub(super) devices: List,
    pub(super) processes: List,
    pub(super) buffers: List,
    /// The process on which the cursor is kept once it has been moved.
    pub(super) chosen: Option<(u32, u64)>,
    pub(super) process_rows: Vec<ProcessRow>,
    pub(super) buffer_rows: Vec<Buffer>,
    pub(super) told: Told,
}

impl Model {
    pub(super) fn new(area: Rect, interval_seconds: f64, now: f64) -> Model {
        let by = |column: Option<usize>| Sort { column: column.unwrap_or_default(), is_reversed: false };
        Model {
            area,
            interval_seconds,
            now,
            picture: None,
            lost: None,
            samples: Samples::default(),
            suspected: HashMap::new(),
            details: Details::default(),
            unanswered: None,
            view: View::Overview,
            panel: Panel::Table,
            overlay: Overlay::None,
            filter: String::new(),
            memory_type: MEMORY_TYPE_NAMES[0],
            is_paused: false,
            has_mouse: false,
            process_sort: by(columns::position(PROCESS, BY_USAGE)),
            buffer_sort: by(columns::position(BUFFER, "SIZE")),
            devices: List::default(),
            processes: List::default(),
            buffers: List::default(),
            chosen: None,
            process_rows: Vec::new(),
            buffer_rows: Vec::new(),
            told: Told::Asked,
        }
    }

    /// What the source should tell.
    pub(super) fn wanted(&self) -> Wanted {
        let buffers_of = match self.view {
            View::Process { identity: (pid, _), .. } if !self.is_paused => Some(pid),
            _ => None,
        };
        Wanted { buffers_of }
    }

    /// Where things are; `None` where the screen is too small.
    pub(super) fn places(&self) -> Option<Places> {
        Places::of(self.area, self.panel_lines())
    }

    /// The device that is shown.
    pub(super) fn device(&self) -> Option<&Device> {
        let View::Device(index) = self.view else { return None };
        self.picture.as_ref()?.devices.devices.iter().find(|device| device.device == index)
    }

    /// The process that is shown, while it lives.
    pub(super) fn process(&self) -> Option<&Process> {
        let View::Process { identity, .. } = self.view else { return None };
        let is_it = |process: &&Process| {
            (process.pid, process.start_time_seconds.unwrap_or_default().to_bits()) == identity
                && !process.ended
        };
        self.picture.as_ref()?.processes.iter().find(is_it)
    }

    /// Whether what is shown may not be so any more, and why.
    pub(super) fn doubt(&self) -> Option<String> {
        let picture = self.picture.as_ref()?;
        let age_seconds = self.now - picture.devices.timestamp_seconds;
        let is_old = !self.is_paused && age_seconds > LOOKS_UNTIL_OLD * self.interval_seconds.max(1.0);
        self.lost
            .clone()
            .or_else(|| picture.doubt.clone())
            .or_else(|| is_old.then(|| "nothing new".to_owned()))
    }

    /// Takes the time, and the size of the screen.
    pub(super) fn resize(&mut self, width: u16, height: u16) {
        self.area = Rect { x: 0, y: 0, width, height };
        self.settle();
    }

    /// Takes news.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Picture(mut picture) => {
                self.samples.push(&picture.devices);
                self.lost = None;
                if !self.is_paused {
                    self.details.complete(&mut picture.devices.devices, &mut picture.processes);
                    self.picture = Some(*picture);
                    self.arrange_processes();
                }
            }
            News::Lost(why) => {
                self.samples.push_gap();
                self.lost = Some(why);
            }
            News::Buffers { pid, told } => {
                let is_shown = matches!(self.view, View::Process { identity, .. } if identity.0 == pid);
                if is_shown && !self.is_paused {
                    self.told = match told {
                        Ok(page) => Told::Known { all: page.buffers, are_more: page.next_cursor.is_some() },
                        Err(why) => Told::Unknown(why),
                    };
                    self.arrange_buffers();
                }
            }
            News::Leaks(Ok(leaks)) => {
                self.unanswered = None;
                if !self.is_paused {
                    self.suspected = rows::by_process(&leaks);
                    self.arrange_processes();
                }
            }
            News::Leaks(Err(why)) => {
                self.unanswered = Some(why);
                if !self.is_paused {
                    self.suspected.clear();
                    self.arrange_processes();
                }
            }
            News::Details(details) => self.details = details,
            News::Past(range) => self.samples.remember(&range),
        }
        self.settle();
    }

    /// The titles of the menu.
    pub(super) fn sort_titles(&self) -> Vec<&'static str> {
        match self.view {
            View::Process { .. } => BUFFER.iter().map(|column| column.title).collect(),
            _ => PROCESS.iter().map(|column| column.title).collect(),
        }
    }

    pub(super) fn list(&mut self) -> &mut List {
        match (self.panel, &self.view) {
            (Panel::Devices, _) => &mut self.devices,
            (Panel::Table, View::Process { .. }) => &mut self.buffers,
            (Panel::Table, _) => &mut self.processes,
        }
    }

    pub(super) fn rows(&self) -> usize {
        match (self.panel, &self.view) {
            (Panel::Devices, _) => self.panel_lines(),
            (Panel::Table, View::Process { .. }) => self.buffer_rows.len(),
            (Panel::Table, _) => self.process_rows.len(),
        }
    }

    pub(super) fn room(&self) -> usize {
        self.places().map_or(0, |places| match self.panel {
            Panel::Devices => places.panel_room(),
            Panel::Table => usize::from(places.table.height),
        })
    }

    pub(super) fn page(&self) -> isize {
        isize::try_from(self.room()).unwrap_or(isize::MAX).max(1)
    }

    /// The lines that the panel would like to have.
    pub(super) fn panel_lines(&self) -> usize {
        match self.view {
            View::Overview => self.picture.as_ref().map_or(0, |picture| picture.devices.devices.len()),
            View::Device(_) => self.device().map_or(1, |device| device_lines(device).count() + 1),
            View::Process { .. } => self.process().map_or(1, |process| process_lines(process).len() + 2),
        }
    }

    pub(super) fn arrange(&mut self) {
        self.arrange_processes();
        self.arrange_buffers();
    }

    fn arrange_processes(&mut self) {
        if let (View::Process { .. }, false) = (&self.view, self.process_rows.is_empty()) {
            // They cannot be seen, and are arranged anew on the way back.
            return;
        }
        let device = if let View::Device(device) = self.view { Some(device) } else { None };
        let wishes =
            Wishes { memory_type: self.memory_type, device, filter: &self.filter, sort: self.process_sort };
        let all = self.picture.as_ref().map_or(&[][..], |picture| &picture.processes);
        self.process_rows = rows::processes(all, &self.suspected, &wishes, PROCESS);
        let found =
            self.chosen.and_then(|chosen| self.process_rows.iter().position(|row| row.identity() == chosen));
        found.into_iter().for_each(|row| self.processes.selected = row);
    }

    fn arrange_buffers(&mut self) {
        if let (View::Process { .. }, Told::Known { all, .. }) = (&self.view, &self.told) {
            self.buffer_rows = rows::buffers(all, &self.filter, self.buffer_sort, BUFFER);
        }
    }

    pub(super) fn settle(&mut self) {
        let Some(places) = self.places() else { return };
        if self.view == View::Overview {
            self.devices.settle(self.panel_lines(), places.panel_room());
        }
        self.processes.settle(self.process_rows.len(), usize::from(places.table.height));
        self.buffers.settle(self.buffer_rows.len(), usize::from(places.table.height));
    }
}

/// What there is to say of a device's memory.
pub(super) fn device_lines(device: &Device) -> impl Iterator<Item = &crate::views::json::DeviceMemory> {
    device.memory.iter().filter(|memory| memory.peak_bytes > 0 || memory.limit_bytes.is_some())
}

/// What there is to say of what a process holds: device by device, types in their usual order.
pub(super) fn process_lines(process: &Process) -> Vec<&HeldMemory> {
    let place = |name: &str| MEMORY_TYPE_NAMES.iter().position(|known| *known == name);
    let mut lines: Vec<_> = process.memory.iter().filter(|held| held.peak_bytes > 0).collect();
    lines.sort_by_key(|held| (held.device, place(&held.memory_type)));
    lines
}
