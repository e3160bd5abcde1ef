//! What compiled code calls. Each runs behind a stub that saves every register, so none returns anything: results go to
//! [`egret_cpu::State::result`], and a status that is not 0 (an [`exit`] code) goes to [`egret_cpu::State::status`].

#![allow(unsafe_code)]

use crate::host_fp;
use crate::vm::{CallSite, Vm, canonical, exit};
use egret_cpu::{Cpu, Host, State};
use egret_isa::fp::Env;
use egret_isa::insn::Seg;
use egret_isa::ops::{Cond, Width};
use egret_isa::sem::muldiv::divide_values;
use egret_isa::sem::vector::{fp_ops, vec_ops};
use egret_isa::vec::{Vec3Op, eval_fp, eval2, eval3};

/// A memory access in one word: segment in bits 0-7, bytes in bits 8-15.
#[must_use]
pub fn describe(seg: Seg, bytes: u8) -> u64 {
    seg as u64 | u64::from(bytes) << 8
}

fn described(d: u64) -> (Seg, u8) {
    (Seg::ALL[(d & 0xff) as usize % Seg::ALL.len()], (d >> 8) as u8)
}

/// The CPU and the engine's data that compiled code is running for.
///
/// # Safety
/// `state` is the argument of a helper called from compiled code, which runs only inside `JitEngine::enter`: that has put the
/// addresses of a live CPU and engine there and touches neither until the code returns.
unsafe fn context<'a>(state: *mut State) -> (&'a mut Cpu, &'a mut Vm) {
    // SAFETY: see above; CPU and Vm are different objects.
    unsafe {
        let vm = &mut *((*state).engine as *mut Vm);
        (&mut *vm.cpu, vm)
    }
}

/// The signature of all helpers.
pub type Helper = unsafe extern "C" fn(*mut State, u64, u64, u64);

/// Host address of bytes to be read; `d` from [`describe`].
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn read(state: *mut State, d: u64, offset: u64, _: u64) {
    // SAFETY: the caller is compiled code.
    let (cpu, vm) = unsafe { context(state) };
    let (seg, size) = described(d);
    let (status, host) = match cpu.host_for(seg, offset, size, false) {
        Ok(Host::At(host)) => (0, host),
        Ok(Host::Crosses) => match read_pieces(cpu, seg, offset, size) {
            Ok(v) => {
                vm.bounce = v;
                (0, vm.bounce.as_ptr() as u64)
            }
            Err(fault) => {
                vm.fault = Some(fault);
                (exit::FAULT, 0)
            }
        },
        Ok(Host::Special) => (exit::INTERPRET, 0),
        Err(fault) => {
            vm.fault = Some(fault);
            (exit::FAULT, 0)
        }
    };
    cpu.state.result[0] = host;
    cpu.state.status = status as u32;
}

fn read_pieces(cpu: &mut Cpu, seg: Seg, offset: u64, size: u8) -> Result<[u64; 4], egret_cpu::Fault> {
    let part = size.min(8);
    let mut words = [0; 4];
    for (n, word) in (0..u64::from(size / part).min(4)).zip(&mut words) {
        *word = cpu.read(seg, offset.wrapping_add(8 * n), part)?;
    }
    Ok(words)
}

/// Host address of bytes to be written. An access that crosses pages is done here (up to 8 bytes, from `value`), and its
/// repetition goes to a place where it does no harm.
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn write(state: *mut State, d: u64, offset: u64, value: u64) {
    // SAFETY: the caller is compiled code.
    let (cpu, vm) = unsafe { context(state) };
    let (seg, size) = described(d);
    let (status, host) = match cpu.host_for(seg, offset, size, true) {
        Ok(Host::At(host)) => (0, host),
        Ok(Host::Crosses) if size <= 8 => match cpu.write(seg, offset, size, value) {
            Ok(()) => (0, vm.bounce.as_ptr() as u64),
            Err(fault) => {
                vm.fault = Some(fault);
                (exit::FAULT, 0)
            }
        },
        Ok(_) => (exit::INTERPRET, 0),
        Err(fault) => {
            vm.fault = Some(fault);
            (exit::FAULT, 0)
        }
    };
    cpu.state.result[0] = host;
    cpu.state.status = status as u32;
}

/// Host address of bytes to be read, modified and written.
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn modify(state: *mut State, d: u64, offset: u64, _: u64) {
    // SAFETY: the caller is compiled code.
    let (cpu, vm) = unsafe { context(state) };
    let (seg, size) = described(d);
    let (status, host) = match cpu.host_for(seg, offset, size, true) {
        Ok(Host::At(host)) => (0, host),
        Ok(_) => (exit::INTERPRET, 0),
        Err(fault) => {
            vm.fault = Some(fault);
            (exit::FAULT, 0)
        }
    };
    cpu.state.result[0] = host;
    cpu.state.status = status as u32;
}

/// Runs an instruction's function on the CPU. The instruction pointer is already the next instruction's, the instruction is
/// counted, and all of the guest's state is in [`State`].
///
/// # Safety
/// Called from compiled code only; `site` is the address of a [`CallSite`] of the region that runs.
pub unsafe extern "C" fn call(state: *mut State, site: u64, _: u64, _: u64) {
    // SAFETY: the caller is compiled code.
    let (cpu, vm) = unsafe { context(state) };
    // SAFETY: the region owns the site and outlives its code's execution.
    let site = unsafe { &*(site as *const CallSite) };
    if !site.integer {
        host_fp::leave(&mut cpu.state.mxcsr);
    }
    let (next, rsp, key, flushes) = (cpu.state.rip, cpu.state.gpr[4], Vm::key(cpu), cpu.flushes());
    let status = match (site.run)(cpu, &site.insn) {
        Ok(()) if cpu.state.attention != 0 || cpu.flushes() != flushes => exit::NEXT,
        Ok(()) if cpu.state.rip != next || Vm::key(cpu) != key => {
            vm.follow_key(cpu);
            // Only such are in the jump cache.
            if canonical(cpu.state.rip) == cpu.state.rip { exit::MOVED } else { exit::NEXT }
        }
        Ok(()) => 0,
        Err(fault) => {
            let mask = if cpu.code64() { u64::MAX } else { 0xffff_ffff };
            cpu.state.rip = next.wrapping_sub(site.insn.len.into()) & mask;
            cpu.state.gpr[4] = rsp;
            vm.fault = Some(fault);
            exit::FAULT_COUNTED
        }
    };
    if !site.integer {
        host_fp::enter(cpu.state.mxcsr);
    }
    cpu.state.status = status as u32;
}

/// Runs an x87 instruction, the quick way if nothing can fault: a status as [`call`] leaves it. `next` is the instruction pointer
/// after it. An ordinary function to compiled code, with the guest's MXCSR in the host's: it computes without floating point.
///
/// # Safety
/// Called from compiled code only; `site` is the address of a [`CallSite`] of the region that runs.
pub unsafe extern "C" fn x87(state: *mut State, site: u64, next: u64) -> u64 {
    // SAFETY: the caller is compiled code.
    let (cpu, _) = unsafe { context(state) };
    cpu.state.rip = next;
    // SAFETY: the region owns the site and outlives its code's execution.
    if egret_cpu::functions::x87_quick(cpu, unsafe { &(*(site as *const CallSite)).insn }) {
        return 0;
    }
    // SAFETY: all as the caller gave it.
    unsafe {
        call(state, site, 0, 0);
        (*state).status.into()
    }
}

/// Whether condition number `cond` holds for the flags in [`State`].
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn cond(state: *mut State, cond: u64, _: u64, _: u64) {
    // SAFETY: the caller is compiled code; only the state is touched.
    let state = unsafe { &mut *state };
    let cond = Cond::ALL[(cond & 15) as usize];
    state.result[0] = state.flags.lazy().cond(cond).into();
}

/// Replaces the arithmetic flags in `mask` by those of `bits`; the result is all of them, as a word.
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn merge_flags(state: *mut State, mask: u64, bits: u64, _: u64) {
    // SAFETY: the caller is compiled code; only the state is touched.
    let state = unsafe { &mut *state };
    let old = state.flags.lazy().flags();
    state.flags = egret_cpu::state::LazyFlags::word(old & !(mask as u32) | bits as u32 & mask as u32);
    state.result[0] = state.flags.r;
}

/// A division that compiled code cannot do: operands in [`Vm::divide`], `signed` not 0 for IDIV. Quotient and remainder go to the
/// result; #DE is the interpreter's.
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn divide(state: *mut State, signed: u64, _: u64, _: u64) {
    // SAFETY: the caller is compiled code.
    let (cpu, vm) = unsafe { context(state) };
    let [high, low, divisor] = vm.divide;
    cpu.state.status = match divide_values(Width::Q, signed != 0, high, low, divisor) {
        Some((quotient, remainder)) => {
            cpu.state.result = [quotient, remainder];
            0
        }
        None => exit::INTERPRET as u32,
    };
}

/// What [`vector`] is asked for besides the operations of [`vec_ops`].
pub const SHA256_ROUNDS2: u64 = 0xffff;

/// A vector operation on the operands in [`Vm::vectors`], the first of which becomes the result. `what` is the operation's place in
/// [`vec_ops`] in bits 0-15, or [`SHA256_ROUNDS2`], and the immediate in bits 16-23. No floating point: MXCSR is the guest's. Called
/// without a stub.
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn vector(vectors: *mut [u128; 3], what: u64, _: u64) -> u64 {
    // SAFETY: the caller is compiled code, and hands us those of its engine.
    let vectors = unsafe { &mut *vectors };
    let [a, b, c] = *vectors;
    vectors[0] = match vec_ops().get((what & 0xffff) as usize) {
        Some(op) => eval2(*op, a, b, (what >> 16) as u8),
        None => eval3(Vec3Op::Sha256Rounds2, a, b, c),
    };
    0
}

/// A floating-point operation on two operands, as [`vector`]: `what` has its place in [`fp_ops`]. Every exception is masked.
///
/// # Safety
/// Called from compiled code only.
pub unsafe extern "C" fn float(state: *mut State, what: u64, _: u64, _: u64) {
    // SAFETY: the caller is compiled code.
    let (cpu, vm) = unsafe { context(state) };
    host_fp::leave(&mut cpu.state.mxcsr);
    let [a, b, _] = vm.vectors;
    if let Some(op) = fp_ops().get((what & 0xffff) as usize) {
        let mut env = Env::from_mxcsr(cpu.state.mxcsr);
        vm.vectors[0] = eval_fp(*op, &mut env, a, b, (what >> 16) as u8);
        cpu.state.mxcsr = env.mxcsr();
    }
    host_fp::enter(cpu.state.mxcsr);
}

/// All helpers in the order of [`crate::vm::Stubs`].
pub const ALL: [Helper; 8] = [read, write, modify, call, cond, merge_flags, divide, float];
