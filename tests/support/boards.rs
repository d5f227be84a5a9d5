//! Grafana's boards in dashboards/, as the tests read them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

pub fn boards() -> Vec<Value> {
    let paths = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect();
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    paths.iter().map(read).collect()
}

/// The panels of a board that show something.
pub fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    list(&board["panels"]).iter().filter(|panel| panel["type"] != "row")
}

/// One of a board's queries, or of its variables'.
#[derive(Default)]
pub struct Query {
    pub board: String,
    pub title: String,
    pub expr: String,
    pub is_instant: bool,
}

impl Query {
    pub fn says(&self, what: &str) -> String {
        format!("{} / {:?}: {what}: {}", self.board, self.title, self.expr)
    }
}

pub fn queries(boards: &[Value]) -> Vec<Query> {
    let mut queries = Vec::new();
    for board in boards {
        let mut add = |title: &Value, expr: String, is_instant| {
            let [board, title] = [&board["uid"], title].map(|name| text(name).to_owned());
            queries.push(Query { board, title, expr, is_instant });
        };
        for panel in panels(board) {
            for target in list(&panel["targets"]) {
                add(&panel["title"], text(&target["expr"]).to_owned(), target["instant"] == true);
            }
        }
        for variable in list(&board["templating"]["list"]) {
            // label_values(selector, label): with the selector's job and instance, where they are chosen already, it is a query.
            let inner = text(&variable["definition"])
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            if let Some((selector, label)) = inner.and_then(|inner| inner.rsplit_once(", ")) {
                let metric = selector.split('{').next().unwrap();
                let selector = format!(r#"{metric}{{job=~"$job", instance=~"$instance"}}"#);
                add(&variable["name"], format!("count by ({label}) ({selector})"), true);
            }
        }
    }
    queries
}

/// What a panel changes for one series or column.
pub struct Override<'a> {
    pub name: &'a str,
    pub properties: &'a [Value],
}

impl<'a> Override<'a> {
    pub fn property(&self, name: &str) -> Option<&'a Value> {
        self.properties.iter().find(|property| property["id"] == name).map(|property| &property["value"])
    }
}

pub fn overrides(panel: &Value) -> impl Iterator<Item = Override<'_>> {
    list(&panel["fieldConfig"]["overrides"])
        .iter()
        .map(|one| Override { name: text(&one["matcher"]["options"]), properties: list(&one["properties"]) })
}

pub fn board_at<'a>(url: &str, boards: &'a [Value]) -> Option<&'a Value> {
    let uid = url.strip_prefix("/d/")?.split('?').next()?;
    boards.iter().find(|board| board["uid"] == uid)
}

pub fn has_variable(board: &Value, name: &str) -> bool {
    list(&board["templating"]["list"]).iter().any(|variable| variable["name"] == name)
}

/// The names of the variables in a text; $1 is none, but a group of a pattern.
pub fn variables_in(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split('$').skip(1).map(|rest| {
        let rest = rest.trim_start_matches('{');
        let is_other = |character: char| !character.is_alphanumeric() && character != '_';
        &rest[..rest.find(is_other).unwrap_or(rest.len())]
    });
    names.filter(|name| !name.starts_with(|first: char| first.is_ascii_digit()))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
