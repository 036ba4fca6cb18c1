//! Checks of the kernel and of what runs: limits, memory set aside, holders.

use std::collections::BTreeSet;

use super::Outcome;
use super::facts::Facts;
use crate::claims::{Claim, Owner, Sight};
use crate::text::{SHOWN, excerpt};
use crate::units::Bytes;

/// What the driver is taken to clear in a second. A soft lockup of 27 s was reported for a region
/// of hundreds of GB; nobody has published more.
const CLEARED: u64 = 16 << 30;

pub(super) fn kernel(facts: &Facts<'_>) -> Outcome {
    let release = facts.kernel.release.as_deref().map(|release| excerpt(release, SHOWN));
    let release = release.unwrap_or_else(|| "-".into());
    match facts.kernel.arch.as_deref() {
        None => Outcome::skip("its architecture is not known"),
        Some("aarch64") => Outcome::passed(release),
        Some(other) => {
            let other = excerpt(other, SHOWN);
            Outcome::warn(format!("{other}, kernel {release}: no Grace host"))
        }
    }
}

pub(super) fn page_size(facts: &Facts<'_>) -> Outcome {
    match facts.kernel.page_size {
        None => Outcome::skip("not known"),
        Some(size) if size >= 64 << 10 => Outcome::passed(format!("{} KiB", size >> 10)),
        Some(size) => Outcome::warn(format!("{} KiB, where 64 KiB are usual", size >> 10)).by_hand(
            "a kernel with pages of 64 KiB",
            &["apt install linux-nvidia-64k-hwe-24.04".to_owned()],
        ),
    }
}

pub(super) fn locked_memory(facts: &Facts<'_>) -> Outcome {
    let largest = facts.report.host.regions.iter().filter_map(|region| region.size).max();
    if facts.processes.is_empty() {
        return Outcome::skip("neither libvirt nor a virtual machine runs");
    }
    let short = facts.processes.iter().find_map(|process| {
        let limit = process.locked_limit?;
        let needs = process.held.or(largest)?;
        (limit < needs && !process.may_raise).then_some((process, limit, needs))
    });
    let Some((process, limit, needs)) = short else { return Outcome::pass() };
    let name = excerpt(&process.name, SHOWN);
    let message = format!("{name}[{}] may lock {limit}, and {needs} are needed", process.pid);
    let text = "in a drop-in of its service: [Service] LimitMEMLOCK=infinity";
    Outcome::warn(message).by_hand(
        text,
        &["systemctl edit virtqemud.service || systemctl edit libvirtd.service".to_owned()],
    )
}

pub(super) fn huge_pages(facts: &Facts<'_>) -> Outcome {
    if facts.huge_pages.is_empty() {
        return Outcome::pass();
    }
    let total: u64 = facts
        .huge_pages
        .iter()
        .map(|pages| pages.size.0.saturating_mul(pages.count))
        .fold(0, u64::saturating_add);
    let free: Option<u64> = facts
        .huge_pages
        .iter()
        .map(|pages| pages.free.map(|free| pages.size.0.saturating_mul(free)))
        .try_fold(0, |sum: u64, free| Some(sum.saturating_add(free?)));
    let free = free.map_or("-".to_owned(), |free| Bytes(free).to_string());
    let commands: Vec<_> = facts
        .huge_pages
        .iter()
        .map(|pages| format!("echo 0 > /sys/kernel/mm/hugepages/{}/nr_hugepages", pages.directory))
        .collect();
    let message = format!("{} are set aside, of which {free} are free", Bytes(total));
    Outcome::warn(message).hint("give back what is free", &commands)
}

pub(super) fn holders(facts: &Facts<'_>) -> Outcome {
    let report = &facts.report;
    let mut problems = Vec::new();
    let mut pids = BTreeSet::new();
    for region in &report.host.regions {
        let claims = report.claims.of(&region.name).iter().filter(|claim| claim.is_held());
        let owners: BTreeSet<Owner<'_>> = claims.clone().map(Claim::owner).collect();
        if owners.len() > 1 {
            let labels: Vec<_> = claims.clone().map(Claim::label).collect();
            problems.push(format!("{} is held by several: {}", region.name, labels.join(", ")));
        }
        for claim in claims {
            match claim {
                Claim::Process(process) if process.domain.is_none() => {
                    pids.insert(process.pid);
                    problems.push(format!("{} is held by {}", region.name, claim.label()));
                }
                Claim::Process(_) => {}
                Claim::Libvirt(_) => problems.push(format!(
                    "{} is of {}, which runs by its status file and has no process",
                    region.name,
                    claim.label()
                )),
            }
        }
    }
    if problems.is_empty() {
        return match report.claims.sight {
            Sight::Complete | Sight::PartialNothingOpen => Outcome::pass(),
            Sight::Partial => {
                let root = ["sudo egm-probe doctor".to_owned()];
                Outcome::warn("not every process could be looked at").by_hand("ask as root", &root)
            }
            Sight::Skipped => Outcome::skip("no processes to look at"),
        };
    }
    let message = excerpt(&problems.join("; "), 400);
    let look: Vec<_> = pids.iter().map(|pid| format!("ps -fp {pid}")).collect();
    Outcome::warn(message).by_hand("see what they are, and end them", &look)
}

pub(super) fn scrub(facts: &Facts<'_>) -> Outcome {
    let largest = facts.report.host.regions.iter().filter_map(|region| region.size).max();
    let Some(size) = largest else { return Outcome::skip("no size is known") };
    let seconds = size.0.div_ceil(CLEARED);
    let delay = format!("some {seconds} s for {size}, estimated at 16 GiB a second");
    match facts.kernel.lockup {
        Some(limit) if facts.kernel.panics && limit > 0 && limit < seconds => {
            let message = format!("{delay}; the kernel stops at a soft lockup of {limit} s");
            Outcome::warn(message)
                .hint("let it go on", &["sysctl -w kernel.softlockup_panic=0".to_owned()])
        }
        _ => Outcome::passed(delay),
    }
}
