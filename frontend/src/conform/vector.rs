//! One test of an instruction, whatever format it came in.

use super::regs::{Reg, RegFile, Value, value};
use std::fmt;
use std::sync::Arc;

/// The processor a vector speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// Intel 8086 and 8088.
    I8086,
    /// NEC V20 and V30.
    V30,
    /// Intel 80286.
    I80286,
    /// Intel 80386.
    I80386,
    /// The baseline with AVX2.
    X8664V3,
    /// Another one, by the name in the file.
    Other(String),
}

impl Model {
    /// The model of a name in an Egret vector.
    #[must_use]
    pub fn from_name(name: &str) -> Model {
        match name {
            "8086" => Model::I8086,
            "286" | "80286" => Model::I80286,
            "386" | "80386" => Model::I80386,
            "x86-64-v3" => Model::X8664V3,
            other => Model::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Model::I8086 => "8086",
            Model::V30 => "V30",
            Model::I80286 => "80286",
            Model::I80386 => "80386",
            Model::X8664V3 => "x86-64-v3",
            Model::Other(name) => name,
        })
    }
}

/// The mode a vector runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Real-address mode.
    Real,
    /// 16-bit protected mode.
    Protected16,
    /// 32-bit protected mode.
    Protected32,
    /// 64-bit mode.
    Long64,
    /// One the readers know nothing of, by its number in the file.
    Unknown(u8),
}

impl Mode {
    /// Operand and address width in bits that the decoder starts from.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Mode::Real | Mode::Protected16 | Mode::Unknown(_) => 16,
            Mode::Protected32 => 32,
            Mode::Long64 => 64,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Real => f.write_str("real"),
            Mode::Unknown(n) => write!(f, "mode {n}"),
            mode => write!(f, "{}", mode.bits()),
        }
    }
}

/// What ends a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// HLT has executed.
    Hlt,
    /// This many instructions have completed; a repeated string instruction counts as one.
    Count(u64),
}

/// Who may do what with a [`Region`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Writes are allowed.
    pub write: bool,
    /// Instruction fetches are allowed.
    pub execute: bool,
}

/// A range of present memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Linear address.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// What is allowed.
    pub access: Access,
    /// The content from the start; the rest is zero.
    pub data: Vec<u8>,
}

/// A register that the vector expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegCheck {
    /// Which.
    pub reg: Reg,
    /// Its value.
    pub value: Value,
    /// The bits that count.
    pub mask: Value,
}

/// A byte of memory that the vector expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteCheck {
    /// Linear address.
    pub at: u64,
    /// Its value.
    pub value: u8,
    /// The bits that count.
    pub mask: u8,
}

/// A fault that ends the vector. `None` is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCheck {
    /// Exception vector.
    pub vector: u8,
    /// Error code.
    pub error: Option<u32>,
    /// Faulting linear address.
    pub cr2: Option<u64>,
    /// Saved instruction pointer.
    pub rip: Option<u64>,
}

/// What a vector expects at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Registers.
    pub regs: Vec<RegCheck>,
    /// Memory.
    pub mem: Vec<ByteCheck>,
    /// The fault it ends with, if it does.
    pub fault: Option<FaultCheck>,
}

/// Where a vector, or an error, stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, an archive's member as `archive:member`.
    pub file: Arc<str>,
    /// Byte offset of the test in the (unpacked) file.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.file, self.offset)
    }
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    /// What the file calls it.
    pub name: String,
    /// The mnemonic it is counted under, lower case.
    pub mnemonic: String,
    /// Where it stands.
    pub place: Place,
    /// The processor it speaks of.
    pub model: Model,
    /// The mode it runs in.
    pub mode: Mode,
    /// Privilege level.
    pub cpl: u8,
    /// The code under test.
    pub code: Vec<u8>,
    /// Linear address of the code.
    pub at: u64,
    /// Present memory beside code and stack (protected modes with paging).
    pub regions: Vec<Region>,
    /// Single bytes of memory; in real mode all that is present, the code among them.
    pub bytes: Vec<(u64, u8)>,
    /// Initial registers; those not named are as [`RegFile::default`] says.
    pub init: Vec<(Reg, Value)>,
    /// What ends it.
    pub stop: Stop,
    /// What is expected then.
    pub want: Want,
    /// Exceptions go to the handlers in the vector's memory; else the first one ends it.
    pub delivers: bool,
}

/// Stack page of vectors with paging: present, writable, `rsp` starts at its end.
pub const STACK_PAGE: u64 = 0x7000;
/// Bytes of a page.
pub const PAGE: u64 = 0x1000;

impl Vector {
    /// The registers at the start.
    #[must_use]
    pub fn initial(&self) -> RegFile {
        let mut file = RegFile::default();
        file.set(Reg::Gpr(4), value(STACK_PAGE + PAGE));
        // TOP decides where the stack registers go, and a register named is not empty unless the tags say so.
        let order = |reg: Reg| [Reg::Fsw, Reg::Ftw].iter().position(|r| *r == reg).map_or(1, |n| 2 * n);
        for pass in 0..3 {
            self.init.iter().filter(|(reg, _)| order(*reg) == pass).for_each(|(reg, v)| file.set(*reg, *v));
        }
        if !self.init.iter().any(|(reg, _)| *reg == Reg::Rip) {
            file.set(Reg::Rip, value(self.at.wrapping_sub(self.code_base(&file))));
        }
        file
    }

    fn code_base(&self, file: &RegFile) -> u64 {
        if self.mode == Mode::Real { u64::from(file.sel[1]) << 4 } else { 0 }
    }

    /// The mnemonic in a disassembly: the first word that is no prefix, in lower case.
    #[must_use]
    pub fn mnemonic_of(disassembly: &str) -> String {
        const PREFIXES: [&str; 14] = ["lock", "rep", "repe", "repz", "repne", "repnz", "repc", "repnc", "cs", "ds", "es", "ss", "fs", "gs"];
        let mut words = disassembly.split(|c: char| c.is_whitespace() || c == ':').filter(|w| !w.is_empty());
        let word = words.clone().find(|w| !PREFIXES.contains(&w.to_ascii_lowercase().as_str())).or_else(|| words.next());
        let word = word.unwrap_or("?").to_ascii_lowercase();
        word.chars().filter(|c| !c.is_control()).take(24).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mnemonics() {
        for (text, want) in [
            ("add [ss:bp+60h],bl", "add"),
            ("rep movsb", "movsb"),
            ("LOCK add ax,bx", "add"),
            ("es: lodsb", "lodsb"),
            ("rep", "rep"),
            ("", "?"),
            ("\u{1b}x", "x"),
        ] {
            assert_eq!(Vector::mnemonic_of(text), want, "{text}");
        }
    }
}
