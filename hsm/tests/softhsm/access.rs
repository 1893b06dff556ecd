//! Who may connect, and what the process keeps to itself. Needs root to become somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;

use hsm::Purpose;

use crate::rig::{self, Rig};

/// `nobody` on Debian.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can become another user");
    }
    is_root
}

/// `status`, asked by nobody.
fn asked_by_nobody(rig: &Rig) -> (bool, String) {
    let output = rig.command(&["status"]).uid(NOBODY).gid(NOBODY).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn only_those_named_get_in() {
    let Some(module) = rig::module() else { return };
    if !is_root() {
        return;
    }
    let rig = Rig::new(&module);
    fs::set_permissions(rig.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(rig.at("hsmd.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let service = rig.serve();
    let mode = fs::metadata(rig.at("s")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let (is_well, said) = asked_by_nobody(&rig);
    assert!(!is_well && said.contains("service.socket_mode"), "{said}");
    drop(service);

    // The socket lets the group in, the list of users does not.
    let rig = rig.with_settings("socket_mode = \"0660\"\nsocket_group = \"65534\"");
    let service = rig.serve();
    let (is_well, said) = asked_by_nobody(&rig);
    assert!(!is_well, "{said}");
    service.wait_for("not allowed", 1);
    drop(service);

    let rig = rig.with_settings("allow_users = [\"65534\"]");
    let _service = rig.serve();
    let (is_well, said) = asked_by_nobody(&rig);
    assert!(is_well, "{said}");
}

#[test]
fn root_becomes_the_user_named_and_nobody_reads_its_memory() {
    let Some(module) = rig::module() else { return };
    if !is_root() {
        return;
    }
    let mut rig = Rig::new(&module);
    rig.process = format!("user = \"{NOBODY}\"\ngroup = \"{NOBODY}\"");
    rig.write_config();
    let mut open = vec![rig.dir.path().to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let service = rig.serve();
    rig.client().sign(Purpose::Domain, b"text").unwrap();
    let process = format!("/proc/{}", service.child.id());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(line("Uid:"), "Uid:\t65534\t65534\t65534\t65534");
    assert_eq!(line("Gid:"), "Gid:\t65534\t65534\t65534\t65534");
    assert_eq!(line("Groups:").trim(), "Groups:\t65534");
    assert_eq!(line("CapEff:"), "CapEff:\t0000000000000000");
    let mut seen = 0;
    for thread in fs::read_dir(format!("{process}/task")).unwrap() {
        // A thread may end between being listed and being read.
        let Ok(status) = fs::read_to_string(thread.unwrap().path().join("status")) else {
            continue;
        };
        seen += 1;
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    }
    assert!(seen > 1, "only {seen} threads could be read");
    assert_eq!(line("NoNewPrivs:"), "NoNewPrivs:\t1");
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // A process that may not be dumped belongs to root in /proc, whatever its user.
    assert_eq!(fs::metadata(format!("{process}/mem")).unwrap().uid(), 0);
    let is_locked = line("VmLck:").split_whitespace().nth(1) != Some("0");
    assert!(
        is_locked || service.log().contains("LimitMEMLOCK=infinity"),
        "neither locked nor said"
    );
    let environment = fs::read(format!("{process}/environ")).unwrap();
    let pin = fs::read_to_string(rig.at("pin")).unwrap();
    let is_there = environment.windows(pin.trim().len()).any(|part| part == pin.trim().as_bytes());
    assert!(!is_there, "the PIN is in the environment");
}
