//! See Cargo.toml's description.
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod os;
pub mod tests_kernels;
pub mod workloads;
