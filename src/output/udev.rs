//! What was done to the udev rules, and what the device nodes are like.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::{json, shown};
use crate::text::printable;
use crate::udev_rules::{Asked, Effective, Got, Node};

/// What a `udev` command did and found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UdevReport {
    schema: &'static str,
    /// Which command it was.
    pub action: Action,
    /// Whether it was only to be shown what would be done.
    pub dry_run: bool,
    /// Whether the rules file was changed, or would be.
    pub changed: bool,
    /// The rules file that was looked at.
    pub file: Option<PathBuf>,
    /// Where the file is kept that was there before.
    pub kept: Option<PathBuf>,
    /// The kept file that was put back.
    pub put_back: Option<PathBuf>,
    /// Whether udev was told; `None` where there was no reason to.
    pub udev_told: Option<bool>,
    /// The rules that give the devices to somebody, by file and line.
    pub rules: Vec<RulePlace>,
    /// The regions' device nodes.
    pub nodes: Vec<Node>,
    /// What went wrong without ending the command, and what is odd.
    pub warnings: Vec<String>,
}

/// A `udev` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Action {
    Install,
    Status,
    Uninstall,
}

/// Where a rule stands that counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RulePlace {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl UdevReport {
    /// A report of a command that has done nothing yet.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self {
            schema: "egm-probe.udev/1",
            action,
            dry_run: false,
            changed: false,
            file: None,
            kept: None,
            put_back: None,
            udev_told: None,
            rules: Vec::new(),
            nodes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds where the rules stand that count for a region.
    pub fn add_rules(&mut self, effective: &Effective) {
        let places = effective.permission().map(|given| &given.place);
        let places = places.map(|it| RulePlace { path: it.path.clone(), line: it.line });
        self.rules.extend(places);
        self.rules.sort();
        self.rules.dedup();
    }

    /// Whether every node has what it is to have.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.nodes.iter().all(|node| node.right == Some(true))
    }
}

/// Writes `egm-probe.udev/1`.
///
/// # Errors
/// Those of the writer.
pub fn write_json(out: &mut dyn Write, report: &UdevReport) -> io::Result<()> {
    json::write(out, report)
}

/// Writes it for people.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut dyn Write, report: &UdevReport) -> io::Result<()> {
    if let Some(file) = &report.file {
        let state = match (report.action, report.changed, report.dry_run) {
            (Action::Install, true, false) => "written",
            (Action::Install, true, true) => "would be written",
            (Action::Install, false, _) => "already as asked",
            (Action::Uninstall, true, _) if report.put_back.is_some() => {
                "put back as it was before"
            }
            (Action::Uninstall, true, false) => "removed",
            (Action::Uninstall, true, true) => "would be removed",
            (Action::Uninstall, false, _) => "not there",
            (Action::Status, ..) => "counts",
        };
        writeln!(out, "{}: {state}", shown(file))?;
    }
    if let Some(kept) = &report.kept {
        writeln!(out, "{}: what was there before", shown(kept))?;
    }
    for RulePlace { path, line } in &report.rules {
        writeln!(out, "{}:{line}: gives the devices to QEMU", shown(path))?;
    }
    for node in &report.nodes {
        writeln!(out, "{}: {}", shown(&node.path), describe(node))?;
    }
    Ok(())
}

/// `0660 root:kvm`, and what was asked where that is something else.
fn describe(node: &Node) -> String {
    let asked = asked(&node.asked);
    match (&node.got, node.right) {
        (None, _) => format!("not known, or not the region's; asked for {asked}"),
        (Some(got), Some(false)) => format!("{}; asked for {asked}", self::got(got)),
        (Some(got), _) => self::got(got),
    }
}

fn got(got: &Got) -> String {
    printable(&format!("{} {}:{}", got.mode, got.user, got.group))
}

/// With a `-` for what nobody asks for.
fn asked(asked: &Asked) -> String {
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let (mode, user, group) = (or_dash(&asked.mode), or_dash(&asked.user), or_dash(&asked.group));
    printable(&format!("{mode} {user}:{group}"))
}
