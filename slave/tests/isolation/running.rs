//! What a task sees, writes and leaves.

use nix::fcntl::{FcntlArg, FdFlag};

use super::*;

pub(crate) async fn command_not_found(world: &World) {
    let argv = |words: &[&str]| TaskCommand::Argv(words.iter().map(|&word| word.into()).collect());
    let limits = Limits::default();
    match world
        .try_start("a", argv(&["no-such-program", "x"]), limits)
        .await
        .unwrap_err()
    {
        error @ StartError::CommandNotFound { .. } => {
            assert_eq!(error.to_string(), "command not found: \"no-such-program\"");
        }
        error => panic!("{error:?}"),
    }
    let error = world
        .try_start("b", argv(&["./none"]), limits)
        .await
        .unwrap_err();
    assert!(
        matches!(error, StartError::CommandNotFound { .. }),
        "{error:?}"
    );

    let script = world.sandbox("c").join("script");
    fs::create_dir_all(world.sandbox("c")).unwrap();
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let error = world
        .try_start("c", argv(&["./script"]), limits)
        .await
        .unwrap_err();
    assert!(
        matches!(error, StartError::CommandNotExecutable { .. }),
        "not executable: {error:?}"
    );
    Command::new("chmod")
        .arg("+x")
        .arg(&script)
        .status()
        .unwrap();
    let error = world
        .try_start("c", argv(&["./script"]), limits)
        .await
        .unwrap_err();
    assert!(
        matches!(error, StartError::CommandNotExecutable { .. }),
        "no interpreter: {error:?}"
    );

    let report = world
        .start_shell("d", "no-such-program --flag", limits)
        .await
        .wait()
        .await;
    assert_eq!(report.status, ExitStatus::Exited(127));
    assert!(
        report.message().contains("no-such-program --flag"),
        "{}",
        report.message()
    );
    assert_eq!(world.container_groups(), Vec::<String>::new());
}

pub(crate) async fn surroundings(world: &World) {
    let line = "pwd; env | sort; echo stdin=$(cat | wc -c); grep NoNewPrivs /proc/self/status; ulimit -c; \
        cut -d' ' -f6 /proc/$$/stat; echo $$; echo $(ls /proc/self/fd)";
    // Left open by us without care, as by a supervisor that started the slave.
    let careless = fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&careless, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut spec = world.spec("inside", TaskCommand::Shell(line.into()), Limits::default());
    spec.env = BTreeMap::from([
        ("GREETING".into(), "hello world".into()),
        ("PATH".into(), "/usr/bin:/bin".into()),
    ]);
    let report = world.containers().start(spec).await.unwrap().wait().await;
    assert_eq!(report.status, ExitStatus::Exited(0));
    let output = world.output("inside");
    let lines: Vec<&str> = output.lines().collect();
    let sandbox = world.sandbox("inside");
    assert_eq!(lines[0], sandbox.to_str().unwrap());
    let name = format!("MEROS_CONTAINER={}/a/inside", world.root_name());
    // PWD is the shell's own doing.
    let pwd = format!("PWD={}", sandbox.display());
    let env: Vec<&str> = lines[1..5].to_vec();
    assert_eq!(
        env,
        ["GREETING=hello world", &name, "PATH=/usr/bin:/bin", &pwd],
        "{output}"
    );
    assert_eq!(lines[5], "stdin=0");
    assert_eq!(
        lines[6].split_whitespace().collect::<Vec<_>>(),
        ["NoNewPrivs:", "1"]
    );
    assert_eq!(lines[7], "0", "core files are allowed");
    assert_eq!(lines[8], lines[9], "not the leader of its own session");
    assert_eq!(lines[10], "0 1 2 3", "3 is the listing itself");
}

pub(crate) async fn other_user(world: &World) {
    world.open_to_everybody();
    let line = "id -un; echo works > /dev/stdout; touch mine; grep CapEff /proc/self/status";
    let mut spec = world.spec("nobody", TaskCommand::Shell(line.into()), Limits::default());
    spec.user = Some("nobody".into());
    let report = world
        .containers()
        .start(spec.clone())
        .await
        .unwrap()
        .wait()
        .await;
    assert_eq!(
        report.status,
        ExitStatus::Exited(0),
        "{}",
        world.output("nobody")
    );
    let output = world.output("nobody");
    assert!(output.starts_with("nobody\nworks\n"), "{output}");
    assert!(
        output.ends_with("0000000000000000\n"),
        "it has capabilities: {output}"
    );
    assert!(world.sandbox("nobody").join("mine").exists());

    spec.user = Some("no-such-user".into());
    let error = world.containers().start(spec).await.unwrap_err();
    assert!(matches!(error, StartError::UserUnknown { .. }), "{error:?}");
}

pub(crate) async fn log_bound(world: &World) {
    let line = "yes 0123456789abcde | head -c 4194304; echo end; echo error >&2";
    let mut spec = world.spec("loud", TaskCommand::Shell(line.into()), Limits::default());
    spec.stdout_bytes_max = 64 * KIB;
    let container = world.containers().start(spec).await.unwrap();
    let report = container.wait().await;
    assert_eq!(report.status, ExitStatus::Exited(0));
    let usage = (report.usage.stdout, report.usage.stderr);
    assert_eq!(container.log_usage(), usage);
    assert_eq!(report.usage.stdout.bytes, 4 * MIB + 4);
    assert_eq!(report.usage.stdout.bytes_dropped, 0);
    assert_eq!(report.usage.stderr.bytes, 6);
    let sandbox = world.sandbox("loud");
    let bytes = |name: &str| fs::metadata(sandbox.join(name)).unwrap().len();
    assert!(bytes("stdout") + bytes("stdout.1") <= 64 * KIB);
    assert_eq!(bytes("stdout.1"), 32 * KIB);
    assert!(world.output("loud").ends_with("end\n"));
    assert_eq!(
        fs::read_to_string(sandbox.join("stderr")).unwrap(),
        "error\n"
    );
}

pub(crate) async fn isolation_absent(world: &World) {
    let report = world.containers().report();
    assert_eq!(report.attribute(), "none");
    let missing: Vec<_> = report
        .missing
        .iter()
        .map(|(facility, _)| *facility)
        .collect();
    for facility in [
        Facility::Cpu,
        Facility::Memory,
        Facility::Pids,
        Facility::Kill,
    ] {
        assert!(missing.contains(&facility), "{facility} in {missing:?}");
    }
    let limits = Limits {
        memory_bytes: Some(MIB),
        pids_max: Some(1),
        ..Limits::default()
    };
    let report = world
        .start_shell("free", "echo works | cat; exit 4", limits)
        .await
        .wait()
        .await;
    assert_eq!(report.status, ExitStatus::Exited(4));
    assert_eq!(world.output("free"), "works\n");
    assert_eq!(
        (report.usage.cpu_time, report.usage.oom_kills),
        (None, None)
    );
}

pub(crate) async fn id_in_use(world: &World) {
    let container = world
        .start_shell("same", "sleep 1000", Limits::default())
        .await;
    let command = TaskCommand::Argv(vec!["true".into()]);
    let error = world
        .try_start("same", command.clone(), Limits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::IdInUse { .. }), "{error:?}");
    assert!(alive(container.pid()), "the first one was harmed");
    container.kill(Duration::ZERO);
    container.wait().await;
    let error = world
        .try_start("same", command.clone(), Limits::default())
        .await
        .unwrap_err();
    // Its end is not forgotten: a next run still has to find it.
    assert!(matches!(error, StartError::IdInUse { .. }), "{error:?}");
    world.containers().forget("same");
    world.containers().sweep("same");
    assert_eq!(
        world
            .start("same", command, Limits::default())
            .await
            .wait()
            .await
            .status,
        ExitStatus::Exited(0)
    );
}

pub(crate) async fn two_hundred(world: &World) {
    let run = |number: usize| async move {
        let command = TaskCommand::Argv(vec!["true".into()]);
        let limits = Limits {
            memory_bytes: Some(64 * MIB),
            pids_max: Some(8),
            ..Limits::default()
        };
        let report = world
            .start(&format!("true-{number}"), command, limits)
            .await
            .wait()
            .await;
        assert_eq!(report.status, ExitStatus::Exited(0));
    };
    // The first one opens what stays open: threads of the pool, the runtime's own descriptors.
    run(0).await;
    let descriptors = own_descriptors();
    let started = Instant::now();
    for number in 1..=200 {
        run(number).await;
    }
    let each = started.elapsed() / 200;
    println!(
        "200 containers, {each:?} each, {:.0} a second",
        1.0 / each.as_secs_f64()
    );
    eventually("no descriptor leaks", || own_descriptors() <= descriptors).await;
    assert_eq!(
        own_children(),
        Vec::<String>::new(),
        "processes are left, perhaps as zombies"
    );
    assert_eq!(world.container_groups(), Vec::<String>::new());
}

pub(crate) async fn hundred_at_once(world: &World) {
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..100 {
        let limits = Limits {
            memory_bytes: Some(64 * MIB),
            ..Limits::default()
        };
        let line = format!("echo {number}");
        let spec = world.spec(&format!("echo-{number}"), TaskCommand::Shell(line), limits);
        let containers = world.containers().clone();
        running.spawn(async move { containers.start(spec).await.unwrap().wait().await.status });
    }
    let statuses = running.join_all().await;
    println!(
        "100 containers at once: {:.0} a second",
        100.0 / started.elapsed().as_secs_f64()
    );
    assert_eq!(statuses, vec![ExitStatus::Exited(0); 100]);
    for number in 0..100 {
        assert_eq!(
            world.output(&format!("echo-{number}")),
            format!("{number}\n")
        );
    }
}
