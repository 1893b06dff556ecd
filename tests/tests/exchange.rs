//! The exchange of `cargo xtask dev --once`, as a test: real processes, a real PKCS#11 token, a
//! wire that is captured and cut. Fails, never skips, where SoftHSM2 is missing.
#![allow(clippy::unwrap_used, missing_docs)]

use system::exchange::{Exchange, Narrator};

#[test]
fn every_promise_of_the_exchange_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut exchange = Exchange::prepare(folder.path(), Narrator::brief()).unwrap();
    exchange.run().unwrap();
}
