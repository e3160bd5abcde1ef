//! The supervisor with child processes that play machines: this test program itself, told by a variable what to do.

use egret_hypervisor::supervisor::{End, Job, Patience, Stop, Summary, summary_table, supervise};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const PLAY: &str = "EGRET_TEST_PLAY";

/// Not a test: the machine that the others start.
#[test]
#[ignore = "the child of the other tests"]
fn child() {
    let Ok(play) = std::env::var(PLAY) else { return };
    let mut out = std::io::stdout();
    let wait_for_stop = || std::io::stdin().read_to_end(&mut Vec::new());
    match play.split_once(':').unwrap_or((&play, "")) {
        ("exit", code) => {
            println!("hello from {code}");
            std::process::exit(code.parse().unwrap());
        }
        ("prompt", _) => {
            write!(out, "prompt> ").unwrap();
            out.flush().unwrap();
            wait_for_stop().unwrap();
            eprintln!("asked to stop");
            std::process::exit(130);
        }
        ("abort", _) => std::process::abort(),
        ("deaf", _) => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        other => panic!("{other:?}"),
    }
}

fn job(name: &str, play: &str) -> Job {
    Job {
        name: name.into(),
        program: std::env::current_exe().unwrap(),
        args: ["--exact", "child", "--ignored", "--nocapture", "--quiet"].map(Into::into).to_vec(),
        env: vec![(PLAY.into(), play.into())],
    }
}

fn patience(grace: u64) -> Patience {
    Patience { grace: Duration::from_millis(grace), partial_line: Duration::from_millis(20) }
}

/// Stops after `stop_after` has appeared in the output.
struct Sink<'a> {
    text: &'a mut Vec<u8>,
    stop_after: Option<(&'static str, Stop)>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if self.stop_after.as_ref().is_some_and(|(what, _)| String::from_utf8_lossy(self.text).contains(what)) {
            self.stop_after.take().unwrap().1.request();
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run(jobs: &[Job], grace: u64, stop_after: Option<&'static str>) -> (Vec<Summary>, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let stop = Stop::default();
    let sink = Sink { text: &mut out, stop_after: stop_after.map(|what| (what, stop.clone())) };
    let summaries = supervise(jobs, patience(grace), &stop, sink, &mut err, false).unwrap();
    (summaries, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn each_machine_has_its_own_end() {
    let mut jobs = vec![job("good", "exit:0"), job("triple", "exit:3"), job("odd", "exit:77"), job("crash", "abort")];
    jobs.push(Job { program: "/no/such/program".into(), ..job("missing", "exit:0") });
    let (ends, out, err) = run(&jobs, 5000, None);
    assert!(out.contains("good    | hello from 0\n"), "{out}");
    assert!(out.contains("triple  | hello from 3\n"), "{out}");
    assert!(err.contains("missing | egret: cannot start"), "{err}");
    assert_eq!(ends.iter().map(Summary::good).collect::<Vec<_>>(), [true, false, false, false, false]);
    assert_eq!(ends[1].end, End::Exited(3));
    #[cfg(unix)]
    assert_eq!(ends[3].end, End::Signal(6));
    assert!(matches!(&ends[4].end, End::Failed(why) if why.contains("/no/such/program")), "{:?}", ends[4]);
    let table = summary_table(&ends);
    for (name, words) in [("good", "powered off"), ("triple", "triple fault"), ("odd", "unknown exit code"), ("missing", "cannot start")] {
        assert!(table.lines().any(|l| l.starts_with(name) && l.contains(words)), "{name}: {table}");
    }
}

#[test]
fn a_crash_leaves_the_others_and_a_stop_reaches_all() {
    let jobs = [job("crash", "exit:5"), job("one", "prompt"), job("two", "prompt")];
    let (ends, out, err) = run(&jobs, 20_000, Some("two   | prompt> "));
    assert!(out.contains("two   | prompt> "), "{out}");
    assert!(err.contains("one   | asked to stop\n") && err.contains("two   | asked to stop\n"), "{err}");
    assert_eq!(ends[0].end, End::Exited(5));
    assert_eq!((&ends[1].end, &ends[2].end), (&End::Stopped(130), &End::Stopped(130)));
}

#[test]
fn the_deaf_are_killed() {
    let begin = Instant::now();
    let (ends, _, _) = run(&[job("deaf", "deaf"), job("one", "prompt")], 300, Some("prompt> "));
    assert_eq!((&ends[0].end, &ends[1].end), (&End::Killed, &End::Stopped(130)));
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_closed_output_ends_everything() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let result = supervise(&[job("one", "prompt"), job("deaf", "deaf")], patience(100), &Stop::default(), Closed, std::io::sink(), false);
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}
