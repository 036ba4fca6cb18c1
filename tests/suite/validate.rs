//! `validate`: domains that are right, and domains that are wrong in one way each.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use egm_probe::check::grammar::{Grammar, SCHEMAS};
use egm_probe::check::{RULES, Severity};
use egm_probe::domain::Source;

use crate::libvirt::{self, can_run};
use crate::support;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The domains of a kind, each in the folder of the machine that it is for.
fn domains(kind: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in fs::read_dir(support::fixtures().join("domains").join(kind)).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "xml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

/// Runs in the folder of a domain, on its machine; libvirt's grammar where it is here.
fn validate(path: &Path, args: &[&str]) -> Output {
    let folder = path.parent().unwrap();
    let machine = folder.file_name().unwrap().to_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    command.current_dir(folder);
    if machine == "no-host" {
        command.args(["validate", "--no-host"]);
    } else {
        command.arg("--from").arg(support::archive(machine)).arg("validate");
    }
    command.args(args).arg(path.file_name().unwrap()).output().unwrap()
}

#[test]
fn nothing_is_wrong_with_good_domains() {
    let files = domains("good");
    assert!(files.len() >= 30, "{} files", files.len());
    for path in &files {
        let output = validate(path, &["--strict"]);
        let none = if stem(path) == "no-egm-at-all" { ", and no EGM memory in it" } else { "" };
        let expected = format!("{}.xml: nothing wrong{none}\n", stem(path));
        assert_eq!(text(&output.stdout), expected, "{}", path.display());
        assert_eq!(output.status.code(), Some(0), "{}", path.display());
    }
}

#[test]
fn each_bad_domain_has_its_diagnosis() {
    if !can_run(&["xmllint"]) {
        return;
    }
    let files = domains("bad");
    assert!(files.len() >= 80, "{} files", files.len());
    let mut seen = BTreeSet::new();
    let mut different = Vec::new();
    for path in &files {
        let output = validate(path, &[]);
        let stdout = text(&output.stdout);
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &stdout).unwrap();
        }
        let recorded = fs::read_to_string(&golden).unwrap_or_default();
        if recorded != stdout {
            different.push(format!("{}:\n{stdout}", golden.display()));
        }
        let has_errors = stdout.contains("\nerror[") || stdout.starts_with("error[");
        let has_findings = has_errors || stdout.contains("warning[");
        assert!(has_findings, "{}: nothing found", path.display());
        assert_eq!(output.status.code(), Some(i32::from(has_errors)), "{}", path.display());
        assert_eq!(validate(path, &["--strict", "-q"]).status.code(), Some(1));
        let codes = RULES.iter().filter(|rule| stdout.contains(&format!("[{}]", rule.code)));
        seen.extend(codes.map(|rule| rule.code));
    }
    assert!(different.is_empty(), "not as recorded:\n{}", different.join("\n"));
    for rule in RULES {
        assert!(seen.contains(rule.code), "no domain breaks {}: {}", rule.code, rule.title);
    }
}

/// For each rule a good domain that comes close to breaking it.
const NEAR_MISSES: [(&str, &str); 55] = [
    ("EGM001", "comments-and-namespaces-everywhere"),
    ("EGM002", "children-in-any-order"),
    ("EGM003", "double-quotes-and-entities"),
    ("EGM004", "decimal-addresses"),
    ("EGM005", "rfc-one-region"),
    ("EGM006", "serial-console"),
    ("EGM007", "aliases-of-ones-own"),
    ("EGM008", "cells-without-numbers"),
    ("EGM009", "sockets-the-other-way-round"),
    ("EGM010", "sockets-the-other-way-round"),
    ("EGM011", "every-unit"),
    ("EGM012", "every-unit"),
    ("EGM013", "access-by-the-cells"),
    ("EGM014", "every-unit"),
    ("EGM015", "cells-without-numbers"),
    ("EGM016", "max-memory-equal"),
    ("EGM017", "cells-without-cpus"),
    ("EGM018", "topology"),
    ("EGM019", "nics-near-a-cell"),
    ("EGM020", "two-functions-of-a-card"),
    ("EGM021", "distances"),
    ("EGM022", "gpu-in-domain-0"),
    ("EGM023", "no-egm-at-all"),
    ("EGM024", "source-behind-target"),
    ("EGM025", "obsolete-form-elsewhere"),
    ("EGM026", "machine-of-a-version"),
    ("EGM027", "tray-with-gpu-cells"),
    ("EGM028", "harmless-qemu-arguments"),
    ("EGM029", "every-unit"),
    ("EGM030", "comments-and-namespaces-everywhere"),
    ("EGM031", "memory-placed"),
    ("EGM032", "cells-without-cpus"),
    ("EGM033", "max-memory-equal"),
    ("EGM034", "acpi-among-other-features"),
    ("EGM035", "uefi-by-its-loader"),
    ("EGM036", "machine-of-a-version"),
    ("EGM037", "children-in-any-order"),
    ("EGM038", "max-memory"),
    ("EGM039", "hostdev-behind-a-port"),
    ("EGM040", "driver-iommu-of-another-device"),
    ("EGM041", "hole-in-the-root"),
    ("EGM042", "usb-with-controller"),
    ("EGM043", "mark-of-utf-8"),
    ("EGM090", "hostdev-behind-a-port"),
    ("EGM101", "comments-and-namespaces-everywhere"),
    ("EGM102", "gpu-in-domain-0"),
    ("EGM103", "sockets-the-other-way-round"),
    ("EGM104", "tray"),
    ("EGM105", "tray"),
    ("EGM106", "one-gpu"),
    ("EGM107", "four-sockets"),
    ("EGM108", "region-of-its-own"),
    ("EGM109", "other-devices"),
    ("EGM110", "one-gpu"),
    ("EGM111", "pinned-to-the-right-socket"),
];

#[test]
fn each_rule_has_a_near_miss() {
    let good: BTreeSet<_> = domains("good").iter().map(|path| stem(path).to_owned()).collect();
    let rules: Vec<_> = RULES.iter().map(|rule| rule.code).collect();
    let near: Vec<_> = NEAR_MISSES.iter().map(|(code, _)| *code).collect();
    assert_eq!(rules, near, "a rule without a near miss, or out of order");
    for (code, file) in NEAR_MISSES {
        assert!(good.contains(file), "{code}: {file}");
    }
}

#[test]
fn the_grammar_in_process_agrees_with_xmllint() {
    if !can_run(&["xmllint"]) {
        return;
    }
    // Others than the one that is installed, by their directories.
    let others = std::env::var("EGM_PROBE_TEST_SCHEMAS").unwrap_or_default();
    for schemas in others.split(':').filter(|path| !path.is_empty()).chain([SCHEMAS]) {
        agree(schemas.as_ref());
    }
}

fn agree(schemas: &Path) {
    let grammar = Grammar::read(schemas).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let of_xmllint = libvirt::grammar_of(schemas, folder.path());
    let (mut taken, mut refused) = (0, 0);
    for path in domains("good").into_iter().chain(domains("bad")) {
        let source = Source::decode(&fs::read(&path).unwrap()).unwrap();
        if source.text().contains("<domstatus") {
            continue;
        }
        let ours = grammar.check(source.text()).unwrap();
        // What a domain does not need of it makes no difference.
        let part = Grammar::read_for(schemas, [source.text()]).unwrap();
        assert_eq!(part.check(source.text()).unwrap(), ours, "{}", path.display());
        let xmllint = libvirt::validates_with(&of_xmllint, &path);
        let file = path.display();
        assert_eq!(ours.is_empty(), xmllint, "{file} by {}: {ours:?}", schemas.display());
        *(if xmllint { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 60 && refused > 20, "{taken} taken, {refused} refused");
}

#[test]
fn domains_without_egm_are_none_of_its_business() {
    if !can_run(&["virsh", "xmllint"]) {
        return;
    }
    let virsh = |args: &[&str]| {
        let output = Command::new("virsh").args(["-c", "test:///default"]).args(args).output();
        text(&output.unwrap().stdout)
    };
    let names = virsh(&["list", "--all", "--name"]);
    let names: Vec<_> = names.split_whitespace().collect();
    assert!(!names.is_empty());
    for name in names {
        let xml = virsh(&["dumpxml", name]);
        let output = fed(&["--no-host", "--strict", "-"], xml.as_bytes());
        assert_eq!(
            text(&output.stdout),
            "standard input: nothing wrong, and no EGM memory in it\n",
            "{xml}"
        );
    }
}

fn fed(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("sh")
        // No more than this for whatever is to come: 2 GB, 20 seconds of CPU.
        .args(["-c", "set -e; ulimit -v 2000000; ulimit -t 20; exec \"$0\" validate \"$@\""])
        .arg(env!("CARGO_BIN_EXE_egm-probe"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have had enough before the end.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn no_input_takes_long_or_much() {
    let domain = |inside: &str| format!("<domain><name>x</name>{inside}</domain>").into_bytes();
    let laughs = "<!DOCTYPE lolz [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;'>\
         <!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;&b;'>]><domain><name>&c;</name></domain>";
    let declarations: Vec<_> = (0..95).map(|number| format!(" xmlns:n{number}='u'")).collect();
    let namespaces = format!("<a {}>", declarations.concat()).repeat(240) + &"</a>".repeat(240);
    let memory = "<memory model='egm'><target><node>0</node><size>1</size><pciDev>ua-a</pciDev></target></memory>";
    let cells = "<cell memory='1'/>".repeat(30_000);
    let many = format!(
        "<cpu><numa>{cells}</numa></cpu><devices>{}{}</devices>",
        memory.repeat(5_000),
        "<hostdev type='pci'><source><address bus='1' slot='1'/></source><alias name='ua-a'/><acpi \
         nodeset='0-4294967295'/></hostdev>"
            .repeat(5_000)
    );
    for (name, input, code, said) in [
        ("4 MB of text", domain(&"x".repeat(4_000_000)), 0, ""),
        ("4 MB of elements", domain(&"<a/>".repeat(1_000_000)), 4, "more than 200000 elements"),
        ("50 MB", domain(&"<a/>".repeat(12_500_000)), 4, "more than 4 MiB"),
        ("entities", laughs.into(), 4, "1:1: XML with DTD detected"),
        ("namespaces", domain(&namespaces), 4, "500 namespaces"),
        ("deep", domain(&("<a>".repeat(10_000) + &"</a>".repeat(10_000))), 4, "256 deep"),
        ("attributes", domain(&format!("<a {}/>", "b='c' ".repeat(100_000))), 4, "attributes"),
        ("many", domain(&many), 1, ""),
        ("NUL", b"<domain><name>\0</name></domain>".to_vec(), 4, "1:15: "),
        ("one UTF-16 byte", b"<\0d".to_vec(), 4, "not UTF-16"),
        ("nothing", Vec::new(), 4, "1:1: "),
        ("blanks", vec![b' '; 1_000_000], 4, "1:1: it is empty"),
    ] {
        let output = fed(&["--no-host", "--no-schema", "-"], &input);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
        if can_run(&["xmllint"]) {
            let output = fed(&["--no-host", "-"], &input);
            let code = output.status.code();
            assert!(
                matches!(code, Some(0 | 1 | 4)),
                "{name} with the grammar: {:?}",
                output.status
            );
        }
    }
}

#[test]
fn a_mark_and_utf_16_are_read_as_libvirt_reads_them() {
    let xml = "<domain><name>x</name><devices><memory model='egm'/></devices></domain>";
    let utf_16: Vec<_> = xml.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let marked = [b"\xef\xbb\xbf", xml.as_bytes()].concat();
    for input in [xml.as_bytes(), &utf_16, &marked] {
        let output = fed(&["--no-host", "--no-schema", "-"], input);
        let stdout = text(&output.stdout);
        assert!(stdout.contains("error[EGM001]") && stdout.contains("EGM008"), "{stdout}");
    }
}

/// What is missing is said where it is missing, and not what begins there of the parser's knowledge.
#[test]
fn a_file_that_is_cut_off_is_said_to_end_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cut.xml");
    let whole = std::fs::read_to_string(support::fixtures().join("domains/minimal.xml")).unwrap();
    let ends = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .args(["validate", "--no-host", "--no-schema"])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(4), "{text}");
        let stderr = self::text(&output.stderr).replace(file.to_str().unwrap(), "cut.xml");
        stderr.trim_end().to_owned()
    };
    let cut = whole.find("<console").unwrap();
    assert_eq!(ends(&whole[..cut + 4]), "egm-probe: cut.xml:10:9: it ends within a tag");
    assert_eq!(ends(&whole[..cut + 14]), "egm-probe: cut.xml:10:19: it ends within a tag");
    // A tag that is none before the end is no end.
    assert_eq!(
        ends(&format!("{}<1></domain>", &whole[..cut])),
        "egm-probe: cut.xml:10:6: invalid name token"
    );
}

#[test]
fn several_files_are_checked_and_the_worst_is_told() {
    let folder = support::fixtures().join("domains");
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .args(["validate", "--no-host", "--no-schema"])
            .args(args)
            .current_dir(&folder)
            .output()
            .unwrap()
    };
    let output = run(&["minimal.xml", "no.xml", "has-egm.xml", "bad.xml"]);
    assert_eq!(output.status.code(), Some(4));
    let stdout = text(&output.stdout);
    assert!(
        stdout.starts_with("minimal.xml: nothing wrong, and no EGM memory in it\n"),
        "{stdout}"
    );
    assert!(stdout.ends_with("has-egm.xml: 2 errors, 2 warnings\n"), "{stdout}");
    assert_eq!(
        text(&output.stderr),
        "egm-probe: no.xml: No such file or directory\n\
         egm-probe: bad.xml:2:12: expected 'name' tag, not 'nam'\n"
    );
    for (args, code) in [
        (&["minimal.xml"][..], 0),
        (&["has-egm.xml", "minimal.xml"], 1),
        (&["running.xml"], 0),
        (&["has-egm.xml", "--severity", "error"], 1),
        (&["bad/gb200-full-gpu-list/allocation-on-demand.xml"], 0),
        (&["bad/gb200-full-gpu-list/allocation-on-demand.xml", "--strict"], 1),
        (
            &[
                "bad/gb200-full-gpu-list/allocation-on-demand.xml",
                "--strict",
                "--severity",
                "error",
            ],
            1,
        ),
        (&["--explain", "EGM999"], 2),
        (&[], 2),
    ] {
        assert_eq!(run(args).status.code(), Some(code), "{args:?}");
    }
    let output = run(&["--severity", "error", "has-egm.xml"]);
    assert!(text(&output.stdout).ends_with("has-egm.xml: 2 errors; 2 are not shown\n"));
    let output = run(&["-q", "has-egm.xml"]);
    assert_eq!((text(&output.stdout), output.status.code()), (String::new(), Some(1)));
}

/// The grammar in process takes blanks about a value for nothing, where libvirt's own does not.
#[test]
fn blanks_about_a_value_are_found_by_rules() {
    let tray = support::fixtures().join("domains/good/gb200-full-gpu-list/tray.xml");
    let tray = fs::read_to_string(tray).unwrap();
    for (value, place) in [("/dev/egm4", "38:22"), ("ua-hostdev0", "39:71")] {
        let xml = tray.replacen(&format!(">{value}<"), &format!("> {value} <"), 1);
        let output = fed(&["--no-host", "-"], xml.as_bytes());
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{stdout}");
        assert!(stdout.contains(&format!("standard input:{place}\n")), "{stdout}");
    }
}

#[test]
fn what_could_not_be_checked_is_said() {
    let minimal = support::fixtures().join("domains/minimal.xml");
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .arg("--from")
            .arg(support::archive("no-egm"))
            .arg("validate")
            .args(args)
            .arg(&minimal)
            .output()
            .unwrap()
    };
    let output = run(&["--no-schema"]);
    assert_eq!(output.status.code(), Some(0));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("egm-probe: note: not held against this host: no EGM"), "{stderr}");
    let output = run(&["--schema", "/no/such"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("/no/such: libvirt's grammar cannot be used"));
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("domain.rng"), "<grammar/>").unwrap();
    assert_eq!(run(&["--schema", empty.path().to_str().unwrap()]).status.code(), Some(4));
}

#[test]
fn every_rule_is_explained() {
    for rule in RULES {
        let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .args(["validate", "--explain", &rule.code.to_lowercase()])
            .output()
            .unwrap();
        let severity = if rule.severity == Severity::Error { "error" } else { "warning" };
        let expected = format!(
            "{} ({severity}): {}\n\n{}\n\nSource: {}\n",
            rule.code, rule.title, rule.explanation, rule.source
        );
        assert_eq!(text(&output.stdout), expected);
        assert_eq!(output.status.code(), Some(0));
    }
    let all = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .args(["validate", "--explain", "all"])
        .output()
        .unwrap();
    assert_eq!(text(&all.stdout).lines().count(), RULES.len());
    let codes: BTreeSet<_> = RULES.iter().map(|rule| rule.code).collect();
    assert_eq!(codes.len(), RULES.len(), "a code twice");
}
