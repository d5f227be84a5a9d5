//! How single values are read: each function takes the text and gives the value or a sentence with the
//! remedy.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::error::did_you_mean;

/// Bytes that fit `sun_path` of a Unix socket's address, without its closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Bytes of a text that ends up as a label on every series of a device.
const LABEL_BYTES_MAX: usize = 64;

/// Bits of a file mode that mean something on a socket: read, write and search for owner, group and others.
const SOCKET_MODE_MAX: u32 = 0o777;

/// The bounds of a whole number, both allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest value.
    pub min: u64,
    /// The largest value.
    pub max: u64,
}

impl Range {
    /// The number in `text`, if it lies within these bounds.
    pub(super) fn parse<T: TryFrom<u64>>(self, text: &str) -> Result<T, String> {
        let Self { min, max } = self;
        text.parse()
            .ok()
            .filter(|number| (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("{text:?} is not allowed; write a whole number from {min} to {max}"))
    }
}

/// Declares a value that is one word of a closed list.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value as it is written in the configuration.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// This value as it is written in the configuration.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            pub(super) fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(did_you_mean_one_of(text, Self::NAMES.iter().copied())),
                }
            }
        }
    };
}

choice! {
    /// The frame size that connections speak.
    SocketLayout {
        /// Found out for each connection.
        Auto = "auto",
        /// 72 bytes.
        Bytes72 = "72",
        /// 112 bytes.
        Bytes112 = "112",
        /// 144 bytes.
        Bytes144 = "144",
    }
}

choice! {
    /// How the `buffer_type` of a frame is read.
    SocketBufferTypes {
        /// By the size of the frame.
        Auto = "auto",
        /// 2 is L1_SMALL, 3 and 4 are TRACE.
        Seed = "seed",
        /// tt-metal's own order: 2 is host memory, 3 is L1_SMALL, 4 is TRACE.
        Metal = "metal",
    }
}

choice! {
    /// A chip's architecture.
    Arch {
        /// Grayskull.
        Grayskull = "grayskull",
        /// Wormhole B0.
        WormholeB0 = "wormhole_b0",
        /// Blackhole.
        Blackhole = "blackhole",
        /// Quasar.
        Quasar = "quasar",
    }
}

choice! {
    /// The form of log lines.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One object to a line.
        Json = "json",
    }
}

choice! {
    /// What the daemon gives up before it serves anybody.
    Sandbox {
        /// Privileges, system calls and changing files.
        Full = "full",
        /// Privileges and system calls alone.
        Calls = "calls",
        /// Nothing.
        Off = "off",
    }
}

choice! {
    /// The least severe level that is logged.
    LogLevel {
        /// Only what needs an operator.
        Error = "error",
        /// And what may need one.
        Warn = "warn",
        /// And what happens in ordinary life.
        Info = "info",
        /// And each connection and process.
        Debug = "debug",
        /// And single messages.
        Trace = "trace",
    }
}

choice! {
    /// How OTLP travels.
    OtlpProtocol {
        /// Protobuf over gRPC.
        Grpc = "grpc",
        /// Protobuf in the body of an HTTP request.
        Http = "http/protobuf",
    }
}

choice! {
    /// How OTLP requests are compressed.
    OtlpCompression {
        /// Not at all.
        None = "none",
        /// By gzip.
        Gzip = "gzip",
    }
}

choice! {
    /// What a counter's data point says.
    OtlpTemporality {
        /// The total since the start.
        Cumulative = "cumulative",
        /// The difference to the reading before.
        Delta = "delta",
        /// Differences for histograms only: our counters are read at intervals, and for those this preference asks for totals.
        LowMemory = "lowmemory",
    }
}

choice! {
    /// How OTLP's histograms are made.
    OtlpHistograms {
        /// Buckets that double, as many as there are values for.
        Exponential = "base2_exponential_bucket_histogram",
        /// The classic bounds of /metrics.
        Explicit = "explicit_bucket_histogram",
    }
}

/// Says which words would have been understood in the place of `text`, and which was probably meant.
pub(super) fn did_you_mean_one_of<'a>(text: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let list: Vec<&str> = names.clone().collect();
    format!("{text:?} is not one of {}{}", list.join(", "), did_you_mean(text, names))
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false; write one of the two")),
    }
}

/// A path of the file system.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err(format!("{text:?} is not a path; write one, such as \"/run/ttmem\""));
    }
    Ok(PathBuf::from(text))
}

/// A path that a Unix socket can be bound to.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "{text:?} has {} bytes and a socket's path holds {SOCKET_PATH_BYTES_MAX}; write a shorter path",
            text.len()
        ));
    }
    path(text)
}

/// A place where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket, short enough for one.
    Unix(PathBuf),
}

/// What a Unix socket's path comes after.
const UNIX_PREFIX: &str = "unix:";

impl ListenAddress {
    /// Whether the system chooses the port, so that two of the same are two.
    pub(super) fn is_any_port(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// Where to listen: an address and a port, or a Unix socket.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    match text.strip_prefix(UNIX_PREFIX) {
        Some(path) => socket_path(path).map(ListenAddress::Unix),
        None => address(text).map(ListenAddress::Tcp),
    }
}

/// Permission bits, octal.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= SOCKET_MODE_MAX).ok_or_else(|| {
        format!("{text:?} is not an octal mode; write three or four digits 0-7, such as \"0660\"")
    })
}

/// A value that `none` leaves out.
pub(super) fn unless_none<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == "none" { Ok(None) } else { parse(text).map(Some) }
}

/// A text that may stand on one line: not empty, bounded, without control characters.
pub(super) fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LABEL_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "{text:?} cannot be used; write 1 to {LABEL_BYTES_MAX} bytes without control characters"
        ));
    }
    Ok(text.to_owned())
}

/// A PCI address as the kernel writes it.
pub(super) fn pci_bus_id(text: &str) -> Result<String, String> {
    let shape = b"xxxx:xx:xx.x";
    let fits = text.len() == shape.len()
        && text.bytes().zip(shape).all(|(byte, wanted)| match wanted {
            b'x' => byte.is_ascii_hexdigit(),
            _ => byte == *wanted,
        });
    if !fits {
        return Err(format!(
            "{text:?} is not a PCI address; write domain, bus, device and function, such as \"0000:01:00.0\""
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// An address and a port to listen on. Names are not looked up: what they mean can change between two starts.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.strip_prefix(':').unwrap_or(text);
        if port.parse::<u16>().is_ok() {
            return format!(
                "{text:?} has no address; write \"127.0.0.1:{port}\" for this host only, \
                 or \"[::]:{port}\" for every interface"
            );
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let with_port = SocketAddr::new(address, super::DEFAULT_PORT);
            return format!("{text:?} has no port; write \"{with_port}\"");
        }
        if let Some((name, port)) = text.rsplit_once(':')
            && port.parse::<u16>().is_ok()
            && !name.contains([':', '['])
        {
            return format!(
                "{text:?} is a name; write the address that it stands for, such as \"127.0.0.1:{port}\""
            );
        }
        format!("{text:?} is not an address and a port; write \"127.0.0.1:8080\" or \"[::1]:8080\"")
    })
}
