//! One row per encoding: what iced's tables know of it, in the form that coverage pages, test generators and
//! undefined-flag masks want.

use crate::decode::{self, Decoded};
use crate::insn::{Ctx, Insn, Mode};
use crate::model::Features;
use iced_x86::{Code, CpuidFeature, EncodingKind, Instruction, MandatoryPrefix, Mnemonic, OpCodeTableKind};

/// An encoding.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The encoding.
    pub code: Code,
    /// Its mnemonic.
    pub mnemonic: Mnemonic,
    /// The CPU features that it needs, all of them.
    pub features: &'static [CpuidFeature],
    /// The instruction as the manual writes it, with its operand forms.
    pub text: &'static str,
    /// The opcode as the manual writes it.
    pub opcode: &'static str,
    /// Arithmetic flags read, as EFLAGS bits.
    pub reads: u32,
    /// Arithmetic flags with a defined new value.
    pub writes: u32,
    /// Arithmetic flags left undefined by the manual.
    pub undefined: u32,
    /// Runs only at CPL 0.
    pub privileged: bool,
    /// Exists in 16-, 32- and 64-bit mode.
    pub modes: [bool; 3],
}

/// Every encoding that iced knows, but for the pseudo-instructions (DB and the like) and INVALID.
pub fn rows() -> impl Iterator<Item = Row> {
    Code::values().filter(|c| *c != Code::INVALID && c.op_code().is_instruction()).map(row)
}

/// iced's flag bits, in EFLAGS positions.
fn arithmetic(bits: u32) -> u32 {
    use crate::flags::{AF, CF, OF, PF, SF, ZF};
    use iced_x86::RflagsBits as B;
    [(B::CF, CF), (B::PF, PF), (B::AF, AF), (B::ZF, ZF), (B::SF, SF), (B::OF, OF)]
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(0, |all, (_, flag)| all | flag)
}

fn row(code: Code) -> Row {
    let op = code.op_code();
    let mut insn = Instruction::default();
    insn.set_code(code);
    Row {
        code,
        mnemonic: code.mnemonic(),
        features: code.cpuid_features(),
        text: op.instruction_string(),
        opcode: op.op_code_string(),
        reads: arithmetic(insn.rflags_read()),
        writes: arithmetic(insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set()),
        undefined: arithmetic(insn.rflags_undefined()),
        privileged: op.must_be_cpl0(),
        modes: [op.mode16(), op.mode32(), op.mode64()],
    }
}

impl Row {
    /// An instruction of this encoding, decoded for `mode`: with a memory operand if `memory` and the encoding has such a form.
    /// `None` when there is none in that mode, or the encoding is neither legacy nor VEX.
    #[must_use]
    pub fn example(&self, mode: Mode, memory: bool) -> Option<(Vec<u8>, Insn)> {
        let op = self.code.op_code();
        if !self.modes[mode as usize] {
            return None;
        }
        let ctx = Ctx(mode as u32 | Ctx::PE | Ctx::FLAT | Ctx::X87 | Ctx::MMX | Ctx::SSE | Ctx::AVX | Ctx::FP_MASKED);
        match op.encoding() {
            EncodingKind::Legacy => {}
            EncodingKind::VEX => return self.vex_example(ctx, memory),
            _ => return None,
        }
        let sizes: [&[u8]; 4] = [&[], &[0x66], &[0x67], &[0x66, 0x67]];
        let rex: &[&[u8]] = if mode == Mode::M64 { &[&[], &[0x48]] } else { &[&[]] };
        let fwait: &[u8] = if op.fwait() { &[0x9b] } else { &[] };
        for size in sizes {
            for rex in rex {
                for body in bodies(self.code, memory) {
                    let bytes = [fwait, size, mandatory(op.mandatory_prefix()), rex, &body, &[0; 10]].concat();
                    if let Decoded::Insn(insn) = decode::decode(&bytes, ctx, Features::ALL)
                        && insn.code == self.code
                        && insn.has_mem() == memory
                    {
                        return Some((bytes[..usize::from(insn.len)].to_vec(), insn));
                    }
                }
            }
        }
        None
    }

    /// The registers are 2 (in VEX.vvvv, where it names one), 3 (in an immediate), and whatever ModRM gives.
    fn vex_example(&self, ctx: Ctx, memory: bool) -> Option<(Vec<u8>, Insn)> {
        let op = self.code.op_code();
        let map = match op.table() {
            OpCodeTableKind::T0F => 1,
            OpCodeTableKind::T0F38 => 2,
            OpCodeTableKind::T0F3A => 3,
            _ => return None,
        };
        let prefix = match op.mandatory_prefix() {
            MandatoryPrefix::P66 => 1,
            MandatoryPrefix::PF3 => 2,
            MandatoryPrefix::PF2 => 3,
            _ => 0,
        };
        let length = u8::from(op.l() == 1) << 2;
        let reg = if op.is_group() { (op.group_index() as u8 & 7) << 3 } else { 0 };
        let rm = if op.is_rm_group() { op.rm_group_index() as u8 & 7 } else { 1 };
        // Memory without displacement, with a vector index, and (16-bit) by displacement alone.
        let modrm: &[&[u8]] = if memory { &[&[0x00], &[0x04, 0x08], &[0x06]] } else { &[&[0xc0]] };
        for w in [0, 0x80] {
            for vvvv in [0x68, 0x78] {
                for m in modrm {
                    let first = m[0] | reg | if m[0] == 0xc0 { rm } else { 0 };
                    let head = [0xc4, 0xe0 | map, w | vvvv | length | prefix, op.op_code() as u8, first];
                    let bytes = [&head, &m[1..], &[0x30; 10]].concat();
                    if let Decoded::Insn(insn) = decode::decode(&bytes, ctx, Features::ALL)
                        && insn.code == self.code
                        && insn.has_mem() == memory
                    {
                        return Some((bytes[..usize::from(insn.len)].to_vec(), insn));
                    }
                }
            }
        }
        None
    }
}

fn mandatory(prefix: MandatoryPrefix) -> &'static [u8] {
    match prefix {
        MandatoryPrefix::P66 => &[0x66],
        MandatoryPrefix::PF3 => &[0xf3],
        MandatoryPrefix::PF2 => &[0xf2],
        _ => &[],
    }
}

/// Opcode bytes followed by the ModRM bytes worth trying.
fn bodies(code: Code, memory: bool) -> Vec<Vec<u8>> {
    let op = code.op_code();
    let escape: &[u8] = match op.table() {
        OpCodeTableKind::T0F => &[0x0f],
        OpCodeTableKind::T0F38 => &[0x0f, 0x38],
        OpCodeTableKind::T0F3A => &[0x0f, 0x3a],
        _ => &[],
    };
    let number = op.op_code();
    let mut opcode = escape.to_vec();
    if op.op_code_len() == 2 {
        opcode.push((number >> 8) as u8);
    }
    opcode.push(number as u8);
    let reg = if op.is_group() { (op.group_index() as u8 & 7) << 3 } else { 0 };
    let rm = if op.is_rm_group() { op.rm_group_index() as u8 & 7 } else { 1 };
    // A register form, memory without displacement, and memory by displacement alone.
    let modrm: &[u8] = if memory { &[0x00, 0x05, 0x06] } else { &[0xc0] };
    let with_modrm = modrm.iter().map(|m| [opcode.clone(), vec![m | reg | if *m == 0xc0 { rm } else { 0 }]].concat());
    // 90h with its register field 0 is NOP, not XCHG.
    let next = [&opcode[..opcode.len() - 1], &[(number as u8).wrapping_add(1)]].concat();
    [opcode.clone(), next].into_iter().chain(with_modrm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{AF, ARITH, CF};

    fn find(code: Code) -> Row {
        rows().find(|r| r.code == code).unwrap()
    }

    #[test]
    fn flags_of_well_known_rows() {
        let row = |code| {
            let r = find(code);
            (r.reads, r.writes, r.undefined)
        };
        assert_eq!(row(Code::Adc_AL_imm8), (CF, ARITH, 0));
        assert_eq!(row(Code::And_rm32_r32), (0, ARITH & !AF, AF));
        assert_eq!(row(Code::Inc_rm8), (0, ARITH & !CF, 0));
        assert_eq!(row(Code::Mov_r32_imm32), (0, 0, 0));
    }

    #[test]
    fn examples_decode_to_their_row() {
        for (code, mode, memory, bytes) in [
            (Code::Adc_AL_imm8, Mode::M32, false, "14 00"),
            (Code::Add_rm16_r16, Mode::M32, true, "66 01 00"),
            (Code::Fadd_m32fp, Mode::M64, true, "d8 00"),
            (Code::Movaps_xmm_xmmm128, Mode::M64, true, "0f 28 00"),
            (Code::Imul_rm64, Mode::M64, false, "48 f7 e9"),
            (Code::VEX_Vaddps_ymm_ymm_ymmm256, Mode::M64, true, "c4 e1 6c 58 00"),
            (Code::VEX_Vmovd_rm32_xmm, Mode::M32, false, "c4 e1 79 7e c1"),
            (Code::VEX_Vpsrldq_ymm_ymm_imm8, Mode::M64, false, "c4 e1 6d 73 d9 30"),
            (Code::VEX_Vpgatherdd_xmm_vm32x_xmm, Mode::M32, true, "c4 e2 69 90 04 08"),
            (Code::VEX_Vblendvps_xmm_xmm_xmmm128_xmm, Mode::M64, false, "c4 e3 69 4a c1 30"),
        ] {
            let (found, _) = find(code).example(mode, memory).unwrap();
            let text: Vec<String> = found.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(text.join(" "), bytes, "{code:?}");
        }
        assert!(find(Code::Aaa).example(Mode::M64, false).is_none());
    }
}
