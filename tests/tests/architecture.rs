//! The folders are the architecture: who depends on whom, and what `emulator/ARCHITECTURE.md` says is there.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What each crate may depend on (DESIGN, "Layout"). Tests and benches may use anything.
const MAY: &[(&str, &[&str])] = &[
    ("egret-isa", &[]),
    ("egret-bus", &[]),
    ("egret-cpu", &["egret-isa", "egret-bus"]),
    ("egret-jit", &["egret-cpu", "egret-isa"]),
    ("egret-devices", &["egret-bus"]),
    ("egret-machine", &["egret-cpu", "egret-isa", "egret-bus", "egret-devices"]),
    ("egret-hypervisor", &["egret-machine"]),
    ("egret-guests", &[]),
];
/// These may use every crate.
const ANYTHING: [&str; 3] = ["egret", "egret-benches", "egret-tests"];
/// What must not come into the crates below the front end: runtimes, windows, web.
const FRONT_END_ONLY: [&str; 6] = ["tokio", "winit", "axum", "clap", "ratatui", "crossterm"];

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().other_options(["--offline".to_owned()]).exec().expect("cargo metadata")
}

/// Crates of the workspace with the dependencies that they are built with.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let normal = |p: &cargo_metadata::Package| {
        p.dependencies.iter().filter(|d| d.kind != DependencyKind::Development).map(|d| d.name.clone()).collect()
    };
    metadata().packages.iter().map(|p| (p.name.to_string(), normal(p))).collect()
}

#[test]
fn dependency_arrows_point_down() {
    let crates = dependencies();
    let mut wrong = Vec::new();
    for (name, uses) in &crates {
        if ANYTHING.contains(&name.as_str()) {
            continue;
        }
        let Some((_, may)) = MAY.iter().find(|(n, _)| n == name) else {
            wrong.push(format!("{name} has no row in this test"));
            continue;
        };
        for other in uses {
            if crates.contains_key(other) && !may.contains(&other.as_str()) {
                wrong.push(format!("{name} must not depend on {other}"));
            }
            if FRONT_END_ONLY.contains(&other.as_str()) {
                wrong.push(format!("{name} must not depend on {other}: only the front end may"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(crates.len(), MAY.len() + ANYTHING.len(), "{:?}", crates.keys());
}

#[test]
fn only_the_jit_names_cranelift() {
    for (name, uses) in dependencies() {
        let names = uses.iter().any(|d| d.starts_with("cranelift"));
        assert!(!names || name == "egret-jit", "{name} depends on Cranelift");
    }
}

/// Words in backquotes that look like a path of the repository.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    const ROOTS: [&str; 11] =
        ["emulator", "jit", "devices", "frontend", "guests", "benches", "tests", ".ci", ".cargo", ".github", "README.md"];
    text.split('`').skip(1).step_by(2).filter(|word| {
        let root = word.split('/').next().unwrap_or_default();
        ROOTS.contains(&root)
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-{},".contains(c))
            && (word.contains('/') || word.contains('.'))
    })
}

/// `a/{b,c}.rs` names two files.
fn expanded(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (names, tail))) => names.split(',').map(|n| format!("{head}{}{tail}", n.trim())).collect(),
        None => vec![path.to_owned()],
    }
}

#[test]
fn every_path_that_the_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("emulator/ARCHITECTURE.md")).expect("emulator/ARCHITECTURE.md");
    let named: BTreeSet<String> = paths(&text).flat_map(expanded).collect();
    let missing: Vec<&String> = named.iter().filter(|p| !root.join(p.as_str()).exists()).collect();
    assert!(missing.is_empty(), "emulator/ARCHITECTURE.md names what is not there: {missing:#?}");
    assert!(named.len() >= 10, "only {} paths were found in it: {named:?}", named.len());
}

#[test]
fn path_words_are_found() {
    let text = "see `emulator/isa/src/{ops,emit}.rs`, `cargo test`, `README.md`, `emit.rs` and `tests`; `jit/src x`";
    let found: Vec<String> = paths(text).flat_map(expanded).collect();
    assert_eq!(found, ["emulator/isa/src/ops.rs", "emulator/isa/src/emit.rs", "README.md"]);
}
