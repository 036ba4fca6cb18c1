//! Parses libvirt's `/etc/libvirt/qemu.conf` in the same way as libvirt (`src/util/virconf.c`).

use std::collections::BTreeMap;

use crate::sysroot::Sysroot;
use crate::values::text::{SHOWN, excerpt};

/// Path of the file.
pub(in crate::doctor) const PATH: &str = "/etc/libvirt/qemu.conf";

/// Maximum size of the file.
const LIMIT: usize = 1 << 20;

/// A value in libvirt's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ConfValue {
    Number(String),
    Text(String),
    List(Vec<String>),
}

/// The result of reading the file.
#[derive(Clone, Debug)]
pub(in crate::doctor) enum QemuConf {
    /// The settings; empty if the file does not exist.
    Read(ConfValues),
    /// It cannot be read, so the settings are unknown.
    Unreadable(String),
    /// libvirt does not start with this file.
    Malformed(String),
}

/// The settings.
#[derive(Clone, Debug, Default)]
pub(in crate::doctor) struct ConfValues(BTreeMap<String, ConfValue>);

impl QemuConf {
    pub(in crate::doctor) fn read(root: &Sysroot) -> Self {
        match root.read(PATH, LIMIT) {
            Ok(bytes) => match parse(&String::from_utf8_lossy(&bytes)) {
                Ok(settings) => Self::Read(settings),
                Err((line, problem)) => Self::Malformed(format!("{PATH}: line {line}: {problem}")),
            },
            Err(error) if error.is_absent() => Self::Read(ConfValues::default()),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// Settings that libvirt reads as strings, and those that it reads as lists.
const TEXTS: [&str; 2] = ["user", "group"];
const NO_NUMBER: [&str; 1] = ["security_driver"];
const LISTS: [&str; 3] = ["cgroup_controllers", "cgroup_device_acl", "namespaces"];

/// An error: the line at which libvirt stops, and a description.
type Problem = (usize, String);

/// An error within the parser: the text that is left, and a description.
type Fault<'a> = (&'a str, String);

fn parse(text: &str) -> Result<ConfValues, Problem> {
    let mut parser = Parser { rest: text };
    let mut settings = BTreeMap::new();
    loop {
        parser.skip_lines();
        if parser.rest.is_empty() {
            return Ok(ConfValues(settings));
        }
        let at = parser.rest;
        let placed = |(rest, problem): Fault<'_>| {
            let before = text.get(..text.len() - rest.len()).unwrap_or_default();
            // At the end of the file, its last line.
            let line = (before.matches('\n').count() + 1).min(text.lines().count());
            (line, problem)
        };
        let (key, value) = parser.setting().map_err(placed)?;
        let is_right = match &value {
            ConfValue::Text(_) => !LISTS.contains(&key.as_str()),
            ConfValue::Number(_) => {
                ![&TEXTS[..], &LISTS, &NO_NUMBER].concat().contains(&key.as_str())
            }
            ConfValue::List(_) => !TEXTS.contains(&key.as_str()),
        };
        if !is_right {
            let expected = if LISTS.contains(&key.as_str()) {
                "list: [ \"value\" ]"
            } else {
                "string: \"value\""
            };
            return Err(placed((at, format!("{key} must be a {expected}"))));
        }
        // The first of several settings counts.
        settings.entry(key).or_insert(value);
    }
}

/// All settings that concern EGM.
const KEYS: [&str; 7] = [
    "user",
    "group",
    "security_driver",
    "security_default_confined",
    "cgroup_controllers",
    "cgroup_device_acl",
    "namespaces",
];

/// The lines of these settings, at their places, up to the first error.
pub(in crate::doctor) fn redact(text: &str) -> String {
    let last = parse(text).err().map(|(line, ..)| line);
    let mut is_kept = false;
    let mut in_list = false;
    let mut kept = String::new();
    for (index, line) in text.lines().enumerate() {
        let is_comment = !in_list && line.trim_start().starts_with('#');
        if !in_list && !is_comment {
            let key = line.split('=').next().unwrap_or_default().trim();
            is_kept = KEYS.contains(&key);
            in_list = line.contains('[');
        }
        in_list &= !line.contains(']');
        let is_last = last == Some(index + 1);
        if is_kept && !is_comment {
            let is_whole = in_list || is_last;
            kept.push_str(if is_whole { line } else { without_comment(line) });
        } else if is_last {
            // Neither libvirt nor this program accepts it.
            kept.push_str("x = x");
        }
        kept.push('\n');
        if is_last {
            break;
        }
    }
    kept
}

/// The part of a line before its comment.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let comment = line.find(|c: char| {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            _ => {}
        }
        c == '#' && quote.is_none()
    });
    line.get(..comment.unwrap_or(line.len())).unwrap_or(line)
}

impl ConfValues {
    /// A string.
    pub(in crate::doctor) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            ConfValue::Text(text) => Some(text),
            ConfValue::Number(_) | ConfValue::List(_) => None,
        }
    }

    /// Whether a setting is 0.
    pub(in crate::doctor) fn is_off(&self, key: &str) -> bool {
        self.0.get(key) == Some(&ConfValue::Number("0".into()))
    }

    /// A list; a single string is a list of one element.
    pub(in crate::doctor) fn list(&self, key: &str) -> Option<&[String]> {
        match self.0.get(key)? {
            ConfValue::Text(text) => Some(std::slice::from_ref(text)),
            ConfValue::List(list) => Some(list),
            ConfValue::Number(_) => None,
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

const SPACES: [char; 2] = [' ', '\t'];
const ENDS: [char; 2] = ['\n', '\r'];

impl<'a> Parser<'a> {
    fn fault(&self, problem: impl Into<String>) -> Fault<'a> {
        (self.rest, problem.into())
    }

    /// The rest of the line.
    fn found(&self) -> String {
        let line = self.rest.split(ENDS).next().unwrap_or_default();
        format!("`{}`", excerpt(line.trim_end(), SHOWN))
    }

    /// `key = value`, to the end of its line, or to a semicolon.
    fn setting(&mut self) -> Result<(String, ConfValue), Fault<'a>> {
        let is_in_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !is_in_key(c)).unwrap_or(self.rest.len());
        let (key, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        if !key.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let found = self.found();
            return Err(self.fault(format!("{found} does not begin with the name of a setting")));
        }
        self.rest = rest.trim_start_matches(SPACES);
        let Some(rest) = self.rest.strip_prefix('=') else {
            return Err(self.fault(format!("= is missing after {}", excerpt(key, SHOWN))));
        };
        self.rest = rest;
        self.skip_spaces();
        let value = if let Some(rest) = self.rest.strip_prefix('[') {
            self.rest = rest;
            ConfValue::List(self.list()?)
        } else if let Some(text) = self.text()? {
            ConfValue::Text(text)
        } else {
            ConfValue::Number(self.number().ok_or_else(|| self.no_value())?)
        };
        self.skip_spaces();
        if let Some(rest) = self.rest.strip_prefix(';') {
            self.rest = rest;
        } else if !self.rest.is_empty() && !self.rest.starts_with(['\n', '\r', '#']) {
            return Err(self.fault(format!("unexpected {} after the value", self.found())));
        }
        Ok((key.to_owned(), value))
    }

    fn no_value(&self) -> Fault<'a> {
        if self.rest.is_empty() || self.rest.starts_with(['\n', '\r', '#', ',']) {
            return self.fault("a value is missing");
        }
        self.fault(format!("{} is not a value (strings need quotes)", self.found()))
    }

    /// Parses the part of a list after the bracket, which has no comments.
    fn list(&mut self) -> Result<Vec<String>, Fault<'a>> {
        let mut list = Vec::new();
        loop {
            self.skip_in_list()?;
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return Ok(list);
            }
            let text = self.text()?.or_else(|| self.number());
            list.push(text.ok_or_else(|| self.no_value())?);
            self.skip_in_list()?;
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
            } else if !self.rest.starts_with(']') {
                let expected = format!("expected a comma or ], found {}", self.found());
                let next = self.rest;
                let is_string = matches!(self.text(), Ok(Some(_)));
                let string = next.strip_suffix(self.rest).filter(|_| is_string);
                let missing = |it| format!("a comma is missing before {}", excerpt(it, SHOWN));
                return Err((next, string.map_or(expected, missing)));
            }
        }
    }

    /// Skips spaces and line breaks; an error if the list cannot continue.
    fn skip_in_list(&mut self) -> Result<(), Fault<'a>> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        match self.rest.chars().next() {
            None => Err(self.fault("the list is not closed with ]")),
            Some('#') => Err(self.fault("# is not allowed in a list")),
            Some(_) => Ok(()),
        }
    }

    /// A quoted string: only triple quotes allow line breaks. `None` without a quote.
    fn text(&mut self) -> Result<Option<String>, Fault<'a>> {
        for quote in ["\"\"\"", "\"", "'"] {
            let Some(rest) = self.rest.strip_prefix(quote) else { continue };
            let closed = rest.split_once(quote);
            let closed = closed.filter(|(text, _)| quote.len() > 1 || !text.contains(ENDS));
            let Some((text, rest)) = closed else {
                // libvirt reads to the end of the file with triple quotes.
                let rest = if quote.len() > 1 { "" } else { self.rest };
                return Err((rest, format!("the string is not closed with {quote}")));
            };
            self.rest = rest;
            return Ok(Some(text.to_owned()));
        }
        Ok(None)
    }

    fn number(&mut self) -> Option<String> {
        let digits = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.rest.split_at_checked(self.rest.len() - digits.len() + count)?;
        if count == 0 {
            return None;
        }
        let number = number.to_owned();
        self.rest = rest;
        Some(number)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(SPACES);
    }

    /// Skips spaces, empty lines and comments.
    fn skip_lines(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
            if !self.rest.starts_with('#') {
                return;
            }
            let end = self.rest.find(ENDS).unwrap_or(self.rest.len());
            self.rest = self.rest.get(end..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, redact};

    #[test]
    fn settings_are_parsed_as_in_libvirt() {
        let conf = parse(
            "# user = \"root\"\nuser = \"qemu\" # who\n\ngroup='kvm'\nmax_files = 32768\n\
             cgroup_device_acl = [\n  \"/dev/null\",\n  '/dev/full',\n]\nnamespaces = [ ]\n\
             security_driver = \"none\"\r\nuser = \"second\"\ndynamic_ownership = 0; x = 1\n# c\rlast = 1",
        )
        .unwrap();
        assert_eq!(conf.text("user"), Some("qemu"), "the first one counts");
        assert_eq!(conf.text("group"), Some("kvm"));
        assert_eq!(conf.list("cgroup_device_acl").unwrap(), ["/dev/null", "/dev/full"]);
        assert_eq!(conf.list("namespaces").unwrap(), [""; 0]);
        assert_eq!(conf.list("security_driver").unwrap(), ["none"]);
        assert!(conf.is_off("dynamic_ownership") && !conf.is_off("last") && !conf.is_off("user"));
        assert_eq!(conf.text("cgroup_device_acl"), None);
    }

    #[test]
    fn errors_have_the_line_that_libvirt_rejects() {
        for (text, line) in [
            ("user = \"a\"\ngroup", 2),
            ("user = \"a\ngroup = \"b\"", 1),
            ("\n\nx = [ \"a\" \"b\" ]", 3),
            ("x = [\n \"a\",\n # \"b\",\n]", 3),
            ("x = [\n \"a\"\n \"b\"\n]", 3),
            ("x = [\n \"a\",\n \"b\n]", 3),
            ("x = [\n \"a\",\n", 2),
            ("x = \"\"\"a\nb\n", 2),
            ("x = y", 1),
            ("= 1", 1),
            ("_x = 1", 1),
            ("x.y = 1", 1),
            ("x = [", 1),
            ("x = 1 2", 1),
            ("a = 1\nuser = 64055", 2),
            ("user = [ \"a\" ]", 1),
            ("namespaces = \"mount\"", 1),
        ] {
            let problem = parse(text).expect_err(text);
            assert_eq!(problem.0, line, "{text}: {problem:?}");
        }
    }

    #[test]
    fn errors_are_explained() {
        for (text, expected) in [
            ("x = [ \"a\" '/dev/egm4', 1 ]", "a comma is missing before '/dev/egm4'"),
            ("x = [\n \"a\", # all\n]", "# is not allowed in a list"),
            ("x = [ \"a\"\nuser = \"b\"", "expected a comma or ], found `user = \"b\"`"),
            ("x = [ \"a\", , ]", "a value is missing"),
            ("x = [ \"a\", b ]", "`b ]` is not a value (strings need quotes)"),
            ("x = [ \"a\",\n", "the list is not closed with ]"),
            ("x = [ \"a, ]", "the string is not closed with \""),
            ("x = \"\"\"a\"", "the string is not closed with \"\"\""),
            ("x =", "a value is missing"),
            ("x = qemu # no", "`qemu # no` is not a value (strings need quotes)"),
            ("user \"qemu\"", "= is missing after user"),
            ("= 1", "`= 1` does not begin with the name of a setting"),
            ("x = \"a\" ]", "unexpected `]` after the value"),
            ("user = 64055", "user must be a string: \"value\""),
            ("namespaces = 1", "namespaces must be a list: [ \"value\" ]"),
        ] {
            assert_eq!(parse(text).expect_err(text).1, expected, "{text}");
        }
    }

    #[test]
    fn only_settings_for_egm_are_kept() {
        let text = "# a 'b'\nuser = \"a#b\" # it's secret\nvnc_password = \"x\"\nnamespaces = [\n \
                    \"mount\"\n] # \"y\"\n# group = [\ngroup = 'kvm'\n";
        let kept = "\nuser = \"a#b\" \n\nnamespaces = [\n \"mount\"\n] \n\ngroup = 'kvm'\n";
        assert_eq!(redact(text), kept);
    }
}
