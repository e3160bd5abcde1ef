//! Every instruction that the decoder knows: its IR obeys the verifier, and evaluating it records the same ops again.

use egret_isa::Features;
use egret_isa::decode::{Decoded, decode};
use egret_isa::insn::{Ctx, Insn, Mem, Mode, Operand, Rep, Seg};
use egret_isa::ir::{Block, Op, Recorder, Val, eval, record, verify};
use egret_isa::ops::{Bin, Cond, FlagsOp, Rel, Un, Width};
use egret_isa::sem;
use iced_x86::{Code, Mnemonic};
use std::collections::BTreeSet;

/// Everything switched on.
const UNITS: u32 = Ctx::X87 | Ctx::MMX | Ctx::SSE | Ctx::FP_MASKED | Ctx::FLAT;

fn contexts() -> [Ctx; 3] {
    [Ctx(0), Ctx(1 | Ctx::PE | Ctx::SS32 | UNITS), Ctx(2 | Ctx::PE | UNITS)]
}

const PREFIXES: [&[u8]; 12] = [
    &[],
    &[0x66],
    &[0x67],
    &[0xf3],
    &[0xf2],
    &[0xf0],
    &[0x64],
    &[0x66, 0xf3],
    &[0x66, 0xf2],
    // In 64-bit mode these are REX.W, REX.WRXB with and without.
    &[0x48],
    &[0x66, 0x4f],
    &[0xf3, 0x4f],
];

/// ModRM bytes of every kind of operand for every value of the reg field, and of all x87 registers.
fn modrms(opcode: &[u8]) -> Vec<u8> {
    if matches!(opcode, [0xd8..=0xdf]) {
        return (0..=255).collect();
    }
    let forms = [0xc0, 0xc3, 0xc4, 0x03, 0x04, 0x05, 0x06, 0x44, 0x86];
    (0..8).flat_map(|reg| forms.map(|form| form | reg << 3)).collect()
}

fn each(mut f: impl FnMut(&[u8], &Insn)) {
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    for ctx in contexts() {
        for prefix in PREFIXES {
            for map in maps {
                for opcode in 0..=255u8 {
                    let rest = [map, &[opcode]].concat();
                    for modrm in modrms(&rest) {
                        let tail = [modrm, 0x98, 0x12, 0x34, 0x56, 0x87, 0x9a, 0xbc];
                        let bytes = [prefix, &rest, &tail].concat();
                        let Decoded::Insn(i) = decode(&bytes, ctx, Features::ALL) else { continue };
                        if i.code != Code::INVALID {
                            f(&bytes[..usize::from(i.len)], &i);
                        }
                        if usize::from(i.len) <= prefix.len() + rest.len() {
                            // No ModRM byte: the others give the same.
                            break;
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_instruction_is_verified_and_evaluates_to_itself() {
    let mut mnemonics = BTreeSet::new();
    let mut wrong = Vec::new();
    each(|bytes, i| {
        let block = record(std::slice::from_ref(i));
        if let Err(violation) = verify(&block) {
            wrong.push(format!("{bytes:02x?} {i}: {violation}\n{block}"));
            return;
        }
        if sem::lookup::<Recorder>(i).is_some() {
            mnemonics.insert(format!("{:?}", i.mnemonic));
        }
        let mut again = Recorder::default();
        again.begin(i);
        let Ok(()) = eval(&block, 0, &mut again);
        let again = again.finish();
        if again.ops != block.ops {
            wrong.push(format!("{bytes:02x?} {i}: evaluated\n{again}instead of\n{block}"));
        }
    });
    assert!(wrong.is_empty(), "{} violations, among them\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
    for name in ["Add", "Shrd", "Cmpxchg", "Loopne", "Jcxz", "Addps", "Comisd", "Psadbw", "Cmovg", "Setnp", "Xlatb", "Popcnt"] {
        assert!(mnemonics.contains(name), "{name} was not met");
    }
    assert!(mnemonics.len() > 350, "only {} mnemonics", mnemonics.len());
}

#[test]
fn disassembly_names_every_operand() {
    each(|bytes, i| {
        let text = i.to_string();
        assert!(!text.ends_with(' ') && !text.contains(",,"), "{bytes:02x?} {text:?}");
        let operands = i.ops.iter().filter(|o| **o != Operand::None).count();
        assert_eq!(text.matches(',').count() + 1, operands.max(1), "{bytes:02x?} {text}");
    });
}

fn insn() -> Insn {
    let mem = Mem { seg: Seg::Ds, base: Mem::NONE, index: Mem::NONE, scale: 0, width: Width::D, disp: 0 };
    Insn {
        code: Code::Nopd,
        mnemonic: Mnemonic::Nop,
        len: 1,
        width: Width::D,
        opsize: Width::D,
        addrsize: Width::D,
        ctx: Ctx(Mode::M32 as u32),
        lock: false,
        rep: Rep::None,
        cond: Cond::O,
        ops: [Operand::None; 4],
        mem,
        imm: 0,
        imm2: 0,
    }
}

#[test]
fn violations_are_found() {
    use Width::{B, D, Q, W};
    let v = Val;
    let load = Op::Load { seg: Seg::Ds, offset: v(1), w: D };
    let rmw = Op::RmwLoad { seg: Seg::Ds, offset: v(1), w: D, lock: false };
    let rows: &[(&[Op], &str)] = &[
        (&[Op::Imm(1), Op::SetGpr(0, D, v(1))], ""),
        (&[Op::SetGpr(0, D, v(1))], "v1 is not defined"),
        (&[Op::Imm(1), Op::SetGpr(16, D, v(1))], "no such register"),
        (&[Op::Imm(0x1_0000), Op::Bin(Bin::Add, W, v(1), v(1))], ""),
        (&[Op::Imm(0x1_0000), Op::Bin(Bin::Shr, W, v(1), v(1))], "v1 of 17 bits is too wide for 16"),
        (&[Op::Imm(0x1_0000), Op::Imm(1), Op::Bin(Bin::Shr, D, v(1), v(2)), Op::Un(Un::Clz, W, v(3))], ""),
        (&[Op::Imm(0x1_0000), Op::Rel(Rel::Ult, W, v(1), v(1))], "too wide"),
        (&[Op::Gpr(1, W), Op::Gpr(1, Q), Op::Bin(Bin::Shl, W, v(1), v(2))], ""),
        (&[Op::Gpr(1, D), Op::Sext(D, W, v(1))], "a lesser width"),
        (&[Op::Xmm(1), Op::SetGpr(0, D, v(1))], "no integer"),
        (&[Op::Imm(1), Op::SetXmm(0, v(1))], "no vector"),
        (&[Op::Imm(1), Op::When(v(1)), Op::Imm(2), Op::EndWhen, Op::SetGpr(0, D, v(3))], "a bracket that is closed"),
        (&[Op::Imm(1), Op::When(v(1)), Op::Imm(2), Op::SetGpr(0, D, v(3)), Op::EndWhen], ""),
        (&[Op::Imm(1), Op::When(v(1))], "still open"),
        (&[Op::EndWhen], "closes no When"),
        (&[Op::Imm(1), rmw, Op::RmwStore { load: v(2), v: v(2) }], ""),
        (&[Op::Imm(1), rmw, load, Op::RmwStore { load: v(2), v: v(2) }], "inside a read-modify-write"),
        (&[Op::Imm(1), rmw, Op::When(v(1)), Op::RmwStore { load: v(2), v: v(2) }, Op::EndWhen], "another load"),
        (&[Op::Imm(1), rmw], "still open"),
        (&[Op::Imm(1), Op::SetGpr(0, D, v(1)), load], "after something was written"),
        (&[Op::Imm(1), Op::SetGpr(4, D, v(1)), load], ""),
        (&[Op::Imm(1), Op::Flags { op: FlagsOp::Logic, w: B, a: v(1), b: v(1), r: v(1) }, load], "after something was written"),
        (&[Op::Imm(1), Op::Jump(v(1)), Op::Imm(2)], "after a jump"),
        (&[Op::Imm(1), Op::When(v(1)), Op::Branch { c: None, insn: 0 }, Op::EndWhen], "a jump inside a bracket"),
        (&[Op::Branch { c: None, insn: 1 }], "another instruction"),
        (&[Op::Imm(1), Op::SetGpr(1, D, v(1)), Op::Branch { c: None, insn: 0 }], "after something was written"),
        (&[Op::Imm(1), Op::CheckIp(v(1)), Op::SetGpr(1, D, v(1)), Op::Branch { c: None, insn: 0 }], ""),
        (&[Op::Imm(1), Op::Remainder(v(1))], "follow its division"),
        (&[Op::Imm(1), Op::Div { w: D, signed: false, hi: v(1), lo: v(1), d: v(1) }, Op::Remainder(v(2))], ""),
        (&[Op::Imm(1), Op::SetFlagsWord(0x200, v(1))], "other flags"),
        (&[Op::Imm(1), Op::LoadX { seg: Seg::Ds, offset: v(1), bytes: 3, aligned: false }], "4, 8 or 16"),
        (&[Op::Insn(0)], "not numbered in order"),
    ];
    for (ops, want) in rows {
        let block = Block { insns: vec![insn()], ops: [&[Op::Insn(0)], *ops].concat() };
        let got = verify(&block).map_or_else(|e| e.to_string(), |()| String::new());
        assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "want {want:?} got {got:?}\n{block}");
    }
    let none = Block { insns: vec![insn()], ops: Vec::new() };
    assert!(verify(&none).is_err_and(|e| e.what.contains("not every instruction")));
    let stray = Block { insns: vec![], ops: vec![Op::Imm(1)] };
    assert!(verify(&stray).is_err_and(|e| e.what.contains("belongs to no instruction")));
}

#[test]
fn text_of_brackets() {
    let Decoded::Insn(i) = decode(&[0xf0, 0x0f, 0xb1, 0x53, 0x10], Ctx(2), Features::ALL) else { panic!("no instruction") };
    let text = record(&[i]).to_string();
    let want = "\
0: lock cmpxchg dword [rbx+0x10],edx
    v1 = edx
    v2 = eax
    v3 = rbx
    v4 = 0x10
    v5 = add.q v3 v4
    v6 = modify.d ds:[v5] locked
        v7 = sub.d v2 v6
        flags sub.d v2 v6 v7
        v9 = eq.d v2 v6
        v10 = 0x0
        v11 = eq.b v9 v10
        when v11
            eax = v6
        end
        v15 = select v9 v1 v6
    end v6 = v15
";
    assert_eq!(text, want);
}
