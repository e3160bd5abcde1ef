//! The file of `egret up`: `[[machine]]` tables, each with a `name` and the options of `egret run` as keys.

use crate::options::MachineOptions;
use crate::units;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One `[[machine]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Its name: the prefix of its output.
    pub name: String,
    /// Its options, paths resolved against the file's folder.
    pub options: MachineOptions,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's reason.
        source: std::io::Error,
    },
    /// It is wrong at a line.
    #[error("{}:{line}: {message}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// Longest machine name in bytes.
const NAME_LIMIT: usize = 32;
/// Most machines of one file.
const MACHINE_LIMIT: usize = 256;
/// Longest file in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// Reads the file at `path`.
pub fn load(path: &Path) -> Result<Vec<MachineConfig>, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > FILE_LIMIT {
        return Err(read(std::io::Error::other(format!("{size} bytes are too long for a machine file"))));
    }
    parse(&std::fs::read_to_string(path).map_err(read)?, path)
}

/// Parses `text`, which came from the file at `path`.
pub fn parse(text: &str, path: &Path) -> Result<Vec<MachineConfig>, ConfigError> {
    let at = |offset: usize, message: String| {
        let before = text.as_bytes().get(..offset.min(text.len())).unwrap_or_default();
        ConfigError::At { path: path.to_owned(), line: 1 + before.iter().filter(|b| **b == b'\n').count(), message }
    };
    let table = DeTable::parse(text).map_err(|e| at(e.span().map_or(0, |s| s.start), e.message().trim().replace('\n', "; ")))?;
    let mut machines: Vec<MachineConfig> = Vec::new();
    for (key, value) in table.get_ref() {
        if key.get_ref() != "machine" {
            let message = format!("unknown key '{}': a machine file holds [[machine]] tables", key.get_ref());
            return Err(at(key.span().start, message));
        }
        let DeValue::Array(list) = value.get_ref() else {
            return Err(at(key.span().start, "'machine' must be written as [[machine]] tables".into()));
        };
        for entry in list.iter() {
            let (config, name_at) = machine(entry, path).map_err(|(offset, message)| at(offset, message))?;
            if machines.iter().any(|m| m.name == config.name) {
                return Err(at(name_at, format!("the name '{}' is taken by a machine above", config.name)));
            }
            if machines.len() == MACHINE_LIMIT {
                return Err(at(name_at, format!("more than {MACHINE_LIMIT} machines")));
            }
            machines.push(config);
        }
    }
    if machines.is_empty() {
        return Err(at(0, "no machine: write a [[machine]] table with a name".into()));
    }
    Ok(machines)
}

/// A message and the byte offset it belongs to.
type Located = (usize, String);
/// What takes the value of a key.
type Set = fn(&mut MachineOptions, Value<'_>) -> Result<(), String>;

/// The keys of a machine besides `name`.
const KEYS: &[(&str, Set)] = &[
    ("guest", |o, v| v.text().map(|t| o.guest = Some(t))),
    ("kernel", |o, v| v.text().map(|t| o.kernel = Some(t.into()))),
    ("initrd", |o, v| v.text().map(|t| o.initrd = Some(t.into()))),
    ("append", |o, v| v.text().map(|t| o.append = Some(t))),
    ("memory", |o, v| v.parsed(units::parse_size).map(|m| o.memory = Some(m))),
    ("cpus", |o, v| v.number().and_then(|n| units::parse_cpus(&n)).map(|n| o.cpus = Some(n))),
    ("engine", |o, v| v.parsed(str::parse).map(|e| o.engine = Some(e))),
    ("cpu", |o, v| v.parsed(str::parse).map(|c| o.cpu = Some(c))),
    ("unpack", |o, v| v.parsed(str::parse).map(|u| o.unpack = Some(u))),
    ("serial", |o, v| v.parsed(str::parse).map(|s| o.serial = Some(s))),
    ("debugcon", |o, v| v.parsed(str::parse).map(|s| o.debugcon = Some(s))),
    ("timeout", |o, v| v.number().and_then(|n| units::parse_seconds(&n).map_err(|e| e.to_string())).map(|t| o.timeout = Some(t))),
    ("stats", |o, v| v.parsed(str::parse).map(|s| o.stats = Some(s))),
    ("clock", |o, v| v.parsed(str::parse).map(|c| o.clock = Some(c))),
    ("jit-threshold", |o, v| v.number().and_then(|n| units::parse_threshold(&n)).map(|n| o.jit_threshold = Some(n))),
    ("code-cache", |o, v| v.parsed(str::parse).map(|c| o.code_cache = Some(c))),
    ("log", |o, v| v.text().map(|t| o.log = Some(t.into()))),
    ("no-reboot", |o, v| v.flag().map(|b| o.no_reboot = b)),
];

struct Value<'a>(&'a DeValue<'a>);

impl Value<'_> {
    fn text(&self) -> Result<String, String> {
        match self.0 {
            DeValue::String(s) if s.contains('\0') => Err("a text with a NUL in it".into()),
            DeValue::String(s) if s.is_empty() => Err("an empty text".into()),
            DeValue::String(s) => Ok(s.to_string()),
            other => Err(format!("expected a text in quotes, found {}", kind(other))),
        }
    }

    fn parsed<T, E: std::fmt::Display>(&self, parse: fn(&str) -> Result<T, E>) -> Result<T, String> {
        self.text().and_then(|t| parse(&t).map_err(|e| e.to_string()))
    }

    fn number(&self) -> Result<String, String> {
        match self.0 {
            DeValue::Integer(n) if n.radix() == 10 => Ok(n.as_str().to_owned()),
            DeValue::Float(n) => Ok(n.as_str().to_owned()),
            other => Err(format!("expected a number, found {}", kind(other))),
        }
    }

    fn flag(&self) -> Result<bool, String> {
        match self.0 {
            DeValue::Boolean(b) => Ok(*b),
            other => Err(format!("expected true or false, found {}", kind(other))),
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number without a unit",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// One machine, and where its name stands.
fn machine(entry: &Spanned<DeValue<'_>>, path: &Path) -> Result<(MachineConfig, usize), Located> {
    let DeValue::Table(table) = entry.get_ref() else {
        return Err((entry.span().start, "'machine' must be written as [[machine]] tables".into()));
    };
    let mut options = MachineOptions::default();
    let mut name = None;
    for (key, value) in table {
        let here = value.span().start;
        let key_name: &str = key.get_ref();
        let value = Value(value.get_ref());
        let done = if key_name == "name" {
            value.text().and_then(check_name).map(|n| name = Some((n, here)))
        } else if let Some((_, set)) = KEYS.iter().find(|(k, _)| *k == key_name) {
            set(&mut options, value)
        } else {
            let known: Vec<&str> = KEYS.iter().map(|(k, _)| *k).collect();
            return Err((key.span().start, format!("unknown key '{key_name}': a machine has name, {}", known.join(", "))));
        };
        done.map_err(|message| (here, format!("{key_name}: {message}")))?;
    }
    let (name, name_at) = name.ok_or_else(|| (entry.span().start, "this machine has no name".to_owned()))?;
    if options.guest.is_some() && options.kernel.is_some() {
        return Err((name_at, format!("machine '{name}' has both guest and kernel: give one")));
    }
    if options.initrd.is_some() && options.kernel.is_none() {
        return Err((name_at, format!("machine '{name}' has an initrd but no kernel")));
    }
    options.resolve_paths(path.parent().unwrap_or(Path::new("")));
    Ok((MachineConfig { name, options }, name_at))
}

fn check_name(name: String) -> Result<String, String> {
    let good = name.len() <= NAME_LIMIT && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    if good { Ok(name) } else { Err(format!("'{name}' must be letters, digits, '-', '_', '.' and at most {NAME_LIMIT} bytes")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ClockKind, CodeCache, EngineKind, Serial, Stats, Unpack};
    use std::time::Duration;

    fn read(text: &str) -> Result<Vec<MachineConfig>, String> {
        parse(text, Path::new("dir/fleet.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn every_key() {
        let text = r#"
            # two machines
            [[machine]]
            name = "a"
            kernel = "vmlinuz"
            initrd = "sub/initrd"
            append = "console=ttyS0 quiet"
            memory = "256M"
            engine = "interp"
            cpu = "x86-64-v1"
            unpack = "guest"
            serial = "file:a.log"
            debugcon = "stdio"
            timeout = 2.5
            stats = "json"
            clock = "instructions"
            cpus = 4
            code-cache = "code"
            jit-threshold = 50
            log = "egret.log"
            no-reboot = true
            [[machine]]
            name = "b"
            guest = "debian"
            timeout = 30
        "#;
        let machines = read(text).unwrap();
        let dir = Path::new("dir");
        let a = MachineOptions {
            guest: None,
            kernel: Some(dir.join("vmlinuz")),
            initrd: Some(dir.join("sub/initrd")),
            append: Some("console=ttyS0 quiet".into()),
            memory: Some(256 << 20),
            engine: Some(EngineKind::Interp),
            cpu: Some("x86-64-v1".parse().unwrap()),
            unpack: Some(Unpack::Guest),
            serial: Some(Serial::File(dir.join("a.log"))),
            debugcon: Some(Serial::Stdio),
            timeout: Some(Duration::from_millis(2500)),
            stats: Some(Stats::Json),
            clock: Some(ClockKind::Instructions),
            cpus: Some(4),
            code_cache: Some(CodeCache::Dir(dir.join("code"))),
            jit_threshold: Some(50),
            log: Some(dir.join("egret.log")),
            no_reboot: true,
        };
        let b = MachineOptions { guest: Some("debian".into()), timeout: Some(Duration::from_secs(30)), ..Default::default() };
        assert_eq!(machines.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(machines[0].options, a);
        assert_eq!(machines[1].options, b);
    }

    #[test]
    fn errors_name_file_and_line() {
        let m = "[[machine]]\nname = \"a\"\n";
        for (text, want) in [
            ("", "fleet.toml:1: no machine"),
            ("\n[[machine]]\nmemory = \"1G\"\n", "fleet.toml:2: this machine has no name"),
            ("[[machine]]\nname = \"a\"\n\nmemroy = \"1G\"\n", "fleet.toml:4: unknown key 'memroy': a machine has name, guest, kernel"),
            ("[[machines]]\nname = \"a\"\n", "fleet.toml:1: unknown key 'machines'"),
            ("machine = 3", "fleet.toml:1: 'machine' must be written as [[machine]] tables"),
            ("machine = [3]", "fleet.toml:1: 'machine' must be written as [[machine]] tables"),
            ("[[machine]]\nname = \"a\"\n[[machine]]\nname = \"a\"\n", "fleet.toml:4: the name 'a' is taken"),
            ("[[machine]]\nname = \"a b\"\n", "fleet.toml:2: name: 'a b' must be letters"),
            ("[[machine]]\nname = \"a\"\nmemory = 512\n", "fleet.toml:3: memory: expected a text in quotes, found a number without a unit"),
            ("[[machine]]\nname = \"a\"\nmemory = \"512\"\n", "fleet.toml:3: memory: '512' has no unit"),
            ("[[machine]]\nname = \"a\"\nengine = \"fast\"\n", "fleet.toml:3: engine: 'fast' is not one of interp, jit, lockstep"),
            ("[[machine]]\nname = \"a\"\ncpus = 0\n", "fleet.toml:3: cpus: '0' is not a number of CPUs from 1 to 254"),
            ("[[machine]]\nname = \"a\"\ntimeout = -1\n", "fleet.toml:3: timeout: '-1' is not a time"),
            ("[[machine]]\nname = \"a\"\nno-reboot = 1\n", "fleet.toml:3: no-reboot: expected true or false"),
            ("[[machine]]\nname = \"a\"\nserial = \"tcp\"\n", "fleet.toml:3: serial: 'tcp' is no place for output"),
            ("[[machine]]\nname = \"a\"\nkernel = \"\"\n", "fleet.toml:3: kernel: an empty text"),
            ("[[machine]]\nname = \"a\"\nkernel = \"k\"\nguest = \"os\"\n", "fleet.toml:2: machine 'a' has both guest and kernel"),
            ("[[machine]]\nname = \"a\"\ninitrd = \"k\"\n", "fleet.toml:2: machine 'a' has an initrd but no kernel"),
            ("[[machine]]\nname = \"a\"\nname = \"b\"\n", "fleet.toml:3: duplicate key"),
            ("[[machine]]\nname = \n", "fleet.toml:2: "),
            ("[[machine\n", "fleet.toml:1: "),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(want), "{text:?}\n got {error}\nwant {want}");
            assert!(!error.contains('\n'), "{error:?} is one line");
        }
        assert!(read(m).is_ok());
    }

    #[test]
    fn damaged_files_are_errors_not_panics() {
        let good = "[[machine]]\nname = \"a\"\nkernel = \"k\"\nmemory = \"1G\"\ntimeout = 3\n[[machine]]\nname = \"b\"\nno-reboot = true\n"
            .as_bytes();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut text = good.to_vec();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state >> 8) as usize % text.len();
                text[at] = state as u8 & 0x7f;
            }
            refused += usize::from(read(&String::from_utf8_lossy(&text)).is_err());
        }
        assert!(refused > 5_000, "{refused} refused");
    }
}
