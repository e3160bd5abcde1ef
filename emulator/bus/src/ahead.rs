//! Guest RAM made ready before the guest uses it.
//!
//! A host gives memory when it is first touched, in large pieces, and clears it then; a host that is a virtual machine itself has to ask
//! its own first. Meanwhile the guest's CPU stands still: 0.2 to 6 ms for every 2 MB. Guests take their memory in order, so a thread
//! touches what comes next; never more than what is in use beside it.

use crate::{GuestRam, Phys};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// log2 of the bytes that hosts give at once.
const PIECE_SHIFT: u32 = 21;
const PIECE: u64 = 1 << PIECE_SHIFT;
/// Most pieces that are made ready ahead of the guest.
const MOST: usize = 8;
/// Bytes of the smallest page of a host.
const HOST_PAGE: usize = 4096;

/// The pieces of one region of RAM that the guest uses.
type Used = Box<[AtomicBool]>;

/// A piece: the region's number, and its own in the region.
type Piece = (usize, usize);

/// What the thread is told.
enum Told {
    /// The guest uses a piece that it did not use before.
    FirstUse(Piece),
    /// These pieces of a region are about to be filled, the first one first.
    Filled(usize, Range<usize>),
}

/// What the CPUs tell the thread.
pub(crate) struct Ahead {
    used: Arc<Vec<Used>>,
    tell: Sender<Told>,
}

impl Ahead {
    /// Starts the thread for this RAM; it ends when the [`Ahead`] is gone.
    pub(crate) fn start(ram: &GuestRam) -> std::io::Result<Ahead> {
        let pieces = |len: u64| (0..=len.div_ceil(PIECE)).map(|_| AtomicBool::new(false)).collect();
        let used: Arc<Vec<Used>> = Arc::new(ram.regions().map(|(_, len)| pieces(len)).collect());
        let (tell, told) = channel();
        let thread = Thread { ram: ram.clone(), ready: used.iter().map(|u| vec![false; u.len()]).collect(), used: used.clone(), told };
        std::thread::Builder::new().name("egret-ram".into()).spawn(move || thread.run())?;
        Ok(Ahead { used, tell })
    }

    /// The guest is about to use the page at an offset in a region; `host` is its address.
    pub(crate) fn note(&self, region: usize, offset: u64, host: u64) {
        let piece = number(offset, host);
        let Some(used) = self.used.get(region).and_then(|u| u.get(piece)) else { return };
        if !used.load(Ordering::Relaxed) && !used.swap(true, Ordering::Relaxed) {
            // Without the thread it only takes longer.
            let _ = self.tell.send(Told::FirstUse((region, piece)));
        }
    }

    /// `len` bytes at an offset in a region are about to be filled; `host` is the first one's address.
    pub(crate) fn fill(&self, region: usize, offset: u64, len: u64, host: u64) {
        let pieces = number(offset, host)..number(offset + len, host + len);
        let _ = self.tell.send(Told::Filled(region, pieces));
    }
}

/// The number of the piece of a region that an address is in, given its offset in the region: pieces are aligned on the host.
fn number(offset: u64, host: u64) -> usize {
    ((host >> PIECE_SHIFT) - (host.wrapping_sub(offset) >> PIECE_SHIFT)) as usize
}

struct Thread {
    ram: GuestRam,
    used: Arc<Vec<Used>>,
    /// Pieces that were made ready.
    ready: Vec<Vec<bool>>,
    told: Receiver<Told>,
}

impl Thread {
    fn run(mut self) {
        let mut next = self.told.recv().ok();
        while let Some(told) = next.take() {
            let (region, pieces) = match told {
                Told::FirstUse((region, piece)) => (region, coming(&self.used[region], piece)),
                Told::Filled(region, pieces) => (region, pieces.rev().collect()),
            };
            for n in pieces {
                let used = || self.used[region][n].load(Ordering::Relaxed);
                if !self.ready[region][n] && !used() {
                    self.ready[region][n] = true;
                    self.touch(region, n);
                }
                // What was used last says more.
                next = self.told.try_iter().last();
                if next.is_some() {
                    break;
                }
            }
            next = next.or_else(|| self.told.recv().ok());
        }
    }

    /// Makes the host give a piece. The guest sees nothing of it: zeros are exchanged for zeros.
    fn touch(&self, region: usize, piece: usize) {
        let Some((Phys(base), len)) = self.ram.regions().nth(region) else { return };
        let Some(host) = self.ram.host(Phys(base), 1) else { return };
        let before = host as u64 & (PIECE - 1);
        let start = (piece as u64 * PIECE).saturating_sub(before);
        let end = ((piece as u64 + 1) * PIECE - before).min(len);
        for at in (start..end).step_by(HOST_PAGE) {
            let _ = self.ram.compare_exchange(Phys(base + at), 8, 0, 0);
        }
    }
}

/// The pieces that are likely used soon after this one, the farthest first: the guest, which comes from the other side, may be fast.
fn coming(used: &[AtomicBool], piece: usize) -> Vec<usize> {
    let in_use = |n: &usize| used.get(*n).is_some_and(|u| u.load(Ordering::Relaxed));
    let below = (0..piece).rev().take(MOST).take_while(in_use).count();
    let above = (piece + 1..used.len()).take(MOST).take_while(in_use).count();
    if below >= above {
        (piece + 1..used.len().min(piece + 1 + below)).rev().collect()
    } else {
        (piece.saturating_sub(above)..piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_follows_what_was() {
        let rows: [(&[usize], usize, &[usize]); 6] = [
            (&[5], 5, &[]),
            (&[4, 5], 5, &[6]),
            (&[2, 3, 4, 5], 5, &[8, 7, 6]),
            (&[5, 6, 7], 5, &[3, 4]),
            (&[0, 1, 2], 0, &[]),
            (&[28, 29, 30], 30, &[31]),
        ];
        for (used, piece, wanted) in rows {
            let map: Vec<AtomicBool> = (0..32).map(|n| AtomicBool::new(used.contains(&n))).collect();
            assert_eq!(coming(&map, piece), wanted, "{used:?} {piece}");
        }
        let all: Vec<AtomicBool> = (0..64).map(|n| AtomicBool::new(n < 40)).collect();
        assert_eq!(coming(&all, 39).len(), MOST);
    }

    #[test]
    fn pieces_are_the_hosts() {
        let base = 0x7f00_0010_0000;
        let rows = [(0, 0), (0xf_ffff, 0), (0x10_0000, 1), (0x2f_f000, 1), (0x30_0000, 2)];
        for (offset, piece) in rows {
            assert_eq!(number(offset, base + offset), piece, "{offset:x}");
        }
    }

    #[test]
    fn touching_changes_nothing_and_stays_inside() {
        let len = 5 * PIECE + 0x3000;
        let ram = GuestRam::new(&[(Phys(0), 0x8000), (Phys(0x10_0000), len)]).unwrap();
        let mark = Phys(0x10_0000 + len - 8);
        assert!(ram.store(mark, 8, 7));
        let (_, told) = channel();
        let thread = Thread { ram: ram.clone(), used: Arc::default(), ready: Vec::new(), told };
        for region in 0..3 {
            for piece in 0..8 {
                thread.touch(region, piece);
            }
        }
        assert_eq!(ram.load(mark, 8), Some(7));
        assert_eq!(ram.load(Phys(0x10_0000), 8), Some(0));
    }

    #[test]
    fn the_thread_ends_with_the_ram() {
        let ram = GuestRam::new(&[(Phys(0), 8 * PIECE)]).unwrap().prepare_ahead();
        for piece in 0..8 {
            ram.will_write(Phys(piece * PIECE));
            assert!(ram.store(Phys(piece * PIECE), 8, piece + 1));
        }
        ram.will_write(Phys(1 << 40));
        ram.will_fill(Phys(0), 8 * PIECE);
        ram.will_fill(Phys(PIECE), 8 * PIECE);
        ram.will_fill(Phys(PIECE), u64::MAX);
        let values: Vec<_> = (0..8).map(|piece| ram.load(Phys(piece * PIECE), 8)).collect();
        assert_eq!(values, (1..9).map(Some).collect::<Vec<_>>());
        let held = ram.holders();
        drop(ram);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while held.strong_count() > 0 {
            assert!(std::time::Instant::now() < deadline, "the thread still holds the RAM");
            std::thread::yield_now();
        }
    }
}
