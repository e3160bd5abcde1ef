//! The machine code of typical blocks, as text: a change in code quality shows up as a diff.
//!
//! `EGRET_BLESS=1 cargo test -p egret-jit --test golden` writes the files anew. Only on x86-64 hosts with the features they were
//! written on does the code have to be the same.
#![cfg(target_arch = "x86_64")]

#[path = "../../emulator/cpu/tests/harness/mod.rs"]
mod harness;

use egret_isa::CpuModel;
use egret_jit::compile::{Compiler, Tuning};
use egret_jit::region::{PAGE, Request};
use harness::{Bench, Start};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::fmt::Write;
use std::path::Path;

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const BLOCKS: &[(&str, Code)] = &[
    ("add-registers", |a| a.add(rax, rbx)),
    ("compare-and-branch", |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.sub(rcx, 1)?;
        a.jnz(again)
    }),
    ("add-with-carry", |a| {
        a.add(rax, rbx)?;
        a.adc(rdx, rcx)
    }),
    ("load", |a| a.mov(rax, qword_ptr(rsi + 8))),
    ("store", |a| a.mov(dword_ptr(rdi + rcx * 4), eax)),
    ("loads-near-each-other", |a| {
        a.mov(rax, qword_ptr(rsi))?;
        a.mov(rbx, qword_ptr(rsi + 8))?;
        a.mov(rdx, qword_ptr(rsi + 16))
    }),
    ("read-modify-write", |a| a.add(qword_ptr(rdi), rax)),
    ("push-pop-return", |a| {
        a.push(rbx)?;
        a.mov(rbx, rdi)?;
        a.pop(rbx)?;
        a.ret()
    }),
    ("sum-loop", |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.add(rax, qword_ptr(rsi))?;
        a.add(rsi, 8)?;
        a.dec(ecx)?;
        a.jnz(again)
    }),
    ("shift-by-cl", |a| {
        a.shl(rax, cl)?;
        a.test(rax, rax)
    }),
    ("multiply-and-divide", |a| {
        a.imul_2(rax, rbx)?;
        a.mul(rcx)
    }),
    ("scalar-doubles", |a| {
        a.mulsd(xmm0, xmm1)?;
        a.addsd(xmm0, qword_ptr(rsi))
    }),
    ("packed-bytes", |a| {
        a.movdqu(xmm0, xmmword_ptr(rsi))?;
        a.pcmpeqb(xmm0, xmm1)?;
        a.pmovmskb(eax, xmm0)
    }),
    ("call-and-set", |a| {
        a.cmp(eax, ebx)?;
        a.setl(cl)?;
        a.cmovge(rdx, rsi)
    }),
];

fn listing(code: Code) -> String {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    code(&mut a).expect("assembles");
    let guest = a.assemble(0).expect("assembles");
    let mut bytes = Box::new([0xf4; PAGE]);
    bytes[..guest.len()].copy_from_slice(&guest);
    let mut text = String::from("guest:\n");
    let mut formatter = iced_x86::NasmFormatter::new();
    for insn in iced_x86::Decoder::new(64, &guest, 0).iter() {
        let mut line = String::new();
        iced_x86::Formatter::format(&mut formatter, &insn, &mut line);
        let _ = writeln!(text, "  {line}");
    }
    let ctx = Bench::new(Start::L64).cpu.state.ctx;
    let request = Request {
        page: 0x1000,
        ctx,
        features: CpuModel::default().features(),
        base: None,
        bytes,
        entries: vec![0],
        soft: vec![],
        known: vec![0],
        covered: vec![],
        merge: None,
        beyond: None,
    };
    let mut compiler = Compiler::new(Tuning { verify: false, ..Tuning::default() }).expect("a compiler for this host");
    let host = compiler.disassembly(&request).expect("compiles");
    let _ = writeln!(text, "host: {} instructions", host.lines().filter(|l| l.starts_with("  ")).count());
    text + &host
}

#[test]
fn generated_code_is_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("EGRET_BLESS").is_some();
    let host = host();
    let mut changed = Vec::new();
    for (name, code) in BLOCKS {
        let text = listing(*code);
        let address = |word: &str| word.starts_with("0x7f") && word.len() >= 12;
        let found = text.split(|c: char| !c.is_ascii_alphanumeric()).find(|w| address(w));
        assert_eq!(found, None, "{name}: an address of this run is in the code");
        let path = folder.join(format!("{name}.txt"));
        if bless {
            std::fs::write(&path, &text).expect("writable");
            continue;
        }
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        if old != text {
            let size = |t: &str| t.lines().find_map(|l| l.strip_prefix("host: ").map(str::to_owned)).unwrap_or_default();
            changed.push(format!("{name}: {} before, {} now\n{text}", size(&old), size(&text)));
        }
    }
    let features = folder.join("HOST");
    if bless {
        std::fs::write(features, host).expect("writable");
    } else if std::fs::read_to_string(features).is_ok_and(|was| was != host) {
        eprintln!("this host's instruction set is not that of the golden files ({host}): they were not compared");
    } else {
        assert!(changed.is_empty(), "EGRET_BLESS=1 accepts this\n{}", changed.join("\n"));
    }
}

/// What Cranelift's choice of instructions depends on.
fn host() -> String {
    let has = [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("popcnt", std::is_x86_feature_detected!("popcnt")),
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("bmi1", std::is_x86_feature_detected!("bmi1")),
        ("bmi2", std::is_x86_feature_detected!("bmi2")),
        ("lzcnt", std::is_x86_feature_detected!("lzcnt")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512vl", std::is_x86_feature_detected!("avx512vl")),
    ];
    has.iter().filter(|f| f.1).map(|f| f.0).collect::<Vec<_>>().join(" ")
}
