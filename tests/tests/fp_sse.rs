//! Soft `f32`/`f64` arithmetic against the host's SSE, AVX and FMA units: result bits and MXCSR, in all rounding modes, with
//! FTZ and DAZ, from clear and from sticky flags.
#![cfg(target_arch = "x86_64")]

use egret_isa::fp::{self, Env, Rounding};
use std::arch::asm;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A significand: random, sparse, all ones, or all but the last bits.
    fn fraction(&mut self, bits: u32) -> u64 {
        let mask = (1u64 << bits) - 1;
        let sparse = 1u64 << self.below(bits.into());
        mask & match self.below(6) {
            0 => 0,
            1 => mask,
            2 => sparse,
            3 => sparse.wrapping_neg(),
            4 => self.next() << self.below(bits.into()),
            _ => self.next(),
        }
    }

    /// A float of the format with `frac` fraction bits and `exp` exponent bits, biased toward edges.
    fn float(&mut self, frac: u32, exp: u32) -> u64 {
        let ones = (1u64 << exp) - 1;
        let bias = ones / 2;
        let field = match self.below(10) {
            0 => 0,
            1 => ones,
            2 => 1 + self.below(3),
            3 => ones - 1 - self.below(3),
            4 => bias / 2 + self.below(8),
            5 => bias + bias / 2 + self.below(8),
            6 | 7 => bias - 4 + self.below(8),
            8 => bias + self.below(70).min(bias),
            _ => self.below(ones),
        };
        let sign = self.next() & 1;
        sign << (frac + exp) | field << frac | self.fraction(frac)
    }

    fn operands(&mut self, kind: Kind) -> [u64; 3] {
        let mut one = || match kind {
            Kind::F64 => self.float(52, 11),
            Kind::F32 => self.float(23, 8),
            Kind::F16 => self.next() & 0xffff,
            Kind::Int => (self.fraction(63) >> self.below(63)) ^ (self.next() & 1).wrapping_neg(),
        };
        let (a, mut b, mut c) = (one(), one(), one());
        // Near-equal operands: cancellation, equality, exact quotients.
        match self.below(8) {
            0 => b = a,
            1 => b = a ^ (1 << self.below(4)),
            2 => c = b,
            _ => {}
        }
        [a, b, c]
    }
}

#[derive(Clone, Copy)]
enum Kind {
    F64,
    F32,
    F16,
    Int,
}

type Host = fn([u64; 3], u32) -> (u64, u32);
type Ours = fn(&mut Env, [u64; 3]) -> u64;

/// Runs one instruction on the host: operands in xmm0 to xmm2 and rcx, result in rax.
macro_rules! host {
    ($($line:expr),+) => {
        |v: [u64; 3], csr: u32| -> (u64, u32) {
            let (mut after, mut saved) = (0u32, 0u32);
            let result: u64;
            // SAFETY: changes xmm0 to xmm2, rax, the flags and MXCSR, which is restored; all exceptions are masked in `csr`. The
            // caller has checked that the host has the instruction.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]", "ldmxcsr [{csr}]",
                    "movq xmm0, rcx", "movq xmm1, rdx", "movq xmm2, {c}",
                    $($line),+,
                    "stmxcsr [{after}]", "ldmxcsr [{saved}]",
                    saved = in(reg) &mut saved, csr = in(reg) &csr, after = in(reg) &mut after, c = in(reg) v[2],
                    in("rcx") v[0], in("rdx") v[1], out("rax") result,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _,
                );
            }
            (result, after)
        }
    };
}

/// An instruction whose result is in xmm0.
macro_rules! simd {
    ($line:expr) => {
        host!($line, "movq rax, xmm0")
    };
}

struct Row {
    name: &'static str,
    kind: Kind,
    /// Result bits compared.
    bits: u32,
    feature: Feature,
    host: Host,
    ours: Ours,
}

#[derive(Clone, Copy, PartialEq)]
enum Feature {
    Base,
    Sse41,
    Avx,
    Fma,
    F16c,
    Avx512,
}

impl Feature {
    fn present(self) -> bool {
        match self {
            Feature::Base => true,
            Feature::Sse41 => is_x86_feature_detected!("sse4.1"),
            Feature::Avx => is_x86_feature_detected!("avx"),
            Feature::Fma => is_x86_feature_detected!("fma"),
            Feature::F16c => is_x86_feature_detected!("f16c"),
            Feature::Avx512 => is_x86_feature_detected!("avx512f"),
        }
    }
}

fn row(name: &'static str, kind: Kind, bits: u32, feature: Feature, host: Host, ours: Ours) -> Row {
    Row { name, kind, bits, feature, host, ours }
}

/// Runs `cases` cases of every row whose instruction the host has.
fn compare(rows: &[Row], cases: u32, seed: u64) {
    let mut rng = Rng(seed);
    let mut failed = Vec::new();
    for row in rows.iter().filter(|row| row.feature.present()) {
        let mask = u64::MAX >> (64 - row.bits);
        let mut shown = 0;
        for _ in 0..cases {
            let v = rng.operands(row.kind);
            let random = rng.next() as u32;
            // All masked; RC, FTZ, DAZ at random; flags clear or PE sticky or random.
            let flags = [0, 0x20, 0x20, random & 0x3f][(random >> 20 & 3) as usize];
            let rc = if random >> 24 & 1 != 0 { 0 } else { random & 0x6000 };
            let csr = 0x1f80 | flags | rc | if random >> 25 & 3 == 0 { random & 0x8040 } else { 0 };
            let (want, want_csr) = (row.host)(v, csr);
            let mut env = Env::from_mxcsr(csr);
            let got = (row.ours)(&mut env, v);
            if (got & mask, env.mxcsr()) != (want & mask, want_csr) && shown < 4 {
                shown += 1;
                failed.push(format!(
                    "{}: {v:x?} csr {csr:04x}: got {:x} csr {:04x}, host {:x} csr {want_csr:04x}",
                    row.name,
                    got & mask,
                    env.mxcsr(),
                    want & mask
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{} shown differences:\n{}", failed.len(), failed.join("\n"));
}

const CASES: u32 = 200_000;

#[test]
fn arithmetic() {
    use Feature::Base;
    use Kind::{F32, F64};
    compare(
        &[
            row("addsd", F64, 64, Base, simd!("addsd xmm0, xmm1"), |e, v| fp::add64(e, v[0], v[1])),
            row("subsd", F64, 64, Base, simd!("subsd xmm0, xmm1"), |e, v| fp::sub64(e, v[0], v[1])),
            row("mulsd", F64, 64, Base, simd!("mulsd xmm0, xmm1"), |e, v| fp::mul64(e, v[0], v[1])),
            row("divsd", F64, 64, Base, simd!("divsd xmm0, xmm1"), |e, v| fp::div64(e, v[0], v[1])),
            row("sqrtsd", F64, 64, Base, simd!("sqrtsd xmm0, xmm0"), |e, v| fp::sqrt64(e, v[0])),
            row("minsd", F64, 64, Base, simd!("minsd xmm0, xmm1"), |e, v| fp::min64(e, v[0], v[1])),
            row("maxsd", F64, 64, Base, simd!("maxsd xmm0, xmm1"), |e, v| fp::max64(e, v[0], v[1])),
            row("addss", F32, 32, Base, simd!("addss xmm0, xmm1"), |e, v| fp::add32(e, v[0] as u32, v[1] as u32).into()),
            row("subss", F32, 32, Base, simd!("subss xmm0, xmm1"), |e, v| fp::sub32(e, v[0] as u32, v[1] as u32).into()),
            row("mulss", F32, 32, Base, simd!("mulss xmm0, xmm1"), |e, v| fp::mul32(e, v[0] as u32, v[1] as u32).into()),
            row("divss", F32, 32, Base, simd!("divss xmm0, xmm1"), |e, v| fp::div32(e, v[0] as u32, v[1] as u32).into()),
            row("sqrtss", F32, 32, Base, simd!("sqrtss xmm0, xmm0"), |e, v| fp::sqrt32(e, v[0] as u32).into()),
            row("minss", F32, 32, Base, simd!("minss xmm0, xmm1"), |e, v| fp::min32(e, v[0] as u32, v[1] as u32).into()),
            row("maxss", F32, 32, Base, simd!("maxss xmm0, xmm1"), |e, v| fp::max32(e, v[0] as u32, v[1] as u32).into()),
        ],
        CASES * 2,
        1,
    );
}

#[test]
fn fused() {
    use Feature::Fma;
    use Kind::{F32, F64};
    compare(
        &[
            row("vfmadd213sd", F64, 64, Fma, simd!("vfmadd213sd xmm0, xmm1, xmm2"), |e, v| fp::fma64(e, v[1], v[0], v[2], false, false)),
            row("vfnmadd213sd", F64, 64, Fma, simd!("vfnmadd213sd xmm0, xmm1, xmm2"), |e, v| fp::fma64(e, v[1], v[0], v[2], true, false)),
            row("vfmsub213sd", F64, 64, Fma, simd!("vfmsub213sd xmm0, xmm1, xmm2"), |e, v| fp::fma64(e, v[1], v[0], v[2], false, true)),
            row("vfnmsub213sd", F64, 64, Fma, simd!("vfnmsub213sd xmm0, xmm1, xmm2"), |e, v| fp::fma64(e, v[1], v[0], v[2], true, true)),
            row("vfmadd132sd", F64, 64, Fma, simd!("vfmadd132sd xmm0, xmm1, xmm2"), |e, v| fp::fma64(e, v[0], v[2], v[1], false, false)),
            row("vfmadd231sd", F64, 64, Fma, simd!("vfmadd231sd xmm0, xmm1, xmm2"), |e, v| fp::fma64(e, v[1], v[2], v[0], false, false)),
            row("vfmadd213ss", F32, 32, Fma, simd!("vfmadd213ss xmm0, xmm1, xmm2"), |e, v| {
                fp::fma32(e, v[1] as u32, v[0] as u32, v[2] as u32, false, false).into()
            }),
            row("vfnmsub213ss", F32, 32, Fma, simd!("vfnmsub213ss xmm0, xmm1, xmm2"), |e, v| {
                fp::fma32(e, v[1] as u32, v[0] as u32, v[2] as u32, true, true).into()
            }),
        ],
        CASES,
        2,
    );
}

fn eflags(r: fp::Relation) -> u64 {
    let (zf, pf, cf) = r.zf_pf_cf();
    u64::from(zf) << 6 | u64::from(pf) << 2 | u64::from(cf)
}

macro_rules! comi {
    ($line:literal) => {
        host!($line, "lahf", "movzx eax, ah", "and eax, 0x45")
    };
}

macro_rules! predicates {
    ($($n:literal)*) => {[$(
        row(concat!("vcmpsd ", $n), Kind::F64, 1, Feature::Avx, simd!(concat!("vcmpsd xmm0, xmm0, xmm1, ", $n)),
            |e, v| fp::cmp64(e, v[0], v[1], $n).into()),
        row(concat!("vcmpss ", $n), Kind::F32, 1, Feature::Avx, simd!(concat!("vcmpss xmm0, xmm0, xmm1, ", $n)),
            |e, v| fp::cmp32(e, v[0] as u32, v[1] as u32, $n).into()),
    )*]};
}

#[test]
fn comparisons() {
    use Feature::Base;
    use Kind::{F32, F64};
    compare(
        &[
            row("comisd", F64, 8, Base, comi!("comisd xmm0, xmm1"), |e, v| eflags(fp::compare64(e, v[0], v[1], true))),
            row("ucomisd", F64, 8, Base, comi!("ucomisd xmm0, xmm1"), |e, v| eflags(fp::compare64(e, v[0], v[1], false))),
            row("comiss", F32, 8, Base, comi!("comiss xmm0, xmm1"), |e, v| eflags(fp::compare32(e, v[0] as u32, v[1] as u32, true))),
            row("ucomiss", F32, 8, Base, comi!("ucomiss xmm0, xmm1"), |e, v| eflags(fp::compare32(e, v[0] as u32, v[1] as u32, false))),
        ],
        CASES,
        3,
    );
    compare(&predicates!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31), CASES / 20, 4);
}

#[test]
fn conversions() {
    use Feature::{Avx512, Base, F16c};
    use Kind::{F16, F32, F64, Int};
    compare(
        &[
            row("cvtss2sd", F32, 64, Base, simd!("cvtss2sd xmm0, xmm0"), |e, v| fp::f32_to_f64(e, v[0] as u32)),
            row("cvtsd2ss", F64, 32, Base, simd!("cvtsd2ss xmm0, xmm0"), |e, v| fp::f64_to_f32(e, v[0]).into()),
            row("cvtsd2si", F64, 32, Base, host!("cvtsd2si eax, xmm0"), |e, v| fp::f64_to_i32(e, v[0]).into()),
            row("cvttsd2si", F64, 32, Base, host!("cvttsd2si eax, xmm0"), |e, v| fp::f64_to_i32_trunc(e, v[0]).into()),
            row("cvtsd2si64", F64, 64, Base, host!("cvtsd2si rax, xmm0"), |e, v| fp::f64_to_i64(e, v[0])),
            row("cvttsd2si64", F64, 64, Base, host!("cvttsd2si rax, xmm0"), |e, v| fp::f64_to_i64_trunc(e, v[0])),
            row("cvtss2si", F32, 32, Base, host!("cvtss2si eax, xmm0"), |e, v| fp::f32_to_i32(e, v[0] as u32).into()),
            row("cvttss2si", F32, 32, Base, host!("cvttss2si eax, xmm0"), |e, v| fp::f32_to_i32_trunc(e, v[0] as u32).into()),
            row("cvtss2si64", F32, 64, Base, host!("cvtss2si rax, xmm0"), |e, v| fp::f32_to_i64(e, v[0] as u32)),
            row("cvttss2si64", F32, 64, Base, host!("cvttss2si rax, xmm0"), |e, v| fp::f32_to_i64_trunc(e, v[0] as u32)),
            row("vcvtsd2usi", F64, 32, Avx512, host!("vcvtsd2usi eax, xmm0"), |e, v| fp::f64_to_u32(e, v[0]).into()),
            row("vcvttsd2usi", F64, 32, Avx512, host!("vcvttsd2usi eax, xmm0"), |e, v| fp::f64_to_u32_trunc(e, v[0]).into()),
            row("vcvtsd2usi64", F64, 64, Avx512, host!("vcvtsd2usi rax, xmm0"), |e, v| fp::f64_to_u64(e, v[0])),
            row("vcvttsd2usi64", F64, 64, Avx512, host!("vcvttsd2usi rax, xmm0"), |e, v| fp::f64_to_u64_trunc(e, v[0])),
            row("vcvtss2usi", F32, 32, Avx512, host!("vcvtss2usi eax, xmm0"), |e, v| fp::f32_to_u32(e, v[0] as u32).into()),
            row("vcvttss2usi64", F32, 64, Avx512, host!("vcvttss2usi rax, xmm0"), |e, v| fp::f32_to_u64_trunc(e, v[0] as u32)),
            row("cvtsi2sd", Int, 64, Base, simd!("cvtsi2sd xmm0, ecx"), |_, v| fp::i32_to_f64(v[0] as u32)),
            row("cvtsi2sd64", Int, 64, Base, simd!("cvtsi2sd xmm0, rcx"), |e, v| fp::i64_to_f64(e, v[0])),
            row("cvtsi2ss", Int, 32, Base, simd!("cvtsi2ss xmm0, ecx"), |e, v| fp::i32_to_f32(e, v[0] as u32).into()),
            row("cvtsi2ss64", Int, 32, Base, simd!("cvtsi2ss xmm0, rcx"), |e, v| fp::i64_to_f32(e, v[0]).into()),
            row("vcvtusi2sd", Int, 64, Avx512, simd!("vcvtusi2sd xmm0, xmm0, ecx"), |_, v| fp::u32_to_f64(v[0] as u32)),
            row("vcvtusi2sd64", Int, 64, Avx512, simd!("vcvtusi2sd xmm0, xmm0, rcx"), |e, v| fp::u64_to_f64(e, v[0])),
            row("vcvtusi2ss", Int, 32, Avx512, simd!("vcvtusi2ss xmm0, xmm0, ecx"), |e, v| fp::u32_to_f32(e, v[0] as u32).into()),
            row("vcvtusi2ss64", Int, 32, Avx512, simd!("vcvtusi2ss xmm0, xmm0, rcx"), |e, v| fp::u64_to_f32(e, v[0]).into()),
            row("vcvtph2ps", F16, 32, F16c, simd!("vcvtph2ps xmm0, xmm0"), |e, v| fp::f16_to_f32(e, v[0] as u16).into()),
            row("vcvtps2ph 4", F32, 16, F16c, simd!("vcvtps2ph xmm0, xmm0, 4"), |e, v| fp::f32_to_f16(e, v[0] as u32, e.rounding()).into()),
            row("vcvtps2ph 2", F32, 16, F16c, simd!("vcvtps2ph xmm0, xmm0, 2"), |e, v| fp::f32_to_f16(e, v[0] as u32, Rounding::Up).into()),
        ],
        CASES,
        5,
    );
}

macro_rules! rounds {
    ($($n:literal)*) => {[$(
        row(concat!("roundsd ", $n), Kind::F64, 64, Feature::Sse41, simd!(concat!("roundsd xmm0, xmm0, ", $n)), |e, v| {
            let (rounding, suppress) = fp::round_imm(e, $n);
            fp::round64(e, v[0], rounding, suppress)
        }),
        row(concat!("roundss ", $n), Kind::F32, 32, Feature::Sse41, simd!(concat!("roundss xmm0, xmm0, ", $n)), |e, v| {
            let (rounding, suppress) = fp::round_imm(e, $n);
            fp::round32(e, v[0] as u32, rounding, suppress).into()
        }),
    )*]};
}

#[test]
fn rounding() {
    compare(&rounds!(0 1 2 3 4 8 9 10 11 12), CASES / 4, 6);
}

/// SDM: |relative error| <= 1.5 × 2^-12 for RCPPS and RSQRTPS.
#[test]
fn approximations() {
    const BOUND: f64 = 1.5 / 4096.0;
    let mut rng = Rng(7);
    for _ in 0..CASES * 4 {
        let a = rng.float(23, 8) as u32;
        let x = f64::from(f32::from_bits(a));
        let (rcp, rsqrt) = (f32::from_bits(fp::rcp32(a)), f32::from_bits(fp::rsqrt32(a)));
        if !x.is_normal() || x.abs() < f64::from(f32::MIN_POSITIVE) {
            continue;
        }
        if x.abs() < 2f64.powi(126) {
            assert!((f64::from(rcp) * x - 1.0).abs() <= BOUND, "rcp {a:08x}");
        } else {
            assert!(rcp == 0.0 || (f64::from(rcp) * x - 1.0).abs() <= BOUND, "rcp {a:08x}");
        }
        assert!(rcp.is_sign_negative() == (x < 0.0));
        if x > 0.0 {
            assert!((f64::from(rsqrt) * x.sqrt() - 1.0).abs() <= BOUND, "rsqrt {a:08x}");
        } else {
            assert_eq!(rsqrt.to_bits(), 0xffc0_0000);
        }
    }
    // The special operands agree with the host.
    let rcp = simd!("rcpss xmm0, xmm0");
    let rsqrt = simd!("rsqrtss xmm0, xmm0");
    for a in [0u32, 1, 0x7f_ffff, 0x7f80_0000, 0x7f80_0001, 0x7fc0_1234, 0x7fff_ffff] {
        for a in [a, a | 0x8000_0000] {
            assert_eq!(fp::rcp32(a), rcp([a.into(), 0, 0], 0x1f80).0 as u32, "rcp {a:08x}");
            assert_eq!(fp::rsqrt32(a), rsqrt([a.into(), 0, 0], 0x1f80).0 as u32, "rsqrt {a:08x}");
        }
    }
}
