//! Cost of regions, PCI functions, NUMA nodes and processes in numbers that hosts have: the cost of
//! this program only, on a host in memory. Each line shows whether the cost grows with the number.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use egm_probe::host::Needs;
use egm_probe::report::Report;
use egm_probe::sysroot::Sysroot;

#[path = "../tests/suite/support/tree.rs"]
#[allow(dead_code, unreachable_pub)]
mod tree;

use tree::Tree;

/// GPUs of a region, nodes of a GPU, as on a GB200.
const GPUS: u32 = 2;
/// Mappings and open files of a process, as of an idle server.
const MAPPINGS: u64 = 37;
const FILES: u64 = 3;

/// A host with the given number of each.
#[derive(Clone, Copy)]
struct Size {
    regions: u32,
    functions: u32,
    nodes: u32,
    processes: u32,
}

const SMALL: Size = Size { regions: 1, functions: 0, nodes: 2, processes: 0 };

/// A PCI function whose address is derived from its number.
fn function(tree: &mut Tree, number: u32, class: &str, vendor: &str) -> String {
    let (bus, slot) = (number / 32 % 256, number % 32);
    let address = format!("{:04x}:{bus:02x}:{slot:02x}.0", number / 8192);
    let directory = format!("sys/devices/pci{:04x}:00/{address}", number / 8192);
    tree.link(&format!("sys/bus/pci/devices/{address}"), &directory);
    for (name, value) in [
        ("vendor", vendor),
        ("device", "0x2941"),
        ("class", class),
        ("numa_node", "0"),
        ("local_cpulist", "0-71"),
    ] {
        tree.file(&format!("{directory}/{name}"), format!("{value}\n"));
    }
    address
}

fn process(tree: &mut Tree, pid: u32) {
    let mut maps = String::new();
    for number in 0..MAPPINGS {
        let start = 0x7f00_0000_0000 + number * 0x10_0000;
        let (end, inode) = (start + 0x1000, 325_843 + number / 5);
        writeln!(maps, "{start:x}-{end:x} r--p 00000000 fe:00 {inode}                     /usr/lib/aarch64-linux-gnu/libc{inode}.so.6").unwrap();
    }
    tree.file(&format!("proc/{pid}/maps"), maps);
    for file in 0..FILES {
        tree.raw_link(&format!("proc/{pid}/fd/{file}"), "/dev/null");
    }
}

fn host(size: Size) -> Sysroot {
    let mut tree = Tree::default();
    tree.directory("proc");
    tree.directory("sys/bus/pci/devices");
    for region in 0..size.regions {
        let directory = format!("sys/devices/virtual/egm/egm{region}");
        tree.link(&format!("sys/class/egm/egm{region}"), &directory);
        tree.file(&format!("{directory}/dev"), format!("510:{region}\n"));
        tree.file(&format!("{directory}/egm_size"), "0x6fc0000000\n");
        tree.file(&format!("{directory}/uevent"), format!("DEVNAME=egm{region}\n"));
        tree.device(&format!("dev/egm{region}"), (510, region), 0o660, (0, 36));
        let gpus =
            (0..GPUS).map(|gpu| function(&mut tree, region * GPUS + gpu, "0x030200", "0x10de"));
        let list: String = gpus.map(|address| address + "\n").collect();
        tree.file(&format!("{directory}/gpu_devices"), list);
    }
    for number in 0..size.functions {
        function(&mut tree, size.regions * GPUS + number, "0x010802", "0x144d");
    }
    let distances: Vec<_> =
        (0..size.nodes).map(|node| if node == 0 { "10" } else { "40" }).collect();
    for node in 0..size.nodes {
        let directory = format!("sys/devices/system/node/node{node}");
        tree.file(&format!("{directory}/cpulist"), if node == 0 { "0-71\n" } else { "\n" });
        tree.file(&format!("{directory}/distance"), distances.join(" ") + "\n");
        tree.file(&format!("{directory}/meminfo"), format!("Node {node} MemTotal: 0 kB\n"));
    }
    let last = size.nodes - 1;
    tree.file("sys/devices/system/node/online", format!("0-{last}\n"));
    tree.file("sys/devices/system/node/has_cpu", "0\n");
    for pid in 1..=size.processes {
        process(&mut tree, pid);
    }
    Sysroot::from_tar(&tree.tar()[..]).unwrap()
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, number: u32, size: Size, needs: Needs) {
    let root = host(size);
    let report = Report::read(&root, needs);
    let regions = report.host.regions.iter().filter(|region| region.size.is_some()).count();
    assert_eq!(regions, size.regions as usize, "the report is not that of the measured host");
    group.throughput(Throughput::Elements(number.into()));
    group.bench_function(BenchmarkId::from_parameter(number), |bencher| {
        bencher.iter(|| Report::read(black_box(&root), needs));
    });
}

fn scaling(criterion: &mut Criterion) {
    let list = Needs::GPU_NAMES | Needs::NUMA | Needs::DEVICE_NODE | Needs::CLAIMS;
    let dimension = |name: &str,
                     criterion: &mut Criterion,
                     numbers: &[u32],
                     needs,
                     size: &dyn Fn(u32) -> Size| {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        for number in numbers {
            measure(&mut group, *number, size(*number), needs);
        }
        group.finish();
    };
    dimension("regions", criterion, &[1, 4, 16, 64, 256], list, &|regions| Size {
        regions,
        ..SMALL
    });
    let other = [10, 128, 1_024, 8_192];
    dimension("functions", criterion, &other, Needs::all(), &|functions| Size {
        functions,
        ..SMALL
    });
    dimension("nodes", criterion, &[2, 32, 256, 1_024], list, &|nodes| Size { nodes, ..SMALL });
    let many = [10, 100, 1_000, 20_000];
    dimension("processes", criterion, &many, list, &|processes| Size { processes, ..SMALL });
}

criterion_group!(benches, scaling);
criterion_main!(benches);
