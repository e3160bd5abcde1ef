//! The translation lookaside buffer: direct-mapped arrays for reads, writes and fetches, tagged with a context so that
//! switching address space or privilege flushes nothing.

/// Entries per array.
pub const ENTRIES: usize = 4096;

/// One translation of a 4 KiB page.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entry {
    /// Linear page address, with the context ([`crate::State::tlb_key`]) in the low 12 bits; 0 when empty.
    pub tag: u64,
    /// What to add (wrapping) to a linear address: gives the host address in the read and write arrays, the physical
    /// address in the fetch array.
    pub addend: u64,
}

impl Entry {
    /// No translation: no context is 0.
    pub const EMPTY: Entry = Entry { tag: 0, addend: 0 };
}

/// The page that the stack was last written in: a translation from the write array, where it is found with less work.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct StackPage {
    /// Linear page address.
    pub page: u64,
    /// See [`Entry::addend`].
    pub addend: u64,
    /// Accesses that begin at less than this many bytes from `page` use it: [`Self::REACH`], or 0 when there is no page.
    pub limit: u64,
}

impl StackPage {
    /// The largest access, in bytes.
    pub const LARGEST: u8 = 16;
    /// Where such an access still ends in the page.
    pub const REACH: u64 = 4097 - Self::LARGEST as u64;
}

/// The three arrays. Pages of MMIO are in none; pages with translated code in them are not in `write`.
#[repr(C)]
pub struct Tlb {
    /// Data reads.
    pub read: [Entry; ENTRIES],
    /// Data writes: the page is writable and dirty.
    pub write: [Entry; ENTRIES],
    /// Instruction fetches.
    pub fetch: [Entry; ENTRIES],
}

/// The array index of a linear address.
#[inline]
#[must_use]
pub fn index(linear: u64) -> usize {
    (linear >> 12) as usize & (ENTRIES - 1)
}

impl Default for Tlb {
    fn default() -> Self {
        Tlb { read: [Entry::EMPTY; ENTRIES], write: [Entry::EMPTY; ENTRIES], fetch: [Entry::EMPTY; ENTRIES] }
    }
}

impl Tlb {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.read.fill(Entry::EMPTY);
        self.write.fill(Entry::EMPTY);
        self.fetch.fill(Entry::EMPTY);
    }

    /// Forgets the page of a linear address, in all contexts.
    pub fn clear_page(&mut self, linear: u64) {
        let at = index(linear);
        self.read[at] = Entry::EMPTY;
        self.write[at] = Entry::EMPTY;
        self.fetch[at] = Entry::EMPTY;
    }

    /// Forgets every write translation to the host page at `host` (page-aligned).
    pub fn clear_writes_to(&mut self, host: u64) {
        for entry in &mut self.write {
            if entry.tag != 0 && (entry.tag & !0xfff).wrapping_add(entry.addend) == host {
                *entry = Entry::EMPTY;
            }
        }
    }
}
