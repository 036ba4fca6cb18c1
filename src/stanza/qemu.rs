//! QEMU's arguments, as libvirt generates them.

mod pci;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::Parts;
use crate::domain::{
    Cell, CpuMode, Domain, EgmDevice, Hostdev, Maybe, MemoryMode, MemoryPolicy, PciMachine,
    is_lasting_alias,
};
use crate::plan::Machine;
use crate::values::{Bytes, IdList};
use pci::Place;

/// An option of QEMU and its value.
pub(super) type Argument = (&'static str, String);

/// The error for a domain with memory that is not EGM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has memory that is not EGM, which is unsupported in QEMU arguments")]
pub struct OtherMemory(String);

/// An object as JSON, with the keys in libvirt's order: `qemuBuildMemoryBackendProps`,
/// `qemuBuildThreadContextProps`, `qemuBuildIOMMUFDProps` and `qemuBuildAcpiNodesetProps`
/// (`src/qemu/qemu_command.c`).
#[derive(Serialize)]
#[serde(tag = "qom-type", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
enum Object<'a> {
    ThreadContext {
        id: &'a str,
        node_affinity: &'a [u32],
    },
    MemoryBackendFile {
        id: &'a str,
        mem_path: &'a str,
        share: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        prealloc: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        prealloc_threads: Option<u32>,
        size: Bytes,
        #[serde(skip_serializing_if = "Option::is_none")]
        host_nodes: Option<&'a [u32]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        policy: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prealloc_context: Option<&'a str>,
    },
    Iommufd {
        id: &'static str,
    },
    AcpiGenericInitiator {
        id: String,
        pci_dev: &'a str,
        node: u32,
    },
}

/// A GPU as JSON, in the order of `qemuBuildPCIHostdevDevProps`. libvirt opens a device of an
/// iommufd itself, and passes `fd` in place of `host`.
#[derive(Serialize)]
struct Vfio<'a> {
    driver: &'static str,
    host: String,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iommufd: Option<&'static str>,
    #[serde(flatten)]
    place: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rombar: Option<u8>,
}

const IOMMUFD: &str = "iommufd0";

/// The arguments of a checked domain, for its EGM devices and its cells; with `hostdev` also for the
/// GPUs, with `numa` for memory and CPUs, with `machine` for the machine and the CPU model, and with
/// the PCI buses of a plan also for these.
///
/// The order is that of `qemuBuildCommandLine` (libvirt, `src/qemu/qemu_command.c`) with the
/// RFC's series: a backend for each path in order of first use, each followed by its devices.
pub(super) fn arguments(
    domain: &Domain,
    parts: Parts,
    machine: &Machine,
) -> Result<Vec<Argument>, OtherMemory> {
    let mut arguments = Vec::new();
    let buses = machine.pci.as_ref().map(|plan| (plan, PciMachine::of(domain)));
    if !domain.other_memory.is_empty() {
        return Err(OtherMemory("a memory device of another model".into()));
    }
    // QEMU merges several options of this name.
    let hole = buses.as_ref().map(|(plan, pci)| pci::hole(plan, pci));
    let own = parts.machine.then(|| machine_options(domain)).into_iter().flatten();
    let options: Vec<_> = own.chain(hole).collect();
    if !options.is_empty() {
        arguments.push(("-machine", options.join(",")));
    }
    if parts.machine && domain.cpu_mode.known() == Some(CpuMode::HostPassthrough) {
        arguments.push(("-cpu", "host".into()));
    }
    if parts.numa {
        arguments.push(("-m", memory(domain)));
        arguments.extend(smp(domain).map(|smp| ("-smp", smp)));
    }
    let backends = add_memory(domain, &mut arguments);
    for cell in &domain.cells {
        arguments.push(("-numa", numa(cell, &backends)?));
    }
    for cell in &domain.cells {
        let from = cell.id.value.unwrap_or_default();
        for distance in &cell.distances {
            if let (Some(to), Some(distance)) = (distance.cell.known(), distance.value.known()) {
                arguments.push(("-numa", format!("dist,src={from},dst={to},val={distance}")));
            }
        }
    }
    if let Some((plan, pci)) = &buses {
        arguments.extend(pci::buses(plan, domain, pci));
    }
    let pci = buses.as_ref().map(|(_, pci)| pci);
    add_devices(domain, parts, machine, pci, &mut arguments);
    Ok(arguments)
}

/// `virt`, `usb=off`, `gic-version=3`, `ras=on`, `acpi=on` (`qemuBuildMachineCommandLine`).
fn machine_options(domain: &Domain) -> Vec<String> {
    let features = &domain.features;
    let machine = domain.os.machine.as_ref().map_or("virt", |machine| machine.text.as_str());
    let switch = |name, is_on| format!("{name}={}", if is_on { "on" } else { "off" });
    let mut options = vec![machine.to_owned(), "usb=off".into()];
    options.extend(features.gic_version.known().map(|it| format!("gic-version={}", it.name())));
    options.extend(features.ras.known().map(|is_on| switch("ras", is_on)));
    options.push(switch("acpi", features.acpi.is_some()));
    options
}

/// `size=524288k,slots=4,maxmem=1048576k`. libvirt takes the size from the cells, and rounds the
/// maximum up to whole MiB (`qemuDomainAlignMemorySizes`, `src/qemu/qemu_domain.c`).
fn memory(domain: &Domain) -> String {
    let sizes = domain.cells.iter().filter_map(|cell| cell.memory.known());
    let size = sizes.map(|size| size.0).fold(0, u64::saturating_add);
    // libvirt omits 0.
    let slots = domain.memory_slots.known().filter(|slots| *slots > 0);
    let slots = slots.map_or(String::new(), |slots| format!(",slots={slots}"));
    let maximum = domain.max_memory.known();
    let maximum = maximum.filter(|maximum| maximum.0 > 0).map(|it| it.0.div_ceil(1 << 20) << 10);
    let maximum = maximum.map_or(String::new(), |maximum| format!(",maxmem={maximum}k"));
    format!("size={}k{slots}{maximum}", size >> 10)
}

/// `4,sockets=4,cores=1,threads=1`, or `2,maxcpus=16,sockets=2,dies=1,clusters=1,cores=8,threads=1`
/// with a `<topology>`. Every QEMU with EGM supports dies and clusters (`qemuBuildSmpCommandLine`).
fn smp(domain: &Domain) -> Option<String> {
    let vcpus = domain.vcpus.known()?;
    let mut smp = match domain.current_vcpus.known() {
        Some(current) if current < vcpus => format!("{current},maxcpus={vcpus}"),
        _ => vcpus.to_string(),
    };
    let Some(topology) = &domain.topology else {
        return Some(format!("{smp},sockets={vcpus},cores=1,threads=1"));
    };
    for level in ["sockets", "dies", "clusters", "cores", "threads"] {
        let written = topology.levels.iter().find(|(written, _)| *written == level);
        let number = written.and_then(|(_, number)| number.value).unwrap_or(1);
        // Writing to a String cannot fail.
        let _ = write!(smp, ",{level}={number}");
    }
    Some(smp)
}

/// Adds the backends and their devices; returns the backend of each cell.
fn add_memory(domain: &Domain, arguments: &mut Vec<Argument>) -> BTreeMap<u32, String> {
    let prealloc = domain.backing.allocation.text() == "immediate";
    let mut paths: Vec<(&str, Vec<(usize, &EgmDevice)>)> = Vec::new();
    for (index, device) in domain.egm.iter().enumerate() {
        let path = device.path.text();
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, devices)) => devices.push((index, device)),
            None => paths.push((path, vec![(index, device)])),
        }
    }
    let mut backends = BTreeMap::new();
    for (number, (path, devices)) in paths.into_iter().enumerate() {
        let id = format!("memegm{number}");
        let sizes = devices.iter().filter_map(|(_, device)| device.size.known());
        // All devices of a path are in one cell.
        let cell = devices.first().and_then(|(_, device)| device.cell.known());
        let policy = cell.and_then(|cell| policy(domain, cell));
        let nodes = policy.and_then(|policy| policy.nodes.as_ref()?.value.as_ref());
        let nodes: Option<Vec<_>> = nodes.map(|nodes| nodes.iter().collect());
        let policy = nodes.as_ref().and_then(|_| qemu_policy(policy?));
        let context = nodes.as_ref().filter(|_| prealloc).map(|_| format!("tc-{id}"));
        if let (Some(id), Some(node_affinity)) = (&context, &nodes) {
            arguments.push(("-object", json(&Object::ThreadContext { id, node_affinity })));
        }
        let backend = Object::MemoryBackendFile {
            id: &id,
            mem_path: path,
            share: true,
            prealloc,
            prealloc_threads: domain.backing.allocation_threads.known().filter(|it| *it > 0),
            size: Bytes(sizes.map(|size| size.0).fold(0, u64::saturating_add)),
            host_nodes: nodes.as_deref().filter(|_| policy.is_some()),
            policy,
            prealloc_context: context.as_deref(),
        };
        arguments.push(("-object", json(&backend)));
        for (index, device) in devices {
            let alias = device.pci_dev.text();
            let Some(cell) = device.cell.known() else { continue };
            let rest = format!("id=egm{index},pci-dev={alias},node={cell}");
            arguments.push(("-object", format!("acpi-egm-memory,{rest}")));
            backends.insert(cell, id.clone());
        }
    }
    backends
}

/// The policy of a cell: its own, or that of all cells.
fn policy(domain: &Domain, cell: u32) -> Option<&MemoryPolicy> {
    let own = domain.placed_cells.iter().find(|(placed, _)| placed.value == Some(cell));
    own.map(|(_, policy)| policy).or(domain.memory_policy.as_ref())
}

/// QEMU's name for a mode (`qemuNumaPolicy`, libvirt's `src/qemu/qemu_command.c`).
fn qemu_policy(policy: &MemoryPolicy) -> Option<&'static str> {
    let mode = policy.mode.as_ref().map_or(Some(MemoryMode::Strict), |mode| mode.value);
    match mode? {
        MemoryMode::Strict => Some("bind"),
        MemoryMode::Preferred => Some("preferred"),
        MemoryMode::Interleave => Some("interleave"),
        MemoryMode::Restrictive => None,
    }
}

/// Adds the `<hostdev>` devices of EGM devices and of the plan, in the order of the domain, each
/// followed by its generic initiators.
fn add_devices(
    domain: &Domain,
    parts: Parts,
    machine: &Machine,
    pci: Option<&PciMachine>,
    arguments: &mut Vec<Argument>,
) {
    let aliases: BTreeSet<_> = domain.egm.iter().map(|device| device.pci_dev.text()).collect();
    let others: BTreeSet<_> = machine.devices.iter().map(|device| device.address).collect();
    // libvirt numbers those without an alias that it keeps, after the network interfaces.
    let mut numbers = domain.interfaces.len()..;
    let mut devices = Vec::new();
    for hostdev in &domain.hostdevs {
        let alias = hostdev.alias.as_ref().map(|alias| alias.text.clone());
        let is_gpu = alias.as_ref().is_some_and(|alias| aliases.contains(alias.as_str()));
        let is_other = hostdev.pci().is_some_and(|address| others.contains(&address));
        let id = alias
            .filter(|alias| is_lasting_alias(alias))
            .or_else(|| numbers.next().map(|number| format!("hostdev{number}")));
        devices.extend(id.filter(|_| is_gpu || is_other).map(|id| (id, hostdev)));
    }
    let uses_iommufd =
        |hostdev: &Hostdev| hostdev.iommufd.known().or(domain.iommufd.known()).unwrap_or_default();
    if parts.hostdev && devices.iter().any(|(_, hostdev)| uses_iommufd(hostdev)) {
        arguments.push(("-object", json(&Object::Iommufd { id: IOMMUFD })));
    }
    let mut ids = 0..;
    for (id, hostdev) in devices {
        if let Some(address) = hostdev.pci().filter(|_| parts.hostdev) {
            let vfio = Vfio {
                driver: "vfio-pci",
                host: address.to_string(),
                id: &id,
                iommufd: uses_iommufd(hostdev).then_some(IOMMUFD),
                place: pci.and_then(|pci| Place::of(hostdev.guest.as_ref(), pci)),
                rombar: hostdev.rom_bar.known().map(u8::from),
            };
            arguments.push(("-device", json(&vfio)));
        }
        let cells = hostdev.cells.as_ref().and_then(|cells| cells.value.as_ref());
        for (node, number) in cells.into_iter().flat_map(IdList::iter).zip(&mut ids) {
            let initiator =
                Object::AcpiGenericInitiator { id: format!("gi{number}"), pci_dev: &id, node };
            arguments.push(("-object", json(&initiator)));
        }
    }
}

fn numa(cell: &Cell, backends: &BTreeMap<u32, String>) -> Result<String, OtherMemory> {
    let id = cell.id.value.unwrap_or_default();
    let mut argument = format!("node,nodeid={id}");
    if let Some(cpus) = cell.cpus.as_ref().and_then(|cpus| cpus.value.as_ref()) {
        argument += &format!(",{cpus}").replace(',', ",cpus=");
    }
    let memory = cell.memory.known();
    match backends.get(&id) {
        Some(backend) => argument = argument + ",memdev=" + backend,
        None if memory.is_none_or(|memory| memory.0 > 0) => {
            return Err(OtherMemory(format!("guest NUMA cell {id}")));
        }
        None => {}
    }
    Ok(argument)
}

/// Cannot fail: the values are only texts, numbers and booleans.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
