//! Files of a host that is valid otherwise.

use std::fs;

use egm_probe::doctor::{Examine, examine};
use egm_probe::report::{Report, State};
use egm_probe::sysroot::Sysroot;
use tempfile::TempDir;

use super::host::{holds, with};

/// Parts of an input, separated by lines of `--`, for the first of these paths.
fn parts<'a>(data: &'a [u8], paths: &[&'static str]) -> Vec<(&'static str, &'a [u8])> {
    let mut rest = Some(data);
    let mut parts = Vec::new();
    for path in paths {
        let Some(text) = rest else { break };
        let end = text.windows(4).position(|bytes| bytes == b"\n--\n");
        let (part, after) = match end {
            Some(end) => (&text[..=end], Some(&text[end + 4..])),
            None => (text, None),
        };
        parts.push((*path, part));
        rest = after;
    }
    parts
}

fn state(report: &Report, region: &str) -> Option<State> {
    report.rows().find(|row| row.region.name.as_str() == region).map(|row| row.capacity.state)
}

/// The attributes of the region that is not in use, and of one of its GPUs.
pub fn attributes(data: &[u8]) {
    const GPU: [&str; 8] = [
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/numa_node",
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/local_cpulist",
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/vendor",
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/device",
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/class",
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/resource",
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/max_link_speed",
        "sys/devices/pci0018:00/0018:00:00.0/0018:01:00.0/max_link_width",
    ];
    const REGION: [&str; 4] = [
        "sys/devices/virtual/egm/egm5/gpu_devices",
        "sys/devices/virtual/egm/egm5/egm_size",
        "sys/devices/virtual/egm/egm5/dev",
        "sys/devices/virtual/egm/egm5/uevent",
    ];
    let report = holds(&with(&parts(data, &[&REGION[..], &GPU[..]].concat())), data);
    // Problems with one region do not affect the other one, which is in use.
    assert_eq!(state(&report, "egm4"), Some(State::InUse));
    assert!(state(&report, "egm5").is_some());
}

/// The attributes of the NUMA nodes.
pub fn distances(data: &[u8]) {
    const FILES: [&str; 7] = [
        "sys/devices/system/node/node0/distance",
        "sys/devices/system/node/node1/distance",
        "sys/devices/system/node/online",
        "sys/devices/system/node/has_cpu",
        "sys/devices/system/node/node0/cpulist",
        "sys/devices/system/node/node0/meminfo",
        "sys/devices/system/node/has_generic_initiator",
    ];
    let report = holds(&with(&parts(data, &FILES)), data);
    assert_eq!(state(&report, "egm4"), Some(State::InUse));
    assert_eq!(state(&report, "egm5"), Some(State::Free));
}

/// The mappings of the process that has the other region open.
pub fn maps(data: &[u8]) {
    let report = holds(&with(&[("proc/4242/maps", data)]), data);
    assert_eq!(state(&report, "egm4"), Some(State::InUse));
    let report = holds(&with(&[("proc/1/maps", data)]), data);
    assert_eq!(state(&report, "egm4"), Some(State::InUse));
}

/// The file of the leases.
pub fn leases(data: &[u8]) {
    let report = holds(&with(&[("run/egm-probe/leases.json", data)]), data);
    assert_eq!(state(&report, "egm4"), Some(State::InUse));
    assert!(matches!(state(&report, "egm5"), Some(State::Free | State::Reserved | State::Unknown)));
    // A truncated file never means that a region is not reserved.
    let is_cut = serde_json::from_slice::<serde_json::Value>(data).is_err_and(|it| it.is_eof());
    assert!(!is_cut || state(&report, "egm5") == Some(State::Unknown));
}

/// The manifest of a capture.
pub fn manifest(data: &[u8]) {
    let archive = super::host::archive(&[("capture.json", data)]);
    if let Ok(root) = Sysroot::from_tar(&archive[..]) {
        holds(&root, data);
    }
}

/// The configuration files that doctor reads.
pub fn setup(data: &[u8]) {
    const FILES: [&str; 6] = [
        "etc/udev/rules.d/60-egm.rules",
        "etc/libvirt/qemu.conf",
        "etc/apparmor.d/libvirt/TEMPLATE.qemu",
        "etc/apparmor.d/abstractions/libvirt-qemu",
        "etc/passwd",
        "etc/group",
    ];
    let root = with(&parts(data, &FILES));
    for examined in examine(&root, Examine::default()).examined {
        let outcome = &examined.outcome;
        let texts = outcome.message.iter().chain(outcome.hints.iter().map(|hint| &hint.text));
        for text in texts {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
}

/// The list of device nodes in a directory of plain files.
pub fn nodes(data: &[u8]) {
    thread_local! {
        static HOST: TempDir = {
            let host = tempfile::tempdir().unwrap();
            super::host::write(host.path());
            host
        };
    }
    // A base could be any directory of this machine.
    if data.split(|byte| *byte == b'\n').any(|line| line.trim_ascii().starts_with(b"base")) {
        return;
    }
    HOST.with(|host| {
        fs::write(host.path().join("nodes"), data).unwrap();
        match Sysroot::capture(host.path()) {
            Ok(root) => drop(holds(&root, data)),
            Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error:?}"),
        }
    });
}
