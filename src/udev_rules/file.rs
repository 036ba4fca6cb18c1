//! The file with the rules of this program: written and taken away whole, with what was there
//! before kept.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::effective::FILE_NAME;
use crate::own_directory::{DirectoryProblem, Locked, OwnDirectory, read_regular};
use crate::sysroot::names;
use crate::text::excerpt;

const DIRECTORY: [&str; 3] = ["etc", "udev", "rules.d"];
const LIMIT: usize = 1 << 20;

/// How long somebody else may be at work there.
const WAIT: Duration = Duration::from_secs(5);

/// udev reads no file whose name ends like this.
const BACKUP: &str = "before-egm-probe";

/// The beginning of a file's name while it is being written.
const UNFINISHED: &str = ".60-egm.rules.egm-probe-";

const HEADER: &str = "# Written by `egm-probe udev install`; `egm-probe udev uninstall` puts back \
                      what was here before.\n";
const BEFORE: &str = "# before: ";
const CHECKSUM: &str = "# checksum: ";
const NOTHING: &str = "nothing";

/// Why the rules were not written or taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileProblem {
    #[error(transparent)]
    Directory(#[from] DirectoryProblem),
    #[error(
        "{}: a link to {}, not a file{}; remove it first",
        shown(path), shown(target),
        if target == Path::new("/dev/null") { ": somebody has switched these rules off" } else { "" }
    )]
    Link { path: PathBuf, target: PathBuf },
    #[error("{}: not written by `egm-probe udev install`, so it stays", shown(path))]
    NotOurs { path: PathBuf },
    #[error(
        "{}: changed by hand after `egm-probe udev install`; --force removes it all the same",
        shown(path)
    )]
    Edited { path: PathBuf },
}

impl FileProblem {
    /// Whether the answer is no, and nothing failed.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Directory(problem) if !problem.is_refusal())
    }
}

/// The rules file of one root.
#[derive(Debug)]
pub(crate) struct RulesFile {
    directory: OwnDirectory,
    path: PathBuf,
}

/// What is in its place now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Current {
    Absent,
    /// As it was written.
    Ours(Written),
    /// Written by this program, and then changed.
    Edited(Written),
    /// Somebody else's.
    Foreign(Vec<u8>),
}

/// A file that this program has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    bytes: Vec<u8>,
    rules: Vec<u8>,
    /// The name under which the file is kept that was there before.
    before: Option<String>,
}

/// What was done, with what is needed to undo it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) changed: bool,
    /// The name under which the file was to be kept that is not there any more.
    pub(crate) missing: Option<PathBuf>,
    /// Whether this run has kept it, and none before.
    kept_now: bool,
    /// Where the file is kept that was there before; or the one that was put back.
    pub(crate) backup: Option<PathBuf>,
    before: Current,
}

impl RulesFile {
    /// The place of the file below a root, which must be a directory; so must all on the way be,
    /// as far as they are there.
    pub(crate) fn below(root: &Path) -> Result<Self, FileProblem> {
        let directory = OwnDirectory::below(root, &DIRECTORY, UNFINISHED)?;
        Ok(Self { path: directory.path().join(FILE_NAME), directory })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there now.
    pub(crate) fn current(&self) -> Result<Current, FileProblem> {
        match fs::symlink_metadata(&self.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Current::Absent),
            Err(cause) => return Err(self.failed(cause)),
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&self.path).map_err(|cause| self.failed(cause))?;
                return Err(FileProblem::Link { path: self.path.clone(), target });
            }
            Ok(_) => {}
        }
        let (bytes, _) = read_regular(&self.path, LIMIT).map_err(|cause| self.failed(cause))?;
        Ok(Current::of(bytes))
    }

    /// What `install` would do now: the file as it would be, and where that is kept which is there.
    pub(crate) fn after_install(
        &self,
        current: &Current,
        rules: &str,
    ) -> Result<(Vec<u8>, Option<PathBuf>), FileProblem> {
        Ok(match current {
            Current::Ours(written) if written.rules == rules.as_bytes() => {
                (written.bytes.clone(), None)
            }
            Current::Ours(written) => (with_header(rules, written.before.as_deref()), None),
            Current::Absent => (with_header(rules, None), None),
            Current::Edited(Written { bytes, .. }) | Current::Foreign(bytes) => {
                let name = self.backup_for(bytes)?;
                (with_header(rules, Some(&name)), Some(self.directory.path().join(name)))
            }
        })
    }

    /// Puts the rules there. What somebody else wrote, or changed, is kept beside them.
    pub(crate) fn install(&self, rules: &str) -> Result<Done, FileProblem> {
        // Before anything is made: what is no file stays.
        self.current()?;
        self.directory.create()?;
        let locked = self.directory.lock(WAIT)?;
        let before = self.current()?;
        let (bytes, backup) = self.after_install(&before, rules)?;
        if bytes == before.bytes() {
            return Ok(Done::nothing(before));
        }
        let kept_now = match &backup {
            Some(backup) => self.keep(&locked, before.bytes(), backup)?,
            None => false,
        };
        self.put(&locked, &bytes, before == Current::Absent)?;
        Ok(Done { changed: true, missing: None, kept_now, backup, before })
    }

    /// What would be in its place after `uninstall`, and which kept file that is.
    pub(crate) fn after_uninstall(
        &self,
        current: &Current,
        force: bool,
    ) -> Result<(Option<PathBuf>, Vec<u8>), FileProblem> {
        let Some(written) = self.removable(current, force)? else { return Ok((None, Vec::new())) };
        let Some((path, bytes)) = self.kept(written)? else { return Ok((None, Vec::new())) };
        Ok((Some(path), bytes))
    }

    /// Takes the rules away, and puts back what was there before.
    pub(crate) fn uninstall(&self, force: bool) -> Result<Done, FileProblem> {
        // Without a directory there is nothing to lock.
        if self.current()? == Current::Absent {
            return Ok(Done::nothing(Current::Absent));
        }
        let locked = self.directory.lock(WAIT)?;
        let before = self.current()?;
        let Some(written) = self.removable(&before, force)? else {
            return Ok(Done::nothing(before));
        };
        let backup = self.kept(written)?.map(|(path, _)| path);
        let named = written.before.as_ref().map(|name| self.directory.path().join(name));
        let missing = named.filter(|_| backup.is_none());
        let result = match &backup {
            Some(backup) => fs::rename(backup, &self.path),
            None => fs::remove_file(&self.path),
        };
        result.and_then(|()| locked.sync()).map_err(|cause| self.failed(cause))?;
        Ok(Done { changed: true, missing, kept_now: false, backup, before })
    }

    /// Puts back what was there before `install` changed it.
    pub(crate) fn undo(&self, done: &Done) -> Result<(), FileProblem> {
        let locked = self.directory.lock(WAIT)?;
        match (&done.before, &done.backup) {
            (Current::Absent, _) => {
                fs::remove_file(&self.path).map_err(|cause| self.failed(cause))?;
            }
            (_, Some(backup)) if done.kept_now => {
                fs::rename(backup, &self.path).map_err(|cause| self.failed(cause))?;
            }
            (before, Some(backup)) => {
                // One that was kept before is like it.
                copy(&locked, before.bytes(), backup, &self.path, true)?;
            }
            (before, None) => self.put(&locked, before.bytes(), false)?,
        }
        locked.sync().map_err(|cause| self.failed(cause))
    }

    /// What was written and may be taken away; `None` where there is nothing.
    fn removable<'a>(
        &self,
        current: &'a Current,
        force: bool,
    ) -> Result<Option<&'a Written>, FileProblem> {
        match current {
            Current::Absent => Ok(None),
            Current::Foreign(_) => Err(FileProblem::NotOurs { path: self.path.clone() }),
            Current::Edited(_) if !force => Err(FileProblem::Edited { path: self.path.clone() }),
            Current::Ours(written) | Current::Edited(written) => Ok(Some(written)),
        }
    }

    /// The file that was there before; `None` where there was none, or it is gone by now.
    fn kept(&self, written: &Written) -> Result<Option<(PathBuf, Vec<u8>)>, FileProblem> {
        let Some(name) = &written.before else { return Ok(None) };
        let path = self.directory.path().join(name);
        match read_regular(&path, LIMIT) {
            Ok((bytes, _)) => Ok(Some((path, bytes))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(DirectoryProblem::io(&path, cause).into()),
        }
    }

    /// Keeps the file that is there, with its mode and owner, and says whether that was to do.
    fn keep(&self, locked: &Locked<'_>, bytes: &[u8], path: &Path) -> Result<bool, FileProblem> {
        // Kept by a run that did not come to its end.
        if read_regular(path, LIMIT).is_ok_and(|(kept, _)| kept == bytes) {
            return Ok(false);
        }
        copy(locked, bytes, &self.path, path, false)?;
        Ok(true)
    }

    /// Where nothing is to be there, what is there all the same stays.
    fn put(&self, locked: &Locked<'_>, bytes: &[u8], is_new: bool) -> Result<(), FileProblem> {
        let put = locked.write(bytes, 0o644).and_then(|new| {
            if is_new { locked.put_new(new, &self.path) } else { locked.put(new, &self.path) }
        });
        put.map_err(|cause| self.failed(cause))
    }

    /// The name under which these bytes are kept: the last one if it has them, else the next.
    fn backup_for(&self, bytes: &[u8]) -> Result<String, FileProblem> {
        let names: Vec<_> = match names(self.directory.path()) {
            Ok(names) => names,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(cause) => return Err(self.failed(cause)),
        };
        let numbers = names.iter().filter_map(|name| backup_number(name));
        let Some(last) = numbers.max() else { return Ok(backup_name(1)) };
        let name = backup_name(last);
        let is_same = read_regular(&self.directory.path().join(&name), LIMIT)
            .is_ok_and(|(kept, _)| kept == bytes);
        // Another than the last where there is no next.
        let free =
            || (1..=u32::MAX).find(|number| !names.iter().any(|it| *it == backup_name(*number)));
        let next = last.checked_add(1).or_else(free).unwrap_or(last);
        Ok(if is_same { name } else { backup_name(next) })
    }

    fn failed(&self, cause: io::Error) -> FileProblem {
        DirectoryProblem::io(&self.path, cause).into()
    }
}

/// Writes bytes to a path, with mode and owner of another file.
fn copy(
    locked: &Locked<'_>,
    bytes: &[u8],
    like: &Path,
    path: &Path,
    replace: bool,
) -> Result<(), FileProblem> {
    let failed = |cause| DirectoryProblem::io(path, cause);
    let (_, like) = read_regular(like, LIMIT).map_err(failed)?;
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let owner = Some((like.uid(), like.gid())).filter(|owner| *owner != own);
    let copy = locked.write_for(bytes, like.mode() & 0o777, owner).map_err(failed)?;
    let put = if replace { locked.put(copy, path) } else { locked.put_new(copy, path) };
    Ok(put.map_err(failed)?)
}

impl Done {
    fn nothing(before: Current) -> Self {
        Self { changed: false, missing: None, kept_now: false, backup: None, before }
    }
}

impl Current {
    fn of(bytes: Vec<u8>) -> Self {
        match parts(&bytes) {
            None => Self::Foreign(bytes),
            Some((before, sum, rules)) => {
                let is_ours = sum == checksum(before.unwrap_or(NOTHING), rules);
                let (before, rules) = (before.map(str::to_owned), rules.to_vec());
                let written = Written { bytes, rules, before };
                if is_ours { Self::Ours(written) } else { Self::Edited(written) }
            }
        }
    }

    /// Its text; empty where there is none.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Absent => &[],
            Self::Ours(written) | Self::Edited(written) => &written.bytes,
            Self::Foreign(bytes) => bytes,
        }
    }
}

/// `60-egm.rules.before-egm-probe`, then with a number.
fn backup_name(number: u32) -> String {
    let number = if number == 1 { String::new() } else { format!(".{number}") };
    format!("{FILE_NAME}.{BACKUP}{number}")
}

fn backup_number(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(FILE_NAME)?.strip_prefix('.')?.strip_prefix(BACKUP)?;
    let number = if rest.is_empty() { 1 } else { rest.strip_prefix('.')?.parse().ok()? };
    (backup_name(number) == name).then_some(number)
}

/// The rules as they are written: a header tells them from what somebody else has written, and
/// from what was changed since, and names what was there before.
fn with_header(rules: &str, before: Option<&str>) -> Vec<u8> {
    let before = before.unwrap_or(NOTHING);
    let sum = checksum(before, rules.as_bytes());
    format!("{HEADER}{BEFORE}{before}\n{CHECKSUM}{sum:08x}\n{rules}").into_bytes()
}

/// What was there before, the checksum and the rules.
fn parts(bytes: &[u8]) -> Option<(Option<&str>, u32, &[u8])> {
    let text = bytes.strip_prefix(HEADER.as_bytes())?.strip_prefix(BEFORE.as_bytes())?;
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let (before, rest) = text.split_at_checked(end)?;
    let before = std::str::from_utf8(before).ok()?;
    let before = match before {
        NOTHING => None,
        // No other file is ever put back.
        name => Some(backup_name(backup_number(name)?)).map(|_| name),
    };
    let (sum, rules) =
        rest.strip_prefix(b"\n")?.strip_prefix(CHECKSUM.as_bytes())?.split_at_checked(8)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    Some((before, sum, rules.strip_prefix(b"\n")?))
}

/// Of the rules and of what was there before: neither may be changed by hand.
fn checksum(before: &str, rules: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(before.as_bytes());
    sum.update(rules);
    sum.sum()
}

fn shown(path: &Path) -> String {
    excerpt(&path.to_string_lossy(), 300)
}

#[cfg(test)]
mod tests {
    use super::{Current, backup_name, backup_number, with_header};

    #[test]
    fn what_was_written_is_recognised_and_so_is_what_was_changed() {
        let written = with_header("rules\n", Some(&backup_name(2)));
        assert!(matches!(Current::of(written.clone()), Current::Ours(it) if it.rules == b"rules\n"
            && it.before.as_deref() == Some("60-egm.rules.before-egm-probe.2")));
        let changed = String::from_utf8(written.clone()).unwrap().replace("rules\n", "other\n");
        assert!(matches!(Current::of(changed.into_bytes()), Current::Edited(_)));
        let elsewhere =
            String::from_utf8(written).unwrap().replace("60-egm", "../../shadow/60-egm");
        assert!(matches!(Current::of(elsewhere.into_bytes()), Current::Foreign(_)));
        assert!(matches!(Current::of(b"rules\n".to_vec()), Current::Foreign(_)));
    }

    #[test]
    fn kept_files_are_numbered() {
        for number in [1, 2, 10, u32::MAX] {
            assert_eq!(backup_number(&backup_name(number)), Some(number));
        }
        for name in [
            "60-egm.rules",
            "60-egm.rules.before-egm-probe.",
            "60-egm.rules.before-egm-probe.1",
            "60-egm.rules.before-egm-probe.02",
            "60-egm.rules.before-egm-probe.x",
        ] {
            assert_eq!(backup_number(name), None, "{name}");
        }
    }
}
