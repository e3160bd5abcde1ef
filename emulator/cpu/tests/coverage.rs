//! Every encoding of the instruction sets that the default CPU model claims is implemented, in every mode that has it.

use egret_cpu::functions::implemented;
use egret_isa::rows::rows;
use egret_isa::{CpuModel, Mode};
use iced_x86::Code;

/// Encodings that are #UD on the model all the same: what no chip since the 486 has, and system management mode's return.
fn absent(code: Code) -> bool {
    use Code::*;
    matches!(code, Rsm | Loadall286 | Popw_CS | Fstdw_AX | Fstsg_AX)
        || format!("{code:?}").contains("_tr")
        || format!("{code:?}").contains("Umov")
}

#[test]
fn claimed_encodings_are_implemented() {
    let model = CpuModel::default().features();
    let (mut checked, mut missing) = (0, Vec::new());
    for row in rows().filter(|r| model.allows(r.code) && !absent(r.code)) {
        for mode in [Mode::M16, Mode::M32, Mode::M64] {
            for memory in [false, true] {
                let Some((bytes, insn)) = row.example(mode, memory) else { continue };
                checked += 1;
                if !implemented(&insn) {
                    missing.push(format!("{:?} {mode:?} {bytes:02x?}: {}", row.code, row.text));
                }
            }
        }
    }
    assert!(checked > 2500, "only {checked} forms were generated");
    assert!(missing.is_empty(), "{} of {checked} forms are not implemented:\n{}", missing.len(), missing.join("\n"));
}
