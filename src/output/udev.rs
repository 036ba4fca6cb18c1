//! The output of `udev`: changes of the rules, and the state of the device nodes.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::json;
use crate::udev_rules::file::Change;
use crate::udev_rules::{Asked, Effective, Got, RegionNode, RulePlace, Shadowed};
use crate::values::text::{printable, shown};

/// The report of a `udev` command.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct UdevReport {
    schema: &'static str,
    /// The command.
    pub(crate) action: Action,
    /// Whether only the planned changes were shown.
    pub(crate) dry_run: bool,
    /// Whether the rules file was changed, or would be.
    pub(crate) changed: bool,
    /// The rules file.
    pub(crate) file: Option<PathBuf>,
    /// With `install`, the copy of the file that it replaced; with `uninstall`, one that remains.
    pub(crate) backup: Option<PathBuf>,
    /// Whether udev was notified; `None` if there was no need.
    pub(crate) udev_told: Option<bool>,
    /// The rules with assignments for the devices, by file and line.
    pub(crate) rules: Vec<RuleEntry>,
    /// Rules files with the program's name that another file overrides.
    pub(crate) shadowed: Vec<Shadowed>,
    /// The regions' device nodes.
    pub(crate) nodes: Vec<RegionNode>,
    /// Warnings.
    pub(crate) warnings: Vec<String>,
}

/// A `udev` command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    Install,
    #[default]
    Status,
    Uninstall,
}

/// An assignment of a rule for a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct RuleEntry {
    /// Its place.
    #[serde(flatten)]
    pub(crate) place: RulePlace,
    /// The assigned property: `user`, `group`, `mode`, `label`; `None` if it is conditional.
    pub(crate) gives: Option<&'static str>,
    /// The value.
    pub(crate) value: Option<String>,
    /// Whether it takes effect, and is not overridden; `None` if it is conditional.
    pub(crate) counts: Option<bool>,
}

impl UdevReport {
    /// An empty report of a command.
    pub(crate) fn new(action: Action) -> Self {
        Self { schema: "egm-probe.udev/1", action, ..Self::default() }
    }

    /// Adds a planned or applied change of the rules file.
    pub(crate) fn add_change(&mut self, change: &Change) {
        self.changed = change.is_any();
        self.backup.clone_from(&change.backup);
    }

    /// Description of the backup.
    pub(crate) fn backup_note(&self) -> Option<String> {
        let is_install = self.action == Action::Install;
        let note = if is_install { "copy of the replaced file" } else { "not restored" };
        self.backup.as_ref().map(|backup| format!("{}: {note}", shown(backup)))
    }

    /// Adds the rules for a region's device.
    pub(crate) fn add_rules(&mut self, effective: &Effective) {
        let entry = |place: &RulePlace, gives, value: &str, counts| RuleEntry {
            place: place.clone(),
            gives: Some(gives),
            value: Some(value.to_owned()),
            counts: Some(counts),
        };
        for (name, given) in effective.given() {
            self.rules.push(entry(&given.place, name, &given.value, true));
            let others = given.others.iter();
            self.rules.extend(others.map(|it| entry(&it.place, name, &it.value, false)));
        }
        let conditional = effective.conditional.iter().cloned();
        self.rules.extend(conditional.map(|place| RuleEntry {
            place,
            gives: None,
            value: None,
            counts: None,
        }));
        self.rules.sort();
        self.rules.dedup();
    }

    /// Whether every node matches the request.
    pub(crate) fn is_right(&self) -> bool {
        self.nodes.iter().all(|node| node.right == Some(true))
    }
}

/// Writes `egm-probe.udev/1`.
pub(crate) fn write_json(out: &mut dyn Write, report: &UdevReport) -> io::Result<()> {
    json::write(out, report)
}

/// Writes it as text.
pub(crate) fn write(out: &mut dyn Write, report: &UdevReport) -> io::Result<()> {
    if let Some(file) = &report.file {
        let state = match (report.action, report.changed) {
            (Action::Install, true) => "written",
            (Action::Uninstall, true) => "removed",
            (Action::Uninstall, false) => "missing",
            (Action::Install | Action::Status, _) => "unchanged",
        };
        writeln!(out, "{}: {state}", shown(file))?;
    }
    if let Some(note) = report.backup_note() {
        writeln!(out, "{note}")?;
    }
    let mut rules = report.rules.iter().peekable();
    while let Some(rule) = rules.next() {
        let mut parts = vec![gives(rule)];
        while let Some(more) = rules.next_if(|more| more.place == rule.place) {
            parts.push(gives(more));
        }
        writeln!(out, "{}: {}", rule.place, parts.join(", "))?;
    }
    for Shadowed { path, by, masked } in &report.shadowed {
        let how = if *masked { "masked" } else { "replaced" };
        writeln!(out, "{}: {how} by {}", shown(path), shown(by))?;
    }
    for node in &report.nodes {
        writeln!(out, "{}: {}", shown(&node.path), describe(node))?;
    }
    Ok(())
}

/// `mode 0660`, and whether it is overridden.
fn gives(rule: &RuleEntry) -> String {
    let (Some(name), Some(value)) = (rule.gives, &rule.value) else {
        return "conditional assignments".into();
    };
    let but = if rule.counts == Some(false) { " (overridden by another rule)" } else { "" };
    printable(&format!("{name} {value}{but}"))
}

/// `0660 root:kvm`, and the expected values if they differ.
fn describe(node: &RegionNode) -> String {
    let asked = asked(&node.asked);
    match (&node.got, node.right) {
        (None, _) => format!("unknown, or not the region's device; expected {asked}"),
        (Some(got), Some(false)) => format!("{}; expected {asked}", self::got(got)),
        (Some(got), _) => self::got(got),
    }
}

fn got(got: &Got) -> String {
    printable(&format!("{} {}:{}", got.shown_mode, got.user, got.group))
}

/// The expected values, with `-` for those that are not set.
fn asked(asked: &Asked) -> String {
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let (mode, user, group) = (or_dash(&asked.mode), or_dash(&asked.user), or_dash(&asked.group));
    printable(&format!("{mode} {user}:{group}"))
}
