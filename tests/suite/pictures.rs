//! The outputs of `topology --svg` and `metrics`, held against what reads them.

use crate::live::can;
use crate::support;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn run(machine: &str, args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("--from").arg(support::machine(machine)).args(args).output().unwrap()
}

/// What reads from standard input, given a text.
fn given(command: &[&str], text: &[u8]) -> Output {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_picture_of_every_machine_is_drawn_and_its_text_is_text() {
    if !can("rsvg-convert", &["rsvg-convert", "--version"])
        || !can("xmllint", &["xmllint", "--version"])
    {
        return;
    }
    for machine in support::machines() {
        let output = run(&machine, &["topology", "--svg", "-"]);
        assert!(output.status.success(), "{machine}: {output:?}");
        let checked = given(&["xmllint", "--noout", "-"], &output.stdout);
        assert!(checked.status.success(), "{machine}: {checked:?}");
        let svg = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(!svg.contains(|c: char| c.is_control() && c != '\n'), "{machine}");
        let list = run(&machine, &["list", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
        for region in list["regions"].as_array().unwrap() {
            let name = region["name"].as_str().unwrap();
            assert!(svg.contains(&format!(">{name}  ")), "{machine}: {name} is not in it");
            for gpu in region["gpus"].as_array().unwrap() {
                let address = gpu["address"].as_str().unwrap();
                assert!(svg.contains(&format!(">GPU {address}<")), "{machine}: {address}");
            }
        }
        let png = given(&["rsvg-convert"], &output.stdout);
        assert!(png.status.success() && png.stdout.starts_with(b"\x89PNG"), "{machine}: {png:?}");
        assert_eq!(
            run(&machine, &["topology", "--svg", "-"]).stdout,
            output.stdout,
            "the same each time"
        );
    }
}

/// The picture in the README is that of a recorded host, as it is drawn now.
#[test]
fn the_readme_s_picture_is_what_is_drawn() {
    let drawn = run("claims-two-pieces", &["topology", "--svg", "-"]).stdout;
    let path = support::fixtures().join("../../docs/topology.svg");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    assert!(fs::read(path).unwrap() == drawn, "run `make golden`");
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let parser = "import sys
from prometheus_client.parser import text_string_to_metric_families as parse
names = set()
for family in parse(sys.stdin.read()):
    assert family.type == 'gauge' and family.documentation, family
    assert family.name not in names, family.name
    names.add(family.name)
    labels = [tuple(sorted(sample.labels.items())) for sample in family.samples]
    assert len(labels) == len(set(labels)), family
    for sample in family.samples:
        print(sample.name, sorted(sample.labels.items()), sample.value)
";
    if !can("the Prometheus parser", &["/usr/bin/python3", "-c", "import prometheus_client.parser"])
    {
        return;
    }
    for machine in support::machines() {
        let output = run(&machine, &["metrics"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{machine}: {output:?}");
        let read = given(&["/usr/bin/python3", "-c", parser], &output.stdout);
        assert!(read.status.success(), "{machine}: {}", String::from_utf8_lossy(&read.stderr));
        let samples = String::from_utf8(read.stdout).unwrap();
        let written = String::from_utf8(output.stdout).unwrap();
        let written = written.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples.lines().count(), written, "{machine}");
        let complete = samples.lines().any(|line| line == "egm_scan_complete [] 1.0");
        let list = run(&machine, &["list", "--json"]);
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let is_complete = list.contains("\"occupancy\": \"complete\"");
        // A lease that cannot be read makes a region unknown, too.
        let is_complete = is_complete && machine != "leases-broken";
        assert_eq!(complete, is_complete, "{machine}");
    }
}

#[test]
fn files_are_written_whole_in_the_place_of_what_is_there() {
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
