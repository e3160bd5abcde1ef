//! Runs several machines, each a child process: merges their output, stops them together, tells how each ended.

use crate::exit::ExitCode;
use crate::output::{Merger, Stream};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// One machine to start.
#[derive(Clone, Debug)]
pub struct Job {
    /// The machine's name.
    pub name: String,
    /// The program to run.
    pub program: PathBuf,
    /// Its arguments. The child must take the end of its standard input as the request to stop.
    pub args: Vec<OsString>,
    /// Variables added to its environment.
    pub env: Vec<(OsString, OsString)>,
}

/// How patient the supervisor is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a machine may take to stop when asked, before it is killed.
    pub grace: Duration,
    /// How long an unfinished line waits before it is shown.
    pub partial_line: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { grace: Duration::from_secs(5), partial_line: Duration::from_millis(150) }
    }
}

/// Asks a running [`supervise`] to stop; the first request is polite, the second kills.
#[derive(Clone, Default, Debug)]
pub struct Stop(Arc<AtomicU32>);

impl Stop {
    /// Asks for the stop.
    pub fn request(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn requests(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a machine is no longer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its process ended by itself with this code.
    Exited(i32),
    /// Its process was ended by this signal (Unix).
    Signal(i32),
    /// It stopped when asked; with its exit code.
    Stopped(i32),
    /// It did not stop when asked and was killed.
    Killed,
    /// Its process could not be started or watched.
    Failed(String),
}

/// How one machine fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The machine's name.
    pub name: String,
    /// Why it ended.
    pub end: End,
    /// How long it lived.
    pub elapsed: Duration,
}

impl Summary {
    /// Whether the machine ended as a machine should.
    #[must_use]
    pub fn good(&self) -> bool {
        self.end == End::Exited(0)
    }

    fn reason(&self) -> String {
        match &self.end {
            End::Exited(code) => ExitCode::from_status(*code).map_or("unknown exit code", ExitCode::short).to_owned(),
            End::Signal(signal) => format!("ended by signal {signal}"),
            End::Stopped(_) => "stopped".to_owned(),
            End::Killed => "killed: did not stop in time".to_owned(),
            End::Failed(why) => why.clone(),
        }
    }

    fn code(&self) -> String {
        match self.end {
            End::Exited(code) | End::Stopped(code) => code.to_string(),
            _ => "-".to_owned(),
        }
    }
}

/// The summaries as a table with a heading, one line a machine.
#[must_use]
pub fn summary_table(summaries: &[Summary]) -> String {
    let width = summaries.iter().map(|s| s.name.chars().count()).chain([7]).max().unwrap_or(7);
    let mut text = format!("{:width$}  {:>4}  {:>9}  reason\n", "machine", "code", "time");
    for s in summaries {
        text += &format!("{:width$}  {:>4}  {:>8.2}s  {}\n", s.name, s.code(), s.elapsed.as_secs_f64(), s.reason());
    }
    text
}

enum Event {
    Output(usize, Stream, Vec<u8>),
    Closed(usize),
}

struct Running {
    child: Child,
    /// Held open: its end is the request to stop.
    stdin: Option<ChildStdin>,
    /// Outputs not yet at their end.
    open: u32,
    status: Option<(End, Instant)>,
}

/// How long the outputs of an ended process are read on: a grandchild may hold them open for ever.
const DRAIN: Duration = Duration::from_millis(500);
/// The longest sleep, so that requests and ended children are seen soon.
const POLL: Duration = Duration::from_millis(25);

/// Starts all `jobs`, shows their output on `out` and `err`, and returns when every one has ended.
/// An error is one of `out` or `err`; the machines have been killed then.
pub fn supervise(
    jobs: &[Job],
    patience: Patience,
    stop: &Stop,
    out: impl Write,
    err: impl Write,
    colour: bool,
) -> io::Result<Vec<Summary>> {
    let names: Vec<&str> = jobs.iter().map(|j| j.name.as_str()).collect();
    let merger = Merger::new(&names, out, err, patience.partial_line, colour);
    let (sender, events) = sync_channel(64);
    let started = Instant::now();
    let machines = jobs.iter().enumerate().map(|(id, job)| start(id, job, &sender)).collect();
    drop(sender);
    let mut watch = Watch { jobs, machines, merger, patience, started, asked: None, ends: vec![None; jobs.len()] };
    let result = watch.run(&events, stop);
    for machine in watch.machines.iter_mut().flatten() {
        // Only those are alive whose output could not be written.
        let _ = machine.child.kill();
        let _ = machine.child.wait();
    }
    result?;
    let summary = |(job, end): (&Job, Option<(End, Duration)>)| {
        let (end, elapsed) = end.unwrap_or((End::Failed("lost".into()), started.elapsed()));
        Summary { name: job.name.clone(), end, elapsed }
    };
    Ok(jobs.iter().zip(watch.ends).map(summary).collect())
}

fn start(id: usize, job: &Job, sender: &SyncSender<Event>) -> Result<Running, String> {
    let mut command = Command::new(&job.program);
    command.args(&job.args).envs(job.env.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    detach(&mut command);
    let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", job.program.display()))?;
    let stdin = child.stdin.take();
    let mut open = 0;
    let mut read = |stream, pipe: Option<Box<dyn Read + Send>>| {
        if let Some(pipe) = pipe {
            open += 1;
            let sender = sender.clone();
            std::thread::spawn(move || pump(id, stream, pipe, &sender));
        }
    };
    read(Stream::Out, child.stdout.take().map(|p| Box::new(p) as _));
    read(Stream::Err, child.stderr.take().map(|p| Box::new(p) as _));
    Ok(Running { child, stdin, open, status: None })
}

/// Keeps a Ctrl-C in the terminal from reaching the machines: the supervisor stops them.
#[cfg(unix)]
fn detach(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Keeps a Ctrl-C in the console from reaching the machines: the supervisor stops them.
#[cfg(windows)]
fn detach(command: &mut Command) {
    const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
    std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
}

fn pump(id: usize, stream: Stream, mut pipe: Box<dyn Read + Send>, sender: &SyncSender<Event>) {
    let mut buffer = [0; 8192];
    loop {
        match pipe.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(n) if sender.send(Event::Output(id, stream, buffer[..n].to_vec())).is_err() => return,
            Ok(_) => {}
        }
    }
    let _ = sender.send(Event::Closed(id));
}

struct Watch<'a, O: Write, E: Write> {
    jobs: &'a [Job],
    /// The machines that live; `Err` for those that never started.
    machines: Vec<Result<Running, String>>,
    merger: Merger<O, E>,
    patience: Patience,
    started: Instant,
    /// When the machines were asked to stop.
    asked: Option<Instant>,
    ends: Vec<Option<(End, Duration)>>,
}

impl<O: Write, E: Write> Watch<'_, O, E> {
    fn run(&mut self, events: &Receiver<Event>, stop: &Stop) -> io::Result<()> {
        for id in 0..self.jobs.len() {
            if let Err(why) = &self.machines[id] {
                let line = format!("egret: {why}\n");
                self.merger.feed(id, Stream::Err, line.as_bytes(), Instant::now())?;
                self.ends[id] = Some((End::Failed(why.clone()), Duration::ZERO));
            }
        }
        while self.ends.iter().any(Option::is_none) {
            match events.recv_timeout(POLL) {
                Ok(Event::Output(id, stream, bytes)) => self.merger.feed(id, stream, &bytes, Instant::now())?,
                Ok(Event::Closed(id)) => {
                    if let Ok(machine) = &mut self.machines[id] {
                        machine.open -= 1;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // All outputs are closed; only exits are left to wait for.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
            }
            let now = Instant::now();
            self.merger.tick(now)?;
            self.reap(now)?;
            self.stopping(stop, now);
        }
        Ok(())
    }

    /// Asks the machines to stop, and kills those that do not.
    fn stopping(&mut self, stop: &Stop, now: Instant) {
        let requests = stop.requests();
        if requests == 0 {
            return;
        }
        let asked = *self.asked.get_or_insert(now);
        let kill = requests > 1 || now.duration_since(asked) >= self.patience.grace;
        for machine in self.machines.iter_mut().flatten() {
            machine.stdin = None;
            if kill && machine.status.is_none() && machine.child.kill().is_ok() {
                machine.status = machine.child.wait().ok().map(|_| (End::Killed, now));
            }
        }
    }

    fn reap(&mut self, now: Instant) -> io::Result<()> {
        for id in 0..self.machines.len() {
            let Ok(machine) = &mut self.machines[id] else { continue };
            if self.ends[id].is_some() {
                continue;
            }
            if machine.status.is_none() {
                let asked = self.asked.is_some();
                machine.status = match machine.child.try_wait() {
                    Ok(None) => None,
                    Ok(Some(status)) => Some((end_of(status, asked), now)),
                    Err(e) => Some((End::Failed(e.to_string()), now)),
                };
            }
            if let Some((end, when)) = &machine.status
                && (machine.open == 0 || now.duration_since(*when) >= DRAIN)
            {
                self.ends[id] = Some((end.clone(), when.duration_since(self.started)));
                self.merger.finish(id)?;
            }
        }
        Ok(())
    }
}

fn end_of(status: ExitStatus, asked: bool) -> End {
    match status.code() {
        Some(code) if asked && (code == 0 || code == i32::from(ExitCode::Interrupted as u8)) => End::Stopped(code),
        Some(code) => End::Exited(code),
        None => signal_of(status),
    }
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> End {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    signal.map_or_else(|| End::Failed(status.to_string()), End::Signal)
}

#[cfg(not(unix))]
fn signal_of(status: ExitStatus) -> End {
    End::Failed(status.to_string())
}
