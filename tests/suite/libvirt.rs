//! Output checked by other programs: xmllint with libvirt's own schema, virsh, QEMU.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::xmllint::{can_run, validates_with};
use crate::{stanza, support};

/// A domain for libvirt 9, whose parser requires `slots` with `<maxMemory>`; later versions accept
/// both forms.
fn for_libvirt_9(domain: &str) -> String {
    domain.replace("<maxMemory unit=", "<maxMemory slots='1' unit=")
}

/// Whether xmllint accepts a domain by the installed libvirt's schema with the extension.
pub(crate) fn validates(file: &Path) -> bool {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/egm-domain.rng");
    validates_with(&schema, file)
}

fn stanza(machine: &str, args: &[&str]) -> String {
    let output = stanza::stanza(machine, args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn minimal() -> String {
    support::fixtures().join("domains/minimal.xml").to_str().unwrap().to_owned()
}

const WHOLE: [&str; 4] = ["--all", "--with", "hostdev,numa,machine", "--domain"];

#[test]
fn a_complete_domain_conforms_to_libvirts_schema() {
    if !can_run(&["xmllint"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.xml");
    for machine in ["gb200-full-gpu-list", "gh200-full", "gh200-quad", "one-domain", "wide-domain"]
    {
        let domain = stanza(machine, &[&WHOLE[..], &[&minimal()]].concat());
        fs::write(&file, &domain).unwrap();
        assert!(validates(&file), "{machine}:\n{domain}");
        let domain = stanza(machine, &[&WHOLE[..], &[&minimal(), "--gpu-cells", "8"]].concat());
        fs::write(&file, &domain).unwrap();
        assert!(validates(&file), "{machine}:\n{domain}");
    }
    // Invalid domains are refused.
    let good = stanza("gh200-full", &[&WHOLE[..], &[&minimal()]].concat());
    for (part, bad) in [
        ("<pciDev>ua-hostdev0</pciDev>", ""),
        ("<path>/dev/egm4</path>", ""),
        ("<path>/dev/egm4</path>", "<path>egm4</path>"),
        ("<node>0</node>", "<node>x</node>"),
        ("<node>0</node>", "<node>0</node><node>0</node>"),
        ("access='shared'", "access='other'"),
        ("pciDev>", "pcidev>"),
        ("model='egm'", "model='dimm'"),
    ] {
        assert!(good.contains(part), "{part}");
        fs::write(&file, good.replace(part, bad)).unwrap();
        assert!(!validates(&file), "{part} made {bad:?} was taken");
    }
}

#[test]
fn virsh_defines_the_domain_without_its_egm_devices() {
    if !can_run(&["virsh"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.xml");
    let domain = stanza("gb200-full-gpu-list", &[&WHOLE[..], &[&minimal()]].concat());
    let domain = for_libvirt_9(&domain);
    let (mut without, mut rest) = (String::new(), domain.as_str());
    let mut left_out = 0;
    while let Some((before, after)) = rest.split_once("    <memory model='egm'") {
        without.push_str(before);
        rest = after.split_once("</memory>\n").unwrap().1;
        left_out += 1;
    }
    without.push_str(rest);
    assert_eq!(left_out, 4);
    fs::write(&file, without.replace("type='kvm'", "type='test'")).unwrap();
    let commands = format!("define {}; dumpxml vm1", file.display());
    let output = Command::new("virsh").args(["-c", "test:///default", &commands]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let defined = String::from_utf8(output.stdout).unwrap();
    // libvirt writes these parts as they were given.
    for part in [
        between(&domain, "<memoryBacking>", "</memoryBacking>"),
        between(&domain, "<numa>", "</numa>"),
        between(&domain, "    <hostdev", "\n    <memballoon"),
        "<memory unit='KiB'>937426944</memory>",
    ] {
        assert!(defined.contains(part), "{part}\nis not in what libvirt writes:\n{defined}");
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text.find(start).unwrap();
    let length = text[from..].find(end).unwrap();
    &text[from..from + length]
}

/// QEMU's description of its memory, or its errors. Files of a directory replace the devices; EGM,
/// generic initiators and GPUs are omitted.
pub(crate) fn run_qemu<'a>(
    arguments: impl Iterator<Item = (&'a str, &'a str)>,
    devices: &Path,
) -> Result<String, String> {
    let mut command = Command::new("qemu-system-aarch64");
    command.args(["-machine", "virt", "-cpu", "cortex-a57", "-display", "none"]);
    command.args(["-nodefaults", "-S", "-monitor", "stdio"]);
    for (option, value) in arguments {
        if option != "-device" && !value.contains("acpi-") {
            let value = value.replace("/dev/", devices.join("").to_str().unwrap());
            command.args([option, &value]);
        }
    }
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // QEMU does not read its input if it refuses its arguments.
    let _ = child.stdin.take().unwrap().write_all(b"info memdev\ninfo numa\nquit\n");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() || !stderr.is_empty() {
        return Err(stderr);
    }
    Ok(String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}

/// The memory and NUMA part of the arguments, with files in place of the devices.
#[test]
fn qemu_starts_with_the_memory_of_its_arguments() {
    if !can_run(&["qemu-system-aarch64"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for cells in [&[][..], &["--with", "hostdev", "--gpu-cells", "2"]] {
        let args = ["--all", "--with", "numa", "--vcpus", "4", "--format", "qemu-args"];
        let lines = stanza("gb200-gpu-list", &[&args[..], cells].concat());
        let words: Vec<_> = lines.lines().collect();
        let pairs = words.chunks(2).map(|pair| (pair[0], pair[1]));
        let said = run_qemu(pairs, directory.path()).unwrap();
        for part in [
            "memory backend: memegm0",
            "memory backend: memegm1",
            "node 0 cpus: 0 1\nnode 0 size: 64 MB",
            "node 1 cpus: 2 3\nnode 1 size: 64 MB",
        ] {
            assert!(said.contains(part), "{part:?} is not in\n{said}");
        }
        let nodes = if cells.is_empty() { "2 nodes" } else { "10 nodes" };
        assert!(said.contains(nodes), "{said}");
    }
    let size = fs::metadata(directory.path().join("egm5")).unwrap().len();
    assert_eq!(size, 64 << 20);
}
