//! What one machine is made of, as `egret run` takes it and `egret up` files say it.

use crate::units;
use egret_machine::model::CpuModel;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A word that is none of the words an option takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not one of {choices}")]
pub struct ChoiceError {
    text: String,
    choices: String,
}

/// Declares an option with a fixed set of words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// The words, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of this choice.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl FromStr for $name {
            type Err = ChoiceError;
            fn from_str(text: &str) -> Result<Self, ChoiceError> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => Err(ChoiceError { text: text.to_owned(), choices: Self::WORDS.join(", ") }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

choice! {
    /// What executes the guest's instructions.
    EngineKind {
        /// The interpreter alone.
        Interp = "interp",
        /// The interpreter for cold code, translated code for hot code.
        Jit = "jit",
        /// Both side by side, stopping at the first difference.
        Lockstep = "lockstep",
    }
}

choice! {
    /// Who decompresses the payload of a bzImage.
    Unpack {
        /// Egret does, before the guest starts.
        Host = "host",
        /// The guest's own stub does.
        Guest = "guest",
    }
}

choice! {
    /// What guest time follows.
    ClockKind {
        /// The host's clock.
        Host = "host",
        /// The number of instructions executed: the same inputs give the same run.
        Instructions = "instructions",
    }
}

choice! {
    /// The form of the statistics printed at the end.
    Stats {
        /// For people.
        Text = "text",
        /// One JSON object on one line.
        Json = "json",
    }
}

/// Where the first serial port or the debug console leads.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Serial {
    /// Standard input and output.
    #[default]
    Stdio,
    /// Output into a file, no input.
    File(PathBuf),
    /// Nowhere.
    None,
}

/// A serial port description that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no place for output: use stdio, none or file:PATH")]
pub struct SerialError(String);

impl FromStr for Serial {
    type Err = SerialError;
    fn from_str(text: &str) -> Result<Self, SerialError> {
        match text.split_once(':') {
            None if text == "stdio" => Ok(Serial::Stdio),
            None if text == "none" => Ok(Serial::None),
            Some(("file", path)) if !path.is_empty() => Ok(Serial::File(path.into())),
            _ => Err(SerialError(text.to_owned())),
        }
    }
}

/// Where compiled code is kept for later runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeCache {
    /// Nowhere.
    Off,
    /// In a directory.
    Dir(PathBuf),
}

impl FromStr for CodeCache {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "off" { CodeCache::Off } else { CodeCache::Dir(text.into()) })
    }
}

/// The options of one machine; `None` leaves the default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MachineOptions {
    /// A guest of the catalogue, or `os` for the embedded one.
    pub guest: Option<String>,
    /// A bzImage, or an ELF with a PVH note or a multiboot header.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line; added after the guest's own when there is one.
    pub append: Option<String>,
    /// RAM in bytes.
    pub memory: Option<u64>,
    /// CPUs, from 1 to [`MachineOptions::MOST_CPUS`].
    pub cpus: Option<u8>,
    /// What executes the guest.
    pub engine: Option<EngineKind>,
    /// The CPU model.
    pub cpu: Option<CpuModel>,
    /// Who unpacks a bzImage.
    pub unpack: Option<Unpack>,
    /// Where the first serial port leads.
    pub serial: Option<Serial>,
    /// Where the debug console leads; nowhere by default.
    pub debugcon: Option<Serial>,
    /// Stops the machine after this much host time.
    pub timeout: Option<Duration>,
    /// Statistics at the end.
    pub stats: Option<Stats>,
    /// What guest time follows.
    pub clock: Option<ClockKind>,
    /// Where compiled code is kept for later runs.
    pub code_cache: Option<CodeCache>,
    /// How often a block runs before it is compiled.
    pub jit_threshold: Option<u32>,
    /// A file for Egret's own messages about the machine.
    pub log: Option<PathBuf>,
    /// Ends the machine where it would reset.
    pub no_reboot: bool,
}

impl MachineOptions {
    /// RAM of a machine that does not say how much it wants.
    pub const DEFAULT_MEMORY: u64 = 512 << 20;
    /// Most CPUs of a machine.
    pub const MOST_CPUS: u8 = 254;

    /// These options as arguments of `egret run`.
    #[must_use]
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![OsString::from("run")];
        let mut put = |key: &str, value: Option<OsString>| {
            if let Some(value) = value {
                // One argument, so that a value with a leading dash stays a value.
                let mut arg = OsString::from(format!("--{key}="));
                arg.push(value);
                args.push(arg);
            }
        };
        let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.as_os_str().to_owned());
        put("kernel", path(&self.kernel));
        put("initrd", path(&self.initrd));
        put("append", self.append.as_ref().map(OsString::from));
        put("memory", self.memory.map(|m| units::format_size(m).into()));
        put("cpus", self.cpus.map(|n| n.to_string().into()));
        put("engine", self.engine.map(|e| e.word().into()));
        put("cpu", self.cpu.map(|c| c.to_string().into()));
        put("unpack", self.unpack.map(|u| u.word().into()));
        put("serial", self.serial.as_ref().map(serial_text));
        put("debugcon", self.debugcon.as_ref().map(serial_text));
        put("timeout", self.timeout.map(|t| t.as_secs_f64().to_string().into()));
        put("stats", self.stats.map(|s| s.word().into()));
        put("clock", self.clock.map(|c| c.word().into()));
        put("jit-threshold", self.jit_threshold.map(|n| n.to_string().into()));
        put("code-cache", self.code_cache.as_ref().map(|c| if let CodeCache::Dir(dir) = c { dir.into() } else { "off".into() }));
        put("log", path(&self.log));
        if self.no_reboot {
            args.push("--no-reboot".into());
        }
        if let Some(guest) = &self.guest {
            args.push("--".into());
            args.push(guest.into());
        }
        args
    }

    /// Makes relative paths relative to `folder`.
    pub fn resolve_paths(&mut self, folder: &Path) {
        let [serial, debugcon] = [&mut self.serial, &mut self.debugcon].map(|place| match place {
            Some(Serial::File(path)) => Some(path),
            _ => None,
        });
        let cache = match &mut self.code_cache {
            Some(CodeCache::Dir(path)) => Some(path),
            _ => None,
        };
        for path in [self.kernel.as_mut(), self.initrd.as_mut(), self.log.as_mut(), serial, debugcon, cache].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

fn serial_text(serial: &Serial) -> OsString {
    match serial {
        Serial::Stdio => "stdio".into(),
        Serial::None => "none".into(),
        Serial::File(path) => {
            let mut text = OsString::from("file:");
            text.push(path);
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_ports() {
        assert_eq!("stdio".parse(), Ok(Serial::Stdio));
        assert_eq!("none".parse(), Ok(Serial::None));
        assert_eq!("file:C:\\x.log".parse(), Ok(Serial::File("C:\\x.log".into())));
        for bad in ["", "file", "file:", "tcp:1", "stdio:"] {
            assert!(bad.parse::<Serial>().unwrap_err().to_string().contains("file:PATH"), "{bad}");
        }
    }

    #[test]
    fn choices_name_the_words() {
        assert_eq!("jit".parse(), Ok(EngineKind::Jit));
        assert_eq!("JIT".parse::<EngineKind>().unwrap_err().to_string(), "'JIT' is not one of interp, jit, lockstep");
    }

    #[test]
    fn relative_paths_resolve_against_the_folder() {
        let mut o = MachineOptions {
            kernel: Some("k".into()),
            serial: Some(Serial::File("out/log".into())),
            debugcon: Some(Serial::File("e9".into())),
            initrd: Some(std::path::absolute("abs").unwrap()),
            ..Default::default()
        };
        o.resolve_paths(Path::new("dir"));
        assert_eq!(o.kernel.unwrap(), Path::new("dir").join("k"));
        assert_eq!(o.serial, Some(Serial::File(Path::new("dir").join("out/log"))));
        assert_eq!(o.debugcon, Some(Serial::File(Path::new("dir").join("e9"))));
        assert_eq!(o.initrd.unwrap(), std::path::absolute("abs").unwrap());
    }
}
