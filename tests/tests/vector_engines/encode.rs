//! Encodings with chosen registers, in 64-bit mode.

use iced_x86::{Code, EncodingKind, MandatoryPrefix, OpCodeInfo, OpCodeOperandKind as K, OpCodeTableKind};

/// Register numbers: ModRM.reg, ModRM.rm, VEX.vvvv. An immediate's is `is4`.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    pub reg: u8,
    pub rm: u8,
    pub vvvv: u8,
    pub is4: u8,
}

pub fn operands(code: Code) -> Vec<K> {
    let info = code.op_code();
    (0..info.op_count()).map(|n| info.op_kind(n)).collect()
}

/// The register form and the memory form, as far as they exist.
pub fn forms(code: Code) -> Vec<bool> {
    let kinds = operands(code);
    let vector_index = |k: &K| matches!(k, K::mem_vsib32x | K::mem_vsib32y | K::mem_vsib64x | K::mem_vsib64y);
    let only = kinds.iter().any(|k| *k == K::mem || vector_index(k));
    let either = kinds.iter().any(|k| matches!(k, K::xmm_or_mem | K::ymm_or_mem | K::r32_or_mem | K::r64_or_mem));
    match (only, either) {
        (true, _) => vec![true],
        (_, true) => vec![false, true],
        _ => vec![false],
    }
}

fn has_vector_index(code: Code) -> bool {
    operands(code).iter().any(|k| matches!(k, K::mem_vsib32x | K::mem_vsib32y | K::mem_vsib64x | K::mem_vsib64y))
}

/// The bytes; memory operands are at `[rdi]`, with a vector index times 4.
pub fn encode(code: Code, memory: bool, r: Registers, imm: [u8; 2]) -> Vec<u8> {
    let info = code.op_code();
    let mut bytes = match info.encoding() {
        EncodingKind::VEX => vex(code, info, r),
        _ => legacy(info),
    };
    bytes.push(info.op_code() as u8);
    if info.op_count() != 0 {
        let reg = if info.group_index() >= 0 { info.group_index() as u8 } else { r.reg };
        match memory {
            true if has_vector_index(code) => bytes.extend([reg << 3 | 4, 2 << 6 | r.rm << 3 | 7]),
            true => bytes.push(reg << 3 | 7),
            false => bytes.push(0xc0 | reg << 3 | r.rm),
        }
    }
    let mut imm = imm.into_iter();
    for kind in operands(code) {
        match kind {
            K::imm8 => bytes.extend(imm.next()),
            K::xmm_is4 | K::ymm_is4 => bytes.push(r.is4 << 4),
            _ => {}
        }
    }
    bytes
}

fn legacy(info: &OpCodeInfo) -> Vec<u8> {
    let mut bytes = Vec::new();
    match info.mandatory_prefix() {
        MandatoryPrefix::P66 => bytes.push(0x66),
        MandatoryPrefix::PF3 => bytes.push(0xf3),
        MandatoryPrefix::PF2 => bytes.push(0xf2),
        MandatoryPrefix::PNP | MandatoryPrefix::None => {}
    }
    if info.operand_size() == 64 {
        bytes.push(0x48);
    }
    bytes.push(0x0f);
    match info.table() {
        OpCodeTableKind::T0F38 => bytes.push(0x38),
        OpCodeTableKind::T0F3A => bytes.push(0x3a),
        _ => {}
    }
    bytes
}

fn vex(code: Code, info: &OpCodeInfo, r: Registers) -> Vec<u8> {
    let map = match info.table() {
        OpCodeTableKind::T0F38 => 2,
        OpCodeTableKind::T0F3A => 3,
        _ => 1,
    };
    let prefix = match info.mandatory_prefix() {
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
        _ => 0,
    };
    let second = operands(code).iter().any(|k| matches!(k, K::xmm_vvvv | K::ymm_vvvv));
    let vvvv = if second { !r.vvvv & 15 } else { 15 };
    let length = u8::from(info.l() == 1) << 2;
    vec![0xc4, 0xe0 | map, u8::from(info.w() == 1) << 7 | vvvv << 3 | length | prefix]
}
