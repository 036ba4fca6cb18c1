//! The combined effect of all udev rules of a host on a region's device.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::line::{Ignored, Line, Operator, Token};
use crate::host::Accounts;
use crate::values::RegionName;
use crate::values::numbers::decimal;
use crate::values::text::{SHOWN, excerpt, shown};

/// A rules file.
#[derive(Clone, Debug)]
pub(super) struct File {
    path: PathBuf,
    lines: Vec<Line>,
    /// Whether it mentions EGM devices; conditional rules are reported only then.
    pub(super) names_egm: bool,
}

/// Location of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct RulePlace {
    /// The file.
    pub(crate) path: PathBuf,
    /// The line, from 1.
    pub(crate) line: usize,
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", shown(&self.path), self.line)
    }
}

/// A value that rules assign to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// The value as written.
    pub(crate) value: String,
    /// The rule that takes effect.
    pub(crate) place: RulePlace,
    /// Whether later rules cannot change it (`:=`).
    pub(crate) is_final: bool,
    /// Rules with another value: earlier ones, and later ones after a final `:=`.
    pub(crate) others: Vec<Other>,
}

/// A value that does not take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// The rule.
    pub(crate) place: RulePlace,
    /// The value as written.
    pub(crate) value: String,
}

/// The effect of the rules on one device. Without a rule, it keeps the kernel's values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effective {
    /// The owner.
    pub(crate) user: Option<Given>,
    /// The group.
    pub(crate) group: Option<Given>,
    /// The mode.
    pub(crate) mode: Option<Given>,
    /// The `SELinux` label.
    pub(crate) label: Option<Given>,
    /// Rules that change one of these under conditions that are not evaluated here.
    pub(crate) conditional: Vec<RulePlace>,
    /// Rules that do not give QEMU access, but look as if they did.
    pub(super) problems: Vec<LineProblem>,
}

/// A line that does not do what its author probably wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LineProblem {
    place: RulePlace,
    kind: ProblemKind,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ProblemKind {
    /// A condition written as an assignment.
    Assignment(String),
    /// Invalid for another reason.
    Invalid,
    /// A mode that is not octal.
    Mode(String),
    /// For the user at the seat (systemd `73-seat-late.rules`).
    Seat,
    /// A program, which may change permissions.
    Program,
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match &self.kind {
            ProblemKind::Assignment(text) => {
                let text = excerpt(text, SHOWN);
                write!(f, "{text} is not a match (expected ==); udev ignores the whole line")
            }
            ProblemKind::Invalid => f.write_str("invalid rule; udev ignores the whole line"),
            ProblemKind::Mode(text) => {
                let text = excerpt(text, SHOWN);
                write!(f, "mode {text}: not an octal number; udev ignores it")
            }
            ProblemKind::Seat => {
                f.write_str("uaccess gives the device to the user at the seat, not to QEMU")
            }
            ProblemKind::Program => {
                f.write_str("RUN calls a program; permissions that it changes are not evaluated")
            }
        }
    }
}

impl LineProblem {
    pub(super) fn of(path: &Path, line: Ignored) -> Self {
        let place = RulePlace { path: path.to_owned(), line: line.number };
        let kind = line.assignment.map_or(ProblemKind::Invalid, ProblemKind::Assignment);
        Self { place, kind }
    }
}

/// Whether an assignment looks as if it gave QEMU access, or may do it in a way not evaluated here.
fn misleading(token: &Token) -> Option<ProblemKind> {
    if token.is_match() || token.operator == Operator::Remove {
        return None;
    }
    match token.key.as_str() {
        "TAG" if token.value == "uaccess" => Some(ProblemKind::Seat),
        "RUN" | "RUN{program}" => Some(ProblemKind::Program),
        "MODE" if token.is_no_mode() => Some(ProblemKind::Mode(token.value.clone())),
        _ => None,
    }
}

impl File {
    /// Whether it names EGM devices, or changes the permissions of one of these.
    pub(super) fn concerns<'a>(&self, mut regions: impl Iterator<Item = &'a RegionName>) -> bool {
        let changes = |name: &RegionName| {
            let mut effective = Effective::default();
            self.apply(name, &mut effective, &mut BTreeSet::new());
            effective != Effective::default()
        };
        self.names_egm || regions.any(changes)
    }

    pub(super) fn new(path: PathBuf, lines: Vec<Line>) -> Self {
        let names_egm = lines.iter().flat_map(|line| &line.tokens).any(Token::names_egm);
        Self { path, lines, names_egm }
    }

    /// Applies the rules in the same order as udev does for an event of the region's device.
    pub(super) fn apply<'a>(
        &'a self,
        name: &RegionName,
        effective: &mut Effective,
        is_final: &mut BTreeSet<&'a str>,
    ) {
        let mut jump: Option<&str> = None;
        // Labels that a previous rule may have jumped to.
        let mut perhaps: Vec<&str> = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let label = line.value("LABEL");
            if jump.is_some() && jump != label {
                continue;
            }
            jump = None;
            perhaps.retain(|target| Some(*target) != label);
            let conditions = line.tokens.iter().filter(|token| token.is_match());
            let mut held = conditions.map(|token| holds(token, name)).min().unwrap_or(Holds::Yes);
            if held == Holds::No {
                continue;
            }
            if !perhaps.is_empty() {
                held = Holds::Maybe;
            }
            let later = self.lines.get(index + 1..).unwrap_or_default();
            // udev ignores a jump to a missing label.
            let target = line.value("GOTO");
            let target =
                target.filter(|it| later.iter().any(|line| line.value("LABEL") == Some(it)));
            // A jump for "change" alone leaves the effect of "add".
            let target = target.filter(|_| line.applies_to("add"));
            match (target, held) {
                (Some(target), Holds::Yes) if line.applies_to("change") => jump = Some(target),
                (Some(target), _) => perhaps.push(target),
                (None, _) => {}
            }
            self.assign(line, held, effective, is_final);
        }
    }

    fn assign<'a>(
        &'a self,
        line: &'a Line,
        held: Holds,
        effective: &mut Effective,
        is_final: &mut BTreeSet<&'a str>,
    ) {
        let place = || RulePlace { path: self.path.clone(), line: line.number };
        let is_for_egm = held == Holds::Yes || line.tokens.iter().any(Token::names_egm);
        if self.names_egm && is_for_egm {
            let kinds = line.tokens.iter().filter_map(misleading);
            let problem = |kind| LineProblem { place: place(), kind };
            effective.problems.extend(kinds.map(problem));
        }
        for token in line.tokens.iter().filter(|token| !token.is_match()) {
            let Some(slot) = effective.slot(&token.key) else { continue };
            if held == Holds::Maybe {
                // Ignore conditional rules in files that do not mention EGM.
                if self.names_egm && !effective.conditional.contains(&place()) {
                    effective.conditional.push(place());
                }
                continue;
            }
            let is_last = token.operator == Operator::AssignFinal;
            if token.is_no_mode() {
                if is_last {
                    is_final.insert(&token.key);
                }
                continue;
            }
            let given = Other { place: place(), value: token.value.clone() };
            if is_final.contains(token.key.as_str()) {
                if let Some(first) = slot.as_mut().filter(|it| !is_same(&it.value, &given.value)) {
                    first.others.push(given);
                }
                continue;
            }
            if is_last {
                is_final.insert(&token.key);
            }
            give(slot, given, is_last);
        }
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

    /// Whether QEMU may get access: all users do, or a user or group other than root does.
    pub(crate) fn gives_access(&self) -> bool {
        // Without a rule, udev sets the mode that the driver asks for (DEVMODE, `update_devnode` in
        // systemd's `src/udev/udev-event.c`). One with a substitution is not known.
        let mode = self
            .mode
            .as_ref()
            .map_or(0o600, |given| u32::from_str_radix(&given.value, 8).unwrap_or(0o660));
        let is_another = |given: &Option<Given>| {
            given.as_ref().is_some_and(|it| !["root", "0"].contains(&&*it.value))
        };
        let has = |bits| mode & bits == bits;
        has(0o006)
            || (has(0o060) && is_another(&self.group))
            || (has(0o600) && is_another(&self.user))
    }

    /// Whether a user in these groups gets access.
    pub(crate) fn gives_access_to(
        &self,
        uid: u32,
        groups: &[u32],
        accounts: &Accounts<'_>,
    ) -> bool {
        let of = |given: &Option<Given>, find: &dyn Fn(&str) -> Option<u32>| match given {
            Some(given) => find(&given.value).or_else(|| decimal(&given.value)),
            None => Some(0),
        };
        let owner = of(&self.user, &|name| accounts.uid(name));
        let group = of(&self.group, &|name| accounts.gid(name));
        let mode =
            self.mode.as_ref().map_or(Some(0o600), |it| u32::from_str_radix(&it.value, 8).ok());
        let bits = match (owner, group) {
            (Some(owner), _) if owner == uid => 0o600,
            (Some(_), Some(group)) if groups.contains(&group) => 0o060,
            (Some(_), Some(_)) => 0o006,
            _ => return false,
        };
        mode.is_some_and(|mode| mode & bits == bits)
    }

    /// The assigned values with their names: user, group, mode, label.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static str, &Given)> {
        let Self { user, group, mode, label, .. } = self;
        let all = [("user", user), ("group", group), ("mode", mode), ("label", label)];
        all.into_iter().filter_map(|(name, given)| Some((name, given.as_ref()?)))
    }
}

/// Whether two values mean the same: 660 is 0660.
fn is_same(one: &str, other: &str) -> bool {
    let octal = |text: &str| u32::from_str_radix(text, 8).ok();
    one == other || octal(one).is_some_and(|one| octal(other) == Some(one))
}

fn give(slot: &mut Option<Given>, Other { place, value }: Other, is_final: bool) {
    let mut others = Vec::new();
    if let Some(before) = slot.take() {
        others = before.others;
        if !is_same(&before.value, &value) {
            others.push(Other { place: before.place, value: before.value });
        }
    }
    *slot = Some(Given { value, place, is_final, others });
}

/// Whether a condition is true for a region's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    No,
    Maybe,
    Yes,
}

fn holds(token: &Token, name: &RegionName) -> Holds {
    let certain = |passes: bool| if passes { Holds::Yes } else { Holds::No };
    // These also match parent devices.
    let of_any = |passes: bool| match (token.operator, passes) {
        (Operator::Match, true) => Holds::Yes,
        _ => Holds::Maybe,
    };
    match token.key.as_str() {
        "SUBSYSTEM" => certain(token.passes("egm")),
        "KERNEL" => certain(token.passes(name.as_str())),
        "ENV{DEVNAME}" if token.is_match() => certain(token.passes(&format!("/dev/{name}"))),
        // The path with most drivers.
        "DEVPATH" => of_any(token.passes(&format!("/devices/virtual/egm/{name}"))),
        "DRIVER" => certain(token.passes("")),
        "SUBSYSTEMS" => of_any(token.passes("egm")),
        "KERNELS" => of_any(token.passes(name.as_str())),
        // Without a rule for "change", udev keeps the permissions of "add".
        "ACTION" if token.passes("add") => Holds::Yes,
        "ACTION" if !token.passes("change") => Holds::No,
        _ => Holds::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::parse;
    use super::{BTreeSet, Effective, File};

    /// The mode that files assign to egm4 and its line, overridden modes, and the lines of
    /// conditional rules: `2@4 not 1 if 3`. In the files, `;` ends a line and `'` is a quote.
    fn of(files: &[&str]) -> String {
        let mut effective = Effective::default();
        let parsed = files.iter().map(|text| parse(&text.replace("; ", "\n").replace('\'', "\"")));
        let files: Vec<_> = parsed.map(|file| File::new("x".into(), file.lines)).collect();
        let mut is_final = BTreeSet::new();
        for file in &files {
            file.apply(&"egm4".parse().unwrap(), &mut effective, &mut is_final);
        }
        let mut shown = String::from("-");
        if let Some(given) = &effective.mode {
            shown = format!("{}@{}", given.value, given.place.line);
            shown.extend(given.others.iter().map(|other| format!(" not {}", other.value)));
        }
        shown.extend(effective.conditional.iter().map(|place| format!(" if {}", place.line)));
        shown.extend(
            effective.problems.iter().map(|it| format!(" {:?}@{}", it.kind, it.place.line)),
        );
        shown
    }

    #[test]
    fn access_needs_a_user_or_group_with_a_mode_for_it() {
        for (rule, expected) in [
            ("MODE='0666'", true),
            ("GROUP='kvm'", false),
            ("OWNER='libvirt-qemu'", true),
            ("OWNER='root', GROUP='0'", false),
            ("GROUP='kvm', MODE='0660'", true),
            ("GROUP='kvm', MODE='0640'", false),
            ("GROUP='root', MODE='0660'", false),
            ("OWNER='libvirt-qemu', GROUP='kvm', MODE='0600'", true),
            ("GROUP='kvm', MODE='$env{X}'", true),
        ] {
            let mut effective = Effective::default();
            let lines = parse(&format!("KERNEL=='egm4', {rule}").replace('\'', "\"")).lines;
            let name = "egm4".parse().unwrap();
            File::new("x".into(), lines).apply(&name, &mut effective, &mut BTreeSet::new());
            assert_eq!(effective.gives_access(), expected, "{rule}");
        }
    }

    #[test]
    fn the_last_rule_takes_effect_unless_an_earlier_one_is_final() {
        for (files, expected) in [
            (&["SUBSYSTEM=='egm', MODE='0660'"][..], "0660@1"),
            (&["KERNEL=='egm[0-9]*', MODE='1'; KERNEL=='egm4', MODE='2'"], "2@2 not 1"),
            (&["KERNEL=='egm4', MODE='0660'; KERNEL=='egm4', MODE='660'"], "660@2"),
            (&["KERNEL=='egm*', MODE:='1'", "KERNEL=='egm4', MODE='2'"], "1@1 not 2"),
            (&["KERNEL=='egm5', MODE='1'; SUBSYSTEM=='mem', MODE='2'"], "-"),
            (&["SUBSYSTEM!='egm', GOTO='end'; MODE='1'; LABEL='end'"], "1@2"),
            (&["SUBSYSTEM=='egm', GOTO='end'; MODE='1'; LABEL='end'; MODE='2'"], "2@4"),
            (&["SUBSYSTEM=='egm', GOTO='nowhere'; MODE='1'"], "1@2"),
            (&["SUBSYSTEM!='usb', GOTO='end'; MODE='1'; LABEL='end'"], "-"),
            (&["KERNEL=='egm*', ENV{X}=='1', GOTO='a'; MODE='1'; LABEL='a'; MODE='2'"], "2@4 if 2"),
            (&["KERNEL=='egm*', ATTR{egm-size}=='*', MODE='1'"], "- if 1"),
            (&["ENV{X}=='1', MODE='1'"], "-"),
            (&["ENV{DEVNAME}=='/dev/egm4', MODE='1'"], "1@1"),
            (&["DEVPATH=='/devices/virtual/egm/*', MODE='1'"], "1@1"),
            (&["KERNEL=='egm4', DRIVER=='', MODE='1'"], "1@1"),
            (&["SUBSYSTEM='egm', MODE='1'"], "-"),
            (&["KERNEL=='egm4', ACTION=='add|change', MODE='1'"], "1@1"),
            (&["KERNEL=='egm4', ACTION!='remove', MODE='1'"], "1@1"),
            (&["KERNEL=='egm4', ACTION=='add', MODE='1'"], "1@1"),
            (&["KERNEL=='egm4', ACTION=='change', MODE='1'"], "- if 1"),
            (&["KERNEL=='egm4', MODE='1'; KERNEL=='egm4', ACTION!='add', MODE='2'"], "1@1 if 2"),
            (&["ACTION!='add', GOTO='end'; KERNEL=='egm4', MODE='1'; LABEL='end'"], "1@2"),
            (&["ACTION!='change', GOTO='end'; KERNEL=='egm4', MODE='1'; LABEL='end'"], "- if 2"),
            (&["KERNEL=='egm4', MODE='1'; KERNEL=='egm4', MODE='rw'"], "1@1 Mode(\"rw\")@2"),
            (&["KERNEL=='egm4', MODE:='rw'; KERNEL=='egm4', MODE='1'"], "- Mode(\"rw\")@1"),
            (&["KERNEL=='egm4', TAG+='uaccess'"], "- Seat@1"),
            (&["KERNEL=='egm4', TAG-='uaccess', TAG+='systemd'"], "-"),
            (&["KERNEL=='egm4', ATTR{x}=='1', RUN+='/bin/chmod'"], "- Program@1"),
            (&["KERNEL=='egm4', RUN{builtin}+='kmod'"], "-"),
            (&["KERNEL=='egm5', RUN+='x'; SUBSYSTEM=='pci', RUN+='x'; ENV{X}=='1', RUN+='x'"], "-"),
            (&["RUN+='x'"], "-"),
            (&["KERNEL=='egm4', ACTION=='remove', RUN+='x'"], "-"),
            (&["KERNEL=='egm4', ACTION=='remove', MODE='1'"], "-"),
            (&["SUBSYSTEMS=='egm', MODE='1'; KERNELS=='egm5', MODE='2'"], "1@1 if 2"),
        ] {
            assert_eq!(of(files), expected, "{files:?}");
        }
    }
}
