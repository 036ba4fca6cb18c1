//! Capacity and plans with numbers near the limits of integers.

use std::collections::BTreeMap;
use std::fmt::Write;

use egm_probe::check::{CheckOptions, check};
use egm_probe::claims::{Claim, LibvirtClaim, ProcessClaim, Sight};
use egm_probe::domain::{Document, Domain};
use egm_probe::plan::{Plan, Request, Size};
use egm_probe::report::{Capacity, Report, State};
use egm_probe::stanza::{Options, Parts, Stanza};
use egm_probe::sysroot::Sysroot;
use egm_probe::values::Bytes;
use proptest::prelude::*;

use crate::support;
use crate::support::machines::host_of;
use crate::support::tree::Tree;

const MIB: u64 = 1 << 20;

/// Numbers near the limits of integers, and near those of real hosts.
fn extreme() -> impl Strategy<Value = u64> {
    let near = |number: u64| (0_u64..4).prop_map(move |less| number.wrapping_sub(less));
    prop_oneof![
        near(0),
        near(u64::MAX),
        near(1 << 63),
        near(u64::MAX - (u64::MAX % MIB)),
        near(479_962_595_328),
        (0_u64..1 << 44).prop_map(|mib| mib * MIB),
        any::<u64>(),
    ]
}

fn process(parts: &[(u64, u64)]) -> Claim {
    Claim::Process(ProcessClaim::new(1, parts.iter().copied().collect()))
}

fn definition(is_running: bool, size: Option<u64>) -> Claim {
    let mut claim = LibvirtClaim::new("vm", "/x");
    (claim.is_running, claim.size) = (is_running, size.map(Bytes));
    Claim::Libvirt(claim)
}

/// Number of bytes below `size` that are covered by parts, computed differently from the tested
/// code: part by part, in numbers that cannot overflow.
fn covered(parts: &[(u64, u64)], size: u64) -> u128 {
    let mut parts: Vec<(u128, u128)> = parts
        .iter()
        .map(|(start, length)| (u128::from(*start), u128::from(*start) + u128::from(*length)))
        .collect();
    parts.sort_unstable();
    let (mut end, mut sum) = (0, 0);
    for (start, stop) in parts {
        sum += stop.saturating_sub(start.max(end));
        end = end.max(stop);
    }
    sum.min(size.into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn free_held_and_stranded_memory_add_up_near_integer_limits(
        size in prop::option::of(extreme()),
        processes in prop::collection::vec(prop::collection::vec((extreme(), extreme()), 0..4), 0..4),
        definitions in prop::collection::vec((any::<bool>(), prop::option::of(extreme())), 0..4),
        sight in prop::sample::select(vec![
            Sight::Skipped, Sight::Partial, Sight::Complete,
        ]),
    ) {
        let claims: Vec<_> = processes
            .iter()
            .map(|parts| process(parts))
            .chain(definitions.iter().map(|(runs, size)| definition(*runs, *size)))
            .collect();
        let Capacity { state, free, held, stranded, .. } =
            Capacity::of(size.map(Bytes), &claims, sight);
        let is_held = !processes.is_empty() || definitions.iter().any(|(runs, _)| *runs);
        prop_assert_eq!(state == State::InUse, is_held);
        let is_seen = sight == Sight::Complete;
        prop_assert_eq!(state == State::Unknown, !is_held && !is_seen);
        prop_assert!(!is_held || free == Some(Bytes(0)));
        prop_assert!(state != State::Free || free == size.map(Bytes));
        if let (Some(size), Some(held), Some(stranded)) = (size, held, stranded) {
            if is_held {
                prop_assert_eq!(u128::from(held.0) + u128::from(stranded.0), u128::from(size));
            }
            if !processes.is_empty() && sight != Sight::Skipped {
                let parts = processes.concat();
                // Parts that end beyond 2^64 cannot exist.
                let can_be = |(start, length): &&(u64, u64)| start.checked_add(*length).is_some();
                if parts.iter().all(|part| can_be(&part)) {
                    prop_assert_eq!(u128::from(held.0), covered(&parts, size));
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_of_any_size_are_valid_or_refused(
        regions in prop::collection::vec((extreme(), 1_u8..5), 1..4),
        size in prop::option::of(extreme()),
        (force, gpu_cells) in (any::<bool>(), prop::sample::select(vec![0, 1, 8, u32::MAX / 2])),
        (cell, memory, dimm) in (extreme(), extreme(), extreme()),
    ) {
        let numbered: Vec<_> =
            regions.iter().zip(0..).map(|((_, gpus), number)| (number, 1, *gpus)).collect();
        let mut tree = host_of(&numbered);
        for ((size, _), number) in regions.iter().zip(0..) {
            let path = format!("sys/devices/virtual/egm/egm{number}/egm_size");
            tree.file(&path, format!("{size:#x}\n"));
        }
        let root = Sysroot::from_tar(&tree.tar()[..]).unwrap();
        let report = Report::read(&root, Plan::NEEDS);
        let text = format!(
            "<domain><name>x</name><memory unit='b'>{memory}</memory><cpu><numa>\
             <cell id='0' memory='{cell}' unit='b'/></numa></cpu><devices><memory model='dimm'>\
             <target><size unit='b'>{dimm}</size></target></memory></devices></domain>"
        );
        let domain = Domain::parse(&text).unwrap();
        let _ = check(&domain, &CheckOptions { report: Some(&report), ..CheckOptions::default() });
        let mut request = Request::everything();
        (request.size, request.force, request.gpu_cells) = (size.map_or(Size::Share, |size| Size::Each(Bytes(size))), force, gpu_cells);
        for domain in [None, Some(&domain)] {
            let Ok(plan) = Plan::new(&report, &request, domain) else { continue };
            let mut sums: BTreeMap<_, u128> = BTreeMap::new();
            for placement in &plan.placements {
                prop_assert!(placement.size.0 > 0 && placement.size.0.is_multiple_of(2 * MIB));
                *sums.entry(&placement.region).or_default() += u128::from(placement.size.0);
            }
            for (region, sum) in sums {
                let Some(size) = report.host.region(region).unwrap().size else { continue };
                prop_assert!(sum <= u128::from(size.0), "{region} has {size:?}, {sum} is taken");
            }
            let options = Options::of(Parts::all());
            if let Some(domain) = domain {
                let _ = Stanza::within(&report, plan, &Document::parse(&text).unwrap(), &options);
                let _ = check(domain, &CheckOptions::default());
            } else {
                let _ = Stanza::new(&report, plan, &options);
            }
        }
    }
}

/// As many mappings as the kernel allows a process, of which one is the region.
#[test]
fn the_most_mappings_are_searched() {
    let mut tree = Tree::read(&support::machine("gb200-full-gpu-list"));
    let mut maps = String::new();
    for number in 0..65_530_u64 {
        let start = 0x7f00_0000_0000 + number * 0x2000;
        let (file, path) = match number {
            33_333 => ("00:09 210", "/dev/egm4"),
            _ => ("fe:00 1234", "/usr/lib/x.so"),
        };
        writeln!(maps, "{start:x}-{:x} rw-s 00000000 {file} {path}", start + 0x1000).unwrap();
    }
    tree.file("proc/80/maps", maps);
    tree.file("proc/80/comm", "many\n");
    tree.directory("proc/80/fd");
    let report = Report::read(&Sysroot::from_tar(&tree.tar()[..]).unwrap(), Plan::NEEDS);
    let row = report.rows().next().unwrap();
    assert_eq!((row.capacity.state, row.capacity.held), (State::InUse, Some(Bytes(4096))));
}

/// libvirt's directory may have any file in it.
#[test]
fn a_definition_with_too_many_elements_is_reported() {
    let mut tree = Tree::read(&support::machine("claims-defined"));
    let many = "<a/>".repeat(210_000);
    let text = format!("<domain><name>vm</name>{many}</domain>");
    tree.file("etc/libvirt/qemu/many.xml", text);
    let report = Report::read(&Sysroot::from_tar(&tree.tar()[..]).unwrap(), Plan::NEEDS);
    let warnings: Vec<_> = report.warnings().map(ToString::to_string).collect();
    let is_told = |warning: &String| warning.starts_with("/etc/libvirt/qemu/many.xml:1:");
    assert!(warnings.iter().any(is_told), "{warnings:?}");
    let egm4 = "egm4".parse().unwrap();
    assert!(!report.claims.of(&egm4).is_empty(), "the other definitions are read");
}
