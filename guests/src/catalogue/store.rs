//! Guests in the data directory: a directory each, with a manifest, replaced as a whole.

use super::{CatalogueError, Entry};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";

/// A file of an installed guest, and the package it came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// File name in the guest's directory.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// The package it was taken from; empty for what we made.
    pub package: String,
    /// That package's version.
    pub version: String,
    /// SHA-256 of the package file, as in the package index.
    pub package_sha256: String,
}

/// What an installed guest consists of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The guest's name in the catalogue.
    pub name: String,
    /// The kernel.
    pub kernel: Part,
    /// The shell and its tools.
    pub busybox: Part,
    /// The initramfs made from them.
    pub initrd: Part,
    /// Command line.
    pub append: String,
}

/// A guest that is ready to boot.
#[derive(Clone, Debug)]
pub struct InstalledGuest {
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initramfs' file.
    pub initrd: PathBuf,
    /// Command line.
    pub append: String,
    /// Versions and hashes.
    pub manifest: Manifest,
}

impl Part {
    /// The part called `file` with the content `data`.
    pub(super) fn new(file: &str, data: &[u8]) -> Part {
        let none = String::new;
        Part { file: file.into(), size: data.len() as u64, sha256: sha256(data), package: none(), version: none(), package_sha256: none() }
    }

    /// This part's file in `dir`.
    fn path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.file)
    }

    /// The content, when the file in `dir` still has the right one.
    pub(super) fn read_checked(&self, dir: &Path) -> Option<Vec<u8>> {
        let path = self.path(dir);
        (fs::metadata(&path).ok()?.len() == self.size).then_some(())?;
        fs::read(path).ok().filter(|data| sha256(data) == self.sha256)
    }
}

/// SHA-256 in lower-case hexadecimal.
pub(super) fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect()
}

/// The manifest in `dir`, if it can be read.
pub(super) fn manifest(dir: &Path) -> Option<Manifest> {
    let m: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    let plain = |p: &Part| Path::new(&p.file).components().count() == 1 && Path::new(&p.file).file_name().is_some();
    let whole = plain(&m.kernel) && plain(&m.busybox) && plain(&m.initrd);
    whole.then_some(m)
}

/// The guest in `dir`. Sizes are checked, hashes are not: that is for `get`.
pub(super) fn find(dir: &Path, entry: &Entry) -> Result<InstalledGuest, CatalogueError> {
    if !dir.join(MANIFEST).exists() {
        return Err(CatalogueError::NotInstalled(entry.name.into()));
    }
    let damaged = |reason: String| CatalogueError::Damaged { name: entry.name.into(), reason };
    let manifest = manifest(dir).ok_or_else(|| damaged("its manifest cannot be read".into()))?;
    for part in [&manifest.kernel, &manifest.initrd] {
        if fs::metadata(part.path(dir)).map(|m| m.len()).ok() != Some(part.size) {
            return Err(damaged(format!("{} is not {} bytes long", part.file, part.size)));
        }
    }
    let (kernel, initrd) = (manifest.kernel.path(dir), manifest.initrd.path(dir));
    Ok(InstalledGuest { kernel, initrd, append: manifest.append.clone(), manifest })
}

/// Makes `dir` hold `manifest` and `files`, (part, content) each. Another process sees either the old guest or the new one, except
/// for a moment in which there is none.
pub(super) fn replace(dir: &Path, manifest: &Manifest, files: &[(&Part, &[u8])]) -> Result<(), CatalogueError> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(CatalogueError::at(parent))?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent).map_err(CatalogueError::at(parent))?;
    for (part, data) in files {
        let path = part.path(new.path());
        fs::write(&path, data).map_err(CatalogueError::at(&path))?;
    }
    let json = serde_json::to_string_pretty(manifest).map_err(|e| CatalogueError::at(&dir.join(MANIFEST))(e.into()))?;
    let path = new.path().join(MANIFEST);
    fs::write(&path, json + "\n").map_err(CatalogueError::at(&path))?;
    open_to_others(new.path())?;
    // A directory cannot be renamed over one that has files: the old guest moves away first, and is deleted with `aside`.
    let aside = tempfile::Builder::new().prefix(".old-").tempdir_in(parent).map_err(CatalogueError::at(parent))?;
    let old = aside.path().join("guest");
    if dir.exists() {
        fs::rename(dir, &old).map_err(CatalogueError::at(dir))?;
    }
    if let Err(e) = fs::rename(new.path(), dir) {
        // The error that counts is the first one.
        let _ = fs::rename(&old, dir);
        return Err(CatalogueError::at(dir)(e));
    }
    // It has moved: nothing is left to delete.
    let _ = new.keep();
    Ok(())
}

/// Temporary directories are private to the user; a guest's is not.
#[cfg(unix)]
fn open_to_others(dir: &Path) -> Result<(), CatalogueError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(CatalogueError::at(dir))
}

#[cfg(not(unix))]
fn open_to_others(_dir: &Path) -> Result<(), CatalogueError> {
    Ok(())
}
