//! YAML as a tree whose nodes know where they stand.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::config::error::{Place, Problem};

/// A value and its line.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a value is. Numbers and truth values are the texts that they stand for.
#[derive(Debug)]
pub(super) enum Value {
    Nothing,
    Text(String),
    /// A number that may also be meant as a text.
    Number(String),
    Switch(bool),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map, its line and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for somebody who wrote something else.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Nothing => "nothing",
            Value::Text(_) => "a text",
            Value::Number(_) => "a number",
            Value::Switch(_) => "a truth value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// The tree of a file; none, with a problem, where it is not YAML.
pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    // An empty file, or one of comments alone, is a configuration that asks for nothing.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Some(Node { line: 1, value: Value::Nothing });
    }
    match serde_saphyr::from_str(text) {
        Ok(node) => Some(node),
        Err(error) => {
            let error = error.without_snippet();
            let (line, column) = error.location().map_or((1, 1), |at| (line(&at), column(&at)));
            let message = error.to_string();
            // The position is said once, in front.
            let message = message.split(" at line ").next().unwrap_or_default();
            let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let place = Place::Position { path: path.to_owned(), line, column };
            problems.push(Problem { place, message: format!("this is not valid YAML: {message}") });
            None
        }
    }
}

fn line(location: &Location) -> usize {
    usize::try_from(location.line()).unwrap_or(usize::MAX)
}

fn column(location: &Location) -> usize {
    usize::try_from(location.column()).unwrap_or(usize::MAX)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { line: line(&spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_bool<E>(self, on: bool) -> Result<Value, E> {
        Ok(Value::Switch(on))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value()?;
            entries.push(Entry { line: line(&key.referenced), key: key.value, node });
        }
        Ok(Value::Map(entries))
    }
}
