//! IN and OUT, and the permission to use a port.

use super::Function;
use crate::Cpu;
use crate::fault::Fault;
use egret_isa::emit::Emit;
use egret_isa::insn::{Insn, Operand};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::In => input,
        M::Out => output,
        _ => return None,
    })
}

fn port(cpu: &Cpu, i: &Insn, n: usize) -> u16 {
    match i.ops[n] {
        Operand::Reg(r, _) => cpu.reg(r) as u16,
        _ => i.imm as u16 & 0xff,
    }
}

/// IN: SDM Vol. 2, "IN—Input From Port".
fn input(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Operand::Reg(r, w) = i.ops[0] else { return Err(Fault::UD) };
    let port = port(cpu, i, 1);
    let value = cpu.port_in(port, w)?;
    cpu.set_gpr(r, w, value.into());
    Ok(())
}

/// OUT: SDM Vol. 2, "OUT—Output to Port".
fn output(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Operand::Reg(r, w) = i.ops[1] else { return Err(Fault::UD) };
    let port = port(cpu, i, 0);
    let value = cpu.reg(r) & w.mask();
    cpu.port_out(port, w, value as u32)
}

impl Cpu {
    /// Reads a port after checking that it may be used.
    pub(crate) fn port_in(&mut self, port: u16, w: Width) -> Result<u32, Fault> {
        self.check_io(port, w.bytes())?;
        let value = self.system.port_read(port, w.bytes());
        self.after_io();
        Ok(value)
    }

    /// Writes a port after checking that it may be used.
    pub(crate) fn port_out(&mut self, port: u16, w: Width, value: u32) -> Result<(), Fault> {
        self.check_io(port, w.bytes())?;
        self.system.port_write(port, w.bytes(), value);
        self.after_io();
        Ok(())
    }

    /// Whether the current code may use `size` ports from `port` on: by IOPL, else by the I/O permission bit map
    /// (SDM Vol. 1, "Protected-Mode I/O"). Notes I/O breakpoints.
    pub fn check_io(&mut self, port: u16, size: u8) -> Result<(), Fault> {
        if !self.real_mode() && (self.v86() || self.cpl > self.iopl()) {
            self.check_io_map(port, size)?;
        }
        self.watch_io(port, size);
        Ok(())
    }

    fn check_io_map(&mut self, port: u16, size: u8) -> Result<(), Fault> {
        const MAP_BASE: u32 = 0x66;
        let wide = self.tr.present() && self.tr.attr & 8 != 0;
        if !wide || self.tr.limit < MAP_BASE + 1 {
            return Err(Fault::GP0);
        }
        let map = self.read_system(self.tr.base.wrapping_add(MAP_BASE.into()), 2)?;
        let at = map + u64::from(port >> 3);
        // Two bytes are always read, so the map ends with a byte of ones.
        if at + 1 > self.tr.limit.into() {
            return Err(Fault::GP0);
        }
        let bits = self.read_system(self.tr.base.wrapping_add(at), 2)?;
        let wanted = (1u64 << size) - 1;
        if bits >> (port & 7) & wanted == 0 { Ok(()) } else { Err(Fault::GP0) }
    }
}
