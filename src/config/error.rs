//! What can be wrong with a configuration: every fault names its place, the offending value and the remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why no configuration came out. All of it is the operator's to mend; the daemon does not start, and a
/// reload keeps what it had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be opened or read.
    #[error("{}: cannot be read: {cause}; name a TOML file that this user may read", path.display())]
    Unreadable {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The web configuration file cannot be opened or read.
    #[error("{}: cannot be read: {cause}; name with web_config a YAML file that this user may read", path.display())]
    UnreadableWebConfig {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// One or more values are wrong, in the order file, environment, flags. Printed one to a line.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// One mistake and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where to look.
    pub place: Place,
    /// The offending value and the remedy.
    pub message: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key of the configuration file.
    Key {
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key; `device.index` for a key of a `[[device]]` table.
        key: String,
    },
    /// A position in the configuration file that is not valid TOML.
    Position {
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A command-line flag, without its dashes.
    Flag(&'static str),
}

impl Place {
    /// The line in the file; what does not stand in the file comes after all of it.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::Key { line, .. } | Self::Position { line, .. } => *line,
            Self::Variable(_) | Self::Flag(_) => usize::MAX,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { path, line, key } => {
                write!(f, "{}:{line}: {}", path.display(), key.escape_debug())
            }
            Self::Position { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// More wrong letters than this make a suggestion a guess; two exchanged letters count as two.
const EDITS_MAX: usize = 2;

/// Fewer letters are part of too many names.
const PART_LETTERS_MIN: usize = 3;

/// The known name that `name` was probably meant to be, as the end of a sentence; empty when none is near.
pub(super) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let nearest = known
        .into_iter()
        .map(|candidate| {
            let is_part = name.len() >= PART_LETTERS_MIN && candidate.contains(name);
            (if is_part { 1 } else { edit_distance(name, candidate) }, candidate)
        })
        .filter(|(edits, candidate)| *edits <= EDITS_MAX && *edits < candidate.len())
        .min_by_key(|(edits, _)| *edits);
    nearest.map_or_else(String::new, |(_, candidate)| format!("; did you mean {candidate}?"))
}

/// Levenshtein's distance: insertions, deletions and replacements that turn `a` into `b`, letter case
/// ignored.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let check = |name, expected| {
            let known = ["socket", "socket_mode", "listen"];
            assert_eq!(did_you_mean(name, known), expected, "{name}");
        };
        check("sokcet", "; did you mean socket?");
        check("socket-mode", "; did you mean socket_mode?");
        check("LISTEN", "; did you mean listen?");
        check("mode", "; did you mean socket_mode?");
        check("colour", "");
        check("", "");
    }
}
