//! Descriptors, and the loading of segment registers (SDM Vol. 3, "Protected-Mode Memory Management" and "Protection").

use crate::Cpu;
use crate::fault::Fault;
use crate::state::SegReg;
use egret_isa::insn::Seg;

/// Types of system descriptors (SDM Vol. 3, "System-Segment and Gate-Descriptor Types").
pub(crate) mod kind {
    pub const TSS16: u8 = 0x1;
    pub const LDT: u8 = 0x2;
    pub const TSS16_BUSY: u8 = 0x3;
    pub const CALL16: u8 = 0x4;
    pub const TASK: u8 = 0x5;
    pub const INT16: u8 = 0x6;
    pub const TRAP16: u8 = 0x7;
    pub const TSS: u8 = 0x9;
    pub const TSS_BUSY: u8 = 0xb;
    pub const CALL: u8 = 0xc;
    pub const INT: u8 = 0xe;
    pub const TRAP: u8 = 0xf;
    /// In a TSS descriptor's type: busy.
    pub const BUSY: u8 = 0x2;
}

/// Which fault a bad selector raises: [`Fault::gp`], [`Fault::ts`], ...
pub(crate) type Wrong = fn(u16) -> Fault;

/// A descriptor as it is in memory. System descriptors of long mode have 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub low: u64,
    pub high: u64,
    /// Linear address.
    pub at: u64,
    /// The selector it was found by.
    pub selector: u16,
}

impl Descriptor {
    /// Bits 40-47 and 52-55, as [`SegReg::attr`] holds them.
    pub fn attr(&self) -> u16 {
        (self.low >> 40) as u16 & 0xff | ((self.low >> 52) as u16 & 0xf) << 12
    }

    pub fn base(&self) -> u64 {
        self.low >> 16 & 0xff_ffff | self.low >> 56 << 24 | (self.high & 0xffff_ffff) << 32
    }

    pub fn limit(&self) -> u32 {
        let limit = (self.low & 0xffff) as u32 | (self.low >> 32) as u32 & 0xf_0000;
        if self.attr() & SegReg::G != 0 { limit << 12 | 0xfff } else { limit }
    }

    /// The type of a system descriptor.
    pub fn kind(&self) -> u8 {
        (self.low >> 40) as u8 & 0xf
    }

    pub fn dpl(&self) -> u8 {
        (self.low >> 45) as u8 & 3
    }

    pub fn present(&self) -> bool {
        self.attr() & SegReg::P != 0
    }

    pub fn system(&self) -> bool {
        self.attr() & SegReg::S == 0
    }

    pub fn code(&self) -> bool {
        !self.system() && self.attr() & SegReg::CODE != 0
    }

    pub fn conforming(&self) -> bool {
        self.code() && self.attr() & SegReg::DOWN != 0
    }

    fn writable_data(&self) -> bool {
        !self.system() && !self.code() && self.attr() & SegReg::WRITABLE != 0
    }

    fn readable(&self) -> bool {
        !self.system() && (!self.code() || self.attr() & SegReg::WRITABLE != 0)
    }

    /// 64-bit code.
    pub fn long(&self) -> bool {
        self.attr() & SegReg::L != 0
    }

    /// L and D both set: reserved in long mode.
    pub fn reserved_size(&self) -> bool {
        self.attr() & (SegReg::L | SegReg::DB) == SegReg::L | SegReg::DB
    }

    /// The segment register it makes.
    pub fn segment(&self, selector: u16) -> SegReg {
        SegReg::new(selector, self.base(), self.limit(), self.attr() | if self.system() { 0 } else { SegReg::ACCESSED })
    }

    // What a gate descriptor holds.

    /// The target's selector.
    pub fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }

    /// The target's offset, of the gate's own size.
    pub fn gate_offset(&self) -> u64 {
        let low = self.low & 0xffff;
        if self.wide_gate() { low | self.low >> 48 << 16 | (self.high & 0xffff_ffff) << 32 } else { low }
    }

    /// A gate of the 386 or of long mode, not of the 286.
    pub fn wide_gate(&self) -> bool {
        self.kind() & 8 != 0
    }

    /// Bits 32-36: a call gate's number of parameters, an interrupt gate's IST index.
    pub fn gate_count(&self) -> u8 {
        (self.low >> 32) as u8 & 0x1f
    }
}

impl SegReg {
    /// A segment register holding a null selector: nothing can be accessed through it.
    #[must_use]
    pub fn null(selector: u16) -> SegReg {
        SegReg::new(selector, 0, 0, 0)
    }
}

/// Whether a selector is null.
pub(crate) fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// A selector's requested privilege level.
pub(crate) fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// Whether an address is canonical: bits `width` and up repeat the one below.
fn canonical_with(address: u64, width: u32) -> bool {
    (address as i64) << (64 - width) >> (64 - width) == address as i64
}

impl Cpu {
    /// Whether a linear address is canonical with the paging in force: 48 bits, with CR4.LA57 57.
    #[inline]
    #[must_use]
    pub fn is_canonical(&self, address: u64) -> bool {
        canonical_with(address, if self.cr4 & crate::state::cr4::LA57 != 0 { 57 } else { 48 })
    }

    /// The address, or #GP(0) when it is not canonical.
    pub(crate) fn canonical_address(&self, address: u64) -> Result<u64, Fault> {
        if self.is_canonical(address) { Ok(address) } else { Err(Fault::GP0) }
    }

    /// A value for an MSR or a descriptor table's base, or #GP(0). Whether these are canonical depends on what the processor can
    /// do, not on the paging in force (SDM Vol. 3, "Canonicality Checking").
    pub(crate) fn canonical_base(&self, address: u64) -> Result<u64, Fault> {
        if canonical_with(address, self.linear_bits()) { Ok(address) } else { Err(Fault::GP0) }
    }

    /// The width of linear addresses that CPUID reports.
    #[must_use]
    pub fn linear_bits(&self) -> u32 {
        if self.model().has(egret_isa::Feature::La57) { 57 } else { 48 }
    }
}

impl Cpu {
    /// The linear address of a selector's descriptor, when all `size` bytes of it are inside its table.
    pub(crate) fn descriptor_address(&self, selector: u16, size: u16) -> Option<u64> {
        let (base, limit) = if selector & 4 == 0 {
            (self.gdtr.base, u32::from(self.gdtr.limit))
        } else if self.ldtr.present() {
            (self.ldtr.base, self.ldtr.limit)
        } else {
            return None;
        };
        let offset = u32::from(selector & !7);
        (offset + u32::from(size - 1) <= limit).then(|| base.wrapping_add(offset.into()))
    }

    /// Reads the 8-byte descriptor of a selector that is not null.
    pub(crate) fn descriptor(&mut self, selector: u16, wrong: Wrong) -> Result<Descriptor, Fault> {
        let at = self.descriptor_address(selector, 8).ok_or_else(|| wrong(selector))?;
        Ok(Descriptor { low: self.read_system(at, 8)?, high: 0, at, selector })
    }

    /// Reads the rest of a system descriptor, which has 16 bytes in long mode; its upper type must be zero.
    pub(crate) fn widen(&mut self, d: Descriptor, wrong: Wrong) -> Result<Descriptor, Fault> {
        if !self.long_mode() {
            return Ok(d);
        }
        self.descriptor_address(d.selector, 16).ok_or_else(|| wrong(d.selector))?;
        let high = self.read_system(d.at.wrapping_add(8), 8)?;
        if high >> 40 & 0x1f != 0 {
            return Err(wrong(d.selector));
        }
        Ok(Descriptor { high, ..d })
    }

    /// Sets the accessed bit of a code or data descriptor in memory.
    pub(crate) fn mark_accessed(&mut self, d: &Descriptor) -> Result<(), Fault> {
        if d.attr() & SegReg::ACCESSED != 0 {
            return Ok(());
        }
        self.write_system(d.at.wrapping_add(5), 1, d.low >> 40 & 0xff | u64::from(SegReg::ACCESSED))
    }

    /// Replaces the type of a TSS descriptor in memory: busy or not.
    pub(crate) fn mark_busy(&mut self, at: u64, busy: bool) -> Result<(), Fault> {
        let at = at.wrapping_add(5);
        let old = self.read_system(at, 1)?;
        let bit = u64::from(kind::BUSY);
        self.write_system(at, 1, if busy { old | bit } else { old & !bit })
    }

    /// Puts a segment register in place.
    pub(crate) fn set_segment(&mut self, seg: Seg, value: SegReg) {
        self.state.seg[seg as usize] = value;
        self.update_context();
    }

    /// A stack segment for `cpl` (SDM Vol. 3, "Privilege Level Checking When Loading the SS Register").
    pub(crate) fn stack_segment(&mut self, selector: u16, cpl: u8, wrong: Wrong) -> Result<SegReg, Fault> {
        if is_null(selector) {
            return Err(wrong(0));
        }
        let d = self.descriptor(selector, wrong)?;
        if rpl(selector) != cpl || !d.writable_data() || d.dpl() != cpl {
            return Err(wrong(selector));
        }
        if !d.present() {
            return Err(Fault::ss(selector));
        }
        self.mark_accessed(&d)?;
        Ok(d.segment(selector))
    }

    /// A data segment for the current privilege, also null.
    pub(crate) fn data_segment(&mut self, selector: u16, wrong: Wrong) -> Result<SegReg, Fault> {
        if is_null(selector) {
            return Ok(SegReg::null(selector));
        }
        let d = self.descriptor(selector, wrong)?;
        let outranked = !d.conforming() && rpl(selector).max(self.cpl) > d.dpl();
        if !d.readable() || outranked {
            return Err(wrong(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        self.mark_accessed(&d)?;
        Ok(d.segment(selector))
    }

    /// Loads a segment register other than CS, in any mode (SDM Vol. 2, "MOV—Move").
    pub(crate) fn load_segment(&mut self, seg: Seg, selector: u16) -> Result<(), Fault> {
        if self.real_mode() || self.v86() {
            self.load_real(seg, selector);
            return Ok(());
        }
        let value = if seg != Seg::Ss {
            self.data_segment(selector, Fault::gp)?
        } else if is_null(selector) && self.code64() && self.cpl != 3 && rpl(selector) == self.cpl {
            SegReg::null(selector)
        } else {
            self.stack_segment(selector, self.cpl, Fault::gp)?
        };
        self.set_segment(seg, value);
        Ok(())
    }

    /// Loads a segment register the way real mode and V86 do. Real mode keeps the limit and size of before.
    pub(crate) fn load_real(&mut self, seg: Seg, selector: u16) {
        const DATA: u16 = 0x93;
        let old = self.state.seg[seg as usize];
        let value = if self.v86() {
            SegReg::real(selector, 0xffff, DATA | 3 << 5)
        } else if old.present() {
            SegReg::real(selector, old.limit, old.attr & (SegReg::G | SegReg::DB) | DATA)
        } else {
            SegReg::real(selector, 0xffff, DATA)
        };
        self.set_segment(seg, value);
    }

    /// Null selectors for the data segments that a less privileged caller may not keep
    /// (SDM Vol. 2, "RET" and "IRET", outer privilege level).
    pub(crate) fn drop_privileged_segments(&mut self) {
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let s = &mut self.state.seg[seg as usize];
            let conforming = s.is_code() && s.attr & SegReg::DOWN != 0;
            if s.present() && !conforming && s.dpl() < self.cpl {
                // The base stays: FS and GS bases of 64-bit mode do not come from the descriptor.
                *s = SegReg::new(0, s.base, 0, 0);
            }
        }
        self.update_context();
    }

    /// The instruction pointer for a transfer into `cs`: canonical, or within the limit.
    pub(crate) fn target(&self, cs: &SegReg, offset: u64) -> Result<u64, Fault> {
        if self.long_mode() && cs.attr & SegReg::L != 0 {
            return if self.is_canonical(offset) { Ok(offset) } else { Err(Fault::GP0) };
        }
        if offset > u64::from(cs.limit) { Err(Fault::GP0) } else { Ok(offset) }
    }

    /// Puts CS, the instruction pointer and CPL in place.
    pub(crate) fn enter_code(&mut self, cs: SegReg, rip: u64, cpl: u8) {
        self.state.seg[Seg::Cs as usize] = cs;
        self.state.rip = rip;
        self.cpl = cpl;
        self.update_context();
    }

    /// What the stack pointer is taken modulo, less one.
    pub(crate) fn stack_mask(&self) -> u64 {
        if self.code64() {
            u64::MAX
        } else if self.state.seg[Seg::Ss as usize].attr & SegReg::DB != 0 {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Sets the stack pointer; a 16-bit stack keeps its upper half.
    pub(crate) fn set_sp(&mut self, sp: u64) {
        let mask = self.stack_mask();
        let keep = if mask == 0xffff { self.state.gpr[4] & !0xffff } else { 0 };
        self.state.gpr[4] = sp & mask | keep;
    }

    /// Pushes `size` bytes.
    pub(crate) fn push(&mut self, size: u8, value: u64) -> Result<(), Fault> {
        let sp = self.state.gpr[4].wrapping_sub(size.into()) & self.stack_mask();
        self.write(Seg::Ss, sp, size, value)?;
        self.set_sp(sp);
        Ok(())
    }

    /// Pops `size` bytes.
    pub(crate) fn pop(&mut self, size: u8) -> Result<u64, Fault> {
        let sp = self.state.gpr[4] & self.stack_mask();
        let value = self.read(Seg::Ss, sp, size)?;
        self.set_sp(sp.wrapping_add(size.into()));
        Ok(value)
    }

    /// Runs `f`; when it faults, everything that a control transfer changes is as it was before.
    pub(crate) fn attempt<T>(&mut self, f: impl FnOnce(&mut Cpu) -> Result<T, Fault>) -> Result<T, Fault> {
        let s = &self.state;
        let (seg, rip, rsp, flags, system_flags, cpl) = (s.seg, s.rip, s.gpr[4], s.flags, s.system_flags, self.cpl);
        let result = f(self);
        if result.is_err() {
            let s = &mut self.state;
            (s.seg, s.rip, s.gpr[4], s.flags, s.system_flags) = (seg, rip, rsp, flags, system_flags);
            self.cpl = cpl;
            self.update_context();
            self.update_step_attention();
        }
        result
    }
}
