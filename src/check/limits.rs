//! Rules for limits and pinning that concern the whole guest, with or without a machine for EGM.

use super::Findings;
use super::rules::{HARD_LIMIT, PINS};
use crate::domain::{Domain, Maybe};
use crate::values::text::plural;

pub(super) fn check(domain: &Domain, findings: &mut Findings) {
    check_hard_limit(domain, findings);
    check_pins(domain, findings);
}

fn check_hard_limit(domain: &Domain, findings: &mut Findings) {
    let Some((limit, memory)) = domain.hard_limit.as_ref().zip(domain.memory.known()) else {
        return;
    };
    if let Some(value) = limit.value.filter(|value| *value < memory) {
        let (has, needs) = (value.0 >> 10, memory.0 >> 10);
        let message = format!("<hard_limit> is {has} KiB, but the domain has {needs} KiB");
        let help = "more than the memory of the domain, or no <hard_limit>";
        findings.add(HARD_LIMIT, &limit.span, message).help(help);
    }
}

fn check_pins(domain: &Domain, findings: &mut Findings) {
    // Without <vcpu> a domain has one.
    let Some(count) = domain.vcpus.as_ref().map_or(Some(1), |vcpus| vcpus.value) else { return };
    for vcpu in domain.pins.iter().filter_map(|pin| pin.vcpu.as_ref()) {
        if let Some(id) = vcpu.value.filter(|id| *id >= count) {
            let cpus = plural(count, "virtual CPU");
            let message = format!("virtual CPU {id} is pinned, but the domain has {cpus}");
            let help = format!("0 to {}", count.saturating_sub(1));
            findings.add(PINS, &vcpu.span, message).help(help);
        }
    }
}
