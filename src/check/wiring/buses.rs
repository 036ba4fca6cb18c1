//! Rules for PCI controllers and the addresses of devices.

use std::collections::{BTreeMap, BTreeSet};

use super::{Wiring, bus_name};
use crate::check::Findings;
use crate::check::rules::{BUS_NUMBERS, CHASSIS, PORT_DEVICE, PORT_INDEX};
use crate::domain::{
    Bus, ControllerModel, GuestAddress, Maybe, Origin, PciController, PciDevice, PciMachine,
};

/// The number of PCI buses of a domain.
const BUSES: u32 = 256;

pub(super) fn check(wiring: &Wiring<'_>, findings: &mut Findings) {
    let machine = &wiring.machine;
    for controller in machine.controllers() {
        check_index(machine, controller, findings);
    }
    // A controller with the index of another one is below the bus of that one.
    if !findings.has(&[PORT_INDEX]) {
        check_numbers(machine, findings);
    }
    check_chassis(machine, findings);
    check_ports(wiring, findings);
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
    let of_first = count(&Bus::Index(0)).saturating_add(1);
    let (mut numbered, mut invalid) = (Vec::new(), Vec::new());
    for controller in machine.controllers() {
        let Some(number) = &controller.target.bus_nr else { continue };
        if let Some((first, bus)) = number.value.zip(controller.bus()) {
            numbered.push((u32::from(first), bus, number));
        } else {
            invalid.push((controller.bus().map_or(0, |bus| count(&bus)), number));
        }
    }
    numbered.sort_by_key(|(first, _, number)| (*first, number.span.start));
    let used: BTreeSet<u32> = numbered
        .iter()
        .flat_map(|(first, bus, _)| *first..=first.saturating_add(count(bus)).min(BUSES))
        .chain(0..of_first.min(BUSES))
        .collect();
    // libvirt adds ports to the first bus, so the numbers after it are the last to be suggested.
    let help = |below: u32, from: u32| {
        let end = BUSES.saturating_sub(below);
        let is_free = |first: &u32| !(*first..=first + below).any(|it| used.contains(&it));
        let free = (from..end).chain(of_first..end).find(is_free);
        let free = free.map_or_else(String::new, |free| format!("busNr='{free}'; "));
        format!("{free}each bus needs one number, and one for each port, of at most {}", BUSES - 1)
    };
    let last = used.last().copied().unwrap_or(0);
    for (below, number) in invalid {
        let message = format!("invalid bus number `{}`", number.shown());
        findings.add(BUS_NUMBERS, &number.span, message).help(help(below, last + 1));
    }
    let (mut owner, mut free) = (Bus::Index(0), of_first);
    for (first, bus, number) in numbered {
        let (shown, below) = (bus_name(&bus), count(&bus));
        let end = first.saturating_add(below).saturating_add(1);
        if first < free {
            let owner = bus_name(&owner);
            let message = format!("bus number {first} of bus {shown} is in use by bus {owner}");
            findings.add(BUS_NUMBERS, &number.span, message).help(help(below, first));
        } else if end > BUSES {
            let message = format!("bus {shown} needs the numbers {first} to {}", end - 1);
            findings.add(BUS_NUMBERS, &number.span, message).help(help(below, first));
        }
        if end > free {
            (free, owner) = (end, bus);
        }
    }
}

pub(super) fn is_port(controller: &PciController) -> bool {
    use ControllerModel::{PcieRootPort, PcieSwitchDownstreamPort};
    matches!(controller.model.known(), Some(PcieRootPort | PcieSwitchDownstreamPort))
}

/// libvirt writes the chassis of its ports and leaves the slot in it 0; its default is the index
/// (`qemuDomainAssignPCIAddresses`, `src/qemu/qemu_domain_address.c`).
fn check_chassis(machine: &PciMachine, findings: &mut Findings) {
    let mut seen: BTreeMap<u32, &PciController> = BTreeMap::new();
    let mut twice = Vec::new();
    let ports = machine.controllers().iter().filter(|it| it.origin == Origin::Element);
    for port in ports.filter(|it| is_port(it)) {
        let chassis = match &port.target.chassis {
            Some(chassis) => chassis.value.map(u32::from),
            None => port.index.known(),
        };
        let Some(chassis) = chassis else { continue };
        match seen.get(&chassis) {
            Some(other) => twice.push((chassis, *other, port)),
            None => _ = seen.insert(chassis, port),
        }
    }
    let mut free = (1..BUSES).filter(|number| !seen.contains_key(number));
    for (chassis, other, port) in twice {
        let other = other.bus().map_or_else(String::new, |bus| bus_name(&bus));
        let message = format!("chassis {chassis} is also that of controller {other}");
        let place = port.target.chassis.place(&port.span);
        let free = free.next().map_or("..".into(), |free| free.to_string());
        findings.add(CHASSIS, place, message).help(format!("chassis='{free}'"));
    }
}

fn check_ports(wiring: &Wiring<'_>, findings: &mut Findings) {
    let machine = &wiring.machine;
    for (bus, slots) in machine.occupied() {
        let is_port = machine.controller(&bus).is_some_and(is_port);
        let (shown, used) = (bus_name(&bus), slots.keys().copied().collect::<BTreeSet<_>>());
        for (slot, devices) in slots {
            let mut functions: BTreeMap<_, Vec<&PciDevice>> = BTreeMap::new();
            for device in devices {
                let address = &device.address;
                let place = || address.slot.place(&address.span);
                if is_port && slot > 0 {
                    let message = format!("slot {slot} of port {shown}, which has only slot 0");
                    findings.add(PORT_DEVICE, place(), message).help("slot='0x00'");
                }
                let function = address.place().map(|place| place.function);
                functions.entry(function).or_default().push(device);
            }
            let first = functions.iter().next();
            if let Some((Some(function), devices)) =
                first.filter(|(it, _)| is_port && **it > Some(0))
            {
                let message = format!(
                    "function {function} of a slot without function 0, in which the guest finds no device"
                );
                for device in devices {
                    let place = device.address.function.place(&device.address.span);
                    findings.add(PORT_DEVICE, place, message.clone()).help("function='0x0'");
                }
            }
            for mut devices in functions.into_values().filter(|devices| devices.len() > 1) {
                // A GPU of another cell than the port is the one that is in the wrong place.
                let node = || machine.controller(&machine.root_of(&bus)?)?.target.node.known();
                let is_short = !findings.are_many();
                let is_elsewhere = |it: &&PciDevice| {
                    is_short && wiring.cell_at(&it.address).is_some_and(|it| Some(it) != node())
                };
                let kept = devices.iter().position(|it| !is_elsewhere(it)).unwrap_or(0);
                devices.remove(kept);
                for device in devices {
                    let message = format!("another device has this address on bus {shown}");
                    let slot = (1..32).find(|slot| !used.contains(slot));
                    let free = match slot.filter(|_| !is_port) {
                        Some(slot) => Some(format!("slot='{slot:#04x}'")),
                        None if findings.are_many() => None,
                        None => wiring.free_port(wiring.cell_at(&device.address)),
                    };
                    let help = free.unwrap_or_else(|| "a port of its own for each device".into());
                    findings.add(PORT_DEVICE, &device.address.span, message).help(help);
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
        let mut free = (above.saturating_add(1)..BUSES)
            .filter(|index| machine.controller(&Bus::Index(*index)).is_none());
        // A device may name the index that was meant.
        let is_named = |index: &u32| {
            machine.devices().iter().any(|it| it.address.on_bus() == Some(Bus::Index(*index)))
        };
        let named = if findings.are_many() { None } else { free.clone().find(is_named) };
        let meant = named.or_else(|| free.next());
        let help =
            meant.map_or("an index above that of its bus".into(), |it| format!("index='{it}'"));
        findings.add(PORT_INDEX, &index.span, message).help(help);
    }
}
