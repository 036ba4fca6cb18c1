//! `stanza`: the XML compared with libvirt's patch series, and domains edited in place.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use egm_probe::domain::Domain;
use similar::{ChangeTag, TextDiff};

use crate::support;

pub(crate) fn stanza(machine: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    command.arg("--from").arg(support::machine(machine)).arg("stanza").args(args);
    command
}

fn gb200(args: &[&str]) -> Output {
    stanza("gb200-full-gpu-list", args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn fixture(path: &str) -> String {
    fs::read_to_string(support::fixtures().join(path)).unwrap()
}

/// The output of a run that must succeed.
pub(crate) fn printed(args: &[&str]) -> String {
    let output = gb200(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Without spaces between words and tags.
fn squeezed(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace("> <", "><")
}

#[test]
fn the_examples_of_libvirts_series_are_reproduced() {
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
            // A leftover of the previous series, where the backends had the regions' names.
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
fn every_form_of_an_address_selects_the_gpu() {
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
        stanza("wide-domain", &["--gpu", "10000:E1:00.0", "--size", "2M"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The parts of a domain that stanza inserts or changes.
const EXPECTED: [&str; 3] = ["<memory unit='GiB'>4</memory>", "<devices/>", "</domain>"];

#[test]
fn the_rest_of_a_domain_is_preserved_byte_for_byte() {
    let args = ["--all", "--with", "hostdev,numa,machine", "--domain", "-"];
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
            // A second run changes nothing.
            let again = fed(&mut stanza("gb200-full-gpu-list", &args), &output.stdout);
            assert_eq!(again.stdout, output.stdout, "{name}");
        }
    }
}

type Encode = fn(&str) -> Vec<u8>;

const ENCODINGS: [(&str, Encode); 2] = [
    ("UTF-8", |text| text.as_bytes().to_vec()),
    ("UTF-8 with a mark", |text| format!("\u{feff}{text}").into_bytes()),
];

pub(crate) fn decoded(bytes: &[u8]) -> String {
    egm_probe::domain::SourceText::decode(bytes).unwrap().text().to_owned()
}

/// A text with the first of each of these parts replaced; each must be in it.
pub(crate) fn replaced(text: &str, parts: &[(&str, &str)]) -> String {
    parts.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old} is not in\n{text}");
        text.replacen(old, new, 1)
    })
}

/// Runs a command with this on its standard input.
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program does not read its input if it refuses its arguments.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_file_is_written_only_if_the_domain_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.xml");
    fs::copy(support::fixtures().join("domains/minimal.xml"), &path).unwrap();
    let file = path.to_str().unwrap();
    let args = ["--all", "--with", "hostdev,numa,machine", "--domain", file];
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
    assert_eq!(output.status.code(), Some(1), "sums do not fit without --with numa");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn only_regular_files_and_pipes_are_read() {
    for (path, problem) in [
        ("/dev/null", "/dev/null: not a regular file"),
        ("/", "/: Is a directory"),
        ("/no/such", "/no/such: No such file or directory"),
    ] {
        let output = gb200(&["--all", "--domain", path]);
        assert_eq!(output.status.code(), Some(4), "{path}");
        assert_eq!(text(&output.stderr), format!("egm-probe: {problem}\n"));
    }
    // Only bash has `<(..)`, among the shells of every machine.
    if !support::has(&["bash"]) {
        return;
    }
    let minimal = support::fixtures().join("domains/minimal.xml");
    let script = format!(
        "exec '{}' --from '{}' stanza --all --with hostdev,numa,machine --domain <(cat '{}')",
        env!("CARGO_BIN_EXE_egm-probe"),
        support::machine("gb200-full-gpu-list").display(),
        minimal.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn an_invalid_domain_is_reported_with_its_place() {
    for (input, problem) in [
        (&b""[..], "1:1: document is empty"),
        (b"<domain>\n<name>x</domain>", "2:8: expected 'name' tag, not 'domain'"),
        (b"<network/>", "1:1: <network> is not a libvirt domain"),
        (b"<domain>\n\xff</domain>", "2:1: byte 0xff is not valid UTF-8"),
        (b"<\0d\0/\0>\0", "1:1: unsupported encoding UTF-16 (convert it: iconv"),
        (b"<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>", "1:1: XML with DTD detected"),
    ] {
        let output = fed(&mut stanza("gb200-full-gpu-list", &["--all", "--domain", "-"]), input);
        assert_eq!(output.status.code(), Some(4));
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(&format!("egm-probe: standard input:{problem}")), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn regions_of_another_virtual_machine_are_taken_only_if_confirmed() {
    let domain = fixture("domains/minimal.xml");
    let args = ["--region", "egm4", "--with", "hostdev,numa,machine", "--domain", "-", "--for"];
    let run = |more: &[&str]| {
        fed(&mut stanza("claims-vm", &[&args[..], more].concat()), domain.as_bytes())
    };
    assert!(run(&["vm1"]).status.success());
    let other = domain.replace("vm1", "it's 2");
    let run_other = |more: &[&str]| {
        fed(&mut stanza("claims-vm", &[&args[..], more].concat()), other.as_bytes())
    };
    let output = run_other(&["vm1"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert_eq!(
        text(&output.stderr),
        "egm-probe: --for vm1: the domain is it's 2; if it may take regions of vm1, add \
         --for-other vm1\n"
    );
    assert_eq!(run_other(&["vm1", "--force"]).status.code(), Some(1));
    assert!(run_other(&["vm1", "--for-other", "vm1"]).status.success());
    let output = run(&["vm1", "--for-other", "vm2"]);
    assert_eq!(output.status.code(), Some(2));
    let output = gb200(&["--all", "--for-other", "vm2"]);
    assert_eq!(output.status.code(), Some(2), "--for is missing");
}

#[test]
fn the_name_of_a_domain_is_not_a_file() {
    for (name, command) in [
        ("vm1", "virsh dumpxml --inactive vm1"),
        ("vm 1.prod", "virsh dumpxml --inactive 'vm 1.prod'"),
    ] {
        let error = format!(
            "egm-probe: {name}: No such file or directory (`{command}` prints the XML of a domain)\n"
        );
        let in_place = ["--all", "--in-place", "--domain", name];
        for output in [gb200(&["--all", "--domain", name]), gb200(&in_place)] {
            assert_eq!((output.status.code(), text(&output.stderr)), (Some(4), error.clone()));
        }
        let mut validate = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
        let output = validate.args(["validate", "--no-host", name]).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(4), error));
    }
    for name in ["vm1.xml", "./vm1"] {
        let error = text(&gb200(&["--all", "--domain", name]).stderr);
        assert!(error.ends_with("No such file or directory\n"), "{error}");
    }
}
