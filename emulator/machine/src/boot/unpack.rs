//! The compression formats of Linux kernels and initrds, as bounded streams.

use super::{Fields, Progress, Reason};
use liblzma::stream::Stream;
use std::io::{self, Read};

/// Memory that a decoder may use for its window. Kernels are packed with windows of up to 128 MiB.
const WINDOW_MAX: u64 = 128 << 20;
/// Bytes between two calls of the progress function.
const STEP: u64 = 1 << 20;

/// A compression format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lz4,
    Zstd,
    /// LZO, which Linux knows and we do not.
    Lzo,
}

const MAGICS: &[(&[u8], Format)] = &[
    (&[0x1f, 0x8b], Format::Gzip),
    (b"BZh", Format::Bzip2),
    (&[0x5d, 0, 0], Format::Lzma),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Format::Xz),
    (&LZ4_LEGACY.to_le_bytes(), Format::Lz4),
    (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
    (&[0x89, b'L', b'Z', b'O'], Format::Lzo),
];

impl Format {
    /// The format whose magic number `data` starts with.
    pub(super) fn detect(data: &[u8]) -> Option<Format> {
        MAGICS.iter().find(|(magic, _)| data.starts_with(magic)).map(|&(_, f)| f)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Bzip2 => "bzip2",
            Format::Lzma => "lzma",
            Format::Xz => "xz",
            Format::Lz4 => "lz4",
            Format::Zstd => "zstd",
            Format::Lzo => "lzo",
        }
    }

    /// A stream of the unpacked bytes of `data`.
    pub(super) fn reader(self, data: &[u8]) -> io::Result<Box<dyn Read + '_>> {
        // Liblzma's count includes small change beside the window.
        let lzma_memory = WINDOW_MAX + (16 << 20);
        Ok(match self {
            Format::Gzip => Box::new(flate2::bufread::GzDecoder::new(data)),
            Format::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(data)),
            Format::Lzma => Box::new(liblzma::bufread::XzDecoder::new_stream(data, Stream::new_lzma_decoder(lzma_memory)?)),
            Format::Xz => Box::new(liblzma::bufread::XzDecoder::new_stream(data, Stream::new_stream_decoder(lzma_memory, 0)?)),
            Format::Lz4 => Box::new(Lz4Legacy::new(data)),
            Format::Zstd => {
                check_zstd_window(data)?;
                Box::new(ruzstd::decoding::StreamingDecoder::new(data).map_err(|e| invalid(e.to_string()))?)
            }
            Format::Lzo => return Err(io::Error::new(io::ErrorKind::Unsupported, "no decoder for this format")),
        })
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Refuses frames whose window is over [`WINDOW_MAX`]: the decoder keeps a whole window before it hands out a byte.
/// RFC 8878, 3.1.1.1, "Frame_Header".
fn check_zstd_window(data: &[u8]) -> io::Result<()> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let descriptor = data.u8_at(4).ok_or_else(cut)?;
    let single_segment = descriptor & 0x20 != 0;
    let window = if single_segment {
        let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
        match descriptor >> 6 {
            0 => data.u8_at(at).map(u64::from),
            1 => data.u16_at(at).map(|n| u64::from(n) + 256),
            2 => data.u32_at(at).map(u64::from),
            _ => data.u64_at(at),
        }
        .ok_or_else(cut)?
    } else {
        let w = data.u8_at(5).ok_or_else(cut)?;
        let base = 1u64 << (10 + (w >> 3));
        base + base / 8 * u64::from(w & 7)
    };
    if window <= WINDOW_MAX { Ok(()) } else { Err(invalid(format!("its window of {window} bytes is too large"))) }
}

/// First word of an LZ4 legacy stream.
const LZ4_LEGACY: u32 = 0x184c_2102;
/// Every block but the last unpacks to this.
const LZ4_BLOCK: usize = 8 << 20;

/// The legacy LZ4 format, which the kernel uses: the magic number, then blocks, each behind its packed length.
struct Lz4Legacy<'a> {
    rest: &'a [u8],
    block: Vec<u8>,
    /// The part of `block` not yet handed out.
    at: usize,
    end: usize,
}

impl<'a> Lz4Legacy<'a> {
    fn new(data: &'a [u8]) -> Lz4Legacy<'a> {
        Lz4Legacy { rest: data, block: Vec::new(), at: 0, end: 0 }
    }

    /// Unpacks the next block; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        while self.rest.u32_at(0) == Some(LZ4_LEGACY) {
            self.rest = &self.rest[4..];
        }
        if self.rest.is_empty() {
            return Ok(false);
        }
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let len = self.rest.u32_at(0).ok_or_else(cut)? as usize;
        let packed = self.rest[4..].get(..len).ok_or_else(cut)?;
        self.rest = &self.rest[4 + len..];
        self.block.resize(LZ4_BLOCK, 0);
        self.end = lz4_flex::block::decompress_into(packed, &mut self.block).map_err(|e| invalid(e.to_string()))?;
        self.at = 0;
        Ok(true)
    }
}

impl Read for Lz4Legacy<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.end {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let n = out.len().min(self.end - self.at);
        out[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// A stream that reports progress and refuses to give more than `total` bytes.
pub(super) struct Metered<'a> {
    pub(super) inner: Box<dyn Read + 'a>,
    /// Bytes given so far.
    pub(super) done: u64,
    /// The most there may be.
    pub(super) total: u64,
    /// All that was given, if somebody wants it.
    pub(super) copy: Option<Vec<u8>>,
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

impl Read for Metered<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        let before = self.done;
        self.done += n as u64;
        if self.done > self.total {
            return Err(invalid(format!("it unpacks to more than {} bytes", self.total)));
        }
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(&out[..n]);
        }
        if self.done / STEP != before / STEP {
            (self.progress)(Progress { done: self.done, total: self.total });
        }
        Ok(n)
    }
}

/// Reads `stream` to its end, for the sake of the checksum there. Returns the bytes seen.
pub(super) fn drain(stream: &mut dyn Read, what: &'static str, format: &'static str) -> Result<u64, Reason> {
    io::copy(stream, &mut io::sink()).map_err(|e| Reason::unpack(what, format, &e))
}
