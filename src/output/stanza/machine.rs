//! The machine of a planned domain as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::number;
use crate::domain::{Bus, Cell, Iommu, PciMachine, Pin};
use crate::plan::{ExpanderBus, Plan, RootPort};
use crate::values::{Bytes, PciAddress};

#[derive(Serialize)]
pub(super) struct CellEntry {
    id: Option<u32>,
    memory: Option<Bytes>,
    cpus: Option<String>,
    /// By the number of the cell.
    distances: BTreeMap<u32, Option<u32>>,
}

#[derive(Serialize)]
pub(super) struct BusEntry {
    index: u32,
    bus_nr: Option<u8>,
    guest_node: Option<u32>,
    new: bool,
    smmu: Option<SmmuEntry>,
    ports: Vec<PortEntry>,
}

#[derive(Serialize)]
struct SmmuEntry {
    accel: Option<bool>,
    ats: Option<bool>,
    ril: Option<bool>,
    id_bits: Option<u8>,
    oas: Option<u32>,
}

#[derive(Serialize)]
struct PortEntry {
    index: u32,
    chassis: Option<u8>,
    device: PciAddress,
}

#[derive(Serialize)]
pub(super) struct PinEntry {
    vcpu: Option<u32>,
    cpus: Option<String>,
}

pub(super) fn cell(cell: &Cell) -> CellEntry {
    let distance =
        |it: &crate::domain::Distance| Some((it.cell.as_ref()?.value?, number(it.value.as_ref())));
    CellEntry {
        id: cell.id.value,
        memory: number(cell.memory.as_ref()),
        cpus: cell.cpus.as_ref().and_then(|cpus| Some(cpus.value.as_ref()?.to_string())),
        distances: cell.distances.iter().filter_map(distance).collect(),
    }
}

/// The buses of the plan, as the domain has them.
pub(super) fn buses(plan: &Plan, machine: &PciMachine) -> Vec<BusEntry> {
    let smmus = machine.iommus_by_bus();
    let entry = |bus: &ExpanderBus| {
        let name = Bus::Index(bus.index);
        let target = machine.controller(&name).map(|controller| &controller.target);
        BusEntry {
            index: bus.index,
            bus_nr: target.and_then(|target| number(target.bus_nr.as_ref())),
            guest_node: target.and_then(|target| number(target.node.as_ref())),
            new: bus.new.is_some(),
            smmu: smmus.get(&name).and_then(|smmus| smmus.first()).map(|it| smmu(it)),
            ports: bus.ports.iter().map(|it| port(it, machine)).collect(),
        }
    };
    plan.machine.pci.iter().flat_map(|pci| &pci.buses).map(entry).collect()
}

fn smmu(iommu: &Iommu) -> SmmuEntry {
    let switch = |name| iommu.switch(name)?.value;
    SmmuEntry {
        accel: switch("accel"),
        ats: switch("ats"),
        ril: switch("ril"),
        id_bits: iommu.id_size().and_then(|size| size.bits.value),
        oas: iommu.oas().and_then(|oas| oas.value),
    }
}

fn port(port: &RootPort, machine: &PciMachine) -> PortEntry {
    let controller = machine.controller(&Bus::Index(port.index));
    let chassis = controller.and_then(|controller| number(controller.target.chassis.as_ref()));
    PortEntry { index: port.index, chassis, device: port.device }
}

pub(super) fn pin(pin: &Pin) -> PinEntry {
    let cpus = pin.cpus.value.as_ref().map(ToString::to_string);
    PinEntry { vcpu: number(pin.vcpu.as_ref()), cpus }
}
