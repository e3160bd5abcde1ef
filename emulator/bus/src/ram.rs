//! Guest RAM: anonymous host mappings, one per region of guest physical memory.
//!
//! Every host address in Egret comes out of [`GuestRam::host`], the one checked path.

use crate::Phys;
use crate::ahead::Ahead;
use memmap2::{MmapMut, MmapOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Why guest RAM could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// A region is empty, not page-aligned, or the regions overlap or are out of order.
    #[error("RAM region at {base:#x} of {len:#x} bytes is empty, misaligned or overlaps the one before")]
    Layout {
        /// First physical address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The host gave no memory.
    #[error("the host gave no {len} bytes for guest RAM: {source}")]
    Host {
        /// Length in bytes.
        len: u64,
        /// The host's reason.
        source: std::io::Error,
    },
}

struct Region {
    base: u64,
    len: u64,
    host: *mut u8,
    _map: MmapMut,
}

// SAFETY: the mapping lives as long as the region, the pointer is never freed on its own, and all access goes
// through `GuestRam`, which treats the memory as shared with the guest: plain bytes without invariants.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

/// Asks the host for large pages: a guest's memory accesses miss the host's TLB as well as its own.
fn use_large_pages(_map: &MmapMut) {
    // Without them it only runs slower.
    #[cfg(target_os = "linux")]
    let _ = _map.advise(memmap2::Advice::HugePage);
}

/// Guest RAM. Clones share the same memory.
#[derive(Clone)]
pub struct GuestRam {
    regions: Arc<Vec<Region>>,
    ahead: Option<Arc<Ahead>>,
}

impl GuestRam {
    /// Reserves zeroed memory for `regions`, each (first physical address, length in bytes), in ascending order and
    /// page-aligned. Host memory is used only once the guest touches it.
    pub fn new(regions: &[(Phys, u64)]) -> Result<GuestRam, RamError> {
        let mut made: Vec<Region> = Vec::with_capacity(regions.len());
        for &(Phys(base), len) in regions {
            let low = made.last().map_or(0, |r| r.base + r.len);
            if len == 0 || (base | len) & 0xfff != 0 || base < low || base.checked_add(len).is_none() {
                return Err(RamError::Layout { base, len });
            }
            let host_len = usize::try_from(len).map_err(|_| RamError::Layout { base, len })?;
            let mut map = MmapOptions::new().len(host_len).map_anon().map_err(|source| RamError::Host { len, source })?;
            use_large_pages(&map);
            made.push(Region { base, len, host: map.as_mut_ptr(), _map: map });
        }
        Ok(GuestRam { regions: Arc::new(made), ahead: None })
    }

    /// The same RAM, which a thread makes ready ahead of the guest from now on, where the host has a CPU for it. It ends when the last
    /// clone of what comes back is gone.
    #[must_use]
    pub fn prepare_ahead(self) -> GuestRam {
        let spare = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        // Without the thread it only takes longer.
        let ahead = if spare { Ahead::start(&self).ok().map(Arc::new) } else { None };
        GuestRam { ahead, ..self }
    }

    /// The guest is about to write to a page.
    pub fn will_write(&self, addr: Phys) {
        if let Some(ahead) = &self.ahead
            && let Some((n, offset, host)) = self.find(addr, 1)
        {
            ahead.note(n, offset, host as u64);
        }
    }

    /// `len` bytes from `addr` on are about to be written, in this order.
    pub fn will_fill(&self, addr: Phys, len: u64) {
        if let Some(ahead) = &self.ahead
            && let Some((n, offset, host)) = self.find(addr, len)
        {
            ahead.fill(n, offset, len, host as u64);
        }
    }

    /// The regions as (first physical address, length in bytes).
    pub fn regions(&self) -> impl Iterator<Item = (Phys, u64)> + '_ {
        self.regions.iter().map(|r| (Phys(r.base), r.len))
    }

    /// Total bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.regions.iter().map(|r| r.len).sum()
    }

    /// The host address of `len` bytes at `addr`, when all of them are RAM of one region.
    #[must_use]
    pub fn host(&self, addr: Phys, len: u64) -> Option<*mut u8> {
        self.find(addr, len).map(|(_, _, host)| host)
    }

    /// The region that has all of `len` bytes at `addr`: its number, the offset in it, and the host address.
    fn find(&self, addr: Phys, len: u64) -> Option<(usize, u64, *mut u8)> {
        self.regions.iter().enumerate().find_map(|(n, r)| {
            let at = addr.0.wrapping_sub(r.base);
            // SAFETY: `at + len <= r.len`, so the result stays inside the region's mapping.
            (at < r.len && len <= r.len - at).then(|| (n, at, unsafe { r.host.add(at as usize) }))
        })
    }

    /// Reads `out.len()` bytes; false (and `out` untouched) when they are not all RAM.
    #[must_use]
    pub fn read(&self, addr: Phys, out: &mut [u8]) -> bool {
        let Some(host) = self.host(addr, out.len() as u64) else { return false };
        // SAFETY: `host` is valid for `out.len()` bytes and cannot overlap a Rust-owned slice.
        unsafe { std::ptr::copy_nonoverlapping(host, out.as_mut_ptr(), out.len()) };
        true
    }

    /// Writes `data`; false (and nothing written) when the range is not all RAM.
    #[must_use]
    pub fn write(&self, addr: Phys, data: &[u8]) -> bool {
        let Some(host) = self.host(addr, data.len() as u64) else { return false };
        // SAFETY: as for `read`.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), host, data.len()) };
        true
    }

    /// Reads a little-endian value of `size` (1, 2, 4 or 8) bytes; naturally aligned ones are single-copy atomic.
    #[must_use]
    pub fn load(&self, addr: Phys, size: u8) -> Option<u64> {
        let host = self.host(addr, size.into())?;
        // SAFETY: `host` is valid for `size` bytes.
        Some(unsafe { load(host, size) })
    }

    /// Writes the low `size` (1, 2, 4 or 8) bytes of `value`; naturally aligned ones are single-copy atomic.
    #[must_use]
    pub fn store(&self, addr: Phys, size: u8, value: u64) -> bool {
        let Some(host) = self.host(addr, size.into()) else { return false };
        // SAFETY: `host` is valid for `size` bytes.
        unsafe { store(host, size, value) };
        true
    }

    /// Atomically replaces an aligned value of up to 8 bytes; the value found when it was not `old`.
    pub fn compare_exchange(&self, addr: Phys, size: u8, old: u64, new: u64) -> Option<Result<u64, u64>> {
        let host = self.host(addr, size.into())?;
        if !addr.0.is_multiple_of(size.into()) {
            return None;
        }
        // SAFETY: `host` is valid for `size` bytes and aligned: regions are page-aligned on both sides.
        unsafe { compare_exchange(host, size, old, new) }
    }
}

/// The order of guest loads and stores. An x86 host keeps the guest's order by itself; elsewhere every load acquires and every
/// store releases, which is as strong (and untested: no such host was at hand).
#[cfg(target_arch = "x86_64")]
const ORDER: (Ordering, Ordering) = (Ordering::Relaxed, Ordering::Relaxed);
#[cfg(not(target_arch = "x86_64"))]
const ORDER: (Ordering, Ordering) = (Ordering::Acquire, Ordering::Release);

/// A compare-exchange of one little-endian type.
macro_rules! exchange {
    ($atomic:ident, $t:ty, $host:expr, $old:expr, $new:expr) => {
        $atomic::from_ptr($host.cast())
            .compare_exchange(($old as $t).to_le(), ($new as $t).to_le(), Ordering::SeqCst, Ordering::SeqCst)
            .map(|v| <$t>::from_le(v).into())
            .map_err(|v| <$t>::from_le(v).into())
    };
}

/// Reads a little-endian value of `size` bytes (1, 2, 4, 8) from guest memory.
///
/// # Safety
/// `host` came from [`GuestRam::host`] for at least `size` bytes and its `GuestRam` is alive.
#[inline]
pub unsafe fn load(host: *mut u8, size: u8) -> u64 {
    // SAFETY: the caller vouches for the range; alignment is checked before an atomic is formed, and the unaligned
    // path reads plain bytes that have no invariant to break.
    unsafe {
        match (size, host as usize & (size as usize - 1)) {
            (1, _) => AtomicU8::from_ptr(host).load(ORDER.0).into(),
            (2, 0) => u16::from_le(AtomicU16::from_ptr(host.cast()).load(ORDER.0)).into(),
            (4, 0) => u32::from_le(AtomicU32::from_ptr(host.cast()).load(ORDER.0)).into(),
            (8, 0) => u64::from_le(AtomicU64::from_ptr(host.cast()).load(ORDER.0)),
            (2, _) => u16::from_le(host.cast::<u16>().read_unaligned()).into(),
            (4, _) => u32::from_le(host.cast::<u32>().read_unaligned()).into(),
            _ => u64::from_le(host.cast::<u64>().read_unaligned()),
        }
    }
}

/// Writes the low `size` bytes (1, 2, 4, 8) of `value` to guest memory.
///
/// # Safety
/// As for [`load`].
#[inline]
pub unsafe fn store(host: *mut u8, size: u8, value: u64) {
    // SAFETY: as for `load`.
    unsafe {
        match (size, host as usize & (size as usize - 1)) {
            (1, _) => AtomicU8::from_ptr(host).store(value as u8, ORDER.1),
            (2, 0) => AtomicU16::from_ptr(host.cast()).store((value as u16).to_le(), ORDER.1),
            (4, 0) => AtomicU32::from_ptr(host.cast()).store((value as u32).to_le(), ORDER.1),
            (8, 0) => AtomicU64::from_ptr(host.cast()).store(value.to_le(), ORDER.1),
            (2, _) => host.cast::<u16>().write_unaligned((value as u16).to_le()),
            (4, _) => host.cast::<u32>().write_unaligned((value as u32).to_le()),
            _ => host.cast::<u64>().write_unaligned(value.to_le()),
        }
    }
}

/// Atomically replaces `size` bytes (1, 2, 4, 8) if they are `old`; what was found when they were not. `None` when no host
/// operation reaches all of them: they lie in two aligned words.
///
/// # Safety
/// As for [`load`], and `host` is as aligned as the guest physical address is up to 8 bytes: regions are page-aligned on both sides.
pub unsafe fn compare_exchange(host: *mut u8, size: u8, old: u64, new: u64) -> Option<Result<u64, u64>> {
    // SAFETY: the caller vouches for the range; each atomic is formed at an aligned address inside the page.
    unsafe {
        let inside = host as usize & 7;
        Some(match (size, host as usize & (size as usize).wrapping_sub(1)) {
            (1, _) => exchange!(AtomicU8, u8, host, old, new),
            (2, 0) => exchange!(AtomicU16, u16, host, old, new),
            (4, 0) => exchange!(AtomicU32, u32, host, old, new),
            (8, 0) => exchange!(AtomicU64, u64, host, old, new),
            (2 | 4, _) if inside + usize::from(size) <= 8 => {
                let word = host.sub(inside);
                let (shift, mask) = (8 * inside as u32, ((1u64 << (8 * u32::from(size))) - 1) << (8 * inside as u32));
                let mut now = u64::from_le(AtomicU64::from_ptr(word.cast()).load(Ordering::SeqCst));
                loop {
                    if (now & mask) >> shift != old & mask >> shift {
                        break Err((now & mask) >> shift);
                    }
                    let swapped: Result<u64, u64> = exchange!(AtomicU64, u64, word, now, now & !mask | new << shift & mask);
                    match swapped {
                        Ok(_) => break Ok(old),
                        Err(other) => now = other,
                    }
                }
            }
            _ => return None,
        })
    }
}

/// The same for 16 bytes at an aligned address; `None` on hosts without such an operation.
///
/// # Safety
/// As for [`load`], for 16 bytes; `host` is aligned to 16.
pub unsafe fn compare_exchange_16(host: *mut u8, old: u128, new: u128) -> Option<Result<u128, u128>> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("cmpxchg16b") {
        let (low, high): (u64, u64);
        // SAFETY: the caller vouches for range and alignment, and the host has the instruction. RBX, which the compiler keeps for
        // itself, is put back. (`core::arch`'s intrinsic ends in a call of a library that is not there.)
        unsafe {
            std::arch::asm!(
                "xchg {new}, rbx",
                "lock cmpxchg16b [{at}]",
                "mov rbx, {new}",
                at = in(reg) host,
                new = inout(reg) new as u64 => _,
                inout("rax") old as u64 => low,
                inout("rdx") (old >> 64) as u64 => high,
                in("rcx") (new >> 64) as u64,
                options(nostack),
            );
        }
        let found = u128::from(high) << 64 | u128::from(low);
        return Some(if found == old { Ok(found) } else { Err(found) });
    }
    let _ = (host, old, new);
    None
}

#[cfg(test)]
impl GuestRam {
    /// Tells how many hold the memory.
    pub(crate) fn holders(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.regions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_edges_are_not_ram() {
        let ram = GuestRam::new(&[(Phys(0), 0x2000), (Phys(0x10000), 0x1000)]).unwrap();
        assert!(ram.store(Phys(0x1ff8), 8, 0x1122_3344_5566_7788));
        assert_eq!(ram.load(Phys(0x1ffd), 2), Some(0x2233));
        assert_eq!(ram.load(Phys(0x1ffd), 4), None, "runs over the end");
        assert_eq!(ram.load(Phys(0x2000), 1), None);
        assert_eq!(ram.load(Phys(0x10fff), 1), Some(0));
        assert_eq!(ram.load(Phys(u64::MAX), 8), None);
        assert_eq!(ram.size(), 0x3000);
    }

    #[test]
    fn bad_layouts_are_refused() {
        assert!(matches!(GuestRam::new(&[(Phys(0x10), 0x1000)]), Err(RamError::Layout { .. })));
        assert!(matches!(GuestRam::new(&[(Phys(0), 0x2000), (Phys(0x1000), 0x1000)]), Err(RamError::Layout { .. })));
        assert!(matches!(GuestRam::new(&[(Phys(0), 0)]), Err(RamError::Layout { .. })));
    }

    #[test]
    fn compare_exchange_swaps_only_on_match() {
        let ram = GuestRam::new(&[(Phys(0), 0x1000)]).unwrap();
        assert_eq!(ram.compare_exchange(Phys(8), 4, 0, 7), Some(Ok(0)));
        assert_eq!(ram.compare_exchange(Phys(8), 4, 0, 9), Some(Err(7)));
        assert_eq!(ram.compare_exchange(Phys(9), 4, 0, 9), None);
    }
}
