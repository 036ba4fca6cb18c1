//! Compares the output for each machine with its golden file, also from a capture and from an
//! extracted root, and validates its JSON documents.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use jsonschema::{Registry, Validator};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::tree::Tree;
use crate::support::{fixtures, machine, machines, machines_below};
use crate::{golden, support, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in machines() {
        let add = |kind, test: fn(&str)| {
            let machine = name.clone();
            trial(kind, &name, move || test(&machine))
        };
        trials.push(add("golden", golden::is_as_recorded));
        trials.push(add("json", documents_are_valid));
        trials.push(add("capture", capture_shows_the_same));
        trials.push(add("directory", directory_shows_the_same));
    }
    // Not a machine: domains into which EGM is put.
    trials.push(trial("golden", "stanza", || golden::is_as_recorded("stanza")));
    for name in machines_below("doctor") {
        let machine = name.clone();
        trials.push(trial("json", &name, move || documents_are_valid(&machine)));
    }
    trials
}

fn egm_probe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_egm-probe")).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn schema(name: &str) -> Value {
    let path = format!("{}/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The validator of each kind of document; the schemas refer to that of `list`.
static VALIDATORS: LazyLock<BTreeMap<&str, Validator>> = LazyLock::new(|| {
    let registry = Registry::new().add("urn:egm-probe:list:1", schema("list")).unwrap();
    let registry = registry.prepare().unwrap();
    ["list", "show", "topology", "stanza", "watch", "doctor", "udev"]
        .into_iter()
        .map(|name| {
            let options = jsonschema::options().with_registry(&registry);
            (name, options.build(&schema(name)).unwrap())
        })
        .collect()
});

fn documents_are_valid(name: &str) {
    let from = machine(name);
    for args in [
        &["list", "--json"][..],
        &["show", "--json"],
        &["topology", "--json"],
        &["watch", "--initial", "--json"],
        &["doctor", "--json"],
        &["udev", "status", "--json"],
        &["stanza", "--all", "--force", "--format", "json", "--size", "2MiB"],
        &["stanza", "--all", "--format", "json", "--with", "hostdev,numa,machine"],
    ] {
        let output = egm_probe(&[&["--from", text(&from)], args].concat());
        let stdout = String::from_utf8(output.stdout).unwrap();
        // Without EGM there is nothing to show, to give, or to watch.
        let may_be_empty = ["show", "stanza", "watch"].contains(&args[0]);
        assert!(!stdout.is_empty() || may_be_empty, "{args:?}: no document");
        let documents = serde_json::Deserializer::from_str(&stdout).into_iter::<Value>();
        for document in documents {
            let document = document.unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"));
            let errors: Vec<_> = VALIDATORS[args[0]]
                .iter_errors(&document)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{args:?}:\n{}", errors.join("\n"));
        }
    }
}

/// Records a machine, with claims.
fn capture(from: &Path, file: &Path) -> Vec<u8> {
    let output = egm_probe(&["--from", text(from), "capture", "--with-claims", text(file)]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    fs::read(file).unwrap()
}

fn capture_shows_the_same(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    for shared in ["domains", "rfc"] {
        symlink(fixtures().join(shared), folder.path().join(shared)).unwrap();
    }
    let recorded = fs::read_to_string(fixtures().join(name).join("golden.txt")).unwrap();
    let recorded = recorded.replace("--from . ", "--from host.tar.gz ");
    let folder = folder.path().join(name);
    fs::create_dir(&folder).unwrap();
    let file = folder.join("host.tar.gz");
    let first = capture(&machine(name), &file);
    golden::assert_same(&recorded, &golden::current(&recorded, &folder), name);
    // A capture of the capture has the same bytes.
    let second = capture(&file, &folder.join("second.tar.gz"));
    assert!(first == second, "a capture of its capture has other bytes");
}

fn directory_shows_the_same(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    if let Err(why) = Tree::read(&machine(name)).extract(folder.path(), "") {
        assert!(why.contains("mknod"), "{why}");
        support::skip("making device nodes needs root");
        return;
    }
    for args in [&["list", "--json"][..], &["show"], &["list", "-O"]] {
        let answer = |option: &str, root: &Path| {
            let output = egm_probe(&[&[option, text(root)], args].concat());
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        let expected = answer("--from", &machine(name));
        golden::assert_same(&expected, &answer("--sysroot", folder.path()), name);
    }
}
