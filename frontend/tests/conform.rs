//! The readers and the runner on files of both formats, whole and damaged.

use egret::conform::engine::{End, Final, Outcome, VectorEngine};
use egret::conform::known::Known;
use egret::conform::moo;
use egret::conform::regs::{Reg, value};
use egret::conform::runner::{EngineChoice, Filter, Settings, run};
use egret::conform::vector::{Mode, Model, Stop, Vector};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A chunk of a MOO file.
fn chunk(id: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&id[..], &(body.len() as u32).to_le_bytes(), body].concat()
}

fn counted(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

fn ram(bytes: &[(u32, u8)]) -> Vec<u8> {
    let mut body = (bytes.len() as u32).to_le_bytes().to_vec();
    for (at, byte) in bytes {
        body.extend(at.to_le_bytes());
        body.push(*byte);
    }
    chunk(b"RAM ", &body)
}

fn regs16(bitmap: u16, values: &[u16]) -> Vec<u8> {
    let body: Vec<u8> = [bitmap].iter().chain(values).flat_map(|v| v.to_le_bytes()).collect();
    chunk(b"REGS", &body)
}

/// A 286 file of `n` tests of ADD AL,BL, ax bx cx dx cs ss ds es sp bp si di ip flags.
fn add_file(n: u32) -> Vec<u8> {
    let header = [&[1, 0, 0, 0][..], &n.to_le_bytes(), b"C286"].concat();
    let init =
        [regs16(0x3fff, &[1, 2, 0, 0, 0x100, 0x200, 0, 0, 0x80, 0, 0, 0, 4, 0xf002]), ram(&[(0x1004, 0), (0x1005, 0xd8), (0x1006, 0xf4)])];
    let fina = [regs16(1 << 12 | 1, &[3, 7]), ram(&[(0x2000, 9)])];
    let test = [
        0u32.to_le_bytes().to_vec(),
        chunk(b"NAME", &counted(b"lock add al,bl")),
        chunk(b"BYTS", &counted(&[0, 0xd8, 0xf4])),
        chunk(b"INIT", &init.concat()),
        chunk(b"FINA", &fina.concat()),
        chunk(b"EXCP", &[13, 0, 0x20, 0, 0]),
        chunk(b"HASH", &[0; 20]),
    ];
    let mask = regs16(1 << 13, &[0xffef])[8..].to_vec();
    [chunk(b"MOO ", &header), chunk(b"RMSK", &mask), chunk(b"TEST", &test.concat()).repeat(n as usize)].concat()
}

fn parse(data: &[u8]) -> Result<Vec<Vector>, String> {
    moo::Reader::new(data, &Arc::from("f.MOO"), None).and_then(Iterator::collect).map_err(|e| e.to_string())
}

#[test]
fn a_moo_test_becomes_a_vector() {
    let vectors = parse(&add_file(2)).unwrap();
    let v = &vectors[1];
    assert_eq!(
        (v.name.as_str(), v.mnemonic.as_str(), &v.model, v.mode, v.stop),
        ("lock add al,bl", "add", &Model::I80286, Mode::Real, Stop::Hlt)
    );
    let start = v.initial();
    assert_eq!((start.gpr[0], start.gpr[3], start.gpr[4], start.rip, start.sel[1], start.sel[2]), (1, 2, 0x80, 4, 0x100, 0x200));
    assert_eq!(start.rflags, 2, "the top four bits are masked on load");
    assert_eq!((v.at, v.bytes.len()), (0x1004, 3));
    let want = |reg| v.want.regs.iter().find(|r| r.reg == reg).unwrap();
    assert_eq!((want(Reg::Gpr(0)).value, want(Reg::Gpr(0)).mask), (value(3), value(0xffff)));
    assert_eq!(want(Reg::Gpr(3)).value, value(2), "a register that the final state does not name is unchanged");
    assert_eq!((want(Reg::Rflags).value, want(Reg::Rflags).mask), (value(2), value(0xffef)));
    let mem: Vec<_> = v.want.mem.iter().map(|m| (m.at, m.value, m.mask)).collect();
    assert_eq!(mem, [(0x1004, 0, 0xff), (0x1005, 0xd8, 0xff), (0x1006, 0xf4, 0xff), (0x2000, 9, 0xef)]);
}

#[test]
fn broken_moo_files_are_refused_with_their_place() {
    let good = add_file(1);
    let header = 20;
    for (data, want) in [
        (vec![], "f.MOO at byte 0: an empty file"),
        (b"JUNKJUNK".to_vec(), "at byte 8: chunk JUNK needs"),
        (chunk(b"TEST", &[]), "not a MOO file"),
        (good[..header].to_vec(), "at byte 12: the header says 1 tests, the file holds 0"),
        (good[..good.len() - 1].to_vec(), "chunk TEST needs"),
        ([&good[..8], &[2], &good[9..]].concat(), "MOO version 2.0 is unknown"),
        ([&good[..header], &[0, 1, 2, 3], &good[header..]].concat(), "at byte 20: [00, 01, 02, 03] is no chunk id"),
        ([&good[..header], b"TEST\x04\0\0\0\0\0\0\0"].concat(), "a test without an initial state"),
        ([&good[..header], &chunk(b"RMSK", &[0xff, 0xff])].concat(), "has bits beyond the 14 registers"),
    ] {
        let error = parse(&data).expect_err(want);
        assert!(error.starts_with("f.MOO at byte ") && error.contains(want), "got {error}\nwant {want}");
    }
}

#[test]
fn damaged_moo_files_are_errors_not_panics() {
    let good = add_file(3);
    let mut state = 0x0123_4567_89ab_cdef_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    for round in 0..30_000 {
        let mut data = good.clone();
        if round % 5 == 0 {
            data.truncate(random() as usize % data.len());
        }
        for _ in 0..1 + round % 3 {
            if !data.is_empty() {
                let at = random() as usize % data.len();
                data[at] = random() as u8;
            }
        }
        refused += usize::from(parse(&data).is_err());
    }
    assert!(refused > 10_000, "{refused} refused");
}

/// An engine that does nothing but give the expected state back, and knows no 8086.
struct Obedient {
    wrong: Option<&'static str>,
}

impl VectorEngine for Obedient {
    fn run(&mut self, v: &Vector) -> Outcome {
        if v.model == Model::I8086 {
            return Outcome::Skipped("model 8086 not implemented".into());
        }
        let mut regs = v.initial();
        for check in &v.want.regs {
            regs.set(check.reg, check.value);
        }
        let mem = v.want.mem.iter().map(|m| Some(m.value)).collect();
        match self.wrong {
            Some("panic") => panic!("a bug"),
            Some(_) => regs.rflags ^= 1,
            None => {}
        }
        Outcome::Ran(Box::new(Final { end: End::Stopped, regs, mem, unknown: Vec::new(), compiled: None }))
    }
}

fn settings() -> Settings {
    Settings {
        engines: vec![EngineChoice::Interp, EngineChoice::Jit],
        jobs: 2,
        filter: None,
        shard: None,
        fail_fast: false,
        keep: 2,
        known: Known::default(),
    }
}

fn obedient(_: EngineChoice) -> Result<Box<dyn VectorEngine>, String> {
    Ok(Box::new(Obedient { wrong: None }))
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

const JSON: &str = r#"{"name": "nop/plain", "mode": "64", "code": "90", "stop": {"count": 1}, "want": {"rax": "0x0"}}"#;

/// A folder with every kind of file.
fn suite(dir: &Path) -> PathBuf {
    let sub = dir.join("sub/deep");
    std::fs::create_dir_all(&sub).unwrap();
    let metadata = br#"{"opcodes": {"00": {"flags-mask": 65534}}}"#;
    let mut tar = tar::Builder::new(Vec::new());
    // The metadata stands behind the tests.
    for (name, data) in [("a.MOO", &add_file(4)[..]), ("note.txt", b"x"), ("metadata.json", metadata)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data).unwrap();
    }
    std::fs::write(dir.join("a.tar.xz"), xz(&tar.into_inner().unwrap())).unwrap();
    std::fs::write(sub.join("b.MOO"), add_file(3)).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&add_file(2)).unwrap();
    std::fs::write(dir.join("c.moo.gz"), gz.finish().unwrap()).unwrap();
    std::fs::write(dir.join("d.jsonl"), format!("{JSON}\n{JSON}\n")).unwrap();
    std::fs::write(dir.join("e.jsonl.xz"), xz(JSON.as_bytes())).unwrap();
    dir.to_owned()
}

#[test]
fn folders_and_archives() {
    let dir = tempfile::tempdir().unwrap();
    let path = suite(dir.path());
    let report = run(&[path], &settings(), &obedient, &AtomicU64::new(0)).unwrap();
    assert_eq!(report.errors, []);
    let json = report.json();
    assert_eq!(json["totals"], serde_json::json!({"ran": 24, "passed": 24, "failed": 0, "skipped": 0}));
    assert_eq!(json["engines"][1]["engine"], "jit");
    let add = &json["engines"][0]["mnemonics"][0];
    assert_eq!((&add["mnemonic"], &add["ran"], &add["features"]), (&"add".into(), &9.into(), &serde_json::json!(["INTEL8086"])));
    assert!(report.text(5).contains("ran 24, passed 24, failed 0, skipped 0"));
}

#[test]
fn failures_carry_flags_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.MOO");
    std::fs::write(&file, add_file(5)).unwrap();
    let wrong = |_| Ok(Box::new(Obedient { wrong: Some("cf") }) as Box<dyn VectorEngine>);
    let report = run(std::slice::from_ref(&file), &settings(), &wrong, &AtomicU64::new(0)).unwrap();
    let json = report.json();
    assert_eq!(json["totals"], serde_json::json!({"ran": 10, "passed": 0, "failed": 10, "skipped": 0}));
    let failures = json["engines"][0]["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2, "two a mnemonic are kept");
    assert_eq!(failures[0]["diffs"][0]["what"], "eflags");
    assert_eq!(failures[0]["diffs"][0]["note"], "CF want 0 got 1");
    assert_eq!(failures[0]["code"], "00d8f4");
    // The suite's metadata masks the flag.
    std::fs::write(dir.path().join("metadata.json"), r#"{"opcodes": {"00": {"flags-mask": 65534}}}"#).unwrap();
    let report = run(&[file], &settings(), &wrong, &AtomicU64::new(0)).unwrap();
    assert_eq!(report.totals().failed, 0);
}

#[test]
fn known_exceptions_neither_pass_nor_fail() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.MOO");
    std::fs::write(&file, add_file(5)).unwrap();
    let name = &parse(&add_file(5)).unwrap()[2].name;
    let known = Known::parse(&format!("| b.MOO | `{name}` | an erratum |")).unwrap();
    let wrong = |_| Ok(Box::new(Obedient { wrong: Some("cf") }) as Box<dyn VectorEngine>);
    let one = Settings { engines: vec![EngineChoice::Interp], known, ..settings() };
    let report = run(std::slice::from_ref(&file), &one, &wrong, &AtomicU64::new(0)).unwrap();
    let named = parse(&add_file(5)).unwrap().iter().filter(|v| v.name == *name).count() as u64;
    let want = serde_json::json!({"ran": 5, "passed": 0, "failed": 5 - named, "skipped": 0, "known": named});
    assert_eq!(report.json()["totals"], want);
    let text = report.text(5);
    assert!(text.contains(&format!("known exception {name}: an erratum")) && text.contains(&format!("known {named}, ")), "{text}");
    // What is listed and passes is a pass.
    let report = run(&[file], &one, &obedient, &AtomicU64::new(0)).unwrap();
    assert_eq!(report.json()["totals"], serde_json::json!({"ran": 5, "passed": 5, "failed": 0, "skipped": 0}));
}

#[test]
fn panics_skips_filters_and_bad_files_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.MOO");
    let mut i8086 = add_file(3);
    i8086[16..20].copy_from_slice(b"8086");
    std::fs::write(&file, i8086).unwrap();
    let files = std::slice::from_ref(&file);
    let report = run(files, &settings(), &obedient, &AtomicU64::new(0)).unwrap();
    assert_eq!((report.totals().ran, report.totals().skipped), (0, 6));
    assert!(report.text(5).contains("skipped 3: model 8086 not implemented"));

    let filtered = Settings { filter: Some(Filter::new("adc")), ..settings() };
    assert_eq!(run(files, &filtered, &obedient, &AtomicU64::new(0)).unwrap().totals().skipped, 0);

    std::fs::write(&file, &add_file(200)[..20_000]).unwrap();
    let report = run(files, &settings(), &obedient, &AtomicU64::new(0)).unwrap();
    assert!(report.totals().passed > 50 && report.errors.len() == 1, "{:?} {:?}", report.totals(), report.errors);

    std::fs::write(&file, add_file(3)).unwrap();
    let panics = |_| Ok(Box::new(Obedient { wrong: Some("panic") }) as Box<dyn VectorEngine>);
    let report = run(files, &settings(), &panics, &AtomicU64::new(0)).unwrap();
    assert_eq!(report.totals().failed, 6);
    assert!(report.text(9).contains("a panic: a bug"));
    let fast = Settings { fail_fast: true, jobs: 1, engines: vec![EngineChoice::Ir], ..settings() };
    assert_eq!(run(files, &fast, &panics, &AtomicU64::new(0)).unwrap().totals().ran, 1);

    let error = run(&[dir.path().join("no.MOO")], &settings(), &obedient, &AtomicU64::new(0)).unwrap_err().to_string();
    assert!(error.contains("no.MOO: "), "{error}");
    std::fs::write(dir.path().join("x.tar.xz"), b"not an archive").unwrap();
    let report = run(&[dir.path().join("x.tar.xz")], &settings(), &obedient, &AtomicU64::new(0)).unwrap();
    assert!(report.errors[0].to_string().contains("x.tar.xz at byte 0: cannot be unpacked"), "{:?}", report.errors);
}

#[test]
fn big_files_come_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("big.MOO");
    let big = add_file(12_000);
    assert!(big.len() > 2 << 20, "{} bytes", big.len());
    std::fs::write(&file, &big).unwrap();
    let one = Settings { engines: vec![EngineChoice::Interp], ..settings() };
    let paths = std::slice::from_ref(&file);
    let whole = run(paths, &one, &obedient, &AtomicU64::new(0)).unwrap();
    assert_eq!((whole.totals().passed, whole.errors.len()), (12_000, 0));
    // Offsets are those of the whole file.
    let wrong = |_| Ok(Box::new(Obedient { wrong: Some("cf") }) as Box<dyn VectorEngine>);
    let all = Settings { keep: usize::MAX, ..one.clone() };
    let report = run(paths, &all, &wrong, &AtomicU64::new(0)).unwrap();
    let offsets: Vec<u64> = report.engines[0].failures.iter().map(|f| f.offset).collect();
    let expected: Vec<u64> = moo::Reader::new(&big, &Arc::from("x"), None).unwrap().map(|v| v.unwrap().place.offset).collect();
    assert_eq!(offsets, expected);
    // Parts of the work are disjoint and nothing is left out.
    let part = |k| {
        let report = run(paths, &Settings { shard: Some((k, 3)), ..all.clone() }, &wrong, &AtomicU64::new(0)).unwrap();
        report.engines[0].failures.iter().map(|f| f.offset).collect::<Vec<_>>()
    };
    let mut parts: Vec<u64> = (1..=3).flat_map(part).collect();
    parts.sort_unstable();
    assert_eq!(parts, expected);
}

#[test]
fn damaged_archives_are_errors_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = suite(dir.path());
    let (mut refused, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    for name in ["a.tar.xz", "c.moo.gz", "d.jsonl", "e.jsonl.xz", "sub/deep/b.MOO"] {
        let good = std::fs::read(path.join(name)).unwrap();
        for round in 0..120_u64 {
            let mut data = good.clone();
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % data.len();
            if round % 2 == 0 {
                data.truncate(at);
            } else {
                data[at] ^= 1 << (state >> 20 & 7);
            }
            let file = dir.path().join(name.replace('/', "-"));
            std::fs::write(&file, &data).unwrap();
            match run(std::slice::from_ref(&file), &settings(), &obedient, &AtomicU64::new(0)) {
                Ok(report) => {
                    refused += report.errors.len();
                    assert!(report.errors.iter().all(|e| e.to_string().contains(" at byte ")), "{:?}", report.errors);
                }
                // The suite's masks are broken.
                Err(e) => assert!(e.to_string().contains("metadata.json"), "{e}"),
            }
        }
    }
    assert!(refused > 200, "{refused} refused");
}

#[test]
fn the_score_as_junit_and_html() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b<&>.MOO");
    std::fs::write(&file, &add_file(5)[..1000]).unwrap();
    let wrong = |_| Ok(Box::new(Obedient { wrong: Some("cf") }) as Box<dyn VectorEngine>);
    let report = run(std::slice::from_ref(&file), &settings(), &wrong, &AtomicU64::new(0)).unwrap();
    let xml = egret::conform::junit::junit(&report);
    for part in [
        "<testsuite name=\"interp\" tests=\"1\" failures=\"1\"",
        "vectors failed",
        "b&lt;&amp;&gt;.MOO at byte",
        "want 0 got 1",
        "<error message=",
    ] {
        assert!(xml.contains(part), "no {part} in {xml}");
    }
    let page = egret::conform::html::html(&report, &egret::conform::coverage::Coverage::new(&Default::default(), Some(&report)));
    for part in
        ["<h2>Failures on jit: ", "CF want 0 got 1", "add al,bl", "b&lt;&amp;&gt;.MOO at byte", "By mnemonic", "by extension", "eflags"]
    {
        assert!(page.contains(part), "no {part}");
    }
    assert!(!page.contains("http"), "the page is self-contained");
}

/// Rows for the bench itself: modes, paging, faults, ways to stop. (mode and cpl, code, the rest of the line)
const BENCH: &[(&str, &str, &str)] = &[
    (
        r#""64""#,
        "1401",
        r#""init": {"rax": "0xff", "rflags": "0x3"}, "stop": "hlt", "want": {"rax": "0x1", "rflags": {"value": "0x11", "mask": "0x8d5"}}"#,
    ),
    (
        r#""64""#,
        "8907",
        r#""init": {"rdi": "0xe000a000"}, "stop": "hlt",
        "want": {"fault": {"vector": 14, "error": "0x2", "cr2": "0xe000a000", "rip": "0x10000"}}"#,
    ),
    (
        r#""64", "cpl": 3"#,
        "8907",
        r#""init": {"rdi": "0xe000a000"}, "stop": {"count": 1}, "want": {"fault": {"vector": 14, "error": "0x6"}}"#,
    ),
    (r#""64", "cpl": 3"#, "f4", r#""stop": {"count": 1}, "want": {"fault": {"vector": 13, "error": "0x0", "rip": "0x10000"}}"#),
    (
        r#""64""#,
        "8907",
        r#""map": [{"at": "0xe0000000", "len": "0x1000", "prot": "r"}], "init": {"rdi": "0xe0000000"}, "stop": "hlt",
        "want": {"fault": {"vector": 14, "error": "0x3", "cr2": "0xe0000000"}, "mem": [["0xe0000000", "00"]]}"#,
    ),
    (
        r#""64""#,
        "ffe0",
        r#""map": [{"at": "0xe0000000", "len": "0x1000", "prot": "rw"}], "init": {"rax": "0xe0000010"}, "stop": {"count": 1},
        "want": {"rip": "0xe0000010"}"#,
    ),
    (
        r#""64""#,
        "ffe0",
        r#""map": [{"at": "0xe0000000", "len": "0x1000", "prot": "rw"}], "init": {"rax": "0xe0000010"}, "stop": {"count": 2},
        "want": {"fault": {"vector": 14, "error": "0x11", "cr2": "0xe0000010", "rip": "0xe0000010"}}"#,
    ),
    (r#""64""#, "f7f1", r#""init": {"rax": "0x5"}, "stop": "hlt", "want": {"rax": "0x5", "fault": {"vector": 0, "rip": "0x10000"}}"#),
    (r#""64""#, "0f0b", r#""stop": "hlt", "want": {"fault": {"vector": 6}}"#),
    (r#""64", "cpl": 3"#, "cc", r#""stop": {"count": 1}, "want": {"fault": {"vector": 3, "rip": "0x10001"}}"#),
    (r#""64", "cpl": 3"#, "cd80", r#""stop": {"count": 1}, "want": {"fault": {"vector": 13, "error": "0x402", "rip": "0x10000"}}"#),
    (
        r#""64""#,
        "f3a4",
        r#""map": [{"at": "0xe0000000", "len": "0x1000", "prot": "rw", "data": "0102030405"}],
        "init": {"rsi": "0xe0000000", "rdi": "0xe0000100", "rcx": "0x5"}, "stop": {"count": 1},
        "want": {"rcx": "0x0", "rsi": "0xe0000005", "rip": "0x10002", "mem": [["0xe0000100", "010203040500"]]}"#,
    ),
    (r#""64""#, "48ffc0", r#""init": {"rax": "0x1"}, "stop": {"count": 1}, "want": {"rax": "0x2", "rip": "0x10003"}"#),
    (
        r#""64""#,
        "488907",
        r#""map": [{"at": "0xe0000000", "len": "0x1000", "prot": "rw"}], "init": {"rdi": "0xe0000ffc", "rax": "0x1122334455667788"},
        "stop": "hlt", "want": {"fault": {"vector": 14, "error": "0x2", "cr2": "0xe0001000"}, "mem": [["0xe0000ffc", "00000000"]]}"#,
    ),
    (
        r#""64""#,
        "14",
        r#""at": "0x10fff", "stop": "hlt", "want": {"fault": {"vector": 14, "error": "0x10", "cr2": "0x11000", "rip": "0x10fff"}}"#,
    ),
    (r#""64""#, "50", r#""init": {"rax": "0x77"}, "stop": "hlt", "want": {"rsp": "0x7ff8", "mem": [["0x7ff8", "7700000000000000"]]}"#),
    (
        r#""64""#,
        "0f58c1",
        r#""init": {"xmm0": ["0x3f80000040000000", "0x0"], "xmm1": ["0x3f80000040400000", "0x0"]}, "stop": "hlt",
        "want": {"xmm0": ["0x4000000040a00000", "0x0"], "mxcsr": "0x1f80"}"#,
    ),
    (
        r#""64""#,
        "d8c1",
        r#""init": {"st0": "0x3fff8000000000000000", "st1": "0x40008000000000000000"}, "stop": "hlt",
        "want": {"st0": "0x4000c000000000000000", "st1": "0x40008000000000000000"}"#,
    ),
    (r#""64""#, "0ffcc1", r#""init": {"mm0": "0x0101", "mm1": "0x0202"}, "stop": "hlt", "want": {"mm0": "0x0303"}"#),
    (
        r#""32""#,
        "40",
        r#""init": {"rax": "0xffffffff"}, "stop": "hlt", "want": {"eax": "0x0", "rflags": {"value": "0x54", "mask": "0x8d4"}}"#,
    ),
    (
        r#""32""#,
        "8907",
        r#""init": {"rdi": "0xe000a000"}, "stop": "hlt", "want": {"fault": {"vector": 14, "error": "0x2", "cr2": "0xe000a000"}}"#,
    ),
    (r#""32", "cpl": 3"#, "8ed8", r#""init": {"rax": "0x10"}, "stop": {"count": 1}, "want": {"fault": {"vector": 13, "error": "0x10"}}"#),
    (r#""32""#, "8ed8", r#""init": {"rax": "0x2b"}, "stop": "hlt", "want": {"ds": "0x2b"}"#),
    (
        r#""16""#,
        "01d8",
        r#""init": {"rax": "0xff01", "rbx": "0x100"}, "stop": "hlt", "want": {"rax": "0x1", "rflags": {"value": "0x1", "mask": "0x1"}}"#,
    ),
    // The JIT runs count and sentinel in one block.
    (r#""64", "cpl": 3"#, "48ffc048ffc048ffc0", r#""stop": {"count": 3}, "want": {"rax": "0x3", "rip": "0x10009"}"#),
    (r#""64""#, "48ffc048ffc0", r#""stop": {"count": 1}, "want": {"rax": "0x1", "rip": "0x10003"}"#),
    (
        r#""64", "cpl": 3"#,
        "f348a5",
        r#""map": [{"at": "0xe0000000", "len": "0x1000", "prot": "rw", "data": "0102"}], "stop": {"count": 1},
        "init": {"rsi": "0xe0000000", "rdi": "0xe0000100", "rcx": "0x5"}, "want": {"rcx": "0x0", "rip": "0x10003"}"#,
    ),
    (
        r#""64", "cpl": 3"#,
        "f348a5",
        r#""map": [{"at": "0xe0000000", "len": "0x1000", "prot": "rw", "data": "0102"}], "stop": {"count": 1},
        "init": {"rsi": "0xe0000000", "rdi": "0xe0000fe0", "rcx": "0x5"},
        "want": {"rcx": "0x1", "fault": {"vector": 14, "error": "0x6", "cr2": "0xe0001000", "rip": "0x10000"}}"#,
    ),
    // Data behind the code of a whole program.
    (r#""64""#, "ff0501000000f405", r#""stop": "hlt", "want": {"mem": [["0x10007", "06f4"]]}"#),
    (
        r#""real""#,
        "8b07",
        r#""map": [{"at": "0x20000", "len": "0x1000", "prot": "rw", "data": "34120000"}], "init": {"ds": "0x2000"}, "stop": "hlt",
        "want": {"ax": "0x1234", "rip": "0x1003"}"#,
    ),
    (r#""real""#, "f6f1", r#""stop": "hlt", "want": {"fault": {"vector": 0, "rip": "0x1000"}}"#),
];

#[test]
fn the_bench_runs_all_modes_on_all_engines() {
    let lines: Vec<String> = BENCH
        .iter()
        .enumerate()
        .map(|(n, (mode, code, rest))| {
            format!(r#"{{"name": "row{n}/{code}", "mode": {mode}, "code": "{code}", {}}}"#, rest.replace('\n', " "))
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bench.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let all = Settings { engines: EngineChoice::ALL.to_vec(), ..settings() };
    let report = run(&[path], &all, &egret::conform::engine::make, &AtomicU64::new(0)).unwrap();
    assert_eq!(report.errors, []);
    let rows = BENCH.len() as u64;
    for engine in &report.engines {
        let t = engine.totals;
        assert_eq!((t.passed, t.failed, t.skipped), (rows, 0, 0), "{}", report.text(100));
        if let Some(compiled) = engine.compiled {
            // All but where the first instruction cannot be fetched or decoded, or other code follows the last that counts.
            assert!(compiled + 6 >= rows, "compiled code took part in {compiled} of {rows}");
        }
    }
}

#[test]
fn a_wrong_expectation_fails_on_every_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wrong.jsonl");
    std::fs::write(&path, r#"{"name": "inc/wrong", "mode": "64", "code": "48ffc0", "stop": "hlt", "want": {"rax": "0x2"}}"#).unwrap();
    let all = Settings { engines: EngineChoice::ALL.to_vec(), ..settings() };
    let report = run(&[path], &all, &egret::conform::engine::make, &AtomicU64::new(0)).unwrap();
    assert_eq!((report.totals().failed, report.totals().passed), (3, 0));
}

/// The samples that stand beside a checkout, when they do.
#[test]
fn the_shared_samples_parse() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let files = ["80286.tar.xz", "80386-00.MOO", "8086.tar.xz"].map(|f| shared.join(f));
    if !files.iter().all(|f| f.exists()) {
        eprintln!("no {}: nothing to parse", shared.display());
        return;
    }
    let one = Settings { engines: vec![EngineChoice::Interp], ..settings() };
    let report = run(&files, &one, &obedient, &AtomicU64::new(0)).unwrap();
    assert_eq!(report.errors, []);
    assert_eq!((report.totals().passed, report.totals().skipped), (59_420, 64_400));
}
