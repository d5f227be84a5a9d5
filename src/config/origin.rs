//! Brings the sources together: the file, over it the environment, over that the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::error::{ConfigError, Place, Problem, did_you_mean};
use super::settings::{self, SETTINGS, Setting};
use super::{Config, DeviceConfig, device, file, flags, otlp};

/// Variables of this program that are not settings of the daemon.
const OTHER_VARIABLES: &[&str] =
    &[flags::FILE_VARIABLE, "TTMEM_SERVER", "TTMEM_CA_FILE", "TTMEM_USER", "TTMEM_PASSWORD_FILE"];

/// A configuration and what is worth saying about how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that it was read from, if any.
    pub file: Option<PathBuf>,
    /// What has no effect although somebody probably meant it to, one sentence each.
    pub warnings: Vec<String>,
}

/// Where a configuration comes from: the flags and variables of the start, and the name of the file. It can
/// be loaded again and again, and only the file's content can have changed in between.
#[derive(Clone)]
pub struct Origin {
    file: Option<PathBuf>,
    variables: Vec<(String, OsString)>,
    /// OpenTelemetry's, weaker than all the others.
    otel_variables: Vec<(String, OsString)>,
    flags: Vec<(&'static Setting, Vec<String>)>,
}

impl Origin {
    /// The flags of `arguments()` as clap parsed them, and the environment, of which only `TTMEM_` and `OTEL_`
    /// variables with a value count.
    pub fn new(matches: &ArgMatches, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
        let variables = with_prefix(settings::VARIABLE_PREFIX, &environment);
        let otel_variables = with_prefix(otlp::PREFIX, &environment);
        let file = flags::file(matches).map(PathBuf::from).or_else(|| {
            let (_, value) = variables.iter().find(|(name, _)| name == flags::FILE_VARIABLE)?;
            Some(PathBuf::from(value))
        });
        Self { file, variables, otel_variables, flags: flags::given(matches) }
    }

    /// The file, and of the environment only OpenTelemetry's variables: they may come from anywhere, so whoever checks a file
    /// wants to know what they add.
    pub fn of_file(path: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
        let otel_variables = with_prefix(otlp::PREFIX, &environment);
        Self { file: Some(path.to_owned()), variables: Vec::new(), otel_variables, flags: Vec::new() }
    }

    /// Reads the file and puts variables over it, and flags over those. A mistake counts even where something
    /// stronger replaces the value.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let content = self.file.as_deref().map(file::read).transpose()?;
        self.combine(content.as_deref())
    }

    /// The same with that for the file's content.
    pub fn combine(&self, content: Option<&str>) -> Result<Loaded, ConfigError> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        otlp::apply(&mut config.otlp, &self.otel_variables, &mut problems);
        if let (Some(path), Some(content)) = (&self.file, content) {
            let given = file::parse(path, content, &mut problems);
            apply(&mut config, given, &mut problems);
            problems.sort_by_key(|problem| problem.place.line());
        }
        let given = self.given_by_variables(&mut problems);
        apply(&mut config, given, &mut problems);
        apply(&mut config, self.given_by_flags(), &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        Ok(Loaded { config, file: self.file.clone(), warnings: self.warnings() })
    }

    fn given_by_variables(&self, problems: &mut Vec<Problem>) -> Vec<Given> {
        let mut given = Vec::new();
        for (name, value) in &self.variables {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == *name) else {
                continue;
            };
            let place = Place::Variable(name.clone());
            let Some(value) = value.to_str() else {
                let message = format!("{value:?} is not UTF-8; write it in UTF-8");
                problems.push(Problem { place, message });
                continue;
            };
            let values = if setting.kind.merge().is_some() {
                value.split(',').map(str::to_owned).collect()
            } else {
                vec![value.to_owned()]
            };
            given.push(Given::of_texts(setting, values, &place));
        }
        given
    }

    fn given_by_flags(&self) -> Vec<Given> {
        let given = |(setting, values): &(&'static Setting, Vec<String>)| {
            Given::of_texts(setting, values.clone(), &Place::Flag(setting.flag))
        };
        self.flags.iter().map(given).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let settings: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
        let known: Vec<&str> =
            settings.iter().map(String::as_str).chain(OTHER_VARIABLES.iter().copied()).collect();
        self.variables
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !known.contains(name) && !is_service_link(name))
            .map(|name| {
                let meant = did_you_mean(name, known.iter().copied());
                format!("the environment variable {name} has no effect: it is not known{meant}")
            })
            .chain(otlp::warnings(&self.otel_variables))
            .collect()
    }
}

/// The variables whose names begin so and that have a value.
fn with_prefix(prefix: &str, environment: &[(OsString, OsString)]) -> Vec<(String, OsString)> {
    let named =
        environment.iter().filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.clone())));
    named.filter(|(name, value)| name.starts_with(prefix) && !value.is_empty()).collect()
}

/// Whether Kubernetes made this variable: it announces every service to every pod, `TTMEM_PORT` for one
/// called ttmem.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What one source says about one setting.
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    /// Several only for a list.
    pub(super) items: Vec<Item>,
}

pub(super) struct Item {
    pub(super) value: Value,
    pub(super) place: Place,
}

pub(super) enum Value {
    Text(String),
    Device(DeviceConfig),
}

impl Given {
    fn of_texts(setting: &'static Setting, values: Vec<String>, place: &Place) -> Self {
        let item = |text| Item { value: Value::Text(text), place: place.clone() };
        Self { setting, items: values.into_iter().map(item).collect() }
    }
}

/// Puts what one source says over `config`. A list starts empty, so that an element found in it was given
/// twice by this source.
fn apply(config: &mut Config, source: Vec<Given>, problems: &mut Vec<Problem>) {
    for Given { setting, items } in source {
        match setting.kind.merge() {
            None => apply_items(config, setting, items, problems),
            Some(merge) => {
                let mut over = Config { listen: Vec::new(), devices: Vec::new(), ..Config::default() };
                apply_items(&mut over, setting, items, problems);
                merge(config, over);
            }
        }
    }
}

fn apply_items(config: &mut Config, setting: &Setting, items: Vec<Item>, problems: &mut Vec<Problem>) {
    for Item { value, place } in items {
        let applied = match value {
            Value::Text(text) => (setting.apply)(config, &text),
            Value::Device(device) => device::add(&mut config.devices, device),
        };
        if let Err(message) = applied {
            problems.push(Problem { place, message });
        }
    }
}
