//! x87 programs at random in the interpreter and in compiled code: registers, tags, status, pointers, flags and memory must agree.

#[path = "../../emulator/cpu/tests/harness/mod.rs"]
mod harness;

use egret_cpu::{Engine, Exit, Interp};
use egret_isa::fp::f80::F80;
use egret_isa::x87::X87;
use egret_jit::JitEngine;
use harness::*;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// Where operands are, across the border of two pages.
const AREA: u64 = 0x8_0f80;

/// Opcode bytes without memory operand: second byte from a range.
const REGISTERS: &[(u8, u8, u8)] = &[
    (0xd8, 0xc0, 0xff),
    (0xd9, 0xc0, 0xcf),
    (0xd9, 0xe0, 0xe1),
    (0xd9, 0xe4, 0xe5),
    (0xd9, 0xe8, 0xee),
    (0xd9, 0xfa, 0xfa),
    (0xd9, 0xfc, 0xfd),
    (0xda, 0xc0, 0xdf),
    (0xda, 0xe9, 0xe9),
    (0xdb, 0xc0, 0xdf),
    (0xdb, 0xe2, 0xe2),
    (0xdb, 0xe8, 0xf7),
    (0xdc, 0xc0, 0xc7),
    (0xdc, 0xe0, 0xff),
    (0xdd, 0xc0, 0xc7),
    (0xdd, 0xd0, 0xef),
    (0xde, 0xc0, 0xc7),
    (0xde, 0xd9, 0xd9),
    (0xde, 0xe0, 0xff),
    (0xdf, 0xe0, 0xe0),
    (0xdf, 0xe8, 0xf7),
];

/// Opcode and ModRM digit with a memory operand.
const MEMORY: &[(u8, u8)] = &[
    (0xd8, 0),
    (0xd8, 1),
    (0xd8, 2),
    (0xd8, 3),
    (0xd8, 4),
    (0xd8, 5),
    (0xd8, 6),
    (0xd8, 7),
    (0xd9, 0),
    (0xd9, 2),
    (0xd9, 3),
    (0xd9, 7),
    (0xda, 0),
    (0xda, 1),
    (0xda, 2),
    (0xda, 3),
    (0xda, 4),
    (0xda, 5),
    (0xda, 6),
    (0xda, 7),
    (0xdb, 0),
    (0xdb, 1),
    (0xdb, 2),
    (0xdb, 3),
    (0xdb, 5),
    (0xdb, 7),
    (0xdc, 0),
    (0xdc, 1),
    (0xdc, 2),
    (0xdc, 3),
    (0xdc, 4),
    (0xdc, 5),
    (0xdc, 6),
    (0xdc, 7),
    (0xdd, 0),
    (0xdd, 1),
    (0xdd, 2),
    (0xdd, 3),
    (0xdd, 7),
    (0xde, 0),
    (0xde, 1),
    (0xde, 2),
    (0xde, 3),
    (0xde, 4),
    (0xde, 5),
    (0xde, 6),
    (0xde, 7),
    (0xdf, 0),
    (0xdf, 1),
    (0xdf, 2),
    (0xdf, 3),
    (0xdf, 4),
    (0xdf, 5),
    (0xdf, 6),
    (0xdf, 7),
];

fn pick<T: Copy>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// A loop of a few rounds over some instructions, mostly x87's: loads and pops come often, so that the stack stays in use.
fn program(rng: &mut SmallRng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.random_range(3..24) {
        match rng.random_range(0..20) {
            0..=7 => {
                let (op, first, last) = pick(rng, REGISTERS);
                out.extend([op, rng.random_range(first..=last)]);
            }
            8..=12 => {
                let (op, digit) = pick(rng, MEMORY);
                out.extend([op, 0x43 | digit << 3, rng.random_range(0..0x78) & pick(rng, &[0x78, 0x7f])]);
            }
            // FLD m64, m32, FILD, FLD1, FLDZ.
            13 => out.extend([0xdd, 0x43, 8 * rng.random_range(0..16u8)]),
            14 => out.extend([0xd9, 0x43, 8 * rng.random_range(0..16u8)]),
            15 => out.extend(pick(rng, &[[0xdb, 0x43, 0x20], [0xdf, 0x43, 0x28], [0xdf, 0x6b, 0x30]])),
            16 => out.extend([0xd9, pick(rng, &[0xe8, 0xee])]),
            // FSTP ST(0).
            17 => out.extend([0xdd, 0xd8]),
            // Flags are looked at: SETP AL, ADC EDX,EDX.
            18 => out.extend([0x0f, 0x9a, 0xc0, 0x11, 0xd2]),
            // CMP EAX,EDX; MOV EDX,[EBX+16].
            _ => out.extend([0x39, 0xd0, 0x8b, 0x53, 0x10]),
        }
    }
    // DEC ECX; JNZ.
    let back = -(out.len() as i32 + 8);
    out.extend([0xff, 0xc9, 0x0f, 0x85]);
    out.extend(back.to_le_bytes());
    out.push(0xf4);
    out
}

fn register(rng: &mut SmallRng) -> F80 {
    let exp = pick(rng, &[0, 0x7fff, 0x3fff, 0x3ffe, 0x4003]);
    let exp = if rng.random_range(0..3) == 0 { rng.random_range(0..0x8000) } else { exp };
    let any = rng.next_u64();
    let frac = pick(rng, &[0, 1 << 63, 3 << 62, any, any | 1 << 63]);
    F80 { frac, sign_exp: exp | u16::from(rng.random_range(0..2u8)) << 15 }
}

fn fpu(rng: &mut SmallRng) -> X87 {
    let any = rng.next_u32() as u16;
    let tag = pick(rng, &[0, 0, 0x80, 0xc0, 0xff, 0x0f, any as u8]);
    let sw = pick(rng, &[0, 0, 0x3800, 0x3000, any & 0x7f7f]);
    let mut x87 = X87 { tag, sw, ..X87::default() };
    x87.set_control_word(pick(rng, &[0x37f, 0x37f, 0x27f, 0x37f, 0xf7f, any | 0x3f, any, 0x372]));
    x87.regs = std::array::from_fn(|_| register(rng));
    x87
}

struct Case {
    code: Vec<u8>,
    x87: X87,
    memory: [u64; 32],
    flags: u64,
}

fn run(engine: &mut dyn Engine, start: Start, case: &Case) -> (Exit, String) {
    let mut b = Bench::new(start);
    b.bytes(CODE, &case.code);
    for (n, v) in case.memory.iter().enumerate() {
        b.put(AREA + 8 * n as u64, 8, *v);
    }
    b.cpu.x87 = case.x87.clone();
    b.cpu.state.gpr[3] = AREA;
    b.cpu.state.gpr[1] = 6;
    b.cpu.state.gpr[0] = 0x1234_5678;
    let old = b.cpu.rflags();
    b.cpu.set_rflags(old & !0x8d5 | case.flags);
    b.cpu.state.budget = 100_000;
    let exit = engine.run(&mut b.cpu);
    let memory: Vec<u64> = (0..32).map(|n| b.get(AREA + 8 * n, 8)).collect();
    let s = &b.cpu.state;
    (exit, format!("{:x?} {:x} {:x} {:x?} {} {memory:x?}", s.gpr, s.rip, s.rflags(), b.cpu.x87, s.budget))
}

#[test]
fn interpreter_and_compiled_code_agree() {
    let mut rng = SmallRng::seed_from_u64(8087);
    let mut compiled = 0;
    for round in 0..600 {
        let start = if round % 3 == 0 { Start::P32 } else { Start::L64 };
        let memory = std::array::from_fn(|n| match n % 5 {
            0 => pick(&mut rng, &[0, 1 << 63, 0x7ff0 << 48, 0x7ff4 << 48, 1, 0x7f80_0000, 0x7fa0_0001, 5]),
            1 => f64::to_bits(rng.random_range(-1e6..1e6)),
            2 => u64::from(f32::to_bits(rng.random_range(-1e6..1e6f32))),
            _ => rng.next_u64(),
        });
        let case = Case { code: program(&mut rng), x87: fpu(&mut rng), memory, flags: rng.next_u64() & 0x8d5 };
        let want = run(&mut Interp::default(), start, &case);
        let mut jit = JitEngine::foreground().expect("a compiler for this host");
        let got = run(&mut jit, start, &case);
        compiled += jit.counters().compiled_insns;
        assert!(want == got, "round {round}, {start:?}: {:02x?}\n{:x?}\n{want:x?}\n{got:x?}", case.code, case.x87);
    }
    assert!(compiled > 10_000);
}
