//! From a program that fails to the least that still does.

use super::program::{Program, high_sp, selectors};
use super::slot::CODE_ONE;
use super::worker::Worker;
use crate::conform::regs::RegFile;

/// The least program found that still differs on engine number `n`, with its differences.
pub fn shrink(worker: &mut Worker, n: usize, program: Program) -> Option<(Program, Vec<String>)> {
    let mut best = program;
    let mut list = fails(worker, n, &best)?;
    loop {
        let mut better = false;
        for candidate in candidates(&best) {
            if let Some(found) = fails(worker, n, &candidate) {
                (best, list, better) = (candidate, found, true);
                break;
            }
        }
        if !better {
            return Some((best, list));
        }
    }
}

fn fails(worker: &mut Worker, n: usize, program: &Program) -> Option<Vec<String>> {
    worker.differences(n, program).ok().flatten().filter(|list| !list.is_empty())
}

/// Simpler programs, the greatest steps first. Each is simpler than `p` by some measure, so that this ends.
fn candidates(p: &Program) -> Vec<Program> {
    let mut list = Vec::new();
    let mut add = |change: &dyn Fn(&mut Program)| {
        let mut next = p.clone();
        change(&mut next);
        if next.insns != p.insns || next.regs != p.regs || next.memory != p.memory || next.at != p.at {
            list.push(next);
        }
    };
    if p.insns.len() > 1 {
        for n in 0..p.insns.len() {
            add(&|next| drop(next.insns.remove(n)));
        }
    }
    let plain = RegFile::default();
    add(&|next| {
        next.regs.rip = next.regs.rip.wrapping_sub(next.at).wrapping_add(CODE_ONE);
        next.at = CODE_ONE;
    });
    add(&|next| next.regs.vec = plain.vec);
    add(&|next| (next.regs.x87, next.regs.x87_used, next.regs.fsw) = (plain.x87, plain.x87_used, 0));
    add(&|next| next.regs.rflags = 0x202);
    add(&|next| next.regs.mxcsr = 0x1f80);
    add(&|next| next.regs.fcw = 0x37f);
    add(&|next| next.regs.fsw &= !0x4700);
    let data = selectors(p.mode).1;
    add(&|next| {
        for n in [0, 3, 4, 5] {
            next.regs.sel[n] = data;
            next.regs.base[n] = super::program::base(data);
        }
    });
    for n in 0..p.memory.len() {
        add(&|next| drop(next.memory.remove(n)));
        if p.memory[n].1.len() > 8 {
            add(&|next| {
                let half = next.memory[n].1.len() / 2;
                next.memory[n].1.truncate(half);
            });
            add(&|next| {
                let half = next.memory[n].1.len() / 2;
                next.memory[n].0 += half as u64;
                next.memory[n].1.drain(..half);
            });
        }
    }
    for n in 0..16 {
        add(&|next| next.regs.gpr[n] = if n == 4 { high_sp(p.mode) } else { 0 });
        add(&|next| next.regs.vec[n] = [0; 4]);
    }
    for n in 0..8 {
        add(&|next| {
            next.regs.x87[n] = (0, 0);
            next.regs.x87_used &= !(1 << n);
        });
    }
    list
}
