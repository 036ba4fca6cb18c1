//! Patterns for names and paths, with `*`, `?`, `[a-z]` and `\`.

use std::iter::once;
use std::mem::replace;

/// Whether a name matches a pattern as in fnmatch(3) without flags.
pub(crate) fn glob(pattern: &str, name: &str) -> bool {
    matches(pattern, name, false)
}

/// Whether a path matches a pattern without braces as in apparmor.d(5): `*` and `?` match no slash,
/// `**` does, and only `^` negates a set.
pub(crate) fn path_glob(pattern: &str, path: &str) -> bool {
    matches(pattern, path, true)
}

/// One element of a pattern: a set of characters, once or any number of times.
struct Element {
    repeats: bool,
    negated: bool,
    ranges: Vec<(char, char)>,
}

/// Takes at most as many steps as the product of the lengths.
fn matches(pattern: &str, text: &str, is_path: bool) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut rest = pattern.as_slice();
    // For each place in the text, whether the pattern so far matches everything before it.
    let mut reached: Vec<bool> = once(true).chain(text.chars().map(|_| false)).collect();
    while let Some((element, after)) = element(rest, is_path) {
        rest = after;
        let mut before = false;
        for (here, c) in reached.iter_mut().zip(once(None).chain(text.chars().map(Some))) {
            let follows = before && c.is_some_and(|c| element.accepts(c));
            if element.repeats {
                *here |= follows;
                before = *here;
            } else {
                before = replace(here, follows);
            }
        }
        if !reached.contains(&true) {
            return false;
        }
    }
    rest.is_empty() && reached.last() == Some(&true)
}

impl Element {
    fn accepts(&self, c: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.negated
    }
}

/// The first element of a pattern, and the rest; `None` at the end, and for a set without a closing
/// bracket.
fn element(pattern: &[char], is_path: bool) -> Option<(Element, &[char])> {
    let any = |repeats, is_path| {
        let ranges = if is_path { vec![('/', '/')] } else { Vec::new() };
        Element { repeats, negated: true, ranges }
    };
    match pattern {
        ['*', '*', after @ ..] => Some((any(true, false), after)),
        ['*', after @ ..] => Some((any(true, is_path), after)),
        ['?', after @ ..] => Some((any(false, is_path), after)),
        ['[', '^', after @ ..] => set(true, after),
        ['[', '!', after @ ..] if !is_path => set(true, after),
        ['[', after @ ..] => set(false, after),
        ['\\', c, after @ ..] | [c, after @ ..] => {
            Some((Element { repeats: false, negated: false, ranges: vec![(*c, *c)] }, after))
        }
        [] => None,
    }
}

/// A set of characters, up to its bracket. A bracket in first position belongs to the set.
fn set(negated: bool, mut rest: &[char]) -> Option<(Element, &[char])> {
    const CLASSES: [(&str, &[(char, char)]); 6] = [
        ("[:digit:]", &[('0', '9')]),
        ("[:alnum:]", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
        ("[:alpha:]", &[('A', 'Z'), ('a', 'z')]),
        ("[:lower:]", &[('a', 'z')]),
        ("[:upper:]", &[('A', 'Z')]),
        ("[:xdigit:]", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
    ];
    let mut ranges = Vec::new();
    loop {
        let is_first =
            |(name, _): &&(&str, _)| rest.iter().copied().take(name.len()).eq(name.chars());
        if let Some((name, class)) = CLASSES.iter().find(is_first) {
            ranges.extend_from_slice(class);
            rest = rest.get(name.len()..)?;
            continue;
        }
        rest = match rest {
            [']', after @ ..] if !ranges.is_empty() => {
                return Some((Element { repeats: false, negated, ranges }, after));
            }
            [low, '-', high, after @ ..] if *high != ']' => {
                ranges.push((*low, *high));
                after
            }
            [c, after @ ..] => {
                ranges.push((*c, *c));
                after
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{glob, path_glob};

    #[test]
    fn names_match_as_in_fnmatch() {
        for (pattern, name, expected) in [
            ("egm[0-9]*", "egm4", true),
            ("egm[0-9]*", "egm10", true),
            ("egm[0-9]*", "egm", false),
            ("egm*", "egm4", true),
            ("*4", "egm4", true),
            ("*m*4", "egm4", true),
            ("*", "", true),
            ("*", "a/b", true),
            ("", "", true),
            ("", "x", false),
            ("egm?", "egm4", true),
            ("egm?", "egm44", false),
            ("egm[!0-3]", "egm4", true),
            ("egm[!0-9]", "egm4", false),
            ("egm[]4]", "egm]", true),
            ("egm[4", "egm4", false),
            ("egm[[:digit:]]*", "egm4", true),
            ("egm[![:digit:]]*", "egm4", false),
            ("egm[4-]", "egm-", true),
            ("egm\\*", "egm*", true),
            ("egm\\*", "egm4", false),
            ("tty*", "egm4", false),
            ("egm4", "egm4", true),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!glob(&"*a".repeat(1000), &"a".repeat(999)), "polynomial time");
    }

    #[test]
    fn paths_match_as_in_apparmor() {
        for (pattern, path, expected) in [
            ("/dev/*", "/dev/egm4", true),
            ("/dev/*", "/dev/a/b", false),
            ("/dev/**", "/dev/a/b", true),
            ("/**b", "/dev/a/b", true),
            ("/dev/**a*", "/dev/xa/ab", true),
            ("/dev?egm4", "/dev/egm4", false),
            ("/dev/[^e]gm4", "/dev/egm4", false),
            ("/dev/egm[!4]", "/dev/egm4", true),
        ] {
            assert_eq!(path_glob(pattern, path), expected, "{pattern} {path}");
        }
    }
}
