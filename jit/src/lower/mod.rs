//! From IR to CLIF: one function for a region.
//!
//! Registers are kept as values and stored before the next access to memory, in loops and long blocks only where the region is left,
//! the CPU is called, or control gets to where memory has to have them; arithmetic flags where the region is left or blocks join that
//! need them. What floating point makes of vector registers goes to [`State`] at once, and is kept as a value for later reads. Where
//! blocks join, values are kept in loops only ([`live`]); elsewhere registers are taken from memory again. So at any instruction the
//! state in memory is precise but for those, the instruction pointer and the budget, which the cold way out puts there.

mod control;
mod dynamic;
mod flags;
mod fp;
mod int;
mod live;
mod mem;
mod nearby;
mod ops;
mod paged;
mod plan;
mod sticky;
mod vec;
mod x87;
mod x87_fast;

pub(crate) use live::kept_loops;
pub(crate) use ops::lowerable;

use crate::region::{Blocks, Region};
use crate::vm::{Entry, STATE_BIAS, Vm};
use cranelift_codegen::ir::types::{I8, I16, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, AliasRegion, AliasRegionData, Block as ClifBlock, BlockArg, InstBuilder, JumpTableData, MemFlagsData, SigRef, Signature,
    Type, Value,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, Variable};
use egret_cpu::State;
use egret_isa::insn::{Ctx, Insn, Mode};
use egret_isa::ir::Val;
use egret_isa::ops::Width;
use flags::Fl;
use plan::Plan;
use rustc_hash::FxHashMap;
use std::mem::offset_of;

/// A value of the IR as the code being made has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lv {
    /// Nothing: the op has no result.
    None,
    /// Known.
    Const(u64),
    /// The instruction pointer that goes with the page's first byte, plus this, wrapping.
    Rip(i64),
    /// A CLIF value of the type of the width; the rest is zero.
    Int(Value, Width),
    /// A vector, as `i8x16`.
    Vec(Value),
}

/// The signature of stubs: `preserve_all`, four words.
#[must_use]
pub(crate) fn stub_signature() -> Signature {
    let mut s = Signature::new(CallConv::PreserveAll);
    s.params.extend([I64; 4].map(AbiParam::new));
    s
}

/// The signature of a region's function: the state, the [`Entry`]; an exit code comes back.
#[must_use]
pub(crate) fn region_signature() -> Signature {
    let mut s = Signature::new(CallConv::Tail);
    s.params.extend([I64; 2].map(AbiParam::new));
    s.returns.push(AbiParam::new(I64));
    s
}

/// The CLIF type of a width.
pub(crate) fn ty(w: Width) -> Type {
    match w {
        Width::B => I8,
        Width::W => I16,
        Width::D => I32,
        Width::Q => I64,
    }
}

/// The displacement of an offset in [`State`] from the pointer that compiled code has.
fn from_state(offset: usize) -> i32 {
    (offset as i64 - STATE_BIAS) as i32
}

/// Memory flags by what lies there; the kinds never overlap.
#[derive(Clone, Copy)]
struct Places {
    state: MemFlagsData,
    ram: MemFlagsData,
    tlb: MemFlagsData,
    vm: MemFlagsData,
}

/// What a block with one predecessor takes over from it.
#[derive(Clone)]
struct Inherited {
    flags: Fl,
    executed: i64,
    low: [Option<Value>; 16],
    have: live::Regs,
    dirty: live::Regs,
    checked: Vec<nearby::Checked>,
}

pub(crate) struct Lower<'a, 'f> {
    b: FunctionBuilder<'f>,
    region: &'a Region,
    plans: Vec<Plan>,
    clif: Vec<ClifBlock>,
    inherited: Vec<Option<Inherited>>,
    places: Places,
    stub: SigRef,
    tail: SigRef,
    native: SigRef,
    /// The signature of a [`crate::leaf::Leaf`].
    leaf: SigRef,
    x87: x87::Kept,
    state: Value,
    /// Address of the [`Entry`] that the region was entered by.
    entry: Value,
    budget: Variable,
    gpr: [Variable; 16],
    xmm: [Variable; 16],
    /// Upper halves of YMM registers.
    ymm: [Variable; 16],
    /// Registers that are values where control comes together at a block; memory has the others.
    keeps: Vec<live::Regs>,
    /// Registers that only these values have there, for all that is known.
    held: Vec<live::Regs>,
    /// For each entry of the region the code that loads its registers and goes there.
    inner: Vec<ClifBlock>,
    /// What is known to be another value and a constant.
    sums: FxHashMap<Value, (Value, i64)>,
    /// Accesses that have a slot, and the slots.
    sites: FxHashMap<(usize, usize), usize>,
    /// The blocks that hold registers back from memory, as a set.
    holding: Blocks,
    slots: Vec<paged::Slot>,
    op_at: usize,
    /// Vectors that are zero but for so many bytes at the low end.
    scalars: FxHashMap<Value, u8>,
    /// Vectors that are an integer in the low half, zero above.
    ints: FxHashMap<Value, Value>,
    /// Instructions for [`crate::vm::CallSite`]s, with their offsets in the page.
    calls: Vec<(u16, Insn)>,
    /// The ways out that all blocks share: with (code, offset, budget), with (rip, budget), with (code).
    leave_to: ClifBlock,
    chain_to: ClifBlock,
    return_to: ClifBlock,
    /// What follows a call that did not just do its work: with (status).
    called_to: ClifBlock,

    /// The block being lowered.
    block: usize,
    vals: Vec<Lv>,
    /// Values that cannot be larger than this.
    limits: Vec<u64>,
    /// Low halves of registers, as last written in this block.
    low: [Option<Value>; 16],
    /// Registers (and whether the budget) whose variable has their value; memory has the others.
    have: live::Regs,
    /// Registers whose value is not in [`State`] yet; a part of `have`.
    dirty: live::Regs,
    /// The same when the instruction began, and values of before for registers that it has changed.
    old_dirty: live::Regs,
    old: Vec<(live::Reg, Value)>,
    /// Whether the instruction does floating point.
    floats: bool,
    checked: Vec<nearby::Checked>,
    flags: Fl,
    merged: Vec<Fl>,
    /// Instructions begun since the budget was last brought up to date.
    executed: i64,
    insn: Option<(u16, Insn)>,
    /// The cold block that leaves before this instruction, and whether it has its code.
    leave: Option<(ClifBlock, bool)>,
    /// Registers that it stores.
    leave_with: Vec<(live::Reg, Value)>,
    /// The remainder of the last division.
    remainder: Option<Lv>,
    /// The upper half of the last load of 32 bytes.
    upper: Option<Lv>,
    /// Upper halves of YMM registers that are zero since this block cleared them.
    clear_hi: u16,
    /// Floating-point comparisons so far.
    compares: usize,
    /// The condition under which ops take effect.
    predicate: Option<Value>,
    locked: Option<mem::Locked>,
    ended: bool,
}

/// Lowers a region into the builder's function: the instructions that need call sites. With `hold` registers are held back from memory
/// in loops and long blocks, until something looks: then there are more values on the cold ways out.
pub(crate) fn lower(builder: FunctionBuilder<'_>, region: &Region, config: TargetFrontendConfig, hold: bool) -> Vec<(u16, Insn)> {
    let mut l = Lower::new(builder, region, config, hold);
    l.entries();
    for n in 0..region.blocks.len() {
        l.one_block(n);
    }
    l.ways_out();
    l.b.seal_all_blocks();
    let calls = std::mem::take(&mut l.calls);
    l.b.finalize(config);
    calls
}

impl<'a, 'f> Lower<'a, 'f> {
    fn new(mut b: FunctionBuilder<'f>, region: &'a Region, config: TargetFrontendConfig, hold: bool) -> Self {
        let mut alias = |n: u32, name: &'static str| -> AliasRegion {
            b.func.dfg.alias_regions.insert(AliasRegionData { user_id: n, description: name.into() })
        };
        let plain = MemFlagsData::new().with_notrap();
        let trusted = MemFlagsData::trusted();
        let places = Places {
            state: trusted.with_alias_region(Some(alias(0, "state"))),
            ram: plain.with_alias_region(Some(alias(1, "ram"))),
            tlb: trusted.with_alias_region(Some(alias(2, "tlb"))),
            vm: trusted.with_alias_region(Some(alias(3, "vm"))),
        };
        let stub = b.import_signature(stub_signature());
        let tail = b.import_signature(region_signature());
        let mut native = Signature::new(config.default_call_conv);
        native.params.extend([I64; 3].map(AbiParam::new));
        native.returns.push(AbiParam::new(I64));
        let mut leaf = native.clone();
        leaf.params.push(AbiParam::new(I64));
        let (native, leaf) = (b.import_signature(native), b.import_signature(leaf));
        let kept = x87::Kept::new(&mut b);
        let first = b.create_block();
        b.append_block_params_for_function_params(first);
        b.switch_to_block(first);
        b.seal_block(first);
        let (state, entry) = (b.block_params(first)[0], b.block_params(first)[1]);
        let plans = plan::plan(region);
        let loops = paged::loops(region);
        let clif = (0..region.blocks.len()).map(|_| b.create_block()).collect();
        let mut shared = |types: &[Type]| {
            let block = b.create_block();
            for t in types {
                b.append_block_param(block, *t);
            }
            b.set_cold_block(block);
            block
        };
        let leave_to = shared(&[I64, I64, I64]);
        let chain_to = shared(&[I64, I64]);
        let return_to = shared(&[I64]);
        let called_to = shared(&[I64]);
        let var = |b: &mut FunctionBuilder<'f>, t| b.declare_var(t);
        let mut keeps = live::kept(region, &loops, |n| &plans[n].ir.ops);
        let (mut held, mut holding) = (vec![live::Regs::default(); region.blocks.len()], 0);
        if hold {
            held = live::held(&loops, &mut keeps, |n| &plans[n].ir.ops);
            holding = live::holding(region, &loops);
        }
        Lower {
            budget: var(&mut b, I64),
            gpr: std::array::from_fn(|_| var(&mut b, I64)),
            xmm: std::array::from_fn(|_| var(&mut b, vec::X)),
            ymm: std::array::from_fn(|_| var(&mut b, vec::X)),
            held,
            holding,
            keeps,
            sums: FxHashMap::default(),
            scalars: FxHashMap::default(),
            ints: FxHashMap::default(),
            sites: paged::sites(&loops, &plans),
            slots: Vec::new(),
            op_at: 0,
            inner: region.entries.iter().map(|_| b.create_block()).collect(),
            inherited: vec![None; region.blocks.len()],
            b,
            region,
            plans,
            clif,
            places,
            stub,
            tail,
            native,
            leaf,
            x87: kept,
            state,
            entry,
            calls: Vec::new(),
            leave_to,
            chain_to,
            return_to,
            called_to,
            block: 0,
            vals: Vec::new(),
            limits: Vec::new(),
            low: [None; 16],
            have: live::Regs::default(),
            dirty: live::Regs::default(),
            old_dirty: live::Regs::default(),
            floats: false,
            old: Vec::new(),
            checked: Vec::new(),
            flags: Fl::Memory(None),
            merged: Vec::new(),
            executed: 0,
            insn: None,
            leave: None,
            leave_with: Vec::new(),
            remainder: None,
            upper: None,
            clear_hi: 0,
            compares: 0,
            predicate: None,
            locked: None,
            ended: false,
        }
    }

    fn ctx(&self) -> Ctx {
        self.region.ctx
    }

    fn code64(&self) -> bool {
        self.ctx().mode() == Mode::M64
    }

    fn iconst(&mut self, v: u64) -> Value {
        self.b.ins().iconst(I64, v as i64)
    }

    fn load_state(&mut self, t: Type, offset: usize) -> Value {
        self.b.ins().load(t, self.places.state, self.state, from_state(offset))
    }

    fn store_state(&mut self, v: Value, offset: usize) {
        self.b.ins().store(self.places.state, v, self.state, from_state(offset));
    }

    /// The function's beginning: goes to the entry asked for, with all registers loaded.
    ///
    /// What is in front of the choice of entries may be left out: see [`crate::frame`].
    fn entries(&mut self) {
        let entry = self.entry;
        self.make_slots();
        self.find_x87();
        let entries = self.region.entries.len();
        let stubs: Vec<ClifBlock> = (0..entries).map(|_| self.b.create_block()).collect();
        if let [only] = stubs[..] {
            self.b.ins().jump(only, &[]);
        } else {
            let index = self.b.ins().load(I32, self.places.vm, entry, offset_of!(Entry, index) as i32);
            let calls: Vec<_> = stubs.iter().map(|s| self.b.func.dfg.block_call(*s, &[])).collect();
            let table = self.b.create_jump_table(JumpTableData::new(calls[0], &calls));
            self.b.ins().br_table(index, table);
        }
        for (n, stub) in stubs.iter().enumerate() {
            self.b.switch_to_block(*stub);
            self.b.seal_block(*stub);
            if !self.one_page() {
                let rip = self.load_state(I64, offset_of!(State, rip));
                let base = self.b.ins().iadd_imm_s(rip, -i64::from(self.region.entries[n]));
                self.store_state(base, offset_of!(State, page));
            }
            let inner = self.inner[n];
            self.b.ins().jump(inner, &[]);
            self.b.switch_to_block(inner);
            let target = self.region.blocks.iter().position(|b| b.entry == Some(n)).unwrap_or(0);
            self.forget_registers();
            self.load(self.keeps[target]);
            self.b.ins().jump(self.clif[target], &[]);
        }
    }

    /// Whether CS begins at zero: then the page is the same for all entries, and is in [`State`] when the region is entered.
    fn one_page(&self) -> bool {
        self.code64() || self.ctx().has(Ctx::FLAT)
    }

    /// Sees to it that these registers' variables have their values.
    fn load(&mut self, regs: live::Regs) {
        for reg in regs.iter() {
            self.reg_value(reg);
        }
        if regs.budget {
            self.budget_value();
        }
    }

    /// A variable's value, which memory has if the variable does not.
    fn value(&mut self, had: bool, var: Variable, t: Type, at: usize) -> Value {
        if !had {
            let v = self.load_state(t, at);
            self.b.def_var(var, v);
        }
        self.b.use_var(var)
    }

    /// A general register.
    pub(super) fn gpr_value(&mut self, r: usize) -> Value {
        let had = self.have.gpr >> r & 1 != 0;
        self.have.gpr |= 1 << r;
        self.value(had, self.gpr[r], I64, offset_of!(State, gpr) + 8 * r)
    }

    pub(super) fn set_gpr_value(&mut self, r: usize, v: Value) {
        self.have.gpr |= 1 << r;
        self.b.def_var(self.gpr[r], v);
    }

    /// The lower half of a vector register.
    pub(super) fn xmm_value(&mut self, r: usize) -> Value {
        let had = self.have.xmm >> r & 1 != 0;
        self.have.xmm |= 1 << r;
        self.value(had, self.xmm[r], vec::X, offset_of!(State, xmm) + 16 * r)
    }

    /// Its upper half.
    pub(super) fn ymm_value(&mut self, r: usize) -> Value {
        let had = self.have.ymm >> r & 1 != 0;
        self.have.ymm |= 1 << r;
        self.value(had, self.ymm[r], vec::X, offset_of!(State, ymm_hi) + 16 * r)
    }

    /// The budget as it was last brought up to date.
    pub(super) fn budget_value(&mut self) -> Value {
        let had = std::mem::replace(&mut self.have.budget, true);
        self.value(had, self.budget, I64, offset_of!(State, budget))
    }

    /// Memory has newer values of all registers.
    pub(super) fn forget_registers(&mut self) {
        self.have = live::Regs::default();
        self.low = [None; 16];
        self.clear_hi = 0;
    }

    /// Brings the registers in [`State`] up to date.
    fn store_dirty(&mut self) {
        self.store_but(live::Regs::default());
    }

    /// The same, but for some.
    fn store_but(&mut self, held: live::Regs) {
        for reg in self.dirty.without(held).iter() {
            let v = self.reg_value(reg);
            self.store_reg(reg, v);
        }
        self.dirty = self.dirty.and(held);
    }

    fn reg_value(&mut self, reg: live::Reg) -> Value {
        match reg {
            live::Reg::Gpr(r) => self.gpr_value(r),
            live::Reg::Xmm(r) => self.xmm_value(r),
            live::Reg::Ymm(r) => self.ymm_value(r),
        }
    }

    fn store_reg(&mut self, reg: live::Reg, v: Value) {
        let at = match reg {
            live::Reg::Gpr(r) => offset_of!(State, gpr) + 8 * r,
            live::Reg::Xmm(r) => offset_of!(State, xmm) + 16 * r,
            live::Reg::Ymm(r) => offset_of!(State, ymm_hi) + 16 * r,
        };
        self.store_state(v, at);
    }

    /// A register is about to change: what it was may be wanted by a way out from before the instruction.
    fn note_old(&mut self, reg: live::Reg) {
        if self.dirty.has(reg) && !self.old.iter().any(|(r, _)| *r == reg) {
            let old = self.reg_value(reg);
            self.old.push((reg, old));
        }
    }

    fn one_block(&mut self, n: usize) {
        self.block = n;
        self.b.switch_to_block(self.clif[n]);
        let start = self.inherited[n].take().unwrap_or_else(|| Inherited {
            flags: Fl::Memory(self.plans[n].kind),
            executed: 0,
            low: [None; 16],
            have: self.keeps[n],
            dirty: self.held[n],
            checked: Vec::new(),
        });
        (self.flags, self.executed, self.low, self.dirty, self.checked) =
            (start.flags, start.executed, start.low, start.dirty, start.checked);
        self.have = start.have;
        self.end_run();
        self.clear_hi = 0;
        self.vals.clear();
        self.limits.clear();
        self.ended = false;
        let ops = std::mem::take(&mut self.plans[n].ir.ops);
        let mut at = 0;
        while at < ops.len() && !self.ended {
            at = self.op(&ops, at);
        }
        self.end_insn();
        if !self.ended {
            self.end_of_block();
        }
    }

    /// The lowered value of an IR value.
    fn val(&self, v: Val) -> Lv {
        self.vals.get(v.0 as usize).copied().unwrap_or(Lv::None)
    }

    fn push(&mut self, v: Lv) {
        self.vals.push(v);
        self.limits.push(u64::MAX);
    }

    fn jump(&mut self, to: ClifBlock, args: &[Value]) {
        let args: Vec<BlockArg> = args.iter().map(|v| (*v).into()).collect();
        self.b.ins().jump(to, &args);
    }

    /// Calls a helper: `stub` is the offset of its address in [`Stubs`].
    fn call_stub(&mut self, stub: usize, args: [Value; 3]) {
        let vm = self.load_state(I64, offset_of!(State, engine));
        let target = self.b.ins().load(I64, self.places.vm, vm, (offset_of!(Vm, stubs) + stub) as i32);
        self.b.ins().call_indirect(self.stub, target, &[self.state, args[0], args[1], args[2]]);
    }
}
