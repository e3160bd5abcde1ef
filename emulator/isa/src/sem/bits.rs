//! Bit tests and scans.

use super::operand::{read, write_reg};
use crate::emit::Emit;
use crate::flags::{ARITH, CF, ZF};
use crate::insn::{Insn, Operand};
use crate::ops::{Bin, Rel, Un, Width};

type R<E> = Result<(), <E as Emit>::Fault>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Set,
    Reset,
    Complement,
}

/// BT: SDM Vol. 2, "BT—Bit Test".
pub(super) fn bt<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    bit_test(e, i, Change::None)
}

/// BTS: SDM Vol. 2, "BTS—Bit Test and Set".
pub(super) fn bts<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    bit_test(e, i, Change::Set)
}

/// BTR: SDM Vol. 2, "BTR—Bit Test and Reset".
pub(super) fn btr<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    bit_test(e, i, Change::Reset)
}

/// BTC: SDM Vol. 2, "BTC—Bit Test and Complement".
pub(super) fn btc<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    bit_test(e, i, Change::Complement)
}

fn bit_test<E: Emit>(e: &mut E, i: &Insn, change: Change) -> R<E> {
    let w = i.width;
    let index = read(e, i, 1)?;
    let mask = e.imm(u64::from(w.bits()) - 1);
    let n = e.bin(Bin::And, w, index, mask);
    if let Operand::Mem(_) = i.ops[0] {
        let at = bit_string_offset(e, i, index);
        if change == Change::None {
            let v = e.load(i.mem.seg, at, w)?;
            test_bit(e, w, v, n);
            return Ok(());
        }
        return e.rmw(i.mem.seg, at, w, i.lock, |e, v| {
            test_bit(e, w, v, n);
            changed(e, w, v, n, change)
        });
    }
    let v = read(e, i, 0)?;
    test_bit(e, w, v, n);
    if change != Change::None {
        let r = changed(e, w, v, n, change);
        write_reg(e, i.ops[0], r);
    }
    Ok(())
}

/// A register index reaches beyond the memory operand: it counts bits from there, signed.
fn bit_string_offset<E: Emit>(e: &mut E, i: &Insn, index: E::V) -> E::V {
    let at = e.offset(i, &i.mem);
    if i.ops[1] == Operand::Imm {
        return at;
    }
    let w = i.width;
    let log2 = e.imm(u64::from(w.bits().trailing_zeros()));
    let bytes_log2 = e.imm(u64::from(w.bytes().trailing_zeros()));
    let units = e.bin(Bin::Sar, w, index, log2);
    let units = e.sext(w, Width::Q, units);
    let bytes = e.bin(Bin::Shl, Width::Q, units, bytes_log2);
    let aw = i.mem.width;
    let bytes = e.trunc(aw, bytes);
    e.bin(Bin::Add, aw, at, bytes)
}

fn test_bit<E: Emit>(e: &mut E, w: Width, v: E::V, n: E::V) {
    let one = e.imm(1);
    let v = e.bin(Bin::Shr, w, v, n);
    let bit = e.bin(Bin::And, w, v, one);
    e.set_flags_word(CF, bit);
}

fn changed<E: Emit>(e: &mut E, w: Width, v: E::V, n: E::V, change: Change) -> E::V {
    let one = e.imm(1);
    let bit = e.bin(Bin::Shl, w, one, n);
    match change {
        Change::Set => e.bin(Bin::Or, w, v, bit),
        Change::Complement => e.bin(Bin::Xor, w, v, bit),
        Change::Reset | Change::None => {
            let keep = e.un(Un::Not, w, bit);
            e.bin(Bin::And, w, v, keep)
        }
    }
}

/// BSF: SDM Vol. 2, "BSF—Bit Scan Forward".
pub(super) fn bsf<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let v = read(e, i, 1)?;
    let n = e.un(Un::Ctz, i.width, v);
    scan(e, i, v, n)
}

/// BSR: SDM Vol. 2, "BSR—Bit Scan Reverse".
pub(super) fn bsr<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let v = read(e, i, 1)?;
    let zeros = e.un(Un::Clz, w, v);
    let top = e.imm(u64::from(w.bits()) - 1);
    let n = e.bin(Bin::Sub, w, top, zeros);
    scan(e, i, v, n)
}

/// A zero source sets ZF and leaves the destination (the manual: undefined; every chip since the 386 leaves it).
fn scan<E: Emit>(e: &mut E, i: &Insn, v: E::V, n: E::V) -> R<E> {
    let w = i.width;
    let zero = e.imm(0);
    let is_zero = e.rel(Rel::Eq, w, v, zero);
    let six = e.imm(6);
    let zf = e.bin(Bin::Shl, Width::D, is_zero, six);
    e.set_flags_word(ZF, zf);
    e.when(v, |e| {
        write_reg(e, i.ops[0], n);
        Ok(())
    })
}

/// POPCNT: SDM Vol. 2, "POPCNT—Return the Count of Number of Bits Set to 1".
pub(super) fn popcnt<E: Emit>(e: &mut E, i: &Insn) -> R<E> {
    let w = i.width;
    let v = read(e, i, 1)?;
    let n = e.un(Un::Popcnt, w, v);
    let zero = e.imm(0);
    let is_zero = e.rel(Rel::Eq, w, v, zero);
    let six = e.imm(6);
    let zf = e.bin(Bin::Shl, Width::D, is_zero, six);
    e.set_flags_word(ARITH, zf);
    write_reg(e, i.ops[0], n);
    Ok(())
}
