//! The host CPU as an oracle: a process of our own that runs programs in user mode. x86-64 Linux only.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod child;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use linux::Host;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod elsewhere;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use elsewhere::Host;

/// Programs that go to the host at once.
pub const BATCH: usize = 64;

/// Why the host cannot be an oracle.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another kind of host.
    #[error("the oracle runs programs on the host CPU, which needs Linux on x86-64; this is {0}")]
    Kind(String),
    /// A CPU or kernel without what it takes.
    #[error("the oracle needs {0} of the host, which does not offer it to programs")]
    Lacks(&'static str),
    /// A system call failed.
    #[error("the oracle cannot {what}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The process on the host could not be set up.
    #[error("the oracle's process ended at once (step {0} of its setup)")]
    Setup(u64),
}
