//! A plan written down: as libvirt's XML, by itself or within a domain, and as QEMU's arguments.
//! Nothing is given out that has not passed the check.

mod elements;
mod merge;
mod qemu;

use std::fmt::Write;

use crate::check::{Finding, Severity, check};
use crate::domain::element::{Element, Layout, can_be_said};
use crate::domain::{BadDomain, Domain, line_and_column};
use crate::plan::Plan;
use crate::report::Report;
use crate::text::excerpt;
pub use qemu::OtherMemory;

/// What to write besides the EGM devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The `<hostdev>` of each GPU.
    pub hostdev: bool,
    /// Memory, NUMA cells and virtual CPUs.
    pub numa: bool,
}

/// A plan, written down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stanza {
    /// The plan.
    pub plan: Plan,
    /// The XML: the plan's elements, or the whole domain that they were put into.
    pub xml: String,
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
    #[error("the domain would not be right:{}{}", list(findings), advice(findings, *parts))]
    Unsound {
        /// The rules; and where in the result they are broken, line and column, where there is
        /// more of it than the plan.
        findings: Vec<(Finding, Option<(u32, u32)>)>,
        /// What was to be written.
        parts: Parts,
    },
}

/// A line each.
fn list(findings: &[(Finding, Option<(u32, u32)>)]) -> String {
    let mut list = String::new();
    for (Finding { rule, message, help, .. }, place) in findings {
        let place = place.map_or(String::new(), |(line, column)| format!("{line}:{column}: "));
        // Writing to a String cannot fail.
        let _ = write!(list, "\n  {place}{message} ({})", rule.code);
        if let Some(help) = help {
            let _ = write!(list, "; right would be: {help}");
        }
    }
    list
}

/// Which parts would mend it.
fn advice(findings: &[(Finding, Option<(u32, u32)>)], parts: Parts) -> String {
    let has =
        |codes: &[&str]| findings.iter().any(|(finding, _)| codes.contains(&finding.rule.code));
    let mut advice = String::new();
    if !parts.hostdev && has(&["EGM003"]) {
        advice.push_str("\n  --with-hostdev adds the <hostdev> of each GPU");
    }
    if !parts.numa && has(&["EGM008", "EGM011", "EGM012", "EGM016"]) {
        advice.push_str("\n  --with-numa makes memory and cells fit");
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
        let everything = Parts { hostdev: true, numa: true };
        let mut whole = plan.clone();
        if !parts.numa {
            // The cells before are for the domain to have, into which this is put.
            whole.fill_cells();
        }
        let whole = merge::merge(BARE, &whole, everything, None)?;
        let domain = checked(report, &whole, parts, false)?;
        let layout = Layout::indented_by(indent);
        let mut xml = String::new();
        for element in fragments(&plan, parts) {
            element.write(&mut xml, &layout, "");
            xml.push('\n');
        }
        Ok(Self { plan, xml, domain, parts })
    }

    /// Puts a plan into the text of a domain, in which everything else stays byte for byte.
    ///
    /// # Errors
    /// The text is no definition of a domain, or the result would break a rule.
    pub fn within(
        report: &Report,
        plan: Plan,
        parts: Parts,
        text: &str,
        indent: Option<usize>,
    ) -> Result<Self, Unwritable> {
        if Domain::parse(text)?.is_status {
            return Err(Unwritable::Status);
        }
        let step = indent.map(|blanks| " ".repeat(blanks));
        sayable(&plan)?;
        let xml = merge::merge(text, &plan, parts, step)?;
        let domain = checked(report, &xml, parts, true)?;
        Ok(Self { plan, xml, domain, parts })
    }

    /// QEMU's arguments: options, each with its value.
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

fn sayable(plan: &Plan) -> Result<(), Unwritable> {
    match plan.placements.iter().find(|placement| !can_be_said(&placement.path)) {
        Some(placement) => Err(Unwritable::Unsayable { path: placement.path.clone() }),
        None => Ok(()),
    }
}

/// Reads what was written, as libvirt would, and holds it against the rules.
fn checked(
    report: &Report,
    text: &str,
    parts: Parts,
    with_places: bool,
) -> Result<Domain, Unwritable> {
    let domain = Domain::parse(text)?;
    let findings: Vec<_> = check(&domain, Some(report))
        .into_iter()
        .filter(|finding| finding.rule.severity == Severity::Error)
        .map(|finding| {
            let place = with_places.then(|| line_and_column(text, finding.span.start));
            (finding, place)
        })
        .collect();
    if findings.is_empty() { Ok(domain) } else { Err(Unwritable::Unsound { findings, parts }) }
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
        let mut by_address: Vec<_> = plan.placements.iter().collect();
        by_address.sort_by_key(|placement| placement.gpu);
        fragments.extend(by_address.into_iter().map(|it| elements::hostdev(it, parts.numa)));
    }
    fragments.extend(plan.placements.iter().map(elements::memory_device));
    fragments
}
