//! `egret conform --oracle host`: random programs on the host CPU and on the engines.
//!
//! [`encode`] writes instructions from the encoding rows, [`generate`] makes programs of them, [`state`] what they start from, [`host`] runs them in user mode, [`bench`]
//! on an engine, [`judge`] compares; [`shrink`] and [`write`] make a vector of what differs.

pub mod bench;
pub mod command;
pub mod encode;
pub mod generate;
pub mod golden;
pub mod host;
pub mod judge;
pub mod program;
pub mod rules;
pub mod shrink;
pub mod slot;
pub mod state;
pub mod values;
pub mod worker;
pub mod write;
