//! One stack frame for all regions, and a way in for each entry (x86-64 hosts).
//!
//! Cranelift gives every function a frame of its own: a region would save the host's registers and make room on the stack each time
//! another one goes over to it, and undo that before it goes on; then it would choose among its entries. All of that can be left
//! out when the frame is made once, by [`ENTER`], and whoever calls that expects no register to be kept: then regions begin behind
//! their prologue, or at the entry itself, and end in front of their epilogue. Returns stay as they are, for they find the way back
//! by the frame pointer.
//!
//! [`share`] changes the code of one region so. It knows exactly how Cranelift begins and ends functions; what looks different is
//! refused. Hosts without this use the code as Cranelift makes it, which does the same.

use crate::vm::Entry;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Whether this host's code is changed so.
pub const POSSIBLE: bool = cfg!(target_arch = "x86_64");

/// Bytes of the frame, a multiple of 16: less than a page, so that no guard page is stepped over.
pub const FRAME: u32 = 4080;

/// Makes the frame and goes to the third argument: `push rbp; mov rbp, rsp; sub rsp, FRAME; jmp rdx`.
pub const ENTER: [u8; 13] = {
    let [a, b, c, d] = FRAME.to_le_bytes();
    [0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec, a, b, c, d, 0xff, 0xe2]
};

/// What begins every function: `push rbp; mov rbp, rsp`.
const BEGIN: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
/// What ends every one: `mov rsp, rbp; pop rbp`.
const END: [u8; 4] = [0x48, 0x89, 0xec, 0x5d];
const INT3: u8 = 0xcc;

/// The first bytes of a function and what they are undone by.
struct Prologue {
    len: usize,
    /// The registers' values taken back, the stack pointer, the frame pointer.
    undo: Vec<u8>,
}

/// Instructions as a decoder finds them from an offset on.
fn instructions(code: &[u8], from: usize) -> impl Iterator<Item = Instruction> {
    let bytes = code.get(from..).unwrap_or_default();
    Decoder::with_ip(64, bytes, from as u64, DecoderOptions::NONE).into_iter()
}

/// The prologue, if the frame is of `room` bytes at most.
fn prologue(code: &[u8], room_for: u32) -> Option<Prologue> {
    if !code.starts_with(&BEGIN) {
        return None;
    }
    let (mut len, mut undo, mut room) = (BEGIN.len(), Vec::new(), Vec::new());
    for i in instructions(code, len) {
        let bytes = &code[len..i.next_ip() as usize];
        if i.mnemonic() == Mnemonic::Sub && i.op0_register() == Register::RSP && room.is_empty() && undo.is_empty() {
            if i.immediate(1) > room_for.into() {
                return None;
            }
            // `add` with the same immediate.
            room = bytes.to_vec();
            room[2] = 0xc4;
        } else if saves(&i) {
            // `mov` the other way.
            let at = undo.len() + 1;
            undo.extend(bytes);
            undo[at] = 0x8b;
        } else {
            break;
        }
        len += bytes.len();
    }
    undo.extend(room);
    undo.extend(END);
    Some(Prologue { len, undo })
}

/// Whether an instruction puts a register that callers expect to be kept on the stack.
fn saves(i: &Instruction) -> bool {
    let kept = [Register::RBX, Register::R12, Register::R13, Register::R14, Register::R15];
    i.mnemonic() == Mnemonic::Mov
        && i.op0_kind() == OpKind::Memory
        && i.memory_base() == Register::RSP
        && i.memory_index() == Register::None
        && kept.contains(&i.op1_register())
}

/// The length of a jump to an address in a register that the bytes begin with.
fn jump(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [0xff, 0xe0..=0xe7, ..] => Some(2),
        [0x41, 0xff, 0xe0..=0xe7, ..] => Some(3),
        _ => None,
    }
}

/// The entries' code, given where a region of several begins to choose among them; `None` when it does more than that.
///
/// A few registers are all that is changed before the choice is made, none of which the entries' code can depend on: one is the
/// entry's number, one how many there are, and the others follow from these, which are used there only. A second constant is none of
/// them, and may be somebody's.
fn choices(code: &[u8], from: usize, entries: usize) -> Option<Vec<u32>> {
    const LONGEST: usize = 12;
    let index_at = std::mem::offset_of!(Entry, index) as u64;
    let (mut table, mut count, mut number) = (None, None, None);
    for i in instructions(code, from).take(LONGEST) {
        let register = |n: u32| i.op_kind(n) == OpKind::Register;
        let index_of_entry = i.op1_kind() == OpKind::Memory && i.memory_base() == Register::RSI && i.memory_index() == Register::None;
        let free = !matches!(i.op0_register().full_register(), Register::RDI | Register::RSI | Register::RSP | Register::RBP);
        match i.mnemonic() {
            Mnemonic::Mov if register(0) && free && i.op0_register().is_gpr32() => match i.op1_kind() {
                OpKind::Immediate32 if count.is_none() => count = Some(i.immediate(1) as usize),
                OpKind::Memory if number.is_none() && index_of_entry && i.memory_displacement64() == index_at => {
                    number = Some(i.op0_register());
                }
                OpKind::Register if number == Some(i.op1_register()) => {}
                _ => return None,
            },
            Mnemonic::Cmp if register(0) && register(1) => {}
            Mnemonic::Cmovb | Mnemonic::Add if register(0) && register(1) && free => {}
            Mnemonic::Movsxd if register(0) && free && i.memory_index_scale() == 4 => {}
            Mnemonic::Lea if free && i.is_ip_rel_memory_operand() => table = usize::try_from(i.ip_rel_memory_address()).ok(),
            Mnemonic::Jmp if i.op0_kind() == OpKind::Register => {
                let table = table.filter(|t| *t == i.next_ip() as usize && count == Some(entries))?;
                let place = |n: usize| {
                    let at = table + 4 * n;
                    let offset = i32::from_le_bytes(code.get(at..at + 4)?.try_into().ok()?);
                    let start = table.checked_add_signed(offset as isize)?;
                    (start < code.len()).then_some(start as u32)
                };
                return (0..entries).map(place).collect();
            }
            _ => return None,
        }
    }
    None
}

/// Makes a region's code use the frame that there is: the offset at which each entry's code begins. `tails` is how often it goes over
/// to other regions, which all have to be found; `room` is that of the frame, [`FRAME`]. `None`, and code that is no good any more, when Cranelift made something else than
/// what is known here.
pub fn share(code: &mut [u8], tails: usize, entries: usize, room: u32) -> Option<Vec<u32>> {
    let Prologue { len, undo } = prologue(code, room)?;
    let mut found = 0;
    let mut at = len;
    while at + undo.len() < code.len() {
        if let Some(jump) = code[at..].strip_prefix(&undo[..]).and_then(jump) {
            let end = at + undo.len() + jump;
            code.copy_within(at + undo.len()..end, at);
            code[at + jump..end].fill(INT3);
            found += 1;
            at = end;
        } else {
            at += 1;
        }
    }
    if found != tails {
        return None;
    }
    let choices = if entries > 1 { choices(code, len, entries) } else { None };
    Some(choices.unwrap_or_else(|| vec![len as u32; entries]))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::compile::{Compiler, Tuning};
    use crate::region::PAGE;
    use crate::region::tests::request;
    use egret_isa::insn::Ctx;

    const SAVE: [u8; 12] = [0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0x1c, 0x24, 0x4c, 0x89, 0x64, 0x24];
    const RESTORE: [u8; 13] = [0x48, 0x8b, 0x1c, 0x24, 0x4c, 0x8b, 0x64, 0x24, 8, 0x48, 0x83, 0xc4, 0x20];
    const BODY: [u8; 5] = [0xb8, 1, 0, 0, 0];

    /// A function that saves RBX and R12, does something, and goes on at R10.
    fn function() -> Vec<u8> {
        [&BEGIN[..], &SAVE, &[8], &BODY, &RESTORE, &END, &[0x41, 0xff, 0xe2], &[0x90; 8]].concat()
    }

    #[test]
    fn code_begins_behind_the_prologue_and_ends_in_front_of_the_epilogue() {
        let mut code = function();
        let body = BEGIN.len() + SAVE.len() + 1;
        assert_eq!(share(&mut code, 1, 1, FRAME), Some(vec![body as u32]));
        let end = body + BODY.len();
        assert_eq!(code[body..end], BODY);
        assert_eq!(code[end..end + 3], [0x41, 0xff, 0xe2]);
        assert!(code[end + 3..end + 3 + RESTORE.len() + END.len()].iter().all(|b| *b == INT3));
        assert_eq!(code.len(), function().len());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(share(&mut function(), 2, 1, FRAME), None, "a way out that looks different");
        assert_eq!(share(&mut function(), 0, 1, FRAME), None, "one more than there are");
        let mut other = function();
        other[0] = 0x90;
        assert_eq!(share(&mut other, 1, 1, FRAME), None, "another beginning");
        let mut large = function();
        large.splice(4..8, [0x48, 0x81, 0xec, 0, 0x10, 0, 0]);
        assert_eq!(share(&mut large, 1, 1, FRAME), None, "more than the frame has room for");
        assert_eq!(share(&mut [], 0, 1, FRAME), None);
    }

    /// `entries` times `inc eax; jmp` to the next, the last one to the first.
    fn region(entries: u16, share_frame: bool) -> Vec<u32> {
        let mut bytes = Box::new([0x90u8; PAGE]);
        for n in 0..entries {
            let at = usize::from(n) * 16;
            bytes[at..at + 4].copy_from_slice(&[0xff, 0xc0, 0xeb, if n + 1 == entries { 0u8.wrapping_sub(4 + (at as u8)) } else { 12 }]);
        }
        let ctx = Ctx(2 | Ctx::FLAT | Ctx::SSE | Ctx::FP_MASKED | Ctx::PE);
        let request = request(ctx, bytes, (0..entries).map(|n| 16 * n).collect());
        let mut compiler = Compiler::new(Tuning { share_frame, ..Tuning::default() }).unwrap();
        compiler.compile(request).unwrap().starts
    }

    #[test]
    fn a_choice_that_leaves_a_constant_behind_is_kept() {
        // mov ecx, [rsi]; mov eax, 2; cmp ecx, eax; cmovb eax, ecx; lea rcx, [rip + 9]; movsxd rax, [rcx + 4 * rax]; add rcx, rax;
        // jmp rcx; the table of two and what is beyond, all of them 12 bytes on.
        let choice = [
            0x8b, 0x0e, 0xb8, 2, 0, 0, 0, 0x3b, 0xc8, 0x0f, 0x42, 0xc1, 0x48, 0x8d, 0x0d, 9, 0, 0, 0, 0x48, 0x63, 0x04, 0x81, 0x48, 0x03,
            0xc8, 0xff, 0xe1, 12, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0, 0x90,
        ];
        assert_eq!(choices(&choice, 0, 2), Some(vec![40, 40]));
        assert_eq!(choices(&choice, 0, 3), None, "another number of entries");
        // mov r10d, 2
        let constant = [&[0x41, 0xba, 2, 0, 0, 0][..], &choice].concat();
        assert_eq!(choices(&constant, 0, 2), None);
        // mov r10d, r11d
        let copy = [&[0x45, 0x8b, 0xd3][..], &choice].concat();
        assert_eq!(choices(&copy, 0, 2), None);
    }

    #[test]
    fn entries_have_their_own_ways_in() {
        let mut starts = region(6, true);
        assert!(!starts.contains(&0));
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len(), 6);
        assert_eq!(region(1, true).len(), 1);
        assert_eq!(region(6, false), [0; 6], "as on other hosts");
    }
}
