//! The machine around the devices of a guest: PCI buses, SMMUs, distances and pinning.

use std::collections::BTreeMap;

use super::buses::{self, Wanted};
use super::distances::{self, Distances};
use super::hole;
use super::pinning::{self, Pin};
use super::{Cells, MachineObjection, Objection, Placement, Request, Rest};
use crate::domain::{Domain, Maybe};
use crate::host::{Gpu, Needs};
use crate::report::Report;
use crate::values::{Bytes, NodeId, PciAddress, named};

/// A request for the machine around the devices; by default for nothing.
///
/// ```
/// use egm_probe::plan::{MachineRequest, Plan, Request};
/// use egm_probe::report::Report;
/// use egm_probe::sysroot::Sysroot;
///
/// let root = Sysroot::capture("tests/fixtures/gb200-full-gpu-list".as_ref())?;
/// let report = Report::read(&root, Plan::MACHINE_NEEDS);
/// let mut request = Request::everything();
/// request.machine.pci = true;
/// let plan = Plan::new(&report, &request, None)?;
/// let pci = plan.machine.pci.expect("it was requested");
/// let cells: Vec<_> = pci.buses.iter().map(|bus| bus.cell).collect();
/// assert_eq!(cells, [0, 0, 1, 1]);
/// assert_eq!(pci.hole.0, 4 << 40);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
#[non_exhaustive]
pub struct MachineRequest {
    /// An expander bus, a root port and an `SMMUv3` for each device, and the window for large PCI
    /// devices.
    pub pci: bool,
    /// One bus and one `SMMUv3` for the devices behind the same SMMU of the host.
    pub shared_smmu: bool,
    /// Other functions of the host to assign to the guest, such as NICs.
    pub devices: Vec<DeviceRequest>,
    /// Distances between the NUMA cells.
    pub distances: Option<DistanceChoice>,
    /// Pinning of virtual CPUs to CPUs of the host.
    pub pinning: bool,
    /// Replace existing parts of the domain that differ, instead of keeping them.
    pub replace: bool,
}

/// A request for a function of the host that is not a GPU with EGM.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceRequest {
    /// Its address.
    pub address: PciAddress,
    /// The guest's cell that it is near to; by default that of its NUMA node.
    pub cell: Option<u32>,
    /// The function of the host, read by [`Gpu::function`]; `None` if the host does not have it.
    pub function: Option<Gpu>,
}

impl DeviceRequest {
    /// A function, near to the cell of its NUMA node.
    #[must_use]
    pub fn new(address: PciAddress, function: Option<Gpu>) -> Self {
        Self { address, cell: None, function }
    }
}

named! {
    /// The requested source of distances.
    #[derive(Default)]
    #[non_exhaustive]
    pub enum DistanceChoice {
        /// The host's distances if all are known, otherwise the fixed ones.
        #[default]
        Known = "known",
        /// The host's distances.
        Host = "host",
        /// The fixed ones of a Grace guest.
        Grace = "grace",
    }
}

/// The machine around the devices; only the requested parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// The PCI buses.
    pub pci: Option<PciPlan>,
    /// The functions of the host that are not GPUs with EGM.
    pub devices: Vec<Device>,
    /// The distances between all cells.
    pub distances: Option<Distances>,
    /// The virtual CPUs to pin; existing pinning is not included.
    pub pins: Vec<Pin>,
    /// Whether they replace the existing pinning.
    pub replaces_pins: bool,
    /// Whether existing parts of the domain that differ are replaced.
    pub replaces: bool,
    /// Changes to the domain that need attention.
    pub notes: Vec<Note>,
}

/// The PCI buses of a guest, and the window for large PCI devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PciPlan {
    /// The expander buses, by index.
    pub buses: Vec<ExpanderBus>,
    /// The size of the window, a power of two; a larger one of the domain is kept.
    pub hole: Bytes,
    /// Whether QEMU uses the devices through iommufd, which accelerated SMMUs require.
    pub iommufd: bool,
}

impl PciPlan {
    /// The index of the root port of a device.
    #[must_use]
    pub fn port_of(&self, device: PciAddress) -> Option<u32> {
        let mut ports = self.buses.iter().flat_map(|bus| &bus.ports);
        ports.find(|port| port.device == device).map(|port| port.index)
    }
}

impl Machine {
    /// The distances of a cell to all cells.
    #[must_use]
    pub fn row(&self, cell: u32) -> Option<&BTreeMap<u32, u8>> {
        self.distances.as_ref()?.rows.get(&cell)
    }
}

/// An expander bus with its SMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpanderBus {
    /// The index of its controller.
    pub index: u32,
    /// The guest's cell that its devices are near to.
    pub cell: u32,
    /// The numbers of a new one; `None` if the domain has it.
    pub new: Option<NewExpander>,
    /// Its `SMMUv3`; `None` if the domain has one for this bus.
    pub smmu: Option<Smmu>,
    /// Its ports with devices.
    pub ports: Vec<RootPort>,
}

/// The numbers of a new expander bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewExpander {
    /// Its number in the guest, `busNr`.
    pub bus_nr: u8,
    /// Its slot on the first bus.
    pub slot: u8,
}

/// The `SMMUv3` of an expander bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Smmu {
    /// The host's SMMU translates.
    Accelerated,
    /// QEMU emulates it, for hosts without iommufd.
    Emulated,
}

impl Smmu {
    /// The size of the ids of address spaces of Grace Blackwell, in bits.
    pub const ID_BITS: u8 = 20;
    /// The size of output addresses of Grace, in bits.
    pub const ADDRESS_BITS: u8 = 48;
}

/// A root port and its device, which is in slot 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootPort {
    /// The index of its controller.
    pub index: u32,
    /// The function of the host.
    pub device: PciAddress,
    /// The numbers of a new one; `None` if the domain has it.
    pub new: Option<NewPort>,
}

/// The numbers of a new root port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewPort {
    /// Its chassis.
    pub chassis: u8,
    /// Its slot on the expander bus.
    pub slot: u8,
}

/// A function of the host that is not a GPU with EGM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its address.
    pub address: PciAddress,
    /// The guest's cell that it is near to.
    pub cell: u32,
}

/// A change to a domain that needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Note {
    /// A device gets another address in the guest.
    #[error("{device} moves to an expander bus: controller {port} becomes its root port")]
    Moved {
        /// The function of the host.
        device: PciAddress,
        /// The index of its new root port.
        port: u32,
    },
    /// Huge pages are not reserved any more.
    #[error("<hugepages> is removed: huge pages cannot be combined with EGM memory")]
    HugePages,
}

impl super::Plan {
    /// The parts of a host that a report needs for a plan with a machine.
    pub const MACHINE_NEEDS: Needs = Self::NEEDS
        .union(Needs::GPU_PCI)
        .union(Needs::OWN_NODES)
        .union(Needs::NUMA_NODES)
        .union(Needs::IOMMUFD);
}

/// The host, the domain and the plan so far.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) report: &'a Report,
    pub(super) request: &'a Request,
    pub(super) domain: Option<&'a Domain>,
    pub(super) rest: &'a Rest<'a>,
    pub(super) placements: &'a [Placement],
    pub(super) cells: &'a Cells,
}

impl Context<'_> {
    /// The host's NUMA node of each cell that has EGM.
    pub(super) fn nodes(&self) -> BTreeMap<u32, NodeId> {
        let of_rest = self.rest.devices.iter().filter_map(|rest| {
            let path = rest.device.path.as_ref()?.text.as_str();
            let mut regions = self.report.host.regions.iter();
            let region = regions.find(|region| region.device.path.as_os_str() == path)?;
            Some((rest.device.cell.known()?, region.numa_node?))
        });
        let planned = self.placements.iter();
        of_rest.chain(planned.filter_map(|it| Some((it.cell, it.host_node?)))).collect()
    }

    /// The GPUs of the guest that have EGM, with the cell of each.
    pub(super) fn gpus(&self) -> BTreeMap<PciAddress, u32> {
        let of_rest = self.rest.devices.iter();
        let of_rest = of_rest.filter_map(|rest| Some((rest.gpu?, rest.device.cell.known()?)));
        of_rest.chain(self.placements.iter().map(|it| (it.gpu, it.cell))).collect()
    }
}

/// Plans the requested parts.
pub(super) fn plan(context: Context<'_>, objections: &mut Vec<Objection>) -> Machine {
    let request = &context.request.machine;
    let mut machine = Machine { replaces: request.replace, ..Machine::default() };
    if context.placements.is_empty() {
        return machine;
    }
    let mut own = Vec::new();
    machine.devices = devices(context, &mut own);
    if request.pci {
        machine.pci = pci(context, &machine.devices, &mut machine.notes, &mut own);
    }
    if let Some(choice) = request.distances {
        machine.distances = distances::plan(context, choice, &mut own);
    }
    if request.pinning {
        machine.pins = pinning::plan(context, &mut own);
        machine.replaces_pins = context.cells.moves_vcpus && pinning::replaces(context);
    }
    objections.extend(own.into_iter().map(Objection::Machine));
    machine
}

/// The requested functions that are not GPUs of the plan, each once.
fn devices(context: Context<'_>, objections: &mut Vec<MachineObjection>) -> Vec<Device> {
    let nodes = context.nodes();
    let requests = context.request.machine.devices.iter();
    let by_address: BTreeMap<_, _> = requests.map(|device| (device.address, device)).collect();
    let mut devices = Vec::new();
    for (address, request) in by_address {
        if context.placements.iter().any(|placement| placement.gpu == address) {
            continue;
        }
        let Some(function) = &request.function else {
            objections.push(MachineObjection::NoDevice { address });
            continue;
        };
        let of_node = || {
            let node = function.numa_node.id()?;
            nodes.iter().find(|(_, of_cell)| **of_cell == node).map(|(cell, _)| *cell)
        };
        match request.cell.or_else(of_node) {
            Some(cell) if context.cells.all.iter().any(|it| it.id == cell) => {
                devices.push(Device { address, cell });
            }
            Some(cell) => objections.push(MachineObjection::NoCell { address, cell }),
            None => objections.push(MachineObjection::DeviceNode { address }),
        }
    }
    devices
}

fn pci(
    context: Context<'_>,
    devices: &[Device],
    notes: &mut Vec<Note>,
    objections: &mut Vec<MachineObjection>,
) -> Option<PciPlan> {
    let host = &context.report.host;
    let iommufd = host.iommufd != Some(false);
    if !iommufd {
        objections.push(MachineObjection::NoIommufd);
    }
    let mut iommus = context.domain.into_iter().flat_map(|domain| &domain.iommus);
    if iommus.any(|iommu| iommu.bus().is_none()) && !context.request.machine.replace {
        objections.push(MachineObjection::WholeMachine);
    }
    let smmu = |address| host.gpu(address).and_then(|(gpu, _)| gpu.smmu.as_deref());
    let by_address: BTreeMap<_, _> =
        context.placements.iter().map(|it| (it.gpu, it.cell)).collect();
    let mut wanted: Vec<_> = by_address
        .into_iter()
        .map(|(device, cell)| Wanted { device, cell, smmu: smmu(device) })
        .collect();
    let requests = &context.request.machine.devices;
    wanted.extend(devices.iter().map(|Device { address, cell }| {
        let request = requests.iter().find(|request| request.address == *address);
        let smmu = request.and_then(|request| request.function.as_ref()?.smmu.as_deref());
        Wanted { device: *address, cell: *cell, smmu }
    }));
    let kind = if iommufd { Smmu::Accelerated } else { Smmu::Emulated };
    let hole = hole::size(context, devices, objections)?;
    let buses = buses::plan(context, &wanted, kind, notes, objections)?;
    Some(PciPlan { buses, hole, iommufd })
}
