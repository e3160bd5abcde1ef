//! Writes the embedded guest OS to a file, to boot it elsewhere: `qemu-system-x86_64 -nographic -kernel FILE`.

fn main() -> std::io::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: write-os FILE");
        std::process::exit(2);
    };
    std::fs::write(path, egret_guests::os::image())
}
