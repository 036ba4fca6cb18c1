//! Checks of other requirements of virtual machines with EGM.

use super::facts::Facts;
use super::{Outcome, Verdict, first_of};
use crate::domain::{Cell, Domain, Value};
use crate::values::Bytes;
use crate::values::text::{SHOWN, excerpt};

/// PCI address space for a GPU, and for a GB300.
const HOLE: Bytes = Bytes(4 << 40);
const LARGE_HOLE: Bytes = Bytes(8 << 40);

/// The GB300 and a variant.
const LARGE: [u16; 2] = [0x31c2, 0x31c3];

/// Number of NUMA nodes of a GPU.
const CELLS: usize = 8;

/// Lists missing parts of domains with EGM; `none` is a note if there is no such domain.
fn look(facts: &Facts<'_>, none: &str, lacks: impl Fn(&Domain) -> Option<String>) -> Outcome {
    let definitions = facts.report.claims.definitions.iter();
    let mut domains =
        definitions.map(|it| &it.domain).filter(|domain| !domain.egm.is_empty()).peekable();
    if domains.peek().is_none() {
        return match &facts.domains_unread {
            Some(why) => Outcome::skip(why.clone()),
            None => Outcome::passed(format!("no domain uses EGM; {none}")),
        };
    }
    let lacking: Vec<_> = domains
        .filter_map(|domain| Some(format!("{}: {}", excerpt(&domain.name, SHOWN), lacks(domain)?)))
        .collect();
    match lacking.first() {
        None => Outcome::pass(),
        Some(_) => Outcome::warn(first_of(&lacking)),
    }
}

pub(super) fn smmu(facts: &Facts<'_>) -> Outcome {
    let none = "one with EGM needs <iommu model='smmuv3'> for each GPU";
    look(facts, none, |domain| {
        let count = domain.iommus.iter().filter(|iommu| iommu.is_smmuv3()).count();
        let gpus = domain.egm.len();
        (count < gpus).then(|| format!("found {count} of {gpus} <iommu model='smmuv3'>"))
    })
}

pub(super) fn pci_hole(facts: &Facts<'_>) -> Outcome {
    let is_large = facts
        .report
        .host
        .gpus()
        .any(|(gpu, _)| gpu.device_id.is_some_and(|id| LARGE.contains(&id)));
    let wanted = if is_large { LARGE_HOLE } else { HOLE };
    let kib = wanted.0 >> 10;
    let none = format!("one with EGM needs <pcihole64 unit='KiB'>{kib}</pcihole64>");
    let hint = format!(
        "set <pcihole64 unit='KiB'>{kib}</pcihole64> in <controller type='pci' model='pcie-root'>"
    );
    let outcome = look(facts, &none, |domain| {
        let largest = holes(domain).filter_map(|hole| hole.value).max();
        match largest {
            None if holes(domain).next().is_none() => Some("<pcihole64> is missing".into()),
            None => Some("<pcihole64> is not a valid size".into()),
            Some(hole) if hole < wanted => {
                Some(format!("<pcihole64> is {hole}, expected {wanted}"))
            }
            Some(_) => None,
        }
    });
    if outcome.verdict == Verdict::Warn { outcome.hint(hint) } else { outcome }
}

fn holes(domain: &Domain) -> impl Iterator<Item = &Value<Bytes>> {
    domain.pci_controllers.iter().filter_map(|controller| controller.hole.as_ref())
}

pub(super) fn gpu_cells(facts: &Facts<'_>) -> Outcome {
    let none =
        "`egm-probe stanza --with hostdev,numa,machine --gpu-cells 8` generates cells for the GPUs";
    look(facts, none, |domain| {
        let hostdevs = domain.hostdevs_by_alias();
        domain.egm.iter().find_map(|device| {
            let alias = &device.pci_dev.as_ref()?.text;
            let hostdev = hostdevs.get(alias.as_str())?;
            let bound = hostdev.cells.as_ref().and_then(|cells| cells.value.as_ref());
            let is_bound = |cell: &&Cell| {
                cell.id.value.is_some_and(|id| bound.is_some_and(|bound| bound.contains(id)))
            };
            let count = domain.cells.iter().filter(is_bound).count();
            (count < CELLS)
                .then(|| format!("{} has {count} of {CELLS} cells", excerpt(alias, SHOWN)))
        })
    })
}
