//! Jumps whose target is only known at run time: returns and jump tables mostly stay in the region, and are looked up among its
//! entries before the jump cache is asked.

use super::Lower;
use crate::region::{Block, PAGE, jumps_by_table};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{Block as ClifBlock, InstBuilder, JumpTableData, Value};
use egret_cpu::State;
use iced_x86::Mnemonic;
use std::mem::offset_of;

/// So few entries are compared one by one.
const FEW: usize = 3;
/// log2 of the largest table.
const MOST_BITS: u32 = 8;

/// A hash without collisions: `(offset >> shift ^ offset >> other) & mask`.
struct Hash {
    shift: u32,
    other: Option<u32>,
    bits: u32,
}

impl Hash {
    /// One for these offsets into a page, the smallest table first.
    fn find(offsets: &[u16]) -> Option<Hash> {
        let least = offsets.len().next_power_of_two().trailing_zeros();
        let injective = |h: &Hash| {
            let mut seen = [false; 1 << MOST_BITS];
            offsets.iter().all(|o| !std::mem::replace(&mut seen[h.of(*o)], true))
        };
        (least..=MOST_BITS).find_map(|bits| {
            let others = |shift| std::iter::once(None).chain((shift + 1..12).map(Some));
            (0..12).flat_map(|shift| others(shift).map(move |other| Hash { shift, other, bits })).find(&injective)
        })
    }

    fn of(&self, offset: u16) -> usize {
        let at = usize::from(offset);
        (at >> self.shift ^ self.other.map_or(0, |o| at >> o)) & ((1 << self.bits) - 1)
    }
}

impl Lower<'_, '_> {
    /// Ends the block by going to an instruction pointer that may be an entry of this region.
    pub(super) fn leave_dynamic(&mut self, rip: Value) {
        let likely = self.likely_entries();
        let offsets: Vec<u16> = likely.iter().map(|n| self.region.entries[*n]).collect();
        let hash = if self.region.base.is_none() && !likely.is_empty() { Hash::find(&offsets) } else { None };
        let Some(hash) = hash else { return self.leave_far(rip) };
        let base = self.load_state(I64, offset_of!(State, page));
        let offset = self.b.ins().isub(rip, base);
        let offset = if self.code64() { offset } else { self.b.ins().band_imm_u(offset, 0xffff_ffff) };
        let far = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, offset, PAGE as i64);
        let (out, near, look, miss) = (self.b.create_block(), self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.ins().brif(far, out, &[], near, &[]);
        self.b.seal_block(out);
        self.b.seal_block(near);
        self.b.switch_to_block(out);
        let (flags, dirty, have) = (self.flags, self.dirty, self.have);
        self.leave_far(rip);
        (self.flags, self.dirty, self.have) = (flags, dirty, have);
        self.b.switch_to_block(near);
        self.store_dirty();
        let reads_flags = |n: &usize| self.region.blocks.iter().zip(&self.plans).any(|(b, p)| b.entry == Some(*n) && p.flags_live);
        if likely.iter().any(reads_flags) {
            self.sync_flags();
        }
        let budget = self.budget_less(self.executed);
        let spent = self.b.ins().icmp_imm_s(IntCC::SignedLessThanOrEqual, budget, 0);
        self.b.ins().brif(spent, miss, &[], look, &[]);
        self.b.seal_block(look);
        self.b.switch_to_block(look);
        self.store_state(budget, offset_of!(State, budget));
        if likely.len() <= FEW {
            for n in likely {
                let next = self.b.create_block();
                self.try_entry(n, offset, next);
                self.b.seal_block(next);
                self.b.switch_to_block(next);
            }
            self.b.ins().jump(miss, &[]);
        } else {
            self.table(&hash, &likely, offset, miss);
        }
        self.b.seal_block(miss);
        self.b.switch_to_block(miss);
        self.sync_flags();
        let to = self.chain_to;
        self.jump(to, &[rip, budget]);
        self.ended = true;
    }

    /// Whether the instruction jumps to an address known at run time only and does nothing else, in 64-bit mode: what lies in this page
    /// is canonical, so the address is looked at where the jump turns out to leave it.
    pub(super) fn only_jumps(&self) -> bool {
        self.code64() && self.insn.is_some_and(|(_, i)| jumps_by_table(&i))
    }

    /// Ends the block by going elsewhere.
    fn leave_far(&mut self, rip: Value) {
        if self.only_jumps() {
            self.check_ip_value(rip);
            self.end_insn();
        }
        self.leave_block_to(rip);
    }

    /// The entries that a jump to somewhere may go to: a return goes to what follows a call.
    fn likely_entries(&self) -> Vec<usize> {
        let all = 0..self.region.entries.len();
        if self.insn.is_none_or(|(_, i)| i.mnemonic != Mnemonic::Ret) {
            return all.collect();
        }
        let after_call = |at: u16| {
            let last = |b: &Block| b.insns.last().is_some_and(|(o, i)| i.mnemonic == Mnemonic::Call && o + u16::from(i.len) == at);
            self.region.blocks.iter().any(last)
        };
        all.filter(|n| after_call(self.region.entries[*n])).collect()
    }

    /// Goes to entry number `n` if `offset` is its own, else to `miss`.
    fn try_entry(&mut self, n: usize, offset: Value, miss: ClifBlock) {
        let same = self.b.ins().icmp_imm_u(IntCC::Equal, offset, i64::from(self.region.entries[n]));
        self.b.ins().brif(same, self.inner[n], &[], miss, &[]);
    }

    fn table(&mut self, hash: &Hash, likely: &[usize], offset: Value, miss: ClifBlock) {
        let at = |l: &mut Self, shift: u32| if shift == 0 { offset } else { l.b.ins().ushr_imm_u(offset, i64::from(shift)) };
        let mut index = at(self, hash.shift);
        if let Some(other) = hash.other {
            let other = at(self, other);
            index = self.b.ins().bxor(index, other);
        }
        let index = self.b.ins().band_imm_u(index, (1 << hash.bits) - 1);
        debug_assert_eq!(self.b.func.dfg.value_type(index), I64);
        let index = self.b.ins().ireduce(cranelift_codegen::ir::types::I32, index);
        let mut slots = vec![miss; 1 << hash.bits];
        let tries: Vec<ClifBlock> = likely.iter().map(|_| self.b.create_block()).collect();
        for (n, block) in likely.iter().zip(&tries) {
            slots[hash.of(self.region.entries[*n])] = *block;
        }
        let calls: Vec<_> = slots.iter().map(|b| self.b.func.dfg.block_call(*b, &[])).collect();
        let miss_call = self.b.func.dfg.block_call(miss, &[]);
        let table = self.b.create_jump_table(JumpTableData::new(miss_call, &calls));
        self.b.ins().br_table(index, table);
        for (n, block) in likely.iter().zip(tries) {
            self.b.seal_block(block);
            self.b.switch_to_block(block);
            self.try_entry(*n, offset, miss);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_injective() {
        let rows: [&[u16]; 5] = [
            &[7],
            &[0, 4095],
            &[1, 2, 3, 4, 5],
            &[0x9e0, 0x9c8, 0xa70, 0xa80, 0xa90, 0xaa0, 0xab0],
            &[0, 16, 32, 256, 512, 1024, 4080, 4081],
        ];
        for offsets in rows {
            let h = Hash::find(offsets).expect("a hash");
            let mut places: Vec<usize> = offsets.iter().map(|o| h.of(*o)).collect();
            assert!(places.iter().all(|p| *p < 1 << h.bits));
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), offsets.len(), "{offsets:x?}");
        }
    }
}
