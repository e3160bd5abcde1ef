//! Real mode, mode switches, control registers, MSRs, CPUID, and debugging.

mod harness;

use egret_cpu::state::{cr0, cr4, efer, rflags};
use egret_cpu::{Cpu, Fault};
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

#[test]
fn real_mode_interrupts() {
    let mut b = Bench::new(Start::Real);
    b.bytes(HANDLERS + 16 * 0x21, &[0xcf]);
    b.asm(|a| {
        ok(a.sti());
        ok(a.int(0x21));
        ok(a.pushf());
        ok(a.pop(bx));
        ok(a.ud2());
    });
    assert_eq!(b.run(), "#6");
    assert_eq!(b.cpu.gpr(3) & 0x200, 0x200, "IRET restored IF");
    assert_eq!((b.frame(0), b.frame(1)), (5, CODE >> 4));
    assert!(!b.cpu.flag(rflags::IF));
    // Beyond the IDT's limit: #GP, whose entry is inside; without that, shutdown.
    assert_eq!(run(Start::Real, |b| b.cpu.idtr.limit = 0x7f, |a| ok(a.int(0x21))).1, "#13");
    assert_eq!(run(Start::Real, |b| b.cpu.idtr.limit = 0x1f, |a| ok(a.int(0x21))).1, "shutdown");
    // A word at SP = 1 crosses the limit: #SS, which has no stack either.
    assert_eq!(run(Start::Real, |b| b.cpu.state.gpr[4] = 1, |a| ok(a.int(0x21))).1, "shutdown");
}

#[test]
fn real_mode_far_transfers() {
    let mut b = Bench::new(Start::Real);
    b.bytes(DATA, &[0xcb]);
    b.bytes(CODE, &[0x9a, 0, 0, 0, (DATA >> 12) as u8, 0xf4]);
    assert_eq!(b.run(), "hlt");
    assert_eq!((b.cpu.state.rip, b.cpu.gpr(4)), (6, 0x1000));
    // A 32-bit far JMP beyond 64 KiB.
    let (_, stop) = run(Start::Real, |_| (), |a| ok(a.db(&[0x66, 0xea, 0, 0, 1, 0, 0, 0])));
    assert_eq!(stop, "#13");
}

/// From real mode to 64-bit code and back down to real mode, the way firmware does it.
#[test]
fn through_all_modes_and_back() {
    let mut b = Bench::new(Start::Real);
    b.put(GDT + u64::from(sel::DATA16), 8, descriptor(0, 0xffff, 0x93));
    b.set_gdt(sel::CODE16, descriptor(0, 0xffff, 0x9b));
    let low = 0x700;
    b.asm(|a| {
        ok(a.mov(eax, cr0));
        ok(a.or(eax, 1));
        ok(a.mov(cr0, eax));
        ok(a.db(&[0x66, 0xea]));
        ok(a.dd(&[CODE as u32 + 0x100]));
        ok(a.dw(&[sel::CODE32]));
    });
    b.asm_at(CODE + 0x100, 32, |a| {
        ok(a.mov(eax, u32::from(sel::DATA)));
        ok(a.mov(ds, eax));
        ok(a.mov(ss, eax));
        ok(a.mov(esp, STACK as u32));
        ok(a.mov(eax, cr4::PAE as u32));
        ok(a.mov(cr4, eax));
        ok(a.mov(eax, TABLES as u32));
        ok(a.mov(cr3, eax));
        ok(a.mov(ecx, 0xc000_0080u32));
        ok(a.rdmsr());
        ok(a.or(eax, efer::LME as u32));
        ok(a.wrmsr());
        ok(a.mov(eax, cr0));
        ok(a.or(eax, 0x8000_0000u32 as i32));
        ok(a.mov(cr0, eax));
        // Compatibility mode until the far jump.
        ok(a.rdmsr());
        ok(a.mov(ebp, eax));
        ok(a.db(&far(sel::CODE64, CODE as u32 + 0x200)));
    });
    b.asm_at(CODE + 0x200, 64, |a| {
        ok(a.mov(rax, 0x1234_5678_9abc_def0u64));
        ok(a.mov(rdi, rax));
        ok(a.push(i32::from(sel::CODE32 as i16)));
        ok(a.push(CODE as i32 + 0x300));
        ok(a.db(&[0x48, 0xcb]));
    });
    b.asm_at(CODE + 0x300, 32, |a| {
        ok(a.mov(eax, cr0));
        ok(a.and(eax, 0x7fff_ffff));
        ok(a.mov(cr0, eax));
        ok(a.mov(ecx, 0xc000_0080u32));
        ok(a.rdmsr());
        ok(a.mov(esi, eax));
        ok(a.db(&far(sel::CODE16, low as u32)));
    });
    b.bytes(low, &[0xb8, sel::DATA16 as u8, 0, 0x8e, 0xd8, 0x8e, 0xd0]);
    b.bytes(low + 7, &[0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0]);
    b.bytes(low + 15, &[0xea, (low + 20) as u8, ((low + 20) >> 8) as u8, 0, 0, 0x8e, 0xd9, 0xf4]);
    b.cpu.idtr.base = 0;
    assert_eq!(b.run(), "hlt");
    assert_eq!(b.cpu.gpr(5) as u32, (efer::LME | efer::LMA) as u32);
    assert_eq!(b.cpu.gpr(7) as u32, 0x9abc_def0);
    assert_eq!(b.cpu.gpr(6) as u32, efer::LME as u32, "LMA ends with paging");
    assert!(b.cpu.real_mode() && !b.cpu.long_mode());
    assert_eq!((b.cpu.state.rip, b.cpu.state.seg[1].selector, b.cpu.state.seg[1].base), (low + 23, 0, 0));
}

fn far(selector: u16, offset: u32) -> Vec<u8> {
    let mut bytes = vec![0xea];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    bytes
}

/// A write to a control register on a fresh CPU; whether it is taken.
fn write(start: Start, f: impl FnOnce(&mut Cpu) -> Result<(), Fault>) -> bool {
    let mut b = Bench::new(start);
    match f(&mut b.cpu) {
        Ok(()) => true,
        Err(fault) => {
            assert_eq!(fault, Fault::GP0);
            false
        }
    }
}

#[test]
fn control_register_checks() {
    let long = cr0::PE | cr0::PG;
    assert!(!write(Start::Real, |c| c.write_cr0(cr0::PG)));
    assert!(!write(Start::Real, |c| c.write_cr0(cr0::NW)));
    assert!(!write(Start::L64, |c| c.write_cr0(long | 1 << 32)));
    assert!(!write(Start::L64, |c| c.write_cr0(cr0::PE)), "64-bit code cannot turn paging off");
    assert!(write(Start::C32, |c| c.write_cr0(cr0::PE)));
    assert!(!write(Start::L64, |c| c.write_cr4(0)));
    assert!(!write(Start::L64, |c| c.write_cr4(cr4::PAE | 1 << 13)), "VMX is not claimed");
    assert!(write(Start::L64, |c| c.write_cr4(cr4::PAE | cr4::PCIDE)));
    assert!(!write(Start::P32, |c| c.write_cr4(cr4::PCIDE)));
    assert!(!write(Start::L64, |c| c.write_cr3(1 << 40)));
    assert!(!write(Start::L64, |c| c.write_cr3(1 << 63 | TABLES)));
    assert!(write(Start::L64, |c| c.write_cr4(cr4::PAE | cr4::PCIDE).and_then(|()| c.write_cr3(1 << 63 | TABLES | 5))));
    assert!(!write(Start::L64, |c| c.write_efer(efer::SCE)), "LME is fixed while paging");
    assert!(!write(Start::L64, |c| c.write_efer(c.efer | 1 << 12)));
    assert!(write(Start::L64, |c| c.write_efer(c.efer & !efer::NXE)));
    assert!(!write(Start::P32, |c| c.write_efer(efer::LME).and_then(|()| c.write_cr0(long))), "long mode needs PAE");
    // PAE paging loads its four pointers at once, and refuses reserved bits.
    let pae = |entry: u64| {
        move |c: &mut Cpu| {
            assert!(c.ram.store(egret_bus::Phys(DATA), 8, entry));
            c.write_cr4(cr4::PAE)?;
            c.write_cr3(DATA)?;
            c.write_cr0(long)
        }
    };
    assert!(write(Start::P32, pae(0x1001)));
    assert!(!write(Start::P32, pae(0x1003)));
}

#[test]
fn control_register_instructions() {
    let rows: [(Start, &[u8], &str); 10] = [
        (Start::P32, &[0x0f, 0x20, 0xc8], "#6"),
        (Start::P32, &[0x0f, 0x22, 0xc0], "hlt"),
        (Start::U32, &[0x0f, 0x20, 0xc0], "#13(0x0)"),
        (Start::U32, &[0x0f, 0x06], "#13(0x0)"),
        (Start::U32, &[0x0f, 0x01, 0xf0], "#13(0x0)"),
        (Start::U32, &[0x0f, 0x01, 0xe0, 0xcd, 0x80], "#128"),
        (Start::L64, &[0x44, 0x0f, 0x20, 0xc0, 0xf4], "hlt"),
        (Start::L64, &[0x0f, 0x01, 0xd0], "#6"),
        (Start::U64, &[0x0f, 0x01, 0xf8], "#13(0x0)"),
        (Start::P32, &[0x0f, 0x01, 0xf8], "#6"),
    ];
    for (start, code, expected) in rows {
        let mut b = Bench::new(start);
        b.cpu.state.gpr[0] = cr0::PE | cr0::ET;
        let mut bytes = code.to_vec();
        bytes.push(0xf4);
        b.bytes(CODE, &bytes);
        assert_eq!(b.run(), expected, "{start:?} {code:02x?}");
    }
    // UMIP.
    for code in [[0x0f, 0x01, 0xe0], [0x0f, 0x00, 0xc0], [0x0f, 0x00, 0xc8]] {
        let mut b = Bench::new(Start::U32);
        b.cpu.cr4 |= cr4::UMIP;
        b.bytes(CODE, &code);
        assert_eq!(b.run(), "#13(0x0)");
    }
    // LMSW sets PE and cannot clear it.
    let (b, _) = run(
        Start::P32,
        |_| (),
        |a| {
            ok(a.mov(eax, 0xe));
            ok(a.lmsw(ax));
            ok(a.smsw(ecx));
            ok(a.clts());
            ok(a.hlt());
        },
    );
    assert_eq!(b.cpu.gpr(1) & 0xf, 0xf);
    assert_eq!(b.cpu.cr0 & 0xf, 7);
    // CR8 is the APIC's task priority.
    let (b, stop) = run(
        Start::L64,
        |_| (),
        |a| {
            ok(a.mov(eax, 9));
            ok(a.mov(cr8, rax));
            ok(a.mov(rcx, cr8));
            ok(a.mov(eax, 16));
            ok(a.mov(cr8, rax));
        },
    );
    assert_eq!((stop.as_str(), b.cpu.gpr(1), b.world.borrow().priority), ("#13(0x0)", 9, 9));
}

#[test]
fn table_registers() {
    let (b, stop) = run(
        Start::L64,
        |b| {
            b.put(DATA, 2, 0x123);
            b.put(DATA + 2, 8, 0xffff_8000_0000_1000);
        },
        |a| {
            ok(a.mov(eax, DATA as u32));
            ok(a.lidt(ptr(rax)));
            ok(a.sidt(ptr(rax + 32)));
            ok(a.sgdt(ptr(rax + 64)));
            ok(a.hlt());
        },
    );
    assert_eq!(stop, "hlt");
    assert_eq!((b.get(DATA + 32, 2), b.get(DATA + 34, 8)), (0x123, 0xffff_8000_0000_1000));
    assert_eq!((b.get(DATA + 64, 2), b.get(DATA + 66, 8)), (0xff, GDT));
    let (_, stop) = run(
        Start::L64,
        |b| b.put(DATA + 2, 8, 1 << 47),
        |a| {
            ok(a.mov(eax, DATA as u32));
            ok(a.lgdt(ptr(rax)));
        },
    );
    assert_eq!(stop, "#13(0x0)");
}

#[test]
fn msrs() {
    let noncanonical = 1u64 << 47;
    // (MSR, value, whether it is taken, what reads back)
    let rows: [(u32, u64, bool, Option<u64>); 29] = [
        (0xc000_0081, 0x0023_0010_0000_0000, true, Some(0x0023_0010_0000_0000)),
        (0xc000_0082, 0xffff_8000_0000_0000, true, Some(0xffff_8000_0000_0000)),
        (0xc000_0082, noncanonical, false, None),
        (0xc000_0084, 0x4_7700, true, Some(0x4_7700)),
        (0xc000_0084, 1 << 32, false, None),
        (0xc000_0100, 0x7fff_ffff_f000, true, Some(0x7fff_ffff_f000)),
        (0xc000_0101, noncanonical, false, None),
        (0xc000_0102, 5, true, Some(5)),
        (0xc000_0103, 7, true, Some(7)),
        (0x174, 0x10, true, Some(0x10)),
        (0x175, noncanonical, false, None),
        (0x277, 0x0007_0406_0007_0406, true, Some(0x0007_0406_0007_0406)),
        (0x277, 2, false, None),
        (0xfe, 0, false, Some(0x508)),
        (0x2ff, 0xc06, true, Some(0xc06)),
        (0x2ff, 0xc02, false, None),
        (0x200, 0x8000_0006, true, Some(0x8000_0006)),
        (0x201, 1 << 40, false, None),
        (0x250, 0x0606_0606_0606_0606, true, Some(0x0606_0606_0606_0606)),
        (0x1a0, 0x1801, true, Some(0x1801)),
        (0x1a0, 0x4_00c5_0089, true, Some(0x4_00c5_1889)),
        (0x1a0, 1 << 35, false, None),
        (0x1d9, 2, true, Some(2)),
        (0x1d9, 1 << 2, false, None),
        (0x3a, 0, false, Some(1)),
        (0xda0, 0, true, Some(0)),
        (0xda0, 1, false, None),
        (0x10, 1000, true, Some(1000)),
        (0x3b, 5, true, Some(5)),
    ];
    for (msr, value, taken, back) in rows {
        let mut b = Bench::new(Start::L64);
        assert_eq!(b.cpu.write_msr(msr, value).is_ok(), taken, "{msr:#x} {value:#x}");
        if let Some(back) = back {
            assert_eq!(b.cpu.read_msr(msr), Ok(back), "{msr:#x}");
        }
    }
    // An unknown one is counted.
    let (b, stop) = run(
        Start::L64,
        |_| (),
        |a| {
            ok(a.mov(ecx, 0x1234_5678));
            ok(a.rdmsr());
        },
    );
    assert_eq!(stop, "#13(0x0)");
    assert_eq!(b.cpu.unknown.get("msr 0x12345678"), Some(&1));
    assert_eq!(run(Start::U64, |_| (), |a| ok(a.rdmsr())).1, "#13(0x0)");
}

#[test]
fn deadlines_follow_the_guests_time_stamps() {
    let mut b = Bench::new(Start::L64);
    b.world.borrow_mut().tsc = 500;
    assert_eq!(b.cpu.write_msr(0x10, 100_500), Ok(()));
    assert_eq!(b.cpu.write_msr(0x6e0, 101_000), Ok(()));
    assert_eq!((b.world.borrow().deadline, b.cpu.read_msr(0x6e0)), (1000, Ok(101_000)));
    assert_eq!(b.cpu.write_msr(0x3b, 0), Ok(()));
    assert_eq!(b.world.borrow().deadline, 101_000);
    assert_eq!(b.cpu.write_msr(0x6e0, 0), Ok(()));
    assert_eq!(b.world.borrow().deadline, 0);
}

#[test]
fn time_stamps() {
    let (b, stop) = run(
        Start::U64,
        |b| {
            b.world.borrow_mut().tsc = 0x1_2345_6789;
            b.cpu.msr.tsc_aux = 3;
        },
        |a| {
            ok(a.rdtscp());
            ok(a.int(0x80));
        },
    );
    assert_eq!((stop.as_str(), b.cpu.gpr(0), b.cpu.gpr(2), b.cpu.gpr(1)), ("#128", 0x2345_6789, 1, 3));
    assert_eq!(run(Start::U64, |b| b.cpu.cr4 |= cr4::TSD, |a| ok(a.rdtsc())).1, "#13(0x0)");
    assert_eq!(run(Start::L64, |b| b.cpu.cr4 |= cr4::TSD, |a| ok(a.rdtsc().and_then(|()| a.hlt()))).1, "hlt");
}

#[test]
fn cpuid_leaves() {
    let leaf = |n: u32, sub: u32| {
        let (b, _) = run(
            Start::L64,
            |_| (),
            |a| {
                ok(a.mov(eax, n));
                ok(a.mov(ecx, sub));
                ok(a.cpuid());
                ok(a.hlt());
            },
        );
        [b.cpu.gpr(0), b.cpu.gpr(3), b.cpu.gpr(1), b.cpu.gpr(2)].map(|v| v as u32)
    };
    let text = |words: [u32; 3]| words.into_iter().flat_map(u32::to_le_bytes).map(char::from).collect::<String>();
    let [max, b, c, d] = leaf(0, 0);
    assert_eq!((max, text([b, d, c])), (0x16, "GenuineIntel".to_owned()));
    let features = leaf(1, 0);
    assert_eq!(features[3] >> 25 & 3, 3, "SSE, SSE2");
    assert_eq!(features[2] & 1, 1, "SSE3");
    assert_eq!(features[3] & 1 << 9, 1 << 9, "the stub has an APIC");
    assert_eq!(leaf(0x15, 0), [1, 1, 1_000_000_000, 0]);
    assert_eq!(leaf(0x8000_0001, 0)[3] & (1 << 29 | 1 << 11), 1 << 29 | 1 << 11);
    assert_eq!(leaf(0x8000_0008, 0)[0], 48 << 8 | 40);
    let [max, b, c, d] = leaf(0x4000_0000, 0);
    assert_eq!((max, text([b, c, d])), (0x4000_0000, "EgretEgretEg".to_owned()));
    assert_eq!(leaf(0x7fff_ffff, 0), leaf(0x16, 0));
}

#[test]
fn fs_and_gs_bases() {
    let (b, stop) = run(
        Start::L64,
        |b| {
            b.cpu.cr4 |= cr4::FSGSBASE;
            b.cpu.msr.kernel_gs_base = 0x5000;
        },
        |a| {
            ok(a.mov(rax, 0x7000_0000_0000u64));
            ok(a.wrgsbase(rax));
            ok(a.swapgs());
            ok(a.rdgsbase(rcx));
            ok(a.mov(rax, 1u64 << 47));
            ok(a.wrfsbase(rax));
        },
    );
    assert_eq!((stop.as_str(), b.cpu.gpr(1), b.cpu.msr.kernel_gs_base), ("#13(0x0)", 0x5000, 0x7000_0000_0000));
    assert_eq!(run(Start::L64, |_| (), |a| ok(a.rdfsbase(rax))).1, "#6");
    assert_eq!(run(Start::U64, |_| (), |a| ok(a.swapgs())).1, "#13(0x0)");
}

#[test]
fn single_steps() {
    let (b, stop) = run(
        Start::L64,
        |b| b.cpu.set_rflags(rflags::TF | 2),
        |a| {
            ok(a.inc(eax));
            ok(a.inc(eax));
        },
    );
    assert_eq!((stop.as_str(), b.frame(0), b.cpu.gpr(0)), ("#1", CODE + 2, 1));
    assert_eq!(b.cpu.dr[6], 0xffff_4ff0);
    assert_eq!(b.frame(2) & rflags::TF, rflags::TF);
    assert!(!b.cpu.flag(rflags::TF));
    // A load of SS puts it off to after the next instruction.
    let (b, _) = run(
        Start::P32,
        |b| b.cpu.set_rflags(rflags::TF | 2),
        |a| {
            ok(a.mov(ss, esi));
            ok(a.inc(eax));
            ok(a.inc(eax));
        },
    );
    assert_eq!(b.vector(), Some(13), "ESI is null");
    let (b, stop) = run(
        Start::P32,
        |b| {
            b.cpu.set_rflags(rflags::TF | 2);
            b.cpu.state.gpr[6] = sel::DATA.into();
        },
        |a| {
            ok(a.mov(ss, esi));
            ok(a.inc(eax));
            ok(a.inc(eax));
        },
    );
    assert_eq!((stop.as_str(), b.frame(0)), ("#1", CODE + 3));
    // POPF sets TF: the trap comes after the instruction that follows.
    let (b, stop) = run(
        Start::L64,
        |_| (),
        |a| {
            ok(a.push(0x102));
            ok(a.popfq());
            ok(a.nop());
            ok(a.nop());
        },
    );
    assert_eq!((stop.as_str(), b.frame(0)), ("#1", CODE + 7));
    // INT clears TF before its handler runs.
    let (b, stop) = run(Start::L64, |b| b.cpu.set_rflags(rflags::TF | 2), |a| ok(a.int(0x80)));
    assert_eq!((stop.as_str(), b.frame(0)), ("#128", CODE + 2));
}

#[test]
fn breakpoints() {
    // Instruction.
    let (mut b, stop) = run(
        Start::L64,
        |b| {
            b.cpu.dr[0] = CODE + 2;
            b.cpu.dr[7] = 0x402;
            b.cpu.update_step_attention();
        },
        |a| {
            ok(a.inc(eax));
            ok(a.inc(eax));
            ok(a.ud2());
        },
    );
    assert_eq!((stop.as_str(), b.frame(0), b.cpu.dr[6] & 15), ("#1", CODE + 2, 1));
    assert_eq!(b.frame(2) & rflags::RF, 0);
    // With RF set by the handler IRET gets over it.
    let at = b.cpu.gpr(4) + 16;
    b.put(at, 8, 0x1_0002);
    b.bytes(HANDLERS + 16 + 1, &[0x48, 0xcf]);
    b.cpu.state.attention &= !egret_cpu::state::attention::HALTED;
    assert_eq!(b.run(), "#6");
    assert_eq!(b.cpu.gpr(0), 2);
    // Data: a trap after the write.
    let (b, stop) = run(
        Start::L64,
        |_| (),
        |a| {
            ok(a.mov(eax, DATA as u32 + 4));
            ok(a.mov(dr1, rax));
            ok(a.mov(eax, 0x00d0_0008u32));
            ok(a.mov(dr7, rax));
            ok(a.mov(ecx, dword_ptr(DATA)));
            ok(a.mov(dword_ptr(DATA + 7), ecx));
            ok(a.ud2());
        },
    );
    assert_eq!((stop.as_str(), b.cpu.dr[6] & 15), ("#1", 2));
    assert_eq!(b.get(b.frame(0), 2), 0x0b0f, "it points behind the write");
    // I/O, with CR4.DE.
    let (b, stop) = run(
        Start::L64,
        |b| {
            b.cpu.cr4 |= cr4::DE;
            b.cpu.dr[2] = 0x60;
            b.cpu.dr[7] = 0x0200_0420;
            b.cpu.update_step_attention();
        },
        |a| {
            ok(a.in_(al, 0x61));
            ok(a.in_(al, 0x60));
            ok(a.ud2());
        },
    );
    assert_eq!((stop.as_str(), b.frame(0), b.cpu.dr[6] & 15), ("#1", CODE + 4, 4));
}

#[test]
fn debug_registers() {
    // DR4 is DR6, unless CR4.DE.
    assert_eq!(run(Start::P32, |_| (), |a| ok(a.db(&[0x0f, 0x21, 0xe0, 0xf4]))).0.cpu.gpr(0), 0xffff_0ff0);
    assert_eq!(run(Start::P32, |b| b.cpu.cr4 |= cr4::DE, |a| ok(a.db(&[0x0f, 0x21, 0xe0, 0xf4]))).1, "#6");
    assert_eq!(run(Start::U32, |_| (), |a| ok(a.mov(eax, dr0))).1, "#13(0x0)");
    // General detect.
    let (b, stop) = run(Start::P32, |b| b.cpu.dr[7] |= 1 << 13, |a| ok(a.mov(eax, dr0)));
    assert_eq!((stop.as_str(), b.frame(0), b.cpu.dr[6], b.cpu.dr[7]), ("#1", CODE, 0xffff_2ff0, 0x400));
    // 64-bit writes to DR7 must have a clear upper half.
    assert_eq!(run(Start::L64, |b| b.cpu.state.gpr[0] = 1 << 32, |a| ok(a.mov(dr7, rax))).1, "#13(0x0)");
    // ICEBP goes through any gate and leaves DR6.
    let (b, stop) = run(Start::U32, |_| (), |a| ok(a.db(&[0xf1])));
    assert_eq!((stop.as_str(), b.frame(0), b.cpu.dr[6]), ("#1", CODE + 1, 0xffff_0ff0));
}

#[test]
fn supervisor_protection() {
    // SMAP: supervisor reads of user pages need AC; SMEP: fetches never work.
    let smap = |ac: bool| {
        run(
            Start::L64,
            |b| b.cpu.cr4 |= cr4::SMAP,
            move |a| {
                ok(if ac { a.stac() } else { a.nop() });
                ok(a.mov(eax, dword_ptr(DATA)));
                ok(a.hlt());
            },
        )
    };
    // Everything is user memory here, also tables and stacks: without AC nothing can be delivered.
    assert_eq!(smap(false).1, "shutdown");
    assert_eq!(smap(true).1, "hlt");
    assert_eq!(run(Start::U64, |_| (), |a| ok(a.stac())).1, "#6");
}

#[test]
fn invalidations() {
    // Page 200000h is remapped behind the TLB's back.
    let remap = |write: fn(Asm)| {
        run(
            Start::L64,
            |b| b.put(0x40_0000, 4, 0x22),
            move |a| {
                ok(a.mov(ebx, dword_ptr(0x20_0000)));
                ok(a.mov(eax, 0x40_0087));
                ok(a.mov(dword_ptr(TABLES + 0x2008), eax));
                write(a);
                ok(a.mov(ecx, dword_ptr(0x20_0000)));
                ok(a.hlt());
            },
        )
    };
    let (b, stop) = remap(|a| ok(a.invlpg(ptr(0x20_0000))));
    assert_eq!((stop.as_str(), b.cpu.gpr(1)), ("hlt", 0x22));
    let (b, _) = remap(|a| {
        ok(a.mov(rax, cr3));
        ok(a.mov(cr3, rax));
    });
    assert_eq!(b.cpu.gpr(1), 0x22);
    let (b, _) = remap(|a| {
        ok(a.mov(eax, 2));
        ok(a.invpcid(rax, xmmword_ptr(DATA)));
    });
    assert_eq!(b.cpu.gpr(1), 0x22);
    let (_, stop) = run(
        Start::L64,
        |_| (),
        |a| {
            ok(a.mov(eax, 4));
            ok(a.invpcid(rax, xmmword_ptr(DATA)));
        },
    );
    assert_eq!(stop, "#13(0x0)");
}

#[test]
fn alignment_checks() {
    let misaligned = |start: Start, flags: u64, offset: u64| {
        let prepare = move |b: &mut Bench| {
            b.cpu.cr0 |= cr0::AM;
            b.cpu.set_rflags(flags | 2);
            b.cpu.update_context();
        };
        let (_, stop) = run(start, prepare, move |a| {
            ok(a.mov(ecx, dword_ptr(DATA)));
            ok(a.mov(ecx, dword_ptr(DATA + offset)));
            ok(a.int(0x80));
        });
        stop
    };
    assert_eq!(misaligned(Start::U64, rflags::AC, 2), "#17(0x0)");
    assert_eq!(misaligned(Start::U64, rflags::AC, 4), "#128");
    assert_eq!(misaligned(Start::U64, 0, 2), "#128");
    assert_eq!(misaligned(Start::U32, rflags::AC, 1), "#17(0x0)");
    assert_eq!(misaligned(Start::L64, rflags::AC, 2), "#128");
}
