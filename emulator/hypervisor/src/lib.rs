//! Many machines: the options of one machine, the file that describes several, and the supervisor that runs each in a
//! process of its own.
#![forbid(unsafe_code)]

pub mod config;
pub mod exit;
pub mod options;
pub mod output;
pub mod supervisor;
pub mod units;
