//! Checks of the domains that are defined: their regions, and by the rules of `validate` the machine
//! around EGM.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::{Outcome, first_of};
use crate::check::{self, CheckOptions, DEFINED, Finding, OF_BUSES, OF_GPU_CELLS, OF_HOLE, Rule};
use crate::claims::{Claim, Owner};
use crate::domain::Domain;
use crate::values::text::{SHOWN, excerpt, excerpts};

pub(super) fn buses(facts: &Facts<'_>) -> Outcome {
    look(facts, "one with EGM needs an expander bus with an SMMUv3 for each GPU", OF_BUSES)
}

pub(super) fn pci_hole(facts: &Facts<'_>) -> Outcome {
    look(facts, "one with EGM needs <pcihole64> of 4 TiB, or 8 TiB with GB300", OF_HOLE)
}

pub(super) fn gpu_cells(facts: &Facts<'_>) -> Outcome {
    look(facts, "one with EGM needs eight empty cells for each GPU", OF_GPU_CELLS)
}

/// Regions that several domains, running or not, are defined with.
pub(super) fn regions(facts: &Facts<'_>) -> Outcome {
    let report = &facts.report;
    let mut problems = Vec::new();
    for region in &report.host.regions {
        let claims = report.claims.of(&region.name).iter();
        let owners = claims.filter_map(|claim| match (claim, claim.owner()) {
            (Claim::Lease(_), _) | (_, Owner::Process(_)) => None,
            (_, Owner::Domain(name)) => Some(name.to_owned()),
        });
        let owners: BTreeSet<_> = owners.collect();
        if owners.len() > 1 {
            let owners: Vec<_> = owners.into_iter().collect();
            problems.push(format!("{}: {}", region.name, excerpts(&owners)));
        }
    }
    match (&facts.domains_unread, problems.is_empty()) {
        (_, false) => {
            let mut outcome = Outcome::warn(first_of(&problems));
            if facts.allow.contains(&DEFINED.code) {
                outcome.allow();
            }
            outcome
        }
        (Some(why), true) => Outcome::skip(why.clone()),
        (None, true) => Outcome::pass(),
    }
}

/// The first violation of these rules in each domain with EGM; `none` is a note if there is no such
/// domain.
fn look(facts: &Facts<'_>, none: &str, rules: &[Rule]) -> Outcome {
    let definitions = facts.report.claims.definitions.iter();
    let mut domains =
        definitions.map(|it| &it.domain).filter(|domain| !domain.egm.is_empty()).peekable();
    if domains.peek().is_none() {
        return match &facts.domains_unread {
            Some(why) => Outcome::skip(why.clone()),
            None => Outcome::passed(format!("no domain uses EGM; {none}")),
        };
    }
    let options = CheckOptions { report: Some(facts.report), ..CheckOptions::default() };
    let is_allowed = |found: &Finding| facts.allow.contains(&found.rule.code);
    // Allowed ones only if there are no others.
    let first = |domain: &Domain| {
        let findings = check::check(domain, &options).into_iter();
        findings.filter(|found| rules.contains(&found.rule)).min_by_key(is_allowed)
    };
    let mut found: Vec<(&Domain, Finding)> =
        domains.filter_map(|domain| Some((domain, first(domain)?))).collect();
    let are_allowed = found.iter().all(|(_, found)| is_allowed(found));
    found.retain(|(_, found)| are_allowed || !is_allowed(found));
    let message = |(domain, found): &(&Domain, Finding)| {
        format!("{}: {}", excerpt(&domain.name, SHOWN), found.message)
    };
    let messages: Vec<_> = found.iter().map(message).collect();
    let Some((_, first)) = found.first() else { return Outcome::pass() };
    let mut outcome = Outcome::warn(first_of(&messages));
    if are_allowed {
        outcome.allow();
    }
    let why = format!("`egm-probe validate --explain {}` prints the reason", first.rule.code);
    match &first.help {
        Some(help) => outcome.hint(help.clone()).hint(why),
        None => outcome.hint(why),
    }
}
