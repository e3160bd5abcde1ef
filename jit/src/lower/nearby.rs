//! Accesses near ones that were checked before: the same page needs no second look at the TLB.
//!
//! Every checked access of a run of blocks is remembered as a root (a value) and a displacement from it. For another access
//! with the same root, the offset of the first one in its page tells whether both lie in that page. Nothing between the two
//! can have changed the translation: that takes an instruction that is a call to the CPU, and those forget everything here.

use super::{Lower, Lv};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use egret_isa::insn::Seg;
use egret_isa::ir::Val;
use egret_isa::ops::Width;

/// What displacements are relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Root {
    Zero,
    Page,
    Value(Value),
}

/// A place in guest memory: segment base, root, displacement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    seg: Seg,
    root: Root,
    at: i64,
    w: Width,
}

/// A checked access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    pub(super) place: Place,
    pub(super) size: u8,
    pub(super) write: bool,
    /// It is known to be aligned to its size.
    pub(super) aligned: bool,
    pub(super) linear: Value,
    pub(super) addend: Value,
    /// The linear address modulo the page size, once something asked for it.
    pub(super) in_page: Option<Value>,
}

/// Checked accesses that are remembered.
const MOST: usize = 12;

const PAGE: i64 = 4096;

impl Lower<'_, '_> {
    /// Remembers that a value is another one and a constant.
    pub(super) fn note_sum(&mut self, sum: Lv, a: Lv, c: u64) {
        if let (Lv::Int(sum, w @ (Width::D | Width::Q)), Lv::Int(a, from)) = (sum, a)
            && w == from
        {
            let (root, at) = self.sums.get(&a).copied().unwrap_or((a, 0));
            self.sums.insert(sum, (root, at.wrapping_add(w.sext(c) as i64)));
        }
    }

    /// A value plus a constant, as one sum.
    pub(super) fn plus(&mut self, v: Value, c: i64) -> Value {
        let (root, at) = self.sums.get(&v).copied().unwrap_or((v, 0));
        self.b.ins().iadd_imm_s(root, at.wrapping_add(c))
    }

    /// The place of an access; `None` when nothing can be said about it.
    pub(super) fn place(&self, seg: Seg, offset: Val) -> Option<Place> {
        let based = seg as u8 >= Seg::Fs as u8;
        let seg = if self.code64() && !based { Seg::Ds } else { seg };
        let place = |root, at, w| Some(Place { seg, root, at, w });
        match self.val(offset) {
            Lv::Const(c) => place(Root::Zero, c as i64, Width::Q),
            Lv::Rip(at) if self.code64() => place(Root::Page, at, Width::Q),
            Lv::Int(v, w @ (Width::D | Width::Q)) if w == Width::Q || !based => {
                let (root, at) = self.sums.get(&v).copied().unwrap_or((v, 0));
                place(Root::Value(root), at, w)
            }
            _ => None,
        }
    }

    /// Remembers a checked access.
    pub(super) fn note_checked(&mut self, checked: Checked) {
        if self.checked.len() >= MOST {
            self.checked.remove(0);
        }
        self.checked.push(checked);
    }

    /// A check that an access lies in the page of an earlier one: the condition that it does not, and the page's addend.
    pub(super) fn near(&mut self, place: Place, size: u8, write: bool, aligned: bool) -> Option<(Value, Value)> {
        let fits = |c: &Checked| {
            let same = c.place.seg == place.seg && c.place.root == place.root && c.place.w == place.w && (c.write || !write);
            let distance = place.w.sext((place.at as u64).wrapping_sub(c.place.at as u64) & place.w.mask()) as i64;
            let end = distance.wrapping_add(size.into());
            let first = i64::from(c.size);
            // Together they have room in a page, or no place of the first one has the other one beside it.
            let usable = if distance >= 0 { distance < PAGE && end < PAGE } else { first.saturating_sub(distance) <= PAGE && end <= first };
            let in_line = !aligned || (c.aligned && c.size >= size && distance % i64::from(size) == 0);
            (same && usable && in_line).then_some(distance)
        };
        let (n, distance) = self.checked.iter().enumerate().rev().find_map(|(n, c)| fits(c).map(|d| (n, d)))?;
        let Checked { size: first, linear, addend, in_page, .. } = self.checked[n];
        let at = match in_page {
            Some(at) => at,
            None => self.b.ins().band_imm_u(linear, PAGE - 1),
        };
        self.checked[n].in_page = Some(at);
        // The first access itself may have crossed into the next page, and then its addend is no page's.
        let end = i64::from(first).max(distance + i64::from(size));
        let beyond = if distance >= 0 {
            self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, at, PAGE - end)
        } else {
            let moved = self.b.ins().iadd_imm_s(at, distance);
            self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, moved, PAGE - end + distance)
        };
        Some((beyond, addend))
    }
}
