//! A plan written down: as libvirt's XML, by itself or within a domain, and as QEMU's arguments.
//! Nothing is given out that has not passed the check.

mod elements;
mod merge;
mod qemu;

use std::fmt::Write;

use crate::check::{CELL_SUM, Finding, MAX_MEMORY, NO_HOSTDEV, NODE, Rule, Severity, TOTAL, check};
use crate::domain::element::{Element, Layout, can_be_said};
use crate::domain::{BadDomain, Dialect, Domain, lines_and_columns};
use crate::plan::Plan;
use crate::report::Report;
use crate::text::excerpt;
pub use qemu::OtherMemory;

/// What to write besides the EGM devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parts {
    /// The `<hostdev>` of each GPU.
    pub hostdev: bool,
    /// Memory, NUMA cells and virtual CPUs.
    pub numa: bool,
}

impl Parts {
    /// All that a domain needs which has nothing of it yet.
    #[must_use]
    pub fn all() -> Self {
        Self { hostdev: true, numa: true }
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
    #[error("the domain would not be right, by the lines of the result:{}{advice}", list(findings))]
    Unsound {
        /// The rules; and where in the result they are broken, line and column, where there is
        /// more of it than the plan.
        findings: Vec<(Finding, Option<(u32, u32)>)>,
        /// What would mend it, a line each.
        advice: String,
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

/// Which parts would mend it.
fn advice(findings: &[Finding], domain: &Domain, plan: &Plan, parts: Parts) -> String {
    let has = |rules: &[Rule]| findings.iter().any(|finding| rules.contains(&finding.rule));
    let lacks_hostdev = plan.placements.iter().any(|it| domain.hostdev(it.gpu).is_none());
    let mut advice = String::new();
    if !parts.hostdev && lacks_hostdev && has(&[NO_HOSTDEV]) {
        advice.push_str("\n  try --with-hostdev: it adds the <hostdev> of each GPU");
    }
    if !parts.numa && has(&[NODE, CELL_SUM, TOTAL, MAX_MEMORY]) {
        advice.push_str("\n  try --with-numa: it makes memory and cells fit");
    }
    advice
}

/// What a domain needs at least: the plan alone is checked as part of it.
const BARE: &str = "<domain type='kvm'>\n  <name>new</name>\n  <devices/>\n</domain>\n";

impl Stanza {
    /// Writes the elements of a plan, each level indented by so many blanks.
    ///
    /// # Errors
    /// They would break a rule, or cannot be written in XML.
    pub fn new(
        report: &Report,
        plan: Plan,
        parts: Parts,
        indent: usize,
    ) -> Result<Self, Unwritable> {
        sayable(&plan)?;
        let everything = Parts::all();
        let mut whole = plan.clone();
        if !parts.numa {
            // The cells before are for the domain to have, into which this is put.
            whole.fill_cells();
        }
        let whole = merge::merge(BARE, &whole, everything, None)?;
        let (domain, findings) = checked(report, &whole)?;
        let errors: Vec<_> = findings.into_iter().filter(is_error).collect();
        if !errors.is_empty() {
            let advice = advice(&errors, &domain, &plan, everything);
            let findings = errors.into_iter().map(|finding| (finding, None)).collect();
            return Err(Unwritable::Unsound { findings, advice });
        }
        let layout = Layout::indented_by(indent);
        let mut xml = String::new();
        for element in fragments(&plan, parts) {
            element.write(&mut xml, &layout, "");
            xml.push('\n');
        }
        Ok(Self { plan, xml, warnings: Vec::new(), domain, parts })
    }

    /// Puts a plan into the text of a domain, in which everything else stays byte for byte.
    ///
    /// What is new has `indent` blanks a level, or as many as the text around it has. With
    /// `strict` the domain must not even give rise to a warning then.
    ///
    /// # Errors
    /// The text is no definition of a domain, or the result would break a rule.
    pub fn within(
        report: &Report,
        plan: Plan,
        parts: Parts,
        text: &str,
        indent: Option<usize>,
        strict: bool,
    ) -> Result<Self, Unwritable> {
        if Domain::parse(text)?.is_status {
            return Err(Unwritable::Status);
        }
        sayable(&plan)?;
        let step = indent.map(|blanks| " ".repeat(blanks));
        let xml = merge::merge(text, &plan, parts, step)?;
        let (domain, findings) = checked(report, &xml)?;
        let is_wrong = |finding: &Finding| strict || is_error(finding);
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
    match plan.placements.iter().find(|placement| !can_be_said(&placement.path)) {
        Some(placement) => Err(Unwritable::Unsayable { path: placement.path.clone() }),
        None => Ok(()),
    }
}

/// Reads what was written, as libvirt would, and holds it against the rules. What is odd about the
/// host's side of it the plan has said.
fn checked(report: &Report, text: &str) -> Result<(Domain, Vec<Finding>), Unwritable> {
    let domain = Domain::parse(text)?;
    let mut findings = check(&domain, Dialect::default(), Some(report));
    findings.retain(|finding| is_error(finding) || !finding.rule.is_of_plans());
    Ok((domain, findings))
}

/// The elements of a plan by themselves, in libvirt's order.
fn fragments(plan: &Plan, parts: Parts) -> Vec<Element> {
    let mut fragments = Vec::new();
    if parts.numa {
        fragments.push(elements::size("memory", plan.memory));
        fragments.push(elements::memory_backing());
        fragments.extend(plan.vcpus.map(elements::vcpu));
        fragments.push(elements::cpu(plan));
    }
    if parts.hostdev {
        let gpus = plan.by_address().into_iter();
        fragments.extend(gpus.map(|it| elements::hostdev(it, parts.numa)));
    }
    fragments.extend(plan.placements.iter().map(elements::memory_device));
    fragments
}
