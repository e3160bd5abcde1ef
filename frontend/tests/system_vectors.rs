//! The rows for what user mode cannot reach, `tests/vectors/system`, on every engine. Each row cites its section of the manual.

use std::path::Path;
use std::process::Command;

#[test]
fn system_rows_pass_on_every_engine() {
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/system");
    for engine in ["interp", "ir", "jit"] {
        let out = Command::new(env!("CARGO_BIN_EXE_egret")).args(["conform", "--engine", engine]).arg(&rows).output().expect("runs");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{engine}:\n{text}\n{}", String::from_utf8_lossy(&out.stderr));
        let ran = text.lines().find_map(|l| l.strip_prefix("ran ")?.split([',', ' ']).next()?.parse::<u32>().ok());
        assert!(ran.is_some_and(|n| n >= 711), "{engine}: {ran:?} rows ran:\n{text}");
    }
}
