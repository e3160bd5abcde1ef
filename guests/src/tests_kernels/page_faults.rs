//! Every combination of page permissions and protection settings, against a model of the manual's rules.
//!
//! Intel SDM Vol. 3, "Access Rights", "Page-Fault Exceptions" and "Accessed and Dirty Flags". The table of cases is made when the kernel is
//! built, with the outcome that [`Case::outcome`] predicts; the kernel walks it and reports each case that differs as
//! `FAIL case N got G want W`, where an outcome is `error code << 8 | dirty << 6 | accessed << 5`, and the error code is FFh for none.

use iced_x86::code_asm::*;

use super::kit::*;
use crate::os::asm::{Asm, AsmError, code};

pub(super) fn build() -> Result<Vec<u8>, AsmError> {
    build_kernel(main)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Execute,
}

/// Permission bits of a page-table entry.
const P: u8 = 1;
const W: u8 = 2;
const U: u8 = 4;
const ACCESSED: u8 = 0x20;
const DIRTY: u8 = 0x40;

#[derive(Clone, Copy)]
struct Case {
    access: Access,
    user: bool,
    pde: u8,
    pde_nx: bool,
    pte: u8,
    pte_nx: bool,
    /// Bit 51 of the entry, above the physical address width.
    pte_reserved: bool,
    wp: bool,
    smep: bool,
    smap: bool,
    ac: bool,
    nxe: bool,
}

/// No fault.
const NONE: u8 = 0xFF;

impl Case {
    /// The error code, and which of A and D must be set in the PTE. After a fault A may be set, D not.
    fn outcome(self) -> (u8, u8) {
        let write = self.access == Access::Write;
        let execute = self.access == Access::Execute;
        let id = execute && (self.nxe || self.smep);
        let what = u8::from(write) << 1 | u8::from(self.user) << 2 | u8::from(id) << 4;
        if self.pde & P == 0 {
            return (what, 0);
        }
        if self.pde_nx && !self.nxe {
            return (what | 9, 0); // the NX bit is reserved
        }
        if self.pte & P == 0 {
            return (what, 0);
        }
        if self.pte_nx && !self.nxe || self.pte_reserved {
            return (what | 9, 0);
        }
        let user_page = self.pde & self.pte & U != 0;
        let writable = self.pde & self.pte & W != 0;
        let nx = self.pde_nx || self.pte_nx;
        let allowed = match self.access {
            _ if self.user && !user_page => false,
            Access::Read if self.user => true,
            Access::Write if self.user => writable,
            Access::Execute if user_page && !self.user => !self.smep && !nx,
            Access::Execute => !nx,
            _ if user_page && self.smap && !self.ac => false,
            Access::Read => true,
            Access::Write => writable || !self.wp,
        };
        match (allowed, write) {
            (false, _) => (what | 1, 0),
            (true, false) => (NONE, ACCESSED),
            (true, true) => (NONE, ACCESSED | DIRTY),
        }
    }

    /// Eight bytes: the entries' low bytes, their other bits, settings, outcome, what to compare of A and D.
    fn row(self) -> [u8; 8] {
        let (error, accessed_dirty) = self.outcome();
        let bits = |list: &[bool]| list.iter().rev().fold(0u8, |all, &bit| all << 1 | u8::from(bit));
        let other = bits(&[self.pde_nx, self.pte_nx, self.pte_reserved]);
        let settings = bits(&[self.wp, self.smep, self.smap, self.ac, self.nxe, self.user]);
        let compare = if error == NONE { ACCESSED | DIRTY } else { DIRTY };
        [self.pde, self.pte, other, settings, self.access as u8, error, accessed_dirty, compare]
    }
}

/// All settings for one kind of access: entries (PTE varied under a permissive PDE, PDE over a permissive PTE) × control bits.
fn cases(access: Access, user: bool) -> Vec<Case> {
    let base = Case {
        access,
        user,
        pde: P | W | U,
        pde_nx: false,
        pte: P | W | U,
        pte_nx: false,
        pte_reserved: false,
        wp: true,
        smep: false,
        smap: false,
        ac: false,
        nxe: true,
    };
    let mut list = vec![Case { pte_reserved: true, ..base }, Case { pte_reserved: true, pte: P, ..base }];
    for bits in 0..512u32 {
        let bit = |n: u32| bits >> n & 1 != 0;
        let settings = Case { wp: bit(0), smep: bit(1), smap: bit(2), ac: bit(3), nxe: bit(4), ..base };
        let (flags, nx) = ((bits >> 5 & 7) as u8, bit(8));
        list.push(Case { pte: flags, pte_nx: nx, ..settings });
        list.push(Case { pde: flags, pde_nx: nx, ..settings });
    }
    list
}

/// Where a user program's code and stack are, and the page under test with its frame.
const USER_STUBS: i32 = WINDOW;
const USER_STACK_TOP: i32 = WINDOW + 0x2000;
const PAGE: i32 = WINDOW2;
pub(super) const FRAME: i32 = 0x60_0000;
/// Offsets in the page: a RET, an INT 80h, and a byte that is written.
const RET_AT: i32 = 0;
const INT_AT: i32 = 16;
const DATA_AT: i32 = 0x800;
/// Error-code field of an outcome that is no page fault and no success.
const OTHER: i32 = 0xEE;

fn main(a: &mut Asm) -> Result<(), AsmError> {
    a.label("main")?;
    require_smep_smap(a)?;
    place(a, &[0xC3], FRAME + RET_AT)?;
    place(a, &[0xCD, 0x80], FRAME + INT_AT)?;
    place_stubs(a)?;
    for (name, access) in [("read", Access::Read), ("write", Access::Write), ("execute", Access::Execute)] {
        for (who, user) in [("supervisor", false), ("user", true)] {
            let rows: Vec<_> = cases(access, user).into_iter().map(Case::row).collect();
            let table = a.blob(&rows.concat());
            let table = a.to(&table);
            a.code.lea(rbx, ptr(table))?;
            code! { a =>
                mov r12d, rows.len() as i32;
                call "run_cases";
            }
            check(a, &format!("{} cases of {who} {name}", rows.len()), r14, 0)?;
        }
    }
    code! { a =>
        jmp "finish";
    }
    run_cases(a)?;
    set_up_case(a)?;
    do_access(a)?;
    outcome(a)
}

pub(super) fn require_smep_smap(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        mov eax, 7;
        xor ecx, ecx;
        cpuid;
        mov rax, rbx;
        shr eax, 7;
        and eax, 1 << 13 | 1 << 0;
    }
    check(a, "CPUID says SMEP and SMAP", rax, 1 << 13 | 1)
}

/// Three pieces of user code, 16 bytes apart: R10 is the page.
fn place_stubs(a: &mut Asm) -> Result<(), AsmError> {
    let stub = |emit: fn(&mut Asm) -> Result<(), AsmError>| {
        snippet(USER_STUBS, |a| {
            emit(a)?;
            Ok(a.code.int(USER_CALL)?)
        })
    };
    let read = stub(|a| Ok(a.code.mov(al, byte_ptr(r10 + DATA_AT))?))?;
    let write = stub(|a| Ok(a.code.mov(byte_ptr(r10 + DATA_AT), al)?))?;
    let execute = stub(|a| {
        a.code.add(r10, INT_AT)?;
        Ok(a.code.jmp(r10)?)
    })?;
    for (index, bytes) in (0..).zip([read, write, execute]) {
        place(a, &bytes, USER_STUBS + 16 * index)?;
    }
    Ok(())
}

/// RBX = rows, R12 = how many; returns in R14 how many differed.
fn run_cases(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "run_cases":
        xor r14d, r14d;
        xor r13d, r13d; // number of the case
    ".case":
        call "set_up_case";
        call "do_access";
        call "outcome"; // in RAX
        movzx edx, word_ptr(rbx + 5);
        rol dx, 8; // wanted: error code above A and D
        cmp eax, edx;
        je ".same";
        inc r14d;
        mov ebp, eax;
        push rdx;
        print "FAIL case ";
        mov edi, r13d;
        call "print_hex";
        print " (";
        mov rdi, qword_ptr(rbx);
        bswap rdi;
        call "print_hex";
        print ") got ";
        mov edi, ebp;
        call "print_hex";
        print " want ";
        pop rdi;
        call "print_hex";
        print "\n";
    ".same":
        add rbx, 8;
        inc r13d;
        cmp r13d, r12d;
        jb ".case";
        ret;
    }
    Ok(())
}

/// RBX = row. Entries and control registers; loading CR3 forgets old translations.
fn set_up_case(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "set_up_case":
        movzx eax, byte_ptr(rbx);
        or eax, WINDOW2_PT;
        movzx edx, byte_ptr(rbx + 2);
        mov rcx, rdx;
        shl rcx, 63;
        or rax, rcx;
        mov qword_ptr(WINDOW_PD + 8), rax;
        movzx eax, byte_ptr(rbx + 1);
        or eax, FRAME;
        mov rcx, rdx;
        shr ecx, 1;
        shl rcx, 63;
        or rax, rcx;
        shr edx, 2;
        shl rdx, 51;
        or rax, rdx;
        mov qword_ptr(WINDOW2_PT), rax;
        movzx esi, byte_ptr(rbx + 3);
        mov ecx, 0xC000_0080u32;
        rdmsr;
        btr eax, 11;
        test esi, 1 << 4;
        jz ".no_nxe";
        bts eax, 11;
    ".no_nxe":
        wrmsr;
        mov rax, cr0;
        btr eax, 16;
        test esi, 1 << 0;
        jz ".no_wp";
        bts eax, 16;
    ".no_wp":
        mov cr0, rax;
        mov rax, cr4;
        mov ecx, esi;
        shr ecx, 1;
        and ecx, 3;
        shl ecx, 20; // SMEP, SMAP
        and eax, !(3 << 20);
        or eax, ecx;
        mov cr4, rax;
        mov rax, cr3;
        mov cr3, rax;
        ret;
    }
    Ok(())
}

/// Returns after the access or its fault, with `VECTOR`, `ERROR` and `CR2` telling which.
fn do_access(a: &mut Asm) -> Result<(), AsmError> {
    a.label("do_access")?;
    expect(a, ".done")?;
    code! { a =>
        mov r10d, PAGE;
        movzx ecx, byte_ptr(rbx + 4);
        movzx esi, byte_ptr(rbx + 3);
        mov edi, esi;
        and edi, 1 << 3;
        shl edi, 15; // AC is bit 18
        or edi, 2;
        test esi, 1 << 5;
        jnz ".user";
        push rdi;
        popfq;
        cmp ecx, 1;
        jb ".read";
        je ".write";
        call r10; // the fault comes at the target; `.done` has its own RSP
        jmp ".done";
    ".read":
        mov al, byte_ptr(r10 + DATA_AT);
        jmp ".done";
    ".write":
        mov byte_ptr(r10 + DATA_AT), al;
    ".done":
        push 2;
        popfq;
        ret;
    ".user":
        shl ecx, 4;
        add ecx, USER_STUBS;
        push USER_DATA;
        push USER_STACK_TOP;
        push rdi;
        push USER_CODE;
        push rcx;
        iretq;
    }
    Ok(())
}

/// RBX = row; returns the outcome in RAX.
fn outcome(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "outcome":
        mov eax, i32::from(NONE);
        mov rcx, qword_ptr(var::VECTOR);
        cmp rcx, -1;
        je ".known";
        cmp ecx, USER_CALL;
        je ".known";
        mov eax, OTHER;
        cmp ecx, 14;
        jne ".known";
        // A page fault: CR2 must be the accessed address.
        mov edx, DATA_AT;
        cmp byte_ptr(rbx + 4), 2;
        jne ".address";
        mov edx, RET_AT;
        test byte_ptr(rbx + 3), 1 << 5;
        jz ".address";
        mov edx, INT_AT;
    ".address":
        add edx, PAGE;
        cmp rdx, qword_ptr(var::CR2);
        jne ".known";
        movzx eax, byte_ptr(var::ERROR);
    ".known":
        shl eax, 8;
        mov cl, byte_ptr(WINDOW2_PT);
        and cl, byte_ptr(rbx + 7);
        mov al, cl;
        ret;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_agrees_with_examples_from_the_manual() {
        let find = |access, user, pick: fn(&Case) -> bool| cases(access, user).into_iter().skip(2).find(pick).unwrap().outcome().0;
        // A user write to a read-only page: P, W/R, U/S.
        assert_eq!(find(Access::Write, true, |c| c.pte == P | U && c.pde == P | W | U && c.nxe && !c.pte_nx && !c.pde_nx), 7);
        // A supervisor write to one, WP clear: allowed.
        assert_eq!(find(Access::Write, false, |c| c.pte == P && c.pde == P | W | U && !c.wp && c.nxe && !c.pte_nx && !c.pde_nx), NONE);
        // SMEP: P and I/D.
        assert_eq!(
            find(Access::Execute, false, |c| c.pte == P | W | U && c.pde == c.pte && c.smep && c.nxe && !c.pte_nx && !c.pde_nx),
            0x11
        );
        // Without NXE and SMEP a fetch from a page that is not present says nothing but user.
        assert_eq!(find(Access::Execute, true, |c| c.pte == 0 && !c.smep && !c.nxe && !c.pde_nx), 4);
        // NX without NXE is a reserved bit.
        assert_eq!(find(Access::Read, false, |c| c.pte & P != 0 && c.pte_nx && !c.nxe && c.pde & P != 0 && !c.pde_nx), 9);
    }
}
