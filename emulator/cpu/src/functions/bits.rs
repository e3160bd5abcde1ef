//! Integer instructions of later years that are too rare for ops: parallel bits, CRC32, random numbers, cache lines.

use super::Function;
use super::misc::read;
use crate::Cpu;
use crate::fault::Fault;
use egret_isa::emit::Emit;
use egret_isa::flags::{ARITH, CF};
use egret_isa::insn::{Insn, Mode, Operand};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Pdep => pdep,
        M::Pext => pext,
        M::Crc32 => crc32,
        M::Rdrand | M::Rdseed => random,
        M::Clflush | M::Clflushopt | M::Clwb => cache_line,
        M::Clzero => clzero,
        M::Serialize => serialize,
        _ => return None,
    })
}

fn set(cpu: &mut Cpu, i: &Insn, v: u64) {
    if let Operand::Reg(r, w) = i.ops[0] {
        cpu.set_gpr(r, w, v & w.mask());
    }
}

/// PDEP: SDM Vol. 2, "PDEP—Parallel Bits Deposit".
fn pdep(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (mut mask, mut bits) = (read(cpu, i, 2)?, read(cpu, i, 1)?);
    let mut r = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if bits & 1 != 0 {
            r |= lowest;
        }
        bits >>= 1;
        mask ^= lowest;
    }
    set(cpu, i, r);
    Ok(())
}

/// PEXT: SDM Vol. 2, "PEXT—Parallel Bits Extract".
fn pext(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let (mut mask, bits) = (read(cpu, i, 2)?, read(cpu, i, 1)?);
    let (mut r, mut at) = (0, 0u32);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if bits & lowest != 0 {
            r |= 1 << (at & 63);
        }
        at += 1;
        mask ^= lowest;
    }
    set(cpu, i, r);
    Ok(())
}

/// CRC-32C of one byte, by value: the polynomial 11EDC6F41h, bits reflected.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// CRC32: SDM Vol. 2, "CRC32—Accumulate CRC32 Value".
fn crc32(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let bytes = match i.ops[1] {
        Operand::Reg(_, w) => w.bytes(),
        Operand::Mem(bytes) => bytes as u8,
        _ => 1,
    };
    let data = read(cpu, i, 1)?.to_le_bytes();
    let start = read(cpu, i, 0)? as u32;
    let crc = data.iter().take(bytes.into()).fold(start, |crc, byte| crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)]);
    set(cpu, i, crc.into());
    Ok(())
}

/// RDRAND, RDSEED: SDM Vol. 2, "RDRAND—Read Random Number", "RDSEED—Read Random SEED". CF tells that there was one.
fn random(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let value = cpu.system.random();
    set(cpu, i, value.unwrap_or(0));
    cpu.set_flags_word(ARITH, if value.is_some() { CF.into() } else { 0 });
    Ok(())
}

/// CLFLUSH, CLFLUSHOPT, CLWB: SDM Vol. 2. There is no cache to flush; it faults like a read of the byte.
fn cache_line(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let at = cpu.offset(i, &i.mem);
    let linear = cpu.linear(i.mem.seg, at, 1, false)?;
    cpu.translate_data(i.mem.seg, linear, false)?;
    Ok(())
}

/// CLZERO: AMD APM Vol. 3, "CLZERO". The line of 64 bytes that holds rAX becomes zero.
fn clzero(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let w = match i.mode() {
        Mode::M64 => i.addrsize,
        _ => i.addrsize.min(Width::D),
    };
    let line = cpu.gpr_w(0, w) & !63;
    cpu.probe_write(i.mem.seg, line, 8)?;
    for n in 0..8 {
        cpu.write(i.mem.seg, line.wrapping_add(8 * n) & w.mask(), 8, 0)?;
    }
    Ok(())
}

/// SERIALIZE: SDM Vol. 2, "SERIALIZE—Serialize Instruction Execution". Everything is in order; it ends its block.
fn serialize(_cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    Ok(())
}
