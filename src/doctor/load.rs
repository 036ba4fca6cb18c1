//! Checks of the kernel and of running processes: limits, reserved memory, holders.

use std::collections::BTreeSet;

use super::Outcome;
use super::facts::{Facts, HugePages};
use crate::claims::{Claim, Sight};
use crate::report::labels;
use crate::values::Bytes;
use crate::values::text::{SHOWN, excerpt};
use crate::warning::Warning;

/// Estimated rate at which the driver clears memory, in bytes per second. A soft lockup of 27 s was
/// reported for a region of hundreds of GB; no other figures are published.
const CLEARED: u64 = 16 << 30;

pub(super) fn kernel(facts: &Facts<'_>) -> Outcome {
    let release = facts.kernel.release.as_deref().map(|release| excerpt(release, SHOWN));
    let release = release.unwrap_or_else(|| "-".into());
    match facts.kernel.arch.as_deref() {
        None => Outcome::skip("unknown architecture"),
        Some("aarch64") if facts.kernel.may_oops() => {
            let message = format!("{release}: may oops when a guest with EGM ends");
            Outcome::warn(message).hint("install NVIDIA's kernel of February 2026 or later")
        }
        Some("aarch64") => Outcome::passed(release),
        Some(other) => {
            let other = excerpt(other, SHOWN);
            Outcome::warn(format!("{other}, kernel {release}: not a Grace host"))
        }
    }
}

pub(super) fn page_size(facts: &Facts<'_>) -> Outcome {
    match facts.kernel.page_size {
        None => Outcome::skip("unknown"),
        Some(size) if size >= 64 << 10 => Outcome::passed(format!("{} KiB", size >> 10)),
        Some(size) => Outcome::warn(format!("{} KiB, expected 64 KiB", size >> 10))
            .by_hand::<&str>(
                "use a kernel with 64 KiB pages (linux-nvidia-64k in Ubuntu, kernel-64k in RHEL)",
                [],
            ),
    }
}

pub(super) fn locked_memory(facts: &Facts<'_>) -> Outcome {
    let processes = match &facts.processes {
        Ok(processes) if !processes.is_empty() => processes,
        Ok(_) if facts.report.claims.sight == Sight::Skipped => {
            return Outcome::skip("processes were not checked");
        }
        Ok(_) => return Outcome::skip("no running libvirt daemon or virtual machine found"),
        Err(problem) => return Outcome::skip(*problem),
    };
    // One virtual machine may use all regions.
    let sizes = facts.report.host.regions.iter().filter_map(|region| region.size);
    let all = Bytes(sizes.map(|size| size.0).fold(0, u64::saturating_add));
    let mut short = processes.iter().filter_map(|process| {
        let limit = process.locked_limit?;
        let needs = process.held.unwrap_or(all);
        (limit < needs && process.may_raise != Some(true)).then_some((process, limit, needs))
    });
    let Some((process, limit, needs)) = short.next() else { return Outcome::pass() };
    if process.may_raise.is_none() {
        let name = excerpt(&process.name, SHOWN);
        return Outcome::skip(format!(
            "{name}[{}]: may lock {limit}; unknown whether it may raise the limit",
            process.pid
        ));
    }
    let name = excerpt(&process.name, SHOWN);
    let message = format!("{name}[{}]: may lock {limit}, needs {needs}", process.pid);
    Outcome::warn(message).by_hand(
        "set LimitMEMLOCK=infinity in the section [Service] of a drop-in",
        ["systemctl edit virtqemud.service || systemctl edit libvirtd.service"],
    )
}

pub(super) fn huge_pages(facts: &Facts<'_>) -> Outcome {
    let huge_pages = match &facts.huge_pages {
        Ok(huge_pages) => huge_pages,
        Err(problem) => return Outcome::skip(problem.clone()),
    };
    if huge_pages.is_empty() {
        return Outcome::pass();
    }
    if huge_pages.iter().all(|pages| pages.free == Some(0)) {
        return Outcome::passed("all reserved huge pages are in use");
    }
    let sum = |count: fn(&HugePages) -> Option<u64>| {
        let sizes = huge_pages.iter().map(|it| Some(it.size.0.saturating_mul(count(it)?)));
        let sum = sizes.into_iter().try_fold(0, |sum: u64, size| Some(sum.saturating_add(size?)));
        sum.map_or("-".to_owned(), |sum| Bytes(sum).to_string())
    };
    let (total, free) = (sum(|pages| Some(pages.count)), sum(|pages| pages.free));
    let commands = huge_pages.iter().filter_map(|pages| {
        let used = pages.count.saturating_sub(pages.free.filter(|free| *free > 0)?);
        Some(format!("echo {used} > /sys/kernel/mm/hugepages/{}/nr_hugepages", pages.directory))
    });
    Outcome::warn(format!("{free} of {total} unused")).by_hand(
        "release unused pages (permanently: in /etc/sysctl.d or on the kernel command line)",
        commands,
    )
}

pub(super) fn holders(facts: &Facts<'_>) -> Outcome {
    let report = &facts.report;
    let mut problems = Vec::new();
    let mut pids = BTreeSet::new();
    for region in report.regions() {
        let availability = report.availability(region, None);
        let are_several = availability.distinct_holders().len() > 1;
        let may_share = are_several && !report.claims.search().is_sharing_known;
        if are_several {
            let labels = labels(availability.holders.iter().copied()).join(", ");
            let sharing = if may_share { "; unknown whether they share its memory" } else { "" };
            problems.push(format!("{}: held by several processes: {labels}{sharing}", region.name));
        }
        for claim in availability.holders {
            match claim {
                Claim::Process(_) if may_share => {}
                Claim::Process(process) if process.domain.is_none() && !claim.is_helper() => {
                    pids.insert(process.pid);
                    problems.push(format!("{}: held by {}", region.name, claim.label()));
                }
                Claim::Process(_) | Claim::Lease(_) => {}
                Claim::Libvirt(_) => problems.push(format!(
                    "{}: held by {} according to its status file, but {}",
                    region.name,
                    claim.label(),
                    match report.claims.sight {
                        Sight::Complete => "it has no process",
                        _ => "its process is not visible",
                    }
                )),
            }
        }
    }
    if problems.is_empty() {
        return match report.claims.sight {
            Sight::Complete => Outcome::pass(),
            Sight::Partial => {
                let first = report.claims.warnings.first();
                let outcome = Outcome::warn(
                    first.map_or("some holders may be unknown".into(), ToString::to_string),
                );
                match first {
                    Some(Warning::ProcessesUnread { .. } | Warning::ProcessesHidden) => {
                        outcome.by_hand("run as root", ["sudo egm-probe doctor"])
                    }
                    _ => outcome,
                }
            }
            Sight::Skipped => Outcome::skip("processes were not checked"),
        };
    }
    let message = excerpt(&problems.join("; "), 400);
    if pids.is_empty() {
        return Outcome::warn(message).by_hand("check with libvirt, as root", ["virsh list --all"]);
    }
    let look = pids.iter().map(|pid| format!("ps -fp {pid}"));
    Outcome::warn(message).by_hand("identify these processes and terminate them", look)
}

pub(super) fn scrub(facts: &Facts<'_>) -> Outcome {
    let largest = facts.report.host.regions.iter().filter_map(|region| region.size).max();
    let Some(size) = largest else { return Outcome::skip("region sizes are unknown") };
    let seconds = size.0.div_ceil(CLEARED);
    let delay = format!("about {seconds} s for {size}, estimated at 16 GiB/s");
    if facts.kernel.clears_in_pieces() {
        return Outcome::passed(format!("{delay}, in pieces: no soft lockup"));
    }
    match facts.kernel.lockup {
        Some(limit) if facts.kernel.panics && limit > 0 && limit < seconds => {
            let message = format!("{delay}; the kernel panics after a soft lockup of {limit} s");
            Outcome::warn(message)
        }
        _ => Outcome::passed(delay),
    }
}
