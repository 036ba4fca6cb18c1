//! The PCI machine as arguments: controllers and SMMUs.

use serde::Serialize;

use super::{Argument, json};
use crate::domain::{
    Bus, ControllerModel, Domain, GuestAddress, IdSizeName, Iommu, Maybe, PciController, PciMachine,
};
use crate::plan::PciPlan;

/// A controller, with the keys in the order of `qemuBuildControllerPCIDevProps` (libvirt's
/// `src/qemu/qemu_command.c`).
#[derive(Serialize)]
struct Controller<'a> {
    driver: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chassis: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bus_nr: Option<u8>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    numa_node: Option<u32>,
    #[serde(flatten)]
    place: Option<Place>,
}

/// An SMMU. Its switches are texts except `accel` (`qemuBuildIOMMUCommandLine`).
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Smmu<'a> {
    driver: &'static str,
    primary_bus: &'a str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    accel: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ats: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ril: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pasid: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssidsize: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oas: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdqv: Option<&'static str>,
}

/// The place of a device on a bus.
#[derive(Serialize)]
pub(super) struct Place {
    bus: String,
    addr: String,
}

impl Place {
    /// The place of a device with an address; `None` if libvirt chooses it.
    pub(super) fn of(address: Option<&GuestAddress>, machine: &PciMachine) -> Option<Self> {
        let place = address?.place()?;
        let controller = machine.controller(&place.bus);
        let bus = controller.and_then(PciController::qemu_name);
        let bus = bus.or_else(|| (place.bus == Bus::Index(0)).then(|| "pcie.0".to_owned()))?;
        let function = match place.function {
            0 => String::new(),
            function => format!(".0x{function:x}"),
        };
        Some(Self { bus, addr: format!("0x{:x}{function}", place.slot) })
    }
}

/// The window for large PCI devices, an option of the machine.
pub(super) fn hole(pci: &PciPlan, machine: &PciMachine) -> String {
    let size = machine.hole().and_then(|hole| hole.value).unwrap_or(pci.hole);
    format!("highmem-mmio-size={}K", size.0 >> 10)
}

/// QEMU's device for an expander bus.
const EXPANDER: &str = "pxb-pcie";

/// The buses and ports of the plan by index, then their SMMUs.
pub(super) fn buses(pci: &PciPlan, domain: &Domain, machine: &PciMachine) -> Vec<Argument> {
    let ports = pci.buses.iter().flat_map(|bus| bus.ports.iter().map(|port| port.index));
    let mut indexes: Vec<_> = pci.buses.iter().map(|bus| bus.index).chain(ports).collect();
    indexes.sort_unstable();
    let numbers = machine.controllers().iter().filter_map(|it| it.target.bus_nr.known());
    let mut lowest = numbers.map(u16::from).min().unwrap_or(256);
    let controllers = indexes.into_iter().filter_map(|index| {
        let controller = machine.controller(&Bus::Index(index))?;
        let id = controller.qemu_name()?;
        let mut argument = argument(controller, machine, &id)?;
        // libvirt chooses a number below the others (`qemuDomainAddressFindNewBusNr`,
        // `src/qemu/qemu_domain_address.c`).
        if argument.driver == EXPANDER && argument.bus_nr.is_none() {
            lowest = lowest.saturating_sub(2);
            argument.bus_nr = u8::try_from(lowest).ok();
        }
        Some(("-device", json(&argument)))
    });
    let smmus = domain.iommus.iter().enumerate().filter_map(|(number, iommu)| {
        let bus = iommu.bus()?.value?;
        pci.buses.iter().find(|it| Bus::Index(it.index) == bus)?;
        let bus = machine.controller(&bus)?.qemu_name()?;
        Some(("-device", json(&smmu(iommu, number, &bus))))
    });
    controllers.chain(smmus).collect()
}

fn argument<'a>(
    controller: &PciController,
    machine: &PciMachine,
    id: &'a str,
) -> Option<Controller<'a>> {
    let target = &controller.target;
    let is_port = match controller.model.known()? {
        ControllerModel::PcieExpanderBus => false,
        ControllerModel::PcieRootPort => true,
        _ => return None,
    };
    let port = |value: Option<u8>| value.filter(|_| is_port);
    Some(Controller {
        driver: if is_port { "pcie-root-port" } else { EXPANDER },
        port: port(Some(target.port.known().unwrap_or_default())),
        // libvirt's default is the index.
        chassis: port(
            target.chassis.known().or_else(|| u8::try_from(controller.index.known()?).ok()),
        ),
        bus_nr: target.bus_nr.known(),
        id,
        numa_node: target.node.known(),
        place: Place::of(controller.address.as_ref(), machine),
    })
}

fn smmu<'a>(iommu: &Iommu, number: usize, bus: &'a str) -> Smmu<'a> {
    let switch = |name| iommu.switch(name).and_then(|switch| switch.value);
    let on_off = |name| switch(name).map(|is_on| if is_on { "on" } else { "off" });
    let size = iommu.id_size();
    let is_switch = size.as_ref().is_some_and(|size| size.name == IdSizeName::Pasid);
    Smmu {
        driver: "arm-smmuv3",
        primary_bus: bus,
        id: format!("iommu{number}"),
        accel: switch("accel"),
        ats: on_off("ats"),
        ril: on_off("ril"),
        pasid: on_off("pasid").filter(|_| is_switch),
        ssidsize: size.filter(|_| !is_switch).and_then(|size| Some(size.bits.value?.to_string())),
        oas: iommu.oas().and_then(|oas| Some(oas.value?.to_string())),
        cmdqv: on_off("cmdqv"),
    }
}
