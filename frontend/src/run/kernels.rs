//! Unpacked kernels, kept from one run to the next: unpacking takes longer than all that follows until the kernel's first words.
//!
//! A file holds one kernel under the name of what it was packed as. It is put in place by renaming, so that runs at the same time
//! need no locks, and carries a checksum; whatever is wrong with it, the kernel is unpacked as if it were not there.

use egret_jit::{create_private, make_private_dir};
use egret_machine::boot::Unpacked;
use flate2::CrcReader;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MAGIC: &[u8; 8] = b"EGRKERN1";
/// Magic and checksum.
const HEADER: usize = 8 + 4;
/// Most kernels that are kept.
const MOST: usize = 8;

/// A directory with unpacked kernels.
pub struct Kernels {
    dir: PathBuf,
}

impl Kernels {
    /// The kernels in a directory, which need not be there.
    #[must_use]
    pub fn new(dir: PathBuf) -> Kernels {
        Kernels { dir }
    }

    fn path(&self, packed: &[u8]) -> PathBuf {
        let digest = Sha256::digest(packed);
        let name: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
        self.dir.join(format!("kernel-{name}.elf"))
    }
}

impl Unpacked for Kernels {
    fn find(&self, packed: &[u8], len: u64) -> Option<Box<dyn Read>> {
        let path = self.path(packed);
        let mut file = fs::File::open(&path).ok()?;
        if file.metadata().ok()?.len() != len.checked_add(HEADER as u64)? {
            return None;
        }
        let mut header = [0; HEADER];
        file.read_exact(&mut header).ok()?;
        // Read twice rather than held: fresh memory takes longer to come by than the host's cache to read.
        if &header[..8] != MAGIC || header[8..] != sum(&mut file).ok()?.to_le_bytes() {
            return None;
        }
        file.seek(SeekFrom::Start(HEADER as u64)).ok()?;
        // The oldest go first: it was used now. Where the time cannot be set, it only goes earlier.
        let _ = fs::File::options().append(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
        Some(Box::new(file.take(len)))
    }

    /// On a thread of its own: the guest does not wait for the disk.
    fn keep(&self, packed: &[u8], unpacked: Vec<u8>) {
        let (dir, path) = (self.dir.clone(), self.path(packed));
        // Without a thread, or room on the disk, the next run unpacks again.
        let _ = std::thread::Builder::new().name("keep-kernel".into()).spawn(move || write(&dir, &path, &unpacked));
    }
}

fn sum(kernel: &mut dyn Read) -> io::Result<u32> {
    let mut crc = CrcReader::new(kernel);
    let mut buffer = [0; 64 << 10];
    while crc.read(&mut buffer)? > 0 {}
    Ok(crc.crc().sum())
}

fn write(dir: &Path, path: &Path, kernel: &[u8]) -> io::Result<()> {
    make_private_dir(dir)?;
    let new = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = create_private(&new).and_then(|mut file| {
        file.write_all(MAGIC)?;
        file.write_all(&sum(&mut &kernel[..])?.to_le_bytes())?;
        file.write_all(kernel)
    });
    if let Err(e) = written.and_then(|()| fs::rename(&new, path)) {
        let _ = fs::remove_file(&new);
        return Err(e);
    }
    prune(dir)
}

/// Removes all kernels but the last used.
fn prune(dir: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(dir)?
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with("kernel-")))
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    files.sort();
    for (_, path) in files.iter().rev().skip(MOST) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let kernels = Kernels::new(dir.path().join("cache"));
        let kernel = vec![7u8; 5000];
        let find = |packed: &[u8], len| {
            let mut found = kernels.find(packed, len)?;
            let mut kernel = Vec::new();
            found.read_to_end(&mut kernel).ok().map(|_| kernel)
        };
        assert_eq!(find(b"packed", 5000), None);
        let path = kernels.path(b"packed");
        write(&kernels.dir, &path, &kernel).unwrap();
        assert_eq!(find(b"packed", 5000), Some(kernel));
        assert_eq!(find(b"packed", 4999), None);
        assert_eq!(find(b"another", 5000), None);
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(find(b"packed", 5000), None);
        fs::write(&path, b"EG").unwrap();
        assert_eq!(find(b"packed", 5000), None);
    }

    #[test]
    fn only_the_last_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let kernels = Kernels::new(dir.path().to_owned());
        for n in 0..MOST + 3 {
            write(&kernels.dir, &kernels.path(&[n as u8]), &[1, 2, 3]).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MOST);
    }
}
