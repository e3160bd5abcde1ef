//! The sticky flags of floating point whose results nobody uses, or that does not run: Cranelift must neither drop nor move it.

#[path = "../../emulator/cpu/tests/harness/mod.rs"]
mod harness;

use egret_cpu::state::cr4;
use egret_cpu::{Engine, Exit};
use egret_jit::JitEngine;
use harness::*;
use iced_x86::code_asm::*;

const IE: u32 = 1;
const PE: u32 = 0x20;

type Program = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;

/// Runs a program in the interpreter and compiled: the flags raised in MXCSR. XMM0 is 1, XMM1 is 3, XMM4 is 5, XMM5 a NaN, all of either width.
fn raised(program: Program, want: u32) {
    let flags = |engine: &mut dyn Engine| {
        let mut b = Bench::new(Start::L64);
        b.asm(|a| {
            program(a).expect("encodes");
            a.hlt().expect("encodes");
        });
        let both = |single: f32, double: f64| u128::from(single.to_bits()) << 64 | u128::from(double.to_bits());
        for (r, v) in [(0, 1.0), (1, 3.0), (4, 5.0), (5, f64::NAN)] {
            let wide = both(v as f32, v);
            b.cpu.state.xmm[r] = wide;
            // Singles come from the register eight further.
            b.cpu.state.xmm[r + 8] = wide >> 64;
        }
        b.cpu.state.budget = 10_000;
        assert_eq!(engine.run(&mut b.cpu), Exit::Halt);
        b.cpu.state.mxcsr & 0x3f
    };
    let mut jit = JitEngine::foreground().expect("a compiler for this host");
    assert_eq!(flags(&mut egret_cpu::Interp::default()), want, "interpreter");
    assert_eq!(flags(&mut jit), want, "JIT");
    assert!(jit.counters().compiled_insns > 0);
}

#[test]
fn results_that_are_overwritten() {
    raised(
        |a| {
            a.divsd(xmm0, xmm1)?;
            a.movaps(xmm0, xmm4)
        },
        PE,
    );
    raised(
        |a| {
            a.divss(xmm8, xmm9)?;
            a.movaps(xmm3, xmm8)?;
            a.movaps(xmm3, xmm4)?;
            a.movaps(xmm8, xmm4)
        },
        PE,
    );
    raised(
        |a| {
            a.sqrtsd(xmm2, xmm1)?;
            a.addsd(xmm2, xmm1)?;
            a.xorps(xmm2, xmm2)
        },
        PE,
    );
    // On both ways of a branch.
    raised(
        |a| {
            let (mut other, mut out) = (a.create_label(), a.create_label());
            a.mov(eax, 1)?;
            a.divsd(xmm0, xmm1)?;
            a.test(eax, eax)?;
            a.jz(other)?;
            a.movaps(xmm0, xmm4)?;
            a.jmp(out)?;
            a.set_label(&mut other)?;
            a.movaps(xmm0, xmm1)?;
            a.set_label(&mut out)?;
            a.inc(eax)
        },
        PE,
    );
}

#[test]
fn results_that_an_immediate_leaves_out() {
    let rows: &[Program] = &[
        |a| a.palignr(xmm0, xmm4, 0x8bu32),
        |a| a.palignr(xmm0, xmm4, 0u32),
        |a| a.palignr(xmm4, xmm0, 16u32).and_then(|()| a.movaps(xmm0, xmm1)),
        |a| a.blendps(xmm0, xmm4, 15u32),
        |a| a.blendpd(xmm4, xmm0, 0u32).and_then(|()| a.movaps(xmm0, xmm1)),
        |a| a.pblendw(xmm0, xmm4, 255u32),
        |a| a.insertps(xmm0, xmm4, 0x0fu32),
        |a| a.psrldq(xmm0, 16u32),
        |a| a.pslldq(xmm0, 200u32),
        |a| a.psrlq(xmm0, 64u32),
        |a| a.psllw(xmm0, 16u32),
        |a| a.pshufd(xmm0, xmm4, 0x1bu32),
        |a| a.pcmpeqd(xmm0, xmm0),
        |a| a.psubq(xmm0, xmm0),
        |a| a.andnps(xmm0, xmm0),
        // These do not.
        |a| a.palignr(xmm0, xmm4, 8u32),
        |a| a.pshufd(xmm0, xmm0, 0x1bu32),
        |a| a.psrlq(xmm0, 63u32),
    ];
    // Halves of YMM registers, with a division of their own.
    let wide: &[Program] = &[
        |a| a.vdivpd(xmm2, xmm4, xmm1).and_then(|()| a.movaps(xmm2, xmm4)),
        |a| a.vdivpd(ymm2, ymm4, ymm1).and_then(|()| a.movaps(xmm2, xmm4)),
        |a| a.vdivpd(ymm2, ymm4, ymm1).and_then(|()| a.vmovaps(xmm3, xmm2)).and_then(|()| a.vmovaps(xmm2, xmm4)),
    ];
    for (n, row) in rows.iter().chain(wide).enumerate() {
        let mut flags = Vec::new();
        let engines: [Box<dyn Engine>; 2] =
            [Box::<egret_cpu::Interp>::default(), Box::new(JitEngine::foreground().expect("a compiler for this host"))];
        for mut engine in engines {
            let mut b = Bench::new(Start::L64);
            b.asm(|a| {
                if n < rows.len() {
                    a.divpd(xmm0, xmm1).expect("encodes");
                }
                row(a).expect("encodes");
                a.hlt().expect("encodes");
            });
            for (r, v) in [(0, 1.0f64), (1, 3.0), (4, 5.0)] {
                let pair = u128::from(v.to_bits()) << 64 | u128::from(v.to_bits());
                (b.cpu.state.xmm[r], b.cpu.state.ymm_hi[r]) = (pair, pair);
            }
            b.cpu.cr4 |= cr4::OSXSAVE;
            b.cpu.state.xcr0 = 7;
            b.cpu.update_context();
            b.cpu.state.budget = 10_000;
            assert_eq!(engine.run(&mut b.cpu), Exit::Halt, "row {n}");
            flags.push(b.cpu.state.mxcsr & 0x3f);
        }
        assert_eq!(flags, [PE, PE], "row {n}");
    }
}

#[test]
fn results_from_memory_that_are_overwritten() {
    raised(
        |a| {
            a.mov(rax, 0x4008_0000_0000_0000_u64)?;
            a.mov(qword_ptr(rsp - 8), rax)?;
            a.divsd(xmm0, qword_ptr(rsp - 8))?;
            a.movaps(xmm0, xmm4)
        },
        PE,
    );
}

#[test]
fn the_least_of_a_register_and_itself() {
    raised(
        |a| {
            a.mov(qword_ptr(rsp - 8), 0)?;
            a.addsd(xmm1, qword_ptr(rsp - 8))?;
            a.minsd(xmm5, xmm5)
        },
        IE,
    );
}

#[test]
fn comparisons_that_nobody_asks_for() {
    raised(
        |a| {
            a.comisd(xmm0, xmm5)?;
            a.add(eax, 1)
        },
        IE,
    );
    // A quiet comparison of a quiet NaN raises nothing.
    raised(
        |a| {
            a.ucomisd(xmm0, xmm5)?;
            a.add(eax, 1)
        },
        0,
    );
    raised(
        |a| {
            a.comisd(xmm0, xmm5)?;
            for _ in 0..20 {
                a.comisd(xmm0, xmm1)?;
            }
            a.add(eax, 1)
        },
        IE,
    );
}

/// A loop of ten rounds with something in it that is never executed.
fn skipped(a: &mut CodeAssembler, what: Program) -> Result<(), iced_x86::IcedError> {
    let (mut again, mut skip) = (a.create_label(), a.create_label());
    a.mov(ecx, 10)?;
    a.xor(edx, edx)?;
    a.set_label(&mut again)?;
    a.test(edx, edx)?;
    a.jz(skip)?;
    what(a)?;
    a.set_label(&mut skip)?;
    a.dec(ecx)?;
    a.jnz(again)
}

#[test]
fn what_does_not_change_in_a_loop_stays_where_it_is() {
    raised(
        |a| {
            skipped(a, |a| {
                a.movaps(xmm2, xmm0)?;
                a.divsd(xmm2, xmm1)
            })
        },
        0,
    );
    raised(|a| skipped(a, |a| a.comisd(xmm0, xmm5)), 0);
    raised(|a| skipped(a, |a| a.sqrtpd(xmm3, xmm1)), 0);
    raised(
        |a| {
            skipped(a, |a| {
                a.mov(eax, 0x0100_0001)?;
                a.cvtsi2ss(xmm3, eax)
            })
        },
        0,
    );
    // Nor in front of a loop over a jump to an address known at run time only.
    raised(
        |a| {
            let (mut again, mut skip, mut out) = (a.create_label(), a.create_label(), a.create_label());
            a.mov(ecx, 10)?;
            a.lea(rbx, ptr(again))?;
            a.xor(edx, edx)?;
            a.set_label(&mut again)?;
            a.test(edx, edx)?;
            a.jz(skip)?;
            a.mov(eax, 0x0100_0001)?;
            a.cvtsi2ss(xmm3, eax)?;
            a.movaps(xmm2, xmm0)?;
            a.divsd(xmm2, xmm1)?;
            a.set_label(&mut skip)?;
            a.dec(ecx)?;
            a.jz(out)?;
            a.push(rbx)?;
            a.ret()?;
            a.set_label(&mut out)?;
            a.nop()
        },
        0,
    );
    // Executed, it does.
    raised(
        |a| {
            let mut again = a.create_label();
            a.mov(ecx, 10)?;
            a.set_label(&mut again)?;
            a.movaps(xmm2, xmm0)?;
            a.divsd(xmm2, xmm1)?;
            a.dec(ecx)?;
            a.jnz(again)
        },
        PE,
    );
}
