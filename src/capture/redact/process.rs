//! Reduces the files of a process to the parts that concern EGM.

use crate::claims::process::{is_name_option, machine_scope, name_argument};

/// The contents to include of a file of a holder: its user, the name of its program, and the
/// virtual machine. Its other arguments may contain secrets.
pub(super) fn redact(file: &str, bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let line = |is_it: &dyn Fn(&str) -> bool| {
        text.lines().find(|line| is_it(line)).map_or(String::new(), |line| format!("{line}\n"))
    };
    let kept = match file {
        "status" => line(&|line| line.starts_with("Uid:")),
        "cgroup" => {
            let scope = text.lines().flat_map(|line| line.split('/'));
            let mut scope = scope.filter(|part| machine_scope(part).is_some());
            scope.next().map_or(String::new(), |scope| format!("0::/{scope}\n"))
        }
        "cmdline" => {
            cut_arguments(&text.split_terminator('\0').map(str::to_owned).collect::<Vec<_>>())
        }
        "comm" => text.into_owned(),
        _ => String::new(),
    };
    kept.into_bytes()
}

fn cut_arguments(arguments: &[String]) -> String {
    let Some(first) = arguments.first() else { return String::new() };
    // Keep a slash before the name, so that it is not taken for an option.
    let program = first.rfind('/').and_then(|slash| first.get(slash..)).unwrap_or(first);
    // Keep a space after the name, so that it is not taken for a program's name.
    let end = program.char_indices().find(|(_, c)| c.is_whitespace());
    let end = end.map_or(program.len(), |(at, space)| at + space.len_utf8());
    let program = program.get(..end).unwrap_or(program);
    let name = name_argument(arguments).map(|name| format!("guest={}", name.replace(',', ",,")));
    let option = name.as_ref().filter(|_| !is_name_option(program)).map(|_| "-name");
    let kept = [program].into_iter().chain(option).chain(name.as_deref());
    kept.flat_map(|argument| [argument, "\0"]).collect()
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn only_program_and_name_are_kept_of_the_arguments() {
        for (arguments, kept) in [
            ("", ""),
            (
                "/usr/bin/qemu\0-object\0secret,data=x\0-name\0process=x,guest=v,,m\0-S\0",
                "/qemu\0-name\0guest=v,,m\0",
            ),
            ("qemu\0x\0-name\0", "qemu\0"),
            ("-name\0vm1\0-name\0vm2\0", "-name\0guest=vm1\0"),
            ("/bin/-name\0vm1\0-name\0vm2\0", "/-name\0-name\0guest=vm2\0"),
            ("\0secret\0", "\0"),
            ("secret", "secret\0"),
            ("/a/worker: of secret\0", "/worker: \0"),
        ] {
            let kept_bytes = redact("cmdline", arguments.as_bytes());
            assert_eq!(String::from_utf8(kept_bytes).unwrap(), kept, "{arguments:?}");
        }
        assert_eq!(redact("status", b"Name:\tx\nUid:\t1\t2\t3\t4\n"), b"Uid:\t1\t2\t3\t4\n");
        assert_eq!(redact("environ", b"SECRET=x"), b"");
        let cgroup = b"1:cpu:/secret\n0::/secret/machine-qemu\\x2d1\\x2dvm1.scope/secret\n";
        assert_eq!(redact("cgroup", cgroup), b"0::/machine-qemu\\x2d1\\x2dvm1.scope\n");
    }
}
