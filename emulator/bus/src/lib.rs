//! The devices' side of a machine: addresses, guest RAM, the port and memory-mapped I/O maps, interrupt lines,
//! machine events and the trait every chip implements. Nothing here knows a CPU or a port number.

mod ahead;
mod device;
mod events;
mod line;
mod map;
mod ram;
mod types;

pub use device::{Access, Device, Shared, shared};
pub use events::{Event, Events};
pub use line::{IrqLine, LineChange, Lines};
pub use map::{Bus, DeviceId, MapError, Unclaimed};
pub use ram::{
    GuestRam, RamError, compare_exchange as host_compare_exchange, compare_exchange_16 as host_compare_exchange_16, load as host_load,
    store as host_store,
};
pub use types::{Phys, Ticks};
