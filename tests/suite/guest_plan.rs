//! Plans of the machine of a Grace guest, for hosts with other facts than the recorded ones.

use std::collections::BTreeMap;

use egm_probe::domain::{Dialect, Document};
use egm_probe::plan::{DistanceChoice, Machine, MachineObjection, Objection, Plan, Request};
use egm_probe::report::Report;
use egm_probe::stanza::{Options, Parts, Stanza};
use egm_probe::sysroot::Sysroot;
use egm_probe::values::NodeId;

use crate::support;

fn report(machine: &str) -> Report {
    let root = Sysroot::capture(&support::machine(machine)).unwrap();
    Report::read(&root, Plan::MACHINE_NEEDS)
}

fn request() -> Request {
    let mut request = Request::everything();
    request.gpu_cells = 8;
    request.vcpus = Some(8);
    request.machine.pci = true;
    request.machine.pinning = true;
    request.machine.distances = Some(DistanceChoice::Known);
    request
}

fn planned(report: &Report, request: &Request) -> (Machine, Vec<Objection>) {
    let plan = Plan::new(report, request, None).unwrap();
    (plan.machine, plan.warnings)
}

#[test]
fn distances_are_those_of_the_host_if_all_are_known() {
    let mut report = report("gb200-full-gpu-list");
    let distances = |report: &Report, choice| {
        let mut request = request();
        request.machine.distances = Some(choice);
        planned(report, &request).0.distances.unwrap()
    };
    let nodes = &mut report.host.topology.nodes;
    let [of_first, other] = [2, 3].map(NodeId);
    nodes.get_mut(&of_first).unwrap().distances.as_mut().unwrap().insert(other, 10);
    let host = distances(&report, DistanceChoice::Known);
    let row = |row: &BTreeMap<u32, u8>| [0, 1, 2, 3, 10, 18].map(|to| row[&to]);
    assert!(host.are_of_host);
    assert_eq!(row(&host.rows[&0]), [10, 40, 80, 80, 80, 120]);
    assert_eq!(row(&host.rows[&2]), [80, 120, 10, 11, 40, 40], "10 of the host became 11");

    report.host.topology.nodes.get_mut(&of_first).unwrap().distances = None;
    let fixed = distances(&report, DistanceChoice::Known);
    assert!(!fixed.are_of_host);
    assert_eq!(fixed, distances(&report, DistanceChoice::Grace));
    assert_eq!(row(&fixed.rows[&0]), [10, 40, 80, 80, 80, 120]);
    assert_eq!(row(&fixed.rows[&2]), [80, 120, 10, 11, 40, 40]);
    let mut request = request();
    request.machine.distances = Some(DistanceChoice::Host);
    let refused = Plan::new(&report, &request, None).unwrap_err();
    let expected = MachineObjection::NoDistance { from: 0, to: 2 };
    let is_it = |it: &Objection| matches!(it, Objection::Machine(it) if std::mem::discriminant(it) == std::mem::discriminant(&expected));
    assert!(refused.refusals.iter().any(is_it), "{refused}");
}

#[test]
fn a_host_without_iommufd_gets_emulated_smmus() {
    let mut report = report("gh200-full");
    report.host.iommufd = Some(false);
    let plan = Plan::new(&report, &request(), None).unwrap();
    assert!(plan.warnings.contains(&Objection::Machine(MachineObjection::NoIommufd)));
    let document = Document::parse("<domain type='kvm'><name>x</name></domain>").unwrap();
    let mut options = Options::of(Parts::all());
    options.dialect = Some(Dialect::Nvidia12_4);
    let stanza = Stanza::within(&report, plan, &document, &options).unwrap();
    assert!(stanza.xml.contains("<driver pciBus='1' accel='off'/>"), "{}", stanza.xml);
    assert!(!stanza.xml.contains("iommufd="));
}

#[test]
fn the_hole_is_large_enough_for_all_gpus() {
    let mut report = report("gb200-full-gpu-list");
    let hole = |report: &Report| planned(report, &request()).0.pci.unwrap().hole.0 >> 40;
    assert_eq!(hole(&report), 4);
    let with_bars_of = |report: &mut Report, size: u64| {
        let gpus = report.host.regions.iter_mut().flat_map(|region| &mut region.gpus);
        for bar in gpus.flat_map(|gpu| gpu.bars.iter_mut().flatten()).filter(|bar| bar.index == 2) {
            bar.size.0 = size;
        }
    };
    with_bars_of(&mut report, 2 << 40);
    assert_eq!(hole(&report), 16);
    with_bars_of(&mut report, 4 << 40);
    let refused = Plan::new(&report, &request(), None).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the GPUs need a 64-bit PCI hole of 32 TiB, but at most 16 TiB is possible"
    );
    // An unknown model without BARs.
    for region in &mut report.host.regions {
        for gpu in &mut region.gpus {
            (gpu.device_id, gpu.bars) = (Some(0x3041), None);
        }
    }
    let (machine, warnings) = planned(&report, &request());
    assert_eq!(machine.pci.unwrap().hole.0, 4 << 40);
    let unknown =
        |it: &&Objection| matches!(it, Objection::Machine(MachineObjection::UnknownModel { .. }));
    assert_eq!(warnings.iter().filter(unknown).count(), 4);
}
