//! Rules for the `SMMUv3`.

use super::rules::{ACCELERATED, SPELLING};
use super::{Findings, Subject};
use crate::domain::{Attribute, Dialect, Iommu, Origin};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for iommu in subject.domain.iommus.iter().filter(|iommu| iommu.is_smmuv3()) {
        check_spelling(iommu, subject.dialect, findings);
        check_accelerated(iommu, findings);
    }
}

/// Whether an attribute gives the size of process address space ids, in any dialect.
fn is_pasid(attribute: &Attribute) -> bool {
    Dialect::ALL.iter().any(|dialect| dialect.pasid_attribute() == attribute.name)
}

fn check_spelling(iommu: &Iommu, dialect: Dialect, findings: &mut Findings) {
    let right = dialect.pasid_attribute();
    for attribute in iommu.driver.iter().filter(|it| is_pasid(it) && it.name != right) {
        let message = format!("{dialect} has no attribute `{}`", attribute.name);
        let finding = findings.add(SPELLING, &attribute.span, message);
        if iommu.attribute(right).is_some() {
            finding.help("remove it");
        } else {
            let mut dialects = Dialect::ALL.iter();
            let own = dialects.find(|it| it.pasid_attribute() == attribute.name);
            let own = own.map_or(String::new(), |own| format!(", or --libvirt {own}"));
            finding.help(format!("{right}='{}'{own}", translated(&attribute.value, dialect)));
        }
    }
}

/// A value of another dialect: a number of bits, or a switch that stands for the most of them.
fn translated(value: &str, dialect: Dialect) -> &str {
    match (dialect, value) {
        (Dialect::Nvidia11_9, "0") => "off",
        (Dialect::Nvidia11_9, _) => "on",
        (_, "on") => "20",
        (_, "off") => "0",
        _ => value,
    }
}

fn check_accelerated(iommu: &Iommu, findings: &mut Findings) {
    if iommu.is_accelerated() {
        return;
    }
    // QEMU's default, on its command line.
    let is_default =
        |it: &Attribute| it.origin != Origin::Element && it.name == "ril" && it.value == "on";
    let needs_host = |it: &&Attribute| {
        is_pasid(it) || Iommu::ACCELERATED_ONLY.contains(&it.name.as_str()) && !is_default(it)
    };
    // One finding for each device: the others have the same remedy.
    if let Some(attribute) = iommu.driver.iter().find(needs_host) {
        let message = format!("`{}` of an SMMUv3 without accel='on'", attribute.name);
        findings.add(ACCELERATED, &attribute.span, message).help("accel='on'");
    }
}
