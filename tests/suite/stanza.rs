//! `stanza`: the XML against what libvirt's series says, and domains that are edited in place.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use egm_probe::domain::Domain;
use similar::{ChangeTag, TextDiff};

use crate::support;

fn stanza(machine: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    command.arg("--from").arg(support::archive(machine)).arg("stanza").args(args);
    command
}

fn gb200(args: &[&str]) -> Output {
    stanza("gb200-full-gpu-list", args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn fixture(path: &str) -> String {
    fs::read_to_string(support::fixtures().join(path)).unwrap()
}

/// The text of a run that must have gone well.
fn printed(args: &[&str]) -> String {
    let output = gb200(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Without blanks between words and tags.
fn squeezed(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace("> <", "><")
}

#[test]
fn the_examples_of_libvirts_series_come_out_as_they_are_there() {
    let two_regions = ["--gpu", "0008:01:00.0", "0018:01:00.0", "--size", "8GiB"];
    let one_region = ["--region", "egm4", "--size", "8GiB"];
    for (name, args, vcpus) in
        [("two-regions", &two_regions[..], "4"), ("one-region", &one_region, "5")]
    {
        let xml = printed(args);
        assert_eq!(squeezed(&xml), squeezed(&fixture(&format!("rfc/{name}.xml"))), "{name}");
        let qemu = ["--vcpus", vcpus, "--format", "qemu-args"];
        let arguments = printed(&[args, &qemu, &["--shell"]].concat());
        let expected = fixture(&format!("rfc/{name}.args"))
            // Left over from the series before, in which the backends had the regions' names.
            .replace("memdev=memegm4", "memdev=memegm0")
            .replace("memdev=memegm5", "memdev=memegm1");
        let expected = expected.trim().trim_end_matches(" \\");
        assert_eq!(squeezed(&arguments), squeezed(expected), "{name}");
        let lines = printed(&[args, &qemu].concat());
        let words: Vec<_> = lines.lines().collect();
        assert_eq!(words.join(" "), squeezed(&expected.replace(['\'', '\\'], "")), "{name}");
    }
}

#[test]
fn every_way_to_write_an_address_means_the_gpu() {
    let plain = printed(&["--gpu", "0009:01:00.0"]);
    assert!(plain.contains(">234356736</size>"), "{plain}");
    for address in [
        "9:1:0.0",
        "0009:01:00.0 ",
        " 0009:01:00.0",
        "pci_0009_01_00_0",
        "PCI_0009_01_00_0",
        "00000009:01:00.0",
    ] {
        assert_eq!(printed(&["--gpu", address]), plain, "{address:?}");
    }
    let output =
        stanza("wide-domain", &["--gpu", "10000:E1:00.0", "--size", "1M"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// What is in a domain that stanza has put there or changed.
const EXPECTED: [&str; 3] = ["<memory unit='GiB'>4</memory>", "<devices/>", "</domain>"];

#[test]
fn everything_else_in_a_domain_stays_byte_for_byte() {
    let args = ["--all", "--with-hostdev", "--with-numa", "--domain", "-"];
    let lines = [
        "<?xml version='1.0'?>",
        "<!-- by hand: ' \" &amp; -->",
        "<domain   type='kvm' >",
        "\t<name>v\u{fc}\u{1f600}</name>   ",
        "\t<metadata><x:devices xmlns:x='urn:x'><memory model='egm'/></x:devices></metadata>",
        "",
        "\t<memory unit='GiB'>4</memory>",
        "\t<vcpu>3</vcpu>",
        "\t<description><![CDATA[ <devices> ]]></description>",
        "\t<devices/>",
        "</domain>",
        "<!-- the end -->",
    ];
    for newline in ["\n", "\r\n"] {
        for (name, encode) in ENCODINGS {
            let source = lines.join(newline) + newline;
            let input = encode(&source);
            let mut command = stanza("gb200-full-gpu-list", &args);
            let output = fed(command.env("LC_ALL", "C"), &input);
            assert!(output.status.success(), "{name}: {}", text(&output.stderr));
            let result = decoded(&output.stdout);
            assert_eq!(encode(result.trim_start_matches('\u{feff}')), output.stdout, "{name}");
            let source = decoded(&input);
            let difference = TextDiff::from_lines(&source, &result);
            for change in difference.iter_all_changes() {
                if change.tag() == ChangeTag::Delete {
                    let line = change.value().trim();
                    assert!(EXPECTED.contains(&line), "{name}: {line:?} is gone");
                }
            }
            let lone = result.replace(newline, "").contains(['\r', '\n']);
            assert!(!lone, "{name}: a line ends otherwise than the others");
            assert_eq!(Domain::parse(&result).unwrap().egm.len(), 4, "{name}");
            // Once more, and nothing changes.
            let again = fed(&mut stanza("gb200-full-gpu-list", &args), &output.stdout);
            assert_eq!(again.stdout, output.stdout, "{name}");
        }
    }
}

type Encode = fn(&str) -> Vec<u8>;

const ENCODINGS: [(&str, Encode); 4] = [
    ("UTF-8", |text| text.as_bytes().to_vec()),
    ("UTF-8 with a mark", |text| format!("\u{feff}{text}").into_bytes()),
    ("UTF-16LE", |text| {
        format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
    }),
    ("UTF-16BE", |text| {
        format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect()
    }),
];

fn decoded(bytes: &[u8]) -> String {
    egm_probe::domain::Source::decode(bytes).unwrap().text().to_owned()
}

fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_domain_is_written_back_to_its_file_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.xml");
    fs::copy(support::fixtures().join("domains/minimal.xml"), &path).unwrap();
    let file = path.to_str().unwrap();
    let args = ["--all", "--with-hostdev", "--with-numa", "--domain", file];
    let expected = printed(&args);
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
    };
    let before = identity(&path);
    let difference = printed(&[&args[..], &["--dry-run", "--in-place"]].concat());
    assert!(difference.starts_with(&format!("--- {file}\n+++ {file}\n@@")), "{difference}");
    assert_eq!(identity(&path), before, "a dry run writes nothing");
    let in_place = [&args[..], &["--in-place"]].concat();
    assert_eq!(printed(&in_place), "");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let before = identity(&path);
    assert_eq!(printed(&in_place), "");
    assert_eq!(identity(&path), before, "what is right already is not written");
    assert_eq!(printed(&[&args[..], &["--dry-run"]].concat()), "");
    let output = gb200(&["--all", "--size", "8G", "--domain", file, "--in-place"]);
    assert_eq!(output.status.code(), Some(1), "sums do not fit without --with-numa");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_domain_is_a_file_or_a_pipe_and_nothing_else_is_opened() {
    for (path, problem) in [
        ("/dev/null", "/dev/null: is not a regular file"),
        ("/", "/: Is a directory"),
        ("/no/such", "/no/such: No such file or directory"),
    ] {
        let output = gb200(&["--all", "--domain", path]);
        assert_eq!(output.status.code(), Some(4), "{path}");
        assert_eq!(text(&output.stderr), format!("egm-probe: {problem}\n"));
    }
    let minimal = support::fixtures().join("domains/minimal.xml");
    let script = format!(
        "exec '{}' --from '{}' stanza --all --with-hostdev --with-numa --domain <(cat '{}')",
        env!("CARGO_BIN_EXE_egm-probe"),
        support::archive("gb200-full-gpu-list").display(),
        minimal.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn what_is_no_domain_is_told_with_its_place() {
    for (input, problem) in [
        (&b""[..], "1:1: the document does not have a root node"),
        (b"<domain>\n<name>x</domain>", "2:8: expected 'name' tag, not 'domain'"),
        (b"<network/>", "1:1: <network> is not a domain of libvirt's"),
        (b"<domain>\n\xff</domain>", "2:1: byte 0xff is not UTF-8, which is expected"),
        (b"<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>", "1:1: XML with DTD detected"),
    ] {
        let output = fed(&mut stanza("gb200-full-gpu-list", &["--all", "--domain", "-"]), input);
        assert_eq!(output.status.code(), Some(4));
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(&format!("egm-probe: standard input:{problem}")), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

/// A domain with two cells of 8 GiB, GPUs of egm4 in the first, and more of each part.
fn with(parts: &[(&str, &str)]) -> String {
    let mut text = fixture("domains/good/gb200-full-gpu-list/tray-of-8-gib-each.xml");
    for (old, new) in parts {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    text
}

fn put_into(text: &str, args: &[&str]) -> Result<String, String> {
    let args = [args, &["--domain", "-"]].concat();
    let output = fed(&mut stanza("gb200-full-gpu-list", &args), text.as_bytes());
    if output.status.success() { Ok(decoded(&output.stdout)) } else { Err(text_of(&output)) }
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const NUMA: [&str; 5] = ["--region", "egm4", "--size", "8GiB", "--with-numa"];

#[test]
fn memory_that_was_egm_is_never_left_as_ordinary_memory() {
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
fn a_device_keeps_its_cell_though_its_path_was_another_name() {
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
fn another_regions_device_is_not_taken_over_for_its_name() {
    let minimal = fixture("domains/minimal.xml");
    let device = "<memory model='egm' access='shared'><source><path>/dev/egm5</path></source><target>\
        <size>8388608</size><node>1</node><pciDev>ua-hostdev0</pciDev></target></memory></devices>";
    let text = minimal.replace("</devices>", device);
    let args = [&NUMA[..], &["--with-hostdev", "--dry-run"]].concat();
    let error = put_into(&text, &args).unwrap_err();
    assert!(error.contains("no <hostdev> of this domain has the alias `ua-hostdev0`"), "{error}");
}

#[test]
fn virtual_cpus_are_shared_out_anew_only_where_they_are_asked_for() {
    let one = put_into(&with(&[]), &[&NUMA[..], &["--vcpus", "1"]].concat()).unwrap();
    assert!(one.contains("<vcpu>1</vcpu>") && one.contains("<cell id='0' cpus='0' "), "{one}");
    assert!(one.contains("<cell id='1' memory="), "{one}");
    let odd = with(&[("cpus='0-71'", "cpus='0-70, 71'")]);
    assert!(put_into(&odd, &NUMA).unwrap().contains("cpus='0-70, 71'"));
    for (part, problem) in [
        (("cpus='0-71'", "cpus='some'"), "`some` is not a list of CPUs"),
        (("<vcpu>144", "<vcpu>many"), "`many` is no number of CPUs"),
    ] {
        assert!(put_into(&with(&[part]), &NUMA).unwrap_err().contains(problem));
    }
    let error = put_into(&with(&[]), &["--region", "egm4", "--vcpus", "2"]).unwrap_err();
    assert!(error.contains("--vcpus shares CPUs out over the cells"), "{error}");
    let current = with(&[("<vcpu>144", "<vcpu current='100'>144")]);
    let lowered = put_into(&current, &[&NUMA[..], &["--vcpus", "8"]].concat()).unwrap();
    assert!(lowered.contains("<vcpu current='8'>8</vcpu>"), "{lowered}");
}

#[test]
fn only_gpus_with_egm_are_in_qemus_arguments() {
    let other = "<hostdev mode='subsystem' type='pci'><source><address domain='1' bus='1' slot='0'/>\
        </source><acpi nodeset='2'/></hostdev></devices>";
    let text = with(&[
        ("    </numa>", "<cell id='2' memory='0'/></numa>"),
        ("</devices>", other),
        ("<vcpu>144</vcpu>", "<vcpu current='2'>144</vcpu>"),
        ("    <numa>", "<topology sockets='2' dies='1' cores='72' threads='1'/><numa>"),
        ("<cell id='0' cpus='0-71' memory='16777216' unit='KiB'/>", DISTANT),
    ]);
    let args = [&NUMA[..], &["--with-hostdev", "--format", "qemu-args", "--shell"]].concat();
    let arguments = put_into(&text, &args).unwrap();
    assert!(!arguments.contains("pci-dev=,") && !arguments.contains("generic-initiator"));
    for line in [
        "-smp 2,maxcpus=144,sockets=2,dies=1,cores=72,threads=1 \\\n",
        "-numa node,nodeid=2 \\\n",
        "-numa dist,src=0,dst=1,val=40 \\\n",
    ] {
        assert!(arguments.contains(line), "{line}{arguments}");
    }
    let dimm = with(&[(
        "</devices>",
        "<memory model='dimm'><target><size>0</size></target></memory></devices>",
    )]);
    let error = put_into(&dimm, &args).unwrap_err();
    assert!(error.contains("a memory device of another model has memory"), "{error}");
}

const DISTANT: &str = "<cell id='0' cpus='0-71' memory='16777216' unit='KiB'><distances>\
    <sibling id='1' value='40'/></distances></cell>";

#[test]
fn what_libvirt_rounds_and_adds_is_rounded_and_added() {
    // 1 GB is 976563 KiB to libvirt, which rounds up.
    let text = with(&[
        ("    </numa>", "<cell id='2' memory='1' unit='GB'/></numa>"),
        ("<memory unit='KiB'>33554432", "<memory unit='KiB'>34530995"),
        (
            "</devices>",
            "<memory model='dimm'><target><size unit='MiB'>1</size></target></memory></devices>",
        ),
    ]);
    let result = put_into(&text, &NUMA).unwrap();
    assert!(result.contains("<memory unit='KiB'>34532019</memory>"), "{result}");
    // What a domain has that is not of the plan is told, and refused where all is to be right.
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
    printed(&["--all", "--with-hostdev", "--with-numa", "--domain", file, "--in-place"]);
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(&path, &name, &mut value).unwrap();
    assert_eq!(&value[..length], b"kept");
}

#[test]
fn what_the_domain_has_already_of_a_region_counts() {
    let text = with(&[("</devices>", "</devices><!-- -->")]);
    // egm4 has 457728 MiB, of which the other GPU has 8192.
    let gpu = ["--gpu", "0009:01:00.0", "--with-numa", "--size"];
    let most = put_into(&text, &[&gpu[..], &["449536MiB"]].concat()).unwrap();
    assert!(most.contains("<size unit='KiB'>460324864</size>"), "{most}");
    let error = put_into(&text, &[&gpu[..], &["449537MiB"]].concat()).unwrap_err();
    assert!(error.contains("--size 449536MiB would do, or less"), "{error}");
    let args = [&gpu[..], &["8GiB", "--domain", "-"]].concat();
    let output = fed(&mut stanza("gb200-full-gpu-list", &args), text.as_bytes());
    assert_eq!(text_of(&output), "", "the region's other GPU is in the domain");
}

#[test]
fn a_gpu_of_two_regions_is_refused() {
    let output = stanza("everything-broken", &["--gpu", "0018:01:00.0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output).contains("GPU 0018:01:00.0 is named by egm4 and by egm5"));
}

#[test]
fn what_is_there_already_is_made_to_fit() {
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
fn odd_aliases_do_not_become_other_arguments() {
    let args = ["--region", "egm4", "--size", "8GiB", "--format", "qemu-args"];
    let text = with(&[]).replace("ua-hostdev2", "ua-a,b");
    let arguments = put_into(&text, &args).unwrap();
    assert!(arguments.contains("id=egm2,pci-dev=ua-a,,b,node=1\n"), "{arguments}");
    let text = with(&[]).replace("ua-hostdev2", "ua-a&#10;b");
    let error = put_into(&text, &args).unwrap_err();
    assert!(error.contains("has a line break in it"), "{error}");
    assert!(put_into(&text, &[&args[..], &["--shell"]].concat()).is_ok());
}

#[test]
fn a_device_that_xml_cannot_name_is_refused() {
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
