//! Parses the lines of a udev rules file that concern permissions of a device (udev(7)).

use std::fmt;

use crate::values::glob::glob;

/// A rule: one line, or several lines joined by backslashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of its first line, from 1.
    pub(super) number: usize,
    /// Its matches and assignments.
    pub(super) tokens: Vec<Token>,
}

/// A line that udev ignores because it is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ignored {
    /// The number of its first line, from 1.
    pub(super) number: usize,
    /// The condition that is written with another operator than `==` or `!=`, such as
    /// `SUBSYSTEM="egm"`.
    pub(super) assignment: Option<String>,
}

/// The contents of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The rules.
    pub(super) lines: Vec<Line>,
    /// Invalid lines that mention EGM.
    pub(super) ignored: Vec<Ignored>,
}

/// `ATTR{class}=="0x0302*"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The key with its attribute, `ATTR{class}`.
    pub(super) key: String,
    /// The operation on the key.
    pub(super) operator: Operator,
    /// The text between the quotes.
    pub(super) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Match,
    NoMatch,
    Assign,
    Add,
    Remove,
    AssignFinal,
}

/// Longest first: `=` is a prefix of `==`.
const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Match),
    ("!=", Operator::NoMatch),
    ("+=", Operator::Add),
    ("-=", Operator::Remove),
    (":=", Operator::AssignFinal),
    ("=", Operator::Assign),
];

/// The rules of a file. Invalid lines are skipped, as in udev.
pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut joined = String::new();
    let mut begins = 1;
    for (index, text) in text.lines().enumerate() {
        if joined.is_empty() {
            begins = index + 1;
        }
        // A comment line within a continued rule is skipped. A backslash followed by spaces does
        // not continue a line.
        let text = text.trim_start();
        if text.starts_with('#') {
            continue;
        }
        if let Some(text) = text.strip_suffix('\\') {
            joined.push_str(text);
            continue;
        }
        joined.push_str(text);
        parsed.add(begins, &joined);
        joined.clear();
    }
    // The continuation of the last line is missing, so udev ignores it.
    if mentions_egm(&joined) {
        parsed.ignored.push(Ignored { number: begins, assignment: None });
    }
    parsed
}

impl Parsed {
    fn add(&mut self, number: usize, text: &str) {
        let tokens = tokens(text);
        match &tokens {
            Some(tokens) if tokens.is_empty() => {}
            Some(found) if found.iter().all(is_known) => {
                self.lines.extend(tokens.map(|tokens| Line { number, tokens }));
            }
            _ if !mentions_egm(text) => {}
            _ => {
                let mut tokens = tokens.iter().flatten();
                let assigned = tokens.find(|token| token.names_device() && !token.is_match());
                let assignment = assigned.map(ToString::to_string);
                self.ignored.push(Ignored { number, assignment });
            }
        }
    }
}

/// Whether a text contains `egm`, other than within a word such as `segment`.
fn mentions_egm(text: &str) -> bool {
    let mut found = text.match_indices("egm").filter_map(|(at, _)| text.get(..at));
    found.any(|before| !before.ends_with(|c: char| c.is_ascii_alphabetic()))
}

/// Whether udev accepts a token (udev(7)); it ignores the whole line otherwise.
fn is_known(token: &Token) -> bool {
    let (key, attribute) = match token.key.split_once('{') {
        Some((key, attribute)) => (key, attribute.strip_suffix('}')),
        None => (token.key.as_str(), None),
    };
    let is_match = matches!(token.operator, Operator::Match | Operator::NoMatch);
    if token.operator == Operator::Remove && !["SYMLINK", "TAG"].contains(&key) {
        return false;
    }
    match key {
        "ACTION" | "DEVPATH" | "KERNEL" | "KERNELS" | "SUBSYSTEM" | "SUBSYSTEMS" | "DRIVER"
        | "DRIVERS" | "TAGS" | "RESULT" => is_match && attribute.is_none(),
        "ATTRS" | "CONST" => is_match && attribute.is_some(),
        "TEST" => is_match,
        "ATTR" | "ENV" | "SYSCTL" => attribute.is_some(),
        "SECLABEL" => !is_match && attribute.is_some(),
        "OWNER" | "GROUP" | "MODE" | "OPTIONS" => !is_match && attribute.is_none(),
        "GOTO" | "LABEL" => token.operator == Operator::Assign && attribute.is_none(),
        "RUN" => !is_match && attribute.is_none_or(|kind| ["program", "builtin"].contains(&kind)),
        "IMPORT" => attribute.is_some_and(|kind| {
            ["file", "program", "builtin", "db", "cmdline", "parent"].contains(&kind)
        }),
        // These names would change nothing.
        "NAME" if !is_match && ["", "%k"].contains(&token.value.as_str()) => false,
        "NAME" | "SYMLINK" | "TAG" | "PROGRAM" => attribute.is_none(),
        _ => false,
    }
}

/// The tokens of a line, which may be unknown; `None` for invalid syntax.
fn tokens(line: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        // The name of an attribute may contain any of these.
        let attribute = rest.find('{').filter(|open| *open < rest.find('=').unwrap_or(0));
        let from =
            attribute.and_then(|open| Some(open + rest.get(open..)?.find('}')?)).unwrap_or(0);
        let end = from + rest.get(from..)?.find(['=', '!', '+', '-', ':'])?;
        let (key, from_operator) = rest.split_at_checked(end)?;
        let is_operator = |(sign, _): &&(&str, _)| from_operator.starts_with(sign);
        let (sign, operator) = OPERATORS.iter().find(is_operator)?;
        let quoted = from_operator.get(sign.len()..)?.trim_start();
        // e"..": a string with escapes; i"..": compared case-insensitively.
        let quoted = quoted.trim_start_matches(['e', 'i']).strip_prefix('"')?;
        let end = closing_quote(quoted)?;
        let (value, after) = quoted.split_at_checked(end)?;
        let value = value.replace("\\\"", "\"");
        tokens.push(Token { key: key.trim().to_owned(), operator: *operator, value });
        rest = after.get(1..)?.trim_start_matches([' ', '\t', ',']);
    }
    Some(tokens)
}

/// The end of the string: the first quote without a backslash before it.
fn closing_quote(text: &str) -> Option<usize> {
    let is_end =
        |(at, _): &(usize, &str)| !text.get(..*at).is_some_and(|before| before.ends_with('\\'));
    text.match_indices('"').find(is_end).map(|(at, _)| at)
}

impl Line {
    /// The value assigned to a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let token = self.tokens.iter().find(|token| token.key == key)?;
        Some(token.value.as_str())
    }

    /// Whether it may apply to an event.
    pub(super) fn applies_to(&self, action: &str) -> bool {
        self.tokens.iter().filter(|token| token.key == "ACTION").all(|token| token.passes(action))
    }
}

impl Token {
    /// Whether it sets a mode that is none, which udev ignores.
    pub(super) fn is_no_mode(&self) -> bool {
        let is_octal = |value: &str| {
            (1..=5).contains(&value.len()) && value.bytes().all(|it| (b'0'..=b'7').contains(&it))
        };
        self.key == "MODE" && !is_octal(&self.value) && !self.value.contains(['$', '%'])
    }

    /// Whether it is a condition.
    pub(super) fn is_match(&self) -> bool {
        // PROGRAM and IMPORT are conditions whatever their operator.
        matches!(self.operator, Operator::Match | Operator::NoMatch)
            || self.key.starts_with("PROGRAM")
            || self.key.starts_with("IMPORT")
    }

    /// Whether it is about the name of a device, which is not an assignment.
    fn names_device(&self) -> bool {
        ["SUBSYSTEM", "SUBSYSTEMS", "KERNEL", "KERNELS", "DEVPATH"].contains(&self.key.as_str())
    }

    /// Whether it is a condition that mentions EGM devices.
    pub(super) fn names_egm(&self) -> bool {
        let is_name = self.names_device() || self.key == "ENV{DEVNAME}";
        is_name && self.is_match() && mentions_egm(&self.value)
    }

    /// Whether a name matches it.
    pub(super) fn passes(&self, name: &str) -> bool {
        let any = self.value.split('|').any(|pattern| glob(pattern, name));
        any == (self.operator == Operator::Match)
    }
}

/// As in a rules file.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator);
        let sign = sign.map_or("", |(sign, _)| sign);
        write!(f, "{}{sign}\"{}\"", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Operator, parse};

    #[test]
    fn rules_are_parsed_as_in_udev() {
        let lines = parse(
            "# a comment\n\nSUBSYSTEM==\"egm\", KERNEL==\"egm[0-9]*\" GROUP=\"kvm\", \\\n  # within\n  MODE:=\"0660\"\n\
             junk\nMODE=\"unclosed\nATTR{a-b}!=\"a\\\"b\", RUN+=\"x\"\nMODE=\"1\" \\ \nMODE=\"2\"\n\
             BOGUS=\"x\", MODE=\"3\"\nMODE=\"rw\"\nMODE-=\"0660\"\nSUBSYSTEM=\"egm\", MODE=\"4\"\n\
             SECLABEL=\"x\", MODE=\"5\"\nRUN{bogus}+=\"x\", MODE=\"6\"\nGROUP==\"kvm\", MODE=\"7\"\n\
             NAME=\"%k\", MODE=\"8\"\nENV{x}-=\"y\", MODE=\"9\"\nLABEL+=\"x\"\nTAG-=\"t\", NAME==\"\"\nMODE=\"10\" \\\n",
        );
        let shown = lines.lines.iter().flat_map(|line| {
            let tokens = line.tokens.iter();
            tokens.map(|t| (line.number, t.key.as_str(), t.operator, t.value.as_str()))
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                (3, "SUBSYSTEM", Operator::Match, "egm"),
                (3, "KERNEL", Operator::Match, "egm[0-9]*"),
                (3, "GROUP", Operator::Assign, "kvm"),
                (3, "MODE", Operator::AssignFinal, "0660"),
                (8, "ATTR{a-b}", Operator::NoMatch, "a\"b"),
                (8, "RUN", Operator::Add, "x"),
                (10, "MODE", Operator::Assign, "2"),
                (12, "MODE", Operator::Assign, "rw"),
                (21, "TAG", Operator::Remove, "t"),
                (21, "NAME", Operator::Match, ""),
            ]
        );
    }

    #[test]
    fn invalid_lines_that_mention_egm_are_kept() {
        let parsed = parse(
            "SUBSYSTEM=\"egm\", MODE=\"0660\"\nKERNEL:=\"egm*\", MODE=\"0660\"\nKERNEL=egm4\n\
             KERNEL==\"egm4\", GROUP-=\"kvm\"\nSUBSYSTEM=\"usb\"\nKERNEL==\"segment\", MODE=\"rw\"\n\
             # KERNEL=\"egm4\"\nKERNEL==\"egm4\", MODE=\"0660\"\nKERNEL==\"egm4\", MODE=\"0660\" \\\n",
        );
        let shown = parsed.ignored.iter().map(|it| (it.number, it.assignment.as_deref()));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                (1, Some("SUBSYSTEM=\"egm\"")),
                (2, Some("KERNEL:=\"egm*\"")),
                (3, None),
                (4, None),
                (9, None)
            ]
        );
        assert_eq!(parsed.lines.len(), 2);
    }
}
