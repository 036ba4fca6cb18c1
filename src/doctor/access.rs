//! Checks of who may open the devices: permissions, and what libvirt and the kernel put before
//! them.

use super::facts::Facts;
use super::{Outcome, qemu_conf};
use crate::output::stanza::quote;
use crate::text::{SHOWN, excerpt};
use crate::udev_rules::{AccountName, Asked, Effective, FILE_NAME, Given, Node};

/// The users that distributions run QEMU as, and their groups.
const USERS: [(&str, &str); 2] = [("libvirt-qemu", "kvm"), ("qemu", "kvm")];

const INSTALL: &str = "egm-probe udev install";

/// What every QEMU may open (`defaultDeviceACL`, libvirt `src/qemu/qemu_cgroup.c`).
const DEFAULT_ACL: [&str; 7] =
    ["/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx", "/dev/kvm"];

/// Whom QEMU runs as.
struct User {
    name: String,
    uid: u32,
    /// All groups that it is in.
    groups: Vec<u32>,
}

/// The user by libvirt's configuration, else the distribution's; why there is none.
fn find_user(facts: &Facts<'_>) -> Result<User, String> {
    let (conf, accounts) = (&facts.conf, &facts.accounts);
    // libvirt takes a plus for the sign of a number.
    let number_or_name = |name: &str| name.strip_prefix('+').unwrap_or(name).to_owned();
    let configured = conf.text("user").map(number_or_name);
    let (name, default_group) = if let Some(name) = configured {
        (name, None)
    } else {
        let found = USERS.iter().find(|(user, _)| accounts.uid(user).is_some());
        let none = "no user libvirt-qemu or qemu, and none in qemu.conf: libvirt has no QEMU here";
        let (user, group) = found.ok_or(none)?;
        ((*user).to_owned(), Some(*group))
    };
    let shown = |name: &str| excerpt(name, SHOWN);
    let uid = accounts.uid(&name).ok_or_else(|| {
        format!("{} names the user {}, who is not there", qemu_conf::PATH, shown(&name))
    })?;
    let group = match conf.text("group").map(number_or_name) {
        Some(group) => Some(accounts.gid(&group).ok_or_else(|| {
            format!("{} names the group {}, which is not there", qemu_conf::PATH, shown(&group))
        })?),
        None => default_group
            .and_then(|group| accounts.gid(group))
            .or_else(|| accounts.primary_group(uid)),
    };
    let user_name = accounts.user(uid);
    let mut groups: Vec<u32> = group.into_iter().collect();
    groups.extend(accounts.groups_of(&user_name, group.unwrap_or(u32::MAX)));
    groups.retain(|group| *group != u32::MAX);
    groups.sort_unstable();
    groups.dedup();
    Ok(User { name: user_name, uid, groups })
}

pub(super) fn user(facts: &Facts<'_>) -> Outcome {
    match (find_user(facts), &facts.conf.warning) {
        (Ok(_), Some(warning)) => Outcome::warn(warning.to_string()),
        (Ok(user), None) => {
            let groups: Vec<_> =
                user.groups.iter().map(|group| facts.accounts.group(*group)).collect();
            Outcome::passed(excerpt(&format!("{}, in {}", user.name, groups.join(", ")), 200))
        }
        (Err(problem), _) => {
            let hint = "install libvirt's QEMU driver, or correct user and group there";
            Outcome::fail(problem).by_hand(hint, &["apt install libvirt-daemon-system".to_owned()])
        }
    }
}

pub(super) fn permission(facts: &Facts<'_>) -> Outcome {
    let Ok(user) = find_user(facts) else { return Outcome::skip("after D10") };
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
        return Outcome::fail(format!("{name} may not open {}", shut.join(", ")))
            .hint("have udev give the devices to QEMU's group", &[install(facts, &user)]);
    }
    if !missing.is_empty() {
        let message = format!("{}: no device node, or not the region's", missing.join(", "));
        return Outcome::fail(message).hint(
            "have udev make them",
            &["udevadm trigger --action=add --subsystem-match=egm".to_owned()],
        );
    }
    Outcome::pass()
}

/// For the group that QEMU is in, where that is not the one that is the default.
fn install(facts: &Facts<'_>, user: &User) -> String {
    let is_in_default = facts.accounts.gid("kvm").is_some_and(|group| user.groups.contains(&group));
    match user.groups.first() {
        Some(group) if !is_in_default => {
            let name = facts.accounts.group(*group);
            // A name that no rule can have has a number that it can.
            let name =
                name.parse::<AccountName>().map_or(group.to_string(), |name| name.to_string());
            format!("{INSTALL} --group {name}")
        }
        _ => INSTALL.to_owned(),
    }
}

pub(super) fn rules(facts: &Facts<'_>) -> Outcome {
    let rules = &facts.rules;
    if let Some(shadowed) = rules.shadowed.iter().find(|shadowed| shadowed.masked) {
        let message = format!("{} switches {} off", shadowed.by.display(), shadowed.path.display());
        return Outcome::warn(message)
            .by_hand("remove it", &[format!("rm {}", quote(&shadowed.by.to_string_lossy()))]);
    }
    if rules.is_empty() {
        let message = "no rule names EGM devices: what permission they have now does not last";
        return Outcome::warn(message).hint("write one", &[INSTALL.to_owned()]);
    }
    for region in &facts.report.host.regions {
        let effective = rules.for_region(&region.name);
        if let Some(problem) = undone(&effective) {
            let text = format!("take the later rule out, or give {FILE_NAME} a later name");
            return Outcome::warn(problem).hint(text, &[]);
        }
        if let Some(place) = effective.conditional.first() {
            let message = format!(
                "{}:{} gives {} another permission under conditions of its own",
                excerpt(&place.path.to_string_lossy(), 200),
                place.line,
                region.name
            );
            return Outcome::warn(message)
                .by_hand("see what it does", &["egm-probe udev status".to_owned()]);
        }
        let node = Node::of(region, Asked::of_rules(&effective), &facts.accounts);
        if node.right == Some(false) {
            let message = format!("{} is not as the rules say", region.name);
            let trigger = "udevadm trigger --action=change --subsystem-match=egm";
            return Outcome::warn(message)
                .by_hand("see what differs", &["egm-probe udev status".to_owned()])
                .hint("have udev apply them", &[trigger.to_owned()]);
        }
    }
    match rules.warnings.first() {
        Some(warning) => Outcome::warn(warning.to_string()),
        None => Outcome::pass(),
    }
}

/// Where the rule of this program does not have the last word.
fn undone(effective: &Effective) -> Option<String> {
    let is_ours = |given: &Given| {
        given.overridden.iter().find(|(place, _)| place.path.ends_with(FILE_NAME)).cloned()
    };
    effective.permission().find_map(|given| {
        let (place, value) = is_ours(given)?;
        let shown = |path: &std::path::Path| excerpt(&path.to_string_lossy(), 200);
        Some(format!(
            "{}:{} makes {} of the {} in {}",
            shown(&given.place.path),
            given.place.line,
            excerpt(&given.value, SHOWN),
            excerpt(&value, SHOWN),
            shown(&place.path)
        ))
    })
}

pub(super) fn cgroup(facts: &Facts<'_>) -> Outcome {
    if let Some(unread) = unread(facts) {
        return unread;
    }
    if facts.conf.list("cgroup_controllers").is_some_and(|it| !it.iter().any(|it| it == "devices"))
    {
        return Outcome::passed("libvirt leaves the devices controller alone");
    }
    let Some(allowed) = facts.conf.list("cgroup_device_acl") else {
        return Outcome::passed("not set: libvirt's own list, and the devices of the domain");
    };
    let regions = facts.report.host.regions.iter();
    let devices = regions.map(|region| region.device.path.to_string_lossy().into_owned());
    let wanted = DEFAULT_ACL.iter().map(|path| (*path).to_owned()).chain(devices);
    let missing: Vec<_> = wanted.filter(|path| !allowed.contains(path)).collect();
    if missing.is_empty() {
        return Outcome::pass();
    }
    let missing: Vec<_> = missing.iter().map(|path| excerpt(path, SHOWN)).collect();
    let message = format!("cgroup_device_acl is set, without {}", missing.join(", "));
    let text = format!(
        "in {}, beside what is there: cgroup_device_acl = [ {} ]",
        qemu_conf::PATH,
        missing.iter().map(|path| format!("\"{path}\"")).collect::<Vec<_>>().join(", ")
    );
    Outcome::warn(message).hint(text, &[])
}

pub(super) fn namespaces(facts: &Facts<'_>) -> Outcome {
    if let Some(unread) = unread(facts) {
        return unread;
    }
    if facts.conf.list("namespaces").is_some_and(|list| !list.iter().any(|it| it == "mount")) {
        return Outcome::passed("switched off");
    }
    let gives_past = |argument: &str| argument.contains("/dev/egm");
    let definitions = facts.report.claims.definitions.iter();
    let past: Vec<_> = definitions
        .filter(|it| it.domain.qemu_arguments.iter().any(|argument| gives_past(&argument.text)))
        .map(|it| excerpt(&it.domain.name, SHOWN))
        .collect();
    match &facts.domains_unread {
        Some(why) if past.is_empty() => return Outcome::skip(why.clone()),
        None if past.is_empty() => return Outcome::pass(),
        _ => {}
    }
    let message = format!(
        "{} gives a region to QEMU past libvirt: the namespace does not have its device",
        past.join(", ")
    );
    Outcome::warn(message)
        .hint("<memory model='egm'> instead, as `egm-probe stanza` writes it", &[])
        .hint(format!("or namespaces = [ ] in {}", qemu_conf::PATH), &[])
}

/// Of a file that cannot be read nothing is known that may be set in it.
fn unread(facts: &Facts<'_>) -> Option<Outcome> {
    facts.conf.warning.as_ref().map(|warning| Outcome::skip(warning.to_string()))
}

/// Whether libvirt is told to leave a security driver alone.
fn is_off(facts: &Facts<'_>, driver: &str) -> bool {
    facts.conf.list("security_driver").is_some_and(|list| !list.iter().any(|it| it == driver))
}

pub(super) fn apparmor(facts: &Facts<'_>) -> Outcome {
    let security = &facts.security;
    if !security.apparmor {
        return Outcome::passed("not in use for QEMU");
    }
    if is_off(facts, "apparmor") {
        return Outcome::passed("libvirt does not use it: security_driver");
    }
    if security.apparmor_allows {
        return Outcome::pass();
    }
    if let Some(problem) = &security.apparmor_unread {
        return Outcome::warn(problem.clone());
    }
    let file = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
    let message = "no rule of libvirt's profile lets QEMU at /dev/egm*; NVIDIA's libvirt adds one for \
                   each domain, another does not";
    Outcome::warn(message).hint(
        "allow it",
        &[
            format!("mkdir -p {}", file.trim_end_matches("/libvirt-qemu")),
            format!("printf '%s\\n' '/dev/egm* rw,' >> {file}"),
        ],
    )
}

pub(super) fn selinux(facts: &Facts<'_>) -> Outcome {
    if !facts.security.selinux {
        return Outcome::passed("not enforcing");
    }
    if is_off(facts, "selinux") {
        return Outcome::passed("libvirt does not use it: security_driver");
    }
    let mut regions = facts.report.host.regions.iter();
    let unlabelled = regions.find(|region| facts.rules.for_region(&region.name).label.is_none());
    let Some(region) = unlabelled else { return Outcome::pass() };
    let message = format!(
        "no rule labels {}; NVIDIA's libvirt does when a domain starts, another does not",
        region.name
    );
    let label = "--selinux system_u:object_r:svirt_image_t:s0";
    Outcome::warn(message).hint("have udev label the devices", &[format!("{INSTALL} {label}")])
}
