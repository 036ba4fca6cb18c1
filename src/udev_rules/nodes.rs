//! Checks the device nodes of a host against the expected permissions.

use std::path::PathBuf;

use serde::Serialize;

use super::effective::Effective;
use super::settings::Settings;
use crate::host::{Accounts, Permissions, Region};
use crate::values::RegionName;
use crate::values::text::{SHOWN, excerpt};

/// Expected permissions of a region's device node; `None` if not specified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Asked {
    /// The owner's name.
    pub(crate) user: Option<String>,
    /// The group's name.
    pub(crate) group: Option<String>,
    /// The permission bits, `0660`.
    pub(crate) mode: Option<String>,
}

/// Actual permissions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Got {
    /// The owner's name, or its number.
    pub(crate) user: String,
    /// The group's name, or its number.
    pub(crate) group: String,
    /// The permission bits, `0660`.
    pub(crate) mode: String,
    /// The same as shown to people: with a plus if there is an ACL.
    #[serde(skip)]
    pub(crate) shown_mode: String,
}

/// One region's device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RegionNode {
    /// The region.
    pub(crate) region: RegionName,
    /// The node.
    pub(crate) path: PathBuf,
    /// Its expected permissions.
    pub(crate) asked: Asked,
    /// Its actual permissions; `None` if it is missing or of another device.
    pub(crate) got: Option<Got>,
    /// Whether they match; `None` if unknown.
    pub(crate) right: Option<bool>,
}

impl Asked {
    /// The permissions in settings.
    #[must_use]
    pub(crate) fn of_settings(settings: &Settings) -> Self {
        Self {
            user: Some(settings.user.to_string()),
            group: Some(settings.group.to_string()),
            mode: Some(settings.mode.to_string()),
        }
    }

    /// The permissions in rules.
    #[must_use]
    pub(crate) fn of_rules(effective: &Effective) -> Self {
        let value = |given: &Option<super::Given>| given.as_ref().map(|given| given.value.clone());
        let mode = value(&effective.mode);
        Self {
            user: value(&effective.user),
            group: value(&effective.group),
            mode: mode.map(|mode| {
                u32::from_str_radix(&mode, 8).map_or(mode, |bits| format!("{bits:04o}"))
            }),
        }
    }

    /// Whether this is the expected user; `None` if unknown.
    pub(crate) fn gives_user(&self, user: &str, accounts: &Accounts<'_>) -> Option<bool> {
        let id = |name: &str| accounts.uid(name).map(|id| accounts.user(id));
        is_same(self.user.as_deref()?, user, id, accounts.are_known().0)
    }

    /// Whether this is the expected group; `None` if unknown.
    pub(crate) fn gives_group(&self, group: &str, accounts: &Accounts<'_>) -> Option<bool> {
        let id = |name: &str| accounts.gid(name).map(|id| accounts.group(id));
        is_same(self.group.as_deref()?, group, id, accounts.are_known().1)
    }

    fn is_met(&self, got: &Got, accounts: &Accounts<'_>) -> Option<bool> {
        let mode = self.mode.as_ref().map(|mode| Some(*mode == got.mode));
        let user = self.user.as_ref().map(|_| self.gives_user(&got.user, accounts));
        let group = self.group.as_ref().map(|_| self.gives_group(&got.group, accounts));
        let asked: Vec<_> = [mode, user, group].into_iter().flatten().collect();
        if asked.contains(&Some(false)) {
            return Some(false);
        }
        // With no request there is nothing to satisfy.
        (!asked.is_empty() && !asked.contains(&None)).then_some(true)
    }
}

/// Whether two names belong to one account: a rule may contain a number while the node has a name.
fn is_same(
    asked: &str,
    got: &str,
    resolve: impl Fn(&str) -> Option<String>,
    are_known: bool,
) -> Option<bool> {
    if asked == got {
        return Some(true);
    }
    match resolve(asked) {
        Some(name) => Some(name == got),
        None => are_known.then_some(false),
    }
}

impl RegionNode {
    pub(crate) fn of(region: &Region, asked: Asked, accounts: &Accounts<'_>) -> Self {
        let got = region.device.owner.as_ref().map(Got::of);
        let right = got.as_ref().and_then(|got| asked.is_met(got, accounts));
        Self { region: region.name.clone(), path: region.device.path.clone(), asked, got, right }
    }
}

/// Nodes that every user may open, with their permissions: `/dev/egm4 (0666 root:root)`.
pub(crate) fn open_to_all<'a>(regions: impl IntoIterator<Item = &'a Region>) -> Vec<String> {
    let open = regions.into_iter().filter_map(|region| {
        let owner = region.device.owner.as_ref().filter(|owner| owner.mode & 0o006 != 0)?;
        let path = excerpt(&region.device.path.to_string_lossy(), SHOWN);
        Some(format!("{path} ({})", excerpt(&owner.to_string(), SHOWN)))
    });
    open.collect()
}

impl Got {
    fn of(owner: &Permissions) -> Self {
        let Permissions { mode, user, group, .. } = owner;
        let (user, group) = (user.clone(), group.clone());
        Self { user, group, mode: format!("{mode:04o}"), shown_mode: owner.mode() }
    }
}

/// The nodes of all regions of a host.
#[cfg(feature = "cli")]
pub(crate) fn nodes(
    host: &crate::host::Host,
    accounts: &Accounts<'_>,
    asked: impl Fn(&Region) -> Asked,
) -> Vec<RegionNode> {
    host.regions.iter().map(|region| RegionNode::of(region, asked(region), accounts)).collect()
}
