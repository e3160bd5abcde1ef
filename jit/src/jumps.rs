//! The jump cache's table. It comes zeroed from the host, which gives only the pages that are used.

#![allow(unsafe_code)]

use crate::vm::{JUMPS, Jump};
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// [`JUMPS`] entries.
pub struct Jumps(MmapMut);

impl Jumps {
    /// An empty one; the error is the host's, which has no room.
    pub fn new() -> std::io::Result<Jumps> {
        MmapMut::map_anon(JUMPS * size_of::<Jump>()).map(Jumps)
    }
}

impl Deref for Jumps {
    type Target = [Jump];

    fn deref(&self) -> &[Jump] {
        // SAFETY: the mapping has room for so many, is aligned to a page, and any bits are a `Jump`.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), JUMPS) }
    }
}

impl DerefMut for Jumps {
    fn deref_mut(&mut self) -> &mut [Jump] {
        // SAFETY: as for `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), JUMPS) }
    }
}
