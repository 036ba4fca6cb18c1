//! Merges the machine around the devices: controllers, SMMUs, addresses, CPUs, distances, pinning.

use std::collections::BTreeMap;

use roxmltree::Node;

use super::{CELL, CPUTUNE, Merge};
use crate::domain::element::Element;
use crate::domain::xml::{child, children};
use crate::domain::{Bus, GuestAddress, Hostdev, IdSizeName, Iommu, PciController, PciMachine};
use crate::plan::{ExpanderBus, PciPlan, Pin, Smmu};
use crate::stanza::{elements, machine_elements};
use crate::values::{Bytes, PciAddress};

impl Merge<'_, '_> {
    /// Updates existing controllers and SMMUs; returns the devices to insert.
    pub(super) fn pci(&mut self) -> Vec<Element> {
        let Some(pci) = &self.plan.machine.pci else { return Vec::new() };
        let machine = PciMachine::of(self.domain);
        let mut new = self.hole(&machine, pci);
        for bus in &pci.buses {
            self.update_bus(&machine, bus);
        }
        if self.plan.machine.replaces {
            let kind = if pci.iommufd { Smmu::Accelerated } else { Smmu::Emulated };
            let by_bus = machine.iommus_by_bus();
            let kept = pci.buses.iter().filter_map(|bus| by_bus.get(&Bus::Index(bus.index)));
            for iommu in kept.flatten() {
                self.update_smmu(iommu, kind);
            }
            // An SMMU without a bus, or of a missing one, serves no GPU.
            let is_lost = |iommu: &&Iommu| match iommu.bus() {
                Some(bus) => {
                    let missing = |bus| machine.controller(&bus).is_none() && bus != Bus::Index(0);
                    bus.value.is_some_and(missing)
                }
                None => true,
            };
            let lost = self.domain.iommus.iter().filter(is_lost);
            for node in lost.filter_map(|iommu| self.document.get_node(iommu.node?)) {
                self.edit.remove(node);
            }
        }
        let (controllers, smmus) = machine_elements::buses(pci, self.dialect);
        new.extend(controllers.into_iter().chain(smmus));
        new
    }

    /// Enlarges the window for large PCI devices, also to a power of two, without which QEMU does not
    /// start; returns the first bus if it is missing.
    fn hole(&mut self, machine: &PciMachine, pci: &PciPlan) -> Vec<Element> {
        let own = machine.hole().and_then(|hole| hole.value);
        let rounded = own.and_then(|own| own.0.checked_next_power_of_two()).map(Bytes);
        let size = rounded.map_or(pci.hole, |rounded| rounded.max(pci.hole));
        if own == Some(size) {
            return Vec::new();
        }
        let is_first = |it: &&PciController| it.bus() == Some(Bus::Index(0));
        let first = self.domain.pci_controllers.iter().find(is_first);
        let Some(node) = first.and_then(|first| self.document.get_node(first.node?)) else {
            return vec![machine_elements::first_bus(size)];
        };
        match child(node, "pcihole64") {
            Some(hole) => self.set_size(hole, None, size),
            None => self.edit.insert(node, "", vec![machine_elements::hole(size)]),
        }
        Vec::new()
    }

    /// Sets the cell of an existing bus that has none, or another one that is to be replaced.
    fn update_bus(&mut self, machine: &PciMachine, bus: &ExpanderBus) {
        let controller = machine.controller(&Bus::Index(bus.index)).filter(|_| bus.new.is_none());
        let Some(controller) = controller else { return };
        let cell = controller.target.node.as_ref();
        let is_kept = cell.is_some_and(|cell| cell.value == Some(bus.cell))
            || cell.is_some() && !self.plan.machine.replaces;
        let node = controller.node.and_then(|node| self.document.get_node(node));
        let Some(node) = node.filter(|_| !is_kept) else { return };
        let cell = machine_elements::node(bus.cell);
        let Some(target) = child(node, "target") else {
            let target = Element::new("target").child(cell);
            return self.edit.insert(node, "model target", vec![target]);
        };
        match child(target, "node") {
            Some(node) => self.edit.set_text(node, &bus.cell.to_string()),
            None => self.edit.insert(target, "", vec![cell]),
        }
    }

    fn update_smmu(&mut self, iommu: &Iommu, kind: Smmu) {
        let node = iommu.node.and_then(|node| self.document.get_node(node));
        let Some(driver) = node.and_then(|node| child(node, "driver")) else { return };
        let attributes = machine_elements::smmu_attributes(kind, self.dialect);
        let is_written = |name: &str| attributes.iter().any(|(written, _)| *written == name);
        let id_sizes = IdSizeName::ALL.iter().map(|name| name.name());
        let others = Iommu::ACCELERATED_ONLY.iter().filter(|_| kind != Smmu::Accelerated);
        for name in id_sizes.chain(others.copied()).filter(|name| !is_written(name)) {
            self.edit.remove_attribute(driver, name);
        }
        for (name, value) in &attributes {
            self.edit.set_attribute(driver, name, value);
        }
    }

    /// Puts a `<hostdev>` below its root port, and makes it use iommufd; adds missing children to
    /// `new`.
    pub(super) fn place(
        &mut self,
        hostdev: &Hostdev,
        node: Node<'_, '_>,
        device: PciAddress,
        new: &mut Vec<Element>,
    ) {
        let Some(pci) = &self.plan.machine.pci else { return };
        let of_domain = self.domain.iommufd.as_ref();
        let iommufd = hostdev.iommufd.as_ref().or(of_domain).map(|it| it.value);
        let is_kept =
            iommufd == Some(Some(true)) || iommufd.is_some() && !self.plan.machine.replaces;
        if pci.iommufd && !is_kept {
            match child(node, "driver") {
                Some(driver) => self.edit.set_attribute(driver, "iommufd", "yes"),
                None => new.push(machine_elements::iommufd()),
            }
        }
        let Some(port) = pci.port_of(device) else { return };
        let is_on_port =
            hostdev.guest.as_ref().and_then(GuestAddress::on_bus) == Some(Bus::Index(port));
        let place = hostdev.guest.as_ref().and_then(GuestAddress::place);
        let is_first = place.is_some_and(|place| (place.slot, place.function) == (0, 0));
        if is_on_port && (is_first || !self.plan.machine.replaces) {
            return;
        }
        let Some(address) = child(node, "address") else {
            return new.push(machine_elements::guest_address(port, 0));
        };
        self.edit.set_attribute(address, "type", "pci");
        for (name, value) in machine_elements::address_parts(port, 0) {
            self.edit.set_attribute(address, name, &value);
        }
        self.edit.remove_attribute(address, "multifunction");
    }

    /// Sets the model of the CPUs if the domain has none; adds the topology to `new`.
    pub(super) fn mode_and_topology(&mut self, cpu: Node<'_, '_>, new: &mut Vec<Element>) {
        let has_model = self.domain.cpu_mode.is_some() || child(cpu, "model").is_some();
        if !has_model || self.plan.machine.replaces {
            self.edit.set_attribute(cpu, "mode", "host-passthrough");
        }
        let fits = elements::fits(self.domain, self.plan);
        let is_replaced = self.plan.machine.replaces && !fits
            || self.plan.moves_vcpus && elements::is_own_topology(self.domain);
        match child(cpu, "topology") {
            Some(topology) if is_replaced => {
                elements::set_topology(
                    &mut self.edit,
                    topology,
                    elements::topology_levels(self.plan),
                );
            }
            Some(_) => {}
            None => new.extend(elements::topology(self.plan)),
        }
    }

    /// Returns the balloon to insert: libvirt adds one unless the domain has the model `none`.
    pub(super) fn balloon(&mut self, devices: Option<Node<'_, '_>>) -> Option<Element> {
        match devices.and_then(|devices| child(devices, "memballoon")) {
            Some(balloon) if self.plan.machine.replaces => {
                self.edit.set_attribute(balloon, "model", "none");
                None
            }
            Some(_) => None,
            None => Some(machine_elements::no_balloon()),
        }
    }

    /// Completes the distances of an existing cell.
    pub(super) fn distances(&mut self, cell: Node<'_, '_>, id: u32) {
        let Some(row) = self.plan.machine.row(id) else { return };
        let Some(parent) = child(cell, "distances") else {
            return self.edit.insert(cell, CELL, vec![elements::distances(row)]);
        };
        let siblings = children(Some(parent), "sibling");
        let number = |node: Node<'_, '_>| node.attribute("id")?.parse::<u32>().ok();
        let existing: BTreeMap<_, _> =
            siblings.filter_map(|sibling| Some((number(sibling)?, sibling))).collect();
        let mut new = Vec::new();
        for (other, value) in row {
            match existing.get(other) {
                Some(sibling) => self.edit.set_attribute(*sibling, "value", &value.to_string()),
                None => new.push((*other, elements::sibling(*other, *value))),
            }
        }
        self.edit.insert_numbered(parent, "sibling", &existing, new);
    }

    /// Pins virtual CPUs; adds `<cputune>` to `new` if it is missing.
    pub(super) fn pins(&mut self, domain: Node<'_, '_>, new: &mut Vec<Element>) {
        let pins = &self.plan.machine.pins;
        let Some(cputune) = child(domain, "cputune") else {
            return new.extend((!pins.is_empty()).then(|| machine_elements::cputune(pins)));
        };
        let number = |node: Node<'_, '_>| node.attribute("vcpu")?.parse::<u32>().ok();
        let existing: BTreeMap<_, _> = children(Some(cputune), "vcpupin")
            .filter_map(|pinned| Some((number(pinned)?, pinned)))
            .collect();
        let mut missing = Vec::new();
        for pin in pins {
            let Pin { vcpu, cpu, .. } = *pin;
            match existing.get(&vcpu) {
                Some(node) => self.edit.set_attribute(*node, "cpuset", &cpu.to_string()),
                None => missing.push(machine_elements::pin(*pin)),
            }
        }
        if self.plan.machine.replaces_pins {
            let is_stale = |vcpu: &u32| pins.iter().all(|pin| pin.vcpu != *vcpu);
            for (_, node) in existing.iter().filter(|(vcpu, _)| is_stale(vcpu)) {
                self.edit.remove(*node);
            }
        }
        self.edit.insert(cputune, CPUTUNE, missing);
    }
}
