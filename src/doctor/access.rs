//! Checks of whom QEMU runs as, and whether the devices are open to it.

use super::Outcome;
use super::facts::Facts;
use super::user::{NoUser, User, install_command};
use crate::udev_rules::{Asked, Effective, FILE_NAME, RegionNode, RulePlace};
use crate::values::shell::quote;
use crate::values::text::{SHOWN, excerpt, shown};

const STATUS: &str = "egm-probe udev status";
const TRIGGER: &str = "udevadm trigger --action=change --subsystem-match=egm";

pub(super) fn user(facts: &Facts<'_>) -> Outcome {
    match User::find(facts) {
        Ok(user) => {
            let groups = user.groups.iter().map(|group| facts.accounts.group(*group));
            let groups = groups.collect::<Vec<_>>().join(", ");
            Outcome::passed(excerpt(&format!("{}, in {groups}", user.name), 200))
        }
        Err(NoUser::Unknown(problem)) => {
            Outcome::skip(problem).by_hand("ask as root", ["sudo egm-probe doctor"])
        }
        Err(NoUser::None(problem)) => Outcome::fail(problem).hint(
            "install libvirt's QEMU driver (libvirt-daemon-system, libvirt-daemon-kvm), or correct \
             its /etc/libvirt/qemu.conf",
        ),
    }
}

pub(super) fn permission(facts: &Facts<'_>) -> Outcome {
    let Ok(user) = User::find(facts) else { return Outcome::skip("D10 failed") };
    let mut shut = Vec::new();
    let mut missing = Vec::new();
    for region in &facts.report.host.regions {
        let path = excerpt(&region.device.path.to_string_lossy(), SHOWN);
        let Some(owner) = &region.device.owner else {
            missing.push(path);
            continue;
        };
        let has = |shift: u32| owner.mode >> shift & 0o6 == 0o6;
        let is_owner = facts.accounts.uid(&owner.user) == Some(user.uid);
        let group = facts.accounts.gid(&owner.group);
        let is_member = group.is_some_and(|group| user.groups.contains(&group));
        // The first class that applies counts, also where it gives less (path_resolution(7)).
        let may = if is_owner {
            has(6)
        } else if is_member {
            has(3)
        } else {
            has(0)
        };
        if !may {
            let owner = format!("{:04o} {}:{}", owner.mode, owner.user, owner.group);
            shut.push(format!("{path} ({})", excerpt(&owner, SHOWN)));
        }
    }
    let name = excerpt(&user.name, SHOWN);
    if !shut.is_empty() {
        let outcome = Outcome::fail(format!("{name} may not open {}", shut.join(", ")));
        if let Some(place) = in_the_way(facts) {
            let text = format!("first see to {place}: what udev install writes would not count");
            return outcome.by_hand(text, [STATUS]);
        }
        let text = "have udev give the devices to QEMU's group";
        return outcome.fix(text, [install_command(facts)]);
    }
    if !missing.is_empty() {
        let message = format!("{}: no device node, or not the region's", missing.join(", "));
        return Outcome::fail(message).by_hand("make them as the driver does", make_nodes(facts));
    }
    Outcome::pass()
}

/// A rule or a file that would have the last word over what is installed.
fn in_the_way(facts: &Facts<'_>) -> Option<String> {
    if let Some(masked) = facts.rules.shadowed.iter().find(|shadowed| shadowed.masked) {
        return Some(excerpt(&masked.by.to_string_lossy(), 200));
    }
    let is_later = |place: &RulePlace| place.path.file_name().is_some_and(|name| name > FILE_NAME);
    facts.report.host.regions.iter().find_map(|region| {
        let effective = facts.rules.for_region(&region.name);
        let mut given = effective.given().filter(|(name, _)| *name != "label");
        let place = given.find(|(_, given)| given.is_final || is_later(&given.place));
        place.map(|(_, given)| given.place.to_string())
    })
}

/// udevd makes no device nodes: that is the kernel's part.
fn make_nodes(facts: &Facts<'_>) -> Vec<String> {
    let regions = facts.report.host.regions.iter();
    let missing = regions.filter(|region| region.device.owner.is_none());
    let commands = missing.filter_map(|region| {
        let (path, number) = (region.device.path.to_str()?, region.device.number?);
        let path = quote(&excerpt(path, SHOWN));
        Some(format!("rm -f {path} && mknod -m 0600 {path} c {} {}", number.major, number.minor))
    });
    commands.chain([TRIGGER.to_owned()]).collect()
}

pub(super) fn rules(facts: &Facts<'_>) -> Outcome {
    let rules = &facts.rules;
    if let Some(shadowed) = rules.shadowed.iter().find(|shadowed| shadowed.masked) {
        let message = format!("{} switches {} off", shown(&shadowed.by), shown(&shadowed.path));
        return Outcome::warn(message)
            .by_hand("remove it", [format!("rm {}", quote(&shadowed.by.to_string_lossy()))]);
    }
    if rules.is_empty() {
        let message = "no rule names EGM devices: what permission they have now does not last";
        return Outcome::warn(message).fix("write one", [install_command(facts)]);
    }
    for region in &facts.report.host.regions {
        let effective = rules.for_region(&region.name);
        if let Some(problem) = undone(&effective) {
            return Outcome::warn(problem)
                .by_hand("see which rules there are, and take that one out", [STATUS]);
        }
        if let Some(place) = effective.conditional.first() {
            let name = &region.name;
            let message =
                format!("{place} gives {name} another permission under conditions of its own");
            return Outcome::warn(message).by_hand("see what it does", [STATUS]);
        }
        if effective.mode.is_none() || (effective.group.is_none() && effective.user.is_none()) {
            let hidden = rules.shadowed.first().map_or(String::new(), |shadowed| {
                format!(" ({} takes the place of {})", shown(&shadowed.by), shown(&shadowed.path))
            });
            let name = &region.name;
            let message =
                format!("no rule gives {name} to QEMU: its permission does not last{hidden}");
            return Outcome::warn(message).fix("write one", [install_command(facts)]);
        }
        let node = RegionNode::of(region, Asked::of_rules(&effective), &facts.accounts);
        if node.right == Some(false) {
            let message = format!("{} is not as the rules say", region.name);
            return Outcome::warn(message)
                .by_hand("see what differs", [STATUS])
                .fix("have udev apply them", [TRIGGER]);
        }
    }
    match rules.warnings.first() {
        Some(warning) => Outcome::warn(warning.to_string()),
        None => Outcome::pass(),
    }
}

/// Where the rule of this program does not have the last word.
fn undone(effective: &Effective) -> Option<String> {
    effective.given().find_map(|(name, given)| {
        let other = given.others.iter().find(|other| other.place.path.ends_with(FILE_NAME))?;
        Some(format!(
            "{} gives the {name} {}, not the {} of {}",
            given.place,
            excerpt(&given.value, SHOWN),
            excerpt(&other.value, SHOWN),
            other.place
        ))
    })
}
