//! Rules for the guest's cells that belong to the GPUs.

use std::collections::BTreeSet;

use super::{Gpu, Wiring, name};
use crate::check::rules::{DEVICE_CELLS, EIGHT_CELLS, GPU_CELLS, GPU_WITHOUT_CELLS};
use crate::check::{CELLS_LIMIT, Findings, Severity};
use crate::domain::{Hostdev, Maybe};
use crate::values::IdList;
use crate::values::text::plural;

/// The cells of a GPU: one for each part that it can be divided into.
const CELLS: u64 = 8;

pub(super) fn check(wiring: &Wiring<'_>, findings: &mut Findings) {
    let used = wiring.subject.domain.cells.iter().filter(|cell| !cell.is_empty());
    let last_used = used.filter_map(|cell| cell.id.value).max();
    // Another rule has cells of GPUs that are missing, or have memory.
    let last_used = last_used.filter(|_| !findings.has(&[GPU_CELLS]));
    for gpu in &wiring.gpus {
        check_gpu(wiring, gpu, last_used, findings);
    }
    check_others(wiring, findings);
}

fn check_gpu(wiring: &Wiring<'_>, gpu: &Gpu<'_>, last_used: Option<u32>, findings: &mut Findings) {
    let shown = name(gpu.hostdev);
    let Some(nodeset) = &gpu.hostdev.cells else {
        let message = format!("GPU {shown} has no NUMA cells for its memory");
        let help = "<acpi nodeset='..'/> with eight empty cells; `egm-probe stanza --with numa \
                    --gpu-cells 8 --domain FILE` adds them";
        let finding = findings.add(GPU_WITHOUT_CELLS, &gpu.hostdev.span, message);
        finding.severity = Severity::Warning;
        finding.help(help);
        return;
    };
    let Some(list) = &nodeset.value else { return };
    // Another rule has cells with memory.
    let has_cpus = |id: &u32| {
        let cell = wiring.subject.cells.get(id);
        cell.is_some_and(|cell| cell.cpus.is_some() && !cell.has_memory())
    };
    if let Some(id) = list.iter().take(CELLS_LIMIT).find(has_cpus) {
        let message = format!("cell {id} of GPU {shown} has virtual CPUs");
        findings.add(GPU_WITHOUT_CELLS, &nodeset.span, message).help("eight empty cells");
        return;
    }
    let first = list.iter().next();
    if list.len() != CELLS {
        let cells = plural(list.len(), "cell");
        let message = format!("GPU {shown} has {cells}, expected {CELLS}");
        let right = first.and_then(|first| eight_from(wiring, gpu, first));
        let right = right.map_or("..".into(), |ids| ids.to_string());
        let help = format!("nodeset='{right}' with eight empty cells");
        findings.add(EIGHT_CELLS, &nodeset.span, message).help(help);
    } else if let Some((first, used)) = first.zip(last_used).filter(|(first, used)| first < used) {
        let message =
            format!("cell {first} of GPU {shown} is before cell {used}, which is not empty");
        let help = "cells with CPUs first, then eight for each GPU";
        findings.add(EIGHT_CELLS, &nodeset.span, message).help(help);
    }
}

/// Eight cells from this one on, if they are empty and no other GPU has them.
fn eight_from(wiring: &Wiring<'_>, gpu: &Gpu<'_>, first: u32) -> Option<IdList> {
    let last = first.checked_add(u32::try_from(CELLS - 1).ok()?)?;
    let others = wiring.gpus.iter().filter(|it| it.hostdev.node != gpu.hostdev.node);
    let others: Vec<_> = others.filter_map(|it| it.hostdev.cells.known()).collect();
    let is_free = |id: u32| {
        let cell = wiring.subject.cells.get(&id);
        cell.is_some_and(|cell| cell.is_empty()) && !others.iter().any(|list| list.contains(id))
    };
    (first..=last).all(is_free).then(|| std::iter::once(first..=last).collect())
}

fn check_others(wiring: &Wiring<'_>, findings: &mut Findings) {
    let lists = wiring.gpus.iter().filter_map(|gpu| gpu.hostdev.cells.as_ref()?.value.as_ref());
    let of_gpus: BTreeSet<_> = lists.flat_map(|list| list.iter().take(CELLS_LIMIT)).collect();
    // Another rule has cells that two GPUs share.
    let is_other_gpu = |hostdev: &Hostdev| {
        let of_host = || wiring.subject.report?.host.gpu(hostdev.pci()?);
        wiring.is_gpu(hostdev) || of_host().is_some()
    };
    for hostdev in wiring.subject.domain.hostdevs.iter().filter(|it| !is_other_gpu(it)) {
        let Some((nodeset, list)) = hostdev.cells.as_ref().zip(hostdev.cells.known()) else {
            continue;
        };
        if let Some(id) = list.iter().take(CELLS_LIMIT).find(|id| of_gpus.contains(id)) {
            let message = format!("cell {id} belongs to a GPU, not to {}", name(hostdev));
            let help = "a cell with CPUs, or no <acpi nodeset>";
            findings.add(DEVICE_CELLS, &nodeset.span, message).help(help);
        }
    }
}
