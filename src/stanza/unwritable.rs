//! The reasons why no XML is written, with remedies.

use std::fmt::Write;

use super::{Parts, Unmovable, Unremovable, elements};
use crate::check::{
    ACPI, CELL_SUM, Finding, GPU_BUS, GPU_SMMU, IOMMUFD, MAX_MEMORY, NO_GPU, NO_HOSTDEV,
    NO_MAX_MEMORY, NODE, NOT_A_REGION, PCI_HOLE, SMMU_BUS, TOPOLOGY, TOTAL, UEFI,
};
use crate::domain::{BadDomain, Domain};
use crate::plan::Plan;
use crate::values::text::excerpt;

/// The reason why no XML was generated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwritable {
    /// The file to merge into is not a domain.
    #[error(transparent)]
    BadDomain(#[from] BadDomain),
    /// The file is a status file of libvirt, which must not be changed.
    #[error(
        "status file of a running domain: change its definition instead (virsh edit, virsh dumpxml --inactive)"
    )]
    Status,
    /// The device's path cannot be written in XML.
    #[error("`{}` cannot be written in XML: it has control characters", excerpt(path, 80))]
    Unsayable {
        /// The path.
        path: String,
    },
    /// The domain cannot use the other region.
    #[error(transparent)]
    Unmovable(#[from] Unmovable),
    /// The devices cannot be taken out.
    #[error(transparent)]
    Unremovable(#[from] Unremovable),
    /// Arguments for QEMU would have to change.
    #[error("arguments for QEMU in <qemu:commandline> depend on the NUMA cells; remove them first")]
    CommandLine,
    /// The result would break rules.
    #[error(
        "the resulting domain would be invalid (line numbers of the result):{}{}",
        list(findings),
        lines(advice)
    )]
    Unsound {
        /// The findings, with line and column in the result if it is a whole domain.
        findings: Vec<(Finding, Option<(u32, u32)>)>,
        /// Remedies, one per line.
        advice: Vec<String>,
    },
}

/// The maximum number of findings shown.
const SHOWN: usize = 20;

/// The findings, one per line.
fn list(findings: &[(Finding, Option<(u32, u32)>)]) -> String {
    let mut list = String::new();
    for (Finding { rule, message, help, .. }, place) in findings.iter().take(SHOWN) {
        let place = place.map_or(String::new(), |(line, column)| format!("{line}:{column}: "));
        // Writing to a String cannot fail.
        let _ = write!(list, "\n  {place}{message} ({})", rule.code);
        if let Some(help) = help {
            let _ = write!(list, "; help: {help}");
        }
    }
    if let Some(more) = findings.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = write!(list, "\n  and {more} more");
    }
    list
}

fn lines(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["\n  ", line]).collect()
}

/// A part of [`Parts`] that fixes violations of some rules.
struct Remedy {
    name: &'static str,
    effect: &'static str,
    is_written: fn(Parts, &Plan) -> bool,
    /// The codes of the rules.
    rules: &'static [&'static str],
}

const REMEDIES: [Remedy; 4] = [
    Remedy {
        name: "hostdev",
        effect: "adds the <hostdev> of each GPU",
        is_written: |parts, _| parts.hostdev,
        rules: &[NO_HOSTDEV.code],
    },
    Remedy {
        name: "numa",
        effect: "writes matching memory and cells",
        is_written: |parts, _| parts.numa,
        rules: &[NODE.code, CELL_SUM.code, TOTAL.code, MAX_MEMORY.code, NO_MAX_MEMORY.code],
    },
    Remedy {
        name: "machine",
        effect: "adds UEFI, ACPI and GICv3",
        is_written: |parts, _| parts.machine,
        rules: &[ACPI.code, UEFI.code],
    },
    Remedy {
        name: "pci",
        effect: "writes the buses and SMMUs of the GPUs, and the window for their memory",
        is_written: |_, plan| plan.machine.pci.is_some(),
        rules: &[GPU_BUS.code, GPU_SMMU.code, SMMU_BUS.code, IOMMUFD.code, PCI_HOLE.code],
    },
];

/// The remedies for the findings about a domain into which a plan was merged.
pub(super) fn advice(
    findings: &[Finding],
    domain: &Domain,
    plan: &Plan,
    parts: Parts,
) -> Vec<String> {
    let lacks_hostdev = plan.placements.iter().any(|it| domain.hostdev(it.gpu).is_none());
    let helps = |remedy: &&Remedy| {
        let is_of_it = |finding: &Finding| {
            let code = finding.rule.code;
            remedy.rules.contains(&code) && (code != NO_HOSTDEV.code || lacks_hostdev)
        };
        !(remedy.is_written)(parts, plan) && findings.iter().any(is_of_it)
    };
    let remedies: Vec<_> = REMEDIES.iter().filter(helps).collect();
    let whole =
        (remedies.len() > 1).then(|| "or --complete, which writes a whole Grace guest".into());
    let is_of_topology = findings.iter().any(|finding| finding.rule == TOPOLOGY);
    let writes_topology =
        plan.machine.replaces || plan.moves_vcpus && elements::is_own_topology(domain);
    let missing = [(parts.machine, "--with machine"), (writes_topology, "--replace")];
    let missing = missing.into_iter().filter(|(is_given, _)| !is_given && is_of_topology);
    let missing: Vec<_> = missing.map(|(_, option)| option).collect();
    let topology = (!missing.is_empty()).then(|| {
        let options = missing.join(" ");
        format!("try {options}, which writes a <topology> for the virtual CPUs")
    });
    remedies
        .into_iter()
        .map(|Remedy { name, effect, .. }| format!("try --with {name}, which {effect}"))
        .chain(whole)
        .chain(topology)
        .collect()
}

/// The remedy for a domain of another host, of which only a part is taken out.
pub(super) fn of_other_host(findings: &[Finding]) -> Vec<String> {
    let is_it = |finding: &Finding| [NOT_A_REGION, NO_GPU].contains(&finding.rule);
    let all = "if the domain is from another host, run this there, or take out all EGM memory: \
               --remove --all --with all --memory SIZE";
    findings.iter().any(is_it).then(|| all.to_owned()).into_iter().collect()
}
