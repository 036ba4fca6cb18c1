//! The elements of a plan, as libvirt writes them.

use crate::domain::element::Element;
use crate::plan::{Placement, Plan, PlannedCell};
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
pub(super) fn hostdev(placement: &Placement, with_cells: bool) -> Element {
    let cells = placement.gpu_cells.as_ref().filter(|_| with_cells);
    Element::new("hostdev")
        .attribute("mode", "subsystem")
        .attribute("type", "pci")
        .attribute("managed", "yes")
        .child(Element::new("source").child(address(placement.gpu)))
        .child(alias(&placement.alias))
        .children(cells.map(acpi))
}

fn address(gpu: PciAddress) -> Element {
    Element::new("address")
        .attribute("domain", format_args!("0x{:04x}", gpu.domain()))
        .attribute("bus", format_args!("0x{:02x}", gpu.bus()))
        .attribute("slot", format_args!("0x{:02x}", gpu.slot()))
        .attribute("function", format_args!("0x{:x}", gpu.function()))
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

pub(super) fn cpu(plan: &Plan) -> Element {
    Element::new("cpu").child(numa(&plan.cells))
}

pub(super) fn numa<'a>(cells: impl IntoIterator<Item = &'a PlannedCell>) -> Element {
    Element::new("numa").children(cells.into_iter().map(cell))
}

pub(super) fn cell(cell: &PlannedCell) -> Element {
    let element = Element::new("cell").attribute("id", cell.id);
    let element = match &cell.cpus {
        Some(cpus) => element.attribute("cpus", cpus),
        None => element,
    };
    element.attribute("memory", in_kib(cell.memory)).attribute("unit", "KiB")
}
