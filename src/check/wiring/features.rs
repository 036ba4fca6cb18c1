//! Rules for the CPU, the interrupt controller and the command queues of a Grace guest.

use std::collections::BTreeSet;

use super::Wiring;
use crate::check::Findings;
use crate::check::rules::{CMDQV, CPU_MODE, GIC};
use crate::domain::{Cell, CpuMode, Domain, GicVersion, Maybe};

pub(super) fn check(wiring: &Wiring<'_>, findings: &mut Findings) {
    let domain = wiring.subject.domain;
    // The largest model is the host's CPU if KVM is used.
    if !matches!(domain.cpu_mode.known(), Some(CpuMode::HostPassthrough | CpuMode::Maximum)) {
        let message = match &domain.cpu_mode {
            Some(mode) => format!("CPU mode is `{}`, expected `host-passthrough`", mode.shown()),
            None => "<cpu> has no mode, expected `host-passthrough`".into(),
        };
        let place = domain.cpu_mode.place(&domain.span);
        findings.add(CPU_MODE, place, message).help("<cpu mode='host-passthrough'>");
    }
    if let Some(gic) = &domain.features.gic_version
        && !matches!(gic.value, Some(GicVersion::V3 | GicVersion::Host))
    {
        let message = format!("version of the interrupt controller is `{}`", gic.shown());
        findings.add(GIC, &gic.span, message).help("<gic version='3'/>");
    }
    check_queues(wiring, findings);
}

fn check_queues(wiring: &Wiring<'_>, findings: &mut Findings) {
    let domain = wiring.subject.domain;
    let Some(scattered) = scattered(domain) else { return };
    for smmu in wiring.machine.iommus().iter().filter(|iommu| iommu.is_smmuv3()) {
        if let Some(queues) = smmu.switch("cmdqv").filter(|it| it.value == Some(true)) {
            let id = scattered.id.shown();
            let message =
                format!("cmdqv='on', but the memory of cell {id} is neither EGM nor huge pages");
            findings.add(CMDQV, &queues.span, message).help("EGM for every cell, or no cmdqv");
        }
    }
}

/// A cell with memory that is neither EGM nor huge pages.
fn scattered(domain: &Domain) -> Option<&Cell> {
    let egm: BTreeSet<_> = domain.egm.iter().filter_map(|device| device.cell.known()).collect();
    let backing = &domain.backing;
    let is_all_huge = backing.hugepages.is_some()
        && (backing.pages.is_empty() || backing.pages.iter().any(|pages| pages.cells.is_none()));
    let is_huge =
        |id| backing.pages.iter().filter_map(|it| it.cells.known()).any(|it| it.contains(id));
    let is_scattered = |cell: &&Cell| {
        cell.has_memory() && cell.id.value.is_some_and(|id| !egm.contains(&id) && !is_huge(id))
    };
    domain.cells.iter().take(crate::check::CELLS_LIMIT).find(is_scattered).filter(|_| !is_all_huge)
}
