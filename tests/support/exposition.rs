//! A strict reader of Prometheus' text format 0.0.4: what it lets through, every scraper understands.

use std::collections::{BTreeMap, HashSet};

/// One metric family, as it stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub name: String,
    pub help: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Family {
    /// The names of the labels of all samples; a histogram's `le` is not one of the family's own.
    pub fn label_names(&self) -> Vec<&str> {
        let labels = self.samples.iter().flat_map(|sample| sample.labels.keys());
        let mut names: Vec<&str> = labels.map(String::as_str).filter(|name| *name != "le").collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Reads a whole exposition. Each family must have its help and its type once, then samples of that family alone; no series may come
/// twice.
pub fn read(text: &str) -> Result<Vec<Family>, String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line is not ended".to_owned());
    }
    let mut families: Vec<Family> = Vec::new();
    let mut names = HashSet::new();
    let mut series = HashSet::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let at = |message: &str| format!("line {}: {message}: {line:?}", index + 1);
        let Some(comment) = line.strip_prefix("# ") else {
            let family = families.last_mut().ok_or_else(|| at("a sample before any family"))?;
            let sample = sample(line).map_err(|message| at(&message))?;
            if !belongs(&sample.name, family) {
                return Err(at("not a sample of the family that it stands in"));
            }
            if !series.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(at("the series comes a second time"));
            }
            family.samples.push(sample);
            continue;
        };
        let (name, help) = comment
            .strip_prefix("HELP ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(|| at("neither a sample nor the help of a family"))?;
        let kind = lines
            .next()
            .and_then(|(_, line)| line.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '));
        let kind = kind.ok_or_else(|| at("no type follows"))?;
        if !["gauge", "counter", "histogram"].contains(&kind) {
            return Err(at(&format!("unknown type {kind:?}")));
        }
        if !is_name(name, true) || !names.insert(name.to_owned()) {
            return Err(at("no name, or one that comes a second time"));
        }
        let (name, help, kind) = (name.to_owned(), help.to_owned(), kind.to_owned());
        families.push(Family { name, help, kind, samples: Vec::new() });
    }
    match families.iter().find(|family| family.samples.is_empty()) {
        Some(empty) => Err(format!("{} has no sample", empty.name)),
        None => Ok(families),
    }
}

fn belongs(sample: &str, family: &Family) -> bool {
    match sample.strip_prefix(family.name.as_str()) {
        Some("_bucket" | "_sum" | "_count") => family.kind == "histogram",
        Some(suffix) => suffix.is_empty() && family.kind != "histogram",
        None => false,
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let name_end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(name_end);
    if !is_name(name, true) {
        return Err("not a metric's name".to_owned());
    }
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or("not a label")?;
            let (value, after) = label_value(after)?;
            if !is_name(label, false) || labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label {label:?} is no name, or comes a second time"));
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no value")?;
    let value = value.replace("+Inf", "inf").parse().map_err(|_| format!("{value:?} is no value"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// The value up to its closing quote, escapes undone, and what comes after it.
fn label_value(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => match characters.next() {
                Some((_, '\\')) => value.push('\\'),
                Some((_, '"')) => value.push('"'),
                Some((_, 'n')) => value.push('\n'),
                other => return Err(format!("{other:?} cannot be escaped")),
            },
            other => value.push(other),
        }
    }
    Err("a label's value has no end".to_owned())
}

fn is_name(name: &str, may_have_colon: bool) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (may_have_colon && byte == b':');
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(is_part)
}
