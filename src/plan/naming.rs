//! The aliases of GPUs in the guest.

use std::collections::{BTreeMap, BTreeSet};

use super::{Choice, Objection, Request};
use crate::domain::{Domain, EgmDevice, is_lasting_alias};
use crate::host::Region;
use crate::values::PciAddress;

/// The default prefix of aliases.
const PREFIX: &str = "ua-hostdev";

/// A GPU of a plan, with its alias.
pub(super) struct Named<'a> {
    pub(super) gpu: PciAddress,
    pub(super) alias: String,
    pub(super) old_alias: Option<String>,
    pub(super) region: &'a Region,
    /// The region's device.
    pub(super) path: String,
}

impl Named<'_> {
    /// Whether a device of the domain belongs to this GPU.
    pub(super) fn has(&self, device: &EgmDevice) -> bool {
        is_of(device, self.old_alias.as_deref(), &self.alias, &self.path)
    }
}

/// Whether a device of the domain belongs to a GPU: by the GPU's current alias in the domain, or if no
/// GPU has the device's alias, by the GPU's new alias and its region.
pub(super) fn is_of(device: &EgmDevice, old_alias: Option<&str>, alias: &str, path: &str) -> bool {
    let Some(found) = device.pci_dev.as_ref().map(|alias| alias.text.as_str()) else {
        return false;
    };
    let has_path = device.path.as_ref().is_some_and(|found| found.text == path);
    old_alias == Some(found) || (found == alias && has_path)
}

/// Assigns an alias to each GPU.
pub(super) fn name<'a>(
    request: &Request,
    domain: Option<&Domain>,
    choices: &[Choice<'a>],
    objections: &mut Vec<Objection>,
) -> Vec<Named<'a>> {
    if choices.is_empty() {
        return Vec::new();
    }
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
    // A device with an unused alias belongs to a new GPU only if the region is the same.
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
    let mut named = Vec::new();
    for Choice { gpu, region } in by_address {
        let path = region.device.path.to_string_lossy().into_owned();
        let hostdev = domain.and_then(|domain| domain.hostdev(gpu.address));
        let old_alias = hostdev.and_then(|hostdev| Some(hostdev.alias.as_ref()?.text.clone()));
        let alias = match (wanted, &old_alias) {
            (Some(wanted), _) => {
                if old_alias.as_deref() != Some(wanted) && used.contains(wanted) {
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
        named.push(Named { gpu: gpu.address, alias, old_alias, region, path });
    }
    // Aliases are numbered by address; the result is ordered by region.
    named.sort_by(|a, b| (&a.region.name, a.gpu).cmp(&(&b.region.name, b.gpu)));
    named
}

#[cfg(test)]
mod tests {
    use crate::domain::is_lasting_alias;

    #[test]
    fn aliases_that_libvirt_keeps_begin_with_ua() {
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
