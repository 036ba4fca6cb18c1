//! `stanza --domain` with domains that already have parts of the result.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use egm_probe::domain::Domain;
use egm_probe::plan::{GuestNode, Objection, Plan, Request};
use egm_probe::report::Report;
use egm_probe::sysroot::Sysroot;

use crate::removal::{PLAIN, run};
use crate::stanza::{decoded, fed, fixture, printed, replaced, stanza, text};
use crate::support;

/// A domain with two cells of 8 GiB, GPUs of egm4 in the first, and more of each part.
fn with(parts: &[(&str, &str)]) -> String {
    replaced(&fixture("domains/good/gb200-full-gpu-list/tray-of-8-gib-each.xml"), parts)
}

fn put_into(text: &str, args: &[&str]) -> Result<String, String> {
    let args = [args, &["--domain", "-"]].concat();
    let output = fed(&mut stanza("gb200-full-gpu-list", &args), text.as_bytes());
    if output.status.success() { Ok(decoded(&output.stdout)) } else { Err(text_of(&output)) }
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const NUMA: [&str; 6] = ["--region", "egm4", "--size", "8GiB", "--with", "numa"];

#[test]
fn former_egm_never_becomes_ordinary_memory() {
    let args = [&NUMA[..], &["--guest-node", "2"]].concat();
    let moved = Domain::parse(&put_into(&with(&[]), &args).unwrap()).unwrap();
    let sizes: Vec<_> = moved
        .cells
        .iter()
        .map(|cell| cell.memory.as_ref().unwrap().value.unwrap().0 >> 30)
        .collect();
    assert_eq!(sizes, [0, 16, 16]);
    assert_eq!(moved.memory.unwrap().value.unwrap().0 >> 30, 32);
}

#[test]
fn a_device_with_another_name_of_its_path_keeps_its_cell() {
    let text = with(&[]).replace("<path>/dev/egm4</path>", "<path>/dev/grace-egm/by-node/0</path>");
    let text = text.replace("<node>0<", "<node>X<").replace("<node>1<", "<node>0<");
    let text = text.replace("<node>X<", "<node>1<");
    let result = Domain::parse(&put_into(&text, &NUMA).unwrap()).unwrap();
    let of = |path: &str| {
        let device = result.egm.iter().find(|it| it.path.as_ref().unwrap().text == path).unwrap();
        device.cell.as_ref().unwrap().value
    };
    assert_eq!((of("/dev/egm4"), of("/dev/egm5")), (Some(1), Some(0)));
}

#[test]
fn a_device_of_another_region_is_not_replaced_because_of_its_alias() {
    let minimal = fixture("domains/minimal.xml");
    let device = "<memory model='egm' access='shared'><source><path>/dev/egm5</path></source><target>\
        <size>8388608</size><node>1</node><pciDev>ua-hostdev0</pciDev></target></memory></devices>";
    let text = minimal.replace("</devices>", device);
    let args = [&NUMA[..], &["--with", "hostdev,machine", "--dry-run"]].concat();
    let error = put_into(&text, &args).unwrap_err();
    assert!(error.contains("no <hostdev> of this domain has the alias `ua-hostdev0`"), "{error}");
}

#[test]
fn virtual_cpus_are_redistributed_only_on_request() {
    let one = put_into(&with(&[]), &[&NUMA[..], &["--vcpus", "1"]].concat()).unwrap();
    assert!(one.contains("<vcpu>1</vcpu>") && one.contains("<cell id='0' cpus='0' "), "{one}");
    assert!(one.contains("<cell id='1' memory="), "{one}");
    let odd = with(&[("cpus='0-71'", "cpus='0-70, 71'")]);
    assert!(put_into(&odd, &NUMA).unwrap().contains("cpus='0-70, 71'"));
    for (part, problem) in [
        (("cpus='0-71'", "cpus='some'"), "invalid CPU list `some`"),
        (("<vcpu>144", "<vcpu>many"), "invalid CPU count `many`"),
    ] {
        assert!(put_into(&with(&[part]), &NUMA).unwrap_err().contains(problem));
    }
    let error = put_into(&with(&[]), &["--region", "egm4", "--vcpus", "2"]).unwrap_err();
    assert!(error.contains("--vcpus requires --with numa"), "{error}");
    let current = with(&[("<vcpu>144", "<vcpu current='100'>144")]);
    let lowered = put_into(&current, &[&NUMA[..], &["--vcpus", "8"]].concat()).unwrap();
    assert!(lowered.contains("<vcpu current='8'>8</vcpu>"), "{lowered}");
}

#[test]
fn qemus_arguments_have_only_gpus_with_egm() {
    let other = "<hostdev mode='subsystem' type='pci'><source><address domain='1' bus='1' slot='0'/>\
        </source><acpi nodeset='2'/></hostdev></devices>";
    let text = with(&[
        ("    </numa>", "<cell id='2' memory='0'/></numa>"),
        ("</devices>", other),
        ("<vcpu>144</vcpu>", "<vcpu current='2'>144</vcpu>"),
        ("    <numa>", "<topology sockets='2' dies='1' cores='72' threads='1'/><numa>"),
        ("<cell id='0' cpus='0-71' memory='16777216' unit='KiB'/>", DISTANT),
    ]);
    let args = [&NUMA[..], &["--with", "hostdev", "--format", "qemu-args", "--shell"]].concat();
    let arguments = put_into(&text, &args).unwrap();
    assert!(!arguments.contains("pci-dev=,") && !arguments.contains("generic-initiator"));
    for line in [
        "-smp 2,maxcpus=144,sockets=2,dies=1,clusters=1,cores=72,threads=1 \\\n",
        "-numa node,nodeid=2 \\\n",
        "-numa dist,src=0,dst=1,val=40 \\\n",
    ] {
        assert!(arguments.contains(line), "{line}{arguments}");
    }
    let dimm = with(&[
        ("<maxMemory unit", "<maxMemory slots='1' unit"),
        ("</devices>", "<memory model='dimm'><target><size>0</size></target></memory></devices>"),
    ]);
    let error = put_into(&dimm, &args).unwrap_err();
    assert!(error.contains("a memory device of another model has memory"), "{error}");
}

const DISTANT: &str = "<cell id='0' cpus='0-71' memory='16777216' unit='KiB'><distances>\
    <sibling id='1' value='40'/></distances></cell>";

#[test]
fn sizes_are_rounded_and_added_as_libvirt_does() {
    // libvirt rounds 1 GB up to 976563 KiB.
    let text = with(&[
        ("    </numa>", "<cell id='2' memory='1' unit='GB'/></numa>"),
        ("<maxMemory unit", "<maxMemory slots='1' unit"),
        ("<memory unit='KiB'>33554432", "<memory unit='KiB'>34530995"),
        (
            "</devices>",
            "<memory model='dimm'><target><size unit='MiB'>1</size></target></memory></devices>",
        ),
    ]);
    let result = put_into(&text, &NUMA).unwrap();
    assert!(result.contains("<memory unit='KiB'>34532019</memory>"), "{result}");
    // Other parts of the domain cause warnings, or with --strict an error.
    let strict = [&NUMA[..], &["--strict"]].concat();
    assert!(put_into(&text, &strict).unwrap_err().contains("(EGM027)"));
}

#[test]
fn attributes_of_a_file_are_kept() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("vm.xml");
    fs::copy(support::fixtures().join("domains/minimal.xml"), &path).unwrap();
    let name = std::ffi::CString::new("user.egm").unwrap();
    let file = fs::File::open(&path).unwrap();
    if rustix::fs::fsetxattr(&file, &name, b"kept", rustix::fs::XattrFlags::empty()).is_err() {
        support::skip("this file system has no extended attributes");
        return;
    }
    let file = path.to_str().unwrap();
    printed(&["--all", "--with", "hostdev,numa,machine", "--domain", file, "--in-place"]);
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(&path, &name, &mut value).unwrap();
    assert_eq!(&value[..length], b"kept");
}

/// A new file inherits the ACL that its directory has for new files, and the old one may not have it.
#[test]
fn a_file_gets_no_permissions_from_its_directory() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("vm.xml");
    fs::copy(support::fixtures().join("domains/minimal.xml"), &path).unwrap();
    // Owner, user 65534, group, mask, others (acl(5)).
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1, 7, u32::MAX), (2, 6, 65534), (4, 0, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend([tag, 0, permissions, 0]);
        acl.extend(id.to_le_bytes());
    }
    let default = c"system.posix_acl_default";
    if setxattr(directory.path(), default, &acl, XattrFlags::empty()).is_err() {
        support::skip("this file system has no ACLs");
        return;
    }
    let has_acl = |path: &Path| getxattr(path, c"system.posix_acl_access", &mut [0; 64]).is_ok();
    fs::write(directory.path().join("new"), "").unwrap();
    assert!(has_acl(&directory.path().join("new")));
    let file = path.to_str().unwrap();
    printed(&["--all", "--with", "hostdev,numa,machine", "--domain", file, "--in-place"]);
    assert!(!has_acl(&path));
}

#[test]
fn a_size_of_the_domain_is_kept_unless_another_is_asked_for() {
    let domain = with(&[]);
    let all = ["--all", "--with", "hostdev,numa"];
    assert_eq!(put_into(&domain, &all).unwrap(), domain);
    let sizes = |text: &str| -> Vec<_> {
        let devices = Domain::parse(text).unwrap().egm;
        devices.iter().map(|device| device.size.as_ref().unwrap().value.unwrap().0 >> 20).collect()
    };
    let share = put_into(&domain, &[&all[..], &["--size", "share"]].concat()).unwrap();
    assert_eq!(sizes(&share), [228_864; 4]);
    let other = put_into(&domain, &[&all[..], &["--size", "4GiB"]].concat()).unwrap();
    assert_eq!(sizes(&other), [4096; 4]);
    // A GPU that is new in the domain gets its share, if there is room for it.
    let start = domain.rfind("    <memory model").unwrap();
    let end = domain.find("  </devices>").unwrap();
    let three = format!("{}{}", &domain[..start], &domain[end..]);
    assert_eq!(sizes(&put_into(&three, &all).unwrap()), [8192, 8192, 8192, 228_864]);
    let (before, last) = three.split_at(three.rfind("8388608").unwrap());
    let large = format!("{before}{}", last.replace("8388608", "234358784"));
    let error = put_into(&large, &all).unwrap_err();
    let problem = "479962595328 bytes), but 479964692480 bytes are requested, including \
        239983394816 bytes that the domain already has; use --size 228864MiB or less";
    assert!(error.contains(problem), "{error}");
}

#[test]
fn huge_pages_are_removed_only_on_request() {
    let huge = with(&[("<memoryBacking>", "<memoryBacking><hugepages/>")]);
    let run = |args: &[&str]| {
        let args = [&["--region", "egm4", "--domain", "-"], args].concat();
        let output = fed(&mut stanza("gb200-full-gpu-list", &args), huge.as_bytes());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (decoded(&output.stdout), text(&output.stderr))
    };
    let note = "note: <hugepages> is removed";
    for (args, removes) in [
        (&["--with", "numa"][..], false),
        (&["--replace"], false),
        (&["--with", "numa", "--replace"], true),
    ] {
        let (xml, stderr) = run(args);
        assert_eq!(!xml.contains("hugepages"), removes, "{args:?}: {xml}");
        assert_eq!(stderr.contains(note), removes, "{args:?}: {stderr}");
        assert_eq!(stderr.contains("--with numa --replace"), !removes, "{args:?}: {stderr}");
    }
}

#[test]
fn existing_memory_of_a_region_counts() {
    let text = with(&[("</devices>", "</devices><!-- -->")]);
    // egm4 has 457728 MiB, 8192 of which belong to the other GPU.
    let gpu = ["--gpu", "0009:01:00.0", "--with", "numa", "--size"];
    let most = put_into(&text, &[&gpu[..], &["449536MiB"]].concat()).unwrap();
    assert!(most.contains("<size unit='KiB'>460324864</size>"), "{most}");
    let error = put_into(&text, &[&gpu[..], &["449538MiB"]].concat()).unwrap_err();
    assert!(error.contains("use --size 449536MiB or less"), "{error}");
    let device = text.find("<pciDev>").unwrap()..text.find("</pciDev>").unwrap() + 9;
    let nameless = format!("{}{}", &text[..device.start], &text[device.end..]);
    let args = ["--gpu", "0008:01:00.0,0009:01:00.0", "--with", "numa", "--size", "228864MiB"];
    let refusal = put_into(&nameless, &args).unwrap_err();
    assert!(refusal.contains("one of its EGM devices has no <pciDev>"), "{refusal}");
    let stray = format!("{}<pciDev>ua-x</pciDev>{}", &text[..device.start], &text[device.end..]);
    let refusal = put_into(&stray, &args).unwrap_err();
    assert!(refusal.contains("<pciDev>ua-x</pciDev> names no GPU: correct"), "{refusal}");
    assert!(!refusal.contains("or less"), "{refusal}");
    assert!(
        error.contains("are requested, including 8589934592 bytes that the domain already has"),
        "{error}"
    );
    let args = [&gpu[..], &["8GiB", "--domain", "-"]].concat();
    let output = fed(&mut stanza("gb200-full-gpu-list", &args), text.as_bytes());
    assert_eq!(text_of(&output), "", "the region's other GPU is in the domain");
}

#[test]
fn a_gpu_of_two_regions_is_refused() {
    let output = stanza("everything-broken", &["--gpu", "0018:01:00.0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output).contains("GPU 0018:01:00.0 is listed by both egm4 and egm5"));
}

#[test]
fn existing_parts_are_adapted() {
    let text = with(&[
        ("<source type='file'/>", "<source type='memfd'/>"),
        ("<access mode='shared'/>", "<access mode='private'/>"),
        ("<alias name='ua-hostdev0'/>", "<alias name='ua-hostdev0'/><acpi index='5'/>"),
    ]);
    let args = [&NUMA[..], &["--gpu-cells", "2"]].concat();
    let result = put_into(&text, &args).unwrap();
    assert!(result.contains("<source type='file'/>") && result.contains("<access mode='shared'/>"));
    assert!(result.contains("<acpi index='5' nodeset='2-3'/>"), "{result}");
    assert!(result.contains("<acpi nodeset='4-5'/>"), "{result}");
}

#[test]
fn aliases_cannot_inject_arguments() {
    let args = ["--region", "egm4", "--size", "8GiB", "--format", "qemu-args"];
    for alias in ["ua-a,b", "ua-a&#10;b"] {
        let error = put_into(&with(&[]).replace("ua-hostdev2", alias), &args).unwrap_err();
        assert!(error.contains("with `hostdev0` (EGM007)"), "{error}");
    }
}

#[test]
fn a_device_path_that_xml_cannot_express_is_refused() {
    let mut tree = support::machines::host_of(&[(4, 64, 2)]);
    tree.file("sys/devices/virtual/egm/egm4/uevent", "DEVNAME=egm\x01\n");
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("host.tar");
    fs::write(&archive, tree.tar()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .arg("--from")
        .arg(&archive)
        .args(["stanza", "--all"])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    assert!(text_of(&output).contains("`/dev/egm\\x01` cannot be written in XML"));
}

/// `stanza --region egm4 --size 8GiB` with some parts, for a domain with these children.
fn written(parts: &str, children: &str) -> Result<String, String> {
    let text = format!("<domain>\n  <name>vm1</name>\n{children}</domain>\n");
    put_into(&text, &["--region", "egm4", "--size", "8GiB", "--with", parts])
}

fn made(parts: &str, children: &str) -> String {
    written(parts, children).unwrap()
}

const OS: &str = "  <os firmware='efi'>
    <type arch='aarch64' machine='virt'>hvm</type>
  </os>
";
const FEATURES: &str = "  <features>
    <acpi/>
    <gic version='3'/>
  </features>
";

#[test]
fn missing_firmware_and_features_are_added() {
    let loader =
        "  <os>\n    <type>hvm</type>\n    <loader type='pflash'>/code.fd</loader>\n  </os>\n";
    let (plain, features) = (OS.replace(" firmware='efi'", ""), FEATURES);
    let gic2 =
        "  <features>\n    <acpi/>\n    <gic version='2'/>\n    <pmu state='on'/>\n  </features>\n";
    let apic = "  <features>\n    <apic/>\n  </features>\n";
    let bios = OS.replace("'efi'", "'bios'");
    for (before, after) in [
        ("", [OS, features].concat()),
        (&*plain, [OS, features].concat()),
        (&*bios, [OS, features].concat()),
        (OS, [OS, features].concat()),
        (loader, [loader, features].concat()),
        (&*[OS, gic2].concat(), [OS, gic2].concat()),
        (&*[OS, apic].concat(), [OS, &features.replace("<gic", "<apic/>\n    <gic")].concat()),
        (&*[OS, "  <features/>\n"].concat(), [OS, features].concat()),
    ] {
        let result = made("hostdev,numa,machine", before);
        assert!(result.contains(&after), "{before}{result}");
    }
    for (children, problem) in [(&*plain, "(EGM034)"), (&*[&*plain, gic2].concat(), "(EGM035)")] {
        let error = written("hostdev,numa", children).unwrap_err();
        assert!(error.contains(problem) && error.contains("--with machine"), "{error}");
    }
}

#[test]
fn the_maximum_memory_is_at_least_the_memory() {
    let right = "<maxMemory unit='KiB'>16777216</maxMemory>";
    for (before, after) in [
        ("", right),
        ("  <maxMemory>1</maxMemory>\n", right),
        ("  <maxMemory unit='GiB'>15</maxMemory>\n", right),
        ("  <maxMemory unit='GiB'>16</maxMemory>\n", "<maxMemory unit='GiB'>16</maxMemory>"),
        (
            "  <maxMemory slots='4' unit='GiB'>15</maxMemory>\n",
            "<maxMemory slots='4' unit='KiB'>16777216</maxMemory>",
        ),
        (
            "  <maxMemory slots='4' unit='TiB'>1</maxMemory>\n",
            "<maxMemory slots='4' unit='TiB'>1</maxMemory>",
        ),
    ] {
        let result = made("hostdev,numa,machine", before);
        assert!(result.contains(&format!("  {after}\n")), "{before}{result}");
        assert_eq!(result.matches("<maxMemory").count(), 1, "{result}");
        assert!(result.find("<maxMemory") < result.find("<memory "), "{result}");
    }
}

fn report() -> Report {
    let root = Sysroot::capture(&support::machine("gb200-full-gpu-list")).unwrap();
    Report::read(&root, Plan::NEEDS)
}

/// `KubeVirt` gives a NIC the nodeset of the cell with the CPUs near it.
#[test]
fn the_nodeset_of_a_nic_does_not_occupy_a_cell_with_memory() {
    let text = fixture("domains/nic-on-cpu-cell.xml");
    let cells = |text: &str| {
        let domain = Domain::parse(text).unwrap();
        let plan = Plan::new(&report(), &Request::everything(), Some(&domain)).unwrap();
        plan.placements.iter().map(|placement| placement.cell).collect::<Vec<_>>()
    };
    assert_eq!(cells(&text), [0, 0, 2, 2], "cell 1 is empty, and a device's own");
    let free = text.replace("<acpi nodeset='1'/>", "<acpi nodeset='0-1'/>");
    assert_eq!(cells(&free), [0, 0, 1, 1]);

    // A GPU keeps its cells, even with memory.
    let gpu = text
        .replace("bus='0x05'", "bus='0x01'")
        .replace("domain='0x0000' bus='0x01'", "domain='0x0008' bus='0x01'");
    let gpu = gpu.replace("<acpi nodeset='1'/>", "<acpi nodeset='0-1'/>");
    assert_eq!(cells(&gpu), [2, 2, 3, 3]);
    let mut request = Request::of_regions(["egm4".parse().unwrap()]);
    request.guest_nodes.push(GuestNode { region: None, cell: 0 });
    let refused = Plan::new(&report(), &request, Some(&Domain::parse(&gpu).unwrap())).unwrap_err();
    assert!(matches!(refused.refusals[..], [Objection::CellOfGpu { cell: 0, .. }]), "{refused}");
    assert!(Plan::new(&report(), &request, Some(&Domain::parse(&text).unwrap())).is_ok());
}

#[test]
fn an_allowed_warning_is_a_note_and_an_error_stays_one() {
    let run = |host: &str, args: &[&str], input: &str| {
        let output = fed(&mut stanza(host, args), input.as_bytes());
        (output.status.code(), decoded(&output.stdout), text_of(&output))
    };
    let host = "gb200-full-gpu-list";
    let partial = ["--gpu", "0009:01:00.0", "--strict"];
    let (code, _, stderr) = run(host, &partial, "");
    assert!(code == Some(1) && stderr.ends_with("(use --peers) (EGM106)\n"), "{stderr}");
    let allowed = [&partial[..], &["--allow", "egm106"]].concat();
    let (code, _, stderr) = run(host, &allowed, "");
    assert!(code == Some(0) && stderr.starts_with("egm-probe: note: GPU 0008"), "{stderr}");
    let (_, json, _) = run(host, &[&allowed[..], &["--format", "json"]].concat(), "");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["allowed"][0].as_str().unwrap().ends_with("(EGM106)"), "{json}");
    assert_eq!(json["warnings"], serde_json::json!([]));

    let dimm = with(&[
        ("<maxMemory unit", "<maxMemory slots='1' unit"),
        (
            "</devices>",
            "<memory model='dimm'><target><size>1024</size></target></memory></devices>",
        ),
    ]);
    let strict = [&NUMA[..], &["--strict", "--domain", "-", "--allow"]].concat();
    assert_eq!(run(host, &[&strict[..], &["EGM106"]].concat(), &dimm).0, Some(1));
    let (code, xml, stderr) =
        run(host, &[&strict[..], &["EGM107", "--allow", "EGM027"]].concat(), &dimm);
    assert!(code == Some(0) && xml.contains("dimm"), "{stderr}");
    assert!(stderr.contains("note: ") && !stderr.contains("warning: "), "{stderr}");

    let sums = ["--region", "egm4", "--size", "4GiB", "--domain", "-", "--allow", "EGM011"];
    let (code, _, stderr) = run(host, &sums, &with(&[]));
    assert!(code == Some(1) && stderr.contains("(EGM011)"), "{stderr}");
    let held = ["--region", "egm4", "--allow", "EGM108"];
    let (code, _, stderr) = run("claims-vm", &held, "");
    assert!(code == Some(1) && stderr.contains("is in use by vm1[4242] (EGM108); use"), "{stderr}");
}

#[test]
fn without_a_choice_the_gpus_of_the_domain_are_used() {
    const GB200: &str = "gb200-full-gpu-list";
    const GPUS: &str = "0008:01:00.0,0009:01:00.0";
    let with_egm = run(GB200, &["--gpu", GPUS, "--with", "hostdev,numa"], PLAIN).unwrap();
    // Also GPUs without EGM memory.
    let start = with_egm.find("    <memory model").unwrap();
    let end = with_egm.rfind("    </memory>\n").unwrap() + "    </memory>\n".len();
    let with_gpus = [&with_egm[..start], &with_egm[end..]].concat();
    for domain in [&with_egm, &with_gpus] {
        let chosen = run(GB200, &["--gpu", GPUS, "--complete"], domain).unwrap();
        assert_eq!(run(GB200, &["--complete"], domain), Ok(chosen));
    }

    let none = run(GB200, &["--complete"], PLAIN).unwrap_err();
    let expected = "egm-probe: standard input: no GPU of a region in it; select some with --gpu, --region or --all\n";
    assert_eq!(none, expected);
    let neither = stanza("gb200-full-gpu-list", &["--with", "numa"]).output().unwrap();
    assert_eq!(neither.status.code(), Some(2));
    assert!(text(&neither.stderr).contains("--all|--for <NAME>|--domain <FILE>"));
}

#[test]
fn the_commands_in_helps_are_complete() {
    let bad = support::fixtures().join("domains/bad/gb200-full-gpu-list");
    let mut commands = 0;
    for entry in fs::read_dir(&bad).unwrap() {
        let golden = entry.unwrap().path();
        if golden.extension().is_none_or(|it| it != "txt") {
            continue;
        }
        let findings = fs::read_to_string(&golden).unwrap();
        for command in findings.split("`egm-probe stanza ").skip(1) {
            let command = command.split('`').next().unwrap();
            let domain = golden.with_extension("xml");
            let words = command.split_whitespace().map(|word| match word {
                "FILE" => domain.to_str().unwrap(),
                "N" => "8",
                "ADDRESS" => "0009:01:00.0",
                word => word,
            });
            let output =
                stanza("gb200-full-gpu-list", &words.collect::<Vec<_>>()).output().unwrap();
            let error = text(&output.stderr);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{domain:?}: {command}: {error}");
            commands += 1;
        }
    }
    assert!(commands > 15, "{commands}");
}
