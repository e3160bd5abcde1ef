//! The catalogue of real guests: where to get each one, how to check it, how to boot it. No guest is part of Egret itself.
//!
//! [`get`] brings a guest into the data directory, [`lookup`] finds it there. Everything that comes from outside is checked
//! against the size and SHA-256 in the distribution's package index before it is used. The index itself is trusted as far as its
//! transport: apt checks its signature, a mirror that the user names is taken at its word.

mod control;
mod cpio;
mod deb;
mod debian;
mod error;
mod source;
mod store;
#[cfg(test)]
mod tests;

pub use error::CatalogueError;
pub use store::{InstalledGuest, Manifest, Part};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A guest that Egret knows how to get.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name to give on the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The kernel command line that boots it.
    pub append: &'static str,
    /// What it prints on its console once it is up.
    pub success: &'static str,
}

/// All guests of the catalogue.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "debian",
    about: "Debian's current amd64 kernel with a busybox shell",
    append: "console=ttyS0 panic=-1",
    success: debian::UP,
}];

/// The environment variable that replaces the user's data directory for Egret.
pub const DATA_DIR_VARIABLE: &str = "EGRET_DATA_DIR";

/// The directory for Egret's data: `$EGRET_DATA_DIR`, else `egret` in the user's data directory.
pub fn data_dir() -> Result<PathBuf, CatalogueError> {
    match std::env::var_os(DATA_DIR_VARIABLE).filter(|d| !d.is_empty()) {
        Some(dir) => Ok(dir.into()),
        None => dirs::data_dir().map(|d| d.join("egret")).ok_or(CatalogueError::NoDataDir),
    }
}

/// What is going on during [`get`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// A new step begins.
    Step(String),
    /// Bytes of the current download, out of how many.
    Bytes {
        /// Bytes so far.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
}

/// Options of [`get`].
#[derive(Clone, Debug)]
pub struct GetOptions {
    /// Base address of a Debian mirror (`http:`, `https:` or `file:`). None: through apt.
    pub mirror: Option<String>,
    /// Egret's data directory, see [`data_dir`].
    pub data_dir: PathBuf,
    /// Pack the initramfs with gzip. The guest boots faster from a plain one.
    pub gzip: bool,
    /// Wait before the first retry of a failed download; it doubles each time.
    pub retry_delay: Duration,
}

impl GetOptions {
    /// Through apt, into `data_dir`.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> GetOptions {
        GetOptions { mirror: None, data_dir, gzip: false, retry_delay: Duration::from_secs(1) }
    }
}

/// A guest of the catalogue and what is installed of it.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The guest.
    pub entry: Entry,
    /// What is in the data directory.
    pub installed: Option<InstalledGuest>,
}

/// All guests of the catalogue.
#[must_use]
pub fn list(data_dir: &Path) -> Vec<Listing> {
    ENTRIES.iter().map(|&entry| Listing { entry, installed: store::find(&guest_dir(data_dir, &entry), &entry).ok() }).collect()
}

/// The installed guest called `name`.
pub fn lookup(name: &str, data_dir: &Path) -> Result<InstalledGuest, CatalogueError> {
    let entry = entry(name)?;
    store::find(&guest_dir(data_dir, entry), entry)
}

/// Brings the guest called `name` up to date and returns it. What an earlier call fetched is used again when its hash still matches
/// the package index. The guest's directory is replaced as a whole at the end.
pub fn get(name: &str, options: &GetOptions, progress: &mut dyn FnMut(Progress)) -> Result<InstalledGuest, CatalogueError> {
    let entry = entry(name)?;
    let mut source = source::Source::choose(options.mirror.as_deref(), options.retry_delay, progress)?;
    debian::install(entry, &guest_dir(&options.data_dir, entry), options.gzip, &mut source, progress)
}

fn entry(name: &str) -> Result<&'static Entry, CatalogueError> {
    ENTRIES
        .iter()
        .find(|e| e.name == name)
        .ok_or_else(|| CatalogueError::Unknown { name: name.into(), known: ENTRIES.iter().map(|e| e.name).collect::<Vec<_>>().join(", ") })
}

fn guest_dir(data_dir: &Path, entry: &Entry) -> PathBuf {
    data_dir.join("guests").join(entry.name)
}
