//! What holds for the sources themselves: who may use whom, how files are shaped, and how metrics are named.
//!
//! The idea is that each rule is a function from a file's text to complaints, so that it can be shown a text that breaks it.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// What each module may use, as the beginnings of paths; `wire` and `client` are crates. Nothing else of ours is allowed.
const ALLOWED: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("heap", &[]),
    ("socket", &[]),
    ("activation", &[]),
    ("throttle", &[]),
    // What ingest's questions to the kubelet and the export over OTLP have in common.
    ("grpc", &[]),
    ("config", &[]),
    ("mapping", &[]),
    ("sandbox", &[]),
    ("journal", &[]),
    // What it publishes lies in the stats pages, whose layout is the protocol's.
    ("registry", &["wire::stats", "wire::Arch", "mapping"]),
    (
        "ingest",
        &[
            "wire",
            "registry",
            "config",
            "clock",
            "socket",
            "throttle",
            "mapping",
            "grpc",
            "journal",
            "activation",
        ],
    ),
    ("views", &["registry"]),
    ("analysis", &["registry"]),
    ("sinks", &["registry", "views", "analysis", "config", "clock", "socket", "throttle", "grpc", "journal"]),
    (
        "daemon",
        &[
            "wire",
            "registry",
            "config",
            "clock",
            "heap",
            "socket",
            "activation",
            "sandbox",
            "ingest",
            "views",
            "analysis",
            "sinks",
            "cli",
        ],
    ),
    // What it shows is what the API says, or the stats pages; the workers of demo and soak are clients like any other.
    // The past it also reads from its database, where no daemon runs.
    (
        "cli",
        &[
            "wire",
            "client::Monitor",
            "client::Client",
            "client::Options",
            "views::json",
            "views::findings",
            "config",
            "daemon",
            "bench",
            "clock",
            "sinks::history",
        ],
    ),
    // It measures from outside, the client library too, but for the hot paths whose instructions are counted.
    ("bench", &["wire", "client", "registry", "analysis", "ingest::Replay", "views"]),
    ("main", &["cli"]),
];

/// Folders with sources, beside build.rs.
const RUST_FOLDERS: &[&str] = &[
    "src",
    "benches",
    "tests",
    "wire/src",
    "wire/tests",
    "wire/fuzz/src",
    "wire/fuzz/fuzz_targets",
    "fuzz/src",
    "fuzz/fuzz_targets",
    "clients/rust/src",
    "clients/preload/src",
    "clients/c/src",
    "clients/c/benches",
];
/// What the clients depend on: they are parts of other people's programs.
const CLIENT_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("clients/rust", &["ttmem-wire", "libc"]),
    ("clients/preload", &["ttmem-client", "ttmem-wire", "libc"]),
    ("clients/c", &["ttmem-client", "ttmem-wire"]),
];
/// Folders in which nothing is ours, or nothing is text.
const FOREIGN_FOLDERS: &[&str] = &[".git", "target", "corpus", "node_modules", "__pycache__"];
/// Names that say nothing about a file's place in the path of the data.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "types", "traits", "prelude", "misc", "shared"];
/// A file that is longer has more than one subject.
const FILE_LINES_MAX: usize = 600;
const MAIN_LINES_MAX: usize = 40;

#[test]
fn modules_use_only_what_they_may() {
    assert_none(sources().iter().filter(|source| !source.is_test()).flat_map(imports));
    // Every module of the library has its row.
    let lib = Source::read("src/lib.rs");
    let code = lib.code();
    let words = words(&code);
    let modules: Vec<&str> =
        words.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| pair[1].text).collect();
    assert!(modules.len() > 5, "{modules:?}");
    for module in modules {
        assert!(ALLOWED.iter().any(|(known, _)| *known == module), "{module} has no row in ALLOWED");
    }
}

#[test]
fn files_have_one_subject_and_say_it_first() {
    assert_none(sources().iter().flat_map(|source| opening(source).into_iter().chain(length(source))));
}

#[test]
fn nothing_is_left_for_later() {
    assert_none(texts().iter().flat_map(leftovers));
}

#[test]
fn names_say_something() {
    assert_none(texts().iter().flat_map(|source| empty_name(&source.path)));
}

#[test]
fn wire_stands_alone() {
    assert_none(dependencies(&Source::read("wire/Cargo.toml")));
    let lib = Source::read("wire/src/lib.rs");
    assert!(lib.code().contains("#![no_std]"), "{}", lib.path);
    let sources = sources();
    let files: Vec<_> =
        sources.iter().filter(|source| source.path.starts_with("wire/src/") && !source.is_test()).collect();
    assert!(files.len() > 5);
    assert_none(files.into_iter().flat_map(standard_library));
}

#[test]
fn the_clients_stand_on_each_other_and_libc_alone() {
    let sources = sources();
    for (client, allowed) in CLIENT_DEPENDENCIES {
        let is_allowed = |complaint: &String| {
            let name = complaint.rsplit("depends on ").next().and_then(|line| line.split([' ', '=']).next());
            name.is_some_and(|name| allowed.contains(&name))
        };
        let depends_on = dependencies(&Source::read(&format!("{client}/Cargo.toml")));
        assert_eq!(depends_on.len(), allowed.len(), "{client}: {depends_on:?}");
        assert_none(depends_on.into_iter().filter(|complaint| !is_allowed(complaint)));
        let folder = format!("{client}/src/");
        let files: Vec<_> = sources.iter().filter(|source| source.path.starts_with(&folder)).collect();
        assert!(files.len() > 5);
        let daemons =
            files.iter().filter(|source| words(&source.code()).iter().any(|word| word.text == "ttmem"));
        assert_none(daemons.map(|source| format!("{}: uses the daemon", source.path)));
    }
}

#[test]
fn metrics_are_named_after_their_kind_and_unit() {
    // The names that stand apart first, as the table's tests end what is looked at.
    let parts = ["src/registry/metrics/daemon.rs", "src/registry/metrics.rs"].map(Source::read);
    let text = parts.iter().map(|part| part.text.as_str()).collect();
    let metrics = metrics(&Source { path: parts[1].path.clone(), text });
    assert!(metrics.len() > 30, "the table is read wrongly: {metrics:?}");
    assert_none(metrics.iter().flat_map(metric_complaints));
    let mut names: Vec<_> = metrics.iter().map(|metric| &metric.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name comes twice: {names:?}");
}

#[test]
fn each_rule_finds_what_breaks_it() {
    #[track_caller]
    fn check(complaints: impl IntoIterator<Item = String>, expected: &[&str]) {
        let complaints: Vec<String> = complaints.into_iter().collect();
        assert_eq!(complaints.len(), expected.len(), "{complaints:?}");
        for (complaint, expected) in complaints.iter().zip(expected) {
            assert!(complaint.contains(expected), "{complaint}");
        }
    }
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let imports_of = |path: &str, text: &str| imports(&source(path, text));

    check(
        imports_of("src/ingest/apply.rs", "\nuse crate::sinks::http;"),
        &["src/ingest/apply.rs:2: ingest uses sinks::http"],
    );
    check(
        imports_of("src/registry/cell.rs", "fn now() -> u64 { crate::clock::monotonic_ns() }"),
        &["clock::monotonic_ns"],
    );
    check(imports_of("src/registry/mod.rs", "use ttmem_wire as wire;"), &["registry uses wire"]);
    check(
        imports_of(
            "src/views/json.rs",
            "use crate::{registry::Snapshot, clock, config::{Config, PRODUCTS}};",
        ),
        &["uses clock", "uses config::Config", "uses config::PRODUCTS"],
    );
    check(
        imports_of("src/views/json.rs", "use super::super::ingest::Ingest;"),
        &["views uses ingest::Ingest"],
    );
    check(imports_of("src/clock.rs", "use super::daemon;"), &["clock uses daemon"]);
    check(
        imports_of("src/cli/status.rs", "use crate::views::{json::Devices, prometheus};"),
        &["views::prometheus"],
    );
    check(imports_of("src/cli.rs", "use crate::views::*;"), &["cli uses views"]);
    check(imports_of("src/main.rs", "use ttmem::registry::Registry;"), &["main uses registry::Registry"]);
    check(imports_of("benches/limit.rs", "use crate::ingest::Ingest;"), &["bench uses ingest::Ingest"]);
    check(imports_of("src/sinks/http/mod.rs", "use ttmem_client::Client;"), &["sinks uses client::Client"]);
    check(imports_of("src/new/mod.rs", "use crate::clock;"), &["new has no row"]);
    for harmless in [
        "use crate::registry::Snapshot; use super::json; pub(in super::super) fn f() {} pub(crate) fn g() {}",
        "// use crate::sinks;\n/* crate::sinks /* nested */ crate::daemon */\nconst C: &str = \"crate::sinks\";",
        "const R: &str = r#\"a \" crate::sinks\"#; const Q: char = '\"'; fn f<'a>(a: &'a str) { let _ = 'x'; }",
        "#[cfg(test)]\nmod tests { use crate::sinks; mod inner {} }\nuse crate::registry;",
    ] {
        check(imports_of("src/views/json.rs", harmless), &[]);
    }
    check(
        imports_of("src/views/json.rs", "const Q: char = '\"'; use crate::sinks; // \""),
        &["views uses sinks"],
    );

    let opening_of = |text: &str| opening(&source("src/a.rs", text));
    check(opening_of("//! What it is for.\n\nuse std::fs;\n"), &[]);
    check(opening_of("//! What it is for, on\n//! two lines.\n//!\n//! And more\nuse std::fs;\n"), &[]);
    check(opening_of("use std::fs;\n"), &["opens without"]);
    check(opening_of("//! No end\nuse std::fs;\n"), &["no sentence"]);

    let lines = |count: usize| "fn f() {}\n".repeat(count);
    check(length(&source("src/a.rs", &lines(601))), &["601 lines"]);
    let with_tests = lines(600) + "#[cfg(test)]\nmod tests {\n" + &lines(600) + "}\n";
    check(length(&source("src/a.rs", &with_tests)), &[]);
    check(length(&source("tests/a.rs", &lines(1000))), &[]);
    check(length(&source("src/main.rs", &lines(40))), &["40 lines"]);

    let later =
        concat!("// TO", "DO: more\nlet a = un", "implemented!();\n// FIX", "ME\nfn f() { to", "do!() }\n");
    check(leftovers(&source("src/a.rs", later)), &[":1: ", ":2: ", ":3: ", ":4: "]);
    check(leftovers(&source("a.md", "a method, autodoc and TODOS are none of them")), &[]);
    check(empty_name("src/ingest/utils.rs"), &["utils"]);
    check(empty_name("tests/common/mod.rs"), &["common"]);
    check(empty_name("src/registry/memory_type.rs"), &[]);

    let manifest = |text: &str| dependencies(&source("wire/Cargo.toml", text));
    check(manifest("[package]\nname = \"x\"\n[dev-dependencies]\nserde = \"1\"\n"), &[]);
    check(manifest("[dependencies]\nserde = \"1\"\n[build-dependencies]\ncc = \"1\"\n"), &["serde", "cc"]);
    check(
        manifest("[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n[dependencies.serde]\nversion = \"1\"\n"),
        &["libc", "serde"],
    );
    check(
        standard_library(&source("wire/src/a.rs", "use std::fs;\nfn f() { alloc::vec::Vec::new() }")),
        &["std", "alloc"],
    );
    check(
        standard_library(&source(
            "wire/src/a.rs",
            "use core::fmt;\n#[cfg(test)]\nmod tests { use std::fs; }",
        )),
        &[],
    );

    let row = |name: &str, kind: &str, unit: &str, help: &str| {
        let labels = if name.contains("pod") { "&[\"pod\"]" } else { "&[]" };
        let row = format!(
            "Metric {{\nname: \"{name}\",\nkind: Kind::{kind},\nunit: \"{unit}\",\nlabels: {labels},\nhelp: \"{help}\",\n}}"
        );
        metrics(&source("a.rs", &row)).iter().flat_map(metric_complaints).collect::<Vec<_>>()
    };
    check(row("ttmem_a_bytes", "Gauge", "By", "Said."), &[]);
    check(row("ttmem_a_bytes_total", "Counter", "By", "Said."), &[]);
    check(row("ttmem_a_total", "Counter", "{a}", "Said."), &[]);
    check(row("a_bytes", "Gauge", "By", "Said."), &["ttmem_"]);
    check(row("ttmem_a_bytes", "Gauge", "By", "Said"), &["full stop"]);
    check(row("ttmem_a_bytes", "Gauge", "By", "said."), &["capital"]);
    check(row("ttmem_a", "Gauge", "By", "Said."), &["_bytes"]);
    check(row("ttmem_a_bytes", "Gauge", "{a}", "Said."), &["_bytes"]);
    check(row("ttmem_a", "Gauge", "s", "Said."), &["_seconds"]);
    check(row("ttmem_a_total", "Gauge", "1", "Said."), &["_total"]);
    check(row("ttmem_a_bytes", "Counter", "By", "Said."), &["_total"]);
    check(row("ttmem_a_count", "Histogram", "{a}", "Said."), &["_count"]);
    check(row("ttmem_pods", "Gauge", "{pod}", "Said."), &["label pod"]);
    check(row("ttmem_a_percent", "Gauge", "%", "Said."), &["UCUM"]);
}

#[track_caller]
fn assert_none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// A file, by its path from the repository's root.
#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn read(path: &str) -> Source {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        Source { path: path.to_owned(), text }
    }

    /// Whether all of it is tests.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The module that it is, from the crate's root; none for what is not in the library.
    fn module(&self) -> Option<Vec<&str>> {
        if let Some(bench) = self.path.strip_prefix("benches/") {
            let file = bench.strip_suffix(".rs")?;
            return Some(if file == "mod" { vec!["bench"] } else { vec!["bench", file] });
        }
        let mut module: Vec<&str> = self.path.strip_prefix("src/")?.strip_suffix(".rs")?.split('/').collect();
        if module.last() == Some(&"mod") {
            module.pop();
        }
        (module != ["lib"]).then_some(module)
    }

    /// Its text with comments, literals and tests blanked out; every line keeps its number.
    fn code(&self) -> String {
        let mut code = without_comments_and_literals(&self.text);
        for range in test_items(&code).into_iter().rev() {
            let blank: String = code[range.clone()].chars().filter(|character| *character == '\n').collect();
            code.replace_range(range, &blank);
        }
        code
    }
}

/// Every Rust file.
fn sources() -> Vec<Source> {
    let texts = texts().into_iter().filter(|source| source.path.ends_with(".rs"));
    let is_in =
        |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let sources: Vec<Source> = texts
        .filter(|source| {
            source.path == "build.rs" || RUST_FOLDERS.iter().any(|folder| is_in(&source.path, folder))
        })
        .collect();
    assert!(sources.len() > 50, "only {} sources are found", sources.len());
    sources
}

/// Every text file of the repository.
fn texts() -> Vec<Source> {
    fn add(folder: &Path, prefix: &str, texts: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).expect("a folder of ours") {
            let entry = entry.expect("a folder of ours");
            let name = entry.file_name().into_string().expect("a name of ours");
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().expect("a file of ours");
            if kind.is_dir() && !FOREIGN_FOLDERS.contains(&name.as_str()) {
                add(&entry.path(), &format!("{path}/"), texts);
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                texts.push(Source { path, text });
            }
        }
    }
    let mut texts = Vec::new();
    add(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut texts);
    texts.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    texts
}

/// What a file uses of ours without being allowed to.
fn imports(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == module[0]) else {
        return vec![format!("{}: {} has no row in ALLOWED", source.path, module[0])];
    };
    let code = source.code();
    let words = words(&code);
    let mut uses = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let is_begin = at == 0 || words[at - 1].text != "::";
        if is_begin && ["crate", "super", "ttmem", "ttmem_wire", "ttmem_client"].contains(&word.text) {
            let mut paths = Vec::new();
            expand(&words, at, &module, &mut paths);
            uses.extend(paths.into_iter().map(|path| (word.line, path)));
        }
    }
    let is_ours = |path: &str| {
        let crates = ["wire", "client"].into_iter();
        ALLOWED.iter().map(|(known, _)| *known).chain(crates).any(|known| is_within(path, known))
    };
    let is_allowed =
        |path: &str| is_within(path, module[0]) || allowed.iter().any(|allowed| is_within(path, allowed));
    uses.retain(|(_, path)| is_ours(path) && !is_allowed(path));
    uses.into_iter()
        .map(|(line, path)| format!("{}:{line}: {} uses {path}", source.path, module[0]))
        .collect()
}

/// Whether a path is another one or goes on from it.
fn is_within(path: &str, beginning: &str) -> bool {
    path.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The paths, from the crate's root, that the words from `at` on stand for in a module; gives where they end.
fn expand(words: &[Word<'_>], mut at: usize, module: &[&str], paths: &mut Vec<String>) -> usize {
    let text = |at: usize| words.get(at).map_or("", |word| word.text);
    let mut path: Vec<&str> = module.to_vec();
    loop {
        match text(at) {
            "crate" | "ttmem" => path.clear(),
            "ttmem_wire" => path = vec!["wire"],
            "ttmem_client" => path = vec!["client"],
            "super" => {
                path.pop();
            }
            "self" => {}
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    at = expand(words, at, &path, paths);
                    // A renamed one goes on with its new name.
                    while !matches!(text(at), "," | "}" | "") {
                        at += 1;
                    }
                    at += usize::from(text(at) == ",");
                }
                return at + 1;
            }
            name if name.starts_with(|first: char| first.is_alphabetic() || first == '_') => path.push(name),
            _ => {
                // A star, or the end of a visibility such as `pub(in super::super)`.
                paths.push(path.join("::"));
                return at;
            }
        }
        at += 1;
        if text(at) != "::" {
            paths.push(path.join("::"));
            return at;
        }
        at += 1;
    }
}

/// A word or a sign of a program, and its line.
struct Word<'a> {
    text: &'a str,
    line: usize,
}

fn words(code: &str) -> Vec<Word<'_>> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let mut words = Vec::new();
    let (mut rest, mut line) = (code, 1);
    while let Some(first) = rest.chars().next() {
        let length = if is_part(first) {
            rest.find(|character| !is_part(character)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (text, after) = rest.split_at(length);
        if !first.is_whitespace() {
            words.push(Word { text, line });
        }
        line += usize::from(first == '\n');
        rest = after;
    }
    words
}

/// The program alone: comments, strings and characters are blanked out, but for their line ends.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_name = code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            quoted(rest)
        } else if !after_name && let Some(length) = raw_string(rest) {
            length
        } else if first == '\''
            && let Some(length) = character(rest)
        {
            length
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        code.extend(rest[..length].chars().filter(|character| *character == '\n'));
        rest = &rest[length..];
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(first) = text[at..].chars().next() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += first.len_utf8();
        }
    }
    at
}

fn quoted(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return at + 1,
            '\\' => drop(characters.next()),
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashed = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = hashed.len() - hashed.trim_start_matches('#').len();
    let content = hashed[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |at| begin + at + end.len()))
}

/// The length of a character's literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = &text[1..];
    let first = inner.chars().next()?;
    if first == '\\' {
        return Some(1 + 2 + inner[2..].find('\'')? + 1);
    }
    inner[first.len_utf8()..].starts_with('\'').then(|| 1 + first.len_utf8() + 1)
}

/// Where items that only tests have begin and end.
fn test_items(code: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(begin) = code[from..].find(MARK).map(|at| from + at) {
        let mut depth = 0_usize;
        let length = code[begin + MARK.len()..].char_indices().find_map(|(at, character)| {
            match character {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0 && matches!(character, '}' | ';')).then_some(at + 1)
        });
        from = length.map_or(code.len(), |length| begin + MARK.len() + length);
        items.push(begin..from);
    }
    items
}

fn opening(source: &Source) -> Option<String> {
    let paragraph = source.text.lines().map_while(|line| line.strip_prefix("//! "));
    let paragraph = paragraph.collect::<Vec<_>>().join(" ");
    if paragraph.is_empty() {
        return Some(format!("{}: opens without a line that says what it is for", source.path));
    }
    (!paragraph.trim_end().ends_with('.')).then(|| format!("{}: {paragraph:?} is no sentence", source.path))
}

fn length(source: &Source) -> Option<String> {
    if source.is_test() {
        return None;
    }
    let blanked = without_comments_and_literals(&source.text);
    let count = |text: &str| text.lines().count();
    let test_lines: usize = test_items(&blanked).into_iter().map(|range| count(&blanked[range])).sum();
    let lines = count(&source.text) - test_lines;
    let is_too_long =
        if source.path == "src/main.rs" { lines >= MAIN_LINES_MAX } else { lines > FILE_LINES_MAX };
    is_too_long.then(|| format!("{}: {lines} lines without its tests", source.path))
}

/// Words that put something off.
fn leftovers(source: &Source) -> Vec<String> {
    const WORDS: [&str; 4] =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!"), concat!("un", "implemented!")];
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let stands_alone = |line: &str, word: &str| {
        line.match_indices(word)
            .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
    };
    let lines = source.text.lines().zip(1..);
    lines
        .filter(|(line, _)| WORDS.iter().any(|word| stands_alone(line, word)))
        .map(|(line, number)| format!("{}:{number}: {}", source.path, line.trim()))
        .collect()
}

fn empty_name(path: &str) -> Option<String> {
    let mut names = path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    names.find(|name| EMPTY_NAMES.contains(name)).map(|name| format!("{path}: {name} says nothing"))
}

/// What a manifest depends on, tests aside.
fn dependencies(manifest: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_listing = false;
    for line in manifest.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            let is_ours =
                |table: &str| table.ends_with("dependencies") && !table.ends_with("dev-dependencies");
            is_listing = is_ours(table);
            if let Some((_, name)) = table.rsplit_once('.').filter(|(parent, _)| is_ours(parent)) {
                found.push(format!("{}: depends on {name}", manifest.path));
            }
        } else if is_listing {
            found.push(format!("{}: depends on {line}", manifest.path));
        }
    }
    found
}

fn standard_library(source: &Source) -> Vec<String> {
    let code = source.code();
    let words = words(&code);
    let crates =
        words.windows(2).filter(|pair| ["std", "alloc"].contains(&pair[0].text) && pair[1].text == "::");
    crates.map(|pair| format!("{}:{}: uses {}", source.path, pair[0].line, pair[0].text)).collect()
}

/// A row of the table of metrics, as it is written.
#[derive(Debug)]
struct MetricRow {
    name: String,
    kind: String,
    unit: String,
    help: String,
    labels: Vec<String>,
}

fn metrics(table: &Source) -> Vec<MetricRow> {
    let text = table.text.split("#[cfg(test)]").next().unwrap_or_default();
    let rows = text.split("Metric {").skip(1).filter(|row| row.contains("kind: Kind::"));
    rows.map(|row| {
        let field = |name: &str| {
            let after =
                row.split_once(&format!("{name}: ")).unwrap_or_else(|| panic!("no {name} in {row}")).1;
            after.split_once(",\n").map_or(after, |(value, _)| value)
        };
        let word = |name| field(name).split(',').next().unwrap_or_default();
        let string = |name| strings(text, word(name)).concat();
        MetricRow {
            name: string("name"),
            kind: word("kind").replace("Kind::", ""),
            unit: string("unit"),
            help: strings(text, field("help")).concat(),
            labels: strings(text, field("labels")),
        }
    })
    .collect()
}

/// The strings in a value, which may be a constant.
fn strings(text: &str, value: &str) -> Vec<String> {
    if value.contains(['"', '[']) {
        return value.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    }
    let name = value.rsplit("::").next().unwrap_or(value).trim();
    let declared =
        text.split_once(&format!("const {name}: ")).unwrap_or_else(|| panic!("no constant {name}")).1;
    strings(text, declared.split(';').next().unwrap_or_default())
}

fn metric_complaints(metric: &MetricRow) -> Vec<String> {
    let MetricRow { name, kind, unit, help, labels } = metric;
    let mut complaints = Vec::new();
    let mut must = |holds: bool, rule: &str| {
        if !holds {
            complaints.push(format!("{name}: {rule}"));
        }
    };
    let base = name.strip_suffix("_total").unwrap_or(name);
    let is_lower =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    must(name.starts_with("ttmem_") && is_lower, "begins with ttmem_ and is in lower case");
    must(help.ends_with('.'), "its help ends in a full stop");
    must(help.starts_with(|first: char| first.is_uppercase()), "its help begins with a capital");
    must(name.ends_with("_total") == (kind == "Counter"), "_total is for counters, and for all of them");
    must(base.ends_with("_bytes") == (unit == "By"), "_bytes is for bytes, and for all of them");
    let is_product = base.ends_with("_byte_seconds");
    must(is_product == (unit == "By.s"), "_byte_seconds is for the product, and for all of them");
    must(
        (base.ends_with("_seconds") && !is_product) == (unit == "s"),
        "_seconds is for seconds, and for all of them",
    );
    must(
        !["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)),
        "_bucket, _sum and _count are a histogram's own",
    );
    let is_ucum =
        ["By", "s", "By.s", "1"].contains(&unit.as_str()) || (unit.starts_with('{') && unit.ends_with('}'));
    must(is_ucum, "its unit is a base unit in UCUM's spelling");
    for label in labels {
        let is_taken =
            ["pod", "namespace", "container", "job", "instance", "le", "quantile"].contains(&label.as_str());
        must(!is_taken, &format!("its label {label} would be renamed by Prometheus"));
    }
    complaints
}
