//! Checks of what libvirt and the kernel put before a device that QEMU may open by its mode.

use super::config::apparmor::Apparmor;
use super::config::qemu_conf::{self, ConfValues, QemuConf};
use super::facts::Facts;
use super::user::install_command;
use super::{LibvirtSchema, Outcome};
use crate::values::text::{SHOWN, excerpt, printable};

/// What every QEMU may open (`defaultDeviceACL`, libvirt `src/qemu/qemu_cgroup.c`).
const DEFAULT_ACL: [&str; 7] =
    ["/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx", "/dev/kvm"];

fn default_acl() -> impl Iterator<Item = String> {
    DEFAULT_ACL.into_iter().map(str::to_owned)
}

/// What QEMU may open under `SELinux`.
pub(super) const LABEL: &str = "system_u:object_r:svirt_image_t:s0";
const TYPE: &str = "svirt_image_t";

const LISTED: &str = "libvirt lets QEMU at the devices of each domain";

/// The settings; if they are not known, D10 does not pass, and the checks here are skipped.
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

/// The domains that give a region to QEMU past libvirt, which then does nothing for its device.
fn past_libvirt(facts: &Facts<'_>) -> Vec<String> {
    let is_egm = |argument: &str| {
        ["/egm", "/grace-egm/", "acpi-egm-memory"].iter().any(|word| argument.contains(word))
    };
    let definitions = facts.report.claims.definitions.iter();
    let past = definitions
        .filter(|it| it.domain.qemu_arguments.iter().any(|argument| is_egm(&argument.text)));
    past.map(|it| excerpt(&it.domain.name, SHOWN)).collect()
}

/// Whether libvirt sees to the devices of every domain itself; `None` where that is not known.
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
        return Outcome::passed("libvirt leaves the devices controller alone");
    }
    let by_libvirt = libvirt_does(facts) == Some(true);
    let devices = devices(facts);
    let Some(allowed) = conf.list("cgroup_device_acl") else {
        let past = past_libvirt(facts);
        if past.is_empty() {
            return Outcome::passed(format!("not set: {LISTED}"));
        }
        let message = format!(
            "cgroup_device_acl is not set, and {} gives a region to QEMU past libvirt",
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
    let message = format!("cgroup_device_acl is set, without {}", shown.join(", "));
    let all: Vec<_> = allowed.iter().cloned().chain(missing).collect();
    Outcome::warn(message).hint(acl(&all))
}

/// The setting with all of these.
fn acl(paths: &[String]) -> String {
    // Whole: a part of a path would be another path.
    let quoted: Vec<_> = paths.iter().map(|path| format!("\"{}\"", printable(path))).collect();
    format!("in {}: cgroup_device_acl = [ {} ]", qemu_conf::PATH, quoted.join(", "))
}

pub(super) fn namespaces(facts: &Facts<'_>) -> Outcome {
    let Some(conf) = settings(facts) else { return Outcome::skip("D10 failed") };
    if conf.list("namespaces").is_some_and(|list| !list.iter().any(|it| it == "mount")) {
        return Outcome::passed("switched off");
    }
    let past = past_libvirt(facts);
    if past.is_empty() {
        return match &facts.domains_unread {
            Some(why) => Outcome::skip(why.clone()),
            None => Outcome::passed(LISTED),
        };
    }
    // What is in the list of devices is made in every namespace (`qemuDomainPopulateDevices`,
    // libvirt `src/qemu/qemu_namespace.c`).
    let allowed = conf.list("cgroup_device_acl").unwrap_or_default();
    let missing: Vec<_> = devices(facts).into_iter().filter(|it| !allowed.contains(it)).collect();
    if missing.is_empty() {
        return Outcome::pass();
    }
    let message = format!(
        "{} gives a region to QEMU past libvirt: the namespace does not have its device",
        past.join(", ")
    );
    let kept = if allowed.is_empty() { default_acl().collect() } else { allowed.to_vec() };
    let all = [kept, missing].concat();
    Outcome::warn(message)
        .hint("<memory model='egm'> instead, as `egm-probe stanza` writes it")
        .hint(format!("or, {}", acl(&all)))
}

/// Why a security driver is of no concern to QEMU.
fn unconfined(facts: &Facts<'_>, driver: &str) -> Option<Outcome> {
    let Some(conf) = settings(facts) else { return Some(Outcome::skip("D10 failed")) };
    if conf.list("security_driver").is_some_and(|list| !list.iter().any(|it| it == driver)) {
        return Some(Outcome::passed("libvirt does not use it: security_driver"));
    }
    conf.is_off("security_default_confined")
        .then(|| Outcome::passed("no domain is confined: security_default_confined"))
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
    let shut: Vec<_> = devices(facts).into_iter().filter(|it| !profile.allows(it)).collect();
    if shut.is_empty() {
        return Outcome::pass();
    }
    // What is denied stays so, whatever libvirt adds.
    let denied: Vec<_> = shut.iter().filter(|it| profile.denies(it)).collect();
    if let Some(path) = denied.first() {
        let message = format!("a rule of libvirt's profile denies {}", excerpt(path, SHOWN));
        let find = "grep -rn 'deny.*/dev' /etc/apparmor.d/abstractions /etc/apparmor.d/local";
        return Outcome::warn(message).by_hand("find it, and take it out", [find]);
    }
    if libvirt_does(facts) == Some(true) {
        return Outcome::passed(LISTED);
    }
    if let Some(problem) = &profile.unread {
        return Outcome::skip(problem.clone());
    }
    let file = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
    let shut: Vec<_> = shut.iter().map(|path| excerpt(path, SHOWN)).collect();
    let message = format!(
        "no rule of libvirt's profile lets QEMU at {}; NVIDIA's libvirt adds one for each domain of \
         its own, another does not",
        shut.join(", ")
    );
    let commands = [
        format!("mkdir -p {}", file.trim_end_matches("/libvirt-qemu")),
        format!("printf '%s\\n' '/dev/egm[0-9]* rw,' >> {file}"),
    ];
    Outcome::warn(message).by_hand("let every QEMU of libvirt's at them", commands)
}

/// Regions that no rule gives a label to that QEMU may open, with the label that they get.
fn unlabelled(facts: &Facts<'_>) -> Vec<String> {
    let regions = facts.report.host.regions.iter();
    let wrong = regions.filter_map(|region| {
        let label = facts.rules.for_region(&region.name).label;
        let kind = label.as_ref().and_then(|given| given.value.split(':').nth(2));
        match (kind, label.as_ref()) {
            (Some(TYPE), _) => None,
            (_, Some(given)) => {
                Some(format!("{} gets {}", region.name, excerpt(&given.value, SHOWN)))
            }
            (_, None) => Some(format!("no rule labels {}", region.name)),
        }
    });
    wrong.collect()
}

/// Whether a rule must label the devices.
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
    let message = format!(
        "{first}; NVIDIA's libvirt labels the device of each domain of its own, another does not"
    );
    Outcome::warn(message).fix("have udev label the devices", [install_command(facts)])
}
