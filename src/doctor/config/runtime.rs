//! The setting of container runtimes that gives devices to the user of a pod.

use std::io::ErrorKind;
use std::path::Path;

use crate::sysroot::Sysroot;

/// The setting, which containerd and CRI-O have with the same name.
pub(in crate::doctor) const KEY: &str = "device_ownership_from_security_context";

/// Files of containerd and CRI-O, and directories of further ones; later ones count.
const FILES: [&str; 5] = [
    "/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/etc/crio/crio.conf",
];
const DIRECTORIES: [&str; 3] =
    ["/etc/containerd/conf.d", "/etc/k0s/containerd.d", "/etc/crio/crio.conf.d"];

/// Whether a file counts: CRI-O reads all files of its directory, containerd those with this ending.
fn is_read(path: &str) -> bool {
    let file = Path::new(path);
    let is_in = |directory| file.parent() == Some(Path::new(directory));
    let has_ending =
        path.starts_with("/etc/crio/") || file.extension().is_some_and(|it| it == "toml");
    FILES.contains(&path) || (has_ending && DIRECTORIES.into_iter().any(is_in))
}

/// Maximum size of a file.
const LIMIT: usize = 1 << 20;

/// Whether the runtime gives devices to the user of their pod; the reason if that is unknown. It does
/// not by default.
pub(in crate::doctor) fn owns_devices(root: &Sysroot) -> Result<bool, String> {
    let mut files: Vec<String> = FILES.map(String::from).into();
    for directory in DIRECTORIES {
        let names = root.entries(directory).unwrap_or_default();
        files.extend(names.iter().map(|name| format!("{directory}/{name}")));
    }
    files.retain(|file| is_read(file));
    let mut owns = Ok(false);
    for file in files {
        match root.read(&file, LIMIT) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                owns = text.lines().filter_map(setting).next_back().map_or(owns, Ok);
            }
            Err(error) if error.is_absent() || error.cause.kind() == ErrorKind::IsADirectory => {}
            Err(error) => owns = Err(error.to_string()),
        }
    }
    owns
}

fn setting(line: &str) -> Option<bool> {
    let (key, value) = line.split('#').next()?.split_once('=')?;
    (key.trim() == KEY).then(|| value.trim() == "true")
}

/// The setting alone; `None` if a file does not have it, or is not one of these.
pub(in crate::doctor) fn redact(path: &str, text: &str) -> Option<String> {
    let last = text.lines().filter_map(setting).next_back();
    last.filter(|_| is_read(path)).map(|owns| format!("{KEY} = {owns}\n"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{owns_devices, redact, setting};
    use crate::sysroot::Sysroot;

    #[test]
    fn a_later_file_counts_and_a_directory_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc/containerd");
        fs::create_dir_all(etc.join("conf.d/certs")).unwrap();
        let root = Sysroot::directory(directory.path()).unwrap();
        assert_eq!(owns_devices(&root), Ok(false));
        let owns = |is: bool| format!("device_ownership_from_security_context = {is}\n");
        fs::write(etc.join("config.toml"), owns(true)).unwrap();
        assert_eq!(owns_devices(&root), Ok(true));
        fs::write(etc.join("conf.d/99.toml"), owns(false)).unwrap();
        fs::write(etc.join("conf.d/99.toml.bak"), owns(true)).unwrap();
        assert_eq!(owns_devices(&root), Ok(false));
        fs::remove_file(etc.join("conf.d/99.toml")).unwrap();
        fs::write(etc.join("config.toml"), owns(false)).unwrap();
        let rke2 = directory.path().join("var/lib/rancher/rke2/agent/etc/containerd");
        fs::create_dir_all(&rke2).unwrap();
        fs::write(rke2.join("config.toml"), owns(true)).unwrap();
        assert_eq!(owns_devices(&root), Ok(true));
    }

    #[test]
    fn the_setting_is_found() {
        for (line, expected) in [
            ("    device_ownership_from_security_context = true # for VMs", Some(true)),
            ("device_ownership_from_security_context=false", Some(false)),
            ("# device_ownership_from_security_context = true", None),
            ("x_device_ownership_from_security_context = true", None),
        ] {
            assert_eq!(setting(line), expected, "{line}");
        }
        let text = "password = 1\n  device_ownership_from_security_context = true # secret\n";
        let kept = "device_ownership_from_security_context = true\n";
        assert_eq!(redact("/etc/containerd/config.toml", text).as_deref(), Some(kept));
        assert_eq!(redact("/etc/other.toml", text), None);
    }
}
