//! Segments, gates, tasks and V86 in protected mode: what is loaded, what faults, and with which error code.

mod harness;

use egret_cpu::state::{SegReg, rflags};
use harness::*;
use iced_x86::code_asm::*;

type Asm<'a> = &'a mut CodeAssembler;

fn ok(r: Result<(), iced_x86::IcedError>) {
    r.expect("encodes");
}

fn run(start: Start, prepare: impl FnOnce(&mut Bench), write: impl FnOnce(Asm)) -> (Bench, String) {
    let mut b = Bench::new(start);
    prepare(&mut b);
    b.asm(write);
    let stop = b.run();
    (b, stop)
}

/// `mov ax, selector; mov seg, ax; hlt`.
fn load(start: Start, seg: AsmRegisterSegment, selector: u16) -> String {
    let (_, stop) = run(
        start,
        |_| (),
        |a| {
            ok(a.mov(eax, u32::from(selector)));
            ok(a.mov(seg, eax));
            ok(a.hlt());
        },
    );
    stop
}

#[test]
fn loading_segments() {
    let rows = [
        (ds, sel::NOT_PRESENT, "#11(0x50)"),
        (ss, sel::NOT_PRESENT, "#12(0x50)"),
        (ss, 0, "#13(0x0)"),
        (ds, 0, "hlt"),
        (es, 3, "hlt"),
        (ds, 0x1f8, "#13(0x1f8)"),
        (ds, 0xf9, "#13(0xf8)"),
        (ds, sel::CONFORMING, "hlt"),
        (ds, sel::CODE32, "hlt"),
        (ds, sel::TSS, "#13(0x60)"),
        (ss, sel::READ_ONLY, "#13(0x58)"),
        (ss, sel::CODE32, "#13(0x18)"),
        (ss, sel::UDATA, "#13(0x28)"),
        (fs, sel::UDATA, "hlt"),
        (gs, sel::DATA | 3, "#13(0x10)"),
        // No LDT is loaded.
        (ds, 0x14, "#13(0x14)"),
    ];
    for (seg, selector, expected) in rows {
        assert_eq!(load(Start::P32, seg, selector), expected, "{selector:#x}");
    }
    assert_eq!(load(Start::L64, ss, 0), "hlt");
    assert_eq!(load(Start::L64, ss, 3), "#13(0x0)");
    assert_eq!(load(Start::U64, ss, 3), "#13(0x0)");
}

#[test]
fn null_segments_and_limits_fault_on_use() {
    let null = |a: Asm| {
        ok(a.xor(eax, eax));
        ok(a.mov(es, eax));
        ok(a.mov(eax, dword_ptr(0).es()));
    };
    assert_eq!(run(Start::P32, |_| (), null).1, "#13(0x0)");
    let limited = |a: Asm| {
        ok(a.mov(eax, u32::from(sel::DATA16)));
        ok(a.mov(es, eax));
        ok(a.mov(ss, eax));
        ok(a.mov(eax, dword_ptr(0xfffc).es()));
        ok(a.mov(eax, dword_ptr(0xfffd).ss()));
    };
    // The handler needs a stack: #SS comes on the 16-bit one at 3_0000h mod 64 KiB, which wraps to the top.
    let (b, stop) = run(Start::P32, |b| b.cpu.state.gpr[4] = 0x8000, limited);
    assert_eq!((stop.as_str(), b.frame(1)), ("#12(0x0)", CODE + 15));
    let read_only = |a: Asm| {
        ok(a.mov(eax, u32::from(sel::READ_ONLY)));
        ok(a.mov(es, eax));
        ok(a.mov(dword_ptr(DATA).es(), eax));
    };
    assert_eq!(run(Start::P32, |_| (), read_only).1, "#13(0x0)");
}

/// A far JMP (EAh) or CALL (9Ah) to `selector:offset`.
fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut bytes = vec![opcode];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    bytes
}

#[test]
fn far_jumps() {
    let target = CODE as u32 + 0x100;
    let rows = [
        (Start::P32, sel::CODE32, "hlt"),
        (Start::P32, sel::CODE16, "hlt"),
        (Start::P32, sel::CONFORMING, "hlt"),
        (Start::P32, sel::DATA, "#13(0x10)"),
        (Start::P32, 0, "#13(0x0)"),
        (Start::P32, sel::CODE32 | 3, "#13(0x18)"),
        (Start::P32, sel::UCODE32, "#13(0x38)"),
        (Start::U32, sel::CODE32, "#13(0x18)"),
        (Start::U32, sel::TSS2, "#13(0x70)"),
        (Start::U32, sel::CONFORMING, "#13(0x0)"),
        (Start::P32, sel::LDT, "#13(0x80)"),
        (Start::P32, 0x8, "hlt"),
        (Start::C32, sel::TSS, "#13(0x60)"),
    ];
    for (start, selector, expected) in rows {
        let mut b = Bench::new(start);
        b.bytes(CODE + 0x100, &[0xf4]);
        b.bytes(CODE, &far(0xea, selector, target));
        assert_eq!(b.run(), expected, "{start:?} {selector:#x}");
        if expected == "hlt" {
            assert_eq!((b.cpu.state.rip, b.cpu.state.seg[1].selector), (u64::from(target) + 1, selector));
        }
    }
    // The user's jump to conforming code arrives, keeps CPL 3, and then faults on HLT.
    let mut b = Bench::new(Start::U32);
    b.bytes(CODE + 0x100, &[0xf4]);
    b.bytes(CODE, &far(0xea, sel::CONFORMING, target));
    b.run();
    assert_eq!((b.frame(1), b.frame(2)), (target.into(), u64::from(sel::CONFORMING | 3)));
}

#[test]
fn far_calls_and_returns() {
    let mut b = Bench::new(Start::P32);
    b.asm_at(CODE + 0x100, 32, |a| ok(a.retf_1(8)));
    let mut code = far(0x9a, sel::CONFORMING, CODE as u32 + 0x100);
    code.push(0xf4);
    b.bytes(CODE, &code);
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.state.rip, b.cpu.gpr(4)), (CODE + 8, STACK + 8));
    assert_eq!(b.get(STACK - 4, 4), sel::CODE32.into());
    // Outward, to a null or wrong code segment.
    let ret = |code: u16, stack: u16| {
        let (b, stop) = run(
            Start::P32,
            |_| (),
            |a| {
                for v in [u32::from(stack), 0x7000, u32::from(code), CODE as u32 + 0x200] {
                    ok(a.push(v as i32));
                }
                ok(a.retf());
            },
        );
        (stop, b)
    };
    assert_eq!(ret(0, 0).0, "#13(0x0)");
    assert_eq!(ret(sel::UCODE32 & !3, 0).0, "#13(0x38)");
    assert_eq!(ret(sel::UCODE32, 0).0, "#13(0x0)");
    assert_eq!(ret(sel::UCODE32, sel::DATA | 3).0, "#13(0x10)");
    let (stop, b) = ret(sel::UCODE32, sel::UDATA);
    // It lands on zeros at CPL 3: ADD [EAX], AL with DS null, because DS was privileged.
    assert_eq!(stop, "#13(0x0)");
    assert_eq!((b.frame(1), b.frame(2), b.frame(5)), (CODE + 0x200, sel::UCODE32.into(), sel::UDATA.into()));
    assert_eq!(b.frame(4), 0x7000);
    assert!(!b.cpu.state.seg[3].present());
}

#[test]
fn call_gate_to_an_inner_level() {
    let mut b = Bench::new(Start::U32);
    // Two parameters; the target keeps them on its own stack.
    b.set_gdt(sel::GATE3, gate(sel::CODE32, CODE + 0x100, 0xec, 2));
    b.bytes(CODE + 0x100, &[0xf4]);
    let mut code = vec![0x6a, 0x11, 0x6a, 0x22];
    code.extend(far(0x9a, sel::GATE3, 0));
    b.bytes(CODE, &code);
    assert_eq!(b.run(), "hlt");
    let words: Vec<u64> = (0..6).map(|n| b.frame(n)).collect();
    assert_eq!(words, [CODE + 11, sel::UCODE32.into(), 0x22, 0x11, STACK - 8, sel::UDATA.into()]);
    assert_eq!(b.cpu.gpr(4), INNER_STACK - 24);
    // And RETF 8 goes back.
    let mut b = Bench::new(Start::U32);
    b.set_gdt(sel::GATE3, gate(sel::CODE32, CODE + 0x100, 0xec, 2));
    b.bytes(CODE + 0x100, &[0xca, 8, 0]);
    code.extend([0xcd, 0x80]);
    b.bytes(CODE, &code);
    assert_eq!(b.run(), "#128");
    assert_eq!((b.frame(0), b.frame(3)), (CODE + 13, STACK));
}

#[test]
fn bad_gates() {
    let rows: [(u64, &str); 6] = [
        (gate(sel::CODE32, CODE, 0x8c, 0), "#13(0xa0)"),
        (gate(sel::CODE32, CODE, 0x6c, 0), "#11(0xa0)"),
        (gate(0, CODE, 0xec, 0), "#13(0x0)"),
        (gate(sel::DATA, CODE, 0xec, 0), "#13(0x10)"),
        (gate(0x1f8, CODE, 0xec, 0), "#13(0x1f8)"),
        (gate(sel::CODE32, CODE, 0xee, 0), "#13(0xa0)"),
    ];
    for (low, expected) in rows {
        let mut b = Bench::new(Start::U32);
        b.set_gdt(sel::GATE3, low);
        b.bytes(CODE, &far(0x9a, sel::GATE3, 0));
        assert_eq!(b.run(), expected);
    }
    // A new stack that is not there: #TS with its selector.
    let mut b = Bench::new(Start::U32);
    b.put(TSS + 8, 2, sel::READ_ONLY.into());
    b.set_gdt(sel::GATE3, gate(sel::CODE32, CODE + 0x100, 0xec, 0));
    b.bytes(CODE, &far(0x9a, sel::GATE3, 0));
    // Its delivery needs the same stack, and so on up.
    assert_eq!(b.run(), "shutdown");
    assert_eq!((b.cpu.cpl, b.cpu.gpr(4), b.cpu.state.rip), (3, STACK, CODE), "nothing has changed");
}

#[test]
fn interrupts_between_levels() {
    let (b, stop) = run(Start::U32, |_| (), |a| ok(a.int(0x80)));
    assert_eq!(stop, "#128");
    let words: Vec<u64> = (0..5).map(|n| b.frame(n)).collect();
    assert_eq!(words, [CODE + 2, sel::UCODE32.into(), 2, STACK, sel::UDATA.into()]);
    // Gate privilege, EXT clear; then set for an exception through a bad gate.
    assert_eq!(run(Start::U32, |_| (), |a| ok(a.int(0x81))).1, "#13(0x40a)");
    assert_eq!(run(Start::U32, |b| b.set_idt(6, gate(0x1f8, 0, 0x8e, 0)), |a| ok(a.ud2())).1, "#13(0x1f9)");
    assert_eq!(run(Start::U32, |b| b.set_idt(6, gate(sel::CODE32, 0, 0x0e, 0)), |a| ok(a.ud2())).1, "#11(0x33)");
    assert_eq!(run(Start::U32, |b| b.set_idt(6, gate(sel::UCODE32, 0, 0x8e, 0)), |a| ok(a.hlt())).1, "#13(0x0)");
    // Trap gates leave IF alone.
    let sti = |a: Asm| {
        ok(a.sti());
        ok(a.nop());
        ok(a.int(0x80));
    };
    let (b, _) = run(Start::P32, |_| (), sti);
    assert!(!b.cpu.flag(rflags::IF));
    let (b, _) = run(Start::P32, |b| b.set_idt(0x80, gate(sel::CODE32, HANDLERS + 0x800, 0x8f, 0)), sti);
    assert!(b.cpu.flag(rflags::IF));
    // A 286 gate pushes words and has a 16-bit offset.
    let prepare = |b: &mut Bench| {
        b.put(0x600, 1, 0xf4);
        b.set_idt(6, gate(sel::CODE32, 0x600, 0x86, 0));
    };
    let (b, stop) = run(Start::P32, prepare, |a| ok(a.ud2()));
    assert_eq!((stop.as_str(), b.cpu.state.rip, b.cpu.gpr(4)), ("hlt", 0x601, STACK - 6));
    assert_eq!((b.get(STACK - 6, 2), b.get(STACK - 4, 2)), (CODE & 0xffff, sel::CODE32.into()));
}

#[test]
fn iret_to_outer_levels() {
    let iret = |values: Vec<u32>| {
        run(
            Start::P32,
            |b| b.bytes(CODE + 0x200, &[0xcd, 0x80]),
            move |a| {
                for v in values {
                    ok(a.push(v as i32));
                }
                ok(a.iretd());
            },
        )
    };
    let (b, stop) = iret(vec![sel::UDATA.into(), 0x7000, 0x3202, sel::UCODE32.into(), CODE as u32 + 0x200]);
    assert_eq!(stop, "#128");
    assert_eq!(b.frame(2), 0x3202);
    assert_eq!(b.frame(3), 0x7000);
    assert_eq!(iret(vec![sel::UDATA.into(), 0x7000, 2, sel::CODE32.into(), 0xffff_ffff]).1, "#13(0x0)");
    assert_eq!(iret(vec![sel::UDATA.into(), 0x7000, 2, (sel::CODE32 | 3).into(), 0]).1, "#13(0x18)");
    assert_eq!(iret(vec![sel::UDATA.into(), 0x7000, 2, 0, 0]).1, "#13(0x0)");
}

#[test]
fn v86_frames() {
    // IRETD with VM set, then INT3 from V86 back to CPL 0.
    let (b, stop) = run(
        Start::P32,
        |b| b.bytes(CODE + 0x200, &[0xcc]),
        |a| {
            for v in [5u32, 4, 3, 2, 0x9000, 0xfff0, 0x2_0002, 0x1000, 0x200] {
                ok(a.push(v as i32));
            }
            ok(a.iretd());
        },
    );
    assert_eq!(stop, "#3");
    let words: Vec<u64> = (0..9).map(|n| b.frame(n)).collect();
    assert_eq!(words, [0x201, 0x1000, 0x2_0002, 0xfff0, 0x9000, 2, 3, 4, 5]);
    assert!(!b.cpu.v86());
    assert_eq!(b.cpu.cpl, 0);
    assert!(b.cpu.state.seg.iter().enumerate().all(|(n, s)| n == 1 || n == 2 || !s.present()));
}

#[test]
fn v86_is_sensitive_to_iopl() {
    for code in [[0xcd, 0x80], [0xfa, 0x90], [0xfb, 0x90], [0x9c, 0x90], [0x9d, 0x90], [0xcf, 0x90], [0xf4, 0x90], [0xe4, 0x00]] {
        let mut b = Bench::new(Start::V86);
        b.bytes(CODE, &code);
        assert_eq!(b.run(), "#13(0x0)", "{code:02x?}");
    }
    let mut b = Bench::new(Start::V86);
    b.cpu.set_rflags(rflags::VM | rflags::IOPL | 2);
    b.bytes(CODE, &[0xfb, 0x9c, 0x58, 0xfa, 0xe4, 0x10, 0xcd, 0x80]);
    assert_eq!(b.run(), "#128");
    assert_eq!(b.cpu.gpr(0) & 0xff00, 0x3200);
    // LTR and ARPL do not exist there.
    for code in [[0x0f, 0x00, 0xd8], [0x63, 0xc0, 0x90]] {
        let mut b = Bench::new(Start::V86);
        b.bytes(CODE, &code);
        assert_eq!(b.run(), "#6", "{code:02x?}");
    }
}

#[test]
fn io_permission() {
    let access = |port: u32, size: u8| {
        run(
            Start::U32,
            |_| (),
            |a| {
                ok(a.mov(edx, port));
                match size {
                    1 => ok(a.in_(al, dx)),
                    2 => ok(a.in_(ax, dx)),
                    _ => ok(a.in_(eax, dx)),
                }
                ok(a.int(0x80));
            },
        )
        .1
    };
    let rows = [
        (0x10, 1, "#128"),
        (0x14, 4, "#128"),
        (0x15, 4, "#13(0x0)"),
        (0xf, 2, "#13(0x0)"),
        (0x17, 1, "#128"),
        (0x18, 1, "#13(0x0)"),
        (0x40, 1, "#13(0x0)"),
        (0x3f8, 1, "#13(0x0)"),
    ];
    for (port, size, expected) in rows {
        assert_eq!(access(port, size), expected, "{port:#x} {size}");
    }
}

#[test]
fn descriptor_queries() {
    let query = |start: Start, code: &[u8], selector: u16| {
        let mut b = Bench::new(start);
        let mut bytes = vec![0xb8];
        bytes.extend(u32::from(selector).to_le_bytes());
        bytes.extend(code);
        bytes.extend([0xcd, 0x80]);
        b.bytes(CODE, &bytes);
        assert_eq!(b.run(), "#128");
        (b.cpu.gpr(1), b.cpu.rflags() & 0x40 != 0)
    };
    const LAR: &[u8] = &[0x0f, 0x02, 0xc8];
    const LSL: &[u8] = &[0x0f, 0x03, 0xc8];
    const VERR: &[u8] = &[0x0f, 0x00, 0xe0];
    const VERW: &[u8] = &[0x0f, 0x00, 0xe8];
    let rows = [
        (Start::P32, LAR, sel::CODE32, (0x00cf_9b00, true)),
        (Start::P32, LAR, sel::TSS, (0x0000_8b00, true)),
        (Start::P32, LAR, 0, (0, false)),
        (Start::P32, LAR, 0x1f8, (0, false)),
        (Start::U32, LAR, sel::CODE32, (0, false)),
        (Start::U32, LAR, sel::CONFORMING, (0x00cf_9f00, true)),
        (Start::P32, LSL, sel::DATA16, (0xffff, true)),
        (Start::P32, LSL, sel::DATA, (0xffff_ffff, true)),
        (Start::P32, LSL, sel::TASK_GATE, (0, false)),
        (Start::P32, LAR, sel::TASK_GATE, (0x0000_e500, true)),
        (Start::P32, VERR, sel::CODE32, (0, true)),
        (Start::P32, VERW, sel::CODE32, (0, false)),
        (Start::P32, VERW, sel::READ_ONLY, (0, false)),
        (Start::P32, VERW, sel::DATA | 3, (0, false)),
        (Start::U32, VERW, sel::UDATA, (0, true)),
        (Start::L64, LAR, sel::TSS16, (0, false)),
        (Start::P32, LAR, sel::TSS16, (0x0000_8100, true)),
    ];
    for (start, code, selector, expected) in rows {
        assert_eq!(query(start, code, selector), expected, "{start:?} {code:02x?} {selector:#x}");
    }
}

#[test]
fn arpl_raises_the_rpl() {
    let (b, _) = run(
        Start::P32,
        |_| (),
        |a| {
            ok(a.mov(eax, 0x1238));
            ok(a.mov(ecx, 3));
            ok(a.arpl(ax, cx));
            ok(a.int(0x80));
        },
    );
    assert_eq!((b.cpu.gpr(0), b.frame(2) & 0x40), (0x123b, 0x40));
}

#[test]
fn ldt_and_task_register() {
    let (b, stop) = run(
        Start::P32,
        |_| (),
        |a| {
            ok(a.mov(eax, u32::from(sel::LDT)));
            ok(a.lldt(ax));
            ok(a.mov(eax, 0x14));
            ok(a.mov(es, eax));
            ok(a.sldt(ecx));
            ok(a.str(edx));
            ok(a.hlt());
        },
    );
    assert_eq!(stop, "hlt");
    assert_eq!((b.cpu.gpr(1), b.cpu.gpr(2), b.cpu.state.seg[0].selector), (sel::LDT.into(), sel::TSS.into(), 0x14));
    let ltr = |selector: u16| {
        run(
            Start::P32,
            |_| (),
            |a| {
                ok(a.mov(eax, u32::from(selector)));
                ok(a.ltr(ax));
                ok(a.hlt());
            },
        )
    };
    assert_eq!(ltr(sel::TSS).1, "#13(0x60)");
    assert_eq!(ltr(0).1, "#13(0x0)");
    assert_eq!(ltr(sel::DATA).1, "#13(0x10)");
    assert_eq!(ltr(sel::TSS2 | 4).1, "#13(0x74)");
    let (b, stop) = ltr(sel::TSS2);
    assert_eq!(stop, "hlt");
    assert_eq!(b.get(GDT + u64::from(sel::TSS2) + 5, 1), 0x8b);
    let user = |a: Asm| ok(a.ltr(ax));
    assert_eq!(run(Start::U32, |_| (), user).1, "#13(0x0)");
}

/// Fills TSS2 (32-bit): CPL 0, `eip`, flat segments.
fn second_task(b: &mut Bench, eip: u64) {
    b.put(TSS2 + 0x20, 4, eip);
    b.put(TSS2 + 0x24, 4, 2);
    b.put(TSS2 + 0x28, 4, 0x1111_1111);
    b.put(TSS2 + 0x38, 4, 0x3_a000);
    for n in 0..6 {
        b.put(TSS2 + 0x48 + 4 * n, 4, if n == 1 { sel::CODE32 } else { sel::DATA }.into());
    }
}

#[test]
fn tasks_nest_and_return() {
    let mut b = Bench::new(Start::P32);
    second_task(&mut b, CODE + 0x100);
    b.bytes(CODE + 0x100, &[0xcf]);
    let mut code = far(0x9a, sel::TSS2, 0);
    code.push(0xf4);
    b.bytes(CODE, &code);
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.state.rip, b.cpu.gpr(4), b.cpu.gpr(0)), (CODE + 8, STACK, 0));
    assert_eq!(b.get(TSS2, 2), sel::TSS.into(), "back link");
    assert_eq!(b.get(TSS2 + 0x20, 4), CODE + 0x101, "the second task's EIP");
    assert_eq!(b.get(TSS2 + 0x24, 4) & rflags::NT, 0, "NT is clear in the saved image");
    assert_eq!(b.get(GDT + u64::from(sel::TSS2) + 5, 1), 0x89);
    assert_eq!(b.get(GDT + u64::from(sel::TSS) + 5, 1), 0x8b);
    assert_eq!(b.cpu.tr.selector, sel::TSS);
    assert_eq!(b.cpu.cr0 & 8, 8, "TS");
}

#[test]
fn jump_to_a_task() {
    let mut b = Bench::new(Start::P32);
    second_task(&mut b, CODE + 0x100);
    b.bytes(CODE + 0x100, &[0xf4]);
    b.bytes(CODE, &far(0xea, sel::TASK_GATE, 0));
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.gpr(0), b.cpu.gpr(4), b.cpu.tr.selector), (0x1111_1111, 0x3_a000, sel::TSS2));
    assert_eq!(b.get(GDT + u64::from(sel::TSS) + 5, 1), 0x89, "the old task is free");
    assert_eq!(b.get(TSS + 0x20, 4), CODE + 7);
    assert_eq!(b.get(TSS + 0x38, 4), STACK);
}

#[test]
fn faults_in_a_new_task_belong_to_it() {
    let mut b = Bench::new(Start::P32);
    second_task(&mut b, CODE + 0x100);
    b.put(TSS2 + 0x54, 2, sel::NOT_PRESENT.into());
    b.bytes(CODE, &far(0xea, sel::TASK_GATE, 0));
    assert_eq!(b.run(), "#11(0x50)");
    assert_eq!((b.cpu.tr.selector, b.frame(1)), (sel::TSS2, CODE + 0x100));
    let mut b = Bench::new(Start::P32);
    second_task(&mut b, CODE + 0x100);
    b.put(TSS2 + 0x50, 2, sel::UDATA.into());
    b.bytes(CODE, &far(0xea, sel::TASK_GATE, 0));
    // SS is bad, so there is no stack to report it on.
    assert_eq!(b.run(), "shutdown");
    // Too small a TSS is found before anything happens.
    let mut b = Bench::new(Start::P32);
    b.set_gdt(sel::TSS2, descriptor(TSS2, 0x66, 0x89));
    b.bytes(CODE, &far(0xea, sel::TSS2, 0));
    assert_eq!(b.run(), "#10(0x70)");
    assert_eq!((b.cpu.tr.selector, b.frame(1)), (sel::TSS, CODE));
}

#[test]
fn exceptions_through_a_task_gate() {
    let mut b = Bench::new(Start::P32);
    second_task(&mut b, CODE + 0x100);
    b.set_idt(13, gate(sel::TSS2, 0, 0x85, 0));
    b.asm_at(CODE + 0x100, 32, |a| {
        ok(a.pop(ebx));
        ok(a.hlt());
    });
    b.asm(|a| {
        ok(a.mov(eax, u32::from(sel::TSS)));
        ok(a.mov(ds, eax));
    });
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.gpr(3), b.cpu.tr.selector), (0x60, sel::TSS2));
    assert!(b.cpu.flag(rflags::NT));
    assert_eq!(b.get(TSS + 0x20, 4), CODE + 5);
    // SS0 being bad does not matter to a task gate.
    let mut b = Bench::new(Start::U32);
    second_task(&mut b, CODE + 0x100);
    b.set_idt(8, gate(sel::TSS2, 0, 0x85, 0));
    b.put(TSS + 8, 2, 0);
    b.bytes(CODE + 0x100, &[0xf4]);
    b.asm(|a| ok(a.hlt()));
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.tr.selector, b.frame(0), b.get(TSS + 0x20, 4)), (sel::TSS2, 0, CODE));
}

#[test]
fn a_286_task() {
    let mut b = Bench::new(Start::P32);
    b.put(TSS16 + 0x0e, 2, 0x400);
    b.put(TSS16 + 0x10, 2, 2);
    b.put(TSS16 + 0x12, 2, 0x2222);
    b.put(TSS16 + 0x1a, 2, 0x7000);
    for (n, s) in [sel::DATA, sel::CODE16, sel::DATA16, sel::DATA].into_iter().enumerate() {
        b.put(TSS16 + 0x22 + 2 * n as u64, 2, s.into());
    }
    b.bytes(0x400, &[0xf4]);
    b.bytes(CODE, &far(0xea, sel::TSS16, 0));
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.gpr(0) & 0xffff, b.cpu.gpr(4) & 0xffff, b.cpu.tr.selector), (0x2222, 0x7000, sel::TSS16));
    assert!(!b.cpu.state.seg[4].present() && !b.cpu.state.seg[5].present());
    assert_eq!(b.cpu.state.seg[2].attr & SegReg::DB, 0);
}

#[test]
fn sysenter_and_sysexit() {
    let mut b = Bench::new(Start::U32);
    b.cpu.msr.sysenter_cs = sel::CODE64.into();
    b.cpu.msr.sysenter_esp = INNER_STACK;
    b.cpu.msr.sysenter_eip = CODE + 0x100;
    b.asm_at(CODE + 0x100, 32, |a| {
        ok(a.mov(esi, cs));
        ok(a.mov(edi, ss));
        ok(a.mov(ecx, 0x7000));
        ok(a.mov(edx, CODE as u32 + 0x200));
        ok(a.sysexit());
    });
    b.asm_at(CODE + 0x200, 32, |a| {
        ok(a.mov(eax, cs));
        ok(a.hlt());
    });
    b.asm(|a| ok(a.sysenter()));
    assert_eq!(b.run(), "#13(0x0)");
    assert_eq!((b.cpu.gpr(6), b.cpu.gpr(7)), (sel::CODE64.into(), sel::DATA.into()));
    assert_eq!((b.cpu.gpr(0), b.frame(4), b.frame(5)), (u64::from(sel::CODE64 + 16) | 3, 0x7000, u64::from(sel::CODE64 + 24) | 3));
    let zero = run(Start::U32, |_| (), |a| ok(a.sysenter()));
    assert_eq!(zero.1, "#13(0x0)");
}
