//! The file rules in `AppArmor`'s profile for libvirt's QEMU (apparmor.d(5)).

use std::collections::BTreeSet;
use std::iter;
use std::path::Path;

use crate::sysroot::{FileKind, Sysroot};
use crate::values::glob::path_glob;

pub(in crate::doctor) const DIRECTORY: &str = "/etc/apparmor.d";

/// Start of libvirt's profile for QEMU: the template of the domains' profiles, and the file it
/// includes.
const BEGIN: [&str; 2] = ["libvirt/TEMPLATE.qemu", "abstractions/libvirt-qemu"];

/// Maximum number of files and directories included in a profile, and of alternatives in a path.
const FILES_LIMIT: usize = 256;
const ALTERNATIVES_LIMIT: usize = 256;

/// Whether `AppArmor` confines QEMU, and the rules for it.
#[derive(Debug)]
pub(in crate::doctor) enum Apparmor {
    /// It is disabled, or libvirt has no profile for it.
    Off,
    /// Unknown, with the reason.
    Unknown(String),
    /// It is enabled.
    On(Profile),
}

/// The file rules of a profile, including its includes.
#[derive(Debug, Default)]
pub(in crate::doctor) struct Profile {
    rules: Vec<ProfileRule>,
    /// Whether a file of it exists.
    exists: bool,
    /// An error while reading it.
    pub(in crate::doctor) unread: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct ProfileRule {
    /// `None` for every file.
    path: Option<String>,
    /// Whether it is about reading, and about writing.
    access: (bool, bool),
    deny: bool,
    /// Whether it is only for the owner of the file.
    owner: bool,
}

impl Apparmor {
    pub(in crate::doctor) fn read(root: &Sysroot) -> Self {
        match root.read_text("/sys/module/apparmor/parameters/enabled") {
            Ok(text) if text.trim() == "Y" => {}
            Ok(_) => return Self::Off,
            Err(error) if error.is_absent() => return Self::Off,
            Err(error) => return Self::Unknown(error.to_string()),
        }
        let mut profile = Profile::default();
        let mut names = BTreeSet::new();
        for file in BEGIN {
            profile.include(root, file, &mut names);
        }
        match profile.unread {
            Some(problem) if profile.rules.is_empty() => Self::Unknown(problem),
            None if !profile.exists => Self::Off,
            _ => Self::On(profile),
        }
    }
}

impl Profile {
    /// Whether QEMU, which may be the owner of a file, may read and write it.
    pub(in crate::doctor) fn allows(&self, path: &str, is_owner: bool) -> bool {
        let (mut read, mut write) = (false, false);
        for rule in self.rules_for(path, is_owner).filter(|rule| !rule.deny) {
            read |= rule.access.0;
            write |= rule.access.1;
        }
        read && write && !self.denies(path, is_owner)
    }

    /// Whether a rule denies QEMU reading or writing a file, regardless of other rules.
    pub(in crate::doctor) fn denies(&self, path: &str, is_owner: bool) -> bool {
        self.rules_for(path, is_owner).any(|rule| rule.deny && rule.access != (false, false))
    }

    /// The limit of the rules that allow a part of the access to a file.
    pub(in crate::doctor) fn limit(&self, path: &str) -> Option<&'static str> {
        if self.allows(path, true) {
            return Some("allows only the owner of the file, which QEMU's user is not, to use");
        }
        let mut rules = self.rules_for(path, true).filter(|rule| !rule.deny);
        match rules.find(|rule| rule.access != (false, false))?.access {
            (true, _) => Some("allows only reading of"),
            (false, _) => Some("allows only writing to"),
        }
    }

    fn rules_for(&self, path: &str, is_owner: bool) -> impl Iterator<Item = &ProfileRule> {
        let is_its = move |rule: &&ProfileRule| {
            (is_owner || !rule.owner) && rule.path.as_ref().is_none_or(|it| matches(it, path))
        };
        self.rules.iter().filter(is_its)
    }

    /// Adds the rules of a file, or of all files in a directory, below `AppArmor`'s directory.
    fn include(&mut self, root: &Sysroot, name: &str, names: &mut BTreeSet<String>) {
        // Also ends in directories with links to themselves.
        if names.len() >= FILES_LIMIT || !names.insert(name.to_owned()) {
            return;
        }
        let path = Path::new(DIRECTORY).join(name.trim_start_matches('/'));
        if root.stat(&path).is_ok_and(|stat| stat.kind == FileKind::Directory) {
            let files = root.entries(&path).unwrap_or_else(|error| {
                self.unread = Some(error.to_string());
                Vec::new()
            });
            for file in files.iter().filter(|file| is_read(file)) {
                self.include(root, &format!("{name}/{file}"), names);
            }
            return;
        }
        match root.read_text(&path) {
            Ok(text) => {
                self.exists = true;
                // Nested profiles are skipped. A file's main profile is not indented.
                let mut within = false;
                for line in text.lines() {
                    let line = without_comment(line);
                    let is_inner = line.starts_with([' ', '\t']) || name != BEGIN[0];
                    if is_inner && line.ends_with('{') {
                        within = true;
                    } else if line.trim() == "}" {
                        within = false;
                    } else if !within {
                        match included(line) {
                            Some(name) => self.include(root, &name, names),
                            None => self.rules.extend(rules(line).filter_map(parse)),
                        }
                    }
                }
            }
            Err(error) if error.is_absent() => {}
            Err(error) => self.unread = Some(error.to_string()),
        }
    }
}

/// The lines of a file that include others or concern one of these devices, and those that begin and
/// end a profile; `None` if there are none.
pub(in crate::doctor) fn redact(file: &str, text: &str, devices: &[&str]) -> Option<String> {
    let concerns = |rule: ProfileRule| {
        rule.path.is_none_or(|pattern| devices.iter().any(|device| matches(&pattern, device)))
    };
    let matters =
        |line: &str| included(line).is_some() || rules(line).filter_map(parse).any(concerns);
    let kept = |line: &str| {
        let line = without_comment(line);
        if line.ends_with('{') {
            // Names of profiles do not matter, but only the main one is not indented.
            let is_inner = line.starts_with([' ', '\t']) || file != BEGIN[0];
            return if is_inner { "  x {\n".into() } else { "x {\n".into() };
        }
        let text = if line.trim() == "}" || matters(line) { line } else { "" };
        format!("{text}\n")
    };
    text.lines().map(without_comment).any(matters).then(|| text.lines().map(kept).collect())
}

/// Whether a file in an included directory is read (`is_blacklisted`, apparmor
/// `libraries/libapparmor/src/private.c`).
fn is_read(name: &str) -> bool {
    const SKIPPED: &str = ".dpkg-new .dpkg-old .dpkg-dist .dpkg-bak .dpkg-remove .pacsave .pacnew \
        .rpmnew .rpmsave .orig .rej ~";
    let is_skipped = || SKIPPED.split(' ').any(|end| name.ends_with(end));
    !name.starts_with('.') && name != "README" && !is_skipped()
}

/// `include if exists <abstractions/libvirt-qemu.d>`
fn included(line: &str) -> Option<String> {
    let rest = line.trim().trim_start_matches('#').strip_prefix("include")?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix("if exists").unwrap_or(rest).trim();
    let name = rest.trim_start_matches(['<', '"']).split(['>', '"', ',']).next()?;
    Some(name.trim_start_matches("/etc/apparmor.d/").to_owned()).filter(|name| !name.is_empty())
}

/// A line without its comment and the spaces at its end. `#include` is no comment.
fn without_comment(line: &str) -> &str {
    let is_comment = |(at, _): &(usize, &str)| {
        let (before, after) = line.split_at(*at);
        let is_quoted = before.matches('"').count() % 2 == 1;
        !is_quoted && !after.starts_with("#include") && !before.ends_with('\\')
    };
    let end = line.match_indices('#').find(is_comment).map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or_default().trim_end()
}

/// The rules of a line, without the comma at the end of each.
fn rules(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line.trim();
    iter::from_fn(move || {
        let is_end = |(at, _): &(usize, &str)| {
            let (before, after) = (rest.get(..*at)?, rest.get(at + 1..)?);
            let is_quoted = before.matches('"').count() % 2 == 1;
            (!is_quoted && (after.is_empty() || after.starts_with([' ', '\t']))).then_some(*at)
        };
        let end = rest.match_indices(',').find_map(|it| is_end(&it))?;
        let rule = rest.get(..end)?.trim();
        rest = rest.get(end + 1..)?.trim_start();
        Some(rule)
    })
}

/// Parses a file rule: `owner /dev/egm* rw`, `rw /dev/egm*`, `deny /dev/egm4 w`, `file`.
fn parse(rule: &str) -> Option<ProfileRule> {
    const QUALIFIERS: [&str; 6] = ["audit", "quiet", "owner", "allow", "file", "deny"];
    let words: Vec<&str> = rule.split_whitespace().collect();
    let is_qualifier = |word: &&&str| QUALIFIERS.contains(*word) || word.starts_with("priority=");
    let qualifiers: Vec<_> = words.iter().take_while(is_qualifier).copied().collect();
    let deny = qualifiers.contains(&"deny");
    let is_path = |word: &str| word.starts_with(['/', '"', '@', '{']);
    let (path, access) = match words.get(qualifiers.len()..)? {
        [] if qualifiers.contains(&"file") => (None, "rw"),
        [path] if qualifiers.contains(&"file") && is_path(path) => (Some(*path), "rw"),
        [path, access] if is_path(path) => (Some(*path), *access),
        [access, path] if is_path(path) => (Some(*path), *access),
        _ => return None,
    };
    if !access.chars().all(|c| c.is_ascii_alphabetic()) {
        return None;
    }
    let path = path.map(|path| path.trim_matches('"').to_owned());
    let access = (access.contains('r'), access.contains('w'));
    Some(ProfileRule { path, access, deny, owner: qualifiers.contains(&"owner") })
}

/// Whether a path matches a pattern: `*` within a directory, `**` across, `?`, `[a-z]`, `[^a]`,
/// `{a,b}`.
fn matches(pattern: &str, path: &str) -> bool {
    alternatives(pattern).iter().any(|pattern| path_glob(pattern, path))
}

/// Expands the braces of a pattern.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut open = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(pattern) = open.pop() {
        if open.len() + done.len() > ALTERNATIVES_LIMIT {
            break;
        }
        // The first brace that is closed before another is opened is the innermost one. Braces of a
        // variable are not alternatives.
        let end = pattern.find('}');
        let start = end.and_then(|end| pattern.get(..end)?.rfind('{'));
        let (Some(start), Some(end)) = (start, end) else {
            done.push(pattern);
            continue;
        };
        let part = |range: std::ops::Range<usize>| pattern.get(range).unwrap_or_default();
        let (before, inner, after) =
            (part(0..start), part(start + 1..end), part(end + 1..pattern.len()));
        let is_variable = before.ends_with('@');
        if is_variable {
            // Variables are unknown; they do not contain EGM devices.
            continue;
        }
        open.extend(inner.split(',').map(|choice| format!("{before}{choice}{after}")));
    }
    done
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{Apparmor, Profile, included, is_read, parse, rules, without_comment};
    use crate::sysroot::Sysroot;

    fn profile(lines: &[&str]) -> Profile {
        let rules = lines.iter().flat_map(|line| rules(without_comment(line)).filter_map(parse));
        Profile { rules: rules.collect(), ..Profile::default() }
    }

    fn allows(lines: &[&str], path: &str) -> bool {
        profile(lines).allows(path, false)
    }

    #[test]
    fn a_directory_that_leads_to_itself_ends() {
        let directory = tempfile::tempdir().unwrap();
        let template = directory.path().join("etc/apparmor.d/libvirt/TEMPLATE.qemu");
        fs::create_dir_all(directory.path().join("sys/module/apparmor/parameters")).unwrap();
        fs::write(directory.path().join("sys/module/apparmor/parameters/enabled"), "Y\n").unwrap();
        fs::create_dir_all(&template).unwrap();
        for name in ["a", "b"] {
            symlink(".", template.join(name)).unwrap();
        }
        let root = Sysroot::directory(directory.path()).unwrap();
        assert!(!matches!(Apparmor::read(&root), Apparmor::On(_)));
        fs::write(template.join("rules"), "/dev/egm* rw,\n").unwrap();
        let Apparmor::On(profile) = Apparmor::read(&root) else { panic!("no profile") };
        assert!(profile.allows("/dev/egm4", false));
    }

    #[test]
    fn rules_for_the_owner_are_for_it_alone() {
        for (lines, expected) in [
            (&["owner /dev/egm4 rw,"][..], [false, true]),
            (&["owner file,", "/dev/egm4 r,"], [false, true]),
            (&["/dev/egm4 rw,", "deny owner /dev/** w,"], [true, false]),
            (&["/dev/egm4 rw,", "audit deny owner /dev/** w,"], [true, false]),
        ] {
            let profile = profile(lines);
            let allows = [false, true].map(|is_owner| profile.allows("/dev/egm4", is_owner));
            assert_eq!(allows, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_limit_of_the_rules_is_named() {
        let limit = |line: &str| {
            profile(&[line]).limit("/dev/egm4").map(|it| it.split(' ').nth(2).unwrap())
        };
        for (line, expected) in [
            ("owner /dev/egm* rw,", Some("the")),
            ("/dev/egm* r,", Some("reading")),
            ("/dev/egm* w,", Some("writing")),
            ("owner /dev/egm* r,", Some("reading")),
            ("/dev/null rw,", None),
            ("deny /dev/egm* rw,", None),
        ] {
            assert_eq!(limit(line), expected, "{line}");
        }
    }

    #[test]
    fn rules_are_evaluated_as_in_apparmor() {
        for line in [
            "/dev/egm* rw,",
            "  /dev/egm4 rwk,",
            "\"/dev/egm*\" rw,",
            "/dev/** rw,",
            "/dev/egm[0-9]* wr,",
            "rw /dev/egm*,",
            "audit /dev/egm* rw,",
            "file rw /dev/egm*,",
            "allow file /dev/egm* rw,",
            "file,",
            "/** rw,",
            "/{dev,run}/egm* rw,",
            "/dev/egm{4,5} rw, # both",
            "/dev/egm* rw,#all",
            "/dev/egm5 rw, /dev/egm4 rw,",
            "\"/dev/a, #b\" r, /dev/egm4 rw,",
        ] {
            assert!(allows(&[line], "/dev/egm4"), "{line}");
        }
        for line in [
            "# /dev/egm* rw,",
            "/dev/egm* r,",
            "deny /dev/egm* rw,",
            "/dev/null rw,",
            "/dev/{null,zero} rw,",
            "/dev/[sh]d* rw,",
            "/dev/[^e]* rw,",
            "/dev/egm5 rw,",
            "/dev/egmfoo rw,",
            "/dev/egm*/x rw,",
            "/* rw,",
            "@{dev}/egm* rw,",
            "/dev/egm* rw",
            "",
            "rw,",
            "capability sys_admin,",
            "network inet stream,",
        ] {
            assert!(!allows(&[line], "/dev/egm4"), "{line}");
        }
        assert!(allows(&["/dev/egm* r,", "/dev/egm4 w,"], "/dev/egm4"));
        assert!(!allows(&["/dev/egm* rw,", "deny /dev/egm4 w,"], "/dev/egm4"));
        assert!(!allows(&[&"{a,b}".repeat(100)], "/dev/egm4"), "bounded time");
    }

    #[test]
    fn includes_are_recognised() {
        for (line, name) in [
            ("  include <abstractions/base>", Some("abstractions/base")),
            ("#include <local/abstractions/libvirt-qemu>", Some("local/abstractions/libvirt-qemu")),
            (
                "include if exists <abstractions/libvirt-qemu.d>",
                Some("abstractions/libvirt-qemu.d"),
            ),
            ("include \"/etc/apparmor.d/x\"", Some("x")),
            ("/dev/egm* rw,", None),
        ] {
            assert_eq!(included(line).as_deref(), name, "{line}");
        }
        assert!(is_read("egm") && !is_read("egm.dpkg-old") && !is_read(".egm") && !is_read("egm~"));
    }
}
