//! What must be refused, by real processes: each with a clear message, and nothing else harmed.

use std::time::Duration;

use meros_e2e::cgroups::CgroupRoot;
use meros_e2e::cluster::{ca_init, issue};
use meros_e2e::{ClusterOptions, Daemon, LocalCluster, Ports, Ran, eventually, meros};
use tempfile::TempDir;

fn run(args: &[&str]) -> Ran {
    meros()
        .args(args)
        .output()
        .expect("the binary was found")
        .into()
}

#[test]
fn commands_without_a_cluster_say_how_to_get_one() {
    let ran: Ran = meros()
        .env("MEROS_MASTER", "127.0.0.1:1")
        .args(["ps"])
        .output()
        .expect("the binary was found")
        .into();
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.contains("meros dev"), "{}", ran.stderr);
}

#[test]
fn typos_in_flags_files_and_resources_are_named() {
    let dir = TempDir::new().expect("a temp folder");
    let file = dir.path().join("slave.toml");
    std::fs::write(&file, "mastres = [\"x:1\"]\n").expect("our folder");
    let path = file.to_str().expect("text");
    let ran = run(&["slave", "--config", path]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("mastres") && ran.stderr.contains("line 1"),
        "{}",
        ran.stderr
    );

    let ran = run(&["master", "--no-such-flag"]);
    assert_eq!(ran.code, 2);
    let ran = run(&["master", "--min-allocatable=cpus:1|much"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("\"much\" is no amount"),
        "{}",
        ran.stderr
    );
    let file = dir.path().join("master.toml");
    std::fs::write(
        &file,
        "hoarding_offers = 0\ndata_dir = \"d\"\nidentity = \"i\"\n",
    )
    .expect("our folder");
    let ran = run(&["master", "--config", file.to_str().expect("text")]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .contains("hoarding_offers is 0, which is outside 1 to 100000"),
        "{}",
        ran.stderr
    );

    ca_init(dir.path());
    issue(dir.path(), "slave", "slave-1");
    let identity = format!(
        "--identity={}",
        dir.path().join("identities/slave-1").display()
    );
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let typo = "--resources=cpus:4;mem:lots";
    let ran = run(&["slave", "--masters=127.0.0.1:1", &identity, &data, typo]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("mem:lots") || ran.stderr.contains("lots"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_certificate_authority_is_not_overwritten() {
    let dir = TempDir::new().expect("a temp folder");
    ca_init(dir.path());
    let before = std::fs::read(dir.path().join("ca/ca.pem")).expect("just made");
    let ran = run(&[
        "ca",
        "init",
        "--dir",
        dir.path().join("ca").to_str().expect("text"),
    ]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(
        std::fs::read(dir.path().join("ca/ca.pem")).expect("still there"),
        before
    );
}

#[test]
fn a_port_in_use_and_a_data_folder_in_use_are_explained() {
    let cluster = LocalCluster::start(ClusterOptions::new("inuse", 1));
    let identity = format!("--identity={}", cluster.identity("master").display());
    let other = cluster.dir().join("other");
    let ran = run(&[
        "master",
        &format!("--listen={}", cluster.address()),
        &format!("--http-listen={}", cluster.address()),
        &identity,
        &format!("--data-dir={}", other.display()),
    ]);
    assert_ne!(ran.code, 0);
    let port = cluster.address().rsplit(':').next().expect("host:port");
    assert!(
        ran.stderr.contains(port) && ran.stderr.contains("use"),
        "{}",
        ran.stderr
    );

    for (daemon, more) in [
        ("master", "--listen=127.0.0.1:0"),
        ("slave", "--masters=127.0.0.1:1"),
    ] {
        let data = cluster.dir().join(format!("{daemon}-1"));
        let identity = cluster.identity(if daemon == "master" {
            "master"
        } else {
            "slave-1"
        });
        let ran = run(&[
            daemon,
            more,
            "--http-listen=127.0.0.1:0",
            &format!("--identity={}", identity.display()),
            &format!("--data-dir={}", data.display()),
        ]);
        assert_ne!(ran.code, 0);
        assert!(
            ran.stderr.contains(data.to_str().expect("text")),
            "{daemon}: {}",
            ran.stderr
        );
    }
    assert_eq!(
        cluster.meros(&["run", "--", "true"]).code,
        0,
        "the cluster was harmed"
    );
}

#[test]
fn certificates_of_another_cluster_or_of_another_kind_are_refused_with_the_reason() {
    let cluster = LocalCluster::start(ClusterOptions::new("certs", 1));
    let foreign = TempDir::new().expect("a temp folder");
    ca_init(foreign.path());
    issue(foreign.path(), "operator", "stranger");
    let run_as = |identity: &std::path::Path| -> Ran {
        let output = meros()
            .env("MEROS_MASTER", cluster.address())
            .env("MEROS_IDENTITY", identity)
            .args(["run", "--", "true"])
            .output();
        output.expect("the binary was found").into()
    };
    let ran = run_as(&foreign.path().join("identities/stranger"));
    assert_eq!(ran.code, 125, "{}", ran.stderr);
    assert!(ran.stderr.contains("certificate"), "{}", ran.stderr);

    let ran = run_as(&cluster.identity("slave-1"));
    assert_eq!(ran.code, 125, "{}", ran.stderr);
    assert!(ran.stderr.contains("slave"), "{}", ran.stderr);
    assert_eq!(
        cluster.meros(&["run", "--", "true"]).code,
        0,
        "the cluster was harmed"
    );
}

#[test]
fn a_slave_with_the_data_of_another_cluster_stops_and_says_so() {
    let mut first = LocalCluster::start(ClusterOptions::new("clusterone", 1));
    let second = LocalCluster::start(ClusterOptions::new("clustertwo", 0));
    first.slaves[0].stop();
    // The second cluster's certificate, the first cluster's data.
    issue(second.dir(), "slave", "mover");
    let slave = &mut first.slaves[0];
    slave.set_arg("masters", second.address());
    slave.set_arg("identity", second.identity("mover").to_str().expect("text"));
    slave.spawn();
    let status = slave.wait();
    assert!(!status.success());
    assert!(
        slave.log().contains("belongs to cluster"),
        "{}",
        slave.log()
    );
}

#[test]
fn random_bytes_on_both_ports_harm_nobody() {
    use std::io::Write;
    use std::net::{TcpStream, UdpSocket};
    let cluster = LocalCluster::start(ClusterOptions::new("noise", 1));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    let mut packet = [0_u8; 1_200];
    for _ in 0..2_000 {
        for byte in &mut packet {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = noise.to_be_bytes()[0];
        }
        udp.send_to(&packet, cluster.address()).expect("loopback");
    }
    for _ in 0..50 {
        let mut tcp = TcpStream::connect(cluster.address()).expect("the master listens");
        // The master may close at any byte.
        drop(tcp.write_all(&packet));
    }
    assert_eq!(cluster.meros(&["run", "--", "true"]).code, 0);
}

#[test]
fn a_task_that_asks_for_too_much_waits_and_says_why() {
    let cluster = LocalCluster::start(ClusterOptions::new("greedy", 1));
    // Long enough to have seen an offer on a machine that is busy.
    let ran = cluster.meros(&["run", "--cpus", "1000", "--timeout", "15s", "--", "true"]);
    assert_eq!(ran.code, 124, "{}", ran.stderr);
    assert!(ran.stderr.contains("cpus"), "{}", ran.stderr);
    let ran = cluster.meros(&["run", "--cpus", "-1", "--", "true"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let ran = cluster.meros(&["run", "--mem", "NaN", "--", "true"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn a_full_disk_stops_a_master_with_a_reason_and_loses_nothing_promised() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: a small file system to fill can only be mounted by root");
        return;
    }
    let mount = SmallDisk::mount("48m");
    let dir = TempDir::new().expect("a temp folder");
    ca_init(dir.path());
    issue(dir.path(), "master", "master");
    issue(dir.path(), "slave", "slave-1");
    let identity = |name: &str| {
        format!(
            "--identity={}",
            dir.path().join("identities").join(name).display()
        )
    };
    let ports = Ports::reserve();
    let address = format!("127.0.0.1:{}", ports.first());
    let args = vec![
        "master".to_owned(),
        format!("--listen={address}"),
        format!("--http-listen={address}"),
        identity("master"),
    ];
    let mut master = Daemon::new(mount.path(), "master-1", args);
    master.start();

    mount.fill();
    let cgroups = CgroupRoot::new("fulldisk");
    let slave_args = vec![
        "slave".to_owned(),
        format!("--masters={address}"),
        "--http-listen=127.0.0.1:0".to_owned(),
        "--resources=cpus:1;mem:64;disk:64;ports:[31000-31000]".to_owned(),
        format!("--cgroup-root={}", cgroups.name()),
        identity("slave-1"),
    ];
    let mut slave = Daemon::new(dir.path(), "slave-1", slave_args);
    slave.spawn();
    // RocksDB asks for room some megabytes ahead, so there is some for the first orders.
    let mut weight = 1;
    eventually("the master ends", Duration::from_secs(180), || {
        weight += 1;
        let weight = |role| serde_json::json!({"role": format!("{role:0>60}"), "weight": weight});
        let order = serde_json::json!({"weights": (0..200).map(weight).collect::<Vec<_>>()});
        // It is refused or broken off once there is none.
        let _ = ureq::post(format!("http://{address}/api/v1/weights")).send_json(order);
        master.exited().is_some()
    });
    let status = master.wait();
    assert!(!status.success());
    let log = master.log();
    assert!(
        log.contains("No space left") || log.contains("no space") || log.contains("disk"),
        "{log}"
    );

    mount.empty();
    let address = master.start().http.to_string();
    eventually(
        "the slave is admitted once there is room",
        Duration::from_secs(180),
        || {
            let rows = ureq::get(format!("http://{address}/api/v1/slaves")).call();
            let rows = rows
                .ok()
                .and_then(|mut rows| rows.body_mut().read_json::<serde_json::Value>().ok());
            // An admission that was written and never confirmed may stand beside it.
            rows.and_then(|rows| rows.as_array().cloned())
                .into_iter()
                .flatten()
                .any(|row| row["state"] == "registered")
        },
    );
}

/// A file system of a few megabytes, unmounted when dropped.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let dir = TempDir::new().expect("a temp folder");
        nix::mount::mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(format!("size={size}").as_str()),
        )
        .expect("root may mount");
        Self { dir }
    }

    fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.path().join("filler")).expect("room for a name");
        let block = vec![0_u8; 4_096];
        while file.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing is left to do if it is not mounted any more.
        let _ = nix::mount::umount2(self.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
