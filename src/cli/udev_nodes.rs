//! The device nodes before and after udev applied the rules.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, lchown};
use std::path::Path;

use rustix::fs::lgetxattr;

use super::error::Error;
use crate::host::{Accounts, Host, Needs};
use crate::output::udev::UdevReport;
use crate::sysroot::{Sysroot, describe};
use crate::udev_rules::{Asked, HostRules, Settings, nodes};
use crate::values::text::printable;

/// Reads the nodes.
pub(super) fn look(root: &Sysroot, settings: &Settings, report: &mut UdevReport) {
    let host = Host::read(root, Needs::DEVICE_NODE);
    report.nodes = nodes(&host, &Accounts::of(root), |_| Asked::of_settings(settings));
}

/// Adds warnings that may explain why a node differs from the request.
pub(super) fn explain(
    (root, file): (&Sysroot, &Path),
    settings: &Settings,
    report: &mut UdevReport,
) {
    if !report.is_right() {
        let rules = HostRules::read(root);
        for node in report.nodes.iter().filter(|node| node.right != Some(true)) {
            for (name, given) in rules.for_region(&node.region).given() {
                if given.place.path != file {
                    let (place, value) = (&given.place, printable(&given.value));
                    let reason = format!("{place}: overrides the rule with {name} {value}");
                    report.warnings.push(reason);
                }
            }
        }
    }
    let Some(wanted) = &settings.label else { return };
    for node in &report.nodes {
        let path = node.path.display();
        let mut label = [0; 256];
        let warning = match lgetxattr(&node.path, "security.selinux", &mut label) {
            Ok(length) => {
                let found = String::from_utf8_lossy(label.get(..length).unwrap_or_default());
                let found = found.trim_end_matches('\0').to_owned();
                if found == wanted.to_string() {
                    continue;
                }
                format!("{path}: SELinux label is {found}, expected {wanted}")
            }
            Err(error) => format!("{path}: SELinux label is unknown: {}", describe(&error.into())),
        };
        report.warnings.push(printable(&warning));
    }
}

/// Resets nodes without a remaining rule to the driver's default: 0600, root and root. udev resets the
/// mode, but not the owner. Owners that the removed rules did not set are left alone.
pub(super) fn give_back(root: &Sysroot, gave: &HostRules, report: &mut UdevReport) {
    let read = || Host::read(root, Needs::DEVICE_NODE);
    let left = HostRules::read(root);
    let accounts = Accounts::of(root);
    for region in &read().regions {
        let Some(owner) = &region.device.owner else { continue };
        let (asked, rules) =
            (Asked::of_rules(&gave.for_region(&region.name)), left.for_region(&region.name));
        let is_conditional = !rules.conditional.is_empty();
        let gave_user = asked.gives_user(&owner.user, &accounts) == Some(true);
        let gave_group = asked.gives_group(&owner.group, &accounts) == Some(true);
        let is_known = (owner.user == "root" || gave_user) && (owner.group == "root" || gave_group);
        if is_conditional || !is_known {
            continue;
        }
        let user = (rules.user.is_none() && gave_user).then_some(0);
        let group = (rules.group.is_none() && gave_group).then_some(0);
        let result = reset(&region.device.path, (user, group), rules.mode.is_none());
        report.warnings.extend(result.err().map(|error| error.to_string()));
    }
    report.nodes = nodes(&read(), &accounts, |region| {
        let rules = Asked::of_rules(&left.for_region(&region.name));
        let or_driver_s = |asked: Option<String>, own: &str| asked.or_else(|| Some(own.to_owned()));
        Asked {
            user: or_driver_s(rules.user, "root"),
            group: or_driver_s(rules.group, "root"),
            mode: or_driver_s(rules.mode, "0600"),
        }
    });
}

/// By name, so that the device is not opened.
fn reset(path: &Path, (user, group): (Option<u32>, Option<u32>), mode: bool) -> Result<(), Error> {
    let failed = |cause| Error::Doing { problem: path.display().to_string(), cause };
    if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_char_device() {
        return Ok(());
    }
    lchown(path, user, group).map_err(failed)?;
    if mode {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    Ok(())
}
