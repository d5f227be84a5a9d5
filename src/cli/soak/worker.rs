//! A simulated process: does what it is told, a line at a time, and says when it has.
//!
//! The idea is that it decides nothing, so that the plan alone says what happens. It holds connections that speak frames, or one client of
//! the library, and perhaps an heir: a process that goes on using a connection of its parent's, as a fork does.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::SplitWhitespace;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Signal, getpid, set_parent_process_death_signal};
use ttmem_client::{Client, Options};
use ttmem_wire::{Header, Kind, Layout, encode_request};

use super::report::Report;

/// How long a worker waits for the daemon, which may be started again meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Attempts at a connection: a daemon that is killed between taking one and keeping it closes it, and nothing of it has been read.
const ATTEMPTS_MAX: u32 = 20;
/// Small rings, so that they are full now and then.
const RINGS: u32 = 4;
const RING_RECORDS: u32 = 256;
/// The longest piece of a stream that is cut anywhere.
const PIECE_BYTES_MAX: usize = 97;

/// One process's share of the work.
struct Worker {
    socket: PathBuf,
    connections: BTreeMap<u32, Connection>,
    client: Option<Client>,
    heir: Option<Heir>,
}

struct Connection {
    stream: UnixStream,
    layout: Layout,
}

struct Heir {
    child: Child,
    connection: u32,
}

/// How frames are put into sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// So many to each.
    Batched(usize),
    /// In pieces that are no frames.
    Torn,
}

impl fmt::Display for Manner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Manner::Batched(frames) => write!(formatter, "{frames}"),
            Manner::Torn => formatter.write_str("torn"),
        }
    }
}

/// Takes lines from standard input until it ends.
pub(super) fn run(socket: &Path) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let socket = socket.to_owned();
    let mut worker = Worker { socket, connections: BTreeMap::new(), client: None, heir: None };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = worker.obey(&line).unwrap_or_else(|error| format!("error {line:.60}: {error:#}"));
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

/// An heir: writes what comes from its standard input to the connection that is its standard output, and says so on standard error.
pub(super) fn inherit() -> anyhow::Result<()> {
    let (mut input, mut output, mut said) = (io::stdin().lock(), io::stdout().lock(), io::stderr().lock());
    let mut size = [0; 4];
    // That its parent is gone is the end of the input.
    while input.read_exact(&mut size).is_ok() {
        let mut bytes = vec![0; u32::from_le_bytes(size) as usize];
        input.read_exact(&mut bytes)?;
        output.write_all(&bytes)?;
        output.flush()?;
        said.write_all(&[1])?;
    }
    Ok(())
}

impl Worker {
    fn obey(&mut self, line: &str) -> anyhow::Result<String> {
        let mut words = line.split_whitespace();
        match words.next().context("an empty line")? {
            "open" => {
                let (name, layout) = (number(&mut words)?, layout(&mut words)?);
                let connection = Connection::open(&self.socket, layout)?;
                self.connections.insert(name, connection);
            }
            "library" => self.client = Some(client(&self.socket, words.next() == Some("rings"))),
            "send" => {
                let (name, manner) = (number(&mut words)?, manner(&mut words)?);
                let reports = words.map(Report::parse).collect::<anyhow::Result<Vec<_>>>()?;
                self.send(name, manner, &reports)?;
            }
            "flood" => {
                let (name, rounds): (u32, u32) = (number(&mut words)?, number(&mut words)?);
                let taken = Report::parse(words.next().context("nothing to flood with")?)?;
                let given = Report { kind: Kind::Free, memory: 0, ..taken };
                // One line's worth of memory at a time.
                for _ in 0..rounds {
                    self.send(name, Manner::Batched(64), &[[taken, given]; 32].concat())?;
                }
            }
            "heir" => return self.raise(number(&mut words)?),
            "bequeath" => {
                let reports = words.map(Report::parse).collect::<anyhow::Result<Vec<_>>>()?;
                self.bequeath(&reports)?;
            }
            "close" => {
                let name = number(&mut words)?;
                self.connections.remove(&name).context("no such connection")?;
            }
            "half" => self.half_frame(number(&mut words)?)?,
            "garbage" => self.garbage(words.next().unwrap_or_default())?,
            "sync" => self.sync()?,
            "exit" => std::process::exit(0),
            unknown => bail!("unknown word {unknown}"),
        }
        Ok("ok".to_owned())
    }

    fn send(&mut self, name: u32, manner: Manner, reports: &[Report]) -> anyhow::Result<()> {
        if let Some(client) = &self.client {
            return reports.iter().try_for_each(|report| report.call(client));
        }
        let connection = self.connections.get(&name).context("no such connection")?;
        connection.send(manner, reports, getpid().as_raw_pid())
    }

    /// Starts an heir of a connection.
    fn raise(&mut self, name: u32) -> anyhow::Result<String> {
        let connection = self.connections.get(&name).context("no such connection")?;
        let stream: OwnedFd = connection.stream.try_clone()?.into();
        let child = Command::new(std::env::current_exe()?)
            .args(["soak", "--role", "heir"])
            .stdin(Stdio::piped())
            .stdout(stream)
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = child.id();
        self.heir = Some(Heir { child, connection: name });
        Ok(format!("ok {pid}"))
    }

    /// Lets the heir report, and waits until it has: a frame of its parent's must not come in between.
    fn bequeath(&mut self, reports: &[Report]) -> anyhow::Result<()> {
        let Heir { child, connection } = self.heir.as_mut().context("there is no heir")?;
        let layout = self.connections.get(connection).context("its connection is gone")?.layout;
        let pid = i32::try_from(child.id())?;
        let bytes = frames(reports, layout, pid);
        let input = child.stdin.as_mut().context("it has no input")?;
        input.write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
        input.write_all(&bytes)?;
        child.stderr.as_mut().context("it says nothing")?.read_exact(&mut [0])?;
        Ok(())
    }

    /// Sends what is no frame, over a connection of its own, and waits for the daemon to close it.
    fn garbage(&self, reason: &str) -> anyhow::Result<()> {
        let layout = Layout::Bytes144;
        let mut connection = Connection::open(&self.socket, layout)?;
        let mut frame = encode_request(&Header::request(Kind::Query), layout).to_vec();
        match reason {
            "unknown_type" => frame[0] = u8::MAX,
            "padding" => frame[2] = 1,
            "tail" => frame[100] = 1,
            _ => bail!("no way to be {reason}"),
        }
        connection.stream.write_all(&frame)?;
        let mut rest = Vec::new();
        match connection.stream.read_to_end(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => bail!("garbage was answered"),
            // It was closed before all was read of it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).context("a connection with garbage stays open"),
        }
    }

    /// Ends a connection of its own inside a frame, and waits for the daemon to see it.
    fn half_frame(&self, bytes: usize) -> anyhow::Result<()> {
        let layout = Layout::Bytes144;
        let mut connection = Connection::open(&self.socket, layout)?;
        let frame = encode_request(&Header::request(Kind::Query), layout);
        connection.stream.write_all(&frame[..bytes])?;
        connection.stream.shutdown(Shutdown::Write)?;
        connection.stream.read_to_end(&mut Vec::new())?;
        Ok(())
    }

    /// Waits until the daemon has read all that was reported.
    fn sync(&mut self) -> anyhow::Result<()> {
        for connection in self.connections.values_mut() {
            connection.ask(1)?;
        }
        if let Some(client) = &self.client {
            ensure!(client.flush(PATIENCE), "the library could not hand over its reports");
        }
        Ok(())
    }
}

impl Connection {
    /// Connects, and settles the layout by two questions.
    fn open(socket: &Path, layout: Layout) -> anyhow::Result<Connection> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut connection = Connection { stream, layout };
            match connection.ask(2) {
                Err(error) if attempt == ATTEMPTS_MAX => return Err(error.into()),
                Err(_) => {}
                Ok(()) => return Ok(connection),
            }
        }
    }

    /// Asks so many questions and takes the answers.
    fn ask(&mut self, count: usize) -> io::Result<()> {
        let question = encode_request(&Header::request(Kind::Query), self.layout);
        self.stream.write_all(&question.repeat(count))?;
        let mut answers = vec![0; count * self.layout.frame_bytes()];
        self.stream.read_exact(&mut answers)
    }

    fn send(&self, manner: Manner, reports: &[Report], pid: i32) -> anyhow::Result<()> {
        let bytes = frames(reports, self.layout, pid);
        let piece_bytes = match manner {
            Manner::Batched(frames) => frames * self.layout.frame_bytes(),
            Manner::Torn => PIECE_BYTES_MAX,
        };
        for piece in bytes.chunks(piece_bytes) {
            (&self.stream).write_all(piece).context("the connection broke")?;
        }
        Ok(())
    }
}

/// Every other frame names the process, the others leave it to the connection.
fn frames(reports: &[Report], layout: Layout, pid: i32) -> Vec<u8> {
    let is_own = pid == getpid().as_raw_pid();
    let claims = [pid, if is_own { 0 } else { pid }];
    let headers = reports.iter().zip(claims.into_iter().cycle());
    headers
        .flat_map(|(report, claim)| encode_request(&report.header(layout, claim), layout).to_vec())
        .collect()
}

fn client(socket: &Path, uses_rings: bool) -> Client {
    let (socket, rings, ring_records) = (socket.to_owned(), RINGS, RING_RECORDS);
    Client::with_options(Options { socket, uses_rings, rings, ring_records, ..Options::default() })
}

fn number<T: std::str::FromStr>(words: &mut SplitWhitespace<'_>) -> anyhow::Result<T> {
    words.next().and_then(|word| word.parse().ok()).context("a number is missing")
}

fn layout(words: &mut SplitWhitespace<'_>) -> anyhow::Result<Layout> {
    Layout::from_frame_bytes(number(words)?).context("no frame has that size")
}

fn manner(words: &mut SplitWhitespace<'_>) -> anyhow::Result<Manner> {
    match words.next() {
        Some("torn") => Ok(Manner::Torn),
        word => Ok(Manner::Batched(word.and_then(|word| word.parse().ok()).context("frames to a send()")?)),
    }
}
