//! Checks of restrictions by libvirt and the kernel that apply in addition to a device's mode.

use super::config::apparmor::Apparmor;
use super::config::qemu_conf::{self, ConfValues, QemuConf};
use super::facts::Facts;
use super::user::install_command;
use super::{LibvirtSchema, Outcome};
use crate::values::text::{SHOWN, excerpt, printable};

/// The devices that every QEMU may open (`defaultDeviceACL`, libvirt `src/qemu/qemu_cgroup.c`).
const DEFAULT_ACL: [&str; 7] =
    ["/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx", "/dev/kvm"];

fn default_acl() -> impl Iterator<Item = String> {
    DEFAULT_ACL.into_iter().map(str::to_owned)
}

/// The `SELinux` label of devices that QEMU may open.
pub(super) const LABEL: &str = "system_u:object_r:svirt_image_t:s0";
const TYPE: &str = "svirt_image_t";

const LISTED: &str = "libvirt grants QEMU access to its domain's devices";

/// The settings; if they are unknown, D10 does not pass, and the checks here are skipped.
fn settings<'a>(facts: &'a Facts<'_>) -> Option<&'a ConfValues> {
    match &facts.conf {
        QemuConf::Read(settings) => Some(settings),
        QemuConf::Unreadable(_) | QemuConf::Malformed(_) => None,
    }
}

/// The paths of the regions' devices.
fn devices(facts: &Facts<'_>) -> Vec<String> {
    let regions = facts.report.host.regions.iter();
    regions.map(|region| region.device.path.to_string_lossy().into_owned()).collect()
}

/// The domains that bypass libvirt to give QEMU a region, for which libvirt does nothing.
fn past_libvirt(facts: &Facts<'_>) -> Vec<String> {
    let is_egm = |argument: &str| {
        ["/egm", "/grace-egm/", "acpi-egm-memory"].iter().any(|word| argument.contains(word))
    };
    let definitions = facts.report.claims.definitions.iter();
    let past = definitions
        .filter(|it| it.domain.qemu_arguments.iter().any(|argument| is_egm(&argument.text)));
    past.map(|it| excerpt(&it.domain.name, SHOWN)).collect()
}

/// Whether libvirt itself handles the devices of all domains; `None` if unknown.
fn libvirt_does(facts: &Facts<'_>) -> Option<bool> {
    if !past_libvirt(facts).is_empty() {
        return Some(false);
    }
    match &facts.installed.schema {
        Some(LibvirtSchema::Read { knows_egm, .. }) => Some(*knows_egm),
        _ => None,
    }
}

pub(super) fn cgroup(facts: &Facts<'_>) -> Outcome {
    let Some(conf) = settings(facts) else { return Outcome::skip("D10 failed") };
    if conf.list("cgroup_controllers").is_some_and(|it| !it.iter().any(|it| it == "devices")) {
        return Outcome::passed("libvirt does not use the devices controller");
    }
    let by_libvirt = libvirt_does(facts) == Some(true);
    let devices = devices(facts);
    let Some(allowed) = conf.list("cgroup_device_acl") else {
        let past = past_libvirt(facts);
        if past.is_empty() {
            return Outcome::passed(format!("not set; {LISTED}"));
        }
        let message = format!(
            "cgroup_device_acl: not set, but needed by domains with EGM in <qemu:arg>: {}",
            past.join(", ")
        );
        let all: Vec<_> = default_acl().chain(devices).collect();
        return Outcome::warn(message).hint(acl(&all));
    };
    let own = devices.into_iter().filter(|_| !by_libvirt);
    let missing: Vec<_> = default_acl().chain(own).filter(|path| !allowed.contains(path)).collect();
    if missing.is_empty() {
        return Outcome::pass();
    }
    let shown: Vec<_> = missing.iter().map(|path| excerpt(path, SHOWN)).collect();
    let message = format!("cgroup_device_acl: set, but lacks {}", shown.join(", "));
    let all: Vec<_> = allowed.iter().cloned().chain(missing).collect();
    Outcome::warn(message).hint(acl(&all))
}

/// The setting with these paths.
fn acl(paths: &[String]) -> String {
    // Not shortened: part of a path would be another path.
    let quoted: Vec<_> = paths.iter().map(|path| format!("\"{}\"", printable(path))).collect();
    format!("in {}, set cgroup_device_acl = [ {} ]", qemu_conf::PATH, quoted.join(", "))
}

pub(super) fn namespaces(facts: &Facts<'_>) -> Outcome {
    let Some(conf) = settings(facts) else { return Outcome::skip("D10 failed") };
    if conf.list("namespaces").is_some_and(|list| !list.iter().any(|it| it == "mount")) {
        return Outcome::passed("disabled");
    }
    let past = past_libvirt(facts);
    if past.is_empty() {
        return match &facts.domains_unread {
            Some(why) => Outcome::skip(why.clone()),
            None => Outcome::passed(LISTED),
        };
    }
    // Listed devices are created in every namespace (`qemuDomainPopulateDevices`, libvirt
    // `src/qemu/qemu_namespace.c`).
    let allowed = conf.list("cgroup_device_acl").unwrap_or_default();
    let missing: Vec<_> = devices(facts).into_iter().filter(|it| !allowed.contains(it)).collect();
    if missing.is_empty() {
        return Outcome::pass();
    }
    let message = format!(
        "devices missing in the mount namespace of domains with EGM in <qemu:arg>: {}",
        past.join(", ")
    );
    let kept = if allowed.is_empty() { default_acl().collect() } else { allowed.to_vec() };
    let all = [kept, missing].concat();
    Outcome::warn(message)
        .hint("use <memory model='egm'> instead (`egm-probe stanza` generates it)")
        .hint(format!("or {}", acl(&all)))
}

/// The reason why a security driver does not affect QEMU.
fn unconfined(facts: &Facts<'_>, driver: &str) -> Option<Outcome> {
    let Some(conf) = settings(facts) else { return Some(Outcome::skip("D10 failed")) };
    if conf.list("security_driver").is_some_and(|list| !list.iter().any(|it| it == driver)) {
        return Some(Outcome::passed("not used by libvirt (security_driver)"));
    }
    conf.is_off("security_default_confined")
        .then(|| Outcome::passed("domains are not confined (security_default_confined)"))
}

pub(super) fn apparmor(facts: &Facts<'_>) -> Outcome {
    let profile = match &facts.apparmor {
        Apparmor::Off => return Outcome::passed("not in use for QEMU"),
        Apparmor::Unknown(problem) => return Outcome::skip(problem.clone()),
        Apparmor::On(profile) => profile,
    };
    if let Some(outcome) = unconfined(facts, "apparmor") {
        return outcome;
    }
    let shut: Vec<_> = devices(facts)
        .into_iter()
        .filter(|it| !profile.allows(it, super::access::owns(facts, it)))
        .collect();
    if shut.is_empty() {
        return Outcome::pass();
    }
    // Deny rules take precedence over rules that libvirt adds.
    let denied: Vec<_> =
        shut.iter().filter(|it| profile.denies(it, super::access::owns(facts, it))).collect();
    if let Some(path) = denied.first() {
        let message = format!("libvirt's profile denies {}", excerpt(path, SHOWN));
        let find = "grep -rn 'deny.*/dev' /etc/apparmor.d/abstractions /etc/apparmor.d/local";
        return Outcome::warn(message).by_hand("find the rule and remove it", [find]);
    }
    if libvirt_does(facts) == Some(true) {
        return Outcome::passed(LISTED);
    }
    if let Some(problem) = &profile.unread {
        return Outcome::skip(problem.clone());
    }
    let file = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
    let limit = shut.first().and_then(|path| profile.limit(path));
    let shut: Vec<_> = shut.iter().map(|path| excerpt(path, SHOWN)).collect();
    let message = format!(
        "libvirt's profile {} {}; only NVIDIA's libvirt adds a rule for each of its domains",
        limit.unwrap_or("does not allow"),
        shut.join(", ")
    );
    let commands = [
        format!("mkdir -p {}", file.trim_end_matches("/libvirt-qemu")),
        format!("printf '%s\\n' '/dev/egm[0-9]* rw,' >> {file}"),
    ];
    Outcome::warn(message).by_hand("allow them for all of libvirt's QEMU processes", commands)
}

/// Regions without a udev rule for a label that QEMU may open, with their label.
fn unlabelled(facts: &Facts<'_>) -> Vec<String> {
    let regions = facts.report.host.regions.iter();
    let wrong = regions.filter_map(|region| {
        let label = facts.rules.as_ref().ok()?.for_region(&region.name).label;
        let kind = label.as_ref().and_then(|given| given.value.split(':').nth(2));
        match (kind, label.as_ref()) {
            (Some(TYPE), _) => None,
            (_, Some(given)) => Some(format!(
                "{}: udev rule sets label {}",
                region.name,
                excerpt(&given.value, SHOWN)
            )),
            (_, None) => Some(format!("{}: no udev rule sets a label", region.name)),
        }
    });
    wrong.collect()
}

/// Whether a rule must set the label.
pub(super) fn needs_label(facts: &Facts<'_>) -> bool {
    facts.selinux == Ok(true)
        && unconfined(facts, "selinux").is_none()
        && libvirt_does(facts) != Some(true)
}

pub(super) fn selinux(facts: &Facts<'_>) -> Outcome {
    match &facts.selinux {
        Ok(false) => return Outcome::passed("not enforcing"),
        Ok(true) => {}
        Err(problem) => return Outcome::skip(problem.clone()),
    }
    if let Some(outcome) = unconfined(facts, "selinux") {
        return outcome;
    }
    let wrong = unlabelled(facts);
    let Some(first) = wrong.first() else { return Outcome::pass() };
    if libvirt_does(facts) == Some(true) {
        return Outcome::passed(LISTED);
    }
    let message = format!("{first}; only NVIDIA's libvirt labels the devices of its domains");
    Outcome::warn(message).fix("label the devices with a udev rule", [install_command(facts)])
}
