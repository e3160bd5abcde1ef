//! The CPU as an implementor of the ops: running a semantics function on it is interpreting the instruction.
//!
//! While an instruction runs, `state.rip` is already the next instruction's.

use crate::Cpu;
use crate::fault::Fault;
use crate::functions;
use crate::state::LazyFlags;
use egret_isa::emit::{Emit, Raise, Unit};
use egret_isa::flags::{ARITH, CF, PF, ZF};
use egret_isa::fp::Env;
use egret_isa::insn::{Ctx, Insn, Seg};
use egret_isa::ops::{Bin, Cond, FlagsOp, Rel, Un, Width};
use egret_isa::sem::muldiv::divide_values;
use egret_isa::vec::{self, FmaOp, Fmt, FpOp, Vec3Op, VecOp};

impl Emit for Cpu {
    type V = u64;
    type X = u128;
    type Fault = Fault;

    #[inline(always)]
    fn imm(&mut self, value: u64) -> u64 {
        value
    }

    #[inline(always)]
    fn gpr(&mut self, r: u8, w: Width) -> u64 {
        self.state.gpr[usize::from(r & 15)] & w.mask()
    }

    #[inline(always)]
    fn set_gpr(&mut self, r: u8, w: Width, v: u64) {
        let slot = &mut self.state.gpr[usize::from(r & 15)];
        *slot = match w {
            Width::Q => v,
            Width::D => v & 0xffff_ffff,
            Width::W => *slot & !0xffff | v & 0xffff,
            Width::B => *slot & !0xff | v & 0xff,
        };
    }

    #[inline(always)]
    fn selector(&mut self, seg: Seg) -> u64 {
        self.state.seg[seg as usize].selector.into()
    }

    #[inline(always)]
    fn bin(&mut self, op: Bin, w: Width, a: u64, b: u64) -> u64 {
        op.eval(w, a, b)
    }

    #[inline(always)]
    fn un(&mut self, op: Un, w: Width, a: u64) -> u64 {
        op.eval(w, a)
    }

    #[inline(always)]
    fn rel(&mut self, op: Rel, w: Width, a: u64, b: u64) -> u64 {
        op.eval(w, a, b).into()
    }

    #[inline(always)]
    fn sext(&mut self, from: Width, to: Width, a: u64) -> u64 {
        from.sext(a) & to.mask()
    }

    #[inline(always)]
    fn trunc(&mut self, w: Width, a: u64) -> u64 {
        a & w.mask()
    }

    #[inline(always)]
    fn select(&mut self, c: u64, a: u64, b: u64) -> u64 {
        if c != 0 { a } else { b }
    }

    #[inline(always)]
    fn when<F>(&mut self, c: u64, f: F) -> Result<(), Fault>
    where
        F: FnOnce(&mut Self) -> Result<(), Fault>,
    {
        if c != 0 { f(self) } else { Ok(()) }
    }

    #[inline(always)]
    fn raise_if(&mut self, c: u64, what: Raise) -> Result<(), Fault> {
        if c == 0 {
            return Ok(());
        }
        Err(match what {
            Raise::DivideError => Fault::DE,
            Raise::InvalidOpcode => Fault::UD,
            Raise::GeneralProtection => Fault::GP0,
        })
    }

    #[inline]
    fn div(&mut self, w: Width, signed: bool, hi: u64, lo: u64, d: u64) -> Result<(u64, u64), Fault> {
        if !signed && hi == 0 && d != 0 {
            return Ok((lo / d, lo % d));
        }
        divide_values(w, signed, hi, lo, d).ok_or(Fault::DE)
    }

    #[inline(always)]
    fn load(&mut self, seg: Seg, offset: u64, w: Width) -> Result<u64, Fault> {
        self.read(seg, offset, w.bytes())
    }

    #[inline(always)]
    fn store(&mut self, seg: Seg, offset: u64, w: Width, v: u64) -> Result<(), Fault> {
        self.write(seg, offset, w.bytes(), v)
    }

    #[inline(always)]
    fn rmw<F>(&mut self, seg: Seg, offset: u64, w: Width, lock: bool, mut f: F) -> Result<(), Fault>
    where
        F: FnMut(&mut Self, u64) -> u64,
    {
        let linear = match self.linear(seg, offset, w.bytes().into(), true) {
            Ok(linear) => linear,
            Err(fault) if !self.wraps() => return Err(fault),
            Err(fault) => {
                let old = self.read(seg, offset, w.bytes())?;
                let new = f(self, old);
                return self.write_wrapped(seg, offset, w.bytes(), new, fault);
            }
        };
        if lock {
            return self.rmw_locked(seg, linear, w.bytes(), f);
        }
        // The write is probed first, so that neither `f` nor a device sees half an instruction.
        let old = self.read_for_write(seg, linear, w.bytes())?;
        let new = f(self, old);
        self.write_linear(seg, linear, w.bytes(), new)
    }

    fn load_x(&mut self, seg: Seg, offset: u64, bytes: u8, aligned: bool) -> Result<u128, Fault> {
        if aligned && self.misaligned(seg, offset, bytes) {
            return Err(Fault::GP0);
        }
        let linear = self.linear(seg, offset, bytes.into(), false)?;
        if bytes == 16 { self.read_16(seg, linear) } else { self.read_linear(seg, linear, bytes).map(u128::from) }
    }

    fn store_x(&mut self, seg: Seg, offset: u64, bytes: u8, aligned: bool, v: u128) -> Result<(), Fault> {
        if aligned && self.misaligned(seg, offset, bytes) {
            return Err(Fault::GP0);
        }
        let linear = self.linear(seg, offset, bytes.into(), true)?;
        if bytes == 16 { self.write_16(seg, linear, v) } else { self.write_linear(seg, linear, bytes, v as u64) }
    }

    fn load_y(&mut self, seg: Seg, offset: u64, aligned: bool) -> Result<(u128, u128), Fault> {
        if aligned && self.misaligned(seg, offset, 32) {
            return Err(Fault::GP0);
        }
        let linear = self.linear(seg, offset, 32, false)?;
        self.read_32(seg, linear)
    }

    fn store_y(&mut self, seg: Seg, offset: u64, aligned: bool, low: u128, high: u128) -> Result<(), Fault> {
        if aligned && self.misaligned(seg, offset, 32) {
            return Err(Fault::GP0);
        }
        let linear = self.linear(seg, offset, 32, true)?;
        self.write_32(seg, linear, low, high)
    }

    #[inline(always)]
    fn flags(&mut self, op: FlagsOp, w: Width, a: u64, b: u64, r: u64) {
        self.state.flags = LazyFlags { r, a, b, kind: LazyFlags::kind(op, w) };
    }

    #[inline]
    fn flags_word(&mut self) -> u64 {
        self.state.flags.lazy().flags().into()
    }

    #[inline]
    fn set_flags_word(&mut self, mask: u32, v: u64) {
        let old = if mask & ARITH == ARITH { 0 } else { self.state.flags.lazy().flags() };
        self.state.flags = LazyFlags::word(old & !mask | v as u32 & mask);
    }

    #[inline(always)]
    fn cond(&mut self, cond: Cond) -> u64 {
        self.state.flags.lazy().cond(cond).into()
    }

    #[inline(always)]
    fn next_ip(&mut self, _i: &Insn) -> u64 {
        self.state.rip
    }

    #[inline(always)]
    fn check_ip(&mut self, target: u64) -> Result<(), Fault> {
        let ok = if self.code64() { self.is_canonical(target) } else { target <= u64::from(self.state.seg[Seg::Cs as usize].limit) };
        if ok { Ok(()) } else { Err(Fault::GP0) }
    }

    #[inline(always)]
    fn jump(&mut self, target: u64) {
        self.state.rip = target;
    }

    #[inline(always)]
    fn branch(&mut self, c: Option<u64>, i: &Insn) -> Result<(), Fault> {
        if c.is_none_or(|c| c != 0) {
            let target = self.state.rip.wrapping_add(i.imm) & i.opsize.mask();
            self.check_ip(target)?;
            self.state.rip = target;
        }
        Ok(())
    }

    #[inline(always)]
    fn xmm(&mut self, r: u8) -> u128 {
        self.state.xmm[usize::from(r & 15)]
    }

    #[inline(always)]
    fn set_xmm(&mut self, r: u8, v: u128) {
        self.state.xmm[usize::from(r & 15)] = v;
    }

    #[inline(always)]
    fn ymm_hi(&mut self, r: u8) -> u128 {
        self.state.ymm_hi[usize::from(r & 15)]
    }

    #[inline(always)]
    fn set_ymm_hi(&mut self, r: u8, v: u128) {
        self.state.ymm_hi[usize::from(r & 15)] = v;
    }

    #[inline(always)]
    fn x_of(&mut self, v: u64) -> u128 {
        v.into()
    }

    #[inline(always)]
    fn v_of(&mut self, w: Width, x: u128) -> u64 {
        x as u64 & w.mask()
    }

    #[inline]
    fn vec(&mut self, op: VecOp, a: u128, b: u128, imm: u8) -> u128 {
        vec::eval2(op, a, b, imm)
    }

    #[inline]
    fn vec3(&mut self, op: Vec3Op, a: u128, b: u128, c: u128) -> u128 {
        vec::eval3(op, a, b, c)
    }

    #[inline]
    fn fma(&mut self, op: FmaOp, a: u128, b: u128, c: u128) -> Result<u128, Fault> {
        let mut env = Env::from_mxcsr(self.state.mxcsr);
        let r = vec::eval_fma(op, &mut env, a, b, c);
        self.settle(&env)?;
        Ok(r)
    }

    #[inline]
    fn fp(&mut self, op: FpOp, a: u128, b: u128, imm: u8) -> Result<u128, Fault> {
        let mut env = Env::from_mxcsr(self.state.mxcsr);
        let r = vec::eval_fp(op, &mut env, a, b, imm);
        self.settle(&env)?;
        Ok(r)
    }

    #[inline]
    fn fp_compare(&mut self, fmt: Fmt, signaling: bool, a: u128, b: u128) -> Result<u64, Fault> {
        let mut env = Env::from_mxcsr(self.state.mxcsr);
        let (zf, pf, cf) = vec::compare(fmt, signaling, &mut env, a, b).zf_pf_cf();
        self.settle(&env)?;
        let bit = |on: bool, mask: u32| if on { u64::from(mask) } else { 0 };
        Ok(bit(zf, ZF) | bit(pf, PF) | bit(cf, CF))
    }

    #[inline(always)]
    fn require(&mut self, unit: Unit) -> Result<(), Fault> {
        let bit = match unit {
            Unit::X87 => Ctx::X87,
            Unit::Mmx => Ctx::MMX,
            Unit::Sse => Ctx::SSE,
            Unit::Avx => Ctx::AVX,
        };
        if self.state.ctx.has(bit) { Ok(()) } else { Err(self.unit_off(unit)) }
    }

    fn call(&mut self, i: &Insn) -> Result<(), Fault> {
        functions::lookup(i)(self, i)
    }
}

impl Cpu {
    /// Takes over the sticky flags of a floating-point operation; #XM, or #UD with CR4.OSXMMEXCPT clear, when it
    /// raised an unmasked exception.
    #[inline]
    pub(crate) fn settle(&mut self, env: &Env) -> Result<(), Fault> {
        self.state.mxcsr = env.mxcsr();
        if env.unmasked().is_empty() {
            return Ok(());
        }
        let reported = self.cr4 & crate::state::cr4::OSXMMEXCPT != 0;
        Err(if reported { Fault::new(crate::fault::vector::XM) } else { Fault::UD })
    }
}
