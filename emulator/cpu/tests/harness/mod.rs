//! A bare CPU with tables in memory, to run a few instructions on and see what comes of them.
//!
//! Every vector's handler is a HLT of its own, so where the CPU halts says which event was taken; the frame on the
//! stack says the rest.
#![allow(dead_code, clippy::precedence)]

use egret_bus::{GuestRam, Phys};
use egret_cpu::state::{SegReg, cr0, cr4, efer, rflags};
use egret_cpu::{Cpu, Exit, Interp, System};
use iced_x86::code_asm::CodeAssembler;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x4000;
pub const TSS2: u64 = 0x5000;
pub const TSS16: u64 = 0x5800;
pub const LDT: u64 = 0x6000;
pub const TABLES: u64 = 0x8000;
pub const CODE: u64 = 0x1_0000;
pub const HANDLERS: u64 = 0x2_0000;
pub const STACK: u64 = 0x3_0000;
pub const INNER_STACK: u64 = 0x3_8000;
pub const IST1: u64 = 0x3_c000;
/// Free for tests.
pub const DATA: u64 = 0x4_0000;

/// Selectors of the GDT.
pub mod sel {
    pub const CODE64: u16 = 0x08;
    pub const DATA: u16 = 0x10;
    pub const CODE32: u16 = 0x18;
    pub const CODE16: u16 = 0x20;
    pub const UDATA: u16 = 0x2b;
    pub const UCODE64: u16 = 0x33;
    pub const UCODE32: u16 = 0x3b;
    pub const UCODE16: u16 = 0x43;
    pub const CONFORMING: u16 = 0x48;
    pub const NOT_PRESENT: u16 = 0x50;
    pub const READ_ONLY: u16 = 0x58;
    pub const TSS: u16 = 0x60;
    pub const TSS2: u16 = 0x70;
    pub const LDT: u16 = 0x80;
    pub const GATE: u16 = 0x90;
    pub const GATE3: u16 = 0xa3;
    pub const TSS16: u16 = 0xb0;
    pub const TASK_GATE: u16 = 0xb8;
    pub const DATA16: u16 = 0xc0;
    pub const CODE64_CONFORMING: u16 = 0xc8;
    pub const FREE: u16 = 0xd0;
}

/// Modes that a test can start in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Real,
    /// Protected mode, 16-bit code, CPL 0.
    P16,
    /// Protected mode, 32-bit code, CPL 0.
    P32,
    /// The same at CPL 3.
    U32,
    V86,
    /// Long mode, 64-bit, CPL 0.
    L64,
    /// CPL 3.
    U64,
    /// Compatibility mode, CPL 3.
    C32,
}

/// What the machine around the CPU saw and says.
#[derive(Default)]
pub struct World {
    pub ports: Vec<(bool, u16, u8, u32)>,
    pub interrupts: VecDeque<u8>,
    pub nmi: bool,
    pub tsc: u64,
    pub deadline: u64,
    pub priority: u8,
}

/// The world, as CPU and test hold it.
#[derive(Clone, Default)]
pub struct SharedWorld(Arc<RwLock<World>>);

impl SharedWorld {
    /// To look.
    pub fn borrow(&self) -> RwLockReadGuard<'_, World> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change.
    pub fn borrow_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Stub(pub SharedWorld);

impl System for Stub {
    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        self.0.borrow_mut().ports.push((false, port, size, 0));
        0x1234_5678
    }
    fn port_write(&mut self, port: u16, size: u8, value: u32) {
        self.0.borrow_mut().ports.push((true, port, size, value));
    }
    fn mmio_read(&mut self, _addr: Phys, _size: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _addr: Phys, _size: u8, _value: u64) {}
    fn interrupt_pending(&mut self) -> bool {
        !self.0.borrow().interrupts.is_empty()
    }
    fn acknowledge(&mut self) -> Option<u8> {
        self.0.borrow_mut().interrupts.pop_front()
    }
    fn take_nmi(&mut self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().nmi)
    }
    fn tsc(&mut self) -> u64 {
        self.0.borrow().tsc
    }
    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        match msr {
            0x1b => Some(0xfee0_0900),
            0x6e0 => Some(self.0.borrow().deadline),
            _ => None,
        }
    }
    fn apic_write(&mut self, msr: u32, value: u64) -> bool {
        if msr == 0x6e0 {
            self.0.borrow_mut().deadline = value;
        }
        msr == 0x6e0
    }
    fn task_priority(&mut self) -> u8 {
        self.0.borrow().priority
    }
    fn set_task_priority(&mut self, value: u8) {
        self.0.borrow_mut().priority = value;
    }
}

pub struct Bench {
    pub cpu: Cpu,
    pub interp: Interp,
    pub world: SharedWorld,
    pub start: Start,
}

/// A code, data or system descriptor.
pub fn descriptor(base: u64, limit: u32, attr: u16) -> u64 {
    u64::from(limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(attr & 0xff) << 40
        | u64::from(limit >> 16 & 0xf) << 48
        | u64::from(attr >> 12) << 52
        | (base >> 24 & 0xff) << 56
}

/// A gate of 8 bytes, or the first half of a 16-byte one.
pub fn gate(selector: u16, offset: u64, kind_dpl_p: u8, count: u8) -> u64 {
    offset & 0xffff | u64::from(selector) << 16 | u64::from(count) << 32 | u64::from(kind_dpl_p) << 40 | (offset >> 16 & 0xffff) << 48
}

const FLAT: u16 = 0xc000;
const LONG: u16 = 0xa000;

impl Bench {
    pub fn new(start: Start) -> Bench {
        let world = SharedWorld::default();
        let ram = GuestRam::new(&[(Phys(0), 16 << 20)]).expect("RAM");
        let cpu = Cpu::new(ram, Box::new(Stub(world.clone())));
        let mut b = Bench { cpu, interp: Interp::default(), world, start };
        b.handlers();
        b.gdt();
        b.idt();
        b.tss();
        b.paging();
        b.enter();
        b
    }

    pub fn long(&self) -> bool {
        matches!(self.start, Start::L64 | Start::U64 | Start::C32)
    }

    pub fn put(&mut self, at: u64, size: u8, value: u64) {
        assert!(self.cpu.ram.store(Phys(at), size, value));
    }

    pub fn get(&self, at: u64, size: u8) -> u64 {
        self.cpu.ram.load(Phys(at), size).expect("RAM")
    }

    pub fn bytes(&mut self, at: u64, bytes: &[u8]) {
        assert!(self.cpu.ram.write(Phys(at), bytes));
    }

    pub fn set_gdt(&mut self, selector: u16, low: u64) {
        self.put(GDT + u64::from(selector & !7), 8, low);
    }

    pub fn set_idt(&mut self, vector: u8, low: u64) {
        let size = if self.long() { 16 } else { 8 };
        self.put(IDT + u64::from(vector) * size, 8, low);
    }

    fn handlers(&mut self) {
        for v in 0..256 {
            self.put(HANDLERS + 16 * v, 1, 0xf4);
        }
    }

    fn gdt(&mut self) {
        let flat = |attr: u16| descriptor(0, 0xf_ffff, attr);
        let tss_kind = if self.long() { 0x89 } else { 0x8b };
        let table = [
            (sel::CODE64, flat(0x9b | LONG)),
            (sel::DATA, flat(0x93 | FLAT)),
            (sel::CODE32, flat(0x9b | FLAT)),
            (sel::CODE16, descriptor(0, 0xf_ffff, 0x9b | 0x8000)),
            (sel::UDATA, flat(0xf3 | FLAT)),
            (sel::UCODE64, flat(0xfb | LONG)),
            (sel::UCODE32, flat(0xfb | FLAT)),
            (sel::UCODE16, descriptor(0, 0xf_ffff, 0xfb | 0x8000)),
            (sel::CONFORMING, flat(0x9f | FLAT)),
            (sel::NOT_PRESENT, flat(0x13 | FLAT)),
            (sel::READ_ONLY, flat(0x91 | FLAT)),
            (sel::TSS, descriptor(TSS, 0x67 + 0x40, tss_kind)),
            (sel::TSS2, descriptor(TSS2, 0x67, 0x89)),
            (sel::LDT, descriptor(LDT, 0x3f, 0x82)),
            (sel::TSS16, descriptor(TSS16, 0x2b, 0x81)),
            (sel::TASK_GATE, gate(sel::TSS2, 0, 0xe5, 0)),
            (sel::DATA16, descriptor(0, 0xffff, 0x93)),
            (sel::CODE64_CONFORMING, flat(0x9f | LONG)),
        ];
        for (selector, low) in table {
            self.set_gdt(selector, low);
        }
        self.cpu.gdtr.base = GDT;
        self.cpu.gdtr.limit = 0xff;
        // The LDT: code and data of CPL 0.
        self.put(LDT + 8, 8, flat(0x9b | FLAT));
        self.put(LDT + 16, 8, flat(0x93 | FLAT));
    }

    fn idt(&mut self) {
        let long = self.long();
        self.cpu.idtr.base = if self.start == Start::Real { 0 } else { IDT };
        self.cpu.idtr.limit = if long { 0xfff } else { 0x7ff };
        for v in 0..=255u8 {
            let at = HANDLERS + 16 * u64::from(v);
            let dpl = if matches!(v, 3 | 4 | 0x80) { 0x60 } else { 0 };
            match self.start {
                Start::Real => self.put(u64::from(v) * 4, 4, (HANDLERS >> 4) << 16 | 16 * u64::from(v)),
                _ => {
                    let cs = if long { sel::CODE64 } else { sel::CODE32 };
                    self.set_idt(v, gate(cs, at, 0x8e | dpl, 0));
                }
            }
        }
        self.cpu.idtr.limit = if self.start == Start::Real { 0x3ff } else { self.cpu.idtr.limit };
    }

    fn tss(&mut self) {
        if self.long() {
            self.put(TSS + 4, 8, INNER_STACK);
            self.put(TSS + 0x24, 8, IST1);
        } else {
            self.put(TSS + 4, 4, INNER_STACK);
            self.put(TSS + 8, 2, sel::DATA.into());
        }
        // The I/O map: ports 0-3fh, all closed but 10h-17h.
        self.put(TSS + 0x66, 2, 0x68);
        self.put(TSS + 0x68, 8, !(0xff << 16));
        self.put(TSS + 0x70, 1, 0xff);
        self.cpu.tr = SegReg::new(sel::TSS, TSS, 0x67 + 0x09, 0x8b);
    }

    /// Identity-maps 16 MiB for everybody, with 4-level tables and 2 MiB pages; protected mode starts without paging.
    fn paging(&mut self) {
        self.put(TABLES, 8, TABLES + 0x1000 | 7);
        self.put(TABLES + 0x1000, 8, TABLES + 0x2000 | 7);
        for n in 0..8 {
            self.put(TABLES + 0x2000 + 8 * n, 8, n << 21 | 0x87);
        }
    }

    fn enter(&mut self) {
        let flat = |selector: u16, attr: u16| SegReg::new(selector, 0, u32::MAX, attr);
        let c = &mut self.cpu;
        c.cr0 = cr0::ET | cr0::NE | cr0::WP | if self.start == Start::Real { 0 } else { cr0::PE };
        if matches!(self.start, Start::L64 | Start::U64 | Start::C32) {
            c.cr0 |= cr0::PG;
            c.cr4 = cr4::PAE | cr4::OSFXSR;
            c.cr3 = TABLES;
            c.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
        }
        let (cs, data) = match self.start {
            Start::Real => (SegReg::real((CODE >> 4) as u16, 0xffff, 0x93), SegReg::real(0, 0xffff, 0x93)),
            Start::V86 => (SegReg::real((CODE >> 4) as u16, 0xffff, 0xf3), SegReg::real(0, 0xffff, 0xf3)),
            Start::P16 => (flat(sel::CODE16, 0x809b), flat(sel::DATA, 0xc093)),
            Start::P32 => (flat(sel::CODE32, 0xc09b), flat(sel::DATA, 0xc093)),
            Start::U32 => (flat(sel::UCODE32, 0xc0fb), flat(sel::UDATA, 0xc0f3)),
            Start::L64 => (flat(sel::CODE64, 0xa09b), flat(sel::DATA, 0xc093)),
            Start::U64 => (flat(sel::UCODE64, 0xa0fb), flat(sel::UDATA, 0xc0f3)),
            Start::C32 => (flat(sel::UCODE32, 0xc0fb), flat(sel::UDATA, 0xc0f3)),
        };
        c.state.seg = [data; 6];
        c.state.seg[1] = cs;
        c.cpl = if matches!(self.start, Start::U32 | Start::V86 | Start::U64 | Start::C32) { 3 } else { 0 };
        c.state.rip = CODE;
        c.state.gpr[4] = STACK;
        let mut flags = 2;
        if matches!(self.start, Start::Real | Start::V86) {
            c.state.rip = 0;
            c.state.seg[2] = SegReg::real((STACK >> 4) as u16, 0xffff, data.attr);
            c.state.gpr[4] = 0x1000;
        }
        if self.start == Start::V86 {
            flags |= rflags::VM;
        }
        c.set_rflags(flags);
        c.flush_tlb();
        c.update_context();
    }

    pub fn bits(&self) -> u32 {
        match self.start {
            Start::Real | Start::P16 | Start::V86 => 16,
            Start::P32 | Start::U32 | Start::C32 => 32,
            Start::L64 | Start::U64 => 64,
        }
    }

    /// Assembles code at `at`.
    pub fn asm_at(&mut self, at: u64, bits: u32, write: impl FnOnce(&mut CodeAssembler)) {
        let mut a = CodeAssembler::new(bits).expect("bits");
        write(&mut a);
        let ip = if matches!(self.start, Start::Real | Start::V86) { at - CODE } else { at };
        let bytes = a.assemble(ip).expect("assembles");
        self.bytes(at, &bytes);
    }

    /// Assembles the code to run, in the mode's size.
    pub fn asm(&mut self, write: impl FnOnce(&mut CodeAssembler)) {
        let bits = self.bits();
        self.asm_at(CODE, bits, write);
    }

    /// Runs until something stops the CPU; what it was: "hlt", "int 0x80", "#13(0x18)", "shutdown", "budget".
    pub fn run(&mut self) -> String {
        self.cpu.state.budget = 1000;
        match self.interp.run(&mut self.cpu) {
            Exit::Shutdown => "shutdown".into(),
            Exit::Halt => self.halted(),
            _ => "budget".into(),
        }
    }

    /// The vector whose handler the CPU halted in.
    pub fn vector(&self) -> Option<u8> {
        let c = &self.cpu;
        let ip = c.state.rip.wrapping_sub(1).wrapping_add(if c.code64() { 0 } else { c.state.seg[1].base });
        (HANDLERS..HANDLERS + 0x1000).contains(&ip).then(|| ((ip - HANDLERS) / 16) as u8)
    }

    fn halted(&self) -> String {
        let Some(v) = self.vector() else { return "hlt".into() };
        let with_error = matches!(v, 8 | 10..=14 | 17) && !self.cpu.real_mode();
        if with_error { format!("#{v}({:#x})", self.frame(0) & 0xffff_ffff) } else { format!("#{v}") }
    }

    /// Word `n` on the handler's stack, of the size of its gate.
    pub fn frame(&self, n: u64) -> u64 {
        let c = &self.cpu;
        let size = if c.code64() {
            8
        } else if c.real_mode() {
            2
        } else {
            4
        };
        let base = if c.code64() { 0 } else { c.state.seg[2].base };
        let sp = if c.state.seg[2].attr & SegReg::DB != 0 || c.code64() { c.gpr(4) } else { c.gpr(4) & 0xffff };
        self.get(base + sp + n * u64::from(size), size)
    }
}
