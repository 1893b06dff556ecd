//! `cipherim-relay provision`: certificate, domain record and policy, with keys in the token.
//!
//! Does nothing that is done already, so an interrupted run is simply run again.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use relay::clock::Clock;
use relay::config::Configuration;
use relay::directory::provision;
use relay::keys::KeyService;
use relay::serve::{
    announcement, open_keys, open_store, read_chain, self_signed, start_log, wanted_policy,
};
use serde_json::json;

/// Makes what is missing and says what there is.
pub(super) fn run(configuration: &Configuration, is_json: bool) -> Result<()> {
    start_log(&configuration.log);
    let (_client, keys) = open_keys(configuration)?;
    let certificate = &configuration.tls.certificate;
    let has_made_certificate = !certificate.exists();
    if has_made_certificate {
        make_certificate(certificate, &configuration.domain, Arc::clone(&keys))?;
    }
    let chain = read_chain(certificate)?;
    let announcement = announcement(configuration, &*keys, &chain)?;
    let now = Clock::start().now().timestamp;
    let wanted = wanted_policy(configuration, &announcement, now).map_err(anyhow::Error::msg)?;
    let mut store = open_store(configuration, Arc::clone(&keys), Box::new(|| ()))?;
    let mut pause = || std::thread::sleep(std::time::Duration::from_millis(2));
    let done = provision(&mut store, &*keys, &wanted, now, &mut pause)?;
    if is_json {
        println!(
            "{}",
            json!({
                "domain": configuration.domain,
                "record_version": done.record_version,
                "policy_version": done.policy_version,
                "changed": done.has_changed || has_made_certificate,
                "domain_key": protocol::base64::encode(&announcement.domain_key),
                "tls_key": protocol::base64::encode(&announcement.tls_key),
            })
        );
        return Ok(());
    }
    let verb = if done.has_changed || has_made_certificate { "is" } else { "was already" };
    println!("{} {verb} provisioned.", configuration.domain);
    println!("  record version {}, policy version {}", done.record_version, done.policy_version);
    println!("  SHA-256 of the domain key: {}", protocol::base64::encode(&announcement.domain_key));
    println!("  SHA-256 of the TLS key:    {}", protocol::base64::encode(&announcement.tls_key));
    println!(
        "Next: `cipherim-relay serve`, then `cipherim-relay ctl invite NAME@{}`.",
        configuration.domain
    );
    Ok(())
}

/// Writes the certificate beside its place and moves it there in one step.
fn make_certificate(path: &Path, domain: &str, keys: Arc<dyn KeyService>) -> Result<()> {
    let pem = self_signed(domain, keys)?;
    let beside = path.with_extension("new");
    let failed = || format!("cannot write {}", path.display());
    let mut file = std::fs::File::create(&beside).with_context(failed)?;
    file.write_all(pem.as_bytes()).with_context(failed)?;
    file.sync_all().with_context(failed)?;
    std::fs::rename(&beside, path).with_context(failed)
}
