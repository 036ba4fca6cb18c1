//! The commands to run with faults, and the conditions for each run.

use std::fs;

use serde_json::Value;

use super::stage::{Files, Run, Stage};

/// A command on a host with egm4 in use.
pub(super) struct Case {
    pub(super) args: &'static [&'static str],
    pub(super) files: Files,
    /// The state of egm5 without faults.
    pub(super) egm5: &'static str,
    /// A further condition for a run, checked before everything is reset.
    pub(super) judge: fn(&Stage, &Run) -> Result<(), String>,
}

const DEFINED: &str = "<domain type='kvm'><name>vm2</name><devices><memory model='egm' access='shared'>\
    <source><path>/dev/egm5</path></source><target><size unit='GiB'>8</size><node>0</node>\
    <pciDev>ua-hostdev0</pciDev></target></memory></devices></domain>\n";
const DOMAIN: &str = include_str!("../../fixtures/domains/minimal.xml");
const LEASE: &str = "{\"schema\":\"egm-probe.leases/1\",\"leases\":[{\"regions\":[\"egm5\"],\
    \"for\":\"vm1\",\"expires\":\"9999-12-31T23:59:59Z\"}]}\n";
const OLD: &str = "# what was there before\n";
const LEASED: Files = &[("/run/egm-probe/leases.json", LEASE)];

const fn case(
    args: &'static [&'static str],
    judge: fn(&Stage, &Run) -> Result<(), String>,
) -> Case {
    Case { args, files: &[], egm5: "free", judge }
}

pub(super) const CASES: &[Case] = &[
    case(&["list", "--json"], listed),
    Case { files: LEASED, egm5: "reserved", ..case(&["list", "--json"], listed) },
    Case {
        files: &[("/etc/libvirt/qemu/vm2.xml", DEFINED)],
        egm5: "defined",
        ..case(&["list", "--json"], listed)
    },
    Case {
        files: &[(
            "/run/libvirt/qemu/vm2.xml",
            concat!("<domstatus state='running' pid='1'>", "</domstatus>"),
        )],
        ..case(&["list", "-o", "+HOLDER"], fine)
    },
    case(&["show"], fine),
    case(&["topology", "--json"], fine),
    Case {
        files: &[("out", OLD)],
        ..case(&["topology", "--svg", "out"], |stage, run| {
            written(stage, run, "out", |text| roxmltree::Document::parse(text).is_ok())
        })
    },
    case(&["stanza", "--all"], |_, run| refused_or_told(run)),
    case(&["stanza", "--region", "egm4"], |_, run| refused_or_told(run)),
    case(&["stanza", "--region", "egm5", "--format", "json"], fine),
    Case {
        files: &[("vm.xml", DOMAIN)],
        ..case(
            &[
                "stanza",
                "--region",
                "egm5",
                "--with",
                "hostdev,numa,machine",
                "--domain",
                "vm.xml",
                "--in-place",
            ],
            |stage, run| {
                written(stage, run, "vm.xml", |text| {
                    text.ends_with("</domain>\n") && text.contains("<path>/dev/egm5</path>")
                })
            },
        )
    },
    Case { files: &[("vm.xml", DOMAIN)], ..case(&["validate", "vm.xml"], fine) },
    Case {
        files: &[("out", OLD)],
        ..case(&["metrics", "--output", "out"], |stage, run| {
            free_of_held(run)?;
            written(stage, run, "out", |text| {
                // A region that is not found has no samples.
                let is_free = text.contains("region=\"egm4\",state=\"free\"} 1");
                !is_free && text.starts_with("# HELP") && text.ends_with('\n')
            })
        })
    },
    Case {
        files: &[("out", OLD)],
        ..case(&["export", "cdi", "--output", "out"], |stage, run| {
            written(stage, run, "out", |text| {
                serde_json::from_str::<Value>(text).is_ok_and(|it| it["devices"][0].is_object())
            })
        })
    },
    Case {
        files: &[("out", OLD)],
        ..case(&["export", "nfd", "--output", "out"], |stage, run| {
            written(stage, run, "out", |text| {
                text.starts_with("# Written") && text.ends_with('\n') && text.contains("/present=")
            })
        })
    },
    case(&["capture", "--with-claims", "out"], captured),
    case(&["capture", "out"], captured),
    case(&["reserve", "egm5", "--for", "vm1"], |stage, run| {
        leased(stage).and_then(|has| said(run, has))
    }),
    case(&["reserve", "egm4", "--for", "vm1"], |stage, run| {
        refused(run).and_then(|()| {
            let left = stage.lease_names();
            if left.iter().all(|name| name == "lock") {
                Ok(())
            } else {
                Err(format!("left {left:?}"))
            }
        })
    }),
    case(&["reserve", "--any", "2", "--for", "vm1"], |_, run| refused(run)),
    Case {
        files: LEASED,
        egm5: "reserved",
        ..case(&["release", "egm5", "--for", "vm1"], |stage, run| {
            leased(stage).and_then(|has| said(run, !has))
        })
    },
    Case {
        files: LEASED,
        egm5: "reserved",
        ..case(&["release", "--all", "--for", "other"], |stage, _| {
            leased(stage)
                .and_then(|has| if has { Ok(()) } else { Err("another's lease is gone".into()) })
        })
    },
    case(&["udev", "status"], fine),
    Case {
        files: &[("root/etc/udev/rules.d/60-egm.rules", OLD)],
        ..case(&["udev", "install", "--root", "root", "--force"], installed)
    },
    case(&["doctor"], fine),
    case(&["watch", "--initial", "--timeout", "50ms"], fine),
];

fn fine(_: &Stage, run: &Run) -> Result<(), String> {
    free_of_held(run)
}

/// No line of the output shows the held region as free.
fn free_of_held(run: &Run) -> Result<(), String> {
    let is_wrong = |line: &&str| {
        line.contains("egm4") && line.split(|c: char| !c.is_alphanumeric()).any(|it| it == "free")
    };
    match run.stdout.lines().find(is_wrong) {
        Some(line) => Err(format!("free out of a failure: {line}")),
        None => Ok(()),
    }
}

/// The holder of egm4 prevents success, with any fault.
fn refused(run: &Run) -> Result<(), String> {
    if run.code == Some(0) { Err("a held region was assigned".into()) } else { Ok(()) }
}

/// A stanza is possible if the holders of the region are reported as unknown, or without the region if
/// it is not found.
fn refused_or_told(run: &Run) -> Result<(), String> {
    let is_told = run.stderr.contains("cannot determine the holders of egm4");
    if is_told || !run.stdout.contains("egm4") { Ok(()) } else { refused(run) }
}

/// The states of the regions in `list --json`.
fn states(text: &str) -> Result<Vec<(String, String)>, String> {
    let list: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let regions = list["regions"].as_array().ok_or("no regions")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(regions.iter().map(|region| (text(&region["name"]), text(&region["state"]))).collect())
}

fn listed(_: &Stage, run: &Run) -> Result<(), String> {
    if run.code != Some(0) {
        return Ok(());
    }
    for (name, state) in states(&run.stdout)? {
        if name == "egm4" && state == "free" {
            return Err("egm4 is free out of a failure".into());
        }
    }
    Ok(())
}

/// In `list --json`, both regions have their real state, or are unknown.
pub(super) fn is_right(case: &Case, run: &Run) -> Result<(), String> {
    if case.args != ["list", "--json"] || run.code != Some(0) {
        return Ok(());
    }
    let states = states(&run.stdout)?;
    let wrong = states.iter().find(|(name, state)| {
        let right = if name == "egm4" { "in-use" } else { case.egm5 };
        state != right && state != "unknown"
    });
    match wrong {
        Some((name, state)) => Err(format!("{name} is said to be {state}: {}", run.stderr)),
        None => Ok(()),
    }
}

/// The file is completely the old or the new one, and there is no other file.
fn written(
    stage: &Stage,
    run: &Run,
    name: &str,
    is_new: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let names = stage.work_names();
    if names != [name] {
        return Err(format!("there is {names:?}"));
    }
    let text = fs::read_to_string(stage.work().join(name)).unwrap();
    let is_old = text == OLD || text == DOMAIN;
    if !is_old && !is_new(&text) {
        return Err(format!("half of a file: {text}"));
    }
    if run.code == Some(0) && is_old { Err("nothing was written".into()) } else { Ok(()) }
}

/// A capture is complete, or missing.
fn captured(stage: &Stage, run: &Run) -> Result<(), String> {
    let names = stage.work_names();
    if names.is_empty() {
        return if run.code == Some(0) { Err("nothing was written".into()) } else { Ok(()) };
    }
    if names != ["out"] {
        return Err(format!("there is {names:?}"));
    }
    let path = stage.work().join("out");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .args(["list", "--json", "--from"])
        .arg(path)
        .output()
        .unwrap();
    let list = String::from_utf8_lossy(&output.stdout);
    // Unreadable files are recorded as such, and were reported.
    let is_without_class = output.status.code() == Some(4)
        && list.contains("\"/sys/class/egm: ")
        && run.stderr.contains("/sys/class/egm: ");
    if !output.status.success() && !is_without_class {
        return Err(format!("half of a capture: {output:?}; it was said: {}", run.stderr));
    }
    let states = states(&list)?;
    let is_free = states.iter().any(|(name, state)| name == "egm4" && state == "free");
    if is_free { Err("egm4 is free in the capture".into()) } else { Ok(()) }
}

/// Whether egm5 is reserved for vm1. The file must be complete, without an unfinished copy.
fn leased(stage: &Stage) -> Result<bool, String> {
    let names = stage.lease_names();
    if let Some(left) = names.iter().find(|name| !["leases.json", "lock"].contains(&name.as_str()))
    {
        return Err(format!("{left} is left over"));
    }
    if !names.iter().any(|name| name == "leases.json") {
        return Ok(false);
    }
    let text = stage.lease_file();
    let document: Value =
        serde_json::from_str(&text).map_err(|_| format!("half a file: {text:?}"))?;
    let leases = document["leases"].as_array().ok_or("no leases")?;
    Ok(leases.iter().any(|it| it["for"] == "vm1" && it["regions"][0] == "egm5"))
}

/// A successful run has done its work.
fn said(run: &Run, is_done: bool) -> Result<(), String> {
    if run.code == Some(0) && !is_done { Err(format!("not done: {}", run.stdout)) } else { Ok(()) }
}

/// The rules are the old or the new ones; the new ones have a backup of the old ones.
fn installed(stage: &Stage, run: &Run) -> Result<(), String> {
    let directory = stage.work().join("root/etc/udev/rules.d");
    let mut texts = Vec::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).unwrap();
        let is_new = text.contains("SUBSYSTEM==\"egm\"") && text.ends_with('\n');
        if name != ".lock" && text != OLD && !is_new {
            return Err(format!("half of {name}: {text:?}"));
        }
        if name.starts_with(".egm-probe") {
            return Err(format!("{name} is left over"));
        }
        texts.push(text);
    }
    if !texts.iter().any(|text| text == OLD) {
        return Err("what was there before is lost".into());
    }
    if run.code == Some(0) && texts.iter().all(|text| text == OLD) {
        return Err("nothing was written".into());
    }
    Ok(())
}
