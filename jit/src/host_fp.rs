//! The host's floating-point environment: compiled code runs with the guest's MXCSR in the host's, so that rounding, flushing
//! and the sticky flags are the guest's own. Everything else runs with the default environment, which Rust assumes.

#[cfg(target_arch = "x86_64")]
mod imp {
    #![allow(unsafe_code)]
    use std::arch::asm;

    /// Whether compiled floating-point code behaves as the guest's.
    pub const NATIVE: bool = true;

    /// Whether fused multiply-adds can be compiled: the host has them.
    pub fn fma() -> bool {
        std::arch::is_x86_feature_detected!("fma")
    }

    /// What Rust code expects: everything masked, round to nearest.
    const DEFAULT: u32 = 0x1f80;

    fn load(mxcsr: u32) {
        // SAFETY: the value is a guest's MXCSR, whose reserved bits are clear (LDMXCSR and FXRSTOR check) and whose exceptions are
        // all masked, or the default; no Rust floating-point code runs until the default is back.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack, readonly)) }
    }

    /// Puts the guest's MXCSR in place. With exceptions unmasked no floating-point code was compiled: then nothing happens.
    pub fn enter(mxcsr: u32) {
        if mxcsr & 0x1f80 == 0x1f80 {
            load(mxcsr & 0xffff);
        }
    }

    /// Takes the guest's MXCSR, with the sticky flags that were raised, and puts the default in place.
    pub fn leave(mxcsr: &mut u32) {
        if *mxcsr & 0x1f80 != 0x1f80 {
            return;
        }
        let mut now = 0u32;
        // SAFETY: stores four bytes to a local variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut now, options(nostack)) };
        *mxcsr = now;
        load(DEFAULT);
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    /// Whether compiled floating-point code behaves as the guest's: here every operation goes to soft float.
    pub const NATIVE: bool = false;

    /// Fused multiply-adds go to soft float, too.
    pub fn fma() -> bool {
        false
    }

    /// Nothing to do.
    pub fn enter(_mxcsr: u32) {}

    /// Nothing to do.
    pub fn leave(_mxcsr: &mut u32) {}
}

pub use imp::{NATIVE, enter, fma, leave};
