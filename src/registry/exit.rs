//! How a process ended: what the kernel hands to whoever waits for it.

use std::fmt;

/// The end of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It ended by itself, with this code.
    Code(u8),
    /// A signal ended it, of this number.
    Signal(u8),
}

impl Exit {
    /// What a wait status says.
    pub fn of_wait_status(status: i32) -> Exit {
        match status & 0x7f {
            0 => Exit::Code((status >> 8) as u8),
            signal => Exit::Signal(signal as u8),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_told_in_words() {
        let check = |status, expected: &str| assert_eq!(Exit::of_wait_status(status).to_string(), expected);
        check(0, "code 0");
        check(3 << 8, "code 3");
        check(9, "signal 9");
        check(0x80 | 11, "signal 11");
    }
}
