//! A manual page, with generated blocks between two comments.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = ".\\\" Made from the ";
const BEGUN: &str = ": make golden.\n";

/// The text after it in an entry is manual.
const BY_HAND: &str = ".\\\" By hand:\n";

pub(super) struct Page {
    /// Such as `egm-probe-list.1`.
    pub name: String,
    pub source: String,
}

/// One `.TP` of a list.
pub(super) struct Entry {
    pub head: String,
    /// The generated lines.
    pub text: String,
}

/// The origin of an entry's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// Generated, followed by manual text.
    Both,
    /// Only manual.
    ByHand,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

impl Page {
    /// All pages, by name.
    pub(super) fn all() -> Vec<Self> {
        let mut pages: Vec<_> = fs::read_dir(folder())
            .unwrap()
            .map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let source = fs::read_to_string(folder().join(&name)).unwrap();
                Self { name, source }
            })
            .collect();
        pages.sort_by(|one, other| one.name.cmp(&other.name));
        pages
    }

    pub(super) fn path(&self) -> PathBuf {
        folder().join(&self.name)
    }

    /// The command of a page: `list` for `egm-probe-list.1`.
    pub(super) fn command(&self) -> Option<&str> {
        self.name.strip_prefix("egm-probe-")?.strip_suffix(".1")
    }

    /// The generated blocks of the page.
    pub(super) fn blocks(&self) -> Vec<&str> {
        let blocks = self.source.split(BEGIN).skip(1);
        blocks.map(|block| block.split_once(BEGUN).unwrap().0).collect()
    }

    /// The page with each block generated again, from its name and its current text.
    pub(super) fn made_anew(&self, make: impl Fn(&str, &str) -> String) -> String {
        let mut page = String::new();
        let mut rest = &*self.source;
        while let Some((before, after)) = rest.split_once(BEGIN) {
            let (what, after) = after.split_once(BEGUN).unwrap();
            let end = format!(".\\\" End of the {what}.\n");
            let (now, after) = after
                .split_once(&end)
                .unwrap_or_else(|| panic!("{}: the {what} do not end", self.name));
            page.extend([before, BEGIN, what, BEGUN, &make(what, now), &end]);
            rest = after;
        }
        page + rest
    }
}

/// Checks that a page is up to date, or updates it.
pub(super) fn settle(page: &Page, expected: &str) {
    if page.source == expected {
        return;
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(page.path(), expected).unwrap();
        return;
    }
    let mut lines = page.source.lines().zip(expected.lines());
    let (is, should) = lines.find(|(is, should)| is != should).unwrap_or(("(end)", "(end)"));
    panic!("{}: run `make golden`\n  is:     {is}\n  should: {should}", page.name);
}

/// Entries, each with its manual text from the current block.
pub(super) fn entries(now: &str, whose: Text, entries: &[Entry]) -> String {
    let mut texts = by_hand(now, whose);
    let mut section = String::new();
    let mut lines = String::new();
    for Entry { head, text } in entries {
        if head.starts_with(".SS ") {
            section.clone_from(head);
            lines.extend([head, "\n"]);
            continue;
        }
        lines.extend([".TP\n", head, "\n", text]);
        if let Some(more) = texts.remove(&(section.clone(), key(head))) {
            lines.extend([if whose == Text::Both { BY_HAND } else { "" }, &more]);
        }
    }
    let lost: Vec<_> = texts.keys().map(|(section, key)| format!("{section} {key}")).collect();
    assert!(lost.is_empty(), "there is no such thing, and text about it: {lost:?}");
    lines
}

/// The manual texts, by section and key of their entries.
pub(super) fn by_hand(now: &str, whose: Text) -> HashMap<(String, String), String> {
    let mut texts: HashMap<_, String> = HashMap::new();
    let mut section = String::new();
    let mut entry = None;
    let mut is_by_hand = false;
    // The depth of lists within an entry.
    let mut depth = 0;
    let mut lines = now.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if depth == 0 && line.starts_with(".SS ") {
            line.trim_end().clone_into(&mut section);
            entry = None;
        } else if depth == 0 && line == ".TP\n" {
            entry = lines.next().map(|head| (section.clone(), key(head)));
            is_by_hand = whose == Text::ByHand;
        } else if line == BY_HAND {
            is_by_hand = true;
        } else if is_by_hand && let Some(entry) = &entry {
            texts.entry(entry.clone()).or_default().push_str(line);
        }
        match line.get(..3) {
            Some(".RS") => depth += 1,
            Some(".RE") => depth -= 1,
            _ => {}
        }
    }
    texts
}

/// The key of an entry: its long option, or its first word.
pub(super) fn key(head: &str) -> String {
    let mut words = head.split_whitespace();
    let option = words.clone().find(|word| word.starts_with("\\-\\-"));
    option.or(words.nth(1)).unwrap_or_default().to_owned()
}
