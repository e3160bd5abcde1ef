//! What can go wrong with a guest of the catalogue. Every message is one line.

use std::path::PathBuf;

/// Why a guest could not be found or brought.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// No such guest.
    #[error("there is no guest '{name}' (known: {known})")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Not fetched yet.
    #[error("guest '{0}' is not installed: run egret guests get {0}")]
    NotInstalled(String),
    /// Fetched, but not whole any more.
    #[error("guest '{name}' is damaged ({reason}): run egret guests get {name}")]
    Damaged {
        /// The guest.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The system does not say where user data belongs.
    #[error("no place for data is known: set EGRET_DATA_DIR")]
    NoDataDir,
    /// Neither apt nor a mirror.
    #[error("there is no apt here: name a Debian mirror with --mirror URL")]
    NoApt,
    /// Apt does not know the package.
    #[error("apt knows no package {package}: run apt-get update, or name a Debian mirror with --mirror URL ({reason})")]
    AptPackage {
        /// The package.
        package: String,
        /// Apt's words.
        reason: String,
    },
    /// Apt failed.
    #[error("{command} failed: {reason}")]
    Apt {
        /// The command.
        command: String,
        /// Its last words.
        reason: String,
    },
    /// The mirror's address is not one.
    #[error("{0}: not an address of a mirror (http:, https: or file:)")]
    MirrorAddress(String),
    /// A file could not be fetched from the mirror.
    #[error("{address}: {reason}")]
    Fetch {
        /// What was asked for.
        address: String,
        /// Why it did not come.
        reason: String,
    },
    /// The package index lacks something.
    #[error("{place}: {reason}")]
    Index {
        /// Which index.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is not what the index says.
    #[error("{name}: its {what} is {got}, the package index says {want}")]
    Mismatch {
        /// The file.
        name: String,
        /// Size or SHA-256.
        what: &'static str,
        /// As found.
        got: String,
        /// As promised.
        want: String,
    },
    /// A package cannot be unpacked.
    #[error("{name}: {reason}")]
    Package {
        /// The package.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The data directory cannot be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
}

impl CatalogueError {
    /// For `map_err`: an I/O error at `path`.
    pub(super) fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> CatalogueError {
        let path = path.to_path_buf();
        move |error| CatalogueError::Io { path, error }
    }
}

/// `text` as one line.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
