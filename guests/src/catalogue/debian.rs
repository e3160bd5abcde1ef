//! The guest `debian`: Debian's current amd64 kernel, and an initramfs with busybox-static in it.

use super::control;
use super::cpio::Cpio;
use super::source::Source;
use super::store::{self, Manifest, Part};
use super::{CatalogueError, Entry, InstalledGuest, Progress, deb};
use std::io::Write;
use std::path::Path;

const KERNEL_PACKAGE: &str = "linux-image-amd64";
const KERNEL_PREFIX: &str = "linux-image-";
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// What the guest prints when user space is up.
pub(super) const UP: &str = "USERSPACE-UP";

/// The first program in the guest. The kernel makes `egret_run=...` on its command line an environment variable.
pub(super) const INIT: &str = r#"#!/bin/busybox sh
# Egret's init for a busybox initramfs: a shell on the console, power off when it ends.
# `egret_run="COMMANDS"` on the kernel's command line runs those instead of the shell.
/bin/busybox mkdir -p /proc /sys /dev /tmp /root /sbin /usr/bin /usr/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mkdir -p /dev/pts
/bin/busybox mount -t devpts devpts /dev/pts
/bin/busybox --install -s
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root TERM="${TERM:-linux}"
hostname egret
cd /root
dmesg -n 1
echo USERSPACE-UP
if [ -n "$egret_run" ]; then
    sh -c "$egret_run"
else
    echo "Debian kernel $(uname -r) with a busybox shell; 'exit' powers off."
    setsid cttyhack sh
fi
sync
poweroff -f
"#;

/// Brings the guest in `dir` up to date from `source`.
pub(super) fn install(
    entry: &Entry,
    dir: &Path,
    gzip: bool,
    source: &mut Source,
    progress: &mut dyn FnMut(Progress),
) -> Result<InstalledGuest, CatalogueError> {
    let meta = source.find(KERNEL_PACKAGE, None)?;
    let (kernel_name, kernel_version) = control::dependency(&meta.depends, KERNEL_PREFIX)
        .ok_or_else(|| CatalogueError::Index { place: source.place().into(), reason: format!("{KERNEL_PACKAGE} depends on no kernel") })?;
    let kernel_package = source.find(&kernel_name, kernel_version.as_deref())?;
    let busybox_package = source.find(BUSYBOX_PACKAGE, None)?;

    let old = store::manifest(dir);
    let mut fetch = |package: &control::Package, had: Option<&Part>, file: &str, wanted: &dyn Fn(&str) -> bool| {
        if let Some(data) = had.filter(|p| p.package_sha256 == package.sha256).and_then(|p| p.read_checked(dir)) {
            progress(Progress::Step(format!("{} {} is here already", package.name, package.version)));
            return Ok((part(file, &data, package), data));
        }
        progress(Progress::Step(format!("fetching {} {}", package.name, package.version)));
        let packed = source.fetch(package, progress)?;
        let data = deb::extract(&package.name, &packed, wanted)?;
        Ok((part(file, &data, package), data))
    };
    let (kernel, kernel_data) = fetch(&kernel_package, old.as_ref().map(|m| &m.kernel), "vmlinuz", &|p| p.starts_with("boot/vmlinuz-"))?;
    let is_busybox = |p: &str| p == "bin/busybox" || p == "usr/bin/busybox";
    let (busybox, busybox_data) = fetch(&busybox_package, old.as_ref().map(|m| &m.busybox), "busybox", &is_busybox)?;

    let (initrd, initrd_data) = initramfs(&busybox_data, gzip)?;
    let manifest = Manifest { name: entry.name.into(), kernel, busybox, initrd, append: entry.append.into() };
    let whole = [&manifest.kernel, &manifest.busybox, &manifest.initrd].iter().all(|p| p.read_checked(dir).is_some());
    if old.as_ref() != Some(&manifest) || !whole {
        progress(Progress::Step(format!("storing it in {}", dir.display())));
        let files: [(&Part, &[u8]); 3] =
            [(&manifest.kernel, &kernel_data), (&manifest.busybox, &busybox_data), (&manifest.initrd, &initrd_data)];
        store::replace(dir, &manifest, &files)?;
    }
    store::find(dir, entry)
}

fn part(file: &str, data: &[u8], package: &control::Package) -> Part {
    let (name, version) = (package.name.clone(), package.version.clone());
    Part { package: name, version, package_sha256: package.sha256.clone(), ..Part::new(file, data) }
}

/// The initramfs around `busybox`. The links to its tools are made at boot, by itself.
fn initramfs(busybox: &[u8], gzip: bool) -> Result<(Part, Vec<u8>), CatalogueError> {
    let mut cpio = Cpio::default();
    for dir in ["bin", "dev", "proc", "sys", "root", "tmp"] {
        cpio.directory(dir);
    }
    // The kernel opens it for init before anything is mounted.
    cpio.character_device("dev/console", 0o600, 5, 1);
    cpio.character_device("dev/null", 0o666, 1, 3);
    cpio.file("bin/busybox", 0o755, busybox);
    cpio.symlink("bin/sh", "busybox");
    cpio.file("init", 0o755, INIT.as_bytes());
    let plain = cpio.finish();
    if !gzip {
        return Ok((Part::new("initrd.cpio", &plain), plain));
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = packer.write_all(&plain).and_then(|()| packer.finish()).map_err(CatalogueError::at(Path::new("initrd.cpio.gz")))?;
    Ok((Part::new("initrd.cpio.gz", &packed), packed))
}
