//! Where vectors come from: files, folders and archives, compressed or not, as batches of tests.

use super::masks::FlagMasks;
use super::moo_parts::{Broken, Part, cut};
use super::vector::{Place, Vector};
use super::{ParseError, jsonl, moo};
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of JSON lines handed out at once.
const BATCH: u64 = 1 << 20;
/// Deepest folder.
const DEPTH_LIMIT: u32 = 32;

/// Why a path cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The host says so.
    #[error("{}: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It holds no vectors.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

/// A piece of work: (part of) a file.
pub struct Batch {
    file: Arc<str>,
    data: Vec<u8>,
    /// Where `data` starts in the file.
    offset: u64,
    tests: Tests,
}

/// What a batch's data is.
enum Tests {
    /// `TEST` chunks, with the chunks that speak of all tests of the file and the suite's masks.
    Moo(Arc<[u8]>, Option<Arc<FlagMasks>>),
    JsonLines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Moo,
    JsonLines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Xz,
}

/// What a file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Vectors(Format, Packing),
    Tar(Packing),
}

fn kind(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Packing::Gzip),
        Some((stem, "xz")) => (stem, Packing::Xz),
        Some((_, "tgz")) => return Some(Kind::Tar(Packing::Gzip)),
        Some((_, "txz")) => return Some(Kind::Tar(Packing::Xz)),
        _ => (name.as_str(), Packing::None),
    };
    match stem.rsplit_once('.')?.1 {
        "moo" => Some(Kind::Vectors(Format::Moo, packing)),
        "jsonl" => Some(Kind::Vectors(Format::JsonLines, packing)),
        "tar" => Some(Kind::Tar(packing)),
        _ => None,
    }
}

fn unpack<'a>(reader: impl Read + 'a, packing: Packing) -> Box<dyn Read + 'a> {
    match packing {
        Packing::None => Box::new(reader),
        Packing::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Packing::Xz => Box::new(XzDecoder::new_multi_decoder(reader)),
    }
}

impl Batch {
    /// Calls `each` with every test; `Break` ends early.
    pub fn for_each(&self, mut each: impl FnMut(Vector) -> std::ops::ControlFlow<()>) -> Result<(), ParseError> {
        let mut go = |next: &mut dyn Iterator<Item = Result<Vector, ParseError>>| {
            for vector in next {
                if each(vector?).is_break() {
                    break;
                }
            }
            Ok(())
        };
        match &self.tests {
            Tests::Moo(head, masks) => go(&mut moo::Reader::part(head, &self.data, self.offset, &self.file, masks.as_deref())?),
            Tests::JsonLines => go(&mut jsonl::Reader::new(&self.data, &self.file, self.offset)),
        }
    }
}

/// What a walk over paths hands out.
pub enum Found {
    /// Tests to run.
    Batch(Batch),
    /// A file that is not what its name says.
    Bad(ParseError),
}

/// A walk; `give` takes what is found and says whether to go on.
pub struct Walk<'a> {
    /// Takes what is found.
    pub give: &'a mut dyn FnMut(Found) -> bool,
}

type Walked = Result<bool, SourceError>;

impl Walk<'_> {
    /// Hands out all vectors under `path`. False: `give` wants no more.
    pub fn path(&mut self, path: &Path) -> Walked {
        let read = |source| SourceError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.is_dir() {
            let mut found = false;
            let more = self.folder(path, 0, &mut found)?;
            let why = "no vector files (.MOO, .jsonl, .tar and their .gz and .xz) in this folder".to_owned();
            return if found { Ok(more) } else { Err(SourceError::Unusable { path: path.to_owned(), why }) };
        }
        let Some(kind) = path.file_name().and_then(|n| kind(&n.to_string_lossy())) else {
            let why = "not a vector file: the name must end in .MOO, .jsonl or .tar, or these with .gz or .xz".to_owned();
            return Err(SourceError::Unusable { path: path.to_owned(), why });
        };
        self.file(path, kind)
    }

    fn folder(&mut self, folder: &Path, depth: u32, found: &mut bool) -> Walked {
        let read = |source| SourceError::Read { path: folder.to_owned(), source };
        let mut entries: Vec<_> = std::fs::read_dir(folder).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let file_type = entry.file_type().map_err(read)?;
            // Linked folders are not followed: they may lead back here.
            if file_type.is_dir() && depth < DEPTH_LIMIT {
                if !self.folder(&path, depth + 1, found)? {
                    return Ok(false);
                }
            } else if !file_type.is_dir()
                && let Some(kind) = kind(&entry.file_name().to_string_lossy())
            {
                *found = true;
                if !self.file(&path, kind)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn file(&mut self, path: &Path, kind: Kind) -> Walked {
        let open = || File::open(path).map(BufReader::new).map_err(|source| SourceError::Read { path: path.to_owned(), source });
        let name: Arc<str> = path.display().to_string().into();
        match kind {
            Kind::Vectors(format, packing) => {
                let masks = if format == Format::Moo { masks_beside(path)? } else { None };
                Ok(self.vectors(&name, format, &mut unpack(open()?, packing), masks.as_ref()))
            }
            Kind::Tar(packing) => {
                let masks = match masks_inside(unpack(open()?, packing)) {
                    Ok(Some(text)) => Some(parse_masks(&path.join("metadata.json"), &text)?),
                    Ok(None) => masks_beside(path)?,
                    Err(e) => return Ok((self.give)(Found::Bad(broken(&name, 0, &e)))),
                };
                Ok(self.archive(&name, unpack(open()?, packing), masks.as_ref()))
            }
        }
    }

    fn archive(&mut self, archive: &Arc<str>, reader: Box<dyn Read + '_>, masks: Option<&Arc<FlagMasks>>) -> bool {
        let mut tar = tar::Archive::new(reader);
        let entries = match tar.entries() {
            Ok(entries) => entries,
            Err(e) => return (self.give)(Found::Bad(broken(archive, 0, &e))),
        };
        let mut offset = 0;
        for entry in entries {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(e) => return (self.give)(Found::Bad(broken(archive, offset, &e))),
            };
            offset = entry.raw_file_position();
            let member = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if let Some(Kind::Vectors(format, packing)) = kind(&member) {
                let name = format!("{archive}:{member}").into();
                if !self.vectors(&name, format, &mut unpack(&mut entry, packing), masks) {
                    return false;
                }
            }
        }
        true
    }

    /// Reads one file of vectors and hands it out in batches.
    fn vectors(&mut self, name: &Arc<str>, format: Format, reader: &mut dyn Read, masks: Option<&Arc<FlagMasks>>) -> bool {
        match format {
            Format::Moo => self.moo(name, reader, masks),
            Format::JsonLines => self.lines(name, reader),
        }
    }

    fn moo(&mut self, name: &Arc<str>, reader: &mut dyn Read, masks: Option<&Arc<FlagMasks>>) -> bool {
        let mut emit = |part: Part| {
            let tests = Tests::Moo(part.head, masks.cloned());
            (self.give)(Found::Batch(Batch { file: Arc::clone(name), data: part.data, offset: part.offset, tests }))
        };
        match cut(reader, &mut emit) {
            Ok(more) => more,
            Err(Broken::Unpack(at, e)) => (self.give)(Found::Bad(broken(name, at, &e))),
            Err(Broken::Format(problem)) => (self.give)(Found::Bad(problem.in_file(name))),
        }
    }

    fn lines(&mut self, name: &Arc<str>, reader: &mut dyn Read) -> bool {
        let mut offset = 0;
        let mut carry = Vec::new();
        loop {
            let mut data = std::mem::take(&mut carry);
            let before = data.len();
            if let Err(e) = (&mut *reader).take(BATCH).read_to_end(&mut data) {
                return (self.give)(Found::Bad(broken(name, offset + data.len() as u64, &e)));
            }
            let last = ((data.len() - before) as u64) < BATCH;
            if !last {
                // A line that is still not over after this much goes out cut and is refused by the reader.
                match data.iter().rposition(|b| *b == b'\n') {
                    Some(end) => carry = data.split_off(end + 1),
                    None if data.len() <= jsonl::LINE_LIMIT => {
                        carry = data;
                        continue;
                    }
                    None => {}
                }
            }
            let cut_off = !last && carry.is_empty() && data.last() != Some(&b'\n');
            let length = data.len() as u64;
            let batch = Batch { file: Arc::clone(name), data, offset, tests: Tests::JsonLines };
            if !(self.give)(Found::Batch(batch)) {
                return false;
            }
            if last || cut_off {
                return true;
            }
            offset += length;
        }
    }
}

fn broken(file: &Arc<str>, offset: u64, e: &io::Error) -> ParseError {
    ParseError { place: Place { file: Arc::clone(file), offset }, what: format!("cannot be unpacked: {e}") }
}

/// The text of an archive's `metadata.json`, which may stand behind the tests.
fn masks_inside(reader: Box<dyn Read + '_>) -> io::Result<Option<Vec<u8>>> {
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        if entry.path()?.file_name().is_some_and(|n| n == "metadata.json") {
            let mut text = Vec::new();
            entry.by_ref().take(1 << 24).read_to_end(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// The masks of `metadata.json` or `NAME-metadata.json` in the folder of a file called `NAME.…`.
fn masks_beside(path: &Path) -> Result<Option<Arc<FlagMasks>>, SourceError> {
    let stem = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = stem.split('.').next().unwrap_or_default();
    for name in [format!("{stem}-metadata.json"), "metadata.json".to_owned()] {
        let beside = path.with_file_name(name);
        match std::fs::read(&beside) {
            Ok(text) => return parse_masks(&beside, &text).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SourceError::Read { path: beside, source }),
        }
    }
    Ok(None)
}

fn parse_masks(path: &Path, text: &[u8]) -> Result<Arc<FlagMasks>, SourceError> {
    FlagMasks::parse(text).map(Arc::new).map_err(|why| SourceError::Unusable { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_name() {
        use {Format::*, Kind::*};
        for (name, want) in [
            ("00.MOO", Some(Vectors(Moo, Packing::None))),
            ("00.MOO.gz", Some(Vectors(Moo, Packing::Gzip))),
            ("a.jsonl.xz", Some(Vectors(JsonLines, Packing::Xz))),
            ("80286.tar.xz", Some(Tar(Packing::Xz))),
            ("x.TGZ", Some(Tar(Packing::Gzip))),
            ("metadata.json", None),
            ("README", None),
            ("moo", None),
            ("a.gz", None),
        ] {
            assert_eq!(kind(name), want, "{name}");
        }
    }
}
