//! Shell quoting.

/// A word quoted for a shell, if it needs quoting.
pub(crate) fn quote(word: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_word_means_itself_to_a_shell() {
        for (word, quoted) in [
            ("acpi-egm-memory,id=egm0,pci-dev=ua-hostdev0,node=0", None),
            ("", Some("''")),
            ("{\"a\":1}", Some("'{\"a\":1}'")),
            ("it's $HOME", Some("'it'\\''s $HOME'")),
            ("a\nb", Some("'a\nb'")),
        ] {
            assert_eq!(quote(word), quoted.unwrap_or(word));
        }
    }
}
