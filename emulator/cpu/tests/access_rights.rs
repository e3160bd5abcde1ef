//! Page-table entries with every combination of rights, sizes and reserved bits against a model of its own of what SDM Vol. 3,
//! "Determination of Access Rights", "Reserved Bits" and "Accessed and Dirty Flags" say, in all paging modes.

mod harness;

use egret_bus::Phys;
use egret_cpu::Cpu;
use egret_cpu::fault::{Fault, vector};
use egret_cpu::state::{cr0, cr4, efer, rflags};
use egret_isa::Seg;
use harness::{Bench, Start};

const P: u64 = 1;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const NX: u64 = 1 << 63;
const BEYOND: u64 = 1 << 51;
/// Reserved in large pages of 8-byte entries.
const BIT_13: u64 = 1 << 13;
/// Reserved in 4 MiB pages.
const BIT_21: u64 = 1 << 21;

/// The width of physical addresses that CPUID reports.
const PHYS_BITS: u32 = 40;
/// The page, and the same with whatever page size: tables map linear addresses to themselves but for the highest bits.
const PAGE: u64 = 0x50_3000;
const TABLES: u64 = 0x20_0000;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Paging {
    Bits32,
    Pae,
    Level4,
    Level5,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Access {
    Read,
    Write,
    Fetch,
}

/// One case: entries from the root down, as far as one is a leaf.
#[derive(Clone, Debug)]
struct Case {
    paging: Paging,
    linear: u64,
    entries: Vec<u64>,
    access: Access,
    user: bool,
    wp: bool,
    nxe: bool,
    pse: bool,
    smep: bool,
    smap: bool,
    ac: bool,
}

impl Case {
    fn levels(&self) -> usize {
        match self.paging {
            Paging::Bits32 | Paging::Pae => 2,
            Paging::Level4 => 4,
            Paging::Level5 => 5,
        }
    }

    /// The entry at `n` from the root maps a page.
    fn leaf(&self, n: usize) -> bool {
        let level = self.levels() - n;
        let large = self.entries[n] & PS != 0;
        level == 1 || (large && if self.paging == Paging::Bits32 { self.pse } else { level <= 3 })
    }

    fn reserved(&self, n: usize) -> bool {
        let (entry, level) = (self.entries[n], self.levels() - n);
        if self.paging == Paging::Bits32 {
            return self.leaf(n) && level == 2 && entry & BIT_21 != 0;
        }
        let large = level > 1 && self.leaf(n);
        entry & ((1 << 52) - (1 << PHYS_BITS)) != 0
            || (entry & NX != 0 && !self.nxe)
            || (level >= 4 && entry & PS != 0)
            || (large && entry & ((1 << (12 + 9 * (level - 1))) - (1 << 13)) != 0)
    }

    /// The error code of the page fault, or how many entries are used.
    fn model(&self) -> Result<usize, u32> {
        let kind = u32::from(self.access == Access::Write) << 1
            | u32::from(self.user) << 2
            | u32::from(self.access == Access::Fetch && (self.smep || self.nxe && self.paging != Paging::Bits32)) << 4;
        let (mut w, mut u, mut nx) = (true, true, false);
        for n in 0..self.levels() {
            let entry = self.entries[n];
            if entry & P == 0 {
                return Err(kind);
            }
            if self.reserved(n) {
                return Err(kind | 1 | 1 << 3);
            }
            w &= entry & W != 0;
            u &= entry & U != 0;
            nx |= entry & NX != 0 && self.paging != Paging::Bits32;
            if self.leaf(n) {
                let open = self.user || !u || !self.smap || self.ac;
                let allowed = match (self.access, self.user) {
                    (Access::Read, true) => u,
                    (Access::Write, true) => u && w,
                    (Access::Fetch, true) => u && !nx,
                    (Access::Read, false) => open,
                    (Access::Write, false) => open && (w || !self.wp),
                    (Access::Fetch, false) => !(nx || u && self.smep),
                };
                return if allowed { Ok(n + 1) } else { Err(kind | 1) };
            }
        }
        unreachable!("the last level is a leaf")
    }

    fn entry_size(&self) -> u8 {
        if self.paging == Paging::Bits32 { 4 } else { 8 }
    }

    fn address(&self, n: usize) -> u64 {
        let bits = if self.paging == Paging::Bits32 { 10 } else { 9 };
        let level = (self.levels() - n) as u32;
        let index = self.linear >> (12 + bits * (level - 1)) & ((1 << bits) - 1);
        TABLES + 0x1000 * n as u64 + index * u64::from(self.entry_size())
    }

    fn set_up(&self, cpu: &mut Cpu) {
        for (n, entry) in self.entries.iter().enumerate() {
            assert!(cpu.ram.store(Phys(self.address(n)), self.entry_size(), *entry));
        }
        let set = |on: bool, bit: u64| if on { bit } else { 0 };
        cpu.cr0 = cr0::PE | cr0::PG | cr0::ET | set(self.wp, cr0::WP);
        cpu.cr4 = set(self.paging != Paging::Bits32, cr4::PAE)
            | set(self.paging == Paging::Level5, cr4::LA57)
            | set(self.pse, cr4::PSE)
            | set(self.smep, cr4::SMEP)
            | set(self.smap, cr4::SMAP);
        let long = matches!(self.paging, Paging::Level4 | Paging::Level5);
        cpu.efer = set(long, efer::LME | efer::LMA) | set(self.nxe, efer::NXE);
        cpu.cr3 = TABLES;
        cpu.pdpte = [TABLES | P; 4];
        cpu.cpl = if self.user { 3 } else { 0 };
        cpu.state.system_flags = 2 | set(self.ac, rflags::AC);
        cpu.update_context();
        cpu.flush_page(self.linear);
    }

    fn run(&self, cpu: &mut Cpu) -> Result<usize, u32> {
        self.set_up(cpu);
        let result = match self.access {
            Access::Read => cpu.read(Seg::Ds, self.linear, 1).map(drop),
            Access::Write => cpu.write(Seg::Ds, self.linear, 1, 0x5a),
            Access::Fetch => cpu.fetch_address(self.linear).map(|at| assert_eq!(at, PAGE, "{self:x?}")),
        };
        match result {
            Ok(()) => Ok((0..self.levels()).position(|n| self.leaf(n)).expect("a leaf") + 1),
            Err(fault) => Err(error_code(fault)),
        }
    }

    /// What the entries must be after: accessed where they were used, the last one dirty after a write.
    fn after(&self, used: Option<usize>) -> Vec<u64> {
        let Some(used) = used else { return self.entries.clone() };
        let mut entries = self.entries.clone();
        for (n, entry) in entries.iter_mut().enumerate().take(used) {
            let dirty = n + 1 == used && self.access == Access::Write;
            *entry |= A | if dirty { D } else { 0 };
        }
        entries
    }
}

fn error_code(fault: Fault) -> u32 {
    let code = (0..64).find(|code| Fault::with_error(vector::PF, *code) == fault);
    code.unwrap_or_else(|| panic!("not a page fault: {fault:?}"))
}

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.bits().is_multiple_of(n)
    }
}

fn case(r: &mut Random, paging: Paging) -> Case {
    let long = matches!(paging, Paging::Level4 | Paging::Level5);
    let access = [Access::Read, Access::Write, Access::Fetch][(r.bits() % 3) as usize];
    let mut flag = || r.one_in(2);
    let (user, wp, nxe, pse, smep, smap, ac) = (flag(), flag(), flag(), flag(), flag(), flag(), flag());
    // An aligned byte: with AC set user accesses are not checked for alignment, as CR0.AM is clear.
    let linear = PAGE | if long { 5 << 39 | 7 << 30 } else { 0 };
    let mut c = Case { paging, linear, entries: Vec::new(), access, user, wp, nxe, pse, smep, smap, ac };
    for n in 0..c.levels() {
        let level = c.levels() - n;
        let narrow = paging == Paging::Bits32;
        let large = level > 1 && r.one_in(6);
        let span = if narrow { 22 } else { 12 + 9 * (level as u32 - 1) };
        // In a page-table entry bit 7 is the PAT's.
        let target = match (level, large) {
            (1, _) => PAGE,
            (2 | 3, true) if !narrow || pse => PAGE >> span << span,
            _ => TABLES + 0x1000 * (n as u64 + 1),
        };
        let mut bits = target;
        for (bit, rare) in [(P, false), (W, false), (U, false), (NX, true), (BEYOND, true), (A, true), (D, true)] {
            let often = if rare { r.one_in(8) } else { !r.one_in(5) };
            bits |= if often { bit } else { 0 };
        }
        bits |= if large { PS } else { 0 };
        bits |= if large && r.one_in(8) { if narrow { BIT_21 } else { BIT_13 } } else { 0 };
        c.entries.push(if narrow { bits & 0xffff_ffff } else { bits });
    }
    c
}

fn check(start: Start, paging: Paging) {
    const CASES: usize = 40_000;
    let mut b = Bench::new(start);
    assert_eq!(b.cpu.cpuid(0x8000_0008, 0)[0] & 0xff, PHYS_BITS);
    let mut r = Random(0x1234_5678_9abc_def1 ^ paging as u64);
    let mut seen = [0; 3];
    for _ in 0..CASES {
        let c = case(&mut r, paging);
        let want = c.model();
        let got = c.run(&mut b.cpu);
        assert_eq!(got, want, "{c:x?}");
        if want.is_err() {
            assert_eq!(b.cpu.fault_address, c.linear, "{c:x?}");
        }
        let entries: Vec<u64> = (0..c.levels()).map(|n| b.get(c.address(n), c.entry_size())).collect();
        assert_eq!(entries, c.after(want.ok()), "{c:x?}");
        seen[want.map_or_else(|code| 1 + usize::from(code & 8 != 0), |_| 0)] += 1;
    }
    assert!(seen.iter().all(|n| *n > CASES / 20), "passed, refused, reserved: {seen:?}");
}

#[test]
fn two_levels_of_4_byte_entries() {
    // Little is reserved here: 4 MiB pages alone have such a bit.
    let mut b = Bench::new(Start::P32);
    let mut r = Random(7);
    let mut seen = [0; 3];
    for _ in 0..40_000 {
        let c = case(&mut r, Paging::Bits32);
        let want = c.model();
        assert_eq!(c.run(&mut b.cpu), want, "{c:x?}");
        let entries: Vec<u64> = (0..2).map(|n| b.get(c.address(n), 4)).collect();
        assert_eq!(entries, c.after(want.ok()), "{c:x?}");
        seen[want.map_or_else(|code| 1 + usize::from(code & 8 != 0), |_| 0)] += 1;
    }
    assert!(seen.iter().all(|n| *n > 100), "{seen:?}");
}

#[test]
fn pae() {
    check(Start::P32, Paging::Pae);
}

#[test]
fn four_levels() {
    check(Start::L64, Paging::Level4);
}

#[test]
fn five_levels() {
    check(Start::L64, Paging::Level5);
}
