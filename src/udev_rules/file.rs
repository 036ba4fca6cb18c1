//! The file with the rules of this program: written and taken away whole, with what was there
//! before kept.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::effective::FILE_NAME;
use crate::sysroot::describe;
use crate::text::excerpt;
use crate::user_file;

const DIRECTORY: [&str; 3] = ["etc", "udev", "rules.d"];
const LIMIT: usize = 1 << 20;

/// udev reads no file whose name ends like this.
const BACKUP: &str = "before-egm-probe";

/// The beginning of a file's name while it is being written.
const UNFINISHED: &str = ".60-egm.rules.";

const HEADER: &str = "# Written by `egm-probe udev install`; `egm-probe udev uninstall` puts back \
                      what was here before.\n# checksum: ";

/// Why the rules were not written or taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileProblem {
    #[error("{}: {}", shown(path), describe(cause))]
    Io { path: PathBuf, cause: io::Error },
    #[error("{}: {}not a directory", shown(path), lead(*.is_link))]
    NoDirectory { path: PathBuf, is_link: bool },
    #[error("{}: a link to {}, which is outside of {}", shown(path), shown(target), shown(root))]
    LeadsOut { path: PathBuf, target: PathBuf, root: PathBuf },
    #[error(
        "{}: a link to {}, not a file{}; remove it first",
        shown(path), shown(target),
        if target == Path::new("/dev/null") { ": somebody has switched these rules off" } else { "" }
    )]
    Link { path: PathBuf, target: PathBuf },
    #[error(transparent)]
    Unreadable(#[from] user_file::FileError),
    #[error("{}: not written by `egm-probe udev install`, so it stays", shown(path))]
    NotOurs { path: PathBuf },
    #[error(
        "{}: changed by hand after `egm-probe udev install`; --force removes it all the same",
        shown(path)
    )]
    Edited { path: PathBuf },
    #[error("{}: somebody else is at work in this directory", shown(path))]
    Busy { path: PathBuf },
}

impl FileProblem {
    /// Whether the answer is no, and nothing failed.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::NotOurs { .. } | Self::Edited { .. })
            || matches!(self, Self::LeadsOut { .. })
    }
}

/// The rules file of one root.
#[derive(Debug)]
pub(crate) struct RulesFile {
    directory: PathBuf,
    path: PathBuf,
}

/// What is in its place now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Current {
    Absent,
    /// As it was written.
    Ours(Vec<u8>),
    /// Written by this program, and then changed.
    Edited(Vec<u8>),
    /// Somebody else's.
    Foreign(Vec<u8>),
}

/// What was done, with what is needed to undo it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) changed: bool,
    /// Where the file is kept that was there before; or the one that was put back.
    pub(crate) backup: Option<PathBuf>,
    before: Current,
}

impl RulesFile {
    /// The place of the file below a root, which must be a directory; so must all on the way be,
    /// as far as they are there.
    pub(crate) fn below(root: &Path) -> Result<Self, FileProblem> {
        let failed = |cause| FileProblem::Io { path: root.to_owned(), cause };
        let root = fs::canonicalize(root).map_err(failed)?;
        if !root.is_dir() {
            return Err(FileProblem::NoDirectory { path: root, is_link: false });
        }
        let mut directory = root.clone();
        for name in DIRECTORY {
            let path = directory.join(name);
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                directory = path;
                continue;
            };
            let is_link = metadata.is_symlink();
            let real = fs::canonicalize(&path)
                .map_err(|cause| FileProblem::Io { path: path.clone(), cause })?;
            if !real.starts_with(&root) {
                return Err(FileProblem::LeadsOut { path, target: real, root });
            }
            if !real.is_dir() {
                return Err(FileProblem::NoDirectory { path, is_link });
            }
            directory = real;
        }
        Ok(Self { path: directory.join(FILE_NAME), directory })
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
        let bytes = user_file::read(&self.path, LIMIT)?.bytes;
        Ok(match body(&bytes) {
            None => Current::Foreign(bytes),
            Some((sum, body)) if sum == checksum(body) => Current::Ours(bytes),
            Some(_) => Current::Edited(bytes),
        })
    }

    /// Puts the rules there. What somebody else wrote, or changed, is kept beside them.
    pub(crate) fn install(&self, rules: &str) -> Result<Done, FileProblem> {
        fs::create_dir_all(&self.directory).map_err(|cause| self.failed(cause))?;
        let lock = self.lock()?;
        let bytes = with_header(rules);
        let before = self.current()?;
        if before == Current::Ours(bytes.clone()) {
            return Ok(Done { changed: false, backup: None, before });
        }
        let new = self.write(&bytes)?;
        let backup = match &before {
            Current::Absent | Current::Ours(_) => None,
            Current::Edited(bytes) | Current::Foreign(bytes) => Some(self.keep(bytes)?),
        };
        self.put(new, &lock)?;
        Ok(Done { changed: true, backup, before })
    }

    /// What would be in its place after `uninstall`, and which kept file that is.
    pub(crate) fn after_uninstall(
        &self,
        current: &Current,
        force: bool,
    ) -> Result<(Option<PathBuf>, Vec<u8>), FileProblem> {
        if !self.may_go(current, force)? {
            return Ok((None, Vec::new()));
        }
        let backup = self.backups().pop();
        let bytes = match &backup {
            Some(path) => user_file::read(path, LIMIT)?.bytes,
            None => Vec::new(),
        };
        Ok((backup, bytes))
    }

    /// Whether there is something to take away.
    fn may_go(&self, current: &Current, force: bool) -> Result<bool, FileProblem> {
        match current {
            Current::Absent => Ok(false),
            Current::Foreign(_) => Err(FileProblem::NotOurs { path: self.path.clone() }),
            Current::Edited(_) if !force => Err(FileProblem::Edited { path: self.path.clone() }),
            Current::Ours(_) | Current::Edited(_) => Ok(true),
        }
    }

    /// Takes the rules away, and puts back what was there before.
    pub(crate) fn uninstall(&self, force: bool) -> Result<Done, FileProblem> {
        // Without a directory there is nothing to lock.
        if self.current()? == Current::Absent {
            return Ok(Done { changed: false, backup: None, before: Current::Absent });
        }
        let lock = self.lock()?;
        let before = self.current()?;
        if !self.may_go(&before, force)? {
            return Ok(Done { changed: false, backup: None, before });
        }
        let backup = self.backups().pop();
        let result = match &backup {
            Some(backup) => fs::rename(backup, &self.path),
            None => fs::remove_file(&self.path),
        };
        result.and_then(|()| lock.sync_all()).map_err(|cause| self.failed(cause))?;
        Ok(Done { changed: true, backup, before })
    }

    /// Puts back what was there before `install` changed it.
    pub(crate) fn undo(&self, done: &Done) -> Result<(), FileProblem> {
        let lock = self.lock()?;
        match (&done.before, &done.backup) {
            (_, Some(backup)) => {
                fs::rename(backup, &self.path).map_err(|cause| self.failed(cause))?;
            }
            (Current::Absent, None) => {
                fs::remove_file(&self.path).map_err(|cause| self.failed(cause))?;
            }
            (Current::Ours(bytes) | Current::Edited(bytes) | Current::Foreign(bytes), None) => {
                self.put(self.write(bytes)?, &lock)?;
            }
        }
        lock.sync_all().map_err(|cause| self.failed(cause))
    }

    /// The directory, in which nobody else of this program works until it is closed; what one that
    /// was killed has left is removed.
    fn lock(&self) -> Result<File, FileProblem> {
        let directory = File::open(&self.directory).map_err(|cause| self.failed(cause))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(FileProblem::Busy { path: self.directory.clone() });
            }
            Err(error) => return Err(self.failed(error.into())),
        }
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let is_left = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            if is_left && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                // What cannot be removed does no harm: udev does not read it.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(directory)
    }

    /// Writes a file that is not yet in its place.
    fn write(&self, bytes: &[u8]) -> Result<tempfile::NamedTempFile, FileProblem> {
        let write = || {
            let mut new =
                tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.directory)?;
            new.write_all(bytes)?;
            new.as_file().set_permissions(Permissions::from_mode(0o644))?;
            new.as_file().sync_all()?;
            Ok(new)
        };
        write().map_err(|cause| self.failed(cause))
    }

    fn put(&self, new: tempfile::NamedTempFile, directory: &File) -> Result<(), FileProblem> {
        let put = new.persist(&self.path).map_err(|error| error.error);
        put.and_then(|_| directory.sync_all()).map_err(|cause| self.failed(cause))
    }

    /// Gives the file that is there a second name, under which it stays. One that was kept before,
    /// by a run that did not come to its end, serves again.
    fn keep(&self, bytes: &[u8]) -> Result<PathBuf, FileProblem> {
        let kept = self.backups();
        if let Some(last) = kept.last()
            && user_file::read(last, LIMIT).is_ok_and(|file| file.bytes == bytes)
        {
            return Ok(last.clone());
        }
        let name = self.backup_name(kept.len());
        fs::hard_link(&self.path, &name)
            .map_err(|cause| FileProblem::Io { path: name.clone(), cause })?;
        Ok(name)
    }

    fn backup_name(&self, number: usize) -> PathBuf {
        let number = if number == 0 { String::new() } else { format!(".{}", number + 1) };
        self.directory.join(format!("{FILE_NAME}.{BACKUP}{number}"))
    }

    /// What was kept, in the order in which it was.
    fn backups(&self) -> Vec<PathBuf> {
        let names = (0..).map(|number| self.backup_name(number));
        names.take_while(|path| fs::symlink_metadata(path).is_ok()).collect()
    }

    fn failed(&self, cause: io::Error) -> FileProblem {
        FileProblem::Io { path: self.path.clone(), cause }
    }
}

impl Current {
    /// Its text; empty where there is none.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Absent => &[],
            Self::Ours(bytes) | Self::Edited(bytes) | Self::Foreign(bytes) => bytes,
        }
    }
}

/// The rules as they are written: a header tells them from what somebody else has written, and
/// from what was changed since.
pub(crate) fn with_header(rules: &str) -> Vec<u8> {
    format!("{HEADER}{:08x}\n{rules}", checksum(rules.as_bytes())).into_bytes()
}

fn body(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (sum, body) = bytes.strip_prefix(HEADER.as_bytes())?.split_at_checked(8)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    Some((sum, body.strip_prefix(b"\n")?))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

fn lead(is_link: bool) -> &'static str {
    if is_link { "a link to what is " } else { "" }
}

fn shown(path: &Path) -> String {
    excerpt(&path.to_string_lossy(), 300)
}
