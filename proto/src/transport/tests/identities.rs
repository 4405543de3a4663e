//! The certificate authority and the files.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

#[test]
fn an_identity_and_its_ca_come_back_from_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_dir, slave_dir) = (dir.path().join("ca"), dir.path().join("slave"));
    cluster().save(&ca_dir).unwrap();
    let ca = ClusterCa::load(&ca_dir).unwrap();
    let slave = ca
        .issue(
            PeerRole::Slave,
            "rack-3.s17",
            &["s17.example".into(), "::1".into()],
        )
        .unwrap();
    slave.save(&slave_dir).unwrap();
    let loaded = Identity::load(&slave_dir).unwrap();
    assert_eq!(
        loaded.peer(),
        &PeerIdentity::new(PeerRole::Slave, "rack-3.s17").unwrap()
    );
    assert_eq!(loaded.chain(), slave.chain());
    assert_eq!(loaded.roots(), slave.roots());
    for key in [ca_dir.join("ca-key.pem"), slave_dir.join("key.pem")] {
        assert_eq!(
            fs::metadata(key).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(!format!("{slave:?}{ca:?}").contains("PRIVATE"));
}

#[test]
fn keys_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let ca = cluster();
    ca.save(dir.path()).unwrap();
    let before = fs::read(dir.path().join("ca-key.pem")).unwrap();
    assert!(matches!(ca.save(dir.path()), Err(SaveError::Exists { .. })));
    assert!(matches!(
        cluster().save(dir.path()),
        Err(SaveError::Exists { .. })
    ));
    assert_eq!(fs::read(dir.path().join("ca-key.pem")).unwrap(), before);

    let slave = ca.issue(PeerRole::Slave, "s1", &[]).unwrap();
    slave.save(&dir.path().join("s1")).unwrap();
    let error = slave.save(&dir.path().join("s1")).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("key.pem exists already; move it away first"),
        "{error}"
    );
}

#[test]
fn broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error:?}");
    assert!(error.to_string().contains("cert.pem"));

    let ca = cluster();
    ca.issue(PeerRole::Slave, "s1", &[])
        .unwrap()
        .save(dir.path())
        .unwrap();
    let other = dir.path().join("other");
    ca.issue(PeerRole::Slave, "s2", &[])
        .unwrap()
        .save(&other)
        .unwrap();
    let key = dir.path().join("key.pem");
    fs::copy(other.join("key.pem"), &key).unwrap();
    assert!(matches!(
        Identity::load(dir.path()),
        Err(LoadError::Key { .. })
    ));
    fs::write(&key, "not a key").unwrap();
    assert!(matches!(
        Identity::load(dir.path()),
        Err(LoadError::Pem { .. })
    ));
    fs::write(&key, [0xff; 10]).unwrap();
    assert!(matches!(
        Identity::load(dir.path()),
        Err(LoadError::Read { .. })
    ));
    fs::write(&key, vec![b'x'; 2 * 1024 * 1024]).unwrap();
    assert!(matches!(
        Identity::load(dir.path()),
        Err(LoadError::TooLarge { .. })
    ));

    // A certificate of the CA itself says nothing of role and name.
    fs::copy(other.join("ca.pem"), other.join("cert.pem")).unwrap();
    assert!(matches!(
        Identity::load(&other),
        Err(LoadError::Identity { .. })
    ));
    // A CA whose key is missing or is another's.
    assert!(matches!(
        ClusterCa::load(&other),
        Err(LoadError::Read { .. })
    ));
}

#[test]
fn a_key_that_others_may_read_or_write_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_dir, slave_dir) = (dir.path().join("ca"), dir.path().join("s1"));
    let ca = cluster();
    ca.save(&ca_dir).unwrap();
    ca.issue(PeerRole::Slave, "s1", &[])
        .unwrap()
        .save(&slave_dir)
        .unwrap();
    let chmod = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (key, ca_key) = (slave_dir.join("key.pem"), ca_dir.join("ca-key.pem"));
    for mode in [0o640, 0o620, 0o604, 0o602] {
        chmod(&key, mode);
        let error = Identity::load(&slave_dir).unwrap_err();
        assert!(matches!(error, LoadError::Exposed { mode: got, .. } if got == mode));
        let text = error.to_string();
        assert!(
            text.contains("key.pem has mode 06") && text.contains("chmod 600"),
            "{text}"
        );
        chmod(&ca_key, mode);
        assert!(matches!(
            ClusterCa::load(&ca_dir),
            Err(LoadError::Exposed { .. })
        ));
    }
    for mode in [0o400, 0o600, 0o700] {
        chmod(&key, mode);
        chmod(&ca_key, mode);
        Identity::load(&slave_dir).unwrap();
        ClusterCa::load(&ca_dir).unwrap();
    }
}

#[test]
fn names_that_do_not_fit_a_certificate_are_refused() {
    let ca = cluster();
    let long = "x".repeat(PEER_NAME_CHARS_MAX + 1);
    for name in ["", "a/b", "a b", "../up", "κόμβος", &long] {
        let refused = ca.issue(PeerRole::Slave, name, &[]);
        assert!(matches!(refused, Err(IssueError::Name(_))), "{name:?}");
    }
    let host = ca.issue(PeerRole::Master, "m1", &["no host".into()]);
    assert!(matches!(host, Err(IssueError::Host { .. })));
    assert!(matches!(
        ClusterCa::create(""),
        Err(IssueError::ClusterName)
    ));
    assert!("agent".parse::<PeerRole>().is_err());
}

#[test]
fn bytes_that_are_no_certificate_have_no_identity() {
    let der = cluster().issue(PeerRole::Slave, "s1", &[]).unwrap().chain()[0].to_vec();
    for cut in 0..der.len() {
        assert!(PeerIdentity::from_certificate(&der[..cut]).is_err());
    }
    // Any byte may be wrong without a panic; TLS has checked the signature before us.
    for at in 0..der.len() {
        let mut bad = der.clone();
        bad[at] ^= 0x55;
        drop(PeerIdentity::from_certificate(&bad));
    }
}
