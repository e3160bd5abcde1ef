//! Rows from the manuals; the comparison of every encoding with a host's x87 is in `tests/tests/x87_native.rs`.

use super::*;
use iced_x86::{Code, Decoder, DecoderOptions};

fn run(x87: &mut X87, code: Code, i: u8, source: u128) -> Outcome {
    x87.execute(decode(code).expect("an x87 instruction"), i, source)
}

fn with_stack(values: &[f64]) -> X87 {
    let mut x87 = X87::default();
    for v in values.iter().rev() {
        run(&mut x87, Code::Fld_m64fp, 0, v.to_bits().into());
    }
    x87
}

fn st(x87: &mut X87) -> f64 {
    let mut copy = x87.clone();
    f64::from_bits(run(&mut copy, Code::Fst_m64fp, 0, 0).store.unwrap_or_default() as u64)
}

#[test]
fn arithmetic_forms() {
    let rows: &[(Code, u8, f64, f64)] = &[
        (Code::Fadd_st0_sti, 1, 0.0, 11.0),
        (Code::Fsub_st0_sti, 1, 0.0, 5.0),
        (Code::Fsubr_st0_sti, 1, 0.0, -5.0),
        (Code::Fdivr_st0_sti, 1, 0.0, 0.375),
        (Code::Faddp_sti_st0, 1, 0.0, 11.0),
        (Code::Fsubp_sti_st0, 1, 0.0, -5.0),
        (Code::Fsubrp_sti_st0, 1, 0.0, 5.0),
        (Code::Fdivp_sti_st0, 1, 0.0, 0.375),
        (Code::Fmul_m64fp, 0, 0.5, 4.0),
        (Code::Fsubr_m64fp, 0, 0.5, -7.5),
    ];
    for &(code, i, source, result) in rows {
        let mut x87 = with_stack(&[8.0, 3.0]);
        run(&mut x87, code, i, source.to_bits().into());
        assert_eq!(st(&mut x87), result, "{code:?}");
        assert_eq!(x87.status_word() & 0xff, 0);
    }
    let mut x87 = with_stack(&[8.0]);
    run(&mut x87, Code::Fidivr_m16int, 0, 0xfffc);
    assert_eq!(st(&mut x87), -0.5);
}

/// SDM Vol. 1, 8.5.1.1 "Stack Overflow or Underflow Exception".
#[test]
fn stack_faults() {
    let mut x87 = with_stack(&[1.0; 8]);
    run(&mut x87, Code::Fld1, 0, 0);
    assert_eq!(x87.st(0), F80::INDEFINITE);
    assert_eq!(x87.status_word() & 0x27f, 0x241);
    let mut x87 = X87::default();
    assert_eq!(run(&mut x87, Code::Fistp_m32int, 0, 0).store.map(|bits| bits as u32), Some(0x8000_0000));
    assert_eq!((x87.status_word() & 0x27f, x87.top()), (0x41, 1));
    // Unmasked: nothing moves, and the exception is pending.
    let mut x87 = X87::default();
    x87.set_control_word(0x37e);
    assert_eq!(run(&mut x87, Code::Fstp_m64fp, 0, 0).store, None);
    assert_eq!((x87.status_word(), x87.top(), x87.tag), (0x80c1, 0, 0));
    assert!(x87.pending_exception());
    run(&mut x87, Code::Fnclex, 0, 0);
    assert!(!x87.pending_exception());
}

#[test]
fn constants_follow_rounding() {
    let rows: &[(Code, u64, u64, u64, u64)] = &[
        (Code::Fldpi, 0xc90f_daa2_2168_c235, 0xc90f_daa2_2168_c234, 0xc90f_daa2_2168_c235, 0xc90f_daa2_2168_c234),
        (Code::Fldl2t, 0xd49a_784b_cd1b_8afe, 0xd49a_784b_cd1b_8afe, 0xd49a_784b_cd1b_8aff, 0xd49a_784b_cd1b_8afe),
        (Code::Fld1, 1 << 63, 1 << 63, 1 << 63, 1 << 63),
        (Code::Fldz, 0, 0, 0, 0),
    ];
    for &(code, nearest, down, up, zero) in rows {
        for (rc, frac) in [nearest, down, up, zero].into_iter().enumerate() {
            let mut x87 = X87::default();
            x87.set_control_word(0x37f | (rc as u16) << 10);
            run(&mut x87, code, 0, 0);
            assert_eq!(x87.st(0).frac, frac, "{code:?} rc {rc}");
        }
    }
}

#[test]
fn stores_can_be_undone() {
    let mut x87 = with_stack(&[0.1]);
    let (before, checkpoint) = (x87.clone(), x87.checkpoint());
    assert_eq!(run(&mut x87, Code::Fstp_m32fp, 0, 0).store, Some(0.1f32.to_bits().into()));
    assert_ne!(x87, before);
    x87.restore(checkpoint);
    assert_eq!(x87, before);
}

#[test]
fn bcd() {
    let mut x87 = X87::default();
    run(&mut x87, Code::Fbld_m80bcd, 0, 0x8000_0000_0000_0012_3456);
    assert_eq!(st(&mut x87), -123456.0);
    assert_eq!(run(&mut x87, Code::Fbstp_m80bcd, 0, 0).store, Some(0x8000_0000_0000_0012_3456));
    let mut x87 = with_stack(&[1e18]);
    assert_eq!(run(&mut x87, Code::Fbstp_m80bcd, 0, 0).store, Some(0xffff_c000_0000_0000_0000));
    assert_eq!(x87.status_word() & 0x3f, 1);
}

fn pointers() -> X87 {
    let mut x87 = with_stack(&[1.0, 0.0]);
    x87.record(0x5d3, 0x1234, 0x8765_4321, Some((0xabcd, 0x1357_9bdf)));
    x87
}

/// SDM Vol. 1, figures 8-9 to 8-12.
#[test]
fn environment_images() {
    let x87 = pointers();
    let rows: &[(EnvFormat, &[u16])] = &[
        (EnvFormat::Real16, &[0x37f, 0x3000, 0x4fff, 0x6661, 0x65d3, 0x58af, 0x2000]),
        (EnvFormat::Protected16, &[0x37f, 0x3000, 0x4fff, 0x4321, 0x1234, 0x9bdf, 0xabcd]),
        (
            EnvFormat::Real32,
            &[0x37f, 0xffff, 0x3000, 0xffff, 0x4fff, 0xffff, 0x6661, 0xffff, 0x65d3, 0x0876, 0x58af, 0xffff, 0x2000, 0x0136],
        ),
        (
            EnvFormat::Protected32,
            &[0x37f, 0xffff, 0x3000, 0xffff, 0x4fff, 0xffff, 0x4321, 0x8765, 0x1234, 0x05d3, 0x9bdf, 0x1357, 0xabcd, 0xffff],
        ),
    ];
    for &(format, halves) in rows {
        let image = x87.state_image(format);
        let got: Vec<u16> = image[..format.env_len()].chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        assert_eq!(got, halves, "{format:?}: {got:x?}");
        assert_eq!(&image[format.env_len()..format.env_len() + 10], &[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
        // A round trip keeps everything the format has.
        let mut loaded = X87::default();
        loaded.load_state(format, &image);
        assert_eq!(loaded.state_image(format)[..], image[..], "{format:?}");
        assert_eq!(loaded.regs, x87.regs);
    }
    assert_eq!((EnvFormat::Real16.state_len(), EnvFormat::Protected32.state_len()), (94, 108));
}

/// SDM Vol. 1, table 10-2.
#[test]
fn fxsave_image() {
    let x87 = pointers();
    let mut image = [0xeeu8; 160];
    x87.fxsave(false, &mut image);
    assert_eq!(
        image[..24],
        [0x7f, 3, 0, 0x30, 0xc0, 0, 0xd3, 5, 0x21, 0x43, 0x65, 0x87, 0x34, 0x12, 0, 0, 0xdf, 0x9b, 0x57, 0x13, 0xcd, 0xab, 0, 0]
    );
    assert_eq!(image[24..32], [0xee; 8]);
    assert_eq!(image[32..48], [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f, 0, 0, 0, 0, 0, 0]);
    let mut loaded = X87::default();
    loaded.fxrstor(false, &image);
    assert_eq!(loaded, x87);
    x87.fxsave(true, &mut image);
    assert_eq!(image[8..24], [0x21, 0x43, 0x65, 0x87, 0, 0, 0, 0, 0xdf, 0x9b, 0x57, 0x13, 0, 0, 0, 0]);
}

/// SDM Vol. 1, 9.5.1 "MMX Instructions and the x87 FPU Tag Word".
#[test]
fn mmx_registers() {
    let mut x87 = with_stack(&[1.0]);
    x87.enter_mmx();
    assert_eq!((x87.top(), x87.tag), (0, 0xff));
    assert_eq!(x87.mm(7), 1 << 63);
    x87.set_mm(3, 0x1122_3344_5566_7788);
    assert_eq!(x87.regs[3], F80 { sign_exp: 0xffff, frac: 0x1122_3344_5566_7788 });
    x87.emms();
    assert_eq!((x87.tag, x87.full_tag_word()), (0, 0xffff));
}

/// Encodings of D8 to DF that are no x87 instruction to us.
#[test]
fn every_encoding_decodes() {
    let mut missing = Vec::new();
    for op in 0xd8..=0xdfu8 {
        for modrm in 0..=255u8 {
            let bytes = [op, modrm, 0, 0, 0, 0, 0];
            let code = Decoder::new(64, &bytes, DecoderOptions::NONE).decode().code();
            if code != Code::INVALID && decode(code).is_none() {
                missing.push(format!("{code:?}"));
            }
        }
    }
    missing.dedup();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(decode(Code::Addsd_xmm_xmmm64), None);
}
