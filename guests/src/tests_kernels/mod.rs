//! Small multiboot kernels that test a machine from the inside.
//!
//! Each is built with the tools of [`crate::os`], runs by itself, and reports on the serial port at 3F8h: a line `PASS name` or
//! `FAIL name got G want W` per check, and [`ALL_PASSED`] at the end. It then writes 0 (all passed) or 1 to the debug-exit port
//! F4h. What is right comes from the Intel SDM; each file cites the sections.
//!
//! They need a CPU with SMEP and SMAP, and a PC's PICs, PIT, UART and local APIC. They switch the local APIC on themselves and let the
//! PICs' interrupts through its LINT0 pin. To try them on another machine:
//!
//! ```text
//! cargo run -p egret-guests --example write-os -- FILE KERNEL
//! qemu-system-x86_64 -cpu max -nographic -no-reboot -device isa-debug-exit,iobase=0xf4 -kernel FILE
//! cargo run -p egret-guests --example write-os -- --disk FILE KERNEL     (then Bochs with FILE as its disk)
//! ```
//!
//! How others do: Bochs 2.7 (as `corei7_skylake_x`) passes all. QEMU 7.2 (TCG) fails in some:
//! - `page-faults`, `page-restart`: a reserved bit gives an error code without P; #GP instead of #SS for a stack address that is
//!   not canonical; a jump to such an address faults at its target.
//! - `debugging`: INT1 is undefined; one data breakpoint matches bytes behind it; of two breakpoints and a step only some are
//!   reported; there is no general detect.
//! - `interrupts`: error codes of IDT entries in 64-bit mode have the vector times 16 instead of 8.
//! - `modes`: segment limits and types are not checked on access.
//! - `platform`: needs `-device pc-testdev`; interrupts of the I/O APIC come some instructions late, and there is no debug console
//!   unless asked for. `extended`: there is no x2APIC, no TSC-adjust register and no PCID.

mod chipset;
mod debugging;
mod extended;
mod interrupts;
mod interrupts_user;
pub(crate) mod kit;
mod modes;
mod modes_real;
mod page_faults;
mod page_restart;
mod platform;
mod repeat_strings;
mod self_modifying;
mod smp;

use crate::os::asm::AsmError;

/// The last line of a kernel all of whose checks passed.
pub const ALL_PASSED: &str = "DONE, all passed";

/// A test kernel.
pub struct TestKernel {
    /// Its name.
    pub name: &'static str,
    /// Multiboot-1 ELF file.
    pub image: Vec<u8>,
    /// What its output contains when everything is right.
    pub expect: &'static str,
}

type Builder = fn() -> Result<Vec<u8>, AsmError>;
const KERNELS: [(&str, Builder); 10] = [
    ("self-modifying", self_modifying::build),
    ("page-faults", page_faults::build),
    ("page-restart", page_restart::build),
    ("repeat-strings", repeat_strings::build),
    ("debugging", debugging::build),
    ("interrupts", interrupts::build),
    ("modes", modes::build),
    ("platform", platform::build),
    ("extended", extended::build),
    ("chipset", chipset::build),
];

/// All test kernels.
pub fn all() -> Vec<TestKernel> {
    let build = |&(name, build): &(&'static str, Builder)| {
        // Nothing but this crate's own code can make it fail, and a unit test builds them all.
        let image = build().unwrap_or_else(|error| panic!("test kernel {name}: {error}"));
        TestKernel { name, image, expect: ALL_PASSED }
    };
    KERNELS.iter().map(build).collect()
}

/// The kernel for two CPUs or more; it waits for ever where there is only one.
pub fn smp() -> TestKernel {
    let image = smp::build().unwrap_or_else(|error| panic!("test kernel smp: {error}"));
    TestKernel { name: "smp", image, expect: ALL_PASSED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_assemble_and_fit() {
        for (name, build) in KERNELS.into_iter().chain([("smp", smp::build as Builder)]) {
            let image = build().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(image.len() < 320 * 1024, "{name}: {} bytes", image.len());
        }
    }

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<_> = KERNELS.iter().map(|kernel| kernel.0).collect();
        assert_eq!(names.len(), KERNELS.len());
    }
}
