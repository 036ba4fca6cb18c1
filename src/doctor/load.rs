//! Checks of the kernel and of what runs: limits, memory set aside, holders.

use std::collections::BTreeSet;

use super::Outcome;
use super::facts::{Facts, HugePages};
use crate::claims::{Claim, Sight};
use crate::report::labels;
use crate::values::Bytes;
use crate::values::text::{SHOWN, excerpt};

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
        Some(size) => Outcome::warn(format!("{} KiB, where 64 KiB are usual", size >> 10))
            .by_hand::<&str>(
                "a kernel with pages of 64 KiB (linux-nvidia-64k in Ubuntu, kernel-64k in RHEL)",
                [],
            ),
    }
}

pub(super) fn locked_memory(facts: &Facts<'_>) -> Outcome {
    if facts.processes.is_empty() {
        return Outcome::skip(match facts.report.claims.sight {
            Sight::Skipped => "no processes to look at",
            _ => "neither libvirt nor a virtual machine was seen to run",
        });
    }
    // A virtual machine may have all of them.
    let sizes = facts.report.host.regions.iter().filter_map(|region| region.size);
    let all = Bytes(sizes.map(|size| size.0).fold(0, u64::saturating_add));
    let mut short = facts.processes.iter().filter_map(|process| {
        let limit = process.locked_limit?;
        let needs = process.held.unwrap_or(all);
        (limit < needs && process.may_raise != Some(true)).then_some((process, limit, needs))
    });
    let Some((process, limit, needs)) = short.next() else { return Outcome::pass() };
    if process.may_raise.is_none() {
        let name = excerpt(&process.name, SHOWN);
        return Outcome::skip(format!(
            "{name}[{}] may lock {limit}; whether it may raise that is not known",
            process.pid
        ));
    }
    let name = excerpt(&process.name, SHOWN);
    let message = format!("{name}[{}] may lock {limit}, and {needs} are needed", process.pid);
    Outcome::warn(message).by_hand(
        "in a drop-in of its service: [Service] LimitMEMLOCK=infinity",
        ["systemctl edit virtqemud.service || systemctl edit libvirtd.service"],
    )
}

pub(super) fn huge_pages(facts: &Facts<'_>) -> Outcome {
    if facts.huge_pages.is_empty() {
        return Outcome::pass();
    }
    if facts.huge_pages.iter().all(|pages| pages.free == Some(0)) {
        return Outcome::passed("all that are set aside are in use");
    }
    let sum = |count: fn(&HugePages) -> Option<u64>| {
        let sizes = facts.huge_pages.iter().map(|it| Some(it.size.0.saturating_mul(count(it)?)));
        let sum = sizes.into_iter().try_fold(0, |sum: u64, size| Some(sum.saturating_add(size?)));
        sum.map_or("-".to_owned(), |sum| Bytes(sum).to_string())
    };
    let (total, free) = (sum(|pages| Some(pages.count)), sum(|pages| pages.free));
    let commands = facts.huge_pages.iter().filter_map(|pages| {
        let used = pages.count.saturating_sub(pages.free.filter(|free| *free > 0)?);
        Some(format!("echo {used} > /sys/kernel/mm/hugepages/{}/nr_hugepages", pages.directory))
    });
    Outcome::warn(format!("{total} are set aside, of which {free} are free")).by_hand(
        "give back what is free; for good in /etc/sysctl.d or on the kernel's command line",
        commands,
    )
}

pub(super) fn holders(facts: &Facts<'_>) -> Outcome {
    let report = &facts.report;
    let mut problems = Vec::new();
    let mut pids = BTreeSet::new();
    for region in &report.host.regions {
        let availability = report.availability(region, None);
        if availability.distinct_holders().len() > 1 {
            let labels = labels(&availability.holders).join(", ");
            problems.push(format!("{} is held by several: {labels}", region.name));
        }
        for claim in availability.holders {
            match claim {
                Claim::Process(process) if process.domain.is_none() => {
                    pids.insert(process.pid);
                    problems.push(format!("{} is held by {}", region.name, claim.label()));
                }
                Claim::Process(_) | Claim::Lease(_) => {}
                Claim::Libvirt(_) => problems.push(format!(
                    "{} is of {}, which runs by its status file; {}",
                    region.name,
                    claim.label(),
                    match report.claims.sight {
                        Sight::Complete => "it has no process",
                        _ => "no process of it could be seen",
                    }
                )),
            }
        }
    }
    if problems.is_empty() {
        return match report.claims.sight {
            Sight::Complete | Sight::PartialNothingOpen => Outcome::pass(),
            Sight::Partial => Outcome::warn("not every process could be looked at")
                .by_hand("ask as root", ["sudo egm-probe doctor"]),
            Sight::Skipped => Outcome::skip("no processes to look at"),
        };
    }
    let message = excerpt(&problems.join("; "), 400);
    if pids.is_empty() {
        return Outcome::warn(message)
            .by_hand("see what libvirt says, as root", ["virsh list --all"]);
    }
    let look = pids.iter().map(|pid| format!("ps -fp {pid}"));
    Outcome::warn(message).by_hand("see what they are, and end them", look)
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
        }
        _ => Outcome::passed(delay),
    }
}
