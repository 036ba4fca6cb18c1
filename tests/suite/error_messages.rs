//! `doctor --explain` with error messages. `fixtures/error-messages.json` has those that NVIDIA's
//! libvirt printed for the documents in `fixtures/domains`, and others of QEMU, libvirt, the kernel
//! and kubelet.

use std::fs;
use std::process::Command;

use egm_probe::check::{CheckOptions, RULES, check};
use egm_probe::doctor::errors::{ERRORS, find};
use egm_probe::domain::Domain;
use serde_json::Value;

use crate::support;

/// Standard output, standard error and the exit code.
fn explain(text: &str) -> (String, String, Option<i32>) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    let output = program.args(["doctor", "--explain", text]).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    (stdout, stderr, output.status.code())
}

#[test]
fn every_recorded_message_is_explained() {
    let messages = fs::read(support::fixtures().join("error-messages.json")).unwrap();
    let mut messages: Vec<String> = serde_json::from_slice(&messages).unwrap();
    messages.extend(refused().into_iter().map(|(_, message)| message));
    messages.sort();
    messages.dedup();
    assert!(messages.len() > 60, "{}", messages.len());
    for message in &messages {
        let log = format!("2026-11-30 09:00:00.123+0000: 900: error : f:1 : {message}\nerror: x");
        let found = find(message);
        assert!(!found.is_empty(), "{message}");
        assert_eq!(find(&log).first(), found.first(), "{log}");
    }
    for form in ERRORS.iter().flat_map(|error| error.texts) {
        let is_recorded = |message: &String| form.split('*').all(|part| message.contains(part));
        assert!(messages.iter().any(is_recorded), "not a recorded message: {form}");
    }
    let (stdout, stderr, code) = explain(&messages[0]);
    assert!(stdout.contains("\ncause ") && stdout.contains("\nremedy "), "{stdout}");
    assert_eq!((stderr.as_str(), code), ("", Some(0)));
}

/// For a document that libvirt refused, the entry of its message names a rule that it violates.
#[test]
fn the_rules_of_a_message_find_its_cause() {
    // Only libvirt's schema finds it, and the encoding is not part of the rules.
    let others = ["gb200-full-gpu-list--fault-elsewhere.xml", "gb200-full-gpu-list--utf-16.xml"];
    let refused = refused();
    assert!(refused.len() > 40, "{}", refused.len());
    for (document, message) in refused.iter().filter(|(it, _)| !others.contains(&it.as_str())) {
        let file = support::fixtures().join("domains/measured").join(document);
        let text = fs::read_to_string(file).unwrap();
        let domain = Domain::parse(&text).unwrap();
        let findings = check(&domain, &CheckOptions::default());
        let codes = find(message)[0].codes;
        let is_found = findings.iter().any(|finding| codes.contains(&finding.rule.code));
        assert!(is_found, "{document}: {message}: {codes:?}: {findings:?}");
    }
}

/// The documents that libvirt refused, with its messages.
fn refused() -> Vec<(String, String)> {
    let verdicts = fs::read(support::fixtures().join("domains/measured/verdicts.json")).unwrap();
    let verdicts: Vec<Value> = serde_json::from_slice(&verdicts).unwrap();
    let text = |verdict: &Value, key| verdict[key].as_str().unwrap().to_owned();
    let all = verdicts.iter().map(|verdict| (text(verdict, "doc"), text(verdict, "error")));
    all.filter(|(_, message)| !message.is_empty()).collect()
}

#[test]
fn an_explanation_has_all_forms_and_codes() {
    for error in ERRORS {
        let (stdout, _, code) = explain(error.texts[0]);
        let first = stdout.split("\n\n").next().unwrap();
        for part in error.texts.iter().chain(error.codes).chain([&error.cause, &error.remedy]) {
            assert!(first.contains(part), "{part}: {stdout}");
        }
        assert!(first.starts_with(error.printer), "{first}");
        assert_eq!(code, Some(0));
    }
    let (stdout, ..) = explain("Invalid value for attribute 'model' in element 'memory': 'EGM'.");
    assert_eq!(stdout.matches("\ncause ").count(), 2, "{stdout}");
    assert_eq!(stdout.matches("\n\nlibvirt  ").count(), 1, "{stdout}");
}

#[test]
fn a_rule_is_explained_by_another_command() {
    for rule in RULES {
        let (stdout, _, code) = explain(&rule.code.to_lowercase());
        let command = format!("{0}: see `egm-probe validate --explain {0}`\n", rule.code);
        assert_eq!((stdout, code), (command, Some(0)));
    }
}

#[test]
fn an_unknown_or_short_text_is_refused() {
    for (text, problem) in [
        ("the disk is full", "`the disk is full`: unknown error message; "),
        ("D99", "unknown check D99 "),
        ("egm999", "unknown check egm999 "),
        ("-14", "`-14`: too short; "),
        ("x", "`x`: too short; "),
        ("", "``: too short; "),
    ] {
        let (stdout, stderr, code) = explain(text);
        assert!(stderr.starts_with(&format!("egm-probe: {problem}")), "{stderr}");
        assert_eq!((stdout.as_str(), code), ("", Some(1)), "{text}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn hostile_texts_do_no_harm() {
    // An argument has at most 128 KiB.
    let long = "\x1b]0;x\x07 group vfio_container_dma_map( \u{202e}".repeat(2_600);
    for text in
        [&*long, "\x1b[31m\r\n", "\u{202e}unknown message", "*********", &"é".repeat(60_000)]
    {
        let (stdout, stderr, code) = explain(text);
        let is_bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!stdout.contains(is_bad) && !stderr.contains(is_bad), "{stdout}{stderr}");
        assert!(matches!(code, Some(0 | 1)) && stderr.len() < 1000, "{code:?}: {stderr}");
    }
}
