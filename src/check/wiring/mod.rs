//! Rules for the machine around EGM: PCI buses, SMMUs, the cells of the GPUs, the PCI hole.

mod buses;
mod cells;
mod features;
mod gpus;
mod hole;
mod smmus;

use std::collections::BTreeMap;

use super::rules::INCOMPLETE;
use super::{Findings, Subject};
use crate::domain::{
    Bus, ControllerModel, GuestAddress, Hostdev, Iommu, Maybe, PciController, PciMachine,
};
use crate::values::text::{SHOWN, excerpt};

/// A domain with its PCI machine, and its GPUs with EGM.
struct Wiring<'a> {
    subject: &'a Subject<'a>,
    machine: PciMachine,
    /// By the place in the definition.
    gpus: Vec<Gpu<'a>>,
}

/// A GPU with EGM.
struct Gpu<'a> {
    hostdev: &'a Hostdev,
    /// The guest cell of its EGM, unless another rule has it.
    cell: Option<u32>,
    /// The first bus of its hierarchy.
    root: Option<Bus>,
}

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let wiring = Wiring::new(subject, findings);
    if wiring.is_missing() {
        let device = subject.domain.egm.first().map_or(&subject.domain.span, |it| &it.span);
        let message = "not a complete Grace guest: no expander bus or SMMUv3";
        findings
            .add(INCOMPLETE, device, message)
            .help("`egm-probe stanza --complete --domain FILE` adds them");
        return;
    }
    smmus::check(&wiring, findings);
    buses::check(&wiring, findings);
    gpus::check(&wiring, findings);
    cells::check(&wiring, findings);
    hole::check(&wiring, findings);
    features::check(&wiring, findings);
}

impl<'a> Wiring<'a> {
    fn new(subject: &'a Subject<'a>, findings: &Findings) -> Self {
        let machine = PciMachine::of(subject.domain);
        let mut gpus = BTreeMap::new();
        for device in &subject.domain.egm {
            let Some(hostdev) = subject.hostdev(device).filter(|it| it.address.is_some()) else {
                continue;
            };
            let root = root_of(&machine, hostdev);
            let is_sure = !findings.is_settled(device) && !subject.is_foreign(device);
            let cell = device.cell.known().filter(|_| is_sure);
            let gpu = Gpu { hostdev, cell, root };
            gpus.entry(hostdev.span.start).or_insert(gpu);
        }
        Self { subject, machine, gpus: gpus.into_values().collect() }
    }

    /// Whether the domain has no part of a Grace guest except EGM.
    fn is_missing(&self) -> bool {
        let domain = self.subject.domain;
        let uses = |hostdev| self.uses_iommufd(hostdev);
        let has_iommufd = domain.iommufd.known() == Some(true) || domain.hostdevs.iter().any(uses);
        !has_iommufd && !self.has_buses()
    }

    /// Whether the domain has an expander bus or an `SMMUv3`.
    fn has_buses(&self) -> bool {
        self.machine.controllers().iter().any(is_expander)
            || self.machine.iommus().iter().any(Iommu::is_smmuv3)
    }

    fn uses_iommufd(&self, hostdev: &Hostdev) -> bool {
        self.machine.iommufd(hostdev).is_some_and(|iommufd| iommufd.value == Some(true))
    }

    /// The address of a free port below an expander bus, if possible one of this cell.
    fn free_port(&self, cell: Option<u32>) -> Option<String> {
        let occupied = self.machine.occupied();
        let ports = self.machine.controllers().iter().filter(|it| buses::is_port(it));
        let free = ports.filter_map(|port| {
            let bus = port.bus().filter(|bus| !occupied.contains_key(bus))?;
            let root = self.machine.root_of(&bus)?;
            let expander = self.machine.controller(&root).filter(|it| is_expander(it))?;
            Some((cell.is_some() && expander.target.node.known() != cell, bus))
        });
        match free.min()?.1 {
            Bus::Index(index) => Some(format!("bus='{index:#04x}' slot='0x00'")),
            Bus::Name(_) => None,
        }
    }

    /// The guest cell of the GPU at this address in the guest.
    fn cell_at(&self, address: &GuestAddress) -> Option<u32> {
        let is_it =
            |gpu: &&Gpu<'_>| gpu.hostdev.guest.as_ref().map(|it| &it.span) == Some(&address.span);
        self.gpus.iter().find(is_it)?.cell
    }

    fn is_gpu(&self, hostdev: &Hostdev) -> bool {
        let start = hostdev.span.start;
        self.gpus.binary_search_by_key(&start, |gpu| gpu.hostdev.span.start).is_ok()
    }
}

/// The first bus of the hierarchy that an assigned device is in.
pub(super) fn root_of(machine: &PciMachine, hostdev: &Hostdev) -> Option<Bus> {
    machine.root_of(&hostdev.guest.as_ref()?.on_bus()?)
}

fn is_expander(controller: &PciController) -> bool {
    controller.model.known() == Some(ControllerModel::PcieExpanderBus)
}

/// The name of an assigned device in messages.
pub(super) fn name(hostdev: &Hostdev) -> String {
    let address = || hostdev.pci().map(|address| address.to_string());
    let alias = hostdev.alias.as_ref().map(|alias| excerpt(&alias.text, SHOWN));
    alias.filter(|alias| !alias.is_empty()).or_else(address).unwrap_or_default()
}

/// The name of a bus in messages.
fn bus_name(bus: &Bus) -> String {
    match bus {
        Bus::Index(index) => index.to_string(),
        Bus::Name(name) => excerpt(name, SHOWN),
    }
}
