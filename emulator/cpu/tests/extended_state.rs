//! XSAVE and its kin, protection keys, five-level paging.

mod harness;

use egret_cpu::functions::xsave;
use egret_cpu::state::{cr0, cr4};
use harness::*;
use iced_x86::code_asm::*;

const AREA: u64 = DATA;
const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;
const PKRU: u64 = 1 << 9;
const ALL: u64 = X87 | SSE | AVX | PKRU;

/// A CPU with XSAVE on and every component with contents of its own.
fn bench(start: Start) -> Bench {
    let mut b = Bench::new(start);
    b.cpu.cr4 |= cr4::OSXSAVE;
    b.cpu.state.xcr0 = ALL;
    fill(&mut b);
    b
}

fn fill(b: &mut Bench) {
    let s = &mut b.cpu.state;
    for n in 0..16 {
        s.xmm[n] = 0x1111 * (n as u128 + 1);
        s.ymm_hi[n] = 0xabcd << 64 | n as u128;
    }
    s.mxcsr = 0x1fa0;
    b.cpu.pkru = 0x5550_0004;
    b.cpu.x87 = egret_isa::x87::X87 { cw: 0x27f, sw: 0x3800, tag: 0x80, fip: 0x1234, ..Default::default() };
    b.cpu.x87.regs[7].frac = 0xdead;
    b.cpu.update_context();
}

fn clear(b: &mut Bench) {
    let s = &mut b.cpu.state;
    (s.xmm, s.ymm_hi, s.mxcsr) = ([7; 16], [7; 16], 0x1f80);
    b.cpu.pkru = 0;
    b.cpu.x87 = Default::default();
    b.cpu.update_context();
}

type Op = fn(&mut CodeAssembler, AsmMemoryOperand);

/// Runs one instruction on the area with EDX:EAX = `mask`.
fn run(b: &mut Bench, mask: u64, at: u64, op: Op) -> String {
    b.cpu.state.rip = CODE;
    b.cpu.state.gpr[4] = STACK;
    (b.cpu.state.gpr[0], b.cpu.state.gpr[2], b.cpu.state.gpr[7]) = (mask & 0xffff_ffff, mask >> 32, at);
    b.interp = egret_cpu::Interp::default();
    b.cpu.state.attention = 0;
    let bits = b.bits();
    b.asm(|a| {
        op(a, if bits == 64 { rdi + 0 } else { edi + 0 });
        a.hlt().expect("hlt");
    });
    b.run()
}

macro_rules! op {
    ($name:ident) => {{
        fn op(a: &mut CodeAssembler, m: AsmMemoryOperand) {
            a.$name(m).expect("encodes");
        }
        op as Op
    }};
}

fn poison(b: &mut Bench, bv: u64) {
    b.bytes(AREA, &[0xcc; 1024]);
    b.bytes(AREA + 512, &[0; 64]);
    b.put(AREA + 512, 8, bv);
}

#[test]
fn the_standard_format() {
    let mut b = bench(Start::L64);
    poison(&mut b, 1 << 5 | X87);
    assert_eq!(run(&mut b, u64::MAX, AREA, op!(xsave64)), "hlt");
    assert_eq!((b.get(AREA + 512, 8), b.get(AREA + 520, 8)), (ALL | 1 << 5, 0));
    assert_eq!((b.get(AREA, 2), b.get(AREA + 8, 8)), (0x27f, 0x1234));
    assert_eq!((b.get(AREA + 24, 4), b.get(AREA + 28, 4)), (0x1fa0, 0xffff));
    assert_eq!((b.get(AREA + 160, 8), b.get(AREA + 400, 8)), (0x1111, 0x1_1110));
    assert_eq!((b.get(AREA + 576, 8), b.get(AREA + 576 + 248, 8), b.get(AREA + 576 + 240, 8)), (0, 0xabcd, 15));
    assert_eq!(b.get(AREA + 832, 8), 0x5550_0004);
    assert_eq!(b.get(AREA + 416, 8), 0xcccc_cccc_cccc_cccc, "bytes 416 to 511 are not written");
    let saved = (b.cpu.state.xmm, b.cpu.state.ymm_hi, b.cpu.x87.clone());
    b.put(AREA + 512, 8, ALL);
    clear(&mut b);
    assert_eq!(run(&mut b, u64::MAX, AREA, op!(xrstor64)), "hlt");
    assert!((b.cpu.state.xmm, b.cpu.state.ymm_hi, b.cpu.x87.clone()) == saved);
    assert_eq!((b.cpu.state.mxcsr, b.cpu.pkru), (0x1fa0, 0x5550_0004));
    // Components that XSTATE_BV leaves out are initialized, but MXCSR is loaded.
    b.put(AREA + 512, 8, PKRU);
    assert_eq!(run(&mut b, X87 | SSE | AVX, AREA, op!(xrstor64)), "hlt");
    assert!(b.cpu.x87 == Default::default() && b.cpu.state.xmm == [0; 16] && b.cpu.state.ymm_hi == [0; 16]);
    assert_eq!((b.cpu.state.mxcsr, b.cpu.pkru), (0x1fa0, 0x5550_0004));
}

#[test]
fn outside_64_bit_mode_eight_registers() {
    let mut b = bench(Start::P32);
    poison(&mut b, 0);
    assert_eq!(run(&mut b, ALL, AREA, op!(xsave)), "hlt");
    assert_eq!((b.get(AREA + 272, 8), b.get(AREA + 288, 8)), (0x8888, 0xcccc_cccc_cccc_cccc));
    assert_eq!(b.get(AREA + 576 + 128, 8), 0xcccc_cccc_cccc_cccc);
    b.put(AREA + 512, 8, 0);
    assert_eq!(run(&mut b, ALL, AREA, op!(xrstor)), "hlt");
    assert_eq!((b.cpu.state.xmm[7], b.cpu.state.xmm[8], b.cpu.state.ymm_hi[8]), (0, 0x9999, 0xabcd << 64 | 8));
}

#[test]
fn the_init_optimization() {
    // What is in its initial configuration is not written by XSAVEOPT, XSAVEC and XSAVES, but by XSAVE; MXCSR counts only where
    // components are compacted.
    let rows: [(Op, u64, u64, u64); 4] = [
        (op!(xsave64), 0x37f, 0, 0),
        (op!(xsaveopt64), 0xcccc, 0xcccc_cccc_cccc_cccc, 0),
        (op!(xsavec64), 0xcccc, 0, SSE),
        (op!(xsaves64), 0xcccc, 0, SSE),
    ];
    for (n, (op, cw, first, bv)) in rows.into_iter().enumerate() {
        let mut b = bench(Start::L64);
        (b.cpu.state.xmm, b.cpu.state.ymm_hi, b.cpu.pkru) = ([0; 16], [0; 16], 0);
        b.cpu.x87 = Default::default();
        poison(&mut b, 0);
        assert_eq!(run(&mut b, ALL, AREA, op), "hlt", "row {n}");
        let got = (b.get(AREA, 2), b.get(AREA + 160, 8), b.get(AREA + 512, 8), b.get(AREA + 24, 4));
        assert_eq!(got, (cw, first, bv, 0x1fa0), "row {n}");
    }
}

#[test]
fn the_compacted_format() {
    for (save, restore) in [(op!(xsavec64), op!(xrstor64)), (op!(xsaves64), op!(xrstors64))] {
        let mut b = bench(Start::L64);
        poison(&mut b, 0);
        assert_eq!(run(&mut b, SSE | PKRU, AREA, save), "hlt");
        assert_eq!((b.get(AREA + 512, 8), b.get(AREA + 520, 8)), (SSE | PKRU, 1 << 63 | SSE | PKRU));
        assert_eq!((b.get(AREA + 576, 8), b.get(AREA, 2)), (0x5550_0004, 0xcccc));
        let xmm = b.cpu.state.xmm;
        clear(&mut b);
        assert_eq!(run(&mut b, ALL, AREA, restore), "hlt");
        assert_eq!((b.cpu.state.xmm, b.cpu.pkru, b.cpu.state.mxcsr), (xmm, 0x5550_0004, 0x1fa0));
        assert_eq!(b.cpu.state.ymm_hi, [0; 16], "not in XCOMP_BV: initialized");
        // The SSE component is initialized with MXCSR.
        b.put(AREA + 512, 8, PKRU);
        assert_eq!(run(&mut b, SSE, AREA, restore), "hlt");
        assert_eq!((b.cpu.state.xmm, b.cpu.state.mxcsr), ([0; 16], 0x1f80));
    }
}

#[test]
fn bad_headers() {
    // XSTATE_BV, XCOMP_BV, byte 16, byte 24 of the header; what XRSTOR and XRSTORS say.
    const C: u64 = 1 << 63;
    let rows = [
        (ALL, 0, 0, 0, "hlt", "#13(0x0)"),
        (ALL | 1 << 3, 0, 0, 0, "#13(0x0)", "#13(0x0)"),
        (0, 1, 0, 0, "#13(0x0)", "#13(0x0)"),
        (0, 0, 1, 0, "#13(0x0)", "#13(0x0)"),
        (0, 0, 0, 1, "hlt", "#13(0x0)"),
        (SSE, C | SSE, 0, 0, "hlt", "hlt"),
        (SSE, C | X87, 0, 0, "#13(0x0)", "#13(0x0)"),
        (C, C, 0, 0, "#13(0x0)", "#13(0x0)"),
        (0, C | 1 << 8, 0, 0, "#13(0x0)", "#13(0x0)"),
        (0, C, 1, 0, "#13(0x0)", "#13(0x0)"),
        (0, C, 0, 1, "#13(0x0)", "#13(0x0)"),
    ];
    for (bv, comp, b16, b24, want, want_s) in rows {
        for (op, want) in [(op!(xrstor64), want), (op!(xrstors64), want_s)] {
            let mut b = bench(Start::L64);
            b.put(AREA + 24, 4, 0x1f80);
            for (at, v, size) in [(512, bv, 8), (520, comp, 8), (528, b16, 1), (536, b24, 1)] {
                b.put(AREA + at, size, v);
            }
            assert_eq!(run(&mut b, ALL, AREA, op), want, "{bv:x} {comp:x} {b16} {b24}");
        }
    }
    let mut b = bench(Start::L64);
    b.put(AREA + 24, 4, 0x1_0000);
    assert_eq!(run(&mut b, AVX, AREA, op!(xrstor64)), "#13(0x0)", "MXCSR's reserved bits");
    assert_eq!(run(&mut b, X87, AREA, op!(xrstor64)), "hlt", "MXCSR is not asked for");
}

#[test]
fn faults_in_order() {
    let mut b = bench(Start::L64);
    assert_eq!(run(&mut b, ALL, AREA + 32, op!(xsave64)), "#13(0x0)");
    b.cpu.cr0 |= cr0::TS;
    b.cpu.update_context();
    assert_eq!(run(&mut b, ALL, AREA + 32, op!(xsave64)), "#7");
    b.cpu.cr4 &= !cr4::OSXSAVE;
    assert_eq!(run(&mut b, ALL, AREA + 32, op!(xrstor64)), "#6");
    let mut b = bench(Start::U64);
    assert_eq!(run(&mut b, ALL, AREA, op!(xsaves64)), "#13(0x0)");
    let mut b = bench(Start::U64);
    assert_eq!(run(&mut b, ALL, AREA, op!(xrstors64)), "#13(0x0)");
}

#[test]
fn xsetbv_checks() {
    let rows = [
        (0, ALL, "hlt"),
        (0, X87, "hlt"),
        (0, X87 | SSE, "hlt"),
        (0, 0, "#13(0x0)"),
        (0, SSE, "#13(0x0)"),
        (0, X87 | AVX, "#13(0x0)"),
        (0, ALL | 1 << 5, "#13(0x0)"),
        (0, ALL | 1 << 62, "#13(0x0)"),
        (1, ALL, "#13(0x0)"),
    ];
    for (c, value, want) in rows {
        let mut b = bench(Start::L64);
        b.cpu.state.gpr[1] = c;
        let got = run(&mut b, value, 0, |a, _| a.xsetbv().expect("encodes"));
        assert_eq!(got, want, "{c} {value:x}");
        assert_eq!(b.cpu.state.xcr0, if want == "hlt" { value } else { ALL });
    }
    let mut b = bench(Start::U64);
    assert_eq!(run(&mut b, ALL, 0, |a, _| a.xsetbv().expect("encodes")), "#13(0x0)");
    for (c, want) in [(0, ALL), (1, ALL)] {
        let mut b = bench(Start::U64);
        b.cpu.state.gpr[1] = c;
        let stop = run(&mut b, 0, 0, |a, _| {
            a.xgetbv().expect("encodes");
            a.int(0x80).expect("encodes");
        });
        assert_eq!((stop.as_str(), b.cpu.gpr(0), b.cpu.gpr(2)), ("#128", want, 0));
    }
}

#[test]
fn sizes() {
    let rows =
        [(0, [ALL as u32, 576, 840, 0]), (1, [15, 576, 0, 0]), (2, [256, 576, 0, 0]), (3, [0; 4]), (9, [8, 832, 0, 0]), (64, [0; 4])];
    for (subleaf, want) in rows {
        assert_eq!(xsave::leaf(ALL, X87 | SSE, 15, subleaf), want, "{subleaf}");
    }
    assert_eq!(xsave::leaf(ALL, ALL, 15, 0)[1], 840);
    assert_eq!(xsave::leaf(ALL, X87 | PKRU, 15, 1)[1], 584);
    assert_eq!(xsave::leaf(X87 | SSE, X87, 15, 2), [0; 4]);
}

/// A 4 KiB page of its own at 2 MiB with protection key 3.
fn keyed(start: Start, flags: u64) -> Bench {
    let mut b = Bench::new(start);
    b.cpu.cr4 |= cr4::PKE;
    let table = TABLES + 0x3000;
    b.put(TABLES + 0x2008, 8, table | 7);
    b.put(table, 8, 0x20_0000 | flags | 3 << 59);
    b
}

#[test]
fn protection_keys() {
    // PKRU, user page, write, CPL 3, CR0.WP: what comes.
    let (ad, wd) = (1u32 << 6, 2u32 << 6);
    let rows = [
        (0, 7, true, true, true, "ok"),
        (ad, 7, false, true, true, "#14(0x25)"),
        (ad, 7, true, true, true, "#14(0x27)"),
        (ad, 7, false, false, true, "#14(0x21)"),
        (wd, 7, false, true, true, "ok"),
        (wd, 7, true, true, true, "#14(0x27)"),
        (wd, 7, true, true, false, "#14(0x27)"),
        (wd, 7, true, false, true, "#14(0x23)"),
        (wd, 7, true, false, false, "ok"),
        (ad, 3, true, false, true, "ok"),
        (ad, 5, true, true, true, "#14(0x27)"),
        (!(3 << 6), 7, true, true, true, "ok"),
    ];
    for (pkru, flags, write, user, wp, want) in rows {
        let mut b = keyed(if user { Start::U64 } else { Start::L64 }, flags);
        b.cpu.pkru = pkru;
        // The code and stack have key 0.
        b.cpu.pkru &= !3;
        if !wp {
            b.cpu.cr0 &= !cr0::WP;
        }
        b.cpu.state.gpr[7] = 0x20_0100;
        b.asm(|a| {
            if write { a.mov(byte_ptr(rdi), al) } else { a.mov(al, byte_ptr(rdi)) }.expect("encodes");
            a.int(0x80).expect("encodes");
        });
        let got = b.run();
        let got = if got == "#128" { "ok" } else { got.as_str() };
        assert_eq!(got, want, "pkru {pkru:x} flags {flags} write {write} user {user} wp {wp}");
    }
}

#[test]
fn wrpkru_takes_effect_at_once() {
    let mut b = keyed(Start::U64, 7);
    b.cpu.state.gpr[7] = 0x20_0000;
    b.asm(|a| {
        a.mov(byte_ptr(rdi), 1).expect("encodes");
        a.xor(ecx, ecx).expect("encodes");
        a.xor(edx, edx).expect("encodes");
        a.mov(eax, 2 << 6).expect("encodes");
        a.wrpkru().expect("encodes");
        a.rdpkru().expect("encodes");
        a.mov(ebx, eax).expect("encodes");
        a.mov(al, byte_ptr(rdi)).expect("encodes");
        a.mov(byte_ptr(rdi), 1).expect("encodes");
    });
    assert_eq!(b.run(), "#14(0x27)");
    assert_eq!(b.cpu.gpr(3), 2 << 6);
    for (c, d, want) in [(1, 0, "#13(0x0)"), (0, 1, "#13(0x0)")] {
        let mut b = keyed(Start::U64, 7);
        (b.cpu.state.gpr[1], b.cpu.state.gpr[2]) = (c, d);
        b.asm(|a| a.wrpkru().expect("encodes"));
        assert_eq!(b.run(), want);
    }
    let mut b = Bench::new(Start::U64);
    b.asm(|a| a.rdpkru().expect("encodes"));
    assert_eq!(b.run(), "#6", "CR4.PKE is clear");
}

#[test]
fn five_level_paging() {
    let top = TABLES + 0x6000;
    let high = 0x00ff_0000_0000_0000u64;
    let make = || {
        let mut b = Bench::new(Start::L64);
        b.put(top, 8, TABLES | 7);
        b.put(top + 8 * 255, 8, TABLES | 7);
        b.cpu.cr3 = top;
        b.cpu.set_model("x86-64-v3,+la57".parse().unwrap());
        b.cpu.cr4 |= cr4::LA57;
        b.cpu.flush_tlb();
        b
    };
    let read = |b: &mut Bench, at: u64| {
        b.cpu.state.gpr[7] = at;
        b.asm(|a| {
            a.mov(rax, qword_ptr(rdi)).expect("encodes");
            a.hlt().expect("encodes");
        });
        b.run()
    };
    let mut b = make();
    b.put(DATA, 8, 0x77);
    assert_eq!((read(&mut b, high + DATA), b.cpu.gpr(0)), ("hlt".into(), 0x77));
    let mut b = make();
    assert_eq!(read(&mut b, 0x0100_0000_0000_0000), "#13(0x0)", "bit 56 is the sign");
    let mut b = make();
    assert_eq!(read(&mut b, 0x0001_0000_0000_0000), "#14(0x0)");
    let mut b = make();
    b.put(top + 8 * 255, 8, TABLES | 0x87);
    assert_eq!(read(&mut b, high), "#14(0x9)", "PS is reserved in a PML5 entry");
    // The number of levels cannot change while long mode is on.
    let mut b = Bench::new(Start::L64);
    b.cpu.set_model("x86-64-v3,+la57".parse().unwrap());
    b.cpu.state.gpr[0] = b.cpu.cr4 | cr4::LA57;
    b.asm(|a| a.mov(cr4, rax).expect("encodes"));
    assert_eq!(b.run(), "#13(0x0)");
}
