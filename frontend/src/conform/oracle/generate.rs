//! Programs out of encodings: code, placement, and a state in which it finds its operands.

use super::encode::{Recipe, decoded, decoded_with_offsets};
use super::program::Program;
use super::rules::{acceptable, condition_one, flags, pointers, undefined_result};
use super::slot::{CODE_ONE, CODE_TWO, PAGE, WINDOW};
use super::state::{selector, state, target};
use super::values::Rng;
use egret_isa::insn::Mode;
use iced_x86::{Code, FlowControl, Mnemonic as M, OpKind, Register};

/// States that one piece of code is run with before the next is made.
pub const STATES: u64 = 16;

/// The encodings that programs are made of.
pub struct Generator {
    /// By mode.
    pub recipes: [Vec<Recipe>; 3],
    /// Modes to use.
    pub modes: Vec<Mode>,
    seed: u64,
}

/// The code of a program.
pub(super) struct Text {
    pub(super) code: Code,
    pub(super) mode: Mode,
    pub(super) at: u64,
    pub(super) insns: Vec<Vec<u8>>,
}

impl Generator {
    /// A generator for programs of these encodings; modes without any are left out.
    #[must_use]
    pub fn new(recipes: [Vec<Recipe>; 3], modes: &[Mode], seed: u64) -> Generator {
        let modes = modes.iter().copied().filter(|m| !recipes[*m as usize].is_empty()).collect();
        Generator { recipes, modes, seed }
    }

    /// Program number `n` of the seed.
    #[must_use]
    pub fn program(&self, n: u64) -> Option<Program> {
        let group = n / STATES;
        let mut rng = Rng::of(self.seed, group);
        // 64-bit code gets half of the programs.
        let mode = if rng.chance(50) && self.modes.contains(&Mode::M64) { Mode::M64 } else { rng.of_list(&self.modes) };
        let recipes = &self.recipes[mode as usize];
        // Every encoding gets its turn.
        let start = Rng::of(self.seed, u64::MAX - mode as u64).next();
        let first = &recipes[(start.wrapping_add(group) % recipes.len() as u64) as usize];
        let text = self.text(mode, first, &mut rng)?;
        Some(state(&text, &mut Rng::of(self.seed ^ 0x5851_f42d_4c95_7f2d, n)))
    }

    /// Program for one encoding alone, as vectors have them.
    #[must_use]
    pub fn single(recipe: &Recipe, seed: u64) -> Option<Program> {
        let mut rng = Rng::of(seed, recipe.code as u64 * 4 + recipe.mode as u64);
        let insn = instruction(recipe, &mut rng)?;
        let mut text = Text { code: recipe.code, mode: recipe.mode, at: CODE_ONE, insns: vec![insn] };
        place(&mut text, &mut rng);
        Some(state(&text, &mut rng))
    }

    fn text(&self, mode: Mode, first: &Recipe, rng: &mut Rng) -> Option<Text> {
        let count = match rng.below(10) {
            0..=5 => 1,
            6 | 7 => 2,
            _ => 3 + rng.below(4),
        };
        let mut insns = vec![instruction(first, rng)?];
        for _ in 1..count {
            let recipes = &self.recipes[mode as usize];
            let recipe = &recipes[rng.below(recipes.len() as u64) as usize];
            let at = rng.below(insns.len() as u64 + 1) as usize;
            if let Some(insn) = instruction(recipe, rng) {
                insns.insert(at, insn);
            }
        }
        if !defined(&insns, mode) {
            insns = vec![instruction(first, rng)?];
        }
        straighten(&mut insns, mode);
        let mut text = Text { code: first.code, mode, at: CODE_ONE, insns };
        place(&mut text, rng);
        Some(text)
    }
}

fn instruction(recipe: &Recipe, rng: &mut Rng) -> Option<Vec<u8>> {
    for _ in 0..8 {
        let mut bytes = recipe.write(rng)?;
        settle(&mut bytes, recipe.mode, rng);
        let insn = decoded(&bytes, recipe.mode);
        if insn.code() == recipe.code && insn.len() == bytes.len() && acceptable(&insn, &bytes, recipe.mode) {
            return Some(bytes);
        }
    }
    None
}

/// Branches into the middle of an instruction go to its end: what its bytes mean from there on, nobody has looked at.
fn straighten(insns: &mut [Vec<u8>], mode: Mode) {
    for n in 0..insns.len() {
        let (here, rest) = insns.split_at_mut(n + 1);
        let Some(bytes) = here.last_mut() else { return };
        let (insn, at) = decoded_with_offsets(bytes, mode);
        if !matches!(insn.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64) || !at.has_immediate() {
            continue;
        }
        let ahead = insn.near_branch_target().wrapping_sub(insn.len() as u64);
        let mut end = 0;
        let Some(next) = rest.iter().find_map(|b| {
            end += b.len() as u64;
            (end >= ahead).then_some(end)
        }) else {
            continue;
        };
        if ahead != 0
            && let Some(place) = bytes.get_mut(at.immediate_offset()..at.immediate_offset() + at.immediate_size())
        {
            let size = place.len();
            place.copy_from_slice(&next.to_le_bytes()[..size]);
        }
    }
}

/// Branches go a little ahead; absolute addresses point at data.
fn settle(bytes: &mut [u8], mode: Mode, rng: &mut Rng) {
    let (insn, at) = decoded_with_offsets(bytes, mode);
    let mut put = |offset: usize, size: usize, value: u64| {
        if let Some(place) = bytes.get_mut(offset..offset + size) {
            place.copy_from_slice(&value.to_le_bytes()[..size]);
        }
    };
    let near = matches!(insn.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    if near && at.has_immediate() {
        let ahead = if rng.chance(85) { rng.below(5) } else { rng.below(100) };
        put(at.immediate_offset(), at.immediate_size(), ahead);
    }
    let far = matches!(insn.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32);
    if far && at.has_immediate2() {
        let target = CODE_ONE - if mode == Mode::M16 { WINDOW } else { 0 } + rng.below(PAGE);
        put(at.immediate_offset(), at.immediate_size(), target);
        put(at.immediate_offset2(), 2, selector(mode, rng).into());
    }
    let absolute = insn.memory_base() == Register::None && insn.memory_index() == Register::None;
    if at.has_displacement() && at.displacement_size() >= 2 && absolute && rng.chance(80) {
        let start = if mode == Mode::M16 { 0 } else { WINDOW };
        put(at.displacement_offset(), at.displacement_size(), target(insn.memory_size().size(), rng) - WINDOW + start);
    }
    if insn.is_ip_rel_memory_operand() && rng.chance(80) {
        // As if the code stood at the start of its page: wherever it goes, the operand stays near data.
        let disp = target(insn.memory_size().size(), rng).wrapping_sub(CODE_ONE + 0x800);
        put(at.displacement_offset(), at.displacement_size(), disp);
    }
}

/// Whether no instruction depends on what an earlier one leaves undefined.
fn defined(insns: &[Vec<u8>], mode: Mode) -> bool {
    let (mut undefined, mut noted, mut c1, mut branches) = (0, false, false, false);
    for (n, bytes) in insns.iter().enumerate() {
        let insn = decoded(bytes, mode);
        let f = flags(&insn, None);
        if f.reads & undefined != 0 || undefined_result(&insn, None) && n + 1 < insns.len() {
            return false;
        }
        let (notes, stores) = pointers(&insn);
        // The image has the host's MXCSR_MASK, which nothing must read again.
        let image = matches!(insn.mnemonic(), M::Fxsave | M::Fxsave64) && n + 1 < insns.len();
        // Where a far CALL out of 64-bit code pushes if RSP has more than 32 bits, the manual does not say.
        let leaves = mode == Mode::M64 && n > 0 && insn.is_call_far_indirect();
        let (open, looks) = condition_one(&insn);
        if c1 && looks || noted && stores || image || leaves {
            return false;
        }
        noted |= notes;
        c1 |= open;
        // A branch may skip what writes them.
        branches |= insn.flow_control() != FlowControl::Next;
        undefined = if branches { undefined } else { undefined & !f.writes } | f.undefined;
    }
    true
}

/// Puts the code somewhere in a page, across pages, at the end of one, or over it.
fn place(text: &mut Text, rng: &mut Rng) {
    let length = text.insns.iter().map(Vec::len).sum::<usize>() as u64;
    text.at = match rng.below(20) {
        0 => CODE_ONE + PAGE - length - 1,
        // Cut off: the last instruction's bytes, or INT3, are not there.
        1 => CODE_ONE + PAGE - 1 - rng.below(length),
        2 => CODE_ONE + PAGE - length,
        3 | 4 => CODE_TWO + PAGE - rng.below(length + 1),
        5 => CODE_ONE,
        _ => CODE_ONE + 0x800 + rng.below(64),
    };
}
