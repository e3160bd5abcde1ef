//! Egret's command line, as a library so that tests can reach its parts.
#![forbid(unsafe_code)]

pub mod conform;
