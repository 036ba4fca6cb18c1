//! Rules for PCI controllers and the addresses of devices.

use std::collections::BTreeMap;

use super::bus_name;
use crate::check::Findings;
use crate::check::rules::{BUS_NUMBERS, CHASSIS, PORT_DEVICE, PORT_INDEX};
use crate::domain::{Bus, ControllerModel, GuestAddress, Maybe, Origin, PciController, PciMachine};

/// The number of PCI buses of a domain.
const BUSES: u32 = 256;

pub(super) fn check(machine: &PciMachine, findings: &mut Findings) {
    check_numbers(machine, findings);
    check_chassis(machine, findings);
    check_ports(machine, findings);
    for controller in machine.controllers() {
        check_index(machine, controller, findings);
    }
}

/// Each expander bus begins at its own number, and continues with those of the controllers below.
fn check_numbers(machine: &PciMachine, findings: &mut Findings) {
    let mut below: BTreeMap<Bus, u32> = BTreeMap::new();
    for controller in machine.controllers().iter().filter(|controller| !controller.is_root()) {
        let root = controller.bus().and_then(|bus| machine.root_of(&bus));
        // libvirt puts a controller without an address on the first bus.
        let count = below.entry(root.unwrap_or(Bus::Index(0))).or_default();
        *count = count.saturating_add(1);
    }
    let count = |bus: &Bus| below.get(bus).copied().unwrap_or(0);
    let mut numbered = Vec::new();
    for controller in machine.controllers() {
        let Some(number) = &controller.target.bus_nr else { continue };
        if let Some((first, bus)) = number.value.zip(controller.bus()) {
            numbered.push((u32::from(first), bus, number));
        } else {
            let message = format!("invalid bus number `{}`", number.shown());
            findings.add(BUS_NUMBERS, &number.span, message).help("1 to 254");
        }
    }
    numbered.sort_by_key(|(first, _, number)| (*first, number.span.start));
    let mut owner = Bus::Index(0);
    let mut free = count(&owner).saturating_add(1);
    for (first, bus, number) in numbered {
        let (shown, below) = (bus_name(&bus), count(&bus));
        let end = first.saturating_add(below).saturating_add(1);
        if first < free {
            let owner = bus_name(&owner);
            let message = format!("bus number {first} of bus {shown} is in use by bus {owner}");
            let help = format!("busNr='{free}' or more: each bus needs 1, and 1 for each port");
            findings.add(BUS_NUMBERS, &number.span, message).help(help);
        } else if end > BUSES {
            let message = format!("bus {shown} needs the numbers {first} to {}", end - 1);
            let help = format!("at most busNr='{}'", BUSES.saturating_sub(below + 1));
            findings.add(BUS_NUMBERS, &number.span, message).help(help);
        }
        if end > free {
            (free, owner) = (end, bus);
        }
    }
}

fn is_port(controller: &PciController) -> bool {
    use ControllerModel::{PcieRootPort, PcieSwitchDownstreamPort};
    matches!(controller.model.known(), Some(PcieRootPort | PcieSwitchDownstreamPort))
}

/// libvirt writes the chassis of its ports and leaves the slot in it 0; its default is the index
/// (`qemuDomainAssignPCIAddresses`, `src/qemu/qemu_domain_address.c`).
fn check_chassis(machine: &PciMachine, findings: &mut Findings) {
    let mut seen: BTreeMap<u32, &PciController> = BTreeMap::new();
    let ports = machine.controllers().iter().filter(|it| it.origin == Origin::Element);
    for port in ports.filter(|it| is_port(it)) {
        let chassis = match &port.target.chassis {
            Some(chassis) => chassis.value.map(u32::from),
            None => port.index.known(),
        };
        let Some(chassis) = chassis else { continue };
        if let Some(other) = seen.get(&chassis) {
            let other = other.bus().map_or_else(String::new, |bus| bus_name(&bus));
            let message = format!("chassis {chassis} is also that of controller {other}");
            let place = port.target.chassis.place(&port.span);
            findings.add(CHASSIS, place, message).help("another number in chassis='..'");
        }
        seen.entry(chassis).or_insert(port);
    }
}

fn check_ports(machine: &PciMachine, findings: &mut Findings) {
    for (bus, slots) in machine.occupied() {
        let is_port = machine.controller(&bus).is_some_and(is_port);
        let shown = bus_name(&bus);
        for (slot, devices) in slots {
            let mut functions = BTreeMap::new();
            for device in devices {
                let address = &device.address;
                let place = || address.slot.place(&address.span);
                if is_port && slot > 0 {
                    let message = format!("slot {slot} of port {shown}, which has only slot 0");
                    findings.add(PORT_DEVICE, place(), message).help("slot='0x00'");
                }
                let function = address.place().map(|place| place.function);
                if functions.insert(function, device).is_some() {
                    let message = format!("another device has this address on bus {shown}");
                    let help = "a port of its own for each device";
                    findings.add(PORT_DEVICE, &address.span, message).help(help);
                }
            }
        }
    }
}

fn check_index(machine: &PciMachine, controller: &PciController, findings: &mut Findings) {
    let Some(index) = &controller.index else { return };
    let above = controller.address.as_ref().and_then(GuestAddress::on_bus);
    let above = above.and_then(|bus| machine.controller(&bus)?.index.known());
    if let Some((above, own)) = above.zip(index.value).filter(|(above, own)| above >= own) {
        let message = format!("controller {own} is on bus {above}, which QEMU gets later");
        findings.add(PORT_INDEX, &index.span, message).help("an index above that of its bus");
    }
}
