//! What is too rare or too stateful for ops: the CPU's own functions, by mnemonic. Both tiers run these same functions.

mod avx;
mod bits;
pub(crate) mod control;
pub mod cpuid;
pub(crate) mod debug;
pub(crate) mod far;
mod fpu;
mod io;
mod iret;
pub(crate) mod misc;
mod msr;
mod segment;
mod simd;
mod string;
mod syscall;
pub(crate) mod system;
mod virtual_flag;
pub mod xsave;

pub use fpu::{stack_operand, x87_quick};

use crate::Cpu;
use crate::fault::Fault;
use egret_isa::emit::Unit;
use egret_isa::insn::Insn;
use egret_isa::sem;

/// One mnemonic's function. As in semantics, `state.rip` is already the next instruction's; on a fault the caller
/// puts it and RSP back.
pub type Function = fn(&mut Cpu, &Insn) -> Result<(), Fault>;

/// The function for an instruction that [`egret_isa::sem`] has no ops for.
#[must_use]
pub fn lookup(i: &Insn) -> Function {
    string::table(i)
        .or_else(|| misc::table(i))
        .or_else(|| bits::table(i))
        .or_else(|| system_tables(i))
        .or_else(|| fpu::table(i))
        .or_else(|| xsave::table(i))
        .or_else(|| avx::table(i))
        .or_else(|| simd::table(i))
        .unwrap_or(invalid)
}

/// Privileged and control-transfer instructions.
fn system_tables(i: &Insn) -> Option<Function> {
    far::table(i)
        .or_else(|| iret::table(i))
        .or_else(|| segment::table(i))
        .or_else(|| syscall::table(i))
        .or_else(|| system::table(i))
        .or_else(|| io::table(i))
        .or_else(|| control::table(i))
        .or_else(|| debug::table(i))
        .or_else(|| msr::table(i))
        .or_else(|| cpuid::table(i))
}

/// Whether an instruction's function neither computes with floating point nor looks at MXCSR: it may run with the guest's rounding
/// in the host's.
#[must_use]
pub fn is_integer(i: &Insn) -> bool {
    let tables = [misc::table, iret::table, segment::table, syscall::table, system::table, control::table];
    sem::lookup::<Cpu>(i).is_none() && tables.iter().any(|table| table(i).is_some())
}

/// Whether Egret knows an instruction at all: by semantics or by a function of the CPU.
#[must_use]
pub fn implemented(i: &Insn) -> bool {
    sem::lookup::<Cpu>(i).is_some() || lookup(i) as usize != invalid as Function as usize
}

/// How the interpreter runs an instruction: its semantics on the CPU, or the CPU's function.
#[must_use]
pub fn handler(i: &Insn) -> Function {
    sem::lookup::<Cpu>(i).unwrap_or_else(|| lookup(i))
}

/// An encoding that means nothing: #UD. It is counted by name when it is one that iced knows and Egret does not.
fn invalid(cpu: &mut Cpu, i: &Insn) -> Result<(), Fault> {
    if i.code != iced_x86::Code::INVALID {
        cpu.count_unknown(&format!("{:?}", i.code));
    }
    Err(Fault::UD)
}

impl Cpu {
    /// What a switched-off unit raises (SDM Vol. 3, "Control Registers", EM and TS; table "Action Taken By FPU Instructions...").
    #[cold]
    pub(crate) fn unit_off(&self, unit: Unit) -> Fault {
        use crate::state::{cr0, cr4};
        match unit {
            Unit::X87 => Fault::NM,
            Unit::Mmx if self.cr0 & cr0::EM != 0 => Fault::UD,
            Unit::Sse if self.cr0 & cr0::EM != 0 || self.cr4 & cr4::OSFXSR == 0 => Fault::UD,
            Unit::Avx if !self.avx_enabled() => Fault::UD,
            Unit::Mmx | Unit::Sse | Unit::Avx => Fault::NM,
        }
    }

    /// Whether VEX encodings of vector instructions exist now (SDM Vol. 2, "Exception Classes of Instructions").
    fn avx_enabled(&self) -> bool {
        use crate::state::cr4;
        !self.real_mode() && !self.v86() && self.cr4 & cr4::OSXSAVE != 0 && self.state.xcr0 & 6 == 6
    }

    /// All 64 bits of a general register.
    pub(crate) fn reg(&self, r: u8) -> u64 {
        self.state.gpr[usize::from(r & 15)]
    }

    /// Raises #GP(0) unless CPL is 0.
    pub(crate) fn privileged(&self) -> Result<(), Fault> {
        if self.cpl == 0 { Ok(()) } else { Err(Fault::GP0) }
    }
}
