//! `egret guests`, and the guests of the catalogue as images.

use crate::cli::{GuestsArgs, GuestsCommand};
use crate::console::terminal::say;
use crate::progress::Progress;
use crate::run::image;
use egret_guests::catalogue::{self, CatalogueError, GetOptions, InstalledGuest, Listing};
use egret_hypervisor::exit::ExitCode;
use egret_machine::{Image, boot};
use std::io::{self, Write};

/// Runs the command.
pub fn guests(args: &GuestsArgs) -> ExitCode {
    let done = match &args.command {
        GuestsCommand::List => list(),
        GuestsCommand::Get { name, mirror } => get(name, mirror.as_deref()),
    };
    match done {
        Ok(text) if io::stdout().write_all(text.as_bytes()).is_err() => ExitCode::Interrupted,
        Ok(_) => ExitCode::Ok,
        Err(e) => {
            say(&e.to_string());
            ExitCode::Usage
        }
    }
}

fn list() -> Result<String, CatalogueError> {
    let mut rows = vec![(image::EMBEDDED.to_owned(), "built in".to_owned(), "Egret's own small OS, the default of egret run".to_owned())];
    rows.extend(catalogue::list(&catalogue::data_dir()?).into_iter().map(|Listing { entry, installed }| {
        let state = installed.map_or_else(|| "not fetched".to_owned(), |g| format!("ready, {}", version(&g)));
        (entry.name.to_owned(), state, entry.about.to_owned())
    }));
    let width = |f: fn(&(String, String, String)) -> &String| rows.iter().map(|r| f(r).chars().count()).max().unwrap_or(0);
    let (name, state) = (width(|r| &r.0), width(|r| &r.1));
    Ok(rows.iter().map(|r| format!("{:name$}  {:state$}  {}\n", r.0, r.1, r.2)).collect())
}

fn version(guest: &InstalledGuest) -> &str {
    &guest.manifest.kernel.version
}

fn get(name: &str, mirror: Option<&str>) -> Result<String, CatalogueError> {
    let options = GetOptions { mirror: mirror.map(str::to_owned), ..GetOptions::new(catalogue::data_dir()?) };
    let mut bar = None;
    let guest = catalogue::get(name, &options, &mut |progress| match progress {
        catalogue::Progress::Step(what) => {
            bar = None;
            say(&what);
            bar = Some(Progress::bytes(&what));
        }
        catalogue::Progress::Bytes { done, total } => {
            if let Some(bar) = &bar {
                bar.set(done, total.unwrap_or(0));
            }
        }
    })?;
    drop(bar);
    say(&format!("guest '{name}' is ready: egret run {name}"));
    let parts = [("kernel", &guest.kernel, &guest.manifest.kernel), ("initrd", &guest.initrd, &guest.manifest.initrd)];
    Ok(parts.iter().map(|(what, path, part)| format!("{what}  {}  {}  {}\n", path.display(), part.version, part.sha256)).collect())
}

/// The image of a guest of the catalogue; an error is one line.
pub fn image(name: &str) -> Result<Image, String> {
    let guest = catalogue::data_dir().and_then(|dir| catalogue::lookup(name, &dir)).map_err(|e| e.to_string())?;
    Ok(Image {
        kernel_name: guest.kernel.display().to_string(),
        kernel: image::read(&guest.kernel)?,
        initrd: Some((guest.initrd.display().to_string(), image::read(&guest.initrd)?)),
        cmdline: guest.append,
        unpack: boot::Unpack::Host,
        unpacked: None,
    })
}
