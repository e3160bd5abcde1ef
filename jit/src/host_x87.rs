//! The host's own x87. Transcendental instructions: each maker computes them in its own way, within an ulp or so of the exact
//! value, and with this a guest gets the very bits of the host's chip. Everyday arithmetic: [`LEAVES`], because it is faster.

#[cfg(target_arch = "x86_64")]
mod imp {
    #![allow(unsafe_code)]
    use crate::leaf::{ALL_EXCEPTIONS, COUNT, Fpu, Leaf, STATUS};
    use egret_isa::fp::f80::F80;
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

    /// The control word that code of this host runs with, where it is known: then a guest's with the same costs nothing to load.
    const USUAL: Option<u16> = if cfg!(windows) { None } else { Some(0x37f) };

    /// Puts a control word in place, and clears the status word if it holds exceptions that the guest's does not.
    ///
    /// # Safety
    /// `fpu` is as [`Leaf`] wants it; [`after`] must follow.
    #[inline(always)]
    unsafe fn before(fpu: *mut Fpu, more: u16) -> Option<u16> {
        // SAFETY: the caller's pointer is good. The control word masks all exceptions, as the leaf's caller has checked.
        unsafe {
            let x87 = &*(*fpu).x87;
            if (*fpu).stale & !x87.sw & ALL_EXCEPTIONS != 0 {
                asm!("fnclex", options(nomem, nostack));
            }
            let cw = (x87.cw | more) & 0x1f3f | 0x7f;
            if Some(cw) == USUAL {
                return None;
            }
            let mut old = 0u16;
            asm!("fnstcw [{old}]", "fldcw [{cw}]", old = in(reg) &mut old, cw = in(reg) &cw, options(nostack));
            Some(old)
        }
    }

    /// Undoes [`before`]; the status that the guest gets.
    ///
    /// # Safety
    /// `fpu` is as [`Leaf`] wants it.
    #[inline(always)]
    unsafe fn after(fpu: *mut Fpu, old: Option<u16>, status: u16) -> u64 {
        // SAFETY: the caller's pointer is good; the control word is the one of before.
        unsafe {
            if let Some(old) = old {
                asm!("fldcw [{old}]", old = in(reg) &old, options(nostack, readonly));
            }
            (*fpu).stale = status & ALL_EXCEPTIONS;
        }
        u64::from(status & STATUS)
    }

    /// A leaf of these instructions, in which `{a}` and `{b}` are addresses of the operands and `{out}` that of the result. They leave
    /// the stack empty and the status word in AX. `$more` is added to the control word, `$less` taken from the status.
    macro_rules! leaf {
        ($by_pointer:literal, $more:literal, $less:literal, $($code:expr),*) => {{
            unsafe extern "C" fn leaf(fpu: *mut Fpu, a: *const F80, b: u64, out: *mut u8) -> u64 {
                // SAFETY: the caller's pointers are good; ten bytes at most are read and written; the x87 stack is empty as
                // Rust has it, before and after.
                unsafe {
                    let old = before(fpu, $more);
                    let at = if $by_pointer { b } else { &raw const b as u64 };
                    let status: u16;
                    asm!(
                        $($code,)*
                        "/* {a} {b} {out} */",
                        a = in(reg) a, b = in(reg) at, out = in(reg) out, out("ax") status,
                        out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                        options(nostack),
                    );
                    after(fpu, old, status & !$less)
                }
            }
            leaf as Leaf
        }};
    }

    /// The four leaves of an operation with a result: its name, and its name for integers.
    macro_rules! arith {
        ($op:literal, $int:literal) => {
            [
                leaf!(
                    true,
                    0,
                    0,
                    "fld tbyte ptr [{b}]",
                    "fld tbyte ptr [{a}]",
                    concat!($op, " st(0), st(1)"),
                    "fnstsw ax",
                    "fstp tbyte ptr [{out}]",
                    "fstp st(0)"
                ),
                leaf!(false, 0, 0, "fld tbyte ptr [{a}]", concat!($op, " dword ptr [{b}]"), "fnstsw ax", "fstp tbyte ptr [{out}]"),
                leaf!(false, 0, 0, "fld tbyte ptr [{a}]", concat!($op, " qword ptr [{b}]"), "fnstsw ax", "fstp tbyte ptr [{out}]"),
                leaf!(false, 0, 0, "fld tbyte ptr [{a}]", concat!($int, " dword ptr [{b}]"), "fnstsw ax", "fstp tbyte ptr [{out}]"),
            ]
        };
    }

    macro_rules! two {
        ($op:literal) => {
            leaf!(true, 0, 0, "fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", concat!($op, " st(1)"), "fnstsw ax", "fstp st(0)", "fstp st(0)")
        };
    }

    macro_rules! compare {
        ($code:literal) => {
            leaf!(false, 0, 0, "fld tbyte ptr [{a}]", $code, "fnstsw ax", "fstp st(0)")
        };
    }

    macro_rules! unary {
        ($op:literal) => {
            leaf!(false, 0, 0, "fld tbyte ptr [{a}]", $op, "fnstsw ax", "fstp tbyte ptr [{out}]")
        };
    }

    macro_rules! store {
        ($more:literal, $less:literal, $code:literal) => {
            leaf!(false, $more, $less, "fld tbyte ptr [{a}]", $code, "fnstsw ax")
        };
    }

    /// Leaves in the order of [`crate::leaf::WHATS`].
    pub const LEAVES: [Leaf; COUNT] = {
        let arith = [
            arith!("fadd", "fiadd"),
            arith!("fmul", "fimul"),
            arith!("fsub", "fisub"),
            arith!("fsubr", "fisubr"),
            arith!("fdiv", "fidiv"),
            arith!("fdivr", "fidivr"),
        ];
        let rest = [
            two!("fcom"),
            compare!("fcom dword ptr [{b}]"),
            compare!("fcom qword ptr [{b}]"),
            compare!("ficom dword ptr [{b}]"),
            two!("fucom"),
            compare!("ftst"),
            unary!("fsqrt"),
            unary!("frndint"),
            store!(0, 0, "fstp dword ptr [{out}]"),
            store!(0, 0, "fstp qword ptr [{out}]"),
            store!(0, 0, "fistp word ptr [{out}]"),
            store!(0, 0, "fistp dword ptr [{out}]"),
            store!(0, 0, "fistp qword ptr [{out}]"),
            store!(0xc00, 0x200, "fistp word ptr [{out}]"),
            store!(0xc00, 0x200, "fistp dword ptr [{out}]"),
            store!(0xc00, 0x200, "fistp qword ptr [{out}]"),
        ];
        let mut all = [rest[0]; COUNT];
        let mut n = 0;
        while n < COUNT {
            all[n] = if n < 24 { arith[n / 4][n % 4] } else { rest[n - 24] };
            n += 1;
        }
        all
    };
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    /// Lets transcendental instructions run on the host's x87 from now on; false where it has none.
    pub fn install() -> bool {
        false
    }

    pub use crate::leaf::SOFT as LEAVES;
}

pub use imp::{LEAVES, install};
