//! The `egret` command from outside: words, streams, exit codes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn egret(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    command.args(args).stdin(Stdio::null()).env("EGRET_DATA_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(o: Output) -> Said {
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        Said { code: o.status.code(), out: text(o.stdout), err: text(o.stderr) }
    }
}

fn said(args: &[&str]) -> Said {
    egret(args).output().unwrap().into()
}

/// Runs with `input` on standard input.
fn fed(args: &[&str], input: &str) -> Said {
    let mut child = egret(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = dir.path().join("missing").to_str().unwrap().to_owned();
    let (junk, empty) = (file("junk.bin", "junk, not a kernel"), file("empty.bin", ""));
    let (bad_key, twice) = (file("key.toml", "[[machine]]\nname = \"a\"\nkernal = \"x\"\n"), file("x.toml", "name = 1"));
    let (moo, json, folder) = (file("bad.MOO", "MOO"), file("bad.jsonl", "{}\n"), dir.path().to_str().unwrap());
    for (args, want) in [
        (&["run", "--kernel", &missing][..], &[&*missing][..]),
        (&["run", "--kernel", folder], &[folder]),
        (&["run", "--kernel", &junk], &[&junk, "not a kernel"]),
        (&["run", "--kernel", &empty], &[&empty, "empty"]),
        (&["run", "--kernel", &junk, "--initrd", &missing], &[&missing]),
        (&["run", "--memory", "64K"], &["memory"]),
        (&["run", "nosuch"], &["no guest 'nosuch'"]),
        (&["run", "debian"], &["not installed", "egret guests get debian"]),
        (&["run", "--serial", &format!("file:{missing}/x")], &["--serial", "missing"]),
        (&["run", "--log", &format!("{missing}/x")], &["missing"]),
        (&["guests", "get", "nosuch"], &["no guest 'nosuch'"]),
        (&["up", &missing], &[&missing]),
        (&["up", &bad_key], &["key.toml:3: unknown key 'kernal'"]),
        (&["up", &twice], &["x.toml:1: unknown key 'name'"]),
        (&["conform", &missing], &[&missing]),
        (&["conform", &junk], &["not a vector file"]),
        (&["conform", &moo], &["bad.MOO at byte 0: a chunk's id and length need 8 bytes, 3 are left"]),
        (&["conform", &json], &["bad.jsonl at byte 1: missing field `name`"]),
    ] {
        let Said { code, out: _, err } = said(args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(want.iter().all(|w| err.contains(w)), "{args:?}: {err}");
        assert!(err.starts_with("egret: ") && err.lines().count() == 1, "{args:?}: {err}");
        assert!(!err.contains("stub"), "{err}");
    }
}

#[test]
fn bad_usage_is_exit_code_2_with_a_hint() {
    for (args, want) in [
        (&["run", "--memory", "512"][..], "512M for mebibytes"),
        (&["run", "--engine", "warp"], "interp, jit, lockstep"),
        (&["run", "a", "b"], "unexpected argument"),
        (&["fly"], "unrecognized subcommand 'fly'"),
        (&["conform"], "<PATH>"),
        (&["guests"], "list"),
    ] {
        let Said { code, out, err } = said(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {err}");
        assert!(err.contains(want), "{args:?}: {err}");
    }
}

#[test]
fn help_documents_exit_codes_and_gives_examples() {
    for (args, wants) in [
        (&["--help"][..], &["Exit codes:", "3  the guest took a triple fault", "Examples:"][..]),
        (&["run", "--help"], &["Ctrl-A X", "Examples:", "--no-reboot", "[possible values: interp, jit, lockstep]"]),
        (&["up", "--help"], &["[[machine]]", "Ctrl-C"]),
        (&["conform", "--help"], &["MOO", "Exit code"]),
        (&["guests", "get", "--help"], &["--mirror"]),
    ] {
        let Said { code, out, err } = said(args);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        assert!(wants.iter().all(|w| out.contains(w)), "{args:?}: {out}");
    }
    assert!(said(&["--version"]).out.starts_with("egret 0."));
}

#[test]
fn guests_are_listed() {
    let Said { code, out, .. } = said(&["guests", "list"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("os ") && out.contains("\ndebian  not fetched  "), "{out}");
}

#[test]
fn the_embedded_guest_runs_a_command_from_a_pipe_and_powers_off() {
    for args in [&[][..], &["run", "os", "--engine", "interp", "--timeout", "120"]] {
        let Said { code, out, err } = fed(args, "prime\noff\n");
        assert_eq!(code, Some(0), "{out}\n{err}");
        assert!(out.contains(egret_guests::os::PROMPT) && out.contains(egret_guests::os::EXPECT_PRIME), "{out}");
        assert_eq!(err, "", "nothing to say");
    }
}

#[test]
fn a_timeout_ends_with_4_and_says_so_on_stderr() {
    let begin = Instant::now();
    let Said { code, out, err } = said(&["run", "--timeout", "1"]);
    assert_eq!(code, Some(4), "{err}");
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert!(out.contains(egret_guests::os::PROMPT) && err.contains("egret: timeout after 1."), "{out}{err}");
}

#[test]
fn serial_to_a_file_and_statistics_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let (serial, log) = (dir.path().join("serial.txt"), dir.path().join("log.txt"));
    let serial_arg = format!("file:{}", serial.display());
    let Said { code, out, err } = said(&["run", "--timeout", "1", "--serial", &serial_arg, "--stats=json"]);
    assert_eq!((code, out.as_str()), (Some(4), ""), "{err}");
    assert!(std::fs::read_to_string(&serial).unwrap().contains(egret_guests::os::PROMPT));
    let json: serde_json::Value = serde_json::from_str(err.lines().find(|l| l.starts_with('{')).unwrap()).unwrap();
    assert_eq!((&json["end"], &json["exit_code"]), (&"timeout".into(), &4.into()));
    assert!(json["instructions"].as_u64().unwrap() > 1000, "{json}");

    let log_arg = log.to_str().unwrap();
    let Said { code, out, err } = said(&["run", "--timeout", "1", "--serial", "none", "--log", log_arg]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(4), "", ""));
    assert!(std::fs::read_to_string(&log).unwrap().contains("timeout after 1."));
}

#[test]
fn the_end_of_input_stops_a_supervised_machine() {
    let Said { code, .. } = said(&["run", "--stop-on-eof"]);
    assert_eq!(code, Some(130));
}

#[cfg(unix)]
#[test]
fn a_closed_output_ends_the_machine() {
    let mut child = egret(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{}", said.err);
}

fn fleet(dir: &Path, text: &str) -> String {
    let path = dir.join("fleet.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn several_machines_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = fleet(
        dir.path(),
        "[[machine]]\nname = \"one\"\ntimeout = 2\n[[machine]]\nname = \"two\"\nguest = \"os\"\nmemory = \"64M\"\ntimeout = 1\n\
         [[machine]]\nname = \"broken\"\nkernel = \"no-such-kernel\"\n",
    );
    let Said { code, out, err } = said(&["up", &file]);
    assert_eq!(code, Some(1), "{err}");
    for name in ["one   ", "two   "] {
        assert!(out.lines().any(|l| l.starts_with(name) && l.contains(egret_guests::os::PROMPT)), "{out}");
        assert!(err.lines().any(|l| l.starts_with(name) && l.contains("timeout")), "{err}");
    }
    assert!(err.contains("broken | egret: ") && err.contains("no-such-kernel"), "{err}");
    let row = |name: &str| err.lines().find(|l| l.starts_with(name) && l.ends_with('t')).unwrap_or_default().to_owned();
    assert!(row("broken").contains("   2  ") && row("broken").contains("bad options or input"), "{err}");
}

/// A multiboot kernel of a few bytes of 32-bit code. Multiboot Specification 0.6.96, "The layout of Multiboot header".
fn kernel(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    /// The header's address fields say where the image goes.
    const ADDRESSES: u32 = 1 << 16;
    const BASE: u32 = 0x10_0000;
    let end = BASE + 32 + code.len() as u32;
    let header = [MAGIC, ADDRESSES, 0u32.wrapping_sub(MAGIC + ADDRESSES), BASE, BASE, end, end, BASE + 32];
    let mut image: Vec<u8> = header.iter().flat_map(|w| w.to_le_bytes()).collect();
    image.extend(code);
    image
}

#[test]
fn the_guest_s_end_is_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernel");
    let write_port = |port: u16, value: u8| [0x66, 0xba, port as u8, (port >> 8) as u8, 0xb0, value, 0xee, 0xf4];
    let say_hi = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'h', 0xee, 0xb0, b'i', 0xee];
    let reset = write_port(0xcf9, 6);
    // (code, arguments, exit code, words on standard error)
    let rows: [(&[u8], &[&str], i32, &str); 6] = [
        (&write_port(0xf4, 0), &[], 0, ""),
        (&write_port(0xf4, 0x2a), &[], 6, "the guest wrote 0x2a to the debug-exit port"),
        (&[0x0f, 0x0b], &[], 3, "triple fault at cs "),
        (&reset, &["--no-reboot"], 0, ""),
        (&reset, &["--timeout", "1"], 4, "timeout after 1."),
        (&[0xeb, 0xfe], &["--timeout", "0.5"], 4, "timeout after 0."),
    ];
    for (code, more, want, words) in rows {
        std::fs::write(&path, kernel(&[&say_hi, code].concat())).unwrap();
        for engine in ["interp", "jit"] {
            let args = [&["run", "--kernel", path.to_str().unwrap(), "--engine", engine], more].concat();
            let Said { code, out, err } = said(&args);
            assert_eq!(code, Some(want), "{args:?}: {err}");
            assert!(err.contains(words) && err.is_empty() == words.is_empty(), "{args:?}: {err}");
            let boots = out.len() / 2;
            assert_eq!(out, "hi".repeat(boots), "{args:?}");
            assert_eq!(boots > 1, more == ["--timeout", "1"], "{args:?}: {boots} boots");
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_all_machines_and_a_crash_stops_one() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("crash"), kernel(&[0x0f, 0x0b])).unwrap();
    let file = fleet(
        dir.path(),
        "[[machine]]\nname = \"crash\"\nkernel = \"crash\"\n[[machine]]\nname = \"one\"\n[[machine]]\nname = \"two\"\nengine = \"interp\"\n",
    );
    let mut up = egret(&["up", &file]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(up.stdout.take().unwrap());
    let (mut text, begin) = (Vec::new(), Instant::now());
    let prompts = |text: &[u8]| String::from_utf8_lossy(text).matches(egret_guests::os::PROMPT).count();
    while prompts(&text) < 2 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", String::from_utf8_lossy(&text));
        let bytes = out.fill_buf().unwrap().to_vec();
        out.consume(bytes.len());
        text.extend(bytes);
    }
    kill_process(Pid::from_child(&up), Signal::INT).unwrap();
    let Said { code, err, .. } = up.wait_with_output().unwrap().into();
    assert_eq!(code, Some(1), "{err}");
    for row in ["crash       3", "one       130", "two       130"] {
        assert!(err.lines().any(|l| l.starts_with(row)), "{row}: {err}");
    }
    assert!(err.contains("crash | egret: triple fault at"), "{err}");
}

/// The test kernel `platform` writes `!` to port E9h.
#[test]
fn the_debug_console_leads_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (kernel, to) = (path("platform.elf"), format!("file:{}", path("e9")));
    let platform = egret_guests::tests_kernels::all().into_iter().find(|k| k.name == "platform").unwrap();
    std::fs::write(&kernel, &platform.image).unwrap();
    let run = |more: &[&str]| said(&[&["run", "--kernel", &kernel, "--timeout", "60"], more].concat());
    let to_file = run(&["--debugcon", &to]);
    assert_eq!((to_file.code, std::fs::read_to_string(path("e9")).unwrap().as_str()), (Some(0), "!"), "{}", to_file.err);
    assert!(to_file.out.contains(platform.expect) && !to_file.out.contains('!'), "{}", to_file.out);
    assert!(run(&["--debugcon", "stdio"]).out.contains("!PASS") && !run(&[]).out.contains('!'));
    let alone = run(&["--serial", "none", "--debugcon", "stdio"]);
    assert_eq!((alone.code, alone.out.as_str()), (Some(0), "!"));
}
