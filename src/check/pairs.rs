//! Rules for all EGM devices together: one GPU for each, one cell for each path.
//!
//! One wrong value contradicts those of several devices. Only the device whose values most of the
//! others contradict gets a finding.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::rules::{ALIAS_TWICE, CELL_PATHS, GPU_CELLS, PATH_CELLS, TWO_DEVICES};
use super::wiring::{name, root_of};
use super::{CELLS_LIMIT, Findings, Subject};
use crate::domain::{EgmDevice, Hostdev, Maybe, PciMachine, Value, is_lasting_alias};
use crate::values::text::{SHOWN, excerpt};

/// The maximum number of different characters in similar aliases.
const SIMILAR: usize = 2;

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    check_gpus(subject, findings);
    check_empty(subject, findings);
    check_paths(subject, findings);
}

/// Reports each alias that is equal to a previous one.
pub(super) fn check_aliases(subject: &Subject<'_>, findings: &mut Findings) {
    let domain = subject.domain;
    let is_dangling = |device: &&EgmDevice| {
        let is_named = device.pci_dev.as_ref().is_some_and(|alias| !alias.text.is_empty());
        is_named && subject.hostdev(device).is_none()
    };
    let mut dangling = domain.egm.iter().filter(is_dangling);
    let mut only = dangling.next().filter(|_| dangling.next().is_none());
    // libvirt drops other aliases from a definition.
    let lasts = |alias: &&Value<String>| domain.is_status || is_lasting_alias(&alias.text);
    let mut seen = BTreeSet::new();
    for alias in domain.aliases.iter().filter(lasts).filter(|alias| !alias.text.is_empty()) {
        if seen.insert(&alias.text) {
            continue;
        }
        // The other of the two aliases may be the wrong one.
        let meant = only.filter(|_| !findings.are_many()).and_then(|device| {
            let has_it = |it: &&Hostdev| it.alias.text() == alias.text && fits(subject, it, device);
            let hostdev = domain.hostdevs.iter().rfind(has_it)?;
            Some((device, hostdev.alias.as_ref()?))
        });
        let place = meant.map_or(alias, |(_, alias)| alias);
        let message = format!("duplicate alias `{}`", alias.shown());
        let finding = findings.add(ALIAS_TWICE, &place.span, message);
        if let Some((device, name)) = meant.and_then(|(it, _)| Some((it, it.pci_dev.as_ref()?))) {
            finding.help(format!("<alias name='{}'/>, which a <pciDev> names", name.shown()));
            // The GPU of a device that names the other one is not known either.
            let is_named = |it: &&EgmDevice| it.pci_dev.text() == alias.text;
            for device in domain.egm.iter().filter(is_named).chain([device]) {
                findings.settle(device);
            }
            only = None;
        } else {
            finding.help("a different alias for each device");
        }
    }
}

/// Whether an EGM device may belong to this `<hostdev>`: on a host, a GPU of the device's region.
fn fits(subject: &Subject<'_>, hostdev: &Hostdev, device: &EgmDevice) -> bool {
    let Some(report) = subject.report else { return hostdev.address.is_some() };
    let region = hostdev.pci().and_then(|address| report.host.gpu(address)?.1);
    let path = device.path.as_ref().map(|path| Path::new(&path.text));
    region.is_some_and(|region| path.is_some_and(|path| region.device.path == path))
}

/// A suggestion for the `<pciDev>` of a device: similar aliases that no EGM device names.
pub(super) fn suggestion(
    subject: &Subject<'_>,
    device: &EgmDevice,
    findings: &Findings,
) -> Option<String> {
    let typed = device.pci_dev.text();
    if findings.are_many() || typed.len() > SHOWN {
        return None;
    }
    let named: BTreeSet<_> = subject.domain.egm.iter().map(|it| it.pci_dev.text()).collect();
    let hostdevs = subject.domain.hostdevs.iter().filter(|it| fits(subject, it, device));
    let aliases = hostdevs.filter_map(|hostdev| hostdev.alias.as_ref());
    let free = aliases
        .filter(|it| (1..=SHOWN).contains(&it.text.len()) && !named.contains(it.text.as_str()));
    let by_distance = free.map(|alias| (strsim::levenshtein(typed, &alias.text), alias.shown()));
    let free: BTreeSet<_> = by_distance.collect();
    let least = free.first()?.0;
    // On a host, the GPUs of the region are known.
    if least > SIMILAR && !(subject.report.is_some() && free.len() == 1) {
        return None;
    }
    let nearest = free.iter().filter(|(distance, _)| *distance == least);
    let nearest: Vec<_> = nearest.map(|(_, alias)| format!("`{alias}`")).collect();
    Some(format!("did you mean {}?", nearest.join(" or ")))
}

/// A GPU has one EGM device.
fn check_gpus(subject: &Subject<'_>, findings: &mut Findings) {
    let mut by_gpu: BTreeMap<&str, Vec<&EgmDevice>> = BTreeMap::new();
    for device in &subject.domain.egm {
        by_gpu.entry(device.pci_dev.text()).or_default().push(device);
    }
    for (alias, devices) in by_gpu {
        if alias.is_empty() || devices.len() < 2 {
            continue;
        }
        let kept = devices.iter().position(|device| !subject.is_foreign(device)).unwrap_or(0);
        for (index, device) in devices.into_iter().enumerate() {
            let Some(found) = device.pci_dev.as_ref().filter(|_| index != kept) else { continue };
            let message = format!("duplicate EGM device for the GPU `{}`", found.shown());
            let help = suggestion(subject, device, findings)
                .unwrap_or_else(|| "one EGM device with the whole size for each GPU".into());
            findings.add(TWO_DEVICES, &found.span, message).help(help);
            findings.settle(device);
        }
    }
}

/// An EGM device does not back an empty cell of a GPU.
fn check_empty(subject: &Subject<'_>, findings: &mut Findings) {
    let mut of_gpus: BTreeMap<u32, &Hostdev> = BTreeMap::new();
    for hostdev in subject.domain.egm.iter().filter_map(|device| subject.hostdev(device)) {
        let list = hostdev.cells.iter().filter_map(|cells| cells.value.as_ref());
        let ids = list.flat_map(|list| list.iter().take(CELLS_LIMIT));
        of_gpus.extend(ids.map(|id| (id, hostdev)));
    }
    let has_memory = |id: &u32| {
        let cell = subject.cells.get(id);
        cell.is_some_and(|cell| cell.memory.known().is_none_or(|memory| memory.0 > 0))
    };
    let is_right = |id: &u32| has_memory(id) && !of_gpus.contains_key(id);
    let mut machine = None;
    for device in &subject.domain.egm {
        let Some((cell, id)) = device.cell.as_ref().zip(device.cell.known()) else { continue };
        let Some(hostdev) = of_gpus.get(&id).filter(|_| subject.cells.contains_key(&id)) else {
            continue;
        };
        // Another rule has cells of GPUs with memory.
        if has_memory(&id) {
            continue;
        }
        let machine = machine.get_or_insert_with(|| PciMachine::of(subject.domain));
        let bus = cell_of_bus(subject, machine, device).filter(is_right);
        let help = bus.map_or("a cell with memory".into(), |id| format!("<node>{id}</node>"));
        let message = format!("cell {id} is one of the empty cells of GPU {}", name(hostdev));
        findings.add(GPU_CELLS, &cell.span, message).help(help);
        findings.settle(device);
    }
}

/// The cell of the expander bus that the GPU of a device is below.
fn cell_of_bus(subject: &Subject<'_>, machine: &PciMachine, device: &EgmDevice) -> Option<u32> {
    let root = root_of(machine, subject.hostdev(device)?)?;
    machine.controller(&root)?.target.node.known()
}

/// The support for a path and a cell that belong together.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Votes {
    /// Devices whose GPU does not belong to another region.
    own: usize,
    all: usize,
    /// Devices whose GPU is on a bus of this cell.
    on_bus: usize,
    first: Reverse<usize>,
}

/// Each path has one cell, and each cell one path.
fn check_paths(subject: &Subject<'_>, findings: &mut Findings) {
    let mut devices = Vec::new();
    let mut pairs: BTreeMap<(&Path, u32), Votes> = BTreeMap::new();
    for device in &subject.domain.egm {
        let id = device.cell.known().filter(|id| subject.cells.contains_key(id));
        let path = device.path.as_ref().filter(|path| path.text.starts_with('/'));
        let Some((path, id)) = path.zip(id).filter(|_| !findings.is_settled(device)) else {
            continue;
        };
        pairs.entry((Path::new(&path.text), id)).or_default();
        devices.push((device, path, id));
    }
    let is_one_to_one = |pairs: &BTreeMap<(&Path, u32), Votes>| {
        let paths: BTreeSet<_> = pairs.keys().map(|(path, _)| path).collect();
        let cells: BTreeSet<_> = pairs.keys().map(|(_, id)| id).collect();
        paths.len() == pairs.len() && cells.len() == pairs.len()
    };
    if is_one_to_one(&pairs) {
        return;
    }
    let machine = PciMachine::of(subject.domain);
    let bus = |device| cell_of_bus(subject, &machine, device);
    for (index, (device, path, id)) in devices.iter().enumerate() {
        let Some(votes) = pairs.get_mut(&(Path::new(&path.text), *id)) else { continue };
        if votes.all == 0 {
            votes.first = Reverse(index);
        }
        votes.all += 1;
        votes.own += usize::from(!subject.is_foreign(device));
        votes.on_bus += usize::from(bus(device) == Some(*id));
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|(_, votes)| Reverse(*votes));
    let (mut cells, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for ((path, id), _) in pairs {
        if !cells.contains_key(path) && !paths.contains_key(&id) {
            cells.insert(path, id);
            paths.insert(id, path);
        }
    }
    for (device, path, id) in devices {
        let own = cells.get(Path::new(&path.text)).copied();
        // The host's rules report a path that is not that of the GPU.
        if own == Some(id) || subject.is_foreign(device) {
            continue;
        }
        let other = paths.get(&id).map(|path| excerpt(&path.to_string_lossy(), SHOWN));
        let (bus, is_known) = (bus(device), subject.region_of_gpu(device).is_some());
        match (own, other) {
            (Some(own), other) if is_known || bus != Some(id) || other.is_none() => {
                let Some(cell) = &device.cell else { continue };
                let message = format!("{} already backs cell {own}", path.shown());
                let help = match other.filter(|_| !is_known && bus.is_none()) {
                    Some(other) => format!("<node>{own}</node>, or <path>{other}</path>"),
                    None => format!("<node>{own}</node>"),
                };
                findings.add(PATH_CELLS, &cell.span, message).help(help);
            }
            (own, Some(other)) => {
                let message = format!("cell {id} is already backed by {other}");
                let free =
                    bus.filter(|id| subject.cells.contains_key(id) && !paths.contains_key(id));
                let help = match (own, free) {
                    (Some(_), _) => format!("<path>{other}</path>"),
                    (None, Some(id)) => format!("<node>{id}</node>"),
                    (None, None) => "use a separate cell for each region".into(),
                };
                findings.add(CELL_PATHS, &path.span, message).help(help);
            }
            (_, None) => continue,
        }
        findings.settle(device);
    }
}
