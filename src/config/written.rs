//! The table as text: the reference in Markdown, the annotated example, and the settings that differ from the
//! defaults.

use super::Config;
use super::device::{DEVICE_KEYS, DeviceConfig, DeviceKey};
use super::file::is_number;
use super::products::PRODUCTS;
use super::settings::{Kind, SETTINGS, Setting};

/// Lines of the example are no longer than this.
const COMMENT_COLUMNS: usize = 100;

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `ttmem check-config --list` from src/config/settings.rs. -->

Each setting has one name in three places: a key of the TOML file (`socket_mode`), a flag of `ttmem serve`
(`--socket-mode`) and an environment variable (`TTMEM_SOCKET_MODE`). A flag wins over a variable, a variable
over the file, the file over the default. A variable without a value counts as not set. Lists are arrays in
the file; a flag is repeated; a variable separates with commas.

OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`, are honoured too, and are weaker than the file:
docs/opentelemetry.md lists them.

`--config` or `TTMEM_CONFIG` names the file. `ttmem check-config FILE` says what is wrong with it, or how it
differs from the defaults; `ttmem check-config --example` prints one to start from.

SIGHUP reads the file again. Settings that need a restart keep their values until then, and the log names
those that changed.
";

const DEVICES: &str = "
## `[[device]]`

One table for each device, in place of `device = [\"INDEX=PRODUCT\"]`.

| Key | Example | Meaning |
|---|---|---|
";

const PRODUCT_CAPACITIES: &str = "
## Products

What tt-metal's allocator can use of one chip, in bytes. A board with several chips is several devices.

| Product | Architecture | DRAM | L1 |
|---|---|---|---|
";

/// The reference of every setting, for `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in sections() {
        page +=
            &format!("\n## {section}\n\n| Key | Default | A change needs | Meaning |\n|---|---|---|---|\n");
        page.extend(SETTINGS.iter().filter(|setting| setting.section == section).map(row));
    }
    page += DEVICES;
    for DeviceKey { key, kind, help, example, .. } in DEVICE_KEYS {
        page += &format!("| `{key}` | `{}` | {help}. |\n", literal(*kind, example));
    }
    page += PRODUCT_CAPACITIES;
    for product in PRODUCTS {
        let (dram, l1) = (product.dram_bytes(), product.l1_bytes());
        page += &format!("| {} | {} | {dram} | {l1} |\n", product.name, product.arch.name());
    }
    page
}

fn row(setting: &Setting) -> String {
    let needs = if setting.reload { "SIGHUP" } else { "restart" };
    let default = literal(setting.kind, setting.default);
    format!("| `{}` | `{default}` | {needs} | {} |\n", setting.key, setting.description())
}

/// A configuration file with every setting at its default, commented out, for `docs/ttmem.toml`.
pub fn example() -> String {
    let mut file = comment(
        "Settings of ttmem serve. Each is shown with its default: take away the # before a key to change it, \
         and try the result with ttmem check-config FILE.",
    );
    for section in sections() {
        file += &format!("\n# --- {section} ---\n");
        for setting in SETTINGS.iter().filter(|setting| setting.section == section) {
            file += &format!("\n{}", comment(&setting.description()));
            file += &assignment(setting);
        }
    }
    file
}

/// The lines that set a setting to its default, or for devices one with every key.
fn assignment(setting: &Setting) -> String {
    if !matches!(setting.kind, Kind::Devices) {
        return format!("#{} = {}\n", setting.key, literal(setting.kind, setting.default));
    }
    let keys = DEVICE_KEYS.iter().map(|DeviceKey { key, kind, help, example, .. }| {
        let assignment = format!("{key} = {}", literal(*kind, example));
        format!("#{assignment:<32} # {help}\n")
    });
    format!("#[[{}]]\n{}", setting.key, keys.collect::<String>())
}

/// The settings that are not at their defaults, as lines of a TOML file.
pub fn differences(config: &Config) -> Vec<String> {
    let default = Config::default();
    SETTINGS
        .iter()
        .map(|setting| (setting.key, (setting.show)(config), (setting.show)(&default)))
        .filter(|(_, value, default)| value != default)
        .map(|(key, value, _)| format!("{key} = {value}"))
        .collect()
}

/// Devices as an array of TOML's inline tables.
pub(super) fn devices(devices: &[DeviceConfig]) -> String {
    let tables: Vec<String> = devices
        .iter()
        .map(|device| {
            let keys: Vec<String> = DEVICE_KEYS
                .iter()
                .filter_map(|row| Some(format!("{} = {}", row.key, literal(row.kind, &(row.show)(device)?))))
                .collect();
            format!("{{ {} }}", keys.join(", "))
        })
        .collect();
    format!("[{}]", tables.join(", "))
}

/// A value as TOML writes it.
fn literal(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Number(_) if is_number(text) => text.to_owned(),
        Kind::Switch => text.to_owned(),
        Kind::List(_) | Kind::Devices if text.is_empty() => "[]".to_owned(),
        Kind::List(_) | Kind::Devices => format!("[{}]", quoted(text)),
        _ => quoted(text),
    }
}

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted += &format!("\\u{:04X}", u32::from(control)),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

/// The headings of the table, in its order.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = SETTINGS.iter().map(|setting| setting.section).collect();
    sections.dedup();
    sections
}

/// Text as comment lines, broken between words.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < COMMENT_COLUMNS => *line += &format!(" {word}"),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}
