//! Exceptions as values.

/// An exception vector (SDM Vol. 3, "Exception and Interrupt Reference").
pub mod vector {
    #![allow(missing_docs)]
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const XM: u8 = 19;
}

/// A fault raised by an instruction: vector, and error code if the vector has one. One word, so that
/// `Result<u64, Fault>` travels in registers. A page fault's address is in [`crate::Cpu::fault_address`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault(u64);

impl Fault {
    const HAS_ERROR: u64 = 1 << 8;

    /// A fault without error code.
    #[must_use]
    pub const fn new(vector: u8) -> Fault {
        Fault(vector as u64)
    }

    /// A fault with error code.
    #[must_use]
    pub const fn with_error(vector: u8, error: u32) -> Fault {
        Fault(vector as u64 | Self::HAS_ERROR | (error as u64) << 32)
    }

    /// #UD.
    pub const UD: Fault = Fault::new(vector::UD);
    /// #NM.
    pub const NM: Fault = Fault::new(vector::NM);
    /// #DE.
    pub const DE: Fault = Fault::new(vector::DE);
    /// #GP(0).
    pub const GP0: Fault = Fault::with_error(vector::GP, 0);
    /// #SS(0).
    pub const SS0: Fault = Fault::with_error(vector::SS, 0);

    /// #GP(selector): the error code is the selector without its RPL.
    #[must_use]
    pub const fn gp(selector: u16) -> Fault {
        Fault::with_error(vector::GP, (selector & !3) as u32)
    }

    /// #NP(selector).
    #[must_use]
    pub const fn np(selector: u16) -> Fault {
        Fault::with_error(vector::NP, (selector & !3) as u32)
    }

    /// #SS(selector).
    #[must_use]
    pub const fn ss(selector: u16) -> Fault {
        Fault::with_error(vector::SS, (selector & !3) as u32)
    }

    /// #TS(selector).
    #[must_use]
    pub const fn ts(selector: u16) -> Fault {
        Fault::with_error(vector::TS, (selector & !3) as u32)
    }

    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// The error code, if the vector has one.
    #[must_use]
    pub const fn error(self) -> Option<u32> {
        if self.0 & Self::HAS_ERROR != 0 { Some((self.0 >> 32) as u32) } else { None }
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.vector())?;
        self.error().map_or(Ok(()), |e| write!(f, "({e:#x})"))
    }
}
