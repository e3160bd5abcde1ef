//! Blocks as text: one op a line, the instruction's disassembly above its ops. The format is stable: golden files hold it.
//!
//! `v7` is the value that op number 7 made. `.b .w .d .q` is a width of 8, 16, 32 or 64 bits.

use super::disassembly::{Register, Signed};
use super::{Block, Op, Val};
use crate::flags;
use crate::insn::Seg;
use crate::ops::Width;
use std::fmt::{self, Debug, Display, Formatter};

impl Display for Val {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

fn letter(w: Width) -> char {
    match w {
        Width::B => 'b',
        Width::W => 'w',
        Width::D => 'd',
        Width::Q => 'q',
    }
}

/// An op's name as its enumeration has it, in lower case, with a width.
fn named(op: impl Debug, w: Width) -> String {
    format!("{}.{}", format!("{op:?}").to_lowercase(), letter(w))
}

fn place(seg: Seg, offset: Val) -> String {
    format!("{seg}:[{offset}]")
}

fn vector_place(seg: Seg, offset: Val, bytes: u8, aligned: bool) -> String {
    format!("x{bytes} {}{}", place(seg, offset), if aligned { " aligned" } else { "" })
}

fn flag_names(mask: u32) -> String {
    let names = [(flags::CF, "cf"), (flags::PF, "pf"), (flags::AF, "af"), (flags::ZF, "zf"), (flags::SF, "sf"), (flags::OF, "of")];
    let named: Vec<&str> = names.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name).collect();
    named.join(" ")
}

impl Block {
    fn op_text(&self, op: Op) -> String {
        match op {
            Op::Imm(v) => format!("{v:#x}"),
            Op::Gpr(r, w) => Register(r, w).to_string(),
            Op::SetGpr(r, w, v) => format!("{} = {v}", Register(r, w)),
            Op::Selector(seg) => seg.to_string(),
            Op::Bin(op, w, a, b) => format!("{} {a} {b}", named(op, w)),
            Op::Un(op, w, a) => format!("{} {a}", named(op, w)),
            Op::Rel(op, w, a, b) => format!("{} {a} {b}", named(op, w)),
            Op::Sext(from, to, a) => format!("sext.{}.{} {a}", letter(from), letter(to)),
            Op::Trunc(w, a) => format!("trunc.{} {a}", letter(w)),
            Op::Select(c, a, b) => format!("select {c} {a} {b}"),
            Op::When(c) => format!("when {c}"),
            Op::EndWhen => "end".into(),
            Op::RaiseIf(c, what) => format!("raise {what:?} if {c}"),
            Op::Div { w, signed, hi, lo, d } => format!("{}.{} {hi}:{lo} {d}", if signed { "sdiv" } else { "udiv" }, letter(w)),
            Op::Remainder(q) => format!("remainder {q}"),
            Op::Load { seg, offset, w } => format!("load.{} {}", letter(w), place(seg, offset)),
            Op::Store { seg, offset, w, v } => format!("store.{} {} = {v}", letter(w), place(seg, offset)),
            Op::RmwLoad { seg, offset, w, lock } => {
                format!("modify.{} {}{}", letter(w), place(seg, offset), if lock { " locked" } else { "" })
            }
            Op::RmwStore { load, v } => format!("end {load} = {v}"),
            Op::Flags { op, w, a, b, r } => format!("flags {} {a} {b} {r}", named(op, w)),
            Op::FlagsWord => "flags".into(),
            Op::SetFlagsWord(mask, v) => format!("{} = {v}", flag_names(mask)),
            Op::Cond(cond) => format!("cond {}", format!("{cond:?}").to_lowercase()),
            _ => self.other_text(op),
        }
    }

    fn other_text(&self, op: Op) -> String {
        match op {
            Op::NextIp(_) => "next ip".into(),
            Op::CheckIp(t) => format!("check ip {t}"),
            Op::Jump(t) => format!("jump {t}"),
            Op::Branch { c, insn } => {
                let to = self.insns.get(insn as usize).map_or(0, |i| i.imm);
                format!("branch {}{}", Signed(to), c.map_or_else(String::new, |c| format!(" if {c}")))
            }
            Op::LoadX { seg, offset, bytes, aligned } => format!("load.{}", vector_place(seg, offset, bytes, aligned)),
            Op::StoreX { seg, offset, bytes, aligned, v } => format!("store.{} = {v}", vector_place(seg, offset, bytes, aligned)),
            Op::Xmm(r) => format!("xmm{r}"),
            Op::SetXmm(r, v) => format!("xmm{r} = {v}"),
            Op::YmmHi(r) => format!("ymm{r}.high"),
            Op::SetYmmHi(r, v) => format!("ymm{r}.high = {v}"),
            Op::LoadY { seg, offset, aligned } => format!("load.{}", vector_place(seg, offset, 32, aligned)),
            Op::Upper(v) => format!("upper {v}"),
            Op::StoreY { seg, offset, aligned, low, high } => format!("store.{} = {low} {high}", vector_place(seg, offset, 32, aligned)),
            Op::Vec3 { op, a, b, c } => format!("vec {op:?} {a} {b} {c}"),
            Op::Fma { op, a, b, c } => format!("fma {:?} {:?} {:?} {:?} {a} {b} {c}", op.kind, op.order, op.fmt, op.lanes),
            Op::XOf(v) => format!("vector {v}"),
            Op::VOf(w, x) => format!("integer.{} {x}", letter(w)),
            Op::Vec { op, a, b, imm } => format!("vec {op:?} {a} {b} {imm:#x}"),
            Op::Fp { op, a, b, imm } => format!("fp {op:?} {a} {b} {imm:#x}"),
            Op::FpCompare { fmt, signaling, a, b } => {
                format!("fp compare {fmt:?} {a} {b}{}", if signaling { " signaling" } else { "" })
            }
            Op::Require(unit) => format!("require {}", format!("{unit:?}").to_lowercase()),
            Op::Call(_) => "call".into(),
            other => format!("{other:?}"),
        }
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut depth = 1usize;
        for (at, op) in self.ops.iter().enumerate() {
            if let Op::Insn(n) = op {
                match self.insns.get(*n as usize) {
                    Some(i) => writeln!(f, "{n}: {i}")?,
                    None => writeln!(f, "{n}: ?")?,
                }
                continue;
            }
            if matches!(op, Op::EndWhen | Op::RmwStore { .. }) {
                depth = depth.saturating_sub(1);
            }
            let value = if op.has_value() { format!("v{at} = ") } else { String::new() };
            writeln!(f, "{}{value}{}", "    ".repeat(depth), self.op_text(*op))?;
            if matches!(op, Op::When(_) | Op::RmwLoad { .. }) {
                depth += 1;
            }
        }
        Ok(())
    }
}
