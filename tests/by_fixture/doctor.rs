//! The hosts of `doctor`: each is ready, or the check that its name begins with alone does not pass.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use egm_probe::doctor::{CHECKS, Check};
use libtest_mimic::Trial;
use serde_json::Value;

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
        trials.push(trial("plan", &name, move || plan_is_a_script(&host)));
    }
    trials
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

/// Runs the command of the host's golden file with one more option.
fn run(host: &str, option: &str) -> Output {
    let folder = fixtures().join(host);
    let golden = fs::read_to_string(folder.join("golden.txt")).unwrap();
    let command = golden.lines().find_map(|line| line.strip_prefix("$ egm-probe")).unwrap();
    let args = command.split('|').next().unwrap().split_whitespace();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    command.args(args).arg(option).current_dir(folder).output().unwrap()
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
    let output = run(host, "--json");
    let document = document(&output);
    let found = document["checks"].as_array().unwrap();
    let verdicts: BTreeMap<_, _> = found
        .iter()
        .map(|check| (check["code"].as_str().unwrap(), check["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(verdicts.len(), CHECKS.len());
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
    assert!(is_hinted || ["D01", "D04"].contains(&check.code), "no hint");
}

/// A shell can read the plan, and no line of it runs that asks or interrupts.
fn plan_is_a_script(host: &str) {
    let check = check_of(host);
    let plan = String::from_utf8(run(host, "--fix-plan").stdout).unwrap();
    assert!(plan.starts_with("#!/bin/sh\n"), "{plan}");
    let is_in = |check: &Check| plan.contains(&format!("# {} ", check.code));
    assert!(check.is_none_or(is_in), "{plan}");
    assert_eq!(CHECKS.iter().any(is_in), check.is_some(), "{plan}");
    let document = document(&run(host, "--json"));
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
