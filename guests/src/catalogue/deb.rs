//! Takes files out of Debian packages, without root: `ar`, then a packed `tar`. Source: deb(5).

use super::CatalogueError;
use std::io::{self, Read};

/// A file taken out of a package may have this many bytes.
const FILE_MAX: u64 = 256 << 20;
/// A package may unpack to this many bytes.
const TREE_MAX: u64 = 8 << 30;
/// Memory for the decoders' windows.
const WINDOW_MAX: u64 = 128 << 20;

/// The first regular file in the package `deb` whose path (without a leading `./`) `wanted` accepts. `name` is for errors.
pub(super) fn extract(name: &str, deb: &[u8], wanted: &dyn Fn(&str) -> bool) -> Result<Vec<u8>, CatalogueError> {
    let fail = |reason: String| CatalogueError::Package { name: name.into(), reason: super::error::one_line(&reason) };
    let mut archive = ar::Archive::new(deb);
    while let Some(member) = archive.next_entry() {
        let member = member.map_err(|e| fail(format!("not a Debian package: {e}")))?;
        let id = String::from_utf8_lossy(member.header().identifier()).into_owned();
        if let Some(suffix) = id.trim_end_matches('/').strip_prefix("data.tar") {
            let tree = unpacked(suffix, member).map_err(|e| fail(e.to_string()))?;
            let found = search(tree.take(TREE_MAX), wanted).map_err(|e| fail(format!("damaged package: {e}")))?;
            return found.ok_or_else(|| fail("the package lacks the file looked for".into()));
        }
    }
    Err(fail("not a Debian package: no data.tar in it".into()))
}

fn unpacked<'a>(suffix: &str, data: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match suffix {
        "" => Box::new(data),
        ".gz" => Box::new(flate2::read::GzDecoder::new(data)),
        ".xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(WINDOW_MAX, 0)?;
            Box::new(liblzma::read::XzDecoder::new_stream(data, stream))
        }
        ".zst" => Box::new(ruzstd::decoding::StreamingDecoder::new(data).map_err(io::Error::other)?),
        other => return Err(io::Error::other(format!("data.tar{other}: packed in an unknown way"))),
    })
}

fn search(tree: impl Read, wanted: &dyn Fn(&str) -> bool) -> io::Result<Option<Vec<u8>>> {
    for entry in tar::Archive::new(tree).entries()? {
        let entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !entry.header().entry_type().is_file() || !wanted(path.trim_start_matches("./").trim_start_matches('/')) {
            continue;
        }
        if entry.size() > FILE_MAX {
            return Err(io::Error::other(format!("{path} has {} bytes", entry.size())));
        }
        let mut data = Vec::new();
        let size = entry.size();
        entry.take(FILE_MAX).read_to_end(&mut data)?;
        return if data.len() as u64 == size { Ok(Some(data)) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
    }
    Ok(None)
}
