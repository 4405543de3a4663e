//! What the isolation tests share: a world with its own cgroup root that cleans up after itself,
//! looks at the host that do not go through the code under test, and the misbehaving programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use meros_slave::container::{
    CgroupRoot, Container, ContainerSpec, Containerizer, Facility, Found, Inventory, Isolation,
    Limits, OpenError, StartError, TaskCommand, Wanted,
};
use tempfile::TempDir;

use crate::sweep::{Sweep, cgroup_mounts, groups_below};

/// Longer than anything takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Which hierarchies of the host a test may use.
#[derive(Clone, Copy)]
pub(crate) enum Hierarchies {
    /// All that are mounted.
    Host,
    /// Only v1, as on an old host, even if v2 is mounted beside it.
    V1Only,
    /// None, as without privileges.
    None,
}

/// A containerizer with a cgroup root of its own.
pub(crate) struct World {
    containers: Option<Containerizer>,
    dir: TempDir,
    sweep: Sweep,
}

impl World {
    /// What the test asks for and the host cannot give is the error. To root every part is given, but those
    /// for which the kernel has to be new.
    fn new(hierarchies: Hierarchies, wishes: &str) -> Result<Self, String> {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let root = format!("meros-test-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let wanted = |line: &&str| match hierarchies {
            Hierarchies::Host => true,
            Hierarchies::V1Only => !line.contains(" - cgroup2 "),
            Hierarchies::None => false,
        };
        let lines: Vec<&str> = host.lines().filter(wanted).collect();
        fs::write(dir.path().join("mountinfo"), lines.join("\n")).unwrap();
        let sweep = Sweep::new(&root, dir.path());
        let isolation = Isolation::detect_from(
            &CgroupRoot::new(&root, "a").unwrap(),
            &dir.path().join("mountinfo"),
        );
        let folders = dir.path().join("containers");
        let wanted = Wanted {
            wishes: wishes.parse().unwrap(),
            hidden: vec![dir.path().to_owned()],
            ..Wanted::default()
        };
        let is_root = nix::unistd::geteuid().is_root();
        let opened = match Containerizer::open(isolation, folders, &wanted) {
            Err(OpenError::IsolationMissing { part, reason })
                if !is_root || part.starts_with("landlock-") =>
            {
                return Err(format!("{part}: {reason}"));
            }
            opened => opened,
        };
        let (containers, inventory) = opened.unwrap();
        assert!(inventory.containers.is_empty());
        Ok(Self {
            containers: Some(containers),
            dir,
            sweep,
        })
    }

    pub(crate) fn containers(&self) -> &Containerizer {
        self.containers.as_ref().expect("taken only at the end")
    }

    /// Takes up what the slave `b` has left.
    pub(crate) fn reopen(&self) -> Result<(Containerizer, Inventory), OpenError> {
        let root = CgroupRoot::new(&self.root_name(), "b").unwrap();
        let isolation = Isolation::detect_from(&root, &self.mountinfo());
        let folders = self.sandbox("crashing").join("containers");
        Containerizer::open(isolation, folders, &Wanted::nothing())
    }

    /// Groups that somebody else has made, below our root in each hierarchy that the test may use.
    pub(crate) fn make_groups(&self, name: &str) -> Vec<PathBuf> {
        let groups = cgroup_mounts().into_iter().map(|mount| mount.join(name));
        let made = groups.filter(|group| group.parent().is_some_and(Path::is_dir));
        made.inspect(|group| fs::create_dir(group).unwrap())
            .collect()
    }

    pub(crate) fn root_name(&self) -> String {
        self.sweep.root().to_owned()
    }

    pub(crate) fn mountinfo(&self) -> PathBuf {
        self.dir.path().join("mountinfo")
    }

    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.dir.path().join("sandboxes").join(id)
    }

    /// What the task wrote, as far as it is kept in the newest file.
    pub(crate) fn output(&self, id: &str) -> String {
        fs::read_to_string(self.sandbox(id).join("stdout")).unwrap_or_default()
    }

    /// Lets tasks of other users reach their sandboxes.
    pub(crate) fn open_to_everybody(&self) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The command line of one of our own misbehaving programs.
    pub(crate) fn helper(&self, args: &[&str]) -> Vec<String> {
        let program = std::env::current_exe()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        [program, "helper".into()]
            .into_iter()
            .chain(args.iter().map(|&arg| arg.into()))
            .collect()
    }

    pub(crate) fn spec(&self, id: &str, command: TaskCommand, limits: Limits) -> ContainerSpec {
        spec(id, command, limits, self.sandbox(id))
    }

    pub(crate) async fn try_start(
        &self,
        id: &str,
        command: TaskCommand,
        limits: Limits,
    ) -> Result<Container, StartError> {
        self.containers()
            .start(self.spec(id, command, limits))
            .await
    }

    pub(crate) async fn start(&self, id: &str, command: TaskCommand, limits: Limits) -> Container {
        self.try_start(id, command, limits)
            .await
            .unwrap_or_else(|error| panic!("{id}: {error:?}"))
    }

    pub(crate) async fn start_shell(&self, id: &str, line: &str, limits: Limits) -> Container {
        self.start(id, TaskCommand::Shell(line.into()), limits)
            .await
    }

    /// Process ids that the task has written to files, once they are there.
    pub(crate) async fn pids(&self, id: &str, files: &[&str]) -> Vec<i32> {
        let read = |file: &&str| {
            fs::read_to_string(self.sandbox(id).join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        let all = || files.iter().map(read).collect::<Option<Vec<i32>>>();
        eventually("the task writes its process ids", || all().is_some()).await;
        all().expect("just seen")
    }

    /// The first of these control files that a container has in any hierarchy.
    pub(crate) fn control_file(&self, id: &str, names: &[&str]) -> String {
        let groups = cgroup_mounts()
            .into_iter()
            .map(|mount| mount.join(self.sweep.root()).join("a").join(id));
        let mut files = groups.flat_map(|group| names.iter().map(move |name| group.join(name)));
        let file = files
            .find(|file| file.exists())
            .unwrap_or_else(|| panic!("no {names:?}"));
        fs::read_to_string(file).unwrap()
    }

    /// The cgroups of containers that exist in any hierarchy.
    pub(crate) fn container_groups(&self) -> Vec<String> {
        self.instance_groups("a")
            .into_iter()
            .filter(|group| !group.ends_with("/a"))
            .collect()
    }

    /// The cgroups of an instance, itself included.
    pub(crate) fn instance_groups(&self, instance: &str) -> Vec<String> {
        let instances = cgroup_mounts()
            .into_iter()
            .map(|mount| mount.join(self.sweep.root()).join(instance));
        instances
            .flat_map(|group| groups_below(&group))
            .map(|group| group.display().to_string())
            .collect()
    }
}

fn spec(id: &str, command: TaskCommand, limits: Limits, sandbox: PathBuf) -> ContainerSpec {
    ContainerSpec {
        id: id.into(),
        owner: format!("owner of {id}"),
        command,
        env: BTreeMap::new(),
        sandbox,
        limits,
        stdout_bytes_max: 1 << 20,
        stderr_bytes_max: 1 << 20,
        shown: Vec::new(),
        image: None,
        user: None,
        ends_with_slave: true,
        checks: BTreeMap::new(),
    }
}

/// A test in which control groups are all that keeps tasks apart.
pub(crate) fn case(
    name: &'static str,
    needs: &'static [Facility],
    hierarchies: Hierarchies,
    test: impl AsyncFnOnce(&World) + Send + 'static,
) -> Trial {
    confined(name, needs, hierarchies, "all=off", test)
}

/// A test that runs in a world of its own if the host has what it needs, and afterwards checks
/// that nothing of its cgroups is left.
pub(crate) fn confined(
    name: &'static str,
    needs: &'static [Facility],
    hierarchies: Hierarchies,
    wishes: &'static str,
    test: impl AsyncFnOnce(&World) + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let mut world = match World::new(hierarchies, wishes) {
            Ok(world) => world,
            Err(missing) => return Ok(Completion::ignored_with(missing)),
        };
        let missing = &world.containers().report().missing;
        if let Some((facility, reason)) = missing
            .iter()
            .find(|(facility, _)| needs.contains(facility))
        {
            return Ok(Completion::ignored_with(format!("{facility}: {reason}")));
        }
        runtime.block_on(async {
            test(&world).await;
            // Containers that the test has dropped are dying now.
            eventually("its containers are gone", || {
                world.container_groups().is_empty()
            })
            .await;
            eventually("its processes are gone", || own_children().is_empty()).await;
        });
        world.containers = None;
        // Waits for supervisors that hold the containerizer a moment longer than their report.
        drop(runtime);
        match world.instance_groups("a").as_slice() {
            [] => Ok(Completion::Completed),
            left => Err(Failed::from(format!("cgroups are left: {left:?}"))),
        }
    })
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Our own child processes, zombies included, as `pid (name) state`.
pub(crate) fn own_children() -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_ours = |stat: &String| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&own))
    };
    stats
        .filter(is_ours)
        .map(|stat| stat.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect()
}

/// How many descriptors we have open.
pub(crate) fn own_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What this program does as a task.
pub(crate) fn helper(words: &[&str]) {
    match words {
        ["hog", mebibytes] => hog(mebibytes.parse().unwrap()),
        ["slave", root, dir, mountinfo] => {
            crashing_slave(root, Path::new(dir), Path::new(mountinfo))
        }
        other => panic!("unknown helper {other:?}"),
    }
}

/// Takes memory bit by bit and keeps it; ends by itself when it has all that it wanted.
fn hog(mebibytes: usize) {
    let mut kept = Vec::new();
    for _ in 0..mebibytes {
        kept.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&kept);
    }
}

/// A slave with two containers that waits to be killed: `one` outlives it, `two` does not.
fn crashing_slave(root: &str, dir: &Path, mountinfo: &Path) {
    // Its own number comes last: the shell that started the daemon has ended by then.
    let line = "setsid sh -c 'sleep 1000 & echo $! > daemon.pid'; echo $$ > main.pid; echo begun; \
                while [ ! -e go ]; do sleep 0.02; done; echo went; exit 3";
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let isolation = Isolation::detect_from(&CgroupRoot::new(root, "b").unwrap(), mountinfo);
        let (containers, _) =
            Containerizer::open(isolation, dir.join("containers"), &Wanted::nothing()).unwrap();
        let mut held = Vec::new();
        for id in ["one", "two"] {
            let command = TaskCommand::Shell(line.into());
            let spec = ContainerSpec {
                ends_with_slave: id == "two",
                ..spec(id, command, Limits::default(), dir.join(id))
            };
            held.push(containers.start(spec).await.unwrap());
        }
        let end_of_parent = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        let _ = end_of_parent.await;
        held.iter()
            .for_each(|container| container.kill(Duration::ZERO));
        for container in held {
            container.wait().await;
        }
    });
}

/// The parent of a process, by the kernel.
pub(crate) fn parent_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The container of this id among those that were found.
pub(crate) fn take(inventory: &mut Inventory, id: &str) -> Found {
    let at = inventory.containers.iter().position(|found| found.id == id);
    inventory.containers.swap_remove(at.expect("it is found"))
}
