//! The output of `capture --list`: what is in a capture, a line each.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::claims::unseen::{Recorded, Unseen};
use crate::sysroot::manifest::{Manifest, NAME, Op, Problem};
use crate::sysroot::{Item, Sysroot, describe};
use crate::values::text::{excerpt, printable};

/// How much is shown of what may be very long.
const SHOWN: usize = 300;

/// Writes what a capture is, then what is in it, by path.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut dyn Write, root: &Sysroot) -> io::Result<()> {
    // Of directories with something in them that tells enough.
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
            lines
                .push((printable(directory), format!("names of which not all were read: {names}")));
        }
        for (path, problems) in &manifest.errors {
            for (op, problem) in problems {
                lines.push((printable(path), failed(*op, problem)));
            }
        }
        for (path, flaw) in &recorded.bad_definitions {
            let what = format!("not taken: no definition from {}:{} on", flaw.line, flaw.column);
            lines.push((printable(path), what));
        }
    } else {
        writeln!(out, "taken by hand or by another program; claims are read as they stand")?;
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
    let host = if manifest.live { "a running host" } else { "a host that was recorded before" };
    writeln!(out, "taken by {} from {host}", excerpt(&manifest.program, SHOWN))?;
    match claims {
        None => writeln!(out, "claims: not taken"),
        Some(_) if !has_proc => writeln!(out, "claims: taken, no processes looked at"),
        Some(Unseen { unread: 0, hidden: None, unsettled: false }) => {
            writeln!(out, "claims: taken, all processes seen")
        }
        Some(Unseen { unread: 0, .. }) => writeln!(out, "claims: taken, not all processes seen"),
        Some(Unseen { unread, .. }) => {
            writeln!(out, "claims: taken, processes that could not be looked at: {unread}")
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
        Item::Other => "neither file, directory, link nor character device".into(),
    }
}

fn failed(op: Op, problem: &Problem) -> String {
    let what = match op {
        Op::List => "not listed",
        Op::Link => "not followed",
        Op::Stat => "not looked at",
        Op::Read => "not read",
    };
    format!("{what}: {}", excerpt(&describe(&problem.into()), SHOWN))
}
