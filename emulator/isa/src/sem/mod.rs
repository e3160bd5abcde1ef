//! What each mnemonic does, written once. [`lookup`] is the table; the functions are in the files by kind.
//!
//! Mnemonics that are not here are run by the CPU's own functions through [`Emit::call`].

mod alu;
pub mod avx;
mod bits;
mod bmi;
mod control;
mod data;
pub mod muldiv;
mod operand;
mod shift;
mod stack;
pub mod vector;

use crate::emit::Emit;
use crate::insn::Insn;
use iced_x86::Mnemonic as M;

/// One mnemonic's semantics.
pub type Semantics<E> = fn(&mut E, &Insn) -> Result<(), <E as Emit>::Fault>;

/// The semantics of an instruction, or `None` when the CPU has a function for it instead (or nobody knows it).
#[must_use]
pub fn lookup<E: Emit>(i: &Insn) -> Option<Semantics<E>> {
    alu_table(i).or_else(|| data_table(i)).or_else(|| control_table(i)).or_else(|| vector_table(i))
}

fn alu_table<E: Emit>(i: &Insn) -> Option<Semantics<E>> {
    Some(match i.mnemonic {
        M::Add => alu::add,
        M::Or => alu::or,
        M::Adc => alu::adc,
        M::Sbb => alu::sbb,
        M::And => alu::and,
        M::Sub => alu::sub,
        M::Xor => alu::xor,
        M::Cmp => alu::cmp,
        M::Test => alu::test,
        M::Inc => alu::inc,
        M::Dec => alu::dec,
        M::Neg => alu::neg,
        M::Not => alu::not,
        M::Shl | M::Sal => shift::shl,
        M::Shr => shift::shr,
        M::Sar => shift::sar,
        M::Rol => shift::rol,
        M::Ror => shift::ror,
        M::Shld => shift::shld,
        M::Shrd => shift::shrd,
        M::Mul => muldiv::mul,
        M::Imul => muldiv::imul,
        M::Div => muldiv::div,
        M::Idiv => muldiv::idiv,
        M::Bt => bits::bt,
        M::Bts => bits::bts,
        M::Btr => bits::btr,
        M::Btc => bits::btc,
        M::Bsf => bits::bsf,
        M::Bsr => bits::bsr,
        M::Popcnt => bits::popcnt,
        _ => return bmi_table(i),
    })
}

fn bmi_table<E: Emit>(i: &Insn) -> Option<Semantics<E>> {
    Some(match i.mnemonic {
        M::Andn => bmi::andn,
        M::Bextr => bmi::bextr,
        M::Blsi => bmi::blsi,
        M::Blsmsk => bmi::blsmsk,
        M::Blsr => bmi::blsr,
        M::Bzhi => bmi::bzhi,
        M::Mulx => bmi::mulx,
        M::Rorx => bmi::rorx,
        M::Sarx | M::Shlx | M::Shrx => bmi::shiftx,
        M::Lzcnt => bmi::lzcnt,
        M::Tzcnt => bmi::tzcnt,
        M::Adcx => bmi::adcx,
        M::Adox => bmi::adox,
        M::Movbe => bmi::movbe,
        _ => return None,
    })
}

fn data_table<E: Emit>(i: &Insn) -> Option<Semantics<E>> {
    use crate::insn::Operand as O;
    let system = |o: &O| matches!(o, O::Seg(_) | O::Cr(_) | O::Dr(_) | O::Other);
    Some(match i.mnemonic {
        // Loading a segment, control or debug register is the CPU's business; reading a selector is not.
        M::Mov if system(&i.ops[0]) || matches!(i.ops[1], O::Cr(_) | O::Dr(_) | O::Other) => return None,
        M::Pop if system(&i.ops[0]) => return None,
        M::Mov => data::mov,
        M::Movzx => data::movzx,
        M::Movsx | M::Movsxd => data::movsx,
        M::Lea => data::lea,
        M::Xchg => data::xchg,
        M::Xadd => data::xadd,
        M::Cmpxchg => data::cmpxchg,
        M::Bswap => data::bswap,
        M::Xlatb => data::xlatb,
        M::Cbw | M::Cwde | M::Cdqe => data::sign_extend_a,
        M::Cwd | M::Cdq | M::Cqo => data::sign_extend_da,
        M::Lahf => data::lahf,
        M::Sahf => data::sahf,
        M::Clc => data::clc,
        M::Stc => data::stc,
        M::Cmc => data::cmc,
        M::Nop | M::Endbr32 | M::Endbr64 | M::Lfence | M::Sfence => data::nop,
        M::Prefetch | M::Prefetchw | M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Reservednop => data::nop,
        M::Prefetchwt1 | M::Prefetchit0 | M::Prefetchit1 | M::Cldemote | M::Rdsspd | M::Rdsspq => data::nop,
        M::Push => stack::push,
        M::Pop => stack::pop,
        M::Leave => stack::leave,
        m if is_set(m) => data::setcc,
        m if is_cmov(m) => data::cmovcc,
        _ => return None,
    })
}

fn control_table<E: Emit>(i: &Insn) -> Option<Semantics<E>> {
    use crate::insn::Operand as O;
    Some(match i.mnemonic {
        M::Jmp if matches!(i.ops[0], O::Rel) => control::jmp_rel,
        M::Jmp if near_indirect(i) => control::jmp,
        M::Call if matches!(i.ops[0], O::Rel) => control::call_rel,
        M::Call if near_indirect(i) => control::call,
        M::Ret => control::ret,
        M::Loop | M::Loope | M::Loopne => control::loop_,
        M::Jcxz | M::Jecxz | M::Jrcxz => control::jcxz,
        m if is_jcc(m) => control::jcc,
        _ => return None,
    })
}

fn vector_table<E: Emit>(i: &Insn) -> Option<Semantics<E>> {
    vector::has_ops(i).then_some(vector::execute)
}

fn near_indirect(i: &Insn) -> bool {
    use iced_x86::Code::*;
    matches!(i.code, Jmp_rm16 | Jmp_rm32 | Jmp_rm64 | Call_rm16 | Call_rm32 | Call_rm64)
}

fn is_jcc(m: M) -> bool {
    use M::*;
    matches!(m, Jo | Jno | Jb | Jae | Je | Jne | Jbe | Ja | Js | Jns | Jp | Jnp | Jl | Jge | Jle | Jg)
}

fn is_set(m: M) -> bool {
    use M::*;
    matches!(m, Seto | Setno | Setb | Setae | Sete | Setne | Setbe | Seta | Sets | Setns | Setp | Setnp | Setl | Setge | Setle | Setg)
}

fn is_cmov(m: M) -> bool {
    use M::*;
    matches!(
        m,
        Cmovo
            | Cmovno
            | Cmovb
            | Cmovae
            | Cmove
            | Cmovne
            | Cmovbe
            | Cmova
            | Cmovs
            | Cmovns
            | Cmovp
            | Cmovnp
            | Cmovl
            | Cmovge
            | Cmovle
            | Cmovg
    )
}

/// Whether an instruction ends a block: whatever follows it in memory need not follow it in time.
#[must_use]
pub fn ends_block(i: &Insn) -> bool {
    if alu_table::<crate::ir::Recorder>(i).is_some() || data_table::<crate::ir::Recorder>(i).is_some() {
        return false;
    }
    if control_table::<crate::ir::Recorder>(i).is_some() {
        return true;
    }
    !is_plain_call(i)
}

/// Whether the CPU's function for `i` changes neither the instruction pointer nor the context: everything but
/// control transfers, and instructions after which decoding or paging may differ.
fn is_plain_call(i: &Insn) -> bool {
    use M::*;
    if i.mnemonic == Mov {
        return matches!(i.ops[0], crate::insn::Operand::Reg(..));
    }
    matches!(
        i.mnemonic,
        Rcl | Rcr
            | Aaa
            | Aas
            | Aad
            | Aam
            | Daa
            | Das
            | Salc
            | Cld
            | Std
            | Pushf
            | Pushfd
            | Pushfq
            | Pusha
            | Pushad
            | Popa
            | Popad
            | Enter
            | Bound
            | Arpl
            | Lar
            | Lsl
            | Verr
            | Verw
            | Str
            | Sldt
            | Smsw
            | Sgdt
            | Sidt
            | Rdtsc
            | Cpuid
            | Pause
            | Cmpxchg8b
            | Cmpxchg16b
            | Pdep
            | Pext
            | Crc32
            | Rdrand
            | Rdseed
            | Clflushopt
            | Clwb
            | Clzero
    ) || is_single_string(i)
        || is_unit(i)
}

/// x87, MMX, SSE and AVX instructions: they may fault, but go on to the next instruction. What loads MXCSR can change
/// [`crate::insn::Ctx::FP_MASKED`].
fn is_unit(i: &Insn) -> bool {
    use iced_x86::CpuidFeature as F;
    let loads_mxcsr = matches!(i.mnemonic, M::Ldmxcsr | M::Vldmxcsr | M::Fxrstor | M::Fxrstor64);
    !loads_mxcsr
        && i.code.cpuid_features().iter().any(|f| {
            matches!(
                f,
                F::FPU
                    | F::FPU287
                    | F::FPU387
                    | F::MMX
                    | F::SSE
                    | F::SSE2
                    | F::SSE3
                    | F::SSSE3
                    | F::SSE4_1
                    | F::SSE4_2
                    | F::SSE4A
                    | F::AES
                    | F::PCLMULQDQ
                    | F::SHA
                    | F::AVX
                    | F::AVX2
                    | F::FMA
                    | F::F16C
                    | F::VAES
                    | F::VPCLMULQDQ
                    | F::CLFSH
                    | F::FXSR
                    | F::CMOV
            )
        })
}

/// String instructions without REP. With it they may stop half-way, the instruction pointer still on them.
fn is_single_string(i: &Insn) -> bool {
    use M::*;
    i.rep == crate::insn::Rep::None
        && matches!(
            i.mnemonic,
            Movsb
                | Movsw
                | Movsd
                | Movsq
                | Stosb
                | Stosw
                | Stosd
                | Stosq
                | Lodsb
                | Lodsw
                | Lodsd
                | Lodsq
                | Scasb
                | Scasw
                | Scasd
                | Scasq
                | Cmpsb
                | Cmpsw
                | Cmpsd
                | Cmpsq
        )
}
