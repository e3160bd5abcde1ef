//! Other emulators on PATH that can run our workloads.

use egret_guests::workloads::Workload;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// QEMU, interpreting nothing, translating all: its TCG.
    Qemu,
    /// Bochs, an interpreter.
    Bochs,
}

/// The longest run of a peer.
const LIMIT: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(5);
/// What a workload prints at its end.
const DONE: &[u8] = b"DONE";
/// Where a Bochs package may have its BIOS.
const BIOSES: [&str; 4] = [
    "/usr/share/bochs/BIOS-bochs-latest",
    "/usr/local/share/bochs/BIOS-bochs-latest",
    "/opt/homebrew/share/bochs/BIOS-bochs-latest",
    "/usr/share/seabios/bios.bin",
];
const VGA: &str = "/usr/share/bochs/VGABIOS-lgpl-latest";

impl Peer {
    /// All.
    pub const ALL: [Peer; 2] = [Peer::Qemu, Peer::Bochs];

    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Peer::Qemu => "qemu-system-x86_64",
            Peer::Bochs => "bochs",
        }
    }

    /// Why it cannot run here, if it cannot.
    pub fn missing(self) -> Option<String> {
        if which(self.program()).is_none() {
            return Some(format!("{} is not on PATH", self.program()));
        }
        (self == Peer::Bochs && bios().is_none()).then(|| format!("bochs has no BIOS at any of {}", BIOSES.join(", ")))
    }

    /// Seconds from the peer's start to the workload's end.
    pub fn run(self, workload: &Workload) -> io::Result<f64> {
        let folder = tempfile::tempdir()?;
        let serial = folder.path().join("serial");
        let began = Instant::now();
        let mut child = Running(match self {
            Peer::Qemu => qemu(workload, folder.path())?,
            Peer::Bochs => bochs(workload, folder.path())?,
        });
        while began.elapsed() < LIMIT {
            let ended = child.0.try_wait()?.is_some();
            if std::fs::read(&serial).is_ok_and(|text| text.windows(DONE.len()).any(|w| w == DONE)) {
                return Ok(began.elapsed().as_secs_f64());
            }
            if ended {
                return Err(io::Error::other(format!("{} ended before its workload", self.program())));
            }
            std::thread::sleep(LOOK);
        }
        Err(io::Error::other(format!("{} took too long", self.program())))
    }
}

/// A peer that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|p| p.is_file())
}

fn bios() -> Option<&'static str> {
    BIOSES.into_iter().find(|p| Path::new(p).is_file())
}

fn quiet(command: &mut Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

fn qemu(workload: &Workload, folder: &Path) -> io::Result<Child> {
    let kernel = folder.join("kernel");
    std::fs::write(&kernel, &workload.image)?;
    let serial = format!("file:{}", folder.join("serial").display());
    quiet(
        Command::new(Peer::Qemu.program())
            .args(["-accel", "tcg", "-cpu", "max", "-m", "64", "-display", "none", "-monitor", "none", "-no-reboot", "-serial"])
            .arg(serial)
            .args(["-device", "isa-debug-exit,iobase=0xf4", "-kernel"])
            .arg(kernel),
    )
}

fn bochs(workload: &Workload, folder: &Path) -> io::Result<Child> {
    let disk = folder.join("disk");
    std::fs::write(&disk, egret_guests::os::boot_disk(&workload.image))?;
    let rc = folder.join("bochsrc");
    let mut text = std::fs::File::create(&rc)?;
    writeln!(
        text,
        "romimage: file={}\nvgaromimage: file={VGA}\nmegs: 64\ncpu: model=corei7_skylake_x, ips=100000000",
        bios().unwrap_or("")
    )?;
    writeln!(text, "ata0-master: type=disk, path={}, mode=flat\nboot: disk", disk.display())?;
    writeln!(text, "com1: enabled=1, mode=file, dev={}", folder.join("serial").display())?;
    writeln!(text, "display_library: nogui\nlog: {}", folder.join("log").display())?;
    quiet(Command::new(Peer::Bochs.program()).arg("-q").arg("-f").arg(rc))
}
