//! The x87 instruction set as data, and its decoding from iced's `Code`.

use iced_x86::Code;

/// The operation, its memory operand's kind, and how it behaves around the FPU's exceptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct X87Insn {
    /// What to do.
    pub op: X87Op,
    /// The memory operand.
    pub memory: Memory,
}

/// The memory operand of an x87 instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// None: registers only.
    None,
    /// m32fp.
    M32Real,
    /// m64fp.
    M64Real,
    /// m80fp.
    M80Real,
    /// m16int.
    M16Int,
    /// m32int.
    M32Int,
    /// m64int.
    M64Int,
    /// m80bcd.
    M80Bcd,
    /// A control or status word.
    M16,
    /// No memory: the result goes to AX.
    Ax,
    /// 14 or 28 bytes, by operand size.
    Env,
    /// 94 or 108 bytes, by operand size.
    State,
}

/// FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR; the reversed ones compute source - destination and source / destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arith {
    /// Addition.
    Add,
    /// Multiplication.
    Mul,
    /// Destination - source.
    Sub,
    /// Source - destination.
    SubR,
    /// Destination / source.
    Div,
    /// Source / destination.
    DivR,
}

/// Destination of register arithmetic; the source is the other one, or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest {
    /// ST(0), from ST(i) or memory.
    St0,
    /// ST(i), from ST(0).
    Sti {
        /// The stack is popped afterwards.
        pop: bool,
    },
}

/// The constants of FLD1 to FLDZ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Constant {
    One,
    Log2Of10,
    Log2OfE,
    Pi,
    Log10Of2,
    LnOf2,
    Zero,
}

/// Operations. ST(i) is the register operand; memory operands are [`X87Insn::memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum X87Op {
    /// FLD, FILD, FBLD from memory, or FLD ST(i).
    Load,
    /// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ.
    LoadConstant(Constant),
    /// FST, FSTP to memory or ST(i); FBSTP.
    Store {
        /// FSTP.
        pop: bool,
    },
    /// FSTPNCE: FSTP ST(i) by its alias D9 D8+i, which raises no stack underflow.
    StoreNoUnderflow,
    /// FIST, FISTP, FISTTP.
    StoreInt {
        /// The stack is popped afterwards.
        pop: bool,
        /// FISTTP.
        truncate: bool,
    },
    /// FXCH ST(i).
    Exchange,
    /// FCMOVcc ST(0), ST(i); the caller passes whether the condition holds as `source`.
    ConditionalMove,
    /// FADD and the like.
    Arith(Arith, Dest),
    /// FCOM, FCOMP, FCOMPP, FUCOM, FUCOMP, FUCOMPP, FICOM, FICOMP.
    Compare {
        /// FUCOM: a QNaN raises nothing.
        quiet: bool,
        /// Number of pops.
        pops: u8,
    },
    /// FCOMI, FCOMIP, FUCOMI, FUCOMIP.
    CompareFlags {
        /// FUCOMI: a QNaN raises nothing.
        quiet: bool,
        /// The stack is popped afterwards.
        pop: bool,
    },
    /// FTST.
    Test,
    /// FXAM.
    Examine,
    /// FCHS.
    Negate,
    /// FABS.
    Absolute,
    /// FSQRT.
    SquareRoot,
    /// FRNDINT.
    RoundToInteger,
    /// FSCALE.
    Scale,
    /// FXTRACT.
    Extract,
    /// FPREM, FPREM1.
    Remainder {
        /// FPREM1.
        nearest: bool,
    },
    /// F2XM1 and the others.
    Transcendental(Transcendental),
    /// FNINIT.
    Init {
        /// FINIT.
        wait: bool,
    },
    /// FLDCW.
    LoadControl,
    /// FNSTCW.
    StoreControl {
        /// FSTCW.
        wait: bool,
    },
    /// FNSTSW, to memory or AX.
    StoreStatus {
        /// FSTSW.
        wait: bool,
    },
    /// FNCLEX.
    ClearExceptions {
        /// FCLEX.
        wait: bool,
    },
    /// FINCSTP.
    IncrementTop,
    /// FDECSTP.
    DecrementTop,
    /// FFREE, FFREEP.
    Free {
        /// FFREEP.
        pop: bool,
    },
    /// FNOP.
    Nop,
    /// FNENI, FNDISI, FNSETPM: nothing since the 387, not even a wait.
    NopNoWait,
    /// WAIT.
    Wait,
    /// FLDENV: use [`super::X87::load_env`].
    LoadEnv,
    /// FNSTENV: use [`super::X87::env_image`].
    StoreEnv {
        /// FSTENV.
        wait: bool,
    },
    /// FRSTOR: use [`super::X87::load_state`].
    LoadState,
    /// FNSAVE: use [`super::X87::state_image`].
    StoreState {
        /// FSAVE.
        wait: bool,
    },
}

/// The transcendental instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transcendental {
    /// F2XM1.
    Exp2Minus1,
    /// FYL2X.
    YLog2X,
    /// FYL2XP1.
    YLog2XPlus1,
    /// FPTAN.
    Tangent,
    /// FPATAN.
    ArcTangent,
    /// FSIN.
    Sine,
    /// FCOS.
    Cosine,
    /// FSINCOS.
    SineCosine,
}

impl X87Insn {
    /// A pending unmasked exception is delivered instead of executing this.
    pub const fn waits(&self) -> bool {
        match self.op {
            X87Op::Init { wait }
            | X87Op::StoreControl { wait }
            | X87Op::StoreStatus { wait }
            | X87Op::ClearExceptions { wait }
            | X87Op::StoreEnv { wait }
            | X87Op::StoreState { wait } => wait,
            X87Op::NopNoWait => false,
            _ => true,
        }
    }

    /// No control instruction (SDM Vol. 1, 8.1.8): the instruction and data pointers are recorded.
    pub const fn records(&self) -> bool {
        !matches!(
            self.op,
            X87Op::Init { .. }
                | X87Op::LoadControl
                | X87Op::StoreControl { .. }
                | X87Op::StoreStatus { .. }
                | X87Op::ClearExceptions { .. }
                | X87Op::LoadEnv
                | X87Op::StoreEnv { .. }
                | X87Op::LoadState
                | X87Op::StoreState { .. }
                | X87Op::NopNoWait
                | X87Op::Wait
        )
    }

    /// The memory operand is written, not read.
    pub const fn stores(&self) -> bool {
        matches!(
            self.op,
            X87Op::Store { .. }
                | X87Op::StoreInt { .. }
                | X87Op::StoreControl { .. }
                | X87Op::StoreStatus { .. }
                | X87Op::StoreEnv { .. }
                | X87Op::StoreState { .. }
        )
    }
}

impl Memory {
    /// Size of a memory operand of fixed size; 0 for none, environments and states.
    pub const fn bytes(self) -> usize {
        match self {
            Memory::M16Int | Memory::M16 => 2,
            Memory::M32Real | Memory::M32Int => 4,
            Memory::M64Real | Memory::M64Int => 8,
            Memory::M80Real | Memory::M80Bcd => 10,
            Memory::None | Memory::Ax | Memory::Env | Memory::State => 0,
        }
    }
}

/// The x87 instruction of an iced code; `None` if it is none, or one that only a 287 or 387 SL knew. FXSAVE and FXRSTOR are the CPU's.
pub fn decode(code: Code) -> Option<X87Insn> {
    let (op, memory) = arithmetic(code)
        .or_else(|| comparison(code))
        .or_else(|| load(code))
        .or_else(|| store(code))
        .or_else(|| register(code).map(|op| (op, Memory::None)))
        .or_else(|| control(code))?;
    Some(X87Insn { op, memory })
}

#[rustfmt::skip]
fn arithmetic(code: Code) -> Option<(X87Op, Memory)> {
    use Arith::{Add, Div, DivR, Mul, Sub, SubR};
    use Memory::{M16Int, M32Int, M32Real, M64Real, None as Reg};
    const STI: Dest = Dest::Sti { pop: false };
    const POP: Dest = Dest::Sti { pop: true };
    let (op, dest, memory) = match code {
        Code::Fadd_m32fp => (Add, Dest::St0, M32Real),
        Code::Fmul_m32fp => (Mul, Dest::St0, M32Real),
        Code::Fsub_m32fp => (Sub, Dest::St0, M32Real),
        Code::Fsubr_m32fp => (SubR, Dest::St0, M32Real),
        Code::Fdiv_m32fp => (Div, Dest::St0, M32Real),
        Code::Fdivr_m32fp => (DivR, Dest::St0, M32Real),
        Code::Fadd_m64fp => (Add, Dest::St0, M64Real),
        Code::Fmul_m64fp => (Mul, Dest::St0, M64Real),
        Code::Fsub_m64fp => (Sub, Dest::St0, M64Real),
        Code::Fsubr_m64fp => (SubR, Dest::St0, M64Real),
        Code::Fdiv_m64fp => (Div, Dest::St0, M64Real),
        Code::Fdivr_m64fp => (DivR, Dest::St0, M64Real),
        Code::Fiadd_m32int => (Add, Dest::St0, M32Int),
        Code::Fimul_m32int => (Mul, Dest::St0, M32Int),
        Code::Fisub_m32int => (Sub, Dest::St0, M32Int),
        Code::Fisubr_m32int => (SubR, Dest::St0, M32Int),
        Code::Fidiv_m32int => (Div, Dest::St0, M32Int),
        Code::Fidivr_m32int => (DivR, Dest::St0, M32Int),
        Code::Fiadd_m16int => (Add, Dest::St0, M16Int),
        Code::Fimul_m16int => (Mul, Dest::St0, M16Int),
        Code::Fisub_m16int => (Sub, Dest::St0, M16Int),
        Code::Fisubr_m16int => (SubR, Dest::St0, M16Int),
        Code::Fidiv_m16int => (Div, Dest::St0, M16Int),
        Code::Fidivr_m16int => (DivR, Dest::St0, M16Int),
        Code::Fadd_st0_sti => (Add, Dest::St0, Reg),
        Code::Fmul_st0_sti => (Mul, Dest::St0, Reg),
        Code::Fsub_st0_sti => (Sub, Dest::St0, Reg),
        Code::Fsubr_st0_sti => (SubR, Dest::St0, Reg),
        Code::Fdiv_st0_sti => (Div, Dest::St0, Reg),
        Code::Fdivr_st0_sti => (DivR, Dest::St0, Reg),
        Code::Fadd_sti_st0 => (Add, STI, Reg),
        Code::Fmul_sti_st0 => (Mul, STI, Reg),
        Code::Fsub_sti_st0 => (Sub, STI, Reg),
        Code::Fsubr_sti_st0 => (SubR, STI, Reg),
        Code::Fdiv_sti_st0 => (Div, STI, Reg),
        Code::Fdivr_sti_st0 => (DivR, STI, Reg),
        Code::Faddp_sti_st0 => (Add, POP, Reg),
        Code::Fmulp_sti_st0 => (Mul, POP, Reg),
        Code::Fsubp_sti_st0 => (Sub, POP, Reg),
        Code::Fsubrp_sti_st0 => (SubR, POP, Reg),
        Code::Fdivp_sti_st0 => (Div, POP, Reg),
        Code::Fdivrp_sti_st0 => (DivR, POP, Reg),
        _ => return None,
    };
    Some((X87Op::Arith(op, dest), memory))
}

#[rustfmt::skip]
fn comparison(code: Code) -> Option<(X87Op, Memory)> {
    use Memory::{M16Int, M32Int, M32Real, M64Real, None as Reg};
    let com = |pops, memory| Some((X87Op::Compare { quiet: false, pops }, memory));
    let ucom = |pops| Some((X87Op::Compare { quiet: true, pops }, Reg));
    let comi = |quiet, pop| Some((X87Op::CompareFlags { quiet, pop }, Reg));
    match code {
        Code::Fcom_m32fp => com(0, M32Real),
        Code::Fcomp_m32fp => com(1, M32Real),
        Code::Fcom_m64fp => com(0, M64Real),
        Code::Fcomp_m64fp => com(1, M64Real),
        Code::Ficom_m32int => com(0, M32Int),
        Code::Ficomp_m32int => com(1, M32Int),
        Code::Ficom_m16int => com(0, M16Int),
        Code::Ficomp_m16int => com(1, M16Int),
        Code::Fcom_st0_sti | Code::Fcom_st0_sti_DCD0 => com(0, Reg),
        Code::Fcomp_st0_sti | Code::Fcomp_st0_sti_DCD8 | Code::Fcomp_st0_sti_DED0 => com(1, Reg),
        Code::Fcompp => com(2, Reg),
        Code::Fucom_st0_sti => ucom(0),
        Code::Fucomp_st0_sti => ucom(1),
        Code::Fucompp => ucom(2),
        Code::Fcomi_st0_sti => comi(false, false),
        Code::Fcomip_st0_sti => comi(false, true),
        Code::Fucomi_st0_sti => comi(true, false),
        Code::Fucomip_st0_sti => comi(true, true),
        _ => None,
    }
}

#[rustfmt::skip]
fn load(code: Code) -> Option<(X87Op, Memory)> {
    let constant = |constant| Some((X87Op::LoadConstant(constant), Memory::None));
    let memory = match code {
        Code::Fld_sti => Memory::None,
        Code::Fld_m32fp => Memory::M32Real,
        Code::Fld_m64fp => Memory::M64Real,
        Code::Fld_m80fp => Memory::M80Real,
        Code::Fild_m16int => Memory::M16Int,
        Code::Fild_m32int => Memory::M32Int,
        Code::Fild_m64int => Memory::M64Int,
        Code::Fbld_m80bcd => Memory::M80Bcd,
        Code::Fld1 => return constant(Constant::One),
        Code::Fldl2t => return constant(Constant::Log2Of10),
        Code::Fldl2e => return constant(Constant::Log2OfE),
        Code::Fldpi => return constant(Constant::Pi),
        Code::Fldlg2 => return constant(Constant::Log10Of2),
        Code::Fldln2 => return constant(Constant::LnOf2),
        Code::Fldz => return constant(Constant::Zero),
        _ => return None,
    };
    Some((X87Op::Load, memory))
}

#[rustfmt::skip]
fn store(code: Code) -> Option<(X87Op, Memory)> {
    use Memory::{M16Int, M32Int, M32Real, M64Int, M64Real, M80Bcd, M80Real, None as Reg};
    let st = |pop, memory| Some((X87Op::Store { pop }, memory));
    let int = |pop, truncate, memory| Some((X87Op::StoreInt { pop, truncate }, memory));
    match code {
        Code::Fst_m32fp => st(false, M32Real),
        Code::Fst_m64fp => st(false, M64Real),
        Code::Fst_sti => st(false, Reg),
        Code::Fstp_m32fp => st(true, M32Real),
        Code::Fstp_m64fp => st(true, M64Real),
        Code::Fstp_m80fp => st(true, M80Real),
        Code::Fbstp_m80bcd => st(true, M80Bcd),
        Code::Fstp_sti | Code::Fstp_sti_DFD0 | Code::Fstp_sti_DFD8 => st(true, Reg),
        Code::Fstpnce_sti => Some((X87Op::StoreNoUnderflow, Reg)),
        Code::Fist_m16int => int(false, false, M16Int),
        Code::Fist_m32int => int(false, false, M32Int),
        Code::Fistp_m16int => int(true, false, M16Int),
        Code::Fistp_m32int => int(true, false, M32Int),
        Code::Fistp_m64int => int(true, false, M64Int),
        Code::Fisttp_m16int => int(true, true, M16Int),
        Code::Fisttp_m32int => int(true, true, M32Int),
        Code::Fisttp_m64int => int(true, true, M64Int),
        _ => None,
    }
}

#[rustfmt::skip]
fn register(code: Code) -> Option<X87Op> {
    Some(match code {
        Code::Fxch_st0_sti | Code::Fxch_st0_sti_DDC8 | Code::Fxch_st0_sti_DFC8 => X87Op::Exchange,
        Code::Fcmovb_st0_sti | Code::Fcmove_st0_sti | Code::Fcmovbe_st0_sti | Code::Fcmovu_st0_sti
        | Code::Fcmovnb_st0_sti | Code::Fcmovne_st0_sti | Code::Fcmovnbe_st0_sti | Code::Fcmovnu_st0_sti => X87Op::ConditionalMove,
        Code::Ftst => X87Op::Test,
        Code::Fxam => X87Op::Examine,
        Code::Fchs => X87Op::Negate,
        Code::Fabs => X87Op::Absolute,
        Code::Fsqrt => X87Op::SquareRoot,
        Code::Frndint => X87Op::RoundToInteger,
        Code::Fscale => X87Op::Scale,
        Code::Fxtract => X87Op::Extract,
        Code::Fprem => X87Op::Remainder { nearest: false },
        Code::Fprem1 => X87Op::Remainder { nearest: true },
        Code::F2xm1 => X87Op::Transcendental(Transcendental::Exp2Minus1),
        Code::Fyl2x => X87Op::Transcendental(Transcendental::YLog2X),
        Code::Fyl2xp1 => X87Op::Transcendental(Transcendental::YLog2XPlus1),
        Code::Fptan => X87Op::Transcendental(Transcendental::Tangent),
        Code::Fpatan => X87Op::Transcendental(Transcendental::ArcTangent),
        Code::Fsin => X87Op::Transcendental(Transcendental::Sine),
        Code::Fcos => X87Op::Transcendental(Transcendental::Cosine),
        Code::Fsincos => X87Op::Transcendental(Transcendental::SineCosine),
        Code::Fincstp => X87Op::IncrementTop,
        Code::Fdecstp => X87Op::DecrementTop,
        Code::Ffree_sti => X87Op::Free { pop: false },
        Code::Ffreep_sti => X87Op::Free { pop: true },
        Code::Fnop => X87Op::Nop,
        Code::Fneni | Code::Fndisi | Code::Fnsetpm => X87Op::NopNoWait,
        Code::Feni | Code::Fdisi | Code::Fsetpm | Code::Wait => X87Op::Wait,
        _ => return None,
    })
}

#[rustfmt::skip]
fn control(code: Code) -> Option<(X87Op, Memory)> {
    Some(match code {
        Code::Fninit => (X87Op::Init { wait: false }, Memory::None),
        Code::Finit => (X87Op::Init { wait: true }, Memory::None),
        Code::Fldcw_m2byte => (X87Op::LoadControl, Memory::M16),
        Code::Fnstcw_m2byte => (X87Op::StoreControl { wait: false }, Memory::M16),
        Code::Fstcw_m2byte => (X87Op::StoreControl { wait: true }, Memory::M16),
        Code::Fnstsw_m2byte => (X87Op::StoreStatus { wait: false }, Memory::M16),
        Code::Fstsw_m2byte => (X87Op::StoreStatus { wait: true }, Memory::M16),
        Code::Fnstsw_AX => (X87Op::StoreStatus { wait: false }, Memory::Ax),
        Code::Fstsw_AX => (X87Op::StoreStatus { wait: true }, Memory::Ax),
        Code::Fnclex => (X87Op::ClearExceptions { wait: false }, Memory::None),
        Code::Fclex => (X87Op::ClearExceptions { wait: true }, Memory::None),
        Code::Fldenv_m14byte | Code::Fldenv_m28byte => (X87Op::LoadEnv, Memory::Env),
        Code::Fnstenv_m14byte | Code::Fnstenv_m28byte => (X87Op::StoreEnv { wait: false }, Memory::Env),
        Code::Fstenv_m14byte | Code::Fstenv_m28byte => (X87Op::StoreEnv { wait: true }, Memory::Env),
        Code::Frstor_m94byte | Code::Frstor_m108byte => (X87Op::LoadState, Memory::State),
        Code::Fnsave_m94byte | Code::Fnsave_m108byte => (X87Op::StoreState { wait: false }, Memory::State),
        Code::Fsave_m94byte | Code::Fsave_m108byte => (X87Op::StoreState { wait: true }, Memory::State),
        _ => return None,
    })
}
