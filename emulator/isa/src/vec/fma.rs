//! Fused multiply-add.

use super::lanes::*;
use super::{FmaOp, Fmt, Lanes, Shape};
use crate::fp::{self, Env};

/// The result of `op` on operands 1, 2 and 3 under `env`, which collects the exceptions of all lanes.
pub fn eval_fma(op: FmaOp, env: &mut Env, a: u128, b: u128, c: u128) -> u128 {
    let (x, y, z) = op.arrange(a, b, c);
    let low = match op.fmt {
        Fmt::F32 => Shape::F32.mask(),
        Fmt::F64 => Shape::F64.mask(),
    };
    match (op.fmt, op.lanes) {
        (Fmt::F32, Lanes::Scalar) => a & !low | u128::from(lane32(op, env, 0, x as u32, y as u32, z as u32)),
        (Fmt::F64, Lanes::Scalar) => a & !low | u128::from(lane64(op, env, 0, x as u64, y as u64, z as u64)),
        (Fmt::F32, Lanes::Packed) => {
            let (x, y, z) = (split_u32(x), split_u32(y), split_u32(z));
            join_u32(core::array::from_fn(|n| lane32(op, env, n, x[n], y[n], z[n])))
        }
        (Fmt::F64, Lanes::Packed) => {
            let (x, y, z) = (split_u64(x), split_u64(y), split_u64(z));
            join_u64(core::array::from_fn(|n| lane64(op, env, n, x[n], y[n], z[n])))
        }
    }
}

fn lane32(op: FmaOp, env: &mut Env, lane: usize, x: u32, y: u32, z: u32) -> u32 {
    let (product, addend) = op.kind.negates(lane);
    fp::fma32(env, x, y, z, product, addend)
}

fn lane64(op: FmaOp, env: &mut Env, lane: usize, x: u64, y: u64, z: u64) -> u64 {
    let (product, addend) = op.kind.negates(lane);
    fp::fma64(env, x, y, z, product, addend)
}
