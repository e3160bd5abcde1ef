//! Guest memory while it is being filled: who has which bytes, and where there is room.

use super::Reason;
use super::layout;
use egret_bus::{GuestRam, Phys};

/// First address handed out: below it are the real-mode interrupt table and the BIOS data area.
const LOW_START: u64 = 0x1000;

/// Guest RAM and the ranges already taken.
pub(super) struct Space<'a> {
    pub(super) ram: &'a GuestRam,
    /// (first, one past last) of every range taken.
    taken: Vec<(u64, u64)>,
}

impl<'a> Space<'a> {
    /// All of `ram` but what the firmware keeps.
    pub(super) fn new(ram: &'a GuestRam) -> Space<'a> {
        let taken = vec![(0, LOW_START), (layout::EBDA, layout::VGA_HOLE), (layout::ACPI_TABLES, layout::EXTENDED_MEMORY)];
        Space { ram, taken }
    }

    /// Bytes of guest memory.
    pub(super) fn memory(&self) -> u64 {
        self.ram.size()
    }

    /// The first taken range that meets `start..end`.
    fn clash(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        self.taken.iter().copied().find(|&(s, e)| s < end && start < e)
    }

    /// Takes `len` bytes at `at`, which must be RAM that nobody has.
    pub(super) fn claim(&mut self, at: u64, len: u64, what: &'static str) -> Result<(), Reason> {
        let fail = Reason::Placement { what, at, len, memory: self.memory() };
        let Some(end) = at.checked_add(len) else { return Err(fail) };
        if !self.is_ram(at, len) || self.clash(at, end).is_some() {
            return Err(fail);
        }
        self.taken.push((at, end));
        Ok(())
    }

    fn is_ram(&self, at: u64, len: u64) -> bool {
        self.ram.regions().any(|(Phys(base), size)| at >= base && at - base < size && len <= size - (at - base))
    }

    /// Takes `len` bytes at the lowest free multiple of `align` (a power of two) below 640 KiB; if there is none, high up.
    pub(super) fn place_low(&mut self, len: u64, align: u64, what: &'static str) -> Result<u64, Reason> {
        let mut at = LOW_START;
        while at.saturating_add(len) <= layout::EBDA {
            match self.clash(at, at + len) {
                Some((_, end)) => at = end.next_multiple_of(align),
                None if self.is_ram(at, len) => {
                    self.taken.push((at, at + len));
                    return Ok(at);
                }
                None => break,
            }
        }
        self.place_high(len, align, layout::LOW_MEMORY_END, what)
    }

    /// Takes `len` bytes at the highest free multiple of `align` (a power of two) that ends at or below `limit` and lies above 1 MiB.
    pub(super) fn place_high(&mut self, len: u64, align: u64, limit: u64, what: &'static str) -> Result<u64, Reason> {
        let regions: Vec<_> = self.ram.regions().collect();
        for (Phys(base), size) in regions.into_iter().rev() {
            let floor = base.max(layout::EXTENDED_MEMORY);
            let mut end = limit.min(base.saturating_add(size));
            while let Some(at) = end.checked_sub(len).map(|a| a & !(align - 1)).filter(|&a| a >= floor) {
                match self.clash(at, at + len) {
                    Some((start, _)) => end = start,
                    None => {
                        self.taken.push((at, at + len));
                        return Ok(at);
                    }
                }
            }
        }
        Err(Reason::NoRoom { what, len, memory: self.memory() })
    }

    /// `len` bytes at `at` are about to be written.
    pub(super) fn prepare(&self, at: u64, len: u64) {
        self.ram.will_fill(Phys(at), len);
    }

    /// Writes `bytes` at `at`.
    pub(super) fn write(&self, at: u64, bytes: &[u8], what: &'static str) -> Result<(), Reason> {
        let fail = Reason::Placement { what, at, len: bytes.len() as u64, memory: self.memory() };
        self.ram.write(Phys(at), bytes).then_some(()).ok_or(fail)
    }

    /// Makes `len` bytes at `at` zero. Pages that are zero already are only read, so that fresh memory stays unused on the host.
    pub(super) fn clear(&self, at: u64, len: u64, what: &'static str) -> Result<(), Reason> {
        const ZERO: [u8; 4096] = [0; 4096];
        let mut seen = [0; 4096];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(4096) as usize;
            let here = Phys(at.wrapping_add(done));
            let ok = self.ram.read(here, &mut seen[..n]) && (seen[..n] == ZERO[..n] || self.ram.write(here, &ZERO[..n]));
            if !ok {
                return Err(Reason::Placement { what, at, len, memory: self.memory() });
            }
            done += n as u64;
        }
        Ok(())
    }
}

/// The words of the BIOS data area that kernels look at: serial ports, extended BIOS data area, conventional memory.
pub(super) fn write_bios_data(ram: &GuestRam) {
    let ebda_kib = (layout::VGA_HOLE - layout::EBDA) >> 10;
    let words: [(u64, u64); 4] =
        [(0x400, layout::port::COM1.into()), (0x40e, layout::EBDA >> 4), (0x413, layout::EBDA >> 10), (layout::EBDA, ebda_kib)];
    for (at, value) in words {
        // Low memory is RAM: `load` checked the machine's size.
        let written = ram.store(Phys(at), 2, value);
        debug_assert!(written);
    }
}
