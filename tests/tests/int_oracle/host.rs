//! Runs single integer instructions on the host CPU.

use memmap2::{Mmap, MmapMut};

/// Bytes of memory around the memory operand: bit strings reach before and behind it.
pub const MEMORY: usize = 64;
/// Where in it RDI points to.
pub const MIDDLE: usize = 32;

/// What the instruction sees and leaves.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// RAX, RCX, RDX, RBX.
    pub gpr: [u64; 4],
    /// RFLAGS.
    pub flags: u64,
    /// Whether it raised #DE.
    pub divide_error: u64,
    /// The memory around `[rdi]`.
    pub memory: [u8; MEMORY],
}

/// Executable copies of instructions, each followed by RET.
pub struct Stubs {
    code: Mmap,
}

/// Bytes between two stubs: the instruction, RET, and at the end the RET that a fault goes on at.
const STRIDE: usize = 16;
const RET: u8 = 0xc3;

impl Stubs {
    pub fn new(instructions: &[Vec<u8>]) -> Stubs {
        let mut map = MmapMut::map_anon((instructions.len() * STRIDE).max(1)).expect("memory for stubs");
        for (bytes, place) in instructions.iter().zip(map.chunks_exact_mut(STRIDE)) {
            assert!(bytes.len() < STRIDE - 1);
            place[..bytes.len()].copy_from_slice(bytes);
            place[bytes.len()] = RET;
            place[STRIDE - 1] = RET;
        }
        faults::install();
        Stubs { code: map.make_exec().expect("executable memory") }
    }

    /// Runs stub `n` on `state`.
    pub fn run(&self, n: usize, state: &mut State) {
        let stub = self.code[n * STRIDE..].as_ptr();
        faults::TAKEN.set(false);
        // SAFETY: the stub is a user-mode integer instruction and a RET, in executable memory that lives as long as `self`. It
        // touches registers that are declared clobbered (RBX is put back), and memory only around [rdi], inside `state.memory`.
        // A fault of it comes back to the RET after it. The flags are put back.
        unsafe {
            core::arch::asm!(
                "push rbx",
                "mov rax, [r8]",
                "mov rcx, [r8 + 8]",
                "mov rdx, [r8 + 16]",
                "mov rbx, [r8 + 24]",
                "lea rdi, [r8 + 80]",
                "push [r8 + 32]",
                "popfq",
                "call r9",
                "pushfq",
                "pop [r8 + 32]",
                "push 2",
                "popfq",
                "mov [r8], rax",
                "mov [r8 + 8], rcx",
                "mov [r8 + 16], rdx",
                "mov [r8 + 24], rbx",
                "pop rbx",
                in("r8") state as *mut State,
                in("r9") stub,
                out("rax") _, out("rcx") _, out("rdx") _, out("rdi") _,
            );
        }
        state.divide_error = faults::TAKEN.get().into();
    }
}

/// #DE of stubs, caught as a signal.
mod faults {
    use super::STRIDE;
    use std::cell::Cell;
    use std::sync::Once;

    thread_local! {
        pub static TAKEN: Cell<bool> = const { Cell::new(false) };
    }

    pub fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the structure is plain data, zero is valid, and the handler has the signature that SA_SIGINFO asks for.
            let done = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO;
                libc::sigaction(libc::SIGFPE, &action, std::ptr::null_mut())
            };
            assert_eq!(done, 0);
        });
    }

    /// Goes on at the last byte of the stub, a RET. A fault anywhere else would find another byte there, and aborts.
    extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid context of the interrupted thread, and the interrupted instruction can be read.
        unsafe {
            let rip = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize];
            let ret = (*rip | (STRIDE as i64 - 1)) as *const u8;
            if !(*rip as usize).is_multiple_of(STRIDE) || *ret != super::RET {
                libc::abort();
            }
            *rip = ret as i64;
        }
        TAKEN.set(true);
    }
}
