//! The JSON schemas: what is not of the contract is invalid. Those of the machines are tested by fixture.

use crate::support;
use std::process::Command;

use jsonschema::{Registry, Validator};
use serde_json::{Value, json};

pub(crate) fn schema(name: &str) -> Value {
    let path = format!("{}/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The validator of a document; the schemas refer to each other by name.
fn validator(name: &str) -> Validator {
    let registry =
        Registry::new().add("urn:egm-probe:list:1", schema("list")).unwrap().prepare().unwrap();
    jsonschema::options().with_registry(&registry).build(&schema(name)).unwrap()
}

fn document(machine: &str, args: &[&str]) -> Option<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .arg("--from")
        .arg(support::machine(machine))
        .args(args)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty() || !output.status.success(), "stderr besides a document");
    (!output.stdout.is_empty()).then(|| serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn stanzas_are_what_their_schema_says() {
    let validator = validator("stanza");
    let good = document("gb200-full-gpu-list", &["stanza", "--all", "--format", "json"]).unwrap();
    for (pointer, bad) in [
        ("/devices/0/gpu", json!("9:1:0.0")),
        ("/devices/0/alias", json!("hostdev0")),
        ("/devices/0/size", json!(1)),
        ("/devices", json!([])),
        ("/qemu_args", json!("-object")),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(pointer).unwrap() = bad;
        assert!(!validator.is_valid(&document), "{pointer}");
    }
}

#[test]
fn diagnoses_conform_to_their_schema() {
    let validator = validator("validate");
    let domains = support::fixtures().join("domains");
    let bad = domains.join("bad/gb200-full-gpu-list");
    let files = std::fs::read_dir(bad).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "xml"));
    let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .arg("--from")
        .arg(support::machine("gb200-full-gpu-list"))
        .args(["validate", "--json"])
        .args(files)
        .args([domains.join("minimal.xml"), domains.join("bad.xml"), domains.join("no.xml")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    let files = document["files"].as_array().unwrap();
    assert!(files.len() > 80);
    let [minimal, bad, none] = files.last_chunk::<3>().unwrap();
    assert_eq!(minimal["findings"], json!([]));
    assert_eq!((&bad["findings"], bad["error"].is_string()), (&json!(null), true));
    assert_eq!((&none["findings"], none["error"].is_string()), (&json!(null), true));
    for (pointer, bad) in [("/files/0/findings/0/code", json!("X")), ("/files/0/file", json!(1))] {
        let mut document = document.clone();
        *document.pointer_mut(pointer).unwrap() = bad;
        assert!(!validator.is_valid(&document), "{pointer}");
    }
}

/// The output of a command with any exit code.
fn printed(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_egm-probe")).args(args).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn diagnoses_of_hosts_conform_to_their_schemas() {
    let (doctor, udev) = (validator("doctor"), validator("udev"));
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    for command in ["install", "install", "uninstall"] {
        let document = printed(&["udev", command, "--root", root, "--json"]);
        assert!(udev.is_valid(&document), "{document}");
    }
    let healthy = support::machine("doctor/healthy");
    let good = printed(&["--from", healthy.to_str().unwrap(), "doctor", "--json"]);
    for (pointer, bad) in [
        ("/checks/0/verdict", json!("maybe")),
        ("/checks/0/code", json!("EGM001")),
        ("/checks/16/message", json!(null)),
        ("/healthy", json!(null)),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(pointer).unwrap() = bad;
        assert!(!doctor.is_valid(&document), "{pointer}");
    }
}

#[test]
fn lines_of_watch_conform_to_their_schema() {
    let validator = validator("watch");
    let mut lines = 0;
    for machine in support::machines() {
        let output = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
            .arg("--from")
            .arg(support::machine(&machine))
            .args(["watch", "--initial", "--json"])
            .output()
            .unwrap();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let document: Value = serde_json::from_str(line).unwrap();
            assert!(validator.is_valid(&document), "{machine}: {line}");
            let mut more = document;
            more["extra"] = json!(0);
            assert!(!validator.is_valid(&more), "a field more");
            lines += 1;
        }
    }
    assert!(lines > 100, "{lines}");
}

#[test]
fn the_file_of_leases_conforms_to_its_schema() {
    let validator = validator("leases");
    let host = crate::live::extract("gh200-quad");
    let file = || {
        let text = std::fs::read(host.path().join("run/egm-probe/leases.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()
    };
    for (args, count) in [
        (&["reserve", "egm4", "egm6", "--for", "vm1"][..], 1),
        (&["reserve", "egm5", "--for", "vm \"2\""], 2),
        (&["release", "egm4", "--for", "vm1"], 2),
        (&["release", "--all", "--for", "vm1"], 1),
        (&["reserve", "egm6", "--for", "vm3", "--", "true"], 2),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
        let status = command.arg("--sysroot").arg(host.path()).args(args).output().unwrap().status;
        assert!(status.success(), "{args:?}");
        let errors: Vec<_> =
            validator.iter_errors(&file()).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{args:?}:\n{}", errors.join("\n"));
        assert_eq!(file()["leases"].as_array().unwrap().len(), count, "{args:?}");
    }
    for (pointer, bad) in [
        ("/schema", json!("egm-probe.leases/2")),
        ("/leases/0/regions", json!([])),
        ("/leases/0/regions", json!(["banana"])),
        ("/leases/0/for", json!("")),
        ("/leases/0/expires", json!(1_795_953_600)),
        ("/leases/1/process", json!({ "pid": 7 })),
    ] {
        let mut document = file();
        *document.pointer_mut(pointer).unwrap() = bad;
        assert!(!validator.is_valid(&document), "{pointer}");
    }
}

#[test]
fn the_schema_refuses_other_documents() {
    let validator = validator("list");
    let good = document("gb200-full-gpu-list", &["list", "--json"]).unwrap();
    assert!(validator.is_valid(&good));
    for (pointer, bad) in [
        ("/schema", json!("egm-probe.list/2")),
        ("/regions/0/size", json!("447 GiB")),
        ("/regions/0/free", json!(-1)),
        ("/regions/0/state", json!("maybe")),
        ("/regions/0/gpus/0/address", json!("0009:01:20.0")),
        ("/regions/0/gpus/0", json!({ "address": "0009:01:00.0" })),
        ("/regions/0/claims", json!([{ "kind": "process" }])),
        ("/regions/0/warnings", json!([1])),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(pointer).unwrap() = bad;
        assert!(!validator.is_valid(&document), "{pointer}");
    }
    let mut more = good.clone();
    more["regions"][0]["extra"] = json!(0);
    assert!(!validator.is_valid(&more), "a field more");
}
