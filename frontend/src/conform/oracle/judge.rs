//! What the host did against what an engine did.

use super::encode::decoded;
use super::program::{End, Outcome, Program};
use super::rules::{condition_one, flags, undefined_result};
use super::slot::{HIGH_SP, PAGE, PAGES, WINDOW};
use crate::conform::regs::flag_name;
use egret_isa::insn::Mode;
use iced_x86::{FlowControl, Instruction, Mnemonic as M, Register};

/// Flags that are compared; RF belongs to the saved image of a fault only.
const FLAGS: u64 = 0x24_4fd5;
/// Where memory of Linux begins: it hides which of its own pages are present. The last page below the hole is one of them.
const LINUX: u64 = 0x7fff_ffff_f000;
/// Where the bench of 16- and 32-bit programs has its GDT and IDT, for the supervisor only.
const TABLES: std::ops::Range<u64> = 0xb7ff_e000..0xb800_0000;
/// Exceptions with an error code.
const WITH_ERROR: [u8; 7] = [8, 10, 11, 12, 13, 14, 17];

/// What of a program's outcome is defined.
#[derive(Clone, Copy, Debug)]
pub struct Defined {
    /// Bits of RFLAGS.
    pub flags: u64,
    /// Whether results are defined at all.
    pub results: bool,
    /// Bits of the x87 status word.
    pub status: u16,
    /// General registers.
    pub gpr: bool,
    /// Tags and TOP of the x87.
    pub stack: bool,
}

/// What is defined after `program`, which ended at `rip`.
#[must_use]
pub fn defined(program: &Program, rip: u64) -> Defined {
    let (mut undefined, mut ever, mut branches, mut results) = (0, 0, false, true);
    let (mut status, mut gpr, mut stack) = (0xffff, true, true);
    let mut here = program.regs.rip;
    for (n, bytes) in program.insns.iter().enumerate() {
        let insn = decoded(bytes, program.mode);
        let cl = (n == 0).then_some(program.regs.gpr[1] as u8);
        let f = flags(&insn, cl);
        // An instruction that faults may have written flags or not.
        undefined = if here == rip { undefined } else { undefined & !f.writes } | f.undefined;
        ever |= undefined;
        if condition_one(&insn).0 {
            status &= !0x200;
        }
        // What POPA has popped before it faults stays popped on AMD.
        // An MMX instruction that faults: Zen 4 may have left x87 mode by then.
        stack &= here != rip
            || !matches!(
                insn.mnemonic(),
                M::Maskmovq | M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi | M::Cvtpi2ps | M::Cvtpi2pd
            );
        gpr &= here != rip || !matches!(insn.mnemonic(), M::Popa | M::Popad);
        branches |= !matches!(insn.flow_control(), FlowControl::Next | FlowControl::Interrupt);
        results &= !undefined_result(&insn, cl);
        if here == rip {
            break;
        }
        here = here.wrapping_add(bytes.len() as u64);
    }
    Defined { flags: FLAGS & !u64::from(if branches { ever } else { undefined }), results, status, gpr, stack }
}

/// Whether the outcomes are the same where defined.
#[must_use]
pub fn same(program: &Program, host: &Outcome, got: &Outcome) -> bool {
    let defined = defined(program, host.regs.rip);
    if !defined.results {
        return true;
    }
    let mut same = true;
    each(program, host, got, defined, &mut |_, _, _| same = false);
    same
}

/// The differences, one a line.
#[must_use]
pub fn differences(program: &Program, host: &Outcome, got: &Outcome) -> Vec<String> {
    let mut list = Vec::new();
    each(program, host, got, defined(program, host.regs.rip), &mut |what, host, got| list.push(format!("{what}: host {host} got {got}")));
    list
}

fn end_text(end: End) -> String {
    match end {
        End::Fault(vector, error, cr2) => format!("exception {vector} error {error:#x} cr2 {cr2:#x}"),
        End::Runaway => "no end".into(),
        End::Nothing => "nothing".into(),
    }
}

fn same_end(host: End, got: End) -> bool {
    match (host, got) {
        (End::Fault(v, e, a), End::Fault(v2, e2, a2)) => {
            // Linux hides which of its own pages are present; on the engines the tables of the bench are, which no program has.
            let hidden = if v == 14 && (a >= LINUX || TABLES.contains(&a)) { 1 } else { 0 };
            v == v2 && a == a2 && (!WITH_ERROR.contains(&v) || (e ^ e2) & !hidden == 0)
        }
        (a, b) => a == b,
    }
}

/// The instruction at which a program ended.
fn last(program: &Program, outcome: &Outcome) -> Option<Instruction> {
    let last = outcome.regs.rip.wrapping_sub(program.regs.rip);
    let mut at = 0;
    let found = program.insns.iter().find(|bytes| {
        let here = at == last;
        at += bytes.len() as u64;
        here
    })?;
    Some(decoded(found, program.mode))
}

/// The mnemonic of the instruction at which a program ended.
fn at_end(program: &Program, outcome: &Outcome) -> Option<M> {
    last(program, outcome).map(|insn| insn.mnemonic())
}

/// AMD's bit of MXCSR that allows misaligned operands of SSE instructions. Intel's do not have it.
const MISALIGNED: u32 = 1 << 17;

/// Whether the host may have loaded [`MISALIGNED`]: it is there, or an engine refused to load it.
fn relaxed(program: &Program, host: &Outcome, got: &Outcome) -> bool {
    host.regs.mxcsr & MISALIGNED != 0
        || got.end == End::Fault(13, 0, 0) && mxcsr_to_load(program, got).is_some_and(|v| v & !0xffff == MISALIGNED)
}

/// What the instruction that an engine ended at would have loaded into MXCSR.
fn mxcsr_to_load(program: &Program, got: &Outcome) -> Option<u32> {
    let insn = last(program, got)?;
    let offset = match insn.mnemonic() {
        M::Ldmxcsr | M::Vldmxcsr => 0,
        M::Fxrstor | M::Fxrstor64 => 24,
        _ => return None,
    };
    let at = address(program, got, &insn)?;
    let byte = |n: u64| {
        let at = at.wrapping_add(offset + n).wrapping_sub(WINDOW);
        let page = PAGES.iter().position(|p| p.0 == at & !(PAGE - 1))?;
        got.memory[page].get((at % PAGE) as usize).copied()
    };
    Some(u32::from_le_bytes([byte(0)?, byte(1)?, byte(2)?, byte(3)?]))
}

/// The linear address of the memory operand of the instruction that is next in a state.
#[must_use]
pub fn address(program: &Program, state: &Outcome, insn: &Instruction) -> Option<u64> {
    let base = |n: usize| match program.mode {
        Mode::M64 if n < 4 => 0,
        Mode::M64 => state.regs.base[n],
        _ => super::program::base(state.regs.sel[n]),
    };
    let at = insn.virtual_address(0, 0, |register, _, _| {
        if register.is_segment_register() {
            return Some(base(register as usize - Register::ES as usize));
        }
        let value = state.regs.gpr.get((register.full_register() as usize).wrapping_sub(Register::RAX as usize))?;
        Some(value & (u64::MAX >> (64 - 8 * register.size().clamp(1, 8))))
    })?;
    let start = program.at.wrapping_add(state.regs.rip).wrapping_sub(program.regs.rip);
    Some(if insn.is_ip_rel_memory_operand() { at.wrapping_add(start) } else { at })
}

/// Whether an instruction that faults on both sides may do so in either way.
fn either_end(last: M, host: End, got: End) -> bool {
    let (End::Fault(host, _, at), End::Fault(got, error, other)) = (host, got) else { return false };
    let iret = matches!(last, M::Iret | M::Iretd | M::Iretq);
    match (host, got) {
        // Which of its selectors IRET names: Zen 4 says 0.
        (13, 13) => iret,
        // Zen 4 pushes before it looks at a near target, and with a selector of an inner level pops all of the frame before it looks
        // at descriptors; the manual has it the other way round.
        // Of a misaligned image it may be either.
        (17, 13) if matches!(last, M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64) => true,
        (12 | 14 | 17, 13) => iret || matches!(last, M::Retf | M::Call),
        // Which part of its frame IRET looks at first is nowhere said.
        (14, 14) => iret && at.abs_diff(other) < 5 * 8,
        // Bytes behind its opcode need not be there: the manual gives UD1 ModRM, and lets processors not look at it.
        (6, 14) => last == M::Ud1 && error & 0x10 != 0,
        _ => false,
    }
}

/// Whether 64-bit code calls a far procedure with more than 32 bits in RSP: the manual does not say where it pushes if that is in
/// compatibility mode.
fn calls_with_high_stack(program: &Program) -> bool {
    let stack = program.regs.gpr[4];
    program.mode == Mode::M64
        && (stack >> 32 != 0 || stack < 16)
        && program.insns.iter().any(|b| decoded(b, program.mode).is_call_far_indirect())
}

/// Whether 16- or 32-bit code got to the host's 64-bit code segment, which the engines' other modes do not have.
fn left_mode(program: &Program, outcome: &Outcome) -> bool {
    program.mode != Mode::M64 && outcome.regs.sel[1] | 3 == 0x33
}

fn each(program: &Program, host: &Outcome, got: &Outcome, defined: Defined, tell: &mut dyn FnMut(&str, String, String)) {
    // The host's process has a page of its own there.
    let own_page = matches!(got.end, End::Fault(14, _, at) if at & !(PAGE - 1) == HIGH_SP << 16);
    if calls_with_high_stack(program) || own_page || relaxed(program, host, got) || left_mode(program, host) || left_mode(program, got) {
        return;
    }
    let end_is_open = at_end(program, host).is_some_and(|last| either_end(last, host.end, got.end));
    if !end_is_open && !same_end(host.end, got.end) {
        tell("end", end_text(host.end), end_text(got.end));
    }
    let (h, g) = (&host.regs, &got.regs);
    let mut check = |what: &dyn Fn() -> String, a: u64, b: u64, mask: u64| {
        if (a ^ b) & mask != 0 {
            tell(&what(), format!("{:#x}", a & mask), format!("{:#x}", b & mask));
        }
    };
    let long = program.mode == Mode::M64;
    let count = if long { 16 } else { 8 };
    let width = if long && h.sel[1] == program.regs.sel[1] { u64::MAX } else { 0xffff_ffff };
    check(&|| "rip".into(), h.rip, g.rip, u64::MAX);
    let changed = (h.rflags ^ g.rflags) & defined.flags;
    let names = || (0..32).filter(|b| changed >> b & 1 == 1).map(flag_name).collect::<Vec<_>>().join(" ");
    check(&|| format!("rflags ({})", names()), h.rflags, g.rflags, defined.flags);
    for n in 0..if defined.gpr { count } else { 0 } {
        check(&|| format!("gpr{n}"), h.gpr[n], g.gpr[n], width);
    }
    for n in 0..6 {
        // The RPL of a null selector does not survive the kernel.
        let null = h.sel[n] < 4 && g.sel[n] < 4;
        check(&|| format!("selector {n}"), h.sel[n].into(), g.sel[n].into(), if null { 0 } else { 0xffff });
        if long && n >= 4 && h.sel[n] == program.regs.sel[n] {
            check(&|| format!("base {n}"), h.base[n], g.base[n], u64::MAX);
        }
    }
    for n in 0..count {
        for q in 0..4 {
            check(&|| format!("ymm{n}.{q}"), h.vec[n][q], g.vec[n][q], u64::MAX);
        }
    }
    check(&|| "mxcsr".into(), h.mxcsr.into(), g.mxcsr.into(), 0xffff_ffff);
    check(&|| "fcw".into(), h.fcw.into(), g.fcw.into(), 0xffff);
    check(&|| "fsw".into(), h.fsw.into(), g.fsw.into(), u64::from(defined.status) & if defined.stack { 0xffff } else { 0xc7ff });
    check(&|| "ftw".into(), h.x87_used.into(), g.x87_used.into(), if defined.stack { 0xff } else { 0 });
    for n in 0..8 {
        check(&|| format!("R{n} significand"), h.x87[n].0, g.x87[n].0, u64::MAX);
        check(&|| format!("R{n} exponent"), h.x87[n].1.into(), g.x87[n].1.into(), 0xffff);
    }
    memory(program, host, got, tell);
}

fn memory(program: &Program, host: &Outcome, got: &Outcome, tell: &mut dyn FnMut(&str, String, String)) {
    if host.memory == got.memory {
        return;
    }
    let image = program.insns.iter().any(|b| matches!(decoded(b, program.mode).mnemonic(), M::Fxsave | M::Fxsave64));
    // What PUSHA has pushed before it faults is there on AMD.
    let stack =
        super::program::base(host.regs.sel[2]).wrapping_add(host.regs.gpr[4] & if program.mode == Mode::M16 { 0xffff } else { u64::MAX });
    let pushed = if matches!(at_end(program, host), Some(M::Pusha | M::Pushad)) { 32 } else { 0 };
    for (n, (offset, _)) in PAGES.iter().enumerate() {
        let (a, b) = (&host.memory[n], &got.memory[n]);
        let at = |i: usize| a.get(i).copied().unwrap_or(0);
        for i in (0..a.len()).filter(|i| a[*i] != b[*i]) {
            // MXCSR_MASK of an AMD host has bit 17, misaligned SSE.
            let mask = image && (at(i), b[i]) == (2, 0) && i >= 2 && (at(i - 1), at(i - 2)) == (0xff, 0xff);
            let at_linear = WINDOW + offset + i as u64;
            if !mask && stack.wrapping_sub(at_linear).wrapping_sub(1) >= pushed {
                tell(&format!("[{at_linear:#x}]"), format!("{:#04x}", a[i]), format!("{:#04x}", b[i]));
            }
        }
    }
}
