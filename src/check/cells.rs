//! Rules for the guest's memory, NUMA cells and virtual CPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::rules::{
    CELL_SUM, CELLS, DISTANCES, GPU_CELLS, MAX_MEMORY, NO_CPUS, NO_MAX_MEMORY, NODE, PLACED, SIZE,
    TOPOLOGY, TOTAL, VCPUS,
};
use super::{CELLS_LIMIT, Findings, Severity, Subject};
use crate::domain::{Cell, Domain, Hostdev, Maybe, MemoryDevice, Value};
use crate::values::text::plural;
use crate::values::{Bytes, IdList};

/// The distances that libvirt accepts (`virDomainNumaDefNodeDistanceParseXML`,
/// `src/conf/numa_conf.c`): 255 is unreachable.
const DISTANCE: RangeInclusive<u32> = 10..=255;

/// The maximum of the machine `virt` (`virt_machine_class_init`, QEMU `hw/arm/virt.c`).
const MOST_VCPUS: u32 = 512;

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let domain = subject.domain;
    let sums = check_sums(domain, findings);
    check_total(domain, &sums, findings);
    check_vcpus(domain, findings);
    check_gpu_cells(subject, findings);
    check_distances(subject, findings);
}

pub(super) fn check_numbers(domain: &Domain, findings: &mut Findings) {
    if let Some(beyond) = domain.cells.get(CELLS_LIMIT) {
        let count = domain.cells.len();
        let message = format!("too many cells: {count} (QEMU supports at most {CELLS_LIMIT})");
        findings.add(CELLS, &beyond.span, message);
    }
    let last = u32::try_from(domain.cells.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let mut used: BTreeSet<_> = domain.cells.iter().filter_map(|cell| cell.id.value).collect();
    let mut missing = (0..=last).filter(|id| !used.contains(id)).collect::<Vec<_>>().into_iter();
    for cell in &domain.cells {
        // The first cell of each number has it.
        let message = match cell.id.value {
            None => format!("invalid cell number `{}`", cell.id.shown()),
            Some(id) if id > last => {
                let cells = plural(domain.cells.len(), "cell");
                let or = missing.as_slice().first();
                let or = or.map_or_else(String::new, |id| format!("; is cell {id} missing?"));
                format!("cell number {id} is out of range (the guest has {cells}{or})")
            }
            Some(id) if !used.remove(&id) => format!("duplicate cell {id}"),
            Some(_) => continue,
        };
        let help = missing.next().map_or_else(String::new, |id| format!("id='{id}'; "));
        let help = format!("{help}the cells are 0 to {last}, each once");
        findings.add(CELLS, &cell.id.span, message).help(help);
    }
}

/// Compares each cell with the sum of its devices; returns the sums, if they are meaningful.
fn check_sums(domain: &Domain, findings: &mut Findings) -> BTreeMap<u32, u64> {
    let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
    // The sum of a cell is meaningless if one of its devices has another fault.
    let is_whole = !domain.other_memory.iter().any(MemoryDevice::is_like_egm);
    if is_whole && !findings.has(&[NODE, SIZE, CELLS]) && findings.settled.is_empty() {
        for device in &domain.egm {
            if let Some((cell, size)) = device.cell.known().zip(device.size.known()) {
                let sum = sums.entry(cell).or_default();
                *sum = sum.saturating_add(size.0);
            }
        }
    }
    for cell in &domain.cells {
        let Some(memory) = &cell.memory else {
            findings.add(CELL_SUM, &cell.span, "`memory` is missing").help("memory='0'");
            continue;
        };
        let sum = cell.id.value.and_then(|id| sums.get(&id)).map(|sum| sum >> 10);
        let message = match (memory.value.map(|memory| memory.0 >> 10), sum) {
            (None, _) => not_a_size(memory),
            (Some(has), Some(sum)) if has != sum => {
                format!("cell has {has} KiB, its EGM devices have {sum} KiB")
            }
            _ => continue,
        };
        let help = sum.map_or("a size in KiB".into(), |sum| format!("memory='{sum}' unit='KiB'"));
        findings.add(CELL_SUM, &memory.span, message).help(help);
    }
    sums
}

/// The message for an invalid number or unit.
pub(super) fn not_a_size(size: &Value<Bytes>) -> String {
    format!("invalid size or unit `{}`", size.shown())
}

/// Compares the memory of the domain with the sum of its cells, as they should be.
fn check_total(domain: &Domain, sums: &BTreeMap<u32, u64>, findings: &mut Findings) {
    let mut cells = domain.cells.iter().map(|cell| {
        let right = cell.id.value.and_then(|id| sums.get(&id).copied());
        right.or_else(|| Some(cell.memory.known()?.0))
    });
    let sum = cells.try_fold(0, |sum: u64, memory| Some(sum.saturating_add(memory?)));
    let sum = sum.filter(|_| !domain.cells.is_empty());
    let others = domain.other_memory.iter().map(|device| device.counts().0);
    let others = others.fold(0, u64::saturating_add);
    let sum = sum.map(|sum| sum.saturating_add(others));
    let memory = domain.memory.known();
    let help = sum.map(|sum| format!("<memory unit='KiB'>{}</memory>", sum >> 10));
    let wrong = match (&domain.memory, sum) {
        (None, _) => Some((&domain.span, "<memory> is missing".to_owned())),
        (Some(found), _) if memory.is_none() => Some((&found.span, not_a_size(found))),
        (Some(found), Some(sum)) if memory.is_some_and(|memory| memory.0 != sum) => {
            let what = if others > 0 { "cells and memory devices" } else { "cells" };
            let has = memory.map_or(0, |memory| memory.0 >> 10);
            let message =
                format!("the domain has {has} KiB, but its {what} have {} KiB", sum >> 10);
            Some((&found.span, message))
        }
        _ => None,
    };
    if let Some((span, message)) = wrong {
        let finding = findings.add(TOTAL, span, message);
        finding.help = help;
        // libvirt replaces any number with the sum.
        if domain.memory.is_some() && memory.is_none() {
            finding.severity = Severity::Error;
        }
    }
    check_maximum(domain, others, findings);
}

/// Compares `<maxMemory>` with the memory that libvirt computes: the sum of the cells as they are and
/// of other memory devices.
fn check_maximum(domain: &Domain, others: u64, findings: &mut Findings) {
    let cells = domain.cells.iter().map(|cell| cell.memory.known());
    let sum = cells.map(|memory| memory.map(|memory| memory.0));
    let sum = sum.reduce(|sum, memory| Some(sum?.saturating_add(memory?))).flatten();
    let sum = sum.map(|sum| sum.saturating_add(others));
    let memory = sum.or_else(|| Some(domain.memory.known()?.0));
    if findings.has(&[CELL_SUM]) {
        return;
    }
    let Some(maximum) = &domain.max_memory else {
        let finding = findings.add(NO_MAX_MEMORY, &domain.span, "<maxMemory> is missing");
        let right =
            memory.map(|memory| format!("<maxMemory unit='KiB'>{}</maxMemory>", memory >> 10));
        let right = right.unwrap_or_else(|| "<maxMemory>, as much as <memory>".into());
        finding.help(format!("{right}; `egm-probe stanza --with numa --domain FILE` adds it"));
        return;
    };
    let message = match (maximum.value, memory) {
        (None, _) => not_a_size(maximum),
        (Some(maximum), Some(memory)) if maximum.0 < memory => {
            let (maximum, memory) = (maximum.0 >> 10, memory >> 10);
            format!("maximum of {maximum} KiB is less than the domain's {memory} KiB")
        }
        _ => return,
    };
    findings.add(MAX_MEMORY, &maximum.span, message).help("at least the memory of the domain");
}

fn check_vcpus(domain: &Domain, findings: &mut Findings) {
    // Without <vcpu> a domain has one.
    let count = domain.vcpus.as_ref().map_or(Some(1), |vcpus| vcpus.value);
    let Some(count) = count else {
        if let Some(vcpus) = &domain.vcpus {
            let message = format!("invalid CPU count `{}`", vcpus.shown());
            findings.add(VCPUS, &vcpus.span, message).help("1 or more, without spaces");
        }
        return;
    };
    let (last, cpus) = (count.saturating_sub(1), plural(count, "virtual CPU"));
    let out_of_range =
        |id: String| format!("virtual CPU {id} is out of range (the domain has {cpus})");
    if count > MOST_VCPUS {
        let span = domain.vcpus.as_ref().map_or(&domain.span, |vcpus| &vcpus.span);
        let message = format!("the domain has {cpus}, and QEMU's machine at most {MOST_VCPUS}");
        findings.add(VCPUS, span, message).help(format!("at most {MOST_VCPUS}"));
    }
    let all = std::iter::once(0..=last).collect();
    for ids in &domain.vcpu_ids {
        let beyond = ids.value.as_ref().map(|ids| ids.first_beyond(&all));
        let beyond = match beyond {
            Some(None) => continue,
            Some(Some(id)) => id.to_string(),
            None => ids.shown(),
        };
        findings.add(VCPUS, &ids.span, out_of_range(beyond)).help(format!("0 to {last}"));
    }
    if let Some(current) =
        domain.current_vcpus.as_ref().filter(|it| it.value.is_none_or(|it| it > count))
    {
        let text = current.shown();
        let message = format!("invalid initial CPU count {text} (the domain has {cpus})");
        findings.add(VCPUS, &current.span, message).help(format!("at most {count}"));
    }
    let has_cpus = domain.cells.iter().any(|cell| cell.cpus.is_some());
    for cell in domain.cells.iter().filter(|cell| has_cpus && cell.cpus.is_none()) {
        if cell.has_memory() {
            let id = cell.id.shown();
            let message = format!("cell {id} has memory but no virtual CPUs");
            let help = "cpus='..'; `egm-probe stanza --with numa --vcpus N --domain FILE` distributes them";
            findings.add(NO_CPUS, &cell.span, message).help(help);
        }
    }
    check_unassigned(domain, count, findings);
    // The CPUs of the previous cells: the first and the last of each range.
    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    for cell in &domain.cells {
        let Some(cpus) = &cell.cpus else { continue };
        let Some(own) = &cpus.value else {
            let message = format!("invalid CPU list `{}`", cpus.shown());
            findings.add(VCPUS, &cpus.span, message).help("a list such as 0-3,8");
            continue;
        };
        let is_seen = |range: &RangeInclusive<u32>| {
            let before = seen.range(..=range.end()).next_back();
            before
                .filter(|(_, end)| *end >= range.start())
                .map(|(start, _)| *start.max(range.start()))
        };
        if let Some(beyond) = own.last().filter(|id| *id > last) {
            let message = out_of_range(beyond.to_string());
            findings.add(VCPUS, &cpus.span, message).help(format!("0 to {last}"));
        } else if let Some(twice) = own.ranges().iter().find_map(is_seen) {
            let message = format!("virtual CPU {twice} is also in another cell");
            findings.add(VCPUS, &cpus.span, message).help("each virtual CPU in one cell");
        }
        seen.extend(own.ranges().iter().map(|range| (*range.start(), *range.end())));
    }
    if let Some(topology) = domain.topology.as_ref().filter(|it| it.cpus != Some(count)) {
        let has = topology.cpus.map_or("an invalid number of CPUs".into(), |it| plural(it, "CPU"));
        let message = format!("<topology> has {has}, but <vcpu> is {count}");
        let help =
            format!("sockets, dies, cores and threads whose product is {count}, or no <topology>");
        findings.add(TOPOLOGY, &topology.span, message).help(help);
    }
}

/// Virtual CPUs in no cell, if others are in cells: libvirt adds them to the first one.
fn check_unassigned(domain: &Domain, count: u32, findings: &mut Findings) {
    let cells = domain.cells.iter().filter_map(|cell| cell.cpus.as_ref());
    let lists: Option<Vec<_>> = cells.clone().map(|cpus| cpus.value.as_ref()).collect();
    let (Some(first), Some(lists)) = (cells.clone().next(), lists) else { return };
    let all: IdList = std::iter::once(0..=count.saturating_sub(1)).collect();
    let assigned = lists.into_iter().fold(IdList::default(), |all, cpus| all.with(cpus));
    if let Some(missing) = all.first_beyond(&assigned) {
        let message = format!("virtual CPU {missing} is in no cell");
        let help =
            "cpus='..'; `egm-probe stanza --with numa --vcpus N --domain FILE` distributes them";
        findings.add(NO_CPUS, &first.span, message).help(help);
    }
}

/// A GPU has its own empty cells; another device names the cells near it.
fn check_gpu_cells(subject: &Subject<'_>, findings: &mut Findings) {
    let gpus = subject.domain.egm.iter().filter_map(|device| subject.hostdev(device));
    let gpus: Vec<_> = gpus.collect();
    let is_gpu = |hostdev: &Hostdev| {
        let of_host = || subject.report?.host.gpu(hostdev.pci()?);
        gpus.contains(&hostdev) || of_host().is_some()
    };
    let mut owned = BTreeSet::new();
    for hostdev in &subject.domain.hostdevs {
        let Some(nodeset) = &hostdev.cells else { continue };
        let Some(list) = &nodeset.value else {
            let message = format!("invalid cell list `{}`", nodeset.shown());
            findings.add(GPU_CELLS, &nodeset.span, message).help("a list such as 2-9");
            continue;
        };
        let is_gpu = is_gpu(hostdev);
        let is_numbered = !findings.has(&[CELLS]);
        let mut wrong = None;
        for id in list.iter().take(CELLS_LIMIT + 1) {
            let cell = subject.cells.get(&id);
            let memory = cell.and_then(|cell| cell.memory.known());
            wrong = wrong.or(match cell {
                None => is_numbered.then(|| format!("the guest has no NUMA cell {id}")),
                Some(_) if !is_gpu => None,
                Some(_) if memory.is_some_and(|memory| memory.0 > 0) => {
                    Some(format!("cell {id} has memory"))
                }
                Some(_) if !owned.insert(id) => {
                    Some(format!("cell {id} also belongs to another GPU"))
                }
                Some(_) => None,
            });
        }
        if let Some(wrong) = wrong {
            let is_of_use = is_gpu && !findings.are_many();
            let help = is_of_use.then(|| free_cells(subject, hostdev)).flatten();
            findings.add(GPU_CELLS, &nodeset.span, wrong).help = help;
        }
    }
}

/// Empty cells for a GPU: the first eight in a row that no other device names.
fn free_cells(subject: &Subject<'_>, hostdev: &Hostdev) -> Option<String> {
    let others = subject.domain.hostdevs.iter().filter(|other| *other != hostdev);
    let lists = others.filter_map(|other| other.cells.as_ref()?.value.as_ref());
    let used: BTreeSet<_> = lists.flat_map(|list| list.iter().take(CELLS_LIMIT)).collect();
    let is_free = |id: &u32| {
        let cell = subject.cells.get(id).filter(|cell| cell.cpus.is_none());
        let is_empty = cell.is_some_and(|cell| cell.memory.known() == Some(Bytes(0)));
        is_empty && !used.contains(id)
    };
    let firsts = subject.cells.keys().copied();
    let mut free = firsts.filter(|first| (*first..first.saturating_add(8)).all(|id| is_free(&id)));
    free.next().map(|first| format!("nodeset='{first}-{}'", first + 7))
}

fn check_distances(subject: &Subject<'_>, findings: &mut Findings) {
    // A wrong number of a cell is not that of its distances.
    if findings.has(&[CELLS]) {
        return;
    }
    let last = subject.cells.keys().next_back();
    let of_guest = last.map_or("no cells".into(), |last| format!("cells 0 to {last}"));
    let no_cell = |id: &Value<u32>| format!("the guest has no NUMA cell `{}`", id.shown());
    for cell in &subject.domain.cells {
        for distance in &cell.distances {
            let Some(sibling) = &distance.cell else { continue };
            if sibling.value.is_none_or(|id| !subject.cells.contains_key(&id)) {
                let only = if findings.are_many() { None } else { only_missing(subject, cell) };
                let help = only
                    .map_or_else(|| format!("the guest has {of_guest}"), |id| format!("id='{id}'"));
                findings.add(DISTANCES, &sibling.span, no_cell(sibling)).help(help);
            } else if sibling.value == cell.id.value && distance.value.known() != Some(10) {
                let message = "the distance of a cell to itself must be 10";
                findings.add(DISTANCES, &sibling.span, message).help("value='10'");
            } else if distance.value.known().is_none_or(|value| !DISTANCE.contains(&value)) {
                let place = distance.value.place(&distance.span);
                let help = "10 to 255; `egm-probe stanza --with numa,distances --replace --domain FILE` writes all";
                findings.add(DISTANCES, place, "invalid distance").help(help);
            }
        }
    }
    for (cell, _) in &subject.domain.placed_cells {
        if cell.value.is_none_or(|id| !subject.cells.contains_key(&id)) {
            let help = format!("the guest has {of_guest}");
            findings.add(PLACED, &cell.span, no_cell(cell)).help(help);
        }
    }
}

/// The cell that a cell has no distance to, if it has one to every other.
fn only_missing(subject: &Subject<'_>, cell: &Cell) -> Option<u32> {
    let known = cell.distances.iter().filter_map(|distance| distance.cell.known());
    let given: BTreeSet<_> = known.collect();
    let mut missing = subject.cells.keys().copied().filter(|id| !given.contains(id));
    missing.next().filter(|_| missing.next().is_none())
}
