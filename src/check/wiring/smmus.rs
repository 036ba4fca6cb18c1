//! Rules for the `SMMUv3` of each bus.

use std::collections::{BTreeMap, VecDeque};

use super::{Gpu, Wiring, bus_name, is_expander};
use crate::check::Findings;
use crate::check::rules::{GPU_SMMU, SMMU_BUS};
use crate::domain::{Bus, Iommu, Maybe, PciController, PciMachine};

pub(super) fn check(wiring: &Wiring<'_>, findings: &mut Findings) {
    let expanders = Expanders::of(&wiring.machine);
    let mut lacking = lacking(wiring);
    for smmu in wiring.machine.iommus().iter().filter(|iommu| iommu.is_smmuv3()) {
        check_bus(&wiring.machine, smmu, &expanders, &mut lacking, findings);
    }
    check_count(wiring, lacking, findings);
}

/// A GPU whose expander bus has no `SMMUv3`.
struct Lacking<'w> {
    bus: &'w Bus,
    expander: &'w PciController,
    gpu: &'w Gpu<'w>,
}

/// The expander buses of GPUs without an `SMMUv3`, each with one of its GPUs.
fn lacking<'w>(wiring: &'w Wiring<'w>) -> VecDeque<Lacking<'w>> {
    let smmus = wiring.machine.iommus_by_bus();
    let mut buses = BTreeMap::new();
    for gpu in &wiring.gpus {
        if let Some(root) = &gpu.root {
            buses.entry(root).or_insert(gpu);
        }
    }
    let has_none =
        |bus: &Bus| !smmus.get(bus).is_some_and(|all| all.iter().any(|it| it.is_smmuv3()));
    let lacking = buses.into_iter().filter_map(|(bus, gpu)| {
        let expander =
            wiring.machine.controller(bus).filter(|it| is_expander(it) && has_none(bus))?;
        Some(Lacking { bus, expander, gpu })
    });
    lacking.collect()
}

/// The first of them as the value of `pciBus`, for an `SMMUv3` of another bus.
fn instead(lacking: &mut VecDeque<Lacking<'_>>) -> Option<String> {
    let Lacking { bus, gpu, .. } = lacking.pop_front()?;
    Some(format!("pciBus='{}', the bus of GPU {}", bus_name(bus), super::name(gpu.hostdev)))
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

    fn help(&self, lacking: &mut VecDeque<Lacking<'_>>) -> String {
        instead(lacking).unwrap_or_else(|| self.help.clone())
    }
}

fn check_bus(
    machine: &PciMachine,
    smmu: &Iommu,
    expanders: &Expanders,
    lacking: &mut VecDeque<Lacking<'_>>,
    findings: &mut Findings,
) {
    let Some(bus) = smmu.bus() else {
        let message = "an SMMUv3 without pciBus is that of the whole machine, not of a GPU";
        findings.add(SMMU_BUS, &smmu.span, message).help(expanders.help(lacking));
        return;
    };
    if bus.value.as_ref().is_some_and(|bus| has_smmu(machine, bus)) {
        return;
    }
    let shown = bus.shown();
    let message = format!("`{shown}` is not the index of an expander bus");
    let number = match bus.value {
        Some(Bus::Index(number)) => Some(number),
        _ => None,
    };
    let meant = number.and_then(|number| expanders.by_number.get(&number));
    let missing = number.filter(|it| machine.controller(&Bus::Index(*it)).is_none());
    let help = match (meant, missing) {
        (Some(index), _) => {
            lacking.retain(|it| *it.bus != Bus::Index(*index));
            format!("did you mean pciBus='{index}'? Its busNr is {shown}")
        }
        (None, Some(index)) if lacking.is_empty() => format!(
            "add <controller type='pci' index='{index}' model='pcie-expander-bus'>, or remove this <iommu>"
        ),
        (None, _) => expanders.help(lacking),
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
fn check_count(wiring: &Wiring<'_>, mut lacking: VecDeque<Lacking<'_>>, findings: &mut Findings) {
    for (bus, mut smmus) in wiring.machine.iommus_by_bus() {
        smmus.retain(|iommu| iommu.is_smmuv3());
        if let Some(second) = smmus.get(1) {
            let message = format!("bus {} has {} SMMUv3", bus_name(&bus), smmus.len());
            // The one too many is probably that of a bus without one.
            let help = instead(&mut lacking).unwrap_or_else(|| "one for each expander bus".into());
            findings.add(GPU_SMMU, &second.span, message).help(help);
        }
    }
    for Lacking { bus, expander, gpu } in lacking {
        let (bus, gpu) = (bus_name(bus), super::name(gpu.hostdev));
        let message = format!("expander bus {bus} of GPU {gpu} has no SMMUv3");
        let help = format!("<iommu model='smmuv3'><driver pciBus='{bus}' accel='on' ../></iommu>");
        findings.add(GPU_SMMU, &expander.span, message).help(help);
    }
}
