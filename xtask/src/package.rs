//! Debian packages that building and trying CipherIM needs.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{run, succeeds};

/// A package and how to see that it is there.
struct Package {
    name: &'static str,
    /// A file that the package brings.
    file: &'static str,
    /// What it is for.
    purpose: &'static str,
}

/// Debian keeps it in a folder named after the machine.
const FAKETIME: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"
} else {
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
};

const PACKAGES: &[Package] = &[
    Package { name: "gcc", file: "/usr/bin/cc", purpose: "links, and builds AWS-LC and SQLite" },
    Package {
        name: "libc6-dev",
        file: "/usr/include/stdlib.h",
        purpose: "headers of the C library",
    },
    Package { name: "libfaketime", file: FAKETIME, purpose: "the wrong clock in tests" },
    Package { name: "openssl", file: "/usr/bin/openssl", purpose: "the foreign peer in tests" },
    Package {
        name: "softhsm2",
        file: "/usr/bin/softhsm2-util",
        purpose: "the PKCS#11 token in software",
    },
];

/// Installs what is missing as root or by sudo; otherwise prints the one command and fails.
pub(crate) fn ensure() -> Result<()> {
    let missing: Vec<&Package> =
        PACKAGES.iter().filter(|package| !std::path::Path::new(package.file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("missing Debian package {}: {}", package.name, package.purpose);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let mut prefix: Vec<&str> = Vec::new();
    if !is_root() {
        if !succeeds(Command::new("sudo").args(["-n", "true"])) {
            bail!(
                "install what is missing, then run this again:\n\n    \
                 sudo apt-get update && sudo apt-get install --yes {}\n",
                names.join(" ")
            );
        }
        prefix.push("sudo");
    }
    apt(&prefix, &["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&names);
    apt(&prefix, &install)
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    let words: Vec<&str> = prefix.iter().chain(&["apt-get"]).chain(arguments).copied().collect();
    let Some((program, rest)) = words.split_first() else { bail!("nothing to run") };
    run(Command::new(program).args(rest).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
