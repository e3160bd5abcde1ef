//! Code that changes, moves, or is watched while it is compiled: the same results in the interpreter, in a JIT that compiles
//! everything before it runs, and in one that compiles in the background.

#[path = "../../emulator/cpu/tests/harness/mod.rs"]
mod harness;

use egret_bus::Phys;
use egret_cpu::{Engine, Exit, Interp, SegReg, System};
use egret_jit::{JitEngine, Options};
use harness::*;
use iced_x86::code_asm::*;

const BUDGET: i64 = 5_000_000;
const DEBUG: u64 = HANDLERS + 16;
/// A 2 MiB page that shows something else than itself.
const ALIAS: u64 = 8 << 20;

fn eager() -> Box<dyn Engine> {
    Box::new(JitEngine::foreground().expect("a compiler for this host"))
}

fn background() -> Box<dyn Engine> {
    Box::new(JitEngine::with(Options { threshold: 2, ..Options::default() }).expect("a compiler for this host"))
}

/// Makes an engine.
type Make = fn() -> Box<dyn Engine>;

const ENGINES: [(&str, Make); 3] = [("interp", || Box::<Interp>::default()), ("eager", eager), ("background", background)];

fn counter(engine: &dyn Engine, name: &str) -> u64 {
    engine.stats().iter().find(|(n, _)| *n == name).map_or(0, |(_, value)| *value)
}

/// Runs `setup`'s program on every engine to its HLT; RBX and R15 must be as said.
fn check(setup: impl Fn(&mut Bench), rbx_wanted: u64, r15_wanted: u64) {
    for (name, make) in ENGINES {
        let mut bench = Bench::new(Start::L64);
        // #DB: count in R15; RF, so that an instruction breakpoint lets its instruction by.
        bench.bytes(DEBUG, &[0x49, 0xff, 0xc7, 0x80, 0x4c, 0x24, 0x12, 0x01, 0x48, 0xcf]);
        setup(&mut bench);
        let mut engine = make();
        bench.cpu.state.budget = BUDGET;
        let exit = engine.run(&mut bench.cpu);
        assert_eq!(exit, Exit::Halt, "{name}: at {:#x}", bench.cpu.state.rip);
        assert_eq!(bench.vector(), None, "{name}: halted in a handler");
        assert_eq!((bench.cpu.gpr(3), bench.cpu.gpr(15)), (rbx_wanted, r15_wanted), "{name}: RBX, R15");
        if name == "eager" {
            assert!(counter(&*engine, "jit.instructions") > 100, "{name} ran compiled code: {:?}", engine.stats());
        }
    }
}

const ROUNDS: u32 = 500;

/// The loop's first instruction is MOV EAX, imm32, at the loop's start; EBX adds up EAX.
fn adding_loop(a: &mut CodeAssembler, imm: u32, rounds: u32, more: impl FnOnce(&mut CodeAssembler)) {
    let mut again = a.create_label();
    a.mov(ecx, rounds).unwrap();
    a.set_label(&mut again).unwrap();
    a.mov(eax, imm).unwrap();
    a.add(ebx, eax).unwrap();
    more(a);
    a.dec(ecx).unwrap();
    a.jnz(again).unwrap();
}

/// Bytes before the immediate: MOV ECX, imm32 and the opcode of MOV EAX.
const IMMEDIATE: u64 = 5 + 1;

#[test]
fn code_that_changes_itself() {
    let sum = u64::from(ROUNDS * (ROUNDS - 1) / 2);
    check(
        |b| {
            b.asm(|a| {
                adding_loop(a, 0, ROUNDS, |a| a.inc(dword_ptr(CODE + IMMEDIATE)).unwrap());
                a.hlt().unwrap();
            });
        },
        sum,
        0,
    );
    // The change is to the instruction right behind the one that makes it.
    check(
        |b| {
            b.asm(|a| {
                let mut again = a.create_label();
                a.mov(ecx, ROUNDS).unwrap();
                a.set_label(&mut again).unwrap();
                a.inc(dword_ptr(CODE + 5 + 7 + 2)).unwrap();
                a.add(ebx, 0x0100_0000).unwrap();
                a.dec(ecx).unwrap();
                a.jnz(again).unwrap();
                a.and(ebx, 0xff_ffff).unwrap();
                a.hlt().unwrap();
            });
        },
        u64::from(ROUNDS * (ROUNDS + 1) / 2) & 0xff_ffff,
        0,
    );
}

#[test]
fn instructions_across_pages() {
    // The immediate begins in the next page, which changes between two loops.
    let at = CODE + 0x1000 - IMMEDIATE;
    check(
        |b| {
            b.cpu.state.rip = at;
            b.asm_at(at, 64, |a| {
                adding_loop(a, 3, ROUNDS, |_| {});
                a.cmp(dword_ptr(CODE + 0x1000), 3).unwrap();
                a.mov(dword_ptr(CODE + 0x1000), 4).unwrap();
                let mut done = a.create_label();
                a.jne(done).unwrap();
                a.mov(rax, at).unwrap();
                a.jmp(rax).unwrap();
                a.set_label(&mut done).unwrap();
                a.hlt().unwrap();
            });
        },
        u64::from(ROUNDS * 3 + ROUNDS * 4),
        0,
    );
}

#[test]
fn instructions_into_a_page_that_moves() {
    // The page with the immediate is now this one, now another one, which differ in that byte alone.
    const OTHER: u64 = ALIAS + (2 << 20);
    const TIMES: u32 = 6;
    let at = ALIAS - IMMEDIATE;
    let entry = TABLES + 0x2000 + 8 * (ALIAS >> 21);
    check(
        |b| {
            b.cpu.state.rip = at;
            b.asm_at(at, 64, |a| {
                adding_loop(a, 3, ROUNDS, |_| {});
                a.xor(dword_ptr(entry), (OTHER ^ ALIAS) as u32).unwrap();
                a.invlpg(ptr(ALIAS)).unwrap();
                let mut done = a.create_label();
                a.inc(r14d).unwrap();
                a.cmp(r14d, TIMES).unwrap();
                a.je(done).unwrap();
                a.mov(rax, at).unwrap();
                a.jmp(rax).unwrap();
                a.set_label(&mut done).unwrap();
                a.hlt().unwrap();
            });
            for n in 0..16 {
                let v = b.get(ALIAS + 8 * n, 8);
                b.put(OTHER + 8 * n, 8, v);
            }
            assert_eq!(b.get(OTHER, 4), 3);
            b.put(OTHER, 4, 4);
        },
        u64::from(ROUNDS * (3 + 4) * TIMES / 2),
        0,
    );
}

/// What reaches into the next page is compiled like everything else.
#[test]
fn instructions_across_pages_stay_in_compiled_code() {
    let mut bench = Bench::new(Start::L64);
    let at = CODE + 0x1000 - IMMEDIATE;
    bench.cpu.state.rip = at;
    bench.asm_at(at, 64, |a| {
        adding_loop(a, 3, 100_000, |_| {});
        a.hlt().unwrap();
    });
    let mut engine = eager();
    bench.cpu.state.budget = BUDGET;
    assert_eq!(engine.run(&mut bench.cpu), Exit::Halt);
    assert_eq!(bench.cpu.gpr(3), 300_000);
    let (compiled, left) = (counter(&*engine, "jit.instructions"), counter(&*engine, "jit.enters"));
    assert!(compiled > 390_000 && left < 100, "{:?}", engine.stats());
}

#[test]
fn one_page_at_two_addresses() {
    // The loop runs at one address and is changed through the other, then runs at the other.
    check(
        |b| {
            b.put(TABLES + 0x2000 + 8 * (ALIAS >> 21), 8, 0x87);
            b.cpu.flush_tlb();
            b.asm(|a| {
                adding_loop(a, 1, ROUNDS, |_| {});
                a.cmp(r14d, 2).unwrap();
                let mut done = a.create_label();
                a.je(done).unwrap();
                a.inc(r14d).unwrap();
                a.add(dword_ptr(ALIAS + CODE + IMMEDIATE), 1).unwrap();
                // Where it runs, by its own account.
                let mut here = a.create_label();
                a.lea(rax, ptr(here)).unwrap();
                a.set_label(&mut here).unwrap();
                a.shr(rax, 23).unwrap();
                a.add(r15, rax).unwrap();
                a.mov(rax, ALIAS + CODE).unwrap();
                a.jmp(rax).unwrap();
                a.set_label(&mut done).unwrap();
                a.hlt().unwrap();
            });
        },
        u64::from(ROUNDS * (1 + 2 + 3)),
        1,
    );
}

/// The stack's page leads elsewhere in every other round, and back.
#[test]
fn a_stack_that_moves() {
    const TABLE: u64 = 0x7_0000;
    const TOP: u64 = STACK - 0x108;
    const PTE: u64 = TABLE + 8 * (TOP >> 12);
    check(
        |b| {
            b.put(TABLES + 0x2000 + 8 * (ALIAS >> 21), 8, TABLE | 7);
            b.put(PTE, 8, TOP & !0xfff | 7);
            b.cpu.flush_tlb();
            b.asm(|a| {
                let (mut again, mut twice) = (a.create_label(), a.create_label());
                a.mov(rsp, ALIAS + TOP + 8).unwrap();
                a.mov(ecx, ROUNDS).unwrap();
                a.set_label(&mut again).unwrap();
                // The first one has to look for the page, the second knows it.
                a.mov(edx, 2).unwrap();
                a.set_label(&mut twice).unwrap();
                a.push(rcx).unwrap();
                a.pop(rax).unwrap();
                a.dec(edx).unwrap();
                a.jnz(twice).unwrap();
                a.add(rbx, qword_ptr(TOP)).unwrap();
                a.sub(rax, rcx).unwrap();
                a.add(r15, rax).unwrap();
                a.xor(qword_ptr(PTE), 1 << 21).unwrap();
                a.invlpg(ptr(ALIAS + TOP)).unwrap();
                a.dec(ecx).unwrap();
                a.jnz(again).unwrap();
                a.hlt().unwrap();
            });
        },
        u64::from((1..=ROUNDS).filter(|n| n % 2 == 0).sum::<u32>() * 2),
        0,
    );
}

/// A device with code in its registers: ADD EBX, imm8; RET.
struct Rom(u8);

const DEVICE: u64 = 0xfe00_0000;

impl System for Rom {
    fn port_read(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn port_write(&mut self, _port: u16, _size: u8, value: u32) {
        self.0 = value as u8;
    }
    fn mmio_read(&mut self, addr: Phys, size: u8) -> u64 {
        let code = u64::from_le_bytes([0x83, 0xc3, self.0, 0xc3, 0xf4, 0xf4, 0xf4, 0xf4]);
        let rest = (0..size).map(|n| code >> (8 * ((addr.0 + u64::from(n)) % 8)) & 0xff);
        rest.rev().fold(0, |all, byte| all << 8 | byte)
    }
    fn mmio_write(&mut self, _addr: Phys, _size: u8, _value: u64) {}
    fn interrupt_pending(&mut self) -> bool {
        false
    }
    fn acknowledge(&mut self) -> Option<u8> {
        None
    }
    fn tsc(&mut self) -> u64 {
        0
    }
}

/// The jump that mostly stays in its page goes to an address that is not canonical: #GP there, with the flags of before.
#[test]
fn a_computed_jump_to_nowhere() {
    for (name, make) in ENGINES {
        let mut bench = Bench::new(Start::L64);
        let mut jump = 0;
        bench.asm(|a| {
            let [mut again, mut even, mut go, mut odd, mut on] = std::array::from_fn(|_| a.create_label());
            a.mov(ecx, ROUNDS).unwrap();
            a.set_label(&mut again).unwrap();
            a.lea(rax, ptr(odd)).unwrap();
            a.test(ecx, 1).unwrap();
            a.jne(go).unwrap();
            a.lea(rax, ptr(even)).unwrap();
            a.set_label(&mut go).unwrap();
            a.jmp(rax).unwrap();
            a.set_label(&mut odd).unwrap();
            a.add(ebx, 1).unwrap();
            a.jmp(on).unwrap();
            a.set_label(&mut even).unwrap();
            a.add(ebx, 16).unwrap();
            a.set_label(&mut on).unwrap();
            a.dec(ecx).unwrap();
            a.jne(again).unwrap();
            a.mov(rax, 1u64 << 47).unwrap();
            a.cmp(ecx, 1).unwrap();
            a.jmp(go).unwrap();
            let code = a.assemble(CODE).unwrap();
            jump = CODE + code.windows(2).position(|w| w == [0xff, 0xe0]).unwrap() as u64;
        });
        let mut engine = make();
        bench.cpu.state.budget = BUDGET;
        engine.run(&mut bench.cpu);
        assert_eq!(bench.vector(), Some(13), "{name}");
        assert_eq!((bench.frame(0), bench.frame(1)), (0, jump), "{name}: error code, RIP");
        // CMP of 0 and 1.
        assert_eq!(bench.frame(3) & 0x8d5, 0x95, "{name}: flags");
        assert_eq!(bench.cpu.gpr(3), u64::from(ROUNDS) / 2 * 17, "{name}");
        assert!(name != "eager" || counter(&*engine, "jit.instructions") > 100, "{:?}", engine.stats());
    }
}

/// CS's limit lies in the page, below where a computed jump of compiled code goes: #GP at the jump.
#[test]
fn a_computed_jump_beyond_the_limit() {
    const BEYOND: u64 = CODE + 0x800;
    for (name, make) in ENGINES {
        let mut bench = Bench::new(Start::P32);
        let limit = |bench: &mut Bench, limit: u64| {
            let code = &mut bench.cpu.state.seg[1];
            *code = SegReg::new(code.selector, code.base, limit as u32, code.attr);
            bench.cpu.update_context();
            bench.cpu.state.rip = CODE;
            bench.cpu.state.budget = 100_000;
        };
        // mov ecx, ROUNDS; mov eax, BEYOND; jmp eax; and there: dec ecx; jne to the second; jmp to itself.
        bench.bytes(CODE, &[&[0xb9][..], &ROUNDS.to_le_bytes(), &[0xb8], &(BEYOND as u32).to_le_bytes(), &[0xff, 0xe0]].concat());
        let back = (CODE + 5).wrapping_sub(BEYOND + 7) as u32;
        bench.bytes(BEYOND, &[&[0x49, 0x0f, 0x85][..], &back.to_le_bytes(), &[0xeb, 0xfe]].concat());
        let mut engine = make();
        limit(&mut bench, BEYOND + 0xff);
        assert_eq!(engine.run(&mut bench.cpu), Exit::Budget, "{name}");
        assert_eq!((bench.vector(), bench.cpu.gpr(1)), (None, 0), "{name}");
        limit(&mut bench, BEYOND - 1);
        engine.run(&mut bench.cpu);
        assert_eq!(bench.vector(), Some(13), "{name}");
        assert_eq!(bench.frame(1), CODE + 10, "{name}: EIP, the jump's");
        assert!(name != "eager" || counter(&*engine, "jit.instructions") > 100, "{:?}", engine.stats());
    }
}

#[test]
fn code_in_a_device() {
    // The device's code changes without any write to memory.
    check(
        |b| {
            b.cpu.system = Box::new(Rom(1));
            b.put(TABLES + 0x2000 + 8 * (ALIAS >> 21), 8, DEVICE | 0x87);
            b.cpu.flush_tlb();
            b.asm(|a| {
                a.mov(rsi, ALIAS).unwrap();
                for value in [1, 2, 5] {
                    let mut again = a.create_label();
                    a.mov(eax, value).unwrap();
                    a.out(0x10, al).unwrap();
                    a.mov(ecx, ROUNDS).unwrap();
                    a.set_label(&mut again).unwrap();
                    a.call(rsi).unwrap();
                    a.dec(ecx).unwrap();
                    a.jnz(again).unwrap();
                }
                a.hlt().unwrap();
            });
        },
        u64::from(ROUNDS * 8),
        0,
    );
}

#[test]
fn single_steps_in_a_compiled_loop() {
    // The loop is compiled, then the same loop is stepped through: four instructions a round, MOV ECX and the branch back.
    let steps = 40;
    check(
        |b| {
            b.asm(|a| {
                let mut start = a.create_label();
                let mut done = a.create_label();
                a.mov(r13d, ROUNDS).unwrap();
                a.set_label(&mut start).unwrap();
                a.add(ebx, 1).unwrap();
                a.lea(rdx, ptr(rdx + 3)).unwrap();
                a.dec(r13d).unwrap();
                a.jnz(start).unwrap();
                a.inc(r14d).unwrap();
                a.cmp(r14d, 2).unwrap();
                a.je(done).unwrap();
                a.mov(r13d, steps / 4).unwrap();
                a.pushfq().unwrap();
                a.or(dword_ptr(rsp), 0x100).unwrap();
                a.popfq().unwrap();
                a.jmp(start).unwrap();
                a.set_label(&mut done).unwrap();
                a.pushfq().unwrap();
                a.and(dword_ptr(rsp), !0x100).unwrap();
                a.popfq().unwrap();
                a.hlt().unwrap();
            });
        },
        u64::from(ROUNDS + steps / 4),
        // JMP, the rounds, INC, CMP, JE, PUSHFQ, AND and POPFQ, which is still stepped.
        u64::from(1 + steps + 6),
    );
}

/// Where a loop is whose instructions' addresses matter.
const LOOP: u64 = CODE + 0x100;

#[test]
fn breakpoints_in_a_compiled_loop() {
    // An instruction breakpoint in the middle of the loop, then one on the data it writes, set when it is hot. Each hit counts.
    const EXECUTE: u64 = 0x401;
    const WRITE_DWORD: u64 = 0x401 | 1 << 16 | 3 << 18;
    for (control, address) in [(EXECUTE, LOOP + 1), (WRITE_DWORD, DATA)] {
        check(
            |b| {
                b.cpu.state.gpr[12] = address;
                b.cpu.state.gpr[11] = control;
                b.asm(|a| {
                    a.mov(rdi, DATA).unwrap();
                    a.mov(r13d, ROUNDS).unwrap();
                    a.mov(rax, LOOP).unwrap();
                    a.jmp(rax).unwrap();
                });
                b.asm_at(LOOP, 64, |a| {
                    let mut again = a.create_label();
                    let mut done = a.create_label();
                    a.set_label(&mut again).unwrap();
                    a.nop().unwrap();
                    a.add(dword_ptr(rdi), 1).unwrap();
                    a.add(ebx, 1).unwrap();
                    a.dec(r13d).unwrap();
                    a.jnz(again).unwrap();
                    a.inc(r14d).unwrap();
                    a.cmp(r14d, 2).unwrap();
                    a.je(done).unwrap();
                    a.mov(r13d, 10).unwrap();
                    a.mov(dr0, r12).unwrap();
                    a.mov(dr7, r11).unwrap();
                    a.jmp(again).unwrap();
                    a.set_label(&mut done).unwrap();
                    a.hlt().unwrap();
                });
            },
            u64::from(ROUNDS + 10),
            10,
        );
    }
}

/// The guest does not wait for the compiler: compiled code joins in while a loop runs, which is never left.
#[test]
fn background_compilation() {
    let mut bench = Bench::new(Start::L64);
    bench.asm(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.inc(rbx).unwrap();
        a.jmp(again).unwrap();
    });
    let mut engine = background();
    let (mut instructions, mut rounds) = (0, 0);
    while counter(&*engine, "jit.instructions") == 0 {
        bench.cpu.state.budget = 10_000;
        assert_eq!(engine.run(&mut bench.cpu), Exit::Budget);
        instructions += 10_000 - bench.cpu.state.budget;
        rounds += 1;
        assert!(rounds < 1_000_000, "nothing was compiled: {:?}", engine.stats());
        std::thread::yield_now();
    }
    let counted = bench.cpu.gpr(3) * 2 + u64::from(bench.cpu.state.rip != CODE);
    assert_eq!(counted, instructions as u64, "every instruction ran once");
}

/// While code is compiled, run and dropped, no mapping is writable and executable; some are executable.
#[cfg(target_os = "linux")]
#[test]
fn no_page_is_writable_and_executable() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = AtomicBool::new(false);
    let maps = || std::fs::read_to_string("/proc/self/maps").expect("the process map");
    let executable = |text: &str| text.lines().filter(|l| l.split(' ').nth(1).is_some_and(|p| p.contains('x'))).count();
    let before = executable(&maps());
    /// Ends the looking, also in a panic.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let guard = Stop(&stop);
        let looks = scope.spawn(|| {
            let (mut looks, mut most) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let text = maps();
                let both = text.lines().find(|l| l.split(' ').nth(1).is_some_and(|p| p.contains('w') && p.contains('x')));
                assert_eq!(both, None, "after {looks} looks");
                most = most.max(executable(&text));
                looks += 1;
            }
            (looks, most)
        });
        // Small code memory, so that it is evicted, too.
        for options in [
            Options { threshold: 1, code_memory: 256 << 10, ..Options::default() },
            Options { threshold: 1, foreground: true, code_memory: 256 << 10, ..Options::default() },
        ] {
            let mut bench = Bench::new(Start::L64);
            bench.asm(|a| {
                let mut again = a.create_label();
                a.mov(ecx, 60u32).unwrap();
                a.set_label(&mut again).unwrap();
                for _ in 0..10 {
                    a.add(rbx, rax).unwrap();
                    a.xor(rax, rbx).unwrap();
                    a.mov(qword_ptr(DATA), rax).unwrap();
                }
                a.inc(dword_ptr(CODE + 1)).unwrap();
                a.dec(ecx).unwrap();
                a.jnz(again).unwrap();
                a.hlt().unwrap();
            });
            let foreground = options.foreground;
            let mut engine = JitEngine::with(options).expect("a compiler for this host");
            bench.cpu.state.budget = BUDGET;
            assert_eq!(Engine::run(&mut engine, &mut bench.cpu), Exit::Halt);
            assert!(!foreground || engine.counters().regions > 0);
        }
        drop(guard);
        let (looks, most) = looks.join().expect("the map stays clean");
        assert!(looks > 2 && most > before, "{looks} looks, {most} executable mappings, {before} before");
    });
}
