//! The parameters in a URL's query, parsed into what the registry understands.

use super::problem::Problem;
use crate::registry::{BufferFilter, Cursor, MemoryType};
use crate::sinks::query::{Refused, device, limit, memory_type, number, parameters, unknown};
use crate::views::json::decode_cursor;

/// Buffers in a page, unless asked for otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Buffers in a page at most: about two megabytes of JSON.
const LIMIT_MAX: usize = 10_000;

/// Which buffers a request wants.
#[derive(PartialEq, Debug)]
pub(super) struct BufferRequest {
    pub(super) filter: BufferFilter,
    pub(super) cursor: Cursor,
    pub(super) limit: usize,
}

/// Which processes a request wants.
#[derive(Default, PartialEq, Debug)]
pub(super) struct ProcessRequest {
    pub(super) device: Option<u16>,
    pub(super) pid: Option<u32>,
}

/// What is to fit, and where.
#[derive(PartialEq, Debug)]
pub(super) struct FitRequest {
    pub(super) size_bytes: u64,
    pub(super) memory_type: MemoryType,
    pub(super) device: Option<u16>,
}

impl BufferRequest {
    pub(super) fn parse(query: Option<&str>) -> Result<BufferRequest, Refused> {
        let mut request = BufferRequest {
            filter: BufferFilter::default(),
            cursor: Cursor::default(),
            limit: LIMIT_DEFAULT,
        };
        for (name, value) in parameters(query) {
            match name.as_ref() {
                "device" => request.filter.device = Some(device(&value)?),
                "pid" => request.filter.pid = Some(number(&name, &value, "a process id")?),
                "memory_type" => request.filter.memory_type = Some(memory_type(&value)?),
                "min_age_seconds" => request.filter.min_age_ns = Some(age_ns(&value)?),
                "limit" => request.limit = limit(&value, LIMIT_MAX, "buffers")?,
                "cursor" => request.cursor = cursor(&value)?,
                _ => {
                    return Err(unknown(
                        &name,
                        "device, pid, memory_type, min_age_seconds, limit and cursor",
                    ));
                }
            }
        }
        Ok(request)
    }
}

impl ProcessRequest {
    pub(super) fn parse(query: Option<&str>) -> Result<ProcessRequest, Refused> {
        let mut request = ProcessRequest::default();
        for (name, value) in parameters(query) {
            match name.as_ref() {
                "device" => request.device = Some(device(&value)?),
                "pid" => request.pid = Some(number(&name, &value, "a process id")?),
                _ => return Err(unknown(&name, "device and pid")),
            }
        }
        Ok(request)
    }
}

impl FitRequest {
    pub(super) fn parse(query: Option<&str>) -> Result<FitRequest, Refused> {
        let (mut size_bytes, mut memory_type_asked, mut device_asked) = (None, MemoryType::Dram, None);
        for (name, value) in parameters(query) {
            match name.as_ref() {
                "size_bytes" => size_bytes = Some(number(&name, &value, "a number of bytes")?),
                "memory_type" => memory_type_asked = memory_type(&value)?,
                "device" => device_asked = Some(device(&value)?),
                _ => return Err(unknown(&name, "size_bytes, memory_type and device")),
            }
        }
        let Some(size_bytes) = size_bytes else {
            return Err(Refused("size_bytes is missing: the size that is to fit".to_owned()));
        };
        Ok(FitRequest { size_bytes, memory_type: memory_type_asked, device: device_asked })
    }
}

/// For a path that takes none: a parameter that would be ignored is a mistake that nobody would notice.
pub(super) fn refuse_any(query: Option<&str>) -> Result<(), Problem> {
    match parameters(query).next() {
        None => Ok(()),
        Some((name, _)) => Err(Problem::bad_request(format!("parameter {name:?}: this path takes none"))),
    }
}

fn age_ns(value: &str) -> Result<u64, Refused> {
    let seconds: f64 = number("min_age_seconds", value, "a number of seconds")?;
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(Refused(format!("min_age_seconds: {value:?} is not a number of seconds from 0 on")));
    }
    // A float that is too large for the integer becomes its maximum.
    Ok((seconds * 1e9) as u64)
}

fn cursor(value: &str) -> Result<Cursor, Refused> {
    decode_cursor(value)
        .ok_or_else(|| Refused(format!("cursor: {value:?} is not one; take next_cursor of the page before")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_request_is_understood() {
        let query = "device=3&pid=42&memory_type=l1_small&min_age_seconds=1.5&limit=10&cursor=5-ff";
        let filter = BufferFilter {
            device: Some(3),
            pid: Some(42),
            memory_type: Some(MemoryType::L1Small),
            min_age_ns: Some(1_500_000_000),
        };
        let expected = BufferRequest { filter, cursor: Cursor { process: 5, slot: 255 }, limit: 10 };
        assert_eq!(BufferRequest::parse(Some(query)).expect("valid"), expected);
        assert_eq!(BufferRequest::parse(None).expect("valid").limit, LIMIT_DEFAULT);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |query: &str, expected: &str| {
            let problem = BufferRequest::parse(Some(query)).expect_err("must be refused");
            let text = format!("{problem:?}");
            assert!(text.contains(expected), "{query}: {text}");
        };
        check("devise=1", "devise");
        check("device=1024", "0 to 1023");
        check("device=-1", "0 to 1023");
        check("pid=x", "a process id");
        check("memory_type=hbm", "none of dram, l1, l1_small, trace, cb, kernel, system_memory");
        check("min_age_seconds=NaN", "from 0 on");
        check("limit=0", "from 1 to 10000");
        check("cursor=zz", "next_cursor");
        assert!(refuse_any(Some("x=1")).is_err());
        assert!(refuse_any(Some("")).is_ok());
    }
}
