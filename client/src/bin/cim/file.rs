//! `cim file …`: files with a progress bar, resumed where they broke off.

use std::path::{Path, PathBuf};

use client::engine::{Engine, Event, Notice};
use indicatif::{ProgressBar, ProgressStyle};
use protocol::AddressBuf;

use crate::arguments::{File, Global};
use crate::contact::online;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::text::{size, visible};

/// Characters of a file's name.
const NAME_CHARACTERS_MAX: usize = 120;
/// Names tried for a file whose name is taken.
const NAMES_TRIED_MAX: usize = 100;

/// Does what is asked about files.
pub(crate) async fn run(global: &Global, file: File) -> Result<(), Failure> {
    let mut driver = Home::open(global, false)?.driver(global)?;
    match file {
        File::Send { person, path } => {
            let person = AddressBuf::parse(&person)?;
            online(&mut driver).await?;
            driver.offer_file(0, person, path);
            let fid = driver
                .until(|_, happening| match happening {
                    Happening::Offered { result: Ok(fid), .. } => Ok(Some(fid.clone())),
                    Happening::Offered { result: Err(failure), .. } => Err(failure.clone()),
                    _ => Ok(None),
                })
                .await?;
            follow(global, driver, &fid).await
        }
        File::Accept { file, into } => {
            online(&mut driver).await?;
            let fid = match file {
                Some(fid) => fid,
                None => only_offer(&driver)?,
            };
            accept(&mut driver, &fid, &into)?;
            follow(global, driver, &fid).await
        }
        File::List => {
            online(&mut driver).await?;
            list(global, &driver)?;
            driver.close().await
        }
        File::Cancel { file } => {
            online(&mut driver).await?;
            driver.engine.file_cancel(&file, Driver::now())?;
            driver.close().await
        }
    }
}

/// Where a file will stand: its name in the folder `into`, with a number if that is taken.
pub(crate) fn target(engine: &Engine, fid: &str, into: &Path) -> Result<PathBuf, Failure> {
    if !into.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", into.display())));
    }
    let file = engine.files()?.into_iter().find(|file| file.fid == fid);
    let file = file.ok_or_else(|| Failure::usage(format!("no file {fid} is offered")))?;
    let name = safe_name(&file.name);
    for number in 0..NAMES_TRIED_MAX {
        let name = if number == 0 { name.clone() } else { format!("{number}-{name}") };
        let path = into.join(name);
        if !path.exists() {
            return Ok(path);
        }
    }
    Err(Failure::usage(format!("{} has {NAMES_TRIED_MAX} files of that name", into.display())))
}

/// A name from somebody else without folders, controls or a leading dot.
fn safe_name(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_control() || matches!(c, '/' | '\\' | '\u{FFFD}') { '_' } else { c })
        .take(NAME_CHARACTERS_MAX)
        .collect();
    let name = visible(&name).trim_start_matches('.').trim().to_owned();
    if name.is_empty() { "file".to_owned() } else { name }
}

fn accept(driver: &mut Driver, fid: &str, into: &Path) -> Result<(), Failure> {
    let path = target(&driver.engine, fid, into)?;
    driver.engine.file_accept(fid, &path, Driver::now())?;
    eprintln!("cim: it will be {}", path.display());
    Ok(())
}

fn only_offer(driver: &Driver) -> Result<String, Failure> {
    let offered: Vec<String> = driver.engine.files()?.into_iter().map(|file| file.fid).collect();
    match offered.as_slice() {
        [fid] => Ok(fid.clone()),
        [] => Err(Failure::usage("no file is offered")),
        _ => Err(Failure::usage("several files are offered: name one, see `cim file list`")),
    }
}

/// Shows how far a file comes until it is there, or will not be.
async fn follow(global: &Global, mut driver: Driver, fid: &str) -> Result<(), Failure> {
    let bar = if global.json { ProgressBar::hidden() } else { ProgressBar::no_length() };
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} chunks, {elapsed}, {eta} left {msg}")
    {
        bar.set_style(style);
    }
    let work = driver.until(|_, happening| match happening {
        Happening::Event(Event::FileProgress { fid: about, done, of, .. }) if about == fid => {
            bar.set_length(*of);
            bar.set_position(*done);
            Ok(None)
        }
        Happening::Event(Event::Notice {
            notice: Notice::FileDone { fid: about, .. }, id, ..
        }) if about == fid => Ok(Some(*id)),
        Happening::Event(Event::Notice {
            notice: Notice::FileFailed { fid: about, code, text, .. },
            ..
        }) if about == fid => Err(Failure::reply(*code, text.clone())),
        Happening::Event(Event::LoginFailed { code, text }) => {
            Err(Failure::reply(*code, format!("login refused: {text}")))
        }
        Happening::Offline { reason, is_trust: true, .. } => Err(Failure::trust(reason.clone())),
        Happening::Offline { reason, .. } => {
            bar.set_message(format!("({reason}; it goes on by itself)"));
            Ok(None)
        }
        Happening::Event(Event::Online { .. }) => {
            bar.set_message("");
            Ok(None)
        }
        _ => Ok(None),
    });
    let id = tokio::select! {
        result = work => result?,
        _ = tokio::signal::ctrl_c() => {
            bar.abandon();
            return Err(Failure::temporary(
                "stopped; the file goes on where it was when you type the command again, or talk",
            ));
        }
    };
    bar.finish_and_clear();
    driver.engine.shown(id, Driver::now())?;
    driver.close().await?;
    if global.json {
        println!("{}", serde_json::json!({ "event": "file-done", "file": fid }));
    } else {
        println!("The file is there, whole, and its signature holds.");
    }
    Ok(())
}

fn list(global: &Global, driver: &Driver) -> Result<(), Failure> {
    let files = driver.engine.files()?;
    for file in &files {
        if global.json {
            println!("{}", serde_json::to_string(file).unwrap_or_default());
        } else {
            println!(
                "{}  from {}  {} ({})",
                file.fid,
                file.contact,
                visible(&file.name),
                size(file.size),
            );
        }
    }
    if files.is_empty() && !global.json {
        println!("No files on their way.");
    }
    Ok(())
}
