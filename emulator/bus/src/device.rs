//! The trait of every chip.

use crate::Ticks;
use parking_lot::Mutex;
use std::sync::Arc;

/// One access to a device's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which of the device's regions is meant: the `region` number given when it was mapped.
    pub region: u8,
    /// Byte offset from the start of the region.
    pub offset: u64,
    /// Access size in bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// The time of the access.
    pub now: Ticks,
}

/// A chip. It sees offsets into its own regions, never a port number, a CPU or guest RAM.
///
/// Whatever the guest writes, an implementation neither panics nor allocates without bound.
pub trait Device: Send {
    /// The chip's name, as a datasheet has it; used in traces.
    fn name(&self) -> &'static str;

    /// Reads `at.size` bytes. Bits above the size are ignored by the caller.
    fn read(&mut self, at: Access) -> u64;

    /// Writes the low `at.size` bytes of `value`.
    fn write(&mut self, at: Access, value: u64);

    /// Puts the chip into its power-on state.
    fn reset(&mut self);

    /// Advances the chip to `now`.
    fn tick(&mut self, _now: Ticks) {}

    /// When the chip next wants [`Device::tick`]; asked again after every access and tick.
    fn deadline(&self) -> Option<Ticks> {
        None
    }
}

/// A chip that the machine holds by its own type and the bus by its trait.
pub type Shared<T> = Arc<Mutex<T>>;

/// Wraps a chip for sharing between the machine and the bus.
pub fn shared<T>(chip: T) -> Shared<T> {
    Arc::new(Mutex::new(chip))
}
