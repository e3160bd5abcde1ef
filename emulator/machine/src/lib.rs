//! The PC: its parts list, the ways to start it, the loop that runs it.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod boot;
pub mod clock;
pub mod control;
pub mod lockstep;
pub mod mp_table;
pub mod pc;
mod random;
pub mod run;
mod system;
mod threads;
pub mod vcpu;

pub use clock::{Clock, ClockSource};
pub use control::Control;
pub use egret_isa::model;
pub use lockstep::Lockstep;
pub use run::{Config, Image, Machine, MachineError, RunStats, Stop};
pub use vcpu::Profile;
pub use vcpu::Vcpu;
