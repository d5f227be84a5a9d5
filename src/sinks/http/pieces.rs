//! An exposition in pieces, each made when the client has taken the one before: a large answer is on its way from its first lines on,
//! and takes the memory of a piece.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::Sources;
use super::daemon_metrics::Gathered;
use super::negotiation::Coding;
use crate::clock;
use crate::registry::Snapshot;
use crate::views::exposition::{ByteFormat, PIECE_BYTES, Selection, Walk};

/// The fastest level: the body shrinks several times already, and the scraper is usually near.
const ZSTD_LEVEL: i32 = 1;

/// What is left to be written of an exposition.
pub(super) struct Pieces<E: ByteFormat> {
    sources: Arc<Sources>,
    walk: Walk<E>,
    own: Gathered,
    /// `None` once the last piece has been made.
    to: Option<(E, Compressor)>,
    spent_ns: u64,
}

impl<E: ByteFormat> Pieces<E> {
    /// An exposition of a snapshot in a format. What was spent on it so far counts as its own.
    pub(super) fn new(
        sources: Arc<Sources>,
        own: Gathered,
        snapshot: Snapshot,
        selection: Selection,
        format: E,
        coding: Coding,
        spent_ns: u64,
    ) -> io::Result<Self> {
        let walk = Walk::new(snapshot, selection, own.samples(&format));
        Ok(Pieces { sources, walk, own, to: Some((format, Compressor::new(coding)?)), spent_ns })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.to.is_none()
    }

    fn make(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some((mut format, mut compressor)) = self.to.take() {
            if !self.walk.advance(&mut format, PIECE_BYTES) {
                self.own.write(&mut format);
                return compressor.finish(format.finish()).map(Some);
            }
            let piece = compressor.add(format.take())?;
            self.to = Some((format, compressor));
            // A compressor keeps back what does not fill its window.
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

impl<E: ByteFormat> Iterator for Pieces<E> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        if self.is_finished() {
            return None;
        }
        let started_ns = clock::monotonic_ns();
        let piece = self.make().transpose();
        self.spent_ns += clock::monotonic_ns() - started_ns;
        if self.is_finished() {
            self.sources.metrics.scraped(self.spent_ns as f64 / 1e9);
        }
        piece
    }
}

/// A compression under way, whose output is taken as it comes.
enum Compressor {
    Identity,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Compressor {
    fn new(coding: Coding) -> io::Result<Compressor> {
        Ok(match coding {
            Coding::Identity => Compressor::Identity,
            Coding::Gzip => Compressor::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Zstd => Compressor::Zstd(ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    fn add(&mut self, text: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Compressor::Identity => Ok(text),
            Compressor::Gzip(encoder) => {
                encoder.write_all(&text)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Compressor::Zstd(encoder) => {
                encoder.write_all(&text)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    fn finish(mut self, text: Vec<u8>) -> io::Result<Vec<u8>> {
        let before = self.add(text)?;
        let rest = match self {
            Compressor::Identity => return Ok(before),
            Compressor::Gzip(encoder) => encoder.finish()?,
            Compressor::Zstd(encoder) => encoder.finish()?,
        };
        Ok([before, rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_compressed_in_pieces_comes_back() {
        let text = b"ttmem_device_processes 1\n".repeat(1000);
        let compressed = |coding| {
            let mut compressor = Compressor::new(coding).expect("in memory");
            let pieces: Vec<_> =
                text.chunks(7000).map(|piece| compressor.add(piece.to_vec()).expect("in memory")).collect();
            [pieces.concat(), compressor.finish(b"# EOF\n".to_vec()).expect("in memory")].concat()
        };
        let expected = [&text[..], b"# EOF\n"].concat();
        let mut gzip = Vec::new();
        let stream = compressed(Coding::Gzip);
        flate2::read::GzDecoder::new(stream.as_slice()).read_to_end(&mut gzip).expect("gzip");
        let zstd = zstd::decode_all(compressed(Coding::Zstd).as_slice()).expect("zstd");
        assert!(gzip == expected && zstd == expected && compressed(Coding::Identity) == expected);
    }
}
