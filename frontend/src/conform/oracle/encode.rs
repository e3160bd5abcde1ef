//! From an encoding to bytes: random registers, addressing forms, immediates and displacements.

use super::values::Rng;
use egret_isa::insn::Mode;
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, MandatoryPrefix, OpCodeInfo, OpCodeOperandKind as K, OpCodeTableKind};

/// How an encoding is to be written in a mode: found by trial, once.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The encoding.
    pub code: Code,
    /// The mode.
    pub mode: Mode,
    /// Prefix combinations that lead to it: bit 0 operand size, bit 1 address size, bit 2 REX.W.
    sizes: Vec<u8>,
}

const OPERAND_SIZE: u8 = 1;
const ADDRESS_SIZE: u8 = 2;
const REX_W: u8 = 4;

/// Width of code in bits.
#[must_use]
pub fn bits(mode: Mode) -> u32 {
    match mode {
        Mode::M16 => 16,
        Mode::M32 => 32,
        Mode::M64 => 64,
    }
}

fn is_reg_field(k: K) -> bool {
    use K::*;
    matches!(
        k,
        r8_reg
            | r16_reg
            | r16_reg_mem
            | r32_reg
            | r32_reg_mem
            | r64_reg
            | r64_reg_mem
            | seg_reg
            | mm_reg
            | xmm_reg
            | ymm_reg
            | cr_reg
            | dr_reg
            | tr_reg
    )
}

fn is_memory(k: K) -> bool {
    use K::*;
    matches!(k, mem | mem_mpx | mem_mib | mem_vsib32x | mem_vsib64x | mem_vsib32y | mem_vsib64y)
}

fn is_vsib(k: K) -> bool {
    use K::*;
    matches!(k, mem_vsib32x | mem_vsib64x | mem_vsib32y | mem_vsib64y)
}

fn is_either(k: K) -> bool {
    use K::*;
    matches!(k, r8_or_mem | r16_or_mem | r32_or_mem | r64_or_mem | mm_or_mem | xmm_or_mem | ymm_or_mem)
}

fn is_rm_register(k: K) -> bool {
    use K::*;
    matches!(k, r16_rm | r32_rm | r64_rm | mm_rm | xmm_rm | ymm_rm)
}

fn is_vvvv(k: K) -> bool {
    use K::*;
    matches!(k, r32_vvvv | r64_vvvv | xmm_vvvv | ymm_vvvv)
}

fn is_in_opcode(k: K) -> bool {
    use K::*;
    matches!(k, r8_opcode | r16_opcode | r32_opcode | r64_opcode | sti_opcode)
}

/// The kinds of an encoding's operands.
pub fn kinds(op: &OpCodeInfo) -> impl Iterator<Item = K> {
    (0..op.op_count()).map(|n| op.op_kind(n))
}

/// Bytes of immediates and displacements behind the operands.
fn tail(op: &OpCodeInfo, sizes: u8, mode: Mode, rng: &mut Rng) -> Option<Vec<u8>> {
    use K::*;
    let mut bytes = Vec::new();
    let wide = match (mode, sizes & ADDRESS_SIZE != 0) {
        (Mode::M64, false) => 8,
        (Mode::M64, true) | (Mode::M32, false) | (Mode::M16, true) => 4,
        _ => 2,
    };
    for k in kinds(op) {
        let n = match k {
            imm8 | imm8sex16 | imm8sex32 | imm8sex64 | br16_1 | br32_1 | br64_1 => 1,
            imm16 | br16_2 => 2,
            imm32 | imm32sex64 | br32_4 | br64_4 => 4,
            imm64 => 8,
            farbr2_2 => 4,
            farbr4_2 => 6,
            mem_offs => wide,
            xmm_is4 | ymm_is4 => {
                bytes.push(
                    (rng.next() as u8 & if mode == Mode::M64 { 0xf0 } else { 0x70 })
                        | if rng.chance(20) { rng.next() as u8 & 15 } else { 0 },
                );
                continue;
            }
            brdisp_2 | brdisp_4 | xbegin_2 | xbegin_4 | imm4_m2z | xmm_is5 | ymm_is5 => return std::option::Option::None,
            _ => continue,
        };
        let value = if rng.chance(50) { rng.integer() } else { rng.next() };
        bytes.extend(&value.to_le_bytes()[..n]);
    }
    Some(bytes)
}

/// ModRM, SIB and displacement with a memory operand; registers are left to chance.
fn memory(mode: Mode, sizes: u8, reg: u8, vsib: bool, rng: &mut Rng) -> Vec<u8> {
    let sixteen = (mode == Mode::M16) != (sizes & ADDRESS_SIZE != 0) && mode != Mode::M64;
    let md = rng.below(3) as u8;
    let rm = if vsib { 4 } else { rng.below(8) as u8 };
    let mut bytes = vec![md << 6 | reg << 3 | rm];
    let mut none = md == 0 && rm == if sixteen { 6 } else { 5 };
    if !sixteen && rm == 4 {
        let sib = rng.next() as u8;
        bytes.push(sib);
        none |= md == 0 && sib & 7 == 5;
    }
    let length = match (md, none, sixteen) {
        (1, ..) => 1,
        (2, _, true) | (0, true, true) => 2,
        (2, ..) | (0, true, false) => 4,
        _ => 0,
    };
    let near = (rng.next() as i64 % 128) as u64;
    let disp = if rng.chance(70) { near } else { rng.integer() };
    bytes.extend(&disp.to_le_bytes()[..length]);
    bytes
}

/// What a choice of registers needs beside ModRM.
#[derive(Default)]
struct Fields {
    rex: u8,
    vvvv: u8,
}

fn opcode(op: &OpCodeInfo) -> Vec<u8> {
    let mut bytes: Vec<u8> = match op.table() {
        _ if op.encoding() != EncodingKind::Legacy => Vec::new(),
        OpCodeTableKind::T0F => vec![0x0f],
        OpCodeTableKind::T0F38 => vec![0x0f, 0x38],
        OpCodeTableKind::T0F3A => vec![0x0f, 0x3a],
        _ => Vec::new(),
    };
    if op.op_code_len() == 2 {
        bytes.push((op.op_code() >> 8) as u8);
    }
    bytes.push(op.op_code() as u8);
    bytes
}

/// Opcode, ModRM and what follows it but immediates.
fn body(op: &OpCodeInfo, mode: Mode, sizes: u8, want_memory: bool, fields: &mut Fields, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = opcode(op);
    let high = mode == Mode::M64;
    if kinds(op).any(is_in_opcode)
        && let Some(last) = bytes.last_mut()
    {
        *last |= rng.below(8) as u8;
        if high && !kinds(op).any(|k| k == K::sti_opcode) && rng.chance(40) {
            fields.rex |= 1;
        }
    }
    let any = |f: fn(K) -> bool| kinds(op).any(f);
    let has_modrm = any(is_reg_field) || any(is_memory) || any(is_either) || any(is_rm_register) || op.is_group() || op.is_rm_group();
    if any(is_vvvv) {
        fields.vvvv = rng.below(if high { 16 } else { 8 }) as u8;
    }
    if !has_modrm {
        return bytes;
    }
    let mut reg = rng.below(8) as u8;
    if op.is_group() {
        reg = op.group_index() as u8 & 7;
    } else if any(is_reg_field) && high && rng.chance(40) {
        fields.rex |= 4;
    }
    if any(is_memory) || any(is_either) && want_memory {
        bytes.extend(memory(mode, sizes, reg, any(is_vsib), rng));
        fields.rex |= if high { rng.next() as u8 & rng.next() as u8 & 3 } else { 0 };
    } else {
        let rm = if op.is_rm_group() { op.rm_group_index() as u8 & 7 } else { rng.below(8) as u8 };
        bytes.push(0xc0 | reg << 3 | rm);
        fields.rex |= u8::from(high && (any(is_either) || any(is_rm_register)) && rng.chance(40));
    }
    bytes
}

fn vex(op: &OpCodeInfo, fields: &Fields, rng: &mut Rng) -> Option<Vec<u8>> {
    let map = match op.table() {
        OpCodeTableKind::T0F => 1,
        OpCodeTableKind::T0F38 => 2,
        OpCodeTableKind::T0F3A => 3,
        _ => return std::option::Option::None,
    };
    let pp = match op.mandatory_prefix() {
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
        _ => 0,
    };
    let w = if op.is_wig() || op.is_wig32() { rng.below(2) as u8 } else { op.w() as u8 };
    let l = if op.is_lig() { rng.below(2) as u8 } else { op.l() as u8 };
    let last = (!fields.vvvv & 15) << 3 | (l & 1) << 2 | pp;
    let rxb = !fields.rex & 7;
    if map == 1 && w == 0 && rxb & 3 == 3 && rng.chance(60) {
        return Some(vec![0xc5, (rxb & 4) << 5 | last]);
    }
    Some(vec![0xc4, (rxb & 7) << 5 | map, w << 7 | last])
}

/// Superfluous segment overrides now and then; always possible ones for memory.
fn segment(rng: &mut Rng) -> Option<u8> {
    rng.chance(12).then(|| rng.of_list(&[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]))
}

fn assemble(code: Code, mode: Mode, sizes: u8, want_memory: bool, extras: bool, rng: &mut Rng) -> Option<Vec<u8>> {
    let op = code.op_code();
    let mut fields = Fields::default();
    let body = body(op, mode, sizes, want_memory, &mut fields, rng);
    let tail = tail(op, sizes, mode, rng)?;
    let mut bytes = Vec::new();
    if op.fwait() {
        bytes.push(0x9b);
    }
    if extras {
        bytes.extend(segment(rng));
        if op.can_use_lock_prefix() && rng.chance(25) {
            bytes.push(0xf0);
        }
        if (op.can_use_rep_prefix() || op.can_use_repne_prefix()) && rng.chance(70) {
            bytes.push(if op.can_use_repne_prefix() && rng.chance(40) { 0xf2 } else { 0xf3 });
        }
    }
    if sizes & ADDRESS_SIZE != 0 {
        bytes.push(0x67);
    }
    match op.encoding() {
        EncodingKind::Legacy => {
            if sizes & OPERAND_SIZE != 0 {
                bytes.push(0x66);
            }
            match op.mandatory_prefix() {
                MandatoryPrefix::P66 => bytes.push(0x66),
                MandatoryPrefix::PF3 => bytes.push(0xf3),
                MandatoryPrefix::PF2 => bytes.push(0xf2),
                _ => {}
            }
            let mut rex = fields.rex | if sizes & REX_W != 0 { 8 } else { 0 };
            if mode == Mode::M64 && (rex != 0 || extras && rng.chance(15)) {
                rex |= 0x40;
                bytes.push(rex);
            }
        }
        EncodingKind::VEX => bytes.extend(vex(op, &fields, rng)?),
        _ => return std::option::Option::None,
    }
    bytes.extend(body);
    bytes.extend(tail);
    (bytes.len() <= 15).then_some(bytes)
}

/// The encoding of the first instruction in `bytes` and its length.
#[must_use]
pub fn decoded(bytes: &[u8], mode: Mode) -> iced_x86::Instruction {
    Decoder::new(bits(mode), bytes, DecoderOptions::NONE).decode()
}

/// The first instruction in `bytes`, and where its constants are.
#[must_use]
pub fn decoded_with_offsets(bytes: &[u8], mode: Mode) -> (iced_x86::Instruction, iced_x86::ConstantOffsets) {
    // The decoder knows the offsets only of what it has decoded itself.
    let mut decoder = Decoder::new(bits(mode), bytes, DecoderOptions::NONE);
    let insn = decoder.decode();
    (insn, decoder.get_constant_offsets(&insn))
}

impl Recipe {
    /// How to write `code` in `mode`; `None` when that cannot be.
    #[must_use]
    pub fn new(code: Code, mode: Mode) -> Option<Recipe> {
        let op = code.op_code();
        let can = [op.mode16(), op.mode32(), op.mode64()][mode as usize];
        if !can || !matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
            return None;
        }
        let mut rng = Rng(code as u64);
        let mut sizes = Vec::new();
        for choice in 0..if mode == Mode::M64 && op.encoding() == EncodingKind::Legacy { 8 } else { 4 } {
            let hits = (0..8).any(|n| {
                assemble(code, mode, choice, n & 1 == 0, false, &mut rng).is_some_and(|bytes| decoded(&bytes, mode).code() == code)
            });
            if hits {
                sizes.push(choice);
            }
        }
        (!sizes.is_empty()).then_some(Recipe { code, mode, sizes })
    }

    /// An instruction of this encoding.
    #[must_use]
    pub fn write(&self, rng: &mut Rng) -> Option<Vec<u8>> {
        for _ in 0..8 {
            // The plainest combination is the most frequent one.
            let sizes = if rng.chance(60) { self.sizes[0] } else { rng.of_list(&self.sizes) };
            let memory = rng.chance(55);
            if let Some(bytes) = assemble(self.code, self.mode, sizes, memory, true, rng) {
                let insn = decoded(&bytes, self.mode);
                if insn.code() == self.code && insn.len() == bytes.len() {
                    return Some(bytes);
                }
            }
        }
        None
    }
}
