//! Images: made here, of this machine's own shell, in an OCI layout or behind a registry on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use flate2::Compression;
use flate2::write::GzEncoder;
use meros_proto::check::{Check, CheckStatus};
use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::image::Image;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::{Reason, TaskState, TaskStatus};
use meros_proto::task::{Command, Execute};
use meros_slave::Running;
use meros_slave::config::Config;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::world::*;

/// Programs of this machine that are in the image.
const PROGRAMS: [&str; 5] = [
    "/bin/sh",
    "/bin/cat",
    "/bin/ls",
    "/bin/sleep",
    "/usr/bin/id",
];

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only a slave of root runs images");
    }
    is_root
}

fn sha256(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    let digits = sum.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a registry or a layout has: blobs by their digests.
#[derive(Clone, Default)]
struct Blobs {
    all: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = sha256(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.all.insert(digest, bytes);
        descriptor
    }
}

/// An image of two layers, and an index of it for two platforms.
#[derive(Clone)]
struct Made {
    blobs: Blobs,
    index: String,
    manifest: String,
    layers: Vec<String>,
}

fn header(kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o755);
    header
}

fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = header(tar::EntryType::Regular, bytes.len());
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// Programs with the libraries that they are linked with.
fn base_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        files.insert(program.to_owned());
        let linked = Process::new("ldd").arg(program).output().expect("ldd runs");
        let text = String::from_utf8_lossy(&linked.stdout).into_owned();
        let words = text.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(words.map(str::to_owned));
    }
    for file in files {
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        add(&mut tar, file.trim_start_matches('/'), &bytes);
    }
    let passwd = b"root:x:0:0::/root:/bin/sh\nweb:x:4321:4322::/srv/web:/bin/sh\n";
    add(&mut tar, "etc/passwd", passwd);
    add(
        &mut tar,
        "etc/group",
        b"root:x:0:\nweb:x:4322:\nlogs:x:4323:web\n",
    );
    add(&mut tar, "etc/gone", b"x");
    add(&mut tar, "etc/stays", b"x");
    add(&mut tar, "data/old", b"old");
    let mut open = header(tar::EntryType::Directory, 0);
    open.set_mode(0o1777);
    tar.append_data(&mut open, "shared", &b""[..]).unwrap();
    tar.into_inner().unwrap()
}

fn upper_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "etc/.wh.gone", b"");
    add(&mut tar, "data/.wh..wh..opq", b"");
    add(&mut tar, "data/new", b"new");
    let mut link = header(tar::EntryType::Symlink, 0);
    tar.append_link(&mut link, "escape", "../../../../../../proc/1/root")
        .unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn make(config: Value) -> Made {
    let mut blobs = Blobs::default();
    let (base, upper) = (base_layer(), upper_layer());
    let diff_ids = [sha256(&base), sha256(&upper)];
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let descriptors = vec![
        blobs.add(&format!("{layer}+gzip"), gzip(&base)),
        blobs.add(layer, upper),
    ];
    let layers = descriptors
        .iter()
        .map(|it| it["digest"].as_str().unwrap().to_owned());
    let layers = layers.collect();
    let document = json!({"os": "linux", "architecture": architecture(), "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config_type = "application/vnd.oci.image.config.v1+json";
    let config = blobs.add(config_type, document.to_string().into_bytes());
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config,
        "layers": descriptors});
    let mut manifest = blobs.add(manifest_type, manifest.to_string().into_bytes());
    let digest = manifest["digest"].as_str().unwrap().to_owned();
    manifest["platform"] = json!({"os": "linux", "architecture": architecture()});
    let mut other = manifest.clone();
    other["platform"] = json!({"os": "linux", "architecture": "pdp11"});
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [other, manifest]});
    let index = blobs.add(index_type, index.to_string().into_bytes());
    Made {
        blobs,
        index: index["digest"].as_str().unwrap().to_owned(),
        manifest: digest,
        layers,
    }
}

fn usual() -> Made {
    make(
        json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo the image says so"],
        "Env": ["PATH=/bin:/usr/bin", "COLOUR=blue", "SIZE=1"], "WorkingDir": "/opt/app", "User": "web"}),
    )
}

/// Writes it as a layout under the name `v1`, and one of another platform as `other`.
fn write_layout(made: &Made, at: &Path) {
    fs::create_dir_all(at.join("blobs/sha256")).unwrap();
    for (digest, bytes) in &made.blobs.all {
        fs::write(at.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
    }
    let name = |digest: &str, name: &str| {
        json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest,
            "size": made.blobs.all[digest].len(),
            "annotations": {"org.opencontainers.image.ref.name": name}})
    };
    let index = json!({"schemaVersion": 2,
        "manifests": [name(&made.index, "v1"), name(&made.manifest, "plain")]});
    fs::write(at.join("index.json"), index.to_string()).unwrap();
    fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn config(world: &World, folder: &Path) -> Config {
    let mut config = world.config();
    config.fetch_folders = vec![folder.to_owned()];
    // What is not there would only be a warning.
    config.isolation = "image".parse().unwrap();
    config
}

async fn end_of(master: &mut Master, task: &str) -> (Vec<TaskStatus>, TaskStatus) {
    let mut before = Vec::new();
    loop {
        let status = master.acknowledged().await.status;
        if status.task_id.as_str() != task {
            // Of another one, which is told again.
            continue;
        }
        if status.state.is_terminal() {
            return (before, status);
        }
        before.push(status);
    }
}

/// Welcomes a slave that was here before.
fn come_back(world: &mut World) {
    world.runtime.block_on(async {
        let mut said = world.master.accept_and_hear().await;
        while !matches!(said, SlaveToMaster::Reregister { .. }) {
            said = world.master.hear().await;
        }
        world.master.welcome().await;
    });
}

/// What a task writes, which must end well.
fn output(world: &mut World, slave: &Running, task: &str, command: Command) -> String {
    let ended = world.runtime.block_on(async {
        world.master.say(order(task, command)).await;
        end_of(&mut world.master, task).await.1
    });
    let read = |stream: &str| get(slave, &format!("/api/v1/logs/F1/{task}/{stream}")).text();
    assert_eq!(
        ended.state,
        TaskState::Finished,
        "{ended:?}: {}",
        read("stderr")
    );
    read("stdout")
}

/// Why a task could not be started.
fn refusal(world: &mut World, task: &str, command: Command) -> String {
    world.runtime.block_on(async {
        world.master.say(order(task, command)).await;
        let ended = end_of(&mut world.master, task).await.1;
        assert_eq!(ended.state, TaskState::Failed, "{ended:?}");
        assert_eq!(
            ended.reason,
            Some(Reason::ContainerLaunchFailed),
            "{ended:?}"
        );
        ended.message
    })
}

fn none() -> Command {
    Command::argv::<String>([])
}

fn metric(slave: &Running, name: &str) -> u64 {
    let text = get(slave, "/metrics").text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("meros_slave_{name} ")));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

/// Layers that were half made.
fn unfinished(world: &World) -> usize {
    let all = fs::read_dir(world.data_dir().join("images"))
        .unwrap()
        .flatten();
    all.filter(|it| it.file_name().to_string_lossy().starts_with("new-"))
        .count()
}

pub(crate) fn from_a_layout(world: &mut World) {
    if !is_root() {
        return;
    }
    let folder = world.dir.path().join("srv");
    let made = usual();
    write_layout(&made, &folder.join("app"));
    let tarball = folder.join("app.tar");
    let mut tar = Process::new("tar");
    tar.arg("-cf").arg(&tarball).arg("-C");
    let packed = tar.arg(folder.join("app")).arg(".").status();
    assert!(packed.unwrap().success());
    let slave = world.registered_as(config(world, &folder));
    let image = || Image::new(format!("oci:{}/app:v1", folder.display()));

    // Its entrypoint and arguments, then ours in place of its own.
    let said = output(world, &slave, "says", none().image(image()));
    assert_eq!(said, "the image says so\n");
    let line = "id -u; id -g; id -G; pwd; echo $COLOUR $SIZE $PATH $HOME; ls /etc /data; cat /data/new; \
                echo $MEROS_IMAGE; echo x > /shared/x; echo y > $MEROS_SANDBOX/y; cat $MESOS_SANDBOX/y; \
                test -e /escape/root || echo nowhere; test $$ -lt 20 && ls /proc/self/exe; cat /dev/null";
    let command = Command::argv([line]).env("SIZE", "2").image(image());
    let expected = format!(
        "4321\n4322\n4322 4323\n/opt/app\nblue 2 /bin:/usr/bin /srv/web\n/data:\nnew\n\n/etc:\ngroup\nhosts\n\
         passwd\nresolv.conf\nstays\nnewoci:{}/app@{}\ny\nnowhere\n/proc/self/exe\n",
        folder.display(),
        made.manifest
    );
    assert_eq!(output(world, &slave, "ours", command), expected);
    // A shell line instead of both, another user, and nothing of what the last one wrote.
    let mut command = Command::shell("id -u; id -g; ls /shared").image(image());
    command.user = Some("77:logs".to_owned());
    assert_eq!(output(world, &slave, "shell", command), "77\n4323\n");
    let command = Command::argv(["hello"]).image(image().entrypoint("/bin/sh").clone());
    assert!(refused_by_shell(world, command), "sh takes it for a script");
    // Neither the slave's tree nor its own changes of the image are in the way of the next.
    let host = Command::shell(format!("test ! -e {}", folder.display())).image(image());
    output(world, &slave, "host", host);
    // A tarball of the same is the same.
    let archive = Image::new(format!("oci-archive:{}:plain", tarball.display()));
    assert_eq!(
        output(world, &slave, "tarball", none().image(archive)),
        "the image says so\n"
    );
    assert_eq!(
        metric(&slave, "image_pulls_total"),
        1,
        "by what it is, and not how it is named"
    );
    assert_eq!(metric(&slave, "image_layers_unpacked_total"), 2);

    let layout = folder.join("app");
    let path = |end: &str| Image::new(format!("oci:{}{end}", layout.display()));
    let unknown_user = |name: &str| {
        let mut command = none().image(path(":v1"));
        command.user = Some(name.to_owned());
        command
    };
    for (nth, (command, code, says)) in [
        (
            none().image(path(":v2")),
            "image_missing",
            "it has: v1, plain",
        ),
        (none().image(path("")), "image_missing", "several images"),
        (none().image(path("/none")), "image_missing", "there is no"),
        (
            none().image(Image::new("oci:/etc:v1")),
            "image_not_allowed",
            "--fetch-folders",
        ),
        (none().image(Image::new("a b")), "image_invalid", "blank"),
        (unknown_user("nobody"), "image_user", "no user"),
        (
            Command::shell("x").image(path(":v1").entrypoint("\0")),
            "image_invalid",
            "entrypoint",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let message = refusal(world, &format!("refused-{nth}"), command);
        assert!(message.starts_with(&format!("{code}: ")), "{message}");
        assert!(message.contains(says), "{message}");
    }
    beside(world, none().image(path(":v1").entrypoint("sleep")));
    other_platform(world, &folder);
    damaged_layer(world, &folder);
    assert_eq!(unfinished(world), 0);
    world.stop(&slave);
}

fn refused_by_shell(world: &mut World, command: Command) -> bool {
    world.runtime.block_on(async {
        world.master.say(order("script", command)).await;
        let ended = end_of(&mut world.master, "script").await.1;
        ended.state == TaskState::Failed && ended.exit.is_some()
    })
}

/// What runs beside a task is where the task is.
fn beside(world: &mut World, command: Command) {
    let MasterToSlave::RunTask(mut run) = order("checked", command) else {
        unreachable!("an order");
    };
    run.task.command.as_mut().unwrap().execute = Execute::Argv(vec!["1000".to_owned()]);
    let line = "test $(id -u) = 4321 && test $(cat /data/new) = new && test $(pwd) = /opt/app";
    let check = Check::shell(line).delay(Duration::ZERO);
    run.task.check = Some(check.interval(Duration::from_millis(100)));
    world.runtime.block_on(async {
        let master = &mut world.master;
        master.say(MasterToSlave::RunTask(run)).await;
        loop {
            let status = master.acknowledged().await.status;
            assert_eq!(status.state, TaskState::Running, "{status:?}");
            if let Some(CheckStatus::Command {
                exit_code: Some(code),
            }) = status.check_status
            {
                assert_eq!(code, 0, "{status:?}");
                break;
            }
        }
        let kill = MasterToSlave::KillTask {
            framework_id: FrameworkId(1),
            task_id: TaskId::new("checked").unwrap(),
            grace: Some(Duration::ZERO),
        };
        master.say(kill).await;
        let killed = end_of(master, "checked").await.1;
        assert_eq!(killed.state, TaskState::Killed, "{killed:?}");
    });
}

fn other_platform(world: &mut World, folder: &Path) {
    let mut made = usual();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "m", "digest": made.manifest,
        "size": 1, "platform": {"os": "linux", "architecture": "pdp11"}}]});
    let descriptor = made.blobs.add("index", index.to_string().into_bytes());
    made.index = descriptor["digest"].as_str().unwrap().to_owned();
    write_layout(&made, &folder.join("pdp"));
    let image = Image::new(format!("oci:{}/pdp:v1", folder.display()));
    let message = refusal(world, "pdp", none().image(image));
    let expected = format!(
        "it is for linux/pdp11, and this slave is linux/{}",
        architecture()
    );
    assert!(
        message.starts_with("image_platform: ") && message.contains(&expected),
        "{message}"
    );
}

fn damaged_layer(world: &mut World, folder: &Path) {
    let made = make(json!({"Cmd": ["true"], "Env": ["another=image"]}));
    let at = folder.join("damaged");
    write_layout(&made, &at);
    let mut different = made.clone();
    // The base layer is here; another upper one is not.
    let upper = &different.layers[1];
    let blob = at.join("blobs").join(upper.replace(':', "/"));
    let mut bytes = different.blobs.all.remove(upper).unwrap();
    bytes[600] ^= 1;
    fs::write(&blob, bytes).unwrap();
    // The layer is known by what it adds up to, so the damaged one is not even read.
    let image = Image::new(format!("oci:{}:v1", at.display()));
    world.runtime.block_on(async {
        world
            .master
            .say(order("known", Command::shell("true").image(image)))
            .await;
        let ended = end_of(&mut world.master, "known").await.1;
        assert_eq!(ended.state, TaskState::Finished, "{ended:?}");
    });
}

/// A registry that gives what it has to who has a token.
struct Registry {
    address: SocketAddr,
    manifests: Arc<AtomicUsize>,
    blobs: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Served {
    made: Made,
    address: SocketAddr,
    manifests: Arc<AtomicUsize>,
    blobs: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
}

fn serve_registry(made: Made) -> Registry {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let served = Served {
        made,
        address: listener.local_addr().unwrap(),
        manifests: Arc::default(),
        blobs: Arc::default(),
        tokens: Arc::default(),
        hangs: Arc::default(),
    };
    let registry = Registry {
        address: served.address,
        manifests: Arc::clone(&served.manifests),
        blobs: Arc::clone(&served.blobs),
        tokens: Arc::clone(&served.tokens),
        hangs: Arc::clone(&served.hangs),
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let served = served.clone();
            // The client may leave.
            std::thread::spawn(move || drop(serve(stream, &served)));
        }
    });
    registry
}

/// `u:p`, as `docker login` writes it.
const LOGIN: &str = "dTpw";

fn serve(mut stream: TcpStream, served: &Served) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let (mut token, mut login) = (false, false);
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        token |= line == "authorization: bearer opensesame";
        login |= line == format!("authorization: basic {}", LOGIN.to_ascii_lowercase());
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let mut answer = |status: &str, more: &str, body: &[u8]| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{more}\r\n"
        )?;
        stream.write_all(body)
    };
    if let Some(query) = path.strip_prefix("/token?") {
        served.tokens.fetch_add(1, Ordering::SeqCst);
        let is_right = query == "service=here&scope=repository%3Aorg%2Fapp%3Apull";
        return match login && is_right {
            true => answer("200 OK", "", br#"{"token":"opensesame"}"#),
            false => answer("401 Unauthorized", "", b""),
        };
    }
    if path.starts_with("/elsewhere/") && token {
        // Who is not the registry is to get no token of it.
        return answer("500 Leaked", "", b"");
    }
    if let Some(digest) = path.strip_prefix("/elsewhere/") {
        return answer("200 OK", "", &served.made.blobs.all[digest]);
    }
    if !token {
        let wants = format!(
            "www-authenticate: Bearer realm=\"http://{}/token\",service=\"here\"\r\n",
            served.address
        );
        return answer("401 Unauthorized", &wants, b"{}");
    }
    if let Some(name) = path.strip_prefix("/v2/org/app/manifests/") {
        served.manifests.fetch_add(1, Ordering::SeqCst);
        let digest = if name == "v1" {
            &served.made.index
        } else {
            name
        };
        return match served.made.blobs.all.get(digest) {
            Some(bytes) => answer("200 OK", "", bytes),
            None => answer("404 Not Found", "", b"{}"),
        };
    }
    if let Some(digest) = path.strip_prefix("/v2/org/app/blobs/") {
        served.blobs.fetch_add(1, Ordering::SeqCst);
        if served.hangs.load(Ordering::SeqCst) {
            // Until the client leaves.
            while lines.next().transpose()?.is_some() {}
            return Ok(());
        }
        // As large registries do, to a name that is another host.
        let port = served.address.port();
        let location = format!("location: http://localhost:{port}/elsewhere/{digest}\r\n");
        return answer("307 Temporary Redirect", &location, b"");
    }
    answer("404 Not Found", "", b"")
}

fn credentials(world: &World, registry: &Registry) -> PathBuf {
    let file = world.dir.path().join("docker.json");
    let auths = json!({"auths": {registry.address.to_string(): {"auth": LOGIN}}});
    fs::write(&file, auths.to_string()).unwrap();
    file
}

pub(crate) fn from_a_registry(world: &mut World) {
    if !is_root() {
        return;
    }
    let made = usual();
    let registry = serve_registry(made.clone());
    let mut config = config(world, world.dir.path());
    config.image_credentials = Some(credentials(world, &registry));
    let slave = world.registered_as(config);
    let named = |end: &str| Image::new(format!("{}/org/app{end}", registry.address));

    // By digest, of the image itself: then the registry is not asked again.
    let by_digest = || named(&format!("@{}", made.manifest));
    let said = output(world, &slave, "digest", none().image(by_digest()));
    assert_eq!(said, "the image says so\n");
    assert_eq!(registry.tokens.load(Ordering::SeqCst), 1);
    let asked = registry.manifests.load(Ordering::SeqCst);
    assert_eq!((asked, registry.blobs.load(Ordering::SeqCst)), (1, 3));
    output(world, &slave, "again", none().image(by_digest()));
    assert_eq!(registry.manifests.load(Ordering::SeqCst), 1);
    // By a tag, of an index: the digest is what is told.
    let running = world.runtime.block_on(async {
        world
            .master
            .say(order("tag", none().image(named(":v1"))))
            .await;
        end_of(&mut world.master, "tag").await.0
    });
    let pinned = format!("image {}/org/app@{}", registry.address, made.manifest);
    assert_eq!(running.last().unwrap().message, pinned);
    // Layers and configuration were here.
    assert_eq!(registry.blobs.load(Ordering::SeqCst), 3);
    let missing = refusal(world, "missing", none().image(named(":v2")));
    assert!(missing.starts_with("image_missing: "), "{missing}");
    let denied = Image::new(format!("localhost:{}/org/app:v1", registry.address.port()));
    let denied = refusal(world, "denied", none().image(denied));
    assert!(denied.starts_with("image_denied: "), "{denied}");
    assert_eq!(metric(&slave, "image_failures_total"), 2);

    // A kill ends the wait of who brings it and of who waits for that.
    post(&slave, "/api/v1/images/prune", &[], b"");
    assert_eq!(metric(&slave, "image_store_layers"), 0);
    registry.hangs.store(true, Ordering::SeqCst);
    world.runtime.block_on(async {
        let master = &mut world.master;
        for task in ["first", "second"] {
            master.say(order(task, none().image(named(":v1")))).await;
            let starting = master.acknowledged().await.status;
            assert_eq!(starting.state, TaskState::Starting, "{starting:?}");
        }
        for task in ["second", "first"] {
            let kill = MasterToSlave::KillTask {
                framework_id: FrameworkId(1),
                task_id: TaskId::new(task).unwrap(),
                grace: None,
            };
            master.say(kill).await;
            let killed = end_of(master, task).await.1;
            assert_eq!(killed.state, TaskState::Killed, "{killed:?}");
        }
    });
    assert_eq!(unfinished(world), 0);
    world.stop(&slave);
}

pub(crate) fn damaged_in_a_registry(world: &mut World) {
    if !is_root() {
        return;
    }
    let mut made = usual();
    let blob = made.blobs.all.get_mut(&made.layers[0]).unwrap();
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    let registry = serve_registry(made.clone());
    let mut config = config(world, world.dir.path());
    config.image_credentials = Some(credentials(world, &registry));
    let slave = world.registered_as(config);
    let image = Image::new(format!("{}/org/app:v1", registry.address));
    let message = refusal(world, "t", none().image(image));
    assert!(message.starts_with("image_corrupt: "), "{message}");
    assert!(message.contains(&made.layers[0]), "{message}");
    assert_eq!(metric(&slave, "image_store_layers"), 0);
    assert_eq!(metric(&slave, "images"), 0);
    assert_eq!(unfinished(world), 0);
    world.stop(&slave);
}

/// Containers of one image.
const MANY: u64 = 50;

pub(crate) fn shared_by_many(world: &mut World) {
    if !is_root() {
        return;
    }
    let registry = serve_registry(usual());
    let mut config = config(world, world.dir.path());
    config.image_credentials = Some(credentials(world, &registry));
    config.tasks_end_with_slave = false;
    config.image_store_bytes_max = 0;
    let slave = world.registered_as(config.clone());
    let image = || Image::new(format!("{}/org/app:v1", registry.address));
    let line = "echo $MEROS_TASK_ID > /shared/mine; cat /shared/mine; exec sleep 1000";
    world.runtime.block_on(async {
        for nth in 0..MANY {
            let command = Command::shell(line).image(image());
            world.master.say(order(&format!("t{nth}"), command)).await;
        }
        let mut running = 0;
        while running < MANY {
            let status = world.master.acknowledged().await.status;
            assert!(!status.state.is_terminal(), "{status:?}");
            running += u64::from(status.state == TaskState::Running);
        }
    });
    for nth in [0, MANY - 1] {
        let log = format!("/api/v1/logs/F1/t{nth}/stdout");
        eventually("it sees its own", || {
            get(&slave, &log).text() == format!("t{nth}\n")
        });
    }
    assert_eq!(metric(&slave, "image_pulls_total"), 1);
    assert_eq!(metric(&slave, "image_hits_total"), MANY - 1);
    assert_eq!(metric(&slave, "image_layers_unpacked_total"), 2);
    assert_eq!(registry.blobs.load(Ordering::SeqCst), 3);
    let layers = world.data_dir().join("images/layers");
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 2);
    // Each has the layers below it, and its own changes in its sandbox.
    let pid = pid_of(&slave, "t7").unwrap();
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    assert_eq!(
        fs::read_to_string(root.join("shared/mine")).unwrap(),
        "t7\n"
    );
    let types = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(
        types
            .lines()
            .any(|line| line.contains(" / / ") && line.contains(" - overlay "))
    );

    // The next slave knows what is in use, although it may keep nothing.
    world.stop(&slave);
    let slave = world.try_start(config).expect("the slave starts");
    come_back(world);
    assert_eq!(pid_of(&slave, "t7"), Some(pid));
    post(&slave, "/api/v1/images/prune", &[], b"");
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 2);
    assert!(root.join("data/new").exists() && root.join("bin/sh").exists());
    let rows: Value = serde_json::from_str(&get(&slave, "/api/v1/images").text()).unwrap();
    assert_eq!(
        (&rows[0]["layers"], &rows[0]["in_use"]),
        (&json!(2), &json!(true)),
        "{rows}"
    );
    world.runtime.block_on(async {
        for nth in 0..MANY {
            let kill = MasterToSlave::KillTask {
                framework_id: FrameworkId(1),
                task_id: TaskId::new(format!("t{nth}")).unwrap(),
                grace: Some(Duration::ZERO),
            };
            world.master.say(kill).await;
        }
    });
    // And lets go of it with the last container.
    eventually("nothing is held", || {
        post(&slave, "/api/v1/images/prune", &[], b"");
        fs::read_dir(&layers).unwrap().count() == 0
    });
    assert_eq!(metric(&slave, "images"), 0);
    world.stop(&slave);
}

pub(crate) fn damaged_on_disk(world: &mut World) {
    if !is_root() {
        return;
    }
    let folder = world.dir.path().join("srv");
    write_layout(&usual(), &folder);
    let mut config = config(world, &folder);
    let image = || Image::new(format!("oci:{}:v1", folder.display()));
    let slave = world.registered_as(config.clone());
    output(world, &slave, "one", none().image(image()));
    world.stop(&slave);
    // A file is gone from a layer, a crash has left half of another one, and somebody wrote into a record.
    let images = world.data_dir().join("images");
    let layers = fs::read_dir(images.join("layers")).unwrap().flatten();
    let with_sh = layers
        .map(|it| it.path().join("fs/bin/cat"))
        .find(|it| it.exists());
    fs::remove_file(with_sh.unwrap()).unwrap();
    fs::create_dir_all(images.join("new-0/fs")).unwrap();
    fs::create_dir_all(images.join("layers").join("0".repeat(64)).join("fs")).unwrap();
    fs::write(
        images
            .join("manifests")
            .join(format!("{}.json", "0".repeat(64))),
        "{}",
    )
    .unwrap();
    config.isolation = "image,read-only".parse().unwrap();
    let slave = world.try_start(config).expect("the slave starts");
    come_back(world);
    assert_eq!(unfinished(world), 0);
    assert_eq!(metric(&slave, "image_damaged_total"), 2);
    // A frozen tree, but for the sandbox.
    let line =
        "cat /data/new; echo x > /shared/x || echo frozen; cd $MEROS_SANDBOX; echo y > y; cat y";
    let command = Command::argv([line]).image(image());
    assert_eq!(output(world, &slave, "two", command), "newfrozen\ny\n");
    assert_eq!(metric(&slave, "image_damaged_total"), 3);
    assert_eq!(
        metric(&slave, "image_layers_unpacked_total"),
        1,
        "the other was whole"
    );
    world.stop(&slave);
}

pub(crate) fn off(world: &mut World) {
    let mut config = world.config();
    config.isolation = "image=off".parse().unwrap();
    let slave = world.registered_as(config);
    let message = refusal(world, "t", none().image(Image::new("alpine")));
    assert!(
        message.starts_with("image_unavailable: alpine: this slave runs no images"),
        "{message}"
    );
    assert_eq!(get(&slave, "/api/v1/images").status, 409);
    world.stop(&slave);
}
