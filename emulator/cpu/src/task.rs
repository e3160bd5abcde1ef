//! The task-state segment: stacks of inner levels, and task switches (SDM Vol. 3, "Task Management").

use crate::Cpu;
use crate::fault::Fault;
use crate::functions::debug::{dr6, dr7};
use crate::segments::{Descriptor, Wrong, is_null, kind, rpl};
use crate::state::{SegReg, cr0, cr4, rflags};
use egret_isa::insn::Seg;

/// Why a task is switched to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// JMP: the old task ends.
    Jump,
    /// CALL, interrupt or exception: the new task links back to the old.
    Nest,
    /// IRET with NT set: back along the link.
    Return,
}

/// Everything that a TSS keeps of a task, whatever its size.
struct Image {
    cr3: Option<u64>,
    eip: u64,
    eflags: u64,
    gpr: [u64; 8],
    /// By number: ES, CS, SS, DS, FS, GS.
    seg: [u16; 6],
    ldt: u16,
    trap: bool,
}

/// Where things are in a TSS.
struct Layout {
    /// Bytes of a register's slot.
    size: u8,
    /// Offset of EIP; EFLAGS and the general registers follow.
    eip: u64,
    /// Offset of ES; the other segments follow.
    seg: u64,
    segs: usize,
    ldt: u64,
    /// The smallest limit allowed.
    limit: u32,
}

const LAYOUT_16: Layout = Layout { size: 2, eip: 0x0e, seg: 0x22, segs: 4, ldt: 0x2a, limit: 0x2b };
const LAYOUT_32: Layout = Layout { size: 4, eip: 0x20, seg: 0x48, segs: 6, ldt: 0x60, limit: 0x67 };
const CR3: u64 = 0x1c;
const TRAP: u64 = 0x64;

fn layout(kind: u8) -> &'static Layout {
    if kind & 8 != 0 { &LAYOUT_32 } else { &LAYOUT_16 }
}

impl Layout {
    fn eflags(&self) -> u64 {
        self.eip + u64::from(self.size)
    }

    fn gpr(&self, n: usize) -> u64 {
        self.eip + u64::from(self.size) * (2 + n as u64)
    }

    fn seg(&self, n: usize) -> u64 {
        self.seg + u64::from(self.size) * n as u64
    }
}

impl Cpu {
    /// SS and ESP for an inner level, from the current TSS.
    pub(crate) fn tss_stack(&mut self, cpl: u8) -> Result<(u16, u64), Fault> {
        let wide = self.tr.attr & 8 != 0;
        let (size, at) = if wide { (4, 4 + 8 * u64::from(cpl)) } else { (2, 2 + 4 * u64::from(cpl)) };
        if !self.tr.present() || at + u64::from(size) + 1 > self.tr.limit.into() {
            return Err(Fault::ts(self.tr.selector));
        }
        let at = self.tr.base.wrapping_add(at);
        let esp = self.read_system(at, size)?;
        let ss = self.read_system(at.wrapping_add(size.into()), 2)?;
        Ok((ss as u16, esp))
    }

    /// The available TSS that a task gate or a far transfer names.
    pub(crate) fn task_target(&mut self, selector: u16, wrong: Wrong) -> Result<Descriptor, Fault> {
        if is_null(selector) || selector & 4 != 0 {
            return Err(wrong(selector));
        }
        let d = self.descriptor(selector, wrong)?;
        if !d.system() || !matches!(d.kind(), kind::TSS | kind::TSS16) {
            return Err(wrong(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        Ok(d)
    }

    /// The busy TSS that the current one links back to, for IRET.
    pub(crate) fn task_link(&mut self) -> Result<Descriptor, Fault> {
        let selector = self.read_system(self.tr.base, 2)? as u16;
        if is_null(selector) || selector & 4 != 0 {
            return Err(Fault::ts(selector));
        }
        let d = self.descriptor(selector, Fault::ts)?;
        if !d.system() || !matches!(d.kind(), kind::TSS_BUSY | kind::TSS16_BUSY) {
            return Err(Fault::ts(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        Ok(d)
    }

    /// Switches tasks; the old task resumes at `state.rip` with `flags`. The outer error comes with the old task unharmed,
    /// the inner one belongs to the new task. `Ok(Ok(true))` when the new task's T flag asks for a debug trap.
    pub(crate) fn task_switch(&mut self, tss: &Descriptor, reason: Reason, flags: u64) -> Result<Result<bool, Fault>, Fault> {
        let new = layout(tss.kind());
        if tss.limit() < new.limit {
            return Err(Fault::ts(tss.selector));
        }
        let image = self.read_image(tss, new)?;
        self.save_task(if reason == Reason::Return { flags & !rflags::NT } else { flags })?;
        // From here on nothing faults that has not been touched already, except the busy flags' pages.
        if reason != Reason::Nest {
            if let Some(at) = self.descriptor_address(self.tr.selector, 8) {
                self.mark_busy(at, false)?;
            }
        } else {
            self.write_system(tss.base(), 2, self.tr.selector.into())?;
        }
        if reason != Reason::Return {
            self.mark_busy(tss.at, true)?;
        }
        let nest = if reason == Reason::Nest { rflags::NT } else { 0 };
        self.tr = SegReg::new(tss.selector, tss.base(), tss.limit(), tss.attr() | u16::from(kind::BUSY));
        self.inhibit.no_trap = true;
        Ok(self.load_task(&image, new, nest))
    }

    fn read_image(&mut self, tss: &Descriptor, l: &Layout) -> Result<Image, Fault> {
        let at = |offset: u64| tss.base().wrapping_add(offset);
        let wide = l.size == 4;
        let mut image = Image {
            cr3: if wide { Some(self.read_system(at(CR3), 4)?) } else { None },
            eip: self.read_system(at(l.eip), l.size)?,
            eflags: self.read_system(at(l.eflags()), l.size)?,
            gpr: [0; 8],
            seg: [0; 6],
            ldt: self.read_system(at(l.ldt), 2)? as u16,
            trap: wide && self.read_system(at(TRAP), 2)? & 1 != 0,
        };
        for n in 0..8 {
            let kept = if wide { 0 } else { self.state.gpr[n] & 0xffff_0000 };
            image.gpr[n] = self.read_system(at(l.gpr(n)), l.size)? | kept;
        }
        for n in 0..l.segs {
            image.seg[n] = self.read_system(at(l.seg(n)), 2)? as u16;
        }
        Ok(image)
    }

    fn save_task(&mut self, flags: u64) -> Result<(), Fault> {
        let l = layout(self.tr.attr as u8 & 15);
        if !self.tr.present() || self.tr.limit < l.limit {
            return Err(Fault::ts(self.tr.selector));
        }
        let base = self.tr.base;
        // Both ends are tried first: a page fault leaves no half-written TSS.
        for end in [l.eip, l.seg(l.segs - 1)] {
            let old = self.read_system(base.wrapping_add(end), 1)?;
            self.write_system(base.wrapping_add(end), 1, old)?;
        }
        self.write_system(base.wrapping_add(l.eip), l.size, self.state.rip)?;
        self.write_system(base.wrapping_add(l.eflags()), l.size, flags)?;
        for n in 0..8 {
            self.write_system(base.wrapping_add(l.gpr(n)), l.size, self.state.gpr[n])?;
        }
        for n in 0..l.segs {
            self.write_system(base.wrapping_add(l.seg(n)), 2, self.state.seg[n].selector.into())?;
        }
        Ok(())
    }

    fn load_task(&mut self, image: &Image, l: &Layout, nest: u64) -> Result<bool, Fault> {
        self.cr0 |= cr0::TS;
        self.dr[7] &= !dr7::LOCAL;
        for (slot, value) in self.state.gpr.iter_mut().zip(image.gpr) {
            *slot = value;
        }
        self.state.rip = image.eip;
        for (slot, selector) in self.state.seg.iter_mut().zip(image.seg) {
            *slot = SegReg::null(selector);
        }
        self.ldtr = SegReg::null(image.ldt);
        let vm = l.size == 4 && image.eflags & rflags::VM != 0;
        self.cpl = if vm { 3 } else { rpl(image.seg[Seg::Cs as usize]) };
        self.set_rflags(self.without_idle_rf(image.eflags & 0x003f_7fd5 | nest));
        self.update_context();
        self.update_step_attention();
        if let Some(cr3) = image.cr3.filter(|_| self.cr0 & cr0::PG != 0) {
            self.cr3 = cr3;
            if self.cr4 & cr4::PAE != 0 {
                self.load_pdptes()?;
            }
            self.switch_context(false);
        }
        self.load_task_segments(image)?;
        let cs = self.state.seg[Seg::Cs as usize];
        self.target(&cs, image.eip)?;
        if image.trap {
            self.dr[6] |= dr6::BT;
        }
        Ok(image.trap)
    }

    fn load_task_segments(&mut self, image: &Image) -> Result<(), Fault> {
        if !is_null(image.ldt) {
            self.ldtr = self.task_ldt(image.ldt)?;
        }
        if self.v86() {
            for seg in Seg::ALL {
                self.load_real(seg, image.seg[seg as usize]);
            }
            return Ok(());
        }
        let cs = self.task_code(image.seg[Seg::Cs as usize])?;
        self.set_segment(Seg::Cs, cs);
        let ss = self.stack_segment(image.seg[Seg::Ss as usize], self.cpl, Fault::ts)?;
        self.set_segment(Seg::Ss, ss);
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let value = self.data_segment(image.seg[seg as usize], Fault::ts)?;
            self.set_segment(seg, value);
        }
        Ok(())
    }

    fn task_ldt(&mut self, selector: u16) -> Result<SegReg, Fault> {
        if selector & 4 != 0 {
            return Err(Fault::ts(selector));
        }
        let d = self.descriptor(selector, Fault::ts)?;
        if !d.system() || d.kind() != kind::LDT || !d.present() {
            return Err(Fault::ts(selector));
        }
        Ok(d.segment(selector))
    }

    fn task_code(&mut self, selector: u16) -> Result<SegReg, Fault> {
        if is_null(selector) {
            return Err(Fault::ts(0));
        }
        let d = self.descriptor(selector, Fault::ts)?;
        let level = if d.conforming() { d.dpl() <= rpl(selector) } else { d.dpl() == rpl(selector) };
        if !d.code() || !level {
            return Err(Fault::ts(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        self.mark_accessed(&d)?;
        Ok(d.segment(selector))
    }
}
