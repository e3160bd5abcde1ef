//! Executable memory: a ring of segments, filled one after the other. No page is ever writable and executable at once.

#![allow(unsafe_code)]

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
#[path = "macos.rs"]
mod os;
#[cfg(target_os = "linux")]
#[path = "large.rs"]
mod os;
#[cfg(not(any(target_os = "linux", all(target_os = "macos", target_arch = "aarch64"))))]
#[path = "twice.rs"]
mod os;

use std::io;

/// Why there is no room for code.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The host gives no executable memory.
    #[error("the host gives no executable memory: {0}")]
    Host(#[from] io::Error),
    /// One function is larger than a segment.
    #[error("a function of {0} bytes does not fit into code memory")]
    TooLarge(usize),
}

/// Code memory.
pub struct CodeMemory {
    map: os::Mapping,
    segment: usize,
    segments: usize,
    at: usize,
    used: usize,
    kept: Vec<CodeMemory>,
}

/// Where code was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Address to call.
    pub address: u64,
    /// The segment it lies in.
    pub segment: usize,
    /// A segment that was emptied to make room: whatever lay in it is gone.
    pub evicted: Option<usize>,
}

const ALIGN: usize = 32;

impl CodeMemory {
    /// Reserves `segments` × `segment` bytes; host memory is used only as it fills.
    pub fn new(segment: usize, segments: usize) -> Result<CodeMemory, CodeError> {
        let map = os::Mapping::new(segment * segments)?;
        Ok(CodeMemory { map, segment, segments, at: 0, used: 0, kept: Vec::new() })
    }

    /// Copies position-independent code in.
    pub fn place(&mut self, code: &[u8]) -> Result<Placed, CodeError> {
        if code.len() > self.segment {
            return Err(CodeError::TooLarge(code.len()));
        }
        let mut evicted = None;
        if self.used + code.len() > self.segment {
            self.at = (self.at + 1) % self.segments;
            self.used = 0;
            evicted = Some(self.at);
        }
        let offset = self.at * self.segment + self.used;
        self.map.write(offset, code)?;
        self.used = (self.used + code.len()).next_multiple_of(ALIGN);
        Ok(Placed { address: self.map.address(offset), segment: self.at, evicted })
    }

    /// Keeps other code memory alive as long as this.
    pub fn keep(&mut self, other: CodeMemory) {
        self.kept.push(other);
    }

    /// Bytes that the segment being filled holds.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }
}

/// Makes the instruction cache see what was written.
fn flush(_address: *const u8, _len: usize) {
    #[cfg(target_arch = "aarch64")]
    {
        use wasmtime_internal_jit_icache_coherence as icache;
        // SAFETY: the range was just written and is mapped. A failure means that the host cannot flush, which it can.
        unsafe {
            let _ = icache::clear_cache(_address.cast(), _len);
        }
        let _ = icache::pipeline_flush_mt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_segment_evicts_the_next() {
        let mut memory = CodeMemory::new(4096, 2).unwrap();
        let code = [0xc3u8; 3000];
        let a = memory.place(&code).unwrap();
        let b = memory.place(&code).unwrap();
        let c = memory.place(&code).unwrap();
        assert_eq!((a.segment, a.evicted), (0, None));
        assert_eq!((b.segment, b.evicted), (1, Some(1)));
        assert_eq!((c.segment, c.evicted), (0, Some(0)));
        assert_eq!(a.address, c.address);
        assert!(matches!(memory.place(&[0; 5000]), Err(CodeError::TooLarge(5000))));
    }
}
