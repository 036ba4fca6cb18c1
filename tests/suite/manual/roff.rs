//! The subset of roff that is written and read here.

/// The maximum length of a line in a page's source, for mandoc.
const WIDTH: usize = 80;

/// Escapes a text so that roff prints it literally.
pub(super) fn literal(text: &str) -> String {
    let mut literal = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => literal.push_str("\\e"),
            '-' => literal.push_str("\\-"),
            '\'' => literal.push_str("\\(aq"),
            '`' => literal.push_str("\\(ga"),
            '^' => literal.push_str("\\(ha"),
            '~' => literal.push_str("\\(ti"),
            other => literal.push(other),
        }
    }
    if literal.starts_with('.') { format!("\\&{literal}") } else { literal }
}

/// The visible text of a line, without fonts.
pub(super) fn plain(line: &str) -> String {
    let mut line = line.to_owned();
    for (from, to) in [
        ("\\&", ""),
        ("\\fB", ""),
        ("\\fI", ""),
        ("\\fR", ""),
        ("\\fP", ""),
        ("\\-", "-"),
        ("\\(aq", "'"),
        ("\\(dq", "\""),
        ("\\(ga", "`"),
        ("\\(ha", "^"),
        ("\\(ti", "~"),
        ("\\e", "\\"),
    ] {
        line = line.replace(from, to);
    }
    line
}

/// A sentence of the program as prose: options and text in backticks bold, `placeholders` in italics,
/// and without typographic apostrophes in code.
pub(super) fn prose(text: &str, placeholders: &[&str]) -> String {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let core = word.trim_matches(|letter: char| !letter.is_alphanumeric() && letter != '-');
        let (before, after) = word.split_once(core).unwrap_or((word, ""));
        let is_option = core.starts_with("--") && core.len() > 2;
        let font = if is_option || (before.ends_with('`') && after.starts_with('`')) {
            'B'
        } else if placeholders.contains(&core) {
            'I'
        } else {
            words.push(apostrophes(word));
            continue;
        };
        let (before, after) = (before.trim_end_matches('`'), after.trim_start_matches('`'));
        words.push(format!("{}\\f{font}{}\\fP{}", code(before), code(core), code(after)));
    }
    wrap(&words.join(" "))
}

/// Apostrophes between letters are typographic; others are quotes in code.
fn apostrophes(word: &str) -> String {
    let is_letter = |letter: Option<char>| letter.is_some_and(char::is_alphabetic);
    let is_apostrophe = word.split_once('\'').is_some_and(|(before, after)| {
        let last = before.chars().last();
        is_letter(last) && (is_letter(after.chars().next()) || !word.starts_with('\''))
    });
    let is_code = word.contains(['=', '<', '>']);
    if is_apostrophe && !is_code { word.replace('-', "\\-") } else { code(word) }
}

fn code(word: &str) -> String {
    literal(word).trim_start_matches("\\&").to_owned()
}

/// Wraps marked-up words into lines of a page's source. Each sentence ends its line, as roff requires.
pub(super) fn wrap(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut ends = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if !ends && line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ if word.starts_with(['.', '\'']) => lines.push(format!("\\&{word}")),
            _ => lines.push(word.to_owned()),
        }
        ends = word.ends_with('.') && !word.ends_with("..");
    }
    lines.push(String::new());
    lines.join("\n")
}
