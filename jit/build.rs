//! Gives the code generator a name of its own: stored code is good only for the sources it was made by.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

/// What decides which code is made and what it expects of its surroundings.
const SOURCES: [&str; 4] = ["src", "../emulator/cpu/src", "../emulator/isa/src", "../Cargo.lock"];

fn collect(path: &Path, into: &mut Vec<PathBuf>) {
    println!("cargo::rerun-if-changed={}", path.display());
    let Ok(entries) = std::fs::read_dir(path) else {
        into.push(path.to_owned());
        return;
    };
    for entry in entries.flatten() {
        collect(&entry.path(), into);
    }
}

fn main() {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(Path::new(source), &mut files);
    }
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        hash.write(file.to_string_lossy().as_bytes());
        // What cannot be read is no source; that its name is in suffices.
        hash.write(&std::fs::read(&file).unwrap_or_default());
    }
    for name in ["TARGET", "PROFILE", "OPT_LEVEL", "RUSTC"] {
        hash.write(std::env::var(name).unwrap_or_default().as_bytes());
    }
    println!("cargo::rustc-env=EGRET_CODE_ID={:016x}", hash.finish());
}
