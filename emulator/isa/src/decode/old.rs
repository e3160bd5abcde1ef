//! Decoding on an 8086 and on an 80286.

use super::{Decoded, MAX_LEN, lower};
use crate::insn::Ctx;
use crate::model::{Feature, Features};
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction, Register};

/// As an 80286 decodes: at most 10 bytes, LOCK before anything, no size prefixes, no FS and GS, and no instruction of later
/// times (iAPX 286 Programmer's Reference).
pub(super) fn decode_286(bytes: &[u8], ctx: Ctx, features: Features) -> Decoded {
    const MAX_LEN_286: usize = 10;
    let bytes = bytes.get(..MAX_LEN_286).unwrap_or(bytes);
    let mut decoder = Decoder::with_ip(16, bytes, 0, DecoderOptions::NO_INVALID_CHECK);
    let mut insn = decoder.decode();
    if decoder.last_error() == DecoderError::NoMoreBytes {
        return if bytes.len() >= MAX_LEN_286 { Decoded::TooLong } else { Decoded::NeedMore };
    }
    let is_prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0 | 0xf2 | 0xf3);
    let opcode = bytes.iter().copied().find(|b| !is_prefix(b)).unwrap_or(0);
    let later = matches!(opcode, 0x64..=0x67)
        || !features.allows(insn.code())
        || (0..insn.op_count()).any(|n| matches!(insn.op_register(n), Register::FS | Register::GS));
    if later {
        insn.set_code(Code::INVALID);
    }
    Decoded::Insn(lower(&insn, ctx))
}

/// The opcodes that an 8086 does not tell from others: it looks at fewer bits of them.
fn known_opcode(opcode: u8) -> u8 {
    match opcode {
        0x60..=0x6f => opcode + 0x10,
        0xc0 | 0xc1 | 0xc8 | 0xc9 => opcode + 2,
        other => other,
    }
}

/// The ModRM byte likewise.
fn known_modrm(opcode: u8, modrm: u8) -> u8 {
    let reg = modrm >> 3 & 7;
    match opcode {
        // Two bits name a segment register.
        0x8c | 0x8e => modrm & !0x20,
        0x8f | 0xc6 | 0xc7 => modrm & !0x38,
        0xff if reg == 7 => modrm & !0x08,
        _ => modrm,
    }
}

/// As an 8086 decodes: any number of prefixes, no invalid opcode. Without an 8087 an ESC reads its operand and does nothing else.
pub(super) fn decode_8086(bytes: &[u8], ctx: Ctx, features: Features) -> Decoded {
    let is_prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0..=0xf3);
    let prefixes = bytes.iter().take_while(|b| is_prefix(b)).count();
    if prefixes == bytes.len() && prefixes < MAX_LEN {
        return Decoded::NeedMore;
    }
    if prefixes + MAX_LEN_8086 > MAX_LEN {
        // Longer than the decoder looks: the first prefix passes for an instruction of its own.
        return Decoded::Insn(lower(&plain(Code::Nopw, 1), ctx));
    }
    let mut clean = [0; MAX_LEN];
    let mut len = 0;
    for &byte in bytes.get(..prefixes).unwrap_or_default() {
        // LOCK means nothing to one processor, and everything may have it.
        if !matches!(byte, 0xf0 | 0xf1) {
            clean[len] = byte;
            len += 1;
        }
    }
    let kept = len;
    let rest = bytes.get(prefixes..).unwrap_or_default();
    for (slot, byte) in clean[kept..].iter_mut().zip(rest) {
        *slot = *byte;
        len += 1;
    }
    let mut opcode = known_opcode(clean[kept]);
    if let Some(modrm) = clean.get_mut(kept + 1) {
        if opcode == 0xfe && *modrm >> 3 & 7 >= 2 {
            opcode = 0xff;
        }
        *modrm = known_modrm(opcode, *modrm);
    }
    clean[kept] = opcode;
    let len = len.min(MAX_LEN);
    decode_clean(&mut clean[..len], kept, prefixes, ctx, features)
}

/// An 8086's instruction is at most 6 bytes without prefixes.
const MAX_LEN_8086: usize = 6;

fn plain(code: Code, len: usize) -> Instruction {
    let mut insn = Instruction::default();
    insn.set_code(code);
    insn.set_len(len);
    insn
}

/// Decodes rewritten bytes of which `kept` are prefixes, where there were `prefixes`.
fn decode_clean(clean: &mut [u8], kept: usize, prefixes: usize, ctx: Ctx, features: Features) -> Decoded {
    let opcode = clean.get(kept).copied().unwrap_or(0);
    let modrm = clean.get(kept + 1).copied().unwrap_or(0);
    let mut special = None;
    match opcode {
        0x0f => {
            let mut insn = plain(Code::Popw_CS, prefixes + 1);
            insn.set_op0_register(Register::CS);
            return Decoded::Insn(lower(&insn, ctx));
        }
        // As long as a MOV with the same operand.
        0xd8..=0xdf if !features.has(Feature::Fpu) => special = Some(Code::Nopw),
        // LEA, LES, LDS and far transfers without a memory operand use whatever address was computed last.
        0x8d | 0xc4 | 0xc5 if modrm >= 0xc0 => special = Some(Code::Nopw),
        0xff if modrm >= 0xc0 && matches!(modrm >> 3 & 7, 3 | 5) => special = Some(Code::Nopw),
        _ => {}
    }
    if special.is_some() {
        clean[kept] = 0x8b;
    }
    let options = DecoderOptions::NO_INVALID_CHECK | DecoderOptions::NO_PAUSE;
    let mut decoder = Decoder::with_ip(16, clean, 0, options);
    let mut insn = decoder.decode();
    if decoder.last_error() == DecoderError::NoMoreBytes {
        return Decoded::NeedMore;
    }
    let dropped = prefixes - kept;
    insn.set_len(insn.len() + dropped);
    if insn.is_jmp_short_or_near()
        || insn.is_jcc_short_or_near()
        || insn.is_call_near()
        || insn.is_loop()
        || insn.is_loopcc()
        || insn.is_jcx_short()
    {
        insn.set_near_branch16(insn.near_branch16().wrapping_add(dropped as u16));
    }
    if let Some(code) = special {
        insn = plain(code, insn.len());
    } else if !features.allows(insn.code()) {
        insn = plain(Code::Nopw, insn.len().max(prefixes + 1));
    }
    Decoded::Insn(lower(&insn, ctx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;
    use crate::model::{CpuModel, Generation};

    fn text(model: &str, bytes: &[u8]) -> String {
        let model: CpuModel = model.parse().unwrap();
        match decode(bytes, Ctx(Ctx::of_generation(model.generation())), model.features()) {
            Decoded::Insn(i) => format!("{:?} {} imm={:x} {:?}", i.code, i.len, i.imm, i.rep),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_8086_knows_no_invalid_opcode() {
        for (bytes, want) in [
            (&[0x62, 0x10][..], "Jb_rel8_16 2 imm=10 None"),
            (&[0xf0, 0xf1, 0x62, 0x10], "Jb_rel8_16 4 imm=10 None"),
            (&[0xc9], "Retfw 1 imm=0 None"),
            (&[0xc0, 0x34, 0x12], "Retnw_imm16 3 imm=1234 None"),
            (&[0x0f, 0x01], "Popw_CS 1 imm=0 None"),
            (&[0x26, 0xf1, 0xf3, 0xa4], "Movsb_m8_m8 4 imm=0 Rep"),
            (&[0xff, 0xf8], "Push_rm16 2 imm=0 None"),
            (&[0xd9, 0x06, 0x34, 0x12], "Nopw 4 imm=0 None"),
            (&[0x8e, 0xe8], "Mov_Sreg_rm16 2 imm=0 None"),
            (&[0xf3, 0x90], "Nopw 2 imm=0 Rep"),
            (&[0xf3], "NeedMore"),
            (&[0xb8, 0x01], "NeedMore"),
            (&[0x26; 15], "Nopw 1 imm=0 None"),
        ] {
            assert_eq!(text("8086", bytes), want, "{bytes:02x?}");
        }
        for first in 0..=0xff {
            for second in 0..=0xff {
                let bytes = [first, second, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x11, 0x22, 0x33, 0x44, 0x55];
                let model = CpuModel::named("8086").unwrap();
                let ctx = Ctx(Ctx::of_generation(Generation::I8086));
                let Decoded::Insn(i) = decode(&bytes, ctx, model.features()) else { panic!("{bytes:02x?}") };
                assert!(i.code != Code::INVALID && i.len > 0, "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn a_286_knows_what_it_has() {
        for (bytes, want) in [
            (&[0x60][..], "Pushaw 1 imm=0 None"),
            (&[0x66, 0x90], "INVALID 2 imm=0 None"),
            (&[0x0f, 0xa2], "INVALID 2 imm=0 None"),
            (&[0x0f, 0x06], "Clts 2 imm=0 None"),
        ] {
            assert_eq!(text("286", bytes), want, "{bytes:02x?}");
        }
        assert_eq!(text("386", &[0x0f, 0xa2]), "INVALID 2 imm=0 None");
        assert_eq!(text("386", &[0xf3, 0x0f, 0xbc, 0xc1]), "Bsf_r16_rm16 4 imm=0 None");
    }
}
