//! The inventory for other systems, as their own rules and programs read it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::live::can;
use crate::support::tree::Tree;
use crate::support::{self, machine, machines, stderr};

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn run(from: &Path, args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("--from").arg(from).arg("export").args(args).output().unwrap()
}

fn exported(name: &str, args: &[&str]) -> Output {
    run(&machine(name), args)
}

/// The output for a host that was made from another one.
fn of_tree(tree: &Tree, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.tar");
    fs::write(&path, tree.tar()).unwrap();
    run(&path, args)
}

fn gb200() -> Tree {
    Tree::read(&machine("gb200-full-gpu-list"))
}

/// The paths in a specification, of one region.
fn paths(output: &Output, region: &str) -> Vec<String> {
    assert!(output.status.success(), "{}", stderr(output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let devices = document["devices"].as_array().unwrap();
    let device = devices.iter().find(|device| device["name"] == region).unwrap();
    let nodes = device["containerEdits"]["deviceNodes"].as_array().unwrap();
    nodes.iter().map(|node| node["path"].as_str().unwrap().to_owned()).collect()
}

fn check_schema(schema: &str, name: &str, output: &Output) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<_> = validator.iter_errors(&document).map(|it| it.to_string()).collect();
    assert_eq!(problems, [""; 0], "{name}: {document}");
}

/// Checks a label with Kubernetes' rules.
fn check_label(name: &str, value: &str) {
    let is_name = |text: &str| {
        let is_end = |letter: char| letter.is_ascii_alphanumeric();
        (1..=63).contains(&text.len())
            && text.starts_with(is_end)
            && text.ends_with(is_end)
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let (prefix, own) = name.split_once('/').unwrap();
    assert_eq!(prefix, "egm.nvidia.com");
    assert!(is_name(own) && is_name(value), "{name}={value}");
}

/// Checks all formats of a host by the rules of their readers.
fn check(name: &str, run: impl Fn(&[&str]) -> Output) {
    let output = run(&["cdi"]);
    match output.status.code() {
        Some(0) => check_schema(include_str!("cdi.json"), name, &output),
        Some(1 | 3 | 4) => assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{name}"),
        code => panic!("{name}: {code:?}"),
    }
    let output = run(&["nfd"]);
    assert!(output.stdout.len() < 64 << 10, "{name}: larger than NFD reads");
    let text = String::from_utf8(output.stdout).unwrap();
    let labels = text.lines().filter(|line| !line.starts_with('#'));
    let labels: Vec<_> = labels.map(|line| line.split_once('=').unwrap()).collect();
    assert_eq!(labels.is_empty(), !output.status.success(), "{name}");
    for (name, value) in &labels {
        check_label(name, value);
    }
    let output = run(&["node-feature", "--node", "grace-1.example"]);
    if labels.is_empty() {
        assert!(output.stdout.is_empty(), "{name}");
        return;
    }
    check_schema(include_str!("node-feature.json"), name, &output);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let same: Vec<_> = object["spec"]["labels"].as_object().unwrap().iter().collect();
    let same: Vec<_> =
        same.iter().map(|(name, it)| (name.as_str(), it.as_str().unwrap())).collect();
    assert_eq!(same, labels, "{name}");
}

#[test]
fn every_host_is_exported_by_the_rules_of_the_readers() {
    for name in machines() {
        check(&name, |args| exported(&name, args));
    }
}

#[test]
fn hosts_with_the_same_regions_have_the_same_inventory() {
    for args in [&["cdi"][..], &["nfd"], &["node-feature", "--node", "n"]] {
        let expected = exported("gb200-full-gpu-list", args);
        for other in ["gb200-full-standalone", "gb200-links", "claims-vm", "leases"] {
            let output = exported(other, args);
            assert_eq!(output.stdout, expected.stdout, "{other}: {args:?}");
        }
    }
}

#[test]
fn names_in_sysfs_cannot_make_an_export_invalid() {
    const EGM4: &str = "sys/devices/virtual/egm/egm4";
    let long = format!("egm{}", "4".repeat(61));
    for name in ["egm4 x", "egm4\n+x", "egm4\u{202e}", "egm", "egm-4", "egm4=5", &long] {
        let mut tree = gb200();
        tree.link(&format!("sys/class/egm/{name}"), EGM4);
        check(name, |args| of_tree(&tree, args));
    }
    let mut tree = gb200();
    tree.remove("sys/class/egm/egm4");
    tree.rename(EGM4, &format!("sys/devices/virtual/egm/{long}"));
    tree.link(&format!("sys/class/egm/{long}"), EGM4);
    assert!(stderr(&of_tree(&tree, &["cdi"])).contains(&format!("{long} is not exported")));
    for device in ["a\u{1b}[31m", "\"", "..", "../../etc/shadow", " ", "egm4\tb"] {
        let mut tree = gb200();
        tree.file(&format!("{EGM4}/uevent"), format!("DEVNAME={device}\n"));
        check(device, |args| of_tree(&tree, args));
    }
}

/// A host whose GPUs have these VFIO devices.
fn with_vfio_devices() -> Tree {
    let mut tree = gb200();
    for (number, domain) in ["0008", "0009", "0018", "0019"].iter().enumerate() {
        let gpu = format!("sys/devices/pci{domain}:00/{domain}:00:00.0/{domain}:01:00.0");
        tree.file(&format!("{gpu}/vfio-dev/vfio{number}/dev"), format!("511:{number}\n"));
    }
    tree
}

#[test]
fn gpus_are_used_through_iommufd_if_the_host_has_it() {
    let tree = with_vfio_devices();
    let iommufd = ["/dev/egm5", "/dev/iommu", "/dev/vfio/devices/vfio2", "/dev/vfio/devices/vfio3"];
    assert_eq!(paths(&of_tree(&tree, &["cdi"]), "egm5"), iommufd);
    let groups = ["/dev/egm5", "/dev/vfio/81", "/dev/vfio/82", "/dev/vfio/vfio"];
    let mut tree = with_vfio_devices();
    tree.remove("dev/iommu");
    assert_eq!(paths(&of_tree(&tree, &["cdi"]), "egm5"), groups);
}

#[test]
fn a_region_is_exported_with_all_its_gpus_or_not_at_all() {
    const GPU: &str = "sys/devices/pci0008:00/0008:00:00.0/0008:01:00.0";
    let without = |change: fn(&mut Tree)| {
        let mut tree = gb200();
        change(&mut tree);
        let output = of_tree(&tree, &["cdi"]);
        assert!(output.status.success());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["devices"].as_array().unwrap().len(), 1, "{document}");
        stderr(&output)
    };
    let unbound = without(|tree| tree.remove(&format!("{GPU}/driver")));
    assert!(unbound.contains("egm4 is not exported: GPU 0008:01:00.0 has no driver"), "{unbound}");
    let bound = without(|tree| {
        tree.remove(&format!("{GPU}/driver"));
        tree.directory("sys/bus/pci/drivers/nvidia");
        tree.link(&format!("{GPU}/driver"), "sys/bus/pci/drivers/nvidia");
    });
    assert!(bound.contains("GPU 0008:01:00.0 has driver nvidia"), "{bound}");
    let group = without(|tree| tree.remove(&format!("{GPU}/iommu_group")));
    assert!(group.contains("the IOMMU group of GPU 0008:01:00.0 are unknown"), "{group}");
}

#[test]
fn a_file_is_written_only_if_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("egm.json");
    let name = file.to_str().unwrap();
    for args in [
        &["cdi", "-o", name][..],
        &["nfd", "--expiry", "1h", "-o", name],
        &["nfd", "-o", name],
        &["node-feature", "--node", "n", "-o", name],
    ] {
        let inode = |host: &str| {
            let output = exported(host, args);
            assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
            fs::metadata(&file).unwrap().ino()
        };
        let first = inode("gb200-full-gpu-list");
        assert_eq!(inode("gb200-full-standalone"), first, "{args:?}");
        let text = fs::read_to_string(&file).unwrap();
        assert_ne!(inode("gh200-full"), first, "{args:?}");
        assert_ne!(fs::read_to_string(&file).unwrap(), text, "{args:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }
}

#[test]
fn labels_expire_at_a_time_that_nfd_reads() {
    let output = exported("gb200-full-gpu-list", &["nfd", "--expiry", "1h"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let time = text.lines().next().unwrap().strip_prefix("# +expiry-time=").unwrap();
    assert!(time.len() == 20 && time.ends_with('Z') && time.contains('T'), "{time}");
}

#[test]
fn a_file_that_cannot_be_written_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/egm.json");
    let output = exported("gb200-full-gpu-list", &["cdi", "-o", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    // Reading from its own pipe would never end.
    let mut command = Command::new("timeout");
    command.args(["60", PROGRAM, "--from"]).arg(machine("gb200-full-gpu-list"));
    let output = command.args(["export", "cdi", "-o", "/dev/stdout"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("not a regular file"), "{output:?}");
    // Root can write everywhere but on a full or read-only file system.
    let script = format!(
        "set -e
        mount -t tmpfs -o size=8k tmpfs {folder}
        cd {folder}
        echo old >egm.json
        head -c 8192 /dev/zero >full || :
        ! {PROGRAM} --from {host} export cdi -o egm.json || exit 1
        mount -o remount,ro {folder}
        ! {PROGRAM} --from {host} export cdi -o egm.json || exit 1
        cat egm.json
        ls -A",
        folder = folder.path().display(),
        host = machine("gb200-full-gpu-list").display()
    );
    if !can("a mount namespace", &["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]) {
        return;
    }
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "old\negm.json\nfull\n", "{output:?}");
    let errors = stderr(&output);
    assert!(errors.contains("No space left") && errors.contains("Read-only"), "{errors}");
}

#[test]
fn without_egm_there_are_labels_but_no_devices() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("egm.json");
    fs::write(&file, "old").unwrap();
    let output = exported("no-egm", &["cdi", "-o", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("egm.json was not changed\negm-probe: no EGM region"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    let output = exported("no-egm", &["nfd"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("egm.nvidia.com/present=false\n"), "{text}");
}

#[test]
fn wrong_values_are_usage_errors() {
    for args in [
        &["cdi", "--kind", "egm"][..],
        &["cdi", "--expiry", "1h"],
        &["nfd", "--expiry", "0s"],
        &["node-feature"],
        &["node-feature", "--node", "Grace_1"],
        &["yaml"],
        &[],
    ] {
        let output = exported("gb200-full-gpu-list", args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("egm.conf");
    let output = exported("gb200-full-gpu-list", &["cdi", "-o", file.to_str().unwrap()]);
    assert!(output.status.success() && stderr(&output).contains("read only .json and .yaml"));
}

#[test]
fn podman_gives_the_devices_to_a_container() {
    if !support::has(&["podman", "crun", "busybox"])
        || !can(
            "a mount and cgroup namespace",
            &["unshare", "-m", "-C", "mount", "-t", "tmpfs", "tmpfs", "/run"],
        )
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("egm.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/export/podman.sh");
    let devices = |tree: &Tree, devices: &[&str]| {
        fs::write(&file, of_tree(tree, &["cdi"]).stdout).unwrap();
        let output = Command::new("timeout")
            .args(["60", "sh"])
            .arg(&script)
            .arg(&file)
            .args(devices)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut paths: Vec<_> = text.lines().map(str::to_owned).collect();
        paths.sort();
        (output, paths)
    };
    let (output, inside) = devices(&gb200(), &["nvidia.com/egm=egm4"]);
    if stderr(&output).contains("Failed to re-execute libcrun") {
        support::skip("crun cannot execute a copy of itself, as in qemu's user emulation");
        return;
    }
    let expected = ["/dev/egm4", "/dev/iommu", "/dev/vfio/79", "/dev/vfio/80", "/dev/vfio/vfio"];
    assert_eq!(inside, expected, "{}", stderr(&output));
    let (output, inside) = devices(&with_vfio_devices(), &["nvidia.com/egm=egm5"]);
    let expected = [
        "/dev/egm5",
        "/dev/iommu",
        "/dev/vfio/devices",
        "/dev/vfio/devices/vfio2",
        "/dev/vfio/devices/vfio3",
    ];
    assert_eq!(inside, expected, "{}", stderr(&output));
    // A whole tray, with nodes that both regions have.
    let tray = ["nvidia.com/egm=egm4", "nvidia.com/egm=egm5"];
    let (output, inside) = devices(&gb200(), &tray);
    assert_eq!(inside.len(), 8, "{inside:?} {}", stderr(&output));
    let (output, _) = devices(&gb200(), &["nvidia.com/egm=egm6"]);
    assert!(stderr(&output).contains("unresolvable CDI devices"), "{output:?}");
}

#[test]
fn promtool_accepts_the_metrics() {
    if !support::has(&["promtool"]) {
        return;
    }
    for name in
        ["gb200-full-gpu-list", "claims-vm", "claims-hostile", "no-egm", "everything-broken"]
    {
        let metrics = format!(
            "set -o pipefail; {PROGRAM} --from {} metrics | promtool check metrics",
            machine(name).display()
        );
        let output = Command::new("bash").args(["-c", &metrics]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
    }
}

#[test]
fn ansible_has_the_regions_as_a_local_fact() {
    if !support::has(&["ansible"]) {
        return;
    }
    let bin = crate::examples::Bin::of("gb200-full-gpu-list");
    let facts = bin.path().join("facts.d");
    fs::create_dir(&facts).unwrap();
    let fact = facts.join("egm.fact");
    fs::copy(crate::examples::examples().join("ansible/egm.fact"), &fact).unwrap();
    assert_eq!(fs::metadata(&fact).unwrap().permissions().mode() & 0o111, 0o111);
    let arguments = format!("gather_subset=!all,!min,local fact_path={}", facts.display());
    let args = ["-i", "localhost,", "-c", "local", "-m", "setup", "-a", &arguments, "localhost"];
    let output = bin.run("ansible", &args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, json) = text.split_once("=> ").unwrap_or_else(|| panic!("{text}{}", stderr(&output)));
    let found: Value = serde_json::from_str(json).unwrap();
    let regions = &found["ansible_facts"]["ansible_local"]["egm"]["regions"];
    assert_eq!(
        (&regions[0]["name"], &regions[1]["numa_node"]),
        (&"egm4".into(), &1.into()),
        "{found}"
    );
}

#[test]
fn hosts_are_grouped_by_the_ansible_tasks() {
    if !support::has(&["ansible-playbook"]) {
        return;
    }
    let (tray, none) = ("gb200-full-gpu-list", "no EGM");
    for (host, option, expected) in [
        (tray, "--diff", "959925190656 bytes"),
        // The fact is not installed.
        (tray, "--check", none),
        ("no-egm", "--diff", none),
        ("without egm-probe", "--diff", none),
    ] {
        let bin = match host {
            "without egm-probe" => crate::examples::Bin::empty(),
            host => crate::examples::Bin::of(host),
        };
        let tasks = crate::examples::examples().join("ansible/egm-facts.yml");
        let facts = bin.path().join("facts.d");
        let sum = "{{ ansible_local.egm.regions | map(attribute='size') | sum }} bytes";
        let play = format!(
            "- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - {{ include_tasks: {}, vars: {{ egm_facts_directory: {} }} }}
- {{ hosts: egm, connection: local, gather_facts: false, tasks: [{{ debug: {{ msg: \"{sum}\" }} }}] }}
- {{ hosts: no_egm, connection: local, gather_facts: false, tasks: [{{ debug: {{ msg: no EGM }} }}] }}
",
            tasks.display(),
            facts.display(),
        );
        let playbook = bin.path().join("play.yml");
        fs::write(&playbook, play).unwrap();
        let args = ["-i", "localhost,", option, playbook.to_str().unwrap()];
        let output = bin.run("ansible-playbook", &args);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{stdout}{}", stderr(&output));
        assert!(stdout.contains(&format!("\"msg\": \"{expected}\"")), "{host}: {stdout}");
    }
}
