//! Plans: from a request to the memory of each GPU. Pure.

mod buses;
mod cells;
mod choice;
mod distances;
mod hole;
mod machine;
mod machine_objection;
mod naming;
mod numbers;
mod objection;
pub(crate) mod orphans;
pub(crate) mod pinning;
mod size;
pub(crate) mod vcpus;

use crate::domain::{Domain, EgmDevice, Hostdev, Maybe, MemoryDevice};
use crate::host::{Gpu, Region};
use crate::report::Report;
use crate::values::{Bytes, IdList, NodeId, PciAddress, RegionName, SIZE_STEP};
use cells::Cells;
pub use distances::Distances;
pub use machine::{
    Device, DeviceRequest, DistanceChoice, ExpanderBus, Machine, MachineRequest, NewExpander,
    NewPort, Note, PciPlan, RootPort, Smmu,
};
pub use machine_objection::MachineObjection;
use naming::Named;
pub use objection::{Objection, Weight};
pub use pinning::Pin;

/// A request for GPUs, regions or everything, with options.
///
/// Create it with one of its functions, and set further options in its fields.
///
/// ```
/// use egm_probe::plan::{Request, Size};
/// use egm_probe::values::Bytes;
///
/// let mut request = Request::of_gpus(["0009:01:00.0".parse()?]);
/// request.peers = true;
/// request.size = Size::Each(Bytes(8 << 30));
/// # Ok::<(), egm_probe::values::BadAddress>(())
/// ```
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
#[non_exhaustive]
pub struct Request {
    /// These GPUs.
    pub gpus: Vec<PciAddress>,
    /// All GPUs of these regions.
    pub regions: Vec<RegionName>,
    /// All GPUs of all regions.
    pub all: bool,
    /// Also the other GPUs of their regions.
    pub peers: bool,
    /// The size of each GPU's memory.
    pub size: Size,
    /// The alignment of sizes.
    pub alignment: Alignment,
    /// The guest's NUMA cells for the regions.
    pub guest_nodes: Vec<GuestNode>,
    /// The alias of the only GPU.
    pub alias: Option<String>,
    /// The prefix of the aliases of the GPUs, before a number; by default `ua-hostdev`.
    pub alias_prefix: Option<String>,
    /// The number of empty cells for each GPU's own memory: those of the domain that nothing names, or
    /// new ones.
    pub gpu_cells: u32,
    /// The number of virtual CPUs to distribute over the cells.
    pub vcpus: Option<u32>,
    /// The machine around the devices.
    pub machine: MachineRequest,
    /// The virtual machine, whose own claims are not conflicts.
    pub owner: Option<String>,
    /// Proceed despite objections of the weight [`Weight::Refusal`].
    pub force: bool,
    /// Treat warnings as errors.
    pub strict: bool,
    /// Codes of rules, such as `EGM106`: warnings with them are notes, see [`Plan::allowed`].
    pub allow: Vec<&'static str>,
}

impl Request {
    /// All GPUs of all regions.
    #[must_use]
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// These GPUs.
    #[must_use]
    pub fn of_gpus(gpus: impl IntoIterator<Item = PciAddress>) -> Self {
        Self { gpus: gpus.into_iter().collect(), ..Self::default() }
    }

    /// All GPUs of these regions.
    #[must_use]
    pub fn of_regions(regions: impl IntoIterator<Item = RegionName>) -> Self {
        Self { regions: regions.into_iter().collect(), ..Self::default() }
    }
}

/// The requested size of each GPU's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Size {
    /// The size that the domain has for the GPU, or else its share.
    #[default]
    Kept,
    /// Its share: the region divided by its GPUs.
    Share,
    /// This size.
    Each(Bytes),
}

/// The alignment of the size of an EGM device.
///
/// libvirt rounds each memory device of a domain up to 2 MiB and each cell to 1 MiB
/// (`qemuDomainAlignMemorySizes`, `src/qemu/qemu_domain.c`): with other sizes the memory of the
/// domain differs from that of its cells, and QEMU exits. QEMU itself accepts whole MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alignment {
    /// 2 MiB, for libvirt's XML.
    #[default]
    Libvirt,
    /// 1 MiB, for QEMU without libvirt.
    Qemu,
}

impl Alignment {
    /// The multiple in bytes, which is not 0.
    #[must_use]
    pub fn step(self) -> Bytes {
        match self {
            Self::Libvirt => SIZE_STEP,
            Self::Qemu => Bytes(1 << 20),
        }
    }

    /// Whether a size can be used as it is.
    #[must_use]
    pub fn fits(self, size: Bytes) -> bool {
        size.0 > 0 && size.0.is_multiple_of(self.step().0)
    }

    /// The next smaller size that fits; `None` if there is none.
    pub(crate) fn below(self, size: Bytes) -> Option<Bytes> {
        Some(Bytes(size.0 - size.0 % self.step().0)).filter(|size| size.0 > 0)
    }
}

/// The requested cell of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNode {
    /// The region; `None` for the only region of a plan.
    pub region: Option<RegionName>,
    /// The guest's NUMA cell.
    pub cell: u32,
}

/// The GPUs of a virtual machine, and their memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// A placement for each GPU, by region and address.
    pub placements: Vec<Placement>,
    /// The guest's NUMA cells: those of the regions, of the GPUs, and the domain's others.
    pub cells: Vec<PlannedCell>,
    /// The memory of all cells, and of the domain's memory devices of other models.
    pub memory: Bytes,
    /// The alignment of the sizes.
    pub alignment: Alignment,
    /// The number of virtual CPUs, if it is known.
    pub vcpus: Option<u32>,
    /// Whether they are redistributed over the cells.
    pub shares_vcpus: bool,
    /// Whether virtual CPUs that are assigned to cells may get others.
    pub moves_vcpus: bool,
    /// The requested parts of the machine around the devices.
    pub machine: Machine,
    /// Warnings.
    pub warnings: Vec<Objection>,
    /// Warnings that were allowed.
    pub allowed: Vec<Objection>,
}

/// The memory of one GPU, for one `<memory model='egm'>`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The GPU.
    pub gpu: PciAddress,
    /// The alias of its `<hostdev>`.
    pub alias: String,
    /// The current alias of its `<hostdev>` in the domain.
    pub old_alias: Option<String>,
    /// The region.
    pub region: RegionName,
    /// The path of the region's device, with the kernel's name.
    pub path: String,
    /// The region's NUMA node on the host.
    pub host_node: Option<NodeId>,
    /// The guest's NUMA cell.
    pub cell: u32,
    /// The size.
    pub size: Bytes,
    /// The guest's cells for the GPU's own memory, if it gets new ones or empty ones of the domain.
    pub gpu_cells: Option<IdList>,
}

/// A NUMA cell of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedCell {
    /// Its number.
    pub id: u32,
    /// Its memory.
    pub memory: Bytes,
    /// Its virtual CPUs.
    pub cpus: Option<IdList>,
}

/// The reasons why there is no plan. Displayed with one line per refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(refusals))]
#[non_exhaustive]
pub struct Refused {
    /// The objections, at least one.
    pub refusals: Vec<Objection>,
    /// Further warnings.
    pub warnings: Vec<Objection>,
}

fn lines(refusals: &[Objection]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A selected GPU, and the region of its memory.
#[derive(Clone, Copy, Debug)]
struct Choice<'a> {
    gpu: &'a Gpu,
    region: &'a Region,
}

impl Plan {
    /// Makes a plan for a virtual machine, new or with an existing definition.
    ///
    /// The report must have been read with [`Plan::NEEDS`].
    ///
    /// # Errors
    /// All objections at once.
    ///
    /// ```
    /// use egm_probe::plan::{Plan, Request};
    /// use egm_probe::report::Report;
    /// use egm_probe::sysroot::Sysroot;
    ///
    /// let root = Sysroot::capture("tests/fixtures/gb200-full-gpu-list".as_ref())?;
    /// let report = Report::read(&root, Plan::NEEDS);
    /// let plan = Plan::new(&report, &Request::everything(), None)?;
    /// assert_eq!(plan.placements.len(), 4);
    /// assert_eq!(plan.memory.0, 959_925_190_656);
    /// assert_eq!(plan.placements[3].alias, "ua-hostdev3");
    ///
    /// // Selecting one GPU of two leaves the other without EGM, which causes a warning.
    /// let mut one = Request::of_gpus(["0009:01:00.0".parse()?]);
    /// assert_eq!(Plan::new(&report, &one, None)?.warnings.len(), 1);
    /// one.strict = true;
    /// assert!(Plan::new(&report, &one, None).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(
        report: &Report,
        request: &Request,
        domain: Option<&Domain>,
    ) -> Result<Self, Refused> {
        let mut objections = Vec::new();
        let choices = choice::choose(report, request, &mut objections);
        let named = naming::name(request, domain, &choices, &mut objections);
        let rest = Rest::of(domain, &named);
        let kept = size::kept(request, domain, &named);
        choice::judge(report, request, domain, &rest, &choices, &kept, &mut objections);
        // Regions with objections have no sizes.
        let sizes = size::share_out(request, &rest, &named, kept, &mut objections);
        let reused = orphans::reuse(request, domain, &named);
        let nodes = cells::assign(request, domain, &rest, &named, &reused, &mut objections);
        let mut gpu_cells =
            cells::for_gpus(request, domain, &rest, &named, &nodes, reused, &mut objections);
        let place = |Named { gpu, alias, old_alias, region, path }| {
            let (cell, size) = (*nodes.get(&region.name)?, *sizes.get(&gpu)?);
            let (gpu_cells, host_node) = (gpu_cells.remove(&gpu), region.numa_node);
            let region = region.name.clone();
            Some(Placement {
                gpu,
                alias,
                old_alias,
                region,
                path,
                host_node,
                cell,
                size,
                gpu_cells,
            })
        };
        let placements: Vec<_> = named.into_iter().filter_map(place).collect();
        let all_cells = cells::cells(request, domain, &rest, &placements, &mut objections);
        let (cells, placements_of) = (&all_cells, placements.as_slice());
        let context = machine::Context {
            report,
            request,
            domain,
            rest: &rest,
            placements: placements_of,
            cells,
        };
        let machine = machine::plan(context, &mut objections);
        let Cells { all: cells, vcpus, shares_vcpus, moves_vcpus } = all_cells;
        let others = domain.into_iter().flat_map(|domain| &domain.other_memory);
        let memory = cells.iter().map(|cell| cell.memory).chain(others.map(MemoryDevice::counts));
        let memory = memory.map(|memory| memory.0).fold(0, u64::saturating_add);
        let is_allowed = |objection: &Objection| {
            objection.code().is_some_and(|code| request.allow.contains(&code))
        };
        let is_refused = |objection: &Objection| match objection.weight() {
            Weight::Advice => request.strict && !is_allowed(objection),
            // An empty plan is useless even with `force`.
            Weight::Refusal => !request.force || choices.is_empty(),
            Weight::Impossible => true,
        };
        let (refusals, warnings): (Vec<_>, Vec<_>) = objections.into_iter().partition(is_refused);
        let (allowed, warnings) = warnings.into_iter().partition(is_allowed);
        if refusals.is_empty() {
            let (memory, alignment) = (Bytes(memory), request.alignment);
            Ok(Self {
                placements,
                cells,
                memory,
                alignment,
                vcpus,
                shares_vcpus,
                moves_vcpus,
                machine,
                warnings,
                allowed,
            })
        } else {
            Err(Refused { refusals, warnings })
        }
    }

    /// Adds empty cells for missing numbers.
    pub(crate) fn fill_cells(&mut self) {
        self.cells = cells::filled(std::mem::take(&mut self.cells));
    }

    /// Whether it has a GPU of this region.
    #[must_use]
    pub fn has_region(&self, name: &RegionName) -> bool {
        self.placements.iter().any(|placement| placement.region == *name)
    }

    /// The placements by the GPUs' addresses.
    #[must_use]
    pub fn by_address(&self) -> Vec<&Placement> {
        let mut by_address: Vec<_> = self.placements.iter().collect();
        by_address.sort_by_key(|placement| placement.gpu);
        by_address
    }

    /// The placement of an existing device of a domain.
    #[must_use]
    pub fn of_device(&self, device: &EgmDevice) -> Option<&Placement> {
        self.placements.iter().find(|Placement { alias, old_alias, path, .. }| {
            naming::is_of(device, old_alias.as_deref(), alias, path)
        })
    }
}

/// The EGM devices of a domain that a plan leaves unchanged.
struct Rest<'a> {
    devices: Vec<RestDevice<'a>>,
}

struct RestDevice<'a> {
    device: &'a EgmDevice,
    gpu: Option<PciAddress>,
}

impl<'a> Rest<'a> {
    fn of(domain: Option<&'a Domain>, named: &[Named<'_>]) -> Self {
        let devices = domain.into_iter().flat_map(|domain| {
            let hostdev_of = domain.find_hostdev();
            let untouched = |device: &&EgmDevice| !named.iter().any(|gpu| gpu.has(device));
            domain.egm.iter().filter(untouched).map(move |device| RestDevice {
                device,
                gpu: hostdev_of(device).and_then(Hostdev::pci),
            })
        });
        Self { devices: devices.collect() }
    }

    /// The cell and size of each.
    fn cells(&self) -> impl Iterator<Item = (u32, Bytes)> {
        self.devices.iter().filter_map(|RestDevice { device, .. }| {
            Some((device.cell.known()?, device.size.known()?))
        })
    }

    /// The devices of one region, by the path of its device.
    fn of_path<'b>(&'b self, path: &'b str) -> impl Iterator<Item = &'b RestDevice<'a>> {
        self.devices
            .iter()
            .filter(move |rest| rest.device.path.as_ref().is_some_and(|found| found.text == path))
    }
}
