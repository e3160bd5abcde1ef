//! Where Debian packages come from: apt, where it is installed, or a mirror that the user names.

use super::control::{self, Package};
use super::error::one_line;
use super::store::sha256;
use super::{CatalogueError, Progress};
use liblzma::stream::{CONCATENATED, Stream};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Tries of a download.
const TRIES: u32 = 4;
/// A package index may have this many bytes, packed or not.
const INDEX_MAX: u64 = 512 << 20;
/// Memory for a decoder's window.
const WINDOW_MAX: u64 = 128 << 20;
/// A package may have this many bytes.
const PACKAGE_MAX: u64 = 1 << 30;

/// A source of packages.
pub(super) enum Source {
    /// The system's own apt.
    Apt {
        /// Wait before the first retry.
        delay: Duration,
    },
    /// A Debian mirror.
    Mirror {
        mirror: Mirror,
        /// The unpacked package index of stable/main/amd64.
        index: String,
        /// Its address.
        place: String,
    },
}

impl Source {
    /// The mirror at `mirror`, with its index, or else apt.
    pub(super) fn choose(mirror: Option<&str>, delay: Duration, progress: &mut dyn FnMut(Progress)) -> Result<Source, CatalogueError> {
        if let Some(address) = mirror {
            let mirror = Mirror { base: Base::parse(address)?, delay };
            let (index, place) = mirror.index(progress)?;
            return Ok(Source::Mirror { mirror, index, place });
        }
        let present = |tool| Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
        if present("apt-get") && present("apt-cache") { Ok(Source::Apt { delay }) } else { Err(CatalogueError::NoApt) }
    }

    /// The name of the index, for messages.
    pub(super) fn place(&self) -> &str {
        match self {
            Source::Apt { .. } => "apt",
            Source::Mirror { place, .. } => place,
        }
    }

    /// The package called `name`, of version `version` if that is given.
    pub(super) fn find(&self, name: &str, version: Option<&str>) -> Result<Package, CatalogueError> {
        match self {
            Source::Apt { .. } => apt_show(name, version),
            Source::Mirror { index, place, .. } => control::find(index, name, version, place),
        }
    }

    /// The package's file, checked against the index.
    pub(super) fn fetch(&self, package: &Package, progress: &mut dyn FnMut(Progress)) -> Result<Vec<u8>, CatalogueError> {
        let data = match self {
            Source::Apt { delay } => retrying(*delay, progress, |_| apt_download(package))?,
            Source::Mirror { mirror, .. } => mirror.fetch(&package.filename, package.size.min(PACKAGE_MAX), progress)?,
        };
        check(&package.filename, &data, package.size, &package.sha256)?;
        Ok(data)
    }
}

/// Compares `data` with what the index says of it.
fn check(name: &str, data: &[u8], size: u64, hash: &str) -> Result<(), CatalogueError> {
    let fail = |what, got: String, want: String| Err(CatalogueError::Mismatch { name: name.into(), what, got, want });
    if data.len() as u64 != size {
        return fail("size", data.len().to_string(), size.to_string());
    }
    let got = sha256(data);
    if got == hash { Ok(()) } else { fail("SHA-256", got, hash.into()) }
}

/// Calls `action` until it succeeds or has failed [`TRIES`] times, waiting in between, twice as long each time. A
/// [`CatalogueError::Index`] is not tried again: it will not get better.
fn retrying<T>(
    delay: Duration,
    progress: &mut dyn FnMut(Progress),
    mut action: impl FnMut(&mut dyn FnMut(Progress)) -> Result<T, CatalogueError>,
) -> Result<T, CatalogueError> {
    let mut wait = delay;
    for _ in 1..TRIES {
        match action(progress) {
            Err(e) if !matches!(e, CatalogueError::Index { .. }) => {
                progress(Progress::Step(format!("{e}; trying again in {:.0} s", wait.as_secs_f32())));
                std::thread::sleep(wait);
                wait *= 2;
            }
            done => return done,
        }
    }
    action(progress)
}

/// Runs one of apt's tools and returns its output, or its last words.
fn apt(tool: &str, args: &[&str], dir: &Path) -> Result<String, String> {
    let output = Command::new(tool).args(args).current_dir(dir).env("LC_ALL", "C").output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = words.lines().filter(|l| l.starts_with("E:")).collect();
    Err(one_line(if errors.is_empty() { words.lines().last().unwrap_or("no reason given") } else { errors[errors.len() - 1] }))
}

fn apt_show(name: &str, version: Option<&str>) -> Result<Package, CatalogueError> {
    let asked = match version {
        Some(v) => format!("{name}:amd64={v}"),
        None => format!("{name}:amd64"),
    };
    let text = apt("apt-cache", &["show", "--no-all-versions", &asked], Path::new("."))
        .map_err(|reason| CatalogueError::AptPackage { package: name.into(), reason })?;
    control::find(&text, name, version, "apt")
}

/// Has apt put the package into a temporary directory, and reads it.
fn apt_download(package: &Package) -> Result<Vec<u8>, CatalogueError> {
    let asked = format!("{}:amd64={}", package.name, package.version);
    let command = format!("apt-get download {asked}");
    let fail = |reason| CatalogueError::Apt { command: command.clone(), reason };
    let dir = tempfile::tempdir().map_err(CatalogueError::at(&std::env::temp_dir()))?;
    apt("apt-get", &["-q", "download", &asked], dir.path()).map_err(fail)?;
    let files = fs::read_dir(dir.path()).map_err(CatalogueError::at(dir.path()))?;
    let deb = files.filter_map(|f| f.ok().map(|f| f.path())).find(|p| p.extension().is_some_and(|x| x == "deb"));
    let deb = deb.ok_or_else(|| fail("it brought no package".into()))?;
    fs::read(&deb).map_err(CatalogueError::at(&deb))
}

/// A mirror's base address.
enum Base {
    /// Without a slash at the end.
    Http(String),
    Dir(PathBuf),
}

impl Base {
    fn parse(address: &str) -> Result<Base, CatalogueError> {
        let bad = || CatalogueError::MirrorAddress(one_line(address));
        let trimmed = address.trim_end_matches('/');
        if trimmed.starts_with("http://") || trimmed.starts_with("https://") {
            return Ok(Base::Http(trimmed.into()));
        }
        let path = trimmed.strip_prefix("file:").ok_or_else(bad)?;
        let path = path.strip_prefix("//localhost").or_else(|| path.strip_prefix("//")).unwrap_or(path);
        // file:///C:/mirror on Windows.
        let drive = path.strip_prefix('/').filter(|p| cfg!(windows) && p.as_bytes().get(1) == Some(&b':'));
        if path.is_empty() { Err(bad()) } else { Ok(Base::Dir(drive.unwrap_or(path).into())) }
    }

    fn address(&self, path: &str) -> String {
        match self {
            Base::Http(base) => format!("{base}/{path}"),
            Base::Dir(dir) => dir.join(path).display().to_string(),
        }
    }
}

/// A mirror and how patient to be with it.
pub(super) struct Mirror {
    base: Base,
    delay: Duration,
}

impl Mirror {
    /// The package index of stable/main/amd64 and its address: through the Release file when there is one, which vouches for its hash.
    fn index(&self, progress: &mut dyn FnMut(Progress)) -> Result<(String, String), CatalogueError> {
        const DIST: &str = "dists/stable";
        const PACKAGES: &str = "main/binary-amd64/Packages";
        progress(Progress::Step("fetching the package index".into()));
        let release = match self.fetch(&format!("{DIST}/Release"), INDEX_MAX, progress) {
            Ok(data) => Some(String::from_utf8_lossy(&data).into_owned()),
            Err(CatalogueError::Index { .. }) => None,
            Err(e) => return Err(e),
        };
        let mut last = None;
        for suffix in [".xz", ".gz", ""] {
            let name = format!("{PACKAGES}{suffix}");
            let known = release.as_deref().map(|r| control::release_entry(r, &name));
            if known == Some(None) {
                continue;
            }
            let path = format!("{DIST}/{name}");
            match self.fetch(&path, INDEX_MAX, progress) {
                Ok(data) => {
                    if let Some(Some((size, hash))) = known {
                        check(&self.base.address(&path), &data, size, &hash)?;
                    }
                    return Ok((unpack_index(suffix, &data, &self.base.address(&path))?, self.base.address(&path)));
                }
                Err(e @ CatalogueError::Index { .. }) => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        let place = self.base.address(&format!("{DIST}/{PACKAGES}"));
        Err(last.unwrap_or(CatalogueError::Index { place, reason: "the Release file lists no package index for amd64".into() }))
    }

    /// The file at `path` below the base, of at most `max` bytes. What the mirror does not have is a [`CatalogueError::Index`].
    fn fetch(&self, path: &str, max: u64, progress: &mut dyn FnMut(Progress)) -> Result<Vec<u8>, CatalogueError> {
        let address = self.base.address(path);
        match &self.base {
            Base::Dir(_) => read_file(Path::new(&address), max),
            Base::Http(_) => retrying(self.delay, progress, |progress| http_get(&address, max, progress)),
        }
    }
}

fn read_file(path: &Path, max: u64) -> Result<Vec<u8>, CatalogueError> {
    let place = || path.display().to_string();
    let file = fs::File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => CatalogueError::Index { place: place(), reason: "not on this mirror".into() },
        _ => CatalogueError::at(path)(e),
    })?;
    let mut data = Vec::new();
    file.take(max + 1).read_to_end(&mut data).map_err(CatalogueError::at(path))?;
    if data.len() as u64 > max {
        Err(CatalogueError::Fetch { address: place(), reason: format!("it has over {max} bytes") })
    } else {
        Ok(data)
    }
}

fn http_get(address: &str, max: u64, progress: &mut dyn FnMut(Progress)) -> Result<Vec<u8>, CatalogueError> {
    let fail = |reason: String| CatalogueError::Fetch { address: address.into(), reason: one_line(&reason) };
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        // What is packed is fetched packed: sizes and hashes are of that.
        .accept_encoding(ureq::config::AutoHeaderValue::None)
        .build();
    let response = ureq::Agent::new_with_config(config).get(address).call().map_err(|e| fail(e.to_string()))?;
    match response.status().as_u16() {
        200 => {}
        404 | 410 => return Err(CatalogueError::Index { place: address.into(), reason: "not on this mirror".into() }),
        status => return Err(fail(format!("the mirror answers with status {status}"))),
    }
    let mut body = response.into_body();
    let total = body.content_length();
    let mut reader = body.as_reader().take(max + 1);
    let mut data = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let n = reader.read(&mut chunk).map_err(|e| fail(e.to_string()))?;
        if n == 0 {
            break;
        }
        data.extend_from_slice(&chunk[..n]);
        progress(Progress::Bytes { done: data.len() as u64, total });
    }
    if data.len() as u64 > max {
        return Err(fail(format!("it has over {max} bytes")));
    }
    Ok(data)
}

fn unpack_index(suffix: &str, data: &[u8], place: &str) -> Result<String, CatalogueError> {
    let fail = |reason: String| CatalogueError::Index { place: place.into(), reason: one_line(&reason) };
    let reader: Box<dyn Read> = match suffix {
        ".xz" => match Stream::new_stream_decoder(WINDOW_MAX, CONCATENATED) {
            Ok(stream) => Box::new(liblzma::read::XzDecoder::new_stream(data, stream)),
            Err(e) => return Err(fail(e.to_string())),
        },
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(data)),
        _ => Box::new(data),
    };
    let mut text = Vec::new();
    reader.take(INDEX_MAX).read_to_end(&mut text).map_err(|e| fail(e.to_string()))?;
    String::from_utf8(text).map_err(|e| fail(e.to_string()))
}
