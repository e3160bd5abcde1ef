//! Delivery, returns and system calls in long mode.

mod harness;

use egret_cpu::state::rflags;
use harness::*;
use iced_x86::code_asm::*;

/// Runs code in a mode; what stops it.
fn check(start: Start, write: impl FnOnce(&mut CodeAssembler), expected: &str) -> Bench {
    let mut b = Bench::new(start);
    b.asm(write);
    let got = b.run();
    assert_eq!(got, expected, "{start:?} at {:#x}", b.cpu.state.rip);
    b
}

fn ok(r: Result<(), iced_x86::IcedError>) {
    r.expect("encodes");
}

#[test]
fn exceptions_push_an_aligned_frame() {
    let b = check(Start::L64, |a| ok(a.sub(rsp, 8).and_then(|()| a.ud2())), "#6");
    assert_eq!(b.cpu.gpr(4), STACK - 16 - 40);
    assert_eq!(b.frame(0), CODE + 4);
    assert_eq!(b.frame(1), sel::CODE64.into());
    assert_eq!(b.frame(2) & rflags::RF, rflags::RF);
    assert_eq!(b.frame(3), STACK - 8);
    assert_eq!(b.frame(4), sel::DATA.into());
}

#[test]
fn user_mode_switches_to_rsp0() {
    let b = check(Start::U64, |a| ok(a.hlt()), "#13(0x0)");
    assert_eq!(b.cpu.gpr(4), INNER_STACK - 48);
    assert_eq!(b.frame(2), sel::UCODE64.into());
    assert_eq!(b.frame(4), STACK);
    assert_eq!(b.frame(5), sel::UDATA.into());
    assert_eq!((b.cpu.cpl, b.cpu.state.seg[2].selector), (0, 0));
}

#[test]
fn int_n_and_iretq() {
    let mut b = Bench::new(Start::U64);
    b.asm_at(HANDLERS + 16 * 0x80, 64, |a| ok(a.iretq()));
    b.asm(|a| {
        ok(a.mov(eax, 7));
        ok(a.int(0x80));
        ok(a.inc(eax));
        ok(a.int(0x81));
    });
    // 0x81's gate has DPL 0: #GP(vector * 8 + IDT), without EXT.
    assert_eq!(b.run(), "#13(0x40a)");
    assert_eq!(b.cpu.gpr(0), 8);
    assert_eq!(b.frame(4), STACK);
}

#[test]
fn ist_stack() {
    let mut b = Bench::new(Start::L64);
    b.set_idt(6, gate(sel::CODE64, HANDLERS + 16 * 6, 0x8e, 1));
    b.asm(|a| ok(a.ud2()));
    assert_eq!(b.run(), "#6");
    assert_eq!(b.cpu.gpr(4), IST1 - 40);
}

#[test]
fn page_fault_reports_address_and_code() {
    let b = check(Start::U64, |a| ok(a.mov(dword_ptr(0x0123_4567_8000u64), eax)), "#14(0x6)");
    assert_eq!(b.cpu.cr2, 0x0123_4567_8000);
}

#[test]
fn double_and_triple_faults() {
    // The #PF gate is not present: #NP during #PF is a double fault.
    let mut b = Bench::new(Start::L64);
    b.set_idt(14, 0);
    b.asm(|a| ok(a.mov(eax, dword_ptr(0x0123_4567_8000u64))));
    assert_eq!(b.run(), "#8(0x0)");
    let mut b = Bench::new(Start::L64);
    b.set_idt(14, 0);
    b.set_idt(8, 0);
    b.asm(|a| ok(a.mov(eax, dword_ptr(0x0123_4567_8000u64))));
    assert_eq!(b.run(), "shutdown");
    // A benign exception whose gate is bad: #GP with the EXT bit.
    let mut b = Bench::new(Start::L64);
    b.set_idt(6, gate(sel::CODE64, 0, 0x85, 0));
    b.asm(|a| ok(a.ud2()));
    assert_eq!(b.run(), "#13(0x33)");
}

#[test]
fn syscall_and_sysret() {
    let mut b = Bench::new(Start::U64);
    b.cpu.msr.star = u64::from(sel::CODE64) << 32 | u64::from(sel::UDATA - 8) << 48;
    b.cpu.msr.lstar = CODE + 0x100;
    b.cpu.msr.sfmask = rflags::IF | rflags::DF;
    b.asm_at(CODE + 0x100, 64, |a| {
        ok(a.mov(rbx, rcx));
        ok(a.mov(edx, cs));
        ok(a.sysretq());
    });
    b.asm(|a| {
        ok(a.std());
        ok(a.syscall());
        ok(a.mov(esi, cs));
        ok(a.int(0x80));
    });
    assert_eq!(b.run(), "#128");
    assert_eq!(b.cpu.gpr(3), CODE + 3);
    assert_eq!(b.cpu.gpr(2), sel::CODE64.into());
    assert_eq!(b.cpu.gpr(6), sel::UCODE64.into());
    assert_eq!(b.cpu.gpr(11) & rflags::DF, rflags::DF);
}

#[test]
fn interrupts_wait_for_the_shadow_of_sti() {
    let mut b = Bench::new(Start::L64);
    b.world.borrow_mut().interrupts.push_back(0x40);
    b.asm(|a| {
        ok(a.xor(eax, eax));
        ok(a.sti());
        ok(a.inc(eax));
        ok(a.inc(eax));
        ok(a.hlt());
    });
    assert_eq!(b.run(), "#64");
    assert_eq!(b.cpu.gpr(0), 1);
    assert_eq!(b.frame(2) & rflags::IF, rflags::IF);
    assert!(!b.cpu.flag(rflags::IF));
}

#[test]
fn hlt_wakes_up() {
    let mut b = Bench::new(Start::L64);
    b.asm(|a| {
        ok(a.sti());
        ok(a.hlt());
    });
    assert_eq!(b.run(), "hlt");
    b.world.borrow_mut().interrupts.push_back(0x41);
    b.cpu.state.attention |= egret_cpu::state::attention::INTERRUPT;
    assert_eq!(b.run(), "#65");
    assert_eq!(b.frame(0), CODE + 2);
}

#[test]
fn nmi_is_blocked_until_iret() {
    let mut b = Bench::new(Start::L64);
    b.world.borrow_mut().nmi = true;
    b.cpu.state.attention |= egret_cpu::state::attention::INTERRUPT;
    b.asm(|a| ok(a.jmp(CODE)));
    assert_eq!(b.run(), "#2");
    b.world.borrow_mut().nmi = true;
    b.cpu.state.attention |= egret_cpu::state::attention::INTERRUPT;
    assert_eq!(b.run(), "#2");
    assert!(b.world.borrow().nmi, "the second NMI is still pending");
}

/// A 16-byte gate in the GDT or IDT.
fn long_gate(b: &mut Bench, at: u64, selector: u16, offset: u64, attr: u8) {
    b.put(at, 8, gate(selector, offset, attr, 0));
    b.put(at + 8, 8, offset >> 32);
}

#[test]
fn call_gates_lead_to_64_bit_code() {
    for start in [Start::U64, Start::C32] {
        let mut b = Bench::new(start);
        long_gate(&mut b, GDT + u64::from(sel::GATE3 & !7), sel::CODE64, CODE + 0x100, 0xec);
        b.bytes(CODE + 0x100, &[0xf4]);
        // CALL FAR [DATA]: the offset in memory does not matter.
        b.put(DATA + 4, 2, sel::GATE3.into());
        b.asm(|a| {
            ok(a.mov(eax, DATA as u32));
            ok(a.db(&[0xff, 0x18]));
        });
        assert_eq!(b.run(), "hlt", "{start:?}");
        let words: Vec<u64> = (0..4).map(|n| b.frame(n)).collect();
        let from = if start == Start::U64 { sel::UCODE64 } else { sel::UCODE32 };
        assert_eq!(words, [CODE + 7, from.into(), STACK, sel::UDATA.into()]);
        assert_eq!((b.cpu.gpr(4), b.cpu.cpl, b.cpu.state.seg[2].selector), (INNER_STACK - 32, 0, 0));
    }
    // A gate to 32-bit code, and one whose upper half is no gate's.
    let mut b = Bench::new(Start::U64);
    long_gate(&mut b, GDT + u64::from(sel::GATE3 & !7), sel::CODE32, CODE, 0xec);
    b.put(DATA + 4, 2, sel::GATE3.into());
    b.bytes(CODE, &[0xb8, 0, 0, 4, 0, 0xff, 0x18]);
    assert_eq!(b.run(), "#13(0x18)");
    let mut b = Bench::new(Start::U64);
    long_gate(&mut b, GDT + u64::from(sel::GATE3 & !7), sel::CODE64, CODE, 0xec);
    b.put(GDT + u64::from(sel::GATE3 & !7) + 12, 4, 1 << 8);
    b.put(DATA + 4, 2, sel::GATE3.into());
    b.bytes(CODE, &[0xb8, 0, 0, 4, 0, 0xff, 0x18]);
    assert_eq!(b.run(), "#13(0xa0)");
}

#[test]
fn iretq_to_compatibility_mode_and_back() {
    let mut b = Bench::new(Start::L64);
    b.asm_at(CODE + 0x200, 32, |a| {
        ok(a.mov(eax, 0x1111_1111));
        ok(a.int(0x80));
    });
    b.asm(|a| {
        ok(a.mov(rax, u64::MAX));
        for v in [u32::from(sel::UDATA), 0x7000, 0x202, u32::from(sel::UCODE32), CODE as u32 + 0x200] {
            ok(a.push(v as i32));
        }
        ok(a.iretq());
    });
    assert_eq!(b.run(), "#128");
    let words: Vec<u64> = (0..5).map(|n| b.frame(n)).collect();
    assert_eq!(words, [CODE + 0x207, sel::UCODE32.into(), 0x202, 0x7000, sel::UDATA.into()]);
    assert_eq!(b.cpu.gpr(0), 0x1111_1111);
}

#[test]
fn iretq_checks() {
    let iretq = |values: [u64; 5], flags: u64| {
        let mut b = Bench::new(Start::L64);
        b.cpu.set_rflags(flags | 2);
        b.asm(|a| {
            for v in values {
                ok(a.mov(rax, v));
                ok(a.push(rax));
            }
            ok(a.iretq());
        });
        b.bytes(CODE + 0x200, &[0xf4]);
        let stop = b.run();
        if stop != "hlt" { stop } else { format!("hlt {:x}", b.cpu.state.seg[2].selector) }
    };
    let rip = CODE + 0x200;
    let rows = [
        ([sel::DATA.into(), STACK, 2, sel::CODE64.into(), rip], 0, "hlt 10"),
        // SS may be null for 64-bit code below CPL 3.
        ([0, STACK, 2, sel::CODE64.into(), rip], 0, "hlt 0"),
        ([3, STACK, 2, sel::CODE64.into(), rip], 0, "#13(0x0)"),
        ([0, STACK, 2, sel::CODE32.into(), rip], 0, "#13(0x0)"),
        ([3, STACK, 2, sel::UCODE64.into(), rip], 0, "#13(0x0)"),
        ([sel::DATA.into(), STACK, 2, sel::CODE64.into(), 1 << 47], 0, "#13(0x0)"),
        ([sel::DATA.into(), STACK, 2, 0, rip], 0, "#13(0x0)"),
        ([sel::UDATA.into(), STACK, 2, sel::CODE64.into(), rip], 0, "#13(0x28)"),
        ([sel::DATA.into(), STACK, 2, sel::CODE64.into(), rip], rflags::NT, "#13(0x0)"),
    ];
    for (values, flags, expected) in rows {
        assert_eq!(iretq(values, flags), expected, "{values:x?}");
    }
}

#[test]
fn no_task_switches_in_long_mode() {
    for selector in [sel::TSS2, sel::TASK_GATE] {
        let mut b = Bench::new(Start::L64);
        b.put(DATA + 4, 2, selector.into());
        b.bytes(CODE, &[0xb8, 0, 0, 4, 0, 0xff, 0x28]);
        assert_eq!(b.run(), format!("#13({:#x})", selector & !3));
    }
}

/// SYSCALL leaves SS.B set, an interrupt a null SS. Were these two contexts, a kernel would be translated twice.
#[test]
fn code_has_one_context_whatever_ss_is() {
    let [null, data] = [0, sel::DATA].map(|selector| {
        let load = |a: &mut CodeAssembler| ok(a.mov(eax, u32::from(selector)).and_then(|()| a.mov(ss, eax)).and_then(|()| a.hlt()));
        let b = check(Start::L64, load, "hlt");
        assert_eq!(b.cpu.state.seg[2].selector, selector);
        (b.cpu.state.ctx, b.cpu.state.seg[2].attr)
    });
    assert_ne!(null.1, data.1, "a test of nothing");
    assert_eq!(null.0, data.0);
}
