//! The commands: what they do, what they refuse, and whether they say what to type.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::rig::{self, Rig};

#[test]
fn a_token_is_set_up_once_and_never_destroyed() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::blank(&module);
    let so_pin = rig.at("so-pin");
    let (code, said) = rig.fail(&["init-token", "--so-pin-file", &so_pin]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("so-pin"), "{said}");
    let said = rig.succeed(&["init-token", "--so-pin-file", &so_pin, "--make-pins"]);
    assert!(said.contains("cipherim-hsmd provision"), "{said}");
    for file in ["pin", "so-pin"] {
        let mode = fs::metadata(rig.at(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o400);
        assert_eq!(fs::read_to_string(rig.at(file)).unwrap().trim().len(), 16);
    }
    let (code, said) = rig.fail(&["init-token", "--so-pin-file", &so_pin]);
    assert_eq!(code, 1);
    assert!(said.contains("would destroy its keys"), "{said}");

    let first = rig.succeed(&["provision", "--json"]);
    let second = rig.succeed(&["provision", "--json"]);
    let keys = |text: &str| -> Vec<(String, bool)> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let keys = value["keys"].as_array().unwrap().clone();
        keys.iter()
            .map(|key| (key["point"].as_str().unwrap().into(), key["new"].as_bool().unwrap()))
            .collect()
    };
    let (first, second) = (keys(&first), keys(&second));
    assert_eq!(first.len(), 4);
    for (one, two) in first.iter().zip(&second) {
        assert_eq!(one.0, two.0, "the same key");
        assert!(one.1 && !two.1);
    }
    let said = rig.succeed(&["list"]);
    for word in ["\"rig\"", "cipherim/a.example/domain/1", "cipherim/a.example/spool/1"] {
        assert!(said.contains(word), "{said}");
    }
    let said = rig.succeed(&["provision", "--domain", "b.example"]);
    assert!(said.contains("made  cipherim/b.example/tls/1"), "{said}");
    rig.fail(&["provision", "--domain", "B example"]);
}

#[test]
fn the_keys_can_neither_be_read_nor_wrapped_out() {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::object::{Attribute, AttributeType, ObjectClass};
    use cryptoki::session::UserType;

    // SoftHSM2 reads its configuration from the environment, so this runs in a child.
    if let Ok(dir) = std::env::var("RIG_DIR") {
        let pin = fs::read_to_string(format!("{dir}/pin")).unwrap();
        let context = Pkcs11::new(std::env::var("RIG_MODULE").unwrap()).unwrap();
        context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let slot = context.get_slots_with_initialized_token().unwrap()[0];
        let session = context.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&pin.trim().to_owned().into())).unwrap();
        let mut seen = 0;
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY] {
            for key in session.find_objects(&[Attribute::Class(class)]).unwrap() {
                seen += 1;
                let attributes = session
                    .get_attributes(
                        key,
                        &[
                            AttributeType::Sensitive,
                            AttributeType::Extractable,
                            AttributeType::NeverExtractable,
                            AttributeType::Private,
                            AttributeType::Value,
                        ],
                    )
                    .unwrap();
                assert!(attributes.contains(&Attribute::Sensitive(true)));
                assert!(attributes.contains(&Attribute::Extractable(false)));
                assert!(attributes.contains(&Attribute::NeverExtractable(true)));
                assert!(attributes.contains(&Attribute::Private(true)));
                assert!(!attributes.iter().any(|got| matches!(got, Attribute::Value(_))));
            }
        }
        assert_eq!(seen, 4);
        return;
    }
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "command::the_keys_can_neither_be_read_nor_wrapped_out"])
        .env("SOFTHSM2_CONF", rig.at("softhsm2.conf"))
        .env("RIG_DIR", rig.dir.path())
        .env("RIG_MODULE", &rig.module)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_type() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::blank(&module);
    let says = |rig: &Rig, words: &[&str]| {
        let (_, said) = rig.fail(&["doctor"]);
        for word in words {
            assert!(said.contains(word), "{word:?} is not in\n{said}");
        }
        let (_, json) = rig.fail(&["doctor", "--json"]);
        let end = json.rfind(']').unwrap();
        let findings: serde_json::Value = serde_json::from_str(&json[..=end]).unwrap();
        assert!(findings.as_array().unwrap().iter().any(|one| one["is_well"] == false));
    };
    says(&rig, &["PIN file", "set pin.file", "no token is labelled \"rig\"", "init-token"]);
    rig.succeed(&["init-token", "--so-pin-file", &rig.at("so-pin"), "--make-pins"]);
    says(&rig, &["no key domain in the token", "provision --domain a.example"]);
    rig.succeed(&["provision"]);
    says(&rig, &["one thing is wrong", "is cipherim-hsmd running?", "sign tls/1 p256"]);
    let service = rig.serve();
    let said = rig.succeed(&["doctor"]);
    assert!(!said.contains("!!"), "{said}");
    assert!(rig.succeed(&["status"]).contains("ready"));
    drop(service);
    fs::set_permissions(rig.at("pin"), fs::Permissions::from_mode(0o444)).unwrap();
    says(&rig, &["can be read or changed by others", "chmod 0400"]);
    let (code, said) = rig.fail(&["serve"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("chmod 0400"), "{said}");
    let (code, _) = rig.fail(&["check-config"]);
    assert_eq!(code, 78);
}

#[test]
fn a_start_without_module_or_token_stops_with_the_remedy() {
    let Some(module) = rig::module() else { return };
    let mut rig = Rig::new(&module);
    rig.unplug();
    fs::create_dir(rig.at("tokens")).unwrap();
    let (code, said) = rig.fail(&["serve"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("no token is labelled \"rig\"") && said.contains("plug it in"), "{said}");
    for (path, words) in [("/nowhere/p11.so", "there is no such file"), ("/etc/passwd", "PKCS#11")]
    {
        rig.module = path.into();
        rig.write_config();
        let (code, said) = rig.fail(&["serve"]);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(words) && said.contains(path), "{said}");
    }
    fs::write(rig.at("hsmd.toml"), "modul = 1\n").unwrap();
    let (code, said) = rig.fail(&["serve"]);
    assert_eq!(code, 78);
    assert!(said.contains("did you mean `module`?"), "{said}");
}

#[test]
fn it_may_be_told_to_wait_for_the_token() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module).with_settings("start_without_token = true");
    rig.unplug();
    let _service = rig.serve();
    let client = rig.client();
    assert!(client.sign(hsm::Purpose::Domain, b"x").is_err());
    rig.plug();
    rig::until("ready", || client.sign(hsm::Purpose::Domain, b"x").is_ok());
}

#[test]
fn completion_is_written() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::blank(&module);
    for shell in ["bash", "zsh", "fish"] {
        assert!(rig.succeed(&["completion", shell]).contains("provision"));
    }
}

#[test]
fn the_pin_may_be_a_systemd_credential() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let credentials = rig.at("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::rename(rig.at("pin"), format!("{credentials}/pin")).unwrap();
    let config = fs::read_to_string(rig.at("hsmd.toml")).unwrap();
    let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("file =")).collect();
    fs::write(rig.at("hsmd.toml"), config.join("\n")).unwrap();
    let (_, said) = rig.fail(&["list"]);
    assert!(said.contains("/run/credentials/pin"), "{said}");
    let rig = rig.with_environment("CREDENTIALS_DIRECTORY", &credentials);
    assert!(rig.succeed(&["list"]).contains("cipherim/a.example/domain/1"));
    let _service = rig.serve();
    rig.client().sign(hsm::Purpose::Domain, b"text").unwrap();
}
