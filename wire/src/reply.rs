//! What the server answers: the totals and the capacities of a device, in as many bytes as the peer's layout has.

use crate::frame::split;
use crate::{Frame, Header, Kind, Layout, ReplyError};

/// How much of a device's memory is in use: the body of a RESPONSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Device DRAM.
    pub dram_bytes: u64,
    /// L1.
    pub l1_bytes: u64,
    /// The part of L1 for small buffers.
    pub l1_small_bytes: u64,
    /// The part of DRAM for traces.
    pub trace_bytes: u64,
    /// Circular buffers; in 144-byte frames only.
    pub cb_bytes: u64,
    /// Kernel code; in 144-byte frames only.
    pub kernel_bytes: u64,
}

/// What a device has: the body of a DEVICE_INFO_RESPONSE; not in 72-byte frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceInfo {
    /// DRAM of all channels.
    pub total_dram_bytes: u64,
    /// L1 of all cores.
    pub total_l1_bytes: u64,
    /// The chip's architecture.
    pub arch: Arch,
    /// How many DRAM channels there are.
    pub num_dram_channels: u32,
    /// DRAM of one channel.
    pub dram_bytes_per_channel: u32,
    /// L1 of one core.
    pub l1_bytes_per_core: u32,
    /// Whether the server knows the device.
    pub is_available: bool,
    /// How many devices the server knows.
    pub num_devices: u32,
}

/// A chip's architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u32)]
pub enum Arch {
    /// Not known.
    #[default]
    Invalid = 0,
    /// Grayskull.
    Grayskull = 1,
    /// Wormhole B0.
    WormholeB0 = 2,
    /// Blackhole.
    Blackhole = 3,
    /// Quasar.
    Quasar = 4,
}

impl Arch {
    /// All of them, by their number.
    pub const ALL: [Arch; 5] =
        [Arch::Invalid, Arch::Grayskull, Arch::WormholeB0, Arch::Blackhole, Arch::Quasar];

    /// The architecture with that number.
    pub fn from_number(number: u32) -> Option<Arch> {
        Arch::ALL.into_iter().find(|&arch| arch as u32 == number)
    }

    /// Its name, as tt-metal spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Invalid => "invalid",
            Arch::Grayskull => "grayskull",
            Arch::WormholeB0 => "wormhole_b0",
            Arch::Blackhole => "blackhole",
            Arch::Quasar => "quasar",
        }
    }
}

/// A frame from the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// [`Kind::Response`] or [`Kind::DeviceInfoResponse`].
    pub kind: Kind,
    /// The device of the query.
    pub device_id: i32,
    /// What is in use.
    pub totals: Totals,
    /// What there is.
    pub info: DeviceInfo,
}

impl Reply {
    /// Writes the reply in the peer's layout; what the layout has no place for is left out.
    ///
    /// The first [`crate::REPLY_PREFIX_BYTES`] are the same in every layout.
    pub fn encode(&self, layout: Layout) -> Frame {
        let header = Header { device_id: self.device_id, ..Header::request(self.kind) };
        let mut frame = Frame::new(&header, layout);
        let mut body = Writer(frame.tail_mut());
        let Totals { dram_bytes, l1_bytes, l1_small_bytes, trace_bytes, cb_bytes, kernel_bytes } =
            self.totals;
        for bytes in [dram_bytes, l1_bytes, l1_small_bytes, trace_bytes] {
            body.put(bytes.to_le_bytes());
        }
        if layout == Layout::Bytes144 {
            body.put(cb_bytes.to_le_bytes());
            body.put(kernel_bytes.to_le_bytes());
        }
        if layout != Layout::Bytes72 {
            self.info.write(&mut body);
        }
        frame
    }

    /// Reads a reply, in a client. What the layout has no place for is zero, as are the fields of a 144-byte frame that carry
    /// nothing. Errors are the server's.
    ///
    /// # Panics
    ///
    /// If `frame` has not the size of the layout's frames: a client receives exactly as many bytes as it sends.
    pub fn decode(frame: &[u8], layout: Layout) -> Result<Reply, ReplyError> {
        let (header, body) = match layout {
            Layout::Bytes72 => split::<{ Layout::Bytes72.frame_bytes() }>(frame),
            Layout::Bytes112 => split::<{ Layout::Bytes112.frame_bytes() }>(frame),
            Layout::Bytes144 => split::<{ Layout::Bytes144.frame_bytes() }>(frame),
        };
        let Header { kind, device_id, .. } = Header::decode(header)?;
        if kind.is_request() {
            return Err(ReplyError::NotAReply(kind));
        }
        let mut body = Reader(body);
        let mut totals = Totals {
            dram_bytes: body.u64(),
            l1_bytes: body.u64(),
            l1_small_bytes: body.u64(),
            trace_bytes: body.u64(),
            ..Totals::default()
        };
        if layout == Layout::Bytes144 {
            totals.cb_bytes = body.u64();
            totals.kernel_bytes = body.u64();
        }
        let info = match layout {
            Layout::Bytes72 => DeviceInfo::default(),
            Layout::Bytes112 | Layout::Bytes144 => DeviceInfo::read(&mut body),
        };
        Ok(Reply { kind, device_id, totals, info })
    }
}

impl DeviceInfo {
    fn write(&self, body: &mut Writer<'_>) {
        body.put(self.total_dram_bytes.to_le_bytes());
        body.put(self.total_l1_bytes.to_le_bytes());
        for number in [
            self.arch as u32,
            self.num_dram_channels,
            self.dram_bytes_per_channel,
            self.l1_bytes_per_core,
            u32::from(self.is_available),
            self.num_devices,
        ] {
            body.put(number.to_le_bytes());
        }
    }

    /// An architecture that this version does not know is read as [`Arch::Invalid`]: the rest of the reply is still of use.
    fn read(body: &mut Reader<'_>) -> DeviceInfo {
        DeviceInfo {
            total_dram_bytes: body.u64(),
            total_l1_bytes: body.u64(),
            arch: Arch::from_number(body.u32()).unwrap_or_default(),
            num_dram_channels: body.u32(),
            dram_bytes_per_channel: body.u32(),
            l1_bytes_per_core: body.u32(),
            is_available: body.u32() != 0,
            num_devices: body.u32(),
        }
    }
}

/// Fields in the order of their offsets, into what is left of a frame.
struct Writer<'a>(&'a mut [u8]);

impl<'a> Writer<'a> {
    fn put<const BYTES: usize>(&mut self, field: [u8; BYTES]) {
        let left = core::mem::take(&mut self.0);
        let (place, left) = left.split_at_mut(BYTES);
        place.copy_from_slice(&field);
        self.0 = left;
    }
}

/// The same way back.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        let (field, left) = self.0.split_at(BYTES);
        self.0 = left;
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(field);
        bytes
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FrameError, REPLY_PREFIX_BYTES, encode_request};

    const REPLY: Reply = Reply {
        kind: Kind::DeviceInfoResponse,
        device_id: 3,
        totals: Totals {
            dram_bytes: 0x1111_1111_1111,
            l1_bytes: 0x2222_2222_2222,
            l1_small_bytes: 0x3333_3333_3333,
            trace_bytes: 0x4444_4444_4444,
            cb_bytes: 0x5555_5555_5555,
            kernel_bytes: 0x6666_6666_6666,
        },
        info: DeviceInfo {
            total_dram_bytes: 12 << 30,
            total_l1_bytes: 64 * 1_499_136,
            arch: Arch::WormholeB0,
            num_dram_channels: 12,
            dram_bytes_per_channel: 1 << 30,
            l1_bytes_per_core: 1_499_136,
            is_available: true,
            num_devices: 8,
        },
    };

    #[test]
    fn all_layouts_begin_alike() {
        for kind in [Kind::Response, Kind::DeviceInfoResponse] {
            let reply = Reply { kind, ..REPLY };
            let prefix = &reply.encode(Layout::Bytes72)[..];
            assert_eq!(prefix.len(), REPLY_PREFIX_BYTES);
            for layout in Layout::ALL {
                assert_eq!(&reply.encode(layout)[..REPLY_PREFIX_BYTES], prefix);
            }
        }
    }

    #[test]
    fn a_layout_carries_what_it_has_a_place_for() {
        for layout in Layout::ALL {
            let mut expected = REPLY;
            if layout != Layout::Bytes144 {
                expected.totals.cb_bytes = 0;
                expected.totals.kernel_bytes = 0;
            }
            if layout == Layout::Bytes72 {
                expected.info = DeviceInfo::default();
            }
            assert_eq!(Reply::decode(&REPLY.encode(layout), layout), Ok(expected));
        }
    }

    #[test]
    fn a_client_takes_only_replies_for_replies() {
        for layout in Layout::ALL {
            let request = encode_request(&Header::request(Kind::Query), layout);
            let error = Reply::decode(&request, layout);
            assert_eq!(error, Err(ReplyError::NotAReply(Kind::Query)));
            let mut bytes = REPLY.encode(layout).to_vec();
            bytes[2] = 1;
            let error = Reply::decode(&bytes, layout);
            assert_eq!(error, Err(ReplyError::Frame(FrameError::Padding { offset: 2 })));
        }
    }

    #[test]
    fn a_client_can_read_what_a_later_server_says() {
        let mut bytes = REPLY.encode(Layout::Bytes112).to_vec();
        bytes[88] = 200;
        bytes[104] = 7;
        let reply = Reply::decode(&bytes, Layout::Bytes112).expect("the frame is well formed");
        assert_eq!(reply.info.arch, Arch::Invalid);
        assert!(reply.info.is_available);
        assert_eq!(reply.info.num_devices, REPLY.info.num_devices);
    }
}
