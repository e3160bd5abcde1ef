//! String instructions and their REP forms. Plain RAM is moved a page at a time; anything else element by element.
//!
//! An iteration commits its registers when it is done, so a fault or interrupt between iterations finds the
//! architectural state of the instruction not yet finished: the instruction pointer is put back on it.

use super::Function;
use crate::Cpu;
use crate::fault::Fault;
use crate::state::{attention, rflags};
use egret_isa::emit::Emit;
use egret_isa::flags::ZF;
use egret_isa::insn::{Insn, Rep, Seg};
use egret_isa::ops::{Bin, FlagsOp, Width};
use iced_x86::Mnemonic as M;

const AX: u8 = 0;
const CX: u8 = 1;
const DX: u8 = 2;
const SI: u8 = 6;
const DI: u8 = 7;

/// Most iterations before interrupts are looked at again.
const SLICE: u64 = 16384;

pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq if i.ops[0] == egret_isa::Operand::None => movs,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => stos,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => lods,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => scas,
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq if i.ops[0] == egret_isa::Operand::None => cmps,
        M::Insb | M::Insw | M::Insd => ins,
        M::Outsb | M::Outsw | M::Outsd => outs,
        _ => return None,
    })
}

/// What a string instruction works on.
struct Run {
    w: Width,
    aw: Width,
    /// Source segment: DS unless overridden.
    seg: Seg,
    rep: bool,
}

impl Run {
    fn new(i: &Insn) -> Run {
        Run { w: i.width, aw: i.addrsize, seg: i.mem.seg, rep: i.rep != Rep::None }
    }

    fn remaining(&self, cpu: &mut Cpu) -> u64 {
        if self.rep { cpu.gpr_w(CX, self.aw) } else { 1 }
    }

    /// Moves an index register by `n` elements in the direction of DF.
    fn advance(&self, cpu: &mut Cpu, r: u8, n: u64) {
        let bytes = n.wrapping_mul(self.w.bytes().into());
        let at = cpu.gpr_w(r, self.aw);
        let to = if cpu.flag(rflags::DF) { at.wrapping_sub(bytes) } else { at.wrapping_add(bytes) };
        cpu.set_gpr(r, self.aw, to & self.aw.mask());
    }

    /// Counts `n` iterations off CX.
    fn count(&self, cpu: &mut Cpu, n: u64) {
        if self.rep {
            let left = cpu.gpr_w(CX, self.aw).wrapping_sub(n);
            cpu.set_gpr(CX, self.aw, left & self.aw.mask());
        }
    }
}

/// Runs `body` (one iteration or a batch: it says how many it did, and whether to stop) until the count is used up.
fn repeat(cpu: &mut Cpu, i: &Insn, mut body: impl FnMut(&mut Cpu, &Run, u64) -> Result<(u64, bool), Fault>) -> Result<(), Fault> {
    let run = Run::new(i);
    let mut budget = if cpu.state.attention & attention::STEP != 0 { 1 } else { SLICE };
    loop {
        let left = run.remaining(cpu);
        if left == 0 {
            return Ok(());
        }
        if budget == 0 {
            cpu.state.rip = cpu.state.rip.wrapping_sub(i.len.into()) & cpu.ip_mask;
            return Ok(());
        }
        let (done, stop) = body(cpu, &run, left.min(budget)).map_err(|fault| cpu.string_fault(i, fault))?;
        run.count(cpu, done);
        if stop || !run.rep {
            return Ok(());
        }
        // Code that it writes over is dropped before the next instruction. This one goes on: how often it comes to a stop
        // must not depend on what is cached.
        budget = budget.saturating_sub(done);
        if budget == 0 && run.remaining(cpu) == 0 {
            return Ok(());
        }
    }
}

/// MOVS: SDM Vol. 2, "MOVS/MOVSB/MOVSW/MOVSD/MOVSQ—Move Data From String to String".
fn movs(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    repeat(cpu, i, |cpu, run, most| {
        let (from, to) = (cpu.gpr_w(SI, run.aw), cpu.gpr_w(DI, run.aw));
        let size = run.w.bytes();
        let mut done = 0;
        if most > 1 && !cpu.flag(rflags::DF) {
            done = cpu.move_elements((run.seg, from), (Seg::Es, to), size, most, run.aw.mask())?;
        }
        if done == 0 {
            let v = cpu.read(run.seg, from, size)?;
            cpu.write(Seg::Es, to, size, v)?;
            done = 1;
        }
        run.advance(cpu, SI, done);
        run.advance(cpu, DI, done);
        Ok((done, false))
    })
}

/// STOS: SDM Vol. 2, "STOS/STOSB/STOSW/STOSD/STOSQ—Store String".
fn stos(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    repeat(cpu, i, |cpu, run, most| {
        let to = cpu.gpr_w(DI, run.aw);
        let v = cpu.gpr_w(AX, run.w);
        let size = run.w.bytes();
        let mut done = 0;
        if most > 1 && !cpu.flag(rflags::DF) {
            done = cpu.fill_elements((Seg::Es, to), size, v, most, run.aw.mask())?;
        }
        if done == 0 {
            cpu.write(Seg::Es, to, size, v)?;
            done = 1;
        }
        run.advance(cpu, DI, done);
        Ok((done, false))
    })
}

/// LODS: SDM Vol. 2, "LODS/LODSB/LODSW/LODSD/LODSQ—Load String".
fn lods(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    repeat(cpu, i, |cpu, run, _| {
        let from = cpu.gpr_w(SI, run.aw);
        let v = cpu.read(run.seg, from, run.w.bytes())?;
        cpu.set_gpr(AX, run.w, v);
        run.advance(cpu, SI, 1);
        Ok((1, false))
    })
}

/// Sets the flags of a comparison; whether REPE/REPNE ends with it.
fn compare(cpu: &mut Cpu, i: &Insn, a: u64, b: u64) -> bool {
    let r = Bin::Sub.eval(i.width, a, b);
    cpu.flags(FlagsOp::Sub, i.width, a, b, r);
    match i.rep {
        Rep::None => true,
        Rep::Rep => a != b,
        Rep::Repne => a == b,
    }
}

/// SCAS: SDM Vol. 2, "SCAS/SCASB/SCASW/SCASD—Scan String".
fn scas(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    repeat(cpu, i, |cpu, run, _| {
        let at = cpu.gpr_w(DI, run.aw);
        let b = cpu.read(Seg::Es, at, run.w.bytes())?;
        let a = cpu.gpr_w(AX, run.w);
        let stop = compare(cpu, i, a, b);
        run.advance(cpu, DI, 1);
        Ok((1, stop))
    })
}

/// CMPS: SDM Vol. 2, "CMPS/CMPSB/CMPSW/CMPSD/CMPSQ—Compare String Operands".
fn cmps(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    repeat(cpu, i, |cpu, run, _| {
        let (first, second) = (cpu.gpr_w(SI, run.aw), cpu.gpr_w(DI, run.aw));
        let size = run.w.bytes();
        // Where both fault, Zen 4 reports the second operand; with REPE and bytes the first.
        if i.rep == Rep::Rep && size == 1 {
            cpu.read(run.seg, first, size)?;
        }
        let b = cpu.read(Seg::Es, second, size)?;
        let a = cpu.read(run.seg, first, size)?;
        let stop = compare(cpu, i, a, b);
        run.advance(cpu, SI, 1);
        run.advance(cpu, DI, 1);
        Ok((1, stop))
    })
}

/// INS: SDM Vol. 2, "INS/INSB/INSW/INSD—Input from Port to String". The destination is checked before the port is read.
fn ins(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let port = cpu.gpr_w(DX, Width::W) as u16;
    cpu.check_io(port, i.width.bytes())?;
    repeat(cpu, i, |cpu, run, _| {
        let at = cpu.gpr_w(DI, run.aw);
        let size = run.w.bytes();
        cpu.probe_write(Seg::Es, at, size)?;
        let v = cpu.system.port_read(port, size);
        cpu.after_io();
        cpu.write(Seg::Es, at, size, v.into())?;
        run.advance(cpu, DI, 1);
        Ok((1, false))
    })
}

/// OUTS: SDM Vol. 2, "OUTS/OUTSB/OUTSW/OUTSD—Output String to Port".
fn outs(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let port = cpu.gpr_w(DX, Width::W) as u16;
    cpu.check_io(port, i.width.bytes())?;
    repeat(cpu, i, |cpu, run, _| {
        let at = cpu.gpr_w(SI, run.aw);
        let size = run.w.bytes();
        let v = cpu.read(run.seg, at, size)?;
        cpu.system.port_write(port, size, v as u32);
        cpu.after_io();
        run.advance(cpu, SI, 1);
        Ok((1, false))
    })
}

impl Cpu {
    /// The low `w` bits of a general register.
    #[inline]
    pub(crate) fn gpr_w(&mut self, r: u8, w: Width) -> u64 {
        self.gpr_value(r) & w.mask()
    }

    #[inline]
    fn gpr_value(&self, r: u8) -> u64 {
        self.state.gpr[usize::from(r & 15)]
    }

    /// Replaces ZF alone.
    pub(crate) fn set_zero_flag(&mut self, on: bool) {
        self.set_flags_word(ZF, if on { ZF.into() } else { 0 });
    }
}
