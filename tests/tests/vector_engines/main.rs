//! Every vector instruction of SSE to SSE4.2, SSE4A, AVX, AVX2, FMA, F16C, VAES and VPCLMULQDQ on the interpreter, the IR evaluator and
//! the JIT against the host CPU: registers with their upper halves, memory, flags, MXCSR, and exceptions.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod encode;
mod host;
#[path = "../simd_oracle/values.rs"]
mod values;

use egret_bus::{GuestRam, Phys};
use egret_cpu::cpu::Intercept;
use egret_cpu::state::{cr0, cr4, efer};
use egret_cpu::{Cpu, Engine, Fault as Raised, SegReg, System, functions};
use egret_isa::decode::{Decoded, decode};
use egret_isa::flags::ARITH;
use egret_isa::insn::{Insn, Seg};
use egret_isa::ir;
use egret_isa::vec::{self, Fmt, FpOp, Op, Operand, VecInsn};
use egret_isa::{CpuModel, Features};
use egret_jit::engine::{JitEngine, Options};
use encode::{Registers, encode, forms, operands};
use host::{Fault, MEMORY, MIDDLE, State, Stubs};
use iced_x86::{Code, CpuidFeature as F, EncodingKind, OpCodeOperandKind as K};
use std::collections::BTreeMap;
use values::Rng;

/// Cases per encoding, register assignment and form on interpreter and IR.
const CASES: u32 = 120;
/// Where the memory operand's surroundings are.
const DATA: u64 = 0x4000;
/// Where code for the JIT is.
const CODE: u64 = 0x1000;

struct Nothing;

impl System for Nothing {
    fn port_read(&mut self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_write(&mut self, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: Phys, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: Phys, _: u8, _: u64) {}
    fn interrupt_pending(&mut self) -> bool {
        false
    }
    fn acknowledge(&mut self) -> Option<u8> {
        None
    }
    fn tsc(&mut self) -> u64 {
        0
    }
}

/// A CPU in 64-bit mode with AVX on, without paging.
fn cpu() -> Cpu {
    let ram = GuestRam::new(&[(Phys(0), 1 << 20)]).expect("RAM");
    let mut cpu = Cpu::new(ram, Box::new(Nothing));
    cpu.cr0 = cr0::PE | cr0::ET;
    cpu.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    cpu.state.xcr0 = 7;
    cpu.efer = efer::LME | efer::LMA;
    cpu.state.seg[Seg::Cs as usize] = SegReg::new(8, 0, u32::MAX, 0xa09b);
    cpu.set_model(CpuModel::default().with_features(Features::ALL));
    cpu.update_context();
    assert!(cpu.code64());
    cpu
}

fn load(cpu: &mut Cpu, s: &State) {
    cpu.state.gpr[..3].copy_from_slice(&s.gpr);
    cpu.state.gpr[7] = DATA + MIDDLE as u64 + u64::from(s.offset);
    for (n, y) in s.ymm.iter().enumerate() {
        (cpu.state.xmm[n], cpu.state.ymm_hi[n]) = (y[0], y[1]);
    }
    cpu.set_rflags(s.flags);
    cpu.state.mxcsr = s.mxcsr;
    cpu.update_context();
    assert!(cpu.ram.write(Phys(DATA), &s.memory));
}

fn store(cpu: &Cpu, s: &mut State, fault: Fault) {
    s.gpr.copy_from_slice(&cpu.state.gpr[..3]);
    for (n, y) in s.ymm.iter_mut().enumerate() {
        *y = [cpu.state.xmm[n], cpu.state.ymm_hi[n]];
    }
    s.flags = cpu.rflags() & u64::from(ARITH) | 2;
    s.mxcsr = cpu.state.mxcsr;
    s.fault = fault;
    assert!(cpu.ram.read(Phys(DATA), &mut s.memory));
}

fn decoded(cpu: &Cpu, bytes: &[u8]) -> Insn {
    let padded = [bytes, &[0x90; 15]].concat();
    match decode(&padded, cpu.state.ctx, Features::ALL) {
        Decoded::Insn(i) if usize::from(i.len) == bytes.len() => i,
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

/// Runs the instruction by its semantics or by its IR.
fn run(cpu: &mut Cpu, bytes: &[u8], by_ir: bool, s: &mut State) {
    load(cpu, s);
    let i = decoded(cpu, bytes);
    let result = if by_ir { ir::eval(&ir::record(&[i]), 0, cpu) } else { functions::handler(&i)(cpu, &i) };
    let fault = match result {
        Ok(()) => Fault::None,
        Err(f) if f == Raised::GP0 => Fault::Protection,
        Err(f) if f == Raised::UD => Fault::Undefined,
        Err(_) => Fault::FloatingPoint,
    };
    store(cpu, s, fault);
}

/// An engine that compiles at once, and its CPU.
struct Jit {
    engine: JitEngine,
    cpu: Cpu,
}

impl Jit {
    fn new(bytes: &[u8]) -> Jit {
        let options = Options { threshold: 1, foreground: true, code_memory: 4 << 20, ..Options::default() };
        let mut jit = Jit { engine: JitEngine::with(options).expect("a compiler for this host"), cpu: cpu() };
        jit.code(bytes);
        jit
    }

    /// Puts an instruction and a HLT where the code is.
    fn code(&mut self, bytes: &[u8]) {
        let code = [bytes, &[0xf4]].concat();
        assert!(self.cpu.ram.write(Phys(CODE), &code));
        self.engine.flush(&mut self.cpu);
    }

    fn run(&mut self, s: &mut State) {
        let cpu = &mut self.cpu;
        load(cpu, s);
        cpu.state.rip = CODE;
        cpu.state.attention = 0;
        cpu.intercept = Some(Intercept::Armed);
        cpu.state.budget = 2;
        self.engine.run(cpu);
        let fault = match cpu.intercept {
            Some(Intercept::Caught(19, _)) => Fault::FloatingPoint,
            Some(Intercept::Caught(13, _)) => Fault::Protection,
            Some(Intercept::Caught(6, _)) => Fault::Undefined,
            Some(Intercept::Caught(vector, _)) => panic!("exception {vector}"),
            _ => Fault::None,
        };
        store(cpu, s, fault);
    }
}

/// All planned instructions that the host has, on vector registers alone.
fn planned() -> Vec<(Code, VecInsn)> {
    let host_has = |feature: &F| match feature {
        F::SSE4A => std::arch::x86_64::__cpuid(0x8000_0001).ecx >> 6 & 1 != 0,
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::F16C => is_x86_feature_detected!("f16c"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        _ => true,
    };
    let mmx = |code: Code| operands(code).iter().any(|k| matches!(k, K::mm_reg | K::mm_rm | K::mm_or_mem));
    Code::values()
        .filter(|code| code.cpuid_features().iter().all(host_has) && !mmx(*code))
        .filter_map(|code| Some((code, vec::decode(code)?)))
        // EMMS, and the bits of approximations are each maker's own.
        .filter(|(_, p)| !matches!(p.op, Op::Emms | Op::MaskedStore | Op::Fp(FpOp::Rcp(_) | FpOp::Rsqrt(_))))
        .collect()
}

/// Register assignments to try: all different, and all ways of two being the same.
fn assignments(p: &VecInsn, code: Code) -> Vec<Registers> {
    let r = |reg, rm, vvvv, is4| Registers { reg, rm, vvvv, is4 };
    if matches!(p.op, Op::Gather { .. }) {
        return vec![r(1, 2, 3, 0), r(0, 3, 1, 0)];
    }
    if code.op_code().encoding() != EncodingKind::VEX {
        return vec![r(1, 2, 0, 0), r(2, 2, 0, 0)];
    }
    vec![r(1, 2, 3, 0), r(1, 2, 1, 3), r(1, 1, 3, 2), r(2, 1, 1, 1), r(2, 2, 2, 0)]
}

/// What a run of comparisons covers.
struct Comparison {
    rng: Rng,
    operand: fn(&mut Rng) -> u128,
    mxcsr: fn(&mut Rng) -> u32,
    cpu: Cpu,
    jit: Jit,
    /// The first difference of each encoding and engine.
    wrong: BTreeMap<String, String>,
}

/// What differs, and from what.
fn difference(bytes: &[u8], before: &State, got: &State, host: &State) -> String {
    let mut text = format!("{bytes:02x?} mxcsr {:#x} offset {} gpr {:x?}", before.mxcsr, before.offset, before.gpr);
    let mut say = |name: &str, before: u128, got: u128, host: u128| {
        if got != host {
            text += &format!("\n    {name} was {before:#034x}\n         got {got:#034x}\n        host {host:#034x}");
        }
    };
    for n in 0..8 {
        let at = |s: &State| s.ymm[n / 2][n % 2];
        say(&format!("ymm{}[{}]", n / 2, n % 2), at(before), at(got), at(host));
    }
    for n in 0..MEMORY / 16 {
        let at = |s: &State| s.memory[16 * n..].first_chunk().map_or(0, |b| u128::from_le_bytes(*b));
        say(&format!("memory+{:#x}", 16 * n), at(before), at(got), at(host));
    }
    for n in 0..3 {
        say(&format!("gpr{n}"), before.gpr[n].into(), got.gpr[n].into(), host.gpr[n].into());
    }
    say("flags", before.flags.into(), got.flags.into(), host.flags.into());
    say("mxcsr", before.mxcsr.into(), got.mxcsr.into(), host.mxcsr.into());
    say("fault", before.fault as u128, got.fault as u128, host.fault as u128);
    let operands: Vec<String> = before.ymm.iter().map(|y| format!("{:#034x} {:#034x}", y[0], y[1])).collect();
    format!("{text}\n    before {}", operands.join("\n           "))
}

impl Comparison {
    fn new(seed: u64, operand: fn(&mut Rng) -> u128, mxcsr: fn(&mut Rng) -> u32) -> Comparison {
        Comparison { rng: Rng(seed), operand, mxcsr, cpu: cpu(), jit: Jit::new(&[0x90]), wrong: BTreeMap::new() }
    }

    fn start(&mut self, p: &VecInsn) -> State {
        let rng = &mut self.rng;
        let mut s = State {
            ymm: std::array::from_fn(|_| std::array::from_fn(|_| (self.operand)(rng))),
            memory: [0; MEMORY],
            gpr: std::array::from_fn(|_| (self.operand)(rng) as u64),
            flags: rng.next() & u64::from(ARITH) | 2,
            mxcsr: (self.mxcsr)(rng),
            // Misaligned now and then.
            offset: if rng.below(4) == 0 { rng.below(33) as u32 } else { 0 },
            fault: Fault::None,
        };
        for chunk in s.memory.chunks_exact_mut(16) {
            chunk.copy_from_slice(&(self.operand)(rng).to_le_bytes());
        }
        if let Op::Gather { index, .. } = p.op {
            // Indices, of either width, that stay within the memory.
            let wide = index.bytes() == 8;
            let mut small = || {
                let n = rng.below(21) as i64 - 10;
                if wide { n as u64 } else { u64::from(n as u32) | u64::from((rng.below(21) as i64 - 10) as u32) << 32 }
            };
            for n in [2, 3] {
                s.ymm[n] = std::array::from_fn(|_| u128::from(small()) | u128::from(small()) << 64);
            }
        }
        // SDM: checked; an AMD EPYC does not check the SHA instructions'.
        if p.op == Op::Vec3(vec::Vec3Op::Sha256Rounds2) || format!("{:?}", p.op).starts_with("Vec(Sha") {
            s.offset = 0;
        }
        if p.dst == Operand::Mxcsr {
            let at = MIDDLE + s.offset as usize;
            s.memory[at..at + 4].copy_from_slice(&(self.mxcsr)(&mut self.rng).to_le_bytes());
        }
        s
    }

    /// Fails if anything differed.
    fn end(self) {
        let list: Vec<String> = self.wrong.iter().map(|(what, how)| format!("{what}: {how}")).collect();
        assert!(list.is_empty(), "{} encodings and engines differ from the host:\n{}", list.len(), list.join("\n"));
    }

    /// Compares an encoding in all its forms; how often the host faulted.
    fn compare(&mut self, code: Code, p: &VecInsn) -> u32 {
        let mut faults = 0;
        for registers in assignments(p, code) {
            for memory in forms(code) {
                let immediates: &[u8] = if p.reads_imm() || p.b == Operand::Field || p.b == Operand::XmmField { &IMMEDIATES } else { &[0] };
                let cases = CASES.div_ceil(immediates.len() as u32).max(3);
                for imm in immediates {
                    let second = self.rng.next() as u8;
                    faults += self.one(code, p, &encode(code, memory, registers, [*imm, second]), cases);
                }
            }
        }
        faults
    }

    fn one(&mut self, code: Code, p: &VecInsn, bytes: &[u8], cases: u32) -> u32 {
        let stubs = Stubs::new(&[bytes.to_vec()]);
        assert_eq!(decoded(&self.cpu, bytes).code, code, "{bytes:02x?}");
        self.jit.code(bytes);
        let mut faults = 0;
        for n in 0..cases {
            let before = self.start(p);
            let mut host = before;
            stubs.run(0, &mut host);
            faults += u32::from(host.fault != Fault::None);
            let mut results = [("interpreter", before), ("IR", before), ("JIT", before)];
            run(&mut self.cpu, bytes, false, &mut results[0].1);
            run(&mut self.cpu, bytes, true, &mut results[1].1);
            // Compiling takes a while: only for some.
            let compiled = n < 3 || n % 8 == 0;
            if compiled {
                self.jit.run(&mut results[2].1);
            }
            for (engine, got) in results.iter_mut().take(if compiled { 3 } else { 2 }) {
                blur(code, p, &mut host, got);
                if *got != host {
                    let what = format!("{code:?} on {engine}");
                    self.wrong.entry(what).or_insert_with(|| difference(bytes, &before, got, &host));
                }
            }
        }
        faults
    }
}

/// Leaves out what the manual leaves undefined.
fn blur(_code: Code, p: &VecInsn, host: &mut State, got: &mut State) {
    if matches!(p.b, Operand::Field | Operand::XmmField) || matches!(p.op, Op::Vec(vec::VecOp::ExtractBits | vec::VecOp::InsertBits)) {
        // The upper half of EXTRQ's and INSERTQ's result.
        for n in 0..4 {
            host.ymm[n][0] &= u128::from(u64::MAX);
            got.ymm[n][0] &= u128::from(u64::MAX);
        }
    }
}

const IMMEDIATES: [u8; 40] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 27, 29, 30, 31, 32, 39, 64, 85, 136, 170,
    204, 228, 249, 255,
];

/// Everything masked; the rounding mode, FTZ, DAZ and the sticky flags at random.
fn any_mxcsr(rng: &mut Rng) -> u32 {
    0x1f80 | (rng.next() as u32 & 0xe07f) & if rng.below(2) == 0 { !0x3f } else { !0 }
}

/// The same with masks at random.
fn unmasked_mxcsr(rng: &mut Rng) -> u32 {
    any_mxcsr(rng) & !(rng.next() as u32 & rng.next() as u32 & 0x1f80)
}

fn any_operand(rng: &mut Rng) -> u128 {
    if rng.below(4) == 0 { rng.float() } else { rng.integer() }
}

/// Half-precision edges among the singles.
fn float(rng: &mut Rng) -> u128 {
    rng.float()
}

fn is_float(p: &VecInsn) -> bool {
    matches!(p.op, Op::Fp(_) | Op::Fma(_) | Op::Compare { .. })
}

#[test]
fn integer_and_moves() {
    let mut c = Comparison::new(0x5eed_1001, any_operand, any_mxcsr);
    let mut count = 0;
    for (code, p) in planned().iter().filter(|(_, p)| !is_float(p) && !matches!(p.op, Op::Strings(_))) {
        c.compare(*code, p);
        count += 1;
    }
    assert!(count > 550, "{count} encodings compared");
    c.end();
}

#[test]
fn strings() {
    let mut c = Comparison::new(0x5eed_1005, Rng::text, any_mxcsr);
    for (code, p) in planned().iter().filter(|(_, p)| matches!(p.op, Op::Strings(_))) {
        c.compare(*code, p);
    }
    c.end();
}

#[test]
fn floating_point() {
    let mut c = Comparison::new(0x5eed_1002, float, any_mxcsr);
    let mut count = 0;
    for (code, p) in planned().iter().filter(|(_, p)| is_float(p)) {
        c.compare(*code, p);
        count += 1;
    }
    assert!(count > 250, "{count} encodings compared");
    c.end();
}

/// #XM: nothing is written but flags in MXCSR.
#[test]
fn unmasked_exceptions() {
    let mut c = Comparison::new(0x5eed_1004, float, unmasked_mxcsr);
    for (code, p) in planned().iter().filter(|(_, p)| is_float(p)) {
        let silent = matches!(p.op, Op::Fp(FpOp::CvtDq2Pd | FpOp::CvtSi32(Fmt::F64)));
        let faults = c.compare(*code, p);
        assert!(silent || faults > 0, "{code:?}: {faults} faults");
    }
    c.end();
}
