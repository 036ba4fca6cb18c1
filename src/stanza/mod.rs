//! Generates libvirt's XML from a plan, on its own or within a domain, and QEMU's arguments. All
//! results have been checked against the rules.

mod elements;
mod fragments;
mod machine_elements;
mod merge;
mod qemu;
mod relocate;
mod remove;
mod renumber;

use std::collections::BTreeMap;
use std::fmt::Write;
#[cfg(feature = "cli")]
use std::path::PathBuf;

#[cfg(feature = "cli")]
use crate::check::Schema;
use crate::check::{
    self, ACPI, CELL_SUM, Finding, INCOMPLETE, MAX_MEMORY, NO_GPU, NO_HOSTDEV, NO_MAX_MEMORY, NODE,
    NOT_A_REGION, Rule, SIZE, Severity, TOPOLOGY, TOTAL, UEFI,
};
use crate::domain::element::{Layout, is_expressible};
use crate::domain::{BadDomain, Dialect, Document, Domain, Value, lines_and_columns};
use crate::plan::{Alignment, Note, Plan};
use crate::report::Report;
use crate::values::text::excerpt;
use crate::values::{Bytes, IdList, PciAddress, RegionName};
pub use qemu::OtherMemory;
pub use relocate::Unmovable;
pub use remove::{Removal, Unremovable};

/// The parts to write in addition to the EGM devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parts {
    /// The `<hostdev>` of each GPU.
    pub hostdev: bool,
    /// Memory, NUMA cells and virtual CPUs.
    pub numa: bool,
    /// UEFI, ACPI, the interrupt controller and the CPUs of a Grace guest, and no balloon.
    pub machine: bool,
}

impl Parts {
    /// Everything that a domain without EGM needs, together with the requested parts of the plan's
    /// [`Machine`](crate::plan::Machine), which are always written.
    #[must_use]
    pub fn all() -> Self {
        Self { hostdev: true, numa: true, machine: true }
    }
}

/// Options for generating XML.
///
/// ```
/// use egm_probe::domain::Dialect;
/// use egm_probe::stanza::{Options, Parts};
///
/// let mut options = Options::of(Parts::all());
/// options.dialect = Some(Dialect::Nvidia11_9);
/// options.indent = Some(4);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The parts to write in addition to the EGM devices.
    pub parts: Parts,
    /// The number of spaces per level; by default as in the domain, or two.
    pub indent: Option<usize>,
    /// Treat warnings as errors.
    pub strict: bool,
    /// Rules whose warnings are downgraded to notes. Errors with these rules remain errors.
    pub allow: Vec<Rule>,
    /// Leave binding the devices to the driver for passthrough to the administrator,
    /// `managed='no'`.
    pub unmanaged: bool,
    /// The target libvirt; by default that of the schema, if it supports EGM.
    pub dialect: Option<Dialect>,
    /// The directory of that libvirt's schema, to which the result must conform; a missing or
    /// invalid schema is ignored.
    #[cfg(feature = "cli")]
    pub schemas: Option<PathBuf>,
}

impl Options {
    /// These parts, and the default for everything else.
    #[must_use]
    pub fn of(parts: Parts) -> Self {
        Self { parts, ..Self::default() }
    }
}

/// The XML of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stanza {
    /// The plan.
    pub plan: Plan,
    /// The plan's elements, or the whole domain into which they were merged.
    pub xml: String,
    /// Warnings about the domain into which it was merged.
    pub warnings: Vec<Finding>,
    /// The domain, parsed from the result.
    domain: Domain,
    parts: Parts,
}

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
    is_written: fn(Parts) -> bool,
    /// The codes of the rules.
    rules: &'static [&'static str],
}

const REMEDIES: [Remedy; 3] = [
    Remedy {
        name: "hostdev",
        effect: "adds the <hostdev> of each GPU",
        is_written: |parts| parts.hostdev,
        rules: &[NO_HOSTDEV.code],
    },
    Remedy {
        name: "numa",
        effect: "writes matching memory and cells",
        is_written: |parts| parts.numa,
        rules: &[NODE.code, CELL_SUM.code, TOTAL.code, MAX_MEMORY.code, NO_MAX_MEMORY.code],
    },
    Remedy {
        name: "machine",
        effect: "adds UEFI, ACPI and GICv3",
        is_written: |parts| parts.machine,
        rules: &[ACPI.code, UEFI.code],
    },
];

/// The remedies for the findings about a domain into which a plan was merged.
fn advice(findings: &[Finding], domain: &Domain, plan: &Plan, parts: Parts) -> Vec<String> {
    let lacks_hostdev = plan.placements.iter().any(|it| domain.hostdev(it.gpu).is_none());
    let helps = |remedy: &&Remedy| {
        let is_of_it = |finding: &Finding| {
            let code = finding.rule.code;
            remedy.rules.contains(&code) && (code != NO_HOSTDEV.code || lacks_hostdev)
        };
        !(remedy.is_written)(parts) && findings.iter().any(is_of_it)
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

/// The default number of spaces per level.
const INDENT: usize = 2;

/// A minimal domain, for checking a plan on its own.
const BARE: &str = "<domain type='kvm'>\n  <name>new</name>\n  <devices/>\n</domain>\n";

impl Stanza {
    /// Writes the elements of a plan.
    ///
    /// # Errors
    /// They would break a rule, or cannot be written in XML.
    pub fn new(report: &Report, plan: Plan, options: &Options) -> Result<Self, Unwritable> {
        check_expressible(&plan)?;
        let (parts, everything) = (options.parts, Parts::all());
        let mut whole = plan.clone();
        if !parts.numa {
            // The target domain is expected to have the preceding cells.
            whole.fill_cells();
            whole.machine.distances = None;
        }
        let target = target(options, BARE);
        let of_everything = Options { parts: everything, indent: None, ..options.clone() };
        let whole = merge::merge(&Document::parse(BARE)?, &whole, &of_everything, target);
        let (domain, findings) = checked(report, &whole, options, plan.alignment)?;
        let errors: Vec<_> = findings.into_iter().filter(is_error).collect();
        if !errors.is_empty() {
            let advice = advice(&errors, &domain, &plan, everything);
            let findings = errors.into_iter().map(|finding| (finding, None)).collect();
            return Err(Unwritable::Unsound { findings, advice });
        }
        let layout = Layout::indented_by(options.indent.unwrap_or(INDENT));
        let mut xml = String::new();
        for element in fragments::of(&plan, options, target) {
            element.write(&mut xml, &layout, "");
            xml.push('\n');
        }
        Ok(Self { plan, xml, warnings: Vec::new(), domain, parts })
    }

    /// Merges a plan into a domain, and preserves the rest of its text byte for byte. For all warnings,
    /// the report must also have been read with [`check::NEEDS`].
    ///
    /// # Errors
    /// It is not the definition of a domain, or the result would break a rule.
    pub fn within(
        report: &Report,
        mut plan: Plan,
        document: &Document<'_>,
        options: &Options,
    ) -> Result<Self, Unwritable> {
        let (parts, old) = (options.parts, document.domain());
        if old.is_status {
            return Err(Unwritable::Status);
        }
        if parts.numa && plan.machine.replaces && old.backing.hugepages.is_some() {
            plan.machine.notes.push(Note::HugePages);
        }
        check_expressible(&plan)?;
        let dialect = target(options, document.xml().input_text());
        let xml = merge::merge(document, &plan, options, dialect);
        let (domain, findings) = checked(report, &xml, options, plan.alignment)?;
        let advice = |findings: &[Finding]| advice(findings, old, &plan, parts);
        let warnings = sound(&xml, findings, options.strict, advice)?;
        Ok(Self { plan, xml, warnings, domain, parts })
    }

    /// QEMU's arguments: options, each with its value. They cover the EGM devices and the NUMA
    /// cells, with [`Parts::hostdev`] the GPUs, with [`Parts::numa`] memory and CPUs, with
    /// [`Parts::machine`] the machine and the CPU model, and the PCI buses of the plan.
    ///
    /// # Errors
    /// The domain has memory that is not EGM.
    pub fn qemu_arguments(&self) -> Result<Vec<(&'static str, String)>, OtherMemory> {
        qemu::arguments(&self.domain, self.parts, &self.plan.machine)
    }

    /// The domain as libvirt would read it.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

/// A domain whose NUMA cells have other numbers than before, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rearranged {
    /// The whole domain, to make the plan for again.
    pub xml: String,
    /// The cells with other numbers, and these.
    pub renumbered: BTreeMap<u32, u32>,
}

impl Rearranged {
    /// Makes room for the new cells of a plan: those with virtual CPUs and memory are before the empty
    /// ones of GPUs. `None` if the plan fits the domain as it is.
    ///
    /// # Errors
    /// Arguments for QEMU depend on the numbers.
    pub fn for_plan(document: &Document<'_>, plan: &Plan) -> Result<Option<Self>, Unwritable> {
        renumber::rearrange(document, plan)
    }
}

/// A domain that uses another region than before, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// The whole domain. Whether the region is free and large enough is for a [`Plan`] to say.
    pub xml: String,
    /// The GPUs of the region that it uses.
    pub gpus: Vec<PciAddress>,
}

impl Moved {
    /// Moves the EGM devices of a region, by default the only one of the domain, to another one, each
    /// with its GPU: the first of one region becomes the first of the other. Pinned virtual CPUs
    /// follow; aliases, addresses in the guest, sizes and cells stay.
    ///
    /// # Errors
    /// The domain has no such devices, or the region does not exist, has too few GPUs, or is already
    /// used by the domain.
    pub fn to(
        report: &Report,
        document: &Document<'_>,
        from: Option<&RegionName>,
        to: &RegionName,
    ) -> Result<Self, Unmovable> {
        relocate::relocate(report, document, from, to)
    }
}

/// A domain from which devices were taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rest {
    /// The whole domain.
    pub xml: String,
    /// The number of EGM devices, and of other devices that were named, that it had.
    pub removed: usize,
    /// The virtual CPUs that are not pinned any more.
    pub unpinned: IdList,
    /// Warnings about the domain.
    pub warnings: Vec<Finding>,
}

impl Rest {
    /// Takes devices out of a domain, and makes memory and cells fit. The rest of its text is
    /// preserved byte for byte.
    ///
    /// # Errors
    /// It is not the definition of a domain, the memory that it is to have is not known, or the
    /// result would break a rule.
    pub fn of(
        report: &Report,
        document: &Document<'_>,
        removal: &Removal,
        options: &Options,
    ) -> Result<Self, Unwritable> {
        if document.domain().is_status {
            return Err(Unwritable::Status);
        }
        let remove::Removed { xml, number, unpinned } = remove::remove(report, document, removal)?;
        let (_, findings) = checked(report, &xml, options, Alignment::default())?;
        let warnings = sound(&xml, findings, options.strict, of_other_host)?;
        Ok(Self { xml, removed: number, unpinned, warnings })
    }
}

/// The findings, if none of them prevents writing; otherwise all those that do, with advice.
fn sound(
    xml: &str,
    findings: Vec<Finding>,
    is_strict: bool,
    advice: impl Fn(&[Finding]) -> Vec<String>,
) -> Result<Vec<Finding>, Unwritable> {
    let least = if is_strict { Severity::Warning } else { Severity::Error };
    let is_wrong = |finding: &Finding| finding.severity >= least;
    if !findings.iter().any(is_wrong) {
        return Ok(findings);
    }
    let advice = advice(&findings);
    let wrong: Vec<_> = findings.into_iter().filter(is_wrong).collect();
    let places = lines_and_columns(xml, wrong.iter().map(|finding| finding.span.start));
    let findings = wrong.into_iter().zip(places.into_iter().map(Some)).collect();
    Err(Unwritable::Unsound { findings, advice })
}

/// The remedy for a domain of another host, of which only a part is taken out.
fn of_other_host(findings: &[Finding]) -> Vec<String> {
    let is_it = |finding: &Finding| [NOT_A_REGION, NO_GPU].contains(&finding.rule);
    let all = "if the domain is from another host, run this there, or take out all EGM memory: \
               --remove --all --with all --memory SIZE";
    findings.iter().any(is_it).then(|| all.to_owned()).into_iter().collect()
}

fn is_error(finding: &Finding) -> bool {
    finding.severity == Severity::Error
}

fn check_expressible(plan: &Plan) -> Result<(), Unwritable> {
    match plan.placements.iter().find(|placement| !is_expressible(&placement.path)) {
        Some(placement) => Err(Unwritable::Unsayable { path: placement.path.clone() }),
        None => Ok(()),
    }
}

/// The libvirt whose spelling is used.
fn target(options: &Options, text: &str) -> Dialect {
    #[cfg(feature = "cli")]
    let of_schema = || {
        let schema = Schema::read_for(options.schemas.as_ref()?, [text]).ok()?;
        schema.dialect()
    };
    #[cfg(not(feature = "cli"))]
    let of_schema = || {
        _ = text;
        None
    };
    options
        .dialect
        .or_else(of_schema)
        .filter(|it| it.supports_egm() || options.dialect.is_some())
        .unwrap_or_default()
}

/// Parses the result as libvirt would, and checks it against the rules. Warnings that the plan has
/// reported are omitted.
fn checked(
    report: &Report,
    text: &str,
    options: &Options,
    alignment: Alignment,
) -> Result<(Domain, Vec<Finding>), Unwritable> {
    let document = Document::parse(text)?;
    #[cfg(feature = "cli")]
    let schema = options.schemas.as_ref().and_then(|it| Schema::read_for(it, [text]).ok());
    #[cfg(feature = "cli")]
    let of_schema = schema.as_ref().and_then(Schema::dialect);
    #[cfg(not(feature = "cli"))]
    let of_schema = None;
    let dialect = options.dialect.or(of_schema).unwrap_or_default();
    let checks = check::CheckOptions {
        dialect,
        report: Some(report),
        #[cfg(feature = "cli")]
        schema: schema.as_ref(),
        #[cfg(feature = "cli")]
        is_installed: true,
        ..check::CheckOptions::default()
    };
    // Without a usable schema, only the rules apply.
    let mut findings = check::validate(&document, &checks)
        .unwrap_or_else(|_| check::check(document.domain(), &checks));
    let domain = document.domain().clone();
    findings.retain(|finding| is_error(finding) || !finding.rule.is_of_plans());
    // Only the parts that were asked for are written.
    findings.retain(|finding| finding.rule != INCOMPLETE);
    findings.retain(|finding| !is_for_libvirt(finding, &domain, alignment));
    let is_allowed = |it: &&mut Finding| !is_error(it) && options.allow.contains(&it.rule);
    findings.iter_mut().filter(is_allowed).for_each(Finding::allow);
    Ok((domain, findings))
}

/// Whether a finding is irrelevant for QEMU: about a size that only libvirt would round.
fn is_for_libvirt(finding: &Finding, domain: &Domain, alignment: Alignment) -> bool {
    let is_it = |size: &Value<Bytes>| {
        size.span == finding.span && size.value.is_some_and(|size| alignment.fits(size))
    };
    let mut sizes = domain.egm.iter().filter_map(|device| device.size.as_ref());
    alignment == Alignment::Qemu && finding.rule == SIZE && sizes.any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::RULES;
    use crate::plan::{Objection, Request};
    use crate::sysroot::Sysroot;

    fn report() -> Report {
        let machine = "tests/fixtures/gb200-full-gpu-list";
        Report::read(&Sysroot::capture(machine.as_ref()).unwrap(), Plan::NEEDS)
    }

    #[test]
    fn an_error_suggests_the_missing_part() {
        let report = report();
        let plan = Plan::new(&report, &Request::everything(), None).unwrap();
        let domain = Domain::parse(BARE).unwrap();
        let hints = |code, parts| {
            let finding = Finding::new(Rule { code, ..NODE }, 0..0, "");
            advice(&[finding], &domain, &plan, parts)
        };
        let hint = "try --with numa, which writes matching memory and cells";
        assert_eq!(hints("EGM012", Parts::default()), [hint]);
        assert!(hints("EGM012", Parts::all()).is_empty(), "it is written already");
        assert!(hints("EGM001", Parts::default()).is_empty());
    }

    #[test]
    fn an_objection_has_the_code_of_its_rule() {
        let region: crate::values::RegionName = "egm4".parse().unwrap();
        for objection in [
            Objection::Partial { region: region.clone(), missing: Vec::new() },
            Objection::InUse { region: region.clone(), holders: Vec::new() },
            Objection::Defined { region, domains: Vec::new() },
        ] {
            let is_it = |rule: &&Rule| Some(rule.code) == objection.code();
            assert!(RULES.iter().find(is_it).unwrap().is_of_plans(), "{objection}");
        }
    }

    #[test]
    fn a_plan_on_its_own_is_checked_within_a_complete_domain() {
        let report = report();
        let plan = Plan::new(&report, &Request::everything(), None).unwrap();
        let document = Document::parse(BARE).unwrap();
        let text = merge::merge(&document, &plan, &Options::of(Parts::all()), Dialect::default());
        for part in ["<maxMemory ", "<os firmware='efi'>", "<acpi/>", "<gic version='3'/>"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let stanza = Stanza::new(&report, plan, &Options::default()).unwrap();
        assert!(stanza.domain().max_memory.is_some() && !stanza.xml.contains("maxMemory"));
    }
}
