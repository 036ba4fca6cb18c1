//! The aliases of GPUs in the guest.

use std::collections::{BTreeMap, BTreeSet};

use super::{Choice, Objection, Placement, Request};
use crate::domain::{Domain, is_lasting_alias};
use crate::values::Bytes;

/// What aliases begin with where nothing else is said.
const PREFIX: &str = "ua-hostdev";

/// Makes a placement of each GPU, with its alias and no more.
pub(super) fn name(
    request: &Request,
    domain: Option<&Domain>,
    choices: &[Choice<'_>],
    placements: &mut Vec<Placement>,
    objections: &mut Vec<Objection>,
) {
    let prefix = request.alias_prefix.as_deref().unwrap_or(PREFIX);
    let wanted = request.alias.as_deref();
    if wanted.is_some() && choices.len() > 1 {
        objections.push(Objection::OneAlias { gpus: choices.len() });
    }
    let first = wanted.map_or_else(|| format!("{prefix}0"), str::to_owned);
    if !is_lasting_alias(&first) {
        objections.push(Objection::BadAlias { alias: wanted.unwrap_or(prefix).to_owned() });
    }
    let aliases = domain.map(|domain| domain.aliases.as_slice()).unwrap_or_default();
    let mut used: BTreeSet<_> = aliases.iter().map(|alias| alias.text.clone()).collect();
    // A device whose alias is nobody's is that of a new GPU only where the region is the same.
    let dangling: BTreeMap<_, _> = domain
        .into_iter()
        .flat_map(|domain| &domain.egm)
        .filter_map(|device| Some((device.pci_dev.as_ref()?, device.path.as_ref()?)))
        .map(|(alias, path)| (alias.text.clone(), path.text.clone()))
        .filter(|(alias, _)| !used.contains(alias))
        .collect();
    let mut by_address: Vec<_> = choices.iter().collect();
    by_address.sort_by_key(|choice| choice.gpu.address);
    let mut number = 0;
    for choice in by_address {
        let path = choice.region.device.path.to_string_lossy().into_owned();
        let hostdev = domain.and_then(|domain| domain.hostdev(choice.gpu.address));
        let old = hostdev.and_then(|hostdev| Some(hostdev.alias.as_ref()?.text.clone()));
        let alias = match (wanted, &old) {
            (Some(wanted), _) => {
                if old.as_deref() != Some(wanted) && used.contains(wanted) {
                    objections.push(Objection::AliasTaken { alias: wanted.to_owned() });
                }
                wanted.to_owned()
            }
            (None, Some(old)) if is_lasting_alias(old) => old.clone(),
            _ => loop {
                let alias = format!("{prefix}{number}");
                number += 1;
                let is_others = dangling.get(&alias).is_some_and(|other| *other != path);
                if !is_others && used.insert(alias.clone()) {
                    break alias;
                }
            },
        };
        placements.push(Placement {
            gpu: choice.gpu.address,
            alias,
            old_alias: old,
            region: choice.region.name.clone(),
            path,
            host_node: choice.region.numa_node,
            cell: 0,
            size: Bytes(0),
            gpu_cells: None,
        });
    }
    // Aliases are by address, all else is by region.
    placements.sort_by(|a, b| (&a.region, a.gpu).cmp(&(&b.region, b.gpu)));
}

#[cfg(test)]
mod tests {
    use crate::domain::is_lasting_alias;

    #[test]
    fn an_alias_that_libvirt_keeps_begins_with_ua() {
        for (alias, keeps) in [
            ("ua-hostdev0", true),
            ("ua-GPU_0-a", true),
            ("ua-", false),
            ("hostdev0", false),
            ("ua-a.b", false),
            ("ua-a b", false),
            ("UA-x", false),
            ("ua-\u{fc}", false),
        ] {
            assert_eq!(is_lasting_alias(alias), keeps, "{alias}");
        }
    }
}
