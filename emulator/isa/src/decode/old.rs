//! Decoding on an 8086 and on an 80286.

use super::{Decoded, lower};
use crate::insn::Ctx;
use crate::model::Features;
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Register};

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

/// As an 8086 decodes.
pub(super) fn decode_8086(bytes: &[u8], ctx: Ctx, features: Features) -> Decoded {
    decode_286(bytes, ctx, features)
}
