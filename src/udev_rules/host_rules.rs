//! The udev rules of a host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::effective::{Effective, File, LineProblem};
use super::line::{Parsed, parse};
use crate::sysroot::{ReadError, Sysroot, join_link};
use crate::values::RegionName;
use crate::warning::Warning;

/// Directories of udev rules. If several contain a file of the same name, the first one counts; the
/// files of all directories are read in the order of their names (udev(7)).
pub(crate) const DIRECTORIES: [&str; 5] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];

/// The rules file that this program ships and installs.
pub(crate) const FILE_NAME: &str = "60-egm.rules";

/// Maximum size of a file.
const FILE_LIMIT: usize = 1 << 20;

/// The rules of a host that may concern EGM devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostRules {
    files: Vec<File>,
    /// Invalid lines that mention EGM.
    ignored: Vec<LineProblem>,
    /// Rules files with the program's file name that are hidden by another.
    pub(crate) shadowed: Vec<Shadowed>,
    /// Files that could not be read.
    pub(crate) warnings: Vec<Warning>,
}

/// A rules file for EGM that is hidden by another one with the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shadowed {
    /// The hidden file.
    pub(crate) path: PathBuf,
    /// The file that hides it.
    pub(crate) by: PathBuf,
    /// Whether that file has no rules or is a link to `/dev/null`, which disables the rules.
    pub(crate) masked: bool,
}

impl HostRules {
    /// Reads all rules files of a root.
    #[must_use]
    pub(crate) fn read(root: &Sysroot) -> Self {
        let mut rules = Self::default();
        let mut by_name: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut hidden = Vec::new();
        // /lib is usually a link to /usr/lib, whose files then do not hide each other.
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
            let is_rules = |name: &String| name.strip_suffix(".rules").is_some();
            for name in names.into_iter().filter(is_rules) {
                let path = Path::new(directory).join(&name);
                match by_name.get(&name) {
                    None => _ = by_name.insert(name, path),
                    Some(first) if name == FILE_NAME => hidden.push((path, first.clone())),
                    Some(_) => {}
                }
            }
        }
        let mut empty = Vec::new();
        for path in by_name.into_values() {
            let Some(Parsed { lines, ignored }) = rules.file(root, &path) else { continue };
            if lines.is_empty() && ignored.is_empty() {
                empty.push(path);
                continue;
            }
            rules.ignored.extend(ignored.into_iter().map(|line| LineProblem::of(&path, line)));
            rules.files.push(File::new(path, lines));
        }
        let shadowed = hidden.into_iter().map(|(path, by)| {
            let masked = empty.contains(&by);
            Shadowed { path, by, masked }
        });
        rules.shadowed = shadowed.collect();
        rules
    }

    /// The lines of a file; `None` if they are unknown.
    fn file(&mut self, root: &Sysroot, path: &Path) -> Option<Parsed> {
        // udev treats a link to /dev/null as an empty file; it cannot be read here.
        let target = root.read_link(path).map(|target| join_link(path, &target));
        if target.is_ok_and(|target| target == Path::new("/dev/null")) {
            return Some(Parsed::default());
        }
        match root.read(path, FILE_LIMIT) {
            Ok(bytes) => Some(parse(&String::from_utf8_lossy(&bytes))),
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    fn note(&mut self, error: &ReadError) {
        self.warnings.extend(Warning::unless_absent(error));
    }

    /// Whether no line mentions EGM devices.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.ignored.is_empty() && !self.files.iter().any(|file| file.names_egm)
    }

    /// Lines about these regions' devices that do not give QEMU access, but look as if they did.
    pub(crate) fn problems<'a>(
        &self,
        regions: impl IntoIterator<Item = &'a RegionName>,
    ) -> Vec<LineProblem> {
        let mut problems = self.ignored.clone();
        problems.extend(regions.into_iter().flat_map(|name| self.for_region(name).problems));
        problems.sort();
        problems.dedup();
        problems
    }

    /// The effect on one region's device.
    #[must_use]
    pub(crate) fn for_region(&self, name: &RegionName) -> Effective {
        let mut effective = Effective::default();
        let mut is_final = BTreeSet::new();
        for file in &self.files {
            file.apply(name, &mut effective, &mut is_final);
        }
        effective
    }
}
