//! Virtual-8086 mode extensions and protected-mode virtual interrupts; MONITOR and MWAIT; RDPID.

mod harness;

use egret_cpu::Exit;
use egret_cpu::state::{attention, cr4, rflags};
use harness::*;

const GP: &str = "#13(0x0)";
/// Linear address of the V86 stack's first word pushed.
const TOP: u64 = STACK + 0x1000;

/// V86 or CPL 3 with the given CR4 bits and RFLAGS.
fn bench(start: Start, cr4: u64, flags: u64) -> Bench {
    let mut b = Bench::new(start);
    b.cpu.cr4 |= cr4;
    let vm = b.cpu.rflags() & rflags::VM;
    b.cpu.set_rflags(flags | vm | 2);
    b
}

/// Runs `code` and an INT3 behind it; the event, and RFLAGS of then.
fn run(b: &mut Bench, code: &[u8]) -> (String, u64) {
    let mut bytes = code.to_vec();
    bytes.push(0xcc);
    b.bytes(CODE, &bytes);
    let stop = b.run();
    let error = matches!(b.vector(), Some(8 | 10..=14 | 17));
    (stop, b.frame(2 + u64::from(error)))
}

const IF: u64 = rflags::IF;
const VIF: u64 = rflags::VIF;
const VIP: u64 = rflags::VIP;
const IOPL3: u64 = rflags::IOPL;
const INTERRUPT_BITS: u64 = IF | VIF | VIP;

#[test]
fn cli_and_sti() {
    // SDM Vol. 2, "CLI" and "STI", decision tables.
    let (v86, user) = (Start::V86, Start::U32);
    let (cli, sti) = (0xfa, 0xfb);
    let rows = [
        (v86, 0, IOPL3 | IF, cli, Some(0)),
        (v86, cr4::VME, IOPL3 | IF | VIF, cli, Some(VIF)),
        (v86, 0, IF, cli, None),
        (v86, cr4::PVI, IF, cli, None),
        (v86, cr4::VME, IF | VIF, cli, Some(IF)),
        (v86, cr4::VME, IF, sti, Some(IF | VIF)),
        (v86, cr4::VME, IF | VIP, sti, None),
        (v86, cr4::VME, IOPL3 | VIP, sti, Some(IF | VIP)),
        (v86, 0, 0, sti, None),
        (user, 0, IF, cli, None),
        (user, cr4::VME, IF, cli, None),
        (user, cr4::PVI, IF | VIF, cli, Some(IF)),
        (user, cr4::PVI, IF, sti, Some(IF | VIF)),
        (user, cr4::PVI, IF | VIP, sti, None),
        (user, cr4::PVI, IOPL3 | IF, cli, Some(0)),
    ];
    for (start, bits, flags, code, want) in rows {
        let mut b = bench(start, bits, flags);
        let (stop, after) = run(&mut b, &[code]);
        let at = format!("{start:?} cr4 {bits:x} flags {flags:x} {code:x}");
        match want {
            Some(want) => assert_eq!((stop.as_str(), after & INTERRUPT_BITS), ("#3", want), "{at}"),
            None => assert_eq!((stop.as_str(), after & INTERRUPT_BITS), (GP, flags & INTERRUPT_BITS), "{at}"),
        }
    }
}

#[test]
fn pushf_and_popf_in_v86() {
    // PUSHF shows VIF as IF and IOPL 3; PUSHFD is for IOPL 3 only.
    for (flags, want) in [(IF, 0x3002), (VIF, 0x3202), (IF | VIF, 0x3202)] {
        let mut b = bench(Start::V86, cr4::VME, flags);
        assert_eq!(run(&mut b, &[0x9c]).0, "#3");
        assert_eq!(b.get(TOP - 2, 2), want);
    }
    let mut b = bench(Start::V86, cr4::VME, IF);
    assert_eq!(run(&mut b, &[0x66, 0x9c]).0, GP);
    let mut b = bench(Start::V86, 0, IF);
    assert_eq!(run(&mut b, &[0x9c]).0, GP);
    // POPF: the image, the flags before; what comes.
    let rows = [
        (0x0202, IF, Some(IF | VIF)),
        (0x0002, IF | VIF, Some(IF)),
        (0x0202, VIP, None),
        (0x0002, VIP, Some(VIP)),
        (0x0102, IF, None),
        (0x3cd7, VIF, Some(0)),
    ];
    for (image, flags, want) in rows {
        let mut b = bench(Start::V86, cr4::VME, flags);
        b.put(TOP, 2, image);
        let (stop, after) = run(&mut b, &[0x9d]);
        match want {
            Some(want) => {
                assert_eq!((stop.as_str(), after & INTERRUPT_BITS), ("#3", want), "{image:x} {flags:x}");
                assert_eq!((after & 0xcd5, after & IOPL3), (image & 0xcd5, 0));
            }
            None => assert_eq!(stop, GP, "{image:x} {flags:x}"),
        }
    }
}

#[test]
fn iret_in_v86() {
    // IP, CS and FLAGS on the stack; back to an INT3.
    let rows = [(0x0202, IF, Some(IF | VIF)), (0x0002, VIF, Some(0)), (0x0202, VIP, None), (0x0102, 0, None)];
    for (image, flags, want) in rows {
        let mut b = bench(Start::V86, cr4::VME, flags);
        b.bytes(CODE + 0x100, &[0xcc]);
        b.put(TOP, 8, 0x100 | (CODE >> 4) << 16 | image << 32);
        let (stop, after) = run(&mut b, &[0xcf]);
        match want {
            Some(want) => assert_eq!((stop.as_str(), after & INTERRUPT_BITS, b.frame(0)), ("#3", want, 0x101)),
            None => assert_eq!(stop, GP, "{image:x}"),
        }
    }
    let mut b = bench(Start::V86, cr4::VME, IF);
    assert_eq!(run(&mut b, &[0x66, 0xcf]).0, GP, "IRETD needs IOPL 3");
}

/// An 8086 handler of INT 21h: INT3.
fn with_8086_handler(b: &mut Bench) {
    b.put(0x21 * 4, 4, (CODE + 0x200) >> 4 << 16);
    b.bytes(CODE + 0x200, &[0xcc]);
}

#[test]
fn redirected_interrupts() {
    // The map ends where the I/O map at 68h begins: INT 21h is bit 1 of byte 4Ch.
    const BYTE: u64 = TSS + 0x48 + 4;
    let rows = [
        // CR4, map byte, flags: stop, interrupt bits in the handler, FLAGS pushed for it.
        (cr4::VME, 0, IF | VIF, "#3", IF, 0x3202),
        (cr4::VME, 0, IF, "#3", IF, 0x3002),
        (cr4::VME, 0, IOPL3 | IF, "#3", 0, 0x3202),
        (cr4::VME, 2, IF | VIF, GP, IF | VIF, 0),
        (cr4::VME, 2, IOPL3 | IF, "#13(0x10a)", IF, 0),
        (0, 0, IF, GP, IF, 0),
        (0, 0, IOPL3 | IF, "#13(0x10a)", IF, 0),
    ];
    for (bits, map, flags, want, after, pushed) in rows {
        let mut b = bench(Start::V86, bits, flags);
        with_8086_handler(&mut b);
        b.put(BYTE, 1, map);
        // The protected-mode gate of INT 21h is for ring 0.
        let (stop, got) = run(&mut b, &[0xcd, 0x21]);
        assert_eq!((stop.as_str(), got & INTERRUPT_BITS), (want, after), "cr4 {bits:x} map {map} flags {flags:x}");
        if want == "#3" {
            assert_eq!((b.frame(0), b.frame(1)), (1, (CODE + 0x200) >> 4));
            assert_eq!((b.get(TOP - 2, 2), b.get(TOP - 4, 2), b.get(TOP - 6, 2)), (pushed, CODE >> 4, 2));
        }
    }
    // A map beyond the limit.
    let mut b = bench(Start::V86, cr4::VME, IF);
    b.put(TSS + 0x66, 2, 0x1000);
    assert_eq!(run(&mut b, &[0xcd, 0x21]).0, GP);
}

#[test]
fn a_virtual_interrupt_waits_for_the_return() {
    // IRETD from ring 0 to V86 with VIF and VIP set: #GP before the first instruction.
    for (bits, want) in [(cr4::VME, GP), (0, "#3")] {
        let mut b = bench(Start::P32, bits, 0);
        b.bytes(CODE, &[0xcf]);
        b.bytes(CODE + 0x100, &[0xcc]);
        let frame = [0x100, CODE >> 4, rflags::VM | VIF | VIP | 2, 0x1000, STACK >> 4, 0, 0, 0, 0];
        for (n, v) in frame.into_iter().enumerate() {
            b.put(STACK + 4 * n as u64, 4, v);
        }
        assert_eq!(b.run(), want);
        assert_eq!(b.frame(u64::from(want == GP)), if want == GP { 0x100 } else { 0x101 });
    }
}

/// A CPU that has MONITOR.
fn monitored(start: Start) -> Bench {
    let mut b = Bench::new(start);
    b.cpu.set_model("x86-64-v3,+monitor".parse().expect("a model"));
    b
}

#[test]
fn mwait_waits_for_a_write_or_an_interrupt() {
    // MONITOR; MWAIT; HLT.
    let code = [0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9, 0xf4];
    let prepare = |flags: u64| {
        let mut b = monitored(Start::L64);
        b.cpu.set_rflags(flags | 2);
        b.cpu.state.gpr[0] = DATA + 8;
        b.bytes(CODE, &code);
        b
    };
    let go = |b: &mut Bench| {
        b.cpu.state.budget = 100;
        b.cpu.state.attention |= attention::INTERRUPT;
        (b.interp.run(&mut b.cpu), b.cpu.state.rip - CODE)
    };
    let mut b = prepare(0);
    assert_eq!(go(&mut b), (Exit::Halt, 6));
    assert!(b.cpu.monitoring() && !b.cpu.monitor_hit());
    assert_eq!(go(&mut b), (Exit::Halt, 6), "still waiting");
    b.put(DATA + 0x20, 1, 1);
    assert!(b.cpu.monitor_hit());
    assert_eq!(go(&mut b), (Exit::Halt, 7), "in HLT behind it");
    assert!(!b.cpu.monitoring());
    // A masked interrupt wakes with ECX bit 0 only; it is not taken.
    for (ecx, want) in [(0u64, 6), (1, 7)] {
        let mut b = prepare(0);
        b.bytes(CODE + 3, &[0xb1, ecx as u8, 0x0f, 0x01, 0xc9, 0xf4]);
        b.world.borrow_mut().interrupts.push_back(0x40);
        assert_eq!(go(&mut b).1, want + 2);
        assert_eq!(b.world.borrow().interrupts.len(), 1);
    }
    let mut b = prepare(IF);
    b.world.borrow_mut().interrupts.push_back(0x40);
    b.cpu.state.attention = 0;
    assert_eq!(b.run(), "#64");
    // Without MONITOR there is nothing to wait for; extensions and privilege are checked.
    let mut b = monitored(Start::L64);
    b.bytes(CODE, &code[3..]);
    assert_eq!((b.run(), b.cpu.state.rip), ("hlt".into(), CODE + 4));
    for (at, ecx) in [(0, 1), (3, 2)] {
        let mut b = monitored(Start::L64);
        (b.cpu.state.gpr[0], b.cpu.state.gpr[1]) = (DATA, ecx);
        b.bytes(CODE, &code[at..]);
        assert_eq!(b.run(), GP);
    }
    for at in [0, 3] {
        let mut b = monitored(Start::U64);
        b.bytes(CODE, &code[at..]);
        assert_eq!(b.run(), "#6");
    }
}

#[test]
fn rdpid_reads_tsc_aux() {
    let mut b = Bench::new(Start::U64);
    b.cpu.msr.tsc_aux = 0x1234_5678;
    b.cpu.state.gpr[3] = u64::MAX;
    b.bytes(CODE, &[0xf3, 0x0f, 0xc7, 0xfb, 0xcd, 0x80]);
    assert_eq!((b.run(), b.cpu.gpr(3)), ("#128".into(), 0x1234_5678));
}
