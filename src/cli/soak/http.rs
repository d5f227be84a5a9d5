//! What the daemon answers over HTTP, asked by a plain client that takes no answer for whole that is not.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take, also of a daemon that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// The body of a good answer.
pub(super) fn get(socket: &Path, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: ttmem\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    body(&answer)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("{path}: not a whole good answer")))
}

/// `None` if the answer is not good, or breaks off.
fn body(answer: &str) -> Option<String> {
    let (head, rest) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    if lines.next()?.split(' ').nth(1)? != "200" {
        return None;
    }
    let value = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    match value("content-length") {
        Some((_, length)) => (rest.len() == length.trim().parse::<usize>().ok()?).then(|| rest.to_owned()),
        None => unchunked(rest),
    }
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, more) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(more.get(..size)?);
        rest = more.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_good_answer_counts() {
        let check =
            |answer: &str, expected: Option<&str>| assert_eq!(body(answer).as_deref(), expected, "{answer}");
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Some("ab"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", None);
        check("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nab", None);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), Some("abc"));
        check(&format!("{chunked}2\r\nab\r\n"), None);
        check(&format!("{chunked}5\r\nab\r\n"), None);
    }
}
