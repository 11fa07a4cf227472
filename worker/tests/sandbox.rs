//! Hostile commands in the real sandbox: nothing gets out, nothing stays, nothing is lost.
//!
//! Runs twice where it is started as root: as root, and once more as a user without privileges.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it has to be")]

mod common;

use std::time::Duration;

use castwork_worker::sandbox::{Bounds, End, Kind, Root, Sandbox, SandboxError, set_mode};
use common::{Laid, Stage, text};

#[tokio::test]
async fn a_command_sees_its_inputs_and_exactly_its_environment() {
    let Some(stage) = Stage::set().await else { return };
    stage.input("dir/hello.txt", "hello");
    let mut spec = stage.shell("cat hello.txt; pwd; /usr/bin/env | sort");
    spec.working_directory = "dir".to_owned();
    spec.environment = vec![("B".to_owned(), "2 2".to_owned()), ("A".to_owned(), String::new())];
    let ended = stage.run(&spec).await;
    assert_eq!(ended.end, End::Exited(0));
    // `PWD`, `OLDPWD`, `SHLVL` and `_` are the shell's own doing.
    let out = text(&ended.stdout);
    let kept: Vec<_> =
        out.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")).collect();
    assert_eq!(kept, ["hello/build/dir", "A=", "B=2 2"]);
}

#[tokio::test]
async fn what_the_worker_inherited_is_not_the_commands() {
    let own = tempfile::tempdir().unwrap();
    set_mode(own.path(), 0o755).unwrap();
    let program = own.path().join("worker");
    // Not everybody may have a priority, or be spared.
    let script = format!(
        "#!/bin/bash\ntrap '' HUP INT USR1 RTMAX\nulimit -r 50 -e 40 2>/dev/null\n\
         (echo -500 >/proc/$$/oom_score_adj) 2>/dev/null\nexec -a castwork-keep-slot {}\n",
        env!("CARGO_BIN_EXE_castwork-worker")
    );
    std::fs::write(&program, script).unwrap();
    set_mode(&program, 0o755).unwrap();
    let Some(stage) = Stage::started_by(&program).await else { return };
    let mut spec = stage.shell("");
    spec.arguments = ["/bin/cat", "/proc/self/status", "/proc/self/limits", "/proc/self/oom_score_adj"]
        .map(str::to_owned)
        .to_vec();
    let said = text(&stage.run(&spec).await.stdout);
    let line = |begin: &str| said.lines().find(|line| line.starts_with(begin)).unwrap();
    assert_eq!(line("SigIgn:"), "SigIgn:\t0000000000000000");
    for limit in ["Max nice priority", "Max realtime priority"] {
        let words: Vec<_> = line(limit).split_whitespace().skip(3).collect();
        assert_eq!(words, ["0", "0"], "{limit}");
    }
    // The first to go when the machine is out of memory.
    let score: i32 = said.lines().last().unwrap().parse().unwrap();
    assert!(score >= 300, "{score}");
}

#[tokio::test]
async fn the_hosts_secrets_are_not_to_be_seen() {
    let Some(stage) = Stage::set().await else { return };
    let data = stage.folder.path().display();
    let script = format!(
        "for path in /root /home {data} /etc/shadow /proc/1/environ /proc/1/root /sys /proc/kcore /proc/sys /run /var/lib; do
            cat $path/* $path 2>/dev/null && echo read $path; ls -A $path/. 2>/dev/null && echo listed $path
         done; ls /proc | grep '^[0-9]' | wc -l; ls -A /"
    );
    let ended = stage.run(&stage.shell(&script)).await;
    let out = text(&ended.stdout);
    assert!(!out.contains("read /") && !out.contains("listed /"), "{out}");
}

#[tokio::test]
async fn an_action_can_do_what_it_likes_with_its_inputs_and_the_cas_stays_as_it_is() {
    let Some(stage) = Stage::set().await else { return };
    stage.input("in", "original");
    stage.input("moved", "original");
    let script = "chmod u+w in && echo changed > in && ln in linked && echo more >> linked
        mv moved elsewhere && rm -f elsewhere && echo new > moved; touch -d 2001-01-01 in; cat in";
    let ended = stage.run(&stage.shell(script)).await;
    assert_eq!((ended.end, text(&ended.stderr).as_str()), (End::Exited(0), ""));
    assert_eq!(text(&ended.stdout), "changed\nmore\n");
    let laid = stage.laid();
    assert_eq!(laid.len(), 2);
    for (path, before) in laid {
        assert_eq!(Laid::of(&path), before, "{}", path.display());
    }
}

#[tokio::test]
async fn system_folders_can_not_be_written() {
    let Some(stage) = Stage::set().await else { return };
    let script = "for path in /usr /etc /bin /dev /dev/null/x / /proc /opt; do
        (echo x > $path/castwork-was-here) 2>/dev/null && echo wrote $path; done
        mount -o remount,rw /usr 2>/dev/null && echo remounted; umount /usr 2>/dev/null && echo unmounted
        chmod 777 /usr 2>/dev/null && echo chmodded; mknod node b 8 0 2>/dev/null && echo device; true";
    let ended = stage.run(&stage.shell(script)).await;
    assert_eq!(text(&ended.stdout), "");
    assert!(!std::path::Path::new("/usr/castwork-was-here").exists());
}

#[tokio::test]
async fn no_privilege_is_left_and_none_can_be_had() {
    let Some(stage) = Stage::set().await else { return };
    let script = "grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Groups)' /proc/self/status | tr -s ' \\t' ' '; id -u; id -g
        unshare -Ur true 2>/dev/null && echo nested; unshare -m true 2>/dev/null && echo mounts; ls /proc/self/fd | wc -l";
    let ended = stage.run(&stage.shell(script)).await;
    let out = text(&ended.stdout);
    for line in
        ["CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1"]
    {
        assert!(out.contains(line), "{out}");
    }
    // 0, 1, 2 and the one that `ls` itself has open.
    assert!(out.ends_with("1000\n1000\n4\n"), "{out}");
}

/// Tries to connect to a port of the machine, to an address that nobody has, and to itself.
fn connects(port: u16) -> String {
    format!(
        "cat > net.c <<'END'
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
static int try_it(const char *host, int port) {{
  int s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in to = {{ .sin_family = AF_INET, .sin_port = htons(port) }};
  inet_pton(AF_INET, host, &to.sin_addr);
  return connect(s, (void *)&to, sizeof to);
}}
int main(void) {{
  int l = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in own = {{ .sin_family = AF_INET }};
  socklen_t size = sizeof own;
  inet_pton(AF_INET, \"127.0.0.1\", &own.sin_addr);
  bind(l, (void *)&own, size); listen(l, 1); getsockname(l, (void *)&own, &size);
  printf(\"%d %d %d\\n\", try_it(\"127.0.0.1\", {port}), try_it(\"192.0.2.1\", 80), try_it(\"127.0.0.1\", ntohs(own.sin_port)));
}}
END
cc net.c -o net && ./net"
    )
}

#[tokio::test]
async fn there_is_no_network_but_its_own_loopback() {
    let Some(stage) = Stage::set().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = connects(listener.local_addr().unwrap().port());
    let ended = stage.run(&stage.shell(&script)).await;
    assert_eq!(text(&ended.stdout), "-1 -1 0\n", "{}", text(&ended.stderr));
    drop(listener);
}

#[tokio::test]
async fn the_network_is_there_for_an_action_that_asked_for_it_and_for_no_other() {
    let Some(stage) = Stage::set().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = connects(listener.local_addr().unwrap().port());
    for network in [true, false, true] {
        stage.again();
        let mut spec = stage.shell(&script);
        spec.network = network;
        let said = text(&stage.run(&spec).await.stdout);
        assert!(said.starts_with(if network { "0 " } else { "-1 -1 " }), "{network}: {said}");
        // Nothing else is any different.
        stage.again();
        spec.arguments[2] = "hostname; id -u; ls /; unshare -Un true 2>&1 || echo refused".to_owned();
        let said = text(&stage.run(&spec).await.stdout);
        assert!(said.starts_with("castwork\n1000\n") && said.contains("refused"), "{said}");
    }
}

#[tokio::test]
async fn processor_time_is_bounded_where_control_groups_can_do_it() {
    let bounds = Bounds { cpu_percent: Some(25), ..Bounds::for_this_machine(2) };
    let Some(stage) = Stage::bounded(Vec::new(), bounds).await else { return };
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let begin = std::time::Instant::now();
    let ended = stage.run(&stage.shell(script)).await;
    let used = ended.usage.user + ended.usage.system;
    // The first tenth of a second may be all its own. A busy machine only makes it longer.
    assert!(begin.elapsed() > 2 * used.saturating_sub(Duration::from_millis(100)), "{used:?}");
}

#[tokio::test]
async fn a_daemon_does_not_outlive_its_action() {
    let Some(stage) = Stage::set().await else { return };
    let name = format!("castwork-daemon-{}", std::process::id());
    let script = format!(
        "cp /bin/sleep ./{name}; for i in 1 2 3; do
           setsid sh -c \"trap '' TERM HUP INT; (./{name} 1000 & ./{name} 1000) >/dev/null 2>&1 &\" & done
         while [ $(ls -d /proc/[0-9]* | wc -l) -lt 8 ]; do :; done; exit 3"
    );
    let ended = stage.run(&stage.shell(&script)).await;
    assert_eq!(ended.end, End::Exited(3));
    assert_eq!(common::processes_named(&name), 0);
}

#[tokio::test]
async fn a_timeout_kills_the_tree_and_keeps_what_was_said() {
    let Some(stage) = Stage::set().await else { return };
    let name = format!("castwork-late-{}", std::process::id());
    let script =
        format!("echo begun; echo oops >&2; cp /bin/sleep {name}; setsid ./{name} 1000 & ./{name} 1000");
    let mut spec = stage.shell(&script);
    spec.timeout = Duration::from_millis(700);
    let ended = stage.run(&spec).await;
    assert_eq!(ended.end, End::TimedOut);
    assert_eq!((text(&ended.stdout).as_str(), text(&ended.stderr).as_str()), ("begun\n", "oops\n"));
    assert_eq!(common::processes_named(&name), 0);
}

#[tokio::test]
async fn a_cancelled_command_ends_at_once() {
    let Some(stage) = Stage::set().await else { return };
    let cancel = tokio_util::sync::CancellationToken::new();
    cancel.cancel();
    let ended = stage.sandbox.run(&stage.shell("sleep 1000"), &cancel).await;
    assert!(matches!(ended, Err(SandboxError::Cancelled)));
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    for (script, end) in [
        ("exit 7", End::Exited(7)),
        ("kill -SEGV $$", End::Signaled(11)),
        ("kill -9 $$", End::Signaled(9)),
        ("exit 139", End::Exited(139)),
    ] {
        let Some(stage) = Stage::set().await else { return };
        assert_eq!(stage.run(&stage.shell(script)).await.end, end, "{script}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_or_no_program_ends_as_in_a_shell() {
    for (program, code, said) in [
        ("no-such-program", 127, "castwork: no-such-program: command not found\n"),
        ("./absent", 127, "castwork: ./absent: command not found\n"),
        ("./plain", 126, "castwork: ./plain: Permission denied\n"),
    ] {
        let Some(stage) = Stage::set().await else { return };
        stage.input("plain", "not a program");
        let mut spec = stage.shell("");
        spec.arguments = vec![program.to_owned()];
        let ended = stage.run(&spec).await;
        assert_eq!((ended.end, text(&ended.stderr).as_str()), (End::Exited(code), said));
    }
}

#[tokio::test]
async fn outputs_are_there_after_everything_else_is_gone() {
    let Some(stage) = Stage::set().await else { return };
    stage.input("dir/in", "input");
    let script =
        "echo made > dir/out; chmod +x dir/out; ln -s in dir/link; mkfifo fifo; mkdir new; rm dir/in";
    let ended = stage.run(&stage.shell(script)).await;
    assert_eq!(ended.end, End::Exited(0), "{}", text(&ended.stderr));
    let folder = ended.root.folder("dir").unwrap();
    assert_eq!(folder.kind_of("out").unwrap(), Some(Kind::File { size_bytes: 5, is_executable: true }));
    assert_eq!(std::io::read_to_string(folder.file("out").unwrap()).unwrap(), "made\n");
    assert_eq!(folder.kind_of("link").unwrap(), Some(Kind::Symlink));
    assert_eq!(folder.link("link").unwrap(), "in");
    assert_eq!(folder.kind_of("in").unwrap(), None);
    assert_eq!(ended.root.kind_of("fifo").unwrap(), Some(Kind::Other("a FIFO")));
    assert_eq!(ended.root.kind_of("new").unwrap(), Some(Kind::Folder));
}

#[tokio::test]
async fn a_hundred_megabytes_of_stdout_are_cut_and_the_command_goes_on() {
    let Some(stage) = Stage::set().await else { return };
    let ended = stage.run(&stage.shell("head -c 100000000 /dev/zero && echo done >&2")).await;
    assert_eq!((ended.end, text(&ended.stderr).as_str()), (End::Exited(0), "done\n"));
    assert_eq!(ended.stdout.dropped_bytes, 100_000_000 - (16 << 20));
    let kept = std::fs::metadata(ended.stdout.path.unwrap()).unwrap().len();
    assert!((16 << 20..(16 << 20) + 100).contains(&kept));
}

#[tokio::test]
async fn a_root_of_inputs_holds_nothing_of_the_worker() {
    let Some(stage) = Stage::set().await else { return };
    let Some(program) = stage.static_program(LISTER) else {
        eprintln!("skipped: no C compiler that can link statically");
        return;
    };
    stage.copy_program(&program, "bin/lister");
    let mut spec = stage.shell("");
    spec.root = Root::Inputs;
    spec.arguments = vec!["lister".to_owned()];
    spec.environment = vec![("PATH".to_owned(), "/bin".to_owned())];
    let ended = stage.run(&spec).await;
    let (out, err) = (text(&ended.stdout), text(&ended.stderr));
    let mut seen: Vec<_> = out.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, [".", "..", "bin", "dev", "proc", "tmp"], "{err}");
    assert!(ended.root.kind_of("made").unwrap().is_some());
}

#[tokio::test]
async fn what_was_mounted_for_an_action_is_no_output_of_it() {
    let Some(stage) = Stage::set().await else { return };
    let Some(program) = stage.static_program(LISTER) else {
        eprintln!("skipped: no C compiler that can link statically");
        return;
    };
    // The namespace goes some time after the command, so one look could come too late to see into it.
    for round in 0..20 {
        stage.copy_program(&program, "bin/lister");
        let mut spec = stage.shell("");
        spec.root = Root::Inputs;
        spec.arguments = vec!["/bin/lister".to_owned()];
        let ended = stage.run(&spec).await;
        assert_eq!(ended.end, End::Exited(0));
        for own in ["proc", "dev", "tmp"] {
            let names = ended.root.folder(own).unwrap().names(1000).unwrap();
            assert!(names.is_empty(), "round {round}, `/{own}`: {names:?}");
        }
        stage.again();
    }
}

/// Lists `/` and writes a file there.
const LISTER: &str = r#"
#include <dirent.h>
#include <stdio.h>
int main(void) {
  DIR *root = opendir("/");
  for (struct dirent *entry; (entry = readdir(root));) puts(entry->d_name);
  return fopen("/made", "w") ? 0 : 1;
}
"#;

#[tokio::test]
async fn the_next_action_finds_nothing_of_the_last() {
    let Some(stage) = Stage::set().await else { return };
    let script = "ls -A /tmp /dev/shm; ls -A . | grep -v '^in$'; umask; echo x > /tmp/x; echo x > /dev/shm/x; echo x > left; true";
    let first = text(&stage.run(&stage.shell(script)).await.stdout);
    let second = text(&stage.again().run(&stage.shell(script)).await.stdout);
    assert_eq!(first, second);
    assert!(first.contains("0022"), "{first}");
}

#[tokio::test]
async fn a_bomb_of_processes_ends_at_its_bound_and_leaves_nobody() {
    let few = Bounds { processes: 200, ..Bounds::for_this_machine(2) };
    let Some(stage) = Stage::bounded(Vec::new(), few).await else { return };
    let name = format!("castwork-bomb-{}", std::process::id());
    let script =
        format!("cp /bin/sleep {name}; i=0; while [ $i -lt 300 ]; do ./{name} 1000 & i=$((i + 1)); done");
    let ended = stage.run(&stage.shell(&script)).await;
    assert_ne!(ended.end, End::Exited(0));
    assert!(text(&ended.stderr).contains("fork"), "{}", text(&ended.stderr));
    assert_eq!(common::processes_named(&name), 0);
}

#[tokio::test]
async fn what_the_worker_keeps_in_a_system_folder_is_hidden() {
    let Ok(folder) = tempfile::TempDir::new_in("/opt") else {
        eprintln!("skipped: `/opt` can't be written");
        return;
    };
    // Open to all, so that only being covered keeps it from the action.
    set_mode(folder.path(), 0o755).unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    for name in ["data/secret", "config"] {
        std::fs::write(folder.path().join(name), "secret").unwrap();
    }
    let hidden = ["data", "config"].map(|name| folder.path().join(name)).to_vec();
    let Some(stage) = Stage::set_with(hidden).await else { return };
    let path = folder.path().display();
    let ended = stage.run(&stage.shell(&format!("ls {path}; ls -A {path}/data; cat {path}/config"))).await;
    assert_eq!(text(&ended.stdout), "config\ndata\n");
}

#[test]
fn all_of_it_holds_for_a_user_without_privileges() {
    common::run_again_unprivileged("all_of_it_holds_for_a_user_without_privileges");
}
