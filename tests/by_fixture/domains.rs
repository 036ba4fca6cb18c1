//! The domains: good ones have no findings, bad ones those recorded beside them, and those that
//! NVIDIA's libvirt was given have its verdict. libvirt's schema in process agrees with xmllint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use egm_probe::check::{RULES, SCHEMAS, Schema};
use egm_probe::domain::{Document, SourceText};
use libtest_mimic::Trial;
use regex::Regex;

use crate::support::domains::{domains, grace, spellings, stem};
use crate::support::xmllint::{can_run, extension_of, schemas, validates_with};
use crate::support::{fixtures, machine};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial("domain", "every-rule-is-broken", every_rule_is_broken)];
    for (kind, test) in [("good", has_no_findings as fn(&Path)), ("bad", has_its_diagnosis)] {
        for path in domains(kind) {
            let relative =
                path.strip_prefix(fixtures().join("domains")).unwrap().with_extension("");
            let name = relative.to_str().unwrap().to_owned();
            let file = path.clone();
            trials.push(trial("domain", &name, move || test(&path)));
            trials.push(trial("schema", &name, move || schemas_agree_on(&file)));
        }
    }
    trials.push(trial("schema", "grace", schemas_agree_on_grace));
    trials
}

/// The bad domain that has no machine for EGM. The others without one are about EGM itself.
const NO_MACHINE: &str = "not-a-complete-guest";

/// Runs in the folder of a domain, on its machine; with the schema of the libvirt installed here, if
/// there is one. Notes are not shown, since they depend on its version.
fn validate(path: &Path, args: &[&str]) -> Output {
    let folder = path.parent().unwrap();
    let host = folder.file_name().unwrap().to_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    command.current_dir(folder);
    if host == "no-host" {
        command.args(["validate", "--no-host"]);
    } else {
        command.arg("--from").arg(machine(host)).arg("validate");
    }
    if Path::new(SCHEMAS).exists() {
        command.args(["--schema", SCHEMAS, "--severity", "warning"]);
    }
    if stem(path) != NO_MACHINE {
        command.args(["--allow", "EGM201"]);
    }
    command.args(args).arg(path.file_name().unwrap()).output().unwrap()
}

/// Output without everything that depends on the version of the installed libvirt.
fn of_any_version(output: &Output) -> String {
    let stdout = str::from_utf8(&output.stdout).unwrap();
    let stdout = Regex::new("according to libvirt [0-9.]+'s schema")
        .unwrap()
        .replace_all(stdout, "according to libvirt's schema");
    Regex::new("; [0-9]+ not shown\n").unwrap().replace_all(&stdout, "\n").into_owned()
}

fn has_no_findings(path: &Path) {
    let output = validate(path, &["--strict"]);
    let none = if stem(path) == "no-egm-at-all" { ", no EGM memory" } else { "" };
    let expected = format!("{}.xml: no problems found{none}\n", stem(path));
    assert_eq!(of_any_version(&output), expected);
    assert_eq!(output.status.code(), Some(0));
}

fn has_its_diagnosis(path: &Path) {
    if !can_run(&["xmllint"]) {
        return;
    }
    let output = validate(path, &[]);
    let printed = of_any_version(&output);
    let golden = path.with_extension("txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &printed).unwrap();
    }
    let recorded = fs::read_to_string(&golden).unwrap_or_default();
    crate::golden::assert_same(&recorded, &printed, &golden.display().to_string());
    let has_errors = printed.contains("\nerror[") || printed.starts_with("error[");
    assert!(has_errors || printed.contains("warning["), "no finding");
    assert_eq!(output.status.code(), Some(i32::from(has_errors)));
}

/// These depend on the installed libvirt or an option, and have tests of their own.
const OTHERS: [&str; 4] = ["EGM091", "EGM092", "EGM093", "EGM115"];

fn every_rule_is_broken() {
    let recorded: String = domains("bad")
        .iter()
        .map(|path| fs::read_to_string(path.with_extension("txt")).unwrap_or_default())
        .collect();
    for rule in RULES.iter().filter(|rule| !OTHERS.contains(&rule.code)) {
        let code = format!("[{}]", rule.code);
        assert!(recorded.contains(&code), "no domain breaks {}: {}", rule.code, rule.title);
    }
}

/// The schema of a libvirt: as the library reads it, and for xmllint with the extension.
struct Pair {
    directory: PathBuf,
    whole: Schema,
    extension: PathBuf,
}

/// One for each libvirt whose schema is here.
static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let pair = |(index, directory): (usize, PathBuf)| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schema-{index}"));
        fs::create_dir_all(&folder).unwrap();
        let extension = extension_of(&directory, &folder);
        Pair { whole: Schema::read(&directory).unwrap(), directory, extension }
    };
    schemas().into_iter().enumerate().map(pair).collect()
});

/// Whether a domain is valid, which the library and xmllint must agree on.
fn is_valid(pair: &Pair, path: &Path, text: &str) -> bool {
    let document = Document::parse(text).unwrap();
    let found = pair.whole.check(&document).unwrap();
    // The library reads the parts of a schema that a domain needs: the others change nothing.
    let part = Schema::read_for(&pair.directory, [text]).unwrap();
    assert_eq!(part.check(&document).unwrap(), found);
    let is_valid = validates_with(&pair.extension, path);
    assert_eq!(found.is_empty(), is_valid, "by {}: {found:?}\n{text}", pair.directory.display());
    is_valid
}

fn schemas_agree_on(path: &Path) {
    if !can_run(&["xmllint"]) {
        return;
    }
    let source = SourceText::decode(&fs::read(path).unwrap()).unwrap();
    // The crate ignores spaces around numbers, which a rule finds.
    let has_spaces = ["with-spaces", "of-its-own"].iter().any(|end| stem(path).ends_with(end));
    if source.text().contains("<domstatus") || has_spaces {
        return;
    }
    for pair in &*PAIRS {
        is_valid(pair, path, source.text());
    }
}

/// Whole Grace domains, and parts of them that NVIDIA's schema also has.
fn grace_domains() -> Vec<String> {
    let with = |before: &str, part: &str| {
        assert!(grace().contains(before), "{before}");
        grace().replacen(before, &format!("{before}{part}"), 1)
    };
    let mut domains: Vec<_> = spellings().into_iter().map(|(_, domain)| domain).collect();
    domains.push(with("<memory model='egm' access='shared'>", "<driver iommu='on'/>"));
    domains.push(with("<memory model='egm' access='shared'>", "<alias name='ua-egm0'/>"));
    domains.push(with("<driver iommufd='yes'/>", "<vpasidCapOffset>0x100</vpasidCapOffset>"));
    domains.push(grace().replacen("iommufd='yes'", "name='vfio' iommufd='no'", 1));
    domains.push(with("</maxMemory>", "<iothreads>4</iothreads>"));
    domains
}

/// Faults in the parts that the extension describes.
const GRACE_FAULTS: [(&str, &str); 12] = [
    ("pciBus='1'", "pciBus='x'"),
    ("accel='on'", "accel='yes'"),
    ("ssidSize='20'", "ssidSise='20'"),
    ("oas='48'", "oas='x'"),
    ("iommufd='yes'", "iommufd='on'"),
    ("<iommufd enabled='yes'/>", "<iommufd enabled='on'/>"),
    ("nodeset='2-9'", "nodeset='x'"),
    ("<ras state='on'/>", "<ras state='yes'/>"),
    ("memReserve='8192'", "memReserve='x'"),
    ("<access mode='shared'/>", "<access mode='x'/>"),
    ("<gic version='3'/>", "<gic version='9'/>"),
    ("</maxMemory>", "</maxMemory><memtune x=''/>"),
];

fn schemas_agree_on_grace() {
    if !can_run(&["xmllint"]) {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    for pair in &*PAIRS {
        for domain in grace_domains() {
            fs::write(file.path(), &domain).unwrap();
            assert!(is_valid(pair, file.path(), &domain), "{domain}");
        }
        for (part, fault) in GRACE_FAULTS {
            assert!(grace().contains(part), "{part}");
            let domain = grace().replacen(part, fault, 1);
            fs::write(file.path(), &domain).unwrap();
            assert!(!is_valid(pair, file.path(), &domain), "{fault} is valid");
        }
    }
}
