//! The x87 transcendental instructions on the host's own x87. Each maker computes them in its own way, within an ulp or so of the exact
//! value: with this a guest gets the very bits of the host's chip.

#[cfg(target_arch = "x86_64")]
mod imp {
    #![allow(unsafe_code)]
    use egret_isa::x87::{EnvFormat, Transcendental, X87};
    use std::arch::asm;

    /// Bytes of the FNSAVE image.
    const IMAGE: usize = 108;

    /// Loads the image, executes D9 `MODRM`, saves the image.
    fn run<const MODRM: u8>(image: &mut [u8; IMAGE]) {
        // SAFETY: FRSTOR and FNSAVE move 108 bytes. No exception is pending in the image, as the caller has checked, so that the
        // instruction does not trap; FNSAVE leaves an empty FPU with all exceptions masked, as Rust expects it.
        unsafe {
            asm!(
                "frstor [{image}]", ".byte 0xd9, {modrm}", "fnsave [{image}]",
                image = in(reg) image.as_mut_ptr(), modrm = const MODRM,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
    }

    fn execute(function: Transcendental, x87: &mut X87) {
        let mut image = x87.state_image(EnvFormat::Protected32);
        match function {
            Transcendental::Exp2Minus1 => run::<0xf0>(&mut image),
            Transcendental::YLog2X => run::<0xf1>(&mut image),
            Transcendental::Tangent => run::<0xf2>(&mut image),
            Transcendental::ArcTangent => run::<0xf3>(&mut image),
            Transcendental::YLog2XPlus1 => run::<0xf9>(&mut image),
            Transcendental::SineCosine => run::<0xfb>(&mut image),
            Transcendental::Sine => run::<0xfe>(&mut image),
            Transcendental::Cosine => run::<0xff>(&mut image),
        }
        let (fip, fcs, fdp, fds, fop) = (x87.fip, x87.fcs, x87.fdp, x87.fds, x87.fop);
        x87.load_state(EnvFormat::Protected32, &image);
        (x87.fip, x87.fcs, x87.fdp, x87.fds, x87.fop) = (fip, fcs, fdp, fds, fop);
    }

    /// Lets transcendental instructions run on the host's x87 from now on; false where it has none.
    pub fn install() -> bool {
        egret_isa::x87::ACCELERATOR.get_or_init(|| execute);
        true
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    /// Lets transcendental instructions run on the host's x87 from now on; false where it has none.
    pub fn install() -> bool {
        false
    }
}

pub use imp::install;
