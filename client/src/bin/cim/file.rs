//! `cim file …`: files with a progress bar, resumed where they broke off.
//!
//! Sending ends well when the other side has the file, or when the relay has all of it and keeps
//! it for somebody who is away.

use std::path::{Path, PathBuf};

use client::engine::{Engine, Event, FileOffered, FileSent, FileStage, Notice, NoticeId};
use indicatif::{ProgressBar, ProgressStyle};
use protocol::AddressBuf;
use serde_json::json;

use crate::arguments::{File, Global};
use crate::contact::online;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::output;
use crate::stop::{Stop, unless_stopped};
use crate::text::{one_line, size, visible};

/// Characters of a file's name.
const NAME_CHARACTERS_MAX: usize = 120;
/// How long a file may make no progress before the person is told for whom it waits.
const QUIET: std::time::Duration = std::time::Duration::from_secs(3);
/// Names tried for a file whose name is taken.
const NAMES_TRIED_MAX: usize = 100;

/// Does what is asked about files.
pub(crate) async fn run(global: &Global, file: File) -> Result<(), Failure> {
    let home = Home::open(global, false)?;
    match file {
        File::Send { person, path } => {
            let person = home.other(&person)?;
            let mut driver = unless_stopped(connect(global, home)).await?;
            driver.offer_file(0, person.clone(), path);
            let fid = unless_stopped(driver.until(|_, happening| match happening {
                Happening::Offered { result: Ok(fid), .. } => Ok(Some(fid.clone())),
                Happening::Offered { result: Err(failure), .. } => Err(failure.clone()),
                _ => Ok(None),
            }))
            .await?;
            follow(global, driver, &fid, &person).await
        }
        File::Accept { file, into } => {
            let mut driver = unless_stopped(connect(global, home)).await?;
            let offer = offer(&driver.engine, file.as_deref())?;
            accept(&mut driver, &offer, &into)?;
            follow(global, driver, &offer.fid, &offer.contact).await
        }
        File::List => unless_stopped(list(global, home)).await,
        File::Cancel { file } => unless_stopped(cancel(global, home, &file)).await,
    }
}

async fn connect(global: &Global, home: Home) -> Result<Driver, Failure> {
    let mut driver = home.driver(global).await?;
    online(&mut driver).await?;
    Ok(driver)
}

async fn cancel(global: &Global, home: Home, fid: &str) -> Result<(), Failure> {
    let mut driver = connect(global, home).await?;
    driver.engine.file_cancel(fid, Driver::now())?;
    driver.close().await?;
    match global.json {
        true => output::line(json!({ "event": "done", "what": "cancel", "file": fid })),
        false => output::line("The file is cancelled; the other side is told."),
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
        .map(|c| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c })
        .take(NAME_CHARACTERS_MAX)
        .collect();
    let name = visible(&name).replace('\u{FFFD}', "_").trim_start_matches('.').trim().to_owned();
    if name.is_empty() { "file".to_owned() } else { name }
}

fn accept(driver: &mut Driver, offer: &FileOffered, into: &Path) -> Result<(), Failure> {
    let path = target(&driver.engine, &offer.fid, into)?;
    driver.engine.file_accept(&offer.fid, &path, Driver::now())?;
    output::remark(format_args!(
        "{} ({}) from {} will be {}",
        one_line(&offer.name),
        size(offer.size),
        offer.contact,
        path.display()
    ));
    Ok(())
}

/// The offer of this id, or the only one.
fn offer(engine: &Engine, fid: Option<&str>) -> Result<FileOffered, Failure> {
    let mut offered = engine.files()?;
    if let Some(fid) = fid {
        return offered
            .into_iter()
            .find(|file| file.fid == fid)
            .ok_or_else(|| Failure::usage(format!("no file {fid:?} is offered")));
    }
    match (offered.pop(), offered.is_empty()) {
        (Some(file), true) => Ok(file),
        (None, _) => Err(Failure::usage("no file is offered")),
        _ => Err(Failure::usage("several files are offered: name one, see `cim file list`")),
    }
}

/// Shows how far a file comes until it is there, or will not be.
async fn follow(
    global: &Global,
    mut driver: Driver,
    fid: &str,
    person: &AddressBuf,
) -> Result<(), Failure> {
    let bar = if global.json { ProgressBar::hidden() } else { ProgressBar::no_length() };
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} chunks, {elapsed}, {eta} left {msg}")
    {
        bar.set_style(style);
    }
    let result = arrival(&mut driver, &bar, fid, person).await;
    bar.finish_and_clear();
    let (id, event, text) = match result {
        Ok(Arrival::Done(id)) => (id, "file-done", DONE),
        Ok(Arrival::Kept(id)) => (id, "file-kept", KEPT),
        Ok(Arrival::Failed(id, mut failure)) => {
            failure.print(global.json);
            driver.engine.shown(id, Driver::now())?;
            driver.close().await?;
            return Err(failure);
        }
        Err(failure) => {
            driver.close().await?;
            return Err(failure);
        }
    };
    match global.json {
        true => output::line(json!({ "event": event, "file": fid }))?,
        false => output::line(text)?,
    }
    driver.engine.shown(id, Driver::now())?;
    driver.close().await
}

const DONE: &str = "The file is there, whole, and its signature holds.";
const KEPT: &str = "They are away: the relay keeps the file, whole and signed, and gives it to them \
                    when they come.";

/// How it ended, with the notice that says so.
enum Arrival {
    /// It is with the other side, or here.
    Done(NoticeId),
    /// The relay keeps it for who is away.
    Kept(NoticeId),
    Failed(NoticeId, Failure),
}

async fn arrival(
    driver: &mut Driver,
    bar: &ProgressBar,
    fid: &str,
    person: &AddressBuf,
) -> Result<Arrival, Failure> {
    let mut stop = Stop::listen()?;
    let mut has_begun = false;
    let mut patience = std::pin::pin!(tokio::time::sleep(QUIET));
    let mut is_quiet_told = false;
    loop {
        for happening in driver.act()? {
            has_begun |= matches!(happening, Happening::Event(Event::FileProgress { .. }));
            if let Some(arrival) = follow_one(&happening, bar, fid)? {
                return Ok(arrival);
            }
        }
        tokio::select! {
            result = driver.wait() => result?,
            () = &mut patience, if !is_quiet_told => {
                is_quiet_told = true;
                if !has_begun {
                    bar.suspend(|| output::remark(format_args!(
                        "waiting for {person}, who may be away. Ctrl-C is safe: the file goes on \
                         whenever you are both connected"
                    )));
                }
            }
            () = stop.asked() => return Err(Failure::stopped(
                "stopped; the file goes on where it was whenever you are both connected",
            )),
        }
    }
}

fn follow_one(
    happening: &Happening,
    bar: &ProgressBar,
    fid: &str,
) -> Result<Option<Arrival>, Failure> {
    match happening {
        Happening::Event(Event::FileProgress { fid: about, done, of, is_kept, .. })
            if about == fid =>
        {
            bar.set_length(*of);
            bar.set_position(*done);
            bar.set_message(if *is_kept { "kept by the relay" } else { "" });
        }
        Happening::Event(Event::FileWaits { fid: about, contact, text }) if about == fid => {
            // A bar is drawn on terminals only; this is worth knowing everywhere.
            bar.suspend(|| {
                output::remark(format_args!(
                    "it goes when {contact} takes it ({}): stay here",
                    one_line(text)
                ));
            });
        }
        Happening::Event(Event::PutOff { contact, text, .. }) => bar.suspend(|| {
            output::remark(format_args!(
                "a line to {contact} waits ({}); it goes by itself",
                one_line(text)
            ));
        }),
        Happening::Event(Event::Notice {
            notice: Notice::FileKept { fid: about, .. }, id, ..
        }) if about == fid => {
            return Ok(Some(Arrival::Kept(*id)));
        }
        Happening::Event(Event::Notice {
            notice: Notice::FileDone { fid: about, .. }, id, ..
        }) if about == fid => return Ok(Some(Arrival::Done(*id))),
        Happening::Event(Event::Notice {
            notice: Notice::FileFailed { fid: about, code, text, .. },
            id,
            ..
        }) if about == fid => {
            return Ok(Some(Arrival::Failed(*id, Failure::reply(*code, text.clone()))));
        }
        Happening::Event(Event::LoginFailed { code, text }) => {
            return Err(Failure::reply(*code, format!("login refused: {text}")));
        }
        Happening::Offline { reason, is_trust: true, .. } => {
            return Err(Failure::trust(reason.clone()));
        }
        Happening::Offline { reason, .. } => {
            bar.set_message(format!("({}; it goes on by itself)", one_line(reason)));
        }
        Happening::Event(Event::Online { .. }) => bar.set_message(""),
        _ => {}
    }
    Ok(None)
}

async fn list(global: &Global, home: Home) -> Result<(), Failure> {
    let driver = connect(global, home).await?;
    let (offered, sent) = (driver.engine.files()?, driver.engine.files_sent()?);
    driver.close().await?;
    if offered.is_empty() && sent.is_empty() && !global.json {
        return output::line("No files on their way.");
    }
    for file in &sent {
        let line = format!(
            "{}  to {}  {} ({}), {}",
            file.fid,
            file.contact,
            one_line(&file.name),
            size(file.size),
            standing(file),
        );
        if global.json { output::line(json!(file))? } else { output::line(line)? }
    }
    for file in &offered {
        let line = format!(
            "{}  from {}  {} ({})",
            file.fid,
            file.contact,
            one_line(&file.name),
            size(file.size),
        );
        if global.json { output::line(json!(file))? } else { output::line(line)? }
    }
    Ok(())
}

/// How far a file came, in words.
fn standing(file: &FileSent) -> String {
    match file.stage {
        FileStage::Going => format!("{} of {} chunks", file.done, file.of),
        FileStage::Kept => "kept by the relay".to_owned(),
        FileStage::Offered => "waits until it is taken".to_owned(),
    }
}
