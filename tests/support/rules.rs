//! Reads the rule files of alerts/ and their tests, and judges them: each check gives what is wrong, one sentence each.
//!
//! This is no YAML parser: it knows the one form in which these files are written, and [`Rule::all`] is compared with what promtool
//! counts, so that a rule in another form is not overlooked.

use std::collections::{BTreeMap, BTreeSet};

/// Where the runbooks are published.
pub const RUNBOOKS_URL: &str = "https://github.com/ttmem/ttmem/blob/main/docs/runbooks/";
/// What stands before the path of a dashboard: the address of Grafana, where the Prometheus server has it as an external label.
const GRAFANA_URL: &str = "{{ $externalLabels.grafana_url }}/d/";
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
const RUNBOOK_PARTS: [&str; 5] =
    ["## What it means", "## Is it urgent?", "## Look here", "## What to do", "## False alarms"];
/// What Prometheus adds to every series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// An alert or a recorded series.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub name: String,
    pub is_alert: bool,
    /// Every value by its path, such as `expr`, `for` and `labels.severity`. Folded text is one line.
    pub fields: BTreeMap<String, String>,
}

impl Rule {
    /// Every rule of a file.
    pub fn all(text: &str) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        let (mut section, mut path) = (String::new(), String::new());
        for line in text.lines() {
            let content = line.trim_start();
            let indent = line.len() - content.len();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let head = content.strip_prefix("- alert: ").or_else(|| content.strip_prefix("- record: "));
            if let (6, Some(name)) = (indent, head) {
                let is_alert = content.starts_with("- alert");
                rules.push(Rule { name: name.to_owned(), is_alert, fields: BTreeMap::new() });
                (section, path) = (String::new(), String::new());
                continue;
            }
            let Some(rule) = rules.last_mut() else { continue };
            let is_key = indent == 8 || (indent == 10 && !section.is_empty());
            let key = if is_key { content.split_once(':') } else { None };
            let Some((key, value)) = key else {
                let text = rule.fields.entry(path.clone()).or_default();
                text.push_str(if text.is_empty() { "" } else { " " });
                text.push_str(content);
                continue;
            };
            if indent == 8 {
                section = if value.is_empty() { format!("{key}.") } else { String::new() };
            }
            path = if indent == 8 { key.to_owned() } else { format!("{section}{key}") };
            let value = value.trim().trim_matches('\'');
            if !value.is_empty() && value != "|-" && value != ">-" {
                rule.fields.insert(path.clone(), value.to_owned());
            }
        }
        rules
    }

    pub fn field(&self, path: &str) -> &str {
        self.fields.get(path).map_or("", String::as_str)
    }
}

/// The file with every `for:` and `keep_firing_for:` at zero; all else, the expressions first of all, stays as it is, byte for byte.
pub fn without_waiting(text: &str) -> String {
    let is_wait =
        |line: &&str| ["for:", "keep_firing_for:"].iter().any(|key| line.trim_start().starts_with(key));
    text.lines().filter(|line| !is_wait(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Whether each alert has a case in which it fires and one in which it is silent, and each recorded series one with a value and one without.
pub fn untested(rules: &[Rule], tests: &str) -> Vec<String> {
    let mut seen: BTreeSet<(&str, bool)> = BTreeSet::new();
    let mut subject = "";
    for line in tests.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("alertname: ").or_else(|| line.strip_prefix("- expr: ")) {
            subject = name;
        } else if line.starts_with("exp_alerts:") || line.starts_with("exp_samples:") {
            seen.insert((subject, !line.ends_with("[]")));
        }
    }
    let mut problems = Vec::new();
    for rule in rules {
        for (wanted, what) in [(true, "fires or has a value"), (false, "is silent or has none")] {
            let is_tested = seen.iter().any(|(subject, something)| {
                let is_meant =
                    if rule.is_alert { *subject == rule.name } else { subject.contains(&rule.name) };
                is_meant && *something == wanted
            });
            if !is_tested {
                problems.push(format!("{}: no case in which it {what}", rule.name));
            }
        }
    }
    problems
}

/// Whether each alert says what a person who is woken up needs. `boards` has the variables of each dashboard by its uid.
pub fn unhelpful(rules: &[Rule], boards: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for rule in rules.iter().filter(|rule| rule.is_alert) {
        let mut problem = |what: &str| problems.push(format!("{}: {what}", rule.name));
        if !rule.name.starts_with("Ttmem") {
            problem("its name does not begin with Ttmem");
        }
        if !SEVERITIES.contains(&rule.field("labels.severity")) {
            problem("its severity is none of critical, warning, info");
        }
        let [summary, description] =
            ["summary", "description"].map(|key| rule.field(&format!("annotations.{key}")));
        if summary.is_empty() || summary.contains("{{") || !summary.ends_with('.') {
            problem("its summary is not a plain sentence");
        }
        let has_device =
            rule.field("expr").contains("ttmem_device") || rule.field("expr").contains("ttmem_process");
        let is_named = |label: &str| description.contains(&format!("$labels.{label}"));
        if (has_device && !is_named("device"))
            || (!rule.field("expr").starts_with("absent") && !is_named("instance"))
        {
            problem("its description does not name the host, or the device");
        }
        if rule.field("annotations.runbook_url") != format!("{RUNBOOKS_URL}{}.md", rule.name) {
            problem("its runbook_url is not that of its page");
        }
        let link = rule.field("annotations.dashboard_url").strip_prefix(GRAFANA_URL).unwrap_or_default();
        let (board, query) = link.split_once('?').unwrap_or((link, ""));
        match boards.get(board) {
            None => problem("its dashboard_url leads to no dashboard of ours"),
            Some(known) => {
                for variable in
                    query.split('&').filter_map(|pair| pair.split('=').next()?.strip_prefix("var-"))
                {
                    if !known.contains(variable) {
                        problem(&format!("its dashboard_url sets {variable}, which {board} does not have"));
                    }
                }
            }
        }
    }
    problems
}

/// Whether there is a runbook, with all its parts, for each alert, and none for anything else. `pages` has texts by file name.
pub fn runbook_problems(rules: &[Rule], pages: &BTreeMap<String, String>) -> Vec<String> {
    let mut problems = Vec::new();
    let alerts: BTreeSet<String> =
        rules.iter().filter(|rule| rule.is_alert).map(|rule| format!("{}.md", rule.name)).collect();
    problems.extend(
        alerts.iter().filter(|page| !pages.contains_key(*page)).map(|page| format!("{page} is missing")),
    );
    for (page, text) in pages.iter().filter(|(page, _)| *page != "README.md") {
        if !alerts.contains(page) {
            problems.push(format!("{page} is of no alert"));
        }
        for part in RUNBOOK_PARTS.iter().filter(|part| !text.lines().any(|line| line == **part)) {
            problems.push(format!("{page} has no part {part:?}"));
        }
    }
    let index = pages.get("README.md").map_or("", String::as_str);
    problems.extend(
        alerts.iter().filter(|page| !index.contains(*page)).map(|page| format!("README.md lacks {page}")),
    );
    problems
}

/// Which metrics there are, with their labels.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary(BTreeMap<String, BTreeSet<String>>);

impl Vocabulary {
    /// The rows of METRICS.md.
    pub fn of_reference(reference: &str) -> Vocabulary {
        let mut metrics = BTreeMap::new();
        for row in reference.lines().filter(|line| line.starts_with("| `ttmem_")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let (name, kind) = (cells[1].trim_matches('`'), cells[2]);
            let labels: BTreeSet<String> =
                cells[4].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
            if kind == "histogram" {
                for part in ["_bucket", "_sum", "_count"] {
                    metrics.insert(
                        format!("{name}{part}"),
                        labels.iter().cloned().chain(["le".to_owned()]).collect(),
                    );
                }
            }
            metrics.insert(name.to_owned(), labels);
        }
        Vocabulary(metrics)
    }

    /// Adds metrics that are not exported yet. One that is, with other labels or with the same, is a problem.
    pub fn announce(&mut self, announced: &[(&str, &[&str])]) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, labels) in announced {
            let labels: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            match self.0.insert((*name).to_owned(), labels.clone()) {
                None => {}
                Some(known) if known == labels => {
                    problems
                        .push(format!("{name} is exported now: take it from the list of announced metrics"));
                }
                Some(known) => {
                    problems.push(format!(
                        "{name} is exported now, with the labels {known:?}: look at its rules"
                    ));
                }
            }
        }
        problems
    }

    /// Adds the recorded series, which have the labels of what they are made from.
    pub fn record(&mut self, rules: &[Rule]) {
        for rule in rules.iter().filter(|rule| !rule.is_alert) {
            let labels = self.labels_in(rule.field("expr"));
            self.0.insert(rule.name.clone(), labels);
        }
    }

    /// The labels of all metrics in an expression.
    fn labels_in(&self, expression: &str) -> BTreeSet<String> {
        words(expression).filter_map(|(word, ..)| self.0.get(word)).flatten().cloned().collect()
    }

    /// The metrics and labels of a rule that do not exist.
    pub fn unknown_in_rule(&self, rule: &Rule) -> Vec<String> {
        let expression = rule.field("expr");
        let mut problems = self.unknown_in(expression);
        let mut labels = self.labels_in(expression);
        labels.extend(TARGET_LABELS.map(str::to_owned));
        for (path, text) in &rule.fields {
            if path == "expr" {
                continue;
            }
            problems.extend(self.unknown_in(text));
            let used =
                text.split("$labels.").skip(1).map(|rest| words(rest).next().map_or("", |(word, ..)| word));
            for label in used.filter(|label| !labels.contains(*label)) {
                problems.push(format!("$labels.{label} is no label of the expression's metrics"));
            }
        }
        problems.into_iter().map(|problem| format!("{}: {problem}", rule.name)).collect()
    }

    /// The metrics of a text, and the labels in their selectors and in groupings, that do not exist. A name that follows `^` may
    /// be the beginning of one.
    pub fn unknown_in(&self, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for (word, before, after) in words(text) {
            if word.starts_with("ttmem_") || word.contains(":ttmem_") {
                let begins = before.ends_with('^') && self.0.keys().any(|name| name.starts_with(word));
                let Some(labels) = self.0.get(word) else {
                    if !begins {
                        problems.push(format!("there is no metric {word}"));
                    }
                    continue;
                };
                let selector = after.strip_prefix('{').filter(|rest| !rest.starts_with('{'));
                for label in
                    selector.and_then(|rest| rest.split('}').next()).map(selected).into_iter().flatten()
                {
                    if !labels.contains(label) && !TARGET_LABELS.contains(&label) {
                        problems.push(format!("{word} has no label {label}"));
                    }
                }
            }
            if ["by", "without", "on", "ignoring", "group_left"].contains(&word)
                && let Some(list) = after.trim_start().strip_prefix('(').and_then(|rest| rest.split(')').next())
                // In prose these words stand before brackets, too: only names with commas are a list of labels.
                && list.chars().all(|letter| letter.is_ascii_lowercase() || "_, ".contains(letter))
            {
                let labels =
                    list.split(',').map(str::trim).filter(|label| !label.is_empty() && !label.contains(' '));
                for label in labels.filter(|label| !TARGET_LABELS.contains(label)) {
                    if !self.0.values().any(|known| known.contains(label)) {
                        problems.push(format!("no metric has a label {label}"));
                    }
                }
            }
        }
        problems
    }
}

/// The words of a text as PromQL cuts them, with what stands before and after each.
fn words(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + text[from..].find(is_part)?;
        let end = text[start..].find(|letter| !is_part(letter)).map_or(text.len(), |length| start + length);
        from = end;
        Some((text[start..end].trim_end_matches(':'), &text[..start], &text[end..]))
    })
}

/// The names of the labels in a selector, such as `a="x",b=~"y|z"`.
fn selected(selector: &str) -> Vec<&str> {
    let mut labels = Vec::new();
    let mut rest = selector;
    while let Some((label, after)) = rest.split_once(['=', '!']) {
        labels.push(label.trim_matches([',', ' ']));
        let value = after.trim_start_matches(['=', '~', '!']);
        // A value is quoted, or the placeholder of a template.
        let end = match value.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map_or(value.len(), |length| length + 2),
            None => value.find(',').unwrap_or(value.len()),
        };
        rest = &value[end..];
    }
    labels
}
