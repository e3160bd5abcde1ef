//! Runs the same instructions by their plans: what a CPU does with a `VecInsn`.

use super::host::{Fault, Form, State};
use egret_isa::fp::Env;
use egret_isa::vec::{Mem, MmxState, Op, Operand, VecInsn, compare, compare_strings, eval_fp, eval2, eval2_mmx, eval3};
use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};

/// A decoded instruction with its plan.
pub struct Insn {
    pub insn: Instruction,
    pub plan: VecInsn,
    pub form: Form,
}

impl Insn {
    pub fn new(bytes: &[u8], plan: VecInsn, form: Form) -> Insn {
        let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        assert_eq!(insn.len(), bytes.len());
        Insn { insn, plan, form }
    }

    fn imm(&self) -> u8 {
        let last = self.insn.op_count().wrapping_sub(1);
        if self.insn.op_count() > 0 && self.insn.op_kind(last) == OpKind::Immediate8 { self.insn.immediate8() } else { 0 }
    }

    fn register(&self, n: u32) -> usize {
        let register = self.insn.op_register(n);
        assert!(register != Register::None, "{}: operand {n}", self.insn);
        register.number()
    }

    fn read(&self, s: &State, what: Operand, n: u32) -> u128 {
        match what {
            Operand::None => 0,
            Operand::Xmm => s.xmm[self.register(n)],
            Operand::Mm => s.mm[self.register(n)].into(),
            Operand::Gpr32 => (s.gpr[self.register(n)] as u32).into(),
            Operand::Gpr64 => s.gpr[self.register(n)].into(),
            Operand::Imm8 => self.imm().into(),
            Operand::Mxcsr => s.mxcsr.into(),
            _ => panic!("{}: {what:?} is not read", self.insn),
        }
    }

    fn write(&self, s: &mut State, v: u128) {
        match self.plan.dst {
            Operand::None => {}
            Operand::Xmm => s.xmm[self.register(0)] = v,
            Operand::Mm => s.mm[self.register(0)] = v as u64,
            Operand::Gpr32 => s.gpr[self.register(0)] = u64::from(v as u32),
            Operand::Gpr64 => s.gpr[self.register(0)] = v as u64,
            Operand::Mxcsr => s.mxcsr = v as u32,
            Operand::Ecx => s.gpr[1] = v as u64,
            Operand::Xmm0 => s.xmm[0] = v,
            Operand::Mem | Operand::Flags | Operand::Imm8 | Operand::Field | Operand::XmmField => panic!("{}: not written", self.insn),
        }
    }

    /// Does what the plan says.
    pub fn run(&self, s: &mut State) {
        let (plan, imm) = (&self.plan, self.plan.immediate(self.imm().into()));
        let memory = self.form == Form::Memory;
        let first = u32::from(plan.op == Op::MaskedStore);
        if let Mem::Load { aligned: true, .. } | Mem::Store { aligned: true, .. } = plan.mem
            && memory
            && !s.offset.is_multiple_of(16)
        {
            s.fault = Fault::Protection;
            return;
        }
        let a = self.read(s, plan.a(memory), first);
        let b = match plan.mem {
            Mem::Load { bytes, .. } if memory => low_bytes(memory_operand(s), bytes),
            _ => self.read(s, plan.b, first + u32::from(plan.b != Operand::Imm8 && self.insn.op_count() > 1)),
        };
        let entered = match plan.mmx {
            MmxState::Untouched => false,
            MmxState::Entered => true,
            MmxState::EnteredByRegister => !memory,
        };
        if entered {
            s.tags = 0;
        }
        let result = match plan.op(memory) {
            Op::Vec(op) if plan.mmx_lanes => eval2_mmx(op, a as u64, b as u64, imm).into(),
            Op::Vec(op) => eval2(op, a, b, imm),
            Op::Vec3(op) => eval3(op, a, b, s.xmm[0]),
            Op::Test(None) => {
                let (zf, cf) = (a & b == 0, !a & b == 0);
                s.flags = u64::from(zf) << 6 | u64::from(cf);
                return;
            }
            Op::Strings(op) => {
                let r = compare_strings(op, a, b, s.gpr[0], s.gpr[2], imm);
                s.flags = u64::from(r.of) << 11 | u64::from(r.sf) << 7 | u64::from(r.zf) << 6 | u64::from(r.cf);
                r.value
            }
            Op::MaskedStore => {
                let Mem::Store { bytes, .. } = plan.mem else { panic!("a masked store stores") };
                let stored = masked(memory_operand(s), a, b, bytes);
                return set_memory_operand(s, stored);
            }
            Op::Emms => {
                s.tags = 0xffff;
                return;
            }
            op => return self.run_fp(op, s, a, b, imm),
        };
        self.finish(s, result);
    }

    /// Writes the result where the form says.
    pub fn finish(&self, s: &mut State, result: u128) {
        match self.plan.mem {
            Mem::Store { bytes, .. } if self.form == Form::Memory => {
                let old = memory_operand(s);
                set_memory_operand(s, old ^ low_bytes(old ^ result, bytes));
            }
            _ => self.write(s, result),
        }
    }

    fn run_fp(&self, op: Op, s: &mut State, a: u128, b: u128, imm: u8) {
        let mut env = Env::from_mxcsr(s.mxcsr);
        let (mut result, mut flags) = (0, 0);
        match op {
            Op::Fp(op) => result = eval_fp(op, &mut env, a, b, imm),
            Op::Compare { fmt, signaling } => {
                let (zf, pf, cf) = compare(fmt, signaling, &mut env, a, b).zf_pf_cf();
                flags = u64::from(zf) << 6 | u64::from(pf) << 2 | u64::from(cf);
            }
            op => panic!("{op:?}"),
        }
        s.mxcsr = env.mxcsr();
        if !env.unmasked().is_empty() {
            s.fault = Fault::FloatingPoint;
        } else if self.plan.dst == Operand::Flags {
            s.flags = flags;
        } else {
            self.finish(s, result);
        }
    }
}

/// 16 bytes from the memory operand's address.
fn memory_operand(s: &State) -> u128 {
    match s.offset as u32 * 8 {
        0 => s.memory[0],
        128 => s.memory[1],
        n => s.memory[0] >> n | s.memory[1] << (128 - n),
    }
}

fn set_memory_operand(s: &mut State, v: u128) {
    match s.offset as u32 * 8 {
        0 => s.memory[0] = v,
        128 => s.memory[1] = v,
        n => {
            s.memory[0] = s.memory[0] & ((1 << n) - 1) | v << n;
            s.memory[1] = s.memory[1] >> n << n | v >> (128 - n);
        }
    }
}

fn low_bytes(v: u128, bytes: u8) -> u128 {
    if bytes >= 16 { v } else { v & ((1 << (8 * u32::from(bytes))) - 1) }
}

fn masked(memory: u128, data: u128, mask: u128, bytes: u8) -> u128 {
    let mut out = memory.to_le_bytes();
    for n in (0..usize::from(bytes)).filter(|&n| mask.to_le_bytes()[n] & 0x80 != 0) {
        out[n] = data.to_le_bytes()[n];
    }
    u128::from_le_bytes(out)
}
