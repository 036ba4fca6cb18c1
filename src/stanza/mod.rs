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
mod unwritable;

use std::collections::BTreeMap;
#[cfg(feature = "cli")]
use std::path::PathBuf;

#[cfg(feature = "cli")]
use crate::check::Schema;
use crate::check::{self, Finding, INCOMPLETE, OBSOLETE, Rule, SIZE, Severity};
use crate::domain::element::{Layout, is_expressible};
use crate::domain::{Dialect, Document, Domain, Value, lines_and_columns};
use crate::plan::{Alignment, Note, Plan};
use crate::report::Report;
use crate::values::{Bytes, IdList, PciAddress, RegionName};
pub use qemu::OtherMemory;
pub use relocate::Unmovable;
pub use remove::{Removal, Unremovable};
pub use unwritable::Unwritable;
use unwritable::{advice, of_other_host};

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
        let (_, mut findings) = checked(report, &xml, options, Alignment::default())?;
        // An error only where no EGM is left.
        for finding in findings.iter_mut().filter(|finding| finding.rule == OBSOLETE) {
            finding.severity = finding.severity.min(Severity::Warning);
        }
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
    use crate::check::{NODE, RULES};
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
