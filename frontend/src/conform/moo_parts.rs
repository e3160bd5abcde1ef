//! Cuts a MOO file that is still being unpacked into parts of a bounded size.

use super::Problem;
use super::moo::{COUNT_AT, miscounted};
use std::io::{self, Read};
use std::sync::Arc;

/// Longest chunk.
const CHUNK_LIMIT: u32 = 16 << 20;
/// Most bytes of chunks that speak of all tests.
const HEAD_LIMIT: usize = 1 << 20;
/// Bytes of tests handed out at once.
const PART: usize = 1 << 20;
const CHUNK_HEADER: u64 = 8;

/// Some tests of a file.
pub struct Part {
    /// The chunks of the file that say something of all tests.
    pub head: Arc<[u8]>,
    /// Whole `TEST` chunks.
    pub data: Vec<u8>,
    /// Where they start in the file.
    pub offset: u64,
}

/// Why a file cannot be cut to its end.
pub(super) enum Broken {
    /// It cannot be unpacked from this offset on.
    Unpack(u64, io::Error),
    /// It is no MOO file, or not a whole one.
    Format(Problem),
}

/// Id and length, and the body.
type Chunk = ([u8; CHUNK_HEADER as usize], Vec<u8>);

#[derive(Default)]
struct Cutter {
    head: Vec<u8>,
    data: Vec<u8>,
    /// Where the next chunk starts.
    offset: u64,
    /// Where `data` starts.
    start: u64,
    found: u32,
}

/// Hands out the file's tests in parts, also those before an error. False: `emit` wants no more.
pub(super) fn cut(reader: &mut dyn Read, emit: &mut dyn FnMut(Part) -> bool) -> Result<bool, Broken> {
    let mut cutter = Cutter::default();
    let result = cutter.chunks(reader, emit);
    if !matches!(result, Ok(false)) && !cutter.data.is_empty() && !emit(cutter.part()) {
        return Ok(false);
    }
    if !result? {
        return Ok(false);
    }
    match cutter.head.get(COUNT_AT..COUNT_AT + 4) {
        Some(&[a, b, c, d]) if u32::from_le_bytes([a, b, c, d]) != cutter.found => {
            Err(Broken::Format(miscounted(u32::from_le_bytes([a, b, c, d]), cutter.found)))
        }
        Some(_) => Ok(true),
        None => Err(cutter.problem("an empty file")),
    }
}

impl Cutter {
    fn problem(&self, what: impl Into<String>) -> Broken {
        Broken::Format(Problem { offset: self.offset, what: what.into() })
    }

    fn part(&mut self) -> Part {
        Part { head: self.head.as_slice().into(), data: std::mem::take(&mut self.data), offset: self.start }
    }

    /// Reads chunk after chunk. False: `emit` wants no more.
    fn chunks(&mut self, reader: &mut dyn Read, emit: &mut dyn FnMut(Part) -> bool) -> Result<bool, Broken> {
        while let Some((header, body)) = self.chunk(reader)? {
            let id = &header[..4];
            if self.head.is_empty() && id != b"MOO " {
                return Err(self.problem("not a MOO file"));
            }
            if id == b"TEST" {
                self.found = self.found.saturating_add(1);
                if self.data.is_empty() {
                    self.start = self.offset;
                }
                self.data.extend(header);
                self.data.extend(&body);
            } else if matches!(id, b"MOO " | b"META" | b"RMSK" | b"RM32") {
                if self.head.len().saturating_add(body.len()) > HEAD_LIMIT {
                    return Err(self.problem("too much that speaks of all tests"));
                }
                if !self.data.is_empty() && !emit(self.part()) {
                    return Ok(false);
                }
                self.head.extend(header);
                self.head.extend(&body);
            }
            self.offset = self.offset.saturating_add(CHUNK_HEADER + body.len() as u64);
            if self.data.len() >= PART && !emit(self.part()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next chunk.
    fn chunk(&mut self, reader: &mut dyn Read) -> Result<Option<Chunk>, Broken> {
        let mut read = |len: u64, at: u64| {
            let mut bytes = Vec::new();
            (&mut *reader).take(len).read_to_end(&mut bytes).map_err(|e| Broken::Unpack(at, e))?;
            Ok(bytes)
        };
        let header = read(CHUNK_HEADER, self.offset)?;
        if header.is_empty() {
            return Ok(None);
        }
        let Ok(header) = <[u8; 8]>::try_from(header.as_slice()) else {
            return Err(self.problem(format!("a chunk's id and length need {CHUNK_HEADER} bytes, {} are left", header.len())));
        };
        let id = &header[..4];
        if !id.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            return Err(self.problem(format!("{id:02x?} is no chunk id")));
        }
        let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let name = String::from_utf8_lossy(id).into_owned();
        if len > CHUNK_LIMIT {
            return Err(self.problem(format!("chunk {name} of {len} bytes is too long")));
        }
        let body = read(len.into(), self.offset.saturating_add(CHUNK_HEADER))?;
        if body.len() as u64 != u64::from(len) {
            return Err(self.problem(format!("chunk {name} needs {len} bytes, {} are left", body.len())));
        }
        Ok(Some((header, body)))
    }
}
