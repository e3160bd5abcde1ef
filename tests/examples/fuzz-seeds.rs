//! Writes random programs as inputs for `tests/fuzz`, for a corpus to start from: `fuzz-seeds FOLDER COUNT`.

use egret_tests::random::{Program, fuzz};

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(count)) = (args.next(), args.next().and_then(|n| n.parse::<u64>().ok())) else {
        eprintln!("usage: fuzz-seeds FOLDER COUNT");
        std::process::exit(2);
    };
    std::fs::create_dir_all(&folder)?;
    for n in 0..count {
        let mut program = Program::new(n);
        program.code.truncate(4 + n as usize % 28);
        std::fs::write(format!("{folder}/seed-{n:04}"), fuzz::bytes(&program))?;
    }
    Ok(())
}
