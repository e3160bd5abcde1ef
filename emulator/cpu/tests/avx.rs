//! AVX: when it exists, what its prefixes rule out, and faults of masked and partial accesses.

mod harness;

use egret_cpu::state::{cr0, cr4};
use egret_isa::{CpuModel, Features};
use harness::*;

/// The end of mapped memory.
const END: u64 = 16 << 20;
/// VADDPS xmm0,xmm1,xmm2.
const VADDPS: &[u8] = &[0xc5, 0xf0, 0x58, 0xc2];

/// A CPU with AVX on.
fn bench(start: Start) -> Bench {
    let mut b = Bench::new(start);
    b.cpu.set_model(CpuModel::default().with_features(Features::ALL));
    b.cpu.cr4 |= cr4::OSXSAVE;
    b.cpu.state.xcr0 = 7;
    b.cpu.update_context();
    b
}

/// Runs an instruction and a HLT.
fn run(b: &mut Bench, bytes: &[u8]) -> String {
    b.bytes(CODE, &[bytes, &[0xf4]].concat());
    b.run()
}

fn check(start: Start, change: fn(&mut Bench), bytes: &[u8], want: &str) {
    let mut b = bench(start);
    change(&mut b);
    b.cpu.update_context();
    assert_eq!(run(&mut b, bytes), want, "{start:?} {bytes:02x?}");
}

/// Changes a machine before its run.
type Prepare = fn(&mut Bench);

/// SDM Vol. 2, "Exception Classes of Instructions", class 2 and others alike: #UD before #NM; CR0.EM and CR4.OSFXSR do not count.
#[test]
fn where_it_exists() {
    use Start::*;
    let no_xsave: Prepare = |b| b.cpu.cr4 &= !cr4::OSXSAVE;
    let rows: [(Start, Prepare, &str); 16] = [
        (L64, |_| (), "hlt"),
        (U64, |_| (), "#13(0x0)"),
        (C32, |_| (), "#13(0x0)"),
        (P32, |_| (), "hlt"),
        (P16, |_| (), "hlt"),
        (Real, |_| (), "#6"),
        (V86, |_| (), "#6"),
        (L64, no_xsave, "#6"),
        (P32, no_xsave, "#6"),
        (L64, |b| b.cpu.state.xcr0 = 3, "#6"),
        (L64, |b| b.cpu.state.xcr0 = 1, "#6"),
        (L64, |b| b.cpu.cr0 |= cr0::TS, "#7"),
        (L64, |b| b.cpu.cr0 |= cr0::EM, "hlt"),
        (L64, |b| b.cpu.cr4 &= !cr4::OSFXSR, "hlt"),
        (L64, |b| (b.cpu.cr0, b.cpu.cr4) = (b.cpu.cr0 | cr0::TS, b.cpu.cr4 & !cr4::OSXSAVE), "#6"),
        (Real, |b| b.cpu.cr0 |= cr0::TS, "#6"),
    ];
    for (start, change, want) in rows {
        // At CPL 3 the HLT faults: then the instruction was fine.
        check(start, change, VADDPS, want);
        check(start, change, &[0xc5, 0xf8, 0x77], want);
    }
}

#[test]
fn what_prefixes_and_fields_rule_out() {
    let rows: [&[u8]; 12] = [
        &[0x66, 0xc5, 0xf0, 0x58, 0xc2],
        &[0xf2, 0xc5, 0xf0, 0x58, 0xc2],
        &[0xf3, 0xc5, 0xf0, 0x58, 0xc2],
        &[0xf0, 0xc5, 0xf0, 0x58, 0xc2],
        &[0x48, 0xc5, 0xf0, 0x58, 0xc2],
        // VMOVAPS has no second source: VEX.vvvv must be 1111b.
        &[0xc5, 0xf0, 0x28, 0xc1],
        // VMOVD, VMOVHLPS and VPINSRW exist with VEX.L = 0 only.
        &[0xc5, 0xfd, 0x6e, 0xc0],
        &[0xc5, 0xf4, 0x12, 0xc1],
        &[0xc5, 0xf5, 0xc4, 0xc1, 0],
        // VPERMQ exists with VEX.L = 1 only.
        &[0xc4, 0xe3, 0xf9, 0x00, 0xc1, 0],
        // VPGATHERDD with two of its registers the same.
        &[0xc4, 0xe2, 0x69, 0x90, 0x14, 0x08],
        &[0xc4, 0xe2, 0x71, 0x90, 0x14, 0x08],
    ];
    for bytes in rows {
        check(Start::L64, |_| (), bytes, "#6");
    }
    // A segment override and an address size are fine.
    check(Start::L64, |b| b.cpu.state.gpr[0] = DATA, &[0x3e, 0x67, 0xc5, 0xf0, 0x58, 0x00], "hlt");
}

/// Outside 64-bit mode there are eight registers to clear.
#[test]
fn vzeroupper_and_vzeroall() {
    for (start, bytes, low, high) in [
        (Start::L64, &[0xc5u8, 0xf8, 0x77], [1, 1], [0, 0]),
        (Start::L64, &[0xc5, 0xfc, 0x77], [0, 0], [0, 0]),
        (Start::P32, &[0xc5, 0xf8, 0x77], [1, 1], [0, 2]),
        (Start::P32, &[0xc5, 0xfc, 0x77], [0, 1], [0, 2]),
    ] {
        let mut b = bench(start);
        (b.cpu.state.xmm, b.cpu.state.ymm_hi) = ([1; 16], [2; 16]);
        assert_eq!(run(&mut b, bytes), "hlt");
        let s = &b.cpu.state;
        assert_eq!(([s.xmm[7], s.xmm[8]], [s.ymm_hi[7], s.ymm_hi[8]]), (low, high), "{start:?} {bytes:02x?}");
    }
}

/// Lanes of 32 bits.
fn lanes(v: [u32; 8]) -> (u128, u128) {
    let join = |part: &[u32]| part.iter().rev().fold(0, |r, &v| r << 32 | u128::from(v));
    (join(&v[..4]), join(&v[4..]))
}

fn set(b: &mut Bench, r: usize, v: [u32; 8]) {
    (b.cpu.state.xmm[r], b.cpu.state.ymm_hi[r]) = lanes(v);
}

fn ymm(b: &Bench, r: usize) -> (u128, u128) {
    (b.cpu.state.xmm[r], b.cpu.state.ymm_hi[r])
}

const ON: u32 = 0x8000_0000;

/// SDM Vol. 2, "VMASKMOV": elements that the mask leaves out fault neither when loaded nor when stored.
#[test]
fn masked_moves_touch_what_the_mask_names() {
    let at = END - 12;
    let masks = [([ON, ON, ON, 0, 0, 0, 0, 0], "hlt"), ([ON, ON, ON, ON, 0, 0, 0, 0], "#14(0x0)"), ([0; 8], "hlt")];
    for (mask, want) in masks {
        let mut b = bench(Start::L64);
        for n in 0..3 {
            b.put(at + 4 * n, 4, 0x11 * (n + 1));
        }
        b.cpu.state.gpr[0] = at;
        set(&mut b, 0, [7; 8]);
        set(&mut b, 1, mask);
        // VMASKMOVPS ymm0,ymm1,[rax]
        assert_eq!(run(&mut b, &[0xc4, 0xe2, 0x75, 0x2c, 0x00]), want, "{mask:x?}");
        let loaded: [u32; 8] = std::array::from_fn(|n| if mask[n] != 0 { 0x11 * (n as u32 + 1) } else { 0 });
        assert_eq!(ymm(&b, 0), lanes(if want == "hlt" { loaded } else { [7; 8] }), "{mask:x?}");
        if want != "hlt" {
            assert_eq!(b.cpu.cr2, END);
        }

        let mut b = bench(Start::L64);
        b.cpu.state.gpr[0] = at;
        set(&mut b, 0, [1, 2, 3, 4, 5, 6, 7, 8]);
        set(&mut b, 1, mask);
        // VMASKMOVPS [rax],ymm1,ymm0
        assert_eq!(run(&mut b, &[0xc4, 0xe2, 0x75, 0x2e, 0x00]), want.replace("0x0", "0x2"), "{mask:x?}");
        for n in 0..3 {
            let stored = want == "hlt" && mask[n] != 0;
            assert_eq!(b.get(at + 4 * n as u64, 4), if stored { n as u64 + 1 } else { 0 }, "{mask:x?} {n}");
        }
    }
}

/// SDM Vol. 2, "VPGATHERDD": after a fault what was gathered stays, and its mask is clear.
#[test]
fn a_gather_goes_on_after_a_fault() {
    let mut b = bench(Start::L64);
    for n in 0..4 {
        b.put(DATA + 4 * n, 4, 0x100 + n);
    }
    b.cpu.state.gpr[0] = DATA;
    set(&mut b, 0, [9; 8]);
    set(&mut b, 1, [3, 0, 2, ((END - DATA) / 4) as u32, 1, 1, 1, 1]);
    set(&mut b, 2, [ON, 0, ON, ON, 0, ON, 0, 0]);
    // VPGATHERDD ymm0,[rax+ymm1*4],ymm2
    let gather = [0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x88];
    assert_eq!(run(&mut b, &gather), "#14(0x0)");
    assert_eq!(b.cpu.cr2, END);
    assert_eq!(ymm(&b, 0), lanes([0x103, 9, 0x102, 9, 9, 9, 9, 9]));
    let left = ymm(&b, 2);
    assert_eq!((left.0 >> 127, left.1 >> 63 & 1), (1, 1));
    assert_eq!(left.0 & u128::from(u64::MAX), 0);
    // Again from where it stopped, with the address put right.
    let mask = (b.cpu.state.xmm[2], b.cpu.state.ymm_hi[2]);
    let mut again = bench(Start::L64);
    for n in 0..4 {
        again.put(DATA + 4 * n, 4, 0x200 + n);
    }
    again.cpu.state.gpr[0] = DATA;
    set(&mut again, 0, [0x103, 9, 0x102, 9, 9, 9, 9, 9]);
    set(&mut again, 1, [3, 0, 2, 0, 1, 1, 1, 1]);
    (again.cpu.state.xmm[2], again.cpu.state.ymm_hi[2]) = mask;
    assert_eq!(run(&mut again, &gather), "hlt");
    assert_eq!(ymm(&again, 0), lanes([0x103, 9, 0x102, 0x200, 9, 0x201, 9, 9]));
    assert_eq!(ymm(&again, 2), (0, 0));
}

/// An access of 32 bytes is one: no part of it happens when another part faults.
#[test]
fn an_access_over_the_end_of_memory() {
    for back in [1, 8, 16, 20, 31] {
        let mut b = bench(Start::L64);
        b.cpu.state.gpr[0] = END - back;
        set(&mut b, 0, [0x0101_0101; 8]);
        // VMOVUPS [rax],ymm0
        assert_eq!(run(&mut b, &[0xc5, 0xfc, 0x11, 0x00]), "#14(0x2)");
        assert_eq!((b.cpu.cr2, b.get(END - 1, 1)), (END, 0), "{back}");
        // VMOVUPS ymm0,[rax]
        let mut b = bench(Start::L64);
        b.cpu.state.gpr[0] = END - back;
        set(&mut b, 0, [7; 8]);
        assert_eq!(run(&mut b, &[0xc5, 0xfc, 0x10, 0x00]), "#14(0x0)");
        assert_eq!((b.cpu.cr2, ymm(&b, 0)), (END, lanes([7; 8])), "{back}");
    }
}

/// VCVTPS2PH to memory that faults leaves MXCSR alone.
#[test]
fn a_faulting_store_raises_no_flags() {
    let mut b = bench(Start::L64);
    b.cpu.state.gpr[0] = END;
    set(&mut b, 0, [0x3f80_0001; 8]);
    let before = b.cpu.state.mxcsr;
    // VCVTPS2PH [rax],ymm0,0
    assert_eq!(run(&mut b, &[0xc4, 0xe3, 0x7d, 0x1d, 0x00, 0]), "#14(0x2)");
    assert_eq!(b.cpu.state.mxcsr, before);
    b.cpu.state.gpr[0] = DATA;
    b.cpu.state.rip = CODE;
    b.cpu.state.attention = 0;
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.state.mxcsr, b.get(DATA, 8)), (before | 0x20, 0x3c00_3c00_3c00_3c00));
}
