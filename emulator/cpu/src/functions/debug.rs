//! Debug registers, breakpoints and single-stepping (SDM Vol. 3, "Debug, Branch Profile, TSC...").

use super::Function;
use crate::Cpu;
use crate::exceptions::Event;
use crate::fault::{Fault, vector};
use crate::state::{cr4, rflags};
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Operand};
use iced_x86::Mnemonic as M;

/// Bits of DR6.
pub(crate) mod dr6 {
    pub const BD: u64 = 1 << 13;
    pub const BS: u64 = 1 << 14;
    pub const BT: u64 = 1 << 15;
    pub const WRITABLE: u64 = BD | BS | BT | 0xf;
    pub const FIXED: u64 = 0xffff_0ff0;
}

/// Bits of DR7.
pub(crate) mod dr7 {
    /// L0-L3 and LE.
    pub const LOCAL: u64 = 0x155;
    pub const GD: u64 = 1 << 13;
    pub const WRITABLE: u64 = 0xffff_23ff;
    pub const FIXED: u64 = 1 << 10;
    /// R/W field: break on I/O (with CR4.DE).
    pub const IO: u64 = 2;
}

/// Bits of IA32_DEBUGCTL.
pub(crate) mod debugctl {
    /// TF traps after taken branches only.
    pub const BTF: u64 = 1 << 1;
}

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Mov if matches!(i.ops[0], Operand::Dr(_)) => mov_to_dr,
        M::Mov if matches!(i.ops[1], Operand::Dr(_)) => mov_from_dr,
        M::Int1 => int1,
        _ => return None,
    })
}

/// DR4 and DR5 are DR6 and DR7, unless CR4.DE makes them invalid. The checks of every access, in order.
fn register(cpu: &mut Cpu, n: u8) -> Result<usize, Fault> {
    let n = match n {
        4 | 5 if cpu.cr4 & cr4::DE != 0 => return Err(Fault::UD),
        4 | 5 => n + 2,
        8.. => return Err(Fault::UD),
        _ => n,
    };
    cpu.privileged()?;
    if cpu.dr[7] & dr7::GD != 0 {
        cpu.dr[6] |= dr6::BD;
        return Err(Fault::new(vector::DB));
    }
    Ok(n.into())
}

/// MOV to a debug register: SDM Vol. 2, "MOV—Move to/from Debug Registers".
fn mov_to_dr(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (Operand::Dr(n), Operand::Reg(r, w)) = (i.ops[0], i.ops[1]) else { return Err(Fault::UD) };
    let n = register(cpu, n)?;
    let value = cpu.reg(r) & w.mask();
    if n >= 6 && value >> 32 != 0 {
        return Err(Fault::GP0);
    }
    cpu.dr[n] = match n {
        6 => value & dr6::WRITABLE | dr6::FIXED,
        7 => value & dr7::WRITABLE | dr7::FIXED,
        _ => value,
    };
    cpu.update_step_attention();
    if cpu.data_breakpoints() {
        // Accesses must leave the TLB's fast path to be seen.
        cpu.flush_tlb();
    }
    Ok(())
}

fn mov_from_dr(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (Operand::Reg(r, w), Operand::Dr(n)) = (i.ops[0], i.ops[1]) else { return Err(Fault::UD) };
    let n = register(cpu, n)?;
    let value = cpu.dr[n];
    cpu.set_gpr(r, w, value);
    Ok(())
}

/// INT1: SDM Vol. 2, "INT n/INTO/INT3/INT1—Call to Interrupt Procedure". Neither DPL nor IOPL is checked, DR6 stays.
fn int1(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    cpu.take(Event::trap(vector::DB));
    Ok(())
}

impl Cpu {
    /// The armed breakpoints, as DR6 bits, for which `hit` holds; it gets the number and the R/W and LEN fields.
    fn breakpoints(&self, hit: impl Fn(usize, u64, u64) -> bool) -> u64 {
        let field = |n: usize| self.dr[7] >> (16 + 4 * n) & 15;
        (0..4).filter(|&n| self.dr[7] >> (2 * n) & 3 != 0 && hit(n, field(n) & 3, field(n) >> 2)).fold(0, |bits, n| bits | 1 << n)
    }

    /// Starts an instruction that is run by itself. Raises #DB for an armed instruction breakpoint at the instruction
    /// pointer; true when it did.
    pub fn instruction_breakpoint(&mut self) -> bool {
        let resume = self.flag(rflags::RF);
        // Every instruction that completes clears RF, and one that faults sets it in what it pushes.
        self.state.system_flags &= !rflags::RF;
        let held = std::mem::take(&mut self.inhibit.stack_switch);
        self.inhibit.no_trap = false;
        if !held {
            self.pending_debug = false;
        }
        if resume || held || self.dr[7] & 0xff == 0 {
            return false;
        }
        let ip = self.linear_ip();
        let hits = self.breakpoints(|n, kind, _| kind == 0 && self.dr[n] == ip);
        if hits != 0 {
            self.dr[6] |= hits;
            self.raise(Fault::new(vector::DB));
        }
        hits != 0
    }

    /// After an instruction that was single-stepped: raises #DB when TF was set before it, with IA32_DEBUGCTL.BTF only when it
    /// took a branch, or a data breakpoint was hit.
    pub fn after_step(&mut self, trap: bool, branched: bool) {
        if self.inhibit.stack_switch {
            return;
        }
        let trap = trap && (branched || self.msr.debugctl & debugctl::BTF == 0);
        if trap && !self.inhibit.no_trap {
            self.dr[6] |= dr6::BS;
            self.pending_debug = true;
        }
        if std::mem::take(&mut self.pending_debug) {
            self.take(Event::trap(vector::DB));
        }
    }

    /// Notes a breakpoint on an I/O port.
    pub(crate) fn watch_io(&mut self, port: u16, size: u8) {
        if self.dr[7] & 0xff == 0 || self.cr4 & cr4::DE == 0 {
            return;
        }
        let (first, last) = (u64::from(port), u64::from(port) + u64::from(size) - 1);
        let hits = self.breakpoints(|n, kind, len| {
            let len = [1, 2, 8, 4][len as usize & 3];
            let at = self.dr[n] & !(len - 1);
            kind == dr7::IO && first < at.saturating_add(len) && at <= last
        });
        if hits != 0 {
            self.dr[6] |= hits;
            self.pending_debug = true;
        }
    }
}
