//! An instruction as text. Branches are displacements from the next instruction: an [`Insn`] does not know where it is.

use crate::insn::{Insn, Mem, Mode, Operand, Rep, Seg};
use crate::ops::Width;
use iced_x86::Mnemonic as M;
use std::fmt::{self, Display, Formatter};

const WIDE: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
const LOW: [&str; 8] = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"];
const HIGH: [&str; 4] = ["ah", "ch", "dh", "bh"];

/// A general register of a width.
pub(super) struct Register(pub u8, pub Width);

impl Display for Register {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Register(r, w) = *self;
        match (WIDE.get(usize::from(r)), w) {
            (Some(_), Width::B) => f.write_str(LOW[usize::from(r)]),
            (Some(name), Width::W) => f.write_str(name),
            (Some(name), Width::D) => write!(f, "e{name}"),
            (Some(name), Width::Q) => write!(f, "r{name}"),
            (None, Width::B) => write!(f, "r{r}b"),
            (None, Width::W) => write!(f, "r{r}w"),
            (None, Width::D) => write!(f, "r{r}d"),
            (None, Width::Q) => write!(f, "r{r}"),
        }
    }
}

impl Display for Seg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(["es", "cs", "ss", "ds", "fs", "gs"][*self as usize])
    }
}

/// A number: hexadecimal from ten on.
struct Number(u64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 < 10 { write!(f, "{}", self.0) } else { write!(f, "{:#x}", self.0) }
    }
}

/// A signed displacement.
pub(super) struct Signed(pub u64);

impl Display for Signed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let v = self.0 as i64;
        write!(f, "{}{}", if v < 0 { '-' } else { '+' }, Number(v.unsigned_abs()))
    }
}

impl Mem {
    fn default_segment(&self) -> Seg {
        if matches!(self.base, 4 | 5) { Seg::Ss } else { Seg::Ds }
    }
}

impl Display for Mem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.seg != self.default_segment() {
            write!(f, "{}:", self.seg)?;
        }
        f.write_str("[")?;
        let mut first = true;
        match self.base {
            Mem::NONE => {}
            Mem::RIP => f.write_str(if self.width == Width::Q { "rip" } else { "eip" })?,
            r => write!(f, "{}", Register(r, self.width))?,
        }
        first &= self.base == Mem::NONE;
        if self.index != Mem::NONE {
            let plus = if first { "" } else { "+" };
            let scale = if self.scale == 0 { String::new() } else { format!("*{}", 1u32.wrapping_shl(self.scale.into())) };
            write!(f, "{plus}{}{scale}", Register(self.index, self.width))?;
            first = false;
        }
        if first {
            write!(f, "{:#x}", self.disp)?;
        } else if self.disp != 0 {
            write!(f, "{}", Signed(self.width.sext(self.disp)))?;
        }
        f.write_str("]")
    }
}

fn size_word(bytes: u16) -> &'static str {
    match bytes {
        1 => "byte ",
        2 => "word ",
        4 => "dword ",
        6 => "fword ",
        8 => "qword ",
        10 => "tbyte ",
        16 => "oword ",
        32 => "yword ",
        _ => "",
    }
}

impl Insn {
    fn operand(&self, op: Operand, f: &mut Formatter<'_>) -> fmt::Result {
        match op {
            Operand::None => Ok(()),
            Operand::Reg(r, w) => write!(f, "{}", Register(r, w)),
            Operand::High(r) => f.write_str(HIGH[usize::from(r & 3)]),
            Operand::Mem(bytes) => write!(f, "{}{}", size_word(bytes), self.mem),
            Operand::Imm => self.immediate(f),
            Operand::Imm2 => write!(f, "{}", Number(self.imm2)),
            Operand::Rel => write!(f, "{}", Signed(self.imm)),
            Operand::Far => write!(f, "{:#x}:{:#x}", self.imm2, self.imm),
            Operand::Seg(s) => write!(f, "{s}"),
            Operand::Cr(n) => write!(f, "cr{n}"),
            Operand::Dr(n) => write!(f, "dr{n}"),
            Operand::Xmm(n) => write!(f, "xmm{n}"),
            Operand::Ymm(n) => write!(f, "ymm{n}"),
            Operand::Mm(n) => write!(f, "mm{n}"),
            Operand::St(n) => write!(f, "st{n}"),
            Operand::Other => f.write_str("?"),
        }
    }

    /// Small negative numbers of more than a byte are written as such.
    fn immediate(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let v = self.imm & self.width.mask();
        let signed = self.width.sext(v) as i64;
        if self.width > Width::B && (-0x1000..0).contains(&signed) {
            write!(f, "-{}", Number(signed.unsigned_abs()))
        } else {
            write!(f, "{}", Number(v))
        }
    }

    /// REP before CMPS and SCAS compares: it is REPE then.
    fn prefix(&self) -> &'static str {
        use M::*;
        let compares = matches!(self.mnemonic, Cmpsb | Cmpsw | Cmpsd | Cmpsq | Scasb | Scasw | Scasd | Scasq);
        match self.rep {
            Rep::None => "",
            Rep::Rep if compares => "repe ",
            Rep::Rep => "rep ",
            Rep::Repne => "repne ",
        }
    }
}

impl Display for Insn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.mnemonic == M::INVALID {
            return f.write_str("(invalid)");
        }
        let lock = if self.lock { "lock " } else { "" };
        write!(f, "{lock}{}{}", self.prefix(), format!("{:?}", self.mnemonic).to_lowercase())?;
        let mut separator = " ";
        for op in self.ops {
            if op != Operand::None {
                f.write_str(separator)?;
                self.operand(op, f)?;
                separator = ",";
            }
        }
        if !self.has_mem() && self.mem.seg != Seg::Ds && self.mode() != Mode::M64 {
            write!(f, " {}:", self.mem.seg)?;
        }
        Ok(())
    }
}
