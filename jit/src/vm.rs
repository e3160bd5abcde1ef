//! What compiled code knows besides [`egret_cpu::State`]: helpers, link tables, and what it comes back with.

use crate::leaf::{COUNT, Fpu, LEAVES};
use egret_cpu::functions::Function;
use egret_cpu::{Cpu, Fault};
use egret_isa::insn::Insn;

/// Why compiled code came back. The guest state in [`egret_cpu::State`] is complete in every case.
pub mod exit {
    /// The instruction pointer is at the next instruction: find code for it. Also when the budget is used up, or when
    /// an instruction asked for attention.
    pub const NEXT: u64 = 1;
    /// As [`NEXT`], for a jump whose target may be entered into the jump cache.
    pub const LINK: u64 = 2;
    /// The instruction at the instruction pointer must be interpreted; it has had no effect and is not counted.
    pub const INTERPRET: u64 = 3;
    /// The instruction at the instruction pointer raised [`super::Vm::fault`]; it is not counted yet.
    pub const FAULT: u64 = 4;
    /// The same for an instruction that is counted.
    pub const FAULT_COUNTED: u64 = 5;
    /// Only from the helper [`crate::helpers::call`] to the code that called it: control has gone elsewhere, and nothing keeps it
    /// from going on there.
    pub const MOVED: u64 = 6;
}

/// How far beyond the beginning of [`egret_cpu::State`] the pointer is that compiled code has: all that it needs often is within a
/// byte's reach then.
pub const STATE_BIAS: i64 = 128;

/// Entries of the jump cache.
pub const JUMPS: usize = 32768;
/// log2 of the jump cache's entries for one page.
pub const PAGE_JUMPS: u32 = 8;

/// Where compiled code for a linear address is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Jump {
    /// Instruction pointer.
    pub rip: u64,
    /// TLB key and context, see [`Vm::key`]; 0 matches nothing.
    pub key: u64,
    /// Which bits of the key count: for a global page not the address space.
    pub mask: u64,
    /// Address of the [`Entry`].
    pub entry: u64,
}

impl Jump {
    /// No code.
    pub const EMPTY: Jump = Jump { rip: 0, key: 0, mask: u64::MAX, entry: 0 };
    /// The bits of a key that count everywhere: RFLAGS.AC has no say in where code is.
    pub const LOCAL: u64 = !2;
    /// The bits of a key that count for global pages.
    pub const GLOBAL: u64 = !0xffe;
}

/// A way into a region. Its address is the second argument of the region's function.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entry {
    /// Which entry.
    pub index: u64,
    /// Address of the region's first [`CallSite`].
    pub calls: u64,
    /// Address of the region's function.
    pub code: u64,
    /// Physical address of the page that follows, if the region was made from bytes of it, else [`Entry::NO_PAGE`].
    pub beyond: u64,
}

impl Entry {
    /// No page has this address.
    pub const NO_PAGE: u64 = u64::MAX;
}

/// An instruction that compiled code leaves to a function of the CPU.
#[repr(C)]
pub struct CallSite {
    /// The function.
    pub run: Function,
    /// The instruction.
    pub insn: Insn,
    /// [`egret_cpu::functions::is_integer`]
    pub integer: bool,
}

/// Addresses of the functions that compiled code calls, all `preserve_all`: they change no register.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Stubs {
    /// [`crate::helpers::read`]
    pub read: u64,
    /// [`crate::helpers::write`]
    pub write: u64,
    /// [`crate::helpers::modify`]
    pub modify: u64,
    /// [`crate::helpers::call`]
    pub call: u64,
    /// [`crate::helpers::cond`]
    pub cond: u64,
    /// [`crate::helpers::merge_flags`]
    pub merge_flags: u64,
    /// [`crate::helpers::divide`]
    pub divide: u64,
    /// [`crate::helpers::vector`]
    pub vector: u64,
    /// [`crate::helpers::float`]
    pub float: u64,
}

/// The engine's data in a layout that compiled code knows. One per engine, boxed: it never moves.
#[repr(C, align(64))]
pub struct Vm {
    /// The CPU that runs, while it runs.
    pub cpu: *mut Cpu,
    /// See [`Stubs`].
    pub stubs: Stubs,
    /// Address of [`crate::helpers::x87`], which is called without a stub.
    pub x87: u64,
    /// Operands of a division: high, low, divisor; see [`crate::helpers::divide`].
    pub divide: [u64; 3],
    /// What stands in for the host address of an access that crosses pages.
    pub bounce: [u64; 4],
    /// Operands of a vector operation, and its result: see [`crate::helpers::vector`].
    pub vectors: [u128; 3],
    /// Where to go on for instruction pointers, a table with two places for each: see [`jump_index`].
    pub jumps: Box<[Jump]>,
    /// Address of its first entry.
    pub first_jump: u64,
    /// The fault of an exit that has one.
    pub fault: Option<Fault>,
    /// [`Cpu::flushes`] when the jump cache was last cleared.
    pub flushes: u64,
    /// Addresses of [`crate::leaf::LEAVES`].
    pub leaves: [u64; COUNT],
    /// See there.
    pub fpu: Fpu,
}

impl Default for Vm {
    fn default() -> Vm {
        let jumps = vec![Jump::EMPTY; JUMPS].into_boxed_slice();
        Vm {
            first_jump: jumps.as_ptr() as u64,
            cpu: std::ptr::null_mut(),
            stubs: Stubs::default(),
            x87: crate::helpers::x87 as *const () as u64,
            divide: [0; 3],
            bounce: [0; 4],
            vectors: [0; 3],
            jumps,
            fault: None,
            flushes: 0,
            leaves: LEAVES.map(|leaf| leaf as usize as u64),
            fpu: Fpu::default(),
        }
    }
}

impl Vm {
    /// What a jump cache entry is valid for.
    #[must_use]
    pub fn key(cpu: &Cpu) -> u64 {
        cpu.state.tlb_key | u64::from(cpu.state.ctx.0) << 16
    }

    /// Enters a jump into the jump cache; one that is in its place goes beside it.
    pub fn add_jump(&mut self, jump: Jump) {
        let at = jump_index(jump.rip);
        let old = std::mem::replace(&mut self.jumps[at], jump);
        let same = old.rip == jump.rip && (old.key ^ jump.key) & old.mask & jump.mask == 0;
        if old.key != 0 && !same {
            self.jumps[at ^ 1] = old;
        }
    }
}

/// The jump cache's index of an instruction pointer: the page chooses a group, the offset a place in it, so that a page can be
/// forgotten by itself. The other place for it is beside this one, at the index with its lowest bit changed. Compiled code computes
/// the same.
#[must_use]
pub fn jump_index(rip: u64) -> usize {
    let place = (1 << PAGE_JUMPS) - 1;
    let group = rip >> (12 - PAGE_JUMPS) & (JUMPS as u64 - 1) & !place;
    (group | (rip ^ rip >> PAGE_JUMPS) & place) as usize
}
