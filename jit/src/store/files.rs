//! Files of records. A file is written once, under a name of its own, and put in place by renaming; after that it is only read or
//! removed. So runs at the same time need no locks, and a run that is killed leaves at most a temporary file.
//!
//! Whoever can write these files can run code as the user: they are made for the user alone, and what is not is not read.

use super::{Settings, record};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const MAGIC: &[u8; 8] = b"EGRCODE1";
/// Magic, fingerprint, checksum of the index, its length.
const HEADER: usize = 8 + 8 + 8 + 8;
/// Bytes of an index entry without its keys: offset, length, checksum, number of keys.
const FIXED: usize = 8 + 4 + 8 + 2;
/// Longest record.
const MOST_RECORD: u32 = 4 << 20;
/// Longest index.
const MOST_INDEX: u64 = 64 << 20;
/// From this number of files on, they are written anew as one.
const MANY: usize = 8;
/// Age at which a temporary file belongs to nobody.
const STALE: Duration = Duration::from_secs(3600);

/// Where a record is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// In memory, by number.
    Memory { number: u32 },
    /// In a file: which, from where, how long, with which checksum.
    File { pack: u32, at: u64, len: u32, sum: u64 },
}

/// A record's entry in its file's index.
pub(super) struct IndexEntry {
    pub at: u64,
    pub len: u32,
    pub sum: u64,
    pub id: u64,
    pub keys: Vec<u64>,
}

/// An open file.
pub(super) struct Pack {
    file: File,
    path: PathBuf,
    used: bool,
}

impl Pack {
    /// A record's bytes, if they are what was written.
    pub fn read(&mut self, place: &Place) -> Option<Vec<u8>> {
        let Place::File { at, len, sum, .. } = *place else { return None };
        let mut bytes = vec![0; len as usize];
        self.file.seek(SeekFrom::Start(at)).ok()?;
        self.file.read_exact(&mut bytes).ok()?;
        self.used = true;
        (record::sum(&bytes) == sum).then_some(bytes)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The index of a file, every number in it checked against the file's length.
fn read_index(file: &mut File, fingerprint: u64) -> Option<Vec<IndexEntry>> {
    let size = file.metadata().ok()?.len();
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    let len = word(&header, 24)?;
    if &header[..8] != MAGIC || word(&header, 8)? != fingerprint || len > MOST_INDEX || len > size {
        return None;
    }
    let mut index = vec![0; len as usize];
    file.read_exact(&mut index).ok()?;
    if record::sum(&index) != word(&header, 16)? {
        return None;
    }
    let mut entries = Vec::new();
    let mut rest = index.as_slice();
    while !rest.is_empty() {
        let (fixed, tail) = rest.split_at_checked(FIXED)?;
        let (at, sum) = (word(fixed, 0)?, word(fixed, 12)?);
        let len = u32::from_le_bytes(fixed[8..12].try_into().ok()?);
        let count = usize::from(u16::from_le_bytes(fixed[20..22].try_into().ok()?));
        let (keys, tail) = tail.split_at_checked(count * 8)?;
        if len > MOST_RECORD || at.checked_add(len.into())? > size {
            return None;
        }
        let keys = keys.chunks_exact(8).filter_map(|k| word(k, 0)).collect();
        entries.push(IndexEntry { at, len, sum, id: sum, keys });
        rest = tail;
    }
    Some(entries)
}

fn is_pack(path: &Path, fingerprint: Option<u64>) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let prefix = fingerprint.map_or("code-".to_owned(), |f| format!("code-{f:016x}-"));
    name.starts_with(&prefix) && name.ends_with(".pack")
}

/// The files of a directory with their sizes and when they were last used, the oldest first.
fn list(dir: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| {
            let m = e.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((e.path(), m.len(), m.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
        })
        .collect();
    files.sort_by(|a, b| (a.2, &a.0).cmp(&(b.2, &b.0)));
    files
}

/// Opens the files made by this code generator, the oldest first; also how many could not be used.
pub(super) fn open_all(dir: &Path, fingerprint: u64) -> (Vec<(Pack, Vec<IndexEntry>)>, u64) {
    let (mut packs, mut refused) = (Vec::new(), 0);
    if !private::is_ours(dir) {
        return (packs, u64::from(dir.exists()));
    }
    for (path, ..) in list(dir).into_iter().filter(|(p, ..)| is_pack(p, Some(fingerprint))) {
        let opened = File::open(&path).ok().filter(private::is_file_ours);
        match opened.and_then(|mut file| Some((read_index(&mut file, fingerprint)?, file))) {
            Some((index, file)) => packs.push((Pack { file, path, used: false }, index)),
            None => refused += 1,
        }
    }
    (packs, refused)
}

/// Makes a directory, and those above it, for the user alone.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    private::make_dir(dir)
}

/// Makes a new file for the user alone.
pub fn create_private(path: &Path) -> io::Result<File> {
    private::create(path)
}

/// Marks the files that were used as such: those that are not go first.
pub(super) fn touch(packs: &mut [Pack]) {
    for pack in packs.iter_mut().filter(|p| p.used) {
        pack.used = false;
        // Where that is impossible the file is only removed earlier.
        let _ = OpenOptions::new().write(true).open(&pack.path).and_then(|f| f.set_modified(SystemTime::now()));
    }
}

/// Writes records to a new file, together with those of the old ones when they have become many: how many bytes.
pub(super) fn write(settings: &Settings, fingerprint: u64, new: &[(&[u8], Vec<u64>)], packs: &mut Vec<Pack>) -> io::Result<u64> {
    private::make_dir(&settings.dir)?;
    if !private::is_ours(&settings.dir) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory is not the user's alone"));
    }
    touch(packs);
    let mut old = Vec::new();
    let merge = packs.len() >= MANY;
    if merge {
        gather(packs, fingerprint, settings.limit / 2, &mut old);
    }
    let all = old.iter().map(|(b, k)| (b.as_slice(), k.as_slice())).chain(new.iter().map(|(b, k)| (*b, k.as_slice())));
    let bytes = assemble(fingerprint, &all.collect::<Vec<_>>());
    if bytes.len() as u64 > settings.limit {
        return Ok(0);
    }
    let unique =
        format!("{}-{}", std::process::id(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos());
    let temporary = settings.dir.join(format!("new-{unique}"));
    let path = settings.dir.join(format!("code-{fingerprint:016x}-{unique}.pack"));
    let mut file = private::create(&temporary)?;
    let done = file.write_all(&bytes).and_then(|()| fs::rename(&temporary, &path));
    if let Err(e) = done {
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    if merge {
        for pack in packs.drain(..) {
            // Another run may have it open, or have removed it: then it goes later, or has gone.
            let _ = fs::remove_file(&pack.path);
        }
    }
    clean(settings);
    Ok(bytes.len() as u64)
}

/// The records of old files, the newest first, up to a number of bytes.
fn gather(packs: &mut [Pack], fingerprint: u64, most: u64, into: &mut Vec<(Vec<u8>, Vec<u64>)>) {
    let mut total = 0;
    for pack in packs.iter_mut().rev() {
        if pack.file.seek(SeekFrom::Start(0)).is_err() {
            continue;
        }
        for entry in read_index(&mut pack.file, fingerprint).unwrap_or_default() {
            total += u64::from(entry.len);
            if total > most {
                return;
            }
            let place = Place::File { pack: 0, at: entry.at, len: entry.len, sum: entry.sum };
            into.extend(pack.read(&place).map(|bytes| (bytes, entry.keys)));
        }
    }
}

fn assemble(fingerprint: u64, records: &[(&[u8], &[u64])]) -> Vec<u8> {
    let index_len: usize = records.iter().map(|(_, keys)| FIXED + 8 * keys.len()).sum();
    let mut index = Vec::with_capacity(index_len);
    let mut at = (HEADER + index_len) as u64;
    for (bytes, keys) in records {
        index.extend(at.to_le_bytes());
        index.extend((bytes.len() as u32).to_le_bytes());
        index.extend(record::sum(bytes).to_le_bytes());
        index.extend((keys.len() as u16).to_le_bytes());
        for key in *keys {
            index.extend(key.to_le_bytes());
        }
        at += bytes.len() as u64;
    }
    let mut out = Vec::with_capacity(at as usize);
    out.extend(MAGIC);
    out.extend(fingerprint.to_le_bytes());
    out.extend(record::sum(&index).to_le_bytes());
    out.extend((index.len() as u64).to_le_bytes());
    out.extend(index);
    for (bytes, _) in records {
        out.extend(*bytes);
    }
    out
}

/// Removes the files that were used longest ago until all fit, and temporary files that nobody will finish.
fn clean(settings: &Settings) {
    let files = list(&settings.dir);
    let mut total: u64 = files.iter().filter(|(p, ..)| is_pack(p, None)).map(|(_, size, _)| size).sum();
    for (path, size, used) in files {
        let temporary = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("new-"));
        let abandoned = temporary && used.elapsed().is_ok_and(|age| age > STALE);
        let surplus = total > settings.limit && is_pack(&path, None);
        let gone = (abandoned || surplus) && fs::remove_file(&path).is_ok();
        if gone && !temporary {
            total -= size;
        }
    }
}

/// Files that are the user's alone.
#[cfg(unix)]
mod private {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    /// Owned by whoever runs this process, and writable by nobody else.
    fn ours(m: &Metadata) -> bool {
        m.uid() == super::user() && m.mode() & 0o022 == 0
    }

    pub fn is_ours(dir: &Path) -> bool {
        std::fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && ours(&m))
    }

    pub fn is_file_ours(file: &File) -> bool {
        file.metadata().is_ok_and(|m| m.is_file() && ours(&m))
    }

    pub fn make_dir(dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    pub fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }
}

/// Elsewhere the user's cache directory inherits access rights that keep others out.
#[cfg(not(unix))]
mod private {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::path::Path;

    pub fn is_ours(dir: &Path) -> bool {
        dir.is_dir()
    }

    pub fn is_file_ours(file: &File) -> bool {
        file.metadata().is_ok_and(|m| m.is_file())
    }

    pub fn make_dir(dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    pub fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }
}

/// The effective user.
#[cfg(unix)]
#[allow(unsafe_code)]
fn user() -> u32 {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() }
}
