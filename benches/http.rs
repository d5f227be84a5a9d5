//! As much of HTTP/1.1 as it takes to scrape over one kept connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is kept between requests, and the latest body.
pub(super) struct Http {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Http {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { address, stream: BufReader::with_capacity(256 * 1024, stream), body: Vec::new() })
    }

    /// The body of one successful GET.
    pub(super) fn get(&mut self, path: &str) -> anyhow::Result<&str> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200"), "GET {path} answered {}", line.trim_end());
        let mut body_bytes = None;
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "GET {path} ended in the header");
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                body_bytes = Some(value.trim().parse::<usize>()?);
            }
        }
        let body_bytes =
            body_bytes.with_context(|| format!("GET {path} does not say how long its answer is"))?;
        self.body.resize(body_bytes, 0);
        self.stream.read_exact(&mut self.body)?;
        std::str::from_utf8(&self.body).context("the answer is not UTF-8")
    }
}
