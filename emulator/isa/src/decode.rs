//! From iced's `Instruction` to [`Insn`], once per cached instruction.

mod old;

use crate::insn::{Ctx, Insn, Mem, Mode, Operand, Rep, Seg};
use crate::model::{Feature, Features, Generation};
use crate::ops::{Cond, Width};
use iced_x86::{Code, ConditionCode, Decoder, DecoderError, DecoderOptions, EncodingKind, Instruction, MemorySize, OpKind, Register};

/// The longest x86 instruction in bytes.
pub const MAX_LEN: usize = 15;

/// What a decoder made of some bytes.
#[derive(Clone, Copy, Debug)]
pub enum Decoded {
    /// An instruction. An invalid one has `Code::INVALID`.
    Insn(Insn),
    /// The instruction goes on beyond the given bytes (fewer than [`MAX_LEN`]).
    NeedMore,
    /// More than 15 bytes: #GP(0).
    TooLong,
}

/// Decodes the instruction at the start of `bytes`, as a CPU with `features` does.
#[must_use]
pub fn decode(bytes: &[u8], ctx: Ctx, features: Features) -> Decoded {
    let bits = match ctx.mode() {
        Mode::M16 => 16,
        Mode::M32 => 32,
        Mode::M64 => 64,
    };
    match ctx.generation() {
        Generation::I8086 => return old::decode_8086(bytes, ctx, features),
        Generation::I286 => return old::decode_286(bytes, ctx, features),
        _ => {}
    }
    let bytes = bytes.get(..MAX_LEN).unwrap_or(bytes);
    let mut decoder = Decoder::with_ip(bits, bytes, 0, options(features));
    let mut insn = decoder.decode();
    if insn.code() != Code::INVALID {
        // SDM Vol. 2, "Exceptions Type 13" and its kin: VEX means nothing in real mode and V86.
        let vex = insn.code().encoding() == EncodingKind::VEX && (!ctx.has(Ctx::PE) || ctx.has(Ctx::V86));
        let none = vex || bits != 64 && wide_element(&insn, bytes);
        insn.set_code(if none { Code::INVALID } else { on_this_cpu(insn.code(), features) });
    }
    match decoder.last_error() {
        DecoderError::NoMoreBytes => Decoded::NeedMore,
        DecoderError::InvalidInstruction if too_long(bytes, bits, options(features)) => Decoded::TooLong,
        _ => Decoded::Insn(lower(&insn, ctx)),
    }
}

/// VPINSRQ and VPEXTRQ are #UD outside 64-bit mode; there VEX.W does not matter to other instructions (SDM Vol. 2, "PINSRB/PINSRD/PINSRQ").
fn wide_element(insn: &Instruction, bytes: &[u8]) -> bool {
    matches!(insn.code(), Code::VEX_Vpinsrd_xmm_xmm_rm32_imm8 | Code::VEX_Vpextrd_rm32_xmm_imm8)
        && bytes.iter().position(|b| *b == 0xc4).and_then(|at| bytes.get(at + 2)).is_some_and(|b| b & 0x80 != 0)
}

/// Whether an instruction that iced calls invalid is so by its length alone: it goes on when a prefix that does not matter for
/// its length is left out. No instruction without such a prefix is longer than 15 bytes.
#[cold]
fn too_long(bytes: &[u8], bits: u32, options: u32) -> bool {
    let is_prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = bytes.iter().take_while(|b| is_prefix(b)).count();
    let idle = |n: &usize| !matches!(bytes[*n], 0x66 | 0x67) || bytes[*n + 1..prefixes].contains(&bytes[*n]);
    let Some(n) = (0..prefixes).find(idle) else { return false };
    let shorter = [&bytes[..n], &bytes[n + 1..]].concat();
    let mut decoder = Decoder::with_ip(bits, &shorter, 0, options);
    let _ = decoder.decode();
    bytes.len() >= MAX_LEN && decoder.last_error() == DecoderError::NoMoreBytes
}

fn options(features: Features) -> u32 {
    if features.has(Feature::Lahf64) { DecoderOptions::NONE } else { DecoderOptions::NO_LAHF_SAHF_64 }
}

/// What an encoding is on a CPU with these features: prefixes that it does not know mean nothing to it, and compilers count
/// on that; else there is no such instruction.
fn on_this_cpu(code: Code, features: Features) -> Code {
    let code = match code {
        Code::Tzcnt_r16_rm16 if !features.has(Feature::Bmi1) => Code::Bsf_r16_rm16,
        Code::Tzcnt_r32_rm32 if !features.has(Feature::Bmi1) => Code::Bsf_r32_rm32,
        Code::Tzcnt_r64_rm64 if !features.has(Feature::Bmi1) => Code::Bsf_r64_rm64,
        Code::Lzcnt_r16_rm16 if !features.has(Feature::Lzcnt) => Code::Bsr_r16_rm16,
        Code::Lzcnt_r32_rm32 if !features.has(Feature::Lzcnt) => Code::Bsr_r32_rm32,
        Code::Lzcnt_r64_rm64 if !features.has(Feature::Lzcnt) => Code::Bsr_r64_rm64,
        Code::Wbnoinvd if !features.has(Feature::Wbnoinvd) => Code::Wbinvd,
        other => other,
    };
    if features.allows(code) { code } else { Code::INVALID }
}

fn lower(insn: &Instruction, ctx: Ctx) -> Insn {
    let mode = ctx.mode();
    let opsize = operand_size(insn, mode);
    let mut out = Insn {
        code: insn.code(),
        mnemonic: insn.mnemonic(),
        len: insn.len() as u8,
        width: opsize,
        opsize,
        addrsize: address_size(insn, mode),
        ctx,
        lock: insn.has_lock_prefix(),
        rep: rep(insn),
        cond: condition(insn.condition_code()),
        ops: [Operand::None; 4],
        mem: Mem { seg: Seg::Ds, base: Mem::NONE, index: Mem::NONE, scale: 0, width: Width::Q, disp: 0 },
        imm: 0,
        imm2: 0,
    };
    let mut imms = 0;
    for n in 0..insn.op_count().min(4) {
        let op = operand(insn, n, &mut out, &mut imms);
        out.ops[n as usize] = op;
    }
    if insn.is_string_instruction() || (0..insn.op_count()).any(|n| implied_memory(insn.op_kind(n))) {
        out.mem.seg = segment(insn.memory_segment()).filter(|s| mode != Mode::M64 || matches!(s, Seg::Fs | Seg::Gs)).unwrap_or(Seg::Ds);
    }
    out.width = main_width(insn, &out);
    out
}

/// A memory operand at a fixed register whose segment can be overridden.
fn implied_memory(kind: OpKind) -> bool {
    use OpKind as K;
    matches!(kind, K::MemorySegSI | K::MemorySegESI | K::MemorySegRSI | K::MemorySegDI | K::MemorySegEDI | K::MemorySegRDI)
}

fn rep(insn: &Instruction) -> Rep {
    if insn.has_repne_prefix() {
        Rep::Repne
    } else if insn.has_rep_prefix() {
        Rep::Rep
    } else {
        Rep::None
    }
}

fn condition(cc: ConditionCode) -> Cond {
    match cc {
        ConditionCode::None | ConditionCode::o => Cond::O,
        ConditionCode::no => Cond::No,
        ConditionCode::b => Cond::B,
        ConditionCode::ae => Cond::Ae,
        ConditionCode::e => Cond::E,
        ConditionCode::ne => Cond::Ne,
        ConditionCode::be => Cond::Be,
        ConditionCode::a => Cond::A,
        ConditionCode::s => Cond::S,
        ConditionCode::ns => Cond::Ns,
        ConditionCode::p => Cond::P,
        ConditionCode::np => Cond::Np,
        ConditionCode::l => Cond::L,
        ConditionCode::ge => Cond::Ge,
        ConditionCode::le => Cond::Le,
        ConditionCode::g => Cond::G,
    }
}

/// The effective operand size that the encoding was selected by.
fn operand_size(insn: &Instruction, mode: Mode) -> Width {
    let code = insn.code().op_code();
    match code.operand_size() {
        16 => Width::W,
        32 => Width::D,
        64 => Width::Q,
        _ => match mode {
            Mode::M16 => Width::W,
            _ => Width::D,
        },
    }
}

fn address_size(insn: &Instruction, mode: Mode) -> Width {
    let by_register = |r: Register| Width::from_bytes(r.size() as u8).filter(|w| *w != Width::B);
    let from_op = (0..insn.op_count()).find_map(|n| match insn.op_kind(n) {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Some(Width::W),
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Some(Width::D),
        OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => Some(Width::Q),
        OpKind::Memory => match insn.memory_base() {
            Register::None if insn.memory_index() == Register::None => Width::from_bytes(insn.memory_displ_size() as u8)
                .filter(|w| *w > Width::B)
                .map(|w| if mode == Mode::M64 { Width::Q.min(w.max(Width::D)) } else { w }),
            // A gather's index is a vector.
            Register::None if insn.memory_index().is_vector_register() => {
                Some(if insn.memory_displ_size() == 8 { Width::Q } else { Width::D })
            }
            Register::None => by_register(insn.memory_index()),
            Register::EIP => Some(Width::D),
            Register::RIP => Some(Width::Q),
            base => by_register(base),
        },
        _ => None,
    });
    let by_code = match insn.code().op_code().address_size() {
        16 => Some(Width::W),
        32 => Some(Width::D),
        64 => Some(Width::Q),
        _ => None,
    };
    from_op.or(by_code).unwrap_or(match mode {
        Mode::M16 => Width::W,
        Mode::M32 => Width::D,
        Mode::M64 => Width::Q,
    })
}

fn operand(insn: &Instruction, n: u32, out: &mut Insn, imms: &mut u32) -> Operand {
    use OpKind as K;
    match insn.op_kind(n) {
        K::Register => register(insn.op_register(n)),
        K::NearBranch16 | K::NearBranch32 | K::NearBranch64 => {
            // Decoded at address 0: the displacement is the target less the length.
            let target = insn.near_branch_target();
            let bits = match insn.op_kind(n) {
                K::NearBranch16 => Width::W,
                K::NearBranch32 => Width::D,
                _ => Width::Q,
            };
            out.opsize = bits;
            out.imm = bits.sext(target.wrapping_sub(insn.len() as u64));
            Operand::Rel
        }
        K::FarBranch16 => far(out, insn.far_branch16().into(), insn.far_branch_selector()),
        K::FarBranch32 => far(out, insn.far_branch32().into(), insn.far_branch_selector()),
        K::Immediate8_2nd => {
            out.imm2 = insn.immediate8_2nd().into();
            Operand::Imm2
        }
        K::Memory => memory(insn, out),
        K::MemorySegSI
        | K::MemorySegESI
        | K::MemorySegRSI
        | K::MemorySegDI
        | K::MemorySegEDI
        | K::MemorySegRDI
        | K::MemoryESDI
        | K::MemoryESEDI
        | K::MemoryESRDI => Operand::None,
        _ => {
            let value = insn.immediate(n);
            *imms += 1;
            if *imms == 1 {
                out.imm = value;
                Operand::Imm
            } else {
                out.imm2 = value;
                Operand::Imm2
            }
        }
    }
}

fn far(out: &mut Insn, offset: u64, selector: u16) -> Operand {
    out.imm = offset;
    out.imm2 = selector.into();
    Operand::Far
}

fn memory(insn: &Instruction, out: &mut Insn) -> Operand {
    let width = out.addrsize;
    let (base, disp) = match insn.memory_base() {
        Register::None => (Mem::NONE, insn.memory_displacement64()),
        // iced gives the target for a decode at address 0.
        Register::RIP | Register::EIP => (Mem::RIP, insn.memory_displacement64().wrapping_sub(insn.len() as u64)),
        base => (base.number() as u8, insn.memory_displacement64()),
    };
    let index = match insn.memory_index() {
        Register::None => Mem::NONE,
        index => index.number() as u8,
    };
    let scale = insn.memory_index_scale().trailing_zeros() as u8;
    let mut seg = segment(insn.memory_segment()).unwrap_or(Seg::Ds);
    if out.ctx.mode() == Mode::M64 && !matches!(seg, Seg::Fs | Seg::Gs) {
        // Other overrides are ignored: the base decides between #SS and #GP.
        seg = if matches!(insn.memory_base(), Register::RSP | Register::ESP | Register::RBP | Register::EBP) { Seg::Ss } else { Seg::Ds };
    }
    out.mem = Mem { seg, base, index, scale, width, disp: disp & width.mask() };
    let bytes = match insn.memory_size() {
        MemorySize::Unknown => 0,
        size => size.size() as u16,
    };
    Operand::Mem(bytes)
}

fn segment(r: Register) -> Option<Seg> {
    Some(match r {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::DS => Seg::Ds,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => return None,
    })
}

fn register(r: Register) -> Operand {
    let number = r.number() as u8;
    match r {
        Register::AH | Register::CH | Register::DH | Register::BH => Operand::High(number.wrapping_sub(4) & 3),
        _ if r.is_gpr8() => {
            // iced numbers AL..BL 0-3, AH..BH 4-7, SPL.. 8 on.
            let n = match r {
                Register::AL => 0,
                Register::CL => 1,
                Register::DL => 2,
                Register::BL => 3,
                Register::SPL => 4,
                Register::BPL => 5,
                Register::SIL => 6,
                Register::DIL => 7,
                _ => (r as u32).wrapping_sub(Register::R8L as u32).wrapping_add(8) as u8 & 15,
            };
            Operand::Reg(n, Width::B)
        }
        _ if r.is_gpr16() => Operand::Reg(number, Width::W),
        _ if r.is_gpr32() => Operand::Reg(number, Width::D),
        _ if r.is_gpr64() => Operand::Reg(number, Width::Q),
        _ if r.is_segment_register() => segment(r).map_or(Operand::Other, Operand::Seg),
        _ if r.is_xmm() => Operand::Xmm(number),
        _ if r.is_ymm() => Operand::Ymm(number),
        _ if r.is_mm() => Operand::Mm(number),
        _ if r.is_st() => Operand::St(number),
        _ if r.is_cr() => Operand::Cr(number),
        _ if r.is_dr() => Operand::Dr(number),
        _ => Operand::Other,
    }
}

/// The width an instruction works at: that of its first operand with a width, else the operand size.
fn main_width(insn: &Instruction, out: &Insn) -> Width {
    // OUTS names the port register, DX, first.
    if let Some(w) = string_width(insn.code()) {
        return w;
    }
    match out.ops[0] {
        Operand::Reg(_, w) => w,
        Operand::High(_) => Width::B,
        Operand::Mem(bytes) => u8::try_from(bytes).ok().and_then(Width::from_bytes).unwrap_or(out.opsize),
        _ => out.opsize,
    }
}

fn string_width(code: Code) -> Option<Width> {
    use Code::*;
    Some(match code {
        Movsb_m8_m8 | Cmpsb_m8_m8 | Stosb_m8_AL | Lodsb_AL_m8 | Scasb_AL_m8 | Insb_m8_DX | Outsb_DX_m8 => Width::B,
        Movsw_m16_m16 | Cmpsw_m16_m16 | Stosw_m16_AX | Lodsw_AX_m16 | Scasw_AX_m16 | Insw_m16_DX | Outsw_DX_m16 => Width::W,
        Movsd_m32_m32 | Cmpsd_m32_m32 | Stosd_m32_EAX | Lodsd_EAX_m32 | Scasd_EAX_m32 | Insd_m32_DX | Outsd_DX_m32 => Width::D,
        Movsq_m64_m64 | Cmpsq_m64_m64 | Stosq_m64_RAX | Lodsq_RAX_m64 | Scasq_RAX_m64 => Width::Q,
        _ => return None,
    })
}
