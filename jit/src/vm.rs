//! What compiled code knows besides [`egret_cpu::State`]: helpers, link tables, and what it comes back with.

use crate::jumps::Jumps;
use crate::leaf::{COUNT, Fpu, LEAVES};
use egret_cpu::functions::Function;
use egret_cpu::{Cpu, Fault};
use egret_isa::insn::Insn;
use rustc_hash::FxHashMap;

/// Why compiled code came back. The guest state in [`egret_cpu::State`] is complete in every case.
pub mod exit {
    /// The instruction pointer is at the next instruction: find code for it. Also when the budget is used up, or when
    /// an instruction asked for attention.
    pub const NEXT: u64 = 1;
    /// As [`NEXT`], for a jump whose target may be entered into the jump cache.
    pub const LINK: u64 = 2;
    /// The instruction at the instruction pointer must be interpreted; it has had no effect and is not counted.
    pub const INTERPRET: u64 = 3;
    /// The instruction at the instruction pointer raised [`super::Vm::fault`]; it is not counted yet.
    pub const FAULT: u64 = 4;
    /// The same for an instruction that is counted.
    pub const FAULT_COUNTED: u64 = 5;
    /// Only from the helper [`crate::helpers::call`] to the code that called it: control has gone elsewhere, and nothing keeps it
    /// from going on there.
    pub const MOVED: u64 = 6;
}

/// How far beyond the beginning of [`egret_cpu::State`] the pointer is that compiled code has: all that it needs often is within a
/// byte's reach then.
pub const STATE_BIAS: i64 = 128;

/// Entries of the jump cache.
pub const JUMPS: usize = 1 << 18;
/// The jump cache's entries for one page.
pub const PLACES: usize = 256;
/// log2 of the bytes of a page that have two places.
pub(crate) const PLACE_SHIFT: u32 = 4;
/// The bits of an instruction pointer that a [`Jump::tag`] has: the others only repeat the highest of them.
const RIP_BITS: u32 = 48;

/// Where compiled code for a linear address is.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
pub struct Jump {
    /// The instruction pointer, combined by exclusive or with one of [`Vm::jump_keys`]; 0 matches nothing.
    pub tag: u64,
    /// Address of the [`Entry`].
    pub entry: u64,
    /// Its [`Entry::code`].
    pub code: u64,
}

impl Jump {
    /// No code.
    pub const EMPTY: Jump = Jump { tag: 0, entry: 0, code: 0 };

    /// Whether it leads to a page.
    #[must_use]
    pub fn is_to(&self, page: u64) -> bool {
        self.entry != 0 && (self.tag ^ page) << (64 - RIP_BITS) >> (64 - RIP_BITS + 12) == 0
    }
}

/// Numbers for what jumps depend on besides the instruction pointer.
#[derive(Default)]
struct JumpKeys {
    numbers: FxHashMap<u64, u64>,
    /// The last number given out.
    last: u64,
}

impl JumpKeys {
    const MOST: u64 = 0xfffe;

    /// The number of a key, in the bits above the instruction pointer's; never 0. `None` when they have all been used.
    fn of(&mut self, key: u64) -> Option<u64> {
        if let Some(n) = self.numbers.get(&key) {
            return Some(n << RIP_BITS);
        }
        if self.last >= Self::MOST {
            return None;
        }
        self.last += 1;
        self.numbers.insert(key, self.last);
        Some(self.last << RIP_BITS)
    }
}

/// A way into a region. Its address is the second argument of the region's function.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entry {
    /// Which entry.
    pub index: u64,
    /// Address of the region's first [`CallSite`].
    pub calls: u64,
    /// Address of the region's function, or of this entry's code in it: see [`crate::compile::Compiled::starts`].
    pub code: u64,
    /// Physical address of the page that follows, if the region was made from bytes of it, else [`Entry::NO_PAGE`].
    pub beyond: u64,
}

impl Entry {
    /// No page has this address.
    pub const NO_PAGE: u64 = u64::MAX;
}

/// An instruction that compiled code leaves to a function of the CPU.
#[repr(C)]
pub struct CallSite {
    /// The function.
    pub run: Function,
    /// The instruction.
    pub insn: Insn,
    /// [`egret_cpu::functions::is_integer`]
    pub integer: bool,
}

/// Addresses of the functions that compiled code calls, all `preserve_all`: they change no register.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Stubs {
    /// [`crate::helpers::read`]
    pub read: u64,
    /// [`crate::helpers::write`]
    pub write: u64,
    /// [`crate::helpers::modify`]
    pub modify: u64,
    /// [`crate::helpers::call`]
    pub call: u64,
    /// [`crate::helpers::cond`]
    pub cond: u64,
    /// [`crate::helpers::merge_flags`]
    pub merge_flags: u64,
    /// [`crate::helpers::divide`]
    pub divide: u64,
    /// [`crate::helpers::float`]
    pub float: u64,
}

/// The engine's data in a layout that compiled code knows. One per engine, boxed: it never moves.
#[repr(C, align(64))]
pub struct Vm {
    /// The CPU that runs, while it runs.
    pub cpu: *mut Cpu,
    /// Address of the first entry of [`Self::jumps`].
    pub first_jump: u64,
    /// What is in the tags of jumps that may be taken now: to code in global pages, which is in either of the two places, and
    /// to other code, in the second. For user mode both are the same.
    pub jump_keys: [u64; 2],
    /// See [`Stubs`].
    pub stubs: Stubs,
    /// Address of [`crate::helpers::x87`], which is called without a stub.
    pub x87: u64,
    /// Address of [`crate::helpers::vector`], which is called without a stub.
    pub vector: u64,
    /// Addresses of [`crate::host_crypto::leaves`].
    pub crypto: [u64; crate::host_crypto::COUNT],
    /// Operands of a division: high, low, divisor; see [`crate::helpers::divide`].
    pub divide: [u64; 3],
    /// What stands in for the host address of an access that crosses pages.
    pub bounce: [u64; 4],
    /// Operands of a vector operation, and its result: see [`crate::helpers::vector`].
    pub vectors: [u128; 3],
    /// Where to go on for instruction pointers, a table with two places for each: see [`jump_index`].
    pub jumps: Jumps,
    /// Where there are or were jumps to an [`Entry`], by its address: there, or beside it.
    ways: FxHashMap<u64, Vec<u32>>,
    keys: JumpKeys,
    /// The last of [`Self::jump_keys`] for global pages in supervisor mode.
    supervisor_key: u64,
    /// What [`Self::jump_keys`] are of.
    keys_of: Option<u64>,
    /// The keys of before, and what they are of.
    keys_before: (Option<u64>, [u64; 2]),
    /// The fault of an exit that has one.
    pub fault: Option<Fault>,
    /// [`Cpu::flushes`] when the jump cache was last cleared.
    pub flushes: u64,
    /// Addresses of [`crate::leaf::LEAVES`].
    pub leaves: [u64; COUNT],
    /// See there.
    pub fpu: Fpu,
}

impl Vm {
    /// One without code; the error is the host's, which has no room for the jump cache.
    pub fn new() -> std::io::Result<Vm> {
        let jumps = Jumps::new()?;
        Ok(Vm {
            first_jump: jumps.as_ptr() as u64,
            cpu: std::ptr::null_mut(),
            stubs: Stubs::default(),
            x87: crate::helpers::x87 as *const () as u64,
            vector: crate::helpers::vector as *const () as u64,
            crypto: crate::host_crypto::leaves().map(|leaf| leaf as usize as u64),
            divide: [0; 3],
            bounce: [0; 4],
            vectors: [0; 3],
            jumps,
            ways: FxHashMap::default(),
            keys: JumpKeys::default(),
            supervisor_key: 0,
            keys_of: None,
            keys_before: (None, [0; 2]),
            jump_keys: [0; 2],
            fault: None,
            flushes: 0,
            leaves: LEAVES.map(|leaf| leaf as usize as u64),
            fpu: Fpu::default(),
        })
    }

    /// What code depends on besides the instruction pointer; RFLAGS.AC has no say in where code is.
    #[must_use]
    pub fn key(cpu: &Cpu) -> u64 {
        cpu.state.tlb_key & !2 | u64::from(cpu.state.ctx.0) << 16
    }

    /// Brings [`Self::jump_keys`] up to date.
    #[inline]
    pub fn follow_key(&mut self, cpu: &Cpu) {
        let key = Vm::key(cpu);
        if self.keys_of == Some(key) {
            return;
        }
        // System calls go back and forth between two.
        std::mem::swap(&mut self.keys_of, &mut self.keys_before.0);
        std::mem::swap(&mut self.jump_keys, &mut self.keys_before.1);
        if self.keys_of != Some(key) {
            self.change_keys(key);
        }
    }

    fn change_keys(&mut self, key: u64) {
        const SPACE: u64 = 0xffc;
        const GLOBAL: u64 = 1 << 63;
        let user = key & 1 != 0;
        let shared = if user { key } else { key & !SPACE | GLOBAL };
        loop {
            if let (Some(shared), Some(own)) = (self.keys.of(shared), self.keys.of(key)) {
                self.jump_keys = [shared, own];
                self.keys_of = Some(key);
                if !user {
                    self.supervisor_key = shared;
                }
                return;
            }
            self.jumps.fill(Jump::EMPTY);
            self.keys = JumpKeys::default();
            self.keys_before.0 = None;
        }
    }

    /// Enters a jump into the jump cache, for the keys of now: whether there was room for it. `to` is the address of an [`Entry`] and
    /// its code.
    pub fn add_jump(&mut self, rip: u64, to: (u64, u64), global: bool) -> bool {
        let at = jump_index(rip);
        let [shared, own] = self.jump_keys;
        let (entry, code) = to;
        self.note_way(entry, at);
        let room = !self.in_use(at, rip);
        if shared != own && !global {
            // An old way to there would be found first.
            if self.jumps[at].tag == rip ^ shared {
                self.jumps[at] = Jump::EMPTY;
            }
            self.jumps[at ^ 1] = Jump { tag: rip ^ own, entry, code };
            return room;
        }
        let place = if !room && !self.in_use(at ^ 1, rip) { at ^ 1 } else { at };
        let new = Jump { tag: rip ^ shared, entry, code };
        let old = std::mem::replace(&mut self.jumps[place], new);
        let same = |j: &Jump| j.tag == new.tag;
        if same(&self.jumps[place ^ 1]) {
            self.jumps[place ^ 1] = Jump::EMPTY;
        }
        // What was in its first place goes beside it.
        let old_rip = old.tag ^ shared;
        if place == at && old.entry != 0 && !same(&old) && old_rip == canonical(old_rip) && jump_index(old_rip) == at {
            self.jumps[at ^ 1] = old;
        }
        room
    }

    /// Remembers that a jump to an entry is at an index, or beside it.
    fn note_way(&mut self, entry: u64, at: usize) {
        /// So many are looked through for those that are gone.
        const MANY: usize = 16;
        let ways = self.ways.entry(entry).or_default();
        if ways.len() >= MANY && ways.len().is_power_of_two() {
            ways.sort_unstable();
            ways.dedup();
            ways.retain(|n| [*n, *n ^ 1].into_iter().any(|n| self.jumps[n as usize].entry == entry));
        }
        ways.push(at as u32);
    }

    /// Forgets the jumps to an [`Entry`], given its address.
    pub fn forget_entry(&mut self, entry: u64) {
        for n in self.ways.remove(&entry).unwrap_or_default() {
            for jump in [n, n ^ 1] {
                let jump = &mut self.jumps[jump as usize];
                if jump.entry == entry {
                    *jump = Jump::EMPTY;
                }
            }
        }
    }

    /// Enters a jump that may never be taken, where there is room.
    pub fn offer_jump(&mut self, rip: u64, to: (u64, u64), global: bool) {
        let at = jump_index(rip);
        let [shared, own] = self.jump_keys;
        if !self.in_use(at, rip) && (global || shared == own || !self.in_use(at ^ 1, rip)) {
            self.add_jump(rip, to, global);
        }
    }

    /// Whether a place has a jump that may be taken soon, to elsewhere.
    fn in_use(&self, at: usize, rip: u64) -> bool {
        let [_, own] = self.jump_keys;
        let Jump { tag, entry, .. } = self.jumps[at];
        let of = |key: u64| tag ^ key == canonical(tag ^ key);
        entry != 0 && (of(own) && tag ^ own != rip || of(self.supervisor_key))
    }

    /// Forgets the jumps to a page.
    pub fn forget_page(&mut self, page: u64) {
        let first = jump_index(page) & !(PLACES - 1);
        for jump in &mut self.jumps[first..first + PLACES] {
            if jump.is_to(page) {
                *jump = Jump::EMPTY;
            }
        }
    }

    /// Forgets all jumps.
    pub fn forget_jumps(&mut self) {
        // Numbers that are never given out again lead nowhere.
        self.keys.numbers.clear();
        self.keys_of = None;
        self.keys_before.0 = None;
    }
}

/// An address with bit 47 in all bits above: the address itself if it is canonical.
pub fn canonical(a: u64) -> u64 {
    ((a as i64) << (64 - RIP_BITS) >> (64 - RIP_BITS)) as u64
}

/// The jump cache's index of an instruction pointer: the page chooses a group, the offset a place in it, so that a page can be
/// forgotten by itself. The other place for it is beside this one, at the index with its lowest bit changed. Compiled code computes
/// the same.
#[must_use]
pub fn jump_index(rip: u64) -> usize {
    let at = rip as usize;
    let mixed = at ^ ((at & (PLACES - 1)) << PLACE_SHIFT);
    (mixed >> PLACE_SHIFT) & (JUMPS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u64 = 5 << 2 | 1 | 3 << 16;
    const KERNEL: u64 = 5 << 2 | 3 << 16;
    const CODE: u64 = 0xffff_ffff_8154_b022;

    fn vm(key: u64) -> Vm {
        let mut vm = Vm::new().unwrap();
        vm.change_keys(key);
        vm
    }

    /// As compiled code looks.
    fn find(vm: &Vm, rip: u64) -> Option<u64> {
        let at = jump_index(rip);
        let [shared, own] = vm.jump_keys;
        let found = [(at, shared), (at ^ 1, own), (at ^ 1, shared)].into_iter().find(|(n, key)| vm.jumps[*n].tag == rip ^ key);
        found.map(|(n, _)| vm.jumps[n].entry)
    }

    #[test]
    fn neighbours_do_not_throw_each_other_out() {
        let (a, b) = (0x51_7f83, 0x51_7da0);
        assert_eq!(jump_index(a) ^ 1, jump_index(b));
        let mut vm = vm(USER);
        for turn in 0..3 {
            vm.add_jump(a, (0x10 + turn, 0), false);
            vm.add_jump(b, (0x20 + turn, 0), false);
            assert_eq!((find(&vm, a), find(&vm, b)), (Some(0x10 + turn), Some(0x20 + turn)));
        }
    }

    #[test]
    fn two_for_one_place_have_room() {
        for (start, key, global) in [(0x40_0100, USER, false), (CODE, KERNEL, true)] {
            let mut vm = vm(key);
            let (a, b) = (start, start + 0x1000 * (JUMPS / PLACES) as u64);
            assert_eq!(jump_index(a), jump_index(b));
            vm.add_jump(a, (1, 0), global);
            vm.add_jump(b, (2, 0), global);
            assert_eq!((find(&vm, a), find(&vm, b)), (Some(1), Some(2)));
        }
    }

    #[test]
    fn what_leads_to_a_dropped_entry_is_found_wherever_it_is() {
        let mut vm = vm(USER);
        let far = 0x1000 * (JUMPS / PLACES) as u64;
        let rips: Vec<u64> = (0..3).map(|n| 0x40_0100 + n * far).collect();
        for (n, rip) in rips.iter().enumerate() {
            vm.add_jump(*rip, (0x10, n as u64), false);
        }
        vm.add_jump(0x40_0200, (0x20, 0), false);
        vm.forget_entry(0x10);
        assert!(rips.iter().all(|rip| find(&vm, *rip).is_none()));
        assert_eq!(find(&vm, 0x40_0200), Some(0x20));
        for n in 0..1000 {
            vm.add_jump(0x40_0300 + n % 40, (0x30, 0), false);
        }
        assert!(vm.ways[&0x30].len() < 200, "what is there already is not noted again and again");
        vm.forget_entry(0x30);
        assert!(vm.jumps.iter().all(|j| j.entry != 0x30));
    }

    #[test]
    fn global_code_is_found_from_every_address_space_and_other_code_from_its_own() {
        let mut vm = vm(KERNEL);
        let local = CODE + 0x10_0000;
        vm.add_jump(CODE, (1, 0), true);
        vm.add_jump(local, (2, 0), false);
        vm.change_keys(KERNEL ^ 1 << 3);
        assert_eq!((find(&vm, CODE), find(&vm, local)), (Some(1), None));
        vm.change_keys(KERNEL ^ 1 << 16);
        assert_eq!(find(&vm, CODE), None, "another context");
        vm.change_keys(USER);
        assert_eq!(find(&vm, CODE), None, "another privilege");
        vm.change_keys(KERNEL);
        assert_eq!((find(&vm, CODE), find(&vm, local)), (Some(1), Some(2)));
    }

    #[test]
    fn a_page_that_is_no_longer_global_does_not_hide_its_code() {
        let mut vm = vm(KERNEL);
        vm.add_jump(CODE, (1, 0), true);
        vm.add_jump(CODE, (2, 0), false);
        assert_eq!(find(&vm, CODE), Some(2));
    }

    #[test]
    fn what_is_forgotten_is_not_found() {
        let mut vm = vm(USER);
        let page = 0x7fff_1234_5000;
        for at in [0, 0x123, 0xfff] {
            vm.add_jump(page + at, (1, 0), false);
        }
        vm.add_jump(page + 0x1000, (2, 0), false);
        vm.forget_page(page);
        assert!([0, 0x123, 0xfff].into_iter().all(|at| find(&vm, page + at).is_none()));
        assert_eq!(find(&vm, page + 0x1000), Some(2));
        vm.forget_jumps();
        vm.change_keys(USER);
        assert_eq!(find(&vm, page + 0x1000), None);
        assert_eq!(find(&vm, 0), None);
    }

    #[test]
    fn numbers_of_keys_begin_anew_when_they_are_used_up() {
        let mut vm = vm(USER);
        vm.add_jump(0x1000, (1, 0), false);
        vm.keys.last = JumpKeys::MOST;
        vm.change_keys(USER ^ 1 << 20);
        assert_eq!((vm.keys.last, find(&vm, 0x1000)), (1, None));
        vm.change_keys(USER);
        assert_eq!(find(&vm, 0x1000), None);
    }
}
