//! Reduces rules files to what concerns EGM devices, for captures.

use std::collections::BTreeMap;
use std::path::Path;

use super::effective::File;
use super::host_rules::{DIRECTORIES, FILE_NAME};
use super::line::{Line, Parsed, Token, parse};
use crate::values::RegionName;

/// Keys whose values matter here.
const SHOWN: [&str; 16] = [
    "ACTION",
    "SUBSYSTEM",
    "SUBSYSTEMS",
    "KERNEL",
    "KERNELS",
    "DEVPATH",
    "ENV{DEVNAME}",
    "DRIVER",
    "DRIVERS",
    "GOTO",
    "LABEL",
    "OWNER",
    "GROUP",
    "MODE",
    "SECLABEL{selinux}",
    "TAG",
];

/// The rules of a file that names EGM devices or changes their permissions, at their places and
/// without the values that do not matter; `None` for another file.
pub(crate) fn redact<'a>(
    path: &Path,
    text: &str,
    regions: impl Iterator<Item = &'a RegionName>,
) -> Option<String> {
    if !DIRECTORIES.iter().any(|directory| path.parent() == Some(Path::new(directory))) {
        return None;
    }
    let Parsed { lines, ignored } = parse(text);
    let texts: Vec<_> = lines.iter().map(|line| (line.number, of_line(line))).collect();
    // A file without rules may disable another.
    let is_its = !ignored.is_empty() || path.ends_with(FILE_NAME);
    if !is_its && !File::new(path.to_owned(), lines).concerns(regions) {
        return None;
    }
    // Invalid in the same way.
    let ignored = ignored.into_iter().map(|it| (it.number, it.assignment.unwrap_or("egm".into())));
    let mut kept = String::new();
    let mut number = 1;
    for (line, text) in texts.into_iter().chain(ignored).collect::<BTreeMap<_, _>>() {
        kept.extend(std::iter::repeat_n('\n', line.saturating_sub(number)));
        number = line;
        kept.push_str(&text);
    }
    kept.push('\n');
    Some(kept)
}

fn of_line(line: &Line) -> String {
    let token = |token: &Token| {
        let is_shown = SHOWN.contains(&token.key.as_str());
        let value = if is_shown { token.value.replace('"', "\\\"") } else { "-".into() };
        // Names of attributes and variables do not matter either.
        let key = match token.key.split_once('{') {
            Some((key @ ("ATTR" | "ATTRS" | "ENV" | "SYSCTL" | "TEST"), _)) if !is_shown => {
                format!("{key}{{-}}")
            }
            _ => token.key.clone(),
        };
        Token { key, operator: token.operator, value }.to_string()
    };
    line.tokens.iter().map(token).collect::<Vec<_>>().join(", ")
}
