//! The bus of each device: an existing one of the domain, or a new one.

use std::collections::{BTreeMap, BTreeSet};

use super::MachineObjection;
use super::machine::{Context, ExpanderBus, NewExpander, NewPort, Note, RootPort, Smmu};
use super::numbers::Numbers;
use crate::domain::{Bus, ControllerModel, GuestAddress, Maybe, Origin, PciController, PciMachine};
use crate::values::PciAddress;

/// A device that needs a bus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) device: PciAddress,
    /// The guest's cell that it is near to.
    pub(super) cell: u32,
    /// Its SMMU on the host.
    pub(super) smmu: Option<&'a str>,
}

/// The place of a device in the domain.
enum Place {
    /// libvirt chooses it.
    Open,
    /// A root port on the first bus, as libvirt chooses by itself.
    PlainPort,
    /// Below an expander bus.
    Expander {
        index: u32,
        port: u32,
    },
    Other,
}

/// The buses of all devices, by index. `None` if a device gets none.
pub(super) fn plan(
    context: Context<'_>,
    wanted: &[Wanted<'_>],
    smmu: Smmu,
    notes: &mut Vec<Note>,
    objections: &mut Vec<MachineObjection>,
) -> Option<Vec<ExpanderBus>> {
    let machine = context.domain.map(PciMachine::of);
    let machine = machine.as_ref();
    let request = &context.request.machine;
    let mut buses: BTreeMap<u32, ExpanderBus> = BTreeMap::new();
    let mut groups: BTreeMap<(usize, u32), Vec<Wanted<'_>>> = BTreeMap::new();
    let mut moving = BTreeSet::new();
    let mut is_possible = true;
    let mut first_of_smmu: BTreeMap<(&str, u32), usize> = BTreeMap::new();
    for (position, device) in wanted.iter().enumerate() {
        match place(context, machine, device.device) {
            Place::Expander { index, port } => {
                let bus = buses.entry(index).or_insert_with(|| kept(index, device.cell));
                bus.ports.push(RootPort { index: port, device: device.device, new: None });
                let is_near = machine.is_some_and(|it| is_near(it, index, device.cell));
                if !(is_near || request.replace) {
                    let (address, cell) = (device.device, device.cell);
                    objections.push(MachineObjection::OtherCell { address, index, cell });
                }
                continue;
            }
            Place::Other if !request.replace => {
                objections.push(MachineObjection::Elsewhere { address: device.device });
                is_possible = false;
                continue;
            }
            Place::Open => {}
            Place::Other | Place::PlainPort => drop(moving.insert(device.device)),
        }
        let shared = device.smmu.filter(|_| request.shared_smmu);
        let group = shared
            .map_or(position, |smmu| *first_of_smmu.entry((smmu, device.cell)).or_insert(position));
        groups.entry((group, device.cell)).or_default().push(*device);
    }
    let mut numbers = Numbers::of(machine);
    let mut unused = machine.map(|machine| unused_buses(machine, &buses)).unwrap_or_default();
    for ((_, cell), devices) in groups {
        match home(cell, &devices, &mut numbers, &mut unused) {
            Ok(bus) => drop(buses.insert(bus.index, bus)),
            Err(objection) => {
                // The others lack the same.
                objections.push(objection);
                is_possible = false;
                break;
            }
        }
    }
    let of_buses = machine.map(PciMachine::iommus_by_bus).unwrap_or_default();
    for bus in buses.values_mut() {
        bus.smmu = (!of_buses.contains_key(&Bus::Index(bus.index))).then_some(smmu);
        let ports = bus.ports.iter().filter(|port| moving.contains(&port.device));
        notes.extend(ports.map(|port| Note::Moved { device: port.device, port: port.index }));
    }
    is_possible.then(|| buses.into_values().collect())
}

/// A bus that the domain has.
fn kept(index: u32, cell: u32) -> ExpanderBus {
    ExpanderBus { index, cell, new: None, smmu: None, ports: Vec::new() }
}

fn model(controller: &PciController) -> Option<ControllerModel> {
    controller.model.known()
}

fn is_expander(controller: &PciController) -> bool {
    controller.origin == Origin::Element
        && model(controller) == Some(ControllerModel::PcieExpanderBus)
}

/// Whether the devices of an expander bus are near to a cell, or the bus has no cell yet.
fn is_near(machine: &PciMachine, index: u32, cell: u32) -> bool {
    let controller = machine.controller(&Bus::Index(index));
    controller.and_then(|it| it.target.node.as_ref()).is_none_or(|node| node.value == Some(cell))
}

fn place(context: Context<'_>, machine: Option<&PciMachine>, device: PciAddress) -> Place {
    let hostdev = context.domain.and_then(|domain| domain.hostdev(device));
    let guest = hostdev.and_then(|hostdev| hostdev.guest.as_ref());
    let bus = guest.and_then(GuestAddress::on_bus);
    let (Some(Bus::Index(port)), Some(machine)) = (bus, machine) else { return Place::Open };
    let Some(controller) = machine.controller(&Bus::Index(port)) else {
        // libvirt adds a missing root port.
        return if port == 0 { Place::Other } else { Place::PlainPort };
    };
    let is_port = model(controller) == Some(ControllerModel::PcieRootPort);
    match machine.root_of(&Bus::Index(port)) {
        Some(Bus::Index(index)) if index != port => match machine.controller(&Bus::Index(index)) {
            Some(root) if is_expander(root) => Place::Expander { index, port },
            _ if is_port => Place::PlainPort,
            _ => Place::Other,
        },
        // The place of the port is open, so that libvirt puts it on the first bus.
        None if is_port && controller.address.is_none() => Place::PlainPort,
        _ => Place::Other,
    }
}

/// An expander bus of the domain without any device.
struct Unused {
    cell: Option<u32>,
    ports: Vec<u32>,
}

/// The unused expander buses with the root ports of each, by index.
fn unused_buses(machine: &PciMachine, used: &BTreeMap<u32, ExpanderBus>) -> BTreeMap<u32, Unused> {
    let expanders = machine.controllers().iter().filter(|it| is_expander(it));
    let mut unused: BTreeMap<u32, Unused> = expanders
        .filter_map(|it| {
            let cell = it.target.node.known();
            Some((it.index.known()?, Unused { cell, ports: Vec::new() }))
        })
        .filter(|(index, _)| !used.contains_key(index))
        .collect();
    for device in machine.devices() {
        let Some(bus) = device.address.on_bus() else { continue };
        let Some(Bus::Index(root)) = machine.root_of(&bus) else { continue };
        // Root ports are devices as well.
        let is_port = bus == Bus::Index(root) && device.kind == "controller";
        if !is_port {
            unused.remove(&root);
        }
    }
    for port in machine.controllers() {
        let bus = port.address.as_ref().and_then(GuestAddress::on_bus);
        let Some(Bus::Index(root)) = bus else { continue };
        let is_port = model(port) == Some(ControllerModel::PcieRootPort);
        match (unused.get_mut(&root), port.index.known()) {
            (Some(bus), Some(index)) if is_port => bus.ports.push(index),
            _ => drop(unused.remove(&root)),
        }
    }
    unused
}

/// The bus of devices that have none: one of the domain near to their cell, or a new one.
fn home(
    cell: u32,
    devices: &[Wanted<'_>],
    numbers: &mut Numbers,
    unused: &mut BTreeMap<u32, Unused>,
) -> Result<ExpanderBus, MachineObjection> {
    let no_room = |what| MachineObjection::NoRoom { what };
    let mut near = unused.iter().filter(|(_, bus)| bus.cell == Some(cell));
    let near = near.next().map(|(index, _)| *index);
    let near = near.and_then(|index| Some((index, unused.remove(&index)?.ports)));
    let (mut bus, mut ports) = if let Some((index, ports)) = near {
        (kept(index, cell), ports.into_iter())
    } else {
        let index = numbers.index_above(0).ok_or_else(|| no_room("controller index"))?;
        let bus_nr = numbers.bus_nr(devices.len()).ok_or_else(|| no_room("bus number"))?;
        let slot = numbers.slot(0).ok_or_else(|| no_room("slot on pcie.0"))?;
        let new = Some(NewExpander { bus_nr, slot });
        (ExpanderBus { new, ..kept(index, cell) }, Vec::new().into_iter())
    };
    for device in devices {
        let device = device.device;
        if let Some(index) = ports.next() {
            bus.ports.push(RootPort { index, device, new: None });
            continue;
        }
        let index = numbers.index_above(bus.index).ok_or_else(|| no_room("controller index"))?;
        let chassis = numbers.chassis(index).ok_or_else(|| no_room("chassis number"))?;
        let slot = numbers.slot(bus.index).ok_or_else(|| no_room("slot"))?;
        bus.ports.push(RootPort { index, device, new: Some(NewPort { chassis, slot }) });
    }
    Ok(bus)
}
