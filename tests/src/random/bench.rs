//! The small machine: 512 KiB with descriptor tables, task states, three kinds of page tables, and handlers that halt.

use super::program::{Program, Start};
use super::world::{Outside, outside};
use crate::rng::Rng;
use egret_bus::{GuestRam, Phys};
use egret_cpu::cpu::TableReg;
use egret_cpu::state::{SegReg, attention, cr0, cr4, efer, rflags};
use egret_cpu::{Cpu, Engine};
use egret_isa::insn::Seg;
use std::sync::OnceLock;

/// RAM in bytes.
pub const RAM: u64 = 0x8_0000;
const GDT: u64 = 0x1000;
const IDT64: u64 = 0x2000;
const IDT32: u64 = 0x3000;
const TSS64: u64 = 0x4000;
const TSS32: u64 = 0x7000;
/// Another task, to switch to.
const TSS_OTHER: u64 = 0x7800;
const LDT: u64 = 0x8000;
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PD: u64 = 0xb000;
const PT: u64 = 0xc000;
const PD32: u64 = 0xd000;
const PT32: u64 = 0xe000;
const SUPERVISOR_CODE: u64 = 0x1_0000;
const USER_CODE: u64 = 0x1_4000;
const HANDLERS: u64 = 0x2_0000;
const STACK: u64 = 0x3_0000;
const INNER_STACK: u64 = 0x3_8000;
const DATA: u64 = 0x4_0000;
/// Limits that reach behind the I/O permission map.
const TSS_LIMIT: u32 = 0x68 + 0x2000;

const FLAT: u16 = 0xc000;
const LONG: u16 = 0xa000;

/// Selectors.
mod sel {
    pub const CODE64: u16 = 0x08;
    pub const DATA: u16 = 0x10;
    pub const CODE32: u16 = 0x18;
    pub const CODE16: u16 = 0x20;
    pub const UDATA: u16 = 0x2b;
    pub const UCODE64: u16 = 0x33;
    pub const UCODE32: u16 = 0x3b;
    pub const UCODE16: u16 = 0x43;
    pub const TSS32: u16 = 0x60;
    pub const TSS64: u16 = 0x70;
    pub const LDT: u16 = 0x80;
    pub const TSS_OTHER: u16 = 0xb0;
    pub const LAST: u16 = 0xf8;
}

/// A CPU and its memory.
pub struct Bench {
    /// The CPU.
    pub cpu: Cpu,
    /// What is around it.
    pub outside: Outside,
}

fn descriptor(base: u64, limit: u32, attr: u16) -> u64 {
    u64::from(limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(attr & 0xff) << 40
        | u64::from(limit >> 16 & 0xf) << 48
        | u64::from(attr >> 12) << 52
        | (base >> 24 & 0xff) << 56
}

fn gate(selector: u16, offset: u64, attr: u8, count: u8) -> u64 {
    offset & 0xffff | u64::from(selector) << 16 | u64::from(count) << 32 | u64::from(attr) << 40 | (offset >> 16 & 0xffff) << 48
}

/// Memory as every program finds it.
fn template() -> &'static [u8] {
    static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let mut m = vec![0; RAM as usize];
        tables(&mut m);
        gates(&mut m);
        tasks(&mut m);
        pages(&mut m);
        // Who runs off the program, or is called, halts.
        for at in [SUPERVISOR_CODE, USER_CODE, HANDLERS] {
            m[at as usize..at as usize + 0x4000].fill(0xf4);
        }
        let mut rng = Rng::new(1);
        m[DATA as usize..].fill_with(|| if rng.one_in(2) { 0 } else { rng.next() as u8 });
        m
    })
}

fn put(m: &mut [u8], at: u64, bytes: usize, value: u64) {
    m[at as usize..at as usize + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
}

fn tables(m: &mut [u8]) {
    let flat = |attr: u16| descriptor(0, 0xf_ffff, attr);
    let rows = [
        (sel::CODE64, flat(0x9b | LONG)),
        (sel::DATA, flat(0x93 | FLAT)),
        (sel::CODE32, flat(0x9b | FLAT)),
        (sel::CODE16, descriptor(0, 0xf_ffff, 0x9b | 0x8000)),
        (sel::UDATA, flat(0xf3 | FLAT)),
        (sel::UCODE64, flat(0xfb | LONG)),
        (sel::UCODE32, flat(0xfb | FLAT)),
        (sel::UCODE16, descriptor(0, 0xf_ffff, 0xfb | 0x8000)),
        (0x48, flat(0x9f | FLAT)), // conforming code
        (0x50, flat(0x13 | FLAT)), // not present
        (0x58, flat(0x91 | FLAT)), // read-only
        (sel::TSS32, descriptor(TSS32, TSS_LIMIT, 0x89)),
        (sel::TSS64, descriptor(TSS64, TSS_LIMIT, 0x89)),      // two slots in long mode
        (sel::LDT, descriptor(LDT, 0x3f, 0x82)),               // likewise
        (0x90, gate(sel::CODE32, HANDLERS + 0x1000, 0xec, 2)), // call gate
        (0xa0, gate(sel::CODE64, HANDLERS + 0x1000, 0xec, 0)), // likewise, 64-bit
        (sel::TSS_OTHER, descriptor(TSS_OTHER, 0x67, 0x89)),
        (0xb8, gate(sel::TSS_OTHER, 0, 0xe5, 0)),        // task gate
        (0xc0, descriptor(DATA, 0x7fff, 0xf3)),          // 16-bit data
        (0xc8, descriptor(DATA, 0x0fff, 0xf7 | 0x4000)), // expand-down
        (0xd0, descriptor(TSS_OTHER, 0x2b, 0x81)),       // 16-bit TSS
        (0xd8, gate(sel::CODE16, 0x1000, 0xe4, 1)),      // 16-bit call gate
    ];
    for (selector, value) in rows {
        put(m, GDT + u64::from(selector & !7), 8, value);
    }
    put(m, LDT + 8, 8, flat(0xfb | FLAT));
    put(m, LDT + 16, 8, flat(0xf3 | FLAT));
}

fn gates(m: &mut [u8]) {
    for v in 0..256u64 {
        let at = HANDLERS + 16 * v;
        put(m, v * 4, 4, ((HANDLERS >> 4) << 16) | (16 * v));
        let open = if matches!(v, 3 | 4 | 0x80..) { 0x60 } else { 0 };
        let kind = if v % 5 == 0 { 0x8f } else { 0x8e };
        put(m, IDT64 + 16 * v, 8, gate(sel::CODE64, at, kind | open, u8::from(v == 8)));
        let low = match v {
            0x90 => gate(sel::TSS_OTHER, 0, 0xe5, 0),
            0x91 => gate(sel::CODE16, at & 0xffff, 0xe6, 0),
            _ => gate(sel::CODE32, at, kind | open, 0),
        };
        put(m, IDT32 + 8 * v, 8, low);
    }
}

fn tasks(m: &mut [u8]) {
    put(m, TSS64 + 4, 8, INNER_STACK);
    put(m, TSS64 + 0x24, 8, INNER_STACK + 0x2000);
    for tss in [TSS32, TSS_OTHER] {
        put(m, tss + 4, 4, INNER_STACK);
        put(m, tss + 8, 2, sel::DATA.into());
    }
    for (offset, value) in [(0x1c, PD32), (0x20, HANDLERS), (0x24, 2), (0x38, INNER_STACK + 0x1000)] {
        put(m, TSS_OTHER + offset, 4, value);
    }
    for (offset, selector) in [(0x48, sel::DATA), (0x4c, sel::CODE32), (0x50, sel::DATA), (0x54, sel::DATA), (0x58, 0), (0x5c, 0)] {
        put(m, TSS_OTHER + offset, 2, selector.into());
    }
    // The I/O map: the first half of the ports is open. TSS32's lies over what follows it; that is memory like any other.
    put(m, TSS64 + 0x66, 2, 0x68);
    m[TSS64 as usize + 0x1068..TSS64 as usize + 0x2069].fill(0xff);
    put(m, TSS32 + 0x66, 2, 0x68);
}

/// The first 2 MiB by 4 KiB pages, then two large pages behind the end of RAM, in both formats.
fn pages(m: &mut [u8]) {
    put(m, PML4, 8, PDPT | 7);
    put(m, PDPT, 8, PD | 7);
    put(m, PDPT + 8, 8, 0x4000_0000 | 0x87); // 1 GiB
    put(m, PD, 8, PT | 7);
    put(m, PD32, 4, PT32 | 7);
    for n in 1..3 {
        put(m, PD + 8 * n, 8, n << 21 | 0x87);
        put(m, PD32 + 4 * n, 4, n << 22 | 0x87);
    }
    for n in 0..512 {
        let in_code = (SUPERVISOR_CODE >> 12..USER_CODE >> 12).contains(&n);
        let system = n < SUPERVISOR_CODE >> 12 || in_code || (HANDLERS >> 12..STACK >> 12).contains(&n);
        let flags = match (system, n % 8) {
            (true, _) => 3,
            (false, 5) if n >= DATA >> 12 => 0,
            (false, 6) if n >= DATA >> 12 => 5,
            (false, 7) if n >= DATA >> 12 => 3,
            _ => 7,
        };
        put(m, PT + 8 * n, 8, n << 12 | flags);
        put(m, PT32 + 4 * n, 4, n << 12 | flags);
    }
}

impl Default for Bench {
    fn default() -> Self {
        let ram = GuestRam::new(&[(Phys(0), RAM)]).expect("half a MiB");
        let (around, outside) = outside(RAM);
        Bench { cpu: Cpu::new(ram, Box::new(around)), outside }
    }
}

impl Bench {
    /// Puts a program into fresh memory.
    pub fn load(&mut self, program: &Program, engine: &mut dyn Engine) {
        let mut rng = Rng::new(program.seed ^ 0x5eed);
        assert!(self.cpu.ram.write(Phys(0), template()), "RAM is as large as the template");
        let at = self.base(program) + program.offset;
        assert!(self.cpu.ram.write(Phys(at), &program.code), "programs are in RAM");
        assert!(self.cpu.ram.write(Phys(at + program.code.len() as u64), &[0xf4; 16]), "programs are in RAM");
        self.outside.reset(program.board, &mut rng);
        engine.flush(&mut self.cpu);
    }

    /// Linear and physical address of a program's code page.
    fn base(&self, program: &Program) -> u64 {
        if program.start.user() { USER_CODE } else { SUPERVISOR_CODE }
    }

    /// Memory.
    #[must_use]
    pub fn memory(&self) -> Vec<u8> {
        let mut out = vec![0; RAM as usize];
        assert!(self.cpu.ram.read(Phys(0), &mut out), "RAM is there");
        out
    }

    /// Whether page tables are not as they were, accessed and dirty bits aside.
    #[must_use]
    pub fn page_tables_written(&self) -> bool {
        let (now, then) = (self.memory(), template());
        (PML4..PT32 + 0x1000).any(|at| {
            let entry = if at < PD32 { 8 } else { 4 };
            let other = if at % entry == 0 { !0x60 } else { 0xff };
            (now[at as usize] ^ then[at as usize]) & other != 0
        })
    }

    /// Puts the CPU into the program's mode at one of its entries.
    pub fn enter(&mut self, program: &Program, entry: usize) {
        let mut rng = Rng::new(program.seed.wrapping_add(entry as u64 * 0x1_0001));
        let start = program.start;
        self.outside.pass_time();
        self.cpu.reset();
        self.control(start, &mut rng);
        self.segments(start, self.base(program));
        self.registers(start, &mut rng);
        for (register, value) in &program.registers {
            self.put_register(*register, *value);
        }
        let at = program.offset + entry as u64;
        self.cpu.state.rip = if matches!(start, Start::Real | Start::V86) { at } else { self.base(program) + at };
        self.flags(start, &mut rng);
    }

    fn control(&mut self, start: Start, rng: &mut Rng) {
        let c = &mut self.cpu;
        c.cr0 = cr0::ET | if rng.one_in(8) { 0 } else { cr0::NE | cr0::MP };
        for (bit, often) in [(cr0::WP, 2), (cr0::AM, 4), (cr0::TS, 24), (cr0::EM, 24)] {
            c.cr0 |= if rng.one_in(often) { bit } else { 0 };
        }
        let options = [
            (cr4::OSXMMEXCPT, 2),
            (cr4::UMIP, 4),
            (cr4::FSGSBASE, 2),
            (cr4::TSD, 4),
            (cr4::DE, 4),
            (cr4::PGE, 2),
            (cr4::PCE, 2),
            (cr4::SMEP, 4),
            (cr4::SMAP, 8),
            (cr4::PSE, 2),
        ];
        c.cr4 = if rng.one_in(16) { 0 } else { cr4::OSFXSR };
        for (bit, often) in options {
            c.cr4 |= if rng.one_in(often) { bit } else { 0 };
        }
        let paging = start.long() || (start != Start::Real && rng.one_in(2));
        c.cr0 |= if start == Start::Real { 0 } else { cr0::PE } | if paging { cr0::PG } else { 0 };
        if start.long() {
            c.cr4 |= cr4::PAE | if rng.one_in(4) { cr4::PCIDE } else { 0 };
            c.efer = efer::LME | efer::LMA | efer::SCE | if rng.one_in(2) { efer::NXE } else { 0 };
            c.cr3 = PML4;
        } else if paging && rng.one_in(2) {
            // The page directory of the long-mode tables, as its own directory-pointer table has it.
            c.cr4 |= cr4::PAE;
            c.cr3 = PDPT;
            c.pdpte = [PD | 1, 0, 0, 0];
        } else {
            c.cr3 = PD32;
        }
        let msr = &mut c.msr;
        msr.star = u64::from(sel::CODE64) << 32 | u64::from(sel::UCODE32 - 16) << 48;
        (msr.lstar, msr.cstar) = (HANDLERS + 0x1100, HANDLERS + 0x1200);
        (msr.sysenter_cs, msr.sysenter_esp, msr.sysenter_eip) = (sel::CODE64.into(), INNER_STACK, HANDLERS + 0x1300);
        (msr.sfmask, msr.kernel_gs_base) = (0x4_7700, DATA);
    }

    fn segments(&mut self, start: Start, base: u64) {
        let flat = |selector: u16, attr: u16| SegReg::new(selector, 0, u32::MAX, attr);
        let real = |at: u64, attr: u16| SegReg::real((at >> 4) as u16, 0xffff, attr);
        let c = &mut self.cpu;
        let user = start.user();
        let (cs, data) = match start {
            Start::Real => (real(base, 0x93), real(DATA, 0x93)),
            Start::V86 => (real(base, 0xf3), real(DATA, 0xf3)),
            Start::P16 => (flat(sel::CODE16, 0x809b), flat(sel::DATA, 0xc093)),
            Start::U16 | Start::Cu16 => (flat(sel::UCODE16, 0x80fb), flat(sel::UDATA, 0xc0f3)),
            Start::P32 | Start::C32 => (flat(sel::CODE32, 0xc09b), flat(sel::DATA, 0xc093)),
            Start::U32 | Start::Cu32 => (flat(sel::UCODE32, 0xc0fb), flat(sel::UDATA, 0xc0f3)),
            Start::L64 => (flat(sel::CODE64, 0xa09b), flat(sel::DATA, 0xc093)),
            Start::U64 => (flat(sel::UCODE64, 0xa0fb), flat(sel::UDATA, 0xc0f3)),
        };
        c.state.seg = [data; 6];
        c.state.seg[Seg::Cs as usize] = cs;
        if matches!(start, Start::Real | Start::V86) {
            c.state.seg[Seg::Ss as usize] = real(STACK, data.attr);
        } else {
            c.state.seg[Seg::Gs as usize].base = DATA;
        }
        c.cpl = if user { 3 } else { 0 };
        c.gdtr = TableReg { base: GDT, limit: sel::LAST + 7 };
        (c.idtr, c.tr) = match start {
            Start::Real => (TableReg { base: 0, limit: 0x3ff }, SegReg::new(0, 0, 0xffff, 0x8b)),
            _ if start.long() => (TableReg { base: IDT64, limit: 0xfff }, SegReg::new(sel::TSS64, TSS64, TSS_LIMIT, 0x8b)),
            _ => (TableReg { base: IDT32, limit: 0x7ff }, SegReg::new(sel::TSS32, TSS32, TSS_LIMIT, 0x8b)),
        };
        c.ldtr = SegReg::new(sel::LDT, LDT, 0x3f, 0x82);
    }

    fn registers(&mut self, start: Start, rng: &mut Rng) {
        let c = &mut self.cpu;
        let near = if matches!(start, Start::Real | Start::V86) { 0 } else { DATA };
        for n in 0..16 {
            c.state.gpr[n] = match rng.below(10) {
                0 => rng.next(),
                1 => rng.below(16),
                2 => (rng.below(16)).wrapping_neg(),
                3 => near + (rng.below(64) << 12) + 0xff0 + rng.below(16),
                4 => 1 << rng.below(64),
                5 => SUPERVISOR_CODE + rng.below(0x1_0000),
                6 => rng.below(RAM),
                _ => near + rng.below(0x5000),
            };
            c.state.xmm[n] = match rng.below(4) {
                0 => u128::from(rng.next()) << 64 | u128::from(rng.next()),
                1 => u128::from(f64::from(rng.next() as i32).to_bits()) << 64 | u128::from(1.5f64.to_bits()),
                2 => u128::from(f32::from(rng.next() as i16).to_bits()),
                _ => 0,
            };
        }
        // Repeat counts stay short most of the time.
        c.state.gpr[1] = if rng.one_in(8) { c.state.gpr[1] } else { rng.below(40) };
        c.state.gpr[4] = match rng.below(8) {
            0 => c.state.gpr[4],
            _ if near == 0 => 0x1000 + rng.below(0x100),
            _ => STACK + 0x1000 + rng.below(0x100) * 8,
        };
        if rng.one_in(4) {
            c.state.mxcsr = rng.next() as u32 & 0xffff;
        }
        for n in 0..4 {
            c.dr[n] = near + rng.below(0x5000);
        }
        if rng.one_in(16) {
            c.dr[7] = 0x400 | rng.next() & 0xffff_03ff;
        }
    }

    fn put_register(&mut self, register: u8, value: u64) {
        let state = &mut *self.cpu.state;
        let n = usize::from(register % 48);
        match n.checked_sub(16) {
            None => state.gpr[n] = value,
            Some(half) => {
                let shift = 64 * (half % 2);
                let keep = !(u128::from(u64::MAX) << shift);
                state.xmm[half / 2] = state.xmm[half / 2] & keep | u128::from(value) << shift;
            }
        }
    }

    fn flags(&mut self, start: Start, rng: &mut Rng) {
        let c = &mut self.cpu;
        let mut flags = rflags::FIXED | rng.next() & 0x8d5;
        for (bit, often) in [(rflags::IF, 2), (rflags::DF, 4), (rflags::TF, 16), (rflags::NT, 16), (rflags::RF, 32), (rflags::AC, 8)] {
            flags |= if rng.one_in(often) { bit } else { 0 };
        }
        flags |= rng.next() & rflags::IOPL & if rng.one_in(2) { 0 } else { rflags::IOPL };
        if start == Start::V86 {
            flags |= rflags::VM;
        }
        if c.dr[7] & 0xff == 0 {
            // As IRET does: without breakpoints nothing can tell.
            flags &= !rflags::RF;
        }
        c.set_rflags(flags);
        c.flush_tlb();
        c.update_context();
        c.update_step_attention();
        c.state.attention |= attention::INTERRUPT;
    }
}
