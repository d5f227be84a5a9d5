//! What the parameters of several requests have in common: how they are read from a URL's query, and what is said of those that are wrong.

use std::borrow::Cow;
use std::str::FromStr;

use crate::registry::{DEVICES_MAX, MemoryType};

/// A parameter was not understood: the requester's fault, told with the remedy.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

pub(super) fn parameters(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

pub(super) fn unknown(name: &str, known: &str) -> Refused {
    Refused(format!("parameter {name:?} is not known; there are {known}"))
}

pub(super) fn number<T: FromStr>(name: &str, value: &str, wanted: &str) -> Result<T, Refused> {
    value.parse().map_err(|_| Refused(format!("{name}: {value:?} is not {wanted}")))
}

pub(super) fn device(value: &str) -> Result<u16, Refused> {
    let wanted = "a device index from 0 to 1023";
    let index = number("device", value, wanted)?;
    if index < DEVICES_MAX { Ok(index) } else { Err(Refused(format!("device: {value:?} is not {wanted}"))) }
}

pub(super) fn memory_type(value: &str) -> Result<MemoryType, Refused> {
    MemoryType::from_name(value).ok_or_else(|| {
        let known = MemoryType::ALL.map(MemoryType::name).join(", ");
        Refused(format!("memory_type: {value:?} is none of {known}"))
    })
}

/// A count of things in a page.
pub(super) fn limit(value: &str, max: usize, things: &str) -> Result<usize, Refused> {
    let limit = number("limit", value, &format!("a number of {things}"))?;
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(Refused(format!("limit: {value:?} is not from 1 to {max}; page with cursor for more")))
}
