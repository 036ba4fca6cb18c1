//! Real processes that hold a stand-in for a region: the device of `/dev/zero` under another name,
//! which any user can open and map.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::live::{can, can_overlay, extract, json as parsed, sees_processes};
use crate::support::{self, tree::Tree};

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");
const MIB: u64 = 1 << 20;

/// A process that follows commands.
pub(crate) struct Holder {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Holder {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(holder_program());
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, order: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{order}");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Also ends the children that took over from it.
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Compiled once, with the compiler that links Rust programs.
pub(crate) fn holder_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/holder.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("holder");
        let output = Command::new("cc")
            .args(["-O1", "-pthread", "-o"])
            .arg(&program)
            .arg(source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        program
    })
}

/// A GB200 whose egm4 has the number of `/dev/zero`, and a directory with nodes of that number.
pub(crate) struct Host {
    tree: TempDir,
    nodes: TempDir,
    /// Locked as long as the host exists.
    #[allow(dead_code)]
    turn: MutexGuard<'static, ()>,
}

/// All tests use the same device number, so they would see each other's holders.
static TURN: Mutex<()> = Mutex::new(());

impl Host {
    /// `None` if it cannot be set up.
    pub(crate) fn new() -> Option<Self> {
        let tree = extract("gb200-full-gpu-list");
        let nodes = tempfile::tempdir().unwrap();
        if !can_overlay(tree.path()) || !sees_processes() {
            return None;
        }
        fs::write(tree.path().join("sys/devices/virtual/egm/egm4/dev"), "1:5\n").unwrap();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let host = Self { tree, nodes, turn };
        host.make_node("egm4").then_some(host)
    }

    pub(crate) fn node(&self, name: &str) -> String {
        self.nodes.path().join(name).to_str().unwrap().to_owned()
    }

    fn make_node(&self, name: &str) -> bool {
        let node = self.node(name);
        can(
            "a device node that can be opened",
            &["sh", "-c", &format!("mknod -m 0666 {node} c 1 5 && : < {node}")],
        )
    }

    /// The program's output with the machine's /sys over the host's. If even root may not examine
    /// process 1, as in some containers, it is hidden: no region would ever be free otherwise.
    fn list(&self, program: &str) -> Value {
        self.list_after("", program)
    }

    /// Like [`Self::list`], after another step as root.
    fn list_after(&self, step: &str, program: &str) -> Value {
        let script = format!(
            "mount --make-rprivate / && \
             mount -t overlay o -o nodev,lowerdir={}/sys:/sys /sys && \
             {{ stat -L /proc/1/exe >/dev/null 2>&1 || mount -t tmpfs tmpfs /proc/1; }} && \
             {step} exec {program} list --json",
            self.tree.path().display()
        );
        parsed(&Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap())
    }

    fn wait_until_free(&self) {
        let start = Instant::now();
        while self.egm4()["state"] != "free" {
            assert!(start.elapsed() < Duration::from_secs(60), "{}", self.egm4());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn egm4(&self) -> Value {
        self.list(PROGRAM)["regions"][0].clone()
    }

    /// Sets the driver module's reference count.
    fn set_uses(&self, count: u32) {
        let module = self.tree.path().join("sys/module/nvgrace_egm");
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("refcnt"), format!("{count}\n")).unwrap();
    }
}

/// The claims of one process, which may not be the only holder on this host.
fn claims_of(region: &Value, pid: u32) -> Vec<&Value> {
    region["claims"].as_array().unwrap().iter().filter(|claim| claim["pid"] == pid).collect()
}

/// Mappings of the device that stands for a region are private, so that they are of that device; the
/// checks in tests/vm have shared ones, with ranges.
#[test]
fn a_real_holder_is_found_in_every_state() {
    let Some(host) = Host::new() else { return };
    let expect = |holder: &Holder, via: &str, what: &str| {
        let region = host.egm4();
        assert_eq!(region["state"], "in-use", "{what}: {region}");
        assert_eq!(region["free"], 0, "{what}");
        let claims = claims_of(&region, holder.child.id());
        assert_eq!(claims.len(), 1, "{what}: {region}");
        assert_eq!(claims[0]["kind"], "process", "{what}");
        assert_eq!(claims[0]["command"], "holder", "{what}");
        assert_eq!(claims[0]["via"], via, "{what}");
        assert_eq!(claims[0]["ranges"], json!([]), "{what}");
        let warnings = region["warnings"].to_string();
        assert_eq!(warnings.contains("maps it privately"), via == "private", "{what}");
    };

    let mut holder = Holder::start();
    assert!(claims_of(&host.egm4(), holder.child.id()).is_empty());
    holder.tell(&format!("open {}", host.node("egm4")));
    expect(&holder, "fd", "open only");
    holder.tell(&format!("map {} {}", 16 * MIB, 8 * MIB));
    expect(&holder, "private", "open and mapped");
    holder.tell("close");
    expect(&holder, "private", "mapped and closed");
    fs::rename(host.node("egm4"), host.node("renamed")).unwrap();
    expect(&holder, "private", "renamed");
    fs::remove_file(host.node("renamed")).unwrap();
    expect(&holder, "private", "deleted");
    drop(holder);

    // A second node with the same number, as in a container; mapped several times.
    assert!(host.make_node("memory"));
    let mut holder = Holder::start();
    holder.tell(&format!("open {}", host.node("memory")));
    holder.tell("map 0 1048576");
    holder.tell("map 0 2097152");
    holder.tell("map 4194304 1048576");
    expect(&holder, "private", "a second node");
    let pid = holder.child.id();
    drop(holder);
    assert!(claims_of(&host.egm4(), pid).is_empty(), "it exited");
}

#[test]
fn processes_with_very_many_mappings_and_files_are_read_completely() {
    let Some(host) = Host::new() else { return };
    let mut holder = Holder::start();
    // The kernel's default limit, minus the mappings of every program.
    holder.tell("many 65000");
    holder.tell("files 900");
    holder.tell(&format!("open {}", host.node("egm4")));
    holder.tell("map 0 1048576");
    let region = host.egm4();
    let claims = claims_of(&region, holder.child.id());
    assert_eq!(claims[0]["via"], "private");
}

#[test]
fn a_region_is_never_free_if_the_holder_is_not_visible() {
    if !support::has(&["setpriv"]) {
        return;
    }
    let Some(host) = Host::new() else { return };
    // A copy, because the program may be in a directory that only root can access.
    let copy = host.node("egm-probe");
    fs::copy(PROGRAM, &copy).unwrap();
    fs::set_permissions(host.nodes.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(host.tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = format!("setpriv --reuid=65534 --regid=65534 --clear-groups {copy}");
    host.set_uses(1);
    let mut holder = Holder::start();
    holder.tell(&format!("open {}", host.node("egm4")));
    let document = host.list(&as_nobody);
    assert_eq!(document["occupancy"], "partial");
    assert_eq!(document["regions"][0]["state"], "unknown");
    assert_eq!(document["regions"][0]["free"], Value::Null);
    let warnings = document["warnings"].to_string();
    assert!(warnings.contains("could not be examined"), "{warnings}");

    // With hidepid, all visible processes can be read.
    let hide = "mount -t proc -o hidepid=2 proc /proc &&";
    if can("hidepid", &["unshare", "-m", "mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"])
    {
        let document = host.list_after(hide, &as_nobody);
        assert_eq!(document["occupancy"], "partial");
        assert_eq!(document["regions"][0]["state"], "unknown");
        let warnings = document["warnings"].to_string();
        assert!(warnings.contains("hidepid"), "{warnings}");
    }

    // If the driver's count says that nothing is open, no process needs to be visible.
    host.set_uses(0);
    let document = host.list(&as_nobody);
    assert_eq!(document["occupancy"], "complete");
    assert_eq!(document["regions"][1]["state"], "free");
    assert_eq!(document["warnings"], json!([]));
}

/// Reads repeatedly while the holders change; the region is never free.
fn is_never_free(host: &Host, what: &str) {
    for round in 0..12 {
        let document = host.list(PROGRAM);
        let region = &document["regions"][0];
        assert_ne!(region["state"], "free", "{what}, round {round}: {document}");
        assert!(region["free"].is_null() || region["free"] == 0, "{what}: {document}");
    }
}

#[test]
fn a_region_passed_from_process_to_process_is_never_free() {
    let Some(host) = Host::new() else { return };
    // Processes of other tests start and exit, but without a holder it becomes free eventually.
    host.wait_until_free();
    for pause in [1_000, 5_000] {
        let mut holder = Holder::start();
        holder.tell(&format!("open {}", host.node("egm4")));
        holder.tell("map 0 1048576");
        holder.tell("close");
        holder.tell(&format!("relay {pause}"));
        is_never_free(&host, "relay");
        // The next chain must not be mistaken for this one.
        drop(holder);
        host.wait_until_free();
    }
}

#[test]
fn a_constantly_changing_mapping_is_never_missed() {
    let Some(host) = Host::new() else { return };
    let mut holder = Holder::start();
    holder.tell(&format!("open {}", host.node("egm4")));
    holder.tell("map 0 1048576");
    holder.tell("close");
    holder.tell("toggle");
    is_never_free(&host, "toggle");
}

#[test]
fn threads_are_examined_after_the_first_one_exited() {
    let Some(host) = Host::new() else { return };
    let mut holder = Holder::start();
    holder.tell(&format!("open {}", host.node("egm4")));
    holder.tell("map 1048576 1048576");
    holder.tell("leader");
    let claims = host.egm4();
    let claims = claims_of(&claims, holder.child.id());
    assert_eq!(claims[0]["via"], "private");
}

#[test]
fn a_path_descriptor_holds_nothing() {
    let Some(host) = Host::new() else { return };
    let mut holder = Holder::start();
    holder.tell(&format!("path {}", host.node("egm4")));
    assert!(claims_of(&host.egm4(), holder.child.id()).is_empty());
}

/// Where the kernel answers queries (Linux 6.11), the mappings of a process are read only if one of
/// those that a guest's memory can be is of a region.
#[test]
fn queries_find_the_same_holders_as_reading_all_mappings() {
    let without = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=ioctl:error=ENOTTY"];
    if !can("strace", &[&without[..], &["true"]].concat()) {
        return;
    }
    let Some(host) = Host::new() else { return };
    let [mut opener, mut copy, mut reader] = [Holder::start(), Holder::start(), Holder::start()];
    let open = format!("open {}", host.node("egm4"));
    for holder in [&mut opener, &mut copy, &mut reader] {
        holder.tell(&open);
    }
    copy.tell("private 0 1048576");
    copy.tell("close");
    reader.tell("map 0 1048576");
    reader.tell("close");
    let expect = |files: u32, holders: &[(&Holder, &str)]| {
        host.set_uses(2 * files);
        for program in [PROGRAM, &format!("{} {PROGRAM}", without.join(" "))] {
            let document = host.list(program);
            for (holder, via) in holders {
                let claims = claims_of(&document["regions"][0], holder.pid());
                assert_eq!(claims.len(), 1, "{program}: {via}: {document}");
                assert_eq!(claims[0]["via"], *via, "{program}");
            }
        }
    };
    // Explained by the first process, which also holds it: the others share its file.
    expect(1, &[(&opener, "fd"), (&copy, "private")]);
    // Not explained, so that all mappings are read.
    expect(2, &[(&opener, "fd"), (&copy, "private"), (&reader, "private")]);
}

/// The holders of egm4 in a recorded host: `PID:DOMAIN<VM`.
fn recorded(tree: &Tree) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), tree.tar()).unwrap();
    let mut command = Command::new(PROGRAM);
    let output = command.arg("--from").arg(file.path()).args(["list", "--json"]).output().unwrap();
    let document = parsed(&output);
    assert_eq!(document["occupancy"], "complete", "{document}");
    let claims = document["regions"][0]["claims"].as_array().unwrap();
    let shown =
        claims.iter().map(|it| format!("{}:{}<{}", it["pid"], it["domain"], it["helper_of"]));
    shown.collect()
}

/// If the driver has no region open, no definition can make one held; a status file does not count
/// against the open files of others.
#[test]
fn the_drivers_count_decides_about_definitions() {
    let list = |tree: &Tree| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), tree.tar()).unwrap();
        let mut command = Command::new(PROGRAM);
        parsed(&command.arg("--from").arg(file.path()).args(["list", "--json"]).output().unwrap())
    };
    let mut idle = Tree::read(&support::machine("claims-idle-user"));
    idle.fifo("etc/libvirt/qemu/vm1.xml");
    let document = list(&idle);
    assert_eq!(
        (&document["occupancy"], &document["regions"][0]["state"]),
        (&json!("complete"), &json!("free"))
    );
    assert!(document["warnings"].to_string().contains("vm1.xml"), "{document}");
    let mut stale = Tree::read(&support::machine("claims-back-end"));
    let status = Tree::read(&support::machine("claims-running-unseen"));
    let status = status.content("run/libvirt/qemu/vm1.xml").replace("vm1", "old");
    let status = status.replace("pid='4242'", "pid='99'");
    stale.file("run/libvirt/qemu/old.xml", status);
    let document = list(&stale);
    assert!(document["warnings"].to_string().contains("the status file is stale"), "{document}");
    assert!(!document.to_string().contains("does not overlap"), "{document}");
}

/// systemd-machined has no `_` in names, and RHEL's QEMU no architecture in its own.
#[test]
fn a_back_end_belongs_to_the_virtual_machine_of_its_scope() {
    let back_end = Tree::read(&support::machine("claims-back-end"));
    let mut underscore = back_end.clone();
    let scope = "0::/machine.slice/machine-qemu\\x2d3\\x2dgpuvm1.scope/libvirt/emulator\n";
    for pid in [4242, 4300] {
        underscore.file(&format!("proc/{pid}/cgroup"), scope);
    }
    underscore.file("proc/4242/cmdline", "/usr/bin/qemu-system-aarch64\0-name\0guest=gpu_vm1\0");
    let vm = r#""gpu_vm1""#;
    assert_eq!(recorded(&underscore), [format!("4242:{vm}<null"), format!("4300:{vm}<4242")]);
    let mut unnamed = back_end;
    unnamed.file("proc/4242/cmdline", "/usr/bin/qemu-storage-daemon\0");
    unnamed.file("proc/4300/cmdline", "/usr/libexec/qemu-kvm\0-S\0");
    assert_eq!(recorded(&unnamed), ["4242:null<4300", "4300:null<null"]);
}
