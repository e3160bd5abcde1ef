//! Vectors.

use super::{Lower, Lv};
use cranelift_codegen::ir::types::I8X16;
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use egret_cpu::State;
use egret_isa::ir::Val;
use std::mem::offset_of;

/// The type that vectors are kept in.
pub(super) const X: Type = I8X16;

impl Lower<'_, '_> {
    pub(super) fn vec(&mut self, v: Val) -> Value {
        match self.val(v) {
            Lv::Vec(v) => v,
            _ => {
                let zero = self.b.ins().iconst(cranelift_codegen::ir::types::I8, 0);
                self.b.ins().splat(X, zero)
            }
        }
    }

    pub(super) fn set_xmm(&mut self, r: u8, v: Val) {
        let n = usize::from(r & 15);
        let v = self.vec(v);
        self.b.def_var(self.xmm[n], v);
        self.store_state(v, offset_of!(State, xmm) + 16 * n);
    }
}
