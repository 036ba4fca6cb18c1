//! The elements of a plan, as libvirt writes them.

use std::collections::BTreeMap;

use roxmltree::Node;

use super::Parts;
use super::machine_elements::{self, guest_address};
use crate::domain::edit::Edit;
use crate::domain::element::Element;
use crate::domain::{Domain, Maybe};
use crate::plan::{Device, Placement, Plan, PlannedCell};
use crate::values::{Bytes, IdList, PciAddress};

/// The `<memory model='egm'>` of a GPU.
pub(super) fn memory_device(placement: &Placement) -> Element {
    Element::new("memory")
        .attribute("model", "egm")
        .attribute("access", "shared")
        .child(source(placement))
        .child(target(placement))
}

pub(super) fn source(placement: &Placement) -> Element {
    Element::new("source").child(Element::new("path").text(&placement.path))
}

pub(super) fn target(placement: &Placement) -> Element {
    Element::new("target")
        .child(size("size", placement.size))
        .child(Element::new("node").text(placement.cell))
        .child(Element::new("pciDev").text(&placement.alias))
}

/// The `<hostdev>` of a GPU.
pub(super) fn hostdev(
    placement: &Placement,
    plan: &Plan,
    with_cells: bool,
    managed: bool,
) -> Element {
    let cells = placement.gpu_cells.as_ref().filter(|_| with_cells);
    let pci = plan.machine.pci.as_ref();
    let port = pci.and_then(|pci| pci.port_of(placement.gpu));
    machine_elements::hostdev(placement.gpu, managed, pci.is_some_and(|pci| pci.iommufd))
        .child(alias(&placement.alias))
        .children(cells.map(acpi))
        .children(port.map(|port| guest_address(port, 0)))
}

/// The `<hostdev>` of another function.
pub(super) fn device(device: Device, plan: &Plan, managed: bool) -> Element {
    let pci = plan.machine.pci.as_ref();
    let port = pci.and_then(|pci| pci.port_of(device.address));
    machine_elements::hostdev(device.address, managed, pci.is_some_and(|pci| pci.iommufd))
        .children(port.map(|port| guest_address(port, 0)))
}

/// The parts of an address on the host.
pub(super) fn address_parts(gpu: PciAddress) -> [(&'static str, String); 4] {
    [
        ("domain", format!("0x{:04x}", gpu.domain())),
        ("bus", format!("0x{:02x}", gpu.bus())),
        ("slot", format!("0x{:02x}", gpu.slot())),
        ("function", format!("0x{:x}", gpu.function())),
    ]
}

pub(super) fn address(gpu: PciAddress) -> Element {
    Element::new("address").attributes(address_parts(gpu))
}

pub(super) fn alias(name: &str) -> Element {
    Element::new("alias").attribute("name", name)
}

/// The cells of a GPU's own memory.
pub(super) fn acpi(cells: &IdList) -> Element {
    Element::new("acpi").attribute("nodeset", cells)
}

/// An element with a size of memory.
pub(super) fn size(name: &'static str, size: Bytes) -> Element {
    Element::new(name).attribute("unit", "KiB").text(in_kib(size))
}

pub(super) fn in_kib(size: Bytes) -> String {
    (size.0 >> 10).to_string()
}

pub(super) fn memory_backing() -> Element {
    Element::new("memoryBacking").children(backing_parts())
}

/// Shared memory from files, allocated at the start.
pub(super) fn backing_parts() -> [Element; 3] {
    [
        Element::new("source").attribute("type", "file"),
        Element::new("access").attribute("mode", "shared"),
        Element::new("allocation").attribute("mode", "immediate"),
    ]
}

/// UEFI, which ACPI requires on aarch64.
pub(super) fn os() -> Element {
    let machine = Element::new("type").attribute("arch", "aarch64").attribute("machine", "virt");
    Element::new("os").attribute("firmware", "efi").child(machine.text("hvm"))
}

pub(super) fn features() -> Element {
    Element::new("features").children(feature_parts())
}

/// ACPI, which is required for EGM, and Grace's interrupt controller.
pub(super) fn feature_parts() -> [Element; 2] {
    [Element::new("acpi"), Element::new("gic").attribute("version", "3")]
}

pub(super) fn vcpu(count: u32) -> Element {
    Element::new("vcpu").attribute("placement", "static").text(count)
}

/// The CPUs: with `numa` the cells, with `machine` the model and the topology.
pub(super) fn cpu(plan: &Plan, parts: Parts) -> Option<Element> {
    let cpu = Element::new("cpu");
    let cpu = if parts.machine {
        cpu.attribute("mode", "host-passthrough").children(topology(plan))
    } else {
        cpu
    };
    (parts.machine || parts.numa).then(|| cpu.children(parts.numa.then(|| numa(plan))))
}

/// A socket for each region.
pub(super) fn topology(plan: &Plan) -> Option<Element> {
    Some(Element::new("topology").attributes(topology_levels(plan)?))
}

/// The levels of the topology. `None` if the sockets would differ in size.
pub(super) fn topology_levels(plan: &Plan) -> Option<Levels> {
    levels(plan.vcpus?, plan.cells.iter().filter(|cell| cell.memory.0 > 0).count())
}

type Levels = [(&'static str, u32); 5];

/// The levels of a topology with this many sockets.
pub(super) fn levels(vcpus: u32, sockets: usize) -> Option<Levels> {
    let sockets = u32::try_from(sockets).ok()?;
    let cores = vcpus.checked_div(sockets).filter(|cores| *cores > 0)?;
    let levels =
        [("sockets", sockets), ("dies", 1), ("clusters", 1), ("cores", cores), ("threads", 1)];
    (Some(vcpus) == sockets.checked_mul(cores)).then_some(levels)
}

/// Whether the topology of a domain is as it is written for a plan: a socket for each cell with
/// virtual CPUs.
pub(super) fn is_own_topology(domain: &Domain) -> bool {
    let sockets = domain.cells.iter().filter(|cell| cell.cpus.is_some()).count();
    let own = domain.vcpus.known().and_then(|vcpus| levels(vcpus, sockets));
    domain.topology.as_ref().zip(own).is_some_and(|(topology, own)| {
        topology
            .levels
            .iter()
            .map(|(name, level)| (*name, level.value))
            .eq(own.iter().map(|(name, level)| (*name, Some(*level))))
    })
}

/// Whether the topology of a domain has as many CPUs as a plan.
pub(super) fn fits(domain: &Domain, plan: &Plan) -> bool {
    domain.topology.as_ref().is_some_and(|it| it.cpus.is_some() && it.cpus == plan.vcpus)
}

/// Replaces the levels of a topology; removes it if there are none.
pub(super) fn set_topology(edit: &mut Edit<'_>, node: Node<'_, '_>, levels: Option<Levels>) {
    let Some(levels) = levels else { return edit.remove(node) };
    for (name, count) in levels {
        edit.set_attribute(node, name, &count.to_string());
    }
}

pub(super) fn numa(plan: &Plan) -> Element {
    Element::new("numa").children(plan.cells.iter().map(|planned| cell(planned, plan)))
}

pub(super) fn cell(cell: &PlannedCell, plan: &Plan) -> Element {
    let element = Element::new("cell").attribute("id", cell.id);
    let element = match &cell.cpus {
        Some(cpus) => element.attribute("cpus", cpus),
        None => element,
    };
    element
        .attribute("memory", in_kib(cell.memory))
        .attribute("unit", "KiB")
        .children(plan.machine.row(cell.id).map(distances))
}

/// The distances of a cell.
pub(super) fn distances(row: &BTreeMap<u32, u8>) -> Element {
    Element::new("distances").children(row.iter().map(|(cell, value)| sibling(*cell, *value)))
}

pub(super) fn sibling(cell: u32, value: u8) -> Element {
    Element::new("sibling").attribute("id", cell).attribute("value", value)
}
