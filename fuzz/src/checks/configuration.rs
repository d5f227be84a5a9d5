//! Files that the operator writes: whatever is wrong with one is named with its place, and what is accepted can be written down again.

use std::path::Path;

use ttmem::config::{Config, ConfigError, Origin, WebConfig, differences};

/// Either accepted, or refused with a message for each problem that begins with the file's name.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("ttmem.toml");
    match read(path, text) {
        Ok(config) => {
            let written = differences(&config).join("\n");
            let again = read(path, &written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
            assert_eq!(again, config, "{written:?}");
        }
        Err(error) => check_refusal("ttmem.toml", &error),
    }
}

fn read(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let origin = Origin::of_file(path, []);
    origin.combine(Some(text)).map(|loaded| loaded.config)
}

/// The same for the web configuration; what is accepted has no user twice, and only hashes that can be checked.
pub fn web_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match WebConfig::parse(Path::new("web.yml"), text) {
        Ok(config) => {
            let mut names: Vec<&str> = config.users.iter().map(|user| user.name.as_str()).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
            assert!(config.users.iter().all(|user| (4..=31).contains(&user.cost)));
            assert!(config.rate_limit.is_none_or(|limit| limit.burst > 0));
            assert!(config.tls.is_none_or(|tls| tls.versions.tls12 || tls.versions.tls13));
        }
        Err(error) => check_refusal("web.yml", &error),
    }
}

/// A refusal has a line for each problem, and each names the file and what is wrong.
fn check_refusal(file: &str, error: &ConfigError) {
    let ConfigError::Invalid(problems) = error else { panic!("there was no file to read: {error}") };
    assert!(!problems.is_empty());
    for problem in problems {
        assert!(!problem.message.is_empty());
        assert!(problem.place.to_string().starts_with(file), "{}", problem.place);
    }
}
