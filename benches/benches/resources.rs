//! `resources/*`: the algebra under every offer and launch.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use meros_proto::resources::{ResourceName, Resources};

fn parsed(text: &str) -> Resources {
    text.parse().expect("written below")
}

fn resources(c: &mut Criterion) {
    let total = parsed("cpus:24;mem:4096;disk:4096;ports:[31000-32000]");
    let task = parsed("cpus:0.5;mem:64;disk:10");
    let with_ports = parsed("cpus:0.5;mem:64;ports:[31100-31102]");
    let fragmented = parsed(
        "ports:[31000-31010,31020-31030,31040-31050,31060-31070,31080-31090,31100-31110,\
         31120-31130,31140-31150,31160-31170,31180-31190,31200-31210,31220-31230,31240-31250,\
         31260-31270,31280-31290,31300-31310]",
    );
    assert!(total.contains(&task) && total.contains(&with_ports));
    let rest = total.checked_sub(&task).expect("contained");
    assert_eq!(rest.checked_add(&task).expect("what it was"), total);

    let mut group = c.benchmark_group("resources");
    group.bench_function("scalar", |b| {
        b.iter(|| black_box(&total).scalar(&ResourceName::MEM));
    });
    group.bench_function("contains", |b| {
        b.iter(|| black_box(&total).contains(black_box(&task)))
    });
    group.bench_function("subtract_and_add_in_place", |b| {
        let mut free = total.clone();
        b.iter(|| {
            free.checked_sub_assign(black_box(&task))
                .expect("contained");
            free.checked_add_assign(black_box(&task))
                .expect("what it was");
        });
        assert_eq!(free, total);
    });
    group.bench_function("subtract_ports", |b| {
        b.iter(|| {
            black_box(&total)
                .checked_sub(black_box(&with_ports))
                .expect("contained")
        });
    });
    group.bench_function("subtract_sixteen_port_ranges", |b| {
        b.iter(|| {
            black_box(&total)
                .checked_sub(black_box(&fragmented))
                .expect("contained")
        });
    });
    group.bench_function("parse", |b| {
        b.iter(|| black_box("cpus:4;mem:8192;ports:[31000-32000]").parse::<Resources>());
    });
    group.finish();
}

criterion_group!(benches, resources);
criterion_main!(benches);
