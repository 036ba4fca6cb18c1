//! Checks of QEMU's user and its access to the devices.

use super::config::qemu_conf::QemuConf;
use super::facts::Facts;
use super::user::{NoUser, User, install_command};
use super::{Consumer, Outcome, first_of, kubernetes};
use crate::host::{Access, Region};
use crate::udev_rules::{Asked, Effective, FILE_NAME, Given, RegionNode, RulePlace, open_to_all};
use crate::values::numbers::decimal;
use crate::values::shell::quote;
use crate::values::text::{SHOWN, excerpt, shown};
use crate::warning::Warning;

/// The group of the rules that `udev install` writes.
pub(super) const KVM: &str = "kvm";

const STATUS: &str = "egm-probe udev status";
const INSTALL: &str = "install the rules";
const RELOAD: &str = "udevadm control --reload";
const SETTLE: &str = "udevadm settle";
const TRIGGER: &str = "udevadm trigger --action=change --subsystem-match=egm";

pub(super) fn user(facts: &Facts<'_>) -> Outcome {
    match User::find(facts) {
        Ok(user) => {
            let groups = user.groups.iter().map(|group| facts.accounts.group(*group));
            let groups = groups.collect::<Vec<_>>().join(", ");
            Outcome::passed(excerpt(&format!("{}, in {groups}", user.name), 200))
        }
        Err(NoUser::Unknown(problem)) => {
            Outcome::skip(problem).by_hand("run as root", ["sudo egm-probe doctor"])
        }
        Err(NoUser::None(problem)) if matches!(facts.conf, QemuConf::Malformed(_)) => {
            Outcome::fail(problem).hint("correct this line of /etc/libvirt/qemu.conf")
        }
        Err(NoUser::None(problem)) => Outcome::fail(problem).hint(
            "install libvirt's QEMU driver (libvirt-daemon-system, libvirt-daemon-kvm) or correct \
             /etc/libvirt/qemu.conf",
        ),
    }
}

/// Whether QEMU's user owns the region's device at a path.
pub(super) fn owns(facts: &Facts<'_>, path: &str) -> bool {
    let mut regions = facts.report.host.regions.iter();
    let region = regions.find(|region| region.device.path.to_string_lossy() == path);
    let owner = region.and_then(|region| region.device.owner.as_ref());
    let uid = owner.and_then(|owner| facts.accounts.uid(&owner.user));
    uid.is_some() && uid == User::find(facts).ok().map(|user| user.uid)
}

pub(super) fn permission(facts: &Facts<'_>) -> Outcome {
    kubernetes::unless_owned_by_pods(facts, || permission_on_host(facts))
}

fn permission_on_host(facts: &Facts<'_>) -> Outcome {
    let user = match User::find(facts) {
        Ok(user) => user,
        Err(NoUser::Unknown(problem) | NoUser::None(problem)) => return Outcome::skip(problem),
    };
    let mut shut = Vec::new();
    let (mut by_acl, mut acls) = (Vec::new(), Vec::new());
    let mut missing = Vec::new();
    for region in &facts.report.host.regions {
        let path = excerpt(&region.device.path.to_string_lossy(), SHOWN);
        let Some(owner) = &region.device.owner else {
            missing.push(path);
            continue;
        };
        let node = format!("{path} ({})", excerpt(&owner.to_string(), SHOWN));
        match owner.access(user.uid, &user.groups, facts.accounts) {
            None => {
                // A udev rule does not remove the entries of an ACL.
                acls.extend(owner.acl.as_ref().map(|_| format!("setfacl -b {}", quote(&path))));
                shut.push(node);
            }
            Some(Access::Acl) => {
                acls.push(format!("setfacl -b {}", quote(&path)));
                by_acl.push(node);
            }
            Some(Access::Mode) => {}
        }
    }
    let name = excerpt(&user.name, SHOWN);
    if !shut.is_empty() {
        let mut outcome = Outcome::fail(format!("{name} has no access to {}", shut.join(", ")));
        if facts.consumer == Consumer::Kubernetes {
            outcome = outcome.by_hand::<&str>(kubernetes::OWNERSHIP, []);
        }
        let outcome = with_rule(facts, outcome);
        return if acls.is_empty() { outcome } else { outcome.by_hand("remove the ACL", acls) };
    }
    if !missing.is_empty() && is_in_container(facts) {
        return in_container(facts, &missing);
    }
    if !missing.is_empty() {
        let message = format!("{}: device node missing or wrong", missing.join(", "));
        return Outcome::fail(message).by_hand("create them as the driver does", make_nodes(facts));
    }
    let open = open_to_all(&facts.report.host.regions);
    if !open.is_empty() {
        let open = open.join(", ");
        let message = format!("every user may open {open}, and opening it clears the region");
        return with_rule(facts, Outcome::warn(message));
    }
    if !by_acl.is_empty() {
        let message = format!(
            "{name} may open {} by an ACL, which does not last: the next udev event sets the mode, and \
             with it the ACL's mask",
            by_acl.join(", ")
        );
        let outcome = with_rule(facts, Outcome::warn(message));
        return outcome.by_hand("then remove the ACL", acls);
    }
    Outcome::pass()
}

/// A container that was not given these regions.
fn in_container(facts: &Facts<'_>, missing: &[String]) -> Outcome {
    let given = facts.report.host.regions.iter().filter(|region| region.device.owner.is_some());
    let given: Vec<_> = given.map(|region| region.name.as_str()).collect();
    let missing = missing.join(", ");
    let outcome = match given[..] {
        [] => Outcome::fail(format!("this container has no region; it lacks {missing}")),
        _ => Outcome::warn(format!("this container has {}; it lacks {missing}", given.join(", "))),
    };
    outcome.hint(
        "a container gets a region only with all of its GPUs: check its request, and run doctor on \
         the host",
    )
}

fn is_in_container(facts: &Facts<'_>) -> bool {
    let mut warnings = facts.report.host.regions.iter().filter_map(Region::node_problem);
    warnings.any(|it| matches!(it, Warning::DeviceNodeMissing { in_container: true, .. }))
}

/// Adds the remedy for permissions that are wrong.
fn with_rule(facts: &Facts<'_>, outcome: Outcome) -> Outcome {
    if let Some(place) = in_the_way(facts) {
        let text = format!("fix {place} first; it overrides what udev install writes");
        return outcome.by_hand(text, [STATUS]);
    }
    let or = if outcome.hints.is_empty() { "" } else { "or " };
    install(facts, outcome, format!("{or}give QEMU's group access with a udev rule"))
}

/// Adds the command that installs the rules. The group of QEMU in pods may be that of other users on
/// the host, so it is not a part of a plan for Kubernetes.
fn install(facts: &Facts<'_>, outcome: Outcome, text: String) -> Outcome {
    let commands = [install_command(facts)];
    if facts.consumer == Consumer::Kubernetes {
        let id = kubernetes::QEMU;
        let text = format!(
            "{text}; {id} is QEMU's group in KubeVirt's pods, and may be another group on this host"
        );
        return outcome.by_hand(text, commands);
    }
    outcome.fix(text, commands)
}

/// A rule or file that would override the installed rules.
fn in_the_way(facts: &Facts<'_>) -> Option<String> {
    let rules = facts.rules.as_ref().ok()?;
    if let Some(masked) = rules.shadowed.iter().find(|shadowed| shadowed.masked) {
        return Some(excerpt(&masked.by.to_string_lossy(), 200));
    }
    let is_later = |place: &RulePlace| place.path.file_name().is_some_and(|name| name > FILE_NAME);
    facts.report.host.regions.iter().find_map(|region| {
        let effective = rules.for_region(&region.name);
        let mut given = effective.given().filter(|(name, _)| *name != "label");
        let place = given.find(|(_, given)| given.is_final || is_later(&given.place));
        place.map(|(_, given)| given.place.to_string())
    })
}

/// Commands to create device nodes: the kernel does this, not udevd.
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
    kubernetes::unless_owned_by_pods(facts, || rules_on_host(facts))
}

fn rules_on_host(facts: &Facts<'_>) -> Outcome {
    let rules = match &facts.rules {
        Ok(rules) => rules,
        Err(problem) => return Outcome::skip(problem.clone()),
    };
    if let Some(shadowed) = rules.shadowed.iter().find(|shadowed| shadowed.masked) {
        let message = format!("{} disables {}", shown(&shadowed.by), shown(&shadowed.path));
        return Outcome::warn(message)
            .by_hand("remove it", [format!("rm {}", quote(&shadowed.by.to_string_lossy()))]);
    }
    let regions = || facts.report.host.regions.iter().map(|region| &region.name);
    let effective = |name| rules.for_region(name);
    let user = User::find(facts).ok();
    let gives_access = |effective: &Effective| {
        let gives = |user: &User| effective.gives_access_to(user.uid, &user.groups, facts.accounts);
        effective.gives_access() || user.as_ref().is_some_and(gives)
    };
    let has_none = |name| {
        let effective = effective(name);
        effective.given().next().is_none() && !gives_access(&effective)
    };
    if rules.is_empty() && regions().all(has_none) {
        let message = "no udev rule for EGM devices; current permissions are not persistent";
        return install(facts, Outcome::warn(message), INSTALL.into());
    }
    let problems: Vec<_> = rules.problems(regions()).iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        let outcome =
            Outcome::warn(first_of(&problems)).by_hand("correct or remove the line", [STATUS]);
        if regions().all(|name| gives_access(&effective(name))) {
            return outcome;
        }
        return install(facts, outcome, INSTALL.into());
    }
    for region in &facts.report.host.regions {
        let effective = effective(&region.name);
        if let Some(problem) = undone(&effective) {
            return Outcome::warn(problem)
                .by_hand("list the rules, and remove the overriding one", [STATUS]);
        }
        if let Some(place) = effective.conditional.first() {
            let name = &region.name;
            let message = format!("{place}: conditionally sets other permissions for {name}");
            return Outcome::warn(message).by_hand("show its effect", [STATUS]);
        }
        if !gives_access(&effective) {
            let hidden = rules.shadowed.first().map_or(String::new(), |shadowed| {
                format!(" ({} hides {})", shown(&shadowed.by), shown(&shadowed.path))
            });
            let name = &region.name;
            let message = format!(
                "no udev rule gives QEMU access to {name}; current permissions are not persistent{hidden}"
            );
            return install(facts, Outcome::warn(message), INSTALL.into());
        }
        if let Some(problem) = missing_account(&effective, facts) {
            let outcome = Outcome::warn(problem).by_hand("correct the line", [STATUS]);
            return install(facts, outcome, INSTALL.into());
        }
        let node = RegionNode::of(region, Asked::of_rules(&effective), facts.accounts);
        if node.right == Some(false) {
            let message = format!("{}: permissions do not match the rules", region.name);
            return Outcome::warn(message).by_hand("show the differences", [STATUS]).fix(
                "apply the rules, which udevd may not have read yet",
                [RELOAD, TRIGGER, SETTLE],
            );
        }
    }
    match rules.warnings.first() {
        Some(warning) => Outcome::warn(warning.to_string()),
        None => Outcome::pass(),
    }
}

/// The reason if a rule names a user or group that does not exist.
fn missing_account(effective: &Effective, facts: &Facts<'_>) -> Option<String> {
    let accounts = facts.accounts;
    let (users, groups) = accounts.are_known();
    effective.given().find_map(|(name, Given { value, place, .. })| {
        let is_missing = match name {
            "user" => users && accounts.uid(value).is_none(),
            "group" => groups && accounts.gid(value).is_none(),
            _ => false,
        };
        // udev accepts any number.
        let is_name = decimal::<u32>(value).is_none() && !value.contains(['$', '%']);
        let shown = excerpt(value, SHOWN);
        (is_missing && is_name)
            .then(|| format!("{place}: {name} {shown} does not exist; udev ignores it"))
    })
}

/// The reason if a rule of this program does not take effect.
fn undone(effective: &Effective) -> Option<String> {
    effective.given().find_map(|(name, given)| {
        let other = given.others.iter().find(|other| other.place.path.ends_with(FILE_NAME))?;
        Some(format!(
            "{}: sets {name} {}, overriding {} from {}",
            given.place,
            excerpt(&given.value, SHOWN),
            excerpt(&other.value, SHOWN),
            other.place
        ))
    })
}
