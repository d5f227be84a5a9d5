//! Reads the configuration file: from TOML to the texts that the table understands, each with the line it
//! stands on.

use std::fs::File;
use std::io::{self, Read};
use std::iter::once;
use std::ops::Range as Span;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::device::{DEVICE_KEYS, DeviceConfig};
use super::error::{ConfigError, Place, Problem, did_you_mean};
use super::origin::{Given, Item, Value};
use super::settings::{Kind, SETTINGS, Setting};

/// A file that writes out every device has some 200 KB; more than this is not a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Longer values are named by their type alone.
const EXCERPT_BYTES_MAX: usize = 60;

/// The text of the file, all of it.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    read_bounded(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })
}

/// The text of a file that is not too large to be meant.
pub(super) fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// What the file says. All its problems are collected, except that broken syntax hides everything else.
pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Vec<Given> {
    let line_starts = once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
    let mut reader = Reader { path, text, line_starts, problems };
    match DeTable::parse(text) {
        Ok(table) => table.get_ref().iter().filter_map(|(key, value)| reader.entry(key, value)).collect(),
        Err(error) => {
            let (line, column) = reader.position(error.span().map_or(0, |span| span.start));
            let place = Place::Position { path: path.to_owned(), line, column };
            reader.problem(place, format!("this is not valid TOML: {}", error.message()));
            Vec::new()
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// The first byte of each line; the first of them is 0.
    line_starts: Vec<usize>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn entry(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Option<Given> {
        let place = self.place(key.span(), key.get_ref());
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key.get_ref()) else {
            self.unknown_key(place, key.get_ref(), SETTINGS.iter().map(|setting| setting.key));
            return None;
        };
        let items = match (setting.kind, value.get_ref()) {
            (Kind::List(_), DeValue::Array(array)) if array.is_empty() => {
                self.problem(
                    place,
                    format!("[] is empty; write at least one, such as [\"{}\"]", setting.default),
                );
                return None;
            }
            (Kind::List(_) | Kind::Devices, DeValue::Array(array)) => {
                array.iter().filter_map(|element| self.element(setting, element)).collect()
            }
            _ => {
                let text = self.scalar(setting.kind, setting.default, value, &place)?;
                vec![Item { value: Value::Text(text), place }]
            }
        };
        Some(Given { setting, items })
    }

    fn element(&mut self, setting: &Setting, element: &Spanned<DeValue<'_>>) -> Option<Item> {
        let place = self.place(element.span(), setting.key);
        let value = match (setting.kind, element.get_ref()) {
            (Kind::Devices, DeValue::Table(table)) => Value::Device(self.device(table, &place)?),
            _ => Value::Text(self.scalar(setting.kind, setting.default, element, &place)?),
        };
        Some(Item { value, place })
    }

    fn device(&mut self, table: &DeTable<'_>, place: &Place) -> Option<DeviceConfig> {
        let mut device = DeviceConfig::default();
        let problems_before = self.problems.len();
        for (key, value) in table {
            let place = self.place(key.span(), &format!("device.{}", key.get_ref()));
            let Some(row) = DEVICE_KEYS.iter().find(|row| row.key == key.get_ref()) else {
                self.unknown_key(place, key.get_ref(), DEVICE_KEYS.iter().map(|row| row.key));
                continue;
            };
            if let Some(text) = self.scalar(row.kind, "", value, &place)
                && let Err(message) = (row.apply)(&mut device, &text)
            {
                self.problem(place, message);
            }
        }
        if !table.contains_key("index") {
            let message = "the index is missing; write which device it is, such as index = 0";
            self.problem(place.clone(), message.to_owned());
        }
        (self.problems.len() == problems_before).then_some(device)
    }

    /// The text of a value of the right TOML type.
    fn scalar(
        &mut self,
        kind: Kind,
        default: &str,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
    ) -> Option<String> {
        match (kind, value.get_ref()) {
            (Kind::Number(_), DeValue::Integer(integer)) => Some(decimal(integer)),
            // A number may have a word as its default, and a word of a list may look like a number.
            (Kind::Number(_), DeValue::String(text)) if *text == default && !is_number(text) => {
                Some(text.to_string())
            }
            (Kind::Choice(_), DeValue::Integer(integer)) => Some(decimal(integer)),
            (Kind::Mode, DeValue::Integer(integer)) if integer.radix() == 8 => {
                Some(integer.as_str().to_owned())
            }
            (Kind::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
            (Kind::Number(_) | Kind::Switch, _) => self.wrong_type(kind, value, place),
            (_, DeValue::String(text)) => Some(text.to_string()),
            _ => self.wrong_type(kind, value, place),
        }
    }

    fn wrong_type(&mut self, kind: Kind, value: &Spanned<DeValue<'_>>, place: &Place) -> Option<String> {
        let name = match value.get_ref().type_str() {
            vowel @ ("integer" | "array") => format!("an {vowel}"),
            consonant => format!("a {consonant}"),
        };
        let written = self.text.get(value.span()).unwrap_or_default();
        let excerpt = if written.len() <= EXCERPT_BYTES_MAX && !written.contains('\n') {
            format!("{written} is {name}")
        } else {
            format!("this is {name}")
        };
        self.problem(place.clone(), format!("{excerpt}; write {}", kind.wanted()));
        None
    }

    fn unknown_key(&mut self, place: Place, key: &str, known: impl Iterator<Item = &'static str>) {
        let mut remedy = did_you_mean(key, known);
        if remedy.is_empty() {
            "; `ttmem check-config --list` prints every key".clone_into(&mut remedy);
        }
        self.problem(place, format!("this key is not known{remedy}"));
    }

    fn problem(&mut self, place: Place, message: String) {
        self.problems.push(Problem { place, message });
    }

    fn place(&self, span: Span<usize>, key: &str) -> Place {
        let (line, _) = self.position(span.start);
        Place::Key { path: self.path.to_owned(), line, key: key.to_owned() }
    }

    /// Line and column of a byte, both counted from 1.
    fn position(&self, byte: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let start = self.line_starts[line - 1];
        (line, self.text.get(start..byte).map_or(0, |before| before.chars().count()) + 1)
    }
}

pub(super) fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The digits of an integer in base ten, whatever base it was written in.
fn decimal(integer: &DeInteger<'_>) -> String {
    u64::from_str_radix(integer.as_str(), integer.radix())
        .map_or_else(|_| integer.to_string(), |number| number.to_string())
}
