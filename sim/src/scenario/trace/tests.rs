//! Every format is read from a small sample made by hand, and broken lines are refused by number.

use std::io::{Cursor, Write};

use super::*;

/// A file with this content, removed with the folder.
struct Sample {
    folder: tempfile::TempDir,
    file: &'static str,
}

impl Sample {
    fn new(file: &'static str, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut created = File::create(folder.path().join(file)).expect("a file");
        created.write_all(content).expect("space");
        Self { folder, file }
    }

    fn tasks(&self, format: TraceFormat, speed: Option<f64>) -> Result<Arc<[Listed]>, String> {
        let part = TracePart {
            format,
            file: self.file.to_owned(),
            speed: speed.map(crate::scenario::value::Positive),
            sample: None,
        };
        let all = Place {
            number: 0,
            count: 1,
        };
        let traces = Traces::new(Some(self.folder.path()));
        traces
            .tasks(&part, 1.0, all)
            .map_err(|error| error.to_string())
    }
}

const ALIBABA: &str =
    "0,j_1,M1,10,100.0,0.5,3\n0,j_1,R2_1,5,50.0,0.5,1\n7,j_2,task_abc,1,100,1,1\n";

#[test]
fn alibaba_tasks_wait_for_those_that_their_names_say() {
    let list = Sample::new("a.csv", ALIBABA.as_bytes())
        .tasks(TraceFormat::Alibaba, Some(2.0))
        .expect("fine");
    let waits: Vec<u32> = list.iter().map(|it| it.waits_for).collect();
    assert_eq!(waits, [0, 1, 0]);
    assert_eq!(list[0].unlocks, [1]);
    assert_eq!(
        (list[0].count, list[0].runs),
        (3, Some(Duration::from_secs(5)))
    );
    assert_eq!(list[0].resources.to_string(), "cpus:1;mem:2621");
    assert_eq!(list[2].at, Duration::from_millis(3_500));
}

#[test]
fn swf_jobs_are_as_many_tasks_as_processors_and_those_that_never_ran_are_left_out() {
    let text = "; a comment\n 1 100 -1 60 4 -1 2048 -1 -1 -1 1 1 1 -1 -1 -1 -1 -1\n\
                 2 50 -1 -1 4 -1 -1 -1 -1 -1 0 1 1 -1 -1 -1 -1 -1\n\
                 3 10 -1 5 -1 -1 -1 2 -1 -1 1 1 1 -1 -1 -1 -1 -1\n";
    let list = Sample::new("s.swf", text.as_bytes())
        .tasks(TraceFormat::Swf, None)
        .expect("fine");
    let found: Vec<(u64, u32)> = list.iter().map(|it| (it.at.as_secs(), it.count)).collect();
    assert_eq!(found, [(10, 2), (100, 4)]);
    assert_eq!(list[1].resources.to_string(), "cpus:1;mem:2");
}

#[test]
fn openb_pods_need_their_models_and_whole_gpus() {
    let header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n";
    let rows = "p1,1500,2048,1,460,P100|T4,LS,Running,100,160,110\np0,4000,0,0,0,,BE,Pending,5,,\n";
    let list = Sample::new("p.csv", format!("{header}{rows}").as_bytes())
        .tasks(TraceFormat::Openb, None)
        .expect("fine");
    assert_eq!(list[0].runs, None);
    assert_eq!(list[1].runs, Some(Duration::from_secs(50)));
    assert_eq!(list[1].resources.to_string(), "cpus:1.5;mem:2048;gpus:1");
    let models = list[1].models.as_ref().expect("it is choosy");
    assert_eq!(models.to_vec(), ["P100", "T4"]);

    let nodes = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,8000,1024,0,\n";
    let sample = Sample::new("n.csv", nodes.as_bytes());
    let traces = Traces::new(Some(sample.folder.path()));
    let slaves = traces.nodes("n.csv", 1.0).expect("fine");
    assert_eq!(slaves[0].resources.to_string(), "cpus:64;mem:262144;gpus:2");
    assert_eq!(slaves[0].attributes.value(MODEL), Some("P100"));
    assert_eq!(slaves[1].attributes.value(MODEL), None);
}

#[test]
fn broken_lines_are_refused_by_their_number() {
    let pod = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n";
    let cases = [
        (
            TraceFormat::Alibaba,
            format!("{ALIBABA}9,j_3,M1,x,1,1,1\n"),
            "a:4: duration_s is \"x\"",
        ),
        (
            TraceFormat::Alibaba,
            format!("{ALIBABA}9,j_3\n"),
            "a:4: there are 2 fields, not 7",
        ),
        (
            TraceFormat::Alibaba,
            format!("{ALIBABA}1,j_3,M1,1,1,1,1\n"),
            "a:4: it arrives before",
        ),
        (
            TraceFormat::Alibaba,
            "0,j,M1,1,1,1,0\n".to_owned(),
            "a:1: instances is \"0\"",
        ),
        (
            TraceFormat::Alibaba,
            "0,j,M1,1,0,0,1\n".to_owned(),
            "a:1: it takes no resources",
        ),
        (
            TraceFormat::Alibaba,
            "0,j,M1,NaN,1,1,1\n".to_owned(),
            "a:1: duration_s is \"NaN\"",
        ),
        (
            TraceFormat::Swf,
            "; x\n1 2 3\n".to_owned(),
            "a:2: there are 3 fields, not 18",
        ),
        (
            TraceFormat::Openb,
            "sn,cpu\n".to_owned(),
            "a:1: the first line is not",
        ),
        (
            TraceFormat::Openb,
            format!("{pod}p,-1,1,0,0,,,,0,,\n"),
            "a:2: cpu_milli is \"-1\"",
        ),
        (
            TraceFormat::Swf,
            "1 ".repeat(3_000),
            "a:1: the line is longer than 4096 bytes",
        ),
    ];
    for (format, text, expected) in cases {
        let error = Sample::new("a", text.as_bytes()).tasks(format, None);
        let error = error.expect_err(expected);
        let name = error.rsplit('/').next().unwrap_or_default();
        assert!(name.starts_with(expected), "{error}");
    }
    let bytes = Sample::new("a", b"0,j,M1,1,1,1,1\n\xff\xfe\n").tasks(TraceFormat::Alibaba, None);
    assert!(
        bytes
            .expect_err("not text")
            .contains("a:2: this is not UTF-8")
    );
    let xz = Sample::new("a.xz", b"0,j,M1,1,1,1,1\n").tasks(TraceFormat::Alibaba, None);
    assert!(xz.is_err(), "not compressed");
    assert!(Traces::new(None).nodes("x", 1.0).is_err());
}

#[test]
fn a_file_compressed_with_xz_is_read_like_any_other() {
    // `printf 'runtime\n0.0\n90.5\n' | xz | xxd -i`
    let compressed = [
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21,
        0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x10, 0x72, 0x75, 0x6e,
        0x74, 0x69, 0x6d, 0x65, 0x0a, 0x30, 0x2e, 0x30, 0x0a, 0x39, 0x30, 0x2e, 0x35, 0x0a, 0x00,
        0x00, 0x00, 0x00, 0x04, 0xdc, 0x06, 0xea, 0xda, 0x76, 0xae, 0xea, 0x00, 0x01, 0x29, 0x11,
        0x32, 0x0a, 0x70, 0x0e, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59,
        0x5a,
    ];
    for (name, bytes) in [
        ("r.csv.xz", &compressed[..]),
        // Unpacked, and asked for by the name that it had.
        ("r.csv", &b"runtime\n0.0\n90.5\n"[..]),
    ] {
        let sample = Sample::new(name, bytes);
        let part = PhillyPart {
            file: "r.csv.xz".to_owned(),
            speed: None,
        };
        let traces = Traces::new(Some(sample.folder.path()));
        let runs = traces.runs(&part).expect("fine");
        assert_eq!(
            runs.to_vec(),
            [Duration::ZERO, Duration::from_millis(90_500)]
        );
    }
}

#[test]
fn the_frameworks_of_a_group_share_a_trace_and_a_sample_is_a_part_of_it() {
    let row = |at: u32| format!("{at} {at} -1 60 1 -1 -1 -1 -1 -1 1 1 1 -1 -1 -1 -1 -1\n");
    let text: String = (0..1_000).map(row).collect();
    let sample = Sample::new("s.swf", text.as_bytes());
    let traces = Traces::new(Some(sample.folder.path()));
    let part = TracePart {
        format: TraceFormat::Swf,
        file: "s.swf".to_owned(),
        speed: None,
        sample: None,
    };
    let count = |scale, count| -> Vec<usize> {
        let place = |number| Place { number, count };
        let of = |number| {
            traces
                .tasks(&part, scale, place(number))
                .expect("fine")
                .len()
        };
        (0..count).map(of).collect()
    };
    let shared = count(1.0, 4);
    assert_eq!(shared.iter().sum::<usize>(), 1_000);
    assert!(shared.iter().all(|it| *it > 150), "{shared:?}");
    assert!((50..150).contains(&count(0.1, 1)[0]));
}

#[test]
fn lines_end_with_the_file() {
    let mut lines = Lines::new(Path::new("x"), Box::new(Cursor::new("a\r\nb")));
    assert_eq!(lines.next().expect("read"), Some("a"));
    assert_eq!(lines.next().expect("read"), Some("b"));
    assert_eq!(lines.next().expect("read"), None);
}
