//! What each step of execution costs: decode, interpret, compile, run, TLB miss.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use egret_benches::{finish, machine};
use egret_cpu::{Engine, Interp};
use egret_guests::workloads::{self, Workload};
use egret_isa::decode::decode;
use egret_isa::insn::Mode;
use egret_isa::rows::rows;
use egret_isa::{CpuModel, Ctx};
use egret_jit::compile::{Compiler, Tuning};
use egret_jit::region::{PAGE, Request};
use egret_jit::{JitEngine, Options};
use iced_x86::code_asm::*;
use std::hint::black_box;

fn workload(name: &str) -> Workload {
    workloads::all(2).into_iter().find(|w| w.name == name).expect("a workload of this name")
}

fn interp() -> Box<dyn Engine> {
    Box::<Interp>::default()
}

/// A context of 64-bit code, from a machine that is in it.
fn context() -> Ctx {
    let mut machine = machine(&workload("integer"), interp());
    finish(&mut machine);
    machine.cpu().state.ctx
}

fn decoding(c: &mut Criterion) {
    let features = CpuModel::default().features();
    let ctx = context();
    let examples: Vec<Vec<u8>> = rows()
        .flat_map(|row| [false, true].map(|memory| row.example(Mode::M64, memory)))
        .filter_map(|example| Some([example?.0.as_slice(), &[0x90; 15]].concat()))
        .collect();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(examples.len() as u64));
    group.bench_function("every encoding", |b| {
        b.iter(|| {
            for bytes in &examples {
                black_box(decode(bytes, ctx, features));
            }
        });
    });
    group.finish();
}

fn executing(c: &mut Criterion) {
    let mut group = c.benchmark_group("execute");
    group.sample_size(10);
    for (name, work, make) in [
        ("interpret, registers", "integer", interp as fn() -> Box<dyn Engine>),
        ("interpret, TLB misses", "memory", interp),
        ("interpret, page faults", "faults", interp),
        ("run, registers", "integer", || Box::new(JitEngine::new().expect("a compiler for this host"))),
        ("run, TLB misses", "memory", || Box::new(JitEngine::new().expect("a compiler for this host"))),
        ("run, calls", "calls", || Box::new(JitEngine::new().expect("a compiler for this host"))),
        ("run, page faults", "faults", || Box::new(JitEngine::new().expect("a compiler for this host"))),
    ] {
        let workload = workload(work);
        let mut once = machine(&workload, interp());
        finish(&mut once);
        group.throughput(Throughput::Elements(once.stats().instructions));
        group.bench_function(name, |b| b.iter_batched(|| machine(&workload, make()), |mut m| finish(&mut m), BatchSize::PerIteration));
    }
    group.finish();
}

/// A page with a loop of `n` instructions: loads, stores, arithmetic, a branch back.
fn page(n: usize) -> Box<[u8; PAGE]> {
    let assemble = || {
        let mut a = CodeAssembler::new(64)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        for i in 0..n.saturating_sub(1) {
            match i % 5 {
                0 => a.mov(rax, qword_ptr(rsi + 8 * (i % 16)))?,
                1 => a.add(rax, rbx)?,
                2 => a.xor(ecx, eax)?,
                3 => a.mov(qword_ptr(rdi + 8 * (i % 16)), rax)?,
                _ => a.lea(rbx, qword_ptr(rbx + rcx * 2 + 5))?,
            }
        }
        a.jnz(again)?;
        a.assemble(0)
    };
    let code: Result<Vec<u8>, iced_x86::IcedError> = assemble();
    let mut page = Box::new([0xf4; PAGE]);
    let code = code.expect("the loop assembles");
    page[..code.len()].copy_from_slice(&code);
    page
}

fn compiling(c: &mut Criterion) {
    let features = CpuModel::default().features();
    let ctx = context();
    let mut group = c.benchmark_group("compile");
    group.sample_size(20);
    for n in [8, 32, 128] {
        let bytes = page(n);
        let request = || Request {
            page: 0,
            ctx,
            features,
            base: None,
            bytes: bytes.clone(),
            entries: vec![0],
            soft: vec![],
            known: vec![0],
            covered: vec![],
            merge: None,
            beyond: None,
        };
        group.throughput(Throughput::Elements(n as u64));
        for (how, tuning) in [("speed", Tuning::default()), ("none", Tuning { optimize: false, ..Tuning::default() })] {
            let mut compiler = Compiler::new(tuning).expect("a compiler for this host");
            group.bench_function(format!("{n} instructions, opt {how}"), |b| {
                b.iter_batched(request, |r| compiler.compile(r).expect("it compiles"), BatchSize::PerIteration);
            });
        }
    }
    group.bench_function("a new engine", |b| b.iter(|| JitEngine::with(Options::default()).expect("a compiler for this host")));
    group.finish();
}

criterion_group!(benches, decoding, executing, compiling);
criterion_main!(benches);
