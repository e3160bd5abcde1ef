use super::*;
use crate::compile::{Compiler, Tuning};
use crate::region::tests::request;

/// A directory of its own that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("egret-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Dir(path)
    }

    fn settings(&self, limit: u64) -> Option<Settings> {
        Some(Settings { dir: self.0.clone(), limit })
    }

    fn packs(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const CTX: Ctx = Ctx(2 | Ctx::FLAT | Ctx::SSE | Ctx::FP_MASKED | Ctx::PE);
const AT: usize = 0x120;

/// A page with `add rax, n; cpuid; mov [rdi], rax; ret` and something else behind it.
fn page(n: u8, behind: u8) -> Box<[u8; PAGE]> {
    let mut page = Box::new([behind; PAGE]);
    page[AT..AT + 10].copy_from_slice(&[0x48, 0x83, 0xc0, n, 0x0f, 0xa2, 0x48, 0x89, 0x07, 0xc3]);
    page
}

fn compiled(n: u8) -> Compiled {
    let mut compiler = Compiler::new(Tuning { optimize: false, verify: true, ..Tuning::default() }).unwrap();
    compiler.compile(request(CTX, page(n, 0x90), vec![AT as u16])).unwrap()
}

fn find(store: &mut Store, at: u64, bytes: &[u8; PAGE], ctx: Ctx) -> Option<Compiled> {
    store.find(at + AT as u64, ctx, Features::ALL, |from, out| {
        let Some(offset) = from.checked_sub(at).map(|o| o as usize) else { return false };
        bytes.get(offset..offset + out.len()).map(|b| out.copy_from_slice(b)).is_some()
    })
}

fn same(a: &Compiled, b: &Compiled) -> bool {
    let calls = a.calls.iter().zip(&*b.calls).all(|(x, y)| x.insn.code == y.insn.code && x.run as usize == y.run as usize);
    calls
        && a.calls.len() == b.calls.len()
        && a.code == b.code
        && a.starts == b.starts
        && a.entries == b.entries
        && a.bytes == b.bytes
        && a.insns == b.insns
}

#[test]
fn code_is_found_wherever_its_bytes_turn_up() {
    let original = compiled(7);
    assert_eq!(original.calls.len(), 1, "CPUID is left to the CPU");
    let mut store = Store::new(None, 1);
    assert!(find(&mut store, 0x5000, &page(7, 0x90), CTX).is_none());
    store.add(&original);
    for (at, behind) in [(0x5000, 0x90), (0x7_7000, 0x90), (0x5000, 0xcc)] {
        let found = find(&mut store, at, &page(7, behind), CTX).unwrap();
        assert_eq!(found.page, at);
        assert!(same(&found, &original));
    }
    assert!(find(&mut store, 0x5000, &page(8, 0x90), CTX).is_none(), "other code");
    assert!(find(&mut store, 0x5000, &page(7, 0x90), Ctx(CTX.0 | Ctx::USER)).is_none(), "another context");
    let fewer = store.find(0x5000 + AT as u64, CTX, Features::NONE, |_, out| {
        let from = if out.len() == PAGE { 0 } else { AT };
        out.copy_from_slice(&page(7, 0x90)[from..from + out.len()]);
        true
    });
    assert!(fewer.is_none(), "a CPU that has less");
    assert_eq!(store.counters.revived, 3);
}

#[test]
fn a_later_run_finds_it_in_a_file() {
    let dir = Dir::new("later");
    let original = compiled(9);
    let mut first = Store::new(dir.settings(1 << 20), 42);
    first.add(&original);
    drop(first);
    let mut second = Store::new(dir.settings(1 << 20), 42);
    assert_eq!(second.counters.stored, 1);
    assert!(same(&find(&mut second, 0x9000, &page(9, 0), CTX).unwrap(), &original));
    let mut other = Store::new(dir.settings(1 << 20), 43);
    assert!(find(&mut other, 0x9000, &page(9, 0), CTX).is_none(), "another code generator's");
    // What is known is not written again.
    second.add(&original);
    drop(second);
    assert_eq!(dir.packs().len(), 1);
}

#[test]
fn a_damaged_file_is_as_good_as_none() {
    let dir = Dir::new("damaged");
    let mut first = Store::new(dir.settings(1 << 20), 42);
    first.add(&compiled(9));
    drop(first);
    let path = dir.packs().remove(0);
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        let mut store = Store::new(dir.settings(1 << 20), 42);
        assert!(find(&mut store, 0x9000, &page(9, 0), CTX).is_none(), "byte {at}");
        assert!(store.counters.refused > 0, "byte {at}");
    }
    for len in (0..good.len()).step_by(13) {
        std::fs::write(&path, &good[..len]).unwrap();
        let mut store = Store::new(dir.settings(1 << 20), 42);
        assert!(find(&mut store, 0x9000, &page(9, 0), CTX).is_none(), "{len} bytes");
    }
}

#[test]
fn random_bytes_are_no_record() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(5);
    let good = record::encode(&compiled(1));
    for _ in 0..20_000 {
        let mut blob = good[..rng.random_range(0..=good.len())].to_vec();
        for _ in 0..rng.random_range(1..8) {
            if let Some(n) = blob.len().checked_sub(1) {
                blob[rng.random_range(0..=n.min(40))] = rng.random();
            }
        }
        let _ = record::decode(&blob, 0x1000, (CTX, Features::ALL), &page(1, 0x90));
    }
}

#[test]
fn files_stay_within_the_limit_and_become_one_when_they_are_many() {
    let dir = Dir::new("limit");
    let one = record::encode(&compiled(0)).len() as u64;
    for n in 0..30 {
        let mut store = Store::new(dir.settings(16 * one), 42);
        store.add(&compiled(n));
    }
    let total: u64 = dir.packs().iter().map(|p| p.metadata().unwrap().len()).sum();
    assert!(total <= 16 * one, "{total} bytes");
    assert!(dir.packs().len() <= 9, "{:?}", dir.packs());
    let mut store = Store::new(dir.settings(16 * one), 42);
    for n in 27..30 {
        assert!(find(&mut store, 0x9000, &page(n, 0), CTX).is_some(), "{n}: the newest are kept");
    }
}

#[test]
fn runs_at_the_same_time_do_not_disturb_each_other() {
    let dir = Dir::new("same-time");
    std::thread::scope(|s| {
        for t in 0..4u8 {
            let settings = dir.settings(8 << 20);
            s.spawn(move || {
                for n in 0..6 {
                    let mut store = Store::new(settings.clone(), 42);
                    store.add(&compiled(t * 6 + n));
                }
            });
        }
    });
    let store = Store::new(dir.settings(8 << 20), 42);
    assert_eq!(store.counters.refused, 0);
    assert!(store.counters.stored > 0);
}

#[cfg(unix)]
#[test]
fn only_the_users_own_files_are_used() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new("own");
    let mut store = Store::new(dir.settings(1 << 20), 42);
    store.add(&compiled(3));
    drop(store);
    let path = dir.packs().remove(0);
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir.0), mode(&path)), (0o700, 0o600));
    let set = |p: &std::path::Path, mode| std::fs::set_permissions(p, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&path, 0o666);
    let mut store = Store::new(dir.settings(1 << 20), 42);
    assert!(find(&mut store, 0x9000, &page(3, 0), CTX).is_none());
    assert_eq!(store.counters.refused, 1);
    set(&path, 0o600);
    set(&dir.0, 0o777);
    let mut store = Store::new(dir.settings(1 << 20), 42);
    assert!(find(&mut store, 0x9000, &page(3, 0), CTX).is_none());
}
