//! libvirt's `/etc/libvirt/qemu.conf`: the settings that are made in it (`src/util/virconf.c`).

use std::collections::BTreeMap;

use crate::sysroot::Sysroot;
use crate::warning::Warning;

/// Where libvirt looks for it.
pub(super) const PATH: &str = "/etc/libvirt/qemu.conf";

/// No such file is larger.
const LIMIT: usize = 1 << 20;

/// A value as libvirt writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    List(Vec<String>),
}

/// The settings; none where there is no file.
#[derive(Clone, Debug, Default)]
pub(super) struct QemuConf {
    settings: BTreeMap<String, Value>,
    /// Why it could not be read.
    pub(super) warning: Option<Warning>,
}

impl QemuConf {
    pub(super) fn read(root: &Sysroot) -> Self {
        match root.read(PATH, LIMIT) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.is_absent() => Self::default(),
            Err(error) => Self { warning: Some(Warning::unreadable(&error)), ..Self::default() },
        }
    }

    fn parse(text: &str) -> Self {
        let mut parser = Parser { rest: text };
        let mut conf = Self::default();
        loop {
            parser.skip_blanks(true);
            if parser.rest.is_empty() {
                return conf;
            }
            let at = parser.rest;
            let Some((key, value)) = parser.setting() else {
                // libvirt would not start with it; what comes before is what can be told.
                let line = text.get(..text.len() - at.len()).unwrap_or_default();
                let number = line.matches('\n').count() + 1;
                conf.warning = Some(Warning::Malformed {
                    path: PATH.into(),
                    found: format!("line {number}: {}", at.lines().next().unwrap_or_default()),
                    expected: "key = value",
                });
                return conf;
            };
            conf.settings.insert(key, value);
        }
    }

    /// A text or a number.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.settings.get(key)? {
            Value::Text(text) => Some(text),
            Value::List(_) => None,
        }
    }

    /// A list; a text alone is one of one.
    pub(super) fn list(&self, key: &str) -> Option<&[String]> {
        match self.settings.get(key)? {
            Value::Text(text) => Some(std::slice::from_ref(text)),
            Value::List(list) => Some(list),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// `key = value`, to the end of its line.
    fn setting(&mut self) -> Option<(String, Value)> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')?;
        let (key, rest) = self.rest.split_at_checked(end).filter(|(key, _)| !key.is_empty())?;
        let key = key.to_owned();
        self.rest = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        self.skip_blanks(false);
        let value = if let Some(rest) = self.rest.strip_prefix('[') {
            self.rest = rest;
            Value::List(self.list()?)
        } else {
            Value::Text(self.word()?)
        };
        self.skip_blanks(false);
        let is_end = self.rest.is_empty() || self.rest.starts_with(['\n', '\r', ';', '#']);
        is_end.then_some((key, value))
    }

    /// What is behind the bracket of a list.
    fn list(&mut self) -> Option<Vec<String>> {
        let mut list = Vec::new();
        loop {
            self.skip_blanks(true);
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return Some(list);
            }
            list.push(self.word()?);
            self.skip_blanks(true);
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None if self.rest.starts_with(']') => {}
                None => return None,
            }
        }
    }

    /// A text in quotes, or a number.
    fn word(&mut self) -> Option<String> {
        for quote in ["\"\"\"", "\"", "'"] {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                let (text, rest) = rest.split_once(quote)?;
                self.rest = rest;
                return Some(text.to_owned());
            }
        }
        let is_number = |c: char| c.is_ascii_digit() || c == '-' || c == '+';
        let end = self.rest.find(|c: char| !is_number(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at_checked(end).filter(|(it, _)| !it.is_empty())?;
        let number = number.to_owned();
        self.rest = rest;
        Some(number)
    }

    /// Blanks, and between settings and within lists also ends of lines and comments.
    fn skip_blanks(&mut self, lines: bool) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t']);
            if !lines {
                return;
            }
            let before = self.rest.len();
            if self.rest.starts_with('#') {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.rest = self.rest.get(end..).unwrap_or_default();
            }
            self.rest = self.rest.trim_start_matches(['\n', '\r', ';']);
            if self.rest.len() == before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::QemuConf;

    #[test]
    fn settings_are_read_as_libvirt_reads_them() {
        let conf = QemuConf::parse(
            "# user = \"root\"\nuser = \"qemu\" # who\n\ngroup='kvm'\nmax_files = 32768\n\
             cgroup_device_acl = [\n  \"/dev/null\", # a comment\n  '/dev/full',\n]\nnamespaces = [ ]\n\
             security_driver = \"none\"\nlast = 1",
        );
        assert!(conf.warning.is_none(), "{:?}", conf.warning);
        assert_eq!(conf.text("user"), Some("qemu"));
        assert_eq!(conf.text("group"), Some("kvm"));
        assert_eq!(conf.text("max_files"), Some("32768"));
        assert_eq!(conf.list("cgroup_device_acl").unwrap(), ["/dev/null", "/dev/full"]);
        assert_eq!(conf.list("namespaces").unwrap(), [""; 0]);
        assert_eq!(conf.list("security_driver").unwrap(), ["none"]);
        assert_eq!(conf.text("last"), Some("1"));
        assert_eq!(conf.text("cgroup_device_acl"), None);
    }

    #[test]
    fn what_is_malformed_is_told_with_its_line() {
        for (text, line) in [
            ("user = \"a\"\ngroup", "line 2: group"),
            ("user = \"a\ngroup = \"b\"", "line 1"),
            ("\n\nx = [ \"a\" \"b\" ]", "line 3"),
            ("x = y", "line 1"),
            ("= 1", "line 1: = 1"),
            ("x = [", "line 1"),
            ("x = 1 2", "line 1"),
        ] {
            let conf = QemuConf::parse(text);
            let warning = conf.warning.expect(text).to_string();
            assert!(warning.contains("qemu.conf: found"), "{text}: {warning}");
            assert!(warning.contains(line), "{text}: {warning}");
        }
    }
}
