//! The state in which a program finds its operands: registers, and memory where it looks.

use super::encode::decoded;
use super::generate::Text;
use super::program::{Program, base, high_sp, selectors};
use super::slot::{PAGE, WINDOW};
use super::values::Rng;
use crate::conform::regs::RegFile;
use egret_isa::flags::ARITH;
use egret_isa::insn::Mode;
use iced_x86::{FlowControl, Instruction, MemorySize, Mnemonic as M, OpKind, Register};

/// Selectors that mean the same on the host and in the engines' tables.
pub(super) fn selector(mode: Mode, rng: &mut Rng) -> u16 {
    // The host's 64-bit code segment is reached from compatibility mode, which the engines' other modes are not.
    if mode == Mode::M64 && rng.chance(6) {
        return 0x33;
    }
    rng.of_list(&[0, 3, 0x2b, 0x2b, 0x23, 0x23, 0x0f, 0x17, 0x1f, 0x27, 0x10, 0x13, 0xffff, 0x2a, 0x07, 0x7ff8])
}

/// An address for an operand of `size` bytes: aligned, misaligned, over the ends of pages, writable or not, present or not.
pub(super) fn target(size: usize, rng: &mut Rng) -> u64 {
    let size = size.clamp(1, 0x200) as u64;
    let before = |end: u64, rng: &mut Rng| WINDOW + end - rng.below(size + 1).max(1);
    match rng.below(40) {
        0..=19 => WINDOW + 0x8800 + 64 * rng.below(4),
        20..=27 => WINDOW + 0x8800 + rng.below(128),
        28..=30 => before(0x9000, rng),
        31 => WINDOW + 0x8000 + rng.below(64),
        32 => WINDOW + 0x9f00 + rng.below(64),
        33 => before(0xa000, rng),
        34 => WINDOW + 0xa800 + rng.below(64),
        35 => before(0xb000, rng),
        36 => before(0x8000, rng),
        37 => before(0x1_0000, rng),
        38 => WINDOW + 0xf000 + rng.below(64),
        _ => WINDOW + 0x6800 + rng.below(64),
    }
}

/// The state under construction.
struct State<'a> {
    rng: &'a mut Rng,
    mode: Mode,
    regs: RegFile,
    /// General registers that must keep their value.
    pinned: u16,
    memory: Vec<(u64, Vec<u8>)>,
    /// Offset in CS of the INT3s.
    end: u64,
}

pub(super) fn state(text: &Text, rng: &mut Rng) -> Program {
    let mode = text.mode;
    let length = text.insns.iter().map(Vec::len).sum::<usize>() as u64;
    let code_base = base(selectors(mode).0);
    let mut s = State { rng, mode, regs: RegFile::default(), pinned: 0, memory: Vec::new(), end: text.at + length - code_base };
    s.segments();
    s.registers();
    let insns: Vec<Instruction> = text.insns.iter().map(|b| decoded(b, mode)).collect();
    let mut here = text.at - code_base;
    for insn in &insns {
        here += insn.len() as u64;
        s.operands(insn, here + code_base);
    }
    if mode == Mode::M16 {
        s.regs.gpr[4] = s.regs.gpr[4] & 0xffff | high_sp(mode);
    }
    if insns.iter().any(|i| matches!(i.mnemonic(), M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64)) {
        // Whether a misaligned image is #AC or #GP is up to the implementation.
        s.regs.rflags &= !(1 << 18);
    }
    s.units();
    s.regs.rip = text.at - code_base;
    Program { code: text.code, mode, at: text.at, insns: text.insns.clone(), regs: s.regs, memory: s.memory }
}

impl State<'_> {
    fn segments(&mut self) {
        let (code, data) = selectors(self.mode);
        self.regs.sel = [data, code, data, data, data, data];
        if self.mode == Mode::M32 && self.rng.chance(12) {
            for n in [0, 2, 3, 4, 5] {
                self.regs.sel[n] = self.rng.of_list(&[0x2b, 0x1f, 0x1f, 0x27]);
            }
        }
        if self.mode == Mode::M64 {
            for n in [4, 5] {
                self.regs.base[n] = if self.rng.chance(60) { 0 } else { self.rng.below(0x4000) };
            }
        } else {
            for n in 0..6 {
                self.regs.base[n] = base(self.regs.sel[n]);
            }
        }
    }

    fn registers(&mut self) {
        let count = if self.mode == Mode::M64 { 16 } else { 8 };
        let mask = if self.mode == Mode::M64 { u64::MAX } else { 0xffff_ffff };
        for n in 0..count {
            let value = match self.rng.below(10) {
                0..=4 => self.rng.integer(),
                5 | 6 => self.rng.next(),
                7 => target(8, self.rng) - self.regs.base[3],
                8 => self.rng.below(64),
                _ => self.rng.lane(),
            };
            self.regs.gpr[n] = value & mask;
        }
        let stack = match self.rng.below(20) {
            0 => 0x6000 + self.rng.below(24),
            1 => 0x7000 - self.rng.below(24),
            2 => 0x7000,
            3 => 0x6000 + self.rng.below(PAGE),
            4 => 0x9000 - 8 * self.rng.below(4),
            _ => 0x6800 + 8 * self.rng.below(16),
        };
        self.regs.gpr[4] = (WINDOW + stack - self.base(2)) | high_sp(self.mode);
        let frame = WINDOW + stack;
        self.window(frame.wrapping_sub(32), 128, MemorySize::Unknown);
        let flags = self.rng.next() & u64::from(ARITH);
        let rare = |rng: &mut Rng, bit: u64, percent| if rng.chance(percent) { 1_u64 << bit } else { 0 };
        self.regs.rflags = flags | 0x202 | rare(self.rng, 10, 15) | rare(self.rng, 18, 8) | rare(self.rng, 21, 5);
        // Outside of long mode IRET means something else with NT.
        self.regs.rflags |= rare(self.rng, 14, if self.mode == Mode::M64 { 2 } else { 0 });
    }

    fn base(&self, segment: usize) -> u64 {
        match (self.mode, segment) {
            (Mode::M64, 4 | 5) => self.regs.base[segment],
            (Mode::M64, _) => 0,
            _ => base(self.regs.sel[segment]),
        }
    }

    /// x87, SSE and AVX registers.
    fn units(&mut self) {
        let rng = &mut *self.rng;
        let count = if self.mode == Mode::M64 { 16 } else { 8 };
        for v in &mut self.regs.vec[..count] {
            *v = std::array::from_fn(|_| rng.lane());
        }
        if rng.chance(25) {
            // Related operands.
            let a = rng.below(8) as usize;
            self.regs.vec[(a + 1) % 8] = self.regs.vec[a];
        }
        let r = &mut self.regs;
        for x in &mut r.x87 {
            *x = rng.extended();
        }
        let a = rng.below(8) as usize;
        match rng.below(6) {
            0 => r.x87[(a + 1) & 7] = r.x87[a],
            1 => r.x87[(a + 1) & 7] = (r.x87[a].0 ^ 1 << rng.below(4), r.x87[a].1),
            2 => r.x87[(a + 1) & 7] = (r.x87[a].0, r.x87[a].1.wrapping_sub(rng.below(66) as u16)),
            _ => {}
        }
        r.x87_used = match rng.below(8) {
            0 => rng.next() as u8,
            1 => 0xff,
            2 => 0,
            _ => 0xff,
        };
        r.fsw = rng.next() as u16 & 0x7f40;
        if r.x87_used == 0xff && rng.chance(50) {
            // Some room for pushes.
            for n in 5..8 {
                r.x87_used &= !(1 << ((usize::from(r.fsw >> 11) + n) & 7));
            }
        }
        let cw = rng.next() as u16;
        r.fcw = match rng.below(4) {
            0 => 0x37f,
            1 => cw & 0xc3f | 0x340,
            _ => cw & 0xf3f | 0x7f,
        } & 0x1f3f
            | 0x40;
        if rng.chance(50) {
            r.fsw |= rng.next() as u16 & r.fcw & 0x3f;
        } else if rng.chance(10) {
            r.fsw |= rng.next() as u16 & 0x3f;
        }
        if r.fsw & !r.fcw & 0x3f != 0 {
            r.fsw |= 0x8080;
        }
        let any = rng.next() as u32;
        r.mxcsr = match rng.below(4) {
            0 => 0x1f80,
            1 => any & 0xffff,
            _ => any & 0xe07f | 0x1f80,
        };
        if rng.chance(50) {
            r.mxcsr &= !0x3f;
        }
    }

    /// Content around an operand at linear address `at`.
    fn window(&mut self, at: u64, length: u64, kind: MemorySize) {
        let mut bytes = Vec::new();
        if kind == MemorySize::Float80 {
            let (low, high) = self.rng.extended();
            bytes.extend(low.to_le_bytes());
            bytes.extend(high.to_le_bytes());
        }
        if kind == MemorySize::Bcd {
            let digits = if self.rng.chance(80) { 0x99 } else { 0xff };
            bytes.extend((0..9).map(|_| (self.rng.below(10) as u8 | (self.rng.below(10) as u8) << 4) & digits));
            bytes.push(self.rng.next() as u8 & 0x80);
        }
        while (bytes.len() as u64) < length {
            let value = match self.rng.below(8) {
                0 => self.end,
                1 | 2 => self.rng.integer(),
                _ => self.rng.lane(),
            };
            bytes.extend(value.to_le_bytes());
        }
        self.memory.push((at, bytes));
    }

    fn number(register: Register) -> Option<usize> {
        register.is_gpr().then(|| register.full_register() as usize - Register::RAX as usize)
    }

    /// Sets a general register, if no earlier instruction counts on it.
    fn pin(&mut self, n: usize, value: u64, width: u64) {
        let width = if self.mode == Mode::M64 { width } else { width & 0xffff_ffff };
        if self.pinned & 1 << n == 0 {
            self.regs.gpr[n] = self.regs.gpr[n] & !width | value & width;
            self.pinned |= 1 << n;
        }
    }

    fn address_mask(register: Register) -> u64 {
        match register.size() {
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        }
    }

    /// Makes the operands of an instruction reachable, mostly.
    fn operands(&mut self, insn: &Instruction, next: u64) {
        self.special(insn);
        let explicit = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
        if explicit {
            self.explicit(insn, next);
        }
        for n in 0..insn.op_count() {
            let (register, segment) = match insn.op_kind(n) {
                OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI => (6, segment_number(insn.memory_segment())),
                OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => (7, segment_number(insn.memory_segment())),
                OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => (7, 0),
                _ => continue,
            };
            if self.rng.chance(92) {
                let to = target(insn.memory_size().size(), self.rng);
                self.pin(register, to.wrapping_sub(self.base(segment)), u64::MAX);
                self.window(to.wrapping_sub(40), 96, insn.memory_size());
            }
        }
        if (insn.has_rep_prefix() || insn.has_repne_prefix()) && insn.is_string_instruction() && self.rng.chance(95) {
            let count = self.rng.below(12);
            self.pin(1, count, u64::MAX);
        }
    }

    fn explicit(&mut self, insn: &Instruction, next: u64) {
        let size = insn.memory_size();
        let (b, i) = (insn.memory_base(), insn.memory_index());
        let base = self.base(segment_number(insn.memory_segment()));
        if insn.is_ip_rel_memory_operand() {
            let at = next.wrapping_add(insn.memory_displacement64()).wrapping_sub(insn.len() as u64);
            return self.content(insn, at);
        }
        let to = target(size.size(), self.rng);
        let want = to.wrapping_sub(base).wrapping_sub(insn.memory_displacement64());
        let scale = u64::from(insn.memory_index_scale());
        if i.is_vector_register() {
            let Some(n) = Self::number(b) else { return };
            self.pin(n, want, Self::address_mask(b));
            let wide = matches!(insn.mnemonic(), M::Vpgatherqd | M::Vpgatherqq | M::Vgatherqps | M::Vgatherqpd);
            let v: [u64; 4] = std::array::from_fn(|_| if wide { self.index() } else { self.index() & 0xffff_ffff | self.index() << 32 });
            self.regs.vec[i.number()] = v;
            return self.content(insn, to);
        }
        match (Self::number(b), Self::number(i)) {
            (None, None) => return self.content(insn, insn.memory_displacement64().wrapping_add(base)),
            _ if self.rng.chance(6) => return,
            (Some(b_n), None) => self.pin(b_n, want, Self::address_mask(b)),
            (None, Some(i_n)) => self.pin(i_n, want / scale.max(1), Self::address_mask(i)),
            (Some(b_n), Some(i_n)) if b_n == i_n => self.pin(b_n, want / (scale + 1), Self::address_mask(b)),
            (Some(b_n), Some(i_n)) => {
                if self.rng.chance(60) {
                    let small = self.rng.below(16);
                    self.pin(i_n, small, Self::address_mask(i));
                }
                let index = self.regs.gpr[i_n] & Self::address_mask(i);
                self.pin(b_n, want.wrapping_sub(index.wrapping_mul(scale)), Self::address_mask(b));
            }
        }
        self.content(insn, to);
    }

    /// A small index of a gather.
    fn index(&mut self) -> u64 {
        if self.rng.chance(90) { self.rng.below(12).wrapping_sub(4) } else { self.rng.integer() }
    }

    fn content(&mut self, insn: &Instruction, at: u64) {
        let size = insn.memory_size();
        let bytes = size.size().clamp(8, 512) as u64;
        if matches!(insn.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc) && insn.op1_kind() == OpKind::Register {
            self.window(at.wrapping_sub(32), 72, MemorySize::Unknown);
            return;
        }
        if matches!(insn.mnemonic(), M::Ldmxcsr | M::Vldmxcsr) {
            let any = self.rng.next() as u32;
            let value = if self.rng.chance(80) { any & 0xffff } else { any | 1 << 31 };
            self.memory.push((at, value.to_le_bytes().to_vec()));
            return;
        }
        if insn.flow_control() != FlowControl::Next && self.rng.chance(80) {
            let mut pointer = self.end.to_le_bytes()[..size.size().clamp(2, 8)].to_vec();
            if matches!(size, MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64) {
                pointer = self.end.to_le_bytes()[..size.size() - 2].to_vec();
                pointer.extend(selector(self.mode, self.rng).to_le_bytes());
            }
            self.memory.push((at, pointer));
            return;
        }
        if matches!(size, MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64) {
            self.window(at, 8, MemorySize::Unknown);
            let selector = selector(self.mode, self.rng);
            self.memory.push((at.wrapping_add(size.size() as u64).wrapping_sub(2), selector.to_le_bytes().to_vec()));
            return;
        }
        if matches!(insn.mnemonic(), M::Fxrstor | M::Fxrstor64) {
            self.window(at, 512, size);
            let mxcsr = self.rng.next() as u32 & 0xffff;
            return self.memory.push((at.wrapping_add(24), mxcsr.to_le_bytes().to_vec()));
        }
        self.window(at, bytes, size);
        if insn.mnemonic() == M::Cmpxchg8b || insn.mnemonic() == M::Cmpxchg16b || insn.mnemonic() == M::Cmpxchg {
            self.equal(insn);
        }
        let segment_load = insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register();
        if segment_load || matches!(insn.mnemonic(), M::Lar | M::Lsl | M::Verr | M::Verw) {
            let selector = selector(self.mode, self.rng);
            self.memory.push((at, selector.to_le_bytes().to_vec()));
        }
    }

    /// Half of the compare-and-exchanges find what they look for.
    fn equal(&mut self, insn: &Instruction) {
        let Some((_, bytes)) = self.memory.last() else { return };
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let (low, high) = match insn.mnemonic() {
            M::Cmpxchg16b => (word(0), word(8)),
            M::Cmpxchg8b => (word(0) & 0xffff_ffff, word(0) >> 32),
            _ => (word(0), self.regs.gpr[2]),
        };
        if self.rng.chance(50) {
            self.pin(0, low, u64::MAX);
            self.pin(2, high, u64::MAX);
        }
    }

    /// Instructions with operands that are not in the encoding, or that want values of a kind.
    fn special(&mut self, insn: &Instruction) {
        match insn.mnemonic() {
            M::Xlatb => {
                let to = target(1, self.rng).wrapping_sub(self.base(segment_number(insn.memory_segment())));
                self.pin(3, to, u64::MAX);
            }
            M::Leave | M::Enter => {
                let frame = WINDOW + 0x6840 + 8 * self.rng.below(8);
                self.pin(5, frame.wrapping_sub(self.base(2)), u64::MAX);
            }
            M::Bt | M::Bts | M::Btr | M::Btc if insn.op1_kind() == OpKind::Register && self.rng.chance(85) => {
                if let Some(n) = Self::number(insn.op1_register()) {
                    let bit = self.rng.below(512).wrapping_sub(256);
                    self.pin(n, bit, u64::MAX);
                }
            }
            M::Ret | M::Retf | M::Iret | M::Iretd | M::Iretq => self.frame(insn),
            M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd if self.rng.chance(60) => {
                let count = self.rng.below(70);
                self.pin(1, count, 0xff);
            }
            M::Div | M::Idiv if self.rng.chance(70) => {
                // Quotients that fit.
                let high = if self.rng.chance(50) { 0 } else { self.rng.below(3).wrapping_sub(1) };
                self.pin(2, high, u64::MAX);
            }
            _ => {}
        }
        let register = insn.op0_kind() == OpKind::Register;
        let indirect = register && matches!(insn.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall);
        if indirect
            && self.rng.chance(85)
            && let Some(n) = Self::number(insn.op0_register())
        {
            self.pin(n, self.end, u64::MAX);
        }
        let segment_load = register && insn.op0_register().is_segment_register() && insn.op_count() == 2;
        if (segment_load || matches!(insn.mnemonic(), M::Lar | M::Lsl | M::Verr | M::Verw)) && self.rng.chance(95) {
            let source = if insn.op_count() == 2 { insn.op1_register() } else { insn.op0_register() };
            if let Some(n) = Self::number(source) {
                let selector = selector(self.mode, self.rng);
                self.pin(n, selector.into(), 0xffff);
            }
        }
    }

    /// What a return finds on the stack.
    fn frame(&mut self, insn: &Instruction) {
        let size = match insn.mnemonic() {
            M::Ret => match self.mode {
                Mode::M64 => 8,
                mode => {
                    if (mode == Mode::M16) == (insn.code().op_code().operand_size() != 32) {
                        2
                    } else {
                        4
                    }
                }
            },
            M::Iretq => 8,
            M::Iretd => 4,
            M::Iret => 2,
            _ => match insn.code().op_code().operand_size() {
                16 => 2,
                64 => 8,
                _ => 4,
            },
        };
        if self.rng.chance(10) {
            return;
        }
        let flags = self.rng.next() & if self.rng.chance(80) { 0x24_4cd5 } else { u64::MAX };
        let sp = self.regs.gpr[4];
        let stack = WINDOW + 0x6800 + 8 * self.rng.below(16);
        let words = match insn.mnemonic() {
            M::Ret => vec![self.end],
            M::Retf => vec![self.end, selector(self.mode, self.rng).into(), stack, selector(self.mode, self.rng).into()],
            _ => vec![self.end, selector(self.mode, self.rng).into(), flags, stack, selector(self.mode, self.rng).into()],
        };
        let bytes = words.iter().flat_map(|w| w.to_le_bytes()[..size].to_vec()).collect();
        let offset = if self.mode == Mode::M16 { sp & 0xffff } else { sp };
        self.memory.push((offset.wrapping_add(self.base(2)), bytes));
    }
}

fn segment_number(segment: Register) -> usize {
    match segment {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::FS => 4,
        Register::GS => 5,
        _ => 3,
    }
}
