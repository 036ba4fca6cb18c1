//! A plan written down: as libvirt's XML, by itself or within a domain, and as QEMU's arguments.
//! Nothing is given out that has not passed the check.

mod elements;
mod merge;
mod qemu;

use std::fmt::Write;
#[cfg(feature = "cli")]
use std::path::PathBuf;

#[cfg(feature = "cli")]
use crate::check::Schema;
use crate::check::{
    self, ACPI, CELL_SUM, Finding, MAX_MEMORY, NO_HOSTDEV, NO_MAX_MEMORY, NODE, SIZE, Severity,
    TOTAL, UEFI,
};
use crate::domain::element::{Element, Layout, is_expressible};
use crate::domain::{BadDomain, Dialect, Document, Domain, Value, lines_and_columns};
use crate::plan::{Alignment, Plan};
use crate::report::Report;
use crate::values::Bytes;
use crate::values::text::excerpt;
pub use qemu::OtherMemory;

/// What to write besides the EGM devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parts {
    /// The `<hostdev>` of each GPU.
    pub hostdev: bool,
    /// Memory, NUMA cells and virtual CPUs.
    pub numa: bool,
    /// UEFI, ACPI and the interrupt controller of a Grace guest.
    pub machine: bool,
}

impl Parts {
    /// Everything that a domain without EGM needs.
    #[must_use]
    pub fn all() -> Self {
        Self { hostdev: true, numa: true, machine: true }
    }
}

/// How to write a plan down.
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
    /// What to write besides the EGM devices.
    pub parts: Parts,
    /// The number of spaces of each level; by default, as in the domain, or two.
    pub indent: Option<usize>,
    /// Refuse a domain that breaks a rule whose severity is a warning.
    pub strict: bool,
    /// The libvirt that is to read it; by default that of the schema, if it has EGM.
    pub dialect: Option<Dialect>,
    /// The directory of the schemas of that libvirt, to which the result has to conform; schemas
    /// that are missing or invalid are ignored.
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

/// A plan, written down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stanza {
    /// The plan.
    pub plan: Plan,
    /// The XML: the plan's elements, or the whole domain that they were put into.
    pub xml: String,
    /// What should be known of the domain that it was put into.
    pub warnings: Vec<Finding>,
    /// The domain, as it is read again.
    domain: Domain,
    parts: Parts,
}

/// Why a plan was not written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwritable {
    /// What it was to be put into is no domain.
    #[error(transparent)]
    BadDomain(#[from] BadDomain),
    /// A status file is libvirt's own, and what is changed in it is lost.
    #[error(
        "this is the status of a running domain; change its definition (virsh edit, virsh dumpxml --inactive)"
    )]
    Status,
    /// The device's path cannot be written in XML.
    #[error("`{}` cannot be written in XML: it has control characters", excerpt(path, 80))]
    Unsayable {
        /// The path.
        path: String,
    },
    /// The result would break rules.
    #[error(
        "the domain would not be right, by the lines of the result:{}{}",
        list(findings),
        lines(advice)
    )]
    Unsound {
        /// The rules; and where in the result they are broken, line and column, where there is
        /// more of it than the plan.
        findings: Vec<(Finding, Option<(u32, u32)>)>,
        /// Remedies, a line each.
        advice: Vec<String>,
    },
}

/// More findings than this tell nobody anything.
const SHOWN: usize = 20;

/// A line each.
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

/// A part of [`Parts`] that makes a domain keep some rules.
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
        effect: "makes memory and cells fit",
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

/// The parts that would mend it.
fn advice(findings: &[Finding], domain: &Domain, plan: &Plan, parts: Parts) -> Vec<String> {
    let lacks_hostdev = plan.placements.iter().any(|it| domain.hostdev(it.gpu).is_none());
    let helps = |remedy: &&Remedy| {
        let is_of_it = |finding: &Finding| {
            let code = finding.rule.code;
            remedy.rules.contains(&code) && (code != NO_HOSTDEV.code || lacks_hostdev)
        };
        !(remedy.is_written)(parts) && findings.iter().any(is_of_it)
    };
    let remedies = REMEDIES.iter().filter(helps);
    remedies.map(|Remedy { name, effect, .. }| format!("try --with {name}: it {effect}")).collect()
}

/// Spaces of each level, if nothing else is said.
const INDENT: usize = 2;

/// What a domain needs at least: the plan alone is checked as part of it.
const BARE: &str = "<domain type='kvm'>\n  <name>new</name>\n  <devices/>\n</domain>\n";

impl Stanza {
    /// Writes the elements of a plan.
    ///
    /// # Errors
    /// They would break a rule, or cannot be written in XML.
    pub fn new(report: &Report, plan: Plan, options: &Options) -> Result<Self, Unwritable> {
        sayable(&plan)?;
        let (parts, everything) = (options.parts, Parts::all());
        let mut whole = plan.clone();
        if !parts.numa {
            // The cells before are for the domain to have, into which this is put.
            whole.fill_cells();
        }
        let whole = merge::merge(&Document::parse(BARE)?, &whole, everything, None);
        let (domain, findings) = checked(report, &whole, options, plan.alignment)?;
        let errors: Vec<_> = findings.into_iter().filter(is_error).collect();
        if !errors.is_empty() {
            let advice = advice(&errors, &domain, &plan, everything);
            let findings = errors.into_iter().map(|finding| (finding, None)).collect();
            return Err(Unwritable::Unsound { findings, advice });
        }
        let layout = Layout::indented_by(options.indent.unwrap_or(INDENT));
        let mut xml = String::new();
        for element in fragments(&plan, parts) {
            element.write(&mut xml, &layout, "");
            xml.push('\n');
        }
        Ok(Self { plan, xml, warnings: Vec::new(), domain, parts })
    }

    /// Puts a plan into a domain, in whose text everything else stays byte for byte.
    ///
    /// # Errors
    /// It is not the definition of a domain, or the result would break a rule.
    pub fn within(
        report: &Report,
        plan: Plan,
        document: &Document<'_>,
        options: &Options,
    ) -> Result<Self, Unwritable> {
        let parts = options.parts;
        if document.domain().is_status {
            return Err(Unwritable::Status);
        }
        sayable(&plan)?;
        let step = options.indent.map(|spaces| " ".repeat(spaces));
        let xml = merge::merge(document, &plan, parts, step);
        let (domain, findings) = checked(report, &xml, options, plan.alignment)?;
        let least = if options.strict { Severity::Warning } else { Severity::Error };
        let is_wrong = |finding: &Finding| finding.severity >= least;
        if findings.iter().any(is_wrong) {
            let advice = advice(&findings, &domain, &plan, parts);
            let wrong: Vec<_> = findings.into_iter().filter(is_wrong).collect();
            let places = lines_and_columns(&xml, wrong.iter().map(|finding| finding.span.start));
            let findings = wrong.into_iter().zip(places.into_iter().map(Some)).collect();
            return Err(Unwritable::Unsound { findings, advice });
        }
        Ok(Self { plan, xml, warnings: findings, domain, parts })
    }

    /// QEMU's arguments: options, each with its value. Of a domain these are the EGM devices, the
    /// NUMA cells and the GPUs; with [`Parts::numa`] memory and CPUs.
    ///
    /// # Errors
    /// The domain has memory that is not EGM.
    pub fn qemu_arguments(&self) -> Result<Vec<(&'static str, String)>, OtherMemory> {
        qemu::arguments(&self.domain, self.parts)
    }

    /// The domain as libvirt would read it.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

fn is_error(finding: &Finding) -> bool {
    finding.severity == Severity::Error
}

fn sayable(plan: &Plan) -> Result<(), Unwritable> {
    match plan.placements.iter().find(|placement| !is_expressible(&placement.path)) {
        Some(placement) => Err(Unwritable::Unsayable { path: placement.path.clone() }),
        None => Ok(()),
    }
}

/// Reads the result as libvirt would, and checks it against the rules. The plan has reported the
/// warnings about the host.
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
    // Without a usable schema the rules alone decide.
    let mut findings = check::validate(&document, &checks)
        .unwrap_or_else(|_| check::check(document.domain(), &checks));
    let domain = document.domain().clone();
    findings.retain(|finding| is_error(finding) || !finding.rule.is_of_plans());
    findings.retain(|finding| !is_for_libvirt(finding, &domain, alignment));
    Ok((domain, findings))
}

/// Whether a finding is about a size that libvirt alone would round, in what is for QEMU.
fn is_for_libvirt(finding: &Finding, domain: &Domain, alignment: Alignment) -> bool {
    let is_it = |size: &Value<Bytes>| {
        size.span == finding.span && size.value.is_some_and(|size| alignment.fits(size))
    };
    let mut sizes = domain.egm.iter().filter_map(|device| device.size.as_ref());
    alignment == Alignment::Qemu && finding.rule == SIZE && sizes.any(is_it)
}

/// The elements of a plan by themselves, in libvirt's order.
fn fragments(plan: &Plan, parts: Parts) -> Vec<Element> {
    let mut fragments = Vec::new();
    if parts.numa {
        fragments.push(elements::size("maxMemory", plan.memory));
        fragments.push(elements::size("memory", plan.memory));
        fragments.push(elements::memory_backing());
        fragments.extend(plan.vcpus.map(elements::vcpu));
    }
    if parts.machine {
        fragments.push(elements::os());
        fragments.push(elements::features());
    }
    if parts.numa {
        fragments.push(elements::cpu(plan));
    }
    if parts.hostdev {
        let gpus = plan.by_address().into_iter();
        fragments.extend(gpus.map(|it| elements::hostdev(it, parts.numa)));
    }
    fragments.extend(plan.placements.iter().map(elements::memory_device));
    fragments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Rule;
    use crate::plan::Request;
    use crate::sysroot::Sysroot;

    fn report() -> Report {
        let machine = "tests/fixtures/gb200-full-gpu-list";
        Report::read(&Sysroot::capture(machine.as_ref()).unwrap(), Plan::NEEDS)
    }

    #[test]
    fn a_broken_rule_names_the_part_that_is_missing() {
        let report = report();
        let plan = Plan::new(&report, &Request::everything(), None).unwrap();
        let domain = Domain::parse(BARE).unwrap();
        let hints = |code, parts| {
            let finding = Finding::new(Rule { code, ..NODE }, 0..0, "");
            advice(&[finding], &domain, &plan, parts)
        };
        let hint = "try --with numa: it makes memory and cells fit";
        assert_eq!(hints("EGM012", Parts::default()), [hint]);
        assert!(hints("EGM012", Parts::all()).is_empty(), "it is written already");
        assert!(hints("EGM001", Parts::default()).is_empty());
    }

    #[test]
    fn a_plan_alone_is_checked_within_a_whole_guest() {
        let report = report();
        let plan = Plan::new(&report, &Request::everything(), None).unwrap();
        let document = Document::parse(BARE).unwrap();
        let text = merge::merge(&document, &plan, Parts::all(), None);
        for part in ["<maxMemory ", "<os firmware='efi'>", "<acpi/>", "<gic version='3'/>"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let stanza = Stanza::new(&report, plan, &Options::default()).unwrap();
        assert!(stanza.domain().max_memory.is_some() && !stanza.xml.contains("maxMemory"));
    }
}
