//! Rules for the `SMMUv3` of each bus.

use std::collections::BTreeMap;

use super::{Wiring, bus_name, is_expander};
use crate::check::Findings;
use crate::check::rules::{GPU_SMMU, SMMU_BUS};
use crate::domain::{Bus, Iommu, Maybe, PciController, PciMachine};

pub(super) fn check(wiring: &Wiring<'_>, findings: &mut Findings) {
    let expanders = Expanders::of(&wiring.machine);
    for smmu in wiring.machine.iommus().iter().filter(|iommu| iommu.is_smmuv3()) {
        check_bus(&wiring.machine, smmu, &expanders, findings);
    }
    check_count(wiring, findings);
}

/// The expander buses, to suggest one of them.
struct Expanders {
    /// Their indexes by their numbers in the guest.
    by_number: BTreeMap<u32, u32>,
    help: String,
}

impl Expanders {
    fn of(machine: &PciMachine) -> Self {
        let expanders = || machine.controllers().iter().filter(|it| is_expander(it));
        let number =
            |it: &PciController| Some((u32::from(it.target.bus_nr.known()?), it.index.known()?));
        let buses: Vec<_> =
            expanders().filter_map(PciController::bus).map(|bus| bus_name(&bus)).take(16).collect();
        let help = if buses.is_empty() {
            "<controller type='pci' model='pcie-expander-bus'>, and its index in pciBus".into()
        } else {
            format!("pciBus: the index of an expander bus, such as {}", buses.join(", "))
        };
        Self { by_number: expanders().filter_map(number).collect(), help }
    }
}

fn check_bus(machine: &PciMachine, smmu: &Iommu, expanders: &Expanders, findings: &mut Findings) {
    let Some(bus) = smmu.bus() else {
        let message = "an SMMUv3 without pciBus is that of the whole machine, not of a GPU";
        findings.add(SMMU_BUS, &smmu.span, message).help(expanders.help.clone());
        return;
    };
    if bus.value.as_ref().is_some_and(|bus| has_smmu(machine, bus)) {
        return;
    }
    let shown = bus.shown();
    let message = format!("`{shown}` is not the index of an expander bus");
    let meant = match bus.value {
        Some(Bus::Index(number)) => expanders.by_number.get(&number),
        _ => None,
    };
    let help = match meant {
        Some(index) => format!("did you mean pciBus='{index}'? Its busNr is {shown}"),
        None => expanders.help.clone(),
    };
    findings.add(SMMU_BUS, &bus.span, message).help(help);
}

/// Whether a bus may have an `SMMUv3`: that of an expander, or the first one, which libvirt adds.
fn has_smmu(machine: &PciMachine, bus: &Bus) -> bool {
    match machine.controller(bus) {
        Some(controller) => controller.is_root(),
        None => *bus == Bus::Index(0),
    }
}

/// Every bus has one `SMMUv3` at most, and one with a GPU has one.
fn check_count(wiring: &Wiring<'_>, findings: &mut Findings) {
    let mut smmus = wiring.machine.iommus_by_bus();
    for (bus, smmus) in &mut smmus {
        smmus.retain(|iommu| iommu.is_smmuv3());
        if let Some(second) = smmus.get(1) {
            let message = format!("bus {} has {} SMMUv3", bus_name(bus), smmus.len());
            findings.add(GPU_SMMU, &second.span, message).help("one for each expander bus");
        }
    }
    // The one that is missing is probably one with a wrong bus.
    if findings.has(&[SMMU_BUS]) {
        return;
    }
    let mut buses = BTreeMap::new();
    for gpu in &wiring.gpus {
        if let Some(root) = &gpu.root {
            buses.entry(root).or_insert(gpu);
        }
    }
    for (bus, gpu) in buses {
        let Some(controller) = wiring.machine.controller(bus).filter(|it| is_expander(it)) else {
            continue;
        };
        if smmus.get(bus).is_none_or(Vec::is_empty) {
            let (bus, gpu) = (bus_name(bus), super::name(gpu.hostdev));
            let message = format!("expander bus {bus} of GPU {gpu} has no SMMUv3");
            let help =
                format!("<iommu model='smmuv3'><driver pciBus='{bus}' accel='on' ../></iommu>");
            findings.add(GPU_SMMU, &controller.span, message).help(help);
        }
    }
}
