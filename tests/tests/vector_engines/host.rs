//! Runs single SSE and AVX instructions on the host CPU.

use memmap2::{Mmap, MmapMut};

/// Bytes of memory around the memory operand: gathers reach before and behind it.
pub const MEMORY: usize = 192;
/// Where in it the memory operand starts when its offset is 0.
pub const MIDDLE: usize = 64;

/// What the instruction sees and leaves.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// YMM0 to YMM3: lower half, upper half.
    pub ymm: [[u128; 2]; 4],
    /// The memory around `[rdi]`.
    pub memory: [u8; MEMORY],
    /// RAX, RCX, RDX.
    pub gpr: [u64; 3],
    /// Arithmetic flags of RFLAGS.
    pub flags: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// Where RDI points to, relative to `MIDDLE`.
    pub offset: u32,
    /// The exception the instruction ended in.
    pub fault: Fault,
}

/// Exceptions of the host, as far as signals tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Fault {
    None,
    /// #XM.
    FloatingPoint,
    /// #GP.
    Protection,
    /// #UD.
    Undefined,
}

/// Executable copies of instructions, each followed by RET.
pub struct Stubs {
    code: Mmap,
}

/// Bytes between two stubs: the instruction, RET, and at the end the RET that a fault goes on at.
const STRIDE: usize = 16;
const RET: u8 = 0xc3;
/// Arithmetic flags of RFLAGS.
const ARITHMETIC: u64 = 0x8d5;

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
        let host_mxcsr: u32 = 0x1f80;
        assert!(state.offset <= 32 && is_x86_feature_detected!("avx"));
        let operand = (&raw mut state.memory).cast::<u8>().wrapping_add(MIDDLE + state.offset as usize);
        faults::TAKEN.set(Fault::None);
        // SAFETY: the stub is a user-mode vector instruction and a RET, in executable memory that lives as long as `self`. It
        // touches registers that are declared clobbered, and memory only around [rdi], inside `state.memory`. A fault of it comes
        // back to the RET after it. MXCSR and the flags are put back.
        unsafe {
            core::arch::asm!(
                "vmovdqu ymm0, [r8]",
                "vmovdqu ymm1, [r8 + 32]",
                "vmovdqu ymm2, [r8 + 64]",
                "vmovdqu ymm3, [r8 + 96]",
                "mov rax, [r8 + 320]",
                "mov rcx, [r8 + 328]",
                "mov rdx, [r8 + 336]",
                "ldmxcsr [r8 + 352]",
                "push [r8 + 344]",
                "popfq",
                "call r9",
                "pushfq",
                "pop [r8 + 344]",
                "push 2",
                "popfq",
                "stmxcsr [r8 + 352]",
                "ldmxcsr [r10]",
                "vmovdqu [r8], ymm0",
                "vmovdqu [r8 + 32], ymm1",
                "vmovdqu [r8 + 64], ymm2",
                "vmovdqu [r8 + 96], ymm3",
                "mov [r8 + 320], rax",
                "mov [r8 + 328], rcx",
                "mov [r8 + 336], rdx",
                "vzeroupper",
                in("r8") state as *mut State,
                in("r9") stub,
                in("r10") &host_mxcsr,
                inout("rdi") operand => _,
                out("rax") _, out("rcx") _, out("rdx") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
                out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _,
                out("xmm14") _, out("xmm15") _,
            );
        }
        state.flags = state.flags & ARITHMETIC | 2;
        state.fault = faults::TAKEN.get();
    }
}

/// Exceptions of stubs, caught as signals.
mod faults {
    use super::{Fault, STRIDE};
    use std::cell::Cell;
    use std::sync::Once;

    thread_local! {
        pub static TAKEN: Cell<Fault> = const { Cell::new(Fault::None) };
    }

    pub fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            for signal in [libc::SIGFPE, libc::SIGSEGV, libc::SIGILL] {
                // SAFETY: the structure is plain data, zero is valid, and the handler has the signature that SA_SIGINFO asks for.
                let done = unsafe {
                    let mut action: libc::sigaction = std::mem::zeroed();
                    action.sa_sigaction = handler as *const () as usize;
                    action.sa_flags = libc::SA_SIGINFO;
                    libc::sigaction(signal, &action, std::ptr::null_mut())
                };
                assert_eq!(done, 0);
            }
        });
    }

    /// Goes on at the last byte of the stub, a RET. A fault anywhere else would find another byte there, and aborts.
    extern "C" fn handler(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid context of the interrupted thread, and the interrupted instruction can be read.
        unsafe {
            let rip = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize];
            let ret = (*rip | (STRIDE as i64 - 1)) as *const u8;
            if !(*rip as usize).is_multiple_of(STRIDE) || *ret != super::RET {
                libc::abort();
            }
            *rip = ret as i64;
        }
        TAKEN.set(match signal {
            libc::SIGFPE => Fault::FloatingPoint,
            libc::SIGILL => Fault::Undefined,
            _ => Fault::Protection,
        });
    }
}
