//! Registers that compiled code holds back from memory: whatever ends a loop, they are what the interpreter has then.

#[path = "../../emulator/cpu/tests/harness/mod.rs"]
mod harness;

use egret_cpu::{Engine, Exit, Interp};
use egret_jit::JitEngine;
use harness::*;
use iced_x86::code_asm::*;

/// Memory that the loops use.
const AREA: u64 = 0x8_0f80;

/// How a turn may end the loop.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The counter is zero.
    Branch,
    /// A division by the counter, which is zero.
    Divide,
    /// A load from an address that is not canonical once the counter is zero.
    Load,
    /// A store there.
    Store,
}

/// A loop of `rounds` turns that changes XMM0 to XMM3, R8 and R9, with `padding` more instructions; RBX is [`AREA`].
fn program(a: &mut CodeAssembler, end: End, rounds: u32, padding: usize, inner: bool) -> Result<(), IcedError> {
    let (mut again, mut turn) = (a.create_label(), a.create_label());
    a.mov(ecx, rounds)?;
    a.mov(r11, 1u64 << 60)?;
    a.set_label(&mut again)?;
    a.mov(r12d, 3)?;
    a.movdqu(xmm0, xmmword_ptr(rbx))?;
    a.paddd(xmm1, xmm0)?;
    a.movd(xmm2, ecx)?;
    a.lea(r8, qword_ptr(r8 + rcx * 4 + 1))?;
    for n in 0..padding {
        if n % 2 == 0 { a.add(r9, r8)? } else { a.pxor(xmm3, xmm1)? }
    }
    a.mov(r10, rcx)?;
    a.sub(r10, 1)?;
    a.sar(r10, 63)?;
    a.and(r10, r11)?;
    a.or(r10, rbx)?;
    match end {
        End::Branch => {}
        End::Divide => {
            a.mov(eax, 1000)?;
            a.xor(edx, edx)?;
            a.div(ecx)?;
        }
        End::Load => a.movq(xmm3, qword_ptr(r10 + 8))?,
        End::Store => a.movdqu(xmmword_ptr(r10 + 16), xmm1)?,
    }
    a.paddq(xmm2, xmm1)?;
    if inner {
        a.set_label(&mut turn)?;
        a.psubd(xmm3, xmm2)?;
        a.movq(qword_ptr(r10 + 32), xmm3)?;
        a.dec(r12d)?;
        a.jnz(turn)?;
    }
    a.sub(ecx, 1)?;
    if matches!(end, End::Branch) {
        a.jnz(again)?
    } else {
        a.jmp(again)?
    }
    a.hlt()
}

fn run(engine: &mut dyn Engine, make: impl FnOnce(&mut CodeAssembler)) -> (Exit, String) {
    let mut b = Bench::new(Start::L64);
    b.asm(make);
    b.cpu.state.gpr[3] = AREA;
    for n in 0..8 {
        b.put(AREA + 8 * n, 8, 0x0123_4567_89ab_cdef_u64.rotate_left(7 * n as u32));
    }
    b.cpu.state.budget = 100_000;
    let exit = engine.run(&mut b.cpu);
    let memory: Vec<u64> = (0..8).map(|n| b.get(AREA + 8 * n, 8)).collect();
    let s = &b.cpu.state;
    (exit, format!("{:?} {:x?} {:x} {:x} {:x?} {} {memory:x?}", b.vector(), s.gpr, s.rip, s.rflags(), s.xmm, s.budget))
}

#[test]
fn a_loop_that_ends_in_any_way_leaves_what_the_interpreter_leaves() {
    let mut compiled = 0;
    for end in [End::Branch, End::Divide, End::Load, End::Store] {
        for (rounds, padding, inner) in [(3, 0, false), (9, 0, true), (40, 2, false), (40, 20, false), (40, 30, true), (40, 80, false)] {
            let make = |a: &mut CodeAssembler| program(a, end, rounds, padding, inner).expect("instructions");
            let want = run(&mut Interp::default(), make);
            let mut jit = JitEngine::foreground().expect("a compiler for this host");
            let got = run(&mut jit, make);
            assert_eq!(want, got, "{end:?}, {rounds} turns, {padding} more, {inner}");
            assert_eq!(want.0, Exit::Halt);
            compiled += jit.counters().compiled_insns;
        }
    }
    assert!(compiled > 500, "{compiled}");
}
