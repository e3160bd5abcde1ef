//! Gets a guest from a small mirror made here, over HTTP and from a directory.

use super::store::sha256;
use super::*;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

const KERNEL: &[u8] = b"this stands for a kernel";
const BUSYBOX: &[u8] = b"this stands for busybox";

#[derive(Clone, Copy)]
enum Pack {
    None,
    Gz,
    Xz,
    Zst,
}

impl Pack {
    fn suffix(self) -> &'static str {
        match self {
            Pack::None => "",
            Pack::Gz => ".gz",
            Pack::Xz => ".xz",
            Pack::Zst => ".zst",
        }
    }

    fn pack(self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Pack::None => out.extend(data),
            Pack::Gz => drop(flate2::read::GzEncoder::new(data, flate2::Compression::best()).read_to_end(&mut out).unwrap()),
            Pack::Xz => drop(liblzma::read::XzEncoder::new(data, 6).read_to_end(&mut out).unwrap()),
            Pack::Zst => out = ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest),
        }
        out
    }
}

/// A Debian package with `files`, (path, content).
fn deb(pack: Pack, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tree = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tree.append_data(&mut header, path, *data).unwrap();
    }
    let tree = pack.pack(&tree.into_inner().unwrap());
    let mut out = ar::Builder::new(Vec::new());
    let data_name = format!("data.tar{}", pack.suffix());
    for (name, data) in [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", b""), (&data_name, &tree)] {
        out.append(&ar::Header::new(name.as_bytes().to_vec(), data.len() as u64), data).unwrap();
    }
    out.into_inner().unwrap()
}

/// The files of a mirror by path.
type Files = HashMap<String, Vec<u8>>;

/// A mirror with the three packages, its index packed as `index`, vouched for by a Release file if `release`.
fn mirror(index: Pack, release: bool) -> Files {
    let kernel = deb(Pack::Xz, &[("usr/share/doc/x", b"y"), ("boot/config-9", b"no"), ("boot/vmlinuz-9", KERNEL)]);
    let busybox = deb(Pack::Zst, &[("usr/bin/busybox", BUSYBOX)]);
    let packages = [
        ("linux-image-amd64", "9.1", "linux-image-9-amd64 (= 9.1), x", deb(Pack::Gz, &[])),
        ("linux-image-9-amd64", "9.1", "initramfs-tools", kernel),
        ("busybox-static", "1.2", "", busybox),
    ];
    let mut files = Files::new();
    let mut text = String::new();
    for (name, version, depends, data) in packages {
        let path = format!("pool/main/{name}.deb");
        let (size, hash) = (data.len(), sha256(&data));
        text += &format!("Package: {name}\nVersion: {version}\nDepends: {depends}\nFilename: {path}\nSize: {size}\nSHA256: {hash}\n\n");
        files.insert(path, data);
    }
    let packed = index.pack(text.as_bytes());
    let name = format!("main/binary-amd64/Packages{}", index.suffix());
    if release {
        let text = format!("Suite: stable\nSHA256:\n {} {} {name}\n", sha256(&packed), packed.len());
        files.insert("dists/stable/Release".into(), text.into_bytes());
    }
    files.insert(format!("dists/stable/{name}"), packed);
    files
}

/// A web server for one test: it counts what is asked of it, and answers the first `failures` requests with status 503.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(files: Files, mut failures: usize) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian/", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|l| !l.is_empty()).for_each(drop);
            let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches("/debian/").to_string();
            let (status, body) = match files.get(&path) {
                _ if failures > 0 => ("503 Busy", &b""[..]),
                Some(body) => ("200 OK", body.as_slice()),
                None => ("404 Not Found", &b""[..]),
            };
            failures = failures.saturating_sub(1);
            log.lock().unwrap().push(path);
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // A client that has seen enough may hang up.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    Server { address, asked }
}

fn options(data_dir: &Path, mirror: &str) -> GetOptions {
    GetOptions { mirror: Some(mirror.into()), retry_delay: Duration::from_millis(1), ..GetOptions::new(data_dir.into()) }
}

fn quiet(_: Progress) {}

/// The entries of a newc archive: path, mode, content.
fn cpio_entries(mut data: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut entries = Vec::new();
    loop {
        assert_eq!(&data[..6], b"070701");
        let field = |i: usize| u32::from_str_radix(std::str::from_utf8(&data[6 + 8 * i..14 + 8 * i]).unwrap(), 16).unwrap();
        let (mode, size, name_len) = (field(1), field(6) as usize, field(11) as usize);
        let name = String::from_utf8(data[110..110 + name_len - 1].to_vec()).unwrap();
        let at = (110 + name_len).next_multiple_of(4);
        if name == "TRAILER!!!" {
            return entries;
        }
        entries.push((name, mode, data[at..at + size].to_vec()));
        data = &data[at + size.next_multiple_of(4)..];
    }
}

#[test]
fn a_guest_comes_from_a_mirror_and_is_used_again() {
    let server = serve(mirror(Pack::Xz, true), 2);
    let dir = tempfile::tempdir().unwrap();
    let opts = options(dir.path(), &server.address);
    let missing = lookup("debian", dir.path()).unwrap_err().to_string();
    assert_eq!(missing, "guest 'debian' is not installed: run egret guests get debian");

    let mut steps = Vec::new();
    let got = get("debian", &opts, &mut |p| steps.push(p)).unwrap();
    assert_eq!(fs::read(&got.kernel).unwrap(), KERNEL);
    assert_eq!((got.manifest.kernel.package.as_str(), got.manifest.kernel.version.as_str()), ("linux-image-9-amd64", "9.1"));
    assert!(steps.iter().any(|s| matches!(s, Progress::Step(t) if t.contains("status 503; trying again"))), "{steps:?}");
    assert!(steps.iter().any(|s| matches!(s, Progress::Bytes { done, total: Some(t) } if done == t)), "{steps:?}");
    assert_eq!(lookup("debian", dir.path()).unwrap().manifest, got.manifest);
    assert_eq!(list(dir.path())[0].installed.as_ref().unwrap().append, "console=ttyS0 panic=-1");

    server.asked.lock().unwrap().clear();
    get("debian", &opts, &mut quiet).unwrap();
    let index = ["dists/stable/Release", "dists/stable/main/binary-amd64/Packages.xz"];
    assert_eq!(*server.asked.lock().unwrap(), index, "only the index is fetched again");

    fs::write(&got.kernel, "broken").unwrap();
    let damaged = lookup("debian", dir.path()).unwrap_err().to_string();
    assert_eq!(damaged, "guest 'debian' is damaged (vmlinuz is not 24 bytes long): run egret guests get debian");
    server.asked.lock().unwrap().clear();
    get("debian", &opts, &mut quiet).unwrap();
    assert_eq!(fs::read(&got.kernel).unwrap(), KERNEL);
    assert_eq!(server.asked.lock().unwrap()[2..], ["pool/main/linux-image-9-amd64.deb"], "busybox was whole");
    let names: Vec<_> = fs::read_dir(dir.path().join("guests")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(names, ["debian"], "nothing is left lying about");
}

#[test]
fn the_initramfs_has_busybox_a_console_and_an_init() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(mirror(Pack::Gz, false), 0);
    for gzip in [false, true] {
        let got = get("debian", &GetOptions { gzip, ..options(dir.path(), &server.address) }, &mut quiet).unwrap();
        let mut initrd = fs::read(&got.initrd).unwrap();
        if gzip {
            let packed = std::mem::take(&mut initrd);
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut initrd).unwrap();
        }
        let entries = cpio_entries(&initrd);
        let of = |path: &str| entries.iter().find(|e| e.0 == path).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!((of("bin/busybox").1, of("bin/busybox").2.as_slice()), (0o100_755, BUSYBOX));
        assert_eq!((of("bin/sh").1, of("bin/sh").2.as_slice()), (0o120_777, &b"busybox"[..]));
        assert_eq!(of("dev/console").1, 0o020_600);
        assert_eq!(of("init").1, 0o100_755);
        assert!(String::from_utf8_lossy(&of("init").2).contains(&format!("\necho {}\n", ENTRIES[0].success)));
        assert_eq!(got.initrd.extension().unwrap(), if gzip { "gz" } else { "cpio" });
        assert!(!dir.path().join("guests/debian").join(if gzip { "initrd.cpio" } else { "initrd.cpio.gz" }).exists());
    }
}

#[test]
fn a_directory_is_a_mirror_too() {
    let dir = tempfile::tempdir().unwrap();
    for (path, data) in mirror(Pack::None, false) {
        let path = dir.path().join("mirror").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }
    let slash = if cfg!(windows) { "/" } else { "" };
    let address = format!("file://{slash}{}", dir.path().join("mirror").display());
    let got = get("debian", &options(&dir.path().join("data"), &address), &mut quiet).unwrap();
    assert_eq!(fs::read(&got.kernel).unwrap(), KERNEL);
}

#[test]
fn what_does_not_match_the_index_is_refused_and_nothing_is_stored() {
    let path = |name: &str| format!("pool/main/{name}.deb");
    let change = |name: &str, data: &[u8]| {
        let mut files = mirror(Pack::Xz, true);
        files.insert(name.into(), data.into());
        files
    };
    let without = |name: &str| {
        let mut files = mirror(Pack::Xz, true);
        files.remove(name);
        files
    };
    let mut flipped = mirror(Pack::Xz, true)[&path("busybox-static")].clone();
    flipped[100] ^= 1;
    let rows: Vec<(Files, &str)> = vec![
        (change(&path("busybox-static"), &flipped), "pool/main/busybox-static.deb: its SHA-256 is"),
        (change(&path("linux-image-9-amd64"), b"short"), "its size is 5, the package index says"),
        (change(&path("linux-image-9-amd64"), &vec![0; 1 << 20]), "it has over"),
        (without(&path("linux-image-9-amd64")), "linux-image-9-amd64.deb: not on this mirror"),
        (change("dists/stable/main/binary-amd64/Packages.xz", b"x"), "Packages.xz: its size is 1"),
        (change("dists/stable/Release", b"SHA256:\n 00 1 other\n"), "the Release file lists no package index for amd64"),
        (Files::new(), "Packages: not on this mirror"),
    ];
    for (files, want) in rows {
        let server = serve(files, 0);
        let dir = tempfile::tempdir().unwrap();
        let error = get("debian", &options(dir.path(), &server.address), &mut quiet).expect_err(want).to_string();
        assert!(error.contains(want) && !error.contains('\n'), "{error:?} does not say {want:?}");
        assert!(matches!(lookup("debian", dir.path()), Err(CatalogueError::NotInstalled(_))));
    }
}

#[test]
fn broken_packages_are_named() {
    let whole = deb(Pack::Xz, &[("boot/vmlinuz-1", KERNEL)]);
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (b"hello".to_vec(), "k: not a Debian package"),
        (b"!<arch>\n".to_vec(), "k: not a Debian package: no data.tar in it"),
        (deb(Pack::Gz, &[("boot/other", b"x")]), "k: the package lacks the file looked for"),
        (whole[..whole.len() - 120].to_vec(), "k: damaged package"),
    ];
    for (data, want) in rows {
        let error = deb::extract("k", &data, &|p| p.starts_with("boot/vmlinuz-")).expect_err(want).to_string();
        assert!(error.starts_with(want) && !error.contains('\n'), "{error:?} does not say {want:?}");
    }
    for pack in [Pack::None, Pack::Gz, Pack::Xz, Pack::Zst] {
        let data = deb(pack, &[("./boot/vmlinuz-1", KERNEL)]);
        assert_eq!(deb::extract("k", &data, &|p| p == "boot/vmlinuz-1").unwrap(), KERNEL);
    }
}

#[test]
fn names_and_mirrors_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let opts = |mirror: &str| options(dir.path(), mirror);
    let unknown = get("beos", &opts("file:/x"), &mut quiet).unwrap_err().to_string();
    assert_eq!(unknown, "there is no guest 'beos' (known: debian)");
    for address in ["ftp://x", "x", "file:", "file://"] {
        let error = get("debian", &opts(address), &mut quiet).unwrap_err().to_string();
        assert_eq!(error, format!("{address}: not an address of a mirror (http:, https: or file:)"));
    }
    // Nobody listens on port 1.
    let error = get("debian", &opts("http://127.0.0.1:1/debian"), &mut quiet).unwrap_err().to_string();
    assert!(error.starts_with("http://127.0.0.1:1/debian/dists/stable/Release: "), "{error}");
}
