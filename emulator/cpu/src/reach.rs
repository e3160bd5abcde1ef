//! The second level of the TLB: what a walk of the page tables found, for when the arrays that hits are looked up in have
//! lost it. Supervisor pages that are global are found in every address space.

use crate::mmu::Access;

/// Entries, a power of two.
const ENTRIES: usize = 8192;
/// Bits of [`crate::State::tlb_key`] that say whose access it is; the rest numbers the address space.
const WHO: u64 = 3;

/// A page as one address space sees it.
#[derive(Clone, Copy)]
struct Entry {
    /// Linear page address with the TLB key in the low bits; the address space is 0 for global pages.
    tag: u64,
    /// Physical page address, with the accesses that a walk has allowed in the low bits.
    frame: u64,
}

const EMPTY: Entry = Entry { tag: 0, frame: 0 };

/// See the module's description.
pub(crate) struct Reach {
    entries: Box<[Entry]>,
    /// Nothing was added since it was last cleared.
    clear: bool,
    /// Translations that were here when a TLB missed them, and those that took a page walk.
    pub(crate) found: u64,
    pub(crate) walked: u64,
}

impl Default for Reach {
    fn default() -> Self {
        Reach { entries: vec![EMPTY; ENTRIES].into(), clear: true, found: 0, walked: 0 }
    }
}

fn bit(access: Access) -> u64 {
    match access {
        Access::Read => 1,
        Access::Write => 2,
        Access::Fetch => 4,
    }
}

fn slot(tag: u64) -> usize {
    // The address space moves its pages away from those of others at the same addresses.
    let page = tag >> 12;
    (page ^ (page >> 13) ^ ((tag & 0xffc) * 37)) as usize & (ENTRIES - 1)
}

impl Reach {
    fn probe(&self, tag: u64, access: Access) -> Option<u64> {
        let entry = self.entries[slot(tag)];
        (entry.tag == tag && entry.frame & bit(access) != 0).then_some(entry.frame & !0xfff)
    }

    /// The physical page of a linear address, if a walk for the same access and rights has found it.
    pub fn find(&self, linear: u64, key: u64, access: Access) -> Option<u64> {
        let page = linear & !0xfff;
        self.probe(page | key, access).or_else(|| self.probe(page | key & WHO, access))
    }

    /// Whether the page of a linear address is known to be global.
    pub fn is_global(&self, linear: u64, key: u64, access: Access) -> bool {
        self.probe(linear & !0xfff | key & WHO, access).is_some()
    }

    /// Remembers what a walk found.
    pub fn add(&mut self, linear: u64, key: u64, access: Access, frame: u64, global: bool) {
        let tag = linear & !0xfff | if global { key & WHO } else { key };
        let frame = frame & !0xfff;
        let entry = &mut self.entries[slot(tag)];
        let kept = if entry.tag == tag && entry.frame & !0xfff == frame { entry.frame & 7 } else { 0 };
        *entry = Entry { tag, frame: frame | kept | bit(access) };
        self.clear = false;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if !self.clear {
            self.entries.fill(EMPTY);
            self.clear = true;
        }
    }

    /// Forgets a page in the address spaces with the given numbers, and where it is global.
    pub fn clear_page(&mut self, linear: u64, spaces: impl Iterator<Item = u64>) {
        for space in spaces.chain([0]) {
            for who in 0..=WHO {
                let tag = linear & !0xfff | space << 2 | who;
                let entry = &mut self.entries[slot(tag)];
                if entry.tag == tag {
                    *entry = EMPTY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_access_rights_and_space_of_the_walk_are_found() {
        let mut r = Reach::default();
        r.add(0x1234_5678, 5 << 2, Access::Read, 0xabc_d000, false);
        assert_eq!(r.find(0x1234_5000, 5 << 2, Access::Read), Some(0xabc_d000));
        for (key, access) in [(5 << 2, Access::Write), (5 << 2 | 1, Access::Read), (6 << 2, Access::Read)] {
            assert_eq!(r.find(0x1234_5000, key, access), None, "{key:x} {access:?}");
        }
        r.add(0x1234_5678, 5 << 2, Access::Write, 0xabc_d000, false);
        assert_eq!(r.find(0x1234_5000, 5 << 2, Access::Read), Some(0xabc_d000));
        r.add(0x1234_5678, 5 << 2, Access::Write, 0xabc_e000, false);
        assert_eq!(r.find(0x1234_5000, 5 << 2, Access::Read), None, "another frame has rights of its own");
    }

    #[test]
    fn global_pages_are_found_everywhere_until_cleared() {
        let high = 0xffff_ffff_8100_0000;
        let mut r = Reach::default();
        r.add(high, 5 << 2, Access::Fetch, 0x100_0000, true);
        assert!(r.is_global(high | 0xfff, 9 << 2, Access::Fetch));
        assert_eq!(r.find(high, 9 << 2, Access::Fetch), Some(0x100_0000));
        assert_eq!(r.find(high, 9 << 2 | 1, Access::Fetch), None, "users need a walk of their own");
        r.clear_page(high, [9].into_iter());
        assert_eq!(r.find(high, 5 << 2, Access::Fetch), None);
    }

    #[test]
    fn the_first_page_is_not_in_an_empty_one() {
        let r = Reach::default();
        assert_eq!(r.find(0, 0, Access::Read), None);
    }

    #[test]
    fn a_page_is_forgotten_in_all_spaces_named() {
        let mut r = Reach::default();
        for space in 1..20 {
            r.add(0x7000, space << 2 | 1, Access::Read, 0x3000, false);
        }
        r.clear_page(0x7fff, 1..20);
        assert!((1..20).all(|space| r.find(0x7000, space << 2 | 1, Access::Read).is_none()));
    }
}
