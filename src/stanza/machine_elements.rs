//! The elements of the machine around the devices, as libvirt writes them.

use super::elements::{address, size};
use crate::domain::Dialect;
use crate::domain::element::Element;
use crate::plan::{ExpanderBus, NewExpander, NewPort, PciPlan, Pin, Smmu};
use crate::values::{Bytes, PciAddress};

/// The controllers of a plan, and the `SMMUv3` of each bus.
pub(super) fn buses(pci: &PciPlan, dialect: Dialect) -> (Vec<Element>, Vec<Element>) {
    let mut controllers = Vec::new();
    let mut smmus = Vec::new();
    for bus in &pci.buses {
        controllers.extend(bus.new.map(|new| (bus.index, expander(bus, new))));
        for port in &bus.ports {
            controllers.extend(port.new.map(|new| (port.index, root_port(port.index, bus, new))));
        }
        smmus.extend(bus.smmu.map(|kind| smmu(bus.index, kind, dialect)));
    }
    // libvirt passes them to QEMU by index.
    controllers.sort_by_key(|(index, _)| *index);
    (controllers.into_iter().map(|(_, controller)| controller).collect(), smmus)
}

fn controller(index: u32, model: &'static str) -> Element {
    Element::new("controller")
        .attribute("type", "pci")
        .attribute("index", index)
        .attribute("model", model)
}

/// The first bus, with the window for large PCI devices.
pub(super) fn first_bus(hole: Bytes) -> Element {
    controller(0, "pcie-root").child(self::hole(hole))
}

pub(super) fn hole(hole: Bytes) -> Element {
    size("pcihole64", hole)
}

fn expander(bus: &ExpanderBus, new: NewExpander) -> Element {
    let target = Element::new("target").attribute("busNr", new.bus_nr);
    controller(bus.index, "pcie-expander-bus")
        .child(Element::new("model").attribute("name", "pxb-pcie"))
        .child(target.child(node(bus.cell)))
        .child(guest_address(0, new.slot))
}

pub(super) fn node(cell: u32) -> Element {
    Element::new("node").text(cell)
}

fn root_port(index: u32, bus: &ExpanderBus, new: NewPort) -> Element {
    // libvirt's default (`qemuDomainAddressFindNewTargetIndex` and others in qemu_domain_address.c).
    let port = u32::from(new.slot) << 3;
    let target = Element::new("target").attribute("chassis", new.chassis);
    controller(index, "pcie-root-port")
        .child(Element::new("model").attribute("name", "pcie-root-port"))
        .child(target.attribute("port", format_args!("0x{port:x}")))
        .child(guest_address(bus.index, new.slot))
}

/// The parts of an address in the guest.
pub(super) fn address_parts(bus: u32, slot: u8) -> [(&'static str, String); 4] {
    [
        ("domain", "0x0000".into()),
        ("bus", format!("0x{bus:02x}")),
        ("slot", format!("0x{slot:02x}")),
        ("function", "0x0".into()),
    ]
}

/// The address of a device in the guest.
pub(super) fn guest_address(bus: u32, slot: u8) -> Element {
    Element::new("address").attribute("type", "pci").attributes(address_parts(bus, slot))
}

fn smmu(index: u32, kind: Smmu, dialect: Dialect) -> Element {
    let driver = Element::new("driver").attribute("pciBus", index);
    let driver = driver.attributes(smmu_attributes(kind, dialect));
    Element::new("iommu").attribute("model", "smmuv3").child(driver)
}

/// The attributes of an `SMMUv3`, apart from its bus. libvirt refuses the others without `accel='on'`,
/// whatever their values.
pub(super) fn smmu_attributes(kind: Smmu, dialect: Dialect) -> Vec<(&'static str, String)> {
    if kind != Smmu::Accelerated {
        return vec![("accel", "off".into())];
    }
    let bits = match dialect {
        Dialect::Nvidia11_9 => "on".into(),
        Dialect::Nvidia12_4 | Dialect::Upstream => Smmu::ID_BITS.to_string(),
    };
    vec![
        ("accel", "on".into()),
        ("ats", "on".into()),
        ("ril", "off".into()),
        (dialect.pasid_attribute(), bits),
        ("oas", Smmu::ADDRESS_BITS.to_string()),
    ]
}

/// The `<driver>` of a `<hostdev>` that uses iommufd.
pub(super) fn iommufd() -> Element {
    Element::new("driver").attribute("iommufd", "yes")
}

/// The `<hostdev>` of a function, without alias and address in the guest.
pub(super) fn hostdev(function: PciAddress, is_managed: bool, iommufd: bool) -> Element {
    let managed = if is_managed { "yes" } else { "no" };
    Element::new("hostdev")
        .attribute("mode", "subsystem")
        .attribute("type", "pci")
        .attribute("managed", managed)
        .children(iommufd.then(self::iommufd))
        .child(Element::new("source").child(address(function)))
}

pub(super) fn no_balloon() -> Element {
    Element::new("memballoon").attribute("model", "none")
}

pub(super) fn cputune(pins: &[Pin]) -> Element {
    Element::new("cputune").children(pins.iter().copied().map(pin))
}

pub(super) fn pin(pin: Pin) -> Element {
    Element::new("vcpupin").attribute("vcpu", pin.vcpu).attribute("cpuset", pin.cpu)
}
