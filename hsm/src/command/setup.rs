//! `init-token`, `provision`, `list`: a token's first day.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use hsm::pin::PinSource;
use hsm::service::config::Config;
use hsm::token::{Depth, Module, Pkcs11, Settings, init_token as initialise};
use hsm::{KeyName, PublicKey, Purpose};
use zeroize::Zeroizing;

use super::{CONFIG, Failure, shown};

/// Digits of a PIN made here: 53 bits, and every token takes 16 digits.
const PIN_DIGITS: usize = 16;

#[derive(Debug, Args)]
pub(super) struct InitToken {
    /// The configuration: gives module, label and PIN file.
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The vendor's library, instead of the configuration's.
    #[arg(long)]
    module: Option<PathBuf>,
    /// The token's label, instead of the configuration's.
    #[arg(long)]
    label: Option<String>,
    /// A file of mode 0400 or 0600 with the security officer's PIN. Keep it away from this machine.
    #[arg(long)]
    so_pin_file: PathBuf,
    /// A file of mode 0400 or 0600 with the PIN, instead of the configuration's.
    #[arg(long)]
    pin_file: Option<PathBuf>,
    /// Make PIN files that do not exist, with random PINs.
    #[arg(long)]
    make_pins: bool,
}

#[derive(Debug, Args)]
pub(super) struct Provision {
    /// The configuration.
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The domain, if it is not the configuration's.
    #[arg(long)]
    domain: Option<String>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// Sets up a blank token.
pub(super) fn init_token(arguments: &InitToken) -> Result<(), Failure> {
    let is_complete =
        arguments.module.is_some() && arguments.label.is_some() && arguments.pin_file.is_some();
    let config = if is_complete { None } else { Some(Config::read(&arguments.config)?) };
    let (module, label, pin_file) = match config {
        Some(config) => (
            arguments.module.clone().unwrap_or_else(|| config.module.clone()),
            arguments.label.clone().unwrap_or_else(|| config.token.label.clone()),
            arguments.pin_file.clone().unwrap_or_else(|| config.pin().path().to_owned()),
        ),
        None => (
            arguments.module.clone().unwrap_or_default(),
            arguments.label.clone().unwrap_or_default(),
            arguments.pin_file.clone().unwrap_or_default(),
        ),
    };
    if label.is_empty() || label.len() > 32 {
        return Err(Failure::Files("a label has 1 to 32 octets".to_owned()));
    }
    if arguments.make_pins {
        for file in [&arguments.so_pin_file, &pin_file] {
            make_pin(file)?;
        }
    }
    let (so_pin, _) = PinSource::file(&arguments.so_pin_file).read()?;
    let (pin, _) = PinSource::file(&pin_file).read()?;
    let settings = Settings {
        path: module,
        label: label.clone(),
        serial: None,
        also_known_as: Vec::new(),
        domain: String::new(),
        check_every: 1,
    };
    let mut module = Pkcs11::new(settings, PinSource::file(&pin_file));
    let token = initialise(&mut module, &label, &so_pin, &pin)?;
    module.detach();
    println!("token {:?}, serial {}, slot {}", shown(&label), shown(&token.serial), token.slot);
    println!("next: cipherim-hsmd provision --config {}", arguments.config.display());
    Ok(())
}

/// Writes a random PIN, unless the file exists.
fn make_pin(path: &Path) -> Result<(), Failure> {
    let failure = |error: std::io::Error| Failure::Files(format!("{}: {error}", path.display()));
    let mut pin = Zeroizing::new(String::with_capacity(PIN_DIGITS + 1));
    while pin.len() < PIN_DIGITS {
        let mut octet = [0_u8];
        rustix::rand::getrandom(&mut octet, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failure(error.into()))?;
        // 250 is the largest multiple of 10: every digit is as likely.
        if octet[0] < 250 {
            pin.push(char::from(b'0' + octet[0] % 10));
        }
    }
    pin.push('\n');
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(path);
    match file {
        Ok(mut file) => file.write_all(pin.as_bytes()).map_err(failure),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failure(error)),
    }
}

/// Makes the keys that are missing.
pub(super) fn provision(arguments: &Provision) -> Result<(), Failure> {
    let mut config = Config::read(&arguments.config)?;
    if let Some(domain) = &arguments.domain
        && *domain != config.domain
    {
        config = with_domain(&arguments.config, config, domain)?;
    }
    let mut module = Pkcs11::new(config.module(), config.pin());
    let mut rows = Vec::new();
    let before = module.attach(Depth::Sessions)?.view().clone();
    for purpose in Purpose::ALL {
        let (key, is_new) = match before.find(purpose.into()) {
            Some(key) => (key.clone(), false),
            None => (module.generate(KeyName::exact(purpose, 1))?, true),
        };
        rows.push((key, is_new));
    }
    // Once more with the new keys: the self-test uses them.
    let view = module.attach(Depth::Sessions)?.view().clone();
    module.detach();
    if arguments.json {
        let keys: Vec<_> = rows.iter().map(|(key, is_new)| row(key, *is_new)).collect();
        print_json(&serde_json::json!({
            "domain": config.domain, "token": view.token, "keys": keys, "proven": view.proven,
        }));
        return Ok(());
    }
    for (key, is_new) in &rows {
        let word = if *is_new { "made" } else { "kept" };
        println!("{word}  cipherim/{}/{}  {}", config.domain, key.key, key.kind);
    }
    println!("the token proved: {}", view.proven.join(", "));
    if rows.iter().any(|(_, is_new)| *is_new) {
        println!("a running cipherim-hsmd sees new keys after SIGHUP");
    }
    Ok(())
}

/// The configuration for another domain: the same rules hold for its name.
fn with_domain(path: &Path, mut config: Config, domain: &str) -> Result<Config, Failure> {
    config.domain = domain.to_owned();
    let probe = format!(
        "module = \"x\"\ndomain = {domain:?}\n[token]\nlabel = \"x\"\n[service]\nsocket = \"x\"\n"
    );
    Config::parse("--domain", &probe)?;
    eprintln!("note: {} serves another domain than {}", path.display(), shown(domain));
    Ok(config)
}

fn row(key: &PublicKey, is_new: bool) -> serde_json::Value {
    serde_json::json!({ "key": key.key.to_string(), "kind": key.kind, "new": is_new,
        "point": key.point.iter().map(|octet| format!("{octet:02x}")).collect::<String>() })
}

/// Shows tokens and keys.
pub(super) fn list(path: &Path, json: bool) -> Result<(), Failure> {
    let config = Config::read(path)?;
    let mut module = Pkcs11::new(config.module(), config.pin());
    let tokens = module.tokens()?;
    let attached = module.attach(Depth::Sessions);
    module.detach();
    if json {
        let (keys, error) = match &attached {
            Ok(attachment) => (attachment.view().keys.clone(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        print_json(&serde_json::json!({ "tokens": tokens, "keys": keys, "error": error }));
    } else {
        for seen in &tokens {
            let token = &seen.token;
            let label = match seen.is_initialised {
                true => format!("{:?}", shown(&token.label)),
                false => "(blank)".to_owned(),
            };
            let (serial, model) = (shown(&token.serial), shown(&token.model));
            println!("slot {}  token {label}  serial {serial}  {model}", token.slot);
        }
        for key in attached.iter().flat_map(|attachment| &attachment.view().keys) {
            println!("key  cipherim/{}/{}  {}", config.domain, key.key, key.kind);
        }
    }
    attached.map(|_| ()).map_err(Failure::from)
}

fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}
