//! The table as flags of the command line. clap only splits the arguments: what a value may be is decided
//! where all sources meet.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::settings::{Kind, SETTINGS, Setting};

/// The flag and the environment variable that name the file; a file cannot name itself.
const FILE_FLAG: &str = "config";
pub(super) const FILE_VARIABLE: &str = "TTMEM_CONFIG";

/// One flag for the file and one for each setting.
pub fn arguments() -> impl Iterator<Item = Arg> {
    let file = Arg::new(FILE_FLAG)
        .long(FILE_FLAG)
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .help("TOML file with settings [default: none]")
        .long_help(format!(
            "TOML file with settings. SIGHUP reads it again; `ttmem check-config FILE` tries it first.\n\n\
             [default: none] [env: {FILE_VARIABLE}]"
        ));
    std::iter::once(file).chain(SETTINGS.iter().map(Setting::argument))
}

impl Setting {
    /// The flag of this setting. Its value is a `String`, several where it can be repeated.
    pub fn argument(&self) -> Arg {
        let default = if self.default.is_empty() { "none" } else { self.default };
        let argument = Arg::new(self.key)
            .long(self.flag)
            .value_name(self.value_name)
            .help_heading(self.section)
            .help(format!("{} [default: {default}]", self.help))
            .long_help(format!("{}\n\n[default: {default}] [env: {}]", self.description(), self.variable()));
        match self.kind {
            Kind::List(_) | Kind::Devices => argument.action(ArgAction::Append).value_delimiter(','),
            Kind::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Kind::Choice(names) => argument.value_parser(ValueParser::new(Shown(names))),
            Kind::Path => argument.value_hint(ValueHint::AnyPath),
            Kind::Text | Kind::Number(_) | Kind::Mode => argument,
        }
    }
}

/// What the command line says, setting by setting; nothing for those that it does not name.
pub(super) fn given(matches: &ArgMatches) -> Vec<(&'static Setting, Vec<String>)> {
    SETTINGS.iter().filter_map(|setting| Some((setting, values(matches, setting.key)?))).collect()
}

/// The file that the command line names.
pub(super) fn file(matches: &ArgMatches) -> Option<String> {
    values(matches, FILE_FLAG)?.pop()
}

fn values(matches: &ArgMatches, id: &str) -> Option<Vec<String>> {
    if matches.value_source(id) != Some(ValueSource::CommandLine) {
        return None;
    }
    Some(matches.get_many::<String>(id)?.cloned().collect())
}

/// Takes every string, and names those that help and completion show.
#[derive(Clone)]
struct Shown(&'static [&'static str]);

impl TypedValueParser for Shown {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().copied().map(PossibleValue::new)))
    }
}
