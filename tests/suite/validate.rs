//! `validate`: valid domains, and domains with one fault each.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use egm_probe::check::{CheckOptions, RULES, SCHEMAS, Schema, validate as check};
use egm_probe::domain::{Dialect, Document};
use serde_json::Value;

use crate::support;
use crate::support::domains::{domains, grace, spellings, stem};
use crate::support::xmllint::{can_run, schemas};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// For each rule a good domain that comes close to breaking it.
const NEAR_MISSES: [(&str, &str); 85] = [
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
    ("EGM091", "max-memory-equal"),
    ("EGM092", "no-egm-at-all"),
    ("EGM093", "no-egm-at-all"),
    ("EGM094", "accelerated-smmus"),
    ("EGM095", "accelerated-smmus"),
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
    ("EGM112", "tray"),
    ("EGM113", "defined-by-itself"),
    ("EGM114", "reserved-for-itself"),
    ("EGM115", "tray"),
    ("EGM201", "without-iommufd"),
    ("EGM202", "shared-smmus"),
    ("EGM203", "shared-smmus"),
    ("EGM204", "shared-smmus"),
    ("EGM205", "shared-smmus"),
    ("EGM206", "shared-smmus"),
    ("EGM207", "shared-smmus"),
    ("EGM208", "shared-smmus"),
    ("EGM209", "complete"),
    ("EGM210", "without-iommufd"),
    ("EGM211", "without-iommufd"),
    ("EGM212", "complete"),
    ("EGM213", "complete"),
    ("EGM214", "shared-smmus"),
    ("EGM215", "without-iommufd"),
    ("EGM216", "complete"),
    ("EGM217", "without-iommufd"),
    ("EGM218", "complete"),
    ("EGM219", "distances"),
    ("EGM220", "shared-smmus"),
    ("EGM221", "shared-smmus"),
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

/// The findings of a domain on the recorded GB200, without the address of the host's devices.
fn codes(domain: &str, args: &[&str]) -> (Vec<(String, String)>, i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("domain.xml");
    fs::write(&file, domain).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .arg("--from")
        .arg(support::machine("gb200-full-gpu-list"))
        .args(["validate", "--json", "--strict"])
        .args(args)
        .arg(&file)
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = json["files"][0]["findings"].as_array().unwrap().iter();
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = findings.map(|finding| (of(finding, "code"), of(finding, "help")));
    (findings.collect(), output.status.code().unwrap(), json)
}

#[test]
fn each_dialect_has_its_spelling() {
    for (dialect, domain) in spellings() {
        for (used, _) in spellings() {
            let (found, code, json) = codes(&domain, &["--libvirt", used.name()]);
            assert_eq!(json["dialect"], used.name());
            let spelling: Vec<_> = found.iter().filter(|(code, _)| code == "EGM094").collect();
            let right = match used {
                Dialect::Nvidia11_9 => "pasid='on'".to_owned(),
                _ => format!("{}='20'", used.pasid_attribute()),
            };
            let expected = if used == dialect { 0 } else { 4 };
            assert_eq!(spelling.len(), expected, "{dialect} as {used}: {found:?}");
            let right = format!("{right}, or --libvirt {dialect}");
            assert!(spelling.iter().all(|(_, help)| *help == right), "{spelling:?}");
            assert_eq!(code, i32::from(used != dialect), "{dialect} as {used}");
            let without_egm = found.iter().filter(|(code, _)| code == "EGM093").count();
            assert_eq!(without_egm, usize::from(used == Dialect::Upstream), "{found:?}");
        }
    }
}

/// Schemas like NVIDIA's: with EGM, and with one spelling of the size of ids.
fn nvidia_schemas(prefix: &Path, attribute: &str) -> String {
    let schemas = prefix.join("share/libvirt/schemas");
    fs::create_dir_all(&schemas).unwrap();
    for file in fs::read_dir(SCHEMAS).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text =
            text.replace("<value>sgx-epc</value>", "<value>sgx-epc</value><value>egm</value>");
        let eim = "<attribute name=\"eim\">";
        let optional = format!("<attribute name=\"{attribute}\"/></optional><optional>{eim}");
        fs::write(schemas.join(path.file_name().unwrap()), text.replace(eim, &optional)).unwrap();
    }
    schemas.to_str().unwrap().to_owned()
}

#[test]
fn a_schema_with_egm_determines_the_dialect() {
    if !can_run(&["xmllint"]) {
        return;
    }
    for (dialect, domain) in &spellings()[..2] {
        let prefix = tempfile::tempdir().unwrap();
        let schemas = nvidia_schemas(prefix.path(), dialect.pasid_attribute());
        let library = prefix.path().join("lib/aarch64-linux-gnu/libvirt.so.0.12004.0");
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        fs::write(library, "").unwrap();
        let (found, code, json) = codes(domain, &["--schema", &schemas]);
        assert_eq!(json["dialect"], dialect.name());
        assert_eq!(json["schema_version"], "12.4.0");
        let is_egm = |finding: &&Value| finding["message"].as_str().unwrap().contains("'egm'");
        let findings = json["files"][0]["findings"].as_array().unwrap();
        assert_eq!(findings.iter().filter(is_egm).count(), 0, "{found:?}");
        assert_eq!(code, 0, "{found:?}");
    }
    let (_, _, json) = codes(&grace(), &[]);
    assert_eq!((&json["dialect"], &json["schema_version"]), (&"nvidia-12.4".into(), &Value::Null));
}

#[test]
fn an_older_libvirt_causes_only_notes() {
    if !can_run(&["xmllint"]) {
        return;
    }
    for schemas in schemas() {
        let (found, code, json) = codes(&grace(), &["--schema", schemas.to_str().unwrap()]);
        assert_eq!(code, 0, "{found:?}");
        let findings = json["files"][0]["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["severity"] == "note"), "{found:?}");
        let messages: BTreeSet<_> = findings.iter().map(|it| it["message"].to_string()).collect();
        assert_eq!(messages.len(), findings.len(), "one for each feature: {messages:?}");
        let has = |name: &str| messages.iter().any(|message| message.contains(name));
        assert!(has("<memory model='egm'>"), "{messages:?}");
        let text = fs::read_to_string(schemas.join("domaincommon.rng")).unwrap();
        for (name, attribute) in
            [("`accel`", "\"accel\""), ("<ras>", "\"ras\""), ("`memReserve`", "\"memReserve\"")]
        {
            assert_eq!(has(name), !text.contains(attribute), "{name}: {messages:?}");
        }
    }
}

#[test]
fn an_installed_libvirt_without_egm_causes_a_warning() {
    if !can_run(&["xmllint"]) {
        return;
    }
    let run = |args: &[&str]| {
        let output = fed(&[&["--no-host"], args, &["-"]].concat(), grace().as_bytes());
        (text(&output.stdout), output.status.code())
    };
    let (stdout, code) = run(&[]);
    assert_eq!(stdout.matches("warning[EGM092]").count(), 1, "{stdout}");
    assert_eq!(code, Some(0));
    assert_eq!(run(&["--strict"]).1, Some(1));
    for args in [&["--schema", SCHEMAS][..], &["--no-schema"], &["--allow", "egm092"]] {
        let (stdout, code) = run(&[args, &["--strict"]].concat());
        assert!(!stdout.contains("warning["), "{stdout}");
        assert_eq!(code, Some(0), "{args:?}");
    }
    let (stdout, _) = run(&["--libvirt", "upstream"]);
    assert!(!stdout.contains("EGM092") && stdout.contains("note[EGM093]"), "{stdout}");
}

#[test]
fn the_installed_libvirt_is_not_used_for_another_host() {
    let (found, _, json) = codes(&grace(), &[]);
    assert_eq!(found, []);
    let skipped = json["warnings"].as_array().unwrap().iter().any(|warning| {
        warning
            .as_str()
            .unwrap()
            .starts_with("libvirt's schema not checked: unknown for another host")
    });
    assert!(skipped, "{}", json["warnings"]);
}

#[test]
fn an_allowed_finding_is_a_note() {
    let domain = grace().replacen("accel='on'", "accel='off'", 1);
    let (found, code, json) = codes(&domain, &["--allow", "egm095", "--allow", "EGM001"]);
    assert_eq!((found.len(), code), (1, 0), "{found:?}");
    let finding = &json["files"][0]["findings"][0];
    assert_eq!((&finding["severity"], &finding["allowed"]), (&"note".into(), &true.into()));
    assert_eq!(codes(&domain, &["--allow", "EGM001"]).1, 1);
    let output = fed(&["--no-host", "--no-schema", "--allow", "EGM095", "-"], domain.as_bytes());
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("note[EGM095]") && stdout.ends_with(": 1 note\n"), "{stdout}");
    let output = fed(&["--allow", "EGM999", "-"], b"");
    assert_eq!(output.status.code(), Some(2));
}

/// An invalid pattern in the schema is an error of the check, not of the domain.
#[test]
fn a_schema_with_an_invalid_pattern_is_unusable() {
    if !can_run(&["xmllint"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(SCHEMAS).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("<param name=\"pattern\">", "<param name=\"pattern\">(");
        fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
    }
    let text = grace();
    let document = Document::parse(&text).unwrap();
    let schema = Schema::read_for(folder.path(), [text.as_str()]).unwrap();
    let options = CheckOptions { schema: Some(&schema), ..CheckOptions::default() };
    let error = check(&document, &options).unwrap_err();
    assert!(error.problem.starts_with("invalid pattern `("), "{error}");
}

#[test]
fn domains_without_egm_are_not_checked() {
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
            "standard input: no problems found, no EGM memory\n",
            "{xml}"
        );
    }
}

fn fed(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("sh")
        // Limits: 2 GB, 20 seconds of CPU time.
        .args(["-c", "set -e; ulimit -v 2000000; ulimit -t 20; exec \"$0\" validate \"$@\""])
        .arg(env!("CARGO_BIN_EXE_egm-probe"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may stop reading before the end.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn time_and_memory_are_bounded_for_any_input() {
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
        ("50 MB", domain(&"<a/>".repeat(12_500_000)), 4, "larger than 4 MiB"),
        ("entities", laughs.into(), 4, "1:1: XML with DTD detected"),
        ("namespaces", domain(&namespaces), 4, "500 namespaces"),
        ("deep", domain(&("<a>".repeat(10_000) + &"</a>".repeat(10_000))), 4, "256 deep"),
        ("attributes", domain(&format!("<a {}/>", "b='c' ".repeat(100_000))), 4, "attributes"),
        ("many", domain(&many), 1, ""),
        ("NUL", b"<domain><name>\0</name></domain>".to_vec(), 4, "1:15: "),
        ("one UTF-16 byte", b"<\0d".to_vec(), 4, "invalid UTF-16"),
        ("nothing", Vec::new(), 4, "1:1: "),
        ("blanks", vec![b' '; 1_000_000], 4, "1:1: document is empty"),
    ] {
        let output = fed(&["--no-host", "--no-schema", "-"], &input);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
        if can_run(&["xmllint"]) {
            let output = fed(&["--no-host", "-"], &input);
            let code = output.status.code();
            assert!(matches!(code, Some(0 | 1 | 4)), "{name} with the schema: {:?}", output.status);
        }
    }
}

#[test]
fn byte_order_marks_and_utf_16_are_handled_as_in_libvirt() {
    let xml = "<domain><name>x</name><devices><memory model='egm'/></devices></domain>";
    let utf_16: Vec<_> = xml.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let marked = [b"\xef\xbb\xbf", xml.as_bytes()].concat();
    for input in [xml.as_bytes(), &utf_16, &marked] {
        let output = fed(&["--no-host", "--no-schema", "-"], input);
        let stdout = text(&output.stdout);
        assert!(stdout.contains("error[EGM001]") && stdout.contains("EGM008"), "{stdout}");
    }
}

/// The error is at the end of the file, not where the parser's unfinished token starts.
#[test]
fn a_truncated_file_is_reported_at_its_end() {
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
    assert_eq!(ends(&whole[..cut + 4]), "egm-probe: cut.xml:10:9: unexpected end within a tag");
    assert_eq!(ends(&whole[..cut + 14]), "egm-probe: cut.xml:10:19: unexpected end within a tag");
    // An invalid tag before the end does not count.
    assert_eq!(
        ends(&format!("{}<1></domain>", &whole[..cut])),
        "egm-probe: cut.xml:10:6: invalid name token"
    );
}

#[test]
fn several_files_are_checked_and_the_worst_sets_the_exit_code() {
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
    assert!(stdout.starts_with("minimal.xml: no problems found, no EGM memory\n"), "{stdout}");
    assert!(stdout.ends_with("has-egm.xml: 3 errors, 2 warnings\n"), "{stdout}");
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
    assert!(text(&output.stdout).ends_with("has-egm.xml: 3 errors; 2 not shown\n"));
    let output = run(&["--severity", "error", "--strict", "has-egm.xml"]);
    assert!(text(&output.stdout).ends_with("has-egm.xml: 3 errors, 2 warnings\n"), "as errors");
    let output = run(&["-q", "has-egm.xml"]);
    assert_eq!((text(&output.stdout), output.status.code()), (String::new(), Some(1)));
}

/// The in-process schema ignores spaces around a value, but libvirt does not.
#[test]
fn rules_detect_spaces_around_values() {
    let tray = support::fixtures().join("domains/good/gb200-full-gpu-list/tray.xml");
    let tray = fs::read_to_string(tray).unwrap();
    for (value, place) in [("/dev/egm4", "43:22"), ("ua-hostdev0", "44:71")] {
        let xml = tray.replacen(&format!(">{value}<"), &format!("> {value} <"), 1);
        let output = fed(&["--no-host", "-"], xml.as_bytes());
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{stdout}");
        assert!(stdout.contains(&format!("standard input:{place}\n")), "{stdout}");
    }
}

#[test]
fn skipped_checks_are_reported() {
    let minimal = support::fixtures().join("domains/minimal.xml");
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .arg("--from")
            .arg(support::machine("no-egm"))
            .arg("validate")
            .args(args)
            .arg(&minimal)
            .output()
            .unwrap()
    };
    let output = run(&["--no-schema"]);
    assert_eq!(output.status.code(), Some(0));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("egm-probe: note: host rules not checked: no EGM"), "{stderr}");
    let output = run(&["--schema", "/no/such"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("/no/such: unusable libvirt schema"));
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("domain.rng"), "<grammar/>").unwrap();
    assert_eq!(run(&["--schema", empty.path().to_str().unwrap()]).status.code(), Some(4));
}

/// The regions of a domain must be available to it when it starts.
#[test]
fn a_domain_that_starts_needs_its_regions() {
    let good = support::fixtures().join("domains/good/claims-vm/region-of-its-own.xml");
    let vm1 = fs::read_to_string(good).unwrap();
    let vm2 = vm1.replace("<name>vm1<", "<name>vm2<");
    let run = |machine: &str, args: &[&str], domain: &str| {
        let machine = support::machine(machine);
        let from = ["--from", machine.to_str().unwrap(), "--json", "--allow", "EGM201"];
        let output = fed(&[&from, args, &["-"]].concat(), domain.as_bytes());
        let Ok(json) = serde_json::from_slice::<Value>(&output.stdout) else {
            return (text(&output.stderr), output.status.code());
        };
        let findings = json["files"][0]["findings"].as_array().unwrap().iter();
        let shown = |finding: &Value| {
            let [severity, code, message] =
                ["severity", "code", "message"].map(|key| finding[key].as_str().unwrap());
            format!("{severity} {code}: {message}\n")
        };
        let shown = findings.filter(|it| it["code"] != "EGM201").map(shown);
        (shown.collect(), output.status.code())
    };
    let reserved = "error EGM114: egm4 is reserved for vm1 until 9999-12-31T23:59:59Z\n\
         error EGM114: egm5 is reserved for vm1 until 9999-12-31T23:59:59Z\n";
    // A status file of its own says that it holds egm4.
    let unseen =
        "error EGM115: cannot determine whether egm5 is available: holders were not checked\n";
    let missing = "error EGM101: /dev/egm4 is not an EGM region of this host\n";
    for (machine, domain, before, starting) in [
        ("gb200-full-gpu-list", &vm1, "", ""),
        // Its own process, status file or reservation is not in its way.
        ("claims-vm", &vm1, "", ""),
        ("claims-running-seen", &vm1, "", ""),
        ("claims-running-unseen", &vm1, "", ""),
        ("leases", &vm1, "", ""),
        ("claims-vm", &vm2, "warning", "error EGM108: egm4 is in use by vm1[4242]\n"),
        ("claims-running-seen", &vm2, "warning", "error EGM108: egm4 is in use by vm1[4242]\n"),
        ("claims-running-unseen", &vm2, "warning", "error EGM108: egm4 is in use by vm1\n"),
        ("leases", &vm2, "warning", reserved),
        ("claims-no-proc", &vm1, "none", unseen),
        ("leases-broken", &vm1, "none", "error EGM115: cannot determine whether egm4 is available"),
        ("node-missing", &vm1, "error", "error EGM112: /dev/egm5: device node missing"),
        ("node-swapped", &vm1, "error", "error EGM112: /dev/egm4: "),
        ("no-egm", &vm1, "none", missing),
    ] {
        let (found, code) = run(machine, &["--start"], domain);
        assert!(found.starts_with(starting), "{machine}: {found}");
        assert_eq!(code, Some(i32::from(!starting.is_empty())), "{machine}: {found}");
        let (without, _) = run(machine, &[], domain);
        let expected = match before {
            "none" => String::new(),
            before => found.replace("error", before),
        };
        assert_eq!(without, expected, "{machine} without --start");
    }
    // Two domains that are off may alternate.
    let (found, code) = run("claims-defined", &["--start"], &vm1);
    assert!(found.starts_with("warning EGM113: egm4 ") && code == Some(0), "{found}");
    let (found, code) = run("claims-vm", &["--start", "--allow", "EGM108"], &vm2);
    assert!(found.starts_with("note EGM108: ") && code == Some(0), "{found}");
    let (_, code) = run("gb200-full-gpu-list", &["--start", "--no-occupancy"], &vm1);
    assert_eq!(code, Some(1));
    let (found, code) = run("no-sys", &["--start"], &vm1);
    assert!(
        found.contains("cannot determine whether this host has EGM") && code == Some(4),
        "{found}"
    );
    assert_eq!(run("no-egm", &["--start", "--no-host"], &vm1).1, Some(2));
}

#[test]
fn every_rule_is_explained() {
    let explain = |code: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
        program.args(["validate", "--explain", code]).output().unwrap()
    };
    let output = explain("egm001");
    assert_eq!(output.status.code(), Some(0));
    let printed = text(&output.stdout);
    let parts: Vec<_> = printed.trim_end().split("\n\n").collect();
    assert!(parts[0].starts_with("EGM001 (error): "), "{printed}");
    assert!(parts.last().unwrap().starts_with("Source: "), "{printed}");
    assert_eq!(explain("EGM001").stdout, output.stdout);

    let all = text(&explain("all").stdout);
    for rule in RULES {
        let line = |line: &&str| line.starts_with(rule.code) && line.ends_with(rule.title);
        assert_eq!(all.lines().filter(line).count(), 1, "{}: {all}", rule.code);
        assert!(!rule.explanation.is_empty() && !rule.source.is_empty(), "{}", rule.code);
    }
}

/// The size that a message suggests is a multiple of 2 MiB, so that following it is no new error.
#[test]
fn a_suggested_size_is_possible() {
    let good = "tests/fixtures/domains/good/gb200-full-gpu-list/shared-smmus.xml";
    let text = fs::read_to_string(good).unwrap();
    let size = "<size unit='KiB'>234356736</size>";
    let domain = text.replacen(size, &size.replace("736", "737"), 1);
    assert_ne!(domain, text);
    let (found, ..) = codes(&domain, &["--no-schema"]);
    let beyond = ("EGM104".to_owned(), "at most 234354688 KiB".to_owned());
    assert!(found.contains(&beyond), "{found:?}");
}
