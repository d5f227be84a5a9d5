//! As much of HTTP/1.1 as it takes to scrape over one kept connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is kept between requests, and the latest body.
pub(super) struct Http {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

/// How an answer says where it ends.
enum Length {
    Bytes(usize),
    Chunked,
}

impl Http {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let stream = BufReader::with_capacity(256 * 1024, stream);
        Ok(Self { address, stream, line: String::new(), body: Vec::new() })
    }

    /// The body of one successful GET, as text.
    pub(super) fn get(&mut self, path: &str) -> anyhow::Result<&str> {
        std::str::from_utf8(self.fetch(path)?).context("the answer is not UTF-8")
    }

    /// The body of one successful GET.
    pub(super) fn fetch(&mut self, path: &str) -> anyhow::Result<&[u8]> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let length = self.head(path)?;
        self.body.clear();
        match length {
            Length::Bytes(bytes) => self.append(bytes)?,
            Length::Chunked => loop {
                self.read_line()?;
                let bytes = usize::from_str_radix(self.line.trim_end(), 16)
                    .with_context(|| format!("GET {path} sent a chunk of length {:?}", self.line))?;
                self.append(bytes)?;
                self.read_line()?;
                if bytes == 0 {
                    break;
                }
            },
        }
        Ok(&self.body)
    }

    fn head(&mut self, path: &str) -> anyhow::Result<Length> {
        self.read_line()?;
        ensure!(self.line.starts_with("HTTP/1.1 200"), "GET {path} answered {}", self.line.trim_end());
        let mut length = None;
        loop {
            self.read_line()?;
            let header = self.line.trim_end();
            if header.is_empty() {
                return length.with_context(|| format!("GET {path} does not say how long its answer is"));
            }
            let Some((name, value)) = header.split_once(':') else { bail!("GET {path} sent {header:?}") };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(Length::Bytes(value.trim().parse()?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = Some(Length::Chunked);
            }
        }
    }

    fn read_line(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        ensure!(self.stream.read_line(&mut self.line)? > 0, "the connection was closed inside an answer");
        Ok(())
    }

    fn append(&mut self, bytes: usize) -> anyhow::Result<()> {
        let start = self.body.len();
        self.body.resize(start + bytes, 0);
        Ok(self.stream.read_exact(&mut self.body[start..])?)
    }
}
