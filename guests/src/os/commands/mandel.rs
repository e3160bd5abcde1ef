//! `mandel`: the Mandelbrot set in characters, with SSE2 double precision (SDM Vol. 1, "Programming with Intel Streaming SIMD
//! Extensions 2"). [`drawing`] computes the same in Rust, with the same operations in the same order, for tests.

use iced_x86::code_asm::*;

use crate::os::asm::{Asm, AsmError, code};

const COLUMNS: i32 = 76;
const ROWS: i32 = 24;
const MAX_ITERATIONS: i32 = 100;
/// The drawn part of the plane: lower left corner, and the size of a character.
const CORNER: (f64, f64) = (-2.2, -1.2);
const CELL: (f64, f64) = (0.041, 0.1);
/// Characters by number of iterations, which is taken modulo their count; the last is for points of the set.
const PALETTE: &str = ".,:;i+*oxOXW%@#& ";

pub(super) fn emit(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
        push rbx;
        push r12;
        push r13;
        lea r13, "palette";
        xor ebx, ebx; // row
    ".row":
        xor r12d, r12d; // column
    ".column":
        cvtsi2sd xmm0, r12d;
        mulsd xmm0, qword_ptr(a.to("cell_x"));
        addsd xmm0, qword_ptr(a.to("corner_x"));
        cvtsi2sd xmm1, ebx;
        mulsd xmm1, qword_ptr(a.to("cell_y"));
        addsd xmm1, qword_ptr(a.to("corner_y"));
        call "iterate";
        movzx edi, byte_ptr(r13 + rax);
        call "putc";
        inc r12d;
        cmp r12d, COLUMNS;
        jb ".column";
        mov edi, i32::from(b'\n');
        call "putc";
        inc ebx;
        cmp ebx, ROWS;
        jb ".row";
        pop r13;
        pop r12;
        pop rbx;
        ret;
    "palette":
    }
    a.code.db(PALETTE.as_bytes())?;
    for (name, value) in [("cell_x", CELL.0), ("cell_y", CELL.1), ("corner_x", CORNER.0), ("corner_y", CORNER.1), ("limit", 4.0)] {
        a.label(name)?;
        a.code.dq(&[value.to_bits()])?;
    }
    iterate(a)
}

fn iterate(a: &mut Asm) -> Result<(), AsmError> {
    code! { a =>
    "iterate": // c = XMM0 + i XMM1; returns in RAX an index into the palette
        xorpd xmm2, xmm2; // z = x + iy
        xorpd xmm3, xmm3;
        xor eax, eax;
    ".step":
        movapd xmm4, xmm2;
        mulsd xmm4, xmm4; // x²
        movapd xmm5, xmm3;
        mulsd xmm5, xmm5; // y²
        movapd xmm6, xmm4;
        addsd xmm6, xmm5;
        comisd xmm6, qword_ptr(a.to("limit"));
        ja ".escaped";
        mulsd xmm3, xmm2;
        addsd xmm3, xmm3;
        addsd xmm3, xmm1; // y = 2xy + Im c
        subsd xmm4, xmm5;
        addsd xmm4, xmm0; // x = x² − y² + Re c
        movapd xmm2, xmm4;
        inc eax;
        cmp eax, MAX_ITERATIONS;
        jb ".step";
        mov eax, PALETTE.len() as i32 - 1;
        ret;
    ".escaped":
        xor edx, edx;
        mov ecx, PALETTE.len() as i32 - 1;
        div ecx;
        mov eax, edx;
        ret;
    }
    Ok(())
}

/// What `mandel` prints, with LF line ends.
pub(crate) fn drawing() -> String {
    let palette = PALETTE.as_bytes();
    let cell = |row: i32, column: i32| {
        let (re, im) = (f64::from(column) * CELL.0 + CORNER.0, f64::from(row) * CELL.1 + CORNER.1);
        let (mut x, mut y) = (0.0_f64, 0.0_f64);
        for iteration in 0..MAX_ITERATIONS as usize {
            let (xx, yy) = (x * x, y * y);
            if xx + yy > 4.0 {
                return char::from(palette[iteration % (palette.len() - 1)]);
            }
            let xy = y * x;
            y = xy + xy + im;
            x = xx - yy + re;
        }
        char::from(palette[palette.len() - 1])
    };
    let line = |row| (0..COLUMNS).map(|column| cell(row, column)).chain(['\n']).collect::<String>();
    (0..ROWS).map(line).collect()
}
