//! The manual pages: one for the program, one for each command, one for the JSON. Parts between
//! comments are generated from the program; `UPDATE_GOLDEN=1` updates them.

mod examples;
mod keys;
mod options;
mod page;
mod roff;
mod tables;
mod tidy;

use std::collections::BTreeSet;

use options::{below, program};
use page::{Page, Text, by_hand, entries, settle};
use roff::plain;

const JSON: &str = "egm-probe-json.7";

/// The first line of a page has its name, section and the program's version.
#[test]
fn pages_have_a_title_line() {
    for page in Page::all() {
        let (title, section) = page.name.rsplit_once('.').unwrap();
        let top = page.source.lines().next().unwrap();
        assert!(top.starts_with(&format!(".TH {} {section} 2", title.to_uppercase())), "{top}");
        let version = format!("\"egm-probe {}\"", env!("CARGO_PKG_VERSION"));
        assert!(top.contains(&version), "{}: {top}", page.name);
    }
}

/// Generates a block of a page.
fn made(page: &Page, what: &str, now: &str) -> String {
    let program = program();
    let list = |made: Vec<page::Entry>| entries(now, Text::Both, &made);
    let command = page.command().map(|name| program.find_subcommand(name).unwrap());
    match (what, command) {
        ("synopsis", Some(command)) => options::synopsis(command),
        ("options", Some(command)) => list(options::options(command)),
        ("global options", None) => list(options::global(&program)),
        ("names of the global options", Some(_)) => tables::global_names(&program),
        ("commands", None) => list(tables::commands(&program)),
        ("columns", Some(_)) => list(tables::columns()),
        ("rules", Some(_)) => list(tables::rules()),
        ("checks", Some(_)) => list(tables::checks()),
        ("error messages", Some(_)) => tables::errors(),
        ("metrics", Some(_)) => list(tables::metrics()),
        (keys, None) if keys.starts_with("keys of ") => {
            let keys = keys::keys(&keys["keys of ".len()..]);
            entries(now, Text::ByHand, &keys::entries(&keys))
        }
        _ => panic!("{}: there is no table of {what}", page.name),
    }
}

#[test]
fn generated_blocks_are_up_to_date() {
    let mut shown = 0;
    for page in Page::all() {
        let made = page.made_anew(|what, now| made(&page, what, now));
        let anew = Page { name: page.name.clone(), source: made };
        let (expected, examples) = examples::run_anew(&anew);
        settle(&page, &expected);
        shown += examples;
    }
    assert!(shown > 15, "only {shown} examples");
}

#[test]
fn every_command_has_a_page() {
    let program = program();
    let mut missing: BTreeSet<String> = Page::all().into_iter().map(|page| page.name).collect();
    let mut has = |name: &str, blocks: &[&str]| {
        assert!(missing.remove(name), "there is no page {name}");
        let page = Page::all().into_iter().find(|page| page.name == name).unwrap();
        for block in blocks {
            assert!(page.blocks().contains(block), "{name} has no {block} made from the program");
        }
        page
    };
    for command in below(&program) {
        let name = command.get_name();
        let blocks: &[&str] = match name {
            "list" => &["columns"],
            "validate" => &["rules"],
            "doctor" => &["checks", "error messages"],
            "metrics" => &["metrics"],
            _ => &[],
        };
        let common = ["synopsis", "options", "names of the global options"];
        let page = has(&format!("egm-probe-{name}.1"), &[&common, blocks].concat());
        let mut sections = page.source.lines().filter_map(|line| line.strip_prefix(".SH "));
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXAMPLES",
            "\"EXIT STATUS\"",
            "\"SEE ALSO\"",
        ] {
            assert!(
                sections.any(|is| is == section),
                "{}: no {section} where it belongs",
                page.name
            );
        }
    }
    has("egm-probe.1", &["commands", "global options"]);
    let json = has(JSON, &[]);
    has("egm.7", &[]);
    for schema in keys::schemas() {
        let block = format!("keys of {schema}");
        assert!(json.blocks().contains(&&*block), "{JSON} has no {block}");
    }
    assert!(missing.is_empty(), "pages of nothing: {missing:?}");
}

#[test]
fn every_key_of_the_json_is_described() {
    let page = Page::all().into_iter().find(|page| page.name == JSON).unwrap();
    let mut described = 0;
    for name in keys::schemas() {
        let document = keys::document(&name);
        assert!(plain(&page.source).contains(&format!("\n.SH {document}\n")), "{document}");
        let begin = format!(".\\\" Made from the keys of {name}: make golden.\n");
        let end = format!(".\\\" End of the keys of {name}.\n");
        let block = page.source.split_once(&begin).unwrap().1.split_once(&end).unwrap().0;
        let texts = by_hand(block, Text::ByHand);
        for key in keys::keys(&name) {
            let text = texts.get(&(String::new(), key.path.clone()));
            let text = plain(
                text.unwrap_or_else(|| panic!("{document}: nothing says what {} is", key.path)),
            );
            let of = format!("{document}: {}", key.path);
            if let Some(other) = key.from {
                assert!(text.contains(&other), "{of} is in {other}, and nothing says so");
                continue;
            }
            assert!(!key.can_be_null() || text.contains("null"), "{of}: when is it null?");
            for word in key.words {
                assert!(has_word(&text, &word), "{of}: nothing says what {word} is");
            }
            described += 1;
        }
    }
    assert!(described > 100, "only {described} keys");
}

/// Whether a text has a whole word.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |letter: Option<char>| {
        letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '-')
    };
    text.match_indices(word).any(|(at, _)| {
        !is_part(text[..at].chars().last()) && !is_part(text[at + word.len()..].chars().next())
    })
}

#[test]
fn examples_are_valid_command_lines() {
    let mut called = 0;
    for page in Page::all() {
        for example in examples::examples(&page) {
            called += examples::check_usage(&page.name, example);
        }
    }
    assert!(called > 40, "only {called} command lines");
}

#[test]
fn references_to_pages_have_the_right_section() {
    let pages = Page::all();
    let mut named = 0;
    for page in &pages {
        for line in page.source.lines().filter_map(|line| line.strip_prefix(".BR egm")) {
            let line = plain(&format!("egm{line}"));
            let Some((name, section)) = line.split_once(" (") else { continue };
            let Some(section) = section.chars().next().filter(char::is_ascii_digit) else {
                continue;
            };
            let name = format!("{name}.{section}");
            assert!(pages.iter().any(|page| page.name == name), "{}: no {name}", page.name);
            named += 1;
        }
    }
    assert!(named > 40, "only {named}");
}
