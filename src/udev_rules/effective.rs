//! What the rules of a host, all files together, give to a region's device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::line::{Line, Operator, Token, parse};
use crate::host::RegionName;
use crate::sysroot::{ReadError, Sysroot};
use crate::warning::Warning;

/// Where udev looks for rules. Of two files of one name that in the earlier directory counts; else
/// the files of all directories are read in the order of their names (udev(7)).
pub const DIRECTORIES: [&str; 5] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];

/// The name of the file that this program ships and installs.
pub const FILE_NAME: &str = "60-egm.rules";

/// The largest file that is read.
const FILE_LIMIT: usize = 1 << 20;

/// Those rules of a host that name EGM devices.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HostRules {
    files: Vec<File>,
    /// Files of the program's name that do not count: another takes their place.
    pub shadowed: Vec<Shadowed>,
    /// What could not be read.
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
    lines: Vec<Line>,
}

/// A rules file for EGM that another one of the same name hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// The file that does not count.
    pub path: PathBuf,
    /// The one that does.
    pub by: PathBuf,
    /// Whether that one is empty or a link to `/dev/null`, which is how to switch rules off.
    pub masked: bool,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// One value that rules give to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The value as it is written.
    pub value: String,
    /// The rule that has the last word.
    pub place: Place,
    /// Rules before it that gave something else.
    pub overridden: Vec<(Place, String)>,
}

/// What the rules give to one device. Without a rule it keeps what the kernel gave to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// The owner.
    pub user: Option<Given>,
    /// The group.
    pub group: Option<Given>,
    /// The mode.
    pub mode: Option<Given>,
    /// The label for `SELinux`.
    pub label: Option<Given>,
    /// Rules that change one of these under conditions that are not looked at here.
    pub conditional: Vec<Place>,
}

impl HostRules {
    /// Reads all rules files of a root, and keeps what names EGM devices.
    #[must_use]
    pub fn read(root: &Sysroot) -> Self {
        let mut rules = Self::default();
        let mut by_name: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut hidden = Vec::new();
        // /lib is usually a link to /usr/lib: the same files, which hide nothing.
        let is_merged = root.read_link("/lib").is_ok();
        for directory in DIRECTORIES {
            if is_merged && directory.starts_with("/lib/") {
                continue;
            }
            let names = match root.entries(directory) {
                Ok(names) => names,
                Err(error) => {
                    rules.note(&error);
                    continue;
                }
            };
            // As udev: a name in capitals is none of its own.
            let is_rules = |name: &String| name.strip_suffix(".rules").is_some();
            for name in names.into_iter().filter(is_rules) {
                let path = Path::new(directory).join(&name);
                match by_name.get(&name) {
                    None => _ = by_name.insert(name, path),
                    Some(first) => hidden.push((path, first.clone())),
                }
            }
        }
        for path in by_name.into_values() {
            rules.add(root, path);
        }
        for (path, by) in hidden {
            let is_ours = path.file_name().is_some_and(|name| name == FILE_NAME);
            if is_ours {
                let masked = !rules.files.iter().any(|file| file.path == by);
                rules.shadowed.push(Shadowed { path, by, masked });
            }
        }
        rules
    }

    fn add(&mut self, root: &Sysroot, path: PathBuf) {
        // A link to /dev/null is an empty file for udev; it is none that can be read here.
        if root.read_link(&path).is_ok_and(|target| target == Path::new("/dev/null")) {
            return;
        }
        match root.read(&path, FILE_LIMIT) {
            Ok(bytes) => {
                let mut lines = parse(&String::from_utf8_lossy(&bytes));
                lines.retain(names_egm);
                if !lines.is_empty() {
                    self.files.push(File { path, lines });
                }
            }
            Err(error) => self.note(&error),
        }
    }

    fn note(&mut self, error: &ReadError) {
        if !error.is_absent() {
            self.warnings.push(Warning::unreadable(error));
        }
    }

    /// Whether there is a rule for EGM devices at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What they give to one region's device.
    #[must_use]
    pub fn for_region(&self, name: &RegionName) -> Effective {
        let mut effective = Effective::default();
        let mut is_final: Vec<&str> = Vec::new();
        for file in &self.files {
            for line in &file.lines {
                let place = || Place { path: file.path.clone(), line: line.number };
                let assigns = |token: &&Token| !token.is_match() && is_permission(&token.key);
                let assigned: Vec<_> = line.tokens.iter().filter(assigns).collect();
                if assigned.is_empty() {
                    continue;
                }
                let conditions = line.tokens.iter().filter(|token| token.is_match());
                match conditions.map(|token| holds(token, name)).min() {
                    Some(Holds::No) => continue,
                    Some(Holds::Maybe) => {
                        effective.conditional.push(place());
                        continue;
                    }
                    Some(Holds::Yes) | None => {}
                }
                for token in assigned {
                    if is_final.contains(&token.key.as_str()) {
                        continue;
                    }
                    if token.operator == Operator::AssignFinal {
                        is_final.push(&token.key);
                    }
                    if let Some(slot) = effective.slot(&token.key) {
                        assign(slot, &token.value, place());
                    }
                }
            }
        }
        effective
    }
}

impl Effective {
    fn slot(&mut self, key: &str) -> Option<&mut Option<Given>> {
        match key {
            "OWNER" => Some(&mut self.user),
            "GROUP" => Some(&mut self.group),
            "MODE" => Some(&mut self.mode),
            "SECLABEL{selinux}" => Some(&mut self.label),
            _ => None,
        }
    }

    /// What is given, in the order user, group, mode.
    pub fn permission(&self) -> impl Iterator<Item = &Given> {
        [&self.user, &self.group, &self.mode].into_iter().flatten()
    }
}

fn assign(slot: &mut Option<Given>, value: &str, place: Place) {
    let mut overridden = Vec::new();
    if let Some(before) = slot.take() {
        overridden = before.overridden;
        if before.value != value {
            overridden.push((before.place, before.value));
        }
    }
    *slot = Some(Given { value: value.to_owned(), place, overridden });
}

fn is_permission(key: &str) -> bool {
    matches!(key, "OWNER" | "GROUP" | "MODE" | "SECLABEL{selinux}")
}

/// Whether a condition holds for a region's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    No,
    Maybe,
    Yes,
}

fn holds(token: &Token, name: &RegionName) -> Holds {
    let certain = |passes: bool| if passes { Holds::Yes } else { Holds::No };
    let maybe = |passes: bool| if passes { Holds::Yes } else { Holds::Maybe };
    match token.key.as_str() {
        "SUBSYSTEM" => certain(token.passes("egm")),
        "KERNEL" => certain(token.passes(name.as_str())),
        // These may hold for one of its parents, too.
        "SUBSYSTEMS" => maybe(token.passes("egm")),
        "KERNELS" => maybe(token.passes(name.as_str())),
        // A rule for one of the two events counts until the other comes.
        "ACTION" => match (token.passes("add"), token.passes("change")) {
            (true, true) => Holds::Yes,
            (false, false) => Holds::No,
            _ => Holds::Maybe,
        },
        _ => Holds::Maybe,
    }
}

/// Whether a rule is about EGM devices and no others.
fn names_egm(line: &Line) -> bool {
    line.tokens.iter().any(|token| {
        let is_name =
            matches!(token.key.as_str(), "SUBSYSTEM" | "SUBSYSTEMS" | "KERNEL" | "KERNELS");
        is_name && token.operator == Operator::Match && token.value.contains("egm")
    })
}
