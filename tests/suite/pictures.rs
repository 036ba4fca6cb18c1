//! The outputs of `topology --svg` and `metrics`, checked with the programs that read them.

use crate::live::can;
use crate::stanza::fed;
use crate::support;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn run(machine: &str, args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("--from").arg(support::machine(machine)).args(args).output().unwrap()
}

#[test]
fn the_picture_of_every_machine_is_drawn_and_its_text_is_text() {
    if !can("rsvg-convert", &["rsvg-convert", "--version"]) {
        return;
    }
    for machine in support::machines() {
        let output = run(&machine, &["topology", "--svg", "-"]);
        assert!(output.status.success(), "{machine}: {output:?}");
        let svg = String::from_utf8(output.stdout).unwrap();
        let parsed = roxmltree::Document::parse(&svg);
        assert!(parsed.is_ok(), "{machine}: {parsed:?}");
        assert!(!svg.contains(|c: char| c.is_control() && c != '\n'), "{machine}");
        let list = run(&machine, &["list", "--json", "--no-occupancy"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        for region in list["regions"].as_array().unwrap() {
            let name = region["name"].as_str().unwrap();
            assert!(svg.contains(&format!(">{name}  ")), "{machine}: {name} is not in it");
            for gpu in region["gpus"].as_array().unwrap() {
                let address = gpu["address"].as_str().unwrap();
                assert!(svg.contains(&format!(">GPU {address}<")), "{machine}: {address}");
            }
        }
        let png = fed(&mut Command::new("rsvg-convert"), svg.as_bytes());
        assert!(png.status.success() && png.stdout.starts_with(b"\x89PNG"), "{machine}: {png:?}");
    }
}

#[test]
fn the_picture_in_the_readme_is_up_to_date() {
    let drawn = run("claims-two-pieces", &["topology", "--svg", "-"]).stdout;
    let path = support::fixtures().join("../../docs/topology.svg");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    assert!(fs::read(path).unwrap() == drawn, "run `make golden`");
}

/// One process parses the metrics of all machines, each by its name in a JSON document.
const PARSER: &str = "import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
def samples(text):
    names = set()
    for family in parse(text):
        assert family.type == 'gauge' and family.documentation, family
        assert family.name not in names, family.name
        names.add(family.name)
        labels = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        assert len(labels) == len(set(labels)), family
        for sample in family.samples:
            yield [sample.name, sample.labels, sample.value]
texts = json.load(sys.stdin)
print(json.dumps({machine: list(samples(text)) for machine, text in texts.items()}))
";

#[test]
fn metrics_are_what_prometheus_reads() {
    if !can("the Prometheus parser", &["/usr/bin/python3", "-c", "import prometheus_client.parser"])
    {
        return;
    }
    let written: BTreeMap<String, String> = support::machines()
        .into_iter()
        .map(|machine| {
            let output = run(&machine, &["metrics"]);
            assert!(output.status.success() && output.stderr.is_empty(), "{machine}: {output:?}");
            (machine, String::from_utf8(output.stdout).unwrap())
        })
        .collect();
    let texts = serde_json::to_vec(&written).unwrap();
    let read = fed(Command::new("/usr/bin/python3").args(["-c", PARSER]), &texts);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: BTreeMap<String, Vec<(String, Value, f64)>> =
        serde_json::from_slice(&read.stdout).unwrap();
    for (machine, text) in written {
        let samples = &read[&machine];
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples.len(), lines, "{machine}");
        let complete: Vec<f64> = samples
            .iter()
            .filter(|(name, ..)| name == "egm_scan_complete")
            .map(|(.., value)| *value)
            .collect();
        let list = run(&machine, &["list", "--json"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        // A lease that cannot be read makes a region unknown, too.
        let is_complete = list["occupancy"] == "complete" && machine != "leases-broken";
        assert_eq!(complete, [f64::from(u8::from(is_complete))], "{machine}");
    }
}

#[test]
fn files_are_replaced_atomically() {
    let folder = tempfile::tempdir().unwrap();
    for (args, begins) in [(&["metrics", "-o"][..], "# HELP"), (&["topology", "--svg"], "<svg")] {
        let path = folder.path().join("out");
        fs::write(&path, "old").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let output = run("claims-vm", &[args, &[path.to_str().unwrap()]].concat());
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(fs::read_to_string(&path).unwrap().starts_with(begins));
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode, "another file was put in its place");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
        let nowhere = folder.path().join("no/such/out");
        let output = run("claims-vm", &[args, &[nowhere.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let output = run("claims-vm", &[args, &["/dev/null"]].concat());
        assert_eq!(output.status.code(), Some(4), "a device is not replaced: {output:?}");
    }
}
