//! Finding holders in a recorded `/proc`: the cost of our own part, without the kernel's.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use egm_probe::claims::Claims;
use egm_probe::host::{Host, Needs};
use egm_probe::sysroot::Sysroot;

#[path = "../tests/suite/support/tree.rs"]
#[allow(dead_code, unreachable_pub)]
mod tree;

/// Mappings of a process, and its open files: what an idle server has.
const MAPPINGS: u64 = 37;
const FILES: u64 = 3;

/// A host with one region and so many processes, of which the last one holds it.
fn host(processes: u32) -> Sysroot {
    let mut tree = tree::Tree::default();
    tree.link("sys/class/egm/egm4", "sys/devices/virtual/egm/egm4");
    tree.file("sys/devices/virtual/egm/egm4/dev", "510:4\n");
    tree.file("sys/devices/virtual/egm/egm4/egm_size", "0x6fc0000000\n");
    tree.device("dev/egm4", (510, 4), 0o660, (0, 36));
    for pid in 1..=processes {
        let mut maps = String::new();
        for number in 0..MAPPINGS {
            let start = 0x7f00_0000_0000 + number * 0x10_0000;
            let end = start + 0x1000;
            let inode = 325_843 + number / 5;
            writeln!(maps, "{start:x}-{end:x} r--p 00000000 fe:00 {inode}                     /usr/lib/aarch64-linux-gnu/libc{inode}.so.6").unwrap();
        }
        if pid == processes {
            writeln!(
                maps,
                "7fff00000000-7fff40000000 rw-s 00000000 00:09 210                        /dev/egm4"
            )
            .unwrap();
        }
        tree.file(&format!("proc/{pid}/maps"), maps);
        for file in 0..FILES {
            tree.raw_link(&format!("proc/{pid}/fd/{file}"), "/dev/null");
        }
    }
    Sysroot::from_tar(&tree.tar()[..]).unwrap()
}

fn claims(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("claims");
    for processes in [50, 500, 5_000] {
        let root = host(processes);
        let regions = Host::read(&root, Needs::empty()).regions;
        assert_eq!(Claims::read(&root, &regions).of(&regions[0].name).len(), 1);
        group.throughput(Throughput::Elements(processes.into()));
        group.bench_function(BenchmarkId::from_parameter(processes), |bencher| {
            bencher.iter(|| Claims::read(black_box(&root), &regions));
        });
    }
    group.finish();
}

criterion_group!(benches, claims);
criterion_main!(benches);
