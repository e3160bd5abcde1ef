//! Runs single vector instructions on the host CPU.

use iced_x86::{Code, MandatoryPrefix, OpCodeInfo, OpCodeOperandKind, OpCodeTableKind};
use memmap2::{Mmap, MmapMut};

/// What the instruction sees and leaves. Operand registers: `reg` field 1, `rm` field 2, memory at `[rdi]`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// XMM0 to XMM2.
    pub xmm: [u128; 3],
    /// The memory operand and what follows it.
    pub memory: [u128; 2],
    /// MM0 to MM2.
    pub mm: [u64; 3],
    /// RAX, RCX, RDX.
    pub gpr: [u64; 3],
    /// RFLAGS after the instruction (the arithmetic ones are clear before).
    pub flags: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// All x87 tags are "empty" before; FFFFh afterwards if they still are.
    pub tags: u32,
    /// Where the memory operand starts within `memory`: 0 to 16.
    pub offset: u64,
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
}

/// Arithmetic flags of RFLAGS.
pub const ARITHMETIC: u64 = 0x8d5;

impl State {
    pub const ZERO: State = State {
        xmm: [0; 3],
        memory: [0; 2],
        mm: [0; 3],
        gpr: [0; 3],
        flags: 0,
        mxcsr: 0x1f80,
        tags: 0xffff,
        offset: 0,
        fault: Fault::None,
    };
}

/// Does the form use a ModRM byte with a memory operand in it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Register,
    Memory,
}

/// The forms a code has, by its operand kinds.
pub fn forms(code: Code) -> Vec<Form> {
    use OpCodeOperandKind as K;
    let info = code.op_code();
    let (mut register, mut memory) = (true, false);
    for n in 0..info.op_count() {
        match info.op_kind(n) {
            K::mem => (register, memory) = (false, true),
            K::xmm_or_mem | K::mm_or_mem | K::r32_or_mem | K::r64_or_mem => memory = true,
            _ => {}
        }
    }
    let mut forms = Vec::new();
    if register {
        forms.push(Form::Register);
    }
    if memory {
        forms.push(Form::Memory);
    }
    forms
}

/// The 64-bit mode encoding.
pub fn encode(code: Code, form: Form, imm: u8) -> Vec<u8> {
    let info: &OpCodeInfo = code.op_code();
    let mut bytes = Vec::new();
    match info.mandatory_prefix() {
        MandatoryPrefix::P66 => bytes.push(0x66),
        MandatoryPrefix::PF3 => bytes.push(0xf3),
        MandatoryPrefix::PF2 => bytes.push(0xf2),
        MandatoryPrefix::PNP | MandatoryPrefix::None => {}
    }
    if info.operand_size() == 64 {
        bytes.push(0x48);
    }
    bytes.push(0x0f);
    match info.table() {
        OpCodeTableKind::T0F38 => bytes.push(0x38),
        OpCodeTableKind::T0F3A => bytes.push(0x3a),
        _ => {}
    }
    bytes.push(info.op_code() as u8);
    if info.op_count() != 0 {
        let reg = if info.group_index() >= 0 { info.group_index() as u8 } else { 1 };
        bytes.push(match form {
            Form::Register => 0xc0 | reg << 3 | 2,
            Form::Memory => reg << 3 | 7,
        });
    }
    let immediate = (0..info.op_count()).any(|n| info.op_kind(n) == OpCodeOperandKind::imm8);
    if immediate {
        bytes.push(imm);
    }
    bytes
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
        let host_mxcsr: u32 = 0x1f80;
        let mut environment = [0u32; 7];
        assert!(state.offset <= 16);
        faults::TAKEN.set(Fault::None);
        // SAFETY: the stub is one of `encode`'s instructions and a RET, in executable memory that lives as long as `self`. It touches
        // registers that are declared clobbered, and memory only at [rdi], at most 16 of the 32 bytes of `state.memory` from
        // an offset of at most 16. A fault of it comes back to the RET after it. MXCSR and the x87 state are put back.
        unsafe {
            core::arch::asm!(
                "movdqa xmm0, [r8]",
                "movdqa xmm1, [r8 + 16]",
                "movdqa xmm2, [r8 + 32]",
                "movq mm0, [r8 + 80]",
                "movq mm1, [r8 + 88]",
                "movq mm2, [r8 + 96]",
                "emms",
                "mov rax, [r8 + 104]",
                "mov rcx, [r8 + 112]",
                "mov rdx, [r8 + 120]",
                "mov rdi, [r8 + 144]",
                "lea rdi, [r8 + rdi + 48]",
                "ldmxcsr [r8 + 136]",
                "push 2",
                "popfq",
                "call r9",
                "pushfq",
                "pop [r8 + 128]",
                "stmxcsr [r8 + 136]",
                "ldmxcsr [r10]",
                "fnstenv [r11]",
                "movq [r8 + 80], mm0",
                "movq [r8 + 88], mm1",
                "movq [r8 + 96], mm2",
                "emms",
                "movdqa [r8], xmm0",
                "movdqa [r8 + 16], xmm1",
                "movdqa [r8 + 32], xmm2",
                "mov [r8 + 104], rax",
                "mov [r8 + 112], rcx",
                "mov [r8 + 120], rdx",
                in("r8") state as *mut State,
                in("r9") stub,
                in("r10") &host_mxcsr,
                in("r11") environment.as_mut_ptr(),
                out("rax") _, out("rcx") _, out("rdx") _, out("rdi") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        state.flags &= ARITHMETIC;
        state.fault = faults::TAKEN.get();
        state.tags = environment[2] & 0xffff;
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
        #[cfg(target_os = "linux")]
        ONCE.call_once(|| {
            for signal in [libc::SIGFPE, libc::SIGSEGV] {
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
    #[cfg(target_os = "linux")]
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
        TAKEN.set(if signal == libc::SIGFPE { Fault::FloatingPoint } else { Fault::Protection });
    }
}
