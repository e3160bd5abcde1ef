//! Writes the embedded guest OS, or a test kernel, to a file, to boot it elsewhere: `qemu-system-x86_64 -nographic -kernel FILE`.
//! With `--disk` the file is a raw disk image for a PC that has a BIOS but no multiboot loader, such as Bochs.

use std::process::exit;

fn main() -> std::io::Result<()> {
    let (options, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let disk = options.iter().any(|option| option == "--disk");
    if words.is_empty() || words.len() > 2 || options.len() > usize::from(disk) {
        eprintln!("usage: write-os [--disk] FILE [TEST-KERNEL]");
        exit(2);
    }
    let image = match words.get(1) {
        None => egret_guests::os::image(),
        Some(name) => {
            let mut kernels = egret_guests::tests_kernels::all();
            let Some(found) = kernels.iter().position(|kernel| kernel.name == name) else {
                let names: Vec<_> = kernels.iter().map(|kernel| kernel.name).collect();
                eprintln!("no test kernel {name:?}; there are: {}", names.join(", "));
                exit(2);
            };
            kernels.swap_remove(found).image
        }
    };
    std::fs::write(&words[0], if disk { egret_guests::os::boot_disk(&image) } else { image })
}
