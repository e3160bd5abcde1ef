//! Memory images: FSTENV/FLDENV, FSAVE/FRSTOR (SDM Vol. 1, 8.1.10) and the x87 part of FXSAVE/FXRSTOR (Vol. 1, 10.5).

use super::{EXCEPTIONS, X87};
use crate::fp::f80::F80;

/// The four layouts of the x87 environment. 64-bit mode uses the protected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvFormat {
    /// 14 bytes, linear pointers: real and virtual-8086 mode.
    Real16,
    /// 14 bytes, selectors and offsets.
    Protected16,
    /// 28 bytes, linear pointers: real and virtual-8086 mode with a 32-bit operand size.
    Real32,
    /// 28 bytes, selectors and offsets.
    Protected32,
}

impl EnvFormat {
    /// The format of an operand size and a mode (`real`: real-address or virtual-8086).
    pub const fn new(operand_size_32: bool, real: bool) -> EnvFormat {
        match (operand_size_32, real) {
            (false, true) => EnvFormat::Real16,
            (false, false) => EnvFormat::Protected16,
            (true, true) => EnvFormat::Real32,
            (true, false) => EnvFormat::Protected32,
        }
    }

    /// Bytes of an environment image: 14 or 28.
    pub const fn env_len(self) -> usize {
        match self {
            EnvFormat::Real16 | EnvFormat::Protected16 => 14,
            EnvFormat::Real32 | EnvFormat::Protected32 => 28,
        }
    }

    /// Bytes of a state image: 94 or 108.
    pub const fn state_len(self) -> usize {
        self.env_len() + 80
    }
}

fn linear(selector: u16, offset: u64) -> u32 {
    ((selector as u32) << 4).wrapping_add(offset as u32)
}

fn get16(image: &[u8], at: usize) -> u16 {
    image.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn get32(image: &[u8], at: usize) -> u32 {
    get16(image, at) as u32 | (get16(image, at + 2) as u32) << 16
}

fn get64(image: &[u8], at: usize) -> u64 {
    get32(image, at) as u64 | (get32(image, at + 4) as u64) << 32
}

impl X87 {
    /// The words of an environment after CW, SW and TW, in memory order: 16-bit halves.
    fn pointer_halves(&self, format: EnvFormat) -> [u16; 8] {
        let (ip, dp) = (linear(self.fcs, self.fip), linear(self.fds, self.fdp));
        match format {
            EnvFormat::Real16 => [ip as u16, (ip >> 4) as u16 & 0xf000 | self.fop, dp as u16, (dp >> 4) as u16 & 0xf000, 0, 0, 0, 0],
            EnvFormat::Protected16 => [self.fip as u16, self.fcs, self.fdp as u16, self.fds, 0, 0, 0, 0],
            EnvFormat::Real32 => {
                let (high_ip, high_dp) = ((ip >> 16) << 12 | self.fop as u32, (dp >> 16) << 12);
                [ip as u16, 0xffff, high_ip as u16, (high_ip >> 16) as u16, dp as u16, 0xffff, high_dp as u16, (high_dp >> 16) as u16]
            }
            EnvFormat::Protected32 => {
                let (ip, dp) = (self.fip as u32, self.fdp as u32);
                [ip as u16, (ip >> 16) as u16, self.fcs, self.fop, dp as u16, (dp >> 16) as u16, self.fds, 0xffff]
            }
        }
    }

    /// The image that FNSTENV stores, `format.env_len()` bytes long. [`X87::mask_all`] is to follow the store.
    pub fn env_image(&self, format: EnvFormat) -> [u8; 28] {
        let mut image = [0; 28];
        let wide = format.env_len() == 28;
        let head = [self.cw, self.status_word(), self.full_tag_word()];
        let pointers = self.pointer_halves(format);
        let halves = head.into_iter().flat_map(|word| [Some(word), wide.then_some(0xffff)]).flatten().chain(pointers);
        for (out, half) in image[..format.env_len()].chunks_exact_mut(2).zip(halves) {
            out.copy_from_slice(&half.to_le_bytes());
        }
        image
    }

    /// FNSTENV masks all exceptions once the image is stored.
    pub fn mask_all(&mut self) {
        self.cw |= EXCEPTIONS;
    }

    /// FLDENV. Bytes missing from the image count as zero.
    pub fn load_env(&mut self, format: EnvFormat, image: &[u8]) {
        let step = format.env_len() / 7;
        self.set_control_word(get16(image, 0));
        self.set_status_word(get16(image, step));
        self.set_full_tag_word(get16(image, 2 * step));
        let at = |n: usize| (3 + n) * step;
        match format {
            EnvFormat::Real16 => {
                let (high, data_high) = (get16(image, at(1)), get16(image, at(3)));
                self.fip = get16(image, at(0)) as u64 | ((high & 0xf000) as u64) << 4;
                self.fdp = get16(image, at(2)) as u64 | ((data_high & 0xf000) as u64) << 4;
                (self.fop, self.fcs, self.fds) = (high & 0x7ff, 0, 0);
            }
            EnvFormat::Protected16 => {
                (self.fip, self.fcs) = (get16(image, at(0)) as u64, get16(image, at(1)));
                (self.fdp, self.fds) = (get16(image, at(2)) as u64, get16(image, at(3)));
            }
            EnvFormat::Real32 => {
                let (high, data_high) = (get32(image, at(1)), get32(image, at(3)));
                self.fip = get16(image, at(0)) as u64 | ((high >> 12 & 0xffff) as u64) << 16;
                self.fdp = get16(image, at(2)) as u64 | ((data_high >> 12 & 0xffff) as u64) << 16;
                (self.fop, self.fcs, self.fds) = (high as u16 & 0x7ff, 0, 0);
            }
            EnvFormat::Protected32 => {
                (self.fip, self.fcs) = (get32(image, at(0)) as u64, get16(image, at(1)));
                self.fop = get16(image, at(1) + 2) & 0x7ff;
                (self.fdp, self.fds) = (get32(image, at(2)) as u64, get16(image, at(3)));
            }
        }
    }

    /// The image that FNSAVE stores, `format.state_len()` bytes long. [`X87::init`] is to follow the store.
    pub fn state_image(&self, format: EnvFormat) -> [u8; 108] {
        let mut image = [0; 108];
        image[..28].copy_from_slice(&self.env_image(format));
        for (i, out) in image[format.env_len()..format.state_len()].chunks_exact_mut(10).enumerate() {
            out.copy_from_slice(&self.st(i as u8).to_le_bytes());
        }
        image
    }

    /// FRSTOR. Bytes missing from the image count as zero.
    pub fn load_state(&mut self, format: EnvFormat, image: &[u8]) {
        self.load_env(format, image);
        for i in 0..8u8 {
            let at = format.env_len() + 10 * i as usize;
            let index = self.index(i);
            self.regs[index] = F80 { frac: get64(image, at), sign_exp: get16(image, at + 8) };
        }
    }

    /// Writes bytes 0 to 23 and 32 to 159 of an FXSAVE image; MXCSR and its mask lie between. `rex_w` is FXSAVE64's layout.
    pub fn fxsave(&self, rex_w: bool, image: &mut [u8; 160]) {
        image[0..2].copy_from_slice(&self.cw.to_le_bytes());
        image[2..4].copy_from_slice(&self.status_word().to_le_bytes());
        image[4..6].copy_from_slice(&[self.tag, 0]);
        image[6..8].copy_from_slice(&self.fop.to_le_bytes());
        image[8..16].copy_from_slice(&self.fip.to_le_bytes());
        image[16..24].copy_from_slice(&self.fdp.to_le_bytes());
        if !rex_w {
            image[12..16].copy_from_slice(&(self.fcs as u32).to_le_bytes());
            image[20..24].copy_from_slice(&(self.fds as u32).to_le_bytes());
        }
        for (i, out) in image[32..].chunks_exact_mut(16).enumerate() {
            out.copy_from_slice(&self.st(i as u8).to_bits().to_le_bytes());
        }
    }

    /// Loads the x87 part of an FXSAVE image.
    pub fn fxrstor(&mut self, rex_w: bool, image: &[u8; 160]) {
        self.set_control_word(get16(image, 0));
        self.set_status_word(get16(image, 2));
        self.tag = image[4];
        self.fop = get16(image, 6) & 0x7ff;
        (self.fip, self.fdp) = (get64(image, 8), get64(image, 16));
        (self.fcs, self.fds) = (0, 0);
        if !rex_w {
            (self.fcs, self.fds) = (get16(image, 12), get16(image, 20));
            (self.fip, self.fdp) = (self.fip & 0xffff_ffff, self.fdp & 0xffff_ffff);
        }
        for i in 0..8u8 {
            let at = 32 + 16 * i as usize;
            let index = self.index(i);
            self.regs[index] = F80 { frac: get64(image, at), sign_exp: get16(image, at + 8) };
        }
    }
}
