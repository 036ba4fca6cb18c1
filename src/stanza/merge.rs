//! Merges a plan into an existing domain.

mod machine;

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

use super::elements;
use super::{Options, Parts};
use crate::domain::edit::Edit;
use crate::domain::element::Element;
use crate::domain::xml::child;
use crate::domain::{self, Cell, DeviceOverride, Dialect, Domain, EgmDevice, Hostdev, Maybe};
use crate::plan::{Placement, Plan, PlannedCell};
use crate::values::{Bytes, PciAddress};

/// The order in which libvirt writes the children of `<domain>` (`virDomainDefFormatInternal`,
/// `src/conf/domain_conf.c`), as far as needed here. It reads them in any order.
const DOMAIN: &str = "\
    name uuid hwuuid genid title description metadata maxMemory memory currentMemory \
    blkiotune memtune memoryBacking vcpu vcpus iothreads iothreadids defaultiothread cputune \
    numatune resource sysinfo bootloader os idmap features cpu clock on_poweroff on_crash pm \
    perf devices";

/// The order of the children of `<devices>`.
const DEVICES: &str = "\
    emulator disk controller lease filesystem interface smartcard serial parallel console \
    channel input tpm graphics sound audio video hostdev redirdev watchdog memballoon rng \
    panic shmem memory iommu";

const HOSTDEV: &str = "driver source readonly shareable boot alias rom acpi address";
const MEMORY: &str = "source target";
const TARGET: &str = "size node pciDev";
const BACKING: &str = "hugepages nosharepages locked source access discard allocation";
/// Up to the last one that is written here (`virDomainFeature`, `src/conf/domain_conf.h`).
const FEATURES: &str = "\
    acpi apic pae hap viridian privnet hyperv kvm pvspinlock capabilities pmu vmport gic";
const CPU: &str = "model vendor topology cache maxphysaddr feature numa";
const CELL: &str = "distances cache";
const CPUTUNE: &str = "\
    shares period quota global_period global_quota emulator_period emulator_quota \
    iothread_period iothread_quota vcpupin";

/// Merges a plan into a domain, and preserves the rest of its text. New elements are indented by
/// `step` per level, or like the text.
pub(super) fn merge<'a>(
    document: &'a domain::Document<'_>,
    plan: &'a Plan,
    options: &'a Options,
    dialect: Dialect,
) -> String {
    let parts = options.parts;
    let step = options.indent.map(|spaces| " ".repeat(spaces));
    let (domain, node) = (document.domain(), document.element());
    let document = document.xml();
    let is_managed = !options.unmanaged;
    let edit = Edit::of(document, step);
    let mut merge = Merge { document, domain, edit, plan, parts, dialect, is_managed };
    let mut new = Vec::new();
    if parts.numa {
        merge.numa(node, &mut new);
    }
    if parts.machine {
        merge.machine(node, &mut new);
    }
    merge.cpu(node, &mut new);
    merge.pins(node, &mut new);
    let mut devices = merge.devices();
    devices.extend(merge.pci());
    if parts.machine {
        devices.extend(merge.balloon(child(node, "devices")));
    }
    match child(node, "devices") {
        Some(parent) => merge.edit.insert(parent, DEVICES, devices),
        None if devices.is_empty() => {}
        None => new.push(Element::new("devices").children(devices)),
    }
    merge.edit.insert(node, DOMAIN, new);
    merge.edit.apply()
}

struct Merge<'a, 'input> {
    document: &'a Document<'input>,
    domain: &'a Domain,
    edit: Edit<'a>,
    plan: &'a Plan,
    parts: Parts,
    dialect: Dialect,
    is_managed: bool,
}

impl<'a, 'input> Merge<'a, 'input> {
    /// Updates existing devices; returns the devices to insert.
    fn devices(&mut self) -> Vec<Element> {
        let (plan, parts, is_managed) = (self.plan, self.parts, self.is_managed);
        let mut new = Vec::new();
        for placement in self.plan.by_address() {
            match self.domain.hostdev(placement.gpu).cloned() {
                Some(hostdev) => self.update_hostdev(&hostdev, placement),
                None if parts.hostdev => {
                    new.push(elements::hostdev(placement, plan, parts.numa, is_managed));
                }
                None => {}
            }
        }
        for device in &plan.machine.devices {
            match self.domain.hostdev(device.address) {
                Some(hostdev) => self.update_device_of_host(hostdev, device.address),
                None => new.push(elements::device(*device, plan, is_managed)),
            }
        }
        for placement in &self.plan.placements {
            let is_it = |device: &&EgmDevice| self.plan.of_device(device) == Some(placement);
            match self.domain.egm.iter().find(is_it).cloned() {
                Some(device) => self.update_device(&device, placement),
                None => new.push(elements::memory_device(placement)),
            }
        }
        new
    }

    fn update_device_of_host(&mut self, hostdev: &Hostdev, address: PciAddress) {
        let Some(node) = self.document.get_node(hostdev.node) else { return };
        let mut new = Vec::new();
        self.place(hostdev, node, address, &mut new);
        self.edit.insert(node, HOSTDEV, new);
    }

    fn update_hostdev(&mut self, hostdev: &Hostdev, placement: &Placement) {
        let Some(node) = self.document.get_node(hostdev.node) else { return };
        let mut new = Vec::new();
        match child(node, "alias") {
            Some(alias) => self.edit.set_attribute(alias, "name", &placement.alias),
            None => new.push(elements::alias(&placement.alias)),
        }
        // <qemu:override> names the device by its alias.
        let old = hostdev.alias.as_ref().map(|alias| &alias.text);
        let is_its =
            |it: &&DeviceOverride| old.is_some() && it.alias.as_ref().map(|it| &it.text) == old;
        for overriding in self.domain.overrides.iter().filter(is_its) {
            if let Some(node) = self.document.get_node(overriding.node) {
                self.edit.set_attribute(node, "alias", &placement.alias);
            }
        }
        if let Some(cells) = placement.gpu_cells.as_ref().filter(|_| self.parts.numa) {
            match child(node, "acpi") {
                Some(acpi) => self.edit.set_attribute(acpi, "nodeset", &cells.to_string()),
                None => new.push(elements::acpi(cells)),
            }
        }
        self.place(hostdev, node, placement.gpu, &mut new);
        self.edit.insert(node, HOSTDEV, new);
    }

    fn update_device(&mut self, device: &EgmDevice, placement: &Placement) {
        let Some(node) = self.document.get_node(device.node) else { return };
        self.edit.set_attribute(node, "access", "shared");
        let mut new = Vec::new();
        match child(node, "source") {
            Some(source) => {
                let is_right = device.path.as_ref().is_some_and(|it| it.text == placement.path);
                let mut path = Vec::new();
                self.put_text(source, "path", is_right, &placement.path, &mut path);
                self.edit.insert(source, "", path);
            }
            None => new.push(elements::source(placement)),
        }
        match child(node, "target") {
            Some(target) => self.update_target(target, device, placement),
            None => new.push(elements::target(placement)),
        }
        self.edit.insert(node, MEMORY, new);
    }

    fn update_target(&mut self, target: Node<'_, '_>, device: &EgmDevice, placement: &Placement) {
        let mut new = Vec::new();
        self.put_size(target, "size", device.size.known(), placement.size, &mut new);
        let is_right = device.cell.known() == Some(placement.cell);
        self.put_text(target, "node", is_right, &placement.cell.to_string(), &mut new);
        let is_right = device.pci_dev.as_ref().is_some_and(|it| it.text == placement.alias);
        self.put_text(target, "pciDev", is_right, &placement.alias, &mut new);
        self.edit.insert(target, TARGET, new);
    }

    /// Updates memory, cells and virtual CPUs; returns the children of `<domain>` to insert.
    fn numa(&mut self, domain: Node<'a, 'input>, new: &mut Vec<Element>) {
        let memory = self.plan.memory;
        // libvirt requires it with any memory device (`virDomainMemoryDefValidate`).
        let found = self.domain.max_memory.known();
        self.put_size(domain, "maxMemory", found, found.unwrap_or(memory).max(memory), new);
        self.put_size(domain, "memory", self.domain.memory.known(), memory, new);
        if let Some(node) = child(domain, "currentMemory") {
            self.set_size(node, self.domain.current_memory.known(), memory);
        }
        match child(domain, "memoryBacking") {
            Some(backing) => self.backing(backing),
            None => new.push(elements::memory_backing()),
        }
        self.vcpus(domain, new);
    }

    /// Updates the CPUs; returns the children of `<domain>` to insert.
    fn cpu(&mut self, domain: Node<'a, 'input>, new: &mut Vec<Element>) {
        let Some(cpu) = child(domain, "cpu") else {
            return new.extend(elements::cpu(self.plan, self.parts));
        };
        let mut parts = Vec::new();
        if self.parts.machine {
            self.mode_and_topology(cpu, &mut parts);
        }
        match child(cpu, "numa") {
            _ if !self.parts.numa => {}
            Some(numa) => self.cells(numa),
            None => parts.push(elements::numa(self.plan)),
        }
        self.edit.insert(cpu, CPU, parts);
    }

    /// Adds missing firmware and features; returns the children of `<domain>` to insert. An existing
    /// loader or GIC is kept.
    fn machine(&mut self, domain: Node<'_, '_>, new: &mut Vec<Element>) {
        match child(domain, "os") {
            Some(os) if child(os, "loader").is_some() => {}
            Some(os) => self.edit.set_attribute(os, "firmware", "efi"),
            None => new.push(elements::os()),
        }
        match child(domain, "features") {
            Some(features) => {
                let missing = elements::feature_parts().into_iter();
                let missing = missing.filter(|part| child(features, part.name()).is_none());
                self.edit.insert(features, FEATURES, missing.collect());
            }
            None => new.push(elements::features()),
        }
    }

    fn backing(&mut self, backing: Node<'_, '_>) {
        let mut new = Vec::new();
        if let Some(pages) = child(backing, "hugepages").filter(|_| self.plan.machine.replaces) {
            self.edit.remove(pages);
        }
        for part in elements::backing_parts() {
            match (part.name(), child(backing, part.name())) {
                (_, None) => new.push(part),
                ("source", Some(source)) => self.edit.set_attribute(source, "type", "file"),
                ("access", Some(access)) => self.edit.set_attribute(access, "mode", "shared"),
                // Keep the domain's allocation mode.
                _ => {}
            }
        }
        self.edit.insert(backing, BACKING, new);
    }

    fn vcpus(&mut self, domain: Node<'_, '_>, new: &mut Vec<Element>) {
        let Some(count) = self.plan.vcpus else { return };
        let Some(vcpu) = child(domain, "vcpu") else {
            return new.push(elements::vcpu(count));
        };
        if self.domain.vcpus.known() != Some(count) {
            self.edit.set_text(vcpu, &count.to_string());
            let current = self.domain.current_vcpus.known();
            if current.is_some_and(|current| current > count) {
                self.edit.set_attribute(vcpu, "current", &count.to_string());
            }
        }
    }

    fn cells(&mut self, numa: Node<'a, 'input>) {
        let (mut existing, mut new) = (BTreeMap::new(), Vec::new());
        for planned in &self.plan.cells {
            let is_it = |cell: &&Cell| cell.id.value == Some(planned.id);
            match self.domain.cells.iter().find(is_it).cloned() {
                Some(cell) => {
                    self.update_cell(&cell, planned);
                    existing.extend(self.document.get_node(cell.node).map(|it| (planned.id, it)));
                }
                None => new.push((planned.id, elements::cell(planned, self.plan))),
            }
        }
        self.edit.insert_numbered(numa, "cell", &existing, new);
    }

    fn update_cell(&mut self, cell: &Cell, planned: &PlannedCell) {
        let Some(node) = self.document.get_node(cell.node) else { return };
        if cell.memory.known() != Some(planned.memory) {
            self.edit.set_attribute(node, "memory", &elements::in_kib(planned.memory));
            self.edit.set_attribute(node, "unit", "KiB");
        }
        match &planned.cpus {
            Some(cpus) if cell.cpus.known().as_ref() != Some(cpus) => {
                self.edit.set_attribute(node, "cpus", &cpus.to_string());
            }
            None if self.plan.shares_vcpus => self.edit.remove_attribute(node, "cpus"),
            _ => {}
        }
        self.distances(node, planned.id);
    }

    /// Sets the text of a child, unless it is right; a missing child is added to `new`.
    fn put_text(
        &mut self,
        parent: Node<'_, '_>,
        name: &'static str,
        is_right: bool,
        text: &str,
        new: &mut Vec<Element>,
    ) {
        match child(parent, name) {
            Some(_) if is_right => {}
            Some(node) => self.edit.set_text(node, text),
            None => new.push(Element::new(name).text(text)),
        }
    }

    /// Sets the size in a child; a missing child is added to `new`.
    fn put_size(
        &mut self,
        parent: Node<'_, '_>,
        name: &'static str,
        found: Option<Bytes>,
        size: Bytes,
        new: &mut Vec<Element>,
    ) {
        match child(parent, name) {
            Some(node) => self.set_size(node, found, size),
            None => new.push(elements::size(name, size)),
        }
    }

    /// Sets the size in an element, unless it has the size already, in any unit.
    fn set_size(&mut self, node: Node<'_, '_>, found: Option<Bytes>, size: Bytes) {
        if found != Some(size) {
            self.edit.set_attribute(node, "unit", "KiB");
            self.edit.set_text(node, &elements::in_kib(size));
        }
    }
}
