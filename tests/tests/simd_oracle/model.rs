//! Runs the same instructions by their plans: what a CPU does with a `VecInsn`.

use super::host::{Form, State};
use egret_isa::vec::{Mem, MmxState, Op, Operand, VecInsn, eval2, eval2_mmx};
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
            Operand::Mem | Operand::Flags => panic!("{}: {what:?} is not read", self.insn),
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
            Operand::Mem | Operand::Flags | Operand::Imm8 => panic!("{}: not written", self.insn),
        }
    }

    /// Does what the plan says.
    pub fn run(&self, s: &mut State) {
        let (plan, imm) = (&self.plan, self.imm());
        let memory = self.form == Form::Memory;
        let first = u32::from(plan.op == Op::MaskedStore);
        let a = self.read(s, plan.a(memory), first);
        let b = match plan.mem {
            Mem::Load { bytes, .. } if memory => low_bytes(s.memory[0], bytes),
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
            Op::MaskedStore => {
                let Mem::Store { bytes, .. } = plan.mem else { panic!("a masked store stores") };
                return masked_store(&mut s.memory[0], a, b, bytes);
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
                s.memory[0] ^= low_bytes(s.memory[0] ^ result, bytes);
            }
            _ => self.write(s, result),
        }
    }

    fn run_fp(&self, op: Op, _s: &mut State, _a: u128, _b: u128, _imm: u8) {
        panic!("{op:?}")
    }
}

fn low_bytes(v: u128, bytes: u8) -> u128 {
    if bytes >= 16 { v } else { v & ((1 << (8 * u32::from(bytes))) - 1) }
}

fn masked_store(memory: &mut u128, data: u128, mask: u128, bytes: u8) {
    let mut out = memory.to_le_bytes();
    for n in (0..usize::from(bytes)).filter(|&n| mask.to_le_bytes()[n] & 0x80 != 0) {
        out[n] = data.to_le_bytes()[n];
    }
    *memory = u128::from_le_bytes(out);
}
