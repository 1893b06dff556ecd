//! `cim init`: keys, password, recovery phrase, and the account at the relay.
//!
//! Overwrites nothing. Key file and recovery phrase are written before anything is sent; if the
//! relay refuses, the home is as empty as before, so that the same command can be tried again.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::engine::Event;
use client::keyfile::{self, Cost, Secrets, SigningSecret};
use client::link::Link;
use client::password;
use client::phrase::Phrase;
use client::random::{self, System};
use protocol::identifier::RecoveryHash;
use protocol::record::recovery_hash as hash_of_key;
use protocol::signature::Signer as _;
use protocol::{Address, AddressBuf};
use serde_json::json;
use zeroize::Zeroizing;

use crate::arguments::{Global, Init};
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::{self, Home};
use crate::stop::unless_stopped;
use crate::{output, person, terminal};

/// The lowest score of a password where the domain says nothing.
const PASSWORD_FLOOR: u8 = 3;
/// How long enrolling may take.
const ENROL_DEADLINE: Duration = Duration::from_secs(60);
/// Octets of the recovery phrase with what is said around it.
const PHRASE_TEXT_OCTETS: usize = 1_024;
/// The first device of an account.
const DEVICE: &str = "d1";

/// Enrols.
pub(crate) async fn run(global: &Global, init: Init) -> Result<(), Failure> {
    let link = Link::parse(&init.link).map_err(|error| Failure::usage(error.to_string()))?;
    if link.invitation.is_none() {
        return Err(Failure::usage("the link has no invitation: ask the administrator for one"));
    }
    // Until the account is asked for, nothing needs to be finished.
    let (account, home, password) = unless_stopped(prepare(global, &link, &init)).await?;
    let phrase = Phrase::generate(&mut System::new()).map_err(no_random)?;
    let secrets = new_secrets(&account, &link)?;
    keyfile::create(&home.key_file(), &secrets, &password, Cost::RECOMMENDED, &mut System::new())?;
    let files = [Some(home.key_file()), Some(home.state_file()), init.recovery_file.clone()];
    let recovery = recovery_hash(&phrase, account.as_address())?;
    if let Err(failure) = hand_over_phrase(&phrase, init.recovery_file.as_deref()) {
        // Without the phrase the account must not be opened. What the file held is not ours.
        discard(&files[..2]);
        return Err(failure);
    }
    let enrolled = unless_stopped(enrol(global, home, &secrets, &link, recovery)).await;
    let driver = enrolled.map_err(|failure| give_up(failure, &files))?;
    driver.close().await?;
    match global.json {
        true => output::line(json!({ "event": "enrolled", "account": account.as_str() })),
        false => output::line(format_args!("You are {account}. Talk with `cim chat PERSON`.")),
    }
}

/// Everything that is asked, before anything is written.
async fn prepare(
    global: &Global,
    link: &Link,
    init: &Init,
) -> Result<(AddressBuf, Home, Zeroizing<String>), Failure> {
    let account = account(link, init.address.as_deref()).await?;
    let home = Home::open(global, true)?;
    if home.key_file().exists() {
        return Err(Failure::usage(format!(
            "there are keys in {} already; they are not overwritten. Choose another --home, or \
             move them away",
            home.folder().display()
        )));
    }
    let password = new_password(global, &account).await?;
    Ok((account, home, password))
}

/// After a refusal the files go away again. Otherwise the relay may have opened the account: the
/// keys stay, and the next command that reaches the relay goes on with the enrolment.
fn give_up(failure: Failure, files: &[Option<PathBuf>]) -> Failure {
    if failure.code().is_some_and(|code| code >= 500) {
        discard(files);
        return failure;
    }
    Failure::temporary(format!(
        "{}\nYour keys are kept: `cim doctor` goes on with the enrolment when the relay is there",
        failure.text()
    ))
}

fn discard(files: &[Option<PathBuf>]) {
    for path in files.iter().flatten() {
        // A file that is not there needs no removing; others stay for a person to see.
        let _ = std::fs::remove_file(path);
    }
}

async fn account(link: &Link, address: Option<&str>) -> Result<AddressBuf, Failure> {
    let domain = link.domain.as_str();
    let text = match address {
        Some(text) => text.to_owned(),
        None => terminal::ask(&format!("Your address, such as alice@{domain}: ")).await?,
    };
    let account = person::account(&text, link.domain.as_address())?;
    if account.as_address().domain() != domain {
        return Err(Failure::usage(format!("the invitation is for somebody at {domain}")));
    }
    Ok(account)
}

async fn new_password(global: &Global, account: &AddressBuf) -> Result<Zeroizing<String>, Failure> {
    let address = account.as_address();
    let known = [address.local().unwrap_or_default(), address.domain(), "cipherim", "cim"];
    if global.password_file.is_none() {
        let known = known.map(str::to_owned).to_vec();
        return terminal::choose_password(PASSWORD_FLOOR, known).await;
    }
    let password = home::password(global, "").await?;
    let assessment = password::assess(&password, &known);
    if assessment.meets(PASSWORD_FLOOR) {
        Ok(password)
    } else {
        Err(Failure::usage(terminal::explain(&assessment, PASSWORD_FLOOR)))
    }
}

fn new_secrets(account: &AddressBuf, link: &Link) -> Result<Secrets, Failure> {
    let random = &mut System::new();
    Ok(Secrets {
        account: account.clone(),
        device_name: DEVICE.to_owned(),
        identity: Some(SigningSecret::generate_ed25519(random).map_err(no_random)?),
        device: SigningSecret::generate_ed25519(random).map_err(no_random)?,
        state: random::secret(random).map_err(no_random)?,
        domain: link.to_pin(),
    })
}

fn recovery_hash(phrase: &Phrase, account: Address<'_>) -> Result<RecoveryHash, Failure> {
    let signer = phrase
        .signer(account)
        .map_err(|error| Failure::internal(format!("the recovery key: {error}")))?;
    Ok(hash_of_key(signer.public_key()))
}

/// Opens the account at the relay and waits until it is open and prekeys can be taken.
async fn enrol(
    global: &Global,
    home: Home,
    secrets: &Secrets,
    link: &Link,
    recovery: RecoveryHash,
) -> Result<Driver, Failure> {
    let mut driver = home.driver_with(global, secrets)?;
    let invitation = link.invitation.as_deref().unwrap_or_default();
    driver.engine.register(invitation, Some(recovery), Driver::now())?;
    let work = async {
        loop {
            for happening in driver.act()? {
                match happening {
                    Happening::Event(Event::LoginFailed { code, text }) => {
                        return Err(Failure::reply(code, format!("the relay refused: {text}")));
                    }
                    Happening::Offline { reason, is_trust: true, .. } => {
                        return Err(Failure::trust(reason));
                    }
                    Happening::Offline { reason, .. } => {
                        output::remark(format_args!("{reason}; trying again"));
                    }
                    Happening::Event(_) | Happening::Offered { .. } => {}
                }
            }
            if driver.engine.is_online() && driver.engine.is_settled()? {
                return Ok(());
            }
            driver.wait().await?;
        }
    };
    match tokio::time::timeout(ENROL_DEADLINE, work).await {
        Ok(result) => result?,
        Err(_) => return Err(Failure::temporary("the relay did not finish the enrolment in time")),
    }
    Ok(driver)
}

fn hand_over_phrase(phrase: &Phrase, path: Option<&Path>) -> Result<(), Failure> {
    let words =
        phrase.words().map_err(|_| Failure::internal("the recovery phrase has no words"))?;
    let Some(path) = path else {
        // Room for all from the start, so that growing leaves no copies behind.
        let mut text = Zeroizing::new(String::with_capacity(PHRASE_TEXT_OCTETS));
        text.push_str("\nYour recovery phrase. Write it on paper; it is shown only now:\n\n");
        for line in words.split(' ').collect::<Vec<_>>().chunks(6) {
            text.push_str("   ");
            line.iter().for_each(|word| text.extend([" ", word]));
            text.push('\n');
        }
        text.push_str(
            "\nWith it, and only with it, you can revoke your keys if this device is lost.\n\n",
        );
        return output::raw(&text);
    };
    let mut file =
        std::fs::File::options().create_new(true).write(true).mode(0o600).open(path).map_err(
            |error| {
                Failure::usage(format!("cannot write the phrase to {}: {error}", path.display()))
            },
        )?;
    writeln!(file, "{}", words.as_str()).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a phrase is of no use to anybody.
        let _ = std::fs::remove_file(path);
        Failure::temporary(format!("cannot write the phrase to {}: {error}", path.display()))
    })
}

fn no_random(_: random::NoRandom) -> Failure {
    Failure::temporary("the system gives no random octets")
}
