//! `doctor`: looks at everything from configuration to service, says what to type.

use std::path::Path;

use hsm::pin::PinSource;
use hsm::service::config::Config;
use hsm::token::{Depth, Module, Pkcs11, View};
use hsm::{Client, Error, KeyKind, Phase, Purpose};

use super::{Failure, shown};

/// One thing examined.
#[derive(serde::Serialize)]
struct Finding {
    what: &'static str,
    is_well: bool,
    text: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn well(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { what, is_well: true, text: text.into() });
    }

    fn ill(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { what, is_well: false, text: text.into() });
    }

    fn error(&mut self, what: &'static str, error: &Error) {
        self.ill(what, error.to_string());
    }
}

/// Examines and prints.
pub(super) fn run(path: &Path, json: bool) -> Result<(), Failure> {
    let config = Config::read(path)?;
    let mut findings = Findings::default();
    findings.well("configuration", path.display().to_string());
    let pin_is_well = pin(&config.pin(), &mut findings);
    let mut module = Pkcs11::new(config.module(), config.pin());
    if tokens(&mut module, &config, &mut findings) && pin_is_well {
        match module.attach(Depth::Sessions) {
            Ok(attachment) => keys(attachment.view(), &config.domain, &mut findings),
            Err(error @ Error::PinRefused { .. }) => findings.error("PIN", &error),
            Err(error) => findings.error("token", &error),
        }
    }
    module.detach();
    service(&config, &mut findings);
    let ill = findings.0.iter().filter(|finding| !finding.is_well).count();
    if json {
        let text = serde_json::to_string_pretty(&findings.0)
            .map_err(|error| Failure::Found(error.to_string()))?;
        println!("{text}");
    } else {
        for finding in &findings.0 {
            let mark = if finding.is_well { "well" } else { "!!  " };
            println!("{mark}  {:<14} {}", finding.what, shown(&finding.text));
        }
    }
    match ill {
        0 => Ok(()),
        1 => Err(Failure::Found("one thing is wrong".to_owned())),
        count => Err(Failure::Found(format!("{count} things are wrong"))),
    }
}

fn pin(source: &PinSource, findings: &mut Findings) -> bool {
    match source.read() {
        Ok(_) => {
            findings.well("PIN file", source.path().display().to_string());
            true
        }
        Err(error) => {
            findings.error("PIN file", &error);
            false
        }
    }
}

fn tokens(module: &mut Pkcs11, config: &Config, findings: &mut Findings) -> bool {
    let tokens = match module.tokens() {
        Ok(tokens) => tokens,
        Err(error) => {
            findings.error("module", &error);
            return false;
        }
    };
    findings.well("module", config.module.display().to_string());
    let wanted = &config.token.label;
    let of_label = tokens.iter().filter(|seen| seen.is_initialised && seen.token.label == *wanted);
    match of_label.count() {
        1 => {
            findings.well("token", format!("{wanted:?}"));
            true
        }
        0 => {
            let blank = tokens.iter().any(|seen| !seen.is_initialised);
            let labels: Vec<_> = tokens
                .iter()
                .filter(|seen| seen.is_initialised)
                .map(|seen| format!("{:?}", seen.token.label))
                .collect();
            let present = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
            let remedy = if blank {
                "a blank token is present; type: cipherim-hsmd init-token --so-pin-file FILE"
            } else {
                "plug it in, or correct token.label"
            };
            findings.ill(
                "token",
                format!("no token is labelled {wanted:?} (present: {present}); {remedy}"),
            );
            false
        }
        count if config.token.serial.is_some() => {
            findings
                .well("token", format!("{count} are labelled {wanted:?}, token.serial decides"));
            true
        }
        count => {
            let text = format!("{count} tokens are labelled {wanted:?}; set token.serial");
            findings.ill("token", text);
            false
        }
    }
}

fn keys(view: &View, domain: &str, findings: &mut Findings) {
    for purpose in Purpose::ALL {
        let Some(key) = view.find(purpose.into()) else {
            let error =
                Error::KeyMissing { key: purpose.name().into(), domain: domain.to_owned().into() };
            findings.error("key", &error);
            continue;
        };
        let proof = match purpose.kind() {
            KeyKind::P256 => format!("sign {} p256", key.key),
            _ => "wrap ".to_owned(),
        };
        match view.proven.iter().find(|proven| proven.starts_with(&proof)) {
            Some(proven) => {
                findings.well("key", format!("cipherim/{domain}/{}: {proven}", key.key))
            }
            None => findings.ill(
                "key",
                format!(
                    "cipherim/{domain}/{} is there but failed its self-test; make a new version, \
                     or use another token",
                    key.key
                ),
            ),
        }
    }
    let verifies: Vec<_> =
        view.proven.iter().filter_map(|proven| proven.strip_prefix("verify ")).collect();
    findings.well("verification", verifies.join(", "));
    for warning in &view.warnings {
        findings.ill("key", warning.clone());
    }
}

fn service(config: &Config, findings: &mut Findings) {
    let state = Client::connect(&config.service.socket)
        .map_err(|error| error.to_string())
        .and_then(|client| client.ping().map_err(|error| error.to_string()));
    match state {
        Ok(state) if state.phase == Phase::Ready => {
            findings.well("service", config.service.socket.display().to_string());
        }
        Ok(state) => findings.ill("service", format!("{}: {}", state.phase, state.reason)),
        Err(reason) => findings.ill(
            "service",
            format!("{reason}; type: cipherim-hsmd serve --config FILE, or systemctl start"),
        ),
    }
}
