//! How a machine ended, as the exit code of its process.

/// Exit codes of the `egret` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The guest powered off, or the user quit.
    Ok = 0,
    /// A check failed: a vector failed, the engines differ, a machine of `egret up` did not end with 0.
    Failed = 1,
    /// Wrong usage or bad input.
    Usage = 2,
    /// The guest took a triple fault.
    TripleFault = 3,
    /// `--timeout` passed.
    Timeout = 4,
    /// A fault of Egret itself.
    Internal = 5,
    /// The guest wrote a value other than 0 to the debug-exit port.
    DebugExit = 6,
    /// Stopped by a signal (Ctrl-C, SIGTERM), or its output was closed.
    Interrupted = 130,
}

impl ExitCode {
    /// Every code with its meaning, in the words of `--help`.
    pub const TABLE: [(ExitCode, &'static str); 8] = [
        (ExitCode::Ok, "the guest powered off, or you quit with Ctrl-A X"),
        (ExitCode::Failed, "a check failed: vectors, lockstep, or a machine of `egret up`"),
        (ExitCode::Usage, "wrong usage, or a file that cannot be used"),
        (ExitCode::TripleFault, "the guest took a triple fault"),
        (ExitCode::Timeout, "--timeout passed"),
        (ExitCode::Internal, "internal error: please report it"),
        (ExitCode::DebugExit, "the guest wrote a value other than 0 to the debug-exit port F4h (0 there exits 0)"),
        (ExitCode::Interrupted, "stopped by Ctrl-C or a signal, or standard output was closed"),
    ];

    /// The code of a process' exit status, if it is one of ours.
    #[must_use]
    pub fn from_status(code: i32) -> Option<ExitCode> {
        Self::TABLE.iter().map(|row| row.0).find(|known| i32::from(*known as u8) == code)
    }

    /// A few words for a summary table.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            ExitCode::Ok => "powered off",
            ExitCode::Failed => "check failed",
            ExitCode::Usage => "bad options or input",
            ExitCode::TripleFault => "triple fault",
            ExitCode::Timeout => "timeout",
            ExitCode::Internal => "internal error",
            ExitCode::DebugExit => "debug exit",
            ExitCode::Interrupted => "interrupted",
        }
    }
}
