//! The hosts of `doctor`: each is ready, or the check that its name begins with alone does not pass.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use egm_probe::doctor::{CHECKS, Check};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::{fixtures, machines_below};
use crate::{golden, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let hosts = machines_below("doctor");
    let mut trials = vec![trial("doctor", "every-check-has-a-host", {
        let hosts = hosts.clone();
        move || {
            for check in CHECKS {
                let is_of = |host: &String| host.starts_with(&format!("doctor/{}", check.code));
                assert!(hosts.iter().any(is_of), "no host on which {} does not pass", check.code);
            }
        }
    })];
    for consumer in ["libvirt", "kubernetes", "kata", "qemu"] {
        let hosts = hosts.clone();
        trials.push(trial("doctor", &format!("every-check-of-{consumer}-has-a-host"), move || {
            every_check_has_a_host(consumer, &hosts);
        }));
    }
    for host in hosts {
        let name = host.clone();
        trials.push(trial("golden", &name, {
            let host = host.clone();
            move || golden::is_as_recorded(&host)
        }));
        trials.push(trial("verdicts", &name, {
            let host = host.clone();
            move || its_check_alone_does_not_pass(&host)
        }));
        trials.push(trial("capture", &name, {
            let host = host.clone();
            move || its_capture_says_the_same(&host)
        }));
        trials.push(trial("plan", &name, move || plan_is_a_script(&host)));
    }
    trials
}

/// On the healthy host, every check for a consumer passes, and for each of them there is a host on
/// which it alone does not.
fn every_check_has_a_host(consumer: &str, hosts: &[String]) {
    let alone = |host: &String| {
        let document = document(&run(host, &["--json", "--consumer", consumer]));
        let checks = document["checks"].as_array().unwrap();
        let not = checks.iter().filter(|check| check["verdict"] != "pass");
        let blocked = |check: &&Value| {
            let message = check["message"].as_str().unwrap_or_default();
            check["verdict"] == "skip" && message.ends_with(" failed")
        };
        let found =
            not.filter(|check| !blocked(check)).map(|check| check["code"].as_str().unwrap());
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let found: BTreeMap<_, _> = hosts.iter().map(|host| (host.as_str(), alone(host))).collect();
    assert_eq!(found["doctor/healthy"], [""; 0]);
    let of_consumer = |check: &&Check| check.consumers.iter().any(|it| it.name() == consumer);
    for check in CHECKS.iter().filter(of_consumer) {
        let is_its = |codes: &Vec<String>| *codes == [check.code];
        assert!(found.values().any(is_its), "{consumer}: {}: no host", check.code);
    }
}

/// Every check that a check depends on, itself too.
fn way_to(code: &str) -> Vec<&'static str> {
    let mut way = Vec::new();
    let mut next = Some(code);
    while let Some(code) = next {
        let check = CHECKS.iter().find(|check| check.code == code).unwrap();
        way.push(check.code);
        next = check.parent;
    }
    way
}

/// Runs the command of the host's golden file with further options.
fn run(host: &str, options: &[&str]) -> Output {
    let folder = fixtures().join(host);
    let golden = fs::read_to_string(folder.join("golden.txt")).unwrap();
    let command = golden.lines().find_map(|line| line.strip_prefix("$ egm-probe")).unwrap();
    let args = command.split('|').next().unwrap().split_whitespace();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    // Another capture replaces the host.
    let args: Vec<_> = match options {
        ["--from", ..] => args.skip_while(|arg| *arg != "doctor").collect(),
        _ => args.collect(),
    };
    let (from, options) = options.split_at(if options.first() == Some(&"--from") { 2 } else { 0 });
    command.args(from).args(args).args(options).current_dir(folder).output().unwrap()
}

fn document(output: &Output) -> Value {
    let document = serde_json::from_slice(&output.stdout);
    document.unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The check that a host is for; `None` where all checks pass.
fn check_of(host: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| host.starts_with(&format!("doctor/{}", check.code)))
}

fn its_check_alone_does_not_pass(host: &str) {
    let check = check_of(host);
    let output = run(host, &["--json"]);
    let document = document(&output);
    let found = document["checks"].as_array().unwrap();
    let verdicts: BTreeMap<_, _> = found
        .iter()
        .map(|check| (check["code"].as_str().unwrap(), check["verdict"].as_str().unwrap()))
        .collect();
    let of_consumer = |check: &&Check| {
        check.consumers.iter().any(|consumer| document["consumer"] == consumer.name())
    };
    assert_eq!(verdicts.len(), CHECKS.iter().filter(of_consumer).count());
    let own = check.map_or("pass", |check| verdicts[check.code]);
    for (code, verdict) in &verdicts {
        // The checks that depend on one that fails are skipped; no other is touched.
        let is_after = check.is_some_and(|check| way_to(code).contains(&check.code));
        let expected = match check {
            Some(check) if check.code == *code => {
                assert_ne!(own, "pass", "{code}: {document}");
                own
            }
            Some(_) if is_after && own == "fail" => "skip",
            _ => "pass",
        };
        assert_eq!(*verdict, expected, "{code}: {document}");
    }
    assert_eq!(output.status.code(), Some(i32::from(own == "fail")));
    assert_eq!(document["healthy"], own != "fail");
    let Some(check) = check else { return };
    let found = found.iter().find(|it| it["code"] == check.code).unwrap();
    assert!(found["message"].is_string());
    let is_hinted = !found["hints"].as_array().unwrap().is_empty();
    assert!(is_hinted || own == "note" || ["D01", "D04"].contains(&check.code), "no hint");
}

/// The checks of a capture print the same lines, except for limits of processes, which it does not
/// have.
fn its_capture_says_the_same(host: &str) {
    let capture = NamedTempFile::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    command.arg("--from").arg(fixtures().join(host)).args(["capture", "--with-claims"]);
    assert!(command.arg(capture.path()).status().unwrap().success());
    let lines = |from: &[&str]| {
        let printed = String::from_utf8(run(host, from).stdout).unwrap();
        printed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_host = lines(&[]);
    let of_capture = lines(&["--from", capture.path().to_str().unwrap()]);
    let is_limit = |line: &&String| line.contains("how much memory QEMU may lock");
    let skipped: Vec<_> = of_capture.iter().filter(is_limit).collect();
    assert!(skipped.iter().all(|line| line.ends_with(": SKIP (D19: not in the capture)")));
    // The line of that check and its fixes.
    let without = |lines: &[String]| {
        let mut is_its = false;
        let mut kept = lines.to_vec();
        kept.retain(|line| {
            is_its = is_limit(&line) || is_its && line.starts_with("        ");
            !is_its
        });
        kept
    };
    let (host, capture) = (without(&of_host).join("\n"), without(&of_capture).join("\n"));
    assert!(host == capture, "{host}\nin the capture:\n{capture}");
}

/// A shell can read the plan, and no line of it runs that asks or interrupts.
fn plan_is_a_script(host: &str) {
    let check = check_of(host);
    let plan = String::from_utf8(run(host, &["--fix-plan"]).stdout).unwrap();
    assert!(plan.starts_with("#!/bin/sh\n"), "{plan}");
    let is_in = |check: &Check| plan.contains(&format!("# {} ", check.code));
    let document = document(&run(host, &["--json"]));
    let found = document["checks"].as_array().unwrap().iter();
    let mut found = found.filter(|found| found["verdict"] == "warn" || found["verdict"] == "fail");
    let is_wrong = found.next().is_some();
    assert!(!is_wrong || check.is_some_and(is_in), "{plan}");
    assert_eq!(CHECKS.iter().any(is_in), is_wrong, "{plan}");
    let hints = document["checks"].as_array().unwrap().iter().map(|check| &check["hints"]);
    for hint in hints.flat_map(|hints| hints.as_array().unwrap()) {
        for command in hint["commands"].as_array().unwrap() {
            let mark = if hint["by_hand"] == true { "# " } else { "" };
            let line = format!("{mark}{}", command.as_str().unwrap());
            assert!(plan.lines().any(|it| it == line), "{line}\n{plan}");
        }
    }
    let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(plan.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success(), "{plan}");
    for line in plan.lines().filter(|line| !line.starts_with('#')) {
        let asks = ["reboot", "systemctl edit", "unbind", "rm ", "kill"];
        assert!(!asks.iter().any(|word| line.contains(word)), "{line}");
    }
}
