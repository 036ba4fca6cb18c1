//! The part of libvirt's schema that a document can need.
//!
//! A domain uses a tenth of the elements of libvirt's schema, and reading the others takes nine
//! tenths of the time. The content of an element that the document does not have is irrelevant, so
//! omitting it does not change the findings.

use std::collections::BTreeSet;

use memchr::{memchr, memchr3, memmem};

/// The local names of all elements that a document may have, and perhaps some more; `None` if its
/// text does not show them.
pub(super) fn element_names(document: &str) -> Option<BTreeSet<&str>> {
    // An entity may contain elements.
    if document.contains("<!DOCTYPE") {
        return None;
    }
    let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '<');
    let name = |(at, _): (usize, &str)| {
        let (name, _) = document.get(at + 1..)?.split_once(is_end)?;
        name.rsplit(':').next()
    };
    Some(document.match_indices('<').filter_map(name).collect())
}

/// The kind of the previous tag.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Start,
    End,
}

/// A schema file without comments, without insignificant spaces, and without the content of elements
/// that are not in `names` (if given). `None` if it uses syntax that libvirt's files do not have.
pub(super) fn pruned(text: &str, names: Option<&BTreeSet<&str>>) -> Option<String> {
    let bytes = text.as_bytes();
    let mut result = String::with_capacity(text.len());
    // The depth within an omitted element.
    let mut depth = 0_usize;
    let mut last = Last::End;
    let mut at = 0;
    while let Some(start) = memchr(b'<', bytes.get(at..)?).map(|found| at + found) {
        let (between, rest) = (text.get(at..start)?, text.get(start..)?);
        let is_start = rest.as_bytes().get(1)?.is_ascii_alphabetic();
        let is_end = rest.starts_with("</");
        // Values and parameters have text, but no elements.
        let is_blank = is_start || (is_end && last == Last::End);
        if depth == 0 && !(is_blank && between.trim_ascii().is_empty()) {
            result.push_str(between);
        }
        let length = if is_start || is_end {
            tag_length(rest)?
        } else if rest.starts_with("<!--") {
            memmem::find(rest.as_bytes(), b"-->")? + 3
        } else if rest.starts_with("<?") {
            memmem::find(rest.as_bytes(), b"?>")? + 2
        } else {
            return None;
        };
        let tag = rest.get(..length)?;
        at = start + length;
        let is_empty = tag.ends_with("/>");
        match depth {
            _ if !is_start && !is_end => {}
            0 => {
                result.push_str(tag);
                last = if is_start && !is_empty { Last::Start } else { Last::End };
                if last == Last::Start && !names.is_none_or(|names| is_needed(tag, names)) {
                    result.push_str("<empty/>");
                    depth = 1;
                }
            }
            _ if is_start && !is_empty => depth += 1,
            _ if is_end => {
                depth -= 1;
                if depth == 0 {
                    result.push_str(tag);
                    last = Last::End;
                }
            }
            _ => {}
        }
    }
    result.push_str(text.get(at..)?);
    (depth == 0).then_some(result)
}

/// The length of the tag at the start of a text; its values may contain any characters.
fn tag_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += memchr3(b'>', b'"', b'\'', bytes.get(at..)?)?;
        match *bytes.get(at)? {
            b'>' => return Some(at + 1),
            quote => at += memchr(quote, bytes.get(at + 1..)?)? + 2,
        }
    }
}

/// Whether the content after this start tag is needed: the tag is not an element pattern, or it is
/// one for these names.
fn is_needed(tag: &str, names: &BTreeSet<&str>) -> bool {
    let Some(attributes) = tag.strip_prefix("<element") else { return true };
    if !attributes.starts_with(|c: char| c.is_ascii_whitespace()) {
        return true;
    }
    let value = || {
        let (before, after) = attributes.split_once("name")?;
        before.chars().next_back().filter(char::is_ascii_whitespace)?;
        let after = after.trim_ascii_start().strip_prefix('=')?.trim_ascii_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        after.get(1..)?.split(quote).next()
    };
    match value() {
        Some(name) if !name.contains('&') => {
            names.contains(name.trim_ascii().rsplit(':').next().unwrap_or_default())
        }
        // A name class, or a name that is not written literally.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{element_names, pruned};

    fn of(text: &str, names: &[&str]) -> Option<String> {
        pruned(text, Some(&names.iter().copied().collect()))
    }

    #[test]
    fn without_names_only_spaces_and_comments_are_removed() {
        for (text, expected) in [
            ("<a>\n  <b/>\n  <c> x </c>\n</a>\n", "<a><b/><c> x </c></a>\n"),
            ("<value>  </value> <value/>", "<value>  </value><value/>"),
            ("<value> <!-- c --> </value>", "<value>  </value>"),
            ("<a> <!-- <b> --> <c/> </a>", "<a> <c/></a>"),
            ("<?xml version='1.0'?>\n<a b='x>y'> é <b/></a >  </c>", "<a b='x>y'> é <b/></a ></c>"),
            ("", ""),
        ] {
            assert_eq!(pruned(text, None).as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_element_missing_from_the_document_loses_its_content() {
        let schema =
            "<element name='a'><element name=\"b\"><x/></element> <ref name='c'/></element>";
        assert_eq!(of(schema, &["a", "b"]).unwrap(), schema.replace("> <", "><"));
        assert_eq!(
            of(schema, &["a"]).unwrap(),
            "<element name='a'><element name=\"b\"><empty/></element><ref name='c'/></element>"
        );
        assert_eq!(of(schema, &["b"]).unwrap(), "<element name='a'><empty/></element>");
        for kept in [
            "<element><name>b</name><x/></element>",
            "<element p:name='b' name='a'><x/></element>",
            "<element name='p:a'><x/></element>",
            "<element ns='b' name = ' a '><x/></element>",
            "<element name='&#98;'><x/></element>",
            "<elements name='b'><x/></elements>",
            "<attribute name='b'><x/></attribute>",
            "<element name='b'/>",
        ] {
            assert_eq!(of(kept, &["a"]).as_deref(), Some(kept));
        }
    }

    #[test]
    fn unusual_syntax_is_not_pruned() {
        for text in [
            "<v><![CDATA[> <a]]></v>",
            "<!DOCTYPE a [<!ENTITY b '<c>'>]><a/>",
            "<",
            "<a",
            "<a b='",
            "<!--",
            "<?x",
        ] {
            assert_eq!(pruned(text, None), None, "{text}");
        }
        assert_eq!(of("<element name='b'><x>", &["a"]), None);
    }

    #[test]
    fn the_names_of_a_document_are_local_ones() {
        let document = "<?xml version='1.0'?><a x='<'><p:b/><c\n d=''/><!-- <e> --></a>";
        let names = element_names(document).unwrap();
        for name in ["a", "b", "c"] {
            assert!(names.contains(name), "{name}");
        }
        assert_eq!(element_names("<!DOCTYPE a [<!ENTITY b '&#60;c/>'>]><a>&b;</a>"), None);
    }
}
