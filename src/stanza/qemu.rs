//! What QEMU is told, as libvirt tells it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::Parts;
use crate::domain::{Cell, Domain, EgmDevice, Value};
use crate::id_list::IdList;
use crate::units::Bytes;

/// An option of QEMU's and its value.
pub(super) type Argument = (&'static str, String);

/// Why a domain cannot be written as arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has memory that is not EGM, and only EGM is written as arguments")]
pub struct OtherMemory(String);

/// `-object` takes JSON; in this order, which is libvirt's.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Backend<'a> {
    qom_type: &'static str,
    id: &'a str,
    mem_path: &'a str,
    share: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prealloc: bool,
    size: Bytes,
}

/// `-device` takes JSON, too.
#[derive(Serialize)]
struct Vfio<'a> {
    driver: &'static str,
    host: String,
    id: &'a str,
}

/// The arguments of a domain that has passed the check: of its EGM devices and of its cells; with
/// `hostdev` the GPUs themselves, with `numa` the sizes of memory and CPUs.
///
/// The order is that of `qemuBuildCommandLine` (libvirt, `src/qemu/qemu_command.c`) with the
/// RFC's series: a backend for each path in order of first use, each followed by its devices.
pub(super) fn arguments(domain: &Domain, parts: Parts) -> Result<Vec<Argument>, OtherMemory> {
    let mut arguments = Vec::new();
    if !domain.other_memory.is_empty() {
        return Err(OtherMemory("a memory device of another model".into()));
    }
    if parts.numa {
        let memory = domain.memory.as_ref().and_then(|memory| memory.value);
        arguments.extend(memory.map(|memory| ("-m", format!("size={}k", memory.0 >> 10))));
        arguments.extend(smp(domain).map(|smp| ("-smp", smp)));
    }
    let backends = add_memory(domain, &mut arguments);
    for cell in &domain.cells {
        arguments.push(("-numa", numa(cell, &backends)?));
    }
    for cell in &domain.cells {
        let from = cell.id.value.unwrap_or_default();
        for (to, distance) in &cell.distances {
            if let (Some(to), Some(distance)) = (to.value, distance) {
                arguments.push(("-numa", format!("dist,src={from},dst={to},val={distance}")));
            }
        }
    }
    // The GPUs, by their aliases; other devices are not of this.
    let hostdevs = domain.hostdevs_by_alias();
    let gpus = domain.egm.iter().filter_map(|device| {
        let alias = text(device.pci_dev.as_ref());
        Some((alias, *hostdevs.get(alias)?))
    });
    let mut initiators = Vec::new();
    for (id, hostdev) in gpus {
        if let Some(address) = hostdev.pci().filter(|_| parts.hostdev) {
            let vfio = Vfio { driver: "vfio-pci", host: address.to_string(), id };
            arguments.push(("-device", json(&vfio)));
        }
        let cells = hostdev.cells.as_ref().and_then(|cells| cells.value.as_ref());
        for cell in cells.into_iter().flat_map(IdList::iter) {
            let number = initiators.len();
            let rest = format!("id=gi{number},pci-dev={},node={cell}", option(id));
            initiators.push(("-object", format!("acpi-generic-initiator,{rest}")));
        }
    }
    arguments.append(&mut initiators);
    Ok(arguments)
}

/// `16`, or `2,maxcpus=16,sockets=2,cores=8`
fn smp(domain: &Domain) -> Option<String> {
    let vcpus = domain.vcpus.as_ref()?.value?;
    let mut smp = match domain.current_vcpus.as_ref().and_then(|current| current.value) {
        Some(current) if current < vcpus => format!("{current},maxcpus={vcpus}"),
        _ => vcpus.to_string(),
    };
    for (level, number) in domain.topology.iter().flat_map(|topology| &topology.levels) {
        // Writing to a String cannot fail.
        let _ = write!(smp, ",{level}={number}");
    }
    Some(smp)
}

/// The backends and their devices; gives the backend of each cell.
fn add_memory(domain: &Domain, arguments: &mut Vec<Argument>) -> BTreeMap<u32, String> {
    let is_immediate = |mode: &Value<String>| mode.text == "immediate";
    let prealloc = domain.backing.allocation.as_ref().is_some_and(is_immediate);
    let mut paths: Vec<(&str, Vec<(usize, &EgmDevice)>)> = Vec::new();
    for (index, device) in domain.egm.iter().enumerate() {
        let path = text(device.path.as_ref());
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, devices)) => devices.push((index, device)),
            None => paths.push((path, vec![(index, device)])),
        }
    }
    let mut backends = BTreeMap::new();
    for (number, (path, devices)) in paths.into_iter().enumerate() {
        let id = format!("memegm{number}");
        let sizes = devices.iter().filter_map(|(_, device)| device.size.as_ref()?.value);
        let backend = Backend {
            qom_type: "memory-backend-file",
            id: &id,
            mem_path: path,
            share: true,
            prealloc,
            size: Bytes(sizes.map(|size| size.0).fold(0, u64::saturating_add)),
        };
        arguments.push(("-object", json(&backend)));
        for (index, device) in devices {
            let alias = option(text(device.pci_dev.as_ref()));
            let Some(cell) = device.cell.as_ref().and_then(|cell| cell.value) else { continue };
            let rest = format!("id=egm{index},pci-dev={alias},node={cell}");
            arguments.push(("-object", format!("acpi-egm-memory,{rest}")));
            backends.insert(cell, id.clone());
        }
    }
    backends
}

fn numa(cell: &Cell, backends: &BTreeMap<u32, String>) -> Result<String, OtherMemory> {
    let id = cell.id.value.unwrap_or_default();
    let mut argument = format!("node,nodeid={id}");
    if let Some(cpus) = cell.cpus.as_ref().and_then(|cpus| cpus.value.as_ref()) {
        for range in cpus.to_string().split(',') {
            argument.push_str(",cpus=");
            argument.push_str(range);
        }
    }
    let memory = cell.memory.as_ref().and_then(|memory| memory.value);
    match backends.get(&id) {
        Some(backend) => {
            argument.push_str(",memdev=");
            argument.push_str(backend);
        }
        None if memory.is_none_or(|memory| memory.0 > 0) => {
            return Err(OtherMemory(format!("guest NUMA cell {id}")));
        }
        None => {}
    }
    Ok(argument)
}

fn text(value: Option<&Value<String>>) -> &str {
    value.map(|value| value.text.as_str()).unwrap_or_default()
}

/// A value among others: QEMU reads two commas as one.
fn option(value: &str) -> String {
    value.replace(',', ",,")
}

/// These values are texts, numbers and booleans: nothing that JSON cannot say.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
