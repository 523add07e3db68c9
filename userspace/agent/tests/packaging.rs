//! The systemd unit: what systemd itself says of it.

use std::process::Command;

const UNIT: &str = include_str!("../../../packaging/weftd.service");

/// Runs `systemd-analyze verify` on a unit whose binary exists; its exit status and what it said.
fn verify(unit: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weftd.service");
    std::fs::write(&path, unit.replace("/usr/bin/weftd", "/bin/true")).unwrap();
    let done = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .expect("systemd-analyze, of the package systemd");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.success(), said)
}

#[test]
fn systemd_takes_the_unit_without_a_word() {
    assert_eq!(verify(UNIT), (true, String::new()));
    // And would say so if it didn't.
    let (_, said) = verify(&UNIT.replace("Restart=always", "Restart=sometimes"));
    assert!(said.contains("restart"), "{said}");
}
