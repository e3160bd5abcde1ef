//! CPU models: what CPUID says of them, what decodes, and the habits of old silicon.

mod harness;

use egret_cpu::Cpu;
use egret_cpu::state::cr4;
use egret_isa::Feature as F;
use egret_isa::model::{BASES, CpuModel, ROWS};
use harness::{Bench, CODE, DATA, Start};

fn bench(model: &str, start: Start) -> Bench {
    let mut b = Bench::new(start);
    b.cpu.set_model(model.parse().expect(model));
    b
}

/// The features that CPUID shows, 64-bit code asking.
fn shown(cpu: &mut Cpu) -> Vec<F> {
    let set = |cpu: &mut Cpu, row: &egret_isa::model::Row| {
        row.place.is_some_and(|p| {
            // A leaf beyond the last answers with another's bits.
            let last = cpu.cpuid(p.leaf & 0x8000_0000, 0)[0];
            last >= p.leaf && cpu.cpuid(p.leaf, p.subleaf)[usize::from(p.register)] >> p.bit & 1 != 0
        })
    };
    ROWS.iter().filter(|row| set(cpu, row)).map(|row| row.feature).collect()
}

#[test]
fn cpuid_shows_what_the_model_has() {
    for base in BASES.iter().filter(|b| b.features().has(F::Cpuid)) {
        let mut b = bench(base.name, Start::L64);
        let long = base.features().has(F::Lm);
        let want: Vec<F> = ROWS
            .iter()
            .filter(|r| r.place.is_some_and(|p| long || p.leaf < 2) && base.features().has(r.feature))
            .map(|r| r.feature)
            .collect();
        let want: Vec<F> = want.into_iter().filter(|f| *f != F::Htt).collect();
        assert_eq!(shown(&mut b.cpu), want, "{}", base.name);
        assert_eq!(b.cpu.cpuid(0, 0)[0] >= 7, long, "{}", base.name);
        assert_eq!(b.cpu.cpuid(1, 0)[0], base.signature);
        for leaf in (0..0x20).chain(0x3fff_fffe..0x4000_0004).chain(0x7fff_ffff..0x8000_0020).chain([u32::MAX]) {
            for subleaf in [0, 1, 2, 3, u32::MAX] {
                let _ = b.cpu.cpuid(leaf, subleaf);
            }
        }
    }
}

#[test]
fn a_feature_taken_away_is_gone() {
    for row in ROWS.iter().filter(|r| r.place.is_some()) {
        let Ok(model) = format!("x86-64-v3,-{}", row.word).parse::<CpuModel>() else { continue };
        let mut b = Bench::new(Start::L64);
        b.cpu.set_model(model);
        assert!(!shown(&mut b.cpu).contains(&row.feature), "{}", row.word);
    }
}

#[test]
fn cpuid_follows_the_state() {
    let mut b = bench("x86-64-v3", Start::L64);
    const OSXSAVE: u32 = 1 << 27;
    assert_eq!(b.cpu.cpuid(1, 0)[2] & OSXSAVE, 0);
    b.cpu.cr4 |= cr4::OSXSAVE;
    assert_eq!(b.cpu.cpuid(1, 0)[2] & OSXSAVE, OSXSAVE);
    b.cpu.identity.cpus = 6;
    b.cpu.identity.apic_id = 5;
    assert_eq!(b.cpu.cpuid(1, 0)[1] >> 16, 0x0506);
    assert_eq!(b.cpu.cpuid(0xb, 1)[..2], [3, 6], "three bits of an APIC ID number six cores");
    assert_eq!(b.cpu.cpuid(0xb, 1)[3], 5);
    assert!(shown(&mut b.cpu).contains(&F::Htt));
    let mut b = bench("x86-64-v3", Start::P32);
    assert!(!shown(&mut b.cpu).contains(&F::Syscall), "SYSCALL shows in 64-bit code alone");
}

/// Runs the bytes, which a HLT follows; how it ends, and AX.
fn run(model: &str, start: Start, code: &[u8]) -> (String, u64) {
    let mut b = bench(model, start);
    for (n, byte) in code.iter().chain(&[0xf4]).enumerate() {
        b.put(CODE + n as u64, 1, (*byte).into());
    }
    b.cpu.state.gpr[3] = 0x8000_0100;
    let end = b.run();
    (end, b.cpu.gpr(0))
}

#[test]
fn features_decide_what_decodes() {
    let tzcnt = [0xb8, 7, 0, 0, 0, 0xf3, 0x0f, 0xbc, 0xc3];
    let lzcnt = [0xb8, 7, 0, 0, 0, 0xf3, 0x0f, 0xbd, 0xc3];
    for (model, code, want) in [
        ("x86-64-v3", &tzcnt[..], ("hlt", 8)),
        ("x86-64-v3", &lzcnt, ("hlt", 0)),
        ("x86-64-v2", &lzcnt, ("hlt", 31)),
        // ANDN EAX, EBX, EBX and MOVBE EAX, [RDI].
        ("x86-64-v3", &[0xc4, 0xe2, 0x60, 0xf2, 0xc3], ("hlt", 0)),
        ("x86-64-v3,-bmi1", &[0xc4, 0xe2, 0x60, 0xf2, 0xc3], ("#6", 0)),
        ("x86-64-v2", &[0x0f, 0x38, 0xf0, 0x07], ("#6", 0)),
        // POPCNT EAX, EBX; CMPXCHG16B [RSI]; ENDBR64; RDSSPQ RAX; PREFETCHW [RBX], which nobody looks at.
        ("x86-64-v2", &[0xf3, 0x0f, 0xb8, 0xc3], ("hlt", 2)),
        ("x86-64-v1", &[0xf3, 0x0f, 0xb8, 0xc3], ("#6", 0)),
        ("x86-64-v1", &[0xf3, 0x0f, 0x1e, 0xfa], ("hlt", 0)),
        ("x86-64-v1", &[0xf3, 0x48, 0x0f, 0x1e, 0xc8], ("hlt", 0)),
        ("x86-64-v1,-prefetchw", &[0x0f, 0x0d, 0x0b], ("hlt", 0)),
        // SERIALIZE, which only some have; UD0 and UD1, which nobody has.
        ("x86-64-v3", &[0x0f, 0x01, 0xe8], ("#6", 0)),
        ("x86-64-v3,+serialize", &[0x0f, 0x01, 0xe8], ("hlt", 0)),
        ("x86-64-v3", &[0x0f, 0xff, 0xc0], ("#6", 0)),
        ("x86-64-v3", &[0x0f, 0xb9, 0xc0], ("#6", 0)),
        // LAHF in 64-bit code.
        ("x86-64-v1,-lahf64", &[0x9f], ("#6", 0)),
    ] {
        let (end, ax) = run(model, Start::L64, code);
        assert_eq!((end.as_str(), ax), want, "{model} {code:02x?}");
    }
    for (model, code, want) in [
        ("x86-64-v3", &[0xc4, 0xe2, 0x60, 0xf2, 0xc3][..], "#6"),
        ("386", &[0x0f, 0xa2], "#6"),
        ("486", &[0x0f, 0xa2], "hlt"),
        ("386", &[0x0f, 0xc8], "#6"),
        ("486", &[0x0f, 0xc8], "hlt"),
        ("386", &[0xd9, 0xfe], "hlt"),
    ] {
        assert_eq!(run(model, Start::Real, code).0, want, "{model} {code:02x?}");
    }
}

#[test]
fn rdrand_without_a_source_says_so() {
    let mut b = bench("x86-64-v3", Start::L64);
    b.cpu.state.gpr[0] = 9;
    b.asm(|a| {
        a.stc().expect("encodes");
        a.rdrand(iced_x86::code_asm::rax).expect("encodes");
        a.hlt().expect("encodes");
    });
    assert_eq!((b.run(), b.cpu.gpr(0), b.cpu.rflags() & 1), ("hlt".into(), 0, 0));
}

#[test]
fn clzero_clears_a_line() {
    let mut b = bench("x86-64-v3,+clzero", Start::L64);
    for n in 0..24 {
        b.put(DATA + 8 * n, 8, u64::MAX);
    }
    b.cpu.state.gpr[0] = DATA + 64 + 17;
    for (n, byte) in [0x0f, 0x01, 0xfc, 0xf4].into_iter().enumerate() {
        b.put(CODE + n as u64, 1, byte);
    }
    assert_eq!(b.run(), "hlt");
    let line = |b: &mut Bench, n: u64| (0..8).map(|q| b.get(DATA + 64 * n + 8 * q, 8)).collect::<Vec<_>>();
    assert_eq!([line(&mut b, 0), line(&mut b, 1), line(&mut b, 2)], [vec![u64::MAX; 8], vec![0; 8], vec![u64::MAX; 8]]);
}
