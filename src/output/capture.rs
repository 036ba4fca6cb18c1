//! The output of `capture --list`: the contents of a capture, one line each.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::claims::unseen::{Recorded, Unseen};
use crate::sysroot::manifest::{Manifest, NAME, Op, Problem};
use crate::sysroot::{Item, Sysroot, describe};
use crate::values::text::{excerpt, printable};

/// The maximum length of long texts.
const SHOWN: usize = 300;

/// Writes the origin of a capture, then its contents by path.
///
/// # Errors
/// The writer fails.
pub fn write(out: &mut dyn Write, root: &Sysroot) -> io::Result<()> {
    // A directory that is not empty is visible by its contents.
    let is_shown = |(path, item): &(PathBuf, Item<'_>)| {
        !matches!(item, Item::Directory(names) if *names > 0) && path != &Path::new("/").join(NAME)
    };
    let mut lines: Vec<(String, String)> = root
        .items()
        .into_iter()
        .filter(is_shown)
        .map(|(path, item)| (printable(&path.to_string_lossy()), described(item)))
        .collect();
    if let Some(manifest) = root.recorded() {
        let recorded = Recorded::of(root);
        let has_proc = root.stat("/proc").is_ok();
        write_heading(out, manifest, recorded.claims.as_ref(), has_proc)?;
        for (directory, names) in &manifest.names {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let names = excerpt(&names.join(" "), SHOWN);
            lines.push((printable(directory), format!("names, not all of them read: {names}")));
        }
        for (path, problems) in &manifest.errors {
            for (op, problem) in problems {
                lines.push((printable(path), failed(*op, problem)));
            }
        }
        for (path, flaw) in &recorded.bad_definitions {
            let what = format!("omitted: invalid definition at {}:{}", flaw.line, flaw.column);
            lines.push((printable(path), what));
        }
    } else {
        writeln!(out, "created manually or by another program; claims are read as they are")?;
    }
    lines.sort();
    for (path, what) in lines {
        writeln!(out, "{path}  {what}")?;
    }
    Ok(())
}

fn write_heading(
    out: &mut dyn Write,
    manifest: &Manifest,
    claims: Option<&Unseen>,
    has_proc: bool,
) -> io::Result<()> {
    let host = if manifest.live { "a running host" } else { "a recorded host" };
    writeln!(out, "captured by {} from {host}", excerpt(&manifest.program, SHOWN))?;
    match claims {
        None => writeln!(out, "claims: not recorded"),
        Some(_) if !has_proc => writeln!(out, "claims: recorded, without processes"),
        Some(unseen) if *unseen == Unseen::default() => {
            writeln!(out, "claims: recorded, all processes visible")
        }
        Some(Unseen { unread, .. }) if unread.is_empty() => {
            writeln!(out, "claims: recorded, not all processes visible")
        }
        Some(Unseen { unread, .. }) => {
            writeln!(out, "claims: recorded, unreadable processes: {}", unread.len())
        }
    }
}

fn described(item: Item<'_>) -> String {
    match item {
        Item::Directory(_) => "directory".into(),
        Item::File(1) => "file, 1 byte".into(),
        Item::File(size) => format!("file, {size} bytes"),
        Item::Link(target) => format!("-> {}", excerpt(&target.to_string_lossy(), SHOWN)),
        Item::CharDevice(number, mode, (uid, gid)) => {
            format!("character device {number}, mode {mode:04o}, owner {uid}:{gid}")
        }
        Item::Other => "another type of file".into(),
    }
}

fn failed(op: Op, problem: &Problem) -> String {
    let what = match op {
        Op::List => "cannot list",
        Op::Link => "cannot follow",
        Op::Stat => "cannot stat",
        Op::Read => "cannot read",
    };
    format!("{what}: {}", excerpt(&describe(&problem.into()), SHOWN))
}
