//! The registers a vector can name, and a file of them.

/// A register in its full width; narrower names (`eax`, `xmm0`) are the full register with a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reg {
    /// General purpose register by encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8–r15.
    Gpr(u8),
    /// Instruction pointer: the offset in CS.
    Rip,
    /// Flags.
    Rflags,
    /// Segment selector by encoding: es, cs, ss, ds, fs, gs.
    Sel(u8),
    /// Segment base, in the same order.
    Base(u8),
    /// Control register.
    Cr(u8),
    /// Debug register.
    Dr(u8),
    /// Vector register, 256 bits.
    Vec(u8),
    /// x87 register relative to the top of the stack, 80 bits.
    St(u8),
    /// MMX register: the low 64 bits of the physical x87 register.
    Mm(u8),
    /// SSE control and status.
    Mxcsr,
    /// x87 control word.
    Fcw,
    /// x87 status word.
    Fsw,
    /// The abridged x87 tag word: bit n is set if physical register n is not empty.
    Ftw,
}

/// A register's value, least significant quadword first.
pub type Value = [u64; 4];

/// A [`Value`] of one quadword.
#[must_use]
pub fn value(low: u64) -> Value {
    [low, 0, 0, 0]
}

const GPR64: [&str; 16] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

/// The names of the flags by bit.
const FLAGS: [(u32, &str); 17] = [
    (0, "CF"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (12, "IOPL0"),
    (13, "IOPL1"),
    (14, "NT"),
    (16, "RF"),
    (17, "VM"),
    (18, "AC"),
    (19, "VIF"),
    (20, "VIP"),
];

/// The name of flag bit `bit`.
#[must_use]
pub fn flag_name(bit: u32) -> String {
    FLAGS.iter().find(|f| f.0 == bit).map_or_else(|| format!("bit {bit}"), |f| f.1.to_owned())
}

impl Reg {
    /// The register of a name, and the mask of the bits the name covers.
    #[must_use]
    pub fn parse(name: &str) -> Option<(Reg, Value)> {
        let narrow = |mask| value(mask);
        if let Some(n) = GPR64.iter().position(|r| *r == name) {
            return Some((Reg::Gpr(n as u8), narrow(u64::MAX)));
        }
        if let Some(n) = GPR64.iter().position(|r| r.len() == 3 && name.len() == 3 && name.starts_with('e') && r[1..] == name[1..]) {
            return (n < 8).then_some((Reg::Gpr(n as u8), narrow(0xffff_ffff)));
        }
        if let Some(n) = GPR64[..8].iter().position(|r| r[1..] == *name) {
            return Some((Reg::Gpr(n as u8), narrow(0xffff)));
        }
        if let Some(n) = SEGMENTS.iter().position(|r| *r == name) {
            return Some((Reg::Sel(n as u8), narrow(0xffff)));
        }
        if let Some(n) = name.strip_suffix("_base").and_then(|s| SEGMENTS.iter().position(|r| *r == s)) {
            return Some((Reg::Base(n as u8), narrow(u64::MAX)));
        }
        Some(match name {
            "rip" => (Reg::Rip, narrow(u64::MAX)),
            "eip" => (Reg::Rip, narrow(0xffff_ffff)),
            "ip" => (Reg::Rip, narrow(0xffff)),
            "rflags" => (Reg::Rflags, narrow(u64::MAX)),
            "eflags" => (Reg::Rflags, narrow(0xffff_ffff)),
            "flags" => (Reg::Rflags, narrow(0xffff)),
            "mxcsr" => (Reg::Mxcsr, narrow(0xffff_ffff)),
            "fcw" => (Reg::Fcw, narrow(0xffff)),
            "fsw" => (Reg::Fsw, narrow(0xffff)),
            "ftw" => (Reg::Ftw, narrow(0xff)),
            _ => return Self::parse_numbered(name),
        })
    }

    fn parse_numbered(name: &str) -> Option<(Reg, Value)> {
        let digits = name.find(|c: char| c.is_ascii_digit())?;
        let (stem, number) = name.split_at(digits);
        if number.len() > 1 && number.starts_with('0') {
            return None;
        }
        let n: u8 = number.parse().ok()?;
        match (stem, n) {
            ("cr", 0..=8) => Some((Reg::Cr(n), value(u64::MAX))),
            ("dr", 0..=7) => Some((Reg::Dr(n), value(u64::MAX))),
            ("xmm", 0..=15) => Some((Reg::Vec(n), [u64::MAX, u64::MAX, 0, 0])),
            ("ymm", 0..=15) => Some((Reg::Vec(n), [u64::MAX; 4])),
            ("st", 0..=7) => Some((Reg::St(n), [u64::MAX, 0xffff, 0, 0])),
            ("mm", 0..=7) => Some((Reg::Mm(n), value(u64::MAX))),
            _ => None,
        }
    }

    /// The name of the part of the register that `mask` covers.
    #[must_use]
    pub fn name(self, mask: Value) -> String {
        let width = if mask[0] <= 0xffff { 16 } else { 32 << u32::from(mask[0] > 0xffff_ffff) };
        let prefixed = |stem: &str| match width {
            16 => stem.to_owned(),
            32 => format!("e{stem}"),
            _ => format!("r{stem}"),
        };
        match self {
            Reg::Gpr(n @ 0..8) => prefixed(&GPR64[usize::from(n)][1..]),
            Reg::Gpr(n) => format!("r{n}"),
            Reg::Rip => prefixed("ip"),
            Reg::Rflags => prefixed("flags"),
            Reg::Sel(n) => SEGMENTS.get(usize::from(n)).map_or("?", |s| s).to_owned(),
            Reg::Base(n) => format!("{}_base", SEGMENTS.get(usize::from(n)).unwrap_or(&"?")),
            Reg::Cr(n) => format!("cr{n}"),
            Reg::Dr(n) => format!("dr{n}"),
            Reg::Vec(n) if mask[2] | mask[3] == 0 => format!("xmm{n}"),
            Reg::Vec(n) => format!("ymm{n}"),
            Reg::St(n) => format!("st{n}"),
            Reg::Mm(n) => format!("mm{n}"),
            Reg::Mxcsr => "mxcsr".into(),
            Reg::Fcw => "fcw".into(),
            Reg::Fsw => "fsw".into(),
            Reg::Ftw => "ftw".into(),
        }
    }
}

/// The value of every register a vector can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegFile {
    /// General purpose registers by encoding.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Segment selectors: es, cs, ss, ds, fs, gs.
    pub sel: [u16; 6],
    /// Segment bases in the same order.
    pub base: [u64; 6],
    /// Control registers; only 0, 2, 3, 4 and 8 exist.
    pub cr: [u64; 9],
    /// Debug registers.
    pub dr: [u64; 8],
    /// Vector registers.
    pub vec: [Value; 16],
    /// Physical x87 registers R0–R7: significand, then sign and exponent.
    pub x87: [(u64, u16); 8],
    /// Bit n: physical x87 register n is not empty.
    pub x87_used: u8,
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word with TOP.
    pub fsw: u16,
}

impl Default for RegFile {
    /// The state that a vector starts from where it names nothing; `rsp` and `rip` are the loader's.
    fn default() -> RegFile {
        RegFile {
            gpr: [0; 16],
            rip: 0,
            rflags: 2,
            sel: [0; 6],
            base: [0; 6],
            cr: [0; 9],
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            vec: [[0; 4]; 16],
            x87: [(0, 0); 8],
            x87_used: 0,
            mxcsr: 0x1f80,
            fcw: 0x37f,
            fsw: 0,
        }
    }
}

impl RegFile {
    fn physical(&self, st: u8) -> usize {
        (usize::from(self.fsw >> 11) + usize::from(st)) & 7
    }

    /// The value of a register; zero for one that does not exist.
    #[must_use]
    pub fn get(&self, reg: Reg) -> Value {
        fn at<T: Copy + Into<u64>>(list: &[T], n: u8) -> Value {
            value(list.get(usize::from(n)).map_or(0, |v| (*v).into()))
        }
        match reg {
            Reg::Gpr(n) => at(&self.gpr, n),
            Reg::Rip => value(self.rip),
            Reg::Rflags => value(self.rflags),
            Reg::Sel(n) => at(&self.sel, n),
            Reg::Base(n) => at(&self.base, n),
            Reg::Cr(n) => at(&self.cr, n),
            Reg::Dr(n) => at(&self.dr, n),
            Reg::Vec(n) => self.vec.get(usize::from(n)).copied().unwrap_or_default(),
            Reg::St(n) => {
                let (low, high) = self.x87[self.physical(n)];
                [low, high.into(), 0, 0]
            }
            Reg::Mm(n) => value(self.x87[usize::from(n & 7)].0),
            Reg::Mxcsr => value(self.mxcsr.into()),
            Reg::Fcw => value(self.fcw.into()),
            Reg::Fsw => value(self.fsw.into()),
            Reg::Ftw => value(self.x87_used.into()),
        }
    }

    /// Sets a register; bits that it does not have are dropped. TOP must have been set before a [`Reg::St`].
    pub fn set(&mut self, reg: Reg, v: Value) {
        fn at<T>(list: &mut [T], n: u8, v: T) {
            if let Some(slot) = list.get_mut(usize::from(n)) {
                *slot = v;
            }
        }
        match reg {
            Reg::Gpr(n) => at(&mut self.gpr, n, v[0]),
            Reg::Rip => self.rip = v[0],
            Reg::Rflags => self.rflags = v[0],
            Reg::Sel(n) => at(&mut self.sel, n, v[0] as u16),
            Reg::Base(n) => at(&mut self.base, n, v[0]),
            Reg::Cr(n) => at(&mut self.cr, n, v[0]),
            Reg::Dr(n) => at(&mut self.dr, n, v[0]),
            Reg::Vec(n) => at(&mut self.vec, n, v),
            Reg::St(n) => {
                let physical = self.physical(n);
                self.x87[physical] = (v[0], v[1] as u16);
                self.x87_used |= 1 << physical;
            }
            Reg::Mm(n) => {
                self.x87[usize::from(n & 7)] = (v[0], 0xffff);
                self.x87_used |= 1 << (n & 7);
            }
            Reg::Mxcsr => self.mxcsr = v[0] as u32,
            Reg::Fcw => self.fcw = v[0] as u16,
            Reg::Fsw => self.fsw = v[0] as u16,
            Reg::Ftw => self.x87_used = v[0] as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in [
            "rax", "r8", "r15", "eax", "esp", "edi", "ax", "sp", "di", "rip", "eip", "ip", "rflags", "eflags", "flags", "es", "gs",
            "fs_base", "cr0", "cr4", "dr7", "xmm0", "xmm15", "ymm3", "st7", "mm0", "mxcsr", "fcw", "fsw", "ftw",
        ] {
            let (reg, mask) = Reg::parse(name).expect(name);
            assert_eq!(reg.name(mask), name);
        }
        for name in
            ["", "e", "x", "ra", "rbx1", "e8", "xmm16", "xmm", "xmm01", "cr9", "st8", "mm8", "ks", "es_", "_base", "8", "xmm999999999999"]
        {
            assert_eq!(Reg::parse(name), None, "{name}");
        }
    }

    #[test]
    fn x87_registers_follow_top() {
        let mut file = RegFile::default();
        file.set(Reg::Fsw, value(3 << 11));
        file.set(Reg::St(6), [5, 0x3fff, 0, 0]);
        assert_eq!(file.x87[1], (5, 0x3fff));
        assert_eq!(file.x87_used, 2);
        assert_eq!(file.get(Reg::Mm(1)), value(5));
        assert_eq!(file.get(Reg::St(6)), [5, 0x3fff, 0, 0]);
        file.set(Reg::Mm(7), value(9));
        assert_eq!(file.get(Reg::St(4)), [9, 0xffff, 0, 0]);
    }
}
