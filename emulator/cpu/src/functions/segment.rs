//! Segment and descriptor-table registers, and the instructions that look at descriptors.

use super::Function;
use crate::Cpu;
use crate::cpu::TableReg;
use crate::fault::Fault;
use crate::segments::{Descriptor, is_null, kind, rpl};
use crate::state::{SegReg, attention, cr4};
use egret_isa::Generation;
use egret_isa::emit::Emit;
use egret_isa::flags::ZF;
use egret_isa::insn::{Insn, Operand, Seg};
use egret_isa::ops::Width;
use iced_x86::Mnemonic as M;

/// This file's mnemonics.
pub(super) fn table(i: &Insn) -> Option<Function> {
    Some(match i.mnemonic {
        M::Mov if matches!(i.ops[0], Operand::Seg(_)) => mov_seg,
        M::Pop if matches!(i.ops[0], Operand::Seg(_)) => pop_seg,
        M::Lds | M::Les | M::Lss | M::Lfs | M::Lgs => load_far,
        M::Lgdt => lgdt,
        M::Lidt => lidt,
        M::Sgdt => sgdt,
        M::Sidt => sidt,
        M::Lldt => lldt,
        M::Ltr => ltr,
        M::Sldt => sldt,
        M::Str => str,
        M::Lar => lar,
        M::Lsl => lsl,
        M::Verr => verr,
        M::Verw => verw,
        M::Arpl => arpl,
        M::Swapgs => swapgs,
        M::Rdfsbase => rdfsbase,
        M::Rdgsbase => rdgsbase,
        M::Wrfsbase => wrfsbase,
        M::Wrgsbase => wrgsbase,
        _ => return None,
    })
}

/// A 16-bit register or memory operand.
pub(super) fn read_16(cpu: &mut Cpu, i: &Insn, n: usize) -> Result<u16, Fault> {
    match i.ops[n] {
        Operand::Reg(r, _) => Ok(cpu.reg(r) as u16),
        Operand::Mem(_) => {
            let at = cpu.offset(i, &i.mem);
            Ok(cpu.read(i.mem.seg, at, 2)? as u16)
        }
        _ => Err(Fault::UD),
    }
}

/// Stores 16 bits in memory, or the value at the operand's width in a register.
pub(super) fn write_16(cpu: &mut Cpu, i: &Insn, value: u64) -> Result<(), Fault> {
    match i.ops[0] {
        Operand::Reg(r, w) => {
            cpu.set_gpr(r, w, value);
            Ok(())
        }
        Operand::Mem(_) => {
            let at = cpu.offset(i, &i.mem);
            cpu.write(i.mem.seg, at, 2, value)
        }
        _ => Err(Fault::UD),
    }
}

/// MOV to a segment register: SDM Vol. 2, "MOV—Move".
fn mov_seg(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Operand::Seg(seg) = i.ops[0] else { return Err(Fault::UD) };
    if seg == Seg::Cs && cpu.generation() != Generation::I8086 {
        return Err(Fault::UD);
    }
    let selector = read_16(cpu, i, 1)?;
    cpu.load_segment(seg, selector)?;
    after_stack_load(cpu, seg);
    Ok(())
}

/// POP of a segment register: SDM Vol. 2, "POP—Pop a Value From the Stack".
fn pop_seg(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let Operand::Seg(seg) = i.ops[0] else { return Err(Fault::UD) };
    // The stack pointer moves by the width of the stack that was popped from, also for POP SS.
    let selector = cpu.pop(i.opsize.bytes())? as u16;
    cpu.load_segment(seg, selector)?;
    after_stack_load(cpu, seg);
    Ok(())
}

/// Interrupts and debug exceptions wait until the instruction after a load of SS, which sets the stack pointer, is done.
fn after_stack_load(cpu: &mut Cpu, seg: Seg) {
    if seg == Seg::Ss {
        cpu.inhibit.stack_switch = true;
        cpu.state.attention |= attention::SHADOW;
    }
}

/// LDS, LES, LFS, LGS, LSS: SDM Vol. 2, "LDS/LES/LFS/LGS/LSS—Load Far Pointer".
fn load_far(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    let seg = match i.mnemonic {
        M::Lds => Seg::Ds,
        M::Les => Seg::Es,
        M::Lss => Seg::Ss,
        M::Lfs => Seg::Fs,
        _ => Seg::Gs,
    };
    let (Operand::Reg(r, w), Operand::Mem(_)) = (i.ops[0], i.ops[1]) else { return Err(Fault::UD) };
    let (selector, offset) = cpu.load_pointer(i, w)?;
    cpu.load_segment(seg, selector)?;
    cpu.set_gpr(r, w, offset);
    Ok(())
}

/// The operand of LGDT and LIDT.
fn read_table(cpu: &mut Cpu, i: &Insn) -> Result<TableReg, Fault> {
    cpu.privileged()?;
    let Operand::Mem(_) = i.ops[0] else { return Err(Fault::UD) };
    let at = cpu.offset(i, &i.mem);
    let limit = cpu.read(i.mem.seg, at, 2)? as u16;
    let size = if cpu.code64() { 8 } else { 4 };
    let base = cpu.read(i.mem.seg, at.wrapping_add(2) & i.mem.width.mask(), size)?;
    let base = if !cpu.code64() && i.opsize == Width::W { base & 0xff_ffff } else { base };
    Ok(TableReg { base: cpu.canonical_base(base)?, limit })
}

/// LGDT: SDM Vol. 2, "LGDT/LIDT—Load Global/Interrupt Descriptor Table Register".
fn lgdt(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    cpu.gdtr = read_table(cpu, i)?;
    Ok(())
}

fn lidt(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    cpu.idtr = read_table(cpu, i)?;
    Ok(())
}

/// What SGDT, SIDT, SLDT, SMSW and STR need of the privilege level under CR4.UMIP.
pub(super) fn user_mode_prevention(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cpl > 0 && cpu.cr4 & cr4::UMIP != 0 { Err(Fault::GP0) } else { Ok(()) }
}

fn write_table(cpu: &mut Cpu, i: &Insn, table: TableReg) -> Result<(), Fault> {
    user_mode_prevention(cpu)?;
    let Operand::Mem(_) = i.ops[0] else { return Err(Fault::UD) };
    let at = cpu.offset(i, &i.mem);
    let base_at = at.wrapping_add(2) & i.mem.width.mask();
    let size = if cpu.code64() { 8 } else { 4 };
    cpu.probe_write(i.mem.seg, base_at, size)?;
    cpu.write(i.mem.seg, at, 2, table.limit.into())?;
    cpu.write(i.mem.seg, base_at, size, table.base)
}

/// SGDT: SDM Vol. 2. With a 16-bit operand size chips store the whole base, whatever the manual says of the top byte.
fn sgdt(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    write_table(cpu, i, cpu.gdtr)
}

fn sidt(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    write_table(cpu, i, cpu.idtr)
}

/// #UD in real mode and V86, where there are no descriptors.
fn needs_descriptors(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.real_mode() || cpu.v86() { Err(Fault::UD) } else { Ok(()) }
}

/// The descriptor for LLDT and LTR, which must be in the GDT.
fn global_descriptor(cpu: &mut Cpu, selector: u16, kinds: &[u8]) -> Result<Descriptor, Fault> {
    if selector & 4 != 0 {
        return Err(Fault::gp(selector));
    }
    let d = cpu.descriptor(selector, Fault::gp)?;
    if !d.system() || !kinds.contains(&d.kind()) {
        return Err(Fault::gp(selector));
    }
    let d = cpu.widen(d, Fault::gp)?;
    if !d.present() {
        return Err(Fault::np(selector));
    }
    if cpu.long_mode() && cpu.canonical_base(d.base()).is_err() {
        return Err(Fault::gp(selector));
    }
    Ok(d)
}

/// LLDT: SDM Vol. 2, "LLDT—Load Local Descriptor Table Register".
fn lldt(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    cpu.privileged()?;
    let selector = read_16(cpu, i, 0)?;
    cpu.ldtr = if is_null(selector) { SegReg::null(selector) } else { global_descriptor(cpu, selector, &[kind::LDT])?.segment(selector) };
    Ok(())
}

/// LTR: SDM Vol. 2, "LTR—Load Task Register".
fn ltr(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    cpu.privileged()?;
    let selector = read_16(cpu, i, 0)?;
    if is_null(selector) {
        return Err(Fault::GP0);
    }
    let kinds: &[u8] = if cpu.long_mode() { &[kind::TSS] } else { &[kind::TSS, kind::TSS16] };
    let d = global_descriptor(cpu, selector, kinds)?;
    cpu.mark_busy(d.at, true)?;
    cpu.tr = SegReg::new(selector, d.base(), d.limit(), d.attr() | u16::from(kind::BUSY));
    Ok(())
}

/// SLDT: SDM Vol. 2, "SLDT—Store Local Descriptor Table Register".
fn sldt(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    user_mode_prevention(cpu)?;
    write_16(cpu, i, cpu.ldtr.selector.into())
}

/// STR: SDM Vol. 2, "STR—Store Task Register".
fn str(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    user_mode_prevention(cpu)?;
    write_16(cpu, i, cpu.tr.selector.into())
}

fn set_zf(cpu: &mut Cpu, on: bool) {
    cpu.set_flags_word(ZF, if on { ZF.into() } else { 0 });
}

/// The descriptor that LAR, LSL, VERR or VERW ask about; `None` when the selector names none that `cpl` may see.
fn visible(cpu: &mut Cpu, selector: u16) -> Result<Option<Descriptor>, Fault> {
    if is_null(selector) || cpu.descriptor_address(selector, 8).is_none() {
        return Ok(None);
    }
    let d = cpu.descriptor(selector, Fault::gp)?;
    Ok((d.conforming() || d.dpl() >= cpu.cpl.max(rpl(selector))).then_some(d))
}

/// LAR: SDM Vol. 2, "LAR—Load Access Rights Byte".
fn lar(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    let selector = read_16(cpu, i, 1)?;
    let long = cpu.long_mode();
    let known = |d: &Descriptor| match d.kind() {
        _ if !d.system() => true,
        kind::LDT | kind::TSS | kind::TSS_BUSY | kind::CALL => true,
        kind::TSS16 | kind::TSS16_BUSY | kind::CALL16 | kind::TASK => !long,
        _ => false,
    };
    let found = visible(cpu, selector)?.filter(known);
    set_zf(cpu, found.is_some());
    if let (Some(d), Operand::Reg(r, w)) = (found, i.ops[0]) {
        // Also the limit's upper bits are in the result, which the manual calls undefined.
        cpu.set_gpr(r, w, d.low >> 32 & if w == Width::W { 0xff00 } else { 0x00ff_ff00 });
    }
    Ok(())
}

/// LSL: SDM Vol. 2, "LSL—Load Segment Limit".
fn lsl(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    let selector = read_16(cpu, i, 1)?;
    let long = cpu.long_mode();
    let known = |d: &Descriptor| match d.kind() {
        _ if !d.system() => true,
        kind::LDT | kind::TSS | kind::TSS_BUSY => true,
        kind::TSS16 | kind::TSS16_BUSY => !long,
        _ => false,
    };
    let found = visible(cpu, selector)?.filter(known);
    set_zf(cpu, found.is_some());
    if let (Some(d), Operand::Reg(r, w)) = (found, i.ops[0]) {
        cpu.set_gpr(r, w, d.limit().into());
    }
    Ok(())
}

/// VERR: SDM Vol. 2, "VERR/VERW—Verify a Segment for Reading or Writing".
fn verr(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    verify(cpu, i, |d| !d.system() && (!d.code() || d.attr() & SegReg::WRITABLE != 0))
}

fn verw(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    verify(cpu, i, |d| !d.system() && !d.code() && d.attr() & SegReg::WRITABLE != 0)
}

fn verify(cpu: &mut Cpu, i: &Insn, allowed: fn(&Descriptor) -> bool) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    let selector = read_16(cpu, i, 0)?;
    let ok = visible(cpu, selector)?.is_some_and(|d| allowed(&d));
    set_zf(cpu, ok);
    Ok(())
}

/// ARPL: SDM Vol. 2, "ARPL—Adjust RPL Field of Segment Selector".
fn arpl(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    needs_descriptors(cpu)?;
    let Operand::Reg(source, _) = i.ops[1] else { return Err(Fault::UD) };
    let level = cpu.reg(source) as u16 & 3;
    let adjust = |old: u16| if old & 3 < level { old & !3 | level } else { old };
    let lower;
    match i.ops[0] {
        Operand::Reg(r, _) => {
            let old = cpu.reg(r) as u16;
            lower = old & 3 < level;
            cpu.set_gpr(r, Width::W, adjust(old).into());
        }
        Operand::Mem(_) => {
            let at = cpu.offset(i, &i.mem);
            let old = cpu.read(i.mem.seg, at, 2)? as u16;
            lower = old & 3 < level;
            if lower {
                cpu.write(i.mem.seg, at, 2, adjust(old).into())?;
            }
        }
        _ => return Err(Fault::UD),
    }
    set_zf(cpu, lower);
    Ok(())
}

/// SWAPGS: SDM Vol. 2, "SWAPGS—Swap GS Base Register".
fn swapgs(cpu: &mut Cpu, _i: &Insn) -> Result<(), Fault> {
    if !cpu.code64() {
        return Err(Fault::UD);
    }
    cpu.privileged()?;
    std::mem::swap(&mut cpu.state.seg[Seg::Gs as usize].base, &mut cpu.msr.kernel_gs_base);
    Ok(())
}

fn base_access(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.code64() && cpu.cr4 & cr4::FSGSBASE != 0 { Ok(()) } else { Err(Fault::UD) }
}

fn read_base(cpu: &mut Cpu, i: &Insn, seg: Seg) -> Result<(), Fault> {
    base_access(cpu)?;
    let Operand::Reg(r, w) = i.ops[0] else { return Err(Fault::UD) };
    let base = cpu.state.seg[seg as usize].base;
    cpu.set_gpr(r, w, base);
    Ok(())
}

fn write_base(cpu: &mut Cpu, i: &Insn, seg: Seg) -> Result<(), Fault> {
    base_access(cpu)?;
    let Operand::Reg(r, w) = i.ops[0] else { return Err(Fault::UD) };
    let base = cpu.canonical_base(cpu.reg(r) & w.mask())?;
    cpu.state.seg[seg as usize].base = base;
    Ok(())
}

/// RDFSBASE: SDM Vol. 2, "RDFSBASE/RDGSBASE—Read FS/GS Segment Base".
fn rdfsbase(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    read_base(cpu, i, Seg::Fs)
}

fn rdgsbase(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    read_base(cpu, i, Seg::Gs)
}

/// WRFSBASE: SDM Vol. 2, "WRFSBASE/WRGSBASE—Write FS/GS Segment Base".
fn wrfsbase(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    write_base(cpu, i, Seg::Fs)
}

fn wrgsbase(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    write_base(cpu, i, Seg::Gs)
}
