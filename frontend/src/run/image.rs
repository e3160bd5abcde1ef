//! The files of a machine.

use egret_guests::os;
use egret_hypervisor::options::{MachineOptions, Unpack};
use egret_machine::{Image, boot};
use std::path::Path;

/// The name of the embedded guest.
pub const EMBEDDED: &str = "os";

/// Reads what the options name; an error is one line that names the file.
pub fn open(options: &MachineOptions) -> Result<Image, String> {
    let mut image = match (&options.kernel, options.guest.as_deref()) {
        (Some(kernel), _) => {
            let initrd = options.initrd.as_deref().map(|path| Ok::<_, String>((name(path), read(path)?))).transpose()?;
            Image {
                kernel_name: name(kernel),
                kernel: read(kernel)?,
                initrd,
                cmdline: String::new(),
                unpack: boot::Unpack::Host,
                unpacked: None,
            }
        }
        (None, None | Some(EMBEDDED)) => Image {
            kernel_name: "the embedded guest".into(),
            kernel: os::image(),
            initrd: None,
            cmdline: String::new(),
            unpack: boot::Unpack::Host,
            unpacked: None,
        },
        (None, Some(guest)) => crate::guests::image(guest)?,
    };
    if let Some(append) = &options.append {
        if !image.cmdline.is_empty() {
            image.cmdline.push(' ');
        }
        image.cmdline += append;
    }
    image.unpack = match options.unpack {
        Some(Unpack::Guest) => boot::Unpack::Guest,
        Some(Unpack::Host) | None => boot::Unpack::Host,
    };
    Ok(image)
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// The content of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
